"""A Trial: a recipe, a fully resolved configuration, and the trials it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from efflib.trials.recipes import Config, get_recipe, resolve

# Settings that tell trials of one recipe apart, for people; the later ones where they are not at their default.
_SHOWN = ("model", "dataset", "method", "masking_ratio", "conv_index", "seed")
_CHOSEN = (
    "codes", "k", "feature_source", "target", "encoder_init", "stage2", "head_init", "preset", "preserve", "gamma",
    "protocol", "options",
)  # fmt: skip


def digest(value: Any) -> str:
    """16 hex digits naming a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Trial:
    """One computation. Same recipe, configuration and parents: same identity, computed once, whichever table asks.

    Make one with `Trial.of("baseline", model="resnet14", ...)`. Two trials are equal when their identities are.
    """

    recipe: str
    settings: Config
    parents: Mapping[str, Trial] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: str, parents: Mapping[str, Trial] | None = None, **settings: Any) -> Trial:
        """A validated trial.

        Raises:
            ValueError: unknown recipe, unknown or ill-typed settings, missing or superfluous parents.
        """
        parents = dict(parents or {})
        needed = get_recipe(recipe).parents
        if set(parents) != set(needed):
            raise ValueError(
                f"recipe {recipe!r} needs parents {sorted(needed)}, got {sorted(parents)}: pass parents={{role: Trial}}"
            )
        strange = [f"{role}={trial!r}" for role, trial in parents.items() if not isinstance(trial, Trial)]
        if strange:
            raise ValueError(f"parents of {recipe!r} must be Trials, got {', '.join(strange)}")
        return cls(recipe, resolve(recipe, settings), parents)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration as JSON values."""
        return self.settings.model_dump(mode="json")

    @cached_property
    def identity(self) -> str:
        """Names what was asked, whatever data variant and precision it runs with."""
        return digest({**self._asked, "parents": {role: trial.identity for role, trial in self.parents.items()}})

    def key(self, fingerprint: str, precision: str, parents: Mapping[str, str]) -> str:
        """Names what was run: the request, the parents' keys, the data's fingerprint and the precision."""
        ran = {"parents": dict(parents), "fingerprint": fingerprint, "precision": precision}
        return digest({**self._asked, **ran})

    @property
    def _asked(self) -> dict[str, Any]:
        # Settings at their default stay out of the hash: a recipe may gain an option without renaming every trial.
        # That a default itself never changes unnoticed is checked when a record is matched (`Trial.agrees`).
        chosen = self.settings.model_dump(mode="json", exclude_defaults=True)
        return {"recipe": self.recipe, "version": get_recipe(self.recipe).version, "config": chosen}

    def agrees(self, config: Mapping[str, Any]) -> bool:
        """Whether a recorded configuration means the same: equal in every setting that both know."""
        return _agree(self.config, config)

    @property
    def label(self) -> str:
        """Short text for progress bars and lists."""
        found = {name: self.config[name] for name in _SHOWN if self.config.get(name) is not None}
        chosen = self.settings.model_dump(mode="json", exclude_defaults=True)
        found |= {name: chosen[name] for name in _CHOSEN if name in chosen}
        return " ".join([self.recipe, *(f"{name}={_said(value)}" for name, value in found.items())])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trial) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


def _said(value: Any) -> str:
    return ",".join(f"{k}:{v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _agree(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return all(_agree(a[name], b[name]) for name in a.keys() & b.keys())
    return a == b


def with_parents(trials: Iterable[Trial]) -> list[Trial]:
    """Each trial once, every parent before its children, otherwise in the given order."""
    done: dict[str, Trial] = {}
    for trial in trials:
        for each in _ancestors_first(trial):
            done.setdefault(each.identity, each)
    return list(done.values())


def _ancestors_first(trial: Trial) -> Iterator[Trial]:
    for parent in trial.parents.values():
        yield from _ancestors_first(parent)
    yield trial
