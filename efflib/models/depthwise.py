"""Convolution of each channel by itself, whose derivatives of any order cost as much as the convolution.

PyTorch's own is slow in two places. Its second derivative with respect to the weights convolves group by group, a
thousand small calls for a thousand channels; distilling explanations needs it in every step. And in bf16 on a CPU two
of its first derivatives are reference loops. What it computes stays: the three linear maps here (the convolution, and
its gradients for input and weights) are PyTorch's, and each is the derivative of the other two.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

Pair = tuple[int, int]


class DepthwiseConv2d(nn.Conv2d):
    """k x k convolution of every channel (N, C, H, W) with its own kernel, zero padding k // 2, no bias.

    Weights and their initial values are those of `nn.Conv2d(channels, channels, kernel, stride, kernel // 2,
    groups=channels, bias=False)`.
    """

    def __init__(self, channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if has_torch_function_unary(x) or x.is_meta:  # rules of relevance intercept the function that everybody knows
            return super().forward(x)
        padding: Any = self.padding
        return _Convolution.apply(_as_autocast(x), _as_autocast(self.weight), self.stride, padding)


class _Convolution(torch.autograd.Function):
    """(x, w) -> y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = stride, padding
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, w, None, stride, padding, groups=len(w))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        for_x, for_w = ctx.needs_input_grad[:2]
        dx = _InputGradient.apply(g, w, x.detach(), *ctx.geometry) if for_x else None
        dw = _WeightGradient.apply(x, g, w.detach(), *ctx.geometry) if for_w else None
        return dx, dw, None, None


class _InputGradient(torch.autograd.Function):
    """(g, w) -> gradient of <g, y> for an input like `like`: linear in g and in w."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, like: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.geometry = stride, padding
        return _gradient(0, g, like, w, stride, padding, reference=max(stride) > 1)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, w = ctx.saved_tensors
        for_g, for_w = ctx.needs_input_grad[:2]
        dg = _Convolution.apply(v, w, *ctx.geometry) if for_g else None
        dw = _WeightGradient.apply(v, g, w.detach(), *ctx.geometry) if for_w else None
        return dg, dw, None, None, None


class _WeightGradient(torch.autograd.Function):
    """(x, g) -> gradient of <g, y> for weights like `like`: linear in x and in g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, like: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.geometry = stride, padding
        smaller = min(x.shape[2:]) < max(like.shape[2:])
        return _gradient(1, g, x, like, stride, padding, reference=smaller)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        x, g = ctx.saved_tensors
        for_x, for_g = ctx.needs_input_grad[:2]
        dx = _InputGradient.apply(g, u, x.detach(), *ctx.geometry) if for_x else None
        dg = _Convolution.apply(x, u, *ctx.geometry) if for_g else None
        return dx, dg, None, None, None


def _gradient(side: int, g: Tensor, x: Tensor, w: Tensor, stride: Pair, padding: Pair, reference: bool) -> Tensor:
    """PyTorch's gradient of the input (side 0) or the weights (1); in float32 where bf16 is a `reference` loop.

    On a CPU (oneDNN) those are strided ones for the input, and those of maps smaller than the kernel for the weights.
    """
    made = g.dtype
    if reference and made == torch.bfloat16 and g.device.type == "cpu":
        g, x, w = g.float(), x.float(), w.float()
    with torch.autocast(g.device.type, enabled=False):
        found = torch.ops.aten.convolution_backward(
            g, x, w, None, stride, padding, (1, 1), False, (0, 0), len(w), (side == 0, side == 1, False)
        )
    return found[side].to(made)


def _as_autocast(x: Tensor) -> Tensor:
    """In the precision that autocast, where it is on, runs convolutions in."""
    device = x.device.type
    lowered = x.dtype != torch.float64 and torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if lowered else x
