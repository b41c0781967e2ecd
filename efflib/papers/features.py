"""An image set as tensors, and what a trained network computes for it: for silhouettes, neighbours, clusters, maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from efflib.data import ImageSet
from efflib.kernels.augment import normalise
from efflib.models import Features, evaluating, features
from efflib.papers.baselines import ClassifierConfig
from efflib.training import DeviceSet, TrainingRecipe, normalisation


def labels_of(data: ImageSet) -> Tensor:
    """The labels (N,) of a set, int64, on the CPU."""
    return torch.from_numpy(np.ascontiguousarray(data.labels))


def pixels_of(data: ImageSet, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The images (N, C, H, W) of a set, normalised, float32, on the CPU."""
    return normalise(torch.from_numpy(np.ascontiguousarray(data.images)), mean, std)


def pooled_features(
    model: nn.Module, data: ImageSet, config: ClassifierConfig, device: str = "cpu", precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """Input of the classifier and its output for each image, in eval mode, without augmentation.

    Returns:
        (pooled (N, D), logits (N, classes)) on the CPU, float64 for a float64 model, else float32.
    """
    pooled, logits = read_features(
        model, data, config.training, lambda found: (found.pooled, found.logits), device, precision
    )
    return pooled, logits


def read_features(
    model: nn.Module,
    data: ImageSet,
    training: TrainingRecipe,
    read: Callable[[Features], tuple[Tensor, ...]],
    device: str = "cpu",
    precision: str = "fp32",
) -> tuple[Tensor, ...]:
    """What `read` takes from each forward pass, for all images, in eval mode, without augmentation.

    Args:
        model: a network of `create_model`, on the device; its mode and statistics stay.
        data: N images.
        training: only its normalisation is used.
        read: features of a batch -> tensors with one row per image.
        device: of the images.
        precision: "bf16" runs the network under autocast.

    Returns:
        As many tensors (N, ...) as `read` gives, on the CPU, float64 for a float64 model, else float32.
    """
    mean, std = normalisation(training, data)
    images = DeviceSet(data, torch.device(device)).images
    dtype = next(model.parameters()).dtype
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16")
    parts = []
    with evaluating(model), torch.no_grad(), autocast:
        for part in images.split(128):
            found = features(model, normalise(part, mean, std).to(dtype))
            parts.append(tuple(value.to("cpu", kept) for value in read(found)))
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))
