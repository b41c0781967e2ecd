"""The thesis's grids and claims: which trials repeat each table at each scale, and what decides a claim."""

from __future__ import annotations

from typing import Any

import pytest
from diswot_results import Fake, decided, verdict
from made_records import recorded
from scipy.stats import kendalltau

from efflib.papers.diswot import arms, claims
from efflib.papers.diswot.rivals import parameters
from efflib.papers.diswot.space import ROLES, STUDENTS, TEACHER
from efflib.papers.diswot.tables import class_report, mean_score, tables, whole_megabytes
from efflib.report.tables import OURS, compare
from efflib.report.verdict import CONTRADICTED, NOT_RUN, REPRODUCED, SUPPORTED, UNDETERMINED
from efflib.scales import SCALES
from efflib.trials import Entry, Results
from efflib.trials.recipes import Context, get_recipe
from efflib.trials.trial import Trial, with_parents

pytestmark = pytest.mark.usefixtures("no_data")
BEST = "w100-d17-gap"


def entries(name: str, scale: str, seeds: Any = 1, **choices: Any) -> list[tuple[dict[str, Any], int, Trial]]:
    return list(tables[name].entries(scale, seeds, **choices))


# --- grids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tables)
def test_the_paper_grid_holds_every_printed_cell_that_is_not_quoted(name):
    cells = [cell for cell, _, _ in entries(name, "paper")]
    for printed in tables[name].printed.numbers:
        quoted = printed.keys.get("model") in ("tiny_cnn", "mobilenet") or "loss" in printed.keys
        assert (printed.keys in cells) != quoted


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", tables)
def test_cells_are_distinct_and_belong_to_their_page(name, scale):
    found = entries(name, scale, 2)
    assert len({(tuple(cell.items()), seed) for cell, seed, _ in found}) == len(found)
    assert (tables[name].page or name) in ("table3_3", "table3_4", "table3_5", "table3_6", "table3_7", "table3_8")


def test_a_student_is_trained_once_for_all_tables_and_lengths():
    by_name = {
        (cell["method"], cell["epochs"]): trial
        for name in ("table3_4", "table3_5")
        for cell, _, trial in entries(name, "paper")
        if "epochs" in cell
    }
    runs = {by_name["gradcam_l2", epochs] for epochs in (1, 10, 15, 30)}
    (space,) = {trial for cell, _, trial in entries("table3_3", "paper") if cell["student"] == BEST}
    assert runs == {space} and space.settings.training.epochs == 30  # type: ignore[attr-defined]
    assert by_name["lrp_cosine", 30] == by_name["lrp_cosine", 50]
    assert ("gradcam_l2", 50) not in by_name and ("lrp_l2", 50) not in by_name
    other = {trial for cell, _, trial in entries("table3_3", "paper") if cell["student"] == "w035-d11-dsc"}.pop()
    assert other.settings.training.epochs == 15  # type: ignore[attr-defined]


def test_every_epoch_that_a_cell_asks_for_is_marked():
    for name in tables:
        for cell, _, trial in entries(name, "paper"):
            if trial.recipe in ("baseline", "distill"):
                assert cell["epochs"] in trial.settings.marks  # type: ignore[attr-defined]


def test_number_of_trainings_at_paper_scale():
    trials = with_parents(trial for name in tables for _, _, trial in entries(name, "paper"))
    assert sum(trial.recipe == "baseline" for trial in trials) == 3  # the teacher, the best student alone, and shorter
    # The other students, eight arms of the best, and two of them for as long as the others, whose maps are compared.
    assert sum(trial.recipe == "distill" for trial in trials) == 15 + 8 + 2
    assert sum(trial.recipe == "network_cost" for trial in trials) == 17


def test_the_settings_are_the_thesiss():
    teacher = arms.alone("paper", TEACHER, 0).settings
    training: Any = teacher.training  # type: ignore[attr-defined]
    assert (training.optimiser, training.lr, training.batch_size, training.eps) == ("adam", 1e-4, 32, 1e-7)
    assert (training.weight_decay, training.milestones, training.schedule, training.epochs) == (0.0, (), "step", 50)
    assert (teacher.dataset, teacher.holdout) == ("brain_mri", 0)  # type: ignore[attr-defined]
    student: Any = arms.distilled("paper", STUDENTS[BEST], 3, "lrp_cosine")
    assert student.settings.options["layers"] == "s32" and student.parents["teacher"] == arms.alone("paper", TEACHER, 3)
    assert arms.distilled("tiny", STUDENTS[BEST], 0, "lrp_cosine").settings.options["layers"] == "s16"  # type: ignore[attr-defined]
    assert "layers" not in arms.distilled("tiny", STUDENTS[BEST], 0, "kd").settings.options  # type: ignore[attr-defined]


# --- what a cell shows ------------------------------------------------------------------------------------


def test_a_class_report_reads_one_number():
    counts = [[8, 2, 0, 0], [1, 9, 0, 0], [0, 0, 10, 0], [0, 0, 5, 5]]
    metrics = {"followed": {"50": {"confusion": counts}}}
    cell = {"epochs": 50, "class": "pituitary", "measure": "recall"}
    assert class_report(cell, metrics) == {"class_report": 0.5}
    of_glioma = class_report({**cell, "measure": "precision", "class": "glioma"}, metrics)
    assert of_glioma == {"class_report": pytest.approx(8 / 9)}
    assert class_report({**cell, "epochs": 30}, metrics) == {}


def test_a_score_is_the_mean_over_draws():
    metrics = {"scores": {"thesis": {BEST: [1.0, 2.0]}, "official": {BEST: [9.0]}}}
    assert mean_score({"student": BEST}, metrics) == {"score": 1.5}
    assert mean_score({"student": "w035-d11-dsc"}, metrics) == {}


def test_sizes_are_compared_as_they_are_printed():
    cost = arms.cost("paper", TEACHER)
    metrics = get_recipe("network_cost").run(cost.settings, Context("cpu", "fp32", None)).metrics
    shown = whole_megabytes({}, metrics)
    assert shown["whole_megabytes"] == tables["table3_6_size"].printed.cells[0].value == 73
    assert shown["megabytes"] == pytest.approx(73.391888)


def test_a_printed_total_gets_no_verdict():
    """Figure 3.6 appears to plot totals; ours is the cross-entropy, which is the total of training alone."""
    table = tables["fig3_6_loss"]
    assert {(c.keys["method"], c.keys.get("loss")) for c in table.printed.cells} == {
        ("baseline", None), ("kd", "total"), ("gradcam_l2", "total"),
    }  # fmt: skip
    made = []
    for cell, seed, trial in table.entries("paper", 3):
        metrics = {"followed": {str(cell.get("epochs")): {"cross_entropy": 0.41}}}
        made.append(Entry(cell, seed, trial, recorded(trial, metrics, variant="official"), view=table.view))
    rows = compare(table, Results(table, "paper", made)).rows
    verdicts = {(row.keys["method"], row.keys.get("loss")): row.verdict for row in rows if row.keys.get("epochs") == 10}
    assert verdicts.pop(("baseline", None)) == REPRODUCED
    assert verdicts == {
        ("kd", "total"): NOT_RUN, ("gradcam_l2", "total"): NOT_RUN, ("kd", None): OURS, ("gradcam_l2", None): OURS,
    }  # fmt: skip


def test_the_scores_column_says_at_which_size_each_scale_scores():
    (note,) = tables["table3_3_score"].notes
    assert "tiny 64 px, 2 x 2; small 128 px, 4 x 4; paper 224 px, 7 x 7" in note


# --- claims -----------------------------------------------------------------------------------------------


def space(scores: dict[str, float], accuracies: dict[str, float]) -> Fake:
    values = {(name, "gradcam_l2", 15, "last"): value for name, value in accuracies.items()}
    return Fake(values, scores)


@pytest.mark.parametrize(("sign", "wanted"), [(-1, SUPPORTED), (1, CONTRADICTED)])
def test_a_score_that_ranks_the_space(sign, wanted):
    accuracies = {name: 80.0 + i for i, name in enumerate(STUDENTS)}
    scores = {name: sign * value for name, value in accuracies.items()}
    results = space(scores, accuracies)
    assert verdict("table3_3", "b", results) == wanted
    assert verdict("table3_3", "c", results) == wanted  # the selected student is the best, or 15 points below
    # The first students are the widest ones, so that size ranks these accuracies the wrong way round.
    assert verdict("table3_3", "f", results) == CONTRADICTED
    # So does the reversed score: which of two wrong predictors is worse, sixteen students do not tell.
    assert verdict("table3_3", "e", results) == (SUPPORTED if sign < 0 else UNDETERMINED)


def test_size_ranks_accuracies_that_follow_it():
    results = space({}, {name: value / 1e6 for name, value in parameters().items()})
    assert verdict("table3_3", "f", results) == SUPPORTED
    assert verdict("table3_3", "b", results) == NOT_RUN  # no scores
    results.scores = dict(parameters())  # the larger the better, so that the score is wrong throughout
    assert verdict("table3_3", "e", results) == CONTRADICTED


def test_one_missing_student_leaves_the_rank_open():
    accuracies = {name: 80.0 + i for i, name in enumerate(STUDENTS) if i}
    scores = {name: float(i) for i, name in enumerate(STUDENTS)}
    for letter in "bef":
        found = decided("table3_3", letter, space(scores, accuracies))
        assert found.verdict == NOT_RUN and found.detail.endswith("15 of 16 cells have run")


def test_small_taus_that_all_seeds_share_are_undetermined():
    """Sixteen students decide the rank: three seeds with a tau of about 0.13 each do not make it significant."""
    names = list(STUDENTS)
    order = [8, 3, 13, 1, 10, 6, 15, 0, 12, 5, 2, 14, 7, 11, 9, 4]  # tau with 0..15 is small
    results = space({name: -float(i) for i, name in enumerate(names)}, {n: 80.0 + k for n, k in zip(names, order)})
    tau = kendalltau(range(16), order)
    assert 0 < tau.statistic < 0.2 and tau.pvalue > 0.05
    found = decided("table3_3", "b", results)
    assert found.verdict == UNDETERMINED
    assert found.detail.endswith(f"tau {tau.statistic:+.2f}, p = {tau.pvalue:.2g}, 16 students, 3 training seeds each")


def test_one_training_seed_decides_a_rank_and_the_detail_says_so():
    accuracies = {name: 80.0 + i for i, name in enumerate(STUDENTS)}
    results = space({name: -value for name, value in accuracies.items()}, accuracies)
    results.seeds = 1
    for letter in "be":
        found = decided("table3_3", letter, results)
        assert found.verdict == SUPPORTED and found.detail.endswith("16 students, 1 training seed each")
    assert verdict("table3_3", "a", results) == UNDETERMINED, "differences still need three seeds"


def test_a_difference_of_taus_that_hangs_on_few_students_is_undetermined():
    sizes = parameters()
    names = sorted(sizes, key=sizes.__getitem__)
    swapped = {**{name: float(i) for i, name in enumerate(names)}, names[0]: 1.0, names[1]: 0.0}
    results = space({name: -value for name, value in swapped.items()}, {n: 80.0 + i for i, n in enumerate(names)})
    found = decided("table3_3", "e", results)
    assert found.verdict == UNDETERMINED and "-0.02, 95 % " in found.detail


def falling(*falls: float) -> Fake:
    """Grad-CAM + L2 and LRP + L2 lose so many points between 15 and 30 epochs, one number per seed."""

    class Falling(Fake):
        def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
            return {s: 90.0 - (fall if cell["epochs"] == 30 else 0.0) for s, fall in enumerate(falls)}

    return Falling({})


def test_a_collapse_is_counted_in_seeds():
    found = decided("table3_5", "a", falling(6.0, 20.0, 47.0))
    assert found.verdict == SUPPORTED and found.detail.endswith("in 3 of 3 seeds")
    assert verdict("table3_5", "a", falling(6.0, 0.0, 47.0)) == SUPPORTED
    assert verdict("table3_5", "a", falling(4.0, 0.0, 47.0)) == CONTRADICTED
    assert verdict("table3_5", "b", falling(4.0, 0.0, 47.0)) == SUPPORTED
    assert verdict("table3_5", "b", falling(6.0, 20.0, 0.0)) == CONTRADICTED
    assert verdict("table3_5", "a", falling(47.0, 47.0)) == UNDETERMINED, "two seeds are too few"
    assert verdict("table3_5", "a", falling()) == NOT_RUN


def test_a_lead_in_every_seed_is_counted_in_seeds():
    class Led(Fake):
        def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
            return dict(enumerate(leads if cell["method"] == "gradcam_l2" else [0.0] * len(leads)))

    leads = [1.1, 9.0, 30.0]
    assert verdict("table3_4", "a", Led({})) == SUPPORTED
    leads = [0.9, 9.0, 9.0]
    assert verdict("table3_4", "a", Led({})) == CONTRADICTED
    leads = [9.0, 9.0]
    assert verdict("table3_4", "a", Led({})) == UNDETERMINED


def test_every_seed_brings_its_series_of_draws():
    found = [(seed, trial) for cell, seed, trial in entries("table3_3", "tiny", 3) if cell.get("method") == "score"]
    pairs = [(arms.scores("tiny", seed), arms.scores_trained("tiny", seed)) for seed in range(3)]
    assert found == [(seed, trial) for seed, pair in enumerate(pairs) for trial in pair]
    for plain, trained in pairs:
        assert {name: trained.config[name] for name in plain.config} == plain.config
        taught = {e.parents["teacher"] for c, _, e in entries("table3_3", "tiny", 3) if "teacher" in e.parents}
        assert trained.parents["teacher"] in taught, "the teacher that the students have, too"


def test_a_seed_that_some_students_lack_moves_no_mean():
    class Uneven(Fake):
        def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
            found = super().samples(metric, **cell)
            return {**found, 1: 99.0, 2: 99.0} if found and cell["student"] == "w035-d11-dsc" else found

    values = {(name, "gradcam_l2", 6, "last"): value / 1e6 for name, value in parameters().items()}
    even, uneven = (made(values, scale="tiny", seeds=1) for made in (Fake, Uneven))
    assert claims.accuracies(uneven) == claims.accuracies(even)
    assert decided("table3_3", "f", uneven).detail == decided("table3_3", "f", even).detail
    only = Uneven({("w035-d11-dsc", "gradcam_l2", 6, "last"): 70.0}, scale="tiny", seeds=1)
    assert claims.accuracies(only) == {"w035-d11-dsc": {0: 70.0, 1: 99.0, 2: 99.0}}


def test_the_printed_triple():
    best, middle, bad = ROLES.values()
    results = space({}, {best: 90.92, middle: 86.19, bad: 84.52})
    assert verdict("table3_3", "a", results) == SUPPORTED
    assert verdict("table3_3", "a", space({}, {best: 84.0, middle: 86.19, bad: 84.52})) == CONTRADICTED


def printed_35() -> dict[tuple, float]:
    return {
        (BEST, cell.keys["method"], cell.keys["epochs"], "last"): cell.value
        for cell in tables["table3_5"].printed.numbers
    }


def test_table_3_5_as_printed_supports_what_it_can():
    values = printed_35()
    found = {letter: verdict("table3_5", letter, Fake(values)) for letter in "abcdefghij"}
    # LRP + L2 is printed at 30 epochs only, so that nothing tells whether it fell since 15.
    assert found == {
        "a": SUPPORTED, "b": NOT_RUN, "c": SUPPORTED, "d": SUPPORTED, "e": SUPPORTED, "f": NOT_RUN, "g": NOT_RUN,
        "h": NOT_RUN, "i": SUPPORTED, "j": NOT_RUN,
    }  # fmt: skip
    values[BEST, "propagated_cosine", 30, "last"] = values[BEST, "lrp_cosine", 30, "last"] + 0.1
    assert verdict("table3_5", "j", Fake(values)) == SUPPORTED
    values[BEST, "propagated_cosine", 30, "last"] += 1
    assert verdict("table3_5", "j", Fake(values)) == CONTRADICTED
    values[BEST, "gradcam_l2", 30, "last"] = 91.0
    assert verdict("table3_5", "a", Fake(values)) == CONTRADICTED


def test_equal_maps_need_both_distances():
    values = {(BEST, method, 30, "last"): 90.0 for method in ("lrp_gram", "gradcam_l2", "lrp_cosine")}
    assert verdict("table3_5", "f", Fake(values)) == UNDETERMINED
    values[BEST, "gradcam_cosine", 30, "last"] = 90.1
    assert verdict("table3_5", "f", Fake(values)) == SUPPORTED
    values[BEST, "gradcam_cosine", 30, "last"] = 91.0
    assert verdict("table3_5", "f", Fake(values)) == CONTRADICTED


def test_table_3_4_as_printed():
    values: dict[tuple, float] = {}
    for name, metric in (("table3_4", "last"), ("table3_4_train", "train")):
        for cell in tables[name].printed.numbers:
            values[BEST, cell.keys["method"], 10, metric] = 100 * cell.value
    for cell in tables["fig3_7"].printed.numbers:
        values[BEST, cell.keys["method"], cell.keys["epochs"], "train"] = cell.value
    assert [verdict("table3_4", letter, Fake(values)) for letter in "abcde"] == [SUPPORTED] * 5
    assert verdict("table3_4", "f", Fake(values)) == NOT_RUN


def test_tiny_reads_its_own_lengths():
    values = {(BEST, "gradcam_l2", 10, "last"): 80.0, (BEST, "kd", 10, "last"): 70.0}
    assert verdict("table3_4", "a", Fake(values, scale="tiny")) == SUPPORTED
    ranked = {(name, "gradcam_l2", 6, "last"): value / 1e6 for name, value in parameters().items()}
    assert verdict("table3_3", "f", Fake(ranked, scale="tiny")) == SUPPORTED
    assert verdict("table3_5", "e", Fake(printed_35(), scale="small")) == SUPPORTED


def test_the_nearest_neighbour_is_a_bar_for_every_seed():
    values = {
        (TEACHER.name, "baseline", 50, "last"): 98.0,
        (BEST, "lrp_cosine", 50, "last"): 95.0,
        ("nearest_neighbour", None, None, "last"): 97.71,
    }

    class One(Fake):
        def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
            found = super().samples(metric, **cell)
            return {0: found[0]} if cell.get("model") == "nearest_neighbour" else found

    made = claims.beats_nearest_neighbour()(One(values))
    assert [round(comparison.samples[0], 2) for comparison in made] == [0.29, -2.71]  # type: ignore[index]
    assert verdict("table3_6", "d", One(values)) == CONTRADICTED


def test_recalls_of_the_printed_report_are_lowest_for_glioma_and_meningioma():
    values = {
        (cell.keys["model"], cell.keys["method"], 50, cell.keys["class"]): cell.value
        for cell in tables["table3_7"].printed.numbers
        if cell.keys["measure"] == "recall"
    }
    assert verdict("table3_7", "b", Fake(values)) == SUPPORTED
    values[BEST, "lrp_cosine", 50, "notumor"] = 0.5
    assert verdict("table3_7", "b", Fake(values)) == CONTRADICTED
