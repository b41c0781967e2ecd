"""Findings 13 to 18, text against tables: ranks, depth, percentages, masking ratio and target layer."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from efflib.papers.bimask.audit.counting import depth_of, map_sizes
from efflib.papers.bimask.audit.estimates import rank_correlation
from efflib.papers.bimask.audit.evidence import Printed
from efflib.papers.bimask.audit.readers import average_of
from efflib.report.audit import Finding, exact


def _ranked(printed: Printed, model: str, dataset: str) -> list[tuple[str, float]]:
    """Methods of a column of Table 4 (without the baseline), best first."""
    cells = [c for c in printed.tables["table4"].numbers if c.keys["method"] != "baseline"]
    column = [c for c in cells if (c.keys["model"], c.keys["dataset"]) == (model, dataset)]
    return [(c.keys["method"], c.value) for c in sorted(column, key=lambda c: -c.value)]


def fourth_of_six(printed: Printed) -> Finding:
    ranked = _ranked(printed, "wrn_52_2", "cifar100")
    rank = [m for m, _ in ranked].index("bimask") + 1
    best = {(m, d): _ranked(printed, m, d)[0][0] for m in ("resnet18", "wrn_52_2") for d in ("cifar10", "cifar100")}
    marked = [c for c in printed.tables["table4"].numbers if c.printed.get("mark") == "underlined"]
    last = min(marked, key=lambda c: c.value)
    place = [m for m, _ in _ranked(printed, "resnet18", "cifar100")].index(last.keys["method"]) + 1
    ahead = ", ".join(f"{m} {v:.2f}" for m, v in ranked[: rank - 1])
    leads = sum(m == "bimask" for m in best.values())
    text = (
        f"BIMask is best in {leads} of {len(best)} columns. In the exception that the text names, "
        f"Wide-ResNet-50 on CIFAR-100, it is number {rank} of {len(ranked)} methods "
        f"({dict(ranked)['bimask']:.2f}, behind {ahead}). In the ResNet18 CIFAR-100 column {len(marked)} "
        f"values are underlined as second best; one of them, {last.value:.2f}, is number {place}."
    )
    rows = tuple({"rank": i + 1, "method": m, "Wide-ResNet-50, CIFAR-100": exact(v)} for i, (m, v) in enumerate(ranked))
    numbers = {"rank": rank, "methods": len(ranked), "underlined": len(marked), "underlined_rank": place}
    quotes = ("our proposed technique outperforms most of these state-of-the-art methods in nearly all cases",)
    title = "Where BIMask does not lead, it is fourth of six"
    return Finding("bimask-13", title, text, "text", "notable", ("table4",), rows, numbers, quotes)


def no_depth_trend(printed: Printed) -> Finding:
    gains = {d: printed.gains("table2", dataset=d, method="bimask") for d in ("cifar10", "cifar100")}
    depth = {m: depth_of(m) for m in gains["cifar10"]}
    rows = [
        {
            "model": m,
            "convolutions": depth[m],
            "gain, CIFAR-10": gains["cifar10"][m],
            "gain, CIFAR-100": gains["cifar100"][m],
        }
        for m in sorted(depth, key=lambda m: depth[m])
    ]
    numbers = {f"rank_correlation_{d}": rank_correlation(depth, g) for d, g in gains.items()}
    top = sorted(gains["cifar100"].items(), key=lambda item: -item[1])[:2]
    leaders = " and ".join(f"{model} {gain:.2f}" for model, gain in top)
    deep, flat = max(depth, key=lambda m: depth[m]), min(depth, key=lambda m: depth[m])
    text = (
        "The rank correlation of depth (number of convolutions) and gain over the eight networks is "
        f"{numbers['rank_correlation_cifar10']:+.2f} on CIFAR-10 and "
        f"{numbers['rank_correlation_cifar100']:+.2f} on CIFAR-100. On CIFAR-100 the largest gains are "
        f"{leaders}. The deepest network, {deep}, gains {gains['cifar10'][deep]:.2f} on CIFAR-10 and "
        f"{gains['cifar100'][deep]:.2f} on CIFAR-100, the shallowest, {flat}, {gains['cifar10'][flat]:.2f} "
        f"and {gains['cifar100'][flat]:.2f}. The printed numbers do not show the trend described."
    )
    quotes = (
        "with deeper networks (e.g., ResNet18) benefiting most from richer saliency maps",
        "It yields minimal improvements for shallow models",
    )
    title = "No trend with depth in the printed gains"
    return Finding("bimask-14", title, text, "text", "notable", ("table2",), tuple(rows), numbers, quotes)


def points_not_percent(printed: Printed) -> Finding:
    rows, numbers = [], {}
    for dataset in ("cifar10", "cifar100"):
        average = float(average_of(printed, "table2", dataset)["from_values"])
        base = fmean(
            c.value
            for c in printed.tables["table2"].numbers
            if {"dataset": dataset, "method": "baseline"}.items() <= c.keys.items()
        )
        relative = 100 * average / base
        rows.append({"dataset": dataset, "gain, points": average, "mean baseline": base, "relative gain, %": relative})
        numbers[f"relative_{dataset}"] = relative
    text = (
        "CIFAR-100 is called the larger data set and large-scale, but both have the same number of "
        "images of the same size. The averages given with a % sign are percentage points; relative to "
        f"the mean baseline they would be {numbers['relative_cifar10']:.2f} % and "
        f"{numbers['relative_cifar100']:.2f} %."
    )
    quotes = (
        "sustains this improvement on the larger CIFAR-100 dataset",
        "each containing 60,000 color images of size 32×32 pixels",
        "average gains of 0.90% on CIFAR-10 and 0.76% on CIFAR-100",
    )
    title = "Percentage points, and a data set of the same size"
    return Finding("bimask-15", title, text, "text", "minor", ("table2",), tuple(rows), numbers, quotes)


def ratio_of_resnets(printed: Printed) -> Finding:
    cells = [c for c in printed.tables["table7"].numbers if "masking_ratio" in c.keys]
    models = sorted({c.keys["model"] for c in cells})
    rows, numbers = [], {}
    for dataset in ("cifar10", "cifar100"):
        best = max((c for c in cells if c.keys["dataset"] == dataset), key=lambda c: c.value)
        rows.append(
            {
                "model": best.keys["model"],
                "dataset": dataset,
                "best ratio": best.keys["masking_ratio"],
                "accuracy": exact(best.value),
            }
        )
        numbers[f"best_{dataset}"] = best.keys["masking_ratio"]
    text = (
        f"A ratio of 7.5 % is used for ResNets, but the only sweep, Table 7, is on {', '.join(models)}, "
        f"where {numbers['best_cifar10']:.0%} is best on CIFAR-10 and {numbers['best_cifar100']:.0%} on "
        "CIFAR-100. No sweep on a ResNet is shown, and the VGG ratio appears to have been chosen on the "
        "test sets on which it is reported."
    )
    numbers["models_in_sweep"] = len(models)
    quotes = ("We also used a masking ratio of 7.5% and 10% for ResNet and VGG models, respectively.",)
    title = "The masking ratio of the ResNets has no sweep"
    tables = ("table2", "table3", "table7")
    return Finding("bimask-16", title, text, "text", "notable", tables, tuple(rows), numbers, quotes)


def always_the_last_layer(printed: Printed) -> Finding:
    layers = sorted({c.keys["conv_index"] for c in printed.tables["table6"].numbers if "conv_index" in c.keys})
    text = (
        "The last convolution is said to be the target in all experiments, while Table 6 varies it over "
        f"{len(layers)} positions ({', '.join(map(str, layers))}). The text speaks of blocks there, the "
        "table of layers."
    )
    quotes = (
        "In all the experiments, we used the last convolutional layer as the target layer.",
        "BIMask Learning was applied separately to the last four convolutional blocks",
        "targeting individual layer of the last four convolutional layers",
    )
    title = "One target layer, or four"
    numbers = {"layers": len(layers)}
    return Finding("bimask-17", title, text, "text", "minor", ("table6",), (), numbers, quotes)


def same_resolution(printed: Printed) -> Finding:
    sizes = map_sizes("vgg13")
    rows, numbers = [], {}
    for index in (-4, -3, -2, -1):
        row: dict[str, Any] = {"convolution": index, "map": "×".join(map(str, sizes[index]))}
        for dataset in ("cifar10", "cifar100"):
            row[dataset] = exact(printed.value("table6", dataset=dataset, conv_index=index))
        rows.append(row)
    for dataset in ("cifar10", "cifar100"):
        values = [row[dataset] for row in rows]
        numbers[f"span_{dataset}"] = float(max(values) - min(values))
    distinct = {row["map"] for row in rows}
    numbers["map_sizes"] = len(distinct)
    text = (
        "Table 6 attributes its trend to semantic depth. All four layers of VGG13 have maps of "
        f"{', '.join(sorted(distinct))}, so resolution does not vary; the accuracies span "
        f"{numbers['span_cifar10']:.2f} points on CIFAR-10 and {numbers['span_cifar100']:.2f} on "
        "CIFAR-100."
    )
    quotes = ("deeper layers capture higher-level semantic features",)
    title = "The four layers of Table 6 have the same resolution"
    return Finding("bimask-18", title, text, "text", "minor", ("table6",), tuple(rows), numbers, quotes)
