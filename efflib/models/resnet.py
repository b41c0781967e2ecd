"""The ResNets with four stages of 64 to 512 channels (He et al. 2016, section 4.1) and a choice of stems.

stem="cifar": 3x3, stride 1, no pooling (LeRaC, CBS, PKGD); "cifar_pool": the same, then a 3x3 max-pool of
stride 2 (the BIMask evaluation script: a quarter of the compute); "imagenet": 7x7, stride 2, then
the max-pool.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.measure import Features
from efflib.models.registry import channels, choice, image_channels, register
from efflib.models.resnet_cifar import BasicBlock, stage, through_stages

STEMS = ("cifar", "cifar_pool", "imagenet")
WIDTHS = (64, 128, 256, 512)


class Bottleneck(nn.Module):
    """conv1x1, conv3x3 (stride), conv1x1 with BN each, plus the shortcut. Returns the sum, as `BasicBlock` does.

    The middle has a quarter of the output's channels; the stride sits on the 3x3 convolution (torchvision's choice).
    `attention`, called with the output's channels, makes a module that ends the residual branch, before the addition.
    """

    expansion = 4

    def __init__(
        self, inputs: int, outputs: int, stride: int, attention: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        middle = outputs // self.expansion
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.attention = nn.Sequential() if attention is None else attention(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.attention(self.bn3(self.conv3(hidden))) + self.shortcut(x)


class ResNet(nn.Module):
    """Stem and four stages of `blocks[s]` blocks of one kind, whose outputs have `expansion` times the width.

    `after_stage`, called with a stage's channels, makes a module that ends each stage but the last; its output is the
    stage's. It must keep non-negative maps so, for `through_stages` applies a ReLU behind every part of a stage.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        num_classes: int,
        width: float,
        in_channels: int,
        stem: str,
        block: Callable[[int, int, int], nn.Module] = BasicBlock,
        expansion: int = 1,
        after_stage: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        choice("stem", stem, STEMS)
        widths = [channels(count, width) for count in WIDTHS]
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(image_channels(in_channels), widths[0], kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stem_pool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, 2, padding=1)
        outputs = [expansion * count for count in widths]
        self.stage1 = stage(widths[0], outputs[0], blocks[0], 1, block)
        self.stage2 = stage(outputs[0], outputs[1], blocks[1], 2, block)
        self.stage3 = stage(outputs[1], outputs[2], blocks[2], 2, block)
        self.stage4 = stage(outputs[2], outputs[3], blocks[3], 2, block)
        if after_stage is not None:
            for blocks_of_stage, count in zip((self.stage1, self.stage2, self.stage3), outputs[:3], strict=True):
                blocks_of_stage.add_module("attention", after_stage(count))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(outputs[3], num_classes)
        _initialise(self)

    def features(self, x: Tensor, preactivation: bool = False) -> Features:
        """Stages are the outputs of the four stages; no ReLU follows a module of `after_stage`, which
        `preactivation` therefore leaves as it is."""
        x = self.stem_pool(F.relu(self.bn1(self.conv1(x))))
        x, taps = through_stages(x, (self.stage1, self.stage2, self.stage3, self.stage4), preactivation)
        pooled = self.pool(x).flatten(1)
        return Features(taps, pooled, self.head(pooled))

    def onward(self, stage: int, x: Tensor) -> Tensor:
        """One part of the forward pass, see `efflib.models.onward`."""
        stages = (self.stage1, self.stage2, self.stage3, self.stage4)
        x = self.stem_pool(F.relu(self.bn1(self.conv1(x)))) if stage == 0 else x
        if stage < len(stages):
            return through_stages(x, stages[stage : stage + 1], False)[0]
        return self.head(self.pool(x).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


def _initialise(model: nn.Module) -> None:
    """Kaiming-normal, fan-in; linear N(0, 0.01) with zero bias. Attention modules have initialised themselves."""
    for name, module in model.named_modules():
        if "attention" in name.split("."):
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


@register
def resnet18(num_classes: int, *, width: float = 1.0, in_channels: int = 3, stem: str = "cifar") -> nn.Module:
    """ResNet18: two basic blocks per stage; stem "cifar", "cifar_pool" or "imagenet"."""
    return ResNet((2, 2, 2, 2), num_classes, width, in_channels, stem)


@register
def resnet34(num_classes: int, *, width: float = 1.0, in_channels: int = 3, stem: str = "cifar") -> nn.Module:
    """ResNet34: 3, 4, 6, 3 basic blocks; stem as for resnet18."""
    return ResNet((3, 4, 6, 3), num_classes, width, in_channels, stem)


@register
def resnet50(num_classes: int, *, width: float = 1.0, in_channels: int = 3, stem: str = "cifar") -> nn.Module:
    """ResNet50: 3, 4, 6, 3 bottlenecks; stem as for resnet18."""
    return ResNet((3, 4, 6, 3), num_classes, width, in_channels, stem, Bottleneck, Bottleneck.expansion)
