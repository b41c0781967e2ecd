"""PKGD's figures 5 and 6 as grids of trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from efflib.papers.pkgd import claims
from efflib.papers.pkgd.arms import cells, embedding
from efflib.papers.table import Table, load_printed
from efflib.trials.trial import Trial

_PRINTED = load_printed(Path(__file__).with_name("printed.yaml"))

Entries = Iterator[tuple[dict[str, Any], int, Trial]]

# Figure 5. Smoke shows that the code runs, on rendered objects of Tiny ImageNet's size.
SMOKE_TIMED = ("resnet18", "vgg8")
_PAIRS = {"->".join(pair): pair for pair in (*claims.TINY_PAIRS, SMOKE_TIMED)}
TIMED = {"smoke": ("kd", "pkgd"), "tiny": claims.TIMED, "small": claims.TIMED, "paper": claims.TIMED}

# Figure 6: whose features are looked at, from the baseline on as the paper shows them.
SEEN = ("teacher", "baseline", "kd", "pkgd")


def _timed_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of figure 5: per seed and pair the teacher, the student alone, and every method."""
    own, dataset = ([SMOKE_TIMED], "objects64") if scale == "smoke" else (list(claims.TINY_PAIRS), "tiny_imagenet")
    pairs = [_PAIRS[name] for name in choices.get("pairs", ())] or own
    for seed in seeds:
        for teacher, student in pairs:
            yield from cells(scale, teacher, student, dataset, seed, choices.get("methods") or TIMED[scale])


def _clusters_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of figure 6: what the pooled features of each network of a pair look like."""
    from efflib.papers.pkgd.tables import SMOKE_PAIR  # tables.py takes the figures from here

    pair = {"smoke": SMOKE_PAIR, "tiny": claims.ABLATION}.get(scale, claims.VISUAL)
    dataset = "objects32" if scale == "smoke" else "cifar100"
    for seed in seeds:
        for cell, _, network in cells(scale, *pair, dataset, seed, ("kd", "pkgd")):
            if cell["method"] in (choices.get("methods") or SEEN):
                yield cell, seed, embedding(network)


figures = {
    "figure5": Table(
        "pkgd", "figure5", "Accuracy against training time on Tiny ImageNet", _PRINTED["figure5"],
        claims.CLAIMS["figure5"], _timed_grid,
        {"pairs": tuple(_PAIRS), "methods": claims.TIMED},
        across=("teacher", "student"),
    ),
    "figure6": Table(
        "pkgd", "figure6", "Clusters and attention maps", _PRINTED["figure6"],
        claims.CLAIMS["figure6"], _clusters_grid, {"methods": SEEN}, across=("teacher", "student"),
    ),
}  # fmt: skip
