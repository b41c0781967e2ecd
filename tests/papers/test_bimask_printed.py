"""printed.yaml holds what the paper printed, cell by cell, nothing else; claims list their comparisons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from efflib.papers.bimask import claims
from efflib.papers.table import Claim, PrintedTable, Table, check_seeds, load_paper, load_printed
from efflib.report.verdict import SUPPORTED, claim_verdict

SLUG = "bimask"
NAMES = {
    "wide-resnet-50": "wrn_52_2",
    "fitnets": "fitnet",
    "self-taught": "self_taught",
    "lcdnet-cl": "lcdnet_cl",
}


def test_tables_and_counts(home: Path, printed: dict[str, PrintedTable]) -> None:
    assert load_paper(home / "printed.yaml")["paper"] == "bimask"
    counts = {name: len(table.numbers) for name, table in printed.items()}
    # table 5: 2 student baselines, 4 teachers, 20 students
    assert counts == {
        "table1": 0,
        "table2": 32,
        "table3": 32,
        "table4": 28,
        "table5": 26,
        "table6": 10,
        "table7": 14,
    }
    assert {t.selection for t in printed.values() if t.numbers} == {"test_best"}
    assert {t.runs for t in printed.values() if t.numbers} == {5}


def test_cells_are_distinct_and_plausible(printed: dict[str, PrintedTable]) -> None:
    for table in printed.values():
        keys = [tuple(sorted(c.keys.items())) for c in table.cells]
        assert len(set(keys)) == len(keys)
        assert all(50 < c.value < 100 for c in table.numbers)
        unpaired = [c.keys for c in table.numbers if (c.gain is None) != (table.baseline(c.keys) is None)]
        assert unpaired == []


def test_nothing_derived_is_stored(stored_derived: Callable[..., list[str]]) -> None:
    assert stored_derived() == []


@pytest.mark.parametrize("field", ["recomputed_gain", "note", "source", "check_gain"])
def test_derived_fields_are_refused(tmp_path: Path, field: str) -> None:
    cell = {"model": "a", "dataset": "d", "method": "x", "value": 1.0, field: 2.0}
    table = {"id": "t", "caption": "c", "metric": {"name": "n", "unit": "percent"}, "cells": [cell]}
    path = tmp_path / "printed.yaml"
    path.write_text(yaml.safe_dump({"paper": "p", "tables": [table]}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{field} was not printed"):
        load_printed(path)


def test_a_yaml_without_tables_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "printed.yaml"
    path.write_text("paper: p\n", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks tables"):
        load_printed(path)


def test_cell_lookup_names_what_is_there(printed: dict[str, PrintedTable]) -> None:
    assert printed["table7"].cell(dataset="cifar10", masking_ratio=0.1).value == 92.52
    with pytest.raises(KeyError, match=r"0 cells.*exactly one must.*model='vgg8'"):
        printed["table7"].cell(model="vgg9")


def supplied_cells(supplied: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Table id, keys in our names, raw cell of the supplied tables."""
    for table in supplied["tables"]:
        for raw in table["cells"]:
            if "value" in raw:
                keys = {k: NAMES.get(raw[k], raw[k]) for k in ("model", "teacher", "student", "dataset") if k in raw}
                keys["method"] = NAMES.get(raw["method"], raw["method"])
                if raw.get("setting") == "masked-only":
                    keys["method"] = "masked_only"
                if table["id"] == "table5":
                    keys["setting"] = raw["setting"].replace("-", "_")
                if table["id"] in ("table6", "table7"):
                    name = {"table6": "conv_index", "table7": "masking_ratio"}[table["id"]]
                    keys[name] = raw[name]
                yield table["id"], keys, raw


def test_numbers_equal_the_supplied_tables(printed: dict[str, PrintedTable], supplied: dict[str, Any]) -> None:
    seen = 0
    for name, keys, raw in supplied_cells(supplied):
        table = printed[name]
        cell = table.cell(**keys)
        assert (cell.value, cell.gain) == (raw["value"], raw.get("reported_gain")), (name, keys)
        base = table.baseline(cell.keys) or cell
        assert base.value == raw["baseline"], (name, keys)
        if "teacher_accuracy" in raw:
            where = {"dataset": raw["dataset"], "method": "teacher", "setting": keys["setting"]}
            assert table.cell(**where).value == raw["teacher_accuracy"]
        seen += 1
    others = [c for t in printed.values() for c in t.numbers if c.keys["method"] in ("baseline", "teacher")]
    baselines_supplied = sum(raw["method"] == "baseline" for _, _, raw in supplied_cells(supplied))
    assert seen - baselines_supplied + len(others) == sum(len(t.numbers) for t in printed.values())


def test_every_number_is_in_the_paper(printed: dict[str, PrintedTable], text: str) -> None:
    parts = re.split(r"^TABLE (\d)\.", text, flags=re.M)
    for number, body in zip(parts[1::2], parts[2::2]):
        table = printed[f"table{number}"]
        found = body.split("\n\n")  # the caption, then the rows
        rows = next((part for part in found if "\t" in part), "")
        for cell in table.numbers:
            gain = "" if cell.gain is None else f" ({cell.gain:.2f})"
            shown = [f"{cell.value:.2f}{gain}", f"{cell.value:g}{gain}"]
            assert any(each in rows for each in shown), (table.id, cell)
        for aggregate in table.aggregates:
            assert f"{aggregate['printed']:.2f}" in rows


def test_underlined_values_are_as_printed(printed: dict[str, PrintedTable], text: str) -> None:
    underlined = re.findall(r"<u>([\d.]+)", text)
    marked = [c.value for c in printed["table4"].cells if c.printed.get("mark") == "underlined"]
    assert [f"{value:.2f}" for value in marked] == underlined


# --- claims -----------------------------------------------------------------------------------------------


class World:
    """Results made by a rule: cell -> accuracy, with a little noise over the seeds."""

    scale = "paper"

    def __init__(self, value: Any, seeds: int = 5) -> None:
        self.value, self.seeds = value, seeds

    def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
        assert metric == "last"  # the headline metric of every claim
        noise = 0.001 * len(cell["method"])
        return {s: self.value(cell) + noise * (s - self.seeds // 2) for s in range(self.seeds)}


def as_printed(table: PrintedTable) -> World:
    """A world in which every cell has exactly its printed value; controls do as well as what they control."""
    methods = {cell.keys["method"] for cell in table.numbers}

    def value(cell: dict[str, Any]) -> float:
        method = cell["method"].removesuffix(claims.EQUAL)
        method = method if method in methods else "baseline"
        keys = {k: v for k, v in cell.items() if method != "baseline" or k in ("model", "student", "dataset")}
        return table.cell(**{**keys, "method": method}).value

    return World(value)


EXPECTED = {
    "table2": {"a": 16, "b": 2, "c": 14, "d": 7, "e": 16, "f": 16},
    "table3": {"a": 16, "b": 4, "c": 16},
    "table4": {"a": 18, "b": 5, "c": 2, "d": 4, "e": 18},
    "table5": {"a": 20, "b": 10, "c": 4, "d": 16, "e": 1, "f": 2},
    "table6": {"a": 6, "b": 8},
    "table7": {"a": 10, "b": 2, "c": 6, "d": 12},
}
ALL = {claim.id: claim for table in claims.CLAIMS.values() for claim in table}


def test_every_claim_lists_every_comparison() -> None:
    empty = World(lambda cell: 0.0, seeds=0)
    counts = {name: len(claim.comparisons(empty)) for name, claim in ALL.items()}
    assert counts == {f"bimask.{t}.{x}": n for t, letters in EXPECTED.items() for x, n in letters.items()}
    assert {c.verdict for claim in ALL.values() for c in claim.comparisons(empty)} == {"not run"}


def test_claims_say_whose_they_are_and_quote_the_spec() -> None:
    ours = {name for name, claim in ALL.items() if claim.owner == "ours"}
    assert ours == {
        "bimask.table2.e", "bimask.table2.f", "bimask.table3.c", "bimask.table4.e", "bimask.table5.e",
        "bimask.table5.f", "bimask.table7.d",
    }  # fmt: skip
    letters = {f"T{name[len('bimask.table')]}{name[-1]}": claim for name, claim in ALL.items()}
    assert [n for n, claim in letters.items() if not claim.comparisons.__doc__.startswith(n)] == []


@pytest.mark.parametrize("name", ALL)
def test_printed_numbers_support_the_claims(printed: dict[str, PrintedTable], name: str) -> None:
    world = as_printed(printed[name.split(".")[1]])
    claim = ALL[name]
    # The paper printed no controls. Where controls equal the baseline, our claims hold too, except at the two
    # ratios with a negative printed CIFAR-100 gain.
    verdict = claim_verdict(claim.comparisons(world), "paper", claim.minimum_scale)
    wrong = {"bimask.table7.d": 2}
    assert (verdict.disagree, verdict.ran) == (wrong.get(name, 0), verdict.expected)
    assert name in wrong or verdict.verdict == SUPPORTED


@pytest.mark.parametrize("name", ALL)
def test_an_opposite_world_contradicts_the_claims(printed: dict[str, PrintedTable], name: str) -> None:
    table = printed[name.split(".")[1]]
    straight = as_printed(table)

    def mirrored(cell: dict[str, Any]) -> float:  # gains change sign
        base = {**cell, "method": "baseline"}
        if cell["method"] == "teacher":
            base = {**cell, "setting": "baseline_teacher"}
        return 2 * straight.value(base) - straight.value(cell)

    spread_out = World(lambda cell: 2.0 * claims.MODELS.index(cell["model"]) * (cell["method"] == "bimask"))
    world = spread_out if name == "bimask.table2.c" else World(mirrored)  # mirrored gains stay equal
    verdict = claim_verdict(ALL[name].comparisons(world), "paper", ALL[name].minimum_scale)
    assert verdict.verdict == "contradicted"


def test_pooled_claims_wait_for_all_models() -> None:
    class OneModel(World):
        def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
            return super().samples(metric, **cell) if cell["model"] == "resnet14" else {}

    world = OneModel(lambda cell: float(cell["method"] == "bimask"))
    got = claim_verdict(ALL["bimask.table2.b"].comparisons(world), "small", "small")
    assert (got.verdict, got.detail) == ("not run", "0 of 2 run")
    one = claim_verdict(ALL["bimask.table2.a"].comparisons(world), "tiny")
    assert (one.verdict, one.ran, one.agree) == ("undetermined", 2, 2)


def test_the_teachers_effect_is_pooled_by_seed() -> None:
    """Ten pairs with effects of their own: the mean of a seed is one sample, and all ten pairs must be there."""

    class Pairs:
        def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
            if cell["method"] == self.missing:
                return {}
            pair = claims.DISTILLERS.index(cell["method"]) + 5 * claims.DATASETS.index(cell["dataset"])
            return {s: (0.1 * pair + s) * (cell["setting"] == "bimask_teacher") for s in range(4)}

        missing = ""

    world = Pairs()
    [pooled] = ALL["bimask.table5.e"].comparisons(world)
    assert pooled.samples == pytest.approx({s: 0.45 + s for s in range(4)})
    assert len(pooled.samples) == 4  # not forty
    world.missing = "sckd"
    [pooled] = ALL["bimask.table5.e"].comparisons(world)
    assert (pooled.verdict, pooled.found, pooled.expected) == ("not run", 8, 10)


def test_how_small_the_teachers_effect_may_be(printed: dict[str, PrintedTable]) -> None:
    effect = ALL["bimask.table5.c"]
    for size, verdict in ((0.0, "contradicted"), (0.06, "supported"), (0.14, "supported"), (0.2, "contradicted")):
        world = World(lambda cell, size=size: 70 + size * (cell["setting"] == "bimask_teacher"))
        assert claim_verdict(effect.comparisons(world), "small", effect.minimum_scale).verdict == verdict
    assert claim_verdict(effect.comparisons(as_printed(printed["table5"])), "tiny", "small").verdict == "not run"


def test_who_is_ahead_in_the_fourth_column(printed: dict[str, PrintedTable]) -> None:
    """Claim T4b names who is ahead and who is behind; another order contradicts it."""
    fourth, straight = ALL["bimask.table4.b"], as_printed(printed["table4"])
    swapped = World(
        lambda cell: straight.value({**cell, "method": {"lerac": "cbs"}.get(cell["method"], cell["method"])})
    )
    got = claim_verdict(fourth.comparisons(swapped), "tiny")
    assert (got.verdict, got.disagree) == ("contradicted", 1)


def test_claim_refuses_unknown_owner() -> None:
    with pytest.raises(ValueError, match="'paper' or 'ours'"):
        Claim("x.y.a", "t", "theirs", "s", lambda results: [])


# --- tables that can be repeated --------------------------------------------------------------------------


class FakeTrial:
    def __init__(self, identity: str, **parents: FakeTrial) -> None:
        self.identity, self.parents = identity, parents


def fake_table(printed: PrintedTable) -> Table:
    def grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Iterator[tuple]:
        for seed in seeds:
            base = FakeTrial(f"base{seed}")
            for method in choices.get("methods", ("bimask", "random")):
                yield {"method": method}, seed, FakeTrial(f"{method}{seed}", baseline=base)
            yield {"method": "baseline"}, seed, base

    allowed = {"methods": ("bimask", "random"), "ratios": ()}
    return Table("bimask", "table2", "t", printed, (), grid, allowed)


def test_trials_are_unique_and_parents_come_first(printed: dict[str, PrintedTable]) -> None:
    table = fake_table(printed["table2"])
    assert [t.identity for t in table.trials("tiny", 2)] == [
        "base0", "bimask0", "random0", "base1", "bimask1", "random1",
    ]  # fmt: skip
    assert [(c["method"], s) for c, s, _ in table.entries("tiny", [7], methods="random")] == [
        ("random", 7), ("baseline", 7),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "seeds", "choices", "message"),
    [
        ("huge", 1, {}, "unknown scale: 'huge'"),
        ("tiny", 0, {}, "seeds=0"),
        ("tiny", [], {}, "distinct non-negative"),
        ("tiny", [1, 1], {}, r"seeds=\[1, 1\]"),
        ("tiny", [-1], {}, r"seeds=\[-1\]"),
        ("tiny", True, {}, "seeds=True"),
        ("tiny", "3", {}, "seeds='3'"),
        ("tiny", 1, {"method": "bimask"}, r"Unknown choice 'method'.*methods, ratios"),
        ("tiny", 1, {"methods": ["bimusk"]}, r"methods=\['bimusk'\].*bimask, random"),
        ("tiny", 1, {"methods": []}, "at least one"),
    ],
)
def test_bad_input_is_named(
    printed: dict[str, PrintedTable], scale: str, seeds: Any, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fake_table(printed["table2"]).entries(scale, seeds, **choices)


def test_seeds() -> None:
    assert check_seeds(3) == [0, 1, 2]
    assert check_seeds((4, 2)) == [4, 2]
