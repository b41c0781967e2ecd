"""Quantisation-aware training with learned step sizes (LSQ): a fixed number of bits; the step of each channel trains.

    v = W / s;   y = s round(clip(v, lo, hi)),   lo, hi = -2^(B-1), 2^(B-1) - 1

    dy/dW = 1 inside, 0 outside;   dy/ds = round(v) - v inside, lo or hi outside;   a weight on a bound is inside

The gradient of s is multiplied by 1 / sqrt(n hi), n the weights that share it; s starts at 2 mean|W| / sqrt(hi). LSQ
has one step per layer. Here every output channel has one, as in the other quantisers of this book. Under Adam, which
divides a gradient by its own size, the factor has no effect; it is there for other optimisers.

PyTorch's private `torch._fake_quantize_learnable_per_channel_affine` differs at the bounds: it takes all of v up to
hi + 1/2 for inside, where LSQ stops at hi. Source: Esser et al. 2020, "Learned step size quantization"; section 4 of
the safety spec.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

from efflib.quantize.layers import layer_names
from efflib.quantize.ptq import SMALLEST, quantize_to


def learned_step(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """y with the gradients above.

    Args:
        weight: (O, ...).
        step: (O, 1, ..., 1), s; values below 1e-12 count as 1e-12.
        bits: B, at least 2.

    Returns:
        Shape of weight.

    Raises:
        ValueError: fewer than 2 bits, or steps that are not (O, 1, ..., 1).
    """
    _check_bits(bits)
    if step.shape != (weight.shape[0], *[1] * (weight.ndim - 1)):
        raise ValueError(f"step must be (O, 1, ..., 1) for weight {tuple(weight.shape)}, got {tuple(step.shape)}")
    return _LearnedStep.apply(weight, step, bits)


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor, bits: int) -> Tensor:
        step = step.clamp(min=SMALLEST)
        ctx.save_for_backward(weight, step)
        ctx.bits = bits
        low, high = _bounds(bits)
        return step * (weight / step).clamp(low, high).round()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        (weight, step), (gradient,) = ctx.saved_tensors, upstream
        low, high = _bounds(ctx.bits)
        v = weight / step
        clipped = v.clamp(low, high)
        inside = v == clipped
        towards = torch.where(inside, v.round() - v, clipped)
        factor = 1 / math.sqrt(weight[0].numel() * high)
        by_step = (gradient * towards).flatten(1).sum(dim=1).reshape(step.shape)
        return gradient * inside, factor * by_step, None


class LearnedSteps(nn.Module):
    """Parametrisation of a layer's weight: what the layer uses is `learned_step(weight, step, bits)`."""

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        _check_bits(bits)
        self.bits = bits
        self.step = nn.Parameter(first_steps(weight, bits))

    def forward(self, weight: Tensor) -> Tensor:
        return learned_step(weight, self.step, self.bits)


def first_steps(weight: Tensor, bits: int) -> Tensor:
    """(O, 1, ..., 1): 2 mean|W_i| / sqrt(2^(B-1) - 1)."""
    mean = weight.detach().flatten(1).abs().mean(dim=1).clamp(min=SMALLEST)
    return (2 * mean / math.sqrt(_bounds(bits)[1])).reshape(-1, *[1] * (weight.ndim - 1))


def learn_steps(model: nn.Module, bits: int, layers: Sequence[str] | None = None) -> nn.Module:
    """Let layers compute with quantised weights whose steps train along, in place.

    Args:
        model: a float network.
        bits: B, at least 2.
        layers: names; None takes those in `model.quantizable`.

    Returns:
        The model. Create the optimiser after this, and call `fix_steps` after training.

    Raises:
        ValueError: fewer than 2 bits, no such layer, or one whose weights already are quantised or learn their steps.
    """
    _check_bits(bits)
    chosen = [(name, model.get_submodule(name)) for name in layer_names(model, layers)]
    for name, layer in chosen:
        if type(layer) not in (nn.Conv2d, nn.Linear):
            raise ValueError(f"{name} is a {type(layer).__name__}: steps are learned in a plain nn.Conv2d or nn.Linear")
    for _, layer in chosen:
        parametrize.register_parametrization(layer, "weight", LearnedSteps(layer.get_parameter("weight"), bits))
    return model


@torch.no_grad()
def fix_steps(model: nn.Module) -> nn.Module:
    """Turn layers that learned their steps into quantised ones with B bits and these steps, in place.

    Raises:
        ValueError: no such layer.
    """
    found = {name: _learned(module) for name, module in model.named_modules() if _learned(module) is not None}
    if not found:
        raise ValueError(f"{type(model).__name__} has no layer that learns its steps: call learn_steps first")
    scales, bits = {}, 0
    for name, steps in found.items():
        assert steps is not None
        layer, bits = model.get_submodule(name), steps.bits
        latent = layer.get_parameter("parametrizations.weight.original").detach().clone()
        scales[name] = steps.step.detach().flatten().clamp(min=SMALLEST)
        parametrize.remove_parametrizations(layer, "weight")
        layer.get_parameter("weight").copy_(latent)
    return quantize_to(model, bits, scales)


def _learned(module: nn.Module) -> LearnedSteps | None:
    if not parametrize.is_parametrized(module, "weight"):
        return None
    first = module.parametrizations.weight[0]  # type: ignore[union-attr,index]
    return first if isinstance(first, LearnedSteps) else None


def _bounds(bits: int) -> tuple[float, float]:
    half = 2.0 ** (bits - 1)
    return -half, half - 1


def _check_bits(bits: int) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 2:
        raise ValueError(f"bits must be a whole number of at least 2, got {bits!r}: 1 bit has no code above 0")
