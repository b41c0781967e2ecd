"""Official files of CIFAR (pickles) and MNIST (idx), read in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from efflib.data.archives import in_rank_order, member_content
from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.sets import Idx, Pickles, RealSet


def md5_of(content: bytes) -> str:
    """Hex md5 of bytes: a check against the published sums, not a protection by itself."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# --- CIFAR --------------------


def read_pickles(known: RealSet, place: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """One split of CIFAR from the official archive or its unpacked folder.

    Args:
        known: the data set.
        place: the archive, or the folder with the batch files.
        split: "train" or "test".

    Returns:
        images uint8 (N, 32, 32, 3) and labels int64 (N,), ordered by (label, original file name).

    Raises:
        DataNotFound: a batch file is missing.
        DataBroken: a file's md5 is not the official one; nothing of it is unpickled then.
    """
    official = known.official
    assert isinstance(official, Pickles)
    wanted = {**official.files[split], official.meta[0]: official.meta[1]}
    contents = _from_folder(place, wanted) if place.is_dir() else _from_archive(place, official.folder, wanted)
    for name, content in contents.items():
        if md5_of(content) != wanted[name]:
            raise DataBroken(
                f"{place}: {name} has md5 {md5_of(content)}, official is {wanted[name]}: truncated or "
                f"altered. It was not opened. Remove it and run: efflib data {known.name} --download"
            )
    key, names_key = official.keys
    batches = {name: _unpickle(content, f"{place}: {name}") for name, content in contents.items()}
    names = batches.pop(official.meta[0])[names_key]
    return _join(known, [batches[name] for name in official.files[split]], names, key)


def _from_folder(folder: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise DataNotFound(f"{folder} lacks {', '.join(missing)}; it should hold {', '.join(wanted)}")
    return {name: (folder / name).read_bytes() for name in wanted}


def _from_archive(archive: Path, folder: str, wanted: dict[str, str]) -> dict[str, bytes]:
    contents = {}
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                name = member.name.removeprefix("./").removeprefix(f"{folder}/")
                if name in wanted and member.isfile():
                    contents[name] = member_content(tar, member)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataBroken(f"{archive} cannot be read as a tar archive ({error}): truncated or altered") from error
    missing = [name for name in wanted if name not in contents]
    if missing:
        raise DataNotFound(f"{archive} lacks {', '.join(f'{folder}/{name}' for name in missing)}")
    return contents


def _dtype(name: str, align: int = False, copy: int = False) -> np.dtype:
    # The official files were written by Python 2 with align=0, which NumPy 2.4 warns about.
    return np.dtype(name, align=bool(align), copy=bool(copy))


class _ArraysOnly(pickle.Unpickler):
    """Second lock behind the checksum: only what an array needs may be named in the file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        arrays = (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"))
        if (module, name) in (*arrays, ("numpy", "ndarray"), ("_codecs", "encode")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR file")


def _unpickle(content: bytes, what: str) -> dict:
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise DataBroken(f"{what} cannot be unpickled: {error}") from error


def _join(known: RealSet, batches: list[dict], names: list[str], key: str) -> tuple[np.ndarray, np.ndarray]:
    if sorted(names) != list(known.classes):
        raise DataBroken(f"the {known.title} meta file lists other classes: {', '.join(names)}")
    H, W, C = known.shape
    pixels = np.concatenate([batch["data"] for batch in batches])  # (N, C H W), planes red, green, blue
    images = pixels.reshape(-1, C, H, W).transpose(0, 2, 3, 1)
    to_sorted = np.array([known.classes.index(name) for name in names])
    labels = to_sorted[np.concatenate([batch[key] for batch in batches])]
    files = [_text(name).rsplit(".", 1)[0] for batch in batches for name in batch["filenames"]]
    order = in_rank_order(labels, files)
    return np.ascontiguousarray(images[order]), labels[order]


def _text(name: str | bytes) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else name


# --- MNIST --------------------


def read_idx(known: RealSet, paths: tuple[Path, Path], split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """One split of MNIST from its two files, gzipped or not.

    Args:
        known: the data set.
        paths: the images file and the labels file.
        split: "train" or "test".

    Returns:
        images uint8 (N, 28, 28, 1), labels int64 (N,), both in the official order, and the variant:
        "official" when the md5 of both contents is the published one, else "unverified".

    Raises:
        DataBroken: truncated, altered, not idx, wrong size, or labels that do not go with the images.
    """
    official = known.official
    assert isinstance(official, Idx)
    contents = [_plain(path) for path in paths]
    images = _idx_array(contents[0], 2051, paths[0])
    labels = _idx_array(contents[1], 2049, paths[1]).astype(np.int64)
    if images.shape[1:] != known.shape[:2]:
        size = "x".join(map(str, images.shape[1:]))
        raise DataBroken(f"{paths[0]} holds images of {size}, {known.title} has 28x28")
    if len(images) != len(labels) or not len(labels) or labels.max() >= len(known.classes):
        raise DataBroken(f"{paths[1]} ({len(labels)} labels) does not go with {paths[0]} ({len(images)} images)")
    sums = [md5 for _, md5 in official.files[split]]
    variant = "official" if [md5_of(content) for content in contents] == sums else "unverified"
    return images[..., None].copy(), labels, variant


def _plain(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataBroken(f"{path} is truncated or altered: {error}") from error


def _idx_array(content: bytes, magic: int, path: Path) -> np.ndarray:
    head = 16 if magic == 2051 else 8  # magic number, count and, for images, rows and columns: four bytes each
    if len(content) < head or int.from_bytes(content[:4], "big") != magic:
        raise DataBroken(f"{path} is no idx file (magic number {magic} expected); it starts with {content[:16]!r}")
    shape = tuple(int(n) for n in np.frombuffer(content[4:head], ">u4"))
    if len(content) - head != math.prod(shape):
        raise DataBroken(f"{path} should hold {shape} bytes after its header, has {len(content) - head}: truncated?")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
