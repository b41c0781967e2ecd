"""The safety paper's tables: which trials repeat each of them at each scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from efflib.papers.safety import arms, claims
from efflib.papers.table import Table, load_printed
from efflib.quantize import GAMMAS
from efflib.trials.trial import Trial

PRINTED = load_printed(Path(__file__).with_name("printed.yaml"))

Entries = Iterator[tuple[dict[str, Any], int, Trial]]

# The published setting (preset `drift`): the paper's three rows, then our controls.
ROWS = ("float", "unsafe", "safe")
CONTROLS = {
    "mnist_cnn": ("safe_random", "extra_batch", "safe_leaking"),
    "names_decoder": ("safe_random", "extra_batch"),
}
METHODS: dict[str, dict[str, tuple[str, ...]]] = {
    "smoke": dict.fromkeys(arms.MODELS, ROWS),
    "tiny": dict.fromkeys(arms.MODELS, (*ROWS, "safe_random", "extra_batch")),
    "small": {model: (*ROWS, *CONTROLS[model]) for model in arms.MODELS},
    "paper": {model: (*ROWS, *CONTROLS[model]) for model in arms.MODELS},
}
# Our own setting (preset `default`), where bits are learned: weight of the penalty.
SWEEP = {"smoke": (0.1,), "tiny": (0.03, 0.3), "small": (0.01, 0.1), "paper": GAMMAS}


def published(scale: str, model: str, seed: int, method: str) -> Trial:
    """The trial of a row in the published setting."""
    if method == "float":
        return arms.float_twin(scale, model, seed)
    if method == "float_half":  # the published float decoder was trained for half as many steps
        return arms.float_twin(scale, model, seed, share=0.5)
    return arms.compressed(scale, model, seed, method)


def _grid(model: str, size_only: bool = False) -> Callable[[str, list[int], dict[str, tuple]], Entries]:
    """Rows of the published setting; then, but for the column of sizes, our own setting at several penalties."""

    def grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
        dataset = arms.SIZES[scale].datasets[model]
        methods = choices.get("methods") or _rows(scale, model, size_only)
        gammas = () if size_only else choices.get("gammas", () if choices.get("methods") else SWEEP[scale])
        for seed in seeds:
            for method in methods:
                cell = {"model": model, "dataset": dataset, "method": method}
                yield cell, seed, published(scale, model, seed, method)
            for gamma in gammas:
                for method in ("unsafe", "safe"):
                    cell = {"model": model, "dataset": dataset, "method": f"default_{method}", "gamma": gamma}
                    yield cell, seed, arms.compressed(scale, model, seed, method, "default", gamma=gamma)

    return grid


def _rows(scale: str, model: str, size_only: bool) -> tuple[str, ...]:
    if size_only:
        return ROWS
    extra = ("float_half",) if model == "names_decoder" and scale != "smoke" else ()
    return (*METHODS[scale][model], *extra)


_SIZES = ("soft_bytes", "chain_bytes", "tight_bytes", "file_bytes")


def _table(identifier: str, title: str, model: str) -> Table:
    allowed = (*ROWS, *CONTROLS[model], *(("float_half",) if model == "names_decoder" else ()))
    return Table(
        "safety", identifier, title, PRINTED[identifier], claims.CLAIMS[identifier], _grid(model),
        {"methods": allowed, "gammas": ()}, across=(), measures=("last", "test_best"),
    )  # fmt: skip


def _size_table(identifier: str, title: str, model: str, page: str) -> Table:
    return Table(
        "safety", identifier, title, PRINTED[identifier], claims.CLAIMS[identifier], _grid(model, size_only=True),
        {"methods": ROWS}, across=(), measures=_SIZES, page=page,
    )  # fmt: skip


tables = {
    "table1": _table("table1", "A CNN that compresses itself", "mnist_cnn"),
    "table1_bytes": _size_table("table1_bytes", "How large the CNN ends", "mnist_cnn", "table1"),
    "table2": _table("table2", "A decoder that compresses itself", "names_decoder"),
    "table2_bytes": _size_table("table2_bytes", "How large the decoder ends", "names_decoder", "table2"),
}
