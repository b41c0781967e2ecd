"""What the safety chapter and its page of figures measure: quantiser, clamp, sets, removal, file, curves, weights."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from shown import cells_of
from torch import nn

from efflib import create_model
from efflib.data import embedded_names
from efflib.papers.safety import arms, figures_page, quantiser_page, removal_page, scene
from efflib.papers.safety.audit import CNN
from efflib.papers.safety.figures_page import Run
from efflib.papers.safety.preservation import preserved_names
from efflib.papers.safety.recipes import make_task, new_model, training_images
from efflib.papers.safety.scene import Scene
from efflib.papers.safety.selection import REASONS
from efflib.quantize import bits_needed, quantize_model, quantized_layers
from efflib.report.notebook import ChanceLevel
from efflib.trials import Store, Trial
from efflib.trials.recipes import Context

mpl.use("agg")


def column(output: Any, name: str) -> list[str]:
    head, *rows = cells_of(output)
    return [row[head.index(name)] for row in rows]


# --- the quantiser ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "bits", "expected"),
    [
        (0.3, 3.0, (0.25, 1, 0, -0.034657)),
        (2.0, 3.0, (0.75, 0, 0.693147, 0.519860)),
        (-2.0, 3.0, (-1.0, 0, -0.693147, -0.693147)),
        (0.3, 0.5, (0, 0, 0.122532, 0)),
        (-0.3, 0.5, (-0.25, 0, -0.122532, -0.173287)),
        (0.9, 2.33, (0.5, 0, 0.435648, 0.346574)),
        (-0.9, 2.33, (-0.75, 0, -0.435648, -0.519860)),
        (0.3, 0.0, (0, 0, 0, 0)),
    ],
)
def test_both_ways_to_the_gradients_give_the_check_values(x: float, bits: float, expected: tuple[float, ...]) -> None:
    assert quantiser_page.by_hand(x, bits, -2.0) == pytest.approx(expected, abs=5e-7)
    assert quantiser_page.gradients(x, bits, -2.0) == pytest.approx(expected, abs=5e-7)


def test_a_weight_on_the_bound_learns_as_inside() -> None:
    assert quantiser_page.region(0.75, 3.0, -2.0) == quantiser_page.region(-1.0, 3.0, -2.0) == "on the bound"
    assert quantiser_page.gradients(0.75, 3.0, -2.0)[1:3] == (1.0, 0.0)


def test_the_gradient_table_has_every_region_and_agrees_with_the_rules() -> None:
    table = quantiser_page.gradient_table()
    assert set(column(table, "where")) == {"inside", "above", "below", "on the bound", "no bits"}
    assert set(column(table, "as the rules say")) == {"yes"}


def test_the_steps_of_the_quantiser_are_those_of_the_definition() -> None:
    weight = torch.linspace(-1, 1, 40)
    table = quantiser_page.steps_table(weight, 3.0, shown=5)
    assert column(table, "where") == ["below", "inside", "inside", "inside", "above"]
    scaled = [float(text) for text in column(table, "s = x / 2^e")]
    assert [int(code) for code in column(table, "code n")] == [round(min(max(s, -4), 3)) for s in scaled]
    assert [text == "0" for text in column(table, "dy/db")] == [False, True, True, True, False]


def test_only_rounding_lets_a_channel_without_bits_be_removed() -> None:
    table = quantiser_page.rounding_table(torch.linspace(-1, 1, 50), depths=(2.0, 0.0))
    assert column(table, "round half to even: can be removed") == ["no", "yes"]
    assert column(table, "floor, as printed: can be removed") == ["no", "no"]
    assert column(table, "floor, as printed")[1] == "-1"


def test_levels_are_an_even_staircase_that_the_file_must_hold() -> None:
    depths = [-0.5, 0.0, 0.3, 1.0, 1.7, 2.0, 2.4, 3.0, 4.0, 5.0]
    found = quantiser_page.levels(depths)
    assert found.tolist() == [1, 1, 2, 2, 4, 4, 6, 8, 16, 32]
    for b, count in zip(depths, found, strict=True):
        assert bits_needed(b) == (math.ceil(math.log2(count)) if count > 1 else 0)


# --- a small scene ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown() -> Scene:
    """An untrained network and its quantised copy, with channels 0 and 2 of conv3 dead."""
    settings: Any = scene.live_trial(0).settings.model_copy(update={"subset": 250})
    task: Any = make_task(settings, Context("cpu", "fp32", None, {}, progress=False, description="test"))
    twin = new_model(settings)
    task.recalibrate(twin)
    compressed = quantize_model(new_model(settings), 4.0)
    quantized_layers(compressed)["conv3"].bits.data[[0, 2]] = 0.0
    task.recalibrate(compressed)
    return Scene(settings, {"events": []}, twin.eval(), compressed.eval(), training_images(settings)[0], task)


def test_the_cross_entropy_is_silent_exactly_where_nothing_is_clipped(shown: Scene) -> None:
    rows = quantiser_page.clip_rows(shown, (32.0, 10.0, 5.0, 4.0), images=20)
    assert [row["clipped"] > 0 for row in rows] == [False, False, True, True]
    assert [row["loss"] > 0 for row in rows] == [False, False, True, True]
    assert len({row["penalty"] for row in rows}) == 1
    assert rows[0]["penalty"] > 0
    assert "From 10 bits upwards no weight is clipped" in quantiser_page.clip_words(rows).data
    assert "only-dark" in quantiser_page.clip_figure(rows).data


def test_a_dead_network_is_not_called_unclipped() -> None:
    rows = [{"bits": 8.0, "clipped": 0.0, "loss": 0.0, "penalty": 1.0}, {"bits": 1.0, "clipped": 0.9, "loss": 0.0}]
    assert quantiser_page._silent(rows) == [8.0]


def test_the_preserved_images_are_told_by_reason(shown: Scene) -> None:
    found = removal_page.preserved(shown)
    assert len(found.chosen.positions) == 25
    assert [len(found.places(reason)) for reason in REASONS] == [12, 6, 7]
    table = removal_page.preserved_table(shown, found)
    assert column(table, "how many") == ["12", "6", "7", "25", "250"]
    spread = [float(text) for text in column(table, "mean spread of the evidence")]
    margin = [float(text) for text in column(table, "mean margin")]
    assert spread[0] > spread[-1] > 0
    assert margin[1] < margin[-1]
    assert "evidence 12, uncertain 6, diverse 7 images" in removal_page.preserved_strip(shown, found, images=6).data


def test_the_names_table_begins_with_what_is_preserved_first() -> None:
    table = removal_page.names_table(shown=3)
    names = embedded_names().split().train.names
    assert column(table, "name")[:3] == list(preserved_names(names, 3).names)
    scores = [float(text) for text in column(table, "score")]
    assert max(scores[:3]) < min(scores[3:])


def test_bigram_probabilities_are_counted_inside_names() -> None:
    assert removal_page.bigram_probabilities(["aba", "ab", "ac"]) == {"ab": 2 / 3, "ba": 1.0, "ac": 1 / 3}


def test_dead_channels_go_and_logits_stay(shown: Scene) -> None:
    found = removal_page.removed(shown)
    assert not found.forced
    assert found.removal.removed["conv3"] == [0, 2]
    table = removal_page.removed_table(shown, found)
    assert "stay within" in table.data
    assert "NOT" not in table.data
    assert int(column(table, "left")[2]) == int(column(table, "channels")[2]) - 2


def test_a_network_without_dead_channels_gets_one(shown: Scene) -> None:
    alive = quantize_model(new_model(shown.settings), 4.0)
    found = removal_page.removed(replace(shown, compressed=alive))
    assert found.removal.removed["conv3"] == [found.forced["conv3"]]
    assert "by hand" in removal_page.removed_table(shown, found).data


def test_the_packed_file_holds_what_it_claims_and_refuses_damage(shown: Scene) -> None:
    output = removal_page.packed_tables(shown, removal_page.removed(shown), images=20)
    rows = [row for row in cells_of(output) if len(row) == 2]
    answers = dict(rows)
    assert [
        answers[name] for name in answers if name.startswith(("bytes on disk", "codes take", "every", "logits"))
    ] == (["yes"] * 4)
    sizes = [int(text.replace(",", "")) for name, text in rows[1:6]]
    assert sum(sizes[:4]) == sizes[4]
    refused = [answers[name] for name in answers if name.startswith(("one bit", "the last byte"))]
    assert len(refused) == 5
    assert "ACCEPTED" not in refused


def test_restorations_are_told_with_the_next_result() -> None:
    event = {"step": 25, "layer": "conv1", "channels": [3], "before": [-0.1], "after": [2.0], "score": 70.0}
    curves = {"step": [0, 25, 50], "preservation": [10.0, 70.0, 81.0]}
    metrics = {"events": [event], "curves": curves, "checks": 2, "violations_restored": 1, "mean_bits_given_back": 2.1}
    table = removal_page.events_table(metrics)
    assert column(table, "bits before") == ["0.00"]
    assert column(table, "at the next note") == ["81.0 %"]
    assert "found a violation" in removal_page.events_table({"events": [], "checks": 4}).data


def test_a_twin_at_chance_level_is_refused(tmp_path) -> None:
    scene.refuse_chance(95.0, 360)
    with pytest.raises(ChanceLevel, match="guessing plus three"):
        scene.refuse_chance(12.0, 360)
    with pytest.raises(FileNotFoundError, match="run it first"):
        scene.scene(scene.live_trial(0), Store(tmp_path, tmp_path))


def test_what_the_reader_is_told_comes_from_the_printed_tables() -> None:
    text = quantiser_page.up_front().data
    assert "17 to 21 bits per weight" in text
    assert "2.6 times fewer bytes" in text
    assert "21 of 21 quoted lines" in text


# --- figures 1 and 3 --------------------------------------------------------------------------------------


def run_of(name: str, sizes: list[float], dead: list[float], trial: Trial | None = None) -> Run:
    steps = np.linspace(0, 100, len(sizes)).tolist()
    curves = {
        "step": steps,
        "seconds": [0.02 * step for step in steps],
        "soft_bytes": sizes,
        "tight_bytes": [0.5 * size for size in sizes],
        "dead_channels": dead,
        "test": [10.0, *[90 + i for i in range(len(sizes) - 1)]],
        "preservation": [10.0, *[80 + i for i in range(len(sizes) - 1)]],
    }
    return Run(name, "smoke", trial or scene.live_trial(0), {"curves": curves, "last": curves["test"][-1]})


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [
        run_of("line", [1000, 900, 800, 700, 600], [0] * 5),
        run_of("knee", [1000, 500, 450, 420, 400], [0, 1, 2, 3, 4]),
    ]


def test_the_pace_of_a_straight_line_is_a_quarter_and_a_half(runs: list[Run]) -> None:
    table = figures_page.pace_table(runs)
    assert column(table, "of the decrease, after a quarter of the steps") == ["25 %", "83 %"]
    assert column(table, "after half") == ["50 %", "92 %"]
    assert column(table, "dead channels") == ["0", "4"]


def test_the_fit_is_a_parabola_in_the_log_of_the_size() -> None:
    sizes = np.array([2e4, 2.001e4, 2.003e4, 2.01e4])  # hardly differ, as in the published setting
    wanted = 90 + 1e3 * np.log(sizes / 2e4) - 3e4 * np.log(sizes / 2e4) ** 2
    fit = figures_page.quadratic(sizes, wanted)
    assert fit is not None
    np.testing.assert_allclose(fit(sizes), wanted, rtol=1e-9)
    assert figures_page.quadratic(np.array([1.0, 1.0, 2.0]), np.ones(3)) is None


def test_the_untrained_network_is_no_checkpoint(runs: list[Run]) -> None:
    sizes, accuracy = figures_page.checkpoints(runs[0])
    assert sizes.tolist() == [900, 800, 700, 600]
    assert accuracy.tolist() == [90, 91, 92, 93]


def test_figures_of_runs_are_drawn_and_spoken(runs: list[Run]) -> None:
    assert "line: 1,000 to 600 soft bytes" in figures_page.size_figure(runs).data
    assert "knee: 4 of 48 channels dead" in figures_page.pace_figure(runs).data
    np.testing.assert_allclose(figures_page.step_times(runs[0]), 20.0)
    assert "4 dead channels" in figures_page.headline(runs).data
    for nothing in (figures_page.size_figure([]), figures_page.pace_figure([]), figures_page.headline([])):
        assert "real data" in nothing.data
    assert figures_page.pace_table([]).data == ""


@pytest.mark.usefixtures("no_data")
def test_recorded_runs_on_real_images_are_drawn_without_any() -> None:
    recorded = run_of("recorded", [1000, 500], [0, 4], arms.compressed("tiny", CNN, 0))
    assert recorded.trial.settings.dataset == "mnist"  # type: ignore[attr-defined]
    assert (
        f"recorded: 4 of {figures_page.channels(recorded)} channels dead" in figures_page.pace_figure([recorded]).data
    )


def test_the_largest_recorded_scale_is_found() -> None:
    def entry(method: str, seed: int, usable: bool = True, **keys: float) -> SimpleNamespace:
        record = SimpleNamespace(metrics={"curves": {}, "last": float(seed)})
        return SimpleNamespace(cell={"method": method, **keys}, seed=seed, trial=None, record=record, usable=usable)

    small = [entry("safe", 1), entry("safe", 0), entry("default_safe", 0, gamma=0.3), entry("float", 0)]
    small += [entry("default_safe", 1, gamma=0.1), entry("default_safe", 0, gamma=0.1)]
    found = {"small": small, "paper": [entry("safe", 0, usable=False)], "tiny": [entry("safe", 4)]}
    chosen = figures_page.recorded_runs(lambda table, scale: SimpleNamespace(entries=found[scale]))
    assert [(run.name, run.scale, run.metrics["last"]) for run in chosen] == [
        ("published setting", "small", 0.0),
        ("our setting, gamma 0.1", "small", 0.0),
    ]
    assert figures_page.recorded_runs(lambda table, scale: SimpleNamespace(entries=[])) == []


def test_own_trials_share_the_float_twin() -> None:
    for scale in ("smoke", "paper"):
        trials = figures_page.own_trials(scale, 3, gamma=0.2)
        assert trials["published setting"].parents["float"] == trials["float"]
        assert trials["our setting"].config["gamma"] == 0.2
        assert trials["our setting"].config["seed"] == 3
        assert trials["published setting"].config["bits"] == 32
    assert figures_page.own_trials("paper", 0)["our setting"].config["gamma"] == figures_page.REAL_GAMMA


def test_dying_networks_agree_and_lose_their_weights() -> None:
    both = figures_page.dying(0.5, width=0.25)
    assert figures_page._weights(both["left_in"]) == 5_256
    assert figures_page._weights(both["removed"]) == 5_256 // 4 + 200 // 4  # the first layer keeps its input
    x = torch.randn(4, 1, 28, 28)
    for model in both.values():
        model.train()
    torch.testing.assert_close(both["left_in"](x), both["removed"](x), atol=1e-5, rtol=0)


def test_steps_of_dying_networks_are_timed_in_turn() -> None:
    rows = figures_page.time_rows(shares=(0.0, 0.5), steps=1, width=0.25, batch=2)
    assert [row["weights"] for row in rows] == [5_256, 1_364]
    assert all(row[kind] > 0 for row in rows for kind in ("left_in", "removed"))
    assert "only-light" in figures_page.time_figure(rows).data
    assert column(figures_page.time_table(rows), "dead channels in every layer") == ["0%", "50%"]


def test_weights_are_those_that_the_network_computes_with() -> None:
    model = quantize_model(create_model("mnist_cnn", 10, width=0.25), 3.0)
    quantized_layers(model)["conv1"].bits.data[:4] = 0.0
    found = figures_page.weights_of("some", model)
    assert len(found.values) == 5_256
    assert (found.layers["conv1"].reshape(8, -1)[:4] == 0).all()
    assert found.zeros >= 100 / 5_256
    assert set(np.unique(found.codes["conv2"])) <= set(range(-4, 4))
    assert found.clipped is not None and found.clipped >= 100 / 5_256
    table, head = (
        figures_page.weights_table([found]),
        figures_page.weights_of("float", create_model("mnist_cnn", 10, width=0.25)),
    )
    assert column(table, "weights") == ["5,256"]
    assert head.clipped is None
    assert "conv1" in figures_page.codes_figure([head, found]).data
    assert "zeros" in figures_page.weights_figure([head, found]).data


def test_the_density_integrates_to_what_it_shows() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    edges, bars, curve = figures_page._density(values, 100)
    assert (bars * np.diff(edges)).sum() == pytest.approx(0.998, abs=1e-3)
    middle = (curve[1:] + curve[:-1]) / 2
    assert np.abs(bars - middle).max() < 0.05
    assert figures_page.excess_kurtosis(values) == pytest.approx(0, abs=0.15)
    assert figures_page.excess_kurtosis(np.linspace(-1, 1, 10_001)) == pytest.approx(-1.2, abs=1e-3)


def test_recorded_weights_are_taken_only_where_they_are(monkeypatch) -> None:
    def sets(trials: dict[str, Trial], store: Any) -> list[str]:
        if store == "empty":
            raise FileNotFoundError
        return [*trials, store]

    monkeypatch.setattr(figures_page, "weight_sets", sets)
    run = run_of("recorded", [2, 1], [0, 0])
    own: Any = {"own": scene.live_trial(0)}
    assert figures_page.largest_weight_sets(own, "here", [run], "full") == ["float", "recorded", "full"]
    assert figures_page.largest_weight_sets(own, "here", [run], "empty") == ["own", "here"]
    assert figures_page.largest_weight_sets(own, "here", [], "full") == ["own", "here"]


def test_a_network_is_built_as_its_run_built_it(tmp_path) -> None:
    trial = scene.live_trial(0)
    assert isinstance(scene._quantized(trial.settings), nn.Module)
    assert len(quantized_layers(scene._quantized(trial.settings))) == 4
    with pytest.raises(FileNotFoundError):
        scene.network_of(trial, Store(tmp_path, tmp_path))
