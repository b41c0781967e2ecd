"""A toy laboratory: recipes that take no time, in a module of their own whose source a test may change."""

from __future__ import annotations

import importlib
import sys
import types

import pytest
import torch

from efflib.trials import Record, Store, Trial, freshness, provenance, recipes, runner
from efflib.trials.record import Cost, DataUsed, Failure, Provenance

TOYLAB = '''"""Toy recipes."""
import os
import time
from pathlib import Path

import torch

from efflib.data import load_dataset
from efflib.models import create_model
from efflib.training import TrainingRecipe, cross_entropy, fit, seeded
from efflib.trials.recipes import Config, Outcome, recipe


class ToyConfig(Config):
    size: int
    seed: int = 0
    mode: str = "ok"
    tilt: float = 0.5


def note(text):
    with open(os.environ["TOY_LOG"], "a") as log:
        log.write(f"{os.getpid()} {text}\\n")


def canary():
    note("canary")
    return {"value": float(os.environ.get("TOY_CANARY", "1"))}


def data(config):
    return [("cifar10", "train")] if config.mode == "cifar" else [("digits", "train")]


def started(name, config):
    note(f"{name} size={config.size} seed={config.seed} mode={config.mode}")
    time.sleep(float(os.environ.get("TOY_SECONDS", "0")))


@recipe("toy", version=1, config=ToyConfig, canary=canary, flops=lambda c: 10.0 * c.size, data=data)
def toy(config, context):
    """Doubles its size."""
    started("toy", config)
    if config.mode == "nan" and not os.environ.get("TOY_WELL"):
        raise FloatingPointError("the training loss is nan in epoch 3")
    if config.mode == "memory":
        raise MemoryError
    if config.mode == "bug":
        raise TypeError("a mistake in the program")
    return Outcome({"last": 2.0 * config.size}, 10.0 * config.size, {"w": torch.full((3,), float(config.size))})


@recipe(
    "toychild", version=1, config=ToyConfig, canary=canary, flops=lambda c: 10.0 * c.size, data=data,
    parents=("teacher",),
)
def toychild(config, context):
    started("toychild", config)
    return Outcome({"last": float(context.parents["teacher"]["w"].sum())}, 1.0)


@recipe("toytrain", version=1, config=ToyConfig, canary=canary, flops=lambda c: 1.0, data=data)
def toytrain(config, context):
    """A real training run that Ctrl-C can reach in the middle of an epoch."""
    started("toytrain", config)
    steps = []

    def loss(model, batch):
        steps.append(batch.progress)
        if len(steps) == int(os.environ.get("TOY_INTERRUPT", "0")):
            raise KeyboardInterrupt
        return cross_entropy(model, batch)

    with seeded(config.seed):
        model = create_model("resnet14", 10, width=0.5, in_channels=1)
    digits = load_dataset("digits", "train")
    history = fit(
        model, digits.take(range(96)), digits.take(range(96, 160)), recipe=TrainingRecipe(epochs=3, batch_size=32),
        loss=loss, seed=config.seed, checkpoint=context.checkpoint, device="cpu", precision="fp32", progress=False,
    )
    note(f"steps={len(steps)}")
    return Outcome({**history.metrics(), "training_seconds": history.seconds}, 1.0, model.state_dict())
'''

TOYS = ("toy", "toychild", "toytrain")
CPU = runner.Machine(torch.device("cpu"), "fp32")


def forget() -> None:
    """What a process remembers about source and canaries, as if it were started anew."""
    for cached in (provenance.source_hash, provenance._is_module, freshness.canary, runner._data_used):
        cached.cache_clear()


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The toy recipes registered, all roots under tmp_path; `lab.ran()` lists what has run."""
    folder, log = tmp_path / "lab", tmp_path / "log.txt"
    folder.mkdir()
    (folder / "toylab.py").write_text(TOYLAB)
    log.touch()
    for name, value in {"CACHE": tmp_path / "cache", "RESULTS": tmp_path / "results", "OFFLINE": "1"}.items():
        monkeypatch.setenv(f"EFFLIB_{name}", str(value))
    monkeypatch.setenv("TOY_LOG", str(log))
    monkeypatch.delenv("EFFLIB_DATA", raising=False)
    recipes.list_recipes()  # a module registers its recipes once: before the copy, or they vanish with it
    monkeypatch.setattr(recipes, "_RECIPES", dict(recipes._RECIPES))
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "toylab", raising=False)
    module = importlib.import_module("toylab")
    monkeypatch.setitem(sys.modules, "toylab", module)
    forget()

    def ran() -> list[str]:
        lines = [line.partition(" ")[2] for line in log.read_text().splitlines()]
        return [line for line in lines if line != "canary" and not line.startswith("steps")]

    store = Store(tmp_path / "results", tmp_path / "cache")
    yield types.SimpleNamespace(store=store, ran=ran, log=log, source=folder / "toylab.py", forget=forget, cpu=CPU)
    forget()


def toy_trial(size: int = 1, **settings) -> Trial:
    return Trial.of("toy", size=size, **settings)


def toy_child(parent: Trial, size: int = 1, **settings) -> Trial:
    return Trial.of("toychild", parents={"teacher": parent}, size=size, **settings)


def made_record(trial: Trial, **changes) -> Record:
    """A record as the runner would write it, without running anything."""
    made = Provenance(
        device="toy cpu", device_type="cpu", threads=1, versions={"torch": "0"}, commit="c0ffee", dirty=False,
        source_hash=provenance.source_hash(trial.recipe), canary={"value": 1.0}, date="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    fields = {
        "schema": 1, "key": runner.key_of(trial, CPU), "identity": trial.identity, "recipe": trial.recipe,
        "recipe_version": 1, "config": trial.config, "parents": {}, "precision": "fp32", "status": "ok",
        "dataset": DataUsed(name="digits", fingerprint="f" * 16, variant="embedded"), "metrics": {"last": 50.0},
        "cost": Cost(seconds=1.0, peak_memory_bytes=1, flops=10.0), "provenance": made,
    }  # fmt: skip
    if changes.get("status") == "failed":
        changes = {"metrics": {}, "failure": Failure(kind="FloatingPointError", reason="nan in epoch 3"), **changes}
    return Record(**{**fields, **changes})


@pytest.fixture
def make():
    """The builders above, for test modules (which cannot import a conftest by name)."""
    return types.SimpleNamespace(trial=toy_trial, child=toy_child, record=made_record)
