"""Findings 1, 2, 17 and 18, accuracies as numbers of test images: reports, split, peers, copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from efflib.papers.diswot.audit.counting import (
    correct_images,
    counts_for,
    percent_counts,
    points,
    reported_accuracies,
    wilson,
)
from efflib.papers.diswot.audit.evidence import BEST, TEXT, Printed, words
from efflib.papers.diswot.costs import cost
from efflib.papers.diswot.space import TEACHER
from efflib.report.audit import Finding, exact, half_up

# --- reports and split ------------------------------------------------------------------------------------


def report_counts(printed: Printed, model: str) -> dict[str, range]:
    """Class -> how many test images of it may be right, by the recall that Table 3.7 prints for a model."""
    table, classes = printed.tables["table3_7"], printed.facts["kaggle_split"]["test"]
    shares = {name: table.cell(model=model, **{"class": name}, measure="recall").value for name in classes}
    return {name: counts_for(Decimal(f"{shares[name]:.2f}"), classes[name]) for name in classes}


def swapped(printed: Printed) -> Finding:
    names = {"teacher": TEACHER.name, "student": BEST}
    reports = {role: report_counts(printed, name) for role, name in names.items()}
    stated = {role: printed.value("table3_6", model=name) for role, name in names.items()}
    correct = {role: correct_images(printed, value) for role, value in stated.items()}
    ranges = {role: [sum(found[end] for found in own.values()) for end in (0, -1)] for role, own in reports.items()}
    fits = {(role, other): ranges[role][0] <= correct[other] <= ranges[role][1] for role in names for other in names}
    swapped = [fits[role, other] for role in names for other in names] == [False, True, True, False]
    better = sum(max(reports["student"][c]) > max(reports["teacher"][c]) for c in reports["student"])
    rows = tuple(
        {
            "report printed for the": role,
            "correct images by its recalls": f"{least:,} to {most:,}",
            "accuracy by its recalls, %": f"{_percent(printed, least):.1f} to {_percent(printed, most):.1f}",
            **{f"{other} in Table 3.6, %": value for other, value in stated.items()},
        }
        for role, (least, most) in ranges.items()
    )
    text = (
        f"With the class sizes of the test set, the recalls printed for the teacher mean {ranges['teacher'][0]:,} to "
        f"{ranges['teacher'][1]:,} correct images, those printed for the student {ranges['student'][0]:,} to "
        f"{ranges['student'][1]:,}. Table 3.6 has {correct['teacher']:,} (teacher) and {correct['student']:,} "
        "(student): "
        + ("each report fits the other network only, and the two labels appear to be swapped. " if swapped else "")
        + f"As printed, the student's recall is the higher one in {better} of {len(reports['student'])} classes."
    )
    numbers = {f"{role}_{end}": count for role, own in ranges.items() for end, count in zip(("least", "most"), own)}
    numbers |= {f"{role}_correct": count for role, count in correct.items()}
    numbers |= {"student_better": better, "swapped": swapped}
    title = "The two reports of Table 3.7 appear to have each other's label"
    tables, sources = ("table3_7", "table3_6"), printed.sources("kaggle_split")
    return Finding("diswot-1", title, text, "text", "major", tables, rows, numbers, (), sources)


def _percent(printed: Printed, correct: int) -> float:
    return 100 * correct / printed.test_images


@cache
def sizes_that_fit(accuracies: tuple[Decimal, ...], low: int = 1000, high: int = 2000) -> dict[int, int]:
    """Test-set size -> how many of the accuracies (percent) a whole number of correct images gives."""
    return {n: sum(bool(percent_counts(value, n)) for value in accuracies) for n in range(low, high + 1)}


def _split_rows(accuracies: Mapping[Decimal, str], sizes: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """Every reported accuracy, as a number of images of a test set of each size."""
    return tuple(
        {
            "accuracy, %": value,
            "first in": place.replace("_", ".").replace("table", "Table "),
            **{f"of {n:,} images": next(iter(percent_counts(value, n)), None) for n in sizes},
        }
        for value, place in sorted(accuracies.items())
    )


def _fitting_text(fits: Mapping[int, int], best: Sequence[int], n: int, stated: int) -> str:
    """How many accuracies fit the published and the stated test set, and whether another size fits as many."""
    alone = best == [n]
    return (
        f"{fits[n]} are whole numbers of {n:,} images, to both printed decimals, and {fits[stated] or 'none'} of "
        f"{stated:,}; {'no other size' if alone else f'{len(best)} sizes'} between {min(fits):,} and {max(fits):,} "
        f"{'fits as many' if alone else 'fit equally many'}. "
    )


def split(printed: Printed) -> Finding:
    stated_train, stated_test = map(int, TEXT["split"].numbers)
    (total,) = map(int, TEXT["total"].numbers)
    accuracies, n = reported_accuracies(printed), printed.test_images
    fits = sizes_that_fit(tuple(accuracies))
    best = [size for size, count in fits.items() if count == max(fits.values())]
    rows = _split_rows(accuracies, (n, stated_test))
    kd = [correct_images(printed, points(printed, "table3_4", method)) for method in ("kd", "baseline")]
    maps = [
        correct_images(printed, printed.value("table3_5", method=method, epochs=epochs))
        for method, epochs in (("lrp_l2", 30), ("gradcam_l2", 15))
    ]
    text = (
        f"The text gives {stated_train:,} training and {stated_test:,} test images, {stated_train + stated_test:,} "
        f"together, and approximately {total:,}. Of the {len(accuracies)} different test accuracies, "
        f"{_fitting_text(fits, best, n, stated_test)}The test set appears to be the published one of {n:,}; its "
        f"training part has {printed.train_images:,}. Counted in images, KD is {kd[0] - kd[1]} above training with "
        f"cross-entropy ({kd[0]:,} against {kd[1]:,}), and Model 3 is {maps[0] - maps[1]} above Model 1 "
        f"({maps[0]:,} against {maps[1]:,})."
    )
    numbers = {"stated_total": stated_train + stated_test, "true_total": n + printed.train_images}
    numbers |= {"accuracies": len(accuracies), "fit": fits[n], "fit_stated": fits[stated_test], "best_sizes": len(best)}
    numbers |= {"test": n, "train": printed.train_images, "kd": kd[0], "ce": kd[1], "kd_over_ce": kd[0] - kd[1]}
    numbers |= {"lrp_l2": maps[0], "gradcam_l2": maps[1], "lrp_over_gradcam": maps[0] - maps[1]}
    title = "The accuracies are those of the published split, not of the stated one"
    tables = ("table3_3", "table3_4", "table3_5", "table3_6")
    sources, quotes = printed.sources("kaggle_split"), words("split", "total")
    return Finding("diswot-2", title, text, "statistics", "notable", tables, rows, numbers, quotes, sources)


# --- the lead over the peers, copies of training images ---------------------------------------------------


def state_of_the_art(printed: Printed) -> Finding:
    table, n = printed.tables["table3_8"], printed.test_images
    own, peer, best = (table.cell(model=model) for model in (BEST, "mobilenet", "tiny_cnn"))
    ahead = exact(own.value) - exact(peer.value)
    correct = correct_images(printed, exact(own.value))
    low, high = wilson(correct, n)
    with_head = cost(BEST).keras_parameters / 1e6
    inside = sum(low <= cell.value <= high for cell in (best, peer))
    rows = tuple(
        {
            "study": cell.printed["study"],
            "accuracy, %": exact(cell.value),
            "parameters, as printed": cell.printed["parameters"],
            "inside our interval": low <= cell.value <= high,
        }
        for cell in (best, peer, own)
    )
    text = (
        f"{exact(own.value)} % is said to outperform {exact(peer.value)} %: {ahead} points are "
        f"{float(ahead) * n / 100:.2f} of one test image. With {correct:,} of {n:,} correct, the 95 % interval of the "
        f"accuracy is {low:.1f} to {high:.1f} % (Wilson), before any scatter over seeds; {inside} of the 2 peers lie "
        f"in it. One image is {100 / n:.4f} points. Of the parameters, {own.millions}M is the network without its "
        f"head; with it, {with_head:.2f}M stand against the peer's {peer.millions}M. Test sets and splits of the "
        "peers are not known."
    )
    numbers = {"ahead": float(ahead), "images": float(ahead) * n / 100, "low": low, "high": high, "correct": correct}
    numbers |= {"one_image": 100 / n, "with_head": with_head, "half_width": (high - low) / 2}
    title = "Ahead of the state of the art by two thirds of an image"
    sources, quotes = printed.sources("kaggle_split"), words("outperforms")
    return Finding("diswot-17", title, text, "statistics", "major", ("table3_8",), rows, numbers, quotes, sources)


def leakage(printed: Printed) -> Finding:
    fact, n = printed.facts["leakage"], printed.test_images
    test = printed.facts["kaggle_split"]["test"]
    copies = sum(fact["duplicates"].values())
    neighbour = 100 * fact["nearest_neighbour_correct"] / n
    students = {
        value for value in reported_accuracies(printed) if value != printed.value("table3_6", model=TEACHER.name)
    }
    below = sum(float(value) < neighbour for value in students)
    teacher = float(printed.value("table3_6", model=TEACHER.name))
    rows = tuple(
        {
            "class": name,
            "test images": count,
            "copies of a training image": fact["duplicates"].get(name, 0),
            "%": half_up(Decimal(100 * fact["duplicates"].get(name, 0)) / count, 1),
        }
        for name, count in test.items()
    )
    text = (
        f"{copies} of the {n:,} test images ({100 * copies / n:.1f} %) are byte-identical to a training image in the "
        "copy of the data set that was inspected, and more are nearly so. A 1-nearest-neighbour classifier on "
        f"thumbnails of 16 x 16 grey pixels is right on {fact['nearest_neighbour_correct']:,}, {neighbour:.2f} %: "
        f"above {below} of the {len(students)} student accuracies of the thesis and {teacher - neighbour:.1f} points "
        f"below its teacher. On the {fact['far']} test images that are far from all training images it still has "
        f"{fact['nearest_neighbour_far']} %; slices of one patient remain on both sides. Accuracies near 95 to 98 % on "
        "this split say little about distillation. Our tables of accuracies have the full and the leak-free test set, "
        "beside that baseline."
    )
    numbers = {"copies": copies, "percent": 100 * copies / n, "neighbour": neighbour, "below": below}
    numbers |= {"students": len(students), "teacher_ahead": teacher - neighbour, "far": fact["far"]}
    title = "A sixth of the test images are copies of training images"
    tables = ("table3_3", "table3_4", "table3_5", "table3_6", "table3_7", "table3_8")
    sources = printed.sources("leakage", "kaggle_split")
    return Finding("diswot-18", title, text, "statistics", "major", tables, rows, numbers, (), sources)
