"""Names -> networks: `create_model` and `list_models`, and the decorator with which a family adds its own.

The valid options of a model are the keyword-only parameters of its builder: no second list to keep in step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from efflib.text import keyword_only, unknown

Builder = Callable[..., nn.Module]
BUILDERS: dict[str, Builder] = {}


def register(builder: Builder) -> Builder:
    """Decorator: the function's name becomes the model's name, its keyword-only parameters the options.

    Args:
        builder: function (num_classes, *, options...) -> nn.Module.

    Returns:
        The builder, unchanged.

    Raises:
        ValueError: the name is taken.
    """
    name = builder.__name__
    if name in BUILDERS:
        raise ValueError(f"model {name!r} is registered twice: {BUILDERS[name].__module__}, {builder.__module__}")
    BUILDERS[name] = builder
    return builder


def create_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a network with fresh weights (drawn from PyTorch's global generator: seed that first).

    Args:
        name: a name of `list_models()`.
        num_classes: outputs of the last linear layer.
        options: settings of this model. All take `width` (multiplier of every channel count, rounded to
            multiples of 8, at least 8) and `in_channels`; the builder in the family's file shows the others.

    Returns:
        nn.Module in train mode: images (N, in_channels, H, W), normalised -> logits (N, num_classes).

    Raises:
        ValueError: unknown name or option (lists the valid ones), or a value that is out of range.
    """
    if name not in BUILDERS:
        raise ValueError(unknown("model", name, sorted(BUILDERS)))
    valid = keyword_only(BUILDERS[name])
    for option in options:
        if option not in valid:
            raise ValueError(unknown(f"option of {name}", option, valid))
    _whole("num_classes", num_classes)
    return BUILDERS[name](num_classes, **options)


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` accepts, sorted.

    Args:
        pattern: shell-style, e.g. "resnet*"; case matters.

    Returns:
        The matching names, possibly none.
    """
    return sorted(name for name in BUILDERS if fnmatchcase(name, pattern))


def channels(count: int, width: float) -> int:
    """A channel count times the `width` option: the nearest multiple of 8 (half up), at least 8.

    Raises:
        ValueError: width is not a positive finite number.
    """
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < math.inf:
        raise ValueError(f"width must be a positive number (0.5 halves every channel count), got {width!r}")
    if width == 1:
        return count
    return max(8, 8 * math.floor(count * width / 8 + 0.5))


def image_channels(in_channels: int) -> int:
    """The `in_channels` option, checked.

    Raises:
        ValueError: not a whole number of at least 1.
    """
    return _whole("in_channels", in_channels)


def choice(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """An option with a few valid values, checked.

    Raises:
        ValueError: another value; lists the valid ones.
    """
    if value not in allowed:
        raise ValueError(unknown(f"value of {option}", value, list(allowed)))
    return value


def _whole(what: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be a whole number of at least 1, got {value!r}")
    return value
