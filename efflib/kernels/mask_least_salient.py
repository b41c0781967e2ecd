"""Black out the least salient pixels of each image: exactly K of them, ties broken by a seeded hash.

    K = floor(ratio H W + 1/2);  pixels are ordered by (saliency, hash(seed, index, pixel), pixel); the first K become 0

The hash depends on the image's own index, never on its place in the batch or on raster order: cutting a data set
into other batches, or shuffling it, gives the same masks (BIMask, section 2.1 of the spec, step 2 and pitfall
"raster-order tie-breaking removes the top-left corner").
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    start = _mix(torch.tensor(seed & 0xFFFFFFFF, device=indices.device, dtype=torch.int64) ^ 0x9E3779B9)
    per_image = _mix(start ^ (indices.to(torch.int64) & 0xFFFFFFFF))
    return _mix(per_image[:, None] ^ pixel)


def _mix(x: Tensor) -> Tensor:
    """Finaliser of MurmurHash3 (32 bits, held in int64; each product is cut back to 32 bits)."""
    x = _times((x ^ (x >> 16)), 0x85EBCA6B)
    x = _times((x ^ (x >> 13)), 0xC2B2AE35)
    return x ^ (x >> 16)


def _times(x: Tensor, factor: int) -> Tensor:
    # x and factor are below 2^32; their product can pass 2^63, where int64 wraps around: the low 32 bits stay right.
    return (x * factor) & 0xFFFFFFFF


def _check(images: Tensor, saliency: Tensor, indices: Tensor | None) -> tuple[int, int, int, int]:
    if images.ndim != 4 or saliency.ndim != 3 or (images.shape[0], *images.shape[2:]) != tuple(saliency.shape):
        raise ValueError(
            f"images (N, C, H, W) and saliency (N, H, W) must share N, H and W, "
            f"got {tuple(images.shape)} and {tuple(saliency.shape)}"
        )
    if indices is not None and tuple(indices.shape) != (images.shape[0],):
        raise ValueError(f"indices must be ({images.shape[0]},), one per image, got {tuple(indices.shape)}")
    if not bool(torch.isfinite(saliency).all()):
        raise ValueError("saliency holds NaN or infinite values: the order of its pixels is not defined")
    N, C, H, W = images.shape
    return N, C, H, W
