"""The recipe `baseline`: a classifier trained from scratch with cross-entropy. All papers share its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from typing import Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from efflib.data import ImageSet, holdout, list_datasets, load_dataset, subset
from efflib.models import count_macs, create_model, list_models
from efflib.models.imagenet import pretrained
from efflib.models.measure import layer_macs
from efflib.papers import reports
from efflib.training import Curriculum, Loss, TrainingRecipe, cross_entropy, fit, freeze, predict, seeded
from efflib.trials.recipes import Config, Context, Outcome, recipe

# Training images, test images, side and channels of each set: cost estimates need no data at hand.
SIZES = {
    "objects32": (2_000, 1_000, 32, 3),
    "objects64": (1_200, 600, 64, 3),
    "digits": (1_257, 360, 8, 1),
    "digits28": (1_257, 360, 28, 1),
    "cifar10": (50_000, 10_000, 32, 3),
    "cifar100": (50_000, 10_000, 32, 3),
    "mnist": (60_000, 10_000, 28, 1),
    "tiny_imagenet": (100_000, 10_000, 64, 3),
    "phantom": (800, 400, 64, 1),
    "brain_mri": (5_708, 1_311, 224, 1),  # the 224 px copy; four training images more at the origin
    "brain_mri_64": (5_708, 1_311, 64, 1),
    "brain_mri_96": (5_708, 1_311, 96, 1),
    "brain_mri_128": (5_708, 1_311, 128, 1),
}


class ClassifierConfig(Config):
    """Data, network and training of a classifier; the base of every recipe that trains one.

    `subset` takes that many training images (stratified, by `split_seed`), None takes all; `holdout` of them are then
    held out for validation. `seed` fixes initial weights, order and augmentation, never the split. With `marks` the run
    is reported in full after every epoch (`efflib.papers.reports`), on the training images too after those epochs.
    `precision` holds whatever a run asks for; None follows the run. `init` "imagenet" starts the backbone of a
    MobileNetV2 from torchvision's weights (one file, known by the checksum in its name), its head from the seed;
    `freeze_backbone` trains the head only.
    """

    dataset: str
    model: str
    training: TrainingRecipe
    seed: int
    subset: int | None = Field(default=None, ge=1)
    holdout: int = Field(default=0, ge=0)
    split_seed: int = 0
    model_options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    marks: tuple[int, ...] = ()
    precision: Literal["fp32"] | None = None
    init: Literal["scratch", "imagenet"] = "scratch"
    freeze_backbone: bool = False

    @field_validator("dataset", "model")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        known = list_datasets() if info.field_name == "dataset" else list_models()
        if value not in known:
            raise ValueError(f"unknown {info.field_name}; known: {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _marks_within_the_run(self) -> ClassifierConfig:
        if any(not 1 <= mark <= self.training.epochs for mark in self.marks):
            raise ValueError(f"marks {self.marks} must be numbers of finished epochs, 1 to {self.training.epochs}")
        return self

    @model_validator(mode="after")
    def _weights_exist(self) -> ClassifierConfig:
        if self.freeze_backbone and self.init == "scratch":
            raise ValueError("freeze_backbone keeps what init='imagenet' gives; from scratch it would keep noise")
        shape = {"width": 1, "depth": 17, "input_norm": "unit", **self.model_options}
        fits = self.model == "mobilenetv2" and (shape["width"], shape["depth"]) == (1, 17)
        if self.init == "imagenet" and not fits:
            raise ValueError(
                "init='imagenet' is there for mobilenetv2 with width 1 and depth 17 only, as torchvision has weights "
                f"for no other: got {self.model} with {self.model_options}. Use init='scratch'"
            )
        if self.init == "imagenet" and shape["input_norm"] != "imagenet":
            raise ValueError("init='imagenet' needs model_options input_norm='imagenet': its weights expect that input")
        return self


def data_read(config: ClassifierConfig) -> list[tuple[str, str]]:
    """Splits that a classifier trial reads."""
    return [(config.dataset, "train"), (config.dataset, "test")]


def split(config: ClassifierConfig) -> tuple[ImageSet, ImageSet | None, ImageSet]:
    """(training, held-out or None, test) images of a configuration."""
    return _split(config.dataset, config.subset, config.holdout, config.split_seed)


@lru_cache(maxsize=2)
def _split(name: str, count: int | None, held: int, seed: int) -> tuple[ImageSet, ImageSet | None, ImageSet]:
    train, test = load_dataset(name, "train"), load_dataset(name, "test")
    if count is not None:
        train = train.take(subset(train.labels, count, seed))
    if not held:
        return train, None, test
    kept, out = holdout(train.labels, held, seed)
    return train.take(kept), train.take(out), test


def new_model(config: ClassifierConfig) -> nn.Module:
    """The configuration's network with the initial weights of its seed, its backbone's from ImageNet if so asked.

    Raises:
        DataNotFound, DataBroken: about the file of ImageNet weights.
    """
    model = _drawn(config)
    if config.init == "imagenet":
        _backbone(model).load_state_dict(pretrained("mobilenetv2").state_dict())
    return model


def _drawn(config: ClassifierConfig) -> nn.Module:
    """The network with weights of its seed alone; frozen is what the configuration freezes."""
    with seeded(config.seed):
        classes = len(load_dataset(config.dataset, "test").classes)
        model = create_model(config.model, classes, **config.model_options)
    if config.freeze_backbone:
        freeze(_backbone(model))
    return model


def _backbone(model: nn.Module) -> nn.Module:
    return model.backbone  # type: ignore[return-value]


def inherited_model(config: ClassifierConfig, weights: Mapping[str, Any], precision: str = "fp32") -> nn.Module:
    """The configuration's network with a parent's weights; float64 for a run in fp64."""
    model = _drawn(config)
    model.load_state_dict(weights)
    return model.double() if precision == "fp64" else model


@cache
def _macs(model: str, options: tuple[tuple[str, Any], ...], dataset: str) -> int:
    _, _, side, channels = SIZES[dataset]
    return count_macs(create_model(model, 10, **dict(options)), side, channels)


def forward_flops(config: ClassifierConfig) -> float:
    """FLOPs of the network's forward pass over one image, 2 per MAC."""
    return 2.0 * _macs(config.model, tuple(sorted(config.model_options.items())), config.dataset)


def frozen_flops(config: ClassifierConfig) -> float:
    """FLOPs of that part of the forward pass over one image which no gradient passes."""
    if not config.freeze_backbone:
        return 0.0
    return 2.0 * _backbone_macs(config.model, tuple(sorted(config.model_options.items())), config.dataset)


@cache
def _backbone_macs(model: str, options: tuple[tuple[str, Any], ...], dataset: str) -> int:
    _, _, side, channels = SIZES[dataset]
    network = create_model(model, 10, **dict(options)).eval()
    with torch.no_grad():
        return layer_macs(_backbone(network), lambda: network(torch.zeros(1, channels, side, side)))


def training_flops(config: ClassifierConfig, images: float, evaluated: int) -> float:
    """FLOPs of training on `images` and evaluating on `evaluated` per epoch: backward = 2 forward, if not frozen."""
    each = forward_flops(config) * (3 * images + evaluated) - 2 * frozen_flops(config) * images
    return each * config.training.epochs


def planned_images(config: ClassifierConfig) -> tuple[int, int]:
    """(training images kept, images evaluated per epoch) of a configuration, without the data."""
    train, test, _, _ = SIZES[config.dataset]
    return (config.subset or train) - config.holdout, test + config.holdout


def one_pass_flops(config: ClassifierConfig) -> float:
    """FLOPs of one forward pass over the training images kept and one over the test images."""
    kept, _ = planned_images(config)
    return forward_flops(config) * (kept + SIZES[config.dataset][1])


def planned_flops(config: ClassifierConfig, copies: int = 1) -> float:
    """Estimate for plans; `copies` is the training set's size in multiples of the kept images."""
    kept, evaluated = planned_images(config)
    return training_flops(config, copies * kept, evaluated)


# Digits come with scikit-learn: no renderer or decoder of ours can change them.
CANARY_SETTINGS: dict[str, Any] = {
    "dataset": "digits",
    "model": "resnet14",
    "model_options": {"width": 0.5, "in_channels": 1},
    "training": TrainingRecipe(epochs=2, lr=0.02, batch_size=32, milestones=(1,)),
    "subset": 200,
    "holdout": 40,
    "seed": 0,
}


def _canary() -> dict[str, float]:
    """Two epochs of a small network on 160 digits: training losses, and the size of the logits it ends with."""
    config = ClassifierConfig(**CANARY_SETTINGS)
    return canary_numbers(baseline(config, canary_context("baseline")), config)


def canary_context(name: str, **parents: dict[str, Any]) -> Context:
    """A context without checkpoint, in fp64 on the CPU: canaries must not depend on the machine's rounding."""
    return Context("cpu", "fp64", None, parents, progress=False, description=f"canary {name}")


def canary_numbers(outcome: Outcome, config: ClassifierConfig) -> dict[str, float]:
    """Losses per epoch and the root mean square logit on 100 test images; accuracies could jump by one image."""
    model = inherited_model(config, outcome.weights or {}, "fp64")
    logits = predict(model, split(config)[2].take(range(100)), config.training, "cpu", "fp64")
    losses = outcome.metrics["curves"]["train_loss"]
    return {f"loss{i}": value for i, value in enumerate(losses)} | {"logit": float(logits.square().mean().sqrt())}


@recipe("baseline", version=1, config=ClassifierConfig, canary=_canary, flops=planned_flops, data=data_read)
def baseline(config: ClassifierConfig, context: Context) -> Outcome:
    """Train from scratch; keeps the last epoch's weights."""
    train, validation, test = split(config)
    return trained(config, context, new_model(config), train, validation, test)


def trained(
    config: ClassifierConfig,
    context: Context,
    model: nn.Module,
    train: ImageSet,
    validation: ImageSet | None,
    test: ImageSet,
    loss: Loss = cross_entropy,
    curriculum: Curriculum | None = None,
    flops: Callable[[int, int], float] | None = None,
    **extra: Any,
) -> Outcome:
    """Fit as the configuration and the context say: metrics with curves, FLOPs really spent, last weights.

    `flops` of (training images, images evaluated per epoch) tells the FLOPs of the run; None: as `training_flops`.
    With marks, the metric "followed" holds the reports by number of finished epochs.
    `extra` are further metrics.
    """
    follow = None
    if config.marks:
        follow = reports.reporter(config.marks, config.training, train, test, context.device, context.precision)
    history = fit(
        model,
        train,
        test,
        validation,
        recipe=config.training,
        loss=loss,
        seed=config.seed,
        checkpoint=context.checkpoint,
        device=context.device,
        precision=context.precision,
        progress=context.progress,
        description=context.description,
        curriculum=curriculum,
        follow=follow,
    )
    if history.followed:
        extra["followed"] = {str(epoch): found for epoch, found in history.followed.items()}
    evaluated = len(test) + (len(validation) if validation is not None else 0)
    spent = (flops or partial(training_flops, config))(len(train), evaluated)
    times = {"training_seconds": history.seconds, "seconds_per_epoch": history.seconds_per_epoch}
    return Outcome({**history.metrics(), **times, **extra}, spent, model.state_dict())
