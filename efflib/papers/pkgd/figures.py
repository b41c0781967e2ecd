"""PKGD's figures 5 and 6 as grids of trials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from efflib.papers.pkgd import claims
from efflib.papers.pkgd.arms import SMOKE_PAIR, cells, embedding
from efflib.trials.trial import Trial

Entries = Iterator[tuple[dict[str, Any], int, Trial]]

# Figure 5. Smoke shows that the code runs, on rendered objects of Tiny ImageNet's size.
SMOKE_TIMED = ("resnet18", "vgg8")
PAIRS = {"->".join(pair): pair for pair in (*claims.TINY_PAIRS, SMOKE_TIMED)}
TIMED = {"smoke": ("kd", "pkgd"), "tiny": claims.TIMED, "small": claims.TIMED, "paper": claims.TIMED}

# Figure 6: whose features are looked at, from the baseline on as the paper shows them.
SEEN = ("teacher", "baseline", "kd", "pkgd")


def timed_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of figure 5: per seed and pair the teacher, the student alone, and every method."""
    own, dataset = ([SMOKE_TIMED], "objects64") if scale == "smoke" else (list(claims.TINY_PAIRS), "tiny_imagenet")
    pairs = [PAIRS[name] for name in choices.get("pairs", ())] or own
    for seed in seeds:
        for teacher, student in pairs:
            yield from cells(scale, teacher, student, dataset, seed, choices.get("methods") or TIMED[scale])


def clusters_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of figure 6: what the pooled features of each network of a pair look like."""
    pair = {"smoke": SMOKE_PAIR, "tiny": claims.ABLATION}.get(scale, claims.VISUAL)
    dataset = "objects32" if scale == "smoke" else "cifar100"
    for seed in seeds:
        for cell, _, network in cells(scale, *pair, dataset, seed, ("kd", "pkgd")):
            if cell["method"] in (choices.get("methods") or SEEN):
                yield cell, seed, embedding(network)
