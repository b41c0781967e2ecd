"""The audit of the EncodeNet paper: 23 findings, recomputed from printed and published numbers and built networks.

Findings 1 to 20 are those of section 6 of the implementation spec; 21 and 22 judge descriptions of the method (sections
2.2 to 2.4), and 23 lists what checks out. No number below is typed from a finding: texts are formatted from computed
values, and numbers of the running text are read from quoted sentences. Wording is about the printed page ("as
printed", "appears"), never about intentions.
"""

from __future__ import annotations

from efflib.papers.encodenet.audit import baselines, checks, clusters, comparisons, cost, losses, method, text
from efflib.papers.encodenet.audit.clusters import demonstration, gaussian_ratios
from efflib.papers.encodenet.audit.counting import accuracy_deviation, difference_deviation
from efflib.papers.encodenet.audit.evidence import TEXT, load
from efflib.papers.encodenet.audit.method import entropies, vgg16_maps, vgg16_parameters
from efflib.papers.encodenet.audit.text import readings
from efflib.report.audit import Finding

__all__ = [
    "TEXT",
    "accuracy_deviation",
    "demonstration",
    "difference_deviation",
    "entropies",
    "findings",
    "gaussian_ratios",
    "load",
    "readings",
    "vgg16_maps",
    "vgg16_parameters",
]

_FINDINGS = (
    text.gains_of_vgg8,
    text.gains_of_vgg16,
    text.headline,
    losses.loss_with_clustering,
    losses.loss_in_the_text,
    losses.losses_not_comparable,
    comparisons.size_of_gam,
    comparisons.better_than_bam,
    baselines.resnet20_on_cifar100,
    baselines.weak_baselines,
    baselines.two_baselines,
    baselines.baseline_of_table5,
    comparisons.peers_of_table5,
    comparisons.origin_of_table4,
    comparisons.left_out,
    cost.budget,
    method.pretrained_network,
    method.identity_target,
    clusters.three_clusters,
    method.selection,
    method.unstated,
    method.entropy_in_single_precision,
    checks.checked,
)


def findings(table: str | None = None) -> list[Finding]:
    """Findings about this paper, in the order of the implementation spec (section 6).

    Builds networks to count parameters and multiply-accumulates; the first call takes seconds, later ones do not.

    Args:
        table: only those about this table.
    """
    printed = load()
    made = [make(printed) for make in _FINDINGS]
    return [finding for finding in made if table is None or table in finding.tables]
