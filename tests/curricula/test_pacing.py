"""Pools over time, the order within them, and the scores that make it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from efflib.curricula import create
from efflib.curricula.pacing import (
    Pacing,
    easiest_first,
    enlarged,
    imagenet_features,
    lcdnet_scores,
    out_of_fold_scores,
    pool_size,
    pools_below_all,
    self_taught_scores,
    transfer_scores,
)
from efflib.data import DataNotFound, load_dataset
from efflib.training import TrainingRecipe, predict, seeded


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A private EFFLIB_DATA, private caches and no network for every test here."""
    for name in ("EFFLIB_DATA", "EFFLIB_CACHE", "TORCH_HOME"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    return tmp_path


# --- pools ----------------------------------------------------------------------------------------------------

POOLS = [2_000, 3_800, 7_220, 13_718, 26_065, 49_522, 50_000]


def test_pools_of_the_spec():
    assert [pool_size(10_000 * step, 50_000) for step in range(7)] == POOLS
    assert [pool_size(10_000 * step + 9_999, 50_000) for step in range(7)] == POOLS
    assert pool_size(10**9, 50_000) == 50_000
    # Rounded up exactly, in integers: 0.04 = 1/25, 1.9 = 19/10.
    for N in (1, 7, 96, 9_000, 45_000, 50_000, 100_000):
        exact = [min(-(-N * 19**step // (25 * 10**step)), N) for step in range(8)]
        assert [pool_size(10_000 * step, N) for step in range(8)] == exact


def test_the_span_stretches_the_pools():
    scores, labels = torch.arange(50_000.0), torch.arange(50_000) % 10
    usual, total = Pacing(scores=scores, labels=labels), 200 * 50_000
    assert pools_below_all(0.04, 1.9) == 6 and pools_below_all(1, 1.9) == 0 and pools_below_all(0.25, 2) == 2
    assert [usual.pool(seen, total) for seen in range(0, 70_000, 10_000)] == POOLS
    stretched = Pacing(scores=scores, labels=labels, pacing_span=0.3)
    assert [stretched.pool(500_000 * step, total) for step in range(7)] == POOLS
    assert stretched.pool(3_000_000 - 1, total) == 49_522 and stretched.pool(3_000_000, total) == 50_000
    same = Pacing(scores=scores, labels=labels, pacing_span=0.006)
    assert all(same.pool(seen, total) == usual.pool(seen, total) for seen in range(0, 70_000, 64))


def test_easiest_first_and_class_balanced():
    scores = torch.tensor([0.1, 0.9, 0.5, 0.8, 0.2, 0.7, 0.6])
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 0])
    # By class: 0: 1, 6, 2, 0; 1: 3, 4; 2: 5. Groups: {1, 3, 5}, {6, 4}, {2}, {0}, each by falling score.
    assert easiest_first(scores, labels).tolist() == [1, 3, 5, 6, 4, 2, 0]
    assert easiest_first(scores.numpy(), labels.tolist()).tolist() == [1, 3, 5, 6, 4, 2, 0]


def test_ties_keep_the_order_of_the_images():
    assert easiest_first(torch.zeros(7), torch.tensor([1, 0, 1, 0, 0, 1, 1])).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_pools_of_equal_classes_are_balanced():
    labels = torch.arange(1_000) % 10
    order = easiest_first(torch.rand(1_000, generator=torch.Generator().manual_seed(0)), labels)
    assert sorted(order.tolist()) == list(range(1_000))
    for size in (10, 40, 500):
        assert labels[order[:size]].bincount().tolist() == [size // 10] * 10


def test_wrong_scores():
    with pytest.raises(ValueError, match=r"scores \(3,\) and labels \(2,\) must be two lists of one length"):
        easiest_first(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="1 of 3 scores are not finite"):
        easiest_first(torch.tensor([0, float("nan"), 1]), torch.zeros(3))


# --- training -------------------------------------------------------------------------------------------------


@pytest.fixture
def scores(data):
    """Random scores of the training digits, and their labels."""
    return {
        "scores": torch.rand(96, generator=torch.Generator().manual_seed(3)),
        "labels": torch.from_numpy(data[0].labels),
    }


def positions(data, batches):
    place = {int(index): number for number, index in enumerate(data[0].indices)}
    return [[place[int(index)] for index in batch.indices] for batch in batches]


def test_images_outside_the_pool_are_not_drawn(train, data, scores):
    curriculum = Pacing(**scores, every=64)  # a new pool every fourth batch of 16
    _, _, batches = train(curriculum, recipe=TrainingRecipe(epochs=5, lr=0.05, batch_size=16, augment="none"))
    found, easiest = positions(data, batches), curriculum.easiest.tolist()
    pools = [curriculum.pool(16 * step, 5 * 96) for step in range(30)]
    assert [pools[step] for step in (0, 3, 4, 8, 12, 16, 20, 24)] == [4, 4, 8, 14, 27, 51, 96, 96]
    for step, (pool, batch) in enumerate(zip(pools, found)):
        allowed = set(easiest[: max(pool, 16)])  # a batch is filled up with the next easiest
        assert set(batch) <= allowed and len(set(batch)) == 16, step
    drawn = {place for batch in found[16:20] for place in batch}
    assert len(drawn - set(easiest[:27])) > 10  # and the pool of the day is made use of
    assert batches[0].targets.bincount(minlength=10).min() >= 1  # class-balanced: 16 images of 10 classes


def test_draws_are_uniform(scores):
    curriculum = Pacing(**scores, start=0.25, every=10**9)
    recipe = TrainingRecipe(epochs=1, batch_size=8, augment="none")
    count = np.zeros(96)
    for seed in range(300):
        drawn = curriculum.order(torch.arange(96), recipe, seed, 0)
        assert len(drawn) == 96
        np.add.at(count, drawn.numpy(), 1)
    pool = curriculum.easiest[:24].numpy()
    expected = 300 * 96 / 24  # each image of the pool: 1 200 draws, standard deviation 28
    assert count.sum() == 300 * 96 == count[pool].sum()
    assert np.abs(count[pool] - expected).max() < 4.5 * np.sqrt(expected * (1 - 8 / 24))


def test_once_all_images_are_in_the_order_is_the_plain_one(train, data, scores):
    recipe = TrainingRecipe(epochs=3, lr=0.05, batch_size=32, augment="none")
    _, _, plain = train(recipe=recipe)
    _, _, paced = train(Pacing(**scores, every=20), recipe=recipe)
    plain, paced = positions(data, plain), positions(data, paced)
    assert plain[4:] == paced[4:]  # from batch 4 on, 128 > 6 x 20 images are seen
    assert all(one != two for one, two in zip(plain[:4], paced[:4]))
    _, _, drawn = train(Pacing(**scores, every=20, full="draws"), recipe=recipe)
    last = [place for batch in positions(data, drawn)[6:] for place in batch]
    assert plain[6:] != last and len(set(last)) < 96  # batches are drawn one by one: some images twice, some never


def test_the_last_batch_may_be_smaller_or_dropped(train, scores):
    for drop, sizes in ((False, [40, 40, 16]), (True, [40, 40])):
        recipe = TrainingRecipe(epochs=1, batch_size=40, augment="none", drop_last=drop)
        _, _, batches = train(Pacing(**scores), recipe=recipe)
        assert [len(batch.targets) for batch in batches] == sizes
        assert all(len(batch.indices.unique()) == len(batch.indices) for batch in batches)


def test_the_scores_must_be_of_the_training_set(train, scores):
    short = {name: values[:90] for name, values in scores.items()}
    with pytest.raises(ValueError, match=r"the scores are of 90 images, the training set has 96, .* held-out ones"):
        train(Pacing(**short))
    with pytest.raises(ValueError, match="or the labels differ"):
        train(Pacing(scores=scores["scores"], labels=scores["labels"].flip(0)))


def test_wrong_options(scores):
    wrong = [
        ({"start": 0}, r"start must be a share of the images in \(0, 1\], got 0"),
        ({"growth": 1}, "growth must be above 1, got 1"),
        ({"every": 0}, "every must be a positive number, got 0"),
        ({"pacing_span": 30}, r"pacing_span must be a share of training in \(0, 1\], or None, got 30"),
        ({"full": "all"}, "full must be one of epochs, draws, got 'all'"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            create("self_taught", **scores, **options)
    with pytest.raises(ValueError, match=r"lcdnet needs scores and labels: see efflib\.curricula\.pacing"):
        create("lcdnet")


# --- scores ---------------------------------------------------------------------------------------------------


def test_self_taught_scores_are_the_probability_of_the_true_class(train, network, data):
    model = network()
    train(model=model)
    scores = self_taught_scores(model, data[0], TrainingRecipe(epochs=1), "cpu", "fp32")
    logits = predict(model, data[0], TrainingRecipe(epochs=1), "cpu", "fp32").double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert scores.numpy() == pytest.approx(probabilities[np.arange(96), data[0].labels], abs=1e-12)
    other = dataclasses.replace(data[0], labels=(data[0].labels + 1) % 10)
    assert (self_taught_scores(model, other, TrainingRecipe(epochs=1), "cpu", "fp32") < 1 - scores + 1e-12).all()


def clusters(spread=0.5):
    """Features of three classes around three corners; image 0 is labelled wrongly, image 1 lies between corners."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([5, 7, 9]).repeat_interleave(30)  # not 0, 1, 2
    corners = 4 * torch.eye(3)
    features = corners.repeat_interleave(30, dim=0) + spread * torch.randn(90, 3, generator=generator)
    features[0], features[1] = corners[2], (corners[0] + corners[1]) / 2
    return features, labels


@pytest.mark.parametrize("folds", [None, 5])
def test_transfer_scores_find_what_is_hard(folds):
    features, labels = clusters()
    scores = transfer_scores(features, labels, folds)
    assert scores.shape == (90,) and ((scores >= 0) & (scores <= 1)).all()
    assert scores.argsort()[:2].tolist() == [0, 1]
    assert scores[0] < 0.3 and scores[2:].min() > 0.5


def test_out_of_fold_scores_do_not_know_their_image():
    """Labels without any relation to the features: a classifier that has seen them looks better than chance."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(120, 60, generator=generator), torch.arange(120) % 2
    assert transfer_scores(features, labels).mean() > 0.75
    assert abs(transfer_scores(features, labels, folds=5).mean() - 0.5) < 0.15


def test_wrong_features():
    features, labels = clusters()
    with pytest.raises(ValueError, match=r"features must be \(N, D\) and labels \(N,\), got \(90, 3\) and \(80,\)"):
        transfer_scores(features, labels[:80])
    with pytest.raises(ValueError, match="all 90 images are of one class"):
        transfer_scores(features, labels * 0)
    for folds in (1, 31, True):
        with pytest.raises(ValueError, match=f"between 2 and the 30 images of the smallest class, got {folds}"):
            transfer_scores(features, labels, folds)


FOLDS = {"model": "resnet14", "folds": 2, "width": 0.5, "device": "cpu", "precision": "fp32", "progress": False}


def test_each_image_is_scored_by_a_network_that_has_not_seen_it(data, tmp_path):
    recipe = TrainingRecipe(epochs=2, lr=0.05, batch_size=16, augment="none")
    scores = out_of_fold_scores(data[0], recipe, checkpoint=tmp_path / "oof", **FOLDS)
    assert scores.shape == (96,) and ((scores > 0) & (scores < 1)).all()
    # An altered image changes its own score and, as it trained the other fold's network, that fold's: not its fold's.
    images = data[0].images.copy()
    images[0] = 16 * (images[0] < 8)
    altered = out_of_fold_scores(dataclasses.replace(data[0], images=images), recipe, **FOLDS)
    changed = scores != altered
    assert changed[0] and 40 <= int(changed.sum()) <= 50  # itself, and the 48 of the other fold
    # Files of an interrupted scoring are taken up.
    (tmp_path / "oof.fold1").unlink()
    assert torch.equal(out_of_fold_scores(data[0], recipe, checkpoint=tmp_path / "oof", **FOLDS), scores)


def test_lcdnet_scorers(data):
    with pytest.raises(ValueError, match="scorer must be one of imagenet_resnet50, cifar_oof, got 'svm'"):
        lcdnet_scores(data[0], scorer="svm")
    few = load_dataset("digits", "train").take(range(60))
    recipe = TrainingRecipe(epochs=1, lr=0.05, batch_size=16, augment="none")
    with seeded(0):
        scores = lcdnet_scores(few, "cifar_oof", recipe, device="cpu", precision="fp32")
    again = out_of_fold_scores(few, recipe, device="cpu", precision="fp32")
    assert torch.equal(scores, again)  # five folds of ResNet20, whatever the caller's random state


# --- ImageNet features ----------------------------------------------------------------------------------------


def test_images_are_enlarged_and_normalised_for_imagenet():
    grey = torch.full((2, 8, 8, 1), 51, dtype=torch.uint8)
    found = enlarged(grey)
    assert found.shape == (2, 3, 224, 224)
    expected = (0.2 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert found.amin(dim=(0, 2, 3)).numpy() == pytest.approx(expected, abs=1e-5)
    assert found.amax(dim=(0, 2, 3)).numpy() == pytest.approx(expected, abs=1e-5)


def test_missing_weights_name_the_file_and_the_places(data, places, tmp_path):
    with pytest.raises(DataNotFound) as found:
        lcdnet_scores(data[0])
    for part in ("resnet50-0676ba61.pth", str(places / "EFFLIB_DATA"), str(places / "TORCH_HOME"), "EFFLIB_OFFLINE",
                 "https://download.pytorch.org/models/resnet50-0676ba61.pth", "scorer='cifar_oof'"):  # fmt: skip
        assert part in str(found.value)
    with pytest.raises(DataNotFound, match=r"looked for .*nothing\.pth\."):
        imagenet_features(data[0], tmp_path / "nothing.pth")


def test_features_of_a_local_file(data, tmp_path):
    with seeded(0):
        network = resnet50()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    torch.manual_seed(1)
    expected_random = torch.rand(2)
    torch.manual_seed(1)
    features = imagenet_features(data[0].take(range(3)), tmp_path / "mine.pth", "cpu")
    assert torch.equal(torch.rand(2), expected_random)  # the caller's random state stays
    assert features.shape == (3, 2048)
    network.fc = nn.Identity()
    with torch.no_grad():
        expected = network.eval()(enlarged(torch.from_numpy(data[0].images[:3])))
    assert (features - expected).abs().max() < 1e-5
