"""The store: whole files or none, broken ones set aside, nothing hidden."""

from __future__ import annotations

import json
import os

import pytest
import torch

from efflib.trials import Record, Store
from efflib.trials.record import Cost
from efflib.trials.roots import results_root, smoke_root
from efflib.trials.store import write_atomically


def later(record: Record, seconds: float = 2.0, **changes) -> Record:
    """Another run of the same key."""
    return record.model_copy(update={"cost": Cost(seconds=seconds, peak_memory_bytes=1, flops=10.0), **changes})


def test_a_record_comes_back_as_it_was(lab, make):
    record = make.record(make.trial(), metrics={"last": 1 / 3, "curves": {"test": [0.1, 1 / 3]}})
    path = lab.store.save(record)
    assert path == lab.store.root / "toy" / f"{record.key}.json"
    fresh = Store(lab.store.root, lab.store.cache)
    assert fresh.get("toy", record.key) == record == fresh.records()[0] == fresh.find(make.trial())[0]
    assert json.loads(path.read_text())["schema"] == 1


def test_an_empty_store_answers(tmp_path, lab, make):
    empty = Store(tmp_path / "nowhere", tmp_path / "cache")
    assert empty.records() == [] == empty.find(make.trial()) == empty.runs("toy", "0" * 16)
    assert empty.get("toy", "0" * 16) is None


def test_writing_again_is_seen_at_once(lab, make):
    record = make.record(make.trial())
    lab.store.save(record)
    assert lab.store.get("toy", record.key) == record
    path = lab.store.save(later(record), replace=True)
    os.utime(path, ns=(1, 1))  # even with an older time than before, say from an unpacked archive
    assert lab.store.get("toy", record.key) == later(record)


def test_the_same_record_twice_is_one_file(lab, make):
    record = make.record(make.trial())
    assert lab.store.save(record) == lab.store.save(record)
    assert len(list(lab.store.root.glob("*/*"))) == 1


def test_a_second_run_stands_beside_the_first(lab, make):
    record = make.record(make.trial())
    paths = {lab.store.save(each) for each in (record, later(record), later(record, 3.0))}
    names = sorted(path.name for path in paths)
    assert len(names) == 3 and f"{record.key}.json" in names
    assert all(name.startswith(f"{record.key}.") and name.endswith(".json") for name in names)
    assert lab.store.get("toy", record.key) == record == lab.store.runs("toy", record.key)[0]
    assert len(lab.store.runs("toy", record.key)) == 3 == len(lab.store.records())


def test_a_failure_never_hides_a_success_and_a_success_replaces_a_failure(lab, make):
    ok, failed = make.record(make.trial()), make.record(make.trial(), status="failed")
    lab.store.save(failed)
    lab.store.save(ok)
    assert lab.store.runs("toy", ok.key) == [ok]
    lab.store.save(failed)
    assert lab.store.get("toy", ok.key) == ok
    assert failed in lab.store.runs("toy", ok.key)


def test_replacing_takes_the_place_of_all_runs(lab, make):
    record = make.record(make.trial())
    other = make.record(make.trial(2))
    for each in (record, later(record), other):
        lab.store.save(each)
    lab.store.save(later(record, 5.0), replace=True)
    assert lab.store.runs("toy", record.key) == [later(record, 5.0)]
    assert lab.store.get("toy", other.key) == other


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1}', b"\xff\xfe\x00", b"[]"])
def test_a_broken_record_is_set_aside_with_a_warning(lab, make, content):
    good, bad = make.record(make.trial()), make.record(make.trial(2))
    lab.store.save(good)
    path = lab.store.save(bad)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{path.name} cannot be used .*; set aside as {path.name}.broken"):
        assert lab.store.records() == [good]
    assert path.with_name(path.name + ".broken").read_bytes() == content
    assert lab.store.get("toy", bad.key) is None
    lab.store.save(bad)
    assert lab.store.get("toy", bad.key) == bad


def test_a_record_under_another_name_is_not_believed(lab, make):
    record = make.record(make.trial())
    path = lab.store.save(record)
    path.rename(path.with_name("0123456789abcdef.json"))
    with pytest.warns(UserWarning, match=f"holds the record of toy/{record.key}"):
        assert lab.store.records() == []


@pytest.mark.parametrize(
    ("new", "named"), [('"schema": 2', "schema"), ('"schema": 1, "power": 3', "power"), ('"schema": "x"', "schema")]
)
def test_records_of_another_version_are_not_read_and_stay(lab, make, new, named):
    path = lab.store.save(make.record(make.trial()))
    path.write_text(path.read_text().replace('"schema": 1', new))
    with pytest.warns(UserWarning, match=rf"{path.name} is not read: another version of efflib wrote it \({named}\)"):
        assert lab.store.records() == []
    assert path.exists() and lab.store.records() == []  # said once


def test_a_killed_writer_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    write_atomically(path, "new")
    assert path.read_text() == "new"


def with_weights(lab, make, value: float = 1.0) -> Record:
    trial = make.trial()
    record = make.record(trial)
    weights = lab.store.save_weights(record.key, {"w": torch.full((2, 3, 4, 4), value)})
    record = record.model_copy(update={"weights": weights})
    lab.store.save(record)
    return record


def test_weights_come_back_whatever_their_memory_order(lab, make):
    record = make.record(make.trial())
    state = {
        "w": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "n": torch.tensor(7),
        "half": torch.randn(3).bfloat16(),
    }
    record = record.model_copy(update={"weights": lab.store.save_weights(record.key, state)})
    loaded = lab.store.load_weights(record)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) and loaded[name].dtype == state[name].dtype for name in state)
    assert record.weights.bytes == lab.store.weights_path(record.key, record.weights.sha256).stat().st_size


def test_altered_weights_are_set_aside(lab, make):
    record = with_weights(lab, make)
    path = lab.store.weights_path(record.key, record.weights.sha256)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="its checksum is another than its record's"):
        assert lab.store.load_weights(record) is None
    assert path.with_name(path.name + ".broken").exists() and not path.exists()
    assert lab.store.load_weights(record) is None


def test_every_run_of_a_key_has_weights_of_its_own(lab, make):
    # A GPU's record merged here, then the same trial run on this CPU: two runs of one key.
    first = with_weights(lab, make, 1.0)
    second = later(first, weights=lab.store.save_weights(first.key, {"w": torch.full((2,), 2.0)}))
    lab.store.save(second)
    assert float(lab.store.load_weights(first)["w"].max()) == 1.0
    lab.store.weights_path(first.key, first.weights.sha256).unlink()
    assert lab.store.load_weights(first) is None
    record, state = lab.store.weights_of(lab.store.runs("toy", first.key))
    assert record == second and float(state["w"][0]) == 2.0


def test_checkouts_that_share_a_cache_leave_each_others_weights_alone(lab, make, tmp_path):
    mine = with_weights(lab, make, 1.0)
    other = Store(tmp_path / "another checkout", lab.store.cache)
    theirs = mine.model_copy(update={"weights": other.save_weights(mine.key, {"w": torch.full((2,), 2.0)})})
    other.save(theirs)
    assert float(lab.store.load_weights(mine)["w"].max()) == 1.0 and float(other.load_weights(theirs)["w"].max()) == 2.0


def test_replaced_runs_take_their_weights_with_them(lab, make):
    first = with_weights(lab, make, 1.0)
    second = later(first, weights=lab.store.save_weights(first.key, {"w": torch.full((2,), 2.0)}))
    lab.store.save(second, replace=True)
    assert not lab.store.has_weights(first) and lab.store.has_weights(second)
    lab.store.save(later(second, 5.0), replace=True)  # the same weights once more
    assert lab.store.has_weights(second)


def test_roots_follow_the_environment(lab, tmp_path, monkeypatch):
    assert results_root() == tmp_path / "results" == Store.for_scale("tiny").root
    monkeypatch.setenv("EFFLIB_RESULTS", "~/records")
    assert "~" not in str(results_root())
    assert Store.for_scale("smoke").root == smoke_root() != results_root()
    monkeypatch.delenv("EFFLIB_RESULTS")
    assert results_root().name == "results"


def test_smoke_records_are_ignored_by_git():
    ignored = (smoke_root().parents[1] / ".gitignore").read_text().split()
    assert any(line.strip("/") == smoke_root().parent.name for line in ignored)


def test_an_unknown_scale_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown scale: 'big'\. Valid: smoke, tiny, small, paper"):
        Store.for_scale("big")
