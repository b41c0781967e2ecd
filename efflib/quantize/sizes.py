"""How large a quantised network is, by four measures, and the penalty that makes it smaller.

    soft   sum over layers of I K sum_i max(b_i, 0) / 8: what the paper and its code report
    chain  the same with the inputs that are left once dead channels are removed
    tight  what the integer codes need: I' K B*_i bits for each living channel, each layer rounded up to a byte
    file   the packed file, with all that it takes to run the network

I: input channels of the layer as it was built; I': those still fed by a living channel; K: kernel height x width; B*_i:
width in two's complement of the codes that are there. Embeddings, biases, norms and an unquantised classifier count in
the file only. Source: section 2.4 of the safety spec.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from efflib.quantize.layers import Quantizer, required
from efflib.quantize.structure import Survivors, survivors
from efflib.text import unknown

Norm = Literal["quantised_weights", "all_params"]
NORMS = ("quantised_weights", "all_params")
THRESHOLDS = tuple(math.log2(2.0**k + 1) for k in range(1, 64))


class LayerBits(NamedTuple):
    """Bits of one layer by the first three measures."""

    soft: float
    chain: float
    tight: int


class Sizes(NamedTuple):
    """Bytes by each measure; soft and chain are fractions of bits added up, tight and file whole bytes."""

    soft: float
    chain: float
    tight: int
    file: int


@overload
def bits_needed(bits: float) -> int: ...
@overload
def bits_needed(bits: Tensor) -> Tensor: ...
def bits_needed(bits: float | Tensor) -> int | Tensor:
    """Whole bits that can hold every code of a channel with bit depth b: 0 if b <= 0, else least k with 2^b <= 2^k + 1.

    Args:
        bits: b, a number or a tensor of any shape.

    Returns:
        int, or int64 of the same shape.

    Raises:
        ValueError: b that is NaN or above 63.

    Source: section 2.3 of the safety spec.
    """
    b = torch.as_tensor(bits).detach()
    if not bool((b <= THRESHOLDS[-1]).all()):
        raise ValueError(f"bits must be numbers up to 63, got {bits}")
    # In the dtype of b: a float32 b that sits on the threshold's nearest float32 counts as being on it.
    thresholds = torch.tensor(THRESHOLDS, dtype=torch.float64, device=b.device).to(
        b.dtype if b.is_floating_point() else torch.float64
    )
    found = torch.where(b > 0, torch.bucketize(b.to(thresholds.dtype), thresholds) + 1, 0)
    return found if isinstance(bits, Tensor) else int(found)


def layer_bits(model: nn.Module) -> dict[str, LayerBits]:
    """Bits of each quantised layer.

    Raises:
        ValueError: no quantised layer.
    """
    return _layer_bits(model, survivors(model))


def soft_bytes(model: nn.Module) -> float:
    """Soft size in bytes; no credit for inputs whose channel is dead."""
    return sum(_row_bits(layer) * layer.full_inputs for layer in required(model).values()) / 8


def chain_bytes(model: nn.Module) -> float:
    """Soft size in bytes after dead input channels are gone."""
    return sum(bits.chain for bits in layer_bits(model).values()) / 8


def tight_bytes(model: nn.Module) -> int:
    """Bytes of the integer codes alone, stored as tightly as they are in the packed file."""
    return sum(math.ceil(bits.tight / 8) for bits in layer_bits(model).values())


def sizes(model: nn.Module) -> Sizes:
    """All four sizes; that of the file without writing it.

    Raises:
        ValueError: no quantised layer, or a network that cannot be packed (`efflib.quantize.packed`).
    """
    from efflib.quantize.packed import packed_size  # packed.py reads this file's accounting

    bits = layer_bits(model).values()
    soft, chain = sum(each.soft for each in bits) / 8, sum(each.chain for each in bits) / 8
    return Sizes(soft, chain, sum(math.ceil(each.tight / 8) for each in bits), packed_size(model))


def mean_bits(model: nn.Module, norm: Norm = "quantised_weights", exempt: Mapping[str, Tensor] | None = None) -> Tensor:
    """Q of Eq. 3: sum over layers of I K sum_i max(b_i, 0), divided by a constant N; differentiable in the bits.

    Args:
        model: a quantised network.
        norm: N. "quantised_weights" counts the weights that are quantised, so that Q is their mean bit depth;
            "all_params" all trainable numbers, bits and exponents included, as the published code. Both as the network
            was built: removing channels does not change N.
        exempt: (O,) bool by layer: channels that are free of the penalty for now.

    Returns:
        0-d.

    Raises:
        ValueError: no quantised layer, or an unknown norm.
    """
    layers = required(model)
    if norm not in NORMS:
        raise ValueError(unknown("norm", norm, NORMS))
    total = _all_params(model) if norm == "all_params" else sum(map(_weights, layers.values()))
    terms = []
    for name, layer in layers.items():
        bits = layer.bits.flatten().relu()
        if exempt is not None and name in exempt:
            bits = bits * ~exempt[name]
        terms.append(bits.sum() * (layer.full_inputs * layer.kernel / total))
    return torch.stack(terms).sum()


def weight_l1(model: nn.Module) -> Tensor:
    """Sum of |w| over the latent weights of the quantised layers, the paper's sparsity term; 0-d.

    Raises:
        ValueError: no quantised layer.
    """
    return torch.stack([layer.weight.abs().sum() for layer in required(model).values()]).sum()


def _weights(layer: Quantizer) -> int:
    return layer.full_outputs * layer.full_inputs * layer.kernel


def _all_params(model: nn.Module) -> int:
    count = getattr(model, "scalars_at_start", None)
    if not isinstance(count, int):
        raise ValueError("norm='all_params' is counted by quantize_model: use it to quantise this network")
    return count


def _row_bits(layer: Quantizer) -> float:
    """Soft bits per input channel, over all rows."""
    return float(layer.bits.detach().double().relu().sum()) * layer.kernel


@torch.no_grad()
def _layer_bits(model: nn.Module, living: Mapping[str, Survivors]) -> dict[str, LayerBits]:
    found = {}
    for name, layer in required(model).items():
        rows, inputs, widths = living[name]
        bits = _row_bits(layer)
        tight = int(widths[rows].sum()) * int(inputs.sum()) * layer.kernel
        found[name] = LayerBits(bits * layer.full_inputs, bits * int(inputs.sum()), tight)
    return found
