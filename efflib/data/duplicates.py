"""Copies across splits: test images that the training split holds too, and how far a nearest neighbour gets.

An exact duplicate has the very pixels of a training image. A near duplicate has a training image within a root mean
square of 0.01 (of brightness 0..1) on 32x32 grey thumbnails: the same slice, saved again. What is left is called
leak-free here, though slices of the same head may remain. Everything is computed on whole numbers, so that two machines
agree on every image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from efflib.data.imageset import ImageSet
from efflib.data.sets import REAL
from efflib.data.sources import load_dataset

SIDE = 32  # of the thumbnails on which near duplicates are looked for
NEAR = 0.01  # root mean square difference up to which an image is a near duplicate
ROWS = 256  # test images compared at once


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What a training split tells about the images of a test split.

    Args:
        labels: int64 (N,), labels of the test images.
        classes: names of the classes.
        exact: bool (N,), some training image has the same pixels.
        distance: float64 (N,), root mean square difference to the nearest training image, on thumbnails, 0..1.
        nearest: int64 (N,), position of that image in the training split, the first of equals.
        threshold: distance up to which an image is a near duplicate.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    exact: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray
    threshold: float = NEAR

    @property
    def near(self) -> np.ndarray:
        """bool (N,): exact and near duplicates."""
        return self.exact | (self.distance <= self.threshold)

    @property
    def leak_free(self) -> np.ndarray:
        """bool (N,): neither exact nor near duplicates of a training image."""
        return ~self.near

    def counts(self) -> dict[str, dict[str, int]]:
        """Test images per class, and "all", of each kind: "images", "exact", "near" (exact ones too), "leak_free"."""
        kinds = {
            "images": np.ones_like(self.exact),
            "exact": self.exact,
            "near": self.near,
            "leak_free": self.leak_free,
        }
        rows = {}
        for kind, chosen in kinds.items():
            per_class = np.bincount(self.labels[chosen], minlength=len(self.classes))
            rows[kind] = dict(zip((*self.classes, "all"), [*map(int, per_class), int(chosen.sum())]))
        return rows


def thumbnails(images: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Grey thumbnails by Pillow's bilinear filter, which averages where it shrinks.

    Args:
        images: uint8 (N, H, W, C), C of 1 or 3.
        side: height and width of the thumbnails.

    Returns:
        uint8 (N, side, side).

    Raises:
        ValueError: images of another type or shape, or side below 1.
    """
    from PIL import Image

    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3) or side < 1:
        raise ValueError(
            f"images are {images.dtype} {images.shape}, side {side}: need uint8 (N, H, W, 1 or 3), side >= 1"
        )
    small = np.empty((len(images), side, side), np.uint8)
    for i, pixels in enumerate(images):
        grey = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("L")
        small[i] = np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR))
    return small


def find_duplicates(train: ImageSet, test: ImageSet, threshold: float = NEAR, side: int = SIDE) -> Duplicates:
    """Compare every test image with every training image.

    Args:
        train, test: images of one size. Thumbnails of images that were made smaller before differ a little from
            thumbnails of the originals: for a smaller version of a set, `leakage` gives the verdict on the full one.
        threshold: root mean square difference, of brightness 0..1, up to which an image is a near duplicate.
        side: of the thumbnails, in pixels.

    Raises:
        ValueError: an empty set, other classes or image sizes, or a threshold below 0.
    """
    _check(train, test)
    if threshold < 0:
        raise ValueError(f"threshold={threshold} must be at least 0")
    seen = set(map(_digest, train.images))
    exact = np.array([_digest(pixels) in seen for pixels in test.images])
    squares, nearest = _nearest(thumbnails(train.images, side), thumbnails(test.images, side))
    return Duplicates(test.labels, test.classes, exact, np.sqrt(squares) / (side * 255), nearest, threshold)


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()  # instead of a second copy of all images


def _nearest(known: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest sum of squared differences of each asked thumbnail to a known one, and the position of that one."""
    # float64 holds these whole numbers exactly, whatever the order of the sums: no verdict hangs on a rounding.
    known, asked = (images.reshape(len(images), -1).astype(np.float64) for images in (known, asked))
    lengths = (known**2).sum(1)
    squares, nearest = np.empty(len(asked)), np.empty(len(asked), np.int64)
    for start in range(0, len(asked), ROWS):
        rows = asked[start : start + ROWS]
        distances = (rows**2).sum(1)[:, None] - 2 * rows @ known.T + lengths
        nearest[start : start + ROWS] = distances.argmin(1)
        squares[start : start + ROWS] = distances.min(1)
    return squares, nearest


def nearest_neighbour(train: ImageSet, test: ImageSet, side: int = 16) -> np.ndarray:
    """Labels that the most similar training image has, by the difference of grey thumbnails: a classifier with no idea.

    Args:
        train, test: images of one size.
        side: of the thumbnails, in pixels.

    Returns:
        int64 (N,), predicted labels of the test images.

    Raises:
        ValueError: an empty set, other classes or image sizes.
    """
    from sklearn.neighbors import KNeighborsClassifier

    _check(train, test)
    flat = [thumbnails(data.images, side).reshape(len(data), -1).astype(np.float64) for data in (train, test)]
    model = KNeighborsClassifier(n_neighbors=1, algorithm="brute").fit(flat[0], train.labels)
    return model.predict(flat[1]).astype(np.int64)


def _check(train: ImageSet, test: ImageSet) -> None:
    if not len(train) or not len(test):
        raise ValueError(f"{len(train)} training and {len(test)} test images: need one of each at least")
    if train.classes != test.classes or train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"{train!r} and {test!r} have other classes or image sizes: give two splits of one set at one size"
        )


@lru_cache(maxsize=8)
def leakage(name: str) -> Duplicates:
    """Duplicates of the test split of a data set in its whole training split, found on its full-sized images.

    The smaller versions of a set ("brain_mri_64") have the same images in the same order, so they get the verdict on
    the full one ("brain_mri") whatever their own pixels say. A part of "train" leaks no more than the whole. Computed
    once in a process: some seconds for brain MRI.

    Args:
        name: one of `list_datasets()`.

    Raises:
        ValueError: unknown name.
        DataNotFound, DataBroken: as `load_dataset`.
    """
    full = full_name(name)
    return find_duplicates(load_dataset(full, "train"), load_dataset(full, "test"))


def full_name(name: str) -> str:
    """The set of which this one is a smaller version; itself where it is none."""
    return (REAL[name].full or name) if name in REAL else name
