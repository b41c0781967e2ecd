"""Tiny ImageNet as Stanford publishes it: the zip archive, never unpacked, or the folder that it unpacks to.

    tiny-imagenet-200/wnids.txt                      the classes (WordNet ids), one a line; words.txt translates them
                      train/<wnid>/images/*.JPEG     500 images of each class, 64x64
                      train/<wnid>/<wnid>_boxes.txt  image, x0, y0, x1, y1
                      val/images/*.JPEG              10,000 images, 50 of each class
                      val/val_annotations.txt        image, wnid, x0, y0, x1, y1
                      test/images/*.JPEG             10,000 images whose labels are not public: never read

The official validation images are the "test" split here, as in the papers. The lists name every image with one box,
in pixels with both corners inside; so a missing image is noticed. Some JPEG files are greyscale (1,821 training and
168 validation images, by others' count): they become three equal channels.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from efflib.data.archives import decode_images, few, files_below, in_rank_order, is_image
from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.sets import RealSet, Tree

CLASSES = "wnids.txt"
ANNOTATIONS = "val/val_annotations.txt"
FOLDERS = {"train": "train", "test": "val"}  # split -> folder
Row = tuple[str, str, list[int]]  # path of an image in the tree, its wnid, its box as published


@dataclass(frozen=True)
class _Opened:
    """A tree that can be read.

    Args:
        place: the archive or folder, for messages.
        names: paths of the files below the top folder, of the wanted split at least.
        content: path -> bytes.
    """

    place: Path
    names: frozenset[str]
    content: Callable[[str], bytes]

    def read(self, name: str) -> bytes:
        try:
            return self.content(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise DataBroken(f"{self.place}: {name} cannot be read ({error})") from error

    def lines(self, name: str) -> list[list[str]]:
        """The words of every line of a list."""
        if name not in self.names:
            raise DataNotFound(_lacks(self.place, name))
        return [words for line in self.read(name).decode("utf-8", "replace").splitlines() if (words := line.split())]


def read_tree(known: RealSet, place: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """One split of Tiny ImageNet from the official archive or its unpacked folder.

    Args:
        known: the data set.
        place: the zip archive (its checksum is the caller's affair) or the folder.
        split: "train" or "test" (the official validation images).

    Returns:
        images uint8 (N, 64, 64, 3) and labels int64 (N,), ordered by (label, file name); boxes float32 (N, 4),
        x0 y0 x1 y1 in pixels, x1 and y1 exclusive; the classes of wnids.txt, sorted.

    Raises:
        DataNotFound: a list is missing.
        DataBroken: an image that a list names is missing, or the other way round; a line or image makes no sense.
    """
    with _opened(known, place, split) as tree:
        classes = _classes(tree)
        rows = _train_rows(tree, classes) if split == "train" else _test_rows(tree)
        _compare(tree, rows, classes, split)
        numbers = {wnid: number for number, wnid in enumerate(classes)}
        labels = np.array([numbers[wnid] for _, wnid, _ in rows], dtype=np.int64)
        order = in_rank_order(labels, [Path(path).stem for path, _, _ in rows])
        items = [(f"{place}: {rows[i][0]}", partial(tree.read, rows[i][0])) for i in order]
        images = decode_images(items, known.shape, f"{known.name} {split}")
    boxes = np.array([box for _, _, box in rows], np.float32)[order] + np.array([0, 0, 1, 1], np.float32)
    return images, labels[order], boxes, classes


def tree_files(folder: Path, split: str) -> list[Path]:
    """The files of an unpacked folder that a split is made from.

    Raises:
        DataNotFound: wnids.txt or, for "test", the list of the validation images is missing.
    """
    for name in (CLASSES, ANNOTATIONS)[: 1 if split == "train" else 2]:
        if not (folder / name).is_file():
            raise DataNotFound(_lacks(folder, name))
    return [folder / CLASSES, *files_below(folder / FOLDERS[split])]


def _lacks(place: Path, name: str) -> str:
    return (
        f"{place} lacks {name}, so it is not Tiny ImageNet as published: unpack the archive again. Folders of class "
        f"folders are read too, under another name: tiny_imagenet/train/<class>/ and tiny_imagenet/val/<class>/"
    )


@contextmanager
def _opened(known: RealSet, place: Path, split: str) -> Iterator[_Opened]:
    assert isinstance(known.official, Tree)
    if place.is_dir():
        names = frozenset(path.relative_to(place).as_posix() for path in tree_files(place, split))
        yield _Opened(place, names, lambda name: (place / name).read_bytes())
        return
    top = f"{known.official.folder}/"
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataBroken(f"{place} cannot be read as a zip archive ({error}): truncated or altered") from error
    with archive:
        names = frozenset(name.removeprefix(top) for name in archive.namelist() if name.startswith(top))
        yield _Opened(place, names, lambda name: archive.read(top + name))


def _classes(tree: _Opened) -> tuple[str, ...]:
    wnids = [words[0] for words in tree.lines(CLASSES)]
    bad = [wnid for wnid in wnids if not re.fullmatch(r"n\d{8}", wnid)]
    if bad or not wnids or len(set(wnids)) != len(wnids):
        raise DataBroken(
            f"{tree.place}: {CLASSES} should list different WordNet ids such as n01443537, one a line; it has "
            f"{len(wnids)} lines, {len(set(wnids))} different, {f'among them {few(bad)}' if bad else 'all well formed'}"
        )
    return tuple(sorted(wnids))


def _train_rows(tree: _Opened, classes: tuple[str, ...]) -> list[Row]:
    rows: list[Row] = []
    for wnid in classes:
        name = f"train/{wnid}/{wnid}_boxes.txt"
        for words in tree.lines(name):
            rows.append((f"train/{wnid}/images/{words[0]}", wnid, _box(words[1:], tree, name)))
    return rows


def _test_rows(tree: _Opened) -> list[Row]:
    rows: list[Row] = []
    for words in tree.lines(ANNOTATIONS):
        rows.append((f"val/images/{words[0]}", words[1] if len(words) > 1 else "", _box(words[2:], tree, ANNOTATIONS)))
    return rows


def _box(words: list[str], tree: _Opened, name: str) -> list[int]:
    if len(words) != 4 or not all(re.fullmatch(r"\d{1,4}", word) for word in words):
        raise DataBroken(f"{tree.place}: {name}: expected an image and four whole numbers per line, got {words}")
    return [int(word) for word in words]


def _compare(tree: _Opened, rows: list[Row], classes: tuple[str, ...], split: str) -> None:
    """The lists must name every image of the split once and no other, and every class at least once."""
    top = f"{FOLDERS[split]}/"
    here = {name for name in tree.names if name.startswith(top) and is_image(name)}
    listed = Counter(path for path, _, _ in rows)
    used = {wnid for _, wnid, _ in rows}
    faults = {
        "images that are listed and not there": listed.keys() - here,
        "images that are there and not listed": here - listed.keys(),
        "images that are listed twice": {path for path, times in listed.items() if times > 1},
        f"classes that are not in {CLASSES}": used - set(classes),
        "classes without images": set(classes) - used,
    }
    found = [f"{what}: {few(sorted(names))}" for what, names in faults.items() if names]
    if found:
        raise DataBroken(f"{tree.place}: {'; '.join(found)}. Unpack or download the archive again")
