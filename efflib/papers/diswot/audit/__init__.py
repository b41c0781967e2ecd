"""The audit of the DisWOT thesis: 19 findings, recomputed from printed numbers and from the networks themselves.

Findings 1 to 18 are those of section 6 of the implementation spec; 19 lists what checks out. No number below is typed
from a finding: texts are formatted from computed values, numbers of the running text are read from quoted sentences,
counts come from built networks and facts about the data from references.yaml. Wording is about the printed page ("as
printed", "appears"), never about intentions.
"""

from __future__ import annotations

from efflib.papers.diswot.audit import accuracies, checks, equations, maps, sizes, training
from efflib.papers.diswot.audit.accuracies import report_counts
from efflib.papers.diswot.audit.counting import correct_images, counts_for, percent_counts, wilson
from efflib.papers.diswot.audit.equations import printed_accuracy, separable_ratio
from efflib.papers.diswot.audit.evidence import EQUATIONS, TEXT, load
from efflib.report.audit import Finding

__all__ = [
    "EQUATIONS",
    "TEXT",
    "correct_images",
    "counts_for",
    "findings",
    "load",
    "percent_counts",
    "printed_accuracy",
    "report_counts",
    "separable_ratio",
    "wilson",
]

_FINDINGS = (
    accuracies.swapped,
    accuracies.split,
    sizes.two_counts,
    sizes.fewest,
    sizes.three_points,
    sizes.flatten,
    sizes.half_of_flops,
    maps.relevance,
    maps.same_distance,
    training.models,
    training.kd,
    training.totals,
    training.contradictions,
    equations.equations,
    equations.cross_references,
    equations.citations,
    accuracies.state_of_the_art,
    accuracies.leakage,
    checks.checked,
)


def findings(table: str | None = None) -> list[Finding]:
    """Findings about this paper, in the order of the implementation spec (section 6).

    Builds networks to count parameters and operations; the first call takes seconds, later ones do not.

    Args:
        table: only those about this table or page, e.g. table3_3.
    """
    printed = load()
    made = [make(printed) for make in _FINDINGS]
    return [finding for finding in made if table is None or table in finding.tables]
