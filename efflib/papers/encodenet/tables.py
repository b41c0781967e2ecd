"""EncodeNet's tables: which trials repeat each of them at each scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from efflib.papers import cifar
from efflib.papers.distillation import Options
from efflib.papers.encodenet import arms, claims
from efflib.papers.table import PrintedCell, PrintedTable, Table, load_printed
from efflib.trials.trial import Trial

PRINTED = load_printed(Path(__file__).with_name("printed.yaml"))

Entries = Iterator[tuple[dict[str, Any], int, Trial]]

# Spec, section 5, "Reduced". Smoke shows that the code runs.
SMOKE = ("vgg8", "objects32")
MODELS = {"smoke": ("vgg8",), "tiny": ("resnet20",), "small": ("vgg8", "resnet20"), "paper": claims.MODELS}
DATASETS = {"smoke": ("objects32",), "tiny": ("cifar10",), "small": claims.DATASETS, "paper": claims.DATASETS}
ABLATED = {"smoke": SMOKE, "tiny": (claims.REDUCED, "cifar10"), "small": (claims.REDUCED, "cifar10")}
PAIRS = {
    "smoke": (("vgg13", "vgg8"),),
    "tiny": (("resnet56", "resnet20"),),  # trained already for PKGD
    "small": (claims.PAIRS[1],),
    "paper": claims.PAIRS,
}
ATTENTION = {
    "smoke": ("cbam",),
    "tiny": ("se", "bam", "cbam"),
    "small": ("se", "bam", "cbam"),
    "paper": claims.ATTENTION,
}

# Table 3: readings and targets of the grid, then what has no place in it.
SCRATCH = ("encodenet", "finetune", "scratch_last_stage", "scratch_adapt_bn")
EQUAL_BUDGET = (*SCRATCH[:2], "baseline_long")  # both main readings, and the baseline for as many FLOPs
READINGS = {"smoke": SCRATCH[:2], "tiny": SCRATCH, "small": tuple(arms.READINGS), "paper": tuple(arms.READINGS)}
BUDGETS = {"smoke": ("head_only",), "tiny": arms.BUDGETS, "small": arms.BUDGETS, "paper": arms.BUDGETS}
_SOURCES = ("cluster_penultimate", "cluster_vgg16")  # one of them is the scale's own
_ALL_CODES = tuple(target for target in arms.OTHER_CODES if target not in _SOURCES)
CODES = {
    "smoke": (),
    "tiny": ("rand_rep", "noise_code"),
    "small": _ALL_CODES,
    "paper": (*_ALL_CODES, "cluster_penultimate"),
}


def contender(scale: str, parent: Trial, method: str, target: str = "cluster", source: str | None = None) -> Trial:
    """The trial of a method: the baseline, a control without codes, or a reading on its codes."""
    makers: dict[str, Callable[[], Trial]] = {
        "baseline": lambda: parent,
        "baseline_long": lambda: arms.baseline_long(scale, parent),
        "baseline_warm": lambda: arms.baseline_warm(scale, parent),
        "head_only": lambda: arms.head_only(scale, parent),
        "subclass": lambda: arms.subclass(scale, parent, "frozen", source),
        "subclass_finetune": lambda: arms.subclass(scale, parent, "finetune", source),
    }
    return makers[method]() if method in makers else arms.encodenet(scale, parent, method, target, source)


def _source(choices: dict[str, tuple]) -> str | None:
    """The features to cluster, where the caller chose them."""
    chosen = choices.get("features", ())
    if len(chosen) > 1:
        raise ValueError(f"features={list(chosen)}: one run clusters one kind of features, choose one of them")
    return chosen[0] if chosen else None


def _loss_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 1: the autoencoder of each network with class and with cluster codes."""
    dataset = "objects32" if scale == "smoke" else "cifar10"
    for seed in seeds:
        for model in choices.get("models") or MODELS[scale]:
            parent = arms.baseline(scale, model, dataset, seed)
            for target in ("class", "cluster"):
                cell = {"model": model, "dataset": dataset, "target": target}
                yield cell, seed, arms.autoencoder(scale, parent, target, source=_source(choices))


def _gain_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 2: each network's baseline, both readings, and the baseline of equal budget."""
    methods = choices.get("methods") or EQUAL_BUDGET
    for seed in seeds:
        for dataset in choices.get("datasets") or DATASETS[scale]:
            for model in choices.get("models") or MODELS[scale]:
                parent = arms.baseline(scale, model, dataset, seed)
                for method in ("baseline", *methods):
                    cell = {"model": model, "dataset": dataset, "method": method}
                    yield cell, seed, contender(scale, parent, method, source=_source(choices))


def _ablation_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 3: three targets in every reading, then the controls of budget, labels and codes."""
    model, dataset = ABLATED.get(scale, (claims.ABLATED, "cifar10"))
    chosen = choices.get("methods") or (*READINGS[scale], *BUDGETS[scale])
    readings = [name for name in chosen if name in arms.READINGS]
    own = choices.get("targets")
    for seed in seeds:
        parent = arms.baseline(scale, model, dataset, seed)
        for method in ("baseline", *(name for name in chosen if name not in arms.READINGS)):
            cell = {"model": model, "dataset": dataset, "method": method}
            yield cell, seed, contender(scale, parent, method, source=_source(choices))
        for target in own or (*arms.TARGETS, *CODES[scale]):
            # Codes other than the paper's are asked of the two main readings only.
            asked = readings if target in arms.TARGETS else [name for name in readings if name in SCRATCH[:2]]
            for method in asked:
                cell = {"model": model, "dataset": dataset, "method": method, "target": target}
                yield cell, seed, contender(scale, parent, method, target, _source(choices))


def _distillation_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 4: per pair the teacher, the student alone, its distilled copies, and EncodeNet without teacher."""
    named = {"->".join(pair): pair for pairs in PAIRS.values() for pair in pairs}
    pairs = [named[name] for name in choices.get("pairs", ())] or PAIRS[scale]
    methods = choices.get("methods") or (("kd",) if scale == "smoke" else claims.PEERS) + EQUAL_BUDGET
    dataset = "objects32" if scale == "smoke" else "cifar100"
    training = arms.distillation_training(scale)
    for seed in seeds:
        for pair in pairs:
            guide, alone = (arms.baseline(scale, model, dataset, seed, training) for model in pair)
            cell = {"teacher": pair[0], "student": pair[1], "dataset": dataset}
            yield {**cell, "method": "teacher"}, seed, guide
            for method in ("baseline", *methods):
                yield {**cell, "method": method}, seed, _pupil(scale, guide, alone, method, _source(choices))


def _pupil(scale: str, guide: Trial, alone: Trial, method: str, source: str | None) -> Trial:
    if method not in claims.PEERS:
        return contender(scale, alone, method, source=source)
    about: Any = alone.settings
    # FT's paraphraser learns at the students' own rate beside VGG (spec, section 4.4).
    options: Options = {"prepare_lr": 0.05} if (method, about.model) == ("ft", "vgg8") else {}
    return cifar.distilled(scale, method, about.model, guide, options, arms.distillation_training(scale))


def _attention_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 5: ResNet50, the same with attention modules, and EncodeNet."""
    dataset = "objects32" if scale == "smoke" else "cifar100"
    # In the minute of a smoke page, the autoencoder of so deep a network learns nothing: tables 1 to 4 show it.
    own = ATTENTION[scale] if scale == "smoke" else (*ATTENTION[scale], *EQUAL_BUDGET)
    training = arms.attention_training(scale)
    for seed in seeds:
        parent = arms.baseline(scale, "resnet50", dataset, seed, training)
        for method in ("baseline", *(choices.get("methods") or own)):
            cell = {"model": "resnet50", "dataset": dataset, "method": method}
            if method in claims.ATTENTION:
                yield cell, seed, arms.baseline(scale, claims.row_network(method), dataset, seed, training)
            else:
                yield cell, seed, contender(scale, parent, method, source=_source(choices))


def _sizes_grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
    """Grid of table 5's column of parameters: the same counts at every scale and seed."""
    for method in ("baseline", *claims.ATTENTION, "encodenet"):
        cell = {"model": "resnet50", "dataset": "cifar100", "method": method}
        yield cell, seeds[0], Trial.of("parameter_count", model=claims.row_network(method), classes=100)


def in_millions(cell: Mapping[str, Any], metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """View of the column of parameters: also in millions with two decimals, as they are printed."""
    return {**metrics, "millions": round(metrics["parameters"] / 1e6, 2)}


def _printed_sizes() -> PrintedTable:
    """The other column of table 5, which its cells print beside the accuracy: "26.22 M"."""
    accuracies = PRINTED["table5"]
    cells = tuple(PrintedCell(cell.keys, float(cell.millions), printed=cell.printed) for cell in accuracies.cells)
    metric = {"name": "parameters", "unit": "millions"}
    return replace(accuracies, id="table5_parameters", metric=metric, cells=cells)


_FEATURES = {"features": ("baseline_penultimate", "baseline_mid", "imagenet_vgg16", "pixels")}
_DATASETS = (*claims.DATASETS, "objects32")
_PAIR_NAMES = tuple(dict.fromkeys("->".join(pair) for scale in ("paper", "tiny", "smoke") for pair in PAIRS[scale]))
_ABLATION_METHODS = (*arms.READINGS, *arms.BUDGETS)
_ABLATION_TARGETS = (*arms.TARGETS, *arms.OTHER_CODES)

tables = {
    "table1": Table(
        "encodenet", "table1", "Does clustering lower the reconstruction loss?", PRINTED["table1"],
        claims.CLAIMS["table1"], _loss_grid, {"models": claims.MODELS, **_FEATURES}, across=("dataset", "target"),
        measures=("train_mse", "test_mse", "train_nmse", "test_nmse"),
    ),
    "table2": Table(
        "encodenet", "table2", "Four networks with and without EncodeNet", PRINTED["table2"],
        claims.CLAIMS["table2"], _gain_grid,
        {"models": claims.MODELS, "datasets": _DATASETS, "methods": (*SCRATCH, *arms.BUDGETS), **_FEATURES},
    ),
    "table3": Table(
        "encodenet", "table3", "What the autoencoder's target is good for", PRINTED["table3"],
        claims.CLAIMS["table3"], _ablation_grid,
        {"methods": _ABLATION_METHODS, "targets": _ABLATION_TARGETS, **_FEATURES}, across=(),
    ),
    "table4": Table(
        "encodenet", "table4", "EncodeNet against distillation", PRINTED["table4"], claims.CLAIMS["table4"],
        _distillation_grid, {"pairs": _PAIR_NAMES, "methods": (*claims.PEERS, *EQUAL_BUDGET), **_FEATURES},
        across=("teacher", "student"),
    ),
    "table5": Table(
        "encodenet", "table5", "EncodeNet against attention modules", PRINTED["table5"], claims.CLAIMS["table5"],
        _attention_grid, {"methods": (*claims.ATTENTION, *EQUAL_BUDGET), **_FEATURES}, across=(),
    ),
    "table5_parameters": Table(
        "encodenet", "table5_parameters", "Parameters", _printed_sizes(), (), _sizes_grid, {}, across=(),
        measures=("millions", "parameters"), view=in_millions, page="table5",
    ),
}  # fmt: skip
