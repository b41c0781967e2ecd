"""VGG for 32- and 64-pixel images, with batch norm, as in RepDistiller and mdistiller.

Five blocks of 3x3 convolutions (with bias) + BN + ReLU; 2x2 max-pool after blocks 0, 1 and 2, so that
blocks 3 and 4 both run at 4x4 on 32-pixel images; a fourth pool only for 64-pixel images; global average
pool; one linear layer.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.measure import Features
from efflib.models.registry import channels, image_channels, register

WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """VGG with `repeats[b]` convolutions in block b."""

    def __init__(self, repeats: tuple[int, ...], num_classes: int, width: float, in_channels: int) -> None:
        super().__init__()
        widths = [channels(count, width) for count in WIDTHS]
        inputs = [image_channels(in_channels), *widths]
        self.block0 = _block(inputs[0], widths[0], repeats[0])
        self.block1 = _block(inputs[1], widths[1], repeats[1])
        self.block2 = _block(inputs[2], widths[2], repeats[2])
        self.block3 = _block(inputs[3], widths[3], repeats[3])
        self.block4 = _block(inputs[4], widths[4], repeats[4])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[4], num_classes)
        _initialise(self)

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are blocks 1 to 4, each before its max-pool."""
        pools = (True, True, True, x.shape[-1] == 64, False)
        before, after = [], []
        for block, halve in zip((self.block0, self.block1, self.block2, self.block3, self.block4), pools):
            for layer in block:
                normed, x = x, layer(x)  # a block ends with BN, ReLU: `normed` is what its last ReLU read
            before.append(normed)
            after.append(x)
            x = F.max_pool2d(x, 2) if halve else x
        pooled = self.pool(x).flatten(1)
        return Features(tuple((before if preactivation else after)[1:]), pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        if stage == 4:
            return self.head(self.pool(x).flatten(1))
        if stage == 0:
            x = self.block0(x)
        halve = stage < 3 or x.shape[-1] == 8  # block 3 gives 8 px for images of 64
        return (self.block1, self.block2, self.block3, self.block4)[stage](F.max_pool2d(x, 2) if halve else x)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


def _block(inputs: int, outputs: int, repeat: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(repeat):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers)


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, math.sqrt(2 / (9 * module.out_channels)))
            nn.init.zeros_(module.get_parameter("bias"))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


@register
def vgg8(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """VGG8: one convolution per block."""
    return VGG((1, 1, 1, 1, 1), num_classes, width, in_channels)


@register
def vgg11(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """VGG11: 1, 1, 2, 2, 2 convolutions."""
    return VGG((1, 1, 2, 2, 2), num_classes, width, in_channels)


@register
def vgg13(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """VGG13: two convolutions per block."""
    return VGG((2, 2, 2, 2, 2), num_classes, width, in_channels)


@register
def vgg16(num_classes: int, *, width: float = 1.0, in_channels: int = 3) -> nn.Module:
    """VGG16: 2, 2, 3, 3, 3 convolutions."""
    return VGG((2, 2, 3, 3, 3), num_classes, width, in_channels)
