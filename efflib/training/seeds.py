"""Random states that follow from a seed and a purpose alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, purpose: str = "init") -> Iterator[None]:
    """Run a block under its own random state: same seed, same initial weights, the caller's state untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, 0, purpose))
        yield


def derived_seed(seed: int, epoch: int, purpose: str) -> int:
    """A 63-bit seed for one purpose in one epoch of a run."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
