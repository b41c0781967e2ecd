"""The cache: whole files or none, broken ones noticed, set aside and made again."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from efflib.data import cache, cache_root, load_dataset
from efflib.data.sources import archives


@pytest.fixture
def stored(make, places):
    """A loaded data set and the cache file it left."""
    make.write_tar(places[0] / "cifar10.tar", make.members_of(make.synthetic(per_class=2)))
    first = load_dataset("cifar10", "train")
    (path,) = (places[1] / "decoded").glob("*.npz")
    return first, path


def test_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EFFLIB_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("EFFLIB_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "efflib"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "efflib"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_root() == Path.home() / "Library" / "Caches" / "efflib"


def test_images_are_decoded_once(stored, monkeypatch):
    first, _ = stored
    monkeypatch.setattr(archives, "decode_image", None)
    again = load_dataset("cifar10", "train")
    assert np.array_equal(again.images, first.images)
    assert again.fingerprint == first.fingerprint
    assert again.images.flags.writeable


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[: len(c) // 2],
        lambda c: c[:-1],
        lambda c: b"",
        lambda c: b"<html>",
        flip,
        lambda c: b"\0" * len(c),
    ],
    ids=["half", "one byte short", "empty", "text", "flipped bit", "zeros"],
)
def test_a_broken_cache_file_is_set_aside_and_redone(damage, stored, caplog):
    first, path = stored
    path.write_bytes(damage(path.read_bytes()))
    again = load_dataset("cifar10", "train")
    assert np.array_equal(again.images, first.images)
    assert again.fingerprint == first.fingerprint
    assert path.with_name(path.name + ".broken").exists()
    assert "is broken: renamed" in caplog.text
    caplog.clear()
    load_dataset("cifar10", "train")
    assert not caplog.text


def test_a_foreign_npz_is_set_aside(stored):
    first, path = stored
    cache.save_arrays(path, {"fingerprint": "x"}, images=first.images)
    assert load_dataset("cifar10", "train").fingerprint == first.fingerprint
    assert path.with_name(path.name + ".broken").exists()


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "a" / "b"
    with pytest.raises(TypeError, match="bytes-like"), cache.replacing(path) as file:
        file.write("half a text")
    assert not list(path.parent.iterdir())
    path.write_bytes(b"old")
    with cache.replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["b"]


def test_an_unusable_cache_folder_names_the_setting(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="set EFFLIB_CACHE"), cache.replacing(tmp_path / "file" / "x"):
        pass


def test_digests_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "data.bin"
    path.write_bytes(b"abc")
    first = cache.digests(path)
    assert first["md5"] == "900150983cd24fb0d6963f7d28e17f72"
    assert first["sha256"].startswith("ba7816bf")
    read = []
    original = cache._hash
    monkeypatch.setattr(cache, "_hash", lambda p: read.append(p) or original(p))
    assert cache.digests(path) == first
    assert not read
    path.write_bytes(b"abd")
    os.utime(path, (time.time() + 5,) * 2)
    assert cache.digests(path) != first
    assert len(read) == 1
    cache.digests(path, remember=False)
    assert len(read) == 2


def test_a_broken_digest_note_is_made_again(tmp_path, places):
    path = tmp_path / "data.bin"
    path.write_bytes(b"abc")
    first = cache.digests(path)
    (note,) = (places[1] / "digests").iterdir()
    for damage in ("{", "[]", "{}"):
        note.write_text(damage)
        assert cache.digests(path) == first
