"""A classifier's report after an epoch: confusion matrices, also without test images that are copies of training ones.

Runs with a constant learning rate contain all shorter ones with the same seed: a run that is reported after every epoch
answers for each of its lengths (DisWOT spec, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, from_numpy, nn

from efflib.data import ImageSet, leakage
from efflib.training import Follow, TrainingRecipe, evaluate, predict


def reporter(
    marks: tuple[int, ...], training: TrainingRecipe, train: ImageSet, test: ImageSet, device: str, precision: str
) -> Follow:
    """What `efflib.training.fit` is to ask after each epoch.

    Args:
        marks: numbers of finished epochs after which the training images are classified too, without augmentation.
        training: only its normalisation is used.
        train: images that the network is trained on.
        test: test images.
        device, precision: as in `fit`.

    Returns:
        A function (network, epoch) -> {"last": accuracy on the test images in percent, "cross_entropy": there, in
        nats, "confusion": counts[true][predicted], "leak_free": accuracy on the test images that are neither
        exact nor near copies of training images, "leak_free_confusion"}, and at marks {"train": accuracy}.
    """
    clean = leak_free(test)

    def follow(model: nn.Module, epoch: int) -> dict[str, Any]:
        logits = predict(model, test, training, device, precision)
        found = report(logits, test.labels, len(test.classes), clean)
        if epoch in marks:
            found["train"] = evaluate(model, train, training, device, precision)
        return found

    return follow


def report(logits: Tensor, labels: np.ndarray, classes: int, clean: np.ndarray) -> dict[str, Any]:
    """What `reporter` promises for logits (N, C) and labels (N,), but for the training images.

    Args:
        clean: bool (N,), the test images that are neither exact nor near copies of training images.
    """
    targets = from_numpy(np.ascontiguousarray(labels))
    loss = float(F.cross_entropy(logits.double(), targets))
    return {"cross_entropy": loss, **counted(logits.argmax(dim=1).numpy(), labels, classes, clean)}


def counted(predicted: np.ndarray, labels: np.ndarray, classes: int, clean: np.ndarray) -> dict[str, Any]:
    """Accuracies and confusion matrices of predicted labels (N,), as in `report`."""
    found: dict[str, Any] = {}
    for name, matrix, chosen in (("last", "confusion", slice(None)), ("leak_free", "leak_free_confusion", clean)):
        found[name] = float((predicted[chosen] == labels[chosen]).mean() * 100)
        found[matrix] = confusion(predicted[chosen], labels[chosen], classes)
    return found


def leak_free(test: ImageSet) -> np.ndarray:
    """bool (N,): the images of a test split, or of a part of it, that are neither exact nor near copies."""
    return leakage(test.name).leak_free[test.indices]


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> list[list[int]]:
    """Confusion matrix: counts[true][predicted]."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predicted, labels=range(classes)).tolist()


def after_epochs(cell: Mapping[str, Any], metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """View of a Table whose cells have the key "epochs": the report after so many; nothing where there is none."""
    return metrics.get("followed", {}).get(str(cell["epochs"]), {}) if "epochs" in cell else metrics


def classification(counts: Sequence[Sequence[int]]) -> dict[str, list[float]]:
    """Precision, recall and F1 of each class from a confusion matrix counts[true][predicted]; 0 where 0 is divided by.

    Returns:
        {"precision", "recall", "f1"}, each with one number per class.
    """
    from sklearn.metrics import precision_recall_fscore_support

    matrix = np.asarray(counts)
    true, predicted = np.indices(matrix.shape).reshape(2, -1)
    found = precision_recall_fscore_support(
        true, predicted, sample_weight=matrix.ravel(), labels=range(len(matrix)), zero_division=0
    )
    return {name: values.tolist() for name, values in zip(("precision", "recall", "f1"), found)}
