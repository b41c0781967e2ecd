"""PKGD's tables and figures: which trials repeat each of them at each scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from efflib.papers.pkgd import claims, figures
from efflib.papers.pkgd.arms import CROSS_FAMILY, SAME_FAMILY, SMOKE_PAIR, cells
from efflib.papers.table import Table, load_printed
from efflib.trials.trial import Trial

PRINTED = load_printed(Path(__file__).with_name("printed.yaml"))

Pair = tuple[str, str]
Entries = Iterator[tuple[dict[str, Any], int, Trial]]

# Spec, section 5, "Reduced versions": what each scale repeats of tables 1 and 2.
PAIRS: dict[str, dict[str, tuple[Pair, ...]]] = {
    "table1": {
        "smoke": (SMOKE_PAIR,),
        "tiny": (("resnet56", "resnet20"),),
        "small": (("resnet56", "resnet20"), ("resnet32x4", "resnet8x4"), ("vgg13", "vgg8")),
        "paper": SAME_FAMILY,
    },
    "table2": {
        "smoke": (("vgg13", "resnet18"),),
        "tiny": (("wrn_40_2", "shufflenetv1"),),
        "small": (("wrn_40_2", "shufflenetv1"), ("vgg13", "mobilenetv2_half")),
        "paper": CROSS_FAMILY,
    },
}
REDUCED = ("kd", "dkd", "at", "reviewkd", "rpkd", "pkgd")
METHODS = {
    "table1": {"smoke": ("kd", "dkd", "reviewkd", "pkgd"), "tiny": REDUCED, "small": REDUCED, "paper": claims.METHODS},
    "table2": {"smoke": ("pkgd",), "tiny": REDUCED, "small": REDUCED, "paper": claims.METHODS},
}

ABLATION = ("kd", "pkgd_mlff", "pkgd_mlff_code", "pkgd_ddag", "pkgd_mlff_ddag", "pkgd")
CONTROLS = ("align", "pkgd_code_random", "pkgd_code_trained")
ABLATION_ARMS = {
    "smoke": ("kd", "align", "pkgd", "pkgd_code_random"),
    "tiny": (*ABLATION, *CONTROLS),
    "small": (*ABLATION, *CONTROLS),
    "paper": (*ABLATION, *CONTROLS),
}


def _pair_grid(identifier: str) -> Callable[[str, list[int], dict[str, tuple]], Entries]:
    """Grid of tables 1 and 2: per seed and pair the teacher, the student alone, and every method."""

    def grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
        pairs = _chosen(PAIRS[identifier], scale, choices)
        methods = choices.get("methods") or METHODS[identifier][scale]
        for seed in seeds:
            for teacher, student in pairs:
                yield from cells(scale, teacher, student, _dataset(scale), seed, methods)

    return grid


def _dataset(scale: str) -> str:
    return "objects32" if scale == "smoke" else "cifar100"


def _chosen(pairs: dict[str, tuple[Pair, ...]], scale: str, choices: dict[str, tuple]) -> tuple[Pair, ...]:
    """The scale's own pairs, or those that were asked for as "teacher->student"."""
    named = {f"{teacher}->{student}": (teacher, student) for teacher, student in (*pairs["paper"], *pairs["smoke"])}
    return tuple(named[name] for name in choices["pairs"]) if choices.get("pairs") else pairs[scale]


def _ablation_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 5: the modules of PKGD, both readings of "MLFF only", and our controls."""
    pair = SMOKE_PAIR if scale == "smoke" else claims.ABLATION
    names = choices.get("methods") or ABLATION_ARMS[scale]
    for seed in seeds:
        yield from cells(scale, *pair, _dataset(scale), seed, names)


_PAIR_NAMES = {
    name: tuple(dict.fromkeys(f"{teacher}->{student}" for teacher, student in (*by_scale["paper"], *by_scale["smoke"])))
    for name, by_scale in PAIRS.items()
}
# The paper's tables have the pairs as columns.
_ACROSS = ("teacher", "student")

tables = {
    "table1": Table(
        "pkgd", "table1", "Teacher and student of one family", PRINTED["table1"], claims.CLAIMS["table1"],
        _pair_grid("table1"), {"pairs": _PAIR_NAMES["table1"], "methods": claims.METHODS}, across=_ACROSS,
    ),
    "table2": Table(
        "pkgd", "table2", "Teacher and student of different families", PRINTED["table2"], claims.CLAIMS["table2"],
        _pair_grid("table2"), {"pairs": _PAIR_NAMES["table2"], "methods": claims.METHODS}, across=_ACROSS,
    ),
    "table5": Table(
        "pkgd", "table5", "Which module helps", PRINTED["table5"], claims.CLAIMS["table5"],
        _ablation_grid, {"methods": (*ABLATION, *CONTROLS)}, across=_ACROSS,
    ),
    "figure5": Table(
        "pkgd", "figure5", "Accuracy against training time on Tiny ImageNet", PRINTED["figure5"],
        claims.CLAIMS["figure5"], figures.timed_grid, {"pairs": tuple(figures.PAIRS), "methods": claims.TIMED},
        across=_ACROSS,
    ),
    "figure6": Table(
        "pkgd", "figure6", "Clusters and attention maps", PRINTED["figure6"], claims.CLAIMS["figure6"],
        figures.clusters_grid, {"methods": figures.SEEN}, across=_ACROSS,
    ),
}  # fmt: skip
