"""How well a map finds objects whose pixels are known."""

from __future__ import annotations

import torch
from torch import Tensor


def localisation(maps: Tensor, objects: Tensor) -> dict[str, float]:
    """How well saliency maps find objects whose pixels are known.

    Args:
        maps: (N, H, W), larger is more important.
        objects: (N, H, W) bool, the true object pixels; every image must have some object and some background.

    Returns:
        Means over images: "pointing" (share whose most salient pixel lies on the object; Zhang et al. 2018; ties count
        by their share), "inside" (share of the map's sum on the object), "auc" (chance that an object pixel outranks a
        background pixel; 0.5 is guessing), and "area" (the object's share of the image: what guessing gives for the
        first two).

    Raises:
        ValueError: shapes that differ, or an image without object or without background.
    """
    if maps.shape != objects.shape or maps.ndim != 3:
        raise ValueError(
            f"maps and objects must be (N, H, W) alike, got {tuple(maps.shape)} and {tuple(objects.shape)}"
        )
    flat, inside = maps.flatten(1).double(), objects.flatten(1)
    size = inside.sum(dim=1)
    if bool(((size == 0) | (size == inside.shape[1])).any()):
        raise ValueError("every image needs object and background pixels; leave the others out")
    peaks = flat == flat.amax(dim=1, keepdim=True)
    ranks = torch.from_numpy(_ranks(flat.cpu().numpy())).to(inside.device)
    # Mann-Whitney: the sum of the object pixels' ranks gives the area under the ROC curve.
    wins = (ranks * inside).sum(dim=1) - size * (size + 1) / 2
    auc = wins / (size * (inside.shape[1] - size))
    total = flat.sum(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    return {
        "pointing": float(((peaks & inside).sum(dim=1) / peaks.sum(dim=1)).mean()),
        "inside": float(((flat * inside).sum(dim=1) / total).mean()),
        "auc": float(auc.mean()),
        "area": float((size / inside.shape[1]).mean()),
    }


def _ranks(values):
    """Ranks from 1 within each row, equal values sharing their mean rank."""
    from scipy.stats import rankdata

    return rankdata(values, axis=1)
