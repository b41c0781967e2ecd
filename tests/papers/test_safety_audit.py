"""The audit of the safety paper must find, by recomputing, what section 6 of the spec found."""

from __future__ import annotations

import gzip
import os
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efflib.papers.safety import audit
from efflib.papers.safety.audit import text
from efflib.report.audit import Finding, audit_markdown, findings_for

SLUG = "safety"
DATA = Path(os.environ.get("EFFLIB_DATA", "nowhere"))


def test_all_findings_are_there(findings: dict[int, Finding]) -> None:
    assert sorted(findings) == list(range(1, 17))
    assert {f.id.rpartition("-")[0] for f in findings.values()} == {"safety"}


# finding -> numbers of the spec, section 6, exactly
SPEC: dict[int, dict[str, Any]] = {
    1: {"stated": 2.5, "against_float": 0.9, "against_unsafe": 2.5},
    2: {"stated": 60},
    3: {"CNN_bytes": 4_326, "decoder_bytes": 79_516},
    4: {
        "steps_CNN_float": 58, "steps_CNN_safe": 10_979, "steps_CNN_unsafe": 11_403, "apart_CNN": 424,
        "steps_decoder_safe": 9_212, "end_steps": 11_279, "lines": 21, "same_lines": 21, "gammas_alike": 4, "gammas": 5,
    },
    5: {
        "equal": 0, "steps": 58, "remainder": 2, "CNN_quantised_weights": 326_784, "CNN_float_network": 349_864,
        "decoder_quantised_weights": 793_344, "decoder_float_network": 819_308,
        "decoder_with_bit_depths_and_exponents": 837_956,
    },
    6: {"weights": 65_536, "bytes": 262_144, "left": 557_164, "left_of_printed": 569_702, "above": True},
    7: {"most_CNN": 163_392, "most_decoder": 396_672, "mean_CNN": 76_590, "below": 2},
    8: {"maps": 2_826_240, "kernels": 326_784, "floor": -(2.0**-8), "round": 0},
    9: {"stated": 10, "share_of_test": 10},
    10: {
        "in_validation": 148, "float_steps": 5_000, "steps": 10_000, "best": 1.6260, "last": 1.6625,
        "best_is_printed": True, "last_is_printed": False,
    },
    11: {"layers_restored": 0, "needed": 10, "refused": True},
    12: {"better": 0.77},
    13: {"places": 6, "runs_stated": 0, "float": 98.6},
    14: {"loss": 1.93},
    15: {"same_number": False, "authors": 2, "authors_true": 3},
    16: {"repeated": 8, "equal": 8, "tight": 51_260},
}  # fmt: skip


@pytest.mark.parametrize("number", SPEC)
def test_computed_numbers_equal_the_spec(findings: dict[int, Finding], number: int) -> None:
    got = {name: findings[number].numbers[name] for name in SPEC[number]}
    assert got == pytest.approx(SPEC[number], abs=1e-9)


@pytest.mark.parametrize(
    ("number", "name", "spec", "digits"),
    [
        (1, "loss_against_float", -11.1, 1),
        (1, "loss_against_unsafe", -15.8, 1),
        (2, "CNN", 65.83, 2),
        (2, "decoder", 60.75, 2),
        (2, "mean", 63.29, 2),
        (3, "CNN_percent", 2.1, 1),
        (3, "decoder_percent", 18.7, 1),
        (4, "apart_decoder", 2_700, -2),
        (4, "end_off", 0.02, 2),
        (4, "size_10000", 224_720, 0),
        (5, "off", 0.03, 2),
        (5, "grid", 10.2, 1),
        (5, "bits", 31.942, 3),
        (8, "penalty", 65_357, 0),
        (9, "right", 55, 0),
        (9, "expected", 55, 0),
        (9, "grey", 0.288, 3),
        (9, "background", 0.51, 2),
        (9, "background_true", -0.42, 2),
        (9, "saturated", 0.439, 3),
        (10, "equal_steps", 1.66, 2),
        (11, "least_CNN", 20.604, 3),
        (11, "least_decoder", 17.178, 3),
        (12, "ratio", 11.4, 1),
        (14, "q", 19.275, 3),
        (14, "penalty", 1.93, 2),
        (14, "rest", 0.0, 2),
        (16, "q", 30.2963, 4),
    ],
)
def test_rounded_numbers_equal_the_spec(
    findings: dict[int, Finding], number: int, name: str, spec: float, digits: int
) -> None:
    assert round(findings[number].numbers[name], digits) == spec


def test_chance_agreement_of_the_first_row_is_below_one_percent(findings: dict[int, Finding]) -> None:
    assert 0 < findings[5].numbers["chance_percent"] < 1
    assert 9 < findings[5].numbers["chance_rounded_percent"] < 11


def test_no_published_bit_depth_comes_near_zero(findings: dict[int, Finding]) -> None:
    assert min(v for name, v in findings[11].numbers.items() if name.startswith(("bits", "least"))) > 17


# --- the preservation sets --------------------------------------------------------------------------------


def test_right_labels_do_not_depend_on_the_share_of_uncertain_images() -> None:
    load = audit.load()
    fact, counts = load.facts["selection_code"], load.facts["mnist_labels"]["counts"]
    for share in (0.005, 0.01, 0.05, 0.2):
        right = [audit.right_labels(counts, fact, share, seed) for seed in range(5)]
        assert 0.53 < np.mean(right) < 0.57


def test_labels_are_right_where_they_cannot_be_mixed_up() -> None:
    fact = audit.load().facts["selection_code"]
    assert audit.right_labels([10_000], fact, 0.02, 0) == 1.0  # one class
    # no uncertain image: both lists are the diverse ones, in the same order
    assert audit.right_labels([1_000] * 10, fact, 0.0, 0) == 1.0


def test_class_frequencies_are_those_of_mnist() -> None:
    path = DATA / "mnist" / "t10k-labels-idx1-ubyte.gz"
    if not path.is_file():
        pytest.skip("MNIST is not in EFFLIB_DATA")
    labels = np.frombuffer(gzip.decompress(path.read_bytes())[8:], dtype=np.uint8)
    assert np.bincount(labels).tolist() == audit.load().facts["mnist_labels"]["counts"]


def test_names_of_the_validation_part_are_counted() -> None:
    path = DATA / "names.txt"
    if not path.is_file():
        pytest.skip("names.txt is not in EFFLIB_DATA")
    text = path.read_text(encoding="utf-8")
    names = text.split("\n")
    pairs = Counter(pair for name in names for pair in pairwise(name))
    firsts = Counter(letter for name in names for letter in name[:-1])
    scores = [
        np.mean([pairs[a, b] / firsts[a] for a, b in pairwise(name)]) if len(name) > 1 else np.inf for name in names
    ]
    fact = audit.load().facts["names_file"]
    chosen = np.argsort(scores, kind="stable")[: fact["preserved"]]
    starts = np.cumsum([0, *(len(name) + 1 for name in names)])
    assert sum(starts[i] >= int(0.9 * len(text)) for i in chosen) == fact["in_validation"]


def test_grey_of_written_pictures() -> None:
    fact = audit.load().facts["selection_code"]
    assert audit.written_grey(1.0, fact) == 1.0
    assert audit.written_grey(0.44, fact) == 1.0
    assert audit.written_grey(0.43, fact) < 1.0


# --- code ------------------------------------------------------------------------------------------------


def test_a_zero_bit_channel_is_zero_only_if_rounded() -> None:
    assert audit.zero_bit_weight("floor", exponent=-3) == -0.125
    assert audit.zero_bit_weight("round", exponent=-3) == 0
    assert "in-place" in audit.write_through_view()


def test_every_log_line_is_simulated() -> None:
    lines = audit.log_lines()
    assert [line.step for line in lines if not line.same] == []
    wrong = replace(lines[0], logged=lines[0].logged + 1)
    assert not wrong.same


def test_the_earlier_notebook_lies_between_two_steps() -> None:
    (earlier,) = [size for size in audit.published_sizes() if "earlier" in size.where]
    assert 0.1 < abs(earlier.match.off) < earlier.match.spacing / 2
    assert earlier.match.steps > earlier.steps_stated


# --- form -------------------------------------------------------------------------------------------------


def test_findings_of_a_page(findings: dict[int, Finding]) -> None:
    for page in ("table1", "table2", "figures", "drift", "pareto"):
        chosen = audit.findings(page)
        assert chosen == findings_for(list(findings.values()), page)
        assert chosen
    known = {"table1", "table2", "figures", "drift", "pareto"}
    assert {page for finding in findings.values() for page in finding.tables} == known


def test_findings_become_a_page(findings: dict[int, Finding]) -> None:
    text = audit_markdown(list(findings.values()))
    assert text.count("(audit-safety-") == len(findings)
    assert not re.search(r"\bnan\b|None\b.*bytes|\{[a-z_]+\}", text)


def test_wording_is_fair(unfair: list[str]) -> None:
    assert unfair == []


def test_texts_are_formatted_from_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another printed size must change what the findings say: no number is typed."""
    load = audit.load()
    cells = load.tables["table1_bytes"].cells
    changed = tuple(replace(c, value=c.value + 1000) if c.keys["method"] == "safe" else c for c in cells)
    tables = {**load.tables, "table1_bytes": replace(load.tables["table1_bytes"], cells=changed)}
    other = replace(load, tables=tables)
    before, after = text.larger(load), text.larger(other)
    assert "4,326" in before.text and "5,326" in after.text
    assert text.sixty_percent(other).numbers["CNN"] > text.sixty_percent(load).numbers["CNN"]
