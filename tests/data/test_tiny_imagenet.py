"""Tiny ImageNet in its official layout, packed and unpacked, and as image folders; small made-up copies of it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from efflib import cli
from efflib.data import DataBroken, DataNotFound, archives, available, holdout, load_dataset, sets, where

NAME, FOLDER = "tiny_imagenet", "tiny-imagenet-200"
BOXES = "train/n01443537/n01443537_boxes.txt"
VAL = "val/val_annotations.txt"
PICTURE = "train/n01443537/images/n01443537_3.JPEG"


def unpack(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def tree(make):
    return make.tiny_tree()


@pytest.fixture
def unpacked(tree, places):
    return unpack(tree, places[0] / FOLDER)


# --- what comes out --------------------


def test_archive_and_folder_give_the_same(make, tree, tmp_path, monkeypatch):
    archive = make.write_zip(tmp_path / "zip" / f"{FOLDER}.zip", tree)
    make.trust_zip(monkeypatch, archive)
    unpack(tree, tmp_path / "folder" / FOLDER)
    for split, count in {"train": 36, "test": 6}.items():
        packed, loose = (load_dataset(NAME, split, tmp_path / form) for form in ("zip", "folder"))
        assert packed.images.shape == (count, 64, 64, 3)
        for field in ("images", "labels", "boxes", "indices", "classes"):
            assert np.array_equal(getattr(packed, field), getattr(loose, field))
        assert (packed.variant, loose.variant) == ("official", "unverified-3-classes")
        assert packed.fingerprint != loose.fingerprint
    assert available(NAME, tmp_path / "zip") and available(NAME, tmp_path / "folder")
    assert where(NAME, tmp_path / "zip") == f"official files in {tmp_path / 'zip'}"
    assert [path.name for path in (tmp_path / "zip").iterdir()] == [f"{FOLDER}.zip"]  # nothing was unpacked


def test_images_are_ordered_by_wnid_and_file_name(tree, unpacked):
    train = load_dataset(NAME, "train")
    assert train.classes == ("n01443537", "n02124075", "n12267677")  # sorted, whatever the order of wnids.txt
    ranked = sorted(name for name in tree if name.startswith("train/") and name.endswith("JPEG"))
    assert [ranked[k].rsplit("_", 1)[1] for k in (1, 2, 3)] == ["1.JPEG", "10.JPEG", "11.JPEG"]
    assert train.indices.tolist() == list(range(36))
    for k, name in enumerate(ranked):
        assert np.array_equal(train.images[k], np.asarray(Image.open(io.BytesIO(tree[name])).convert("RGB")))
        assert train.classes[train.labels[k]] == name.split("/")[1]


def test_greyscale_files_get_three_equal_channels(tree, unpacked):
    train = load_dataset(NAME, "train")
    ranked = sorted(name for name in tree if name.startswith("train/") and name.endswith("JPEG"))
    modes = [Image.open(io.BytesIO(tree[name])).mode for name in ranked]
    equal = [(image == image[..., :1]).all() for image in train.images]
    assert 0 < modes.count("L") < len(modes)
    assert [mode == "L" for mode in modes] == equal
    grey = modes.index("L")
    assert np.array_equal(train.images[grey][..., 0], np.asarray(Image.open(io.BytesIO(tree[ranked[grey]]))))


def test_the_test_split_is_the_official_validation_split(tree, unpacked):
    test = load_dataset(NAME, "test")
    rows = sorted((line.split() for line in tree[VAL].decode().splitlines()), key=lambda row: (row[1], row[0]))
    assert [test.classes[label] for label in test.labels] == [row[1] for row in rows]
    pictures = [np.asarray(Image.open(io.BytesIO(tree[f"val/images/{row[0]}"])).convert("RGB")) for row in rows]
    assert np.array_equal(test.images, pictures)


def test_boxes_are_those_of_the_lists_with_exclusive_ends(make, tree, unpacked):
    name = Path(PICTURE).name
    (unpacked / BOXES).write_bytes(re.sub(rb"_3\.JPEG\t.*\n", b"_3.JPEG\t0\t12\t63\t12\n", tree[BOXES]))
    train = load_dataset(NAME, "train")
    ranked = sorted(f"n01443537_{k}.JPEG" for k in range(12))
    assert train.boxes[ranked.index(name)].tolist() == [0, 12, 64, 13]
    assert train.boxes.dtype == np.float32
    assert (train.boxes[:, 2:] > train.boxes[:, :2]).all() and train.boxes.max() <= 64


def test_validation_is_a_tenth_of_train_with_its_boxes(unpacked):
    train, validation = load_dataset(NAME, "train"), load_dataset(NAME, "validation")
    held = holdout(train.labels, 3, seed=0)[1]
    assert validation.indices.tolist() == held.tolist()
    assert np.array_equal(validation.boxes, train.boxes[held])
    assert validation.classes == train.classes


def test_the_official_classes_make_a_folder_merely_unverified(make, places):
    unpack(make.tiny_tree(sets.TINY_IMAGENET_CLASSES[::-1], train=1, test=1), places[0] / FOLDER)
    train = load_dataset(NAME, "train")
    assert train.variant == "unverified"
    assert train.classes == sets.REAL[NAME].classes
    assert len(train) == len(load_dataset(NAME, "test")) == 200


def test_the_class_list_is_sorted_and_complete():
    classes = sets.TINY_IMAGENET_CLASSES
    assert len(set(classes)) == 200 and list(classes) == sorted(classes)
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in classes)


def test_it_is_decoded_once(unpacked, monkeypatch):
    first = load_dataset(NAME, "train")
    monkeypatch.setattr(archives, "decode_image", None)
    again = load_dataset(NAME, "train")
    for field in ("images", "labels", "boxes", "classes", "variant", "fingerprint"):
        assert np.array_equal(getattr(again, field), getattr(first, field))


def test_long_decoding_shows_its_progress(unpacked, monkeypatch, capsys):
    load_dataset(NAME, "test")
    assert not capsys.readouterr().err
    monkeypatch.setattr(archives, "MANY", 30)
    load_dataset(NAME, "train")
    assert "decoding tiny_imagenet train" in capsys.readouterr().err


@pytest.mark.parametrize("changed", [PICTURE, BOXES])
def test_a_changed_file_in_the_folder_is_noticed(changed, tree, unpacked):
    before = load_dataset(NAME, "train")
    other = changed.replace("_3.JPEG", "_4.JPEG")
    content = tree[other] if other != changed else re.sub(rb"\t\d+\n", b"\t63\n", tree[BOXES])
    assert content != tree[changed]
    (unpacked / changed).write_bytes(content)
    after = load_dataset(NAME, "train")
    assert after.fingerprint != before.fingerprint
    assert not (np.array_equal(after.images, before.images) and np.array_equal(after.boxes, before.boxes))


@pytest.mark.parametrize("folder", [f"{NAME}/{FOLDER}", NAME, FOLDER])
def test_places_of_the_folder(folder, tree, places):
    unpack(tree, places[0] / folder)
    assert len(load_dataset(NAME, "train")) == 36 and available(NAME)


def test_the_archive_comes_before_a_folder_beside_it(make, tree, places, monkeypatch):
    make.trust_zip(monkeypatch, make.write_zip(places[0] / f"{FOLDER}.zip", tree))
    for folder in (FOLDER, NAME):
        unpack(tree, places[0] / folder)
    assert load_dataset(NAME, "test").variant == "official"
    (places[0] / f"{FOLDER}.zip").unlink()
    assert load_dataset(NAME, "test").variant == "unverified-3-classes"


def test_files_of_desktop_systems_and_their_line_ends_do_no_harm(tree, places):
    lists = {name: content.replace(b"\n", b"\r\n") for name, content in tree.items() if name.endswith("txt")}
    junk = {"train/n01443537/images/.DS_Store": b"x", "train/n01443537/images/._n01443537_0.JPEG": b"x"}
    unpack({**tree, **lists, **junk, "val/images/Thumbs.db": b"x"}, places[0] / FOLDER)
    assert (len(load_dataset(NAME, "train")), len(load_dataset(NAME, "test"))) == (36, 6)


# --- what can be wrong --------------------


def without(tree: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in tree.items() if name not in names}


def small(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "jpeg")
    return file.getvalue()


FAULTS = {
    "missing image": (lambda t: without(t, PICTURE), rf"listed and not there: {PICTURE}. Unpack or download"),
    "missing test image": (lambda t: without(t, "val/images/val_2.JPEG"), "not there: val/images/val_2.JPEG"),
    "unlisted image": (lambda t: {**t, PICTURE.replace("_3", "_99"): t[PICTURE]}, "not listed: train/.*_99.JPEG"),
    "image listed twice": (lambda t: {**t, BOXES: t[BOXES] + b"n01443537_3.JPEG 1 2 3 4"}, f"listed twice: {PICTURE}"),
    "half an image": (lambda t: {**t, PICTURE: t[PICTURE][:900]}, rf"{FOLDER}: {PICTURE} cannot be decoded"),
    "no image": (lambda t: {**t, PICTURE: b"<html>"}, rf"{PICTURE} cannot be decoded"),
    "wrong size": (lambda t: {**t, PICTURE: small((32, 64))}, rf"{PICTURE} is 32x64 pixels, all images must be 64x64"),
    "three numbers": (lambda t: {**t, BOXES: b"n01443537_3.JPEG\t1\t2\t3\n"}, r"_boxes.txt: expected .* four whole"),
    "no number": (lambda t: {**t, VAL: b"val_0.JPEG n01443537 1 2 3 x"}, r"val_annotations.txt: expected .*'x'"),
    "a name alone": (lambda t: {**t, VAL: b"val_0.JPEG"}, "val_annotations.txt: expected"),
    "unknown class": (lambda t: {**t, VAL: t[VAL].replace(b"n01443537", b"n99999999")}, "not in wnids.txt: n99999999"),
    "empty class": (lambda t: {**t, "wnids.txt": b"n01443537\nn00000001", "train/n00000001/n00000001_boxes.txt": b""},
                    "classes without images: n00000001"),
    "no wnids": (lambda t: {**t, "wnids.txt": b""}, "wnids.txt should list"),
    "web page": (lambda t: {**t, "wnids.txt": b"<html>\nn01443537"}, "wnids.txt should list .*<html>"),
    "doubled wnids": (lambda t: {**t, "wnids.txt": b"n01443537\nn01443537"}, "2 lines, 1 different"),
    "path in a list": (lambda t: {**t, BOXES: b"../../../secret.JPEG 1 2 3 4"}, "listed and not there"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_faults_are_named(fault, form, make, tree, places, monkeypatch):
    change, message = FAULTS[fault]
    if form == "zip":
        make.trust_zip(monkeypatch, make.write_zip(places[0] / f"{FOLDER}.zip", change(tree)))
        message = message.replace(f"{FOLDER}:", rf"{FOLDER}\.zip:")
    else:
        unpack(change(tree), places[0] / FOLDER)
    with pytest.raises(DataBroken, match=message):
        load_dataset(NAME, "train"), load_dataset(NAME, "test")


@pytest.mark.parametrize(
    ("missing", "split"), [("wnids.txt", "train"), ("wnids.txt", "test"), (VAL, "test"), (BOXES, "train")]
)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_missing_lists_are_named_with_a_way_out(form, missing, split, make, tree, places, monkeypatch):
    files = without(tree, missing)
    if form == "zip":
        make.trust_zip(monkeypatch, make.write_zip(places[0] / f"{FOLDER}.zip", files))
    else:
        unpack(files, places[0] / FOLDER)
        assert available(NAME) == (missing == BOXES)  # that one is known only when the lists are read
    with pytest.raises(
        DataNotFound, match=rf"lacks {missing}, .*unpack the archive again.* tiny_imagenet/val/<class>/"
    ):
        load_dataset(NAME, split)


def test_an_interrupted_unpacking_is_noticed(tree, places):
    unpack({name: content for name, content in tree.items() if "n12267677" not in name}, places[0] / FOLDER)
    with pytest.raises(DataNotFound, match=r"lacks train/n12267677/n12267677_boxes\.txt"):
        load_dataset(NAME, "train")


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[: len(c) // 2], lambda c: c[:-1] + b"!", lambda c: b"<!DOCTYPE html>", lambda c: b""],
    ids=["truncated", "altered", "web page", "empty"],
)
def test_an_archive_with_the_wrong_sum_is_refused(damage, make, tree, places, monkeypatch):
    path = make.write_zip(places[0] / f"{FOLDER}.zip", tree)
    make.trust_zip(monkeypatch, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DataBroken, match=r"tiny-imagenet-200\.zip has md5 .*efflib data tiny_imagenet --download.*unpack"
    ):
        load_dataset(NAME, "train")
    assert not available(NAME)


def test_a_trusted_archive_that_is_none_or_is_damaged_inside(make, tree, places, monkeypatch):
    path = make.write_zip(places[0] / f"{FOLDER}.zip", tree)
    content = bytearray(path.read_bytes())
    content[content.index(tree[PICTURE]) + 500] ^= 1  # stored, not packed: only the sum of this member can tell
    path.write_bytes(content)
    make.trust_zip(monkeypatch, path)
    with pytest.raises(DataBroken, match=rf"{PICTURE} cannot be read \(Bad CRC-32"):
        load_dataset(NAME, "train")
    path.write_bytes(b"no zip")
    make.trust_zip(monkeypatch, path)
    with pytest.raises(DataBroken, match="cannot be read as a zip archive"):
        load_dataset(NAME, "train")


# --- image folders --------------------


@pytest.fixture(scope="module")
def pictures(make):
    """One training and one test image of each class."""
    return {key: value[::8, ::8].repeat(8, 0).repeat(8, 1) for key, value in make.synthetic(NAME, per_class=1).items()}


@pytest.mark.parametrize("test_folder", ["test", "val"])
@pytest.mark.parametrize("inner", ["", "images/"])
def test_image_folder_archives(test_folder, inner, make, pictures, places):
    members = make.members_of(pictures, "tiny_imagenet/")
    named = {re.sub(r"^(\w+/)test/", rf"\1{test_folder}/", name): content for name, content in members.items()}
    named = {re.sub(r"/([^/]+)$", rf"/{inner}\1", name): content for name, content in named.items()}
    parts = {part: {n: c for n, c in named.items() if f"/{part}/" in n} for part in ("train", test_folder)}
    for part, its in parts.items():
        make.write_tar(places[0] / f"tiny-imagenet-{part}.tar", its)
    assert available(NAME)
    for split in ("train", "test"):
        data = load_dataset(NAME, split)
        assert data.images.shape == (200, 64, 64, 3) and data.labels.tolist() == list(range(200))
        assert data.classes == sets.TINY_IMAGENET_CLASSES and data.variant == "image-folder" and data.boxes is None
        expected = {label: p for (s, label, _), p in pictures.items() if s == split}
        assert np.array_equal(data.images[7], expected[data.classes[7]])


def test_an_open_image_folder(make, pictures, places):
    members = make.members_of(pictures, "")
    unpack({name.replace("test/", "val/", 1): content for name, content in members.items()}, places[0] / NAME)
    unpack({"test/images/test_0.JPEG": b"the official test images have no labels"}, places[0] / NAME)
    assert len(load_dataset(NAME, "train")) == len(load_dataset(NAME, "test")) == 200


def test_val_and_test_together_are_ambiguous(make, pictures, places):
    members = make.members_of(pictures, f"{NAME}/")
    both = {**members, **{n.replace("/test/", "/val/"): c for n, c in members.items() if "/test/" in n}}
    make.write_tar(places[0] / f"{NAME}.tar", both)
    with pytest.raises(DataBroken, match="holds test/ and val/, each of which would be the test split: keep one"):
        load_dataset(NAME, "test")


def test_image_folders_need_the_official_classes(make, pictures, places):
    some = {key: value for key, value in pictures.items() if key[1] != "n01443537"}
    make.write_tar(places[0] / f"{NAME}.tar", make.members_of(some, ""))
    with pytest.raises(DataBroken, match="without images: n01443537"):
        load_dataset(NAME, "train")


# --- on the command line --------------------


def test_the_command_lists_reads_and_misses_it(unpacked, places, monkeypatch):
    def efflib(*arguments):
        return CliRunner().invoke(cli.app, ["data", *arguments])

    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in efflib().stdout.splitlines()}
    assert listed[NAME] == f"official files in {places[0]}"
    assert listed["objects64"] == "embedded"
    assert "(36, 64, 64, 3), variant unverified-3-classes" in efflib(NAME).stdout
    monkeypatch.setenv("EFFLIB_DATA", str(places[1]))
    assert "not here; `efflib data tiny_imagenet --download`" in efflib().stdout
    missed = efflib(NAME).exception
    assert isinstance(missed, DataNotFound)
    for part in ("tiny-imagenet-200.zip, tiny-imagenet-200/", str(places[1]), "efflib data tiny_imagenet --download"):
        assert part in str(missed)
