"""Quantise the weights of each output channel with that channel's own bit depth b and exponent e, both trainable.

    lo, hi = -2^(b-1), 2^(b-1) - 1   (both 0 if b <= 0)
    s = 2^-e w;   n = round_half_even(clip(s, lo, hi));   y = 2^e n

With the upstream gradient G, summed over the channel for b and e:

    lo <= s <= hi, b > 0:   dw = G,   db = 0,                        de = G ln2 (y - w)
    s > hi  (s < lo):       dw = 0,   db = +(-) G ln2 2^(e+b-1),     de = G ln2 y
    b <= 0:                 all 0
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Quantised(NamedTuple):
    """Intermediate values of the definition, in the working precision.

    codes: n, shape of the weight, never -0. scaled: s, the same shape. low, high: lo and hi, one per channel.
    step: 2^e, one per channel.
    """

    codes: Tensor
    scaled: Tensor
    low: Tensor
    high: Tensor
    step: Tensor


def fake_quantize(weight: Tensor, bits: Tensor, exponent: Tensor) -> Tensor:
    """Quantised weights y, with the straight-through gradients above; on the bounds a weight counts as inside.

    Where plain autograd would share the gradient of an exact tie between the clip's two sides, here all of it goes to
    the weight: the weights of a loaded integer model sit on the bounds and must be able to train on.

    Args:
        weight: (O, ...), one channel per row.
        bits: (O, 1, ..., 1), b in bits, as many axes as weight; any real number.
        exponent: (O, 1, ..., 1), e; the step between neighbouring values is 2^e.

    Returns:
        Shape and dtype of weight; arithmetic in float32 (float64 if one of the three is float64).

    Raises:
        ValueError: bits or exponent that are not (O, 1, ..., 1).

    Source: Cséfalvay and Imber 2023, Eq. 1; sections 2.1 and 2.2 of the safety spec.
    """
    return fake_quantize_ref(weight, bits, exponent)


def fake_quantize_ref(weight: Tensor, bits: Tensor, exponent: Tensor) -> Tensor:
    """Definition of `fake_quantize`."""
    _check(weight, bits, exponent)
    return _FakeQuantize.apply(weight, bits, exponent)


def quantised(weight: Tensor, bits: Tensor, exponent: Tensor) -> Quantised:
    """Codes and bounds of the definition, without gradients."""
    weight, bits, exponent = _widened(weight.detach(), bits.detach(), exponent.detach())
    half, alive = power_of_two(bits - 1), bits > 0
    low, high = torch.where(alive, -half, 0.0), torch.where(alive, half - 1, 0.0)
    scaled = weight * power_of_two(-exponent)
    codes = scaled.clamp(low, high).round_().add_(0.0)  # -0 + 0 is +0: an integer code has no sign of zero
    return Quantised(codes, scaled, low, high, power_of_two(exponent))


def power_of_two(x: Tensor) -> Tensor:
    """2^x, through float64.

    PyTorch's float32 exp2 gives another last bit to an element in a vector register than to the leftover elements of
    the same tensor. Removing a channel would shift its neighbours, and with them a step size, by one bit.
    """
    return torch.exp2(x.double()).to(x.dtype)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: Tensor, exponent: Tensor) -> Tensor:
        found = quantised(weight, bits, exponent)
        ctx.save_for_backward(weight, bits, exponent, *found)
        return (found.codes * found.step).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        weight, bits, exponent, codes, scaled, low, high, step = ctx.saved_tensors
        gradient, w, b, e = _widened(upstream, weight, bits, exponent)
        alive = b > 0
        above, below = (scaled > high) & alive, (scaled < low) & alive
        inside = ~(above | below) & alive
        dw = db = de = None
        if ctx.needs_input_grad[0]:
            dw = (gradient * inside).to(weight.dtype)
        if ctx.needs_input_grad[1]:
            clipped = _per_channel(gradient * above) - _per_channel(gradient * below)
            # `where`, not a product: far below 0 or above 128 bits the power is 0 or infinite.
            slope = torch.where(clipped != 0, math.log(2) * power_of_two(e + b - 1), 0.0)
            db = (slope * clipped).to(bits.dtype)
        if ctx.needs_input_grad[2]:
            error = codes * step - w * inside
            de = (_per_channel(gradient * error) * math.log(2)).to(exponent.dtype)
        return dw, db, de


def _per_channel(x: Tensor) -> Tensor:
    return x.sum(dim=tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else x


def _widened(*tensors: Tensor) -> list[Tensor]:
    work = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    return [tensor.to(work) for tensor in tensors]


def _check(weight: Tensor, bits: Tensor, exponent: Tensor) -> None:
    wanted = (weight.shape[0], *[1] * (weight.ndim - 1)) if weight.ndim else None
    if wanted is None or tuple(bits.shape) != wanted or tuple(exponent.shape) != wanted:
        raise ValueError(
            f"a weight (O, ...) needs bits and exponent of shape (O, 1, ..., 1), one of each per output channel: got "
            f"weight {tuple(weight.shape)}, bits {tuple(bits.shape)}, exponent {tuple(exponent.shape)}"
        )
