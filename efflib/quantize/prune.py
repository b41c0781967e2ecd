"""Dead channels: keeping count of them, and taking them out of the network without changing what it computes.

A channel is soft-dead if b <= 0, or if all its codes were 0 after each of the last 100 steps: it contributes nothing
but is still there and can be restored. Hard removal takes it out of every tensor. Source: section 2.8 of the safety
spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from efflib.quantize.layers import Quantizer, required
from efflib.quantize.structure import links, removable, shrink, survivors

PATIENCE = 100


class DeadChannels:
    """Counts for each channel over how many steps in a row all its codes were 0.

    Args:
        model: a quantised network; call `step()` after every step of the optimiser.
        patience: steps until a channel with b > 0 counts as dead.
    """

    def __init__(self, model: nn.Module, patience: int = PATIENCE) -> None:
        self.model, self.patience = model, patience
        self.silent = {
            name: torch.zeros(layer.weight.shape[0], dtype=torch.int64, device=layer.weight.device)
            for name, layer in required(model).items()
        }

    @torch.no_grad()
    def step(self) -> None:
        """Look at the weights as they are now."""
        for name, layer in required(self.model).items():
            self.silent[name] = torch.where(layer.alive(), 0, self.silent[name] + 1)

    def dead(self) -> dict[str, Tensor]:
        """(O,) bool by layer: soft-dead channels."""
        return {
            name: (layer.bits.detach().flatten() <= 0) | (self.silent[name] >= self.patience)
            for name, layer in required(self.model).items()
        }

    def reset(self, name: str, channels: Tensor) -> None:
        """Start counting anew for channels that got bits back."""
        self.silent[name][channels] = 0

    def shrink(self, removal: Removal) -> None:
        """Forget channels that were removed."""
        for name, kept in removal.kept.items():
            self.silent[name] = self.silent[name][kept]

    def state_dict(self) -> dict[str, Any]:
        return {"silent": {name: counts.clone() for name, counts in self.silent.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the counts of another of these.

        Raises:
            ValueError: counts of other layers or other numbers of channels.
        """
        shapes = {name: tuple(counts.shape) for name, counts in self.silent.items()}
        given = {name: tuple(counts.shape) for name, counts in state["silent"].items()}
        if shapes != given:
            raise ValueError(f"counts for {given} do not fit this network's channels {shapes}: match_structure first")
        self.silent = {name: counts.to(self.silent[name].device) for name, counts in state["silent"].items()}


@dataclass(frozen=True)
class Removal:
    """What one removal did.

    kept: by layer that lost channels, the positions that stayed, among those there were. removed: by layer, numbers of
    the channels that went, in the layer as it was built.
    """

    kept: dict[str, Tensor]
    removed: dict[str, list[int]]

    @property
    def count(self) -> int:
        return sum(map(len, self.removed.values()))


def remove_dead(
    model: nn.Module,
    dead: Mapping[str, Tensor] | None = None,
    optimiser: torch.optim.Optimizer | None = None,
    check_norms: bool = True,
) -> Removal:
    """Take dead channels out of the network, in place; its outputs stay, up to the order of summation.

    Channels of convolutions go with the next layer's inputs and their batch-norm statistics; rows of q and k in pairs;
    rows of v with inputs of proj; feed-forward rows with their constant relu(bias) folded into the next bias. Rows
    that write into something of fixed width (proj, ff2, head) stay here and are left out of the packed file only.

    Args:
        model: a quantised network.
        dead: (O,) bool by layer, as `DeadChannels.dead()`; None takes all channels whose codes are all 0 now, and those
            which become so when their inputs go.
        optimiser: its state is sliced like its parameters. Slice other state with what is returned
            (`DeadChannels.shrink`, `Restorer.shrink`).
        check_norms: False skips the check of running statistics; the network then computes something else in eval mode.

    Returns:
        Removal.

    Raises:
        ValueError: a channel that is not dead; a convolution with a bias; or a batch norm that would turn a dead
            channel into something other than 0: its running mean is not 0 yet (recalibrate it), or it has a shift.
            Nothing is changed then.
    """
    plan = {name: living.rows for name, living in survivors(model, dead).items() if name in removable(model)}
    plan = {name: rows for name, rows in plan.items() if not rows.all()}
    layers = required(model)
    if dead is not None:
        _check_dead(layers, dead)
    for name, rows in plan.items():
        _check_constant(model, name, ~rows, check_norms)
    for name, rows in plan.items():
        _fold(model, name, ~rows)
    removed = {name: layers[name].kept_outputs[~rows].tolist() for name, rows in plan.items()}
    kept = {name: torch.nonzero(rows)[:, 0] for name, rows in plan.items()}
    shrink(model, kept, optimiser)
    return Removal(kept, removed)


def _check_dead(layers: Mapping[str, Quantizer], dead: Mapping[str, Tensor]) -> None:
    for name, rows in dead.items():
        wrong = torch.nonzero(rows & layers[name].alive())[:, 0].tolist()
        if wrong:
            raise ValueError(f"channels {wrong} of {name} are to be removed as dead, but have codes other than 0")


def _check_constant(model: nn.Module, name: str, gone: Tensor, check_norms: bool) -> None:
    """A dead channel of a convolution must reach the next layer as 0."""
    layer = model.get_submodule(name)
    if isinstance(layer, nn.Conv2d) and layer.bias is not None and bool((layer.bias[gone] > 0).any()):
        raise ValueError(f"{name} has a bias: its dead channels are constants, which padding and pooling do not fold")
    norm = model.get_submodule(norms[name]) if name in (norms := getattr(model, "norms", {})) else None
    if not check_norms or not isinstance(norm, nn.BatchNorm2d):
        return
    if norm.affine:
        raise ValueError(
            f"{norms[name]} has a shift: it turns dead channels of {name} into constants, affine=False does not"
        )
    if norm.running_mean is not None and norm.running_var is not None:
        constant = norm.running_mean[gone] * (norm.running_var[gone] + norm.eps).rsqrt()
        if bool((constant.abs() > 1e-6).any()):
            raise ValueError(
                f"{norms[name]} still remembers dead channels of {name}: in eval mode they are up to "
                f"{float(constant.abs().max()):.2g} instead of 0. Call recalibrate_batch_norm(model, batches) first"
            )


@torch.no_grad()
def _fold(model: nn.Module, name: str, gone: Tensor) -> None:
    """Add what dead feed-forward rows give, relu(bias) times a column, to the next layer's bias."""
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        return
    for link in links(model):
        if link.feeder == name:
            follower = model.get_submodule(link.layer)
            weight = (
                follower.quantized_weight() if isinstance(follower, Quantizer) else follower.get_parameter("weight")
            )
            follower.get_parameter("bias").add_(weight[:, gone] @ layer.bias[gone].relu())
