"""The live run of the safety chapter, and what its pages share: a float CNN, its compressed twin, their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.display import HTML
from torch import nn

from efflib.data import ImageSet
from efflib.papers.pictures import trained_model
from efflib.papers.safety import arms
from efflib.papers.safety.audit import CNN, findings
from efflib.papers.safety.recipes import make_task, new_model, settings_of, training_images
from efflib.papers.safety.tasks import ImageTask
from efflib.quantize import preset, quantize_model
from efflib.report.audit import findings_for
from efflib.report.html import html_table
from efflib.report.notebook import ChanceLevel, chance_bar, finding_list
from efflib.trials import Trial
from efflib.trials.recipes import Context

if TYPE_CHECKING:
    from efflib.trials import Store
    from efflib.trials.record import Record

STEPS, EVERY = 200, 25  # of the live run: long enough that the clamp engages and channels die
LIVE_GAMMA, LIVE_RATE = 1.0, 0.1


def live_trial(seed: int, gamma: float = LIVE_GAMMA, lr_bits: float = LIVE_RATE, steps: int = STEPS) -> Trial:
    """Our setting in a short, hurried form on embedded digits: from 8 bits to the clamp and below within seconds.

    Args:
        seed: of weights and batches.
        gamma: weight of the penalty.
        lr_bits: rate of the bits; at 0.1 an unopposed bit depth is used up after 80 steps.
        steps: length; the result is noted, and the preservation set looked at, every 25.
    """
    chosen = preset("default", CNN)
    small = {"steps": steps, "batch_size": 32, "preserved": 32, "gamma": gamma, "lr_bits": lr_bits}
    settings = settings_of(chosen, "selected", **small)
    settings["restoration"] = {**settings["restoration"], "every": EVERY}
    common = {**arms.common("smoke", CNN, seed), "every": EVERY}
    return Trial.of("self_compression", {"float": arms.float_twin("smoke", CNN, seed)}, **{**settings, **common})


def network_of(trial: Trial, store: Store) -> nn.Module:
    """The network of a recorded float or self-compressed run, in eval mode.

    Raises:
        FileNotFoundError: the record or its weights are not here; run the trial first.
    """
    return trained_model(trial, store, _quantized if trial.recipe == "self_compression" else new_model)


def _quantized(settings: Any) -> nn.Module:
    return quantize_model(new_model(settings), settings.bits, settings.exponent)


@dataclass(frozen=True)
class Scene:
    """What the chapter looks at: a float CNN, its self-compressed twin, and the images of both.

    settings: of the compressed run. metrics: its record's. train: the training images; task: the same on the CPU.
    """

    settings: Any
    metrics: Mapping[str, Any]
    twin: nn.Module
    compressed: nn.Module
    train: ImageSet
    task: ImageTask


def scene(trial: Trial, store: Store) -> Scene:
    """Networks and images of a recorded compressed run.

    Raises:
        FileNotFoundError: record or weights are not here; run the trial first.
        ChanceLevel: the float twin does not beat guessing: it would teach nothing.
    """
    task = make_task(trial.settings, Context("cpu", "fp32", None, {}, progress=False, description="scene"))  # type: ignore[arg-type]
    assert isinstance(task, ImageTask)
    parent, record = trial.parents["float"], record_of(trial, store)
    refuse_chance(float(record_of(parent, store).metrics["last"]), len(task.test))
    train, _, _ = training_images(trial.settings)  # type: ignore[arg-type]
    twin, compressed = network_of(parent, store), network_of(trial, store)
    return Scene(trial.settings, record.metrics, twin, compressed, train, task)


def record_of(trial: Trial, store: Store) -> Record:
    """The record of a trial that ran.

    Raises:
        FileNotFoundError: there is none; run the trial first.
    """
    found = next((record for record in store.find(trial) if record.status == "ok"), None)
    if found is None:
        raise FileNotFoundError(f"no record of {trial.label} in {store.root}: run it first")
    return found


def refuse_chance(accuracy: float, images: int, classes: int = 10) -> None:
    """Check that the float twin beats guessing: it would teach nothing.

    Raises:
        ChanceLevel: names its accuracy and the bar.
    """
    bar = chance_bar(images, classes)
    if not accuracy > bar:
        raise ChanceLevel(
            f"the float twin reaches {accuracy:.1f} %, guessing plus three standard errors is {bar:.1f} %"
        )


def audit(page: str) -> Any:
    """The audit findings that concern a page, each linking to its place on the audit page."""
    return finding_list(findings_for(findings(page), page))


def page_table(rows: Sequence[Mapping[str, Any]], caption: str, name: str) -> Any:
    """Rows as a table of the safety pages; `name` tells it apart from the others."""
    return HTML(html_table(rows, caption, f"safety-{name}"))
