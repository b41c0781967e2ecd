"""The recipe `distill`: cost as the spec counts it, a frozen teacher, the same student for every method, resume."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from efflib.distill import METHODS
from efflib.models import create_model
from efflib.papers import cifar, distillation
from efflib.papers.baselines import CANARY_SETTINGS, new_model
from efflib.papers.distillation import DistillConfig, distill, work_of
from efflib.papers.pkgd.arms import FORMS, arm
from efflib.training import TrainingRecipe, cifar_rd, cifar_review, fit
from efflib.trials import Trial
from efflib.trials.recipes import Context

# PKGD spec, section 5: PFLOP of 240 epochs on 50,000 images.
COSTS = {
    ("resnet56", "resnet20"): {"kd": 5.96, "pkgd": 6.21, "reviewkd": 7.31, "rpkd": 8.64},
    ("resnet110", "resnet32"): {"kd": 11.05, "pkgd": 11.31, "reviewkd": 12.40, "rpkd": 13.73},
    ("wrn_40_2", "wrn_16_2"): {"kd": 15.14, "pkgd": 16.04, "reviewkd": 20.49, "rpkd": 25.80},
    ("wrn_40_2", "shufflenetv1"): {"kd": 10.65, "pkgd": 11.75, "reviewkd": 33.76, "rpkd": 55.00},
    ("vgg13", "mobilenetv2_half"): {"kd": 7.31, "pkgd": 10.53, "reviewkd": 29.52, "rpkd": 53.88},
}
SETTINGS = {**CANARY_SETTINGS, "teacher_model": "resnet20", "teacher_options": CANARY_SETTINGS["model_options"]}


def config(method="kd", **changes) -> DistillConfig:
    return DistillConfig(**{**SETTINGS, "method": method, **changes})


def teacher_weights():
    torch.manual_seed(7)
    return create_model("resnet20", 10, **SETTINGS["teacher_options"]).state_dict()


def context(checkpoint=None, precision="fp64"):
    return Context("cpu", precision, checkpoint, {"teacher": teacher_weights()}, progress=False)


@pytest.mark.parametrize("pair", COSTS, ids="-".join)
def test_a_step_costs_what_the_spec_counts(pair):
    for method, petaflops in COSTS[pair].items():
        settings = arm("tiny", *pair, "cifar100", 0, method).settings
        assert work_of(settings).step * 50_000 * 240 / 1e15 == pytest.approx(petaflops, abs=0.016)


def test_preparations_are_counted():
    short, long = (config("ft", options={"prepare_epochs": epochs}) for epochs in (1, 3))
    assert work_of(short).preparation == work_of(long).preparation > 0
    added = distillation.distill_flops(long, 100, 0) - distillation.distill_flops(short, 100, 0)
    assert added == pytest.approx(2 * 100 * work_of(short).preparation)
    assert work_of(config("kd")).preparation == 0


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="unknown method 'pkdg'"):
        config("pkdg")
    with pytest.raises(ValueError, match="unknown options of at: temperature; valid: feature_weight"):
        config("at", options={"temperature": 4.0})
    with pytest.raises(ValueError, match="unknown teacher_model 'resnet57'"):
        config(teacher_model="resnet57")
    with pytest.raises(ValueError, match="unknown options of crd: labels"):  # the recipe gives those itself
        config("crd", options={"labels": 1})


def test_the_teacher_does_not_change_and_its_weights_matter(monkeypatch):
    seen = {}
    real = distillation.trained

    def spy(settings, context, student, *sets, loss, **rest):
        seen["teacher"], seen["method"] = loss._teacher[0], loss.method
        return real(settings, context, student, *sets, loss=loss, **rest)

    monkeypatch.setattr(distillation, "trained", spy)
    outcome = distill(config("pkgd", options={"warmup_epochs": 1}), context())
    for name, value in teacher_weights().items():
        assert torch.equal(seen["teacher"].state_dict()[name], value.to(seen["teacher"].state_dict()[name].dtype))
    # The student alone comes home, with the parameters of a plain network.
    assert outcome.weights.keys() == new_model(config()).state_dict().keys()
    other = Context(
        "cpu", "fp64", None, {"teacher": {k: v * 1.5 for k, v in teacher_weights().items()}}, progress=False
    )
    curves = [distill(config("kd"), where).metrics["curves"]["train_loss"] for where in (context(), other)]
    assert curves[0] != curves[1]


def test_every_method_starts_from_the_same_student(monkeypatch):
    starts = {}

    def stop(settings, context, student, *sets, loss, **rest):
        starts[settings.method] = {name: value.clone() for name, value in student.state_dict().items()}
        raise InterruptedError

    monkeypatch.setattr(distillation, "trained", stop)
    for method in ("kd", "pkgd", "reviewkd"):
        with pytest.raises(InterruptedError):
            distill(config(method), context())
    expected = new_model(config()).state_dict()
    assert len(starts) == 3
    assert all(torch.equal(start[name], expected[name]) for start in starts.values() for name in expected)


def test_gaps_to_the_teacher_are_recorded():
    quick = {"training": TrainingRecipe(epochs=2, lr=0.02, batch_size=32)}
    full = distill(config("pkgd", **quick), context()).metrics
    assert len(full["gap_aligned"]) == len(full["gap_guided"]) == 4  # three stages and the pooled vector
    assert full["gap_aligned"] != full["gap_guided"] and min(full["gap_aligned"]) > 0
    aligned = distill(config("pkgd", options=FORMS["align"], **quick), context()).metrics
    assert len(aligned["gap_aligned"]) == 4 and "gap_guided" not in aligned
    drawn = distill(config("pkgd", options=FORMS["pkgd_code_random"], **quick), context()).metrics
    assert "gap_aligned" in drawn and "gap_guided" not in drawn  # drawn anew each step: nothing to measure
    assert not {"gap_aligned", "gap_guided"} & distill(config("kd", **quick), context()).metrics.keys()


@pytest.mark.parametrize("method", ["ft", "crd", "pkgd_code_random"])
def test_an_interrupted_student_ends_as_an_unbroken_one(method, tmp_path, monkeypatch):
    """Preparation, memory banks and freshly drawn modules included."""
    options = {"ft": {"prepare_epochs": 1}, "crd": {"negatives": 32}}.get(method, FORMS.get(method, {}))
    settings = config("pkgd" if method in FORMS else method, options=options)
    unbroken = distill(settings, context())
    epochs = []
    real = fit

    def cut(model, train, test, validation, recipe, **rest):
        epochs.append(recipe.epochs)
        return real(model, train, test, validation, recipe=recipe.model_copy(update={"epochs": 1}), **rest)

    # A run of one epoch leaves the same checkpoint as one that is killed after it, but for the recipe's length.
    first = tmp_path / "checkpoint.pt"
    with monkeypatch.context() as patch:
        patch.setattr("efflib.papers.baselines.fit", cut)
        patch.setattr("efflib.training.loop._identity", lambda *_: "same")
        distill(settings, context(first))
    with monkeypatch.context() as patch:
        patch.setattr("efflib.training.loop._identity", lambda *_: "same")
        resumed = distill(settings, context(first))
    assert epochs == [2] and first.exists()
    assert resumed.metrics["curves"] == unbroken.metrics["curves"]
    assert all(torch.equal(resumed.weights[name], value) for name, value in unbroken.weights.items())


def test_any_trained_network_can_teach():
    """BIMask's table 5 distils from a teacher that BIMask has fine-tuned."""
    plain = cifar.baseline("tiny", "resnet56", "cifar10", 0)
    finetuned = Trial.of(
        "bimask",
        parents={"baseline": plain},
        training=cifar_rd(6),
        method="bimask",
        masking_ratio=0.075,
        **cifar.shared("tiny", "resnet56", "cifar10", 0),
    )
    students = [cifar.distilled("tiny", "kd", "resnet20", teacher) for teacher in (plain, finetuned)]
    assert students[0] != students[1]
    assert [student.parents["teacher"].recipe for student in students] == ["baseline", "bimask"]
    assert all(student.config["teacher_model"] == "resnet56" for student in students)


def test_lengths_keep_their_share_of_the_run():
    assert cifar.scaled_lengths("dkd", 240) == {}
    assert cifar.scaled_lengths("pkgd", 30) == {"warmup_epochs": 2.5}
    assert cifar.scaled_lengths("ft", 30) == {"prepare_epochs": 4}  # 3.75, rounded half up
    assert cifar.scaled_lengths("kd", 30) == {}
    assert cifar.scaled_lengths("sckd", 1) == {"prepare_epochs": 1}  # never none at all


def test_the_canary_knows_every_method():
    covered = {method for method, _ in distillation._CANARY_METHODS.values()}
    assert covered == set(METHODS)


def test_bf16_students_train(tmp_path):
    outcome = distill(config("pkgd", options={"warmup_epochs": 1}), context(precision="bf16"))
    assert np.isfinite(outcome.metrics["curves"]["train_feature"]).all()
    assert outcome.metrics["seconds_per_epoch"] > 0


def test_the_papers_recipe_is_used_at_paper_scale_only():
    paper, tiny = (arm(scale, "vgg13", "mobilenetv2_half", "cifar100", 0, "kd").settings for scale in ("paper", "tiny"))
    assert paper.training == cifar_review().model_copy(update={"lr": 0.02}) and paper.subset is None
    assert tiny.training == cifar_rd(30) and (tiny.subset, tiny.holdout) == (10_000, 1_000)
    assert re.search("method=kd", arm("tiny", "vgg13", "vgg8", "cifar100", 0, "kd").label)
