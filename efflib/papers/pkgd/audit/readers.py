"""Small readers: pairs of networks, lists of numbers, and whole numbers of a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from efflib.papers.pkgd.audit.evidence import Pair


def named(pair: Pair) -> str:
    return " to ".join(pair)


def pair_of(keys: Mapping[str, Any]) -> Pair:
    return keys["teacher"], keys["student"]


def listed(values: Iterable[Decimal]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def whole_numbers(quote: str) -> list[int]:
    """The whole numbers in a sentence, without the one in a data set's name."""
    return [int(found.replace(",", "")) for found in re.findall(r"(?<!-)\b\d[\d,]*", quote)]
