"""Easy images first: scoring and pacing of Hacohen & Weinshall (2019), for "self-taught" and "LCDnet-CL".

Scoring gives each training image the probability of its true class, by a network trained normally on the same images
(self-taught) or by a linear classifier on another network's features (transfer). The order is by falling score, with
the g-th easiest images of all classes next to each other. Pacing: each batch is drawn uniformly, without replacement,
from the first P images,

    P = ceil(N min(0.04 * 1.9^i, 1)),  i = floor(images seen / 10 000)

2 000, 3 800, 7 220, 13 718, 26 065, 49 522, 50 000 for N = 50 000: the curriculum lasts 60 000 images.

LCDnet-CL (Khan et al. 2023, crowd counting) has no public code; all that BIMask's paper says of it is transfer scoring
with a ResNet50. (The same paper calls self-taught scoring "self-supervised pre-training"; it is not.)
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.curricula.common import one_of, positive
from efflib.data import ImageSet
from efflib.kernels.augment import normalise
from efflib.models import create_model
from efflib.models.imagenet import IMAGENET_INPUT, imagenet_resnet50
from efflib.training import Curriculum, TrainingRecipe, derived_seed, fit, pick_device, predict, seeded

SCORERS = ("imagenet_resnet50", "cifar_oof")


# --- pacing ---------------------------------------------------------------------------------------------------


def pool_size(images_seen: int, N: int, start: float = 0.04, growth: float = 1.9, every: float = 10_000) -> int:
    """P: how many of the easiest images batches are drawn from, after so many images seen by the network."""
    step = int(images_seen / every + 1e-9)
    if step >= pools_below_all(start, growth):  # before the power, which overflows late in a long run
        return N
    return math.ceil(N * start * growth**step * (1 - 1e-12))  # 0.04 * 1.9 * 50 000 must not become 3 801


def pools_below_all(start: float, growth: float) -> int:
    """Number of pools that are smaller than the training set: 6 by default."""
    return math.ceil(math.log(1 / start) / math.log(growth) - 1e-9)


def easiest_first(scores: Tensor, labels: Tensor) -> Tensor:
    """Positions (N,) of the images, easiest first and class-balanced.

    The easiest of every class come first, then the second easiest of every class, ...; within such a group by score.
    Ties keep the order of the images; a class that has no more images is skipped.

    Args:
        scores: (N,), higher is easier.
        labels: (N,) classes.

    Raises:
        ValueError: different lengths, or scores that are not finite.
    """
    values, classes = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.shape != classes.shape or values.ndim != 1:
        raise ValueError(f"scores {values.shape} and labels {classes.shape} must be two lists of one length")
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} of {len(values)} scores are not finite")
    ranks = np.empty(len(values), dtype=np.int64)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        ranks[members[np.argsort(-values[members], kind="stable")]] = np.arange(len(members))
    return torch.from_numpy(np.lexsort((-values, ranks)))


class Pacing(Curriculum):
    """Batches from the easiest images first; names "self_taught" and "lcdnet", which differ in their scores only.

    Args:
        scores: (N,) of the training set handed to `fit`, in its order; higher is easier.
        labels: (N,) of the same.
        start: share of the images in the first pool.
        growth: factor from one pool to the next.
        every: images seen from one pool to the next.
        pacing_span: share of the whole training after which all images are in the pool, instead of `every`.
        full: what follows then. "epochs": ordinary epochs, in the very order that training without a curriculum has;
            "draws": draws from all images, as the authors' code.
    """

    def __init__(
        self,
        *,
        scores: Tensor,
        labels: Tensor,
        start: float = 0.04,
        growth: float = 1.9,
        every: float = 10_000,
        pacing_span: float | None = None,
        full: Literal["epochs", "draws"] = "epochs",
    ) -> None:
        if not 0 < start <= 1:
            raise ValueError(f"start must be a share of the images in (0, 1], got {start!r}")
        if not growth > 1:
            raise ValueError(f"growth must be above 1, got {growth!r}: pools have to grow")
        if pacing_span is not None and not 0 < pacing_span <= 1:
            raise ValueError(f"pacing_span must be a share of training in (0, 1], or None, got {pacing_span!r}")
        self.easiest = easiest_first(scores, labels)
        self.labels = torch.as_tensor(labels).clone()
        self.start, self.growth, self.every = start, growth, positive("every", every)
        self.pacing_span, self.full = pacing_span, one_of("full", full, ("epochs", "draws"))

    def __repr__(self) -> str:
        order = hashlib.sha256(self.easiest.numpy().tobytes()).hexdigest()[:16]
        options = ("start", "growth", "every", "pacing_span", "full")
        return f"Pacing(order {order}, {', '.join(f'{name}={getattr(self, name)!r}' for name in options)})"

    def pool(self, images_seen: int, total: int) -> int:
        """P after so many images of a training of `total` images."""
        every = self.every
        if self.pacing_span is not None:
            every = self.pacing_span * total / max(pools_below_all(self.start, self.growth), 1)
        return pool_size(images_seen, len(self.easiest), self.start, self.growth, every)

    def check(self, model: nn.Module, train: ImageSet, recipe: TrainingRecipe) -> None:
        if len(self.easiest) != len(train) or not np.array_equal(self.labels.numpy(), train.labels):
            raise ValueError(
                f"the scores are of {len(self.easiest)} images, the training set has {len(train)}, or the labels "
                "differ: score the very images that are trained on, in their order, without the held-out ones"
            )

    def order(self, order: Tensor, recipe: TrainingRecipe, seed: int, epoch: int) -> Tensor:
        N, B = len(order), recipe.batch_size
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch, "pool"))
        each = min(recipe.steps(N) * B, N)  # images of an epoch
        batches = list(order.split(B))
        for step in range(recipe.steps(N)):
            pool = self.pool(epoch * each + step * B, recipe.epochs * each)
            if pool < N or self.full == "draws":
                # A pool smaller than a batch is filled up with the next easiest.
                drawn = torch.randperm(max(pool, len(batches[step])), generator=generator)
                batches[step] = self.easiest[drawn[: len(batches[step])]]
        return torch.cat(batches)


# --- scoring --------------------------------------------------------------------------------------------------


def self_taught_scores(
    model: nn.Module,
    data: ImageSet,
    recipe: TrainingRecipe | str = "cifar_lr",
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Tensor:
    """(N,) probability of each image's true class, by a network trained normally on the same images.

    Args:
        model: the trained network, usually the seed's baseline of the same architecture; its weights stay.
        data: images as they are, not augmented.
        recipe: what the network was trained with; only its normalisation is used.
        device, precision: as in `efflib.training.fit`.
    """
    return _true_class(F.softmax(predict(model, data, recipe, device, precision).double(), dim=1), data.labels)


def transfer_scores(features: Tensor, labels: Tensor, folds: int | None = None, seed: int = 0) -> Tensor:
    """(N,) probability of each image's true class, by multinomial logistic regression on features of these images.

    Args:
        features: (N, D), for instance a network's pooled vectors; they are standardised.
        labels: (N,) classes.
        folds: None fits on all images and scores the same (Hacohen & Weinshall, with a support vector machine); a
            number scores each image by a classifier that has not seen it.
        seed: of the folds.

    Raises:
        ValueError: other shapes, one class only, or classes with fewer images than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values, (classes, targets) = np.asarray(features), np.unique(np.asarray(labels), return_inverse=True)
    if values.ndim != 2 or len(values) != len(targets):
        raise ValueError(f"features must be (N, D) and labels (N,), got {values.shape} and {targets.shape}")
    if len(classes) < 2:
        raise ValueError(f"all {len(targets)} images are of one class: there is nothing to tell apart")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    if folds is None:
        found = classifier.fit(values, targets).predict_proba(values)
    else:
        found = cross_val_predict(
            classifier, values, targets, cv=_splitter(targets, folds, seed), method="predict_proba"
        )
    return _true_class(torch.from_numpy(found), targets)


def lcdnet_scores(
    data: ImageSet,
    scorer: Literal["imagenet_resnet50", "cifar_oof"] = "imagenet_resnet50",
    recipe: TrainingRecipe | str = "cifar_rd",
    seed: int = 0,
    weights: str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Tensor:
    """(N,) transfer scores for "lcdnet".

    Args:
        data: the training set.
        scorer: "imagenet_resnet50" (the paper's: features of an ImageNet ResNet50, then `transfer_scores`) or
            "cifar_oof" (a deviation that needs no ImageNet weights: `out_of_fold_scores`).
        recipe, seed, checkpoint: of "cifar_oof".
        weights: of "imagenet_resnet50", see `imagenet_features`.
        device, precision: as in `efflib.training.fit`.
    """
    one_of("scorer", scorer, SCORERS)
    if scorer == "cifar_oof":
        return out_of_fold_scores(data, recipe, seed=seed, checkpoint=checkpoint, device=device, precision=precision)
    features = imagenet_features(data, weights, device)
    return transfer_scores(features, torch.from_numpy(np.ascontiguousarray(data.labels)))


def out_of_fold_scores(
    data: ImageSet,
    recipe: TrainingRecipe | str = "cifar_rd",
    model: str = "resnet20",
    folds: int = 5,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    progress: bool | None = None,
    **options: float | int | str | bool,
) -> Tensor:
    """(N,) probability of each image's true class, by a network trained on the other folds.

    Args:
        data: the training set; folds are stratified.
        recipe: trains each of the `folds` networks, for its epochs over the other folds.
        model, options: network of `efflib.create_model`.
        seed: of the folds, the initial weights and the order.
        checkpoint: each fold has a file `<checkpoint>.fold<number>`, so that an interrupted scoring goes on; or None.
        device, precision, progress: as in `efflib.training.fit`.

    Raises:
        ValueError: classes with fewer images than folds.
    """
    scores = torch.empty(len(data), dtype=torch.float64)
    targets = np.asarray(data.labels)
    for number, (others, fold) in enumerate(_splitter(targets, folds, seed).split(targets, targets)):
        with seeded(seed, f"fold {number}"):
            network = create_model(model, len(data.classes), in_channels=data.images.shape[3], **options)
        fit(
            network,
            data.take(others),
            data.take(fold),
            recipe=recipe,
            seed=seed,
            checkpoint=None if checkpoint is None else f"{checkpoint}.fold{number}",
            device=device,
            precision=precision,
            progress=progress,
            description=f"scoring, fold {number + 1} of {folds}",
        )
        scores[torch.from_numpy(fold)] = self_taught_scores(network, data.take(fold), recipe, device, precision)
    return scores


def imagenet_features(
    data: ImageSet,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 64,
) -> Tensor:
    """(N, 2048) float32 pooled features of torchvision's ImageNet ResNet50, for images enlarged to 224 pixels.

    Args:
        data: images with 1 or 3 channels.
        weights: file of the network's state; None looks for `resnet50-0676ba61.pth` in EFFLIB_DATA, among earlier
            downloads and in torch's own cache, and then downloads it.
        device: as in `efflib.training.fit`.
        batch_size: images at once.

    Raises:
        DataNotFound: no such file, and it could or may not be downloaded.
        DataBroken: a file that is not this network's state.
    """
    device = pick_device(device)
    network = imagenet_resnet50(weights).to(device).eval()
    images = torch.from_numpy(np.ascontiguousarray(data.images))
    with torch.no_grad():
        return torch.cat([network(enlarged(part.to(device))).cpu() for part in images.split(batch_size)])


def enlarged(images: Tensor, side: int = 224) -> Tensor:
    """(N, H, W, C) uint8 -> (N, 3, side, side) float32, bilinear, with ImageNet's normalisation; grey is repeated."""
    colour = images.expand(*images.shape[:3], 3)
    zero_to_one = normalise(colour, (0.0,) * 3, (1.0,) * 3)
    large = F.interpolate(zero_to_one, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in IMAGENET_INPUT)
    return (large - mean) / std


def _splitter(targets: np.ndarray, folds: int, seed: int):
    from sklearn.model_selection import StratifiedKFold

    smallest = int(np.unique(targets, return_counts=True)[1].min()) if len(targets) else 0
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= smallest:
        raise ValueError(
            f"folds must be a whole number between 2 and the {smallest} images of the smallest class, got {folds!r}"
        )
    return StratifiedKFold(folds, shuffle=True, random_state=seed)


def _true_class(probabilities: Tensor, labels: np.ndarray) -> Tensor:
    return probabilities[torch.arange(len(labels)), torch.from_numpy(np.ascontiguousarray(labels))]
