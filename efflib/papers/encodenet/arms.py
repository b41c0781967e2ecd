"""EncodeNet's arms: which autoencoder and which second stage each name stands for, at every scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from efflib.papers import cifar
from efflib.papers.baselines import ClassifierConfig
from efflib.papers.distillation import Options
from efflib.papers.encodenet.cost import cost_of
from efflib.papers.encodenet.recipes import classification, conversion
from efflib.training import TrainingRecipe, cifar_rd, encodenet_attention, encodenet_base
from efflib.trials.trial import Trial

# Epochs of the paper's baseline and autoencoder (section 4.1) and of our second stage; shorter runs keep 3 : 5 : 1.
BASELINE, AUTOENCODER, SECOND = 300, 500, 100
# Smoke gives up the proportion: a shorter autoencoder, and a second stage of more than a few dozen steps.
SMOKE_LENGTHS = {AUTOENCODER: 6, SECOND: 8}


# Precision of the one pass of the baseline that ranks and clusters; None: the run's. bf16 moves the lowest entropies by
# percents. The evidence of tiny was recorded so before that was noticed (the chapter's page gives the measured effect).
RANKED_IN: dict[str, Literal["fp32"] | None] = {"smoke": "fp32", "tiny": None, "small": "fp32", "paper": "fp32"}


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
BUDGETS = ("baseline_long", "baseline_warm", "head_only", "subclass", "subclass_finetune")  # controls without codes
CODE_CONTROLS = ("rand_rep", "max_ent", "noise_code", "rand_cluster", "other_class_code")
# Cluster codes with other options of the codebook: the number of clusters, and what is clustered.
VARIANTS: dict[str, dict[str, Any]] = {
    "cluster_k2": {"k": 2},
    "cluster_k5": {"k": 5},
    "cluster_k8": {"k": 8},
    "cluster_mid": {"feature_source": "baseline_mid"},
    "cluster_pixels": {"feature_source": "pixels"},
    "cluster_penultimate": {"feature_source": "baseline_penultimate"},
    "cluster_vgg16": {"feature_source": "imagenet_vgg16"},
    "cluster_hdbscan": {"cluster_method": "hdbscan"},
    "cluster_cosine": {"cluster_method": "cosine"},
}
# Cluster codes that the autoencoder converts to with other options of its own.
CONVERSIONS: dict[str, dict[str, Any]] = {"cluster_pooled": {"bottleneck": "pooled"}}
CLUSTERS = ("cluster", *VARIANTS, *CONVERSIONS)
OTHER_CODES = (*CODE_CONTROLS, *VARIANTS, *CONVERSIONS)  # beside those of the paper, TARGETS


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
    """Options of a network at a scale, over those of `cifar.SIZES`: smoke's ResNet50s shrink the images at the stem."""
    if scale == "smoke" and model.startswith("resnet50"):
        return {"stem": "imagenet", "width": 0.125}
    return {}


def codebook(scale: str, parent: Trial, target: str = "cluster", source: str | None = None) -> Trial:
    """Clusters and representatives that a baseline sees in its training images; arguments as in `autoencoder`."""
    codes = "cluster" if target in (*CLUSTERS, "identity") else target
    options = {"feature_source": source or own_source(scale), **VARIANTS.get(target, {})} if codes != "class" else {}
    settings = {**_like(parent), "precision": RANKED_IN[scale]}
    return Trial.of("codebook", parents={"baseline": parent}, codes=codes, **settings, **options)


def own_source(scale: str) -> str:
    """What is clustered: at paper scale the paper's ImageNet features, elsewhere the baseline's own."""
    return "imagenet_vgg16" if scale == "paper" else "baseline_penultimate"


def autoencoder(
    scale: str, parent: Trial, target: str = "cluster", encoder_init: str = "scratch", source: str | None = None
) -> Trial:
    """The converting autoencoder of a baseline.

    Args:
        scale: gives the length of the training.
        parent: the trial of the baseline.
        target: one of TARGETS or OTHER_CODES.
        encoder_init: "scratch" or "baseline".
        source: features that are clustered, None for those of the scale.
    """
    settings = {**_like(parent), "training": conversion(_length(scale, AUTOENCODER)), **CONVERSIONS.get(target, {})}
    if scale == "smoke":
        settings["decoder_width"] = 0.125
    return Trial.of(
        "autoencoder",
        parents={"baseline": parent, "codebook": codebook(scale, parent, target, source)},
        target="identity" if target == "identity" else "codes",
        encoder_init=encoder_init,
        **settings,
    )


def encodenet(
    scale: str, parent: Trial, reading: str = "encodenet", target: str = "cluster", source: str | None = None
) -> Trial:
    """The classifier that a reading of the paper makes of a baseline; `target`, `source` as in `autoencoder`."""
    chosen = READINGS[reading]
    encoder = autoencoder(scale, parent, target, chosen.encoder_init, source)
    return second_stage(scale, parent, encoder, chosen.stage2, chosen.head_init)


def second_stage(scale: str, parent: Trial, encoder: Trial, stage2: str, head_init: str = "fresh") -> Trial:
    """A head on a trained encoder: as long for every encoder of one baseline."""
    lr = 0.1 if stage2.startswith("frozen") else 0.01
    training = classification(_length(scale, SECOND), lr)
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
    return cost_of(encodenet(scale, parent)).extra


def baseline_warm(scale: str, parent: Trial) -> Trial:
    """The baseline fine-tuned as the second stage does, without any autoencoder."""
    return second_stage(scale, parent, parent, "finetune", "kept")


def head_only(scale: str, parent: Trial) -> Trial:
    """A fresh head on the baseline's own frozen encoder."""
    return second_stage(scale, parent, parent, "frozen")


def subclass(scale: str, parent: Trial, stage2: str = "frozen", source: str | None = None) -> Trial:
    """Cross-entropy on the sub-classes, then the second stage: the labels that the codes carry, without any image."""
    book = codebook(scale, parent, source=source)
    made = Trial.of("subclasses", parents={"baseline": parent, "codebook": book}, **_like(parent))
    return second_stage(scale, parent, made, stage2)


def _like(parent: Trial) -> dict[str, Any]:
    """Network, data and seed of a baseline."""
    return {name: getattr(parent.settings, name) for name in ClassifierConfig.model_fields}


def _length(scale: str, stated: int) -> int:
    """Epochs at a scale: as stated at paper scale, elsewhere the same share of the baseline's."""
    if scale == "smoke":
        return SMOKE_LENGTHS[stated]
    return stated if scale == "paper" else max(1, int(cifar.SIZES[scale].epochs * stated / BASELINE + 0.5))


def _stretched(training: TrainingRecipe, epochs: int) -> TrainingRecipe:
    """The same recipe over another number of epochs, its drops at the same share of the run."""
    drops = tuple(int(drop * epochs / training.epochs + 0.5) for drop in training.milestones)
    return training.model_copy(update={"epochs": epochs, "milestones": drops})
