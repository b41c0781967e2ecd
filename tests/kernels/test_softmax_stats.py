"""`softmax_stats` against float64 probabilities, at the gaps where a float32 softmax fails, and at the edges.

Then its Triton path against the definition, both against float64.
"""

import math

import pytest
import torch

from efflib.kernels import softmax_stats
from efflib.kernels.common import taking
from efflib.kernels.softmax_stats import _fused, _fused_backward, softmax_stats_ref


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


def logits(N, C, device, dtype=torch.float32, spread=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(N, C, generator=generator, dtype=torch.float64)).to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 100), (257, 10), (7, 11), (3, 1), (1, 2), (5, 1000), (3, 2048), (2, 4097)])
def test_kernel_agrees_with_float64(agree, device, dtype, shape):
    agree(softmax_stats, softmax_stats_ref, (logits(*shape, device, dtype),), wrt=(0,))


def constant(device):
    return torch.full((3, 7), 2.5, device=device)


def ties_for_the_second(device):
    return torch.tensor([[0.0, 3, 1, 1, 1], [2, 2, 2, 0, 1], [4, -1, 3, 0, 3]], device=device)


def ties_beyond_a_tile(device):
    rows = logits(4, 4099, device).round()
    rows[0, [5, 4095, 4096, 4098]] = 30.0  # for the first place
    rows[1, 4098], rows[1, [7, 8, 2500, 4097]] = 30.0, 20.0  # for the second, the first in the last tile
    rows[2, 0], rows[2, 4097] = 30.0, 29.0
    return rows


def sorted_rows(device):
    up = logits(1, 4200, device).sort(dim=1).values
    return torch.cat([up, up.flip(1)])


def nearly_tied(device):
    rows = logits(6, 9, device)
    rows[:, 3] = rows.amax(dim=1) + 1
    rows[:, 5] = rows[:, 3] - torch.tensor([1e-6, 1e-4, 1e-2, 0.1, 0.3, 0.6], device=device)
    return rows


def far_apart(device):
    return logits(6, 10, device, spread=200.0)


def far_from_zero(device):
    return logits(6, 10, device) + 1000


def columns_first(device):
    return logits(10, 6, device).T


def every_other(device):
    return logits(6, 40, device)[:, ::2]


def half_precision(device):
    return logits(9, 24, device, torch.float16)


EDGES = [constant, ties_for_the_second, ties_beyond_a_tile, sorted_rows, nearly_tied, far_apart, far_from_zero]
EDGES += [columns_first, every_other, half_precision]


@pytest.mark.parametrize("case", EDGES)
def test_kernel_at_the_edges(agree, device, case):
    agree(softmax_stats, softmax_stats_ref, (case(device),), wrt=(0,), floor=16)


def relative_errors(operation, rows, gap):
    """Largest error of the entropy and of its gradient, in units of the value itself, where one class has all."""
    rows = (rows * 64).round() / 64  # the gaps are float32 numbers: their rounding is no error of the operation
    rows[:, 4] = rows.amax(dim=1) + gap
    exact = rows.double().cpu().requires_grad_()
    rows.requires_grad_()
    with taking("triton"):
        found = operation(rows).entropy
        found.sum().backward()
    truth = softmax_stats_ref(exact).entropy
    truth.sum().backward()
    pairs = [(found.detach(), truth.detach()), (rows.grad, exact.grad)]
    return [float((a.double().cpu() / b - 1).abs().max()) for a, b in pairs]


@pytest.mark.parametrize(("gap", "allowed"), [(0.01, 2e-6), (30.0, 2e-6), (85.0 - 12, 2e-6), (95.0, 2e-3)])
def test_kernel_keeps_the_digits_of_saturated_rows(device, gap, allowed):
    rows = logits(20, 10, device, spread=0.5)  # all gradients within e^-5 of each other: none is below 2^-126 at 73
    value, slope = relative_errors(softmax_stats, rows, gap)
    assert value < allowed
    assert gap < 1 or slope < 4 * allowed  # without a gap, derivatives of the entropy cross 0


def test_kernel_at_gaps_that_float32_cannot_tell_from_certainty(device):
    rows = torch.zeros(2, 10, device=device).index_fill_(1, torch.tensor(3, device=device), 120.0).requires_grad_()
    with taking("triton"):
        found = softmax_stats(rows)
        (found.entropy + found.margin + found.confidence).sum().backward()
    assert found.entropy.tolist() == [0, 0] and found.margin.tolist() == found.confidence.tolist() == [1, 1]
    assert found.prediction.tolist() == [3, 3] and not rows.grad.any()


def test_a_gap_below_the_rounding_of_its_odds_is_no_tie(device):
    rows = torch.tensor([[0.0, -1e-9, -2e-9]], device=device, requires_grad=True)
    with taking("triton"):
        found = softmax_stats(rows)
        found.margin.sum().backward()
    assert found.margin.item() == pytest.approx(1e-9 / 3, rel=1e-6)
    assert rows.grad.tolist() == [pytest.approx([1 / 3, -1 / 3, 0], abs=1e-7)]


def test_kernel_at_the_check_values(device):
    with taking("triton"):
        assert softmax_stats(torch.zeros(1, 100, device=device)).entropy.item() == pytest.approx(4.605170, abs=1e-6)
        alone = softmax_stats(torch.randn(4, 1).to(device))
    assert alone.entropy.tolist() == [0.0] * 4 and alone.prediction.tolist() == [0] * 4
    assert alone.margin.tolist() == alone.confidence.tolist() == [1.0] * 4


@pytest.mark.parametrize("name", ["entropy", "margin", "confidence"])
def test_kernel_gives_the_gradient_of_one_alone(agree, device, name):
    rows = (logits(5, 7, device),)
    agree(lambda z: getattr(softmax_stats(z), name), lambda z: getattr(softmax_stats_ref(z), name), rows, wrt=(0,))


def test_gradients_keep_layout_and_no_grad_needs_no_backward(device):
    rows = logits(5, 8, device)
    upright = rows.t().contiguous().t().requires_grad_()
    with taking("triton"):
        assert torch.autograd.grad(softmax_stats(upright).entropy.sum(), upright)[0].stride() == upright.stride()
        with torch.no_grad():
            assert not softmax_stats(upright).entropy.requires_grad
        assert not softmax_stats(upright).prediction.requires_grad


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_wrong_shapes_on_the_triton_path(device, shape):
    with taking("triton"), pytest.raises(ValueError, match=r"logits must be \(N, C\)"):
        softmax_stats(torch.zeros(shape, device=device))


def test_torch_compile_sees_it(one_graph, device):
    one_graph(softmax_stats, (logits(6, 10, device),), wrt=(0,))


def test_operators_are_registered_as_torch_wants(registered, device):
    rows = logits(6, 10, device)
    registered(_fused, (rows.clone().requires_grad_(),))
    registered(_fused_backward, (*torch.rand(3, 6).to(device), rows))


@pytest.mark.parametrize(
    ("change", "case"),
    [
        ({"tl.where(top_a >= top_b, index_a, index_b)": "tl.where(top_a > top_b, index_a, index_b)"}, 2),
        ({"tl.where(second_a == second, ties_a, 0.0)": "tl.where(second_a == second, 1.0, 0.0)"}, 2),
        ({"ties += tl.where(lower == second, 1.0, 0.0)": "ties += tl.where(lower == second, 2.0, 0.0)"}, 2),
        ({"weighted_a + rise_a * sum_a": "weighted_a"}, 3),
        ({"to_second = swap / ties": "to_second = swap"}, 1),
        ({"tl.where(z == top[None, :, None], column": "tl.where(z >= top[None, :, None] - 3, column"}, 6),
        ({"g_e * (mean_gap - gap)": "g_e * mean_gap"}, 6),
        ({"sure * rest - g_e * mean_gap": "sure - g_e * mean_gap"}, 6),
        ({"1.0 - gap * (0.5 - gap * series)": "1.0 - gap * (0.6 - gap * series)"}, 4),
    ],
)
def test_a_wrong_kernel_is_noticed(agree, device, mutant, change, case):
    wrong = mutant("softmax_stats", change)
    with pytest.raises(AssertionError, match="is off by"):
        agree(wrong.softmax_stats, softmax_stats_ref, (EDGES[case](device),), wrt=(0,), floor=16)


@pytest.mark.parametrize(
    "change",
    [
        {"_log1p(rest, p) +": "tl.log(1.0 + rest) +"},
        {"return tl.fma(odds, lost, odds)": "return odds"},
    ],
)
def test_a_kernel_that_loses_digits_is_noticed(device, mutant, change):
    wrong = mutant("softmax_stats", change)
    rows = logits(20, 10, device, spread=0.5)
    assert relative_errors(wrong.softmax_stats, rows, 30.0)[0] > 3 * relative_errors(softmax_stats, rows, 30.0)[0]
