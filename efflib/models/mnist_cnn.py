"""The small CNN of the safety paper's table I, for 28-pixel images, and its two ways to evaluate batch norm.

    conv1 5x5 -> 32, ReLU; conv2 5x5 -> 32, ReLU; BN; max-pool 2;
    conv3 3x3 -> 64, ReLU; conv4 3x3 -> 64, ReLU; BN; max-pool 2; flatten (576, channel-major); linear

No padding, no biases in convolutions, no scale and shift in batch norms: 87,466 parameters, of which the 81,696 in
convolutions are quantised. Source: section 3.1 of the safety spec; the architecture is that of the paper's repository.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.measure import Features, evaluating
from efflib.models.registry import channels, image_channels, register

SIDE = 28
DEPTHS = (3, 4, 5)
# Per convolution: output channels, kernel, padding; the first `depth` of them are built.
CONVOLUTIONS = ((32, 5, 0), (32, 5, 0), (64, 3, 0), (64, 3, 0), (64, 3, 1))


class MnistCNN(nn.Module):
    """`depth` convolutions; batch norm and max-pool after the second and after the last."""

    def __init__(self, num_classes: int, width: float, depth: int, in_channels: int) -> None:
        super().__init__()
        if isinstance(depth, bool) or depth not in DEPTHS:
            raise ValueError(f"depth must be {' or '.join(map(str, DEPTHS))} convolutions, got {depth!r}")
        self.quantizable = tuple(f"conv{number}" for number in range(1, depth + 1))
        self.norms = {"conv2": "bn2", f"conv{depth}": f"bn{depth}"}
        inputs, side = image_channels(in_channels), SIDE
        for name, (count, kernel, padding) in zip(self.quantizable, CONVOLUTIONS):
            outputs = channels(count, width)
            self.add_module(name, nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False))
            inputs, side = outputs, side + 2 * padding - kernel + 1
            if name in self.norms:
                self.add_module(self.norms[name], nn.BatchNorm2d(outputs, affine=False))
                side //= 2
        self.head = nn.Linear(inputs * side * side, num_classes)
        _initialise(self)

    def chain(self) -> list[tuple[str, str | None, int]]:
        """What feeds each layer: (layer, layer whose output channels are its inputs or None, inputs per channel).

        The head is listed although it is not quantised: nine of its inputs go when a channel of conv4 goes.
        """
        links: list[tuple[str, str | None, int]] = []
        for name, feeder in zip(self.quantizable, (None, *self.quantizable)):
            links.append((name, feeder, 1))
        last = self.quantizable[-1]
        return [*links, ("head", last, self.head.in_features // self._convolution(last).out_channels)]

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are the outputs of all convolutions, after their ReLU (before it: `preactivation`).

        `pooled` is what the classifier reads: (N, 576), channel by channel.
        """
        before, after = [], []
        for number in range(len(self.quantizable)):
            raw = self._convolved(number, x)
            x = F.relu(raw)
            before.append(raw)
            after.append(x)
        pooled = self._pooled(len(self.quantizable), x).flatten(1)
        return Features(tuple(before if preactivation else after), pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        if stage == len(self.quantizable):
            return self.head(self._pooled(stage, x).flatten(1))
        return F.relu(self._convolved(stage, x))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits

    def _convolved(self, stage: int, x: Tensor) -> Tensor:
        """From the output of `stage` convolutions (0: images) to the next one's, before its ReLU."""
        if stage == 0:
            self._check(x)
        return self._convolution(f"conv{stage + 1}")(self._pooled(stage, x))

    def _pooled(self, stage: int, x: Tensor) -> Tensor:
        """What follows convolution number `stage` (from 1): batch norm and max-pool, or nothing."""
        norm = self.norms.get(f"conv{stage}")
        return x if norm is None else F.max_pool2d(self.get_submodule(norm)(x), 2)

    def _convolution(self, name: str) -> nn.Conv2d:
        found = self.get_submodule(name)
        assert isinstance(found, nn.Conv2d)
        return found

    def _check(self, x: Tensor) -> None:
        wanted = (self._convolution("conv1").in_channels, SIDE, SIDE)
        if x.ndim != 4 or tuple(x.shape[1:]) != wanted:
            raise ValueError(
                f"mnist_cnn reads images (N, {', '.join(map(str, wanted))}): its classifier has one input per channel "
                f"and position. Got {tuple(x.shape)}; digits28 and mnist have 28 pixels, in_channels sets the colours"
            )


def _initialise(model: nn.Module) -> None:
    """Uniform within 1 / sqrt(fan-in), the classifier's bias too (PyTorch's default, and the repository's)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -bound, bound)


@register
def mnist_cnn(num_classes: int, *, width: float = 1.0, depth: int = 4, in_channels: int = 1) -> nn.Module:
    """The safety paper's CNN; depth 3 leaves conv4 out, 5 adds a 3x3 convolution with padding behind it."""
    return MnistCNN(num_classes, width, depth, in_channels)


# --- batch norm at test time --------------------


def recalibrate_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate the running statistics anew: the plain average over these batches, in place.

    Weights that were quantised, clipped or restored since shift what batch norm sees; the running averages of training
    lag behind. Dropout rests meanwhile, and every module keeps its mode and momentum.

    Args:
        model: a network with batch norms.
        batches: inputs of the model, as for training; the safety spec takes 20 batches of training images.

    Raises:
        ValueError: no batch, or a model without running statistics. The old statistics stay then.

    Source: decision A25 of the safety spec.
    """
    norms = [norm for norm in _batch_norms(model) if norm.track_running_stats]
    if not norms:
        raise ValueError(f"recalibration needs batch norms with running statistics; {type(model).__name__} has none")
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ValueError("recalibration needs at least one batch, got none")
    momenta = [norm.momentum for norm in norms]
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's word for a plain average over all batches
            norm.training = True
        try:
            model(first)
            for batch in batches:
                model(batch)
        finally:
            for norm, momentum in zip(norms, momenta):
                norm.momentum = momentum


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within the block: eval mode, but batch norms normalise by the statistics of the batch at hand, as in training.

    The running statistics are neither read nor moved. This is how the paper's repository tests: all 10,000 images as
    one batch. A prediction then depends on the other images of its batch.

    Raises:
        ValueError: a model without batch norms.
    """
    norms = _batch_norms(model)
    if not norms:
        raise ValueError(f"{type(model).__name__} has no batch norm: use model.eval()")
    tracked = [norm.track_running_stats for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        try:
            yield
        finally:
            for norm, was in zip(norms, tracked):
                norm.track_running_stats = was


def _batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
