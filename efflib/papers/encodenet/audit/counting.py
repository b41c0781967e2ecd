"""Parameters and multiply-accumulates of built networks, and the scatter of an accuracy from its test images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from efflib.papers.encodenet.audit.evidence import TEST


@cache
def parameters_of(model: str, classes: int) -> int:
    from efflib.models import count_parameters, create_model

    with shapes_only():
        return count_parameters(create_model(model, classes))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules made inside have shapes, no values: GAM's network alone would draw 149 million of them.

    No draw is made on the meta device either: it would change nothing, but the first one imports torch's reference
    implementations, which takes seconds.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    draws = (torch.Tensor.normal_, torch.Tensor.uniform_)

    class NoDraws(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(func, "__module__", "") == "torch.nn.init" or func in draws:
                return args[0] if args else kwargs["tensor"]
            return func(*args, **kwargs)

    with torch.device("meta"), NoDraws():
        yield


@cache
def forward(model: str) -> tuple[int, int, int]:
    """MACs of a network of ten classes for a 32-pixel image, channels and side of its encoder's last map."""
    import torch

    from efflib.models import count_macs, create_model, evaluating, features

    network = create_model(model, 10)
    with torch.no_grad(), evaluating(network):
        last = features(network, torch.zeros(1, 3, 32, 32)).stages[-1]
    return count_macs(network), last.shape[1], last.shape[2]


def macs_of(model: str) -> int:
    return forward(model)[0]


@cache
def decoder_macs_of(model: str) -> int:
    """Of our decoder for the encoder's map (the paper gives no layout)."""
    from efflib.models import count_macs
    from efflib.models.decoder import Decoder

    _, channels, side = forward(model)
    return count_macs(Decoder(channels, side), image_size=side, channels=channels)


def accuracy_deviation(percent: float, images: int = TEST) -> float:
    """Standard deviation in points of an accuracy that is measured on so many independent test images."""
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / images)


def difference_deviation(first: float, second: float) -> float:
    """Standard deviation in points of the difference of two accuracies, each from its own draw of test images."""
    return math.hypot(accuracy_deviation(first), accuracy_deviation(second))
