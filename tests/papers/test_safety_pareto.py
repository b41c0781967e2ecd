"""The rivals of self-compression: their recipe on tiny networks, their trials, and what makes the Pareto front."""

from __future__ import annotations

import types

import pytest
import torch
from pydantic import ValidationError

from efflib.papers.safety import arms, pareto
from efflib.papers.safety.baselines import BaselineConfig, compressed_baseline
from efflib.papers.safety.recipes import StepsConfig, make_task, new_model
from efflib.quantize import post_training, tight_bytes
from efflib.report.verdict import claim_verdict
from efflib.trials.recipes import Context
from efflib.trials.results import Entry, Results

TEXT = {
    "dataset": "embedded_names", "model": "names_decoder", "seed": 0, "batch_size": 4, "every": 2,
    "model_options": {"width": 0.25},
}  # fmt: skip
IMAGES = {
    **TEXT, "dataset": "digits28", "model": "mnist_cnn", "subset": 100, "held": 20, "batch_size": 8,
}  # fmt: skip
WEIGHTS, CHANNELS = 12_720, 603  # of the narrow decoder: 4 (16 x 48 + 16 x 16 + 2 x 16 x 64) + 16 x 27; rows


def context(parent):
    return Context("cpu", "fp32", None, {"float": parent}, progress=False)


def run(common=TEXT, **settings):
    config = BaselineConfig(**common, **settings)
    parent = new_model(config).state_dict()
    return parent, compressed_baseline(config, context(parent))


# --- the recipe -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip", "bits"), [("max", 4), ("mse", 2)])
def test_rounding_alone_trains_nothing(clip, bits):
    parent, outcome = run(method="ptq", bits=bits, clip=clip)
    expected = new_model(StepsConfig(**TEXT, steps=1))
    expected.load_state_dict(parent)
    for name, value in outcome.weights.items():
        if name in parent:
            assert torch.equal(value, parent[name])
    post_training(expected, bits, clip)
    task = make_task(StepsConfig(**TEXT, steps=1), context({}))
    metrics = outcome.metrics
    assert metrics["last"] == metrics["test_best"] == pytest.approx(task.measure(expected)["test"], abs=1e-9)
    assert metrics["bytes"] == WEIGHTS * bits // 8 + 4 * CHANNELS
    assert metrics["tight_bytes"] == tight_bytes(expected) == metrics["file_payload"]
    assert metrics["file_bytes"] > metrics["bytes"] and metrics["tightened_test"] == metrics["last"]
    assert metrics["curves"] == {} and outcome.flops == 0


def test_learned_steps_train_and_end_as_a_quantised_network():
    parent, outcome = run(method="qat", bits=3, steps=4)
    metrics, weights = outcome.metrics, outcome.weights
    assert not torch.equal(weights["head.weight"], parent["head.weight"])
    assert bool((weights["head.bits"] == 3).all()) and not any("parametrizations" in name for name in weights)
    assert metrics["bytes"] == WEIGHTS * 3 // 8 + 4 * CHANNELS >= metrics["tight_bytes"] + metrics["scale_bytes"]
    assert metrics["last"] == pytest.approx(metrics["curves"]["test"][-1], abs=1e-3), "fixing the steps changes nothing"
    assert metrics["curves"]["step"] == [0, 2, 4]


@pytest.mark.parametrize("bits", [None, 8])
def test_pruned_weights_stay_zero_and_are_counted(bits):
    _, outcome = run(method="magnitude", sparsity=0.75, steps=2, bits=bits)
    metrics, kept = outcome.metrics, WEIGHTS // 4
    zeros = sum(
        int((v == 0).sum()) for name, v in outcome.weights.items() if name.endswith(("qkv.weight", "f1.weight"))
    )
    assert zeros > 0
    if bits is None:
        assert metrics["bytes"] == metrics["tight_bytes"] == WEIGHTS / 8 + 4 * kept
    else:
        assert metrics["bytes"] == metrics["tight_bytes"] + 4 * CHANNELS
        assert WEIGHTS / 8 < metrics["tight_bytes"] <= WEIGHTS / 8 + kept
    assert "file_bytes" not in metrics, "the packed file has no bitmask of weights"


def test_cut_channels_leave_a_smaller_network():
    parent, outcome = run(IMAGES, method="structured", keep=0.5, steps=2)
    weights = outcome.weights
    assert [len(weights[f"conv{place}.weight"]) for place in (1, 2, 3, 4)] == [4, 4, 8, 8]
    numbers = 4 * 25 + 4 * 4 * 25 + 8 * 4 * 9 + 8 * 8 * 9
    assert outcome.metrics["bytes"] == outcome.metrics["tight_bytes"] == 4 * numbers
    assert weights["head.weight"].shape == (10, 72) and parent["head.weight"].shape == (10, 144)
    assert 0 <= outcome.metrics["last"] <= 100


@pytest.mark.parametrize(("settings", "message"), [
    ({"method": "ptq"}, "method='ptq' needs bits and has none"),
    ({"method": "ptq", "bits": 4, "steps": 2}, "method='ptq' with steps=2: all but 'ptq' are fine-tuned"),
    ({"method": "qat", "bits": 4}, "method='qat' with steps=0"),
    ({"method": "qat", "bits": 4, "steps": 2, "clip": "mse"}, "clip='mse' is a choice of rounding after training"),
    ({"method": "magnitude", "sparsity": 0.5, "keep": 0.5, "steps": 2}, "needs sparsity and has sparsity, keep"),
    ({"method": "structured", "sparsity": 0.5, "steps": 2}, "needs keep and has sparsity"),
    ({"method": "ptq", "bits": 1}, "greater than or equal to 2"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        BaselineConfig(**TEXT, **settings)


# --- trials -----------------------------------------------------------------------------------------------


def test_every_rival_starts_from_the_float_run_of_its_seed():
    entries = list(pareto.TABLES["pareto"].entries("paper", 2))
    cells = [tuple(cell.items()) for cell, seed, _ in entries if seed == 0]
    assert len(set(cells)) == len(cells)
    for cell, seed, trial in entries:
        parent = arms.float_twin("paper", "mnist_cnn", seed)
        assert trial.settings.seed == seed
        if trial.recipe == "compressed_baseline":
            narrow = cell["method"] == "narrow_8"
            assert (trial.parents["float"].identity == parent.identity) == (not narrow)
            assert trial.settings.steps == (0 if trial.settings.method == "ptq" else 2_000)
            assert (trial.settings.lr, trial.settings.batch_size) == (1e-4, 64)
    widths = {t.settings.model_options["width"] for c, _, t in entries if c["method"].startswith("narrow")}
    assert widths == {0.5, 0.25}
    bits = {method: [c["bits"] for c, s, _ in entries if c["method"] == method and s == 0] for method in pareto.RIVALS}
    assert bits == {"ptq": [8, 6, 4, 3, 2], "ptq_mse": [8, 6, 4, 3, 2], "qat": [8, 4, 3, 2]}


@pytest.mark.parametrize("name", list(pareto.TABLES))
def test_self_compressed_networks_are_those_of_the_papers_tables(name):
    from efflib.papers.safety.tables import tables

    original = {"pareto": "table1", "pareto_decoder": "table2"}[name]
    for scale in ("smoke", "paper"):
        known = {trial.identity for trial in tables[original].trials(scale, 1)}
        for cell, _, trial in pareto.TABLES[name].entries(scale, 1):
            if trial.recipe == "self_compression" or cell["method"] == "float":
                assert trial.identity in known
    chosen = pareto.TABLES[name].entries("paper", 1, methods=["default_safe"], gammas=[0.07])
    assert [(cell["method"], cell["gamma"]) for cell, _, _ in chosen] == [("default_safe", 0.07)]


# --- points and front -------------------------------------------------------------------------------------


def point(size, value, family="ptq", label=""):
    return pareto.Point(family, label or f"{family} {size}", size, value, {0: value}, {0: size})


def test_a_point_is_dominated_by_no_more_bytes_and_no_worse_a_result():
    small, best, worse, equal, twin = point(10, 90), point(20, 95), point(30, 94), point(25, 95), point(10, 90)
    found = [small, best, worse, equal, twin]
    assert pareto.dominators(found, higher=True) == [None, None, best, best, None]
    assert pareto.dominators(found, higher=False) == [None, small, small, small, None]
    assert pareto.dominators([], higher=True) == []


def test_the_best_within_a_budget():
    soft = point(5, 99, "published")
    found = [point(10, 90), point(20, 95), point(25, 95, "qat"), soft]
    assert pareto.best_within(found, 9, True) is None, "soft bytes are no file"
    assert pareto.best_within(found, 30, True) is found[1], "of equally good ones the smaller"
    assert pareto.best_within(found, 30, False) is found[0]
    assert pareto.best_within(found, 30, True, ["qat"]) is found[2]
    assert pareto.best_within(found, 20, True, ["qat"]) is None


def test_printed_points_are_the_papers():
    assert [(p.bytes, p.value) for p in pareto.printed_points("mnist_cnn")] == [
        (326_192, 98.6), (210_404, 97.0), (214_730, 99.5),
    ]  # fmt: skip
    assert [(p.bytes, p.value) for p in pareto.printed_points("names_decoder")] == [
        (831_846, 1.8), (425_865, 1.9), (505_381, 1.6),
    ]  # fmt: skip


def fake(name, scale, seeds, measured):
    """Results whose records hold `measured(cell, seed)`; None leaves a trial without a record."""
    entries = []
    for cell, seed, trial in pareto.TABLES[name].entries(scale, seeds):
        metrics = measured(cell, seed)
        record = None if metrics is None else types.SimpleNamespace(status="ok", metrics=metrics, key=trial.identity)
        entries.append(Entry(cell, seed, trial, record))
    return Results(pareto.TABLES[name], scale, entries)


def measured(cell, seed, safe=99.5, rounded=99.0):
    """8-bit rounding at 81,696 + 768 bytes; self-compressed networks near 4 bits."""
    method = cell["method"]
    if method == "float":
        return {"last": 99.2, "soft_bytes": 326_784.0}
    if method in ("unsafe", "safe"):
        return {
            "last": 99.1 + 0.01 * seed, "soft_bytes": 224_720.0, "tight_bytes": 80_000, "dead_channels": 0.0,
            "tightened_test": 99.1 + 0.01 * seed,
        }  # fmt: skip
    if method.startswith("default"):
        return {"last": safe + 0.01 * seed, "soft_bytes": 1.0, "tight_bytes": 50_000, "dead_channels": 12.0}
    if "bits" in cell:
        return {"last": rounded, "tight_bytes": 10_212 * cell["bits"], "scale_bytes": 768}
    return {"last": 98.0, "tight_bytes": 100_000, "scale_bytes": 0} if method != "narrow" else None


def test_bytes_of_each_kind_of_run():
    found = {p.label: p for p in pareto.points(fake("pareto", "paper", 3, measured))}
    assert found["float"].bytes == 326_784
    assert found["rounding (PTQ), 8 bits"].bytes == 81_696 + 768
    assert found["safe, published setting, soft size"].bytes == 224_720
    assert found["safe, published setting, tighten only"].bytes == 80_000 + 4 * 192
    assert found["self-compression, safe, gamma 0.1"].bytes == 50_000 + 4 * (192 - 12)
    assert found["safe, published setting, tighten only"].interval.n == 3
    assert "narrower network, 50 % width" not in found, "nothing is recorded for it"


def test_claims_can_go_either_way():
    def verdict(letter, results):
        claim = next(c for c in pareto.TABLES["pareto"].claims if c.id == f"safety.pareto.{letter}")
        return claim_verdict(claim.comparisons(results), "paper").verdict

    good = fake("pareto", "paper", 3, measured)
    bad = fake("pareto", "paper", 3, lambda c, s: measured(c, s, safe=98.0, rounded=99.2))
    empty = fake("pareto", "paper", 3, lambda c, s: None)
    assert [verdict("a", results) for results in (good, bad, empty)] == ["supported", "contradicted", "not run"]
    coarse = fake("pareto", "paper", 3, lambda c, s: measured(c, s, rounded=97.0))
    assert [verdict("b", results) for results in (good, coarse, empty)] == ["supported", "contradicted", "not run"]


def test_rivals_of_another_seed_or_a_larger_size_do_not_count():
    def lonely(cell, seed):
        if cell["method"] in pareto.RIVALS and (seed > 0 or cell["bits"] > 2):
            return None
        return measured(cell, seed)

    made = pareto.TABLES["pareto"].claims[0].comparisons(fake("pareto", "paper", 3, lonely))
    assert [set(comparison.samples) for comparison in made] == [{0}] * 5
    only_large = fake("pareto", "paper", 1, lambda c, s: None if c.get("bits", 8) < 6 else measured(c, s))
    assert pareto.TABLES["pareto"].claims[0].comparisons(only_large) == []


def measured_title(results):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    pareto._panel(axes, results, pareto.points(results))
    return axes.get_title()


def test_pages_with_and_without_records():
    full, empty = fake("pareto", "paper", 2, measured), fake("pareto", "paper", 2, lambda c, s: None)
    text = pareto.front_table(full).data
    assert "dominated by" in text and "on the front" in text and "soft bytes are no file" in text
    assert "82,464" in text
    budgets = pareto.budget_table(full).data
    assert "215 kB" in budgets and "best of all" in budgets
    for show in (pareto.front_table, pareto.budget_table):
        assert "Nothing of this figure is recorded at scale paper yet" in show(empty).data
    assert "Nothing of this figure is recorded yet" in pareto.figure([empty]).data
    assert "float network is not recorded" in pareto.clipping_figure(empty).data
    picture = pareto.figure([full]).data
    title = measured_title(full)
    assert title == "mnist_cnn, scale paper", "all within five points of the best"
    assert measured_title(fake("pareto", "paper", 2, lambda c, s: measured(c, s, rounded=60.0))).endswith(
        ", 14 worse outside the frame"
    )
    assert "On the front, from small to large" in picture and picture.count("<img") == 2
