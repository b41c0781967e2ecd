"""The real sets, where EFFLIB_DATA has them: counts, classes, order."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from efflib.data import NORMALISATION, available, load_dataset, sets

DATA = os.environ.get("EFFLIB_DATA", "")  # read before the fixture below hides it
CACHE = os.environ.get("EFFLIB_CACHE")
needs_data = pytest.mark.skipif(not DATA, reason="EFFLIB_DATA is not set: no real data to look at")


@pytest.fixture
def real(places, monkeypatch):
    """The environment as it was outside, so that the decoded arrays are kept between runs."""
    monkeypatch.setenv("EFFLIB_DATA", DATA)
    monkeypatch.delenv("EFFLIB_CACHE") if CACHE is None else monkeypatch.setenv("EFFLIB_CACHE", CACHE)


@needs_data
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_counts_classes_and_statistics(name, real):
    if not available(name):
        pytest.skip(f"{name} is not under EFFLIB_DATA")
    train, test = load_dataset(name, "train"), load_dataset(name, "test")
    assert (len(train), len(test)) == ((60000 if name == "mnist" else 50000), 10000)
    assert train.classes == test.classes == sets.REAL[name].classes
    if name != "mnist":
        assert set(np.bincount(train.labels)) == {50000 // len(train.classes)}
        assert set(np.bincount(test.labels)) == {10000 // len(train.classes)}
        assert (np.diff(train.labels) >= 0).all()
    mean, std = NORMALISATION[name]
    assert np.allclose(train.images.mean((0, 1, 2)) / 255, mean, atol=0.001)
    deviation = np.sqrt((train.images[::7] / 255.0).var((0, 1, 2)))
    assert np.allclose(deviation, std, atol=0.004)
    assert train.variant in ("official", "jpeg-q7", "image-folder")
    assert len(load_dataset(name, "validation")) == len(train) // 10


@needs_data
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_indices_are_ranks_by_label_and_name(name, real):
    from efflib.data.archives import decode_image

    archive = Path(DATA) / f"{name}-test.tar.gz"
    if not archive.is_file():
        pytest.skip(f"{archive.name} is not under EFFLIB_DATA")
    test = load_dataset(name, "test")
    with tarfile.open(archive) as tar:
        members = {m.name: m for m in tar.getmembers() if m.isfile()}
        ranked = sorted(members, key=lambda n: (n.split("/")[-2], n.split("/")[-1].rsplit(".", 1)[0]))
        assert len(ranked) == 10000
        for rank in (0, 1, 4999, 9999):
            pixels = decode_image(tar.extractfile(members[ranked[rank]]).read(), (32, 32, 3), ranked[rank])
            assert np.array_equal(test.images[rank], pixels)
            assert test.classes[test.labels[rank]] == ranked[rank].split("/")[-2]
            assert test.indices[rank] == rank


@needs_data
def test_tiny_imagenet(real):
    if not available("tiny_imagenet"):
        pytest.skip("tiny_imagenet is not under EFFLIB_DATA")
    train, test = load_dataset("tiny_imagenet", "train"), load_dataset("tiny_imagenet", "test")
    assert train.classes == test.classes == sets.TINY_IMAGENET_CLASSES
    assert set(np.bincount(train.labels)) == {500} and set(np.bincount(test.labels)) == {50}
    assert train.images.shape == (100_000, 64, 64, 3) and test.images.shape == (10_000, 64, 64, 3)
    assert np.allclose(train.images[::7].mean((0, 1, 2)) / 255, NORMALISATION["tiny_imagenet"][0], atol=0.004)
    for boxes in (train.boxes, test.boxes):
        assert boxes is None or (boxes.min() >= 0 and boxes.max() <= 64 and (boxes[:, 2:] > boxes[:, :2]).all())


def test_class_lists_are_sorted_and_complete():
    assert len(sets.CIFAR10_CLASSES) == 10
    assert len(set(sets.CIFAR100_CLASSES)) == 100
    assert list(sets.CIFAR10_CLASSES) == sorted(sets.CIFAR10_CLASSES)
    assert list(sets.CIFAR100_CLASSES) == sorted(sets.CIFAR100_CLASSES)
    assert [sets.CIFAR100_CLASSES.index(name) for name in ("cattle", "maple_tree", "worm")] == [19, 47, 99]
