"""MobileNetV2 that starts from ImageNet weights: what is read, what stays fixed, what it costs, what does not fit."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest
import torch

from efflib.data import DataNotFound
from efflib.models import count_macs, create_model, imagenet
from efflib.papers.baselines import (
    ClassifierConfig,
    baseline,
    canary_context,
    forward_flops,
    frozen_flops,
    inherited_model,
    new_model,
    training_flops,
)
from efflib.papers.distillation import DistillConfig, distill, distill_flops, work_of
from efflib.papers.diswot import arms
from efflib.papers.diswot.space import TEACHER
from efflib.papers.diswot.tables import tables
from efflib.training import TrainingRecipe, seeded

OPTIONS = {"width": 1.0, "depth": 17, "head": "gap", "input_norm": "imagenet"}
SETTINGS: dict[str, Any] = {
    "dataset": "phantom",
    "model": "mobilenetv2",
    "model_options": OPTIONS,
    "training": TrainingRecipe(epochs=1, lr=1e-3, batch_size=16, optimiser="adam", pad=0),
    "subset": 32,
    "seed": 5,
}
IMAGENET = {**SETTINGS, "init": "imagenet"}
FROZEN = {**IMAGENET, "freeze_backbone": True}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """torchvision's file with random weights in EFFLIB_DATA, under a name with its own checksum; its state."""
    with seeded(9):
        backbone = create_model("mobilenetv2", 1).backbone
    state = {f"features.{name}": value for name, value in backbone.state_dict().items()}
    torch.save({**state, "classifier.1.weight": torch.zeros(1000, 1280)}, tmp_path / "new.pth")
    name = f"mobilenet_v2-{hashlib.sha256((tmp_path / 'new.pth').read_bytes()).hexdigest()[:8]}.pth"
    (tmp_path / "new.pth").rename(tmp_path / name)
    known = dataclasses.replace(imagenet.PRETRAINED["mobilenetv2"], url=f"https://example.org/{name}")
    monkeypatch.setitem(imagenet.PRETRAINED, "mobilenetv2", known)
    monkeypatch.setenv("EFFLIB_DATA", str(tmp_path))
    return backbone.state_dict()


def test_backbone_from_the_file_and_head_from_the_seed(weights):
    found, scratch = new_model(ClassifierConfig(**IMAGENET)), new_model(ClassifierConfig(**SETTINGS))
    assert all(torch.equal(value, weights[name]) for name, value in found.backbone.state_dict().items())
    assert all(map(torch.equal, found.head.parameters(), scratch.head.parameters()))
    assert not torch.equal(scratch.backbone[0][0].weight, weights["0.0.weight"])
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_without_the_file_nothing_starts_by_chance(tmp_path, monkeypatch):
    for name in ("EFFLIB_DATA", "EFFLIB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    with pytest.raises(DataNotFound, match=r"MobileNetV2 were not found.*\n.*mobilenet_v2-b0353104.*init='scratch'"):
        new_model(ClassifierConfig(**IMAGENET))
    with seeded(0):  # a parent's weights replace all of it: no file is read
        parent = create_model("mobilenetv2", 4, **OPTIONS).state_dict()
    inherited = inherited_model(ClassifierConfig(**IMAGENET), parent)
    assert torch.equal(inherited.backbone[0][0].weight, parent["backbone.0.0.weight"])


def test_a_frozen_backbone_stays_and_its_head_learns(weights):
    config = ClassifierConfig(**FROZEN)
    outcome = baseline(config, canary_context("baseline"))
    trained = outcome.weights or {}
    assert all(torch.equal(trained[f"backbone.{name}"], value) for name, value in weights.items())
    head = {f"head.{name}": value for name, value in new_model(config).head.state_dict().items()}
    assert not torch.equal(trained["head.0.weight"], head["head.0.weight"])
    assert outcome.flops == training_flops(config, 32, 400)


@pytest.mark.parametrize("method", ["kd", "diswot_plus"])
def test_a_student_with_a_frozen_backbone_can_be_distilled(weights, method):
    options = {"layers": "s16"} if method == "diswot_plus" else {}
    config = DistillConfig(**FROZEN, method=method, options=options, teacher_model="mobilenetv2",
                           teacher_options={**OPTIONS, "width": 0.35, "depth": 11})  # fmt: skip
    with seeded(1):
        teacher = create_model("mobilenetv2", 4, **config.teacher_options).state_dict()
    outcome = distill(config, dataclasses.replace(canary_context("distill", teacher=teacher), precision="fp32"))
    trained = outcome.weights or {}
    assert all(torch.equal(trained[f"backbone.{name}"], value) for name, value in weights.items())
    assert not torch.equal(trained["head.0.weight"], new_model(config).head[0].weight)
    assert outcome.flops == distill_flops(config, 32, 400)


def test_only_what_is_trained_costs_a_backward_pass():
    whole, frozen = ClassifierConfig(**IMAGENET), ClassifierConfig(**FROZEN)
    head = 1280 * 256 + 256 * 128 + 128 * 10  # counted with ten classes, whatever the data's
    network = create_model("mobilenetv2", 10, **OPTIONS)
    assert forward_flops(whole) == 2.0 * count_macs(network, 64, 1)
    assert forward_flops(whole) - frozen_flops(frozen) == 2 * head
    assert frozen_flops(whole) == 0
    assert training_flops(whole, 100, 0) == 100 * 3 * forward_flops(whole)
    assert training_flops(frozen, 100, 7) == 107 * forward_flops(whole) + 100 * 2 * 2 * head
    teaching = {"method": "kd", "teacher_model": "mobilenetv2", "teacher_options": OPTIONS}
    steps = [work_of(DistillConfig(**each, **teaching)).step for each in (IMAGENET, FROZEN)]
    assert steps[0] - steps[1] == 2 * frozen_flops(frozen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "freeze_backbone": True}, "freeze_backbone keeps what init='imagenet' gives"),
        ({**IMAGENET, "model": "resnet20", "model_options": {}}, "mobilenetv2 with width 1 and depth 17 only"),
        ({**IMAGENET, "model_options": {**OPTIONS, "width": 0.5}}, "torchvision has weights for no other: got mobil"),
        ({**IMAGENET, "model_options": {**OPTIONS, "depth": 11}}, "width 1 and depth 17 only"),
        ({**IMAGENET, "model_options": {}}, "needs model_options input_norm='imagenet'"),
        ({**IMAGENET, "init": "random"}, "Input should be 'scratch' or 'imagenet'"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClassifierConfig(**settings)


# --- the thesis's tables --------------------------------------------------------------------------------------


def test_another_start_is_another_trial():
    made = {start: arms.distilled("paper", arms.BEST, 0, "kd", arms.How(start)) for start in arms.STARTS}
    assert len({trial.identity for trial in made.values()}) == 3
    assert made["scratch"] == arms.distilled("paper", arms.BEST, 0, "kd")
    student: Any = made["imagenet_frozen"].settings
    teacher: Any = made["imagenet_frozen"].parents["teacher"].settings
    assert (student.init, student.freeze_backbone) == ("imagenet", True)
    assert (teacher.init, teacher.freeze_backbone) == ("imagenet", False)  # 98 % need a teacher that is fine-tuned
    assert teacher.model_options == student.teacher_options and teacher.model_options["input_norm"] == "imagenet"
    assert made["imagenet_frozen"].parents["teacher"] == made["imagenet"].parents["teacher"]
    assert arms.alone("paper", TEACHER, 0, arms.How("imagenet_frozen")) == made["imagenet"].parents["teacher"]


@pytest.mark.parametrize(
    "name", ["table3_4", "fig3_6", "table3_5", "table3_5_train", "table3_6", "table3_7", "table3_8"]
)
def test_tables_can_be_asked_for_another_start(name):
    asked = [trial for _, _, trial in tables[name].grid("tiny", [0], {"starts": ("imagenet",)})]
    trained = [trial for trial in asked if trial.recipe in ("baseline", "distill")]
    assert trained and all(trial.settings.init == "imagenet" for trial in trained)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="runs of one page are comparable, choose one of them"):
        list(tables[name].grid("tiny", [0], {"starts": ("imagenet", "scratch")}))
