"""Train and evaluate a classifier: `fit`, `evaluate`, `predict`.

The data set lives on the device as uint8 and each batch is cut, flipped and normalised there. Nothing is read back
inside an epoch: losses add up on the device and come to the host once per epoch. All random choices of epoch e come
from a generator seeded by (seed, e), so that a run which was interrupted, also in the middle of an epoch, and resumed
from its last checkpoint repeats the unbroken run bit for bit on the same machine.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from tqdm.auto import tqdm

from efflib.data import NORMALISATION, ImageSet
from efflib.data.errors import UNREADABLE
from efflib.kernels.augment import affine_normalise, crop_flip_normalise, draw, draw_affine, normalise
from efflib.models import evaluating

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


@dataclass(frozen=True)
class Batch:
    """What a loss sees: images (B, C, H, W) normalised, targets (B,), indices (B,) in the set, progress in epochs.

    The progress is a number, and for a compiled loss a tensor (), whose changing value needs no new compilation.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    progress: float | Tensor


Loss = Callable[[nn.Module, Batch], "Tensor | dict[str, Tensor]"]
# Asked after each epoch with the network in eval mode and the number of finished epochs.
Follow = Callable[[nn.Module, int], "dict[str, Any]"]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """The default loss: mean cross-entropy of the model's logits."""
    return F.cross_entropy(model(batch.images), batch.targets)


class Curriculum:
    """What may decide about order, images, rates or feature maps of a run of `fit`; this one decides nothing.

    `efflib.curricula` has those of the papers; each overrides the hooks that it needs. `progress` counts epochs, as in
    Batch. What a hook does follows from its arguments and the options alone, never from what was called before, so that
    a resumed run repeats an unbroken one; and `repr` tells the options, because a checkpoint belongs to them too.
    """

    def check(self, model: nn.Module, train: ImageSet, recipe: TrainingRecipe) -> None:
        """Called once, before anything is trained.

        Raises:
            ValueError: this curriculum cannot train this network on these images; says what could be done.
        """

    def attached(self, model: nn.Module) -> AbstractContextManager[None]:
        """Around training and the evaluations between its epochs: may put hooks on the network, takes them off."""
        return nullcontext()

    def step(self, progress: float) -> None:
        """Before each batch."""

    def layers(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """Parameters that get rates of their own, as groups; the others follow the recipe."""
        return []

    def factors(self, progress: float, lr: float, count: int) -> list[float]:
        """What the recipe's rate, `lr` at first, is multiplied by in each of the `count` groups of `layers`."""
        return []

    def order(self, order: Tensor, recipe: TrainingRecipe, seed: int, epoch: int) -> Tensor:
        """Positions (N,) in the training set from which an epoch's batches are cut; `order` is the usual one."""
        return order

    def pixels(self, images: Tensor, progress: float, epochs: int) -> Tensor:
        """Training images (B, H, W, C) uint8, before crop, flip and normalisation."""
        return images

    def images(self, images: Tensor, progress: float, epochs: int) -> Tensor:
        """Training images (B, C, H, W) as the network is to see them, normalised; of any size."""
        return images

    def compute_factor(self, side: int) -> float:
        """Cost of an epoch relative to an ordinary one, for images of `side` pixels."""
        return 1.0


@dataclass
class History:
    """Curves of one run, one entry per finished epoch; accuracies in percent, losses as means per image.

    `last` uses no selection; `test_best` is the maximum over epochs on the test set (what most papers print);
    `val_best` is the test accuracy of the epoch that is best on the held-out images (first of equals), None without.
    `seconds` is clock time in all, `epoch_seconds` the training part of each epoch, without its evaluation. `followed`
    holds what the caller of `fit` asked for beside these, by the number of finished epochs.
    """

    test: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    seconds: float = 0.0
    epoch_seconds: list[float] = field(default_factory=list)
    resumed_from: int = 0
    followed: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return len(self.test)

    @property
    def last(self) -> float:
        return self.test[-1]

    @property
    def test_best(self) -> float:
        return max(self.test)

    @property
    def test_best_epoch(self) -> int:
        """Epoch of `test_best`, counting from 1, the first of equals."""
        return int(np.argmax(self.test)) + 1

    @property
    def seconds_per_epoch(self) -> float | None:
        """Median training time of an epoch; the first is left out where there are more: it warms caches up."""
        return float(np.median(self.epoch_seconds[1:] or self.epoch_seconds)) if self.epoch_seconds else None

    @property
    def val_best_epoch(self) -> int | None:
        return int(np.argmax(self.validation)) + 1 if self.validation else None

    @property
    def val_best(self) -> float | None:
        return self.test[self.val_best_epoch - 1] if self.val_best_epoch else None

    def metrics(self) -> dict[str, Any]:
        """The three accuracies, their epochs and the full curves, as a trial record keeps them."""
        return {
            "last": self.last,
            "test_best": self.test_best,
            "test_best_epoch": self.test_best_epoch,
            "val_best": self.val_best,
            "val_best_epoch": self.val_best_epoch,
            "curves": {"test": self.test, "validation": self.validation, "lr": self.rates, **self.losses},
        }


class ForeignCheckpoint(ValueError):
    """A checkpoint of another run: other recipe, seed, precision, training images, curriculum, network or loss."""


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """ "auto" takes CUDA where there is one, else the CPU.

    Raises:
        ValueError: not the name of a device, or a CUDA device that is not here.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}: give 'auto', 'cpu', 'cuda' or 'cuda:<number>'") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"no device {str(device)!r} here, torch sees {count} CUDA devices: give 'auto' or 'cpu'")
    return chosen


def pick_precision(precision: str = "auto", device: torch.device | str = "cpu") -> str:
    """ "auto" takes bf16 autocast where the hardware has bf16 arithmetic, else fp32.

    "fp64" is for canaries and tests: in it, machines agree in all but the last of 16 digits.

    Raises:
        ValueError: anything but auto, bf16, fp32 or fp64.
    """
    if precision not in ("auto", "bf16", "fp32", "fp64"):
        raise ValueError(f"precision must be 'auto', 'bf16', 'fp32' or 'fp64', got {precision!r}")
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if any(capability.get(name, False) for name in ("avx512_bf16", "amx_bf16")) else "fp32"


class DeviceSet:
    """An ImageSet as tensors on the device: images uint8 (N, H, W, C), labels and indices int64 (N,)."""

    def __init__(self, data: ImageSet, device: torch.device):
        self.images = torch.from_numpy(np.ascontiguousarray(data.images)).to(device)
        self.labels = torch.from_numpy(np.ascontiguousarray(data.labels)).to(device)
        self.indices = torch.from_numpy(np.ascontiguousarray(data.indices)).to(device)

    def __len__(self) -> int:
        return len(self.labels)


def normalisation(recipe: TrainingRecipe, data: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) that the recipe prescribes for this data set.

    Raises:
        ValueError: the recipe leaves it to a data set that has no constants of its own.
    """
    if recipe.normalisation != "dataset":
        return recipe.normalisation
    if data.name not in NORMALISATION:
        raise ValueError(
            f"no normalisation is known for {data.name!r} (known: {', '.join(sorted(NORMALISATION))}): "
            "give the recipe normalisation=(mean, std)"
        )
    return NORMALISATION[data.name]


def fit(
    model: nn.Module,
    train: ImageSet,
    test: ImageSet,
    validation: ImageSet | None = None,
    recipe: TrainingRecipe | str = "cifar_rd",
    loss: Loss = cross_entropy,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    progress: bool | None = None,
    description: str = "training",
    curriculum: Curriculum | None = None,
    follow: Follow | None = None,
    compiled: bool = False,
) -> History:
    """Train a classifier and follow its accuracy on the test set (and the held-out images) after every epoch.

    Args:
        model: network to train in place; moved to the device, channels-last. Its initial weights are the caller's.
        train: training images, uint8; they are kept on the device.
        test: test images; read for the curve only, nothing is selected on them.
        validation: held-out training images, or None.
        recipe: a TrainingRecipe, or the name of one ("cifar_rd", "cifar_lr") at its full length.
        loss: called with (model, Batch); returns the loss or a dict of named terms that add up to it. If it is a
            Module, it is moved to the device, and its parameters are trained and checkpointed too. If it has a method
            `parameter_groups()`, each dict that this returns becomes a group of the optimiser: "params", "lr_factor"
            (times the recipe's rate, 1 if left out) and "weight_decay" (the recipe's if left out).
        seed: fixes order, crops, flips and dropout.
        checkpoint: file to resume from and to write after each epoch, or None.
        device: "auto", "cpu", "cuda", ...
        precision: "auto", "bf16" (autocast), "fp32" or "fp64".
        progress: a bar with the time left; None shows one on a terminal or in a notebook only.
        description: label of the bar.
        curriculum: of `efflib.curricula`, or None.
        follow: called after each epoch with the network in eval mode and the number of finished epochs; what it
            returns (plain numbers, lists and dicts), if anything, is kept in `History.followed`, also in checkpoints.
        compiled: run network, loss and gradient through `torch.compile`, on CUDA replayed as CUDA graphs. The first
            step then takes up to minutes, and results differ by rounding (with dropout, also by other draws). A loss
            that differentiates twice (`diswot_plus`) cannot be compiled.

    Returns:
        History; the model holds the weights of the last epoch and is left in eval mode.

    Raises:
        FloatingPointError: a loss (or, after the last step, a weight) that is not finite, with its epoch.
        ValueError: an empty set, an unknown recipe or device, labels beyond the model's classes, parameter groups that
            make no sense, or a curriculum that does not fit the network or the images.
        ForeignCheckpoint: the checkpoint belongs to another run (a ValueError too).
    """
    recipe = _named(recipe)
    device = pick_device(device)
    precision = pick_precision(precision, device)
    run = _Run(model, train, test, validation, recipe, loss, seed, device, precision, curriculum, follow, compiled)
    history = run.restore(checkpoint)
    started = time.perf_counter() - history.seconds
    shown = tqdm(**_bar(run, history, recipe.epochs, progress, description))
    with torch.random.fork_rng(), run.curriculum.attached(model), shown as bar:
        for epoch in range(history.epochs, recipe.epochs):
            run.epoch(epoch, history, bar)
            history.seconds = time.perf_counter() - started
            if checkpoint is not None:
                run.save(checkpoint, history)
    model.eval()
    _check_weights(model, history)
    if not history.test:  # a recipe of zero epochs measures the model as it came
        history.test.append(run.accuracy(run.test))
        if run.validation is not None:
            history.validation.append(run.accuracy(run.validation))
    return history


def epoch_batches(
    data: DeviceSet,
    recipe: TrainingRecipe,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    epoch: int,
    view: int = 0,
    curriculum: Curriculum | None = None,
) -> Iterator[Batch]:
    """Batches of one epoch: order, crops, flips, turns and zooms are drawn at once from the epoch's own generator.

    Args:
        data: the training set on its device.
        recipe: batch size, augmentation and whether the last, smaller batch is dropped.
        mean, std: normalisation constants.
        seed, epoch: fix the order and the augmentation.
        view: another number gives the same order with another augmentation.
        curriculum: its hooks `order` and `pixels` are asked; the images keep their size.
    """
    N, B = len(data), recipe.batch_size
    curriculum = curriculum or Curriculum()
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch, "data"))
    device = data.images.device
    order = curriculum.order(torch.randperm(N, generator=generator), recipe, seed, epoch).to(device)
    if view:
        generator.manual_seed(derived_seed(seed, epoch, f"view {view}"))
    changed = _augmentation(recipe, N, generator, device)
    steps = recipe.steps(N)
    for step in range(steps):
        chosen = order[step * B : (step + 1) * B]
        cut = slice(step * B, step * B + len(chosen))
        progress = epoch + step / steps
        pixels = curriculum.pixels(data.images[chosen], progress, recipe.epochs)
        images = changed(pixels, cut, mean, std)
        yield Batch(images, data.labels[chosen], data.indices[chosen], progress)


def _augmentation(
    recipe: TrainingRecipe, count: int, generator: torch.Generator, device: torch.device
) -> Callable[[Tensor, slice, Sequence[float], Sequence[float]], Tensor]:
    """Draws for a whole epoch; (uint8 pixels, their places in its order as a slice, mean, std) -> images."""
    if recipe.augment in AFFINE:
        angles, zooms, mirrored = draw_affine(count, **AFFINE[recipe.augment], generator=generator, device=device)
        return lambda pixels, cut, mean, std: affine_normalise(
            pixels, angles[cut], zooms[cut], mirrored[cut], mean, std
        )
    pad = 0 if recipe.augment == "none" else recipe.pad
    offsets, flips = draw(count, pad, recipe.augment == "crop_flip", generator, device)
    return lambda pixels, cut, mean, std: crop_flip_normalise(pixels, offsets[cut], flips[cut], mean, std, pad)


class _Run:
    """State of one `fit` call: the sets on the device, the optimiser, and one epoch of work."""

    def __init__(
        self,
        model,
        train,
        test,
        validation,
        recipe,
        loss,
        seed,
        device,
        precision,
        curriculum=None,
        follow=None,
        compiled=False,
    ):
        _check_sets(train, test, validation)
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        self.model = model.to(device, self.dtype, memory_format=torch.channels_last)
        if isinstance(loss, nn.Module):
            loss.to(device, self.dtype).to(memory_format=torch.channels_last)
        self.loss, self.recipe, self.seed, self.device, self.precision = loss, recipe, seed, device, precision
        self.curriculum, self.follow = curriculum or Curriculum(), follow
        self.objective = _compiled(loss, device) if compiled else loss
        self.mean, self.std = normalisation(recipe, train)
        self.train, self.test = DeviceSet(train, device), DeviceSet(test, device)
        self.validation = DeviceSet(validation, device) if validation is not None else None
        self.optimiser = _optimiser(recipe, self._groups(), device)
        self.identity = _identity(recipe, seed, precision, train, repr(curriculum) if curriculum else "")
        self._check(train)

    def _check(self, train: ImageSet) -> None:
        """Mistakes that would otherwise show as an error from deep inside the first epoch."""
        if self.steps == 0:
            raise ValueError(
                f"{len(self.train)} training images give no whole batch of {self.recipe.batch_size}, and the recipe "
                "drops the last: make the batch smaller, or set drop_last=False"
            )
        first = DeviceSet(train.take([0]), self.device)
        classes = _logits(self.model, first, self.mean, self.std, self.precision).shape[1]
        sets = [data for data in (self.train, self.test, self.validation) if data is not None]
        highest = max(int(data.labels.max()) for data in sets)
        if highest >= classes:
            raise ValueError(f"the model has {classes} classes, but there are labels up to {highest}")
        self.curriculum.check(self.model, train, self.recipe)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser: first what nobody claims, then the curriculum's, then the loss's own."""
        parameters = {id(parameter): parameter for parameter in self._parameters()}
        paced = [{"params": params, "lr_factor": 1.0} for params in self.curriculum.layers(self.model)]
        groups = [*paced, *_groups_of(self.loss)]
        self.paced = len(paced)
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
            for parameter in group["params"]:
                if parameters.pop(id(parameter), None) is None:
                    raise ValueError(
                        f"a parameter of shape {tuple(parameter.shape)} is in two parameter groups, or in none of the "
                        "modules that are trained (the model and the loss): name each of theirs once at most"
                    )
        return [{"params": list(parameters.values()), "lr_factor": 1.0}, *groups]

    def _parameters(self) -> Iterator[nn.Parameter]:
        modules = [self.model, self.loss] if isinstance(self.loss, nn.Module) else [self.model]
        return (p for module in modules for p in module.parameters() if p.requires_grad)

    @property
    def steps(self) -> int:
        return self.recipe.steps(len(self.train))

    def epoch(self, epoch: int, history: History, bar: tqdm) -> None:
        """One pass over the training set, then the accuracies; appends to the history."""
        started = time.perf_counter()
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = group["lr_factor"] * self.recipe.rate(epoch)
        torch.manual_seed(derived_seed(self.seed, epoch, "layers"))  # dropout
        totals: dict[str, Tensor] = {}
        for batch in self._batches(epoch):
            self._pace(float(batch.progress))
            for name, value in self._step(batch).items():
                totals[name] = totals.get(name, 0) + value.detach() * len(batch.targets)
            bar.update()
        seen = self.steps * self.recipe.batch_size if self.recipe.drop_last else len(self.train)
        losses = {name: float(total) / seen for name, total in totals.items()}  # waits for the device
        history.epoch_seconds.append(time.perf_counter() - started)
        self._record(epoch, losses, history, bar)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        batches = epoch_batches(
            self.train, self.recipe, self.mean, self.std, self.seed, epoch, curriculum=self.curriculum
        )
        for batch in batches:
            images = batch.images.to(self.dtype)
            yield replace(batch, images=self.curriculum.images(images, float(batch.progress), self.recipe.epochs))

    def _pace(self, progress: float) -> None:
        """What the curriculum changes from one batch to the next: feature maps and rates."""
        self.curriculum.step(progress)
        common = self.recipe.rate(int(progress))
        factors = self.curriculum.factors(progress, self.recipe.lr, self.paced)
        for group, factor in zip(self.optimiser.param_groups[1:], factors):
            group["lr"] = factor * common

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            value = self.objective(self.model, batch)
        terms = value if isinstance(value, dict) else {"cross_entropy": value}
        total = torch.stack([term.to(self.dtype) for term in terms.values()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        return {**terms, "loss": total}

    def _record(self, epoch: int, losses: dict[str, float], history: History, bar: tqdm) -> None:
        if not np.isfinite(losses["loss"]):
            raise FloatingPointError(
                f"the training loss is {losses['loss']} in epoch {epoch + 1} (lr {self.recipe.rate(epoch)}): "
                "the run diverged; lower the learning rate or use precision='fp32'"
            )
        for name, value in losses.items():
            history.losses.setdefault(f"train_{name}", []).append(value)
        history.rates.append(self.recipe.rate(epoch))
        history.test.append(self.accuracy(self.test))
        if self.validation is not None:
            history.validation.append(self.accuracy(self.validation))
        if self.follow is not None:
            self.model.eval()
            if found := self.follow(self.model, epoch + 1):
                history.followed[epoch + 1] = found
        bar.set_postfix_str(f"epoch {epoch + 1}/{self.recipe.epochs}, test {history.last:.2f} %")

    def accuracy(self, data: DeviceSet) -> float:
        logits = _logits(self.model, data, self.mean, self.std, self.precision)
        return float((logits.argmax(dim=1) == data.labels).double().mean() * 100)

    def save(self, path: str | Path, history: History) -> None:
        state = {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": asdict(history),
        }
        if isinstance(self.loss, nn.Module):
            state["loss"] = self.loss.state_dict()
        save_atomically(state, Path(path))

    def restore(self, path: str | Path | None) -> History:
        """History so far from a checkpoint; an unreadable file is set aside, a foreign one is an error."""
        state = load_or_set_aside(Path(path), self.device) if path is not None else None
        if state is None:
            return History()
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            raise ForeignCheckpoint(
                f"checkpoint {path} belongs to another run (other recipe, seed, precision, training set or "
                "curriculum): remove it, or give this run a file of its own"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if isinstance(self.loss, nn.Module):
                self.loss.load_state_dict(state["loss"])
            history = History(**state["history"])
        except (RuntimeError, ValueError, KeyError, TypeError) as problem:
            why = str(problem).splitlines()[0]
            raise ForeignCheckpoint(f"checkpoint {path} holds another network or loss ({why}): remove it") from problem
        history.resumed_from = history.epochs
        return history


def evaluate(
    model: nn.Module,
    data: ImageSet,
    recipe: TrainingRecipe | str = "cifar_rd",
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> float:
    """Accuracy of a model on a data set, in percent.

    Args:
        model: network in any mode; its mode and weights stay as they are.
        data: images with labels.
        recipe: only its normalisation is used.
        device, precision: as in `fit`.

    Raises:
        ValueError: an empty data set.
    """
    logits = predict(model, data, recipe, device, precision)
    labels = torch.from_numpy(np.ascontiguousarray(data.labels))
    return float((logits.argmax(dim=1) == labels).double().mean() * 100)


def predict(
    model: nn.Module,
    data: ImageSet,
    recipe: TrainingRecipe | str = "cifar_rd",
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Tensor:
    """Logits (N, classes), float32 on the CPU, of a model in eval mode; arguments as in `evaluate`."""
    if len(data) == 0:
        raise ValueError(f"{data.name} ({data.split}) is empty: nothing to evaluate")
    device = pick_device(device)
    model = model.to(device).to(memory_format=torch.channels_last)
    mean, std = normalisation(_named(recipe), data)
    with evaluating(model):
        return _logits(model, DeviceSet(data, device), mean, std, pick_precision(precision, device)).cpu()


def _logits(model: nn.Module, data: DeviceSet, mean, std, precision: str, batch_size: int = 0) -> Tensor:
    """Logits of all images in eval mode. On a CPU 128 images at once stay in its cache: 20 % faster than 500."""
    batch_size = batch_size or (128 if data.images.device.type == "cpu" else 1_000)
    model.eval()
    dtype = next(model.parameters()).dtype
    parts = []
    with (
        torch.no_grad(),
        torch.autocast(data.images.device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        for images in data.images.split(batch_size):
            parts.append(model(normalise(images, mean, std).to(dtype)).float())
    return torch.cat(parts)


def freeze(*modules: nn.Module, statistics: bool = True) -> None:
    """Keep modules from being trained, for good.

    Args:
        modules: their parameters no longer ask for gradients.
        statistics: also keep them in eval mode whatever `train()` says, so that batch norm uses and keeps its running
            statistics. False lets these follow the batches, which changes what a "frozen" network computes.
    """
    for module in modules:
        module.requires_grad_(False)
        if statistics:
            module.eval()
            # On this one instance: `fit` calls train() on the whole network at the start of every epoch.
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,misc]


@contextmanager
def seeded(seed: int, purpose: str = "init") -> Iterator[None]:
    """Run a block under its own random state: same seed, same initial weights, the caller's state untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, 0, purpose))
        yield


def derived_seed(seed: int, epoch: int, purpose: str) -> int:
    """A 63-bit seed for one purpose in one epoch of a run."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_or_set_aside(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """State of a checkpoint; None where there is none. A broken file is renamed `<name>.broken`, with a warning."""
    if not path.exists():
        return None
    try:
        _check_sums(path)
        return torch.load(path, map_location=device, weights_only=True)
    except UNREADABLE as problem:
        broken = path.with_name(path.name + ".broken")
        os.replace(path, broken)
        tqdm.write(f"checkpoint {path.name} cannot be read ({problem}); set aside as {broken.name}, starting anew")
        return None


def _check_sums(path: Path) -> None:
    """torch.load does not compare the checksums that the file holds: a flipped bit would pass unnoticed."""
    with zipfile.ZipFile(path) as archive:
        altered = archive.testzip()
    if altered is not None:
        raise zipfile.BadZipFile(f"{altered} has a wrong checksum")


def _check_weights(model: nn.Module, history: History) -> None:
    """The loss shows a diverged step only at the next one; this sees the last."""
    if not all(bool(torch.isfinite(value).all()) for value in model.state_dict().values()):
        raise FloatingPointError(
            f"weights are not finite at the end of epoch {history.epochs}: the run diverged; lower the learning rate"
        )


def _named(recipe: TrainingRecipe | str) -> TrainingRecipe:
    if isinstance(recipe, TrainingRecipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"unknown training recipe {recipe!r}; known: {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe]()  # type: ignore[call-arg]


def _check_sets(train: ImageSet, test: ImageSet, validation: ImageSet | None) -> None:
    for name, data in (("train", train), ("test", test), ("validation", validation)):
        if data is not None and len(data) == 0:
            raise ValueError(f"the {name} set is empty")
        if data is not None and data.images.shape[1:] != train.images.shape[1:]:
            raise ValueError(
                f"{name} images {data.images.shape[1:]} differ in shape from training images {train.images.shape[1:]}"
            )


def _compiled(loss: Loss, device: torch.device) -> Loss:
    """The loss with its network as compiled graphs; on CUDA they are replayed without a launch per kernel."""
    graphs = torch.compile(loss, mode="reduce-overhead" if device.type == "cuda" else None)

    def step(model: nn.Module, batch: Batch) -> Tensor | dict[str, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        # A number would be compiled in, and every step would need a graph of its own.
        progress = torch.full((), float(batch.progress), dtype=torch.float64, device=device)
        return graphs(model, replace(batch, progress=progress))

    return step


def _optimiser(recipe: TrainingRecipe, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": device.type == "cuda"}
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, betas=(recipe.momentum, 0.999), eps=recipe.eps, **common)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, **common)


def _groups_of(loss: Loss) -> list[dict[str, Any]]:
    """The parameter groups that a loss asks for, checked; none for most losses.

    Raises:
        ValueError: a key that is not known, or a number out of range.
    """
    if not isinstance(loss, nn.Module) or not hasattr(loss, "parameter_groups"):
        return []
    groups = [{"lr_factor": 1.0, **group} for group in loss.parameter_groups()]  # type: ignore[operator]
    for group in groups:
        unknown = group.keys() - {"params", "lr_factor", "weight_decay"}
        if unknown or "params" not in group:
            raise ValueError(
                f"a parameter group of {type(loss).__name__} has the keys {', '.join(sorted(group))}: "
                "give params, and lr_factor and weight_decay if they differ from the recipe's"
            )
        for name in ("lr_factor", "weight_decay"):
            if not 0 <= group.get(name, 0) < float("inf"):
                raise ValueError(f"{name}={group[name]} of {type(loss).__name__}: give a number of at least 0")
    return groups


def _identity(recipe: TrainingRecipe, seed: int, precision: str, train: ImageSet, curriculum: str) -> str:
    """What a checkpoint belongs to: recipe, seed, precision, curriculum and the very training images in order."""
    chosen = recipe.model_dump_json(exclude_defaults=True)  # a new option renames no checkpoint
    digest = hashlib.sha256(f"{chosen}/{seed}/{precision}/{train.fingerprint}{curriculum}".encode())
    digest.update(np.ascontiguousarray(train.indices).tobytes())
    digest.update(np.ascontiguousarray(train.images).data)
    return digest.hexdigest()


def _bar(run: _Run, history: History, epochs: int, progress: bool | None, description: str) -> dict[str, Any]:
    disable = None if progress is None else not progress
    left = max(epochs - history.epochs, 0) * run.steps
    return {
        "total": left,
        "desc": description,
        "unit": "step",
        "leave": False,
        "disable": disable,
        "mininterval": 0.5,
    }
