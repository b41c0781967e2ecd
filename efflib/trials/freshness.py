"""Is a record still what today's source would measure? Canaries answer without repeating the run.

Each record carries the hash of the source that made it and what the recipe's canary (a fixed run of a few seconds on
embedded data) gave with that source. When the source has changed since, today's canary decides: equal numbers mean
that the change did not touch the recipe's meaning, anything else makes the record stale. Known canaries of source
hashes are kept in `results/equivalent.json`, so that readers need not run them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from efflib.trials.provenance import source_hash, versions
from efflib.trials.recipes import get_recipe
from efflib.trials.record import Record
from efflib.trials.roots import cache_root, results_root
from efflib.trials.store import set_aside, write_atomically

# Canaries run in float64: machines and thread counts differ far less than this, a changed recipe far more.
TOLERANCE = 1e-5


def stale_reason(record: Record) -> str | None:
    """Why a record is stale, or None if it is not."""
    version = get_recipe(record.recipe).version
    if record.recipe_version != version:
        return f"of version {record.recipe_version} of its recipe, today's is {version}"
    if record.provenance.source_hash == source_hash(record.recipe):
        return None
    today = canary(record.recipe)
    known = record.provenance.canary
    if not known:
        return "the source changed and the record has no canary"
    changed = differences(known, today)
    return f"the source changed and the canary differs: {', '.join(changed)}" if changed else None


def differences(known: Mapping[str, float], today: Mapping[str, float]) -> list[str]:
    """What a canary's numbers changed to, one text each; none where they mean the same.

    A number that only today's canary has tells of something new, not of a change in what was done before.
    """
    return [
        f"{name} {known[name]} -> {today.get(name)}"
        for name in sorted(known)
        if not _close(known[name], today.get(name))
    ]


@cache
def canary(recipe: str) -> dict[str, float]:
    """Today's canary of a recipe: from results/equivalent.json, else from the cache, else run now."""
    known = equivalents().get(recipe, {}).get(source_hash(recipe))
    return known if known is not None else _cached_canary(recipe)


def note_canaries(recipes: list[str], path: Path | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Add today's canaries to equivalent.json, so that refactored source does not void its records."""
    path = path or _equivalents_path()
    known = equivalents(path)
    for recipe in recipes:
        known.setdefault(recipe, {})[source_hash(recipe)] = canary(recipe)
    write_atomically(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known


def equivalents(path: Path | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """{recipe: {source hash: canary}} as committed."""
    path = path or _equivalents_path()
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as problem:
        raise ValueError(f"{path} cannot be read ({problem}): restore it from git, or remove it") from problem


def _equivalents_path() -> Path:
    return results_root() / "equivalent.json"


def _cached_canary(recipe: str) -> dict[str, float]:
    # The torch version is part of the name: another version is another measurement.
    name = f"{recipe}-{source_hash(recipe)}-torch{versions()['torch']}.json"
    path = cache_root() / "canary" / name
    if path.exists():
        try:
            return json.loads(path.read_text())
        except ValueError as problem:
            set_aside(path, str(problem))
    values = {name: float(value) for name, value in get_recipe(recipe).canary().items()}
    write_atomically(path, json.dumps(values))
    return values


def _close(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
