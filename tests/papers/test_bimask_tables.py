"""BIMask's grids: which trials repeat each table at each scale, with which schedules and how many updates."""

from __future__ import annotations

import math
import os
from collections import Counter

import pytest

from efflib.models import create_model
from efflib.papers.baselines import SIZES
from efflib.papers.bimask.tables import ARMS, SCALES, arm, baseline, tables
from efflib.report.verdict import SCALES as SCALE_NAMES
from efflib.training import cifar_lr, cifar_rd

EVERY = [(name, scale) for name in tables for scale in SCALE_NAMES]


@pytest.fixture(autouse=True)
def no_data(tmp_path, monkeypatch):
    """Grids are made without any data."""
    monkeypatch.delenv("EFFLIB_DATA", raising=False)
    monkeypatch.setenv("EFFLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_trial_of_every_scale_can_be_made(name, scale):
    entries = list(tables[name].entries(scale, 3))
    assert {seed for _, seed, _ in entries} == {0, 1, 2}
    for cell, seed, trial in entries:
        config = trial.config
        assert (config["model"], config["dataset"], config["seed"]) == (cell["model"], cell["dataset"], seed)
        assert cell["method"] == config.get("method", "baseline")
        for key in ("masking_ratio", "conv_index"):
            assert cell.get(key, config.get(key)) == config.get(key)
        assert (config["subset"], config["holdout"]) == (SCALES[scale].subset, SCALES[scale].holdout)
    assert len({(tuple(cell.items()), seed) for cell, seed, _ in entries}) == len(entries)


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_all_arms_of_a_seed_start_from_the_same_baseline(name, scale):
    entries = list(tables[name].entries(scale, 2))
    own = {(c["model"], c["dataset"], seed): trial for c, seed, trial in entries if c["method"] == "baseline"}
    children = [(c, seed, trial) for c, seed, trial in entries if c["method"] != "baseline"]
    assert children
    for cell, seed, trial in children:
        assert trial.parents == {"baseline": own[cell["model"], cell["dataset"], seed]}
    assert all(trial.recipe == "baseline" and not trial.parents for trial in own.values())


def test_every_network_of_the_grids_exists():
    asked = {
        (trial.config["model"], tuple(trial.config["model_options"].items()))
        for name, scale in EVERY
        for trial in tables[name].trials(scale, 1)
    }
    for name, options in asked:
        assert create_model(name, 10, **dict(options)) is not None
    assert {name for name, _ in asked} == {
        "vgg8", "vgg11", "vgg13", "resnet14", "resnet20", "resnet56", "resnet18", "wrn_52_2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "epochs", "drops", "finetune", "finetune_drops"),
    [
        ("tiny", 30, (19, 23, 26), 6, (3, 5)),
        ("small", 60, (38, 45, 53), 10, (5, 8)),
        ("paper", 240, (150, 180, 210), 30, (15, 23)),
    ],
)
def test_schedules_of_the_spec(scale, epochs, drops, finetune, finetune_drops):
    base = baseline(scale, "resnet20", "cifar10", 0).settings.training
    assert (base.epochs, base.milestones, base.lr) == (epochs, drops, 0.05)
    tuned = arm(scale, "resnet20", "cifar10", 0, "bimask").settings.training
    assert (tuned.epochs, tuned.milestones, tuned.lr) == (finetune, finetune_drops, 0.01)
    assert (tuned.weight_decay, tuned.augment, tuned.normalisation) == (
        base.weight_decay,
        base.augment,
        base.normalisation,
    )


def test_small_scales_share_one_recipe_and_paper_scale_has_the_papers_own():
    for scale in ("smoke", "tiny", "small"):
        assert baseline(scale, "resnet18", "cifar10", 0).settings.training == cifar_rd(SCALES[scale].epochs)
    for model in ("resnet18", "wrn_52_2"):
        assert baseline("paper", model, "cifar10", 0).settings.training == cifar_lr(200)
        assert arm("paper", model, "cifar10", 0, "bimask").settings.training.augment == "none"
    # the authors' loaders apply CIFAR-100's constants to both sets
    for dataset in ("cifar10", "cifar100"):
        own = baseline("paper", "vgg8", dataset, 0).settings.training
        assert own.normalisation[0] == (0.5071, 0.4867, 0.4408)
        assert own.model_copy(update={"normalisation": "dataset"}) == cifar_rd(240)


def images(trial) -> int:
    train = SIZES[trial.config["dataset"]][0]
    return (trial.config["subset"] or train) - trial.config["holdout"]


def updates(trial) -> int:
    copies = 1 if trial.config["method"] == "masked_only" else 2
    return math.ceil(copies * images(trial) / trial.settings.training.batch_size) * trial.settings.training.epochs


@pytest.mark.parametrize("scale", SCALE_NAMES)
def test_all_arms_take_equally_many_updates(scale):
    """Masked-only sees N images for twice the epochs: equal up to the last, partly filled batch of each pass."""
    dataset = "objects32" if scale == "smoke" else "cifar10"
    counts = {method: updates(arm(scale, "vgg8", dataset, 0, method)) for method in ARMS}
    mixed = {counts[method] for method in ARMS if method != "masked_only"}
    assert len(mixed) == 1
    assert 0 <= counts["masked_only"] - mixed.pop() <= SCALES[scale].finetune_epochs


def test_updates_of_the_spec():
    assert updates(arm("paper", "vgg8", "cifar10", 0, "bimask")) == 46_890


@pytest.mark.parametrize(
    ("model", "ratio"),
    [("vgg8", 0.1), ("vgg13", 0.1), ("resnet14", 0.075), ("resnet18", 0.075), ("wrn_52_2", 0.075)],
)
def test_the_papers_ratios(model, ratio):
    assert arm("paper", model, "cifar10", 0, "bimask").config["masking_ratio"] == ratio
    assert arm("paper", model, "cifar10", 0, "original_only").config["masking_ratio"] is None


def test_the_evidence_at_tiny():
    """What issue 2 asks for: three pairs, all arms, 5 seeds; the ratios 5, 10 and 30 %; 10,000 images."""
    wanted = {("resnet14", "cifar10"), ("resnet14", "cifar100"), ("vgg8", "cifar10")}
    cells = [cell for name in ("table2", "table3") for cell, _, _ in tables[name].entries("tiny", 5)]
    assert {(cell["model"], cell["dataset"]) for cell in cells} == wanted
    assert {cell["method"] for cell in cells} == {"baseline", *ARMS}
    swept = [cell for cell, _, _ in tables["table7"].entries("tiny", 5) if cell["method"] == "bimask"]
    assert Counter(cell["masking_ratio"] for cell in swept) == {0.05: 5, 0.1: 5, 0.3: 5}
    assert {(t.config["subset"], t.config["holdout"]) for t in tables["table2"].trials("tiny", 1)} == {(10_000, 1_000)}


def test_the_paper_grid_is_whole():
    two = list(tables["table2"].entries("paper", 5))
    assert len(two) == 8 * 2 * 5 * (1 + 5)
    six = {cell["conv_index"] for cell, _, _ in tables["table6"].entries("paper", 1) if "conv_index" in cell}
    assert six == {-4, -3, -2, -1}
    seven = {cell["masking_ratio"] for cell, _, _ in tables["table7"].entries("paper", 1) if "masking_ratio" in cell}
    assert seven == {0.05, 0.075, 0.1, 0.15, 0.2, 0.3}


def test_the_last_layer_of_table6_is_the_arm_of_table2():
    last = arm("paper", "vgg13", "cifar10", 0, "bimask")
    assert last in tables["table6"].trials("paper", 1) and last in tables["table2"].trials("paper", 1)


def test_printed_cells_meet_the_paper_grid():
    """Every printed number has a trial that repeats it at paper scale."""
    for name, table in tables.items():
        cells = [cell for cell, _, _ in table.entries("paper", 1)]
        for printed in table.printed.numbers:
            met = [cell for cell in cells if all(cell.get(key) == value for key, value in printed.keys.items())]
            assert met, (name, printed.keys)


def test_choices_narrow_the_grid_and_keep_the_baseline():
    trials = tables["table2"].trials("tiny", [3], models=["vgg8"], datasets=["cifar100"], methods=["random"])
    assert [trial.recipe for trial in trials] == ["baseline", "bimask"]
    assert {(t.config["model"], t.config["dataset"], t.config["seed"]) for t in trials} == {("vgg8", "cifar100", 3)}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("table2", {"models": ["vgg9"]}), ("table2", {"ratios": [0.1]}), ("table7", {"ratios": [1.5]}),
     ("table6", {"layers": [-9]}), ("table3", {"datasets": ["mnist"]}), ("table2", {"methods": []})],
)  # fmt: skip
def test_wrong_choices_are_errors_that_list_the_valid_ones(name, wrong):
    with pytest.raises(ValueError, match=r"Choices are: |choose at least one of: "):
        tables[name].trials("tiny", 1, **wrong)


@pytest.mark.parametrize("seeds", [0, -1, [], [1, 1], [-1], "3", 1.5, None, True])
def test_wrong_seeds_are_errors(seeds):
    with pytest.raises(ValueError, match="Give a positive integer n"):
        tables["table2"].trials("tiny", seeds)


def test_nothing_was_read_or_written(tmp_path):
    tables["table2"].trials("paper", 5)
    assert os.listdir(tmp_path) == []
