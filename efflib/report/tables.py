"""Printed table against measured results: rows with intervals, verdicts and reasons, and the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from efflib.report.audit import subject
from efflib.report.html import html_table
from efflib.report.measures import UNITS, Measure, as_printed, headline_of, measure_of, measures_of
from efflib.report.verdict import (
    CELL_VERDICTS,
    CLAIM_VERDICTS,
    CONTRADICTED,
    HIGHER,
    LOWER,
    NOT_RUN,
    SUPPORTED,
    UNDETERMINED,
    CellVerdict,
    ClaimVerdict,
    Interval,
    cell_verdict,
    claim_verdict,
    interval,
    margin_for,
    paired,
)
from efflib.scales import SCALES

if TYPE_CHECKING:
    import pandas as pd

OURS = "ours"  # shown where the paper printed nothing: a control arm, or data that the paper did not use


@dataclass(frozen=True)
class Row:
    """One cell, printed or ours, with everything measured about it.

    Args:
        keys: model, dataset, method and what else names the cell.
        printed, printed_gain: as printed; None for our own rows.
        values: measured intervals by metric, for the table's measures in their units; None where nothing was measured.
        gain: difference to the baseline of the same keys in the headline measure, paired by seed.
        bias: ``test_best - val_best``, paired by seed: what choosing the epoch on the test set adds; None where the
            table does not show both.
        n: number of seeds with a value.
        verdict: a cell verdict, or ``ours`` where nothing was printed.
        reason: why this verdict, or why there is no value.
        seeds_needed, cost_seconds: what would decide an undetermined cell at the observed spread.
        variant: data variant(s) of the records, ``official`` or e.g. ``jpeg-q7``.
        spelling: the paper's own spelling of names.
    """

    keys: dict[str, Any]
    printed: float | None
    printed_gain: float | None
    values: dict[str, Interval | None]
    gain: Interval | None
    bias: Interval | None
    n: int
    verdict: str
    reason: str
    seeds_needed: int | None = None
    cost_seconds: float | None = None
    variant: str = "official"
    spelling: dict[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> Interval | None:
        """The last epoch, without any selection."""
        return self.values.get("last")

    @property
    def test_best(self) -> Interval | None:
        """The best epoch on the test set."""
        return self.values.get("test_best")

    @property
    def val_best(self) -> Interval | None:
        """The best epoch on the held-out images."""
        return self.values.get("val_best")


@dataclass(frozen=True)
class TableComparison:
    """A printed table beside the results of one scale. ``rows`` and ``claims`` are computed once."""

    table: Any
    results: Any

    @cached_property
    def rows(self) -> list[Row]:
        """One row per printed cell, then our own rows, kept together by network and data set."""
        printed = {_frozen(c.keys): c for c in self.table.printed.numbers}
        measured = {_frozen(e.cell): dict(e.cell) for e in self.results.entries}
        cells = [(c.keys, c) for c in printed.values()]
        cells += [(keys, None) for frozen, keys in measured.items() if frozen not in printed]
        groups: dict[tuple, list] = {}
        for keys, cell in cells:
            groups.setdefault((subject(keys), keys.get("dataset")), []).append(self._row(keys, cell))
        return [row for group in groups.values() for row in group]

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """What the rows show of the records, the headline first."""
        return measures_of(self.table)

    @cached_property
    def claims(self) -> list[tuple[Any, ClaimVerdict]]:
        """Every claim of the table with its verdict at this scale."""
        return [
            (c, claim_verdict(c.comparisons(self.results), self.results.scale, c.minimum_scale))
            for c in self.table.claims
        ]

    def frame(self, measured_only: bool = False) -> pd.DataFrame:
        """The rows as text for display, e.g. ``92.41 ± 0.12 (5)``; empty where there is nothing.

        Args:
            measured_only: leave out printed cells that were not measured at this scale.
        """
        import pandas as pd

        rows = [r for r in self.rows if r.n or not measured_only]
        names = list(dict.fromkeys(key for row in rows for key in row.keys))
        unit = self.table.printed.unit
        texts = [{**_key_texts(row, names), **_value_texts(row, self.measures, unit)} for row in rows]
        return _shown(self.table, pd.DataFrame(texts), [self.measures[0].title])

    def claims_frame(self) -> pd.DataFrame:
        """The claims with their verdicts, one row each."""
        import pandas as pd

        columns = ["id", "claim", "whose", "scope", "verdict", "scale", "detail", "data"]
        data = self._variant({})
        rows = [(c.id, c.text, c.owner, c.scope, v.verdict, v.scale, v.detail, data) for c, v in self.claims]
        return pd.DataFrame(rows, columns=columns)

    def to_html(self, caption: str = "", table_id: str | None = None, measured_only: bool = False) -> str:
        """The frame as a plain HTML table of class ``sortable``, everything escaped."""
        return html_table(self.frame(measured_only).to_dict("records"), caption, table_id)

    def _row(self, keys: dict[str, Any], cell: Any) -> Row:
        values = {measure.metric: measure.samples(self.results, **keys) for measure in self.measures}
        baseline = _baseline_keys(keys, [e.cell for e in self.results.entries])
        headline = self.measures[0]
        gain = paired(values[headline.metric], headline.samples(self.results, **baseline)) if baseline else {}
        selected = [values.get(metric, {}) for metric in ("test_best", "val_best")]
        decided = self._verdict(keys, cell)
        return Row(
            keys=dict(keys),
            printed=None if cell is None else cell.value,
            printed_gain=None if cell is None else cell.gain,
            values={metric: _interval(samples) for metric, samples in values.items()},
            gain=_interval(gain),
            bias=_interval(paired(*selected)),
            n=max(len(samples) for samples in values.values()),
            verdict=decided.verdict,
            reason=decided.reason,
            seeds_needed=decided.seeds_needed,
            cost_seconds=decided.cost_seconds,
            variant=self._variant(keys),
            spelling={} if cell is None else dict(cell.printed),
        )

    def _verdict(self, keys: Mapping[str, Any], cell: Any) -> CellVerdict:
        if cell is None:
            return CellVerdict(OURS, self.results.reason(**keys))
        printed = self.table.printed
        measure = measure_of(self.table, printed.selection or self.table.measures[0])
        missing = self.results.reason(**keys) or f"its records have no {measure.metric}"
        return cell_verdict(
            measure.samples(self.results, **keys),
            cell.value,
            margin_for(printed.unit, cell.value),
            self.results.scale,
            variant=self._variant(keys),
            seconds_per_seed=self._seconds(keys),
            missing=missing,
        )

    def _records(self, keys: Mapping[str, Any]) -> list[Any]:
        """Records that give the cell its values."""
        return [
            e.record
            for e in self.results.entries
            if e.record is not None and e.record.status == "ok" and not e.stale and keys.items() <= dict(e.cell).items()
        ]

    def _variant(self, keys: Mapping[str, Any]) -> str:
        variants = sorted({record.dataset.variant for record in self._records(keys)})
        return ", ".join(variants) or "official"

    def _seconds(self, keys: Mapping[str, Any]) -> float | None:
        seconds = [record.cost.seconds for record in self._records(keys)]
        return fmean(seconds) if seconds else None


@dataclass(frozen=True)
class ScaleComparison:
    """One table at several scales, smallest first."""

    table: Any
    by_scale: dict[str, TableComparison]

    def frame(self, measured_only: bool = False) -> pd.DataFrame:
        """Printed number, then headline measure and gain per scale, then the verdict of the paper scale."""
        import pandas as pd

        rows = {_frozen(r.keys): r for c in self.by_scale.values() for r in c.rows}
        names = list(dict.fromkeys(key for row in rows.values() for key in row.keys))
        headline, unit = headline_of(self.table), self.table.printed.unit
        lines = []
        for frozen, row in _grouped(rows).items():
            per_scale = {s: _find(c.rows, frozen) for s, c in self.by_scale.items()}
            if measured_only and not any(r and r.n for r in per_scale.values()):
                continue
            line = {**_key_texts(row, names), "printed": _printed_text(row, unit)}
            for scale, found in per_scale.items():
                value, gain = (found.values[headline.metric], found.gain) if found else (None, None)
                line[f"{headline.title}, {scale}"] = headline.text(value)
                line[f"{headline.change}, {scale}"] = headline.text(gain, signed=True)
            paper = per_scale.get("paper")
            line["verdict"] = paper.verdict if paper else (OURS if row.printed is None else NOT_RUN)
            lines.append(line)
        measured = [f"{headline.title}, {scale}" for scale in self.by_scale]
        return _shown(self.table, pd.DataFrame(lines), measured)

    def claims_frame(self) -> pd.DataFrame:
        """The claims with verdict and counts per scale."""
        import pandas as pd

        verdicts = {
            scale: {claim.id: v for claim, v in comparison.claims} for scale, comparison in self.by_scale.items()
        }
        rows = []
        for claim in self.table.claims:
            row = {"id": claim.id, "claim": claim.text}  # then the verdicts: on a phone the rest scrolls
            for scale, found in verdicts.items():
                row[scale] = f"{found[claim.id].verdict} ({found[claim.id].detail})"
            row |= {"whose": claim.owner, "scope": claim.scope}
            rows.append(row)
        return pd.DataFrame(rows)

    def to_html(self, caption: str = "", table_id: str | None = None, measured_only: bool = False) -> str:
        """The frame as a plain HTML table of class ``sortable``, everything escaped."""
        return html_table(self.frame(measured_only).to_dict("records"), caption, table_id)


def compare(table: Any, results: Any) -> TableComparison:
    """Put a table's printed numbers beside the results of one scale.

    Args:
        table: an ``efflib.papers.table.Table``.
        results: what ``efflib.run`` or ``efflib.trials.collect`` returned for it.

    Returns:
        ``.rows``, ``.claims``, ``.frame()``, ``.claims_frame()``, ``.to_html()``.
    """
    return TableComparison(table, results)


def compare_scales(table: Any, results: Mapping[str, Any]) -> ScaleComparison:
    """Put a table's printed numbers beside the results of several scales.

    Args:
        table: an ``efflib.papers.table.Table``.
        results: scale -> results.

    Raises:
        ValueError: results filed under another scale than their own.
    """
    wrong = {scale: r.scale for scale, r in results.items() if r.scale != scale}
    if wrong:
        raise ValueError(f"Results filed under the wrong scale: {wrong}; use {{r.scale: r}}.")
    ordered = sorted(results, key=SCALES.index)
    return ScaleComparison(table, {scale: compare(table, results[scale]) for scale in ordered})


def ledger(items: Iterable[Any]) -> list[dict[str, Any]]:
    """Count every printed number by verdict, or by the reason why it has none.

    Args:
        items: per printed table either a PrintedTable that nothing repeats yet, or a pair
            ``(table, {scale: results})``.

    Returns:
        One row per table: paper, table, title, printed (count), one count per cell verdict, measured
        (printed cells with a value at any scale that counts), reasons (text -> count over cells that are
        not run), claims (claim verdict -> count, each at the largest scale that decides something), and
        claim_scales (claim id -> that scale), worse (the cell verdict that means worse than printed: lower, or
        higher for losses and sizes).
    """
    return [_ledger_row(*item) if isinstance(item, tuple) else _ledger_row(item, {}) for item in items]


# --- texts ------------------------------------------------------------------------------------------------


def _key_texts(row: Row, names: list[str]) -> dict[str, str]:
    texts = {}
    for name in names:
        value = row.keys.get(name, "")
        text = value if isinstance(value, str) else f"{value:g}"
        spelled = row.spelling.get(name)
        texts[name.replace("_", " ")] = f"{text} ({spelled})" if spelled else text
    return texts


def _value_texts(row: Row, measures: Sequence[Measure], unit: str) -> dict[str, str]:
    headline = measures[0]
    texts = {"printed": _printed_text(row, unit)}
    texts |= {measure.title: measure.text(row.values[measure.metric]) for measure in measures}
    texts[headline.change] = headline.text(row.gain, signed=True)
    texts["test best - val best"] = headline.text(row.bias, signed=True)
    texts["verdict"], texts["reason"] = row.verdict, row.reason
    texts["seeds to decide"] = "" if row.seeds_needed is None else str(row.seeds_needed)
    texts["cost to decide"] = "" if row.cost_seconds is None else f"{row.cost_seconds / 3600:.3g} h"
    texts["data"] = row.variant if row.n and row.variant != "official" else ""
    return texts


def _printed_text(row: Row, unit: str) -> str:
    if row.printed is None:
        return ""
    number = as_printed(row.printed, unit)
    return number if row.printed_gain is None else f"{number} ({as_printed(row.printed_gain, unit, '+')})"


def _shown(table: Any, frame: pd.DataFrame, measured: Sequence[str]) -> pd.DataFrame:
    """The frame less the columns in which no row has a text, but for what is printed, measured and decided.

    Of a figure or a table of words no number is printed, and none can be decided.
    """
    printed = ("printed", "verdict")
    if not table.printed.numbers:
        frame = frame.drop(columns=[*printed], errors="ignore")
    always = (*printed, *measured)
    return frame[[name for name in frame.columns if name in always or (frame[name] != "").any()]]


# --- cells ------------------------------------------------------------------------------------------------


def _interval(samples: Mapping[int, float]) -> Interval | None:
    return interval(samples) if samples else None


def _frozen(keys: Mapping[str, Any]) -> frozenset:
    return frozenset(keys.items())


def _find(rows: list[Row], frozen: frozenset) -> Row | None:
    return next((r for r in rows if _frozen(r.keys) == frozen), None)


def _grouped(rows: dict[frozenset, Row]) -> dict[frozenset, Row]:
    """Keep rows of one network and data set together when several scales bring rows of their own."""
    groups: dict[tuple, dict[frozenset, Row]] = {}
    for frozen, row in rows.items():
        groups.setdefault((subject(row.keys), row.keys.get("dataset")), {})[frozen] = row
    return {frozen: row for group in groups.values() for frozen, row in group.items()}


def _baseline_keys(keys: Mapping[str, Any], cells: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The measured baseline of a cell: its keys as far as baselines have them."""
    if keys.get("method") == "baseline":
        return None
    for cell in cells:
        rest = {k: v for k, v in cell.items() if k != "method"}
        if cell.get("method") == "baseline" and rest.items() <= keys.items():
            return dict(cell)
    return None


# --- the ledger -------------------------------------------------------------------------------------------


def _ledger_row(table: Any, results: Mapping[str, Any]) -> dict[str, Any]:
    printed = getattr(table, "printed", table)
    by_scale = compare_scales(table, results).by_scale if results else {}
    decided = [_ledger_cell(_frozen(c.keys), by_scale) for c in printed.numbers]
    verdicts = Counter(verdict for verdict, _, _ in decided)
    claims = [_best_claim(claim, by_scale) for claim in getattr(table, "claims", ())]
    return {
        "paper": printed.paper,
        "table": printed.id,
        "page": getattr(table, "page", "") or printed.id,
        "title": getattr(table, "title", printed.caption),
        "printed": len(decided),
        **{name: verdicts[name] for name in CELL_VERDICTS},
        "measured": sum(measured for _, _, measured in decided),
        "reasons": dict(Counter(reason for verdict, reason, _ in decided if verdict == NOT_RUN)),
        "claims": {name: sum(v == name for _, v, _ in claims) for name in CLAIM_VERDICTS},
        "claim_scales": {name: scale for name, _, scale in claims},
        "worse": HIGHER if printed.unit in UNITS and UNITS[printed.unit].lower_is_better else LOWER,
    }


def _ledger_cell(frozen: frozenset, by_scale: Mapping[str, TableComparison]) -> tuple[str, str, bool]:
    """Verdict, reason and whether any scale that counts has a value; smoke never does."""
    if not by_scale:
        return NOT_RUN, "no trials for this table yet", False
    rows = {s: _find(c.rows, frozen) for s, c in by_scale.items() if s != "smoke"}
    measured = [s for s, row in rows.items() if row and row.n]
    paper = rows.get("paper")
    if paper and paper.verdict != NOT_RUN:
        return paper.verdict, paper.reason, True
    if measured:
        return NOT_RUN, f"no paper-scale runs; measured at {', '.join(measured)}", True
    reasons = [row.reason for row in rows.values() if row]
    troubles = [r for r in reasons if r.startswith(("failed", "stale"))]
    waiting = [r for r in reasons if not r.startswith("not in")]
    return NOT_RUN, next(iter(troubles + waiting), "not in the grid of any scale with results"), False


def _best_claim(claim: Any, by_scale: Mapping[str, TableComparison]) -> tuple[str, str, str]:
    """Claim id, verdict and scale: the largest scale that decides it, else the largest at which anything ran."""
    found = {scale: {c.id: v for c, v in by_scale[scale].claims}[claim.id].verdict for scale in by_scale}
    falling = sorted(found, key=SCALES.index, reverse=True)
    for wanted in ((SUPPORTED, CONTRADICTED), (UNDETERMINED,)):
        for scale in falling:
            if found[scale] in wanted:
                return claim.id, found[scale], scale
    return claim.id, NOT_RUN, ""
