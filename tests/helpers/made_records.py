"""Records as the runner writes them, made without running anything."""

from __future__ import annotations

from typing import Any

from efflib.trials.provenance import source_hash
from efflib.trials.record import Cost, DataUsed, Provenance, Record


def recorded(
    trial: Any,
    metrics: dict[str, Any],
    device: str = "toy",
    variant: str = "embedded",
    flops: float = 1e12,
    weights: Any = None,
) -> Record:
    """A usable record of a trial, under its identity as key, from today's source."""
    made = Provenance(
        device=device, device_type="cpu", threads=1, versions={}, commit="c0ffee", dirty=False,
        source_hash=source_hash(trial.recipe), canary={"value": 1.0}, date="2026-01-01",
    )  # fmt: skip
    return Record(
        schema=1, key=trial.identity, identity=trial.identity, recipe=trial.recipe, recipe_version=1,
        config=trial.config, parents={}, precision="fp32", status="ok", metrics=metrics, provenance=made,
        dataset=DataUsed(name=trial.config["dataset"], fingerprint="f" * 16, variant=variant),
        cost=Cost(seconds=1.0, peak_memory_bytes=1, flops=flops), weights=weights,
    )  # fmt: skip
