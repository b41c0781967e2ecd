"""`softmax_stats` against float64 probabilities, at the gaps where a float32 softmax fails, and at the edges."""

import math

import pytest
import torch

from efflib.kernels import softmax_stats


def naive(logits):
    """Statistics from the probabilities themselves, in float64."""
    p = torch.softmax(logits.double(), dim=1)
    top = p.sort(dim=1, descending=True).values
    return -(p * p.log()).sum(dim=1), top[:, 0] - top[:, 1], top[:, 0], p.argmax(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 2), (7, 10), (64, 100), (3, 131)])
def test_equals_the_probabilities_definition(dtype, shape):
    logits = (3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    found = softmax_stats(logits)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    for got, expected in zip(found, naive(logits), strict=True):
        assert torch.allclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance)
    assert found.entropy.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_check_values_of_the_spec():
    uniform = softmax_stats(torch.zeros(2, 10, dtype=torch.float64))
    assert uniform.entropy[0].item() == pytest.approx(2.302585, abs=1e-6)
    assert softmax_stats(torch.zeros(1, 100)).entropy.item() == pytest.approx(4.605170, abs=1e-6)
    known = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    assert softmax_stats(known).entropy.item() == pytest.approx(0.801819, abs=1e-6)
    assert softmax_stats(torch.tensor([[5.0, 0.0, 0.0]])).entropy.item() == pytest.approx(0.079869, abs=1e-6)


def test_saturated_rows_keep_their_digits_in_float32():
    # Spec 2.4: nine logits 30 below the first; float32 softmax then p ln p gives 2.527e-11.
    logits = torch.zeros(1, 10)
    logits[0, 0] = 30
    exact = naive(logits)[0].item()
    assert softmax_stats(logits).entropy.item() == pytest.approx(2.611e-11, rel=1e-3)
    assert softmax_stats(logits).entropy.item() == pytest.approx(9 * math.exp(-30) * 31, rel=1e-5)
    assert abs(exact - 2.611e-11) / 2.611e-11 < 0.05
    logits[0, 0] = 120
    assert torch.isfinite(softmax_stats(logits).entropy).all()
    p = torch.softmax(logits, dim=1)
    assert torch.isnan(-(p * p.log()).sum(dim=1)).all()


def test_ties_take_the_lowest_class_and_have_no_margin():
    found = softmax_stats(torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]]))
    assert found.prediction.tolist() == [1, 0]
    assert found.margin.tolist() == [0.0, 0.0]


def test_one_class_is_certain():
    found = softmax_stats(torch.randn(4, 1))
    assert found.entropy.tolist() == [0.0] * 4
    assert found.margin.tolist() == found.confidence.tolist() == [1.0] * 4
    assert found.prediction.tolist() == [0] * 4


def test_gradients_and_non_contiguous_input():
    logits = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    transposed = softmax_stats(logits.t().contiguous().t())
    assert torch.equal(transposed.entropy, softmax_stats(logits).entropy)
    assert torch.autograd.gradcheck(lambda z: softmax_stats(z)[:3], (logits,))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (2, 0)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match=r"logits must be \(N, C\)"):
        softmax_stats(torch.zeros(shape))
