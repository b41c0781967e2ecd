"""Plans: what is shared, recorded and missing, and the time by device, without data."""

from __future__ import annotations

import types

import pytest

from efflib.papers import all_tables
from efflib.trials import plan
from efflib.trials.planning import speeds
from efflib.trials.record import Cost
from efflib.trials.trial import with_parents

TABLES = all_tables()


def planned(name, scale="tiny", seeds=5, **choices):
    others = [table for other, table in TABLES.items() if other != name]
    return plan(TABLES[name], scale, seeds, others, **choices)


def test_table2_at_tiny(lab):
    made = planned("bimask.table2")
    # 3 pairs of model and data set x 5 seeds x (a baseline and 5 arms)
    assert len(made.trials) == len(made.missing) == 3 * 5 * 6
    # Table 3 shares baselines and same-update arms; table 7 shares VGG8's BIMask and shuffled masks at 10 %.
    assert made.shared == 3 * 5 * 2 + 5 * 2
    assert made.recorded == 0 and made.seconds == {} == made.unknown


@pytest.mark.parametrize(
    ("name", "trials", "shared"),
    [("bimask.table3", 3 * 5 * 3, 3 * 5 * 2), ("bimask.table7", 5 * (1 + 3 * 2), 5 * 3), ("bimask.table6", 5 * 3, 0)],
)
def test_the_other_tables_at_tiny(lab, name, trials, shared):
    made = planned(name)
    assert (len(made.trials), made.shared) == (trials, shared)


def test_ten_percent_cells_of_table7_are_trials_of_table2(lab):
    two, seven = (set(TABLES[f"bimask.{name}"].trials("tiny", 5)) for name in ("table2", "table7"))
    ten = {
        trial
        for cell, _, trial in TABLES["bimask.table7"].entries("tiny", 5)
        if cell.get("masking_ratio") in (None, 0.1)
    }
    assert ten == two & seven


def test_flops_follow_the_spec(lab):
    # Spec, section 5: 42 subset-epochs (30, and 6 of 2N) of 10,000 images cost 6.7e13 (ResNet14) FLOPs per run in
    # training alone; here 9,000 images are trained on, and 11,000 evaluated after each of the 36 epochs.
    made = planned("bimask.table2", seeds=1, models=["resnet14"], datasets=["cifar10"], methods=["bimask"])
    assert len(made.trials) == 2
    training = 6.7e13 * 0.9
    evaluation = 2 * 26.66e6 * 11_000 * 36
    assert made.flops == pytest.approx(training + evaluation, rel=0.01)


def test_masked_only_costs_half_a_set_for_twice_the_epochs(lab):
    options = {"seeds": 1, "models": ["resnet14"], "datasets": ["cifar10"]}
    mixed = planned("bimask.table2", methods=["bimask"], **options).flops
    alone = planned("bimask.table3", methods=["masked_only"], **options).flops
    evaluation = 2 * 26.66e6 * 11_000 * 6  # six more epochs are evaluated
    assert alone - mixed == pytest.approx(evaluation, rel=0.01)


def toy_table(trials):
    return types.SimpleNamespace(
        trials=lambda scale, seeds, **choices: with_parents(trials),
        entries=lambda scale, seeds, **choices: [({}, 0, trial) for trial in trials],
    )


def timed(record, seconds, device="toy cpu"):
    return record.model_copy(
        update={
            "cost": Cost(seconds=seconds, peak_memory_bytes=1, flops=record.cost.flops),
            "provenance": record.provenance.model_copy(update={"device": device}),
        }
    )


def test_times_come_from_recorded_trials_by_device(lab, make):
    trials = [make.trial(size) for size in (1, 2, 3)]
    lab.store.save(timed(make.record(trials[0]), 5.0))  # 10 FLOPs in 5 s
    lab.store.save(timed(make.record(trials[0]), 1.0, "a GPU"))
    made = plan(toy_table([*trials, make.child(trials[0])]), "tiny", 1)
    assert made.recorded == 1 and len(made.missing) == 3
    # sizes 2 and 3 are 20 and 30 FLOPs; nothing is known about the child's recipe
    assert made.seconds == pytest.approx({"toy cpu": 25.0, "a GPU": 5.0})
    assert made.unknown == {"toy cpu": 1, "a GPU": 1}


def test_failed_and_stale_records_are_missing(lab, make):
    lab.store.save(make.record(make.trial(1), status="failed"))
    fresh = make.record(make.trial(2))
    lab.store.save(fresh)
    stale = make.record(make.trial(3))
    made = stale.provenance.model_copy(update={"source_hash": "0" * 16, "canary": {"value": 9.0}})
    lab.store.save(stale.model_copy(update={"provenance": made}))
    result = plan(toy_table([make.trial(size) for size in (1, 2, 3)]), "tiny", 1)
    assert result.recorded == 1
    assert [trial.config["size"] for trial in result.missing] == [1, 3]


def test_speeds_are_medians_of_successes(lab, make):
    records = [timed(make.record(make.trial(size)), seconds) for size, seconds in ((1, 1.0), (2, 2.0), (3, 90.0))]
    records.append(timed(make.record(make.trial(4), status="failed"), 0.001))
    assert speeds(records) == {("toy cpu", "toy", "None"): pytest.approx(0.2)}


def test_wrong_choices_are_errors(lab):
    with pytest.raises(ValueError, match=r"[Uu]nknown scale"):
        planned("bimask.table2", scale="big")
    with pytest.raises(ValueError, match="Unknown choice"):
        planned("bimask.table2", model=["vgg8"])
