"""Run trials: what is recorded is not run again, what was interrupted continues, what fails leaves its reason."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from efflib.data import load_dataset
from efflib.data.names import NAME_LISTS, load_names
from efflib.models.imagenet import weights_file
from efflib.training import ForeignCheckpoint, pick_device, pick_precision
from efflib.trials.freshness import canary, differences
from efflib.trials.provenance import commit, provenance, source_hash
from efflib.trials.recipes import Context, Outcome, get_recipe
from efflib.trials.record import NO_DATA, Cost, DataUsed, Failure, Record
from efflib.trials.results import Results, by_weights, collect, outdated
from efflib.trials.store import Store, set_aside, write_atomically
from efflib.trials.trial import Trial, digest, with_parents

ENGINES = ("local",)
_DEVICE_LOST: Any = getattr(torch, "AcceleratorError", ())  # not in torch 2.7 and before
POLL_SECONDS = 2


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
    retry: bool = False,
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
        retry: also run what failed before (smoke always does).
        choices: the table's own choices, e.g. models=["vgg8"].

    Returns:
        Results; a failed trial is an entry with its reason, the other trials go on.

    Raises:
        ValueError: unknown engine, scale, seeds or choices.
        FileNotFoundError: a data set, or a file of ImageNet weights, that is neither here nor downloadable; nothing
            has run then.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    store = store or Store.for_scale(scale)
    machine = Machine(pick_device(device), pick_precision(precision, pick_device(device)))
    wanted = table_or_trials
    trials = wanted.trials(scale, seeds, **choices) if hasattr(wanted, "trials") else list(wanted)
    run_trials(trials, store, machine, recompute=recompute, renew=scale == "smoke", retry=retry, progress=progress)
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
    may_start: Callable[[Trial], bool] = lambda trial: True,
) -> None:
    """Run each missing trial once, parents first; a trial that another process holds is left to it.

    Args:
        trials: in the order wanted; parents are added.
        recompute: also run what is recorded; the new record stands beside the old one. Stale records never count.
        renew: also run what another source recorded, and replace those records (smoke runs: no evidence is lost).
        retry: also run what failed before.
        report: called with one line per finished trial.
        may_start: asked before each trial; one that may not is left out, and so are those that need it.
    """
    waiting = _missing(trials, store, machine, recompute, renew, retry)
    _find_weights(waiting)
    _note_source(waiting)
    disable = None if progress is None else not progress
    with tqdm(total=len(waiting), desc="trials", unit="trial", disable=disable) as bar:
        while waiting:
            later: dict[Trial, list[Record]] = {}
            left_out: set[Trial] = set()
            for trial, ignored in waiting.items():
                if any(parent in left_out for parent in trial.parents.values()) or not may_start(trial):
                    left_out.add(trial)
                    continue
                blocked = any(parent in later for parent in trial.parents.values())
                record = None if blocked else _attempt(trial, ignored, store, machine, renew, progress)
                if record is None:
                    later[trial] = ignored
                    continue
                bar.update()
                if report:
                    report(f"{record.status} {trial.label}: {summary(record)}")
            if later and len(later) + len(left_out) == len(waiting):
                time.sleep(POLL_SECONDS)  # everything left is in the hands of another process
            waiting = later


def summary(record: Record) -> str:
    """One line about a record: its accuracies and time, or why it failed."""
    if record.status == "failed":
        return record.failure.reason if record.failure else "no reason recorded"
    values = {name: record.metrics.get(name) for name in ("last", "test_best", "val_best")}
    shown = [f"{name} {value:.2f}" for name, value in values.items() if value is not None]
    return ", ".join([*shown, f"{record.cost.seconds:.0f} s"])


def key_of(trial: Trial, machine: Machine) -> str:
    """The key under which this machine's record of a trial is kept."""
    parents = {role: key_of(parent, machine) for role, parent in trial.parents.items()}
    return trial.key(data_used(trial).fingerprint, precision_of(trial, machine), parents)


def precision_of(trial: Trial, machine: Machine) -> str:
    """The precision a trial runs in: its recipe's or its settings' own, if either has one, else the machine's."""
    own = get_recipe(trial.recipe).precision or getattr(trial.settings, "precision", None)
    return own or machine.precision


def data_used(trial: Trial, download: bool = True) -> DataUsed:
    """The data a trial reads, with a fingerprint over all its splits and the variant of the first not official one."""
    return _data_used(tuple(get_recipe(trial.recipe).data(trial.settings)), os.environ.get("EFFLIB_DATA"), download)


@lru_cache(maxsize=64)
def _data_used(splits: tuple[tuple[str, str], ...], root: str | None, download: bool = True) -> DataUsed:
    if not splits:  # a count of parameters reads nothing, and there is nothing to differ from the official data
        return DataUsed(name=NO_DATA, fingerprint=NO_DATA, variant="official")
    # Remembered per process and root: every key needs it, and reading a whole set takes up to a second.
    sets = [_read(name, split, download) for name, split in splits]
    fingerprint = sets[0].fingerprint if len(sets) == 1 else digest([data.fingerprint for data in sets])
    # Official are data of which every split is; elsewhere the training split's variant names both.
    variant = next((data.variant for data in sets if data.variant != "official"), "official")
    return DataUsed(name=sets[0].name, fingerprint=fingerprint, variant=variant)


def _read(name: str, split: str, download: bool) -> Any:
    if name == "names":
        return load_names(download=download)
    return NAME_LISTS[name]() if name in NAME_LISTS else load_dataset(name, split, download=download)


def _missing(
    trials: Iterable[Trial], store: Store, machine: Machine, recompute: bool, renew: bool, retry: bool
) -> dict[Trial, list[Record]]:
    """The trials to run, parents first, each with the recorded runs that do not count as its answer.

    A trial whose weights are not here (say, merged from elsewhere) is done as long as no child needs them: `_parent`
    runs it again then.
    """
    found = {}
    made = by_weights(store.records())
    for trial in with_parents(trials):
        runs = store.runs(trial.recipe, key_of(trial, machine))
        again = [recompute or (retry and run.status == "failed") or _old(trial, run, renew, made) for run in runs]
        if all(again):
            found[trial] = runs
    return found


def _find_weights(trials: Iterable[Trial]) -> None:
    """Look for all files of ImageNet weights that trials read, before any of them or of their parents spends hours."""
    for name in dict.fromkeys(name for trial in trials for name in get_recipe(trial.recipe).weights(trial.settings)):
        weights_file(name)


def _note_source(trials: Iterable[Trial]) -> None:
    """Read commit and source hashes now (both are remembered): files may change while the trials run."""
    commit()
    for recipe in {trial.recipe for trial in trials}:
        source_hash(recipe)


def _old(trial: Trial, record: Record, renew: bool, made: Mapping[str, list[Record]]) -> bool:
    """Whether a record is out of date; under `renew` any change of the source is enough, and so is a failure."""
    if renew and (record.status == "failed" or record.provenance.source_hash != source_hash(trial.recipe)):
        return True
    return outdated(trial, record, made) is not None


def _attempt(
    trial: Trial, ignored: list[Record], store: Store, machine: Machine, renew: bool, progress: bool | None
) -> Record | None:
    """The trial's record, made now or meanwhile by another process; None while that one works on it."""
    key = key_of(trial, machine)
    try:
        with FileLock(store.lock_path(key), timeout=0):
            done = [record for record in store.runs(trial.recipe, key) if record not in ignored]
            return done[0] if done else execute(trial, key, store, machine, progress, replace=renew)
    except Timeout:
        return None


def execute(
    trial: Trial, key: str, store: Store, machine: Machine, progress: bool | None = None, replace: bool = False
) -> Record:
    """Run one trial now and record it, or record why it failed. The caller holds its lock.

    Args:
        replace: the record takes the place of earlier runs of its key instead of standing beside them.
    """
    canary_values = canary(trial.recipe)
    parents = {role: _parent(each, store, machine, progress, replace) for role, each in trial.parents.items()}
    weights = {role: state for role, (_, state, _) in parents.items()}
    checkpoint = _checkpoint(trial.recipe, store.checkpoint_path(key), canary_values)
    precision = precision_of(trial, machine)
    context = Context(str(machine.device), precision, checkpoint, weights, progress, trial.label)
    started = time.perf_counter()
    _reset_peak(machine.device)
    outcome, failure = _outcome(trial, context, [f"{role}: {why}" for role, (_, _, why) in parents.items() if why])
    record = Record(
        schema=1,
        key=key,
        identity=trial.identity,
        recipe=trial.recipe,
        recipe_version=get_recipe(trial.recipe).version,
        config=trial.config,
        parents={role: key_of(parent, machine) for role, parent in trial.parents.items()},
        parent_weights={role: sha for role, (sha, _, _) in parents.items() if sha},
        dataset=data_used(trial),
        precision=precision,
        status="failed" if failure else "ok",
        failure=failure,
        metrics=outcome.metrics if outcome else {},
        cost=_cost(outcome, time.perf_counter() - started, machine.device),
        provenance=provenance(trial.recipe, machine.device, canary_values),
        weights=store.save_weights(key, outcome.weights) if outcome and outcome.weights else None,
    )
    store.save(record, replace)
    if failure is None or failure.kind == "FloatingPointError":  # a diverged run diverges again from its last epoch
        checkpoint.unlink(missing_ok=True)
        _origin(checkpoint).unlink(missing_ok=True)
    return record


def _origin(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".origin")


def _checkpoint(recipe: str, path: Path, values: dict[str, float]) -> Path:
    """The checkpoint file of a trial, for the source of today.

    What other source began is set aside with all its parts (a recipe may keep several files of this name), unless the
    canary had the same numbers then: a record must not be half of one meaning and half of another.
    """
    parts = [each for each in path.parent.glob(f"{path.name}*") if not each.name.endswith((".broken", ".origin"))]
    begun = _begun(_origin(path)) if parts else {}
    same = begun.get("source") == source_hash(recipe)
    if parts and not same and (not begun.get("canary") or differences(begun["canary"], values)):
        for part in parts:
            set_aside(part, "source of another meaning began it")
    write_atomically(_origin(path), json.dumps({"source": source_hash(recipe), "canary": values}))
    return path


def _begun(origin: Path) -> dict[str, Any]:
    """Source and canary with which a checkpoint was begun; nothing where that is not known."""
    try:
        found = json.loads(origin.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _outcome(trial: Trial, context: Context, broken: list[str]) -> tuple[Outcome | None, Failure | None]:
    """What the recipe returned, or why it failed; mistakes in the program and Ctrl-C pass through."""
    try:
        if broken:
            raise ParentMissing("; ".join(broken))
        return _ran(trial, context), None
    except _DEVICE_LOST:  # every further trial of this process would fail as well
        raise
    except (ArithmeticError, MemoryError, RuntimeError, ValueError) as problem:  # out of memory is a RuntimeError
        kind = type(problem).__name__
        return None, Failure(kind=kind, reason=str(problem)[:2000] or kind)


def _ran(trial: Trial, context: Context) -> Outcome:
    """The recipe's outcome. A checkpoint that does not fit (of another network) costs its epochs, not the trial."""
    run_recipe = get_recipe(trial.recipe).run
    try:
        return run_recipe(trial.settings, context)
    except ForeignCheckpoint as problem:
        if context.checkpoint is None:
            raise
        set_aside(context.checkpoint, str(problem))
        return run_recipe(trial.settings, context)


def _cost(outcome: Outcome | None, seconds: float, device: torch.device) -> Cost:
    """A resumed trial's own clock goes on from its checkpoint, so that earlier sessions count too."""
    trained = outcome.metrics.get("training_seconds", 0.0) if outcome else 0.0
    return Cost(seconds=max(seconds, trained), peak_memory_bytes=_peak(device), flops=outcome.flops if outcome else 0.0)


def _parent(
    parent: Trial, store: Store, machine: Machine, progress: bool | None, replace: bool
) -> tuple[str, Any, str]:
    """(checksum, weights, problem) of a parent. A recorded parent whose weights are gone is run again."""
    key = key_of(parent, machine)
    runs = _fresh(parent, key, store)
    found = store.weights_of(runs)
    if found is None and (not runs or any(run.status == "ok" for run in runs)):
        with FileLock(store.lock_path(key)):
            found = store.weights_of(_fresh(parent, key, store))  # another process may have been quicker
            if found is None:
                runs = [execute(parent, key, store, machine, progress, replace)]
                found = store.weights_of(runs)
    if found is None:
        return "", None, f"{parent.label} {_no_weights(runs[0])}"
    record, state = found
    return record.weights.sha256 if record.weights else "", state, ""


def _fresh(trial: Trial, key: str, store: Store) -> list[Record]:
    made = by_weights(store.records())
    return [run for run in store.runs(trial.recipe, key) if outdated(trial, run, made) is None]


def _no_weights(record: Record) -> str:
    return f"failed: {summary(record)}" if record.status == "failed" else "left no weights"


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    """Peak bytes: torch's allocations on a GPU, the process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":  # no `resource` there
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
