"""Findings 10 to 13, training runs: Tables 3.4 and 3.5, compared losses, validation on the test set."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from efflib.papers.diswot.audit.counting import floats, percent_counts, points
from efflib.papers.diswot.audit.evidence import METHODS, TEXT, Printed, equations_as_printed, words
from efflib.papers.diswot.space import TEACHER
from efflib.report.audit import Finding, exact, half_up


def _model_rows(printed: Printed) -> tuple[dict[str, Any], ...]:
    """Every cell of Table 3.5."""
    trains, n = printed.tables["table3_5_train"], printed.test_images
    return tuple(
        {
            "model": cell.printed["model"],
            "epochs": cell.keys["epochs"],
            "test, %": exact(cell.value),
            "correct images": next(iter(percent_counts(exact(cell.value), n)), f"no multiple of 1/{n}"),
            "train, %": exact(trains.cell(**cell.keys).value),
        }
        for cell in printed.tables["table3_5"].cells
    )


def _fall(printed: Printed, table: str) -> Decimal:
    """What Grad-CAM + L2 loses between 15 and 30 epochs."""
    early, late = (printed.value(table, method="gradcam_l2", epochs=epochs) for epochs in (15, 30))
    return early - late


def _missing_combinations(printed: Printed) -> list[str]:
    """Combinations of a map and a distance that Table 3.5 does not have."""
    known = {cell.keys["method"] for cell in printed.tables["table3_5"].cells}
    return [what for name, what in METHODS.items() if " + " in what and name not in known]


def models(printed: Printed) -> Finding:
    trains, n = printed.tables["table3_5_train"], printed.test_images
    rows, missing = _model_rows(printed), _missing_combinations(printed)
    fall = {"test": _fall(printed, "table3_5"), "train": _fall(printed, "table3_5_train")}
    low = printed.value("table3_5", method="gradcam_l2", epochs=30)
    nearest = [math.floor(low * n / 100), math.ceil(low * n / 100)]
    shown = [half_up(Decimal(100 * k) / n) for k in nearest]
    early, late = (trains.cell(method="lrp_cosine", epochs=epochs).value for epochs in (30, 50))
    equal, runs = early == late, len(rows)
    text = (
        f"{runs} runs, one of each, without seeds. Model 2 is called overfitted, but its training accuracy falls as "
        f"well, by {fall['train']} points (test {fall['test']}): that is a failure to optimise. Its {low} % is the one "
        f"accuracy that is not a whole number of {n:,} images ({nearest[0]} give {shown[0]}, {nearest[1]} give "
        f"{shown[1]}). Models 4 and 5 {'print the same' if equal else 'print different'} training accuracy at 30 and "
        f"50 epochs ({late:.2f}). The improvement from Model 1 to Model 3 "
        "changes the map and doubles the epochs; at equal epochs the only comparison of maps is with the collapsed "
        f"run. Of the four combinations of map and distance {len(missing)} is missing ({', '.join(missing)}), so that "
        "the two factors cannot be told apart."
    )
    numbers = floats({"runs": runs, "fall_test": fall["test"], "fall_train": fall["train"], "missing": len(missing)})
    numbers |= {"low_is_multiple": bool(percent_counts(low, n)), "nearest": nearest[0], "equal_train": equal}
    numbers |= {"nearest_percent": float(shown[0])}
    title = "Table 3.5 changes two things at a time, in single runs"
    quotes = words("overfitting", "modest")
    sources, tables = printed.sources("kaggle_split"), ("table3_5", "table2_2")
    return Finding("diswot-10", title, text, "statistics", "major", tables, rows, numbers, quotes, sources)


def kd(printed: Printed) -> Finding:
    methods = ("baseline", "kd", "gradcam_l2")
    rows = tuple(
        {
            "method": METHODS[method],
            "train, epoch 1, %": printed.value("fig3_7", method=method, epochs=1),
            "train, epoch 10, %": printed.value("fig3_7", method=method, epochs=10),
            "validation, epoch 10, %": points(printed, "table3_4", method),
        }
        for method in methods
    )
    gains = {
        what: points(printed, table, "kd") - points(printed, table, "baseline")
        for what, table in (("validation", "table3_4"), ("train", "table3_4_train"))
    }
    ahead = printed.value("fig3_7", method="gradcam_l2", epochs=1) - max(
        printed.value("fig3_7", method=method, epochs=1) for method in ("baseline", "kd")
    )
    (student,) = (cell for cell in printed.tables["table3_2"].cells if cell.keys["role"] == "student")
    listed = [int(number) for number in re.findall(r"\d+", student.printed["epochs"])]
    (epochs,) = map(int, TEXT["ten_epochs"].numbers)
    text = (
        f'Table 3.4 remarks "{TEXT["decrease"].words}" for standard KD, whose numbers are higher than the baseline\'s: '
        f"by {gains['validation']:.2f} points in validation and {gains['train']:.2f} in training accuracy; the text "
        f"calls it a marginal improvement. DisWOT+ starts at {printed.value('fig3_7', method='gradcam_l2', epochs=1)} "
        f"% training accuracy after the first epoch, {ahead} points above the better of the others. With the same "
        "initial student and the same data one epoch would not be expected to make that difference: a warm start "
        f"appears likely, and the thesis describes none. Table 3.2 lists {', '.join(map(str, listed))} epochs, Table "
        f"3.4 uses {epochs}."
    )
    numbers = {f"kd_{what}": float(value) for what, value in gains.items()} | {"ahead": float(ahead)}
    numbers |= {"epochs": epochs, "listed": epochs in listed}
    title = "Table 3.4: a remark against its numbers, and a start ten points ahead"
    tables, quotes = ("table3_4", "table3_2", "fig3_7"), words("decrease", "marginal", "start", "ten_epochs")
    return Finding("diswot-11", title, text, "text", "notable", tables, rows, numbers, quotes)


def totals(printed: Printed) -> Finding:
    table = printed.tables["fig3_6_loss"]
    ce = exact(table.cell(method="baseline").value)
    low, high = (exact(table.cell(method="gradcam_l2", bound=end).value) for end in ("low", "high"))
    shares = (Decimal("0.25"), high / ce)
    rows = tuple(
        {
            "weight of the cross-entropy": half_up(share),
            "largest cross-entropy in a total of " + str(high): half_up(high / share),
        }
        for share in shares
    )
    text = (
        f"Validation losses of {low} to {high} (DisWOT+) and {ce} (cross-entropy alone, KD) are compared as if they "
        "were the same quantity. By equation 2.15 the weights of the four terms of DisWOT+ sum to 1, so that its total "
        f"is smaller for equal cross-entropy: with equal weights a total of {high} allows a cross-entropy of up to "
        f"{high / shares[0]:.2f}, and any weight below {shares[1]:.2f} allows one as large as the {ce} of the others. "
        "The thesis gives no weights. We plot the cross-entropy of all three."
    )
    numbers = floats({"ce": ce, "low": low, "high": high, "at_equal_weights": high / shares[0], "share": shares[1]})
    title = "Totals of different losses are compared"
    quotes = (*words("losses", "total_loss"), *equations_as_printed("2.15"))
    tables = ("fig3_6", "table3_4")
    return Finding("diswot-12", title, text, "statistics", "notable", tables, rows, numbers, quotes)


def contradictions(printed: Printed) -> Finding:
    n = printed.test_images
    (stated,) = TEXT["validation"].numbers
    tested = printed.value("table3_6", model=TEACHER.name)
    validation = [100 * exact(cell.value) for cell in printed.tables["table3_4"].cells]
    whole = sum(bool(percent_counts(value, n)) for value in validation)
    text = (
        "Section 2.3 trains every variant with distillation and then ranks them, section 2.4 selects without training; "
        "Table 3.3 has three trained students. Section 3.4 calls "
        f"{stated} % the teacher's validation accuracy, Table 3.6 prints {tested} as its test accuracy, and "
        f"{whole} of the {len(validation)} validation accuracies of Table 3.4 are whole numbers of the {n:,} test "
        "images: validation appears to be the test set throughout, so that anything chosen by validation was chosen by "
        "test accuracy."
    )
    numbers = {"same": stated == tested, "whole": whole, "validation_accuracies": len(validation)}
    title = "Training-free selection after training all, and validation on the test set"
    tables, quotes = ("table3_3", "table3_4", "table3_6"), words("each_trained", "without_training", "validation")
    sources = printed.sources("kaggle_split")
    return Finding("diswot-13", title, text, "text", "notable", tables, (), numbers, quotes, sources)
