"""The thesis's runs: data, lengths and settings at each scale, and what each method's name stands for.

The learning rate is constant, so a run contains all shorter ones with the same seed: each student is trained once, for
the longest time that any table asks of its method, and read after every epoch (`efflib.papers.reports`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from efflib.papers.distillation import Options
from efflib.papers.diswot.space import DROPOUT, NARROW_TEACHER, STUDENTS, TEACHER, Member
from efflib.training import Augment, TrainingRecipe
from efflib.trials.trial import Trial

BEST = Member(1.0, 17, "gap")
NETWORKS = {"teacher": TEACHER.name, "student": BEST.name}  # the two of tables 3.6 to 3.8


@dataclass(frozen=True)
class Size:
    """What runs at one scale.

    Args:
        dataset: image set, at the side that the networks see.
        side: of the images, in pixels.
        holdout: training images held out, on which choices may be made; none at paper scale.
        space: epochs after which the students are compared (table 3.3: 15).
        short: epochs after which the strategies of table 3.4 are compared (10).
        lengths: epochs after which the configurations of table 3.5 are compared (15, 30, 50).
        layers: maps of the semantic terms. The last map of images below 160 px has 2 to 4 positions a side: the one
            before the last stride is taken instead (spec, section 3). Smoke keeps the last, which is cheaper.
        students: those that are trained and scored.
        teacher: the network that teaches.
        best: the student of tables 3.4 to 3.8.
        lr: Adam's rate. The thesis's, but at tiny: from scratch, its teacher stays below 95 % of the held-out images
            with that, and the spec (section 4.3) then offers ten times as much, the same for every method
            (`rates.rates_table` shows what decided).
        batch_size: images in a batch; smaller in smoke, whose runs have few steps.
        draws: of untrained weights and a batch, over which scores are averaged.
        dropout: of the dense layers; none in smoke, where a few epochs with it end anywhere.
        subset: training images taken, None for all.
        explained: test images whose maps are looked at, None for all.
    """

    dataset: str
    side: int
    holdout: int
    space: int
    short: int
    lengths: tuple[int, ...]
    layers: str = "s16"
    students: tuple[Member, ...] = tuple(STUDENTS.values())
    teacher: Member = TEACHER
    best: Member = BEST
    lr: float = 1e-4
    batch_size: int = 32
    draws: int = 16
    dropout: float = DROPOUT
    subset: int | None = None
    explained: int | None = None


# Smoke: one narrow student with either head, and a shallower one.
_SMOKE = (Member(0.35, 11, "gap"), Member(0.35, 11, "dsc"), Member(0.35, 17, "gap"))
SIZES = {
    "smoke": Size(
        "phantom", 64, 0, 2, 2, (2, 3), students=_SMOKE, teacher=NARROW_TEACHER, best=_SMOKE[0],
        layers="s32", lr=2e-3, batch_size=16, draws=2, dropout=0.0, subset=640, explained=200,
    ),
    "tiny": Size("brain_mri_64", 64, 571, 6, 10, (15, 30), lr=1e-3),
    "small": Size("brain_mri_128", 128, 571, 15, 10, (15, 30, 50)),
    "paper": Size("brain_mri", 224, 0, 15, 10, (15, 30, 50), layers="s32"),
}  # fmt: skip

# Method and its options. The names are those of the thesis: "LRP" is gradient times activation there, "L2" the
# Frobenius norm of similarities with Grad-CAM (Eq. 2.9) and a distance of maps with LRP (Eq. 2.19).
ARMS: dict[str, tuple[str, Options]] = {
    "kd": ("kd", {"ce_weight": 0.5, "kd_weight": 0.5}),
    "gradcam_l2": ("diswot_plus", {"map": "gradcam", "semantic_target": "gram", "distance": "fro"}),
    "lrp_l2": ("diswot_plus", {"map": "gxa", "semantic_target": "map", "distance": "l2_unit"}),
    "lrp_cosine": (
        "diswot_plus", {"map": "gxa", "semantic_target": "map", "distance": "cosine", "relation": "cosine"},
    ),
    # Ours: the raw distance, the two that change nothing but the map of a printed one, one that changes nothing but the
    # relation term of the last printed one, and one whose maps are LRP in its usual sense, propagated through layers.
    "lrp_l2_raw": ("diswot_plus", {"map": "gxa", "semantic_target": "map", "distance": "l2"}),
    "gradcam_cosine": (
        "diswot_plus", {"map": "gradcam", "semantic_target": "map", "distance": "cosine", "relation": "cosine"},
    ),
    "lrp_gram": ("diswot_plus", {"map": "gxa", "semantic_target": "gram", "distance": "fro"}),
    "lrp_cosine_fro": ("diswot_plus", {"map": "gxa", "semantic_target": "map", "distance": "cosine"}),
    "propagated_cosine": (
        "diswot_plus", {"map": "lrp", "semantic_target": "map", "distance": "cosine", "relation": "cosine"},
    ),
}  # fmt: skip
# Where the networks start (decision D15). The thesis does not say; what it reports of its images and first epochs fits
# ImageNet weights, frozen in the students. Torchvision has such weights for the teacher and the best student only.
STARTS = ("scratch", "imagenet", "imagenet_frozen")
# Decision D13: the thesis names flips, rotation and zoom without ranges. The second has the wider ones of the spec.
AUGMENTATIONS: tuple[Augment, ...] = ("flip_affine", "flip_affine_wide")
RATES = (1e-4, 1e-3)  # printed, and for networks from scratch that do not get far with it
LONGEST = ("baseline", "kd", "lrp_cosine")  # trained for 50 epochs, the others of table 3.5 for 30


class How(NamedTuple):
    """What can be chosen for all runs of a page together.

    Args:
        start: one of STARTS.
        lr: Adam's rate, None for the scale's.
        augment: one of AUGMENTATIONS.
    """

    start: str = "scratch"
    lr: float | None = None
    augment: Augment = AUGMENTATIONS[0]


AS_USUAL = How()


def length(scale: str, student: Member, method: str) -> int:
    """Epochs of a run: a student other than the best is trained for table 3.3 alone."""
    size = SIZES[scale]
    if student != size.best:
        return size.space
    return size.lengths[-1] if method in LONGEST else size.lengths[1]


def alone(scale: str, network: Member, seed: int, how: How = AS_USUAL, epochs: int | None = None) -> Trial:
    """A network trained with cross-entropy alone, for so many epochs: the teacher, or a student's baseline."""
    return Trial.of("baseline", **_settings(scale, network, seed, epochs or SIZES[scale].lengths[-1], how))


def distilled(
    scale: str, student: Member, seed: int, method: str, how: How = AS_USUAL, epochs: int | None = None
) -> Trial:
    """A student beside the teacher of its seed; `method` is a key of ARMS, `epochs` its `length` unless given."""
    size = SIZES[scale]
    name, options = ARMS[method]
    layers: Options = {"layers": size.layers} if name == "diswot_plus" else {}
    return Trial.of(
        "distill",
        parents={"teacher": alone(scale, size.teacher, seed, how)},
        method=name,
        options={**options, **layers},
        teacher_model="mobilenetv2",
        teacher_options=_options(scale, size.teacher, how.start),
        **_settings(scale, student, seed, epochs or length(scale, student, method), how),
    )


def student(
    scale: str, network: Member, seed: int, method: str, how: How = AS_USUAL, epochs: int | None = None
) -> Trial:
    """A student by any method, "baseline" included."""
    if method == "baseline":
        return alone(scale, network, seed, how, epochs)
    return distilled(scale, network, seed, method, how, epochs)


def scores(scale: str, seed: int, init: str = "gaussian") -> Trial:
    """The DisWOT scores of a scale's students, all of them in each draw."""
    return Trial.of("diswot_scores", **_scored(scale, seed, init))


def scores_trained(scale: str, seed: int, how: How = AS_USUAL) -> Trial:
    """The same scores with the trained teacher of the seed in place of random ones."""
    teacher = SIZES[scale].teacher
    return Trial.of(
        "diswot_scores_trained",
        parents={"teacher": alone(scale, teacher, seed, how)},
        teacher_options=_options(scale, teacher, how.start),
        **_scored(scale, seed, "gaussian"),
    )


def maps(scale: str, network: Member, seed: int, method: str, how: How = AS_USUAL) -> Trial:
    """How alike the maps of a trained student and its teacher are, and where they lie; at the losses' layer.

    All students are trained for the length that all methods share. Where some are trained for longer elsewhere, their
    shorter run is one of its own, as records keep the last weights only.
    """
    size = SIZES[scale]
    return Trial.of(
        "relevance_maps",
        parents={
            "teacher": alone(scale, size.teacher, seed, how),
            "student": student(scale, network, seed, method, how, size.lengths[1]),
        },
        dataset=size.dataset,
        model_options=_options(scale, network, how.start),
        teacher_options=_options(scale, size.teacher, how.start),
        layer=size.layers,
        images=size.explained,
        seed=seed,
    )


def _scored(scale: str, seed: int, init: str) -> dict[str, Any]:
    size = SIZES[scale]
    students = tuple(member.name for member in size.students)
    return {"dataset": size.dataset, "students": students, "init": init, "draws": size.draws, "seed": seed}


def cost(scale: str, network: Member) -> Trial:
    """What a network costs at the scale's image size."""
    return Trial.of("network_cost", network=network.name, side=SIZES[scale].side)


def nearest_neighbour(scale: str) -> Trial:
    """Each test image gets the class of the training image with the nearest thumbnail: no network is needed for it."""
    return Trial.of("nearest_neighbour", dataset=SIZES[scale].dataset)


def training(scale: str, epochs: int, how: How = AS_USUAL) -> TrainingRecipe:
    """The thesis's recipe for teacher and students alike: Adam with a constant rate.

    Pixels are between 0 and 1, as the constants of these data sets say and the thesis feeds them.
    """
    return TrainingRecipe(
        epochs=epochs,
        lr=SIZES[scale].lr if how.lr is None else how.lr,
        batch_size=SIZES[scale].batch_size,
        weight_decay=0.0,
        optimiser="adam",
        eps=1e-7,
        augment=how.augment,
        pad=0,
    )


def _settings(scale: str, network: Member, seed: int, epochs: int, how: How) -> dict[str, Any]:
    size = SIZES[scale]
    imagenet = {"init": "imagenet", "freeze_backbone": how.start == "imagenet_frozen" and network != size.teacher}
    marks = {1, size.space, size.short, *size.lengths}  # figure 3.7 shows the first epoch, too
    return {
        "dataset": size.dataset,
        "model": "mobilenetv2",
        "model_options": _options(scale, network, how.start),
        "training": training(scale, epochs, how),
        "seed": seed,
        "subset": size.subset,
        "holdout": size.holdout,
        "precision": "fp32",  # the thesis's; and a CPU's depthwise convolutions are slower in bf16
        "marks": tuple(sorted(mark for mark in marks if mark <= epochs)),
        **({} if how.start == "scratch" else imagenet),
    }


def _options(scale: str, network: Member, start: str) -> Options:
    """Options of a network; only the teacher's head depends on the size of the images."""
    size = SIZES[scale]
    sized: Options = {"image_size": size.side} if network.head == "flatten" else {}
    read: Options = {} if start == "scratch" else {"input_norm": "imagenet"}
    return {**network.options, "dropout": size.dropout, **sized, **read}
