"""Black out the least salient pixels of each image: exactly K of them, ties broken by a seeded hash.

    K = floor(ratio H W + 1/2);  pixels are ordered by (saliency, hash(seed, index, pixel), pixel); the first K become 0

The hash depends on the image's own index, never on its place in the batch or on raster order: cutting a data set
into other batches, or shuffling it, gives the same masks (BIMask, section 2.1 of the spec, step 2 and pitfall
"raster-order tie-breaking removes the top-left corner").

Gradient: that of the kept pixels passes to the images, none to the saliency.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl

Word = TypeVar("Word", Tensor, int)
LARGEST = 128 * 128  # pixels of which one program of the Triton path can hold the ranks in registers


def removed_count(ratio: float, height: int, width: int) -> int:
    """K = floor(ratio H W + 1/2), the number of pixels removed from an image of height x width.

    Raises:
        ValueError: a ratio outside 0..1.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is the removed fraction of the pixels and must lie in 0..1, got {ratio}")
    return int(ratio * height * width + 0.5)


def mask_least_salient(
    images: Tensor, saliency: Tensor, ratio: float, seed: int, indices: Tensor | None = None
) -> Tensor:
    """Copy of the images with the K least salient pixels set to 0 in every channel.

    Args:
        images: (N, C, H, W), any dtype; pass ones to get the mask alone.
        saliency: (N, H, W) floating point, larger is more important; only its order matters.
        ratio: fraction of pixels to remove, 0..1; K = floor(ratio H W + 1/2).
        seed: seed of the tie-break.
        indices: (N,) int64 index of each image in its data set; 0..N-1 when None.

    Returns:
        (N, C, H, W), dtype and device of images.

    Raises:
        ValueError: shapes that do not meet, a ratio outside 0..1, or a saliency that is not finite.

    Source: BIMask, Eq. 2 and section 3.2; exact count and ties are decisions A6 and A7 of the spec.
    """
    if takes_triton(images, saliency) and not images.is_complex():
        _, _, H, W = _check_shapes(images, saliency, indices)
        if H * W <= LARGEST:
            if indices is not None:
                indices = indices.to(images.device, torch.int64)
            return _fused(images, saliency.detach(), indices, removed_count(ratio, H, W), _start(seed))
    return mask_least_salient_ref(images, saliency, ratio, seed, indices)


def mask_least_salient_ref(
    images: Tensor, saliency: Tensor, ratio: float, seed: int, indices: Tensor | None = None
) -> Tensor:
    """Definition of `mask_least_salient` by two stable sorts."""
    N, _, H, W = _check(images, saliency, indices)
    K = removed_count(ratio, H, W)
    if indices is None:
        indices = torch.arange(N, device=images.device)
    by_hash = tie_hash(seed, indices.to(images.device), H * W).argsort(dim=1, stable=True)
    ranked = saliency.reshape(N, H * W).gather(1, by_hash).argsort(dim=1, stable=True)
    removed = by_hash.gather(1, ranked[:, :K])
    keep = torch.ones(N, H * W, dtype=torch.bool, device=images.device).scatter_(1, removed, False)
    return torch.where(keep.view(N, 1, H, W), images, torch.zeros((), dtype=images.dtype, device=images.device))


def tie_hash(seed: int, indices: Tensor, pixels: int) -> Tensor:
    """(N, pixels) int64 in 0..2^32-1: a counter-based hash of (seed, image index, pixel), equal on every device."""
    pixel = torch.arange(pixels, device=indices.device, dtype=torch.int64)
    per_image = _mix(_start(seed) ^ (indices.to(torch.int64) & 0xFFFFFFFF))
    return _mix(per_image[:, None] ^ pixel)


def _start(seed: int) -> int:
    return _mix((seed & 0xFFFFFFFF) ^ 0x9E3779B9)


def _mix(x: Word) -> Word:
    """Finaliser of MurmurHash3 (32 bits, held in int64; each product is cut back to 32 bits)."""
    x = _times((x ^ (x >> 16)), 0x85EBCA6B)
    x = _times((x ^ (x >> 13)), 0xC2B2AE35)
    return x ^ (x >> 16)


def _times(x: Word, factor: int) -> Word:
    # x and factor are below 2^32; their product can pass 2^63, where int64 wraps around: the low 32 bits stay right.
    return (x * factor) & 0xFFFFFFFF


def _check(images: Tensor, saliency: Tensor, indices: Tensor | None) -> tuple[int, int, int, int]:
    shape = _check_shapes(images, saliency, indices)
    _check_finite(torch.isfinite(saliency))
    return shape


def _check_shapes(images: Tensor, saliency: Tensor, indices: Tensor | None) -> tuple[int, int, int, int]:
    if images.ndim != 4 or saliency.ndim != 3 or (images.shape[0], *images.shape[2:]) != tuple(saliency.shape):
        raise ValueError(
            f"images (N, C, H, W) and saliency (N, H, W) must share N, H and W, "
            f"got {tuple(images.shape)} and {tuple(saliency.shape)}"
        )
    if indices is not None and tuple(indices.shape) != (images.shape[0],):
        raise ValueError(f"indices must be ({images.shape[0]},), one per image, got {tuple(indices.shape)}")
    N, C, H, W = images.shape
    return N, C, H, W


def _check_finite(finite: Tensor) -> None:
    if not bool(finite.all()):
        raise ValueError("saliency holds NaN or infinite values: the order of its pixels is not defined")


# The Triton path: one program per image, no sort. Two 32-bit integers rank a pixel as the definition does: its saliency
# (float bits, turned so that integers order them alike) and its hash, which no two pixels of an image share. The K-th
# smallest rank is found by bisection: each step counts the pixels at or below the middle, from registers. Mostly some
# middle parts off exactly K pixels; only where the K-th saliency is tied are the hashes of the tied pixels bisected.
# Then the image is copied in its own memory order, the saliency being read again, from the nearest cache: ranks kept
# in registers would lie in the wrong threads for channels-last images. Pixels are moved as integers of their size,
# whatever their dtype. An image larger than LARGEST would be read from memory at each of up to 64 steps; two sorts
# (the definition) are better there.


@jit
def _mixed(x):  # uint32: `_mix`
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@jit
def _rank(saliency):  # float32 -> int32 in the same order, -0 and 0 being one value
    bits = tl.where(saliency == 0, 0.0, saliency).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@jit
def _tie(image, pixel):  # uint32 hash of (seed, image), int32 -> int32 in the order of the pixel's hash
    return (_mixed(image ^ pixel.to(tl.uint32)) ^ 0x80000000).to(tl.int32, bitcast=True)


@jit
def _bound(ranks, inside, count):  # a number with at least `count` (>= 1) ranks at or below it: exactly, unless tied
    low = tl.min(tl.where(inside, ranks, 0x7FFFFFFF), axis=0)
    high = tl.max(tl.where(inside, ranks, -0x80000000), axis=0)
    while low < high:
        middle = (low & high) + ((low ^ high) >> 1)  # floor((low + high) / 2) without overflow
        found = tl.sum((inside & (ranks <= middle)).to(tl.int32), axis=0)
        high = tl.where(found >= count, middle, high)
        low = tl.where(found > count, low, tl.where(found == count, middle, middle + 1))
    return high


@jit
def _mask_kernel(
    images,  # *(N, C, H W) integers, any strides
    saliency,  # *(N, H W) contiguous
    indices,  # *(N,) int64, or None: 0..N-1
    masked,  # *(N, C, H W) integers, any strides, written
    finite,  # *(N,) int8, written: whether the image's saliency is
    images_n,
    images_c,
    images_p,
    masked_n,
    masked_c,
    masked_p,
    indices_n,
    C,
    P,  # H W
    K,
    start,  # int32 bits of the seed's hash
    BLOCK: tl.constexpr,  # >= P
    PIXELS: tl.constexpr,  # the copy's tile
    CHANNELS: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    index = n if indices is None else tl.load(indices + n * indices_n)
    image = _mixed(tl.cast(start, tl.uint32, bitcast=True) ^ index.to(tl.uint32))
    pixel = tl.arange(0, BLOCK)
    inside = pixel < P
    value = tl.load(saliency + n * P + pixel, inside, 0.0).to(tl.float32)
    sound = tl.min((tl.abs(value) < float("inf")).to(tl.int32), axis=0)
    tl.store(finite + n, sound.to(tl.int8))
    ranks = _rank(value)
    last = _bound(ranks, inside, K)
    at_or_below = tl.sum((inside & (ranks <= last)).to(tl.int32), axis=0)
    last_tie = 0x7FFFFFFF  # all pixels of the last rank go
    if at_or_below > K:
        below = tl.sum((inside & (ranks < last)).to(tl.int32), axis=0)
        last_tie = _bound(_tie(image, pixel), inside & (ranks == last), K - below)
    last = tl.where(K == 0, -0x80000000, last)  # below every finite number
    channel = tl.arange(0, CHANNELS)
    for first in range(0, P, PIXELS):
        place = first + tl.arange(0, PIXELS)
        within = place < P
        rank = _rank(tl.load(saliency + n * P + place, within, 0.0).to(tl.float32))
        gone = rank <= last
        if at_or_below > K:
            gone = (rank < last) | ((rank == last) & (_tie(image, place) <= last_tie))
        for c in range(0, C, CHANNELS):
            both = within[:, None] & (c + channel < C)[None, :]
            source = images + n * images_n + tl.cast(c, tl.int64) * images_c
            target = masked + n * masked_n + tl.cast(c, tl.int64) * masked_c
            colour = tl.load(source + (place[:, None] * images_p + channel[None, :] * images_c), both, 0)
            colour = tl.where(gone[:, None], 0, colour)
            tl.store(target + (place[:, None] * masked_p + channel[None, :] * masked_c), colour, both)


@torch.library.custom_op("efflib::mask_least_salient", mutates_args=())
def _fused(images: Tensor, saliency: Tensor, indices: Tensor | None, count: int, start: int) -> Tensor:
    """The masked images by the Triton kernel; also the gradient's operator, for the masking is linear in the images."""
    N, C, H, W = images.shape
    masked, finite = _target(images), images.new_empty(N, dtype=torch.int8)
    if not _spacing(images):  # a crop, or turned: placing its pixels would take a division for each, in each channel
        images = images.contiguous()
    saliency = saliency.contiguous()  # a small part of the bytes, and mostly contiguous
    strides = [step for x in (images, masked) for step in (x.stride(0), x.stride(1), _spacing(x))]
    indices_n = 0 if indices is None else indices.stride(0)
    word = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[images.element_size()]
    warps, tile = _tile(H * W, C if images.stride(1) == 1 else 1)
    _mask_kernel[(N,)](
        images.view(word), saliency, indices, masked.view(word), finite, *strides, indices_n,
        C, H * W, count, start - 2**32 if start >= 2**31 else start, **tile, num_warps=warps,
    )  # fmt: skip
    _check_finite(finite)
    return masked


def _target(images: Tensor) -> Tensor:
    """Memory for the masked images, in the layout of the images where that has a spacing."""
    masked = torch.empty_like(images)
    return masked if _spacing(masked) else torch.empty_like(images, memory_format=torch.contiguous_format)


def _spacing(images: Tensor) -> int:
    """Elements from one pixel of (N, C, H, W) to the next in raster order; 0 where that differs, or passes 32 bits."""
    H, W = images.shape[2:]
    step = images.stride(3) if W > 1 else images.stride(2)
    even = H == 1 or W == 1 or images.stride(2) == W * step
    return step if even and H * W * step < 2**31 else 0


def _tile(pixels: int, channels: int) -> tuple[int, dict[str, int]]:
    """Warps of a program (8 pixels or more per thread) and its blocks; `channels` that lie together in memory."""
    block = max(power_of_two_above(pixels), 32)
    warps, together = min(max(block // 256, 1), 16), min(power_of_two_above(channels), 8)
    return warps, {"BLOCK": block, "PIXELS": 256 * warps // together, "CHANNELS": together}


@_fused.register_fake
def _(images: Tensor, saliency: Tensor, indices: Tensor | None, count: int, start: int) -> Tensor:
    return _target(images)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, saliency, indices, ctx.count, ctx.start = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(saliency, indices)


def _pull_back(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None, None, None
    return _fused(upstream, *ctx.saved_tensors, ctx.count, ctx.start), None, None, None, None


_fused.register_autograd(_pull_back, setup_context=_keep)
