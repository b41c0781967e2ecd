"""Predictors that know no teacher: NWOT against a count by hand, sizes against the spec."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from efflib.data import load_dataset
from efflib.papers.diswot import rivals
from efflib.papers.diswot.rivals import nwot, nwot_space, random_order
from efflib.papers.diswot.space import STUDENTS


class Codes(nn.Module):
    """A ReLU on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x)


def test_nwot_by_hand() -> None:
    images = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, -1.0, -1.0]]).reshape(2, 1, 2, 2)
    # Three of four units agree: the kernel is [[4, 3], [3, 4]].
    assert nwot(Codes(), images) == pytest.approx(math.log(7))
    assert nwot(Codes(), torch.ones(2, 1, 2, 2)) == -math.inf


def test_nwot_of_the_space() -> None:
    found = nwot_space(load_dataset("phantom", "train"), ("w100-d11-gap", "w035-d11-gap"), batch=8, draws=2)
    assert all(map(math.isfinite, found.values()))
    assert found["w100-d11-gap"] > found["w035-d11-gap"]  # more units, more codes


def test_trivial_predictors() -> None:
    parameters, macs = rivals.parameters(), rivals.macs()
    assert list(parameters) == list(macs) == list(STUDENTS)
    assert max(parameters, key=parameters.__getitem__) == "w100-d17-gap"
    assert parameters["w100-d17-gap"] == 2_585_220
    assert macs["w035-d11-dsc"] == 51_793_120
    assert random_order(0) == random_order(0) != random_order(1)
    assert set(random_order(0)) == set(STUDENTS)
