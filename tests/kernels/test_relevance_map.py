"""Gradient times activation: the spec's example, float64, derivatives, precision, bad input."""

from __future__ import annotations

import pytest
import torch

from efflib.kernels import gradcam_map, relevance_map


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


@pytest.mark.parametrize("relu", [True, False])
def test_against_loops(relu):
    A, g = numbers(2, 3, 4, 5), numbers(2, 3, 4, 5, seed=1)
    expected = torch.zeros(2, 4, 5, dtype=torch.float64)
    for n in range(2):
        for i in range(4):
            for j in range(5):
                value = sum(A[n, c, i, j].item() * g[n, c, i, j].item() for c in range(3))
                expected[n, i, j] = max(value, 0.0) if relu else value
    assert torch.allclose(relevance_map(A, g, relu), expected, rtol=1e-14, atol=1e-14)
    single = relevance_map(A.float(), g.float(), relu)
    assert single.dtype == torch.float32 and torch.allclose(single.double(), expected, atol=1e-5)


def test_gradients_of_both_inputs_twice():
    A, g = numbers(2, 3, 2, 2).requires_grad_(), numbers(2, 3, 2, 2, seed=1).requires_grad_()
    for relu in (True, False):
        assert torch.autograd.gradcheck(lambda a, b, relu=relu: relevance_map(a, b, relu), (A, g))
        assert torch.autograd.gradgradcheck(lambda a, b, relu=relu: relevance_map(a, b, relu), (A, g))


def test_low_precision_is_widened_inside():
    """(1 + 2^-7)^2 - (1 + 2^-6) = 2^-14: a product in bf16 loses it, and the difference would be 0."""
    A = torch.tensor([1 + 2**-7, 1 + 2**-6], dtype=torch.bfloat16).view(1, 2, 1, 1)
    g = torch.tensor([1 + 2**-7, -1.0], dtype=torch.bfloat16).view(1, 2, 1, 1)
    found = relevance_map(A, g)
    assert found.dtype == torch.bfloat16 and found.item() == 2**-14


def test_memory_order_zeros_and_one_channel():
    A, g = numbers(2, 3, 5, 7), numbers(2, 3, 5, 7, seed=1)
    last = relevance_map(A.contiguous(memory_format=torch.channels_last), g)
    assert torch.allclose(last, relevance_map(A, g), rtol=1e-14)
    assert not relevance_map(A, torch.zeros_like(g)).any()
    assert torch.equal(relevance_map(A[:, :1], g[:, :1], relu=False), A[:, 0] * g[:, 0])


@pytest.mark.parametrize("shapes", [((2, 3, 4, 4), (2, 3, 4, 5)), ((2, 3, 4), (2, 3, 4))])
def test_shapes_that_differ(shapes):
    first, second = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=rf"\(N, C, h, w\).*{str(tuple(shapes[0]))[1:-1]}.*{str(shapes[1])[1:-1]}"):
        relevance_map(first, second)
