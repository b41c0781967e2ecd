"""PKGD's two attention maps between a teacher's and a student's tokens, applied to the student (its Eqs. 8-11).

Map_c = softmax(s_c Q K^T)   (d x d),   Map_s = softmax(s_s Q^T K)   (L x L),   both over the last axis
out   = Map_c V + V Map_s    (V Map_s^T if transposed),   Q = teacher, K = student, V = value or student
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import widened, without_autocast

SCORES = ("sqrt", "none", "l2")


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
    if teacher.ndim != 3 or not teacher.shape == student.shape == value.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (teacher, student, value))
        raise ValueError(f"teacher, student and value must be (B, d, L) alike, got {shapes}")
    channel, spatial = attention_maps(teacher, student, score, scale)
    mixed = widened(value)
    guided = channel @ mixed + mixed @ (spatial.transpose(1, 2) if spatial_transpose else spatial)
    return guided.to(student.dtype)


@without_autocast
def attention_maps(
    teacher: Tensor, student: Tensor, score: str = "sqrt", scale: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """Map_c (B, d, d) and Map_s (B, L, L) of queries and keys (B, d, L); arguments as `guided_attention`."""
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    query, key = widened(teacher), widened(student)
    d, L = query.shape[1:]
    if score == "l2":
        query, key = F.normalize(query, dim=2, eps=1e-12), F.normalize(key, dim=2, eps=1e-12)
    by_channel, by_position = (L**-0.5, d**-0.5) if score == "sqrt" else (1.0, 1.0)
    channel = (query @ key.transpose(1, 2) * (by_channel * scale)).softmax(dim=-1)
    spatial = (query.transpose(1, 2) @ key * (by_position * scale)).softmax(dim=-1)
    return channel, spatial
