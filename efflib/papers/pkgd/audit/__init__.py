"""The audit of the PKGD paper: 14 findings, recomputed from the printed numbers, published numbers and built networks.

Findings 1 to 13 are those of section 6 of the implementation spec, finding 14 judges the sentences about detection
(section 5). No number below is typed from a finding: texts are formatted from computed values. Wording is about the
printed page ("as printed", "appears"), never about intentions.
"""

from __future__ import annotations

from efflib.papers.pkgd.audit import checks, detection, method, peers, shifts, words
from efflib.papers.pkgd.audit.counting import run_cost
from efflib.papers.pkgd.audit.evidence import load
from efflib.papers.pkgd.audit.method import position_weights
from efflib.papers.pkgd.audit.peers import lead
from efflib.papers.pkgd.audit.shifts import best_shift, row_distance, unshifted
from efflib.report.audit import Finding

__all__ = ["best_shift", "findings", "lead", "load", "position_weights", "row_distance", "run_cost", "unshifted"]

_FINDINGS = (
    shifts.shifted_rows_of_table1,
    shifts.shifted_row_of_table2,
    peers.best_cells,
    peers.origin_of_teachers,
    peers.origin_of_peers,
    method.released_code,
    method.ablation,
    method.equations,
    method.flops,
    words.data_sets,
    words.coincidences,
    words.references,
    checks.checked,
    detection.detection,
)


def findings(table: str | None = None) -> list[Finding]:
    """Findings about this paper, in the order of the implementation spec (section 6).

    Args:
        table: only those about this table. All of them take some seconds: for a finding about the text, FLOPs are
            counted by running the networks and distillers of eleven pairs.
    """
    printed = load()
    made = [make(printed) for make in _FINDINGS if table is None or make is not method.flops]
    return [finding for finding in made if table is None or table in finding.tables]
