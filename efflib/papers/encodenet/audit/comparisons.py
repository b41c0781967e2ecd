"""Findings 7, 8 and 13 to 15, comparisons with others: sizes and rows of Table 5, peers of Tables 4 and 5."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from efflib.models import parameters_of
from efflib.papers.encodenet.audit.counting import difference_deviation
from efflib.papers.encodenet.audit.evidence import TEST, TEXT, Printed, spelt
from efflib.papers.encodenet.claims import row_network
from efflib.papers.table import read_millions
from efflib.report.audit import Finding, half_up, words_of

# --- table 5: sizes and differences -----------------------------------------------------------------------


def size_of_gam(printed: Printed) -> Finding:
    cells = {c.keys["method"]: c for c in printed.tables["table5"].numbers}
    base, counted = cells["baseline"].millions, {m: parameters_of(row_network(m), 100) for m in cells}
    rows = tuple(
        {
            "row": cell.printed["row"],
            "printed, M": cell.millions,
            "counted": f"{counted[method]:,}",
            "times ResNet50": float(cell.millions / base),
        }
        for method, cell in cells.items()
    )
    ratio, stated = float(cells["gam"].millions / base), TEXT["gam"].numbers[0]
    agree = sum(half_up(Decimal(counted[m]) / 10**6) == cells[m].millions for m in cells)
    fewer = {m: 100 * float(1 - base / cells[m].millions) for m in ("cbam", "gam")}
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


def better_than_bam(printed: Printed) -> Finding:
    own, *others = (printed.value("table5", method=m) for m in ("encodenet", "bam", "se"))
    lead = own - others[0]
    images, spread = int(lead * TEST / 100), difference_deviation(float(own), float(others[0]))
    text = (
        f"EncodeNet is said to outperform SE and BAM: {own:.2f} against {others[1]:.2f} and {others[0]:.2f}. The lead "
        f"over BAM is {images} of {TEST:,} test images; the difference of two such accuracies has a standard "
        f"deviation of {spread:.2f} points from the choice of test images alone (less for networks that err on the "
        "same images), and that of different initial weights comes on top."
    )
    numbers = {"lead": float(lead), "images": images, "deviation": spread, "lead_over_se": float(own - others[1])}
    title = "The lead over BAM is seven test images"
    return Finding(
        "encodenet-8", title, text, "statistics", "notable", ("table5",), (), numbers, words_of(TEXT, "attention")
    )


# --- origin of the peers' numbers -------------------------------------------------------------------------


def peers_of_table5(printed: Printed) -> Finding:
    rows = printed.published("table5")
    equal = [row for row in rows if row["equal"]]
    cell = printed.tables["table5"].cell(method="cbam")
    (other,) = (
        v["parameters"]
        for r in printed.references.values()
        for v in r["values"]
        if v["method"] == "cbam" and "parameters" in v
    )
    same_size = read_millions(other) == cell.millions
    se = printed.quoted("pytorch_cifar100", method="se")
    text = (
        f"The accuracy of CBAM, {equal[0]['printed']:.2f} %{' at the same size' if same_size else ''}, is printed in "
        "another group's table too. The paper does not say that any row is quoted. For SE, "
        f"a public repository has {se:.2f} in place of {printed.value('table5', method='se'):.2f}."
    )
    numbers = {"equal": len(equal), "same_size": same_size}
    title = "At least one attention row of Table 5 appears to be quoted"
    sources = printed.sources("ema_module", "pytorch_cifar100")
    return Finding(
        "encodenet-13", title, text, "baselines", "notable", ("table5",), tuple(rows), numbers, sources=sources
    )


_PEERS = ("baseline", "kd", "rkd", "fitnet", "ft")


def origin_of_table4(printed: Printed) -> Finding:
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
        f"that RepDistiller gives for the teacher {spelt(same['public teacher'])}. FT of ResNet32, "
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


def left_out(printed: Printed) -> Finding:
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
