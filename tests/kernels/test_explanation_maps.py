"""Relevance and Grad-CAM maps: the definitions against loops and the spec, and both Triton paths against float64.

The two differ in one factor, the gradient or its spatial mean; what holds for one kernel is asked of the other.
"""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from efflib.kernels import gradcam_map, relevance_map
from efflib.kernels.common import taking

MODULES = {name: sys.modules[f"efflib.kernels.{name}"] for name in ("gradcam_map", "relevance_map")}


@pytest.fixture(params=MODULES)
def kernel(request):
    """One of the two operations: its name, the public function, the definition, and the registered operators.

    `saved` gives what the backward operator gets between the upstream gradient and the activations.
    """
    name, module = request.param, MODULES[request.param]

    def saved(upstream, g):
        return (upstream > 1, g.detach().mean(dim=(2, 3))) if name == "gradcam_map" else (upstream > 1,)

    return SimpleNamespace(
        name=name,
        map=getattr(module, name),
        ref=getattr(module, f"{name}_ref"),
        forward=module._fused,
        backward=module._fused_backward,
        saved=saved,
    )


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_map_toy_of_the_spec():
    """Section 7: A_1 = (1, 3), A_2 = (2, 0)."""
    A = torch.tensor([[1.0, 3.0], [2.0, 0.0]]).view(1, 2, 1, 2)
    pooled = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).view(1, 2, 1, 2) / 2  # global average, then w = (1, -1)
    assert relevance_map(A, pooled, relu=False).flatten().tolist() == [-0.5, 1.5]
    assert torch.equal(relevance_map(A, pooled, relu=False), gradcam_map(A, pooled, relu=False))
    assert relevance_map(A, pooled).flatten().tolist() == [0.0, 1.5]
    flat = torch.tensor([[1.0, 0.0], [0.0, -1.0]]).view(1, 2, 1, 2)
    assert relevance_map(A, flat, relu=False).flatten().tolist() == [1.0, 0.0]
    assert gradcam_map(A, flat, relu=False).flatten().tolist() == [-0.5, 1.5]
    for weights in (pooled, flat):  # S = 1
        assert float((A * weights).sum()) == relevance_map(A, weights, relu=False).sum().item() == 1


def by_loops(name, A, g, relu):
    """Eq. of the map in plain Python, float64."""
    N, C, h, w = A.shape
    found = torch.zeros(N, h, w, dtype=torch.float64)
    for n in range(N):
        means = [sum(g[n, c].flatten().tolist()) / (h * w) for c in range(C)]
        for i in range(h):
            for j in range(w):
                weights = means if name == "gradcam_map" else [g[n, c, i, j].item() for c in range(C)]
                value = sum(weights[c] * A[n, c, i, j].item() for c in range(C))
                found[n, i, j] = max(value, 0.0) if relu else value
    return found


@pytest.mark.parametrize("relu", [True, False])
def test_against_loops(kernel, relu):
    A, g = numbers(2, 3, 4, 5), numbers(2, 3, 4, 5, seed=1)
    expected = by_loops(kernel.name, A, g, relu)
    assert torch.allclose(kernel.map(A, g, relu), expected, rtol=1e-14, atol=1e-14)
    single = kernel.map(A.float(), g.float(), relu)
    assert single.dtype == torch.float32 and torch.allclose(single.double(), expected, atol=1e-5)


def test_gradients_of_both_inputs_twice(kernel):
    A, g = numbers(2, 3, 2, 2).requires_grad_(), numbers(2, 3, 2, 2, seed=1).requires_grad_()
    for relu in (True, False):
        assert torch.autograd.gradcheck(partial(kernel.map, relu=relu), (A, g))
        assert torch.autograd.gradgradcheck(partial(kernel.map, relu=relu), (A, g))


def test_low_precision_is_widened_inside(kernel):
    """(1 + 2^-7)^2 - (1 + 2^-6) = 2^-14: a product in bf16 loses it, and the difference would be 0."""
    A = torch.tensor([1 + 2**-7, 1 + 2**-6], dtype=torch.bfloat16).view(1, 2, 1, 1)
    g = torch.tensor([1 + 2**-7, -1.0], dtype=torch.bfloat16).view(1, 2, 1, 1)
    found = kernel.map(A, g)
    assert found.dtype == torch.bfloat16 and found.item() == 2**-14


def test_memory_order_zeros_and_one_channel():
    A, g = numbers(2, 3, 5, 7), numbers(2, 3, 5, 7, seed=1)
    last = relevance_map(A.contiguous(memory_format=torch.channels_last), g)
    assert torch.allclose(last, relevance_map(A, g), rtol=1e-14)
    assert not relevance_map(A, torch.zeros_like(g)).any()
    assert torch.equal(relevance_map(A[:, :1], g[:, :1], relu=False), A[:, 0] * g[:, 0])


@pytest.mark.parametrize("shapes", [((2, 3, 4, 4), (2, 3, 4, 5)), ((2, 3, 4), (2, 3, 4))])
def test_shapes_that_differ(kernel, shapes):
    first, second = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=rf"\(N, C, h, w\).*{str(tuple(shapes[0]))[1:-1]}.*{str(shapes[1])[1:-1]}"):
        kernel.map(first, second)


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
def test_agrees_with_float64(kernel, agree, device, size, dtype):
    A, g, upstream = maps(*size, device, dtype)
    for relu in (True, False):
        agree(partial(kernel.map, relu=relu), partial(kernel.ref, relu=relu), (A, g), wrt=(0, 1))
        ours, theirs = first(partial(kernel.map, relu=relu)), first(partial(kernel.ref, relu=relu))
        agree(ours, theirs, (A, g, upstream), wrt=(0, 1, 2))


@pytest.fixture
def as_in_large_maps(monkeypatch):
    """The tiles of maps large enough to fill a device, which are wider than those of a test's maps."""
    for module in MODULES.values():
        monkeypatch.setattr(module, "PROGRAMS", 1)


def test_more_channels_and_pixels_than_one_tile(kernel, agree, device, as_in_large_maps):
    A, g, upstream = maps(2, 67, 3, 47, device)
    for layout in (lambda x: x, last):
        pair = layout(A), layout(g)
        agree(kernel.map, kernel.ref, pair, wrt=(0, 1))
        agree(first(kernel.map), first(kernel.ref), (*pair, upstream), wrt=(0, 1, 2))


def test_a_third_derivative(kernel, agree, device):
    agree(second(kernel.map), second(kernel.ref), maps(2, 3, 2, 2, device), wrt=(0, 1, 2))


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
def test_layouts(kernel, agree, device, layout, as_in_large_maps):
    A, g = LAYOUTS[layout](*maps(2, 7, 3, 5, device)[:2])
    agree(kernel.map, kernel.ref, (A, g), wrt=(0, 1))
    upstream = numbers(len(A), *A.shape[2:]).to(A)
    agree(first(kernel.map), first(kernel.ref), (A, g, upstream), wrt=(0, 1, 2))


def test_gradients_have_the_memory_order_and_the_precision_of_their_inputs(kernel, agree, device):
    A, g, _ = maps(2, 7, 3, 5, device)
    A, g = last(A).requires_grad_(), g.half().requires_grad_()
    with taking("triton"):
        found = kernel.map(A, g)
        dA, dg = torch.autograd.grad(found.sum(), (A, g))
    assert found.dtype == dA.dtype == torch.float32 and dg.dtype == torch.float16
    assert dA.is_contiguous(memory_format=torch.channels_last) and dg.is_contiguous()
    agree(kernel.map, kernel.ref, (A, g), wrt=(0, 1))


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
def test_edges(kernel, agree, device, case):
    A, g, upstream = maps(2, 3, 4, 4, device)
    agree(kernel.map, kernel.ref, case(A, g), wrt=(0, 1))
    agree(first(kernel.map), first(kernel.ref), (*case(A, g), upstream), wrt=(0, 1, 2))


def alone(operation, side):
    """(A, g, upstream) -> the gradient of one side."""

    def gradient(A, g, upstream):
        pair = [A, g]
        if not pair[side].requires_grad:
            pair[side] = pair[side].detach().requires_grad_()
        return torch.autograd.grad(operation(*pair), pair[side], upstream, create_graph=True)

    return gradient


def test_one_side_alone_and_no_grad(kernel, agree, device):
    A, g, upstream = maps(2, 3, 4, 4, device)
    for side in (0, 1):
        agree(kernel.map, kernel.ref, (A, g), wrt=(side,))
        for wrt in ((2,), (1 - side,), (1 - side, 2)):
            agree(alone(kernel.map, side), alone(kernel.ref, side), (A, g, upstream), wrt=wrt)
    with taking("triton"), torch.no_grad():
        assert not kernel.map(A.requires_grad_(), g).requires_grad


def test_a_sum_too_small_for_fp16_lets_its_gradient_pass(kernel, device):
    tiny = torch.full((1, 1, 1, 1), 2.0**-13, dtype=torch.float16, device=device).requires_grad_()
    with taking("triton"):
        found = kernel.map(tiny, tiny.detach())
        (gradient,) = torch.autograd.grad(found.sum(), tiny)
    assert found.item() == 0 and gradient.item() == 2.0**-13


def test_not_a_number_is_not_hidden(kernel, device):
    A, g, _ = maps(1, 3, 2, 2, device)
    A[0, 1, 0, 0] = float("nan")
    with taking("triton"):
        assert kernel.map(A, g).isnan().sum() == 1


def test_bad_input_is_refused_as_by_the_definition(kernel, device):
    A, g, _ = maps(2, 3, 4, 4, device)
    with taking("triton"):
        with pytest.raises(ValueError, match=r"equal in shape, got \(2, 3, 4, 4\) and \(2, 3, 4, 3\)"):
            kernel.map(A, g[..., :3])
        with pytest.raises(ValueError, match=r"got \(2, 3, 4\) and \(2, 3, 4\)"):
            kernel.map(A[..., 0], g[..., 0])


def test_float64_and_empty_maps_take_the_definition(kernel, device):
    A, g, _ = maps(2, 3, 4, 4, device, torch.float64)
    with taking("triton"):
        assert torch.equal(kernel.map(A, g), kernel.ref(A, g))
        assert kernel.map(A[:0].float(), g[:0].float()).shape == (0, 4, 4)


def test_torch_compile_sees_it(kernel, one_graph, device):
    A, g, _ = maps(2, 3, 4, 4, device)
    one_graph(kernel.map, (last(A), g), wrt=(0, 1))


def test_operators_are_registered_as_torch_wants(kernel, registered, device):
    A, g, upstream = maps(2, 3, 4, 4, device)
    registered(kernel.forward, (last(A).requires_grad_(), g.requires_grad_(), True))
    saved = kernel.saved(upstream, g)
    for wants in ((True, True), (True, False), (False, True)):
        registered(kernel.backward, (upstream, *saved, last(A).detach(), g.detach(), *wants))
    registered(kernel.backward, (upstream.requires_grad_(), *saved, A.requires_grad_(), g, True, True))


# Made wrong on purpose, line by line; what both kernels share is changed in both.
SHARED = (
    {"value = tl.where(closed, 0.0, value)": "value = value + 0.0"},
    {"closed == 0": "closed == closed"},
    {"sum(terms[1:], terms[0])": "terms[0]"},
    {"activations if v_a is None else v_a": "activations"},
)
OWN = {
    "gradcam_map": (
        {"tl.sum(total, axis=0) / P, c < C": "tl.sum(total, axis=0), c < C"},
        {"        tile += PIXELS * g_pixel": "        tile += 0"},
        {"        tile += CHANNELS * a_channel": "        tile += 0"},
        {"u[:, None] * w[None, :]": "w[None, :]"},
        {"(tl.sum(total, axis=0) / P)[None, :]": "tl.sum(total, axis=0)[None, :]"},
        {"            dg_tile += PIXELS * dg_pixel": "            dg_tile += 0"},
        {"means = second.mean": "means = gradients.mean"},
    ),
    "relevance_map": (
        {"(value <= 0)": "(value < 0)"},
        {"        a_tile += CHANNELS * a_channel": "        a_tile += 0"},
        {"u[:, None] * g.to(tl.float32)": "g.to(tl.float32)"},
        {"d_gradients + n * dg_image": "d_gradients"},
        {"gradients if v_g is None else v_g": "gradients"},
    ),
}


@pytest.mark.parametrize(("name", "change"), [(name, change) for name in OWN for change in (*SHARED, *OWN[name])])
def test_a_wrong_kernel_is_noticed(agree, device, mutant, name, change, monkeypatch, as_in_large_maps):
    changed, definition = mutant(name, change), getattr(MODULES[name], f"{name}_ref")
    monkeypatch.setattr(changed, "PROGRAMS", 1)
    wrong = getattr(changed, name)
    A, g, upstream = maps(2, 67, 3, 47, device)
    g[0, :, 0, 0] = 0  # a sum of exactly 0
    if "CHANNELS" not in str(change):  # which moves over 64 channels at a time; the others, 64 pixels at a time
        A, g = last(A), last(g)

    def compared():
        agree(wrong, definition, (A, g), wrt=(0, 1))
        agree(first(wrong), first(definition), (A, g, upstream), wrt=(0, 1, 2))

    with pytest.raises(AssertionError, match="is off by"):
        compared()
