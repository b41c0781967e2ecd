"""What the live pictures of every paper start from: a trained network, and rendered objects to show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from efflib.data import ImageSet, load_dataset
from efflib.papers.baselines import new_model

if TYPE_CHECKING:
    from efflib.trials import Store, Trial


def trained_model(trial: Trial, store: Store, build: Callable[[Any], nn.Module] = new_model) -> nn.Module:
    """The network of a recorded trial, with its weights, in eval mode.

    Args:
        trial: one whose record keeps the weights of one network.
        store: where record and weights are.
        build: from the trial's settings, an untrained network of the same shape: a classifier, unless told otherwise.

    Raises:
        FileNotFoundError: the record or its weights are not here; run the trial first.
    """
    for record in store.find(trial):
        state = store.load_weights(record) if record.status == "ok" else None
        if state is not None:
            model = build(trial.settings)
            model.load_state_dict(state)
            return model.eval()
    raise FileNotFoundError(f"no weights of {trial.label} in {store.cache}: run it first")


def examples(per_class: int = 1, split: str = "test") -> ImageSet:
    """The first rendered images of each class whose object covers a quarter of the image at most."""
    data = load_dataset("objects32", split)
    return data.take(small_objects(data, per_class))


def small_objects(data: ImageSet, per_class: int = 1) -> np.ndarray:
    """Positions: of each class, the first images whose object covers less than a quarter of them, if there are any."""
    small = np.asarray(data.masks).mean(axis=(1, 2)) < 0.25
    chosen = [np.flatnonzero(small & (data.labels == label))[:per_class] for label in range(len(data.classes))]
    return np.concatenate(chosen)


def as_uint8(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [0, 1] -> (N, H, W, C) uint8."""
    return (255 * images).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 and a map (H, W) in 0..1 -> half image, half colour of the map."""
    from matplotlib import colormaps

    coloured = colormaps["viridis"](heat)[..., :3] * 255
    return (0.5 * image + 0.5 * coloured + 0.5).astype(np.uint8)
