"""The generated parts of the book: the ledger on the front page, the status page, the audit, the speed page."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from efflib.notebooks import write_if_changed
from efflib.report.audit import audit_markdown
from efflib.report.html import html_table
from efflib.report.notebook import evidence
from efflib.report.speed import speed_markdown
from efflib.report.tables import ledger
from efflib.report.verdict import CELL_VERDICTS, LOWER, REPRODUCED
from efflib.scales import SCALES

_NAME = re.compile(r"(table|figure|fig)(\d+(?:_\d+)?)((?:_[a-z]+)*)")
_SPELLED = {"flops": "FLOPs", "macs": "MACs"}


def write_pages(book: Path, papers: Mapping[str, Any]) -> list[Path]:
    """Write `book/generated/{ledger,status,audit,speed}.md`; a file is touched only if its text changes.

    Args:
        book: the book's folder.
        papers: slug -> package of a paper (`tables`, `printed`, `findings`, `title`).

    Returns:
        The files that changed.
    """
    findings = [finding for paper in papers.values() for finding in paper.findings()]
    pages = {
        "ledger": ledger_html(ledger_rows(papers), papers),
        "status": status_markdown(book / "executed"),
        "audit": audit_markdown(findings),
        "speed": speed_markdown(book.parent / "benchmarks" / "results"),
    }
    paths = {book / "generated" / f"{name}.md": text for name, text in pages.items()}
    return [path for path, text in paths.items() if write_if_changed(path, text)]


def ledger_rows(papers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per printed table with its counts, from all recorded scales."""
    items = []
    for paper in papers.values():
        # A column that is a table of its own is not among the printed ones.
        own = {name: table.printed for name, table in paper.tables.items() if table.printed.numbers}
        every = paper.printed | own
        for name, printed in every.items():
            table = paper.tables.get(name)
            scales = [scale for scale in SCALES if scale != "smoke"]
            items.append((table, {s: evidence(table, s) for s in scales}) if table else printed)
    return [row for row in ledger(items) if row["printed"] or any(row["claims"].values())]


def ledger_html(rows: list[dict[str, Any]], papers: Mapping[str, Any]) -> str:
    """The ledger as a heat map, a box per printed table under its paper, and the table of reasons below it."""
    parts = []
    for slug, paper in papers.items():
        own = [row for row in rows if row["paper"] == slug]
        boxes = "".join(_box(row, linked=row["table"] in paper.tables) for row in own)
        name = f'<a href="executed/{escape(slug)}/chapter.html">{escape(paper.title)}</a>'
        parts.append(f'<p class="ledger-paper">{name}</p><ul>{boxes}</ul>')
    heat = f'<div class="ledger">{"".join(parts)}</div>'
    legend = (
        "Each box is one printed table: how many numbers it prints, how many of them are decided at the paper's own "
        'scale ("with a verdict"), how many were measured at a smaller scale only, and how the claims about it '
        "stand. Green: most of its verdicts are *reproduced*, or, before there are any, more claims are supported than "
        "contradicted. Red: most are *lower* (of losses, sizes and costs: *higher*), or more claims are contradicted. "
        "Yellow: anything else that was measured. Grey: nothing was measured yet."
    )
    details = html_table([_ledger_line(row) for row in rows], "Every printed number, by verdict")
    folded = f"<details><summary>Every printed number: its verdict, or why there is none</summary>{details}</details>"
    return f"{heat}\n\n{legend}\n\n{folded}\n"


def ledger_text(rows: list[dict[str, Any]]) -> str:
    """The ledger for a terminal."""
    lines = []
    for row in rows:
        counts = ", ".join(f"{row[verdict]} {verdict}" for verdict in CELL_VERDICTS if row[verdict])
        claims = ", ".join(f"{n} {name}" for name, n in row["claims"].items() if n)
        lines.append(f"{row['paper']}.{row['table']}: {row['printed']} printed numbers: {counts}")
        lines += [f"    not run, {reason}: {count}" for reason, count in row["reasons"].items()]
        lines += [f"    claims: {claims}"] if claims else []
    return "\n".join(lines)


def status_markdown(executed: Path) -> str:
    """Every notebook with run time, device, parameters; then every recipe's records with what is stale."""
    from efflib import notebooks

    runs = [_status_row(path) for path in sorted(executed.glob("*/*.run.json"))]
    if runs:
        seen = {row["notebook"] for row in runs}
        waiting = [name for name in map(notebooks.name_of, notebooks.sources()) if name not in seen]
        runs += [{"notebook": name, "current": "no: not executed yet"} for name in waiting]
    shown = html_table(runs, "Notebooks of this build") if runs else "No notebook has been executed here yet."
    counts = _record_rows()
    records = html_table(counts, "Recorded trials") if counts else "No trial is recorded yet."
    return f"## Notebooks\n\n{shown}\n\n## Records\n\n{records}\n"


def _box(row: Mapping[str, Any], linked: bool) -> str:
    decided = {name: row[name] for name in CELL_VERDICTS if row[name] and name != "not run"}
    claims = {name: count for name, count in row["claims"].items() if count and name != "not run"}
    shade = _shade(decided, claims, row["measured"], row.get("worse", LOWER))
    name = escape(_said(row["table"]))
    page = escape(row.get("page", row["table"]))
    title = f'<a href="executed/{escape(row["paper"])}/{page}.html">{name}</a>' if linked else name
    verdicts = sum(decided.values())
    smaller = row["measured"] - verdicts  # `measured` counts the decided ones too
    parts = [f"{row['printed']} numbers" if row["printed"] else "no printed numbers"]
    parts += [f"{verdicts} with a verdict"] if verdicts else []
    parts += [f"{smaller} at a smaller scale"] if smaller else []
    parts += [] if row["measured"] or not row["printed"] else ["none measured yet"]
    parts += [f"claims: {', '.join(f'{n} {word}' for word, n in claims.items())}"] if claims else []
    return f'<li class="ledger-{shade}"><strong>{title}</strong><br>{"<br>".join(map(escape, parts))}</li>'


def _said(table: str) -> str:
    """A table's name in words: "table3_3_train" is "Table 3.3 train", "fig3_6" is "Figure 3.6"."""
    found = _NAME.fullmatch(table)
    if found is None:
        return table
    kind, number, rest = found.groups()
    words = [_SPELLED.get(word, word) for word in rest.split("_") if word]
    return " ".join(["Table" if kind == "table" else "Figure", number.replace("_", "."), *words])


def _shade(decided: Mapping[str, int], claims: Mapping[str, int], measured: int, worse: str) -> str:
    """Colour of a box, by the best evidence: cell verdicts, else claims, else whether anything was measured."""
    if decided:
        most = [name for name, count in decided.items() if count == max(decided.values())]
        return {REPRODUCED: "good", worse: "bad"}.get(most[0], "odd") if len(most) == 1 else "odd"
    if claims.get("contradicted", 0) > claims.get("supported", 0):
        return "bad"
    if claims.get("supported", 0) > claims.get("contradicted", 0):
        return "good"
    return "odd" if measured or claims else "none"


def _ledger_line(row: Mapping[str, Any]) -> dict[str, Any]:
    line = {"table": f"{row['paper']}.{row['table']}", "title": row["title"], "printed numbers": row["printed"]}
    line["verdicts"] = ", ".join(f"{row[name]} {name}" for name in CELL_VERDICTS if row[name])
    line["why not run"] = "; ".join(f"{count}: {reason}" for reason, count in row["reasons"].items())
    line["claims"] = ", ".join(f"{count} {name}" for name, count in row["claims"].items() if count) or "none yet"
    return line


def _status_row(path: Path) -> dict[str, str]:
    name = f"{path.parent.name}/{path.name.removesuffix('.run.json')}"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {"notebook": name, "current": f"no: {path.name} cannot be read; execute the notebook again"}
    parameters = ", ".join(f"{name}={value}" for name, value in run["parameters"].items() if value is not None)
    return {
        "notebook": name,
        "run time": f"{run['seconds']:.0f} s",
        "device": f"{run['device']}, {run['threads']} thread(s)",
        "date": run["date"][:10],
        "parameters": parameters,
        "torch": run["torch"] or "",
        "current": _currency(name, path.with_name(f"{path.name.removesuffix('.run.json')}.ipynb"), run["parameters"]),
    }


def _currency(name: str, target: Path, parameters: Mapping[str, Any]) -> str:
    """Whether executing a notebook again would repeat what the executed copy holds, in words."""
    from efflib import notebooks

    if not target.is_file():
        return "no: the executed copy is missing"
    try:
        current = notebooks.is_current(notebooks.source_of(name), target, parameters)
    except notebooks.NotebookError:  # its source was removed, or no longer has these parameters
        return "no: there is no such notebook, or it has other parameters now"
    return "yes" if current else "no: source or records changed since"


def _record_rows() -> list[dict[str, Any]]:
    from efflib.trials import Store
    from efflib.trials.freshness import stale_reason
    from efflib.trials.recipes import list_recipes

    known = list_recipes()
    counts: dict[str, Counter[str]] = {}
    for record in Store.for_scale("paper").records():
        gone = record.recipe not in known  # a recipe that was removed: nothing asks for its records
        state = "stale" if gone or stale_reason(record) else record.status
        counts.setdefault(record.recipe, Counter())[state] += 1
    return [{"recipe": recipe, **{s: found[s] for s in ("ok", "stale", "failed")}} for recipe, found in counts.items()]
