"""MobileNets for CIFAR and Tiny ImageNet: depthwise-separable convolutions and inverted residuals.

`mobilenetv2_half` is RepDistiller's student (T = 6, width 0.5): plain ReLU, a stride-2 stem, channel counts of the
groups halved and cut to whole numbers, the last convolution not halved. `mobilenetv1` is mdistiller's (Howard et al.
2017).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.depthwise import DepthwiseConv2d
from efflib.models.measure import Features
from efflib.models.registry import channels, image_channels, register

# Groups of MobileNetV2: expansion, channels before halving, blocks, stride (Sandler et al. 2018, Table 2, for 32 px).
GROUPS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
TAPPED_GROUPS = (1, 2, 4, 6)  # the groups whose outputs are stages, counting from 0
# Layers of MobileNetV1 behind the first convolution: channels, stride.
LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1))
TAPPED_LAYERS = (2, 4, 10, 12)


class InvertedResidual(nn.Module):
    """conv1x1 (expand), BN, ReLU, depthwise conv3x3, BN, ReLU, conv1x1, BN; identity where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.identity = stride == 1 and inputs == outputs
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = DepthwiseConv2d(hidden, stride=stride)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(hidden))
        return x + out if self.identity else out


class MobileNetV2(nn.Module):
    """Stem, seven groups of inverted residuals, a last 1x1 convolution; a student only."""

    def __init__(self, half: float, num_classes: int, width: float, in_channels: int) -> None:
        super().__init__()
        stem = channels(int(32 * half), width)
        self.conv1 = nn.Conv2d(image_channels(in_channels), stem, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        groups, inputs = [], stem
        for expansion, count, blocks, stride in GROUPS:
            outputs = channels(int(count * half), width)
            first = InvertedResidual(inputs, outputs, stride, expansion)
            rest = (InvertedResidual(outputs, outputs, 1, expansion) for _ in range(blocks - 1))
            groups.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.groups = nn.ModuleList(groups)
        last = channels(1280, width)
        self.conv2 = nn.Conv2d(inputs, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, num_classes)
        _initialise(self)

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are the outputs of groups 2, 3, 5, 7 (from 1): linear, so `preactivation` changes nothing."""
        x = F.relu(self.bn1(self.conv1(x)))
        taps = []
        for number, group in enumerate(self.groups):
            x = group(x)
            if number in TAPPED_GROUPS:
                taps.append(x)
        pooled = self.pool(F.relu(self.bn2(self.conv2(x)))).flatten(1)
        return Features(tuple(taps), pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        if stage == len(TAPPED_GROUPS):
            return self.head(self.pool(F.relu(self.bn2(self.conv2(x)))).flatten(1))
        x = F.relu(self.bn1(self.conv1(x))) if stage == 0 else x
        return _between_taps(self.groups, TAPPED_GROUPS, stage)(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


class MobileNetV1(nn.Module):
    """One convolution and 13 depthwise-separable ones; a student only."""

    def __init__(self, num_classes: int, width: float, in_channels: int, stem_stride: int) -> None:
        super().__init__()
        if stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2, got {stem_stride!r}")
        inputs = channels(32, width)
        self.conv1 = nn.Conv2d(image_channels(in_channels), inputs, 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        layers = []
        for count, stride in LAYERS:
            outputs = channels(count, width)
            layers.append(_separable(inputs, outputs, stride))
            inputs = outputs
        self.layers = nn.ModuleList(layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, num_classes)

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are the outputs of layers 4, 6, 12 and 14, counting the first convolution as 1."""
        x = F.relu(self.bn1(self.conv1(x)))
        taps = []
        for number, layer in enumerate(self.layers):
            before = layer[:-1](x)  # type: ignore[index]
            x = layer[-1](before)  # type: ignore[index]
            if number in TAPPED_LAYERS:
                taps.append(before if preactivation else x)
        pooled = self.pool(x).flatten(1)
        return Features(tuple(taps), pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        if stage == len(TAPPED_LAYERS):
            return self.head(self.pool(x).flatten(1))
        x = F.relu(self.bn1(self.conv1(x))) if stage == 0 else x
        return _between_taps(self.layers, TAPPED_LAYERS, stage)(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


def _between_taps(parts: nn.ModuleList, taps: tuple[int, ...], stage: int) -> nn.Sequential:
    """The parts behind tap number `stage` (0: from the first part on), up to the next tap."""
    start = taps[stage - 1] + 1 if stage else 0
    return nn.Sequential(*parts[start : taps[stage] + 1])


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Depthwise conv3x3, BN, ReLU, conv1x1, BN, ReLU."""
    return nn.Sequential(
        DepthwiseConv2d(inputs, stride=stride),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _initialise(model: nn.Module) -> None:
    """Convolutions N(0, sqrt(2 / fan-out)), linear N(0, 0.01) with zero bias, as RepDistiller."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


@register
def mobilenetv2_half(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """MobileNetV2 with half the channels: the MobileNetV2 of the distillation benchmarks."""
    return MobileNetV2(0.5, num_classes, width, in_channels)


@register
def mobilenetv1(num_classes: int, *, width: float = 1.0, in_channels: int = 3, stem_stride: int = 1) -> nn.Module:
    """MobileNetV1; stem_stride 1 for 64 px images, 2 to halve them at once."""
    return MobileNetV1(num_classes, width, in_channels, stem_stride)
