"""Claims of the PKGD paper (and ours about it) as comparisons, fixed before any result existed.

The wording and the statistics follow sections 2.10 and 5 of the implementation spec. Every difference is paired by
seed: the arms of one seed share the same teacher and the same initial student. A claim about "all pairs" lists all of
them; cells without runs count as not run. Claims about sizes need scale ``small``, absolute numbers scale ``paper``.

A cell of tables 1, 2, 5 and of both figures is {teacher, student, dataset, method}. Every pair has its own cells
``teacher`` (the teacher's accuracy) and ``baseline`` (the student trained alone), although several pairs share the
trial: a page then shows each pair as the paper's column does, and a gain finds the baseline of its own pair. The
methods are those of `METHODS`; table 5 has kd, pkgd_mlff and pkgd_mlff_code (the two readings of "MLFF only"),
pkgd_ddag, pkgd_mlff_ddag, pkgd (all three), and the controls align, pkgd_code_random and pkgd_code_trained.

Metrics: ``last`` (no checkpoint selection) throughout; ``seconds_per_epoch`` and the FLOPs of a run in figure 5;
``silhouette`` and ``knn20`` in figure 6; ``gap_aligned`` and ``gap_guided`` (one number per level) in table 5. Times
are compared only between runs on one device in one precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from efflib.papers.pkgd.arms import CROSS_FAMILY, SAME_FAMILY
from efflib.papers.table import Claim, claims_of
from efflib.report.verdict import Comparison, mean_samples, paired, shift

LOGITS = ("kd", "dkd")
METHODS = (*LOGITS, "at", "ft", "crd", "reviewkd", "sakd", "ickd", "rpkd", "pkgd")
ABLATION = ("resnet56", "resnet20")
SINGLE_MODULES = ("kd", "pkgd_mlff", "pkgd_ddag")
LEVELS = 4  # of ResNet56 and ResNet20: three stages and the pooled vector
TOTAL_GAIN, BAND = 3.35, 0.5  # points: table 5's gain of all modules, and the margin of a printed accuracy
TINY_PAIRS = (("resnet34", "resnet18"), ("resnet50", "mobilenetv1"))
TIMED = ("kd", "dkd", "at", "crd", "reviewkd", "rpkd", "pkgd")  # the spec's choice: the text does not list figure 5's
VISUAL = ("resnet32x4", "resnet8x4")  # figure 6's; scale tiny looks at the ablation's networks instead

Pair = tuple[str, str]
Samples = Mapping[Any, float]  # by seed; times by (seed, machine)


# --- tables 1 and 2: eleven pairs -------------------------------------------------------------------------


def gains_two_points(results: Any) -> list[Comparison]:
    """C1: gain of PKGD over the student alone > 2 points in 6/6 pairs (section 4.1: "by more than 2%")."""
    return _gains_above(results, SAME_FAMILY, 2.0)


def best_of_same_family(results: Any) -> list[Comparison]:
    """C2: PKGD > every other method in each pair (section 4.1: "significant superiority over other")."""
    return _best(results, SAME_FAMILY)


def beats_its_predecessors(results: Any) -> list[Comparison]:
    """C3: PKGD > RP KD and PKGD > ReviewKD in 6/6 pairs (Table 1)."""
    return _against(results, SAME_FAMILY, "pkgd", ("rpkd", "reviewkd"))


def gains_five_points(results: Any) -> list[Comparison]:
    """C4: gain > 5 points in 5/5 pairs (section 4.1: "improvements of over 5%")."""
    return _gains_above(results, CROSS_FAMILY, 5.0)


def mobilenet_above_seventy(results: Any) -> list[Comparison]:
    """C5: MobileNetV2 > 70 % under PKGD in both pairs (section 4.1)."""
    made = []
    for pair in CROSS_FAMILY:
        if pair[1] == "mobilenetv2_half":
            accuracy = _samples(results, pair, "pkgd")
            made.append(Comparison(f"{_named(pair)}: pkgd - 70", shift(accuracy, -70.0)))
    return made


def shufflenet_beats_its_teacher(results: Any) -> list[Comparison]:
    """C6: the WRN40-2 to ShuffleNetV1 student beats its teacher (section 4.1)."""
    return _against(results, [("wrn_40_2", "shufflenetv1")], "pkgd", ("teacher",))


def best_of_cross_family(results: Any) -> list[Comparison]:
    """C7: PKGD best in each pair (section 4.1: "surpassing other methods")."""
    return _best(results, CROSS_FAMILY)


def gains_in_same_family(results: Any) -> list[Comparison]:
    """C1, its direction: PKGD > the student alone in 6/6 pairs ("consistently outperforms the baseline")."""
    return _gains_above(results, SAME_FAMILY, 0.0)


def gains_across_families(results: Any) -> list[Comparison]:
    """C4, its direction: PKGD > the student alone in 5/5 pairs."""
    return _gains_above(results, CROSS_FAMILY, 0.0)


def teachers_of_same_family(results: Any) -> list[Comparison]:
    """Ours: our own teachers are better than the students trained alone; otherwise no comparison means much."""
    return _against(results, SAME_FAMILY, "teacher", ("baseline",))


def teachers_across_families(results: Any) -> list[Comparison]:
    """Ours: as above, for the pairs of Table 2."""
    return _against(results, CROSS_FAMILY, "teacher", ("baseline",))


# --- table 5: the modules ---------------------------------------------------------------------------------


def each_module_helps(results: Any) -> list[Comparison]:
    """T1: each single module > the student alone (Table 5: +1.94 KD, +3.04 MLFF, +2.80 DDAG)."""
    return [_ablation(results, module, "baseline") for module in SINGLE_MODULES]


def mlff_of_the_code_helps(results: Any) -> list[Comparison]:
    """T1, the released code's reading of MLFF alone: RP KD's chain without its response term > the student alone."""
    return [_ablation(results, "pkgd_mlff_code", "baseline")]


def all_modules_are_best(results: Any) -> list[Comparison]:
    """T2: all three together > any subset (section 4.3: "the effect is the best")."""
    return [_ablation(results, "pkgd", subset) for subset in (*SINGLE_MODULES, "pkgd_mlff_ddag")]


def total_gain(results: Any) -> list[Comparison]:
    """T3: the total gain is 3.35 points (section 4.3), within the margin of an accuracy: two one-sided comparisons."""
    gain = paired(_samples(results, ABLATION, "pkgd"), _samples(results, ABLATION, "baseline"))
    bounds = ((">", TOTAL_GAIN - BAND), ("<", TOTAL_GAIN + BAND))
    label = f"{_named(ABLATION)}: pkgd - baseline"
    return [Comparison(f"{label} {side} {bound:g}", shift(gain, -bound), side) for side, bound in bounds]


def beats_align_only(results: Any) -> list[Comparison]:
    """Ours: PKGD > the same loss without MLFF and DDAG (aligned student against the teacher's maps, HCL, KL)."""
    return [_ablation(results, "pkgd", "align")]


def trained_guidance_beats_random(results: Any) -> list[Comparison]:
    """Ours: the released script with a DDAG that is trained > as released, drawn anew at every step."""
    return [_ablation(results, "pkgd_code_trained", "pkgd_code_random")]


def teacher_beats_student(results: Any) -> list[Comparison]:
    """Ours: our own ResNet56 is better than ResNet20 trained alone."""
    return [_ablation(results, "teacher", "baseline")]


def guidance_narrows_the_gap(results: Any) -> list[Comparison]:
    """Ours (section 2.10 of the spec): HCL(teacher, guided) < HCL(teacher, aligned) at each level, as log ratio."""
    made = []
    for level in range(LEVELS):
        guided, aligned = (_log_gap(results, "pkgd", name, level) for name in ("gap_guided", "gap_aligned"))
        label = f"{_named(ABLATION)}, level {level + 1}: ln(guided gap / aligned gap)"
        made.append(Comparison(label, paired(guided, aligned), "<"))
    return made


def the_student_comes_closer(results: Any) -> list[Comparison]:
    """Ours (section 2.10): HCL(teacher, aligned) of PKGD < that of align-only; only then the student itself profits."""
    made = []
    for level in range(LEVELS):
        with_ddag, without = (_log_gap(results, arm, "gap_aligned", level) for arm in ("pkgd", "align"))
        label = f"{_named(ABLATION)}, level {level + 1}: ln(aligned gap of pkgd / of align)"
        made.append(Comparison(label, paired(with_ddag, without), "<"))
    return made


# --- figure 5: accuracy against time ----------------------------------------------------------------------


def most_accurate(results: Any) -> list[Comparison]:
    """F1: PKGD has the highest accuracy in both pairs (section 4.1: "consistently outperforms other methods")."""
    return _against(results, TINY_PAIRS, "pkgd", TIMED[:-1], "tiny_imagenet")


def slowest(results: Any) -> list[Comparison]:
    """F2: PKGD has the highest training time in both pairs (section 4.1: "incurs higher computational costs")."""
    return _against(results, TINY_PAIRS, "pkgd", TIMED[:-1], "tiny_imagenet", "seconds_per_epoch")


def features_take_longer(results: Any) -> list[Comparison]:
    """F3, time: the mean feature method takes longer than the mean logit method (section 4.1)."""
    return _features_against_logits(results, "seconds_per_epoch")


def features_are_more_accurate(results: Any) -> list[Comparison]:
    """F3, accuracy: the mean feature method is more accurate than the mean logit method (section 4.1)."""
    return _features_against_logits(results, "last")


def cheaper_than_reviewkd(results: Any) -> list[Comparison]:
    """Ours (finding 9 of the audit): a run of PKGD as described needs fewer FLOPs than one of ReviewKD."""
    made = []
    for pair in TINY_PAIRS:
        spent = [_flops(results, pair, method) for method in ("pkgd", "reviewkd")]
        made.append(Comparison(f"{_named(pair)}: PFLOP of pkgd - reviewkd", paired(*spent), "<"))
    return made


# --- figure 6: clusters -----------------------------------------------------------------------------------


def better_clusters(results: Any) -> list[Comparison]:
    """Figure 6: PKGD's features cluster better than KD's and the baseline's (section 4.4), in both measures."""
    return _clusters(results, (("pkgd", "kd"), ("pkgd", "baseline")))


def kd_clusters_better_than_baseline(results: Any) -> list[Comparison]:
    """Figure 6, the rest of the order PKGD > KD > baseline (ours: the text does not compare these two)."""
    return _clusters(results, (("kd", "baseline"),))


# --- the statistics ---------------------------------------------------------------------------------------


def _cell(pair: Pair, method: str, dataset: str = "cifar100") -> dict[str, str]:
    teacher, student = pair
    return {"teacher": teacher, "student": student, "dataset": dataset, "method": method}


def _samples(results: Any, pair: Pair, method: str, dataset: str = "cifar100", metric: str = "last") -> Samples:
    if metric == "seconds_per_epoch":
        return _times(results, pair, method, dataset)
    return results.samples(metric=metric, **_cell(pair, method, dataset))


def _records(results: Any, pair: Pair, method: str, dataset: str) -> dict[int, Any]:
    """Seed -> usable record of a cell."""
    return {e.seed: e.record for e in results.matching(**_cell(pair, method, dataset)) if e.usable}


def _times(results: Any, pair: Pair, method: str, dataset: str) -> dict[tuple[int, str, str], float]:
    """Seconds per epoch by seed and machine: only runs of the same device and precision are ever paired."""
    found = _records(results, pair, method, dataset).items()
    return {
        (seed, record.provenance.device, record.precision): record.metrics["seconds_per_epoch"]
        for seed, record in found
        if record.metrics.get("seconds_per_epoch") is not None
    }


def _flops(results: Any, pair: Pair, method: str) -> dict[int, float]:
    """Seed -> PFLOP (1e15) of the whole run, evaluations included."""
    found = _records(results, pair, method, "tiny_imagenet").items()
    return {seed: record.cost.flops / 1e15 for seed, record in found}


def _named(pair: Pair) -> str:
    return " to ".join(pair)


def _against(
    results: Any,
    pairs: Sequence[Pair],
    one: str,
    others: Sequence[str],
    dataset: str = "cifar100",
    metric: str = "last",
) -> list[Comparison]:
    """In each pair, one method against each of the others."""
    made = []
    for pair in pairs:
        for other in others:
            arms = [_samples(results, pair, method, dataset, metric) for method in (one, other)]
            made.append(Comparison(f"{_named(pair)}: {one} - {other}", paired(*arms)))
    return made


def _best(results: Any, pairs: Sequence[Pair]) -> list[Comparison]:
    return _against(results, pairs, "pkgd", METHODS[:-1])


def _gains_above(results: Any, pairs: Sequence[Pair], points: float) -> list[Comparison]:
    made = []
    for pair in pairs:
        gain = paired(_samples(results, pair, "pkgd"), _samples(results, pair, "baseline"))
        less = f" - {points:g}" if points else ""
        made.append(Comparison(f"{_named(pair)}: pkgd - baseline{less}", shift(gain, -points)))
    return made


def _ablation(results: Any, one: str, other: str) -> Comparison:
    return _against(results, [ABLATION], one, (other,))[0]


def _log_gap(results: Any, method: str, metric: str, level: int) -> Samples:
    """Seed -> logarithm of one level's distance to the teacher; a record keeps one number per level."""
    records = _records(results, ABLATION, method, "cifar100").items()
    return {seed: math.log(found.metrics[metric][level]) for seed, found in records if metric in found.metrics}


def _features_against_logits(results: Any, metric: str) -> list[Comparison]:
    made = []
    groups = [m for m in TIMED if m not in LOGITS], [m for m in TIMED if m in LOGITS]
    for pair in TINY_PAIRS:
        arms = [[_samples(results, pair, method, "tiny_imagenet", metric) for method in group] for group in groups]
        (features, n_features), (logits, n_logits) = map(mean_samples, arms)
        label = f"{_named(pair)}: mean of {', '.join(groups[0])} - mean of {', '.join(groups[1])}"
        found = n_features + n_logits
        made.append(Comparison(label, paired(features, logits), ">", len(TIMED), found))
    return made


def _clusters(results: Any, contrasts: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Both measures, on the pair that the scale runs: the paper's, or the ablation's at tiny."""
    asked = (pair for pair in (VISUAL, ABLATION) if results.matching(**_cell(pair, "pkgd")))
    pair, made = next(asked, VISUAL), []
    for metric in ("silhouette", "knn20"):
        for one, other in contrasts:
            (found,) = _against(results, [pair], one, (other,), metric=metric)
            made.append(Comparison(f"{metric}, {found.label}", found.samples))
    return made


# --- the list ---------------------------------------------------------------------------------------------

_SAME, _CROSS = "6 pairs of one family, CIFAR-100", "5 pairs across families, CIFAR-100"
_ABLATION = "ResNet56 to ResNet20, CIFAR-100"
_TINY = "2 pairs, Tiny ImageNet"
_VISUAL = "ResNet32x4 to ResNet8x4 (at tiny: ResNet56 to ResNet20), CIFAR-100, two measures"

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "table1": claims_of(
        "pkgd", "table1",
        ("a", "PKGD gains more than 2 points over the student alone in every pair.", "paper", _SAME, gains_two_points,
         "small"),
        ("b", "PKGD is better than each of the nine other methods in every pair.", "paper", _SAME, best_of_same_family,
         "tiny"),
        ("c", "PKGD is better than RP KD and than ReviewKD in every pair.", "paper", _SAME, beats_its_predecessors,
         "tiny"),
        ("d", "PKGD is better than the student alone in every pair.", "paper", _SAME, gains_in_same_family, "tiny"),
        ("e", "Our teachers are better than the students trained alone.", "ours", _SAME, teachers_of_same_family,
         "tiny"),
    ),
    "table2": claims_of(
        "pkgd", "table2",
        ("a", "PKGD gains more than 5 points over the student alone in every pair.", "paper", _CROSS,
         gains_five_points, "small"),
        ("b", "MobileNetV2 exceeds 70 % with PKGD.", "paper", "2 pairs, CIFAR-100", mobilenet_above_seventy, "paper"),
        ("c", "ShuffleNetV1 distilled from WRN-40-2 by PKGD is better than its teacher.", "paper", "1 pair, CIFAR-100",
         shufflenet_beats_its_teacher, "small"),
        ("d", "PKGD is better than each of the nine other methods in every pair.", "paper", _CROSS,
         best_of_cross_family, "tiny"),
        ("e", "PKGD is better than the student alone in every pair.", "paper", _CROSS, gains_across_families, "tiny"),
        ("f", "Our teachers are better than the students trained alone.", "ours", _CROSS, teachers_across_families,
         "tiny"),
    ),
    "table5": claims_of(
        "pkgd", "table5",
        ("a", "Each of KD, MLFF and DDAG alone is better than the student alone.", "paper", _ABLATION,
         each_module_helps, "tiny"),
        ("b", "So is MLFF alone as the released code reads it (on the student's features).", "paper", _ABLATION,
         mlff_of_the_code_helps, "tiny"),
        ("c", "All three together are better than each alone and than MLFF with DDAG.", "paper", _ABLATION,
         all_modules_are_best, "tiny"),
        ("d", "All three together gain 3.35 points (within 0.5).", "paper", _ABLATION, total_gain, "paper"),
        ("e", "PKGD is better than the same loss without MLFF and DDAG (aligned features only).", "ours", _ABLATION,
         beats_align_only, "tiny"),
        ("f", "In the released code, a trained DDAG is better than the random one that it draws at every step.",
         "ours", _ABLATION, trained_guidance_beats_random, "tiny"),
        ("g", "Guidance narrows the gap: guided features lie closer to the teacher's than the aligned ones.", "ours",
         f"{_ABLATION}, 4 levels", guidance_narrows_the_gap, "tiny"),
        ("h", "The student itself comes closer: its aligned features lie closer to the teacher's than without DDAG.",
         "ours", f"{_ABLATION}, 4 levels", the_student_comes_closer, "tiny"),
        ("i", "Our teacher is better than the student trained alone.", "ours", _ABLATION, teacher_beats_student,
         "tiny"),
    ),
    "figure5": claims_of(
        "pkgd", "figure5",
        ("a", "PKGD is the most accurate method in both pairs.", "paper", _TINY, most_accurate, "tiny"),
        ("b", "PKGD takes the most time per epoch in both pairs.", "paper", _TINY, slowest, "tiny"),
        ("c", "Feature methods take longer than logit methods, on average.", "paper", _TINY, features_take_longer,
         "tiny"),
        ("d", "Feature methods are more accurate than logit methods, on average.", "paper", _TINY,
         features_are_more_accurate, "tiny"),
        ("e", "A run of PKGD as described needs fewer FLOPs than one of ReviewKD in both pairs.", "ours", _TINY,
         cheaper_than_reviewkd, "tiny"),
    ),
    "figure6": claims_of(
        "pkgd", "figure6",
        ("a", "PKGD's features cluster better than KD's and than the baseline's.", "paper", _VISUAL, better_clusters,
         "tiny"),
        ("b", "KD's features cluster better than the baseline's.", "ours", _VISUAL, kd_clusters_better_than_baseline,
         "tiny"),
    ),
}  # fmt: skip
