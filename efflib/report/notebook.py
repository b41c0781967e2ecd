"""What every table's notebook shows, in the book's order: a `TablePage` is one table with one run's parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

from efflib.report.audit import Finding, findings_for, label
from efflib.report.contrasts import Arm, breakdown, contrast, decomposed, settings_of, weak_teachers
from efflib.report.html import html_table, sentence
from efflib.report.measures import as_printed, captions, headline_of
from efflib.report.provenance import all_behind, cost_in_words, data_of, duration, in_markdown, provenance_rows
from efflib.report.tables import Row, TableComparison, compare, compare_scales
from efflib.report.verdict import (
    CLAIM_VERDICTS,
    NOT_RUN,
    OPEN,
    UNDETERMINED,
    ClaimVerdict,
    margin_note,
)
from efflib.scales import SCALES

_UNANSWERED = ("failed", "stale")  # how the reason of a cell begins that has records, but none that counts


class ChanceLevel(RuntimeError):
    """A demonstration whose baseline does not beat guessing: it would teach nothing."""


@dataclass
class TablePage:
    """One table's notebook: its run, and everything shown around it.

    Args:
        table: the Table.
        scale, seeds, device, engine, recompute: the notebook's parameters, as `efflib.run` takes them.
        findings: all audit findings of the paper.
        choices: the table's own choices, e.g. {"models": ["vgg8"]}; None leaves a choice at the scale's default.
    """

    table: Any
    scale: str
    seeds: Any
    device: str = "auto"
    engine: str = "local"
    recompute: bool = False
    findings: Sequence[Finding] = ()
    choices: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def found(self) -> dict[str, TableComparison]:
        """Scale -> comparison, for every scale except smoke that has a record, be it failed or stale."""
        found = {scale: evidence(self.table, scale) for scale in SCALES if scale != "smoke"}
        return {scale: compare(self.table, results) for scale, results in found.items() if results.records}

    @cached_property
    def recorded(self) -> dict[str, TableComparison]:
        """Scale -> comparison, for every scale except smoke with a usable record of a cell like the printed ones."""
        return {scale: shown for scale, shown in self.found.items() if _answers(shown)}

    @cached_property
    def results(self) -> Any:
        """This notebook's own run; missing trials are trained on first use.

        Raises:
            ChanceLevel: a smoke baseline within three standard errors of guessing.
        """
        from efflib.trials import run

        results = run(
            self.table,
            self.scale,
            self.seeds,
            engine=self.engine,
            device=self.device,
            recompute=self.recompute,
            **self.choices,
        )
        if self.scale == "smoke":
            refuse_chance_level(results)
        return results

    def headline(self, contrasts: Sequence[tuple[Arm, Arm]] = (), beside: Sequence[Any] = ()) -> Any:
        """What held, at which scale, on which data, what a re-run costs; and the differences that matter most.

        Args:
            contrasts: pairs of arms (one, other): one less other is told for every setting measured.
            beside: further Tables of this page, whose claims are counted too.
        """
        if not self.recorded:
            return _markdown(
                "**What held:** nothing is measured on real data yet. The run on this page shows that the code works; "
                "it says nothing about the paper."
            )
        shown = self.show_scale()
        scale = shown.results.scale
        others = [compare(table, evidence(table, scale)).claims for table in beside]
        verdicts = Counter(verdict.verdict for claims in (shown.claims, *others) for _, verdict in claims)
        counted = ", ".join(f"{verdicts[name]} {name}" for name in CLAIM_VERDICTS if verdicts[name])
        held = f"of {verdicts.total()} claims, {counted}" if verdicts else "this table makes no claim"
        text = f"**What held, at scale `{scale}`:** {held}. {cost_in_words(shown.results)}"
        measure, arms = headline_of(self.table), [arm for pair in contrasts for arm in pair]
        lines = [contrast(shown.results, measure, here, contrasts) for here in settings_of(shown.results, arms)]
        told = "\n".join(f"- {line}" for line in lines if line)
        text += weak_teachers(shown.results, measure)
        unit = f"Differences in {measure.difference}, mean ± half the 95 % interval, number of seeds:"
        return _markdown(f"{text}\n\n{unit}\n\n{told}" if told else text)

    def printed(self) -> Any:
        """The printed table as the paper gives it, with the printed gains."""
        cells, unit = self.table.printed.numbers, self.table.printed.unit
        across = self.table.across
        same = _shared_keys(cells)
        names = [n for n in dict.fromkeys(n for cell in cells for n in cell.keys) if n not in (*across, *same)]
        lines: dict[tuple[str, ...], dict[str, str]] = {}
        for cell in cells:
            place = {name: _plain(cell.keys.get(name, "")) for name in names}
            gain = "" if cell.gain is None else f" ({as_printed(cell.gain, unit, '+')})"
            number = as_printed(cell.value, unit) + gain
            line = lines.setdefault(tuple(place.values()), place)
            shown = [str(cell.keys[name]) for name in across if name in cell.keys and name not in same]
            line[", ".join(shown) or "printed"] = number
        return self._table(list(lines.values()), self.table.printed.caption, "printed")

    def plan(self) -> Any:
        """How many trials this run needs, and how many are there already: read before you train."""
        from efflib.trials import plan

        planned = plan(self.table, self.scale, self.seeds, **self.choices)
        times = [_time(planned, device) for device, seconds in planned.seconds.items() if seconds]
        text = f"Scale `{self.scale}`: {len(planned.trials)} trials"
        if self.scale != "smoke":  # how many smoke trials are recorded depends on what ran before this page
            text += f", {planned.recorded} recorded, {len(planned.missing)} to run ({planned.flops:.1e} FLOPs"
            text += f"; {in_markdown(', '.join(times))})" if times else ")"
        return _markdown(text + ".")

    def measured(self) -> Any:
        """This run: one row per cell that it measured."""
        comparison = compare(self.table, self.results)
        note = " Smoke runs are demonstrations: no verdict follows." if self.scale == "smoke" else ""
        hidden = ["printed", "verdict", "reason"] if self.scale == "smoke" else []
        frame = comparison.frame(measured_only=True).drop(columns=hidden, errors="ignore")
        rows, same = _folded(frame, comparison.rows)
        about = f"{data_of(comparison.results.entries)}{same}. {captions(self.table)}"
        caption = f"This page's run: scale {self.scale}, {about}.{note}"
        shown = html_table(rows, caption, self._id(f"run-{self.scale}")) if rows else "<p>This run has no value.</p>"
        return _html(shown + self._troubles({self.scale: comparison}, "run-troubles"))

    def comparison(self) -> Any:
        """What is recorded at each scale beside the printed numbers; then every printed cell with its verdict."""
        troubles = self._troubles(self.found, "troubles")
        if not self.recorded:
            return _html(f"<p>{escape(self.table.title)}: nothing is measured on real data yet.</p>{troubles}")
        both = compare_scales(self.table, {scale: c.results for scale, c in self.recorded.items()})
        measure, note = headline_of(self.table), margin_note(self.table.printed.unit)
        told = [measure.words]
        if any(row.gain for shown in self.recorded.values() for row in shown.rows):
            told.append(f"{measure.change} over the own baseline")
        told.append("verdict of the cell" + (f" ({note})" if note else ""))
        caption = f"Printed against measured: {', '.join(told)}"
        parts = [self._detail(scale, shown) for scale, shown in self.recorded.items()]
        count = len(self.table.printed.numbers)
        rows, same = _folded(both.frame(), [row for shown in both.by_scale.values() for row in shown.rows])
        every = html_table(rows, f"{caption}{same}", self._id("cells"))
        summary = f"<summary>All {count} printed cells with their verdicts</summary>"
        details = f"<details>{summary}{every}</details>" if count else ""  # the text prints no number of a figure
        notes = [f"<p>{escape(note)}</p>" for note in self.table.notes]
        return _html("".join([*notes, *parts, troubles, details]))

    def _detail(self, scale: str, shown: TableComparison) -> str:
        rows, same = _folded(shown.frame(measured_only=True), shown.rows)
        caption = f"Scale {scale}: {data_of(shown.results.entries)}{same}. {captions(self.table)}"
        return html_table(rows, f"{caption}, mean ± half the 95 % interval (seeds)", self._id(f"detail-{scale}"))

    def claims(self) -> Any:
        """Every claim with its verdict at each recorded scale; "not run" where none is, as smoke runs never count."""
        if not self.table.claims:
            return _markdown("No claim is about these numbers.")
        both = compare_scales(self.table, {scale: c.results for scale, c in self.recorded.items()})
        needed = {
            f"seeds to decide, {scale}": {claim.id: _seeds_to_decide(verdict) for claim, verdict in shown.claims}
            for scale, shown in both.by_scale.items()
        }
        needed = {name: found for name, found in needed.items() if any(found.values())}
        rows = [row | {name: found[row["id"]] for name, found in needed.items()} for row in _rows(both.claims_frame())]
        if not self.recorded:
            rows = [{"id": row.pop("id"), "claim": row.pop("claim"), "verdict": NOT_RUN, **row} for row in rows]
        return self._table(rows, "Claims and their verdicts", "claims")

    def decomposition(self, steps: Sequence[Arm]) -> Any:
        """The gain taken apart along arms: each step less the one before it, paired by seed, then the whole.

        Args:
            steps: arms from the baseline to the method, e.g. ["baseline", "original_only", "shuffled", "bimask"].
        """
        results, measure = self.show_scale().results, headline_of(self.table)
        rows = [decomposed(results, measure, setting, steps) for setting in settings_of(results, steps)]
        rows = [row for row in rows if any(text for name, text in row.items() if " less " in name)]
        if not rows:
            return _markdown(f"No two of these arms ran with the same seed at scale `{results.scale}` yet.")
        told = f"{measure.difference}, mean ± 95 % (seeds)"
        caption = f"Where the {measure.change} comes from, scale {results.scale}: {told}"
        return self._table(rows, caption, "decomposition")

    def cost(self) -> Any:
        """What the recorded runs took, on which device, with which source, and from which data."""
        rows = [row for shown in self.found.values() for row in provenance_rows(all_behind(shown.results))]
        if not rows:
            return _markdown("Nothing is recorded beyond this page's smoke run; the status page tells its time.")
        return self._table(rows, "Cost and provenance of the recorded trials", "cost")

    def audit(self) -> Any:
        """The audit findings that concern this table, each linking to its place on the audit page."""
        chosen = findings_for(self.findings, self.table.id)
        if not chosen:
            return _markdown("The audit has no finding about this table.")
        return finding_list(chosen)

    def repeat(self, scale: str = "tiny") -> Any:
        """One copyable line that repeats this table with papermill, from the repository's folder."""
        page = self.table.page or self.table.id
        source = f"notebooks/{self.table.paper}/{page}.ipynb"
        line = f".venv/bin/papermill {source} {page}.ipynb -p scale {scale} -y 'seeds: [0, 1, 2, 3, 4]'"
        return _markdown(f"```bash\n{line}\n```")

    def show_scale(self) -> TableComparison:
        """The comparison that figures show: the largest recorded scale with more than networks trained alone.

        Such networks may have been recorded for another page, and a figure of them alone would hide a smaller scale
        that has the arms too. Where no scale has more, the largest; where nothing is recorded, this page's run.
        """
        if not self.recorded:
            return compare(self.table, self.results)
        return max(self.recorded.values(), key=lambda c: (_goes_beyond_baselines(c), SCALES.index(c.results.scale)))

    def _troubles(self, compared: Mapping[str, TableComparison], name: str) -> str:
        """The cells whose records failed, are stale or broke down, with the reasons; nothing if there are none.

        A cell with values may have failed seeds, too: its mean is then of the runs that survived, and has to say so.
        """
        rows = [
            {"scale": scale, "cell": label(row.keys), "why": row.reason}
            for scale, shown in compared.items()
            for row in shown.rows
            if not row.n and row.reason.startswith(_UNANSWERED)
        ]
        for scale, shown in compared.items():
            valued = [row.keys for row in shown.rows if row.n]
            rows += [
                {
                    "scale": scale,
                    "cell": label(e.cell),
                    "why": f"seed {e.seed} is not in the mean: {e.record.failure.reason}",
                }
                for e in shown.results.entries
                if e.record is not None and e.record.failure is not None and not e.stale and e.cell in valued
            ]
            rows += [
                {"scale": scale, "cell": label(entry.cell), "why": f"seed {entry.seed} broke down: {told}"}
                for entry in shown.results.entries
                if (told := breakdown(entry))
            ]
        return html_table(rows, "Runs that failed, are stale or broke down", self._id(name)) if rows else ""

    def _id(self, name: str) -> str:
        return f"{self.table.paper}-{self.table.id}-{name}"

    def _table(self, rows: Sequence[Mapping[str, Any]], caption: str, name: str) -> Any:
        return _html(html_table(rows, caption, self._id(name)))


def evidence(table: Any, scale: str, **choices: Any) -> Any:
    """All results of a table at one scale: the usual seeds, and every further seed that somebody ran.

    Args:
        table: the Table.
        scale: one of the scales.
        **choices: the table's own.
    """
    from efflib.trials import Results, Store, collect
    from efflib.trials.results import DEFAULT_SEEDS

    store = Store.for_scale(scale)
    seeds = {*range(DEFAULT_SEEDS)} | {r.config["seed"] for r in store.records() if "seed" in r.config}
    results = collect(table, scale, sorted(seeds), store=store, **choices)
    return Results(table, scale, [e for e in results.entries if e.seed < DEFAULT_SEEDS or e.record is not None])


def at_every_scale(
    page: TablePage,
    *tables: Callable[[Any], Any],
    nothing: str = "No trial on real data has a usable record for this yet.",
    has: Callable[[Any], Any] | None = None,
) -> Any:
    """The given tables of results for every recorded scale, smallest first; a sentence where nothing is recorded.

    `has` chooses the scales by what their results have, e.g. what needs no training and is there before any accuracy.
    """
    chosen = page.recorded if has is None else {s: each for s, each in page.found.items() if has(each.results)}
    parts = [table(shown.results).data for shown in chosen.values() for table in tables]
    return _html("".join(parts)) if parts else sentence(nothing)


def finding_list(findings: Iterable[Finding]) -> Any:
    """Audit findings as a list, each linking to its place on the audit page."""
    told = "Tables, quotations and sources of a finding are behind its *details*; *below* and *column* mean those."
    return _markdown(
        f"{told}\n\n" + "\n".join(f"- **{f.title}.** {f.text} ({{ref}}`details <{f.anchor}>`)" for f in findings)
    )


def chance_bar(images: int, classes: int) -> float:
    """Accuracy in % that guessing exceeds by chance alone hardly ever: its mean plus three standard errors."""
    chance = 1 / classes
    return 100 * (chance + 3 * (chance * (1 - chance) / images) ** 0.5)


def refuse_chance_level(results: Any) -> None:
    """Check that each baseline of a demonstration beats guessing by three standard errors.

    Raises:
        ChanceLevel: names the cell, its accuracy and the bar, or says why the baseline failed.
    """
    from efflib.data import load_dataset

    for entry in results.entries:
        if entry.trial.recipe != "baseline" or entry.record is None:
            continue
        if entry.record.failure:
            raise ChanceLevel(f"{entry.trial.label} failed: {entry.record.failure.reason}")
        test = load_dataset(entry.trial.config["dataset"], "test")
        bar = chance_bar(len(test), len(test.classes))
        if not entry.record.metrics["last"] > bar:  # a NaN does not beat it either
            raise ChanceLevel(
                f"{entry.trial.label} reaches {entry.record.metrics['last']:.1f} %, guessing plus three standard "
                f"errors is {bar:.1f} %: train longer, or the demonstration shows nothing"
            )


def _answers(shown: TableComparison) -> bool:
    """Whether anything was measured that has the keys of a printed cell: a yardstick beside them does not count."""
    if not shown.results.recorded[0]:
        return False
    kinds = {frozenset(cell.keys) for cell in shown.table.printed.numbers}
    return not kinds or any(row.n and frozenset(row.keys) in kinds for row in shown.rows)


def _goes_beyond_baselines(shown: TableComparison) -> bool:
    return any(entry.usable and entry.trial.recipe != "baseline" for entry in shown.results.entries)


def _seeds_to_decide(verdict: ClaimVerdict) -> str:
    """Seeds that would decide an undetermined claim; nothing where cells are missing, which no seed would mend."""
    needed = [made.seeds_needed for made in verdict.comparisons if made.verdict == OPEN]
    if verdict.verdict != UNDETERMINED or verdict.ran < verdict.expected or None in needed:
        return ""
    return str(max(seeds for seeds in needed if seeds is not None))


def _shared_keys(cells: Sequence[Any]) -> list[str]:
    """Keys that say the same in every printed cell, such as the only data set of a table."""
    names = dict.fromkeys(name for cell in cells for name in cell.keys)
    return [n for n in names if len(cells) > 1 and len({str(cell.keys.get(n)) for cell in cells}) == 1]


def _rows(frame: Any) -> list[dict[str, Any]]:
    return frame.to_dict("records")


def _folded(frame: Any, shown: Sequence[Row]) -> tuple[list[dict[str, Any]], str]:
    """Rows of a frame without the keys that are the same in all of them, and these as words for its caption.

    A caption names the data already: their column goes where all rows have the same.
    """
    rows = _rows(frame)
    keys = dict.fromkeys(name.replace("_", " ") for row in shown for name in row.keys)
    same = [name for name in (*keys, "data") if len(rows) > 1 and len({row.get(name) for row in rows}) == 1]
    told = "".join(f", {name} {rows[0][name]}" for name in same if name in keys and rows[0].get(name))
    return [{name: value for name, value in row.items() if name not in same} for row in rows], told


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _time(planned: Any, device: str) -> str:
    unknown = planned.unknown[device]
    rest = f", and {unknown} of unknown time" if unknown else ""
    return f"about {duration(planned.seconds[device])} on {device}{rest}"


def _markdown(text: str) -> Any:
    from IPython.display import Markdown

    return Markdown(text)


def _html(text: str) -> Any:
    from IPython.display import HTML

    return HTML(text)
