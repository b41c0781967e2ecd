"""What the tests of every paper's printed numbers, audit and grids start from.

A test module that uses these fixtures (all but `no_data`) says which paper it is about: `SLUG = "encodenet"`. Where the
files beside the checkout (supplied tables, the paper's text) have another name, it says that too:
`FILES = "safety-self-compression"`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from efflib import papers
from efflib.papers.table import PrintedTable, load_printed
from efflib.report.audit import Finding

SHARED = Path(__file__).resolve().parents[3] / "shared"
# What can be computed, or comes from elsewhere, has no place among printed numbers.
DERIVED = ("recomputed", "computed", "note", "source", "reference_", "check", "reported")
UNFAIR = re.compile(
    r"\b(fraud|cheat|fabricat|fake|liar|lie[sd]? about|dishonest|manipulat|sloppy|embarrass|ridiculous|absurd|"
    r"obviously)",
    re.I,
)


@pytest.fixture(scope="module")
def home(request: pytest.FixtureRequest) -> Path:
    """Folder of the paper in the package, with printed.yaml and references.yaml."""
    return Path(papers.__path__[0]) / request.module.SLUG


@pytest.fixture(scope="module")
def printed(home: Path) -> dict[str, PrintedTable]:
    """The printed tables by id."""
    return load_printed(home / "printed.yaml")


@pytest.fixture(scope="module")
def text(request: pytest.FixtureRequest) -> str:
    """The paper as text."""
    path = SHARED / "papers" / f"{_stem(request)}.txt"
    if not path.exists():
        pytest.skip("the paper's text is not beside this checkout")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def supplied(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The tables that came with the spec."""
    path = SHARED / "specs" / "tables" / f"{_stem(request)}.yaml"
    if not path.exists():
        pytest.skip("the supplied tables are not beside this checkout")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _stem(request: pytest.FixtureRequest) -> str:
    return getattr(request.module, "FILES", request.module.SLUG)


@pytest.fixture(scope="module")
def stored_derived(home: Path, request: pytest.FixtureRequest) -> Callable[..., list[str]]:
    """Function of further field names: the fields of printed.yaml that begin like those or like one of DERIVED."""
    below = (home / "printed.yaml").read_text(encoding="utf-8").split(f"paper: {request.module.SLUG}", 1)[1]

    def found(*more: str) -> list[str]:
        return re.findall(rf"\b((?:{'|'.join((*DERIVED, *more))})\w*)\s*:", below)

    return found


@pytest.fixture(scope="module")
def reference_lists(home: Path) -> dict[str, list[dict[str, Any]]]:
    """The lists of references.yaml: references, facts, and what else the paper quotes."""
    raw = yaml.safe_load((home / "references.yaml").read_text(encoding="utf-8"))
    return {name: entries for name, entries in raw.items() if isinstance(entries, list)}


@pytest.fixture(scope="module")
def findings(request: pytest.FixtureRequest) -> dict[int, Finding]:
    """The paper's audit by number of the finding."""
    made = import_module(f"efflib.papers.{request.module.SLUG}.audit").findings()
    return {int(finding.id.rpartition("-")[2]): finding for finding in made}


@pytest.fixture(scope="module")
def unfair(findings: dict[int, Finding]) -> list[str]:
    """Ids of findings that blame instead of telling what is printed."""
    return [finding.id for finding in findings.values() if UNFAIR.search(finding.title + finding.text)]


@pytest.fixture(scope="module")
def missing_from_text(text: str) -> Callable[[list[str]], list[str]]:
    """Function: which of the quotes are not in the paper, whatever its line breaks and stars."""

    def plain(words: str) -> str:
        return re.sub(r"[\s*]+", " ", words)

    whole = plain(text)
    return lambda quotes: [quote for quote in quotes if plain(quote) not in whole]


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither data nor a network connection: grids of trials are made without them."""
    monkeypatch.delenv("EFFLIB_DATA", raising=False)
    monkeypatch.setenv("EFFLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
