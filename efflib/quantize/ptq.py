"""Post-training quantisation: whole bits for every channel of a trained network, without any further training.

    s_i = c_i max|W_i| / (2^(B-1) - 1);   n = clip(round(W / s_i), -2^(B-1), 2^(B-1) - 1);   y = s_i n

c_i = 1 for every channel, or the c of 0.30, 0.31, ..., 1.00 with the least mean squared error of the channel's weights.
The result is a quantised network like those that learn their bits (bits B, exponents log2 s_i), so that sizes, removal
and the packed file are the same code for both.

PyTorch's `torch.ao.quantization` does something else: it stores 8-bit integers only, its observers divide a symmetric
range by (2^B - 1) / 2, and it has no choice of c; `torch.fake_quantize_per_channel_affine` is the last line above for
given s_i (the tests compare with it), and returns no codes. Source: section 4 of the safety spec, "Baselines".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from efflib.quantize.layers import quantize_model, required
from efflib.text import unknown

Clip = Literal["max", "mse"]
CLIPS = ("max", "mse")
FACTORS = tuple(hundredth / 100 for hundredth in range(100, 29, -1))
SCALE_BYTES = 4  # float32, one per channel
SMALLEST = 1e-12  # a step for a channel of zeros can be anything


def integer_codes(weight: Tensor, scales: Tensor, bits: int) -> Tensor:
    """n, whole numbers in the dtype of weight.

    Args:
        weight: (O, ...).
        scales: (O,) size of a step of each channel, above 0.
        bits: B, at least 2.
    """
    half = 2.0 ** (bits - 1)
    return (weight / _rows(scales, weight)).round().clamp(-half, half - 1)


def symmetric_scales(weight: Tensor, bits: int, clip: Clip = "max", factors: Sequence[float] = FACTORS) -> Tensor:
    """s_i of each output channel.

    Args:
        weight: (O, ...).
        bits: B, at least 2.
        clip: "max": c = 1, nothing is clipped; "mse": for each channel the factor with the least squared error.
        factors: c to choose from; of equally good ones the first is taken.

    Returns:
        (O,), the dtype of weight.

    Raises:
        ValueError: fewer than 2 bits, or an unknown clip.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 2:
        raise ValueError(f"bits must be a whole number of at least 2, got {bits!r}: 1 bit has no code above 0")
    if clip not in CLIPS:
        raise ValueError(unknown("clip", clip, CLIPS))
    weight = weight.detach()
    whole = weight.flatten(1).abs().amax(dim=1).clamp(min=SMALLEST) / (2.0 ** (bits - 1) - 1)
    return whole if clip == "max" else whole * _best_factors(weight, whole, bits, factors)


def _best_factors(weight: Tensor, whole: Tensor, bits: int, factors: Sequence[float]) -> Tensor:
    best, least = torch.ones_like(whole), torch.full_like(whole, torch.inf)
    for factor in factors:
        scales = factor * whole
        error = (integer_codes(weight, scales, bits) * _rows(scales, weight) - weight).square().flatten(1).mean(dim=1)
        best, least = torch.where(error < least, factor, best), torch.minimum(error, least)
    return best


@torch.no_grad()
def quantize_to(model: nn.Module, bits: int, scales: dict[str, Tensor]) -> nn.Module:
    """Turn layers into quantised ones with these whole bits and steps, in place.

    Args:
        model: a float network.
        bits: B of every channel.
        scales: (O,) steps by layer name, above 0.

    Returns:
        The model. Its weights stay as they are: they are quantised as they are used.
    """
    quantize_model(model, float(bits), exponent=0.0, layers=list(scales))
    for name, layer in required(model).items():
        if name in scales:
            exponent = torch.log2(scales[name].double()).to(layer.exponent.dtype)
            layer.exponent.copy_(exponent.reshape(layer.exponent.shape))
    return model


def post_training(model: nn.Module, bits: int, clip: Clip = "max", layers: Sequence[str] | None = None) -> nn.Module:
    """Quantise a trained network to B bits per weight, in place.

    Args:
        model: a float network; PTQ-8 of it is the usual weight-only int8.
        bits: B, at least 2.
        clip: how c is chosen, see `symmetric_scales`.
        layers: names; None takes those in `model.quantizable`.

    Returns:
        The model. Batch-norm statistics are the caller's to recalibrate.

    Raises:
        ValueError: fewer than 2 bits, an unknown clip, or layers that cannot be quantised.
    """
    names: Sequence[str] = model.quantizable if layers is None else layers  # type: ignore[assignment]
    weights = {name: model.get_submodule(name).get_parameter("weight") for name in names}
    return quantize_to(model, bits, {name: symmetric_scales(weight, bits, clip) for name, weight in weights.items()})


def fixed_width_bytes(model: nn.Module, bits: int) -> int:
    """Bytes of B bits for every weight and a float32 step for every channel: 10,212 B + 768 for the paper's CNN.

    Args:
        model: a quantised network.
        bits: B.

    Raises:
        ValueError: no quantised layer.
    """
    payload = sum(-(-layer.weight.numel() * bits // 8) for layer in required(model).values())
    return payload + scale_bytes(model)


def scale_bytes(model: nn.Module) -> int:
    """Bytes of one float32 step per output channel of the quantised layers."""
    return SCALE_BYTES * sum(layer.weight.shape[0] for layer in required(model).values())


def _rows(values: Tensor, weight: Tensor) -> Tensor:
    """(O,) -> (O, 1, ..., 1)."""
    return values.reshape(-1, *[1] * (weight.ndim - 1))
