"""Data that need no file: rendered objects, and the digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from efflib.data.imageset import ImageSet, fingerprint, holdout
from efflib.data.objects import render_objects

OBJECTS = {"train": (2000, 1), "validation": (500, 2), "test": (1000, 3)}  # split -> (images, seed)


def objects32(split: str) -> ImageSet:
    """Rendered objects of 32 px at default difficulty: 2,000 / 500 / 1,000 images, with masks and boxes."""
    count, seed = OBJECTS[split]
    return replace(render_objects(count, seed), name="objects32", split=split)


def digits(split: str) -> ImageSet:
    """scikit-learn's 8x8 digits (Alpaydin and Kaynak 1998): a fixed stratified 1,257 / 180 / 360 of 1,797."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.floor(bunch.images * (255 / 16) + 0.5).astype(np.uint8)[..., None]  # 0..16 -> 0..255
    labels = bunch.target.astype(np.int64)
    rest, test = holdout(labels, 360, seed=0)
    kept, held = holdout(labels[rest], 180, seed=0)
    chosen = {"train": rest[kept], "validation": rest[held], "test": test}[split]
    images, labels = images[chosen], labels[chosen]
    print_ = fingerprint(["scikit-learn digits", split], images, labels)
    indices = np.arange(len(labels), dtype=np.int64)
    return ImageSet("digits", split, images, labels, tuple("0123456789"), indices, print_, "embedded")


EMBEDDED: dict[str, Callable[[str], ImageSet]] = {"objects32": objects32, "digits": digits}
