"""PKGD's two attention maps between a teacher's and a student's tokens, applied to the student (its Eqs. 8-11).

Map_c = softmax(s_c Q K^T)   (d x d),   Map_s = softmax(s_s Q^T K)   (L x L),   both over the last axis
out   = Map_c V + V Map_s    (V Map_s^T if transposed),   Q = teacher, K = student, V = value or student

With upstream G, dMap_c = G V^T and dMap_s = V^T G (G^T V if transposed), each map gives its scores the gradient
D = s Map * (dMap - rowsum(Map * dMap)); then dQ = D_c K + K D_s^T, dK = D_c^T Q + Q D_s,
dV = Map_c^T G + G Map_s^T (G Map_s if transposed) and, for a scale t, dt = sum(D_c * Q K^T + D_s * Q^T K) / t.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton, widened, without_autocast

SCORES = ("sqrt", "none", "l2")
LARGEST = (512, 128 * 128)  # longest side, and d L, of what the Triton path takes


def guided_attention(
    teacher: Tensor,
    student: Tensor,
    score: str = "sqrt",
    spatial_transpose: bool = False,
    value: Tensor | None = None,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """Channel and spatial cross-attention, summed.

    Args:
        teacher: (B, d, L) queries: d channels at L positions.
        student: (B, d, L) keys.
        score: "sqrt" divides by sqrt(L) and sqrt(d); "none" is the paper's literal form; "l2" normalises queries and
            keys along the positions (the published code).
        spatial_transpose: contract the student's positions with the axis along which the softmax sums to 1.
        value: (B, d, L), the student itself when None.
        scale: multiplies both score matrices; a learnable scalar in the published code.

    Returns:
        (B, d, L), dtype of student; arithmetic in float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes that differ, or an unknown score.

    Source: PKGD, Eqs. 8-11; the options are discussed in section 2.5 of its spec.
    """
    given = [x for x in (teacher, student, value, scale) if isinstance(x, Tensor)]
    if takes_triton(*given):
        _check(teacher, student, student if value is None else value, score)
        if _fits(teacher, scale):
            return _by_kernel(teacher, student, score, spatial_transpose, value, scale)
    return guided_attention_ref(teacher, student, score, spatial_transpose, value, scale)


@without_autocast
def guided_attention_ref(
    teacher: Tensor,
    student: Tensor,
    score: str = "sqrt",
    spatial_transpose: bool = False,
    value: Tensor | None = None,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """Definition of `guided_attention`."""
    value = student if value is None else value
    _check(teacher, student, value, score)
    channel, spatial = attention_maps(teacher, student, score, scale)
    mixed = widened(value)
    guided = channel @ mixed + mixed @ (spatial.transpose(1, 2) if spatial_transpose else spatial)
    return guided.to(student.dtype)


@without_autocast
def attention_maps(
    teacher: Tensor, student: Tensor, score: str = "sqrt", scale: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """Map_c (B, d, d) and Map_s (B, L, L) of queries and keys (B, d, L); arguments as `guided_attention`."""
    _check_score(score)
    query, key = widened(teacher), widened(student)
    if score == "l2":
        query, key = _unit(query), _unit(key)
    by_channel, by_position = _factors(teacher, score)
    channel = (query @ key.transpose(1, 2) * (by_channel * scale)).softmax(dim=-1)
    spatial = (query.transpose(1, 2) @ key * (by_position * scale)).softmax(dim=-1)
    return channel, spatial


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=2, eps=1e-12)


def _factors(teacher: Tensor, score: str) -> tuple[float, float]:
    """s_c and s_s without the scale."""
    _, d, L = teacher.shape
    return (L**-0.5, d**-0.5) if score == "sqrt" else (1.0, 1.0)


def _check(teacher: Tensor, student: Tensor, value: Tensor, score: str) -> None:
    if teacher.ndim != 3 or not teacher.shape == student.shape == value.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (teacher, student, value))
        raise ValueError(f"teacher, student and value must be (B, d, L) alike, got {shapes}")
    _check_score(score)


def _check_score(score: str) -> None:
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}")


# The Triton path. Forward, two kernels, and no map in memory: the first leaves the highest score and the sum of
# exponentials of each row of both maps; in the second a program owns a tile of the output, computes those tiles of the
# maps that its products need, and multiplies. Scores are computed twice, and again in each further tile of the
# output along their side: little while one side is short, as PKGD's are (16 x 256 to 512 x 4); where both are long,
# cuBLAS on whole maps wins and the definition is taken (LARGEST). Products are float32 without tensor cores: TF32
# would cost digits that the definition has.
# Backward, ten batched products of matrices held once: these are cuBLAS's work, on maps that live only as long as
# the operator runs; one kernel per map does everything between its products in place.


@jit
def _scores(x, y, i, j, X, J, Z, x_i, x_z, y_j, y_z, DEPTH: tl.constexpr):  # sum_z x[i, z] y[j, z], i < X, j < J
    total = tl.zeros((i.shape[0], j.shape[0]), tl.float32)
    for first in range(0, Z, DEPTH):
        z = first + tl.arange(0, DEPTH)
        a = tl.load(x + i[:, None] * x_i + z[None, :] * x_z, (i < X)[:, None] & (z < Z)[None, :], 0.0)
        b = tl.load(y + z[:, None] * y_z + j[None, :] * y_j, (z < Z)[:, None] & (j < J)[None, :], 0.0)
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    return total


@jit
def _row_sums(x, y, sums, block, J, Z, x_i, x_z, y_j, y_z, factor, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    # of softmax_j(factor sum_z x[i, z] y[j, z]), i, j < J: highest score and sum of exponentials of BLOCK rows i
    i = block * BLOCK + tl.arange(0, BLOCK)
    top = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, J, BLOCK):
        j = first + tl.arange(0, BLOCK)
        scores = factor * _scores(x, y, i, j, J, J, Z, x_i, x_z, y_j, y_z, DEPTH)
        scores = tl.where((j < J)[None, :], scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(scores - higher[:, None]), axis=1)
        top = higher
    tl.store(sums + 2 * i, top, i < J)
    tl.store(sums + 2 * i + 1, total, i < J)


@jit
def _sums_kernel(
    query,  # *(B, d, L), any strides
    key,  # *(B, d, L), any strides
    scale,  # *() or None
    sums,  # *(B, d + L, 2) float32, written: of Map_c's rows, then Map_s's
    query_b,
    query_d,
    query_l,
    key_b,
    key_d,
    key_l,
    d,
    L,
    s_c,
    s_s,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    query, key, sums = query + b * query_b, key + b * key_b, sums + 2 * b * (d + L)
    t = 1.0 if scale is None else tl.load(scale).to(tl.float32)
    block, blocks_c = tl.program_id(1), tl.cdiv(d, BLOCK)
    if block < blocks_c:
        _row_sums(query, key, sums, block, d, L, query_d, query_l, key_d, key_l, s_c * t, BLOCK, DEPTH)
    else:
        sums, block = sums + 2 * d, block - blocks_c
        _row_sums(query, key, sums, block, L, d, query_l, query_d, key_l, key_d, s_s * t, BLOCK, DEPTH)


@jit
def _guide_kernel(
    query,  # *(B, d, L), any strides
    key,  # *(B, d, L), any strides
    value,  # *(B, d, L), any strides
    scale,  # *() or None
    sums,  # *(B, d + L, 2) float32
    out,  # *(B, d, L), any strides, written
    query_b,
    query_d,
    query_l,
    key_b,
    key_d,
    key_l,
    value_b,
    value_d,
    value_l,
    out_b,
    out_d,
    out_l,
    d,
    L,
    s_c,
    s_s,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    query, key, value, out = query + b * query_b, key + b * key_b, value + b * value_b, out + b * out_b
    sums_c, sums_s = sums + 2 * b * (d + L), sums + 2 * b * (d + L) + 2 * d
    t = 1.0 if scale is None else tl.load(scale).to(tl.float32)
    c = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    m = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    guided = tl.zeros((ROWS, COLUMNS), tl.float32)

    top_c, total_c = tl.load(sums_c + 2 * c, c < d, 0.0), tl.load(sums_c + 2 * c + 1, c < d, 1.0)
    for first in range(0, d, DEPTH):  # Map_c[c, e] V[e, m]
        e = first + tl.arange(0, DEPTH)
        scores = s_c * t * _scores(query, key, c, e, d, d, L, query_d, query_l, key_d, key_l, DEPTH)
        both = (c < d)[:, None] & (e < d)[None, :]
        weights = tl.exp(tl.where(both, scores - top_c[:, None], 0.0)) / total_c[:, None]
        inside = (e < d)[:, None] & (m < L)[None, :]
        v = tl.load(value + e[:, None] * value_d + m[None, :] * value_l, inside, 0.0).to(tl.float32)
        guided = tl.dot(tl.where(both, weights, 0.0), v, guided, input_precision="ieee")

    for first in range(0, L, DEPTH):  # V[c, e] Map_s[e, m], or V[c, e] Map_s[m, e]
        e = first + tl.arange(0, DEPTH)
        both = (e < L)[:, None] & (m < L)[None, :]
        if TRANSPOSED:
            scores = s_s * t * _scores(key, query, e, m, L, L, d, key_l, key_d, query_l, query_d, DEPTH)
            top_s = tl.load(sums_s + 2 * m, m < L, 0.0)[None, :]
            total_s = tl.load(sums_s + 2 * m + 1, m < L, 1.0)[None, :]
        else:
            scores = s_s * t * _scores(query, key, e, m, L, L, d, query_l, query_d, key_l, key_d, DEPTH)
            top_s = tl.load(sums_s + 2 * e, e < L, 0.0)[:, None]
            total_s = tl.load(sums_s + 2 * e + 1, e < L, 1.0)[:, None]
        weights = tl.where(both, tl.exp(tl.where(both, scores - top_s, 0.0)) / total_s, 0.0)
        inside = (c < d)[:, None] & (e < L)[None, :]
        v = tl.load(value + c[:, None] * value_d + e[None, :] * value_l, inside, 0.0).to(tl.float32)
        guided = tl.dot(v, weights, guided, input_precision="ieee")

    here = (c < d)[:, None] & (m < L)[None, :]
    tl.store(out + c[:, None] * out_d + m[None, :] * out_l, guided.to(out.dtype.element_ty), here)


@jit
def _map_backward_kernel(
    scores,  # *(R, Y) float32, contiguous; becomes the map, softmax(s t scores)
    slopes,  # *(R, Y) float32, contiguous, gradient of the map; becomes that of the scores
    scale,  # *() or None
    parts,  # *(R,) float32, written: each row's part of the gradient of the scale
    R,
    Y,
    s,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,  # >= Y
):
    t = 1.0 if scale is None else tl.load(scale).to(tl.float32)
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    y = tl.arange(0, BLOCK)
    place = r[:, None] * Y + y[None, :]
    inside = (r < R)[:, None] & (y < Y)[None, :]
    score = tl.load(scores + place, inside, 0.0)
    slope = tl.load(slopes + place, inside, 0.0)
    logits = s * t * score
    top = tl.max(tl.where((y < Y)[None, :], logits, -float("inf")), axis=1)
    weight = tl.where(inside, tl.exp(tl.where(inside, logits - top[:, None], 0.0)), 0.0)
    total = tl.where(r < R, tl.sum(weight, axis=1), 1.0)
    weight = weight / total[:, None]
    slope = weight * (slope - tl.sum(weight * slope, axis=1)[:, None])
    tl.store(scores + place, weight, inside)
    tl.store(slopes + place, s * t * slope, inside)
    # the slopes of a row sum to 0: about its mean score no digits are lost to large scores
    centred = score - tl.sum(weight * score, axis=1)[:, None]
    tl.store(parts + r, s * tl.sum(slope * centred, axis=1), r < R)


def _fits(teacher: Tensor, scale: float | Tensor) -> bool:
    _, d, L = teacher.shape
    longest, area = LARGEST
    single = not isinstance(scale, Tensor) or scale.numel() == 1
    return single and max(d, L) <= longest and d * L <= area


def _by_kernel(
    teacher: Tensor, student: Tensor, score: str, transposed: bool, value: Tensor | None, scale: float | Tensor
) -> Tensor:
    value = student if value is None else value
    query, key = teacher, student
    if score == "l2":  # row norms first: a small pass beside the products, and autograd knows its gradient
        query, key = _unit(teacher.float()), _unit(student.float())
    s_c, s_s = _factors(teacher, score)
    if isinstance(scale, Tensor):
        return _fused(query, key, value, scale.reshape(()), s_c, s_s, transposed).to(student.dtype)
    return _fused(query, key, value, None, s_c * scale, s_s * scale, transposed).to(student.dtype)


@torch.library.custom_op("efflib::guided_attention", mutates_args=())
def _fused(
    query: Tensor, key: Tensor, value: Tensor, scale: Tensor | None, s_c: float, s_s: float, transposed: bool
) -> Tensor:
    """(B, d, L), dtype and strides of the key, by the Triton kernels; s_c and s_s are multiplied by the scale."""
    B, d, L = query.shape
    out, sums = torch.empty_like(key), query.new_empty(B, d + L, 2, dtype=torch.float32)
    strides = (*query.stride(), *key.stride())
    rows, columns = _side(d), _side(L)
    block, depth = 32, min(rows, columns, 32)
    _sums_kernel[(B, triton.cdiv(d, block) + triton.cdiv(L, block))](
        query, key, scale, sums, *strides, d, L, s_c, s_s, BLOCK=block, DEPTH=depth
    )
    _guide_kernel[(B, triton.cdiv(d, rows), triton.cdiv(L, columns))](
        query, key, value, scale, sums, out, *strides, *value.stride(), *out.stride(), d, L, s_c, s_s,
        TRANSPOSED=transposed, ROWS=rows, COLUMNS=columns, DEPTH=depth,
    )  # fmt: skip
    return out


def _side(length: int) -> int:
    """Side of a program's output tile."""
    return min(max(power_of_two_above(length), 16), 64)


@torch.library.custom_op("efflib::guided_attention_backward", mutates_args=())
def _fused_backward(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor | None,
    s_c: float,
    s_s: float,
    transposed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, in their dtypes and strides, and of the scale (0 without one)."""
    with torch.autocast(query.device.type, enabled=False):
        q, k, v, g = (x.float() for x in (query, key, value, upstream))
        channel, slopes, part_c = _map_backward(q @ k.mT, g @ v.mT, scale, s_c)
        dq, dk, dv = slopes @ k, slopes.mT @ q, channel.mT @ g
        spatial, slopes, part_s = _map_backward(q.mT @ k, g.mT @ v if transposed else v.mT @ g, scale, s_s)
        dq.baddbmm_(k, slopes.mT), dk.baddbmm_(q, slopes), dv.baddbmm_(g, spatial if transposed else spatial.mT)
    gradients = [_laid_out(x, like) for x, like in ((dq, query), (dk, key), (dv, value))]
    return gradients[0], gradients[1], gradients[2], part_c.sum() + part_s.sum()


def _map_backward(scores: Tensor, slopes: Tensor, scale: Tensor | None, s: float) -> tuple[Tensor, Tensor, Tensor]:
    """(scores, gradient of their map) -> (map, gradient of the scores, parts of the scale's); two of them in place."""
    B, X, Y = scores.shape
    parts = scores.new_empty(B, X)
    block = power_of_two_above(Y)
    rows = max(2048 // block, 1)
    _map_backward_kernel[(triton.cdiv(B * X, rows),)](scores, slopes, scale, parts, B * X, Y, s, ROWS=rows, BLOCK=block)
    return scores, slopes, parts


def _laid_out(gradient: Tensor, like: Tensor) -> Tensor:
    target = torch.empty_like(like)
    if gradient.dtype == target.dtype and gradient.stride() == target.stride():
        return gradient
    return target.copy_(gradient)


@_fused.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, scale: Tensor | None, s_c: float, s_s: float, transposed: bool
) -> Tensor:
    return torch.empty_like(key)


@_fused_backward.register_fake
def _(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor | None,
    s_c: float,
    s_s: float,
    transposed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    alike = [torch.empty_like(x) for x in (query, key, value)]
    return alike[0], alike[1], alike[2], query.new_empty((), dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    query, key, value, scale, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, scale)


def _pull_back(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return (None,) * 7
    *gradients, slope = _fused_backward(upstream, *ctx.saved_tensors, *ctx.options)
    scale = ctx.saved_tensors[3]
    return *gradients, None if scale is None else slope.to(scale.dtype), None, None, None


_fused.register_autograd(_pull_back, setup_context=_keep)
