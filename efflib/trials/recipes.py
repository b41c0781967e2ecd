"""Recipes: named ways to produce one trial, registered by a decorator. `trials` knows them by name only."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Config(BaseModel):
    """Base of every recipe's configuration: unknown settings and wrong types are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True)
class Context:
    """What the runner hands to a recipe: the machine's choices, a checkpoint file, and the parents' weights."""

    device: str
    precision: str
    checkpoint: Path | None
    parents: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    progress: bool | None = None
    description: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a recipe returns: metrics for the record (JSON values), FLOPs spent, and the weights to keep."""

    metrics: dict[str, Any]
    flops: float
    weights: dict[str, Any] | None = None


def no_weights(config: Config) -> list[str]:
    """Of a recipe that reads no weights made elsewhere."""
    return []


@dataclass(frozen=True)
class Recipe:
    """A registered recipe.

    `parents` names the roles a trial of it needs; `data` tells which splits it reads, `weights` which files of ImageNet
    weights; `precision` is the only one it runs in, None for whatever the machine does best.
    """

    name: str
    version: int
    config: type[Config]
    run: Callable[[Any, Context], Outcome]
    canary: Callable[[], dict[str, float]]
    parents: tuple[str, ...]
    data: Callable[[Any], list[tuple[str, str]]]
    flops: Callable[[Any], float]
    precision: str | None = None
    weights: Callable[[Any], list[str]] = no_weights

    @property
    def module(self) -> str:
        return self.run.__module__


_RECIPES: dict[str, Recipe] = {}
_HOMES = (
    "efflib.papers.baselines",
    "efflib.papers.distillation",
    "efflib.papers.bimask.recipes",
    "efflib.papers.bimask.curricula",
    "efflib.papers.pkgd.recipes",
    "efflib.papers.encodenet.recipes",
    "efflib.papers.safety.recipes",
    "efflib.papers.safety.baselines",
    "efflib.papers.diswot.recipes",
    "efflib.papers.diswot.maps",
)


def recipe(
    name: str,
    version: int,
    config: type[Config],
    canary: Callable[[], dict[str, float]],
    flops: Callable[[Any], float],
    data: Callable[[Any], list[tuple[str, str]]],
    parents: tuple[str, ...] = (),
    precision: str | None = None,
    weights: Callable[[Any], list[str]] = no_weights,
) -> Callable[[Callable[[Any, Context], Outcome]], Callable[[Any, Context], Outcome]]:
    """Register a function (config, context) -> Outcome as a recipe.

    Args:
        name: folder of its records; letters, digits and underscores.
        version: bumped whenever the meaning of a configuration changes, which gives all its trials new keys.
        config: its configuration class.
        canary: a fixed run of a few seconds on embedded data, returning numbers that change if the recipe's meaning
            does; it decides whether a record made by older source is stale.
        flops: estimated floating-point operations of a configuration, for plans.
        data: configuration -> [(data set, split), ...] that it reads.
        parents: roles of the trials it needs, e.g. ("baseline",).
        precision: the only one it runs in ("fp32"), whatever precision a run asks for; None follows the run.
        weights: configuration -> names in `efflib.models.imagenet.PRETRAINED` of the weights that it reads besides its
            parents': a run looks for them before it spends hours on those.
    """

    def register(run: Callable[[Any, Context], Outcome]) -> Callable[[Any, Context], Outcome]:
        if name in _RECIPES and _RECIPES[name].module != run.__module__:
            raise ValueError(f"recipe {name!r} is registered by {_RECIPES[name].module} already")
        _RECIPES[name] = Recipe(name, version, config, run, canary, parents, data, flops, precision, weights)
        return run

    return register


def get_recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        ValueError: unknown; lists the known ones and the nearest.
    """
    if name not in _RECIPES:
        for home in _HOMES:  # recipes register when their module is imported
            importlib.import_module(home)
    if name not in _RECIPES:
        near = difflib.get_close_matches(name, _RECIPES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"unknown recipe {name!r}{hint} Known: {', '.join(sorted(_RECIPES))}")
    return _RECIPES[name]


def list_recipes() -> list[str]:
    """Names of all recipes."""
    for home in _HOMES:
        importlib.import_module(home)
    return sorted(_RECIPES)


def resolve(name: str, settings: Mapping[str, Any]) -> Config:
    """A validated configuration of a recipe, every option filled in.

    Raises:
        ValueError: unknown or ill-typed settings, each named, with the list of valid ones.
    """
    config = get_recipe(name).config
    try:
        return config(**settings)
    except ValidationError as problem:
        lines = [_mistake(error) for error in problem.errors()]
        valid = ", ".join(config.model_fields)
        raise ValueError(
            "\n".join([f"bad settings for recipe {name!r}:", *lines, f"valid settings: {valid}"])
        ) from None


def _mistake(error: Any) -> str:
    """One line of a validation error; a rule about several settings at once needs no dump of all of them."""
    what = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return f"  {what}"
    return f"  {'.'.join(map(str, error['loc']))}: {what} (got {error['input']!r})"
