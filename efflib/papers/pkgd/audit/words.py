"""Findings 10 to 12, words, names and coincidences: data sets, equal numbers, references."""

from __future__ import annotations

from efflib.papers.pkgd.audit.evidence import Printed
from efflib.papers.pkgd.audit.readers import named, pair_of, whole_numbers
from efflib.report.audit import Finding, exact

_TINY = (
    "The Tiny ImageNet contains 100000 images of 200 classes",
    "Each class has 500 training images, 50 validation images and 50 test images.",
)


def data_sets(printed: Printed) -> Finding:
    (stated, classes), each = map(whole_numbers, _TINY)
    total = classes * sum(each)
    text = (
        "The contributions speak of ImageNet; the experiments are on Tiny ImageNet. "
        f"{classes} classes of {' + '.join(map(str, each))} images are {total:,}, not {stated:,} "
        f"({classes * each[0]:,} of them are for training). The improvements given in % are percentage points, in "
        "Table 4 points of AP."
    )
    numbers = {"stated": stated, "counted": total, "training": classes * each[0]}
    quotes = (
        "We validate our method on Cifar-100, ImageNet, and MS-COCO datasets",
        *_TINY,
        "improve the mAP of the baseline model by 2%",
    )
    title, tables = "ImageNet means Tiny ImageNet, and has 120,000 images", ("table4", "figure5")
    return Finding("pkgd-10", title, text, "text", "minor", tables, (), numbers, quotes)


def coincidences(printed: Printed) -> Finding:
    shared = {("kd", "kd"), ("pkgd", "pkgd")}  # (method in table 5, in table 1): the same experiment
    rows = []
    for cell in printed.tables["table5"].numbers:
        if cell.keys["method"] in ("teacher", "baseline"):
            continue
        for other in printed.tables["table1"].numbers:
            same = pair_of(cell.keys) == pair_of(other.keys)
            known = same and (cell.keys["method"], other.keys["method"]) in shared
            if cell.value == other.value and not known:
                row = {"value": exact(cell.value), "table 5": cell.keys["method"]}
                rows.append({**row, "table 1": f"{other.keys['method']}, {named(pair_of(other.keys))}"})
    listed = "; ".join(
        f"{row['value']:.2f} is {row['table 5']} in Table 5 and {row['table 1']} in Table 1" for row in rows
    )
    text = (
        f"{len(rows)} numbers of Table 5 are printed for other experiments too: {listed}. They may be chance; they "
        "are listed so that nobody takes them for shared runs."
    )
    numbers = {"coincidences": len(rows)} | {f"value_{row['table 5']}": float(row["value"]) for row in rows}
    title, tables = "Equal numbers for different experiments", ("table1", "table5")
    return Finding("pkgd-11", title, text, "statistics", "minor", tables, tuple(rows), numbers)


def references(printed: Printed) -> Finding:
    names = {"ICKD-C [31]": "ickd", "ShuffleNet [27, 28]": "shufflenet"}
    names |= {"Detectron2 [32]": "detectron2", "Faster RCNN [33]": "faster_rcnn"}
    rows = tuple(
        {"cited as": name, "source": printed.facts[key]["source"], "remark": printed.facts[key]["text"]}
        for name, key in names.items()
    )
    text = (
        "Tables 1 and 2 cite ICKD-C as [31], which is Decoupled KD (the text has [30]); [27], given for ShuffleNet, is "
        "an article of 1991 about lightwave networks; [32], given for Detectron2, is an article that applies it; [33] "
        "prints another first author; two of the four authors carry a placeholder as ORCID. Table 4 does not say "
        "whether its AP is that of boxes or of masks."
    )
    quotes = (
        "ICKD-C [31]",
        "ICKD-C [30]",
        "An application of generalized perfect shuffles to multihop lightwave networks",
        "Detectron2 object detection & manipulating images using cartoonization",
        "Shao, R., et al.: Faster r-cnn",
        "2222--3333-4444-5555",
    )
    title, tables = "Some references do not match what they are cited for", ("table1", "table2", "table3", "table4")
    return Finding("pkgd-12", title, text, "formulas", "minor", tables, rows, {}, quotes)
