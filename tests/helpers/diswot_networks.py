"""The thesis's networks without training, narrow, and yet such that no two images look alike to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from efflib.data import ImageSet, render_phantom
from efflib.models import create_model
from efflib.papers.diswot.scores import gaussian_
from efflib.training import seeded


def narrow(head: str) -> dict[str, Any]:
    """Options of a narrow MobileNetV2 for images of 64 px."""
    return {"width": 0.35, "depth": 11, "head": head, "image_size": 64, "dropout": 0.0}


def network(head: str, seed: int) -> torch.nn.Module:
    """A narrow network with N(0, 1) weights whose batch norms have seen slices."""
    with seeded(seed):
        made = create_model("mobilenetv2", 4, **narrow(head))
    with seeded(seed, "weights"):
        gaussian_(made)
    made.train()
    with torch.no_grad():
        for _ in range(30):
            made(pixels(render_phantom(24, 9)))
    return made.eval()


def pixels(data: ImageSet) -> Tensor:
    return torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
