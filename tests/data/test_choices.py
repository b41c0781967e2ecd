"""Hold-outs, subsets, positions: stratified, exact, the same everywhere and for ever."""

from __future__ import annotations

import numpy as np
import pytest

from efflib.data import ImageSet, holdout, subset
from efflib.data.counter import hash64, uniform


def test_hash_is_splitmix64():
    # First outputs of SplitMix64 with state 0 and 1234567 (reference implementation, prng.di.unimi.it).
    assert int(hash64(0)) == 0xE220A8397B1DCDAF
    assert int(hash64(1234567)) == 6457827717110365317


def test_hash_of_a_counter_depends_on_nothing_else():
    whole = hash64(5, np.arange(1000))
    assert np.array_equal(whole[700:710], hash64(5, np.arange(700, 710)))
    assert len(np.unique(whole)) == 1000
    assert not np.array_equal(whole, hash64(6, np.arange(1000)))
    assert int(hash64(-1, 3)) == int(hash64(2**64 - 1, 3))
    assert int(hash64(1, 2, 3)) != int(hash64(1, 3, 2))


def test_uniform_fills_the_unit_interval():
    values = uniform(0, np.arange(20000))
    counts = np.histogram(values, bins=10, range=(0, 1))[0]
    assert values.min() >= 0
    assert values.max() < 1
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [([10] * 10, 10), ([5000] * 10, 5000), ([3, 50, 7], 6), ([100, 2, 2], 50), ([7, 9, 11], 24)],
)
def test_holdout_is_stratified_exact_and_complete(sizes, count):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    kept, held = holdout(labels, count, seed=3)
    assert len(held) == count
    assert np.array_equal(np.sort(np.r_[kept, held]), np.arange(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    shares = np.bincount(labels[held], minlength=len(sizes))
    assert shares.min() >= 1
    assert (np.array(sizes) - shares).min() >= 1
    proportional = np.maximum(count * np.array(sizes) / sum(sizes), 1)
    assert np.abs(shares - proportional).max() < max(1, (proportional - count * np.array(sizes) / sum(sizes)).sum() + 1)


def test_equal_classes_get_equal_shares():
    labels = np.repeat(np.arange(100), 50)
    assert set(np.bincount(labels[holdout(labels, 500, 0)[1]])) == {5}
    assert set(np.bincount(labels[subset(labels, 1000, 0)])) == {10}


def test_choices_depend_on_the_seed_only():
    labels = np.tile(np.arange(4), 25)
    assert np.array_equal(subset(labels, 20, 1), subset(labels, 20, 1))
    assert not np.array_equal(subset(labels, 20, 1), subset(labels, 20, 2))
    assert np.array_equal(subset(labels, 100, 1), np.arange(100))
    # Frozen: these positions name the images of recorded trials.
    assert subset(np.tile(np.arange(2), 10), 4, 0).tolist() == [1, 4, 5, 18]
    assert holdout(np.tile(np.arange(2), 10), 4, 7)[1].tolist() == [12, 15, 16, 19]


@pytest.mark.parametrize("count", [0, 2, 10, 11, -1, 2.5, None])
def test_impossible_holdouts_name_the_range(count):
    with pytest.raises(ValueError, match=r"10 images of 3 classes .* 3\.\.7"):
        holdout([0, 0, 0, 1, 1, 1, 1, 2, 2, 2], count, 0)


@pytest.mark.parametrize("count", [0, 2, 11, -1])
def test_impossible_subsets_name_the_range(count):
    with pytest.raises(ValueError, match=r"cannot choose .* 3\.\.10"):
        subset([0, 0, 0, 1, 1, 1, 1, 2, 2, 2], count, 0)


def test_a_class_with_one_image_cannot_be_split():
    with pytest.raises(ValueError, match="the smallest has 1"):
        holdout([0, 0, 0, 1], 2, 0)
    with pytest.raises(ValueError, match="at least one label"):
        subset([], 1, 0)


def small() -> ImageSet:
    images = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
    numbers = np.arange(6, dtype=np.int64)
    masks, boxes = images[..., 0] > 9, np.zeros((6, 4), np.float32)
    return ImageSet("toy", "train", images, numbers % 2, ("a", "b"), numbers, "f", "embedded", masks, boxes)


def test_take_keeps_indices_masks_and_order():
    chosen = small().take([4, 1])
    assert chosen.indices.tolist() == [4, 1]
    assert chosen.labels.tolist() == [0, 1]
    assert np.array_equal(chosen.masks, small().masks[[4, 1]])
    assert chosen.boxes.shape == (2, 4)
    assert len(chosen) == 2
    assert len(small().take([])) == 0
    assert small().take(small().labels == 1).indices.tolist() == [1, 3, 5]
    assert "6x4x4x3" in repr(small())


@pytest.mark.parametrize("positions", [[6], [-1], [0.5], [[0]], [True, False], "ab"])
def test_take_refuses_what_is_no_position(positions):
    with pytest.raises(IndexError, match=r"0\.\.5"):
        small().take(positions)


def test_image_sets_check_their_shapes():
    good = small()
    with pytest.raises(ValueError, match="uint8"):
        ImageSet("toy", "train", good.images / 1.0, good.labels, ("a", "b"), good.indices, "f", "embedded")
    with pytest.raises(ValueError, match=r"labels have shape \(3,\)"):
        ImageSet("toy", "train", good.images, good.labels[:3], ("a", "b"), good.indices, "f", "embedded")
