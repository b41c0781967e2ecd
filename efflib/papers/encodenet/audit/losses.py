"""Findings 4 to 6, reconstruction losses: Table 1, the text's numbers, and what a constant output scores."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from statistics import fmean
from typing import Any

from efflib.papers.encodenet.audit.evidence import MODELS, TEXT, Printed, spelt
from efflib.report.audit import Finding, words_of

_CODES = {"class": 10, "cluster": 30}  # representative images on CIFAR-10: ten classes, three clusters each


def _losses(printed: Printed) -> dict[str, dict[str, Decimal]]:
    """Model -> target -> loss of Table 1."""
    return {m: {t: printed.value("table1", model=m, target=t) for t in _CODES} for m in MODELS}


def _drop(before: Decimal, after: Decimal) -> float:
    """Relative fall in %; negative for a rise."""
    return float(100 * (before - after) / before)


def pixel_variance(dataset: str = "cifar10") -> float:
    """Mean over channels of the variance of a pixel in [0, 1]: the loss of an output of one constant colour."""
    from efflib.data.sets import NORMALISATION

    _, deviations = NORMALISATION[dataset]
    return fmean(deviation**2 for deviation in deviations)


def loss_with_clustering(printed: Printed) -> Finding:
    losses, flat = _losses(printed), pixel_variance()
    rows: list[dict[str, Any]] = [
        {"model": m, "without": own["class"], "with": own["cluster"], "drop, %": _drop(own["class"], own["cluster"])}
        for m, own in losses.items()
    ]
    (odd,) = (m for m, own in losses.items() if own["cluster"] > own["class"])
    own = losses[odd]
    read = own["cluster"] / 10
    drop = _drop(own["class"], read)
    others = [row["drop, %"] for row in rows if row["model"] != odd]
    stated, *_ = TEXT["loss"].numbers
    text = (
        f"{spelt(odd)} is printed with a loss of {own['cluster']} with clustering and {own['class']} without, a rise, "
        f"against the claim; {own['cluster']} is also more than an output of one constant colour would score on "
        f"CIFAR-10 images ({flat:.3f}). Read as {read}, it is a fall of {drop:.0f} %, which is the {stated} % of the "
        f"text; the other three models fall by {min(others):.0f} to {max(others):.0f} %. It appears to be a slip of "
        "the decimal point."
    )
    numbers = {
        "drop_if_a_slip": drop,
        "constant_colour": flat,
        "smallest_other": min(others),
        "largest_other": max(others),
    }
    numbers |= {f"drop_{row['model']}": row["drop, %"] for row in rows}
    title = "One loss of Table 1 rises with clustering, most likely by a misplaced decimal point"
    quotes = ("Table 1 shows the effectiveness of intraclass clustering in minimizing the reconstruction loss",)
    return Finding("encodenet-4", title, text, "arithmetic", "minor", ("table1",), tuple(rows), numbers, quotes)


def loss_in_the_text(printed: Printed) -> Finding:
    percent, before, after = TEXT["loss"].numbers
    losses = _losses(printed)
    columns = {target: [own[target] for own in losses.values()] for target in _CODES}
    (slip,) = (own["cluster"] / 10 for own in losses.values() if own["cluster"] > own["class"])
    factors = {
        "without": min(columns["class"]) / before,
        "with": min(columns["cluster"]) / after,
        "with, encodenet-4 corrected": min(*columns["cluster"], slip) / after,
    }
    plain, clustered, corrected = factors.values()
    drop, tenfold = _drop(before, after), [f"{float(10 * loss):g}" for loss in (before, after)]
    text = (
        f"The text gives losses of {before} without and {after} with clustering ({drop:.1f} %, printed as {percent} "
        f"%). No network of Table 1 has such values: its smallest loss without clustering is {plain:.1f} times as "
        f"large, the smallest with clustering {clustered:.1f} times ({corrected:.1f} with encodenet-4 corrected). Ten "
        f"times the text's numbers, {tenfold[0]} and {tenfold[1]}, would resemble VGG16. The text does not say which "
        "network it means."
    )
    rows = tuple({"column": name, "smallest of Table 1 / text": float(factor)} for name, factor in factors.items())
    numbers = {"drop": drop, "factor_without": float(plain), "factor_with": float(clustered)}
    numbers["factor_corrected"] = float(corrected)
    title = "The losses in the text are less than a tenth of any in Table 1"
    return Finding("encodenet-5", title, text, "text", "notable", ("table1",), rows, numbers, words_of(TEXT, "loss"))


def constant_mse(codes: Sequence[float], classes: Sequence[int]) -> float:
    """Loss of the best constant output for code images of one grey each, equally frequent (`Codebook.constant_mse`)."""
    import torch

    from efflib.papers.encodenet.codebook import Codebook

    everyone = torch.arange(len(codes))
    images = torch.tensor(codes)[:, None, None, None]
    return Codebook(images, torch.tensor(classes), everyone, everyone, everyone).constant_mse


def losses_not_comparable(printed: Printed) -> Finding:
    plain, split = constant_mse((0.0, 1.0), (0, 1)), constant_mse((0.0, 0.5, 0.5, 1.0), (0, 0, 1, 1))
    drop = 100 * (plain - split) / plain
    expected = {target: pixel_variance() * (1 - 1 / count) for target, count in _CODES.items()}
    losses = _losses(printed)
    rows = tuple(
        {"model": m, "target": t, "printed": own[t], "share of a constant output's loss": float(own[t]) / expected[t]}
        for m, own in losses.items()
        for t in _CODES
    )
    text = (
        "Table 1 compares losses towards different sets of target images, and a loss alone does not tell how much was "
        "learnt: what an output that ignores its input would score depends on the targets. Two classes with a black "
        f"and a white target give such an output a loss of {plain:.2f}; with targets black and grey, grey and white it "
        f"is {split:.3f}, a drop of {drop:.0f} % without any learning. This number is needed for each target set (we "
        "record it beside every loss); nor does the table say whether its losses are of training or of test images. If "
        f"targets varied like any CIFAR-10 images, it would be about {expected['class']:.3f} for {_CODES['class']} "
        f"targets and {expected['cluster']:.3f} for {_CODES['cluster']}, as the last column assumes."
    )
    numbers = {"two_codes": plain, "four_codes": split, "drop_without_learning": drop}
    numbers |= {f"expected_{target}": value for target, value in expected.items()}
    title = "Raw losses towards different targets cannot be compared"
    return Finding(
        "encodenet-6", title, text, "statistics", "major", ("table1",), rows, numbers, words_of(TEXT, "loss")
    )
