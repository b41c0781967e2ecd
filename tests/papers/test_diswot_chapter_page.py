"""What the DisWOT chapter shows live: its identities hold, its counts and choices are the ones it names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from shown import rows_of
from torch import nn

from efflib.data import find_duplicates, load_dataset
from efflib.data.embedded import PHANTOM
from efflib.data.phantom import planes_of
from efflib.explain import localisation
from efflib.papers.distillation import work_of
from efflib.papers.diswot import arms, chapter_page
from efflib.papers.diswot.agreement import LAYERS, identity_table
from efflib.papers.diswot.scores import Scored
from efflib.papers.diswot.space import build
from efflib.training import seeded

mpl.use("agg")


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    """Untrained networks in eval mode, whose biases and running statistics are not those of the start."""
    found = {}
    with seeded(0, "chapter page"):
        for name, member in (("teacher", "w035-d11-flatten"), ("student", "w035-d11-gap")):
            network = build(member, 64).train()
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.BatchNorm2d):
                    nn.init.uniform_(module.bias, -0.3, 0.3)
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
            network(torch.rand(8, 1, 64, 64))
            found[name] = network.eval()
    return found


@pytest.fixture(scope="module")
def seen(networks: dict[str, nn.Module]) -> chapter_page.Explained:
    return chapter_page.explain(networks, per_class=2)


# --- what the chapter found -------------------------------------------------------------------------------


def test_a_page_without_records_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFLIB_RESULTS", str(tmp_path))
    lines = chapter_page.up_front().data.splitlines()
    assert len(lines) == len(chapter_page.PAGES)
    assert all(line.endswith("no claim has been tested on real data yet.") for line in lines)
    assert "(table3_8.ipynb)" in lines[-1]


def test_verdicts_are_counted_at_the_largest_scale_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    def comparison(*verdicts: str) -> Any:
        return SimpleNamespace(claims=[(None, SimpleNamespace(verdict=verdict)) for verdict in verdicts])

    small, paper = ("undetermined", "contradicted", "undetermined", "not run"), ("not run", "not run")
    recorded = {"tiny": comparison("supported"), "small": comparison(*small), "paper": comparison(*paper)}
    monkeypatch.setattr(chapter_page, "TablePage", lambda table, scale, seeds: SimpleNamespace(recorded=recorded))
    (first, *_) = chapter_page.up_front().data.splitlines()
    assert first.endswith("of 4 claims, 1 contradicted, 2 undetermined, 1 not run (scale `small`).")


# --- the data ---------------------------------------------------------------------------------------------


def test_the_line_around_a_tumour_leaves_its_pixels() -> None:
    image, mask = np.full((8, 8, 1), 90, np.uint8), np.zeros((8, 8), bool)
    mask[3:5, 3:5] = True
    drawn = chapter_page.outlined(chapter_page.grey(image), mask)
    assert drawn.shape == (32, 32, 3)
    line = (drawn == chapter_page.OUTLINE).all(axis=2)
    assert line.any()
    assert (drawn[~line] == 90).all()
    assert not line[12:20, 12:20].any()
    assert not line[:10].any()


def test_an_example_of_every_class_in_every_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: dict[str, Any] = {}
    monkeypatch.setattr(chapter_page, "image_grid", lambda rows, columns, lines, alt: caught.update(rows=rows, alt=alt))
    monkeypatch.setattr(chapter_page, "outlined", lambda image, mask: (image, mask))
    chapter_page.examples_strip()
    data = load_dataset("phantom", "test")
    planes = planes_of(data.indices, PHANTOM["test"][1])
    for plane, row in enumerate(caught["rows"]):
        for label, (image, mask) in enumerate(row):
            (place,) = [n for n in range(len(data)) if (chapter_page.grey(data.images[n]) == image).all()]
            assert (planes[place], data.labels[place]) == (plane, label)
            assert mask.any() == (data.classes[label] != "notumor")


def test_the_classes_of_the_real_set() -> None:
    counts = chapter_page.class_counts()
    assert [sum(counts[split].values()) for split in ("train", "test")] == [5712, 1311]
    assert "train: glioma 1321, meningioma 1339, notumor 1595, pituitary 1457" in chapter_page.classes_figure().data
    told = chapter_page.leak_words().data
    assert "216 of the 1,311 test images (16.5 %)" in told
    assert "467 are at least nearly so; 844 are left" in told
    assert "right on 1,281, 97.71 %" in told


def test_leaks_by_class_come_from_the_record(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full, clean = np.diag([290, 300, 400, 300]), np.diag([290, 190, 50, 295])
    full[0, 1], full[1, 0], full[2, 0], clean[0, 1], clean[1, 0] = 10, 6, 5, 10, 7
    metrics = {"confusion": full.tolist(), "leak_free_confusion": clean.tolist()}
    rows = {row["class"]: row for row in chapter_page.leak_rows(metrics)}
    assert rows["meningioma"][chapter_page.COPIES] == "106"
    assert (rows["meningioma"]["copies and near copies"], rows["meningioma"]["leak-free"]) == ("109", "197")
    assert rows["notumor"]["nearest neighbour, %"] == f"{100 * 400 / 405:.2f}"
    assert rows["glioma"]["on leak-free images, %"] == f"{100 * 290 / 300:.2f}"
    assert (rows["all"]["copies and near copies"], rows["all"]["leak-free"]) == (f"{1311 - 842}", "842")
    assert rows["all"]["nearest neighbour, %"] == f"{100 * 1290 / 1311:.2f}"
    monkeypatch.setattr(chapter_page, "neighbour_record", lambda: ("small", metrics))
    assert "record of scale small" in chapter_page.leak_table().data
    monkeypatch.undo()
    monkeypatch.setenv("EFFLIB_RESULTS", str(tmp_path))
    assert chapter_page.neighbour_record() is None
    assert "no record of either is here yet" in chapter_page.leak_table().data


def test_copies_are_measured_on_the_data_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row["class"]: row for row in rows_of(chapter_page.copies_table("phantom"))}
    wanted = {"class": "all", "test images": "400", "exact copies": "0", "copies and near copies": "0"}
    assert rows["all"] == {**wanted, "leak-free": "400"}
    data = load_dataset("phantom", "test").take(range(6))
    leaked = find_duplicates(data.take([0, 1, 1]), data)
    monkeypatch.setattr(chapter_page, "leakage", lambda name: leaked)
    rows = {row["class"]: row for row in rows_of(chapter_page.copies_table("phantom"))}
    assert (rows["all"]["exact copies"], rows["all"]["leak-free"]) == ("2", "4")


# --- maps -------------------------------------------------------------------------------------------------


def test_slices_with_a_tumour_of_every_class(seen: chapter_page.Explained) -> None:
    assert [seen.data.classes[label] for label in seen.data.labels] == [
        "glioma", "glioma", "meningioma", "meningioma", "pituitary", "pituitary",
    ]  # fmt: skip
    assert np.asarray(seen.data.masks).any(axis=(1, 2)).all()


def test_both_maps_of_the_student_are_one_at_the_last_layer_alone(seen: chapter_page.Explained) -> None:
    own = seen.maps["student"]
    torch.testing.assert_close(own["s32", "gradcam"], own["s32", "gxa"], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(own["s16", "gradcam"], own["s16", "gxa"], rtol=0.1, atol=0)
    other = seen.maps["teacher"]
    assert not torch.allclose(other["s32", "gradcam"], other["s32", "gxa"], rtol=0.1, atol=0)


def test_the_identity_table_tells_the_heads_apart(networks: dict[str, nn.Module]) -> None:
    teacher, student = rows_of(identity_table(networks, chapter_page.tumours(1)))
    assert (teacher["network"], student["network"]) == ("teacher (flatten)", "student (global average)")
    assert student[LAYERS["s32"]] == "below 1e-12"
    assert float(teacher[LAYERS["s32"]]) > 0.01
    assert float(student[LAYERS["s16"]]) > 0.01


def test_localisation_rows_are_those_of_the_maps(seen: chapter_page.Explained) -> None:
    rows = chapter_page.localisation_rows(seen)
    assert len(rows) == 2 * len(chapter_page.MAPS)
    masks = torch.from_numpy(np.asarray(seen.data.masks))
    row = next(r for r in rows if (r["network"], r["map of"], r["made by"]) == ("student", "pixels", "LRP"))
    found = localisation(seen.maps["student"]["input", "lrp"], masks)
    assert (row["peak in the tumour"], row["share inside"]) == (found["pointing"], found["inside"])
    shown = rows_of(chapter_page.localisation_table(rows))
    assert shown[0]["share inside"] == f"{rows[0]['share inside']:.2f}"


def test_an_empty_map_is_counted() -> None:
    data = chapter_page.tumours(1)
    maps = torch.zeros(len(data), 64, 64)
    maps[0, 0, 0] = 1
    every = dict.fromkeys(chapter_page.MAPS, maps)
    row = chapter_page.localisation_rows(chapter_page.Explained(data, {"student": every}, np.ones(3, bool)))[0]
    assert row["empty maps"] == pytest.approx(2 / 3)


def test_the_words_name_the_map_that_points_best() -> None:
    rows = [
        {"network": "student", "map of": LAYERS[layer], "made by": chapter_page.MADE_BY[kind]}
        | {"peak in the tumour": 0.9 if (layer, kind) == ("s16", "gradcam") else 0.25, "area of the tumour": 0.034}
        for layer, kind in chapter_page.MAPS
    ]
    told = chapter_page.localisation_words(rows).data
    assert "most often with Grad-CAM at the map before the last stride (90% of the slices)" in told
    assert "gradient x activation, at the last map it does in 25%" in told
    assert "A random pixel would in 3.4%" in told


def test_the_strip_shows_a_slice_that_all_networks_get_right(
    seen: chapter_page.Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: dict[str, Any] = {}
    monkeypatch.setattr(
        chapter_page, "image_grid", lambda rows, columns, lines, alt: caught.update(rows=rows, lines=lines)
    )
    right = np.array([False, True, False, False, True, True])  # no meningioma: its first slice stands there
    chapter_page.maps_strip(chapter_page.Explained(seen.data, seen.maps, right))
    assert caught["lines"] == [f"{name},\n{who}" for name in ("glioma", "meningioma", "pituitary") for who in seen.maps]
    masks = np.asarray(seen.data.masks)
    for row, place in zip(caught["rows"][::2], (1, 2, 4), strict=True):
        wanted = chapter_page.outlined(chapter_page.grey(seen.data.images[place]), masks[place])
        np.testing.assert_array_equal(row[0], wanted)
        assert len(row) == 1 + len(chapter_page.DRAWN)


def test_a_map_of_zeros_stays_one() -> None:
    assert not chapter_page.scaled(np.zeros((2, 2), np.float32)).any()
    assert chapter_page.scaled(np.array([[1.0, 4.0]])).tolist() == [[0.25, 1.0]]


# --- conservation -----------------------------------------------------------------------------------------


def test_without_biases_every_rule_accounts_for_all_of_the_logit(networks: dict[str, nn.Module]) -> None:
    student = networks["student"]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    rows = {row["rule"]: row for row in rows_of(chapter_page.conservation_table(student, per_class=1))}
    assert list(rows) == list(chapter_page.RULES.values())
    for rule, row in rows.items():
        ends = [float(row[f"without biases, {end}"]) for end in ("smallest", "largest")]
        assert (ends == pytest.approx([1, 1], abs=2e-3)) == (rule != chapter_page.RULES["gxa"])
    kept = chapter_page.ratios(student, chapter_page.tumours(1), "gamma")
    assert rows["gamma"]["as trained, median"] == f"{float(kept.median()):.2f}"
    assert float((kept - 1).abs().max()) > 0.01
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


# --- the score --------------------------------------------------------------------------------------------


def test_orders_and_ranks_follow_the_draws() -> None:
    terms = {"semantic": (1.0, 0.5, 0.7), "relation": (0.1, 0.2, 0.3)}
    found = {
        name: Scored(name, "thesis", draws, terms, 2.828)
        for name, draws in {"a": (1.1, 0.9, 0.5), "b": (1.0, 1.2, 1.4), "c": (1.3, 0.8, 0.6)}.items()
    }
    assert list(chapter_page.orders(found)) == [("b", "a", "c"), ("c", "a", "b"), ("a", "c", "b")]
    rows = rows_of(chapter_page.scores_table(found))
    assert rows[0] == {"draw": "1", "a": "1.100 (rank 2)", "b": "1.000 (rank 1)", "c": "1.300 (rank 3)"}
    assert rows[-2]["a"] == f"{np.mean(terms['semantic']):.3f}"
    told = chapter_page.scores_words(found).data
    assert "`a` in 1, `b` in 1, `c` in 1. 3 different orders of 3 students" in told


def test_live_scores_are_of_the_smoke_students_and_below_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(chapter_page, "load_dataset", lambda *names: asked.append(names) or load_dataset(*names))
    found = chapter_page.scored(0, draws=2, batch=4)
    assert asked == [("phantom", "train")], "scores choose a student: test slices are not for that"
    assert list(found) == [member.name for member in arms.SIZES["smoke"].students]
    for each in found.values():
        assert len(each.draws) == 2
        assert all(0 < draw < each.bound for draw in each.draws)
        assert each.bound == pytest.approx(2 * np.sqrt(2))
        np.testing.assert_allclose(each.draws, np.sum(list(each.terms.values()), axis=0))


# --- the loss ---------------------------------------------------------------------------------------------


def test_cosine_is_half_of_the_square_and_fades(networks: dict[str, nn.Module]) -> None:
    rows = chapter_page.distances(networks, chapter_page.tumours(2), (1.0, 0.1, 0.01))
    for row in rows:
        assert row["half of its square"] == pytest.approx(row["cosine (eq. 2.27)"], rel=1e-6)
        assert row["half of its square"] == pytest.approx(row["L2 (eq. 2.12)"] ** 2 / 2)
    (_, near, nearer) = rows
    assert nearer["gradient of L2"] == pytest.approx(near["gradient of L2"], rel=0.2)
    assert nearer["gradient of cosine"] < 0.15 * near["gradient of cosine"]
    shown = rows_of(chapter_page.distances_table(networks, per_class=1))
    assert [row["way from the teacher"] for row in shown] == ["1", "0.5", "0.1", "0.01"]
    assert all(row["half of its square"] == row["cosine (eq. 2.27)"] for row in shown)


def test_the_cost_of_maps_grows_with_what_lies_behind_them() -> None:
    rows = {row["loss"]: row for row in rows_of(chapter_page.cost_table("tiny"))}
    settings: Any = arms.distilled("tiny", arms.BEST, 0, "kd").settings
    kd = work_of(settings)
    assert kd.modules == 0
    assert rows["KD"]["against cross-entropy"] == f"{kd.step / (3 * kd.student):.2f}"
    assert rows["cross-entropy"]["against cross-entropy"] == "1.00"
    last, before = (rows[f"DisWOT+, {LAYERS[layer]}"] for layer in ("s32", "s16"))
    assert 0 < float(last["maps"]) < 0.2 * float(before["maps"])
    work = chapter_page.step_work("s16", "tiny")
    assert before["step"] == f"{(3 * work.student + work.teacher + 3 * work.modules) / 1e9:.2f}"


# --- the pair ---------------------------------------------------------------------------------------------


def test_the_pair_is_that_of_the_smoke_tables() -> None:
    asked = chapter_page.trials(3)
    size = arms.SIZES["smoke"]
    assert asked["teacher"] == arms.alone("smoke", size.teacher, 3)
    assert asked["student"] == arms.alone("smoke", size.best, 3)
    entries = [SimpleNamespace(metrics={"last": value}) for value in (71.25, 80.0)]
    results: Any = SimpleNamespace(entries=entries)
    teacher, student = rows_of(chapter_page.networks_table(asked, results))
    assert (teacher["head"], student["head"]) == ("flatten", "gap")
    assert (teacher["test accuracy, %"], student["test accuracy, %"]) == ("71.2", "80.0")
    assert student["parameters"] == "677,092"
