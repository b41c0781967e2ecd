"""The page of table 3.3: scores, bounds, selections, correlations and searches are the numbers they say they are."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from made_records import recorded
from scipy.stats import kendalltau
from shown import cells_of, rows_by_name

from efflib.data import render_phantom
from efflib.papers.diswot import ranking
from efflib.papers.diswot.costs import cost
from efflib.papers.diswot.ranks import critical_tau
from efflib.papers.diswot.rivals import random_order
from efflib.papers.diswot.scores import bound, score_space
from efflib.papers.diswot.space import STUDENTS, TEACHER, build
from efflib.papers.diswot.tables import tables
from efflib.report.notebook import ChanceLevel
from efflib.report.tables import compare
from efflib.trials import Entry, Results

mpl.use("agg")

Metrics = dict[str, Any]
NAMES = list(STUDENTS)
DRAWS = 4


def results_of(metrics: Callable[[dict, int, Any], Metrics | None], scale: str = "tiny", seeds: int = 2) -> Results:
    """Results of table 3.3 with `metrics(cell, seed, trial)` in each cell; None leaves it without a record."""
    table, entries = tables["table3_3"], []
    for cell, seed, trial in table.entries(scale, seeds):
        found = metrics(cell, seed, trial)
        entries.append(Entry(cell, seed, trial, None if found is None else recorded(trial, found), view=table.view))
    return Results(table, scale, entries)


def score_of(name: str, draw: int, seed: int = 0) -> float:
    """The smaller, the higher; one draw prefers another student. The second series scores all 1 higher."""
    return seed + 1.0 + 0.01 * NAMES.index(name) + (0.5 if draw == 3 and name == NAMES[0] else 0.0)


def accuracy_of(name: str, seed: int) -> float:
    """The first is the best but one; all others fall with their place."""
    place = {0: 1, 1: 0}.get(NAMES.index(name), NAMES.index(name))
    return 95.0 - place - 0.1 * seed


def measured(cell: dict, seed: int, trial: Any) -> Metrics:
    if cell.get("method") == "score":
        students = trial.config["students"]
        by_student = {name: [score_of(name, draw, seed) for draw in range(DRAWS)] for name in students}
        known = [name for name in ranking.NAMES if name.endswith("_trained") == ("teacher" in cell)]
        found = {
            "scores": dict.fromkeys(known, by_student),
            "bounds": {name: bound(name.removesuffix("_trained")) for name in known},
        }
        if "teacher" in cell:
            return found
        return found | {
            "nwot": {name: float(cost(name).parameters) for name in students},
        }
    if cell["student"] == "nearest_neighbour":
        return {"last": 97.71, "leak_free": 96.45}
    last = accuracy_of(cell["student"], seed)
    return {"followed": {str(cell["epochs"]): {"last": last, "leak_free": last - 10, "train": last + 2}}}


def drawn(name: str) -> list[float]:
    """A student's score in the draws of both series."""
    return [score_of(name, draw, seed) for seed in range(2) for draw in range(DRAWS)]


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(measured)


# --- scores and their bounds ------------------------------------------------------------------------------


def test_scores_are_means_and_deviations_over_draws_beside_the_printed(results) -> None:
    rows = rows_by_name(ranking.scores_table(results))
    assert list(rows) == [*NAMES, "largest possible"]
    values = drawn(NAMES[0])
    assert rows[NAMES[0]]["thesis (Grad-CAM, L2)"] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert rows[NAMES[1]]["official code"] == f"1.510 ± {np.std(drawn(NAMES[1]), ddof=1):.3f}"
    assert "8 draws (2 series; 2 with a trained teacher, too)" in ranking.scores_table(results).data
    alone = results_of(lambda cell, seed, trial: None if "teacher" in cell else measured(cell, seed, trial))
    assert "8 draws (2 series)" in ranking.scores_table(alone).data
    assert {name: row["printed"] for name, row in rows.items() if row["printed"]} == {
        "w100-d17-gap": "1.35", "w035-d17-gap": "138.84", "w035-d17-dsc": "176.12",
    }  # fmt: skip
    assert rows["largest possible"]["thesis (Grad-CAM, L2)"] == f"{2 * 2**0.5:.2f}"


def test_bounds_tell_which_printed_scores_a_definition_allows(results) -> None:
    rows = rows_by_name(ranking.bounds_table(results))
    assert rows["thesis (Grad-CAM, L2)"]["printed scores that it allows"] == "1.35"
    assert rows["thesis (Grad-CAM, L2)"]["single draws, lowest to highest"] == "1 to 2.5"
    assert rows["thesis, sums of rows"]["largest possible"] == f"{2 * 32 + 2 * 1280:.2f}"
    assert rows["thesis, means of rows"]["largest possible"] == "0.125"
    assert rows["thesis, sums of rows"]["printed scores that it allows"] == "1.35, 138.84, 176.12"
    empty = rows_by_name(ranking.bounds_table(results_of(nothing)))
    assert empty["relation term alone"]["largest possible"] == f"{2**0.5:.2f}", "bounds need no run"


@pytest.mark.parametrize(("scale", "side", "positions"), [("smoke", 64, 2), ("tiny", 64, 2), ("paper", 224, 7)])
def test_captions_tell_the_size_of_images_and_last_map(scale, side, positions) -> None:
    found = results_of(measured, scale, 1)
    for table in (ranking.scores_table, ranking.bounds_table):
        assert f"images of {side} px, last map {positions} x {positions}" in table(found).data
    with torch.no_grad():
        shape = build("w035-d11-gap", side).maps(torch.zeros(2, 1, side, side))["s32"].shape
    assert tuple(shape[2:]) == (positions, positions)


def test_draws_are_held_against_printed_scores_at_the_printed_size_alone(results) -> None:
    column = "printed scores among the draws"
    assert column not in rows_by_name(ranking.bounds_table(results))["thesis (Grad-CAM, L2)"], "64 px"
    rows = rows_by_name(ranking.bounds_table(results_of(measured, "paper")))
    assert rows["thesis (Grad-CAM, L2)"][column] == "1.35" and rows["official code"][column] == "1.35"


def test_sums_fall_with_the_size_of_the_last_map() -> None:
    """Why a sum of small images that is as large as a printed score says nothing about it."""
    drawn: dict[int, dict[str, float]] = {}
    for side in (64, 224):
        found = score_space(
            render_phantom(24, 9, side), ["w035-d11-gap"], scores=("thesis", "relation_only", "relation_sum_rows"),
            batch=8, draws=2,
        )  # fmt: skip
        drawn[side] = {name: by_student["w035-d11-gap"].mean for name, by_student in found.items()}
    assert all(drawn[224][name] < drawn[64][name] for name in drawn[64])
    assert drawn[224]["relation_sum_rows"] < 0.75 * drawn[64]["relation_sum_rows"]


def test_every_network_of_the_space_is_counted_beside_the_printed() -> None:
    rows = rows_by_name(ranking.costs_table())
    assert list(rows) == [TEACHER.name, *NAMES]
    printed = {name: row["printed"] for name, row in rows.items() if row["printed"]}
    assert len(printed) == 3
    assert printed == {name: rows[name]["backbone, with running statistics"] for name in printed}
    best, teacher = rows["w100-d17-gap"], rows[TEACHER.name]
    assert best["network, with running statistics"] == "2,619,332"
    assert best["network, trained parameters"] == "2,585,220"
    assert best["multiply-accumulates, millions"] == "299.9" and best["size, MB"] == "10.48"
    assert teacher["FLOPs as the thesis counts, millions"] == "644.8" and teacher["size, MB"] == "73.39"
    assert best["memory access, millions of elements"] == f"{cost('w100-d17-gap').memory_access / 1e6:.2f}"
    assert rows["w035-d17-dsc"]["row of table 3.3"] == "Bad" and teacher["row of table 3.3"] == "teacher"


# --- selections -------------------------------------------------------------------------------------------


def test_each_draw_of_all_series_selects_its_own_student(results) -> None:
    by_student = ranking.draws(results)["thesis"]
    assert ranking.selected(by_student) == ([NAMES[0]] * 3 + [NAMES[1]]) * 2
    output = ranking.selections_table(results)
    row = rows_by_name(output)["thesis (Grad-CAM, L2)"]
    assert row["selected by single draws (how often)"] == f"{NAMES[0]} (6), {NAMES[1]} (2)"
    assert (row["selected by the mean"], row["its accuracy, % (seeds)"]) == (NAMES[1], "94.95 (2)")
    best = (row["best of the 16 trained"], row["best of the 16 trained, % (seeds)"])
    assert best == (NAMES[1], "94.95 (2)")
    assert "16 of the 16 are trained, with at least 2 seeds" in output.data and "may not be" not in output.data


def test_a_part_of_the_space_is_not_called_all_of_it() -> None:
    def some(cell: dict, seed: int, trial: Any) -> Metrics | None:
        return measured(cell, seed, trial) if cell.get("method") == "score" or cell["student"] in NAMES[4:6] else None

    output = ranking.selections_table(results_of(some, seeds=1))
    row = rows_by_name(output)["thesis (Grad-CAM, L2)"]
    assert row["its accuracy, % (seeds)"] == "not trained" and row["best of the 2 trained"] == NAMES[4]
    assert "2 of the 16 are trained, with at least 1 seed: the best of them may not be the best of 16" in output.data


def test_series_are_compared_by_the_orders_of_their_means() -> None:
    def turned(cell: dict, seed: int, trial: Any) -> Metrics:
        found = measured(cell, seed, trial)
        if seed == 1 and "scores" in found:
            found["scores"] = {k: {n: [-v for v in own] for n, own in by.items()} for k, by in found["scores"].items()}
        return found

    row = rows_by_name(ranking.series_table(results_of(turned)))["thesis (Grad-CAM, L2)"]
    assert row["tau of 0 and 1"] == "-1.00"
    assert (row["series 0 selects"], row["series 1 selects"]) == (NAMES[1], NAMES[-1])
    assert "Fewer than two series" in ranking.series_table(results_of(measured, seeds=1)).data


def test_draws_agree_by_the_mean_tau_of_their_pairs() -> None:
    by_student = {"a": [1.0, 1.0, 3.0], "b": [2.0, 2.0, 2.0], "c": [3.0, 3.0, 1.0]}
    assert ranking.agreement(by_student) == pytest.approx((1 - 1 - 1) / 3)
    assert ranking.agreement({name: values[:1] for name, values in by_student.items()}) is None


# --- correlations -----------------------------------------------------------------------------------------


def test_correlations_are_those_of_means_over_seeds(results) -> None:
    output = ranking.correlations_table(results)
    rows = rows_by_name(output)
    assert list(rows) == [
        *ranking.NAMES.values(), "NWOT", "parameters", "multiply-accumulates", "a random order",
    ]  # fmt: skip
    accuracies = [np.mean([accuracy_of(name, seed) for seed in range(2)]) for name in NAMES]
    scores = [-np.mean(drawn(name)) for name in NAMES]
    wanted = kendalltau(scores, accuracies)
    assert rows["thesis (Grad-CAM, L2)"]["Kendall's tau"] == f"{wanted.statistic:+.3f}"
    assert rows["thesis (Grad-CAM, L2)"]["p"] == f"{wanted.pvalue:.3f}"
    sizes = kendalltau([cost(name).parameters for name in NAMES], accuracies).statistic
    assert rows["parameters"]["Kendall's tau"] == rows["NWOT"]["Kendall's tau"] == f"{sizes:+.3f}"
    order = random_order(0, NAMES)
    chance = kendalltau([order[name] for name in NAMES], accuracies).statistic
    assert rows["a random order"]["Kendall's tau"] == f"{chance:+.3f}"
    assert rows["parameters"]["tau, leak-free images"] == rows["parameters"]["Kendall's tau"]
    assert re.fullmatch(r"[+-][\d.]+ to [+-][\d.]+", rows["parameters"]["tau, 95 % (seeds)"])
    assert f"|tau| must reach {critical_tau(16):.2f} for p below 0.05" in output.data


def test_three_students_of_one_seed_are_shown_and_nothing_is_concluded() -> None:
    output = ranking.correlations_table(results_of(measured, "smoke", 1))
    rows = rows_by_name(output)
    assert "tau, 95 % (seeds)" not in rows["parameters"], "one seed has no interval"
    assert float(rows["thesis (Grad-CAM, L2)"]["Kendall's tau"]) in (-1, -0.333, 0.333, 1)
    assert "No order of 3 students can have p below 0.05" in html.unescape(output.data)


def test_operations_are_counted_at_the_side_of_the_scale(results) -> None:
    assert ranking.predictors(results)["multiply-accumulates"][0] == {n: cost(n, 64).macs for n in NAMES}


def test_a_predictor_without_an_order_says_why() -> None:
    def flat(cell: dict, seed: int, trial: Any) -> Metrics:
        found = measured(cell, seed, trial)
        return found | {"nwot": dict.fromkeys(found["nwot"], float("-inf"))} if "nwot" in found else found

    rows = rows_by_name(ranking.correlations_table(results_of(flat, seeds=1)))
    assert "must be finite numbers" in rows["NWOT"]["why not"] and not rows["NWOT"]["Kendall's tau"]
    assert not rows["parameters"]["why not"]


def test_a_series_with_images_that_a_network_codes_alike_is_left_out() -> None:
    """Records cannot hold -inf: they say null."""

    def alike(cell: dict, seed: int, trial: Any) -> Metrics:
        found = measured(cell, seed, trial)
        if "nwot" in found and seed == 0:
            found["nwot"] = found["nwot"] | {NAMES[0]: None}
        return found

    assert ranking.nwot(results_of(alike, seeds=2)) == ranking.nwot(results_of(measured, seeds=1))
    assert ranking.nwot(results_of(alike, seeds=1))[NAMES[0]] == float("-inf")
    rows = rows_by_name(ranking.correlations_table(results_of(alike, seeds=1)))
    assert "must be finite numbers" in rows["NWOT"]["why not"]


def test_gaps_are_paired_and_the_nearest_neighbour_stands_beside(results) -> None:
    rows = rows_by_name(ranking.gaps_table(results))
    best = rows["w100-d17-gap"]
    assert best["gap"] == "+2.00 ± 0.00 (2)" and best["printed gap"] == f"{92.99 - 90.92:+.2f}"
    assert rows["w035-d17-gap"]["printed gap"] == f"{93.00 - 86.19:+.2f}"
    assert rows["nearest neighbour"]["test"] == "97.71"
    assert rows["nearest neighbour"]["test, leak-free images"] == "96.45"


def test_the_headline_tells_the_taus(results) -> None:
    shown, without = (compare(each.table, each) for each in (results, results_of(nothing, "paper")))
    told = ranking.score_headline(SimpleNamespace(found={"tiny": shown, "paper": without})).data
    accuracies = [np.mean([accuracy_of(name, seed) for seed in range(2)]) for name in NAMES]
    tau = kendalltau([cost(name).parameters for name in NAMES], accuracies).statistic
    assert f"parameters {tau:+.2f} (p = " in told and "(16 students, 2 training seeds each)" in told
    assert ranking.score_headline(SimpleNamespace(found={})) is None


def test_the_headline_of_scores_alone() -> None:
    bare = results_of(lambda cell, seed, trial: measured(cell, seed, trial) if cell.get("method") == "score" else None)
    told = ranking.score_headline(SimpleNamespace(found={"tiny": compare(bare.table, bare)}))
    assert "are scored at scale `tiny`" in told.data and "(2 series; 2 with" in told.data


# --- figure -----------------------------------------------------------------------------------------------


def test_the_figure_is_drawn_for_both_themes_and_spoken(results) -> None:
    from PIL import Image

    output = ranking.scatter_figure(results)
    found = re.findall(r'<img class="only-(\w+)" alt="([^"]+)" src="data:image/png;base64,([^"]+)">', output.data)
    assert [theme for theme, _, _ in found] == ["light", "dark"]
    assert all(np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[..., 3].any() for _, _, data in found)
    alt = html.unescape(found[0][1])
    assert "w100-d17-dsc score 1.51, 2.40 million, 95.0 ± 0.6 (2) %" in alt
    assert "w035-d17-dsc score 176.12, 84.52 %" in alt


# --- search -----------------------------------------------------------------------------------------------


def test_shares_are_those_of_the_searches_themselves() -> None:
    evolved, by_chance, spent = ranking.share_found(random_order, 60, 60)
    assert evolved >= 0.85 and 14.2 < spent < 15.2  # spec, section 2.8
    assert by_chance == pytest.approx(spent / 16, abs=0.12)  # k of 16 distinct members contain the best with k / 16
    assert ranking.share_found(random_order, 24, 60)[0] < evolved


def test_searches_of_flat_and_sloping_scores(results) -> None:
    known = ranking.searched(results)
    assert known == {name: pytest.approx(np.mean(drawn(name))) for name in NAMES}
    rows = cells_of(ranking.search_table(known, seeds=30))
    assert rows[-1] == ["exhaustive", "16", "100%", "16", "100%"]
    assert [row[0] for row in rows[1:3]] == ["evolution, 24 evaluations", "random search, as many members"]
    share, _, spent = ranking.share_found(lambda seed: known, 60, 30)
    row = dict(zip(rows[0], rows[3], strict=True))
    assert (row["finds the lowest, these scores"], row["members scored, these scores"]) == (
        f"{share:.0%}", f"{spent:.1f}",
    )  # fmt: skip
    assert "these scores" not in ranking.search_table({}, seeds=5).data


def test_a_smoke_run_searches_one_draw_of_all_sixteen(monkeypatch) -> None:
    monkeypatch.setattr(ranking, "one_draw", lambda dataset: {"dataset": dataset})
    assert ranking.searched(results_of(measured, "smoke", 1)) == {"dataset": "phantom"}
    assert ranking.searched(results_of(nothing, "tiny", 1)) == {}, "nothing is computed beyond smoke"


# --- the printed triple -----------------------------------------------------------------------------------


def test_the_number_of_parameters_alone_names_the_printed_winner() -> None:
    found = ranking.printed_predictors()
    assert found["score"] == (pytest.approx(1.0), True)
    assert found["parameters"] == (pytest.approx(0.8165, abs=5e-5), True)
    assert found["training accuracy"] == (pytest.approx(1 / 3), False)
    output = ranking.printed_predictors_table()
    assert rows_by_name(output)["parameters"]["tau-b with the printed test accuracy"] == "+0.8165"
    assert "once in 6 times" in output.data


# --- nothing recorded, nothing learned --------------------------------------------------------------------


def nothing(cell: dict, seed: int, trial: Any) -> None:
    return None


def test_without_runs_sentences_take_the_place_of_tables() -> None:
    empty = results_of(nothing)
    for table in (ranking.scores_table, ranking.selections_table, ranking.correlations_table, ranking.gaps_table,
                  ranking.scatter_figure):  # fmt: skip
        assert table(empty).data.startswith("<p>No ") and "scale tiny yet" in table(empty).data


def test_a_teacher_at_chance_level_is_refused(monkeypatch) -> None:
    results = results_of(measured, "smoke", 1)

    def collected(trials: list, scale: str) -> Results:
        assert {trial.recipe for trial in trials} == {"baseline"} and len(trials) == 1
        return Results(trials, scale, [Entry(t.config, 0, t, recorded(t, {"last": reached})) for t in trials])

    monkeypatch.setattr("efflib.trials.collect", collected)
    reached = 60.0
    ranking.refuse_untrained(results)
    reached = 26.0
    with pytest.raises(ChanceLevel, match=r"26\.0 %"):
        ranking.refuse_untrained(results)
