"""Which pixels matter to a classifier, by its gradient: `saliency` (four variants) and `grad_cam`.

Both work on whole batches. All parameters are frozen and the chosen feature map is made a leaf of the graph, so that
only the layers behind it are differentiated: a map costs one forward pass and a small backward pass. The model is in
eval mode meanwhile (in train mode batch norm would mix the images of a batch) and is left exactly as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.kernels.gradcam_map import gradcam_map
from efflib.models import convolutions, evaluating

Layer = int | str | nn.Module
POOLING_INPUT = "pooling input"
Target = Literal["predicted"] | Tensor
Forward = Callable[[Tensor], Tensor]
Run = Callable[[Forward, Tensor], Tensor]

METHODS = ("layer_grad", "input_grad", "grad_x_act", "gradcam")
REDUCTIONS = ("mean_abs", "max_abs", "abs_sum")
SCORES = ("logit", "logprob", "prob")


def saliency(
    model: nn.Module,
    images: Tensor,
    layer: Layer = -1,
    target: Target = "predicted",
    method: str = "layer_grad",
    reduce: str = "mean_abs",
    score: str = "logit",
) -> Tensor:
    """Importance of each pixel for one class score; BIMask's by default.

    Args:
        model: classifier returning (N, C) logits.
        images: (N, 3, H, W), normalised as for evaluation.
        layer: where the gradient is taken: a convolution counted from the end (-1 is the last; 1x1 shortcuts do not
            count), a module name, or a module: its raw output; "pooling input" is the map (after its ReLU) that the
            global average pooling reads; a map that the network names, as "s16". Not used by "input_grad".
        target: "predicted", or class indices (N,).
        method: "layer_grad" reduces |gradient| of the feature map over channels; "grad_x_act" reduces |gradient x
            activation|; "gradcam" is Grad-CAM at that layer; "input_grad" is max over colours of |d score / d image|.
        reduce: over channels: "mean_abs" = mean |G|, "max_abs" = max |G|, "abs_sum" = |sum G|.
        score: "logit", "logprob" or "prob" of the target class.

    Returns:
        (N, H, W) float32, not normalised; maps coarser than the image are resized bilinearly (align_corners=False).

    Raises:
        ValueError: an unknown method, reduction or score; a layer that does not exist (lists those that do).

    Source: BIMask, Eq. 1 and Algorithm 1, lines 2-6, read as in section 2.2 (A1-A5) of the spec; Simonyan et al. 2014
    for "input_grad".
    """
    _choice("method", method, METHODS)
    _choice("reduce", reduce, REDUCTIONS)
    if method == "gradcam":
        return grad_cam(model, images, layer, target, score)
    values, gradient = activation_and_gradient(model, images, None if method == "input_grad" else layer, target, score)
    if method == "input_grad":
        return gradient.abs().amax(dim=1).float()
    signal = gradient * values if method == "grad_x_act" else gradient
    return _resize(_reduce(signal, reduce), images)


def grad_cam(
    model: nn.Module,
    images: Tensor,
    layer: Layer = POOLING_INPUT,
    target: Target = "predicted",
    score: str = "logit",
) -> Tensor:
    """Grad-CAM: channels of a feature map weighted by their mean gradient, positive part.

    Args:
        model, images, target, score: as in `saliency`.
        layer: as in `saliency`; the original paper takes the pooling's input.

    Returns:
        (N, H, W) float32, not normalised, resized bilinearly.

    Raises:
        ValueError: as `saliency`.

    Source: Selvaraju et al. 2017, Eq. 1 and 2.
    """
    values, gradient = activation_and_gradient(model, images, layer, target, score)
    return _resize(gradcam_map(values, gradient).float(), images)


def find_layer(model: nn.Module, layer: Layer) -> nn.Module:
    """The module a layer argument means: a convolution counted from the end, a name, or the module itself.

    Raises:
        ValueError: no such layer in this model; the message lists the convolutions.
    """
    if isinstance(layer, nn.Module):
        return layer
    named = convolutions(model)
    if isinstance(layer, int) and -len(named) <= layer < len(named):
        return named[layer][1]
    modules = dict(model.named_modules())
    if isinstance(layer, str) and layer in modules:
        return modules[layer]
    maps = "".join(f", {name!r}" for name in named_maps(model))
    raise ValueError(
        f"no layer {layer!r} in {type(model).__name__}: give a number from {-len(named)} to {len(named) - 1}{maps} "
        f"or a module name; its convolutions are {', '.join(name for name, _ in named)}"
    )


def pooling(model: nn.Module) -> nn.Module:
    """The global average pooling layer of a model.

    Raises:
        ValueError: the model has none.
    """
    found = [module for module in model.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no global average pooling layer: name the layer for Grad-CAM yourself"
        )
    return found[-1]


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in eval mode with no parameter requiring a gradient; both restored afterwards, per module."""
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with evaluating(model):
            model.requires_grad_(False)
            yield
    finally:
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)


def activation_and_gradient(
    model: nn.Module, images: Tensor, layer: Layer | None, target: Target, score: str
) -> tuple[Tensor, Tensor]:
    """Feature map of a layer (the image itself for None) and the score's gradient there."""
    with class_score(model, images, layer, target, score) as (leaf, chosen):
        (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    return leaf.detach(), gradient


@contextmanager
def class_score(
    model: nn.Module, images: Tensor, layer: Layer | None, target: Target, score: str, run: Run | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """A layer's output as a leaf of the graph (the image for None), and the class scores (N,) that follow from it.

    Within the block the model is frozen. `run` computes function(x) in its own way: that of `efflib.explain.lrp`.
    """
    _choice("score", score, SCORES)
    run = run or (lambda function, x: function(x))
    leaf: list[Tensor] = []

    def to_leaf(value: Tensor) -> Tensor:
        # Detached: nothing before this map is differentiated. The copies keep in-place layers behind it harmless.
        leaf.append(value.detach().clone().requires_grad_(True))
        return leaf[-1].clone()

    with frozen(model), torch.enable_grad():
        if isinstance(layer, str) and layer in named_maps(model):
            value = to_leaf(model.maps(images)[layer])  # type: ignore[operator]
            logits = run(lambda A: model.logits_from(layer, A), value)  # type: ignore[operator]
        else:
            with _hooked(model, layer, to_leaf):
                logits = run(model, images if layer is not None else to_leaf(images))
        if len(leaf) != 1:
            raise ValueError(
                f"the chosen layer was called {len(leaf)} times in one forward pass, it must be called exactly once: "
                "name a block or layer, not a container that the network steps through"
            )
        yield leaf[0], _class_score(logits, target, score)


def named_maps(model: nn.Module) -> tuple[str, ...]:
    """Maps that a network names itself, with `logits_from(name, map)` behind them: "s16", "s32" of mobilenetv2."""
    return getattr(model, "map_names", ())


@contextmanager
def _hooked(model: nn.Module, layer: Layer | None, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer's output (or what the pooling reads) be replaced during a forward pass."""
    if layer is None:
        yield
        return
    if isinstance(layer, str) and layer == POOLING_INPUT:
        handle = pooling(model).register_forward_pre_hook(lambda module, inputs: (replace(inputs[0]), *inputs[1:]))
    else:
        handle = find_layer(model, layer).register_forward_hook(lambda module, inputs, output: replace(output))
    try:
        yield
    finally:
        handle.remove()


def _class_score(logits: Tensor, target: Target, score: str) -> Tensor:
    """(N,) score of the target class of each image, in float32 (float64 for float64 logits)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if isinstance(target, str):
        _choice("target", target, ("predicted",))
        classes = logits.argmax(dim=1)
    else:
        classes = target.to(logits.device)
        if tuple(classes.shape) != (len(logits),):
            raise ValueError(f"target must hold one class per image, ({len(logits)},), got {tuple(classes.shape)}")
    values = {"logit": lambda z: z, "logprob": lambda z: z.log_softmax(1), "prob": lambda z: z.softmax(1)}
    return values[score](logits).gather(1, classes[:, None]).squeeze(1)


def _reduce(signal: Tensor, how: str) -> Tensor:
    """(N, D, h, w) -> (N, h, w), arithmetic in at least float32."""
    signal = signal if signal.dtype == torch.float64 else signal.float()
    if how == "mean_abs":
        return signal.abs().mean(dim=1)
    return signal.abs().amax(dim=1) if how == "max_abs" else signal.sum(dim=1).abs()


def _resize(maps: Tensor, images: Tensor) -> Tensor:
    """(N, h, w) -> (N, H, W), bilinear with align_corners=False (BIMask, A5 of the spec)."""
    size = tuple(images.shape[2:])
    if tuple(maps.shape[1:]) == size:
        return maps
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
