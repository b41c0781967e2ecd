"""Training in steps: batches drawn with replacement, measured every so many steps, resumable (spec, section 2.10).

The papers on images train in epochs (`efflib.training.fit`); this one counts optimiser steps, draws its batches with
replacement, and reads a second batch from a preservation set in each step. Image classifiers and the character model
share the loop below; a `Task` knows how to draw and how to measure.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from efflib.training import ForeignCheckpoint, derived_seed, load_or_set_aside, save_atomically

Pair = tuple[Tensor, Tensor]


class Task(Protocol):
    """What a network is trained on."""

    def batch(self, generator: torch.Generator, count: int) -> Pair:
        """Inputs and targets of `count` training examples, drawn with replacement."""

    def loss(self, model: nn.Module, batch: Pair) -> Tensor:
        """Mean cross-entropy in nats."""

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Numbers about the test (and the held-out) examples, in eval mode."""


@dataclass
class Log:
    """What a run noted, by step: losses as means over the steps since the last note, then what was measured.

    rows: one dict per note, each with "step" (steps done) and "seconds" (of training since the start). events: whatever
    the run's hooks report, e.g. restorations.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    def curve(self, name: str) -> list[float]:
        """One column of the rows; rows without it are left out."""
        return [row[name] for row in self.rows if name in row]

    def curves(self) -> dict[str, list[float]]:
        """Every column, in the order in which they first appear."""
        return {name: self.curve(name) for name in dict.fromkeys(name for row in self.rows for name in row)}


def constant_rate(step: int) -> float:
    """The factor of a schedule that leaves the learning rates as they are."""
    return 1.0


@dataclass(frozen=True)
class Schedule:
    """How long, how often, how fast.

    steps: optimiser steps. every: steps between two notes; each stretch between two notes has random numbers of its
    own, so that another `every` is another run, with other batches. factor: of all learning rates in a step, counting
    from 0.
    """

    steps: int
    every: int
    factor: Callable[[int], float] = constant_rate

    def notes(self) -> Iterator[tuple[int, int]]:
        """(first step, step after the last) of each stretch between two notes."""
        for start in range(0, self.steps, self.every):
            yield start, min(start + self.every, self.steps)


class Hooks:
    """What a run does beside stepping; this one does nothing. Its state belongs to the checkpoint."""

    def around(self, model: nn.Module) -> AbstractContextManager[None]:
        """Around the forward passes of one step."""
        return nullcontext()

    def terms(self, model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        """Further terms of the loss, weighted."""
        return {}

    def stepped(self, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
        """After optimiser step number `step`, counting from 1."""

    def measured(self, model: nn.Module) -> dict[str, float]:
        """Further numbers of a note."""
        return {}

    def events(self) -> list[dict[str, Any]]:
        """What happened since the start of the run, as far as is known now."""
        return []

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""


def run_steps(
    model: nn.Module,
    task: Task,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    batch_size: int,
    seed: int,
    hooks: Hooks | None = None,
    checkpoint: str | Path | None = None,
    identity: str = "",
    precision: str = "fp32",
    progress: bool | None = None,
    description: str = "training",
) -> Log:
    """Train a model in place and note losses and measurements as it goes.

    Args:
        model: on its device; its initial weights are the caller's.
        task: draws the batches and measures.
        optimiser: over the model's parameters; the rates of its groups are the base of the schedule.
        schedule: length, notes and rates.
        batch_size: examples per step.
        seed: of the batches; each stretch between two notes has a generator of its own, so that an interrupted run
            repeats an unbroken one from its last note. What the hooks draw does not change the batches.
        hooks: further loss terms and what happens between steps.
        checkpoint: file to resume from and to write at every note, or None.
        identity: what the checkpoint belongs to.
        precision: "bf16" runs the networks under autocast.
        progress, description: of the bar.

    Raises:
        FloatingPointError: a loss that is not finite, with its step.
        ForeignCheckpoint: the checkpoint belongs to another run.
    """
    hooks = hooks or Hooks()
    rates = [group["lr"] for group in optimiser.param_groups]
    log = _restored(model, optimiser, hooks, checkpoint, identity)
    if not log.rows:
        log.rows.append({"step": 0, "seconds": 0.0, **_measured(model, task, hooks)})
    disable = None if progress is None else not progress
    with tqdm(total=schedule.steps - log.steps, desc=description, unit="step", leave=False, disable=disable) as bar:
        for start, end in schedule.notes():
            if start < log.steps:
                continue
            begun = time.perf_counter()
            means = _stretch(model, task, optimiser, schedule, (start, end), rates, batch_size, seed, hooks, precision)
            log.seconds += time.perf_counter() - begun
            log.steps = end
            log.rows.append({"step": end, "seconds": log.seconds, **means, **_measured(model, task, hooks)})
            log.events = hooks.events()
            bar.update(end - start)
            if checkpoint is not None:
                _save(model, optimiser, hooks, log, Path(checkpoint), identity)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
    return log


def _stretch(
    model: nn.Module,
    task: Task,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    span: tuple[int, int],
    rates: list[float],
    batch_size: int,
    seed: int,
    hooks: Hooks,
    precision: str,
) -> dict[str, float]:
    """Steps from one note to the next; the mean of every loss term."""
    # Two sources: whatever the hooks draw, all runs of one seed see the same batches.
    own, other = (torch.Generator().manual_seed(derived_seed(seed, span[0], use)) for use in ("steps", "hooks"))
    first = next(model.parameters())
    device, dtype = first.device, first.dtype
    totals: dict[str, Tensor] = {}
    losses: list[Tensor] = []  # looked at once per stretch: looking at every step would make a GPU wait
    model.train()
    for step in range(*span):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * schedule.factor(step)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        with autocast, hooks.around(model):
            terms = {"task": task.loss(model, task.batch(own, batch_size)), **hooks.terms(model, other)}
        total = torch.stack([term.to(dtype) for term in terms.values()]).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        for name, term in {**terms, "loss": total}.items():
            totals[name] = totals.get(name, 0) + term.detach()
        losses.append(total.detach())
        hooks.stepped(model, optimiser, step + 1)
    _check_finite(torch.stack(losses).tolist(), span[0])
    return {f"train_{name}": float(value) / (span[1] - span[0]) for name, value in totals.items()}


def _check_finite(losses: list[float], start: int) -> None:
    for step, loss in enumerate(losses, start=start + 1):
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} in step {step}: the run diverged; lower the learning rate"
            )


def _measured(model: nn.Module, task: Task, hooks: Hooks) -> dict[str, float]:
    return {**task.measure(model), **hooks.measured(model)}


def _save(
    model: nn.Module, optimiser: torch.optim.Optimizer, hooks: Hooks, log: Log, path: Path, identity: str
) -> None:
    state = {
        "identity": identity,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "hooks": hooks.state(),
        "log": asdict(log),
    }
    save_atomically(state, path)


def _restored(
    model: nn.Module, optimiser: torch.optim.Optimizer, hooks: Hooks, path: str | Path | None, identity: str
) -> Log:
    """The log so far from a checkpoint; an unreadable file is set aside, a foreign one is an error."""
    state = load_or_set_aside(Path(path)) if path is not None else None
    if state is None:
        return Log()
    if state.get("identity") != identity:
        raise ForeignCheckpoint(f"checkpoint {path} belongs to another run: remove it, or give this run its own file")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    hooks.restore(state["hooks"])
    return Log(**state["log"])
