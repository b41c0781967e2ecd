"""The folder for what can always be made again; its files are whole, or noticed to be broken."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np


def cache_root() -> Path:
    """EFFLIB_CACHE, else `efflib` in the user's cache folder of this system; it may not exist yet."""
    if os.environ.get("EFFLIB_CACHE"):
        return Path(os.environ["EFFLIB_CACHE"]).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "efflib"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "efflib" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "efflib"


@contextmanager
def replacing(path: Path, hint: str = "set EFFLIB_CACHE to a folder you can write") -> Iterator[IO[bytes]]:
    """A binary file that becomes `path` when the block ends well and vanishes when it does not.

    A kill or a loss of power at any moment leaves either the old file or the new one.

    Raises:
        OSError: the folder cannot be written; the message ends with the hint.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = draft.open("wb")
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {path}: {error.strerror}; {hint}") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def set_aside(path: Path) -> Path | None:
    """Rename a broken file to *.broken, replacing an older one; None when another process was faster."""
    aside = path.with_name(path.name + ".broken")
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return None
    logging.getLogger("efflib").warning("%s is broken: renamed to %s and made again", path, aside.name)
    return aside


def save_arrays(path: Path, meta: dict, **arrays: np.ndarray) -> None:
    """Write arrays and a small dictionary to one .npz file, atomically."""
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, meta=text, **arrays)


def load_arrays(path: Path) -> tuple[dict, dict[str, np.ndarray]] | None:
    """Read what `save_arrays` wrote; None where there is no file, or a broken one, which is set aside.

    The zip format carries a checksum of every array, so a flipped bit is noticed as well as a missing end.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return json.loads(arrays.pop("meta").tobytes()), arrays
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, NotImplementedError):
        set_aside(path)
        return None


def digests(path: Path, remember: bool = True) -> dict[str, str]:
    """sha256 and md5 of a file; a second call is free while path, size and time of change stay the same.

    Args:
        path: a file.
        remember: False reads the file whatever is remembered.

    Returns:
        {"sha256": hex, "md5": hex}; md5 only because official data sets publish nothing better.
    """
    path = path.resolve()
    state = path.stat()
    now = {"path": str(path), "size": state.st_size, "changed": state.st_mtime_ns}
    note = cache_root() / "digests" / (hashlib.sha256(str(path).encode()).hexdigest()[:24] + ".json")
    if remember:
        known = _read_note(note)
        if known is not None and all(known.get(key) == value for key, value in now.items()):
            return {"sha256": known["sha256"], "md5": known["md5"]}
    fresh = _hash(path)
    with replacing(note) as file:
        file.write(json.dumps({**now, **fresh}).encode())
    return fresh


def _read_note(note: Path) -> dict | None:
    try:
        known = json.loads(note.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        set_aside(note)
        return None
    return known if isinstance(known, dict) and {"sha256", "md5"} <= known.keys() else None


def _hash(path: Path) -> dict[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    return {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}
