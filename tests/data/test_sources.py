"""Every way data can lie on a disk, and every way they can be wrong."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import pickle
import tarfile

import numpy as np
import pytest

from efflib.data import (
    DataBroken,
    DataNotFound,
    available,
    class_names,
    embedded,
    holdout,
    list_datasets,
    load_dataset,
    sets,
    where,
)


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("images", "labels", "indices"))


def unpack(files: dict, folder) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


# --- the same pixels in every form --------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_official_files_and_image_folders_give_the_same(name, make, tmp_path, monkeypatch):
    pictures = make.synthetic(name)
    files, folder = make.official_files(name, pictures), sets.REAL[name].official.folder
    archive = make.write_tar(
        tmp_path / "official" / sets.REAL[name].official.archive,
        {f"{folder}/{f}": c for f, c in files.items()},
    )
    unpack(files, tmp_path / "unpacked" / folder)
    make.trust(monkeypatch, name, files, archive)
    members = make.members_of(pictures, f"{name}/")
    make.write_tar(tmp_path / "archive" / f"{name}.tar.gz", members)
    unpack(members, tmp_path / "folder")
    for split in ("train", "test"):
        forms = [load_dataset(name, split, tmp_path / form) for form in ("official", "unpacked", "archive", "folder")]
        assert all(same(forms[0], other) for other in forms[1:])
        assert [form.variant for form in forms] == ["official"] * 2 + ["image-folder"] * 2
        assert len({form.fingerprint for form in forms}) == 4
    assert all(available(name, tmp_path / form) for form in ("official", "unpacked", "archive", "folder"))


def test_classes_are_known_without_images(places):
    for name in list_datasets():
        classes = class_names(name)
        assert len(set(classes)) == len(classes) > 1
        assert (name not in embedded.EMBEDDED) or classes == load_dataset(name, "train").classes
    assert class_names("cifar10") == sets.CIFAR10_CLASSES and len(class_names("mnist")) == 10
    with pytest.raises(ValueError, match="unknown data set 'mnits'"):
        class_names("mnits")


def test_images_are_ordered_by_label_and_original_name(make, places):
    pictures = make.synthetic(per_class=5)
    make.write_tar(places[0] / "cifar10.tar", make.members_of(pictures))
    train = load_dataset("cifar10", "train")
    keys = sorted((label, stem) for split, label, stem in pictures if split == "train")
    assert np.array_equal(train.images, [pictures["train", *key] for key in keys])
    assert [train.classes[label] for label in train.labels] == [label for label, _ in keys]
    assert train.indices.tolist() == list(range(50))
    assert train.classes == sets.CIFAR10_CLASSES
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64


@pytest.mark.parametrize("prefix", ["", "cifar10/", "./", "anything/"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_archive_layouts(prefix, suffix, make, places):
    pictures = make.synthetic(per_class=1)
    make.write_tar(places[0] / f"cifar10{suffix}", make.members_of(pictures, prefix))
    assert len(load_dataset("cifar10", "test")) == 10


def test_several_archives_make_one_set(make, places):
    pictures = make.synthetic(per_class=4)
    train = {k: v for k, v in pictures.items() if k[0] == "train"}
    test = {k: v for k, v in pictures.items() if k[0] == "test"}
    for part in (0, 1):
        make.write_tar(places[0] / f"cifar10-train-{part}.tar.gz", make.members_of(dict(list(train.items())[part::2])))
    make.write_tar(places[0] / "cifar10" / "other.tar.gz", make.members_of(train))  # not its name: left alone
    make.write_tar(places[0] / "cifar100.tar.gz", make.members_of(test))  # another set
    make.write_tar(places[0] / "cifar10_test.tar", make.members_of(test))
    assert len(load_dataset("cifar10", "train")) == 40
    assert len(load_dataset("cifar10", "test")) == 40


def test_junk_members_are_ignored(make, places):
    members = make.members_of(make.synthetic(per_class=1))
    junk = {"cifar10/README.md": b"x", "cifar10/train/bird/._a.png": b"x", "__MACOSX/train/bird/a.png": b"x"}
    make.write_tar(places[0] / "cifar10.tar.gz", {**junk, "cifar10/train/bird/Thumbs.db": b"x", **members})
    assert len(load_dataset("cifar10", "train")) == 10


def test_validation_is_a_stratified_tenth_of_train(make, places):
    make.write_tar(places[0] / "cifar10.tar.gz", make.members_of(make.synthetic(per_class=10)))
    train, validation = load_dataset("cifar10", "train"), load_dataset("cifar10", "validation")
    held = holdout(train.labels, 10, seed=0)[1]
    assert validation.indices.tolist() == held.tolist()
    assert np.array_equal(validation.images, train.images[held])
    assert validation.split == "validation"
    assert validation.fingerprint == train.fingerprint


def test_known_archives_have_a_variant(make, places, monkeypatch):
    path = make.write_tar(places[0] / "cifar10.tar.gz", make.members_of(make.synthetic(per_class=1)))
    assert load_dataset("cifar10", "train").variant == "image-folder"
    known = {hashlib.sha256(path.read_bytes()).hexdigest(): "jpeg-q7"}
    monkeypatch.setitem(sets.REAL, "cifar10", dataclasses.replace(sets.REAL["cifar10"], known=known))
    assert load_dataset("cifar10", "train").variant == "jpeg-q7"


def test_fingerprint_follows_archive_bytes_and_pixels(make, places):
    pictures = make.synthetic(per_class=1)
    path = make.write_tar(places[0] / "cifar10.tar", make.members_of(pictures))
    first = load_dataset("cifar10", "train")
    assert load_dataset("cifar10", "train").fingerprint == first.fingerprint
    path.unlink()
    make.write_tar(places[0] / "cifar10.tar.gz", make.members_of(pictures))
    repacked = load_dataset("cifar10", "train")
    assert same(repacked, first)
    assert repacked.fingerprint != first.fingerprint


def test_a_changed_loose_file_is_noticed(make, places):
    pictures = make.synthetic(per_class=1)
    unpack(make.members_of(pictures, ""), places[0] / "cifar10")
    before = load_dataset("cifar10", "train")
    path = next((places[0] / "cifar10" / "train" / "cat").iterdir())
    path.write_bytes(make.png(np.zeros((32, 32, 3), np.uint8)))
    after = load_dataset("cifar10", "train")
    assert after.images[3].max() == 0
    assert after.fingerprint != before.fingerprint


def test_nothing_is_written_into_the_data_folder(make, places):
    make.write_tar(places[0] / "cifar10.tar.gz", make.members_of(make.synthetic(per_class=1)))
    before = sorted(places[0].rglob("*"))
    load_dataset("cifar10", "train")
    assert sorted(places[0].rglob("*")) == before
    assert list((places[1] / "decoded").glob("cifar10-train-*.npz"))


# --- MNIST --------------------

MNIST_FILES = {split: [name for name, _ in pair] for split, pair in sets.MNIST.official.files.items()}


def mnist(make) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for images, labels in MNIST_FILES.values():
        files[images] = make.idx(rng.integers(0, 256, (20, 28, 28)))
        files[labels] = make.idx(rng.permutation(np.arange(20) % 10))
    return files


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_places_and_forms(folder, packed, make, places):
    files = mnist(make)
    (places[0] / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (places[0] / folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    train = load_dataset("mnist", "train")
    assert train.images.shape == (20, 28, 28, 1)
    assert train.images.tobytes() == files["train-images-idx3-ubyte"][16:]
    assert train.labels.tolist() == list(files["train-labels-idx1-ubyte"][8:])
    assert train.variant == "unverified"
    assert len(load_dataset("mnist", "test")) == 20
    assert available("mnist")


def test_mnist_with_the_published_sums_is_official(make, places, monkeypatch):
    files = mnist(make)
    unpack(files, places[0] / "mnist")
    sums = {
        split: tuple((name, hashlib.md5(files[name], usedforsecurity=False).hexdigest()) for name in names)
        for split, names in MNIST_FILES.items()
    }
    official = dataclasses.replace(sets.MNIST, official=sets.Idx(sums))
    monkeypatch.setitem(sets.REAL, "mnist", official)
    assert load_dataset("mnist", "train").variant == "official"


def test_mnist_as_image_folder(make, places):
    pictures = make.synthetic("mnist", per_class=2)
    make.write_tar(places[0] / "mnist.tar.gz", make.members_of(pictures, "mnist/"))
    train = load_dataset("mnist", "train")
    assert train.images.shape == (20, 28, 28, 1)
    assert np.array_equal(train.images[0], pictures["train", "0", "train_b_s_000001"])
    assert train.variant == "image-folder"


def broken_mnist(files: dict[str, bytes], fault: str) -> dict[str, bytes]:
    images, labels = MNIST_FILES["train"]
    packed = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    size = np.array([2051, 20, 14, 56], ">u4").tobytes()
    faults = {
        "truncated": {f"{images}.gz": packed[f"{images}.gz"][:-50]},
        "short": {f"{images}.gz": gzip.compress(files[images][:-1])},
        "no idx": {f"{images}.gz": b"<!DOCTYPE html><html></html>"},
        "other size": {f"{images}.gz": gzip.compress(size + files[images][16:])},
        "swapped": {f"{labels}.gz": packed[f"{images}.gz"]},
        "unequal": {f"{labels}.gz": gzip.compress(np.array([2049, 3], ">u4").tobytes() + b"\0\1\2")},
        "big label": {f"{labels}.gz": gzip.compress(files[labels][:-1] + b"\x0b")},
        "empty": {f"{labels}.gz": b""},
    }
    return {**packed, **faults[fault]}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", "truncated or altered"),
        ("short", "truncated"),
        ("no idx", "no idx file .*html"),
        ("other size", "14x56"),
        ("swapped", "no idx file"),
        ("unequal", r"3 labels.*20 images"),
        ("big label", "does not go with"),
        ("empty", "no idx file"),
    ],
)
def test_broken_mnist_is_named(fault, message, make, places):
    unpack(broken_mnist(mnist(make), fault), places[0] / "mnist")
    with pytest.raises(DataBroken, match=message):
        load_dataset("mnist", "train")


# --- wrong official files --------------------


class Bomb:
    """Unpickling this would be noticed."""

    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


def test_a_pickle_with_the_wrong_sum_is_never_opened(make, places):
    files = dict.fromkeys(make.official_files("cifar10", make.synthetic()), pickle.dumps(Bomb()))
    unpack(files, places[0] / "cifar-10-batches-py")
    with pytest.raises(DataBroken, match=r"md5 .* was not opened.*efflib data cifar10 --download"):
        load_dataset("cifar10", "train")


def test_even_a_trusted_pickle_may_name_arrays_only(make, places, monkeypatch):
    files = dict.fromkeys(make.official_files("cifar10", make.synthetic()), pickle.dumps(Bomb()))
    unpack(files, places[0] / "cifar-10-batches-py")
    make.trust(monkeypatch, "cifar10", files)
    with pytest.raises(DataBroken, match="exec has no place"):
        load_dataset("cifar10", "train")


@pytest.mark.parametrize("content", [b"<html>404</html>", b"", b"\x1f\x8b\x08\0 cut"])
def test_an_official_archive_with_the_wrong_sum_is_refused(content, places):
    (places[0] / "cifar-10-python.tar.gz").write_bytes(content)
    with pytest.raises(DataBroken, match=r"cifar-10-python\.tar\.gz has md5 .*official is c58f3010"):
        load_dataset("cifar10", "train")
    assert not available("cifar10")


def test_a_trusted_archive_that_is_none(make, places, monkeypatch):
    path = places[0] / "cifar-10-python.tar.gz"
    path.write_bytes(b"no tar")
    make.trust(monkeypatch, "cifar10", make.official_files("cifar10", make.synthetic()), path)
    with pytest.raises(DataBroken, match="cannot be read as a tar archive"):
        load_dataset("cifar10", "train")


def test_a_missing_batch_is_named(make, places, monkeypatch):
    files = make.official_files("cifar10", make.synthetic())
    make.trust(monkeypatch, "cifar10", files)
    unpack(files, places[0] / "cifar-10-batches-py")
    (places[0] / "cifar-10-batches-py" / "test_batch").unlink()
    assert len(load_dataset("cifar10", "train")) == 30
    with pytest.raises(DataNotFound, match="lacks test_batch"):
        load_dataset("cifar10", "test")
    assert not available("cifar10")


# --- wrong archives --------------------


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def bad_members(make, fault: str) -> dict:
    members = make.members_of(make.synthetic(per_class=1))
    first = "cifar10/train/cat/train_b_s_000009.png"
    changes = {
        "undecodable": {first: b"not an image"},
        "truncated image": {first: members[first][:300]},
        "size": {first: make.png(np.zeros((31, 33, 3), np.uint8))},
        "deep": {"cifar10/train/cat/more/a.png": members[first]},
        "shallow": {"cifar10/train/a.png": members[first]},
        "double": {first.replace(".png", ".bmp"): members[first]},
        "parent": {"../train/cat/a.png": members[first]},
        "inner parent": {"cifar10/train/../cat/a.png": members[first]},
        "absolute": {"/train/cat/a.png": members[first]},
        "backslash": {"cifar10/train/cat\\a.png": members[first]},
        "link": {"cifar10/train/cat/a.png": link("cifar10/train/cat/a.png")},
        "extra class": {"cifar10/train/zebra/a.png": members[first]},
    }
    return {**members, **changes[fault]}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("undecodable", r"cifar10\.tar: cifar10/train/cat/train_b_s_000009\.png cannot be decoded"),
        ("truncated image", r"train_b_s_000009\.png cannot be decoded"),
        ("size", r"train_b_s_000009\.png is 33x31 pixels, all images must be 32x32"),
        ("deep", r"more/a\.png: expected .*train/<class>/<image>"),
        ("shallow", r"train/a\.png: expected"),
        ("double", "class cat has two images named train_b_s_000009"),
        ("parent", "unsafe member name"),
        ("inner parent", "unsafe member name"),
        ("absolute", "unsafe member name"),
        ("backslash", "unsafe member name"),
        ("link", "unsafe member, neither file nor folder"),
        ("extra class", "unknown: zebra"),
    ],
)
def test_bad_members_are_named(fault, message, make, places):
    make.write_tar(places[0] / "cifar10.tar", bad_members(make, fault))
    with pytest.raises(DataBroken, match=message):
        load_dataset("cifar10", "train")
    assert not list(places[1].rglob("*.npz"))


def test_missing_classes_are_named(make, places):
    pictures = {k: v for k, v in make.synthetic(per_class=1).items() if k[1] not in ("bird", "ship")}
    make.write_tar(places[0] / "cifar10.tar", make.members_of(pictures))
    with pytest.raises(DataBroken, match="without images: bird, ship"):
        load_dataset("cifar10", "train")


def test_an_empty_class_folder_is_named(make, places):
    unpack(make.members_of(make.synthetic(per_class=1), ""), places[0] / "cifar10")
    next((places[0] / "cifar10" / "train" / "dog").iterdir()).unlink()
    with pytest.raises(DataBroken, match="without images: dog"):
        load_dataset("cifar10", "train")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_truncated_archive_is_noticed(suffix, share, make, places):
    path = make.write_tar(places[0] / f"cifar10{suffix}", make.members_of(make.synthetic(per_class=1)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataBroken, match="truncated"):
        load_dataset("cifar10", "train")


def test_a_tar_cut_between_two_members_is_noticed(make, places):
    path = make.write_tar(places[0] / "cifar10.tar", make.members_of(make.synthetic(per_class=1)))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataBroken, match="truncated"):
        load_dataset("cifar10", "train")


def test_a_flipped_bit_in_a_gz_archive_is_noticed(make, places):
    path = make.write_tar(places[0] / "cifar10.tar.gz", make.members_of(make.synthetic(per_class=1)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataBroken, match=r"cifar10\.tar\.gz"):
        load_dataset("cifar10", "train")


def test_a_web_page_in_place_of_an_archive_is_called_one(places):
    (places[0] / "cifar10.tar.gz").write_text("\n<!DOCTYPE html><html><body>Sign in</body></html>" * 20)
    with pytest.raises(DataBroken, match="is a web page, not an archive"):
        load_dataset("cifar10", "train")


def test_a_missing_test_archive_is_said_and_not_made_up(make, places):
    pictures = {k: v for k, v in make.synthetic(per_class=1).items() if k[0] == "train"}
    make.write_tar(places[0] / "cifar10-train.tar.gz", make.members_of(pictures))
    assert len(load_dataset("cifar10", "train")) == 10
    with pytest.raises(DataNotFound, match="holds the train split but not the test split"):
        load_dataset("cifar10", "test")
    assert not available("cifar10")


def test_an_archive_without_the_split(make, places):
    pictures = {k: v for k, v in make.synthetic(per_class=1).items() if k[0] == "train"}
    make.write_tar(places[0] / "cifar10.tar.gz", make.members_of(pictures))
    with pytest.raises(DataNotFound, match="holds no test images"):
        load_dataset("cifar10", "test")


# --- names and places --------------------


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"'cifar11'; did you mean cifar10\? Known: brain_mri, .*, cifar100, digits"):
        load_dataset("cifar11", "train")
    with pytest.raises(ValueError, match="unknown data set 'qqq' Known") as error:
        available("qqq")
    assert all(name in str(error.value) for name in list_datasets())
    with pytest.raises(ValueError, match="unknown split 'val'; choose one of train, validation, test"):
        load_dataset("digits", "val")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "tiny_imagenet"])
def test_missing_data_name_file_places_and_command(name, places, monkeypatch):
    with pytest.raises(DataNotFound) as error:
        load_dataset(name, "train")
    text = str(error.value)
    for part in (next(iter(sets.REAL[name].downloads)), str(places[0]), str(places[1] / "downloads")):
        assert part in text
    assert f"efflib data {name} --download" in text
    assert "EFFLIB_OFFLINE is set" in text
    monkeypatch.delenv("EFFLIB_OFFLINE")
    monkeypatch.delenv("EFFLIB_DATA")
    with pytest.raises(DataNotFound, match=r"(?s)EFFLIB_DATA is not set.*download=False"):
        load_dataset(name, "train", download=False)
    with pytest.raises(DataNotFound, match="looked in"):
        where(name)
    assert not available(name)


def test_a_mistyped_root_is_an_error_not_a_download(places, monkeypatch):
    with pytest.raises(DataNotFound, match=r"root is .* no folder"):
        load_dataset("cifar10", "train", places[0] / "nowhere")
    monkeypatch.setenv("EFFLIB_DATA", str(places[0] / "nowhere"))
    with pytest.raises(DataNotFound, match="EFFLIB_DATA is"):
        load_dataset("cifar10", "train")
    assert not available("cifar10")
    assert available("objects32")


def test_where_says_what_would_be_read(make, places):
    make.write_tar(places[0] / "cifar10.tar.gz", make.members_of(make.synthetic(per_class=1)))
    assert where("cifar10") == f"image-folder archives in {places[0]}"
    assert where("digits") == "embedded"
