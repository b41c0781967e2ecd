"""Grad-CAM's weighted sum: channels weighted by the spatial mean of their gradient.

map[n] = relu( sum_c mean_hw(gradients[n, c]) * activations[n, c] )
"""

from __future__ import annotations

import torch
from torch import Tensor


def gradcam_map(activations: Tensor, gradients: Tensor, relu: bool = True) -> Tensor:
    """Grad-CAM map at the feature map's own resolution, not normalised; differentiable twice.

    Args:
        activations: (N, C, h, w) feature map.
        gradients: (N, C, h, w) gradient of the class score with respect to it.
        relu: keep only positive evidence, as in the paper.

    Returns:
        (N, h, w), dtype of activations; arithmetic in float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes that differ.

    Source: Selvaraju et al. 2017, Eq. 1 and 2.
    """
    return gradcam_map_ref(activations, gradients, relu)


def gradcam_map_ref(activations: Tensor, gradients: Tensor, relu: bool = True) -> Tensor:
    """Definition of `gradcam_map`."""
    if activations.shape != gradients.shape or activations.ndim != 4:
        raise ValueError(
            f"activations and gradients must be (N, C, h, w) and equal in shape, "
            f"got {tuple(activations.shape)} and {tuple(gradients.shape)}"
        )
    work = torch.float64 if activations.dtype == torch.float64 else torch.float32
    weights = gradients.to(work).mean(dim=(2, 3), keepdim=True)
    weighted = (weights * activations.to(work)).sum(dim=1)
    return (weighted.relu() if relu else weighted).to(activations.dtype)
