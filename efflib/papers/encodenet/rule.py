"""Which reading of the paper, if any, reproduces table 3: a rule that was fixed before any run (spec, section 2.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from efflib.report.verdict import MIN_SEEDS, Comparison, paired, shift

NEAR = 5.0  # points: how far below the baseline the identity target may end
ERRORS = 2.0  # standard errors that a difference must exceed

Arm = tuple[str, str | None]  # method and target

# What cluster codes have to beat before their images may be given the credit, per reading whose controls exist.
CONTROLS: dict[str, tuple[Arm, ...]] = {
    "encodenet": (
        ("baseline_long", None),
        ("encodenet", "rand_rep"),
        ("encodenet", "noise_code"),
        ("subclass", None),
    ),
    "finetune": (
        ("baseline_long", None),
        ("finetune", "rand_rep"),
        ("finetune", "noise_code"),
        ("subclass_finetune", None),
    ),
}

REPRODUCES, EXPLAINED = "reproduces table 3", "ordering reproduced but explained by a control"
ORDERED, FAILS = "ordering reproduced, mechanism open", "does not reproduce table 3"
OPEN, NOT_RUN = "undetermined", "not run"
OUTCOMES = (REPRODUCES, EXPLAINED, ORDERED, FAILS, OPEN, NOT_RUN)


@dataclass(frozen=True)
class Step:
    """One inequality of the rule: mean of the differences paired by seed, their standard error, what follows.

    status: "holds" (above 2 standard errors), "fails" (below minus 2), "open" (between, or fewer than three seeds), or
    "not run".
    """

    label: str
    samples: Mapping[int, float]
    status: str

    @property
    def mean(self) -> float | None:
        return fmean(self.samples.values()) if self.samples else None


@dataclass(frozen=True)
class Decision:
    """What the rule says of one reading, with its inequalities: the ordering first, then the controls."""

    reading: str
    outcome: str
    reason: str
    steps: tuple[Step, ...]


def decide(results: Any, setting: Mapping[str, str], reading: str) -> Decision:
    """Apply the rule to one reading.

    It reproduces table 3 if accuracy(identity) < baseline < accuracy(class) < accuracy(cluster), each difference above
    two standard errors over seeds, identity lies within 5 points of the baseline, and cluster beats every control.

    Args:
        results: of table 3 at one scale.
        setting: network and data set.
        reading: a method of the grid.
    """
    ordering = [_step(results, setting, low, high) for low, high in _ordering(reading)]
    near = identity_is_near(results, setting, reading)
    ordering.append(Step(near.label, near.samples or {}, _status(near.samples or {})))
    controls = [_step(results, setting, arm, (reading, "cluster")) for arm in CONTROLS.get(reading, ())]
    outcome, reason = _outcome(ordering, controls)
    return Decision(reading, outcome, reason, (*ordering, *controls))


def identity_is_near(results: Any, setting: Mapping[str, str], reading: str) -> Comparison:
    """The rule's last condition: the identity target ends less than 5 points below the baseline."""
    identity, baseline = (arm_samples(results, setting, arm) for arm in ((reading, "identity"), ("baseline", None)))
    return Comparison(f"{reading} identity - baseline + {NEAR:g}", shift(paired(identity, baseline), NEAR))


def _ordering(reading: str) -> list[tuple[Arm, Arm]]:
    steps: list[Arm] = [(reading, "identity"), ("baseline", None), (reading, "class"), (reading, "cluster")]
    return [(steps[place], steps[place + 1]) for place in range(3)]


def _step(results: Any, setting: Mapping[str, str], low: Arm, high: Arm) -> Step:
    samples = paired(arm_samples(results, setting, high), arm_samples(results, setting, low))
    return Step(f"{said(high)} > {said(low)}", samples, _status(samples))


def arm_samples(results: Any, setting: Mapping[str, str], arm: Arm) -> dict[int, float]:
    """Seed -> accuracy of an arm of table 3."""
    method, target = arm
    return results.samples(**setting, method=method, **({"target": target} if target else {}))


def _status(samples: Mapping[int, float]) -> str:
    if not samples:
        return NOT_RUN
    if len(samples) < MIN_SEEDS:
        return "open"
    values = list(samples.values())
    error = stdev(values) / math.sqrt(len(values))
    if abs(fmean(values)) <= ERRORS * error:
        return "open"
    return "holds" if fmean(values) > 0 else "fails"


def _outcome(ordering: Sequence[Step], controls: Sequence[Step]) -> tuple[str, str]:
    failed = [step.label for step in ordering if step.status == "fails"]
    if failed:
        return FAILS, f"against: {'; '.join(failed)}"
    if all(step.status == NOT_RUN for step in ordering):
        return NOT_RUN, "no run of this reading"
    loose = [step.label for step in ordering if step.status != "holds"]
    if loose:
        return OPEN, f"not decided: {'; '.join(loose)}"
    beaten = [step.label for step in controls if step.status == "fails"]
    if beaten:
        return EXPLAINED, f"not better than its control: {'; '.join(beaten)}"
    if not controls or any(step.status != "holds" for step in controls):
        return ORDERED, "not every control is beaten beyond two standard errors, or not every control ran"
    return REPRODUCES, "ordering, nearness and every control"


def said(arm: Arm) -> str:
    """An arm in words: its method and, where it has one, its target."""
    return " ".join(part for part in arm if part)
