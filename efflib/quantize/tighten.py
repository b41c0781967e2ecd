"""After training: whole numbers of bits, at no cost in what the network computes, or nearly so."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from efflib.quantize.layers import required
from efflib.quantize.structure import code_widths


@torch.no_grad()
def tighten(model: nn.Module) -> dict[str, Tensor]:
    """Set the bits of each channel to the least whole number that holds its codes, in place; no code changes.

    The new range can be a little wider than the old one. Latent weights that the old range clipped, and the new one
    would let through to another code, are moved to the value they had after quantisation.

    Args:
        model: a quantised network.

    Returns:
        (O,) int64 by layer, the new bits; 0 where all codes are 0.

    Raises:
        ValueError: no quantised layer.

    Source: step 1 of section 2.9 of the safety spec.
    """
    widths = {}
    for name, layer in required(model).items():
        codes, values = layer.codes(), layer.quantized_weight()
        widths[name] = code_widths(codes)
        layer.bits.copy_(widths[name].reshape(layer.bits.shape))
        layer.weight.copy_(torch.where(layer.codes() == codes, layer.weight, values))
    return widths


@torch.no_grad()
def snap(model: nn.Module, tolerance: float = 0.02) -> int:
    """Clip channels that are barely above k bits to k bits, in place: they had one level more than k bits hold.

    The bit depth of a channel drifts to log2(2^k + 1), where the next level appears, and rests a little above.

    Args:
        model: a quantised network.
        tolerance: how far above, in bits.

    Returns:
        Number of channels that were clipped. Their outermost code is gone: fine-tune with `freeze_bits`.

    Raises:
        ValueError: no quantised layer.

    Source: step 2 of section 2.9 of the safety spec.
    """
    clipped = 0
    for layer in required(model).values():
        b = layer.bits.double()
        # The k of the threshold just below b; rounding is safe, as thresholds are about 1 apart.
        k = torch.log2((torch.exp2(b) - 1).clamp(min=1)).round()
        above = b - torch.log2(torch.exp2(k) + 1)
        chosen = (k >= 1) & (above > 0) & (above <= tolerance)
        layer.bits.copy_(torch.where(chosen, k, b))
        clipped += int(chosen.sum())
    return clipped


def freeze_bits(model: nn.Module) -> None:
    """Keep the bits as they are from now on; weights and exponents still train.

    Raises:
        ValueError: no quantised layer, or bits that are not whole numbers: call `tighten` first.
    """
    layers = required(model)
    for name, layer in layers.items():
        first = next((b for b in layer.bits.flatten().tolist() if not math.isclose(b, round(b), abs_tol=1e-9)), None)
        if first is not None:
            raise ValueError(f"{name} has channels of {first} bits: call tighten(model) before freezing")
    for layer in layers.values():
        layer.bits.requires_grad_(False)
        layer.bits.grad = None
