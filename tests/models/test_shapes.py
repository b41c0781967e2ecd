"""Networks without values: their counts are the counts, and they stay among themselves."""

from __future__ import annotations

import pytest

from efflib.models import count_parameters, create_model, parameters_of, shapes_only


@pytest.mark.parametrize("model", ["resnet20", "vgg8", "resnet50_cbam"])
def test_counts_without_values_are_the_counts(model: str) -> None:
    assert parameters_of(model, 100) == count_parameters(create_model(model, 100))


def test_modules_without_values_stay_among_themselves() -> None:
    with shapes_only():
        inside = create_model("resnet20", 10)
    assert {p.device.type for p in inside.parameters()} == {"meta"}
    outside = create_model("resnet20", 10)
    assert {p.device.type for p in outside.parameters()} == {"cpu"}
    assert outside.conv1.weight.std() > 0.01  # weights are drawn again
