"""EncodeNet's audit must find, by recomputing, what sections 2 to 6 of the spec found."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
import torch

from efflib.models import count_macs, count_parameters, create_model, shapes_only
from efflib.papers.encodenet import audit
from efflib.papers.encodenet.audit import checks, clusters, cost, counting, evidence, text
from efflib.papers.encodenet.clustering import inertias, knee
from efflib.report.audit import Finding, audit_markdown, findings_for

SLUG = "encodenet"


# --- the findings of the spec -----------------------------------------------------------------------------


def test_all_findings_are_there(findings: dict[int, Finding]) -> None:
    assert sorted(findings) == list(range(1, 24))
    assert {f.id.rpartition("-")[0] for f in findings.values()} == {"encodenet"}


# finding -> numbers of the spec, sections 2 to 6, exactly
SPEC = {
    1: {"cifar10_points": 2.35, "cifar100_points": 3.18, "cifar10_stated": 1.89, "cifar100_stated": 3.2, "off": 0.46},
    2: {"cifar10_points": 1.42, "cifar100_points": 1.74, "stated_low": 1.8, "stated_high": 2.0, "inside": 0},
    3: {"stated": 94.05, "table": 94.06, "images": 1},
    6: {"two_codes": 0.25, "four_codes": 0.125, "drop_without_learning": 50},
    7: {
        "stated": 5, "counts_that_agree": 7, "counted_baseline": 23_705_252, "counted_encodenet": 23_705_252,
        "counted_se": 26_220_196, "counted_cbam": 26_237_844, "counted_bam": 24_063_319, "counted_gam": 149_470_388,
        "counted_gam_gc": 57_046_196,
    },
    8: {"lead": 0.07, "images": 7, "lead_over_se": 0.39},
    9: {
        "equals_the_teacher": 1, "above_resnet32": 3.47, "above_resnet18": 0.34, "above_public": 5.5,
        "above_resnet32_with": 1.91, "above_resnet18_with": 0.75,
    },
    10: {"resnet18_below": 4, "smallest": 0.34, "largest": 1.44, "resnet18_cifar10_missing": 1.9, "equal": 1},
    11: {"pairs": 2, "apart_vgg8": 0.02, "apart_vgg16": 0.02, "same_result": 1},
    12: {"baseline": 77.23, "published": 77.26, "difference": -0.03, "weight_decay": 1e-4, "peers_weight_decay": 5e-4},
    13: {"equal": 1, "same_size": 1},
    14: {"equal": 1, "value": 71.48, "ft_above": 1.10, "ft_from_crd": 0.01, "ft_listed": 0, "methods": 13},
    15: {
        "ahead": 2, "of": 4, "lead_over_dkd": 0.02, "resnet32_dkd": 74.11, "resnet32_crd": 73.48, "vgg8_crd": 73.94,
        "vgg8_dkd": 74.68,
    },
    16: {"epochs": 800, "distillation_epochs": 240, "attention_epochs": 200},
    17: {"teacher_vgg16": 14_774_436, "teacher_resnet110": 1_736_564},
    18: {"gain_identity": -1.86, "gain_class": 0.99, "gain_cluster": 1.75, "head": 11_173_962 - 11_168_832},
    19: {
        "stated": 3, "gaussian_knee": 3, "flattened_no_cluster": 3, "flattened_two_clusters": 3,
        "flattened_five_clusters": 3, "points_two_clusters": 2, "points_five_clusters": 5, "elbows_vgg16_three": 0,
        "elbows_umap_three": 9,
    },
    21: {"stated": 13, "13th_layer": 4, "13th_convolution": 2, "last_pooling": 1},
    22: {"not_a_number_120": 1, "zero_120": 1},
    23: {
        "gains": 3, "gains_that_agree": 3, "shared": 2, "repeated": 11, "equal": 10, "positive": 8, "sizes": 1,
        "vgg8_cifar10": 2.35, "vgg16_cifar10": 1.42, "resnet18_cifar10": 1.75, "resnet20_cifar10": 1.08,
        "vgg8_cifar100": 3.18, "vgg16_cifar100": 1.74, "resnet18_cifar100": 1.07, "resnet20_cifar100": 1.48,
        "mean_cifar100": 1.8675, "mean_cifar10": 1.65,
    },
}  # fmt: skip


@pytest.mark.parametrize("number", SPEC)
def test_computed_numbers_equal_the_spec(findings: dict[int, Finding], number: int) -> None:
    got = {name: findings[number].numbers[name] for name in SPEC[number]}
    assert got == pytest.approx(SPEC[number], abs=1e-9)


@pytest.mark.parametrize(
    ("number", "name", "spec", "digits"),
    [
        (1, "cifar10_relative", 2.63, 2),
        (1, "cifar100_relative", 4.53, 2),
        (2, "cifar10_relative", 1.53, 2),
        (2, "cifar100_relative", 2.37, 2),
        (4, "drop_if_a_slip", 46, 0),
        (4, "constant_colour", 0.06, 2),
        (4, "smallest_other", 44, 0),
        (4, "largest_other", 58, 0),
        (5, "drop", 45.8, 1),
        (7, "ratio", 6.30, 2),
        (7, "added", 5.3, 1),
        (7, "fewer_than_cbam", 10, 0),
        (7, "fewer_than_gam", 84, 0),
        (8, "deviation", 0.6, 1),
        (9, "size_ratio", 40, 0),
        (17, "parameters", 138_000_000, -6),
        (19, "gaussian_4", 0.1175, 4),
        (22, "error", 3.2, 1),
    ],
)
def test_rounded_numbers_equal_the_spec(
    findings: dict[int, Finding], number: int, name: str, spec: float, digits: int
) -> None:
    assert round(findings[number].numbers[name], digits) == spec


def test_losses_of_the_text_are_more_than_ten_times_smaller(findings: dict[int, Finding]) -> None:
    names = ("factor_without", "factor_with", "factor_corrected")
    assert min(findings[5].numbers[name] for name in names) > 10
    # the entries that the spec names as closest
    assert [findings[5].numbers[name] for name in names] == pytest.approx([130 / 12, 800 / 65, 700 / 65])


def test_public_networks_reach_what_encodenet_reaches(findings: dict[int, Finding]) -> None:
    reached = {(r["model"], r["dataset"]) for r in findings[10].rows if r["quoted"] >= r["with EncodeNet"]}
    assert reached == {("vgg8", "cifar10"), ("resnet18", "cifar10"), ("resnet18", "cifar100")}
    assert findings[10].numbers["at_least_with_encodenet"] == 3


# model -> PFLOP of the baseline, the autoencoder, the second stage frozen and fine-tuned, and rho (spec, section 5.0)
COSTS = {
    "vgg8": (8.7, 48.7, 1.0, 2.9, 5.7),
    "vgg16": (35.8, 94.0, 4.0, 11.9, 2.7),
    "resnet18": (50.0, 117.6, 5.6, 16.7, 2.5),
    "resnet20": (3.7, 20.5, 0.4, 1.2, 5.7),
    "resnet32": (6.2, 24.8, 0.7, 2.1, 4.1),
    "resnet50": (116.8, 231.5, 13.0, 38.9, 2.1),
}


@pytest.mark.parametrize("model", COSTS)
def test_costs_equal_the_spec(findings: dict[int, Finding], model: str) -> None:
    got = [findings[16].numbers[f"{model}_{name}"] for name in cost._STAGES]
    # the spec's 231.5 comes from MACs rounded to 0.1 M
    assert got == pytest.approx(COSTS[model], abs=0.08)


def test_distilled_runs_equal_the_spec() -> None:
    # section 5, table 4: a distilled run 11.1 and 16.5 PFLOP, teachers 18.2 and 28.7
    assert cost._distilled("resnet32", 240) == pytest.approx(11.1 + 18.2, abs=0.1)
    assert cost._distilled("vgg8", 240) == pytest.approx(16.5 + 28.7, abs=0.1)


def test_error_reductions_equal_the_spec() -> None:
    reductions = {"cifar10": (21.9, 19.3, 19.7, 14.5), "cifar100": (10.7, 6.5, 4.2, 5.8)}
    printed = audit.load()
    for dataset, spec in reductions.items():
        got = []
        for model in evidence.MODELS:
            keys = {"model": model, "dataset": dataset}
            pair = [printed.value("table2", method=m, **keys) for m in ("baseline", "encodenet")]
            got.append(float(audit.readings(*pair)["% fewer errors"]))
        assert got == pytest.approx(spec, abs=0.05)


def test_deviations_of_accuracies_equal_the_spec() -> None:
    assert audit.accuracy_deviation(93) == pytest.approx(0.26, abs=0.005)
    assert audit.accuracy_deviation(75) == pytest.approx(0.43, abs=0.005)
    assert audit.difference_deviation(75, 75) == pytest.approx(0.61, abs=0.005)
    # against draws of test sets
    generator = np.random.default_rng(0)
    drawn = generator.binomial(10_000, 0.75, size=(20_000, 2)) / 100
    assert (drawn[:, 0] - drawn[:, 1]).std() == pytest.approx(audit.difference_deviation(75, 75), rel=0.02)


# --- clusters ---------------------------------------------------------------------------------------------


def test_ratios_of_a_normal_scalar_equal_the_spec() -> None:
    spec = (1, 0.3634, 0.1902, 0.1175, 0.0799, 0.0580, 0.0440, 0.0345, 0.0279)
    assert audit.gaussian_ratios() == pytest.approx(spec, abs=5e-5)
    assert audit.gaussian_ratios()[1] == pytest.approx(1 - 2 / math.pi, abs=1e-9)  # two halves, centres sqrt(2 / pi)


def test_flattened_curves_are_those_of_scalars_whatever_the_clusters() -> None:
    curves = audit.demonstration()
    assert {name: knee(found["flattened"]).k for name, found in curves.items()} == dict.fromkeys(curves, 3)
    for found in curves.values():
        assert found["flattened"] == pytest.approx(audit.gaussian_ratios(), abs=0.03)
    # without clusters the curve of the points is nearly straight: it has no knee to speak of
    heights = {name: knee(found["points"]).height for name, found in curves.items()}
    assert heights["no cluster"] < 0.25 < 0.4 < min(heights["two clusters"], heights["five clusters"])


def test_the_demonstrations_elbow_is_that_of_the_recipe() -> None:
    generator = np.random.default_rng(3)
    points = generator.normal(size=(200, 6)) + 4 * generator.normal(size=(4, 6))[generator.integers(4, size=200)]
    ours = clusters._elbow(points, generator, starts=20)
    (theirs,) = inertias(torch.from_numpy(points), np.zeros(200, dtype=np.int64), ["only"], k_max=clusters._MOST)
    assert ours[:5] == pytest.approx(theirs[:5].tolist(), rel=1e-3)
    assert ours[5:] == pytest.approx(theirs[5:].tolist(), rel=0.05)  # many optima
    assert knee(ours).k == knee(theirs).k == 4


# --- entropy ----------------------------------------------------------------------------------------------


def test_entropies_of_the_spec() -> None:
    found = audit.entropies(30.0)
    assert found["float64"] == pytest.approx(2.611e-11, rel=5e-4)
    assert found["float32"] == pytest.approx(2.527e-11, rel=5e-4)
    assert audit.entropies(0.0)["float64"] == pytest.approx(2.302585, abs=1e-6)
    assert audit.entropies(5.0, 3)["float64"] == pytest.approx(0.079869, abs=1e-6)
    assert math.isnan(audit.entropies(120.0)["float32"])


# --- counts -----------------------------------------------------------------------------------------------


def test_vgg16_is_torchvisions() -> None:
    from torchvision.models.vgg import cfgs, make_layers, vgg16

    fact = audit.load().facts["vgg16"]
    with shapes_only():
        network = vgg16(init_weights=False)
    assert audit.vgg16_parameters(fact) == (count_parameters(network), count_parameters(network.features))
    kinds = {torch.nn.Conv2d: "convolution", torch.nn.MaxPool2d: "pooling"}
    seen, x = [], torch.zeros(1, 3, 32, 32)
    for layer in make_layers(cfgs["D"]):
        x = layer(x)
        if type(layer) in kinds:
            seen.append((kinds[type(layer)], x.shape[1], x.shape[2]))
    assert audit.vgg16_maps(fact) == seen


@pytest.mark.parametrize(
    ("model", "macs", "decoder"),
    [
        ("vgg8", 96.2, 228.3),
        ("vgg16", 398.2, 228.3),
        ("resnet18", 555.5, 228.3),
        ("resnet20", 40.8, 96.1),
        ("resnet32", 69.1, 96.1),
        ("resnet50", 1298.0, 245.0),
    ],
)
def test_macs_equal_the_spec(model: str, macs: float, decoder: float) -> None:
    assert round(counting.macs_of(model) / 1e6, 1) == pytest.approx(
        macs, abs=0.25
    )  # the spec counts the head of 100 classes
    assert round(counting.decoder_macs_of(model) / 1e6, 1) == decoder
    if model != "resnet50":
        assert counting.macs_of(model) == count_macs(create_model(model, 10))


# --- sentences --------------------------------------------------------------------------------------------


def test_numbers_are_read_from_sentences() -> None:
    numbers = {name: [str(n) for n in sentence.numbers] for name, sentence in audit.TEXT.items()}
    assert numbers["headline"] == ["92.64", "94.05", "74.56", "76.04"]
    assert numbers["prior"] == ["78", "80"]
    assert [float(n) for n in numbers["rate"]] == [0.1, 1e-4]
    assert numbers["loss"] == ["46", "0.0012", "0.00065"]
    assert (numbers["baseline_epochs"], numbers["autoencoder_epochs"]) == (["300"], ["500"])
    assert (numbers["elbow"], numbers["gam"], numbers["layer"][0]) == (["3"], ["5"], "13")


def test_sentences_and_quotes_are_in_the_paper(
    findings: dict[int, Finding], missing_from_text: Callable[[list[str]], list[str]]
) -> None:
    assert missing_from_text([sentence.words for sentence in audit.TEXT.values()]) == []
    assert missing_from_text([quote for f in findings.values() for quote in f.quotes]) == []


def test_every_sentence_is_used(findings: dict[int, Finding]) -> None:
    read = {"class", "cluster", "gam_accuracy", "cifar10"}  # finding 23 compares their numbers
    quoted = {q for f in findings.values() for q in f.quotes}
    assert {name for name, sentence in audit.TEXT.items() if sentence.words not in quoted} == read


# --- words ------------------------------------------------------------------------------------------------


def test_a_different_printed_number_changes_the_findings(findings: dict[int, Finding]) -> None:
    real = audit.load()
    cells = []
    for cell in real.tables["table2"].cells:
        vgg16 = cell.keys == {"model": "vgg16", "dataset": "cifar10", "method": "encodenet"}
        cells.append(replace(cell, value=94.05) if vgg16 else cell)
    table = replace(real.tables["table2"], cells=tuple(cells))
    changed = evidence.Printed({**real.tables, "table2": table}, real.references, real.facts)
    assert text.headline(changed).numbers["images"] == 0
    assert text.gains_of_vgg16(changed).numbers["cifar10_points"] == pytest.approx(1.41)
    assert checks.checked(changed).numbers["equal"] == 11
    assert checks.checked(real).numbers == findings[23].numbers


def test_gains_need_a_baseline() -> None:
    with pytest.raises(ValueError, match=r"resnet50, cifar100, baseline of table5 has no baseline"):
        audit.load().gain("table5", method="baseline")


def test_texts_show_their_numbers(findings: dict[int, Finding]) -> None:
    for number, shown in {
        1: "2.35 and 3.18 points",
        2: "1.42 and 1.74 points",
        4: "0.07 with clustering and 0.013 without",
        5: "0.012 and 0.0065",
        7: "6.30 times",
        8: "7 of 10,000 test images",
        9: "74.56 %",
        10: "93.02",
        16: "3.1 to 6.7 times",
        17: "138 M parameters (14.7 M in the layers used)",
        18: "5,130 parameters",
        19: "0.3634, 0.1902, 0.1175",
        21: "512 x 4 x 4, convolution 13 512 x 2 x 2",
        22: "2.527e-11 for 2.611e-11",
    }.items():
        assert shown in findings[number].text


def test_wording_is_fair(unfair: list[str]) -> None:
    assert unfair == []


def test_quoted_numbers_name_their_source(findings: dict[int, Finding]) -> None:
    assert {n for n, f in findings.items() if f.sources} == {9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21}


def test_findings_of_one_table_are_the_same_ones(findings: dict[int, Finding]) -> None:
    for table in ("table1", "table3", "table5"):
        assert audit.findings(table) == findings_for(findings.values(), table)
    tables = {f"table{n}" for n in range(1, 6)}
    assert {t for f in findings.values() for t in f.tables} == tables
    assert all(f.tables for f in findings.values())


def test_the_page_holds_every_finding(findings: dict[int, Finding]) -> None:
    page = audit_markdown(list(findings.values()))
    assert len(re.findall(r"^\(audit-encodenet-\d+\)=$", page, re.M)) == 23
    assert "$" not in page  # would be read as mathematics


def test_published_numbers_are_a_comparison_column() -> None:
    rows = audit.load().published("table4")
    # the ResNet pair: teacher, student, KD, RKD, FitNet, FT; nobody else has the teacher VGG16
    assert len(rows) == 6
    row = next(r for r in rows if r["cell"] == "resnet110, resnet32, cifar100, ft")
    assert (row["printed"], row["quoted"], row["difference"]) == (Decimal("73.47"), Decimal("72.37"), Decimal("1.10"))
