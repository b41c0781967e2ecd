"""RKD: relational knowledge distillation on pooled features: distances and angles within a batch (Park et al. 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.distill.common import Distiller, Shapes, need_pairs
from efflib.kernels.common import widened, without_autocast
from efflib.models import Features

EPS = 1e-12


@without_autocast
def rkd_loss(student: Tensor, teacher: Tensor, distance_weight: float = 25, angle_weight: float = 50) -> Tensor:
    """Smooth-L1 differences of normalised pair distances and of triplet angles; the teacher is a constant.

    Args:
        student: (N, D_s) pooled features.
        teacher: (N, D_t).
        distance_weight, angle_weight: 25 and 50 in the paper and in RepDistiller.

    Returns:
        0-d, float32 (float64 for float64 features).

    Raises:
        ValueError: fewer than two images, or batches of different size.

    Source: Park et al. 2019, Eqs. 4-9.
    """
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise ValueError(f"features must be (N, D) with equal N, got {tuple(student.shape)} and {tuple(teacher.shape)}")
    need_pairs("rkd", len(student))
    student, teacher = widened(student), widened(teacher.detach())
    distance = F.smooth_l1_loss(_distances(student), _distances(teacher))
    angle = F.smooth_l1_loss(_angles(student), _angles(teacher))
    return distance_weight * distance + angle_weight * angle


def _distances(x: Tensor) -> Tensor:
    """(N, N) Euclidean distances over the mean positive one; clamped before the root (its slope at 0 is infinite)."""
    squares = x.square().sum(1)
    squared = squares[:, None] + squares[None] - 2 * x @ x.T
    apart = squared.clamp(min=EPS).sqrt() * (1 - torch.eye(len(x), dtype=x.dtype, device=x.device))
    return apart / apart[apart > 0].mean() if bool((apart > 0).any()) else apart


def _angles(x: Tensor) -> Tensor:
    """(N, N, N) cosines at each anchor between the unit vectors to every two images."""
    towards = F.normalize(x[None] - x[:, None], dim=2, eps=EPS)
    return towards @ towards.transpose(1, 2)


class RKD(Distiller):
    """CE + RKD on the pooled vectors.

    Args:
        student, teacher: feature shapes; widths may differ.
        distance_weight, angle_weight: see `rkd_loss`.
    """

    def __init__(
        self, student: Shapes, teacher: Shapes, *, distance_weight: float = 25.0, angle_weight: float = 50.0
    ) -> None:
        super().__init__()
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        relation = rkd_loss(student.pooled, teacher.pooled, self.distance_weight, self.angle_weight)
        return {"cross_entropy": F.cross_entropy(student.logits, targets), "feature": relation}
