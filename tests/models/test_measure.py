"""FLOPs of whatever runs: convolutions and products, forward and backward, without a trace in the caller's state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from efflib.models import count_macs, create_model
from efflib.models.measure import count_flops


def test_a_forward_pass_costs_two_flops_per_multiply_accumulate():
    model = create_model("resnet20", 10).eval()
    assert count_flops(lambda: model(torch.zeros(1, 3, 32, 32))) == 2 * count_macs(model)


def test_backward_passes_count():
    layer, x = nn.Linear(8, 4, bias=False), torch.ones(3, 8, requires_grad=True)
    forward = count_flops(lambda: layer(x))
    assert forward == 2 * 3 * 8 * 4
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * forward


def test_gradients_of_maps_inside_a_network_can_be_counted():
    """What relevance maps do: the gradient of a score by a feature map that is no leaf, to be differentiated again."""
    first, last = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def run() -> None:
        maps = first(torch.ones(1, 3, 5, 5))
        (gradient,) = torch.autograd.grad(last(maps.mean(dim=(2, 3))).sum(), maps, create_graph=True)
        gradient.square().sum().backward()

    assert count_flops(run) > count_flops(lambda: last(first(torch.ones(1, 3, 5, 5)).mean(dim=(2, 3))))


def test_gradients_by_detached_maps_can_be_counted():
    """A teacher's map is a leaf: torch's counter alone refuses torch.autograd.grad there."""
    network = create_model("resnet14", 10, width=0.25).eval().requires_grad_(False)

    def run() -> None:
        x = torch.zeros(1, 3, 8, 8, requires_grad=True)
        torch.autograd.grad(network(x).sum(), x)

    assert count_flops(run) > count_flops(lambda: network(torch.zeros(1, 3, 8, 8)))


def test_the_callers_random_numbers_stay():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    count_flops(lambda: torch.rand(5))
    assert torch.equal(torch.rand(2), wanted)


def test_an_error_of_the_run_is_not_hidden():
    def run() -> None:
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        count_flops(run)
