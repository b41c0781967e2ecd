"""The boards of table 3.6: counts, verdicts and differences are the ones they say they are."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import matplotlib as mpl
import pytest
from made_records import recorded
from shown import rows_of

from efflib.papers.diswot import lightweight
from efflib.papers.diswot.arms import BEST
from efflib.papers.diswot.costs import cost
from efflib.papers.diswot.space import TEACHER
from efflib.papers.diswot.tables import tables
from efflib.trials import Entry, Results

mpl.use("agg")


def results_of(metrics: Callable[[dict, int], dict | None], scale: str = "tiny", seeds: int = 2) -> Results:
    """Results of table 3.6's grid with `metrics(cell, seed)` after the last epoch of each cell; None leaves it out."""
    entries = []
    for cell, seed, trial in tables["table3_6"].entries(scale, seeds):
        found = metrics(cell, seed)
        if found is not None and "epochs" in cell:
            found = {"followed": {str(cell["epochs"]): found}}
        record = None if found is None else recorded(trial, found)
        entries.append(Entry(cell, seed, trial, record, view=tables["table3_6"].view))
    return Results(tables["table3_6"], scale, entries)


ACCURACY = {
    (TEACHER.name, "baseline"): 96.0, (BEST.name, "lrp_cosine"): 93.0, (BEST.name, "kd"): 93.5,
    (BEST.name, "baseline"): 92.0,
}  # fmt: skip


def measured(cell: dict, seed: int) -> dict:
    """The teacher gains a point with each seed, the others two, and all lose 5 points on leak-free images."""
    if cell["model"] == "nearest_neighbour":
        return {"last": 97.5, "leak_free": 96.5}
    last = ACCURACY[cell["model"], cell["method"]] + seed * (1 if cell["model"] == TEACHER.name else 2)
    return {"last": last, "leak_free": last - 5}


# --- costs ------------------------------------------------------------------------------------------------


def test_a_printed_number_is_equal_cut_off_or_off_by_a_stated_share() -> None:
    assert lightweight.compared(Decimal(73), Decimal(73)) == "equal"
    assert lightweight.compared(Decimal(73), Decimal("73.999")) == "equal, decimals cut off"
    assert lightweight.compared(Decimal(74), Decimal("73.999")).startswith("not equal (+0.00")
    assert lightweight.compared(Decimal(90), Decimal(100)) == "not equal (-10.00 %)"


def test_the_convention_that_gives_each_printed_cost() -> None:
    rows = lightweight.printed_rows()
    verdicts = {(row["network"], row["counted as"]): row["verdict"] for row in rows}
    assert len(rows) == len(verdicts) == 12
    for network, more_parameters, more_macs in (("teacher", "+0.19", "+2.17"), ("student", "+1.32", "+2.29")):
        for how in ("Keras total", "TensorFlow profiler's count", "half of the profiler's FLOPs"):
            assert verdicts[network, how] == "equal"
        assert verdicts[network, "4 bytes each, Keras total"] == "equal, decimals cut off"
        assert verdicts[network, "trained ones alone"] == f"not equal ({more_parameters} %)"
        assert verdicts[network, "multiply-accumulates"] == f"not equal ({more_macs} %)"
    shown = {row["counted as"]: row["counted"] for row in rows if row["network"] == "student"}
    assert (shown["Keras total"], shown["multiply-accumulates"]) == ("2,619,332", "299,855,232")
    assert rows_of(lightweight.printed_table()) == rows


def test_the_row_of_savings_is_the_share_of_the_two_rows_above() -> None:
    teacher, student, saving = rows_of(lightweight.networks_table())
    for what in ("parameters, Keras total", "profiler's FLOPs", "multiply-accumulates", "memory access, elements"):
        own = [int(row[what].replace(",", "")) for row in (teacher, student)]
        assert float(saving[what]) == pytest.approx(100 * (1 - own[1] / own[0]), abs=0.005)
    assert (saving["parameters, Keras total"], saving["profiler's FLOPs"]) == ("85.72", "4.87")
    assert saving["of them backbone"] == "0.00"
    assert (teacher["size, MB"], student["size, MB"]) == ("73.39", "10.48")


def test_the_difference_of_the_two_networks_is_one_dense_layer() -> None:
    rows = rows_of(lightweight.heads_table())
    apart = {row["part"]: (row["parameters, difference"], row["MACs, difference"]) for row in rows}
    assert apart.pop("dense layer 1") == apart.pop("all") == ("15,728,640", "15,728,640")
    assert set(apart.values()) == {("0", "0")}
    for column in ("parameters, teacher", "MACs, student"):
        *parts, whole = [int(row[column].replace(",", "")) for row in rows]
        assert sum(parts) == whole


def test_the_saving_shrinks_with_the_image() -> None:
    assert lightweight.saved(64, "keras_parameters") == pytest.approx(100 * (1 - 2_619_332 / 3_602_372))
    rows = {row["side, px"]: row for row in rows_of(lightweight.sides_table())}
    assert list(rows) == ["64", "96", "128", "160", "192", "224"]
    assert rows["96"]["parameters"] == "50.02"
    teacher, student = (cost(name, 128).macs for name in (TEACHER.name, BEST.name))
    assert rows["128"]["multiply-accumulates"] == f"{100 * (1 - student / teacher):.2f}"
    figure = lightweight.sides_figure().data
    assert "64 px: parameters 27.3" in figure
    assert "224 px: parameters 85.7" in figure


# --- accuracy ---------------------------------------------------------------------------------------------


def test_every_row_stands_on_both_test_sets_beside_the_nearest_neighbour() -> None:
    rows = {row["row"]: row for row in rows_of(lightweight.accuracy_table(results_of(measured)))}
    assert list(rows) == list(lightweight.ROWS)
    teacher = rows["teacher"]
    assert teacher["printed"] == "98.02"
    assert teacher["all test images"].startswith("96.50 ± ")  # 96 and 97
    assert teacher["leak-free test images"].startswith("91.50 ± ")
    assert teacher["less nearest neighbour, all test images"].startswith("-1.00 ± ")
    assert teacher["less nearest neighbour, leak-free test images"].startswith("-5.00 ± ")
    assert [rows[name]["printed"] for name in ("student, LRP + cosine", "student, KD")] == ["95.35", ""]
    assert rows["nearest neighbour"]["all test images"] == "97.50 (1)"
    assert rows["nearest neighbour"]["less nearest neighbour, all test images"] == ""


def test_differences_are_paired_by_seed() -> None:
    found = results_of(lambda cell, seed: None if (cell.get("method"), seed) == ("kd", 1) else measured(cell, seed))
    rows = {row["difference"]: row for row in rows_of(lightweight.differences_table(found))}
    # The teacher is 3 and 2 points ahead; the students' differences are the same in both seeds.
    assert rows["teacher less student, LRP + cosine"]["all test images"] == "+2.50 ± 6.35 (2)"
    assert rows["student, LRP + cosine less student alone"]["leak-free test images"] == "+1.00 ± 0.00 (2)"
    assert rows["student, KD less student alone"]["all test images"] == "+1.50 (1)"


def test_what_is_not_recorded_is_said() -> None:
    nothing = results_of(lambda cell, seed: None)
    assert "No accuracy is recorded at scale tiny yet" in lightweight.accuracy_table(nothing).data
    assert "No two rows have a seed in common" in lightweight.differences_table(nothing).data
