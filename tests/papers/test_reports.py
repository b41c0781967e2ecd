"""Reports after an epoch, and the tables that read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import classification_report

from efflib.data import load_dataset
from efflib.models import create_model
from efflib.papers import reports
from efflib.papers.baselines import CANARY_SETTINGS, ClassifierConfig, baseline, canary_context
from efflib.training import TrainingRecipe, evaluate, seeded


def test_counts_are_of_all_images_and_of_those_without_copies():
    predicted, labels = np.array([0, 1, 1, 2, 0]), np.array([0, 1, 2, 2, 1])
    clean = np.array([True, False, True, True, False])
    found = reports.counted(predicted, labels, 3, clean)
    assert found["last"] == 60.0 and found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert found["leak_free"] == pytest.approx(200 / 3)
    assert found["leak_free_confusion"] == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]


def test_cross_entropy_of_a_report_is_that_of_the_logits():
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), np.array([0, 1, 2, 3, 0, 1])
    found = reports.report(logits, labels, 4, np.ones(6, bool))
    chosen = logits.double().log_softmax(1)[range(6), labels]
    assert found["cross_entropy"] == pytest.approx(-float(chosen.mean()), rel=1e-12)
    assert found["last"] == found["leak_free"]


def test_classification_is_scikit_learns_report():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(4, size=200), rng.integers(3, size=200)  # class 3 is never predicted
    wanted = classification_report(labels, predicted, output_dict=True, zero_division=0)
    found = reports.classification(reports.confusion(predicted, labels, 4))
    for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        assert found[name] == pytest.approx([wanted[str(label)][key] for label in range(4)])
    assert found["precision"][3] == 0.0


def test_a_reporter_tells_the_training_images_at_marks_only():
    train, test = load_dataset("digits", "train").take(range(40)), load_dataset("digits", "test").take([3, 5, 8, 9])
    with seeded(0):
        model = create_model("resnet14", 10, width=0.25, in_channels=1).eval()
    training = TrainingRecipe(epochs=2)
    follow = reports.reporter((2,), training, train, test, "cpu", "fp32")
    first, second = follow(model, 1), follow(model, 2)
    assert "train" not in first and second["train"] == evaluate(model, train, training, "cpu", "fp32")
    assert first["last"] == evaluate(model, test, training, "cpu", "fp32")


def test_marks_give_a_run_its_reports_and_change_nothing_else():
    config = ClassifierConfig(**CANARY_SETTINGS)
    plain = baseline(config, canary_context("plain")).metrics
    marked = baseline(config.model_copy(update={"marks": (2,)}), canary_context("marked")).metrics
    assert marked["curves"] == plain["curves"] and "followed" not in plain
    assert [marked["followed"][str(epoch)]["last"] for epoch in (1, 2)] == plain["curves"]["test"]
    assert "train" in marked["followed"]["2"] and "train" not in marked["followed"]["1"]


@pytest.mark.parametrize("marks", [(0,), (3,)])
def test_marks_outside_the_run_are_refused(marks):
    with pytest.raises(ValueError, match="1 to 2"):
        ClassifierConfig(**CANARY_SETTINGS, marks=marks)


def test_a_view_reads_the_report_of_its_epoch():
    metrics = {"last": 3.0, "followed": {"1": {"last": 1.0}, "2": {"last": 3.0}}}
    assert reports.after_epochs({"epochs": 1}, metrics) == {"last": 1.0}
    assert reports.after_epochs({"epochs": 9}, metrics) == {}
    assert reports.after_epochs({"student": "nearest_neighbour"}, metrics) is metrics
