"""Rank correlations in bulk equal SciPy's; the bootstrap's intervals of their difference cover what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from efflib.papers.diswot import ranks
from efflib.papers.diswot.ranks import critical_tau, rank_correlation, tau_b, tau_difference
from efflib.papers.diswot.space import STUDENTS


@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "no ties"])
def test_tau_is_scipys_for_every_pair_of_orders(levels: int) -> None:
    generator = np.random.default_rng(levels)
    first, second = generator.integers(levels, size=(2, 20, 9)).astype(float)
    wanted = [kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert tau_b(first, second) == pytest.approx(wanted)
    assert tau_b(first[0], second) == pytest.approx([kendalltau(first[0], b).statistic for b in second])


def test_an_order_of_equal_numbers_has_no_tau() -> None:
    assert np.isnan(tau_b(np.ones(5), np.arange(5.0)))


def test_the_difference_is_that_of_the_taus_and_its_interval_holds_it() -> None:
    measured = np.arange(16.0)
    noisy = np.random.default_rng(1).permutation(measured)
    found = tau_difference(measured, noisy, measured)
    assert found.value == pytest.approx(1 - kendalltau(noisy, measured).statistic)
    assert 0 < found.low < found.value < found.high
    same = tau_difference(noisy, noisy, measured)
    assert same == (0.0, 0.0, 0.0)
    assert tau_difference(noisy, measured, measured).value == -found.value


@pytest.mark.parametrize(("one", "other", "between"), [(0.0, 0.0, 0.5), (0.6, 0.2, 0.3)], ids=["equal", "better"])
def test_intervals_of_sixteen_students_hold_the_true_difference_as_often_as_they_say(
    one: float, other: float, between: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Normal numbers with these correlations, whose taus are 2 / pi arcsin; 200 spaces of sixteen, so 95 +- 4 %."""
    monkeypatch.setattr(ranks, "RESAMPLES", 200)
    true = 2 / math.pi * (math.asin(one) - math.asin(other))
    correlations = [[1, between, one], [between, 1, other], [one, other, 1]]
    spaces = np.random.default_rng(0).multivariate_normal(np.zeros(3), correlations, size=(200, 16))
    found = [tau_difference(*space.T, seed=number) for number, space in enumerate(spaces)]
    assert 0.91 < np.mean([each.low <= true <= each.high for each in found]) < 0.99


# --- a predictor and accuracies ---------------------------------------------------------------------------


def test_rank_correlation_of_the_printed_triple() -> None:
    accuracies = {"best": {0: 90.92}, "intermediate": {0: 86.19}, "bad": {0: 84.52}}
    size = rank_correlation(
        {"best": 2_257_984, "intermediate": 410_208, "bad": 410_208}, accuracies, lower_is_better=False
    )
    assert size.tau == pytest.approx(0.8165, abs=1e-4)
    score = rank_correlation({"best": 1.35, "intermediate": 138.84, "bad": 176.12}, accuracies)
    assert (score.tau, score.rho) == pytest.approx((1, 1))
    assert score.p == pytest.approx(1 / 3)
    assert score.tau_interval is score.rho_interval is None  # one seed each
    assert score.n == 3


def test_the_interval_follows_the_scatter_of_the_seeds() -> None:
    names = list(STUDENTS)
    predictor = {name: -float(i) for i, name in enumerate(names)}

    def accuracies(scatter: float) -> dict[str, dict[int, float]]:
        generator = np.random.default_rng(0)
        return {name: {s: i + scatter * generator.normal() for s in range(3)} for i, name in enumerate(names)}

    exact = rank_correlation(predictor, accuracies(0))
    assert (exact.tau, exact.tau_interval, exact.rho_interval) == (1, (1, 1), (1, 1))
    noisy = rank_correlation(predictor, accuracies(5), resamples=300)
    assert noisy.tau_interval is not None
    low, high = noisy.tau_interval
    assert low < noisy.tau < 1
    assert 0.05 < high - low < 0.6
    assert noisy == rank_correlation(predictor, accuracies(5), resamples=300)


def test_sixteen_students_need_a_tau_above_036() -> None:
    tau = critical_tau(16)
    assert 0.36 < tau < 0.40
    pairs = 16 * 15 // 2
    for discordant in range(pairs // 2):
        order = ranks._with_inversions(16, discordant)
        found = kendalltau(range(16), order, method="exact")
        assert found.statistic == pytest.approx(1 - 2 * discordant / pairs)
        assert (found.pvalue < 0.05) == (found.statistic >= tau - 1e-12)
    with pytest.raises(ValueError, match="no order of 3 students"):
        critical_tau(3)


@pytest.mark.parametrize(
    ("predictor", "accuracies", "message"),
    [
        ({"a": 1, "b": 2}, {"a": {0: 1}, "b": {0: 2}}, "at least three"),
        ({"a": 1, "b": 2, "c": 3}, {"a": {0: 1}, "b": {0: 2}}, "only one has c"),
        ({"a": 1, "b": 2, "c": 3}, {"a": {0: 1}, "b": {0: 2}, "c": {}}, "c: predictor"),
        ({"a": 1, "b": math.nan, "c": 3}, {"a": {0: 1}, "b": {0: 2}, "c": {0: 3}}, "b: predictor nan"),
        ({"a": 1, "b": 1, "c": 1}, {"a": {0: 1}, "b": {0: 2}, "c": {0: 3}}, "predictor of all 3 students are equal"),
        ({"a": 1, "b": 2, "c": 3}, {"a": {0: 1}, "b": {0: 1}, "c": {0: 1}}, "accuracies of all 3"),
    ],
)
def test_rank_correlations_that_do_not_exist(predictor: dict, accuracies: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_correlation(predictor, accuracies)
