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


def _cifar100_rows(printed: Printed) -> list[dict[str, Any]]:
    """ResNet20, ResNet18, ResNet32 and the teacher ResNet110, as printed for CIFAR-100."""
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
    return [
        *rows,
        {"model": "resnet110", "parameters": size, "where": "table4", "baseline": teacher, "encodenet": None},
    ]


def resnet20_on_cifar100(printed: Printed) -> Finding:
    """Finding 9: ResNet20's CIFAR-100 row does not fit a network of its size."""
    rows = _cifar100_rows(printed)
    own, big, deeper, teacher = rows
    ratio = parameters_of("resnet18", 100) / parameters_of("resnet20", 100)
    public = printed.quoted("repdistiller", model="resnet20")
    others = {"resnet18": big["baseline"], "resnet32": deeper["baseline"], "public": public}
    above = {name: own["baseline"] - value for name, value in others.items()}
    text = (
        f"ResNet20 on CIFAR-100 is printed with {own['baseline']:.2f} %, the same number as the ResNet110 teacher in "
        f"Table 4 ({teacher['baseline']:.2f}). It lies {above['resnet32']:.2f} points above ResNet32 and "
        f"{above['resnet18']:.2f} above ResNet18, which is {ratio:.0f} times as large, and {above['public']:.2f} above "
        f"a public ResNet20 ({public:.2f}). With EncodeNet, ResNet20 ({own['encodenet']:.2f}) would beat ResNet32 "
        f"({deeper['encodenet']:.2f}) and ResNet18 ({big['encodenet']:.2f}). The row appears to belong to another "
        "network, or the cells are mis-transcribed; the abstract quotes them."
    )
    numbers = {f"above_{name}": float(value) for name, value in above.items()}
    numbers |= {"size_ratio": ratio, "equals_the_teacher": own["baseline"] == teacher["baseline"]}
    numbers |= {"above_resnet32_with": float(own["encodenet"] - deeper["encodenet"])}
    numbers |= {"above_resnet18_with": float(own["encodenet"] - big["encodenet"])}
    title = "ResNet20's CIFAR-100 baseline equals that of ResNet110"
    tables, quotes, sources = ("table2", "table4"), words_of(TEXT, "headline"), printed.sources("repdistiller")
    return Finding("encodenet-9", title, text, "baselines", "major", tables, tuple(rows), numbers, quotes, sources)


@cache
def _bimask() -> dict[str, Any]:
    """BIMask's printed baselines as a reference: the same networks and data in another paper of this book."""
    path = HOME.parent / "bimask" / "printed.yaml"
    cells = [c for c in load_printed(path)["table2"].numbers if c.keys["method"] == "baseline"]
    values = [{**c.keys, "value": c.value} for c in cells]
    return {"id": "bimask", "name": "BIMask, Table 2", "source": load_paper(path)["reference"], "values": values}


def _below_resnet20(printed: Printed) -> list[Decimal]:
    """How far ResNet18 lies below ResNet20, in each of the comparisons of Table 2."""
    return [
        printed.value("table2", model="resnet20", dataset=dataset, method=method)
        - printed.value("table2", model="resnet18", dataset=dataset, method=method)
        for dataset in DATASETS
        for method in ("baseline", "encodenet")
    ]


def _quoted_rows(printed: Printed) -> list[dict[str, Any]]:
    """Baselines of Table 2 for which there is a number from elsewhere, and what EncodeNet makes of them."""
    rows = []
    for row in match_references([printed.tables["table2"]], [*printed.references.values(), _bimask()]):
        model, dataset, _ = row["cell"].split(", ")
        ours = printed.value("table2", model=model, dataset=dataset, method="encodenet")
        kept = {k: row[k] for k in ("printed", "quoted", "reference")}
        rows.append({"model": model, "dataset": dataset, **kept, "with EncodeNet": ours})
    return rows


def _network(row: Mapping[str, Any]) -> str:
    return f"{spelt(row['model'])} on {spelt(row['dataset'])}"


def weak_baselines(printed: Printed) -> Finding:
    """Finding 10: plain training elsewhere gives some networks what EncodeNet gives them, or more."""
    below, rows = _below_resnet20(printed), _quoted_rows(printed)
    lower = sum(value > 0 for value in below)
    at_least = [row for row in rows if row["quoted"] >= row["with EncodeNet"]]
    same = [row for row in rows if row["quoted"] == row["printed"]]
    listed = "; ".join(
        f"{_network(r)} {r['quoted']:.2f} ({r['reference']}; with EncodeNet {r['with EncodeNet']:.2f})"
        for r in at_least
    )
    equal = "; ".join(f"{_network(r)}, {r['printed']:.2f} ({r['reference']})" for r in same)
    weak = dict.fromkeys(spelt(row["model"]) for row in at_least)
    wide, narrow = (parameters_of(m, 10) / 1e6 for m in ("resnet18", "resnet20"))
    text = (
        f"ResNet18 ({wide:.1f} M parameters) lies below ResNet20 ({narrow:.2f} M) in {lower} of {len(below)} "
        f"comparisons, by {min(below):.2f} to {max(below):.2f} points. Some networks trained plainly elsewhere are as "
        f"good as those with EncodeNet, or better: {listed}. A baseline that equals a published number to the digit: "
        f"{equal}; it may be chance. The recipes behind these numbers differ, but {' and '.join(weak)} do not appear "
        "to be as well trained as the abstract says, which leaves room for any longer training."
    )
    numbers: dict[str, float] = {"resnet18_below": lower, "at_least_with_encodenet": len(at_least)}
    numbers |= {"smallest": float(min(below)), "largest": float(max(below)), "equal": len(same)}
    numbers |= {f"{r['model']}_{r['dataset']}_missing": float(r["quoted"] - r["printed"]) for r in at_least}
    title = "Some baselines are below what plain training gives elsewhere"
    tables, quotes = ("table2", "table3"), words_of(TEXT, "well_trained")
    sources = (*printed.sources("pytorch_cifar", "pytorch_cifar100", "repdistiller"), _bimask()["source"])
    return Finding("encodenet-10", title, text, "baselines", "major", tables, tuple(rows), numbers, quotes, sources)


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
