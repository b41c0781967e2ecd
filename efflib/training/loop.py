"""The training loop: `fit`, one run of it, and what it asks of losses and optimisers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from efflib.data import ImageSet
from efflib.training.batches import Batch, DeviceSet, epoch_batches, normalisation
from efflib.training.checkpoints import ForeignCheckpoint, load_or_set_aside, save_atomically
from efflib.training.curriculum import Curriculum
from efflib.training.devices import pick_device, pick_precision
from efflib.training.evaluation import logits_of
from efflib.training.history import History
from efflib.training.recipe import TrainingRecipe, named
from efflib.training.seeds import derived_seed

Loss = Callable[[nn.Module, Batch], "Tensor | dict[str, Tensor]"]
# Asked after each epoch with the network in eval mode and the number of finished epochs.
Follow = Callable[[nn.Module, int], "dict[str, Any]"]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """The default loss: mean cross-entropy of the model's logits."""
    return F.cross_entropy(model(batch.images), batch.targets)


def fit(
    model: nn.Module,
    train: ImageSet,
    test: ImageSet,
    validation: ImageSet | None = None,
    recipe: TrainingRecipe | str = "cifar_rd",
    loss: Loss = cross_entropy,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    progress: bool | None = None,
    description: str = "training",
    curriculum: Curriculum | None = None,
    follow: Follow | None = None,
    compiled: bool = False,
) -> History:
    """Train a classifier and follow its accuracy on the test set (and the held-out images) after every epoch.

    Args:
        model: network to train in place; moved to the device, channels-last. Its initial weights are the caller's.
        train: training images, uint8; they are kept on the device.
        test: test images; read for the curve only, nothing is selected on them.
        validation: held-out training images, or None.
        recipe: a TrainingRecipe, or the name of one ("cifar_rd", "cifar_lr") at its full length.
        loss: called with (model, Batch); returns the loss or a dict of named terms that add up to it. If it is a
            Module, it is moved to the device, and its parameters are trained and checkpointed too. If it has a method
            `parameter_groups()`, each dict that this returns becomes a group of the optimiser: "params", "lr_factor"
            (times the recipe's rate, 1 if left out) and "weight_decay" (the recipe's if left out).
        seed: fixes order, crops, flips and dropout.
        checkpoint: file to resume from and to write after each epoch, or None.
        device: "auto", "cpu", "cuda", ...
        precision: "auto", "bf16" (autocast), "fp32" or "fp64".
        progress: a bar with the time left; None shows one on a terminal or in a notebook only.
        description: label of the bar.
        curriculum: of `efflib.curricula`, or None.
        follow: called after each epoch with the network in eval mode and the number of finished epochs; what it
            returns (plain numbers, lists and dicts), if anything, is kept in `History.followed`, also in checkpoints.
        compiled: run network, loss and gradient through `torch.compile`, on CUDA replayed as CUDA graphs. The first
            step then takes up to minutes, and results differ by rounding (with dropout, also by other draws). A loss
            that differentiates twice (`diswot_plus`) cannot be compiled.

    Returns:
        History; the model holds the weights of the last epoch and is left in eval mode.

    Raises:
        FloatingPointError: a loss (or, after the last step, a weight) that is not finite, with its epoch.
        ValueError: an empty set, an unknown recipe or device, labels beyond the model's classes, parameter groups that
            make no sense, or a curriculum that does not fit the network or the images.
        ForeignCheckpoint: the checkpoint belongs to another run (a ValueError too).
    """
    recipe = named(recipe)
    device = pick_device(device)
    precision = pick_precision(precision, device)
    run = _Run(model, train, test, validation, recipe, loss, seed, device, precision, curriculum, follow, compiled)
    history = run.restore(checkpoint)
    started = time.perf_counter() - history.seconds
    shown = tqdm(**_bar(run, history, recipe.epochs, progress, description))
    with torch.random.fork_rng(), run.curriculum.attached(model), shown as bar:
        for epoch in range(history.epochs, recipe.epochs):
            run.epoch(epoch, history, bar)
            history.seconds = time.perf_counter() - started
            if checkpoint is not None:
                run.save(checkpoint, history)
    model.eval()
    _check_weights(model, history)
    if not history.test:  # a recipe of zero epochs measures the model as it came
        history.test.append(run.accuracy(run.test))
        if run.validation is not None:
            history.validation.append(run.accuracy(run.validation))
    return history


class _Run:
    """State of one `fit` call: the sets on the device, the optimiser, and one epoch of work."""

    def __init__(
        self,
        model,
        train,
        test,
        validation,
        recipe,
        loss,
        seed,
        device,
        precision,
        curriculum=None,
        follow=None,
        compiled=False,
    ):
        _check_sets(train, test, validation)
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        self.model = model.to(device, self.dtype, memory_format=torch.channels_last)
        if isinstance(loss, nn.Module):
            loss.to(device, self.dtype).to(memory_format=torch.channels_last)
        self.loss, self.recipe, self.seed, self.device, self.precision = loss, recipe, seed, device, precision
        self.curriculum, self.follow = curriculum or Curriculum(), follow
        self.objective = _compiled(loss, device) if compiled else loss
        self.mean, self.std = normalisation(recipe, train)
        self.train, self.test = DeviceSet(train, device), DeviceSet(test, device)
        self.validation = DeviceSet(validation, device) if validation is not None else None
        self.optimiser = _optimiser(recipe, self._groups(), device)
        self.identity = _identity(recipe, seed, precision, train, repr(curriculum) if curriculum else "")
        self._check(train)

    def _check(self, train: ImageSet) -> None:
        """Mistakes that would otherwise show as an error from deep inside the first epoch."""
        if self.steps == 0:
            raise ValueError(
                f"{len(self.train)} training images give no whole batch of {self.recipe.batch_size}, and the recipe "
                "drops the last: make the batch smaller, or set drop_last=False"
            )
        first = DeviceSet(train.take([0]), self.device)
        classes = logits_of(self.model, first, self.mean, self.std, self.precision).shape[1]
        sets = [data for data in (self.train, self.test, self.validation) if data is not None]
        highest = max(int(data.labels.max()) for data in sets)
        if highest >= classes:
            raise ValueError(f"the model has {classes} classes, but there are labels up to {highest}")
        self.curriculum.check(self.model, train, self.recipe)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser: first what nobody claims, then the curriculum's, then the loss's own."""
        parameters = {id(parameter): parameter for parameter in self._parameters()}
        paced = [{"params": params, "lr_factor": 1.0} for params in self.curriculum.layers(self.model)]
        groups = [*paced, *_groups_of(self.loss)]
        self.paced = len(paced)
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
            for parameter in group["params"]:
                if parameters.pop(id(parameter), None) is None:
                    raise ValueError(
                        f"a parameter of shape {tuple(parameter.shape)} is in two parameter groups, or in none of the "
                        "modules that are trained (the model and the loss): name each of theirs once at most"
                    )
        return [{"params": list(parameters.values()), "lr_factor": 1.0}, *groups]

    def _parameters(self) -> Iterator[nn.Parameter]:
        modules = [self.model, self.loss] if isinstance(self.loss, nn.Module) else [self.model]
        return (p for module in modules for p in module.parameters() if p.requires_grad)

    @property
    def steps(self) -> int:
        return self.recipe.steps(len(self.train))

    def epoch(self, epoch: int, history: History, bar: tqdm) -> None:
        """One pass over the training set, then the accuracies; appends to the history."""
        started = time.perf_counter()
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = group["lr_factor"] * self.recipe.rate(epoch)
        torch.manual_seed(derived_seed(self.seed, epoch, "layers"))  # dropout
        totals: dict[str, Tensor] = {}
        for batch in self._batches(epoch):
            self._pace(float(batch.progress))
            for name, value in self._step(batch).items():
                totals[name] = totals.get(name, 0) + value.detach() * len(batch.targets)
            bar.update()
        seen = self.steps * self.recipe.batch_size if self.recipe.drop_last else len(self.train)
        losses = {name: float(total) / seen for name, total in totals.items()}  # waits for the device
        history.epoch_seconds.append(time.perf_counter() - started)
        self._record(epoch, losses, history, bar)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        batches = epoch_batches(
            self.train, self.recipe, self.mean, self.std, self.seed, epoch, curriculum=self.curriculum
        )
        for batch in batches:
            images = batch.images.to(self.dtype)
            yield replace(batch, images=self.curriculum.images(images, float(batch.progress), self.recipe.epochs))

    def _pace(self, progress: float) -> None:
        """What the curriculum changes from one batch to the next: feature maps and rates."""
        self.curriculum.step(progress)
        common = self.recipe.rate(int(progress))
        factors = self.curriculum.factors(progress, self.recipe.lr, self.paced)
        for group, factor in zip(self.optimiser.param_groups[1:], factors):
            group["lr"] = factor * common

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            value = self.objective(self.model, batch)
        terms = value if isinstance(value, dict) else {"cross_entropy": value}
        total = torch.stack([term.to(self.dtype) for term in terms.values()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        return {**terms, "loss": total}

    def _record(self, epoch: int, losses: dict[str, float], history: History, bar: tqdm) -> None:
        if not np.isfinite(losses["loss"]):
            raise FloatingPointError(
                f"the training loss is {losses['loss']} in epoch {epoch + 1} (lr {self.recipe.rate(epoch)}): "
                "the run diverged; lower the learning rate or use precision='fp32'"
            )
        for name, value in losses.items():
            history.losses.setdefault(f"train_{name}", []).append(value)
        history.rates.append(self.recipe.rate(epoch))
        history.test.append(self.accuracy(self.test))
        if self.validation is not None:
            history.validation.append(self.accuracy(self.validation))
        if self.follow is not None:
            self.model.eval()
            if found := self.follow(self.model, epoch + 1):
                history.followed[epoch + 1] = found
        bar.set_postfix_str(f"epoch {epoch + 1}/{self.recipe.epochs}, test {history.last:.2f} %")

    def accuracy(self, data: DeviceSet) -> float:
        logits = logits_of(self.model, data, self.mean, self.std, self.precision)
        return float((logits.argmax(dim=1) == data.labels).double().mean() * 100)

    def save(self, path: str | Path, history: History) -> None:
        state = {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": asdict(history),
        }
        if isinstance(self.loss, nn.Module):
            state["loss"] = self.loss.state_dict()
        save_atomically(state, Path(path))

    def restore(self, path: str | Path | None) -> History:
        """History so far from a checkpoint; an unreadable file is set aside, a foreign one is an error."""
        state = load_or_set_aside(Path(path)) if path is not None else None
        if state is None:
            return History()
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            raise ForeignCheckpoint(
                f"checkpoint {path} belongs to another run (other recipe, seed, precision, training set or "
                "curriculum): remove it, or give this run a file of its own"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if isinstance(self.loss, nn.Module):
                self.loss.load_state_dict(state["loss"])
            history = History(**state["history"])
        except (RuntimeError, ValueError, KeyError, TypeError) as problem:
            why = str(problem).splitlines()[0]
            raise ForeignCheckpoint(f"checkpoint {path} holds another network or loss ({why}): remove it") from problem
        history.resumed_from = history.epochs
        return history


def freeze(*modules: nn.Module, statistics: bool = True) -> None:
    """Keep modules from being trained, for good.

    Args:
        modules: their parameters no longer ask for gradients.
        statistics: also keep them in eval mode whatever `train()` says, so that batch norm uses and keeps its running
            statistics. False lets these follow the batches, which changes what a "frozen" network computes.
    """
    for module in modules:
        module.requires_grad_(False)
        if statistics:
            module.eval()
            # On this one instance: `fit` calls train() on the whole network at the start of every epoch.
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,misc]


def _check_weights(model: nn.Module, history: History) -> None:
    """The loss shows a diverged step only at the next one; this sees the last."""
    if not all(bool(torch.isfinite(value).all()) for value in model.state_dict().values()):
        raise FloatingPointError(
            f"weights are not finite at the end of epoch {history.epochs}: the run diverged; lower the learning rate"
        )


def _check_sets(train: ImageSet, test: ImageSet, validation: ImageSet | None) -> None:
    for name, data in (("train", train), ("test", test), ("validation", validation)):
        if data is not None and len(data) == 0:
            raise ValueError(f"the {name} set is empty")
        if data is not None and data.images.shape[1:] != train.images.shape[1:]:
            raise ValueError(
                f"{name} images {data.images.shape[1:]} differ in shape from training images {train.images.shape[1:]}"
            )


def _compiled(loss: Loss, device: torch.device) -> Loss:
    """The loss with its network as compiled graphs; on CUDA they are replayed without a launch per kernel."""
    graphs = torch.compile(loss, mode="reduce-overhead" if device.type == "cuda" else None)

    def step(model: nn.Module, batch: Batch) -> Tensor | dict[str, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        # A number would be compiled in, and every step would need a graph of its own.
        progress = torch.full((), float(batch.progress), dtype=torch.float64, device=device)
        return graphs(model, replace(batch, progress=progress))

    return step


def _optimiser(recipe: TrainingRecipe, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": device.type == "cuda"}
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, betas=(recipe.momentum, 0.999), eps=recipe.eps, **common)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, **common)


def _groups_of(loss: Loss) -> list[dict[str, Any]]:
    """The parameter groups that a loss asks for, checked; none for most losses.

    Raises:
        ValueError: a key that is not known, or a number out of range.
    """
    if not isinstance(loss, nn.Module) or not hasattr(loss, "parameter_groups"):
        return []
    groups = [{"lr_factor": 1.0, **group} for group in loss.parameter_groups()]  # type: ignore[operator]
    for group in groups:
        unknown = group.keys() - {"params", "lr_factor", "weight_decay"}
        if unknown or "params" not in group:
            raise ValueError(
                f"a parameter group of {type(loss).__name__} has the keys {', '.join(sorted(group))}: "
                "give params, and lr_factor and weight_decay if they differ from the recipe's"
            )
        for name in ("lr_factor", "weight_decay"):
            if not 0 <= group.get(name, 0) < float("inf"):
                raise ValueError(f"{name}={group[name]} of {type(loss).__name__}: give a number of at least 0")
    return groups


def _identity(recipe: TrainingRecipe, seed: int, precision: str, train: ImageSet, curriculum: str) -> str:
    """What a checkpoint belongs to: recipe, seed, precision, curriculum and the very training images in order."""
    chosen = recipe.model_dump_json(exclude_defaults=True)  # a new option renames no checkpoint
    digest = hashlib.sha256(f"{chosen}/{seed}/{precision}/{train.fingerprint}{curriculum}".encode())
    digest.update(np.ascontiguousarray(train.indices).tobytes())
    digest.update(np.ascontiguousarray(train.images).data)
    return digest.hexdigest()


def _bar(run: _Run, history: History, epochs: int, progress: bool | None, description: str) -> dict[str, Any]:
    disable = None if progress is None else not progress
    left = max(epochs - history.epochs, 0) * run.steps
    return {
        "total": left,
        "desc": description,
        "unit": "step",
        "leave": False,
        "disable": disable,
        "mininterval": 0.5,
    }
