"""Augmentation against a per-image definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from efflib.kernels import augment
from efflib.kernels.augment import affine_normalise, crop_flip_normalise, draw, draw_affine, normalise

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


# --- flip, turn and zoom --------------------


def constant(count, angle=0.0, zoom=1.0, flip=False):
    return torch.full((count,), angle), torch.full((count,), zoom), torch.full((count,), flip)


def smooth(n=4, height=12, width=12, channels=3):
    """Images without sharp edges: interpolation has little to lose."""
    coarse = torch.rand(n, channels, 4, 4, generator=torch.Generator().manual_seed(2))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def test_no_turn_and_no_zoom_is_plain_normalisation():
    images = batch()
    got = affine_normalise(images, *constant(6), MEAN, STD)
    assert (got - normalise(images, MEAN, STD)).abs().max() < 1e-4
    assert got.is_contiguous(memory_format=torch.channels_last) and got.dtype == torch.float32


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_quarter_turns_are_rot90_of_the_mirrored_image(quarters, flip):
    images = batch(3, 8, 8)
    got = affine_normalise(images, *constant(3, 90.0 * quarters, 1.0, flip), MEAN, STD)
    plain = normalise(images, MEAN, STD)
    truth = torch.rot90(plain.flip(3) if flip else plain, quarters, (2, 3))
    assert (got - truth).abs().max() < 1e-3


def test_half_a_turn_of_an_oblong_image():
    images = batch(2, 9, 5)
    got = affine_normalise(images, *constant(2, 180.0), MEAN, STD)
    assert (got - normalise(images, MEAN, STD).flip((2, 3))).abs().max() < 1e-3


def affine_by_hand(image, angle, zoom, flipped, i, j):
    """One pixel, one image (H, W, C), float64: walk back to the image and read it bilinearly, black outside."""
    height, width = image.shape[:2]
    y, x = i - (height - 1) / 2, j - (width - 1) / 2
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    across, down = (
        (cos * x - sin * y) / zoom,
        (sin * x + cos * y) / zoom,
    )  # clockwise: back from a counter-clockwise turn
    row, column = down + (height - 1) / 2, (-across if flipped else across) + (width - 1) / 2
    total = np.zeros(3)
    for r in (int(np.floor(row)), int(np.floor(row)) + 1):
        for c in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= r < height and 0 <= c < width:
                total += (1 - abs(row - r)) * (1 - abs(column - c)) * image[r, c]
    return (total / 255 - np.array(MEAN)) / np.array(STD)


def test_affine_matches_the_definition_pixel_by_pixel():
    images = batch(4, 9, 7)
    angles, zooms = torch.tensor([12.0, -15.0, 3.0, 40.0]), torch.tensor([0.9, 1.1, 1.03, 1.0])
    flips = torch.tensor([False, True, True, False])
    got = affine_normalise(images, angles, zooms, flips, MEAN, STD).permute(0, 2, 3, 1).double().numpy()
    for n in range(4):
        turn = float(angles[n]), float(zooms[n]), bool(flips[n])
        truth = [[affine_by_hand(images[n].double().numpy(), *turn, i, j) for j in range(7)] for i in range(9)]
        assert np.abs(got[n] - np.array(truth)).max() < 1e-3


def test_a_zoom_above_one_enlarges_and_one_below_fills_with_black():
    images = torch.full((1, 20, 20, 3), 255, dtype=torch.uint8)
    images[:, 8:12, 8:12] = 0
    dark = [(affine_normalise(images, *constant(1, 0.0, zoom), (0,) * 3, (1,) * 3) < 0.5).sum() for zoom in (1.0, 1.5)]
    assert dark[1] > 1.8 * dark[0]
    small = affine_normalise(images, *constant(1, 0.0, 0.5), (0.5,) * 3, (0.5,) * 3)[0, 0]
    assert small[:4].eq(-1).all() and small[:, :4].eq(-1).all() and small[6, 6] == 1  # black is -1 here
    corners = affine_normalise(images, *constant(1, 45.0), (0,) * 3, (1,) * 3)[0, 0]
    assert corners[0, 0] == corners[-1, 0] == 0 and corners[0, 10] > 0.99


def test_turning_there_and_back_changes_little():
    images = smooth(height=32, width=32)
    there = affine_normalise(images, *constant(4, 10.0), (0,) * 3, (1,) * 3)
    back = affine_normalise(
        (there * 255).round().to(torch.uint8).permute(0, 2, 3, 1), *constant(4, -10.0), (0,) * 3, (1,) * 3
    )
    assert (back - normalise(images, (0,) * 3, (1,) * 3))[:, :, 8:-8, 8:-8].abs().max() < 0.03


def test_ranges_and_shares_of_the_affine_draws():
    angles, zooms, flips = draw_affine(9_000, generator=torch.Generator().manual_seed(1))
    for values, low, high in ((angles, -15, 15), (zooms, 0.9, 1.1)):
        assert low <= values.min() and values.max() <= high
        shares = torch.histc(values, 10, low, high)
        assert shares.min() > 780 and shares.max() < 1_020
    assert abs(flips.float().mean() - 0.5) < 0.02
    assert torch.corrcoef(torch.stack([angles, zooms, flips.float()])).triu(1).abs().max() < 0.04
    again = draw_affine(9_000, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip((angles, zooms, flips), again))
    wide, large, _ = draw_affine(2_000, 36, 0.2, torch.Generator().manual_seed(1))
    assert wide.abs().max() > 35 and large.max() > 1.19


def test_bad_input_of_affine():
    with pytest.raises(ValueError, match="uint8"):
        affine_normalise(batch().float(), *constant(6), MEAN, STD)
    with pytest.raises(ValueError, match="one value per channel"):
        affine_normalise(batch(), *constant(6), (0.5,), (0.5,))
