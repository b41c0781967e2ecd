"""Clusters inside each class: features, k-means and its alternatives, silhouettes, the elbow (spec, 2.2, 2.3, 2.8).

Every class is clustered by itself, and its clusters are numbered 0, 1, ... from the largest to the smallest. A class is
brought into a canonical order of its feature rows first, so that neither the partition nor the numbers depend on the
order of the images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from efflib.data import ImageSet, subset
from efflib.kernels.augment import normalise
from efflib.models import Features
from efflib.models.imagenet import VGG16_INPUT, imagenet_vgg16
from efflib.models.registry import choice
from efflib.papers.features import read_features
from efflib.training import DeviceSet, TrainingRecipe

Source = Literal["baseline_penultimate", "baseline_mid", "imagenet_vgg16", "pixels"]
Method = Literal["kmeans", "hdbscan", "cosine"]
HDBSCAN_DIMENSIONS = 10  # principal components: densities mean little in more
STARTS = 10  # k-means++ starts of every k-means; scikit-learn's default today is one


# --- features -------------------------------------------------------------------------------------------------


def cluster_features(
    source: Source,
    data: ImageSet,
    network: nn.Module | None = None,
    training: TrainingRecipe | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    weights: str | Path | None = None,
) -> Tensor:
    """One feature vector per image, in eval mode, un-augmented (section 2.2).

    Args:
        source: "baseline_penultimate", the input of the baseline's classifier (its globally pooled last stage);
            "baseline_mid", the globally pooled output of the stage before the last; "imagenet_vgg16", the output of
            all 31 modules of torchvision's `vgg16().features`, without resizing; "pixels", all pixels in 0..1.
        data: N images.
        network: the trained baseline, for its two sources; it is moved to the device.
        training: what the baseline was trained with, for its two sources; only the normalisation is used.
        device, precision: "bf16" runs the baseline under autocast, VGG16 stays in float32; "fp64" needs a baseline
            that is float64 itself.
        weights: file of "imagenet_vgg16"; None looks for torchvision's, see `efflib.models.imagenet.pretrained`.

    Returns:
        (N, D) on the CPU, float64 for a float64 baseline or precision "fp64", else float32. VGG16: D = 512 for images
        of 32 pixels, 512 per position of the last map for larger ones.

    Raises:
        ValueError: unknown source, no baseline for a source that needs it, or images too small for VGG16.
        DataNotFound, DataBroken: about VGG16's weights.
    """
    choice("feature_source", source, get_args(Source))
    if source == "pixels":
        values = torch.from_numpy(np.ascontiguousarray(data.images)).flatten(1)
        return values.to(_dtype(precision)).div_(255)
    if source == "imagenet_vgg16":
        return _vgg16_features(data, device, _dtype(precision), weights)
    if network is None or training is None:
        raise ValueError(f"feature_source={source!r} needs the trained baseline: give network= and training=")
    return read_features(network.to(device), data, training, OWN_FEATURES[source], device, precision)[0]


def _dtype(precision: str) -> torch.dtype:
    return torch.float64 if precision == "fp64" else torch.float32


def _penultimate(found: Features) -> tuple[Tensor]:
    return (found.pooled,)


def _mid(found: Features) -> tuple[Tensor]:
    stage = found.stages[-2]
    return (stage.mean(dim=(2, 3), dtype=torch.promote_types(stage.dtype, torch.float32)),)


# Sources that a forward pass of the baseline gives, beside its logits.
OWN_FEATURES = {"baseline_penultimate": _penultimate, "baseline_mid": _mid}


def _vgg16_features(data: ImageSet, device: str, dtype: torch.dtype, weights: str | Path | None) -> Tensor:
    _, H, W, C = data.images.shape
    if min(H, W) < 32 or C not in (1, 3):
        raise ValueError(
            f"feature_source='imagenet_vgg16' needs images of at least 32 x 32 pixels with 1 or 3 channels, as VGG16 "
            f"halves them five times; {data.name} has {H} x {W} x {C}: use another feature_source"
        )
    network = imagenet_vgg16(weights).to(device, dtype).eval()
    mean, std = VGG16_INPUT
    parts = []
    with torch.no_grad():
        for part in DeviceSet(data, torch.device(device)).images.split(128):
            colour = part.expand(*part.shape[:3], 3)  # grey is repeated
            parts.append(network(normalise(colour, mean, std).to(dtype)).flatten(1).cpu())
    return torch.cat(parts)


# --- clusters -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Projection:
    """The space in which a class is clustered: feature rows (n, D) float64 -> points (n, P) float64."""

    unit: bool = False  # rows are divided by their length first (zero rows stay)
    mean: np.ndarray | None = None  # (D,) and
    components: np.ndarray | None = None  # (P, D) of a principal component analysis

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if self.unit:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        if self.components is not None:
            rows = (rows - self.mean) @ self.components.T
        return rows


@dataclass(frozen=True, eq=False)
class Clustering:
    """Clusters of every class of one set of images.

    Args:
        classes: names of the C classes.
        assignment: int64 (N,), each image's cluster within its class; 0 is the largest.
        counts: clusters of each class.
        centroids: of each class, float64 (counts[c], P), in the space of its projection.
        projections: of each class.
        noise: of each class, how many images HDBSCAN left out; they went to the nearest centroid.
        unsplit: numbers of the classes in which HDBSCAN found fewer than two clusters, and which are therefore one.
    """

    classes: tuple[str, ...]
    assignment: Tensor
    counts: tuple[int, ...]
    centroids: tuple[np.ndarray, ...]
    projections: tuple[Projection, ...]
    noise: tuple[int, ...]
    unsplit: tuple[int, ...]

    def assign(self, features: Tensor, labels: Tensor | np.ndarray) -> Tensor:
        """The nearest centroid of the true class, for images that were not clustered (section 2.8).

        Args:
            features: (M, D) from the source that was clustered.
            labels: (M,) true classes.

        Returns:
            int64 (M,), clusters within the class. Of the clustered images themselves it gives `assignment` back for
            k-means and cosine; HDBSCAN's clusters need not be what lies nearest.

        Raises:
            ValueError: other shapes, features that are not finite, or labels beyond the classes.
        """
        values, targets = _checked(features, labels, self.classes)
        if values.shape[1] != self.width:
            raise ValueError(f"the clusters were made of {self.width} features per image, these are {values.shape[1]}")
        found = np.zeros(len(targets), dtype=np.int64)
        for label, (project, centroids) in enumerate(zip(self.projections, self.centroids, strict=True)):
            members = np.flatnonzero(targets == label)
            found[members] = _nearest(project(_rows(values, members)), centroids)
        return torch.from_numpy(found)

    @property
    def width(self) -> int:
        """D, the features per image."""
        mean = self.projections[0].mean
        return self.centroids[0].shape[1] if mean is None else len(mean)


class _Split(NamedTuple):
    """Clusters of one class: labels (n,), centroids (K, P), and how many images were noise before."""

    labels: np.ndarray
    centroids: np.ndarray
    noise: int = 0


def cluster(
    features: Tensor,
    labels: Tensor | np.ndarray,
    classes: Sequence[str],
    method: Method = "kmeans",
    k: int = 3,
    pca_dim: int = 100,
    seed: int = 22,
    min_cluster_size: int | None = None,
) -> Clustering:
    """Split each class of the training images into clusters (section 2.3).

    Args:
        features: (N, D).
        labels: (N,) positions in `classes`.
        classes: names, as in ImageSet.
        method: "kmeans" on the first `pca_dim` principal components of the class, on the features themselves where
            there are no more than that; "hdbscan" on the first ten, noise going to the nearest cluster mean; "cosine",
            k-means of the rows divided by their length, an approximation of spherical k-means.
        k: clusters per class; "hdbscan" finds its own number.
        pca_dim: most principal components; also bounded by the images of a class minus one.
        seed: of the principal components (where scikit-learn approximates them) and of the k-means++ starts.
        min_cluster_size: of "hdbscan"; None is `smallest_cluster` of the class.

    Returns:
        Clustering.

    Raises:
        ValueError: unknown method, a class with fewer images (or fewer different ones) than clusters, numbers out of
            range, or features that are not finite.
    """
    choice("cluster_method", method, get_args(Method))
    for name, number in (("k", k), ("pca_dim", pca_dim)):
        _at_least(name, number, 1)
    if min_cluster_size is not None:
        _at_least("min_cluster_size", min_cluster_size, 2)
    values, targets = _checked(features, labels, classes)
    assignment = np.empty(len(targets), dtype=np.int64)
    projections, splits = [], []
    for members, rows, title in _by_class(values, targets, classes, 1 if method == "hdbscan" else k):
        project = _projection(rows, method, pca_dim, seed)
        points = project(rows)
        if method == "hdbscan":
            split = _densities(points, min_cluster_size or smallest_cluster(len(points)))
        else:
            split = _lloyd(points, k, seed, title)
        split = _largest_first(split)
        assignment[members] = split.labels
        projections.append(project)
        splits.append(split)
    counts = tuple(len(split.centroids) for split in splits)
    return Clustering(
        classes=tuple(classes),
        assignment=torch.from_numpy(assignment),
        counts=counts,
        centroids=tuple(split.centroids for split in splits),
        projections=tuple(projections),
        noise=tuple(split.noise for split in splits),
        unsplit=tuple(c for c, count in enumerate(counts) if count == 1) if method == "hdbscan" else (),
    )


def smallest_cluster(images: int) -> int:
    """HDBSCAN's min_cluster_size for a class of so many images.

    100 from 1,000 images on (the prior code; CIFAR-10 has 5,000), else 5 % of the images, but 5 at least and 25 at
    most: 25 for CIFAR-100 with its 500, as the spec decides, and less for smaller subsets.
    """
    return 100 if images >= 1_000 else min(max(images // 20, 5), 25)


def _projection(rows: np.ndarray, method: Method, pca_dim: int, seed: int) -> Projection:
    """The space in which these rows of one class are clustered."""
    if method == "cosine":
        return Projection(unit=True)
    most = min(pca_dim, HDBSCAN_DIMENSIONS) if method == "hdbscan" else pca_dim
    return _components(rows, most, seed) if rows.shape[1] > most and len(rows) > 1 else Projection()


def _components(rows: np.ndarray, most: int, seed: int) -> Projection:
    """The first principal components, at most as many as n rows can have around their mean: n - 1."""
    from sklearn.decomposition import PCA

    with np.errstate(divide="ignore", invalid="ignore"):  # shares of no variance at all, which nobody asks for
        fitted = PCA(min(most, rows.shape[1], len(rows) - 1), random_state=seed).fit(rows)
    return Projection(mean=fitted.mean_, components=fitted.components_)


def _lloyd(points: np.ndarray, k: int, seed: int, title: str) -> _Split:
    fitted = _kmeans(points, k, seed)
    different = len(np.unique(fitted.labels_))
    if different < k:
        raise ValueError(
            f"{title} has only {different} different feature vectors among {len(points)} images, so {k - different} "
            f"of {k} clusters would be empty: give k <= {different}, another feature_source, or other images"
        )
    return _Split(fitted.labels_, fitted.cluster_centers_)


def _kmeans(points: np.ndarray, k: int, seed: int):
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than clusters: `_lloyd` tells
        return KMeans(k, n_init=STARTS, random_state=seed).fit(points)


def _densities(points: np.ndarray, least: int) -> _Split:
    """HDBSCAN; centroids are the means of its clusters without the noise, which then goes to the nearest."""
    from sklearn.cluster import HDBSCAN

    one = _Split(np.zeros(len(points), dtype=np.int64), points.mean(axis=0, keepdims=True))
    if len(points) < 2 * least:  # no room for two clusters
        return one
    found = HDBSCAN(min_cluster_size=least, copy=True).fit(points).labels_.astype(np.int64)
    if found.max() < 1:
        return one._replace(noise=int((found < 0).sum()))
    centroids = np.stack([points[found == number].mean(axis=0) for number in range(found.max() + 1)])
    noise = found < 0
    found[noise] = _nearest(points[noise], centroids)
    return _Split(found, centroids, int(noise.sum()))


def _largest_first(split: _Split) -> _Split:
    """Clusters numbered by falling size; equal ones by their centroids."""
    sizes = np.bincount(split.labels, minlength=len(split.centroids))
    order = np.lexsort((*split.centroids.T[::-1], -sizes))
    return _Split(np.argsort(order)[split.labels], split.centroids[order], split.noise)


def _nearest(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """int64 (n,): the nearest centroid of each point, Euclidean, the first of equals."""
    return np.stack([((points - centroid) ** 2).sum(axis=1) for centroid in centroids]).argmin(axis=0)


# --- what comes in --------------------------------------------------------------------------------------------


def _checked(features: Tensor, labels: Tensor | np.ndarray, classes: Sequence[str]) -> tuple[Tensor, np.ndarray]:
    """Features (N, D) and labels (N,) that belong together.

    Raises:
        ValueError: they do not, or features are not finite.
    """
    values, targets = torch.as_tensor(features).detach().cpu(), np.asarray(labels)
    if values.ndim != 2 or targets.shape != values.shape[:1]:
        raise ValueError(f"features must be (N, D) and labels (N,), got {tuple(values.shape)} and {targets.shape}")
    bad = int((~torch.isfinite(values)).any(dim=1).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(values)} images have features that are not finite: the network that made them diverged, "
            "or its weights are broken; train it anew or take another feature_source"
        )
    if len(targets) and not 0 <= targets.min() <= targets.max() < len(classes):
        raise ValueError(f"labels go from {targets.min()} to {targets.max()}, but there are {len(classes)} classes")
    return values, targets


def _rows(values: Tensor, members: np.ndarray) -> np.ndarray:
    return values[torch.from_numpy(members)].double().numpy()


def _by_class(
    values: Tensor, targets: np.ndarray, classes: Sequence[str], least: int
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """(positions, rows float64, title) of each class, its images ordered by their rows, whatever their order was.

    Raises:
        ValueError: a class with fewer than `least` images.
    """
    for label, name in enumerate(classes):
        members, title = np.flatnonzero(targets == label), f"class {label} ({name})"
        if len(members) == 0:
            raise ValueError(f"{title} has no images: take a subset with images of each of the {len(classes)} classes")
        if len(members) < least:
            raise ValueError(
                f"{title} has {len(members)} images, which cannot make {least} clusters: take more images, or at most "
                f"{len(members)} clusters"
            )
        rows = _rows(values, members)
        order = np.lexsort(rows.T[::-1])
        yield members[order], rows[order], title


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


# --- how good are they? ---------------------------------------------------------------------------------------


def silhouettes(
    features: Tensor, clustering: Clustering, labels: Tensor | np.ndarray, limit: int = 2_000, seed: int = 22
) -> list[float | None]:
    """Mean silhouette of the clusters of each class, Euclidean, in the space that was clustered (Rousseeuw 1987).

    Args:
        features, labels: those that were clustered.
        clustering: of them.
        limit: classes with more images are judged by so many of them, chosen cluster by cluster in proportion, as all
            pairs of images are compared.
        seed: of that choice.

    Returns:
        One number in [-1, 1] per class; None where it is not defined: one cluster, or as many clusters as images.

    Raises:
        ValueError: features or labels of other images.
    """
    values, targets = _checked(features, labels, clustering.classes)
    if len(targets) != len(clustering.assignment):
        raise ValueError(f"{len(clustering.assignment)} images were clustered, these are {len(targets)}")
    found = []
    for label, project in enumerate(clustering.projections):
        members = np.flatnonzero(targets == label)
        numbers = clustering.assignment.numpy()[members]
        if len(members) > limit:
            chosen = subset(numbers, limit, seed)
            members, numbers = members[chosen], numbers[chosen]
        found.append(_silhouette(project(_rows(values, members)), numbers))
    return found


def _silhouette(points: np.ndarray, numbers: np.ndarray) -> float | None:
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(numbers)) < len(numbers):
        return None
    return float(silhouette_score(points, numbers))


# --- the elbow ------------------------------------------------------------------------------------------------


class Knee(NamedTuple):
    """Where a curve of inertias bends most.

    k: number of clusters at the knee, the smallest of equals.
    height: how far the curve lies below the line from its first to its last point there, 0 (no bend) to 1.
    heights: the same for every k from 1.
    """

    k: int
    height: float
    heights: tuple[float, ...]


def inertias(
    features: Tensor,
    labels: Tensor | np.ndarray,
    classes: Sequence[str],
    k_max: int = 9,
    pca_dim: int = 100,
    seed: int = 22,
) -> Tensor:
    """Inertia of k-means, the sum of squared distances to the nearest centroid, for k = 1 .. k_max in each class.

    Args:
        features, labels, classes, pca_dim, seed: as in `cluster`, whose "kmeans" this is.
        k_max: most clusters.

    Returns:
        float64 (C, k_max).

    Raises:
        ValueError: as `cluster`.
    """
    _at_least("k_max", k_max, 1)
    _at_least("pca_dim", pca_dim, 1)
    found = []
    for _, rows, _ in _by_class(*_checked(features, labels, classes), classes, k_max):
        points = _projection(rows, "kmeans", pca_dim, seed)(rows)
        found.append([float(_kmeans(points, k, seed).inertia_) for k in range(1, k_max + 1)])
    return torch.tensor(found, dtype=torch.float64)


def flattened_inertias(
    features: Tensor,
    labels: Tensor | np.ndarray,
    classes: Sequence[str],
    k_max: int = 9,
    pca_dim: int = 100,
    seed: int = 22,
) -> Tensor:
    """The elbow as the prior code computes it: each class's principal components as one column of scalars.

    5,000 images with 100 components become 500,000 scalars. Where there are fewer than `pca_dim` features, all their
    components are taken: flattened values depend on the axes, unlike distances. k-means of scalars is done on all of
    them, see `scalar_inertias`.

    Args, Returns, Raises: as `inertias`.
    """
    _at_least("k_max", k_max, 1)
    _at_least("pca_dim", pca_dim, 1)
    found = []
    for _, rows, _ in _by_class(*_checked(features, labels, classes), classes, max(k_max, 2)):
        found.append(scalar_inertias(_components(rows, pca_dim, seed)(rows), k_max, seed))
    return torch.tensor(found, dtype=torch.float64)


def scalar_inertias(scalars: np.ndarray, k_max: int = 9, seed: int = 22) -> list[float]:
    """Inertia of k-means of scalars for k = 1 .. k_max: Lloyd's algorithm on all of them.

    A cluster of scalars is an interval, so one step needs only its sums and bounds in the sorted list: half a million
    scalars take less time than scikit-learn needs for a hundredth of them.

    Args:
        scalars: any shape, at least k_max values.
        k_max: most clusters.
        seed: of the starts: ten per k, one of them at quantiles, the others at scalars drawn at random.

    Returns:
        k_max numbers, the smallest of the starts each.
    """
    values = np.sort(np.asarray(scalars, dtype=np.float64), axis=None)
    values -= values.mean()  # sums of large numbers would lose the small differences
    sums = np.concatenate([[0.0], values.cumsum()])
    generator = np.random.default_rng(seed)
    return [_intervals(values, sums, k, generator) for k in range(1, k_max + 1)]


def _intervals(values: np.ndarray, sums: np.ndarray, k: int, generator: np.random.Generator) -> float:
    """Inertia of the best of several starts, for sorted values (n,) and their running sums (n + 1,)."""
    n = len(values)
    places = np.sort(generator.integers(n, size=(STARTS, k)), axis=1)
    places[0] = (np.arange(k) + 0.5) / k * n
    centres, bounds = values[places], np.zeros((STARTS, k + 1), dtype=np.int64)
    for _ in range(1_000):
        before, bounds = bounds, _bounds(values, centres)
        if np.array_equal(bounds, before):
            break
        counts = np.diff(bounds)
        centres = np.where(counts > 0, np.diff(sums[bounds]) / np.maximum(counts, 1), centres)
    explained = (np.diff(bounds) * centres**2).sum(axis=1)
    best = int(explained.argmax())
    return float(((values - np.repeat(centres[best], np.diff(bounds[best]))) ** 2).sum())


def _bounds(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """int64 (S, k + 1): where in the sorted values the intervals nearest to each of the k centres begin and end."""
    inner = np.searchsorted(values, (centres[:, 1:] + centres[:, :-1]) / 2)
    return np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(values))))


def mean_ratios(inertias: Tensor) -> Tensor:
    """(k_max,): inertias (C, k_max) divided by each class's own at k = 1, then averaged over the classes.

    Raises:
        ValueError: a class without any spread.
    """
    flat = torch.nonzero(inertias[:, 0] <= 0).flatten().tolist()
    if flat:
        raise ValueError(f"all images of class {flat[0]} have the same features: there is nothing to divide by")
    return (inertias / inertias[:, :1]).mean(dim=0)


def knee(curve: Tensor | Sequence[float]) -> Knee:
    """The knee of one curve of inertias for k = 1 .. k_max (section 2.3).

    k and the inertias are rescaled to [0, 1]; the height at k is 1 - k - inertia, and the knee is the highest point.

    Args:
        curve: (k_max,), at least three, for instance `mean_ratios` or one row of `inertias`.

    Raises:
        ValueError: fewer than three points, or a curve that does not fall.
    """
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(f"a knee needs a curve of at least three points (k = 1, 2, 3), got shape {values.shape}")
    if not values[-1] < values[0]:
        raise ValueError(f"inertias from {values[0]:g} to {values[-1]:g} do not fall with k: there is no knee")
    heights = 1 - np.linspace(0, 1, len(values)) - (values - values.min()) / (values.max() - values.min())
    best = int(heights.argmax())
    return Knee(best + 1, float(heights[best]), tuple(heights.tolist()))
