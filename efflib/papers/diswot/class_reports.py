"""Boards of tables 3.7 and 3.8: reports, what printed recalls imply, confusion matrices, other methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import HTML

from efflib.papers import reports
from efflib.papers.diswot.arms import BEST, NETWORKS, SIZES
from efflib.papers.diswot.audit import correct_images, load, report_counts, wilson
from efflib.papers.diswot.claims import CLASSES, FINAL
from efflib.papers.diswot.costs import cost
from efflib.papers.diswot.tables import MEASURES, PRINTED
from efflib.report.audit import exact
from efflib.report.figures import themed
from efflib.report.html import html_table, sentence
from efflib.report.verdict import interval_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.report.notebook import TablePage
    from efflib.trials import Results

MATRICES = {"confusion": "all test images", "leak_free_confusion": "leak-free test images"}
ROLES = {"teacher": "teacher", "best": "student"}  # as `claims.FINAL` names them -> words


# --- what the printed recalls imply -----------------------------------------------------------------------


def test_counts() -> dict[str, int]:
    """Test images of each class, as the publisher of the data counts them."""
    test = load().facts["kaggle_split"]["test"]
    return {name: int(test[name]) for name in CLASSES}


def correct_by_accuracy(role: str) -> int:
    """How many test images are right by the accuracy that table 3.6 prints for "teacher" or "student"."""
    return correct_images(load(), load().value("table3_6", model=NETWORKS[role]))


def implied_table() -> HTML:
    """Table: correct images that each printed report means, class by class, beside the accuracies of table 3.6."""
    counts = test_counts()
    found = {role: report_counts(load(), name) for role, name in NETWORKS.items()}
    rows = [
        {"class": name, "test images": f"{images:,}"}
        | {f"correct by the {role}'s report": _span(own[name][0], own[name][-1]) for role, own in found.items()}
        for name, images in counts.items()
    ]
    ends = {role: [sum(each[end] for each in own.values()) for end in (0, -1)] for role, own in found.items()}
    total = sum(counts.values())
    rows.append(
        {"class": "all", "test images": f"{total:,}"}
        | {f"correct by the {role}'s report": _span(*own) for role, own in ends.items()}
    )
    rows.append(
        {"class": "accuracy, %", "test images": ""}
        | {
            f"correct by the {role}'s report": f"{100 * low / total:.1f} to {100 * high / total:.1f}"
            for role, (low, high) in ends.items()
        }
    )
    for other in NETWORKS:
        correct = correct_by_accuracy(other)
        fits = {role: "inside" if low <= correct <= high else "outside" for role, (low, high) in ends.items()}
        rows.append(
            {"class": f"table 3.6, {other}: {correct:,} correct", "test images": ""}
            | {f"correct by the {role}'s report": told for role, told in fits.items()}
        )
    caption = "Correct images that the printed recalls mean, whichever way they were rounded"
    return HTML(html_table(rows, caption, "diswot-table3_7-implied"))


def _span(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# --- measured reports -------------------------------------------------------------------------------------


def counted(results: Results, role: str, method: str, matrix: str = "confusion") -> tuple[np.ndarray, int]:
    """Confusion matrix counts[true][predicted] of a network at the end of its run, summed over seeds, and their number.

    Args:
        results: of tables 3.6 to 3.8; their cells may be numbers of one report.
        role, method: an entry of `claims.FINAL`, e.g. ("best", "lrp_cosine").
        matrix: a key of `MATRICES`.

    Returns:
        (int64 (4, 4), seeds); zeros and 0 where nothing is recorded.
    """
    size = SIZES[results.scale]
    name, epochs = getattr(size, role).name, size.lengths[-1]
    by_seed: dict[int, np.ndarray] = {}
    for entry in results.matching(model=name, method=method, epochs=epochs):
        if entry.usable and entry.record is not None:
            found = reports.after_epochs(entry.cell, entry.record.metrics)
            if matrix in found:
                by_seed[entry.seed] = np.asarray(found[matrix], dtype=np.int64)
    return sum(by_seed.values(), np.zeros((len(CLASSES), len(CLASSES)), np.int64)), len(by_seed)


def report_rows(counts: np.ndarray) -> list[dict[str, Any]]:
    """A classification report: precision, recall, F1 and images per class, their plain mean, and the accuracy.

    Args:
        counts: (4, 4), counts[true][predicted].
    """
    measured = reports.classification(counts.tolist())
    images = counts.sum(axis=1)
    rows = [
        {"class": name, **{m: measured[m][place] for m in MEASURES}, "images": int(images[place])}
        for place, name in enumerate(CLASSES)
    ]
    macro = {measure: float(np.mean(measured[measure])) for measure in MEASURES}
    accuracy = dict.fromkeys(MEASURES, counts.trace() / counts.sum())
    total = int(images.sum())
    return [
        *rows,
        {"class": "macro average", **macro, "images": total},
        {"class": "accuracy", **accuracy, "images": total},
    ]


def reports_table(results: Results, matrix: str = "confusion") -> Any:
    """Table: measured reports of teacher and student beside the printed ones, on one version of the test set."""
    rows = []
    for role, method in FINAL:
        counts, seeds = counted(results, role, method, matrix)
        if not seeds:
            continue
        for found in report_rows(counts):
            row = {"network": ROLES[role], "class": found["class"], "images": f"{found['images'] // seeds:,}"}
            for measure in MEASURES:
                row[measure] = "" if found["class"] == "accuracy" and measure != "recall" else f"{found[measure]:.3f}"
                row[f"{measure}, printed"] = _as_printed(role, found["class"], measure)
            rows.append(row | {"seeds": str(seeds)})
    if not rows:
        return sentence(f"No report is recorded at scale {results.scale} yet.")
    caption = (
        f"Reports on {MATRICES[matrix]}, scale {results.scale}: counts summed over seeds, images of one test set; "
        "accuracy stands in the column of recall; printed numbers under the label that they have in the thesis"
    )
    return HTML(html_table(rows, caption, f"diswot-table3_7-{matrix.replace('_', '-')}-{results.scale}"))


def _as_printed(role: str, name: str, measure: str) -> str:
    if name not in CLASSES:
        return ""
    cell = PRINTED["table3_7"].cell(model=NETWORKS[ROLES[role]], **{"class": name}, measure=measure)
    return f"{cell.value:.2f}"


# --- confusion matrices -----------------------------------------------------------------------------------


def confusion_figure(results: Results) -> Any:
    """Figure 3.10: confusion matrices of teacher and student, summed over seeds, on all and on leak-free images."""
    panels = [
        (f"{ROLES[role]}, {words}", *counted(results, role, method, matrix))
        for matrix, words in MATRICES.items()
        for role, method in FINAL
    ]
    if not any(seeds for _, _, seeds in panels):
        return sentence(f"No confusion matrix is recorded at scale {results.scale} yet.")

    def draw(figure: Figure) -> None:
        for axes, (title, counts, seeds) in zip(figure.subplots(2, 2).flat, panels, strict=True):
            if not seeds:
                axes.axis("off")
                axes.set_title(f"{title}: not run", fontsize="small")
                continue
            matrix_panel(axes, counts)
            axes.set_title(f"{title} ({seeds} seed{'' if seeds == 1 else 's'})", fontsize="small")
        figure.supxlabel("predicted", fontsize="small")
        figure.supylabel("true", fontsize="small")

    alt = f"Confusion matrices at scale {results.scale}, counts summed over seeds. " + ". ".join(_spoken(panels))
    return themed(draw, (8.5, 7), alt)


def matrix_panel(axes: Any, counts: np.ndarray) -> None:
    """One confusion matrix: colours are shares of the true class, numbers are counts."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for (true, predicted), count in np.ndenumerate(counts):
        ink = "white" if shares[true, predicted] > 0.5 else "black"
        axes.text(predicted, true, f"{count:,}", ha="center", va="center", fontsize="small", color=ink)
    axes.set_xticks(range(len(CLASSES)), CLASSES, fontsize="small")
    axes.set_yticks(range(len(CLASSES)), CLASSES, fontsize="small")


def _spoken(panels: Sequence[tuple[str, np.ndarray, int]]) -> Iterator[str]:
    for title, counts, seeds in panels:
        if not seeds:
            yield f"{title}: not run"
            continue
        rows = "; ".join(f"true {name}: {', '.join(map(str, row))}" for name, row in zip(CLASSES, counts.tolist()))
        yield f"{title}: {rows}"


# --- beside other methods ---------------------------------------------------------------------------------


def images_of(points: Decimal, images: int) -> Decimal:
    """How many test images a difference in points of accuracy is."""
    return points * images / 100


def wilson_rows() -> list[dict[str, Any]]:
    """Accuracies of the thesis and of the nearest neighbour as correct images, with their Wilson intervals.

    Source: Wilson 1927; the 95 % interval of a share, from the choice of the test images alone.
    """
    total = sum(test_counts().values())
    neighbour = int(load().facts["leakage"]["nearest_neighbour_correct"])
    known = {
        "student, as printed": correct_by_accuracy("student"),
        "teacher, as printed": correct_by_accuracy("teacher"),
        "nearest neighbour on 16 px thumbnails, as counted for the audit": neighbour,
    }
    rows = []
    for what, correct in known.items():
        low, high = wilson(correct, total)
        rows.append({"row": what, "correct": correct, "accuracy": 100 * correct / total, "low": low, "high": high})
    return rows


def wilson_table() -> HTML:
    """The rows of `wilson_rows`, and which of the quoted accuracies lie inside, as a page's table."""
    quoted = {c.printed["study"]: c.value for c in PRINTED["table3_8"].cells if c.keys["model"] != BEST.name}
    rows = []
    for row in wilson_rows():
        shown = {
            "row": row["row"],
            "correct images": f"{row['correct']:,}",
            "accuracy, %": f"{row['accuracy']:.2f}",
            "95 % interval (Wilson)": f"{row['low']:.1f} to {row['high']:.1f}",
        }
        inside = {
            f"{study} ({value:g})": "inside" if row["low"] <= value <= row["high"] else "outside"
            for study, value in quoted.items()
        }
        rows.append(shown | inside)
    caption = f"Accuracies on {sum(test_counts().values()):,} test images and their intervals"
    return HTML(html_table(rows, caption, "diswot-table3_8-wilson"))


def difference_rows() -> list[dict[str, str]]:
    """The printed student less each quoted accuracy, in points and in test images."""
    total = sum(test_counts().values())
    own = exact(PRINTED["table3_8"].cell(model=BEST.name).value)
    rows = []
    for cell in PRINTED["table3_8"].cells:
        if cell.keys["model"] != BEST.name:
            ahead = own - exact(cell.value)
            rows.append(
                {
                    "against": cell.printed["study"],
                    "points": f"{ahead:+.2f}",
                    f"images of {total:,}": f"{images_of(ahead, total):+.2f}",
                }
            )
    return rows


def difference_table() -> HTML:
    """The rows of `difference_rows` as a page's table."""
    caption = "The student's printed accuracy less the quoted ones"
    return HTML(html_table(difference_rows(), caption, "diswot-table3_8-differences"))


def parameters_table() -> HTML:
    """Table: the parameters that table 3.8 compares, and those of the whole network in both conventions."""
    own, quoted = cost(BEST.name), PRINTED["table3_8"].cell(model="mobilenet")
    counts = {
        "backbone without a head, Keras total": own.backbone_keras_parameters,
        "whole network, Keras total": own.keras_parameters,
        "whole network, trained parameters": own.parameters,
    }
    theirs = 1e6 * float(quoted.millions)
    less = f"less than the {quoted.printed['parameters']} quoted, %"
    rows = [
        {"counted": what, "parameters": f"{count:,}", less: f"{100 * (1 - count / theirs):.1f}"}
        for what, count in counts.items()
    ]
    stated = PRINTED["table3_8"].cell(model=BEST.name).printed["parameters"]
    caption = f"The student's parameters; the table compares with {stated}"
    return HTML(html_table(rows, caption, "diswot-table3_8-parameters"))


def others_table(page: TablePage) -> HTML:
    """Table: the quoted rows, then what we measured at every recorded scale, else on this page's run."""
    rows = [
        {
            "work": cell.printed["study"],
            "student": cell.printed["student"],
            "method": cell.printed["method"],
            "accuracy, %": f"{cell.value:g}",
            "leak-free, %": "",
            "parameters": cell.printed["parameters"],
            "whose": "quoted" if cell.keys["model"] != BEST.name else "printed",
        }
        for cell in PRINTED["table3_8"].cells
    ]
    shown = page.recorded or {page.scale: page.show_scale()}
    for scale, comparison in shown.items():
        rows += _measured_rows(comparison.results, scale)
    caption = "Quoted, printed and measured; the peers' test sets and splits are not known"
    return HTML(html_table(rows, caption, "diswot-table3_8-others"))


def _measured_rows(results: Results, scale: str) -> Iterator[dict[str, str]]:
    size = SIZES[scale]
    known: tuple[tuple[str, str, dict[str, Any]], ...] = (
        (size.best.name, "DisWOT+, LRP + cosine", {"method": "lrp_cosine", "epochs": size.lengths[-1]}),
        (size.best.name, "KD", {"method": "kd", "epochs": size.lengths[-1]}),
        (size.best.name, "alone", {"method": "baseline", "epochs": size.lengths[-1]}),
        ("nearest_neighbour", "nearest neighbour, no training", {}),
    )
    for model, method, keys in known:
        accuracy, clean = (results.samples(metric=metric, model=model, **keys) for metric in ("last", "leak_free"))
        if accuracy:
            count = f"{cost(model, size.side).keras_parameters:,}" if keys else "none"
            yield {
                "work": f"this book, scale {scale}",
                "student": model if keys else "16 px thumbnails",
                "method": method,
                "accuracy, %": interval_text(accuracy, 2),
                "leak-free, %": interval_text(clean, 2),
                "parameters": count,
                "whose": "measured",
            }


def intervals_figure() -> Any:
    """Figure: the printed and the quoted accuracies, those on known test images with their intervals."""
    rows = wilson_rows()
    quoted = [(c.printed["study"], c.value) for c in PRINTED["table3_8"].cells if c.keys["model"] != BEST.name]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            ends = [[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]]
            axes.errorbar([row["accuracy"]], [place], xerr=ends, fmt="o", capsize=3, color=f"C{place}")
        for number, (_, value) in enumerate(quoted):
            axes.plot([value], [len(rows) + number], "D", color="grey", fillstyle="none")
        names = [row["row"].replace(", as counted", ",\nas counted") for row in rows] + [
            f"{n}, quoted" for n, _ in quoted
        ]
        axes.set_yticks(range(len(names)), names, fontsize="small")
        axes.invert_yaxis()
        axes.margins(y=0.15)
        axes.set_xlabel("accuracy, %")

    told = "; ".join(f"{r['row']} {r['accuracy']:.2f} ({r['low']:.1f} to {r['high']:.1f})" for r in rows)
    told += "; " + "; ".join(f"{name} {value:g}, quoted" for name, value in quoted)
    return themed(draw, (8, 3.2), f"Accuracies in % with Wilson intervals where the test set is known: {told}")
