"""Data that need no file: rendered objects, a brain-MRI phantom, and the digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from efflib.data.imageset import ImageSet, fingerprint, holdout
from efflib.data.objects import render_objects
from efflib.data.phantom import render_phantom

# split -> (images of 32 px, images of 64 px, seed)
OBJECTS = {"train": (2000, 1200, 1), "validation": (500, 300, 2), "test": (1000, 600, 3)}
PHANTOM = {"train": (800, 1), "validation": (200, 2), "test": (400, 3)}  # split -> (slices, seed)


def objects32(split: str) -> ImageSet:
    """Rendered objects of 32 px at default difficulty: 2,000 / 500 / 1,000 images, with masks and boxes."""
    count, _, seed = OBJECTS[split]
    return _rendered(split, count, seed, 32)


def objects64(split: str) -> ImageSet:
    """The first scenes of `objects32` drawn at 64 px: 1,200 / 300 / 600 images, with masks and boxes."""
    _, count, seed = OBJECTS[split]
    return _rendered(split, count, seed, 64)


def _rendered(split: str, count: int, seed: int, size: int) -> ImageSet:
    kept = replace(_render_once(count, seed, size), split=split)
    return kept.take(np.arange(count))  # copies: who changes the arrays changes no one else's


@lru_cache(maxsize=6)
def _render_once(count: int, seed: int, size: int) -> ImageSet:
    # Every trial asks for its data several times; all splits of both sizes take 49 MB.
    return render_objects(count, seed, size)


def phantom(split: str) -> ImageSet:
    """The brain-MRI phantom at 64 px: 800 / 200 / 400 slices of four classes, with tumour masks and boxes."""
    kept = replace(_phantom_once(*PHANTOM[split]), split=split)
    return kept.take(np.arange(len(kept)))


@lru_cache(maxsize=3)
def _phantom_once(count: int, seed: int) -> ImageSet:
    return render_phantom(count, seed)  # seconds; all splits take 11 MB


def digits(split: str) -> ImageSet:
    """scikit-learn's 8x8 digits (Alpaydin and Kaynak 1998): a fixed stratified 1,257 / 180 / 360 of 1,797."""
    inks, labels = _digits(split)
    images = np.floor(inks * (255 / 16) + 0.5).astype(np.uint8)[..., None]  # 0..16 -> 0..255
    return _digit_set("digits", "scikit-learn digits", split, images, labels)


def digits28(split: str) -> ImageSet:
    """The same digits and splits at MNIST's size: enlarged bilinearly to 24x24, with a black border of 2 pixels."""
    inks, labels = _digits(split)
    images = np.pad(_enlarged(inks.astype(np.int64)), ((0, 0), (2, 2), (2, 2)))[..., None]
    return _digit_set("digits28", "scikit-learn digits, 24 of 28 px", split, images, labels)


def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Ink from 0 to 16, float64 (N, 8, 8), and labels, int64 (N,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    rest, test = holdout(labels, 360, seed=0)
    kept, held = holdout(labels[rest], 180, seed=0)
    chosen = {"train": rest[kept], "validation": rest[held], "test": test}[split]
    return bunch.images[chosen], labels[chosen]


def _enlarged(inks: np.ndarray) -> np.ndarray:
    """Bilinear, three times as large, pixel centres aligned: int64 (N, 8, 8), 0..16, -> uint8 (N, 24, 24), 0..255.

    All in whole numbers: no rounding differs between machines. Along one axis, the three pixels of x[i] are thirds:
    (x[i-1] + 2 x[i], 3 x[i], 2 x[i] + x[i+1]) / 3, with the border repeated.
    """
    for axis in (1, 2):
        size = inks.shape[axis]
        before, after = (inks.take(np.clip(np.arange(size) + step, 0, size - 1), axis) for step in (-1, 1))
        thirds = np.stack([before + 2 * inks, 3 * inks, 2 * inks + after], axis + 1)
        shape = list(inks.shape)
        shape[axis] = 3 * size
        inks = thirds.reshape(shape)
    return ((2 * 255 * inks + 144) // 288).astype(np.uint8)  # 16 x 9 = 144 is full ink; rounded half up


def _digit_set(name: str, source: str, split: str, images: np.ndarray, labels: np.ndarray) -> ImageSet:
    print_ = fingerprint([source, split], images, labels)
    indices = np.arange(len(labels), dtype=np.int64)
    return ImageSet(name, split, images, labels, tuple("0123456789"), indices, print_, "embedded")


EMBEDDED: dict[str, Callable[[str], ImageSet]] = {
    "objects32": objects32,
    "objects64": objects64,
    "digits": digits,
    "digits28": digits28,
    "phantom": phantom,
}
