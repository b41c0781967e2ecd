"""Arithmetic of printed numbers: how many images an accuracy means, its interval, and units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from efflib.papers.diswot.audit.evidence import Printed
from efflib.report.audit import exact, half_up


def counts_for(printed: Decimal, images: int) -> range:
    """How many of so many images may be right for a share in [0, 1] as printed, whichever way halves were rounded."""
    half = Decimal(5).scaleb(int(printed.as_tuple().exponent) - 1)
    least = max(0, math.ceil((printed - half) * images))
    return range(least, min(images, math.floor((printed + half) * images)) + 1)


def percent_counts(percent: Decimal, images: int) -> range:
    """As `counts_for`, for an accuracy in percent with two decimals."""
    return counts_for((percent / 100).quantize(Decimal("0.0001")), images)


def wilson(correct: int, images: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson interval of an accuracy, in percent."""
    from scipy.stats import binomtest

    found = binomtest(correct, images).proportion_ci(level, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def reported_accuracies(printed: Printed) -> dict[Decimal, str]:
    """Every test accuracy that the thesis reports for its own networks, in percent, and the first place of each."""
    found: dict[Decimal, str] = {}
    for table in ("table3_3", "table3_4", "table3_5", "table3_6"):
        factor = 100 if printed.tables[table].unit == "fraction" else 1
        for cell in printed.tables[table].numbers:
            found.setdefault((factor * exact(cell.value)).normalize(), table)
    return found


def correct_images(printed: Printed, percent: Decimal) -> int:
    """The number of correct test images that comes nearest to an accuracy."""
    return int(half_up(percent * printed.test_images / 100, 0))


def points(printed: Printed, table: str, method: str) -> Decimal:
    """A fraction of Table 3.4, in percent."""
    return half_up(100 * printed.value(table, method=method))


def floats(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items()}
