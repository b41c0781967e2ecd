"""The drift simulation is PyTorch's arithmetic and gives the sizes that the spec verified; so do the page's sliders."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from efflib import create_model
from efflib.models import count_parameters
from efflib.papers.safety import audit, drift, drift_page
from efflib.papers.safety.drift import (
    NETWORKS,
    PUBLISHED,
    Optimiser,
    bits_after,
    code_width,
    q_after,
    sizes_after,
    steps_to,
    tight_start_bytes,
)

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
CNN, DECODER = "mnist_cnn", "names_decoder"
ADAM, ADAMW = PUBLISHED[CNN], PUBLISHED[DECODER]


@pytest.fixture(scope="module")
def cnn() -> np.ndarray:
    return sizes_after(CNN, 12_000)


@pytest.fixture(scope="module")
def decoder() -> np.ndarray:
    return sizes_after(DECODER, 12_000)


# --- the spec's table -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "size"), [(10_000, 224_720), (10_979, 214_728), (11_403, 210_401)])
def test_cnn_sizes_equal_the_spec(cnn: np.ndarray, steps: int, size: int) -> None:
    assert round(cnn[steps]) == size


@pytest.mark.parametrize(("steps", "size"), [(0, 326_784), (58, 326_192.03), (11_279, 211_666.12)])
def test_cnn_sizes_equal_the_spec_to_the_hundredth(cnn: np.ndarray, steps: int, size: float) -> None:
    assert round(cnn[steps], 2) == size


@pytest.mark.parametrize(
    ("steps", "size"),
    [(0, 793_344), (1, 793_311), (101, 790_040), (5_001, 633_727), (9_212, 505_388), (10_000, 481_967)],
)
def test_decoder_sizes_equal_the_spec(decoder: np.ndarray, steps: int, size: int) -> None:
    assert round(decoder[steps]) == size


def test_decoder_passes_the_unsafe_size_after_about_11913_steps(decoder: np.ndarray) -> None:
    assert decoder[11_914] < 425_865 < decoder[11_912]
    assert steps_to(425_865, DECODER).steps == 11_913


def test_every_quoted_log_line_is_simulated_to_the_printed_digit(decoder: np.ndarray) -> None:
    lines = audit.load().log("decoder_main")
    assert len(lines) == 21
    for line in lines:
        step = int(line["step"])
        assert round(decoder[step + 1]) == line["bytes"]  # printed after the step
        assert f"{q_after(DECODER, decoder[step]):.4f}" == f"{line['q']:.4f}"  # measured before it


def test_a_step_between_16_and_32_bits_is_524_units(cnn: np.ndarray) -> None:
    bits = bits_after(2_000, 1e-4)
    assert bits.dtype == np.float32
    assert set(np.diff(bits.astype(np.float64))) == {-524 * 2.0**-19}
    assert bits[-1] == 32 - 2_000 * 524 * 2.0**-19


def test_adamw_follows_the_closed_form() -> None:
    steps = np.arange(12_001)
    closed = (32 + 100) * (1 - 1e-5) ** steps - 100
    assert np.abs(bits_after(12_000, 1e-4, ADAMW) - closed).max() < 5e-3  # bits: rounding to float32 adds up


# --- PyTorch's own optimisers -----------------------------------------------------------------------------


def real(steps: int, gradient: float | list[float], optimiser: Optimiser, initial_bits: float = 32.0) -> np.ndarray:
    """What torch.optim makes of a float32 parameter that gets this gradient while it is positive."""
    parameter = torch.nn.Parameter(torch.tensor([initial_bits]))
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimiser.name]
    made = kind(
        [parameter],
        lr=optimiser.learning_rate,
        betas=optimiser.betas,
        eps=optimiser.eps,
        weight_decay=optimiser.weight_decay,
        foreach=False,
    )
    given = gradient if isinstance(gradient, list) else [gradient] * steps
    found = np.empty(steps + 1, dtype=np.float32)
    found[0] = initial_bits
    for step in range(steps):
        parameter.grad = torch.tensor([given[step]]) * (parameter.detach() > 0)
        made.step()
        found[step + 1] = parameter.item()
    return found


@pytest.mark.parametrize(
    ("optimiser", "gradient", "bits"),
    [
        (ADAM, 2.8e-5, 32.0),
        (ADAMW, 3.1e-5, 32.0),
        (ADAM, 1e-4, 16.1),  # crosses 16: the unit of float32 halves
        (ADAM, 0.5, 0.1),  # crosses 0: the gradient ends, the momentum does not
        (ADAM, 3e-9, 8.0),  # below eps
        (ADAM, -1e-3, 2.0),  # grows
        (ADAM, 0.0, 4.0),
        (Optimiser("adam", learning_rate=0.01, weight_decay=0.1), 1e-4, 8.0),  # decay inside the gradient
        (Optimiser("adamw", learning_rate=0.003, weight_decay=0.5), 1e-4, 8.0),
        (Optimiser("adam", betas=(0.3, 0.9), eps=1e-3), 1e-4, 32.0),  # lerp's other formula
        (Optimiser("adam", betas=(0.0, 0.0)), 1e-4, 32.0),
    ],
)
def test_simulation_is_torch_within_some_last_bits(optimiser: Optimiser, gradient: float, bits: float) -> None:
    expected = real(250, gradient, optimiser, bits)
    error = np.abs(bits_after(250, gradient, optimiser, bits).astype(np.float64) - expected)
    # PyTorch's square root is not correctly rounded on every machine, and some fuse multiplication and addition.
    assert error.max() <= max(4 * float(np.spacing(np.float32(bits))), 1e-7)


@pytest.mark.parametrize("optimiser", [ADAM, ADAMW], ids=lambda o: o.name)
def test_published_settings_are_torch_bit_by_bit(optimiser: Optimiser) -> None:
    expected = real(1_500, 9.1e-4, optimiser)
    np.testing.assert_array_equal(bits_after(1_500, 9.1e-4, optimiser), expected)


def test_changing_gradients_are_torchs() -> None:
    gradients = [*([1e-4] * 150), *([1e-3] * 100), *([-1e-4] * 50)]
    error = np.abs(bits_after(300, gradients) - real(300, gradients, ADAM))
    assert error.max() <= 4 * np.spacing(np.float32(16))


def test_momentum_carries_a_dead_channel_below_zero_and_there_it_stays() -> None:
    bits = bits_after(500, 1e-3, initial_bits=0.05)
    dead = int(np.argmax(bits <= 0))
    assert 45 < dead < 55
    assert -0.02 < bits[-1] < 0
    assert abs(bits[-1] - bits[-50]) < 1e-6


# --- what matters and what does not -----------------------------------------------------------------------


def test_gamma_has_no_influence_on_adam() -> None:
    sizes = {gamma: sizes_after(CNN, 3_000, gamma=gamma)[-1] for gamma in (0.05, 0.1, 1.0, 10.0, 1000.0)}
    assert len(set(sizes.values())) == 1
    assert sizes_after(CNN, 3_000, gamma=0.0)[-1] == NETWORKS[CNN].bytes_per_bit * 32


def test_a_large_eps_brings_gamma_back() -> None:
    damped = Optimiser("adam", eps=1e-3)
    small, large = (326_784 - sizes_after(CNN, 2_000, damped, gamma=gamma)[-1] for gamma in (0.01, 0.1))
    assert 5 < large / small < 10


def test_size_falls_by_the_learning_rate_per_step() -> None:
    for rate, start in ((1e-4, 4.0), (1e-3, 8.0), (1e-2, 16.0)):
        bits = bits_after(200, 1e-3, Optimiser("adam", rate), start)
        assert start - bits[-1] == pytest.approx(200 * rate, rel=2e-3)


def test_a_change_of_gamma_is_felt_for_long() -> None:
    constant = bits_after(3_000, 1e-4)
    changed = bits_after(3_000, [1e-4] * 1_500 + [1e-3] * 1_500)
    assert constant[-1] - changed[-1] > 0.5  # more than 500 steps' worth
    np.testing.assert_array_equal(constant[:1_501], changed[:1_501])


def test_larger_adam_runs_extend_smaller_ones(cnn: np.ndarray) -> None:
    np.testing.assert_array_equal(sizes_after(CNN, 500), cnn[:501])
    with_own = sizes_after(CNN, 500)
    with_own[:] = 0  # the caller's copy, not the cached one
    assert sizes_after(CNN, 500)[0] == 326_784


# --- steps_to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "network", "steps"),
    [
        (326_192, CNN, 58),
        (214_730, CNN, 10_979),
        (210_404, CNN, 11_403),
        (211_666.1, CNN, 11_279),
        (505_381, DECODER, 9_212),
    ],
)
def test_steps_to_published_sizes(size: float, network: str, steps: int) -> None:
    match = steps_to(size, network)
    assert match.steps == steps
    assert abs(match.off) <= match.spacing / 2
    assert match.size == sizes_after(network, steps)[-1]


def test_the_clamp_lies_near_step_24500() -> None:
    assert steps_to(8 * 10_212, CNN).steps == pytest.approx(24_000, abs=100)
    assert steps_to(7.5 * 10_212, CNN).steps == pytest.approx(24_500, abs=100)


def test_steps_to_the_start_and_to_nothing() -> None:
    assert steps_to(326_784, CNN).steps == 0
    assert math.isnan(steps_to(326_784, CNN).spacing)
    assert steps_to(0, CNN, Optimiser("adam", 0.01), initial_bits=1.0).size == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((326_785, CNN), "drift from 32 bits passes 0 to 326,784 bytes"),
        ((-1, CNN), "passes 0 to"),
        ((1000, CNN, Optimiser("adam", 1e-6)), "is not reached: after 2000 steps"),
        ((1000, "lenet"), "no network 'lenet' here; known: mnist_cnn, names_decoder"),
    ],
)
def test_steps_to_refuses_what_it_cannot_answer(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        steps_to(*arguments, limit=2000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1, "gradient": 1.0}, "steps=-1"),
        ({"steps": 2.5, "gradient": 1.0}, "steps=2.5"),
        ({"steps": True, "gradient": 1.0}, "steps=True"),
        ({"steps": 3, "gradient": [1.0, 2.0]}, "one for each of 3 steps"),
        ({"steps": 3, "gradient": math.nan}, "finite numbers"),
        ({"steps": 3, "gradient": 1e30}, "squares float32 can hold"),
        ({"steps": 3, "gradient": 1.0, "initial_bits": 0.0}, "initial_bits=0.0"),
    ],
)
def test_bad_simulations_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        bits_after(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "sgd"}, "optimiser 'sgd'; use one of adam, adamw"),
        ({"learning_rate": -1e-3}, "learning_rate=-0.001"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"eps": 0.0}, "eps=0.0"),
        ({"eps": 1e-60}, "eps=1e-60"),
        ({"betas": (0.9, 1.0)}, "betas=(0.9, 1.0)"),
    ],
)
def test_bad_optimisers_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Optimiser(**arguments)


# --- the networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "weights", "parameters", "scalars", "channels"),
    [(CNN, 10, 81_696, 87_466, 87_850, 192), (DECODER, 27, 198_336, 204_827, 209_489, 2_331)],
)
def test_networks_are_those_that_we_build(
    name: str, classes: int, weights: int, parameters: int, scalars: int, channels: int
) -> None:
    network = NETWORKS[name]
    assert (network.weights, network.parameters, network.scalars) == (weights, parameters, scalars)
    assert (network.channels, network.bytes_per_bit) == (channels, weights / 8)
    model = create_model(name, classes)
    assert count_parameters(model) == network.parameters
    shapes = [model.get_submodule(layer).weight.shape for layer in model.quantizable]
    assert [(s[0], math.prod(s[1:])) for s in shapes] == [(each.channels, each.inputs) for each in network.layers]
    assert sum(network.groups.values()) == network.weights


def test_widths_of_codes() -> None:
    assert [layer.start_width for layer in NETWORKS[CNN].layers] == [7, 5, 5, 5]
    assert tight_start_bytes(CNN) == 51_260
    # a code of 63 fits into 7 bits, 64 needs 8
    assert [code_width(code / 256) for code in (0, 1, 63, 64, 127, 128)] == [0, 2, 7, 8, 8, 9]
    for width in range(2, 9):
        assert code_width((2 ** (width - 1) - 1) / 256) == width


def test_no_freshly_drawn_weight_needs_more_than_the_start_width() -> None:
    torch.manual_seed(0)
    model = create_model(CNN, 10)
    for layer in NETWORKS[CNN].layers:
        codes = torch.round(model.get_submodule(layer.name).weight * 256)
        half = 2 ** (layer.start_width - 1)
        assert -half <= codes.min() and codes.max() <= half - 1


# --- the page ---------------------------------------------------------------------------------------------


def test_tables_of_the_page_hold_the_simulated_numbers() -> None:
    text = drift_page.printed_table().data
    for shown in ("326,192.03", "10,979", "214,728.04", "11,403", "505,387.57", "211,666.12"):
        assert f"<td>{shown}</td>" in text
    assert drift_page.log_table().data.count("<td>yes</td>") == 21
    assert "21 of 21" in drift_page.headline().data
    assert "1,000 of 1,000" in drift_page.torch_check(1_000).data
    rounding = drift_page.rounding_table(1e-3).data
    assert "<td>2^-19</td><td>524.288</td><td>524</td>" in rounding
    assert "<td>51,260 " not in drift_page.start_table().data
    assert "CNN 51,260 bytes" in drift_page.start_table().data


def test_own_settings_are_simulated() -> None:
    text = drift_page.own_table(Optimiser("adam", 0.01), 8.0, 300, 0.1).data
    assert "51,060.86" in text
    assert "starts there" in text
    assert "not reached" in drift_page.own_table(Optimiser("adam", 0.0), 32.0, 10, 0.1).data


def test_words_of_the_sliders_are_simulated() -> None:
    assert "224,720.1 bytes" in drift_page.answer(CNN, 10_000)
    assert drift_page.answer(CNN, 10_000) in drift_page.explorer_html()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.is_file():
        why = f"there is no {CHROMIUM}; install Chromium or name it in CHROMIUM"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def test_sliders_simulate_what_python_does(browser: Any) -> None:
    page, wrong = browser.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_content(f"<!doctype html><body>{drift_page.explorer_html()}</body>")
    answer = page.locator(".answer")
    assert answer.inner_text() == drift_page.answer(CNN, 10_000)
    for button, point in zip(page.locator("form button").all(), drift_page._points()):
        button.click()
        assert answer.inner_text() == drift_page.answer(point["network"], point["steps"])
    for rate, bits, steps in ((12, 8, 300), (0, 17, 32_000), (3, 2, 9_876), (6, 16, 14_000)):
        for name, kind in ((CNN, "adam"), (DECODER, "adamw")):
            page.locator(f"input[value={name}]").check()
            page.locator(f"input[value={kind}]").check()
            for slider, value in (("rate", rate), ("bits", bits), ("steps", steps)):
                page.locator(f"input[name={slider}]").fill(str(value))
            decay = 0.01 if kind == "adamw" else 0.0
            optimiser = Optimiser(kind, drift_page.RATES[rate], decay)
            size = sizes_after(name, steps, optimiser, bits)[-1]
            assert f" {size:,.1f} bytes," in answer.inner_text()
    assert wrong == []
    page.close()


def test_a_moved_slider_moves_what_the_book_draws(browser: Any) -> None:
    page = browser.new_page()
    page.set_content(f"<!doctype html><body>{drift_page.explorer_html()}</body>")
    page.locator("input[name=steps]").fill("58")
    spec = page.evaluate("JSON.parse(document.querySelector('script[data-for]').textContent)")
    assert spec["data"][1]["x"] == [58]
    assert round(spec["data"][1]["y"][0], 2) == 326_192.03
    assert len(spec["data"][0]["x"]) == len(spec["data"][0]["y"]) == 321
    assert len(spec["layout"]["shapes"]) == 5  # four published sizes of the CNN, and the clamp
    page.close()


def test_the_figure_is_drawn_for_both_themes() -> None:
    shown = drift_page.figure(ADAM, 8.0, 50, 0.1).data
    assert shown.count("<img") == 2
    assert "CNN float 326,192 bytes at step 58" in shown


def test_module_says_what_the_start_is() -> None:
    assert (drift.START_BITS, drift.EXPONENT, drift.GAMMA) == (32.0, -8, 0.1)
