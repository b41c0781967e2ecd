"""printed.yaml holds what the paper printed, cell by cell; references.yaml what its code and others published."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from efflib.models import list_models
from efflib.papers.safety import audit
from efflib.papers.table import PrintedTable, load_paper

SLUG = "safety"
FILES = "safety-self-compression"
MODELS = {"cnn": "mnist_cnn", "decoder": "names_decoder"}
METHODS = {"without-quantization": "float", "unsafe-quantization": "unsafe", "safety-driven-quantization": "safe"}
SECOND_COLUMN = " Second column: Model Size (bytes)."


def test_tables_and_counts(home: Path, printed: dict[str, PrintedTable]) -> None:
    assert load_paper(home / "printed.yaml")["paper"] == "safety"
    assert {name: len(table.numbers) for name, table in printed.items()} == {
        "table1": 3, "table1_bytes": 3, "table2": 3, "table2_bytes": 3,
    }  # fmt: skip
    assert {name: table.metric for name, table in printed.items()} == {
        "table1": {"name": "top1_accuracy", "unit": "percent"},
        "table1_bytes": {"name": "model_size", "unit": "bytes"},
        "table2": {"name": "test_loss", "unit": "nats_per_character"},
        "table2_bytes": {"name": "model_size", "unit": "bytes"},
    }


def test_a_size_has_the_keys_of_its_row(printed: dict[str, PrintedTable]) -> None:
    for name in ("table1", "table2"):
        rows, sizes = printed[name].cells, printed[f"{name}_bytes"].cells
        assert [cell.keys for cell in rows] == [cell.keys for cell in sizes]
        assert [cell.printed for cell in rows] == [cell.printed for cell in sizes]


def test_keys_are_those_of_the_trial_grids(printed: dict[str, PrintedTable]) -> None:
    cells = [cell for table in printed.values() for cell in table.cells]
    assert {tuple(cell.keys) for cell in cells} == {("model", "dataset", "method")}
    assert {(c.keys["model"], c.keys["dataset"]) for c in cells} == {("mnist_cnn", "mnist"), ("names_decoder", "names")}
    assert {cell.keys["model"] for cell in cells} <= set(list_models())
    for table in printed.values():
        assert [cell.keys["method"] for cell in table.cells] == ["float", "unsafe", "safe"]


def test_the_paper_states_neither_selection_nor_runs(printed: dict[str, PrintedTable]) -> None:
    assert {(table.selection, table.runs) for table in printed.values()} == {(None, None)}


def test_nothing_derived_is_stored(stored_derived: Callable[..., list[str]]) -> None:
    assert stored_derived("baseline", "bits", "steps") == []


# --- against the supplied tables --------------------------------------------------------------------------


def test_numbers_equal_the_supplied_tables(printed: dict[str, PrintedTable], supplied: dict[str, Any]) -> None:
    assert len(supplied["tables"]) == len(printed)
    for entry in supplied["tables"]:
        table = printed[entry["id"].replace("-size", "_bytes")]
        assert table.unit == entry["metric"]["unit"]
        assert len(entry["cells"]) == len(table.cells)
        for raw in entry["cells"]:
            cell = table.cell(model=MODELS[raw["model"]], dataset=raw["dataset"], method=METHODS[raw["method"]])
            assert cell.value == raw["value"]
            assert raw["baseline"] == table.cell(method="float").value


def test_numbers_of_the_text_equal_the_supplied_ones(supplied: dict[str, Any]) -> None:
    ours = {float(number) for sentence in audit.TEXT.values() for number in sentence.numbers}
    quoted = {"accuracy gain over the unquantized model, up to", "remaining size", "vision accuracy from/to"}
    quoted |= {"decoder test loss from/to", "preservation set share of training images", "bit depths"}
    found = {raw["claim"]: raw["value"] for raw in supplied["text_claims"] if raw["claim"] in quoted}
    assert found.keys() == quoted
    for value in found.values():
        assert set(value if isinstance(value, list) else [value]) <= ours


def test_logs_equal_the_supplied_ones(supplied: dict[str, Any]) -> None:
    load = audit.load()
    *lines, decoder = supplied["code_logs"]
    names = ("cnn_main", "cnn_two_bits_unsafe", "cnn_two_bits_safe", "self_compression_demo")
    for raw, name in zip(lines, names, strict=True):
        own = load.logged(name)
        assert (own["value"], own["bytes"], own["method"]) == (raw["accuracy"], raw["bytes"], METHODS[raw["method"]])
        assert own["initial_bits"] == raw["init_bits"]
        assert own["loop"] == raw.get("steps", raw.get("steps_in_loop"))
        assert own.get("loss") == raw.get("loss")
        assert own.get("preservation") == raw.get("preservation_accuracy")
    assert load.logs["decoder_main"]["columns"] == decoder["columns"]
    assert load.logs["decoder_main"]["rows"] == decoder["rows"]


# --- against the paper ------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Without typesetting, kinds of quotation marks and white space."""
    text = text.translate(str.maketrans("“”’", '""\''))
    return re.sub(r"[\s$*\\]", "", text)


def test_rows_of_the_tables_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    for name, header in (("table1", "Test Accuracy (%)"), ("table2", "Test Loss")):
        lines = text[text.index(f"Model Type\t{header}\tModel Size (bytes)") :].split("\n\n")[0].splitlines()[1:]
        ours = [
            f"{row.printed['method']}\t{row.value}\t{size.value:,.0f}"
            for row, size in zip(printed[name].cells, printed[f"{name}_bytes"].cells)
        ]
        assert lines == ours


def test_captions_are_in_the_paper(printed: dict[str, PrintedTable], text: str) -> None:
    joined = re.sub(r"\s+", " ", text)
    for name, table in printed.items():
        caption = table.caption.removesuffix(SECOND_COLUMN)
        assert caption in joined
        assert (caption != table.caption) == name.endswith("_bytes")


def test_quoted_sentences_are_in_the_paper(text: str) -> None:
    whole = plain(text)
    assert [name for name, sentence in audit.TEXT.items() if plain(sentence.words) not in whole] == []


def test_title_and_authors_are_in_the_paper(home: Path, text: str) -> None:
    paper = load_paper(home / "printed.yaml")
    assert paper["title"] in text
    assert [author for author in paper["authors"] if author not in text] == []


# --- references -------------------------------------------------------------------------------------------


def test_references_and_facts_say_where_they_come_from(reference_lists: dict[str, list[dict[str, Any]]]) -> None:
    entries = [*reference_lists["references"], *reference_lists["logs"], *reference_lists["facts"]]
    assert [entry["id"] for entry in entries if not entry.get("source")] == []
    assert len({entry["id"] for entry in entries}) == len(entries)
    assert [r["id"] for r in reference_lists["references"] if not r.get("name") or len(r["values"]) != 1] == []
