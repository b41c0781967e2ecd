"""Give bits back to channels when the network does worse on the preservation set (the paper's safety mechanism).

At a check, "violation" means a score worse than the best so far (or than the previous check) by more than the
tolerance. Then in each layer

    D = soft-dead channels, ranked by mean |latent weight|: the top ceil(share |D|) get b = max(2, b at the snapshot)
    V = living channels with b < b at the snapshot, ranked by (b_snap - b) |dL_pres/db|: the top ceil(share |V|) get it

Their moments in the optimiser become 0 (old momentum would drag them straight back) and they are free of the penalty
until the next check. Without violation all bits are noted as the new snapshot. Source: section 2.7 of the safety spec.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from efflib.quantize.layers import Quantizer, required
from efflib.quantize.prune import DeadChannels, Removal
from efflib.text import unknown

TRIGGERS = ("best", "previous")
MODES = ("snapshot", "two_bits", "original")
PICKS = ("ranked", "random")


@dataclass(frozen=True)
class Restoration:
    """The rule.

    every: steps between checks; whoever trains heeds it. trigger: what a score is compared with. tolerance: in units of
    the score (points of accuracy, nats). higher_is_better: of the score. mode: what a channel gets: "snapshot" as
    above; "two_bits" 2 bits, dead channels only, as the published code; "original" the bits it started with. pick: by
    rank, or by chance as the published code. share: of the candidates of a layer. rounding: of that number, "up" or
    "down" (as the published code, which restores nothing below 10 candidates). limit: restorations per channel, or
    None. exempt: free of the penalty until the next check. only: last parts of the names of the layers that may get
    bits back, e.g. ("qkv",); empty for all.
    """

    every: int = 100
    trigger: Literal["best", "previous"] = "best"
    tolerance: float = 1.0
    higher_is_better: bool = True
    mode: Literal["snapshot", "two_bits", "original"] = "snapshot"
    pick: Literal["ranked", "random"] = "ranked"
    share: float = 0.1
    rounding: Literal["up", "down"] = "up"
    limit: int | None = 3
    exempt: bool = True
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option, valid in (("trigger", TRIGGERS), ("mode", MODES), ("pick", PICKS), ("rounding", ("up", "down"))):
            if getattr(self, option) not in valid:
                raise ValueError(unknown(option, getattr(self, option), valid))
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be a fraction of the candidates in (0, 1], got {self.share}")
        if not self.tolerance >= 0 or self.every < 1:
            raise ValueError(f"every must be 1 or more and tolerance 0 or more, got {self.every} and {self.tolerance}")

    def count(self, candidates: int) -> int:
        """How many of so many candidates get bits back."""
        # A share of 0.1 is a little more than a tenth in binary: 30 candidates must give 3, not 4.
        exact = round(self.share * candidates, 9)
        return math.ceil(exact) if self.rounding == "up" else math.floor(exact)


@dataclass
class Event:
    """One layer at one violated check: `channels` as numbered when the layer was built, their bits, and the scores."""

    step: int
    layer: str
    channels: list[int]
    before: list[float]
    after: list[float]
    score: float
    next_score: float | None = None

    @property
    def given_back(self) -> float:
        """Bits in all."""
        return sum(self.after) - sum(self.before)


class Restorer:
    """Snapshot, rule and log of one training run.

    Args:
        model: a quantised network, with the bits it starts from.
        rule: see `Restoration`.
        dead: the run's count of dead channels; None takes channels with b <= 0 only.
        seed: of random picks.
    """

    def __init__(self, model: nn.Module, rule: Restoration, dead: DeadChannels | None = None, seed: int = 0) -> None:
        self.model, self.rule, self.dead_channels = model, rule, dead
        self.generator = torch.Generator().manual_seed(seed)
        self.start = self._bits()
        self.snapshot = self._bits()
        self.times = {name: torch.zeros_like(bits, dtype=torch.int64) for name, bits in self.start.items()}
        self.exempt: dict[str, Tensor] = {}
        self.best: float | None = None
        self.previous: float | None = None
        self.clean = 0
        self.checks = 0
        self.events: list[Event] = []

    @torch.no_grad()
    def check(
        self,
        step: int,
        score: float,
        optimiser: torch.optim.Optimizer | None = None,
        sensitivity: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> list[Event]:
        """Compare a score of the whole preservation set and restore bits if it is violated.

        Restored bits change what batch norm sees: recalibrate it before anything else is evaluated.

        Args:
            step: for the log.
            score: accuracy in percent or loss in nats, measured in eval mode.
            optimiser: whose moments of restored bits become 0.
            sensitivity: gives |dL/db|, (O,) by layer, see `bit_gradients`; called only at a violation that ranks living
                channels.

        Returns:
            What was restored, also added to `events`; `exempt` holds the channels that are free of the penalty, for
            `mean_bits(exempt=...)`, and `clean` the number of checks in a row without violation.

        Raises:
            ValueError: a score that is NaN, or no sensitivity where one is needed.
        """
        if math.isnan(score):
            raise ValueError(f"the preservation score at step {step} is NaN")
        for event in self.events:
            event.next_score = score if event.next_score is None else event.next_score
        violated, self.exempt, self.checks = self.violated(score), {}, self.checks + 1
        self.previous = score
        if not violated:
            self.best = score if self.best is None or self._worse(score, self.best) < 0 else self.best
            self.clean += 1
            self.snapshot = self._bits()
            return []
        self.clean = 0
        ranked = self.rule.pick == "ranked" and self.rule.mode != "two_bits"
        if ranked and sensitivity is None:
            raise ValueError("ranking living channels needs sensitivity: give lambda: bit_gradients(model, loss)")
        with torch.enable_grad():
            slopes = sensitivity() if ranked and sensitivity is not None else {}
        found = [self._restore(step, score, name, layer, slopes.get(name)) for name, layer in self._layers().items()]
        new = [event for event in found if event is not None]
        for event in new:
            self._free(event, optimiser)
        self.events += new
        return new

    def violated(self, score: float) -> bool:
        """Whether this score is too bad; never at the first check."""
        reference = self.best if self.rule.trigger == "best" else self.previous
        return reference is not None and self._worse(score, reference) > self.rule.tolerance

    def summary(self) -> dict[str, float]:
        """Checks, checks that restored anything, channels restored (with repeats) and mean bits given back to each."""
        channels = sum(len(event.channels) for event in self.events)
        given = sum(event.given_back for event in self.events)
        steps = {event.step for event in self.events}
        return {
            "checks": self.checks,
            "violations_restored": len(steps),
            "channels": channels,
            "mean_bits_given_back": given / channels if channels else 0.0,
        }

    def shrink(self, removal: Removal) -> None:
        """Forget channels that were removed."""
        for name, kept in removal.kept.items():
            for store in (self.start, self.snapshot, self.times, self.exempt):
                if name in store:
                    store[name] = store[name][kept]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the rule and the network, in plain types and tensors."""
        names = ("start", "snapshot", "times", "exempt")
        tensors = {name: {key: value.clone() for key, value in getattr(self, name).items()} for name in names}
        numbers = {name: getattr(self, name) for name in ("best", "previous", "clean", "checks")}
        events = [asdict(event) for event in self.events]
        return {**tensors, **numbers, "events": events, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another run of the same network and rule was.

        Raises:
            ValueError: a state of other layers or numbers of channels.
        """
        given = {name: tuple(bits.shape) for name, bits in state["start"].items()}
        here = {name: tuple(bits.shape) for name, bits in self._bits().items()}
        if given != here:
            raise ValueError(f"a state for channels {given} does not fit this network's {here}: match_structure first")
        for name in ("start", "snapshot", "times", "exempt"):
            device = next(self.model.parameters()).device
            setattr(self, name, {key: value.to(device) for key, value in state[name].items()})
        for name in ("best", "previous", "clean", "checks"):
            setattr(self, name, state[name])
        self.events = [Event(**event) for event in state["events"]]
        self.generator.set_state(state["generator"])

    def _bits(self) -> dict[str, Tensor]:
        return {name: layer.bits.detach().flatten().clone() for name, layer in required(self.model).items()}

    def _layers(self) -> dict[str, Quantizer]:
        only = self.rule.only
        return {name: layer for name, layer in required(self.model).items() if not only or name.split(".")[-1] in only}

    def _worse(self, score: float, reference: float) -> float:
        return reference - score if self.rule.higher_is_better else score - reference

    def _restore(self, step: int, score: float, name: str, layer: Quantizer, slopes: Tensor | None) -> Event | None:
        before = layer.bits.flatten().clone()
        after = before.clone()
        for channels, values in self._choices(name, layer, before, slopes):
            after[channels] = values[channels]
        channels = torch.nonzero(after > before)[:, 0]
        if not len(channels):
            return None
        layer.bits.copy_(after.reshape(layer.bits.shape))
        self.times[name][channels] += 1
        if self.dead_channels is not None:
            self.dead_channels.reset(name, channels)
        if self.rule.exempt:
            self.exempt[name] = after > before
        numbers = layer.kept_outputs[channels].tolist()
        return Event(step, name, numbers, before[channels].tolist(), after[channels].tolist(), score)

    def _choices(self, name: str, layer: Quantizer, bits: Tensor, slopes: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """(channels, bits of all channels that these would get), for the dead and the living of a layer."""
        dead = bits <= 0
        if self.dead_channels is not None:
            dead = self.dead_channels.dead()[name]
        allowed = torch.ones_like(dead) if self.rule.limit is None else self.times[name] < self.rule.limit
        snapshot, start = self.snapshot[name], self.start[name]
        to_dead, to_living = {
            "snapshot": (snapshot.clamp(min=2.0), snapshot),
            "two_bits": (torch.full_like(bits, 2.0), bits),
            "original": (start, start),
        }[self.rule.mode]
        strength = layer.weight.flatten(1).abs().mean(dim=1)
        loss = (snapshot - bits) * (slopes if slopes is not None else 0)
        return [
            (self._picked(dead & allowed & (bits < to_dead), strength), to_dead),
            (self._picked(~dead & allowed & (bits < snapshot) & (bits < to_living), loss), to_living),
        ]

    def _picked(self, candidates: Tensor, rank: Tensor) -> Tensor:
        """The chosen channels among the candidates."""
        channels = torch.nonzero(candidates)[:, 0]
        if self.rule.pick == "random":
            order = torch.randperm(len(channels), generator=self.generator).to(channels.device)
        else:
            order = rank[channels].argsort(descending=True, stable=True)
        return channels[order[: self.rule.count(len(channels))]]

    def _free(self, event: Event, optimiser: torch.optim.Optimizer | None) -> None:
        layer = required(self.model)[event.layer]
        for value in (optimiser.state.get(layer.bits, {}) if optimiser is not None else {}).values():
            if isinstance(value, Tensor) and value.shape == layer.bits.shape:
                value[torch.isin(layer.kept_outputs, torch.tensor(event.channels, device=value.device))] = 0


def bit_gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """|dL/db|, (O,) by layer; no parameter's .grad is touched.

    Args:
        model: a quantised network.
        loss: 0-d, of a forward pass of this network.
    """
    layers = required(model)
    found = torch.autograd.grad(loss, [layer.bits for layer in layers.values()], allow_unused=True)
    return {
        name: torch.zeros_like(layer.bits).flatten() if slope is None else slope.detach().flatten().abs()
        for (name, layer), slope in zip(layers.items(), found)
    }
