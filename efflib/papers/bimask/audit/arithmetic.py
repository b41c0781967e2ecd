"""Findings 1 and 2, arithmetic: printed gains and averages, recomputed."""

from __future__ import annotations

from efflib.papers.bimask.audit.evidence import Printed
from efflib.papers.bimask.audit.readers import average_of
from efflib.report.audit import Finding, recompute_averages, recompute_gains


def one_gain_differs(printed: Printed) -> Finding:
    odd = [r for r in recompute_gains(printed.all()) if not r["agrees"]]
    average = average_of(printed, "table2", "cifar100")
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


def other_gains_agree(printed: Printed) -> Finding:
    gains, averages = recompute_gains(printed.all()), recompute_averages(printed.all())
    good = sum(r["agrees"] for r in gains)
    text = (
        f"{good} of {len(gains)} printed gains equal accuracy less printed baseline of the same table, "
        f"and {sum(r['agrees'] for r in averages)} of {len(averages)} printed averages equal the rounded "
        f"mean of the printed gains (Table 3: {average_of(printed, 'table3', 'cifar10')['from_gains']:.2f} "
        f"and {average_of(printed, 'table3', 'cifar100')['from_gains']:.2f})."
    )
    numbers = {"gains": len(gains), "gains_that_agree": good}
    for row in averages:
        numbers[f"{row['table']}_{row['dataset']}"] = float(row["from_gains"])
    title = "All gains and averages but those named in other findings check out"
    tables = ("table2", "table3", "table4", "table5", "table6", "table7")
    return Finding("bimask-2", title, text, "arithmetic", "minor", tables, tuple(averages), numbers)
