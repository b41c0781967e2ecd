"""The recipes of table 4: curricula act, scores reach the right images, resume, costs, and what fails how."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from efflib.curricula import pacing
from efflib.curricula.pacing import self_taught_scores
from efflib.models.imagenet import PRETRAINED
from efflib.papers.baselines import CANARY_SETTINGS, SIZES, ClassifierConfig, baseline, new_model, split
from efflib.papers.bimask import curricula as recipes
from efflib.papers.bimask.curricula import (
    CurriculumConfig,
    FoldScoresConfig,
    ImagenetScoresConfig,
    PacedConfig,
    curriculum,
    fold_scores,
    imagenet_scores,
    paced,
)
from efflib.papers.bimask.method import training_set
from efflib.papers.bimask.recipes import BimaskConfig, bimask
from efflib.training import TrainingRecipe, fit, save_atomically, seeded
from efflib.trials import Store, Trial, runner
from efflib.trials.recipes import Context, get_recipe

# 160 training digits of 8 px, two epochs of five batches.
DIGITS = CANARY_SETTINGS
OPTIONS = {"cbs": {"every": 0.5}, "efficienttrain": {}, "lerac": {"k": 1.0}}


def context(checkpoint=None, precision="fp64", **parents):
    return Context("cpu", precision, checkpoint, parents, progress=False)


def config(method="cbs", **changes) -> CurriculumConfig:
    return CurriculumConfig(**{**DIGITS, "method": method, "options": OPTIONS[method], **changes})


def paced_config(method="self_taught", **changes) -> PacedConfig:
    return PacedConfig(**{**DIGITS, "method": method, "options": {"pacing_span": 0.5}, **changes})


@pytest.fixture(scope="module")
def plain():
    """The baseline of the same settings."""
    return baseline(ClassifierConfig(**DIGITS), context())


def losses(outcome):
    return outcome.metrics["curves"]["train_loss"]


# --- without scores --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", OPTIONS)
def test_a_curriculum_trains_and_is_not_the_baseline(method, plain):
    outcome = curriculum(config(method), context())
    assert outcome.weights.keys() == plain.weights.keys()
    assert losses(outcome) != losses(plain)
    assert {"last", "test_best", "val_best", "curves", "training_seconds"} <= outcome.metrics.keys()


def test_a_curriculum_that_changes_nothing_is_the_baseline(plain):
    """Same initial weights, order and augmentation: only the curriculum makes the difference."""
    outcome = curriculum(config("cbs", options={"sigma": 1e-3}), context())
    assert losses(outcome) == losses(plain)
    assert all(torch.equal(value, plain.weights[name]) for name, value in outcome.weights.items())


def test_efficienttrain_costs_less_and_the_others_the_same(plain):
    """Fifths of 6, 6, 6, 6 and 8 of 8 pixels; evaluations are at full size."""
    train, validation, test = split(config())
    per_image = plain.flops / (3 * len(train) + len(test) + len(validation))
    flops = {method: curriculum(config(method), context()).flops for method in OPTIONS}
    assert flops["cbs"] == flops["lerac"] == plain.flops
    saved = 3 * len(train) * per_image * (1 - (4 * (6 / 8) ** 2 + 1) / 5)
    assert flops["efficienttrain"] == pytest.approx(plain.flops - saved)


@pytest.mark.parametrize("method", OPTIONS)
def test_the_plan_is_the_cost(method):
    settings = config(method, subset=None, holdout=0)
    planned = get_recipe("curriculum").flops(settings)
    train, test, _, _ = SIZES["digits"]
    assert planned == recipes._curriculum_flops(settings, train, test)
    assert [len(data) for data in split(settings) if data is not None] == [train, test]


def test_settings_are_checked_before_anything_runs():
    with pytest.raises(ValueError, match=r"unknown option of cbs: 'evry'. Did you mean 'every'\?"):
        Trial.of("curriculum", **{**DIGITS, "method": "cbs", "options": {"evry": 2.0}})
    with pytest.raises(ValueError, match="every must be a positive number, got 0"):
        Trial.of("curriculum", **{**DIGITS, "method": "cbs", "options": {"every": 0}})
    with pytest.raises(ValueError, match="method: Input should be 'cbs', 'efficienttrain' or 'lerac'"):
        Trial.of("curriculum", **{**DIGITS, "method": "self_taught"})
    scorer = Trial.of("baseline", **DIGITS)
    with pytest.raises(ValueError, match=r"bad options of lcdnet: .*scores"):
        Trial.of("paced", {"scorer": scorer}, **{**DIGITS, "method": "lcdnet", "options": {"scores": 1}})
    with pytest.raises(ValueError, match=r"bad options of self_taught: .*'<' not supported"):
        Trial.of("paced", {"scorer": scorer}, **{**DIGITS, "method": "self_taught", "options": {"start": "all"}})
    with pytest.raises(ValueError, match="recipe 'paced' needs parents \\['scorer'\\]"):
        Trial.of("paced", **{**DIGITS, "method": "self_taught"})


# --- with scores -----------------------------------------------------------------------------------------------------


@pytest.fixture
def orders(monkeypatch):
    """What `_trained` was given: the curriculum of each run."""
    seen = []
    run = recipes._trained

    def spy(config, context, chosen, **extra):
        seen.append(chosen)
        return run(config, context, chosen, **extra)

    monkeypatch.setattr(recipes, "_trained", spy)
    return seen


def test_self_taught_asks_the_baseline_of_the_same_network(orders, plain):
    outcome = paced(paced_config(), context(scorer=plain.weights))
    train, _, _ = split(paced_config())
    scorer = new_model(paced_config()).double()
    scorer.load_state_dict(plain.weights)
    expected = self_taught_scores(scorer, train, paced_config().training, "cpu", "fp64")
    assert outcome.metrics["mean_score"] == pytest.approx(float(expected.mean()))
    labels = torch.from_numpy(train.labels)
    best = [int((expected * (labels == c) - 2.0 * (labels != c)).argmax()) for c in range(10)]
    assert set(orders[0].easiest[:10].tolist()) == set(best)  # the easiest of every class come first
    assert losses(outcome) != losses(plain)


def test_the_new_network_does_not_start_from_its_scorer(plain):
    shifted = {name: value + 0.1 for name, value in plain.weights.items()}
    settings = paced_config(training=TrainingRecipe(epochs=0))
    for method, scorer in (("self_taught", shifted), ("lcdnet", {"scores": torch.zeros(160, dtype=torch.float64)})):
        outcome = paced(settings.model_copy(update={"method": method}), context(scorer=scorer))
        initial = new_model(settings).double().state_dict()
        assert all(torch.equal(value, initial[name]) for name, value in outcome.weights.items())


def test_lcdnet_takes_recorded_scores(orders):
    scores = torch.rand(160, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outcome = paced(paced_config("lcdnet"), context(scorer={"scores": scores}))
    assert outcome.metrics["mean_score"] == pytest.approx(float(scores.mean()))
    train, _, _ = split(paced_config("lcdnet"))
    ranks = {label: scores[torch.from_numpy(train.labels) == label].max() for label in range(10)}
    assert {float(scores[n]) for n in orders[0].easiest[:10]} == {float(value) for value in ranks.values()}


def test_scores_of_other_images_are_refused():
    with pytest.raises(ValueError, match="must be two lists of one length"):
        paced(paced_config("lcdnet"), context(scorer={"scores": torch.zeros(200, dtype=torch.float64)}))
    with pytest.raises(ValueError, match="lcdnet needs a scorer that left scores: a trial fold_scores or"):
        paced(paced_config("lcdnet"), context(scorer=new_model(paced_config()).state_dict()))


# --- the scorers -----------------------------------------------------------------------------------------------------

FOLDS = FoldScoresConfig(**{**DIGITS, "folds": 3, "training": TrainingRecipe(epochs=3, lr=0.05, batch_size=16)})


@pytest.fixture(scope="module")
def scored():
    return fold_scores(FOLDS, context())


def test_fold_scores_are_probabilities_in_the_order_of_the_training_set(scored):
    found = scored.weights["scores"]
    train, _, _ = split(FOLDS)
    assert found.shape == (len(train),) and found.dtype == torch.float64
    assert found.min() >= 0 and found.max() <= 1
    assert float(found.mean()) == pytest.approx(scored.metrics["mean_score"])
    macs = scored.flops / (2 * FOLDS.training.epochs)
    assert macs / (3 * 2 / 3 * 160 * 3 + 160) == pytest.approx(recipes.training_flops(FOLDS, 0, 1) / 6)


def test_another_seed_has_other_folds(scored):
    other = fold_scores(FOLDS.model_copy(update={"seed": 1}), context())
    assert not torch.equal(other.weights["scores"], scored.weights["scores"])


def test_an_interrupted_scoring_goes_on_and_leaves_no_file(scored, tmp_path, monkeypatch):
    checkpoint, calls = tmp_path / "c.pt", []

    def interrupted(*arguments, **named):
        calls.append(named["checkpoint"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("efflib.curricula.pacing.fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fold_scores(FOLDS, context(checkpoint))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pt.fold0", "c.pt.fold1"]
    resumed = fold_scores(FOLDS, context(checkpoint))
    assert torch.equal(resumed.weights["scores"], scored.weights["scores"])
    assert list(tmp_path.iterdir()) == []


def test_fold_files_of_another_run_are_thrown_away(scored, tmp_path):
    """The runner would set one file aside; a scoring has several."""
    checkpoint = tmp_path / "c.pt"
    other = FOLDS.model_copy(update={"training": TrainingRecipe(epochs=1)})
    recipes._out_of_fold(other, context(checkpoint), split(FOLDS)[0])
    assert len(list(tmp_path.iterdir())) == 3
    assert torch.equal(fold_scores(FOLDS, context(checkpoint)).weights["scores"], scored.weights["scores"])
    assert list(tmp_path.iterdir()) == []


def test_imagenet_scores_of_a_network_with_random_weights(tmp_path, monkeypatch):
    """Ten images only: the network is the real one, from a file whose name holds its checksum."""
    with seeded(0):
        torch.save(resnet50().state_dict(), tmp_path / "mine.pth")
    checksum = hashlib.sha256((tmp_path / "mine.pth").read_bytes()).hexdigest()
    named = f"resnet50-{checksum[:8]}.pth"
    (tmp_path / "mine.pth").rename(tmp_path / named)
    known = PRETRAINED["resnet50"]
    monkeypatch.setitem(PRETRAINED, "resnet50", dataclasses.replace(known, url=f"https://nowhere.invalid/{named}"))
    monkeypatch.setenv("EFFLIB_DATA", str(tmp_path))
    settings = ImagenetScoresConfig(dataset="digits", subset=30, holdout=20)
    outcome = imagenet_scores(settings, context())
    train, _, _ = split(ClassifierConfig(**{**DIGITS, "subset": 30, "holdout": 20}))
    features = pacing.imagenet_features(train, tmp_path / named, "cpu")
    expected = pacing.transfer_scores(features, torch.from_numpy(train.labels))
    assert torch.equal(outcome.weights["scores"], expected)
    assert outcome.flops == pytest.approx(2 * 4.09e9 * 10)
    assert outcome.flops == get_recipe("imagenet_scores").flops(settings)


# --- trials of these recipes -----------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    for name in ("CACHE", "RESULTS", "DATA"):
        monkeypatch.setenv(f"EFFLIB_{name}", str(tmp_path / name))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(runner, "canary", lambda recipe: {})
    return Store(tmp_path / "RESULTS", tmp_path / "CACHE")


def run(trials, store):
    machine = runner.Machine(torch.device("cpu"), "fp32")
    runner.run_trials(trials, store, machine, progress=False)
    return [store.find(trial)[0] for trial in trials]


def test_without_the_imagenet_weights_scores_and_student_fail_and_the_others_go_on(store):
    settings = {**DIGITS, "options": {}}
    scorer = Trial.of("imagenet_scores", dataset="digits", subset=200, holdout=40)
    guided = Trial.of("paced", {"scorer": scorer}, **{**settings, "method": "lcdnet"})
    other = Trial.of("curriculum", **{**settings, "method": "efficienttrain"})
    failed, child, fine = run([scorer, guided, other], store)
    assert failed.status == "failed" and failed.failure.kind == "RuntimeError"
    file = PRETRAINED["resnet50"].file
    assert re.search(rf"weights of ResNet50 were not found.*{file}.*EFFLIB_OFFLINE", failed.failure.reason, re.S)
    assert child.status == "failed" and child.failure.kind == "ParentMissing"
    assert child.failure.reason.startswith("scorer: imagenet_scores dataset=digits failed: the ImageNet weights")
    assert fine.status == "ok"


def test_scores_travel_through_the_store_and_a_longer_arm_starts_from_its_curriculum(store, monkeypatch):
    scorer = Trial.of("fold_scores", **{**DIGITS, "folds": 2, "training": TrainingRecipe(epochs=1)})
    guided = Trial.of("paced", {"scorer": scorer}, **{**DIGITS, "method": "lcdnet", "options": {"every": 40.0}})
    longer = {**DIGITS, "training": TrainingRecipe(epochs=0), "method": "original_only"}
    equal = Trial.of("bimask", {"baseline": guided}, **longer)
    one, two, three = run([scorer, guided, equal], store)
    assert {one.status, two.status, three.status} == {"ok"}
    assert two.parent_weights == {"scorer": one.weights.sha256}
    assert two.metrics["mean_score"] == pytest.approx(one.metrics["mean_score"])
    assert three.parent_weights == {"baseline": two.weights.sha256}
    assert three.weights == two.weights  # no epoch of its own: the very network


@pytest.mark.parametrize("method", ["lerac", "self_taught"])
def test_an_interrupted_trial_ends_like_an_unbroken_one(method, plain, tmp_path, monkeypatch):
    whole, settings = (paced, paced_config()) if method == "self_taught" else (curriculum, config(method))
    unbroken = whole(settings, context(scorer=plain.weights))
    checkpoint = tmp_path / "c.pt"

    def interrupted(state, path):
        save_atomically(state, path)
        raise KeyboardInterrupt("after the first epoch")

    with monkeypatch.context() as patch:
        patch.setattr("efflib.training.loop.save_atomically", interrupted)
        with pytest.raises(KeyboardInterrupt, match="after the first epoch"):
            whole(settings, context(checkpoint, scorer=plain.weights))
    resumed = whole(settings, context(checkpoint, scorer=plain.weights))
    assert losses(resumed) == losses(unbroken)
    assert all(torch.equal(value, unbroken.weights[key]) for key, value in resumed.weights.items())


def test_a_longer_arm_has_the_updates_of_bimask():
    settings = BimaskConfig(**{**DIGITS, "training": TrainingRecipe(epochs=1, batch_size=20)}, method="original_only")
    trained = curriculum(config("lerac"), context())
    outcome = bimask(settings, context(baseline=trained.weights))
    train, _, _ = split(settings)
    assert len(training_set(train, None, "original_only")) == 2 * len(train)
    assert losses(outcome) != losses(trained)


@pytest.mark.parametrize("name", ["curriculum", "paced", "fold_scores", "imagenet_scores"])
def test_canaries_notice_another_meaning(name, monkeypatch):
    found = get_recipe(name).canary()
    assert all(np.isfinite(value) for value in found.values())
    training = DIGITS["training"].model_copy(update={"lr": 0.01})
    monkeypatch.setattr(recipes, "CANARY_SETTINGS", {**DIGITS, "training": training, "split_seed": 1})
    other = get_recipe(name).canary()
    assert found.keys() == other.keys() and any(other[key] != pytest.approx(found[key], rel=1e-5) for key in found)
