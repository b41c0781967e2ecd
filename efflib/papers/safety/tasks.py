"""What the safety paper trains on: images with labels, and windows of a stream of names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.data import ImageSet
from efflib.data.names import windows
from efflib.kernels.augment import normalise
from efflib.models import evaluating
from efflib.models.mnist_cnn import batch_statistics, recalibrate_batch_norm
from efflib.papers.safety.steps import Pair

# Rotation in degrees and shift as a share of the image that the authors' main notebook gives preserved images (A16).
ROTATION, SHIFT = 10.0, 0.1
RECALIBRATION = (20, 512)  # batches and images per batch (A25)


@dataclass(frozen=True)
class Images:
    """A set of images on the device, normalised once: x (N, C, H, W) float, y (N,) int64."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, data: ImageSet, mean: tuple[float, ...], std: tuple[float, ...], device: str, dtype: torch.dtype):
        """From an ImageSet."""
        x = normalise(torch.from_numpy(np.ascontiguousarray(data.images)).to(device), mean, std).to(dtype)
        return cls(x, torch.from_numpy(np.ascontiguousarray(data.labels)).to(device))

    def __len__(self) -> int:
        return len(self.y)

    def draw(self, generator: torch.Generator, count: int) -> Pair:
        """`count` images with replacement."""
        chosen = torch.randint(len(self), (count,), generator=generator).to(self.y.device)
        return self.x[chosen], self.y[chosen]

    def take(self, positions: np.ndarray) -> Images:
        chosen = torch.from_numpy(positions).to(self.y.device)
        return Images(self.x[chosen], self.y[chosen])


class ImageTask:
    """Classify images: accuracy on the test set, on the images held out for tuning, and on a part of the training set.

    Args:
        train, test: sets on the device.
        held: images held out of training, or None.
        seed: of the batches that batch norm is recalibrated on before every measurement.
    """

    def __init__(self, train: Images, test: Images, held: Images | None, seed: int) -> None:
        self.train, self.test, self.held, self.seed = train, test, held, seed

    def batch(self, generator: torch.Generator, count: int) -> Pair:
        """Training images, with replacement."""
        return self.train.draw(generator, count)

    def loss(self, model: nn.Module, batch: Pair) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(model(batch[0]), batch[1])

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Test accuracy in percent, batch norm recalibrated before (A25)."""
        self.recalibrate(model)
        return {"test": accuracy(model, self.test)}

    def final(self, model: nn.Module) -> dict[str, float]:
        """At the end: also on as many training images, on the held-out ones, and as the authors test.

        They take all test images as one batch, normalised by its own statistics (A25).
        """
        self.recalibrate(model)
        sample = Images(self.train.x[: len(self.test)], self.train.y[: len(self.test)])
        found = {"train": accuracy(model, sample)}
        if self.held is not None:
            found["held"] = accuracy(model, self.held)
        with batch_statistics(model), torch.no_grad():
            guesses = model(self.test.x).argmax(dim=1)
        return found | {"test_batch_statistics": 100 * float((guesses == self.test.y).double().mean())}

    def recalibrate(self, model: nn.Module) -> None:
        """Batch norm's running statistics anew, over 20 training batches that are the same every time."""
        generator = torch.Generator().manual_seed(self.seed)
        batches, size = RECALIBRATION
        size = min(size, len(self.train))
        batches = min(batches, max(1, len(self.train) // size))  # small sets need not be seen many times over
        recalibrate_batch_norm(model, (self.batch(generator, size)[0] for _ in range(batches)))

    def score(self, model: nn.Module, preserved: Images) -> float:
        """Accuracy (%) on the preservation set by the running statistics of training: higher is better."""
        return accuracy(model, preserved)


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, batch_size: int = 500) -> float:
    """In percent, in eval mode."""
    right = 0
    with evaluating(model):
        for x, y in zip(images.x.split(batch_size), images.y.split(batch_size), strict=True):
            right += int((model(x).argmax(dim=1) == y).sum())
    return 100 * right / len(images)


def jitter(x: Tensor, generator: torch.Generator, fill: float) -> Tensor:
    """Images (N, C, H, W) turned by up to 10 degrees, then shifted by up to a tenth, bilinear; `fill` comes in.

    Args:
        x: normalised images.
        generator: of the angles and shifts, one of each per image.
        fill: value of black after normalisation.
    """
    count = len(x)
    angle = math.radians(ROTATION) * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)
    shift = 2 * SHIFT * (2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1)
    cos, sin = angle.cos(), angle.sin()
    # The grid asks where each output pixel comes from: shift back first, then turn back.
    across, down = cos * shift[:, 0] - sin * shift[:, 1], sin * shift[:, 0] + cos * shift[:, 1]
    rows = [torch.stack([cos, -sin, across], dim=1), torch.stack([sin, cos, down], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + fill


class TextTask:
    """Predict the next character: mean cross-entropy in nats on the validation stream, over windows without overlap.

    Args:
        train, validation: tokens int64 on the device; tune: held out of the training stream, or None.
        window: tokens the model sees.
    """

    def __init__(self, train: Tensor, validation: Tensor, tune: Tensor | None, window: int = 32) -> None:
        self.train, self.window = train, window
        self._test = self._windows(validation)
        parts = {"train": train[: len(validation)], **({"held": tune} if tune is not None else {})}
        self._others = {name: self._windows(tokens) for name, tokens in parts.items()}

    def _windows(self, tokens: Tensor) -> Pair:
        inputs, targets = windows(tokens.cpu().numpy(), self.window)
        return torch.from_numpy(inputs).to(tokens.device), torch.from_numpy(targets).to(tokens.device)

    def batch(self, generator: torch.Generator, count: int) -> Pair:
        """Windows of the training stream at random places, with replacement."""
        return draw_windows(self.train, generator, count, self.window)

    def loss(self, model: nn.Module, batch: Pair) -> Tensor:
        """Mean over all positions."""
        return F.cross_entropy(model(batch[0]).flatten(0, 1).float(), batch[1].flatten())

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Nats per character of the validation stream."""
        return {"test": text_loss(model, *self._test)}

    def final(self, model: nn.Module) -> dict[str, float]:
        """At the end: also on as much of the training stream, and on what was held out of it."""
        return {name: text_loss(model, *pair) for name, pair in self._others.items()}

    def recalibrate(self, model: nn.Module) -> None:
        """This model has no batch norm."""

    def score(self, model: nn.Module, preserved: Tensor) -> float:
        """Loss on the preserved text in nats per character: lower is better."""
        return text_loss(model, *self._windows(preserved))


def draw_windows(tokens: Tensor, generator: torch.Generator, count: int, window: int) -> Pair:
    """Inputs and targets (count, window): the targets are one token further on."""
    starts = torch.randint(len(tokens) - window, (count,), generator=generator).to(tokens.device)
    cut = tokens[starts[:, None] + torch.arange(window + 1, device=tokens.device)]
    return cut[:, :-1], cut[:, 1:]


@torch.no_grad()
def text_loss(model: nn.Module, inputs: Tensor, targets: Tensor, batch_size: int = 200) -> float:
    """Mean cross-entropy in nats over all positions, in eval mode."""
    total = 0.0
    with evaluating(model):
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            total += float(F.cross_entropy(model(x).flatten(0, 1).double(), y.flatten(), reduction="sum"))
    return total / targets.numel()
