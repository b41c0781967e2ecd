"""Claims of the thesis (and ours about it) as comparisons; each page tells what was fixed before which run.

The wording and the statistics follow section 5 of the implementation spec. Every difference is paired by seed: the runs
of one seed share the teacher, the initial student, and the order and the views of the images. Where the spec counts
seeds ("in 2 of 3"), a count decides; what is claimed of the order of sixteen students is tested over the students, by
the means over seeds. Cells of tables 3.3 to 3.5 are {student, method, epochs}, those of tables 3.6 to 3.8 {model,
method, epochs}; all read the run of that method after so many epochs. Cells of figures 3.8 and 3.9 are {network,
method, map}, at the end of the run.

Metrics: ``last``, accuracy on all test images in percent; ``leak_free``, on those that are neither exact nor near
copies of training images; ``train``, on the training images without augmentation; those of figures 3.8 and 3.9 are told
in `efflib.papers.diswot.maps`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from efflib.papers.diswot.arms import SIZES, Size
from efflib.papers.diswot.ranks import tau_difference
from efflib.papers.diswot.rivals import parameters
from efflib.papers.diswot.space import ROLES, STUDENTS
from efflib.papers.table import Claim, claims_of
from efflib.report.verdict import Comparison, SeedCount, Tested, mean_samples, paired, shift

COLLAPSE = 5.0  # points that count as a collapse; the thesis prints a fall of 47.66
MOST = 2  # of 3 seeds, in which a run has to collapse to be called collapsing, or not to be called stable
LEVEL = 0.05  # of the tests over students
NEAR = 0.5  # points within which two accuracies count as equal, the margin of a printed one
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
FINAL = (("teacher", "baseline"), ("best", "lrp_cosine"))


# --- table 3.3: the score as a predictor ------------------------------------------------------------------


def accuracy_falls_as_printed(results: Any) -> list[Comparison]:
    """diswot.table3_3.a: best > intermediate > bad in accuracy, as table 3.3 prints (90.92, 86.19, 84.52)."""
    best, middle, bad = ROLES.values()
    return [_students(results, best, middle), _students(results, middle, bad)]


def score_ranks_the_space(results: Any) -> list[Comparison]:
    """diswot.table3_3.b: Kendall's tau of (-score, accuracy) over all sixteen students is above 0, p < 0.05."""
    return [_ranks(results, "tau of the score", _negative(scored(results)))]


def selected_is_among_the_best(results: Any) -> list[Comparison]:
    """diswot.table3_3.c: the student of lowest score comes within a point of the best of sixteen."""
    scores, space = scored(results), accuracies(results)
    gap = {}
    if scores and len(space) == len(STUDENTS):
        selected = min(scores, key=scores.__getitem__)
        gap = {seed: space[selected][seed] - max(each[seed] for each in space.values()) + 1 for seed in _seeds(space)}
    return [Comparison("selected - best of sixteen + 1", gap)]


def intermediate_overfits(results: Any) -> list[Comparison]:
    """diswot.table3_3.d: training less test accuracy is larger for the intermediate student than for the best."""
    (best, middle, _), space = ROLES.values(), _size(results).space
    gaps = [
        paired(*(_samples(results, "student", name, "gradcam_l2", space, metric) for metric in ("train", "last")))
        for name in (middle, best)
    ]
    return [Comparison("train - test: intermediate - best", paired(*gaps))]


def score_beats_size(results: Any) -> list[Comparison]:
    """diswot.table3_3.e, ours: the score predicts better than the number of parameters does."""
    return [_better(results, "tau of the score - tau of the parameters", _negative(scored(results)), parameters())]


def size_ranks_the_space(results: Any) -> list[Comparison]:
    """diswot.table3_3.f, ours: the trivial predictor, tau of (parameters, accuracy) over all sixteen, is above 0."""
    return [_ranks(results, "tau of the parameters", parameters())]


# --- table 3.4: three strategies --------------------------------------------------------------------------


def high_order_beats_kd(results: Any) -> list[Comparison]:
    """diswot.table3_4.a: DisWOT+ > KD by more than a point in every seed (table 3.4: 86.88 against 84.59)."""
    found = _methods(results, "gradcam_l2", "kd", _size(results).short, by=1.0)
    return [SeedCount(found.label, found.samples)]


def high_order_beats_training_alone(results: Any) -> list[Comparison]:
    """diswot.table3_4.b: DisWOT+ > the baseline (table 3.4: 86.88 against 84.44)."""
    return [_methods(results, "gradcam_l2", "baseline", _size(results).short)]


def kd_equals_training_alone(results: Any) -> list[Comparison]:
    """diswot.table3_4.c: KD makes no difference (table 3.4: +0.15): two one-sided comparisons with half a point."""
    found = _methods(results, "kd", "baseline", _size(results).short)
    return _within(found, NEAR)


def training_accuracy_grows(results: Any) -> list[Comparison]:
    """diswot.table3_4.d: training accuracy: baseline < KD < DisWOT+ (table 3.4: 87.49, 88.75, 91.24)."""
    pairs = (("kd", "baseline"), ("gradcam_l2", "kd"))
    return [_methods(results, one, other, _size(results).short, "train") for one, other in pairs]


def starts_ahead(results: Any) -> list[Comparison]:
    """diswot.table3_4.e: after one epoch DisWOT+ is 5 points of training accuracy ahead.

    Figure 3.7 has 87.96 against 78.19 and 77.76.
    """
    return [_methods(results, "gradcam_l2", other, 1, "train", 5.0) for other in ("baseline", "kd")]


def high_order_beats_kd_without_leaks(results: Any) -> list[Comparison]:
    """diswot.table3_4.f, ours: DisWOT+ > KD on test images that are neither exact nor near copies."""
    return [_methods(results, "gradcam_l2", "kd", _size(results).short, "leak_free")]


# --- table 3.5: maps and distances ------------------------------------------------------------------------


def gradcam_collapses(results: Any) -> list[Comparison]:
    """diswot.table3_5.a: Grad-CAM + L2 loses more than 5 points between 15 and 30 epochs, in 2 of 3 seeds.

    Table 3.5 has 90.92, then 43.26.
    """
    return [_fall(results, "gradcam_l2", ">")]


def lrp_does_not_collapse(results: Any) -> list[Comparison]:
    """diswot.table3_5.b: LRP + L2 loses no 5 points between 15 and 30 epochs, in 2 of 3 seeds."""
    return [_fall(results, "lrp_l2", "<")]


def cosine_beats_l2(results: Any) -> list[Comparison]:
    """diswot.table3_5.c: LRP + cosine > LRP + L2 at 30 epochs (table 3.5: 92.75 against 91.08)."""
    return [_methods(results, "lrp_cosine", "lrp_l2", _late(results))]


def cosine_beats_gradcam(results: Any) -> list[Comparison]:
    """diswot.table3_5.d: LRP + cosine > Grad-CAM + L2 at 30 epochs (table 3.5: 92.75 against 43.26)."""
    return [_methods(results, "lrp_cosine", "gradcam_l2", _late(results))]


def lrp_beats_gradcam(results: Any) -> list[Comparison]:
    """diswot.table3_5.i: LRP + L2 > Grad-CAM + L2 at 30 epochs (table 2.2 in words; table 3.5: 91.08 against 43.26)."""
    return [_methods(results, "lrp_l2", "gradcam_l2", _late(results))]


def longer_is_better(results: Any) -> list[Comparison]:
    """diswot.table3_5.e: LRP + cosine gains from 30 to 50 epochs (table 3.5: 92.75, then 95.35)."""
    early, late = _late(results), _size(results).lengths[-1]
    arms = [_best(results, "lrp_cosine", epochs) for epochs in (late, early)]
    return [Comparison(f"lrp_cosine: {late} - {early} epochs", paired(*arms) if late > early else {})]


def maps_make_no_difference(results: Any) -> list[Comparison]:
    """diswot.table3_5.f, ours: with one distance, the two maps end within half a point of each other."""
    pairs = (("lrp_gram", "gradcam_l2"), ("lrp_cosine", "gradcam_cosine"))
    return [each for one, other in pairs for each in _within(_methods(results, one, other, _late(results)), NEAR)]


def propagation_makes_no_difference(results: Any) -> list[Comparison]:
    """diswot.table3_5.j, ours: maps of true LRP in the loss end within half a point of gradient x activation."""
    return _within(_methods(results, "propagated_cosine", "lrp_cosine", _late(results)), NEAR)


def explanations_beat(other: str) -> Callable[[Any], list[Comparison]]:
    """diswot.table3_5.g and h, ours: the semantic and relation terms help: LRP + cosine > the run without them."""

    def comparisons(results: Any) -> list[Comparison]:
        return [_methods(results, "lrp_cosine", other, _late(results))]

    return comparisons


# --- figures 3.8 and 3.9: where the networks look ---------------------------------------------------------


def looks(kind: str, one: str, other: str, metric: str = "cosine") -> Callable[[Any], list[Comparison]]:
    """diswot.fig3_8 and fig3_9: the maps of one student are more like the teacher's, or more in the head.

    Args:
        kind: of map, as in `efflib.papers.diswot.maps.KINDS`.
        one, other: methods of the two students.
        metric: "cosine", "beyond_image" or "inside_head" of the recipe `relevance_maps`.
    """

    def comparisons(results: Any) -> list[Comparison]:
        arms = [results.samples(metric=metric, network="student", method=name, map=kind) for name in (one, other)]
        return [Comparison(f"{kind}, {metric}: {one} - {other}", paired(*arms))]

    return comparisons


# --- tables 3.6 to 3.8: the final student -----------------------------------------------------------------


def student_keeps_accuracy(results: Any) -> list[Comparison]:
    """diswot.table3_6.a: the student loses less than 3 points to its teacher (table 3.6: 2.67)."""
    return [_final(results, "best", "lrp_cosine", "teacher", "baseline", by=-3.0)]


def distillation_earns_it(results: Any) -> list[Comparison]:
    """diswot.table3_6.b, ours: the student distilled > trained alone for as long, the row that the table omits."""
    return [_final(results, "best", "lrp_cosine", "best", "baseline")]


def flatten_earns_it(results: Any) -> list[Comparison]:
    """diswot.table3_6.c, ours: the teacher's 15.7 million further parameters help against the student alone."""
    return [_final(results, "teacher", "baseline", "best", "baseline")]


def beats_nearest_neighbour(metric: str = "last") -> Callable[[Any], list[Comparison]]:
    """diswot.table3_6.d and e, ours: teacher and student beat the nearest neighbour of 16 px thumbnails."""

    def comparisons(results: Any) -> list[Comparison]:
        bar = results.samples(metric=metric, model="nearest_neighbour")
        made = []
        for role, method in FINAL:
            samples = _ended(results, role, method, metric)
            # The neighbour has no seed: its one accuracy is a bound for every seed.
            above = {seed: value - accuracy for seed, value in samples.items() for accuracy in bar.values()}
            made.append(Comparison(f"{metric}: {_named(results, role)} {method} - nearest neighbour", above))
        return made

    return comparisons


def teacher_reports_better(results: Any) -> list[Comparison]:
    """diswot.table3_7.a: macro F1 of the teacher >= that of the student (table 3.6; table 3.7 prints the opposite)."""
    teacher, student = (_macro_f1(results, *each) for each in FINAL)
    return [Comparison("macro F1: teacher - student", paired(teacher, student))]


def two_classes_are_hard(results: Any) -> list[Comparison]:
    """diswot.table3_7.b: glioma and meningioma have the two lowest recalls (table 3.7), in teacher and student."""
    made = []
    for role, method in FINAL:
        keys = [{"class": name, "measure": "recall"} for name in CLASSES]
        recalls = {name: _ended(results, role, method, "class_report", **each) for name, each in zip(CLASSES, keys)}
        seeds = _seeds(recalls)
        margin = {
            seed: min(recalls[name][seed] for name in ("notumor", "pituitary"))
            - max(recalls[name][seed] for name in ("glioma", "meningioma"))
            for seed in seeds
        }
        made.append(
            Comparison(
                f"{_named(results, role)}: lowest recall of the others - highest of glioma and meningioma", margin
            )
        )
    return made


def beats_the_quoted(results: Any) -> list[Comparison]:
    """diswot.table3_8.a: our student > 95.3 %, quoted for MobileNet with KD and pruning (table 3.8: 95.35)."""
    samples = _ended(results, "best", "lrp_cosine")
    return [Comparison("lrp_cosine - 95.3", shift(samples, -95.3))]


# --- what they are made of --------------------------------------------------------------------------------


def _size(results: Any) -> Size:
    return SIZES[results.scale]


def _samples(results: Any, key: str, name: str, method: str, epochs: int, metric: str = "last") -> dict[int, float]:
    return results.samples(metric=metric, method=method, epochs=epochs, **{key: name})


def _best(results: Any, method: str, epochs: int, metric: str = "last") -> dict[int, float]:
    return _samples(results, "student", _size(results).best.name, method, epochs, metric)


def _late(results: Any) -> int:
    """Epochs of the longer run that all configurations of table 3.5 share."""
    return _size(results).lengths[1]


def _students(results: Any, one: str, other: str) -> Comparison:
    arms = [_samples(results, "student", name, "gradcam_l2", _size(results).space) for name in (one, other)]
    return Comparison(f"{one} - {other}", paired(*arms))


def _methods(results: Any, one: str, other: str, epochs: int, metric: str = "last", by: float = 0.0) -> Comparison:
    arms = [_best(results, method, epochs, metric) for method in (one, other)]
    label = f"{metric}, {epochs} epochs: {one} - {other}" + (f" - {by:g}" if by else "")
    return Comparison(label, shift(paired(*arms), -by))


def _within(found: Comparison, bound: float) -> list[Comparison]:
    """Two one-sided comparisons: the difference lies above -bound and below bound."""
    samples = found.samples or {}
    return [
        Comparison(f"{found.label} + {bound:g}", shift(samples, bound)),
        Comparison(f"{found.label} - {bound:g}", shift(samples, -bound), "<"),
    ]


def _fall(results: Any, method: str, side: str) -> SeedCount:
    """What a method loses from the shorter to the longer run of table 3.5, less what counts as a collapse, by seed."""
    early, late = _size(results).lengths[:2]
    lost = paired(*(_best(results, method, epochs) for epochs in (early, late)))
    label = f"{method}: {early} - {late} epochs - {COLLAPSE:g}"
    return SeedCount(label, shift(lost, -COLLAPSE), side, least=MOST)


def accuracies(results: Any, metric: str = "last") -> dict[str, dict[int, float]]:
    """Student -> seed -> accuracy in percent after distillation, of those that ran, in the order of the space.

    The students of one seed share a teacher. So only the seeds are taken in which all of them ran, where there is any:
    a further seed of one student would move its mean by what that seed's teacher brings.
    """
    epochs = _size(results).space
    found = {name: _samples(results, "student", name, "gradcam_l2", epochs, metric) for name in STUDENTS}
    ran = {name: samples for name, samples in found.items() if samples}
    shared = _seeds(ran)
    return {name: {seed: samples[seed] for seed in shared or samples} for name, samples in ran.items()}


def _seeds(space: Mapping[str, Mapping[int, float]]) -> list[int]:
    return sorted(set.intersection(*(set(samples) for samples in space.values()))) if space else []


def series(results: Any, score: str = "thesis") -> dict[int, dict[str, list[float]]]:
    """Seed of a series of draws -> student -> its score in each draw, as far as they are recorded."""
    found = [(e.seed, e.metrics.get("scores", {}).get(score, {})) for e in results.matching(method="score")]
    return {seed: draws for seed, draws in found if draws}


def pooled(results: Any, score: str = "thesis") -> dict[str, list[float]]:
    """Student -> its score in every recorded draw, one series after the other; empty where none is recorded."""
    drawn: dict[str, list[float]] = {}
    for by_student in series(results, score).values():
        for name, values in by_student.items():
            drawn.setdefault(name, []).extend(values)
    return drawn


def scored(results: Any, score: str = "thesis") -> dict[str, float]:
    """Student -> score, the mean over all recorded draws; empty where none is recorded."""
    return {name: float(np.mean(values)) for name, values in pooled(results, score).items()}


def _negative(scores: Mapping[str, float]) -> dict[str, float]:
    """Lower scores are better: as a predictor of accuracy a score counts with the other sign."""
    return {name: -value for name, value in scores.items()}


def _ranks(results: Any, label: str, predictor: Mapping[str, float]) -> Tested:
    """Kendall's tau of a predictor with the students' mean accuracies, by its two-sided p-value.

    The p-value is exact where no two numbers are equal, and the normal approximation otherwise.
    """
    space = accuracies(results)
    found = len(space) if predictor else 0
    if found < len(STUDENTS):
        return Tested(label, None, expected=len(STUDENTS), found=found)
    tau = kendalltau([predictor[name] for name in space], _means(space))
    how = f"tau {tau.statistic:+.2f}, p = {tau.pvalue:.2g}, {basis(space)}"
    return Tested(label, None, statistic=float(tau.statistic), sure=bool(tau.pvalue < LEVEL), how=how)


def _better(results: Any, label: str, one: Mapping[str, float], other: Mapping[str, float]) -> Tested:
    """Tau of one predictor less that of another, by the bootstrap over students."""
    space = accuracies(results)
    found = len(space) if one and other else 0
    if found < len(STUDENTS):
        return Tested(label, None, expected=len(STUDENTS), found=found)
    first, second = (np.array([each[name] for name in space]) for each in (one, other))
    apart = tau_difference(first, second, np.array(_means(space)))
    how = f"{apart.value:+.2f}, 95 % {apart.low:+.2f} to {apart.high:+.2f}, {basis(space)}"
    return Tested(label, None, statistic=apart.value, sure=apart.low > 0 or apart.high < 0, how=how)


def _means(space: Mapping[str, Mapping[int, float]]) -> list[float]:
    return [fmean(samples.values()) for samples in space.values()]


def basis(space: Mapping[str, Mapping[int, float]]) -> str:
    """What a test over students rests on: "16 students, 1 training seed each"."""
    counts = sorted({len(samples) for samples in space.values()})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f"{len(space)} students, {seeds} training seed{'s' if counts[-1] > 1 else ''} each"


def _final(results: Any, one: str, method: str, other: str, its: str, by: float = 0.0) -> Comparison:
    """Difference of two networks of tables 3.6 to 3.8; `one` and `other` are "teacher" or "best"."""
    arms = [_ended(results, *each) for each in ((one, method), (other, its))]
    label = f"{_named(results, one)} {method} - {_named(results, other)} {its}"
    return Comparison(label + (f" + {-by:g}" if by else ""), shift(paired(*arms), -by))


def _named(results: Any, role: str) -> str:
    return getattr(_size(results), role).name


def _ended(results: Any, role: str, method: str, metric: str = "last", **keys: Any) -> dict[int, float]:
    """seed -> metric of the teacher or the best student at the end of the longest run."""
    keys = {"model": _named(results, role), "method": method, "epochs": _size(results).lengths[-1], **keys}
    return results.samples(metric=metric, **keys)


def _macro_f1(results: Any, role: str, method: str) -> dict[int, float]:
    keys = [{"class": name, "measure": "f1"} for name in CLASSES]
    return mean_samples([_ended(results, role, method, "class_report", **each) for each in keys])[0]


# --- all claims -------------------------------------------------------------------------------------------

_LOOKED = "best student, 30 epochs, test images for which neither map is zero"  # figures 3.8 and 3.9

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "table3_3": claims_of(
        "diswot", "table3_3",
        ("a", "Test accuracy falls in the order that the table prints: best, intermediate, bad student (which "
         "students the last two are is our guess)", "paper",
         "best, intermediate and bad student after 15 epochs (tiny: 6)", accuracy_falls_as_printed, "tiny"),
        ("b", "A low score ranks the whole space of sixteen: Kendall's tau of (-score, accuracy) is above 0, p < 0.05",
         "paper", "16 students, mean accuracy over seeds, mean score over all draws", score_ranks_the_space, "tiny"),
        ("c", "The student of lowest score comes within one point of the best of sixteen", "paper",
         "16 students", selected_is_among_the_best, "tiny"),
        ("d", "The intermediate student overfits more than the best: its gap of training and test accuracy is larger",
         "paper", "best and intermediate student", intermediate_overfits, "tiny"),
        ("e", "The score ranks the space better than the number of parameters does: the 95 % interval of the "
         "difference of their taus (bootstrap over students) lies above 0", "ours",
         "16 students, mean accuracy over seeds, mean score over all draws", score_beats_size, "tiny"),
        ("f", "The number of parameters alone ranks the space: its tau is above 0, p < 0.05", "ours",
         "16 students, mean accuracy over seeds", size_ranks_the_space, "tiny"),
    ),
    "table3_4": claims_of(
        "diswot", "table3_4",
        ("a", "High-order distillation (DisWOT+) beats standard KD by more than one point in every seed", "paper",
         "best student, 10 epochs", high_order_beats_kd, "tiny"),
        ("b", "High-order distillation beats training alone", "paper",
         "best student, 10 epochs", high_order_beats_training_alone, "tiny"),
        ("c", "Standard KD makes no difference to training alone: within half a point", "paper",
         "best student, 10 epochs", kd_equals_training_alone, "tiny"),
        ("d", "Training accuracy is highest with DisWOT+ and lowest for training alone", "paper",
         "best student, 10 epochs", training_accuracy_grows, "tiny"),
        ("e", "DisWOT+ is ahead from the first epoch: by more than 5 points of training accuracy", "paper",
         "best student, 1 epoch", starts_ahead, "tiny"),
        ("f", "DisWOT+ beats KD on the test images that are neither exact nor near copies of training images", "ours",
         "best student, 10 epochs, leak-free images", high_order_beats_kd_without_leaks, "tiny"),
    ),
    "table3_5": claims_of(
        "diswot", "table3_5",
        ("a", "Grad-CAM + L2 collapses: it loses more than 5 points between 15 and 30 epochs in at least 2 of 3 seeds",
         "paper", "best student", gradcam_collapses, "tiny"),
        ("b", "LRP + L2 does not: it loses less than 5 points between 15 and 30 epochs in at least 2 of 3 seeds",
         "paper", "best student", lrp_does_not_collapse, "small"),
        ("c", "LRP + cosine beats LRP + L2 at 30 epochs", "paper", "best student", cosine_beats_l2, "small"),
        ("d", "LRP + cosine beats Grad-CAM + L2 at 30 epochs", "paper", "best student", cosine_beats_gradcam, "tiny"),
        ("e", "LRP + cosine gains from 30 to 50 epochs", "paper", "best student", longer_is_better, "small"),
        ("f", "With one distance, Grad-CAM and 'LRP' (gradient times activation) end within half a point", "ours",
         "best student, 30 epochs, both distances", maps_make_no_difference, "small"),
        ("g", "LRP + cosine beats standard KD: the semantic and relation terms help", "ours",
         "best student, 30 epochs", explanations_beat("kd"), "tiny"),
        ("h", "LRP + cosine beats training alone", "ours",
         "best student, 30 epochs", explanations_beat("baseline"), "tiny"),
        ("j", "Propagating relevance through the layers (LRP in its usual sense) instead of gradient times activation "
         "makes no difference: with cosine, the two end within half a point", "ours", "best student, 30 epochs",
         propagation_makes_no_difference, "small"),
        ("i", "LRP + L2 beats Grad-CAM + L2 at 30 epochs, the middle link of the order that table 2.2 states", "paper",
         "best student", lrp_beats_gradcam, "small"),
    ),
    "fig3_8": claims_of(
        "diswot", "fig3_8",
        ("a", "The LRP student's Grad-CAM maps are more like the teacher's than the Grad-CAM student's", "paper",
         _LOOKED, looks("gradcam", "lrp_cosine", "gradcam_l2"), "tiny"),
        ("b", "More of the LRP student's Grad-CAM maps lies in the head than of the Grad-CAM student's (the thesis "
         "names ventricles and boundary areas; only what lies outside the head is seen here)", "ours",
         _LOOKED, looks("gradcam", "lrp_cosine", "gradcam_l2", "inside_head"), "tiny"),
        ("c", "DisWOT+ (Grad-CAM + L2) ends with Grad-CAM maps more like the teacher's than KD alone, beyond what "
         "other images of the class give", "ours",
         _LOOKED, looks("gradcam", "gradcam_l2", "kd", "beyond_image"), "tiny"),
    ),
    "fig3_9": claims_of(
        "diswot", "fig3_9",
        ("a", "The LRP student's 'LRP' maps are more like the teacher's than the Grad-CAM student's", "paper",
         _LOOKED, looks("gxa", "lrp_cosine", "gradcam_l2"), "tiny"),
        ("b", "LRP + cosine ends with 'LRP' maps more like the teacher's than KD alone, beyond what other images of "
         "the class give", "ours", _LOOKED, looks("gxa", "lrp_cosine", "kd", "beyond_image"), "tiny"),
        ("c", "So it is when relevance is propagated through the layers (LRP in its usual sense, one stride before the "
         "last map)", "ours", _LOOKED, looks("lrp", "lrp_cosine", "kd", "beyond_image"), "tiny"),
    ),
    "table3_6": claims_of(
        "diswot", "table3_6",
        ("a", "The student loses less than 3 points to its teacher", "paper",
         "teacher and best student, full length", student_keeps_accuracy, "tiny"),
        ("b", "The distilled student beats the same student trained alone for as long", "ours",
         "best student, full length", distillation_earns_it, "tiny"),
        ("c", "The teacher's flattened head helps: it beats the same backbone with global average pooling", "ours",
         "both trained alone, full length", flatten_earns_it, "tiny"),
        ("d", "Teacher and student beat the nearest neighbour of 16 px thumbnails", "ours",
         "full length, all test images", beats_nearest_neighbour(), "tiny"),
        ("e", "They beat it on the test images that are neither exact nor near copies of training images", "ours",
         "full length, leak-free images", beats_nearest_neighbour("leak_free"), "tiny"),
    ),
    "table3_7": claims_of(
        "diswot", "table3_7",
        ("a", "The teacher's macro F1 is above the student's (table 3.6; table 3.7 as printed says the opposite)",
         "paper", "4 classes, full length", teacher_reports_better, "tiny"),
        ("b", "Glioma and meningioma have the two lowest recalls, in teacher and student", "paper",
         "4 classes, full length", two_classes_are_hard, "tiny"),
    ),
    "table3_8": claims_of(
        "diswot", "table3_8",
        ("a", "The student beats the 95.3 % quoted for MobileNet with KD and pruning", "paper",
         "best student, 50 epochs", beats_the_quoted, "paper"),
    ),
}  # fmt: skip
