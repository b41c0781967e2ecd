"""Findings 3 to 7, sizes: parameters of the students and of the head, scores, the saving, FLOPs and MACs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from efflib.papers.diswot.audit.counting import floats
from efflib.papers.diswot.audit.evidence import BATCH, BEST, TEXT, Printed, words
from efflib.papers.diswot.costs import Cost, cost, recorded
from efflib.papers.diswot.scores import bound
from efflib.papers.diswot.space import ROLES, TEACHER
from efflib.report.audit import Finding, half_up

ROWS_BOUND = 2.0 * BATCH  # of a summed, row-normalised Gram matrix of the batch


def two_counts(printed: Printed) -> Finding:
    own = cost(BEST)
    head = own.keras_parameters - own.backbone_keras_parameters
    quoted = printed.tables["table3_8"].cell(model=BEST).millions
    rounded = half_up(Decimal(own.backbone_keras_parameters) / 10**6)
    printed_as = {
        "Table 3.3": printed.role("table3_3_parameters", "Best"),
        "Table 3.5": printed.value("table3_5_parameters", epochs=50),
        "Table 3.6": printed.value("table3_6_parameters", model=BEST),
    }
    rows = tuple(
        {
            "where": where,
            "as printed": f"{int(value):,}",
            "backbone without a head, counted": f"{own.backbone_keras_parameters:,}",
            "with its head, counted": f"{own.keras_parameters:,}",
        }
        for where, value in printed_as.items()
    )
    text = (
        f"Tables 3.3 and 3.5 give the best student {int(printed_as['Table 3.5']):,} parameters, Table 3.6 gives the "
        f"same student {int(printed_as['Table 3.6']):,}. The first is a MobileNetV2 without any head, the second has "
        f"the dense head ({head:,}). Table 3.8 compares with {quoted}M, the first number cut off (rounded it is "
        f"{rounded}M); with the head the network has {own.keras_parameters / 1e6:.2f}M. All are Keras totals, which "
        f"include {own.keras_parameters - own.parameters:,} running statistics of batch norms; PyTorch counts "
        f"{own.parameters:,}."
    )
    numbers = {"without_head": printed_as["Table 3.5"], "with_head": printed_as["Table 3.6"], "head": head}
    numbers |= {"counted_without": own.backbone_keras_parameters, "counted_with": own.keras_parameters}
    numbers |= {"torch": own.parameters, "quoted_millions": quoted, "rounded_millions": rounded}
    title = "One student, two parameter counts: without and with its head"
    tables = ("table3_3", "table3_5", "table3_6", "table3_8")
    return Finding("diswot-3", title, text, "baselines", "notable", tables, rows, floats(numbers))


def fewest(printed: Printed) -> Finding:
    counts = {role: printed.role("table3_3_parameters", role) for role in ROLES}
    others = max(value for role, value in counts.items() if role != "Best")
    ratio = counts["Best"] / others
    rows = tuple(
        {
            "student": role,
            "parameters": f"{int(counts[role]):,}",
            "DisWOT score": printed.role("table3_3_score", role),
            "test accuracy, %": printed.role("table3_3", role),
        }
        for role in ROLES
    )
    text = (
        "The conclusion says that the student with the lowest score has the highest accuracy and the fewest "
        f"parameters. In Table 3.3 it has the {'most' if ratio > 1 else 'fewest'}: {int(counts['Best']):,} against "
        f"{int(others):,}, {ratio:.1f} times as many."
    )
    title = "The best student has the most parameters of the three, not the fewest"
    numbers = floats({"best": counts["Best"], "others": others, "ratio": ratio})
    return Finding("diswot-4", title, text, "text", "notable", ("table3_3",), rows, numbers, words("fewest"))


def _columns(printed: Printed) -> tuple[list[float], list[float], list[float]]:
    """Scores, parameters and test accuracies of Table 3.3, in the order of ROLES."""
    scores, counts, accuracies = (
        [float(printed.role(table, role)) for role in ROLES]
        for table in ("table3_3_score", "table3_3_parameters", "table3_3")
    )
    return scores, counts, accuracies


def _score_rows(printed: Printed, steps: int) -> tuple[dict[str, Any], ...]:
    scores, counts, _ = _columns(printed)
    return tuple(
        {
            "student": role,
            "score, as printed": printed.role("table3_3_score", role),
            "largest by the printed formula": f"{bound():.2f}",
            f"printed over {steps} batches": f"{score / steps:.4f}",
            "parameters": f"{int(count):,}",
        }
        for role, score, count in zip(ROLES, scores, counts)
    )


def _bounds_text(scores: Sequence[float], steps: int) -> str:
    norm = bound()
    return (
        f"Both terms of the printed score are distances of matrices of unit norm, at most {norm / 2:.3f} each: the "
        f"score cannot exceed {norm:.2f}. {sum(s > norm for s in scores)} of the {len(scores)} printed scores do, by "
        f"up to {max(scores) / norm:.0f} times; they also exceed {ROWS_BOUND:.0f}, the bound of a summed, "
        f"row-normalised Gram matrix of {BATCH} images. A sum over channels (bound {bound('relation_sum_rows'):,.0f}), "
        f"or over the {steps} batches of an epoch, could be that large; the thesis says neither. "
    )


def three_points(printed: Printed) -> Finding:
    from scipy.stats import kendalltau

    scores, counts, accuracies = _columns(printed)
    by_score, by_size = kendalltau([-s for s in scores], accuracies), kendalltau(counts, accuracies)
    steps, orders = math.ceil(printed.train_images / BATCH), math.factorial(len(scores))
    variants = TEXT["space"].numbers[0]
    text = _bounds_text(scores, steps) + (
        f"Two of the three students have the same number of parameters ({int(counts[1]):,}), and the best has more: "
        f"the number of parameters alone names the winner (tau-b {by_size.statistic:.2f}, that of the score "
        f"{by_score.statistic:.2f}). Three students come in the right order by chance once in {orders} times "
        f"(two-sided p = {by_score.pvalue:.2f}). The thesis reports {len(scores)} of its {int(variants)} variants; we "
        "score and train all of our space."
    )
    numbers = {"bound": bound(), "above": sum(s > bound() for s in scores), "largest_ratio": max(scores) / bound()}
    numbers |= {"rows_bound": ROWS_BOUND, "tau_score": float(by_score.statistic)}
    numbers |= {"tau_parameters": float(by_size.statistic), "chance": 1 / orders, "p": float(by_score.pvalue)}
    numbers |= {"steps": steps, "equal_counts": counts[1] == counts[2]}
    numbers |= {f"per_batch_{role.lower()}": score / steps for role, score in zip(ROLES, scores)}
    numbers |= {"channel_bound": bound("relation_sum_rows"), "variants": float(variants)}
    rows = _score_rows(printed, steps)
    title = "Three points, of which two exceed the bound of the printed score"
    quotes, sources = words("inverse", "space", "untrained"), printed.sources("official_code")
    return Finding("diswot-5", title, text, "statistics", "major", ("table3_3",), rows, numbers, quotes, sources)


def _saving(counted: Cost, base: Cost, what: str) -> float:
    """Percent by which a cost lies below another."""
    return 100 * (1 - getattr(counted, what) / getattr(base, what))


def _printed_savings(printed: Printed) -> dict[str, Decimal]:
    """What Table 3.6 prints less for the student than for the teacher, in percent, by column."""
    found = {}
    for what in ("parameters", "flops", "size"):
        student, teacher = (printed.value(f"table3_6_{what}", model=name) for name in (BEST, TEACHER.name))
        found[what] = 100 * (1 - student / teacher)
    return found


def _network_rows(networks: Mapping[str, Cost]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "network": name,
            "backbone": f"{own.backbone_keras_parameters:,}",
            "head": f"{own.keras_parameters - own.backbone_keras_parameters:,}",
            "MACs": f"{own.macs:,}",
            "memory access of the backbone (eq. 3.7)": f"{own.backbone_memory_access:,}",
            "MB": half_up(Decimal(own.megabytes)),
        }
        for name, own in networks.items()
    )


def flatten(printed: Printed) -> Finding:
    teacher, student = cost(TEACHER.name), cost(BEST)
    dense = recorded(TEACHER.name).dense[0]
    first = dense.weights + dense.outputs[0]
    _, stated = TEXT["headline"].numbers
    as_printed = _printed_savings(printed)
    reduced = {size: _saving(cost(BEST, size), cost(TEACHER.name, size), "keras_parameters") for size in (96, 224)}
    drop = printed.value("table3_6", model=TEACHER.name) - printed.value("table3_6", model=BEST)
    rows = _network_rows({"teacher": teacher, "student": student})
    text = (
        f"The stated saving of over {stated} % of the parameters is {as_printed['parameters']:.2f} % in Table 3.6, the "
        f"FLOPs beside it fall by {as_printed['flops']:.2f} %. Teacher and student have the same backbone, "
        f"{teacher.backbone_keras_parameters:,} parameters: they differ in flattening the last map or averaging it. "
        f"The whole saving is the teacher's first dense layer on {dense.inputs[0]:,} inputs, {first:,} parameters. It "
        f"depends on the image size: at 96 pixels the same two networks differ by {reduced[96]:.1f} %. The accuracy "
        f"beside it falls by {drop} points."
    )
    numbers = {f"{what}_saving": float(value) for what, value in as_printed.items()}
    numbers |= {"saving_96": reduced[96], "saving_224": reduced[224], "first_dense": first, "drop": float(drop)}
    numbers |= {"same_backbone": teacher.backbone_keras_parameters == student.backbone_keras_parameters}
    title = "The saving is a global average in place of flattening, on one and the same backbone"
    quotes = words("headline")
    return Finding("diswot-6", title, text, "text", "major", ("table3_6",), rows, numbers, quotes)


def half_of_flops(printed: Printed) -> Finding:
    rows, numbers = [], dict[str, float]()
    for role, name in (("teacher", TEACHER.name), ("student", BEST)):
        own = cost(name)
        flops, macs = (printed.value(f"table3_6_{what}", model=name) for what in ("flops", "macs"))
        numbers |= {f"{role}_flops": float(flops), f"{role}_macs": float(macs), f"{role}_true": own.macs}
        numbers |= {f"{role}_counted": own.profiler_flops, f"{role}_is_half": macs == flops / 2}
        rows.append(
            {
                "network": role,
                "FLOPs, as printed": f"{int(flops):,}",
                "profiler's count, recomputed": f"{own.profiler_flops:,}",
                "MACs, as printed": f"{int(macs):,}",
                "multiply-accumulates, counted": f"{own.macs:,}",
                "more, %": half_up(100 * (macs / own.macs - 1), 1),
            }
        )
    equal = all(row["FLOPs, as printed"] == row["profiler's count, recomputed"] for row in rows)
    text = (
        f"The printed FLOPs are {'exactly ' if equal else 'not '}what the TensorFlow profiler counts for these "
        "networks, batch norms, residual sums, biases and the softmax included. The printed MACs are half of that, so "
        f"that they contain all of these as well: {numbers['teacher_macs'] / 1e6:.1f} and "
        f"{numbers['student_macs'] / 1e6:.1f} million, where the convolutions and dense layers make "
        f"{numbers['teacher_true'] / 1e6:.1f} and {numbers['student_true'] / 1e6:.1f} million multiply-accumulates."
    )
    title = "The printed MACs are half of a profiler's FLOPs"
    numbers["profiler_equal"] = equal
    quotes = words("half")
    return Finding("diswot-7", title, text, "arithmetic", "minor", ("table3_6",), tuple(rows), numbers, quotes)
