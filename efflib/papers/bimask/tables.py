"""BIMask's tables: which trials repeat each of them at each scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efflib.curricula import PROTOCOL_EPOCHS, scaled_options
from efflib.curricula.lerac import LeRaC, shifted
from efflib.data import NORMALISATION
from efflib.papers import cifar
from efflib.papers.bimask import claims
from efflib.papers.bimask.recipes import ft_default
from efflib.papers.table import Table, load_printed
from efflib.training import TrainingRecipe, cifar_lr, cifar_rd
from efflib.trials.trial import Trial

PRINTED = load_printed(Path(__file__).with_name("printed.yaml"))

ARMS = ("bimask", "masked_only", "original_only", "random", "shuffled", "inverse")
# The paper's ratios: 10 % for VGG, 7.5 % for residual networks (its section 4).
RATIOS = {"vgg": 0.10, "resnet": 0.075, "wrn": 0.075}
# Table 4's name of a curriculum -> ours.
CURRICULA = {name: name for name in claims.CURRICULA} | {"lcdnet_cl": "lcdnet"}
EQUAL_ARMS = tuple(f"{name}{claims.EQUAL}" for name in ("baseline", *CURRICULA))
# LeRaC's warm-up in epochs of 200 (spec, section 4.4); 5, the shortest, where nothing is said.
LERAC_EPOCHS = {("resnet18", "cifar100"): 6.0, ("wrn_52_2", "cifar10"): 7.0, ("wrn_52_2", "cifar100"): 7.0}


@dataclass(frozen=True)
class Scale:
    """What a scale repeats.

    Args:
        pairs: default (model, data set) pairs of tables 2 and 3.
        finetune_epochs: passes over the 2N images of the mixed set.
        ratios, layers: tables 7 and 6.
        columns: default (model, data set) pairs of table 4, and `curricula` its rows.
        teaching: (teacher, student) of table 5, and `distillers` its rows.
    """

    pairs: tuple[tuple[str, str], ...]
    finetune_epochs: int
    ratios: tuple[float, ...]
    layers: tuple[int, ...]
    columns: tuple[tuple[str, str], ...]
    curricula: tuple[str, ...]
    teaching: tuple[str, str]
    distillers: tuple[str, ...]


def _product(models: tuple[str, ...], datasets: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((model, dataset) for dataset in datasets for model in models)


# Spec, section 5, "Reduced versions"; data and lengths: efflib.papers.cifar.
_PAIR = (claims.TEACHER, claims.STUDENT)
_COLUMNS = _product(claims.CURRICULUM_MODELS, claims.DATASETS)
SCALES = {
    "smoke": Scale(
        pairs=_product(("resnet14", "vgg8"), ("objects32",)),
        finetune_epochs=1,
        ratios=(0.05, 0.1, 0.3),
        layers=(-4, -1),
        columns=(("vgg8", "objects32"),),  # a ResNet18 as narrow takes four times as long
        curricula=("cbs", "efficienttrain", "self_taught", "lerac"),
        teaching=("vgg13", "vgg8"),
        distillers=("kd",),
    ),
    "tiny": Scale(
        pairs=(("resnet14", "cifar10"), ("resnet14", "cifar100"), ("vgg8", "cifar10")),
        finetune_epochs=6,
        ratios=(0.05, 0.1, 0.3),
        layers=(-4, -1),
        columns=_product(("resnet18",), claims.DATASETS),
        curricula=("cbs", "lerac"),
        teaching=_PAIR,
        distillers=("kd", "at"),
    ),
    "small": Scale(
        pairs=_product(("vgg8", "resnet20"), claims.DATASETS),
        finetune_epochs=10,
        ratios=(0.05, 0.1, 0.3),
        layers=(-4, -1),
        columns=_COLUMNS,
        curricula=claims.CURRICULA,
        teaching=_PAIR,
        distillers=claims.DISTILLERS,
    ),
    "paper": Scale(
        pairs=_product(claims.MODELS, claims.DATASETS),
        finetune_epochs=30,
        ratios=claims.RATIOS,
        layers=claims.CONV_INDICES,
        columns=_COLUMNS,
        curricula=claims.CURRICULA,
        teaching=_PAIR,
        distillers=claims.DISTILLERS,
    ),
}
# Table 4 at `tiny` halves the channels (spec, section 5); smoke widths: efflib.papers.cifar.
_HALVED = {"model_options": {"width": 0.5}}


def baseline(scale: str, model: str, dataset: str, seed: int) -> Trial:
    """The trial that trains a network from scratch as this paper does."""
    return cifar.baseline(scale, model, dataset, seed, _baseline_training(scale, model))


def arm(
    scale: str, model: str, dataset: str, seed: int, method: str, ratio: float | None = None, layer: int = -1
) -> Trial:
    """The trial that fine-tunes the same seed's baseline in one arm; equal numbers of updates in all arms."""
    return fine_tuned(scale, baseline(scale, model, dataset, seed), method, ratio, layer)


def fine_tuned(scale: str, parent: Trial, method: str, ratio: float | None = None, layer: int = -1) -> Trial:
    """The trial that fine-tunes the network of another one, be it a baseline or trained by a curriculum."""
    about: Any = parent.settings
    ratio = _ratio(about.model) if ratio is None else ratio
    return Trial.of(
        "bimask",
        parents={"baseline": parent},
        training=_finetuning(scale, about.training, method),
        method=method,
        masking_ratio=None if method == "original_only" else ratio,
        conv_index=layer,
        **_same_run(about),
    )


def contender(scale: str, model: str, dataset: str, seed: int, method: str) -> Trial:
    """A trial of table 4: the baseline, a curriculum, BIMask, or a control whose name ends in `_equal`.

    A control goes on from the end of its namesake for the further epochs that BIMask has, on originals (the arm
    `original_only`): the same number of updates at the same rates.
    """
    own = baseline(scale, model, dataset, seed)
    if scale == "tiny":
        own = _changed(own, _HALVED)
    if method == "baseline":
        return own
    if method == "bimask":
        return fine_tuned(scale, own, "bimask")
    if method.endswith(claims.EQUAL):
        before = contender(scale, model, dataset, seed, method.removesuffix(claims.EQUAL))
        return fine_tuned(scale, before, "original_only")
    return _curriculum(scale, own, CURRICULA[method])


def _curriculum(scale: str, own: Trial, name: str) -> Trial:
    """The network of a baseline trained anew by a curriculum; spans keep their share of the run (spec, section 4.4)."""
    about: Any = own.settings
    stated = {"k": LERAC_EPOCHS.get((about.model, about.dataset), 5.0)} if name == "lerac" else {}
    epochs = about.training.epochs
    options = stated if epochs == PROTOCOL_EPOCHS else scaled_options(name, epochs, **stated)
    settings = {"training": about.training, "method": name, "options": options, **_same_run(about)}
    if name == "lerac":
        settings["training"] = shifted(about.training, LeRaC(**options))
    if name in ("self_taught", "lcdnet"):
        scorer = own if name == "self_taught" else scores(scale, about.dataset, about.seed)
        return Trial.of("paced", parents={"scorer": scorer}, **settings)
    return Trial.of("curriculum", **settings)


def scores(scale: str, dataset: str, seed: int) -> Trial:
    """The trial that scores LCDnet-CL's training images: an ImageNet ResNet50 at paper scale, else out of fold."""
    if scale == "paper":
        return Trial.of("imagenet_scores", dataset=dataset)
    training = cifar_rd(cifar.SIZES[scale].epochs)
    return Trial.of("fold_scores", training=training, **cifar.shared(scale, "resnet20", dataset, seed))


def teacher(scale: str, dataset: str, seed: int, setting: str) -> Trial:
    """A teacher of table 5: the seed's own baseline, or the same network after BIMask."""
    model = SCALES[scale].teaching[0]
    if setting == "bimask_teacher":
        return arm(scale, model, dataset, seed, "bimask")
    return baseline(scale, model, dataset, seed)


def student(scale: str, dataset: str, seed: int, method: str, setting: str) -> Trial:
    """A student of table 5, beside the teacher of its own seed."""
    model = SCALES[scale].teaching[1]
    training = _baseline_training(scale, model)
    return cifar.distilled(scale, method, model, teacher(scale, dataset, seed, setting), training=training)


def _same_run(about: Any) -> dict[str, Any]:
    """Data, network and seed of a trial, for another one that shares them."""
    names = ("dataset", "model", "seed", "subset", "holdout", "split_seed", "model_options")
    return {name: getattr(about, name) for name in names}


def _changed(own: Trial, settings: dict[str, Any]) -> Trial:
    """A baseline with other settings."""
    about: Any = own.settings
    return Trial.of("baseline", training=about.training, **{**_same_run(about), **settings})


def _baseline_training(scale: str, model: str) -> TrainingRecipe:
    """`cifar_rd` everywhere except, at paper scale, the two networks that the paper took from LeRaC."""
    if scale != "paper":
        return cifar_rd(cifar.SIZES[scale].epochs)
    if model in ("resnet18", "wrn_52_2"):
        return cifar_lr()
    # The authors' loaders apply CIFAR-100's constants to both sets (spec, section 4.1).
    return cifar_rd().model_copy(update={"normalisation": NORMALISATION["cifar100"]})


def _finetuning(scale: str, base: TrainingRecipe, method: str) -> TrainingRecipe:
    """`ft_default` with what it takes from the baseline. Masked-only has N images: twice the epochs, equal updates."""
    epochs = SCALES[scale].finetune_epochs * (2 if method == "masked_only" else 1)
    return ft_default(epochs, weight_decay=base.weight_decay, augment=base.augment, normalisation=base.normalisation)


def _ratio(model: str) -> float:
    return next(ratio for family, ratio in RATIOS.items() if model.startswith(family))


def _pairs(scale: str, choices: dict[str, tuple], default: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The scale's own pairs, or the product of what was chosen."""
    if not choices.get("models") and not choices.get("datasets"):
        return default
    models = choices.get("models") or tuple(dict.fromkeys(model for model, _ in default))
    datasets = choices.get("datasets") or tuple(dict.fromkeys(dataset for _, dataset in default))
    return _product(models, datasets)


Entries = Iterator[tuple[dict[str, Any], int, Trial]]


def _arms_grid(methods: tuple[str, ...]):
    """Grid of tables 2 and 3: each pair's baseline and its arms, one seed after another."""

    def grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
        # The minute of a smoke page has no room for the last control.
        own = tuple(name for name in methods if (scale, name) != ("smoke", "inverse"))
        for seed in seeds:
            for model, dataset in _pairs(scale, choices, SCALES[scale].pairs):
                cell = {"model": model, "dataset": dataset}
                yield {**cell, "method": "baseline"}, seed, baseline(scale, model, dataset, seed)
                for method in choices.get("methods") or own:
                    yield {**cell, "method": method}, seed, arm(scale, model, dataset, seed, method)

    return grid


def _layer_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 6: VGG13, the layer that gives the saliency."""
    datasets = choices.get("datasets") or _sweep_datasets(scale)
    for seed in seeds:
        for dataset in datasets:
            cell = {"model": "vgg13", "dataset": dataset}
            yield {**cell, "method": "baseline"}, seed, baseline(scale, "vgg13", dataset, seed)
            for layer in choices.get("layers") or SCALES[scale].layers:
                trial = arm(scale, "vgg13", dataset, seed, "bimask", layer=layer)
                yield {**cell, "method": "bimask", "conv_index": layer}, seed, trial


def _ratio_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 7: VGG8, the masking ratio, and the same sweep with other images' masks (control C3)."""
    datasets = choices.get("datasets") or _sweep_datasets(scale)
    for seed in seeds:
        for dataset in datasets:
            cell = {"model": "vgg8", "dataset": dataset}
            yield {**cell, "method": "baseline"}, seed, baseline(scale, "vgg8", dataset, seed)
            for ratio in choices.get("ratios") or SCALES[scale].ratios:
                for method in ("bimask", "shuffled"):
                    trial = arm(scale, "vgg8", dataset, seed, method, ratio)
                    yield {**cell, "method": method, "masking_ratio": ratio}, seed, trial


def _curriculum_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 4: baseline, curricula and BIMask, then all but BIMask with its further epochs (equal compute)."""
    own = SCALES[scale].curricula
    methods = choices.get("methods") or (*own, "bimask", *(f"{name}{claims.EQUAL}" for name in ("baseline", *own)))
    for seed in seeds:
        for model, dataset in _pairs(scale, choices, SCALES[scale].columns):
            for method in ("baseline", *methods):
                cell = {"model": model, "dataset": dataset, "method": method}
                yield cell, seed, contender(scale, model, dataset, seed, method)


def _teacher_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 5: the student alone, both teachers, then each method beside each teacher."""
    guide, pupil = SCALES[scale].teaching
    datasets = choices.get("datasets") or (("objects32",) if scale == "smoke" else claims.DATASETS)
    for seed in seeds:
        for dataset in datasets:
            alone = {"student": pupil, "dataset": dataset, "method": "baseline"}
            yield alone, seed, baseline(scale, pupil, dataset, seed)
            for setting in claims.TEACHERS:
                cell = {"teacher": guide, "dataset": dataset, "method": "teacher", "setting": setting}
                yield cell, seed, teacher(scale, dataset, seed, setting)
            for method in choices.get("methods") or SCALES[scale].distillers:
                for setting in claims.TEACHERS:
                    cell = {"teacher": guide, "student": pupil, "dataset": dataset, "method": method}
                    yield {**cell, "setting": setting}, seed, student(scale, dataset, seed, method, setting)


def _sweep_datasets(scale: str) -> tuple[str, ...]:
    return {"smoke": ("objects32",), "tiny": ("cifar10",)}.get(scale, claims.DATASETS)


_MODELS = {"models": claims.MODELS, "datasets": (*claims.DATASETS, "objects32"), "methods": ARMS}
_DATASETS = {"datasets": _MODELS["datasets"]}

tables = {
    "table2": Table(
        "bimask", "table2", "Baseline against BIMask, eight networks", PRINTED["table2"], claims.CLAIMS["table2"],
        _arms_grid(("bimask", "original_only", "random", "shuffled", "inverse")), _MODELS,
    ),
    "table3": Table(
        "bimask", "table3", "Fine-tuning on masked images only", PRINTED["table3"], claims.CLAIMS["table3"],
        _arms_grid(("masked_only", "original_only")), _MODELS,
    ),
    "table4": Table(
        "bimask", "table4", "BIMask against five curricula", PRINTED["table4"], claims.CLAIMS["table4"],
        _curriculum_grid,
        {"models": (*claims.CURRICULUM_MODELS, "vgg8"), **_DATASETS, "methods": (*CURRICULA, "bimask", *EQUAL_ARMS)},
        across=("model", "dataset"),
    ),
    "table5": Table(
        "bimask", "table5", "Does an enhanced teacher give better students?", PRINTED["table5"],
        claims.CLAIMS["table5"], _teacher_grid, {**_DATASETS, "methods": claims.DISTILLERS},
        across=("dataset", "setting"),
    ),
    "table6": Table(
        "bimask", "table6", "Which layer gives the saliency (VGG13)", PRINTED["table6"], claims.CLAIMS["table6"],
        _layer_grid, {**_DATASETS, "layers": claims.CONV_INDICES},
    ),
    "table7": Table(
        "bimask", "table7", "How many pixels to remove (VGG8)", PRINTED["table7"], claims.CLAIMS["table7"],
        _ratio_grid, {**_DATASETS, "ratios": claims.RATIOS},
    ),
}  # fmt: skip
