"""What self-compression is measured against: a trained float network, made small in the usual ways.

All start from the weights of the float twin. What trains further does so for a share of the twin's steps at a lower
learning rate, on batches drawn as the twin's were. Source: section 4 of the safety spec, "Baselines for the Pareto
front".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from efflib.papers.baselines import canary_context
from efflib.papers.safety.recipes import (
    StepsConfig,
    adam,
    data_read,
    exported,
    followed_run,
    make_task,
    new_model,
    steps_flops,
)
from efflib.papers.safety.steps import Log
from efflib.papers.safety.tasks import ImageTask, TextTask
from efflib.quantize import (
    cut_channels,
    dense_bytes,
    fix_steps,
    fixed_width_bytes,
    learn_steps,
    mask_smallest,
    post_training,
    quantized_layers,
    scale_bytes,
    sparse_bytes,
    tight_bytes,
    unmask,
)
from efflib.trials.recipes import Context, Outcome, recipe

Method = Literal["ptq", "qat", "magnitude", "structured"]
# Settings that a method needs, and those that it may have besides; it has no others.
NEEDED: dict[str, tuple[str, ...]] = {
    "ptq": ("bits",),
    "qat": ("bits",),
    "magnitude": ("sparsity",),
    "structured": ("keep",),
}
OPTIONAL: dict[str, tuple[str, ...]] = {"magnitude": ("bits",), "structured": ("bits",)}


class BaselineConfig(StepsConfig):
    """A float network made smaller.

    method: "ptq": weights rounded to `bits`; "qat": the same with learned steps and fine-tuning; "magnitude": the share
    `sparsity` of the weights masked, fine-tuned; "structured": the share `keep` of the channels kept, fine-tuned. Both
    kinds of pruning may be followed by rounding to `bits`. clip: how rounding chooses its range. steps: of
    fine-tuning, none for "ptq"; optimiser, lr and weight_decay are its own.
    """

    method: Method
    steps: int = Field(default=0, ge=0)
    bits: int | None = Field(default=None, ge=2, le=8)
    clip: Literal["max", "mse"] = "max"
    sparsity: float | None = Field(default=None, ge=0, lt=1)
    keep: float | None = Field(default=None, gt=0, le=1)
    optimiser: Literal["adam", "adamw"] = "adam"
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> BaselineConfig:
        needed = NEEDED[self.method]
        allowed = (*needed, *OPTIONAL.get(self.method, ()))
        given = [name for name in ("bits", "sparsity", "keep") if getattr(self, name) is not None]
        if not set(needed) <= set(given) <= set(allowed):
            raise ValueError(f"method={self.method!r} needs {', '.join(needed)} and has {', '.join(given) or 'none'}")
        if (self.method == "ptq") != (self.steps == 0):
            raise ValueError(f"method={self.method!r} with steps={self.steps}: all but 'ptq' are fine-tuned")
        if self.clip != "max" and (self.bits is None or self.method == "qat"):
            raise ValueError("clip='mse' is a choice of rounding after training: it needs bits, and not method='qat'")
        return self


def changed(model: nn.Module, config: BaselineConfig) -> Callable[[], object]:
    """Change the trained float network before fine-tuning, in place; what to do after fine-tuning is returned."""
    if config.method == "qat":
        assert config.bits is not None
        learn_steps(model, config.bits)
        return lambda: fix_steps(model)
    if config.method == "magnitude":
        assert config.sparsity is not None
        mask_smallest(model, config.sparsity)
    if config.method == "structured":
        assert config.keep is not None
        cut_channels(model, config.keep)
    return lambda: _rounded(model, config)


def _rounded(model: nn.Module, config: BaselineConfig) -> None:
    if config.method == "magnitude":
        unmask(model)
    if config.bits is not None:
        post_training(model, config.bits, config.clip)


def bytes_of(model: nn.Module, config: BaselineConfig) -> dict[str, float]:
    """Bytes of the quantisable layers.

    Returns:
        bytes: as the literature counts: B bits for each weight; a bitmask and the weights that are not 0; or float32;
            and in each case a float32 step per channel where there are steps. scale_bytes: those steps. tight_bytes:
            without the steps, and codes in as many bits as they need, as for the networks that learn their bits.
    """
    steps = scale_bytes(model) if config.bits is not None else 0
    if config.method == "magnitude":
        total = sparse_bytes(model) + steps
        return {"bytes": total, "scale_bytes": steps, "tight_bytes": total - steps}
    if config.bits is None:
        return {"bytes": dense_bytes(model), "scale_bytes": 0, "tight_bytes": dense_bytes(model)}
    return {
        "bytes": fixed_width_bytes(model, config.bits),
        "scale_bytes": steps,
        "tight_bytes": tight_bytes(model),
    }


def _canary() -> dict[str, float]:
    """Every method on a narrow network, two steps of fine-tuning."""
    common: dict[str, Any] = {"seed": 0, "batch_size": 8, "every": 2, "model_options": {"width": 0.25}}
    networks: dict[str, dict[str, Any]] = {
        "images": {**common, "dataset": "digits28", "model": "mnist_cnn", "subset": 200, "held": 20},
        "text": {**common, "dataset": "embedded_names", "model": "names_decoder"},
    }
    methods: tuple[tuple[str, dict[str, Any]], ...] = (
        ("text", {"method": "ptq", "bits": 3, "clip": "mse"}),
        ("text", {"method": "qat", "bits": 3, "steps": 2}),
        ("text", {"method": "magnitude", "sparsity": 0.8, "steps": 2, "bits": 8}),
        ("images", {"method": "structured", "keep": 0.5, "steps": 2, "bits": 4}),
    )
    found: dict[str, float] = {}
    for kind, settings in methods:
        config = BaselineConfig(**networks[kind], **settings)
        parent = new_model(config).double().state_dict()
        metrics = compressed_baseline(config, canary_context("compressed_baseline", float=parent)).metrics
        found |= {f"{config.method}.{name}": metrics[name] for name in ("last", "bytes", "tight_bytes")}
        found |= {f"{config.method}.loss": sum(metrics["curves"].get("train_loss", ()))}
    return found


def tuned(model: nn.Module, task: ImageTask | TextTask, config: BaselineConfig, context: Context) -> Log:
    """Fine-tune in place."""
    optimiser = adam(config.optimiser, model, config.lr, config.weight_decay)
    return followed_run(config, context, model, task, optimiser)


@recipe(
    "compressed_baseline",
    version=1,
    config=BaselineConfig,
    canary=_canary,
    flops=steps_flops,
    data=data_read,
    parents=("float",),
    precision="fp32",
)
def compressed_baseline(config: BaselineConfig, context: Context) -> Outcome:
    """Quantise or prune a trained float network, fine-tune where the method does, and measure it."""
    task = make_task(config, context)
    model = new_model(config)
    model.load_state_dict(context.parents["float"])
    model = model.to(context.device, torch.float64 if context.precision == "fp64" else torch.float32)
    finish = changed(model, config)
    log = tuned(model, task, config, context) if config.steps else Log()
    finish()
    told: dict[str, Any] = {"last": task.measure(model)["test"], **task.final(model), **bytes_of(model, config)}
    best = min if config.text else max
    # While masks and learned steps are on, a note measures the small network; what is rounded later, another one.
    rounded_later = config.bits is not None and config.method != "qat"
    shipped = [] if rounded_later else log.curve("test")
    told |= {"test_best": best([*shipped, told["last"]]), "training_seconds": log.seconds}
    if quantized_layers(model) and config.method != "magnitude":
        told |= exported(model, task)
    told["curves"] = log.curves()
    return Outcome(told, steps_flops(config), model.state_dict())
