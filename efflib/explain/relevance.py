"""`relevance`: what each pixel or cell of a layer contributes to a class score, by LRP or gradient times activation.

`conservation` says how much of the score the contributions account for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from efflib.explain.gradients import Layer, Target, _resize, class_score
from efflib.explain.lrp import RULES, SLACK, Composite, PixelRange, Propagation, bound_of, outside
from efflib.kernels.relevance_map import relevance_map
from efflib.text import unknown

INPUT = "input"
GRADIENT_X_ACTIVATION = "gxa"


def relevance(
    model: nn.Module,
    images: Tensor,
    layer: Layer = INPUT,
    target: Target = "predicted",
    rule: str | Composite = "composite",
    *,
    relu: bool = True,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    pixel_range: PixelRange = (0.0, 1.0),
) -> Tensor:
    """Relevance of the pixels, or of the cells of a feature map, for the logit of one class.

    Args:
        model: classifier returning (N, C) logits; it runs in eval mode and is left as it was.
        images: (N, C, H, W), as the model takes them for evaluation.
        layer: where the relevance is read: "input", or as in `saliency`. A convolution means its output before its
            batch norm, whose shift then counts as a bias.
        target: "predicted", or class indices (N,).
        rule: "gxa" is gradient times activation at the layer, the thesis's "LRP"; the others propagate through all
            layers behind it: "zero" (LRP-0), "epsilon", "gamma", "zplus" (alpha 1, beta 0), "alpha2beta1",
            "composite" (linear layers epsilon, convolutions gamma, the first one z^B), "composite_zplus" (convolutions
            z+ instead), or a `Composite` of your own.
        relu: keep only positive relevance.
        epsilon: stabiliser of the epsilon rule.
        gamma: weight of the gamma rule.
        pixel_range: lowest and highest value that a pixel of `images` can have, each a number or one per channel; read
            by z^B. Where the network itself normalises them (`mobilenetv2(input_norm="imagenet")`), z^B takes what
            the first convolution reads of these two values.

    Returns:
        (N, H, W) float32, summed over channels, not normalised, resized bilinearly if coarser than the image.

    Raises:
        ValueError: an unknown rule or target; a layer that does not exist (lists those that do), is called more than
            once or has no map; where z^B reads `pixel_range`, images that leave it, or a network that does more to
            the pixels than to normalise each of them before its first convolution.
        NotImplementedError: an operation without a rule behind the layer; the message names it.

    Source: Benzine and Kiouer 2025, Eqs. 2.17 and 2.18 ("gxa"); Bach et al. 2015, Montavon et al. 2017 and 2019 (the
    others); section 2.9 and decision D10 of the spec.
    """
    found = _explained(model, images, layer, target, rule, epsilon, gamma, pixel_range)
    if found.values.ndim != 4:
        raise ValueError(
            f"layer {layer!r} gives values of shape {tuple(found.values.shape)}, a map needs (N, C, h, w): "
            "name a layer before the pooling or flattening"
        )
    return _resize(relevance_map(found.values, found.gradient, relu).float(), images)


def conservation(
    model: nn.Module,
    images: Tensor,
    layer: Layer = INPUT,
    target: Target = "predicted",
    rule: str | Composite = "composite",
    *,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    pixel_range: PixelRange = (0.0, 1.0),
) -> Tensor:
    """Sum of a layer's relevance, of both signs, over the logit that it explains.

    1 means that all of the logit is accounted for. Three things take relevance out, or add some:

    - biases, and the shifts of batch norms or, by rules other than z^B, of a normalisation within the network;
    - the epsilon rule, with or without biases: a unit of value z keeps epsilon / (|z| + epsilon) of its relevance;
    - alpha2beta1, at units whose contributions all have one sign: twice their relevance goes on where none is
      negative, minus once where none is positive.

    "gxa" counts nothing that a saturated activation (ReLU6) holds back.

    Args:
        model, images, layer, target, rule, epsilon, gamma, pixel_range: as in `relevance`; the layer may have any
            shape.

    Returns:
        (N,) in the dtype of the model.

    Raises:
        ValueError, NotImplementedError: as `relevance`.
    """
    found = _explained(model, images, layer, target, rule, epsilon, gamma, pixel_range)
    return (found.values * found.gradient).flatten(1).sum(dim=1) / found.score


class _Explained(NamedTuple):
    """values * gradient is the relevance (N, ...) of a layer; score (N,) is the explained logit."""

    values: Tensor
    gradient: Tensor
    score: Tensor


def _explained(
    model: nn.Module,
    images: Tensor,
    layer: Layer,
    target: Target,
    rule: str | Composite,
    epsilon: float,
    gamma: float,
    pixel_range: PixelRange,
) -> _Explained:
    if isinstance(rule, str) and rule not in (GRADIENT_X_ACTIVATION, *RULES):
        raise ValueError(unknown("rule", rule, [GRADIENT_X_ACTIVATION, *RULES]))
    at = None if isinstance(layer, str) and layer == INPUT else layer
    images = images.detach()
    if rule == GRADIENT_X_ACTIVATION:
        with class_score(model, images, at, target, "logit") as (leaf, score):
            (gradient,) = torch.autograd.grad(score.sum(), leaf)
        return _Explained(leaf.detach(), gradient, score.detach())
    propagation = Propagation(rule, epsilon, gamma, pixel_range if at is None else None)
    if at is None and propagation.rule.first == "box":
        _check_range(images, pixel_range)
    with class_score(model, images, at, target, "logit", propagation.run) as (leaf, score):
        values = leaf if propagation.first_inputs is None else propagation.first_inputs
        # z^B leads all relevance to the ones of its convolution, none to the image itself.
        gradients = torch.autograd.grad(score.sum(), (values, leaf), allow_unused=values is not leaf)
    if values is not leaf and gradients[1] is not None:
        raise ValueError("the pixels are read by more than one operation: take a rule without z^B, e.g. 'gamma'")
    return _Explained(values.detach(), gradients[0], score.detach())


def _check_range(images: Tensor, pixel_range: PixelRange) -> None:
    low, high = (bound_of(bound, images) for bound in pixel_range)
    if {low.numel(), high.numel()} - {1, images.shape[1]}:
        raise ValueError(
            f"pixel_range has {low.numel()} lowest and {high.numel()} highest values, images of shape "
            f"{tuple(images.shape)} need one for all channels or {images.shape[1]}"
        )
    if outside(images, low, high, SLACK):
        raise ValueError(
            f"pixels reach from {float(images.min()):.4g} to {float(images.max()):.4g}, outside pixel_range "
            f"{pixel_range!r}: give the lowest and the highest normalised pixel value, (0 - mean) / std and "
            "(1 - mean) / std, per channel if they differ; the z^B rule needs them"
        )
