"""BIMask's tables: which trials repeat each of them at each scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Scale:
    """What a scale repeats; `pairs` are the default (model, data set) pairs of tables 2 and 3."""

    pairs: tuple[tuple[str, str], ...]
    finetune_epochs: int
    ratios: tuple[float, ...]
    layers: tuple[int, ...]


def _product(models: tuple[str, ...], datasets: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((model, dataset) for dataset in datasets for model in models)


# Spec, section 5, "Reduced versions"; data and lengths: efflib.papers.cifar.
SCALES = {
    "smoke": Scale(_product(("resnet14", "vgg8"), ("objects32",)), 1, (0.05, 0.1, 0.3), (-4, -1)),
    "tiny": Scale(
        (("resnet14", "cifar10"), ("resnet14", "cifar100"), ("vgg8", "cifar10")), 6, (0.05, 0.1, 0.3), (-4, -1)
    ),
    "small": Scale(_product(("vgg8", "resnet20"), claims.DATASETS), 10, (0.05, 0.1, 0.3), (-4, -1)),
    "paper": Scale(_product(claims.MODELS, claims.DATASETS), 30, claims.RATIOS, claims.CONV_INDICES),
}


def baseline(scale: str, model: str, dataset: str, seed: int) -> Trial:
    """The trial that trains a network from scratch as this paper does."""
    return cifar.baseline(scale, model, dataset, seed, _baseline_training(scale, model))


def arm(
    scale: str, model: str, dataset: str, seed: int, method: str, ratio: float | None = None, layer: int = -1
) -> Trial:
    """The trial that fine-tunes the same seed's baseline in one arm; equal numbers of updates in all arms."""
    parent = baseline(scale, model, dataset, seed)
    ratio = _ratio(model) if ratio is None else ratio
    return Trial.of(
        "bimask",
        parents={"baseline": parent},
        training=_finetuning(scale, _baseline_training(scale, model), method),
        method=method,
        masking_ratio=None if method == "original_only" else ratio,
        conv_index=layer,
        **cifar.shared(scale, model, dataset, seed),
    )


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
        for seed in seeds:
            for model, dataset in _pairs(scale, choices, SCALES[scale].pairs):
                cell = {"model": model, "dataset": dataset}
                yield {**cell, "method": "baseline"}, seed, baseline(scale, model, dataset, seed)
                for method in choices.get("methods") or methods:
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
    "table6": Table(
        "bimask", "table6", "Which layer gives the saliency (VGG13)", PRINTED["table6"], claims.CLAIMS["table6"],
        _layer_grid, {**_DATASETS, "layers": claims.CONV_INDICES},
    ),
    "table7": Table(
        "bimask", "table7", "How many pixels to remove (VGG8)", PRINTED["table7"], claims.CLAIMS["table7"],
        _ratio_grid, {**_DATASETS, "ratios": claims.RATIOS},
    ),
}  # fmt: skip
