"""Finding 23, what checks out: gains, repeated accuracies, sizes."""

from __future__ import annotations

import re
from statistics import fmean
from typing import Any

from efflib.papers.encodenet.audit.evidence import DATASETS, MODELS, TEST, TEXT, TRAINING, Printed, spelt
from efflib.report.audit import Finding, label, recompute_gains


def _repeated(printed: Printed) -> list[dict[str, Any]]:
    """Accuracies that the text repeats, beside their cells."""
    vgg16, resnet20 = ({"model": m, "dataset": d} for m, d in (("vgg16", "cifar10"), ("resnet20", "cifar100")))
    arms = ("baseline", "encodenet")
    cells: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "headline": [("table2", {**keys, "method": m}) for keys in (vgg16, resnet20) for m in arms],
        "attention": [("table5", {"method": m}) for m in arms],
        "identity": [("table3", {"target": "identity"})],
        "class": [("table3", {"target": "class"})],
        "cluster": [("table3", {"target": "cluster"})],
        "gam_accuracy": [("table5", {"method": m}) for m in ("gam", "encodenet")],
    }
    return [
        {
            "where": TEXT[name].where,
            "table": table,
            "cell": label(keys),
            "stated": stated,
            "printed": printed.value(table, **keys),
        }
        for name, places in cells.items()
        for stated, (table, keys) in zip(TEXT[name].numbers, places)
    ]


def checked(printed: Printed) -> Finding:
    gains = recompute_gains([printed.tables["table3"]])
    rows = _repeated(printed)
    equal = sum(row["stated"] == row["printed"] for row in rows)
    own = {d: {m: printed.gain("table2", model=m, dataset=d, method="encodenet") for m in MODELS} for d in DATASETS}
    every = [gain for found in own.values() for gain in found.values()]
    means = {d: fmean(map(float, found.values())) for d, found in own.items()}
    best = [f"{spelt(max(found, key=found.__getitem__))} on {spelt(d)}" for d, found in own.items()]
    resnet18 = {"model": "resnet18", "dataset": "cifar10"}
    shared = [
        printed.value("table2", method=m, **resnet18) == printed.value("table3", method=m, **target)
        for m, target in (("baseline", {}), ("encodenet", {"target": "cluster"}))
    ]
    sizes = [int(n) for n in re.findall(r"\d+", TEXT["cifar10"].words.replace(",", ""))]
    right = (sizes[0], *sizes[-2:]) == (TRAINING + TEST, TRAINING, TEST)
    text = (
        f"{sum(r['agrees'] for r in gains)} of {len(gains)} gains of Table 3 follow from its accuracies, and "
        f"{sum(shared)} of the {len(shared)} rows that Table 2 has too are the same there. {equal} of {len(rows)} "
        "accuracies that the text repeats are those of the tables (encodenet-3 is the other). EncodeNet gains in "
        f"{sum(g > 0 for g in every)} of {len(every)} cells of Table 2, by {min(every):.2f} to {max(every):.2f} "
        f"points, on average {means['cifar10']:.2f} on CIFAR-10 and {means['cifar100']:.2f} on CIFAR-100; the largest "
        f"gains are those of {' and '.join(best)}. The stated sizes of CIFAR-10 are "
        f"{'right' if right else 'not those of the data set'}."
    )
    numbers = {
        "gains": len(gains),
        "gains_that_agree": sum(r["agrees"] for r in gains),
        "repeated": len(rows),
        "equal": equal,
        "shared": sum(shared),
    }
    numbers |= {f"mean_{d}": value for d, value in means.items()} | {"positive": sum(g > 0 for g in every)}
    numbers |= {"smallest": float(min(every)), "largest": float(max(every)), "sizes": right}
    numbers |= {f"{m}_{d}": float(gain) for d, found in own.items() for m, gain in found.items()}
    title, tables = "What checks out: gains, repeated accuracies, sizes", ("table2", "table3", "table5")
    return Finding("encodenet-23", title, text, "arithmetic", "minor", tables, tuple(rows), numbers)
