"""From a name to arrays: embedded sets, files, or a download, decoded once into the cache."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from efflib.data import archives, embedded, official, tiny_imagenet
from efflib.data.cache import cache_root, digests, load_arrays, save_arrays, set_aside
from efflib.data.download import downloads_folder, fetch_set, offline
from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.imageset import ImageSet, fingerprint, holdout
from efflib.data.sets import REAL, ByHand, Idx, Pickles, RealSet, Tree

SPLITS = ("train", "validation", "test")
DECODER_VERSION = 1  # to be raised when the same files would give other pixels, labels or order
KINDS = {  # kinds of sources, in words
    "pickles": "official files",
    "tree": "official files",
    "idx": "idx files",
    "archives": "image-folder archives",
    "folder": "image folder",
}


@dataclass(frozen=True)
class Source:
    """Where one data set was found.

    Args:
        kind: one of `KINDS`: "pickles" are CIFAR's files, "tree" Tiny ImageNet's.
        place: the folder in which it was found.
        files: split -> paths: the archive or folder; for idx the images file and the labels file.
    """

    kind: str
    place: Path
    files: dict[str, tuple[Path, ...]]


def list_datasets() -> list[str]:
    """Names that `load_dataset` knows, sorted."""
    return sorted([*embedded.EMBEDDED, *REAL])


def load_dataset(
    name: str,
    split: str,
    root: str | os.PathLike | None = None,
    download: bool = True,
    skip_broken: bool = False,
) -> ImageSet:
    """One split of a data set as arrays.

    Real sets are looked up in `root` (default: EFFLIB_DATA), then among earlier downloads, then fetched from
    the official source with checksum. Files are decoded once; the pixels are kept in `cache_root()`.

    Of the real sets, "train" is the whole training split and "validation" a stratified tenth OF IT,
    `holdout(labels, N // 10, seed=0)`, so the two overlap: to train and validate on different images, split
    "train" with `holdout`. The embedded sets have three separate splits.

    CIFAR and Tiny ImageNet images come ordered by (label, original file name), whatever they were read from;
    `indices` is that rank within the split ("validation": within "train"). MNIST keeps the official order.
    Tiny ImageNet's "test" is its official validation split (the test labels are not public), its classes are the
    sorted WordNet ids, its greyscale files become RGB, and its official files give boxes. Reading it for the first
    time takes about half a minute and 1.4 GB of memory; the decoded arrays take 1.4 GB in `cache_root()`.

    The brain MRI set is `Training/<class>/*` and `Testing/<class>/*`, packed or lying open in the root itself or in
    `brain_mri/`, with images of any size and kind: they become grey and are resized to the set's side ("brain_mri":
    224 px, "brain_mri_64" and so on smaller), bilinearly with antialiasing; what is not square is squashed. All sides
    have the same images in the same order, by (label, original file name). Its official source cannot be read without
    signing in, so it is never downloaded.

    Args:
        name: one of `list_datasets()`.
        split: "train", "validation" or "test".
        root: folder with the data; None takes EFFLIB_DATA.
        download: False forbids downloading, as does EFFLIB_OFFLINE=1.
        skip_broken: leave out files of image folders that cannot be decoded, with a warning that names them, instead
            of raising DataBroken. Other sources have no files to leave out: a broken one stays an error.

    Returns:
        ImageSet. Its variant is "official" (official files, checksums compared), "embedded", "jpeg-q7" (known
        archive of JPEG copies), "lossless-copy" (known archive of lossless copies), "copy-224" (known archive of the
        brain MRI images at 224 px), "image-folder" (unknown origin), "unverified" (MNIST files with other checksums;
        a folder with Tiny ImageNet's official layout) or "unverified-<n>-classes" (such a folder with a list of other
        classes, say, a part made for teaching). "-<n>-skipped" at its end: so many files were left out.

    Raises:
        ValueError: unknown name or split.
        DataNotFound: the data are nowhere and cannot be downloaded.
        DataBroken: the data are there but truncated, altered or not what they should be.
    """
    _check_name(name)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if name in embedded.EMBEDDED:
        return embedded.EMBEDDED[name](split)
    known = REAL[name]
    source = find_source(known, root)
    if source is None:
        source = _download(known, root, download)
    if split == "validation":
        train = _load(known, source, "train", skip_broken)
        held = holdout(train.labels, len(train) // 10, seed=0)[1]
        return replace(train.take(held), split="validation")
    return _load(known, source, split, skip_broken)


def class_names(name: str) -> tuple[str, ...]:
    """Names of a data set's classes in the order of its labels, without its images.

    Of a real set these are the official ones; a folder with other classes is told by what `load_dataset` returns.

    Raises:
        ValueError: unknown name.
    """
    _check_name(name)
    return embedded.EMBEDDED[name]("test").classes if name in embedded.EMBEDDED else REAL[name].classes


def available(name: str, root: str | os.PathLike | None = None) -> bool:
    """True when all splits can be loaded without a download, as far as names and checksums tell."""
    _check_name(name)
    if name in embedded.EMBEDDED:
        return True
    try:
        source = find_source(REAL[name], root)
        return source is not None and all(_paths(REAL[name], source, split) for split in ("train", "test"))
    except (DataNotFound, DataBroken):
        return False


def downloadable(name: str) -> bool:
    """False for a real set that only a person can fetch, since its site asks for a login."""
    _check_name(name)
    return name in REAL and not isinstance(REAL[name].official, ByHand)


def where(name: str, root: str | os.PathLike | None = None) -> str:
    """What `load_dataset` would read, in words.

    Raises:
        DataNotFound: nothing is here; the message says where it was looked for.
        DataBroken: the official archive is here but altered.
    """
    _check_name(name)
    if name in embedded.EMBEDDED:
        return "embedded"
    source = find_source(REAL[name], root)
    if source is None:
        raise DataNotFound(_not_found(REAL[name], root, "It was not downloaded yet."))
    return f"{KINDS[source.kind]} in {source.place}"


def download_dataset(name: str) -> list[Path]:
    """Download the official files of a set into the cache (files that are there and whole are kept).

    Returns:
        Paths of the files; [] for an embedded set.

    Raises:
        ValueError: unknown name.
        DataNotFound: a download failed, is forbidden or needs a person who signs in.
    """
    _check_name(name)
    if name in embedded.EMBEDDED:
        return []
    if isinstance(REAL[name].official, ByHand):
        raise DataNotFound(f"{REAL[name].title} cannot be downloaded from here.\n{_to_get(REAL[name], None)}")
    return fetch_set(REAL[name])


def _check_name(name: str) -> None:
    if name not in list_datasets():
        close = difflib.get_close_matches(str(name), list_datasets(), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"unknown data set {name!r}{hint} Known: {', '.join(list_datasets())}")


# --- finding --------------------


def find_source(known: RealSet, root: str | os.PathLike | None = None) -> Source | None:
    """The first source of a set in `root` (or EFFLIB_DATA) or among the downloads; official files come first.

    Raises:
        DataNotFound: `root` or EFFLIB_DATA is no folder.
        DataBroken: an official archive with the wrong checksum.
    """
    for place in _places(known, root):
        for find in (_find_pickles, _find_idx, _find_tree, _find_archives, _find_folder):
            files = find(known, place)
            if files:
                return Source(find.__name__.removeprefix("_find_"), place, files)
    return None


def roots(root: str | os.PathLike | None) -> list[Path]:
    """Folders in which files are looked for: `root` or EFFLIB_DATA, and the downloads.

    Raises:
        DataNotFound: `root` or EFFLIB_DATA is no folder.
    """
    given, origin = (root, "root") if root is not None else (os.environ.get("EFFLIB_DATA"), "EFFLIB_DATA")
    if not given:
        return [downloads_folder()]
    path = Path(given).expanduser()
    if not path.is_dir():
        raise DataNotFound(f"{origin} is {str(path)!r}, which is no folder; it should hold the data sets")
    return [path, downloads_folder()]


def _places(known: RealSet, root: str | os.PathLike | None) -> list[Path]:
    return [place for base in roots(root) for place in (base, *(base / sub for sub in (*known.names, *known.folders)))]


def _find_pickles(known: RealSet, place: Path) -> dict[str, tuple[Path, ...]]:
    return _packed_or_not(known, known.official, place) if isinstance(known.official, Pickles) else {}


def _find_tree(known: RealSet, place: Path) -> dict[str, tuple[Path, ...]]:
    if not isinstance(known.official, Tree):
        return {}
    renamed = place / known.name
    is_one = (renamed / tiny_imagenet.CLASSES).is_file()
    return _packed_or_not(known, known.official, place) or ({"train": (renamed,), "test": (renamed,)} if is_one else {})


def _packed_or_not(known: RealSet, files: Pickles | Tree, place: Path) -> dict[str, tuple[Path, ...]]:
    """The official archive, or the folder that it unpacks to; one of them holds both splits."""
    archive, folder = place / files.archive, place / files.folder
    if archive.is_file():
        found = digests(archive)["md5"]
        if found != files.archive_md5:
            whole = "; or unpack it before you remove it: folders are read, as unverified" * isinstance(files, Tree)
            raise DataBroken(
                f"{archive} has md5 {found}, official is {files.archive_md5}: truncated, altered or "
                f"not the archive at all. It was not opened. Remove it and run: "
                f"efflib data {known.name} --download{whole}"
            )
        return {"train": (archive,), "test": (archive,)}
    return {"train": (folder,), "test": (folder,)} if folder.is_dir() else {}


def _find_idx(known: RealSet, place: Path) -> dict[str, tuple[Path, ...]]:
    if not isinstance(known.official, Idx):
        return {}
    files: dict[str, tuple[Path, ...]] = {}
    for split, names in known.official.files.items():
        paths = tuple(path for name, _ in names if (path := _either(place, name)))
        if len(paths) == len(names):
            files[split] = paths
    return files


def _either(place: Path, name: str) -> Path | None:
    return next((path for path in (place / f"{name}.gz", place / name) if path.is_file()), None)


def _find_archives(known: RealSet, place: Path) -> dict[str, tuple[Path, ...]]:
    files: dict[str, tuple[Path, ...]] = {}
    if not place.is_dir():
        return files
    for path in sorted(place.iterdir()):
        for split in archives.splits_of(path.name, known):
            if path.is_file():
                files[split] = (*files.get(split, ()), path)
    return files


def _find_folder(known: RealSet, place: Path) -> dict[str, tuple[Path, ...]]:
    for folder in (place / name for name in known.names):
        if found := _splits_in(known, folder):
            return dict.fromkeys(found, (folder,))
    # A set that people unpack by hand may lie in the place itself, without a folder of its own name.
    here = _splits_in(known, place) if isinstance(known.official, ByHand) else {}
    is_one = any((folder / label).is_dir() for folder in here.values() for label in known.classes)
    return dict.fromkeys(here, (place,)) if is_one else {}


def _splits_in(known: RealSet, folder: Path) -> dict[str, Path]:
    """Split -> its folder in an image folder; {} when there is none."""
    paths = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    names = known.split_folders
    return {names[path.name.lower()]: path for path in sorted(paths) if path.name.lower() in names}


def _download(known: RealSet, root: str | os.PathLike | None, allowed: bool) -> Source:
    if isinstance(known.official, ByHand):
        raise DataNotFound(_not_found(known, root, ""))
    if not allowed or offline():
        why = "EFFLIB_OFFLINE is set" if offline() else "download=False"
        raise DataNotFound(_not_found(known, root, f"It was not downloaded: {why}."))
    try:
        fetch_set(known)
    except DataNotFound as error:
        raise DataNotFound(_not_found(known, root, str(error))) from error
    source = find_source(known, root)
    if source is None:
        raise DataNotFound(_not_found(known, root, "The download did not give the expected files."))
    return source


def _not_found(known: RealSet, root: str | os.PathLike | None, why: str) -> str:
    unset = "" if root is not None or os.environ.get("EFFLIB_DATA") else " (EFFLIB_DATA is not set)"
    lines = [
        f"{known.title} was not found.",
        f"  looked for: {_looked_for(known)}",
        f"  looked in: {', '.join(str(place) for place in roots(root))}{unset}",
        *([f"  {why}"] if why else []),
        _to_get(known, root),
    ]
    return "\n".join(lines)


def _looked_for(known: RealSet) -> str:
    if isinstance(known.official, ByHand):
        packed = ", ".join(f"{name}.tar.gz" for name in known.names)
        return f"{packed}, or folders Training/<class>/ and Testing/<class>/ ({', '.join(known.classes)})"
    files = " + ".join(known.downloads)
    folder = f"{known.official.folder}/, " if isinstance(known.official, (Pickles, Tree)) else ""
    archives_ = f"{known.name}-train.tar.gz + {known.name}-test.tar.gz, {known.name}.tar.gz"
    return f"{files}, {folder}{archives_} or {known.name}/train/<class>/"


def _to_get(known: RealSet, root: str | os.PathLike | None) -> str:
    if not isinstance(known.official, ByHand):
        return f"  to get it: efflib data {known.name} --download, or set EFFLIB_DATA to a folder that holds it"
    place = root or os.environ.get("EFFLIB_DATA") or "the folder that EFFLIB_DATA names"
    return (
        f"  to get it: sign in at {known.official.page}, download {known.official.archive} and unpack it into a folder "
        f"{known.names[0]} in {place}: this should then hold Training/ and Testing/"
    )


# --- loading --------------------


def _paths(known: RealSet, source: Source, split: str) -> list[Path]:
    """The files a split is made from.

    Raises:
        DataNotFound: the source lacks this split, in whole or in part.
    """
    if split not in source.files:
        others = " and ".join(source.files)
        raise DataNotFound(
            f"{known.title}: {source.place} holds the {others} split but not the {split} split. Splits of "
            f"different origin are not mixed: add the {split} files there, or point root or EFFLIB_DATA to a "
            f"complete set; efflib data {known.name} --download gets one into {downloads_folder()}"
        )
    paths = source.files[split]
    if isinstance(known.official, Pickles) and source.kind == "pickles" and paths[0].is_dir():
        names = [*known.official.files[split], known.official.meta[0]]
        missing = [name for name in names if not (paths[0] / name).is_file()]
        if missing:
            raise DataNotFound(f"{known.title}: {paths[0]} lacks {', '.join(missing)}, needed for the {split} split")
        return [paths[0] / name for name in names]
    if _loose(source, split):
        whole = source.kind == "tree"
        return tiny_imagenet.tree_files(paths[0], split) if whole else archives.folder_files(known, paths[0], split)
    return list(paths)


def _loose(source: Source, split: str) -> bool:
    """Whether a split lies in a folder of thousands of files: too many to hash them at every load."""
    return source.kind in ("folder", "tree") and source.files[split][0].is_dir()


class Decoded(NamedTuple):
    """What a source gives for one split."""

    images: np.ndarray
    labels: np.ndarray
    variant: str
    classes: tuple[str, ...]
    boxes: np.ndarray | None = None


def _load(known: RealSet, source: Source, split: str, skip_broken: bool) -> ImageSet:
    paths, loose = _paths(known, source, split), _loose(source, split)
    sums = _stamps(paths, source) if loose else [digests(path)["sha256"] for path in paths]
    variants = [known.known.get(digest) for digest in sums] if source.kind == "archives" else []
    skips = skip_broken and source.kind in ("archives", "folder")
    key = json.dumps([DECODER_VERSION, source.kind, known.name, split, sums, variants, *["skip broken"] * skips])
    cached = cache_root() / "decoded" / f"{known.name}-{split}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    stored = _stored(cached, known)
    if stored is None:
        decoded = _decode(known, source, split, variants, skips)
        print_of = [f"decoder {DECODER_VERSION}", *(_contents(paths) if loose else sums)]
        stored = fingerprint(print_of, decoded.images, decoded.labels), decoded
        _save(cached, *stored)
    print_, (images, labels, variant, classes, boxes) = stored
    indices = np.arange(len(labels), dtype=np.int64)
    return ImageSet(known.name, split, images, labels, classes, indices, print_, variant, boxes=boxes)


def _decode(known: RealSet, source: Source, split: str, variants: list, skip_broken: bool) -> Decoded:
    paths = source.files[split]
    if source.kind == "pickles":
        return Decoded(*official.read_pickles(known, paths[0], split), "official", known.classes)
    if source.kind == "idx":
        return Decoded(*official.read_idx(known, (paths[0], paths[1]), split), known.classes)
    if source.kind == "tree":
        images, labels, boxes, classes = tiny_imagenet.read_tree(known, paths[0], split)
        other = "unverified" if classes == known.classes else f"unverified-{len(classes)}-classes"
        return Decoded(images, labels, other if paths[0].is_dir() else "official", classes, boxes)
    if source.kind == "folder":
        images, labels, skipped = archives.read_folder(known, paths[0], split, skip_broken)
    else:
        images, labels, skipped = archives.read_archives(known, paths, split, skip_broken)
    # Archives of one known kind keep its name; anything else in the mix makes the origin unknown.
    variant = variants[0] if len(set(variants)) == 1 and variants[0] else "image-folder"
    for reason in skipped:
        logging.getLogger("efflib").warning("skipped: %s", reason)
    return Decoded(images, labels, variant + f"-{len(skipped)}-skipped" * bool(skipped), known.classes)


def _save(path: Path, print_: str, decoded: Decoded) -> None:
    meta = {"fingerprint": print_, "variant": decoded.variant, "classes": decoded.classes}
    boxes = {} if decoded.boxes is None else {"boxes": decoded.boxes}
    save_arrays(path, meta, images=decoded.images, labels=decoded.labels, **boxes)


def _stored(path: Path, known: RealSet) -> tuple[str, Decoded] | None:
    loaded = load_arrays(path)
    if loaded is None:
        return None
    meta, arrays = loaded
    if not {"fingerprint", "variant"} <= meta.keys() or set(arrays) - {"boxes"} != {"images", "labels"}:
        set_aside(path)
        return None
    classes = tuple(meta.get("classes", known.classes))  # not in files of earlier versions
    return meta["fingerprint"], Decoded(variant=meta["variant"], classes=classes, **arrays)


def _stamps(paths: list[Path], source: Source) -> list[str]:
    """Names, sizes and times of loose files: enough to notice a change without reading them all."""
    digest = hashlib.sha256(str(source.place.resolve()).encode())
    for path in paths:
        state = path.stat()
        digest.update(f"{path.relative_to(source.place)}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return [digest.hexdigest()]


def _contents(paths: list[Path]) -> list[str]:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return [digest.hexdigest()]
