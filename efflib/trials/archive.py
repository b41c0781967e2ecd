"""Bring records home: `export` packs a store into one archive, `merge` reads it into another store by key."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from efflib.trials.record import Record
from efflib.trials.store import Store, write_atomically

# Weights in archives of earlier versions have no checksum in their names.
_MEMBER = re.compile(
    r"(records/[a-z0-9_]+/[0-9a-f]{16}(\.[0-9a-f]{6})?\.json|weights/[0-9a-f]{16}(-[0-9a-f]{8})?\.safetensors)"
)
_MANIFEST = "SHA256SUMS.json"


class ArchiveDamaged(ValueError):
    """An archive that is truncated, altered, or not one of ours."""


@dataclass(frozen=True)
class Merged:
    """What a merge did: records added, already here, kept as a second run of their key; weights added."""

    added: int
    known: int
    second_runs: int
    weights: int


def export(store: Store, path: str | Path, recipes: Iterable[str] = (), weights: bool = False, since: str = "") -> int:
    """Pack records (all recipes, or those named) into a gzip-compressed tar; returns their number.

    Args:
        store: where the records are.
        path: archive to write, e.g. "records.tar.gz"; replaced atomically.
        recipes: names to pack; empty packs all.
        weights: also pack the weights that are in the cache.
        since: only runs that were recorded at this time or later, as ISO 8601 in UTC; empty packs all.

    Raises:
        ValueError: nothing to pack.
    """
    chosen = set(recipes)
    store.records()  # sets broken files aside: with one of them the whole archive would be refused
    files = {f"records/{p.parent.name}/{p.name}": p for p in sorted(store.root.glob("*/*.json"))}
    files = {name: p for name, p in files.items() if not chosen or p.parent.name in chosen}
    files = {name: p for name, p in files.items() if not since or _record(p).provenance.date >= since}
    if not files:
        asked = (f" for {sorted(chosen)}" if chosen else "") + (f" since {since}" if since else "")
        raise ValueError(f"no records to export in {store.root}{asked}")
    count = len(files)
    if weights:
        held = [record for record in map(_record, files.values()) if record.weights and store.has_weights(record)]
        paths = [store.weights_path(each.key, each.weights.sha256) for each in held if each.weights]
        files |= {f"weights/{each.name}": each for each in paths}
    write_atomically(Path(path), _packed({name: p.read_bytes() for name, p in files.items()}))
    return count


def _record(path: Path) -> Record:
    return Record.model_validate_json(path.read_bytes())


def _packed(contents: dict[str, bytes]) -> bytes:
    """A gzip-compressed tar of the contents, their checksums first."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in [(_MANIFEST, json.dumps(sums, indent=1).encode()), *contents.items()]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def merge(store: Store, path: str | Path) -> Merged:
    """Read an exported archive into a store; nothing is written unless every member checks out.

    A record whose key is here with other content becomes a second run `<key>.<run>.json`.

    Raises:
        FileNotFoundError: no such archive.
        ArchiveDamaged: truncated, altered, with unexpected members or invalid records.
    """
    contents = _read(Path(path))
    # The first run of a key (the shorter name) comes before its other runs.
    names = sorted((name for name in contents if name.startswith("records/")), key=lambda name: (len(name), name))
    added = known = second = stored = 0
    for record in [_parsed(name, contents[name]) for name in names]:
        if record in store.runs(record.recipe, record.key):
            known += 1
            continue
        target = store.save(record)
        second += target.name != f"{record.key}.json"
        added += target.name == f"{record.key}.json"
    for name, content in contents.items():
        key = Path(name).stem[:16]
        target = store.weights_path(key, hashlib.sha256(content).hexdigest())
        if name.startswith("weights/") and not target.exists():
            write_atomically(target, content)
            stored += 1
    return Merged(added, known, second, stored)


def _read(path: Path) -> dict[str, bytes]:
    """Contents of an archive by member name, after every check that needs no knowledge of records."""
    try:
        # Unpacked first, which compares gzip's own checksum: a missing end is noticed even behind the last member.
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes())), mode="r:") as archive:
            members = {member.name: _content(archive, member) for member in archive.getmembers()}
    except FileNotFoundError:
        raise
    except (tarfile.TarError, EOFError, OSError, zlib.error) as problem:
        raise ArchiveDamaged(f"{path.name} cannot be read: {problem}; export it again") from problem
    sums = _sums(path, members.pop(_MANIFEST, b""))
    strange = sorted(name for name in members if name not in sums or not _MEMBER.fullmatch(name))
    wrong = sorted(n for n in sums if n not in members or hashlib.sha256(members[n]).hexdigest() != sums[n])
    if strange or wrong:
        raise ArchiveDamaged(f"{path.name}: unexpected {strange}, altered or missing {wrong}; nothing was read from it")
    return members


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member) if member.isfile() else None
    if file is None:
        raise ArchiveDamaged(f"{member.name} is not a plain file: not an archive of `efflib export`")
    return file.read()


def _sums(path: Path, manifest: bytes) -> dict[str, str]:
    try:
        sums = json.loads(manifest)
    except ValueError:
        sums = None
    if not isinstance(sums, dict):
        raise ArchiveDamaged(f"{path.name} has no readable {_MANIFEST}: not an archive of `efflib export`")
    return sums


def _parsed(name: str, content: bytes) -> Record:
    """The record of a member; its name must say what the record says, because the record decides the file written."""
    try:
        record = Record.model_validate_json(content)
    except ValidationError as problem:
        raise ArchiveDamaged(f"{name} is not a valid record: {problem.errors()[0]['msg']}") from problem
    folder, file = name.split("/")[1:]
    if (record.recipe, record.key) != (folder, file.split(".")[0]):
        raise ArchiveDamaged(f"{name} holds the record of {record.recipe!r}, key {record.key!r}")
    return record
