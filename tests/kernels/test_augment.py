"""Augmentation against a per-image definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from efflib.kernels import augment
from efflib.kernels.augment import (
    _fused,
    affine_normalise,
    augment_ref,
    crop_flip_normalise,
    crop_flip_normalise_ref,
    draw,
    draw_affine,
    normalise,
)
from efflib.kernels.common import taking

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


def test_vertical_draws_turn_half_of_the_images_top_to_bottom():
    drawn = draw_affine(4_000, 0.0, 0.0, torch.Generator().manual_seed(1), vertical=True)
    images = smooth(height=8, width=6)[:1]
    found = affine_normalise(images.expand(4_000, -1, -1, -1), *drawn, (0,) * 3, (1,) * 3)
    plain = normalise(images, (0,) * 3, (1,) * 3)
    shares = []
    for dims in ((), (3,), (2,), (2, 3)):  # as it is, mirrored left-right, top-bottom, both
        same = (found - plain.flip(dims)).abs().amax((1, 2, 3)) < 1e-5
        shares.append(same.float().mean().item())
    assert sum(shares) == 1 and all(0.22 < share < 0.28 for share in shares)
    usual = draw_affine(4_000, 36, 0.2, torch.Generator().manual_seed(1))
    flipped = draw_affine(4_000, 36, 0.2, torch.Generator().manual_seed(1), vertical=True)
    down = flipped[0] > 90
    assert torch.equal(flipped[0], usual[0] + 180 * down) and torch.equal(flipped[1], usual[1])
    assert torch.equal(flipped[2], usual[2] ^ down)


def test_bad_input_of_affine():
    with pytest.raises(ValueError, match="uint8"):
        affine_normalise(batch().float(), *constant(6), MEAN, STD)
    with pytest.raises(ValueError, match="one value per channel"):
        affine_normalise(batch(), *constant(6), (0.5,), (0.5,))


# --- the Triton path of crop, flip and normalisation: the CPU's definition bit for bit --------------------


def same_bits(images, offsets, flips, mean, std, pad, operation=crop_flip_normalise):
    with taking("triton"):
        got = operation(images, offsets, flips, mean, std, pad)
    truth = crop_flip_normalise_ref(images.cpu(), offsets.cpu(), flips.cpu(), mean, std, pad)
    assert got.stride() == truth.stride() and got.dtype == truth.dtype
    assert torch.equal(got.cpu(), truth), "other bits than the definition"


def drawn(images, pad, seed=0):
    offsets, flips = draw(len(images), pad, True, torch.Generator().manual_seed(seed))
    return offsets.to(images.device), flips.to(images.device)


@pytest.mark.parametrize("shape", [(5, 7, 5, 3), (9, 32, 32, 3), (2, 1, 1, 1), (3, 1, 11, 4), (3, 13, 1, 2)])
@pytest.mark.parametrize("pad", [0, 2, 4])
def test_kernel_gives_the_same_bits(device, shape, pad):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    mean, std = (0.4914, 0.4822, 0.4465, 0.3)[: shape[3]], (0.2470, 0.2435, 0.2616, 0.2)[: shape[3]]
    same_bits(images, *drawn(images, pad), mean, std, pad)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.0, 0.1307, 1.0), (1.0, 0.3081, 0.003)),
    ],
)
def test_kernel_rounds_every_level_as_a_division_does(device, mean, std):
    levels = torch.arange(256, dtype=torch.uint8, device=device).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    same_bits(levels, *drawn(levels, 0), mean, std, 0)


def test_kernel_edges_of_offsets_and_flips(device):
    images = batch(8, 3, 5).to(device)
    corners = torch.tensor([[0, 0], [0, 14], [14, 0], [14, 14], [7, 7], [4, 9], [0, 7], [7, 14]], device=device)
    for flips in (torch.zeros(8, dtype=torch.bool), torch.ones(8, dtype=torch.bool), torch.arange(8) % 2 == 0):
        same_bits(images, corners, flips.to(device), MEAN, STD, 7)  # more padding than image: some are all black


def test_kernel_of_many_images(device, mutant):
    images = batch(69, 3, 2).to(device)
    grouped = mutant("augment", {"N >= 4096": "N >= 69"}).crop_flip_normalise  # as from 4,096 images on
    same_bits(images, *drawn(images, 1), MEAN, STD, 1, operation=grouped)


def test_kernel_on_views(device):
    images = batch(6, 9, 7).to(device)
    offsets, flips = drawn(images, 4)
    turned = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for view in (turned, images.transpose(1, 2), images[:, 1:6, 2:], images.flip(3)):
        same_bits(view, offsets, flips, MEAN, STD, 4)
    same_bits(images[::2], offsets[::2], flips[::2], MEAN, STD, 4)
    same_bits(images, offsets.T.contiguous().T.int(), flips, MEAN, STD, 4)


def test_both_paths_draw_the_same(device):
    images = batch().to(device)
    plain = augment_ref(images, MEAN, STD, generator=torch.Generator().manual_seed(5))
    with taking("triton"):
        assert (augment(images, MEAN, STD, generator=torch.Generator().manual_seed(5)) - plain).abs().max() < 1e-6
        with pytest.raises(ValueError, match="one value per channel"):
            augment(images, (0.5,), (0.5,))
        with pytest.raises(ValueError, match="uint8"):
            augment(images.float(), MEAN, STD)


def test_torch_compile_sees_it(one_graph, device):
    images = batch().to(device)
    one_graph(lambda x, o, f: crop_flip_normalise(x, o, f, MEAN, STD, 4), (images, *drawn(images, 4)))


def test_operator_is_registered_as_torch_wants(registered, device):
    images = batch().to(device)
    registered(_fused, (images, *drawn(images, 4), list(MEAN), list(STD), 4))


@pytest.mark.parametrize(
    "change",
    [
        {"W - 1 - j[None, :], j[None, :])": "W - j[None, :], j[None, :])"},
        {"tl.load(offsets + n * offsets_n, here, 0)": "tl.load(offsets + n * offsets_n + offsets_axis, here, 0)"},
        {"place // C % W": "place // C % H"},
        {"tl.cast(W, tl.uint32))": "tl.cast(W + 1, tl.uint32))"},
        {"& (row.to(tl.uint32) < tl.cast(H, tl.uint32))": "& (row < H)"},
        {"return tl.fma(tl.fma(-q, b, a), inverse, q)": "return q"},
        {"share - mean[None, :]": "share"},
    ],
)
def test_a_wrong_kernel_is_noticed(device, mutant, change):
    wrong = mutant("augment", change).crop_flip_normalise
    images = batch().to(device)
    # a frame of other bytes, so that a read outside the images stays inside their memory
    framed = torch.nn.functional.pad(images, (0, 0, 8, 8, 8, 8), value=7)[:, 8:-8, 8:-8]
    with pytest.raises(AssertionError, match="other bits"):
        same_bits(framed, *drawn(framed, 4), MEAN, STD, 4, operation=wrong)
