"""Attention transfer for one pair of feature maps.

q = flatten(mean_c F^2) / max(|.|_2, 1e-12);   loss = mean (q_s - q_t)^2
d = q_s - q_t;   d/dF_ncp = a_np F_ncp,   a = 4 / (N P C) (d - q_s <q_s, d>) / |.|_2;   clamped: 4 / (N P C) d / 1e-12
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton, widened


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of normalised spatial energy maps; the teacher is a constant.

    Args:
        student: (N, C_s, h, w).
        teacher: (N, C_t, h', w'); channels may differ. The larger map is adaptive-average-pooled to the smaller size.

    Returns:
        0-d, float32 (float64 for float64 maps).

    Raises:
        ValueError: maps that are not 4-d with equal N.

    Source: Zagoruyko and Komodakis 2017, Eq. 2, as RepDistiller computes it.
    """
    if takes_triton(student, teacher):
        student, teacher = same_size(student, teacher.detach())
        # positions in one row: a view of channels_last and contiguous maps alike, a copy of crops and transposed maps
        return _fused(student.flatten(2), teacher.flatten(2))[0]
    return attention_loss_ref(student, teacher)


def attention_loss_ref(student: Tensor, teacher: Tensor) -> Tensor:
    """Definition of `attention_loss`."""
    student, teacher = same_size(student, teacher)
    return (energy(student) - energy(teacher.detach())).square().mean()


def energy(features: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h w): channel mean of squares, unit length."""
    return F.normalize(widened(features).square().mean(dim=1).flatten(1), eps=1e-12)


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller of the two sizes.

    Raises:
        ValueError: maps that are not 4-d with equal N; names both shapes.
    """
    if a.ndim != 4 or b.ndim != 4 or len(a) != len(b):
        raise ValueError(f"feature maps must be (N, C, h, w) with equal N, got {tuple(a.shape)} and {tuple(b.shape)}")
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    return pooled_to(a, size), pooled_to(b, size)


def pooled_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive average pooling, if the size differs."""
    return x if tuple(x.shape[2:]) == size else F.adaptive_avg_pool2d(widened(x), size)


# The Triton path. Maps, read as (N, C, P) with P = h w positions, become energies (N, P) in one pass each; one more
# kernel makes of these the unit lengths, the loss and the slopes a (N, P) of the formula above, which are kept. The
# backward pass is the slopes times the student's map. Maps of different sizes are pooled by torch first.


@jit
def _energy_kernel(
    features,  # *(N, C, P), any strides
    energies,  # *(N, P) float32, written
    image_stride,
    channel_stride,
    position_stride,
    C,
    P,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(P, POSITIONS)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    position = (tl.program_id(0) % blocks) * POSITIONS + tl.arange(0, POSITIONS)
    channel = tl.arange(0, CHANNELS)
    here = position < P
    places = position.to(tl.int64)[:, None] * position_stride + channel.to(tl.int64)[None, :] * channel_stride
    tile = features + n * image_stride + places  # (POSITIONS, CHANNELS)
    squares = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for start in range(0, C, CHANNELS):
        f = tl.load(tile, here[:, None] & (start + channel < C)[None, :], 0.0).to(tl.float32)
        squares += f * f
        tile += CHANNELS * channel_stride
    tl.store(energies + n * P + position, tl.sum(squares, axis=1) / C, here)


@jit
def _unit_kernel(
    student,  # *(N, P) float32, energies
    teacher,  # *(N, P) float32, energies
    losses,  # *(N,) float32, written
    slopes,  # *(N, P) float32, written
    scale,  # 4 / (N P C_s)
    P,
    BLOCK: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    square_s = tl.zeros((BLOCK,), tl.float32)
    square_t = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, P, BLOCK):
        s = tl.load(student + n * P + start + column, start + column < P, 0.0)
        t = tl.load(teacher + n * P + start + column, start + column < P, 0.0)
        square_s += s * s
        square_t += t * t
    norm, norm_t = tl.sqrt_rn(tl.sum(square_s, axis=0)), tl.sqrt_rn(tl.sum(square_t, axis=0))
    # not maximum(), which drops a NaN
    length, length_t = tl.where(norm < 1e-12, 1e-12, norm), tl.where(norm_t < 1e-12, 1e-12, norm_t)
    square = tl.zeros((BLOCK,), tl.float32)
    along = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, P, BLOCK):
        q_s = tl.div_rn(tl.load(student + n * P + start + column, start + column < P, 0.0), length)
        q_t = tl.div_rn(tl.load(teacher + n * P + start + column, start + column < P, 0.0), length_t)
        square += (q_s - q_t) * (q_s - q_t)
        along += q_s * (q_s - q_t)
    tl.store(losses + n, tl.sum(square, axis=0) / P)
    # a clamped length is a constant: nothing flows through it
    turn = tl.where(norm < 1e-12, 0.0, tl.sum(along, axis=0))
    for start in range(0, P, BLOCK):
        q_s = tl.div_rn(tl.load(student + n * P + start + column, start + column < P, 0.0), length)
        q_t = tl.div_rn(tl.load(teacher + n * P + start + column, start + column < P, 0.0), length_t)
        slope = scale * tl.div_rn(q_s - q_t - q_s * turn, length)
        tl.store(slopes + n * P + start + column, slope, start + column < P)


@jit
def _backward_kernel(
    upstream,  # *() float32
    features,  # *(N, C, P), any strides
    slopes,  # *(N, P) float32
    gradient,  # *(N, C, P), any strides, written
    image_stride,
    channel_stride,
    position_stride,
    gradient_image,
    gradient_channel,
    gradient_position,
    C,
    P,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(P, POSITIONS)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    position = ((tl.program_id(0) % blocks) * POSITIONS + tl.arange(0, POSITIONS)).to(tl.int64)
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)).to(tl.int64)
    here = position < P
    inside = here[:, None] & (channel < C)[None, :]
    places = position[:, None] * position_stride + channel[None, :] * channel_stride
    f = tl.load(features + n * image_stride + places, inside, 0.0).to(tl.float32)
    slope = tl.load(upstream) * tl.load(slopes + n * P + position, here, 0.0)
    places = position[:, None] * gradient_position + channel[None, :] * gradient_channel
    value = (slope[:, None] * f).to(gradient.dtype.element_ty)
    tl.store(gradient + n * gradient_image + places, value, inside)


@torch.library.custom_op("efflib::attention_loss", mutates_args=())
def _fused(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, slopes (N, P)) of maps (N, C, P) by the Triton kernels."""
    N, C, P = student.shape
    losses, slopes = student.new_empty(N, dtype=torch.float32), student.new_empty(N, P, dtype=torch.float32)
    block = min(power_of_two_above(P), 2048)
    scale = 4 / (N * P * C)
    _unit_kernel[(N,)](_energies(student), _energies(teacher), losses, slopes, scale, P, BLOCK=block)
    return losses.mean(), slopes


def _energies(features: Tensor) -> Tensor:
    """(N, C, P) -> (N, P): channel mean of squares."""
    N, C, P = features.shape
    energies = features.new_empty(N, P, dtype=torch.float32)
    positions, channels = _tile(features)
    _energy_kernel[(N * triton.cdiv(P, positions),)](
        features, energies, *features.stride(), C, P, POSITIONS=positions, CHANNELS=channels
    )
    return energies


@torch.library.custom_op("efflib::attention_loss_backward", mutates_args=())
def _fused_backward(upstream: Tensor, student: Tensor, slopes: Tensor) -> Tensor:
    """Gradient of the loss with respect to the student's map (N, C, P), in that map's layout."""
    N, C, P = student.shape
    gradient = torch.empty_like(student)
    strides = (*student.stride(), *gradient.stride())
    positions, channels = _tile(student)
    _backward_kernel[(N * triton.cdiv(P, positions), triton.cdiv(C, channels))](
        upstream, student, slopes, gradient, *strides, C, P, POSITIONS=positions, CHANNELS=channels
    )
    return gradient


def _tile(features: Tensor) -> tuple[int, int]:
    """(positions, channels) of a program's tile: at most 4,096 values, 32 for each thread of four warps.

    Longest along the channels, which lie side by side in channels_last maps; 64 positions where those do.
    """
    _, C, P = features.shape
    channels = min(power_of_two_above(C), 1024 if features.stride(1) <= features.stride(2) else 64)
    return min(power_of_two_above(P), 4096 // channels), channels


@_fused.register_fake
def _(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    N, _, P = student.shape
    return student.new_empty((), dtype=torch.float32), student.new_empty(N, P, dtype=torch.float32)


@_fused_backward.register_fake
def _(upstream: Tensor, student: Tensor, slopes: Tensor) -> Tensor:
    return torch.empty_like(student)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], output[1])


def _pull_back(ctx: Any, upstream: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None]:
    return (None if upstream is None else _fused_backward(upstream, *ctx.saved_tensors)), None


_fused.register_autograd(_pull_back, setup_context=_keep)
