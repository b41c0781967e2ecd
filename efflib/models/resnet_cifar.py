"""The thin ResNets of CIFAR: depth 6n + 2, three stages of n basic blocks (He et al. 2016, section 4.2).

A shortcut is a 1x1 convolution + BN where the shape changes, as in RepDistiller (He et al. pad with zeros).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.measure import Features
from efflib.models.registry import channels, image_channels, register


class BasicBlock(nn.Module):
    """conv3x3, BN, ReLU, conv3x3, BN, plus the shortcut. Returns the sum; the network applies the ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x)


class ResNetCIFAR(nn.Module):
    """Stem and three stages of `blocks` basic blocks; `widths` are those of the stem and of the stages."""

    def __init__(
        self,
        blocks: int,
        num_classes: int,
        width: float,
        in_channels: int,
        widths: tuple[int, ...] = (16, 16, 32, 64),
    ) -> None:
        super().__init__()
        stem, *stages = (channels(count, width) for count in widths)
        self.conv1 = nn.Conv2d(image_channels(in_channels), stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.stage1 = stage(stem, stages[0], blocks, stride=1)
        self.stage2 = stage(stages[0], stages[1], blocks, stride=2)
        self.stage3 = stage(stages[1], stages[2], blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(stages[2], num_classes)
        _initialise(self)

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are the outputs of the three stages."""
        x = F.relu(self.bn1(self.conv1(x)))
        x, taps = through_stages(x, (self.stage1, self.stage2, self.stage3), preactivation)
        pooled = self.pool(x).flatten(1)
        return Features(taps, pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        stages = (self.stage1, self.stage2, self.stage3)
        x = F.relu(self.bn1(self.conv1(x))) if stage == 0 else x
        if stage < len(stages):
            return through_stages(x, stages[stage : stage + 1], False)[0]
        return self.head(self.pool(x).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


def through_stages(x: Tensor, stages: tuple[nn.Module, ...], preactivation: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run stages whose blocks return the sum before its ReLU: the last map, and each stage's before or after it."""
    taps = []
    for blocks in stages:
        for block in blocks.children():
            total = block(x)
            x = F.relu(total)
        taps.append(total if preactivation else x)
    return x, tuple(taps)


def stage(
    inputs: int, outputs: int, blocks: int, stride: int, block: Callable[[int, int, int], nn.Module] = BasicBlock
) -> nn.Sequential:
    """Blocks of one width; the first one changes the width and carries the stride."""
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


def _initialise(model: nn.Module) -> None:
    """Kaiming-normal, fan-out; the linear layer keeps PyTorch's default."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@register
def resnet14(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ResNet14: n = 2."""
    return ResNetCIFAR(2, num_classes, width, in_channels)


@register
def resnet20(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ResNet20: n = 3."""
    return ResNetCIFAR(3, num_classes, width, in_channels)


@register
def resnet32(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ResNet32: n = 5."""
    return ResNetCIFAR(5, num_classes, width, in_channels)


@register
def resnet56(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ResNet56: n = 9."""
    return ResNetCIFAR(9, num_classes, width, in_channels)


@register
def resnet110(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ResNet110: n = 18."""
    return ResNetCIFAR(18, num_classes, width, in_channels)


# RepDistiller's "x4" networks: a stem of 32 and stages of 64, 128, 256, so the first stage has a shortcut too.
WIDE = (32, 64, 128, 256)


@register
def resnet8x4(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ResNet8x4: n = 1, four times as wide."""
    return ResNetCIFAR(1, num_classes, width, in_channels, WIDE)


@register
def resnet32x4(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ResNet32x4: n = 5, four times as wide."""
    return ResNetCIFAR(5, num_classes, width, in_channels, WIDE)
