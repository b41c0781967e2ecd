"""printed.yaml holds what the EncodeNet paper printed, cell by cell; references.yaml what others published."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from efflib.models import list_models
from efflib.papers.encodenet import audit
from efflib.papers.table import PrintedTable, load_paper

SLUG = "encodenet"
TARGETS = {
    "without_clustering": "class", "with_clustering": "cluster", "identity_target_no_clustering": "identity",
    "class_representative_no_clustering": "class", "cluster_representative": "cluster",
}  # fmt: skip
KD_ROWS = {
    "Baseline(student)": "baseline", "KD": "kd", "RKD": "rkd", "FitNet": "fitnet", "FT": "ft", "EncodeNet": "encodenet",
}  # fmt: skip


def test_tables_and_counts(home: Path, printed: dict[str, PrintedTable]) -> None:
    assert load_paper(home / "printed.yaml")["paper"] == "encodenet"
    counts = {name: len(table.numbers) for name, table in printed.items()}
    # 4 networks x 2 targets; x 2 data sets x 2 methods; 4 rows; 2 pairs of 7; 7 rows
    assert counts == {"table1": 8, "table2": 16, "table3": 4, "table4": 14, "table5": 7}
    assert all(len(table.cells) == len(table.numbers) for table in printed.values())
    assert {name: table.metric for name, table in printed.items() if name == "table1"} == {
        "table1": {"name": "train_mse", "unit": "mse"}
    }
    assert {table.unit for name, table in printed.items() if name != "table1"} == {"percent"}


def test_the_paper_states_neither_selection_nor_runs(printed: dict[str, PrintedTable]) -> None:
    assert {(table.selection, table.runs) for table in printed.values()} == {(None, None)}


def test_cells_are_distinct_and_plausible(printed: dict[str, PrintedTable]) -> None:
    for name, table in printed.items():
        keys = [tuple(sorted(c.keys.items())) for c in table.cells]
        assert len(set(keys)) == len(keys)
        low, high = (0, 0.1) if name == "table1" else (70, 95)
        assert [c.keys for c in table.numbers if not low < c.value < high] == []


def test_keys_are_those_of_the_trial_grids(printed: dict[str, PrintedTable]) -> None:
    def sorts(name: str) -> set[tuple[str, ...]]:
        return {tuple(c.keys) for c in printed[name].cells}

    assert sorts("table1") == {("model", "dataset", "target")}
    assert sorts("table2") == sorts("table5") == {("model", "dataset", "method")}
    assert sorts("table3") == {("model", "dataset", "method"), ("model", "dataset", "method", "target")}
    assert sorts("table4") == {("teacher", "student", "dataset", "method")}
    methods = {name: list(dict.fromkeys(c.keys.get("method") for c in t.cells)) for name, t in printed.items()}
    assert methods == {
        "table1": [None],
        "table2": ["baseline", "encodenet"],
        "table3": ["baseline", "encodenet"],
        "table4": ["teacher", "baseline", "kd", "rkd", "fitnet", "ft", "encodenet"],
        "table5": ["baseline", "se", "bam", "cbam", "gam", "gam_gc", "encodenet"],
    }


def test_networks_are_the_librarys(printed: dict[str, PrintedTable]) -> None:
    roles = ("model", "teacher", "student")
    named = {c.keys[role] for t in printed.values() for c in t.cells for role in roles if role in c.keys}
    assert named - set(list_models()) == set()
    assert {c.keys["dataset"] for t in printed.values() for c in t.cells} == {"cifar10", "cifar100"}


def test_every_accuracy_has_its_baseline(printed: dict[str, PrintedTable]) -> None:
    cells = [(t, c) for name, t in printed.items() if name != "table1" for c in t.cells]
    assert [c.keys for t, c in cells if (c.keys["method"] != "baseline") != (t.baseline(c.keys) is not None)] == []
    ablation = printed["table3"]
    base = ablation.baseline(ablation.cell(target="identity").keys)
    assert base is not None and base.value == 91.12
    pairs = printed["table4"]
    base = pairs.baseline(pairs.cell(student="vgg8", method="ft").keys)
    assert base is not None and base.value == 70.21


def test_nothing_derived_is_stored(stored_derived: Callable[..., list[str]]) -> None:
    assert stored_derived("baseline", "parameters", "text_numbers") == []


# --- against the supplied tables --------------------------------------------------------------------------


def keys_of(raw: dict[str, Any]) -> dict[str, Any]:
    """The keys that our cell must have for a cell of the supplied tables."""
    keys = {role: raw[role].lower() for role in ("model", "teacher", "student") if role in raw}
    keys |= {name: raw[name] for name in ("dataset", "method") if name in raw}
    target = TARGETS.get(raw.get("setting", "none"))
    return keys | ({"target": target} if target else {})


def test_numbers_equal_the_supplied_tables(printed: dict[str, PrintedTable], supplied: dict[str, Any]) -> None:
    for entry in supplied["tables"]:
        table = printed[entry["id"]]
        assert len(entry["cells"]) == len(table.cells)
        for raw in entry["cells"]:
            keys = keys_of(raw)
            (cell,) = [c for c in table.cells if c.keys == keys]
            assert (cell.value, cell.gain) == (raw["value"], raw.get("reported_gain")), raw
            base = table.baseline(keys)
            assert "baseline" not in raw or (base is not None and base.value == raw["baseline"])
            if "parameters_m" in raw:
                assert float(cell.printed["parameters"].removesuffix("M")) == raw["parameters_m"]


def test_numbers_of_the_text_equal_the_supplied_ones(supplied: dict[str, Any]) -> None:
    ours = {number for sentence in audit.TEXT.values() for number in map(float, sentence.numbers)}
    for raw in supplied["text_numbers"]:
        values = raw["value"] if isinstance(raw["value"], list) else [raw["value"]]
        assert set(values) <= ours, raw


# --- against the paper ------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Without typesetting commands, mark-up, numbers of references and white space."""
    text = re.sub(r"\\(operatorname|text|mathrm|rm)\b|</?b>|\[\d+\]", "", text)
    return re.sub(r"[\s${}~^*\\]", "", text)


def rows_of(text: str, header: str) -> list[str]:
    """Plain rows of the table that follows its header line; a row is a name and the numbers behind it."""
    lines = text[text.index(header) :].split("\n\n")[0].splitlines()[1:]
    return [plain(line.replace("\t", "|")) for line in lines]


def shown(value: float, places: int = 2) -> str:
    return f"{value:.{places}f}"


def test_rows_of_table1_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    table = printed["table1"]
    spelt = dict.fromkeys(c.printed["model"] for c in table.cells)
    ours = ["|".join([m, *(str(c.value) for c in table.cells if c.printed["model"] == m)]) for m in spelt]
    assert [row.rstrip("|") for row in rows_of(text, "Models\tWithout Clustering\tWith Clustering")] == ours
    assert {(c.keys["target"], c.printed["target"]) for c in table.cells} == {
        ("class", "Without Clustering"), ("cluster", "With Clustering"),
    }  # fmt: skip


def test_rows_of_table2_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    table = printed["table2"]
    spelt = dict.fromkeys(c.printed["model"] for c in table.cells)
    ours = ["|".join([m, *(shown(c.value) for c in table.cells if c.printed["model"] == m)]) for m in spelt]
    assert rows_of(text, "\tBaseline\tEncodeNet\tBaseline\tEncodeNet") == ours
    bold = re.findall(r"<b>([\d.]+)</b>", text)
    assert [shown(c.value) for c in table.cells if c.printed.get("mark") == "bold"] == bold


def test_rows_of_table3_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    ours = []
    for cell in printed["table3"].cells:
        arrow = "" if cell.gain is None else "down" if cell.gain < 0 else "up"
        gain = "" if cell.gain is None else f"({arrow}arrow{shown(abs(cell.gain))}%)"
        ours.append(f"{plain(cell.printed['row'])}|{shown(cell.value)}{gain}")
    assert rows_of(text, "Architecture Setup\tAccuracy") == ours


def test_rows_of_table4_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    table = printed["table4"]
    found = [re.findall(r"\d+\.\d+", row) for row in rows_of(text, "Frameworks\tTeacher")]
    ours = [
        [shown(table.cell(student=student, method=method).value) for student in ("resnet32", "vgg8")]
        for method in KD_ROWS.values()
    ]
    assert found == ours
    assert {c.printed["method"]: c.keys["method"] for c in table.cells if "method" in c.printed} == KD_ROWS
    header = plain(text[text.index("Frameworks\tTeacher") :].splitlines()[0])
    for cell in table.cells:
        if cell.keys["method"] == "teacher":
            student = table.cell(student=cell.keys["student"], method="baseline")
            assert f"{cell.printed['teacher']}({shown(cell.value)})" in header
            assert f"{plain(cell.printed['student'])}({shown(student.value)})" in header


def test_rows_of_table5_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    ours = [
        f"{plain(cell.printed['row'])}|{plain(cell.printed['parameters'])}|{shown(cell.value)}"
        for cell in printed["table5"].cells
    ]
    assert rows_of(text, "Architecture\tParameters\tAccuracy") == ours


def test_captions_are_in_the_paper(printed: dict[str, PrintedTable], text: str) -> None:
    joined = re.sub(r"\s+", " ", text)
    assert [table.caption for table in printed.values() if table.caption not in joined] == []


def test_gains_of_the_text_are_those_of_vgg8(printed: dict[str, PrintedTable]) -> None:
    gains = [cell.gain for cell in printed["table2"].cells if cell.gain is not None]
    assert gains == [float(number) for number in audit.TEXT["vgg8"].numbers] == [1.89, 3.2]


# --- references -------------------------------------------------------------------------------------------


def test_references_equal_the_anchors_of_the_spec() -> None:
    load = audit.load()
    deep, vgg = ({"teacher": t, "student": s} for t, s in (("resnet110", "resnet32"), ("vgg13", "vgg8")))
    methods = ("teacher", "baseline", "kd", "fitnet", "rkd", "ft", "crd")
    anchors = {
        "resnet32": (74.31, 71.14, 73.08, 71.06, 71.82, 72.37, 73.48),
        "vgg8": (74.64, 70.36, 72.98, 71.02, 71.48, 70.58, 73.94),
    }
    for pair in (deep, vgg):
        found = tuple(float(load.quoted("repdistiller", method=m, **pair)) for m in methods)
        assert found == anchors[pair["student"]]
    assert [float(load.quoted("mdistiller", **pair)) for pair in (deep, vgg)] == [74.11, 74.68]
    assert float(load.quoted("repdistiller", model="resnet20")) == 69.06
    assert [float(load.quoted("ema_module", method=m)) for m in ("baseline", "cbam")] == [77.26, 80.56]
    resnet50 = [float(load.quoted("pytorch_cifar100", model="resnet50", method=m)) for m in ("baseline", "se")]
    assert resnet50 == [77.39, 78.58]


def test_references_and_facts_say_where_they_come_from(reference_lists: dict[str, list[dict[str, Any]]]) -> None:
    entries = [*reference_lists["references"], *reference_lists["facts"]]
    assert [e["id"] for e in entries if not e.get("source")] == []
    assert len({e["id"] for e in entries}) == len(entries)
    assert [r["id"] for r in reference_lists["references"] if not r.get("name") or not r["values"]] == []
