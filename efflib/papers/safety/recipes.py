"""The safety paper's recipes: `float_twin`, the network without compression, and `self_compression`."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from efflib.data import NORMALISATION, ImageSet, class_names, load_dataset
from efflib.data.names import NAME_LISTS, VOCABULARY
from efflib.models import count_macs, create_model
from efflib.models.names_decoder import NamesDecoder, macs_per_token
from efflib.papers.baselines import SIZES, canary_context
from efflib.papers.safety.preservation import preserved_names
from efflib.papers.safety.selection import Selection, random_selection, score_images, select
from efflib.papers.safety.steps import Hooks, Log, Schedule, constant_rate, run_steps
from efflib.papers.safety.tasks import Images, ImageTask, TextTask, draw_windows, jitter
from efflib.quantize import (
    DeadChannels,
    Preset,
    Restoration,
    Restorer,
    bit_gradients,
    chain_bytes,
    mean_bits,
    quantize_model,
    quantized_layers,
    quantized_once,
    save_packed,
    soft_bytes,
    tight_bytes,
    tighten,
    weight_l1,
)
from efflib.training import seeded
from efflib.trials.recipes import Config, Context, Outcome, recipe
from efflib.trials.trial import digest

WINDOW = 32
PRESERVED_NAMES = 1_000
CODE_SHARE = 0.1  # of the images, in the preservation set
SENSITIVITY = 512  # preserved images that rank the bits at a violation; the decoder takes as many characters / 32


# --- what both train on -----------------------------------------------------------------------------------


class StepsConfig(Config):
    """Network, data and length of a run that counts steps.

    `held` training images (the last ones), or for a list of names the last 5 % of the training stream if it is not 0,
    are kept for choices. `subset` takes the first training images only. `protocol` orders a list of names. `every` is
    more than how often something is noted: the random numbers start anew at each note, so that it is part of the run.
    """

    dataset: str
    model: str
    seed: int
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    every: int = Field(default=500, ge=1)
    held: int = Field(default=0, ge=0)
    subset: int | None = Field(default=None, ge=1)
    protocol: Literal["stream", "shuffled"] = "stream"
    model_options: dict[str, float | int | str | bool] = Field(default_factory=dict)

    @property
    def text(self) -> bool:
        return self.dataset in NAME_LISTS


def data_read(config: StepsConfig) -> list[tuple[str, str]]:
    """Splits that a trial reads; a list of names is one."""
    return [(config.dataset, "all")] if config.text else [(config.dataset, "train"), (config.dataset, "test")]


def training_images(config: StepsConfig) -> tuple[ImageSet, ImageSet | None, ImageSet]:
    """(training, held-out or None, test) images; the held-out ones are the last of the training split."""
    train, test = load_dataset(config.dataset, "train"), load_dataset(config.dataset, "test")
    kept = len(train) - config.held
    if kept < 1:
        raise ValueError(f"held={config.held} of the {len(train)} training images of {config.dataset} leaves none")
    held = train.take(range(kept, len(train))) if config.held else None
    return train.take(range(min(kept, config.subset or kept))), held, test


def make_task(config: StepsConfig, context: Context) -> ImageTask | TextTask:
    """The training and test examples on the device."""
    if config.text:
        parts = NAME_LISTS[config.dataset]().split(config.protocol, tune=config.held > 0)
        tokens = [None if part is None else torch.from_numpy(part.tokens).to(context.device) for part in parts]
        train, tune, validation = tokens
        assert train is not None and validation is not None
        return TextTask(train, validation, tune, WINDOW)
    dtype = torch.float64 if context.precision == "fp64" else torch.float32
    sets = [None if data is None else _on_device(data, context, dtype) for data in training_images(config)]
    train_images, held, test = sets
    assert train_images is not None and test is not None
    return ImageTask(train_images, test, held, config.seed)


def _on_device(data: ImageSet, context: Context, dtype: torch.dtype) -> Images:
    return Images.of(data, *NORMALISATION[data.name], context.device, dtype)


def new_model(config: StepsConfig) -> nn.Module:
    """The network with the initial weights of its seed; no image is read, as pages ask for it where there are none."""
    classes = len(VOCABULARY) if config.text else len(class_names(config.dataset))
    with seeded(config.seed):
        return create_model(config.model, classes, **config.model_options)


def example_flops(config: StepsConfig) -> float:
    """Forward FLOPs of one image or one window, 2 per MAC."""
    network = create_model(config.model, len(VOCABULARY) if config.text else 10, **config.model_options)
    if isinstance(network, NamesDecoder):
        return 2.0 * WINDOW * macs_per_token(network)
    _, _, side, channels = SIZES[config.dataset]
    return 2.0 * count_macs(network, side, channels)


def _placed(model: nn.Module, context: Context) -> nn.Module:
    dtype = torch.float64 if context.precision == "fp64" else torch.float32
    return model.to(context.device, dtype).to(memory_format=torch.channels_last)


def _told(config: StepsConfig, log: Log, model: nn.Module, task: ImageTask | TextTask) -> dict[str, Any]:
    """Metrics that both recipes have: at the end, the best note, and every curve."""
    curve = log.curve("test")
    best = min if config.text else max
    return {
        "last": curve[-1],
        "test_best": best(curve),
        "training_seconds": log.seconds,
        "seconds_per_step": log.seconds / config.steps,
        **task.final(model),
        "curves": log.curves(),
    }


def followed_run(
    config: StepsConfig,
    context: Context,
    model: nn.Module,
    task: ImageTask | TextTask,
    optimiser: torch.optim.Optimizer,
    factor: Callable[[int], float] = constant_rate,
    hooks: Hooks | None = None,
) -> Log:
    """Train a model in place for the configuration's steps, with checkpoint and progress bar of the context.

    `factor` of the learning rates by step, `hooks`: see `run_steps`.
    """
    return run_steps(
        model,
        task,
        optimiser,
        Schedule(config.steps, config.every, factor),
        config.batch_size,
        config.seed,
        hooks,
        checkpoint=context.checkpoint,
        identity=digest(config.model_dump(mode="json")),
        progress=context.progress,
        description=context.description,
    )


def adam(kind: str, model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam, or for kind "adamw" the variant with decoupled weight decay, over all parameters."""
    chosen = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return chosen(model.parameters(), lr=lr, weight_decay=weight_decay)


def steps_flops(config: StepsConfig, second: int = 0) -> float:
    """FLOPs of all steps, each on a batch and on `second` further examples: backward = 2 forward."""
    return 3 * example_flops(config) * (config.batch_size + second) * config.steps


# --- float ------------------------------------------------------------------------------------------------


class FloatConfig(StepsConfig):
    """The network itself, trained as its compressed twins are: same initial weights, batches, optimiser and length."""

    optimiser: Literal["adam", "adamw"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


_CANARY: dict[str, Any] = {"seed": 0, "steps": 4, "every": 2, "batch_size": 8}
_CANARY_IMAGES = {
    **_CANARY, "dataset": "digits28", "model": "mnist_cnn", "model_options": {"width": 0.25}, "subset": 200, "held": 20
}  # fmt: skip
_CANARY_TEXT = {**_CANARY, "dataset": "embedded_names", "model": "names_decoder", "model_options": {"width": 0.25}}


def _float_canary() -> dict[str, float]:
    """Four steps of both networks: losses and what is measured."""
    found: dict[str, float] = {}
    for name, settings in (("images", _CANARY_IMAGES), ("text", _CANARY_TEXT)):
        curves = float_twin(FloatConfig(**settings), canary_context("float_twin")).metrics["curves"]
        found |= {f"{name}.loss{place}": value for place, value in enumerate(curves["train_loss"])}
    return found


@recipe(
    "float_twin",
    version=1,
    config=FloatConfig,
    canary=_float_canary,
    flops=steps_flops,
    data=data_read,
    precision="fp32",
)
def float_twin(config: FloatConfig, context: Context) -> Outcome:
    """Train the network in floating point: the tables' first row, and the judge that picks the preserved images."""
    model, task = _placed(new_model(config), context), make_task(config, context)
    optimiser = adam(config.optimiser, model, config.lr, config.weight_decay)
    log = followed_run(config, context, model, task, optimiser)
    names: tuple[str, ...] = model.quantizable  # type: ignore[assignment]
    quantizable = sum(model.get_submodule(name).get_parameter("weight").numel() for name in names)
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    told = {**_told(config, log, model, task), "soft_bytes": 4.0 * quantizable, "file_bytes": whole}
    return Outcome(told, steps_flops(config), model.state_dict())


# --- self-compression -------------------------------------------------------------------------------------

Preserve = Literal["none", "selected", "random", "extra_batch", "test"]


class CompressionConfig(StepsConfig):
    """A network that learns its own bit depths; `settings_of` fills this in from a preset.

    preserve: where the second batch of each step comes from. "none": there is none and nothing is restored (the
    papers' "unsafe" run); "selected": the preservation set; "random": as many training examples by chance;
    "extra_batch": all training examples; "test": as the published code, partly or wholly from the test examples, to
    measure the leak. The float twin of the parent role "float" picks the images.
    restoration: the rule, as the fields of `efflib.quantize.Restoration`; None restores nothing.
    The others: see `efflib.quantize.presets.Preset`.
    """

    preset: str
    bits: float
    exponent: float | Literal["minmax"]
    optimiser: Literal["adam", "adamw"]
    gamma: float = Field(ge=0)
    preserve: Preserve
    preserved: int = Field(ge=1)
    preservation_weight: float = Field(ge=0)
    norm: Literal["quantised_weights", "all_params"]
    l1: float = Field(default=0.0, ge=0)
    lr: float = Field(default=1e-3, gt=0)
    lr_bits: float = Field(default=1e-3, gt=0)
    lr_exponent: float = Field(default=1e-3, gt=0)
    eps_bits: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    decay: Literal["all", "quantised_weights"] = "all"
    cosine_tail: float = Field(default=0.0, ge=0, lt=1)
    augment_preserved: bool = False
    restoration: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CompressionConfig:
        if self.preserve == "none" and (self.preservation_weight or self.restoration is not None):
            raise ValueError("preserve='none' has no preservation set: preservation_weight=0 and restoration=None")
        if self.preserve == "extra_batch" and self.restoration is not None:
            raise ValueError("preserve='extra_batch' watches nothing: restoration=None")
        if self.restoration is not None:
            self._check_rule(self.restoration)
        return self

    def _check_rule(self, given: dict[str, Any]) -> None:
        try:
            rule = Restoration(**_as_rule(given))
        except TypeError as problem:
            names = ", ".join(field.name for field in fields(Restoration))
            raise ValueError(f"restoration={given}: {problem}; its settings are {names}") from None
        if rule.higher_is_better == self.text:
            score = "a loss, lower is better" if self.text else "an accuracy, higher is better"
            raise ValueError(f"restoration: the score of {self.dataset} is {score}: higher_is_better={not self.text}")


def _as_rule(fields_of: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where the rule has tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields_of.items()}


def settings_of(chosen: Preset, preserve: Preserve, **changes: Any) -> dict[str, Any]:
    """Settings of a trial from a preset; `changes` win.

    Raises:
        ValueError: a preset without gamma, and none in `changes`.
    """
    unsafe = preserve == "none"
    taken = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    watched = not unsafe and preserve != "extra_batch"
    settings = {
        **{name: value for name, value in taken.items() if name in CompressionConfig.model_fields},
        "preset": chosen.name,
        "batch_size": chosen.batch,
        "preserve": preserve,
        "preservation_weight": 0.0 if unsafe else chosen.preservation_weight,
        "restoration": {**asdict(chosen.restoration), "only": list(chosen.restoration.only)} if watched else None,
        **changes,
    }
    if settings["gamma"] is None:
        raise ValueError(f"preset {chosen.name!r} leaves gamma open: give gamma=, for instance one of its sweep")
    return settings


def preset_of(config: CompressionConfig) -> Preset:
    """The setting that a configuration spells out, for its optimiser and schedule."""
    own = {name: getattr(config, name) for name in CompressionConfig.model_fields}
    known = {field.name for field in fields(Preset)}
    rule = Restoration(**_as_rule(config.restoration)) if config.restoration is not None else Restoration()
    chosen = {name: value for name, value in own.items() if name in known}
    return Preset(**{**chosen, "name": config.preset, "batch": config.batch_size, "restoration": rule})


class Compression(Hooks):
    """Penalty, preservation loss, restoration and bookkeeping of one run."""

    def __init__(
        self, config: CompressionConfig, model: nn.Module, task: ImageTask | TextTask, preserved: Images | Tensor | None
    ) -> None:
        self.config, self.model, self.task, self.preserved = config, model, task, preserved
        self.preset = preset_of(config)
        self.dead = DeadChannels(model)
        self.restorer = Restorer(model, self.preset.restoration, self.dead, config.seed)

    def around(self, model: nn.Module) -> AbstractContextManager[None]:
        return quantized_once(model)

    def terms(self, model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        config = self.config
        found = {"penalty": config.gamma * mean_bits(model, config.norm, self.restorer.exempt)}
        if config.l1:
            found["l1"] = config.l1 * weight_l1(model)
        if config.preservation_weight:
            batch = self.preserved_batch(generator, config.preserved)
            found["preservation"] = config.preservation_weight * self.task.loss(model, batch)
        return found

    def preserved_batch(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Preserved examples with replacement, turned and shifted if the preset says so."""
        if isinstance(self.preserved, Tensor):
            return draw_windows(self.preserved, generator, count, WINDOW)
        assert self.preserved is not None
        x, y = self.preserved.draw(generator, count)
        return (jitter(x, generator, _black(self.config.dataset)) if self.config.augment_preserved else x), y

    def stepped(self, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
        self.dead.step()
        if self.config.restoration is None or step % self.preset.restoration.every:
            return
        score = self.task.score(model, self.preserved)  # type: ignore[arg-type]
        if not math.isfinite(score):
            raise FloatingPointError(
                f"the preservation loss is {score} after step {step}: the run diverged; lower the learning rate"
            )
        model.train()
        self.restorer.check(step, score, optimiser, lambda: self._sensitivity(model, step))

    def _sensitivity(self, model: nn.Module, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.config.seed + step)
        count = SENSITIVITY // WINDOW if self.config.text else SENSITIVITY
        return bit_gradients(model, self.task.loss(model, self.preserved_batch(generator, count)))

    def measured(self, model: nn.Module) -> dict[str, float]:
        dead = sum(int(rows.sum()) for rows in self.dead.dead().values())
        told = {
            "soft_bytes": soft_bytes(model),
            "chain_bytes": chain_bytes(model),
            "tight_bytes": float(tight_bytes(model)),
        }
        told |= {"dead_channels": float(dead), "mean_bits": float(mean_bits(model).detach())}
        if self.preserved is not None and self.config.preserve != "extra_batch":
            told["preservation"] = self.task.score(model, self.preserved)  # type: ignore[arg-type]
        return told

    def events(self) -> list[dict[str, Any]]:
        return [asdict(event) for event in self.restorer.events]

    def state(self) -> dict[str, Any]:
        return {"restorer": self.restorer.state_dict(), "dead": self.dead.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.restorer.load_state_dict(state["restorer"])
        self.dead.load_state_dict(state["dead"])


def _black(dataset: str) -> float:
    (mean, *_), (std, *_) = NORMALISATION[dataset]
    return -mean / std


def preservation_set(
    config: CompressionConfig, context: Context, task: ImageTask | TextTask
) -> tuple[Images | Tensor | None, dict[str, Any]]:
    """The preserved examples on the device, and what the record tells about them."""
    if config.preserve == "none":
        return None, {}
    if isinstance(task, TextTask):
        return _preserved_text(config, context, task)
    if config.preserve == "extra_batch":
        return task.train, {}
    source = task.test if config.preserve == "test" else task.train
    chosen = _chosen_images(config, context)
    histogram = torch.bincount(source.y[torch.from_numpy(chosen.positions).to(source.y.device)].cpu(), minlength=10)
    told = {"preserved_counts": chosen.counts(), "preserved_classes": histogram.tolist()}
    return source.take(chosen.positions), told


def _chosen_images(config: CompressionConfig, context: Context) -> Selection:
    train, _, test = training_images(config)
    data = test if config.preserve == "test" else train
    count = int(CODE_SHARE * len(data) + 0.5)
    if config.preserve == "random":
        return random_selection(len(data), count, config.seed)
    judge = new_model(config)
    judge.load_state_dict(context.parents["float"])
    judge = _placed(judge, context)
    mean, std = NORMALISATION[config.dataset]
    convolutions: tuple[str, ...] = judge.quantizable  # type: ignore[assignment]
    scores = score_images(judge, data, mean, std, convolutions[-1])
    return select(scores, count, len(data.classes), config.seed)


def _preserved_text(config: CompressionConfig, context: Context, task: TextTask) -> tuple[Tensor, dict[str, Any]]:
    if config.preserve == "extra_batch":
        return task.train, {}
    names = NAME_LISTS[config.dataset]()
    part = names.split(config.protocol, tune=config.held > 0).train
    candidates = names.names if config.preserve == "test" else part.names
    count = min(PRESERVED_NAMES, len(candidates) // 10)
    if config.preserve == "random":
        drawn = np.random.default_rng(config.seed).permutation(len(candidates))[:count]
        text = "\n".join(candidates[place] for place in drawn)
    else:
        text = preserved_names(candidates, count).text
    tokens = torch.from_numpy(names.encode(text)).to(context.device)
    return tokens, {"preserved_names": count, "preserved_characters": len(text)}


def _compression_flops(config: CompressionConfig) -> float:
    return steps_flops(config, config.preserved if config.preservation_weight else 0)


def _compression_canary() -> dict[str, float]:
    """Four steps of both networks, safe, from few bits, so that clipping, penalty and restoration act."""
    from efflib.quantize import preset

    found: dict[str, float] = {}
    for name, common in (("images", _CANARY_IMAGES), ("text", _CANARY_TEXT)):
        rule = {"every": 2, "tolerance": 0.0, "higher_is_better": name == "images"}
        given = {"bits": 3.0, "gamma": 0.1, "lr_bits": 0.5, "preserved": 8, "restoration": rule, **common}
        chosen = preset("default", common["model"])
        config = CompressionConfig(**settings_of(chosen, "selected", **given))
        parent = new_model(config).double().state_dict()
        metrics = self_compression(config, canary_context("self_compression", float=parent)).metrics
        found |= {f"{name}.loss{place}": value for place, value in enumerate(metrics["curves"]["train_loss"])}
        found[f"{name}.soft"] = metrics["soft_bytes"]
    return found


@recipe(
    "self_compression",
    version=1,
    config=CompressionConfig,
    canary=_compression_canary,
    flops=_compression_flops,
    data=data_read,
    parents=("float",),
    precision="fp32",
)
def self_compression(config: CompressionConfig, context: Context) -> Outcome:
    """Train the network together with its bit depths (Algorithm 1), then tighten, export and read back."""
    task = make_task(config, context)
    preserved, about = preservation_set(config, context, task)
    model = _placed(new_model(config), context)
    quantize_model(model, config.bits, config.exponent)
    hooks = Compression(config, model, task, preserved)
    optimiser = hooks.preset.create_optimiser(model)
    log = followed_run(config, context, model, task, optimiser, hooks.preset.rate_factor, hooks)
    told = {**_told(config, log, model, task), **about, **hooks.measured(model), **hooks.restorer.summary()}
    told |= {"events": log.events, **exported(model, task)}
    return Outcome(told, _compression_flops(config), model.state_dict())


def exported(model: nn.Module, task: ImageTask | TextTask) -> dict[str, Any]:
    """What tightening and a real file give: the same function in whole bits, and the bytes on disk.

    Returns:
        tightened_soft_bytes: soft size after tightening. file_bytes and its parts, as measured on disk. tightened_test:
        the headline after tightening, which must not differ.
    """
    task.recalibrate(model)
    small = copy.deepcopy(model).float()
    tighten(small)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.packed"
        found = save_packed(small, path)
        on_disk = path.stat().st_size
    if on_disk != found.total:
        raise RuntimeError(f"the packed file has {on_disk} bytes, its accounting says {found.total}")
    parts = {f"file_{name}": value for name, value in asdict(found).items() if name != "total"}
    layers = quantized_layers(small).values()
    soft = sum(float(layer.bits.detach().sum()) * layer.full_inputs * layer.kernel for layer in layers) / 8
    told = {"file_bytes": on_disk, **parts, "tightened_soft_bytes": soft}
    if next(model.parameters()).dtype == torch.float32:
        told["tightened_test"] = task.measure(small)["test"]
    return told
