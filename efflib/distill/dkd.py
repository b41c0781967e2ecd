"""DKD: decoupled knowledge distillation: target class and the others apart (Zhao et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.distill.common import Distiller, Shapes, same_classes, warmup
from efflib.kernels.common import widened
from efflib.kernels.kd_loss import check_logits, softened_kl
from efflib.models import Features


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """alpha TCKD + beta NCKD, both times T^2, batch mean; the teacher is a constant.

    TCKD is the KL divergence of (p_y, 1 - p_y), NCKD that of the softmax over the other classes.

    Args:
        student_logits, teacher_logits: (N, C).
        targets: (N,) int64.
        alpha, beta: weights of the two parts; beta depends on the pair of networks.
        temperature: T > 0.

    Returns:
        0-d, float32 (float64 for float64 logits).

    Raises:
        ValueError: shapes that differ, targets of another length, or temperature <= 0.

    Source: Zhao et al. 2022, Eq. 7.
    """
    check_logits(student_logits, teacher_logits, temperature)
    if tuple(targets.shape) != (len(student_logits),):
        raise ValueError(f"targets must be ({len(student_logits)},), one class per row, got {tuple(targets.shape)}")
    student, teacher = widened(student_logits), widened(teacher_logits.detach())
    return alpha * target_kd(student, teacher, targets, temperature) + beta * other_kd(
        student, teacher, targets, temperature
    )


def target_kd(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """TCKD: T^2 KL between the two-class distributions (target, not target)."""
    log_p, log_q = (_two_way(z / temperature, targets) for z in (student, teacher))
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def other_kd(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """NCKD: T^2 KL between the distributions over the other classes."""
    below = torch.arange(student.shape[1] - 1, device=targets.device)
    others = below + (below >= targets[:, None])  # (N, C - 1); a mask of unknown count would make the host wait
    return softened_kl(student.gather(1, others), teacher.gather(1, others), temperature)


def _two_way(scaled: Tensor, targets: Tensor) -> Tensor:
    """(N, 2) log-probabilities of the target and of all others, without subtracting from 1."""
    log_p = scaled.log_softmax(dim=1)
    target = log_p.gather(1, targets[:, None])
    others = log_p.masked_fill(F.one_hot(targets, scaled.shape[1]).bool(), -float("inf")).logsumexp(1, keepdim=True)
    return torch.cat([target, others], dim=1)


class DKD(Distiller):
    """CE + warm-up DKD.

    Args:
        student, teacher: feature shapes.
        target_weight, other_weight: alpha and beta of the paper; beta is 2, 6 or 8 by pair (PKGD spec, section 4.2).
        temperature: T.
        warmup_epochs: the loss grows linearly over so many epochs, from 1 / warmup_epochs in the first.
    """

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        target_weight: float = 1.0,
        other_weight: float = 8.0,
        temperature: float = 4.0,
        warmup_epochs: float = 20,
    ) -> None:
        super().__init__()
        same_classes(student, teacher)
        self.target_weight, self.other_weight = target_weight, other_weight
        self.temperature, self.warmup_epochs = temperature, warmup_epochs

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        weights = (self.target_weight, self.other_weight, self.temperature)
        decoupled = dkd_loss(student.logits, teacher.logits, targets, *weights)
        growth = warmup(progress, self.warmup_epochs, ahead=1)
        return {"cross_entropy": F.cross_entropy(student.logits, targets), "kd": growth * decoupled}
