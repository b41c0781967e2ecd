"""Copies across splits: on images made for it, and on the real set where it is at hand."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from efflib.data import ImageSet, available, find_duplicates, leakage, load_dataset, nearest_neighbour
from efflib.data.duplicates import full_name, thumbnails

DATA = os.environ.get("EFFLIB_DATA", "")  # read before the fixture hides it
CACHE = os.environ.get("EFFLIB_CACHE")


def image_set(images, labels) -> ImageSet:
    images, labels = np.asarray(images, np.uint8), np.asarray(labels)
    return ImageSet("some", "train", images, labels, ("a", "b"), np.arange(len(labels)), "print", "none")


@pytest.fixture
def train():
    images = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 1))
    return image_set(images, np.arange(9) % 2)


def test_exact_and_near_duplicates_by_hand(train):
    flat = np.full((64, 64, 1), 100)
    train = replace(train, images=np.concatenate([train.images[:8], flat[None].astype(np.uint8)]))
    test = image_set([train.images[3], flat + 2, flat + 3, 255 - train.images[0]], [1, 0, 0, 1])
    found = find_duplicates(train, test)
    assert found.exact.tolist() == [True, False, False, False]
    assert found.nearest[:3].tolist() == [3, 8, 8]
    assert np.allclose(found.distance[:3], [0, 2 / 255, 3 / 255], atol=1e-12)  # the limit lies at 2.55 of 255
    assert found.near.tolist() == [True, True, False, False]
    assert found.leak_free.tolist() == [False, False, True, True]
    assert found.counts() == {
        "images": {"a": 2, "b": 2, "all": 4},
        "exact": {"a": 0, "b": 1, "all": 1},
        "near": {"a": 1, "b": 1, "all": 2},
        "leak_free": {"a": 1, "b": 1, "all": 2},
    }
    assert find_duplicates(train, test, threshold=3 / 255).near.tolist() == [True, True, True, False]


def test_distances_are_those_of_the_definition(train):
    rng = np.random.default_rng(1)
    test = image_set(rng.integers(0, 256, (300, 64, 64, 1)), np.zeros(300, int))  # more than are compared at once
    found = find_duplicates(train, test)
    small = [thumbnails(data.images) / 255 for data in (train, test)]
    truth = np.sqrt(((small[1][:, None] - small[0][None]) ** 2).mean((2, 3)))
    assert np.allclose(found.distance, truth.min(1), atol=1e-12)
    assert np.array_equal(found.nearest, truth.argmin(1))
    assert not found.exact.any()


def test_an_exact_duplicate_is_one_whatever_its_label(train):
    test = replace(train, labels=1 - train.labels)
    assert find_duplicates(train, test).exact.all()


def test_thumbnails_are_pillows():
    colour = np.random.default_rng(0).integers(0, 256, (3, 50, 40, 3), dtype=np.uint8)
    for image, small in zip(colour, thumbnails(colour, 16)):
        wanted = Image.fromarray(image).convert("L").resize((16, 16), Image.Resampling.BILINEAR)
        assert np.array_equal(small, np.asarray(wanted))


def test_the_nearest_neighbour_gives_its_label(train):
    noise = np.random.default_rng(2).integers(-20, 20, train.images.shape)
    test = image_set(np.clip(train.images.astype(int) + noise, 0, 255), train.labels)
    assert np.array_equal(nearest_neighbour(train, test.take([4, 0, 7])), train.labels[[4, 0, 7]])


def test_smaller_versions_get_the_verdict_on_the_full_images():
    assert full_name("brain_mri_64") == full_name("brain_mri") == "brain_mri"
    assert full_name("phantom") == "phantom" and full_name("cifar10") == "cifar10"


def test_the_phantom_has_no_duplicates():
    found = leakage("phantom")
    assert found.leak_free.all() and found.counts()["images"]["all"] == 400
    assert leakage("phantom") is found  # computed once


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.take([]), "0 test images"),
        (lambda d: replace(d, classes=("a", "c")), "other classes or image sizes"),
        (lambda d: replace(d, images=d.images[:, :32]), "other classes or image sizes"),
    ],
)
def test_splits_that_cannot_be_compared(change, message, train):
    for compare in (find_duplicates, nearest_neighbour):
        with pytest.raises(ValueError, match=message):
            compare(train, change(train))


def test_bad_settings(train):
    with pytest.raises(ValueError, match="at least 0"):
        find_duplicates(train, train, threshold=-1)
    with pytest.raises(ValueError, match="need uint8"):
        thumbnails(train.images, 0)
    with pytest.raises(ValueError, match="unknown data set"):
        leakage("brain")


# --- the real set: numbers of the spec, section 4.1 --------------------


@pytest.fixture
def real(places, monkeypatch):
    if not DATA:
        pytest.skip("EFFLIB_DATA is not set: no real data to look at")
    monkeypatch.setenv("EFFLIB_DATA", DATA)
    monkeypatch.delenv("EFFLIB_CACHE") if CACHE is None else monkeypatch.setenv("EFFLIB_CACHE", CACHE)
    leakage.cache_clear()
    if not available("brain_mri"):
        pytest.skip("brain_mri is not under EFFLIB_DATA")
    train, test = load_dataset("brain_mri", "train"), load_dataset("brain_mri", "test")
    if train.variant != "copy-224":
        pytest.skip("brain_mri is not the 224 px copy that the spec looked at")
    return train, test


def test_the_real_set(real):
    train, test = real
    assert np.bincount(train.labels).tolist() == [1321, 1339, 1591, 1457]
    assert np.bincount(test.labels).tolist() == [300, 306, 405, 300]
    assert train.images.shape[1:] == (224, 224, 1)
    counts, levels = sum(np.bincount(image.ravel(), minlength=256) for image in train.images), np.arange(256) / 255
    mean = np.average(levels, weights=counts)
    assert round(mean, 4) == 0.1855 and round(np.average((levels - mean) ** 2, weights=counts) ** 0.5, 4) == 0.2034
    small = load_dataset("brain_mri_64", "test")
    assert small.images.shape == (1311, 64, 64, 1) and np.array_equal(small.labels, test.labels)


def test_leakage_of_the_real_set(real):
    """Pixels tell what the bytes of the files told: 216 copies."""
    counts = leakage("brain_mri_64").counts()
    assert list(counts["exact"].values()) == [0, 106, 105, 5, 216]
    assert list(counts["near"].values()) == [0, 109, 353, 5, 467]
    assert list(counts["leak_free"].values()) == [300, 197, 52, 295, 844]


def test_thumbnails_beat_most_students_of_the_thesis(real):
    train, test = real
    free = leakage("brain_mri").leak_free
    for side, recalls in ((16, None), (32, [95.7, 94.8, 99.8, 100])):
        right = nearest_neighbour(train, test, side) == test.labels
        assert right.sum() == 1281 and round(100 * right.mean(), 2) == 97.71
        assert right[free].sum() == 814 and round(100 * right[free].mean(), 2) == 96.45
        if recalls:
            assert np.allclose([100 * right[test.labels == k].mean() for k in range(4)], recalls, atol=0.05)
