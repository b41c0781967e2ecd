"""CRD: contrastive representation distillation, with memory banks or within the batch (Tian et al. 2020)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, Shapes, need_pairs
from efflib.kernels.common import widened, without_autocast
from efflib.models import Features

EPS = 1e-7


def nce_loss(positive: Tensor, negatives: Tensor, images: int) -> Tensor:
    """Noise-contrastive loss of one side: -[log h+/(h+ + K/N + eps) + sum_k log (K/N)/(h_k + K/N + eps)], batch mean.

    Args:
        positive: (B, 1) scores h of the own image.
        negatives: (B, K) scores of the others.
        images: N, number of training images.

    Source: Tian et al. 2020, Eq. 17, as RepDistiller computes it.
    """
    noise = negatives.shape[1] / images
    own = (positive / (positive + noise + EPS)).log()
    others = (noise / (negatives + noise + EPS)).log()
    return -(own.sum() + others.sum()) / len(positive)


@without_autocast
def in_batch_loss(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float = 0.07) -> Tensor:
    """Symmetric InfoNCE between unit vectors (B, D); other images of the same class are no negatives."""
    scores = student @ teacher.T / temperature
    same = (targets[:, None] == targets[None]) & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    scores = scores.masked_fill(same, -float("inf"))
    own = torch.arange(len(targets), device=targets.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


@without_autocast
def _products(anchors: Tensor, others: Tensor) -> Tensor:
    """(B, D), (B, K, D) -> (B, K)."""
    return torch.einsum("bd,bkd->bk", anchors, others)


class CRD(Distiller):
    """CE + feature_weight contrastive loss between projected pooled vectors.

    Args:
        student, teacher: feature shapes.
        labels: (N,) classes of all training images: negatives come from other classes. Needed by the memory banks.
        memory: True for the paper's memory banks, False for the in-batch substitute, which needs far less memory.
        dimensions: of the projections, 128.
        negatives: K, 16,384.
        temperature: 0.07.
        momentum: of the banks, 0.5.
        feature_weight: 0.8.
        seed: of the banks and the negatives.
    """

    student_bank: Tensor
    teacher_bank: Tensor
    labels: Tensor
    normaliser: Tensor
    step: Tensor

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        labels: Tensor | None = None,
        memory: bool = True,
        dimensions: int = 128,
        negatives: int = 16_384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        feature_weight: float = 0.8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}; 0.07 is usual")
        if memory and labels is None:
            raise ValueError("CRD's memory banks need labels=(N,) of all training images; or take memory=False")
        self.temperature, self.momentum, self.feature_weight = temperature, momentum, feature_weight
        self.negatives, self.memory, self.seed = negatives, memory, seed
        self.student_head = nn.Linear(student.pooled, dimensions)
        self.teacher_head = nn.Linear(teacher.pooled, dimensions)
        if memory:
            self._make_banks(torch.as_tensor(labels), dimensions)

    def _make_banks(self, labels: Tensor, dimensions: int) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        bound = 1 / math.sqrt(dimensions / 3)
        for name in ("student_bank", "teacher_bank"):
            start = (torch.rand(len(labels), dimensions, generator=generator) * 2 - 1) * bound
            self.register_buffer(name, start)
        self.register_buffer("labels", labels.clone())
        # Z of both sides, fixed at the first batch; 0 means not yet.
        self.register_buffer("normaliser", torch.zeros(2))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        z_s = F.normalize(widened(self.student_head(student.pooled)), dim=1)
        z_t = F.normalize(widened(self.teacher_head(teacher.pooled.detach())), dim=1)
        if self.memory:
            contrast = self._bank_loss(z_s, z_t, targets, indices)
        else:
            need_pairs("crd", len(targets))
            contrast = in_batch_loss(z_s, z_t, targets, self.temperature)
        return {"cross_entropy": F.cross_entropy(student.logits, targets), "feature": self.feature_weight * contrast}

    def _bank_loss(self, z_s: Tensor, z_t: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        self.check_indices(indices)
        chosen = torch.cat([indices[:, None], self._others(targets)], dim=1)
        # The student is compared with the teacher's bank, and the teacher with the student's.
        loss = self._side(z_s, self.teacher_bank, chosen, 0) + self._side(z_t, self.student_bank, chosen, 1)
        self._update(self.student_bank, z_s, indices)
        self._update(self.teacher_bank, z_t, indices)
        return loss

    def check_indices(self, indices: Tensor) -> None:
        """Check that every image of a batch has its place in the memory banks.

        Raises:
            ValueError: an index outside the training set.
        """
        images = len(self.labels)
        if bool((indices < 0).any()) or bool((indices >= images).any()):
            raise ValueError(
                f"an index of the batch lies outside the memory bank of {images} images "
                f"({int(indices.min())}..{int(indices.max())}): number the training images from 0"
            )

    def _others(self, targets: Tensor) -> Tensor:
        """(B, K) images of other classes, drawn with replacement from this step's own generator."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.step))
        self.step += 1
        shape, images = (len(targets), self.negatives), len(self.labels)
        chosen = torch.randint(images, shape, generator=generator).to(targets.device)
        for _ in range(20):
            clash = self.labels[chosen] == targets[:, None]
            if not bool(clash.any()):
                return chosen
            again = torch.randint(images, shape, generator=generator).to(targets.device)
            chosen = torch.where(clash, again, chosen)
        raise ValueError("no negatives of other classes found: the labels of the memory bank hold one class only")

    def _side(self, anchors: Tensor, bank: Tensor, chosen: Tensor, side: int) -> Tensor:
        scores = torch.exp(_products(anchors, bank[chosen]) / self.temperature)
        if float(self.normaliser[side]) == 0:
            self.normaliser[side] = scores.detach().mean() * len(self.labels)
        scores = scores / self.normaliser[side].clone()  # the buffer changes in place for the other side
        return nce_loss(scores[:, :1], scores[:, 1:], len(self.labels))

    @torch.no_grad()
    def _update(self, bank: Tensor, z: Tensor, indices: Tensor) -> None:
        moved = self.momentum * bank[indices] + (1 - self.momentum) * z.detach().to(bank.dtype)
        bank[indices] = F.normalize(moved, dim=1)
