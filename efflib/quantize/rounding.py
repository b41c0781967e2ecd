"""The quantiser with the rounding that the paper prints, for comparison only."""

from __future__ import annotations

import torch
from torch import Tensor


def floored(weight: Tensor, bits: Tensor, exponent: Tensor) -> Tensor:
    """2^e floor(clip(2^-e w, -2^(b-1), 2^(b-1) - 1)), literally Eq. 1 of the paper as printed, without gradients.

    With 0 bits both bounds are -0.5, of which the floor is -1: the channel is -2^e everywhere, and can never be
    removed. `efflib.kernels.fake_quantize` rounds half to even, as the published code does, and has bounds 0 there.

    Args:
        weight: (O, ...).
        bits, exponent: (O, 1, ..., 1).
    """
    half = torch.exp2(bits.clamp(min=0) - 1)
    scaled = (weight * torch.exp2(-exponent)).clamp(-half, half - 1)
    return torch.floor(scaled) * torch.exp2(exponent)
