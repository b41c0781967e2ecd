"""KD: knowledge distillation on softened logits (Hinton et al. 2015)."""

from __future__ import annotations

from torch import Tensor

from efflib.distill.common import Distiller, Shapes, same_classes
from efflib.kernels import kd_loss
from efflib.kernels.kd_loss import check_logits
from efflib.models import Features


class KD(Distiller):
    """ce_weight CE + kd_weight T^2 KL(teacher || student).

    Args:
        student, teacher: feature shapes.
        temperature: T.
        ce_weight, kd_weight: 0.1 and 0.9 in RepDistiller.
    """

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        temperature: float = 4.0,
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
    ) -> None:
        super().__init__()
        same_classes(student, teacher)
        self.temperature, self.ce_weight, self.kd_weight = temperature, ce_weight, kd_weight

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        check_logits(student.logits, teacher.logits, self.temperature)
        ce = kd_loss(student.logits, teacher.logits, targets, self.temperature, alpha=1.0)
        kl = kd_loss(student.logits, teacher.logits, targets, self.temperature, alpha=0.0)
        return {"cross_entropy": self.ce_weight * ce, "kd": self.kd_weight * kl}
