"""The settings of the spec's table, and the optimisers made from them."""

from __future__ import annotations

import pytest
import torch

from efflib.quantize import GAMMAS, PRESETS, Restoration, freeze_bits, preset, tighten

# bits, exponent, optimiser, steps, batch, preserved, gamma, lambda, alpha, norm, rates of W, b, e, decay, cosine tail
ROWS = {
    ("drift", "mnist_cnn"): (32, -8, "adam", 10_000, 64, 64, 0.1, 0.05, 0, "all_params", 1e-3, 1e-3, 1e-3, 0, 0),
    ("drift", "names_decoder"): (
        32,
        -8,
        "adamw",
        10_000,
        16,
        16,
        0.1,
        0.05,
        0,
        "all_params",
        1e-3,
        1e-3,
        1e-3,
        0.01,
        0,
    ),
    ("twobit", "mnist_cnn"): (2, -8, "adam", 4_000, 512, 64, 0.05, 0.1, 0, "all_params", 1e-3, 1e-3, 1e-3, 0, 0),
    ("default", "mnist_cnn"): (
        8,
        "minmax",
        "adam",
        5_000,
        256,
        64,
        None,
        0.05,
        1e-5,
        "quantised_weights",
        1e-3,
        1e-2,
        1e-3,
        0,
        0.3,
    ),
    ("default", "names_decoder"): (
        8,
        "minmax",
        "adamw",
        10_000,
        16,
        16,
        None,
        0.05,
        0,
        "quantised_weights",
        1e-3,
        1e-2,
        1e-3,
        0.01,
        0.3,
    ),
}


@pytest.mark.parametrize("key", ROWS)
def test_table_of_the_spec(key):
    p = preset(*key)
    found = (
        p.bits,
        p.exponent,
        p.optimiser,
        p.steps,
        p.batch,
        p.preserved,
        p.gamma,
        p.preservation_weight,
        p.l1,
        p.norm,
    )
    found += (p.lr, p.lr_bits, p.lr_exponent, p.weight_decay, p.cosine_tail)
    assert found == ROWS[key] and (p.name, p.model) == key


def test_there_are_no_others():
    assert set(PRESETS) == set(ROWS) and GAMMAS == (0.003, 0.01, 0.03, 0.1, 0.3)
    with pytest.raises(ValueError, match=r"unknown preset: 'twobit for names_decoder'.*twobit for mnist_cnn"):
        preset("twobit", "names_decoder")


def test_restoration_as_in_the_code_and_by_default():
    code = preset("drift", "mnist_cnn").restoration
    assert (code.every, code.trigger, code.tolerance, code.mode, code.pick) == (
        10,
        "previous",
        10,
        "two_bits",
        "random",
    )
    assert code.count(9) == 0 and code.count(10) == 1 and code.limit is None
    code = preset("drift", "names_decoder").restoration
    assert (code.every, code.tolerance, code.higher_is_better, code.only) == (100, 0.1, False, ("qkv",))
    assert preset("default", "mnist_cnn").restoration == Restoration()
    assert preset("default", "names_decoder").restoration == Restoration(tolerance=0.05, higher_is_better=False)


def test_each_parameter_is_in_one_group_with_its_own_rate(nets):
    model = nets.build("names_decoder")
    optimiser = preset("default", "names_decoder").create_optimiser(model)
    groups = {group["name"]: group for group in optimiser.param_groups}
    assert isinstance(optimiser, torch.optim.AdamW)
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "weights": (1e-3, 0.01),
        "bits": (1e-2, 0),
        "exponents": (1e-3, 0),
        "others": (1e-3, 0),
    }
    ids = [id(parameter) for group in optimiser.param_groups for parameter in group["params"]]
    assert sorted(ids) == sorted(map(id, model.parameters()))
    assert any(parameter is model.tokens.weight for parameter in groups["others"]["params"])
    assert all(group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8 for group in optimiser.param_groups)


def test_the_published_decay_acts_on_bits_too(nets):
    groups = preset("drift", "names_decoder").parameter_groups(nets.build("names_decoder"))
    assert {group["weight_decay"] for group in groups} == {0.01}


def test_frozen_bits_are_in_no_group(nets):
    model = nets.build("mnist_cnn")
    tighten(model)
    freeze_bits(model)
    names = [group["name"] for group in preset("default", "mnist_cnn").parameter_groups(model)]
    assert names == ["weights", "exponents", "others"]


def test_rates_fall_to_zero_over_the_tail():
    p = preset("default", "mnist_cnn")
    assert [p.rate_factor(step) for step in (0, 3_500, 5_000)] == pytest.approx([1, 1, 0])
    assert p.rate_factor(4_250) == pytest.approx(0.5)
    assert preset("drift", "mnist_cnn").rate_factor(9_999) == 1
