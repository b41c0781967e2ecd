"""Tables whose numbers are not accuracies: words, decimals, columns and margins by unit, on made-up records."""

from __future__ import annotations

import re
from types import SimpleNamespace

import matplotlib as mpl
import pytest

from efflib.papers.table import PrintedCell, PrintedTable, Table
from efflib.report import compare, compare_scales, figures, ledger
from efflib.report import verdict as v
from efflib.report.measures import UNITS, as_printed, captions, decimals_of, headline_of, measures_of
from efflib.report.notebook import TablePage
from efflib.trials import Entry, Results

mpl.use("agg")
LOSSES = ("test_mse", "train_mse", "test_nmse", "odd_metric")
CLASS, CLUSTER = ({"model": "net", "dataset": "d", "target": target} for target in ("class", "cluster"))
BASE, ARM = ({"model": "net", "dataset": "d", "method": method} for method in ("baseline", "ours"))


def record(key: str, metrics: dict) -> SimpleNamespace:
    """As much of a record as pages look at."""
    return SimpleNamespace(
        key=key, recipe="toy", status="ok", failure=None, metrics=metrics, precision="fp32",
        dataset=SimpleNamespace(name="d", variant="official"),
        cost=SimpleNamespace(seconds=1.0, peak_memory_bytes=1),
        provenance=SimpleNamespace(device="cpu", commit=None, dirty=False, versions={}, date="2026-01-01"),
    )  # fmt: skip


def runs(
    table: Table, scale: str, *found: tuple[dict, dict[str, float]], seeds: int = 3, spread: float = 0.01
) -> Results:
    """Results of cells with their metrics; seed s lies s - 1 times the spread from them, relative."""
    entries = []
    for cell, metrics in found:
        for seed in range(seeds):
            key = f"{cell}{seed}"
            values = {name: value * (1 + spread * (seed - 1)) for name, value in metrics.items()}
            entries.append(
                Entry(cell, seed, SimpleNamespace(identity=key, parents={}, recipe="baseline"), record(key, values))
            )
    return Results(table, scale, entries)


def table(unit: str, *cells: PrintedCell, selection: str | None = None, **options) -> Table:
    printed = PrintedTable("paper", "table1", "caption", {"name": "m", "unit": unit}, None, selection, cells)
    return Table("paper", "table1", "T", printed, (), lambda *_: [], **options)


def losses(**options) -> Table:
    cells = PrintedCell(CLASS, 0.019), PrintedCell(CLUSTER, 0.0107)
    return table("mse", *cells, measures=LOSSES, across=("target",), **options)


def autoencoders(shown: Table, scale: str = "paper") -> Results:
    odd = {"test_mse": 0.0189, "train_mse": 0.0150, "test_nmse": 0.35123}
    return runs(shown, scale, (CLASS, odd), (CLUSTER, {"test_mse": 0.0151, "train_mse": 0.0104, "odd_metric": 2.0}))


@pytest.fixture
def page(monkeypatch):
    """page(table, results): a TablePage whose only recorded results are these."""

    def make(shown: Table, results: Results) -> TablePage:
        none = Results(shown, "tiny", [])
        monkeypatch.setattr(
            "efflib.report.notebook.evidence", lambda _, scale: results if scale == results.scale else none
        )
        monkeypatch.setattr("efflib.trials.run", lambda *_, **__: results)
        return TablePage(shown, results.scale, 3)

    return make


# --- rows and frames --------------------------------------------------------------------------------------


def test_a_table_without_measures_shows_the_three_accuracies() -> None:
    assert [measure.title for measure in measures_of(table("percent"))] == ["last", "test best", "val best"]
    headline = headline_of(table("percent"))
    assert (headline.metric, headline.change) == ("last", "gain")
    assert headline.words == "accuracy in % of the last epoch"
    assert headline.difference == "points of accuracy (last epoch)"


def test_a_metric_that_nobody_described_goes_by_its_name() -> None:
    headline = headline_of(table("nats", measures=("test_loss",)))
    assert (headline.words, headline.difference) == ("loss in nats (test loss)", "nats (test loss)")


def test_losses_are_columns_with_titles_and_four_decimals() -> None:
    frame = compare(losses(), autoencoders(losses())).frame()
    assert list(frame.columns) == [
        "model", "dataset", "target", "printed",
        "test MSE", "train MSE", "test NMSE", "odd metric", "verdict", "reason",
    ]  # fmt: skip
    first, second = frame.to_dict("records")
    assert (first["printed"], second["printed"]) == ("0.019", "0.0107")  # as printed, no zeros added
    assert first["test MSE"] == "0.0189 ± 0.0005 (3)"
    assert (first["test NMSE"], second["test NMSE"]) == ("0.3512 ± 0.0087 (3)", "")
    assert (first["odd metric"], second["odd metric"]) == ("", "2.0000 ± 0.0497 (3)")


def test_the_first_measure_decides_cells_without_a_selection() -> None:
    one, other = compare(losses(), autoencoders(losses())).rows
    assert (one.verdict, one.reason) == ("reproduced", "interval inside printed ± 0.0019")
    assert other.verdict == "higher"  # its train MSE, 0.0104, would be inside
    assert (one.gain, one.bias, one.last, one.n) == (None, None, None, 3)


def test_a_selection_decides_although_it_is_not_shown() -> None:
    shown = table("percent", PrintedCell(BASE, 90.0), selection="test_best", measures=("last",))
    (row,) = compare(shown, runs(shown, "paper", (BASE, {"last": 80.0, "test_best": 90.0}), spread=1e-4)).rows
    assert (row.verdict, row.bias) == ("reproduced", None)


def test_records_without_the_headline_say_what_they_lack() -> None:
    shown = losses()
    (row, _) = compare(shown, runs(shown, "paper", (CLASS, {"train_mse": 0.019}))).rows
    assert (row.verdict, row.reason, row.n) == ("not run", "its records have no test_mse", 3)


def test_no_column_of_gains_where_there_is_no_baseline() -> None:
    frame = compare_scales(losses(), {"tiny": autoencoders(losses(), "tiny")}).frame()
    assert list(frame.columns) == ["model", "dataset", "target", "printed", "test MSE, tiny", "verdict"]


def test_losses_with_a_baseline_have_changes_not_gains() -> None:
    shown = table("nats", PrintedCell(BASE, 1.8), PrintedCell(ARM, 1.6, -0.2), measures=("test_loss",))
    results = runs(shown, "paper", (BASE, {"test_loss": 1.81}), (ARM, {"test_loss": 1.6}), spread=0.001)
    frame = compare(shown, results).frame()
    assert list(frame["change"]) == ["", "-0.210 ± 0.001 (3)"]
    assert list(frame["printed"]) == ["1.8", "1.6 (-0.2)"]
    assert "change, paper" in compare_scales(shown, {"paper": results}).frame().columns
    assert "gain" not in frame.columns


def test_sizes_have_no_decimals_and_more_printed_decimals_are_kept() -> None:
    shown = table("bytes", PrintedCell(BASE, 349864.0), measures=("size",))
    row = compare(shown, runs(shown, "paper", (BASE, {"size": 349864.0}), spread=0)).frame().iloc[0]
    assert (row["printed"], row["size"], row["verdict"]) == ("349864", "349864 ± 0 (3)", "reproduced")
    fine = table("mse", PrintedCell(CLASS, 0.00065), measures=("test_mse", "test_nmse"))
    assert [measure.decimals for measure in measures_of(fine)] == [5, 4]


def test_accuracies_become_fractions_but_other_metrics_stay() -> None:
    shown = table("fraction", PrintedCell(BASE, 0.9567), measures=("last", "silhouette"))
    (row,) = compare(shown, runs(shown, "paper", (BASE, {"last": 95.67, "silhouette": 0.5}), spread=0)).rows
    assert (row.values["last"].mean, row.values["silhouette"].mean) == (pytest.approx(0.9567), 0.5)


def test_a_figure_without_a_unit_shows_accuracies() -> None:
    assert captions(table("none")) == "Accuracy in %"


def test_metrics_in_units_of_their_own_are_named_in_the_caption() -> None:
    assert captions(losses()) == "Reconstruction loss (MSE); NMSE: MSE over that of the best constant output"
    mixed = table("percent", measures=("last", "test_best", "decoded_accuracy"))
    assert captions(mixed) == "Accuracy in %"


# --- pages ------------------------------------------------------------------------------------------------


def test_a_page_of_losses_never_speaks_of_accuracy(page) -> None:
    shown = losses()
    made = page(shown, autoencoders(shown, "tiny"))
    contrast = [({"target": "cluster"}, {"target": "class"})]
    texts = [
        made.printed().data, made.measured().data, made.comparison().data, made.headline(contrast).data,
        made.decomposition([{"target": "class"}, {"target": "cluster"}]).data,
    ]  # fmt: skip
    assert not [text for text in texts if re.search("accura|points|last epoch", text, re.IGNORECASE)]
    assert "Reconstruction loss (MSE); NMSE" in texts[1]
    assert "reconstruction loss (MSE) of the test images, verdict of the cell" in texts[2]
    assert "<td>0.019</td><td>0.0107</td>" in texts[0]


def test_contrasts_of_keys_other_than_the_method(page) -> None:
    shown = losses()
    text = page(shown, autoencoders(shown, "tiny")).headline([({"target": "cluster"}, {"target": "class"})]).data
    assert "Differences in MSE (test images), mean" in text
    assert "- net, d: `cluster` less `class` -0.0038 ± 0.0001 (3)" in text


def test_contrasts_of_arms_with_keys_more_than_the_baseline(page) -> None:
    shown = table("percent")
    more = {**ARM, "target": "cluster"}, {**ARM, "target": "class"}
    results = runs(
        shown, "tiny", (BASE, {"last": 80.0}), (more[0], {"last": 82.0}), (more[1], {"last": 81.0}), spread=0
    )
    made = page(shown, results)
    best, less = ({"method": "ours", "target": target} for target in ("cluster", "class"))
    text = made.headline([(best, "baseline"), (best, less)]).data
    assert (
        "- net, d: `ours, cluster` less `baseline` +2.00 ± 0.00 (3); `ours, cluster` less `ours, class` +1.00" in text
    )
    steps = made.decomposition(["baseline", less, best]).data
    assert "<th>ours, class less baseline</th><th>ours, cluster less ours, class</th>" in steps


def test_the_page_says_that_the_margin_of_a_loss_is_ours(page) -> None:
    shown = losses()
    note = "verdict of the cell (the margin, 10 % of the printed number, is this book&#x27;s own choice)"
    assert note in page(shown, autoencoders(shown, "tiny")).comparison().data
    plain = table("percent", PrintedCell(BASE, 90.0))
    assert "own choice" not in page(plain, runs(plain, "tiny", (BASE, {"last": 90.0}))).comparison().data


def test_notes_of_a_table_are_on_its_page(page) -> None:
    shown = losses(notes=("which split < unstated",))
    assert "<p>which split &lt; unstated</p>" in page(shown, autoencoders(shown, "tiny")).comparison().data


def test_figures_speak_in_the_tables_unit() -> None:
    shown = table("nats", measures=("test_loss",))
    results = runs(shown, "tiny", (BASE, {"test_loss": 1.8}), (ARM, {"test_loss": 1.6}), spread=0)
    assert (
        "Changes over the baseline at scale tiny: net d ours -0.200"
        in figures.gains(compare(shown, results), ["ours"], {}).data
    )
    nothing = figures.gains(compare(losses(), autoencoders(losses(), "tiny")), ["ours"], {})
    assert nothing.data == "<p>No change is measured at scale tiny yet, so there is nothing to draw.</p>"


def test_the_ledger_knows_that_a_higher_loss_is_worse() -> None:
    (row,) = ledger([(losses(), {"paper": autoencoders(losses())})])
    assert (row["reproduced"], row["higher"], row["measured"], row["worse"]) == (1, 1, 2, "higher")
    (plain,) = ledger([table("percent").printed])
    assert plain["worse"] == "lower"


# --- units ------------------------------------------------------------------------------------------------


def test_every_unit_with_a_margin_has_words() -> None:
    assert set(v._MARGINS) <= set(UNITS)
    assert v.margin_for("mse", 0.0107) == pytest.approx(0.00107)
    assert [unit for unit in UNITS if v.margin_note(unit)] == ["mse", "score"]


def test_unknown_units_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'furlong'.*percent.*mse"):
        measures_of(table("furlong"))


@pytest.mark.parametrize("bad", [(), "last", ["last"]])
def test_measures_that_are_no_names_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="paper table1: measures="):
        table("percent", measures=bad)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (94.1, "percent", "94.10"), (0.0107, "mse", "0.0107"), (0.019, "mse", "0.019"), (0.95, "fraction", "0.95"),
        (0.9567, "fraction", "0.9567"), (87466.0, "count", "87466"), (1.6, "nats", "1.6"), (38.0, "ap", "38.00"),
    ],
)  # fmt: skip
def test_printed_numbers_keep_their_digits(value, unit, text) -> None:
    assert as_printed(value, unit) == text
    assert float(text) == value


@pytest.mark.parametrize(("value", "decimals"), [(0.0107, 4), (92.5, 1), (87466.0, 0), (0.00065, 5), (0.1, 1)])
def test_decimals_of_printed_numbers(value, decimals) -> None:
    assert decimals_of(value) == decimals
