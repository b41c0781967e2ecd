"""Findings 8 to 12, statistics: equal gains, small differences, selection on the test set, training time."""

from __future__ import annotations

from statistics import fmean, stdev

from efflib.models import parameters_of
from efflib.papers.bimask.audit.estimates import (
    chance_of_spread,
    difference_error,
    difference_half_width,
    expected_maximum,
    gain_spread,
    seeds_for,
)
from efflib.papers.bimask.audit.evidence import RUNS, Printed
from efflib.papers.bimask.audit.readers import teacher_differences
from efflib.report.audit import Finding, equal_numbers


def gains_too_equal(printed: Printed) -> Finding:
    gains = printed.gains("table2", dataset="cifar10", method="bimask")
    seven = {m: g for m, g in gains.items() if m != "wrn_52_2"}
    mean, spread = fmean(seven.values()), stdev(seven.values())
    rows, numbers = [], {"mean": mean, "sd": spread}
    for sigma in (0.10, 0.15):
        for averaged in (False, True):
            expected = gain_spread(sigma, RUNS, averaged)
            chance = chance_of_spread(spread, len(seven), expected)
            kind = "another 5-run mean" if averaged else "fixed"
            rows.append({"run-to-run sd": sigma, "baseline": kind, "expected sd": expected, "chance": chance})
            numbers[f"chance_{sigma:.2f}_{'averaged' if averaged else 'fixed'}"] = chance
    numbers["expected_sd"] = gain_spread(0.15, RUNS, False)
    sizes = [parameters_of(m, 10) / 1e6 for m in seven]
    text = (
        f"{len(seven)} of {len(gains)} CIFAR-10 gains lie between {min(seven.values()):.2f} and "
        f"{max(seven.values()):.2f} (mean {mean:.3f}, sd {spread:.3f}) for networks from "
        f"{min(sizes):.2f} M to {max(sizes):.1f} M parameters. If each gain contains a {RUNS}-run mean "
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


def _power(value: float) -> str:
    digits, exponent = f"{value:.0e}".split("e")
    return f"about {digits}e{int(exponent)}"


def same_pair(printed: Printed) -> Finding:
    rows = equal_numbers(printed.all())
    row = rows[0]
    text = (
        f"{row['model']} on {row['dataset']} reaches {row['value']:.2f} (+{row['gain']:.2f}) in two "
        f"unrelated experiments: {' and '.join(row['places'])}. It may be a coincidence."
    )
    numbers = {"pairs": len(rows), "value": float(row["value"]), "gain": float(row["gain"])}
    title = "One accuracy and gain occur twice"
    return Finding("bimask-9", title, text, "statistics", "minor", ("table2", "table5"), tuple(rows), numbers)


def teacher_effect_is_small(printed: Printed) -> Finding:
    differences = teacher_differences(printed)
    rows = [
        {"method": method, "dataset": dataset, "enhanced - baseline teacher": difference}
        for (method, dataset), difference in differences.items()
    ]
    low, high = min(differences.values()), max(differences.values())
    positive = sum(d > 0 for d in differences.values())
    error, half = difference_error(0.15), difference_half_width(0.15)
    seeds = seeds_for(0.1, 0.2)
    text = (
        f"The enhanced teacher helps by {low:.2f} to {high:.2f} points in {positive} of {len(rows)} "
        f"pairs. The difference of two {RUNS}-run means has a standard error of {error:.3f} points for "
        f"a run-to-run sd of 0.15 ({difference_error(0.2):.3f} for 0.20) and a 95 % interval of ± "
        f"{half:.2f} ({difference_half_width(0.2):.2f}), so that no single pair can be told from zero. "
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


def selection_on_test(printed: Printed) -> Finding:
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


def compute_not_matched(printed: Printed) -> Finding:
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
