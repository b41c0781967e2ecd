"""Wide ResNets: pre-activation blocks, depth 6n + 4 (Zagoruyko and Komodakis 2016).

`wrn_52_2` is the "Wide-ResNet-50" of the CIFAR code of LeRaC and CBS, n = 8: every convolution has a bias,
dropout sits between the two convolutions of a block, the second one carries the stride, and the shortcut is a
bare 1x1 convolution of the block's raw input. (torchvision's wide_resnet50_2 is another, far larger network.)
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.measure import Features
from efflib.models.registry import channels, image_channels, register


class WideBlock(nn.Module):
    """BN - ReLU - conv3x3 - dropout - BN - ReLU - conv3x3 (stride), plus the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """`normed`: bn1(x), if known already. Computing it twice would move the running statistics twice."""
        normed = self.bn1(x) if normed is None else normed
        hidden = self.dropout(self.conv1(F.relu(normed)))
        return self.conv2(F.relu(self.bn2(hidden))) + self.shortcut(x)


class WideResNet(nn.Module):
    """Stem of 16 channels and three stages of `blocks` pre-activation blocks."""

    def __init__(
        self, blocks: int, widen: int, num_classes: int, width: float, in_channels: int, dropout: float
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), the probability of zeroing a value, got {dropout!r}")
        stem, *widths = (channels(count, width) for count in (16, 16 * widen, 32 * widen, 64 * widen))
        self.conv1 = nn.Conv2d(image_channels(in_channels), stem, 3, padding=1)
        self.stage1 = _stage(stem, widths[0], blocks, 1, dropout)
        self.stage2 = _stage(widths[0], widths[1], blocks, 2, dropout)
        self.stage3 = _stage(widths[1], widths[2], blocks, 2, dropout)
        self.bn = nn.BatchNorm2d(widths[2], momentum=0.9)
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

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int, dropout: float) -> nn.Sequential:
    first = WideBlock(inputs, outputs, stride, dropout)
    return nn.Sequential(first, *(WideBlock(outputs, outputs, 1, dropout) for _ in range(blocks - 1)))


@register
def wrn_52_2(num_classes: int, *, width: float = 1.0, in_channels: int = 3, dropout: float = 0.3) -> nn.Module:
    """WRN-52-2: n = 8, stages of 32, 64, 128 channels; initialised as PyTorch does by default."""
    return WideResNet(8, 2, num_classes, width, in_channels, dropout)
