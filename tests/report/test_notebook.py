"""What a table's notebook shows, on made-up records of BIMask's real grids: nothing is trained here."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import pytest

from efflib.papers import bimask, pkgd
from efflib.papers.table import Claim
from efflib.report.audit import Finding
from efflib.report.notebook import ChanceLevel, TablePage, evidence, refuse_chance_level
from efflib.report.provenance import all_behind, cost_in_words, provenance_rows
from efflib.report.verdict import Comparison
from efflib.trials import Results, Store, collect
from efflib.trials.provenance import source_hash
from efflib.trials.record import Cost, DataUsed, Failure, Provenance, Record

TABLE = bimask.tables["table2"]
SWEEP = bimask.tables["table7"]
ARMS = ("baseline", "original_only", "shuffled", "bimask")


def record(trial, last: float = 80.0, failure: str = "", date: str = "2026-01-01", **changes) -> Record:
    """A record as the runner would write it, by today's source unless `source` says otherwise."""
    source = changes.pop("source", None) or source_hash(trial.recipe)
    device = changes.pop("device", "toy <cpu>, 1 thread")
    made = Provenance(
        device=device, device_type="cpu", threads=1, versions={"torch": "0"}, commit="c0ffee" * 6,
        dirty=changes.pop("dirty", False), source_hash=source, canary={"value": 1.0}, date=date,
    )  # fmt: skip
    metrics = {} if failure else {"last": last, "test_best": last + 0.2, "val_best": last + 0.1}
    fields = {
        "schema": 1, "key": trial.identity, "identity": trial.identity, "recipe": trial.recipe, "recipe_version": 1,
        "config": trial.config, "parents": {}, "precision": "fp32", "status": "failed" if failure else "ok",
        "failure": Failure(kind="FloatingPointError", reason=failure) if failure else None, "metrics": metrics,
        "dataset": DataUsed(name=trial.config["dataset"], fingerprint="f" * 16, variant="jpeg-q7"),
        "cost": Cost(seconds=120.0, peak_memory_bytes=2**30, flops=1e12), "provenance": made,
    }  # fmt: skip
    return Record(**{**fields, **changes})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Empty stores, and a `run` that trains nothing but gives what is recorded; `home.fill` writes records."""
    for name in ("RESULTS", "CACHE"):
        monkeypatch.setenv(f"EFFLIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setattr("efflib.trials.store.smoke_root", lambda: tmp_path / "smoke")
    drop = ("engine", "device", "recompute")

    def run(table, scale, seeds, **options):
        return collect(table, scale, seeds, **{name: value for name, value in options.items() if name not in drop})

    def fill(scale="tiny", seeds=5, table=TABLE, only=lambda cell: True, replace=False, **changes):
        """Gains of one point for bimask, half a point for the controls, on a baseline of 80."""
        store = Store.for_scale(scale)
        for cell, seed, trial in table.entries(scale, seeds):
            if only(cell):
                gain = {"baseline": 0.0, "bimask": 1.0}.get(cell["method"], 0.5)
                store.save(record(trial, 80.0 + gain + 0.1 * seed, **changes), replace=replace)

    monkeypatch.setattr("efflib.trials.run", run)
    return SimpleNamespace(fill=fill)


def page(table=TABLE, scale="smoke", seeds=1, **options) -> TablePage:
    return TablePage(table, scale, seeds, **options)


def shown(output) -> str:
    return output.data


def everything(made: TablePage) -> dict[str, str]:
    """All texts of a page by the method that gives them."""
    parts = ("headline", "printed", "plan", "measured", "comparison", "claims", "cost", "audit", "repeat")
    return {name: shown(getattr(made, name)()) for name in parts} | {"steps": shown(made.decomposition(ARMS))}


def one_model(cell) -> bool:
    return (cell["model"], cell["dataset"]) == ("resnet14", "cifar10")


def test_without_records_every_part_says_so(home) -> None:
    texts = everything(page())
    assert "nothing is measured on real data yet" in texts["headline"]
    assert "This run has no value." in texts["measured"]
    assert f"{TABLE.title}: nothing is measured on real data yet." in texts["comparison"]
    for claim in TABLE.claims:
        assert f"<td>{claim.id}</td><td>{claim.text}</td><td>not run</td>" in texts["claims"]
    assert "Nothing is recorded" in texts["cost"]
    assert "No two of these arms ran" in texts["steps"]
    assert not any("<tbody></tbody>" in text for text in texts.values())


def test_printed_shows_every_number_with_its_gain(home) -> None:
    text = shown(page().printed())
    for cell in TABLE.printed.numbers:
        assert f"{cell.value:.2f}" in text
        assert cell.gain is None or f"({cell.gain:+.2f})" in text
    assert text.count("<tr>") == 1 + len({cell.keys["model"] for cell in TABLE.printed.numbers})


def test_printed_fractions_keep_their_digits_and_odd_keys_are_shown(home) -> None:
    first, second = TABLE.printed.cells[:2]
    cells = (dataclasses.replace(first, value=0.9741, gain=None), dataclasses.replace(second, keys={"model": "<x>"}))
    table = dataclasses.replace(TABLE, printed=dataclasses.replace(TABLE.printed, cells=cells, caption="a < b"))
    text = shown(page(table).printed())
    assert "0.9741" in text
    assert "&lt;x&gt;" in text and "<x>" not in text
    assert "a &lt; b" in text


def test_pairs_of_networks_are_columns_and_settings(home) -> None:
    """PKGD's cells say teacher and student: pairs across, methods down, and differences per pair."""
    table = pkgd.tables["table1"]
    text = shown(page(table).printed())
    assert "<th>resnet56, resnet20</th>" in text and "cifar100" not in text
    assert text.count("<tr>") == 1 + len({cell.keys["method"] for cell in table.printed.numbers})
    home.fill(seeds=3, table=table)
    told = shown(page(table).headline([("pkgd", "baseline")]))
    assert "resnet56, resnet20, cifar100: `pkgd` less `baseline` +0.50 ± 0.00 (3)" in told
    steps = shown(page(table).decomposition(["baseline", "kd", "pkgd"]))
    assert "kd less baseline" in steps and "+0.50" in steps


def test_partial_records_give_numbers_and_open_claims(home) -> None:
    home.fill(seeds=3, only=one_model)
    texts = everything(page())
    assert "at scale `tiny`" in texts["headline"]
    assert "cifar10 (jpeg-q7), 3 seeds" in texts["headline"]
    told = shown(page().headline([("bimask", "baseline"), ("bimask", "nothing_like_it")]))
    assert re.search(r"- \w+, cifar10: `bimask` less `baseline` [+-]\d+\.\d\d ± \d", told)
    assert "nothing_like_it" not in told and "less" not in texts["headline"]
    assert "72 of 90 trials are missing: `efflib plan bimask.table2 --scale tiny --seeds 5`" in texts["headline"]
    assert "81.10 ± 0.25 (3)" in texts["comparison"]  # 80 + 1 + 0.1 * (0, 1, 2)
    assert f"All {len(TABLE.printed.numbers)} printed cells" in texts["comparison"]
    assert "undetermined (1 of 16 run" in texts["claims"]
    assert "+1.00 ± 0.00 (3)" in texts["steps"]
    assert "<td>baseline</td><td>toy &lt;cpu&gt;, 1 thread</td><td>3</td><td>6 min</td>" in texts["cost"]


def test_claims_of_further_tables_of_a_page_are_counted(home) -> None:
    home.fill(seeds=3, only=one_model)
    plain, both = (shown(page().headline(beside=tables)) for tables in ((), (SWEEP,)))
    assert f"of {len(TABLE.claims)} claims" in plain and SWEEP.claims
    assert f"of {len(TABLE.claims) + len(SWEEP.claims)} claims" in both


def test_a_figure_without_printed_numbers_has_neither_their_column_nor_verdicts(home) -> None:
    table = pkgd.tables["figure6"]
    home.fill(seeds=3, table=table)
    text = shown(page(table).comparison())
    assert "80.10 ± 0.25 (3)" in text and "<th>last</th>" in text
    assert "<th>printed</th>" not in text and "<th>verdict</th>" not in text
    home.fill(seeds=3)
    assert "<th>printed</th>" in shown(page().comparison()) and "<th>verdict</th>" in shown(page().comparison())


def test_a_larger_scale_with_baselines_alone_is_not_the_one_shown(home) -> None:
    home.fill("small", only=lambda cell: cell["method"] == "baseline")
    assert page().show_scale().results.scale == "small"  # nothing else is there
    home.fill("tiny", only=one_model)
    assert page().show_scale().results.scale == "tiny"
    assert "at scale `tiny`" in shown(page().headline())
    home.fill("small", only=lambda cell: cell["method"] == "bimask")
    assert page().show_scale().results.scale == "small"


def test_paper_scale_gives_cell_verdicts_and_is_the_one_shown(home) -> None:
    home.fill("paper")
    home.fill("tiny", only=one_model)
    made = page()
    assert made.show_scale().results.scale == "paper"
    assert "at scale `paper`" in shown(made.headline())
    assert "still missing" not in shown(made.headline())
    text = shown(made.comparison())
    assert {"Scale tiny", "Scale paper"} <= set(re.findall(r"Scale \w+", text))
    assert re.search(r"<td>(lower|higher)</td>", text)
    assert "<td>reproduced</td>" not in text  # a variant is never called so
    assert "supported (16 of 16 run, 16 agree, 0 disagree, 0 open)" in shown(made.claims())


def test_what_all_rows_share_stands_in_the_caption(home) -> None:
    home.fill(only=lambda cell: cell["model"] == "resnet14" and cell["dataset"] == "cifar10")
    text = shown(page().comparison())
    caption, heads = re.search(r'detail-tiny"><caption>(.*?)</caption><thead>(.*?)</thead>', text).groups()
    assert "cifar10 (jpeg-q7), 5 seeds, model resnet14, dataset cifar10." in caption
    assert "<th>method</th>" in heads and "<th>model</th>" not in heads and "<th>data</th>" not in heads
    home.fill(only=lambda cell: cell["model"] == "resnet14" and cell["dataset"] == "cifar100")
    both = shown(page().comparison())
    assert "<th>dataset</th>" in re.search(r"detail-tiny.*?</thead>", both)[0]


def test_seeds_beyond_the_usual_five_count(home) -> None:
    home.fill(seeds=[0, 1, 7], only=one_model)
    results = evidence(TABLE, "tiny")
    assert sorted(results.samples(model="resnet14", dataset="cifar10", method="bimask")) == [0, 1, 7]
    assert {entry.seed for entry in results.entries if entry.record is None} == {0, 1, 2, 3, 4}
    assert "3 seeds" in shown(page().headline())


def test_failed_and_stale_cells_are_shown_with_their_reasons(home, monkeypatch) -> None:
    monkeypatch.setattr("efflib.trials.freshness.canary", lambda recipe: {"value": 2.0})
    home.fill(only=lambda cell: one_model(cell) and cell["method"] == "baseline", source="0" * 16)
    home.fill(only=lambda cell: one_model(cell) and cell["method"] == "bimask", failure="the loss is <nan>")
    made = page()
    assert made.recorded == {} and list(made.found) == ["tiny"]
    text = shown(made.comparison())
    assert "failed: the loss is &lt;nan&gt;" in text
    assert "stale: the source changed and the canary differs: value 1.0 -&gt; 2.0" in text
    cost = shown(made.cost())
    assert "<td>5 (5 stale)</td>" in cost and "<td>5 (5 failed)</td>" in cost


def test_a_seed_that_failed_beside_others_is_not_passed_over(home) -> None:
    home.fill(seeds=3)
    assert "is not in the mean" not in shown(page().comparison())
    home.fill(seeds=4, only=lambda cell: one_model(cell) and cell["method"] == "bimask", failure="the loss is <nan>")
    text = shown(page().comparison())
    assert text.count("seed 3 is not in the mean: the loss is &lt;nan&gt;") == 1
    assert text.count("is not in the mean") == 1  # of seeds 0 to 2 there are records with a value


def test_runs_that_broke_down_are_named_and_make_no_headline(home) -> None:
    home.fill(seeds=3, only=lambda cell: one_model(cell) and cell["method"] != "bimask")
    broken = {"last": 1.4, "test_best": 37.9}
    home.fill(seeds=3, only=lambda cell: one_model(cell) and cell["method"] == "bimask", metrics=broken)
    text = shown(page().comparison())
    assert text.count("broke down: 1.4 after the last epoch, 37.9 after its best") == 3 and "seed 2 broke" in text
    told = shown(page().headline([("bimask", "baseline"), ("shuffled", "baseline")]))
    assert "`bimask` less `baseline` not given: runs of `bimask` failed or broke down; `shuffled` less" in told
    assert text.count("broke down:") == 3 and "broke down" not in shown(page().claims())


def test_a_failed_seed_makes_no_headline_either(home) -> None:
    home.fill(seeds=3, only=one_model)
    home.fill(seeds=4, only=lambda cell: one_model(cell) and cell["method"] == "bimask", failure="nan")
    told = shown(page().headline([("bimask", "baseline"), ("shuffled", "baseline")]))
    assert "`bimask` less `baseline` not given" in told and "`shuffled` less `baseline` +0.50" in told


@pytest.mark.parametrize(("level", "weak"), [(79.0, True), (82.0, False)])
def test_a_teacher_that_is_no_better_than_its_student_is_told(home, level, weak) -> None:
    table = pkgd.tables["table1"]
    home.fill(seeds=3, table=table, only=lambda cell: cell["method"] != "teacher")
    values = {"last": level, "test_best": level + 1}
    home.fill(seeds=3, table=table, only=lambda cell: cell["method"] == "teacher", metrics=values)
    told = shown(page(table).headline())
    sentence = "the teacher (79.00) is no better than the student alone (80.10)"
    assert (f"In resnet56, resnet20, cifar100 {sentence}" in told) == weak == ("stronger network" in told)


def test_what_a_table_took_includes_the_networks_that_its_trials_start_from(home) -> None:
    """Table 7's arms start from a baseline; of the arms alone, the baseline is behind the numbers, too."""
    home.fill("tiny", 1, SWEEP)
    arms = [entry for entry in evidence(SWEEP, "tiny").entries if entry.trial.parents]
    results = Results(SWEEP, "tiny", arms)
    assert {row["recipe"] for row in provenance_rows(results)} == {"bimask"}
    behind = provenance_rows(all_behind(results))
    assert [(row["recipe"], row["trials"]) for row in behind] == [("bimask", "6"), ("baseline", "1")]
    assert "The 7 recorded trials, with the networks they start from, took 14 min" in cost_in_words(results)


def test_what_records_took_counts_usable_records_only(home) -> None:
    home.fill(seeds=1, only=lambda cell: one_model(cell) and cell["method"] == "baseline")
    home.fill(seeds=1, only=lambda cell: one_model(cell) and cell["method"] == "bimask", failure="nan", device="other")
    text = shown(page().headline())
    assert "The 1 recorded trial, with the networks they start from, took 2 min" in text
    assert "other" not in text
    assert "toy \\<cpu\\>" in text  # Markdown must not take it for a tag


def test_a_smoke_page_is_the_same_whatever_the_time_and_the_machine(home) -> None:
    home.fill("smoke", 1)
    first = everything(page())
    later = {"device": "another machine", "date": "2027-02-02", "dirty": True, "replace": True}
    home.fill("smoke", 1, cost=Cost(seconds=999.0, peak_memory_bytes=5, flops=1.0), **later)
    assert first == everything(page())
    assert "no verdict follows" in first["measured"]
    assert not {"<th>verdict</th>", "<th>printed</th>"} & set(re.findall("<th>[a-z]+</th>", first["measured"]))
    assert "81.00 (1)" in first["measured"]  # one seed has no interval


def test_a_run_at_a_real_scale_shows_what_is_printed(home) -> None:
    home.fill(seeds=3)
    text = shown(page(scale="tiny", seeds=3).measured())
    assert "<th>printed</th>" in text and "<th>verdict</th>" in text
    assert 'id="bimask-table2-run-tiny"' in text


def test_a_failed_run_at_a_real_scale_says_why(home) -> None:
    home.fill(seeds=1, only=one_model, failure="out of <memory>")
    text = shown(page(scale="tiny", seeds=1).measured())
    assert "This run has no value." in text
    assert "failed: out of &lt;memory&gt;" in text


def test_plan_counts_trials_and_names_unknown_times(home) -> None:
    # Two models: the baseline, BIMask and three controls of each.
    assert shown(page().plan()) == "Scale `smoke`: 10 trials."
    empty = shown(page(scale="tiny", seeds=2).plan())
    assert "36 trials, 0 recorded, 36 to run" in empty and "about" not in empty
    home.fill(seeds=1, only=one_model)
    text = shown(page(scale="tiny", seeds=2).plan())
    assert "36 trials, 6 recorded, 30 to run" in text
    assert re.search(r"about .+ on toy \\<cpu\\>, 1 thread, and \d+ of unknown time", text)


def test_choices_narrow_plan_and_run(home) -> None:
    home.fill("smoke", 1)
    made = page(choices={"models": ["vgg8"], "datasets": None, "methods": ["bimask"]})
    assert "2 trials" in shown(made.plan())
    assert {entry.cell["model"] for entry in made.results.entries} == {"vgg8"}


def test_a_table_without_claims_says_so(home) -> None:
    home.fill(seeds=1, only=one_model)
    bare = dataclasses.replace(TABLE, claims=())
    assert "this table makes no claim" in shown(page(bare).headline())


def test_claim_texts_are_escaped(home) -> None:
    home.fill(seeds=1, only=one_model)
    odd = Claim("bimask.table2.z", "gain < 1 & <b>", "ours", "all", TABLE.claims[0].comparisons)
    text = shown(page(dataclasses.replace(TABLE, claims=(odd,))).claims())
    assert "gain &lt; 1 &amp; &lt;b&gt;" in text
    assert "<b>" not in text


def test_an_undetermined_claim_says_how_many_seeds_would_decide_it(home) -> None:
    def few(results):  # the gain of one seed up, of the others down: its interval holds 0
        found = results.samples(model="resnet14", dataset="cifar10", method="baseline")
        return [Comparison("open", {seed: (-1) ** seed + 0.3 for seed in found})]

    home.fill(seeds=5, only=one_model)
    claim = Claim("bimask.table2.z", "It helps.", "ours", "one cell", few)
    text = shown(page(dataclasses.replace(TABLE, claims=(claim,))).claims())
    (needed,) = re.findall(r"<th>seeds to decide, tiny</th>.*<td>(\d+)</td></tr>", text)
    assert int(needed) == few(evidence(TABLE, "tiny"))[0].seeds_needed > 5
    assert "seeds to decide" not in shown(page().claims())  # cells are missing: more seeds alone decide nothing


def test_audit_lists_this_tables_findings_with_links() -> None:
    here = Finding("bimask-1", "A title", "A text.", "arithmetic", tables=("table2",))
    elsewhere = Finding("bimask-2", "Another", "B.", "text", tables=("table3",))
    text = shown(page(findings=[here, elsewhere]).audit())
    assert text.endswith("\n\n- **A title.** A text. ({ref}`details <audit-bimask-1>`)")
    assert "no finding" in shown(page(findings=[elsewhere]).audit())


def test_repeat_is_one_line_with_parameters_that_the_notebook_has() -> None:
    from efflib import notebooks

    text = shown(page().repeat())
    assert (
        ".venv/bin/papermill notebooks/bimask/table2.ipynb table2.ipynb -p scale tiny -y 'seeds: [0, 1, 2, 3, 4]'"
        in text
    )
    known = notebooks.declared(notebooks.source_of("bimask/table2"))
    assert {"scale", "seeds", "device", "engine", "recompute"} <= set(known)


def test_provenance_names_precision_commit_and_dirty_trees(home) -> None:
    home.fill("tiny", 1, SWEEP, dirty=True)
    (base, arms) = provenance_rows(evidence(SWEEP, "tiny"))
    assert (base["recipe"], base["trials"], arms["trials"]) == ("baseline", "1", "6")
    assert (base["time in all"], arms["time in all"], arms["per trial"]) == ("2 min", "12 min", "2 min")
    assert base["commit"] == "c0ffeec0ff (dirty)"
    assert (base["peak memory"], base["data"], base["torch"]) == ("1.0 GiB", "cifar10 jpeg-q7", "0")


def demonstration(last: float, failure: str = "") -> Results:
    """Results of smoke runs whose baselines end at `last` percent on ten classes."""
    from efflib.trials import Entry

    made = [
        Entry(cell, seed, trial, record(trial, last if cell["method"] == "baseline" else 1.0, failure))
        for cell, seed, trial in TABLE.entries("smoke", 1)
    ]
    return Results(TABLE, "smoke", made)


def test_chance_level_is_refused_and_three_standard_errors_above_pass() -> None:
    bar = 10 + 300 * (0.1 * 0.9 / 1_000) ** 0.5  # objects32 has 1,000 test images of 10 classes
    refuse_chance_level(demonstration(bar + 0.01))
    for last in (10.0, bar - 0.01, float("nan")):
        with pytest.raises(ChanceLevel, match=r"baseline model=resnet14 .* is 12\.8 %"):
            refuse_chance_level(demonstration(last))


def test_a_demonstration_whose_baseline_failed_is_refused() -> None:
    with pytest.raises(ChanceLevel, match="failed: out of memory"):
        refuse_chance_level(demonstration(50.0, "out of memory"))


def test_a_list_of_trials_is_checked_too() -> None:
    from efflib.trials import Entry

    trial = bimask.tables["table2"].trials("smoke", 1)[0]
    with pytest.raises(ChanceLevel, match=r"10\.0 %"):
        refuse_chance_level(Results([trial], "smoke", [Entry(trial.config, 0, trial, record(trial, 10.0))]))


def test_smoke_page_at_chance_level_shows_no_results(home) -> None:
    trial = next(iter(TABLE.entries("smoke", 1)))[2]
    Store.for_scale("smoke").save(record(trial, 10.0))
    with pytest.raises(ChanceLevel, match="train longer"):
        page().measured()
