"""Which reading of the paper, if any, shows table 3's ordering, and what the ordering is due to.

The rule follows the spec (section 2.7); the page of table 3 tells what was changed in it when. It asks two questions of
a reading. First: do the accuracies have the printed order? Only then: is the credit due to the codes' images, or does a
control without them do as well?
"""

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

BASELINE: Arm = ("baseline", None)
_LONGER: Arm = ("baseline_long", None)
# What cluster codes have to beat before their images may be given the credit. The spec's four controls exist for the
# two main readings. The others have those of budget; a reading that starts from the baseline, also the same second
# stage without any autoencoder.
CONTROLS: dict[str, tuple[Arm, ...]] = {
    "encodenet": (_LONGER, ("encodenet", "rand_rep"), ("encodenet", "noise_code"), ("subclass", None)),
    "finetune": (_LONGER, ("finetune", "rand_rep"), ("finetune", "noise_code"), ("subclass_finetune", None)),
    "warm_frozen": (_LONGER, ("head_only", None)),
    "warm_finetune": (_LONGER, ("baseline_warm", None)),
}
COMPLETE = ("encodenet", "finetune")  # readings with controls of the codes: only their mechanism can be supported

SUPPORTED, EXPLAINED = "ordering shown, mechanism supported", "ordering shown, explained by a control"
ORDERED, FAILS = "ordering shown, mechanism open", "ordering not shown"
OPEN, NOT_RUN = "undetermined", "not run"
SHOWN = (SUPPORTED, EXPLAINED, ORDERED)
OUTCOMES = (*SHOWN, FAILS, OPEN, NOT_RUN)


@dataclass(frozen=True)
class Step:
    """One inequality of the rule: the differences paired by seed, and what follows.

    status: "holds" (mean above 2 standard errors), "fails" (below minus 2), "open" (between, or fewer than three
    seeds), or "not run".
    """

    label: str
    samples: Mapping[int, float]
    status: str


@dataclass(frozen=True)
class Control:
    """A control of the mechanism: whether cluster codes beat it, and whether it gains over the baseline itself."""

    arm: Arm
    beaten: Step
    gains: Step

    @property
    def explains(self) -> bool:
        """It gains, and the codes are not better: what they gain could be what the control gains."""
        return self.gains.status == "holds" and self.beaten.status in ("open", "fails")


@dataclass(frozen=True)
class Decision:
    """What the rule says of one reading, with its inequalities: the ordering first, then the controls."""

    reading: str
    outcome: str
    reason: str
    steps: tuple[Step, ...]


def decide(results: Any, setting: Mapping[str, str], reading: str) -> Decision:
    """Apply the rule to one reading.

    It shows the ordering if accuracy(identity) < baseline < accuracy(class) < accuracy(cluster), each difference above
    two standard errors over seeds, and identity lies within 5 points of the baseline. Its mechanism is supported if
    cluster beats every control as clearly, and explained by those that it does not beat and that gain themselves.

    Args:
        results: of table 3 at one scale.
        setting: network and data set.
        reading: a method of the grid.
    """
    ordering = [_step(results, setting, low, high) for low, high in _ordering(reading)]
    near = identity_is_near(results, setting, reading)
    ordering.append(Step(near.label, near.samples or {}, _status(near.samples or {})))
    controls = [_control(results, setting, reading, arm) for arm in controls_of(reading)]
    outcome, reason = _outcome(ordering, controls, reading in COMPLETE)
    return Decision(reading, outcome, reason, (*ordering, *(control.beaten for control in controls)))


def controls_of(reading: str) -> tuple[Arm, ...]:
    """What a reading's cluster codes are compared with: at least the baseline for as many FLOPs."""
    return CONTROLS.get(reading, (_LONGER,))


def identity_is_near(results: Any, setting: Mapping[str, str], reading: str) -> Comparison:
    """The rule's last condition: the identity target ends less than 5 points below the baseline."""
    identity, baseline = (arm_samples(results, setting, arm) for arm in ((reading, "identity"), BASELINE))
    return Comparison(f"{reading} identity - baseline + {NEAR:g}", shift(paired(identity, baseline), NEAR))


def _ordering(reading: str) -> list[tuple[Arm, Arm]]:
    steps: list[Arm] = [(reading, "identity"), BASELINE, (reading, "class"), (reading, "cluster")]
    return [(steps[place], steps[place + 1]) for place in range(3)]


def _control(results: Any, setting: Mapping[str, str], reading: str, arm: Arm) -> Control:
    beaten, gains = (_step(results, setting, *pair) for pair in ((arm, (reading, "cluster")), (BASELINE, arm)))
    return Control(arm, beaten, gains)


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


def _outcome(ordering: Sequence[Step], controls: Sequence[Control], complete: bool) -> tuple[str, str]:
    failed = [step.label for step in ordering if step.status == "fails"]
    if failed:
        return FAILS, f"against: {'; '.join(failed)}"
    if all(step.status == NOT_RUN for step in ordering):
        return NOT_RUN, "no run of this reading"
    loose = [step.label for step in ordering if step.status != "holds"]
    if loose:
        return OPEN, f"not decided: {'; '.join(loose)}"
    return _mechanism(controls, complete)


def _mechanism(controls: Sequence[Control], complete: bool) -> tuple[str, str]:
    """The second question, asked once the ordering is shown."""
    explaining = [said(control.arm) for control in controls if control.explains]
    if explaining:
        return EXPLAINED, f"these gain too, and cluster codes are not better: {', '.join(explaining)}"
    loose = [
        f"{said(control.arm)} ({control.beaten.status})" for control in controls if control.beaten.status != "holds"
    ]
    if loose:
        return ORDERED, f"not decided against: {', '.join(loose)}"
    if not complete:
        return ORDERED, "nothing controls for what the codes show: those runs belong to R1 and R3"
    return SUPPORTED, "ordering, nearness and every control"


def said(arm: Arm) -> str:
    """An arm in words: its method and, where it has one, its target."""
    return " ".join(part for part in arm if part)
