"""EncodeNet's arms: which autoencoder and which second stage each name stands for, at every scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from efflib.papers import cifar
from efflib.papers.baselines import ClassifierConfig, planned_images, training_flops
from efflib.papers.distillation import Options
from efflib.papers.encodenet.recipes import (
    autoencoder_flops,
    classification,
    conversion,
    second_stage_flops,
)
from efflib.training import TrainingRecipe, cifar_rd, encodenet_attention, encodenet_base
from efflib.trials.trial import Trial

# Epochs of the paper's baseline and autoencoder (section 4.1) and of our second stage; shorter runs keep 3 : 5 : 1.
BASELINE, AUTOENCODER, SECOND = 300, 500, 100


@dataclass(frozen=True)
class Reading:
    """How the paper can be read: where the encoder starts, and what the second stage trains (spec, section 2.7)."""

    encoder_init: str
    stage2: str
    head_init: str = "fresh"


# The first is the text taken literally. A baseline's own head is kept where everything else of it is kept too.
READINGS = {
    "encodenet": Reading("scratch", "frozen"),
    "finetune": Reading("scratch", "finetune"),
    "scratch_last_stage": Reading("scratch", "last_stage"),
    "scratch_adapt_bn": Reading("scratch", "frozen_adapt_bn"),
    "warm_frozen": Reading("baseline", "frozen"),
    "warm_finetune": Reading("baseline", "finetune", "kept"),
    "warm_last_stage": Reading("baseline", "last_stage"),
    "warm_adapt_bn": Reading("baseline", "frozen_adapt_bn"),
}
TARGETS = ("identity", "class", "cluster")
CODE_CONTROLS = ("rand_rep", "max_ent", "noise_code", "rand_cluster", "other_class_code")
CLUSTER_COUNTS = (1, 2, 5, 8)  # beside the paper's 3
SOURCES = ("baseline_mid", "pixels", "imagenet_vgg16")  # beside the baseline's last features

Codes = dict[str, Any]


def baseline(scale: str, model: str, dataset: str, seed: int, training: TrainingRecipe | None = None) -> Trial:
    """A network trained alone: with the paper's recipe at paper scale, the CIFAR papers' shared one below it."""
    return cifar.baseline(scale, model, dataset, seed, training or own_training(scale), network(scale, model))


def own_training(scale: str) -> TrainingRecipe | None:
    """Recipe of tables 1 to 3 at paper scale; None, the shared one, elsewhere."""
    return encodenet_base() if scale == "paper" else None


def attention_training(scale: str) -> TrainingRecipe | None:
    """Recipe of table 5 at paper scale, one for all its rows."""
    return encodenet_attention() if scale == "paper" else None


def distillation_training(scale: str) -> TrainingRecipe | None:
    """Recipe of table 4 at paper scale, for its teachers, students and baselines alike."""
    return cifar_rd() if scale == "paper" else None


def network(scale: str, model: str) -> Options:
    """Options of a network at a scale, over those of `cifar.SIZES`: a ResNet50 halves the images at smoke scale."""
    if scale == "smoke" and model.startswith("resnet50"):
        return {"stem": "cifar_pool", "width": 0.125}
    return {}


def codebook(parent: Trial, codes: str = "cluster", **options: Any) -> Trial:
    """Clusters and representatives that a baseline sees in its training images."""
    return Trial.of("codebook", parents={"baseline": parent}, codes=codes, **_like(parent), **options)


def autoencoder(
    scale: str, parent: Trial, target: str = "cluster", encoder_init: str = "scratch", **codes: Any
) -> Trial:
    """The converting autoencoder of a baseline.

    Args:
        scale: gives the length of the training.
        parent: the trial of the baseline.
        target: "identity", or the codes of the codebook.
        encoder_init: "scratch" or "baseline".
        codes: further options of the codebook.
    """
    book = codebook(parent, "cluster" if target == "identity" else target, **codes)
    settings = {**_like(parent), "training": conversion(_length(parent, AUTOENCODER))}
    if scale == "smoke":
        settings["decoder_width"] = 0.125
    return Trial.of(
        "autoencoder",
        parents={"baseline": parent, "codebook": book},
        target="identity" if target == "identity" else "codes",
        encoder_init=encoder_init,
        **settings,
    )


def encodenet(scale: str, parent: Trial, reading: str = "encodenet", target: str = "cluster", **codes: Any) -> Trial:
    """The classifier that a reading of the paper makes of a baseline."""
    chosen = READINGS[reading]
    encoder = autoencoder(scale, parent, target, chosen.encoder_init, **codes)
    return second_stage(parent, encoder, chosen.stage2, chosen.head_init)


def second_stage(parent: Trial, encoder: Trial, stage2: str, head_init: str = "fresh") -> Trial:
    """A head on a trained encoder: as long for every encoder of one baseline."""
    lr = 0.1 if stage2.startswith("frozen") else 0.01
    training = classification(_length(parent, SECOND), lr)
    settings = {**_like(parent), "training": training}
    return Trial.of("second_stage", parents={"encoder": encoder}, stage2=stage2, head_init=head_init, **settings)


def baseline_long(scale: str, parent: Trial) -> Trial:
    """The baseline trained for as many FLOPs as baseline, autoencoder and literal second stage together."""
    longer = whole_epochs(scale, parent)
    about: Any = parent.settings
    return Trial.of("baseline", **{**_like(parent), "training": _stretched(about.training, longer)})


def whole_epochs(scale: str, parent: Trial) -> int:
    """Epochs of `baseline_long`: 1 + rho times the baseline's (spec, section 5.0), rounded half up."""
    about: Any = parent.settings
    return int(about.training.epochs * (1 + extra_cost(scale, parent)) + 0.5)


def extra_cost(scale: str, parent: Trial) -> float:
    """rho: training FLOPs of autoencoder and literal second stage over the baseline's, evaluations left out."""
    stage: Any = encodenet(scale, parent)
    made: Any = stage.parents["encoder"].settings
    kept, _ = planned_images(made)
    extra = autoencoder_flops(made, kept, 0) + second_stage_flops(stage.settings, kept, 0)
    return extra / training_flops(parent.settings, kept, 0)  # type: ignore[arg-type]


def baseline_warm(parent: Trial) -> Trial:
    """The baseline fine-tuned as the second stage does, without any autoencoder."""
    return second_stage(parent, parent, "finetune", "kept")


def head_only(parent: Trial) -> Trial:
    """A fresh head on the baseline's own frozen encoder."""
    return second_stage(parent, parent, "frozen")


def subclass(parent: Trial) -> Trial:
    """Cross-entropy on the sub-classes, then the literal second stage: the labels of the codes without any image."""
    about: Any = parent.settings
    length = _length(parent, AUTOENCODER)
    settings = {**_like(parent), "training": _stretched(about.training, length)}
    made = Trial.of("subclasses", parents={"baseline": parent, "codebook": codebook(parent)}, **settings)
    return second_stage(parent, made, "frozen")


def _like(parent: Trial) -> dict[str, Any]:
    """Network, data and seed of a baseline."""
    return {name: getattr(parent.settings, name) for name in ClassifierConfig.model_fields}


def _length(parent: Trial, stated: int) -> int:
    about: Any = parent.settings
    return max(1, int(about.training.epochs * stated / BASELINE + 0.5))


def _stretched(training: TrainingRecipe, epochs: int) -> TrainingRecipe:
    """The same recipe over another number of epochs, its drops at the same share of the run."""
    drops = tuple(int(drop * epochs / training.epochs + 0.5) for drop in training.milestones)
    return training.model_copy(update={"epochs": epochs, "milestones": drops})
