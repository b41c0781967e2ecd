"""Claims of the BIMask paper (and ours about it) as comparisons, fixed before any result existed.

The wording and the statistics follow section 5 of the implementation spec. Every comparison uses the headline
metric ``last`` (no checkpoint selection), and every difference is paired by seed: the arms of one seed share
the same baseline network. A claim about "all cells" lists all of them; cells without runs count as not run.
Claims about sizes (not only directions) need scale ``small``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from efflib.papers.table import Claim
from efflib.report.verdict import Comparison, paired

MODELS = ("vgg8", "vgg11", "vgg13", "resnet14", "resnet20", "resnet56", "resnet18", "wrn_52_2")
DATASETS = ("cifar10", "cifar100")
CONV_INDICES = (-4, -3, -2, -1)
RATIOS = (0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
BEST_RATIO = 0.1
EQUAL_BAND = 0.1  # points: how far a gain may lie from the mean gain and still be called nearly equal

Samples = Mapping[int, float]


# --- table 2: originals plus masked copies ----------------------------------------------------------------


def gain_everywhere(results: Any) -> list[Comparison]:
    """T2a: gain > 0 in all 16 cells (abstract: "consistent accuracy improvements")."""
    return _all_cells(results, "bimask", "baseline", ">")


def mean_gain_half_point(results: Any) -> list[Comparison]:
    """T2b: mean gain of the eight models >= 0.5 points on each data set (last row of Table 2)."""
    made = []
    for dataset in DATASETS:
        mean, found = _mean([_gain(results, "bimask", model=m, dataset=dataset) for m in MODELS])
        label = f"{dataset}: mean gain of {len(MODELS)} models - 0.5"
        made.append(Comparison(label, _shift(mean, -0.5), ">", len(MODELS), found))
    return made


def equal_gains(results: Any) -> list[Comparison]:
    """T2c: CIFAR-10 gains nearly equal for seven of eight models (Table 2; all but Wide-ResNet-50).

    Per model two one-sided comparisons: its gain less the mean gain of the seven lies above -0.1 and below
    +0.1 points. Both must agree, which is the usual test of equivalence.
    """
    models = [m for m in MODELS if m != "wrn_52_2"]
    gains = [_gain(results, "bimask", model=m, dataset="cifar10") for m in models]
    mean, found = _mean(gains)
    made = []
    for model, gain in zip(models, gains, strict=True):
        away = paired(gain, mean)
        for side, shift in ((">", EQUAL_BAND), ("<", -EQUAL_BAND)):
            label = f"{model}, cifar10: gain - mean gain {side} {-shift:+g}"
            made.append(Comparison(label, _shift(away, shift), side, len(models), found))
    return made


def vgg13_gains_most(results: Any) -> list[Comparison]:
    """T2d: VGG13 has the largest CIFAR-100 gain (Table 2: 1.61): it exceeds each of the other seven."""
    best = _gain(results, "bimask", model="vgg13", dataset="cifar100")
    made = []
    for model in MODELS:
        if model != "vgg13":
            other = _gain(results, "bimask", model=model, dataset="cifar100")
            made.append(Comparison(f"cifar100: gain of vgg13 - gain of {model}", paired(best, other)))
    return made


def beats_same_updates(results: Any) -> list[Comparison]:
    """T2e (ours): BIMask > C1, the same number of updates on originals only."""
    return _all_cells(results, "bimask", "original_only", ">")


def beats_shuffled(results: Any) -> list[Comparison]:
    """T2f (ours): BIMask > C3, every image masked with the mask of another image."""
    return _all_cells(results, "bimask", "shuffled", ">")


# --- table 3: masked copies only --------------------------------------------------------------------------


def masked_only_loses(results: Any) -> list[Comparison]:
    """T3a: change < 0 in all 16 cells (section 4: "the accuracies of the models decrease")."""
    return _all_cells(results, "masked_only", "baseline", "<")


def mean_loss_is_moderate(results: Any) -> list[Comparison]:
    """T3b: mean change between -2 and -0.5 points (Table 3 prints -1.11 and -1.18): two one-sided each."""
    made = []
    for dataset in DATASETS:
        mean, found = _mean([_gain(results, "masked_only", model=m, dataset=dataset) for m in MODELS])
        for side, bound in ((">", -2.0), ("<", -0.5)):
            label = f"{dataset}: mean change of {len(MODELS)} models {side} {bound:g}"
            made.append(Comparison(label, _shift(mean, -bound), side, len(MODELS), found))
    return made


def masked_only_below_same_updates(results: Any) -> list[Comparison]:
    """T3c (ours): masked-only < C1, so that the loss is not merely the further training."""
    return _all_cells(results, "masked_only", "original_only", "<")


# --- table 6: the layer that gives the saliency -----------------------------------------------------------


def deeper_is_better(results: Any) -> list[Comparison]:
    """T6a: accuracy rises with depth on both data sets (Table 6): each successive difference is above 0."""
    made = []
    for dataset in DATASETS:
        for shallow, deep in pairwise(CONV_INDICES):
            arms = [_samples(results, _layer(dataset, index)) for index in (deep, shallow)]
            made.append(Comparison(f"vgg13, {dataset}: conv {deep} - conv {shallow}", paired(*arms)))
    return made


def every_layer_gains(results: Any) -> list[Comparison]:
    """T6b: every target layer gains over the baseline (Table 6)."""
    made = []
    for dataset in DATASETS:
        for index in CONV_INDICES:
            gain = _gain(results, "bimask", model="vgg13", dataset=dataset, conv_index=index)
            made.append(Comparison(f"vgg13, {dataset}: conv {index} - baseline", gain))
    return made


# --- table 7: the masking ratio ---------------------------------------------------------------------------


def ten_percent_is_best(results: Any) -> list[Comparison]:
    """T7a: the maximum lies at 10 % on both (section 4): 10 % exceeds each of the other five ratios."""
    made = []
    for dataset in DATASETS:
        best = _samples(results, _ratio(dataset, BEST_RATIO))
        for ratio in RATIOS:
            if ratio != BEST_RATIO:
                other = _samples(results, _ratio(dataset, ratio))
                label = f"vgg8, {dataset}: {BEST_RATIO:.1%} - {ratio:.1%}"
                made.append(Comparison(label, paired(best, other)))
    return made


def large_ratios_hurt(results: Any) -> list[Comparison]:
    """T7b: the CIFAR-100 gain is negative at 20 % and 30 % (Table 7: -0.12, -0.35)."""
    return [
        Comparison(f"vgg8, cifar100: {ratio:.1%} - baseline", _ratio_gain(results, "cifar100", ratio), "<")
        for ratio in RATIOS
        if ratio >= 0.2
    ]


def every_ratio_gains(results: Any) -> list[Comparison]:
    """T7c: the CIFAR-10 gain is positive at every ratio (Table 7)."""
    return [
        Comparison(f"vgg8, cifar10: {ratio:.1%} - baseline", _ratio_gain(results, "cifar10", ratio)) for ratio in RATIOS
    ]


def beats_shuffled_at_each_ratio(results: Any) -> list[Comparison]:
    """T7d (ours): BIMask beats shuffled masks (C3) at the same ratio, on both data sets."""
    made = []
    for dataset in DATASETS:
        for ratio in RATIOS:
            arms = [_samples(results, _ratio(dataset, ratio, method)) for method in ("bimask", "shuffled")]
            made.append(Comparison(f"vgg8, {dataset}, {ratio:.1%}: bimask - shuffled", paired(*arms)))
    return made


# --- the statistics ---------------------------------------------------------------------------------------


def _samples(results: Any, cell: Mapping[str, Any]) -> Samples:
    return results.samples(metric="last", **cell)


def _gain(results: Any, method: str, against: str = "baseline", **where: Any) -> Samples:
    """Method less baseline, paired by seed; a baseline has only a model and a data set."""
    base = {"model": where["model"], "dataset": where["dataset"], "method": against}
    return paired(_samples(results, {**where, "method": method}), _samples(results, base))


def _all_cells(results: Any, method: str, against: str, side: str) -> list[Comparison]:
    made = []
    for dataset in DATASETS:
        for model in MODELS:
            gain = _gain(results, method, against, model=model, dataset=dataset)
            made.append(Comparison(f"{model}, {dataset}: {method} - {against}", gain, side))
    return made


def _mean(gains: list[Samples]) -> tuple[dict[int, float], int]:
    """Mean over models of the seeds that all of them have, and how many models have any value."""
    with_values = [g for g in gains if g]
    seeds = sorted(set.intersection(*(set(g) for g in with_values))) if with_values else []
    return {s: sum(g[s] for g in with_values) / len(with_values) for s in seeds}, len(with_values)


def _shift(samples: Samples, by: float) -> dict[int, float]:
    return {seed: value + by for seed, value in samples.items()}


def _layer(dataset: str, index: int) -> dict[str, Any]:
    return {"model": "vgg13", "dataset": dataset, "method": "bimask", "conv_index": index}


def _ratio(dataset: str, ratio: float, method: str = "bimask") -> dict[str, Any]:
    return {"model": "vgg8", "dataset": dataset, "method": method, "masking_ratio": ratio}


def _ratio_gain(results: Any, dataset: str, ratio: float) -> Samples:
    return _gain(results, "bimask", model="vgg8", dataset=dataset, masking_ratio=ratio)


# --- the list ---------------------------------------------------------------------------------------------

_ALL_16 = "8 models x 2 data sets"
Spec = tuple[str, str, str, str, Callable[[Any], list[Comparison]], str]


def _claims(table: str, *specs: Spec) -> tuple[Claim, ...]:
    return tuple(
        Claim(f"bimask.{table}.{letter}", text, owner, scope, comparisons, minimum)
        for letter, text, owner, scope, comparisons, minimum in specs
    )


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "table2": _claims(
        "table2",
        ("a", "BIMask improves accuracy in every cell.", "paper", _ALL_16, gain_everywhere, "tiny"),
        (
            "b",
            "The mean gain is at least 0.5 points on each data set.",
            "paper",
            "mean over 8 models, 2 data sets",
            mean_gain_half_point,
            "small",
        ),
        (
            "c",
            "On CIFAR-10 seven of eight models gain nearly the same (within 0.1 points of their mean).",
            "paper",
            "all models but Wide-ResNet-50, CIFAR-10",
            equal_gains,
            "small",
        ),
        (
            "d",
            "VGG13 has the largest gain on CIFAR-100.",
            "paper",
            "VGG13 against 7 models, CIFAR-100",
            vgg13_gains_most,
            "tiny",
        ),
        (
            "e",
            "BIMask beats fine-tuning on the originals alone with the same number of updates.",
            "ours",
            _ALL_16,
            beats_same_updates,
            "tiny",
        ),
        (
            "f",
            "BIMask beats masks taken from other images (same shapes, wrong content).",
            "ours",
            _ALL_16,
            beats_shuffled,
            "tiny",
        ),
    ),
    "table3": _claims(
        "table3",
        (
            "a",
            "Fine-tuning on masked images alone loses accuracy in every cell.",
            "paper",
            _ALL_16,
            masked_only_loses,
            "tiny",
        ),
        (
            "b",
            "The mean loss lies between 0.5 and 2 points on each data set.",
            "paper",
            "mean over 8 models, 2 data sets",
            mean_loss_is_moderate,
            "small",
        ),
        (
            "c",
            "Masked images alone are worse than the originals alone with the same number of updates.",
            "ours",
            _ALL_16,
            masked_only_below_same_updates,
            "tiny",
        ),
    ),
    "table6": _claims(
        "table6",
        (
            "a",
            "Accuracy rises with the depth of the layer that gives the saliency.",
            "paper",
            "VGG13, 4 layers, 2 data sets",
            deeper_is_better,
            "tiny",
        ),
        (
            "b",
            "Each of the last four layers gives a gain over the baseline.",
            "paper",
            "VGG13, 4 layers, 2 data sets",
            every_layer_gains,
            "tiny",
        ),
    ),
    "table7": _claims(
        "table7",
        (
            "a",
            "A masking ratio of 10 % is best on both data sets.",
            "paper",
            "VGG8, 6 ratios, 2 data sets",
            ten_percent_is_best,
            "tiny",
        ),
        (
            "b",
            "On CIFAR-100 the gain is negative at 20 % and at 30 %.",
            "paper",
            "VGG8, 2 ratios, CIFAR-100",
            large_ratios_hurt,
            "tiny",
        ),
        (
            "c",
            "On CIFAR-10 every ratio gives a gain.",
            "paper",
            "VGG8, 6 ratios, CIFAR-10",
            every_ratio_gains,
            "tiny",
        ),
        (
            "d",
            "BIMask beats masks taken from other images at the same ratio.",
            "ours",
            "VGG8, 6 ratios, 2 data sets",
            beats_shuffled_at_each_ratio,
            "tiny",
        ),
    ),
}
