"""The recipe `clusters`: how well the classes separate in a trained network's pooled features (PKGD's figure 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field
from torch import Tensor

from efflib.papers.baselines import (
    CANARY_SETTINGS,
    ClassifierConfig,
    canary_context,
    data_read,
    inherited_model,
    new_model,
    one_pass_flops,
    split,
)
from efflib.papers.features import pooled_features
from efflib.trials.recipes import Context, Outcome, recipe


class ClustersConfig(ClassifierConfig):
    """The data and the network of the parent in the role "network" (a baseline, a student), and how to look at them.

    Nothing is trained: of `training` only the normalisation is used. `neighbours` is the k of the nearest neighbours.
    """

    neighbours: int = Field(default=20, ge=1)


def silhouette(points: Tensor, labels: np.ndarray) -> float:
    """Mean silhouette of the true classes, Euclidean: (b - a) / max(a, b) per image (Rousseeuw 1987).

    a is an image's mean distance to its own class, b to the nearest other one: 1 for tight and distant classes, 0 for
    classes that lie on top of each other, below 0 where images lie nearer to another class than to their own.

    Args:
        points: (N, D).
        labels: (N,), at least two classes.
    """
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points.double().numpy(), labels))


def neighbour_accuracy(train: Tensor, train_labels: np.ndarray, test: Tensor, test_labels: np.ndarray, k: int) -> float:
    """Percent of the test images whose class most of the k nearest training images have (Euclidean).

    Ties of the vote go to the class with the lowest number.

    Raises:
        ValueError: fewer than k training images.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if len(train) < k:
        raise ValueError(f"{k} neighbours of only {len(train)} training images: give neighbours <= {len(train)}")
    voters = KNeighborsClassifier(k, algorithm="brute").fit(train.double().numpy(), train_labels)
    return 100 * float((voters.predict(test.double().numpy()) == test_labels).mean())


def _canary() -> dict[str, float]:
    """An untrained small network on 160 training and 360 test digits."""
    config = ClustersConfig(**CANARY_SETTINGS)
    return clusters(config, canary_context("clusters", network=new_model(config).state_dict())).metrics


@recipe(
    "clusters",
    version=1,
    config=ClustersConfig,
    canary=_canary,
    flops=one_pass_flops,  # distances cost little beside it
    data=data_read,
    parents=("network",),
)
def clusters(config: ClustersConfig, context: Context) -> Outcome:
    """Silhouette of the test images, their nearest neighbours among the training images, the parent's accuracy."""
    train, _, test = split(config)
    model = inherited_model(config, context.parents["network"], context.precision).to(context.device)
    known, _ = pooled_features(model, train, config, context.device, context.precision)
    asked, logits = pooled_features(model, test, config, context.device, context.precision)
    voted = neighbour_accuracy(known, train.labels, asked, test.labels, config.neighbours)
    metrics: dict[str, Any] = {
        "last": 100 * float((logits.argmax(dim=1).numpy() == test.labels).mean()),
        "silhouette": silhouette(asked, test.labels),
        f"knn{config.neighbours}": voted,
    }
    return Outcome(metrics, one_pass_flops(config))
