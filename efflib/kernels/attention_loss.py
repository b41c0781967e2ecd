"""Attention transfer for one pair of feature maps.

q = flatten(mean_c F^2) / max(|.|_2, 1e-12);   loss = mean (q_s - q_t)^2
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import widened


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of normalised spatial energy maps; the teacher is a constant.

    Args:
        student: (N, C_s, h, w).
        teacher: (N, C_t, h', w'); channels may differ. The larger map is adaptive-average-pooled to the smaller size.

    Returns:
        0-d, float32 (float64 for float64 maps).

    Raises:
        ValueError: maps that are not 4-d with equal N.

    Source: Zagoruyko and Komodakis 2017, Eq. 2, as RepDistiller computes it.
    """
    return attention_loss_ref(student, teacher)


def attention_loss_ref(student: Tensor, teacher: Tensor) -> Tensor:
    """Definition of `attention_loss`."""
    student, teacher = same_size(student, teacher)
    return (energy(student) - energy(teacher.detach())).square().mean()


def energy(features: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h w): channel mean of squares, unit length."""
    return F.normalize(widened(features).square().mean(dim=1).flatten(1), eps=1e-12)


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller of the two sizes.

    Raises:
        ValueError: maps that are not 4-d with equal N; names both shapes.
    """
    if a.ndim != 4 or b.ndim != 4 or len(a) != len(b):
        raise ValueError(f"feature maps must be (N, C, h, w) with equal N, got {tuple(a.shape)} and {tuple(b.shape)}")
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    return pooled_to(a, size), pooled_to(b, size)


def pooled_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive average pooling, if the size differs."""
    return x if tuple(x.shape[2:]) == size else F.adaptive_avg_pool2d(widened(x), size)
