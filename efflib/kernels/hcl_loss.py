"""ReviewKD's hierarchical context loss between lists of equal-shaped maps.

sum over levels of [MSE + sum_q w_q MSE(q x q pools)] / (1 + sum w_q),   q in (4, 2, 1), q < h, w = 1/2, 1/4, 1/8
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import widened


def hcl_loss(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Mean squared difference at full size and at coarser pools, weighted, summed over levels.

    Args:
        student_maps: (N, C, h, w) per level.
        teacher_maps: the same shapes; gradients flow into them if they require any.

    Returns:
        0-d, float32 (float64 for float64 maps). The weights go to the pools that are used, in order: a map of h = 2
        has only the 1 x 1 pool, with weight 1/2.

    Raises:
        ValueError: lists of different length, or a level whose shapes differ.

    Source: Chen et al. 2021 (ReviewKD), section 3.3, and its published code.
    """
    return hcl_loss_ref(student_maps, teacher_maps)


def hcl_loss_ref(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Definition of `hcl_loss`."""
    if len(student_maps) != len(teacher_maps) or not student_maps:
        raise ValueError(f"need as many student maps as teacher maps, got {len(student_maps)} and {len(teacher_maps)}")
    pairs = zip(student_maps, teacher_maps, strict=True)
    return torch.stack([_level(student, teacher) for student, teacher in pairs]).sum()


def _level(student: Tensor, teacher: Tensor) -> Tensor:
    if student.shape != teacher.shape or student.ndim != 4:
        raise ValueError(
            f"maps of one level must be (N, C, h, w) alike, got {tuple(student.shape)} and {tuple(teacher.shape)}: "
            "align the student's channels and size first"
        )
    student, teacher = widened(student), widened(teacher)
    total, weights, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for pool in (4, 2, 1):
        if pool < student.shape[2]:
            weight /= 2
            coarse = F.adaptive_avg_pool2d(student, pool), F.adaptive_avg_pool2d(teacher, pool)
            total = total + weight * F.mse_loss(*coarse)
            weights += weight
    return total / weights
