"""What the findings read: the printed tables, published numbers and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from efflib.papers.table import PrintedTable, load_printed
from efflib.report.audit import Evidence, exact, match_references

_HOME = Path(__file__).parents[1]  # the folder of the paper
RUNS = 5  # "All the results in the tables represent the average over 5 runs"


@dataclass(frozen=True)
class Printed(Evidence):
    """What a finding may read."""

    tables: Mapping[str, PrintedTable]

    def all(self) -> list[PrintedTable]:
        return list(self.tables.values())

    def value(self, table: str, **keys: Any) -> float:
        return self.tables[table].cell(**keys).value

    def gains(self, table: str, **keys: Any) -> dict[str, float]:
        """Model -> value - baseline, exact to the printed digits."""
        wanted, found = self.tables[table], {}
        for cell in wanted.numbers:
            base = wanted.baseline(cell.keys)
            if base is not None and keys.items() <= cell.keys.items():
                found[cell.keys["model"]] = float(exact(cell.value) - exact(base.value))
        return found

    def quoted(self, reference: str) -> list[dict[str, Any]]:
        """Printed cells beside the numbers of one reference."""
        return match_references(self.all(), [self.references[reference]])


@cache
def load() -> Printed:
    """Read printed.yaml and references.yaml of this paper once."""
    return Printed.read(_HOME / "references.yaml", load_printed(_HOME / "printed.yaml"))
