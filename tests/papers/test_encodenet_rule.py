"""The rule that decides which reading reproduces table 3: every outcome can occur, each for its own reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from efflib.papers.encodenet import arms, claims, rule
from efflib.papers.encodenet.rule import decide
from efflib.papers.encodenet.tables import tables
from efflib.report.verdict import AGREE, DISAGREE
from efflib.trials import Results
from efflib.trials.results import Entry

SETTING = {"model": "resnet20", "dataset": "cifar10"}
READINGS = list(arms.READINGS)
COMPLETE = list(rule.COMPLETE)


class Measured:
    """Results that hold accuracies by (method, target), one per seed."""

    def __init__(self, found: Mapping[rule.Arm, Sequence[float]]) -> None:
        self.found = dict(found)

    def samples(self, model: str, dataset: str, method: str, target: str | None = None) -> dict[int, float]:
        assert (model, dataset) == tuple(SETTING.values())
        return dict(enumerate(self.found.get((method, target), ())))


def around(mean: float, seeds: int = 3, spread: float = 0.1) -> list[float]:
    """Values whose seeds differ as another arm's do not, so that paired differences have a spread too."""
    return [mean + spread * ((7 * seed + int(10 * mean)) % 3 - 1) for seed in range(seeds)]


def as_printed(reading: str = "encodenet", seeds: int = 3, **means: float) -> Measured:
    """The printed ordering with every control beaten; `means` replaces an arm's by target or method."""
    wanted = {"baseline": 91.1, "identity": 89.2, "class": 92.1, "cluster": 92.9}
    wanted |= {method if target is None else target: 92.0 for method, target in rule.controls_of(reading)}
    wanted |= means
    found = {}
    for name, mean in wanted.items():
        arm = (reading, name) if name in (*arms.TARGETS, *arms.CODE_CONTROLS) else (name, None)
        found[arm] = around(mean, seeds)
    return Measured(found)


def outcome(measured: Measured, reading: str = "encodenet") -> str:
    return decide(measured, SETTING, reading).outcome


@pytest.mark.parametrize("reading", COMPLETE)
def test_the_printed_ordering_over_every_control_supports_the_mechanism(reading: str) -> None:
    found = decide(as_printed(reading), SETTING, reading)
    assert (found.outcome, found.reason) == (rule.SUPPORTED, "ordering, nearness and every control")
    assert [step.status for step in found.steps] == ["holds"] * (4 + len(rule.CONTROLS[reading]))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("level", [93.6, 92.9])  # better than cluster codes, and as good
def test_each_control_that_gains_and_is_not_beaten_explains_the_ordering(reading: str, level: float) -> None:
    for method, target in rule.controls_of(reading):
        given = as_printed(reading)
        given.found[reading, "cluster"] = [92.8, 92.9, 93.0]
        given.found[method, target] = [level + 0.1, level - 0.1, level]
        found = decide(given, SETTING, reading)
        assert found.outcome == rule.EXPLAINED
        assert found.reason.endswith(f"not better: {rule.said((method, target))}")


def test_all_controls_as_good_as_the_codes_are_all_named() -> None:
    even = as_printed()
    for arm in rule.CONTROLS["encodenet"]:
        even.found[arm] = even.found["encodenet", "cluster"]
    found = decide(even, SETTING, "encodenet")
    names = "baseline_long, encodenet rand_rep, encodenet noise_code, subclass"
    assert found.outcome == rule.EXPLAINED and found.reason.endswith(names)


def test_a_control_that_neither_gains_nor_is_beaten_explains_nothing() -> None:
    """Its seeds scatter so much that nothing is decided, which is no evidence against the codes."""
    loose = as_printed()
    loose.found["baseline_long", None] = [86.0, 98.0, 92.0]
    found = decide(loose, SETTING, "encodenet")
    assert (found.outcome, found.reason) == (rule.ORDERED, "not decided against: baseline_long (open)")


@pytest.mark.parametrize("reading", [name for name in READINGS if name not in COMPLETE])
def test_a_reading_without_controls_of_its_codes_leaves_the_mechanism_open(reading: str) -> None:
    found = decide(as_printed(reading), SETTING, reading)
    assert found.outcome == rule.ORDERED and "nothing controls for what the codes show" in found.reason
    assert len(found.steps) == 4 + len(rule.controls_of(reading))
    assert found.steps[4].label == f"{reading} cluster > baseline_long"


def test_a_control_that_did_not_run_leaves_the_mechanism_open() -> None:
    missing = as_printed()
    del missing.found["encodenet", "noise_code"]
    found = decide(missing, SETTING, "encodenet")
    assert (found.outcome, found.reason) == (rule.ORDERED, "not decided against: encodenet noise_code (not run)")


@pytest.mark.parametrize(
    ("means", "against"),
    [
        ({"identity": 91.6}, "baseline > encodenet identity"),
        ({"class": 90.6}, "encodenet class > baseline"),
        ({"cluster": 91.6}, "encodenet cluster > encodenet class"),
        ({"identity": 80.0}, "encodenet identity - baseline + 5"),
    ],
)
def test_each_inequality_the_other_way_round_refutes_a_reading(means: dict[str, float], against: str) -> None:
    found = decide(as_printed(**means), SETTING, "encodenet")
    assert (found.outcome, found.reason) == (rule.FAILS, f"against: {against}")


def test_one_inequality_against_is_enough_whatever_is_missing() -> None:
    part = as_printed(**{"class": 90.6})
    del part.found["encodenet", "identity"]
    assert outcome(part) == rule.FAILS


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(seeds: int) -> None:
    assert outcome(as_printed(seeds=seeds)) == rule.OPEN
    assert outcome(as_printed(seeds=seeds, identity=20.0)) == rule.OPEN


def test_a_difference_within_two_standard_errors_is_not_decided() -> None:
    near = as_printed()
    near.found["encodenet", "cluster"] = [92.0, 92.9, 92.1]  # 0.23 above class on average, and scattered
    found = decide(near, SETTING, "encodenet")
    assert (found.outcome, found.reason) == (rule.OPEN, "not decided: encodenet cluster > encodenet class")


def test_a_missing_target_is_not_decided() -> None:
    part = as_printed()
    del part.found["encodenet", "class"]
    found = decide(part, SETTING, "encodenet")
    assert found.outcome == rule.OPEN and "encodenet class > baseline" in found.reason
    assert [step.status for step in found.steps[:4]] == ["holds", rule.NOT_RUN, rule.NOT_RUN, "holds"]


def test_a_reading_that_nobody_ran_is_not_run() -> None:
    assert outcome(Measured({})) == rule.NOT_RUN
    assert outcome(as_printed("finetune"), "encodenet") == rule.NOT_RUN


def test_every_outcome_is_reached_above() -> None:
    met = {
        outcome(as_printed()),
        outcome(as_printed(baseline_long=93.6)),
        outcome(as_printed("warm_frozen"), "warm_frozen"),
        outcome(as_printed(identity=20.0)),
        outcome(as_printed(seeds=2)),
        outcome(Measured({})),
    }
    assert met == set(rule.OUTCOMES)


# --- the pieces -------------------------------------------------------------------------------------------


def test_differences_are_paired_by_seed() -> None:
    """Seeds that differ by more than any gain do not hide it, and seeds of one arm alone do not count."""
    wide = as_printed()
    wide.found = {arm: [v + 20 * seed for seed, v in enumerate(values)] for arm, values in wide.found.items()}
    assert outcome(wide) == rule.SUPPORTED
    wide.found["baseline", None] = wide.found["baseline", None][:2]
    assert outcome(wide) == rule.OPEN
    step = decide(wide, SETTING, "encodenet").steps[0]
    assert list(step.samples) == [0, 1] and all(1.6 < value < 2.2 for value in step.samples.values())


def test_two_standard_errors_are_the_border() -> None:
    """Differences 1, 2, 3 + c: mean 2 + c, standard error 1 / sqrt(3) = 0.577."""
    for shift, status in ((-0.84, "holds"), (-0.85, "open"), (-2.0, "open"), (-3.15, "open"), (-3.16, "fails")):
        given = as_printed()
        given.found["encodenet", "class"] = [90.0 + x + shift for x in (1, 2, 3)]
        given.found["baseline", None] = [90.0, 90.0, 90.0]
        assert decide(given, SETTING, "encodenet").steps[1].status == status, shift


def test_seeds_that_agree_exactly_decide() -> None:
    same = Measured({arm: [values[0]] * 3 for arm, values in as_printed().found.items()})
    assert outcome(same) == rule.SUPPORTED
    same.found["encodenet", "cluster"] = same.found["encodenet", "class"]
    assert outcome(same) == rule.OPEN


@pytest.mark.parametrize(("identity", "verdict"), [(86.5, AGREE), (85.0, DISAGREE)])
def test_near_means_less_than_five_points_below_the_baseline(identity: float, verdict: str) -> None:
    measured = Measured({("baseline", None): [91.0, 91.1, 91.2], ("encodenet", "identity"): [identity] * 3})
    found = rule.identity_is_near(measured, SETTING, "encodenet")
    assert found.verdict == verdict
    assert found.samples == pytest.approx({s: identity - b + 5 for s, b in enumerate((91.0, 91.1, 91.2))})


# --- on the grid of table 3 -------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_the_grid_runs_what_the_rule_compares(scale: str) -> None:
    cells = [cell for cell, _, _ in tables["table3"].entries(scale, 1)]
    ran = {(cell["method"], cell.get("target")) for cell in cells}
    assert {("baseline", None)}.union(*rule.CONTROLS.values()) <= ran
    readings = {method for method, target in ran if target == "cluster"}
    for reading in readings:
        assert {(reading, target) for target in arms.TARGETS} <= ran
    assert {"encodenet", "finetune"} <= readings <= set(READINGS)


@pytest.mark.parametrize("reading", COMPLETE)
def test_a_reading_is_compared_with_controls_of_its_own_second_stage(reading: str) -> None:
    parent = arms.baseline("tiny", "resnet20", "cifar10", 0)
    own = arms.encodenet("tiny", parent, reading).settings
    for method, target in rule.CONTROLS[reading]:
        if target:
            assert method == reading
        elif method.startswith("subclass"):
            [trial] = [t for c, _, t in tables["table3"].entries("tiny", 1) if c["method"] == method]
            assert trial.settings == own


class Run(Entry):
    """An entry that is usable whatever record it has."""

    usable = True


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_the_rule_reads_results_of_the_grid(scale: str) -> None:
    """Keys of the grid's cells are those that the rule asks for, in the network and data of the scale."""

    class Record:
        def __init__(self, last: float) -> None:
            self.metrics = {"last": last}

    wanted = as_printed().found | as_printed("finetune").found
    entries: list[Any] = []
    for cell, seed, trial in tables["table3"].entries(scale, 3):
        values = wanted.get((cell["method"], cell.get("target")))
        entries += [Run(cell, seed, trial, Record(values[seed]))] if values else []
    results = Results(tables["table3"], scale, entries)
    setting = claims.ablated(results)
    assert setting == {"model": "resnet18" if scale == "paper" else "resnet20", "dataset": "cifar10"}
    outcomes = {reading: decide(results, setting, reading).outcome for reading in READINGS}
    assert {reading for reading, found in outcomes.items() if found == rule.SUPPORTED} == {"encodenet", "finetune"}
    assert set(outcomes.values()) == {rule.SUPPORTED, rule.NOT_RUN}
