"""ReviewKD: a teacher level is matched by the student's levels from there on, fused deep to shallow (Chen 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, Shapes, levels, resized, same_number_of_levels, warmup
from efflib.kernels import hcl_loss
from efflib.models import Features

MIDDLE = 512  # the fusion works on at most so many channels

Size = tuple[int, int, int]


class Fusion(nn.Module):
    """One fusion block (PKGD spec, section 4.3): gates mix this level with what comes from its neighbour.

    x' = BN(conv1x1(x)); with a neighbour y: y' = y resized, [a, b] = sigmoid(conv1x1([x', y'])), r = a x' + b y';
    r is resized to the output's size; out = BN(conv3x3(r)). Hands on (out, r).
    """

    def __init__(self, inputs: int, middle: int, outputs: Size, gated: bool) -> None:
        super().__init__()
        self.size = outputs[1:]
        self.inward = nn.Sequential(nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.outward = nn.Sequential(
            nn.Conv2d(middle, outputs[0], 3, padding=1, bias=False), nn.BatchNorm2d(outputs[0])
        )
        self.gate = nn.Conv2d(2 * middle, 2, 1) if gated else None
        for branch in (self.inward, self.outward):
            nn.init.kaiming_uniform_(branch[0].weight, a=1)  # type: ignore[arg-type]

    def forward(self, x: Tensor, neighbour: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mixed = self.inward(x)
        if self.gate is not None and neighbour is not None:
            other = resized(neighbour, mixed.shape[2:])
            gates = torch.sigmoid(self.gate(torch.cat([mixed, other], dim=1)))
            mixed = gates[:, :1] * mixed + gates[:, 1:] * other
        mixed = resized(mixed, self.size)
        return self.outward(mixed), mixed


class Chain(nn.Module):
    """Fusion blocks along all levels, from deep to shallow (review) or from shallow to deep (preview).

    Args:
        inputs: channels per level, shallow to deep.
        middle: channels inside the blocks.
        outputs: (C, h, w) per level.
        deep_first: review if True.
    """

    def __init__(self, inputs: tuple[int, ...], middle: int, outputs: tuple[Size, ...], deep_first: bool) -> None:
        super().__init__()
        count = len(inputs)
        self.order = list(range(count - 1, -1, -1)) if deep_first else list(range(count))
        blocks = [Fusion(inputs[i], middle, outputs[i], gated=i != self.order[0]) for i in range(count)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        out: dict[int, Tensor] = {}
        handed: Tensor | None = None
        for level in self.order:
            out[level], handed = self.blocks[level](maps[level], handed)
        return [out[level] for level in range(len(maps))]


def review_chain(student: Shapes, teacher: Shapes) -> Chain:
    """ReviewKD's chain: student levels in, teacher shapes out."""
    inputs = tuple(C for C, _, _ in student.levels)
    return Chain(inputs, middle_of(student), teacher.levels, deep_first=True)


def middle_of(student: Shapes) -> int:
    """min(512, channels of the student's last tap)."""
    return min(MIDDLE, student.levels[-1][0])


class ReviewKD(Distiller):
    """CE + feature_weight warm-up HCL(review chain of the student, teacher levels before their last ReLU).

    Args:
        student, teacher: feature shapes.
        feature_weight: 0.6 to 8 by pair (PKGD spec, section 4.2); 1 by default.
        warmup_epochs: the feature loss grows from 0 over so many epochs.
    """

    teacher_preactivation = True

    def __init__(
        self, student: Shapes, teacher: Shapes, *, feature_weight: float = 1.0, warmup_epochs: float = 20
    ) -> None:
        super().__init__()
        same_number_of_levels("reviewkd", student, teacher)
        self.feature_weight, self.warmup_epochs = feature_weight, warmup_epochs
        self.review = review_chain(student, teacher)

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        context = hcl_loss(self.review(levels(student)), levels(teacher))
        growth = self.feature_weight * warmup(progress, self.warmup_epochs)
        return {"cross_entropy": F.cross_entropy(student.logits, targets), "feature": growth * context}
