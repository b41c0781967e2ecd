"""LeRaC: rates of layers over time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from efflib.curricula import create
from efflib.curricula.lerac import TABLES, LeRaC, grown_rate, layers_of, shifted
from efflib.models import create_model, list_models
from efflib.training import TrainingRecipe, cifar_lr

RESNET18 = {"width": 0.125, "in_channels": 1}


def test_the_formula_has_the_values_of_the_spec():
    found = [grown_rate(1e-8, 0.1, step, 7) for step in range(8)]
    assert found == pytest.approx([10.0**power for power in range(-8, 0)])  # one decade per step
    found = [grown_rate(1e-8, 0.1, step, 5) for step in range(6)]
    assert found == pytest.approx([1e-8, 2.51e-7, 6.31e-6, 1.58e-4, 3.98e-3, 0.1], rel=4e-3)
    for base in (2, math.e, 10):  # the base cancels
        exponent = 0.4 * (math.log(0.1, base) - math.log(1e-8, base))
        assert grown_rate(1e-8, 0.1, 2, 5) == pytest.approx(1e-8 * base**exponent)
    assert grown_rate(1e-8, 0.1, 5, 5) == grown_rate(1e-8, 0.1, 60, 5) == 0.1
    assert grown_rate(0.1, 0.1, 3, 5) == pytest.approx(0.1)


def test_layers_are_the_stem_the_blocks_and_the_classifier():
    with torch.device("meta"):
        resnet, wide, vgg = (create_model(name, 10) for name in ("resnet18", "wrn_52_2", "vgg8"))
    blocks = [f"stage{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert [name for name, _ in layers_of(resnet)] == ["conv1", *blocks, "head"]
    blocks = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in range(8)]
    assert [name for name, _ in layers_of(wide)] == ["conv1", *blocks, "head"]
    assert [name for name, _ in layers_of(vgg)] == [*(f"block{number}.0" for number in range(5)), "head"]
    stem, first = (parameters for _, parameters in layers_of(resnet)[:2])
    assert {id(parameter) for parameter in stem} == {
        id(resnet.conv1.weight), id(resnet.bn1.weight), id(resnet.bn1.bias)
    }  # fmt: skip
    assert {id(parameter) for parameter in first} == {id(parameter) for parameter in resnet.stage1[0].parameters()}


@pytest.mark.parametrize("name", sorted({*list_models()} - {"names_decoder"}))  # it reads text
def test_every_parameter_of_every_network_is_in_one_layer(name):
    with torch.device("meta"):
        model = create_model(name, 10)
    found = layers_of(model)
    placed = [id(parameter) for _, parameters in found for parameter in parameters]
    assert sorted(placed) == sorted(id(parameter) for parameter in model.parameters())
    assert found[-1][0].split(".")[0] == "head" and len(found) > 4


def rates_by_epoch(steps, per_epoch=3):
    """(epochs x groups) rates at the first step of each epoch."""
    return np.array([rates for _, rates in steps[::per_epoch]])


def test_rates_over_time_in_training(train, network, watched_steps):
    recipe = TrainingRecipe(epochs=6, lr=0.1, batch_size=32, augment="none", milestones=(4, 5))
    with watched_steps() as steps:
        train(LeRaC(k=2), network(), recipe=recipe)
    rates = np.array([rates for _, rates in steps])
    assert rates.shape == (18, 1 + 8)  # nothing is left in the common group; the stem, six blocks, the classifier
    assert steps[0][0].param_groups[0]["params"] == []
    start = 0.1 * (1e-8 / 0.1) ** (np.arange(8) / 7)
    for step in range(6):  # within the first k epochs: anew at each iteration
        expected = start * (0.1 / start) ** (step / 6)
        assert rates[step, 1:] == pytest.approx(expected, rel=1e-12)
        assert rates[step, 0] == 0.1
    assert (np.diff(rates[0, 1:]) < 0).all() and (np.diff(rates[:6, 1:], axis=0)[:, 1:] > 0).all()
    for step in range(6, 18):
        assert (rates[step] == recipe.rate(step // 3)).all()
    assert rates[[11, 12, 17], 1] == pytest.approx([0.1, 0.01, 0.001])


def test_milestones_within_the_first_epochs_multiply_the_common_rate(train, watched_steps):
    recipe = TrainingRecipe(epochs=2, lr=0.1, batch_size=32, augment="none")
    with watched_steps() as steps:
        train(LeRaC(k=4), recipe=recipe)
    with watched_steps() as dropped:
        train(LeRaC(k=4), recipe=recipe.model_copy(update={"milestones": (1,)}))
    plain, dropped = (np.array([rates for _, rates in found]) for found in (steps, dropped))
    assert dropped[:3] == pytest.approx(plain[:3]) and dropped[3:] == pytest.approx(plain[3:] / 10)


def test_deep_layers_move_less_at_first(train, network):
    moved = {}
    for name, curriculum in (("plain", None), ("lerac", LeRaC(k=5))):
        before, model = network().state_dict(), network()
        train(curriculum, model, recipe=TrainingRecipe(epochs=1, lr=0.05, batch_size=32, augment="none"))
        after = model.state_dict()
        moved[name] = [float((after[key] - before[key]).norm()) for key in ("conv1.weight", "head.weight")]
    assert moved["lerac"][0] > 0.2 * moved["plain"][0]
    assert 0 < moved["lerac"][1] < 1e-4 * moved["plain"][1]


def test_milestones_are_shifted_by_the_warm_up():
    recipe = cifar_lr()
    assert shifted(recipe, LeRaC(k=5)).milestones == (35, 65, 95)
    assert shifted(recipe, LeRaC(k=7)).milestones == (37, 67, 97)
    assert shifted(cifar_lr(30), LeRaC(k=0.75)).milestones == tuple(drop + 1 for drop in cifar_lr(30).milestones)
    assert shifted(recipe, LeRaC(mode="code", table="resnet18_cifar100")).milestones == (36, 66, 96)
    assert shifted(recipe, LeRaC(k=5)).model_dump(exclude={"milestones"}) == recipe.model_dump(exclude={"milestones"})


# --- the authors' code ----------------------------------------------------------------------------------------


def initial_rates(name, table, **options):
    """First rate of each named parameter under mode="code" and the common rate 0.1."""
    with torch.device("meta"):
        model = create_model(name, 10, **options)
    curriculum = LeRaC(mode="code", table=table)
    groups = curriculum.layers(model)
    rates = {
        id(parameter): 0.1 * factor
        for parameters, factor in zip(groups, curriculum.factors(0, 0.1, len(groups)), strict=True)
        for parameter in parameters
    }
    assert sum(map(len, groups)) == len(list(model.parameters())) == len(rates)
    return {name: rates[id(parameter)] for name, parameter in model.named_parameters()}


def test_initial_rates_of_the_code():
    first = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    for table, last, head in (("resnet18_cifar10", [1e-6] * 3, 1e-4), ("resnet18_cifar100", [1e-7] * 3, 1e-6)):
        rates = initial_rates("resnet18", table)
        blocks = [rates[f"stage{stage}.{block}.conv2.weight"] for stage in (1, 2, 3, 4) for block in (0, 1)]
        assert blocks == pytest.approx([*first, *last])
        assert (rates["conv1.weight"], rates["bn1.bias"], rates["head.weight"]) == pytest.approx((0.1, 0.1, head))
        assert rates["stage3.0.shortcut.0.weight"] == rates["stage3.0.conv1.weight"]
    rates = initial_rates("wrn_52_2", "wrn_52_2")
    blocks = [[rates[f"stage{stage}.{block}.bn1.weight"] for block in range(8)] for stage in (1, 2, 3)]
    assert blocks[0] == pytest.approx([1e-1, 1e-2, 1e-3, *[1e-6] * 5])
    assert blocks[1] == pytest.approx([1e-4, 1e-5, 1e-6, 1e-7, *[1e-6] * 4])
    assert blocks[2] == pytest.approx([*[1e-8] * 6, 1e-6, 1e-6])
    assert (rates["conv1.weight"], rates["bn.weight"], rates["head.bias"]) == pytest.approx((0.1, 0.1, 1e-6))


def test_the_code_gains_a_decade_per_epoch(train, network, watched_steps):
    assert {name: LeRaC(mode="code", table=name).warmup for name in TABLES} == {
        "resnet18_cifar10": 5, "resnet18_cifar100": 6, "wrn_52_2": 7,
    }  # fmt: skip
    recipe = TrainingRecipe(epochs=7, lr=0.1, batch_size=48, augment="none", milestones=(6,))
    with watched_steps() as steps:
        train(LeRaC(mode="code", table="resnet18_cifar10"), network("resnet18", **RESNET18), recipe=recipe)
    for epoch in range(7):
        common = 0.1 if epoch < 6 else 0.01
        expected = [common, *(common * 10.0 ** min(0, epoch - level) for level in range(6))]
        for _, rates in steps[2 * epoch : 2 * epoch + 2]:  # the same at both steps of an epoch
            assert rates == pytest.approx(expected)


# --- what goes wrong ------------------------------------------------------------------------------------------


def test_wrong_options():
    for wrong in ({"k": 0}, {"k": "5"}, {"lowest": -1e-8}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a positive number"):
            create("lerac", **wrong)
    with pytest.raises(ValueError, match="mode must be one of formula, code, got 'table'"):
        create("lerac", mode="table")
    with pytest.raises(ValueError, match=r"table .* must be one of resnet18_cifar10, .*, wrn_52_2, got 'None'"):
        create("lerac", mode="code")
    with pytest.raises(ValueError, match="table='wrn_52_2' belongs to mode='code'; mode='formula' has k and lowest"):
        create("lerac", table="wrn_52_2")


def test_networks_and_recipes_that_do_not_fit(train, network):
    with pytest.raises(ValueError, match=r"for stages of \(8, 8, 8\) blocks, ResNetCIFAR has \(2, 2, 2\): use"):
        train(LeRaC(mode="code", table="wrn_52_2"))
    with pytest.raises(ValueError, match="VGG has none: use mode='formula'"):
        train(LeRaC(mode="code", table="resnet18_cifar10"), network("vgg8"))
    with pytest.raises(ValueError, match=r"lowest=0\.5 is above the recipe's rate 0\.05"):
        train(LeRaC(lowest=0.5))
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match="a stack of at least two layers, Sequential has 1"):
        train(LeRaC(), one)

    class Loose(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 10)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.two(self.one(x.flatten(1) * self.scale))

    with pytest.raises(ValueError, match="Loose has 2, and scale in none"):
        train(LeRaC(), Loose())


def test_frozen_layers_stay(train, network):
    model = network()
    model.stage1.requires_grad_(False)
    before = {name: value.clone() for name, value in model.stage1.named_parameters()}
    train(LeRaC(k=1), model)
    assert all(torch.equal(value, before[name]) for name, value in model.stage1.named_parameters())
