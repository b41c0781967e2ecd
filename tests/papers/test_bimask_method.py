"""BIMask's method: exact masks, honest controls, black where it says black."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from efflib.data import NORMALISATION, ImageSet, load_dataset
from efflib.models import create_model
from efflib.papers.baselines import new_model
from efflib.papers.bimask import recipes as bimask_recipes
from efflib.papers.bimask.method import (
    arm_masks,
    derangement,
    keep_masks,
    removed_overlap,
    saliency_maps,
    training_set,
)
from efflib.papers.bimask.recipes import BimaskConfig, bimask, ft_default
from efflib.training import TrainingRecipe, cifar_lr, seeded
from efflib.trials.recipes import Context

MEAN, STD = NORMALISATION["objects32"]
COUNTS = {0.05: 51, 0.075: 77, 0.1: 102, 0.15: 154, 0.2: 205, 0.3: 307}  # spec, section 2.1
N = 24


def pictures(count=N):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (count, 32, 32, 3), dtype=np.uint8)  # no black pixel of its own
    indices = np.arange(count, dtype=np.int64) * 7 + 3  # places in a larger set
    return ImageSet("objects32", "train", images, np.arange(count) % 10, tuple("abcdefghij"), indices, "f", "embedded")


def network(name="resnet14", dtype=torch.float64):
    with seeded(0):
        return create_model(name, 10, width=0.25).to(dtype)


@pytest.fixture(scope="module")
def maps():
    return saliency_maps(network(), pictures(), MEAN, STD)


INDICES = torch.from_numpy(pictures().indices)


def masks_of(method, maps, ratio=0.1, seed=0):
    return arm_masks(method, maps, ratio, seed, INDICES)


@pytest.mark.parametrize(("ratio", "count"), COUNTS.items())
@pytest.mark.parametrize("method", ["bimask", "masked_only", "random", "shuffled", "inverse"])
def test_every_mask_removes_exactly_k_pixels(maps, method, ratio, count):
    masks = masks_of(method, maps, ratio)
    assert masks.shape == (N, 32, 32) and masks.dtype == torch.bool
    assert ((~masks).sum(dim=(1, 2)) == count).all()


def test_maps_and_masks_do_not_depend_on_the_batch_size(maps):
    for batch_size in (1, 7):
        other = saliency_maps(network(), pictures(), MEAN, STD, batch_size=batch_size)
        assert (maps - other).abs().max() <= 1e-12 * maps.abs().max()
    by_parts = torch.cat([keep_masks(maps[s], 0.1, 0, INDICES[s]) for s in (slice(0, 5), slice(5, 6), slice(6, N))])
    assert torch.equal(by_parts, keep_masks(maps, 0.1, 0, INDICES))


def test_the_least_salient_pixels_go(maps):
    masks = masks_of("bimask", maps)
    for each, kept in zip(maps, masks):
        assert each[~kept].max() <= each[kept].min()
    assert torch.equal(masks, masks_of("masked_only", maps))


def test_the_inverse_removes_the_most_salient(maps):
    for each, kept in zip(maps, masks_of("inverse", maps)):
        assert each[~kept].min() >= each[kept].max()


def test_random_masks_know_nothing_of_the_image(maps):
    masks = masks_of("random", maps)
    assert torch.equal(masks, masks_of("random", torch.rand_like(maps)))
    assert not torch.equal(masks, masks_of("random", maps, seed=1))
    assert len({mask.numpy().tobytes() for mask in masks}) == N
    gone = (~masks).float().mean(dim=0)
    assert 0.05 < gone[:16].mean() < 0.15 and 0.05 < gone[16:].mean() < 0.15  # no corner is preferred


def test_shuffled_masks_are_bimasks_masks_each_at_another_image(maps):
    own, shuffled = masks_of("bimask", maps), masks_of("shuffled", maps)
    place = [next(j for j in range(N) if torch.equal(own[j], mask)) for mask in shuffled]
    assert sorted(place) == list(range(N))
    assert all(j != i for i, j in enumerate(place))


@pytest.mark.parametrize("count", [2, 3, 10, 1_001])
@pytest.mark.parametrize("seed", [0, 4])
def test_a_derangement_moves_everything_once(count, seed):
    order = derangement(count, seed)
    assert sorted(order.tolist()) == list(range(count))
    assert (order != torch.arange(count)).all()
    assert torch.equal(order, derangement(count, seed))


def test_one_image_has_no_other():
    with pytest.raises(ValueError, match="shuffled masks need two images or more"):
        derangement(1, 0)


def test_ties_depend_on_seed_and_index_not_on_place():
    flat = torch.zeros(4, 32, 32)
    indices = torch.tensor([5, 9, 5, 11])
    masks = keep_masks(flat, 0.1, 0, indices)
    assert torch.equal(masks[0], masks[2]) and not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks, keep_masks(flat, 0.1, 1, indices))


def test_a_ratio_of_zero_keeps_everything(maps):
    assert masks_of("bimask", maps, 0.0).all()


def test_the_original_arm_has_no_masks(maps):
    assert masks_of("original_only", maps) is None


@pytest.mark.parametrize("method", ["bimask", "random", "shuffled", "inverse"])
def test_mixed_sets_hold_originals_and_masked_copies(maps, method):
    data, masks = pictures(), masks_of(method, maps)
    mixed = training_set(data, masks, method)
    assert len(mixed) == 2 * N
    assert (mixed.images[:N] == data.images).all()
    check_copies(data, mixed.images[N:], masks)
    for name in ("labels", "indices"):
        assert (getattr(mixed, name) == np.tile(getattr(data, name), 2)).all()


def check_copies(data, copies, masks):
    kept = masks.numpy()
    assert copies.dtype == np.uint8
    assert (copies[~kept] == 0).all()  # black in all three channels
    assert (copies[kept] == data.images[kept]).all()


def test_masked_only_holds_the_masked_copies_alone(maps):
    data, masks = pictures(), masks_of("masked_only", maps)
    alone = training_set(data, masks, "masked_only")
    assert len(alone) == N and (alone.labels == data.labels).all() and (alone.indices == data.indices).all()
    check_copies(data, alone.images, masks)


def test_the_original_arm_is_the_originals_twice():
    data = pictures()
    twice = training_set(data, None, "original_only")
    assert (twice.images == np.concatenate([data.images, data.images])).all()
    assert (twice.labels == np.tile(data.labels, 2)).all()


def test_an_arm_without_its_masks_is_an_error():
    with pytest.raises(ValueError, match="the arm 'random' needs masks"):
        training_set(pictures(), None, "random")


def test_the_callers_images_stay(maps):
    data = pictures()
    before = data.images.copy()
    training_set(data, masks_of("bimask", maps), "masked_only")
    assert (data.images == before).all()


@pytest.mark.parametrize("training", [True, False])
def test_saliency_leaves_the_network_as_it_was(training):
    model = network().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    saliency_maps(model, pictures(4), MEAN, STD)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # batch norm included
    assert all(module.training == training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_the_mode_of_the_network_does_not_matter(maps):
    assert torch.equal(saliency_maps(network().train(), pictures(), MEAN, STD), maps)


@pytest.mark.parametrize("name", ["resnet14", "vgg8"])
def test_a_constant_saliency_is_refused(name):
    with pytest.raises(
        ValueError, match=r"constant over every image.*take the raw output of a convolution \(layer=-1\)"
    ):
        saliency_maps(network(name), pictures(4), MEAN, STD, layer="pool")


def test_the_true_class_can_be_asked_for():
    model = network()
    predicted = saliency_maps(model, pictures(), MEAN, STD)
    true = saliency_maps(model, pictures(), MEAN, STD, target="true")
    assert not torch.equal(predicted, true)


def test_overlap_is_the_intersection_over_union_of_what_goes():
    a, b = torch.ones(2, 1, 4, dtype=torch.bool), torch.ones(2, 1, 4, dtype=torch.bool)
    a[0, 0, :2], b[0, 0, 1:3] = False, False  # one of three shared
    a[1, 0, 3], b[1, 0, 3] = False, False
    assert removed_overlap(a, b) == pytest.approx((1 / 3 + 1) / 2)
    assert removed_overlap(a, a) == 1.0
    assert removed_overlap(torch.ones_like(a), torch.ones_like(a)) == 0.0  # nothing removed


# --- the recipe ------------------------------------------------------------------------------------------------------

DIGITS = {
    "dataset": "digits", "model": "resnet14", "model_options": {"width": 0.5, "in_channels": 1}, "seed": 0,
    "subset": 60, "holdout": 20, "training": TrainingRecipe(epochs=1, batch_size=20),
}  # fmt: skip


@pytest.mark.parametrize("method", ["bimask", "masked_only", "original_only", "random", "shuffled", "inverse"])
def test_every_arm_runs_and_tells_what_it_removed(method, monkeypatch):
    ratio = None if method == "original_only" else 0.1
    config = BimaskConfig(**DIGITS, method=method, masking_ratio=ratio)
    seen = {}
    fit = bimask_recipes.trained

    def spy(config, context, model, train, validation, test, **extra):
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        seen.update(train=train, validation=validation, test=test, weights=weights)
        return fit(config, context, model, train, validation, test, **extra)

    monkeypatch.setattr(bimask_recipes, "trained", spy)
    parent = {name: value.clone() for name, value in new_model(config).state_dict().items()}
    parent["head.bias"] += 1
    outcome = bimask(config, Context("cpu", "fp32", None, {"baseline": parent}, progress=False))
    assert all(torch.equal(value, parent[name]) for name, value in seen["weights"].items())  # fine-tuned from it
    assert len(seen["train"]) == (40 if method == "masked_only" else 80)
    assert (len(seen["validation"]), len(seen["test"])) == (20, 360)
    assert outcome.metrics["masks"] == ({} if ratio is None else {"removed_pixels": 6})  # of 8 x 8
    assert len(outcome.metrics["curves"]["validation"]) == 1
    assert outcome.weights.keys() == parent.keys()
    assert outcome.flops > 0


def test_another_layer_is_compared_with_the_last():
    config = BimaskConfig(**DIGITS, method="bimask", masking_ratio=0.1, conv_index=-4)
    parent = new_model(config).state_dict()
    outcome = bimask(config, Context("cpu", "fp32", None, {"baseline": parent}, progress=False))
    assert 0 < outcome.metrics["masks"]["overlap_with_last_layer"] < 1


def test_masks_are_computed_from_the_raw_training_images_of_the_parent(monkeypatch):
    asked = []
    maps_of = bimask_recipes.saliency_maps

    def spy(model, data, mean, std, device, **options):
        asked.append(types.SimpleNamespace(data=data, mean=mean, std=std, options=options))
        return maps_of(model, data, mean, std, device, **options)

    monkeypatch.setattr(bimask_recipes, "saliency_maps", spy)
    constants = ((0.25,), (0.5,))
    training = TrainingRecipe(epochs=0, normalisation=constants)
    config = BimaskConfig(**{**DIGITS, "training": training}, method="inverse", masking_ratio=0.2, reduce="max_abs")
    bimask(config, Context("cpu", "fp32", None, {"baseline": new_model(config).state_dict()}, progress=False))
    (call,) = asked
    train = load_dataset("digits", "train")
    assert len(call.data) == 40 and set(call.data.indices) <= set(train.indices)
    assert (call.mean, call.std) == constants
    assert call.options == {
        "layer": -1,
        "method": "layer_grad",
        "reduce": "max_abs",
        "score": "logit",
        "target": "predicted",
    }


@pytest.mark.parametrize(("epochs", "drops"), [(30, (15, 23)), (6, (3, 5)), (10, (5, 8)), (60, (30, 46))])
def test_the_fine_tuning_schedule_of_the_spec(epochs, drops):
    recipe = ft_default(epochs)
    assert recipe.milestones == drops
    assert (recipe.lr, recipe.gamma, recipe.momentum, recipe.batch_size) == (0.01, 0.1, 0.9, 64)
    base = cifar_lr()
    like = ft_default(epochs, weight_decay=base.weight_decay, augment=base.augment, normalisation=base.normalisation)
    assert (like.augment, like.normalisation) == ("none", ((0.5,) * 3, (0.5,) * 3))
