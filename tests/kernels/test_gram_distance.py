"""Distance of unit Gram matrices: the spec's example, algebra, derivatives, precision, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from efflib.kernels import gram_distance
from efflib.kernels.gram_distance import unit_gram

BOTH = pytest.mark.parametrize("metric", ["l2", "cosine"])


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_gram_toy_of_the_spec():
    """Section 7: F_t = I, F_s = [[1, 0], [1, 0]]."""
    teacher, student = torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert gram_distance(teacher, student, "l2").item() == pytest.approx(0.7653669, abs=5e-8)
    assert gram_distance(teacher, student, "cosine").item() == pytest.approx(0.2928932, abs=5e-8)
    assert gram_distance(teacher.float(), student, "cosine").dtype == torch.float64


@BOTH
def test_against_loops(metric):
    a, b = numbers(4, 2, 3, 3), numbers(4, 5, seed=1)  # of other sizes

    def gram(x):
        raw = [[float((p * q).sum()) for q in x] for p in x]
        norm = math.sqrt(sum(value**2 for row in raw for value in row))
        return [value / norm for row in raw for value in row]

    M, W = gram(a), gram(b)
    if metric == "l2":
        expected = math.sqrt(sum((m - w) ** 2 for m, w in zip(M, W)) + 1e-12)
    else:
        expected = 1 - sum(m * w for m, w in zip(M, W))
    assert gram_distance(a, b, metric).item() == pytest.approx(expected, rel=1e-12)
    single = gram_distance(a.float(), b.float(), metric)
    assert single.dtype == torch.float32 and single.ndim == 0 and single.item() == pytest.approx(expected, rel=1e-5)


def test_cosine_is_half_the_squared_distance():
    for seed in range(5):
        a, b = numbers(6, 8, seed=seed), numbers(6, 3, seed=seed + 50)
        assert gram_distance(a, b, "cosine").item() == pytest.approx(
            0.5 * (gram_distance(a, b, "l2").item() ** 2 - 1e-12), rel=1e-12
        )


@BOTH
def test_bounds_and_invariances(metric):
    bound = math.sqrt(2) if metric == "l2" else 1.0
    for seed in range(20):
        a, b = numbers(5, 7, seed=seed).relu(), numbers(5, 7, seed=seed + 50).relu()
        assert 0 <= gram_distance(a, b, metric).item() <= bound + 1e-12
    rotation = torch.linalg.qr(numbers(7, 7, seed=3)).Q
    expected = gram_distance(a, b, metric).item()
    for other in (1e6 * a, 1e-3 * a, -a, a @ rotation):
        assert gram_distance(other, b, metric).item() == pytest.approx(expected, abs=1e-9)
    assert gram_distance(b, a, metric).item() == pytest.approx(expected, rel=1e-12)
    apart = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    assert gram_distance(*apart, metric).item() == pytest.approx(bound)


@BOTH
def test_gradients_of_both_inputs_twice(metric):
    a, b = numbers(3, 2, 2).requires_grad_(), numbers(3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: gram_distance(a, b, metric), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: gram_distance(a, b, metric), (a, b))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_matrices_and_zeros_give_finite_gradients(metric, dtype):
    x = numbers(4, 6, dtype=dtype)
    for mine, other in ((x, x), (2 * x, x), (torch.zeros_like(x), x), (torch.zeros_like(x), torch.zeros_like(x))):
        leaf = mine.clone().requires_grad_()
        distance = gram_distance(leaf, other, metric)
        (first,) = torch.autograd.grad(distance, leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), leaf)
        assert distance.isfinite() and first.isfinite().all() and second.isfinite().all()
    near = 1e-6 if metric == "l2" else 0.0
    assert gram_distance(x, x, metric).item() == pytest.approx(near, abs=1e-6 if dtype == torch.float32 else 1e-12)
    zero, one = torch.zeros(4, 6), numbers(4, 6).float()
    assert gram_distance(zero, one, metric).item() == pytest.approx(1.0)  # a matrix of norm 0 beside one of norm 1


def test_one_image():
    """B = 1: both matrices are the number 1."""
    assert gram_distance(numbers(1, 3), numbers(1, 4, seed=1), "cosine").item() == pytest.approx(0, abs=1e-12)


@BOTH
def test_low_precision_and_autocast(metric):
    """Values up to 6 in 1280 x 7 x 7: entries reach 2.3e6, beyond fp16."""
    high = 6 * torch.rand(4, 1280, 7, 7, generator=torch.Generator().manual_seed(0))
    other = 6 * torch.rand(4, 320, 7, 7, generator=torch.Generator().manual_seed(1)) ** 2
    exact = gram_distance(high.double(), other.double(), metric).item()
    plain = gram_distance(high, other, metric)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gram_distance(high, other, metric), plain)
    assert plain.item() == pytest.approx(exact, rel=1e-3, abs=1e-6)
    for dtype in (torch.float16, torch.bfloat16):
        found = gram_distance(high.to(dtype), other.to(dtype), metric)
        rounded = gram_distance(high.to(dtype).double(), other.to(dtype).double(), metric).item()
        assert found.dtype == torch.float32 and found.item() == pytest.approx(rounded, rel=1e-3, abs=1e-6)


def test_unit_gram():
    found = unit_gram(numbers(3, 4, 2))
    assert found.norm().item() == pytest.approx(1) and torch.equal(found, found.T)


@pytest.mark.parametrize(
    ("a", "b", "metric", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 2), "l2", r"same B images, got \(3, 2\) and \(4, 2\)"),
        (torch.zeros(3), torch.zeros(3), "l2", r"same B images, got \(3,\) and \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2), "fro", "metric must be one of l2, cosine, got 'fro'"),
    ],
)
def test_bad_input(a, b, metric, message):
    with pytest.raises(ValueError, match=message):
        gram_distance(a, b, metric)
