"""digits28: the digits and splits of `digits` at MNIST's size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from efflib.data import NORMALISATION, load_dataset, where
from efflib.data.embedded import _enlarged

SPLITS = {"train": 1257, "validation": 180, "test": 360}


@pytest.fixture(scope="module", params=list(SPLITS))
def pair(request):
    return load_dataset("digits", request.param), load_dataset("digits28", request.param)


def test_the_same_digits_in_the_same_splits(pair):
    small, large = pair
    assert large.images.shape == (SPLITS[large.split], 28, 28, 1)
    assert np.array_equal(small.labels, large.labels) and np.array_equal(small.indices, large.indices)
    # The middle one of three pixels is the small image's own.
    assert np.array_equal(large.images[:, 3:27:3, 3:27:3], small.images)
    assert (large.name, large.variant, large.classes) == ("digits28", "embedded", small.classes)
    assert large.fingerprint != small.fingerprint and where("digits28") == "embedded"


def test_enlarged_bilinearly_within_a_black_border(pair):
    large = pair[1].images[..., 0]
    border = np.ones((28, 28), dtype=bool)
    border[2:26, 2:26] = False
    assert not large[:, border].any() and large.max() == 255
    inks = load_digits().images
    wanted = 255 / 16 * F.interpolate(torch.from_numpy(inks)[:, None], scale_factor=3, mode="bilinear")[:, 0]
    assert np.abs(_enlarged(inks.astype(np.int64)) - wanted.numpy()).max() <= 0.5 + 1e-9


def test_normalisation_is_that_of_the_training_split():
    images, (mean, std) = load_dataset("digits28", "train").images / 255, NORMALISATION["digits28"]
    assert (round(images.mean(), 4), round(images.std(), 4)) == (mean[0], std[0])


def test_records_on_digits_keep_their_fingerprint():
    """It is part of the key of every trial on them."""
    start = {split: load_dataset("digits", split).fingerprint[:12] for split in SPLITS}
    assert start == {"train": "f2db2ffdb517", "validation": "14a6ca42e502", "test": "a97155e9dd4c"}
