"""MobileNetV2 for brain MRI: the thesis's teacher (a wide flatten head) and its 16 students (section 3 of the spec).

The backbone has the structure and the names of torchvision's `features`, so that its ImageNet weights fit; no
activation works in place. (torchvision itself takes seconds to import; a test compares the two.)
The maps that distillation and explanation read have names: "s16", behind the expansion of the first stride-32 block
(Keras: block_13_expand_relu), and "s32", behind the last convolution.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from efflib.models.depthwise import DepthwiseConv2d
from efflib.models.imagenet import IMAGENET_INPUT
from efflib.models.measure import Features, evaluating
from efflib.models.registry import channels, choice, register
from efflib.text import unknown

# Blocks in each of the seven groups, by depth; 17 is Sandler et al. 2018, Table 2.
REPEATS = {17: (1, 2, 3, 4, 3, 3, 1), 11: (1, 1, 2, 2, 2, 2, 1)}
# Expansion, channels at width 1, stride of each group.
GROUPS = ((1, 16, 1), (6, 24, 2), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1))
TAPPED_GROUPS = (1, 2, 4)  # the groups whose outputs are stages, counting from 0; the last stage is the last map
HEADS = ("gap", "dsc", "flatten")
INPUT_NORMS = ("unit", "imagenet")
LAYERS = ("s16", "s32")


class MobileNetV2(nn.Module):
    """backbone -> (N, 1280, H / 32, W / 32) -> reduce -> (N, D) -> head -> logits.

    `backbone[0]` is the stem, `backbone[-1]` the last convolution, the blocks are between them; `deep` is the number
    of the first block with stride 32.
    """

    map_names = LAYERS
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int,
        width: float,
        depth: int,
        head: str,
        image_size: int,
        dropout: float,
        input_norm: str = "unit",
    ) -> None:
        super().__init__()
        self.input_norm = input_norm
        if input_norm == "imagenet":
            for name, values in zip(("mean", "std"), IMAGENET_INPUT):
                self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.backbone = _backbone(width, depth)
        ends = [sum(REPEATS[depth][: group + 1]) for group in range(len(GROUPS))]
        self.taps = (*(ends[group] for group in TAPPED_GROUPS), ends[-1] + 1)
        self.deep = ends[4] + 1
        last = cast(nn.Conv2d, cast(nn.Sequential, self.backbone[-1])[0]).out_channels
        if head == "dsc":
            depthwise, pointwise = _depthwise(last), _unit(last, 128, 1)
            self.reduce = nn.Sequential(depthwise, pointwise, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(128, num_classes))
        else:
            average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.reduce = nn.Sequential(Flattened(image_size)) if head == "flatten" else average
            inputs = last * (image_size // 32) ** 2 if head == "flatten" else last
            self.head = nn.Sequential(*_dense(inputs, 256, dropout), *_dense(256, 128, dropout))
            self.head.append(nn.Linear(128, num_classes))
        _initialise(self)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The named maps of images (N, 1 or 3, H, W): "s16" (N, C, H / 16, W / 16), "s32" (N, 1280, H / 32, W / 32).

        Both are behind a ReLU6; C is six times the channels of group 5 (576 at width 1).
        """
        before = self._backbone_to(0, self.deep, self._read(x))
        expanded = self._deep_parts()[0](before)
        return {"s16": expanded, "s32": self._behind_expansion(expanded)}

    def map_of(self, layer: str, found: Features) -> Tensor:
        """One map of `maps`, for the images of a forward pass that `features` has made, without repeating the pass.

        "s32" is the last stage; "s16" costs one 1x1 convolution, whose batch norm does not count the batch again.

        Raises:
            ValueError: another layer; lists those that exist.
        """
        if _layer(layer) == "s32":
            return found.stages[3]
        expansion = cast(nn.Sequential, self._deep_parts()[0])
        norm = cast(nn.BatchNorm2d, expansion[1])
        tracked, norm.track_running_stats = norm.track_running_stats, False
        try:
            return expansion(found.stages[2])
        finally:
            norm.track_running_stats = tracked

    def logits_from(self, layer: str, A: Tensor, *, as_in_eval: bool = False) -> Tensor:
        """The rest of the network behind a map of `maps`.

        Args:
            layer: "s16" or "s32".
            A: the map, (N, C, h, w).
            as_in_eval: with the same parameters, but without dropout and with the running statistics of the batch
                norms, which stay as they are: no sample then depends on another one.

        Returns:
            Logits (N, num_classes).

        Raises:
            ValueError: another layer; lists those that exist.

        Source: decision D12 of the spec.
        """
        with evaluating(self) if as_in_eval else nullcontext():
            last = self._behind_expansion(A) if _layer(layer) == "s16" else A
            return self.head(self.reduce(last))

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are the outputs of groups 2, 3 and 5 (linear) and the last map "s32"; 24, 32, 96 and 1280 channels.

        With a flatten head `pooled` is the flattened map, as it is what the head reads.
        """
        x, found = self._read(x), []
        for start, end in zip((0, *(tap + 1 for tap in self.taps[:2])), self.taps[:3]):
            x = self._backbone_to(start, end + 1, x)
            found.append(x)
        convolution, norm, activation = cast(nn.Sequential, self.backbone[-1])
        before = norm(convolution(self._backbone_to(self.deep, self.taps[3], x)))
        last = activation(before)
        pooled = self.reduce(last)
        return Features((*found, before if preactivation else last), pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        if stage == len(self.taps):
            return self.head(self.reduce(x))
        start = self.taps[stage - 1] + 1 if stage else 0
        return self._backbone_to(start, self.taps[stage] + 1, self._read(x) if stage == 0 else x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.reduce(self.backbone(self._read(x))))

    def _read(self, x: Tensor) -> Tensor:
        """Images (N, 1 or 3, H, W) as the stem takes them: three channels, normalised as `input_norm` says."""
        if x.shape[1] not in (1, 3):
            raise ValueError(f"mobilenetv2 reads images (N, 1, H, W) or (N, 3, H, W), got shape {tuple(x.shape)}")
        x = x.expand(-1, 3, -1, -1)
        return x if self.input_norm == "unit" else (x - self.mean) / self.std

    def _backbone_to(self, start: int, end: int, x: Tensor) -> Tensor:
        """Parts number `start` up to, without, `end` of the backbone."""
        for part in self.backbone[start:end]:
            x = part(x)
        return x

    def _deep_parts(self) -> nn.Sequential:
        """The first stride-32 block, which has no shortcut: expansion, depthwise convolution, projection, its BN."""
        return cast(nn.Sequential, self.backbone[self.deep].conv)

    def _behind_expansion(self, x: Tensor) -> Tensor:
        """From the expansion of the first stride-32 block to the last map."""
        return self._backbone_to(self.deep + 1, len(self.backbone), self._deep_parts()[1:](x))


class Flattened(nn.Flatten):
    """Flatten for maps of images of one size, which the layer behind it has been built for."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, x: Tensor) -> Tensor:
        side = self.image_size // 32
        if tuple(x.shape[2:]) != (side, side):
            raise ValueError(
                f"head='flatten' was built for images of {self.image_size} px, whose last map is {side}x{side}, but "
                f"this one is {x.shape[2]}x{x.shape[3]}: give create_model image_size=, or take head='gap'"
            )
        return super().forward(x)


class Block(nn.Module):
    """Inverted residual: expand 1x1 (absent at expansion 1), depthwise 3x3, both with BN and ReLU6; project 1x1, BN."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.out_channels, self.identity = outputs, stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([] if expansion == 1 else [_unit(inputs, hidden, 1)]),
            _depthwise(hidden, stride),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.identity else self.conv(x)


def _backbone(width: float, depth: int) -> nn.Sequential:
    """Stem, blocks and last convolution."""
    inputs, blocks = _rounded(32 * width), []
    stem = _unit(3, inputs, 3, stride=2)
    for (expansion, count, first_stride), repeats in zip(GROUPS, REPEATS[depth]):
        outputs = _rounded(count * width)
        for number in range(repeats):
            blocks.append(Block(inputs, outputs, 1 if number else first_stride, expansion))
            inputs = outputs
    return nn.Sequential(stem, *blocks, _unit(inputs, _rounded(1280 * max(1.0, width)), 1))


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, BN, ReLU6."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


def _depthwise(count: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3 x 3 convolution, BN, ReLU6."""
    return nn.Sequential(DepthwiseConv2d(count, stride=stride), nn.BatchNorm2d(count), nn.ReLU6())


def _rounded(count: float) -> int:
    """The nearest multiple of 8 (half up), at least 8 and at least 90 % of the count."""
    nearest = max(8, int(count + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * count else nearest


def _dense(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)


def _initialise(model: nn.Module) -> None:
    """Convolutions N(0, sqrt(2 / fan-out)) as torchvision's MobileNetV2, linear layers as Keras: Glorot, zero bias.

    Torchvision's N(0, 0.01) is made for one linear layer; three of them in a row would let the signal vanish.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.is_meta:
            continue  # shapes without values, to be counted: drawing them would take seconds
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def _layer(name: str) -> str:
    if name not in LAYERS:
        raise ValueError(unknown("layer of mobilenetv2", name, LAYERS))
    return name


@register
def mobilenetv2(
    num_classes: int,
    *,
    width: float = 1.0,
    depth: int = 17,
    head: str = "gap",
    image_size: int = 224,
    dropout: float = 0.3,
    in_channels: int = 3,
    input_norm: str = "unit",
) -> nn.Module:
    """MobileNetV2 with one of three heads; all 16 students and the teacher of the thesis.

    Args:
        num_classes: outputs.
        width: multiplier of the channels: the nearest multiple of 8, never below 90 %; the last 1280 stay below 1.
        depth: blocks, 17 or 11.
        head: "gap" (global average, dense 256, 128), "dsc" (depthwise-separable convolution to 128 channels, global
            average, one dense layer), "flatten" (dense 256, 128 on the flattened map: the teacher).
        image_size: pixels of the images' side, a multiple of 32; read by the flatten head only.
        dropout: share of units dropped before each dense layer but the first one of "gap" and "flatten".
        in_channels: 1 or 3. The stem has three: one channel is replicated, so the parameters are the same.
        input_norm: "unit" reads pixels in 0..1 as they are; "imagenet" first normalises them by `IMAGENET_INPUT`, as
            torchvision's weights require.

    Raises:
        ValueError: a value that is not allowed.
    """
    channels(8, width)  # its check of the width; it rounds otherwise
    choice("head", head, HEADS)
    if depth not in REPEATS:
        raise ValueError(f"depth of mobilenetv2 must be 17 or 11 blocks, got {depth!r}")
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 32 or image_size % 32:
        raise ValueError(f"image_size must be a positive multiple of 32, got {image_size!r}")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), the probability of zeroing a value, got {dropout!r}")
    if isinstance(in_channels, bool) or in_channels not in (1, 3):
        raise ValueError(f"in_channels of mobilenetv2 must be 1 or 3, got {in_channels!r}")
    choice("input_norm", input_norm, INPUT_NORMS)
    return MobileNetV2(num_classes, width, depth, head, image_size, dropout, input_norm)
