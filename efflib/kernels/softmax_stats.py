"""How sure a classifier is of each image: entropy, margin, confidence and prediction of softmax(z), from the logits.

With i = argmax z (the lowest index of equals), d_c = z_i - z_c and S = sum_{c != i} e^{-d_c}:
entropy = log1p(S) + sum_{c != i} d_c e^{-d_c} / (1 + S), confidence = 1 / (1 + S), margin = (1 - e^{-min d}) / (1 + S).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from efflib.kernels.common import widened


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
    return softmax_stats_ref(logits)


def softmax_stats_ref(logits: Tensor) -> SoftmaxStats:
    """Definition of `softmax_stats`."""
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"logits must be (N, C) with C >= 1, got {tuple(logits.shape)}")
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
