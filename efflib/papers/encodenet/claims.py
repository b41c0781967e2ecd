"""Claims of the EncodeNet paper (and ours about it) as comparisons; each page tells what was fixed before which run.

The wording and the statistics follow sections 2.7 and 5 of the implementation spec. Every difference is paired by seed:
the arms of one seed share their baseline, its initial weights and its codebook. A claim about "all cells" lists all of
the paper's; cells without runs count as not run. Sizes need scale ``small`` or ``paper``; directions scale ``tiny``.

Methods: ``baseline``; ``encodenet``, the paper's text taken literally (encoder from scratch, then frozen, batch norm
included); ``finetune``, the reading that the authors' earlier code suggests (all layers trained on in the second
stage); ``baseline_long``, the baseline for as many FLOPs as all of EncodeNet. Table 3 has the other readings and, as
targets, the codes that control for what the representatives are.

Metrics: ``last`` (no checkpoint selection) of accuracies; ``train_mse`` and ``test_mse`` of table 1, and the same
relative to the best constant output, ``train_nmse`` and ``test_nmse``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from efflib.models import parameters_of
from efflib.papers.encodenet.rule import CONTROLS, Arm, arm_samples, identity_is_near, said
from efflib.papers.table import Claim, claims_of
from efflib.report.verdict import Comparison, mean_samples, paired, shift

MODELS = ("vgg8", "vgg16", "resnet18", "resnet20")
DATASETS = ("cifar10", "cifar100")
ABLATED = "resnet18"  # of table 3 at paper scale; tiny and small take a ResNet20 (spec, section 5)
REDUCED = "resnet20"
PAIRS = (("resnet110", "resnet32"), ("vgg16", "vgg8"))
PEERS = ("kd", "rkd", "fitnet", "ft")
ATTENTION = ("se", "bam", "cbam", "gam", "gam_gc")
BAND = 0.5  # points: the margin of a printed accuracy

Samples = Mapping[Any, float]


# --- table 1: reconstruction loss -------------------------------------------------------------------------


def clusters_lower_the_loss(results: Any) -> list[Comparison]:
    """T1.1: MSE(cluster) < MSE(class) in all four networks (table 1; the split is not said: training images)."""
    return _cluster_less_class(results, "train_mse")


def on_test_images(results: Any) -> list[Comparison]:
    """T1.1 on test images, whose cluster the encoder has to guess as well."""
    return _cluster_less_class(results, "test_mse")


def relative_loss(results: Any) -> list[Comparison]:
    """T1.3: NMSE(cluster) < NMSE(class): the loss relative to what the best constant output costs."""
    return _cluster_less_class(results, "train_nmse")


def relative_loss_on_test_images(results: Any) -> list[Comparison]:
    """T1.3 on test images."""
    return _cluster_less_class(results, "test_nmse")


def drop_of_the_loss(results: Any) -> list[Comparison]:
    """T1.2: the loss falls by 44 to 58 % (rounded) in each network (table 1; the text says 46 %): both bounds."""
    made = []
    for model in MODELS:
        before, after = (_loss(results, model, target, "train_mse") for target in ("class", "cluster"))
        drop = {seed: 100 * (1 - after[seed] / before[seed]) for seed in before.keys() & after.keys()}
        for side, bound in ((">", 43.5), ("<", 58.5)):
            made.append(Comparison(f"{model}: drop in % {side} {bound:g}", shift(drop, -bound), side))
    return made


def _cluster_less_class(results: Any, metric: str) -> list[Comparison]:
    made = []
    for model in MODELS:
        cluster, single = (_loss(results, model, target, metric) for target in ("cluster", "class"))
        made.append(Comparison(f"{model}: {metric}, cluster - class", paired(cluster, single), "<"))
    return made


def _loss(results: Any, model: str, target: str, metric: str) -> dict[int, float]:
    return results.samples(metric=metric, model=model, dataset="cifar10", target=target)


# --- table 2: four baselines ------------------------------------------------------------------------------


def gains_in_all_cells(results: Any) -> list[Comparison]:
    """T2.1: EncodeNet > baseline in 8/8 cells (table 2), the text taken literally."""
    return _gains(results, "encodenet", "baseline")


def finetuned_gains_in_all_cells(results: Any) -> list[Comparison]:
    """T2.1 in the reading that trains every layer in the second stage."""
    return _gains(results, "finetune", "baseline")


def beats_equal_budget(results: Any) -> list[Comparison]:
    """T2.4, ours: EncodeNet > the baseline trained for as many FLOPs."""
    return _gains(results, "encodenet", "baseline_long")


def finetuned_beats_equal_budget(results: Any) -> list[Comparison]:
    """T2.4 in the reading that trains every layer in the second stage."""
    return _gains(results, "finetune", "baseline_long")


def mean_gains(results: Any) -> list[Comparison]:
    """T2.2: mean gain 1.65 (CIFAR-10) and 1.87 (CIFAR-100) points over four networks, within the margin."""
    made = []
    for dataset, printed in zip(DATASETS, (1.65, 1.8675), strict=True):
        gains = [_gain(results, model, dataset, "encodenet", "baseline") for model in MODELS]
        mean, found = mean_samples(gains)
        for side, bound in ((">", printed - BAND), ("<", printed + BAND)):
            label = f"{dataset}: mean gain of {len(MODELS)} networks {side} {bound:.2f}"
            made.append(Comparison(label, shift(mean, -bound), side, len(MODELS), found))
    return made


def weakest_gains_most(results: Any) -> list[Comparison]:
    """T2.3: the largest gain is VGG8's, the weakest network's, on both data sets."""
    made = []
    for dataset in DATASETS:
        largest = _gain(results, "vgg8", dataset, "encodenet", "baseline")
        for model in MODELS[1:]:
            other = _gain(results, model, dataset, "encodenet", "baseline")
            made.append(Comparison(f"{dataset}: gain of vgg8 - gain of {model}", paired(largest, other)))
    return made


def _gains(results: Any, one: str, other: str) -> list[Comparison]:
    return [
        Comparison(f"{model}, {dataset}: {one} - {other}", _gain(results, model, dataset, one, other))
        for dataset in DATASETS
        for model in MODELS
    ]


def _gain(results: Any, model: str, dataset: str, one: str, other: str) -> dict[int, float]:
    return paired(*(results.samples(model=model, dataset=dataset, method=method) for method in (one, other)))


# --- table 3: the ablation --------------------------------------------------------------------------------


def identity_loses(results: Any) -> list[Comparison]:
    """T3.1, its direction: an autoencoder of the input itself ends below the baseline."""
    return [_ablated(results, ("baseline", None), ("encodenet", "identity"))]


def identity_stays_near(results: Any) -> list[Comparison]:
    """T3.1, its size: a frozen encoder that only learned to reproduce its input ends within 5 points."""
    return [identity_is_near(results, ablated(results), "encodenet")]


def class_codes_gain(results: Any) -> list[Comparison]:
    """T3.2, its direction: one representative per class gains over the baseline."""
    return [_ablated(results, ("encodenet", "class"), ("baseline", None))]


def cluster_codes_gain(results: Any) -> list[Comparison]:
    """T3.3, its direction: a representative per cluster gains over the baseline."""
    return [_ablated(results, ("encodenet", "cluster"), ("baseline", None))]


def clusters_beat_classes(results: Any) -> list[Comparison]:
    """T3.4: cluster > class."""
    return [_ablated(results, ("encodenet", "cluster"), ("encodenet", "class"))]


def finetuned_ordering(results: Any) -> list[Comparison]:
    """T3.1 to T3.4 in the reading that trains every layer in the second stage."""
    steps = [("finetune", "identity"), ("baseline", None), ("finetune", "class"), ("finetune", "cluster")]
    return [_ablated(results, after, before) for before, after in zip(steps, steps[1:])]  # noqa: RUF007


def beats_its_controls(results: Any) -> list[Comparison]:
    """Ours: the literal text, cluster codes > every control of the mechanism."""
    return [_ablated(results, ("encodenet", "cluster"), control) for control in CONTROLS["encodenet"]]


def finetuned_beats_its_controls(results: Any) -> list[Comparison]:
    """Ours: the same in the reading that trains every layer in the second stage."""
    return [_ablated(results, ("finetune", "cluster"), control) for control in CONTROLS["finetune"]]


def ablated(results: Any) -> dict[str, str]:
    """Network and data set of the ablation at a scale: the paper's, or the smaller one of tiny and small."""
    for model, dataset in ((ABLATED, "cifar10"), (REDUCED, "cifar10"), ("vgg8", "objects32")):
        if results.matching(model=model, dataset=dataset, method="baseline"):
            return {"model": model, "dataset": dataset}
    return {"model": ABLATED, "dataset": "cifar10"}


def _ablated(results: Any, one: Arm, other: Arm) -> Comparison:
    arms = [arm_samples(results, ablated(results), arm) for arm in (one, other)]
    return Comparison(f"{said(one)} - {said(other)}", paired(*arms))


# --- table 4: distillation --------------------------------------------------------------------------------


def beats_distillation(results: Any) -> list[Comparison]:
    """T4.1: EncodeNet > KD, RKD, FitNet and FT in both pairs (section 4.5)."""
    return _over_peers(results, "encodenet")


def finetuned_beats_distillation(results: Any) -> list[Comparison]:
    """T4.1 in the reading that trains every layer in the second stage."""
    return _over_peers(results, "finetune")


def students_beat_equal_budget(results: Any) -> list[Comparison]:
    """Ours: EncodeNet > the student trained alone for as many FLOPs, in both pairs."""
    return [_in_pair(results, pair, "encodenet", "baseline_long") for pair in PAIRS]


def beats_the_teacher(results: Any) -> list[Comparison]:
    """T4.2: VGG8 by EncodeNet > the VGG16 that teaches its peers (table 4: 73.41 against 73.35)."""
    return [_in_pair(results, PAIRS[1], "encodenet", "teacher")]


def rkd_below_baseline(results: Any) -> list[Comparison]:
    """T4.3: RKD < the ResNet32 trained alone (table 4: 71.03 against 71.09)."""
    return [_in_pair(results, PAIRS[0], "rkd", "baseline", "<")]


def _over_peers(results: Any, method: str) -> list[Comparison]:
    return [_in_pair(results, pair, method, peer) for pair in PAIRS for peer in PEERS]


def _in_pair(results: Any, pair: tuple[str, str], one: str, other: str, side: str = ">") -> Comparison:
    cell = {"teacher": pair[0], "student": pair[1], "dataset": "cifar100"}
    arms = [results.samples(**cell, method=method) for method in (one, other)]
    return Comparison(f"{' to '.join(pair)}: {one} - {other}", paired(*arms), side)


# --- table 5: attention -----------------------------------------------------------------------------------


def gains_over_resnet50(results: Any) -> list[Comparison]:
    """T5.2, its direction: EncodeNet > ResNet50 (table 5: +2.87)."""
    return [_in_resnet50(results, "encodenet", "baseline")]


def beats_se_and_bam(results: Any) -> list[Comparison]:
    """T5.3: EncodeNet > SE and BAM (section 1; printed 80.10 against 79.71 and 80.03)."""
    return [_in_resnet50(results, "encodenet", peer) for peer in ("se", "bam")]


def finetuned_beats_se_and_bam(results: Any) -> list[Comparison]:
    """T5.3 in the reading that trains every layer in the second stage."""
    return [_in_resnet50(results, "finetune", peer) for peer in ("se", "bam")]


def resnet50_beats_equal_budget(results: Any) -> list[Comparison]:
    """Ours: EncodeNet > ResNet50 trained for as many FLOPs."""
    return [_in_resnet50(results, "encodenet", "baseline_long")]


def near_cbam_and_gam(results: Any) -> list[Comparison]:
    """T5.4: within 1.3 points of CBAM, GAM and GAM with groups."""
    made = []
    for peer in ("cbam", "gam", "gam_gc"):
        found = _in_resnet50(results, "encodenet", peer)
        made.append(Comparison(f"{found.label} + 1.3", shift(found.samples or {}, 1.3)))
    return made


def row_network(method: str) -> str:
    """Name of the network that classifies in a row of table 5; EncodeNet's is the plain one."""
    return f"resnet50_{method}" if method in ATTENTION else "resnet50"


def parameter_counts() -> dict[str, int]:
    """Parameters of the rows of table 5 at 100 classes, counted by building the networks without memory."""
    return {method: parameters_of(row_network(method), 100) for method in ("baseline", *ATTENTION)}


def _in_resnet50(results: Any, one: str, other: str) -> Comparison:
    cell = {"model": "resnet50", "dataset": "cifar100"}
    arms = [results.samples(**cell, method=method) for method in (one, other)]
    return Comparison(f"{one} - {other}", paired(*arms))


# --- the list ---------------------------------------------------------------------------------------------

_FOUR, _EIGHT = "4 networks, CIFAR-10", "4 networks, 2 data sets"
_ABLATION = "ResNet18 (tiny, small: ResNet20), CIFAR-10"
_PAIRS = "2 pairs, CIFAR-100"
_RESNET50 = "ResNet50, CIFAR-100"

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "table1": claims_of(
        "encodenet", "table1",
        ("a", "Clustering lowers the reconstruction loss in every network (training images).", "paper", _FOUR,
         clusters_lower_the_loss, "tiny"),
        ("b", "It lowers the loss by 44 to 58 % in every network.", "paper", _FOUR, drop_of_the_loss, "paper"),
        ("c", "It lowers the loss on test images too.", "ours", _FOUR, on_test_images, "tiny"),
        ("d", "It lowers the loss relative to the best constant output (training images).", "ours", _FOUR,
         relative_loss, "tiny"),
        ("e", "It lowers that relative loss on test images too.", "ours", _FOUR, relative_loss_on_test_images, "tiny"),
    ),
    "table2": claims_of(
        "encodenet", "table2",
        ("a", "EncodeNet (frozen encoder, as the text says) is better than its baseline in every cell.", "paper",
         _EIGHT, gains_in_all_cells, "tiny"),
        ("b", "The mean gain is 1.65 points on CIFAR-10 and 1.87 on CIFAR-100 (within 0.5).", "paper", _EIGHT,
         mean_gains, "paper"),
        ("c", "The weakest network, VGG8, gains most on both data sets.", "paper", _EIGHT, weakest_gains_most,
         "small"),
        ("d", "EncodeNet with all layers fine-tuned in the second stage is better than its baseline in every cell.",
         "ours", _EIGHT, finetuned_gains_in_all_cells, "tiny"),
        ("e", "EncodeNet (frozen) is better than its baseline trained for as many FLOPs.", "ours", _EIGHT,
         beats_equal_budget, "tiny"),
        ("f", "EncodeNet (fine-tuned) is better than its baseline trained for as many FLOPs as the frozen one.",
         "ours", _EIGHT, finetuned_beats_equal_budget, "tiny"),
    ),
    "table3": claims_of(
        "encodenet", "table3",
        ("a", "With its own input as target, EncodeNet ends below the baseline.", "paper", _ABLATION, identity_loses,
         "tiny"),
        ("b", "With its own input as target, it still ends within 5 points of the baseline.", "paper", _ABLATION,
         identity_stays_near, "tiny"),
        ("c", "One representative per class gains over the baseline.", "paper", _ABLATION, class_codes_gain, "tiny"),
        ("d", "A representative per cluster gains over the baseline.", "paper", _ABLATION, cluster_codes_gain,
         "tiny"),
        ("e", "Clusters gain over classes.", "paper", _ABLATION, clusters_beat_classes, "tiny"),
        ("f", "The whole ordering holds with all layers fine-tuned in the second stage.", "ours", _ABLATION,
         finetuned_ordering, "tiny"),
        ("g", "Cluster codes beat every control of the mechanism (frozen encoder).", "ours", _ABLATION,
         beats_its_controls, "tiny"),
        ("h", "Cluster codes beat every control of the mechanism (fine-tuned).", "ours", _ABLATION,
         finetuned_beats_its_controls, "tiny"),
    ),
    "table4": claims_of(
        "encodenet", "table4",
        ("a", "EncodeNet is better than KD, RKD, FitNet and FT in both pairs.", "paper", _PAIRS, beats_distillation,
         "small"),
        ("b", "VGG8 by EncodeNet is better than VGG16.", "paper", "1 pair, CIFAR-100", beats_the_teacher, "small"),
        ("c", "RKD is worse than the ResNet32 trained alone.", "paper", "1 pair, CIFAR-100", rkd_below_baseline,
         "small"),
        ("d", "EncodeNet with all layers fine-tuned is better than the four in both pairs.", "ours", _PAIRS,
         finetuned_beats_distillation, "small"),
        ("e", "EncodeNet (frozen) is better than the student trained alone for as many FLOPs.", "ours", _PAIRS,
         students_beat_equal_budget, "small"),
    ),
    "table5": claims_of(
        "encodenet", "table5",
        ("a", "EncodeNet is better than ResNet50.", "paper", _RESNET50, gains_over_resnet50, "tiny"),
        ("b", "EncodeNet is better than SE and BAM.", "paper", _RESNET50, beats_se_and_bam, "tiny"),
        ("c", "EncodeNet is within 1.3 points of CBAM, GAM and GAM with groups.", "paper", _RESNET50,
         near_cbam_and_gam, "small"),
        ("d", "EncodeNet with all layers fine-tuned is better than SE and BAM.", "ours", _RESNET50,
         finetuned_beats_se_and_bam, "tiny"),
        ("e", "EncodeNet (frozen) is better than ResNet50 trained for as many FLOPs.", "ours", _RESNET50,
         resnet50_beats_equal_budget, "tiny"),
    ),
}  # fmt: skip
