"""What the findings read: the printed tables by pair and method, published numbers and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from efflib.papers.pkgd.claims import METHODS
from efflib.papers.table import PrintedTable, load_printed
from efflib.report.audit import Evidence, exact

_HOME = Path(__file__).parents[1]  # the folder of the paper

Pair = tuple[str, str]
Column = Mapping[str, Decimal | None]


@dataclass(frozen=True)
class Printed(Evidence):
    """What a finding may read."""

    tables: Mapping[str, PrintedTable]

    def pairs(self, table: str) -> list[Pair]:
        """(teacher, student) of the columns, left to right."""
        cells = self.tables[table].numbers
        return list(dict.fromkeys((c.keys["teacher"], c.keys["student"]) for c in cells))

    def value(self, table: str, pair: Pair, method: str, **keys: Any) -> Decimal:
        teacher, student = pair
        return exact(self.tables[table].cell(teacher=teacher, student=student, method=method, **keys).value)

    def row(self, table: str, method: str) -> list[Decimal]:
        """A row of table 1 or 2, left to right."""
        return [self.value(table, pair, method) for pair in self.pairs(table)]

    def columns(self, table: str) -> dict[Pair, dict[str, Decimal | None]]:
        """Pair -> method -> accuracy, of table 1 or 2."""
        return {pair: {m: self.value(table, pair, m) for m in METHODS} for pair in self.pairs(table)}

    def gain(self, table: str, pair: Pair, method: str = "pkgd", **keys: Any) -> Decimal:
        return self.value(table, pair, method, **keys) - self.value(table, pair, "baseline", **keys)

    def quoted(self, table: str, method: str, reference: str) -> list[Decimal]:
        """The numbers of one reference for a row; empty if it lacks a column."""
        values = self.references[reference]["values"]
        found = {(v["teacher"], v["student"]): exact(v["value"]) for v in values if v["method"] == method}
        return [found[pair] for pair in self.pairs(table)] if set(self.pairs(table)) <= set(found) else []


@cache
def load() -> Printed:
    """printed.yaml and references.yaml of this paper, read once."""
    return Printed.read(_HOME / "references.yaml", load_printed(_HOME / "printed.yaml"))
