"""Gradient times activation, summed over channels: what DisWOT with "LRP" calls relevance (elsewhere: HiResCAM).

map[n] = relu( sum_c activations[n, c] * gradients[n, c] )
"""

from __future__ import annotations

from torch import Tensor

from efflib.kernels.common import widened


def relevance_map(activations: Tensor, gradients: Tensor, relu: bool = True) -> Tensor:
    """Gradient-times-activation map at the feature map's own resolution, not normalised; differentiable twice.

    Args:
        activations: (N, C, h, w) feature map.
        gradients: (N, C, h, w) gradient of the class score with respect to it.
        relu: keep only positive evidence, as in the thesis.

    Returns:
        (N, h, w), dtype of activations; arithmetic in float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes that differ.

    Source: Benzine and Kiouer 2025, Eqs. 2.17 and 2.18; section 2.2 of its spec.
    """
    return relevance_map_ref(activations, gradients, relu)


def relevance_map_ref(activations: Tensor, gradients: Tensor, relu: bool = True) -> Tensor:
    """Definition of `relevance_map`."""
    if activations.shape != gradients.shape or activations.ndim != 4:
        raise ValueError(
            f"activations and gradients must be (N, C, h, w) and equal in shape, "
            f"got {tuple(activations.shape)} and {tuple(gradients.shape)}"
        )
    summed = (widened(activations) * widened(gradients)).sum(dim=1)
    return (summed.relu() if relu else summed).to(activations.dtype)
