"""ShuffleNets for CIFAR, as in RepDistiller: a 1x1 stem of 24 channels, three stages, students only.

V1 (Zhang et al. 2018): grouped 1x1 convolutions with a channel shuffle, 3 groups; V2 (Ma et al. 2018): channel split.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.depthwise import DepthwiseConv2d
from efflib.models.measure import Features
from efflib.models.registry import channels, image_channels, register
from efflib.models.resnet_cifar import through_stages

GROUPS = 3


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` groups: (N, g * c, H, W) -> the same, channel order transposed."""
    N, C, H, W = x.shape
    return x.view(N, groups, C // groups, H, W).transpose(1, 2).reshape(N, C, H, W)


class UnitV1(nn.Module):
    """Grouped conv1x1, shuffle, depthwise conv3x3, grouped conv1x1; added to the input, or concatenated at stride 2.

    Returns the value before its last ReLU; the network applies it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        made = outputs - inputs if stride == 2 else outputs
        middle = _multiple(made // 4, GROUPS)
        self.conv1 = nn.Conv2d(inputs, middle, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = DepthwiseConv2d(middle, stride=stride)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, made, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(made)

    def forward(self, x: Tensor) -> Tensor:
        hidden = shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(hidden)))))
        if self.stride == 2:
            return torch.cat([out, F.avg_pool2d(x, 3, 2, padding=1)], dim=1)
        return out + x


class ShuffleNetV1(nn.Module):
    """Stages of 240, 480 and 960 channels with 4, 8 and 4 units."""

    def __init__(self, num_classes: int, width: float, in_channels: int) -> None:
        super().__init__()
        # Every count must divide into 3 groups and a quarter: multiples of 24 do.
        widths = [_multiple(channels(count, width), 24) for count in (240, 480, 960)]
        self.conv1 = nn.Conv2d(image_channels(in_channels), 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.stage1 = _stage_v1(24, widths[0], 4, first_groups=1)
        self.stage2 = _stage_v1(widths[0], widths[1], 8, first_groups=GROUPS)
        self.stage3 = _stage_v1(widths[1], widths[2], 4, first_groups=GROUPS)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[2], num_classes)

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


class DownUnitV2(nn.Module):
    """Two branches, both with stride 2, concatenated and shuffled: half the output's channels each."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(
            DepthwiseConv2d(inputs, stride=2),
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
        )
        self.right = nn.Sequential(
            nn.Conv2d(inputs, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            DepthwiseConv2d(half, stride=2),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the same without the right branch's last ReLU."""
        left, right = self.left(x), self.right(x)
        return shuffle(torch.cat([left, F.relu(right)], 1), 2), shuffle(torch.cat([left, right], 1), 2)


class UnitV2(nn.Module):
    """Half of the channels pass, the other half goes through three convolutions; concatenated and shuffled."""

    def __init__(self, count: int) -> None:
        super().__init__()
        half = count // 2
        self.right = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            DepthwiseConv2d(half),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the same without the last ReLU."""
        kept, changed = x.chunk(2, dim=1)
        right = self.right(changed)
        return shuffle(torch.cat([kept, F.relu(right)], 1), 2), shuffle(torch.cat([kept, right], 1), 2)


class ShuffleNetV2(nn.Module):
    """Stages of 116, 232 and 464 channels with 4, 8 and 4 units, then a 1x1 convolution to 1024."""

    def __init__(self, num_classes: int, width: float, in_channels: int) -> None:
        super().__init__()
        widths = [channels(count, width) for count in (116, 232, 464)]
        last = channels(1024, width)
        self.conv1 = nn.Conv2d(image_channels(in_channels), 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.stage1 = _stage_v2(24, widths[0], 4)
        self.stage2 = _stage_v2(widths[0], widths[1], 8)
        self.stage3 = _stage_v2(widths[1], widths[2], 4)
        self.conv2 = nn.Conv2d(widths[2], last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, num_classes)

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are the outputs of the three stages; the pooled vector comes from the last 1x1 convolution."""
        x = F.relu(self.bn1(self.conv1(x)))
        taps = []
        for units in (self.stage1, self.stage2, self.stage3):
            for unit in units:
                x, before = unit(x)
            taps.append(before if preactivation else x)
        pooled = self.pool(F.relu(self.bn2(self.conv2(x)))).flatten(1)
        return Features(tuple(taps), pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        stages = (self.stage1, self.stage2, self.stage3)
        x = F.relu(self.bn1(self.conv1(x))) if stage == 0 else x
        if stage == len(stages):
            return self.head(self.pool(F.relu(self.bn2(self.conv2(x)))).flatten(1))
        for unit in stages[stage]:
            x, _ = unit(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


def _stage_v1(inputs: int, outputs: int, units: int, first_groups: int) -> nn.Sequential:
    first = UnitV1(inputs, outputs, 2, first_groups)
    return nn.Sequential(first, *(UnitV1(outputs, outputs, 1, GROUPS) for _ in range(units - 1)))


def _stage_v2(inputs: int, outputs: int, units: int) -> nn.Sequential:
    return nn.Sequential(DownUnitV2(inputs, outputs), *(UnitV2(outputs) for _ in range(units - 1)))


def _multiple(count: int, of: int) -> int:
    """The nearest multiple at or above which a grouped convolution can work."""
    return max(of, count // of * of) if count % of else count


@register
def shufflenetv1(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ShuffleNetV1 with 3 groups."""
    return ShuffleNetV1(num_classes, width, in_channels)


@register
def shufflenetv2(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """ShuffleNetV2, size 1x."""
    return ShuffleNetV2(num_classes, width, in_channels)
