"""The thesis's own recipes: scores of untrained students, and the nearest neighbour. Training is everybody's recipe."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import nn

from efflib.data import list_datasets, load_dataset, nearest_neighbour
from efflib.data.duplicates import full_name
from efflib.models import create_model
from efflib.papers import reports
from efflib.papers.baselines import SIZES
from efflib.papers.distillation import Options
from efflib.papers.diswot.costs import cost
from efflib.papers.diswot.rivals import nwot_space
from efflib.papers.diswot.scores import SCORES, Scored, score_space
from efflib.papers.diswot.space import STUDENTS, TEACHER, member
from efflib.text import unknown
from efflib.training import seeded
from efflib.trials.recipes import Config, Context, Outcome, recipe


def known_dataset(name: str) -> str:
    """The name, if it is that of a data set.

    Raises:
        ValueError: it is not; lists those that are.
    """
    if name not in list_datasets():
        raise ValueError(unknown("dataset", name, list_datasets()))
    return name


class ScoresConfig(Config):
    """Scores of `students` in `draws` draws of weights and batch, see `efflib.papers.diswot.scores`."""

    dataset: str
    students: tuple[str, ...] = tuple(STUDENTS)
    init: Literal["gaussian", "default"] = "gaussian"
    batch: int = Field(default=32, ge=2)
    draws: int = Field(default=16, ge=1)
    seed: int = 0

    @field_validator("students")
    @classmethod
    def _members(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            member(name)
        return value

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        return known_dataset(value)


def _scores_flops(config: ScoresConfig, students: int) -> float:
    """Forward passes in each draw: one of the teacher, so many of each student."""
    side = SIZES[config.dataset][2]
    passes = students * sum(cost(name, side).macs for name in config.students) + cost(TEACHER.name, side).macs
    return 2.0 * config.draws * config.batch * passes


def _canary_scores() -> dict[str, float]:
    """One draw of two students on the phantom."""
    config = ScoresConfig(dataset="phantom", students=("w035-d11-gap", "w035-d11-dsc"), batch=8, draws=1)
    return _sums(diswot_scores(config, Context("cpu", "fp32", None)).metrics)


def _sums(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        f"{variant}.{name}": sum(draws)
        for variant, by_student in metrics["scores"].items()
        for name, draws in by_student.items()
    }


@recipe(
    "diswot_scores",
    version=2,
    config=ScoresConfig,
    canary=_canary_scores,
    flops=lambda config: _scores_flops(config, 2),
    data=lambda config: [(config.dataset, "train")],
    precision="fp32",
)
def diswot_scores(config: ScoresConfig, context: Context) -> Outcome:
    """Score the untrained students by every definition; lower is better, but for NWOT."""
    data, chosen = load_dataset(config.dataset, "train"), _chosen(config, context)
    found = score_space(data, config.students, scores=SCORES, **chosen)
    metrics = _score_metrics(found) | {"nwot": nwot_space(data, config.students, **chosen)}
    return Outcome(metrics, _scores_flops(config, 2))


class TrainedScoresConfig(ScoresConfig):
    """As `ScoresConfig`; the network of the parent "teacher" has the options `teacher_options`."""

    teacher_options: Options = Field(default_factory=dict)


def _canary_trained_scores() -> dict[str, float]:
    """The same draw as `_canary_scores`, with one teacher of default weights."""
    config = TrainedScoresConfig(
        dataset="phantom", students=("w035-d11-gap",), batch=8, draws=1, teacher_options={"width": 0.35}
    )
    with seeded(0, "canary"):
        weights = _teacher(config, 4).state_dict()
    return _sums(diswot_scores_trained(config, Context("cpu", "fp32", None, {"teacher": weights})).metrics)


def _teacher(config: TrainedScoresConfig, classes: int) -> nn.Module:
    return create_model("mobilenetv2", classes, **config.teacher_options)


@recipe(
    "diswot_scores_trained",
    version=1,
    config=TrainedScoresConfig,
    canary=_canary_trained_scores,
    flops=lambda config: _scores_flops(config, 1),
    data=lambda config: [(config.dataset, "train")],
    parents=("teacher",),
    precision="fp32",
)
def diswot_scores_trained(config: TrainedScoresConfig, context: Context) -> Outcome:
    """Score the untrained students beside a trained teacher, the same in every draw (spec, D8: `teacher_state`).

    Students and batches are those of `diswot_scores` with the same seed; the scores' names end in "_trained".
    """
    data = load_dataset(config.dataset, "train")
    teacher = _teacher(config, len(data.classes))
    teacher.load_state_dict(context.parents["teacher"])
    found = score_space(data, config.students, scores=SCORES, teacher=teacher, **_chosen(config, context))
    metrics = _score_metrics({f"{name}_trained": by_student for name, by_student in found.items()})
    return Outcome(metrics, _scores_flops(config, 1))


def _chosen(config: ScoresConfig, context: Context) -> dict[str, Any]:
    return config.model_dump(include={"init", "batch", "draws", "seed"}) | {"device": context.device}


def _score_metrics(found: dict[str, dict[str, Scored]]) -> dict[str, Any]:
    return {
        "scores": {name: {s: list(each.draws) for s, each in scored.items()} for name, scored in found.items()},
        "terms": {
            name: {s: {term: list(values) for term, values in each.terms.items()} for s, each in scored.items()}
            for name, scored in found.items()
        },
        "bounds": {name: next(iter(scored.values())).bound for name, scored in found.items()},
    }


class CostConfig(Config):
    """A network of the space for images of `side` pixels."""

    network: str
    side: int = 224

    @field_validator("network")
    @classmethod
    def _member(cls, value: str) -> str:
        return member(value).name


def _canary_cost() -> dict[str, float]:
    return network_cost(CostConfig(network="w035-d11-gap", side=64), Context("cpu", "fp32", None)).metrics


@recipe(
    "network_cost",
    version=1,
    config=CostConfig,
    canary=_canary_cost,
    flops=lambda config: 0.0,
    data=lambda config: [],
    precision="fp32",
)
def network_cost(config: CostConfig, context: Context) -> Outcome:
    """What the built network costs, counted in both conventions; nothing is computed and no data are read."""
    found = cost(config.network, config.side)
    derived = {"printed_macs": found.printed_macs, "megabytes": found.megabytes}
    return Outcome({**asdict(found), **derived}, 0.0)


class NeighbourConfig(Config):
    """Thumbnails of `side` pixels of a data set's images at full size."""

    dataset: str
    side: int = Field(default=16, ge=1)

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        return known_dataset(value)


def _neighbour_flops(config: NeighbourConfig) -> float:
    """Two FLOPs per pixel of each pair of a training and a test image."""
    train, test, _, _ = SIZES[config.dataset]
    return 2.0 * train * test * config.side**2


def _canary_neighbour() -> dict[str, float]:
    metrics = nearest_neighbour_recipe(NeighbourConfig(dataset="digits", side=4), Context("cpu", "fp32", None)).metrics
    return {"last": metrics["last"], "leak_free": metrics["leak_free"]}


@recipe(
    "nearest_neighbour",
    version=1,
    config=NeighbourConfig,
    canary=_canary_neighbour,
    flops=_neighbour_flops,
    data=lambda config: [(full_name(config.dataset), split) for split in ("train", "test")],
    precision="fp32",
)
def nearest_neighbour_recipe(config: NeighbourConfig, context: Context) -> Outcome:
    """Each test image gets the label of the training image with the nearest thumbnail: a bar for what is trained."""
    train, test = (load_dataset(full_name(config.dataset), split) for split in ("train", "test"))
    predicted = nearest_neighbour(train, test, config.side)
    metrics = reports.counted(predicted, test.labels, len(test.classes), reports.leak_free(test))
    return Outcome(metrics, _neighbour_flops(config))
