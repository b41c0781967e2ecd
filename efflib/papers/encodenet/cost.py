"""What EncodeNet and its peers cost: FLOPs of training, from the layers of the networks, without any run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from efflib.papers.baselines import planned_images, training_flops
from efflib.papers.distillation import DistillConfig, distill_flops, work_of
from efflib.papers.encodenet.recipes import SecondStageConfig, autoencoder_flops, second_stage_flops
from efflib.trials.trial import Trial


@dataclass(frozen=True)
class Cost:
    """Training FLOPs behind one classifier, evaluations left out.

    before: the networks that must be trained first, a teacher, or the baseline that EncodeNet's codes come from.
    preparation: FT's paraphraser, EncodeNet's autoencoder. network: the tested network itself, with the teacher's
    forward passes beside it; EncodeNet's second stage.
    """

    before: float
    preparation: float
    network: float

    @property
    def added(self) -> float:
        """Without the networks that come before."""
        return self.preparation + self.network

    @property
    def whole(self) -> float:
        return self.before + self.added

    @property
    def extra(self) -> float:
        """rho: what is added, in units of what comes before (EncodeNet: its baseline's training; spec, section 5.0)."""
        return self.added / self.before


def cost_of(trial: Trial) -> Cost:
    """Cost of a baseline, a distilled student or a second stage on an autoencoder.

    A backward pass counts as two forward ones. Clustering and ranking, single passes over the images, are left out.
    """
    about: Any = trial.settings
    kept, _ = planned_images(about)
    if isinstance(about, DistillConfig):
        network = work_of(about).step * kept * about.training.epochs
        return Cost(cost_of(trial.parents["teacher"]).whole, distill_flops(about, kept, 0) - network, network)
    if isinstance(about, SecondStageConfig):
        encoder = trial.parents["encoder"]
        converting = autoencoder_flops(encoder.settings, kept, 0)  # type: ignore[arg-type]
        return Cost(cost_of(encoder.parents["baseline"]).whole, converting, second_stage_flops(about, kept, 0))
    return Cost(0.0, 0.0, training_flops(about, kept, 0))
