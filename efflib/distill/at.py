"""AT: attention transfer (Zagoruyko and Komodakis 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.distill.common import Distiller, Shapes, same_number_of_levels
from efflib.kernels import attention_loss
from efflib.models import Features


class AT(Distiller):
    """CE + feature_weight (sum over stages of the attention loss).

    Args:
        student, teacher: feature shapes.
        feature_weight: 1000 in RepDistiller.
    """

    def __init__(self, student: Shapes, teacher: Shapes, *, feature_weight: float = 1000.0) -> None:
        super().__init__()
        same_number_of_levels("at", student, teacher)
        self.feature_weight = feature_weight

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        pairs = zip(student.stages, teacher.stages, strict=True)
        attention = torch.stack([attention_loss(s, t) for s, t in pairs]).sum()
        return {"cross_entropy": F.cross_entropy(student.logits, targets), "feature": self.feature_weight * attention}
