"""How a network is trained, as data: `TrainingRecipe`, and the papers' recipes by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Augment = Literal["crop_flip", "crop", "flip_affine", "flip_affine_wide", "none"]
# Ranges of `draw_affine` that an `augment` of `TrainingRecipe` stands for.
AFFINE: dict[str, dict[str, Any]] = {
    "flip_affine": {"degrees": 15.0, "zoom": 0.1},
    "flip_affine_wide": {"degrees": 36.0, "zoom": 0.2, "vertical": True},
}


class TrainingRecipe(BaseModel):
    """How a network is trained: SGD with momentum and a step schedule, as classifiers are in all CIFAR papers here.

    Epochs are passes over the training set handed to `fit`. At each milestone (a number of finished epochs) the
    learning rate is multiplied by `gamma`; schedule "cosine" lets it fall from `lr` towards 0 instead, epoch by epoch.
    With "adam", `momentum` is the first of its two decay rates, the second is 0.999, `eps` its stabiliser, and weight
    decay is added to the gradient. `augment` "flip_affine" flips half of the images, turns them by up to 15 degrees and
    zooms them by up to a tenth; "flip_affine_wide" also mirrors half of them top to bottom, turns by up to 36 degrees
    and zooms by up to a fifth (both: decision D13 of the DisWOT spec). The crops of the others are cut from a black
    border of `pad` pixels. `normalisation` is "dataset" for the set's own constants, else (mean, std).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(ge=0)
    lr: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)
    batch_size: int = Field(default=64, ge=1)
    milestones: tuple[int, ...] = ()
    gamma: float = Field(default=0.1, gt=0)
    augment: Augment = "crop_flip"
    pad: int = Field(default=4, ge=0)
    drop_last: bool = False
    normalisation: Literal["dataset"] | tuple[tuple[float, ...], tuple[float, ...]] = "dataset"
    optimiser: Literal["sgd", "adam"] = "sgd"
    schedule: Literal["step", "cosine"] = "step"
    eps: float = Field(default=1e-8, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingRecipe:
        if self.schedule == "cosine" and self.milestones:
            raise ValueError(f"a cosine schedule has no milestones, got {self.milestones}: leave them out")
        if self.optimiser == "adam" and self.nesterov:
            raise ValueError("adam has no Nesterov momentum here: leave nesterov out")
        if self.optimiser == "sgd" and self.eps != 1e-8:
            raise ValueError("sgd has no eps: leave it out")
        return self

    def rate(self, epoch: int) -> float:
        """Learning rate during epoch `epoch`, counting from 0."""
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)

    def steps(self, images: int) -> int:
        """Batches in an epoch over so many images."""
        whole, rest = divmod(images, self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1


def milestones(epochs: int, fractions: tuple[float, ...]) -> tuple[int, ...]:
    """Fractions of a run as whole epochs, rounded half up (DESIGN section 3.1)."""
    return tuple(int(epochs * fraction + 0.5) for fraction in fractions)


def cifar_rd(epochs: int = 240) -> TrainingRecipe:
    """RepDistiller's CIFAR recipe: lr 0.05, drops at 62.5, 75 and 87.5 % (150, 180, 210 of 240 epochs)."""
    return TrainingRecipe(epochs=epochs, milestones=milestones(epochs, (0.625, 0.75, 0.875)))


def cifar_lr(epochs: int = 200) -> TrainingRecipe:
    """LeRaC's and CBS's CIFAR recipe: lr 0.1, drops at 15, 30 and 45 %, no augmentation, mean = std = 0.5."""
    half = (0.5, 0.5, 0.5)
    drops = milestones(epochs, (0.15, 0.3, 0.45))
    return TrainingRecipe(epochs=epochs, lr=0.1, milestones=drops, augment="none", normalisation=(half, half))


def cifar_review(epochs: int = 240) -> TrainingRecipe:
    """ReviewKD's CIFAR recipe: batches of 128, lr 0.1, Nesterov, drops at 62.5, 75 and 87.5 % of the epochs."""
    drops = milestones(epochs, (0.625, 0.75, 0.875))
    return TrainingRecipe(epochs=epochs, lr=0.1, nesterov=True, batch_size=128, milestones=drops)


def tiny_imagenet(epochs: int = 300) -> TrainingRecipe:
    """PKGD's Tiny ImageNet recipe: batches of 128, lr 0.1, Nesterov, x0.2 at 30, 50, 70 and 90 %, crops 64 of 80."""
    drops = milestones(epochs, (0.3, 0.5, 0.7, 0.9))
    return TrainingRecipe(epochs=epochs, lr=0.1, nesterov=True, batch_size=128, milestones=drops, gamma=0.2, pad=8)


def encodenet_base(epochs: int = 300) -> TrainingRecipe:
    """EncodeNet's baselines: lr 0.1, weight decay 1e-4 (both printed); the drops at half and 3/4 are ours."""
    drops = milestones(epochs, (0.5, 0.75))
    return TrainingRecipe(epochs=epochs, lr=0.1, weight_decay=1e-4, batch_size=128, milestones=drops)


def encodenet_attention(epochs: int = 200) -> TrainingRecipe:
    """Recipe of attention modules on CIFAR-100 (GAM's authors' NAM code): lr 0.1, x0.2 at 30, 60 and 80 %."""
    drops = milestones(epochs, (0.3, 0.6, 0.8))
    return TrainingRecipe(epochs=epochs, lr=0.1, batch_size=128, milestones=drops, gamma=0.2)


RECIPES: dict[str, Callable[[int], TrainingRecipe]] = {
    "cifar_rd": cifar_rd,
    "cifar_lr": cifar_lr,
    "cifar_review": cifar_review,
    "tiny_imagenet": tiny_imagenet,
    "encodenet_base": encodenet_base,
    "encodenet_attention": encodenet_attention,
}


def named(recipe: TrainingRecipe | str) -> TrainingRecipe:
    """A recipe as it is, or the one of a name with its own number of epochs.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if isinstance(recipe, TrainingRecipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"unknown training recipe {recipe!r}; known: {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe]()  # type: ignore[call-arg]
