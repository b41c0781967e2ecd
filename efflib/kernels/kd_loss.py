"""Hinton's distillation loss on logits, in one number.

alpha CE(z_s, y) + (1 - alpha) T^2 (1/N) sum_n sum_c p_t (ln p_t - ln p_s),   p = softmax(z / T)
d/dz_s = [alpha (softmax(z_s) - onehot(y)) + (1 - alpha) T (p_s - p_t)] / N
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import (
    jit,
    neighbours_per_load,
    power_of_two_above,
    row_max,
    row_sum,
    takes_triton,
    tl,
    triton,
    widened,
)


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Cross-entropy and softened KL divergence; the teacher is a constant.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C); no gradient flows into it.
        targets: (N,) int64 class indices.
        temperature: T > 0.
        alpha: weight of the cross-entropy; the divergence has 1 - alpha. For weights a and b with a + b != 1 take
            (a + b) kd_loss(alpha = a / (a + b)).

    Returns:
        0-d, float32 (float64 for float64 logits).

    Raises:
        ValueError: shapes that differ, targets of another length, or temperature <= 0.

    Source: Hinton et al. 2015, section 2, with the T^2 of its footnote.
    """
    if takes_triton(student_logits, teacher_logits):
        _check(student_logits, teacher_logits, targets, temperature)
        return _fused(student_logits, teacher_logits.detach(), targets, float(temperature), float(alpha))[0]
    return kd_loss_ref(student_logits, teacher_logits, targets, temperature, alpha)


def kd_loss_ref(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Definition of `kd_loss`."""
    _check(student_logits, teacher_logits, targets, temperature)
    student = widened(student_logits)
    divergence = softened_kl(student, widened(teacher_logits), temperature)
    return alpha * F.cross_entropy(student, targets) + (1 - alpha) * divergence


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over rows; the teacher is a constant."""
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def check_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> None:
    """Errors shared by all losses on logits.

    Raises:
        ValueError: logits that are not (N, C) alike, or temperature <= 0.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher logits must be (N, C) alike, got {tuple(student.shape)} and {tuple(teacher.shape)}: "
            "both networks must be built for the same classes"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; 4 is usual, 1 leaves the softmax as it is")


def _check(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> None:
    check_logits(student, teacher, temperature)
    if tuple(targets.shape) != (len(student),):
        raise ValueError(f"targets must be ({len(student)},), one class per row, got {tuple(targets.shape)}")


# The Triton path. A program takes ROWS rows as a tile (PARTS, ROWS, LANES), the columns being PARTS stretches of LANES:
# Triton deals threads out from the last axis to the first, so that few threads share a row, and sums over a row need
# few shuffles (see softmax_stats). Rows longer than a tile are read tile by tile, twice in the forward pass (the second
# time from cache). Kept for the backward pass: three log-sum-exps per row, no (N, C) tensor.


@jit
def _forward_kernel(
    student,  # *(N, C), any strides
    teacher,  # *(N, C), any strides
    targets,  # *(N,) int64
    losses,  # *(N,) float32, written
    lse,  # *(N, 3) float32, written: of z_s, z_s / T, z_t / T
    student_row,  # strides of rows / UNIT
    student_column,
    teacher_row,
    teacher_column,
    N,
    columns,  # C / UNIT
    temperature,
    alpha,
    UNIT: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    C = columns * UNIT
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    here = row < N
    kept = tl.minimum(row, N - 1)  # rows beyond N repeat the last one and are not stored
    column = tl.arange(0, PARTS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]  # (PARTS, 1, LANES)
    students = (
        student + kept[None, :, None] * student_row * UNIT + column.to(tl.int64) * student_column
    )  # (PARTS, ROWS, LANES)
    teachers = teacher + kept[None, :, None] * teacher_row * UNIT + column.to(tl.int64) * teacher_column
    top_s = tl.full((ROWS,), -float("inf"), tl.float32)
    top_t = tl.full((ROWS,), -float("inf"), tl.float32)
    for start in range(0, C, PARTS * LANES):
        inside = start + column < C
        s = tl.load(students + start * student_column, inside, -float("inf")).to(tl.float32)
        t = tl.load(teachers + start * teacher_column, inside, -float("inf")).to(tl.float32)
        top_s, top_t = tl.maximum(top_s, row_max(s)), tl.maximum(top_t, row_max(t))
    sum_1 = tl.zeros((ROWS,), tl.float32)
    sum_s = tl.zeros((ROWS,), tl.float32)
    sum_t = tl.zeros((ROWS,), tl.float32)
    cross = tl.zeros((ROWS,), tl.float32)
    for start in range(0, C, PARTS * LANES):
        inside = start + column < C
        s = tl.load(students + start * student_column, inside, 0.0).to(tl.float32)
        t = tl.load(teachers + start * teacher_column, inside, 0.0).to(tl.float32)
        # relative to the row's highest logit: no exponential overflows, no small difference of large numbers is lost
        s = tl.where(inside, s - top_s[None, :, None], 0.0)
        t = tl.where(inside, t - top_t[None, :, None], 0.0)
        weight = tl.where(inside, tl.exp(t / temperature), 0.0)
        sum_1 += row_sum(tl.where(inside, tl.exp(s), 0.0))
        sum_s += row_sum(tl.where(inside, tl.exp(s / temperature), 0.0))
        sum_t += row_sum(weight)
        cross += row_sum(weight * ((t - s) / temperature))
    row_kept = tl.minimum(row, N - 1)
    target = tl.load(targets + row_kept)
    valid = (target >= 0) & (target < C)
    at_target = (
        tl.load(student + row_kept * student_row * UNIT + target * student_column, valid, 0.0).to(tl.float32) - top_s
    )
    cross_entropy = tl.where(valid, tl.log(sum_1) - at_target, float("nan"))  # no such class: a loss that stops the run
    divergence = cross / sum_t - tl.log(sum_t) + tl.log(sum_s)
    tl.store(losses + row, alpha * cross_entropy + (1 - alpha) * temperature * temperature * divergence, here)
    tl.store(lse + 3 * row, top_s + tl.log(sum_1), here)
    tl.store(lse + 3 * row + 1, top_s / temperature + tl.log(sum_s), here)
    tl.store(lse + 3 * row + 2, top_t / temperature + tl.log(sum_t), here)


@jit
def _backward_kernel(
    upstream,  # *() float32
    student,  # *(N, C), any strides
    teacher,  # *(N, C), any strides
    targets,  # *(N,) int64
    lse,  # *(N, 3) float32
    gradient,  # *(N, C) contiguous, written
    student_row,  # strides of rows / UNIT
    student_column,
    teacher_row,
    teacher_column,
    N,
    columns,  # C / UNIT
    temperature,
    alpha,
    UNIT: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    C = columns * UNIT
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    kept = tl.minimum(row, N - 1)
    column = tl.arange(0, PARTS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]  # (PARTS, 1, LANES)
    column += tl.program_id(1) * (PARTS * LANES)
    inside, wide = column < C, column.to(tl.int64)
    s = tl.load(student + kept[None, :, None] * student_row * UNIT + wide * student_column, inside, 0.0).to(tl.float32)
    t = tl.load(teacher + kept[None, :, None] * teacher_row * UNIT + wide * teacher_column, inside, 0.0).to(tl.float32)
    lse_1, lse_s, lse_t = tl.load(lse + 3 * kept), tl.load(lse + 3 * kept + 1), tl.load(lse + 3 * kept + 2)
    at_target = column == tl.load(targets + kept)[None, :, None]
    # lanes beyond the row: exponents of 0, whatever the row's sums are
    hard = tl.exp(tl.where(inside, s - lse_1[None, :, None], 0.0)) - tl.where(at_target, 1.0, 0.0)
    p_s = tl.exp(tl.where(inside, s / temperature - lse_s[None, :, None], 0.0))
    p_t = tl.exp(tl.where(inside, t / temperature - lse_t[None, :, None], 0.0))
    both = alpha * hard + (1 - alpha) * temperature * (p_s - p_t)
    value = tl.load(upstream) / N * both
    places = gradient + row[None, :, None] * C + column
    tl.store(places, value.to(gradient.dtype.element_ty), inside & (row < N)[None, :, None])


@torch.library.custom_op("efflib::kd_loss", mutates_args=())
def _fused(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """(loss, log-sum-exps (N, 3)) by the Triton kernel."""
    N, C = student.shape
    losses, lse = student.new_empty(N, dtype=torch.float32), student.new_empty(N, 3, dtype=torch.float32)
    tile = _tile(student, teacher)
    steps = _steps(student, teacher, tile["UNIT"])
    _forward_kernel[(triton.cdiv(N, tile["ROWS"]),)](
        student, teacher, targets, losses, lse, *steps, N, C // tile["UNIT"], temperature, alpha, **tile
    )
    return losses.mean(), lse


@torch.library.custom_op("efflib::kd_loss_backward", mutates_args=())
def _fused_backward(
    upstream: Tensor, student: Tensor, teacher: Tensor, targets: Tensor, lse: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Gradient of the loss with respect to the student's logits (N, C)."""
    N, C = student.shape
    gradient = torch.empty_like(student, memory_format=torch.contiguous_format)
    tile = _tile(student, teacher)
    steps = _steps(student, teacher, tile["UNIT"])
    _backward_kernel[(triton.cdiv(N, tile["ROWS"]), triton.cdiv(C, tile["PARTS"] * tile["LANES"]))](
        upstream, student, teacher, targets, lse, gradient, *steps, N, C // tile["UNIT"], temperature, alpha, **tile
    )
    return gradient


def _tile(*logits: Tensor) -> dict[str, int]:
    """A program's tile: 1,024 logits of each network, 8 for each thread of four warps, up to 8 threads to a row."""
    covering, unit = min(power_of_two_above(logits[0].shape[1]), 1024), neighbours_per_load(*logits)
    lanes = min(covering, 8 * unit)
    return {"UNIT": unit, "PARTS": covering // lanes, "ROWS": min(1024 // covering, 128), "LANES": lanes}


def _steps(student: Tensor, teacher: Tensor, unit: int) -> list[int]:
    return [step for x in (student, teacher) for step in (x.stride(0) // unit, x.stride(1))]


@_fused.register_fake
def _(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, alpha: float) -> tuple[Tensor, Tensor]:
    return student.new_empty((), dtype=torch.float32), student.new_empty(len(student), 3, dtype=torch.float32)


@_fused_backward.register_fake
def _(
    upstream: Tensor, student: Tensor, teacher: Tensor, targets: Tensor, lse: Tensor, temperature: float, alpha: float
) -> Tensor:
    return torch.empty_like(student, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    student, teacher, targets, ctx.temperature, ctx.alpha = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(student, teacher, targets, output[1])


def _pull_back(ctx: Any, upstream: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None, None, None
    gradient = _fused_backward(upstream, *ctx.saved_tensors, ctx.temperature, ctx.alpha)
    return gradient, None, None, None, None


_fused.register_autograd(_pull_back, setup_context=_keep)
