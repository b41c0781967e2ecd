"""ResNet50 with attention modules, peers in EncodeNet's table 5: SE, CBAM, BAM, GAM, and GAM with group convolution.

Every module maps (N, C, H, W) to the same shape by multiplying with gates. SE, CBAM and GAM end each residual branch
(after its last BN, before the addition, 16 times); BAM follows stages 1, 2 and 3. The table prints parameter counts
only: where the papers leave biases, batch norms and widths open, the modules take what makes those counts fit.
Source: EncodeNet, table 5; section 3 of its spec for the counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from efflib.models.registry import choice, register
from efflib.models.resnet import Bottleneck, ResNet
from efflib.models.shufflenet import shuffle

COMBINATIONS = ("product", "sum")
GROUPS = 4


class SEBlock(nn.Module):
    """Squeeze-and-excitation: each channel times a gate that the averages of all channels decide.

    gate (N, C, 1, 1) = sigmoid(W2 relu(W1 mean_hw(x))), with C/r hidden units; x gate.
    Without biases, as the paper's equation: ResNet50 then has 26.22 M parameters (26.24 M with them).

    Args:
        channels: C.
        reduction: r, from 1 to C; C/r is rounded down.

    Raises:
        ValueError: reduction out of range.

    Source: Hu et al. 2018, Eq. 2 to 4.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = _hidden(channels, reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False)
        )

    def gate(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1), in (0, 1)."""
        return self.mlp(x.mean((2, 3))).sigmoid()[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class CBAMBlock(nn.Module):
    """Convolutional block attention: a gate per channel, then a gate per pixel of what the first one leaves.

    channel (N, C, 1, 1) = sigmoid(mlp(mean_hw(x)) + mlp(max_hw(x))), spatial (N, 1, H, W) = sigmoid(BN(conv7x7([
    max_c(y), mean_c(y)]))) with y = x channel; y spatial. The MLP, with C/r hidden units, has biases, the convolution
    has none: ResNet50 then has 26.24 M parameters (26.22 M without the MLP's biases). As in the authors' code, the BN
    has momentum 0.01 and a scale that starts at zero: the spatial gate starts at 0.5 everywhere, and its convolution
    learns from the second step on.

    Args:
        channels: C.
        reduction: r, from 1 to C; C/r is rounded down.

    Raises:
        ValueError: reduction out of range.

    Source: Woo et al. 2018, Eq. 1 to 3; github.com/Jongchan/attention-module.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = _hidden(channels, reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)
        _initialise(self)
        nn.init.zeros_(self.bn.weight)

    def channel_gate(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1), in (0, 1)."""
        return (self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))).sigmoid()[:, :, None, None]

    def spatial_gate(self, x: Tensor) -> Tensor:
        """(N, 1, H, W), in (0, 1); x is what the channel gate left."""
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return self.bn(self.conv(pooled)).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_gate(x)
        return x * self.spatial_gate(x)


class BAMBlock(nn.Module):
    """Bottleneck attention: one gate per value, from a channel branch and a spatial branch side by side.

    x (1 + gate), gate (N, C, H, W) = sigmoid(channel combined with spatial). channel (N, C, 1, 1): mean_hw, linear to
    C/r, BN, ReLU, linear; spatial (N, 1, H, W): conv1x1 to C/r, two conv3x3 of dilation 4, each with BN and ReLU,
    conv1x1 to 1. All with biases: ResNet50 then has 24.06 M parameters. The paper's equations end each branch with a
    BN; the authors' code, followed here, has BNs inside only.

    Args:
        channels: C.
        reduction: r, from 1 to C; C/r is rounded down.
        combine: "product", as the authors' code and hence probably the published numbers, or "sum", as the paper.

    Raises:
        ValueError: reduction out of range, unknown combine; when training, a batch of one image.

    Source: Park et al. 2018, Eq. 1 to 4; github.com/Jongchan/attention-module.
    """

    def __init__(self, channels: int, reduction: int = 16, combine: str = "product") -> None:
        super().__init__()
        hidden = _hidden(channels, reduction)
        self.combine = choice("combine", combine, COMBINATIONS)
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        layers: list[nn.Module] = [nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(hidden, hidden, 3, padding=4, dilation=4), nn.BatchNorm2d(hidden), nn.ReLU()]
        self.spatial = nn.Sequential(*layers, nn.Conv2d(hidden, 1, 1))
        _initialise(self)

    def gate(self, x: Tensor) -> Tensor:
        """(N, C, H, W), in (0, 1)."""
        if self.channel[1].training and len(x) == 1:
            raise ValueError(
                "BAM normalises each image's channel averages over the batch, so training needs at least 2 images per "
                "batch, got 1: change the batch size, drop the last batch, or call model.eval() to predict"
            )
        channel, spatial = self.channel(x.mean((2, 3)))[:, :, None, None], self.spatial(x)
        return (channel * spatial if self.combine == "product" else channel + spatial).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.gate(x))


class GAMBlock(nn.Module):
    """Global attention: a gate per value from its pixel's channels, then a gate per value from its neighbourhood.

    channel (N, C, H, W) = sigmoid(mlp(x)), the MLP applied to each pixel, C/r hidden units; spatial (N, C, H, W) =
    sigmoid(conv7x7(relu(BN(conv7x7(y))))) with y = x channel, C/r channels in the middle; y spatial. The MLP has
    biases, the convolutions have none, and no BN follows the second: ResNet50 then has 149.47 M parameters (149.52 M
    with all of these). `groups` > 1 is the paper's variant with group convolution: both convolutions are grouped and
    the channels of the spatial gate are shuffled (57.05 M with 4). Copies of this module in circulation leave out the
    sigmoid of the channel gate; the paper's description has it.

    Args:
        channels: C, a multiple of groups.
        reduction: r, from 1 to C; C/r is rounded down, then, if need be, up to a multiple of groups.
        groups: of the 7x7 convolutions and of the shuffle.

    Raises:
        ValueError: reduction out of range, groups that do not divide C.

    Source: Liu, Shao and Hoffmann 2021, Eq. 1 and 2, figures 2 and 3.
    """

    def __init__(self, channels: int, reduction: int = 16, groups: int = 1) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(f"groups must divide the {channels} channels, got {groups!r}")
        hidden = _hidden(channels, reduction)
        middle = -(-hidden // groups) * groups
        self.groups = groups
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, middle, 7, padding=3, groups=groups, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, channels, 7, padding=3, groups=groups, bias=False),
        )
        _initialise(self)

    def channel_gate(self, x: Tensor) -> Tensor:
        """(N, C, H, W), in (0, 1)."""
        return self.mlp(x.movedim(1, -1)).movedim(-1, 1).sigmoid()

    def spatial_gate(self, x: Tensor) -> Tensor:
        """(N, C, H, W), in (0, 1); x is what the channel gate left."""
        gate = self.spatial(x).sigmoid()
        return shuffle(gate, self.groups) if self.groups > 1 else gate

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_gate(x)
        return x * self.spatial_gate(x)


def _hidden(channels: int, reduction: int) -> int:
    """Width inside a module.

    Raises:
        ValueError: not a whole number, or nothing would be left.
    """
    if isinstance(reduction, bool) or not isinstance(reduction, int) or not 1 <= reduction <= channels:
        raise ValueError(
            f"reduction must be a whole number from 1 to {channels}, the channels that the module reads (16 leaves a "
            f"sixteenth of them inside), got {reduction!r}"
        )
    return channels // reduction


def _initialise(module: nn.Module) -> None:
    """Convolutions Kaiming-normal, fan-in, as the network around them; linear weights as PyTorch does; biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def _resnet50(
    num_classes: int,
    width: float,
    in_channels: int,
    stem: str,
    in_branch: Callable[[int], nn.Module] | None = None,
    after_stage: Callable[[int], nn.Module] | None = None,
) -> nn.Module:
    block = partial(Bottleneck, attention=in_branch)
    return ResNet((3, 4, 6, 3), num_classes, width, in_channels, stem, block, Bottleneck.expansion, after_stage)


@register
def resnet50_se(
    num_classes: int, *, width: float = 1.0, in_channels: int = 3, stem: str = "cifar", reduction: int = 16
) -> nn.Module:
    """ResNet50 whose residual branches end with `SEBlock`; stem as for resnet18."""
    return _resnet50(num_classes, width, in_channels, stem, partial(SEBlock, reduction=reduction))


@register
def resnet50_cbam(
    num_classes: int, *, width: float = 1.0, in_channels: int = 3, stem: str = "cifar", reduction: int = 16
) -> nn.Module:
    """ResNet50 whose residual branches end with `CBAMBlock`; stem as for resnet18."""
    return _resnet50(num_classes, width, in_channels, stem, partial(CBAMBlock, reduction=reduction))


@register
def resnet50_bam(
    num_classes: int,
    *,
    width: float = 1.0,
    in_channels: int = 3,
    stem: str = "cifar",
    reduction: int = 16,
    combine: str = "product",
) -> nn.Module:
    """ResNet50 with `BAMBlock` after stages 1, 2 and 3, whose outputs are the attended maps; stem as for resnet18."""
    attention = partial(BAMBlock, reduction=reduction, combine=combine)
    return _resnet50(num_classes, width, in_channels, stem, after_stage=attention)


@register
def resnet50_gam(
    num_classes: int, *, width: float = 1.0, in_channels: int = 3, stem: str = "cifar", reduction: int = 16
) -> nn.Module:
    """ResNet50 whose residual branches end with `GAMBlock`; stem as for resnet18."""
    return _resnet50(num_classes, width, in_channels, stem, partial(GAMBlock, reduction=reduction))


@register
def resnet50_gam_gc(
    num_classes: int, *, width: float = 1.0, in_channels: int = 3, stem: str = "cifar", reduction: int = 16
) -> nn.Module:
    """ResNet50 whose residual branches end with `GAMBlock` of 4 groups; stem as for resnet18."""
    attention = partial(GAMBlock, reduction=reduction, groups=GROUPS)
    return _resnet50(num_classes, width, in_channels, stem, attention)
