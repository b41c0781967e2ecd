"""Findings 8 and 9, relevance maps and the distances between them."""

from __future__ import annotations

from functools import cache

from efflib.papers.diswot.audit.evidence import BATCH, TEXT, Printed, equations_as_printed, words
from efflib.papers.diswot.space import HEADS, STUDENTS, TEACHER
from efflib.report.audit import Finding


@cache
def maps_apart(name: str, image_size: int = 64) -> float:
    """Difference of Grad-CAM and gradient times activation at the last map of an untrained network (`identity.apart`).

    On four random images; the features on the batch's statistics, as they vanish with those of an untrained network.
    """
    import torch

    from efflib.papers.diswot.identity import apart
    from efflib.papers.diswot.space import build
    from efflib.training import seeded

    with seeded(0, f"audit {name}"):
        network = build(name, image_size).double()
        images = torch.rand(4, 1, image_size, image_size, dtype=torch.float64)
    return apart(network, images, torch.arange(4), "s32")


def relevance(printed: Printed) -> Finding:
    gaps = {name: maps_apart(name) for name in (TEACHER.name, *STUDENTS)}
    of_head = {head: [gaps[name] for name, own in STUDENTS.items() if own.head == head] for head in HEADS}
    of_students, of_convolved = max(of_head["gap"]), min(of_head["dsc"])
    side = 224 // 32
    rows = tuple({"network": name, "largest relative difference": f"{value:.1g}"} for name, value in gaps.items())
    claimed = [
        cell.text["lrp_cosine"][0]
        for cell in printed.tables["table2_1"].cells
        if cell.keys["criterion"] in ("spatial_precision", "interpretability")
    ]
    text = (
        "What equations 2.17 and 2.18 define as LRP is the gradient times the activation at one layer; nothing is "
        "propagated from layer to layer. Where a global average follows the map directly, the gradient is the same at "
        "every position, so that the sum over channels of gradient times activation is Grad-CAM's map. At the last map "
        f"of the {len(of_head['gap'])} untrained students of our space that end so, the one of the thesis's final "
        f"tables among them, the largest relative difference of the two is {of_students:.1g} in double precision. In "
        f"the teacher, which flattens, it is {gaps[TEACHER.name]:.1f}; in the {len(of_head['dsc'])} students with "
        f"convolutions before the average it is at least {of_convolved:.1g}. With the thesis's final student, "
        "replacing Grad-CAM by this LRP at the last map changes the teacher's map only. "
        f'Both have {side} x {side} positions at 224 pixels: "{claimed[0]}" and "{claimed[1]}" of Table 2.1 do not '
        "follow from it. Gradient times activation equals LRP with epsilon 0 for plain ReLUs; MobileNetV2 has ReLU6, "
        "whose gradient is zero where it saturates."
    )
    numbers = {"students": of_students, "teacher": gaps[TEACHER.name], "networks": len(gaps), "side": side}
    numbers |= {"convolved": of_convolved}
    title = "LRP, as defined here, is Grad-CAM's map where a global average follows it"
    quotes = words("backwards", "resolution")
    sources = printed.sources("lrp_equals_gradient")
    tables = ("table2_1", "table3_5", "table3_3")
    return Finding("diswot-8", title, text, "formulas", "major", tables, rows, numbers, quotes, sources)


@cache
def toy_distances() -> dict[str, float]:
    """Distances of two Gram matrices: of features I and of [[1, 0], [1, 0]]; and of two random batches."""
    import torch

    from efflib.kernels import gram_distance

    generator = torch.Generator().manual_seed(0)
    pairs = {
        "toy": (torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)),
        "random": tuple(torch.rand(BATCH, 49, generator=generator, dtype=torch.float64) for _ in range(2)),
    }
    return {
        f"{name}_{metric}": float(gram_distance(first, second, metric))
        for name, (first, second) in pairs.items()
        for metric in ("l2", "cosine")
    }


def same_distance(printed: Printed) -> Finding:
    found = toy_distances()
    rows = tuple(
        {
            "features": name,
            "L2 of eq. 2.9": f"{found[f'{name}_l2']:.7f}",
            "half of its square": f"{found[f'{name}_l2'] ** 2 / 2:.7f}",
            "cosine of eq. 2.27": f"{found[f'{name}_cosine']:.7f}",
        }
        for name in ("toy", "random")
    )
    apart = max(abs(found[f"{name}_l2"] ** 2 / 2 - found[f"{name}_cosine"]) for name in ("toy", "random"))
    stated = TEXT["range"].words
    text = (
        "For matrices of unit norm, 1 - <A, B> is half of the squared distance: the cosine form of the relation loss "
        f"(eq. 2.27) and the L2 form (eqs. 2.12, 3.12) order all pairs alike and have the same minimum (they agree to "
        f"{apart:.0e} in the examples below). Normalisation has made equations 2.9 and 2.12 invariant to scale "
        "already; "
        'that L2 is sensitive to scale holds for raw maps (eqs. 2.16 and 2.19). The thesis uses "L2" for three things: '
        "an unsquared distance of normalised matrices (2.9), a squared distance of raw maps (2.16, 2.19), and the norm "
        "by which it normalises. What does differ is the gradient: that of an unsquared norm keeps its length near the "
        f"minimum. The range printed after equation 2.21 ({stated.partition('$')[2].rstrip('$')}) is [0, 1] for maps "
        "behind a ReLU."
    )
    title = "Cosine and the normalised L2 are the same distance, up to a monotone map"
    tables = ("table3_5", "table2_1", "table2_2")
    quotes = (*words("invariant", "norm", "squared", "range"), *equations_as_printed("2.9", "2.16"))
    return Finding("diswot-9", title, text, "formulas", "major", tables, rows, {**found, "apart": apart}, quotes)
