"""BIMask's grids: which trials repeat each table at each scale, with which schedules and how many updates."""

from __future__ import annotations

import math
import os
from collections import Counter

import pytest

from efflib.models import create_model
from efflib.papers import cifar
from efflib.papers.baselines import SIZES
from efflib.papers.bimask import claims
from efflib.papers.bimask.tables import ARMS, SCALES, arm, baseline, contender, scores, student, tables, teacher
from efflib.papers.pkgd import arms as pkgd
from efflib.scales import SCALES as SCALE_NAMES
from efflib.training import cifar_lr, cifar_rd
from efflib.trials.recipes import get_recipe

EVERY = [(name, scale) for name in tables for scale in SCALE_NAMES]
OWN_ARMS = [(name, scale) for name, scale in EVERY if name not in ("table4", "table5")]


pytestmark = pytest.mark.usefixtures("no_data")


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_trial_of_every_scale_can_be_made(name, scale):
    entries = list(tables[name].entries(scale, 3))
    assert {seed for _, seed, _ in entries} == {0, 1, 2}
    for cell, seed, trial in entries:
        config = trial.config
        network = cell.get("model") or cell.get("student") or cell["teacher"]
        assert (config["model"], config["dataset"], config["seed"]) == (network, cell["dataset"], seed)
        assert (config["subset"], config["holdout"]) == (cifar.SIZES[scale].subset, cifar.SIZES[scale].holdout)
    assert len({(tuple(cell.items()), seed) for cell, seed, _ in entries}) == len(entries)


@pytest.mark.parametrize(("name", "scale"), OWN_ARMS)
def test_a_cell_says_what_its_trial_does(name, scale):
    for cell, _, trial in tables[name].entries(scale, 1):
        config = trial.config
        assert cell["method"] == config.get("method", "baseline")
        for key in ("masking_ratio", "conv_index"):
            assert cell.get(key, config.get(key)) == config.get(key)


@pytest.mark.parametrize(("name", "scale"), OWN_ARMS)
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
        if trial.recipe != "imagenet_scores"  # torchvision's network
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
        assert baseline(scale, "resnet18", "cifar10", 0).settings.training == cifar_rd(cifar.SIZES[scale].epochs)
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


# --- table 4 ---------------------------------------------------------------------------------------------------------


COUNTS = {  # cells, and trials with one seed
    ("table4", "smoke"): (11, 11), ("table4", "tiny"): (2 * 7, 2 * 7),
    ("table4", "small"): (4 * 13, 4 * 13 + 2), ("table4", "paper"): (4 * 13, 4 * 13 + 2),  # and a scorer per data set
    ("table5", "smoke"): (5, 5), ("table5", "tiny"): (2 * 7, 2 * 7),
    ("table5", "small"): (2 * 13, 2 * 13), ("table5", "paper"): (2 * 13, 2 * 13),
}  # fmt: skip


@pytest.mark.parametrize(("name", "scale"), COUNTS)
def test_sizes_of_the_grids(name, scale):
    cells, trials = COUNTS[name, scale]
    assert len(list(tables[name].entries(scale, 1))) == cells
    assert len(tables[name].trials(scale, 1)) == trials


def contenders(scale: str = "paper", model: str = "resnet18", dataset: str = "cifar10") -> dict:
    """Method -> trial of one column."""
    entries = tables["table4"].entries(scale, [1], models=[model], datasets=[dataset])
    return {cell["method"]: trial for cell, _, trial in entries}


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_every_contender_is_the_same_network_on_the_same_images(scale):
    column = contenders(scale)
    same = ("model", "model_options", "dataset", "seed", "subset", "holdout", "split_seed")
    settings = [{name: trial.config[name] for name in same} for trial in column.values()]
    assert all(each == settings[0] for each in settings)
    assert settings[0]["model_options"] == ({"width": 0.5} if scale == "tiny" else {})
    recipes = [trial.settings.training for name, trial in column.items() if trial.recipe in ("curriculum", "paced")]
    own = column["baseline"].settings.training
    assert all(each.model_copy(update={"milestones": own.milestones}) == own for each in recipes)


def test_baseline_bimask_and_longer_baseline_are_those_of_table2():
    two = tables["table2"].trials("paper", 2)
    for model in claims.CURRICULUM_MODELS:
        column = contenders(model=model)
        assert column["baseline"] == baseline("paper", model, "cifar10", 1)
        assert column["bimask"] == arm("paper", model, "cifar10", 1, "bimask")
        assert column["baseline_equal"] == arm("paper", model, "cifar10", 1, "original_only")
        assert {column[name] for name in ("baseline", "bimask", "baseline_equal")} <= set(two)


@pytest.mark.parametrize("scale", SCALE_NAMES)
def test_an_equal_arm_goes_on_from_its_namesake_as_long_as_bimask(scale):
    column = contenders(scale, *(("vgg8", "objects32") if scale == "smoke" else ()))
    equal = [name for name in column if name.endswith("_equal")]
    assert {name.removesuffix("_equal") for name in equal} == column.keys() - {"bimask", *equal}
    for name in equal:
        trial = column[name]
        assert (trial.recipe, trial.config["method"]) == ("bimask", "original_only")
        assert trial.parents == {"baseline": column[name.removesuffix("_equal")]}
        assert trial.settings.training == column["bimask"].settings.training
        assert updates(trial) == updates(column["bimask"])


@pytest.mark.parametrize(
    ("model", "dataset", "epochs", "drops"),
    [
        ("resnet18", "cifar10", 5, (35, 65, 95)),
        ("resnet18", "cifar100", 6, (36, 66, 96)),
        ("wrn_52_2", "cifar10", 7, (37, 67, 97)),
        ("wrn_52_2", "cifar100", 7, (37, 67, 97)),
    ],
)
def test_lerac_of_the_spec(model, dataset, epochs, drops):
    lerac = contender("paper", model, dataset, 0, "lerac")
    assert (lerac.config["options"], lerac.settings.training.milestones) == ({"k": epochs}, drops)
    others = {contender("paper", model, dataset, 0, name).settings.training.milestones for name in ("cbs", "baseline")}
    assert others == {(30, 60, 90)}


def test_spans_keep_their_share_of_shorter_runs():
    options = {name: contender("tiny", "resnet18", "cifar100", 0, name).config["options"] for name in claims.CURRICULA}
    assert options == {
        "cbs": {"every": pytest.approx(5 * 30 / 200)},
        "efficienttrain": {},
        "self_taught": {"pacing_span": pytest.approx(0.006)},
        "lcdnet_cl": {"pacing_span": pytest.approx(0.006)},
        "lerac": {"k": pytest.approx(6 * 30 / 200)},
    }
    stated = {name: contender("paper", "resnet18", "cifar10", 0, name).config["options"] for name in claims.CURRICULA}
    assert stated == {**{name: {} for name in claims.CURRICULA}, "lerac": {"k": 5.0}}


def test_who_scores_the_images():
    column = contenders("small")
    assert column["self_taught"].parents == {"scorer": column["baseline"]}
    assert column["lcdnet_cl"].parents == {"scorer": scores("small", "cifar10", 1)}
    assert scores("small", "cifar10", 1).recipe == "fold_scores"
    assert contenders("small", "wrn_52_2")["lcdnet_cl"].parents == column["lcdnet_cl"].parents  # scored once
    at_paper = contenders("paper")["lcdnet_cl"].parents["scorer"]
    assert at_paper.recipe == "imagenet_scores"
    assert at_paper == scores("paper", "cifar10", 2)  # the same network for all seeds
    scored = column["lcdnet_cl"].parents["scorer"].config
    assert [scored[name] for name in ("subset", "holdout", "split_seed")] == [
        column["lcdnet_cl"].config[name] for name in ("subset", "holdout", "split_seed")
    ]


def test_curricula_cost_what_the_spec_counts():
    """Section 5: 20 000 epochs for the curricula, EfficientTrain's at 0.637, 2.85e18 operations without evaluations."""
    trials = [t for t in tables["table4"].trials("paper", 5) if t.recipe in ("curriculum", "paced")]
    assert sum(trial.settings.training.epochs for trial in trials) == 20_000
    flops = {trial: get_recipe(trial.recipe).flops(trial.settings) for trial in trials}
    evaluations = sum(cost_of_evaluating(trial) for trial in trials)
    assert sum(flops.values()) - evaluations == pytest.approx(2.85e18, rel=0.005)
    cheap, usual = (contender("paper", "resnet18", "cifar10", 0, name) for name in ("efficienttrain", "cbs"))
    trained = [flops[trial] - cost_of_evaluating(trial) for trial in (cheap, usual)]
    assert trained[0] / trained[1] == pytest.approx(0.637, abs=5e-4)


def cost_of_evaluating(trial) -> float:
    macs = {"resnet18": 555.42e6, "wrn_52_2": 469.16e6}[trial.config["model"]]
    return 2 * macs * 10_000 * trial.settings.training.epochs


# --- table 5 ---------------------------------------------------------------------------------------------------------


def taught(scale: str = "paper", seeds: int = 1) -> list:
    """(cell, seed, trial) of every student that has a teacher."""
    return [entry for entry in tables["table5"].entries(scale, seeds) if entry[2].recipe == "distill"]


@pytest.mark.parametrize("scale", SCALE_NAMES)
def test_a_student_learns_from_its_own_seeds_teacher(scale):
    for cell, seed, trial in taught(scale, 3):
        guide = trial.parents["teacher"]
        assert (guide.config["model"], guide.config["dataset"]) == (cell["teacher"], cell["dataset"])
        assert guide.config["seed"] == trial.config["seed"] == seed
        assert guide == teacher(scale, cell["dataset"], seed, cell["setting"])
        assert trial.config["method"] == cell["method"]
        assert trial.config["training"] == baseline(scale, cell["student"], cell["dataset"], seed).config["training"]


@pytest.mark.parametrize("scale", SCALE_NAMES)
def test_the_enhanced_teacher_is_the_plain_one_after_bimask(scale):
    dataset = "objects32" if scale == "smoke" else "cifar100"
    plain, enhanced = (teacher(scale, dataset, 3, setting) for setting in claims.TEACHERS)
    assert plain.recipe == "baseline"
    assert enhanced.parents == {"baseline": plain}
    assert enhanced.config["method"] == "bimask"
    assert enhanced.config["masking_ratio"] == (0.1 if scale == "smoke" else 0.075)


def test_the_pair_of_every_scale_but_smoke_is_the_papers():
    for scale in ("tiny", "small", "paper"):
        cells = [cell for cell, _, _ in taught(scale)]
        assert {(cell["teacher"], cell["student"]) for cell in cells} == {("resnet56", "resnet20")}
        methods = {"kd", "at"} if scale == "tiny" else {"kd", "fitnet", "at", "ft", "sckd"}
        assert {cell["method"] for cell in cells} == methods
        assert {cell["dataset"] for cell in cells} == {"cifar10", "cifar100"}


def test_settings_of_the_methods():
    """Defaults of the spec's table at 240 epochs; shorter runs shorten what comes before the training."""
    assert all(trial.config["options"] == {} for _, _, trial in taught())
    options = {cell["method"]: trial.config["options"] for cell, _, trial in taught("small")}
    assert options == {"kd": {}, "fitnet": {}, "at": {}, "ft": {"prepare_epochs": 8}, "sckd": {"prepare_epochs": 13}}
    recipe = student("paper", "cifar10", 0, "sckd", "bimask_teacher").settings.training
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.milestones) == (240, 64, 0.05, (150, 180, 210))


def test_students_of_the_plain_teacher_are_those_of_other_papers():
    shared = student("tiny", "cifar100", 2, "at", "baseline_teacher")
    assert shared == pkgd.arm("tiny", "resnet56", "resnet20", "cifar100", 2, "at")
    own = tables["table5"].trials("small", 1)
    assert baseline("small", "resnet20", "cifar10", 0) in own
    assert baseline("small", "resnet20", "cifar10", 0) in tables["table2"].trials("small", 1)
    assert teacher("paper", "cifar100", 0, "bimask_teacher") in tables["table2"].trials("paper", 1)


def test_students_cost_what_the_spec_counts():
    """Section 5: 24 000 epochs with the teacher's forward pass (496 MFLOPs per image), 6.0e17 operations."""
    trials = {trial for _, _, trial in taught("paper", 5)}
    assert sum(trial.settings.training.epochs for trial in trials) == 24_000
    kd = [trial for trial in trials if trial.config["method"] == "kd"]
    each = get_recipe("distill").flops(kd[0].settings) - 2 * 40.81e6 * 10_000 * 240
    assert each == pytest.approx(496e6 * 50_000 * 240, rel=0.002)
    assert 100 * each == pytest.approx(6.0e17, rel=0.01)


# --- choices ---------------------------------------------------------------------------------------------------------


def test_choices_of_tables_4_and_5():
    chosen = [c["method"] for c, _, _ in tables["table4"].entries("paper", 1, models="resnet18", methods=["cbs_equal"])]
    assert chosen == ["baseline", "cbs_equal"] * 2
    chosen = list(tables["table5"].entries("tiny", 1, datasets=["cifar100"], methods=["sckd"]))
    assert [cell["method"] for cell, _, _ in chosen] == ["baseline", "teacher", "teacher", "sckd", "sckd"]
    assert chosen[-1][2].config["options"] == {"prepare_epochs": 6}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("table4", {"methods": ["lcdnet"]}), ("table4", {"models": ["resnet56"]}), ("table5", {"methods": ["dkd"]}),
     ("table5", {"models": ["resnet20"]}),
     ("table2", {"models": ["vgg9"]}), ("table2", {"ratios": [0.1]}), ("table7", {"ratios": [1.5]}),
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
    for table in tables.values():
        table.trials("paper", 5)
    assert os.listdir(tmp_path) == []
