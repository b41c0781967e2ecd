"""Counted on built networks: multiply-accumulates, convolutions, and sizes of maps."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def macs_of(model: str, **options: Any) -> int:
    from efflib.models import count_macs, create_model

    return count_macs(create_model(model, 10, **options))


@cache
def depth_of(model: str) -> int:
    from efflib.models import convolutions, create_model

    return len(convolutions(create_model(model, 10)))


@cache
def map_sizes(model: str) -> dict[int, tuple[int, int]]:
    """Height and width of each convolution's output for a 32x32 image, by index from the end."""
    import torch

    from efflib.models import convolutions, create_model

    network, sizes = create_model(model, 10).eval(), {}
    layers = [module for _, module in convolutions(network)]
    hooks = [
        layer.register_forward_hook(lambda m, i, out, k=k: sizes.update({k - len(layers): tuple(out.shape[2:])}))
        for k, layer in enumerate(layers)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sizes
