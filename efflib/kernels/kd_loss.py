"""Hinton's distillation loss on logits, in one number.

alpha CE(z_s, y) + (1 - alpha) T^2 (1/N) sum_n sum_c p_t (ln p_t - ln p_s),   p = softmax(z / T)
d/dz_s = [alpha (softmax(z_s) - onehot(y)) + (1 - alpha) T (p_s - p_t)] / N
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton, widened


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


# The Triton path. A program takes ROWS rows, so that short rows keep enough loads in flight; rows longer than BLOCK are
# read block by block, twice in the forward pass (the second time from cache). Kept for the backward pass: three
# log-sum-exps per row, no (N, C) tensor.


@jit
def _forward_kernel(
    student,  # *(N, C), any strides
    teacher,  # *(N, C), any strides
    targets,  # *(N,) int64
    losses,  # *(N,) float32, written
    lse,  # *(N, 3) float32, written: of z_s, z_s / T, z_t / T
    student_row,
    student_column,
    teacher_row,
    teacher_column,
    N,
    C,
    temperature,
    alpha,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    here = row < N
    column = tl.arange(0, BLOCK)
    students = student + row[:, None] * student_row + column[None, :] * student_column  # (ROWS, BLOCK)
    teachers = teacher + row[:, None] * teacher_row + column[None, :] * teacher_column
    top_s = tl.full((ROWS,), -float("inf"), tl.float32)
    top_t = tl.full((ROWS,), -float("inf"), tl.float32)
    for start in range(0, C, BLOCK):
        inside = here[:, None] & (start + column < C)[None, :]
        s = tl.load(students + start * student_column, inside, -float("inf"))
        t = tl.load(teachers + start * teacher_column, inside, -float("inf"))
        top_s = tl.maximum(top_s, tl.max(s.to(tl.float32), axis=1))
        top_t = tl.maximum(top_t, tl.max(t.to(tl.float32), axis=1))
    top_s, top_t = tl.where(here, top_s, 0.0), tl.where(here, top_t, 0.0)
    sum_1 = tl.zeros((ROWS,), tl.float32)
    sum_s = tl.zeros((ROWS,), tl.float32)
    sum_t = tl.zeros((ROWS,), tl.float32)
    cross = tl.zeros((ROWS,), tl.float32)
    for start in range(0, C, BLOCK):
        inside = here[:, None] & (start + column < C)[None, :]
        s = tl.load(students + start * student_column, inside, 0.0).to(tl.float32)
        t = tl.load(teachers + start * teacher_column, inside, 0.0).to(tl.float32)
        # relative to the row's highest logit: no exponential overflows, no small difference of large numbers is lost
        s = tl.where(inside, s - top_s[:, None], 0.0)
        t = tl.where(inside, t - top_t[:, None], 0.0)
        weight = tl.where(inside, tl.exp(t / temperature), 0.0)
        sum_1 += tl.sum(tl.where(inside, tl.exp(s), 0.0), axis=1)
        sum_s += tl.sum(tl.where(inside, tl.exp(s / temperature), 0.0), axis=1)
        sum_t += tl.sum(weight, axis=1)
        cross += tl.sum(weight * ((t - s) / temperature), axis=1)
    # rows beyond N: anything finite, it is not stored
    sum_1, sum_s, sum_t = tl.where(here, sum_1, 1.0), tl.where(here, sum_s, 1.0), tl.where(here, sum_t, 1.0)
    target = tl.load(targets + row, here, 0)
    valid = (target >= 0) & (target < C)
    at_target = tl.load(student + row * student_row + target * student_column, here & valid, 0.0).to(tl.float32) - top_s
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
    student_row,
    student_column,
    teacher_row,
    teacher_column,
    N,
    C,
    temperature,
    alpha,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = row < N
    inside = here[:, None] & (column < C)[None, :]
    s = tl.load(student + row[:, None] * student_row + column[None, :] * student_column, inside, 0.0).to(tl.float32)
    t = tl.load(teacher + row[:, None] * teacher_row + column[None, :] * teacher_column, inside, 0.0).to(tl.float32)
    lse_1, lse_s = tl.load(lse + 3 * row, here, 0.0), tl.load(lse + 3 * row + 1, here, 0.0)
    lse_t, target = tl.load(lse + 3 * row + 2, here, 0.0), tl.load(targets + row, here, 0)
    # lanes beyond the tensor: exponents of 0, whatever the row's sums are
    hard = tl.exp(tl.where(inside, s - lse_1[:, None], 0.0)) - tl.where(column[None, :] == target[:, None], 1.0, 0.0)
    p_s = tl.exp(tl.where(inside, s / temperature - lse_s[:, None], 0.0))
    p_t = tl.exp(tl.where(inside, t / temperature - lse_t[:, None], 0.0))
    both = alpha * hard + (1 - alpha) * temperature * (p_s - p_t)
    value = tl.load(upstream) / N * both
    tl.store(gradient + row[:, None] * C + column[None, :], value.to(gradient.dtype.element_ty), inside)


@torch.library.custom_op("efflib::kd_loss", mutates_args=())
def _fused(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """(loss, log-sum-exps (N, 3)) by the Triton kernel."""
    N, C = student.shape
    losses, lse = student.new_empty(N, dtype=torch.float32), student.new_empty(N, 3, dtype=torch.float32)
    strides = (*student.stride(), *teacher.stride())
    rows, block = _tile(C)
    _forward_kernel[(triton.cdiv(N, rows),)](
        student, teacher, targets, losses, lse, *strides, N, C, temperature, alpha, ROWS=rows, BLOCK=block
    )
    return losses.mean(), lse


@torch.library.custom_op("efflib::kd_loss_backward", mutates_args=())
def _fused_backward(
    upstream: Tensor, student: Tensor, teacher: Tensor, targets: Tensor, lse: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Gradient of the loss with respect to the student's logits (N, C)."""
    N, C = student.shape
    gradient = torch.empty_like(student, memory_format=torch.contiguous_format)
    strides = (*student.stride(), *teacher.stride())
    rows, block = _tile(C)
    _backward_kernel[(triton.cdiv(N, rows), triton.cdiv(C, block))](
        upstream, student, teacher, targets, lse, gradient, *strides, N, C, temperature, alpha, ROWS=rows, BLOCK=block
    )
    return gradient


def _tile(classes: int) -> tuple[int, int]:
    """(rows, columns) of a program's tile: 1,024 logits, 8 for each thread of four warps, or one long row's part."""
    block = min(power_of_two_above(classes), 1024)
    return 1024 // block, block


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
