"""Wide ResNets: pre-activation blocks, depth 6n + 4 (Zagoruyko and Komodakis 2016).

`wrn_52_2` is the "Wide-ResNet-50" of the CIFAR code of LeRaC and CBS, n = 8: every convolution has a bias,
dropout sits between the two convolutions of a block, the second one carries the stride, and the shortcut is a
bare 1x1 convolution of the block's raw input. (torchvision's wide_resnet50_2 is another, far larger network.)
`wrn_16_2`, `wrn_40_1` and `wrn_40_2` are RepDistiller's: no convolution biases, no dropout, the stride on the first
convolution, and a 1x1 convolution of the *activated* input as shortcut where the widths differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.measure import Features
from efflib.models.registry import channels, image_channels, register


@dataclass(frozen=True)
class Style:
    """What differs between the two code bases' blocks; see the top of the file."""

    bias: bool
    dropout: float
    late_stride: bool
    raw_shortcut: bool
    final_momentum: float


class WideBlock(nn.Module):
    """BN - ReLU - conv3x3 - dropout - BN - ReLU - conv3x3, plus the shortcut; one convolution carries the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, style: Style) -> None:
        super().__init__()
        first, second = (1, stride) if style.late_stride else (stride, 1)
        self.raw_shortcut = style.raw_shortcut
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, first, padding=1, bias=style.bias)
        self.dropout = nn.Dropout(style.dropout)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, second, padding=1, bias=style.bias)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=style.bias))

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """`normed`: bn1(x), if known already. Computing it twice would move the running statistics twice."""
        active = F.relu(self.bn1(x) if normed is None else normed)
        hidden = self.dropout(self.conv1(active))
        projected = len(self.shortcut) > 0 and not self.raw_shortcut
        return self.conv2(F.relu(self.bn2(hidden))) + self.shortcut(active if projected else x)


class WideResNet(nn.Module):
    """Stem of 16 channels and three stages of `blocks` pre-activation blocks."""

    def __init__(self, blocks: int, widen: int, num_classes: int, width: float, in_channels: int, style: Style) -> None:
        super().__init__()
        stem, *widths = (channels(count, width) for count in (16, 16 * widen, 32 * widen, 64 * widen))
        self.conv1 = nn.Conv2d(image_channels(in_channels), stem, 3, padding=1, bias=style.bias)
        self.stage1 = _stage(stem, widths[0], blocks, 1, style)
        self.stage2 = _stage(widths[0], widths[1], blocks, 2, style)
        self.stage3 = _stage(widths[1], widths[2], blocks, 2, style)
        self.bn = nn.BatchNorm2d(widths[2], momentum=style.final_momentum)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[2], num_classes)

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are the raw block outputs, or (preactivation) what the next batch norm makes of them."""
        x = self.conv1(x)
        raw, under_bn = [], []
        for blocks in (self.stage1, self.stage2, self.stage3):
            for number, block in enumerate(blocks):
                normed = block.bn1(x)  # type: ignore[operator]
                if number == 0:  # this batch norm reads the stage before (for stage 1: the stem, dropped below)
                    under_bn.append(normed)
                x = block(x, normed)
            raw.append(x)
        under_bn.append(self.bn(x))
        pooled = self.pool(F.relu(under_bn[-1])).flatten(1)
        return Features(tuple(under_bn[1:] if preactivation else raw), pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        stages = (self.stage1, self.stage2, self.stage3)
        x = self.conv1(x) if stage == 0 else x
        if stage < len(stages):
            return stages[stage](x)
        return self.head(self.pool(F.relu(self.bn(x))).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int, style: Style) -> nn.Sequential:
    first = WideBlock(inputs, outputs, stride, style)
    return nn.Sequential(first, *(WideBlock(outputs, outputs, 1, style) for _ in range(blocks - 1)))


def _repdistiller(depth: int, widen: int, num_classes: int, width: float, in_channels: int) -> nn.Module:
    style = Style(bias=False, dropout=0.0, late_stride=False, raw_shortcut=False, final_momentum=0.1)
    model = WideResNet((depth - 4) // 6, widen, num_classes, width, in_channels, style)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return model


@register
def wrn_52_2(num_classes: int, *, width: float = 1.0, in_channels: int = 3, dropout: float = 0.3) -> nn.Module:
    """WRN-52-2: n = 8, stages of 32, 64, 128 channels; initialised as PyTorch does by default."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), the probability of zeroing a value, got {dropout!r}")
    style = Style(bias=True, dropout=dropout, late_stride=True, raw_shortcut=True, final_momentum=0.9)
    return WideResNet(8, 2, num_classes, width, in_channels, style)


@register
def wrn_16_2(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """WRN-16-2: n = 2, stages of 32, 64, 128 channels."""
    return _repdistiller(16, 2, num_classes, width, in_channels)


@register
def wrn_40_1(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """WRN-40-1: n = 6, stages of 16, 32, 64 channels."""
    return _repdistiller(40, 1, num_classes, width, in_channels)


@register
def wrn_40_2(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """WRN-40-2: n = 6, stages of 32, 64, 128 channels."""
    return _repdistiller(40, 2, num_classes, width, in_channels)
