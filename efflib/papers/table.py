"""One printed table of a paper: what was printed, which trials repeat it, what is claimed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efflib.report.measures import SELECTIONS
from efflib.report.verdict import Comparison
from efflib.scales import check_scale

if TYPE_CHECKING:
    from efflib.trials import Trial

# Fields of the supplied tables that the paper did not print; they have no place in printed.yaml.
_NOT_PRINTED = ("recomputed", "check", "note", "source", "reference_points")


@dataclass(frozen=True)
class PrintedCell:
    """One number as printed.

    Args:
        keys: what names the cell in a trial grid (model, dataset, method, masking_ratio ...).
        value: the printed number, in the table's unit; NaN in a table of words.
        gain: the number in parentheses, None where there is none.
        printed: the paper's own spelling of names and marks, by field name without ``printed_``.
        text: lists of words (qualitative tables).
    """

    keys: dict[str, Any]
    value: float
    gain: float | None = None
    printed: dict[str, Any] = field(default_factory=dict)
    text: dict[str, list[str]] = field(default_factory=dict)

    @property
    def millions(self) -> Decimal:
        """The parameters printed beside the number, in millions."""
        return read_millions(self.printed["parameters"])


def read_millions(printed: str) -> Decimal:
    """A printed count as a number of millions: 23.71 of "23.71 M"."""
    return Decimal(printed.removesuffix("M").strip())


@dataclass(frozen=True)
class PrintedTable:
    """One printed table: its cells, its printed averages, its metric and the paper's selection rule."""

    paper: str
    id: str
    caption: str
    metric: dict[str, str]
    runs: int | None
    selection: str | None
    cells: tuple[PrintedCell, ...]
    aggregates: tuple[dict[str, Any], ...] = ()

    @property
    def unit(self) -> str:
        """Unit of the numbers, e.g. ``percent``."""
        return self.metric["unit"]

    @property
    def numbers(self) -> tuple[PrintedCell, ...]:
        """The cells that hold a number."""
        return tuple(c for c in self.cells if not math.isnan(c.value))

    def cell(self, **keys: Any) -> PrintedCell:
        """The one printed cell with these keys.

        Raises:
            KeyError: none or several cells match; the message lists the nearest ones.
        """
        found = [c for c in self.cells if all(c.keys.get(k) == v for k, v in keys.items())]
        if len(found) != 1:
            names = sorted({f"{k}={c.keys.get(k)!r}" for c in self.cells for k in c.keys})
            raise KeyError(
                f"{len(found)} cells of {self.paper} {self.id} match {keys}; exactly one must. "
                f"Keys there: {', '.join(names)}."
            )
        return found[0]

    def baseline(self, keys: Mapping[str, Any]) -> PrintedCell | None:
        """The printed baseline that goes with a cell's keys; None if there is none, or it is one itself."""
        if keys.get("method") == "baseline":
            return None
        for cell in self.cells:
            rest = {k: v for k, v in cell.keys.items() if k != "method"}
            if cell.keys.get("method") == "baseline" and all(keys.get(k) == v for k, v in rest.items()):
                return cell
        return None


@dataclass(frozen=True)
class Claim:
    """A claim with the comparisons that decide it, fixed before results exist.

    Args:
        id: ``<slug>.<table>.<letter>``, e.g. ``bimask.table2.a``.
        text: the wording shown to the reader.
        owner: ``"paper"`` or ``"ours"``.
        scope: the cells it speaks about, in words.
        comparisons: results -> the comparisons, those without values included.
        minimum_scale: the smallest scale whose runs count (smoke never does).
    """

    id: str
    text: str
    owner: str
    scope: str
    comparisons: Callable[[Any], list[Comparison]]
    minimum_scale: str = "tiny"

    def __post_init__(self) -> None:
        check_scale(self.minimum_scale)
        if self.owner not in ("paper", "ours"):
            raise ValueError(f"Claim {self.id}: owner {self.owner!r}; use 'paper' or 'ours'.")


@dataclass(frozen=True)
class Table:
    """A table that can be repeated: printed cells, the grid of trials per scale, the claims.

    Args:
        paper: slug of the paper.
        id: name of the table and its notebook, e.g. ``table2``.
        title: one line.
        printed: what the paper printed.
        claims: the claims about this table.
        grid: ``grid(scale, seeds, choices)`` yields ``(cell, seed, trial)``; ``choices`` holds only what
            the caller chose, each as a tuple.
        choices: name of a choice -> its allowed values (an empty tuple allows any).
        notes: remarks for the reader, e.g. what a scale leaves out.
        across: keys of a cell that the printed table shows as columns; the others are its rows.
        page: name of the notebook that shows it, where that is not the id: a column of another unit stands on its
            table's page.
        measures: metrics of the records that a page shows. The first is the headline: gains are made of it, and
            printed cells without a stated selection are compared with it.
        view: (cell, metrics of its record) -> the metrics that the cell shows, where cells share a trial: the state
            after so many epochs, one class of several; None shows all of them.
    """

    paper: str
    id: str
    title: str
    printed: PrintedTable
    claims: tuple[Claim, ...]
    grid: Callable[[str, list[int], dict[str, tuple]], Iterable[tuple[dict[str, Any], int, Trial]]]
    choices: Mapping[str, tuple] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    across: tuple[str, ...] = ("dataset", "method")
    measures: tuple[str, ...] = SELECTIONS
    page: str = ""
    view: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.measures, tuple) or not self.measures:
            raise ValueError(
                f"{self.paper} {self.id}: measures={self.measures!r}; give a tuple of metric names, the headline first."
            )

    def entries(
        self, scale: str, seeds: int | Sequence[int], **choices: Any
    ) -> Iterator[tuple[dict[str, Any], int, Trial]]:
        """Cell, seed and trial of everything this table needs at a scale.

        Args:
            scale: smoke, tiny, small or paper.
            seeds: a list of seeds, or n for 0..n-1.
            **choices: the table's own choices, one value or a list (``models=["vgg8"]``).

        Raises:
            ValueError: unknown scale, choice or value, or no seeds; checked before anything is yielded.
        """
        checked = check_scale(scale), check_seeds(seeds), self._check_choices(choices)
        return iter(self.grid(*checked))

    def trials(self, scale: str, seeds: int | Sequence[int], **choices: Any) -> list[Trial]:
        """The distinct trials of the table, every parent before the trials that need it.

        Same arguments and errors as ``entries``; parents (a student's teacher, a fine-tune's baseline)
        are part of the list even where they are not a cell of the table.
        """
        from efflib.trials.trial import with_parents

        return with_parents(trial for _, _, trial in self.entries(scale, seeds, **choices))

    def _check_choices(self, choices: Mapping[str, Any]) -> dict[str, tuple]:
        where = f"{self.paper} {self.id}"
        checked = {}
        for name, given in choices.items():
            if name not in self.choices:
                allowed = ", ".join(self.choices) or "none"
                raise ValueError(f"Unknown choice {name!r} for {where}. Choices are: {allowed}.")
            if given is None:  # a notebook passes None for "the default of this scale"
                continue
            values = (given,) if isinstance(given, (str, int, float)) else tuple(given)
            checked[name] = _check_values(where, name, values, self.choices[name])
        return checked


# Letter, wording, owner, scope, comparisons and minimum scale of a claim, as in `Claim`.
ClaimSpec = tuple[str, str, str, str, Callable[[Any], list[Comparison]], str]


def claims_of(paper: str, table: str, *specs: ClaimSpec) -> tuple[Claim, ...]:
    """The claims about one table, with ids ``<paper>.<table>.<letter>``.

    Raises:
        ValueError: two claims with one letter, or an owner or a scale that does not exist.
    """
    letters = [letter for letter, *_ in specs]
    if len(set(letters)) < len(letters):
        raise ValueError(f"{paper} {table}: claims need a letter each; got {', '.join(letters)}.")
    return tuple(
        Claim(f"{paper}.{table}.{letter}", text, owner, scope, comparisons, minimum)
        for letter, text, owner, scope, comparisons, minimum in specs
    )


def check_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Seeds as a list: n means 0..n-1.

    Raises:
        ValueError: none, negative, repeated or not whole numbers.
    """
    advice = "Give a positive integer n (seeds 0..n-1) or a list of distinct non-negative integers."
    if isinstance(seeds, (bool, str, float)) or seeds is None:
        raise ValueError(f"seeds={seeds!r}. {advice}")
    listed = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        raise ValueError(f"seeds={seeds!r}. {advice}")
    return listed


def load_printed(path: str | Path) -> dict[str, PrintedTable]:
    """Read a ``printed.yaml``: table id -> PrintedTable.

    Raises:
        ValueError: a field that the paper did not print (a recomputed number, a note, a source).
    """
    raw = _read_yaml(path)
    tables = [_printed_table(raw["paper"], entry) for entry in raw["tables"]]
    return {table.id: table for table in tables}


def load_paper(path: str | Path) -> dict[str, Any]:
    """Slug, title, authors, year and reference of a ``printed.yaml`` (everything but its tables)."""
    return {key: value for key, value in _read_yaml(path).items() if key != "tables"}


def _read_yaml(path: str | Path) -> dict[str, Any]:
    import yaml

    raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    missing = {"paper", "tables"} - set(raw or {})
    if missing:
        raise ValueError(f"{Path(path).name} lacks {', '.join(sorted(missing))} at its top level.")
    return raw


def _printed_table(paper: str, raw: Mapping[str, Any]) -> PrintedTable:
    where = f"{paper} {raw.get('id')}"
    _refuse_derived(where, raw)
    cells = tuple(_printed_cell(where, cell) for cell in raw["cells"])
    for aggregate in raw.get("aggregates", ()):
        _refuse_derived(where, aggregate)
    return PrintedTable(
        paper,
        raw["id"],
        raw["caption"],
        dict(raw["metric"]),
        raw.get("runs"),
        raw.get("selection"),
        cells,
        tuple(dict(a) for a in raw.get("aggregates", ())),
    )


def _printed_cell(where: str, raw: Mapping[str, Any]) -> PrintedCell:
    _refuse_derived(where, raw)
    keys, printed, text = {}, {}, {}
    for name, value in raw.items():
        if name in ("value", "printed_gain"):
            continue
        if name.startswith("printed_"):
            printed[name.removeprefix("printed_")] = value
        elif isinstance(value, list):
            text[name] = value
        else:
            keys[name] = value
    return PrintedCell(keys, float(raw.get("value", math.nan)), raw.get("printed_gain"), printed, text)


def _refuse_derived(where: str, raw: Mapping[str, Any]) -> None:
    bad = [k for k in raw if k.startswith(_NOT_PRINTED)]
    if bad:
        raise ValueError(
            f"{where}: {', '.join(bad)} was not printed by the paper. printed.yaml holds only printed "
            "numbers; compute findings in the paper's audit and quote other sources in references.yaml."
        )


def _check_values(where: str, name: str, values: tuple, allowed: tuple) -> tuple:
    unknown = [v for v in values if allowed and v not in allowed]
    if unknown or not values:
        listed = ", ".join(map(str, allowed))
        raise ValueError(f"{where}: {name}={list(values)}; choose at least one of: {listed}.")
    return values
