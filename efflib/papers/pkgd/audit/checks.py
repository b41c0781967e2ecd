"""Finding 13, what checks out: stated gains and thresholds, repeated baselines, the sizes of CIFAR-100."""

from __future__ import annotations

from efflib.papers.baselines import SIZES
from efflib.papers.pkgd.audit.evidence import Printed
from efflib.papers.pkgd.audit.readers import listed, whole_numbers
from efflib.report.audit import Finding, compare_baselines, recompute_gains

_CIFAR = (
    "The CIFAR-100 dataset consists of 100 classes, with each class containing 600 images",
    "Among these, 500 images are allocated for training and 100 images for testing.",
    "In total, there are 50,000 training images and 10,000 test images.",
)


def checked(printed: Printed) -> Finding:
    stated = recompute_gains(printed.tables.values())
    gains = {t: [printed.gain(t, pair) for pair in printed.pairs(t)] for t in ("table1", "table2")}
    mobile = [printed.value("table2", p, "pkgd") for p in printed.pairs("table2") if p[1] == "mobilenetv2_half"]
    above = [
        (pair, printed.value(t, pair, "pkgd"), printed.value(t, pair, "teacher"))
        for t in ("table1", "table2")
        for pair in printed.pairs(t)
        if printed.value(t, pair, "pkgd") > printed.value(t, pair, "teacher")
    ]
    baselines = compare_baselines(printed.tables[t] for t in ("table1", "table2", "table5"))
    (classes, each), split, totals = map(whole_numbers, _CIFAR)
    sizes = sum(split) == each and [classes * part for part in split] == totals == list(SIZES["cifar100"][:2])
    passed = ", ".join(f"{student} {own:.2f} over {teacher} {other:.2f}" for (teacher, student), own, other in above)
    text = (
        f"{sum(r['agrees'] for r in stated)} of {len(stated)} gains that the text states follow from the tables "
        f"({listed(r['recomputed'] for r in stated)}). PKGD gains more than 2 points in "
        f"{sum(g > 2 for g in gains['table1'])} of {len(gains['table1'])} pairs of Table 1 and more than 5 in "
        f"{sum(g > 5 for g in gains['table2'])} of {len(gains['table2'])} of Table 2; MobileNetV2 exceeds 70 % in "
        f"{sum(v > 70 for v in mobile)} of {len(mobile)}; students pass their teachers in {len(above)} pairs "
        f"({passed}; the text names the second). Teachers and students alone are the same in all tables "
        f"({sum(r['agrees'] for r in baselines)} of {len(baselines)} that occur twice). The stated sizes of CIFAR-100 "
        f"are {'right' if sizes else 'not those of the data set'}."
    )
    numbers = {
        "gains": len(stated),
        "gains_that_agree": sum(r["agrees"] for r in stated),
        "above_two": sum(g > 2 for g in gains["table1"]),
        "above_five": sum(g > 5 for g in gains["table2"]),
        "above_seventy": sum(v > 70 for v in mobile),
        "above_teacher": len(above),
        "cifar_sizes": sizes,
        "baselines": len(baselines),
        "baselines_that_agree": sum(r["agrees"] for r in baselines),
    }
    rows = tuple({"pair": r["cell"], "recomputed": r["recomputed"], "stated": r["printed"]} for r in stated)
    title, tables = "Gains and thresholds in the text check out", ("table1", "table2", "table5")
    return Finding("pkgd-13", title, text, "arithmetic", "minor", tables, rows, numbers, _CIFAR)
