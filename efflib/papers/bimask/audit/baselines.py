"""Findings 3 to 7, baselines: within the paper, and against two public sources."""

from __future__ import annotations

from efflib.papers.bimask.audit.counting import macs_of
from efflib.papers.bimask.audit.evidence import Printed
from efflib.papers.bimask.audit.readers import teacher_differences
from efflib.report.audit import Finding, compare_baselines, exact


def resnet18_has_two_baselines(printed: Printed) -> Finding:
    rows, numbers = [], {}
    for dataset in ("cifar10", "cifar100"):
        masked = printed.value("table3", model="resnet18", dataset=dataset, method="masked_only")
        base = {t: _baseline(printed, t, "resnet18", dataset) for t in ("table2", "table3")}
        gain = float(exact(masked) - exact(base["table2"]))
        rows.append(
            {
                "dataset": dataset,
                "baseline in table 2": exact(base["table2"]),
                "baseline in table 3": exact(base["table3"]),
                "ResNet56 in table 3": exact(_baseline(printed, "table3", "resnet56", dataset)),
                "masked only": exact(masked),
                "full method (table 2)": exact(
                    printed.value("table2", model="resnet18", dataset=dataset, method="bimask")
                ),
                "masked only - table 2 baseline": exact(round(gain, 2)),
            }
        )
        numbers[f"gain_{dataset}"] = gain
    first, second = rows
    several = [r for r in compare_baselines(printed.all()) if not r["agrees"]]
    text = (
        f"Table 3 prints {first['baseline in table 3']:.2f} / {second['baseline in table 3']:.2f} as "
        "ResNet18 baseline, the numbers of ResNet56; Tables 2 and 4 print "
        f"{first['baseline in table 2']:.2f} / {second['baseline in table 2']:.2f}. Against the latter, "
        f"masked-only training ({first['masked only']:.2f} / {second['masked only']:.2f}) would gain "
        f"{numbers['gain_cifar10']:.2f} / {numbers['gain_cifar100']:.2f} points and on CIFAR-10 beat the "
        f"full method ({first['full method (table 2)']:.2f}). Either the row holds another network's "
        "results, or the tables use different ResNet18s. No other baseline differs between tables."
    )
    numbers["baselines_that_differ"] = len(several)
    tables, title = ("table2", "table3", "table4"), "ResNet18 has two baselines"
    return Finding("bimask-3", title, text, "baselines", "major", tables, tuple(rows), numbers)


def _baseline(printed: Printed, table: str, model: str, dataset: str) -> float:
    return printed.value(table, model=model, dataset=dataset, method="baseline")


def lerac_baselines(printed: Printed) -> Finding:
    rows = [r for r in printed.quoted("lerac_manuscript") if r["table"] == "table2" and r["cell"].endswith("baseline")]
    equal = sum(r["equal"] for r in rows)
    plain, pooled = (macs_of("resnet18", stem=stem) / 1e6 for stem in ("cifar", "cifar_pool"))
    text = (
        f"{equal} of {len(rows)} ResNet18 and Wide-ResNet-50 baselines equal the conventional training "
        "of the LeRaC manuscript; they would then be another group's runs, without augmentation (the rest "
        "differs, see bimask-7). In the public BIMask code the loader crops and flips, and ResNet18 "
        f"pools after its stem: {pooled:.0f} M multiply-accumulates against {plain:.0f} M without that "
        "pooling. If the enhanced networks come from that code, the gain appears to mix two training "
        "pipelines. Wide-ResNet-50 is in neither the code's list of models nor the paper's own list."
    )
    quotes = ("from the ResNet [26] family, we used ResNet14, ResNet20, ResNet56 and ResNet18",)
    numbers = {"equal": equal, "macs_plain": plain, "macs_pooled": pooled}
    title = "ResNet18 and Wide-ResNet-50 baselines appear to come from elsewhere"
    tables = ("table2", "table3", "table4")
    sources = printed.sources("lerac_manuscript", "bimask_code", "lerac_code")
    return Finding("bimask-4", title, text, "baselines", "major", tables, tuple(rows), numbers, quotes, sources)


def repdistiller_baselines(printed: Printed) -> Finding:
    rows = [r for r in printed.quoted("repdistiller") if r["table"] == "table2" and r["cell"].endswith("baseline")]
    same, other = [r for r in rows if r["equal"]], [r for r in rows if not r["equal"]]
    named = ", ".join(f"{r['cell'].split(',')[0]} {r['printed']:.2f}" for r in same)
    text = (
        f"The CIFAR-100 baselines {named} equal the RepDistiller benchmark to the digit, which are "
        "last-epoch results of another group, while the enhanced networks appear to be the best epoch. "
        + " ".join(
            f"{r['cell'].split(',')[0]} is {r['printed']:.2f} here and {r['quoted']:.2f} there, so it "
            "appears to be their own."
            for r in other
        )
    )
    title = "Three CIFAR-100 baselines equal a public benchmark"
    numbers = {"equal": len(same), "different": len(other)}
    tables = ("table2", "table3", "table6", "table7")
    sources = printed.sources("repdistiller")
    return Finding("bimask-5", title, text, "baselines", "notable", tables, tuple(rows), numbers, sources=sources)


def repdistiller_students(printed: Printed) -> Finding:
    quoted = [r for r in printed.quoted("repdistiller") if r["table"] == "table5"]
    teacher = next(r for r in quoted if "teacher, baseline_teacher" in r["cell"])
    students = [r for r in quoted if r["equal"] and r["cell"].endswith("baseline_teacher")]
    methods = [r["cell"].split(", ")[3] for r in students]
    values = ", ".join(f"{r['printed']:.2f}" for r in students)
    differences = teacher_differences(printed)
    better = [differences[method, "cifar100"] for method in methods]
    text = (
        f"The CIFAR-100 column with the baseline teacher ({', '.join(methods)}: {values}) equals the "
        f"RepDistiller column ResNet56 to ResNet20, whose teacher has {teacher['quoted']:.2f} %; the "
        f"header prints {teacher['printed']:.2f} %. If the column was reused, the "
        f"improvements of {min(better):.2f} to {max(better):.2f} points with the enhanced teacher are "
        "relative to students of a different, weaker teacher and cannot be attributed to BIMask. A reuse "
        "is stated for Table 4, not here."
    )
    quotes = ("The results of the other techniques are taken from the paper on the Learning Rate Curriculum",)
    numbers = {
        "equal_students": len(students),
        "teacher_printed": float(teacher["printed"]),
        "teacher_quoted": float(teacher["quoted"]),
        "smallest_difference": min(better),
        "largest_difference": max(better),
    }
    title, rows = "Table 5 appears to compare students of two different teachers", (teacher, *students)
    sources = printed.sources("repdistiller")
    return Finding("bimask-6", title, text, "baselines", "major", ("table5",), rows, numbers, quotes, sources)


def lerac_journal(printed: Printed) -> Finding:
    rows = [r for r in printed.quoted("lerac_manuscript") if r["table"] == "table4"]
    odd = [r for r in rows if not r["equal"]]
    away = [float(r["printed"] - r["quoted"]) for r in odd]
    by_method = {r["cell"].split(", ")[2]: r for r in odd}
    cbs, lerac = by_method["cbs"], by_method["lerac"]
    same_order = (cbs["printed"] > lerac["printed"]) == (cbs["quoted"] > lerac["quoted"])
    both = ", ".join(f"{m} {r['quoted']:.2f} there, {r['printed']:.2f} here" for m, r in by_method.items())
    text = (
        f"Of {len(rows)} numbers of Table 4 that an earlier public LeRaC manuscript also gives, "
        f"{len(rows) - len(odd)} are equal; the ResNet18 CIFAR-100 ones are {min(away):.2f} to "
        f"{max(away):.2f} points higher here ({both}). CBS is {'again' if same_order else 'not'} ahead of "
        "LeRaC there. The journal text that the paper quotes was not available to us, so we do not tune "
        "towards that baseline."
    )
    numbers = {"equal": len(rows) - len(odd), "smallest": min(away), "largest": max(away)}
    title = "ResNet18 on CIFAR-100 differs from the earlier LeRaC manuscript"
    sources = printed.sources("lerac_manuscript")
    return Finding(
        "bimask-7",
        title,
        text,
        "baselines",
        "notable",
        ("table2", "table4"),
        tuple(rows),
        numbers,
        sources=sources,
    )
