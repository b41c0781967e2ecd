"""DisWOT scores of untrained students.

A score compares a teacher and a student on one mini-batch: a semantic term (maps of the true class, or gradients of the
classifier) and a relation term (which images look alike). Every score here is better when it is lower. The definitions
differ between the thesis's pages and the official DisWOT code; they are kept apart (decision D8).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.data import ImageSet
from efflib.distill.diswot_plus import class_map, relation_loss, semantic_loss
from efflib.kernels.augment import normalise
from efflib.papers.diswot.space import STUDENTS, TEACHER, build
from efflib.text import unknown
from efflib.training import derived_seed, seeded

LAYER = "s32"  # the last feature map (D5)
CHANNELS = 1280  # of it, in every member
INITS = ("gaussian", "default")


# --- what a score sees of a network -----------------------------------------------------------------------


class View(NamedTuple):
    """One network on one batch of B images.

    features: (B, C, h, w), the last map.
    gradcam, gxa: (B, h, w), maps of the true class's logit, positive evidence only.
    classifier: (K, d), gradient of the mean cross-entropy with respect to the last dense layer's weight.
    """

    features: Tensor
    gradcam: Tensor
    gxa: Tensor
    classifier: Tensor


def look(network: nn.Module, images: Tensor, labels: Tensor) -> View:
    """What the scores need of a network for one batch.

    Batch norms use the batch's statistics and dropout is off (D8). They are constants where maps are made, so that no
    image's map depends on another image (D12). All of it happens on a copy: statistics and mode of `network` stay.

    Args:
        network: of `space.build`, on the device of the images.
        images: (B, 1 or 3, H, W), in [0, 1].
        labels: (B,) int64.

    Raises:
        ValueError: fewer than two images, or as many labels as images are not given.
    """
    if len(images) < 2 or labels.shape != (len(images),):
        raise ValueError(
            f"a score compares at least two labelled images; got images {tuple(images.shape)} and labels "
            f"{tuple(labels.shape)}"
        )
    own = on_batch_statistics(network)
    with torch.no_grad():
        features = own.maps(images)[LAYER]  # type: ignore[operator]
    weight = own.head[-1].weight  # type: ignore[index, union-attr]
    loss = F.cross_entropy(own.logits_from(LAYER, features), labels)  # type: ignore[operator]
    (classifier,) = torch.autograd.grad(loss, weight)  # this pass has also set the statistics of the head's norms
    features.requires_grad_()
    logits = own.logits_from(LAYER, features, as_in_eval=True)  # type: ignore[operator]
    gradcam = class_map(features, logits, labels, "gradcam", create_graph=True)  # keeps the graph for the next map
    gxa = class_map(features, logits, labels, "gxa")
    return View(features.detach(), gradcam.detach(), gxa.detach(), classifier)


def on_batch_statistics(network: nn.Module) -> nn.Module:
    """A copy in train mode without dropout, whose running statistics become those of the next batch."""
    own = copy.deepcopy(network).train()
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        elif isinstance(module, nn.Dropout):
            module.eval()
    return own


# --- the scores -------------------------------------------------------------------------------------------


def official_semantic(student: Tensor, teacher: Tensor) -> Tensor:
    """Semantic term of the official code: row-normalised outer products of the classifier's gradients, per class.

    mean_c [ (n_s + n_t) - 2 (sgn(v_s) . sgn(v_t) / d) cos(v_s, v_t) ], n the share of non-zero entries: the closed form
    of the squared differences, summed and divided by K d. No activation enters it, and unit i of one network is
    compared with unit i of the other.

    Args:
        student, teacher: (K, d) gradients of the classifier's weight.

    Returns:
        0-d; 0 for equal directions, 2 on average for independent networks, at most 4.

    Raises:
        ValueError: shapes that differ.

    Source: lliai/DisWOT-CVPR2023 (its ICKD distiller); section 2.6 of the spec.
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(
            f"the official semantic term needs classifiers (K, d) of equal shape, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    shares = student.sign().abs().mean(dim=1) + teacher.sign().abs().mean(dim=1)
    signs = (student.sign() * teacher.sign()).mean(dim=1)
    return (shares - 2 * signs * (_unit(student) * _unit(teacher)).sum(dim=1)).mean()


def rows_apart(first: Tensor, second: Tensor) -> Tensor:
    """Sum of squared differences of two Gram matrices, (n, n) each, whose rows have been given unit length."""
    return (_unit(first) - _unit(second)).square().sum()


def spectrum_apart(first: Tensor, second: Tensor) -> Tensor:
    """Spectral norm of the difference of two Gram matrices, (n, n) each, that have been given unit spectral norm.

    A matrix of zeros stays one.
    """
    return torch.linalg.matrix_norm(_unit_spectrum(first) - _unit_spectrum(second), 2)


def _unit_spectrum(x: Tensor) -> Tensor:
    largest = torch.linalg.matrix_norm(x, 2)
    return x / largest.where(largest > 0, 1.0)


def image_gram(x: Tensor) -> Tensor:
    """(B, ...) -> (B, B) inner products of the images' flattened values."""
    rows = x.flatten(1)
    return rows @ rows.T


def channel_gram(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (C, C) inner products of the channels over images and positions."""
    rows = features.transpose(0, 1).flatten(1)
    return rows @ rows.T


def _unit(x: Tensor) -> Tensor:
    """Rows of unit length; a row of zeros stays one. Divided by its maximum first, so that tiny rows survive."""
    largest = x.abs().amax(dim=1, keepdim=True)
    return F.normalize(x / largest.where(largest > 0, 1.0), dim=1)


def _thesis(student: View, teacher: View) -> dict[str, Tensor]:
    return {
        "semantic": semantic_loss(student.gradcam, teacher.gradcam, "gram", "fro"),
        "relation": relation_loss(student.features, teacher.features, "fro"),
    }


def _thesis_sum_rows(student: View, teacher: View) -> dict[str, Tensor]:
    semantic = rows_apart(image_gram(student.gradcam), image_gram(teacher.gradcam))
    return {"semantic": semantic, **_relation_sum_rows(student, teacher)}


def _thesis_mean_rows(student: View, teacher: View) -> dict[str, Tensor]:
    return {
        "semantic": _rows_apart_in_mean(student.gradcam, teacher.gradcam),
        "relation": _rows_apart_in_mean(student.features, teacher.features),
    }


def _rows_apart_in_mean(student: Tensor, teacher: Tensor) -> Tensor:
    return rows_apart(image_gram(student), image_gram(teacher)) / len(student) ** 2


def _thesis_spectral(student: View, teacher: View) -> dict[str, Tensor]:
    return {
        "semantic": spectrum_apart(image_gram(student.gradcam), image_gram(teacher.gradcam)),
        "relation": spectrum_apart(image_gram(student.features), image_gram(teacher.features)),
    }


def _thesis_lrp_cos(student: View, teacher: View) -> dict[str, Tensor]:
    # An image whose map is zero in either network counts 0 in the loss, where it can give no gradient. In a score that
    # would reward dead maps, so that it counts as no agreement here: 1.
    dead = [(view.gxa == 0).flatten(1).all(dim=1) for view in (student, teacher)]
    semantic = semantic_loss(student.gxa, teacher.gxa, "map", "cosine")
    return {
        "semantic": semantic + (dead[0] | dead[1]).to(semantic.dtype).mean(),
        "relation": relation_loss(student.features, teacher.features, "cosine"),
    }


def _official(student: View, teacher: View) -> dict[str, Tensor]:
    return {
        "semantic": official_semantic(student.classifier, teacher.classifier),
        "relation": _rows_apart_in_mean(student.features, teacher.features),
    }


def _relation_only(student: View, teacher: View) -> dict[str, Tensor]:
    return {"relation": relation_loss(student.features, teacher.features, "fro")}


def _relation_sum_rows(student: View, teacher: View) -> dict[str, Tensor]:
    return {"relation": rows_apart(channel_gram(student.features), channel_gram(teacher.features))}


# Score -> its terms, and the largest value that their sum can have for a batch of B images.
_DEFINITIONS: dict[str, tuple[Callable[[View, View], dict[str, Tensor]], Callable[[int], float]]] = {
    "thesis": (_thesis, lambda B: 2 * math.sqrt(2)),
    "thesis_lrp_cos": (_thesis_lrp_cos, lambda B: 2.0),
    "official": (_official, lambda B: 4 + 2 / B),
    "relation_only": (_relation_only, lambda B: math.sqrt(2)),
    "thesis_spectral": (_thesis_spectral, lambda B: 2.0),
    "thesis_mean_rows": (_thesis_mean_rows, lambda B: 4 / B),
    "thesis_sum_rows": (_thesis_sum_rows, lambda B: 2.0 * B + 2 * CHANNELS),
    "relation_sum_rows": (_relation_sum_rows, lambda B: 2.0 * CHANNELS),
}
SCORES = tuple(_DEFINITIONS)


def bound(score: str = "thesis", batch: int = 32) -> float:
    """A value that a score cannot exceed; batches that share nothing between the networks come near or reach it.

    Non-negative features and maps have Gram matrices without negative entries, so that two of unit norm, or two rows of
    unit length, are at most sqrt(2) apart. Two Gram matrices of unit spectral norm are at most 1 apart, as both are
    positive semi-definite.

    Raises:
        ValueError: unknown score.
    """
    return _definition(score)[1](batch)


def terms(student: View, teacher: View, score: str = "thesis") -> dict[str, float]:
    """The terms of a score, whose sum it is; lower is better.

    Args:
        student, teacher: views of the same batch.
        score: "thesis": Gram matrices of Grad-CAM maps and of features, unit Frobenius norm, Frobenius distance (eqs.
            2.5 to 2.13). "thesis_lrp_cos": maps of gradient times activation compared image by image and features' Gram
            matrices, both by cosine (2.22 to 2.27). "official": see `official_semantic`, and the row-normalised Gram
            matrix of features, mean squared difference. "relation_only": the thesis's second term.
            "thesis_spectral": as "thesis", with spectral norms in place of the Frobenius norms. "thesis_mean_rows":
            with Gram matrices whose rows have unit length and their mean squared difference, as the official code
            reduces. "thesis_sum_rows": with the sum of such differences, for features between channels. Its bound has
            room for the printed scores; its values fall with the size of the last map, so that those of small images
            say nothing about them. "relation_sum_rows": its second term.

    Raises:
        ValueError: unknown score; batches that differ.

    Source: sections 2.4, 2.6 and 2.7 of the spec.
    """
    found = _definition(score)[0](student, teacher)
    return {name: float(value) for name, value in found.items()}


def _definition(score: str) -> tuple[Callable[[View, View], dict[str, Tensor]], Callable[[int], float]]:
    if score not in _DEFINITIONS:
        raise ValueError(unknown("score", score, SCORES))
    return _DEFINITIONS[score]


# --- scoring the space ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """A student's score over several draws.

    Args:
        student: member's name.
        score: which definition.
        draws: the score of each draw of initial weights and batch.
        terms: name of a term -> its value in each draw.
        bound: the largest value that the score can have.
    """

    student: str
    score: str
    draws: tuple[float, ...]
    terms: Mapping[str, tuple[float, ...]]
    bound: float

    @property
    def mean(self) -> float:
        """Mean over draws."""
        return sum(self.draws) / len(self.draws)


def score_space(
    data: ImageSet,
    students: Sequence[str] = tuple(STUDENTS),
    *,
    scores: Sequence[str] = ("thesis",),
    init: str = "gaussian",
    batch: int = 32,
    teacher: nn.Module | None = None,
    draws: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, dict[str, Scored]]:
    """Scores of untrained students, each draw with fresh weights and a fresh batch that all networks share.

    Args:
        data: training images; they are not augmented, pixels are in [0, 1].
        students: names of members.
        scores: definitions, see `terms`; they share the networks and batches of each draw.
        init: "gaussian" (all weights N(0, 1), as the official ranking scripts) or "default" (MobileNetV2's own).
        batch: images in a batch.
        teacher: a trained teacher, the same in every draw; None draws a random one, as the thesis says.
        draws: how many; the thesis's number is unknown, one is noise.
        seed: of weights and batches.
        device: where networks run.

    Returns:
        score -> student -> Scored.

    Raises:
        ValueError: unknown names, no draws, or a batch that the data cannot fill.
    """
    definitions = {score: _definition(score) for score in scores}
    size, classes = data.images.shape[1], len(data.classes)
    found: dict[tuple[str, str], list[dict[str, float]]] = {(s, m): [] for s in scores for m in students}
    for draw, images, labels in batches(data, batch, draws, seed, device):
        guide = teacher or untrained(TEACHER.name, size, classes, init, seed, draw)
        seen = look(guide.to(device), images, labels)
        for name in students:
            own = look(untrained(name, size, classes, init, seed, draw).to(device), images, labels)
            for score in scores:
                found[score, name].append(terms(own, seen, score))
    return {
        score: {name: _scored(name, score, found[score, name], of_batch(batch)) for name in students}
        for score, (_, of_batch) in definitions.items()
    }


def _scored(student: str, score: str, draws: list[dict[str, float]], largest: float) -> Scored:
    by_term = {name: tuple(draw[name] for draw in draws) for name in draws[0]}
    return Scored(student, score, tuple(sum(draw.values()) for draw in draws), by_term, largest)


def batches(
    data: ImageSet, batch: int, draws: int, seed: int, device: str = "cpu"
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Number, images (B, C, H, W) in [0, 1] and labels (B,) of each draw, without replacement within a batch.

    Raises:
        ValueError: no draws, or a batch of fewer than two images or more than there are.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}: a score needs at least one draw of weights and batch")
    if not 2 <= batch <= len(data):
        raise ValueError(f"batch={batch}: take 2 to {len(data)} images, as many as {data.name} {data.split} has")
    channels = data.images.shape[3]
    for draw in range(draws):
        generator = torch.Generator().manual_seed(derived_seed(seed, draw, "diswot batch"))
        chosen = data.take(torch.randperm(len(data), generator=generator)[:batch].numpy())
        images = normalise(torch.from_numpy(chosen.images).to(device), (0,) * channels, (1,) * channels)
        yield draw, images.contiguous(), torch.from_numpy(chosen.labels).to(device)


def untrained(name: str, image_size: int, classes: int, init: str, seed: int, draw: int) -> nn.Module:
    """A member with the initial weights of one draw; other members and draws have their own.

    Raises:
        ValueError: unknown member or init.
    """
    if init not in INITS:
        raise ValueError(unknown("init", init, INITS))
    with seeded(seed, f"diswot {name} {draw}"):
        network = build(name, image_size, classes)
        if init == "gaussian":
            gaussian_(network)
    return network


def gaussian_(network: nn.Module) -> None:
    """Initial weights of the official ranking scripts, in place: convolutions and dense layers N(0, 1), biases 0,
    batch norms weight 1 and bias 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        if isinstance(getattr(module, "bias", None), Tensor):
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
