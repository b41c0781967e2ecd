"""The boards of tables 3.7 and 3.8: implied counts, measured reports, intervals and quoted rows."""

from __future__ import annotations

import html
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from made_records import recorded
from shown import rows_of

from efflib.papers.diswot import class_reports
from efflib.papers.diswot.arms import BEST, NETWORKS, SIZES
from efflib.papers.diswot.audit import load, report_counts
from efflib.papers.diswot.claims import CLASSES
from efflib.papers.diswot.tables import MEASURES, tables
from efflib.trials import Entry, Results

mpl.use("agg")


def results_of(name: str, metrics: Callable[[dict, int], dict | None], scale: str = "tiny", seeds: int = 2) -> Results:
    """Results of a table's grid with `metrics(cell, seed)` after the last epoch of each run; None leaves it out."""
    table, entries, kept = tables[name], [], {}
    for cell, seed, trial in table.entries(scale, seeds):
        if trial.identity not in kept:
            found = metrics(cell, seed)
            if found is not None and "epochs" in cell:
                found = {"followed": {str(cell["epochs"]): found}}
            kept[trial.identity] = None if found is None else recorded(trial, found)
        entries.append(Entry(cell, seed, trial, kept[trial.identity], view=table.view))
    return Results(table, scale, entries)


TEACHER_COUNTS = np.array([[90, 10, 0, 0], [5, 85, 10, 0], [0, 0, 100, 0], [0, 2, 0, 98]])
CLEAN = np.array([[80, 10, 0, 0], [5, 45, 10, 0], [0, 0, 20, 0], [0, 2, 0, 97]])


def measured(cell: dict, seed: int) -> dict:
    """Each seed takes one more glioma for a meningioma; the student confuses its first two classes completely."""
    if cell["model"] == "nearest_neighbour":
        return {"last": 97.5, "leak_free": 96.5}
    counts, clean = TEACHER_COUNTS.copy(), CLEAN.copy()
    counts[0] += (-seed, seed, 0, 0)
    if cell["model"] == BEST.name:
        counts[:2], clean[:2] = counts[[1, 0]], clean[[1, 0]]
    last, leak_free = (100 * m.trace() / m.sum() for m in (counts, clean))
    found = {"confusion": counts.tolist(), "leak_free_confusion": clean.tolist()}
    return {**found, "last": last, "leak_free": leak_free}


# --- what the printed recalls imply -----------------------------------------------------------------------


def test_the_printed_recalls_fit_the_other_networks_accuracy() -> None:
    for role, ends in {"teacher": (1244, 1253), "student": (1282, 1289)}.items():
        found = report_counts(load(), NETWORKS[role]).values()
        assert (sum(own[0] for own in found), sum(own[-1] for own in found)) == ends
    assert [class_reports.correct_by_accuracy(role) for role in ("teacher", "student")] == [1285, 1250]
    rows = {row["class"]: row for row in rows_of(class_reports.implied_table())}
    own, other = "correct by the teacher's report", "correct by the student's report"
    assert (rows["glioma"][own], rows["glioma"]["test images"]) == ("272 to 274", "300")
    assert rows["pituitary"][other] == "299 to 300"  # 1.00 cannot mean more than all
    assert (rows["all"][own], rows["all"][other]) == ("1,244 to 1,253", "1,282 to 1,289")
    assert rows["accuracy, %"][own] == "94.9 to 95.6"
    for row, fits in (("table 3.6, teacher: 1,285 correct", other), ("table 3.6, student: 1,250 correct", own)):
        assert {name: rows[row][name] for name in (own, other)} == {
            name: "inside" if name == fits else "outside" for name in (own, other)
        }


# --- measured reports -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table3_6", "table3_7"])
def test_matrices_are_summed_over_seeds_and_no_run_counts_twice(name: str) -> None:
    found = results_of(name, measured)
    counts, seeds = class_reports.counted(found, "teacher", "baseline")
    assert seeds == 2
    np.testing.assert_array_equal(counts[0], [179, 21, 0, 0])
    np.testing.assert_array_equal(counts[1:], 2 * TEACHER_COUNTS[1:])
    clean, _ = class_reports.counted(found, "best", "lrp_cosine", "leak_free_confusion")
    np.testing.assert_array_equal(clean, 2 * CLEAN[[1, 0, 2, 3]])


def test_a_report_is_scikit_learns() -> None:
    from sklearn.metrics import classification_report

    true, predicted = (np.repeat(each.ravel(), TEACHER_COUNTS.ravel()) for each in np.indices((4, 4)))
    wanted: Any = classification_report(true, predicted, target_names=CLASSES, output_dict=True)
    rows = {row["class"]: row for row in class_reports.report_rows(TEACHER_COUNTS)}
    for row, theirs in [(name, name) for name in CLASSES] + [("macro average", "macro avg")]:
        for measure in MEASURES:
            assert rows[row][measure] == pytest.approx(wanted[theirs][{"f1": "f1-score"}.get(measure, measure)])
        assert rows[row]["images"] == wanted[theirs]["support"]
    assert rows["accuracy"]["recall"] == pytest.approx(wanted["accuracy"])


def test_the_reports_stand_beside_the_printed_ones_under_their_printed_label() -> None:
    found = results_of("table3_7", measured)
    rows = {(row["network"], row["class"]): row for row in rows_of(class_reports.reports_table(found))}
    glioma = rows["teacher", "glioma"]
    assert (glioma["recall"], glioma["recall, printed"], glioma["images"], glioma["seeds"]) == (
        "0.895",
        "0.91",
        "100",
        "2",
    )
    assert rows["teacher", "glioma"]["precision"] == f"{179 / 189:.3f}"
    assert rows["student", "glioma"]["recall"] == f"{5 / 100:.3f}"
    assert rows["student", "glioma"]["precision, printed"] == "0.97"
    assert rows["teacher", "accuracy"] | {"precision": "", "f1": ""} == rows["teacher", "accuracy"]
    assert rows["teacher", "accuracy"]["recall"] == f"{(179 + 170 + 200 + 196) / 800:.3f}"
    clean = rows_of(class_reports.reports_table(found, "leak_free_confusion"))
    assert {row["class"]: row["images"] for row in clean if row["network"] == "teacher"}["notumor"] == "20"


def test_the_figure_says_its_counts() -> None:
    figure = html.unescape(class_reports.confusion_figure(results_of("table3_6", measured)).data)
    assert "teacher, all test images: true glioma: 179, 21, 0, 0" in figure
    assert "student, leak-free test images: true glioma: 10, 90, 20, 0" in figure
    assert figure.count("<img") == 2


def test_what_is_not_recorded_is_said() -> None:
    nothing = results_of("table3_7", lambda cell, seed: None)
    assert class_reports.counted(nothing, "teacher", "baseline")[1] == 0
    assert "No report is recorded at scale tiny yet" in class_reports.reports_table(nothing).data
    assert "No confusion matrix is recorded" in class_reports.confusion_figure(nothing).data


# --- beside other methods ---------------------------------------------------------------------------------


def test_intervals_and_differences_of_the_printed_accuracies() -> None:
    student, teacher, neighbour = class_reports.wilson_rows()
    assert (student["correct"], teacher["correct"], neighbour["correct"]) == (1250, 1285, 1281)
    assert (round(student["low"], 1), round(student["high"], 1)) == (94.1, 96.4)
    z, n, p = 1.959964, 1311, 1250 / 1311  # Wilson's formula, written out
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    ends = [100 * (middle + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert [student["low"], student["high"]] == pytest.approx(ends, abs=1e-4)
    assert class_reports.images_of(Decimal("0.05"), 1311) == Decimal("0.6555")
    assert {row["against"]: (row["points"], row["images of 1,311"]) for row in class_reports.difference_rows()} == {
        "Iqbal et al. [77]": ("-0.75", "-9.83"),
        "Elazab et al. [78]": ("+0.05", "+0.66"),
    }


def test_both_peers_lie_in_the_students_interval_and_below_the_nearest_neighbours() -> None:
    student, _, neighbour = rows_of(class_reports.wilson_table())
    assert [student[name] for name in list(student)[4:]] == ["inside", "inside"]
    assert [neighbour[name] for name in list(neighbour)[4:]] == ["outside", "outside"]
    assert neighbour["95 % interval (Wilson)"] == "96.8 to 98.4"
    figure = class_reports.intervals_figure().data
    assert "student, as printed 95.35 (94.1 to 96.4)" in figure
    assert "Elazab et al. [78] 95.3, quoted" in figure


def test_the_parameters_that_are_compared_and_those_of_the_network() -> None:
    rows = rows_of(class_reports.parameters_table())
    assert [row["parameters"] for row in rows] == ["2,257,984", "2,619,332", "2,585,220"]
    assert [row["less than the 3.2M quoted, %"] for row in rows] == ["29.4", "18.1", "19.2"]


@pytest.mark.parametrize("scale", ["tiny", "smoke"])
def test_measured_rows_follow_the_quoted_ones(scale: str) -> None:
    found = results_of("table3_8", measured_at(scale), scale)
    shown = SimpleNamespace(results=found)
    recorded_scales = {} if scale == "smoke" else {scale: shown}
    page: Any = SimpleNamespace(scale=scale, recorded=recorded_scales, show_scale=lambda: shown)
    rows = rows_of(class_reports.others_table(page))
    assert [row["whose"] for row in rows] == ["quoted", "quoted", "printed"] + 4 * ["measured"]
    assert [row["accuracy, %"] for row in rows[:3]] == ["96.1", "95.3", "95.35"]
    ours = rows[3]
    assert ours["work"] == f"this book, scale {scale}"
    assert ours["student"] == SIZES[scale].best.name
    assert ours["accuracy, %"].startswith("91.00")
    assert rows[-1] | {"accuracy, %": "97.50 (1)", "leak-free, %": "96.50 (1)", "parameters": "none"} == rows[-1]


def measured_at(scale: str) -> Callable[[dict, int], dict]:
    def metrics(cell: dict, seed: int) -> dict:
        if cell["model"] == "nearest_neighbour":
            return {"last": 97.5, "leak_free": 96.5}
        return {"last": 90.5 + seed, "leak_free": 85.0}

    return metrics
