"""Findings 1 to 3, the tables against the text: headline, the share of the size that is left, and larger models."""

from __future__ import annotations

from decimal import Decimal
from statistics import fmean

from efflib.papers.safety.audit.evidence import CNN, DECODER, SHORT, TEXT, Printed
from efflib.papers.safety.drift import NETWORKS
from efflib.report.audit import Finding, half_up, words_of


def headline(printed: Printed) -> Finding:
    stated = TEXT["headline"].numbers[0]
    against = {m: printed.score(CNN, "safe") - printed.score(CNN, m) for m in ("float", "unsafe")}
    losses = {m: _relative(printed.score(DECODER, "safe"), printed.score(DECODER, m)) for m in ("float", "unsafe")}
    rows = tuple(
        {
            "safety-driven, against": method,
            "accuracy, CNN (points)": against[method],
            "stated in the abstract": stated if method == "float" else None,
            "loss, decoder (%)": half_up(losses[method]),
        }
        for method in ("float", "unsafe")
    )
    text = (
        f"The abstract states up to {stated} % better test accuracy than the unquantised models. In Table I the "
        f"safety-driven CNN is {against['float']} points above the unquantised one; {against['unsafe']} is its "
        f"distance to the unsafe row. The decoder's loss is {-losses['float']:.1f} % below the unquantised and "
        f"{-losses['unsafe']:.1f} % below the unsafe one; it has no accuracy."
    )
    numbers = {"stated": float(stated), "against_float": float(against["float"])}
    numbers |= {"against_unsafe": float(against["unsafe"])}
    numbers |= {f"loss_against_{method}": float(value) for method, value in losses.items()}
    title = "The 2.5 % of the abstract is the distance to the unsafe row"
    return Finding(
        "safety-1", title, text, "arithmetic", "major", ("table1", "table2"), rows, numbers, words_of(TEXT, "headline")
    )


def _relative(value: Decimal, base: Decimal) -> Decimal:
    """Percent by which a value lies above its base."""
    return 100 * (value - base) / base


def sixty_percent(printed: Printed) -> Finding:
    stated = TEXT["retained"].numbers[0]
    shares = {n: 100 * printed.size(n, "safe") / printed.size(n, "float") for n in NETWORKS}
    rows = tuple(
        {
            "network": SHORT[n],
            "unquantised, bytes": int(printed.size(n, "float")),
            "safety-driven, bytes": int(printed.size(n, "safe")),
            "left, %": half_up(share, 2),
            "stated, %": stated,
        }
        for n, share in shares.items()
    )
    mean = fmean(map(float, shares.values()))
    text = (
        f"The text states approximately {stated} % of the original size. By the tables the safety-driven CNN has "
        f"{shares[CNN]:.1f} % and the decoder {shares[DECODER]:.1f} %, {mean:.1f} % on average."
    )
    numbers = {"stated": float(stated), "mean": mean} | {SHORT[n]: float(share) for n, share in shares.items()}
    title = "About 63 %, not 60 %, of the size is left"
    quotes = words_of(TEXT, "headline", "retained")
    return Finding("safety-2", title, text, "arithmetic", "minor", ("table1", "table2"), rows, numbers, quotes)


def larger(printed: Printed) -> Finding:
    rows, parts = [], []
    numbers: dict[str, float] = {}
    for n in NETWORKS:
        more = printed.size(n, "safe") - printed.size(n, "unsafe")
        percent = _relative(printed.size(n, "safe"), printed.size(n, "unsafe"))
        rows.append(
            {
                "network": SHORT[n],
                "unsafe, bytes": int(printed.size(n, "unsafe")),
                "safety-driven, bytes": int(printed.size(n, "safe")),
                "more, bytes": int(more),
                "more, %": half_up(percent),
            }
        )
        numbers |= {f"{SHORT[n]}_bytes": float(more), f"{SHORT[n]}_percent": float(percent)}
        parts.append(f"{more:,} bytes ({percent:.1f} %) for the {SHORT[n]}")
    text = (
        f"In both tables the safety-driven model is larger than the unsafe one: by {' and '.join(parts)}. A larger "
        "model of the same kind would be expected to be at least as accurate, and the paper compares no two models of "
        "equal size. We compare at equal bytes."
    )
    title, tables = "The safe models are the larger ones", ("table1", "table2", "pareto")
    return Finding(
        "safety-3", title, text, "text", "major", tables, tuple(rows), numbers, words_of(TEXT, "performance")
    )
