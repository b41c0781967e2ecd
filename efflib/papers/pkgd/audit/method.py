"""Findings 6 to 9, the method: its released code, its ablation, its equations and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from efflib.models import parameters_of
from efflib.papers.pkgd.audit.counting import run_cost, units
from efflib.papers.pkgd.audit.evidence import Printed
from efflib.papers.pkgd.audit.readers import named
from efflib.papers.pkgd.claims import ABLATION, SINGLE_MODULES
from efflib.report.audit import Finding

# --- the released code ------------------------------------------------------------------------------------


def released_code(printed: Printed) -> Finding:
    fact = printed.facts["coordinate_attention"]
    rows: list[dict[str, Any]] = []
    numbers: dict[str, float] = {}
    students = (s for t in ("table1", "table2") for _, s in printed.pairs(t))
    for student in dict.fromkeys(students):
        if student.startswith(("resnet", "vgg", "shufflenet")):
            plain, added = parameters_of(student, 100), sum(units(student, fact["least"], fact["ratio"]))
            share = 100 * added / plain
            rows.append({"student": student, "parameters": plain, "with units": plain + added, "added, %": share})
            numbers |= {f"{student}_with": plain + added, f"{student}_share": share}
    most = max(rows, key=lambda row: row["added, %"])
    text = (
        "The released script fuses the student's features, not the teacher's; its fusion has no layer norm; the "
        "guidance module is built anew with random weights at each step and is not trained; its residual is the "
        "normalised feature; and a coordinate attention unit follows the stem and every stage of ResNet, VGG and "
        "ShuffleNet, in the student too and at test time. By the unit's formula these add up to "
        f"{most['added, %']:.2f} % of a student's parameters ({most['student']}: {most['parameters']:,} to "
        f"{most['with units']:,}); RP KD's code has them in ResNet and ShuffleNet. There is no code for detection with "
        "PKGD and none for Tiny ImageNet. Which version gave the printed numbers is open; we train the described "
        "method, and the released one with random and with trained guidance beside it."
    )
    quotes = (
        "we employ progressive forward and backward propagation of teacher features to obtain more informative "
        "second-order fusion features",
        "The code will be available at <https://github.com/CaoQiZhi/PKGD>",
    )
    title = "The released code is not the described method"
    tables = ("table1", "table2", "table3", "table4", "table5", "figure5")
    sources = printed.sources("pkgd_code", "rpkd_code", "coordinate_attention")
    return Finding("pkgd-6", title, text, "formulas", "major", tables, tuple(rows), numbers, quotes, sources)


# --- ablation, equations, cost ----------------------------------------------------------------------------


def ablation(printed: Printed) -> Finding:
    steps = ("baseline", "pkgd_mlff", "pkgd_mlff_ddag", "pkgd")
    gains = {m: printed.gain("table5", ABLATION, m) for m in (*SINGLE_MODULES, "pkgd_mlff_ddag", "pkgd")}
    increments = {after: gains[after] - gains.get(before, Decimal(0)) for before, after in pairwise(steps)}
    single = sum((gains[m] for m in SINGLE_MODULES), Decimal(0))
    rows = [
        {"modules": m, "accuracy": printed.value("table5", ABLATION, m), "gain": gain, "step from the row before": step}
        for m, gain in gains.items()
        for step in [increments.get(m) if m != "pkgd_mlff" else None]
    ]
    text = (
        f"The single modules gain {', '.join(f'{gains[m]:.2f}' for m in SINGLE_MODULES)} points ({single:.2f} "
        f"together), all three {gains['pkgd']:.2f}: their effects appear to overlap largely. Adding DDAG to "
        f"MLFF gives {increments['pkgd_mlff_ddag']:.2f} and adding KD to both {increments['pkgd']:.2f}, without a "
        "number of runs or a deviation. MLFF alone is not defined by the description, since there its output only "
        "enters DDAG; as the released code has it (on the student's features), it is RP KD without its response "
        f"term, and {printed.value('table5', ABLATION, 'pkgd_mlff'):.2f} is close to RP KD's "
        f"{printed.value('table1', ABLATION, 'rpkd'):.2f} in Table 1. We run both readings."
    )
    numbers = {
        "sum_of_single_gains": float(single),
        "total_gain": float(gains["pkgd"]),
        "step_ddag": float(increments["pkgd_mlff_ddag"]),
        "step_kd": float(increments["pkgd"]),
        **{f"gain_{m}": float(gains[m]) for m in SINGLE_MODULES},
    }
    quotes = (
        "each module can significantly improve the performance of the baseline model when used alone",
        "with an improvement of 3.35% in accuracy",
        "the second-order fusion features are utilized as prior knowledge to guide student features",
    )
    title, tables = "The ablation's steps are small and its modules overlap", ("table5",)
    return Finding("pkgd-7", title, text, "statistics", "major", tables, tuple(rows), numbers, quotes)


def equations(printed: Printed) -> Finding:
    example = ((1.0, 2.0), (3.0, 4.0))
    first, second = position_weights(example)
    text = (
        "Equation 15 has no cross-entropy with the labels (the released code has it). Equation 14 leaves open "
        "whether the fused or the original teacher features supervise, equations 5 and 6 how the infix operation "
        "associates, equations 8 and 9 whether the products are scaled. Equation 11 multiplies by the spatial map from "
        "the right: the softmax runs along its rows, so that the weights of one output position do not sum to 1 (for "
        f"the scores ((1, 2), (3, 4)) they sum to {first:.2f} and {second:.2f}). Never stated: alpha, the temperature, "
        "the warm-up, weight decay, momentum, and the number of runs."
    )
    numbers = {"first_position": first, "second_position": second}
    quotes = (
        "α is a coefficient for balancing the different loss functions",
        "we utilize teacher features to supervise the guided features",
    )
    title = "The equations leave choices open"
    sources = printed.sources("pkgd_code")
    return Finding("pkgd-8", title, text, "formulas", "notable", ("table5",), (), numbers, quotes, sources)


def position_weights(scores: Sequence[Sequence[float]]) -> list[float]:
    """Sums of the weights that each output position gets in eq. 11: column sums of the softmax along rows."""
    import torch

    return torch.tensor(scores, dtype=torch.float64).softmax(dim=1).sum(dim=0).tolist()


def flops(printed: Printed) -> Finding:
    pairs = [*printed.pairs("table1"), *printed.pairs("table2")]
    costs = {pair: {arm: run_cost(pair, arm) for arm in ("logits", "pkgd", "reviewkd")} for pair in pairs}
    rows = tuple({"pair": named(pair), **{f"{a}, PFLOP": c for a, c in own.items()}} for pair, own in costs.items())
    fewer = sum(own["pkgd"] < own["reviewkd"] for own in costs.values())
    total = {arm: sum(own[arm] for own in costs.values()) for arm in ("logits", "pkgd", "reviewkd")}
    code = run_cost(ABLATION, "pkgd_code_random")
    numbers = {f"{arm}_{'_'.join(pair)}": cost for pair, own in costs.items() for arm, cost in own.items()}
    numbers |= {f"total_{arm}": cost for arm, cost in total.items()}
    numbers |= {"fewer_than_reviewkd": fewer, "code": code}
    text = (
        "The text says that PKGD costs more than the other methods. Counted on the networks and modules themselves "
        "(forward and backward pass of the student and of the modules, forward pass of the teacher, 240 epochs of "
        f"50,000 images), the described method needs fewer FLOPs than ReviewKD in {fewer} of {len(rows)} pairs of "
        f"Tables 1 and 2 (together {total['pkgd']:.0f} PFLOP, ReviewKD {total['reviewkd']:.0f}, a method on logits "
        f"{total['logits']:.0f}). The statement fits the released code, which has ReviewKD's chain, a second one and "
        f"DDAG ({named(ABLATION)}: {code:.2f} against {costs[ABLATION]['reviewkd']:.2f}). FLOPs are not seconds: time "
        "is measured in Figure 5."
    )
    quotes = ("Although our method incurs higher computational costs",)
    title = "The described method needs fewer FLOPs than ReviewKD"
    sources = printed.sources("pkgd_code", "reviewkd_code")
    return Finding("pkgd-9", title, text, "text", "notable", (), rows, numbers, quotes, sources)
