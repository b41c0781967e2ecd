"""The audit of the DisWOT thesis must find, by recomputing, what section 6 of the spec found."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from efflib.papers.diswot import audit
from efflib.papers.diswot.audit import accuracies, checks, evidence, sizes, training
from efflib.papers.diswot.space import MEMBERS, ROLES, STUDENTS, TEACHER
from efflib.report.audit import Finding, audit_markdown, findings_for

BEST = ROLES["Best"]
PAGES = {"table3_3", "table3_4", "table3_5", "table3_6", "table3_7", "table3_8"}
OTHERS = {"table1_2", "table2_1", "table2_2", "table3_2", "fig3_6", "fig3_7"}


@pytest.fixture(scope="module")
def findings() -> dict[int, Finding]:
    return {int(f.id.split("-")[1]): f for f in audit.findings()}


def test_all_findings_are_there(findings: dict[int, Finding]) -> None:
    assert sorted(findings) == list(range(1, 20))
    assert {f.id.rpartition("-")[0] for f in findings.values()} == {"diswot"}


# finding -> numbers of the spec, section 6, exactly
SPEC: dict[int, dict[str, Any]] = {
    1: {
        "teacher_least": 1_244, "teacher_most": 1_253, "student_least": 1_282, "student_most": 1_289,
        "teacher_correct": 1_285, "student_correct": 1_250, "student_better": 4, "swapped": True,
    },
    2: {
        "stated_total": 6_540, "true_total": 7_023, "accuracies": 11, "fit": 10, "fit_stated": 0, "best_sizes": 1,
        "test": 1_311, "train": 5_712, "ce": 1_107, "kd": 1_109, "kd_over_ce": 2, "gradcam_l2": 1_192, "lrp_l2": 1_194,
        "lrp_over_gradcam": 2,
    },
    3: {
        "without_head": 2_257_984, "with_head": 2_619_332, "counted_without": 2_257_984, "counted_with": 2_619_332,
        "head": 361_348, "torch": 2_585_220, "quoted_millions": 2.25, "rounded_millions": 2.26,
    },
    4: {"best": 2_257_984, "others": 410_208},
    5: {
        "above": 2, "rows_bound": 64, "channel_bound": 2_560, "tau_score": 1, "chance": 1 / 6, "steps": 179,
        "equal_counts": True, "variants": 16,
    },
    6: {"first_dense": 16_056_576, "drop": 2.67, "same_backbone": True},
    7: {
        "teacher_true": 315_583_872, "student_true": 299_855_232, "teacher_counted": 644_843_096,
        "student_counted": 613_448_536, "teacher_is_half": True, "student_is_half": True, "profiler_equal": True,
    },
    8: {"networks": 17, "side": 7},
    10: {
        "runs": 5, "missing": 1, "low_is_multiple": False, "nearest": 567, "nearest_percent": 43.25,
        "equal_train": True, "fall_test": 47.66, "fall_train": 30.28,
    },
    11: {"kd_validation": 0.15, "kd_train": 1.26, "ahead": 9.77, "epochs": 10, "listed": False},
    12: {"ce": 0.41, "low": 0.08, "high": 0.1, "at_equal_weights": 0.4},
    13: {"same": True, "whole": 3, "validation_accuracies": 3},
    14: {
        "true_macs": 299_494_272, "formula": 2_206_816, "access": 15_633_792, "access_grouped": 14_081_472,
        "access_literal": 54_627_552, "equations": 7, "tildes_teacher": 4, "tildes_student": 0,
    },
    15: {"references": 6, "beyond": 3, "chapters": 3},
    16: {"wrong": 6, "iqbal": 77, "elazab": 78, "shifted": True},
    17: {"ahead": 0.05, "correct": 1_250},
    18: {"copies": 216, "far": 844, "below": 10, "students": 10},
    19: {
        "repeated": 15, "equal": 15, "counts": 4, "counts_equal": 4, "heads": 1, "first": 256, "second": 128,
        "sizes_whole": 2, "narrow": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("number", SPEC)
def test_computed_numbers_equal_the_spec(findings: dict[int, Finding], number: int) -> None:
    got = {name: findings[number].numbers[name] for name in SPEC[number]}
    assert got == pytest.approx(SPEC[number], abs=1e-9)


@pytest.mark.parametrize(
    ("number", "name", "spec", "digits"),
    [
        (4, "ratio", 5.5, 1),
        (5, "bound", 2.83, 2),
        (5, "tau_parameters", 0.8165, 4),
        (5, "per_batch_best", 0.0075, 4),
        (5, "per_batch_intermediate", 0.776, 3),
        (5, "per_batch_bad", 0.984, 3),
        (6, "parameters_saving", 85.72, 2),
        (6, "flops_saving", 4.87, 2),
        (6, "saving_96", 50.0, 1),
        (9, "toy_l2", 0.7653669, 7),
        (9, "toy_cosine", 0.2928932, 7),
        (12, "share", 0.24, 2),
        (14, "literal_macs", 5.55e9, -7),
        (14, "perfect", 22.9, 1),
        (17, "images", 0.66, 2),
        (17, "low", 94.1, 1),
        (17, "high", 96.4, 1),
        (17, "one_image", 0.0763, 4),
        (17, "half_width", 1.1, 1),
        (17, "with_head", 2.62, 2),
        (18, "percent", 16.5, 1),
        (18, "neighbour", 97.71, 2),
        (18, "teacher_ahead", 0.3, 1),
        (19, "teacher_mb", 73.39, 2),
        (19, "student_mb", 10.48, 2),
    ],
)
def test_rounded_numbers_equal_the_spec(
    findings: dict[int, Finding], number: int, name: str, spec: float, digits: int
) -> None:
    assert round(findings[number].numbers[name], digits) == spec


def test_maps_are_one_where_a_global_average_follows_directly(findings: dict[int, Finding]) -> None:
    assert findings[8].numbers["students"] < 1e-6
    assert findings[8].numbers["teacher"] > 0.1
    assert findings[8].numbers["convolved"] > 0.01, "convolutions between map and average: no identity"
    rows = {row["network"]: float(row["largest relative difference"]) for row in findings[8].rows}
    assert rows.keys() == MEMBERS.keys()
    assert {name for name, gap in rows.items() if gap < 1e-6} == {n for n, own in STUDENTS.items() if own.head == "gap"}
    assert "every student" not in findings[8].title + findings[8].text


def test_accuracy_as_printed_does_not_depend_on_the_classifier(findings: dict[int, Finding]) -> None:
    assert findings[14].numbers["perfect"] == findings[14].numbers["useless"]
    assert audit.printed_accuracy(300, 1011, 0.5, 0.1) == pytest.approx(100 * 300 / 1311)


# --- arithmetic -------------------------------------------------------------------------------------------


def test_counts_of_a_printed_share() -> None:
    assert list(audit.counts_for(Decimal("0.91"), 300)) == [272, 273, 274]
    assert list(audit.counts_for(Decimal("1.00"), 405)) == [403, 404, 405]
    assert list(audit.counts_for(Decimal("0.00"), 50)) == [0]
    assert list(audit.percent_counts(Decimal("95.35"), 1311)) == [1250]
    assert not audit.percent_counts(Decimal("43.26"), 1311)
    assert list(audit.percent_counts(Decimal("90"), 10)) == [9]


def test_every_count_of_a_share_rounds_to_it() -> None:
    for images in (200, 300, 306, 405):  # halves of 200 are whole
        for hundredths in range(101):
            share = Decimal(hundredths).scaleb(-2)
            found = set(audit.counts_for(share, images))
            true = {k for k in range(images + 1) if abs(Decimal(k) / images - share) <= Decimal("0.005")}
            assert found == true


def test_wilson_interval_of_the_spec() -> None:
    assert [round(end, 1) for end in audit.wilson(1250, 1311)] == [94.1, 96.4]


def test_ratio_of_separable_convolutions_is_that_of_counted_ones() -> None:
    inputs, outputs, kernel, positions = 96, 160, 3, 49
    standard = positions * kernel**2 * inputs * outputs
    separable = positions * (kernel**2 * inputs + inputs * outputs)
    assert audit.separable_ratio(outputs, kernel) == pytest.approx(separable / standard)


# --- findings follow the printed numbers ------------------------------------------------------------------


def changed(table: str, value: float, **keys: Any) -> evidence.Printed:
    """The printed tables with another number in one cell."""
    load = audit.load()
    cell = load.tables[table].cell(**keys)
    cells = tuple(replace(c, value=value) if c is cell else c for c in load.tables[table].cells)
    return replace(load, tables={**load.tables, table: replace(load.tables[table], cells=cells)})


LOWER_RECALL = {"model": TEACHER.name, "class": "glioma", "measure": "recall"}


@pytest.mark.parametrize(
    ("make", "other", "name"),
    [
        (accuracies.swapped, changed("table3_7", 0.99, **LOWER_RECALL), "teacher_least"),
        (accuracies.split, changed("table3_5", 43.25, method="gradcam_l2", epochs=30), "fit"),
        (sizes.two_counts, changed("table3_6_parameters", 2_257_984, model=BEST), "with_head"),
        (sizes.fewest, changed("table3_3_parameters", 400_000, student=BEST), "ratio"),
        (sizes.three_points, changed("table3_3_score", 1.2, student=ROLES["Bad"]), "tau_score"),
        (sizes.flatten, changed("table3_6_flops", 322_421_548, model=BEST), "flops_saving"),
        (sizes.half_of_flops, changed("table3_6_macs", 299_855_232, model=BEST), "student_is_half"),
        (training.models, changed("table3_5_train", 94.0, method="lrp_cosine", epochs=30), "equal_train"),
        (training.kd, changed("table3_4", 0.84, method="kd"), "kd_validation"),
        (training.totals, changed("fig3_6_loss", 0.2, method="gradcam_l2", bound="high"), "share"),
        (training.contradictions, changed("table3_6", 98.1, model=TEACHER.name), "same"),
        (accuracies.state_of_the_art, changed("table3_8", 94.0, model="mobilenet"), "ahead"),
        (accuracies.leakage, changed("table3_5", 98.0, method="lrp_cosine", epochs=50), "students"),
        (checks.checked, changed("fig3_7", 87.0, method="baseline", epochs=10), "equal"),
        (checks.checked, changed("table3_6_parameters", 2_619_333, model=BEST), "heads"),
    ],
)
def test_texts_are_formatted_from_their_numbers(
    make: Callable[[evidence.Printed], Finding], other: evidence.Printed, name: str
) -> None:
    before, after = make(audit.load()), make(other)
    assert before.numbers[name] != after.numbers[name]
    assert before.text != after.text


def test_reports_with_their_own_labels_are_not_called_swapped() -> None:
    load = audit.load()
    names = {TEACHER.name: BEST, BEST: TEACHER.name}
    cells = tuple(replace(c, keys={**c.keys, "model": names[c.keys["model"]]}) for c in load.tables["table3_7"].cells)
    other = replace(load, tables={**load.tables, "table3_7": replace(load.tables["table3_7"], cells=cells)})
    found = accuracies.swapped(other)
    assert not found.numbers["swapped"]
    assert "appear to be swapped" not in found.text
    assert found.numbers["student_better"] == 0


# --- form -------------------------------------------------------------------------------------------------


def test_findings_of_a_page(findings: dict[int, Finding]) -> None:
    for page in PAGES:
        chosen = audit.findings(page)
        assert [f.id for f in chosen] == [f.id for f in findings_for(list(findings.values()), page)]
        assert chosen
    named = {page for finding in findings.values() for page in finding.tables}
    assert PAGES <= named <= PAGES | OTHERS


def test_findings_become_a_page(findings: dict[int, Finding]) -> None:
    text = audit_markdown(list(findings.values()))
    assert text.count("(audit-diswot-") == len(findings)
    shown = " ".join(f.title + f.text for f in findings.values())
    assert not re.search(r"\bnan\b|\bNone\b|Decimal\(|\{[a-z_]+\}|np\.float", shown)


def test_rows_have_the_same_columns(findings: dict[int, Finding]) -> None:
    for finding in findings.values():
        assert len({tuple(row) for row in finding.rows}) <= 1, finding.id


def test_wording_is_fair(findings: dict[int, Finding]) -> None:
    unfair = re.compile(
        r"\b(fraud|cheat|fake|dishonest|manipulat|sloppy|embarrass|ridiculous|absurd|lie[sd]? about)", re.I
    )
    for finding in findings.values():
        assert not unfair.search(finding.title + finding.text)
