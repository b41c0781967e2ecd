"""What live pictures start from: weights of a record put into the network that it was made with."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn

from efflib.papers.pictures import examples, overlay, trained_model


def store(*found: tuple[str, dict | None]) -> SimpleNamespace:
    """A store that holds records of one trial: (status, weights or None)."""
    records = [SimpleNamespace(status=status, weights=weights) for status, weights in found]
    return SimpleNamespace(find=lambda trial: records, load_weights=lambda record: record.weights, cache="the cache")


def linear(settings: int) -> nn.Module:
    return nn.Linear(settings, 1)


TRIAL = SimpleNamespace(settings=2, label="toy seed=0")
WEIGHTS = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}


def test_the_first_usable_record_gives_the_weights() -> None:
    model = trained_model(TRIAL, store(("failed", WEIGHTS), ("ok", None), ("ok", WEIGHTS)), linear)
    assert model(torch.ones(1, 2)).item() == 6.0
    assert not model.training


@pytest.mark.parametrize("found", [(), (("failed", WEIGHTS),), (("ok", None),)])
def test_without_weights_the_trial_is_named(found) -> None:
    with pytest.raises(FileNotFoundError, match="no weights of toy seed=0 in the cache: run it first"):
        trained_model(TRIAL, store(*found), linear)


def test_examples_are_a_few_small_objects_of_the_classes_in_order() -> None:
    data = examples(per_class=2)  # some classes have no object that small
    labels = data.labels.tolist()
    assert labels == sorted(labels)
    assert len(set(labels)) >= 8 and max(map(labels.count, labels)) == 2
    assert (data.masks.mean(axis=(1, 2)) < 0.25).all()


def test_an_overlay_is_half_image_half_map():
    image = np.full((2, 2, 3), 200, np.uint8)
    painted = overlay(image, np.array([[0.0, 1.0], [0.5, 0.5]]))
    assert painted.dtype == np.uint8 and painted.shape == (2, 2, 3)
    ends = [np.array(mpl.colormaps["viridis"](v)[:3]) * 255 for v in (0.0, 1.0)]
    np.testing.assert_allclose(painted[0], 100 + 0.5 * np.stack(ends), atol=1)
