"""Figures: one picture per theme with words beside it, and a sentence where there is nothing to draw."""

from __future__ import annotations

import base64
import io
import re

import matplotlib as mpl
import numpy as np
import pytest

from efflib.papers.table import PrintedCell, PrintedTable, Table
from efflib.report import compare, figures
from efflib.trials import Entry, Results

mpl.use("agg")
NAMES = {"bimask": "BIMask", "random": "random masks"}


class Recorded:
    """As much of a record as comparisons look at."""

    status = "ok"
    failure = None

    def __init__(self, last: float):
        self.metrics = {"last": last}
        self.dataset = type("Data", (), {"variant": "official"})
        self.cost = type("Cost", (), {"seconds": 1.0})


class Asked:
    """A trial that only has an identity."""

    def __init__(self, identity: str):
        self.identity = identity


def cell(method: str, **more) -> dict:
    return {"model": "net <1>", "dataset": "d", "method": method, **more}


def comparison(values: dict[tuple, dict[int, float]], printed: tuple[PrintedCell, ...] = ()):
    """A comparison of (method, option value) -> {seed: accuracy}; no option where the value is None."""
    entries = []
    for (method, ratio), found in values.items():
        keys = cell(method) if ratio is None else cell(method, masking_ratio=ratio)
        entries += [Entry(keys, s, Asked(f"{method}{ratio}{s}"), Recorded(value)) for s, value in found.items()]
    metric = {"name": "top1_accuracy", "unit": "percent"}
    table = Table("paper", "t", "T", PrintedTable("paper", "t", "c", metric, 5, None, printed), (), lambda *_: [])
    return compare(table, Results(table, "tiny", entries))


def pictures(output) -> list[np.ndarray]:
    """The decoded pictures of an output, light before dark."""
    from PIL import Image

    found = re.findall(r'<img class="only-(\w+)" alt="([^"]+)" src="data:image/png;base64,([^"]+)">', output.data)
    assert [theme for theme, _, _ in found] == ["light", "dark"]
    assert found[0][1] == found[1][1]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for _, _, data in found]


def alt_of(output) -> str:
    return re.search('alt="([^"]+)"', output.data)[1]


def inks(picture: np.ndarray) -> set[tuple]:
    """Colours of the opaque pixels."""
    return {tuple(pixel[:3]) for pixel in picture.reshape(-1, 4) if pixel[3] == 255}


def rgb(colour) -> tuple:
    return tuple(round(255 * part) for part in mpl.colors.to_rgb(colour))


BASE = {("baseline", None): {0: 80.0, 1: 80.1, 2: 80.2}}
FULL = BASE | {("bimask", None): {0: 81.0, 1: 81.2, 2: 81.1}, ("random", None): {0: 80.5, 1: 80.4, 2: 80.6}}
SWEEP = BASE | {("bimask", ratio): {0: 81.0, 1: 81.3, 2: 81.2} for ratio in (0.1, 0.05)}


def test_themed_draws_once_per_theme_with_its_ink() -> None:
    output = figures.themed(lambda figure: figure.text(0.1, 0.5, "MMMM", fontsize=40), (2, 1), 'a "b" <c>')
    light, dark = pictures(output)
    assert light.shape == dark.shape == (130, 260, 4)
    assert rgb(figures._INK["light"]) in inks(light) and rgb(figures._INK["dark"]) in inks(dark)
    assert rgb(figures._INK["light"]) not in inks(dark)
    assert light[0, 0, 3] == 0  # transparent ground
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in output.data


def test_figures_leave_nothing_open_and_repeat_exactly() -> None:
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    first = figures.gains(comparison(FULL), list(NAMES), NAMES)
    assert first.data == figures.gains(comparison(FULL), list(NAMES), NAMES).data
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_gains_use_the_colour_blind_palette_and_speak() -> None:
    import seaborn as sns

    printed = (PrintedCell(cell("baseline"), 90.0), PrintedCell(cell("bimask"), 91.0, 1.0))
    output = figures.gains(comparison(FULL, printed), list(NAMES), NAMES)
    palette = [rgb(colour) for colour in sns.color_palette("colorblind")[:2]]
    for picture in pictures(output):
        assert set(palette) <= inks(picture)
        assert rgb("#1f77b4") not in inks(picture)  # matplotlib's own blue
    assert "net &lt;1&gt; d bimask +1.00" in alt_of(output)


def test_one_seed_is_a_point_without_an_interval() -> None:
    single = {name: {0: found[0]} for name, found in FULL.items()}
    output = figures.gains(comparison(single), list(NAMES), NAMES)
    assert len(pictures(output)) == 2
    assert "+1.00 (1)" in alt_of(output)
    (row,) = [r for r in comparison(single).rows if r.keys["method"] == "bimask"]
    assert np.isnan(figures._width(row.gain))


def with_curves(curves: dict[str, list[list[float]]]) -> Results:
    """Results with a curve per method and seed."""
    entries = []
    for method, found in curves.items():
        for seed, curve in enumerate(found):
            record = Recorded(curve[-1] if curve else 0.0)
            record.metrics["curves"] = {"test": curve}
            entries.append(Entry(cell(method), seed, Asked(f"{method}{seed}"), record))
    return Results([], "tiny", entries)


def test_courses_draw_each_run_and_tell_its_best_and_its_last_epoch() -> None:
    import seaborn as sns

    results = with_curves({"bimask": [[10.0, 40.0, 1.0], [12.0, 30.0, 31.0]], "other": [[99.0]]})
    output = figures.courses(results, ["bimask", "random"], NAMES)
    colour = rgb(sns.color_palette("colorblind")[0])
    assert all(colour in inks(picture) for picture in pictures(output))
    assert "net &lt;1&gt;, d, BIMask: 40.0 and 1.0, 31.0 and 31.0" in alt_of(output)
    assert "other" not in alt_of(output) and "random" not in alt_of(output)
    # Colours count the arms that ran, as in `gains`.
    absent_first = figures.courses(results, ["random", "bimask"], NAMES)
    assert all(colour in inks(picture) for picture in pictures(absent_first))
    assert "No run is recorded at scale tiny" in figures.courses(with_curves({}), ["bimask"], NAMES).data


def test_arms_that_did_not_run_are_left_out() -> None:
    few = {name: found for name, found in FULL.items() if name[0] != "random"}
    output = figures.gains(comparison(few), ["random", "bimask", "inverse"], NAMES)
    assert len(pictures(output)) == 2
    assert "random" not in alt_of(output)


@pytest.mark.parametrize("values", [{}, BASE])
def test_gains_without_any_gain_are_a_sentence(values) -> None:
    output = figures.gains(comparison(values), list(NAMES), NAMES)
    assert output.data == "<p>No gain is measured at scale tiny yet, so there is nothing to draw.</p>"


@pytest.mark.parametrize("seeds", [1, 3])
def test_sweep_draws_measured_and_printed(seeds) -> None:
    values = {name: dict(list(found.items())[:seeds]) for name, found in SWEEP.items()}
    printed = tuple(PrintedCell(cell("bimask", masking_ratio=ratio), 91.0, 1.0) for ratio in (0.1, 0.3))
    output = figures.sweep(comparison(values, printed), "masking_ratio", "removed fraction", list(NAMES), NAMES)
    assert len(pictures(output)) == 2
    assert "Gains along removed fraction at scale tiny: net &lt;1&gt; d bimask 0.1 +1" in alt_of(output)


@pytest.mark.parametrize("printed", [(), (PrintedCell(cell("bimask", masking_ratio=0.1), 91.0, 1.0),)])
def test_sweep_without_measured_rows_is_a_sentence(printed) -> None:
    output = figures.sweep(comparison(BASE, printed), "masking_ratio", "fraction <x>", list(NAMES), NAMES)
    assert output.data == "<p>Nothing is measured along fraction &lt;x&gt; at scale tiny yet.</p>"


def test_image_grid_shows_images_maps_and_masks() -> None:
    image = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    ramp = np.arange(64, dtype=np.float32).reshape(8, 8)
    grid = [[image, ramp, ramp > 20], [image, ramp, ramp > 40]]
    output = figures.image_grid(grid, ["image", "map", "mask"], ["one", "two"], "a grid")
    for picture in pictures(output):
        assert {(255, 0, 0), (0, 0, 0), (255, 255, 255)} <= inks(picture)
    assert alt_of(output) == "a grid"


def test_image_grid_without_pictures_is_a_sentence() -> None:
    assert "no picture" in figures.image_grid([], ["image"], [], "nothing").data
