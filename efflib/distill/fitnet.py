"""FitNet: the student's middle feature map, through a regressor, must equal the teacher's (Romero et al. 2015).

Trained in one stage, as RepDistiller does (the original paper trains the hint first).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, Shapes
from efflib.kernels.attention_loss import same_size
from efflib.kernels.common import widened
from efflib.models import Features


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two maps (N, C, h, w), the larger pooled to the smaller; the teacher is constant."""
    student, teacher = same_size(student, teacher)
    return F.mse_loss(widened(student), widened(teacher.detach()))


class FitNet(Distiller):
    """CE + feature_weight MSE(regressor(student stage), teacher stage).

    Args:
        student, teacher: feature shapes.
        feature_weight: 100 in RepDistiller.
        stage: position of the stage in `Features.stages`; 1 on the CIFAR networks (DESIGN section 10).
    """

    def __init__(self, student: Shapes, teacher: Shapes, *, feature_weight: float = 100.0, stage: int = 1) -> None:
        super().__init__()
        self.feature_weight, self.stage = feature_weight, stage
        outputs = teacher.stages[stage][0]
        conv = nn.Conv2d(student.stages[stage][0], outputs, 1)
        self.regressor = nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        hint = hint_loss(self.regressor(student.stages[self.stage]), teacher.stages[self.stage])
        return {"cross_entropy": F.cross_entropy(student.logits, targets), "feature": self.feature_weight * hint}
