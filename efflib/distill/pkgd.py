"""PKGD: the teacher's mixed features guide the student's, and those are compared with the teacher's (Cao et al.).

MLFF (`Mixing`) mixes the teacher's levels by gated fusion; DDAG (`Guide`) turns a student map into a guided one by
attention between it and the mixed teacher map; the loss is CE + KL + feature_weight HCL(guided, teacher). All modules
are thrown away after training. Equations and decisions: section 2 of the PKGD spec.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Align, Distiller, Shapes, levels, resized, same_number_of_levels, warmup
from efflib.distill.reviewkd import Size, review_chain
from efflib.distill.rpkd import ReviewPreview
from efflib.kernels import guided_attention, hcl_loss
from efflib.kernels.common import widened
from efflib.kernels.kd_loss import check_logits, softened_kl
from efflib.models import Features

MODULES = ("full", "ddag", "mlff", "align", "none")
ATTENTIONS = ("joint", "separate", "separate_full")


class ChannelNorm(nn.Module):
    """LayerNorm over the channels at every position of (N, C, h, w), eps 1e-5, biased variance."""

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        wide = widened(x)
        centred = wide - wide.mean(dim=1, keepdim=True)
        normed = centred * (centred.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
        return normed if self.weight is None or self.bias is None else normed * self.weight + self.bias


class AttentionFusion(nn.Module):
    """Eqs. 1-4: z_a LN(a) + z_b LN(b') + a, with b' = resize(BN(conv1x1(b))) and gates from both normalised maps.

    Args:
        channels: C_a, of the level and of the output.
        neighbour: C_b.
        attention: "joint" takes both gates from one 1x1 convolution on the concatenation; "separate" one C -> 1
            convolution per branch; "separate_full" one C -> C per branch.
        gate: whether a sigmoid bounds the gates.
        affine: whether the norms have gains and shifts.
    """

    def __init__(
        self, channels: int, neighbour: int, attention: str = "joint", gate: bool = True, affine: bool = True
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {attention!r}")
        self.inward = nn.Sequential(nn.Conv2d(neighbour, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.norm_a, self.norm_b = ChannelNorm(channels, affine), ChannelNorm(channels, affine)
        self.joint, self.gate = attention == "joint", gate
        outputs = channels if attention == "separate_full" else 1
        if self.joint:
            self.gates = nn.Conv2d(2 * channels, 2, 1)
        else:
            self.gate_a, self.gate_b = nn.Conv2d(channels, outputs, 1), nn.Conv2d(channels, outputs, 1)

    def forward(self, level: Tensor, neighbour: Tensor) -> Tensor:
        a = self.norm_a(level)
        b = self.norm_b(resized(self.inward(neighbour), level.shape[2:]))
        if self.joint:
            z_a, z_b = self.gates(torch.cat([a, b], dim=1)).split(1, dim=1)
        else:
            z_a, z_b = self.gate_a(a), self.gate_b(b)
        if self.gate:
            z_a, z_b = torch.sigmoid(z_a), torch.sigmoid(z_b)
        return z_a * a + z_b * b + level


class Mixing(nn.Module):
    """MLFF, Eqs. 5 and 6: shallow to deep, then deep to shallow, with a fusion block for each step of each pass."""

    def __init__(self, channels: tuple[int, ...], **options: bool | str) -> None:
        super().__init__()
        count = len(channels)
        self.forward_pass = nn.ModuleList(
            AttentionFusion(channels[i], channels[i - 1], **options)  # type: ignore[arg-type]
            for i in range(1, count)
        )
        self.backward_pass = nn.ModuleList(
            AttentionFusion(channels[i], channels[i + 1], **options)  # type: ignore[arg-type]
            for i in range(count - 1)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        deep = [maps[0]]
        for block, level in zip(self.forward_pass, maps[1:], strict=True):
            deep.append(block(level, deep[-1]))
        mixed = [deep[-1]]
        for number in range(len(maps) - 2, -1, -1):
            mixed.append(self.backward_pass[number](deep[number], mixed[-1]))
        return mixed[::-1]


def reduction(height: int, max_tokens: int = 256) -> int:
    """Spatial reduction k of the encoder: a power of two, at least 2 above 2 px, with (h / k)^2 <= max_tokens."""
    k = 2 if height > 2 else 1
    while (height / k) ** 2 > max_tokens:
        k *= 2
    return k


class Guide(nn.Module):
    """DDAG, Eqs. 7-13, for one level: guided feature of an aligned student map under a teacher's prior.

    Args:
        shape: (C, h, w) of both maps.
        score: scale of the attention scores, see `efflib.kernels.guided_attention`.
        spatial_transpose: contract along the normalised axis.
        qkv_conv: the published code's convolutions in front of the attention and one behind it.
        residual: "plain" adds the student map, "normed" its normalised form (the published code).
        decoder_last_relu: end the decoder with a ReLU, so that guidance only adds.
        share_encoder: one encoder and norm for student and prior.
        max_tokens: bound on the positions of the attention.
    """

    def __init__(
        self,
        shape: Size,
        *,
        score: str = "sqrt",
        spatial_transpose: bool = False,
        qkv_conv: bool = False,
        residual: str = "plain",
        decoder_last_relu: bool = True,
        share_encoder: bool = True,
        max_tokens: int = 256,
    ) -> None:
        super().__init__()
        C, h, _ = shape
        if C % 8:
            raise ValueError(f"the encoder works on an eighth of the channels: {C} channels are not a multiple of 8")
        if residual not in ("plain", "normed"):
            raise ValueError(f"residual must be 'plain' or 'normed', got {residual!r}")
        self.k, self.residual = reduction(h, max_tokens), residual
        self.score, self.spatial_transpose = score, spatial_transpose
        self.norm, self.encoder = ChannelNorm(C), _encoder(C, self.k)
        self.prior_norm = self.norm if share_encoder else ChannelNorm(C)
        self.prior_encoder = self.encoder if share_encoder else _encoder(C, self.k)
        self.decoder = _decoder(C, self.k, decoder_last_relu)
        self.scale = nn.Parameter(torch.ones(())) if score == "l2" else None
        self.qkv = _Projections(C // 4) if qkv_conv else None

    def forward(self, student: Tensor, prior: Tensor) -> Tensor:
        h, w = student.shape[2:]
        normed = self.norm(student)
        tokens_s = self.encoder(_padded(normed, self.k))
        tokens_t = self.prior_encoder(_padded(self.prior_norm(prior), self.k))
        guided = self._attend(tokens_t, tokens_s)
        added = self.decoder(guided)[:, :, :h, :w]
        return added + (normed if self.residual == "normed" else student)

    def _attend(self, teacher: Tensor, student: Tensor) -> Tensor:
        B, d, h, w = student.shape
        query, key, value = (teacher, student, student) if self.qkv is None else self.qkv(teacher, student)
        flat = (x.reshape(B, d, h * w) for x in (query, key, value))
        q, k, v = flat
        scale = 1.0 if self.scale is None else self.scale
        out = guided_attention(q, k, self.score, self.spatial_transpose, v, scale).reshape(B, d, h, w)
        return out if self.qkv is None else self.qkv.out(out)


class _Projections(nn.Module):
    """The published code's projections: query conv1x1, conv3x3; key and value conv1x1, depthwise conv3x3; no biases."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Conv2d(d, d, 1, bias=False), nn.Conv2d(d, d, 3, padding=1, bias=False))
        depthwise = nn.Conv2d(2 * d, 2 * d, 3, padding=1, groups=2 * d, bias=False)
        self.key_value = nn.Sequential(nn.Conv2d(d, 2 * d, 1, bias=False), depthwise)
        self.out = nn.Conv2d(d, d, 1, bias=False)

    def forward(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key, value = self.key_value(student).chunk(2, dim=1)
        return self.query(teacher), key, value


def _encoder(C: int, k: int) -> nn.Sequential:
    inner, out = C // 8, C // 4
    layers: list[nn.Module] = []
    for inputs, outputs, kernel in ((C, inner, 1), (inner, inner, k), (inner, out, 1)):
        layers += [nn.Conv2d(inputs, outputs, kernel, kernel), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _decoder(C: int, k: int, last_relu: bool) -> nn.Sequential:
    inner, inputs = C // 8, C // 4
    layers: list[nn.Module] = []
    for a, b, kernel in ((inputs, inner, 1), (inner, inner, k), (inner, C, 1)):
        layers += [nn.ConvTranspose2d(a, b, kernel, kernel), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*(layers if last_relu else layers[:-1]))


def _padded(x: Tensor, k: int) -> Tensor:
    """Zero-pad height and width to multiples of k, at the right and below."""
    h, w = x.shape[2:]
    return F.pad(x, (0, -w % k, 0, -h % k))


class PKGD(Distiller):
    """CE + kd_weight KL + feature_weight warm-up HCL(guided student features, teacher features).

    Args:
        student, teacher: feature shapes.
        modules: "full"; "ddag" (the prior is the teacher's own map); "mlff" (no guidance: the aligned student is
            compared with the mixed teacher, or with `mlff_side="student"` the review-preview chain with the teacher);
            "align" (neither: aligned student against the teacher); "none" (CE + KL).
        mlff_side: "teacher" as the paper describes; "student" as the published code does: the student goes through
            RP KD's chain instead of `Align`.
        target: "original" teacher maps, or "fused" ones (MLFF's output).
        fused_stop_gradient: no gradient into a fused target.
        align: "conv" (1x1 convolution and BN), or "abf" (ReviewKD's blocks).
        attention, gate: of the fusion, see `AttentionFusion`.
        score, spatial_transpose, qkv_conv, residual, decoder_last_relu, share_encoder, max_tokens: of `Guide`.
        ddag_trainable: False leaves DDAG at its random start.
        ddag_resample: draw DDAG anew at every step, as the published script does.
        feature_weight: 5 in the published code (the paper's alpha).
        kd_weight, temperature: of the KL on logits; 0 removes it.
        warmup_epochs: of the feature loss, which is 0 in the first epoch.

    Source: PKGD, Eqs. 1-15; PKGD spec, sections 2.2-2.9. `code_variant()` gives the published script's options.
    """

    teacher_preactivation = True

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        modules: str = "full",
        mlff_side: str = "teacher",
        target: str = "original",
        fused_stop_gradient: bool = False,
        align: str = "conv",
        attention: str = "joint",
        gate: bool = True,
        score: str = "sqrt",
        spatial_transpose: bool = False,
        qkv_conv: bool = False,
        residual: str = "plain",
        decoder_last_relu: bool = True,
        share_encoder: bool = True,
        max_tokens: int = 256,
        ddag_trainable: bool = True,
        ddag_resample: bool = False,
        feature_weight: float = 5.0,
        kd_weight: float = 1.0,
        temperature: float = 4.0,
        warmup_epochs: float = 20,
    ) -> None:
        super().__init__()
        same_number_of_levels("pkgd", student, teacher)
        _allowed("modules", modules, MODULES)
        _allowed("mlff_side", mlff_side, ("teacher", "student"))
        _allowed("target", target, ("original", "fused"))
        _allowed("align", align, ("conv", "abf"))
        self.modules_used, self.mlff_side, self.target = modules, mlff_side, target
        self.fused_stop_gradient, self.ddag_resample = fused_stop_gradient, ddag_resample
        self.feature_weight, self.kd_weight = feature_weight, kd_weight
        self.temperature, self.warmup_epochs = temperature, warmup_epochs
        self.align = self._aligner(student, teacher, align)
        self.mixing = self._mixing(teacher, attention, gate)
        options = {"score": score, "spatial_transpose": spatial_transpose, "qkv_conv": qkv_conv, "residual": residual}
        options |= {"decoder_last_relu": decoder_last_relu, "share_encoder": share_encoder, "max_tokens": max_tokens}
        self.guides = nn.ModuleList(
            Guide(shape, **options)  # type: ignore[arg-type]
            for shape in (teacher.levels if modules in ("full", "ddag") else ())
        )
        self.guides.requires_grad_(ddag_trainable and not ddag_resample)

    def _aligner(self, student: Shapes, teacher: Shapes, align: str) -> nn.Module | None:
        if self.modules_used == "none":
            return None
        if self.mlff_side == "student" and self.modules_used in ("full", "mlff"):
            return ReviewPreview(student, teacher)
        if align == "abf":
            return _Review(student, teacher)
        return _AlignAll(student, teacher)

    def _mixing(self, teacher: Shapes, attention: str, gate: bool) -> Mixing | None:
        if self.mlff_side == "student" or self.modules_used not in ("full", "mlff"):
            return None
        channels = tuple(C for C, _, _ in teacher.levels)
        # As the only module MLFF makes the target: gains could shrink it, so its norms have none (spec, section 2.9).
        return Mixing(channels, attention=attention, gate=gate, affine=self.modules_used == "full")

    def guided(self, student: Features, teacher: Features) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """(aligned student, guided student, target) per level; without DDAG the first two are the same."""
        targets = levels(teacher)
        aligned = self.align(student)  # type: ignore[misc]
        mixed = self.mixing(targets) if self.mixing is not None else targets
        if self.ddag_resample:
            self._draw_guides()
        guided = aligned
        if len(self.guides):
            guided = [guide(a, prior) for guide, a, prior in zip(self.guides, aligned, mixed, strict=True)]
        if self.mixing is not None and (self.target == "fused" or self.modules_used == "mlff"):
            targets = [x.detach() for x in mixed] if self.fused_stop_gradient else mixed
        return aligned, guided, targets

    def _draw_guides(self) -> None:
        for module in self.guides.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.reset_parameters()

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        check_logits(student.logits, teacher.logits, self.temperature)
        terms = {"cross_entropy": F.cross_entropy(student.logits, targets)}
        if self.kd_weight:
            kl = softened_kl(widened(student.logits), widened(teacher.logits), self.temperature)
            terms["kd"] = self.kd_weight * kl
        if self.modules_used != "none":
            _, guided, wanted = self.guided(student, teacher)
            growth = self.feature_weight * warmup(progress, self.warmup_epochs)
            terms["feature"] = growth * hcl_loss(guided, wanted)
        return terms

    def measure(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        """HCL to the teacher's maps per level: of the aligned student and, where a trained DDAG is, of the guided one.

        Claim of the paper's section 1: guidance narrows the gap (PKGD spec, section 2.10). A DDAG that is drawn anew
        at every step has no weights to measure.
        """
        if self.align is None:
            return {}
        aligned, guided, _ = self.guided(student, teacher)
        wanted = levels(teacher)
        found = {"gap_aligned": _gaps(aligned, wanted)}
        return found | ({"gap_guided": _gaps(guided, wanted)} if len(self.guides) and not self.ddag_resample else {})


def _gaps(maps: list[Tensor], wanted: list[Tensor]) -> Tensor:
    return torch.stack([hcl_loss([x], [y]) for x, y in zip(maps, wanted, strict=True)])


class _AlignAll(nn.Module):
    """`Align` at every level."""

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        pairs = zip(student.levels, teacher.levels, strict=True)
        self.levels = nn.ModuleList(Align(inputs, outputs) for inputs, outputs in pairs)

    def forward(self, student: Features) -> list[Tensor]:
        return [align(x) for align, x in zip(self.levels, levels(student), strict=True)]


class _Review(nn.Module):
    """ReviewKD's chain as aligner (`align="abf"`)."""

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        self.chain = review_chain(student, teacher)

    def forward(self, student: Features) -> list[Tensor]:
        return self.chain(levels(student))


def code_variant(trained: bool = False) -> dict[str, float | int | str | bool]:
    """Options of what the published script does (PKGD spec, section 2.8); `trained` repairs the random DDAG."""
    return {
        "mlff_side": "student",
        "score": "l2",
        "qkv_conv": True,
        "residual": "normed",
        "ddag_trainable": trained,
        "ddag_resample": not trained,
    }


def _allowed(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
