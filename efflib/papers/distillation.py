"""The recipe `distill`: a student trained beside a frozen teacher, by any method. All papers share its trials."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from efflib.data import ImageSet, load_dataset
from efflib.distill import METHODS, Distillation, Distiller, PrepareContext, create, options_of
from efflib.kernels.augment import normalise
from efflib.models import count_macs, create_model, evaluating, features, list_models
from efflib.models.measure import count_flops
from efflib.papers.baselines import (
    CANARY_SETTINGS,
    SIZES,
    ClassifierConfig,
    canary_context,
    data_read,
    frozen_flops,
    new_model,
    planned_images,
    split,
    trained,
)
from efflib.papers.features import labels_of
from efflib.training import Batch, DeviceSet, derived_seed, epoch_batches, normalisation, seeded
from efflib.trials.recipes import Context, Outcome, recipe

Options = dict[str, float | int | str | bool]


class DistillConfig(ClassifierConfig):
    """A student (`model`, `training`, `seed`, data: as a baseline's), its teacher's network, and the method.

    `options` are the method's own, see its class in `efflib.distill`; what is left out keeps its default. The teacher's
    weights come from the parent trial in the role "teacher".
    """

    method: str
    options: Options = Field(default_factory=dict)
    teacher_model: str
    teacher_options: Options = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_names(self) -> DistillConfig:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; known: {', '.join(sorted(METHODS))}")
        if self.teacher_model not in list_models():
            raise ValueError(f"unknown teacher_model {self.teacher_model!r}; known: {', '.join(list_models())}")
        known = {*options_of(self.method)} - {"labels", "seed"}
        unknown = set(self.options) - known
        if unknown:
            valid = ", ".join(sorted(known)) or "none"
            raise ValueError(f"unknown options of {self.method}: {', '.join(sorted(unknown))}; valid: {valid}")
        return self


def _method(config: DistillConfig, student: nn.Module, teacher: nn.Module, labels: torch.Tensor) -> Distiller:
    """The configuration's method with the initial weights of its seed; memory banks get the training labels."""
    given: dict[str, Any] = {"labels": labels, "seed": config.seed}
    known = {name: value for name, value in given.items() if name in options_of(config.method)}
    side, channels = SIZES[config.dataset][2:]
    with seeded(config.seed, "distiller"):
        return create(config.method, student, teacher, torch.zeros(1, channels, side, side), **known, **config.options)


@dataclass(frozen=True)
class Work:
    """Forward FLOPs per image of each part (2 per MAC), and all FLOPs per image and epoch of the preparation.

    `frozen` is the part of the student that is not trained.
    """

    student: float
    teacher: float
    modules: float
    preparation: float
    frozen: float = 0.0

    @property
    def step(self) -> float:
        """Training FLOPs per image: three forward passes' worth for what is trained, one for what is frozen."""
        return 3 * self.student - 2 * self.frozen + self.teacher + 3 * self.modules


def work_of(config: DistillConfig) -> Work:
    """What one image costs, counted by running the very networks and modules on two blank images."""
    options = [tuple(sorted(each.items())) for each in (config.options, config.model_options, config.teacher_options)]
    work = _work(config.dataset, config.method, options[0], config.model, options[1], config.teacher_model, options[2])
    return replace(work, frozen=frozen_flops(config))


@cache
def _work(
    dataset: str,
    method: str,
    options: tuple[tuple[str, Any], ...],
    model: str,
    model_options: tuple[tuple[str, Any], ...],
    teacher_model: str,
    teacher_options: tuple[tuple[str, Any], ...],
) -> Work:
    student, teacher = _blank(model, model_options), _blank(teacher_model, teacher_options)
    side, channels = SIZES[dataset][2:]
    batch = _blank_batch(side, channels)
    config = DistillConfig.model_construct(method=method, options=dict(options), dataset=dataset, seed=0)
    distiller = _method(config, student, teacher, torch.arange(SIZES[dataset][0]) % 10)
    loss = Distillation(distiller, teacher)
    total = count_flops(lambda: loss(student, batch)) / len(batch.images)
    own, guide = (2.0 * count_macs(network, side, channels) for network in (student, teacher))
    return Work(own, guide, total - own - guide, _preparation(config, student, teacher, batch))


@cache
def _blank(model: str, options: tuple[tuple[str, Any], ...]) -> nn.Module:
    with seeded(0):
        return create_model(model, 10, **dict(options)).eval()


def _blank_batch(side: int, channels: int) -> Batch:
    # Far past every warm-up; class 1 twice, as supervised contrastive training needs pairs.
    images = torch.zeros(2, channels, side, side)
    return Batch(images, torch.ones(2, dtype=torch.int64), torch.arange(2), progress=1e6)


def _preparation(config: DistillConfig, student: nn.Module, teacher: nn.Module, batch: Batch) -> float:
    if "prepare_epochs" not in lengths_of(config.method):
        return 0.0
    one = config.model_copy(update={"options": {**config.options, "prepare_epochs": 1}})
    method = _method(one, student, teacher, batch.targets)
    context = PrepareContext(teacher, lambda epoch, view: [batch], torch.device("cpu"))
    return count_flops(lambda: method.prepare(context)) / len(batch.images)


def lengths_of(method: str) -> dict[str, float]:
    """Options of a method that are lengths in epochs, with their defaults, which are stated for 240 epochs."""
    parameters = inspect.signature(METHODS[method].__init__).parameters
    return {name: parameters[name].default for name in ("warmup_epochs", "prepare_epochs") if name in parameters}


def distill_flops(config: DistillConfig, images: int, evaluated: int) -> float:
    """FLOPs of the preparation, of training on `images` and of evaluating on `evaluated` images per epoch."""
    work = work_of(config)
    each_epoch = work.step * images + work.student * evaluated
    prepared = {**lengths_of(config.method), **config.options}.get("prepare_epochs", 0)
    return each_epoch * config.training.epochs + work.preparation * images * float(prepared)


def _planned(config: DistillConfig) -> float:
    return distill_flops(config, *planned_images(config))


# Canary of each method: shapes are those of the digits (8 px), so that all of them take seconds together.
_CANARY_METHODS: dict[str, tuple[str, Options]] = {
    **{name: (name, {}) for name in sorted(METHODS)},
    "crd": ("crd", {"negatives": 64}),
    "sakd": ("sakd", {"negatives": 64}),
    "pkgd_code": ("pkgd", {"mlff_side": "student", "score": "l2", "qkv_conv": True, "residual": "normed"}),
    "pkgd_drawn": ("pkgd", {"ddag_trainable": False, "ddag_resample": True}),
}


def _canary() -> dict[str, float]:
    """Two epochs of each method on 160 digits, past its warm-up: the sum of its loss in each."""
    found: dict[str, float] = {}
    for name, (method, options) in _CANARY_METHODS.items():
        short = dict.fromkeys(lengths_of(method), 1)
        settings = {**CANARY_SETTINGS, "teacher_model": "resnet20", "teacher_options": CANARY_SETTINGS["model_options"]}
        config = DistillConfig(**settings, method=method, options={**short, **options})
        teacher = _network(config.teacher_model, config.teacher_options, config.dataset, 1)
        outcome = distill(config, canary_context("distill", teacher=teacher.state_dict()))
        losses = outcome.metrics["curves"]["train_loss"]
        found |= {f"{name}.{epoch}": loss for epoch, loss in enumerate(losses)}
    return found


@recipe(
    "distill",
    version=1,
    config=DistillConfig,
    canary=_canary,
    flops=_planned,
    data=data_read,
    parents=("teacher",),
)
def distill(config: DistillConfig, context: Context) -> Outcome:
    """Prepare the method, then train the student from its seed's initial weights; the extras are thrown away."""
    train, validation, test = split(config)
    train = replace(train, indices=np.arange(len(train)))  # memory banks hold one entry per image, from 0
    dtype = torch.float64 if context.precision == "fp64" else torch.float32
    student = new_model(config)
    teacher = _network(config.teacher_model, config.teacher_options, config.dataset, config.seed)
    teacher.load_state_dict(context.parents["teacher"])
    method = _method(config, student, teacher, labels_of(train))
    teacher.to(context.device, dtype).to(memory_format=torch.channels_last).eval()
    method.to(context.device, dtype)
    method.prepare(_preparation_context(config, teacher, train, dtype))
    loss, flops = Distillation(method, teacher), partial(distill_flops, config)
    outcome = trained(config, context, student, train, validation, test, loss=loss, flops=flops)
    measured = _measured(config, context, student, teacher, method, test)
    return replace(outcome, metrics={**outcome.metrics, **measured})


def _network(name: str, options: Options, dataset: str, seed: int) -> nn.Module:
    with seeded(seed):
        return create_model(name, len(load_dataset(dataset, "test").classes), **options)


def _preparation_context(
    config: DistillConfig, teacher: nn.Module, train: ImageSet, dtype: torch.dtype
) -> PrepareContext:
    device = next(teacher.parameters()).device
    mean, std = normalisation(config.training, train)
    data = DeviceSet(train, device)

    def batches(epoch: int, view: int) -> Iterator[Batch]:
        # Orders and crops of its own: the preparation does not show the student's batches beforehand.
        for batch in epoch_batches(
            data, config.training, mean, std, derived_seed(config.seed, 0, "prepare"), epoch, view
        ):
            yield replace(batch, images=batch.images.to(dtype))

    return PrepareContext(teacher, batches, device)


@torch.no_grad()
def _measured(
    config: DistillConfig,
    context: Context,
    student: nn.Module,
    teacher: nn.Module,
    method: Distiller,
    test: ImageSet,
) -> dict[str, list[float]]:
    """Means over the test set of what the method measures beside its loss (PKGD: distances to the teacher)."""
    mean, std = normalisation(config.training, test)
    data = DeviceSet(test, torch.device(context.device))
    dtype = next(student.parameters()).dtype
    totals: dict[str, torch.Tensor] = {}
    autocast = torch.autocast(data.images.device.type, torch.bfloat16, enabled=context.precision == "bf16")
    with evaluating(student), evaluating(method), autocast:
        for images in data.images.split(100):
            x = normalise(images, mean, std).to(dtype)
            guide = features(teacher, x, preactivation=method.teacher_preactivation)
            for name, values in method.measure(features(student, x), guide).items():
                totals[name] = totals.get(name, 0) + values.double() * len(images)
    return {name: (total / len(test)).tolist() for name, total in totals.items()}
