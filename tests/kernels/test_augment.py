"""Augmentation against a per-image definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from efflib.kernels import augment
from efflib.kernels.augment import crop_flip_normalise, draw, normalise

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def batch(n=6, height=9, width=7):
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def by_hand(image, offset, flipped, pad):
    """One image, numpy, float64."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    cut = padded[offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    cut = cut[:, ::-1] if flipped else cut
    return ((cut / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)


def test_matches_the_definition_image_by_image():
    images = batch()
    offsets, flips = draw(len(images), 4, True, torch.Generator().manual_seed(3))
    assert flips.any() and not flips.all()
    got = crop_flip_normalise(images, offsets, flips, MEAN, STD, 4)
    for n in range(len(images)):
        truth = by_hand(images[n].numpy(), offsets[n].tolist(), bool(flips[n]), 4)
        assert np.abs(got[n].double().numpy() - truth).max() < 1e-6
    assert got.is_contiguous(memory_format=torch.channels_last) and got.dtype == torch.float32


def test_augment_draws_what_draw_draws():
    images = batch()
    offsets, flips = draw(6, 2, True, torch.Generator().manual_seed(9))
    one = augment(images, MEAN, STD, pad=2, generator=torch.Generator().manual_seed(9))
    assert torch.equal(one, crop_flip_normalise(images, offsets, flips, MEAN, STD, 2))


def test_nothing_to_do_is_plain_normalisation():
    images = batch()
    assert torch.equal(augment(images, MEAN, STD, pad=0, flip=False), normalise(images, MEAN, STD))


def test_offsets_and_flips_are_uniform():
    offsets, flips = draw(9_000, 4, True, torch.Generator().manual_seed(1))
    counts = torch.bincount(offsets.flatten(), minlength=9)
    assert len(counts) == 9 and counts.min() > 1_800 and counts.max() < 2_200
    assert abs(flips.float().mean() - 0.5) < 0.02
    assert (
        torch.corrcoef(torch.stack([offsets[:, 0].float(), offsets[:, 1].float(), flips.float()])).triu(1).abs().max()
        < 0.04
    )


def test_bad_input():
    with pytest.raises(ValueError, match="uint8"):
        augment(batch().float(), MEAN, STD)
    with pytest.raises(ValueError, match="one value per channel"):
        augment(batch(), (0.5,), (0.5,))
