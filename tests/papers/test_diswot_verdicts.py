"""Claims of the thesis about its final student, and one about overfitting: results that support and contradict each."""

from __future__ import annotations

import pytest
from diswot_results import Fake, verdict

from efflib.papers.diswot.space import ROLES, TEACHER
from efflib.papers.diswot.tables import tables
from efflib.report.verdict import CONTRADICTED, NOT_RUN, SUPPORTED

Values = dict[tuple, float]

BEST, MIDDLE, _ = ROLES.values()
FINAL = {"teacher": (TEACHER.name, "baseline"), "student": (BEST, "lrp_cosine"), "alone": (BEST, "baseline")}


def ended(metric: str = "last", **accuracies: float) -> Values:
    """Accuracies of the three final networks and the nearest neighbour after the longest run."""
    bar = {("nearest_neighbour", None, None, metric): accuracies.pop("neighbour")} if "neighbour" in accuracies else {}
    return {(*FINAL[role], 50, metric): value for role, value in accuracies.items()} | bar


def overfitting(best: float, middle: float) -> Values:
    """Training less test accuracy of two students; the intermediate one is worse in both, as printed."""
    tested = {BEST: (90.92, best), MIDDLE: (86.19, middle)}
    found: Values = {}
    for name, (accuracy, gap) in tested.items():
        found |= {(name, "gradcam_l2", 15, "last"): accuracy, (name, "gradcam_l2", 15, "train"): accuracy + gap}
    return found


def f1_scores(swapped: bool) -> Values:
    """The printed F1 of each class; with the labels of the two reports exchanged, as they appear to be meant."""
    other = {FINAL["teacher"]: FINAL["student"], FINAL["student"]: FINAL["teacher"]}
    found: Values = {}
    for cell in tables["table3_7"].printed.numbers:
        if cell.keys["measure"] == "f1":
            own = cell.keys["model"], cell.keys["method"]
            found[(*(other[own] if swapped else own), 50, cell.keys["class"])] = cell.value
    return found


COPIES = ended(teacher=99.0, student=99.0, neighbour=90.0)  # on all images everything beats the neighbour

CASES: list[tuple[str, Values, str]] = [
    ("table3_3.d", overfitting(best=1.0, middle=1.5), SUPPORTED),
    ("table3_3.d", overfitting(best=1.5, middle=1.0), CONTRADICTED),
    # The margin of 3 points is the claim's: a student may be below its teacher.
    ("table3_6.a", ended(teacher=98.02, student=95.35), SUPPORTED),
    ("table3_6.a", ended(teacher=98.0, student=95.01), SUPPORTED),
    ("table3_6.a", ended(teacher=98.0, student=94.99), CONTRADICTED),
    ("table3_6.b", ended(student=95.35, alone=95.0), SUPPORTED),
    ("table3_6.b", ended(student=95.35, alone=95.7), CONTRADICTED),
    ("table3_6.c", ended(teacher=98.02, alone=97.0), SUPPORTED),
    ("table3_6.c", ended(teacher=98.02, alone=98.5), CONTRADICTED),
    ("table3_6.e", COPIES | ended("leak_free", teacher=97.0, student=95.0, neighbour=94.0), SUPPORTED),
    ("table3_6.e", COPIES | ended("leak_free", teacher=97.0, student=93.0, neighbour=94.0), CONTRADICTED),
    ("table3_7.a", f1_scores(swapped=True), SUPPORTED),
    ("table3_7.a", f1_scores(swapped=False), CONTRADICTED),
    ("table3_8.a", ended(student=95.35), SUPPORTED),
    ("table3_8.a", ended(student=95.2), CONTRADICTED),
]


@pytest.mark.parametrize(("claim", "values", "wanted"), CASES, ids=[f"{claim}-{wanted}" for claim, _, wanted in CASES])
def test_verdict(claim: str, values: Values, wanted: str) -> None:
    table, letter = claim.split(".")
    assert verdict(table, letter, Fake(values)) == wanted
    assert verdict(table, letter, Fake({})) == NOT_RUN
