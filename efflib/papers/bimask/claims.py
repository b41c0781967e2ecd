"""Claims of the BIMask paper (and ours about it) as comparisons, fixed before any result existed.

The wording and the statistics follow section 5 of the implementation spec. Every comparison uses the headline
metric ``last`` (no checkpoint selection), and every difference is paired by seed: the arms of one seed share
the same baseline network. A claim about "all cells" lists all of them; cells without runs count as not run.
Claims about sizes (not only directions) need scale ``small``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from efflib.papers.table import Claim, claims_of
from efflib.report.verdict import Comparison, mean_samples, paired, shift

MODELS = ("vgg8", "vgg11", "vgg13", "resnet14", "resnet20", "resnet56", "resnet18", "wrn_52_2")
DATASETS = ("cifar10", "cifar100")
CONV_INDICES = (-4, -3, -2, -1)
RATIOS = (0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
BEST_RATIO = 0.1
EQUAL_BAND = 0.1  # points: how far a gain may lie from the mean gain and still be called nearly equal
CURRICULUM_MODELS = ("resnet18", "wrn_52_2")
CURRICULA = ("cbs", "efficienttrain", "self_taught", "lcdnet_cl", "lerac")
EQUAL = "_equal"  # ends the name of a control of table 4: the same further epochs that BIMask has
BIMASK_LEADS = (("resnet18", "cifar10"), ("resnet18", "cifar100"), ("wrn_52_2", "cifar10"))
DISTILLERS = ("kd", "fitnet", "at", "ft", "sckd")
TEACHERS = ("baseline_teacher", "bimask_teacher")
STUDENT, TEACHER = "resnet20", "resnet56"
TEACHER_EFFECT = (0.05, 0.15)  # points: what rounds to the "about 0.1" of table 5

Samples = Mapping[int, float]


# --- table 2: originals plus masked copies ----------------------------------------------------------------


def gain_everywhere(results: Any) -> list[Comparison]:
    """T2a: gain > 0 in all 16 cells (abstract: "consistent accuracy improvements")."""
    return _all_cells(results, "bimask", "baseline", ">")


def mean_gain_half_point(results: Any) -> list[Comparison]:
    """T2b: mean gain of the eight models >= 0.5 points on each data set (last row of Table 2)."""
    made = []
    for dataset in DATASETS:
        mean, found = mean_samples([_gain(results, "bimask", model=m, dataset=dataset) for m in MODELS])
        label = f"{dataset}: mean gain of {len(MODELS)} models - 0.5"
        made.append(Comparison(label, shift(mean, -0.5), ">", len(MODELS), found))
    return made


def equal_gains(results: Any) -> list[Comparison]:
    """T2c: CIFAR-10 gains nearly equal for seven of eight models (Table 2; all but Wide-ResNet-50).

    Per model two one-sided comparisons: its gain less the mean gain of the seven lies above -0.1 and below
    +0.1 points. Both must agree, which is the usual test of equivalence.
    """
    models = [m for m in MODELS if m != "wrn_52_2"]
    gains = [_gain(results, "bimask", model=m, dataset="cifar10") for m in models]
    mean, found = mean_samples(gains)
    made = []
    for model, gain in zip(models, gains, strict=True):
        away = paired(gain, mean)
        for side, bound in ((">", -EQUAL_BAND), ("<", EQUAL_BAND)):
            label = f"{model}, cifar10: gain - mean gain {side} {bound:+g}"
            made.append(Comparison(label, shift(away, -bound), side, len(models), found))
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
        mean, found = mean_samples([_gain(results, "masked_only", model=m, dataset=dataset) for m in MODELS])
        for side, bound in ((">", -2.0), ("<", -0.5)):
            label = f"{dataset}: mean change of {len(MODELS)} models {side} {bound:g}"
            made.append(Comparison(label, shift(mean, -bound), side, len(MODELS), found))
    return made


def masked_only_below_same_updates(results: Any) -> list[Comparison]:
    """T3c (ours): masked-only < C1, so that the loss is not merely the further training."""
    return _all_cells(results, "masked_only", "original_only", "<")


# --- table 4: curricula -----------------------------------------------------------------------------------


def best_of_three_columns(results: Any) -> list[Comparison]:
    """T4a: BIMask is best where Table 4 prints it best: it exceeds the baseline and all five curricula there."""
    return _leads(results, ("baseline", *CURRICULA))


def fourth_of_six(results: Any) -> list[Comparison]:
    """T4b: Wide-ResNet-50 on CIFAR-100: below LeRaC, EfficientTrain and LCDnet-CL, above Self-taught and CBS."""
    ahead = ("lerac", "efficienttrain", "lcdnet_cl")
    return [
        _column(results, "wrn_52_2", "cifar100", "bimask", other, "<" if other in ahead else ">")
        for other in (*ahead, "self_taught", "cbs")
    ]


def cbs_hurts_wide(results: Any) -> list[Comparison]:
    """T4c: CBS costs Wide-ResNet-50 more than 2 points on both data sets (Table 4: -2.17, -2.41)."""
    made = []
    for dataset in DATASETS:
        change = _gain(results, "cbs", model="wrn_52_2", dataset=dataset)
        made.append(Comparison(f"wrn_52_2, {dataset}: cbs - baseline < -2", shift(change, 2.0), "<"))
    return made


def lerac_gains(results: Any) -> list[Comparison]:
    """T4d: LeRaC > baseline in 4 of 4 columns (Table 4: +0.36, +1.02, +0.36, +1.24)."""
    return [
        _column(results, model, dataset, "lerac", "baseline") for model in CURRICULUM_MODELS for dataset in DATASETS
    ]


def best_at_equal_compute(results: Any) -> list[Comparison]:
    """T4e (ours): T4a once more, the baseline and every curriculum given BIMask's further epochs on originals."""
    return _leads(results, tuple(method + EQUAL for method in ("baseline", *CURRICULA)))


# --- table 5: students of a plain and of an enhanced teacher ----------------------------------------------


def distilling_helps(results: Any) -> list[Comparison]:
    """T5a: every method, with either teacher, beats the student alone (Table 5: 20 of 20 cells)."""
    made = []
    for dataset in DATASETS:
        alone = _samples(results, {"student": STUDENT, "dataset": dataset, "method": "baseline"})
        for setting in TEACHERS:
            for method in DISTILLERS:
                taught = _taught(results, method, dataset, setting)
                made.append(Comparison(f"{dataset}, {setting}: {method} - baseline", paired(taught, alone)))
    return made


def enhanced_teacher_is_better(results: Any) -> list[Comparison]:
    """T5b: the enhanced teacher gives the better student in 10 of 10 pairs (section 4; Table 5: +0.07 to +0.14)."""
    return [
        Comparison(f"{dataset}, {method}: enhanced - plain teacher", _teacher_effect(results, method, dataset))
        for dataset in DATASETS
        for method in DISTILLERS
    ]


def teacher_effect_is_a_tenth(results: Any) -> list[Comparison]:
    """T5c: the mean difference is about 0.1 points (Table 5: 0.104 and 0.122): two one-sided on each data set."""
    made = []
    for dataset in DATASETS:
        mean, found = mean_samples([_teacher_effect(results, method, dataset) for method in DISTILLERS])
        for side, bound in zip((">", "<"), TEACHER_EFFECT, strict=True):
            label = f"{dataset}: mean of {len(DISTILLERS)} methods, enhanced - plain teacher {side} {bound:g}"
            made.append(Comparison(label, shift(mean, -bound), side, len(DISTILLERS), found))
    return made


def sckd_is_best(results: Any) -> list[Comparison]:
    """T5d: SCKD is best everywhere (Table 5): it exceeds the other four methods in each of the four columns."""
    made = []
    for dataset in DATASETS:
        for setting in TEACHERS:
            best = _taught(results, "sckd", dataset, setting)
            for method in DISTILLERS[:-1]:
                other = _taught(results, method, dataset, setting)
                made.append(Comparison(f"{dataset}, {setting}: sckd - {method}", paired(best, other)))
    return made


def enhanced_teacher_is_better_pooled(results: Any) -> list[Comparison]:
    """T5e (ours): T5b pooled, because no single pair can be decided with five seeds (spec, section 5).

    One sample is the mean over the ten pairs of one seed. The pairs of a seed share their teachers and their student's
    initial weights, so that pairs and seeds together are not that many independent runs.
    """
    mean, found = mean_samples([_teacher_effect(results, m, d) for d in DATASETS for m in DISTILLERS])
    pairs = len(DATASETS) * len(DISTILLERS)
    return [Comparison(f"mean of {pairs} pairs: enhanced - plain teacher", mean, ">", pairs, found)]


def enhanced_teacher_is_enhanced(results: Any) -> list[Comparison]:
    """T5f (ours): the enhanced teacher itself is better than our own plain one, not than a quoted one."""
    made = []
    for dataset in DATASETS:
        cell = {"teacher": TEACHER, "dataset": dataset, "method": "teacher"}
        plain, enhanced = (_samples(results, {**cell, "setting": setting}) for setting in TEACHERS)
        made.append(Comparison(f"{TEACHER}, {dataset}: enhanced - plain teacher", paired(enhanced, plain)))
    return made


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


def _leads(results: Any, others: tuple[str, ...]) -> list[Comparison]:
    """BIMask above others in the three columns where Table 4 prints it best."""
    return [_column(results, *column, "bimask", other) for column in BIMASK_LEADS for other in others]


def _column(results: Any, model: str, dataset: str, one: str, other: str, side: str = ">") -> Comparison:
    difference = _gain(results, one, other, model=model, dataset=dataset)
    return Comparison(f"{model}, {dataset}: {one} - {other}", difference, side)


def _taught(results: Any, method: str, dataset: str, setting: str) -> Samples:
    return _samples(results, {"student": STUDENT, "dataset": dataset, "method": method, "setting": setting})


def _teacher_effect(results: Any, method: str, dataset: str) -> Samples:
    """Student of the enhanced teacher less student of the plain one, same method and seed."""
    plain, enhanced = (_taught(results, method, dataset, setting) for setting in TEACHERS)
    return paired(enhanced, plain)


def _layer(dataset: str, index: int) -> dict[str, Any]:
    return {"model": "vgg13", "dataset": dataset, "method": "bimask", "conv_index": index}


def _ratio(dataset: str, ratio: float, method: str = "bimask") -> dict[str, Any]:
    return {"model": "vgg8", "dataset": dataset, "method": method, "masking_ratio": ratio}


def _ratio_gain(results: Any, dataset: str, ratio: float) -> Samples:
    return _gain(results, "bimask", model="vgg8", dataset=dataset, masking_ratio=ratio)


# --- the list ---------------------------------------------------------------------------------------------

_ALL_16 = "8 models x 2 data sets"

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "table2": claims_of(
        "bimask",
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
    "table3": claims_of(
        "bimask",
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
    "table4": claims_of(
        "bimask",
        "table4",
        (
            "a",
            "BIMask is best in three of the four columns: both of ResNet18, and Wide-ResNet-50 on CIFAR-10.",
            "paper",
            "BIMask against baseline and 5 curricula, 3 columns",
            best_of_three_columns,
            "tiny",
        ),
        (
            "b",
            "For Wide-ResNet-50 on CIFAR-100 BIMask is fourth of six, behind LeRaC, EfficientTrain and LCDnet-CL.",
            "paper",
            "BIMask against 5 curricula, 1 column",
            fourth_of_six,
            "tiny",
        ),
        (
            "c",
            "CBS costs Wide-ResNet-50 more than 2 points on both data sets.",
            "paper",
            "Wide-ResNet-50, 2 data sets",
            cbs_hurts_wide,
            "small",
        ),
        (
            "d",
            "LeRaC beats the baseline in all four columns.",
            "paper",
            "2 models x 2 data sets",
            lerac_gains,
            "tiny",
        ),
        (
            "e",
            "BIMask still leads in its three columns when the baseline and every curriculum train equally long.",
            "ours",
            "BIMask against baseline and 5 curricula with its further epochs, 3 columns",
            best_at_equal_compute,
            "tiny",
        ),
    ),
    "table5": claims_of(
        "bimask",
        "table5",
        (
            "a",
            "Every method beats the student alone, with either teacher.",
            "paper",
            "5 methods x 2 teachers x 2 data sets",
            distilling_helps,
            "tiny",
        ),
        (
            "b",
            "The enhanced teacher gives the better student in all ten pairs.",
            "paper",
            "5 methods x 2 data sets",
            enhanced_teacher_is_better,
            "tiny",
        ),
        (
            "c",
            "On each data set the enhanced teacher is worth about 0.1 points (0.05 to 0.15) on average.",
            "paper",
            "mean over 5 methods, 2 data sets",
            teacher_effect_is_a_tenth,
            "small",
        ),
        (
            "d",
            "SCKD is the best method in all four columns.",
            "paper",
            "SCKD against 4 methods, 2 teachers x 2 data sets",
            sckd_is_best,
            "tiny",
        ),
        (
            "e",
            "Pooled over the ten pairs, students of the enhanced teacher beat those of the same seed's plain teacher.",
            "ours",
            "mean over 5 methods x 2 data sets",
            enhanced_teacher_is_better_pooled,
            "tiny",
        ),
        (
            "f",
            "The enhanced teacher is itself better than our own plain teacher.",
            "ours",
            "ResNet56, 2 data sets",
            enhanced_teacher_is_enhanced,
            "tiny",
        ),
    ),
    "table6": claims_of(
        "bimask",
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
    "table7": claims_of(
        "bimask",
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
