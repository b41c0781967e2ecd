"""PKGD's grids: which trials repeat each table, what is shared, and the small measurements of its chapter."""

from __future__ import annotations

import pytest

from efflib.papers import bimask
from efflib.papers.pkgd import demonstrations
from efflib.papers.pkgd.arms import CROSS_FAMILY, FORMS, SAME_FAMILY, arm
from efflib.papers.pkgd.claims import METHODS
from efflib.papers.pkgd.tables import tables
from efflib.scales import SCALES
from efflib.trials import Trial

CIFAR_TABLES = ("table1", "table2", "table5")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", CIFAR_TABLES)
def test_every_cell_of_every_scale_has_its_trial(name, scale):
    entries = list(tables[name].entries(scale, 2))
    assert len({(tuple(cell.items()), seed) for cell, seed, _ in entries}) == len(entries)
    for cell, seed, trial in entries:
        config = trial.config
        assert config["seed"] == seed and config["dataset"] == cell["dataset"]
        if cell["method"] in ("teacher", "baseline"):
            role = "teacher" if cell["method"] == "teacher" else "student"
            assert trial.recipe == "baseline" and config["model"] == cell[role]
        else:
            assert (config["model"], config["teacher_model"]) == (cell["student"], cell["teacher"])
            assert config["method"] == ("pkgd" if cell["method"] in FORMS else cell["method"])


@pytest.mark.parametrize(("name", "pairs"), [("table1", SAME_FAMILY), ("table2", CROSS_FAMILY)])
def test_the_paper_grid_holds_every_printed_cell(name, pairs):
    table = tables[name]
    cells = [cell for cell, _, _ in table.entries("paper", 1)]
    assert len(cells) == len(pairs) * (2 + len(METHODS)) == len(table.printed.numbers)
    assert all(printed.keys in cells for printed in table.printed.numbers)


def test_the_ablation_holds_every_printed_row_and_our_controls():
    cells = [cell for cell, _, _ in tables["table5"].entries("paper", 1)]
    assert all(printed.keys in cells for printed in tables["table5"].printed.numbers)
    assert {"align", "pkgd_code_random", "pkgd_code_trained", "pkgd_mlff_code"} <= {cell["method"] for cell in cells}


def test_one_teacher_serves_all_its_students():
    trials = tables["table1"].trials("paper", 1)
    assert sum(trial.recipe == "baseline" for trial in trials) == 5 + 6  # WRN-40-2 teaches two students
    both = {*trials, *tables["table2"].trials("paper", 1)}
    assert sum(trial.recipe == "baseline" for trial in both) == 6 + 9
    assert sum(trial.recipe == "distill" for trial in both) == 110


def test_teachers_and_students_are_the_baselines_of_other_papers():
    small = {trial.identity for trial in bimask.tables["table2"].trials("small", 1) if trial.recipe == "baseline"}
    own = {trial.identity for trial in tables["table1"].trials("small", 1) if trial.recipe == "baseline"}
    assert small & own  # VGG8 and ResNet20 on CIFAR-100


def test_the_ablation_shares_kd_and_pkgd_with_table1():
    one, five = (set(tables[name].trials("tiny", 3)) for name in ("table1", "table5"))
    shared = one & five
    assert {trial.config.get("method", "baseline") for trial in shared} == {"baseline", "kd", "pkgd"}
    assert len(shared) == 3 * 4  # teacher, student alone, KD, PKGD


def test_pairs_can_be_chosen_by_name():
    chosen = tables["table1"].trials("tiny", 1, pairs=["vgg13->vgg8"], methods=["kd"])
    assert {trial.config["model"] for trial in chosen} == {"vgg13", "vgg8"}
    with pytest.raises(ValueError, match="vgg13->vgg9"):
        tables["table1"].trials("tiny", 1, pairs=["vgg13->vgg9"])


def test_weights_of_the_losses_follow_the_pair():
    def options(method: str, teacher: str, student: str, scale: str = "tiny") -> dict:
        trial = arm(scale, teacher, student, "cifar100", 0, method)
        assert isinstance(trial, Trial)
        return trial.config["options"]

    assert options("dkd", "resnet56", "resnet20")["other_weight"] == 2.0
    assert "other_weight" not in options("dkd", "resnet32x4", "resnet8x4")  # the method's default, 8
    assert options("reviewkd", "resnet56", "resnet20")["feature_weight"] == 0.6
    assert options("rpkd", "resnet32x4", "shufflenetv2")["feature_weight"] == 8.0
    assert options("reviewkd", "vgg13", "vgg8")["feature_weight"] == 5.0
    assert options("ft", "vgg13", "vgg8")["prepare_lr"] == 0.05
    assert options("ft", "wrn_40_2", "shufflenetv1", "paper")["prepare_lr"] == 0.02


def test_entropies_at_the_start_are_the_specs():
    """Spec, section 2.5: one random draw, so the maps of the smallest level vary by several hundredths."""
    found = {row["score"]: row for row in demonstrations.map_entropies((256, 8, 8))}
    assert found["none"]["channel map"] == pytest.approx(0.64, abs=0.02)
    assert found["none"]["spatial map"] == pytest.approx(0.21, abs=0.02)
    assert found["sqrt"]["channel map"] == pytest.approx(0.98, abs=0.01)
    assert found["sqrt"]["spatial map"] == pytest.approx(0.93, abs=0.01)
    assert found["l2"]["channel map"] == pytest.approx(1.00, abs=0.01)
    shallow = {row["score"]: row for row in demonstrations.map_entropies((16, 32, 32))}
    assert shallow["none"]["channel map"] < 0.4 < 0.9 < shallow["sqrt"]["channel map"]


@pytest.mark.parametrize(("spread", "low", "high"), [(0.5, 0.45, 0.55), (1.0, 0.34, 0.42), (2.0, 0.90, 1.05)])
def test_a_perfect_student_has_a_loss_under_the_released_script(spread, low, high):
    """Spec, section 2.8: about 0.50, 0.38 and 0.95 to 1.00 at the spatial levels."""
    for shape in ((16, 32, 32), (32, 16, 16), (64, 8, 8)):
        assert low < demonstrations.loss_of_a_perfect_student(shape, spread) < high


def test_the_tables_of_the_pages_say_what_they_show():
    assert "240x16x16" in demonstrations.shapes_table("wrn_40_2", "shufflenetv1").data
    assert "RepDistiller" in demonstrations.published_table("table2").data
    assert "0.38" in demonstrations.floor_table().data
