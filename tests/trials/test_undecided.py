"""Which trials an open claim still needs, on a made-up table over toy records."""

from __future__ import annotations

import pytest

from efflib.papers.table import Claim, PrintedTable, Table
from efflib.report.undecided import MOST_SEEDS, undecided
from efflib.report.verdict import Comparison, paired

PRINTED = PrintedTable("toy", "table1", "", {"unit": "percent"}, None, None, ())
SIZE = {"a": 1, "b": 2, "c": 3}


def beats(one, other):
    def comparisons(results):
        difference = paired(results.samples(method=one), results.samples(method=other))
        return [Comparison(f"{one} - {other}", difference)]

    return comparisons


def claim(letter, one, other, minimum="tiny"):
    return Claim(f"toy.table1.{letter}", "", "ours", "", beats(one, other), minimum)


@pytest.fixture
def table(make):
    def grid(scale, seeds, choices):
        for seed in seeds:
            for method, size in SIZE.items():
                yield {"method": method}, seed, make.trial(size=size, seed=seed)

    def with_claims(*claims):
        return {"toy.table1": Table("toy", "table1", "", PRINTED, claims, grid)}

    return with_claims


@pytest.fixture
def recorded(lab, make):
    """Write records of a method: one value per seed, from seed 0 on."""

    def write(method, *values, **changes):
        for seed, value in enumerate(values):
            trial = make.trial(size=SIZE[method], seed=seed)
            lab.store.save(make.record(trial, metrics={"last": value}, **changes))

    return write


def asked(need):
    return [(trial.config["size"], trial.config["seed"]) for trial in need.trials]


def test_nothing_recorded_needs_three_seeds_of_the_two_arms_it_compares(lab, table):
    (need,) = undecided(table(claim("a", "a", "b")), "tiny", lab.store)
    assert need.name == "toy.table1.a"
    assert asked(need) == [(size, seed) for seed in range(3) for size in (1, 2)]


def test_only_what_is_missing_is_asked_for(lab, table, recorded):
    recorded("a", 50.0, 51.0, 50.5)
    recorded("b", 48.0)
    first, second = undecided(table(claim("a", "a", "b"), claim("b", "c", "a")), "tiny", lab.store)
    assert asked(first) == [(2, 1), (2, 2)] and asked(second) == [(3, 0), (3, 1), (3, 2)]


def test_a_decided_claim_needs_nothing_whatever_the_answer(lab, table, recorded):
    recorded("a", 50.0, 51.0, 50.5)
    recorded("b", 48.0, 49.1, 48.4)
    assert undecided(table(claim("a", "a", "b"), claim("b", "b", "a")), "tiny", lab.store) == []


def test_an_open_claim_asks_for_the_seeds_that_would_decide_it(lab, table, recorded):
    recorded("a", 50.0, 51.0, 50.6)
    recorded("b", 49.8, 50.2, 50.1)
    difference = [0.2, 0.8, 0.5]
    comparison = Comparison("", dict(enumerate(difference)))
    (need,) = undecided(table(claim("a", "a", "b")), "tiny", lab.store)
    assert comparison.seeds_needed == 4
    assert asked(need) == [(1, 3), (2, 3)]


def test_a_difference_lost_in_the_noise_is_left_open(lab, table, recorded):
    recorded("a", 50.0, 52.0, 48.0)
    recorded("b", 49.9, 52.5, 47.5)
    assert Comparison("", {0: 0.1, 1: -0.5, 2: 0.5}).seeds_needed > MOST_SEEDS
    assert undecided(table(claim("a", "a", "b")), "tiny", lab.store) == []


def test_failures_are_not_repeated(lab, table, recorded):
    recorded("a", 50.0, 51.0, 50.5)
    recorded("b", 0.0, 0.0, 0.0, status="failed")
    assert undecided(table(claim("a", "a", "b")), "tiny", lab.store) == []


def test_claims_of_a_larger_scale_wait_for_it(lab, table):
    claims = table(claim("a", "a", "b", minimum="paper"))
    assert undecided(claims, "tiny", lab.store) == []
    assert [need.name for need in undecided(claims, "paper", lab.store)] == ["toy.table1.a"]


@pytest.mark.parametrize("scale", ["smoke", "huge"])
def test_scales_that_decide_nothing(lab, table, scale):
    with pytest.raises(ValueError, match=f"scale '{scale}' decides no claim"):
        undecided(table(), scale, lab.store)
