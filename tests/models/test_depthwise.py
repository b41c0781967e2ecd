"""The depthwise convolution: PyTorch's values, derivatives of every order, and float32 where bf16 has no kernel."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

from efflib.models import create_model
from efflib.models.depthwise import DepthwiseConv2d

CHANNELS = 6
SHAPES = [(kernel, stride, side) for kernel, stride in ((3, 1), (3, 2), (5, 1)) for side in (1, 2, 3, 5)]


def layers(kernel, stride):
    """PyTorch's convolution and ours, with the same weights."""
    padding = kernel // 2
    plain = nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS, bias=False)
    ours = DepthwiseConv2d(CHANNELS, kernel, stride)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def images(side, dtype=torch.float32):
    drawn = torch.randn(4, CHANNELS, side, side, generator=torch.Generator().manual_seed(side), dtype=dtype)
    return drawn.contiguous(memory_format=torch.channels_last).requires_grad_()


def of(layer, x, w):
    return functional_call(layer, {"weight": w}, (x,))


def passes(layer, x, autocast=False):
    """Output and gradients of a loss whose gradient is not constant."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    gradients = torch.autograd.grad(y.float().square().sum(), (x, layer.weight))
    return y, *gradients


@pytest.mark.parametrize(("kernel", "stride", "side"), SHAPES)
def test_it_is_pytorchs_convolution(kernel, stride, side):
    plain, ours = layers(kernel, stride)
    for found, wanted in zip(passes(ours, images(side)), passes(plain, images(side)), strict=True):
        assert found.shape == wanted.shape and found.dtype == wanted.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_its_weights_start_and_are_stored_as_pytorchs():
    made = []
    for build in (lambda: DepthwiseConv2d(8, 3, 2), lambda: nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False)):
        torch.manual_seed(3)
        made.append(build().state_dict())
    assert made[0].keys() == made[1].keys() and torch.equal(made[0]["weight"], made[1]["weight"])


@pytest.mark.parametrize(("kernel", "stride", "side"), SHAPES)
def test_derivatives_of_both_inputs_twice(kernel, stride, side):
    layer = DepthwiseConv2d(2, kernel, stride).double()
    x, w = images(side, torch.float64)[:2, :2].detach(), layer.weight.detach().clone()
    given = x.requires_grad_(), w.requires_grad_()
    assert torch.autograd.gradcheck(partial(of, layer), given)
    assert torch.autograd.gradgradcheck(partial(of, layer), given)


def test_a_third_derivative_is_pytorchs():
    thirds = []
    for layer in layers(3, 2):
        x, w = images(5, torch.float64), layer.weight.double().detach().requires_grad_()
        layer.double()
        first = torch.autograd.grad(of(layer, x, w).pow(4).sum(), x, create_graph=True)[0]
        second = torch.autograd.grad(first.square().sum(), w, create_graph=True)[0]
        thirds.append(torch.autograd.grad(second.square().sum(), (x, w)))
    for found, wanted in zip(*thirds, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kernel", "stride", "side"), SHAPES)
def test_bf16_is_no_worse_than_pytorchs(kernel, stride, side):
    plain, ours = layers(kernel, stride)
    truth = passes(plain.double(), images(side, torch.float64))
    plain.float()
    found, theirs = passes(ours, images(side), True), passes(plain, images(side), True)
    assert [each.dtype for each in found] == [each.dtype for each in theirs]
    assert found[0].dtype == torch.bfloat16
    for own, other, exact in zip(found, theirs, truth, strict=True):
        allowed = 2 * float((other.detach().double() - exact.detach()).norm())
        assert float((own.detach().double() - exact.detach()).norm()) <= allowed + 1e-6 * float(exact.detach().norm())


@pytest.mark.parametrize(
    ("stride", "side", "widened"),
    [(1, 8, []), (2, 8, ["input"]), (1, 2, ["weight"]), (2, 2, ["input", "weight"])],
)
def test_reference_loops_of_bf16_are_avoided(monkeypatch, stride, side, widened):
    """Which of the gradients are computed in float32."""
    ran, plain = [], torch.ops.aten.convolution_backward

    def watched(g, x, w, *rest):
        ran.extend(name for name, wanted in zip(("input", "weight"), rest[-1]) if wanted and g.dtype == torch.float32)
        return plain(g, x, w, *rest)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", watched)
    passes(layers(3, stride)[1], images(side), True)
    assert sorted(ran) == widened


def test_what_is_not_asked_for_is_not_computed(monkeypatch):
    wanted, plain = [], torch.ops.aten.convolution_backward
    monkeypatch.setattr(
        torch.ops.aten, "convolution_backward", lambda *given: (wanted.append(given[-1]), plain(*given))[1]
    )
    ours = layers(3, 1)[1]
    ours.weight.requires_grad_(False)
    ours(images(5)).sum().backward()
    assert wanted == [(True, False, False)]


def test_torch_compile_keeps_one_graph():
    torch._dynamo.reset()
    plain, ours = layers(3, 2)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    for found, wanted in zip(passes(compiled, images(5)), passes(plain, images(5)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenetv1", "mobilenetv2_half", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_networks_use_it_wherever_channels_are_convolved_alone(name):
    alone = [
        module
        for module in create_model(name, 10, **({} if name == "mobilenetv2" else {"width": 0.25})).modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1
    ]
    assert alone and all(isinstance(module, DepthwiseConv2d) for module in alone)
