"""The audit of the BIMask paper: 21 findings, recomputed from the printed numbers and built networks.

No number below is typed from a finding: texts are formatted from computed values. Wording is about the
printed page ("as printed", "appears"), never about intentions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from efflib.models import parameters_of
from efflib.papers.table import PrintedTable, load_printed
from efflib.report.audit import (
    Evidence,
    Finding,
    compare_baselines,
    equal_numbers,
    exact,
    match_references,
    recompute_averages,
    recompute_gains,
)

_HERE = Path(__file__).parent
_RUNS = 5  # "All the results in the tables represent the average over 5 runs"
_SPREADS = (
    0.10,
    0.15,
    0.20,
)  # run-to-run standard deviations of a CIFAR accuracy that one usually sees, in points


class _Printed(Evidence):
    """What a finding may read."""

    tables: Mapping[str, PrintedTable]

    def all(self) -> list[PrintedTable]:
        return list(self.tables.values())

    def value(self, table: str, **keys: Any) -> float:
        return self.tables[table].cell(**keys).value

    def gains(self, table: str, **keys: Any) -> dict[str, float]:
        """Model -> value - baseline, exact to the printed digits."""
        wanted, found = self.tables[table], {}
        for cell in wanted.numbers:
            base = wanted.baseline(cell.keys)
            if base is not None and keys.items() <= cell.keys.items():
                found[cell.keys["model"]] = float(exact(cell.value) - exact(base.value))
        return found

    def quoted(self, reference: str) -> list[dict[str, Any]]:
        """Printed cells beside the numbers of one reference."""
        return match_references(self.all(), [self.references[reference]])


@cache
def load() -> _Printed:
    """Read printed.yaml and references.yaml of this paper once."""
    return _Printed.read(_HERE / "references.yaml", load_printed(_HERE / "printed.yaml"))


def findings() -> list[Finding]:
    """All findings about this paper, in the order of the implementation spec (section 6).

    Builds eight networks to count layers, parameters and multiply-accumulates; takes some seconds.
    """
    printed = load()
    return [make(printed) for make in _FINDINGS]


# --- arithmetic -------------------------------------------------------------------------------------------


def _one_gain_differs(printed: _Printed) -> Finding:
    odd = [r for r in recompute_gains(printed.all()) if not r["agrees"]]
    average = _average(printed, "table2", "cifar100")
    row = odd[0]
    text = (
        f"{row['cell']}: {row['value']:.2f} - {row['baseline']:.2f} = {row['recomputed']:.2f}, printed "
        f"{row['printed']:.2f}. The printed CIFAR-100 average of {average['printed']:.2f} follows from "
        f"the printed gains ({average['from_gains']:.5f}); from the printed accuracies it is "
        f"{average['from_values']:.3f}."
    )
    numbers = {
        "recomputed": float(row["recomputed"]),
        "printed": float(row["printed"]),
        "average_from_gains": float(average["from_gains"]),
        "average_from_values": float(average["from_values"]),
        "mismatches": len(odd),
    }
    title = "One printed gain differs from its accuracies"
    return Finding("bimask-1", title, text, "arithmetic", "minor", ("table2",), tuple(odd), numbers)


def _other_gains_agree(printed: _Printed) -> Finding:
    gains, averages = recompute_gains(printed.all()), recompute_averages(printed.all())
    good = sum(r["agrees"] for r in gains)
    text = (
        f"{good} of {len(gains)} printed gains equal accuracy less printed baseline of the same table, "
        f"and {sum(r['agrees'] for r in averages)} of {len(averages)} printed averages equal the rounded "
        f"mean of the printed gains (Table 3: {_average(printed, 'table3', 'cifar10')['from_gains']:.2f} "
        f"and {_average(printed, 'table3', 'cifar100')['from_gains']:.2f})."
    )
    numbers = {"gains": len(gains), "gains_that_agree": good}
    for row in averages:
        numbers[f"{row['table']}_{row['dataset']}"] = float(row["from_gains"])
    title = "All gains and averages but those named in other findings check out"
    tables = ("table2", "table3", "table4", "table5", "table6", "table7")
    return Finding("bimask-2", title, text, "arithmetic", "minor", tables, tuple(averages), numbers)


# --- baselines --------------------------------------------------------------------------------------------


def _resnet18_has_two_baselines(printed: _Printed) -> Finding:
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


def _lerac_baselines(printed: _Printed) -> Finding:
    rows = [r for r in printed.quoted("lerac_manuscript") if r["table"] == "table2" and r["cell"].endswith("baseline")]
    equal = sum(r["equal"] for r in rows)
    plain, pooled = (_macs("resnet18", stem=stem) / 1e6 for stem in ("cifar", "cifar_pool"))
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


def _repdistiller_baselines(printed: _Printed) -> Finding:
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


def _repdistiller_students(printed: _Printed) -> Finding:
    quoted = [r for r in printed.quoted("repdistiller") if r["table"] == "table5"]
    teacher = next(r for r in quoted if "teacher, baseline_teacher" in r["cell"])
    students = [r for r in quoted if r["equal"] and r["cell"].endswith("baseline_teacher")]
    methods = [r["cell"].split(", ")[3] for r in students]
    values = ", ".join(f"{r['printed']:.2f}" for r in students)
    differences = _teacher_differences(printed)
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


def _lerac_journal(printed: _Printed) -> Finding:
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


# --- statistics -------------------------------------------------------------------------------------------


def _gains_too_equal(printed: _Printed) -> Finding:
    gains = printed.gains("table2", dataset="cifar10", method="bimask")
    seven = {m: g for m, g in gains.items() if m != "wrn_52_2"}
    mean, spread = fmean(seven.values()), stdev(seven.values())
    rows, numbers = [], {"mean": mean, "sd": spread}
    for sigma in (0.10, 0.15):
        for averaged in (False, True):
            expected = gain_spread(sigma, _RUNS, averaged)
            chance = chance_of_spread(spread, len(seven), expected)
            kind = "another 5-run mean" if averaged else "fixed"
            rows.append({"run-to-run sd": sigma, "baseline": kind, "expected sd": expected, "chance": chance})
            numbers[f"chance_{sigma:.2f}_{'averaged' if averaged else 'fixed'}"] = chance
    numbers["expected_sd"] = gain_spread(0.15, _RUNS, False)
    sizes = [parameters_of(m, 10) / 1e6 for m in seven]
    text = (
        f"{len(seven)} of {len(gains)} CIFAR-10 gains lie between {min(seven.values()):.2f} and "
        f"{max(seven.values()):.2f} (mean {mean:.3f}, sd {spread:.3f}) for networks from "
        f"{min(sizes):.2f} M to {max(sizes):.1f} M parameters. If each gain contains a {_RUNS}-run mean "
        "with a run-to-run sd of 0.15 points, sampling alone gives an sd of at least "
        f"{numbers['expected_sd']:.3f}, and the chance of {spread:.3f} or less is "
        f"{_power(numbers['chance_0.15_fixed'])} with a fixed baseline, "
        f"{_power(numbers['chance_0.15_averaged'])} if the baseline is a mean too, and "
        f"{_power(numbers['chance_0.10_fixed'])} for an sd of 0.10 and a fixed baseline. No standard "
        "deviation is printed."
    )
    numbers["smallest_model"], numbers["largest_model"] = min(sizes), max(sizes)
    title = "Seven of eight CIFAR-10 gains are almost equal"
    quotes = ("All the results in the tables represent the average over 5 runs.",)
    return Finding("bimask-8", title, text, "statistics", "major", ("table2",), tuple(rows), numbers, quotes)


def _same_pair(printed: _Printed) -> Finding:
    rows = equal_numbers(printed.all())
    row = rows[0]
    text = (
        f"{row['model']} on {row['dataset']} reaches {row['value']:.2f} (+{row['gain']:.2f}) in two "
        f"unrelated experiments: {' and '.join(row['places'])}. It may be a coincidence."
    )
    numbers = {"pairs": len(rows), "value": float(row["value"]), "gain": float(row["gain"])}
    title = "One accuracy and gain occur twice"
    return Finding("bimask-9", title, text, "statistics", "minor", ("table2", "table5"), tuple(rows), numbers)


def _teacher_effect_is_small(printed: _Printed) -> Finding:
    differences = _teacher_differences(printed)
    rows = [
        {"method": method, "dataset": dataset, "enhanced - baseline teacher": difference}
        for (method, dataset), difference in differences.items()
    ]
    low, high = min(differences.values()), max(differences.values())
    positive = sum(d > 0 for d in differences.values())
    error, half = _difference_error(0.15), _difference_half_width(0.15)
    seeds = seeds_for(0.1, 0.2)
    text = (
        f"The enhanced teacher helps by {low:.2f} to {high:.2f} points in {positive} of {len(rows)} "
        f"pairs. The difference of two {_RUNS}-run means has a standard error of {error:.3f} points for "
        f"a run-to-run sd of 0.15 ({_difference_error(0.2):.3f} for 0.20) and a 95 % interval of ± "
        f"{half:.2f} ({_difference_half_width(0.2):.2f}), so that no single pair can be told from zero. "
        f"To detect 0.1 points at an sd of 0.2 takes about {seeds} seeds per arm."
    )
    numbers = {
        "smallest": low,
        "largest": high,
        "positive": positive,
        "standard_error": error,
        "half_width": half,
        "seeds_per_arm": seeds,
    }
    for dataset in ("cifar10", "cifar100"):
        numbers[f"mean_{dataset}"] = fmean(d for (_, where), d in differences.items() if where == dataset)
    title = "Differences between teachers are below what five runs can show"
    return Finding("bimask-10", title, text, "statistics", "notable", ("table5",), tuple(rows), numbers)


def _selection_on_test(printed: _Printed) -> Finding:
    gain = fmean(printed.gains("table2", dataset="cifar10", method="bimask").values())
    rows = [{"epochs": n, "best epoch above the mean epoch, in sd": expected_maximum(n)} for n in (10, 30, 60, 240)]
    low, high = 0.10 * expected_maximum(30), 0.15 * expected_maximum(60)
    repeats = printed.facts["sckd_code"]["repeated_runs"]
    text = (
        "Algorithm 1 keeps the best epoch on a validation set that is not defined; the public loader "
        "passes the test set under that name. With independent noise between epochs of 0.10 to 0.15 "
        f"points, the best of 30 to 60 epochs exceeds their mean by {low:.2f} to {high:.2f} points, "
        f"which is {low / gain:.0%} to {high / gain:.0%} of the mean CIFAR-10 gain. In the student "
        f"script of the same authors' SCKD code the best accuracy is not reset between its {repeats} "
        "repeated runs, so there it is a maximum over epochs and runs."
    )
    numbers = {f"expected_maximum_{r['epochs']}": r["best epoch above the mean epoch, in sd"] for r in rows}
    numbers |= {"bias_low": low, "bias_high": high}
    quotes = ("Evaluate the model on the validation set;", "If validation accuracy improves, save the model;")
    title = "The best epoch appears to be chosen on the test set"
    tables = ("table2", "table3", "table5", "table6", "table7")
    sources = printed.sources("bimask_code", "sckd_code")
    return Finding("bimask-11", title, text, "statistics", "major", tables, tuple(rows), numbers, quotes, sources)


def _compute_not_matched(printed: _Printed) -> Finding:
    text = (
        "BIMask adds a fine-tuning phase in which each epoch has twice the images (originals and masked "
        "copies). Neither the baselines nor the curriculum methods get extra training, and the number "
        "of epochs, the learning rate and the batch size of that phase are given as symbols only. The "
        "paper names the cost of saliency and masks as its limitation, not the longer training. Our "
        "control original_only gets the same updates on originals."
    )
    quotes = (
        "The primary limitation is the increased computational cost, as the process requires "
        "calculating saliency maps and "
        "creating a masked dataset for the entire training set.",
        "Number of epochs E",
    )
    title, tables = "Training time is not matched", ("table2", "table4", "table6", "table7")
    return Finding("bimask-12", title, text, "statistics", "major", tables, (), {"images_per_epoch": 2.0}, quotes)


# --- text against tables ----------------------------------------------------------------------------------


def _fourth_of_six(printed: _Printed) -> Finding:
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


def _no_depth_trend(printed: _Printed) -> Finding:
    gains = {d: printed.gains("table2", dataset=d, method="bimask") for d in ("cifar10", "cifar100")}
    depth = {m: _depth(m) for m in gains["cifar10"]}
    rows = [
        {
            "model": m,
            "convolutions": depth[m],
            "gain, CIFAR-10": gains["cifar10"][m],
            "gain, CIFAR-100": gains["cifar100"][m],
        }
        for m in sorted(depth, key=lambda m: depth[m])
    ]
    numbers = {f"rank_correlation_{d}": _rank_correlation(depth, g) for d, g in gains.items()}
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


def _points_not_percent(printed: _Printed) -> Finding:
    rows, numbers = [], {}
    for dataset in ("cifar10", "cifar100"):
        average = float(_average(printed, "table2", dataset)["from_values"])
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


def _ratio_of_resnets(printed: _Printed) -> Finding:
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


def _always_the_last_layer(printed: _Printed) -> Finding:
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


def _same_resolution(printed: _Printed) -> Finding:
    sizes = _map_sizes("vgg13")
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


# --- formulas, names, citations ---------------------------------------------------------------------------


def _equation_and_text(printed: _Printed) -> Finding:
    text = (
        "Equation 1 differentiates the whole output of the network with respect to the input image; the "
        "text before it differentiates the score of the predicted class with respect to the feature map "
        "at the target layer. The legend names both at once. M stands for the model and, in another "
        "face, for the mask. Algorithm 1 tests on a validation set that the paper does not define. We "
        "follow the text (predicted class, feature map) and offer the others as options."
    )
    quotes = (
        "the gradient of the predicted class score with respect to the feature map at the target layer",
        "is the gradient of the output with respect to the input image",
        "calculated at the target layer",
    )
    title = "Equation 1 and the text describe different gradients"
    return Finding("bimask-19", title, text, "formulas", "notable", (), (), {}, quotes)


def _citations(printed: _Printed) -> Finding:
    cited = (
        ("Self-taught [23]", "hacohen_weinshall"),
        ("Curriculum by Smoothing [21]", "cbs"),
        ("EfficientTrain [22]", "efficienttrain"),
        ("Attention Transfer [18]", "attention_transfer"),
    )
    rows = tuple(
        {"cited as": name, "source": printed.facts[key]["source"], "what it says": printed.facts[key]["text"]}
        for name, key in cited
    )
    text = (
        "Reference [23], the LeRaC paper, is also given for Self-taught, which is described as "
        "pre-training on unlabelled data; the curriculum method of that name scores images by the "
        "network's own confidence. CBS is described as smoothing the training data and EfficientTrain "
        "as selecting samples; neither appears to match its source. [24] is about crowd density, [8], "
        "the general reference for curricula, is about reinforcement learning, [10], the reference for "
        "saliency, is a user study, and [18] prints its authors in reversed order."
    )
    quotes = (
        "Self-taught Learning [23] starts with pretraining on a large unlabeled dataset",
        "smoothing the training data with Gaussian filters",
        "optimizing resources through adaptive sample selection",
        "LCDnet: a lightweight crowd density estimation model",
        "Curriculum learning for reinforcement learning domains",
        "Evaluating saliency map explanations for convolutional neural networks: a user study",
        "Nikos Komodakis, Sergey Zagoruyko. Paying more attention to attention",
    )
    title = "Some descriptions and references do not match their sources"
    return Finding("bimask-20", title, text, "formulas", "minor", ("table4",), rows, {}, quotes)


def _names(printed: _Printed) -> Finding:
    text = (
        "The method is called BIMask in some places and BMask in others. Curriculum is among the "
        "keywords, although originals and masked copies are shuffled together: there is no order from "
        "easy to hard."
    )
    quotes = (
        "our proposed technique, BMask Learning, with several recent curriculum learning (CL) approaches",
        "This paper introduces BIMask Learning",
        "Keywords: BIMask, Curriculum, Learning, Optimization, Deep Learning",
    )
    title = "Two spellings, and no curriculum"
    return Finding("bimask-21", title, text, "formulas", "minor", (), (), {}, quotes)


_FINDINGS = (
    _one_gain_differs,
    _other_gains_agree,
    _resnet18_has_two_baselines,
    _lerac_baselines,
    _repdistiller_baselines,
    _repdistiller_students,
    _lerac_journal,
    _gains_too_equal,
    _same_pair,
    _teacher_effect_is_small,
    _selection_on_test,
    _compute_not_matched,
    _fourth_of_six,
    _no_depth_trend,
    _points_not_percent,
    _ratio_of_resnets,
    _always_the_last_layer,
    _same_resolution,
    _equation_and_text,
    _citations,
    _names,
)


# --- statistics used above --------------------------------------------------------------------------------


def gain_spread(sigma: float, runs: int, baseline_averaged: bool) -> float:
    """Standard deviation over networks of a gain whose only noise is that of ``runs``-run means.

    Args:
        sigma: run-to-run standard deviation of one accuracy, in points.
        runs: runs per mean.
        baseline_averaged: True if the baseline is such a mean too, False if it is a fixed number.
    """
    return sigma * math.sqrt((2 if baseline_averaged else 1) / runs)


def chance_of_spread(spread: float, count: int, expected: float) -> float:
    """P(sample sd of ``count`` normal numbers <= spread) when their true sd is ``expected`` "
    "(chi-square)."""
    from scipy.special import chdtr

    return float(chdtr(count - 1, (count - 1) * (spread / expected) ** 2))


def expected_maximum(count: int) -> float:
    """Mean of the largest of ``count`` independent standard normal numbers."""
    from scipy.integrate import quad
    from scipy.special import ndtr

    def density(x: float) -> float:
        return x * count * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * ndtr(x) ** (count - 1)

    return float(quad(density, -9.0, 9.0)[0])


def seeds_for(difference: float, sigma: float, level: float = 0.05, power: float = 0.8) -> int:
    """Seeds per arm to detect a difference of two means (normal approximation, two-sided test)."""
    from scipy.special import ndtri

    quantiles = ndtri(1 - level / 2) + ndtri(power)
    return math.ceil(2 * (quantiles * sigma / difference) ** 2)


def _difference_error(sigma: float) -> float:
    return sigma * math.sqrt(2 / _RUNS)


def _difference_half_width(sigma: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(2 * _RUNS - 2, 0.975)) * _difference_error(sigma)


def _rank_correlation(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr([a[k] for k in a], [round(b[k], 6) for k in a]).statistic)


# --- small readers ----------------------------------------------------------------------------------------


def _average(printed: _Printed, table: str, dataset: str) -> dict[str, Any]:
    rows = recompute_averages([printed.tables[table]])
    return next(r for r in rows if r["dataset"] == dataset)


def _baseline(printed: _Printed, table: str, model: str, dataset: str) -> float:
    return printed.value(table, model=model, dataset=dataset, method="baseline")


def _teacher_differences(printed: _Printed) -> dict[tuple[str, str], float]:
    """(method, dataset) -> accuracy with the enhanced teacher less accuracy with the baseline "
    "teacher."""
    table, found = printed.tables["table5"], {}
    for cell in table.numbers:
        if cell.keys.get("setting") == "bimask_teacher" and "student" in cell.keys:
            plain = table.cell(**{**cell.keys, "setting": "baseline_teacher"})
            found[cell.keys["method"], cell.keys["dataset"]] = float(exact(cell.value) - exact(plain.value))
    return found


def _ranked(printed: _Printed, model: str, dataset: str) -> list[tuple[str, float]]:
    """Methods of a column of Table 4 (without the baseline), best first."""
    cells = [c for c in printed.tables["table4"].numbers if c.keys["method"] != "baseline"]
    column = [c for c in cells if (c.keys["model"], c.keys["dataset"]) == (model, dataset)]
    return [(c.keys["method"], c.value) for c in sorted(column, key=lambda c: -c.value)]


def _power(value: float) -> str:
    digits, exponent = f"{value:.0e}".split("e")
    return f"about {digits}e{int(exponent)}"


# --- counted on built networks ----------------------------------------------------------------------------


@cache
def _macs(model: str, **options: Any) -> int:
    from efflib.models import count_macs, create_model

    return count_macs(create_model(model, 10, **options))


@cache
def _depth(model: str) -> int:
    from efflib.models import convolutions, create_model

    return len(convolutions(create_model(model, 10)))


@cache
def _map_sizes(model: str) -> dict[int, tuple[int, int]]:
    """Height and width of each convolution's output for a 32x32 image, by index from the end."""
    import torch

    from efflib.models import convolutions, create_model

    network, sizes = create_model(model, 10).eval(), {}
    layers = [module for _, module in convolutions(network)]
    hooks = [
        layer.register_forward_hook(lambda m, i, out, k=k: sizes.update({k - len(layers): tuple(out.shape[2:])}))
        for k, layer in enumerate(layers)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sizes
