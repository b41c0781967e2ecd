"""What a campaign picks, and that it runs it packed and in time."""

from __future__ import annotations

import time

import pytest
import torch

from efflib.trials import Store, archive
from efflib.trials.campaign import Need, choose, clock_of, run_packed, with_data
from efflib.trials.record import Cost


def need(name, *trials):
    return Need(name, trials)


def test_the_cheapest_question_comes_first_and_shared_trials_cost_once(lab, make):
    shared, a, b, far = (make.trial(size=size) for size in (5, 1, 2, 50))
    needs = [need("far", far), need("a", shared, a), need("b", shared, b)]
    chosen = choose(needs, lambda trial: float(trial.config["size"]), capacity=100)
    # a costs 6 s, b alone 7 s but 2 s once the shared trial is there
    assert chosen.trials == [shared, a, b, far]
    assert chosen.answered == ["a", "b", "far"] and chosen.seconds == 58 and chosen.unknown == 0


def test_trials_that_answer_two_questions_at_once_are_worth_more(lab, make):
    one, both = make.trial(size=3), make.trial(size=5)
    needs = [need("one", one), need("x", both), need("y", both)]
    assert choose(needs, lambda trial: float(trial.config["size"]), 5).answered == ["x", "y"]


def test_what_does_not_fit_is_begun_with_its_first_trials(lab, make):
    trials = [make.trial(size=4, seed=seed) for seed in range(3)]
    chosen = choose([need("all", *trials)], lambda trial: 4.0, capacity=9)
    assert chosen.trials == trials[:2] and chosen.answered == [] and chosen.seconds == 8


def test_unknown_times_come_last_by_flops(lab, make):
    slow, cheap, dear = make.trial(size=9), make.trial(size=1, seed=1), make.trial(size=3, seed=1)
    times = {slow: 60.0, cheap: None, dear: None}
    chosen = choose([need("dear", dear), need("cheap", cheap), need("slow", slow)], times.get, 100)
    assert chosen.trials == [slow, cheap, dear] and chosen.unknown == 2


def test_no_time_is_an_error(lab):
    with pytest.raises(ValueError, match="needs time, got 0"):
        choose([], lambda trial: 1.0, 0)


def test_the_clock_knows_this_device_and_counts_lost_parents(lab, make):
    parent, other = make.trial(size=2), make.trial(size=4)
    child = make.child(parent)
    for trial, seconds in ((parent, 6.0), (make.child(other), 5.0)):
        flops = 10.0 * trial.config["size"]
        lab.store.save(make.record(trial, cost=Cost(seconds=seconds, peak_memory_bytes=1, flops=flops)))
    clock = clock_of(lab.store, "toy cpu")
    assert clock(other) == 12.0  # 4/2 of the recorded parent's FLOPs
    assert clock(child) == 5.0 + 6.0  # the parent is recorded, but its weights are not here
    assert clock_of(lab.store, "another device")(child) is None
    kept = make.record(parent, weights=lab.store.save_weights(make.record(parent).key, {"w": torch.ones(1)}))
    lab.store.save(kept.model_copy(update={"cost": Cost(seconds=6.0, peak_memory_bytes=1, flops=20.0)}), replace=True)
    assert clock_of(lab.store, "toy cpu")(child) == 5.0


def test_two_workers_share_the_list_and_each_trial_runs_once(lab, make, monkeypatch):
    monkeypatch.setenv("TOY_SECONDS", "0.3")
    parent = make.trial(size=1)
    trials = [parent, make.child(parent), *(make.trial(size=size) for size in (2, 3, 4))]
    run_packed(trials, lab.store, lab.cpu, "toy cpu", workers=2, budget=120)
    assert sorted(lab.ran()) == sorted(set(lab.ran())) and len(lab.ran()) == 5
    assert all(lab.store.find(trial)[0].status == "ok" for trial in trials)
    pids = {line.split()[0] for line in lab.log.read_text().splitlines() if "size" in line}
    assert len(pids) == 2


def test_a_trial_that_cannot_finish_is_not_begun_and_one_that_runs_on_is_stopped(lab, make, monkeypatch):
    done, long, unknown = make.trial(size=1), make.trial(size=1000), make.child(make.trial(size=1))
    device = "toy cpu"
    lab.store.save(make.record(done, cost=Cost(seconds=1.0, peak_memory_bytes=1, flops=10.0)))
    run_packed([long], lab.store, lab.cpu, device, workers=1, budget=60)  # 1000 s by the record
    assert lab.ran() == []
    monkeypatch.setenv("TOY_SECONDS", "300")
    began = time.monotonic()
    run_packed([unknown], lab.store, lab.cpu, device, workers=1, budget=8)
    assert time.monotonic() - began < 60
    assert not lab.store.find(unknown)


def test_no_workers_is_an_error(lab):
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_packed([], lab.store, lab.cpu, "toy cpu", workers=0, budget=1)


def test_export_since_takes_the_new_runs_only(lab, make, tmp_path):
    old, new = make.record(make.trial(size=1)), make.record(make.trial(size=2))
    new = new.model_copy(update={"provenance": new.provenance.model_copy(update={"date": "2026-05-01T00:00:00+00:00"})})
    for record in (old, new):
        lab.store.save(record)
    packed = tmp_path / "new.tar.gz"
    assert archive.export(lab.store, packed, since="2026-02-01T00:00:00+00:00") == 1
    home = Store(tmp_path / "home", tmp_path / "homecache")
    assert archive.merge(home, packed).added == 1 and home.records() == [new]
    with pytest.raises(ValueError, match="since 2027"):
        archive.export(lab.store, packed, since="2027")


def test_looking_for_data_downloads_nothing(lab, make, monkeypatch):
    monkeypatch.delenv("EFFLIB_OFFLINE")
    asked = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *given, **rest: asked.append(given))
    kept, absent = with_data([Need("real", (make.trial(mode="cifar"),)), Need("drawn", (make.trial(),))])
    assert [need.name for need in kept] == ["drawn"] and len(absent) == 1 and absent[0].startswith("cifar10: ")
    assert asked == []
