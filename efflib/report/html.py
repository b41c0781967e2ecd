"""Plain HTML: rows as tables, readable without scripts and sortable with the book's own, and single sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape
from typing import Any

_WORDS = re.compile(r"(?<=[a-z])_(?=[a-z])")


def html_table(rows: Sequence[Mapping[str, Any]], caption: str = "", table_id: str | None = None) -> str:
    """Rows as a plain HTML table of class ``sortable`` in a box that scrolls on a phone; everything is escaped.

    Headings are words: "test_best" becomes "test best"; names of networks with numbers ("wrn_40_2") stay whole.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{escape(_WORDS.sub(' ', str(c)))}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(as_text(row.get(c, '')))}</td>" for c in columns) + "</tr>" for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    name = f' id="{escape(table_id)}"' if table_id else ""
    table = f'<table class="sortable"{name}>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="table-scroll">{table}</div>'


def sentence(text: str) -> Any:
    """One paragraph of plain text, as a page shows it where there is no table or picture to show."""
    from IPython.display import HTML

    return HTML(f"<p>{escape(text)}</p>")


def as_text(value: Any) -> str:
    """A cell's text: nothing for None, yes and no, two decimals (three digits below 1), lists with commas."""
    if value is None:
        return ""
    if value is True or value is False:
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        places = max(2, -int(value.as_tuple().exponent))
        return f"{value:.{places}f}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {as_text(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(as_text, value))
    return str(value)
