"""Findings 1 to 3, the text against the tables: gains of VGG8 and VGG16, and the headline."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from efflib.papers.encodenet.audit.evidence import DATASETS, TEST, TEXT, Printed
from efflib.report.audit import Finding, half_up, words_of


def readings(before: Decimal, after: Decimal) -> dict[str, Decimal]:
    """Ways to express an improvement of two accuracies in %: points, and relative to either or to the errors."""
    gain = after - before
    return {
        "points": gain,
        "% of the baseline": 100 * gain / before,
        "% of the result": 100 * gain / after,
        "% fewer errors": 100 * gain / (100 - before),
    }


def _improvements(printed: Printed, model: str) -> list[dict[str, Any]]:
    """Per data set: baseline, EncodeNet, and every reading of the improvement."""
    rows = []
    for dataset in DATASETS:
        before, after = (
            printed.value("table2", model=model, dataset=dataset, method=m) for m in ("baseline", "encodenet")
        )
        rows.append({"dataset": dataset, "baseline": before, "EncodeNet": after, **_rounded(readings(before, after))})
    return rows


def _rounded(values: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {name: half_up(value) for name, value in values.items()}


def gains_of_vgg8(printed: Printed) -> Finding:
    rows, stated = _improvements(printed, "vgg8"), TEXT["vgg8"].numbers
    exactly = [readings(row["baseline"], row["EncodeNet"]) for row in rows]
    nearest = sorted(exactly[0].values(), key=lambda value: abs(value - stated[0]))[0]
    first, second = (found["points"] for found in exactly)
    text = (
        f"The text gives improvements of {stated[0]} % and {stated[1]} % for VGG8; Table 2 gives {first:.2f} and "
        f"{second:.2f} points. The second is the table's, rounded. The first is not: the nearest of the readings below "
        f"is {nearest:.2f}."
    )
    numbers = {"off": float(abs(nearest - stated[0]))}
    for row, found, number in zip(rows, exactly, stated):
        numbers |= {f"{row['dataset']}_points": float(found["points"]), f"{row['dataset']}_stated": float(number)}
        numbers |= {f"{row['dataset']}_relative": float(found["% of the baseline"])}
    rows = [{**row, "stated": number} for row, number in zip(rows, stated)]
    title = "The gain of VGG8 on CIFAR-10 in the text is not that of Table 2"
    return Finding(
        "encodenet-1", title, text, "text", "minor", ("table2",), tuple(rows), numbers, words_of(TEXT, "vgg8")
    )


def gains_of_vgg16(printed: Printed) -> Finding:
    rows, (low, high) = _improvements(printed, "vgg16"), TEXT["vgg16"].numbers
    exactly = [readings(row["baseline"], row["EncodeNet"]) for row in rows]
    points = [found["points"] for found in exactly]
    relative = [found["% of the baseline"] for found in exactly]
    inside = sum(low <= value <= high for value in points)
    text = (
        f"The text gives about {low} to {high} % for VGG16; Table 2 gives {points[0]:.2f} and {points[1]:.2f} points, "
        f"of which {inside} lie in that range (relative to the baselines: {relative[0]:.2f} and {relative[1]:.2f} %)."
    )
    numbers = {"inside": inside, "stated_low": float(low), "stated_high": float(high)}
    for row, found in zip(rows, exactly):
        numbers |= {f"{row['dataset']}_points": float(found["points"])}
        numbers |= {f"{row['dataset']}_relative": float(found["% of the baseline"])}
    title = "The gains of VGG16 in the text are not those of Table 2"
    return Finding(
        "encodenet-2", title, text, "text", "minor", ("table2",), tuple(rows), numbers, words_of(TEXT, "vgg16")
    )


def headline(printed: Printed) -> Finding:
    stated = TEXT["headline"].numbers[1]
    value = printed.value("table2", model="vgg16", dataset="cifar10", method="encodenet")
    images = float((value - stated) * TEST / 100)
    text = (
        f"Abstract and introduction give {stated} % for VGG16 with EncodeNet on CIFAR-10, Table 2 {value:.2f} %, a "
        f"difference of {images:.0f} test image in {TEST:,}."
    )
    numbers = {"stated": float(stated), "table": float(value), "images": images}
    title = "The headline of VGG16 differs from Table 2 in the last digit"
    return Finding("encodenet-3", title, text, "text", "minor", ("table2",), (), numbers, words_of(TEXT, "headline"))
