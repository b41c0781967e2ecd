"""How far Grad-CAM and gradient times activation (the thesis's "LRP") are apart in a network: spec, section 2.3."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from efflib.distill.diswot_plus import class_map


def in_double(network: nn.Module, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """A layer's features (N, C, h, w) and the logits (N, classes) made from them, in double precision.

    Args:
        network: MobileNetV2; the features are made in its own mode, what lies behind them as in evaluation. It stays as
            it is.
        images: (N, C, H, W), normalised.
        layer: "s16" or "s32".
    """
    own: Any = copy.deepcopy(network).double()
    with torch.no_grad():
        features = own.maps(images.double())[layer]
    features.requires_grad_()
    return features, own.logits_from(layer, features, as_in_eval=True)


def apart(network: nn.Module, images: Tensor, classes: Tensor, layer: str) -> float:
    """Largest difference of Grad-CAM and gradient times activation, over the largest Grad-CAM value; signs kept.

    Args:
        network, images, layer: as in `in_double`.
        classes: int64 (N,), the class that is explained.
    """
    features, logits = in_double(network, images, layer)
    gradcam, gxa = (
        class_map(features, logits, classes, kind, relu=False, create_graph=True).detach()
        for kind in ("gradcam", "gxa")
    )
    return float((gradcam - gxa).abs().max() / gradcam.abs().max())
