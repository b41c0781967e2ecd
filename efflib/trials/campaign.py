"""Spend a fixed time on one device well: which trials first, and several of them at once.

Nothing is known here of tables and claims: a `Need` is any question with the trials that would answer it
(`efflib.report.undecided` makes them of claims). Work is shared between processes by the runner's lock files.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from efflib.models.imagenet import weights_file
from efflib.trials.planning import seconds_of, speeds
from efflib.trials.recipes import get_recipe
from efflib.trials.runner import Machine, data_used, run_trials
from efflib.trials.store import Store
from efflib.trials.trial import Trial, with_parents

Seconds = Callable[[Trial], "float | None"]


@dataclass(frozen=True)
class Need:
    """A question, and the trials that are missing to answer it, in the order in which they should run."""

    name: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Choice:
    """What a campaign would run: the trials in order, the questions they answer, and their time alone on the device.

    `unknown` counts the trials without a time; they come behind those with one, cheapest in FLOPs first.
    """

    trials: list[Trial]
    answered: list[str]
    seconds: float
    unknown: int


def with_data(needs: Iterable[Need]) -> tuple[list[Need], list[str]]:
    """The needs whose data and ImageNet weights are at hand, and what is missing for the others, one line each."""
    absent: dict[str, None] = {}
    kept = []
    for need in needs:
        problems = [problem for trial in need.trials if (problem := _no_data(trial))]
        absent.update(dict.fromkeys(problems))
        kept += [] if problems else [need]
    return kept, list(absent)


def _no_data(trial: Trial) -> str:
    """What a trial reads that is not here, with the reason; nothing is downloaded."""
    recipe = get_recipe(trial.recipe)
    wanted = {name for name, _ in recipe.data(trial.settings)}
    try:
        data_used(trial, download=False)
        wanted = set(recipe.weights(trial.settings))
        for name in wanted:
            weights_file(name, download=False)
    except FileNotFoundError as problem:
        return f"{', '.join(sorted(wanted))}: {str(problem).splitlines()[0]}"
    return ""


def choose(needs: Iterable[Need], seconds: Seconds, capacity: float) -> Choice:
    """Trials that answer the most questions per second, as many as fit.

    Again and again the need with the least time per question is taken: the time of its trials that are not chosen
    yet, over the number of needs which they complete. What does not fit as a whole is begun: its first trials that
    still fit, so that the next campaign finds it cheaper.

    Args:
        needs: the open questions.
        seconds: time of a trial on the device; None where no record tells it.
        capacity: seconds there are, over all workers.

    Raises:
        ValueError: a capacity that is not above 0.
    """
    if not capacity > 0:
        raise ValueError(f"a campaign needs time, got {capacity} s")
    left = [need for need in needs if need.trials]
    times = {trial: seconds(trial) for need in left for trial in need.trials}
    chosen: dict[Trial, None] = {}
    answered: list[str] = []
    spent, unknown = 0.0, 0
    while left:
        left = sorted(left, key=partial(_price, needs=left, chosen=chosen, times=times))
        need = left.pop(0)
        whole = True
        for trial in (each for each in need.trials if each not in chosen):
            if spent + (times[trial] or 0.0) > capacity:
                whole = False
                break
            chosen[trial] = None
            spent += times[trial] or 0.0
            unknown += times[trial] is None
        answered += [need.name] if whole else []
    return Choice(list(chosen), answered, spent, unknown)


def _price(
    need: Need, needs: list[Need], chosen: Collection[Trial], times: Mapping[Trial, float | None]
) -> tuple[bool, float, float, str]:
    """Order of needs: known times first, then seconds per question, then FLOPs per question."""
    missing = {trial for trial in need.trials if trial not in chosen}
    served = sum(all(trial in missing or trial in chosen for trial in other.trials) for other in needs)
    known = sum(times[trial] or 0.0 for trial in missing)
    flops = sum(get_recipe(trial.recipe).flops(trial.settings) for trial in missing)
    return any(times[trial] is None for trial in missing), known / served, flops / served, need.name


def clock_of(store: Store, device: str) -> Seconds:
    """Time of a trial on a device, by FLOPs from what is recorded there of the same recipe and model.

    An ancestor whose weights are not in this machine's cache would be trained again first: its time is added.
    """
    records = store.records()
    rates = speeds(records)
    at_hand = {record.identity for record in records if store.has_weights(record)}

    def seconds(trial: Trial) -> float | None:
        whole = with_parents([trial])
        again = [each for each in whole if each == trial or each.identity not in at_hand]
        times = [seconds_of(each, device, rates) for each in again]
        return None if None in times else sum(time for time in times if time is not None)

    return seconds


def run_packed(trials: list[Trial], store: Store, machine: Machine, device: str, workers: int, budget: float) -> None:
    """Run trials in several processes at once on one device, until the budget is spent.

    A trial that would probably not finish in time (by what is recorded so far, this campaign's own records included) is
    not begun; one of unknown time is. What still runs when the time is up is stopped; on a machine that keeps its
    cache it continues from its last checkpoint.

    Args:
        trials: in the order wanted.
        store: where the records go.
        machine: device and precision.
        device: the device's name in records.
        workers: processes.
        budget: seconds.

    Raises:
        ValueError: less than one worker.
        RuntimeError: a worker that ended with an error of its own (it is printed); the records made so far are kept.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    end = time.time() + budget
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    threads = max((os.cpu_count() or 1) // workers, 1)
    arguments = (trials, store.root, store.cache, machine, device, threads, end)
    processes = [context.Process(target=_work, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(end - time.time(), 0.0))
    broken = [process.exitcode for process in processes if process.exitcode]  # before any is stopped by us
    for process in processes:
        if process.is_alive():
            process.terminate()
        process.join()
    if broken:
        raise RuntimeError(
            f"{len(broken)} of {workers} workers ended with exit codes {broken}; what they said is above"
        )


def _work(
    trials: list[Trial], root: Path, cache: Path, machine: Machine, device: str, threads: int, end: float
) -> None:
    """One worker: the same list as the others; what they hold or have done is left to them."""
    torch.set_num_threads(threads)
    store = Store(root, cache)

    def in_time(trial: Trial) -> bool:
        expected = clock_of(store, device)(trial)  # read anew: records of this campaign make it sharper
        return time.time() + (expected or 0.0) < end

    run_trials(trials, store, machine, progress=False, may_start=in_time)
