"""Staleness: which source a recipe depends on, and what the canary decides."""

from __future__ import annotations

import ast
import json
import textwrap

import pytest

from efflib.trials import collect, freshness
from efflib.trials.provenance import _imports, _without_docstrings, source_hash
from efflib.trials.runner import key_of, run_trials


def closure(recipe, monkeypatch):
    """Modules whose source the hash of a recipe covers."""
    from efflib.trials import provenance

    seen = set()
    path = provenance._path
    monkeypatch.setattr(provenance, "_path", lambda module: seen.add(module) or path(module))
    source_hash.cache_clear()
    source_hash(recipe)
    source_hash.cache_clear()
    return seen


def test_the_hash_covers_what_decides_the_numbers_and_no_more(monkeypatch):
    seen = closure("bimask", monkeypatch)
    inside = {
        "efflib.papers.bimask.recipes", "efflib.papers.bimask.method", "efflib.papers.baselines",
        "efflib.training", "efflib.training.loop", "efflib.training.recipe", "efflib.explain",
        "efflib.data", "efflib.data.imageset", "efflib.data.sources", "efflib.data.objects",
        "efflib.models", "efflib.models.resnet_cifar", "efflib.models.vgg", "efflib.kernels.augment",
        "efflib.kernels.mask_least_salient",
    }  # fmt: skip
    assert inside <= seen
    frame = ("efflib.trials", "efflib.report", "efflib.cli", "efflib.notebooks")
    assert not [module for module in seen if module.startswith(frame)]
    paper = ("efflib.papers.bimask.claims", "efflib.papers.bimask.tables", "efflib.papers.bimask.audit")
    assert not [module for module in seen if module.startswith(paper)]


def test_the_baseline_does_not_depend_on_a_paper(monkeypatch):
    assert not [module for module in closure("baseline", monkeypatch) if "bimask" in module]


def hashed(lab, old: str, new: str) -> tuple[str, str]:
    before = source_hash("toy")
    text = lab.source.read_text()
    assert old in text
    lab.source.write_text(text.replace(old, new))
    lab.forget()
    return before, source_hash("toy")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Toy recipes."""', '"""Recipes for tests."""'),
        ('    """Doubles its size."""\n', ""),
        ("import time\n", "import time  # for naps\n"),
        ("    size: int\n", "    size: int\n\n    # how many\n"),
        ('    note("canary")\n', "    note('canary')\n"),
        ('note(f"steps={len(steps)}")', 'note(\n        f"steps={len(steps)}"\n    )'),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(lab, old, new):
    before, after = hashed(lab, old, new)
    assert before == after


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2.0 * config.size", "2.5 * config.size"),
        ("seed: int = 0", "seed: int = 1"),
        ("import time\n", "import time, re\n"),
    ],
)
def test_code_changes_the_hash(lab, old, new):
    before, after = hashed(lab, old, new)
    assert before != after


def test_a_function_of_only_a_docstring_keeps_its_meaning():
    tree = _without_docstrings(ast.parse('def f():\n    """Nothing."""\n\nclass A:\n    """B"""\n    x = """kept"""\n'))
    assert ast.unparse(tree) == "def f():\n    pass\n\nclass A:\n    x = 'kept'"


def test_imports_are_found_wherever_they_stand():
    tree = ast.parse(
        textwrap.dedent("""
        import numpy, efflib.explain
        from efflib.data import load_dataset, cache
        def f():
            from efflib.kernels.augment import augment
        """)
    )
    found = _imports(tree, "anything")
    assert found == ["efflib.data", "efflib.data.cache", "efflib.explain", "efflib.kernels.augment"]


def changed(lab, monkeypatch, canary: str = "1"):
    lab.source.write_text(lab.source.read_text() + "\n\nOTHER = 1\n")
    monkeypatch.setenv("TOY_CANARY", canary)
    lab.forget()


def recorded(lab, make):
    trial = make.trial()
    run_trials([trial], lab.store, lab.cpu, progress=False)
    return trial, lab.store.get("toy", key_of(trial, lab.cpu))


def test_the_same_source_is_fresh_without_a_canary(lab, make):
    _, record = recorded(lab, make)
    canaries = lab.log.read_text().count("canary")
    lab.forget()
    assert freshness.stale_reason(record) is None
    assert lab.log.read_text().count("canary") == canaries == 1


@pytest.mark.parametrize("today", ["1", "1.0000001"])
def test_other_source_with_an_equal_canary_is_not_stale(lab, make, monkeypatch, today):
    trial, record = recorded(lab, make)
    changed(lab, monkeypatch, today)
    assert freshness.stale_reason(record) is None
    assert collect([trial], "tiny", store=lab.store).samples() == {0: 2.0}


def test_another_canary_makes_it_stale_shown_and_unused(lab, make, monkeypatch):
    trial, record = recorded(lab, make)
    changed(lab, monkeypatch, "1.01")
    why = "the source changed and the canary differs: value 1.0 -> 1.01"
    assert freshness.stale_reason(record) == why
    results = collect([trial], "tiny", store=lab.store)
    assert results.samples() == {} and results.reason() == f"stale: {why}"
    assert results.entries[0].stale and results.entries[0].record == record
    assert results.recorded == (0, 1)


def test_a_canary_with_other_numbers_is_a_difference(lab, make, monkeypatch):
    _, record = recorded(lab, make)
    changed(lab, monkeypatch)
    record.provenance.canary["loss"] = 2.0
    assert freshness.stale_reason(record) == "the source changed and the canary differs: loss 2.0 -> None"


def test_a_changed_default_is_stale_whatever_the_canary(lab, make):
    trial, record = recorded(lab, make)
    lab.store.save(record.model_copy(update={"config": {**record.config, "tilt": 0.7}}), replace=True)
    results = collect([trial], "tiny", store=lab.store)
    assert results.reason() == "stale: a default of the recipe's settings changed since"
    assert results.samples() == {}


def test_a_canary_runs_once_per_source_and_is_kept(lab, make, tmp_path):
    first = freshness.canary("toy")
    lab.forget()
    assert freshness.canary("toy") == first == {"value": 1.0}
    assert lab.log.read_text().count("canary") == 1
    (kept,) = (tmp_path / "cache" / "canary").glob("toy-*.json")
    kept.write_text("{")
    lab.forget()
    with pytest.warns(UserWarning, match="set aside"):
        assert freshness.canary("toy") == first
    assert lab.log.read_text().count("canary") == 2


def test_noted_canaries_need_no_run(lab, make, tmp_path):
    freshness.note_canaries(["toy", "toychild"])
    noted = json.loads((tmp_path / "results" / "equivalent.json").read_text())
    assert noted == {name: {source_hash(name): {"value": 1.0}} for name in ("toy", "toychild")}
    for kept in (tmp_path / "cache" / "canary").glob("*"):
        kept.unlink()
    lab.forget()
    before = lab.log.read_text()
    assert freshness.canary("toy") == {"value": 1.0}
    assert lab.log.read_text() == before


def test_noting_keeps_what_was_noted_before(lab, monkeypatch):
    freshness.note_canaries(["toy"])
    changed(lab, monkeypatch)
    known = freshness.note_canaries(["toy"])
    assert len(known["toy"]) == 2


def test_a_broken_list_of_equivalents_is_named(lab, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "equivalent.json").write_text("{")
    with pytest.raises(ValueError, match=r"equivalent.json cannot be read .*: restore it from git"):
        freshness.canary("toy")


def test_the_list_of_equivalents_is_no_record(lab, make):
    freshness.note_canaries(["toy"])
    assert lab.store.records() == []
