"""Convolutions and linear layers whose output channels each own a trainable bit depth and exponent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.kernels import fake_quantize
from efflib.kernels.fake_quantize import power_of_two, quantised
from efflib.text import unknown

Exponent = float | Literal["minmax"]


class Quantizer(nn.Module):
    """What both kinds of layer share; `weight` stays the latent float weight and is never overwritten.

    bits, exponent: trainable, (O, 1, ..., 1). kept_outputs, kept_inputs: numbers, in the layer as it was built, of the
    rows and inputs that are still here after hard removal. full_outputs, full_inputs: how many it was built with.
    """

    weight: Tensor
    bits: nn.Parameter
    exponent: nn.Parameter
    kept_outputs: Tensor
    kept_inputs: Tensor
    full_outputs: int
    full_inputs: int
    _shared: Tensor | None

    def equip(self, bits: float, exponent: Exponent) -> None:
        """Add bits, exponents and the record of what is kept to a layer that has only weights.

        Raises:
            ValueError: bits or an exponent that make no sense.
        """
        shape = (self.weight.shape[0], *[1] * (self.weight.ndim - 1))
        wide = self.weight.detach().to(torch.promote_types(self.weight.dtype, torch.float32))  # bf16 has no room for b
        self.bits = nn.Parameter(wide.new_full(shape, _finite("bits", bits)))
        self.exponent = nn.Parameter(_start(wide, bits, exponent).reshape(shape))
        self.full_outputs, self.full_inputs = self.weight.shape[:2]
        self.register_buffer("kept_outputs", torch.arange(self.full_outputs, device=self.weight.device))
        self.register_buffer("kept_inputs", torch.arange(self.full_inputs, device=self.weight.device))
        self._shared = None

    @property
    def kernel(self) -> int:
        """Weights per pair of input and output channel: kh kw of a convolution, 1 of a linear layer."""
        return math.prod(self.weight.shape[2:])

    def quantized_weight(self) -> Tensor:
        """y, shape of weight, differentiable in weight, bits and exponent."""
        return fake_quantize(self.weight, self.bits, self.exponent) if self._shared is None else self._shared

    def codes(self) -> Tensor:
        """Integer codes n, int64, shape of weight."""
        return quantised(self.weight, self.bits, self.exponent).codes.to(torch.int64)

    def steps(self) -> Tensor:
        """(O,) size of the quantisation step 2^e of each channel."""
        return power_of_two(self.exponent.detach()).flatten()

    def alive(self) -> Tensor:
        """(O,) bool: channels with b > 0 and a code other than 0, that is those that compute anything."""
        # Clip and rounding keep the order of the weights, so the extremes tell of all.
        low, high = self.weight.detach().flatten(1).aminmax(dim=1)
        return self._codes_of(torch.stack([low, high], dim=1)).any(dim=1)

    def _codes_of(self, weight: Tensor) -> Tensor:
        return quantised(weight, self.bits.flatten(1), self.exponent.flatten(1)).codes


class QuantizedConv2d(Quantizer, nn.Conv2d):
    """2-D convolution with quantised weights.

    Args:
        bits: b of every channel at the start.
        exponent: e of every channel, or "minmax": log2(max|w| / (2^(b-1) - 1)), which clips nothing.
        The others as `nn.Conv2d`.

    Raises:
        ValueError: groups other than 1, or bits or an exponent that make no sense.
    """

    def __init__(self, *args: Any, bits: float = 8.0, exponent: Exponent = "minmax", **options: Any) -> None:
        super().__init__(*args, **options)
        self.equip(bits, exponent)

    def equip(self, bits: float, exponent: Exponent) -> None:
        if self.groups != 1:
            raise ValueError(f"groups={self.groups}: only ordinary convolutions are quantised, where all inputs meet")
        super().equip(bits, exponent)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.quantized_weight(), self.bias)


class QuantizedLinear(Quantizer, nn.Linear):
    """Linear layer with quantised weights; a channel is a row. The bias stays float.

    Args:
        bits, exponent: as in `QuantizedConv2d`.
        The others as `nn.Linear`.
    """

    def __init__(self, *args: Any, bits: float = 8.0, exponent: Exponent = "minmax", **options: Any) -> None:
        super().__init__(*args, **options)
        self.equip(bits, exponent)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantized_weight(), self.bias)


def quantize_model(
    model: nn.Module, bits: float = 8.0, exponent: Exponent = "minmax", layers: Sequence[str] | None = None
) -> nn.Module:
    """Turn layers into quantised ones, in place; weights, device and names stay.

    Args:
        model: a network; `model.scalars_at_start` becomes its number of trainable numbers, bits and exponents included.
        bits, exponent: of every channel, as in `QuantizedConv2d`.
        layers: names of nn.Conv2d and nn.Linear modules; None takes what the model lists in `model.quantizable`.

    Returns:
        The model.

    Raises:
        ValueError: no layers, an unknown or already quantised one, or one of another kind; nothing is changed then.
    """
    chosen = [_quantizable_layer(model, name) for name in layer_names(model, layers)]
    for layer in chosen:
        _start(layer.weight.detach(), _finite("bits", bits), exponent)  # raises before anything is changed
    for layer in chosen:
        # The object keeps its parameters, hooks and place; only what a forward pass does with the weight changes.
        kind = QuantizedConv2d if isinstance(layer, nn.Conv2d) else QuantizedLinear
        layer.__class__ = kind
        kind.equip(layer, bits, exponent)  # type: ignore[arg-type]
    model.scalars_at_start = sum(p.numel() for p in model.parameters() if p.requires_grad)  # type: ignore[assignment]
    return model


def layer_names(model: nn.Module, layers: Sequence[str] | None = None) -> list[str]:
    """The named layers, or those in `model.quantizable`, in the order of the model's modules.

    Raises:
        ValueError: none, or a name that is not a module of the model.
    """
    wanted = getattr(model, "quantizable", ()) if layers is None else layers
    names = [name for name, _ in model.named_modules()]
    for name in wanted:
        if name not in names:
            raise ValueError(unknown(f"layer of {type(model).__name__}", name, [name for name in names if name]))
    if not wanted:
        raise ValueError(f"no layer to quantise: {type(model).__name__} has no `quantizable`, and `layers` names none")
    return [name for name in names if name in set(wanted)]


def quantized_layers(model: nn.Module) -> dict[str, Quantizer]:
    """Quantised layers by name, in the order of the model's modules."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}


def required(model: nn.Module) -> dict[str, Quantizer]:
    """`quantized_layers`, of which there must be some.

    Raises:
        ValueError: none; says what to do.
    """
    found = quantized_layers(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no quantised layer: call quantize_model(model) first")
    return found


@contextmanager
def quantized_once(model: nn.Module) -> Iterator[None]:
    """Within the block all forward passes share one quantisation; their gradients add up in it.

    For one training step: quantise, two forward passes, one backward pass. Do not change weights inside.
    """
    layers = list(quantized_layers(model).values())
    for layer in layers:
        layer._shared = layer.quantized_weight()
    try:
        yield
    finally:
        for layer in layers:
            layer._shared = None


def _quantizable_layer(model: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    module = model.get_submodule(name)
    if type(module) not in (nn.Conv2d, nn.Linear):
        already = " already" if isinstance(module, Quantizer) else ""
        raise ValueError(f"{name} is{already} a {type(module).__name__}: nn.Conv2d and nn.Linear can be quantised")
    assert isinstance(module, nn.Conv2d | nn.Linear)
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        raise ValueError(f"{name} has groups={module.groups}: only ordinary convolutions are quantised")
    return module


def _start(weight: Tensor, bits: float, exponent: Exponent) -> Tensor:
    """(O,) exponents at the start."""
    if not isinstance(exponent, str):
        return weight.new_full((len(weight),), _finite("exponent", exponent))
    if exponent != "minmax":
        raise ValueError(unknown("exponent", exponent, ["minmax", "a number"]))
    if not bits > 1:
        raise ValueError(f"exponent='minmax' needs more than 1 bit, got {bits}: the largest code is 2^(bits-1) - 1")
    # A step for a channel of zeros can be anything.
    largest, high = weight.flatten(1).abs().amax(dim=1).clamp(min=1e-12), 2.0 ** (bits - 1) - 1
    start = torch.log2(largest.double() / high).to(weight.dtype)
    for _ in range(4):  # rounding may put the largest weight a hair beyond the bound, where it would count as clipped
        above = torch.maximum(start.nextafter(start + 1), start + torch.finfo(start.dtype).eps)
        start = torch.where(largest * power_of_two(-start) > high, above, start)
    return start


def _finite(what: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return float(value)
