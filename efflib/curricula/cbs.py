"""Curriculum by smoothing (Sinha et al. 2020): blur the feature maps, less and less.

After every convolution larger than 1x1 (the stem included, 1x1 shortcuts excluded), before batch norm, dropout or
addition, each channel is convolved with one fixed 3x3 Gaussian with zero padding:

    k(p, q) = exp(-((p - 1)^2 + (q - 1)^2) / (2 sigma^2)) / sum of the same,  p, q in 0..2

sigma starts at 1 and is multiplied by 0.9 every 5 of 200 epochs, not at epoch 0. The kernel of the day stays in place
when the network is evaluated. (BIMask's paper says that CBS smooths the training images; it smooths feature maps.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.curricula.common import positive
from efflib.data import ImageSet
from efflib.training import Curriculum, TrainingRecipe

# A weight beside the centre that changes no float32 and no bf16 number: such a kernel is not applied.
NOTHING = 1e-12


def gaussian_kernel(sigma: float) -> Tensor:
    """(3, 3) float64, sums to 1. A tiny sigma gives the identity: the weights next to the centre underflow to 0."""
    square = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    weights = torch.exp(-(square[:, None] + square) / (2 * sigma**2))  # 1 in the centre: the sum cannot underflow
    return weights / weights.sum()


def blur(maps: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of (N, C, h, w) convolved with one (3, 3) kernel, zero padding."""
    C = maps.shape[1]
    return F.conv2d(maps, kernel.to(maps).expand(C, 1, 3, 3), padding=1, groups=C)


@dataclass
class CBS(Curriculum):
    """Curriculum by smoothing.

    Args:
        sigma: of the first kernel, in pixels of the feature map.
        decay: factor of each step.
        every: epochs from one step to the next; a fraction of an epoch is possible.
    """

    sigma: float = 1.0
    decay: float = 0.9
    every: float = 5.0
    # Kernels of one sigma on each device, in each precision; None is the identity. They are kept here and not in the
    # network: so they are in no state dict and in no list of parameters.
    _kernels: dict[tuple[torch.device, torch.dtype], Tensor | None] = field(
        default_factory=dict, init=False, repr=False
    )
    _sigma: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        positive("sigma", self.sigma)
        positive("every", self.every)
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, got {self.decay!r}: sigma has to fall")

    def sigma_at(self, progress: float) -> float:
        """sigma after so many epochs of training."""
        return self.sigma * self.decay ** int(progress / self.every + 1e-9)

    def check(self, model: nn.Module, train: ImageSet, recipe: TrainingRecipe) -> None:
        if not blurred_layers(model):
            raise ValueError(f"CBS blurs what convolutions larger than 1x1 give, and {type(model).__name__} has none")

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        self.step(0)
        handles = [layer.register_forward_hook(self._blurred) for layer in blurred_layers(model)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def step(self, progress: float) -> None:
        sigma = self.sigma_at(progress)
        if sigma != self._sigma:
            self._sigma = sigma
            self._kernels.clear()

    def _blurred(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        where = output.device, output.dtype
        if where not in self._kernels:
            kernel = gaussian_kernel(self._sigma)
            self._kernels[where] = None if kernel[1, 0] < NOTHING else kernel.to(output)
        kernel_here = self._kernels[where]
        return output if kernel_here is None else blur(output, kernel_here)


def blurred_layers(model: nn.Module) -> list[nn.Module]:
    """The convolutions that CBS blurs, in the order of `model.modules()`."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1]
