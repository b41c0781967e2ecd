"""Image folders, in tar archives or lying open: `[<name>/]train/<class>/*`. Nothing is ever extracted."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.sets import RealSet, Tree

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
BIG = 8 << 20  # bytes from which reading an archive is slow enough for a progress bar
MANY = 5000  # images from which decoding is
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of more than 8 bits a channel
Item = tuple[str, Callable[[], bytes]]  # where an image file lies, for messages, and how to read it


def splits_of(file_name: str, known: RealSet) -> list[str]:
    """Splits that an archive of a data set may hold, by its file name; [] when it is none of that set.

    `<name>[-train|-test][-[part]1].tar[.gz]`, words joined by - _ or . ; without a split word: both.
    """
    words = "|".join(known.split_folders)
    names = "|".join(re.escape(name).replace("_", "[-_]") for name in known.names)
    pattern = rf"({names})([-_.]({words}))?([-_.](part[-_.]?)?\d+)?\.(tar|tar\.gz|tgz)"
    match = re.fullmatch(pattern, file_name.lower())
    if match is None:
        return []
    return [known.split_folders[match[3]]] if match[3] else ["train", "test"]


def in_rank_order(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """Positions ordered by (label, file name without suffix): the image index, whatever the images came from."""
    return np.array(sorted(range(len(names)), key=lambda i: (labels[i], names[i])), dtype=np.int64)


def read_archives(
    known: RealSet, archives: tuple[Path, ...], split: str, skip_broken: bool = False
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One split from tar archives of image folders.

    Args:
        known: the data set.
        archives: all files that may hold members of this split.
        split: "train" or "test".
        skip_broken: leave out images that cannot be decoded.

    Returns:
        images uint8 (N, H, W, C) and labels int64 (N,), ordered by (label, file name); why images were left out, one
        line each.

    Raises:
        DataNotFound: no member of this split.
        DataBroken: a truncated archive, unsafe or undecodable or doubled members, wrong sizes or classes.
    """
    members = (
        (name, (f"{archive}: {name}", partial(bytes, content)))
        for archive in archives
        for name, content in _members(archive)
    )
    return _assemble(known, members, split, " + ".join(map(str, archives)), skip_broken)


def read_folder(
    known: RealSet, folder: Path, split: str, skip_broken: bool = False
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One split from an open image folder; as `read_archives`."""
    files = folder_files(known, folder, split)
    members = ((path.relative_to(folder).as_posix(), (str(path), path.read_bytes)) for path in files)
    return _assemble(known, members, split, str(folder), skip_broken)


def folder_files(known: RealSet, folder: Path, split: str) -> list[Path]:
    """All files of one split of an open image folder, sorted."""
    roots = [path for path in folder.iterdir() if known.split_folders.get(path.name.lower()) == split]
    return files_below(*roots)


def files_below(*folders: Path) -> list[Path]:
    """All files in these folders and the folders in them, sorted; files among `folders` do not count."""
    return sorted(Path(root, name) for folder in folders for root, _, names in os.walk(folder) for name in names)


def is_image(name: str) -> bool:
    """Whether a file is an image of the set by its name: desktops and notebooks leave files of their own."""
    hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
    return name.lower().endswith(SUFFIXES) and not hidden and "__MACOSX" not in name


def decode_images(
    items: Sequence[Item],
    shape: tuple[int, int, int],
    what: str,
    resize: bool = False,
    broken: dict[int, str] | None = None,
) -> np.ndarray:
    """Image files -> uint8 (N, H, W, C), decoded one by one into their place: little more memory than the result.

    Args:
        items: the files.
        shape: (H, W, C).
        what: words for the progress bar.
        resize: as in `decode_image`.
        broken: given, it takes the positions of files that cannot be decoded, and why; their pixels mean nothing.

    Raises:
        DataBroken: a file cannot be decoded or has another size.
    """
    from tqdm import tqdm

    images = np.empty((len(items), *shape), np.uint8)
    options: dict[str, Any] = {"unit": "image", "disable": len(items) < MANY, "leave": False, "mininterval": 1}
    for i, (place, read) in enumerate(tqdm(items, f"decoding {what}", **options)):
        try:
            images[i] = decode_image(read(), shape, place, resize)
        except DataBroken as error:
            if broken is None:
                raise
            broken[i] = str(error)
    return images


def decode_image(content: bytes, shape: tuple[int, int, int], what: str, resize: bool = False) -> np.ndarray:
    """Bytes of an image file -> uint8 (H, W, C), RGB or grey by C.

    With `resize`, images of any size are brought to H x W by Pillow's bilinear filter, which averages where it shrinks,
    after the change to grey or RGB.

    Raises:
        DataBroken: it cannot be decoded, its pixels have more than 8 bits, or its size is not H x W; the message
            starts with `what`.
    """
    from PIL import Image

    H, W, C = shape
    try:
        with Image.open(io.BytesIO(content)) as image:
            size, mode = image.size, image.mode
            fits = size == (W, H) or resize
            pixels = _pixels(image, "RGB" if C == 3 else "L", (W, H)) if fits and mode not in DEEP else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataBroken(f"{what} cannot be decoded as an image ({error})") from error
    if mode in DEEP:  # Pillow would clip them at 255
        raise DataBroken(f"{what} has pixels of more than 8 bits (Pillow's mode {mode}); scale them to 0..255")
    if pixels is None:
        raise DataBroken(f"{what} is {size[0]}x{size[1]} pixels, all images must be {W}x{H}")
    return pixels.reshape(shape)


def _pixels(image: Any, mode: str, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    if "transparency" in image.info:  # palettes and greys with a transparent value: it gets its own colour
        image = image.convert("RGBA")
    image = image.convert(mode)
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))


def _placed(known: RealSet, name: str, what: str) -> tuple[str, str, str] | None:
    """(split folder, class, stem) of `[<name>/]<split folder>/<class>/[images/]<file>`; None for everything else."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise DataBroken(f"{what}: unsafe member name; a data archive holds plain relative paths only")
    parts = path.parts
    depth = next((i for i, part in enumerate(parts[:2]) if part.lower() in known.split_folders), None)
    if depth is None or not is_image(name):
        return None
    inner = parts[depth + 1 :]
    if len(inner) == 3 and inner[1] == "images":  # Tiny ImageNet's own way
        inner = (inner[0], inner[2])
    if inner[0] == "images" and isinstance(known.official, Tree):  # its test images, which have no labels
        return None
    if len(inner) != 2:
        raise DataBroken(f"{what}: expected [<name>/]{parts[depth]}/<class>/<image>")
    return parts[depth].lower(), inner[0], path.stem


def _assemble(
    known: RealSet, members: Iterable[tuple[str, Item]], split: str, what: str, skip_broken: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pixels and labels in rank order, and what was skipped; nothing is decoded before the last name fits."""
    found = _collect(known, members, split, what)
    numbers = {name: number for number, name in enumerate(known.classes)}
    labels = np.array([numbers[name] for name, _ in found], dtype=np.int64)
    order = in_rank_order(labels, [stem for _, stem in found])
    items = list(found.values())
    broken: dict[int, str] = {}
    ranked, skips = [items[i] for i in order], broken if skip_broken else None
    try:
        images = decode_images(ranked, known.shape, f"{known.name} {split}", known.resize, skips)
    except DataBroken as error:
        hint = "mend or remove it, or leave it out with load_dataset(..., skip_broken=True)"
        raise DataBroken(f"{error}: {hint}") from error
    if broken:
        kept = np.setdiff1d(np.arange(len(order)), list(broken))
        images, order = images[kept], order[kept]
        left = {known.classes[label] for label in np.unique(labels[order])}
        _check_classes(known, left, split, f"{what} without the {len(broken)} files that cannot be decoded")
    return images, labels[order], list(broken.values())


def _collect(known: RealSet, members: Iterable[tuple[str, Item]], split: str, what: str) -> dict[tuple[str, str], Item]:
    """(class, stem) -> image file of one split."""
    found: dict[tuple[str, str], Item] = {}
    folders: set[str] = set()
    for name, item in members:
        folder, label, stem = _placed(known, name, item[0]) or ("", "", "")
        if known.split_folders.get(folder) != split:
            continue
        folders.add(folder)
        if len(folders) > 1:
            both = " and ".join(f"{name}/" for name in sorted(folders))
            raise DataBroken(f"{what} holds {both}, each of which would be the {split} split: keep one of them")
        if (label, stem) in found:
            raise DataBroken(f"{item[0]}: class {label} has two images named {stem}")
        found[label, stem] = item
    _check_classes(known, {name for name, _ in found}, split, what)
    return found


def _check_classes(known: RealSet, classes: set[str], split: str, what: str) -> None:
    if not classes:
        folder = next(name for name, its in known.split_folders.items() if its == split)
        raise DataNotFound(f"{what} holds no {split} images; expected members [<name>/]{folder}/<class>/<image>")
    missing, extra = sorted(set(known.classes) - classes), sorted(classes - set(known.classes))
    if missing or extra:
        lists = [f"without images: {few(missing)}"] * bool(missing) + [f"unknown: {few(extra)}"] * bool(extra)
        raise DataBroken(f"{what}: class folders of {known.title} {split} {'; '.join(lists)}")


def few(names: list[str]) -> str:
    """The first ten names and how many more there are, for messages."""
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
    return tqdm(desc=f"reading {archive.name}", total=size, disable=size < BIG, **options)


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
