"""The four scales at which a table can be repeated, smallest first; what each means is told in the book."""

from __future__ import annotations

from efflib.text import unknown

SCALES = ("smoke", "tiny", "small", "paper")


def check_scale(scale: str) -> str:
    """The scale, if it is one.

    Raises:
        ValueError: it is not; lists those that are.
    """
    if scale not in SCALES:
        raise ValueError(unknown("scale", scale, SCALES))
    return scale
