"""What several curricula share: checks of their options."""

from __future__ import annotations

import math


def positive(option: str, value: float) -> float:
    """An option that must be a positive finite number.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{option} must be a positive number, got {value!r}")
    return value


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """An option with a few valid values.

    Raises:
        ValueError: another value; lists the valid ones.
    """
    if value not in allowed:
        raise ValueError(f"{option} must be one of {', '.join(allowed)}, got {value!r}")
    return value
