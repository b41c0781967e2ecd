"""Distance between the similarities that two networks see among the images of one batch.

G = A A^T,  n = max(||G||_F, 1e-12),  M = G / n,  A = flatten (B, ...)
l2 = sqrt(||M_a - M_b||_F^2 + 1e-12);   cosine = 1 - <M_a, M_b>_F   (half of ||M_a - M_b||_F^2)
d/dG_a = s ((t M_a - M_b) - k_a M_a) / n_a with s = 1 / l2 or 1 (cosine), t = 1, k_a = <M_a - M_b, M_a>; but k_a = 0
where n_a is clamped, and where either norm is, cosine has t = 0, k = -<M_a, M_b>. The same for b.
d/dA = (d/dG + (d/dG)^T) A = 2 d/dG A
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton, widened, without_autocast

METRICS = ("l2", "cosine")
EPS = 1e-12


def gram_distance(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Distance between two batch Gram matrices of unit Frobenius norm; both sides take gradients, twice.

    Args:
        a, b: (B, ...) features of the same B images; everything behind the batch is flattened and may differ.
        metric: "l2" (not squared; the eps keeps the gradient finite at equal matrices) or "cosine".

    Returns:
        0-d, float32 (float64 where either is float64): 0 to sqrt(2) for l2, 0 to 1 for cosine.

    Raises:
        ValueError: batches of different size, features without a second dimension, or an unknown metric.

    Source: Benzine and Kiouer 2025, Eqs. 2.7-2.12 and 2.23-2.27; sections 2.4 and 2.5 of its spec.
    """
    if takes_triton(a, b):
        _check(a, b, metric)
        if len(a) <= MOST_IMAGES:
            return _fused(a, b, metric)[0]
    return gram_distance_ref(a, b, metric)


@without_autocast
def gram_distance_ref(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Definition of `gram_distance`."""
    _check(a, b, metric)
    first, second = unit_gram(a), unit_gram(b)
    if metric == "cosine":
        return 1 - (first * second).sum()
    return ((first - second).square().sum() + EPS).sqrt()


def unit_gram(x: Tensor) -> Tensor:
    """(B, ...) -> (B, B) inner products of the flattened rows, of unit Frobenius norm (0 if all rows are 0)."""
    rows = widened(x).flatten(1)
    gram = rows @ rows.T
    return gram / gram.square().sum().clamp(min=EPS**2).sqrt()  # clamped before the root, whose slope at 0 is infinite


def _check(a: Tensor, b: Tensor, metric: str) -> None:
    if a.ndim < 2 or b.ndim < 2 or len(a) != len(b):
        raise ValueError(f"features must be (B, ...) of the same B images, got {tuple(a.shape)} and {tuple(b.shape)}")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")


# The Triton path. The products are cuBLAS's; the kernels do what lies between them, on two (B, B) matrices: about
# twenty launches of PyTorch in one forward and one backward. Forward is a single program, which reads the matrices
# twice (the second time from cache), the norms first. Both metrics are taken from the difference of the matrices: where
# these are nearly equal, 1 - <M_a, M_b> and M_b - <M_a, M_b> M_a would lose what is asked for. Batches beyond
# MOST_IMAGES, too much for one program, take the definition.
MOST_IMAGES = 512


@jit
def _distance_kernel(
    gram_a,  # *(B, B) float32 contiguous
    gram_b,  # *(B, B) float32 contiguous
    distance,  # *() float32, written
    kept,  # *(6,) float32, written: n_a, n_b, k_a, k_b, s, t
    size,  # B B
    COSINE: tl.constexpr,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    element = tl.arange(0, BLOCK)
    squares_a = tl.zeros((BLOCK,), tl.float32)
    squares_b = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        g_a = tl.load(gram_a + start + element, start + element < size, 0.0)
        g_b = tl.load(gram_b + start + element, start + element < size, 0.0)
        squares_a += g_a * g_a
        squares_b += g_b * g_b
    square_a, square_b = tl.sum(squares_a, axis=0), tl.sum(squares_b, axis=0)
    n_a = tl.sqrt_rn(tl.maximum(square_a, FLOOR * FLOOR))
    n_b = tl.sqrt_rn(tl.maximum(square_b, FLOOR * FLOOR))
    apart = tl.zeros((BLOCK,), tl.float32)
    along_a = tl.zeros((BLOCK,), tl.float32)
    along_b = tl.zeros((BLOCK,), tl.float32)
    products = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        m_a = tl.div_rn(tl.load(gram_a + start + element, start + element < size, 0.0), n_a)
        m_b = tl.div_rn(tl.load(gram_b + start + element, start + element < size, 0.0), n_b)
        apart += (m_a - m_b) * (m_a - m_b)
        along_a += (m_a - m_b) * m_a
        along_b += (m_b - m_a) * m_b
        products += m_a * m_b
    total, k_a, k_b = tl.sum(apart, axis=0), tl.sum(along_a, axis=0), tl.sum(along_b, axis=0)
    clamped_a, clamped_b = square_a < FLOOR * FLOOR, square_b < FLOOR * FLOOR
    if COSINE:
        inner = tl.sum(products, axis=0)
        plain = clamped_a | clamped_b
        value = tl.where(plain, 1 - inner, 0.5 * total)
        scale = 1.0
        own = tl.where(plain, 0.0, 1.0)
        k_a, k_b = tl.where(plain, -inner, k_a), tl.where(plain, -inner, k_b)
    else:
        value = tl.sqrt_rn(total + FLOOR)
        scale = tl.div_rn(1.0, value)
        own = 1.0
    tl.store(distance, value)
    tl.store(kept, n_a)
    tl.store(kept + 1, n_b)
    tl.store(kept + 2, tl.where(clamped_a, 0.0, k_a))
    tl.store(kept + 3, tl.where(clamped_b, 0.0, k_b))
    tl.store(kept + 4, scale)
    tl.store(kept + 5, own)


@jit
def _slopes_kernel(
    upstream,  # *() float32
    gram_a,  # *(B, B) float32 contiguous
    gram_b,  # *(B, B) float32 contiguous
    kept,  # *(6,) float32
    slope_a,  # *(B, B) float32 contiguous, written: twice the gradient of gram_a
    slope_b,  # *(B, B) float32 contiguous, written: twice the gradient of gram_b
    size,  # B B
    BLOCK: tl.constexpr,
):
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < size
    n_a, n_b, k_a, k_b = tl.load(kept), tl.load(kept + 1), tl.load(kept + 2), tl.load(kept + 3)
    own = tl.load(kept + 5)
    twice = 2 * tl.load(upstream) * tl.load(kept + 4)
    m_a = tl.div_rn(tl.load(gram_a + element, inside, 0.0), n_a)
    m_b = tl.div_rn(tl.load(gram_b + element, inside, 0.0), n_b)
    tl.store(slope_a + element, twice * tl.div_rn((own * m_a - m_b) - k_a * m_a, n_a), inside)
    tl.store(slope_b + element, twice * tl.div_rn((own * m_b - m_a) - k_b * m_b, n_b), inside)


@torch.library.custom_op("efflib::gram_distance", mutates_args=())
def _fused(a: Tensor, b: Tensor, metric: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(distance, Gram matrix of a, that of b, norms and factors (6,)): matrix products, then the Triton kernel."""
    grams = [_product(rows, rows.T) for rows in (_rows(a), _rows(b))]
    distance, kept = a.new_empty((), dtype=torch.float32), a.new_empty(6, dtype=torch.float32)
    size = len(a) ** 2
    options = {"COSINE": metric == "cosine", "FLOOR": EPS, "BLOCK": min(power_of_two_above(size), 4096)}
    _distance_kernel[(1,)](*grams, distance, kept, size, **options, num_warps=8)
    return distance, grams[0], grams[1], kept


@torch.library.custom_op("efflib::gram_distance_backward", mutates_args=())
def _fused_backward(
    upstream: Tensor,
    a: Tensor,
    b: Tensor,
    gram_a: Tensor,
    gram_b: Tensor,
    kept: Tensor,
    metric: str,  # the second derivative needs it
    wants_a: bool,
    wants_b: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to both features; one that is not wanted is empty."""
    slopes = torch.empty_like(gram_a), torch.empty_like(gram_b)
    size = gram_a.numel()
    _slopes_kernel[(triton.cdiv(size, 1024),)](upstream, gram_a, gram_b, kept, *slopes, size, BLOCK=1024)
    return _pulled(slopes[0], a, wants_a), _pulled(slopes[1], b, wants_b)


def _order(x: Tensor) -> list[int]:
    """Dimensions behind the batch as they lie in memory, outermost first: inner products do not care, and a
    channels_last map is not copied."""
    strides = x.stride()
    return sorted(range(1, x.ndim), key=lambda dim: -strides[dim])


def _rows(x: Tensor) -> Tensor:
    """(B, ...) -> (B, D) float32, in the order of the memory."""
    return x.permute(0, *_order(x)).flatten(1).float()


@without_autocast
def _product(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


def _pulled(slope: Tensor, x: Tensor, wanted: bool) -> Tensor:
    """slope (B, B) times the rows of x, shaped as x and in its memory order; empty if not wanted."""
    return _shaped(_product(slope, _rows(x)).to(x.dtype), x) if wanted else x.new_empty(0)


def _shaped(rows: Tensor, x: Tensor) -> Tensor:
    """(B, D) in the order of x's memory -> the shape of x."""
    order = _order(x)
    places = [1 + order.index(dim) for dim in range(1, x.ndim)]
    return rows.view(len(x), *(x.shape[dim] for dim in order)).permute(0, *places)


@_fused.register_fake
def _(a: Tensor, b: Tensor, metric: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    distance, kept = a.new_empty((), dtype=torch.float32), a.new_empty(6, dtype=torch.float32)
    first, second = (a.new_empty(len(a), len(a), dtype=torch.float32) for _ in range(2))
    return distance, first, second, kept


@_fused_backward.register_fake
def _(
    upstream: Tensor,
    a: Tensor,
    b: Tensor,
    gram_a: Tensor,
    gram_b: Tensor,
    kept: Tensor,
    metric: str,
    wants_a: bool,
    wants_b: bool,
) -> tuple[Tensor, Tensor]:
    return _pulled(gram_a, a, wants_a), _pulled(gram_b, b, wants_b)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    a, b, ctx.metric = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(a, b, *output[1:])


def _pull_back(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None
    wants = ctx.needs_input_grad[:2]
    da, db = _fused_backward(upstream, *ctx.saved_tensors, ctx.metric, *wants)
    return da if wants[0] else None, db if wants[1] else None, None


def _keep_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.metric = inputs[6]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:3])


def _pull_back_twice(ctx: Any, v_a: Tensor | None, v_b: Tensor | None) -> tuple[Tensor | None, ...]:
    """The definition's own second derivative: no loss of the project takes it, so it has no kernel."""
    further, needed = torch.is_grad_enabled(), ctx.needs_input_grad[:3]
    if (v_a is None and v_b is None) or not any(needed):
        return (None,) * 9
    with torch.enable_grad():
        # views, so that a third derivative finds its way back to what they show
        upstream, a, b = (x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in ctx.saved_tensors)
        sides, arriving = zip(*((x, v) for x, v in ((a, v_a), (b, v_b)) if v is not None))
        first = torch.autograd.grad(gram_distance_ref(a, b, ctx.metric), sides, upstream, create_graph=True)
        wanted = [x for x, is_needed in zip((upstream, a, b), needed, strict=True) if is_needed]
        second = iter(torch.autograd.grad(first, wanted, arriving, create_graph=further, allow_unused=True))
    return *(next(second) if is_needed else None for is_needed in needed), *[None] * 6


_fused.register_autograd(_pull_back, setup_context=_keep)
_fused_backward.register_autograd(_pull_back_twice, setup_context=_keep_backward)
