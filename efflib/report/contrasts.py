"""Differences between arms in words and rows, and when a difference must not be told as a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from efflib.report.audit import label
from efflib.report.measures import Measure
from efflib.report.verdict import interval_text, paired

Arm = str | Mapping[str, Any]  # a method, or the keys that tell an arm from the others, e.g. {"target": "class"}


def contrast(results: Any, measure: Measure, setting: Mapping[str, Any], contrasts: Sequence[tuple[Arm, Arm]]) -> str:
    """One setting's differences in words; empty where no two arms have a seed in common."""
    parts = []
    for one, other in contrasts:
        spoiled = [f"`{_named(arm)}`" for arm in (one, other) if _spoiled(results, setting, arm)]
        if spoiled:
            parts.append(
                f"`{_named(one)}` less `{_named(other)}` not given: runs of {', '.join(spoiled)} failed or broke down"
            )
            continue
        difference = paired(*(measure.samples(results, **setting, **_keys_of(arm)) for arm in (one, other)))
        if difference:
            text = interval_text(difference, measure.decimals, signed=True)
            parts.append(f"`{_named(one)}` less `{_named(other)}` {text}")
    return f"{label(setting)}: {'; '.join(parts)}" if parts else ""


def decomposed(results: Any, measure: Measure, setting: Mapping[str, Any], steps: Sequence[Arm]) -> dict[str, str]:
    """One setting's row: each step less the one before it, then the last less the first, paired by seed."""
    samples = [measure.samples(results, **setting, **_keys_of(step)) for step in steps]
    row = dict(setting)
    pairs = [*pairwise(range(len(steps))), (0, len(steps) - 1)]
    for before, after in pairs:
        text = interval_text(paired(samples[after], samples[before]), measure.decimals, signed=True)
        row[f"{_named(steps[after])} less {_named(steps[before])}"] = text
    return row


def settings_of(results: Any, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """What the cells say besides the arm (network, data set, teacher), each once, in order.

    Baselines' cells say it, where a table has any: an arm's own cell may have keys more, such as a ratio.
    """
    cells = [entry.cell for entry in results.entries]
    cells = [cell for cell in cells if cell.get("method") == "baseline"] or cells
    told = {"method"}.union(*map(_keys_of, arms))
    found = [{name: value for name, value in cell.items() if name not in told} for cell in cells]
    return [setting for place, setting in enumerate(found) if setting not in found[:place]]


def _keys_of(arm: Arm) -> dict[str, Any]:
    return {"method": arm} if isinstance(arm, str) else dict(arm)


def _named(arm: Arm) -> str:
    return label(_keys_of(arm))


def breakdown(entry: Any) -> str:
    """How a run lost most of what it had learned; nothing if it did not. Its mean with others tells little."""
    last, best = (entry.metrics.get(name) for name in ("last", "test_best"))
    if last is None or best is None or last >= best / 2:
        return ""
    return f"{last:.1f} after the last epoch, {best:.1f} after its best"


def _spoiled(results: Any, setting: Mapping[str, Any], arm: Arm) -> bool:
    """Whether a run of an arm failed or broke down: a difference of means would look like an effect."""
    entries = results.matching(**setting, **_keys_of(arm))
    return any((e.record is not None and e.record.failure and not e.stale) or breakdown(e) for e in entries)


def weak_teachers(results: Any, measure: Measure) -> str:
    """Sentences about teachers that are no better than the student alone: distillation can prove little with them."""
    told = ""
    for setting in settings_of(results, ["teacher", "baseline"]):
        teacher, alone = (measure.samples(results, **setting, method=name) for name in ("teacher", "baseline"))
        both = paired(teacher, alone)
        if both and fmean(both.values()) <= 0:
            means = [f"{fmean(samples[seed] for seed in both):.{measure.decimals}f}" for samples in (teacher, alone)]
            told += f" In {label(setting)} the teacher ({means[0]}) is no better than the student alone ({means[1]}): "
            told += "these runs do not test learning from a stronger network, and verdicts are about this setting only."
    return told
