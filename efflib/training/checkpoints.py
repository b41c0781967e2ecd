"""Checkpoints that survive a kill, and are not read where they are broken or belong to another run."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from efflib.data.cache import replacing
from efflib.data.errors import UNREADABLE


class ForeignCheckpoint(ValueError):
    """A checkpoint of another run: other recipe, seed, precision, training images, curriculum, network or loss."""


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint as `replacing` does."""
    with replacing(path) as file:
        torch.save(state, file)


def load_or_set_aside(path: Path) -> dict[str, Any] | None:
    """State of a checkpoint, on the CPU; None where there is none.

    A broken file is renamed `<name>.broken`, with a warning.

    Raises:
        PermissionError: a file that may not be read: nothing is known to be wrong with it.
    """
    if not path.exists():
        return None
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except UNREADABLE as problem:
        broken = path.with_name(path.name + ".broken")
        os.replace(path, broken)
        tqdm.write(f"checkpoint {path.name} cannot be read ({problem}); set aside as {broken.name}, starting anew")
        return None


def _check_sums(path: Path) -> None:
    """torch.load does not compare the checksums that the file holds: a flipped bit would pass unnoticed."""
    with zipfile.ZipFile(path) as archive:
        altered = archive.testzip()
    if altered is not None:
        raise zipfile.BadZipFile(f"{altered} has a wrong checksum")
