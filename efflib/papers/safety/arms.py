"""The safety paper's arms: which network, data, preset and preservation set each name stands for, at every scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from efflib.papers.safety.recipes import Preserve, settings_of
from efflib.quantize import Preset, preset
from efflib.trials.trial import Trial

MODELS = ("mnist_cnn", "names_decoder")
# Checks of the published presets: from 32 bits no channel can get bits back, whatever the interval (audit), and a check
# of 5,500 images every 10 steps would cost more than the training. From 2 bits the interval does matter.
EVERY = 100


@dataclass(frozen=True)
class Size:
    """Data and length of the runs at one scale; `share` of a preset's steps, None its own length."""

    datasets: dict[str, str]
    held: dict[str, int]
    share: float
    every: int
    model_options: dict[str, Any]


_REAL, _HELD = {"mnist_cnn": "mnist", "names_decoder": "names"}, {"mnist_cnn": 5_000, "names_decoder": 0}
_EMBEDDED = {"mnist_cnn": "digits28", "names_decoder": "embedded_names"}
SIZES = {
    "smoke": Size(_EMBEDDED, {"mnist_cnn": 100, "names_decoder": 0}, 0.02, 50, {"width": 0.25}),
    "tiny": Size(_REAL, _HELD, 0.2, 500, {}),
    "small": Size(_REAL, _HELD, 0.4, 500, {}),
    "paper": Size(_REAL, _HELD, 1.0, 500, {}),
}

# Method -> where its second batch comes from.
SAFE: dict[str, Preserve] = {
    "unsafe": "none",
    "safe": "selected",
    "safe_random": "random",
    "extra_batch": "extra_batch",
    "safe_leaking": "test",
}


def common(scale: str, model: str, seed: int, protocol: str = "stream") -> dict[str, Any]:
    """Settings that a network's float and compressed runs share."""
    size = SIZES[scale]
    return {
        "dataset": size.datasets[model],
        "model": model,
        "seed": seed,
        "held": size.held[model],
        "every": size.every,
        "protocol": protocol,
        "model_options": size.model_options,
    }


def float_twin(
    scale: str, model: str, seed: int, name: str = "drift", protocol: str = "stream", share: float = 1.0
) -> Trial:
    """The network without compression: optimiser, batch and number of steps of a preset; `share` of the steps."""
    chosen = preset(name, model)
    return Trial.of(
        "float_twin",
        steps=_steps(scale, chosen, share),
        batch_size=chosen.batch,
        optimiser=chosen.optimiser,
        weight_decay=chosen.weight_decay,
        **common(scale, model, seed, protocol),
    )


def compressed(
    scale: str,
    model: str,
    seed: int,
    method: str = "safe",
    name: str = "drift",
    protocol: str = "stream",
    **changes: Any,
) -> Trial:
    """The network that compresses itself.

    Args:
        scale: data and length.
        model: "mnist_cnn" or "names_decoder".
        seed: of weights and batches.
        method: a name of SAFE.
        name: of the preset.
        protocol: order of the names.
        changes: of the preset's settings, e.g. gamma.
    """
    chosen = preset(name, model)
    chosen = replace(chosen, restoration=replace(chosen.restoration, every=max(EVERY, chosen.restoration.every)))
    steps = changes.pop("steps", _steps(scale, chosen))
    settings = settings_of(chosen, SAFE[method], **{**changes, "steps": steps})
    return Trial.of(
        "self_compression",
        parents={"float": float_twin(scale, model, seed, name, protocol)},
        **{**settings, **common(scale, model, seed, protocol)},
    )


def _steps(scale: str, chosen: Preset, share: float = 1.0) -> int:
    return max(1, int(chosen.steps * share * SIZES[scale].share + 0.5))
