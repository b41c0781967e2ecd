"""printed.yaml holds what the thesis printed, cell by cell; references.yaml what others published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from efflib.papers.diswot import audit
from efflib.papers.diswot.space import MEMBERS, ROLES, STUDENTS, TEACHER
from efflib.papers.table import PrintedTable, load_paper, load_printed

HOME = Path(audit.__file__).parents[1]
PATH = HOME / "printed.yaml"
SHARED = Path(__file__).resolve().parents[3] / "shared"
SUPPLIED = SHARED / "specs" / "tables" / "diswot-lrp.yaml"
PAPER = SHARED / "papers" / "diswot-lrp-thesis.txt"
METHODS = {
    "baseline (CE only)": "baseline", "standard KD": "kd", "high-order KD (DisWOT)": "gradcam_l2",
    "gradcam+l2": "gradcam_l2", "lrp+l2": "lrp_l2", "lrp+cosine": "lrp_cosine",
}  # fmt: skip
COLUMNS = re.compile(r"\.? (Column: .*|Validation loss)\.$")


@pytest.fixture(scope="module")
def printed() -> dict[str, PrintedTable]:
    return load_printed(PATH)


@pytest.fixture(scope="module")
def text() -> str:
    if not PAPER.exists():
        pytest.skip("the thesis's text is not beside this checkout")
    return PAPER.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def supplied() -> dict[str, Any]:
    if not SUPPLIED.exists():
        pytest.skip("the supplied tables are not beside this checkout")
    raw = yaml.safe_load(SUPPLIED.read_text(encoding="utf-8"))
    return {entry["id"].replace(".", "_"): entry["cells"] for entry in (*raw["tables"], *raw["figures_with_numbers"])}


def test_tables_and_counts(printed: dict[str, PrintedTable]) -> None:
    assert load_paper(PATH)["paper"] == "diswot"
    found = {name: (table.unit, len(table.numbers)) for name, table in printed.items() if table.unit != "none"}
    assert found == {
        "table3_3": ("percent", 3), "table3_3_train": ("percent", 3), "table3_3_parameters": ("count", 3),
        "table3_3_score": ("score", 3), "table3_4": ("fraction", 3), "table3_4_train": ("fraction", 3),
        "table3_5": ("percent", 5), "table3_5_train": ("percent", 5), "table3_5_parameters": ("count", 5),
        "table3_6": ("percent", 2), "table3_6_parameters": ("count", 2), "table3_6_flops": ("count", 2),
        "table3_6_macs": ("count", 2), "table3_6_size": ("megabytes", 2), "table3_7": ("fraction", 24),
        "table3_8": ("percent", 3), "fig3_6": ("percent", 3), "fig3_6_loss": ("nats", 4), "fig3_7": ("percent", 6),
    }  # fmt: skip
    words = {name: len(table.cells) for name, table in printed.items() if table.unit == "none"}
    assert words == {"table1_2": 11, "table2_1": 6, "table2_2": 3, "table3_2": 2, "fig3_8": 3, "fig3_9": 3}
    assert not any(printed[name].numbers for name in words)


def test_cells_are_distinct(printed: dict[str, PrintedTable]) -> None:
    for table in printed.values():
        keys = [(tuple(sorted(c.keys.items())), c.printed.get("teacher")) for c in table.cells]
        assert len(set(keys)) == len(keys), table.id


def test_further_columns_have_the_rows_of_their_table(printed: dict[str, PrintedTable]) -> None:
    for name, table in printed.items():
        base = printed.get(name.rpartition("_")[0])
        if base is not None and name != "fig3_6_loss":
            assert [c.keys for c in table.cells] == [c.keys for c in base.cells], name
            names = ("role", "model", "method", "mark")
            assert [{n: c.printed.get(n) for n in names} for c in table.cells] == [
                {n: c.printed.get(n) for n in names} for c in base.cells
            ]


def test_keys_are_those_of_a_trial_grid(printed: dict[str, PrintedTable]) -> None:
    for name in ("table3_3", "table3_4", "table3_5", "fig3_6", "fig3_7"):
        assert {tuple(c.keys) for c in printed[name].cells} == {("student", "method", "epochs")}
        assert {c.keys["student"] for c in printed[name].cells} <= set(STUDENTS)
    assert {tuple(c.keys) for c in printed["table3_6"].cells} == {("model", "method", "epochs")}
    assert [c.keys["model"] for c in printed["table3_6"].cells] == [TEACHER.name, ROLES["Best"]]
    methods = {c.keys["method"] for t in printed.values() for c in t.cells if "method" in c.keys and t.id != "table3_8"}
    assert methods == {"baseline", "kd", "gradcam_l2", "lrp_l2", "lrp_cosine"}


def test_names_of_students_are_those_of_the_space(printed: dict[str, PrintedTable]) -> None:
    assert {c.printed["role"]: c.keys["student"] for c in printed["table3_3"].cells} == ROLES
    named = [c.keys[role] for t in printed.values() for c in t.cells for role in ("student", "model") if role in c.keys]
    assert set(named) - set(MEMBERS) == {"tiny_cnn", "mobilenet"}  # the peers of table 3.8


def test_the_thesis_states_neither_selection_nor_runs(printed: dict[str, PrintedTable]) -> None:
    assert {(table.selection, table.runs) for table in printed.values()} == {(None, None)}


def test_nothing_derived_is_stored() -> None:
    below = PATH.read_text(encoding="utf-8").split("paper: diswot", 1)[1]  # below the heading comment
    derived = r"\b(recomputed|computed|note|source|reference_|check|reported|gain|correct)\w*\s*:"
    assert re.findall(derived, below) == []


# --- against the supplied tables --------------------------------------------------------------------------


def test_accuracies_equal_the_supplied_ones(printed: dict[str, PrintedTable], supplied: dict[str, Any]) -> None:
    columns = {
        "test_accuracy": "table3_3", "train_accuracy": "table3_3_train", "parameters": "table3_3_parameters",
        "diswot_score": "table3_3_score",
    }  # fmt: skip
    for raw in supplied["table3_3"]:
        table = printed[columns[raw["setting"]]]
        assert table.cell(student=ROLES[raw["student"].capitalize()]).value == raw["value"]
    for raw in supplied["table3_4"]:
        table = printed["table3_4" if raw["setting"] == "validation" else "table3_4_train"]
        assert table.cell(method=METHODS[raw["method"]], epochs=raw["epochs"]).value == raw["value"]
    for raw in supplied["table3_5"]:
        keys = {"method": METHODS[raw["method"]], "epochs": raw["epochs"]}
        assert printed["table3_5" if raw["setting"] == "test" else "table3_5_train"].cell(**keys).value == raw["value"]
        assert printed["table3_5_parameters"].cell(**keys).value == raw["parameters"]


def test_costs_and_reports_equal_the_supplied_ones(printed: dict[str, PrintedTable], supplied: dict[str, Any]) -> None:
    columns = {"test_accuracy": "", "parameters": "_parameters", "flops": "_flops", "macs": "_macs", "size_mb": "_size"}
    models = {"teacher": TEACHER.name, "optimal student": ROLES["Best"], "student": ROLES["Best"]}
    for raw in supplied["table3_6"]:
        assert printed["table3_6" + columns[raw["setting"]]].cell(model=models[raw["model"]]).value == raw["value"]
    for raw in supplied["table3_7"]:
        keys = {"class": raw["class"], "measure": raw["setting"], "model": models[raw["model"].split()[0]]}
        assert printed["table3_7"].cell(**keys).value == raw["value"]
    assert len(supplied["table3_7"]) == len(printed["table3_7"].cells)
    for raw, cell in zip(supplied["table3_8"], printed["table3_8"].cells, strict=True):
        assert cell.value == raw["value"]
        millions = raw["params_millions"]
        assert cell.printed["parameters"] == ("Not Reported" if millions is None else f"{millions}M")


def test_figures_equal_the_supplied_ones(printed: dict[str, PrintedTable], supplied: dict[str, Any]) -> None:
    for raw in supplied["fig3_6"]:
        method = METHODS[raw["method"]]
        if raw["setting"] == "validation_accuracy":
            assert printed["fig3_6"].cell(method=method).value == raw["value"]
        else:
            own = [c.value for c in printed["fig3_6_loss"].cells if c.keys["method"] == method]
            assert own == (raw["value"] if isinstance(raw["value"], list) else [raw["value"]])
    for raw in supplied["fig3_7"]:
        assert printed["fig3_7"].cell(method=METHODS[raw["method"]], epochs=raw["epoch"]).value == raw["value"]


def test_words_equal_the_supplied_ones(printed: dict[str, PrintedTable], supplied: dict[str, Any]) -> None:
    for name, keys in (("table2_1", ("gradcam_l2", "lrp_cosine")), ("table2_2", ("accuracy", "stability", "remarks"))):
        ours = {word for cell in printed[name].cells for key in keys for word in cell.text[key]}
        assert ours == {raw["value"] for raw in supplied[name]}
    assert [c.keys["ref"] for c in printed["table1_2"].cells] == [raw["ref"] for raw in supplied["table1_2"]]


# --- against the thesis -----------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Without typesetting, kinds of quotation marks and white space."""
    text = text.translate(str.maketrans("“”’", '""\''))
    return re.sub(r"</?b>|[\s$*\\]", "", text)


def rows_of(text: str, header: str) -> list[list[str]]:
    """Cells of the rows below a header line, up to the caption; a table may go on after a page break."""
    lines = text[text.index(header) :].split("\nTab", 1)[0].splitlines()[1:]
    return [[plain(cell) for cell in line.split("\t")] for line in lines if "\t" in line]


def test_rows_of_table33_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    tables = [printed[f"table3_3{column}"] for column in ("", "_train", "_parameters", "_score")]
    ours = [
        [c.printed["role"], *(shown(t.cells[i].value, t.unit) for t in tables), plain(c.printed["observation"])]
        for i, c in enumerate(tables[0].cells)
    ]
    assert rows_of(text, "Model Quality\tTest Accuracy (%)") == ours


def test_rows_of_table34_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    ours = [
        [plain(c.printed["method"]), f"{train.value:.4f}", f"{c.value:.4f}", plain(c.printed["observation"])]
        for train, c in zip(printed["table3_4_train"].cells, printed["table3_4"].cells)
    ]
    assert rows_of(text, "Model\tTrain Accuracy\tValidation Accuracy") == ours


def test_rows_of_table35_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    tables = [printed[f"table3_5{column}"] for column in ("", "_train", "_parameters")]
    ours = [
        [plain(c.printed["model"]), *(shown(t.cells[i].value, t.unit) for t in tables), str(c.keys["epochs"])]
        for i, c in enumerate(tables[0].cells)
    ]
    assert rows_of(text, "Model\tTest Accuracy (%)\tTrain Accuracy (%)") == ours
    assert "<b>95.35</b>" in text
    assert [c.keys["epochs"] for c in tables[0].cells if c.printed.get("mark") == "bold"] == [50]


def test_rows_of_table36_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    tables = [printed[f"table3_6{column}"] for column in ("", "_parameters", "_flops", "_macs", "_size")]
    ours = [
        [plain(c.printed["model"]), *(shown(t.cells[i].value, t.unit) for t in tables)]
        for i, c in enumerate(tables[0].cells)
    ]
    assert rows_of(text, "Model\tTest Accuracy (%)\tParameters (#)\tFLOPs") == ours


def test_rows_of_table37_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    found: dict[str, list[list[str]]] = {}
    for row in rows_of(text, "Teacher Model: Classification Report"):
        title = row[0].partition(":")[0]
        if row[0].endswith("Report"):
            found[title] = []
        elif row[0] != "Class":
            found.setdefault("TeacherModel", []).append(row)
            if "StudentModel" in found:
                found["StudentModel"].append(found["TeacherModel"].pop())
    ours: dict[str, list[list[str]]] = {}
    for cell in printed["table3_7"].cells:
        rows = ours.setdefault(plain(cell.printed["model"]), [])
        if cell.keys["measure"] == "precision":
            rows.append([plain(cell.printed["class"])])
        rows[-1].append(f"{cell.value:.2f}")
    assert found == ours


def test_rows_of_table38_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    names = ("study", "student", "method")
    ours = [
        [*(plain(c.printed[name]) for name in names), f"{c.value:g}%", plain(c.printed["parameters"])]
        for c in printed["table3_8"].cells
    ]
    assert rows_of(text, "Study\tStudent Model\tKD Method\tAccuracy") == ours


def test_rows_of_table12_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    names = ("teacher", "student", "dataset", "method", "performance")
    ours = [
        [plain(c.keys["study"]), *(plain(c.printed[name]) for name in names), f"[{c.keys['ref']}]"]
        for c in printed["table1_2"].cells
    ]
    assert rows_of(text, "Study\tTeacher Model\tStudent Model") == ours


def test_rows_of_the_tables_of_words_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    first = [
        [plain(c.printed["criterion"]), *(plain(c.text[m][0]) for m in ("gradcam_l2", "lrp_cosine"))]
        for c in printed["table2_1"].cells
    ]
    assert rows_of(text, "Criteria\tGrad-CAM + L2\tLRP + Cosine") == first
    second = [
        [plain(c.printed["method"]), *(plain(c.text[k][0]) for k in ("accuracy", "stability", "remarks"))]
        for c in printed["table2_2"].cells
    ]
    assert rows_of(text, "Setup\tAccuracy\tStability\tRemarks") == second
    names = ("model", "learning_rate", "epochs", "optimiser", "batch_size")
    third = [[plain(c.printed[name]) for name in names] for c in printed["table3_2"].cells]
    assert rows_of(text, "Model\tLearning Rate\tNumber of Epochs") == third


def shown(value: float, unit: str) -> str:
    """A number as the thesis sets it."""
    return f"{value:,.0f}" if unit in ("count", "megabytes") else f"{value:.2f}"


def test_captions_are_in_the_thesis(printed: dict[str, PrintedTable], text: str) -> None:
    joined = plain(text)
    for name, table in printed.items():
        caption = COLUMNS.sub("", table.caption)
        assert plain(caption) in joined, name
        assert (caption != table.caption) == (name.count("_") == 2), name


def test_quoted_sentences_are_in_the_thesis(text: str) -> None:
    whole = plain(text)
    assert [name for name, sentence in audit.TEXT.items() if plain(sentence.words) not in whole] == []
    assert [name for name, equation in audit.EQUATIONS.items() if plain(equation) not in whole] == []


def test_the_list_of_references_has_neither_iqbal_nor_gradcam(text: str) -> None:
    listed = dict(re.findall(r"^- \[(\d+)\] (.*)$", text, re.M))
    assert list(map(int, listed)) == list(range(1, 87))
    assert not [entry for entry in listed.values() if "Iqbal" in entry or "Selvaraju" in entry]
    assert "Hinton" in listed["1"]


def test_title_and_authors_are_in_the_thesis(text: str) -> None:
    paper = load_paper(PATH)
    assert plain(paper["title"]).lower() in plain(text).lower()
    for author in paper["authors"]:
        assert all(name.lower() in text.lower() for name in author.split())


# --- references -------------------------------------------------------------------------------------------


def test_facts_say_where_they_come_from() -> None:
    raw = yaml.safe_load((HOME / "references.yaml").read_text(encoding="utf-8"))
    assert [entry["id"] for entry in raw["facts"] if not entry.get("source") or not entry.get("text")] == []
    assert len({entry["id"] for entry in raw["facts"]}) == len(raw["facts"])


def test_the_split_is_that_of_the_supplied_file() -> None:
    if not SUPPLIED.exists():
        pytest.skip("the supplied tables are not beside this checkout")
    true = yaml.safe_load(SUPPLIED.read_text(encoding="utf-8"))["true_dataset"]
    fact = audit.load().facts["kaggle_split"]
    for part in ("train", "test"):
        assert {**fact[part], "total": sum(fact[part].values())} == true[part]
