"""Learned step sizes: values and gradients against the definition in float64, and what becomes of a trained network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from efflib.quantize import fix_steps, learn_steps, learned_step, quantized_layers
from efflib.quantize.qat import first_steps


def case(bits, seed=0, count=4, length=50):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(count, length, generator=generator, dtype=torch.float64)
    steps = 0.1 + 0.4 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    upstream = torch.randn(count, length, generator=generator, dtype=torch.float64)
    weight[0, :3] = steps[0] * torch.tensor([-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1, 0.0])  # on the bounds
    return weight, steps, upstream


def by_hand(w, s, bits):
    """(y, dy/dw, dy/ds) of one weight."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    v = w / s
    if low <= v <= high:
        return s * round(v), 1.0, round(v) - v
    bound = low if v < low else high
    return s * bound, 0.0, float(bound)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_values_and_gradients_are_the_definition(bits):
    weight, steps, upstream = case(bits)
    w, s = weight.clone().requires_grad_(), steps.clone().requires_grad_()
    y = learned_step(w, s, bits)
    y.backward(upstream)
    factor = 1 / math.sqrt(weight.shape[1] * (2 ** (bits - 1) - 1))
    y = y.detach()
    for channel in range(len(weight)):
        step, total = float(steps[channel]), 0.0
        for place in range(weight.shape[1]):
            value, to_weight, to_step = by_hand(float(weight[channel, place]), step, bits)
            g = float(upstream[channel, place])
            assert math.isclose(float(y[channel, place]), value, rel_tol=1e-12, abs_tol=1e-15)
            assert math.isclose(float(w.grad[channel, place]), g * to_weight, rel_tol=1e-12)
            total += g * to_step
        assert math.isclose(float(s.grad[channel]), factor * total, rel_tol=1e-9, abs_tol=1e-12)


def test_gradient_of_the_step_is_the_slope_where_nothing_rounds_anew():
    weight = torch.tensor([[5.0, -7.0, 0.32, 0.1]], dtype=torch.float64)  # two clipped; the others far from a tie
    step = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    learned_step(weight, step, 3).sum().backward()
    with torch.no_grad():
        slope = (learned_step(weight[:, :2], step + 1e-6, 3) - learned_step(weight[:, :2], step, 3)).sum() / 1e-6
    inside = sum(round(v) - v for v in (weight[0, 2:] / 0.3).tolist())
    assert float(step.grad) * math.sqrt(4 * 3) == pytest.approx(float(slope) + inside, rel=1e-6)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_steps_start_as_in_the_paper(bits):
    weight, *_ = case(bits)
    expected = 2 * weight.abs().mean(dim=1, keepdim=True) / math.sqrt(2 ** (bits - 1) - 1)
    torch.testing.assert_close(first_steps(weight, bits), expected)


def test_a_step_that_fell_below_zero_comes_back():
    weight = torch.tensor([[0.5, -0.5, 0.25]])
    step = nn.Parameter(torch.tensor([[-0.01]]))
    optimiser = torch.optim.SGD([step], lr=0.1)
    for _ in range(20):
        loss = (learned_step(weight, step, 4) - weight).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(step.detach()) > 0 and torch.isfinite(step).all()


@pytest.mark.parametrize("name", ["mnist_cnn", "names_decoder"])
def test_training_then_fixing_changes_nothing(nets, name):
    model = learn_steps(nets.build(name, quantised=False), 4)
    x = nets.inputs(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = {key: value.clone() for key, value in model.named_parameters() if key.endswith("step")}
    assert len(steps) == len(model.quantizable)
    for _ in range(3):
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()
    assert all(not torch.equal(value, steps[key]) for key, value in model.named_parameters() if key in steps)
    before = nets.outputs(model, x)
    fix_steps(model)
    assert tuple(quantized_layers(model)) == tuple(model.quantizable)
    assert all(bool((layer.bits == 4).all()) for layer in quantized_layers(model).values())
    torch.testing.assert_close(nets.outputs(model, x), before, rtol=1e-4, atol=1e-4)


def test_bad_settings_are_refused(nets):
    model = nets.build("mnist_cnn", quantised=False)
    with pytest.raises(ValueError, match="whole number of at least 2"):
        learn_steps(model, 1)
    with pytest.raises(ValueError, match=r"step must be \(O, 1, ..., 1\) for weight \(2, 3\), got \(3, 1\)"):
        learned_step(torch.ones(2, 3), torch.ones(3, 1), 4)
    with pytest.raises(ValueError, match="call learn_steps first"):
        fix_steps(model)
    learn_steps(model, 4)
    with pytest.raises(ValueError, match=r"conv1 is a Parametrized\w+: steps are learned in a plain"):
        learn_steps(model, 4)
