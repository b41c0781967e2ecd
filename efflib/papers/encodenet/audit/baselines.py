"""Findings 9 to 12, consistency of baselines: within the paper, and against plain training elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from efflib.models import parameters_of
from efflib.papers.encodenet.audit.evidence import DATASETS, HOME, TEXT, Printed, spelt
from efflib.papers.table import load_paper, load_printed
from efflib.report.audit import Finding, compare_baselines, match_references, words_of


def resnet20_on_cifar100(printed: Printed) -> Finding:
    wide, narrow = (parameters_of(m, 100) for m in ("resnet18", "resnet20"))
    places = (
        ("resnet20", "table2", {"model": "resnet20", "dataset": "cifar100"}),
        ("resnet18", "table2", {"model": "resnet18", "dataset": "cifar100"}),
        ("resnet32", "table4", {"student": "resnet32"}),
    )
    rows: list[dict[str, Any]] = []
    for model, table, keys in places:
        found = {m: printed.value(table, method=m, **keys) for m in ("baseline", "encodenet")}
        rows.append({"model": model, "parameters": f"{parameters_of(model, 100):,}", "where": table, **found})
    teacher = printed.value("table4", student="resnet32", method="teacher")
    size = f"{parameters_of('resnet110', 100):,}"
    rows.append({"model": "resnet110", "parameters": size, "where": "table4", "baseline": teacher, "encodenet": None})
    own, big, deeper = rows[:3]
    public = printed.quoted("repdistiller", model="resnet20")
    above = {
        "resnet18": own["baseline"] - big["baseline"],
        "resnet32": own["baseline"] - deeper["baseline"],
        "public": own["baseline"] - public,
    }
    text = (
        f"ResNet20 on CIFAR-100 is printed with {own['baseline']:.2f} %, the same number as the ResNet110 teacher in "
        f"Table 4 ({teacher:.2f}). It lies {above['resnet32']:.2f} points above ResNet32 and {above['resnet18']:.2f} "
        f"above ResNet18, which is {wide / narrow:.0f} times as large, and {above['public']:.2f} above a public "
        f"ResNet20 ({public:.2f}). With EncodeNet, ResNet20 ({own['encodenet']:.2f}) would beat ResNet32 "
        f"({deeper['encodenet']:.2f}) and ResNet18 ({big['encodenet']:.2f}). The row appears to belong to another "
        "network, or the cells are mis-transcribed; the abstract quotes them."
    )
    numbers = {f"above_{name}": float(value) for name, value in above.items()}
    numbers |= {"size_ratio": wide / narrow, "equals_the_teacher": own["baseline"] == teacher}
    numbers |= {"above_resnet32_with": float(own["encodenet"] - deeper["encodenet"])}
    numbers |= {"above_resnet18_with": float(own["encodenet"] - big["encodenet"])}
    title = "ResNet20's CIFAR-100 baseline equals that of ResNet110"
    sources = printed.sources("repdistiller")
    return Finding(
        "encodenet-9",
        title,
        text,
        "baselines",
        "major",
        ("table2", "table4"),
        tuple(rows),
        numbers,
        words_of(TEXT, "headline"),
        sources,
    )


@cache
def _bimask() -> dict[str, Any]:
    """BIMask's printed baselines as a reference: the same networks and data in another paper of this book."""
    path = HOME.parent / "bimask" / "printed.yaml"
    cells = [c for c in load_printed(path)["table2"].numbers if c.keys["method"] == "baseline"]
    values = [{**c.keys, "value": c.value} for c in cells]
    return {"id": "bimask", "name": "BIMask, Table 2", "source": load_paper(path)["reference"], "values": values}


def weak_baselines(printed: Printed) -> Finding:
    below = {
        (dataset, method): printed.value("table2", model="resnet20", dataset=dataset, method=method)
        - printed.value("table2", model="resnet18", dataset=dataset, method=method)
        for dataset in DATASETS
        for method in ("baseline", "encodenet")
    }
    quoted = match_references([printed.tables["table2"]], [*printed.references.values(), _bimask()])
    rows = []
    for row in quoted:
        model, dataset, _ = row["cell"].split(", ")
        ours = printed.value("table2", model=model, dataset=dataset, method="encodenet")
        kept = {k: row[k] for k in ("printed", "quoted", "reference")}
        rows.append({"model": model, "dataset": dataset, **kept, "with EncodeNet": ours})
    at_least = [row for row in rows if row["quoted"] >= row["with EncodeNet"]]
    listed = "; ".join(
        f"{spelt(r['model'])} on {spelt(r['dataset'])} {r['quoted']:.2f} ({r['reference']}; with EncodeNet "
        f"{r['with EncodeNet']:.2f})"
        for r in at_least
    )
    weak = dict.fromkeys(spelt(row["model"]) for row in at_least)
    same = [row for row in rows if row["quoted"] == row["printed"]]
    equal = "; ".join(
        f"{spelt(r['model'])} on {spelt(r['dataset'])}, {r['printed']:.2f} ({r['reference']})" for r in same
    )
    wide, narrow = (parameters_of(m, 10) / 1e6 for m in ("resnet18", "resnet20"))
    text = (
        f"ResNet18 ({wide:.1f} M parameters) lies below ResNet20 ({narrow:.2f} M) in "
        f"{sum(v > 0 for v in below.values())} of {len(below)} comparisons, by {min(below.values()):.2f} to "
        f"{max(below.values()):.2f} points. Some networks trained plainly elsewhere are as good as those with "
        f"EncodeNet, or better: {listed}. A baseline that equals a published number to the digit: {equal}; it may be "
        f"chance. The recipes behind these numbers differ, but {' and '.join(weak)} do not appear to be as well "
        "trained as the abstract says, which leaves room for any longer training."
    )
    numbers: dict[str, float] = {
        "resnet18_below": sum(v > 0 for v in below.values()),
        "at_least_with_encodenet": len(at_least),
    }
    numbers |= {"smallest": float(min(below.values())), "largest": float(max(below.values())), "equal": len(same)}
    numbers |= {f"{r['model']}_{r['dataset']}_missing": float(r["quoted"] - r["printed"]) for r in at_least}
    title = "Some baselines are below what plain training gives elsewhere"
    return Finding(
        "encodenet-10",
        title,
        text,
        "baselines",
        "major",
        ("table2", "table3"),
        tuple(rows),
        numbers,
        words_of(TEXT, "well_trained"),
        (*printed.sources("pytorch_cifar", "pytorch_cifar100", "repdistiller"), _bimask()["source"]),
    )


def two_baselines(printed: Printed) -> Finding:
    rows = [row for row in compare_baselines(printed.tables.values()) if not row["agrees"]]
    apart = {row["model"]: max(row["values"].values()) - min(row["values"].values()) for row in rows}
    own = {t: printed.value(t, method="encodenet", dataset="cifar100", **keys) for t, keys in _VGG8.items()}
    text = (
        f"{' and '.join(map(spelt, apart))} have two CIFAR-100 baselines each, "
        f"{' and '.join(f'{v:.2f}' for v in apart.values())} points apart: "
        f"{'; '.join(_both(row['values']) for row in rows)}. EncodeNet's VGG8 is the same in both tables "
        f"({own['table2']:.2f} and {own['table4']:.2f}). By the text, EncodeNet was trained in TensorFlow and the "
        "peers of Table 4 in a PyTorch repository: the number appears to be reused beside baselines of another "
        "framework, whose default recipe differs too."
    )
    numbers: dict[str, float] = {"pairs": len(rows), "same_result": own["table2"] == own["table4"]}
    numbers |= {f"apart_{model}": float(value) for model, value in apart.items()}
    title, tables = "VGG8 and VGG16 have two baselines, EncodeNet's VGG8 has one result", ("table2", "table4")
    return Finding(
        "encodenet-11",
        title,
        text,
        "baselines",
        "notable",
        tables,
        tuple(rows),
        numbers,
        words_of(TEXT, "framework", "repository"),
    )


_VGG8 = {"table2": {"model": "vgg8"}, "table4": {"student": "vgg8"}}


def _both(values: Mapping[str, Decimal]) -> str:
    return " and ".join(f"{v:.2f} ({place.split('.')[1]})" for place, v in values.items())


def baseline_of_table5(printed: Printed) -> Finding:
    own = printed.value("table5", method="baseline")
    public = printed.quoted("ema_module", method="baseline")
    fact, (rate, decay) = printed.facts["peer_recipes"], TEXT["rate"].numbers
    (epochs,) = TEXT["baseline_epochs"].numbers
    text = (
        f"The ResNet50 baseline is {own:.2f} %, in the literature that the peer rows match {public:.2f} %. Section 4.1 "
        f"gives baselines {epochs} epochs, a rate of {float(rate):g} and a weight decay of {float(decay):g}; the code "
        f"of GAM's authors has {fact['attention_epochs']} epochs and {fact['attention_weight_decay']:g} as defaults. "
        "So the rows of Table 5 appear to stem from two recipes."
    )
    numbers = {"baseline": float(own), "published": float(public), "difference": float(own - public)}
    numbers |= {"weight_decay": float(decay), "peers_weight_decay": fact["attention_weight_decay"]}
    title = "The rows of Table 5 appear to come from two recipes"
    sources = printed.sources("ema_module", "peer_recipes")
    quotes = words_of(TEXT, "rate", "baseline_epochs")
    return Finding("encodenet-12", title, text, "baselines", "notable", ("table5",), (), numbers, quotes, sources)
