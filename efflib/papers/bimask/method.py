"""BIMask's own part: saliency of every training image, the masks, and the mixed training set (spec, section 2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from efflib.data import ImageSet
from efflib.explain import saliency
from efflib.kernels.augment import normalise
from efflib.kernels.mask_least_salient import mask_least_salient

# The arms of the reproduction. The last four are controls that the paper does not have (spec, section 2.5).
Method = Literal["bimask", "masked_only", "original_only", "random", "shuffled", "inverse"]


def saliency_maps(
    model: nn.Module,
    data: ImageSet,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device | str = "cpu",
    batch_size: int = 250,
    **options,
) -> Tensor:
    """Saliency of every image of a set, un-augmented, normalised as for evaluation (Algorithm 1, lines 2-6).

    Args:
        model: the trained baseline.
        data: images uint8 (N, H, W, C).
        mean, std: normalisation constants.
        device: where to compute.
        batch_size: images at once; it does not change the result beyond rounding.
        options: of `efflib.explain.saliency`; target may be "predicted" or "true".

    Returns:
        (N, H, W) float32 on the CPU.

    Raises:
        ValueError: maps that are constant over every image: such a layer gives no order of pixels (A3 of the spec).
    """
    model = model.to(device)
    target = options.pop("target", "predicted")
    parts = []
    for start in range(0, len(data), batch_size):
        images = normalise(torch.from_numpy(data.images[start : start + batch_size]).to(device), mean, std)
        labels = torch.from_numpy(data.labels[start : start + batch_size]).to(device)
        images = images.to(next(model.parameters()).dtype)
        parts.append(saliency(model, images, target=labels if target == "true" else target, **options).cpu())
    maps = torch.cat(parts)
    flat = maps.flatten(1)
    if bool((flat.amax(dim=1) - flat.amin(dim=1) <= 1e-5 * flat.abs().amax(dim=1)).all()):
        raise ValueError(
            "the saliency is constant over every image, so ties alone would choose the mask: take the raw output of a "
            "convolution (layer=-1), not the map that feeds the pooling layer"
        )
    return maps


def keep_masks(maps: Tensor, ratio: float, seed: int, indices: Tensor) -> Tensor:
    """(N, H, W) bool, False at the K least salient pixels of each image (Eq. 2; exact K, ties by seed and index)."""
    ones = torch.ones(len(maps), 1, *maps.shape[1:], dtype=torch.bool)
    return mask_least_salient(ones, maps, ratio, seed, indices)[:, 0]


def arm_masks(method: Method, maps: Tensor, ratio: float, seed: int, indices: Tensor) -> Tensor | None:
    """Masks (N, H, W) bool of one arm; None for `original_only`.

    bimask and masked_only: the least salient pixels. random: K random pixels (a constant map leaves all to the seeded
    ties). shuffled: BIMask's masks, each given to another image. inverse: the most salient pixels.
    """
    if method == "original_only":
        return None
    if method == "random":
        return keep_masks(torch.zeros_like(maps), ratio, seed, indices)
    if method == "inverse":
        return keep_masks(-maps, ratio, seed, indices)
    masks = keep_masks(maps, ratio, seed, indices)
    return masks[derangement(len(masks), seed)] if method == "shuffled" else masks


def derangement(count: int, seed: int) -> Tensor:
    """(count,) a random permutation without fixed points: one cycle through all images in random order.

    Raises:
        ValueError: fewer than two images.
    """
    if count < 2:
        raise ValueError(f"{count} image cannot get another image's mask: shuffled masks need two images or more")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other


def training_set(data: ImageSet, masks: Tensor | None, method: Method) -> ImageSet:
    """The fine-tuning set of an arm: originals and masked copies (2N), masked copies only (N), or originals twice (2N).

    Masked pixels are black: the mask multiplies the image before normalisation (Eq. 2; A9 of the spec).

    Raises:
        ValueError: no masks for an arm that needs them.
    """
    if method == "original_only":
        return _joined(data, data.images)
    if masks is None:
        raise ValueError(f"the arm {method!r} needs masks (N, H, W); only original_only has none")
    masked = data.images * masks.numpy()[..., None]
    return replace(data, images=masked, masks=None, boxes=None) if method == "masked_only" else _joined(data, masked)


def _joined(data: ImageSet, copies: np.ndarray) -> ImageSet:
    labels, indices = (np.concatenate([each, each]) for each in (data.labels, data.indices))
    images = np.concatenate([data.images, copies])
    return replace(data, images=images, labels=labels, indices=indices, masks=None, boxes=None)


def removed_overlap(a: Tensor, b: Tensor) -> float:
    """Mean over images of the intersection over union of the pixels that two masks (N, H, W) remove."""
    gone_a, gone_b = ~a.flatten(1), ~b.flatten(1)
    union = (gone_a | gone_b).sum(dim=1)
    return float(((gone_a & gone_b).sum(dim=1) / union.clamp(min=1)).mean())
