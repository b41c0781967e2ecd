"""Results: values of usable records, and a reason for everything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from efflib.trials import Entry, Results, collect
from efflib.trials.record import Weights


def entry(make, seed=0, cell=None, size=1, record="ok", stale=None, **metrics):
    trial = make.trial(size, seed=seed)
    made = None if record is None else make.record(trial, status=record, **({"metrics": metrics} if metrics else {}))
    return Entry({"method": "bimask", **(cell or {})}, seed, trial, made, stale)


def test_samples_map_seeds_to_the_metric(lab, make):
    entries = [entry(make, seed, last=50.0 + seed, test_best=60.0, val_best=None) for seed in (0, 3)]
    results = Results(None, "tiny", entries)
    assert results.samples(method="bimask") == {0: 50.0, 3: 53.0}
    assert results.samples("test_best", method="bimask") == {0: 60.0, 3: 60.0}
    assert results.samples("val_best", method="bimask") == {}
    assert results.samples("unheard of") == {}
    assert results.reason(method="bimask") == ""


def test_only_ok_and_fresh_records_count(lab, make):
    entries = [
        entry(make, 0, last=1.0),
        entry(make, 1, record="failed"),
        entry(make, 2, stale="the source changed", last=3.0),
        entry(make, 3, record=None),
    ]
    results = Results(None, "tiny", entries)
    assert results.samples() == {0: 1.0}
    assert results.recorded == (1, 4)
    assert len(results.records) == 3  # stale and failed ones are shown


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "not in the tiny grid"),
        ([{"record": None}], "not recorded yet"),
        ([{"record": "failed"}], "failed: nan in epoch 3"),
        ([{"stale": "the canary differs"}], "stale: the canary differs"),
        ([{"stale": "the canary differs"}, {"record": "failed", "seed": 1}], "failed: nan in epoch 3"),
        ([{"record": None}, {"seed": 1}], ""),
    ],
)
def test_every_gap_has_a_reason(lab, make, given, reason):
    results = Results(None, "tiny", [entry(make, **each) for each in given])
    assert results.reason(method="bimask") == reason


def test_an_ambiguous_cell_is_an_error(lab, make):
    entries = [entry(make, 0, {"masking_ratio": ratio}, size) for size, ratio in ((1, 0.1), (2, 0.3))]
    results = Results(None, "tiny", entries)
    with pytest.raises(ValueError, match="matches several cells for seed 0: give more keys"):
        results.samples(method="bimask")
    assert results.samples(method="bimask", masking_ratio=0.3) == {0: 50.0}
    assert results.reason(masking_ratio=0.7) == "not in the tiny grid"


def test_a_view_tells_what_a_cell_shows_of_its_record(lab, make):
    def view(cell, metrics):
        return metrics["followed"].get(str(cell["epochs"]), {})

    followed = {"10": {"last": 70.0}, "30": {"last": 80.0, "train": 90.0}}
    entries = [
        replace(entry(make, 0, {"epochs": epochs}, last=80.0, followed=followed), view=view) for epochs in (10, 20, 30)
    ]
    results = Results(None, "tiny", entries)
    found = {epochs: results.samples(method="bimask", epochs=epochs) for epochs in (10, 20, 30)}
    assert found == {10: {0: 70.0}, 20: {}, 30: {0: 80.0}}
    assert results.samples("train", epochs=30) == {0: 90.0}
    with pytest.raises(ValueError, match="matches several cells for seed 0"):  # one trial, but seen in two ways
        results.samples(method="bimask")


def test_collect_needs_no_run_and_no_data(lab, make):
    trials = [make.trial(1), make.trial(1, mode="cifar")]
    lab.store.save(make.record(trials[0]))
    results = collect(trials, "tiny", store=lab.store)
    assert [each.usable for each in results.entries] == [True, False]
    assert lab.ran() == []


def run_of(make, **changes):
    """A run of one trial that differs in provenance or data."""
    record = make.record(make.trial(), **{k: v for k, v in changes.items() if k in ("metrics", "status", "dataset")})
    return record.model_copy(
        update={"provenance": record.provenance.model_copy(update={"date": changes.get("date", "2026-01-01")})}
    )


def test_of_several_runs_the_newest_usable_one_on_official_data_answers(lab, make):
    def official(record):
        return record.model_copy(update={"dataset": record.dataset.model_copy(update={"variant": "official"})})

    runs = [run_of(make, metrics={"last": 1.0}), run_of(make, metrics={"last": 2.0}, date="2026-02-01")]
    for record in (*runs, run_of(make, status="failed", date="2026-03-01")):
        lab.store.save(record)
    assert collect([make.trial()], "tiny", store=lab.store).samples() == {0: 2.0}
    lab.store.save(official(run_of(make, metrics={"last": 3.0}, date="2025-01-01")))
    assert collect([make.trial()], "tiny", store=lab.store).samples() == {0: 3.0}
    assert collect([make.trial()], "tiny", store=lab.store).variants == ["official"]


def on(make, trial, variant, last, date="2026-01-01", key=None, **changes):
    """A record on a variant of the data; other data give another key."""
    record = make.record(trial, metrics={"last": last}, **changes)
    data = record.dataset.model_copy(update={"variant": variant})
    made = record.provenance.model_copy(update={"date": date})
    return record.model_copy(update={"dataset": data, "provenance": made, "key": key or record.key})


def test_the_arms_of_a_seed_are_compared_on_one_variant_of_the_data(lab, make):
    """Official baselines alone must not be taken from arms on re-encoded images; complete official seeds are shown."""
    sizes, seeds = (1, 2), (0, 1)
    trials = {(size, seed): make.trial(size, seed=seed) for seed in seeds for size in sizes}
    for (size, _), trial in trials.items():
        lab.store.save(on(make, trial, "jpeg-q7", 50.0 + size))
    for seed in seeds:  # the baseline, size 1, and of seed 1 the other arm too
        lab.store.save(on(make, trials[1, seed], "official", 90.0, "2026-02-01", key=f"{seed}" * 16))
    found = collect(list(trials.values()), "tiny", store=lab.store)
    assert found.samples(size=1) == {0: 51.0, 1: 51.0} and found.samples(size=2) == {0: 52.0, 1: 52.0}
    lab.store.save(on(make, trials[2, 1], "official", 91.0, "2026-02-01", key="a" * 16))
    found = collect(list(trials.values()), "tiny", store=lab.store)
    assert found.samples(size=1) == {0: 51.0, 1: 90.0} and found.samples(size=2) == {0: 52.0, 1: 91.0}
    assert found.variants == ["jpeg-q7", "official"]


def test_a_run_on_other_data_than_the_rest_of_its_seed_is_left_out_with_the_reason(lab, make):
    trials = [make.trial(size) for size in (1, 2, 3)]
    for trial in trials[:2]:
        lab.store.save(on(make, trial, "jpeg-q7", 50.0))
    lab.store.save(on(make, trials[2], "official", 90.0))
    found = collect(trials, "tiny", store=lab.store)
    assert found.samples(size=3) == {}
    assert found.reason(size=3) == "stale: recorded on official images only, other runs of this seed on jpeg-q7 ones"


def test_of_several_runs_the_one_answers_that_others_start_from(lab, make):
    parent = make.trial(1)
    old = make.record(parent, metrics={"last": 1.0}, weights=Weights(sha256="a" * 64, bytes=1))
    new = on(make, parent, "embedded", 2.0, "2026-02-01", weights=Weights(sha256="b" * 64, bytes=1))
    for record in (old, new):
        lab.store.save(record)
    assert collect([parent], "tiny", store=lab.store).samples() == {0: 2.0}
    lab.store.save(make.record(make.child(parent), parent_weights={"teacher": "a" * 64}))
    assert collect([parent], "tiny", store=lab.store).samples() == {0: 1.0}


def test_what_started_from_outdated_weights_is_out_of_date(lab, make):
    parent, child = make.trial(1), make.child(make.trial(1))
    record = make.record(parent, weights=Weights(sha256="a" * 64, bytes=1))
    gone = record.provenance.model_copy(update={"source_hash": "0" * 16, "canary": {"value": 2.0}})
    lab.store.save(record.model_copy(update={"provenance": gone}))
    lab.store.save(make.record(child, parent_weights={"teacher": "a" * 64}))
    (entry,) = collect([child], "tiny", store=lab.store).entries
    assert entry.stale_because.startswith("its teacher is out of date: the source changed and the canary differs")
    again = record.model_copy(update={"cost": record.cost.model_copy(update={"seconds": 2.0})})
    lab.store.save(again)  # today's source left the very same weights
    assert collect([child], "tiny", store=lab.store).entries[0].usable


def test_a_record_of_another_trial_does_not_answer(lab, make):
    lab.store.save(make.record(make.trial(2)))
    assert collect([make.trial(1)], "tiny", store=lab.store).reason() == "not recorded yet"
