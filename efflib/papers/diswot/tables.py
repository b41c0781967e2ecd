"""The thesis's tables: which trials repeat each of them at each scale.

Cells that differ in `epochs` alone share a trial (see `arms`); a table's view reads it after so many epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from efflib.papers import reports
from efflib.papers.diswot import arms, claims
from efflib.papers.diswot.space import STUDENTS, Member
from efflib.papers.table import PrintedTable, Table, load_printed
from efflib.trials.trial import Trial

PRINTED = load_printed(Path(__file__).with_name("printed.yaml"))

Entries = Iterator[tuple[dict[str, Any], int, Trial]]

STRATEGIES = ("baseline", "kd", "gradcam_l2")  # table 3.4
# Table 3.5: the printed configurations, then our controls. Below `small` those that decide the collapse.
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "smoke": ("gradcam_l2", "lrp_cosine", "baseline"),
    "tiny": ("gradcam_l2", "lrp_cosine", "kd", "baseline"),
    "small": (
        "gradcam_l2", "lrp_l2", "lrp_cosine", "gradcam_cosine", "lrp_gram", "lrp_cosine_fro", "propagated_cosine",
        "lrp_l2_raw", "kd", "baseline",
    ),
}  # fmt: skip
# At the last map, which `paper` reads, propagated relevance is gradient times activation.
CONFIGURATIONS["paper"] = tuple(name for name in CONFIGURATIONS["small"] if name != "propagated_cosine")
MEASURES = ("precision", "recall", "f1")
_HOW = {"starts": "start", "rates": "lr", "augmentations": "augment"}  # choice of a page -> field of `arms.How`
ACCURACIES = ("last", "leak_free")
LOOKS = ("cosine", "beyond_image", "zero_maps", "inside_head")  # of figures 3.8 and 3.9


def _space_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 3.3: every student after a short distillation, the scores, and what needs no network."""
    yield from _distilled(scale, seeds, choices)
    for seed in seeds:  # of the scores a seed is a series of draws
        yield {"student": "all", "method": "score"}, seed, arms.scores(scale, seed)
        trained = arms.scores_trained(scale, seed, _how(choices))
        yield {"student": "all", "method": "score", "teacher": "trained"}, seed, trained
    yield {"student": "nearest_neighbour"}, seeds[0], arms.nearest_neighbour(scale)


def _distilled(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """The chosen students of a scale after a short distillation."""
    size = arms.SIZES[scale]
    for seed in seeds:
        for name in choices.get("students") or tuple(member.name for member in size.students):
            yield from _students(scale, STUDENTS[name], "gradcam_l2", size.space, seed, _how(choices))


def _how(choices: dict[str, tuple]) -> arms.How:
    """Start, rate and augmentation of the networks' training; what the caller did not choose is as usual."""
    chosen = {name: choices.get(name, ()) for name in _HOW}
    for name, values in chosen.items():
        if len(values) > 1:
            raise ValueError(f"{name}={list(values)}: the runs of one page are comparable, choose one of them")
    return arms.How(**{field: chosen[name][0] for name, field in _HOW.items() if chosen[name]})


def _strategies_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 3.4: three ways to train the best student, after one epoch and at the end."""
    size = arms.SIZES[scale]
    for seed in seeds:
        for method in choices.get("methods") or STRATEGIES:
            for epochs in (1, size.short):
                yield from _students(scale, size.best, method, epochs, seed, _how(choices))
    yield {"student": "nearest_neighbour"}, seeds[0], arms.nearest_neighbour(scale)


def _configurations_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 3.5: maps and distances, after each of the printed lengths."""
    size = arms.SIZES[scale]
    for seed in seeds:
        for method in choices.get("methods") or CONFIGURATIONS[scale]:
            for epochs in size.lengths:
                if epochs <= arms.length(scale, size.best, method):
                    yield from _students(scale, size.best, method, epochs, seed, _how(choices))
    yield {"student": "nearest_neighbour"}, seeds[0], arms.nearest_neighbour(scale)


def _looks_grid(*kinds: str) -> Callable[[str, list[int], dict[str, tuple]], Entries]:
    """Grid of figures 3.8 and 3.9: kinds of map of every network of table 3.5, read from the same trials."""

    def grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
        best, methods = arms.SIZES[scale].best, choices.get("methods") or CONFIGURATIONS[scale]
        for seed in seeds:
            trials = {method: arms.maps(scale, best, seed, method, _how(choices)) for method in methods}
            first = trials.get("baseline", trials[methods[0]])  # all trials of a seed measure the teacher alike
            for kind in kinds:
                yield {"network": "teacher", "method": "baseline", "map": kind}, seed, first
                for method, trial in trials.items():
                    yield {"network": "student", "method": method, "map": kind}, seed, trial
                yield {"network": "uniform", "method": "control", "map": kind}, seed, first

    return grid


def _students(
    scale: str, student: Member, method: str, epochs: int, seed: int, how: arms.How = arms.AS_USUAL
) -> Entries:
    cell = {"student": student.name, "method": method, "epochs": epochs}
    yield cell, seed, arms.student(scale, student, seed, method, how)


def _final_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of tables 3.6 and 3.8: teacher and final student, and the student without explanations or teacher."""
    size = arms.SIZES[scale]
    rows = [(size.teacher, "baseline"), *((size.best, method) for method in ("lrp_cosine", "kd", "baseline"))]
    for seed in seeds:
        for network, method in rows:
            cell = {"model": network.name, "method": method, "epochs": size.lengths[-1]}
            yield cell, seed, arms.student(scale, network, seed, method, _how(choices))
    yield {"model": "nearest_neighbour"}, seeds[0], arms.nearest_neighbour(scale)


def _report_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 3.7: precision, recall and F1 of each class, for teacher and final student."""
    size = arms.SIZES[scale]
    for seed in seeds:
        for role, method in claims.FINAL:
            network: Member = getattr(size, role)
            trial = arms.student(scale, network, seed, method, _how(choices))
            for name in claims.CLASSES:
                for measure in MEASURES:
                    cell = {"model": network.name, "method": method, "epochs": size.lengths[-1]}
                    yield {**cell, "class": name, "measure": measure}, seed, trial


# Scores and sizes need no training: `epochs` is that of the printed row, beside which they stand at every scale.
_PRINTED_ROW = {"epochs": arms.SIZES["paper"].space}


def _scores_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of the column of scores: a seed is a series of draws, as in `_space_grid`."""
    for seed in seeds:
        for cell, _, _ in _distilled(scale, [seed], choices):
            yield cell | _PRINTED_ROW, seed, arms.scores(scale, seed)


def _space_costs_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 3.3's column of parameters."""
    for cell, seed, _ in _distilled(scale, seeds[:1], choices):
        yield cell | _PRINTED_ROW, seed, arms.cost(scale, STUDENTS[cell["student"]])


def _best_costs_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 3.5's column of parameters: one network, whatever trained it."""
    for cell, seed, _ in _configurations_grid(scale, seeds[:1], choices):
        if "epochs" in cell:
            yield cell, seed, arms.cost(scale, arms.SIZES[scale].best)


def _final_costs_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 3.6's columns of cost."""
    size = arms.SIZES[scale]
    for role, method in claims.FINAL:
        network: Member = getattr(size, role)
        cell = {"model": network.name, "method": method, "epochs": size.lengths[-1]}
        yield cell, seeds[0], arms.cost(scale, network)


def mean_score(cell: Mapping[str, Any], metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """View of the column of scores: the thesis's score of the cell's student, mean over the draws."""
    draws = metrics.get("scores", {}).get("thesis", {}).get(cell["student"], [])
    return {"score": sum(draws) / len(draws)} if draws else {}


def whole_megabytes(cell: Mapping[str, Any], metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """View of the column of sizes: also rounded to whole megabytes, as they are printed."""
    return {**metrics, "whole_megabytes": round(metrics["megabytes"])}


def class_report(cell: Mapping[str, Any], metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """View of table 3.7: one number of the report after so many epochs, as a fraction."""
    found = reports.after_epochs(cell, metrics)
    if "confusion" not in found:
        return {}
    values = reports.classification(found["confusion"])[cell["measure"]]
    return {"class_report": values[claims.CLASSES.index(cell["class"])]}


def looks(cell: Mapping[str, Any], metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """View of figures 3.8 and 3.9: what is measured of one network's maps of one kind."""
    return metrics.get("maps", {}).get(cell["map"], {}).get(cell["network"], {})


def last_map(side: int) -> str:
    """Size of the networks' last map for images of one side: "7 x 7" at 224 px."""
    return f"{side // 32} x {side // 32}"


def _totals_marked(printed: PrintedTable) -> PrintedTable:
    """Figure 3.6's losses with `loss: total` on those of several terms, as they appear to be plotted.

    Ours is the cross-entropy of all methods: only training alone, whose loss has no other term, is comparable. A marked
    cell is in no grid, so that it gets no verdict.
    """
    cells = [
        c if c.keys["method"] == "baseline" else replace(c, keys=c.keys | {"loss": "total"}) for c in printed.cells
    ]
    return replace(printed, cells=tuple(cells))


def _table(identifier: str, title: str, grid: Any, choices: Mapping[str, tuple] | None = None, **options: Any) -> Table:
    options = {"measures": ACCURACIES, "view": reports.after_epochs, "across": (), **options}
    claimed = claims.CLAIMS.get(identifier, ())
    printed = options.pop("printed", PRINTED[identifier])
    return Table("diswot", identifier, title, printed, claimed, grid, choices or {}, **options)


def _cost_table(identifier: str, title: str, grid: Any, metric: str, page: str, **options: Any) -> Table:
    return _table(identifier, title, grid, **{"measures": (metric,), "view": None, "page": page, **options})


_TRAINING = {"rates": arms.RATES, "augmentations": arms.AUGMENTATIONS}
_STUDENTS, _RUNS = {"students": tuple(STUDENTS), **_TRAINING}, {"starts": arms.STARTS, **_TRAINING}
_METHODS, _STRATEGIES = {"methods": CONFIGURATIONS["small"], **_RUNS}, {"methods": STRATEGIES, **_RUNS}
_SCORED_AT = (
    "Scores depend on the size of the last map: "
    + "; ".join(f"{name} {size.side} px, {last_map(size.side)}" for name, size in arms.SIZES.items() if name != "smoke")
    + ", the thesis's size.",
)
# Columns of another unit, and figures with printed numbers, are tables of their own on their table's page.
tables = {
    "table3_3": _table("table3_3", "Does a training-free score choose students?", _space_grid, _STUDENTS),
    "table3_3_train": _table(
        "table3_3_train", "Training accuracy of the students", _space_grid, _STUDENTS,
        measures=("train",), page="table3_3",
    ),
    "table3_3_score": _table(
        "table3_3_score", "DisWOT scores", _scores_grid, _STUDENTS,
        measures=("score",), view=mean_score, page="table3_3", notes=_SCORED_AT,
    ),
    "table3_3_parameters": _cost_table(
        "table3_3_parameters", "Parameters of the students", _space_costs_grid, "backbone_keras_parameters", "table3_3",
        choices=_STUDENTS,
    ),
    "table3_4": _table("table3_4", "Alone, with KD, with DisWOT+", _strategies_grid, _STRATEGIES),
    "table3_4_train": _table(
        "table3_4_train", "Training accuracy of the three strategies", _strategies_grid, _STRATEGIES,
        measures=("train",), page="table3_4",
    ),
    "fig3_6": _table(
        "fig3_6", "Validation accuracy of the three strategies", _strategies_grid, _STRATEGIES, page="table3_4"
    ),
    "fig3_6_loss": _table(
        "fig3_6_loss", "Validation loss of the three strategies", _strategies_grid, _STRATEGIES,
        measures=("cross_entropy",), page="table3_4", printed=_totals_marked(PRINTED["fig3_6_loss"]),
    ),
    "fig3_7": _table(
        "fig3_7", "Training accuracy at the first and the last epoch", _strategies_grid, _STRATEGIES,
        measures=("train",), page="table3_4",
    ),
    "table3_5": _table("table3_5", "Which map, which distance", _configurations_grid, _METHODS),
    "table3_5_train": _table(
        "table3_5_train", "Training accuracy of the configurations", _configurations_grid, _METHODS,
        measures=("train",), page="table3_5",
    ),
    "table3_5_parameters": _cost_table(
        "table3_5_parameters", "Parameters of the best student", _best_costs_grid, "backbone_keras_parameters",
        "table3_5", choices=_METHODS,
    ),
    "fig3_8": _table(
        "fig3_8", "Where Grad-CAM looks", _looks_grid("gradcam"), _METHODS,
        measures=LOOKS, view=looks, page="table3_5",
    ),
    "fig3_9": _table(
        "fig3_9", "Where relevance lies", _looks_grid("gxa", "lrp"), _METHODS,
        measures=LOOKS, view=looks, page="table3_5",
    ),
    "table3_6": _table("table3_6", "Teacher and final student: accuracy and cost", _final_grid, _RUNS),
    "table3_6_parameters": _cost_table(
        "table3_6_parameters", "Parameters", _final_costs_grid, "keras_parameters", "table3_6"
    ),
    "table3_6_flops": _cost_table("table3_6_flops", "FLOPs", _final_costs_grid, "profiler_flops", "table3_6"),
    "table3_6_macs": _cost_table("table3_6_macs", "MACs", _final_costs_grid, "macs", "table3_6"),
    "table3_6_size": _cost_table(
        "table3_6_size", "Size in MB", _final_costs_grid, "megabytes", "table3_6",
        measures=("whole_megabytes", "megabytes"), view=whole_megabytes,
    ),
    "table3_7": _table(
        "table3_7", "Class by class", _report_grid, _RUNS, measures=("class_report",), view=class_report
    ),
    "table3_8": _table("table3_8", "Beside other methods", _final_grid, _RUNS),
}  # fmt: skip
