"""Random crop and flip, or flip, turn and zoom, of a uint8 batch, and its normalisation, on the images' device.

out[n, c, i, j] = (black_pad(images)[n, oy_n + i, ox_n + j', c] / 255 - mean_c) / std_c
j' = W - 1 - j where image n is flipped, else j;  oy, ox uniform on 0..2 pad;  flip with probability 1/2

affine:  out[n, c, p] = (bilinear(images)[n, m + F_n R(a_n) (p - m) / z_n, c] / 255 - mean_c) / std_c
p a pixel, m the middle of the image, F = diag(-1, 1) where image n is flipped, else 1; black outside the image
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton


def augment(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    pad: int = 4,
    flip: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Crop with black padding, flip and normalise a batch, each image with its own random offsets.

    Args:
        images: (N, H, W, C) uint8.
        mean: C channel means of the images scaled to 0..1.
        std: C channel standard deviations.
        pad: black pixels added on each side before the crop; 0 crops nothing.
        flip: whether each image is mirrored left-right with probability 1/2.
        generator: source of the offsets; the device's default generator when None.

    Returns:
        (N, C, H, W) float32, in channels-last memory order.

    Raises:
        ValueError: wrong dtype or shape, or a mean or std of another length than C.
    """
    offsets, flips = draw(len(images), pad, flip, generator, images.device)
    return crop_flip_normalise(images, offsets, flips, mean, std, pad)


def augment_ref(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    pad: int = 4,
    flip: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Definition of `augment`."""
    offsets, flips = draw(len(images), pad, flip, generator, images.device)
    return crop_flip_normalise_ref(images, offsets, flips, mean, std, pad)


def draw(
    count: int,
    pad: int,
    flip: bool,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Random (count, 2) crop offsets in 0..2 pad and (count,) flips, drawn where the generator lives."""
    source = generator.device if generator is not None else device
    offsets = torch.randint(0, 2 * pad + 1, (count, 2), generator=generator, device=source)
    flips = torch.rand(count, generator=generator, device=source) < (0.5 if flip else 0.0)
    return offsets.to(device), flips.to(device)


def crop_flip_normalise(
    images: Tensor, offsets: Tensor, flips: Tensor, mean: Sequence[float], std: Sequence[float], pad: int
) -> Tensor:
    """The deterministic part of `augment`: given (N, 2) offsets (row, column) in 0..2 pad and (N,) flips."""
    if takes_triton(images, offsets, flips):
        _check(images, mean, std)
        if offsets.shape == (len(images), 2) and flips.shape == offsets.shape[:1]:
            return _fused(images, offsets, flips, mean, std, pad)
    return crop_flip_normalise_ref(images, offsets, flips, mean, std, pad)


def crop_flip_normalise_ref(
    images: Tensor, offsets: Tensor, flips: Tensor, mean: Sequence[float], std: Sequence[float], pad: int
) -> Tensor:
    """Definition of `crop_flip_normalise`."""
    _check(images, mean, std)
    N, H, W, _ = images.shape
    padded = F.pad(images, (0, 0, pad, pad, pad, pad))
    column = torch.arange(W, device=images.device).expand(N, W)
    column = torch.where(flips[:, None], W - 1 - column, column) + offsets[:, 1:]
    row = torch.arange(H, device=images.device) + offsets[:, :1]
    image = torch.arange(N, device=images.device)[:, None, None]
    return normalise(padded[image, row[:, :, None], column[:, None, :]], mean, std)


def draw_affine(
    count: int,
    degrees: float = 15.0,
    zoom: float = 0.1,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    vertical: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Random (count,) angles in +-degrees, zooms in 1 +- zoom and flips (p = 1/2), drawn where the generator lives.

    With `vertical`, half of the images are also mirrored top to bottom, which is a left-right flip and half a turn: 180
    is added to their angles.

    The default ranges are decision D13 of the DisWOT spec; the thesis names the three changes without ranges.
    """
    source = generator.device if generator is not None else device
    angles, zooms, across = torch.rand(3, count, generator=generator, device=source)
    angles, zooms, flips = degrees * (2 * angles - 1), 1 + zoom * (2 * zooms - 1), across < 0.5
    if vertical:
        down = torch.rand(count, generator=generator, device=source) < 0.5
        angles, flips = angles + 180 * down, flips ^ down
    return angles.to(device), zooms.to(device), flips.to(device)


def affine_normalise(
    images: Tensor, angles: Tensor, zooms: Tensor, flips: Tensor, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Flip, turn and zoom a batch about the middle of its images in one bilinear interpolation, then normalise.

    Args:
        images: (N, H, W, C) uint8.
        angles: (N,) degrees, counter-clockwise.
        zooms: (N,) magnification, above 1 enlarges.
        flips: (N,) bool: mirrored left-right first.
        mean, std: C constants of the images scaled to 0..1.

    Returns:
        (N, C, H, W) float32, in channels-last memory order; what lies outside the image is black before normalisation.

    Raises:
        ValueError: as in `augment`.
    """
    _check(images, mean, std)
    N, H, W, C = images.shape
    radians = torch.deg2rad(angles)
    cos, sin, mirror, zero = (
        radians.cos() / zooms,
        radians.sin() / zooms,
        1 - 2 * flips.float(),
        torch.zeros_like(zooms),
    )
    # From a place in the result to one in the image, both with -1..1 from edge to edge: hence the sides' ratio.
    rows = [mirror * cos, -mirror * sin * (H / W), zero, sin * (W / H), cos, zero]
    grid = F.affine_grid(torch.stack(rows, 1).view(N, 2, 3), [N, C, H, W], align_corners=False)
    values = images.permute(0, 3, 1, 2).to(torch.float32)
    values = F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _scaled(values.permute(0, 2, 3, 1).contiguous(), mean, std)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32, (x / 255 - mean) / std, in channels-last memory order."""
    _check(images, mean, std)
    return _scaled(images.to(torch.float32), mean, std)


def _scaled(values: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(N, H, W, C) float32 of 0..255, overwritten -> (N, C, H, W)."""
    values.div_(255)
    values.sub_(_constant(tuple(mean), values.device)).div_(_constant(tuple(std), values.device))
    return values.permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept on the device: making it anew would copy from the host, and wait for the GPU, at every step."""
    return torch.tensor(values, device=device)


def _check(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 of shape (N, H, W, C), got {images.dtype} {tuple(images.shape)}")
    if not len(mean) == len(std) == images.shape[3]:
        raise ValueError(
            f"mean has {len(mean)} and std {len(std)} entries, but images {tuple(images.shape)} "
            f"have {images.shape[3]} channels: give one value per channel"
        )


# The Triton path of crop_flip_normalise (the affine variant has none: its gather of four neighbours is its own work).
# A program writes BLOCK consecutive elements of GROUPS x IMAGES images, in memory order; what depends on the place in
# the image alone (row, column, channel, mean, std) is computed once for all of its images. No padded copy is made: a
# place outside the image is black. The two quotients are rounded correctly as the definition's are on a CPU (on CUDA
# torch multiplies by 1 / 255, one unit in the last place off), each by a reciprocal and two fused multiply-adds, for a
# division costs ten instructions and this is a kernel of few.


@jit
def _quotient(a, b, inverse):  # a / b, given inverse = 1 / b, correctly rounded: q + (a - q b) / b, the rest exact
    q = a * inverse
    return tl.fma(tl.fma(-q, b, a), inverse, q)


@jit
def _crop_flip_normalise_kernel(
    images,  # *(N, H, W, C) uint8, any strides
    offsets,  # *(N, 2) integers
    flips,  # *(N,) bool
    means,  # *(C,) float32
    stds,  # *(C,) float32
    out,  # *(N, H, W, C) float32, contiguous, written
    images_n,
    images_h,
    images_w,
    images_c,
    offsets_n,
    offsets_axis,
    flips_n,
    N,
    H,
    W,
    C,
    size,  # H W C
    pad,
    GROUPS: tl.constexpr,
    IMAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # in the image
    i, j, c = place // (W * C), place // C % W, place % C
    mean = tl.load(means + c)
    std = tl.load(stds + c)
    inverse = tl.div_rn(tl.full((BLOCK,), 1.0, tl.float32), std)
    start = i * images_h + c * images_c
    for group in range(0, GROUPS):
        n = (tl.program_id(0).to(tl.int64) * GROUPS + group) * IMAGES + tl.arange(0, IMAGES)
        here = n < N
        down = tl.load(offsets + n * offsets_n, here, 0).to(tl.int32) - pad
        right = tl.load(offsets + n * offsets_n + offsets_axis, here, 0).to(tl.int32) - pad
        flipped = tl.load(flips + n * flips_n, here, 0).to(tl.int32) != 0
        row = i[None, :] + down[:, None]  # (IMAGES, BLOCK)
        column = tl.where(flipped[:, None], W - 1 - j[None, :], j[None, :]) + right[:, None]
        both = here[:, None] & (place < size)[None, :]
        # as unsigned numbers the negative ones are large: one comparison instead of two
        lit = both & (row.to(tl.uint32) < tl.cast(H, tl.uint32)) & (column.to(tl.uint32) < tl.cast(W, tl.uint32))
        step = start[None, :] + (down * images_h)[:, None] + column * images_w
        colour = tl.load((images + n * images_n)[:, None] + step, lit, 0).to(tl.float32)
        share = _quotient(colour, 255.0, 0.003921568859368563)  # float32 of 1 / 255
        value = _quotient(share - mean[None, :], std[None, :], inverse[None, :])
        tl.store((out + n * size)[:, None] + place[None, :], value, both)


@torch.library.custom_op("efflib::crop_flip_normalise", mutates_args=())
def _fused(
    images: Tensor, offsets: Tensor, flips: Tensor, mean: Sequence[float], std: Sequence[float], pad: int
) -> Tensor:
    """(N, C, H, W) float32 in channels-last memory order by the Triton kernel."""
    N, H, W, C = images.shape
    if sum((length - 1) * step for length, step in zip((H, W, C), images.stride()[1:])) >= 2**31:
        images = images.contiguous()  # offsets within an image have 32 bits
    out = images.new_empty(N, H, W, C, dtype=torch.float32)
    constants = (_constant(tuple(values), images.device) for values in (mean, std))
    strides = (*images.stride(), *offsets.stride(), flips.stride(0))
    block = min(max(power_of_two_above(H * W * C), 64), 512)
    groups = 8 if N >= 4096 else 1  # a training batch alone must fill the GPU
    _crop_flip_normalise_kernel[(triton.cdiv(N, 4 * groups), triton.cdiv(H * W * C, block))](
        images, offsets, flips, *constants, out, *strides, N, H, W, C, H * W * C, pad,
        GROUPS=groups, IMAGES=4, BLOCK=block,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


@_fused.register_fake
def _(images: Tensor, offsets: Tensor, flips: Tensor, mean: Sequence[float], std: Sequence[float], pad: int) -> Tensor:
    return images.new_empty(images.shape, dtype=torch.float32).permute(0, 3, 1, 2)
