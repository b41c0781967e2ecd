"""What the thesis's networks cost, counted on the networks themselves: parameters, operations, size, memory access.

The thesis's numbers are Keras totals and counts of the TensorFlow profiler. Both are computed here from one recorded
forward pass, beside the counts that this book uses (parameters without running statistics, multiply-accumulates).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from efflib.models import convolutions, count_parameters, evaluating, shapes_only
from efflib.papers.diswot.space import CLASSES, build
from efflib.text import unknown

SOFTMAX_FLOPS = 5  # of the TensorFlow profiler, per class
NORM_FLOPS = 2, 6  # of the TensorFlow profiler, per element of the map and per channel


class Convolution(NamedTuple):
    """One convolution of a forward pass with one image; a dense layer is one with a 1x1 kernel on a 1x1 map."""

    kernel: int
    groups: int
    inputs: tuple[int, int, int]  # channels, height, width
    outputs: tuple[int, int, int]

    @property
    def weights(self) -> int:
        """K^2 C_in C_out / groups."""
        return self.kernel**2 * self.inputs[0] * self.outputs[0] // self.groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates: H W K^2 C_in C_out / groups, H and W of the output."""
        return math.prod(self.outputs[1:]) * self.weights


@dataclass(frozen=True)
class Forward:
    """What one forward pass with one image consists of, in eval mode.

    Args:
        convolutions: in order, those of the head included.
        dense: linear layers, as 1x1 convolutions.
        norms: channels and elements of each batch norm's map.
        added: elements of the residual sums.
        pooled: elements that a global average reads.
    """

    convolutions: tuple[Convolution, ...]
    dense: tuple[Convolution, ...]
    norms: tuple[tuple[int, int], ...]
    added: int
    pooled: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and dense layers."""
        return sum(layer.macs for layer in (*self.convolutions, *self.dense))


class _Recorder(TorchDispatchMode):
    """Notes the layers of a forward pass as PyTorch dispatches them, so that no module's structure matters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions: list[Convolution] = []
        self.dense: list[Convolution] = []
        self.norms: list[tuple[int, int]] = []
        self.added = self.pooled = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        if name == "convolution":
            image, weight, groups = args[0], args[1], args[8]
            kernel = weight.shape[2]
            self.convolutions.append(Convolution(kernel, groups, tuple(image.shape[1:]), tuple(out.shape[1:])))
        elif name == "addmm":
            self.dense.append(Convolution(1, 1, (args[1].shape[1], 1, 1), (out.shape[1], 1, 1)))
        elif "batch_norm" in name:
            self.norms.append((args[0].shape[1], args[0].numel()))
        elif name == "add":
            self.added += out.numel()
        elif name == "mean":
            self.pooled += args[0].numel()
        return out


def forward_of(network: nn.Module, image_size: int, channels: int = 3) -> Forward:
    """Record one forward pass with one image.

    Args:
        network: on any device; on "meta" nothing is computed. It runs in eval mode and is left as it was.
        image_size: height and width in pixels.
        channels: of the image.
    """
    image = next(network.parameters()).new_zeros(1, channels, image_size, image_size)
    with evaluating(network), torch.no_grad(), _Recorder() as seen:
        network(image)
    return Forward(tuple(seen.convolutions), tuple(seen.dense), tuple(seen.norms), seen.added, seen.pooled)


def keras_parameters(network: nn.Module) -> int:
    """Parameters as Keras counts "total": the running means and variances of batch norms belong to them."""
    return count_parameters(network) + sum(b.numel() for b in network.buffers() if b.is_floating_point())


def profiler_flops(forward: Forward, classes: int = CLASSES) -> int:
    """Floating-point operations as the TensorFlow profiler counts them for a network with a softmax behind it.

    2 per multiply-accumulate, 2 per element and 6 per channel of a batch norm, 1 per element of a residual sum or a
    global average, 1 per dense bias, 5 per class; ReLU6 counts nothing.

    Source: spec, section 3; gives the printed FLOPs of Table 3.6 exactly.
    """
    per_element, per_channel = NORM_FLOPS
    norms = sum(per_element * elements + per_channel * channels for channels, elements in forward.norms)
    biases = sum(layer.outputs[0] for layer in forward.dense)
    return 2 * forward.macs + norms + forward.added + forward.pooled + biases + SOFTMAX_FLOPS * classes


def memory_access(layers: Iterable[Convolution], *, grouped: bool = True, true_inputs: bool = True) -> int:
    """Memory access cost in elements: H W (C_in + C_out) + K^2 C_in C_out, summed over convolutions.

    Args:
        layers: convolutions, or dense layers as such.
        grouped: weights divided by the groups. False: literally as printed, which counts a depthwise convolution as a
            full one.
        true_inputs: inputs with their own height and width. False: literally as printed, with those of the output.

    Source: eqs. 1.7 and 3.7.
    """
    total = 0
    for layer in layers:
        inputs = math.prod(layer.inputs) if true_inputs else layer.inputs[0] * math.prod(layer.outputs[1:])
        total += inputs + math.prod(layer.outputs) + layer.weights * (1 if grouped else layer.groups)
    return total


def literal_macs(layers: Iterable[Convolution]) -> int:
    """Eq. 3.6 as printed, H W C_in C_out K^2: without groups, so that depthwise convolutions count as full ones."""
    return sum(layer.macs * layer.groups for layer in layers)


def formula_parameters(layers: Iterable[Convolution]) -> int:
    """Eq. 3.8 with groups, K^2 C_in C_out / groups + C_out: a bias for each convolution, nothing for batch norms."""
    return sum(layer.weights + layer.outputs[0] for layer in layers)


@dataclass(frozen=True)
class Cost:
    """What one network of the space costs at one image size.

    Args:
        parameters: trained ones, as PyTorch counts.
        keras_parameters: with the running statistics of batch norms; the thesis's convention.
        backbone_keras_parameters: the same without the head; Tables 3.3 and 3.5 print these.
        macs: multiply-accumulates of convolutions and dense layers for one image.
        profiler_flops: what the thesis prints as FLOPs.
        memory_access: eq. 3.7 over all layers with groups and true input sizes, in elements.
        backbone_memory_access: the same over the backbone's convolutions.
    """

    parameters: int
    keras_parameters: int
    backbone_keras_parameters: int
    macs: int
    profiler_flops: int
    memory_access: int
    backbone_memory_access: int

    @property
    def printed_macs(self) -> float:
        """Half the profiler's FLOPs, which the thesis prints as MACs: batch norms and biases are in it."""
        return self.profiler_flops / 2

    @property
    def megabytes(self) -> float:
        """Size on disk in 1e6 bytes: four for each parameter of the Keras total."""
        return 4 * self.keras_parameters / 1e6


@cache
def cost(name: str, image_size: int = 224) -> Cost:
    """What a network of the space costs; counted on the built network, without computing anything.

    Args:
        name: a member's name, see `space.MEMBERS`.
        image_size: pixels, a multiple of 32.

    Raises:
        ValueError: unknown name, or an image size that MobileNetV2 does not take.
    """
    network = on_meta(name, image_size)
    backbone: Any = network.backbone
    forward = recorded(name, image_size)
    return Cost(
        count_parameters(network),
        keras_parameters(network),
        keras_parameters(backbone),
        forward.macs,
        profiler_flops(forward),
        memory_access((*forward.convolutions, *forward.dense)),
        memory_access(forward.convolutions[: len(convolutions(backbone))]),
    )


@cache
def recorded(name: str, image_size: int = 224, part: str = "network") -> Forward:
    """The forward pass of a network of the space, or of its backbone alone.

    Args:
        name, image_size: as in `cost`.
        part: "network" or "backbone" (what Tables 3.3 and 3.5 count).

    Raises:
        ValueError: unknown name, image size or part.
    """
    if part not in ("network", "backbone"):
        raise ValueError(unknown("part", part, ("network", "backbone")))
    network: Any = on_meta(name, image_size)
    return forward_of(network if part == "network" else network.backbone, image_size)


def on_meta(name: str, image_size: int = 224) -> nn.Module:
    """A network of the space with shapes and no values; see `space.build`."""
    with shapes_only():
        return build(name, image_size)
