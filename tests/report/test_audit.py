"""The audit recomputes what papers print; for BIMask it must find what section 6 of the spec found."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from efflib.papers.bimask import audit as bimask
from efflib.papers.table import PrintedCell, PrintedTable
from efflib.report import audit

SHARED = Path(__file__).resolve().parents[3] / "shared"
PAPER = SHARED / "papers" / "bimask.txt"


@pytest.fixture(scope="module")
def findings() -> dict[int, audit.Finding]:
    return {int(f.id.split("-")[1]): f for f in bimask.findings()}


def table(name: str, *cells: tuple, aggregates: tuple = ()) -> PrintedTable:
    made = tuple(PrintedCell({"model": m, "dataset": "d", "method": k}, v, g) for m, k, v, g in cells)
    return PrintedTable("p", name, "", {"name": "top1_accuracy", "unit": "percent"}, 5, "last", made, aggregates)


# --- generic recomputation --------------------------------------------------------------------------------


def test_gains_are_decimal_arithmetic() -> None:
    rows = audit.recompute_gains([table("t", ("a", "baseline", 68.25, None), ("a", "x", 68.66, 0.41))])
    assert [(r["recomputed"], r["agrees"]) for r in rows] == [(Decimal("0.41"), True)]


def test_a_wrong_gain_is_seen() -> None:
    rows = audit.recompute_gains([table("t", ("a", "baseline", 68.25, None), ("a", "x", 68.66, 0.36))])
    assert [r["agrees"] for r in rows] == [False]


@pytest.mark.parametrize(("printed", "agrees"), [(0.42, True), (0.41, False)])
def test_averages_round_half_up(printed: float, agrees: bool) -> None:
    cells = [
        ("a", "baseline", 1.0, None),
        ("a", "x", 1.41, 0.41),
        ("b", "baseline", 1.0, None),
        ("b", "x", 1.42, 0.42),
    ]
    average = {"dataset": "d", "name": "average_gain", "printed": printed}
    rows = audit.recompute_averages([table("t", *cells, aggregates=(average,))])
    assert [(r["from_gains"], r["n"], r["agrees"]) for r in rows] == [(Decimal("0.415"), 2, agrees)]


def test_baselines_across_tables() -> None:
    first = table("t1", ("a", "baseline", 90.0, None), ("b", "baseline", 80.0, None))
    second = table("t2", ("a", "baseline", 90.0, None), ("b", "baseline", 80.1, None))
    rows = {r["model"]: r for r in audit.compare_baselines([first, second])}
    assert (rows["a"]["agrees"], rows["b"]["agrees"]) == (True, False)
    assert rows["b"]["values"] == {"p.t1": Decimal("80"), "p.t2": Decimal("80.1")}


def test_equal_numbers_need_another_method() -> None:
    base = ("a", "baseline", 90.0, None)
    same = audit.equal_numbers([table("t1", base, ("a", "x", 91.0, 1.0)), table("t2", base, ("a", "x", 91.0, 1.0))])
    other = audit.equal_numbers([table("t1", base, ("a", "x", 91.0, 1.0)), table("t2", base, ("a", "y", 91.0, 1.0))])
    assert same == []
    assert [r["places"] for r in other] == [["t1: x", "t2: y"]]


def test_finding_refuses_unknown_words() -> None:
    with pytest.raises(ValueError, match=r"category 'gossip'.*arithmetic"):
        audit.Finding("x-1", "t", "t", "gossip")
    with pytest.raises(ValueError, match=r"severity 'awful'.*minor"):
        audit.Finding("x-1", "t", "t", "text", "awful")


# --- the findings of the spec -----------------------------------------------------------------------------


def test_all_findings_are_there(findings: dict[int, audit.Finding]) -> None:
    assert sorted(findings) == list(range(1, 22))


# finding -> numbers of the spec, section 6, to the digits given there
SPEC = {
    1: {"recomputed": 0.41, "printed": 0.36, "average_from_gains": 0.75875, "average_from_values": 0.765},
    2: {"table2_cifar10": 0.895, "table3_cifar10": -1.11, "table3_cifar100": -1.18},
    3: {"gain_cifar10": 3.47, "gain_cifar100": 0.12},
    5: {"equal": 3, "different": 1},
    6: {"equal_students": 4, "teacher_printed": 73.03, "teacher_quoted": 72.34},
    9: {"pairs": 1, "value": 93.32, "gain": 0.93},
    10: {"smallest": 0.07, "largest": 0.14, "positive": 10, "mean_cifar10": 0.104, "mean_cifar100": 0.122},
    13: {"rank": 4, "methods": 6, "underlined": 2, "underlined_rank": 5},
    16: {"best_cifar10": 0.1, "best_cifar100": 0.1, "models_in_sweep": 1},
    18: {"span_cifar10": 0.30, "map_sizes": 1},
}


@pytest.mark.parametrize("number", SPEC)
def test_computed_numbers_equal_the_spec(findings: dict[int, audit.Finding], number: int) -> None:
    got = {name: findings[number].numbers[name] for name in SPEC[number]}
    assert got == pytest.approx(SPEC[number], abs=1e-9)


@pytest.mark.parametrize(
    ("number", "name", "spec", "digits"),
    [
        (4, "macs_plain", 555, 0),
        (4, "macs_pooled", 140, 0),
        (6, "smallest_difference", 0.11, 2),
        (6, "largest_difference", 0.13, 2),
        (8, "mean", 0.921, 3),
        (8, "sd", 0.011, 3),
        (8, "expected_sd", 0.067, 3),
        (8, "chance_0.15_fixed", 7e-5, 5),
        (8, "chance_0.15_averaged", 1e-5, 5),
        (8, "chance_0.10_fixed", 7e-4, 4),
        (10, "seeds_per_arm", 63, 0),
        (11, "expected_maximum_10", 1.5, 1),
        (11, "expected_maximum_30", 2.0, 1),
        (11, "expected_maximum_60", 2.3, 1),
        (11, "expected_maximum_240", 2.8, 1),
    ],
)
def test_rounded_numbers_equal_the_spec(
    findings: dict[int, audit.Finding], number: int, name: str, spec: float, digits: int
) -> None:
    assert round(findings[number].numbers[name], digits) == pytest.approx(spec)


def test_only_one_printed_gain_is_off(findings: dict[int, audit.Finding]) -> None:
    assert findings[1].numbers["mismatches"] == 1
    assert findings[2].numbers["gains"] - findings[2].numbers["gains_that_agree"] == 1


def test_small_spread_formula_against_simulation() -> None:
    import numpy as np

    draws = np.random.default_rng(0).normal(0, 0.1, (200_000, 7)).std(axis=1, ddof=1)
    assert bimask.chance_of_spread(0.05, 7, 0.1) == pytest.approx((draws <= 0.05).mean(), abs=3e-3)
    assert bimask.gain_spread(0.15, 5, True) == pytest.approx(0.15 * np.sqrt(2 / 5))


def test_expected_maximum_of_two_is_known() -> None:
    assert bimask.expected_maximum(2) == pytest.approx(1 / 3.141592653589793**0.5, abs=1e-9)


def test_texts_show_their_numbers(findings: dict[int, audit.Finding]) -> None:
    for number, shown in {
        1: "0.41",
        3: "3.47 / 0.12",
        4: "140 M",
        8: "sd 0.011",
        13: "number 4 of 6",
    }.items():
        assert shown in findings[number].text


def test_wording_is_fair(findings: dict[int, audit.Finding]) -> None:
    harsh = re.compile(r"\b(fraud|cheat\w*|fabricat\w*|fake\w*|liar\w*|dishonest|sloppy|ridiculous|obviously)\b", re.I)
    assert [f.id for f in findings.values() if harsh.search(f.title + f.text)] == []


def test_quotes_are_in_the_paper(findings: dict[int, audit.Finding]) -> None:
    if not PAPER.exists():
        pytest.skip("the paper's text is not beside this checkout")
    plain = re.sub(r"[\s*]+", " ", PAPER.read_text(encoding="utf-8"))
    missing = [(f.id, q) for f in findings.values() for q in f.quotes if re.sub(r"[\s*]+", " ", q) not in plain]
    assert missing == []


# --- pages ------------------------------------------------------------------------------------------------


def test_markdown_has_unique_anchors_and_sortable_tables(findings: dict[int, audit.Finding]) -> None:
    page = audit.audit_markdown(list(findings.values()))
    anchors = re.findall(r"^\((audit-bimask-\d+)\)=$", page, re.M)
    assert anchors == sorted(set(anchors), key=anchors.index)
    assert len(anchors) == 21
    assert re.findall(r"^## (.+)$", page, re.M) == list(audit.CATEGORIES.values())
    links = re.findall(r'href="#(audit-bimask-\d+)"', page)
    assert sorted(links) == sorted(anchors)
    assert page.count('<table class="sortable">') == 1 + sum(bool(f.rows) for f in findings.values())
    assert "$" not in page  # would be read as mathematics


def test_markdown_refuses_repeated_ids() -> None:
    one = audit.Finding("x-1", "t", "t", "text")
    with pytest.raises(ValueError, match="unique"):
        audit.audit_markdown([one, one])


def test_tables_escape_and_fill() -> None:
    html = audit.html_table([{"a_b": "<x>", "n": Decimal("91.6")}, {"a_b": True, "n": 0.00007}])
    assert "&lt;x&gt;" in html
    assert "<th>a b</th>" in html
    for text in ("91.60", "yes", "7e-05"):
        assert f"<td>{text}</td>" in html


def test_findings_for_a_table(findings: dict[int, audit.Finding]) -> None:
    chosen = [f.id for f in audit.findings_for(findings.values(), "table6")]
    assert "bimask-18" in chosen
    assert "bimask-6" not in chosen


def test_quoted_numbers_name_their_source(findings: dict[int, audit.Finding]) -> None:
    named = {n for n, f in findings.items() if f.sources}
    assert named == {4, 5, 6, 7, 11}
    page = audit.audit_markdown(list(findings.values()))
    assert [s for n in named for s in findings[n].sources if s not in page] == []


def test_terminal_text_lists_every_finding(findings: dict[int, audit.Finding]) -> None:
    text = audit.audit_text(list(findings.values()))
    assert [f.id for f in findings.values() if f"[{f.id}]" not in text] == []
