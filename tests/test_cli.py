"""The command line: a newcomer finds the way, and mistakes are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from efflib import cli
from efflib.papers import cifar
from efflib.papers.bimask.tables import SCALES, baseline
from efflib.trials import Store, recipes, runner, store
from efflib.trials.record import Cost, DataUsed, Failure, Provenance, Record


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Empty roots, no data, no network."""
    monkeypatch.delenv("EFFLIB_DATA", raising=False)
    for name, value in {"CACHE": tmp_path / "cache", "RESULTS": tmp_path / "results", "OFFLINE": "1"}.items():
        monkeypatch.setenv(f"EFFLIB_{name}", str(value))
    monkeypatch.setattr(store, "smoke_root", lambda: tmp_path / "smoke")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def exit_code(command) -> int:
    try:
        command()
    except SystemExit as stopped:
        return stopped.code or 0
    return 0


@pytest.fixture
def efflib(monkeypatch, capsys):
    """Run one command in this process: (exit code, output, errors)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["efflib", *arguments])
        code = exit_code(cli.main)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


HELP = {
    (): [
        "bimask.table2",
        "smoke",
        "tiny",
        "list",
        "plan",
        "run",
        "status",
        "audit",
        "ledger",
        "data",
        "export",
        "merge",
    ],
    ("list",): ["tables", "recorded"],
    ("plan",): [
        "TABLE",
        "efflib list",
        "--scale",
        "smoke, tiny, small or paper",
        "--seeds",
        "0..n-1",
        "--only",
        "models=",
    ],
    ("run",): ["continues", "--device", "--precision", "--threads", "--recompute", "--retry", "EFFLIB_DATA", "Example"],
    ("campaign",): ["--budget", "9min", "--workers", "--archive", "--dry-run", "open claims", "efflib merge"],
    ("status",): ["stale", "--canary", "equivalent.json"],
    ("audit",): ["PAPER", "arithmetic"],
    ("ledger",): ["printed cell", "verdict"],
    ("data",): ["EFFLIB_DATA", "--download", "official source"],
    ("export",): ["ARCHIVE", "--recipe", "--weights", "another machine"],
    ("merge",): ["ARCHIVE", "efflib export", "by key"],
    ("pages",): ["generated"],
}


@pytest.mark.parametrize("command", HELP)
def test_help_says_what_a_newcomer_needs(efflib, command):
    code, out, _ = efflib(*command, "--help")
    assert code == 0
    words = " ".join(out.split())
    assert [word for word in HELP[command] if word.lower() not in words.lower()] == []


def test_every_command_has_help():
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert names == {command[0] for command in HELP if command}


MISTAKES = [
    (("plan", "bimask.table9"), "unknown table 'bimask.table9'; known: bimask.table2"),
    (("plan", "bimsk.table2"), "unknown paper 'bimsk'; known: bimask"),
    (("plan", "bimask"), "unknown table 'bimask'; known: bimask.table2"),
    (("plan", "bimask.table2", "--scale", "big"), "nknown scale: 'big'"),
    (("plan", "bimask.table2", "--seeds", "x"), "--seeds takes a number or a list such as 0,3,4; got 'x'"),
    (("plan", "bimask.table2", "--seeds", "0"), "seeds=0"),
    (("plan", "bimask.table2", "--seeds", "1,1"), "seeds=[1, 1]"),
    (("plan", "bimask.table2", "--only", "model=vgg8"), "Unknown choice 'model'"),
    (("plan", "bimask.table2", "--only", "models=vgg9"), "choose at least one of: vgg8"),
    (("plan", "bimask.table2", "--only", "models"), "--only takes NAME=VALUE"),
    (("run", "bimask.table2", "--device", "gpu"), "unknown device 'gpu'"),
    (("run", "bimask.table2", "--precision", "fp8"), "precision must be"),
    (("run", "bimask.table2", "--scale", "tiny", "--only", "models=resnet14"), "cifar10"),
    (("campaign", "--budget", "soon"), "a time is a number above 0 with s, min or h, e.g. 9min; got 'soon'"),
    (("campaign", "--budget", "0min"), "a time is a number above 0"),
    (("campaign", "--budget", "1min", "--scale", "smoke"), "scale 'smoke' decides no claim"),
    (("campaign", "--budget", "1min", "--paper", "nobody"), "unknown paper 'nobody'"),
    (("audit", "nobody"), "unknown paper 'nobody'"),
    (("data", "cifar"), "cifar10"),
    (("data", "cifar10"), "cifar10"),
    (("export", "a.tar.gz"), "no records to export"),
    (("merge", "nowhere.tar.gz"), "nowhere.tar.gz"),
]


@pytest.mark.parametrize(("command", "said"), MISTAKES, ids=[" ".join(command) for command, _ in MISTAKES])
def test_mistakes_are_short_errors(efflib, command, said, places):
    code, _, err = efflib(*command)
    assert code == 2 and said in err
    assert "Traceback" not in err and err.startswith("efflib: ")
    if "data" not in command and "run" not in command:
        assert len(err.strip().splitlines()) == 1
    assert not (places / "results").exists() and not (places / "smoke").exists()


@pytest.mark.parametrize("command", [("plann",), ("plan",), ("run", "bimask.table2", "--threads", "0")])
def test_wrong_usage_is_an_error_too(efflib, command):
    code, _, err = efflib(*command)
    assert code == 2 and "Traceback" not in err


def test_a_damaged_archive_is_a_short_error(efflib, places):
    (places / "a.tar.gz").write_text("<html>")
    code, _, err = efflib("merge", str(places / "a.tar.gz"))
    assert code == 2 and "a.tar.gz cannot be read" in err and "export it again" in err


def test_an_unwritable_place_is_a_short_error(efflib, places, monkeypatch):
    (places / "file").write_text("")
    save_one()
    code, _, err = efflib("export", str(places / "file" / "a.tar.gz"))
    assert code == 2 and err.startswith("efflib: ") and "Traceback" not in err


def test_listing_planning_and_status_need_nothing(efflib):
    code, out, _ = efflib("list")
    assert code == 0
    assert "bimask.table2" in out and "tiny 0/90" in out and "diswot.table3_5" in out
    code, out, _ = efflib("plan", "bimask.table2", "--scale", "tiny")
    assert code == 0
    assert "90 trials, 40 shared with other tables, 0 recorded, 90 missing" in out and "run one seed first" in out
    code, out, _ = efflib("status")
    assert code == 0 and "baseline: 0 records" in out and "bimask: 0 records" in out
    code, out, _ = efflib("data")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "embedded" in lines["digits"] and "--download" in lines["cifar10"]
    assert "efflib data names --download" in lines["names"]
    assert "`efflib data brain_mri` says where" in lines["brain_mri"] and "--download" not in lines["brain_mri"]


def test_the_audit_and_the_ledger_are_printed(efflib):
    for command in ("audit", "ledger"):
        code, out, _ = efflib(command)
        assert code == 0 and len(out.splitlines()) > 5


def test_one_set_is_shown_with_its_fingerprint(efflib):
    code, out, _ = efflib("data", "digits")
    assert code == 0
    assert "(1257, 8, 8, 1)" in out and "(360, 8, 8, 1)" in out and "embedded" in out


def test_names_are_shown_or_missed(efflib, tmp_path, monkeypatch):
    code, _, err = efflib("data", "names")
    assert code == 2 and "names.txt" in err and "Traceback" not in err
    (tmp_path / "names.txt").write_text("emma\nava\n")
    monkeypatch.setenv("EFFLIB_DATA", str(tmp_path))
    code, out, _ = efflib("data", "names")
    assert code == 0 and "2 names, variant unverified" in out


def save_one(status="ok", **changes) -> Record:
    trial = baseline("tiny", "resnet14", "cifar10", 0)
    made = Provenance(
        device="a CPU", device_type="cpu", threads=1, versions={}, commit=None, dirty=None, date="2026-01-01",
        source_hash=runner.source_hash("baseline"), canary={},
    )  # fmt: skip
    record = Record(
        schema=1, key="0" * 16, identity=trial.identity, recipe="baseline", recipe_version=1, config=trial.config,
        parents={}, dataset=DataUsed(name="cifar10", fingerprint="f", variant="official"), precision="fp32",
        status=status, failure=Failure(kind="E", reason="it diverged") if status == "failed" else None,
        metrics={"last": 80.0}, cost=Cost(seconds=7200, peak_memory_bytes=1, flops=1e12), provenance=made,
    )  # fmt: skip
    record = record.model_copy(update=changes)
    Store.for_scale("tiny").save(record)
    return record


def test_a_plan_tells_time_from_what_was_recorded(efflib):
    save_one()
    _, out, _ = efflib("plan", "bimask.table2", "--scale", "tiny", "--seeds", "2", "--only", "models=resnet14")
    assert "1 recorded" in out
    assert "a CPU: " in out and " h for the missing ones" in out and "trials of unknown time" in out


def test_status_shows_failures_and_orphans(efflib):
    save_one("failed")
    orphan = save_one(key="1" * 16, recipe="gone")
    code, out, _ = efflib("status")
    assert code == 0 and orphan.recipe == "gone"
    assert "baseline: 1 records {'failed': 1}" in out and "0000000000000000: it diverged" in out
    assert "gone: 1 records of a recipe that no longer exists" in out


def test_export_and_merge_tell_what_they_did(efflib, places, monkeypatch):
    save_one()
    code, out, _ = efflib("export", str(places / "a.tar.gz"))
    assert (code, out) == (0, f"1 records written to {places / 'a.tar.gz'}\n")
    monkeypatch.setenv("EFFLIB_RESULTS", str(places / "home"))
    assert efflib("merge", str(places / "a.tar.gz"))[1].startswith("1 records added, 0 known")
    assert efflib("merge", str(places / "a.tar.gz"))[1].startswith("0 records added, 1 known")


def test_a_run_records_and_does_not_repeat(efflib, places, monkeypatch):
    """A real smoke trial, cut down: table 2's baseline and one arm on a few rendered objects."""
    quick = replace(cifar.SIZES["smoke"], subset=60, holdout=20, epochs=1)
    monkeypatch.setitem(cifar.SIZES, "smoke", quick)
    monkeypatch.setitem(SCALES, "smoke", replace(SCALES["smoke"], finetune_epochs=1))
    monkeypatch.setattr(runner, "canary", lambda recipe: {})
    command = ("run", "bimask.table2", "--only", "models=resnet14", "--only", "methods=random", "--device", "cpu")
    code, out, _ = efflib(*command)
    assert code == 0
    assert "ok baseline model=resnet14" in out and "ok bimask model=resnet14" in out
    assert "2 of 2 trials have a usable record" in out
    records = [json.loads(path.read_text()) for path in (places / "smoke").glob("*/*.json")]
    assert sorted(record["recipe"] for record in records) == ["baseline", "bimask"]
    assert not (places / "results").exists()
    code, out, _ = efflib(*command)
    assert out == "bimask.table2 at scale smoke: 2 of 2 trials have a usable record\n"


def test_a_dry_campaign_shows_what_it_would_run_and_what_data_are_missing(efflib, places):
    code, out, _ = efflib("campaign", "--budget", "1h", "--scale", "tiny", "--paper", "diswot", "--dry-run")
    assert code == 0 and "left out: " in out and "brain_mri" in out
    assert " trials fit into 1.0 h on " in out and not (places / "results").exists()


def test_a_run_with_a_failed_trial_ends_with_1(efflib, places, monkeypatch):
    quick = replace(cifar.SIZES["smoke"], subset=60, holdout=20, epochs=1)
    monkeypatch.setitem(cifar.SIZES, "smoke", quick)
    monkeypatch.setattr(runner, "canary", lambda recipe: {})

    def diverged(settings, context):
        raise FloatingPointError("the training loss is nan in epoch 1")

    broken = replace(recipes.get_recipe("baseline"), run=diverged)
    monkeypatch.setitem(recipes._RECIPES, "baseline", broken)
    code, out, err = efflib("run", "bimask.table2", "--only", "models=resnet14", "--only", "methods=random")
    assert code == 1 and "failed baseline model=resnet14" in out and "0 of 2 trials have a usable record" in out
    assert err.count("failed: the training loss is nan in epoch 1") == 2 and "--retry" in err and "Traceback" not in err


def test_numbers_and_lists_are_read():
    assert [cli._time(text) for text in ("90s", "9min", "1.5 h")] == [90, 540, 5400]
    assert cli._seeds("3") == 3 and cli._seeds("0,3,4") == [0, 3, 4] and cli._seeds("2,") == [2]
    assert cli._choices(["ratios=0.1,0.3", "layers=-1", "models=vgg8"]) == {
        "ratios": [0.1, 0.3], "layers": [-1], "models": ["vgg8"],
    }  # fmt: skip
    assert [cli._duration(seconds) for seconds in (5, 120, 7200)] == ["5 s", "2 min", "2.0 h"]


LIGHT = """
import sys
from dataclasses import replace
sys.argv = ["efflib", "--help"]
from efflib.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
heavy = {"torch", "numpy", "pandas", "sklearn", "matplotlib", "torchvision"} & set(sys.modules)
assert not heavy, heavy
import efflib
assert "list_models" in dir(efflib) and not ({"torch", "numpy"} & set(sys.modules))
"""


def test_help_and_import_are_light():
    env = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", LIGHT], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Reproduce the tables" in done.stdout
