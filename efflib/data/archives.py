"""Image folders, in tar archives or lying open: `[<name>/]train/<class>/*`. Nothing is ever extracted."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.sets import RealSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
BIG = 8 << 20  # bytes from which decoding is slow enough for a progress bar


def splits_of(file_name: str, name: str) -> list[str]:
    """Splits that an archive of data set `name` may hold, by its file name; [] when it is none of that set.

    `<name>[-train|-test][-[part]1].tar[.gz]`, words joined by - _ or . ; without a split word: both.
    """
    words = "|".join(SPLIT_FOLDERS)
    pattern = rf"{re.escape(name)}([-_.]({words}))?([-_.](part[-_.]?)?\d+)?\.(tar|tar\.gz|tgz)"
    match = re.fullmatch(pattern, file_name.lower())
    if match is None:
        return []
    return [SPLIT_FOLDERS[match[2]]] if match[2] else ["train", "test"]


def in_rank_order(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """Positions ordered by (label, file name without suffix): the image index of every CIFAR source."""
    return np.array(sorted(range(len(names)), key=lambda i: (labels[i], names[i])), dtype=np.int64)


def read_archives(known: RealSet, archives: tuple[Path, ...], split: str) -> tuple[np.ndarray, np.ndarray]:
    """One split from tar archives of image folders.

    Args:
        known: the data set.
        archives: all files that may hold members of this split.
        split: "train" or "test".

    Returns:
        images uint8 (N, H, W, C) and labels int64 (N,), ordered by (label, file name).

    Raises:
        DataNotFound: no member of this split.
        DataBroken: a truncated archive, unsafe or undecodable or doubled members, wrong sizes or classes.
    """
    found: dict[tuple[str, str], np.ndarray] = {}
    for archive in archives:
        for name, content in _members(archive):
            where = _placed(name, f"{archive}: {name}")
            if where and where[0] == split:
                _add(
                    found,
                    where,
                    decode_image(content, known.shape, f"{archive}: {name}"),
                    f"{archive}: {name}",
                )
    return _assemble(known, found, split, " + ".join(map(str, archives)))


def read_folder(known: RealSet, folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """One split from an open image folder; as `read_archives`."""
    from tqdm import tqdm

    found: dict[tuple[str, str], np.ndarray] = {}
    files = folder_files(folder, split)
    for path in tqdm(
        files,
        desc=f"decoding {folder.name}",
        unit="image",
        disable=len(files) < 5000,
        leave=False,
        mininterval=1,
    ):
        where = _placed(path.relative_to(folder).as_posix(), str(path))
        if where:
            _add(found, where, decode_image(path.read_bytes(), known.shape, str(path)), str(path))
    return _assemble(known, found, split, str(folder))


def folder_files(folder: Path, split: str) -> list[Path]:
    """All files of one split of an open image folder, sorted."""
    roots = [path for path in folder.iterdir() if path.is_dir() and SPLIT_FOLDERS.get(path.name.lower()) == split]
    return sorted(path for root in roots for path in root.rglob("*") if path.is_file())


def decode_image(content: bytes, shape: tuple[int, int, int], what: str) -> np.ndarray:
    """Bytes of an image file -> uint8 (H, W, C), RGB or grey by C.

    Raises:
        DataBroken: it cannot be decoded, or its size is not H x W; the message starts with `what`.
    """
    from PIL import Image

    H, W, C = shape
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = image.size
            pixels = np.asarray(image.convert("RGB" if C == 3 else "L")) if size == (W, H) else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataBroken(f"{what} cannot be decoded as an image ({error})") from error
    if pixels is None:
        raise DataBroken(f"{what} is {size[0]}x{size[1]} pixels, all images must be {W}x{H}")
    return pixels.reshape(shape)


def _placed(name: str, what: str) -> tuple[str, str, str] | None:
    """(split, class, stem) of an image path `[<name>/]<split>/<class>/<file>`; None for everything else."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise DataBroken(f"{what}: unsafe member name; a data archive holds plain relative paths only")
    parts = path.parts
    if path.suffix.lower() not in SUFFIXES or parts[-1].startswith(".") or "__MACOSX" in parts:
        return None
    depth = next((i for i, part in enumerate(parts[:2]) if part.lower() in SPLIT_FOLDERS), None)
    if depth is None:
        return None
    if len(parts) != depth + 3:
        raise DataBroken(f"{what}: expected [<name>/]{parts[depth]}/<class>/<image>")
    return SPLIT_FOLDERS[parts[depth].lower()], parts[-2], path.stem


def _add(found: dict, where: tuple[str, str, str], pixels: np.ndarray, what: str) -> None:
    key = where[1:]
    if key in found:
        raise DataBroken(f"{what}: class {key[0]} has two images named {key[1]}")
    found[key] = pixels


def _assemble(known: RealSet, found: dict, split: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    if not found:
        raise DataNotFound(f"{what} holds no {split} images; expected members [<name>/]{split}/<class>/<image>")
    classes = {name for name, _ in found}
    missing, extra = sorted(set(known.classes) - classes), sorted(classes - set(known.classes))
    if missing or extra:
        lists = [f"without images: {_few(missing)}"] * bool(missing) + [f"unknown: {_few(extra)}"] * bool(extra)
        raise DataBroken(f"{what}: class folders of {known.title} {split} {'; '.join(lists)}")
    keys = list(found)
    labels = np.array([known.classes.index(name) for name, _ in keys], dtype=np.int64)
    order = in_rank_order(labels, [stem for _, stem in keys])
    return np.stack([found[keys[i]] for i in order]), labels[order]


def _few(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


# --- tar streams --------------------


class _Tail:
    """A reader that remembers the last kilobyte: a whole tar file ends with two blocks of zeros."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.last = (self.last + block[-1024:])[-1024:]
        return block


def _bar(archive: Path) -> Any:
    """A progress bar over the bytes of an archive, unseen for small ones."""
    from tqdm import tqdm

    size = archive.stat().st_size
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "leave": False, "mininterval": 1}
    return tqdm(desc=f"decoding {archive.name}", total=size, disable=size < BIG, **options)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every plain file in a .tar or .tar.gz, in order, read as a stream."""
    try:
        with _bar(archive) as bar, open(archive, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Any = _Tail(gzip.GzipFile(fileobj=raw) if packed else raw)
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    bar.update(raw.tell() - bar.n)
                    if member.isfile():
                        yield member.name.removeprefix("./"), member_content(tar, member)
                    elif not member.isdir():
                        raise DataBroken(f"{archive}: {member.name}: unsafe member, neither file nor folder")
            while stream.read(1 << 20):  # to the end, so that gzip compares its checksum
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataBroken(f"{archive} {_why(archive)} ({error})") from error
    if stream.last.strip(b"\0"):
        raise DataBroken(f"{archive} is truncated: the end mark of a tar file is missing")


def member_content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Content of a plain file in a tar stream."""
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def _why(archive: Path) -> str:
    with open(archive, "rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not an archive: a download went wrong"
    return "is no whole tar archive: truncated or altered"
