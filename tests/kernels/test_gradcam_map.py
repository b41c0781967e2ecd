"""Grad-CAM's weighted sum: the definition against loops, derivatives, and the Triton path against float64."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import torch

from efflib.kernels import gradcam_map
from efflib.kernels.common import taking
from efflib.kernels.gradcam_map import _fused, _fused_backward, gradcam_map_ref


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("relu", [True, False])
def test_against_loops(relu):
    A, g = numbers(2, 3, 4, 5), numbers(2, 3, 4, 5, seed=1)
    expected = torch.zeros(2, 4, 5, dtype=torch.float64)
    for n in range(2):
        weights = [sum(g[n, c].flatten().tolist()) / 20 for c in range(3)]
        for i in range(4):
            for j in range(5):
                value = sum(weights[c] * A[n, c, i, j].item() for c in range(3))
                expected[n, i, j] = max(value, 0.0) if relu else value
    assert torch.allclose(gradcam_map(A, g, relu), expected, rtol=1e-14, atol=1e-14)


def test_gradients_of_both_inputs_twice():
    A, g = numbers(2, 3, 2, 2).requires_grad_(), numbers(2, 3, 2, 2, seed=1).requires_grad_()
    for relu in (True, False):
        assert torch.autograd.gradcheck(lambda a, b, relu=relu: gradcam_map(a, b, relu), (A, g))
        assert torch.autograd.gradgradcheck(lambda a, b, relu=relu: gradcam_map(a, b, relu), (A, g))


# The Triton path, in the frame of conftest.py.


def maps(N, C, h, w, device, dtype=torch.float32):
    """Activations, gradients and an upstream gradient of the map, none of it 1."""
    A, g = numbers(N, C, h, w), numbers(N, C, h, w, seed=1)
    upstream = 0.5 + numbers(N, h, w, seed=2).abs()
    return A.to(device, dtype), g.to(device, dtype), upstream.to(device, dtype)


def first(operation):
    """(A, g, upstream) -> both gradients: what a second derivative starts from."""
    return lambda A, g, upstream: torch.autograd.grad(operation(A, g), (A, g), upstream, create_graph=True)


def second(operation):
    """(A, g, upstream) -> three second derivatives: what a third starts from."""

    def gradients(A, g, upstream):
        once = first(operation)(A, g, upstream)
        arriving = [numbers(*x.shape, seed=4 + number).to(x) for number, x in enumerate(once)]
        return torch.autograd.grad(once, (A, g, upstream), arriving, create_graph=True)

    return gradients


SMALL = [(2, 3, 4, 5), (1, 1, 1, 1), (3, 5, 1, 13), (1, 2, 11, 13)]
SIZES = [
    *((size, dtype) for size in SMALL for dtype in (torch.float32, torch.bfloat16)),
    ((2, 3, 4, 5), torch.float16),
]


@pytest.mark.parametrize(("size", "dtype"), SIZES)
def test_agrees_with_float64(agree, device, size, dtype):
    A, g, upstream = maps(*size, device, dtype)
    for relu in (True, False):
        agree(partial(gradcam_map, relu=relu), partial(gradcam_map_ref, relu=relu), (A, g), wrt=(0, 1))
        ours, theirs = first(partial(gradcam_map, relu=relu)), first(partial(gradcam_map_ref, relu=relu))
        agree(ours, theirs, (A, g, upstream), wrt=(0, 1, 2))


@pytest.fixture
def as_in_large_maps(monkeypatch):
    """The tiles of maps large enough to fill a device, which are wider than those of a test's maps."""
    monkeypatch.setattr(sys.modules["efflib.kernels.relevance_map"], "PROGRAMS", 1)
    monkeypatch.setattr(sys.modules["efflib.kernels.gradcam_map"], "PROGRAMS", 1)


def test_more_channels_and_pixels_than_one_tile(agree, device, as_in_large_maps):
    A, g, upstream = maps(2, 67, 3, 47, device)
    for layout in (lambda x: x, last):
        pair = layout(A), layout(g)
        agree(gradcam_map, gradcam_map_ref, pair, wrt=(0, 1))
        agree(first(gradcam_map), first(gradcam_map_ref), (*pair, upstream), wrt=(0, 1, 2))


def test_a_third_derivative(agree, device):
    agree(second(gradcam_map), second(gradcam_map_ref), maps(2, 3, 2, 2, device), wrt=(0, 1, 2))


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


LAYOUTS = {
    "channels last": lambda A, g: (last(A), last(g)),
    "many channels": lambda A, g: (last(A[:1].repeat(1, 37, 1, 1)), last(g[:1].repeat(1, 37, 1, 1))),
    "activations last": lambda A, g: (last(A), g),
    "gradients last": lambda A, g: (A, last(g)),
    "turned": lambda A, g: (A.transpose(2, 3), g.transpose(2, 3)),
    "cut in space": lambda A, g: (last(A)[:, :, 1:, :-1], g[:, :, 1:, :-1]),
    "every other channel": lambda A, g: (A[:, ::2], last(g)[:, ::2]),
    "images innermost": lambda A, g: (A.permute(3, 1, 2, 0), g.permute(3, 1, 2, 0)),
    "one gradient for all pixels": lambda A, g: (last(A), g[:, :, :1, :1].expand_as(g)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(agree, device, layout, as_in_large_maps):
    A, g = LAYOUTS[layout](*maps(2, 7, 3, 5, device)[:2])
    agree(gradcam_map, gradcam_map_ref, (A, g), wrt=(0, 1))
    upstream = numbers(len(A), *A.shape[2:]).to(A)
    agree(first(gradcam_map), first(gradcam_map_ref), (A, g, upstream), wrt=(0, 1, 2))


def test_gradients_have_the_memory_order_and_the_precision_of_their_inputs(agree, device):
    A, g, _ = maps(2, 7, 3, 5, device)
    A, g = last(A).requires_grad_(), g.half().requires_grad_()
    with taking("triton"):
        found = gradcam_map(A, g)
        dA, dg = torch.autograd.grad(found.sum(), (A, g))
    assert found.dtype == dA.dtype == torch.float32 and dg.dtype == torch.float16
    assert dA.is_contiguous(memory_format=torch.channels_last) and dg.is_contiguous()
    agree(gradcam_map, gradcam_map_ref, (A, g), wrt=(0, 1))


def zeros(A, g):
    return torch.zeros_like(A), g


def same(A, g):
    return A, A.clone()


def negative(A, g):
    return -g.abs(), g.abs()


def cancelling(A, g):
    """Sums that are exactly 0: the ReLU is shut there."""
    return torch.ones_like(A), torch.tensor([1.0, -1.0, 0.0], device=A.device).view(1, 3, 1, 1).expand_as(A)


def half_open(A, g):
    """Sums of small integers, many of them 0."""
    return A.round(), g.round()


@pytest.mark.parametrize("case", [zeros, same, negative, cancelling, half_open])
def test_edges(agree, device, case):
    A, g, upstream = maps(2, 3, 4, 4, device)
    agree(gradcam_map, gradcam_map_ref, case(A, g), wrt=(0, 1))
    agree(first(gradcam_map), first(gradcam_map_ref), (*case(A, g), upstream), wrt=(0, 1, 2))


def alone(operation, side):
    """(A, g, upstream) -> the gradient of one side."""

    def gradient(A, g, upstream):
        pair = [A, g]
        if not pair[side].requires_grad:
            pair[side] = pair[side].detach().requires_grad_()
        return torch.autograd.grad(operation(*pair), pair[side], upstream, create_graph=True)

    return gradient


def test_one_side_alone_and_no_grad(agree, device):
    A, g, upstream = maps(2, 3, 4, 4, device)
    for side in (0, 1):
        agree(gradcam_map, gradcam_map_ref, (A, g), wrt=(side,))
        for wrt in ((2,), (1 - side,), (1 - side, 2)):
            agree(alone(gradcam_map, side), alone(gradcam_map_ref, side), (A, g, upstream), wrt=wrt)
    with taking("triton"), torch.no_grad():
        assert not gradcam_map(A.requires_grad_(), g).requires_grad


def test_a_sum_too_small_for_fp16_lets_its_gradient_pass(device):
    tiny = torch.full((1, 1, 1, 1), 2.0**-13, dtype=torch.float16, device=device).requires_grad_()
    with taking("triton"):
        found = gradcam_map(tiny, tiny.detach())
        (gradient,) = torch.autograd.grad(found.sum(), tiny)
    assert found.item() == 0 and gradient.item() == 2.0**-13


def test_not_a_number_is_not_hidden(device):
    A, g, _ = maps(1, 3, 2, 2, device)
    A[0, 1, 0, 0] = float("nan")
    with taking("triton"):
        assert gradcam_map(A, g).isnan().sum() == 1


def test_bad_input_is_refused_as_by_the_definition(device):
    A, g, _ = maps(2, 3, 4, 4, device)
    with taking("triton"):
        with pytest.raises(ValueError, match=r"equal in shape, got \(2, 3, 4, 4\) and \(2, 3, 4, 3\)"):
            gradcam_map(A, g[..., :3])
        with pytest.raises(ValueError, match=r"got \(2, 3, 4\) and \(2, 3, 4\)"):
            gradcam_map(A[..., 0], g[..., 0])


def test_float64_and_empty_maps_take_the_definition(device):
    A, g, _ = maps(2, 3, 4, 4, device, torch.float64)
    with taking("triton"):
        assert torch.equal(gradcam_map(A, g), gradcam_map_ref(A, g))
        assert gradcam_map(A[:0].float(), g[:0].float()).shape == (0, 4, 4)


def test_torch_compile_sees_it(one_graph, device):
    A, g, _ = maps(2, 3, 4, 4, device)
    one_graph(gradcam_map, (last(A), g), wrt=(0, 1))


def test_operators_are_registered_as_torch_wants(registered, device):
    A, g, upstream = maps(2, 3, 4, 4, device)
    registered(_fused, (last(A).requires_grad_(), g.requires_grad_(), True))
    gate, weights = upstream > 1, g.detach().mean(dim=(2, 3))
    for wants in ((True, True), (True, False), (False, True)):
        registered(_fused_backward, (upstream, gate, weights, last(A).detach(), g.detach(), *wants))
    registered(_fused_backward, (upstream.requires_grad_(), gate, weights, A.requires_grad_(), g, True, True))


@pytest.mark.parametrize(
    "change",
    [
        {"value = tl.where(closed, 0.0, value)": "value = value + 0.0"},
        {"closed == 0": "closed == closed"},
        {"tl.sum(total, axis=0) / P, c < C": "tl.sum(total, axis=0), c < C"},
        {"        tile += PIXELS * g_pixel": "        tile += 0"},
        {"        tile += CHANNELS * a_channel": "        tile += 0"},
        {"u[:, None] * w[None, :]": "w[None, :]"},
        {"(tl.sum(total, axis=0) / P)[None, :]": "tl.sum(total, axis=0)[None, :]"},
        {"            dg_tile += PIXELS * dg_pixel": "            dg_tile += 0"},
        {"sum(terms[1:], terms[0])": "terms[0]"},
        {"activations if v_a is None else v_a": "activations"},
        {"means = second.mean": "means = gradients.mean"},
    ],
)
def test_a_wrong_kernel_is_noticed(agree, device, mutant, change, monkeypatch, as_in_large_maps):
    changed = mutant("gradcam_map", change)
    monkeypatch.setattr(changed, "PROGRAMS", 1)
    wrong = changed.gradcam_map
    A, g, upstream = maps(1, 67, 3, 47, device)
    if "CHANNELS" not in str(change):  # which moves over 64 channels at a time; the others, 64 pixels at a time
        A, g = last(A), last(g)

    def compared():
        agree(wrong, gradcam_map_ref, (A, g), wrt=(0, 1))
        agree(first(wrong), first(gradcam_map_ref), (A, g, upstream), wrt=(0, 1, 2))

    with pytest.raises(AssertionError, match="is off by"):
        compared()
