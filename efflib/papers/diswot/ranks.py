"""How well a predictor orders students by accuracy, and whether one predictor does so better than another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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


# --- what a predictor is worth ----------------------------------------------------------------------------


@dataclass(frozen=True)
class RankCorrelation:
    """How well a predictor orders students by accuracy.

    Args:
        tau: Kendall's tau-b; 1 if the predicted order is that of the accuracies.
        rho: Spearman's.
        p: two-sided p-value of tau (exact without ties); about 0.05 at `critical_tau(n)`.
        tau_interval, rho_interval: 95 % percentile interval of a bootstrap over seeds, the scatter of the accuracies
            alone; None if a student has one seed only.
        n: students.
    """

    tau: float
    rho: float
    p: float
    tau_interval: tuple[float, float] | None
    rho_interval: tuple[float, float] | None
    n: int


def rank_correlation(
    predictor: Mapping[str, float],
    accuracies: Mapping[str, Mapping[int, float]],
    *,
    lower_is_better: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> RankCorrelation:
    """Rank correlation of a predictor with the mean accuracy of trained students.

    Args:
        predictor: student -> number.
        accuracies: student -> seed -> accuracy.
        lower_is_better: True for scores (the sign is turned), False for parameters, MACs and NWOT.
        resamples: of the bootstrap, which draws each student's seeds with replacement.
        seed: of the bootstrap.

    Raises:
        ValueError: students that differ between the two, fewer than three, one without a seed, numbers that are not
            finite, or all numbers or accuracies equal.
    """
    names = _check_pairs(predictor, accuracies)
    predicted = np.array([predictor[name] for name in names]) * (-1 if lower_is_better else 1)
    by_seed = [np.array(list(accuracies[name].values()), dtype=float) for name in names]
    tau, p, rho = _correlations(predicted, np.array([own.mean() for own in by_seed]))
    intervals: list[tuple[float, float] | None] = [None, None]
    if min(map(len, by_seed)) > 1:
        generator = np.random.default_rng(seed)
        drawn = np.array([own[generator.integers(len(own), size=(resamples, len(own)))].mean(1) for own in by_seed])
        found = [_correlations(predicted, column) for column in drawn.T]
        intervals = [_percentiles([each[i] for each in found]) for i in (0, 2)]
    return RankCorrelation(tau, rho, p, intervals[0], intervals[1], len(names))


def critical_tau(n: int, level: float = 0.05) -> float:
    """Smallest |tau| of n students without ties whose exact two-sided p-value is below a level; 0.383 for n = 16.

    Raises:
        ValueError: so few students that no order has such a p-value.
    """
    from scipy.stats import kendalltau

    pairs = n * (n - 1) // 2
    for discordant in range(pairs // 2, -1, -1):
        order = _with_inversions(n, discordant)
        if kendalltau(range(n), order, method="exact").pvalue < level:
            return 1 - 2 * discordant / pairs
    raise ValueError(f"no order of {n} students has a p-value below {level:g}; take more students")


def _with_inversions(n: int, count: int) -> list[int]:
    """0..n-1 in an order with so many pairs the wrong way round."""
    rest, order = list(range(n)), []
    for left in range(n - 1, -1, -1):
        step = min(count, left)
        count -= step
        order.append(rest.pop(step))
    return order


def _check_pairs(predictor: Mapping[str, float], accuracies: Mapping[str, Mapping[int, float]]) -> list[str]:
    if predictor.keys() != accuracies.keys():
        only = sorted(predictor.keys() ^ accuracies.keys())
        raise ValueError(f"predictor and accuracies must be of the same students; only one has {', '.join(only)}")
    if len(predictor) < 3:
        raise ValueError(f"a rank correlation needs at least three students, got {', '.join(predictor) or 'none'}")
    for name, own in accuracies.items():
        if not own or not all(map(math.isfinite, [predictor[name], *own.values()])):
            raise ValueError(f"{name}: predictor {predictor[name]} and accuracies {dict(own)} must be finite numbers")
    means = {name: np.mean(list(own.values())) for name, own in accuracies.items()}
    for what, values in (("predictor", predictor), ("accuracies", means)):
        if len(set(values.values())) == 1:
            raise ValueError(f"the {what} of all {len(values)} students are equal: there is no order to compare")
    return list(predictor)


def _correlations(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """Kendall's tau-b, its p-value, Spearman's rho."""
    from scipy.stats import kendalltau, spearmanr

    tau = kendalltau(predicted, measured)
    return float(tau.statistic), float(tau.pvalue), float(spearmanr(predicted, measured).statistic)


def _percentiles(values: list[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
