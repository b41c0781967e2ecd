"""Trials: one request, one name; mistakes are named with what is allowed."""

from __future__ import annotations

import pytest

from efflib.training import TrainingRecipe, cifar_rd
from efflib.trials import Trial
from efflib.trials.recipes import _RECIPES, Recipe, get_recipe, list_recipes
from efflib.trials.trial import digest, with_parents

BASE = {"dataset": "cifar10", "model": "resnet14", "training": cifar_rd(30), "seed": 0}


def baseline(**changes):
    return Trial.of("baseline", **{**BASE, **changes})


def bimask(parent=None, **changes):
    settings = {**BASE, "method": "bimask", "masking_ratio": 0.1, **changes}
    return Trial.of("bimask", parents={"baseline": parent or baseline()}, **settings)


def test_the_order_of_settings_and_spelt_out_defaults_do_not_matter():
    backwards = Trial.of("baseline", **dict(reversed(BASE.items())))
    spelt_out = baseline(subset=None, holdout=0, split_seed=0, model_options={})
    assert baseline() == backwards == spelt_out
    assert len({baseline(), backwards, spelt_out}) == 1
    assert bimask(masking_ratio=0) == bimask(masking_ratio=0.0)


def test_model_options_in_any_order_are_the_same_options():
    one = baseline(model_options={"width": 0.5, "in_channels": 1})
    assert one == baseline(model_options={"in_channels": 1, "width": 0.5})


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"model": "vgg8"}, {"dataset": "cifar100"}, {"subset": 10_000}, {"holdout": 100}, {"split_seed": 1},
     {"training": cifar_rd(31)}, {"model_options": {"width": 0.5}}],
)  # fmt: skip
def test_every_setting_is_part_of_the_name(change):
    assert baseline(**change) != baseline()


def test_a_child_is_named_by_its_parents_too():
    assert bimask() != bimask(parent=baseline(seed=1))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"sed": 1}, r"sed: .*got 1"),
        ({"seed": "0"}, r"seed: .*integer.*got '0'"),
        ({"model": "resnet15"}, r"model: unknown model; known: .*resnet14.*got 'resnet15'"),
        ({"dataset": "cifar"}, r"dataset: unknown dataset; known: .*cifar10.*got 'cifar'"),
        ({"subset": 0}, r"subset: .*greater than or equal to 1"),
        ({"training": {"epochs": 3, "lr": -1}}, r"training.lr: .*greater than 0"),
        ({"training": {"epochs": 3, "epoch": 3}}, r"training.epoch: "),
    ],
)
def test_wrong_settings_are_named_with_the_valid_ones(wrong, named):
    with pytest.raises(ValueError, match=f"bad settings for recipe 'baseline'(.|\n)*{named}") as caught:
        baseline(**wrong)
    assert "valid settings: dataset, model, training, seed" in str(caught.value)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_a_ratio_must_lie_in_its_range(ratio):
    with pytest.raises(ValueError, match=r"masking_ratio=.*must lie in \[0, 1\)") as caught:
        bimask(masking_ratio=ratio)
    assert len(str(caught.value).splitlines()) == 3  # no dump of all settings


def test_only_the_arm_without_masks_has_no_ratio():
    assert bimask(method="original_only", masking_ratio=None).config["masking_ratio"] is None
    for wrong in ({"masking_ratio": None}, {"method": "original_only"}):
        with pytest.raises(ValueError, match="only original_only has none"):
            bimask(**wrong)


def test_parents_are_checked():
    with pytest.raises(ValueError, match=r"'bimask' needs parents \['baseline'\], got \[\]"):
        Trial.of("bimask", **BASE, method="bimask", masking_ratio=0.1)
    with pytest.raises(ValueError, match=r"'baseline' needs parents \[\], got \['baseline'\]"):
        Trial.of("baseline", parents={"baseline": baseline()}, **BASE)
    with pytest.raises(ValueError, match=r"parents of 'bimask' must be Trials, got baseline='abc'"):
        bimask(parent="abc")


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown recipe 'baselin'; did you mean 'baseline'\? Known: .*bimask"):
        Trial.of("baselin")
    with pytest.raises(ValueError, match=r"unknown recipe 'q'\. Known: .*baseline"):
        get_recipe("q")
    assert {"baseline", "bimask"} <= set(list_recipes())


def test_the_key_depends_on_data_precision_and_parents():
    trial = bimask()
    keys = {
        trial.key("data", "fp32", {"baseline": "a"}),
        trial.key("other data", "fp32", {"baseline": "a"}),
        trial.key("data", "bf16", {"baseline": "a"}),
        trial.key("data", "fp32", {"baseline": "b"}),
    }
    assert len(keys) == 4
    assert trial.key("data", "fp32", {"baseline": "a"}) in keys
    assert trial.identity not in keys


def test_the_recipe_version_renames_every_trial(monkeypatch):
    before, key = baseline().identity, baseline().key("data", "fp32", {})
    old = _RECIPES["baseline"]
    monkeypatch.setitem(_RECIPES, "baseline", Recipe(**{**old.__dict__, "version": old.version + 1}))
    assert baseline().identity != before
    assert baseline().key("data", "fp32", {}) != key


def test_identities_of_the_evidence_do_not_change():
    # Records are found by these names: a change here would orphan every recorded trial.
    assert baseline().identity == digest(
        {"recipe": "baseline", "version": 1, "parents": {},
         "config": {"dataset": "cifar10", "model": "resnet14", "seed": 0,
                    "training": {"epochs": 30, "milestones": [19, 23, 26]}}}
    )  # fmt: skip


def test_a_new_option_renames_nothing_and_a_changed_default_is_noticed():
    trial, recorded = baseline(), dict(baseline().config)
    assert trial.agrees(recorded)
    del recorded["split_seed"]  # recorded before the option existed
    assert trial.agrees(recorded)
    assert not trial.agrees({**recorded, "holdout": 5})
    training = {**recorded["training"], "momentum": 0.8}
    assert not trial.agrees({**recorded, "training": training})


def test_parents_come_first_and_once():
    first, second = baseline(), baseline(seed=1)
    children = [bimask(first), bimask(second, seed=1), bimask(first, method="random")]
    ordered = with_parents([*children, first, *children])
    assert ordered == [first, children[0], second, children[1], children[2]]


def test_a_label_names_what_a_reader_looks_for():
    assert (
        bimask().label == "bimask model=resnet14 dataset=cifar10 method=bimask masking_ratio=0.1 conv_index=-1 seed=0"
    )
    assert TrainingRecipe(epochs=1).model_dump_json() not in bimask().label
    assert bimask(target="true").label == f"{bimask().label} target=true"
    settings = {**BASE, "method": "pkgd", "teacher_model": "resnet20", "options": {"modules": "align"}}
    assert Trial.of("distill", parents={"teacher": baseline()}, **settings).label.endswith("options=modules:align")


def test_a_digest_refuses_nan():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": float("nan")})
