"""ReviewKD's hierarchical context loss between lists of equal-shaped maps.

sum over levels of [MSE + sum_q w_q MSE(q x q pools)] / (1 + sum w_q),   q in (4, 2, 1), q < h, w = 1/2, 1/4, 1/8
With D = student - teacher, P_q its pools and W = 1 + sum w_q, at a position x of one level:
d/dstudent(x) = -d/dteacher(x) = 2 / (N C W) [D(x) / (h w) + sum_q w_q / q^2 sum of P_q / |window| over windows with x]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton, widened


def hcl_loss(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Mean squared difference at full size and at coarser pools, weighted, summed over levels.

    Args:
        student_maps: (N, C, h, w) per level.
        teacher_maps: the same shapes; gradients flow into them if they require any.

    Returns:
        0-d, float32 (float64 for float64 maps). The weights go to the pools that are used, in order: a map of h = 2
        has only the 1 x 1 pool, with weight 1/2.

    Raises:
        ValueError: lists of different length, or a level whose shapes differ.

    Source: Chen et al. 2021 (ReviewKD), section 3.3, and its published code.
    """
    return _over_levels(_best_level, student_maps, teacher_maps)


def hcl_loss_ref(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Definition of `hcl_loss`."""
    return _over_levels(_level, student_maps, teacher_maps)


def _over_levels(
    level: Callable[[Tensor, Tensor], Tensor], student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]
) -> Tensor:
    if len(student_maps) != len(teacher_maps) or not student_maps:
        raise ValueError(f"need as many student maps as teacher maps, got {len(student_maps)} and {len(teacher_maps)}")
    pairs = zip(student_maps, teacher_maps, strict=True)
    return torch.stack([level(student, teacher) for student, teacher in pairs]).sum()


def _level(student: Tensor, teacher: Tensor) -> Tensor:
    _check(student, teacher)
    student, teacher = widened(student), widened(teacher)
    total, weights, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for pool in (4, 2, 1):
        if pool < student.shape[2]:
            weight /= 2
            coarse = F.adaptive_avg_pool2d(student, pool), F.adaptive_avg_pool2d(teacher, pool)
            total = total + weight * F.mse_loss(*coarse)
            weights += weight
    return total / weights


def _best_level(student: Tensor, teacher: Tensor) -> Tensor:
    _check(student, teacher)
    if takes_triton(student, teacher) and all(side % _cells(student.shape[2]) == 0 for side in student.shape[2:]):
        return _fused(student, teacher)[0]
    return _level(student, teacher)


def _check(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape or student.ndim != 4:
        raise ValueError(
            f"maps of one level must be (N, C, h, w) alike, got {tuple(student.shape)} and {tuple(teacher.shape)}: "
            "align the student's channels and size first"
        )


# The Triton path, one level at a time, for maps whose sides the finest pool Q divides: the windows are then Q x Q equal
# cells, and coarser pools are sums of cells. For other sizes the windows of one pool overlap and those of two pools do
# not nest; they take the definition. A program has all positions of some channels of one image and adds up D within
# the cells: rows of a cell one after another, its columns in LANES, channels (side by side in channels_last maps) in
# CHANNELS. Kept for the backward pass are the sums of the cells; where those would be a quarter of one map or more
# (up to 8 x 8) it adds them up again from cache instead.


@jit
def _corners(maps, strides, n, channel, rows, columns, CELLS: tl.constexpr, LANES: tl.constexpr):
    """(CELLS, CHANNELS, CELLS, LANES): pointers to the first row of every cell of `rows` x `columns` positions."""
    cell = tl.arange(0, CELLS)
    column = (cell * columns)[:, None] + tl.arange(0, LANES)[None, :]  # (CELLS, LANES)
    down = (cell * rows).to(tl.int64)[:, None, None, None] * strides[2]
    right = column.to(tl.int64)[None, None, :, :] * strides[3]
    return maps + n * strides[0] + channel.to(tl.int64)[None, :, None, None] * strides[1] + down + right


@jit
def _inside(channel, C, start, COLUMNS: tl.constexpr, LANES: tl.constexpr):
    """(1, CHANNELS, 1, LANES): channels of the map, and columns of their own cell."""
    return (channel < C)[None, :, None, None] & (start + tl.arange(0, LANES) < COLUMNS)[None, None, None, :]


@jit
def _added(
    students, teachers, student_strides, teacher_strides, channel, C, rows,
    COLUMNS: tl.constexpr, CELLS: tl.constexpr, CHANNELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Sums of D over the cells (CELLS, CHANNELS, CELLS), and of D^2 over everything."""
    total = tl.zeros((CELLS, CHANNELS, CELLS, LANES), tl.float32)
    squares = tl.zeros((CELLS, CHANNELS, CELLS, LANES), tl.float32)
    for start in range(0, COLUMNS, LANES):
        inside = _inside(channel, C, start, COLUMNS, LANES)
        student, teacher = students, teachers
        for _row in range(0, rows):
            d = tl.load(student, inside, 0.0).to(tl.float32) - tl.load(teacher, inside, 0.0).to(tl.float32)
            total += d
            squares += d * d
            student += student_strides[2]
            teacher += teacher_strides[2]
        students += LANES * student_strides[3]
        teachers += LANES * teacher_strides[3]
    return tl.sum(total, axis=3), tl.sum(squares)


@jit
def _coarser(sums, CELLS: tl.constexpr, CHANNELS: tl.constexpr):
    """(CELLS, CHANNELS, CELLS) -> sums of 2 x 2 cells."""
    return tl.sum(tl.sum(tl.reshape(sums, (CELLS // 2, 2, CHANNELS, CELLS // 2, 2)), axis=4), axis=1)


@jit
def _finer(values, CELLS: tl.constexpr, CHANNELS: tl.constexpr):
    """(CELLS / 2, CHANNELS, CELLS / 2) -> every value for 2 x 2 cells."""
    apart = tl.reshape(values, (CELLS // 2, 1, CHANNELS, CELLS // 2, 1))
    return tl.reshape(tl.broadcast_to(apart, (CELLS // 2, 2, CHANNELS, CELLS // 2, 2)), (CELLS, CHANNELS, CELLS))


@jit
def _forward_kernel(
    student,  # *(N, C, h, w), any strides
    teacher,  # *(N, C, h, w), any strides
    losses,  # *(programs,) float32, written
    sums,  # *(N, CELLS, CELLS, C) float32, written if KEPT
    student_strides,
    teacher_strides,
    C,
    rows,  # of a cell
    weight,  # of D^2; then of the squared sums over cells of 4 x 4, 2 x 2 and 1 x 1 pools
    weight_4,
    weight_2,
    weight_1,
    KEPT: tl.constexpr,
    COLUMNS: tl.constexpr,  # of a cell
    CELLS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
):
    blocks = tl.cdiv(C, CHANNELS)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    channel = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    students = _corners(student, student_strides, n, channel, rows, COLUMNS, CELLS, LANES)
    teachers = _corners(teacher, teacher_strides, n, channel, rows, COLUMNS, CELLS, LANES)
    cells, squares = _added(
        students, teachers, student_strides, teacher_strides, channel, C, rows, COLUMNS, CELLS, CHANNELS, LANES
    )
    if KEPT:
        cell = tl.arange(0, CELLS)
        cell_number = n * CELLS * CELLS + cell[:, None, None] * CELLS + cell[None, None, :]
        tl.store(sums + cell_number * C + channel[None, :, None], cells, (channel < C)[None, :, None])
    loss = weight * squares
    if CELLS == 4:
        loss += weight_4 * tl.sum(cells * cells)
        cells = _coarser(cells, 4, CHANNELS)
    if CELLS >= 2:
        loss += weight_2 * tl.sum(cells * cells)
        cells = _coarser(cells, 2, CHANNELS)
    tl.store(losses + tl.program_id(0), loss + weight_1 * tl.sum(cells * cells))


@jit
def _backward_kernel(
    upstream,  # *() float32
    student,  # *(N, C, h, w), any strides
    teacher,  # *(N, C, h, w), any strides
    sums,  # *(N, CELLS, CELLS, C) float32 if KEPT
    student_gradient,  # *(N, C, h, w), any strides, written if OF_STUDENT
    teacher_gradient,  # *(N, C, h, w), any strides, written if OF_TEACHER
    student_strides,
    teacher_strides,
    student_gradient_strides,
    teacher_gradient_strides,
    C,
    rows,
    weight,
    weight_4,
    weight_2,
    weight_1,
    OF_STUDENT: tl.constexpr,
    OF_TEACHER: tl.constexpr,
    KEPT: tl.constexpr,
    COLUMNS: tl.constexpr,
    CELLS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
):
    blocks = tl.cdiv(C, CHANNELS)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    channel = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    students = _corners(student, student_strides, n, channel, rows, COLUMNS, CELLS, LANES)
    teachers = _corners(teacher, teacher_strides, n, channel, rows, COLUMNS, CELLS, LANES)
    if KEPT:
        cell = tl.arange(0, CELLS)
        cell_number = n * CELLS * CELLS + cell[:, None, None] * CELLS + cell[None, None, :]
        cells = tl.load(sums + cell_number * C + channel[None, :, None], (channel < C)[None, :, None], 0.0)
    else:
        cells, _squares = _added(
            students, teachers, student_strides, teacher_strides, channel, C, rows, COLUMNS, CELLS, CHANNELS, LANES
        )
    # half the gradient of the pools' part, the same for all positions of a cell
    if CELLS == 4:
        halves = _coarser(cells, 4, CHANNELS)
        whole = _finer(weight_1 * _coarser(halves, 2, CHANNELS), 2, CHANNELS)
        shift = weight_4 * cells + _finer(weight_2 * halves + whole, 4, CHANNELS)
    elif CELLS == 2:
        shift = weight_2 * cells + _finer(weight_1 * _coarser(cells, 2, CHANNELS), 2, CHANNELS)
    else:
        shift = weight_1 * cells
    twice = 2 * tl.load(upstream)
    weight = twice * weight
    shift = tl.expand_dims(twice * shift, 3)  # (CELLS, CHANNELS, CELLS, 1)
    to_students = _corners(student_gradient, student_gradient_strides, n, channel, rows, COLUMNS, CELLS, LANES)
    to_teachers = _corners(teacher_gradient, teacher_gradient_strides, n, channel, rows, COLUMNS, CELLS, LANES)
    for start in range(0, COLUMNS, LANES):
        inside = _inside(channel, C, start, COLUMNS, LANES)
        from_s, from_t, to_s, to_t = students, teachers, to_students, to_teachers
        for _row in range(0, rows):
            d = tl.load(from_s, inside, 0.0).to(tl.float32) - tl.load(from_t, inside, 0.0).to(tl.float32)
            value = weight * d + shift
            if OF_STUDENT:
                tl.store(to_s, value.to(student_gradient.dtype.element_ty), inside)
            if OF_TEACHER:
                tl.store(to_t, (-value).to(teacher_gradient.dtype.element_ty), inside)
            from_s += student_strides[2]
            from_t += teacher_strides[2]
            to_s += student_gradient_strides[2]
            to_t += teacher_gradient_strides[2]
        students += LANES * student_strides[3]
        teachers += LANES * teacher_strides[3]
        to_students += LANES * student_gradient_strides[3]
        to_teachers += LANES * teacher_gradient_strides[3]


@torch.library.custom_op("efflib::hcl_loss", mutates_args=())
def _fused(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, sums over the cells (N, Q, Q, C) or, where they are not kept, an empty tensor) of one level."""
    N, C, h, w = student.shape
    plan = _plan(student)
    programs = N * triton.cdiv(C, plan["CHANNELS"])
    losses, sums = student.new_empty(programs, dtype=torch.float32), _sums_of(student)
    strides, weights = (student.stride(), teacher.stride()), _weights(N, C, h, w)
    _forward_kernel[(programs,)](
        student, teacher, losses, sums, *strides, C, h // plan["CELLS"], *weights, **plan, KEPT=sums.numel() > 0
    )
    return losses.sum(), sums


@torch.library.custom_op("efflib::hcl_loss_backward", mutates_args=())
def _fused_backward(
    upstream: Tensor, student: Tensor, teacher: Tensor, sums: Tensor, of_student: bool, of_teacher: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the loss with respect to both maps (N, C, h, w); empty where not asked for."""
    N, C, h, w = student.shape
    plan = _plan(student)
    maps = [_gradient_of(student, of_student), _gradient_of(teacher, of_teacher)]
    strides = (student.stride(), teacher.stride(), *(x.stride() for x in maps))
    asked = {"OF_STUDENT": of_student, "OF_TEACHER": of_teacher, "KEPT": sums.numel() > 0}
    _backward_kernel[(N * triton.cdiv(C, plan["CHANNELS"]),)](
        upstream, student, teacher, sums, *maps, *strides, C, h // plan["CELLS"], *_weights(N, C, h, w), **plan, **asked
    )
    return maps[0], maps[1]


def _gradient_of(maps: Tensor, wanted: bool) -> Tensor:
    """Room for a gradient in the layout of `maps`; an empty tensor if it is not wanted."""
    return torch.empty_like(maps) if wanted else maps.new_empty(0, 0, 0, 0)


def _sums_of(maps: Tensor) -> Tensor:
    """Room for the sums over the cells (N, Q, Q, C), if the backward pass shall have them."""
    N, C, h, w = maps.shape
    cells = _cells(h)
    return maps.new_empty((N, cells, cells, C) if h * w > 4 * cells**2 else 0, dtype=torch.float32)


def _pools(height: int) -> list[tuple[int, float]]:
    """[(q, w_q)] of the pools that a map of this height has."""
    used = [q for q in (4, 2, 1) if q < height]
    return [(q, 0.5 ** (1 + number)) for number, q in enumerate(used)]


def _cells(height: int) -> int:
    """Cells along each side: as many as the finest pool has."""
    pools = _pools(height)
    return pools[0][0] if pools else 1


def _weights(N: int, C: int, h: int, w: int) -> list[float]:
    """Weights of the sum of D^2, then of the squared sums over cells of each pool; 0 for a pool that is not used.

    A pool's mean square is that of N C q^2 sums, each divided by the h w / q^2 positions of its cell.
    """
    pools = dict(_pools(h))
    parts = N * C * (1 + sum(pools.values()))
    return [1 / (parts * h * w), *(pools.get(q, 0.0) * q**2 / (parts * (h * w) ** 2) for q in (4, 2, 1))]


def _plan(maps: Tensor) -> dict[str, int]:
    """Sizes of a program's tile: at most 4,096 values (16 for each thread of eight warps), columns of the cells first.

    The channels get 64 bytes at least, what memory hands over at once, if the map has as many.
    """
    _, C, h, w = maps.shape
    cells = _cells(h)
    least = min(power_of_two_above(C), 64 // maps.element_size())
    lanes = min(power_of_two_above(w // cells), 4096 // (cells**2 * least))
    channels = min(power_of_two_above(C), 4096 // (cells**2 * lanes))
    warps = max(1, min(8, cells**2 * lanes * channels // 512))
    return {"COLUMNS": w // cells, "CELLS": cells, "CHANNELS": channels, "LANES": lanes, "num_warps": warps}


@_fused.register_fake
def _(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    return student.new_empty((), dtype=torch.float32), _sums_of(student)


@_fused_backward.register_fake
def _(
    upstream: Tensor, student: Tensor, teacher: Tensor, sums: Tensor, of_student: bool, of_teacher: bool
) -> tuple[Tensor, Tensor]:
    return _gradient_of(student, of_student), _gradient_of(teacher, of_teacher)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _pull_back(ctx: Any, upstream: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if upstream is None:
        return None, None
    wanted = ctx.needs_input_grad
    gradients = _fused_backward(upstream, *ctx.saved_tensors, *wanted)
    return gradients[0] if wanted[0] else None, gradients[1] if wanted[1] else None


_fused.register_autograd(_pull_back, setup_context=_keep)
