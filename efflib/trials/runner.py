"""Run trials: what is recorded is not run again, what was interrupted continues, what fails leaves its reason."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from efflib.data import load_dataset
from efflib.training import pick_device, pick_precision
from efflib.trials.freshness import canary
from efflib.trials.provenance import provenance, source_hash
from efflib.trials.recipes import Context, Outcome, get_recipe
from efflib.trials.record import Cost, DataUsed, Failure, Record
from efflib.trials.results import Results, collect
from efflib.trials.store import Store
from efflib.trials.trial import Trial, digest, with_parents

ENGINES = ("local",)


class ParentMissing(RuntimeError):
    """A trial whose parent failed or left no weights."""


def run(
    table_or_trials: Any,
    scale: str = "smoke",
    seeds: int | Iterable[int] = 1,
    engine: str = "local",
    device: str = "auto",
    precision: str = "auto",
    recompute: bool = False,
    progress: bool | None = None,
    store: Store | None = None,
    **choices: Any,
) -> Results:
    """Run the missing trials of a table (or a list of trials) and return all results.

    Args:
        table_or_trials: a Table, or Trials.
        scale: "smoke", "tiny", "small" or "paper"; smoke records go to a git-ignored folder.
        seeds: list of seeds, or n for 0..n-1; used for a Table only.
        engine: "local" runs in this process, one trial after another. Several processes may run the same table at
            once: they share the work through lock files.
        device: "auto" takes CUDA where there is one.
        precision: "auto" takes bf16 where the hardware has it.
        recompute: run again what is recorded; the new record stands beside the old one.
        progress: progress bars; None shows them on a terminal or in a notebook only.
        store: where records are; the scale's own store when None.
        choices: the table's own choices, e.g. models=["vgg8"].

    Returns:
        Results; a failed trial is an entry with its reason, the other trials go on.

    Raises:
        ValueError: unknown engine, scale, seeds or choices.
        FileNotFoundError: a data set that is neither here nor downloadable.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    store = store or Store.for_scale(scale)
    machine = Machine(pick_device(device), pick_precision(precision, pick_device(device)))
    wanted = table_or_trials
    trials = wanted.trials(scale, seeds, **choices) if hasattr(wanted, "trials") else list(wanted)
    run_trials(trials, store, machine, recompute=recompute, renew=scale == "smoke", progress=progress)
    return collect(wanted if hasattr(wanted, "trials") else trials, scale, seeds, store=store, **choices)


@dataclass(frozen=True)
class Machine:
    """Where trials run: device and precision."""

    device: torch.device
    precision: str


def run_trials(
    trials: Iterable[Trial],
    store: Store,
    machine: Machine,
    recompute: bool = False,
    renew: bool = False,
    retry: bool = False,
    progress: bool | None = None,
    report: Callable[[str], None] | None = None,
) -> None:
    """Run each missing trial once, parents first; a trial that another process holds is left to it.

    Args:
        trials: in the order wanted; parents are added.
        recompute: also run what is recorded.
        renew: also run what another source recorded (smoke runs have no canary worth waiting for).
        retry: also run what failed before.
        report: called with one line per finished trial.
    """
    waiting = [t for t in with_parents(trials) if recompute or not _done(t, store, machine, renew, retry)]
    bar = tqdm(
        total=len(waiting), desc="trials", unit="trial", disable=None if progress is None else not progress
    )
    again = {trial.identity for trial in waiting} if recompute else set()
    while waiting:
        later = []
        for trial in waiting:
            record = _attempt(trial, store, machine, trial.identity in again, renew, retry, progress)
            if record is None:
                later.append(trial)
                continue
            bar.update()
            if report:
                report(f"{record.status} {trial.label}: {summary(record)}")
        if len(later) == len(waiting):
            time.sleep(2)  # everything left is in the hands of another process
        waiting = later
    bar.close()


def summary(record: Record) -> str:
    """One line about a record: its accuracies and time, or why it failed."""
    if record.status == "failed":
        return record.failure.reason if record.failure else "no reason recorded"
    shown = [
        f"{k} {record.metrics[k]:.2f}" for k in ("last", "test_best", "val_best") if record.metrics.get(k)
    ]
    return ", ".join([*shown, f"{record.cost.seconds:.0f} s"])


def key_of(trial: Trial, machine: Machine) -> str:
    """The key under which this machine's record of a trial is kept."""
    parents = {role: key_of(parent, machine) for role, parent in trial.parents.items()}
    return trial.key(data_used(trial).fingerprint, machine.precision, parents)


def data_used(trial: Trial) -> DataUsed:
    """The data a trial reads, with a fingerprint over all its splits and the variant of the training split."""
    splits = get_recipe(trial.recipe).data(trial.settings)
    sets = [load_dataset(name, split) for name, split in splits]
    fingerprint = sets[0].fingerprint if len(sets) == 1 else digest([data.fingerprint for data in sets])
    return DataUsed(name=sets[0].name, fingerprint=fingerprint, variant=sets[0].variant)


def _done(trial: Trial, store: Store, machine: Machine, renew: bool, retry: bool) -> bool:
    record = store.get(trial.recipe, key_of(trial, machine))
    if record is None or (retry and record.status == "failed"):
        return False
    if renew and record.provenance.source_hash != source_hash(trial.recipe):
        return False
    # A finished trial whose weights are not here (say, merged from elsewhere) is done as long as no child needs them:
    # `_parent` runs it again then.
    return True


def _attempt(
    trial: Trial, store: Store, machine: Machine, again: bool, renew: bool, retry: bool, progress: bool | None
) -> Record | None:
    """The trial's record; None while another process works on it (or on its parent)."""
    key = key_of(trial, machine)
    if any(store.get(parent.recipe, key_of(parent, machine)) is None for parent in trial.parents.values()):
        return None  # parents come first in the list: this one is in the hands of another process
    try:
        with FileLock(store.lock_path(key), timeout=0):
            if not again and _done(trial, store, machine, renew, retry):
                return store.get(trial.recipe, key)
            return execute(trial, key, store, machine, progress)
    except Timeout:
        return None


def execute(trial: Trial, key: str, store: Store, machine: Machine, progress: bool | None = None) -> Record:
    """Run one trial now and record it, or record why it failed. The caller holds its lock."""
    recipe = get_recipe(trial.recipe)
    canary_values = canary(trial.recipe)
    parents = {role: _parent(parent, store, machine, progress) for role, parent in trial.parents.items()}
    outcome: Outcome | None = None
    failure = None
    started = time.perf_counter()
    _reset_peak(machine.device)
    try:
        broken = [f"{role}: {why}" for role, (_, _, why) in parents.items() if why]
        if broken:
            raise ParentMissing("; ".join(broken))
        weights = {role: state for role, (_, state, _) in parents.items()}
        checkpoint = store.checkpoint_path(key)
        context = Context(str(machine.device), machine.precision, checkpoint, weights, progress, trial.label)
        outcome = recipe.run(trial.settings, context)
    except (
        ArithmeticError,
        MemoryError,
        RuntimeError,
        ValueError,
    ) as problem:  # out of memory is a RuntimeError
        failure = Failure(kind=type(problem).__name__, reason=str(problem)[:2000])
    record = Record(
        schema=1,
        key=key,
        identity=trial.identity,
        recipe=trial.recipe,
        recipe_version=recipe.version,
        config=trial.config,
        parents={role: key_of(parent, machine) for role, parent in trial.parents.items()},
        parent_weights={role: sha for role, (sha, _, _) in parents.items() if sha},
        dataset=data_used(trial),
        precision=machine.precision,
        status="failed" if failure else "ok",
        failure=failure,
        metrics=outcome.metrics if outcome else {},
        cost=Cost(
            seconds=time.perf_counter() - started,
            peak_memory_bytes=_peak(machine.device),
            flops=outcome.flops if outcome else 0.0,
        ),
        provenance=provenance(trial.recipe, machine.device, canary_values),
        weights=store.save_weights(key, outcome.weights) if outcome and outcome.weights else None,
    )
    store.save(record)
    store.checkpoint_path(key).unlink(missing_ok=True)
    return record


def _parent(parent: Trial, store: Store, machine: Machine, progress: bool | None) -> tuple[str, Any, str]:
    """(checksum, weights, problem) of a parent. A recorded parent whose weights are gone is run again."""
    key = key_of(parent, machine)
    record = store.get(parent.recipe, key)
    state = store.load_weights(record) if record and record.status == "ok" else None
    if state is None and (record is None or record.status == "ok"):
        with FileLock(store.lock_path(key)):
            state = store.load_weights(record) if record else None  # another process may have been quicker
            if state is None:
                record = execute(parent, key, store, machine, progress)
                state = store.load_weights(record) if record.status == "ok" else None
    if state is None or record is None or record.weights is None:
        return "", None, f"{parent.label} {summary(record) if record else 'is not recorded'}"
    return record.weights.sha256, state, ""


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    """Peak bytes: torch's allocations on a GPU, the process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
