"""What a page shows, as the text of its cells."""

from __future__ import annotations

import html
import re
from typing import Any


def cells_of(output: Any) -> list[list[str]]:
    """Rows of all HTML tables in an output, the head's first, each a list of its cells' text."""
    rows = re.findall(r"<tr>(.*?)</tr>", output.data)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row)] for row in rows]


def rows_of(output: Any) -> list[dict[str, str]]:
    """Rows of one table, each as heading -> text."""
    head, *rows = cells_of(output)
    return [dict(zip(head, row, strict=True)) for row in rows]


def rows_by_name(output: Any, keys: int = 1) -> dict[Any, dict[str, str]]:
    """Rows of one table by the text of their first column, or of several."""
    return {tuple(row.values())[:keys] if keys > 1 else next(iter(row.values())): row for row in rows_of(output)}
