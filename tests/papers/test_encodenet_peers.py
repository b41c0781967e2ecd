"""What the pages of EncodeNet's tables 4 and 5 show: costs, published numbers, leads, sizes, and gates at work."""

from __future__ import annotations

import re
import types
from decimal import Decimal
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from shown import cells_of
from torch import nn

from efflib.data import load_dataset
from efflib.models import create_model
from efflib.models.attention import BAMBlock, CBAMBlock, GAMBlock, SEBlock
from efflib.papers.baselines import new_model, planned_images, split
from efflib.papers.encodenet import arms, claims, peers
from efflib.papers.encodenet.autoencoder import ConvertingAutoencoder
from efflib.papers.encodenet.codebook import Codebook
from efflib.papers.encodenet.cost import cost_of
from efflib.papers.encodenet.tables import tables
from efflib.papers.pictures import examples
from efflib.training import seeded
from efflib.trials.recipes import get_recipe

mpl.use("agg")


class Made:
    """Results with a value for each cell and seed, made by a rule; None where nothing ran."""

    def __init__(self, name: str, rule: Any, scale: str = "paper", seeds: int = 3, **choices: Any) -> None:
        self.table, self.rule, self.scale = tables[name], rule, scale
        found = self.table.entries(scale, seeds, **choices)
        self.entries = [types.SimpleNamespace(cell=cell, seed=seed, trial=trial) for cell, seed, trial in found]

    def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
        matching = [e for e in self.entries if cell.items() <= e.cell.items()]
        values = {e.seed: self.rule(e.cell, e.seed) for e in matching}
        return {seed: value for seed, value in values.items() if value is not None}


def nothing(cell: dict[str, Any], seed: int) -> None:
    return None


# --- costs ------------------------------------------------------------------------------------------------

# Spec, section 5, tables 4 and 5, PFLOP: what comes before, what is prepared, the network itself.
COSTS = {
    ("resnet32", "teacher"): (0, 0, 18.2), ("vgg8", "teacher"): (0, 0, 28.7),
    ("resnet32", "baseline"): (0, 0, 5.0), ("vgg8", "baseline"): (0, 0, 6.9),
    ("resnet32", "kd"): (18.2, 0, 11.1), ("vgg8", "kd"): (28.7, 0, 16.5),
    ("resnet32", "rkd"): (18.2, 0, 11.1), ("vgg8", "rkd"): (28.7, 0, 16.5),
    ("resnet32", "encodenet"): (5.0, 24.8, 0.7), ("vgg8", "encodenet"): (6.9, 48.7, 1.0),
    ("resnet32", "finetune"): (5.0, 24.8, 2.1), ("vgg8", "finetune"): (6.9, 48.7, 2.9),
    ("resnet50", "baseline"): (0, 0, 78), ("resnet50", "se"): (0, 0, 78), ("resnet50", "cbam"): (0, 0, 78),
    ("resnet50", "bam"): (0, 0, 80),
    ("resnet50", "encodenet"): (78, 231, 13), ("resnet50", "finetune"): (78, 231, 39),
}  # fmt: skip


@pytest.fixture(scope="module")
def at_paper_scale() -> dict[tuple[str, str], Any]:
    found = {}
    for name, methods in (("table4", None), ("table5", ["se", "bam", "cbam", "encodenet", "finetune"])):
        for cell, _, trial in tables[name].entries("paper", 1, methods=methods):
            found[cell.get("model") or cell["student"], cell["method"]] = trial
    return found


@pytest.mark.parametrize("arm", COSTS)
def test_costs_are_the_specs(arm, at_paper_scale):
    cost = cost_of(at_paper_scale[arm])
    wanted = COSTS[arm]
    parts = [flops / 1e15 for flops in (cost.before, cost.preparation, cost.network)]
    assert parts == pytest.approx(wanted, abs=0.52 if arm[0] == "resnet50" else 0.051)  # as the spec rounds
    assert cost.whole == cost.before + cost.added == cost.before + cost.preparation + cost.network


def test_the_paraphraser_is_ft_s_preparation(at_paper_scale):
    """Thirty epochs of the teacher's forward passes and of the paraphraser beside them."""
    for student, teacher_macs in (("resnet32", 253.2e6), ("vgg8", 398.2e6)):
        plain, ft = (cost_of(at_paper_scale[student, method]) for method in ("kd", "ft"))
        passes = 2 * teacher_macs * 50_000 * 30
        assert plain.preparation == 0 < passes < ft.preparation < 2 * passes
        assert ft.before == plain.before and ft.network > plain.network


@pytest.mark.parametrize(
    "arm", [("resnet32", "kd"), ("vgg8", "ft"), ("resnet32", "encodenet"), ("resnet32", "teacher")]
)
def test_costs_are_what_the_recipes_plan_less_evaluations(arm, at_paper_scale):
    trial = at_paper_scale[arm]
    _, evaluated = planned_images(trial.settings)
    planned = get_recipe(trial.recipe).flops(trial.settings)
    forward = cost_of(at_paper_scale[arm[0], "baseline"]).network / (3 * 50_000 * 240)
    if arm[1] == "teacher":
        forward = cost_of(trial).network / (3 * 50_000 * 240)
    own = cost_of(trial)
    counted = own.network + (own.preparation if trial.recipe == "distill" else 0)
    assert planned - counted == pytest.approx(forward * evaluated * trial.settings.training.epochs, rel=1e-9)


def test_a_student_pays_for_its_teacher_and_encodenet_for_its_baseline(at_paper_scale):
    for student in ("resnet32", "vgg8"):
        alone, teacher = (cost_of(at_paper_scale[student, method]).whole for method in ("baseline", "teacher"))
        assert cost_of(at_paper_scale[student, "ft"]).before == teacher
        assert cost_of(at_paper_scale[student, "encodenet"]).before == alone


def test_cost_rows_relate_to_the_network_alone():
    found, caption = peers.cost_rows(Made("table4", nothing))
    told = {(row["network"], row["arm"]): row for row in found}
    assert len(told) == len(found) == 18 and "scale paper" in caption
    for place, kd, ours in (("resnet110 to resnet32", "5.9", "6.1"), ("vgg16 to vgg8", "6.5", "8.2")):
        assert told[place, "alone"]["all / alone"] == told[place, "alone"]["teacher or baseline given / alone"] == "1.0"
        assert told[place, "KD"]["all / alone"] == kd
        assert told[place, peers.NAMES["encodenet"]]["all / alone"] == ours
        assert told[place, peers.NAMES["baseline_long"]]["all / alone"] == ours
    assert told["vgg16 to vgg8", "KD"]["printed less alone"] == "+2.31"
    assert told["resnet110 to resnet32", "RKD"]["printed less alone"] == "-0.06"
    assert {
        row["printed less alone"]
        for (_, arm), row in told.items()
        if arm in ("alone", peers.NAMES["finetune"], peers.NAMES["baseline_long"])
    } == {""}
    assert all("measured less alone" not in row for row in found)  # nothing ran


def test_cost_rows_show_measured_gains_paired_by_seed():
    gains = {"kd": 1.0, "encodenet": -2.0}

    def ran(cell: dict[str, Any], seed: int) -> float | None:
        if cell["method"] in ("teacher", "ft"):
            return None
        return 60.0 + 10 * seed + gains.get(cell["method"], 0.0)

    found, _ = peers.cost_rows(Made("table4", ran, "tiny"))
    told = {row["arm"]: row["measured less alone"] for row in found}
    assert told["KD"] == "+1.00 ± 0.00 (3)" and told[peers.NAMES["encodenet"]] == "-2.00 ± 0.00 (3)"
    assert told["alone"] == told["teacher"] == told["FT"] == ""
    assert all("printed less alone" not in row for row in found)  # the tiny pair is not the paper's


def test_cost_rows_of_table5():
    chosen = ["se", "encodenet"]
    found, _ = peers.cost_rows(Made("table5", nothing, methods=chosen))
    assert [row["all / alone"] for row in found] == ["1.0", "1.0", "4.1"]
    assert found[2]["teacher or baseline given / alone"] == "3.1"
    assert [row["printed less alone"] for row in found] == ["", "+2.48", "+2.87"]


def test_the_page_counts_the_paper_scale_without_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFLIB_RESULTS", str(tmp_path))
    shown = types.SimpleNamespace(results=Made("table4", nothing, "tiny", 1))
    page = types.SimpleNamespace(table=tables["table4"], recorded={"tiny": shown})
    captions = re.findall(r"<caption>(.*?)</caption>", peers.cost_tables(page).data)
    assert [re.search(r"scale (\w+)", text)[1] for text in captions] == ["tiny", "paper"]


def test_cost_in_words():
    told = peers.cost_words(tables["table4"]).data
    assert "1.0 times as much for resnet110 to resnet32, 2.3 times if teacher and baseline are there already" in told
    assert "1.3 times as much for vgg16 to vgg8, 3.0 times" in told


# --- printed numbers in their surroundings ----------------------------------------------------------------


def test_published_numbers_of_table4_are_the_benchmarks():
    found = peers.published_rows("table4")
    own = {(row["network"], row["method"]): row for row in found}
    assert len(own) == len(found) == 2 * 8  # teacher, alone, four peers, CRD, DKD
    assert own["resnet32", "ft"]["difference"] == pytest.approx(73.47 - 72.37)
    assert own["vgg8", "rkd"]["difference"] == 0
    assert {method for (_, method), row in own.items() if row["printed"] is None} == {"crd", "dkd"}
    pairs = {(row["network"], row["teacher"], row["published teacher"]) for row in found}
    assert pairs == {("resnet32", "resnet110", "resnet110"), ("vgg8", "vgg16", "vgg13")}
    assert all("EncodeNet" not in row["reference"] and len(row["source"]) > 50 for row in found)


def test_published_numbers_of_table5_are_of_resnet50():
    found = {(row["method"], row["reference"]): row for row in peers.published_rows("table5")}
    assert {row["network"] for row in found.values()} == {"resnet50"}
    assert found["cbam", "EMA-attention-module"]["difference"] == 0
    assert found["se", "pytorch-cifar100"]["difference"] == pytest.approx(79.71 - 78.58)
    assert len(found) == 4


@pytest.mark.parametrize(("name", "columns"), [("table4", 8), ("table5", 6)])
def test_the_published_table_names_its_sources(name, columns):
    shown = peers.published_table(name)
    head, *lines = cells_of(shown)
    assert len(head) == columns and len(lines) == len(peers.published_rows(name))
    for row in peers.published_rows(name):
        assert f"<li>{row['reference']}: " in shown.data


def test_leads_in_test_images_and_deviations():
    lines = {line[1]: line[2:] for line in cells_of(peers.leads_table(tables["table5"].printed))[1:]}
    assert lines["BAM"] == ["+0.07", "+7", "0.56", "+0.1"]
    assert lines["alone"] == ["+2.87", "+287", "0.58", "+5.0"]
    assert lines["GAM"][0] == "-1.23" and len(lines) == 6
    four = cells_of(peers.leads_table(tables["table4"].printed))[1:]
    assert [line[:4] for line in four if line[1] == "teacher"] == [
        ["resnet110 to resnet32", "teacher", "-0.43", "-43"],
        ["vgg16 to vgg8", "teacher", "+0.06", "+6"],
    ]
    assert len(four) == 2 * 6


def test_the_deviation_of_a_difference_is_that_of_simulated_test_sets():
    """Accuracies 80.10 and 80.03, each on its own 10,000 images."""
    draws = np.random.default_rng(0).binomial(10_000, [[0.8010], [0.8003]], (2, 20_000)) / 100
    [line] = [line for line in cells_of(peers.leads_table(tables["table5"].printed)) if line[1] == "BAM"]
    assert float(line[4]) == pytest.approx((draws[0] - draws[1]).std(), abs=0.01)


# --- sizes ------------------------------------------------------------------------------------------------


def test_sizes_are_the_printed_ones():
    """Spec, section 3."""
    found = {row["method"]: row for row in peers.size_rows(tables["table5"].printed)}
    assert list(found) == ["baseline", *claims.ATTENTION, "encodenet"]
    assert all(row["equal"] for row in found.values())
    assert [row["modules"] for row in found.values()] == [0, 16, 3, 16, 16, 16, 0]
    assert {row["method"]: f"{row['macs'] / 1e9:.3f}" for row in found.values()} == {
        "baseline": "1.298", "se": "1.301", "bam": "1.325", "cbam": "1.303", "gam": "8.009", "gam_gc": "3.076",
        "encodenet": "1.298",
    }  # fmt: skip
    plain = found["baseline"]["built"]
    assert all(row["built"] == plain + row["inside"] for row in found.values())
    assert found["encodenet"]["built"] == plain == 23_705_252


def test_another_count_is_not_equal(monkeypatch):
    counts = claims.parameter_counts()
    monkeypatch.setattr(claims, "parameter_counts", lambda: {**counts, "se": 26_236_244, "gam": 149_465_000})
    found = {row["method"]: row for row in peers.size_rows(tables["table5"].printed)}
    assert not found["se"]["equal"]  # with biases
    assert found["gam"]["equal"] and found["gam"]["printed"] == Decimal("149.47")  # half rounds up, as printed


def test_places_are_read_from_the_networks():
    found = {row["method"]: row["where"] for row in peers.size_rows(tables["table5"].printed)}
    assert found["bam"] == "after stages 1, 2, 3" and found["baseline"] == found["encodenet"] == ""
    assert {found[m] for m in ("se", "cbam", "gam", "gam_gc")} == {"end of every residual branch, stages 1, 2, 3, 4"}


def test_the_table_of_sizes_says_what_is_added():
    lines = {line[0]: line[1:] for line in cells_of(peers.sizes_table(tables["table5"].printed))[1:]}
    assert lines["ResNet50"][2:5] == ["23,705,252", "23.71", "yes"]
    assert lines["CBAM"][5:] == ["10.7 %", "1.303", "1.00"]
    assert lines["GAM"][5:] == ["530.5 %", "8.009", "6.17"]
    assert lines["EncodeNet"] == lines["ResNet50"]


# --- what is handed on ------------------------------------------------------------------------------------


def test_bars():
    [one, none] = peers.bars(torch.tensor([[1.0, 0.5], [0.0, 0.0]]), side=4)
    assert one.tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [True, True, True, True],
        [True, True, True, True],
    ]
    assert not none.any()
    many = peers.bars(torch.arange(1, 101)[None].double() / 7, side=40)[0]
    assert many.shape == (100, 100)
    assert many.sum(axis=0).tolist() == list(range(1, 101))


@pytest.fixture
def untrained(monkeypatch) -> dict[str, Any]:
    """Networks of smoke's table 4 without any run; the codes are plain colours. Returns what is drawn."""
    drawn: dict[str, Any] = {}
    drawn["codes"] = torch.rand(30, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def converter(trial, store):
        train, _, test = split(trial.settings)
        labels = [torch.from_numpy(np.ascontiguousarray(data.labels)) for data in (train, test)]
        codes = [3 * each + 1 for each in labels]  # the second cluster of the class
        book = Codebook(drawn["codes"], torch.arange(30) // 3, *codes, torch.full((30,), -1))
        model = ConvertingAutoencoder(new_model(trial.settings), book, width=trial.settings.decoder_width)
        return model.eval(), book

    def image_grid(lines, columns, names, alt):
        drawn.update(lines=lines, columns=columns, names=names, alt=alt)
        return types.SimpleNamespace(data=alt)

    monkeypatch.setattr(peers, "trained_model", lambda trial, store: new_model(trial.settings).eval())
    monkeypatch.setattr(peers, "converter", converter)
    monkeypatch.setattr(peers, "image_grid", image_grid)
    return drawn


def test_the_target_is_the_code_of_the_cluster(untrained):
    peers.handed_on(Made("table4", nothing, "smoke", 2), store=None, images=3)
    assert len(untrained["lines"]) == 3 and len(set(untrained["names"])) == 3
    for number, line in enumerate(untrained["lines"]):
        assert len(line) == len(peers.HANDED_ON) == len(untrained["columns"])
        image, answer, apart, middle, last, target, output = line
        assert image.shape == target.shape == output.shape == (32, 32, 3)
        code = untrained["codes"][3 * number + 1]  # the examples are of the first classes
        assert np.array_equal(target, (255 * code).round().byte().permute(1, 2, 0).numpy())
        assert answer.dtype == apart.dtype == bool and (middle.shape, last.shape) == ((8, 8), (4, 4))
        assert apart[:, 40 * number // 3 + 5].sum() == 0  # an image's distance to itself


def test_the_softened_answer_is_the_teachers(untrained):
    made = Made("table4", nothing, "smoke", 1)
    peers.handed_on(made, store=None, images=2)
    heights = np.array([line[1].sum(axis=0)[2::4] for line in untrained["lines"]])
    assert heights.shape == (2, 10) and (heights.max(axis=1) == 40).all()
    assert heights.min() > 20  # an untrained teacher at T = 4 is undecided


def test_without_encodenet_there_is_nothing_to_hand_on(untrained):
    shown = peers.handed_on(Made("table4", nothing, "smoke", 1, methods=["kd"]), store=None)
    assert "no EncodeNet" in shown.data and "lines" not in untrained


# --- gates ------------------------------------------------------------------------------------------------

SMALL = {"stem": "imagenet", "width": 0.125}


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    """Untrained, but with open batch norms: CBAM's spatial gate starts at one half everywhere."""
    found = {}
    for method in ("se", "cbam"):
        with seeded(0):
            found[peers.NAMES[method]] = create_model(f"resnet50_{method}", 10, **SMALL)
        for module in peers.attention_modules(found[peers.NAMES[method]]).values():
            if isinstance(module, CBAMBlock):
                nn.init.ones_(module.bn.weight)
    return found


def maps(channels: int = 32) -> torch.Tensor:
    return torch.randn(5, channels, 6, 6, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_gates_are_those_that_the_modules_apply():
    x = maps()
    se, cbam = SEBlock(32).eval(), CBAMBlock(32).eval()
    nn.init.ones_(cbam.bn.weight)
    found = peers.gates_of(se, x)
    assert found.spatial is None
    torch.testing.assert_close(x * found.channel[:, :, None, None], se(x))
    found = peers.gates_of(cbam, x)
    torch.testing.assert_close(x * found.channel[:, :, None, None] * found.spatial[:, None], cbam(x))
    assert found.spatial.std() > 0


@torch.no_grad()
@pytest.mark.parametrize("block", [BAMBlock, GAMBlock])
def test_gates_per_value_are_averaged(block):
    x, module = maps(), block(32).eval()
    found = peers.gates_of(module, x)
    assert found.channel.shape == (5, 32) and found.spatial.shape == (5, 6, 6)
    if block is BAMBlock:
        gate = module(x) / x - 1
        torch.testing.assert_close(found.channel, gate.mean(dim=(2, 3)))
        torch.testing.assert_close(found.spatial, gate.mean(dim=1))
    else:
        channel = module.channel_gate(x)
        torch.testing.assert_close(found.spatial, module.spatial_gate(x * channel).mean(dim=1))


def test_gates_of_something_else_are_an_error():
    with pytest.raises(TypeError, match="attention_modules"):
        peers.gates_of(nn.ReLU(), maps())


def test_watching_gates_changes_nothing(networks):
    data, x = examples(), torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for name, model in networks.items():
        model.train()
        before = [value.clone() for value in model.state_dict().values()]
        found = peers.gates(model, data)
        assert model.training and all(module.training for module in model.modules())
        assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert len(found) == 16 and all(len(gate.channel) == len(data) for gate in found.values())
        assert (found["stage1.2.attention"].spatial is None) is (name == "SE")
        model.eval()
        assert torch.equal(model(x), model(x))


def test_the_last_module_of_each_stage():
    names = ["stage1.0.attention", "stage1.2.attention", "stage2.attention"]
    assert peers.last_of_stages(names) == {"stage1": "stage1.2.attention", "stage2": "stage2.attention"}


def test_shares_of_variance_that_the_class_explains():
    labels = torch.tensor([0, 0, 1, 1])
    for values, share in (([0, 0, 2, 2], 1), ([0, 2, 0, 2], 0), ([0, 1, 2, 3], 0.8)):
        assert peers.explained_by_class(torch.tensor(values)[:, None].float(), labels) == pytest.approx(share)
    both = torch.tensor([[0, 0], [0, 2], [2, 0], [2, 2]])
    assert peers.explained_by_class(both, labels) == pytest.approx(0.5)
    assert np.isnan(peers.explained_by_class(torch.ones(4, 2), labels))
    noise = torch.randn(1000, 200, generator=torch.Generator().manual_seed(0))
    assert peers.explained_by_class(noise, torch.arange(1000) % 10) == pytest.approx(9 / 999, rel=0.1)


def test_channel_gates_by_class(networks):
    data = load_dataset("objects32", "test").take(range(100))
    means = peers._class_means(networks["SE"], data)
    assert {stage: each.shape for stage, each in means.items()} == {
        f"stage{n}": (10, 32 * 2 ** (n - 1)) for n in (1, 2, 3, 4)
    }
    assert all((np.diff(each.mean(axis=0)) >= -1e-6).all() for each in means.values())
    values = peers.gates(networks["SE"], data)["stage4.2.attention"].channel
    drop = values[torch.from_numpy(data.labels == 4)].mean(dim=0)
    assert np.sort(means["stage4"][4]) == pytest.approx(np.sort(drop.numpy()))
    shown = peers.channel_figure(networks, data).data
    assert shown.count("<img") == 2 and "SE stage1: " in shown and "CBAM stage4: " in shown


def test_the_table_of_gates(networks):
    head, *lines = cells_of(peers.gates_table(networks, examples(3)))
    assert head[0] == "network" and len(lines) == 2 * 4
    assert [line[2] for line in lines[:4]] == ["32", "64", "128", "256"]
    assert all(line[-1].endswith(" %") and 0 <= int(line[-1][:-2]) <= 100 for line in lines)


def test_spatial_gates_are_as_large_as_the_image(networks):
    data = examples()
    found = peers.spatial_maps(networks["CBAM"], data)
    assert {stage: tuple(each.shape) for stage, each in found.items()} == {
        f"stage{n}": (len(data), 32, 32)
        for n in (1, 2, 3)  # the last has a single cell
    }
    assert peers.spatial_maps(networks["SE"], data) == {}


def test_gates_that_know_the_objects_are_found_out(networks, monkeypatch):
    data = examples(2)
    objects = torch.from_numpy(np.asarray(data.masks)).float()
    for sign, auc in ((1, "1.00"), (-1, "0.00")):
        monkeypatch.setattr(
            peers, "spatial_maps", lambda model, data, sign=sign: {"stage1": 0.5 + 0.4 * sign * objects}
        )
        [line] = cells_of(peers.spatial_table({"CBAM": networks["CBAM"]}, data))[1:]
        on, off = ("0.900", "0.500") if sign > 0 else ("0.100", "0.500")
        assert line == ["CBAM", "stage 1", on, off, auc]


def test_the_strip_of_spatial_gates(networks):
    [alt, _] = re.findall(r'alt="([^"]*)"', peers.spatial_strip(networks, images=2).data)
    assert alt.endswith("yellow is open: CBAM, stage 1, CBAM, stage 2, CBAM, stage 3")


def test_without_gates_the_page_says_so():
    for show in (peers.channel_figure, peers.gates_table, peers.spatial_strip, peers.spatial_table):
        assert "No network with" in show({}).data


def test_gating_networks_are_those_of_the_first_seed(monkeypatch):
    asked = []
    monkeypatch.setattr(peers, "trained_model", lambda trial, store: asked.append(trial) or trial.config["model"])
    made = Made("table5", nothing, "smoke", [4, 5], methods=["se", "encodenet", "gam_gc"])
    assert peers.gating_networks(made, None) == {"SE": "resnet50_se", "GAM, grouped": "resnet50_gam_gc"}
    assert asked == [arms.baseline("smoke", f"resnet50_{method}", "objects32", 4) for method in ("se", "gam_gc")]
