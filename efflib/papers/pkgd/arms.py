"""PKGD's pairs and arms: which networks meet, and which method with which options each name stands for."""

from __future__ import annotations

from efflib.distill.pkgd import code_variant
from efflib.papers import cifar
from efflib.papers.distillation import Options
from efflib.training import TrainingRecipe, cifar_review
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
    return cifar.baseline(scale, model, dataset, seed, _training(scale, model))


def arm(scale: str, teacher: str, student: str, dataset: str, seed: int, name: str) -> Trial:
    """The student beside its teacher; `name` is a method, or one of PKGD's `FORMS`."""
    guide = baseline(scale, teacher, dataset, seed)
    method = "pkgd" if name in FORMS else name
    options = FORMS.get(name, _options(name, teacher, student, scale))
    return cifar.distilled(scale, method, student, guide, options, _training(scale, student))


def _options(method: str, teacher: str, student: str, scale: str) -> Options:
    """Settings that depend on the pair; pairs outside the tables (smoke) take the defaults."""
    if method == "dkd" and (teacher, student) in _DKD_OTHER:
        return {"other_weight": _DKD_OTHER[teacher, student]}
    if method in ("reviewkd", "rpkd"):
        return {"feature_weight": _REVIEW_FEATURE.get((teacher, student), 5.0)}
    if method == "ft" and student.startswith(("shufflenet", "mobilenet", "vgg")):
        return {"prepare_lr": _rate(scale, student)}
    return {}


def _rate(scale: str, model: str) -> float:
    training = _training(scale, model)
    return training.lr if training is not None else 0.05


def _training(scale: str, model: str) -> TrainingRecipe | None:
    """The paper's recipe at paper scale, None (the shared one) elsewhere: lr 0.02 for MobileNet and ShuffleNet."""
    if scale != "paper":
        return None
    recipe = cifar_review()
    return recipe.model_copy(update={"lr": 0.02}) if model.startswith(("shufflenet", "mobilenet")) else recipe
