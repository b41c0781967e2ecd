"""The runner: computed once, parents first, failures recorded, work shared, interruptions survived."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import types
import warnings

import pytest
import torch
from filelock import FileLock

import efflib
from efflib.data import DataNotFound
from efflib.training import loop
from efflib.trials import Store, recipes, runner, store
from efflib.trials.runner import key_of, run_trials


def run(lab, trials, **options):
    lines = []
    run_trials(trials, lab.store, lab.cpu, progress=False, report=lines.append, **options)
    return lines


def weights_file(lab, trial):
    record = record_of(lab, trial)
    return lab.store.weights_path(record.key, record.weights.sha256)


def record_of(lab, trial):
    return lab.store.get(trial.recipe, key_of(trial, lab.cpu))


def test_each_trial_is_computed_once(lab, make):
    trials = [make.trial(1), make.trial(2), make.trial(1)]
    lines = run(lab, trials)
    assert lab.ran() == ["toy size=1 seed=0 mode=ok", "toy size=2 seed=0 mode=ok"]
    assert [line.split(":")[0] for line in lines] == ["ok toy seed=0"] * 2
    assert run(lab, trials) == []
    assert len(lab.ran()) == 2


def test_a_record_says_what_was_run_and_by_what(lab, make):
    parent, child = make.trial(3), make.child(make.trial(3))
    run(lab, [child])
    record, teacher = record_of(lab, child), record_of(lab, parent)
    assert record.metrics == {"last": 9.0}  # three weights of 3.0
    assert record.config == child.config and record.identity == child.identity
    assert record.parents == {"teacher": teacher.key}
    assert record.parent_weights == {"teacher": teacher.weights.sha256}
    assert record.weights is None
    assert record.dataset.name == "digits" and record.dataset.variant == "embedded"
    assert record.precision == "fp32" and record.recipe_version == 1
    made = record.provenance
    assert made.device_type == "cpu" and made.threads == torch.get_num_threads()
    assert made.versions["torch"] == torch.__version__.split("+")[0] or made.versions["torch"] == torch.__version__
    assert made.canary == {"value": 1.0} and len(made.source_hash) == 16
    assert record.cost.peak_memory_bytes > 10**7 and record.cost.seconds >= 0


def test_run_returns_what_was_asked(lab, make):
    results = efflib.run([make.trial(1), make.trial(2, mode="nan")], store=lab.store, device="cpu", progress=False)
    assert [entry.usable for entry in results.entries] == [True, False]
    assert results.samples(size=1) == {0: 2.0}
    assert results.reason(size=2) == "failed: the training loss is nan in epoch 3"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"engine": "slurm"}, "unknown engine 'slurm'; known: local"),
        ({"scale": "big", "store": None}, "unknown scale: 'big'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"precision": "fp8"}, "precision must be"),
    ],
)
def test_wrong_arguments_run_nothing(lab, make, wrong, named):
    with pytest.raises(ValueError, match=named):
        efflib.run([make.trial()], **{"store": lab.store, "device": "cpu", **wrong})
    assert lab.ran() == []


def test_a_failure_is_recorded_and_the_others_go_on(lab, make):
    bad, good = make.trial(1, mode="nan"), make.trial(2)
    lines = run(lab, [bad, good])
    failed = record_of(lab, bad)
    assert failed.status == "failed" and failed.failure.kind == "FloatingPointError"
    assert failed.failure.reason == "the training loss is nan in epoch 3"
    assert failed.metrics == {} and failed.weights is None
    assert record_of(lab, good).status == "ok"
    assert lines[0] == "failed toy seed=0: the training loss is nan in epoch 3"
    run(lab, [bad, good])
    assert len(lab.ran()) == 2  # not tried again unasked


def test_an_error_without_words_still_has_a_reason(lab, make):
    run(lab, [make.trial(mode="memory")])
    assert record_of(lab, make.trial(mode="memory")).failure.reason == "MemoryError"


def test_a_mistake_in_the_program_is_not_a_failed_trial(lab, make):
    with pytest.raises(TypeError, match="a mistake in the program"):
        run(lab, [make.trial(mode="bug")])
    assert lab.store.records() == []


def test_the_child_of_a_failed_parent_fails_with_its_reason(lab, make):
    child, other = make.child(make.trial(1, mode="nan")), make.child(make.trial(2))
    run(lab, [child, other])
    failure = record_of(lab, child).failure
    assert failure.kind == "ParentMissing"
    assert failure.reason == "teacher: toy seed=0 failed: the training loss is nan in epoch 3"
    assert record_of(lab, other).status == "ok"
    assert [line for line in lab.ran() if line.startswith("toychild")] == ["toychild size=1 seed=0 mode=ok"]  # other's


def test_retry_runs_only_what_failed(lab, make, monkeypatch):
    bad, good = make.trial(1, mode="nan"), make.trial(2)
    child = make.child(bad)
    run(lab, [bad, good, child])
    before = len(lab.ran())
    run(lab, [bad, good, child], retry=True)  # fails again, once
    assert lab.ran()[before:] == ["toy size=1 seed=0 mode=nan"]
    monkeypatch.setenv("TOY_WELL", "1")
    run(lab, [bad, good, child], retry=True)
    assert [record_of(lab, each).status for each in (bad, good, child)] == ["ok"] * 3
    assert len(lab.store.runs("toy", key_of(bad, lab.cpu))) == 1  # a success replaces the failure


def test_recompute_stands_beside(lab, make):
    trial = make.trial()
    run(lab, [trial])
    run(lab, [trial], recompute=True)
    assert len(lab.ran()) == 2
    assert len(lab.store.runs("toy", key_of(trial, lab.cpu))) == 2
    run(lab, [trial])
    assert len(lab.ran()) == 2


def change_source(lab):
    lab.source.write_text(lab.source.read_text().replace("2.0 * config.size", "3.0 * config.size"))
    lab.forget()


def test_smoke_renews_what_other_source_made_and_replaces_it(lab, make):
    trial, child = make.trial(), make.child(make.trial())
    run(lab, [child], renew=True)
    change_source(lab)
    run(lab, [child], renew=True)
    assert lab.ran().count("toy size=1 seed=0 mode=ok") == 2
    assert [len(lab.store.runs(each.recipe, key_of(each, lab.cpu))) for each in (trial, child)] == [1, 1]
    assert len(list(lab.store.root.glob("*/*.json"))) == 2
    run(lab, [child], renew=True)
    assert lab.ran().count("toy size=1 seed=0 mode=ok") == 2  # the new record is found


def test_evidence_is_renewed_only_when_the_canary_differs(lab, make, monkeypatch):
    trial = make.trial()
    run(lab, [trial])
    change_source(lab)
    run(lab, [trial])
    assert len(lab.ran()) == 1  # other source, same canary
    change_source(lab)
    lab.source.write_text(lab.source.read_text() + "\n\nOTHER = 1\n")
    monkeypatch.setenv("TOY_CANARY", "2")
    lab.forget()
    run(lab, [trial])
    assert len(lab.ran()) == 2
    assert len(lab.store.runs("toy", key_of(trial, lab.cpu))) == 2  # the stale record stays, and is shown as stale
    lab.forget()
    run(lab, [trial])
    assert len(lab.ran()) == 2


def test_lost_weights_of_a_parent_are_made_again(lab, make):
    parent = make.trial(4)
    run(lab, [make.child(parent, 1)])
    weights_file(lab, parent).unlink()
    run(lab, [parent])
    assert len(lab.ran()) == 2  # nobody needs the weights
    run(lab, [make.child(parent, 2)])
    assert record_of(lab, make.child(parent, 2)).metrics == {"last": 12.0}
    assert lab.ran().count("toy size=4 seed=0 mode=ok") == 2
    run(lab, [make.child(parent, 3)])
    assert lab.ran().count("toy size=4 seed=0 mode=ok") == 2


def test_altered_weights_of_a_parent_are_set_aside_and_made_again(lab, make):
    parent = make.trial(4)
    run(lab, [parent])
    weights_file(lab, parent).write_bytes(b"not weights")
    with pytest.warns(UserWarning, match="its checksum is another than its record's"):
        run(lab, [make.child(parent)])
    assert record_of(lab, make.child(parent)).metrics == {"last": 12.0}


def test_a_merged_parent_with_other_weights_is_trained_here_once(lab, make):
    # Its record came from another machine, whose weights differ in the last bit and are not here.
    parent = make.trial(4)
    run(lab, [parent])
    key = key_of(parent, lab.cpu)
    record = lab.store.get("toy", key)
    lab.store.save(record.model_copy(update={"weights": record.weights.model_copy(update={"sha256": "0" * 64})}), True)
    assert not list((lab.store.cache / "weights").iterdir())
    run(lab, [make.child(parent, size) for size in (1, 2, 3)])
    assert lab.ran().count("toy size=4 seed=0 mode=ok") == 2
    mine = lab.store.runs("toy", key)[1].weights.sha256
    assert record_of(lab, make.child(parent, 3)).parent_weights == {"teacher": mine}


def test_a_stale_parent_whose_new_run_fails_gives_no_weights(lab, make, monkeypatch):
    parent = make.trial(4)
    run(lab, [parent])
    lab.source.write_text(lab.source.read_text() + "\n\nOTHER = 1\n")
    monkeypatch.setenv("TOY_CANARY", "2")
    lab.forget()
    broken = dataclasses.replace(recipes.get_recipe("toy"), run=diverged)
    monkeypatch.setitem(recipes._RECIPES, "toy", broken)
    run(lab, [make.child(parent)])
    record = record_of(lab, make.child(parent))
    assert record.status == "failed" and record.failure.kind == "ParentMissing"


def diverged(settings, context):
    raise FloatingPointError("the training loss is nan in epoch 1")


def test_missing_data_stop_the_run_with_a_clear_error(lab, make):
    with pytest.raises(DataNotFound, match="cifar10"):
        run(lab, [make.trial(mode="cifar")])
    assert lab.store.records() == []


@pytest.fixture
def asleep(monkeypatch):
    """Instead of sleeping, call what the test puts into the list."""
    calls = []

    def sleep(seconds):
        calls.pop(0)()

    monkeypatch.setattr(runner, "time", types.SimpleNamespace(sleep=sleep, perf_counter=runner.time.perf_counter))
    return calls


def test_a_trial_in_other_hands_is_left_to_them(lab, make, asleep):
    trial = make.trial()
    other = FileLock(lab.store.lock_path(key_of(trial, lab.cpu)))

    def finished():
        lab.store.save(make.record(trial, metrics={"last": 77.0}))
        other.release()

    asleep.append(finished)
    other.acquire()
    lines = run(lab, [trial, make.trial(2)])
    assert lab.ran() == ["toy size=2 seed=0 mode=ok"]  # the other trial did not wait
    assert lines[-1].startswith("ok toy seed=0: last 77.00")


@pytest.mark.parametrize("options", [{}, {"retry": True}, {"recompute": True}])
def test_the_result_of_another_process_counts_under_every_option(lab, make, asleep, options):
    trial = make.trial(mode="nan")
    run(lab, [trial])
    before = len(lab.ran())
    other = FileLock(lab.store.lock_path(key_of(trial, lab.cpu)))

    def finished():
        lab.store.save(make.record(trial, metrics={"last": 77.0}))
        other.release()

    if options:
        asleep.append(finished)
        other.acquire()
    run(lab, [trial], **options)
    assert len(lab.ran()) == before
    assert record_of(lab, trial).status == ("ok" if options else "failed")


def test_a_killed_owner_leaves_its_trial_to_others(lab, make, asleep):
    parent = make.trial()
    other = FileLock(lab.store.lock_path(key_of(parent, lab.cpu)))
    asleep.append(other.release)  # what the system does with the locks of a dead process
    other.acquire()
    run(lab, [make.child(parent)])
    assert lab.ran() == ["toy size=1 seed=0 mode=ok", "toychild size=1 seed=0 mode=ok"]


# Imports once and forks before anything is computed; the two children start together.
TWO = """
import os, sklearn.datasets, toylab, torch  # the slow imports, once
from efflib.trials import Store, Trial, runner
runner.POLL_SECONDS = 0.1
parents = [Trial.of("toy", size=size) for size in range(1, 5)]
trials = [Trial.of("toychild", parents={"teacher": parent}, size=1) for parent in parents]
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        runner.run_trials(trials, Store.for_scale("tiny"), runner.Machine(torch.device("cpu"), "fp32"), progress=False)
        os._exit(0)
    children.append(child)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), *children)
"""


def test_two_processes_share_the_work(lab):
    env = {**os.environ, "PYTHONPATH": str(lab.source.parent), "TOY_SECONDS": "0.3", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TWO], env=env, capture_output=True, text=True, check=True)
    first, second, *children = done.stdout.split()
    assert (first, second) == ("0", "0"), done.stderr
    expected = [f"toy size={size} seed=0 mode=ok" for size in range(1, 5)] + ["toychild size=1 seed=0 mode=ok"] * 4
    assert sorted(lab.ran()) == sorted(expected)
    assert {line.split()[0] for line in lab.log.read_text().splitlines() if "toy" in line} == set(children)
    assert len(lab.store.records()) == 8 and all(record.status == "ok" for record in lab.store.records())


def train_trial(seed=0):
    from efflib.trials import Trial

    return Trial.of("toytrain", size=1, seed=seed)


def test_an_interrupted_trial_continues_from_its_checkpoint(lab, monkeypatch, tmp_path):
    trial = train_trial()
    checkpoint = lab.store.checkpoint_path(key_of(trial, lab.cpu))
    monkeypatch.setenv("TOY_INTERRUPT", "5")  # step 2 of epoch 2, three steps each
    with pytest.raises(KeyboardInterrupt):
        run(lab, [trial])
    assert lab.store.records() == [] and checkpoint.exists()
    monkeypatch.delenv("TOY_INTERRUPT")
    run(lab, [trial])
    assert "steps=6" in lab.log.read_text()  # two epochs, not three
    assert not checkpoint.exists()
    resumed = record_of(lab, trial)
    other = Store(tmp_path / "other", tmp_path / "other cache")
    run_trials([trial], other, lab.cpu, progress=False)
    unbroken = other.get("toytrain", key_of(trial, lab.cpu))
    assert resumed.metrics["curves"] == unbroken.metrics["curves"]
    assert resumed.weights == unbroken.weights
    assert resumed.cost.seconds >= resumed.metrics["training_seconds"]  # the first session counts too


@pytest.mark.parametrize(("canary", "steps"), [("1", 6), ("2", 9)])
def test_a_checkpoint_of_other_source_is_used_only_if_the_canary_agrees(lab, monkeypatch, canary, steps):
    trial = train_trial()
    monkeypatch.setenv("TOY_INTERRUPT", "5")
    with pytest.raises(KeyboardInterrupt):
        run(lab, [trial])
    monkeypatch.delenv("TOY_INTERRUPT")
    lab.source.write_text(lab.source.read_text() + "\n\nOTHER = 1\n")
    monkeypatch.setenv("TOY_CANARY", canary)
    lab.forget()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run(lab, [trial])
    assert f"steps={steps}" in lab.log.read_text()  # two epochs or all three
    assert any("another meaning" in str(each.message) for each in said) == (steps == 9)
    assert not list(lab.store.checkpoint_path("").parent.glob("*.origin"))


def test_a_failure_of_the_machine_keeps_the_checkpoint(lab, monkeypatch):
    trial = train_trial()
    real = loop.save_atomically

    def full(state, path):
        if path.exists():
            raise RuntimeError("no space left on device")
        real(state, path)

    monkeypatch.setattr(loop, "save_atomically", full)
    run(lab, [trial])
    assert record_of(lab, trial).failure.reason == "no space left on device"
    monkeypatch.setattr(loop, "save_atomically", real)
    run(lab, [trial])
    assert record_of(lab, trial).status == "failed"  # not tried again unasked
    run(lab, [trial], retry=True)
    assert record_of(lab, trial).status == "ok" and len(record_of(lab, trial).metrics["curves"]["test"]) == 3
    assert "steps=6" in lab.log.read_text()  # the first epoch was kept


def test_smoke_tries_failures_again(lab, make, monkeypatch):
    bad = make.trial(mode="nan")
    run(lab, [bad], renew=True)
    monkeypatch.setenv("TOY_WELL", "1")
    run(lab, [bad], renew=True)
    assert record_of(lab, bad).status == "ok" and len(lab.ran()) == 2


def test_official_are_data_of_which_every_split_is(monkeypatch, make, lab):
    splits = {"train": "official", "test": "unverified"}
    made = {
        name: types.SimpleNamespace(name="mnist", variant=variant, fingerprint=name) for name, variant in splits.items()
    }
    monkeypatch.setattr(runner, "load_dataset", lambda name, split, download: made[split])
    both = (("mnist", "train"), ("mnist", "test"))
    assert runner._data_used.__wrapped__(both, None).variant == "unverified"
    assert runner._data_used.__wrapped__(both[:1], None).variant == "official"


def test_a_checkpoint_that_does_not_fit_costs_its_epochs_not_the_trial(lab, monkeypatch):
    trial, other = train_trial(), train_trial(seed=1)
    monkeypatch.setenv("TOY_INTERRUPT", "5")
    with pytest.raises(KeyboardInterrupt):
        run(lab, [other])
    monkeypatch.delenv("TOY_INTERRUPT")
    foreign = lab.store.checkpoint_path(key_of(other, lab.cpu))
    mine = lab.store.checkpoint_path(key_of(trial, lab.cpu))
    foreign.rename(mine)
    foreign.with_name(foreign.name + ".origin").rename(mine.with_name(mine.name + ".origin"))
    with pytest.warns(UserWarning, match="belongs to another run"):
        run(lab, [trial])
    assert record_of(lab, trial).status == "ok"
    assert "steps=9" in lab.log.read_text()


def test_provenance_is_of_the_start(lab, make, monkeypatch):
    """A commit made while a trial runs is not the one that made it."""
    asked = []
    monkeypatch.setattr(runner, "commit", lambda: asked.append(len(lab.ran())))
    monkeypatch.setattr(runner, "source_hash", lambda recipe: asked.append(len(lab.ran())))
    run(lab, [make.trial()])
    assert asked[:2] == [0, 0]


def test_data_are_read_once_for_all_keys(lab, make, monkeypatch):
    read = []
    load = runner.load_dataset
    monkeypatch.setattr(runner, "load_dataset", lambda *split, **how: read.append(split) or load(*split, **how))
    run(lab, [make.child(make.trial(size)) for size in range(4)])
    assert read == [("digits", "train")]


def test_an_accuracy_of_zero_is_shown(lab, make):
    assert runner.summary(make.record(make.trial(), metrics={"last": 0.0})) == "last 0.00, 1 s"


def test_storing_needs_no_results_folder(lab, make):
    assert not lab.store.root.exists()
    run(lab, [make.trial()])
    assert store.Store(lab.store.root, lab.store.cache).records() == lab.store.records() != []
