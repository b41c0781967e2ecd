"""Brain MRI folders, packed and open, good and bad: any size and kind of image becomes grey at the set's side."""

from __future__ import annotations

import hashlib
import io
import logging

import numpy as np
import pytest
from PIL import Image

from efflib.data import (
    NORMALISATION,
    DataBroken,
    DataNotFound,
    available,
    download_dataset,
    list_datasets,
    load_dataset,
    sets,
    where,
)

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
NAMES = {"brain_mri": 224, "brain_mri_64": 64, "brain_mri_96": 96, "brain_mri_128": 128}
BAD = "Training/notumor/Tr-no_0003.jpg"


def saved(image: Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(seed: int, height: int = 40, width: int = 50, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, channels), dtype=np.uint8)
    fine = [Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BILINEAR) for c in range(channels)]
    return np.stack([np.asarray(plane) for plane in fine], -1)


def tree(per_class: int = 3) -> dict[str, bytes]:
    """Path -> content, as the download unpacks: grey, RGB and palette images of several sizes."""
    files = {}
    for split, short in (("Training", "Tr"), ("Testing", "Te")):
        for k, label in enumerate(CLASSES):
            for i in range(per_class):
                seed = 100 * (split == "Testing") + 10 * k + i
                image = Image.fromarray(pixels(seed, 40 + i, 50, 3 if i == 1 else 1).squeeze())
                if i == 2:
                    image = image.convert("P")
                kind = "png" if i == 2 else "jpeg"
                ending = "png" if i == 2 else "jpg"
                files[f"{split}/{label}/{short}-{label[:2]}_{per_class - i:04d}.{ending}"] = saved(image, kind)
    return files


def unpack(files: dict[str, bytes], folder):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_the_sets():
    assert set(NAMES) <= set(list_datasets())
    for name, side in NAMES.items():
        known = sets.REAL[name]
        assert known.shape == (side, side, 1) and known.classes == CLASSES
        assert known.full == ("" if name == "brain_mri" else "brain_mri")
        assert NORMALISATION[name] == NORMALISATION["phantom"] == ((0.0,), (1.0,))


@pytest.mark.parametrize("name", NAMES)
def test_packed_and_open_give_the_same(name, make, tmp_path):
    files, side = tree(), NAMES[name]
    places = {"kaggle": "", "named": "brain_mri", "spelt": "brain-tumor-mri-dataset"}
    roots = [unpack(files, tmp_path / key / below) and tmp_path / key for key, below in places.items()]
    for key, archive, prefix in (
        ("tar", "brain_mri.tar.gz", ""),
        ("copy", "brain-tumor-mri-224.tar", "brain-tumor-mri/"),
    ):
        make.write_tar(tmp_path / key / archive, {prefix + path: content for path, content in files.items()})
        roots.append(tmp_path / key)
    for split in ("train", "test"):
        forms = [load_dataset(name, split, root) for root in roots]
        assert forms[0].images.shape == (12, side, side, 1) and forms[0].name == name
        assert forms[0].labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert forms[0].indices.tolist() == list(range(12))
        assert all(np.array_equal(form.images, forms[0].images) for form in forms)
        assert {form.variant for form in forms} == {"image-folder"}
    assert all(available(name, root) for root in roots)
    assert where(name, roots[0]) == f"image folder in {roots[0]}"


def test_images_become_grey_and_are_resized_by_pillows_bilinear_filter(places):
    files = tree()
    unpack(files, places[0])
    train = load_dataset("brain_mri_64", "train")
    ranked = sorted(name for name in files if name.startswith("Training"))
    for rank, name in enumerate(ranked):  # class, then file name: ranks do not follow the order on the disk
        with Image.open(io.BytesIO(files[name])) as image:
            wanted = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BILINEAR))
        assert np.array_equal(train.images[rank, ..., 0], wanted), name


def kinds() -> dict[str, Image.Image]:
    grey, rgb = Image.fromarray(pixels(1)[..., 0]), Image.fromarray(pixels(2, channels=3))
    rgba = rgb.convert("RGBA")
    rgba.putalpha(grey)
    return {
        "grey": grey,
        "two": grey.convert("1"),
        "grey with alpha": grey.convert("LA"),
        "palette": rgb.quantize(16),
        "RGB": rgb,
        "RGBA": rgba,
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_kind_of_8_bit_image(kind, places):
    image = kinds()[kind]
    unpack({**tree(), BAD: saved(image)}, places[0])
    options = {"transparency": bytes([0] * 8)} if kind == "palette" else {}
    (places[0] / BAD).write_bytes(saved(image, **options))
    rank = sorted([BAD, *(name for name in tree() if "Training" in name and "_0003" not in name)]).index(BAD)
    wanted = image.convert("RGB").convert("L").resize((96, 96), Image.Resampling.BILINEAR)
    seen = load_dataset("brain_mri_96", "train")
    same = np.abs(seen.images[..., 0].astype(int) - np.asarray(wanted, int)).max((1, 2))
    assert same.min() <= 1, (rank, same)


def test_all_sides_have_the_same_images_in_the_same_order(places):
    unpack(tree(), places[0])
    full = load_dataset("brain_mri", "test")
    for name in list(NAMES)[1:]:
        small = load_dataset(name, "test")
        assert np.array_equal(small.labels, full.labels) and small.fingerprint != full.fingerprint
        side = NAMES[name]
        for a, b in zip(small.images, full.images):
            shrunk = Image.fromarray(b[..., 0]).resize((side, side), Image.Resampling.BILINEAR)
            assert np.abs(a[..., 0].astype(int) - np.asarray(shrunk, int)).mean() < 4


def test_the_known_copy_has_a_variant(make, places, monkeypatch):
    path = make.write_tar(places[0] / "brain-tumor-mri-224.tar.gz", tree())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    from dataclasses import replace

    monkeypatch.setitem(sets.REAL, "brain_mri_64", replace(sets.REAL["brain_mri_64"], known={digest: "copy-224"}))
    assert load_dataset("brain_mri_64", "train").variant == "copy-224"
    assert "copy-224" in sets.BRAIN_MRI.known.values()


def test_decoded_images_are_kept(places, monkeypatch):
    unpack(tree(), places[0])
    first = load_dataset("brain_mri_64", "train")
    monkeypatch.setattr("efflib.data.archives.decode_image", lambda *_: pytest.fail("decoded again"))
    again = load_dataset("brain_mri_64", "train")
    assert np.array_equal(first.images, again.images) and again.fingerprint == first.fingerprint


def test_files_of_notebooks_and_desktops_are_ignored(make, places):
    files = tree()
    stray = {
        "Training/.ipynb_checkpoints/Tr-gl_0001-checkpoint.jpg": b"nobody reads this",
        "Training/glioma/.ipynb_checkpoints/Tr-gl_0001-checkpoint.jpg": b"nobody reads this",
        "Training/glioma/._Tr-gl_0001.jpg": b"nor this",
        "Training/glioma/Thumbs.db": b"nor this",
    }
    unpack({**files, **stray}, places[0])
    make.write_tar(places[0] / "other" / "brain_mri.tar", {**stray, **files})
    assert (
        len(load_dataset("brain_mri_64", "train"))
        == len(load_dataset("brain_mri_64", "train", places[0] / "other"))
        == 12
    )


@pytest.mark.parametrize("packed", [True, False])
def test_missing_and_unknown_class_folders_are_named(packed, make, places):
    files = {name.replace("/notumor/", "/no_tumor/"): content for name, content in tree().items()}
    if packed:
        make.write_tar(places[0] / "brain_mri.tar", files)
    else:
        unpack(files, places[0])
    with pytest.raises(DataBroken, match=r"Dataset train without images: notumor; unknown: no_tumor"):
        load_dataset("brain_mri_64", "train")


def test_a_missing_split_is_said(places):
    unpack({name: content for name, content in tree().items() if name.startswith("Training")}, places[0])
    with pytest.raises(DataNotFound, match="holds the train split but not the test split"):
        load_dataset("brain_mri_64", "test")
    assert not available("brain_mri_64")


def test_folders_of_another_set_are_not_taken_for_this_one(places):
    unpack({"train/cat/a.png": b"x", "test/cat/a.png": b"x"}, places[0])
    with pytest.raises(DataNotFound, match="was not found"):
        load_dataset("brain_mri", "train")


def test_missing_data_say_where_they_come_from_and_where_to_put_them(places, monkeypatch):
    for call in (lambda: load_dataset("brain_mri_128", "train"), lambda: download_dataset("brain_mri")):
        with pytest.raises(DataNotFound) as error:
            call()
        for part in ("kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset", "archive.zip", str(places[0])):
            assert part in str(error.value)
        assert "efflib data" not in str(error.value)  # no command gets it
    with pytest.raises(DataNotFound, match=r"looked for: brain_mri\.tar\.gz.*Training/<class>/.*glioma, meningioma"):
        where("brain_mri")
    monkeypatch.delenv("EFFLIB_DATA")
    monkeypatch.delenv("EFFLIB_OFFLINE")
    with pytest.raises(DataNotFound, match="a folder brain_mri in the folder that EFFLIB_DATA names"):
        load_dataset("brain_mri", "train")


def damages() -> dict[str, bytes]:
    deep = Image.fromarray(np.full((40, 50), 30_000, np.uint16))
    return {
        "no image": b"nonsense",
        "cut": saved(Image.fromarray(pixels(0)[..., 0]), "jpeg")[:300],
        "empty": b"",
        "deep": saved(deep),
    }


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("damage", list(damages()))
def test_a_broken_image_is_named_and_skipped_only_if_asked(damage, packed, make, places, caplog):
    files = {**{name: content for name, content in tree().items() if name != BAD}, BAD: damages()[damage]}
    if packed:
        make.write_tar(places[0] / "brain_mri.tar.gz", files)
    else:
        unpack(files, places[0])
    with pytest.raises(
        DataBroken, match=r"Tr-no_0003\.jpg (cannot be decoded|has pixels of more than 8).*skip_broken=True"
    ):
        load_dataset("brain_mri_64", "train")
    with caplog.at_level(logging.WARNING, "efflib"):
        train = load_dataset("brain_mri_64", "train", skip_broken=True)
    assert "Tr-no_0003.jpg" in caplog.text
    assert train.variant == "image-folder-1-skipped"
    assert np.bincount(train.labels).tolist() == [3, 3, 2, 3] and train.indices.tolist() == list(range(11))
    whole = load_dataset("brain_mri_64", "test", skip_broken=True)
    assert whole.variant == "image-folder"
    assert whole.fingerprint == load_dataset("brain_mri_64", "test").fingerprint
    with pytest.raises(DataBroken):  # what was skipped once is not forgotten
        load_dataset("brain_mri_64", "train")


def test_a_class_of_which_nothing_is_left_is_an_error(places):
    files = {name: b"x" if "Training/pituitary" in name else content for name, content in tree().items()}
    unpack(files, places[0])
    with pytest.raises(DataBroken, match=r"without the 3 files that cannot be decoded.*without images: pituitary"):
        load_dataset("brain_mri_64", "train", skip_broken=True)


def test_other_sets_still_refuse_other_sizes(make, places):
    pictures = make.synthetic(per_class=1)
    members = make.members_of(pictures)
    members["cifar10/train/cat/train_b_s_000009.png"] = make.png(np.zeros((31, 33, 3), np.uint8))
    make.write_tar(places[0] / "cifar10.tar", members)
    with pytest.raises(DataBroken, match="all images must be 32x32"):
        load_dataset("cifar10", "train")
