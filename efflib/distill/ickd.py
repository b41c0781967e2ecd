"""ICKD-C: inter-channel correlation distillation, classification version (Liu et al. 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, Shapes
from efflib.kernels.common import widened, without_autocast
from efflib.kernels.kd_loss import check_logits, softened_kl
from efflib.models import Features


@without_autocast
def icc_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of row-normalised channel correlation matrices; the teacher is a constant.

    G = F F^T over positions (C x C), rows of unit length; sum (G_s - G_t)^2 / (C N).

    Args:
        student: (N, C, h, w).
        teacher: (N, C, h', w'): as many channels; sizes may differ.

    Returns:
        0-d, float32 (float64 for float64 maps).

    Raises:
        ValueError: maps that are not 4-d with equal N and C.

    Source: Liu et al. 2021, Eqs. 3-5.
    """
    if student.ndim != 4 or teacher.ndim != 4 or student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"maps must be (N, C, h, w) with equal N and C, got {tuple(student.shape)} and {tuple(teacher.shape)}: "
            "bring the student to the teacher's channels first"
        )
    N, C = student.shape[:2]
    return (_correlations(student) - _correlations(teacher.detach())).square().sum() / (C * N)


def _correlations(maps: Tensor) -> Tensor:
    flat = widened(maps).flatten(2)
    return F.normalize(flat @ flat.transpose(1, 2), dim=2)


class ICKD(Distiller):
    """CE + kd_weight KL + feature_weight ICC on the last stage, the student through a 1x1 convolution and BN.

    Args:
        student, teacher: feature shapes.
        feature_weight: 2.5 in the published code.
        kd_weight: 1, or 0 for the paper's numbers without KL.
        temperature: of the KL.
    """

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        feature_weight: float = 2.5,
        kd_weight: float = 1.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        self.feature_weight, self.kd_weight, self.temperature = feature_weight, kd_weight, temperature
        outputs = teacher.stages[-1][0]
        conv = nn.Conv2d(student.stages[-1][0], outputs, 1, bias=False)
        self.align = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        check_logits(student.logits, teacher.logits, self.temperature)
        icc = icc_loss(self.align(student.stages[-1]), teacher.stages[-1])
        kl = softened_kl(widened(student.logits), widened(teacher.logits), self.temperature)
        return {
            "cross_entropy": F.cross_entropy(student.logits, targets),
            "kd": self.kd_weight * kl,
            "feature": self.feature_weight * icc,
        }
