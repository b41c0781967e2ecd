"""Tiny data sets in every supported form, made from the same pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efflib.data import sets

META = {"cifar10": "label_names", "cifar100": "fine_label_names"}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A private cache, a private EFFLIB_DATA and no network for every test here."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    monkeypatch.setenv("EFFLIB_DATA", str(data))
    monkeypatch.setenv("EFFLIB_CACHE", str(cache))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    return data, cache


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(file, "png")
    return file.getvalue()


def synthetic(name: str = "cifar10", per_class: int = 3) -> dict:
    """(split, class, original name) -> pixels; names in no helpful order, one the beginning of another."""
    known, rng = sets.REAL[name], np.random.default_rng(0)
    stems = ["b_s_000009", "b_s_000001", "b_s_000001-x", *(f"a_s_{k:06d}" for k in range(20))][:per_class]
    return {
        (split, label, f"{split}_{stem}"): rng.integers(0, 256, known.shape, dtype=np.uint8)
        for stem in stems
        for split in ("train", "test")
        for label in known.classes
    }


def members_of(pictures: dict, prefix: str = "cifar10/") -> dict[str, bytes]:
    return {f"{prefix}{split}/{label}/{stem}.png": png(p) for (split, label, stem), p in pictures.items()}


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def batch(known: sets.RealSet, pictures: list) -> bytes:
    """A batch file as Python 2 wrote it: its array types carry align=0, which NumPy 2.4 warns about."""
    names = list(reversed(known.classes))  # the official order need not be the sorted one
    content = {
        "data": np.stack([p.transpose(2, 0, 1).ravel() for _, p in pictures]),
        known.official.keys[0]: [names.index(label) for (_, label, _), _ in pictures],
        "filenames": [f"{stem}.png" for (_, _, stem), _ in pictures],
    }
    text = pickle.dumps(content, protocol=2)
    assert b"\x89\x88\x87" in text
    return text.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")


def official_files(name: str, pictures: dict) -> dict[str, bytes]:
    """File name -> content of the official batches, the pictures in a shuffled order."""
    known = sets.REAL[name]
    files = {}
    for split, batches in known.official.files.items():
        here = [(key, p) for key, p in pictures.items() if key[0] == split]
        np.random.default_rng(1).shuffle(here)
        for number, file in enumerate(batches):
            files[file] = batch(known, here[number :: len(batches)])
    files[known.official.meta[0]] = pickle.dumps({META[name]: list(reversed(known.classes))}, protocol=2)
    return files


def trust(monkeypatch, name: str, files: dict[str, bytes], archive: Path | None = None) -> None:
    """Make the checksums of these files the official ones for the length of a test."""

    def md5(content: bytes) -> str:
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    known = sets.REAL[name]
    old = known.official
    official = dataclasses.replace(
        old,
        archive_md5=md5(archive.read_bytes()) if archive else old.archive_md5,
        files={split: {file: md5(files[file]) for file in batches} for split, batches in old.files.items()},
        meta=(old.meta[0], md5(files[old.meta[0]])),
    )
    monkeypatch.setitem(sets.REAL, name, dataclasses.replace(known, official=official))


def idx(array: np.ndarray) -> bytes:
    magic = {1: 2049, 3: 2051}[array.ndim]
    return np.array([magic, *array.shape], ">u4").tobytes() + array.astype(np.uint8).tobytes()


WNIDS = ("n02124075", "n01443537", "n12267677")  # of Tiny ImageNet, in no helpful order


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=95)
    return file.getvalue()


def tiny_tree(wnids: tuple[str, ...] = WNIDS, train: int = 12, test: int = 2) -> dict[str, bytes]:
    """Path below tiny-imagenet-200/ -> content: the official layout, with every fifth image greyscale."""
    rng, lists, files = np.random.default_rng(0), {}, {}

    def picture(path: str) -> None:
        grey = len(files) % 5 == 4
        files[path] = jpeg(rng.integers(0, 256, (64, 64) if grey else (64, 64, 3), dtype=np.uint8))

    def box() -> str:
        return "\t".join(map(str, [*rng.integers(0, 32, 2), *rng.integers(32, 64, 2)]))

    for wnid in wnids:
        names = [f"{wnid}_{k}.JPEG" for k in range(train)]
        lists[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(f"{name}\t{box()}\n" for name in names)
        for name in names:
            picture(f"train/{wnid}/images/{name}")
    names = {f"val_{k}.JPEG": wnids[k % len(wnids)] for k in range(test * len(wnids))}
    lists["val/val_annotations.txt"] = "".join(f"{name}\t{wnid}\t{box()}\n" for name, wnid in names.items())
    for name in names:
        picture(f"val/images/{name}")
    lists["wnids.txt"] = "\n".join(wnids)
    lists["words.txt"] = "".join(f"{wnid}\ta word, another\n" for wnid in wnids)
    unlabelled = {"test/images/test_0.JPEG": b"nobody reads this"}
    return {**{name: text.encode() for name, text in lists.items()}, **files, **unlabelled}


def write_zip(path: Path, files: dict[str, bytes], top: str = "tiny-imagenet-200/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(top + name, content)
    return path


def trust_zip(monkeypatch, path: Path) -> None:
    """Make the checksum of this file that of the official Tiny ImageNet archive for the length of a test."""
    known, md5 = sets.REAL["tiny_imagenet"], hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    official = dataclasses.replace(known.official, archive_md5=md5)
    monkeypatch.setitem(sets.REAL, "tiny_imagenet", dataclasses.replace(known, official=official))


@pytest.fixture(scope="session")
def make():
    """The builders above, for test modules (which cannot import a conftest by name)."""
    import types

    builders = (png, synthetic, members_of, write_tar, official_files, trust, idx, tiny_tree, write_zip, trust_zip)
    return types.SimpleNamespace(**{f.__name__: f for f in builders})
