"""Maps of teacher and student: how alike they are, where they lie, and what the recipe records of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from diswot_networks import narrow, network, pixels
from diswot_results import verdict
from torch import Tensor

from efflib.data import ImageSet, load_dataset, render_phantom
from efflib.explain import grad_cam, localisation, relevance
from efflib.papers.diswot import arms, maps
from efflib.papers.diswot.maps import KINDS, MapsConfig, relevance_maps
from efflib.papers.diswot.space import STUDENTS
from efflib.papers.diswot.tables import CONFIGURATIONS, looks, tables
from efflib.report.verdict import CONTRADICTED, NOT_RUN, SUPPORTED
from efflib.scales import SCALES
from efflib.trials.recipes import Context

pytestmark = pytest.mark.usefixtures("no_data")


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    return {"teacher": network("flatten", 0), "student": network("gap", 1)}


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return render_phantom(8, 5)


@pytest.fixture(scope="module")
def recorded_metrics(networks) -> dict[str, Any]:
    """What the recipe records of the two networks on the first 70 slices: two parts of what is made at once."""
    return relevance_maps(_config(images=70, layer="s32"), _context(networks)).metrics


def _config(**options: Any) -> MapsConfig:
    given = {
        "dataset": "phantom",
        "model_options": narrow("gap"),
        "teacher_options": narrow("flatten"),
        "layer": "s16",
    }
    return MapsConfig(**given | options)


def _context(networks: dict[str, torch.nn.Module]) -> Context:
    return Context("cpu", "fp32", None, {role: own.state_dict() for role, own in networks.items()})


def _made(networks: dict[str, torch.nn.Module], data: ImageSet, kind: str, layer: str = "s16") -> dict[str, Tensor]:
    labels = torch.from_numpy(data.labels)
    return {role: maps.maps_of(own, pixels(data), kind, labels, layer) for role, own in networks.items()}


# --- maps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["s32", "s16"])
def test_kinds_are_those_of_the_library(networks, data, layer) -> None:
    images, labels, student = pixels(data), torch.from_numpy(data.labels), networks["student"]
    found = {kind: _made(networks, data, kind, layer) for kind in KINDS}
    assert torch.allclose(found["gradcam"]["student"], grad_cam(student, images, layer, labels))
    for kind, rule in (("gxa", "gxa"), ("lrp", "composite")):
        assert torch.allclose(found[kind]["student"], relevance(student, images, layer, labels, rule))
    assert all(own.shape == (8, 64, 64) and (own >= 0).all() for both in found.values() for own in both.values())
    assert not torch.equal(found["gxa"]["teacher"], found["lrp"]["teacher"])


def test_all_kinds_are_one_map_at_the_last_layer_of_a_global_average(networks, data) -> None:
    """No convolution lies behind it: propagation too gives what gradient times activation gives, up to its epsilon."""
    found = {kind: _made(networks, data, kind, "s32") for kind in KINDS}
    own = found["gradcam"]["student"]
    for kind in ("gxa", "lrp"):
        torch.testing.assert_close(found[kind]["student"], own, rtol=1e-3, atol=1e-3 * float(own.max()))
        assert not torch.allclose(found[kind]["teacher"], found["gradcam"]["teacher"], rtol=0.1)


# --- likeness ---------------------------------------------------------------------------------------------


def test_cosines_know_no_direction_of_a_zero_map() -> None:
    first = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[3e-30, 4e-30]]])
    second = torch.tensor([[[0.0, 2.0]], [[1.0, 0.0]], [[6.0, 8.0]]])
    a, b, c = maps.cosines(first, second).tolist()
    assert a == 0 and math.isnan(b) and c == pytest.approx(1)


def test_likeness_is_a_mean_over_maps_that_exist() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    guide = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 3], [1, 0], [0, 0]])[:, None]
    own = torch.tensor([[1.0, 0], [0, 0], [1, 0], [0, 1e-20], [0, 2], [1, 0]])[:, None]
    found = maps.likeness(own, guide, labels)
    # Images 1 and 5 have a zero map, and image 4 is the only one left of its class.
    half = math.sqrt(0.5)
    assert found["cosine"] == pytest.approx((1 + half + 1 + 0) / 4)
    others = [(half + 0) / 2, (1 + 0) / 2, (0 + half) / 2]
    assert found["other_image"] == pytest.approx(sum(others) / 3)
    assert found["beyond_image"] == pytest.approx((1 + half + 1 - sum(others)) / 3)
    assert set(maps.likeness(0 * own, guide, labels).values()) == {None}


def test_a_map_that_knows_nothing_of_the_image_goes_not_beyond_other_images(networks, data) -> None:
    guide = _made(networks, data, "gxa")["teacher"]
    guide[2] = 0
    fixed = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)).expand_as(guide)
    for own in (torch.ones_like(guide), fixed):
        found = maps.likeness(own, guide, torch.from_numpy(data.labels))
        assert found["cosine"] > 0.1 and found["beyond_image"] == pytest.approx(0, abs=1e-12)


# --- head -------------------------------------------------------------------------------------------------


def test_the_head_is_the_largest_bright_part_without_holes() -> None:
    image = np.zeros((8, 8), dtype=np.uint8)
    image[1:6, 1:6] = 26  # 0.102 of white
    image[3, 3] = 0  # a ventricle
    image[7, 7], image[0, 7] = 255, 25  # a letter beside the head, and noise
    wanted = np.zeros((8, 8), dtype=bool)
    wanted[1:6, 1:6] = True
    assert np.array_equal(maps.head_of(image), wanted)
    assert np.array_equal(maps.head_of(image[1:, 1:]), wanted[1:, 1:]), "at the border"
    assert maps.head_of(np.full((4, 4), 40, dtype=np.uint8)).all(), "grey everywhere: no share can be told"
    assert not maps.head_of(np.zeros((4, 4), dtype=np.uint8)).any()


def test_the_head_of_the_phantom_holds_its_tumours(data) -> None:
    head, tumours = maps.heads(data).numpy(), np.asarray(data.masks)
    assert 0.3 < head.mean() < 0.8 and not head[:, 0, 0].any()
    assert tumours.any() and head[tumours].mean() > 0.99


def test_shares_leave_out_zero_maps_and_images_that_are_all_head() -> None:
    objects = torch.tensor([[[True, False]], [[True, False]], [[True, True]], [[False, False]]])
    own = torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 1.0]]])
    assert maps.share_inside(own, objects) == pytest.approx(0.25)
    assert maps.share_inside(own[1:], objects[1:]) is None


# --- the recipe -------------------------------------------------------------------------------------------


def test_the_recipe_measures_the_parents_on_the_first_test_images(networks, recorded_metrics) -> None:
    data = load_dataset("phantom", "test").take(range(70))
    labels, tumours = torch.from_numpy(data.labels), torch.from_numpy(np.asarray(data.masks))
    assert set(recorded_metrics["maps"]) == set(KINDS) and recorded_metrics["images"] == 70
    for kind, found in recorded_metrics["maps"].items():
        made = _made(networks, data, kind, "s16" if kind == "lrp" else "s32")
        for name, value in maps.likeness(made["student"], made["teacher"], labels).items():
            assert found["student"][name] == pytest.approx(value, abs=1e-5)
            assert name not in found["teacher"]
        for role, own in made.items():
            assert found[role]["zero_maps"] == pytest.approx(float((own.amax((1, 2)) == 0).double().mean()))
            assert found[role]["inside_head"] == pytest.approx(maps.share_inside(own, maps.heads(data)), abs=1e-5)
            there = tumours.flatten(1).any(1)
            pointing = localisation(own[there], tumours[there])["pointing"]
            assert found[role]["points_at_tumour"] == pytest.approx(pointing, abs=0.02)
            alive = there & (own.amax((1, 2)) > 0)
            share = (own * tumours).sum((1, 2))[alive] / own.sum((1, 2))[alive]
            assert found[role]["inside_tumour"] == pytest.approx(float(share.mean()), abs=1e-5)


def test_a_uniform_map_is_what_guessing_gives(recorded_metrics) -> None:
    data = load_dataset("phantom", "test").take(range(70))
    tumours = np.asarray(data.masks)[data.labels != data.classes.index("notumor")]
    for found in recorded_metrics["maps"].values():
        assert found["uniform"]["inside_head"] == pytest.approx(float(maps.heads(data).double().mean()))
        assert found["uniform"]["inside_tumour"] == pytest.approx(tumours.mean())
        assert found["uniform"]["points_at_tumour"] == pytest.approx(tumours.mean())
        assert 0 < found["uniform"]["cosine"] < 1 and found["uniform"]["zero_maps"] == 0
        assert found["uniform"]["beyond_image"] == pytest.approx(0, abs=1e-12)


def test_a_network_is_like_itself(networks) -> None:
    twins = {"teacher": networks["student"], "student": networks["student"]}
    found = relevance_maps(_config(images=12, teacher_options=narrow("gap")), _context(twins)).metrics["maps"]
    for both in found.values():
        assert both["student"]["cosine"] == pytest.approx(1) and both["student"]["other_image"] < 0.999
        assert both["student"]["inside_head"] == both["teacher"]["inside_head"]


def test_tumours_are_known_of_the_phantom_alone(networks, monkeypatch, data) -> None:
    monkeypatch.setattr(maps, "TUMOURS", ())
    found = relevance_maps(_config(images=8), _context(networks)).metrics["maps"]["gxa"]
    assert set(found["teacher"]) == {"zero_maps", "inside_head"}


def test_bad_settings_are_refused() -> None:
    for options, told in (({"dataset": "brain"}, "unknown dataset"), ({"layer": "s8"}, "s16"), ({"images": 1}, "2")):
        with pytest.raises(ValueError, match=told):
            _config(**options)


# --- grids and claims -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_both_figures_read_the_same_trials_of_table_3_5s_networks(scale) -> None:
    found = {name: list(tables[name].entries(scale, 2)) for name in ("fig3_8", "fig3_9")}
    trials = [{trial for _, _, trial in each} for each in found.values()]
    assert trials[0] == trials[1] and len(trials[0]) == 2 * len(CONFIGURATIONS[scale])
    size = arms.SIZES[scale]
    trained = {trial for _, _, trial in tables["table3_5"].entries(scale, 2)}
    for trial in trials[0]:
        student: Any = trial.parents["student"]
        assert student.settings.training.epochs == size.lengths[1], "all for as long"
        assert student in trained or scale in ("small", "paper")
        assert trial.config["model_options"] == student.config["model_options"]
        assert trial.config["teacher_options"] == trial.parents["teacher"].config["model_options"]
        assert trial.parents["teacher"] == arms.alone(scale, size.teacher, trial.config["seed"])
        assert trial.config["layer"] == size.layers
    assert {cell["map"] for cell, _, _ in found["fig3_9"]} == {"gxa", "lrp"}


def test_the_teacher_does_not_hang_on_one_method() -> None:
    def teachers(**choices: Any) -> set[str]:
        found = tables["fig3_8"].entries("tiny", 1, **choices)
        return {trial.parents["student"].recipe for cell, _, trial in found if cell["network"] != "student"}

    assert teachers() == {"baseline"} and teachers(methods=["kd"]) == {"distill"}


def test_networks_that_normalise_themselves_do_so_here_too() -> None:
    found = list(tables["fig3_8"].entries("tiny", 1, starts=["imagenet"]))
    assert {trial.config["model_options"]["input_norm"] for _, _, trial in found} == {"imagenet"}


def test_a_cell_shows_one_network_and_one_kind() -> None:
    metrics = {"maps": {"gxa": {"student": {"cosine": 0.5}, "teacher": {"zero_maps": 0.1}}}}
    assert looks({"map": "gxa", "network": "student"}, metrics) == {"cosine": 0.5}
    assert looks({"map": "gxa", "network": "teacher"}, metrics) == {"zero_maps": 0.1}
    assert looks({"map": "lrp", "network": "student"}, metrics) == {}


class Looked:
    """Results of figures 3.8 and 3.9 made up: (method, map, metric) -> value."""

    scale = "tiny"

    def __init__(self, values: dict[tuple[str, str, str], float]):
        self.values = values

    def samples(self, metric: str, **cell: Any) -> dict[int, float]:
        assert cell["network"] == "student"
        value = self.values.get((cell["method"], cell["map"], metric))
        return {} if value is None else {seed: value + 0.001 * seed for seed in range(3)}


def test_claims_about_the_pictures_compare_students() -> None:
    values = {
        ("lrp_cosine", "gradcam", "cosine"): 0.9, ("gradcam_l2", "gradcam", "cosine"): 0.8,
        ("lrp_cosine", "gradcam", "inside_head"): 0.6, ("gradcam_l2", "gradcam", "inside_head"): 0.7,
        ("gradcam_l2", "gradcam", "beyond_image"): 0.3, ("kd", "gradcam", "beyond_image"): 0.1,
        ("lrp_cosine", "gxa", "cosine"): 0.7, ("gradcam_l2", "gxa", "cosine"): 0.8,
        ("lrp_cosine", "gxa", "beyond_image"): 0.3, ("kd", "gxa", "beyond_image"): 0.1,
    }  # fmt: skip
    found: Any = Looked(values)
    assert [verdict("fig3_8", letter, found) for letter in "abc"] == [SUPPORTED, CONTRADICTED, SUPPORTED]
    assert [verdict("fig3_9", letter, found) for letter in "abc"] == [CONTRADICTED, SUPPORTED, NOT_RUN]
    values |= {("lrp_cosine", "lrp", "beyond_image"): 0.1, ("kd", "lrp", "beyond_image"): 0.2}
    assert verdict("fig3_9", "c", found) == CONTRADICTED


def test_smoke_looks_at_few_slices_and_all_others_at_every_test_image() -> None:
    best = STUDENTS["w100-d17-gap"]
    assert arms.maps("tiny", best, 0, "kd").config["images"] is None
    assert arms.maps("smoke", arms.SIZES["smoke"].best, 0, "baseline").config["images"] == 200
