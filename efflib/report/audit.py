"""Recomputing what papers print: gains, averages, baselines across tables and papers, equal numbers.

Printed numbers are decimals, so the arithmetic here is decimal too: 68.66 - 68.25 is 0.41, not 0.4099999.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from pathlib import Path
from typing import Any, Self

from efflib.report.html import html_table

CATEGORIES = {
    "arithmetic": "Arithmetic",
    "baselines": "Baselines",
    "statistics": "Statistics and selection",
    "text": "Text against tables",
    "formulas": "Formulas, names and citations",
}
SEVERITIES = ("minor", "notable", "major")


@dataclass(frozen=True)
class Finding:
    """One thing a reader of the printed paper should know, with the numbers that show it.

    Args:
        id: ``<slug>-<n>``; unique over the book, the page anchor is ``audit-<id>``.
        title: a short heading.
        text: one paragraph, its numbers formatted from ``numbers`` and ``rows``.
        category: one of CATEGORIES.
        severity: ``minor`` (a slip), ``notable`` (limits a comparison) or ``major`` (touches a conclusion).
        tables: ids of the printed tables it concerns.
        rows: evidence as a table, one mapping per row, same keys in each.
        numbers: computed numbers by name, unrounded.
        quotes: fragments of the paper, as printed.
        sources: where numbers or facts from elsewhere come from.
    """

    id: str
    title: str
    text: str
    category: str
    severity: str = "notable"
    tables: tuple[str, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    quotes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, given, allowed in (
            ("category", self.category, tuple(CATEGORIES)),
            ("severity", self.severity, SEVERITIES),
        ):
            if given not in allowed:
                raise ValueError(f"Finding {self.id}: {name} {given!r}; use one of {', '.join(allowed)}.")

    @property
    def anchor(self) -> str:
        """Label of the finding's section on the audit page."""
        return f"audit-{self.id}"


# --- what findings read -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sentence:
    """Words of a paper, as printed, and where they stand; `numbers` are those in them, left to right."""

    where: str
    words: str

    @property
    def numbers(self) -> tuple[Decimal, ...]:
        """Without those that belong to a name (VGG8, CIFAR-10) or cite a reference; 326,192 is one number."""
        plain = re.sub(r"\[\d+\]", "", self.words)
        plain = re.sub(r"(?<![\d,])\d{1,3}(?:,\d{3})+(?!,?\d)", lambda found: found[0].replace(",", ""), plain)
        found = re.findall(r"(?<![\w.])(?<![A-Z]-)\d+(?:\.\d+)?(?:e-?\d+)?", plain)
        return tuple(Decimal(number) for number in found)


def words_of(text: Mapping[str, Sentence], *names: str) -> tuple[str, ...]:
    """The words of the named sentences, as a finding's quotes."""
    return tuple(text[name].words for name in names)


@dataclass(frozen=True)
class Evidence:
    """Printed tables of a paper, and by their ids the entries of its references.yaml: what its findings may read.

    references: numbers that others published. facts: what else is quoted. A subclass adds a field for each further list
    of the file.
    """

    tables: Mapping[str, Any]
    references: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path, tables: Mapping[str, Any]) -> Self:
        """From a references.yaml; every field but the tables names one of its lists.

        Raises:
            ValueError: two entries with the same id.
        """
        import yaml

        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        lists = {part.name: raw[part.name] for part in fields(cls) if part.name != "tables"}
        ids = Counter(entry["id"] for entries in lists.values() for entry in entries)
        if repeated := [name for name, count in ids.items() if count > 1]:
            raise ValueError(f"{path}: every entry needs an id of its own; more than one is called {repeated[0]!r}")
        return cls(tables, **{name: {entry["id"]: entry for entry in entries} for name, entries in lists.items()})

    def sources(self, *names: str) -> tuple[str, ...]:
        """Where the named entries come from."""
        lists = [getattr(self, part.name) for part in fields(self) if part.name != "tables"]
        known = {name: entry for entries in lists for name, entry in entries.items()}
        return tuple(known[name]["source"] for name in names)

    def published(self, table: str) -> list[dict[str, Any]]:
        """Printed cells of a table beside what others published for the same experiment.

        Returns:
            One row per published number: table, cell, printed, reference, quoted, equal, difference (printed - quoted).
        """
        rows = match_references([self.tables[table]], self.references.values())
        return [{**row, "difference": row["printed"] - row["quoted"]} for row in rows]


# --- arithmetic -------------------------------------------------------------------------------------------


def exact(value: float) -> Decimal:
    """A printed number as a decimal (through its shortest text, so 0.1 stays 0.1)."""
    return Decimal(repr(float(value))).normalize()


def half_up(value: Decimal, places: int = 2) -> Decimal:
    """Round as papers do, half away from zero: 0.895 -> 0.90."""
    return value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)


def subject(keys: Mapping[str, Any]) -> str:
    """The network whose accuracy a cell gives: its model, else its student, else its teacher."""
    return keys.get("model") or keys.get("student") or keys.get("teacher") or ""


def recompute_gains(tables: Iterable[Any]) -> list[dict[str, Any]]:
    """Every printed gain against value - printed baseline of the same table.

    Args:
        tables: PrintedTable objects.

    Returns:
        One row per printed gain: table, label, baseline, value, recomputed, printed, agrees.
    """
    rows = []
    for table in tables:
        for cell in table.numbers:
            base = table.baseline(cell.keys)
            if cell.gain is None or base is None:
                continue
            gain = exact(cell.value) - exact(base.value)
            rows.append(
                {
                    "table": table.id,
                    "cell": label(cell.keys),
                    "baseline": exact(base.value),
                    "value": exact(cell.value),
                    "recomputed": gain,
                    "printed": exact(cell.gain),
                    "agrees": gain == exact(cell.gain),
                }
            )
    return rows


def recompute_averages(tables: Iterable[Any]) -> list[dict[str, Any]]:
    """Every printed ``average_gain`` against the mean of the printed gains and of value - baseline.

    Returns:
        One row per printed average: table, dataset, n, from_gains, from_values, printed, agrees (the
        average of the printed gains, rounded half up as printed, equals the printed one).
    """
    rows = []
    for table in tables:
        for aggregate in table.aggregates:
            if aggregate["name"] != "average_gain":
                continue
            where = {k: v for k, v in aggregate.items() if k not in ("name", "printed")}
            cells = [c for c in table.numbers if c.gain is not None and where.items() <= c.keys.items()]
            gains = [exact(c.gain) for c in cells]
            values = [exact(c.value) - exact(table.baseline(c.keys).value) for c in cells]
            rows.append(_average_row(table.id, where, gains, values, exact(aggregate["printed"])))
    return rows


def _average_row(
    table: str, where: Mapping[str, Any], gains: list[Decimal], values: list[Decimal], printed: Decimal
) -> dict[str, Any]:
    from_gains, from_values = (sum(numbers, Decimal(0)) / len(numbers) for numbers in (gains, values))
    row = {"table": table, **where, "n": len(gains), "from_gains": from_gains, "from_values": from_values}
    return {**row, "printed": printed, "agrees": half_up(from_gains) == half_up(printed)}


def compare_baselines(tables: Iterable[Any]) -> list[dict[str, Any]]:
    """Printed baselines of the same (model, dataset) in every table, also of several papers.

    Plain teachers count as baselines of their network. Returns one row per (model, dataset) that occurs
    more than once: model, dataset, values (``paper.table`` -> number), agrees.
    """
    found: dict[tuple[str, str], dict[str, Decimal]] = defaultdict(dict)
    for table in tables:
        for cell in table.numbers:
            plain_teacher = cell.keys.get("setting") in (None, "baseline_teacher")
            method = cell.keys.get("method")
            if method == "baseline" or (method == "teacher" and plain_teacher):
                # A pair's teacher cell also names its student.
                network = cell.keys.get("teacher", "") if method == "teacher" else subject(cell.keys)
                key = network, cell.keys.get("dataset", "")
                found[key][f"{table.paper}.{table.id}"] = exact(cell.value)
    return [
        {"model": model, "dataset": dataset, "values": values, "agrees": len(set(values.values())) == 1}
        for (model, dataset), values in found.items()
        if len(values) > 1
    ]


def equal_numbers(tables: Iterable[Any]) -> list[dict[str, Any]]:
    """Pairs (value, gain) printed for the same network and data set under different methods.

    Returns:
        One row per repeated pair: model, dataset, value, gain, places (``table: method``).
    """
    found: dict[tuple, dict[str, str]] = defaultdict(dict)
    for table in tables:
        for cell in table.numbers:
            if cell.gain is not None:
                key = subject(cell.keys), cell.keys.get("dataset"), exact(cell.value), exact(cell.gain)
                found[key].setdefault(cell.keys["method"], f"{table.id}: {cell.keys['method']}")
    return [
        {"model": key[0], "dataset": key[1], "value": key[2], "gain": key[3], "places": list(places.values())}
        for key, places in found.items()
        if len(places) > 1
    ]


def match_references(tables: Iterable[Any], references: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Printed cells beside numbers quoted from elsewhere for the same keys.

    Args:
        tables: PrintedTable objects.
        references: entries of references.yaml, each with ``name`` and ``values`` (keys and ``value``).

    Returns:
        One row per match: table, cell, printed, reference (its name), quoted, equal.
    """
    rows = []
    for table in tables:
        for cell in table.numbers:
            for reference in references:
                for quoted in reference["values"]:
                    keys = {k: v for k, v in quoted.items() if k != "value"}
                    if _same_experiment(cell.keys, keys):
                        rows.append(_reference_row(table, cell, reference, quoted["value"]))
    return rows


def _same_experiment(printed: Mapping[str, Any], quoted: Mapping[str, Any]) -> bool:
    same_setting = printed.get("setting", "baseline_teacher") == quoted.get("setting", "baseline_teacher")
    roles = ("dataset", "method")
    same = all(printed.get(k) == quoted.get(k) for k in roles) and subject(printed) == subject(quoted)
    teachers = {printed.get("teacher"), quoted.get("teacher")}
    return same and same_setting and len(teachers) == 1


def _reference_row(table: Any, cell: Any, reference: Mapping[str, Any], quoted: float) -> dict[str, Any]:
    return {
        "table": table.id,
        "cell": label(cell.keys),
        "printed": exact(cell.value),
        "reference": reference["name"],
        "quoted": exact(quoted),
        "equal": exact(cell.value) == exact(quoted),
    }


def label(keys: Mapping[str, Any]) -> str:
    """Keys of a cell in words: ``resnet14, cifar100, bimask``."""
    return ", ".join(f"{v}" if isinstance(v, str) else f"{k} {v:g}" for k, v in keys.items())


# --- pages and terminals ----------------------------------------------------------------------------------


def audit_markdown(findings: Sequence[Finding]) -> str:
    """The audit as MyST markdown: an overview, then a section per category, a labelled heading per finding.

    Headings start at level 2 and every finding carries the label ``audit-<id>``, so that pages can link to
    it with ``{ref}`` or a fragment. Tables are HTML with class ``sortable``.
    """
    anchors = [f.anchor for f in findings]
    if len(set(anchors)) < len(anchors):
        raise ValueError(f"Finding ids must be unique; got {', '.join(anchors)}.")
    parts = [_overview(findings)]
    for category, heading in CATEGORIES.items():
        chosen = [f for f in findings if f.category == category]
        if chosen:
            parts.append(f"## {heading}")
            parts.extend(_finding_markdown(f) for f in chosen)
    return "\n\n".join(parts) + "\n"


def audit_text(findings: Sequence[Finding]) -> str:
    """The audit for a terminal: one paragraph per finding."""
    lines = []
    for finding in findings:
        tables = f" ({', '.join(finding.tables)})" if finding.tables else ""
        lines.append(f"[{finding.id}] {finding.title}{tables} - {finding.severity}")
        lines.append(f"    {finding.text}")
    return "\n".join(lines)


def findings_for(findings: Iterable[Finding], table: str) -> list[Finding]:
    """The findings that concern one printed table (for the audit notes of its notebook)."""
    return [f for f in findings if table in f.tables]


def _overview(findings: Sequence[Finding]) -> str:
    rows = "".join(
        f'<tr><td><a href="#{f.anchor}">{escape(f.id)}</a></td><td>{escape(f.title)}</td>'
        f"<td>{escape(_where(f))}</td><td>{escape(f.severity)}</td></tr>"
        for f in findings
    )
    head = "<th>id</th><th>finding</th><th>where</th><th>weight</th>"
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="table-scroll">{table}</div>'


def _where(finding: Finding) -> str:
    """Paper and tables: ``pkgd: table1, table2``; ids are ``<slug>-<number>``."""
    return f"{finding.id.rpartition('-')[0]}: {', '.join(finding.tables) or 'text'}"


def _finding_markdown(finding: Finding) -> str:
    parts = [f"({finding.anchor})=", f"### {finding.title}", f"*{_where(finding)} · {finding.severity}*", finding.text]
    if finding.rows:
        parts.append(html_table(finding.rows))
    if finding.quotes:
        parts.append("As printed:")
        parts.append("\n>\n".join(f"> “{quote}”" for quote in finding.quotes))
    if finding.sources:
        parts.append("Compared with:")
        parts.append("\n".join(f"- {source}" for source in finding.sources))
    return "\n\n".join(parts)
