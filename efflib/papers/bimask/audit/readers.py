"""Small readers of the printed tables: averages, and differences between the two teachers of Table 5."""

from __future__ import annotations

from typing import Any

from efflib.papers.bimask.audit.evidence import Printed
from efflib.report.audit import exact, recompute_averages


def average_of(printed: Printed, table: str, dataset: str) -> dict[str, Any]:
    rows = recompute_averages([printed.tables[table]])
    return next(r for r in rows if r["dataset"] == dataset)


def teacher_differences(printed: Printed) -> dict[tuple[str, str], float]:
    """(method, dataset) -> accuracy with the enhanced teacher less accuracy with the baseline teacher."""
    table, found = printed.tables["table5"], {}
    for cell in table.numbers:
        if cell.keys.get("setting") == "bimask_teacher" and "student" in cell.keys:
            plain = table.cell(**{**cell.keys, "setting": "baseline_teacher"})
            found[cell.keys["method"], cell.keys["dataset"]] = float(exact(cell.value) - exact(plain.value))
    return found
