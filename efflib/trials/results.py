"""Results: the entries of a table at one scale, each with its record or the reason why there is none."""

from __future__ import annotations

from collections import Counter
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

    The entries of one seed and one data set are answered by records on one variant of the data: by that which answers
    most of them, the official one where two answer as many. Arms are compared within a seed, and a difference between
    two variants would be taken for one between arms. Of several runs of one trial, the one is taken whose weights the
    most other records start from.

    Args: as `run`.
    """
    store = store or Store.for_scale(scale)
    if hasattr(table_or_trials, "entries"):
        view = getattr(table_or_trials, "view", None)
        cells = table_or_trials.entries(scale, seeds, **choices)
        asked = [Entry(cell, seed, trial, view=view) for cell, seed, trial in cells]
    else:
        asked = [Entry(trial.config, trial.config.get("seed", 0), trial) for trial in table_or_trials]
    records = store.records()
    made, by_identity = by_weights(records), _grouped(records, lambda record: record.identity)
    found = [
        (entry, [(record, outdated(entry.trial, record, made)) for record in by_identity.get(entry.trial.identity, [])])
        for entry in asked
    ]
    chosen = _variants(found)
    uses = Counter(sha for record in records for sha in record.parent_weights.values())
    return Results(table_or_trials, scale, [_answered(*each, chosen, uses) for each in found])


Judged = list[tuple[Record, str | None]]  # records that may answer an entry, each with why it is out of date
Variants = Mapping[tuple[int, str], str]  # (seed, data set) -> variant


def _variants(found: list[tuple[Entry, Judged]]) -> Variants:
    """The variant of each data set that answers most entries of a seed; of several such the official or newest."""
    votes: dict[tuple[int, str], dict[str, tuple[int, bool, str]]] = {}
    for entry, judged in found:
        newest: dict[tuple[str, str], str] = {}
        for record, why in judged:
            if why is None and record.status == "ok":
                data = record.dataset.name, record.dataset.variant
                newest[data] = max(newest.get(data, ""), record.provenance.date)
        for (name, variant), date in newest.items():
            given = votes.setdefault((entry.seed, name), {})
            count, official, before = given.get(variant, (0, variant == "official", ""))
            given[variant] = count + 1, official, max(before, date)
    return {place: max(given, key=lambda variant: given[variant]) for place, given in votes.items()}


def _answered(entry: Entry, judged: Judged, variants: Variants, uses: Mapping[str, int]) -> Entry:
    """The entry with its best record: fresh before stale, ok before failed, then data, descendants and date."""
    if not judged:
        return entry

    def wanted(record: Record) -> str:
        return variants.get((entry.seed, record.dataset.name), "official")

    def rank(each: tuple[Record, str | None]) -> tuple[bool, bool, bool, int, str]:
        record, why = each
        descendants = uses.get(record.weights.sha256, 0) if record.weights else 0
        fits = record.dataset.variant == wanted(record)
        return why is None, record.status == "ok", fits, descendants, record.provenance.date

    best, why = max(judged, key=rank)
    usable = why is None and best.status == "ok"
    if usable and best.dataset.variant != wanted(best):
        why = f"recorded on {best.dataset.variant} images only, other runs of this seed on {wanted(best)} ones"
    return replace(entry, record=best, stale_because=why)


def _grouped(records: Iterable[Record], key: Callable[[Record], str]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found


def by_weights(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Checksum of weights -> the records that left them; bit-identical runs leave the same."""
    return _grouped((each for each in records if each.weights), lambda each: each.weights.sha256)  # type: ignore[union-attr]


def outdated(trial: Trial, record: Record, made: Mapping[str, list[Record]]) -> str | None:
    """Why a record no longer answers a trial that has its identity, or None if it does.

    Args:
        trial: the trial asked for.
        record: of its identity.
        made: all records by the checksum of their weights, see `by_weights`: what started from weights that are out of
            date is out of date itself.
    """
    if not trial.agrees(record.config):
        return "a default of the recipe's settings changed since"
    own = stale_reason(record)
    if own is not None:
        return own
    for role, sha in record.parent_weights.items():
        reasons = [outdated(trial.parents[role], each, made) for each in made.get(sha, [])]
        if reasons and all(reasons):
            return f"its {role} is out of date: {reasons[0]}"
    return None
