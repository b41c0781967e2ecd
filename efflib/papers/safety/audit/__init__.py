"""The audit of the safety-guided self-compression paper: 16 findings, recomputed from printed and published numbers.

Findings 1 to 15 are those of section 6 of the implementation spec; 16 lists what checks out. No number below is typed
from a finding: texts are formatted from computed values, numbers of the running text are read from quoted sentences,
logged numbers of the authors' notebooks come from references.yaml, and sizes that only the optimiser explains from the
drift simulation. Wording is about the printed page and the published code ("as printed", "appears"), never about
intentions.
"""

from __future__ import annotations

from efflib.papers.safety.audit import checks, equations, preservation, runs, sizes, text
from efflib.papers.safety.audit.counting import log_lines, published_sizes
from efflib.papers.safety.audit.equations import zero_bit_weight
from efflib.papers.safety.audit.evidence import CNN, DECODER, ROMAN, SHORT, TEXT, load
from efflib.papers.safety.audit.preservation import right_labels, written_grey
from efflib.papers.safety.audit.runs import write_through_view
from efflib.report.audit import Finding

__all__ = [
    "CNN",
    "DECODER",
    "ROMAN",
    "SHORT",
    "TEXT",
    "findings",
    "load",
    "log_lines",
    "published_sizes",
    "right_labels",
    "write_through_view",
    "written_grey",
    "zero_bit_weight",
]

_FINDINGS = (
    text.headline,
    text.sixty_percent,
    text.larger,
    sizes.drift,
    sizes.original_size,
    sizes.attention_only,
    sizes.averaged,
    equations.equations,
    preservation.preserved_images,
    preservation.preserved_names,
    runs.restoration,
    runs.other_runs,
    runs.variance,
    runs.reported_loss,
    equations.references,
    checks.checked,
)


def findings(table: str | None = None) -> list[Finding]:
    """Findings about this paper, in the order of the implementation spec (section 6).

    Args:
        table: only those about this table or page: table1, table2, figures, drift, pareto.
    """
    printed = load()
    made = [make(printed) for make in _FINDINGS]
    return [finding for finding in made if table is None or table in finding.tables]
