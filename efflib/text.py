"""Words that error messages of several rooms share."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any


def unknown(what: str, given: object, valid: Sequence[str]) -> str:
    """Message about a name that does not exist: what was given, what may be meant, what there is.

    Args:
        what: the kind of thing, e.g. "model" or "option of kd".
        given: the name.
        valid: the names that exist, in the order in which they are listed.
    """
    close = difflib.get_close_matches(str(given), valid, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"unknown {what}: {given!r}.{hint} Valid: {', '.join(valid) or 'none'}."


def keyword_only(function: Callable[..., Any]) -> list[str]:
    """Names of the keyword-only parameters of a function, in order: the options that its callers may choose."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
