"""What the pages of tables 3.4 and 3.5 show of whole runs: curves, terms of the loss, confusion, falls, the grid."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise, product
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import HTML

from efflib.distill import METHODS
from efflib.papers.distillation import work_of
from efflib.papers.diswot import arms
from efflib.papers.diswot.arms import ARMS, SIZES
from efflib.papers.diswot.claims import CLASSES, COLLAPSE
from efflib.papers.diswot.class_reports import matrix_panel
from efflib.papers.diswot.tables import PRINTED
from efflib.papers.reports import classification
from efflib.report.figures import one_legend, themed
from efflib.report.html import html_table, sentence
from efflib.report.verdict import interval_text
from efflib.scales import SCALES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.report.notebook import TablePage
    from efflib.trials import Results, Trial
    from efflib.trials.record import Record

Course = dict[int, dict[int, float]]  # finished epochs -> seed -> number

NAMES = {
    "baseline": "alone (cross-entropy)",
    "kd": "KD",
    "gradcam_l2": "Grad-CAM + L2 (DisWOT+)",
    "lrp_l2": "LRP + L2",
    "lrp_cosine": "LRP + cosine",
    "gradcam_cosine": "Grad-CAM + cosine",
    "lrp_gram": "LRP + L2 of similarities",
    "lrp_cosine_fro": "LRP + cosine, relation L2",
    "lrp_l2_raw": "LRP + L2, raw",
    "propagated_cosine": "propagated LRP + cosine",
}
TERMS = {"cross_entropy": "cross-entropy", "kd": "KL, softened", "semantic": "semantic", "relation": "relation"}
# Structure and distance of the semantic term -> column of the grid.
DISTANCES = {
    ("gram", "fro"): "similarities, L2 (eq. 2.9)",
    ("map", "l2"): "maps, L2 raw (eq. 2.19)",
    ("map", "l2_unit"): "maps of unit length, L2",
    ("map", "cosine"): "maps, cosine (eq. 2.22)",
}
MAPS = {"gradcam": "Grad-CAM", "gxa": "LRP (gradient x activation)", "lrp": "LRP, propagated"}
RELATIONS = {"fro": "L2", "cosine": "cosine"}  # distance of the relation term -> words


# --- runs -------------------------------------------------------------------------------------------------


def shown(page: TablePage, has: Callable[[Results], Any] | None = None) -> Results:
    """The results that a page's boards show: the largest recorded scale at which students ran, else the page's run.

    What needs no training, as the nearest neighbour, is recorded at scales at which nothing was trained.

    Args:
        page: of the table.
        has: what the results must have; a run of the best student, if None.
    """
    return evidence(page, has or runs) or page.results


def evidence(page: TablePage, has: Callable[[Results], Any]) -> Results | None:
    """The results of the largest recorded scale that has what is asked for, if any."""
    found = (page.found[scale].results for scale in reversed(SCALES) if scale in page.found)
    return next((results for results in found if has(results)), None)


def runs(results: Results) -> dict[str, dict[int, Record]]:
    """Method -> seed -> record of the best student's whole run, of those that are usable, in the order of `NAMES`."""
    found: dict[str, dict[int, Record]] = {name: {} for name in NAMES}
    best = SIZES[results.scale].best.name
    for entry in results.entries:
        if entry.usable and entry.record is not None and entry.cell.get("student") == best:
            found[entry.cell["method"]][entry.seed] = entry.record
    return {name: by_seed for name, by_seed in found.items() if by_seed}


def course(by_seed: Mapping[int, Record], name: str = "last", until: int | None = None) -> Course:
    """A number of the reports after each epoch, of the epochs in which every seed has it.

    Args:
        by_seed: seed -> record.
        name: as in `efflib.papers.reports.reporter`; "train" exists at marks only.
        until: leave out later epochs.
    """
    followed = {seed: record.metrics.get("followed", {}) for seed, record in by_seed.items()}
    epochs = sorted(int(epoch) for epoch in set.intersection(*map(set, followed.values())))
    kept = [epoch for epoch in epochs if until is None or epoch <= until]
    return {
        epoch: {seed: float(reports[str(epoch)][name]) for seed, reports in followed.items()}
        for epoch in kept
        if all(name in reports[str(epoch)] for reports in followed.values())
    }


def weights(record: Record) -> dict[str, float]:
    """Term -> its weight in the loss of a run; a run without a teacher has cross-entropy alone."""
    if "method" not in record.config:
        return {"cross_entropy": 1.0}
    defaults = inspect.signature(METHODS[record.config["method"]].__init__).parameters
    given = record.config["options"]
    names = {"cross_entropy": "ce_weight"} | {term: f"{term}_weight" for term in TERMS if term != "cross_entropy"}
    return {
        term: float(given.get(option, defaults[option].default)) for term, option in names.items() if option in defaults
    }


def terms(by_seed: Mapping[int, Record], until: int | None = None) -> dict[str, Course]:
    """Term -> its mean over the training images of each epoch without its weight, which the records' curves hold."""
    found: dict[str, Course] = {}
    for seed, record in by_seed.items():
        for term, weight in weights(record).items():
            curve = record.metrics["curves"].get(f"train_{term}", [])
            for epoch, value in enumerate(curve[:until], start=1):
                found.setdefault(term, {}).setdefault(epoch, {})[seed] = value / weight
    return found


# --- figures ----------------------------------------------------------------------------------------------


def course_figure(results: Results, methods: Sequence[str], until: int | None = None, printed: bool = False) -> HTML:
    """Figure 3.6: accuracy and cross-entropy on the test images after each epoch, of all methods on one axis each.

    Args:
        results: of table 3.4 or 3.5.
        methods: lines, as far as they ran.
        until: last epoch shown.
        printed: mark the printed accuracies after ten epochs, where the axis reaches that far.
    """
    found = _chosen(results, methods)
    if not found:
        return _nothing(results)
    shown = {name: course(by_seed, "last", until) for name, by_seed in found.items()}
    losses = {name: course(by_seed, "cross_entropy", until) for name, by_seed in found.items()}
    ends = _printed("fig3_6", methods) if printed else {}

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for number, name in enumerate(methods):
            if name in found:
                _line(left, shown[name], f"C{number}", NAMES[name])
                _line(right, losses[name], f"C{number}", NAMES[name])
            _diamonds(left, ends.get(name, {}), f"C{number}", shown.values())
        left.set(xlabel="epochs", ylabel="accuracy, %", title="test accuracy")
        right.set(xlabel="epochs", ylabel="nats", title="test cross-entropy")
        one_legend(figure, 3)

    alt = f"Test accuracy and cross-entropy over the epochs at scale {results.scale}; at the end: "
    alt += "; ".join(f"{NAMES[n]} {_end(shown[n]):.2f} %, {_end(losses[n]):.3f} nats" for n in found)
    return themed(draw, (9, 3.9), alt)


def training_figure(results: Results, methods: Sequence[str], until: int | None = None, printed: bool = False) -> HTML:
    """Figure 3.7: training accuracy (without augmentation, at the marks) beside the test accuracy of every epoch.

    Args: as `course_figure`; the printed points are those of figure 3.7.
    """
    found = _chosen(results, methods)
    if not found:
        return _nothing(results)
    train = {name: course(by_seed, "train", until) for name, by_seed in found.items()}
    test = {name: course(by_seed, "last", until) for name, by_seed in found.items()}
    points = _printed("fig3_7", methods) if printed else {}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, name in enumerate(methods):
            if name in found:
                _line(axes, train[name], f"C{number}", f"training, {NAMES[name]}")
                _line(axes, test[name], f"C{number}", f"test, {NAMES[name]}", ":", marker="")
            _diamonds(axes, points.get(name, {}), f"C{number}", test.values())
        axes.set(xlabel="epochs", ylabel="accuracy, %")
        one_legend(figure, 2)

    alt = f"Training and test accuracy over the epochs at scale {results.scale}; training at the marks: "
    alt += "; ".join(
        f"{NAMES[n]} " + ", ".join(f"epoch {e} {fmean(v.values()):.2f} %" for e, v in train[n].items()) for n in found
    )
    return themed(draw, (8, 4.2 + 0.15 * len(found)), alt)


def terms_figure(results: Results, methods: Sequence[str], until: int | None = None) -> HTML:
    """Figure 3.5: the terms of each method's loss over the epochs, without their weights.

    Args: as `course_figure`.
    """
    found = {name: terms(by_seed, until) for name, by_seed in _chosen(results, methods).items()}
    if not found:
        return _nothing(results)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, (name, own) in zip(panels, found.items(), strict=True):
            for number, term in enumerate(TERMS):
                if term in own:
                    _line(axes, own[term], f"C{number}", TERMS[term])
            axes.set(title=NAMES[name], xlabel="epochs", yscale="log")
        panels[0].set_ylabel("unweighted, mean of the epoch")
        one_legend(figure, 4)

    parts = [
        f"{NAMES[name]}: " + ", ".join(f"{TERMS[term]} {_end(own[term]):.3g}" for term in TERMS if term in own)
        for name, own in found.items()
    ]
    alt = f"Terms of the training loss without weights at scale {results.scale}, in the last epoch: {'; '.join(parts)}"
    return themed(draw, (1.2 + 2.9 * len(found), 3.9), alt)


def summed_confusion(by_seed: Mapping[int, Record], epochs: int) -> np.ndarray:
    """Counts[true][predicted] after so many epochs, summed over seeds; int64 (classes, classes)."""
    matrices = [record.metrics["followed"][str(epochs)]["confusion"] for record in by_seed.values()]
    return np.asarray(matrices, dtype=np.int64).sum(axis=0)


def confusion_figure(results: Results, methods: Sequence[str], epochs: int) -> HTML:
    """Figure 3.4: confusion matrices after so many epochs, all seeds together; colours are shares of the true class.

    Args:
        results: of table 3.4 or 3.5.
        methods: panels, as far as they ran.
        epochs: length of the run.
    """
    found = {name: summed_confusion(by_seed, epochs) for name, by_seed in _chosen(results, methods).items()}
    if not found:
        return _nothing(results)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (name, counts) in zip(panels, found.items(), strict=True):
            matrix_panel(axes, counts)
            axes.tick_params(axis="x", rotation=45)
            axes.set(title=NAMES[name], xlabel="predicted")
        for axes in panels[1:]:
            axes.set_yticklabels([])
        panels[0].set_ylabel("true")

    seeds = {name: len(by_seed) for name, by_seed in _chosen(results, methods).items()}
    parts = []
    for name, counts in found.items():
        recalls = ", ".join(f"{c} {100 * r:.1f} %" for c, r in zip(CLASSES, classification(counts.tolist())["recall"]))
        parts.append(f"{NAMES[name]} ({seeds[name]} seed{'s' if seeds[name] > 1 else ''}): {recalls}")
    alt = f"Confusion matrices after {epochs} epochs at scale {results.scale}; recall of "
    return themed(draw, (1 + 2.9 * len(found), 4.3), alt + "; ".join(parts))


def _chosen(results: Results, methods: Sequence[str]) -> dict[str, dict[int, Record]]:
    found = runs(results)
    return {name: found[name] for name in methods if name in found}


def _line(axes: Any, points: Course, colour: str, label: str, style: str = "-", marker: str = "o") -> None:
    """Mean over seeds, and a band from the lowest to the highest seed."""
    epochs = list(points)
    values = [list(by_seed.values()) for by_seed in points.values()]
    axes.plot(epochs, [fmean(v) for v in values], style, marker=marker, markersize=3, color=colour, label=label)
    axes.fill_between(epochs, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15, linewidth=0)
    axes.xaxis.get_major_locator().set_params(integer=True)  # no half epochs


def _diamonds(axes: Any, printed: Mapping[int, float], colour: str, shown: Iterable[Course]) -> None:
    """Printed numbers at their epochs, if the axis gets that far."""
    last = max((max(points, default=0) for points in shown), default=0)
    at = {epoch: value for epoch, value in printed.items() if epoch <= last}
    if at:
        axes.plot(list(at), list(at.values()), "D", color=colour, fillstyle="none", label="_printed")


def _printed(figure: str, methods: Sequence[str]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for cell in PRINTED[figure].numbers:
        if cell.keys["method"] in methods:
            found.setdefault(cell.keys["method"], {})[cell.keys["epochs"]] = cell.value
    return found


def _end(points: Course) -> float:
    return fmean(points[max(points)].values()) if points else float("nan")


# --- does anything collapse? ------------------------------------------------------------------------------


def steepest_fall(accuracies: Sequence[float]) -> tuple[float, int]:
    """Largest loss from one epoch to the next, and the number of the epoch after it; (0, 0) if it never falls.

    Args:
        accuracies: after epoch 1, 2, ...
    """
    falls = [before - after for before, after in pairwise(accuracies)]
    if not falls or max(falls) <= 0:
        return 0.0, 0
    place = int(np.argmax(falls))
    return falls[place], place + 2


def stability_table(results: Results) -> HTML:
    """The "stability" of tables 2.1 and 2.2 as numbers: how far each method's test accuracy ever falls."""
    rows = []
    for name, by_seed in runs(results).items():
        tests = {seed: [v[seed] for v in course({seed: record}).values()] for seed, record in by_seed.items()}
        falls = {seed: steepest_fall(own) for seed, own in tests.items()}
        worst = max(falls, key=lambda seed: falls[seed][0])
        below = {seed: max(own) - own[-1] for seed, own in tests.items()}
        rows.append(
            {
                "method": NAMES[name],
                "epochs": max(map(len, tests.values())),
                "steepest fall in one epoch": interval_text({seed: fall for seed, (fall, _) in falls.items()}),
                "worst of all seeds": f"{falls[worst][0]:.2f} (epoch {falls[worst][1]})" if falls[worst][1] else "none",
                "best less last": interval_text(below),
                f"runs that end more than {COLLAPSE:g} points below their best": (
                    f"{sum(value > COLLAPSE for value in below.values())} of {len(below)}"
                ),
            }
        )
    if not rows:
        return _nothing(results)
    caption = f"Falls of the test accuracy in points, mean ± half the 95 % interval (seeds); scale {results.scale}"
    return HTML(html_table(rows, caption, f"diswot-{results.table.id}-stability"))


def ends_table(results: Results) -> HTML:
    """What the distiller measures at the end of a run, on the test images: its terms, and maps that are zero."""
    measured = {
        "semantic": "unweighted_semantic",
        "relation": "unweighted_relation",
        "KL, softened": "unweighted_kd",
        "student's maps that are zero, %": "zero_maps_student",
        "teacher's maps that are zero, %": "zero_maps_teacher",
    }
    rows = []
    for name, by_seed in runs(results).items():
        if not any("unweighted_semantic" in record.metrics for record in by_seed.values()):
            continue
        row = {"method": NAMES[name]}
        for title, metric in measured.items():
            factor = 100 if title.endswith("%") else 1
            values = {s: factor * r.metrics[metric] for s, r in by_seed.items() if metric in r.metrics}
            row[title] = interval_text(values, 1 if factor == 100 else 4)
        rows.append(row)
    if not rows:
        return _nothing(results)
    caption = (
        "At the end of the run, on the test images, for the class that the teacher predicts; mean ± half the 95 % "
        f"interval (seeds). Semantic terms of different definitions are not comparable. Scale {results.scale}"
    )
    return HTML(html_table(rows, caption, f"diswot-{results.table.id}-ends"))


# --- cost -------------------------------------------------------------------------------------------------


def cost_table(results: Results) -> HTML:
    """Seconds per epoch as recorded, and relative to KD's of the same seed on the same machine."""
    found = runs(results)
    rows = []
    for name, by_seed in found.items():
        seconds = {s: r.metrics["seconds_per_epoch"] for s, r in by_seed.items() if r.metrics.get("seconds_per_epoch")}
        ratio = {
            seed: own / other.metrics["seconds_per_epoch"]
            for seed, own in seconds.items()
            if (other := found.get("kd", {}).get(seed)) is not None and _machine(other) == _machine(by_seed[seed])
        }
        rows.append(
            {
                "method": NAMES[name],
                "seconds per epoch": interval_text(seconds),
                "time / KD's": interval_text(ratio),
                "machine": ", ".join(sorted({_machine(record) for record in by_seed.values()})),
            }
        )
    if not rows:
        return _nothing(results)
    caption = (
        "Median clock time of an epoch's training steps, as recorded, whatever else the machine did; ratios of runs "
        f"with the same seed on the same machine. Mean ± half the 95 % interval (seeds), scale {results.scale}"
    )
    return HTML(html_table(rows, caption, f"diswot-{results.table.id}-cost-{results.scale}"))


def _machine(record: Record) -> str:
    return f"{record.provenance.device}, {record.precision}"


def work_table(scale: str, methods: Sequence[str]) -> HTML:
    """Floating-point operations of a training step per image, counted without any run; relative to KD's."""
    best = SIZES[scale].best
    steps = {name: _step_flops(arms.student(scale, best, 0, name)) for name in ("kd", *methods)}
    rows = [
        {
            "method": NAMES[name],
            "MFLOP per image": f"{steps[name] / 1e6:.1f}",
            "FLOPs / KD's": f"{steps[name] / steps['kd']:.3f}",
        }
        for name in methods
    ]
    caption = f"Work of a training step of {best.name} at scale {scale}, {SIZES[scale].side} px: three forward passes "
    caption += "for what is trained, one for the teacher, three for what the method computes beside them"
    return HTML(html_table(rows, caption, "diswot-work"))


def _step_flops(trial: Trial) -> float:
    return work_of(trial.settings).step  # type: ignore[arg-type]


# --- the grid of map and distance -------------------------------------------------------------------------


def grid_table(results: Results) -> HTML:
    """Map, relation and distance: what the thesis ran, what this book adds, and the accuracy at the shared length."""
    epochs = SIZES[results.scale].lengths[1]
    rows = []
    for (kind, words), (relation, its) in product(MAPS.items(), RELATIONS.items()):
        row = {"map": words, "relation": its}
        for structure, title in DISTANCES.items():
            names = [name for name, own in grid().items() if own == (kind, *structure, relation)]
            row[title] = "; ".join(_grid_cell(results, name, epochs) for name in names) or "not run"
        rows.append(row)
    caption = (
        "Map and distance of the semantic term, distance of the relation term; in parentheses test accuracy in % after "
        f"{epochs} epochs at scale {results.scale}, mean ± half the 95 % interval (seeds), where it ran"
    )
    return HTML(html_table(rows, caption, f"diswot-{results.table.id}-grid"))


def grid() -> dict[str, tuple[str, str, str, str]]:
    """Method -> map, structure and distance of its semantic term, distance of its relation term."""
    return {
        name: (
            str(options["map"]),
            str(options["semantic_target"]),
            str(options["distance"]),
            str(options.get("relation", "fro")),  # the method's own default
        )
        for name, (method, options) in ARMS.items()
        if method == "diswot_plus"
    }


def _grid_cell(results: Results, name: str, epochs: int) -> str:
    printed = [str(cell.keys["epochs"]) for cell in PRINTED["table3_5"].cells if cell.keys["method"] == name]
    whose = f"thesis, {' and '.join(printed)} epochs" if printed else "ours"
    measured = results.samples(student=SIZES[results.scale].best.name, method=name, epochs=epochs)
    return f"{name}: {whose}" + (f" ({interval_text(measured)})" if measured else "")


def _nothing(results: Results) -> HTML:
    return sentence(f"No such run is recorded at scale {results.scale} yet.")
