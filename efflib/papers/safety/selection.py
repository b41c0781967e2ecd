"""The preservation set of images: Grad-CAM, uncertainty and diversity in fixed quotas (spec, section 2.6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.data import ImageSet
from efflib.explain import activation_and_gradient
from efflib.kernels import softmax_stats
from efflib.kernels.augment import normalise
from efflib.kernels.gradcam_map import gradcam_map
from efflib.models import evaluating, features

REASONS = ("evidence", "uncertain", "diverse")
CLUSTERS_PER_CLASS, LLOYD_STEPS = 10, 20


@dataclass(frozen=True)
class Scores:
    """What the selection looks at, for N images, all on the CPU.

    spread: (N,) sum of the Grad-CAM map scaled to [0, 1], between 0 and its number of cells. margin: (N,) largest less
    second probability. points: (N, D) classifier inputs of unit length. prediction: (N,).
    """

    spread: Tensor
    margin: Tensor
    points: Tensor
    prediction: Tensor


@dataclass(frozen=True)
class Selection:
    """Positions (M,) of the chosen images and why each was chosen, in order of choice."""

    positions: np.ndarray
    reasons: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        return {reason: self.reasons.count(reason) for reason in REASONS}


def score_images(
    model: nn.Module,
    data: ImageSet,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    layer: str,
    cam_norm: bool = True,
    batch_size: int = 250,
) -> Scores:
    """Scores of every image by the float network, in eval mode: batch statistics would mix the images' gradients.

    Args:
        model: the float twin, its batch norm's running statistics re-estimated.
        data: N images.
        mean, std: normalisation.
        layer: the convolution whose output (before its ReLU) Grad-CAM weighs; the paper's conv4.
        cam_norm: scale each map to [0, 1] before summing, as the authors' library does.
        batch_size: images at once; it changes nothing beyond rounding.
    """
    parts: list[tuple[Tensor, ...]] = []
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    with evaluating(model):
        for pixels in torch.from_numpy(data.images).split(batch_size):
            images = normalise(pixels.to(device), mean, std).to(dtype)
            maps = gradcam_map(*activation_and_gradient(model, images, layer, "predicted", "logit"))
            with torch.no_grad():
                found = features(model, images)
            stats = softmax_stats(found.logits)
            spread = _spread(maps.float(), cam_norm)
            parts.append((spread, stats.margin, F.normalize(found.pooled.float(), dim=1), stats.prediction))
    return Scores(*(torch.cat(values).cpu() for values in zip(*parts, strict=True)))


def _spread(maps: Tensor, cam_norm: bool) -> Tensor:
    if cam_norm:
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        maps = (maps - low) / (high - low + 1e-8)
    return maps.sum(dim=(1, 2))


def select(scores: Scores, count: int, classes: int, seed: int) -> Selection:
    """Half by spread of evidence, a quarter by the smallest margin, the rest by cluster; ties by position.

    Args:
        scores: of the N training images.
        count: M, at most N; the paper takes a tenth of the training images.
        classes: ten clusters are made per class.
        seed: of the k-means++ starts.

    Raises:
        ValueError: a count out of range, or fewer images than clusters.
    """
    total = len(scores.spread)
    if not 4 <= count <= total:
        raise ValueError(f"a preservation set of {count} images out of {total}: choose between 4 and {total}")
    by_evidence = np.argsort(-scores.spread.numpy(), kind="stable")[: count // 2]
    rest = np.setdiff1d(np.arange(total), by_evidence)
    by_margin = rest[np.argsort(scores.margin.numpy()[rest], kind="stable")][: count // 4]
    taken = np.concatenate([by_evidence, by_margin])
    diverse = _round_robin(scores.points, taken, count - len(taken), classes * CLUSTERS_PER_CLASS, seed)
    reasons = [
        reason for reason, chosen in zip(REASONS, (by_evidence, by_margin, diverse), strict=True) for _ in chosen
    ]
    return Selection(np.concatenate([taken, diverse]), tuple(reasons))


def _round_robin(points: Tensor, taken: np.ndarray, count: int, clusters: int, seed: int) -> np.ndarray:
    """Cluster after cluster gives its member nearest to the centroid that is not taken yet, until `count` are found."""
    from sklearn.cluster import KMeans

    if len(points) < clusters:
        raise ValueError(f"{len(points)} images cannot fill {clusters} clusters: take more images")
    found = KMeans(clusters, init="k-means++", n_init=1, max_iter=LLOYD_STEPS, random_state=seed)
    distances = found.fit_transform(points.double().numpy())
    free = np.ones(len(points), dtype=bool)
    free[taken] = False
    queues = []
    for number in range(clusters):
        members = np.flatnonzero((found.labels_ == number) & free)
        queues.append(list(members[np.argsort(distances[members, number], kind="stable")]))
    chosen: list[int] = []
    while len(chosen) < count:
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(int(queue.pop(0)))
    return np.array(chosen, dtype=np.int64)


def random_selection(total: int, count: int, seed: int) -> Selection:
    """The control: as many images, drawn uniformly without replacement."""
    if not 1 <= count <= total:
        raise ValueError(f"{count} images cannot be drawn out of {total}")
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]
    return Selection(chosen.numpy(), ("random",) * count)
