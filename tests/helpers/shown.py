"""What a page shows, as the text of its cells."""

from __future__ import annotations

import html
import re
from typing import Any


def cells_of(output: Any) -> list[list[str]]:
    """Rows of all HTML tables in an output, the head's first, each a list of its cells' text."""
    rows = re.findall(r"<tr>(.*?)</tr>", output.data)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row)] for row in rows]
