"""How sure a classifier is of each image: entropy, margin, confidence and prediction of softmax(z), from the logits.

With i = argmax z (the lowest index of equals), d_c = z_i - z_c and S = sum_{c != i} e^{-d_c}:
entropy = log1p(S) + sum_{c != i} d_c e^{-d_c} / (1 + S), confidence = 1 / (1 + S), margin = (1 - e^{-min d}) / (1 + S).

With E = sum_{c != i} d_c e^{-d_c}, P = 1 / (1 + S), the k classes next to i, all at the gap g = min d, and the
upstreams G_e, G_m and G_c of the three, for every c != i

    dL/dd_c = e^{-d_c} P [G_e (E P - d_c) + G_c P + G_m (1 - e^{-g}) P] + [d_c = g] G_m e^{-g} P / k
    dL/dz_c = -dL/dd_c,   dL/dz_i = sum_{c != i} dL/dd_c = P^2 [(G_c + G_m (1 - e^{-g})) S - G_e E] + G_m e^{-g} P

The kernels count from the next highest logit, h_c = d_c - g, so that no exponent needs care but the row's own g:
with R = sum e^{-h_c} and W = sum h_c e^{-h_c}, S = e^{-g} R and E = e^{-g} (g R + W).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
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


class SoftmaxStats(NamedTuple):
    """Statistics of softmax(logits), one entry per row.

    entropy: (N,) in nats. margin: (N,) largest probability less the second largest. confidence: (N,) largest
    probability. prediction: (N,) int64, its class.
    """

    entropy: Tensor
    margin: Tensor
    confidence: Tensor
    prediction: Tensor


def softmax_stats(logits: Tensor) -> SoftmaxStats:
    """Entropy, margin, confidence and prediction of each row, exact also where one class has nearly all of it.

    Neither probabilities near 1 nor differences of them are formed: at a gap of 30 between the logits the entropy
    -sum p ln p of a float32 softmax is off by several percent, and NaN at a gap of 120.

    Args:
        logits: (N, C), finite.

    Returns:
        SoftmaxStats, float32 (float64 for float64 logits); differentiable but for the prediction.

    Raises:
        ValueError: logits that are not (N, C) with at least one class.

    Source: Shannon's entropy with the natural logarithm, as EncodeNet (section 3.2) ranks images.
    """
    if takes_triton(logits):
        _check(logits)
        return SoftmaxStats(*_fused(logits))
    return softmax_stats_ref(logits)


def softmax_stats_ref(logits: Tensor) -> SoftmaxStats:
    """Definition of `softmax_stats`."""
    _check(logits)
    z = widened(logits)
    # torch.argmax may return any of several equals; cumsum marks the first of them.
    highest = z == z.amax(dim=1, keepdim=True)
    prediction = (highest & (highest.cumsum(dim=1) == 1)).int().argmax(dim=1, keepdim=True)
    others = torch.ones_like(z, dtype=torch.bool).scatter(1, prediction, False)
    gaps = (z.gather(1, prediction) - z)[others].reshape(len(z), z.shape[1] - 1)  # (N, C - 1), all >= 0
    odds = torch.exp(-gaps)
    rest = odds.sum(dim=1)
    entropy = torch.log1p(rest) + (gaps * odds).sum(dim=1) / (1 + rest)
    nearest = odds.amax(dim=1) if gaps.shape[1] else torch.zeros_like(rest)
    return SoftmaxStats(entropy, (1 - nearest) / (1 + rest), 1 / (1 + rest), prediction[:, 0])


def _check(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"logits must be (N, C) with C >= 1, got {tuple(logits.shape)}")


# The Triton path. A program takes ROWS rows as a tile (PARTS, ROWS, LANES): the columns are PARTS stretches of LANES.
# Triton deals threads out from the last axis to the first, so that few threads share a row, each with many of its
# logits: a sum over a row of 100 costs 3 shuffles for 4 rows. With 32 threads to such a row the shuffles would cost
# more time than the memory. Rows of more than a tile are read tile by tile, the results merged as they come.
# Nothing is kept for the backward pass: it finds the sums again while it has the logits, which costs no memory traffic
# unless a row is longer than a tile (then it is read twice, the second time from cache). Logits that are not contiguous
# along the columns are taken as they are, one by one: that layout does not occur where time matters.
# From 104 on e^-gap is 0 in float32. Gaps are cut off at 200, so that 0 times a gap is 0.
# Lanes beyond the row hold -inf.


@jit
def _exp_minus(gap):
    """e^-gap of a row, right to its last places at large gaps too, where gap log2(e), rounded, is off by some 20."""
    power = gap * -1.4426950408889634
    deep = power < -100.0  # the hardware's 2^x makes 0 of numbers below 2^-126
    odds = tl.exp2(tl.where(deep, power + 64.0, power)) * tl.where(deep, 5.421010862427522e-20, 1.0)
    lost = tl.fma(power, -0.693147182464599609375, -gap)  # -gap less power ln2, whose float32 comes first,
    lost = tl.fma(power, 1.904654299957967e-09, lost)  # then what that float32 has too much
    return tl.fma(odds, lost, odds)


@jit
def _one_minus_exp(gap, nearest):
    """1 - e^-gap from nearest = e^-gap; below 1/2, where that cancels, from the series g (1 - g/2 + g^2/6 - ...)."""
    series = 0.001388888888888889 - gap * (0.0001984126984126984 - gap * 2.48015873015873e-05)
    series = 0.16666666666666666 - gap * (0.041666666666666664 - gap * (0.008333333333333333 - gap * series))
    return tl.where(gap < 0.5, gap * (1.0 - gap * (0.5 - gap * series)), 1.0 - nearest)


@jit
def _inverse(u):
    """1 / u, u >= 1, rounded well: a step of Newton on the hardware's quotient."""
    p = 1.0 / u
    return tl.fma(p, tl.fma(-u, p, 1.0), p)


@jit
def _log1p(x, p):
    """ln(1 + x), x >= 0, p = 1 / (1 + x): what 1 + x lost of x counts through the slope of the logarithm."""
    u = 1.0 + x
    return tl.log(u) + (x - (u - 1.0)) * p


@jit
def _others(z, column, index):
    """z with -inf for the largest logit."""
    return tl.where(column == index[None, :, None], -float("inf"), z)


@jit
def _heights(others, second):
    """h = second - others; where there is no second class, both are -inf, and h is cut off too."""
    return tl.minimum(tl.maximum(second, -3.0e38)[None, :, None] - others, 200.0)


@jit
def _odds(height):
    """e^-h, where h = 0 is among the terms: that the hardware's 2^x makes 0 of numbers below 2^-126 does not matter."""
    return tl.exp2(height * -1.4426950408889634)


@jit
def _tile_stats(z, column):
    """z_i, i, the next highest logit, how many have it, R and W, each (ROWS,), of z (PARTS, ROWS, LANES)."""
    top = row_max(z)
    at_top = tl.where(z == top[None, :, None], column, 2147483647)
    index = tl.min(tl.min(at_top, axis=0), axis=1)  # the lowest of equals
    others = _others(z, column, index)
    second = row_max(others)
    ties = row_sum(tl.where(others == second[None, :, None], 1.0, 0.0))
    height = _heights(others, second)
    odds = _odds(height)
    return top, index, second, ties, row_sum(odds), row_sum(height * odds)


@jit
def _merged(top_a, index_a, second_a, ties_a, sum_a, weighted_a, top_b, index_b, second_b, ties_b, sum_b, weighted_b):
    """The same six of two parts of a row, a the one of the lower columns."""
    top, lower = tl.maximum(top_a, top_b), tl.minimum(top_a, top_b)
    index = tl.where(top_a >= top_b, index_a, index_b)
    second = tl.maximum(lower, tl.maximum(second_a, second_b))
    ties = tl.where(second_a == second, ties_a, 0.0) + tl.where(second_b == second, ties_b, 0.0)
    ties += tl.where(lower == second, 1.0, 0.0)
    # all heights grow by what the second rose, and the lower of the two tops is a class among the others now
    rise_a, rise_b = tl.minimum(second - second_a, 200.0), tl.minimum(second - second_b, 200.0)
    height = tl.minimum(second - lower, 200.0)
    by_a, by_b, odds = _odds(rise_a), _odds(rise_b), _odds(height)
    total = by_a * sum_a + by_b * sum_b + odds
    weighted = by_a * (weighted_a + rise_a * sum_a) + by_b * (weighted_b + rise_b * sum_b) + height * odds
    return top, index, second, ties, total, weighted


@jit
def _row_stats(z, logits, column, column_step, C, TILE: tl.constexpr, WHOLE: tl.constexpr):
    """The six of whole rows, whose first tile z is read already."""
    top, index, second, ties, total, weighted = _tile_stats(z, column)
    if not WHOLE:
        for start in range(TILE, C, TILE):
            part = start + column
            z = tl.load(logits + part.to(tl.int64) * column_step, part < C, -float("inf")).to(tl.float32)
            top_b, index_b, second_b, ties_b, sum_b, weighted_b = _tile_stats(z, part)
            top, index, second, ties, total, weighted = _merged(
                top, index, second, ties, total, weighted, top_b, index_b, second_b, ties_b, sum_b, weighted_b
            )
    return top, index, second, ties, total, weighted


@jit
def _forward_kernel(
    logits,  # *(N, C), any strides
    entropy,  # *(N,) float32, written
    margin,  # *(N,) float32, written
    confidence,  # *(N,) float32, written
    prediction,  # *(N,) int64, written
    row_step,  # stride of the rows / UNIT
    column_step,
    N,
    columns,  # C / UNIT
    UNIT: tl.constexpr,  # the compiler sees that rows start at multiples of it: what it needs to load so many at once
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    WHOLE: tl.constexpr,  # a row fits into a tile
):
    C = columns * UNIT
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.arange(0, PARTS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]  # (PARTS, 1, LANES)
    # rows beyond N repeat the last one: no lane has to be told apart but those beyond C
    logits += tl.minimum(row, N - 1)[None, :, None] * row_step * UNIT
    z = tl.load(logits + column.to(tl.int64) * column_step, column < C, -float("inf")).to(tl.float32)
    top, index, second, _, total, weighted = _row_stats(z, logits, column, column_step, C, PARTS * LANES, WHOLE)
    gap = tl.minimum(top - second, 200.0)  # one class: second is -inf
    nearest = _exp_minus(gap)
    rest = nearest * total
    p = _inverse(1.0 + rest)
    here = row < N
    tl.store(entropy + row, _log1p(rest, p) + nearest * (gap * total + weighted) * p, here)
    tl.store(margin + row, _one_minus_exp(gap, nearest) * p, here)
    tl.store(confidence + row, p, here)
    tl.store(prediction + row, index.to(tl.int64), here)


@jit
def _slope(z, column, index, second, to_top, level, tilt, to_second):
    """Gradient of the logits z: dL/dd_c = e^-h (level - tilt h) [+ to_second]; to_top is the largest logit's own."""
    others = _others(z, column, index)
    height = _heights(others, second)
    pull = _odds(height) * (level[None, :, None] - tilt[None, :, None] * height)
    # the same logit, not the same odds: odds of different gaps may round to the same number
    pull += tl.where(others == second[None, :, None], to_second[None, :, None], 0.0)
    return tl.where(column == index[None, :, None], to_top[None, :, None], -pull)


@jit
def _backward_kernel(
    upstream_entropy,  # *(N,) float32, any stride, as the next two
    upstream_margin,  # *(N,)
    upstream_confidence,  # *(N,)
    logits,  # *(N, C), any strides
    gradient,  # *(N, C), any strides, written
    entropy_step,
    margin_step,
    confidence_step,
    row_step,  # stride of the rows / UNIT
    column_step,
    gradient_row_step,  # stride of the rows / UNIT
    gradient_column_step,
    N,
    columns,  # C / UNIT
    UNIT: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    WHOLE: tl.constexpr,  # a row fits into a tile
):
    C = columns * UNIT
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.arange(0, PARTS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]  # (PARTS, 1, LANES)
    kept = tl.minimum(row, N - 1)
    logits += kept[None, :, None] * row_step * UNIT
    gradient += row[None, :, None] * gradient_row_step * UNIT
    here = (row < N)[None, :, None]
    g_e = tl.load(upstream_entropy + kept * entropy_step)
    g_m = tl.load(upstream_margin + kept * margin_step)
    g_c = tl.load(upstream_confidence + kept * confidence_step)
    z = tl.load(logits + column.to(tl.int64) * column_step, column < C, -float("inf")).to(tl.float32)
    top, index, second, ties, total, weighted = _row_stats(z, logits, column, column_step, C, PARTS * LANES, WHOLE)
    gap = tl.minimum(top - second, 200.0)
    nearest = _exp_minus(gap)
    rest, mean_gap = nearest * total, nearest * (gap * total + weighted)
    p = _inverse(1.0 + rest)
    mean_gap *= p  # E P
    sure = (g_c + g_m * _one_minus_exp(gap, nearest)) * p
    swap = g_m * nearest * p
    tilt = g_e * nearest * p
    level = nearest * p * (g_e * (mean_gap - gap) + sure)
    to_second = swap / ties
    to_top = p * (sure * rest - g_e * mean_gap) + swap
    if WHOLE:
        slope = _slope(z, column, index, second, to_top, level, tilt, to_second)
        places = gradient + column.to(tl.int64) * gradient_column_step
        tl.store(places, slope.to(gradient.dtype.element_ty), here & (column < C))
    else:
        for start in range(0, C, PARTS * LANES):
            part = start + column
            z = tl.load(logits + part.to(tl.int64) * column_step, part < C, -float("inf")).to(tl.float32)
            slope = _slope(z, part, index, second, to_top, level, tilt, to_second)
            places = gradient + part.to(tl.int64) * gradient_column_step
            tl.store(places, slope.to(gradient.dtype.element_ty), here & (part < C))


@torch.library.custom_op("efflib::softmax_stats", mutates_args=())
def _fused(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(entropy, margin, confidence, prediction) by the Triton kernel."""
    N, C = logits.shape
    entropy, margin, confidence = (logits.new_empty(N, dtype=torch.float32) for _ in range(3))
    prediction = logits.new_empty(N, dtype=torch.int64)
    tile = _tile(logits)
    unit, (row_step, column_step) = tile["UNIT"], logits.stride()
    _forward_kernel[(triton.cdiv(N, tile["ROWS"]),)](
        logits, entropy, margin, confidence, prediction, row_step // unit, column_step, N, C // unit, **tile
    )
    return entropy, margin, confidence, prediction


@torch.library.custom_op("efflib::softmax_stats_backward", mutates_args=())
def _fused_backward(entropy: Tensor, margin: Tensor, confidence: Tensor, logits: Tensor) -> Tensor:
    """Gradient of the logits (N, C) for the upstreams (N,) of the three statistics."""
    N, C = logits.shape
    gradient = torch.empty_like(logits)
    tile = _tile(logits, gradient)
    unit = tile["UNIT"]
    steps = [step for x in (logits, gradient) for step in (x.stride(0) // unit, x.stride(1))]
    upstream_steps = [x.stride(0) for x in (entropy, margin, confidence)]
    _backward_kernel[(triton.cdiv(N, tile["ROWS"]),)](
        entropy, margin, confidence, logits, gradient, *upstream_steps, *steps, N, C // unit, **tile
    )
    return gradient


def _tile(*tensors: Tensor) -> dict[str, int]:
    """A program's tile: 16 logits for each thread of four warps, 32 of rows of which a warp then holds one whole."""
    covering, unit = power_of_two_above(tensors[0].shape[1]), neighbours_per_load(*tensors)
    threads = max(min(covering // 8, 8), min(covering // 16, 32), 1)  # of a row
    lanes, span = min(unit * threads, covering), min(covering, 4096)
    rows = min((2048 if covering <= 512 else 4096) // span, 256)
    return {"UNIT": unit, "PARTS": span // lanes, "ROWS": rows, "LANES": lanes, "WHOLE": covering == span}


@_fused.register_fake
def _(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    entropy, margin, confidence = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(3))
    return entropy, margin, confidence, logits.new_empty(len(logits), dtype=torch.int64)


@_fused_backward.register_fake
def _(entropy: Tensor, margin: Tensor, confidence: Tensor, logits: Tensor) -> Tensor:
    return torch.empty_like(logits)


def _keep(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _pull_back(ctx: Any, *upstreams: Tensor | None) -> Tensor | None:
    if all(upstream is None for upstream in upstreams[:3]):
        return None
    (logits,) = ctx.saved_tensors
    nothing = logits.new_zeros((), dtype=torch.float32).expand(len(logits))
    return _fused_backward(*(nothing if upstream is None else upstream for upstream in upstreams[:3]), logits)


_fused.register_autograd(_pull_back, setup_context=_keep)
