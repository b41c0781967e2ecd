"""The audit of the BIMask paper: 21 findings, recomputed from the printed numbers and built networks.

No number below is typed from a finding: texts are formatted from computed values. Wording is about the
printed page ("as printed", "appears"), never about intentions.
"""

from __future__ import annotations

from efflib.papers.bimask.audit import arithmetic, baselines, formulas, scatter, text
from efflib.papers.bimask.audit.estimates import chance_of_spread, expected_maximum, gain_spread, seeds_for
from efflib.papers.bimask.audit.evidence import load
from efflib.report.audit import Finding

__all__ = ["chance_of_spread", "expected_maximum", "findings", "gain_spread", "load", "seeds_for"]

_FINDINGS = (
    arithmetic.one_gain_differs,
    arithmetic.other_gains_agree,
    baselines.resnet18_has_two_baselines,
    baselines.lerac_baselines,
    baselines.repdistiller_baselines,
    baselines.repdistiller_students,
    baselines.lerac_journal,
    scatter.gains_too_equal,
    scatter.same_pair,
    scatter.teacher_effect_is_small,
    scatter.selection_on_test,
    scatter.compute_not_matched,
    text.fourth_of_six,
    text.no_depth_trend,
    text.points_not_percent,
    text.ratio_of_resnets,
    text.always_the_last_layer,
    text.same_resolution,
    formulas.equation_and_text,
    formulas.citations,
    formulas.names,
)


def findings() -> list[Finding]:
    """All findings about this paper, in the order of the implementation spec (section 6).

    Builds eight networks to count layers, parameters and multiply-accumulates; takes some seconds.
    """
    printed = load()
    return [make(printed) for make in _FINDINGS]
