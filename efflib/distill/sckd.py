"""SCKD: the student's last stage must equal the teacher's, both seen through one projector (Elshazly et al. 2024).

The projector is trained first (`prepare`), on the teacher, with the supervised contrastive loss on two views of each
image (Khosla et al. 2020), and then frozen; only the student is trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, PrepareContext, Shapes, frozen_eval
from efflib.kernels.common import widened, without_autocast
from efflib.models import Features, features


@without_autocast
def supervised_contrastive_loss(views: Tensor, labels: Tensor, temperature: float = 0.07) -> Tensor:
    """Mean over views of -1/|P| sum over same-class views p of log softmax of the scores, without the view itself.

    Args:
        views: (M, D) unit vectors.
        labels: (M,) classes; every class needs at least two views.
        temperature: tau > 0.

    Raises:
        ValueError: temperature <= 0, or a view that is alone in its class.

    Source: Khosla et al. 2020, Eq. 2.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; 0.07 is usual")
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    same = (labels[:, None] == labels[None]) & ~itself
    if bool((same.sum(dim=1) == 0).any()):
        raise ValueError("a view has no other view of its class: give two views of every image")
    scores = (views @ views.T / temperature).masked_fill(itself, -float("inf"))
    log_p = scores.log_softmax(dim=1).masked_fill(~same, 0.0)
    return -(log_p.sum(dim=1) / same.sum(dim=1)).mean()


def projected_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of unit-length flattened projections (N, D); the teacher is a constant."""
    return (F.normalize(widened(student), dim=1) - F.normalize(widened(teacher.detach()), dim=1)).abs().mean()


class Projector(nn.Module):
    """Five 3x3 convolutions C -> C -> C/2 -> C/2 -> C/4 -> C/4, LeakyReLU 0.1; flattened; a head for training."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        C, h, w = shape
        layers: list[nn.Module] = []
        for a, b in ((C, C), (C, C // 2), (C // 2, C // 2), (C // 2, C // 4), (C // 4, C // 4)):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(0.1)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        width = C // 4 * h * w
        self.head = nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, 128))

    def forward(self, x: Tensor) -> Tensor:
        """(N, D): what the distillation compares."""
        return self.body(x)

    def views(self, x: Tensor) -> Tensor:
        """(N, 128) unit vectors: what the contrastive training compares."""
        return F.normalize(widened(self.head(self.body(x))), dim=1)


class SCKD(Distiller):
    """CE + feature_weight difference of projections of the last stage.

    Args:
        student, teacher: feature shapes; the last stages must have the same shape.
        feature_weight: 80, the published example for CIFAR-10.
        temperature: of the contrastive training, 0.07.
        prepare_epochs, prepare_lr: of the projector, 50 and 1e-4 (Adam, x0.1 after 60 and 80 % of them).
    """

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        feature_weight: float = 80.0,
        temperature: float = 0.07,
        prepare_epochs: int = 50,
        prepare_lr: float = 1e-4,
    ) -> None:
        super().__init__()
        if student.stages[-1] != teacher.stages[-1]:
            raise ValueError(
                f"sckd reads both networks' last stages with one projector, but they have the shapes "
                f"{student.stages[-1]} and {teacher.stages[-1]}: take networks with equal last stages"
            )
        self.feature_weight, self.temperature = feature_weight, temperature
        self.prepare_epochs, self.prepare_lr = prepare_epochs, prepare_lr
        # One frozen projector serves both roles: the two copies of the published code never differ.
        self.projector = frozen_eval(Projector(teacher.stages[-1]))

    def prepare(self, context: PrepareContext) -> None:
        """Train the projector on the teacher's last stage with two views of each image, then freeze it."""
        self.projector.to(context.device).train().requires_grad_(True)
        optimiser = torch.optim.Adam(self.projector.parameters(), lr=self.prepare_lr)
        drops = [int(self.prepare_epochs * share + 0.5) for share in (0.6, 0.8)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops, gamma=0.1)
        for epoch in range(self.prepare_epochs):
            for one, two in zip(context.batches(epoch, 0), context.batches(epoch, 1), strict=True):
                images, labels = torch.cat([one.images, two.images]), torch.cat([one.targets, two.targets])
                with torch.no_grad():
                    maps = features(context.teacher, images).stages[-1]
                optimiser.zero_grad()
                views = self.projector.views(maps)  # type: ignore[operator]
                supervised_contrastive_loss(views, labels, self.temperature).backward()
                optimiser.step()
            schedule.step()
        frozen_eval(self.projector)

    def train(self, mode: bool = True) -> SCKD:
        super().train(mode)
        self.projector.eval()
        return self

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            wanted = self.projector(teacher.stages[-1])
        difference = projected_loss(self.projector(student.stages[-1]), wanted)
        return {"cross_entropy": F.cross_entropy(student.logits, targets), "feature": self.feature_weight * difference}
