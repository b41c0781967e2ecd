"""SAKD: a policy chooses for every image at which spots of the network it is distilled (Song et al. 2022).

It wraps another method: CRD, with the pooled vector as its only spot, or AT, with every stage as one. The policy is
judged by a grafted network, which at each spot goes on with the teacher's map where the policy distils and with the
student's where it does not; adapters translate the maps both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, Networks, Shapes, need_pairs, same_classes, same_number_of_levels
from efflib.distill.crd import CRD
from efflib.kernels import attention_loss
from efflib.kernels.common import widened
from efflib.kernels.kd_loss import check_logits, softened_kl
from efflib.models import Features, evaluating, features, onward
from efflib.training import derived_seed

Part = Callable[[Tensor], Tensor]

# feature_weight and policy_factor of the published CIFAR-100 configurations, by base.
BASES = {"crd": (0.8, 1.0), "at": (1000.0, 2.0)}


def selected_loss(loss: Callable[..., Tensor], chosen: Tensor, *batch: Tensor, least: int = 1) -> Tensor:
    """Loss of the chosen images, times their share of the batch.

    Args:
        loss: called with the chosen rows of `batch`; a mean over images.
        chosen: (N,) bool.
        batch: tensors (N, ...).
        least: with fewer chosen images the loss is 0 (a loss that compares images needs two).

    Returns:
        0-d, with no gradient into the choice.

    Raises:
        ValueError: a tensor of another length.

    Source: the published code of Song et al. 2022.
    """
    if chosen.ndim != 1 or any(len(rows) != len(chosen) for rows in batch):
        lengths = ", ".join(str(len(rows)) for rows in batch)
        raise ValueError(f"chosen must be (N,) for a batch of N, got {tuple(chosen.shape)} for lengths {lengths}")
    picked = chosen.nonzero().flatten()
    if len(picked) < least:
        return widened(batch[0]).new_zeros(())
    return loss(*(rows[picked] for rows in batch)) * (len(picked) / len(chosen))


def spot_actions(scores: Tensor, noise: Tensor, temperature: float = 5.0) -> Tensor:
    """1 where an image is distilled at a spot, 0 where not: hard choices, with the gradient of the soft ones.

    Args:
        scores: (N, spots, 2), log-odds of distilling and of leaving it.
        noise: (N, spots, 2), uniform on [0, 1).
        temperature: of the Gumbel softmax; it shapes the gradient, not the choice.

    Returns:
        (N, spots), exactly 0 or 1.

    Source: Jang et al. 2017 (straight-through Gumbel softmax), with the temperature of Song et al. 2022.
    """
    scores = widened(scores)
    gumbel = -(-noise.clamp(min=torch.finfo(noise.dtype).tiny).log()).log()
    soft = ((scores + gumbel.to(scores)) / temperature).softmax(dim=2)[..., 0]
    return (soft >= 0.5).to(soft) + (soft - soft.detach())


def grafted_logits(
    student: Sequence[Part],
    teacher: Sequence[Part],
    maps: tuple[Tensor, Tensor],
    adapters: Sequence[tuple[Part, Part]],
    actions: Tensor,
) -> Tensor:
    """Logits of the two networks grafted onto each other: with actions a, at each spot

        to the student: (1 - a) s + a adapt(t),    to the teacher: (1 - a) adapt(s) + a t,

    and at the end (1 - a) student's logits + a teacher's logits.

    Args:
        student, teacher: for each of the m spots, what leads from there to the next spot; the last gives logits.
        maps: of student and teacher at the first spot, (N, C, h, w) or (N, C) each.
        adapters: for each spot, (student's map -> teacher's shape, teacher's map -> student's shape).
        actions: (N, m + 1), the last for the logits.

    Returns:
        (N, classes).

    Source: Song et al. 2022, section 3.2.
    """
    s, t = maps
    for spot, (student_part, teacher_part) in enumerate(zip(student, teacher, strict=True)):
        a = actions[:, spot].view(-1, *(1,) * (s.ndim - 1))
        to_teacher, to_student = adapters[spot]
        s, t = (1 - a) * s + a * to_student(t), (1 - a) * to_teacher(s) + a * t
        s, t = student_part(s), teacher_part(t)
    a = actions[:, -1:]
    return (1 - a) * widened(s) + a * widened(t)


def policy_loss(grafted: Tensor, own: Tensor, at_output: Tensor, factor: float = 1.0) -> Tensor:
    """The grafted network's cross-entropy, weighed against the student's, and a quota of images to distil.

    Args:
        grafted, own: 0-d cross-entropies of the grafted network and of the student (a constant).
        at_output: (N,) actions at the logits.
        factor: multiplies `grafted` where it is above `own`, divides it where it is below.

    Returns:
        0-d; max(0, N / 2 - sum of at_output) is added.

    Raises:
        ValueError: factor <= 0.

    Source: the published code of Song et al. 2022; PKGD spec, section 4.2.
    """
    if not factor > 0:
        raise ValueError(f"policy_factor must be above 0, got {factor}; 1 changes nothing")
    above, below = (grafted > own.detach()).to(grafted), (grafted < own.detach()).to(grafted)
    return grafted * factor ** (above - below) + (len(at_output) / 2 - at_output.sum()).clamp(min=0)


class Regressor(nn.Module):
    """Adapter between maps: convolution, BN, ReLU, as FitNet's regressor in RepDistiller.

    The kernel is 1x1 between equal sizes, 3x3 with stride 2 to halve, transposed 4x4 with stride 2 to double, and as
    large as the difference of the sizes to shrink otherwise.

    Args:
        inputs, outputs: (C, h, w).

    Raises:
        ValueError: a size that would have to grow by another factor than 2.
    """

    def __init__(self, inputs: tuple[int, int, int], outputs: tuple[int, int, int]) -> None:
        super().__init__()
        (C, h, w), (D, H, W) = inputs, outputs
        if (h, w) == (2 * H, 2 * W):
            self.conv: nn.Module = nn.Conv2d(C, D, 3, stride=2, padding=1)
        elif (2 * h, 2 * w) == (H, W):
            self.conv = nn.ConvTranspose2d(C, D, 4, stride=2, padding=1)
        elif h >= H and w >= W:
            self.conv = nn.Conv2d(C, D, (1 + h - H, 1 + w - W))
        else:
            raise ValueError(
                f"sakd has no adapter from a map of {C}x{h}x{w} to one of {D}x{H}x{W}: sizes must be equal, double or "
                "shrinking; take base='crd', which reads the pooled vectors only"
            )
        self.bn = nn.BatchNorm2d(D)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class SAKD(Distiller):
    """CE + feature_weight base loss + kd_weight KL, both on chosen images only, and the loss of policy and adapters.

    The student's terms give the policy no gradient, and the policy's term gives the student none. What the description
    leaves open: the maps that enter the adapters are those after the ReLU (wide ResNet: raw), as the base reads them; a
    base loss that compares images is 0 where fewer than two are chosen; the policy has the student's momentum.

    Args:
        student, teacher: feature shapes.
        networks: the networks themselves, for the grafted pass. Its first part is the student's in eval mode if
            `Distillation` hands the images, else the student's maps as they are given.
        base: "crd" (one spot, the pooled vector) or "at" (the stages).
        labels, memory, negatives: of the base CRD.
        feature_weight: of the base; 0.8 for CRD and 1000 for AT where None.
        kd_weight, temperature: of the KL at the output.
        policy_factor: see `policy_loss`; 1 for CRD and 2 for AT where None.
        policy_temperature: of the Gumbel softmax.
        homogeneous: start with choosing to distil everything (bias + 10); None: where both networks are of one family.
        policy_lr_factor, policy_weight_decay: of policy and adapters, half the student's rate and 1e-3.
        seed: of the policy's noise and of CRD's banks and negatives.

    Raises:
        ValueError: an unknown base, a temperature <= 0, networks that do not fit the base.

    Source: Song et al. 2022 and their code; PKGD spec, section 4.2.
    """

    needs_networks = True
    step: Tensor

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        networks: Networks | None = None,
        *,
        base: str = "crd",
        labels: Tensor | None = None,
        memory: bool = True,
        negatives: int = 16_384,
        feature_weight: float | None = None,
        kd_weight: float = 1.0,
        temperature: float = 4.0,
        policy_factor: float | None = None,
        policy_temperature: float = 5.0,
        homogeneous: bool | None = None,
        policy_lr_factor: float = 0.5,
        policy_weight_decay: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if base not in BASES:
            raise ValueError(f"base must be one of {', '.join(BASES)}, got {base!r}")
        if not policy_temperature > 0:
            raise ValueError(f"policy_temperature must be above 0, got {policy_temperature}; 5 is usual")
        same_classes(student, teacher)
        self.networks, self.seed = networks, seed
        self.feature_weight = BASES[base][0] if feature_weight is None else feature_weight
        self.policy_factor = BASES[base][1] if policy_factor is None else policy_factor
        self.kd_weight, self.temperature, self.policy_temperature = kd_weight, temperature, policy_temperature
        self.policy_lr_factor, self.policy_weight_decay = policy_lr_factor, policy_weight_decay
        self.crd: CRD | None = None
        if base == "crd":
            crd = {"labels": labels, "memory": memory, "negatives": negatives, "seed": seed}
            self.crd = CRD(student, teacher, feature_weight=1.0, **crd)  # type: ignore[arg-type]
        self.to_teacher, self.to_student = _adapters(base, student, teacher)
        spots = len(self.to_teacher) + 1
        self.policy = nn.Linear(teacher.pooled + student.pooled, 2 * spots)
        if _alike(networks) if homogeneous is None else homogeneous:
            with torch.no_grad():
                self.policy.bias[::2] += 10
        # Noise must repeat when a run is resumed: it comes from a generator of this step's own.
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def parameter_groups(self) -> list[dict[str, Any]]:
        modules = (self.policy, self.to_teacher, self.to_student)
        own = [parameter for module in modules for parameter in module.parameters()]
        return [{"params": own, "lr_factor": self.policy_lr_factor, "weight_decay": self.policy_weight_decay}]

    def actions(self, student: Features, teacher: Features) -> Tensor:
        """(N, spots + 1) of 0 and 1: at which spots each image of the batch is distilled; the last is the output."""
        pooled = torch.cat([teacher.pooled, student.pooled], dim=1).detach()
        scores = self.policy(pooled).view(len(pooled), -1, 2)
        generator = torch.Generator().manual_seed(derived_seed(self.seed, int(self.step), "spots"))
        self.step += 1
        noise = torch.rand(scores.shape, generator=generator, dtype=torch.float64)
        return spot_actions(scores, noise.to(scores.device), self.policy_temperature)

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
        actions = self.actions(student, teacher)
        chosen = actions > 0.5
        kl = selected_loss(self._softened, chosen[:, -1], student.logits, teacher.logits)
        base = self._base_loss(student, teacher, chosen, targets, indices, progress)
        own = F.cross_entropy(student.logits, targets)
        grafted = F.cross_entropy(self._grafted(student, teacher, actions, networks or self.networks), targets)
        return {
            "cross_entropy": own,
            "kd": self.kd_weight * kl,
            "feature": self.feature_weight * base,
            "policy": policy_loss(grafted, own, actions[:, -1], self.policy_factor),
        }

    def _softened(self, student: Tensor, teacher: Tensor) -> Tensor:
        return softened_kl(widened(student), widened(teacher), self.temperature)

    def _base_loss(
        self,
        student: Features,
        teacher: Features,
        chosen: Tensor,
        targets: Tensor,
        indices: Tensor,
        progress: float | Tensor,
    ) -> Tensor:
        if self.crd is None:
            pairs = zip(chosen.unbind(1), student.stages, teacher.stages)  # the last choice is the output's
            return torch.stack([selected_loss(attention_loss, here, s, t) for here, s, t in pairs]).sum()
        crd = self.crd
        if crd.memory:
            crd.check_indices(indices)  # of images that are not chosen too
        else:
            need_pairs("sakd with memory=False", len(targets))

        def contrast(s: Tensor, s_logits: Tensor, t: Tensor, t_logits: Tensor, y: Tensor, i: Tensor) -> Tensor:
            return crd(Features((), s, s_logits), Features((), t, t_logits), y, i, progress)["feature"]

        batch = (student.pooled, student.logits, teacher.pooled, teacher.logits, targets, indices)
        return selected_loss(contrast, chosen[:, 0], *batch, least=1 if crd.memory else 2)

    def _grafted(self, student: Features, teacher: Features, actions: Tensor, networks: Networks | None) -> Tensor:
        if networks is None:
            raise ValueError("sakd runs parts of both networks: build it with `create`, or call it with networks=...")
        model, guide, images = networks
        adapters = list(zip(self.to_teacher, self.to_student, strict=True))
        with _constant(model), _constant(guide):
            if self.crd is None:
                s = student.stages[0] if images is None else onward(model, 0, images)
                t, later = teacher.stages[0], [_stages(net, len(adapters)) for net in (model, guide)]
            else:
                s = student.pooled if images is None else features(model, images).pooled
                t, later = teacher.pooled, [[net.get_submodule("head")] for net in (model, guide)]
            return grafted_logits(later[0], later[1], (s.detach(), t.detach()), adapters, actions)


def _adapters(base: str, student: Shapes, teacher: Shapes) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Per spot from the student's shape to the teacher's, and back."""
    if base == "crd":
        there, back = nn.Linear(student.pooled, teacher.pooled), nn.Linear(teacher.pooled, student.pooled)
        return nn.ModuleList([there]), nn.ModuleList([back])
    same_number_of_levels("sakd with base='at'", student, teacher)
    pairs = list(zip(student.stages, teacher.stages, strict=True))
    return nn.ModuleList(Regressor(s, t) for s, t in pairs), nn.ModuleList(Regressor(t, s) for s, t in pairs)


def _alike(networks: Networks | None) -> bool:
    return networks is not None and type(networks.student) is type(networks.teacher)


def _stages(model: nn.Module, count: int) -> list[Part]:
    """What leads from each stage to the next, and from the last to the logits."""
    return [partial(onward, model, stage) for stage in range(1, count + 1)]


@contextmanager
def _constant(model: nn.Module) -> Iterator[None]:
    """Eval mode, and parameters that take no gradient, though it flows through them to the inputs."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with evaluating(model):
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
