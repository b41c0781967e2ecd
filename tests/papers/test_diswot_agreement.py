"""The page of table 3.5: pictures of maps, pointing, the identity and the algebra, on networks made here."""

from __future__ import annotations

import base64
import html
import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from diswot_networks import network, pixels
from made_records import recorded
from shown import rows_by_name

from efflib.data import ImageSet, load_dataset, render_phantom
from efflib.data.embedded import PHANTOM
from efflib.data.phantom import planes_of
from efflib.distill.diswot_plus import semantic_loss
from efflib.explain import grad_cam, relevance
from efflib.models import create_model
from efflib.papers.diswot import agreement
from efflib.papers.diswot.arms import SIZES
from efflib.papers.diswot.maps import KINDS, LAYERS
from efflib.papers.diswot.tables import tables
from efflib.trials import Entry, Results, Store

mpl.use("agg")

LAYER = "s16"


@pytest.fixture(scope="module")
def found() -> dict[str, torch.nn.Module]:
    return {"teacher": network("flatten", 0), "lrp_cosine": network("gap", 1), "gradcam_l2": network("gap", 2)}


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return render_phantom(8, 5)


# --- networks ---------------------------------------------------------------------------------------------


def test_networks_are_those_of_the_first_seed_with_weights(monkeypatch, tmp_path) -> None:
    class Usable(Entry):
        usable = True

    table = tables["table3_5"]
    entries = [Usable(cell, seed, trial) for cell, seed, trial in table.entries("smoke", 2)]
    asked = []

    def weights(trial: Any, store: Store) -> str:
        asked.append(trial)
        if trial.recipe == "distill" and trial.config["options"]["map"] == "gxa":
            raise FileNotFoundError
        return trial.recipe

    monkeypatch.setattr(agreement, "trained_model", weights)
    named = agreement.networks(Results(table, "smoke", entries), Store(tmp_path))
    assert named == {"teacher": "baseline", "gradcam_l2": "distill", "baseline": "baseline"}
    assert {trial.config["seed"] for trial in asked} == {0}
    assert asked[0] is entries[0].trial.parents["teacher"]


# --- maps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["s32", "s16"])
def test_maps_are_read_where_the_page_says(found, data, layer) -> None:
    chosen = agreement.one_of_each_plane(found, layer, 20)
    output = agreement.maps_figure(found, chosen, "gradcam", layer)
    assert f"aps at {layer} o" in output.data
    assert f"phantom, {layer}, double" in agreement.algebra_table(found, data, layer).data


@pytest.mark.parametrize("scale", SIZES)
def test_the_map_of_a_scale_is_as_coarse_as_told(scale) -> None:
    size = SIZES[scale]
    with torch.no_grad():
        made = create_model("mobilenetv2", 4, width=0.35, depth=11, head="gap", dropout=0.0)
        shape = made.maps(torch.zeros(2, 1, size.side, size.side))[size.layers].shape
    told = agreement.coarseness(scale).data
    assert f"at {size.layers}. At {size.side} px these have {shape[2]} x {shape[3]} positions" in told
    assert f"{size.side // shape[2]} x {size.side // shape[3]} pixels." in told
    assert ("corner" in told) == (shape[2] == 2)


def test_the_peak_of_four_positions_fills_a_corner(found) -> None:
    heat = grad_cam(found["teacher"], pixels(load_dataset("phantom", "test").take(range(12))), "s32", "predicted")
    for one in heat[heat.amax((1, 2)) > 0]:
        down, right = np.unravel_index(int(one.argmax()), one.shape)
        assert min(down, 63 - down) < 16 and min(right, 63 - right) < 16


# --- tumours ----------------------------------------------------------------------------------------------


def test_the_tumour_table_is_a_mean_over_seeds() -> None:
    looks = []
    for name in ("fig3_8", "fig3_9"):
        entries = []
        for cell, seed, trial in tables[name].entries("smoke", 2, methods=["lrp_cosine"]):
            points = 0.03 if cell["network"] == "uniform" else 0.4 + 0.2 * seed
            numbers = {"points_at_tumour": points, "inside_tumour": points / 2}
            record = recorded(trial, {"maps": {cell["map"]: {cell["network"]: numbers}}})
            entries.append(Entry(cell, seed, trial, record, view=tables[name].view))
        looks.append(Results(tables[name], "smoke", entries))
    output = agreement.tumour_table(*looks)
    rows = rows_by_name(output, 2)
    assert list(rows) == [(words, own) for words in KINDS.values() for own in ("teacher", "LRP + cosine", "uniform")]
    assert rows["Grad-CAM", "teacher"]["peak in the tumour"] == "50.0%"
    assert rows[KINDS["lrp"], "LRP + cosine"]["share of the map in it"] == "25.0%"
    assert rows[KINDS["gxa"], "uniform"]["peak in the tumour"] == "3.0%"
    assert "true class at s32, propagated ones at s16, on those of the first 200 test images of phantom" in output.data


def test_no_tumours_are_known_where_none_is_recorded() -> None:
    entries = [Entry(*each) for each in tables["fig3_8"].entries("tiny", 1)]
    told = agreement.tumour_table(Results(tables["fig3_8"], "tiny", entries)).data
    assert "maps are recorded here on images whose tumours are known" in told


# --- pictures ---------------------------------------------------------------------------------------------


def test_one_slice_of_each_plane_with_a_tumour_and_maps(found) -> None:
    chosen = agreement.one_of_each_plane(found, LAYER, 40)
    data = load_dataset("phantom", "test").take(range(40))
    planes, tumour = planes_of(data.indices, PHANTOM["test"][1]), data.masks.any(axis=(1, 2))
    alive = tumour & np.all([grad_cam(own, pixels(data), "s16").amax((1, 2)) > 0 for own in found.values()], axis=0)
    assert (alive != tumour).any(), "some have to be passed over"
    for plane, index in enumerate(chosen.indices):
        usual = [i for i in range(40) if planes[i] == plane and tumour[i]]
        wanted = [i for i in usual if alive[i]] or usual
        assert data.indices[wanted[0]] == index
    assert planes_of(agreement.one_of_each_plane({}, LAYER, 40).indices, PHANTOM["test"][1]).tolist() == [0, 1, 2]


def test_pictures_say_prediction_and_peak(found) -> None:
    from PIL import Image

    chosen = agreement.one_of_each_plane(found, LAYER, 40)
    output = agreement.maps_figure(found, chosen, "gxa", LAYER)
    drawn = re.findall(r'<img class="only-(\w+)" alt="([^"]+)" src="data:image/png;base64,([^"]+)">', output.data)
    assert [theme for theme, _, _ in drawn] == ["light", "dark"]
    assert all(np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))[..., 3].any() for _, _, png in drawn)
    alt = html.unescape(drawn[0][1])
    images = pixels(chosen)
    heat = relevance(found["teacher"], images, "s16", "predicted", "gxa")
    for line, plane in enumerate(("axial", "sagittal", "coronal")):
        seen = chosen.classes[int(found["teacher"](images)[line].argmax())]
        peak = np.unravel_index(int(heat[line].argmax()), (64, 64))
        where = "in" if chosen.masks[line][peak] else "outside"
        where = f"peak {where} the tumour" if heat[line].any() else "map is zero"
        assert "maps at s16 over" in alt
        told = f"{plane} slice with {chosen.classes[chosen.labels[line]]}: teacher sees {seen}, {where}; LRP + cosine"
        assert told in alt


# --- identity and algebra ---------------------------------------------------------------------------------


def test_the_maps_coincide_at_the_last_layer_of_a_global_average_alone(found, data) -> None:
    rows = rows_by_name(agreement.identity_table(found, data))
    student, teacher = rows["LRP + cosine (global average)"], rows["teacher (flatten)"]
    last, before = LAYERS["s32"], LAYERS["s16"]
    assert student[last] == "below 1e-12" and float(teacher[last]) > 0.01 and float(student[before]) > 0.01


def test_cosine_is_half_of_the_squared_distance(found, data) -> None:
    rows = rows_by_name(agreement.algebra_table(found, data, LAYER))
    assert len(rows) == 3
    for row in rows.values():
        assert float(row["half of the squared L2 distance"]) == pytest.approx(float(row["1 - cosine"]), abs=2e-9)
        assert float(row["1 - cosine"]) > 1e-3 and float(row["difference"]) < 1e-11


def test_only_the_unsquared_distance_keeps_its_gradient(found) -> None:
    rows = rows_by_name(agreement.distances_table())
    doubled = {name: row["value if both maps double"] for name, row in rows.items()}
    assert doubled.pop("maps, L2 raw (eq. 2.19)") == "x 4.00" and set(doubled.values()) == {"x 1.00"}
    slopes = {name: row["gradient if both maps double"] for name, row in rows.items()}
    assert slopes.pop("maps, L2 raw (eq. 2.19)") == "x 2.00" and set(slopes.values()) == {"x 0.50"}
    near = {name: float(row["gradient at 0.001"]) / float(row["gradient at 0.01"]) for name, row in rows.items()}
    assert near.pop("similarities, L2 (eq. 2.9)") == pytest.approx(1, abs=0.05)
    assert all(ratio == pytest.approx(0.1, abs=0.02) for ratio in near.values())


def test_the_raw_gradient_is_that_of_the_formula() -> None:
    target, noise = torch.zeros(2, 1, 2, dtype=torch.float64), torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]]).double()
    # mean over two images of |s - t|^2: its gradient is (s - t), of length 5 after a step of 1
    assert agreement.gradient_length(target, noise, 1.0, "map", "l2") == pytest.approx(5)
    assert agreement.gradient_length(target, noise, 0.1, "map", "l2") == pytest.approx(0.5)


def test_the_distance_of_unit_maps_is_twice_the_cosine_gradient_included() -> None:
    target, noise = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target[0] = 0  # a map that is zero counts 0 in both
    found = {}
    for distance in ("l2_unit", "cosine"):
        moved = noise.clone().requires_grad_()
        loss = semantic_loss(moved, target, "map", distance)
        found[distance] = loss.item(), torch.autograd.grad(loss, moved)[0]
    assert found["l2_unit"][0] == pytest.approx(2 * found["cosine"][0])
    torch.testing.assert_close(found["l2_unit"][1], 2 * found["cosine"][1])
    assert found["cosine"][1].any()


def test_without_weights_a_sentence_takes_their_place(data) -> None:
    shown = [
        agreement.maps_figure({}, data, "gxa", LAYER), agreement.identity_table({}, data),
        agreement.algebra_table({}, data, LAYER),
    ]  # fmt: skip
    assert {output.data for output in shown} == {
        "<p>The weights of teacher and students are not here, so their maps cannot be made.</p>"
    }


def test_without_images_a_sentence_says_why(found) -> None:
    shown = [
        agreement.maps_figure(found, None, "gxa", LAYER), agreement.identity_table(found, None),
        agreement.algebra_table(found, None, LAYER),
    ]  # fmt: skip
    (told,) = {output.data for output in shown}
    assert "smoke runs alone" in told and "keep neither networks nor maps" in told
