"""Hinton's distillation loss on logits, in one number.

alpha CE(z_s, y) + (1 - alpha) T^2 (1/N) sum_n sum_c p_t (ln p_t - ln p_s),   p = softmax(z / T)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Cross-entropy and softened KL divergence; the teacher is a constant.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C); no gradient flows into it.
        targets: (N,) int64 class indices.
        temperature: T > 0.
        alpha: weight of the cross-entropy; the divergence has 1 - alpha. For weights a and b with a + b != 1 take
            (a + b) kd_loss(alpha = a / (a + b)).

    Returns:
        0-d, float32 (float64 for float64 logits).

    Raises:
        ValueError: shapes that differ, targets of another length, or temperature <= 0.

    Source: Hinton et al. 2015, section 2, with the T^2 of its footnote.
    """
    return kd_loss_ref(student_logits, teacher_logits, targets, temperature, alpha)


def kd_loss_ref(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Definition of `kd_loss`."""
    check_logits(student_logits, teacher_logits, temperature)
    if tuple(targets.shape) != (len(student_logits),):
        raise ValueError(f"targets must be ({len(student_logits)},), one class per row, got {tuple(targets.shape)}")
    student = widened(student_logits)
    divergence = softened_kl(student, widened(teacher_logits), temperature)
    return alpha * F.cross_entropy(student, targets) + (1 - alpha) * divergence


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over rows; the teacher is a constant."""
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def check_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> None:
    """Errors shared by all losses on logits.

    Raises:
        ValueError: logits that are not (N, C) alike, or temperature <= 0.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher logits must be (N, C) alike, got {tuple(student.shape)} and {tuple(teacher.shape)}: "
            "both networks must be built for the same classes"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; 4 is usual, 1 leaves the softmax as it is")


def widened(x: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a function of tensors: autocast would round matrix products to bf16, those of float32 too."""

    @wraps(function)
    def precise(*args: P.args, **options: P.kwargs) -> R:
        device = next((x.device.type for x in (*args, *options.values()) if isinstance(x, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return function(*args, **options)

    return precise
