"""The store: records as files `<root>/<recipe>/<key>.json`, weights and checkpoints in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from efflib.data.cache import replacing
from efflib.scales import check_scale
from efflib.trials.record import Record, Weights
from efflib.trials.roots import cache_root, results_root, smoke_root
from efflib.trials.trial import Trial, digest


class Store:
    """Records under one root. Reading is lazy and cached by file time; writing is atomic.

    Args:
        root: folder of the records; it need not exist yet.
        cache: folder for weights, checkpoints and locks.
    """

    def __init__(self, root: Path, cache: Path | None = None):
        self.root = Path(root)
        self.cache = Path(cache) if cache else cache_root()
        self._read: dict[Path, tuple[int, Record]] = {}
        self._strange: set[Path] = set()

    @classmethod
    def for_scale(cls, scale: str) -> Store:
        """Smoke records live in a git-ignored folder, all others in the results root.

        Raises:
            ValueError: unknown scale.
        """
        return cls(smoke_root() if check_scale(scale) == "smoke" else results_root())

    def records(self) -> list[Record]:
        """All readable records, by file name. An unreadable file is set aside as `<name>.broken`, with a warning."""
        found = [self._load(path) for path in sorted(self.root.glob("*/*.json"))]
        return [record for record in found if record is not None]

    def find(self, trial: Trial) -> list[Record]:
        """Records of what this trial asks, on any data variant, precision and device."""
        return [record for record in self.records() if record.identity == trial.identity]

    def get(self, recipe: str, key: str) -> Record | None:
        """The first record of a key, or None."""
        path = self.root / recipe / f"{key}.json"
        return self._load(path)

    def runs(self, recipe: str, key: str) -> list[Record]:
        """All records of a key, the first run before the others."""
        paths = [self.root / recipe / f"{key}.json", *self._second_runs(recipe, key)]
        return [record for record in map(self._load, paths) if record is not None]

    def save(self, record: Record, replace: bool = False) -> Path:
        """Write a record; a second, different run of the same key goes to `<key>.<run>.json`.

        A failure never hides an earlier success, and a success replaces an earlier failure. With `replace` the record
        takes the place of all earlier runs of its key, whose weights go with them.
        """
        path = self.root / record.recipe / f"{record.key}.json"
        existing = self._load(path)
        replaced = self.runs(record.recipe, record.key) if replace else []
        if existing is not None and not replace and existing.status == "ok" and existing != record:
            path = path.with_name(f"{record.key}.{run_id(record)}.json")
        write_atomically(path, json.dumps(record.model_dump(mode="json", by_alias=True), indent=1) + "\n")
        for earlier in self._second_runs(record.recipe, record.key) if replace else []:
            earlier.unlink(missing_ok=True)
        for weights in {each.weights.sha256 for each in replaced if each.weights and each.weights != record.weights}:
            self.weights_path(record.key, weights).unlink(missing_ok=True)
        return path

    def _second_runs(self, recipe: str, key: str) -> list[Path]:
        return sorted((self.root / recipe).glob(f"{key}.*.json"))

    def weights_path(self, key: str, sha256: str) -> Path:
        """File of weights. The checksum is part of its name: checkouts with records of their own share one cache."""
        return self.cache / "weights" / f"{key}-{sha256[:8]}.safetensors"

    def has_weights(self, record: Record) -> bool:
        """Whether a file with the record's weights is in the cache; it is not read."""
        return record.weights is not None and self.weights_path(record.key, record.weights.sha256).exists()

    def checkpoint_path(self, key: str) -> Path:
        return self.cache / "checkpoints" / f"{key}.pt"

    def lock_path(self, key: str) -> Path:
        path = self.cache / "locks" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def save_weights(self, key: str, state: dict[str, Any]) -> Weights:
        """Write a state dict as safetensors, atomically; returns its checksum."""
        from safetensors.torch import save

        content = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
        found = hashlib.sha256(content).hexdigest()
        write_atomically(self.weights_path(key, found), content)
        return Weights(sha256=found, bytes=len(content))

    def load_weights(self, record: Record) -> dict[str, Any] | None:
        """Weights of a record; None if they are not here. An altered file is set aside, with a warning."""
        from safetensors.torch import load

        if record.weights is None or not self.has_weights(record):
            return None
        path = self.weights_path(record.key, record.weights.sha256)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != record.weights.sha256:
            set_aside(path, "its checksum is another than its record's")
            return None
        return load(content)

    def weights_of(self, records: list[Record]) -> tuple[Record, dict[str, Any]] | None:
        """The first weights that are here of several runs, with the record they belong to."""
        for record in records:
            state = self.load_weights(record)
            if state is not None:
                return record, state
        return None

    def _load(self, path: Path) -> Record | None:
        try:
            stamp = path.stat().st_mtime_ns
            if path in self._read and self._read[path][0] == stamp:
                return self._read[path][1]
            record = _parsed(path)
        except FileNotFoundError:  # never there, or another process set it aside
            return None
        except OtherVersion as problem:
            if path not in self._strange:  # said once; the file is somebody's, and stays
                self._strange.add(path)
                warnings.warn(f"{path.name} is not read: {problem}", stacklevel=3)
            return None
        except ValueError as problem:
            set_aside(path, str(problem).splitlines()[0])
            return None
        self._read[path] = (stamp, record)
        return record


class OtherVersion(ValueError):
    """A record written by another version of this library."""


def _parsed(path: Path) -> Record:
    try:
        record = Record.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        unknown = {".".join(map(str, each["loc"])) for each in problem.errors() if each["type"] == "extra_forbidden"}
        unknown |= {"schema" for each in problem.errors() if each["loc"] == ("schema",) and each["type"] != "missing"}
        if unknown:
            raise OtherVersion(f"another version of efflib wrote it ({', '.join(sorted(unknown))})") from problem
        raise
    if path.name.split(".")[0] != record.key or path.parent.name != record.recipe:
        raise ValueError(f"it holds the record of {record.recipe}/{record.key}")
    return record


def run_id(record: Record) -> str:
    """Six hex digits telling two runs of one key apart: device, versions, date and time taken."""
    made = record.provenance
    return digest([made.device, made.versions, made.date, made.commit, record.cost.seconds])[:6]


def set_aside(path: Path, reason: str) -> None:
    """Rename a broken file to `<name>.broken` and say so; another process may have been quicker."""
    broken = path.with_name(path.name + ".broken")
    try:
        os.replace(path, broken)
    except FileNotFoundError:
        return
    except OSError as problem:  # e.g. a folder that may only be read
        warnings.warn(f"{path.name} cannot be used ({reason}), nor set aside ({problem})", stacklevel=3)
        return
    warnings.warn(f"{path.name} cannot be used ({reason}); set aside as {broken.name}", stacklevel=3)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file of results or cache as `replacing` does."""
    with replacing(path, "set EFFLIB_RESULTS and EFFLIB_CACHE to folders you can write") as file:
        file.write(content.encode() if isinstance(content, str) else content)
