"""PKGD's pairs and arms: which networks meet, and which method with which options each name stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from efflib.distill.pkgd import code_variant
from efflib.papers import cifar
from efflib.papers.baselines import ClassifierConfig
from efflib.papers.distillation import Options
from efflib.training import TrainingRecipe, cifar_rd, cifar_review, tiny_imagenet
from efflib.trials.trial import Trial

# (teacher, student) of tables 1 and 2, in the order of the columns.
SAME_FAMILY = (
    ("resnet56", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("vgg13", "vgg8"),
)
CROSS_FAMILY = (
    ("resnet32x4", "shufflenetv1"),
    ("resnet32x4", "shufflenetv2"),
    ("wrn_40_2", "shufflenetv1"),
    ("vgg13", "mobilenetv2_half"),
    ("resnet50", "mobilenetv2_half"),
)

# Smoke shows that the code runs.
SMOKE_PAIR = ("vgg13", "vgg8")

# Figure 5's own training (spec, section 4.5); method settings are CIFAR's, lengths in epochs those of 300.
TINY_EPOCHS = 300
# Below paper scale its networks halve the images twice at the stem, as on ImageNet (spec, section 5).
_COARSE_STEMS: dict[str, Options] = {
    **{model: {"stem": "imagenet"} for model in ("resnet18", "resnet34", "resnet50")},
    "mobilenetv1": {"stem_stride": 2},
}
SMOKE_EPOCHS_64 = 4  # four times the pixels: enough to time an epoch
_SMOKE_WIDTHS_64 = {"vgg8": 0.125}  # the others: a quarter

# DKD's weight of the other classes and ReviewKD's of the features (spec, section 4.2), where they are not 8 and 5.
# RP KD's scripts repeat ReviewKD's weight.
_DKD_OTHER = {
    ("resnet56", "resnet20"): 2.0,
    ("resnet110", "resnet32"): 2.0,
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
    ("vgg13", "vgg8"): 6.0,
    ("vgg13", "mobilenetv2_half"): 6.0,
}
_REVIEW_FEATURE = {
    ("resnet56", "resnet20"): 0.6,
    ("resnet110", "resnet32"): 1.0,
    ("resnet32x4", "shufflenetv2"): 8.0,
    ("vgg13", "mobilenetv2_half"): 8.0,
    ("resnet50", "mobilenetv2_half"): 8.0,
}

# PKGD's forms. "pkgd" is the paper's reading (spec, section 2), `align` the same without MLFF and DDAG.
FORMS: dict[str, Options] = {
    "pkgd": {},
    "align": {"modules": "align"},
    "pkgd_code_random": code_variant(),
    "pkgd_code_trained": code_variant(trained=True),
    "pkgd_mlff": {"modules": "mlff", "kd_weight": 0.0},
    "pkgd_mlff_code": {"modules": "mlff", "mlff_side": "student", "kd_weight": 0.0},
    "pkgd_ddag": {"modules": "ddag", "kd_weight": 0.0},
    "pkgd_mlff_ddag": {"kd_weight": 0.0},
}


def baseline(scale: str, model: str, dataset: str, seed: int) -> Trial:
    """A network trained alone: a student's baseline, or a teacher."""
    training, network = _training(scale, model, dataset), _network(scale, model, dataset)
    return cifar.baseline(scale, model, dataset, seed, training, network)


def arm(scale: str, teacher: str, student: str, dataset: str, seed: int, name: str) -> Trial:
    """The student beside its teacher; `name` is a method, or one of PKGD's `FORMS`."""
    guide = baseline(scale, teacher, dataset, seed)
    method = "pkgd" if name in FORMS else name
    training, network = _training(scale, student, dataset), _network(scale, student, dataset)
    options = FORMS.get(name, _options(name, teacher, student, training))
    whole = TINY_EPOCHS if dataset == "tiny_imagenet" else cifar.WHOLE_RUN
    return cifar.distilled(scale, method, student, guide, options, training, network, whole)


def embedding(network: Trial) -> Trial:
    """The trial that measures how a trained network's pooled features cluster (figure 6)."""
    own = {name: getattr(network.settings, name) for name in ClassifierConfig.model_fields}
    return Trial.of("clusters", parents={"network": network}, **own)


def cells(
    scale: str, teacher: str, student: str, dataset: str, seed: int, names: Iterable[str]
) -> Iterator[tuple[dict[str, str], int, Trial]]:
    """Cell, seed and trial of a pair: the teacher, the student alone, and each method's student."""
    pair = {"teacher": teacher, "student": student, "dataset": dataset}
    yield {**pair, "method": "teacher"}, seed, baseline(scale, teacher, dataset, seed)
    yield {**pair, "method": "baseline"}, seed, baseline(scale, student, dataset, seed)
    for name in names:
        yield {**pair, "method": name}, seed, arm(scale, teacher, student, dataset, seed, name)


def _options(method: str, teacher: str, student: str, training: TrainingRecipe | None) -> Options:
    """Settings that depend on the pair; pairs outside the tables (figure 5, smoke) take the defaults."""
    if method == "dkd" and (teacher, student) in _DKD_OTHER:
        return {"other_weight": _DKD_OTHER[teacher, student]}
    if method in ("reviewkd", "rpkd"):
        return {"feature_weight": _REVIEW_FEATURE.get((teacher, student), 5.0)}
    if method == "ft" and student.startswith(("shufflenet", "mobilenet", "vgg")):
        return {"prepare_lr": training.lr if training is not None else 0.05}
    return {}


def _training(scale: str, model: str, dataset: str) -> TrainingRecipe | None:
    """Tiny ImageNet's own recipe; else the paper's at paper scale, None (the shared one) elsewhere.

    On CIFAR, MobileNet and ShuffleNet learn with 0.02; on Tiny ImageNet all with 0.1.
    """
    if dataset == "tiny_imagenet":
        return tiny_imagenet(TINY_EPOCHS if scale == "paper" else cifar.SIZES[scale].epochs)
    if dataset == "objects64":
        return cifar_rd(SMOKE_EPOCHS_64)
    if scale != "paper":
        return None
    recipe = cifar_review()
    return recipe.model_copy(update={"lr": 0.02}) if model.startswith(("shufflenet", "mobilenet")) else recipe


def _network(scale: str, model: str, dataset: str) -> Options:
    """Options of a network on 64 px images below paper scale, and of smoke's ResNet18; none elsewhere."""
    if scale == "smoke" and (model, dataset) == ("resnet18", "objects32"):
        return {"stem": "cifar_pool"}  # a quarter of the work
    if scale == "paper" or dataset not in ("tiny_imagenet", "objects64"):
        return {}
    stem = _COARSE_STEMS.get(model, {})
    return {**stem, "width": _SMOKE_WIDTHS_64.get(model, 0.25)} if scale == "smoke" else stem
