"""Execute every exercise's solution and compare what it prints with what the exercise promises."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from efflib import notebooks

ROOT = Path(__file__).resolve().parents[1]
SOURCES = notebooks.sources()
BLOCK = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<kind>exercise|solution)\}[ ]*(?P<argument>\S*)[^\n]*\n"
    r"(?P<body>.*?)^(?P=fence)[ ]*$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    kind: str
    label: str
    hidden: bool
    body: str

    def code(self, language: str) -> list[str]:
        """Return the fenced blocks of one language, without their fences."""
        return re.findall(rf"^```{language}\n(.*?)^```[ ]*$", self.body, re.M | re.S)


def blocks(source: Path) -> list[Block]:
    """Find the exercise and solution directives in a notebook's markdown cells."""
    text = "\n\n".join(cell.source for cell in notebooks.read(source).cells if cell.cell_type == "markdown")
    return [_block(match) for match in BLOCK.finditer(text)]


def _block(match: re.Match[str]) -> Block:
    options = dict(re.findall(r"^:([\w-]+):[ ]*(.*)$", match["body"], re.M))
    label = options.get("label", "") if match["kind"] == "exercise" else match["argument"]
    return Block(match["kind"], label, "dropdown" in options.get("class", ""), match["body"])


def of_kind(source: Path, kind: str) -> dict[str, Block]:
    return {block.label: block for block in blocks(source) if block.kind == kind}


def solutions() -> list[tuple[Path, str]]:
    return [(source, label) for source in SOURCES for label in of_kind(source, "solution")]


@pytest.mark.parametrize("source", SOURCES, ids=notebooks.name_of)
def test_a_table_notebook_has_two_exercises_with_hidden_solutions(source):
    exercises, solved = of_kind(source, "exercise"), of_kind(source, "solution")
    if source.stem != "chapter":
        assert len(exercises) == 2, f"{notebooks.name_of(source)} has the exercises {sorted(exercises)}"
    assert exercises.keys() == solved.keys()
    assert all(block.hidden for block in solved.values()), "give every solution `:class: dropdown`"
    assert all(len(block.code("text")) == 1 for block in exercises.values()), "one ```text block each"
    assert all(len(block.code("python")) == 1 for block in solved.values()), "one ```python block each"


@pytest.mark.parametrize(("source", "label"), solutions(), ids=lambda value: getattr(value, "stem", value))
def test_solution_prints_what_the_exercise_promises(source, label, monkeypatch):
    [promised] = of_kind(source, "exercise")[label].code("text")
    [code] = of_kind(source, "solution")[label].code("python")
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"{notebooks.name_of(source)}:{label}", "exec"), {"__name__": "__main__"})
    assert printed.getvalue().strip() == promised.strip()


def test_labels_are_unique_in_the_whole_book():
    labels = [block.label for source in SOURCES for block in blocks(source) if block.kind == "exercise"]
    assert len(labels) == len(set(labels))
    assert all(labels)
