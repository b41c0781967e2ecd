"""Rank correlations of many orders at once, and whether one predictor ranks students better than another does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 2000  # of the bootstrap over students


class Difference(NamedTuple):
    """How much better one predictor ranks students than another.

    Args:
        value: difference of the two Kendall's taus.
        low, high: ends of its 95 % interval.
    """

    value: float
    low: float
    high: float


def tau_b(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of the last axis, NaN where all numbers of one order are equal.

    Args:
        first, second: (..., n); what comes before n is broadcast.

    Source: Kendall 1945; equal to `scipy.stats.kendalltau` for each pair of orders.
    """
    a, b = (np.sign(order[..., :, None] - order[..., None, :]) for order in map(np.asarray, (first, second)))
    pairs = (-2, -1)
    ties = np.sqrt((a**2).sum(pairs) * (b**2).sum(pairs))
    return np.divide((a * b).sum(pairs), ties, out=np.full(ties.shape, np.nan), where=ties > 0)


def tau_difference(one: np.ndarray, other: np.ndarray, measured: np.ndarray, seed: int = 0) -> Difference:
    """tau(one, measured) - tau(other, measured), with the percentile interval of a bootstrap over students.

    The students are drawn with replacement, with both predictors and the accuracy of each: the interval says how much
    the difference depends on which students the space happens to have, not how training scatters.

    Args:
        one, other: (n,) predictors, each higher for students that it expects to be better.
        measured: (n,) accuracies.
        seed: of the bootstrap.
    """
    n = len(measured)
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    value = tau_b(one, measured) - tau_b(other, measured)
    spread = tau_b(one[drawn], measured[drawn]) - tau_b(other[drawn], measured[drawn])
    low, high = np.nanpercentile(spread, [2.5, 97.5])
    return Difference(float(value), float(low), float(high))
