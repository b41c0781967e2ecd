"""Short trainings on digits that the tests of the curricula share."""

from __future__ import annotations

from functools import cache

import pytest

from efflib.data import load_dataset
from efflib.models import create_model
from efflib.training import TrainingRecipe, cross_entropy, fit, seeded

RECIPE = TrainingRecipe(epochs=5, lr=0.05, batch_size=32, augment="none")


@cache
def digits():
    return load_dataset("digits", "train").take(range(96)), load_dataset("digits", "test").take(range(48))


@pytest.fixture(scope="session")
def data():
    """96 training images and 48 test images of 8 x 8 grey pixels."""
    return digits()


@pytest.fixture(scope="session")
def network():
    """network(name, **options): a narrow network for the digits, always with the same weights."""

    def make(name="resnet14", **options):
        with seeded(0):
            return create_model(name, 10, **{"width": 0.5, "in_channels": 1, **options})

    return make


@pytest.fixture(scope="session")
def train(network):
    """train(curriculum, recipe=..., ...): (history, weights, batches as the loss saw them)."""

    def run(curriculum=None, model=None, recipe=RECIPE, loss=cross_entropy, **options):
        model = model or network()
        batches = []

        def noting(model, batch):
            batches.append(batch)
            return loss(model, batch)

        options = {"device": "cpu", "precision": "fp32", "progress": False, **options}
        train_set, test = digits()
        history = fit(model, train_set, test, recipe=recipe, loss=noting, curriculum=curriculum, **options)
        return history, {name: value.clone() for name, value in model.state_dict().items()}, batches

    return run
