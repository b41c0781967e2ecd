"""What the pages of tables 4 and 5 show: differences, pooled intervals, costs and pictures, from made-up results."""

from __future__ import annotations

import types

import matplotlib
import pytest
import torch
from shown import cells_of

from efflib.models import create_model
from efflib.papers.bimask import peers
from efflib.papers.bimask.tables import tables
from efflib.report.verdict import interval
from efflib.training import seeded

matplotlib.use("agg")


class Made:
    """Results with a value for each cell and seed, made by a rule; None where nothing ran."""

    def __init__(self, table, rule, seeds=3, scale="tiny"):
        self.table, self.rule, self.scale = table, rule, scale
        entries = table.entries(scale, seeds)
        self.entries = [types.SimpleNamespace(cell=cell, seed=seed) for cell, seed, _ in entries]

    def samples(self, metric="last", **cell):
        matching = [e for e in self.entries if cell.items() <= dict(e.cell).items()]
        values = {e.seed: self.rule(e.cell, e.seed) for e in matching}
        return {seed: value for seed, value in values.items() if value is not None}


# --- table 5 ---------------------------------------------------------------------------------------------------------


def effect(cell, seed):
    """KD gains 1 + seed by the enhanced teacher, AT 3 - seed; half of that on CIFAR-100."""
    gain = {"kd": 1.0 + seed, "at": 3.0 - seed}.get(cell["method"], 0.0)
    gain *= 0.5 if cell["dataset"] == "cifar100" else 1.0
    return 70 + seed + gain * (cell.get("setting") == "bimask_teacher")


def compared(results):
    return types.SimpleNamespace(table=results.table, results=results)


def test_effects_are_paired_by_seed():
    found = peers.teacher_effects(Made(tables["table5"], effect))
    assert found["cifar10", "kd"] == pytest.approx({0: 1.0, 1: 2.0, 2: 3.0})
    assert found["cifar100", "at"] == pytest.approx({0: 1.5, 1: 1.0, 2: 0.5})
    assert list(found) == [(d, m) for d in ("cifar10", "cifar100") for m in ("kd", "at")]


def test_pooling_by_seed_and_by_run():
    head, ten, hundred, both = cells_of(peers.pooled(compared(Made(tables["table5"], effect))))
    assert head[0] == "data set"
    # The mean of KD and AT is 2 for every seed: no spread at all; six single runs have one.
    assert ten[3] == "+2.00 ± 0.00 (3)"
    assert ten[4] == interval([1, 2, 3, 3, 2, 1]).text(signed=True)
    assert hundred[3] == "+1.00 ± 0.00 (3)"
    assert both[0] == "all" and both[3] == "+1.50 ± 0.00 (3)" and both[4].endswith("(12)")
    printed = [0.14, 0.07]  # KD 93.05 - 92.91, AT 93.08 - 93.01
    assert ten[2] == f"{sum(printed) / 2:+.3f}"


def test_the_headline_is_the_pooled_effect():
    page = types.SimpleNamespace(recorded=["tiny"], show_scale=lambda: compared(Made(tables["table5"], effect)))
    told = peers.teacher_headline(page).data
    assert "cifar10, 2 methods: +2.00 ± 0.00 (3); cifar100, 2 methods: +1.00 ± 0.00 (3) points" in told
    assert peers.teacher_headline(types.SimpleNamespace(recorded={})) is None


def test_seeds_that_a_method_lacks_are_left_out_of_the_pool():
    def partly(cell, seed):
        return None if cell["method"] == "at" and seed == 2 else effect(cell, seed)

    ten = cells_of(peers.pooled(compared(Made(tables["table5"], partly))))[1]
    assert ten[3] == "+2.00 ± 0.00 (2)" and ten[4].endswith("(5)")


def test_seeds_for_a_tenth_of_a_point():
    shown = cells_of(peers.seeds_for_a_tenth(Made(tables["table5"], effect)))
    assumed = {line[0]: line[2] for line in shown if "assumed" in line[0]}
    assert assumed["0.20, assumed for one run"] == "63"  # the spec's number
    measured = next(line for line in shown if line[1] == "kd, cifar10: paired by seed")
    # Differences 1, 2, 3 have the spread 1: (2.80 x 1 / 0.1)^2
    assert measured[0] == "1.00, measured difference" and measured[2] == "785"


def test_nothing_measured_is_said_in_words():
    nothing = compared(Made(tables["table5"], lambda cell, seed: None))
    assert "No student of both teachers is measured at scale tiny yet" in peers.teacher_figure(nothing).data
    assert "No student of both teachers is measured at scale tiny yet" in peers.pooled(nothing).data
    assert len(cells_of(peers.seeds_for_a_tenth(nothing.results))) == 4


def test_the_figure_says_its_numbers_in_words():
    shown = peers.teacher_figure(compared(Made(tables["table5"], effect))).data
    assert shown.count("<img") == 2 and 'class="only-dark"' in shown
    assert f"kd cifar10 {interval([1, 2, 3]).text(signed=True)}" in shown


# --- table 4 ---------------------------------------------------------------------------------------------------------


def test_equal_compute_table():
    points = {"baseline": 0, "cbs": 1, "lerac": 2, "bimask": 4, "baseline_equal": 3, "cbs_equal": 5, "lerac_equal": 4}
    results = Made(tables["table4"], lambda cell, seed: 80.0 + seed + points[cell["method"]])
    head, *lines = cells_of(peers.equal_compute(results))
    assert len(lines) == 2 * 3  # two data sets; curricula that did not run are not there
    numbers = {line[2]: [text.split()[0] for text in line[3:] if text] for line in lines if line[1] == "cifar10"}
    assert numbers == {
        "baseline": ["+3.00", "+1.00"],
        "cbs": ["+1.00", "+5.00", "-1.00"],
        "lerac": ["+2.00", "+4.00", "+0.00"],
    }
    assert head[-1] == "BIMask less the longer one"


def test_an_arm_is_charged_with_what_it_needs():
    found = dict(line[:2] for line in cells_of(peers.compute(tables["table4"], "tiny"))[1:])
    assert found["baseline"] == found["cbs"] == found["lerac"] == "1.00"
    # 6 passes over 2N after 30 over N: 12 / 30 more, but fewer evaluations.
    assert found["bimask"] == found["baseline_equal"] == found["cbs_equal"]
    assert 1.3 < float(found["bimask"]) < 1.4
    small = dict(line[:2] for line in cells_of(peers.compute(tables["table4"], "small"))[1:])
    assert small["self_taught"] == "2.00"  # its scorer is a whole baseline
    assert float(small["efficienttrain"]) < 0.7 and float(small["lcdnet_cl"]) > 1.2


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    with seeded(0):
        return create_model("vgg8", 10, width=0.125).eval()


def test_cbs_maps_get_sharper_and_the_network_stays_clean(network):
    data = peers.examples().take([0])
    first, later, last = peers._blurred_maps(network, data, (0, 40, 190))
    assert first.shape == (32, 32)
    assert first.std() < later.std() < last.std()
    with torch.no_grad():
        pixels = peers.normalise(torch.from_numpy(data.images), *peers.NORMALISATION["objects32"])
        plain = next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))(pixels)
    assert any(torch.allclose(torch.from_numpy(last), channel, atol=1e-5) for channel in plain[0])


def test_pictures_are_told_in_words(network):
    strip = peers.curricula_strip(network).data
    assert "at epochs 0, 10, 20, 40, 130, 190" in strip
    assert "Learning rates of 4 layers from 1e-08 to 0.1 within 5 epochs" in peers.schedules(network).data
    assert "The 3 easiest and the 3 hardest of 40" in peers.easiest_and_hardest(network, count=3, images=40).data
    attention = peers.attention_strip({"one\nline": network}, images=2).data
    assert 'alt="Rendered images and the attention of one line"' in attention
    assert all(picture.count("<img") == 2 for picture in (strip, attention))
