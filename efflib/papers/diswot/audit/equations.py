"""Findings 14 to 16, equations as printed, cross-references and citations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from efflib.papers.diswot.audit.evidence import BEST, EQUATIONS, TEXT, Printed, equations_as_printed
from efflib.papers.diswot.costs import cost, formula_parameters, literal_macs, memory_access, recorded
from efflib.report.audit import Finding

# --- equations --------------------------------------------------------------------------------------------


def printed_accuracy(positives: int, others: int, recall: float, false_alarms: float) -> float:
    """Equation 3.2 as printed, (TP + FN) / (TP + FN + TN + FP), in percent, for one class against the rest.

    Args:
        positives, others: images of the class, and of the other classes.
        recall: share of the positives that are found.
        false_alarms: share of the others that are taken for positives.
    """
    tp, fp = recall * positives, false_alarms * others
    fn, tn = positives - tp, others - fp
    return 100 * (tp + fn) / (tp + fn + tn + fp)


def separable_ratio(outputs: int, kernel: int) -> float:
    """Cost of a depthwise-separable convolution over that of a standard one: 1/N + 1/K^2."""
    return 1 / outputs + 1 / kernel**2


class _Backbone(NamedTuple):
    """The best student's backbone by the printed formulas, and as it is.

    Args:
        outputs: most channels of its separable convolutions.
        literal, macs: multiply-accumulates without groups, and with them.
        formula, parameters: parameters by equation 3.8, and as Keras counts them.
        access: elements read and written as printed, with groups, and with groups and the input's H and W.
    """

    outputs: int
    literal: int
    macs: int
    formula: int
    parameters: int
    access: tuple[int, int, int]

    @property
    def ratio(self) -> float:
        """Share of a standard convolution's cost that a separable one of so many channels has."""
        return separable_ratio(self.outputs, 3)


def _backbone() -> _Backbone:
    forward = recorded(BEST, part="backbone")
    layers = forward.convolutions
    outputs = max(layer.outputs[0] for layer in layers[:-1] if layer.kernel == 1)
    literal, grouped, true = (
        memory_access(layers, grouped=g, true_inputs=t) for g, t in ((False, False), (True, False), (True, True))
    )
    own = cost(BEST).backbone_keras_parameters
    return _Backbone(
        outputs, literal_macs(layers), forward.macs, formula_parameters(layers), own, (literal, grouped, true)
    )


def _row(equation: str, as_printed: str, gives: str, expected: str) -> dict[str, str]:
    return {"equation": equation, "as printed": as_printed, "what it gives": gives, "expected": expected}


def _accuracy_row(perfect: float) -> dict[str, str]:
    gives = f"{perfect:.1f} % for glioma, whether all or none are found"
    return _row("3.2 (accuracy)", "TP + FN in the numerator", gives, "TP + TN")


def _cost_rows(own: _Backbone) -> tuple[dict[str, str], ...]:
    literal, grouped, true = own.access
    return (
        _row(
            "1.8 (depthwise separable)",
            "1/N of the standard cost",
            f"{100 / own.outputs:.2f} % for {own.outputs} channels",
            f"1/N + 1/K^2: {100 * own.ratio:.2f} %",
        ),
        _row(
            "1.5, 3.6 (FLOPs, MACs)",
            "without groups",
            f"{own.literal / 1e9:.2f} G multiply-accumulates for the backbone",
            f"{own.macs / 1e9:.3f} G",
        ),
        _row(
            "1.7, 3.7 (memory access)",
            "without groups, one H and W",
            f"{literal:,} elements for the backbone",
            f"{true:,} ({grouped:,} with the output's H and W)",
        ),
        _row(
            "3.8 (parameters)",
            "a bias for each convolution, no batch norm",
            f"{own.formula:,} for the backbone, groups taken into account",
            f"{own.parameters:,}, as printed in Table 3.3",
        ),
    )


def _notation_rows(tildes: Sequence[int]) -> tuple[dict[str, str], ...]:
    """Equation 3.11 lacks tildes that 3.10 has, 2.13 has an argmin too many."""
    return (
        _row(
            "3.11 (student's relation)",
            f"{tildes[1]} tildes, eq. 3.10 has {tildes[0]}",
            "a product of four-dimensional maps",
            "reshaped maps, as in eq. 2.11",
        ),
        _row(
            "2.13 (score)",
            "argmin of a sum of two numbers",
            "an index, where a score is meant",
            "the sum; selection is the argmin over students",
        ),
    )


def equations(printed: Printed) -> Finding:
    test = printed.facts["kaggle_split"]["test"]
    positives, others = test["glioma"], printed.test_images - test["glioma"]
    perfect, useless = (printed_accuracy(positives, others, *rates) for rates in ((1.0, 0.0), (0.0, 1.0)))
    own = _backbone()
    tildes = [EQUATIONS[number].count(r"\tilde") for number in ("3.10", "3.11")]
    rows = (_accuracy_row(perfect), *_cost_rows(own), *_notation_rows(tildes))
    text = (
        f"{len(rows)} equations differ from what they are used for. The accuracy of equation 3.2 is the share of a "
        f"class in the data: {perfect:.1f} % for glioma with a perfect classifier, and {useless:.1f} % with a useless "
        "one. Equation 1.8 drops the depthwise part. Without groups, equations 1.5 and 3.6 give the backbone "
        f"{own.literal / 1e9:.2f} G multiply-accumulates instead of {own.macs / 1e9:.3f} G. Equation 3.8 adds biases "
        f"that these convolutions lack and leaves out batch norms ({own.formula:,}; the thesis itself prints "
        f"{int(printed.role('table3_3_parameters', 'Best')):,})."
    )
    numbers = {"perfect": perfect, "useless": useless, "literal_macs": own.literal, "true_macs": own.macs}
    numbers |= {"formula": own.formula, "ratio": own.ratio}
    numbers |= zip(("access_literal", "access_grouped", "access"), own.access)
    numbers |= {"equations": len(rows), "tildes_teacher": tildes[0], "tildes_student": tildes[1]}
    title = "Seven equations, as printed, differ from what they are used for"
    quotes = equations_as_printed("1.8", "2.13", "3.2", "3.8", "3.10", "3.11")
    sources, tables = printed.sources("depthwise_cost", "kaggle_split"), ("table3_6", "table3_3", "table3_4")
    return Finding("diswot-14", title, text, "formulas", "minor", tables, rows, numbers, quotes, sources)


# --- cross-references and citations -----------------------------------------------------------------------


def cross_references(printed: Printed) -> Finding:
    (results,) = map(int, TEXT["structure"].numbers)
    expected = {
        "chapter": f"Chapter {results}",
        "section": f"{results}.5.4",
        "figure": "figure 3.9, from the caption",
        "above": "section 2.5.2",
        "equations": "2.5 and 2.6 for the maps, 2.7 and 2.8 for the matrices",
        "class": "class i",
    }
    rows = tuple(
        {"where": TEXT[name].where, "as printed": TEXT[name].words, "expected": right}
        for name, right in expected.items()
    )
    later = sum(Decimal(results) < TEXT[name].numbers[0] for name in ("chapter", "figure"))
    later += int(TEXT["section"].words[0]) > results
    text = (
        f"{len(rows)} cross-references lead elsewhere, {later} of them to a chapter after the last one: the results "
        f"are chapter {results}. They appear to come from an earlier numbering."
    )
    numbers = {"references": len(rows), "beyond": later, "chapters": results}
    title = "Cross-references to chapters, sections and equations that are numbered otherwise"
    tables = ("table3_5", "table3_6", "table3_4")
    return Finding("diswot-15", title, text, "formulas", "minor", tables, rows, numbers)


CITED = ("hinton", "gradcam", "gradcam_maps", "contrastive", "iqbal", "elazab")


def _reference_number(name: str) -> int:
    (number,) = re.findall(r"\[(\d+)\]", TEXT[name].words)
    return int(number)


def citations(printed: Printed) -> Finding:
    rows = tuple(
        {
            "where": TEXT[name].where,
            "cited as": TEXT[name].words,
            "listed as": TEXT[f"{name}_listed"].words,
        }
        for name in CITED
    )
    listed = [re.findall(r"\. (\w+) et al", TEXT[f"{name}_listed"].words) for name in ("iqbal", "elazab")]
    (odd,) = (c for c in printed.tables["table1_2"].cells if c.keys["ref"] == _reference_number("hinton"))
    cited = [_reference_number(name) for name in ("iqbal", "elazab")]
    fit = {int(c.keys["ref"]): c for c in printed.tables["table1_2"].cells if c.keys["ref"] in cited}
    text = (
        f"{len(rows)} citations lead to another work than the sentence names: knowledge distillation to a "
        "federated-learning paper (Hinton et al. are [1]), Grad-CAM to class activation mapping and, elsewhere, to the "
        "all-convolutional net (Grad-CAM's own paper is not listed), contrastive distillation to data-efficient image "
        f"transformers. The two peers of Table 3.8 are shifted by one: [{cited[0]}] is cited as Iqbal and listed under "
        f"{listed[0][0]}, [{cited[1]}] is cited as Elazab and listed under {listed[1][0]}; no entry of the list is by "
        f'Iqbal. Table 1.2 has "{odd.keys["study"]}" for [{odd.keys["ref"]}], the federated paper by Jafari et al. '
        f"The accuracies of the two peers ({fit[cited[0]].printed['performance']}; "
        f"{fit[cited[1]].printed['performance']}) could not be traced."
    )
    numbers = {"wrong": len(rows), "iqbal": cited[0], "elazab": cited[1], "shifted": "Elazab" in listed[0]}
    title = "Citations that lead to other works"
    tables, sources = ("table3_8", "table1_2"), printed.sources("gradcam")
    return Finding("diswot-16", title, text, "formulas", "notable", tables, rows, numbers, (), sources)
