"""Printed beside measured: rows, intervals, paired gains, reasons and the ledger, on made-up records."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from efflib.papers.table import Claim, PrintedCell, PrintedTable, Table, claims_of
from efflib.report import compare, compare_scales, ledger
from efflib.report.verdict import Comparison, paired

BASE = {"model": "net", "dataset": "d", "method": "baseline"}
ARM = {"model": "net", "dataset": "d", "method": "bimask"}
OTHER = {"model": "net", "dataset": "e", "method": "baseline"}
RANDOM = {"model": "net", "dataset": "d", "method": "random"}


@dataclass
class FakeResults:
    """The interface of efflib.trials.Results, filled by hand."""

    scale: str
    entries: list[Any] = field(default_factory=list)

    def add(self, cell: dict, values: dict[int, float], stale: bool = False, variant: str = "official") -> FakeResults:
        for seed, value in values.items():
            metrics = {"last": value, "test_best": value + 0.2, "val_best": value + 0.05}
            record = SimpleNamespace(
                status="ok",
                metrics=metrics,
                dataset=SimpleNamespace(variant=variant),
                cost=SimpleNamespace(seconds=100.0),
            )
            self.entries.append(SimpleNamespace(cell=cell, seed=seed, trial=None, record=record, stale=stale))
        return self

    def wait(self, cell: dict) -> FakeResults:
        self.entries.append(SimpleNamespace(cell=cell, seed=0, trial=None, record=None, stale=False))
        return self

    def matching(self, cell: dict) -> list[Any]:
        return [e for e in self.entries if cell.items() <= e.cell.items()]

    def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
        return {e.seed: e.record.metrics[metric] for e in self.matching(cell) if e.record and not e.stale}

    def reason(self, **cell: Any) -> str:
        found = self.matching(cell)
        if not found:
            return f"not in the {self.scale} grid"
        if any(e.record and not e.stale for e in found):
            return ""
        return "stale: changed source" if found[0].stale else "not recorded yet"


def beats(results: Any) -> list[Comparison]:
    return [Comparison("arm - base", paired(results.samples(**ARM), results.samples(**BASE)))]


def table(unit: str = "percent", scale: float = 1.0) -> Table:
    cells = (
        PrintedCell(BASE, 90.0 * scale),
        PrintedCell(ARM, 91.0 * scale, 1.0 * scale, {"model": "Net-<1>"}),
        PrintedCell(OTHER, 70.0 * scale),
    )
    metric = {"name": "top1_accuracy", "unit": unit}
    printed = PrintedTable("paper", "table2", "caption", metric, 5, "test_best", cells)
    claim = Claim("paper.table2.a", "It helps.", "paper", "1 cell", beats)
    return Table("paper", "table2", "A table", printed, (claim,), lambda *_: [], {})


def runs(mean: float, n: int = 5) -> dict[int, float]:
    return {seed: mean + 0.05 * (seed - (n - 1) / 2) for seed in range(n)}


def full(scale: str = "paper", variant: str = "official") -> FakeResults:
    results = FakeResults(scale).add(BASE, runs(89.8), variant=variant).add(ARM, runs(93.0), variant=variant)
    return results.add(RANDOM, runs(90.5, 3), variant=variant).wait(OTHER)


def by_keys(comparison: Any) -> dict[tuple, Any]:
    return {(r.keys["dataset"], r.keys["method"]): r for r in comparison.rows}


def test_paper_scale_rows() -> None:
    rows = by_keys(compare(table(), full()))
    assert list(rows) == [
        ("d", "baseline"),
        ("d", "bimask"),
        ("d", "random"),
        ("e", "baseline"),
    ]  # kept together
    base, arm, ours, missing = rows.values()
    assert base.verdict == "reproduced"  # 89.8 + 0.2 under the paper's own test_best
    assert arm.verdict == "higher"
    assert (ours.verdict, ours.printed) == ("ours", None)
    assert (missing.verdict, missing.reason, missing.n) == ("not run", "not recorded yet", 0)
    assert (base.last.mean, base.test_best.mean) == (pytest.approx(89.8), pytest.approx(90.0))
    assert base.bias.mean == pytest.approx(0.15)


def test_gains_are_paired_by_seed() -> None:
    rows = by_keys(compare(table(), full()))
    gain = rows["d", "bimask"].gain
    assert (gain.mean, gain.n) == (pytest.approx(3.2), 5)
    assert gain.std == pytest.approx(0.0, abs=1e-9)  # seeds move together, so pairing removes their spread
    assert rows["d", "random"].gain.n == 3
    assert rows["d", "baseline"].gain is None


@pytest.mark.parametrize("scale", ["smoke", "tiny", "small"])
def test_smaller_scales_show_numbers_without_verdicts(scale: str) -> None:
    rows = by_keys(compare(table(), full(scale)))
    assert {r.verdict for r in rows.values() if r.printed is not None} == {"not run"}
    assert rows["d", "baseline"].last.n == 5
    assert rows["d", "baseline"].reason == f"no paper-scale runs (measured at {scale})"


def test_variants_are_labelled_and_never_reproduced() -> None:
    compared = compare(table(), full(variant="jpeg-q7"))
    row = by_keys(compared)["d", "baseline"]
    assert (row.verdict, row.variant) == ("undetermined", "jpeg-q7")
    assert compared.frame()["data"].tolist()[0] == "jpeg-q7"
    assert compared.claims_frame()["data"].tolist() == ["jpeg-q7"]


def test_stale_runs_give_no_value() -> None:
    results = FakeResults("paper").add(BASE, runs(90.0), stale=True)
    row = by_keys(compare(table(), results))["d", "baseline"]
    assert (row.n, row.verdict, row.reason) == (0, "not run", "stale: changed source")


def test_undetermined_cells_say_what_would_decide_them() -> None:
    results = FakeResults("paper").add(BASE, {0: 90.0, 1: 90.9, 2: 89.1})
    row = by_keys(compare(table(), results))["d", "baseline"]
    assert row.verdict == "undetermined"
    assert row.cost_seconds == pytest.approx(100.0 * (row.seeds_needed - 3))
    assert row.seeds_needed > 3


def test_fractions_are_compared_as_fractions() -> None:
    rows = by_keys(compare(table("fraction", 0.01), full()))
    assert rows["d", "baseline"].verdict == "reproduced"
    assert rows["d", "baseline"].last.mean == pytest.approx(0.898)


def test_frame_is_readable() -> None:
    frame = compare(table(), full()).frame()
    row = frame[frame["method"] == "bimask"].iloc[0]
    assert row["model"] == "net (Net-<1>)"
    assert row["printed"] == "91.00 (+1.00)"
    assert row["last"] == "93.00 ± 0.10 (5)"
    assert row["gain"].startswith("+3.20 ± 0.00")
    assert frame[frame["dataset"] == "e"].iloc[0]["last"] == ""
    assert len(compare(table(), full()).frame(measured_only=True)) == 3


def test_html_is_escaped_and_sortable() -> None:
    html = compare(table(), full()).to_html(caption="a < b", table_id="tab")
    assert 'class="sortable"' in html
    assert 'id="tab"' in html
    assert "<caption>a &lt; b</caption>" in html
    assert "Net-&lt;1&gt;" in html


@pytest.mark.parametrize(("scale", "verdict"), [("smoke", "not run"), ("tiny", "supported"), ("paper", "supported")])
def test_claims(scale: str, verdict: str) -> None:
    ((claim, got),) = compare(table(), full(scale)).claims
    assert (claim.id, got.verdict, got.scale) == ("paper.table2.a", verdict, scale)


def test_scales_side_by_side() -> None:
    both = compare_scales(table(), {"paper": full(), "tiny": full("tiny")})
    assert list(both.by_scale) == ["tiny", "paper"]
    frame = both.frame()
    assert {"last, tiny", "gain, tiny", "last, paper", "gain, paper"} <= set(frame.columns)
    assert frame["verdict"].tolist() == ["reproduced", "higher", "ours", "not run"]
    claims = both.claims_frame().iloc[0]
    assert claims["tiny"] == "supported (1 of 1 run, 1 agree, 0 disagree, 0 open)"
    assert "sortable" in both.to_html()
    assert len(both.frame(measured_only=True)) == 3


def test_results_under_the_wrong_scale_are_refused() -> None:
    with pytest.raises(ValueError, match="wrong scale"):
        compare_scales(table(), {"paper": full("tiny")})


def test_ledger_counts_every_printed_number() -> None:
    alone = table().printed
    rows = ledger([(table(), {"paper": full(), "tiny": full("tiny")}), alone])
    first, second = rows
    assert (first["printed"], first["reproduced"], first["higher"], first["not run"]) == (3, 1, 1, 1)
    assert first["reasons"] == {"not recorded yet": 1}
    assert first["claims"]["supported"] == 1
    assert first["claim_scales"] == {"paper.table2.a": "paper"}
    assert (second["not run"], second["reasons"]) == (3, {"no trials for this table yet": 3})
    for row in rows:
        counted = sum(row[name] for name in ("reproduced", "higher", "lower", "undetermined", "not run"))
        assert counted == row["printed"]


def test_ledger_says_what_was_measured_at_smaller_scales() -> None:
    (row,) = ledger([(table(), {"tiny": full("tiny"), "smoke": full("smoke")})])
    assert row["reasons"] == {"no paper-scale runs; measured at tiny": 2, "not recorded yet": 1}
    assert row["measured"] == 2
    (smoke,) = ledger([(table(), {"smoke": full("smoke")})])
    assert (smoke["measured"], smoke["claims"]["not run"]) == (0, 1)


def test_claims_of_a_table_have_its_name_and_a_letter_each() -> None:
    first = ("a", "It helps.", "paper", "1 cell", beats, "tiny")
    (claim,) = claims_of("paper", "table2", first)
    assert (claim.id, claim.owner, claim.minimum_scale) == ("paper.table2.a", "paper", "tiny")
    with pytest.raises(ValueError, match="paper table2: claims need a letter each; got a, a"):
        claims_of("paper", "table2", first, first)


def test_import_is_light() -> None:
    import subprocess
    import sys

    heavy = ("pandas", "torch", "scipy", "matplotlib")
    code = f"import efflib.report, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
