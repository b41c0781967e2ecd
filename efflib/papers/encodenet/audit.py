"""The audit of the EncodeNet paper: 23 findings, recomputed from printed and published numbers and built networks.

Findings 1 to 20 are those of section 6 of the implementation spec; 21 and 22 judge descriptions of the method (sections
2.2 to 2.4), and 23 lists what checks out. No number below is typed from a finding: texts are formatted from computed
values, and numbers of the running text are read from quoted sentences. Wording is about the printed page ("as
printed", "appears"), never about intentions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from efflib.papers.baselines import SIZES
from efflib.papers.table import PrintedCell, PrintedTable, load_paper, load_printed
from efflib.report.audit import (
    Evidence,
    Finding,
    Sentence,
    compare_baselines,
    exact,
    half_up,
    label,
    match_references,
    recompute_gains,
    words_of,
)

if TYPE_CHECKING:
    import numpy as np

_HERE = Path(__file__).parent
_MODELS = ("vgg8", "vgg16", "resnet18", "resnet20")  # of tables 1 and 2
_DATASETS = ("cifar10", "cifar100")
_TRAINING, _TEST, *_ = SIZES["cifar10"]  # images, the same in both data sets
_CODES = {"class": 10, "cluster": 30}  # representative images on CIFAR-10: ten classes, three clusters each


# --- numbers of the running text --------------------------------------------------------------------------


TEXT = {
    "headline": Sentence(
        "abstract and section 1",
        "EncodeNet improves the accuracy of VGG16 from 92.64% to 94.05% on CIFAR-10, and RestNet20 from 74.56% to "
        "76.04% on CIFAR-100",
    ),
    "attention": Sentence(
        "section 1",
        "EncodeNet enhances the accuracy of ResNet50 on CIFAR-100 from 77.23% to 80.1%, outperforming attention",
    ),
    "no_teacher": Sentence("section 1", "It can be implemented even when large teacher models are unavailable"),
    "prior": Sentence("section 1", "was limited to 78-80% when passed to AlexNet or ResNet50 for inference"),
    "freezing": Sentence(
        "section 1",
        "We train the new DNN by freezing the pre-trained encoder layers and only training the remaining layers of the "
        "network",
    ),
    "layer": Sentence("section 3.2", "used the 13th layer to extract a feature map with a shape of (1,1,512)"),
    "best_clustering": Sentence(
        "section 3.2", "Among these three techniques, k-means clustering provided the best results"
    ),
    "elbow": Sentence("section 3.2", "we found that the elbow point was at k=3"),
    "entropy": Sentence("section 3.2", "The representative image is identified as the one that has the lowest entropy"),
    "loss": Sentence(
        "section 3.2", "the reconstruction loss of our autoencoder dropped by 46%, from 0.0012 to 0.00065"
    ),
    "rate": Sentence("section 4.1", "we set the learning rate 1e-1 and a weight decay of 1e-4"),
    "baseline_epochs": Sentence("section 4.1", "training sessions for the baseline models over 300 epochs"),
    "autoencoder_epochs": Sentence("section 4.1", "an extended training period of 500 epochs was necessary"),
    "framework": Sentence("section 4.1", "Our model is built on the TensorFlow framework [2]"),
    "repository": Sentence(
        "section 4.1", "we utilized the repository [1] that was built on the PyTorch framework [29]"
    ),
    "cifar10": Sentence(
        "section 4.2", "60,000 color images of size 32x32, of which 50,000 are used for training and 10,000 for testing"
    ),
    "vgg8": Sentence(
        "section 4.3",
        "VGG8 exhibited an increase in accuracy of 1.89% and 3.2% for the CIFAR-10 and CIFAR-100 datasets",
    ),
    "vgg16": Sentence(
        "section 4.3", "VGG16 demonstrated an improvement of approximately 1.8% to 2.0% in accuracy over the baseline"
    ),
    "identity": Sentence(
        "section 4.4",
        "the classification accuracy reduces to 89.26% (decrease of 1.86%), indicating ineffective feature learning",
    ),
    "class": Sentence("section 4.4", "increasing the accuracy to 92.11% (increase of 0.99%)"),
    "cluster": Sentence("section 4.4", "leads to the classification accuracy of 92.87% (increase of 1.75%)"),
    "distillation": Sentence(
        "section 4.5",
        "our method outperforms other knowledge distillation techniques for both ResNet and VGG networks",
    ),
    "gam_accuracy": Sentence(
        "section 4.6", "shows higher improvement in classification accuracy (81.33%) compared to EncodeNet (80.10%)"
    ),
    "gam": Sentence("section 4.6", "significantly increases the model parameter size (approx 5 times)"),
    "state_of_the_art": Sentence(
        "abstract",
        "It outperforms state-of-the-art techniques that rely on knowledge distillation and attention mechanisms",
    ),
    "well_trained": Sentence("abstract", "improving the accuracy of well-trained baseline DNNs"),
    "retrained": Sentence(
        "section 5", "subsequently retrain the autoencoder to convert the given images into representative images"
    ),
}


# --- what a finding may read ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Printed(Evidence):
    """What a finding may read."""

    tables: Mapping[str, PrintedTable]

    def value(self, table: str, **keys: Any) -> Decimal:
        return exact(self.tables[table].cell(**keys).value)

    def gain(self, table: str, **keys: Any) -> Decimal:
        """Value - printed baseline of the same table."""
        cell = self.tables[table].cell(**keys)
        base = self.tables[table].baseline(cell.keys)
        if base is None:
            raise ValueError(f"{label(cell.keys)} of {table} has no baseline")
        return exact(cell.value) - exact(base.value)

    def quoted(self, reference: str, **keys: Any) -> Decimal:
        """The number of a reference with these keys."""
        (found,) = (v["value"] for v in self.references[reference]["values"] if keys.items() <= v.items())
        return exact(found)


@cache
def load() -> _Printed:
    """printed.yaml and references.yaml of this paper, read once."""
    return _Printed.read(_HERE / "references.yaml", load_printed(_HERE / "printed.yaml"))


def findings(table: str | None = None) -> list[Finding]:
    """Findings about this paper, in the order of the implementation spec (section 6).

    Builds networks to count parameters and multiply-accumulates; the first call takes seconds, later ones do not.

    Args:
        table: only those about this table.
    """
    printed = load()
    made = [make(printed) for make in _FINDINGS]
    return [finding for finding in made if table is None or table in finding.tables]


# --- text against tables ----------------------------------------------------------------------------------


def readings(before: Decimal, after: Decimal) -> dict[str, Decimal]:
    """Ways to express an improvement of two accuracies in %: points, and relative to either or to the errors."""
    gain = after - before
    return {
        "points": gain,
        "% of the baseline": 100 * gain / before,
        "% of the result": 100 * gain / after,
        "% fewer errors": 100 * gain / (100 - before),
    }


def _improvements(printed: _Printed, model: str) -> list[dict[str, Any]]:
    """Per data set: baseline, EncodeNet, and every reading of the improvement."""
    rows = []
    for dataset in _DATASETS:
        before, after = (
            printed.value("table2", model=model, dataset=dataset, method=m) for m in ("baseline", "encodenet")
        )
        rows.append({"dataset": dataset, "baseline": before, "EncodeNet": after, **_rounded(readings(before, after))})
    return rows


def _rounded(values: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {name: half_up(value) for name, value in values.items()}


def _gains_of_vgg8(printed: _Printed) -> Finding:
    rows, stated = _improvements(printed, "vgg8"), TEXT["vgg8"].numbers
    exactly = [readings(row["baseline"], row["EncodeNet"]) for row in rows]
    nearest = sorted(exactly[0].values(), key=lambda value: abs(value - stated[0]))[0]
    first, second = (found["points"] for found in exactly)
    text = (
        f"The text gives improvements of {stated[0]} % and {stated[1]} % for VGG8; Table 2 gives {first:.2f} and "
        f"{second:.2f} points. The second is the table's, rounded. The first is not: the nearest of the readings below "
        f"is {nearest:.2f}."
    )
    numbers = {"off": float(abs(nearest - stated[0]))}
    for row, found, number in zip(rows, exactly, stated):
        numbers |= {f"{row['dataset']}_points": float(found["points"]), f"{row['dataset']}_stated": float(number)}
        numbers |= {f"{row['dataset']}_relative": float(found["% of the baseline"])}
    rows = [{**row, "stated": number} for row, number in zip(rows, stated)]
    title = "The gain of VGG8 on CIFAR-10 in the text is not that of Table 2"
    return Finding(
        "encodenet-1", title, text, "text", "minor", ("table2",), tuple(rows), numbers, words_of(TEXT, "vgg8")
    )


def _gains_of_vgg16(printed: _Printed) -> Finding:
    rows, (low, high) = _improvements(printed, "vgg16"), TEXT["vgg16"].numbers
    exactly = [readings(row["baseline"], row["EncodeNet"]) for row in rows]
    points = [found["points"] for found in exactly]
    relative = [found["% of the baseline"] for found in exactly]
    inside = sum(low <= value <= high for value in points)
    text = (
        f"The text gives about {low} to {high} % for VGG16; Table 2 gives {points[0]:.2f} and {points[1]:.2f} points, "
        f"of which {inside} lie in that range (relative to the baselines: {relative[0]:.2f} and {relative[1]:.2f} %)."
    )
    numbers = {"inside": inside, "stated_low": float(low), "stated_high": float(high)}
    for row, found in zip(rows, exactly):
        numbers |= {f"{row['dataset']}_points": float(found["points"])}
        numbers |= {f"{row['dataset']}_relative": float(found["% of the baseline"])}
    title = "The gains of VGG16 in the text are not those of Table 2"
    return Finding(
        "encodenet-2", title, text, "text", "minor", ("table2",), tuple(rows), numbers, words_of(TEXT, "vgg16")
    )


def _headline(printed: _Printed) -> Finding:
    stated = TEXT["headline"].numbers[1]
    value = printed.value("table2", model="vgg16", dataset="cifar10", method="encodenet")
    images = float((value - stated) * _TEST / 100)
    text = (
        f"Abstract and introduction give {stated} % for VGG16 with EncodeNet on CIFAR-10, Table 2 {value:.2f} %, a "
        f"difference of {images:.0f} test image in {_TEST:,}."
    )
    numbers = {"stated": float(stated), "table": float(value), "images": images}
    title = "The headline of VGG16 differs from Table 2 in the last digit"
    return Finding("encodenet-3", title, text, "text", "minor", ("table2",), (), numbers, words_of(TEXT, "headline"))


# --- table 1 ----------------------------------------------------------------------------------------------


def _losses(printed: _Printed) -> dict[str, dict[str, Decimal]]:
    """Model -> target -> loss of Table 1."""
    return {m: {t: printed.value("table1", model=m, target=t) for t in _CODES} for m in _MODELS}


def _drop(before: Decimal, after: Decimal) -> float:
    """Relative fall in %; negative for a rise."""
    return float(100 * (before - after) / before)


def pixel_variance(dataset: str = "cifar10") -> float:
    """Mean over channels of the variance of a pixel in [0, 1]: the loss of an output of one constant colour."""
    from efflib.data.sets import NORMALISATION

    _, deviations = NORMALISATION[dataset]
    return fmean(deviation**2 for deviation in deviations)


def _loss_with_clustering(printed: _Printed) -> Finding:
    losses, flat = _losses(printed), pixel_variance()
    rows: list[dict[str, Any]] = [
        {"model": m, "without": own["class"], "with": own["cluster"], "drop, %": _drop(own["class"], own["cluster"])}
        for m, own in losses.items()
    ]
    (odd,) = (m for m, own in losses.items() if own["cluster"] > own["class"])
    own = losses[odd]
    read = own["cluster"] / 10
    drop = _drop(own["class"], read)
    others = [row["drop, %"] for row in rows if row["model"] != odd]
    stated, *_ = TEXT["loss"].numbers
    text = (
        f"{_shown(odd)} is printed with a loss of {own['cluster']} with clustering and {own['class']} without, a rise, "
        f"against the claim; {own['cluster']} is also more than an output of one constant colour would score on "
        f"CIFAR-10 images ({flat:.3f}). Read as {read}, it is a fall of {drop:.0f} %, which is the {stated} % of the "
        f"text; the other three models fall by {min(others):.0f} to {max(others):.0f} %. It appears to be a slip of "
        "the decimal point."
    )
    numbers = {
        "drop_if_a_slip": drop,
        "constant_colour": flat,
        "smallest_other": min(others),
        "largest_other": max(others),
    }
    numbers |= {f"drop_{row['model']}": row["drop, %"] for row in rows}
    title = "One loss of Table 1 rises with clustering, most likely by a misplaced decimal point"
    quotes = ("Table 1 shows the effectiveness of intraclass clustering in minimizing the reconstruction loss",)
    return Finding("encodenet-4", title, text, "arithmetic", "minor", ("table1",), tuple(rows), numbers, quotes)


def _loss_in_the_text(printed: _Printed) -> Finding:
    percent, before, after = TEXT["loss"].numbers
    losses = _losses(printed)
    columns = {target: [own[target] for own in losses.values()] for target in _CODES}
    (slip,) = (own["cluster"] / 10 for own in losses.values() if own["cluster"] > own["class"])
    factors = {
        "without": min(columns["class"]) / before,
        "with": min(columns["cluster"]) / after,
        "with, finding 4 corrected": min(*columns["cluster"], slip) / after,
    }
    plain, clustered, corrected = factors.values()
    drop, tenfold = _drop(before, after), [f"{float(10 * loss):g}" for loss in (before, after)]
    text = (
        f"The text gives losses of {before} without and {after} with clustering ({drop:.1f} %, printed as {percent} "
        f"%). No network of Table 1 has such values: its smallest loss without clustering is {plain:.1f} times as "
        f"large, the smallest with clustering {clustered:.1f} times ({corrected:.1f} with finding 4 corrected). Ten "
        f"times the text's numbers, {tenfold[0]} and {tenfold[1]}, would resemble VGG16. The text does not say which "
        "network it means."
    )
    rows = tuple({"column": name, "smallest of Table 1 / text": float(factor)} for name, factor in factors.items())
    numbers = {"drop": drop, "factor_without": float(plain), "factor_with": float(clustered)}
    numbers["factor_corrected"] = float(corrected)
    title = "The losses in the text are less than a tenth of any in Table 1"
    return Finding("encodenet-5", title, text, "text", "notable", ("table1",), rows, numbers, words_of(TEXT, "loss"))


def constant_mse(codes: Sequence[float], classes: Sequence[int]) -> float:
    """Loss of the best constant output for code images of one grey each, equally frequent (`Codebook.constant_mse`)."""
    import torch

    from efflib.papers.encodenet.codebook import Codebook

    everyone = torch.arange(len(codes))
    images = torch.tensor(codes)[:, None, None, None]
    return Codebook(images, torch.tensor(classes), everyone, everyone, everyone).constant_mse


def _losses_not_comparable(printed: _Printed) -> Finding:
    plain, split = constant_mse((0.0, 1.0), (0, 1)), constant_mse((0.0, 0.5, 0.5, 1.0), (0, 0, 1, 1))
    drop = 100 * (plain - split) / plain
    expected = {target: pixel_variance() * (1 - 1 / count) for target, count in _CODES.items()}
    losses = _losses(printed)
    rows = tuple(
        {"model": m, "target": t, "printed": own[t], "share of a constant output's loss": float(own[t]) / expected[t]}
        for m, own in losses.items()
        for t in _CODES
    )
    text = (
        "Table 1 compares losses towards different sets of target images, and a loss alone does not tell how much was "
        "learnt: what an output that ignores its input would score depends on the targets. Two classes with a black "
        f"and a white target give such an output a loss of {plain:.2f}; with targets black and grey, grey and white it "
        f"is {split:.3f}, a drop of {drop:.0f} % without any learning. This number is needed for each target set (we "
        "record it beside every loss); nor does the table say whether its losses are of training or of test images. If "
        f"targets varied like any CIFAR-10 images, it would be about {expected['class']:.3f} for {_CODES['class']} "
        f"targets and {expected['cluster']:.3f} for {_CODES['cluster']}, as the last column assumes."
    )
    numbers = {"two_codes": plain, "four_codes": split, "drop_without_learning": drop}
    numbers |= {f"expected_{target}": value for target, value in expected.items()}
    title = "Raw losses towards different targets cannot be compared"
    return Finding(
        "encodenet-6", title, text, "statistics", "major", ("table1",), rows, numbers, words_of(TEXT, "loss")
    )


# --- table 5: sizes and differences -----------------------------------------------------------------------

_ATTENTION = ("se", "bam", "cbam", "gam", "gam_gc")


def _millions(cell: PrintedCell) -> Decimal:
    """Printed parameters in millions: '23.71 M' -> 23.71."""
    return Decimal(cell.printed["parameters"].removesuffix("M").strip())


def _size_of_gam(printed: _Printed) -> Finding:
    cells = {c.keys["method"]: c for c in printed.tables["table5"].numbers}
    base, counted = _millions(cells["baseline"]), {m: _parameters(_built(m), 100) for m in cells}
    rows = tuple(
        {
            "row": cell.printed["row"],
            "printed, M": _millions(cell),
            "counted": f"{counted[method]:,}",
            "times ResNet50": float(_millions(cell) / base),
        }
        for method, cell in cells.items()
    )
    ratio, stated = float(_millions(cells["gam"]) / base), TEXT["gam"].numbers[0]
    agree = sum(half_up(Decimal(counted[m]) / 10**6) == _millions(cells[m]) for m in cells)
    fewer = {m: 100 * float(1 - base / _millions(cells[m])) for m in ("cbam", "gam")}
    text = (
        f"With GAM the network is {ratio:.2f} times as large as ResNet50, not about {stated} times; {ratio - 1:.1f} "
        f"times its size is added. EncodeNet's network has {fewer['cbam']:.0f} % fewer parameters than CBAM's and "
        f"{fewer['gam']:.0f} % fewer than GAM's. {agree} of {len(cells)} printed counts are those of the networks "
        "built here, whose open choices (reduction, biases, batch norms of the modules) were made so that they fit."
    )
    numbers = {"ratio": ratio, "added": ratio - 1, "stated": float(stated), "counts_that_agree": agree}
    numbers |= {f"fewer_than_{m}": value for m, value in fewer.items()}
    numbers |= {f"counted_{m}": count for m, count in counted.items()}
    title = "GAM's network is six times as large, not five"
    return Finding("encodenet-7", title, text, "arithmetic", "minor", ("table5",), rows, numbers, words_of(TEXT, "gam"))


def _built(method: str) -> str:
    """Name of the network of a row of Table 5."""
    return f"resnet50_{method}" if method in _ATTENTION else "resnet50"


def accuracy_deviation(percent: float, images: int = _TEST) -> float:
    """Standard deviation in points of an accuracy that is measured on so many independent test images."""
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / images)


def difference_deviation(first: float, second: float) -> float:
    """Standard deviation in points of the difference of two accuracies, each from its own draw of test images."""
    return math.hypot(accuracy_deviation(first), accuracy_deviation(second))


def _better_than_bam(printed: _Printed) -> Finding:
    own, *others = (printed.value("table5", method=m) for m in ("encodenet", "bam", "se"))
    lead = own - others[0]
    images, spread = int(lead * _TEST / 100), difference_deviation(float(own), float(others[0]))
    text = (
        f"EncodeNet is said to outperform SE and BAM: {own:.2f} against {others[1]:.2f} and {others[0]:.2f}. The lead "
        f"over BAM is {images} of {_TEST:,} test images; the difference of two such accuracies has a standard "
        f"deviation of {spread:.2f} points from the choice of test images alone (less for networks that err on the "
        "same images), and that of different initial weights comes on top."
    )
    numbers = {"lead": float(lead), "images": images, "deviation": spread, "lead_over_se": float(own - others[1])}
    title = "The lead over BAM is seven test images"
    return Finding(
        "encodenet-8", title, text, "statistics", "notable", ("table5",), (), numbers, words_of(TEXT, "attention")
    )


# --- consistency of baselines -----------------------------------------------------------------------------


def _resnet20_on_cifar100(printed: _Printed) -> Finding:
    wide, narrow = (_parameters(m, 100) for m in ("resnet18", "resnet20"))
    places = (
        ("resnet20", "table2", {"model": "resnet20", "dataset": "cifar100"}),
        ("resnet18", "table2", {"model": "resnet18", "dataset": "cifar100"}),
        ("resnet32", "table4", {"student": "resnet32"}),
    )
    rows: list[dict[str, Any]] = []
    for model, table, keys in places:
        found = {m: printed.value(table, method=m, **keys) for m in ("baseline", "encodenet")}
        rows.append({"model": model, "parameters": f"{_parameters(model, 100):,}", "where": table, **found})
    teacher = printed.value("table4", student="resnet32", method="teacher")
    size = f"{_parameters('resnet110', 100):,}"
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
    path = _HERE.parent / "bimask" / "printed.yaml"
    cells = [c for c in load_printed(path)["table2"].numbers if c.keys["method"] == "baseline"]
    values = [{**c.keys, "value": c.value} for c in cells]
    return {"id": "bimask", "name": "BIMask, Table 2", "source": load_paper(path)["reference"], "values": values}


def _weak_baselines(printed: _Printed) -> Finding:
    below = {
        (dataset, method): printed.value("table2", model="resnet20", dataset=dataset, method=method)
        - printed.value("table2", model="resnet18", dataset=dataset, method=method)
        for dataset in _DATASETS
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
        f"{_shown(r['model'])} on {_shown(r['dataset'])} {r['quoted']:.2f} ({r['reference']}; with EncodeNet "
        f"{r['with EncodeNet']:.2f})"
        for r in at_least
    )
    weak = dict.fromkeys(_shown(row["model"]) for row in at_least)
    same = [row for row in rows if row["quoted"] == row["printed"]]
    equal = "; ".join(
        f"{_shown(r['model'])} on {_shown(r['dataset'])}, {r['printed']:.2f} ({r['reference']})" for r in same
    )
    wide, narrow = (_parameters(m, 10) / 1e6 for m in ("resnet18", "resnet20"))
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


def _two_baselines(printed: _Printed) -> Finding:
    rows = [row for row in compare_baselines(printed.tables.values()) if not row["agrees"]]
    apart = {row["model"]: max(row["values"].values()) - min(row["values"].values()) for row in rows}
    own = {t: printed.value(t, method="encodenet", dataset="cifar100", **keys) for t, keys in _VGG8.items()}
    text = (
        f"{' and '.join(map(_shown, apart))} have two CIFAR-100 baselines each, "
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


def _baseline_of_table5(printed: _Printed) -> Finding:
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


# --- comparisons ------------------------------------------------------------------------------------------


def _peers_of_table5(printed: _Printed) -> Finding:
    rows = printed.published("table5")
    equal = [row for row in rows if row["equal"]]
    errors = {m: 100 - printed.value("table5", method=m) for m in _ATTENTION}
    shown = ", ".join(f"{error:.2f}" for error in errors.values())
    cell = printed.tables["table5"].cell(method="cbam")
    (other,) = (
        v["parameters"]
        for r in printed.references.values()
        for v in r["values"]
        if v["method"] == "cbam" and "parameters" in v
    )
    same_size = Decimal(other.removesuffix("M")) == _millions(cell)
    se = printed.quoted("pytorch_cifar100", method="se")
    text = (
        f"The accuracy of CBAM, {equal[0]['printed']:.2f} %{' at the same size' if same_size else ''}, is printed in "
        f"another group's table too. As errors the five attention rows are {shown}, as we remember GAM's paper to "
        "print them (its text was not available to us). The paper does not say that these rows are quoted. For SE, a "
        f"public repository has {se:.2f} in place of {printed.value('table5', method='se'):.2f}."
    )
    numbers = {"equal": len(equal), "same_size": same_size} | {f"error_{m}": float(e) for m, e in errors.items()}
    title = "The attention rows of Table 5 appear to be quoted"
    sources = printed.sources("ema_module", "pytorch_cifar100", "gam_paper")
    return Finding(
        "encodenet-13", title, text, "baselines", "notable", ("table5",), tuple(rows), numbers, sources=sources
    )


_PEERS = ("baseline", "kd", "rkd", "fitnet", "ft")


def _origin_of_table4(printed: _Printed) -> Finding:
    rows: list[dict[str, Any]] = []
    for student, teacher in (("resnet32", "resnet110"), ("vgg8", "vgg13")):
        for method in ("teacher", *_PEERS):
            own = printed.value("table4", student=student, method=method)
            public = printed.quoted("repdistiller", teacher=teacher, student=student, method=method)
            row = {"student": student, "method": method, "printed": own, "public": public, "public teacher": teacher}
            rows.append({**row, "difference": own - public})
    (same,) = (row for row in rows if row["difference"] == 0)
    (ft,) = (row for row in rows if (row["student"], row["method"]) == ("resnet32", "ft"))
    crd = printed.quoted("repdistiller", student="resnet32", method="crd")
    fact = printed.facts["mdistiller_methods"]
    text = (
        f"{same['method'].upper()} of VGG8 is printed with {same['printed']:.2f} % for the teacher VGG16, the number "
        f"that RepDistiller gives for the teacher {_shown(same['public teacher'])}. FT of ResNet32, "
        f"{ft['printed']:.2f} %, is {ft['difference']:.2f} points above the public FT and "
        f"{abs(ft['printed'] - crd):.2f} from the public CRD ({crd:.2f}). The repository that the paper says it used "
        f"lists {len(fact['methods'])} methods, and FT is not among them. Which rows were run and which quoted is open."
    )
    numbers = {"equal": sum(row["difference"] == 0 for row in rows), "value": float(same["printed"])}
    numbers |= {"ft_above": float(ft["difference"]), "ft_from_crd": float(abs(ft["printed"] - crd))}
    numbers |= {"ft_listed": "FT" in fact["methods"], "methods": len(fact["methods"])}
    title, sources = "Two numbers of Table 4 look like others'", printed.sources("repdistiller", "mdistiller_methods")
    quotes = words_of(TEXT, "repository")
    return Finding(
        "encodenet-14", title, text, "baselines", "notable", ("table4",), tuple(rows), numbers, quotes, sources
    )


def _left_out(printed: _Printed) -> Finding:
    rows: list[dict[str, Any]] = []
    for student, teacher in (("resnet32", "resnet110"), ("vgg8", "vgg13")):
        own = printed.value("table4", student=student, method="encodenet")
        for method, reference in (("crd", "repdistiller"), ("dkd", "mdistiller")):
            public = printed.quoted(reference, teacher=teacher, student=student, method=method)
            row = {"student": student, "method": method.upper(), "teacher": teacher, "public": public}
            rows.append({**row, "EncodeNet": own, "lead": own - public})
    ahead = [row for row in rows if row["lead"] < 0]
    near = next(row for row in rows if (row["student"], row["method"]) == ("resnet32", "DKD"))
    better = " and ".join(f"{row['method']} {row['public']:.2f}" for row in ahead)
    text = (
        "State-of-the-art distillation is represented by KD, RKD, FitNet and FT. The benchmarks of the two "
        f"repositories also have CRD and DKD: for ResNet32, DKD reaches {near['public']:.2f} (EncodeNet "
        f"{near['EncodeNet']:.2f}, a lead of {near['lead']:.2f}); for VGG8, {better} exceed EncodeNet's "
        f"{ahead[0]['EncodeNet']:.2f}, with a better teacher (VGG13)."
    )
    numbers = {"ahead": len(ahead), "of": len(rows), "lead_over_dkd": float(near["lead"])}
    numbers |= {f"{r['student']}_{r['method'].lower()}": float(r["public"]) for r in rows}
    title = "Stronger public distillation results were left out"
    sources, quotes = printed.sources("repdistiller", "mdistiller"), words_of(TEXT, "state_of_the_art", "distillation")
    return Finding("encodenet-15", title, text, "text", "notable", ("table4",), tuple(rows), numbers, quotes, sources)


# --- cost -------------------------------------------------------------------------------------------------

_STAGE2_EPOCHS = 100  # not stated in the paper: our choice (spec, section 4.3)
_COSTED = (*_MODELS, "resnet32", "resnet50")


@dataclass(frozen=True)
class Cost:
    """PFLOP (1e15) of the stages of one EncodeNet at the paper's epochs; a backward pass counts as two forward ones."""

    baseline: float
    autoencoder: float
    frozen: float
    finetuned: float

    @property
    def extra(self) -> float:
        """Autoencoder and frozen second stage, relative to the baseline's training."""
        return (self.autoencoder + self.frozen) / self.baseline


@cache
def cost(model: str) -> Cost:
    """Training cost of an EncodeNet: 50,000 images, epochs as printed, 100 for the second stage."""
    (plain,), (converting,) = TEXT["baseline_epochs"].numbers, TEXT["autoencoder_epochs"].numbers
    classifier, whole = _macs(model), _macs(model) + _decoder_macs(model)
    return Cost(
        _pflop(3 * classifier, int(plain)),
        _pflop(3 * whole, int(converting)),
        _pflop(classifier, _STAGE2_EPOCHS),
        _pflop(3 * classifier, _STAGE2_EPOCHS),
    )


def _pflop(macs: int, epochs: int) -> float:
    """MACs per image, two FLOPs each, over the epochs of a run."""
    return 2 * macs * _TRAINING * epochs / 1e15


def _budget(printed: _Printed) -> Finding:
    costs = {model: cost(model) for model in _COSTED}
    rows = tuple(
        {
            "model": model,
            "baseline, PFLOP": own.baseline,
            "autoencoder, PFLOP": own.autoencoder,
            "second stage, frozen": own.frozen,
            "second stage, fine-tuned": own.finetuned,
            "extra / baseline": own.extra,
        }
        for model, own in costs.items()
    )
    fact = printed.facts["peer_recipes"]
    epochs = int(sum(n for name in ("baseline_epochs", "autoencoder_epochs") for n in TEXT[name].numbers))
    extra = [own.extra for own in costs.values()]
    distilled = {student: _distilled(student, fact["distillation_epochs"]) for student in ("resnet32", "vgg8")}
    gains = [_gain_in_deviations(printed, m, d) for m in _MODELS for d in _DATASETS]
    text = (
        f"EncodeNet trains for {epochs} epochs before its second stage, of unstated length; the distillation recipes "
        f"have {fact['distillation_epochs']} epochs, those of the attention modules {fact['attention_epochs']}. "
        f"Counted on the networks, with a decoder of our choice and {_STAGE2_EPOCHS} epochs for the second stage, "
        f"EncodeNet costs {1 + min(extra):.1f} to {1 + max(extra):.1f} times its baseline's training, and no baseline "
        f"is trained as long. (With the teacher's training included, KD costs {distilled['resnet32']:.0f} PFLOP for "
        f"ResNet32 and {distilled['vgg8']:.0f} for VGG8, EncodeNet with its baseline {_total(costs['resnet32']):.0f} "
        f"and {_total(costs['vgg8']):.0f}.) Neither a number of runs nor a deviation is given, so every number appears "
        "to be one run. Gains of Table 2 below two standard deviations from the choice of test images alone, before "
        f"any from initial weights: {sum(g < 2 for g in gains)} of {len(gains)}."
    )
    numbers = {
        "epochs": epochs,
        "distillation_epochs": fact["distillation_epochs"],
        "attention_epochs": fact["attention_epochs"],
    }
    numbers |= {"smallest_total": 1 + min(extra), "largest_total": 1 + max(extra)}
    numbers |= {f"{model}_{name}": getattr(own, name) for model, own in costs.items() for name in _STAGES}
    numbers |= {f"kd_with_teacher_{student}": value for student, value in distilled.items()}
    numbers |= {"gains_below_two": sum(g < 2 for g in gains), "largest_gain": max(gains)}
    title, tables = "Nothing is compared at equal training, and no deviation is given", ("table2", "table4", "table5")
    quotes, sources = words_of(TEXT, "baseline_epochs", "autoencoder_epochs"), printed.sources("peer_recipes")
    return Finding("encodenet-16", title, text, "statistics", "major", tables, rows, numbers, quotes, sources)


_STAGES = ("baseline", "autoencoder", "frozen", "finetuned", "extra")


def _total(own: Cost) -> float:
    return own.baseline + own.autoencoder + own.frozen


def _distilled(student: str, epochs: int) -> float:
    """KD of a pair of Table 4 with its teacher's training, PFLOP."""
    teacher = {"resnet32": "resnet110", "vgg8": "vgg16"}[student]
    return _pflop(3 * _macs(student) + _macs(teacher), epochs) + _pflop(3 * _macs(teacher), epochs)


def _gain_in_deviations(printed: _Printed, model: str, dataset: str) -> float:
    keys = {"model": model, "dataset": dataset}
    before, after = (float(printed.value("table2", method=m, **keys)) for m in ("baseline", "encodenet"))
    return (after - before) / difference_deviation(before, after)


# --- what the method imports, and its freezing ------------------------------------------------------------


def _pretrained_network(printed: _Printed) -> Finding:
    fact = printed.facts["vgg16"]
    whole, convolutions = vgg16_parameters(fact)
    teachers = {m: _parameters(m, 100) for m in ("vgg16", "resnet110")}
    ratio = convolutions / max(teachers.values())
    text = (
        "EncodeNet is said to need no large teacher. Its clusters come from a VGG16 that was trained on ImageNet, an "
        f"external network of {whole / 1e6:.0f} M parameters ({convolutions / 1e6:.1f} M in the layers used), while "
        f"the teachers of Table 4 have {' and '.join(f'{n / 1e6:.1f}' for n in teachers.values())} M. With three "
        "clusters per class, its sub-labels bring knowledge from another data set into the training; the peers have "
        "none of it."
    )
    numbers = {"parameters": whole, "convolutions": convolutions, "of_largest_teacher": ratio}
    numbers |= {f"teacher_{m}": n for m, n in teachers.items()}
    title = "The clusters come from a network pretrained on ImageNet"
    quotes = (
        *words_of(TEXT, "no_teacher"),
        "we extracted important features of the input image using a VGG-16 [36] model trained on ImageNet",
    )
    sources = printed.sources("vgg16")
    return Finding("encodenet-17", title, text, "text", "notable", ("table2", "table4"), (), numbers, quotes, sources)


def vgg16_parameters(shape: Mapping[str, Any]) -> tuple[int, int]:
    """(all parameters, those of the convolutions) of the ImageNet VGG16 for images of 224 pixels.

    Args:
        shape: convolutions per block, widths of the blocks, units of the linear layers.
    """
    inputs, convolutions = 3, 0
    for count, width in zip(shape["convolutions"], shape["widths"]):
        for _ in range(count):
            convolutions += 9 * inputs * width + width
            inputs = width
    side = 224 // 2 ** len(shape["widths"])
    units = [side * side * inputs, *shape["hidden"]]
    return convolutions + sum(a * b + b for a, b in pairwise(units)), convolutions


def _identity_target(printed: _Printed) -> Finding:
    values = {t: printed.value("table3", target=t) for t in ("identity", "class", "cluster")}
    base = printed.value("table3", method="baseline")
    rows: list[dict[str, Any]] = [{"target": t, "accuracy": v, "gain": v - base} for t, v in values.items()]
    whole, classes = _parameters("resnet18", 10), 10
    head = (_forward("resnet18")[1] + 1) * classes  # a linear layer with bias
    prior = "-".join(str(number) for number in TEXT["prior"].numbers)
    text = (
        "With its input as target, an autoencoder sees no label. If its encoder is then frozen, as the text says, "
        f"labels reach the {head:,} parameters of the linear layer only, {100 * head / whole:.3f} % of ResNet18's "
        f"{whole:,}. We expect a linear layer on features of a reconstruction to stay far below "
        f"{rows[0]['accuracy']:.2f} % (and measure it), yet this row is only {-rows[0]['gain']:.2f} points below the "
        "fully trained baseline. (The targets of the other two rows are codes of the label, so that a frozen encoder "
        f"is plausible there; with such targets the prior work's autoencoder is said to have reached {prior} % on "
        "CIFAR-10.) The number is easy to explain if the encoder was fine-tuned, as the code of the prior work does, "
        "which freezes nothing; or if it started from the trained baseline and moved little. We run the literal "
        "reading and these."
    )
    numbers = {f"gain_{row['target']}": float(row["gain"]) for row in rows}
    numbers |= {"head": head, "all": whole, "share": 100 * head / whole}
    title = "The identity row does not fit a frozen encoder"
    quotes, sources = words_of(TEXT, "freezing", "identity", "prior", "retrained"), printed.sources("prior_code")
    return Finding("encodenet-18", title, text, "formulas", "major", ("table3",), tuple(rows), numbers, quotes, sources)


# --- clusters ---------------------------------------------------------------------------------------------

_MOST = 9  # clusters on an elbow curve, as in the prior code
_SETS = {"no cluster": 0, "two clusters": 2, "five clusters": 5}


@cache
def gaussian_ratios(most: int = _MOST) -> tuple[float, ...]:
    """Inertia of the best 1 ... `most` clusters of a normal scalar, relative to one cluster (Lloyd's iteration)."""
    return tuple(_gaussian_inertia(count) for count in range(1, most + 1))


def _gaussian_inertia(count: int) -> float:
    import numpy as np
    from scipy.special import ndtr, ndtri

    centres = ndtri((np.arange(count) + 0.5) / count)
    for _ in range(500):
        edges = np.concatenate(([-np.inf], (centres[1:] + centres[:-1]) / 2, [np.inf]))
        mass = np.diff(ndtr(edges))
        moved = -np.diff(np.exp(-(edges**2) / 2)) / math.sqrt(2 * math.pi) / mass
        if np.abs(moved - centres).max() < 1e-7:
            break
        centres = moved
    return float(1 - (mass * moved**2).sum())  # total variance less that between the clusters


@cache
def demonstration() -> dict[str, dict[str, tuple[float, ...]]]:
    """Elbow curves of three synthetic sets, with points as points and flattened to one column of scalars.

    500 points with 20 values: normal noise, around nothing, two or five centres.

    Returns:
        Set -> {"points", "flattened"} -> inertia of 1 ... 9 clusters, relative to one.
    """
    import numpy as np

    from efflib.papers.encodenet.clustering import scalar_inertias

    generator = np.random.default_rng(0)
    curves = {}
    for name, count in _SETS.items():
        points = generator.normal(size=(500, 20))
        if count:
            points += generator.normal(scale=2, size=(count, 20))[generator.integers(count, size=500)]
        both = {"points": _elbow(points, generator), "flattened": scalar_inertias(points, _MOST)}
        curves[name] = {kind: tuple(inertia / curve[0] for inertia in curve) for kind, curve in both.items()}
    return curves


def _elbow(points: np.ndarray, generator: np.random.Generator, starts: int = 10) -> list[float]:
    """Inertia of k-means with 1 ... 9 clusters, best of some starts.

    As `clustering.inertias`, on scipy's k-means: scikit-learn takes longer to import than all findings to make.
    """
    from scipy.cluster.vq import kmeans, vq

    inertias = [float(((points - points.mean(axis=0)) ** 2).sum())]
    for count in range(2, _MOST + 1):
        found = []
        for _ in range(starts):
            centres, _ = kmeans(points, points[generator.choice(len(points), count, replace=False)])
            found.append(float((vq(points, centres)[1] ** 2).sum()))
        inertias.append(min(found))
    return inertias


def _three_clusters(printed: _Printed) -> Finding:
    from efflib.papers.encodenet.clustering import knee

    curves, ratios, fact = demonstration(), gaussian_ratios(), printed.facts["prior_code"]
    knees = {(name, kind): knee(curve) for name, found in curves.items() for kind, curve in found.items()}
    rows = tuple(
        {
            "data": name,
            "k-means on": kind,
            "knee": found.k,
            "height of the knee": found.height,
            "inertia, 9 clusters / 1": curves[name][kind][-1],
        }
        for (name, kind), found in knees.items()
    )
    flat = [found.k for (_, kind), found in knees.items() if kind == "flattened"]
    scalars = knee(ratios)
    text = (
        "In the code of the prior work the elbow is computed on the matrix of features flattened to one column, so "
        "that scalars are clustered, not images. For normal scalars the inertia falls to "
        f"{', '.join(f'{r:.4f}' for r in ratios[1:4])} ... of that of one cluster, whose knee is {scalars.k} whatever "
        "the images are. Synthetic sets of 500 points without clusters, with two and with five, flattened: knee "
        f"{', '.join(map(str, flat))}; as points, the sets with two and five clusters have their knee at "
        f"{knees['two clusters', 'points'].k} and {knees['five clusters', 'points'].k}. A note in the same script "
        f"records, per class, elbows of {_listed(fact['elbows_vgg16'])} for VGG16 features and "
        f"{_listed(fact['elbows_umap'])} for a UMAP embedding. Whether this paper's k = {TEXT['elbow'].numbers[0]} "
        "comes from such a curve is unknown; for CIFAR-100 no number of clusters is given."
    )
    numbers: dict[str, float] = {"gaussian_knee": scalars.k, "stated": float(TEXT["elbow"].numbers[0])}
    numbers |= {f"gaussian_{k}": ratio for k, ratio in enumerate(ratios, 1)}
    numbers |= {f"{kind}_{name.replace(' ', '_')}": found.k for (name, kind), found in knees.items()}
    numbers |= {f"{name}_three": sum(e == 3 for e in fact[name]) for name in ("elbows_vgg16", "elbows_umap")}
    title, tables = "An elbow at three may say nothing about the images", ("table1", "table2", "table3")
    quotes, sources = words_of(TEXT, "elbow"), printed.sources("prior_code")
    return Finding("encodenet-19", title, text, "formulas", "notable", tables, rows, numbers, quotes, sources)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _selection(printed: _Printed) -> Finding:
    fact = printed.facts["prior_code"]
    text = (
        "The paper does not say from which epoch its accuracies are, nor on which images its choices were made. In the "
        "code of the prior work the test set serves as validation data, the MNIST script keeps the autoencoder with "
        "the best test accuracy, and the entropy threshold for easy images is a typed constant "
        f"({fact['entropy_threshold']:.3f}). No code of this paper was found. We report the last epoch, and the best "
        "one beside it."
    )
    numbers = {"entropy_threshold": fact["entropy_threshold"]}
    title, tables = "How epochs and thresholds were selected is unknown", ("table2", "table3", "table4", "table5")
    sources = printed.sources("prior_code", "later_code")
    return Finding("encodenet-20", title, text, "statistics", "notable", tables, (), numbers, sources=sources)


# --- descriptions of the method ---------------------------------------------------------------------------


def vgg16_maps(shape: Mapping[str, Any], side: int = 32) -> list[tuple[str, int, int]]:
    """(kind, channels, side) of the output of every convolution and pooling of VGG16, in order."""
    maps = []
    for count, width in zip(shape["convolutions"], shape["widths"]):
        maps += [("convolution", width, side)] * count
        side //= 2
        maps.append(("pooling", width, side))
    return maps


def _unstated(printed: _Printed) -> Finding:
    maps = vgg16_maps(printed.facts["vgg16"])
    (place, *_) = TEXT["layer"].numbers
    readings_of_13 = {
        "13th layer": maps[int(place) - 1],
        "13th convolution": [m for m in maps if m[0] == "convolution"][int(place) - 1],
        "last pooling": maps[-1],
    }
    rows = tuple({"reading": name, "output": f"{w} x {s} x {s}"} for name, (_, w, s) in readings_of_13.items())
    text = (
        f"A 512 x 1 x 1 map of a 32-pixel image is the output of VGG16's last pooling, layer {len(maps)}. Layer "
        f"{place} gives {rows[0]['output']}, convolution {place} {rows[1]['output']}. Not stated: the number of "
        "clusters on CIFAR-100; the decoder's layers; optimiser, rate, batch size and augmentation of the autoencoder, "
        "and whether it starts from the baseline's weights; epochs and rate of the second stage; whether a "
        "representative must be classified correctly; whether Table 1 is about training or test images. k-means is "
        "called the best of three techniques without numbers."
    )
    numbers = {"layers": len(maps), "stated": float(place)}
    numbers |= {name.replace(" ", "_"): side for name, (_, _, side) in readings_of_13.items()}
    title, tables = "A layer that does not fit its shape, and choices left open", ("table1", "table2", "table3")
    quotes, sources = words_of(TEXT, "layer", "best_clustering"), printed.sources("vgg16")
    return Finding("encodenet-21", title, text, "formulas", "notable", tables, rows, numbers, quotes, sources)


def entropies(gap: float, classes: int = 10) -> dict[str, float]:
    """Entropy in nats of a softmax whose largest logit leads all others by `gap`: exact, and in two float32 ways.

    Returns:
        "float64" from log-probabilities; "float32" as -sum p ln p; "float32, 0 ln 0 = 0" as scipy's entropy has it.
    """
    import numpy as np
    from scipy.special import entr, log_softmax

    logits = np.zeros(classes)
    logits[0] = gap
    logs = log_softmax(logits)
    powers = np.exp((logits - gap).astype(np.float32))
    shares = powers / powers.sum()
    with np.errstate(divide="ignore", invalid="ignore"):  # that is the point
        plain = float(-(shares * np.log(shares)).sum())
    return {
        "float64": float(-(np.exp(logs) * logs).sum()),
        "float32": plain,
        "float32, 0 ln 0 = 0": float(entr(shares).sum()),
    }


def _entropy_in_single_precision(printed: _Printed) -> Finding:
    gaps = (10, 30, 120)
    found = {gap: entropies(gap) for gap in gaps}
    rows = tuple(
        {"lead of the largest logit": gap, **{name: f"{value:.4g}" for name, value in own.items()}}
        for gap, own in found.items()
    )
    middle = found[gaps[1]]
    error = 100 * (middle["float64"] - middle["float32"]) / middle["float64"]
    text = (
        "A representative is the image of lowest entropy, so the ranking matters where a trained network is most "
        f"certain, and there single precision fails. With ten classes and a lead of {gaps[1]} in the largest logit "
        f"the entropy comes out {error:.1f} % too small ({middle['float32']:.4g} for {middle['float64']:.4g} nats); "
        f"with a lead of {gaps[2]} the plain formula is not a number, and with 0 ln 0 = 0 it is exactly 0, so that "
        "all such images tie and the first one is taken. The paper does not say how it computes the entropy or breaks "
        "ties. We use float64 and a stated order."
    )
    numbers = {"error": error, "exact_30": middle["float64"], "single_30": middle["float32"]}
    numbers |= {
        "not_a_number_120": math.isnan(found[gaps[2]]["float32"]),
        "zero_120": found[gaps[2]]["float32, 0 ln 0 = 0"] == 0,
    }
    title, tables = "The lowest entropies cannot be ranked in single precision", ("table1", "table3")
    return Finding("encodenet-22", title, text, "formulas", "minor", tables, rows, numbers, words_of(TEXT, "entropy"))


# --- what checks out --------------------------------------------------------------------------------------


def _repeated(printed: _Printed) -> list[dict[str, Any]]:
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


def _checked(printed: _Printed) -> Finding:
    gains = recompute_gains([printed.tables["table3"]])
    rows = _repeated(printed)
    equal = sum(row["stated"] == row["printed"] for row in rows)
    own = {d: {m: printed.gain("table2", model=m, dataset=d, method="encodenet") for m in _MODELS} for d in _DATASETS}
    every = [gain for found in own.values() for gain in found.values()]
    means = {d: fmean(map(float, found.values())) for d, found in own.items()}
    best = [f"{_shown(max(found, key=found.__getitem__))} on {_shown(d)}" for d, found in own.items()]
    resnet18 = {"model": "resnet18", "dataset": "cifar10"}
    shared = [
        printed.value("table2", method=m, **resnet18) == printed.value("table3", method=m, **target)
        for m, target in (("baseline", {}), ("encodenet", {"target": "cluster"}))
    ]
    sizes = [int(n) for n in re.findall(r"\d+", TEXT["cifar10"].words.replace(",", ""))]
    right = (sizes[0], *sizes[-2:]) == (_TRAINING + _TEST, _TRAINING, _TEST)
    text = (
        f"{sum(r['agrees'] for r in gains)} of {len(gains)} gains of Table 3 follow from its accuracies, and "
        f"{sum(shared)} of the {len(shared)} rows that Table 2 has too are the same there. {equal} of {len(rows)} "
        "accuracies that the text repeats are those of the tables (finding 3 is the other). EncodeNet gains in "
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


_FINDINGS = (
    _gains_of_vgg8,
    _gains_of_vgg16,
    _headline,
    _loss_with_clustering,
    _loss_in_the_text,
    _losses_not_comparable,
    _size_of_gam,
    _better_than_bam,
    _resnet20_on_cifar100,
    _weak_baselines,
    _two_baselines,
    _baseline_of_table5,
    _peers_of_table5,
    _origin_of_table4,
    _left_out,
    _budget,
    _pretrained_network,
    _identity_target,
    _three_clusters,
    _selection,
    _unstated,
    _entropy_in_single_precision,
    _checked,
)


# --- counted on built networks ----------------------------------------------------------------------------


def _shown(name: str) -> str:
    """The paper's spelling of a network or data set."""
    return name.replace("resnet", "ResNet").replace("vgg", "VGG").replace("cifar", "CIFAR-")


@cache
def _parameters(model: str, classes: int) -> int:
    from efflib.models import count_parameters, create_model

    with _shapes_only():
        return count_parameters(create_model(model, classes))


@contextmanager
def _shapes_only() -> Iterator[None]:
    """Modules made inside have shapes, no values: GAM's network alone would draw 149 million of them.

    No draw is made on the meta device either: it would change nothing, but the first one imports torch's reference
    implementations, which takes seconds.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    draws = (torch.Tensor.normal_, torch.Tensor.uniform_)

    class NoDraws(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(func, "__module__", "") == "torch.nn.init" or func in draws:
                return args[0] if args else kwargs["tensor"]
            return func(*args, **kwargs)

    with torch.device("meta"), NoDraws():
        yield


@cache
def _forward(model: str) -> tuple[int, int, int]:
    """MACs of a network of ten classes for a 32-pixel image, channels and side of its encoder's last map."""
    import torch

    from efflib.models import count_macs, create_model, evaluating, features

    network = create_model(model, 10)
    with torch.no_grad(), evaluating(network):
        last = features(network, torch.zeros(1, 3, 32, 32)).stages[-1]
    return count_macs(network), last.shape[1], last.shape[2]


def _macs(model: str) -> int:
    return _forward(model)[0]


@cache
def _decoder_macs(model: str) -> int:
    """Of our decoder for the encoder's map (the paper gives no layout)."""
    from efflib.models import count_macs
    from efflib.models.decoder import Decoder

    _, channels, side = _forward(model)
    return count_macs(Decoder(channels, side), image_size=side, channels=channels)
