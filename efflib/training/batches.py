"""Images on the device, and the augmented, normalised batches of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from efflib.data import NORMALISATION, ImageSet
from efflib.kernels.augment import affine_normalise, crop_flip_normalise, draw, draw_affine
from efflib.training.curriculum import Curriculum
from efflib.training.recipe import AFFINE, TrainingRecipe
from efflib.training.seeds import derived_seed


@dataclass(frozen=True)
class Batch:
    """What a loss sees: images (B, C, H, W) normalised, targets (B,), indices (B,) in the set, progress in epochs.

    The progress is a number, and for a compiled loss a tensor (), whose changing value needs no new compilation.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    progress: float | Tensor


class DeviceSet:
    """An ImageSet as tensors on the device: images uint8 (N, H, W, C), labels and indices int64 (N,)."""

    def __init__(self, data: ImageSet, device: torch.device):
        self.images = torch.from_numpy(np.ascontiguousarray(data.images)).to(device)
        self.labels = torch.from_numpy(np.ascontiguousarray(data.labels)).to(device)
        self.indices = torch.from_numpy(np.ascontiguousarray(data.indices)).to(device)

    def __len__(self) -> int:
        return len(self.labels)


def normalisation(recipe: TrainingRecipe, data: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) that the recipe prescribes for this data set.

    Raises:
        ValueError: the recipe leaves it to a data set that has no constants of its own.
    """
    if recipe.normalisation != "dataset":
        return recipe.normalisation
    if data.name not in NORMALISATION:
        raise ValueError(
            f"no normalisation is known for {data.name!r} (known: {', '.join(sorted(NORMALISATION))}): "
            "give the recipe normalisation=(mean, std)"
        )
    return NORMALISATION[data.name]


def epoch_batches(
    data: DeviceSet,
    recipe: TrainingRecipe,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    epoch: int,
    view: int = 0,
    curriculum: Curriculum | None = None,
) -> Iterator[Batch]:
    """Batches of one epoch: order, crops, flips, turns and zooms are drawn at once from the epoch's own generator.

    Args:
        data: the training set on its device.
        recipe: batch size, augmentation and whether the last, smaller batch is dropped.
        mean, std: normalisation constants.
        seed, epoch: fix the order and the augmentation.
        view: another number gives the same order with another augmentation.
        curriculum: its hooks `order` and `pixels` are asked; the images keep their size.
    """
    N, B = len(data), recipe.batch_size
    curriculum = curriculum or Curriculum()
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch, "data"))
    device = data.images.device
    order = curriculum.order(torch.randperm(N, generator=generator), recipe, seed, epoch).to(device)
    if view:
        generator.manual_seed(derived_seed(seed, epoch, f"view {view}"))
    changed = _augmentation(recipe, N, generator, device)
    steps = recipe.steps(N)
    for step in range(steps):
        chosen = order[step * B : (step + 1) * B]
        cut = slice(step * B, step * B + len(chosen))
        progress = epoch + step / steps
        pixels = curriculum.pixels(data.images[chosen], progress, recipe.epochs)
        images = changed(pixels, cut, mean, std)
        yield Batch(images, data.labels[chosen], data.indices[chosen], progress)


def _augmentation(
    recipe: TrainingRecipe, count: int, generator: torch.Generator, device: torch.device
) -> Callable[[Tensor, slice, Sequence[float], Sequence[float]], Tensor]:
    """Draws for a whole epoch; (uint8 pixels, their places in its order as a slice, mean, std) -> images."""
    if recipe.augment in AFFINE:
        angles, zooms, mirrored = draw_affine(count, **AFFINE[recipe.augment], generator=generator, device=device)
        return lambda pixels, cut, mean, std: affine_normalise(
            pixels, angles[cut], zooms[cut], mirrored[cut], mean, std
        )
    pad = 0 if recipe.augment == "none" else recipe.pad
    offsets, flips = draw(count, pad, recipe.augment == "crop_flip", generator, device)
    return lambda pixels, cut, mean, std: crop_flip_normalise(pixels, offsets[cut], flips[cut], mean, std, pad)
