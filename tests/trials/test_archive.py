"""Export and merge: everything comes home, or nothing is written."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
import torch

from efflib.trials import Store, export, merge
from efflib.trials.archive import ArchiveDamaged, Merged


@pytest.fixture
def filled(lab, make):
    """A store with an ok record (with weights), a second run of it, a failure, and a record of another recipe."""
    parent = make.trial(1)
    record = make.record(parent)
    weights = lab.store.save_weights(record.key, {"w": torch.ones(3)})
    record = record.model_copy(update={"weights": weights})
    again = record.model_copy(update={"provenance": record.provenance.model_copy(update={"device": "a GPU"})})
    for each in (record, again, make.record(make.trial(2), status="failed"), make.record(make.child(parent))):
        lab.store.save(each)
    return lab.store


@pytest.fixture
def empty(tmp_path):
    return Store(tmp_path / "home", tmp_path / "home cache")


def names(store):
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*.json"))


def contents(store):
    return {name: (store.root / name).read_bytes() for name in names(store)}


def test_a_round_trip_brings_every_record_home(filled, empty, tmp_path):
    assert export(filled, tmp_path / "a.tar.gz") == 4
    assert merge(empty, tmp_path / "a.tar.gz") == Merged(added=3, known=0, second_runs=1, weights=0)
    assert contents(empty) == contents(filled)
    assert not (empty.cache / "weights").exists()


def test_merging_twice_changes_nothing(filled, empty, tmp_path):
    export(filled, tmp_path / "a.tar.gz")
    merge(empty, tmp_path / "a.tar.gz")
    before = contents(empty)
    assert merge(empty, tmp_path / "a.tar.gz") == Merged(added=0, known=4, second_runs=0, weights=0)
    assert contents(empty) == before


def test_weights_travel_on_request(filled, empty, tmp_path):
    export(filled, tmp_path / "a.tar.gz", weights=True)
    assert merge(empty, tmp_path / "a.tar.gz").weights == 1
    record = next(record for record in empty.records() if record.weights)
    assert torch.equal(empty.load_weights(record)["w"], torch.ones(3))
    assert merge(empty, tmp_path / "a.tar.gz").weights == 0


def test_one_recipe_can_be_packed_alone(filled, empty, tmp_path):
    assert export(filled, tmp_path / "a.tar.gz", recipes=["toychild"]) == 1
    merge(empty, tmp_path / "a.tar.gz")
    assert [record.recipe for record in empty.records()] == ["toychild"]


def test_nothing_to_export_is_an_error(filled, empty, tmp_path):
    with pytest.raises(ValueError, match=r"no records to export in .* for \['bimask'\]"):
        export(filled, tmp_path / "a.tar.gz", recipes=["bimask"])
    with pytest.raises(ValueError, match="no records to export"):
        export(empty, tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()


def test_a_broken_record_is_not_packed(filled, empty, tmp_path):
    broken = filled.root / names(filled)[0]
    broken.write_text("{")
    with pytest.warns(UserWarning, match="set aside"):
        assert export(filled, tmp_path / "a.tar.gz") == 3  # of four
    assert merge(empty, tmp_path / "a.tar.gz").known == 0


def test_a_conflicting_run_is_kept_beside_what_is_here(lab, make, empty, tmp_path):
    here, elsewhere = make.record(make.trial(), metrics={"last": 1.0}), make.record(make.trial(), metrics={"last": 2.0})
    empty.save(here)
    lab.store.save(elsewhere)
    export(lab.store, tmp_path / "a.tar.gz")
    assert merge(empty, tmp_path / "a.tar.gz") == Merged(added=0, known=0, second_runs=1, weights=0)
    assert empty.get("toy", here.key) == here
    assert empty.runs("toy", here.key) == [here, elsewhere]
    assert merge(empty, tmp_path / "a.tar.gz").known == 1


def test_a_failure_from_elsewhere_does_not_hide_a_success_here(lab, make, empty, tmp_path):
    ok, failed = make.record(make.trial()), make.record(make.trial(), status="failed")
    empty.save(ok)
    lab.store.save(failed)
    export(lab.store, tmp_path / "a.tar.gz")
    merge(empty, tmp_path / "a.tar.gz")
    assert empty.get("toy", ok.key) == ok


def refused(store, path, match):
    with pytest.raises(ArchiveDamaged, match=match):
        merge(store, path)
    assert not store.root.exists() and not store.cache.exists()


def test_a_missing_archive_is_a_missing_file(empty, tmp_path):
    with pytest.raises(FileNotFoundError):
        merge(empty, tmp_path / "none.tar.gz")


def test_truncated_and_altered_archives_are_refused_whole(filled, empty, tmp_path):
    path = tmp_path / "a.tar.gz"
    export(filled, path, weights=True)
    whole = path.read_bytes()
    for end in (0, 1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:end])
        refused(empty, path, "a.tar.gz")
    for place in range(12, len(whole) - 8, max(1, len(whole) // 40)):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        refused(empty, path, ".")


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"PK\x03\x04", b"\x1f\x8b\x08\x00" + b"\x00" * 40])
def test_other_files_are_refused(empty, tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    refused(empty, tmp_path / "a.tar.gz", "cannot be read|has no readable")


def pack(path, members, manifest=None):
    """An archive with a matching list of checksums, as someone who means harm would make it."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in members if isinstance(content, bytes)}
    manifest = json.dumps(sums).encode() if manifest is None else manifest
    with tarfile.open(path, "w:gz") as tar:
        for name, content in [("SHA256SUMS.json", manifest), *members]:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/tmp/evil.json", "records/../../evil.json", "records/toy/evil.json", "weights/../a.safetensors",
     "records/toy/0123456789abcdef.sh", "records/Toy/0123456789abcdef.json", "records/toy/x/0123456789abcdef.json"],
)  # fmt: skip
def test_unsafe_or_unknown_names_are_refused(empty, tmp_path, name):
    pack(tmp_path / "a.tar.gz", [(name, b"{}")])
    refused(empty, tmp_path / "a.tar.gz", "unexpected")


def test_links_are_refused(empty, tmp_path):
    pack(tmp_path / "a.tar.gz", [("records/toy/0123456789abcdef.json", "/etc/passwd")])
    refused(empty, tmp_path / "a.tar.gz", "is not a plain file")


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"\xff"])
def test_an_unreadable_list_of_checksums_is_refused(empty, tmp_path, manifest):
    pack(tmp_path / "a.tar.gz", [], manifest)
    refused(empty, tmp_path / "a.tar.gz", "has no readable SHA256SUMS.json")


def test_members_that_are_not_listed_are_refused(lab, make, empty, tmp_path):
    record = make.record(make.trial())
    member = (f"records/toy/{record.key}.json", record.model_dump_json(by_alias=True).encode())
    pack(tmp_path / "a.tar.gz", [member], b"{}")
    refused(empty, tmp_path / "a.tar.gz", "unexpected")
    pack(tmp_path / "a.tar.gz", [], json.dumps({member[0]: "0" * 64}).encode())
    refused(empty, tmp_path / "a.tar.gz", "altered or missing")


def test_one_invalid_record_refuses_the_whole_archive(lab, make, empty, tmp_path):
    record = make.record(make.trial())
    good = (f"records/toy/{record.key}.json", record.model_dump_json(by_alias=True).encode())
    pack(tmp_path / "a.tar.gz", [good, ("records/toy/0123456789abcdef.json", b'{"schema": 1}')])
    refused(empty, tmp_path / "a.tar.gz", "records/toy/0123456789abcdef.json is not a valid record")


@pytest.mark.parametrize("change", [{"recipe": "../../evil"}, {"key": "../../evil"}, {"recipe": "baseline"}])
def test_a_record_cannot_choose_another_file_than_its_members_name(lab, make, empty, tmp_path, change):
    record = make.record(make.trial())
    name = f"records/toy/{record.key}.json"
    pack(tmp_path / "a.tar.gz", [(name, record.model_copy(update=change).model_dump_json(by_alias=True).encode())])
    refused(empty, tmp_path / "a.tar.gz", f"{name} holds the record of")


def test_a_killed_export_leaves_the_old_archive(filled, tmp_path, monkeypatch):
    path = tmp_path / "a.tar.gz"
    export(filled, path)
    before = path.read_bytes()

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export(filled, path, weights=True)
    assert path.read_bytes() == before
