"""Findings 3 to 5, PKGD among its peers: best cells, and where teachers and peers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from efflib.papers.pkgd.audit.evidence import Column, Printed
from efflib.papers.pkgd.audit.readers import named
from efflib.papers.pkgd.audit.shifts import shifts_of, unshifted
from efflib.papers.pkgd.claims import METHODS
from efflib.report.audit import Finding, half_up

# --- best cells -------------------------------------------------------------------------------------------


def lead(column: Column) -> tuple[str, Decimal]:
    """The best other method of a column and PKGD's lead over it (negative where it does not lead)."""
    own = column["pkgd"]
    known = {method: value for method, value in column.items() if value is not None and method != "pkgd"}
    rival = max(known, key=lambda method: known[method])
    if own is None:
        raise ValueError("a column without PKGD's own accuracy has no lead")
    return rival, own - known[rival]


def best_cells(printed: Printed) -> Finding:
    rows, texts = [], []
    numbers: dict[str, float] = {}
    for table in ("table1", "table2"):
        plain = printed.columns(table)
        moved = unshifted(plain, shifts_of(printed, table))
        leads = {name: [lead(c) for c in found.values()] for name, found in (("printed", plain), ("unshifted", moved))}
        for i, pair in enumerate(plain):
            row: dict[str, Any] = {"table": table, "pair": named(pair), "pkgd": plain[pair]["pkgd"]}
            for name, found in leads.items():
                row |= {f"best other, {name}": found[i][0], f"lead, {name}": found[i][1]}
            rows.append(row)
        for name, found in leads.items():
            numbers[f"{table}_{name}"] = sum(gap > 0 for _, gap in found)
            numbers[f"{table}_{name}_smallest"] = float(min(gap for _, gap in found))
        behind = [f"{named(p)} ({rival})" for p, (rival, gap) in zip(plain, leads["printed"], strict=True) if gap <= 0]
        texts.append(
            f"Table {table[-1]}: best in {numbers[f'{table}_printed']} of {len(plain)} columns as printed, in "
            f"{numbers[f'{table}_unshifted']} with the shifted rows moved back; not in {', '.join(behind)} as printed"
        )
    means = {t: {m: _mean(printed.row(t, m)) for m in METHODS} for t in ("table1", "table2")}
    places = [1 + sum(mean > found["pkgd"] for mean in found.values()) for found in means.values()]
    numbers |= {"table1_place": places[0], "table2_place": places[1]}
    numbers |= {f"{t}_mean_{m}": float(half_up(v)) for t, found in means.items() for m, v in found.items()}
    ours = [f"{half_up(found['pkgd'])}" for found in means.values()]
    text = (
        f"{'. '.join(texts)}. In Table 1 the smallest lead is then {numbers['table1_unshifted_smallest']:.2f} points. "
        f"By the mean of its row PKGD has place {places[0]} ({ours[0]}) and {places[1]} ({ours[1]}) of "
        f"{len(METHODS)}. No number of runs and no deviation is given."
    )
    quotes = (
        "our method exhibits significant superiority over other both feature-based and logits-based knowledge "
        "distillation methods in the comparison",
        "our method continues to exhibit strong performance, surpassing other methods",
    )
    title, tables = "PKGD is not best in every column as printed", ("table1", "table2")
    return Finding("pkgd-3", title, text, "text", "major", tables, tuple(rows), numbers, quotes)


def _mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, Decimal(0)) / len(values)


# --- where teachers and peers come from -------------------------------------------------------------------


def origin_of_teachers(printed: Printed) -> Finding:
    public: dict[str, dict[str, Any]] = {}
    for table in ("table1", "table2"):
        quoted = printed.quoted(table, "teacher", "repdistiller")
        for pair, value in zip(printed.pairs(table), quoted, strict=True):
            own = printed.value(table, pair, "teacher")
            public[pair[0]] = {"teacher": pair[0], "printed": own, "published": value, "difference": own - value}
    rows = list(public.values())
    equal = [r["teacher"] for r in rows if r["difference"] == 0]
    better = [f"{r['teacher']} {r['printed']:.2f} ({r['published']:.2f})" for r in rows if r["difference"] > 0]
    text = (
        f"{len(better)} of {len(rows)} teachers are better than the public ones: {', '.join(better)}. "
        f"{' and '.join(equal)} equal the public checkpoints to the digit, although the released ResNet32x4 contains "
        "coordinate attention, which such a checkpoint cannot fill."
    )
    numbers = {"equal": len(equal), "better": len(better)} | {r["teacher"]: float(r["difference"]) for r in rows}
    title, tables = "Four of six teachers differ from the public ones", ("table1", "table2", "table5")
    sources = printed.sources("repdistiller", "pkgd_code")
    return Finding("pkgd-4", title, text, "baselines", "notable", tables, tuple(rows), numbers, sources=sources)


def origin_of_peers(printed: Printed) -> Finding:
    rows = [
        r for t in ("table1", "table2") for r in printed.published(t) if _method(r) in ("baseline", "at", "ft", "crd")
    ]
    equal = [f"{r['cell']} {r['printed']:.2f}" for r in rows if r["equal"]]
    apart = {m: [r["difference"] for r in rows if _method(r) == m and r["table"] == "table1"] for m in ("at", "ft")}
    kinds = {"with": "ickd_with_kl", "without": "ickd_without_kl"}
    values = printed.row("table1", "ickd")
    near = {
        name: [v for v, q in zip(values, printed.quoted("table1", "ickd", key), strict=True) if abs(v - q) <= _CENT]
        for name, key in kinds.items()
    }
    quoted = printed.quoted("table1", "teacher", "repdistiller")
    teachers = zip(printed.row("table1", "teacher"), quoted, strict=True)
    stronger = [own - other for own, other in teachers if own - other > Decimal("0.5")]
    listed = {name: ", ".join(f"{v:.2f}" for v in found) for name, found in near.items()}
    text = (
        "The paper does not say which peer rows were run and which were quoted. Equal to the published numbers to the "
        f"digit: {'; '.join(equal)}. FT lies {min(apart['ft']):.2f} to {max(apart['ft']):.2f} "
        f"points above the published numbers in all {len(apart['ft'])} columns of Table 1, AT up to "
        f"{max(apart['at']):.2f} above. ICKD-C agrees within {_CENT} partly with the published numbers that include "
        f"the KL term ({listed['with']}), partly with those that do not ({listed['without']}). In {len(stronger)} "
        f"columns of Table 1 the teacher is {min(stronger):.2f} to {max(stronger):.2f} points better than the public "
        "one, so that gains cannot be compared with quoted rows."
    )
    numbers = {
        "equal": len(equal),
        "ft_smallest": float(min(apart["ft"])),
        "ft_largest": float(max(apart["ft"])),
        "at_largest": float(max(apart["at"])),
        "ickd_with": len(near["with"]),
        "ickd_without": len(near["without"]),
        "stronger_columns": len(stronger),
        "stronger_least": float(min(stronger)),
        "stronger_most": float(max(stronger)),
    }
    title, tables = "The peers' numbers appear to have mixed origins", ("table1", "table2")
    sources = printed.sources("repdistiller", *kinds.values())
    return Finding("pkgd-5", title, text, "baselines", "notable", tables, tuple(rows), numbers, sources=sources)


_CENT = Decimal("0.01")


def _method(row: Mapping[str, Any]) -> str:
    return row["cell"].split(", ")[3]
