"""Rivals of a DisWOT score: what a network's size, or its own activations without a teacher, say about its accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from efflib.data import ImageSet
from efflib.papers.diswot.costs import cost
from efflib.papers.diswot.scores import batches, on_batch_statistics, untrained
from efflib.papers.diswot.space import STUDENTS
from efflib.training import derived_seed


def parameters(students: Iterable[str] = STUDENTS, image_size: int = 224) -> dict[str, float]:
    """Trained parameters of each student; more is expected to be better."""
    return {name: float(cost(name, image_size).parameters) for name in students}


def macs(students: Iterable[str] = STUDENTS, image_size: int = 224) -> dict[str, float]:
    """Multiply-accumulates of each student; more is expected to be better."""
    return {name: float(cost(name, image_size).macs) for name in students}


def random_order(seed: int, students: Iterable[str] = STUDENTS) -> dict[str, float]:
    """A random number for each student: the control that knows nothing."""
    generator = np.random.default_rng(derived_seed(seed, 0, "diswot random order"))
    return {name: float(generator.random()) for name in students}


def nwot_space(
    data: ImageSet,
    students: Sequence[str] = tuple(STUDENTS),
    *,
    init: str = "default",
    batch: int = 32,
    draws: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, float]:
    """NWOT of each untrained student, mean over draws; more is expected to be better. Arguments as `score_space`.

    Weights and batches are those of `score_space` with the same seed and init.
    """
    size, classes = data.images.shape[1], len(data.classes)
    found: dict[str, list[float]] = {name: [] for name in students}
    for draw, images, _ in batches(data, batch, draws, seed, device):
        for name in students:
            found[name].append(nwot(untrained(name, size, classes, init, seed, draw).to(device), images))
    return {name: float(np.mean(values)) for name, values in found.items()}


def nwot(network: nn.Module, images: Tensor) -> float:
    """How differently the ReLUs of an untrained network answer to the images: a predictor without a teacher.

    log |det sum_layers (x x^T + (1 - x)(1 - x)^T)|, x (B, units) the binary codes of a layer's ReLU or ReLU6. Runs on a
    copy, batch norms on the batch's statistics, without dropout.

    Args:
        network: whose activations are modules.
        images: (B, C, H, W).

    Returns:
        The logarithm; -inf if two images have the same code in every layer.

    Source: Mellor et al. 2021, "Neural architecture search without training"; section 4.4 of the spec.
    """
    own = on_batch_statistics(network)
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        active = (output > 0).flatten(1).double()
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    for module in own.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.register_forward_hook(add)
    with torch.no_grad():
        own(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)
