"""Records: one JSON file per finished or failed trial."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NO_DATA = "none"  # name of the data where a trial reads none


class DataUsed(BaseModel):
    """The data a trial read: fingerprint of bytes and decoder, and what differs from the official distribution."""

    model_config = ConfigDict(extra="forbid")
    name: str
    fingerprint: str
    variant: str


class Cost(BaseModel):
    """What a trial took. On a CPU the peak is the process's resident memory, on a GPU torch's allocations."""

    model_config = ConfigDict(extra="forbid")
    seconds: float = Field(ge=0)
    peak_memory_bytes: int = Field(ge=0)
    flops: float = Field(ge=0)


class Provenance(BaseModel):
    """Where a record comes from. `canary` holds the recipe's canary as the same source gave it on the same machine."""

    model_config = ConfigDict(extra="forbid")
    device: str
    device_type: str
    threads: int
    versions: dict[str, str]
    commit: str | None
    dirty: bool | None
    source_hash: str
    canary: dict[str, float]
    date: str


class Failure(BaseModel):
    """Why a trial failed."""

    model_config = ConfigDict(extra="forbid")
    kind: str
    reason: str


class Weights(BaseModel):
    """Checksum and size of the weights a trial left in the cache (safetensors)."""

    model_config = ConfigDict(extra="forbid")
    sha256: str
    bytes: int


class Record(BaseModel):
    """One trial's outcome. Accuracies in `metrics` are percent: last, test_best, val_best, and curves per epoch."""

    model_config = ConfigDict(extra="forbid")
    schema_: Literal[1] = Field(default=1, alias="schema")
    key: str
    identity: str
    recipe: str
    recipe_version: int
    config: dict[str, Any]
    parents: dict[str, str]
    dataset: DataUsed
    precision: str
    status: Literal["ok", "failed"]
    failure: Failure | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    cost: Cost
    provenance: Provenance
    weights: Weights | None = None
    parent_weights: dict[str, str] = Field(default_factory=dict)
