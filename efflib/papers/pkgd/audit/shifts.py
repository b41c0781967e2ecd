"""Findings 1 and 2, rows of Tables 1 and 2 that appear shifted by one column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from efflib.papers.pkgd.audit.evidence import Column, Pair, Printed
from efflib.papers.pkgd.audit.readers import named
from efflib.papers.pkgd.claims import ABLATION, LOGITS, METHODS
from efflib.report.audit import Finding

_NEAR = Decimal("0.05")  # points: two accuracies that differ by no more appear to be the same number
_FEATURES = tuple(method for method in METHODS if method not in LOGITS)


# --- printed and published rows ---------------------------------------------------------------------------


def best_shift(printed: Sequence[Decimal], public: Sequence[Decimal], candidates: Sequence[int] = (-1, 1)) -> int:
    """By how many columns a printed row appears to lie to the right of a published one; 0 where none is much nearer.

    Args:
        printed, public: one number per column.
        candidates: shifts to try; one counts only if it at least halves the distance of the two rows.
    """
    best = min(candidates, key=lambda shift: row_distance(printed, public, shift))
    return best if 2 * row_distance(printed, public, best) <= row_distance(printed, public) else 0


def row_distance(printed: Sequence[Decimal], public: Sequence[Decimal], shift: int = 0) -> Decimal:
    """Mean absolute difference of printed[column + shift] and public[column] over the columns that both have."""
    apart = [abs(printed[i + shift] - public[i]) for i in range(len(public)) if 0 <= i + shift < len(printed)]
    return sum(apart, Decimal(0)) / len(apart)


def unshifted(columns: Mapping[Pair, Column], shifts: Mapping[str, int]) -> dict[Pair, dict[str, Decimal | None]]:
    """The columns with every row of `shifts` moved back; a value that the shift pushed out of the table is None."""
    pairs = list(columns)
    moved: dict[Pair, dict[str, Decimal | None]] = {pair: dict(column) for pair, column in columns.items()}
    for method, shift in shifts.items():
        for i, pair in enumerate(pairs):
            inside = 0 <= i + shift < len(pairs)
            moved[pair][method] = columns[pairs[i + shift]][method] if inside else None
    return moved


def shifts_of(printed: Printed, table: str) -> dict[str, int]:
    """Every row of a table that somebody published too, and by how many columns it appears to be shifted."""
    found: dict[str, int] = {}
    for method in METHODS:
        for reference in printed.references:
            public = printed.quoted(table, method, reference)
            if public:
                found.setdefault(method, best_shift(printed.row(table, method), public))
    return found


def _shifted_rows(printed: Printed, table: str, method: str, reference: str, shift: int) -> list[dict[str, Any]]:
    """Column by column: printed, published, and the printed value that the shift puts there."""
    values, public = printed.row(table, method), printed.quoted(table, method, reference)
    rows = []
    for i, pair in enumerate(printed.pairs(table)):
        read = values[i + shift] if 0 <= i + shift < len(values) else None
        apart = None if read is None else read - public[i]
        row = {"row": method, "pair": named(pair), "printed": values[i], "published": public[i]}
        rows.append({**row, "printed one column to the right": read, "less published": apart})
    return rows


def _agreements(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Values that agree exactly, and nearly, after the shift."""
    apart = [(r["printed one column to the right"], r["published"], r["less published"]) for r in rows]
    known = [(read, public, abs(gap)) for read, public, gap in apart if gap is not None]
    same = [f"{read:.2f}" for read, _, gap in known if gap == 0]
    near = [f"{read:.2f} ({public:.2f})" for read, public, gap in known if 0 < gap <= _NEAR]
    return same, near


# --- findings ---------------------------------------------------------------------------------------------


def shifted_rows_of_table1(printed: Printed) -> Finding:
    shifts, rows, texts = shifts_of(printed, "table1"), [], []
    numbers: dict[str, float] = {}
    for method, reference in (("kd", "repdistiller"), ("dkd", "mdistiller")):
        values, public = printed.row("table1", method), printed.quoted("table1", method, reference)
        own = _shifted_rows(printed, "table1", method, reference, shifts[method])
        same, near = _agreements(own)
        apart = [row_distance(values, public, shift) for shift in (0, shifts[method])]
        agree = f"{', '.join(same)} agree to the digit" + (f", {', '.join(near)} nearly" if near else "")
        texts.append(
            f"{method.upper()}: mean distance to the published row {apart[0]:.2f} points in place, {apart[1]:.2f} "
            f"when each value is read one column further left ({agree})"
        )
        numbers |= {f"shift_{method}": shifts[method], f"same_{method}": len(same), f"near_{method}": len(near)}
        numbers |= {f"distance_{method}": float(apart[0]), f"distance_shifted_{method}": float(apart[1])}
        rows += own
    plain = printed.columns("table1")
    moved = unshifted(plain, shifts)
    hurt, still = (_below_baseline(printed, columns) for columns in (plain, moved))
    pair = ("resnet110", "resnet32")
    below, then = (_below_features(columns[pair]) for columns in (plain, moved))
    text = (
        f"Two rows appear to sit one column too far to the right from the second column on. {'; '.join(texts)}. "
        "Both rows would then have an extra first value and lack the one for VGG8 (KD's extra value, "
        f"{printed.value('table1', ABLATION, 'kd'):.2f}, is also what Table 5 prints for KD: "
        f"{printed.value('table5', ABLATION, 'kd'):.2f}). As printed, KD makes "
        f"{' and '.join(hurt)} worse than training alone, and DKD on {named(pair)} ({plain[pair]['dkd']:.2f}) is "
        f"below {below} of {len(_FEATURES)} feature methods; read one column further left, KD hurts {len(still)} "
        f"students and DKD there is below {then}. None of the other "
        f"{len(shifts) - sum(map(bool, shifts.values()))} rows with published numbers comes much nearer to them by a "
        "shift."
    )
    numbers |= {"shifted_rows": sum(map(bool, shifts.values())), "rows": len(shifts)}
    numbers |= {"kd_below_baseline": len(hurt), "dkd_below_features": below}
    numbers |= {"kd_below_baseline_unshifted": len(still), "dkd_below_features_unshifted": then}
    return Finding(
        "pkgd-1",
        "The KD and DKD rows of Table 1 appear shifted by one column",
        text,
        "baselines",
        "major",
        ("table1",),
        tuple(rows),
        numbers,
        sources=printed.sources("repdistiller", "mdistiller"),
    )


def _below_baseline(printed: Printed, columns: Mapping[Pair, Column]) -> list[str]:
    """Students of table 1 for which KD lies below training alone."""
    known = [(pair, column["kd"]) for pair, column in columns.items()]
    return [p[1] for p, kd in known if kd is not None and kd < printed.value("table1", p, "baseline")]


def _below_features(column: Column) -> int:
    """How many feature methods of a column lie above DKD."""
    return sum((column[m] or 0) > (column["dkd"] or 0) for m in _FEATURES)


def shifted_row_of_table2(printed: Printed) -> Finding:
    shifts = shifts_of(printed, "table2")
    rows = _shifted_rows(printed, "table2", "kd", "repdistiller", shifts["kd"])
    values, public = printed.row("table2", "kd"), printed.quoted("table2", "kd", "repdistiller")
    apart = [row_distance(values, public, shift) for shift in (0, shifts["kd"])]
    same, near = _agreements(rows)
    pair = ("vgg13", "mobilenetv2_half")
    kd, teacher = (printed.value("table2", pair, method) for method in ("kd", "teacher"))
    runner_up = max(printed.value("table2", pair, m) for m in METHODS if m != "kd")
    moved = unshifted(printed.columns("table2"), shifts)
    reading = ", ".join("missing" if column["kd"] is None else f"{column['kd']:.2f}" for column in moved.values())
    text = (
        f"The printed KD accuracy of {named(pair)}, {kd:.2f}, exceeds the teacher's ({teacher:.2f}) and every other "
        f"method's by at least {kd - runner_up:.2f} points. Read one column further left, the row is {reading}; its "
        f"mean distance to the published row falls from {apart[0]:.2f} to {apart[1]:.2f} points "
        f"({', '.join([*same, *near])} agree within {_NEAR}). The other {len(shifts) - 1} rows of the table with "
        "published numbers, DKD's among them, do not appear shifted."
    )
    numbers = {
        "shift_kd": shifts["kd"],
        "shifted_rows": sum(map(bool, shifts.values())),
        "rows": len(shifts),
        "near_kd": len(same) + len(near),
        "above_teacher": float(kd - teacher),
        "above_others": float(kd - runner_up),
        "distance_kd": float(apart[0]),
        "distance_shifted_kd": float(apart[1]),
    }
    title, sources = "The KD row of Table 2 appears shifted by one column", printed.sources("repdistiller")
    return Finding("pkgd-2", title, text, "baselines", "major", ("table2",), tuple(rows), numbers, sources=sources)
