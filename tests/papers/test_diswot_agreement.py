"""The page of table 3.5: agreement, pointing, the identity and the algebra, on networks and maps made here."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from shown import rows_by_name
from torch import Tensor

from efflib.data import ImageSet, load_dataset, render_phantom
from efflib.data.embedded import PHANTOM
from efflib.data.phantom import planes_of
from efflib.distill.diswot_plus import semantic_loss
from efflib.explain import grad_cam, localisation, relevance
from efflib.models import create_model
from efflib.papers.diswot import agreement
from efflib.papers.diswot.arms import SIZES
from efflib.papers.diswot.scores import gaussian_
from efflib.papers.diswot.tables import tables
from efflib.training import seeded
from efflib.trials import Entry, Results, Store

mpl.use("agg")

LAYER = "s16"


def network(head: str, seed: int) -> torch.nn.Module:
    """A narrow network with N(0, 1) weights whose batch norms have seen slices: no two images look alike to it."""
    with seeded(seed):
        made = create_model("mobilenetv2", 4, width=0.35, depth=11, head=head, image_size=64, dropout=0.0)
    with seeded(seed, "weights"):
        gaussian_(made)
    made.train()
    with torch.no_grad():
        for _ in range(30):
            made(pixels(render_phantom(24, 9)))
    return made.eval()


def pixels(data: ImageSet) -> Tensor:
    return torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def found() -> dict[str, torch.nn.Module]:
    return {"teacher": network("flatten", 0), "lrp_cosine": network("gap", 1), "gradcam_l2": network("gap", 2)}


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return render_phantom(8, 5)


@pytest.fixture(scope="module")
def maps(found, data) -> dict[tuple[str, str], Tensor]:
    return agreement.class_maps(found, data, LAYER)


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


def test_kinds_are_those_of_the_library(found, data, maps) -> None:
    images = pixels(data)
    labels, student = torch.from_numpy(data.labels), found["lrp_cosine"]
    assert torch.allclose(maps["lrp_cosine", "gradcam"], grad_cam(student, images, "s16", labels))
    for kind, rule in (("gxa", "gxa"), ("lrp", "composite")):
        assert torch.allclose(maps["lrp_cosine", kind], relevance(student, images, "s16", labels, rule))
    assert all(own.shape == (8, 64, 64) and (own >= 0).all() for own in maps.values())
    assert len(maps) == 9 and not torch.equal(maps["teacher", "gxa"], maps["teacher", "lrp"])


def test_cosines_know_no_direction_of_a_zero_map() -> None:
    first = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[3e-30, 4e-30]]])
    second = torch.tensor([[[0.0, 2.0]], [[1.0, 0.0]], [[6.0, 8.0]]])
    a, b, c = agreement.cosines(first, second).tolist()
    assert a == 0 and math.isnan(b) and c == pytest.approx(1)


def test_the_next_image_of_the_class() -> None:
    assert agreement.another_of_class(torch.tensor([0, 1, 0, 1, 0, 2])).tolist() == [2, 3, 4, 1, 0, 5]


def test_agreement_is_a_mean_over_maps_that_exist(data) -> None:
    ones, half = torch.ones(8, 2, 2), torch.tensor([[1.0, 1.0], [0.0, 0.0]]).repeat(8, 1, 1)
    half[:2] = 0
    made = {(name, kind): ones for kind in agreement.KINDS for name in ("teacher", "kd")}
    made["kd", "gxa"] = half
    rows = rows_by_name(agreement.agreement_table(made, data, LAYER), 2)
    gxa = rows[agreement.KINDS["gxa"], "KD"]
    assert gxa["cosine with the teacher's map"] == f"{math.sqrt(0.5):.3f}"
    assert (gxa["student's maps that are zero"], gxa["teacher's maps that are zero"]) == ("25.0%", "0.0%")
    assert rows["Grad-CAM", "KD"]["with the teacher's map of another image of the class"] == "1.000"
    made["teacher", "gradcam"] = 0 * ones
    rows = rows_by_name(agreement.agreement_table(made, data, LAYER), 2)
    assert rows["Grad-CAM", "KD"]["cosine with the teacher's map"] == "", "nothing to compare"


def test_the_control_is_the_map_of_another_image(maps, data) -> None:
    rows = rows_by_name(agreement.agreement_table(maps, data, LAYER), 2)
    assert len(rows) == 6, "three kinds, two students"
    own, guide = (maps[name, "gxa"] for name in ("lrp_cosine", "teacher"))
    other = guide[[4, 5, 6, 7, 0, 1, 2, 3]]  # classes repeat every fourth slice
    alive = (own.amax((1, 2)) > 0) & (other.amax((1, 2)) > 0)
    wanted = torch.cosine_similarity(own.flatten(1), other.flatten(1))[alive].mean()
    told = rows[agreement.KINDS["gxa"], "LRP + cosine"]["with the teacher's map of another image of the class"]
    assert float(told) == pytest.approx(float(wanted), abs=6e-4)


@pytest.mark.parametrize("layer", ["s32", "s16"])
def test_maps_are_read_where_the_page_says(found, data, layer) -> None:
    student, labels = found["lrp_cosine"], torch.from_numpy(data.labels)
    maps = agreement.class_maps(found, data, layer)
    assert torch.allclose(maps["lrp_cosine", "gradcam"], grad_cam(student, pixels(data), layer, labels))
    shown = (
        agreement.agreement_table(maps, data, layer), agreement.tumour_table(maps, data, layer),
        agreement.maps_figure(found, agreement.one_of_each_plane(found, layer, 20), "gradcam", layer),
    )  # fmt: skip
    assert all(f"aps at {layer} o" in output.data for output in shown)
    assert f"phantom, {layer}, double" in agreement.algebra_table(found, data, layer).data


def test_all_kinds_are_one_map_at_the_last_layer_of_a_global_average(found, data) -> None:
    """No convolution lies behind it: propagation too gives what gradient times activation gives, up to its epsilon."""
    maps = agreement.class_maps(found, data, "s32")
    own = maps["lrp_cosine", "gradcam"]
    for kind in ("gxa", "lrp"):
        torch.testing.assert_close(maps["lrp_cosine", kind], own, rtol=1e-3, atol=1e-3 * float(own.max()))
        assert not torch.allclose(maps["teacher", kind], maps["teacher", "gradcam"], rtol=0.1)


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


def test_pointing_leaves_out_the_images_without_tumour(maps, data) -> None:
    output = agreement.tumour_table(maps, data, LAYER)
    rows = rows_by_name(output, 2)
    there = data.labels != data.classes.index("notumor")
    wanted = localisation(maps["teacher", "lrp"][there], torch.from_numpy(data.masks[there]))
    told = rows[agreement.KINDS["lrp"], "teacher"]
    assert told["peak in the tumour"] == f"{wanted['pointing']:.1%}"
    assert told["share of the map in it"] == f"{wanted['inside']:.1%}"
    assert rows["guessing", ""]["peak in the tumour"] == f"{data.masks[there].mean():.1%}"
    assert "on 6 images" in output.data


def test_a_perfect_map_points_at_the_tumour(data) -> None:
    perfect = {("teacher", "gradcam"): torch.from_numpy(data.masks).float()}
    row = rows_by_name(agreement.tumour_table(perfect, data, LAYER))["Grad-CAM"]
    assert (row["peak in the tumour"], row["share of the map in it"]) == ("100.0%", "100.0%")


def test_a_set_without_masks_is_refused(maps) -> None:
    with pytest.raises(ValueError, match="digits has no tumour masks: take the phantom"):
        agreement.tumour_table(maps, load_dataset("digits", "test"), LAYER)


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
    last, before = agreement.LAYERS["s32"], agreement.LAYERS["s16"]
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
        agreement.agreement_table({}, data, LAYER), agreement.tumour_table({}, data, LAYER),
        agreement.maps_figure({}, data, "gxa", LAYER), agreement.identity_table({}, data),
        agreement.algebra_table({}, data, LAYER),
    ]  # fmt: skip
    assert {output.data for output in shown} == {
        "<p>The weights of teacher and students are not here, so their maps cannot be made.</p>"
    }


def test_without_images_a_sentence_says_why(found) -> None:
    assert agreement.class_maps(found, None, LAYER) == {}
    shown = [
        agreement.agreement_table({}, None, LAYER), agreement.tumour_table({}, None, LAYER),
        agreement.maps_figure(found, None, "gxa", LAYER), agreement.identity_table(found, None),
        agreement.algebra_table(found, None, LAYER),
    ]  # fmt: skip
    (told,) = {output.data for output in shown}
    assert "smoke runs alone" in told and "keep neither networks nor maps" in told
