"""The generated parts of the book: ledger, status page, and files that change only when their text does."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from efflib import notebooks
from efflib.report import pages
from efflib.report.html import as_text, html_table
from efflib.report.verdict import CELL_VERDICTS, CLAIM_VERDICTS
from efflib.trials import Store, Trial
from efflib.trials.provenance import source_hash
from efflib.trials.record import Cost, DataUsed, Failure, Provenance, Record


def row(table: str, claims: dict | None = None, measured: int | None = None, reasons: dict | None = None, **counts):
    """A row of the ledger; `counts` are cell verdicts with _ for the space."""
    verdicts = {name: counts.get(name.replace(" ", "_"), 0) for name in CELL_VERDICTS}
    decided = sum(count for name, count in verdicts.items() if name != "not run")
    return {
        "paper": "toy", "table": table, "title": f"Title of {table} <&>", "printed": sum(verdicts.values()), **verdicts,
        "measured": decided if measured is None else measured, "reasons": reasons or {},
        "claims": {name: (claims or {}).get(name, 0) for name in CLAIM_VERDICTS}, "claim_scales": {},
    }  # fmt: skip


def toy_paper(*tables: str) -> SimpleNamespace:
    return SimpleNamespace(title="Toys & <Tricks>", tables=dict.fromkeys(tables), printed={}, findings=list)


def record(trial: Trial, seed: int = 0, status: str = "ok", **changes) -> Record:
    made = Provenance(
        device="toy", device_type="cpu", threads=1, versions={}, commit=None, dirty=None,
        source_hash=changes.pop("source", None) or source_hash(trial.recipe), canary={"value": 1.0}, date="2026-01-01",
    )  # fmt: skip
    fields = {
        "schema": 1, "key": f"{seed:016x}", "identity": trial.identity, "recipe": trial.recipe, "recipe_version": 1,
        "config": trial.config, "parents": {}, "precision": "fp32", "status": status, "provenance": made,
        "dataset": DataUsed(name="cifar10", fingerprint="f", variant="official"), "metrics": {"last": 50.0},
        "failure": Failure(kind="E", reason="nan") if status == "failed" else None,
        "cost": Cost(seconds=1.0, peak_memory_bytes=1, flops=1.0),
    }  # fmt: skip
    return Record(**{**fields, **changes})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Empty results, and two notebooks of a paper `toy`; nothing of the checkout's own is read."""
    monkeypatch.setenv("EFFLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("EFFLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(notebooks, "SOURCES", tmp_path / "notebooks")
    for name in ("table1", "table2"):
        source = tmp_path / "notebooks" / "toy" / f"{name}.py"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text('# %% tags=["parameters"]\nscale = "smoke"\nmodels: list = None\n')
    return tmp_path


def executed(home, name: str = "toy/table1", **parameters):
    """An executed copy of a notebook with its sidecar, as `execute` leaves them."""
    source = notebooks.SOURCES / f"{name}.py"
    target = home / "executed" / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    stamp = notebooks.provenance(source, parameters)
    target.write_text(json.dumps({"metadata": {"provenance": stamp}}))
    facts = {
        "source": name, "parameters": stamp["parameters"], "date": "2026-01-02T03:04:05+00:00", "seconds": 12.3,
        "device": "CPU <x>", "threads": 1, "torch": None,
    }  # fmt: skip
    notebooks.sidecar_of(target).write_text(json.dumps(facts))
    return target


# --- the ledger -------------------------------------------------------------------------------------------


def test_ledger_shows_every_paper_and_links_only_what_has_a_notebook() -> None:
    rows = [row("table1", not_run=4, reasons={"not <recorded> yet": 4}), row("table2", not_run=2)]
    text = pages.ledger_html(rows, {"toy": toy_paper("table1")})
    assert '<a href="executed/toy/chapter.html">Toys &amp; &lt;Tricks&gt;</a>' in text
    assert '<a href="executed/toy/table1.html">Table 1</a>' in text
    assert "toy/table2.html" not in text and "<strong>Table 2</strong>" in text
    assert "Title of table1 &lt;&amp;&gt;" in text
    assert "4: not &lt;recorded&gt; yet" in text


def test_ledger_of_no_paper_is_still_a_page() -> None:
    assert '<div class="ledger"></div>' in pages.ledger_html([], {})
    assert "Toys" in pages.ledger_html([], {"toy": toy_paper()})


@pytest.mark.parametrize(
    ("given", "shade"),
    [
        ({"not_run": 4}, "none"),
        ({"not_run": 4, "measured": 3}, "odd"),
        ({"not_run": 4, "measured": 3, "claims": {"supported": 2, "contradicted": 1, "undetermined": 5}}, "good"),
        ({"not_run": 4, "measured": 3, "claims": {"supported": 1, "contradicted": 2}}, "bad"),
        ({"not_run": 4, "measured": 3, "claims": {"supported": 1, "contradicted": 1}}, "odd"),
        ({"not_run": 4, "claims": {"not run": 3}}, "none"),
        ({"reproduced": 3, "lower": 1, "claims": {"contradicted": 4}}, "good"),
        ({"reproduced": 1, "lower": 3}, "bad"),
        ({"reproduced": 2, "lower": 2}, "odd"),
        ({"higher": 3, "reproduced": 1}, "odd"),
        ({"undetermined": 4, "claims": {"supported": 1}}, "odd"),
    ],
)
def test_shading_follows_the_best_evidence(given, shade) -> None:
    text = pages.ledger_html([row("table1", **given)], {"toy": toy_paper("table1")})
    assert f'<li class="ledger-{shade}">' in text


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("table2", "Table 2"),
        ("table3_3_train", "Table 3.3 train"),
        ("table1_bytes", "Table 1 bytes"),
        ("figure5", "Figure 5"),
        ("fig3_6_loss", "Figure 3.6 loss"),
        ("table3_6_flops", "Table 3.6 FLOPs"),
        ("appendix", "appendix"),
    ],
)
def test_boxes_name_their_table_as_the_paper_does(table, said) -> None:
    assert f"<strong>{said}</strong>" in pages.ledger_html([row(table)], {"toy": toy_paper()})


def test_boxes_count_what_was_measured_at_a_smaller_scale_only() -> None:
    text = pages.ledger_html([row("table1", reproduced=3, not_run=5, measured=5)], {"toy": toy_paper("table1")})
    assert "8 numbers<br>3 with a verdict<br>2 at a smaller scale</li>" in text
    text = pages.ledger_html([row("table1", not_run=5)], {"toy": toy_paper()})
    assert "5 numbers<br>none measured yet</li>" in text


def test_ledger_text_counts_everything() -> None:
    rows = [row("table1", reproduced=1, not_run=3, reasons={"not recorded yet": 3}, claims={"supported": 2})]
    assert pages.ledger_text(rows).splitlines() == [
        "toy.table1: 4 printed numbers: 1 reproduced, 3 not run",
        "    not run, not recorded yet: 3",
        "    claims: 2 supported",
    ]
    assert pages.ledger_text([]) == ""


def test_ledger_rows_of_the_real_paper_count_every_printed_number(home) -> None:
    from efflib.papers import bimask

    rows = {found["table"]: found for found in pages.ledger_rows({"bimask": bimask})}
    assert set(bimask.tables) <= set(rows)
    for name, found in rows.items():
        assert sum(found[verdict] for verdict in CELL_VERDICTS) == len(bimask.printed[name].numbers)
        assert found["not run"] == found["printed"] and found["measured"] == 0


def test_ledger_rows_have_columns_that_are_tables_of_their_own(home) -> None:
    from efflib.papers import encodenet

    rows = {found["table"]: found for found in pages.ledger_rows({"encodenet": encodenet})}
    assert "table5_parameters" not in encodenet.printed and rows["table5_parameters"]["printed"] == 7


def test_a_figure_of_ours_without_printed_numbers_has_no_box(home) -> None:
    from efflib.papers import safety

    assert "pareto" in safety.tables and "pareto" not in safety.printed
    assert "pareto" not in {found["table"] for found in pages.ledger_rows({"safety": safety})}


# --- the status page --------------------------------------------------------------------------------------


def test_status_without_anything_is_two_sentences(home) -> None:
    text = pages.status_markdown(home / "executed")
    assert "No notebook has been executed here yet." in text
    assert "No trial is recorded yet." in text


def test_status_tells_current_from_changed_and_from_missing(home) -> None:
    executed(home)
    text = pages.status_markdown(home / "executed")
    assert "<td>toy/table1</td><td>12 s</td><td>CPU &lt;x&gt;, 1 thread(s)</td><td>2026-01-02</td>" in text
    assert "<td>scale=smoke</td>" in text  # a parameter left at None is not shown
    assert "<td>yes</td>" in text
    assert "no: not executed yet" in text and text.count("toy/table2") == 1
    changed = '# %% tags=["parameters"]\nscale = "tiny"\nmodels: list = None\n'
    (notebooks.SOURCES / "toy" / "table1.py").write_text(changed)
    assert "no: source or records changed since" in pages.status_markdown(home / "executed")


def test_status_survives_missing_and_broken_files(home) -> None:
    executed(home, "toy/table1").unlink()
    notebooks.sidecar_of(executed(home, "toy/table2")).write_text("{")
    text = pages.status_markdown(home / "executed")
    assert "no: the executed copy is missing" in text
    assert "table2.run.json cannot be read" in text
    executed(home, "toy/table1")
    (notebooks.SOURCES / "toy" / "table1.py").unlink()
    assert "there is no such notebook" in pages.status_markdown(home / "executed")


def test_status_counts_records_by_recipe(home, monkeypatch) -> None:
    from efflib.papers import bimask

    monkeypatch.setattr("efflib.trials.freshness.canary", lambda recipe: {"value": 2.0})
    trial = bimask.tables["table7"].trials("tiny", 1)[0]
    store = Store.for_scale("tiny")
    store.save(record(trial, 0))
    store.save(record(trial, 1, "failed"))
    store.save(record(trial, 2, source="0" * 16))
    store.save(record(trial, 3, recipe="removed_since"))
    text = pages.status_markdown(home / "executed")
    assert "<th>recipe</th><th>ok</th><th>stale</th><th>failed</th>" in text
    assert "<td>baseline</td><td>1</td><td>1</td><td>1</td>" in text
    assert "<td>removed_since</td><td>0</td><td>1</td><td>0</td>" in text


# --- files and tables -------------------------------------------------------------------------------------


def test_pages_are_written_only_when_they_change(home) -> None:
    papers = {"toy": toy_paper()}
    first = pages.write_pages(home / "book", papers)
    assert sorted(path.name for path in first) == ["audit.md", "ledger.md", "speed.md", "status.md"]
    stamps = {path: path.stat().st_mtime_ns for path in first}
    assert pages.write_pages(home / "book", papers) == []
    assert {path: path.stat().st_mtime_ns for path in first} == stamps
    papers["toy"].title = "Renamed"
    (changed,) = pages.write_pages(home / "book", papers)
    assert changed.name == "ledger.md" and "Renamed" in changed.read_text()


def test_headings_are_words_but_names_of_networks_stay_whole() -> None:
    text = html_table([{"test_best": 1, "wrn_40_2, wrn_16_2": 2, "mobilenetv2_half": 3}])
    assert "<th>test best</th><th>wrn_40_2, wrn_16_2</th><th>mobilenetv2_half</th>" in text


def test_html_tables_escape_everything_and_take_rows_of_different_columns() -> None:
    text = html_table([{"a_b": "<i>"}, {"c&d": None}], 'x "y" <z>', 'id"<>')
    assert "<th>a b</th><th>c&amp;d</th>" in text
    assert "<td>&lt;i&gt;</td><td></td></tr><tr><td></td><td></td>" in text
    assert "<caption>x &quot;y&quot; &lt;z&gt;</caption>" in text
    assert 'id="id&quot;&lt;&gt;"' in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (False, "no"),
        (None, ""),
        (0.12345, "0.123"),
        (12.3456, "12.35"),
        (7, "7"),
        ([1, 2.5], "1, 2.50"),
        ({"a": 1}, "a 1"),
    ],
)
def test_cells_as_text(value, text) -> None:
    assert as_text(value) == text
