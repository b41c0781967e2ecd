"""Parameters and multiply-accumulates of built networks, and the scatter of an accuracy from its test images."""

from __future__ import annotations

import math
from functools import cache

from efflib.papers.encodenet.audit.evidence import TEST


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
