"""EncodeNet's grids and claims: which trials repeat each table at each scale, what is shared, what decides a claim."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from efflib.models import create_model
from efflib.papers import cifar
from efflib.papers.baselines import SIZES, training_flops
from efflib.papers.bimask.tables import tables as bimask
from efflib.papers.encodenet import arms, claims
from efflib.papers.encodenet.recipes import autoencoder_flops, parameter_count, second_stage_flops
from efflib.papers.encodenet.tables import SCRATCH, in_millions, tables
from efflib.papers.pkgd.tables import tables as pkgd
from efflib.report.verdict import CONTRADICTED, NOT_RUN, SUPPORTED, UNDETERMINED, claim_verdict, margin_for
from efflib.scales import SCALES
from efflib.training import cifar_rd, encodenet_attention, encodenet_base
from efflib.trials import Trial

COUNTED = "table5_parameters"  # nothing is trained for it
TRAINED = [name for name in tables if name != COUNTED]
EVERY = [(name, scale) for name in TRAINED for scale in SCALES]
COUNTS = {  # cells, and trials with one seed
    ("table1", "smoke"): (2, 5), ("table1", "tiny"): (2, 5), ("table1", "small"): (4, 10), ("table1", "paper"): (8, 20),
    ("table2", "smoke"): (4, 6), ("table2", "tiny"): (4, 6), ("table2", "small"): (16, 24),
    ("table2", "paper"): (32, 48),
    ("table3", "smoke"): (8, 13), ("table3", "tiny"): (22, 32), ("table3", "small"): (56, 90),
    ("table3", "paper"): (58, 94),
    ("table4", "smoke"): (6, 8), ("table4", "tiny"): (9, 11), ("table4", "small"): (9, 11),
    ("table4", "paper"): (18, 22),
    ("table5", "smoke"): (2, 2), ("table5", "tiny"): (7, 9), ("table5", "small"): (7, 9), ("table5", "paper"): (9, 11),
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_data")


def entries(name: str, scale: str, seeds: Any = 1, **choices: Any) -> list[tuple[dict[str, Any], int, Trial]]:
    return list(tables[name].entries(scale, seeds, **choices))


def column(name: str, scale: str, seed: int = 0, **keys: Any) -> dict[Any, Trial]:
    """Method, or (method, target), -> trial of one network and data set."""
    found = [(cell, trial) for cell, _, trial in entries(name, scale, [seed]) if keys.items() <= cell.items()]
    return {(c["method"], c["target"]) if "target" in c else c["method"]: trial for c, trial in found}


# --- the column that is counted ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_the_column_of_parameters_is_counted_and_as_printed(scale):
    table = tables[COUNTED]
    cells = entries(COUNTED, scale, 3)
    assert [cell for cell, _, _ in cells] == [cell.keys for cell in table.printed.cells]
    for cell, _, trial in cells:
        metrics = parameter_count(trial.settings, None).metrics
        found = in_millions(cell, metrics)
        assert found["millions"] == table.printed.cell(**cell).value
        assert round(found["parameters"], -4) == pytest.approx(1e6 * found["millions"])
    assert cells[0][2] == cells[-1][2]  # EncodeNet's classifier is the plain network
    assert margin_for(table.printed.unit, 23.71) == 0


# --- grids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scale"), COUNTS)
def test_sizes_of_the_grids(name, scale):
    cells, trials = COUNTS[name, scale]
    assert len(entries(name, scale)) == cells
    assert len(tables[name].trials(scale, 1)) == trials
    assert len(entries(name, scale, 3)) == 3 * cells
    assert len(tables[name].trials(scale, 3)) == 3 * trials  # nothing is shared between seeds


def test_every_table_has_every_scale():
    assert set(COUNTS) == set(EVERY)


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_cell_has_its_trial(name, scale):
    found = entries(name, scale, 2)
    assert len({(tuple(cell.items()), seed) for cell, seed, _ in found}) == len(found)
    for cell, seed, trial in found:
        config = trial.config
        method = cell.get("method")
        wanted = cell["teacher"] if method == "teacher" else network(cell)
        wanted += f"_{method}" if method in claims.ATTENTION else ""
        assert (config["model"], config["dataset"], config["seed"]) == (wanted, cell["dataset"], seed)
        assert (config["subset"], config["holdout"]) == (cifar.SIZES[scale].subset, cifar.SIZES[scale].holdout)


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_a_cell_says_what_its_trial_does(name, scale):
    for cell, _, trial in entries(name, scale):
        method = cell.get("method")
        if method is None:
            assert trial.recipe == "autoencoder" and trial.parents["codebook"].config["codes"] == cell["target"]
        elif method in claims.PEERS:
            assert (trial.recipe, trial.config["method"]) == ("distill", method)
        elif method in arms.READINGS:
            reading, encoder = arms.READINGS[method], trial.parents["encoder"]
            assert (trial.recipe, encoder.recipe) == ("second_stage", "autoencoder")
            stage = (trial.config["stage2"], trial.config["head_init"])
            assert stage == (reading.stage2, reading.head_init)
            assert encoder.config["encoder_init"] == reading.encoder_init
        elif method in ("baseline", "teacher", "baseline_long", *claims.ATTENTION):
            assert trial.recipe == "baseline" and not trial.parents
        else:
            assert trial.recipe == "second_stage"


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_parents_come_before_their_children(name, scale):
    done: set[str] = set()
    for trial in tables[name].trials(scale, 2):
        assert {parent.identity for parent in trial.parents.values()} <= done
        done.add(trial.identity)


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_all_arms_of_a_seed_have_one_baseline(name, scale):
    """Also through codebook and autoencoder; the student alone of table 4 is EncodeNet's own baseline."""
    found = entries(name, scale, 2)
    own = {(network(cell), cell["dataset"], seed): t for cell, seed, t in found if cell.get("method") == "baseline"}
    for cell, seed, trial in found:
        if trial.recipe in ("second_stage", "autoencoder"):
            [root] = [each for each in ancestors(trial) if each.recipe == "baseline"]
            assert root == own.get((network(cell), cell["dataset"], seed), root)
            assert [root.config[key] for key in ("model", "dataset", "seed")] == [network(cell), cell["dataset"], seed]


def network(cell: dict[str, Any]) -> str:
    return cell.get("model") or cell["student"]


def ancestors(trial: Trial) -> set[Trial]:
    found = set(trial.parents.values())
    return found.union(*(ancestors(parent) for parent in found)) if found else set()


def test_every_network_of_the_grids_exists():
    asked = {
        (trial.config["model"], tuple(trial.config["model_options"].items()))
        for name, scale in EVERY
        for trial in tables[name].trials(scale, 1)
        if trial.config["model"] not in ("resnet50_gam", "resnet50_gam_gc")  # tested with the attention modules
    }
    for name, options in asked:
        assert create_model(name, 10, **dict(options)) is not None
    assert {name for name, _ in asked} == {
        "vgg8", "vgg13", "vgg16", "resnet18", "resnet20", "resnet32", "resnet56", "resnet110", "resnet50",
        "resnet50_se", "resnet50_bam", "resnet50_cbam",
    }  # fmt: skip


@pytest.mark.parametrize("name", TRAINED)
def test_the_paper_grid_holds_every_printed_cell(name):
    cells = [cell for cell, _, _ in entries(name, "paper")]
    assert all(printed.keys in cells for printed in tables[name].printed.numbers)


def test_the_reduced_grids_keep_what_the_spec_asks_for():
    """Section 5, "Reduced": both targets; both data sets at small; three targets, R1, R3 and the controls."""
    small = {(c["model"], c["dataset"]) for c, _, _ in entries("table2", "small")}
    assert small == {(model, dataset) for model in ("vgg8", "resnet20") for dataset in claims.DATASETS}
    for scale in ("tiny", "small"):
        assert {c["target"] for c, _, _ in entries("table1", scale)} == {"class", "cluster"}
        ablation = column("table3", scale)
        assert {("encodenet", t) for t in arms.TARGETS} | {("finetune", t) for t in arms.TARGETS} <= set(ablation)
        assert {"baseline_long", "baseline_warm", "head_only", "subclass", ("encodenet", "rand_rep")} <= set(ablation)
    pairs = {scale: {(c["teacher"], c["student"]) for c, _, _ in entries("table4", scale)} for scale in SCALES}
    assert (pairs["small"], pairs["paper"]) == ({("vgg16", "vgg8")}, set(claims.PAIRS))
    assert pairs["tiny"] == {("resnet56", "resnet20")}


def test_controls_of_the_codes_are_asked_of_the_two_main_readings():
    cells = [cell for cell, _, _ in entries("table3", "paper")]
    others = {c["target"] for c in cells if c.get("target") not in (None, *arms.TARGETS)}
    asked = {*arms.CODE_CONTROLS, *arms.VARIANTS, *arms.CONVERSIONS}
    assert others == asked - {"cluster_vgg16"}  # the scale's own source is `cluster`
    assert {c["method"] for c in cells if c.get("target") in others} == set(SCRATCH[:2])


# --- what is shared ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_table1_trains_the_autoencoders_of_table2(scale):
    losses = {t for c, _, t in entries("table1", scale, 2) if c["target"] == "cluster"}
    dataset = "objects32" if scale == "smoke" else "cifar10"
    for method in ("encodenet", "finetune"):
        used = [t.parents["encoder"] for c, _, t in entries("table2", scale, 2) if c["method"] == method]
        assert losses == {trial for trial in used if trial.config["dataset"] == dataset}


@pytest.mark.parametrize("scale", SCALES)
def test_encodenet_of_tables_2_and_3_is_one_trial(scale):
    setting = claims.ABLATED if scale == "paper" else ("vgg8" if scale == "smoke" else claims.REDUCED)
    dataset = "objects32" if scale == "smoke" else "cifar10"
    two, three = (column(name, scale, model=setting, dataset=dataset) for name in ("table2", "table3"))
    assert two["baseline"] == three["baseline"]
    for method in ("encodenet", "finetune"):
        assert two[method] == three[method, "cluster"]
    if scale != "smoke":
        assert two["baseline_long"] == three["baseline_long"]


def test_the_ablation_uses_the_autoencoders_of_table1():
    three = column("table3", "paper")
    one = {c["target"]: t for c, _, t in entries("table1", "paper") if c["model"] == claims.ABLATED}
    assert {target: three["encodenet", target].parents["encoder"] for target in one} == one


@pytest.mark.parametrize("seed", [0, 3])
def test_the_tiny_pair_is_trained_for_pkgd(seed):
    own = column("table4", "tiny", seed)
    for methods, shared in ((None, {"teacher", "baseline", "kd"}), (["ft"], {"teacher", "baseline", "ft"})):
        cells = pkgd["table1"].entries("tiny", [seed], pairs=["resnet56->resnet20"], methods=methods)
        theirs = {cell["method"]: trial for cell, _, trial in cells}
        assert own.keys() & theirs.keys() == shared
        assert all(own[method] == theirs[method] for method in shared)


def test_the_tiny_pair_is_trained_for_bimask_too():
    cells = bimask["table5"].entries("tiny", 1, datasets=["cifar100"])
    plain = [trial for cell, _, trial in cells if (cell["method"], cell.get("setting")) == ("kd", "baseline_teacher")]
    assert plain == [column("table4", "tiny")["kd"]]


def test_vgg8_of_table4_is_table2s_below_paper_scale_only():
    """The recipes differ at paper scale: the spec, section 5, table 4."""
    for scale, same in (("small", True), ("paper", False)):
        four = column("table4", scale, student="vgg8")
        two = column("table2", scale, model="vgg8", dataset="cifar100")
        for method in ("baseline", "encodenet", "finetune"):
            assert (four[method] == two[method]) is same


def test_both_readings_share_one_autoencoder():
    for name, scale in (("table2", "paper"), ("table4", "tiny"), ("table5", "paper")):
        found = column(name, scale)
        assert found["encodenet"].parents["encoder"] == found["finetune"].parents["encoder"]


@pytest.mark.parametrize("scale", SCALES)
def test_a_student_learns_from_its_own_seeds_teacher(scale):
    for cell, seed, trial in entries("table4", scale, 3):
        if cell["method"] in claims.PEERS:
            guide = trial.parents["teacher"]
            assert (guide.config["model"], guide.config["seed"]) == (cell["teacher"], seed)
            assert guide == column("table4", scale, seed, teacher=cell["teacher"])["teacher"]


# --- recipes ----------------------------------------------------------------------------------------------


def test_recipes_of_the_paper_scale():
    for name, recipe, epochs in (
        ("table1", encodenet_base(), 300), ("table2", encodenet_base(), 300), ("table3", encodenet_base(), 300),
        ("table4", cifar_rd(), 240), ("table5", encodenet_attention(), 200),
    ):  # fmt: skip
        plain = [t for t in tables[name].trials("paper", 1) if t.recipe == "baseline"]
        lengths = {t.settings.training.epochs for t in plain}
        assert recipe.epochs == epochs == min(lengths)
        assert {t.settings.training for t in plain if t.settings.training.epochs == epochs} == {recipe}
        assert lengths == {epochs} or name != "table1"  # the baselines of equal budget
    base = encodenet_base()
    assert (base.lr, base.weight_decay, base.batch_size, base.milestones) == (0.1, 1e-4, 128, (150, 225))
    peers = encodenet_attention()
    assert (peers.lr, peers.weight_decay, peers.milestones, peers.gamma) == (0.1, 5e-4, (60, 120, 160), 0.2)


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name, scale in EVERY if scale != "paper"])
def test_smaller_scales_share_one_recipe(name, scale):
    shared = cifar_rd(cifar.SIZES[scale].epochs)
    for cell, _, trial in entries(name, scale):
        if trial.recipe in ("baseline", "distill") and cell["method"] != "baseline_long":
            assert trial.settings.training == shared


@pytest.mark.parametrize(
    ("scale", "baseline", "autoencoder", "second"),
    [("smoke", 6, 6, 8), ("tiny", 30, 50, 10), ("small", 60, 100, 20), ("paper", 300, 500, 100)],
)
def test_lengths_of_the_stages(scale, baseline, autoencoder, second):
    """3 : 5 : 1 of the paper at every scale but smoke (spec, section 5, table 2)."""
    found = column("table2", scale)
    encoder = found["encodenet"].parents["encoder"]
    stages = (found["baseline"], encoder, found["encodenet"], found["finetune"])
    assert [trial.settings.training.epochs for trial in stages] == [baseline, autoencoder, second, second]
    converting = encoder.settings.training
    assert (converting.optimiser, converting.lr, converting.weight_decay) == ("adam", 1e-3, 0.0)
    assert (converting.schedule, converting.batch_size) == ("cosine", 128)
    assert [found[reading].settings.training.lr for reading in ("encodenet", "finetune")] == [0.1, 0.01]
    assert {found[reading].settings.training.schedule for reading in ("encodenet", "finetune")} == {"cosine"}


@pytest.mark.parametrize(("name", "epochs"), [("table4", 240), ("table5", 200)])
def test_encodenets_own_stages_do_not_follow_the_peers_recipes(name, epochs):
    found = column(name, "paper")
    assert found["baseline"].settings.training.epochs == epochs
    encoder = found["encodenet"].parents["encoder"]
    assert (encoder.settings.training.epochs, found["encodenet"].settings.training.epochs) == (500, 100)


def test_fts_paraphraser_learns_faster_beside_vgg8():
    options = {
        (scale, cell["student"]): trial.config["options"]
        for scale in ("tiny", "paper")
        for cell, _, trial in entries("table4", scale)
        if cell["method"] == "ft"
    }
    assert options == {
        ("tiny", "resnet20"): {"prepare_epochs": 4},  # 30 of 240 epochs
        ("paper", "resnet32"): {},
        ("paper", "vgg8"): {"prepare_lr": 0.05},
    }


# --- equal budgets ----------------------------------------------------------------------------------------

RHO = {"vgg8": 5.7, "vgg16": 2.7, "resnet18": 2.5, "resnet20": 5.7, "resnet32": 4.1, "resnet50": 2.1}


@pytest.mark.parametrize("model", RHO)
def test_rho_is_the_specs(model):
    """Spec, section 5.0: 300, 500 and 100 epochs."""
    parent = arms.baseline("paper", model, "cifar10", 0)
    assert f"{arms.extra_cost('paper', parent):.1f}" == f"{RHO[model]}"
    assert arms.whole_epochs("paper", parent) == pytest.approx(300 * (1 + RHO[model]), abs=0.05 * 300)


def test_the_baseline_of_equal_budget_of_the_ablation():
    """Spec, section 5, table 3: 1,038 epochs for ResNet18, up to rounding."""
    parent = arms.baseline("paper", "resnet18", "cifar10", 0)
    longer = arms.baseline_long("paper", parent)
    training = longer.settings.training
    assert training.epochs in (1038, 1039)
    assert [drop / training.epochs for drop in training.milestones] == pytest.approx([0.5, 0.75], abs=1e-3)
    assert training.model_copy(update={"epochs": 300, "milestones": (150, 225)}) == parent.settings.training
    assert longer == column("table3", "paper")["baseline_long"]


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
@pytest.mark.parametrize("model", ["vgg8", "resnet20"])
def test_budgets_are_equal(scale, model):
    parent = arms.baseline(scale, model, "cifar10", 0)
    stage = arms.encodenet(scale, parent)
    kept = (cifar.SIZES[scale].subset or SIZES["cifar10"][0]) - cifar.SIZES[scale].holdout
    parts = [
        training_flops(parent.settings, kept, 0),
        autoencoder_flops(stage.parents["encoder"].settings, kept, 0),
        second_stage_flops(stage.settings, kept, 0),
    ]
    longer = training_flops(arms.baseline_long(scale, parent).settings, kept, 0)
    assert longer == pytest.approx(sum(parts), rel=0.5 / parent.settings.training.epochs)
    # The proportion of the stages is the paper's at every scale, and so is rho.
    assert arms.extra_cost(scale, parent) == pytest.approx(RHO[model], abs=0.06)


def test_controls_of_the_budget():
    found = column("table3", "tiny")
    base = found["baseline"]
    warm, head, sub, tuned = (found[m] for m in ("baseline_warm", "head_only", "subclass", "subclass_finetune"))
    assert warm.parents == head.parents == {"encoder": base}
    assert [(t.config["stage2"], t.config["head_init"]) for t in (warm, head)] == [
        ("finetune", "kept"), ("frozen", "fresh"),
    ]  # fmt: skip
    assert warm.settings.training == found["finetune", "cluster"].settings.training
    assert head.settings.training == found["encodenet", "cluster"].settings.training
    assert sub.parents == tuned.parents
    learned = sub.parents["encoder"]
    assert learned.recipe == "subclasses" and learned.settings.training == base.settings.training
    assert learned.parents["codebook"] == found["encodenet", "cluster"].parents["encoder"].parents["codebook"]
    assert (sub.config["stage2"], tuned.config["stage2"]) == ("frozen", "finetune")


# --- codebooks --------------------------------------------------------------------------------------------


def book(trial: Trial) -> Trial:
    return trial.parents["encoder"].parents["codebook"]


def test_the_identity_target_has_the_cluster_codebook():
    found = column("table3", "small")
    for reading in arms.READINGS:
        identity, cluster = (found[reading, target] for target in ("identity", "cluster"))
        assert book(identity) == book(cluster)
        targets = [trial.parents["encoder"].config["target"] for trial in (identity, cluster)]
        assert targets == ["identity", "codes"]


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_clustered(scale):
    own = "imagenet_vgg16" if scale == "paper" else "baseline_penultimate"
    books = [t for name in tables for t in tables[name].trials(scale, 1) if t.recipe == "codebook"]
    plain = {t.config["feature_source"] for t in books if t.config["codes"] == "cluster" and t not in varied(scale)}
    assert plain == {own}
    settings = ("cluster_method", "k", "pca_dim", "cluster_seed", "require_correct")
    for each in books:
        if each not in varied(scale):
            assert [each.config[name] for name in settings] == ["kmeans", 3, 100, 22, True]


def varied(scale: str) -> set[Trial]:
    """Codebooks of table 3's variants."""
    return {book(t) for c, _, t in entries("table3", scale) if c.get("target") in arms.VARIANTS}


def test_variants_differ_in_what_they_are_named_after():
    found = column("table3", "paper")
    plain = book(found["encodenet", "cluster"]).config
    for target, options in arms.VARIANTS.items():
        if ("encodenet", target) in found:
            own = book(found["encodenet", target]).config
            assert {name: own[name] for name in own if own[name] != plain[name]} == options
    assert book(found["encodenet", "rand_rep"]).config["codes"] == "rand_rep"


def test_another_conversion_shares_the_codebook():
    found = column("table3", "paper")
    for target, options in arms.CONVERSIONS.items():
        plain, own = (found["encodenet", name].parents["encoder"] for name in ("cluster", target))
        assert own.parents == plain.parents
        assert {name: own.config[name] for name in own.config if own.config[name] != plain.config[name]} == options


def test_features_can_be_chosen():
    for name in TRAINED:
        chosen = tables[name].trials("small", 1, features=["pixels"])
        books = [t for t in chosen if t.recipe == "codebook" and t.config["codes"] not in ("class",)]
        sources = [t.config["feature_source"] for t in books]
        assert "pixels" in sources
        assert set(sources) <= {"pixels", "baseline_mid", "baseline_penultimate", "imagenet_vgg16"}
        assert name == "table3" or set(sources) == {"pixels"}  # its variants name their own
        same = tables[name].trials("small", 1, features="baseline_penultimate")
        assert same == tables[name].trials("small", 1)


def test_class_codes_need_no_features():
    plain, chosen = (entries("table1", "small", features=features) for features in (None, ["pixels"]))
    same = {cell["target"]: trial == other for (cell, _, trial), (_, _, other) in zip(plain, chosen, strict=True)}
    assert same == {"class": True, "cluster": False}


# --- choices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("table1", {"methods": ["encodenet"]}), ("table1", {"models": ["resnet50"]}), ("table2", {"datasets": ["mnist"]}),
     ("table2", {"methods": ["kd"]}), ("table3", {"targets": ["clusters"]}), ("table3", {"methods": []}),
     ("table4", {"pairs": ["vgg8->vgg16"]}), ("table4", {"methods": ["at"]}), ("table4", {"models": ["vgg8"]}),
     ("table5", {"methods": ["eca"]}), *((name, {"features": ["vgg19"]}) for name in TRAINED)],
)  # fmt: skip
def test_wrong_choices_are_errors_that_list_the_valid_ones(name, wrong):
    with pytest.raises(ValueError, match=r"Choices are: |choose at least one of: "):
        tables[name].trials("tiny", 1, **wrong)


@pytest.mark.parametrize("name", TRAINED)
def test_two_kinds_of_features_are_an_error(name):
    with pytest.raises(ValueError, match="choose one of them"):
        tables[name].trials("tiny", 1, features=["pixels", "baseline_mid"])


def test_choices_narrow_the_grid_and_keep_the_baseline():
    two = entries("table2", "tiny", [3], models=["vgg8"], datasets=["cifar100"], methods=["finetune"])
    assert [cell["method"] for cell, _, _ in two] == ["baseline", "finetune"]
    assert {(t.config["model"], t.config["dataset"], t.config["seed"]) for _, _, t in two} == {("vgg8", "cifar100", 3)}
    three = entries("table3", "tiny", 1, methods=["encodenet", "head_only"], targets=["class", "noise_code"])
    assert [(c["method"], c.get("target")) for c, _, _ in three] == [
        ("baseline", None), ("head_only", None), ("encodenet", "class"), ("encodenet", "noise_code"),
    ]  # fmt: skip
    four = entries("table4", "tiny", 1, pairs=["vgg13->vgg8"], methods=["rkd"])
    assert [(c["student"], c["method"]) for c, _, _ in four] == [
        ("vgg8", "teacher"), ("vgg8", "baseline"), ("vgg8", "rkd"),
    ]  # fmt: skip
    five = entries("table5", "smoke", 1, methods=["encodenet", "gam_gc"])
    assert [c["method"] for c, _, _ in five] == ["baseline", "encodenet", "gam_gc"]


# --- claims -----------------------------------------------------------------------------------------------

EXPECTED = {  # comparisons of each claim
    "table1": {"a": 4, "b": 8, "c": 4, "d": 4, "e": 4},
    "table2": {"a": 8, "b": 4, "c": 6, "d": 8, "e": 8, "f": 8},
    "table3": {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 3, "g": 4, "h": 4},
    "table4": {"a": 8, "b": 1, "c": 1, "d": 8, "e": 2},
    "table5": {"a": 1, "b": 2, "c": 3, "d": 2, "e": 1},
}
ALL = {claim.id: claim for table in claims.CLAIMS.values() for claim in table}
# Printed losses that do not bear out the claims about them: VGG16's rises (audit, finding 4).
AGAINST = {"encodenet.table1.a": 1, "encodenet.table1.b": 1}
AGAINST |= {f"encodenet.table1.{letter}": 1 for letter in "cde"}


class World:
    """Results made by a rule: cell and metric -> value, with a little noise over the seeds."""

    def __init__(self, value: Callable[[dict[str, Any], str], float], seeds: int = 5) -> None:
        self.value, self.seeds = value, seeds
        self.asked: list[dict[str, Any]] = []

    def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
        self.asked.append(cell)
        noise = 1e-8 * len(str(cell))
        return {s: self.value(cell, metric) + noise * (s - self.seeds // 2) for s in range(self.seeds)}

    def matching(self, **cell: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(cell=cell)] if cell["model"] == claims.ABLATED else []


def as_printed(name: str) -> Callable[[dict[str, Any], str], float]:
    """The printed numbers; what was not printed is as the literal reading, the baseline, or the one printed loss."""
    table = tables[name].printed

    def value(cell: dict[str, Any], metric: str) -> float:
        if name == "table1":
            return table.cell(**cell).value
        assert metric == "last"  # the headline metric of every claim about accuracies
        method = {"finetune": "encodenet"}.get(cell["method"], cell["method"])
        target = cell.get("target")
        known = {(c.keys["method"], c.keys.get("target")) for c in table.numbers}
        if (method, target) not in known:
            method, target = "baseline", None
        keys = {k: v for k, v in cell.items() if k not in ("method", "target")} | {"method": method}
        return table.cell(**keys, **({"target": target} if target else {})).value

    return value


def contrary(name: str) -> Callable[[dict[str, Any], str], float]:
    """A world against the claim: gains with the opposite sign, losses exchanged between the targets."""
    table, straight = name.split(".")[1], as_printed(name.split(".")[1])
    if name == "encodenet.table3.b":
        return lambda cell, metric: 50.0 if cell.get("target") == "identity" else 91.0
    if name == "encodenet.table5.c":
        return lambda cell, metric: 70.0 if cell["method"] == "encodenet" else 80.0
    if table == "table1":
        other = {"class": "cluster", "cluster": "class"}
        return lambda cell, metric: straight({**cell, "target": other[cell["target"]]}, metric)

    def mirrored(cell: dict[str, Any], metric: str) -> float:
        base = {k: v for k, v in cell.items() if k != "target"} | {"method": "baseline"}
        return 2 * straight(base, metric) - straight(cell, metric)

    return mirrored


def verdict(name: str, world: Any, scale: str = "paper") -> Any:
    return claim_verdict(ALL[name].comparisons(world), scale, ALL[name].minimum_scale)


def test_every_claim_lists_every_comparison():
    empty = World(lambda cell, metric: 0.0, seeds=0)
    counts = {name: len(claim.comparisons(empty)) for name, claim in ALL.items()}
    assert counts == {f"encodenet.{t}.{x}": n for t, letters in EXPECTED.items() for x, n in letters.items()}
    labels = [(name, c.label, c.side) for name, claim in ALL.items() for c in claim.comparisons(empty)]
    assert len(set(labels)) == len(labels)


def test_claims_say_whose_they_are_and_need_their_scale():
    ours = {name for name, claim in ALL.items() if claim.owner == "ours"}
    wanted = {"table1": "cde", "table2": "def", "table3": "fgh", "table4": "de", "table5": "de"}
    assert ours == {f"encodenet.{table}.{letter}" for table, letters in wanted.items() for letter in letters}
    scales = {name: claim.minimum_scale for name, claim in ALL.items()}
    assert {name for name, scale in scales.items() if scale == "paper"} == {"encodenet.table1.b", "encodenet.table2.b"}
    small = {name for name, scale in scales.items() if scale == "small"}
    # Table 4's pairs do not run at tiny; table 5's network does, so that directions can be asked there.
    assert small == {name for name in ALL if ".table4." in name} | {"encodenet.table2.c", "encodenet.table5.c"}


@pytest.mark.parametrize("name", ALL)
def test_claims_ask_for_cells_that_the_paper_grid_has(name):
    world = World(lambda cell, metric: 1.0)
    ALL[name].comparisons(world)
    cells = [cell for cell, _, _ in entries(name.split(".")[1], "paper")]
    assert world.asked and all(cell in cells for cell in world.asked)


@pytest.mark.parametrize("name", ALL)
def test_printed_numbers_decide_the_claims(name):
    got = verdict(name, World(as_printed(name.split(".")[1])))
    assert (got.disagree, got.ran) == (AGAINST.get(name, 0), got.expected)
    assert got.verdict == (CONTRADICTED if name in AGAINST else SUPPORTED)


@pytest.mark.parametrize("name", AGAINST)
def test_claims_about_losses_can_be_supported(name):
    """Losses halve, of whatever metric."""
    halved = World(lambda cell, metric: 0.01 if cell["target"] == "cluster" else 0.02)
    assert verdict(name, halved).verdict == SUPPORTED


@pytest.mark.parametrize("name", ALL)
def test_an_opposite_world_contradicts_the_claims(name):
    assert verdict(name, World(contrary(name))).verdict == CONTRADICTED


@pytest.mark.parametrize("name", ALL)
def test_two_seeds_decide_nothing(name):
    for made in (as_printed(name.split(".")[1]), contrary(name)):
        got = verdict(name, World(made, seeds=2))
        assert (got.verdict, got.open) == (UNDETERMINED, got.expected)


@pytest.mark.parametrize("name", ALL)
def test_nothing_run_is_not_run(name):
    got = verdict(name, World(lambda cell, metric: 0.0, seeds=0))
    assert (got.verdict, got.ran) == (NOT_RUN, 0)


@pytest.mark.parametrize("name", ALL)
def test_scales_below_the_minimum_are_not_run(name):
    world, least = World(as_printed(name.split(".")[1])), ALL[name].minimum_scale
    for scale in SCALES:
        counts = scale != "smoke" and SCALES.index(scale) >= SCALES.index(least)
        assert (verdict(name, world, scale).verdict != NOT_RUN) is counts


class Part(World):
    """Only the cells of a grid ran."""

    def __init__(self, name: str, scale: str, value: Callable[[dict[str, Any], str], float]) -> None:
        super().__init__(value)
        self.cells = [cell for cell, _, _ in entries(name, scale)]

    def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
        return super().samples(metric, **cell) if cell in self.cells else {}

    def matching(self, **cell: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(cell=c) for c in self.cells if cell.items() <= c.items()]


@pytest.mark.parametrize("name", [name for name in ALL if ".table4." in name])
def test_the_tiny_pair_says_nothing_about_the_papers_pairs(name):
    """Whatever it measures, and whatever scale would count."""
    world = Part("table4", "tiny", lambda cell, metric: 1.0)
    assert {c["teacher"] for c in world.cells} == {"resnet56"}
    assert claim_verdict(ALL[name].comparisons(world), "small").verdict == NOT_RUN


def test_part_of_the_cells_can_contradict_but_not_support():
    for name, table, scale in (
        ("encodenet.table2.a", "table2", "tiny"), ("encodenet.table4.a", "table4", "small"),
        ("encodenet.table5.c", "table5", "small"),
    ):  # fmt: skip
        good, bad = (verdict(name, Part(table, scale, rule), scale) for rule in (literal_leads, literal_trails))
        assert 0 < good.ran < good.expected
        assert (good.verdict, good.agree) == (UNDETERMINED, good.ran)
        assert bad.verdict == CONTRADICTED


def literal_leads(cell: dict[str, Any], metric: str) -> float:
    return 75.0 if cell["method"] == "encodenet" else 70.0


def literal_trails(cell: dict[str, Any], metric: str) -> float:
    return 65.0 if cell["method"] == "encodenet" else 70.0


def test_one_pair_decides_the_claims_about_one_pair():
    world = Part("table4", "small", literal_leads)
    assert verdict("encodenet.table4.b", world, "small").verdict == SUPPORTED
    assert verdict("encodenet.table4.c", world, "small").verdict == NOT_RUN  # ResNet32 runs at paper scale only


def test_the_ablation_is_judged_on_the_network_that_ran():
    for scale, model in (("tiny", "resnet20"), ("paper", "resnet18")):
        world = Part("table3", scale, literal_leads)
        assert verdict("encodenet.table3.d", world, scale).verdict == SUPPORTED
        assert {cell["model"] for cell in world.asked} == {model}
        assert claims.ablated(world) == {"model": model, "dataset": "cifar10"}


def test_mean_gains_wait_for_all_networks():
    world = Part("table2", "small", literal_leads)
    got = claim_verdict(ALL["encodenet.table2.b"].comparisons(world), "small")
    assert (got.verdict, got.ran) == (NOT_RUN, 0)


@pytest.mark.parametrize(("gain", "inside"), [(1.10, False), (1.2, True), (2.1, True), (2.2, False)])
def test_a_mean_gain_is_the_printed_one_within_half_a_point(gain, inside):
    """1.65 on CIFAR-10; the claim about CIFAR-100 is left at its printed mean."""

    def value(cell: dict[str, Any], metric: str) -> float:
        lead = gain if cell["dataset"] == "cifar10" else 1.8675
        return 70.0 + lead * (cell["method"] == "encodenet")

    got = verdict("encodenet.table2.b", World(value))
    assert got.verdict == (SUPPORTED if inside else CONTRADICTED)
    assert got.agree == (4 if inside else 3)


def test_readings_are_those_that_ran_on_cluster_codes():
    found = {}
    for scale in SCALES:
        ran = [cell["method"] for cell, _, _ in entries("table3", scale) if cell.get("target") == "cluster"]
        found[scale] = tuple(dict.fromkeys(ran))
    assert found["smoke"] == SCRATCH[:2] and found["tiny"] == SCRATCH
    assert found["small"] == found["paper"] == tuple(arms.READINGS)


def test_parameters_are_the_printed_ones_to_the_last_decimal():
    printed = tables["table5"].printed
    own = {m: printed.cell(method=m).printed["parameters"].replace(" ", "") for m in ("baseline", *claims.ATTENTION)}
    assert {method: f"{count / 1e6:.2f}M" for method, count in claims.parameter_counts().items()} == own
    assert (
        printed.cell(method="encodenet").printed["parameters"] == printed.cell(method="baseline").printed["parameters"]
    )


def test_nothing_was_read_or_written(tmp_path):
    for table in tables.values():
        table.trials("paper", 3)
    assert os.listdir(tmp_path) == []
