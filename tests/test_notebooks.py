"""The notebook runner: parameters, failures, stable bytes, skipping, pairs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from efflib import notebooks

ROOT = Path(__file__).resolve().parents[1]

SOURCE = """\
# %% [markdown]
# # A small notebook

# %% tags=["parameters"]
scale = "smoke"
seeds = [0, 1]
ratio = 0.1
models = ["resnet14"]
weight: float | None = None
chosen: list = None

# %%
from efflib.notebooks import check_parameters

check_parameters(globals())

# %%
import os
import sys

print(sum(range(5)), scale, seeds)
print("progress bar", file=sys.stderr)

# %%
print(os.getcwd() == {root!r}, sys.executable == {python!r})
"""


def write(folder: Path, text: str) -> Path:
    source = folder / "paper" / "table1.py"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text.replace("{root!r}", repr(str(ROOT))).replace("{python!r}", repr(sys.executable)))
    return source


@pytest.fixture
def source(tmp_path, monkeypatch):
    # Empty records, so that runs going on meanwhile in the checkout do not change what a result depends on.
    monkeypatch.setenv("EFFLIB_RESULTS", str(tmp_path / "results"))
    return write(tmp_path, SOURCE)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "table1.ipynb"


def printed(target: Path) -> str:
    cells = nbformat.read(target, as_version=4).cells
    return "".join(output["text"] for cell in cells for output in cell.get("outputs", []))


def test_parameters_are_read_from_their_cell(source):
    found = notebooks.declared(source)
    assert {name: parameter.default for name, parameter in found.items()} == {
        "scale": "smoke",
        "seeds": [0, 1],
        "ratio": 0.1,
        "models": ["resnet14"],
        "weight": None,
        "chosen": None,
    }


@pytest.mark.parametrize(
    "given",
    [
        {"scale": "tiny"},
        {"seeds": 3},
        {"seeds": [4]},
        {"ratio": 0},
        {"models": []},
        {"weight": 2},
        {"weight": None},
        {"chosen": None},
        {"chosen": ["vgg8"]},
    ],
)
def test_good_parameters_are_taken(source, given):
    assert notebooks.resolve(source, given).items() >= given.items()


@pytest.mark.parametrize(
    "given",
    [
        {"scale": 1},
        {"seeds": "3"},
        {"seeds": [1.5]},
        {"seeds": True},
        {"ratio": "0.1"},
        {"models": "vgg8"},
        {"weight": "x"},
        {"chosen": "vgg8"},
    ],
)
def test_ill_typed_parameters_are_refused(source, given):
    [name] = given
    with pytest.raises(notebooks.NotebookError, match=f"parameter '{name}' was given .* but it must be"):
        notebooks.resolve(source, given)


def test_unknown_parameter_is_refused_with_the_valid_ones(source, target):
    with pytest.raises(notebooks.NotebookError, match="no parameter 'sedes'; did you mean 'seeds'") as error:
        notebooks.execute(source, target, {"sedes": 7})
    assert "scale: str = 'smoke'" in str(error.value)
    assert not target.exists()


def test_parameters_cell_holds_literals_only(tmp_path):
    source = write(tmp_path, '# %% tags=["parameters"]\nseeds = list(range(3))\n')
    with pytest.raises(notebooks.NotebookError, match=r"seeds = list\(range\(3\)\).*move everything else"):
        notebooks.declared(source)


def test_injected_cell_is_checked_inside_the_notebook():
    cells = ["", "scale = 'smoke'\nseeds = [0]", "# Parameters\nscale = 'tiny'\nseeds = 2\n", "x = print()"]
    notebooks.check_parameters({"In": cells})
    notebooks.check_parameters({"In": cells[:2]})
    with pytest.raises(notebooks.NotebookError, match="no parameter 'sclae'; did you mean 'scale'"):
        notebooks.check_parameters({"In": [*cells, "# Parameters\nsclae = 'tiny'\n"]})
    with pytest.raises(notebooks.NotebookError, match="'seeds' was given 'two'"):
        notebooks.check_parameters({"In": [*cells, "# Parameters\nseeds = 'two'\n"]})


def test_execution_is_stable_skippable_and_clean(source, target):
    given = {"seeds": [0, 1, 2]}
    assert notebooks.execute(source, target, given)
    assert "10 smoke [0, 1, 2]" in printed(target)
    assert "True True" in printed(target), "cwd is the repository root and the kernel this interpreter"
    assert "progress bar" not in printed(target)
    run = json.loads(notebooks.sidecar_of(target).read_text())
    assert "progress bar" in run["warnings"]
    assert run["parameters"]["seeds"] == [0, 1, 2]
    assert run["seconds"] > 0 and run["cpu_seconds"] > 0
    assert run["device"].startswith("CPU")
    before, touched = target.read_bytes(), target.stat().st_mtime_ns
    assert not notebooks.execute(source, target, given)
    assert (target.read_bytes(), target.stat().st_mtime_ns) == (before, touched)
    assert sorted(path.name for path in target.parent.iterdir()) == ["table1.ipynb", "table1.run.json"]
    nbformat.validate(nbformat.read(target, as_version=4))

    assert notebooks.is_current(source, target, given)
    assert not notebooks.is_current(source, target, {})
    record = Path(os.environ["EFFLIB_RESULTS"]) / "cifar_rd" / "0123.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert not notebooks.is_current(source, target, given), "a new record makes the page stale"
    record.unlink()
    assert notebooks.is_current(source, target, given)
    source.write_text(source.read_text() + "\n# %%\nprint(1)\n")
    assert not notebooks.is_current(source, target, given), "a changed source makes the page stale"


def test_broken_result_is_not_current(source, target):
    target.parent.mkdir(parents=True)
    target.write_text('{"cells": [')
    assert not notebooks.is_current(source, target, {})


def test_default_parameters_inject_no_cell(source, target):
    notebooks.execute(source, target, {"scale": "smoke"})
    assert "# Parameters" not in target.read_text()
    assert notebooks.is_current(source, target, {})


def test_failing_notebook_keeps_the_old_result(tmp_path, source, target):
    target.parent.mkdir(parents=True)
    target.write_text("old")
    source.write_text(source.read_text() + '\n# %%\ndef deep():\n    raise ValueError("too small")\n\n\ndeep()\n')
    with pytest.raises(notebooks.NotebookError) as error:
        notebooks.execute(source, target, {})
    message = str(error.value)
    assert message.startswith("paper/table1: cell 5 failed with ValueError: too small")
    assert "in deep()" in message
    assert "\x1b" not in message
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["table1.ipynb"]


def test_hanging_notebook_is_stopped(tmp_path, target):
    source = write(tmp_path, "# %%\nimport time\n\ntime.sleep(60)\n")
    with pytest.raises(notebooks.NotebookError, match=r"paper/table1: stopped after 2 s"):
        notebooks.execute(source, target, {}, timeout=2)
    assert not target.exists()


def test_papermill_alone_also_refuses_a_misspelt_parameter(source, tmp_path):
    notebooks.sync([source])
    asked = [sys.executable, "-m", "papermill", str(notebooks.pair_of(source)), str(tmp_path / "out.ipynb")]
    run = subprocess.run([*asked, "-p", "sede", "7"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode != 0
    assert "no parameter 'sede'; did you mean 'seeds'" in run.stderr


def test_sync_is_deterministic_and_notices_differences(source):
    assert notebooks.out_of_step([source]) == [source]
    assert notebooks.sync([source]) == [notebooks.pair_of(source)]
    assert notebooks.sync([source]) == []
    assert notebooks.out_of_step([source]) == []
    pair = nbformat.read(notebooks.pair_of(source), as_version=4)
    nbformat.validate(pair)
    assert pair.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in pair.cells}) == len(pair.cells)
    source.write_text(source.read_text().replace("range(5)", "range(6)"))
    assert notebooks.out_of_step([source]) == [source]


def test_repeated_cells_get_different_ids(tmp_path):
    source = write(tmp_path, "# %%\nprint(1)\n\n# %%\nprint(1)\n")
    first, second = notebooks.read(source).cells
    assert first.id != second.id
    assert [first.id, second.id] == [cell.id for cell in notebooks.read(source).cells]


def test_unknown_notebook_and_scale_are_named():
    with pytest.raises(notebooks.NotebookError, match="There is no notebook 'bimask/tabel2'"):
        notebooks.source_of("bimask/tabel2")
    with pytest.raises(notebooks.NotebookError, match=r"unknown scale: 'smok'\. Did you mean 'smoke'"):
        notebooks.book_parameters(Path("x.py"), "smok")


def test_command_line_reports_errors_without_a_traceback(capsys):
    assert notebooks.main(["run", "nowhere/table9"]) == 1
    assert capsys.readouterr().err.startswith("error: There is no notebook 'nowhere/table9'")


def test_every_pair_in_the_repository_is_in_step():
    late = [notebooks.name_of(source) for source in notebooks.out_of_step()]
    assert late == [], "run: make sync"
    pairs = {path.with_suffix(".py") for path in notebooks.SOURCES.glob("*/*.ipynb")}
    assert pairs == set(notebooks.sources()), "every .ipynb needs its .py"


def test_there_are_notebooks():
    assert notebooks.sources()


def tables() -> list[Path]:
    return [source for source in notebooks.sources() if source.stem != "chapter"]


@pytest.mark.parametrize("source", tables(), ids=notebooks.name_of)
def test_table_notebook_has_the_common_parameters(source):
    assert {"scale", "seeds", "device", "engine", "recompute"} <= notebooks.declared(source).keys()


@pytest.mark.parametrize("source", [s for s in notebooks.sources() if notebooks.declared(s)], ids=notebooks.name_of)
def test_cell_after_the_parameters_refuses_a_misspelt_one(source, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = [cell for cell in notebooks.read(source).cells if cell.cell_type == "code"]
    [place] = [i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    history = ["", code[place].source, "# Parameters\nscael = 'tiny'\n"]
    namespace = {"__name__": "__main__", "In": history}
    for cell in history:
        exec(cell, namespace)
    with pytest.raises(Exception, match="scael"):
        exec(code[place + 1].source, namespace)


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="the limit holds for the machine of the CI")
@pytest.mark.parametrize("source", notebooks.sources(), ids=notebooks.name_of)
def test_a_smoke_notebook_asks_for_little_work(source):
    """Processor time, not the clock: that other programs run beside it is no fault of a notebook's.

    A page is meant to take a minute on two cores at work on two pages; a slower processor gets half as much again.
    """
    run = json.loads(notebooks.sidecar_of(notebooks.target_of(source)).read_text())
    assert run["parameters"].get("scale", "smoke") != "smoke" or run["cpu_seconds"] < 90
