"""Results: the entries of a table at one scale, each with its record or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from efflib.trials.freshness import stale_reason
from efflib.trials.record import Record
from efflib.trials.store import Store
from efflib.trials.trial import Trial

DEFAULT_SEEDS = 5
View = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]  # (cell, metrics of its record) -> metrics


@dataclass(frozen=True)
class Entry:
    """One run of one cell: what was asked, and the record that answers it (None if there is none).

    `view` tells what of the record's metrics the cell shows, as in `efflib.papers.table.Table`.
    """

    cell: Mapping[str, Any]
    seed: int
    trial: Trial
    record: Record | None = None
    stale_because: str | None = None
    view: View | None = None

    @property
    def stale(self) -> bool:
        return self.stale_because is not None

    @property
    def usable(self) -> bool:
        return self.record is not None and self.record.status == "ok" and not self.stale

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the cell shows of its record's metrics; nothing unless the entry is usable."""
        if not self.usable:
            return {}
        metrics = self.record.metrics  # type: ignore[union-attr]
        return metrics if self.view is None else self.view(self.cell, metrics)


@dataclass(frozen=True)
class Results:
    """All entries of a table (or list of trials) at one scale."""

    table: Any
    scale: str
    entries: list[Entry] = field(default_factory=list)

    def matching(self, **cell: Any) -> list[Entry]:
        """Entries whose cell has all the given values."""
        return [e for e in self.entries if all(e.cell.get(name) == value for name, value in cell.items())]

    def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
        """seed -> metric, over the usable entries of a cell (ok, not stale, metric present).

        Raises:
            ValueError: the cell's keys do not single out one value per seed.
        """
        found: dict[int, float] = {}
        owners: dict[int, Entry] = {}
        for entry in self.matching(**cell):
            value = entry.metrics.get(metric)
            if value is None:
                continue
            if not _agree(owners.setdefault(entry.seed, entry), entry):
                raise ValueError(f"{cell} matches several cells for seed {entry.seed}: give more keys")
            found[entry.seed] = float(value)
        return found

    def reason(self, **cell: Any) -> str:
        """Why a cell has no value, or "" if it has one."""
        entries = self.matching(**cell)
        if not entries:
            return f"not in the {self.scale} grid"
        if any(e.usable for e in entries):
            return ""
        failed = [e.record.failure.reason for e in entries if e.record and e.record.failure]
        stale = [e.stale_because for e in entries if e.stale_because]
        if failed:
            return f"failed: {failed[0]}"
        return f"stale: {stale[0]}" if stale else "not recorded yet"

    @property
    def records(self) -> list[Record]:
        """Each record once, in order."""
        found = {e.record.key: e.record for e in self.entries if e.record is not None}
        return list(found.values())

    @property
    def variants(self) -> list[str]:
        """Data variants among the records, e.g. ["jpeg-q7"]."""
        return sorted({record.dataset.variant for record in self.records})

    @property
    def recorded(self) -> tuple[int, int]:
        """(trials with a usable record, all trials)."""
        usable = {e.trial.identity for e in self.entries if e.usable}
        return len(usable), len({e.trial.identity for e in self.entries})


def _agree(one: Entry, other: Entry) -> bool:
    """Whether two entries must have the same value: one trial, seen in one way."""
    same = one.trial.identity == other.trial.identity
    return same and (one.view is None or one.cell == other.cell)


def collect(
    table_or_trials: Any,
    scale: str,
    seeds: int | Iterable[int] = DEFAULT_SEEDS,
    store: Store | None = None,
    **choices: Any,
) -> Results:
    """Results from what is recorded, without running anything and without needing the data.

    Args: as `run`.
    """
    store = store or Store.for_scale(scale)
    if hasattr(table_or_trials, "entries"):
        view = getattr(table_or_trials, "view", None)
        cells = table_or_trials.entries(scale, seeds, **choices)
        asked = [Entry(cell, seed, trial, view=view) for cell, seed, trial in cells]
    else:
        asked = [Entry(trial.config, trial.config.get("seed", 0), trial) for trial in table_or_trials]
    by_identity: dict[str, list[Record]] = {}
    for record in store.records():
        by_identity.setdefault(record.identity, []).append(record)
    entries = [_answered(entry, by_identity.get(entry.trial.identity, [])) for entry in asked]
    return Results(table_or_trials, scale, entries)


def _answered(entry: Entry, records: list[Record]) -> Entry:
    """The entry with its best record: fresh before stale, ok before failed, official data first, newest first."""
    if not records:
        return entry
    why = {id(record): outdated(entry.trial, record) for record in records}

    def rank(record: Record) -> tuple[bool, bool, bool, str]:
        return (
            why[id(record)] is None,
            record.status == "ok",
            record.dataset.variant == "official",
            record.provenance.date,
        )

    best = max(records, key=rank)
    return replace(entry, record=best, stale_because=why[id(best)])


def outdated(trial: Trial, record: Record) -> str | None:
    """Why a record no longer answers a trial that has its identity, or None if it does."""
    if not trial.agrees(record.config):
        return "a default of the recipe's settings changed since"
    return stale_reason(record)
