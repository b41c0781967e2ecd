"""Statistics of means over a few runs: spreads, chances, maxima, seeds, and rank correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping

from efflib.papers.bimask.audit.evidence import RUNS


def gain_spread(sigma: float, runs: int, baseline_averaged: bool) -> float:
    """Standard deviation over networks of a gain whose only noise is that of ``runs``-run means.

    Args:
        sigma: run-to-run standard deviation of one accuracy, in points.
        runs: runs per mean.
        baseline_averaged: True if the baseline is such a mean too, False if it is a fixed number.
    """
    return sigma * math.sqrt((2 if baseline_averaged else 1) / runs)


def chance_of_spread(spread: float, count: int, expected: float) -> float:
    """P(sample sd of ``count`` normal numbers <= spread) when their true sd is ``expected`` (chi-square)."""
    from scipy.special import chdtr

    return float(chdtr(count - 1, (count - 1) * (spread / expected) ** 2))


def expected_maximum(count: int) -> float:
    """Mean of the largest of ``count`` independent standard normal numbers."""
    from scipy.integrate import quad
    from scipy.special import ndtr

    def density(x: float) -> float:
        return x * count * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * ndtr(x) ** (count - 1)

    return float(quad(density, -9.0, 9.0)[0])


def seeds_for(difference: float, sigma: float, level: float = 0.05, power: float = 0.8) -> int:
    """Seeds per arm to detect a difference of two means (normal approximation, two-sided test)."""
    from scipy.special import ndtri

    quantiles = ndtri(1 - level / 2) + ndtri(power)
    return math.ceil(2 * (quantiles * sigma / difference) ** 2)


def difference_error(sigma: float) -> float:
    return sigma * math.sqrt(2 / RUNS)


def difference_half_width(sigma: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(2 * RUNS - 2, 0.975)) * difference_error(sigma)


def rank_correlation(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr([a[k] for k in a], [round(b[k], 6) for k in a]).statistic)
