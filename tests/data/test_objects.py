"""The renderer: reproducible picture by picture, true masks, learnable by shape and not by colour."""

from __future__ import annotations

import numpy as np
import pytest

from efflib.data import (
    NORMALISATION,
    Difficulty,
    boxes_of,
    embedded,
    list_datasets,
    load_dataset,
    render_objects,
    sets,
)


@pytest.fixture(scope="module")
def train():
    return load_dataset("objects32", "train")


def test_a_picture_does_not_depend_on_the_others():
    many, few = render_objects(300, seed=4), render_objects(7, seed=4, first=200)
    assert np.array_equal(many.images[200:207], few.images)
    assert np.array_equal(many.masks[200:207], few.masks)
    assert few.indices.tolist() == list(range(200, 207))
    assert np.array_equal(many.labels[200:207], few.labels)
    assert not np.array_equal(render_objects(7, seed=5, first=200).images, few.images)


def test_sizes_shapes_and_balance(train):
    assert train.images.shape == (2000, 32, 32, 3)
    assert train.masks.shape == (2000, 32, 32)
    assert train.masks.dtype == bool
    assert set(np.bincount(train.labels)) == {200}
    assert train.variant == "embedded"
    assert len(train.classes) == 10
    assert len(load_dataset("objects32", "validation")) == 500
    assert len(load_dataset("objects32", "test")) == 1000


def test_plans_know_the_sizes():
    from efflib.papers.baselines import SIZES

    assert set(SIZES) == set(list_datasets())
    for name in embedded.EMBEDDED:
        train, test = load_dataset(name, "train"), load_dataset(name, "test")
        assert SIZES[name] == (len(train), len(test), *train.images.shape[2:])
    for name, known in sets.REAL.items():
        assert SIZES[name][2:] == known.shape[1:]


def test_splits_are_disjoint_and_fingerprints_differ(train):
    test = load_dataset("objects32", "test")
    assert not {p.tobytes() for p in train.images} & {p.tobytes() for p in test.images}
    assert train.fingerprint != test.fingerprint
    assert train.fingerprint == load_dataset("objects32", "train").fingerprint


@pytest.mark.parametrize("name", ["objects32", "objects64"])
def test_normalisation_is_that_of_the_training_split(name):
    mean, std = NORMALISATION[name]
    images = load_dataset(name, "train").images
    assert np.allclose(images.mean((0, 1, 2)) / 255, mean, atol=0.001)
    assert np.allclose(images.std((0, 1, 2)) / 255, std, atol=0.001)
    assert set(list_datasets()) <= set(NORMALISATION)


def test_objects64_are_the_first_scenes_of_objects32_at_twice_the_size(train):
    large = {split: load_dataset("objects64", split) for split in ("train", "validation", "test")}
    assert {split: len(data) for split, data in large.items()} == {"train": 1200, "validation": 300, "test": 600}
    data = large["train"]
    assert (data.name, data.split, data.variant) == ("objects64", "train", "embedded")
    assert data.images.shape == (1200, 64, 64, 3) and data.masks.shape == (1200, 64, 64)
    assert data.classes == train.classes and np.array_equal(data.labels, train.labels[:1200])
    assert np.abs(data.boxes / 2 - train.boxes[:1200]).mean() < 0.5  # pixels of the small picture
    halved = data.masks.reshape(1200, 32, 2, 32, 2).mean((2, 4)) >= 0.5
    assert (halved == train.masks[:1200]).mean() > 0.97
    assert all(set(np.bincount(part.labels)) == {len(part) // 10} for part in large.values())
    assert len({part.fingerprint for part in large.values()}) == 3


@pytest.mark.parametrize("name", ["objects32", "objects64"])
def test_rendered_sets_are_drawn_once_and_shared_with_no_one(name, monkeypatch):
    first = load_dataset(name, "test")
    monkeypatch.setattr(embedded, "render_objects", None)
    copy = first.images.copy()
    first.images[:] = 0
    first.masks[:] = False
    again = load_dataset(name, "test")
    assert np.array_equal(again.images, copy) and again.masks.any() and again.boxes.flags.writeable


def test_masks_and_boxes_agree_and_are_never_empty(train):
    area = train.masks.mean((1, 2))
    assert area.min() > 0.03
    assert area.max() < 0.8
    for mask, (x0, y0, x1, y1) in zip(train.masks[:50], train.boxes[:50].astype(int)):
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert mask[y0:y1, x0].any()
        assert mask[y0:y1, x1 - 1].any()
        assert mask[y0, x0:x1].any()
        assert mask[y1 - 1, x0:x1].any()


def test_boxes_of_a_known_mask():
    mask = np.zeros((1, 5, 6), bool)
    mask[0, 1:3, 2:6] = True
    assert boxes_of(mask).tolist() == [[2, 1, 6, 3]]


def test_masks_show_the_object():
    plain = Difficulty(clutter=0, texture=0, occlusion=0, noise=0, contrast=0.5)
    pictures = render_objects(100, 0, difficulty=plain)
    # More texture (properties are drawn by name) repaints the object and leaves its outline.
    recoloured = render_objects(100, 0, difficulty=Difficulty(**{**vars(plain), "texture": 1.0}))
    changed = (pictures.images != recoloured.images).any(-1)
    assert np.array_equal(pictures.masks, recoloured.masks)
    inside = (changed & pictures.masks).sum() / pictures.masks.sum()
    assert inside > 0.4


def test_hidden_pixels_leave_the_mask():
    free = render_objects(200, 0, difficulty=Difficulty(occlusion=0))
    crossed = render_objects(200, 0, difficulty=Difficulty(occlusion=1))
    assert (crossed.masks <= free.masks).all()
    smaller = crossed.masks.sum((1, 2)) < free.masks.sum((1, 2))
    assert smaller.mean() > 0.9
    assert crossed.masks.any((1, 2)).all()


@pytest.mark.parametrize("size", [16, 64])
def test_other_sizes_show_the_same_scene(size):
    normal, other = render_objects(20, 0), render_objects(20, 0, size=size)
    assert other.images.shape == (20, size, size, 3)
    assert other.name == f"objects{size}"
    assert np.allclose(other.boxes * 32 / size, normal.boxes, atol=2.5)


def test_colour_does_not_give_the_class_away(train):
    from sklearn.ensemble import RandomForestClassifier

    def colours(s):
        return np.concatenate([s.images.mean((1, 2)), s.images.std((1, 2))], 1)

    test = load_dataset("objects32", "test")
    forest = RandomForestClassifier(60, min_samples_leaf=5, random_state=0).fit(colours(train), train.labels)
    assert forest.score(colours(test), test.labels) < 0.3


def test_outlines_give_the_class_away(train):
    """Centred masks alone must tell the classes apart: the shape is in the picture."""
    from sklearn.neighbors import KNeighborsClassifier

    def outlines(s):
        out = []
        for mask, (x0, y0, x1, y1) in zip(s.masks, s.boxes.astype(int)):
            rows = np.linspace(y0, y1 - 1, 12).round().astype(int)
            columns = np.linspace(x0, x1 - 1, 12).round().astype(int)
            out.append(mask[np.ix_(rows, columns)].ravel())
        return np.array(out, float)

    test = load_dataset("objects32", "test")
    nearest = KNeighborsClassifier(3).fit(outlines(train), train.labels)
    assert nearest.score(outlines(test), test.labels) > 0.85


def test_a_small_convolutional_net_learns_shapes_it_was_not_given_the_masks_of(train):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers, width = [], 3
    for out in (16, 32, 64):
        layers += [
            torch.nn.Conv2d(width, out, 3, 2, 1, bias=False),
            torch.nn.BatchNorm2d(out),
            torch.nn.ReLU(),
        ]
        width = out
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64 * 16, 10))

    def tensors(s):
        images = torch.from_numpy(s.images).permute(0, 3, 1, 2).float() / 128 - 1
        return images, torch.from_numpy(s.labels)

    (x, y), (xt, yt) = tensors(train.take(np.arange(1500))), tensors(load_dataset("objects32", "test"))
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
    net.eval()
    with torch.no_grad():
        accuracy = (net(xt).argmax(1) == yt).float().mean().item()
    assert accuracy > 0.3  # chance is 0.1, its standard error 0.01


@pytest.mark.parametrize(
    "wrong",
    [{"clutter": 1.5}, {"noise": -0.1}, {"scale": (0.9, 0.5)}, {"scale": (0.1, 0.5)}, {"rotation": 200}],
)
def test_impossible_difficulties_name_the_setting(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Difficulty(**wrong)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 8}, {"first": -1}])
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(ValueError, match="need count >= 1"):
        render_objects(**{"count": 5, "seed": 0, **wrong})


def test_digits():
    parts = {split: load_dataset("digits", split) for split in ("train", "validation", "test")}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 1257,
        "validation": 180,
        "test": 360,
    }
    assert parts["train"].images.shape == (1257, 8, 8, 1)
    assert parts["train"].images.max() == 255
    pixels = [{p.tobytes() for p in part.images} for part in parts.values()]
    assert not pixels[0] & pixels[2]
    assert not pixels[0] & pixels[1]
    counts = np.bincount(parts["test"].labels)
    assert counts.min() >= 34
    assert counts.max() <= 38
    mean, std = NORMALISATION["digits"]
    assert np.isclose(parts["train"].images.mean() / 255, mean[0], atol=0.001)
    assert np.isclose(parts["train"].images.std() / 255, std[0], atol=0.001)
