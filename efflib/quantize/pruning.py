"""Pruning by magnitude: single weights by a mask, or whole channels that are cut out. Both are fine-tuned afterwards.

Masks and their place in training are PyTorch's `torch.nn.utils.prune`. Its structured pruning only masks too; here it
chooses the channels, and `efflib.quantize.structure.shrink` takes them out of every tensor. Unlike `remove_dead`, this
changes what the network computes. Source: section 4 of the safety spec, "Baselines".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from efflib.quantize.layers import Quantizer, layer_names
from efflib.quantize.structure import head_rows, removable, shrink

FLOAT_BYTES = 4


def mask_smallest(model: nn.Module, sparsity: float, layers: Sequence[str] | None = None) -> int:
    """Mask the smallest weights of all layers together, in place; they stay 0 while the others train.

    Args:
        model: a float network.
        sparsity: share of the weights that become 0, from 0 to below 1.
        layers: names; None takes those in `model.quantizable`.

    Returns:
        How many weights are masked. Create the optimiser after this, and call `unmask` after training.

    Raises:
        ValueError: a sparsity out of range, or no such layer.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the share of weights that become 0, from 0 to below 1; got {sparsity!r}")
    chosen = [(model.get_submodule(name), "weight") for name in layer_names(model, layers)]
    count = math.floor(sparsity * sum(layer.get_parameter("weight").numel() for layer, _ in chosen) + 0.5)
    prune.global_unstructured(chosen, pruning_method=prune.L1Unstructured, amount=count)
    return count


def unmask(model: nn.Module) -> None:
    """Make the masks permanent: masked weights are ordinary zeros from now on.

    Raises:
        ValueError: nothing is masked.
    """
    masked = [module for module in model.modules() if hasattr(module, "weight_mask")]
    if not masked:
        raise ValueError(f"{type(model).__name__} has no masked weights: call mask_smallest first")
    for module in masked:
        prune.remove(module, "weight")


def cut_channels(model: nn.Module, keep: float) -> dict[str, Tensor]:
    """Take the output channels with the smallest L1 norms out of each layer that feeds another, in place.

    In a decoder's qkv a query row and its key row are one channel, and every head keeps equally many.

    Args:
        model: a float network with `chain()`.
        keep: share of the channels of each layer that stay, above 0 and up to 1; at least one does.

    Returns:
        Positions that stayed, ascending, by layer. Create the optimiser after this.

    Raises:
        ValueError: keep out of range, or a model that does not say what feeds what.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is the share of channels that stay, above 0 and up to 1; got {keep!r}")
    names = removable(model)
    if not names:
        raise ValueError(f"{type(model).__name__} has no chain() that says which layer feeds which: nothing can be cut")
    kept = {name: _kept(model, name, keep) for name in names}
    shrink(model, kept)
    return kept


def _kept(model: nn.Module, name: str, keep: float) -> Tensor:
    weight = model.get_submodule(name).get_parameter("weight").detach()
    heads = head_rows(model, name)
    if heads is None:
        return _largest(weight, keep)
    queries, values = heads
    query, key, value = weight.split([sum(queries), sum(queries), sum(values)])
    pairs = _by_part(torch.cat([query, key], dim=1), queries, keep)
    return torch.cat([pairs, sum(queries) + pairs, 2 * sum(queries) + _by_part(value, values, keep)])


def _by_part(rows: Tensor, counts: list[int], keep: float) -> Tensor:
    """Positions of the largest rows of each part."""
    starts = [sum(counts[:place]) for place in range(len(counts))]
    return torch.cat([start + _largest(part, keep) for start, part in zip(starts, rows.split(counts), strict=True)])


def _largest(rows: Tensor, keep: float) -> Tensor:
    """Positions, ascending, of the rows with the largest L1 norms."""
    gone = len(rows) - max(1, math.floor(keep * len(rows) + 0.5))
    mask = prune.LnStructured(amount=gone, n=1, dim=0).compute_mask(rows, default_mask=torch.ones_like(rows))
    return torch.nonzero(mask.flatten(1).any(dim=1))[:, 0]


def sparse_bytes(model: nn.Module, layers: Sequence[str] | None = None) -> int:
    """Bytes of the layers as a bitmask and the weights that are not 0: n / 8 + 4 of each, or 1 of each 8-bit code.

    Args:
        model: a float network, or one that was quantised to 8 bits or fewer after pruning.
        layers: names; None takes those in `model.quantizable`.
    """
    total = 0
    for name in layer_names(model, layers):
        layer = model.get_submodule(name)
        quantised = isinstance(layer, Quantizer)
        values = layer.codes() if isinstance(layer, Quantizer) else layer.weight
        assert isinstance(values, Tensor)
        total += math.ceil(values.numel() / 8) + (1 if quantised else FLOAT_BYTES) * int(values.count_nonzero())
    return total


def dense_bytes(model: nn.Module, layers: Sequence[str] | None = None) -> int:
    """Bytes of all weights of the layers in float32.

    Args:
        model: a float network, cut or not.
        layers: names; None takes those in `model.quantizable`.
    """
    weights = [model.get_submodule(name).get_parameter("weight") for name in layer_names(model, layers)]
    return FLOAT_BYTES * sum(weight.numel() for weight in weights)
