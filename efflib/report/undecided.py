"""Which claims are still open at a scale, and which trials would decide each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from efflib.report.verdict import MIN_SEEDS, NOT_RUN, UNDETERMINED, ClaimVerdict, claim_verdict
from efflib.scales import SCALES
from efflib.trials import Entry, Results, Store, Trial, collect
from efflib.trials.campaign import Need
from efflib.trials.trial import with_parents

MOST_SEEDS = 10  # a claim that needs more at the observed spread is left open: its effect is small beside the noise


@dataclass(frozen=True)
class Traced(Results):
    """Results that remember which entries were asked for."""

    asked: dict[int, Entry] = field(default_factory=dict)

    def matching(self, **cell: Any) -> list[Entry]:
        found = super().matching(**cell)
        self.asked.update((id(entry), entry) for entry in found)
        return found


def undecided(tables: Mapping[str, Any], scale: str, store: Store | None = None) -> list[Need]:
    """The open claims of these tables that runs at this scale can decide, each with its missing trials.

    A claim's trials are those whose entries its comparisons ask for: first the 3 seeds that every claim needs, then, if
    it is open, as many as would decide it at the observed spread. Failed trials are left out: their reason is recorded.

    Args:
        tables: name -> Table.
        scale: tiny, small or paper.
        store: where the records are; the scale's own when None.

    Raises:
        ValueError: scale smoke, whose runs decide nothing.
    """
    if scale not in SCALES or scale == "smoke":
        raise ValueError(f"scale {scale!r} decides no claim: give one of {', '.join(SCALES[1:])}")
    store = store or Store.for_scale(scale)
    needs = [need for table in tables.values() for need in _needs(table, scale, store)]
    return [need for need in needs if need.trials]


def _needs(table: Any, scale: str, store: Store) -> Iterable[Need]:
    found = collect(table, scale, MIN_SEEDS, store=store)
    by_seeds = {MIN_SEEDS: found}
    for claim in table.claims:
        if SCALES.index(scale) < SCALES.index(claim.minimum_scale):
            continue
        verdict = claim_verdict(claim.comparisons(found), scale, claim.minimum_scale)
        if verdict.verdict not in (UNDETERMINED, NOT_RUN):
            continue
        seeds = _seeds(verdict)
        if seeds > MOST_SEEDS:
            continue
        if seeds not in by_seeds:
            by_seeds[seeds] = collect(table, scale, seeds, store=store)
        yield Need(claim.id, tuple(_missing(claim, by_seeds[seeds])))


def _seeds(verdict: ClaimVerdict) -> int:
    """Seeds that would decide what is open of a claim."""
    needed = [comparison.seeds_needed or MIN_SEEDS for comparison in verdict.comparisons if comparison.ran]
    return max([MIN_SEEDS, *needed])


def _missing(claim: Any, results: Results) -> list[Trial]:
    """Trials without a record behind the entries that a claim asks for, by seed, parents first."""
    traced = Traced(results.table, results.scale, results.entries)
    claim.comparisons(traced)
    entries = sorted(traced.asked.values(), key=lambda entry: entry.seed)
    usable = {entry.trial for entry in results.entries if entry.usable}
    failed = {entry.trial for entry in results.entries if entry.record is not None and not entry.stale} - usable
    missing = with_parents(entry.trial for entry in entries if entry.trial not in usable | failed)
    return [trial for trial in missing if trial not in usable | failed]
