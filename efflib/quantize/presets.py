"""How the compressed networks are trained: the published code's two settings and our own (section 4 of the spec)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from efflib.quantize.layers import Exponent, required
from efflib.quantize.restore import Restoration
from efflib.quantize.sizes import Norm
from efflib.text import unknown

GAMMAS = (0.003, 0.01, 0.03, 0.1, 0.3)  # the sweep of `default`


@dataclass(frozen=True)
class Preset:
    """One setting for one network.

    Loss: CE + l1 sum|W| + gamma Q + preservation_weight CE(preservation set); unsafe runs set preservation_weight to 0
    and restore nothing. bits, exponent: at the start. batch, preserved: samples per step of each. gamma: None where the
    table says "sweep": choose one of GAMMAS. norm: of Q. decay: what weight_decay acts on. eps_bits: Adam's epsilon for
    the bits; 1e-3 restores the dependence of their step on gamma. cosine_tail: last share of the steps, over which all
    rates fall to 0. augment_preserved: rotate and shift preserved images.
    """

    name: str
    model: str
    bits: float
    exponent: Exponent
    optimiser: Literal["adam", "adamw"]
    steps: int
    batch: int
    preserved: int
    gamma: float | None
    preservation_weight: float
    norm: Norm
    l1: float = 0.0
    lr: float = 1e-3
    lr_bits: float = 1e-3
    lr_exponent: float = 1e-3
    eps: float = 1e-8
    eps_bits: float = 1e-8
    weight_decay: float = 0.0
    decay: Literal["all", "quantised_weights"] = "all"
    cosine_tail: float = 0.0
    augment_preserved: bool = False
    restoration: Restoration = field(default_factory=Restoration)

    def rate_factor(self, step: int) -> float:
        """What all rates are multiplied by at a step, counting from 0."""
        tail = self.cosine_tail * self.steps
        into = step - (self.steps - tail)
        return 1.0 if tail == 0 or into <= 0 else (1 + math.cos(math.pi * min(into / tail, 1.0))) / 2

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Groups of the optimiser: "weights" (quantised), "bits", "exponents", "others" (all that is left), none empty.

        Raises:
            ValueError: no quantised layer.
        """
        layers = required(model).values()
        groups = [
            self._group("weights", [layer.get_parameter("weight") for layer in layers], self.lr, self.eps),
            self._group("bits", [layer.bits for layer in layers], self.lr_bits, self.eps_bits),
            self._group("exponents", [layer.exponent for layer in layers], self.lr_exponent, self.eps),
        ]
        taken = {id(parameter) for group in groups for parameter in group["params"]}
        others = [parameter for parameter in model.parameters() if id(parameter) not in taken]
        groups.append(self._group("others", others, self.lr, self.eps))
        return [group for group in groups if group["params"]]

    def create_optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam or AdamW over the groups of this network, betas 0.9 and 0.999.

        Raises:
            ValueError: no quantised layer.
        """
        kind = torch.optim.AdamW if self.optimiser == "adamw" else torch.optim.Adam
        return kind(self.parameter_groups(model), lr=self.lr, betas=(0.9, 0.999))

    def _group(self, name: str, parameters: list[nn.Parameter], lr: float, eps: float) -> dict[str, Any]:
        decays = self.decay == "all" or name == "weights"
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        return {"name": name, "params": trained, "lr": lr, "eps": eps, "weight_decay": self.weight_decay * decays}


# The published code gives 2 bits back, by chance, to a tenth (rounded down) of the channels without any.
_CODE = {
    "trigger": "previous",
    "mode": "two_bits",
    "pick": "random",
    "rounding": "down",
    "limit": None,
    "exempt": False,
}
_CODE_CNN = Restoration(every=10, tolerance=10.0, **_CODE)  # type: ignore[arg-type]
_CODE_LM = Restoration(every=100, tolerance=0.1, higher_is_better=False, only=("qkv",), **_CODE)  # type: ignore[arg-type]

_ALL = (
    Preset(
        "drift",
        "mnist_cnn",
        bits=32.0,
        exponent=-8.0,
        optimiser="adam",
        steps=10_000,
        batch=64,
        preserved=64,
        gamma=0.1,
        preservation_weight=0.05,
        norm="all_params",
        augment_preserved=True,
        restoration=_CODE_CNN,
    ),
    Preset(
        "drift",
        "names_decoder",
        bits=32.0,
        exponent=-8.0,
        optimiser="adamw",
        steps=10_000,
        batch=16,
        preserved=16,
        gamma=0.1,
        preservation_weight=0.05,
        norm="all_params",
        weight_decay=0.01,
        restoration=_CODE_LM,
    ),
    Preset(
        "twobit",
        "mnist_cnn",
        bits=2.0,
        exponent=-8.0,
        optimiser="adam",
        steps=4_000,
        batch=512,
        preserved=64,
        gamma=0.05,
        preservation_weight=0.1,
        norm="all_params",
        restoration=_CODE_CNN,
    ),
    Preset(
        "default",
        "mnist_cnn",
        bits=8.0,
        exponent="minmax",
        optimiser="adam",
        steps=5_000,
        batch=256,
        preserved=64,
        gamma=None,
        preservation_weight=0.05,
        norm="quantised_weights",
        l1=1e-5,
        lr_bits=1e-2,
        cosine_tail=0.3,
    ),
    Preset(
        "default",
        "names_decoder",
        bits=8.0,
        exponent="minmax",
        optimiser="adamw",
        steps=10_000,
        batch=16,
        preserved=16,
        gamma=None,
        preservation_weight=0.05,
        norm="quantised_weights",
        lr_bits=1e-2,
        weight_decay=0.01,
        decay="quantised_weights",
        cosine_tail=0.3,
        restoration=Restoration(tolerance=0.05, higher_is_better=False),
    ),
)
PRESETS = {(each.name, each.model): each for each in _ALL}


def preset(name: str, model: str) -> Preset:
    """A setting by name for a network.

    Args:
        name: "drift" (32 bits at the start, the published main run), "twobit" (2 bits, the older notebooks; CNN only)
            or "default" (8 bits, fast bits: where the method does something).
        model: "mnist_cnn" or "names_decoder".

    Raises:
        ValueError: no such pair; lists those that exist.
    """
    if (name, model) not in PRESETS:
        pairs = [f"{known} for {network}" for known, network in PRESETS]
        raise ValueError(unknown("preset", f"{name} for {model}", pairs))
    return PRESETS[name, model]
