"""DisWOT+: high-order distillation, on explanation maps and on similarities within the batch (Benzine, Kiouer 2025).

ce_weight CE + kd_weight T^2 KL + semantic_weight L_sem + relation_weight L_rel

L_sem compares maps of one class's score (Grad-CAM, or gradient times activation), L_rel the feature maps themselves.
The maps are made from gradients, so L_sem differentiates twice; only the part of the network behind the map is
differentiated, and at the last map that is the head.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, Networks, Shapes, need_pairs, same_classes
from efflib.explain import propagate
from efflib.kernels import gradcam_map, gram_distance, relevance_map
from efflib.kernels.common import widened
from efflib.kernels.kd_loss import check_logits, softened_kl
from efflib.models import Features, evaluating, onward
from efflib.text import unknown

MAPS = {"gradcam": gradcam_map, "gxa": relevance_map}
LRP = "lrp"
# Section 2.4 of the spec: how a semantic target can be compared. "fro" is not squared; "l2" and "l2_unit" are.
DISTANCES = {"gram": ("fro", "cosine"), "map": ("l2", "l2_unit", "cosine")}
RELATIONS = {"fro": "l2", "cosine": "cosine"}  # -> metric of `gram_distance`
TARGETS = ("label", "teacher_pred", "own_pred")
LAST = "last"


def class_map(
    features: Tensor,
    logits: Tensor,
    classes: Tensor,
    kind: str = "gradcam",
    relu: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Map of the evidence for one class per image.

    Args:
        features: (N, C, h, w), in the graph of `logits`.
        logits: (N, classes). No image's may depend on another's features: run batch norms as in evaluation, or only
            such layers as do not mix images.
        classes: (N,) int64, the class that is explained.
        kind: "gradcam" or "gxa" (gradient times activation).
        relu: keep only positive evidence.
        create_graph: whether the map is to be differentiated in its turn.

    Returns:
        (N, h, w), dtype of features.

    Raises:
        ValueError: unknown kind.

    Source: section 2.2 of the spec; the score is a logit, as the gradient of a confident softmax vanishes.
    """
    if kind not in MAPS:
        raise ValueError(unknown("map", kind, list(MAPS)))
    scores = logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, features, create_graph=create_graph)
    return MAPS[kind](features, gradient, relu)


def semantic_loss(student: Tensor, teacher: Tensor, target: str = "gram", distance: str = "fro") -> Tensor:
    """Distance between two networks' maps of the same images; the teacher is a constant.

    Args:
        student, teacher: (N, h, w) maps of `class_map`.
        target: "gram" compares the images' similarities (N x N, unit Frobenius norm), "map" each image's two maps.
        distance: for "gram" "fro" (Frobenius norm of the difference) or "cosine"; for "map", as a mean over images,
            "l2" (squared, raw), "l2_unit" (squared, maps of unit length) or "cosine". An image whose map is zero in
            either network counts 0 in the last two, and gives no gradient.

    Returns:
        0-d, float32 (float64 where either is float64); scaling all of one network's maps changes "l2" only.

    Raises:
        ValueError: batches or, for "map", sizes that differ (names both), one image for "gram", or an unknown or
            unfitting name.

    Source: Benzine and Kiouer 2025, Eqs. 2.7-2.9 and 2.19-2.22; section 2.4 of the spec.
    """
    check_semantic(target, distance)
    if student.ndim != 3 or teacher.ndim != 3 or len(student) != len(teacher):
        raise ValueError(f"maps must be (N, h, w) with equal N, got {tuple(student.shape)} and {tuple(teacher.shape)}")
    if target == "gram":
        need_pairs("the semantic loss of target 'gram'", len(student))
        return _semantic_gram(student, teacher, distance)
    if student.shape != teacher.shape:
        raise ValueError(
            f"maps of the same size are compared, got {tuple(student.shape)} from the student and "
            f"{tuple(teacher.shape)} from the teacher: take layers with equal sizes, or semantic_target='gram'"
        )
    return _semantic_map(student, teacher, distance)


def relation_loss(student: Tensor, teacher: Tensor, distance: str = "fro") -> Tensor:
    """Distance between the similarities of a batch's images in two networks; the teacher is a constant.

    Args:
        student, teacher: (N, C, h, w) feature maps; channels and sizes may differ.
        distance: "fro" (Frobenius norm of the difference of two Gram matrices of unit norm) or "cosine" (half of its
            square).

    Returns:
        0-d, float32 (float64 where either is float64).

    Raises:
        ValueError: batches of different size or of one image, or an unknown distance.

    Source: Benzine and Kiouer 2025, Eqs. 2.10-2.12 and 2.23-2.27; section 2.5 of the spec.
    """
    if distance not in RELATIONS:
        raise ValueError(unknown("relation", distance, list(RELATIONS)))
    need_pairs("the relation loss", len(student))
    return gram_distance(student, teacher.detach(), RELATIONS[distance])


def check_semantic(target: str, distance: str) -> None:
    """Check that a semantic target can be compared by a distance.

    Raises:
        ValueError: it cannot; lists the valid combinations.
    """
    if target not in DISTANCES or distance not in DISTANCES[target]:
        valid = "; ".join(f"{name!r} with {', '.join(distances)}" for name, distances in DISTANCES.items())
        raise ValueError(f"semantic_target={target!r} with distance={distance!r} is undefined; valid: {valid}")


def _semantic_gram(student: Tensor, teacher: Tensor, distance: str) -> Tensor:
    s, t = (_scaled(maps, (0, 1, 2)) for maps in (student, teacher.detach()))
    return gram_distance(s, t, RELATIONS[distance])


def _semantic_map(student: Tensor, teacher: Tensor, distance: str) -> Tensor:
    s, t = widened(student).flatten(1), widened(teacher.detach()).flatten(1)
    if distance == "l2":
        return (s - t).square().sum(dim=1).mean()
    alive = (s != 0).any(dim=1) & (t != 0).any(dim=1)
    s, t = (F.normalize(_scaled(maps, (1,)), dim=1) for maps in (s, t))
    apart = 1 - (s * t).sum(dim=1) if distance == "cosine" else (s - t).square().sum(dim=1)
    return torch.where(alive, apart, 0.0).mean()


def _scaled(maps: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Maps over their largest absolute value, a constant: what follows does not depend on it, but tiny maps survive."""
    maps = widened(maps)
    largest = maps.detach().abs().amax(dim=dims, keepdim=True)
    return maps / largest.where(largest > 0, 1.0)


class DisWOTPlus(Distiller):
    """CE + KL + semantic + relation, with weights that sum to 1 in the thesis.

    The networks must have an `onward` method; MobileNetV2 also has maps with names. The student's forward pass is not
    repeated: only the part behind the map runs again, without dropout and with the running statistics of its batch
    norms (decision D12), in float32. Layers are averaged.

    Args:
        student, teacher: feature shapes.
        networks: the networks themselves, for the parts behind the maps.
        map: "gradcam", "gxa" (gradient times activation, the thesis's "LRP") or "lrp" (relevance by `explain.propagate`
            with its composite of rules, whose derivative is approximate: its ratios count as constants).
        semantic_target, distance: see `semantic_loss`.
        relation: distance of `relation_loss`.
        layers: names joined by "+", e.g. "s16+s32" for MobileNetV2; "last" is the last stage of any network
            (MobileNetV2: "s32").
        target: the class that a map explains: "label", "teacher_pred" (in both), or "own_pred" (each network's own).
        relu: whether the maps keep positive evidence only.
        temperature: T.
        ce_weight, kd_weight, semantic_weight, relation_weight: a term of weight 0 is not computed; of these only the
            cross-entropy is still returned.

    Raises:
        ValueError: a value or combination that is not allowed, a layer that does not exist (lists those that do),
            activations in place, networks for different classes.

    Source: Benzine and Kiouer 2025, Eqs. 2.14 and 2.15; sections 2.2-2.5, 2.10 and 2.11 of the spec.
    """

    needs_networks = True

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        networks: Networks,
        *,
        map: str = "gradcam",
        semantic_target: str = "gram",
        distance: str = "fro",
        relation: str = "fro",
        layers: str = LAST,
        target: str = "label",
        relu: bool = True,
        temperature: float = 4.0,
        ce_weight: float = 0.25,
        kd_weight: float = 0.25,
        semantic_weight: float = 0.25,
        relation_weight: float = 0.25,
    ) -> None:
        super().__init__()
        same_classes(student, teacher)
        choices = (("map", map, (*MAPS, LRP)), ("relation", relation, RELATIONS), ("target", target, TARGETS))
        for option, value, valid in choices:
            if value not in valid:
                raise ValueError(unknown(f"{option} of diswot_plus", value, list(valid)))
        check_semantic(semantic_target, distance)
        self.layers = tuple(layers.split("+"))
        for network in networks[:2]:
            _check_network(network, self.layers)
        self.networks, self.map, self.semantic_target, self.distance = networks, map, semantic_target, distance
        self.relation, self.target, self.relu, self.temperature = relation, target, relu, temperature
        self.ce_weight, self.kd_weight = ce_weight, kd_weight
        self.semantic_weight, self.relation_weight = semantic_weight, relation_weight

    def forward(
        self,
        student: Features,
        teacher: Features,
        targets: Tensor,
        indices: Tensor,
        progress: float | Tensor,
        networks: Networks | None = None,
    ) -> dict[str, Tensor]:
        check_logits(student.logits, teacher.logits, self.temperature)
        networks = networks or self.networks
        terms = {"cross_entropy": self.ce_weight * F.cross_entropy(widened(student.logits), targets)}
        if self.kd_weight:
            terms["kd"] = self.kd_weight * self._kl(student, teacher)
        pairs = self._features(student, teacher, networks) if self.semantic_weight or self.relation_weight else []
        if self.semantic_weight:
            maps = self._maps(pairs, student, teacher, targets, networks)
            terms["semantic"] = self.semantic_weight * self._semantic(maps)
        if self.relation_weight:
            terms["relation"] = self.relation_weight * self._relation(pairs)
        return terms

    def measure(self, student: Features, teacher: Features, targets: Tensor | None = None) -> dict[str, Tensor]:
        """The four terms without their weights, and which share of the maps is zero everywhere.

        Without `targets` there is no cross-entropy, and target "label" explains the teacher's prediction instead. Gram
        distances depend on the batch size: compare them at one size.
        """
        check_logits(student.logits, teacher.logits, self.temperature)
        classes = teacher.logits.argmax(dim=1) if targets is None else targets
        with torch.no_grad():
            pairs = self._features(student, teacher, self.networks)
            maps = self._maps(pairs, student, teacher, classes, self.networks)
            zero = [torch.stack([_share_of_zeros(own) for own in each]).mean() for each in zip(*maps)]
            found = {
                "unweighted_kd": self._kl(student, teacher),
                "unweighted_semantic": self._semantic(maps),
                "unweighted_relation": self._relation(pairs),
                "zero_maps_student": zero[0],
                "zero_maps_teacher": zero[1],
            }
            if targets is not None:
                found["unweighted_cross_entropy"] = F.cross_entropy(widened(student.logits), targets)
        return found

    def _kl(self, student: Features, teacher: Features) -> Tensor:
        return softened_kl(widened(student.logits), widened(teacher.logits), self.temperature)

    def _semantic(self, maps: list[tuple[Tensor, Tensor]]) -> Tensor:
        return torch.stack([semantic_loss(s, t, self.semantic_target, self.distance) for s, t in maps]).mean()

    def _relation(self, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        return torch.stack([relation_loss(s, t, self.relation) for s, t in pairs]).mean()

    def _features(self, student: Features, teacher: Features, networks: Networks) -> list[tuple[Tensor, Tensor]]:
        """The two networks' feature maps of each layer; the teacher's are constants."""
        with torch.no_grad():
            guides = [_feature_map(networks.teacher, layer, teacher) for layer in self.layers]
        return [(_feature_map(networks.student, layer, student), t) for layer, t in zip(self.layers, guides)]

    def _maps(
        self,
        pairs: list[tuple[Tensor, Tensor]],
        student: Features,
        teacher: Features,
        targets: Tensor,
        networks: Networks,
    ) -> list[tuple[Tensor, Tensor]]:
        """The two networks' class maps of each layer; the student's can be differentiated where gradients are on."""
        shared = {"label": targets, "teacher_pred": teacher.logits.argmax(dim=1), "own_pred": None}[self.target]
        found, create = [], torch.is_grad_enabled()
        for layer, (s, t) in zip(self.layers, pairs):
            behind = len(student.stages), len(teacher.stages)
            own = self._map(networks.student, layer, behind[0], s, shared, create)
            found.append((own, self._map(networks.teacher, layer, behind[1], t, shared, False)))
        return found

    def _map(
        self, network: nn.Module, layer: str, stages: int, features: Tensor, classes: Tensor | None, create: bool
    ) -> Tensor:
        with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
            A = widened(features) if create and features.requires_grad else widened(features.detach()).requires_grad_()
            behind = partial(_logits_behind, network, layer, stages)
            logits = propagate(behind, A, "composite") if self.map == LRP else behind(A)
            explained = logits.argmax(dim=1) if classes is None else classes
            found = class_map(A, logits, explained, "gxa" if self.map == LRP else self.map, self.relu, create)
        return found if create else found.detach()


def _share_of_zeros(maps: Tensor) -> Tensor:
    return (maps == 0).flatten(1).all(dim=1).float().mean()


def _feature_map(network: nn.Module, layer: str, found: Features) -> Tensor:
    return found.stages[-1] if layer == LAST else network.map_of(layer, found)  # type: ignore[operator]


def _logits_behind(network: nn.Module, layer: str, stages: int, A: Tensor) -> Tensor:
    if layer != LAST:
        return network.logits_from(layer, A, as_in_eval=True)  # type: ignore[operator]
    with evaluating(network):
        return onward(network, stages, A)


def _check_network(network: nn.Module, layers: tuple[str, ...]) -> None:
    valid = [LAST, *getattr(network, "map_names", ())]
    for layer in layers:
        if layer not in valid:
            raise ValueError(unknown(f"layer of {type(network).__name__} for diswot_plus", layer, valid))
    in_place = [name for name, module in network.named_modules() if getattr(module, "inplace", False)]
    if in_place:
        raise ValueError(
            f"{', '.join(in_place)} of {type(network).__name__} work in place, which destroys the maps that "
            "diswot_plus differentiates: build them with inplace=False"
        )
