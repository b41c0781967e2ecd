"""Distance of unit Gram matrices: the spec's example, algebra, derivatives, precision, bad input."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from efflib.kernels import gram_distance
from efflib.kernels.common import taking
from efflib.kernels.gram_distance import MOST_IMAGES, _fused, _fused_backward, gram_distance_ref, unit_gram

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


# The Triton path, in the frame of conftest.py.

CASES = {
    "features": lambda: (last(numbers(6, 3, 3, 3)), numbers(6, 5, seed=1)),
    "one image": lambda: (numbers(1, 7), numbers(1, 3, seed=1)),
    "two images": lambda: (numbers(2, 1), numbers(2, 1, seed=1)),
    "more images than a block": lambda: (numbers(67, 5), numbers(67, 2, seed=1)),
    "channels last": lambda: (last(numbers(5, 4, 3, 2)), last(numbers(5, 3, 2, 2, seed=1))),
    "turned": lambda: (numbers(7, 5).T, numbers(4, 5, 3, seed=1).transpose(0, 1)),
    "cut": lambda: (numbers(5, 4, 6, 6)[:, ::2, 1:, ::3], numbers(10, 3, seed=1)[::2]),
    "repeated": lambda: (numbers(5, 1, 3).expand(5, 4, 3), numbers(1, 3, seed=1).expand(5, 3)),
    "nearly equal": lambda: (numbers(5, 6), numbers(5, 6) + 1e-3 * numbers(5, 6, seed=1)),
    "apart": lambda: (torch.eye(3)[:, :1].double(), torch.eye(3)[:, 1:2].double()),
    "large": lambda: (1e3 * numbers(4, 6), 1e4 * numbers(4, 6, seed=1)),
    "clamped": lambda: (1e-7 * numbers(4, 6), numbers(4, 6, seed=1)),
    "both clamped": lambda: (1e-7 * numbers(4, 6), 1e-7 * numbers(4, 6, seed=1)),
    "zero": lambda: (torch.zeros(4, 6).double(), numbers(4, 6, seed=1)),
    "both zero": lambda: (torch.zeros(4, 6).double(), torch.zeros(4, 6).double()),
}


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def first(operation):
    """(a, b, upstream) -> both gradients: what a second derivative starts from."""
    return lambda a, b, upstream: torch.autograd.grad(operation(a, b), (a, b), upstream, create_graph=True)


def ours_and_definition(metric):
    return partial(gram_distance, metric=metric), partial(gram_distance_ref, metric=metric)


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_float64(agree, device, metric, case):
    a, b = (x.to(device, torch.float32) for x in CASES[case]())
    ours, theirs = ours_and_definition(metric)
    # beside a matrix of norm 0 the gradient of the other cancels to 0, in float32 to the last place of a unit matrix
    floor = 2e3 if case in ("clamped", "zero") else 4.0
    agree(ours, theirs, (a, b), wrt=(0, 1), floor=floor)
    agree(first(ours), first(theirs), (a, b, torch.tensor(0.7, device=device)), wrt=(0, 1, 2), floor=floor)


@BOTH
@pytest.mark.parametrize("dtypes", [(torch.bfloat16,) * 2, (torch.float16,) * 2, (torch.float32, torch.bfloat16)])
def test_low_precision_agrees_with_float64(agree, device, metric, dtypes):
    a, b = (x.to(device, dtype) for x, dtype in zip(CASES["channels last"](), dtypes, strict=True))
    agree(*ours_and_definition(metric), (a, b), wrt=(0, 1))
    with taking("triton"):
        gradients = torch.autograd.grad(gram_distance(a.requires_grad_(), b.requires_grad_(), metric), (a, b))
    assert [x.dtype for x in gradients] == list(dtypes)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in gradients)


@BOTH
def test_equal_features(agree, device, metric):
    """Twice the features are the same matrix bit for bit: the distance is its least, its gradient 0 (l2)."""
    x = numbers(4, 6).to(device, torch.float32)
    ours, theirs = ours_and_definition(metric)
    for other in (x, 2 * x):
        agree(ours, theirs, (x, other), wrt=(0, 1))
        agree(first(ours), first(theirs), (x, other, torch.tensor(0.7, device=device)), wrt=(0, 1, 2))
    leaf = x.clone().requires_grad_()
    with taking("triton"):
        distance = gram_distance(leaf, leaf, metric)
        (gradient,) = torch.autograd.grad(distance, leaf)
    assert distance.item() == pytest.approx(1e-6 if metric == "l2" else 0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


@BOTH
def test_one_side_alone_and_no_grad(agree, device, metric):
    a, b = (x.to(device, torch.float32) for x in CASES["features"]())
    ours, theirs = ours_and_definition(metric)
    upstream = torch.tensor(0.7, device=device)
    for side in (0, 1):
        agree(ours, theirs, (a, b), wrt=(side,))

        def alone(operation, side=side):
            return lambda *x: torch.autograd.grad(operation(*x[:2]), x[side], x[2], create_graph=True)

        for wrt in ((side,), (side, 2), (0, 1, 2)):
            agree(alone(ours), alone(theirs), (a, b, upstream), wrt=wrt)
    with taking("triton"), torch.no_grad():
        assert not gram_distance(a.requires_grad_(), b, metric).requires_grad


@BOTH
def test_a_third_derivative(agree, device, metric):
    def second(operation):
        def gradients(a, b, upstream):
            once = first(operation)(a, b, upstream)
            return torch.autograd.grad(once, (a, b, upstream), [x.detach() + 1 for x in once], create_graph=True)

        return gradients

    a, b = (x.to(device, torch.float32) for x in (numbers(3, 2), numbers(3, 4, seed=1)))
    ours, theirs = (second(x) for x in ours_and_definition(metric))
    agree(ours, theirs, (a, b, torch.tensor(0.7, device=device)), wrt=(0, 1, 2))


@BOTH
def test_autocast_does_not_round_the_products(device, metric):
    a, b = (x.to(device, torch.float32).requires_grad_() for x in CASES["features"]())
    with taking("triton"):
        plain = gram_distance(a, b, metric)
        gradients = torch.autograd.grad(plain, (a, b))
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            found = gram_distance(a, b, metric)
            rounded = torch.autograd.grad(found, (a, b))
    assert torch.equal(found, plain) and all(torch.equal(x, y) for x, y in zip(gradients, rounded, strict=True))


def test_more_images_than_one_program_takes_float64_and_no_features(device):
    a = numbers(MOST_IMAGES + 1, 2).to(device, torch.float32)
    with taking("triton"):
        assert torch.equal(gram_distance(a, a[:, :1], "l2"), gram_distance_ref(a, a[:, :1], "l2"))
        assert gram_distance(a.double(), a, "l2").dtype == torch.float64
        assert gram_distance(a[:, :0], a, "cosine") == 1


def test_bad_input_is_refused_as_by_the_definition(device):
    a = numbers(3, 2).to(device, torch.float32)
    with taking("triton"):
        with pytest.raises(ValueError, match=r"same B images, got \(3, 2\) and \(2, 2\)"):
            gram_distance(a, a[:2], "l2")
        with pytest.raises(ValueError, match=r"same B images, got \(2,\) and \(2,\)"):
            gram_distance(a[0], a[0], "l2")
        with pytest.raises(ValueError, match="one of l2, cosine, got 'fro'"):
            gram_distance(a, a, "fro")


@BOTH
def test_torch_compile_sees_it(one_graph, device, metric):
    a, b = (x.to(device, torch.float32) for x in CASES["channels last"]())
    one_graph(partial(gram_distance, metric=metric), (a, b), wrt=(0, 1))


def test_operators_are_registered_as_torch_wants(registered, device):
    a, b = (x.to(device, torch.float32).requires_grad_() for x in CASES["channels last"]())
    registered(_fused, (a, b, "l2"))
    kept = [x.detach() for x in _fused(a, b, "l2")[1:]]
    upstream = torch.tensor(2.0, device=device)
    for wants in ((True, True), (True, False), (False, True)):
        registered(_fused_backward, (upstream, a.detach(), b.detach(), *kept, "l2", *wants))
    registered(_fused_backward, (upstream.requires_grad_(), a, b, *kept, "l2", True, True))


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("features", {"2 * tl.load(upstream)": "tl.load(upstream)"}),
        ("features", {"2 * tl.load(upstream) *": "2 *"}),
        ("features", {"(own * m_a - m_b) - k_a * m_a": "(own * m_a - m_b)"}),
        ("features", {"(own * m_b - m_a) - k_b * m_b": "(own * m_b - m_a)"}),
        ("features", {"apart += (m_a - m_b) * (m_a - m_b)": "apart += m_a * m_a"}),
        ("features", {"0.5 * total": "total"}),
        ("features", {"places = [1 + order.index(dim)": "places = [dim"}),
        ("more images than a block", {"squares_a += g_a * g_a": "squares_a = g_a * g_a"}),
        ("clamped", {"tl.where(clamped_a, 0.0, k_a)": "k_a"}),
        ("clamped", {"own = tl.where(plain, 0.0, 1.0)": "own = 1.0"}),
        ("clamped", {"n_a = tl.sqrt_rn(tl.maximum(square_a, FLOOR * FLOOR))": "n_a = tl.sqrt_rn(square_a)"}),
        ("clamped", {"tl.where(plain, 1 - inner, 0.5 * total)": "0.5 * total"}),
        ("both zero", {"tl.sqrt_rn(total + FLOOR)": "tl.sqrt_rn(total + 2 * FLOOR)"}),
    ],
)
def test_a_wrong_kernel_is_noticed(agree, device, mutant, case, change):
    wrong = mutant("gram_distance", change).gram_distance
    a, b = (x.to(device, torch.float32) for x in CASES[case]())

    def compared():
        for metric in ("l2", "cosine"):
            agree(partial(wrong, metric=metric), partial(gram_distance_ref, metric=metric), (a, b), wrt=(0, 1))

    with pytest.raises(AssertionError, match="is off by"):
        compared()
