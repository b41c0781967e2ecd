"""Quantise the weights of each output channel with that channel's own bit depth b and exponent e, both trainable.

    lo, hi = -2^(b-1), 2^(b-1) - 1   (both 0 if b <= 0)
    s = 2^-e w;   n = round_half_even(clip(s, lo, hi));   y = 2^e n

With the upstream gradient G, summed over the channel for b and e:

    lo <= s <= hi, b > 0:   dw = G,   db = 0,                        de = G ln2 (y - w)
    s > hi  (s < lo):       dw = 0,   db = +(-) G ln2 2^(e+b-1),     de = G ln2 y
    b <= 0:                 all 0
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton


class Quantised(NamedTuple):
    """Intermediate values of the definition, in the working precision.

    codes: n, shape of the weight, never -0. scaled: s, the same shape. low, high: lo and hi, one per channel.
    step: 2^e, one per channel.
    """

    codes: Tensor
    scaled: Tensor
    low: Tensor
    high: Tensor
    step: Tensor


def fake_quantize(weight: Tensor, bits: Tensor, exponent: Tensor) -> Tensor:
    """Quantised weights y, with the straight-through gradients above; on the bounds a weight counts as inside.

    Where plain autograd would share the gradient of an exact tie between the clip's two sides, here all of it goes to
    the weight: the weights of a loaded integer model sit on the bounds and must be able to train on.

    Args:
        weight: (O, ...), one channel per row.
        bits: (O, 1, ..., 1), b in bits, as many axes as weight; any real number.
        exponent: (O, 1, ..., 1), e; the step between neighbouring values is 2^e.

    Returns:
        Shape and dtype of weight; arithmetic in float32 (float64 if one of the three is float64).

    Raises:
        ValueError: bits or exponent that are not (O, 1, ..., 1).

    Source: Cséfalvay and Imber 2023, Eq. 1; sections 2.1 and 2.2 of the safety spec.
    """
    if takes_triton(weight, bits, exponent):
        _check(weight, bits, exponent)
        return _fused(weight if _in_rows(weight) else weight.contiguous(), bits, exponent)[0]
    return fake_quantize_ref(weight, bits, exponent)


def fake_quantize_ref(weight: Tensor, bits: Tensor, exponent: Tensor) -> Tensor:
    """Definition of `fake_quantize`."""
    _check(weight, bits, exponent)
    return _FakeQuantize.apply(weight, bits, exponent)


def quantised(weight: Tensor, bits: Tensor, exponent: Tensor) -> Quantised:
    """Codes and bounds of the definition, without gradients."""
    weight, bits, exponent = _widened(weight.detach(), bits.detach(), exponent.detach())
    half, alive = power_of_two(bits - 1), bits > 0
    low, high = torch.where(alive, -half, 0.0), torch.where(alive, half - 1, 0.0)
    scaled = weight * power_of_two(-exponent)
    codes = scaled.clamp(low, high).round_().add_(0.0)  # -0 + 0 is +0: an integer code has no sign of zero
    return Quantised(codes, scaled, low, high, power_of_two(exponent))


def power_of_two(x: Tensor) -> Tensor:
    """2^x, through float64.

    PyTorch's float32 exp2 gives another last bit to an element in a vector register than to the leftover elements of
    the same tensor. Removing a channel would shift its neighbours, and with them a step size, by one bit.
    """
    return torch.exp2(x.double()).to(x.dtype)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: Tensor, exponent: Tensor) -> Tensor:
        found = quantised(weight, bits, exponent)
        ctx.save_for_backward(weight, bits, exponent, *found)
        return (found.codes * found.step).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        weight, bits, exponent, codes, scaled, low, high, step = ctx.saved_tensors
        gradient, w, b, e = _widened(upstream, weight, bits, exponent)
        alive = b > 0
        above, below = (scaled > high) & alive, (scaled < low) & alive
        inside = ~(above | below) & alive
        dw = db = de = None
        if ctx.needs_input_grad[0]:
            dw = (gradient * inside).to(weight.dtype)
        if ctx.needs_input_grad[1]:
            clipped = _per_channel(gradient * above) - _per_channel(gradient * below)
            # `where`, not a product: far below 0 or above 128 bits the power is 0 or infinite.
            slope = torch.where(clipped != 0, math.log(2) * power_of_two(e + b - 1), 0.0)
            db = (slope * clipped).to(bits.dtype)
        if ctx.needs_input_grad[2]:
            error = codes * step - w * inside
            de = (_per_channel(gradient * error) * math.log(2)).to(exponent.dtype)
        return dw, db, de


def _per_channel(x: Tensor) -> Tensor:
    return x.sum(dim=tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else x


def _widened(*tensors: Tensor) -> list[Tensor]:
    work = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    return [tensor.to(work) for tensor in tensors]


def _check(weight: Tensor, bits: Tensor, exponent: Tensor) -> None:
    wanted = (weight.shape[0], *[1] * (weight.ndim - 1)) if weight.ndim else None
    if wanted is None or tuple(bits.shape) != wanted or tuple(exponent.shape) != wanted:
        raise ValueError(
            f"a weight (O, ...) needs bits and exponent of shape (O, 1, ..., 1), one of each per output channel: got "
            f"weight {tuple(weight.shape)}, bits {tuple(bits.shape)}, exponent {tuple(exponent.shape)}"
        )


# The Triton path. It sees the weight as the N rows of M that lie in memory, whatever the order of the axes within a
# row, which is the same for all tensors of the weight's shape; a weight in no such order (a slice, a transposed matrix)
# is copied first. A small kernel finds each channel's bounds and steps; the next ones stream. The backward pass finds
# the codes again from the weight and leaves two sums for each tile of a channel, which a last kernel adds in order.


@jit
def _power_of_two(x):
    """`power_of_two` of the definition: 2^x by way of float64, which hides in what way the last bit was found."""
    return tl.exp2(x.to(tl.float64)).to(tl.float32)


@jit
def _codes(scaled, low, high):
    """round_half_even(clip(s, lo, hi)), never -0; a NaN stays, as it does in the definition."""
    clipped = tl.clamp(scaled, low, high, propagate_nan=tl.PropagateNan.ALL)
    # from 2^23 on float32 has no fractions; below, adding it leaves none, and taking it away leaves +0, not -0
    whole = tl.where(clipped < 0.0, -8388608.0, 8388608.0)
    return tl.where(tl.abs(clipped) < 8388608.0, (clipped + whole) - whole, clipped)


@jit
def _channels_kernel(
    bits,  # *(N,), any stride
    exponent,  # *(N,), any stride
    channels,  # *(4, N) float32, written: lo, hi, 2^-e, 2^e
    bits_step,
    exponent_step,
    N,
    BLOCK: tl.constexpr,
):
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = channel < N
    b = tl.load(bits + channel.to(tl.int64) * bits_step, here, 0.0).to(tl.float32)
    e = tl.load(exponent + channel.to(tl.int64) * exponent_step, here, 0.0).to(tl.float32)
    half = _power_of_two(b - 1.0)
    tl.store(channels + channel, tl.where(b > 0.0, -half, 0.0), here)
    tl.store(channels + N + channel, tl.where(b > 0.0, half - 1.0, 0.0), here)
    tl.store(channels + 2 * N + channel, _power_of_two(-e), here)
    tl.store(channels + 3 * N + channel, _power_of_two(e), here)


@jit
def _forward_kernel(
    weight,  # *(N, M) contiguous
    channels,  # *(4, N) float32
    quantised,  # *(N, M) contiguous, written
    N,
    M,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tiles = tl.cdiv(M, BLOCK)
    row = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    here = row < N
    place = row.to(tl.int64)[:, None] * M + column[None, :]  # (ROWS, BLOCK)
    inside = here[:, None] & (column < M)[None, :]
    low, high = tl.load(channels + row, here, 0.0), tl.load(channels + N + row, here, 0.0)
    inverse, step = tl.load(channels + 2 * N + row, here, 1.0), tl.load(channels + 3 * N + row, here, 1.0)
    w = tl.load(weight + place, inside, 0.0).to(tl.float32)
    codes = _codes(w * inverse[:, None], low[:, None], high[:, None])
    tl.store(quantised + place, (codes * step[:, None]).to(quantised.dtype.element_ty), inside)


@jit
def _backward_kernel(
    upstream,  # *(N, M) contiguous
    weight,  # *(N, M) contiguous
    channels,  # *(4, N) float32
    gradient,  # *(N, M) contiguous, written: dw
    sums,  # *(2, tiles, N) float32, written: of G [s > hi] - G [s < lo], of G (y - w [inside])
    N,
    M,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tiles = tl.cdiv(M, BLOCK)
    tile = tl.program_id(0) % tiles
    row = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)
    column = tile * BLOCK + tl.arange(0, BLOCK)
    here = row < N
    place = row.to(tl.int64)[:, None] * M + column[None, :]  # (ROWS, BLOCK)
    inside_tile = here[:, None] & (column < M)[None, :]
    low, high = tl.load(channels + row, here, 0.0)[:, None], tl.load(channels + N + row, here, 0.0)[:, None]
    inverse = tl.load(channels + 2 * N + row, here, 1.0)[:, None]
    step = tl.load(channels + 3 * N + row, here, 1.0)[:, None]
    w = tl.load(weight + place, inside_tile, 0.0).to(tl.float32)
    g = tl.load(upstream + place, inside_tile, 0.0).to(tl.float32)
    scaled = w * inverse
    alive = low < 0.0  # b > 0
    above = tl.where((scaled > high) & alive, 1.0, 0.0)
    below = tl.where((scaled < low) & alive, 1.0, 0.0)
    inside = tl.where(alive, 1.0 - above - below, 0.0)
    tl.store(gradient + place, (g * inside).to(gradient.dtype.element_ty), inside_tile)
    error = _codes(scaled, low, high) * step - w * inside
    # lanes beyond the tensor: 0 times an infinite power would be NaN
    clipped = tl.sum(tl.where(inside_tile, g * (above - below), 0.0), axis=1)
    moved = tl.sum(tl.where(inside_tile, g * error, 0.0), axis=1)
    tl.store(sums + tile.to(tl.int64) * N + row, clipped, here)
    tl.store(sums + (tiles + tile).to(tl.int64) * N + row, moved, here)


@jit
def _channels_backward_kernel(
    sums,  # *(2, tiles, N) float32
    bits,  # *(N,), any stride
    exponent,  # *(N,), any stride
    bits_gradient,  # *(N,), written: db
    exponent_gradient,  # *(N,), written: de
    bits_step,
    exponent_step,
    tiles,
    N,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = channel < N
    clipped, moved = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, tiles, TILES):
        tile = start + tl.arange(0, TILES)
        place = tile.to(tl.int64)[:, None] * N + channel[None, :]  # (TILES, BLOCK)
        inside = (tile < tiles)[:, None] & here[None, :]
        clipped += tl.sum(tl.load(sums + place, inside, 0.0), axis=0)
        moved += tl.sum(
            tl.load(sums + (tiles + tile).to(tl.int64)[:, None] * N + channel[None, :], inside, 0.0), axis=0
        )
    b = tl.load(bits + channel.to(tl.int64) * bits_step, here, 0.0).to(tl.float32)
    e = tl.load(exponent + channel.to(tl.int64) * exponent_step, here, 0.0).to(tl.float32)
    # `where`, as in the definition: the power may be infinite where nothing is clipped
    slope = tl.where(clipped != 0.0, 0.6931471805599453 * _power_of_two(e + b - 1.0), 0.0)
    tl.store(bits_gradient + channel, (slope * clipped).to(bits_gradient.dtype.element_ty), here)
    tl.store(exponent_gradient + channel, (moved * 0.6931471805599453).to(exponent_gradient.dtype.element_ty), here)


@torch.library.custom_op("efflib::fake_quantize", mutates_args=())
def _fused(weight: Tensor, bits: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """(quantised weight, (4, N) lo, hi, 2^-e and 2^e of each channel) by the Triton kernels."""
    N, M = len(weight), weight[0].numel()
    y, channels = torch.empty_like(weight), weight.new_empty(4, N, dtype=torch.float32)
    rows, block = _tile(M)
    _channels_kernel[(triton.cdiv(N, 128),)](bits, exponent, channels, bits.stride(0), exponent.stride(0), N, BLOCK=128)
    grid = (triton.cdiv(N, rows) * triton.cdiv(M, block),)
    _forward_kernel[grid](weight, channels, y, N, M, ROWS=rows, BLOCK=block)
    return y, channels


@torch.library.custom_op("efflib::fake_quantize_backward", mutates_args=())
def _fused_backward(
    upstream: Tensor, weight: Tensor, bits: Tensor, exponent: Tensor, channels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight, bits and exponent; all three in any case, as the two sums cost no memory traffic."""
    N, M = len(weight), weight[0].numel()
    upstream = upstream if _order(upstream) == _order(weight) else torch.empty_like(weight).copy_(upstream)
    dw, db, de = torch.empty_like(weight), _of_channels(bits), _of_channels(exponent)
    rows, block = _tile(M)
    tiles = triton.cdiv(M, block)
    sums = weight.new_empty(2, tiles, N, dtype=torch.float32)
    _backward_kernel[(triton.cdiv(N, rows) * tiles,)](
        upstream, weight, channels, dw, sums, N, M, ROWS=rows, BLOCK=block
    )
    steps = (bits.stride(0), exponent.stride(0))
    _channels_backward_kernel[(triton.cdiv(N, 32),)](sums, bits, exponent, db, de, *steps, tiles, N, TILES=32, BLOCK=32)
    return dw, db, de


def _tile(length: int) -> tuple[int, int]:
    """(rows, columns) of a tile: 2,048 weights, in rows that leave at most a ninth of the lanes idle or have 32."""
    block = min(power_of_two_above(length), 1024)
    while block > 32 and 8 * block * triton.cdiv(length, block) > 9 * length:
        block //= 2
    return 2048 // block, block


def _order(x: Tensor) -> list[int]:
    """What tells one memory layout from another: strides, but for axes of length 1, whose stride means nothing."""
    return [step for size, step in zip(x.shape, x.stride()) if size > 1]


def _in_rows(weight: Tensor) -> bool:
    """Whether the weight's channels lie one after the other in memory, without gaps."""
    dense = _order(torch.empty_like(weight)) == _order(weight)
    return dense and (len(weight) == 1 or weight.stride(0) == weight[0].numel())


def _of_channels(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_fused.register_fake
def _(weight: Tensor, bits: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(weight), weight.new_empty(4, len(weight), dtype=torch.float32)


@_fused_backward.register_fake
def _(
    upstream: Tensor, weight: Tensor, bits: Tensor, exponent: Tensor, channels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(weight), _of_channels(bits), _of_channels(exponent)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _pull_back(ctx: Any, upstream: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None
    gradients = _fused_backward(upstream, *ctx.saved_tensors)
    return tuple(gradient if wanted else None for gradient, wanted in zip(gradients, ctx.needs_input_grad))


_fused.register_autograd(_pull_back, setup_context=_keep)
