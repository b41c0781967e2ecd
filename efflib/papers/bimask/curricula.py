"""Recipes of table 4: a classifier trained from scratch by a curriculum, and the scores that two of them need."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from efflib.curricula import create
from efflib.curricula.pacing import (
    enlarged,
    imagenet_features,
    out_of_fold_scores,
    self_taught_scores,
    transfer_scores,
)
from efflib.data import DataNotFound, ImageSet
from efflib.papers.baselines import (
    CANARY_SETTINGS,
    SIZES,
    ClassifierConfig,
    canary_context,
    canary_numbers,
    data_read,
    inherited_model,
    new_model,
    planned_flops,
    planned_images,
    split,
    trained,
    training_flops,
)
from efflib.training import Curriculum, ForeignCheckpoint
from efflib.trials.recipes import Config, Context, Outcome, recipe

Options = dict[str, float | int | str | bool]
IMAGENET_MACS = 4.09e9  # of ResNet50 on one image of 224 pixels


# --- curricula that need nothing but the images -----------------------------------------------------------


class CurriculumConfig(ClassifierConfig):
    """A classifier trained by a curriculum of `efflib.curricula`; `options` are the curriculum's own.

    `training` holds the milestones as they are run: those of LeRaC are shifted by whoever makes the trial.
    """

    method: Literal["cbs", "efficienttrain", "lerac"]
    options: Options = Field(default_factory=dict)

    @model_validator(mode="after")
    def _valid_options(self) -> CurriculumConfig:
        _check(self.method, self.options)
        return self


def _check(method: str, options: Options, **given: Any) -> None:
    """Mistakes in a curriculum's options, found before anything is trained."""
    try:
        create(method, **options, **given)
    except TypeError as problem:  # a word where a number belongs, or an option that the recipe fills in itself
        raise ValueError(f"bad options of {method}: {problem}") from problem


def _curriculum_flops(config: CurriculumConfig, images: int, evaluated: int) -> float:
    """As a baseline's, but training costs less where the images are smaller. CBS's blurs (9 per value) do not count."""
    factor = create(config.method, **config.options).compute_factor(SIZES[config.dataset][2])
    return training_flops(config, factor * images, evaluated)


def _planned(config: CurriculumConfig) -> float:
    return _curriculum_flops(config, *planned_images(config))


_CANARIES: dict[str, Options] = {"cbs": {"every": 0.5}, "efficienttrain": {}, "lerac": {"k": 1.0}}


def _canary() -> dict[str, float]:
    """Two epochs of each curriculum on 160 digits."""
    found: dict[str, float] = {}
    for method, options in _CANARIES.items():
        config = CurriculumConfig(**CANARY_SETTINGS, method=method, options=options)  # type: ignore[arg-type]
        numbers = canary_numbers(curriculum(config, canary_context("curriculum")), config)
        found |= {f"{method}.{name}": value for name, value in numbers.items()}
    return found


@recipe("curriculum", version=1, config=CurriculumConfig, canary=_canary, flops=_planned, data=data_read)
def curriculum(config: CurriculumConfig, context: Context) -> Outcome:
    """Train from scratch as the recipe `baseline` does, from the same initial weights, under a curriculum."""
    flops = partial(_curriculum_flops, config)
    return _trained(config, context, create(config.method, **config.options), flops=flops)


def _trained(config: ClassifierConfig, context: Context, chosen: Curriculum, **extra: Any) -> Outcome:
    train, validation, test = split(config)
    return trained(config, context, new_model(config), train, validation, test, curriculum=chosen, **extra)


# --- curricula that pace by scores ------------------------------------------------------------------------


class PacedConfig(ClassifierConfig):
    """A classifier that sees easy images first; `options` are those of `efflib.curricula.pacing.Pacing`.

    The parent in the role "scorer" gives the scores. "self_taught": a trial `baseline` of the same network, data and
    seed. "lcdnet": a trial `fold_scores` or `imagenet_scores` of the same data.
    """

    method: Literal["self_taught", "lcdnet"]
    options: Options = Field(default_factory=dict)

    @model_validator(mode="after")
    def _valid_options(self) -> PacedConfig:
        _check(self.method, self.options, scores=torch.zeros(1), labels=torch.zeros(1))
        return self


def _paced_canary() -> dict[str, float]:
    """Two epochs on 160 digits, paced by an untrained network and by scores that rise along the set."""
    found: dict[str, float] = {}
    settings = {**CANARY_SETTINGS, "options": {"pacing_span": 0.5}}
    scorers = {
        "self_taught": new_model(ClassifierConfig(**CANARY_SETTINGS)).state_dict(),
        "lcdnet": {"scores": torch.arange(160, dtype=torch.float64)},
    }
    for method, scorer in scorers.items():
        config = PacedConfig(**settings, method=method)  # type: ignore[arg-type]
        numbers = canary_numbers(paced(config, canary_context("paced", scorer=scorer)), config)
        found |= {f"{method}.{name}": value for name, value in numbers.items()}
    return found


@recipe(
    "paced",
    version=1,
    config=PacedConfig,
    canary=_paced_canary,
    flops=planned_flops,
    data=data_read,
    parents=("scorer",),
)
def paced(config: PacedConfig, context: Context) -> Outcome:
    """Score the training images once, then train from scratch, batches drawn from a growing pool of easy ones."""
    train, _, _ = split(config)
    found = _scores(config, context, train)
    labels = torch.from_numpy(np.ascontiguousarray(train.labels))
    pacing = create(config.method, scores=found, labels=labels, **config.options)
    return _trained(config, context, pacing, mean_score=float(found.mean()))


def _scores(config: PacedConfig, context: Context, train: ImageSet) -> Tensor:
    """(N,) scores of the training images, from the parent's network or as the parent recorded them."""
    parent = context.parents["scorer"]
    if config.method == "lcdnet":
        if "scores" not in parent:
            raise ValueError("lcdnet needs a scorer that left scores: a trial fold_scores or imagenet_scores")
        return parent["scores"]
    scorer = inherited_model(config, parent, context.precision)
    return self_taught_scores(scorer, train, config.training, context.device, context.precision)


# --- scores for LCDnet-CL ---------------------------------------------------------------------------------


class FoldScoresConfig(ClassifierConfig):
    """Scores of a training set by networks that have not seen the image: `model` and `training` are of each fold."""

    folds: int = Field(default=5, ge=2)


def _fold_flops(config: FoldScoresConfig) -> float:
    images, _ = planned_images(config)
    return training_flops(config, images * (config.folds - 1), images)  # each image is evaluated in one fold


def _fold_canary() -> dict[str, float]:
    """Two folds of two epochs on 160 digits: mean and spread of the scores."""
    config = FoldScoresConfig(**CANARY_SETTINGS, folds=2)
    return _summary((fold_scores(config, canary_context("fold_scores")).weights or {})["scores"])


@recipe("fold_scores", version=1, config=FoldScoresConfig, canary=_fold_canary, flops=_fold_flops, data=data_read)
def fold_scores(config: FoldScoresConfig, context: Context) -> Outcome:
    """Probability of each training image's true class, out of fold; the deviation that needs no ImageNet weights.

    The kept "weights" are {"scores": (N,)}, in the order of the training set.
    """
    train, _, _ = split(config)
    try:
        found = _out_of_fold(config, context, train)
    except ForeignCheckpoint:  # of older source: the runner knows one file only, here each fold has its own
        _clear(context.checkpoint, config.folds)
        found = _out_of_fold(config, context, train)
    _clear(context.checkpoint, config.folds)
    return Outcome(_summary(found), _fold_flops(config), {"scores": found})


def _out_of_fold(config: FoldScoresConfig, context: Context, train: ImageSet) -> Tensor:
    return out_of_fold_scores(
        train,
        config.training,
        config.model,
        config.folds,
        config.seed,
        context.checkpoint,
        context.device,
        context.precision,
        context.progress,
        **{name: value for name, value in config.model_options.items() if name != "in_channels"},
    )


def _clear(checkpoint: Path | None, folds: int) -> None:
    for number in range(folds if checkpoint is not None else 0):
        Path(f"{checkpoint}.fold{number}").unlink(missing_ok=True)


class ImagenetScoresConfig(Config):
    """Scores of a training set (subset and hold-out as a ClassifierConfig's) by an ImageNet network."""

    dataset: str
    subset: int | None = Field(default=None, ge=1)
    holdout: int = Field(default=0, ge=0)
    split_seed: int = 0


def _imagenet_flops(config: ImagenetScoresConfig) -> float:
    return 2 * IMAGENET_MACS * ((config.subset or SIZES[config.dataset][0]) - config.holdout)


def _imagenet_canary() -> dict[str, float]:
    """The enlarging and the linear classifier on 160 digits, with coarse pixels in place of the network's features."""
    train, _, _ = split(ClassifierConfig(**CANARY_SETTINGS))
    pixels = F.adaptive_avg_pool2d(enlarged(torch.from_numpy(train.images)).double(), 8)
    return _summary(transfer_scores(pixels.flatten(1), torch.from_numpy(np.ascontiguousarray(train.labels))))


@recipe(
    "imagenet_scores",
    version=1,
    config=ImagenetScoresConfig,
    canary=_imagenet_canary,
    flops=_imagenet_flops,
    data=data_read,
)
def imagenet_scores(config: ImagenetScoresConfig, context: Context) -> Outcome:
    """Probability of each training image's true class, from an ImageNet ResNet50's features; weights as above.

    Raises:
        RuntimeError: the network's weights are not here; this trial fails, the others go on.
    """
    train, _, _ = split(config)  # type: ignore[arg-type]
    try:
        features = imagenet_features(train, device=context.device)
    except DataNotFound as problem:
        raise RuntimeError(str(problem)) from problem
    found = transfer_scores(features, torch.from_numpy(np.ascontiguousarray(train.labels)))
    return Outcome(_summary(found), _imagenet_flops(config), {"scores": found})


def _summary(scores: Tensor) -> dict[str, float]:
    return {"mean_score": float(scores.mean()), "score_spread": float(scores.std())}
