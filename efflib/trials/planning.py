"""What a run would cost: how many trials, how many shared, recorded or missing, and the time by device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from efflib.trials.recipes import get_recipe
from efflib.trials.record import Record
from efflib.trials.results import collect
from efflib.trials.store import Store
from efflib.trials.trial import Trial, with_parents


@dataclass(frozen=True)
class Plan:
    """A table's trials at one scale. `seconds` maps a device to the time its missing trials would take there."""

    trials: list[Trial]
    shared: int
    recorded: int
    missing: list[Trial]
    flops: float
    seconds: dict[str, float]
    unknown: dict[str, int]


def plan(table: Any, scale: str, seeds: int | Iterable[int], others: Iterable[Any] = (), **choices: Any) -> Plan:
    """Plan a table without running anything and without needing the data.

    Args:
        table: a Table.
        scale, seeds, choices: as `run`.
        others: the other tables of the book; a trial that one of them asks for too counts as shared.

    Returns:
        Plan; times come from recorded trials with the same recipe and model on each device, by FLOPs. A missing trial
        without such a record counts in `unknown` of that device.
    """
    store = Store.for_scale(scale)
    trials = with_parents(table.trials(scale, seeds, **choices))
    elsewhere = {t.identity for other in others for t in with_parents(other.trials(scale, seeds))}
    usable = {e.trial.identity for e in collect(trials, scale, store=store).entries if e.usable}
    missing = [trial for trial in trials if trial.identity not in usable]
    rates = speeds(store.records())
    devices = sorted({device for device, _, _ in rates})
    seconds, unknown = {}, {}
    for device in devices:
        times = [seconds_of(trial, device, rates) for trial in missing]
        seconds[device] = sum(time for time in times if time is not None)
        unknown[device] = sum(time is None for time in times)
    flops = sum(get_recipe(t.recipe).flops(t.settings) for t in missing)
    shared = sum(trial.identity in elsewhere for trial in trials)
    return Plan(trials, shared, len(trials) - len(missing), missing, flops, seconds, unknown)


def speeds(records: Iterable[Record]) -> dict[tuple[str, str, str], float]:
    """(device, recipe, model) -> median seconds per FLOP of the recorded trials."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for record in records:
        if record.status == "ok" and record.cost.flops > 0:
            name = (record.provenance.device, record.recipe, str(record.config.get("model")))
            found.setdefault(name, []).append(record.cost.seconds / record.cost.flops)
    return {name: median(values) for name, values in found.items()}


def seconds_of(trial: Trial, device: str, rates: dict[tuple[str, str, str], float]) -> float | None:
    """Time of a trial on a device by `speeds`; None where nothing like it was recorded there."""
    rate = rates.get((device, trial.recipe, str(trial.config.get("model"))))
    return None if rate is None else rate * get_recipe(trial.recipe).flops(trial.settings)
