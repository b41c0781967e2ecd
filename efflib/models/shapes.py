"""Networks that have shapes and no values: how large they are is counted without memory and without draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from efflib.models.measure import count_parameters
from efflib.models.registry import create_model

_DRAWS = (torch.Tensor.normal_, torch.Tensor.uniform_)


class _NoDraws(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules made inside have shapes, no values: GAM's network alone would draw 149 million of them.

    No draw is made on the meta device either: it would change nothing, but the first one imports torch's reference
    implementations, which takes seconds.
    """
    with torch.device("meta"), _NoDraws():
        yield


@cache
def parameters_of(name: str, num_classes: int) -> int:
    """`count_parameters` of `create_model(name, num_classes)`, without its values.

    Raises:
        ValueError: as `create_model`.
    """
    with shapes_only():
        return count_parameters(create_model(name, num_classes))
