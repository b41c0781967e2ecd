"""What every network here can be asked: its feature maps, its size, its cost, its convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Features(NamedTuple):
    """What one forward pass computed.

    stages: feature maps (N, C, h, w), shallow to deep, without the stem (VGG: block 0) and the pooled vector.
    pooled: (N, D), the input of the classifier.
    logits: (N, num_classes).
    """

    stages: tuple[Tensor, ...]
    pooled: Tensor
    logits: Tensor


def features(model: nn.Module, x: Tensor, preactivation: bool = False) -> Features:
    """Feature maps, pooled vector and logits of one forward pass; the logits are those of `model(x)`.

    Args:
        model: a network of `create_model`.
        x: images (N, C, H, W), normalised.
        preactivation: stages before their last ReLU, the role of a teacher in ReviewKD and PKGD. ResNet: the
            residual sum; VGG: the batch norm's output; wide ResNet: the next batch norm's output, no ReLU.

    Returns:
        Features. Without `preactivation`, stages are taken after their ReLU; wide ResNet: raw block outputs.

    Raises:
        TypeError: the model has no stages to show.
        ValueError: x is not (N, C, H, W).

    Source: ReviewKD (Chen et al. 2021) for the taps; section 2.1 of the PKGD spec.
    """
    taps = getattr(model, "features", None)
    if not callable(taps):
        raise TypeError(f"{type(model).__name__} has no features(x, preactivation) method: use create_model(...)")
    if x.ndim != 4:
        raise ValueError(f"x must be images (N, C, H, W), got shape {tuple(x.shape)}")
    return taps(x, preactivation)


def onward(model: nn.Module, stage: int, x: Tensor) -> Tensor:
    """One part of a forward pass: from the output of one stage to the next, as `features` names the stages.

    Args:
        model: a network of `create_model`.
        stage: how many stages x has passed: with 0, x is images; with all of them, the logits come out.
        x: images (N, C, H, W), or what stage number `stage` (from 1) gave, after its ReLU.

    Returns:
        The output (N, C, h, w) of the next stage, or logits (N, num_classes).

    Raises:
        TypeError: the model has no stages.
    """
    part = getattr(model, "onward", None)
    if not callable(part):
        raise TypeError(f"{type(model).__name__} has no onward(stage, x) method: use create_model(...)")
    return part(stage, x)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters; buffers (running statistics) do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, image_size: int = 32, channels: int = 3) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image; FLOPs are twice as many.

    Args:
        model: any network of such layers, on any device ("meta" computes nothing). It runs in eval mode,
            so that no running statistics move, and is left as it was.
        image_size: height and width in pixels.
        channels: of the image.

    Returns:
        The count of one forward pass; biases, batch norm, ReLU and pooling count nothing.
    """
    image = next(model.parameters()).new_zeros(1, channels, image_size, image_size)
    with evaluating(model), torch.no_grad():
        return layer_macs(model, lambda: model(image))


def layer_macs(model: nn.Module, run: Callable[[], Any]) -> int:
    """Multiply-accumulates of those convolutions and linear layers of a model that `run()` passes.

    A layer counts as what it is by definition, whatever way it is computed: output values times weights per output.
    """
    macs: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights_per_output = layer.get_parameter("weight")[0].numel()
        macs.append(output.numel() * weights_per_output)

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return sum(macs)


def count_flops(run: Callable[[], Any]) -> int:
    """FLOPs of the convolutions, linear layers and matrix products that `run()` executes, 2 per multiply-accumulate.

    Backward passes count as well. The random numbers that it draws leave the caller's as they are.
    """
    from torch.utils.flop_counter import flop_registry  # lazily: it loads Triton's compiler

    with _FlopCounter(flop_registry) as counter, torch.random.fork_rng():
        run()
    return counter.total


class _FlopCounter(TorchDispatchMode):
    """PyTorch's formulas without its FlopCounterMode, whose hooks on modules break gradients of inner feature maps."""

    def __init__(self, formulas: Mapping[Any, Callable[..., int]]) -> None:
        super().__init__()
        self.formulas, self.total = formulas, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = self.formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def convolutions(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The 2-D convolutions of a model in forward order, as (name in `named_modules`, module).

    Convolutions of shortcuts and attention modules do not count: the last one returned is the last on the main path.
    The networks here define their layers in forward order, which a test checks with hooks.
    """
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and {"shortcut", "attention"}.isdisjoint(name.split("."))
    ]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every module has its own mode back (a frozen part may differ from the rest)."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
