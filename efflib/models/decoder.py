"""Decoders that turn a classifier's last feature map back into an image (EncodeNet; its paper gives no layout).

UpBlock(a, b): nearest x2 upsampling, 3x3 convolution a -> b without bias, BN, ReLU. The last layer is a 3x3 convolution
with bias and a sigmoid: pixels in [0, 1].
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.registry import channels, choice

BOTTLENECKS = ("map", "pooled")
WIDEST = 512  # a map with more channels is narrowed first by a 1x1 convolution
START = (256, 4)  # channels and side of the map that a pooled vector is spread into


class Decoder(nn.Module):
    """Feature map or pooled vector of an encoder -> images (N, 3, side, side) in [0, 1].

    "map": blocks double the map until the image's size, 64 channels at the last and twice as many at each before.
    "pooled": a linear layer makes a 256 x 4 x 4 map of the vector (a nearest upsampling straight from 1 x 1 could show
    hardly any positions), then blocks with 128, 64 and 64 channels.

    Args:
        channels_in: C of the encoder's last map (N, C, h, h), which is also the length of its pooled vector.
        map_side: h.
        side: of the images, h times a power of two.
        bottleneck: which of the two is decoded.
        width: multiplier of the decoder's own channel counts.
        image_channels: of the images.

    Raises:
        ValueError: sides that do not meet, an unknown bottleneck, or a width out of range.

    Source: section 3 of the EncodeNet spec; the paper (section 3.1) says only "convolutional and upsampling layers".
    """

    def __init__(
        self,
        channels_in: int,
        map_side: int,
        side: int = 32,
        bottleneck: str = "map",
        width: float = 1.0,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.bottleneck = choice("bottleneck", bottleneck, BOTTLENECKS)
        entry: nn.Module
        if bottleneck == "pooled":
            first, map_side = START
            entry, inputs = _spread(channels_in, channels(first, width), map_side), channels(first, width)
        else:
            entry, inputs = _narrowed(channels_in, width)
        doublings = _doublings(map_side, side)
        counts = [64 * 2**power for power in reversed(range(doublings))]
        if bottleneck == "pooled":
            counts = [*counts[1:], 64]
        layers: list[nn.Module] = [entry]
        for count in counts:
            layers.append(_up(inputs, channels(count, width)))
            inputs = channels(count, width)
        self.layers = nn.Sequential(*layers)
        self.image = nn.Conv2d(inputs, image_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.image(self.layers(x)).sigmoid()


class UpConv2d(nn.Conv2d):
    """Nearest x2 upsampling, then a 3x3 convolution without bias: (N, C, H, W) -> (N, outputs, 2 H, 2 W).

    Weights and their initial values are those of `nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)`, and so are
    the counts of `count_macs`: 9 products per output pixel and input channel. What is computed is equal and cheaper:
    each output pixel sees only four different input pixels, so those weights that meet the same one are added first,
    which makes a transposed 4x4 convolution of stride 2.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        spread = F.pad(self.weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
        kernel = F.avg_pool2d(spread, 2, stride=1, divisor_override=1)  # sums of 2x2: one input pixel fills as many
        return F.conv_transpose2d(x, kernel, stride=2, padding=1)


def _doublings(map_side: int, side: int) -> int:
    power = math.log2(side / map_side) if map_side > 0 else -1
    if power < 0 or power != int(power):
        raise ValueError(
            f"the encoder's map has side {map_side} and the images {side}: blocks that double the map never meet it. "
            "Take images whose side is the map's times a power of two, or bottleneck='pooled'"
        )
    return int(power)


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(UpConv2d(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU())


def _spread(inputs: int, outputs: int, side: int) -> nn.Sequential:
    linear = nn.Linear(inputs, outputs * side * side)
    return nn.Sequential(linear, nn.Unflatten(1, (outputs, side, side)), nn.BatchNorm2d(outputs), nn.ReLU())


def _narrowed(inputs: int, width: float) -> tuple[nn.Module, int]:
    if inputs <= WIDEST:
        return nn.Identity(), inputs
    outputs = channels(WIDEST, width)
    convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()), outputs
