"""What the three CIFAR papers share below paper scale: data, recipe, and therefore baselines, teachers and students."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from efflib.papers.distillation import Options, lengths_of
from efflib.training import TrainingRecipe, cifar_rd
from efflib.trials.trial import Trial


@dataclass(frozen=True)
class Size:
    """Images and length of the runs at one scale; `widths` narrows networks by name, smoke only."""

    subset: int | None
    holdout: int
    epochs: int
    widths: Mapping[str, float]


# DESIGN section 4. Smoke runs narrow networks on rendered objects, to show that the code runs.
SIZES = {
    "smoke": Size(None, 200, 6, {"resnet14": 0.5, "resnet20": 0.5, "vgg8": 0.125, "vgg13": 0.125, "resnet18": 0.125}),
    "tiny": Size(10_000, 1_000, 30, {}),
    "small": Size(None, 5_000, 60, {}),
    "paper": Size(None, 0, 240, {}),
}
WHOLE_RUN = 240  # epochs: methods state their warm-ups for a CIFAR run of this length


def shared(scale: str, model: str, dataset: str, seed: int, model_options: Options | None = None) -> dict[str, Any]:
    """Settings of a classifier at a scale, but for its training recipe; `model_options` go over the scale's own."""
    size = SIZES[scale]
    return {
        "dataset": dataset,
        "model": model,
        "seed": seed,
        "subset": size.subset,
        "holdout": size.holdout,
        "model_options": {**width(scale, model), **(model_options or {})},
    }


def width(scale: str, model: str) -> dict[str, float]:
    """Options that narrow a network at this scale."""
    widths = SIZES[scale].widths
    return {"width": widths[model]} if model in widths else {}


def baseline(
    scale: str,
    model: str,
    dataset: str,
    seed: int,
    training: TrainingRecipe | None = None,
    model_options: Options | None = None,
) -> Trial:
    """The trial that trains a network from scratch; tables, arms, teachers and papers share it.

    `training` is the recipe of a paper (paper scale) or of a data set of its own; elsewhere all use `cifar_rd` at the
    scale's length.
    """
    training = training or cifar_rd(SIZES[scale].epochs)
    return Trial.of("baseline", training=training, **shared(scale, model, dataset, seed, model_options))


def distilled(
    scale: str,
    method: str,
    student: str,
    teacher: Trial,
    options: Options | None = None,
    training: TrainingRecipe | None = None,
    model_options: Options | None = None,
    whole: int = WHOLE_RUN,
) -> Trial:
    """The trial that trains a student beside a teacher of the same data and seed.

    Warm-ups and preparations are stated for a run of `whole` epochs; at other lengths they keep their share of the run.

    Args:
        scale: fixes the student's data and length, as `baseline` does.
        method: name of the method.
        student: name of the network.
        teacher: a trial `baseline` or `bimask`.
        options: of the method, over its defaults.
        training: as in `baseline`.
        model_options: of the student, over the scale's own.
        whole: epochs of the run that lengths are stated for.
    """
    training = training or cifar_rd(SIZES[scale].epochs)
    about = teacher.settings
    return Trial.of(
        "distill",
        parents={"teacher": teacher},
        training=training,
        method=method,
        options={**scaled_lengths(method, training.epochs, whole), **(options or {})},
        teacher_model=about.model,  # type: ignore[attr-defined]
        teacher_options=about.model_options,  # type: ignore[attr-defined]
        **shared(scale, student, about.dataset, about.seed, model_options),  # type: ignore[attr-defined]
    )


def scaled_lengths(method: str, epochs: int, whole: int = WHOLE_RUN) -> Options:
    """A method's warm-up and preparation for a run of another length; nothing at the length they are stated for."""
    if epochs == whole:
        return {}
    lengths: Options = {}
    for name, stated in lengths_of(method).items():
        length = stated * epochs / whole
        lengths[name] = max(1, int(length + 0.5)) if name == "prepare_epochs" else length
    return lengths
