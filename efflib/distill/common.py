"""What several distillers share: shapes of features, the aligning convolution, warm-ups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models import Features, evaluating, features
from efflib.training import Batch


@dataclass(frozen=True)
class Shapes:
    """Shapes of one network's features, without the batch: stages (C, h, w), width of the pooled vector, classes."""

    stages: tuple[tuple[int, int, int], ...]
    pooled: int
    classes: int

    @property
    def levels(self) -> tuple[tuple[int, int, int], ...]:
        """The stages, and the pooled vector as a C x 1 x 1 map."""
        return (*self.stages, (self.pooled, 1, 1))


def shapes_of(model: nn.Module, sample: Tensor) -> Shapes:
    """Shapes of a network's features for a batch of images; the network is left as it was."""
    with evaluating(model), torch.no_grad():
        found = features(model, sample[:1])
    stages = tuple(tuple(stage.shape[1:]) for stage in found.stages)
    return Shapes(stages, found.pooled.shape[1], found.logits.shape[1])  # type: ignore[arg-type]


def levels(found: Features) -> list[Tensor]:
    """The stages, and the pooled vector as (N, C, 1, 1)."""
    return [*found.stages, found.pooled[:, :, None, None]]


def same_number_of_levels(method: str, student: Shapes, teacher: Shapes) -> None:
    """Check that a method which pairs all levels can do so.

    Raises:
        ValueError: different numbers of stages; names both lists of shapes and what could be done.
    """
    if len(student.stages) != len(teacher.stages):
        raise ValueError(
            f"{method} pairs every stage of the student with one of the teacher, but the student has "
            f"{_listed(student)} and the teacher {_listed(teacher)}: take networks with equally many stages, or a "
            "method that uses one stage (fitnet, ft, ickd) or the logits (kd, dkd)"
        )


def _listed(shapes: Shapes) -> str:
    return f"{len(shapes.stages)} stages ({', '.join('x'.join(map(str, s)) for s in shapes.stages)})"


def same_classes(student: Shapes, teacher: Shapes) -> None:
    """Check that both networks tell the same classes apart.

    Raises:
        ValueError: different numbers of classes.
    """
    if student.classes != teacher.classes:
        raise ValueError(
            f"the student has {student.classes} classes and the teacher {teacher.classes}: build both for the same data"
        )


class Align(nn.Module):
    """1x1 convolution without bias, BN, nearest resize to the teacher's size (PKGD spec, section 2.2).

    Args:
        inputs: (C, h, w) of the student's map.
        outputs: (C, h, w) it is brought to.
    """

    def __init__(self, inputs: tuple[int, int, int], outputs: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = outputs[1:]
        self.conv = nn.Conv2d(inputs[0], outputs[0], 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs[0])
        nn.init.kaiming_uniform_(self.conv.weight, a=1)

    def forward(self, x: Tensor) -> Tensor:
        return resized(self.bn(self.conv(x)), self.size)


def resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Nearest resize of (N, C, h, w), if the size differs."""
    return x if tuple(x.shape[2:]) == tuple(size) else F.interpolate(x, size=tuple(size), mode="nearest")


def warmup(progress: float | Tensor, epochs: float, ahead: int = 0) -> float | Tensor:
    """min(1, (floor(progress) + ahead) / epochs): 1 without a warm-up. DKD counts one ahead (DESIGN section 10)."""
    if epochs <= 0:
        return 1.0
    if isinstance(progress, Tensor):
        return ((progress.floor() + ahead) / epochs).clamp(max=1.0)
    return min(1.0, (math.floor(progress) + ahead) / epochs)


def need_pairs(method: str, count: int, least: int = 2) -> None:
    """Check the size of a batch for a method that compares its images with each other.

    Raises:
        ValueError: too few images.
    """
    if count < least:
        raise ValueError(
            f"{method} compares the images of a batch with each other and needs at least {least}, got {count}: use "
            "drop_last=True or another batch size"
        )


@dataclass(frozen=True)
class PrepareContext:
    """What a method may use before the student is trained.

    `batches(epoch, view)` gives the training set in batches; another view repeats the order with other crops and flips.
    """

    teacher: nn.Module
    batches: Callable[[int, int], Iterable[Batch]]
    device: torch.device


def frozen_eval(module: nn.Module) -> nn.Module:
    """Take a part that is trained beforehand out of training, for good."""
    return module.eval().requires_grad_(False)


class Networks(NamedTuple):
    """What a method gets that runs parts of the networks itself. `images` is the batch; None outside `Distillation`."""

    student: nn.Module
    teacher: nn.Module
    images: Tensor | None = None


class Distiller(nn.Module):
    """What every method is: a Module that owns its trainable extras.

    `teacher_preactivation` says which of the teacher's maps it reads (before the last ReLU of a stage, or after).
    A method that runs parts of the networks itself has `needs_networks`: `create` then calls it with a third argument
    `Networks`, and `Distillation` calls its forward with a sixth, which holds the batch's images too.
    """

    teacher_preactivation = False
    needs_networks = False

    def prepare(self, context: PrepareContext) -> None:
        """Train what must be trained before the student; nothing, for most methods."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Extras trained at another rate than the student, as `efflib.training.fit` takes them; none, for most."""
        return []

    def measure(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        """What is worth knowing about a batch beside the loss, as means over it; nothing, for most methods."""
        return {}
