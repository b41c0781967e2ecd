"""Rank correlations in bulk equal SciPy's, and the bootstrap of their difference covers what it should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from efflib.papers.diswot.ranks import tau_b, tau_difference


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
