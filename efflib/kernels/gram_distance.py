"""Distance between the similarities that two networks see among the images of one batch.

M = A A^T / max(||A A^T||_F, 1e-12),  A = flatten (B, ...)
l2 = sqrt(||M_a - M_b||_F^2 + 1e-12);   cosine = 1 - <M_a, M_b>_F   (half of ||M_a - M_b||_F^2)
"""

from __future__ import annotations

from torch import Tensor

from efflib.kernels.common import widened, without_autocast

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
    return gram_distance_ref(a, b, metric)


@without_autocast
def gram_distance_ref(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Definition of `gram_distance`."""
    if a.ndim < 2 or b.ndim < 2 or len(a) != len(b):
        raise ValueError(f"features must be (B, ...) of the same B images, got {tuple(a.shape)} and {tuple(b.shape)}")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    first, second = unit_gram(a), unit_gram(b)
    if metric == "cosine":
        return 1 - (first * second).sum()
    return ((first - second).square().sum() + EPS).sqrt()


def unit_gram(x: Tensor) -> Tensor:
    """(B, ...) -> (B, B) inner products of the flattened rows, of unit Frobenius norm (0 if all rows are 0)."""
    rows = widened(x).flatten(1)
    gram = rows @ rows.T
    return gram / gram.square().sum().clamp(min=EPS**2).sqrt()  # clamped before the root, whose slope at 0 is infinite
