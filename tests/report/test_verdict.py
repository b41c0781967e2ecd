"""Synthetic runs: each verdict can occur, and the edges fall on the side that DESIGN section 6 names."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from efflib.report import verdict as v

FIVE = [-0.2, -0.1, 0.0, 0.1, 0.2]
HALF = stats.t.ppf(0.975, 4) * stats.tstd(FIVE) / math.sqrt(5)  # half-width of FIVE


def around(mean: float) -> dict[int, float]:
    return {seed: mean + d for seed, d in enumerate(FIVE)}


def test_interval_is_student_t() -> None:
    got = v.interval(around(92.0))
    low, high = stats.t.interval(0.95, 4, loc=92.0, scale=stats.sem(FIVE))
    assert (got.mean, got.n) == (pytest.approx(92.0), 5)
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))
    assert got.text() == "92.00 ± 0.20 (5)"
    assert v.interval(around(0.5)).text(signed=True) == "+0.50 ± 0.20 (5)"
    assert v.interval({0: -1e-9}).text() == "0.00 (1)" and v.interval({0: -0.01}).text() == "-0.01 (1)"


def test_one_run_has_no_interval() -> None:
    got = v.interval([92.41])
    assert (got.low, got.high, got.std, got.half_width) == (None, None, None, None)
    assert got.text() == "92.41 (1)"


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], {0: float("inf")}])
def test_interval_refuses(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"interval\(\) of"):
        v.interval(bad)


def test_paired_uses_common_seeds_only() -> None:
    assert v.paired({2: 5.0, 0: 3.0, 7: 1.0}, {0: 1.0, 2: 1.5, 9: 0.0}) == {0: 2.0, 2: 3.5}
    assert v.paired({0: 1.0}, {}) == {}


@pytest.mark.parametrize(
    ("unit", "printed", "margin"),
    [("percent", 92.5, 0.5), ("bytes", 2000, 20), ("nats", 1.6, 0.05), ("ap", 38, 0.5), ("count", 87466, 0)],
)
def test_margins(unit: str, printed: float, margin: float) -> None:
    assert v.margin_for(unit, printed) == pytest.approx(margin)


def test_unknown_unit_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'furlong'.*percent.*count"):
        v.margin_for("furlong", 1.0)


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (92.5, v.REPRODUCED),
        (92.5 + 0.5 - HALF, v.REPRODUCED),  # touches the margin from inside
        (92.5 - 0.5 + HALF, v.REPRODUCED),
        (92.5 + 0.5 - HALF + 1e-4, v.UNDETERMINED),
        (92.5 + 0.5, v.UNDETERMINED),
        (92.5 + 0.5 + HALF, v.UNDETERMINED),  # touches the margin from outside
        (92.5 + 0.5 + HALF + 1e-4, v.HIGHER),
        (92.5 - 0.5 - HALF, v.UNDETERMINED),
        (92.5 - 0.5 - HALF - 1e-4, v.LOWER),
    ],
)
def test_cell_verdicts_and_their_edges(mean: float, expected: str) -> None:
    got = v.cell_verdict(around(mean), 92.5, 0.5, "paper")
    assert got.verdict == expected
    assert got.interval.mean == pytest.approx(mean)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rounding", [-1e-12, 1e-12])
def test_touching_the_margin_does_not_depend_on_binary_rounding(sign: int, rounding: float) -> None:
    inside = v.cell_verdict(around(92.5 + sign * (0.5 - HALF) + rounding), 92.5, 0.5, "paper")
    outside = v.cell_verdict(around(92.5 + sign * (0.5 + HALF) + rounding), 92.5, 0.5, "paper")
    assert (inside.verdict, outside.verdict) == (v.REPRODUCED, v.UNDETERMINED)


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_seeds_decide_nothing(n: int) -> None:
    got = v.cell_verdict([92.5] * n, 92.5, 0.5, "paper")
    assert got.verdict == v.UNDETERMINED
    assert f"{n} seed" in got.reason


@pytest.mark.parametrize("scale", ["smoke", "tiny", "small"])
def test_only_paper_scale_gives_a_verdict(scale: str) -> None:
    got = v.cell_verdict(around(92.5), 92.5, 0.5, scale)
    assert got.verdict == v.NOT_RUN
    assert "no paper-scale runs" in got.reason
    assert got.interval.n == 5  # what was measured is still shown


def test_nothing_recorded() -> None:
    got = v.cell_verdict({}, 92.5, 0.5, "paper", missing="failed: NaN")
    assert (got.verdict, got.reason, got.interval) == (v.NOT_RUN, "failed: NaN", None)


def test_a_data_variant_is_never_reproduced() -> None:
    inside = v.cell_verdict(around(92.5), 92.5, 0.5, "paper", variant="jpeg-q7")
    below = v.cell_verdict(around(90.0), 92.5, 0.5, "paper", variant="jpeg-q7")
    assert inside.verdict == v.UNDETERMINED
    assert inside.seeds_needed is None  # no number of seeds makes the data official
    assert below.verdict == v.LOWER
    assert "jpeg-q7" in inside.reason
    assert "jpeg-q7" in below.reason


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([87466], v.REPRODUCED),
        ([87467], v.HIGHER),
        ([87465, 87465], v.LOWER),
        ([87466, 87467], v.UNDETERMINED),
    ],
)
def test_counts_are_exact(values: list[float], expected: str) -> None:
    assert v.cell_verdict(values, 87466, 0, "paper").verdict == expected


def test_seeds_needed_is_the_smallest_that_decides() -> None:
    values, printed, margin = around(92.8), 92.5, 0.5
    got = v.seeds_needed(values, printed, margin)
    std = stats.tstd(FIVE)

    def half(n: int) -> float:
        return stats.t.ppf(0.975, n - 1) * std / math.sqrt(n)

    assert half(got) < margin - 0.3 <= half(got - 1)


def test_seeds_needed_where_no_number_helps() -> None:
    assert v.seeds_needed(around(93.0), 92.5, 0.5) is None  # the mean lies on the edge
    assert v.seeds_needed([92.5], 92.5, 0.5) is None  # no spread observed
    assert v.seeds_needed([92.5, 92.5], 92.5, 0.5) == v.MIN_SEEDS


def test_cost_counts_only_the_seeds_still_missing() -> None:
    got = v.cell_verdict(around(92.95), 92.5, 0.5, "paper", seconds_per_seed=10.0)
    assert got.verdict == v.UNDETERMINED
    assert got.cost_seconds == pytest.approx(10.0 * (got.seeds_needed - 5))


@pytest.mark.parametrize(
    ("samples", "side", "expected"),
    [
        (around(0.5), ">", v.AGREE),
        (around(0.5), "<", v.DISAGREE),
        (around(-0.5), "<", v.AGREE),
        (around(-0.5), ">", v.DISAGREE),
        (around(HALF), ">", v.OPEN),  # the interval ends at 0
        (around(HALF + 1e-4), ">", v.AGREE),
        (around(-HALF - 1e-4), ">", v.DISAGREE),
        ({0: 1.0, 1: 1.0}, ">", v.OPEN),  # two seeds decide nothing
        ({0: 1.0}, ">", v.OPEN),
        ({}, ">", v.NOT_RUN),
        (None, ">", v.NOT_RUN),
    ],
)
def test_comparison(samples: dict[int, float] | None, side: str, expected: str) -> None:
    assert v.Comparison("x", samples, side).verdict == expected


def test_comparison_over_several_cells_needs_them_all() -> None:
    assert v.Comparison("mean of 8", around(0.5), ">", expected=8, found=7).verdict == v.NOT_RUN
    assert v.Comparison("mean of 8", around(0.5), ">", expected=8, found=8).verdict == v.AGREE


def test_comparison_says_how_many_seeds_would_decide() -> None:
    assert v.Comparison("x", around(0.1)).seeds_needed > 5
    assert v.Comparison("x", around(0.5)).seeds_needed is None
    with pytest.raises(ValueError, match="against 0"):
        v.Comparison("x", None, "=")


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize(
    ("samples", "least", "side", "expected"),
    [
        (seeds(6.0, 20.0, 47.0), 2, ">", v.AGREE),  # an interval of the mean contains 0
        (seeds(6.0, -1.0, 47.0), 2, ">", v.AGREE),
        (seeds(6.0, -1.0, 47.0), 3, ">", v.DISAGREE),
        (seeds(6.0, -1.0, -1.0), 2, ">", v.DISAGREE),
        (seeds(6.0, -1.0, -1.0), 2, "<", v.AGREE),
        (seeds(6.0, 0.0, 0.0), 2, ">", v.DISAGREE),  # 0 is on neither side
        (seeds(6.0, 6.0), 2, ">", v.OPEN),  # two of three is not two of two
        (seeds(-6.0, -6.0), 2, ">", v.OPEN),
        (seeds(1.0, 1.0, 1.0, -1.0, -1.0), 2, ">", v.DISAGREE),  # two thirds of five seeds are four
        (seeds(1.0, 1.0, 1.0, 1.0, -1.0), 2, ">", v.AGREE),
        ({}, 2, ">", v.NOT_RUN),
    ],
)
def test_seeds_are_counted(samples: dict[int, float], least: int, side: str, expected: str) -> None:
    assert v.SeedCount("x", samples, side, least=least).verdict == expected


def test_a_count_of_seeds_is_told_and_asks_for_its_seeds() -> None:
    counted = v.SeedCount("x", seeds(6.0, -1.0, 47.0), least=2)
    assert (counted.told, counted.seeds_needed) == ("in 2 of 3 seeds", None)
    detail = v.claim_verdict([counted], "tiny").detail
    assert detail == "1 of 1 run, 1 agree, 0 disagree, 0 open; in 2 of 3 seeds"
    assert v.SeedCount("x", seeds(6.0), least=2).seeds_needed == 3
    assert v.SeedCount("x", None, least=2).told == "", "nothing to count"
    with pytest.raises(ValueError, match="give 1 to 3"):
        v.SeedCount("x", None, least=4)


@pytest.mark.parametrize(
    ("statistic", "sure", "side", "expected"),
    [
        (0.4, True, ">", v.AGREE),
        (0.4, True, "<", v.DISAGREE),
        (-0.4, True, ">", v.DISAGREE),
        (0.12, False, ">", v.OPEN),
        (None, False, ">", v.NOT_RUN),
    ],
)
def test_a_test_over_cells_decides_with_one_seed(statistic, sure, side, expected) -> None:
    made = v.Tested("tau", None, side, statistic=statistic, sure=sure, how="p = 0.03")
    assert made.verdict == expected and made.seeds_needed is None
    told = v.claim_verdict([made], "tiny").detail.partition("; ")[2]
    assert told == ("0 of 1 cells have run" if statistic is None else "p = 0.03")


def test_a_test_over_cells_needs_them_all() -> None:
    made = v.Tested("tau", None, expected=16, found=15, statistic=0.9, sure=True)
    assert made.verdict == v.NOT_RUN and made.told == "15 of 16 cells have run"


YES, NO, MAYBE, NONE = (v.Comparison(n, s) for n, s in zip("ynmo", (around(1), around(-1), around(0), None)))


@pytest.mark.parametrize(
    ("comparisons", "expected", "detail"),
    [
        ([YES, YES], v.SUPPORTED, "2 of 2 run, 2 agree, 0 disagree, 0 open"),
        ([YES, NO, NONE], v.CONTRADICTED, "2 of 3 run, 1 agree, 1 disagree, 0 open"),
        ([YES, MAYBE], v.UNDETERMINED, "2 of 2 run, 1 agree, 0 disagree, 1 open"),
        ([YES, NONE], v.UNDETERMINED, "1 of 2 run, 1 agree, 0 disagree, 0 open"),
        ([NONE, NONE], v.NOT_RUN, "0 of 2 run"),
    ],
)
def test_claim_verdicts(comparisons: list[v.Comparison], expected: str, detail: str) -> None:
    got = v.claim_verdict(comparisons, "tiny")
    assert (got.verdict, got.detail, got.scale) == (expected, detail, "tiny")


@pytest.mark.parametrize(
    ("scale", "minimum", "counts"),
    [
        ("smoke", "tiny", False),
        ("smoke", "smoke", False),  # smoke never counts, whatever the claim says
        ("tiny", "small", False),
        ("tiny", "tiny", True),
        ("paper", "small", True),
    ],
)
def test_claims_need_their_scale(scale: str, minimum: str, counts: bool) -> None:
    got = v.claim_verdict([YES], scale, minimum)
    assert got.verdict == (v.SUPPORTED if counts else v.NOT_RUN)
    assert counts or "do not count" in got.detail


def test_unknown_scale_and_empty_claim() -> None:
    with pytest.raises(ValueError, match=r"'huge'.*smoke, tiny, small, paper"):
        v.claim_verdict([YES], "huge")
    with pytest.raises(ValueError, match="must list"):
        v.claim_verdict([], "tiny")


def test_interval_as_text_of_samples() -> None:
    assert v.interval_text(around(0.5), signed=True) == "+0.50 ± 0.20 (5)"
    assert v.interval_text({0: 0.123456}, 4) == "0.1235 (1)"
    assert v.interval_text({}) == ""


def test_means_over_arms_take_the_seeds_that_all_of_them_have() -> None:
    assert v.mean_samples([{0: 1.0, 1: 2.0, 2: 9.0}, {1: 4.0, 0: 3.0}, {}]) == ({0: 2.0, 1: 3.0}, 2)
    assert v.mean_samples([{0: 1.0}, {1: 1.0}]) == ({}, 2)
    assert v.mean_samples([{}, {}]) == ({}, 0)
    assert v.shift({0: 1.0, 3: -2.0}, 0.5) == {0: 1.5, 3: -1.5}
