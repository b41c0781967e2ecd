"""`fake_quantize`: the spec's table of values and gradients, its edges, and plain autograd away from them.

Then its Triton path: the definition's values bit for bit, and its gradients against float64.
"""

from __future__ import annotations

import math

import pytest
import torch

from efflib.kernels import fake_quantize
from efflib.kernels.common import taking
from efflib.kernels.fake_quantize import _fused, _fused_backward, fake_quantize_ref, power_of_two, quantised

LN2 = math.log(2)

# x, b, e, y, dy/dx, dy/db, dy/de: section 7 of the safety spec, verified there by autograd in float64.
TABLE = [
    (0.3, 3, -2, 0.25, 1, 0, -0.034657),
    (2.0, 3, -2, 0.75, 0, 0.693147, 0.519860),
    (-2.0, 3, -2, -1.00, 0, -0.693147, -0.693147),
    (0.3, 0.5, -2, 0, 0, 0.122532, 0),
    (-0.3, 0.5, -2, -0.25, 0, -0.122532, -0.173287),
    (0.9, 2.33, -2, 0.50, 0, 0.435648, 0.346574),
    (-0.9, 2.33, -2, -0.75, 0, -0.435648, -0.519860),
    (0.3, 0, -2, 0, 0, 0, 0),
    (-5.0, 0, -2, 0, 0, 0, 0),
    (0.7, -0.003, -2, 0, 0, 0, 0),
    (-0.7, -40, -2, 0, 0, 0, 0),
]


def leaves(weight, bits, exponent, dtype=torch.float64):
    """Tensors of one channel per entry, with gradients; weight (O,) or (O, n)."""
    weight = torch.tensor(weight, dtype=dtype)
    shape = (len(weight), *[1] * (weight.ndim - 1))
    channel = [torch.tensor(values, dtype=dtype).reshape(shape) for values in (bits, exponent)]
    return [tensor.requires_grad_() for tensor in (weight, *channel)]


def straight_through(weight, bits, exponent):
    """The formula with autograd's own gradients, the rounding replaced by the identity on the way back."""
    b = bits.relu()
    half = 2**b / 2
    low, high = torch.where(bits > 0, -half, 0 * b), torch.where(bits > 0, half - 1, 0 * b)
    clipped = torch.minimum(torch.maximum(2**-exponent * weight, low), high)
    return 2**exponent * (clipped + (clipped.round() - clipped).detach())


@pytest.mark.parametrize("upstream", [1.0, -2.5])
@pytest.mark.parametrize("row", TABLE)
def test_table_of_the_spec(row, upstream):
    x, b, e, *expected = row
    tensors = leaves([[x]], [b], [e])
    y = fake_quantize(*tensors)
    y.backward(torch.full_like(y, upstream))
    found = [y.item(), *(tensor.grad.item() / upstream for tensor in tensors)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_bits_of_zero_or_less_pass_nothing_at_any_weight():
    tensors = leaves([[-3.0, 0.0, 0.1, 9.0]] * 3, [0.0, -0.003, -1000.0], [-2.0, 0.0, 3.0])
    y = fake_quantize(*tensors)
    y.backward(torch.ones_like(y))
    assert not y.any() and not torch.signbit(y).any()
    assert all(not tensor.grad.any() for tensor in tensors)


@pytest.mark.parametrize(("s", "b"), [(3.0, 3.0), (-4.0, 3.0), (0.0, 1.0), (-1.0, 1.0)])
def test_on_a_bound_a_weight_counts_as_inside(s, b):
    tensors = leaves([[s / 4]], [b], [-2.0])
    y = fake_quantize(*tensors)
    y.backward(torch.full_like(y, 3.0))
    assert y.item() == s / 4
    assert [tensor.grad.item() for tensor in tensors] == [3, 0, 0]
    plain = leaves([[s / 4]], [b], [-2.0])
    straight_through(*plain).sum().backward()
    assert plain[0].grad.item() == 0.5  # what the spec warns of: autograd shares the tie between both sides


def test_on_a_bound_that_is_no_integer():
    hi = 2**1.33 - 1
    tensors = leaves([[hi]], [2.33], [0.0])
    y = fake_quantize(*tensors)
    y.sum().backward()
    assert y.item() == 2
    assert [t.grad.item() for t in tensors] == pytest.approx([1, 0, LN2 * (2 - hi)])


@pytest.mark.parametrize("shape", [(7,), (5, 11), (3, 2, 5, 5), (1, 1, 1, 1), (13, 3, 1, 7)])
def test_equals_autograd_away_from_ties(shape):
    generator = torch.Generator().manual_seed(sum(shape))
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    ones = (shape[0], *[1] * (len(shape) - 1))
    bits = 6 * torch.rand(ones, generator=generator, dtype=torch.float64) - 1
    exponent = 2 * torch.randn(ones, generator=generator, dtype=torch.float64) - 2
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
    found, expected = [], []
    for function, kept in ((fake_quantize, found), (straight_through, expected)):
        tensors = [tensor.clone().requires_grad_() for tensor in (weight, bits, exponent)]
        y = function(*tensors)
        y.backward(upstream)
        kept += [y, *(tensor.grad for tensor in tensors)]
    for got, wanted in zip(found, expected, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_rounds_half_to_even():
    weight = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5]])
    assert fake_quantize(weight, torch.tensor([[8.0]]), torch.tensor([[0.0]])).tolist() == [[0, 2, 2, 0, -2, -2]]


def test_codes_have_no_negative_zero():
    codes = quantised(torch.tensor([[-0.2, -0.0, 0.3]]), torch.tensor([[0.5]]), torch.tensor([[0.0]])).codes
    assert not codes.any() and not torch.signbit(codes).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtype_is_kept_and_the_arithmetic_is_wide(dtype):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn((4, 50), generator=generator).to(dtype).requires_grad_()
    bits, exponent = torch.tensor([2.2, 4.0, 9.0, 0.0]).reshape(4, 1), torch.full((4, 1), -5.3)
    bits.requires_grad_(), exponent.requires_grad_()
    y = fake_quantize(weight, bits, exponent)
    y.sum().backward()
    exact = fake_quantize(weight.detach().double(), bits.double(), exponent.double())
    assert y.dtype == weight.grad.dtype == dtype and bits.grad.dtype == torch.float32
    # One step of 2^-5.3 would be 0.025: the code is that of wide arithmetic, only the result is rounded.
    assert torch.allclose(y.double(), exact, rtol=float(torch.finfo(dtype).eps), atol=1e-7)


def test_float32_gradients_against_float64():
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn((6, 300), generator=generator)
    bits, exponent = 1 + 4 * torch.rand((6, 1), generator=generator), -3 * torch.rand((6, 1), generator=generator)
    upstream = torch.randn((6, 300), generator=generator)
    grads = []
    for dtype in (torch.float32, torch.float64):
        tensors = [tensor.to(dtype, copy=True).requires_grad_() for tensor in (weight, bits, exponent)]
        fake_quantize(*tensors).backward(upstream.to(dtype))
        grads.append([tensor.grad.double() for tensor in tensors])
    for single, double in zip(*grads, strict=True):
        assert torch.allclose(single, double, rtol=2e-5, atol=2e-4)


def test_layout_no_grad_and_single_gradients():
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn((4, 3, 5, 5), generator=generator)
    bits, exponent = torch.full((4, 1, 1, 1), 3.3), torch.full((4, 1, 1, 1), -1.0)
    expected = fake_quantize(weight, bits, exponent)
    assert torch.equal(fake_quantize(weight.to(memory_format=torch.channels_last), bits, exponent), expected)
    assert torch.equal(fake_quantize(weight[:, :, ::2], bits, exponent), expected[:, :, ::2])
    with torch.no_grad():
        assert not fake_quantize(weight.requires_grad_(), bits, exponent).requires_grad
    fake_quantize(weight.detach(), bits.requires_grad_(), exponent).sum().backward()
    assert bits.grad.shape == bits.shape and exponent.grad is None


def test_thirty_two_bits_only_round():
    weight = torch.tensor([[0.3, -0.0437, 0.001953125, 123.0]])
    y = fake_quantize(weight, torch.tensor([[32.0]]), torch.tensor([[-8.0]]))
    assert torch.equal(y, (weight * 256).round() / 256)
    wide = leaves([[1.0, -7.0]], [200.0], [-8.0], torch.float32)
    fake_quantize(*wide).sum().backward()
    assert wide[0].grad.tolist() == [[1, 1]] and wide[1].grad.item() == 0


def test_a_power_of_two_is_exact_and_does_not_depend_on_its_neighbours():
    whole = torch.arange(-60.0, 61.0)
    assert power_of_two(whole).tolist() == [2.0**k for k in range(-60, 61)]
    e = 5 * torch.randn(999, generator=torch.Generator().manual_seed(5))
    assert torch.equal(power_of_two(e), torch.cat([power_of_two(part) for part in e.split(1)]))


@pytest.mark.parametrize(
    ("bits", "exponent"), [((4,), (4, 1)), ((4, 1), (1, 1)), ((3, 1), (4, 1)), ((4, 1, 1), (4, 1))]
)
def test_wrong_shapes(bits, exponent):
    with pytest.raises(ValueError, match=r"\(O, 1, \.\.\., 1\).*weight \(4, 9\), bits \("):
        fake_quantize(torch.zeros(4, 9), torch.zeros(bits), torch.zeros(exponent))
    with pytest.raises(ValueError, match=r"weight \(\)"):
        fake_quantize(torch.zeros(()), torch.zeros(()), torch.zeros(()))


def layer(shape, device, dtype=torch.float32, seed=0):
    """Weight, bits and exponents: codes of 0 to 8 bits with a part of the weights clipped, some channels dead."""
    generator = torch.Generator().manual_seed(seed)
    ones = (shape[0], *[1] * (len(shape) - 1))
    bits = 8 * torch.rand(ones, generator=generator) - 0.5
    exponent = 1.5 - bits.relu() + torch.randn(ones, generator=generator)
    weight = torch.randn(shape, generator=generator).to(dtype)
    return [tensor.to(device) for tensor in (weight, bits, exponent)]


def stored(wide, dtype, device):
    """float32 numbers as a kernel stores them: Triton's interpreter cuts bf16 off where the hardware rounds."""
    if dtype == torch.bfloat16 and device == "cpu":
        wide = (wide.view(torch.int32) & -65536).view(torch.float32)
    return wide.to(dtype)


def same_bits(found, expected):
    """Equal to the last bit, the sign of 0 too; a NaN is a NaN."""
    same = (found == expected) & (torch.signbit(found) == torch.signbit(expected))
    return found.dtype == expected.dtype and bool((same | (found.isnan() & expected.isnan())).all())


SHAPES = [(64, 16, 3, 3), (7,), (5, 11), (13, 3, 1, 7), (1, 1, 1, 1), (37, 27), (3, 4099)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_gives_the_definition_bit_for_bit(device, dtype, shape):
    weight, bits, exponent = layer(shape, device, dtype)
    expected = fake_quantize_ref(weight.float(), bits, exponent)
    assert torch.equal(expected.to(dtype), fake_quantize_ref(weight, bits, exponent))
    with taking("triton"):
        assert same_bits(fake_quantize(weight, bits, exponent), stored(expected, dtype, device))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_agrees_with_float64(agree, device, dtype, shape):
    agree(fake_quantize, fake_quantize_ref, layer(shape, device, dtype), wrt=(0, 1, 2))


def test_kernel_has_the_steps_of_the_definition(device):
    # all channels' powers of two: 20,000 of them, with the codes they give
    generator = torch.Generator().manual_seed(1)
    bits = (30 * torch.rand((20000, 1), generator=generator) - 2).to(device)
    exponent = (20 * torch.randn((20000, 1), generator=generator)).to(device)
    weight = torch.randn((20000, 1), generator=generator).to(device) * power_of_two(exponent + bits / 2)
    found = quantised(weight, bits, exponent)
    y, channels = _fused(weight, bits, exponent)
    expected = [found.low, found.high, power_of_two(-exponent), found.step]
    assert same_bits(channels, torch.cat([x.reshape(1, -1) for x in expected]))
    assert same_bits(y, fake_quantize_ref(weight, bits, exponent))


def on_the_bounds(device):
    """Every half step from beyond one bound to beyond the other, at whole and broken bits, 0 and -0 among them."""
    s = torch.cat([torch.arange(-10.0, 10.5, 0.5), torch.tensor([-0.0, -0.25])])
    bits = torch.tensor([3.0, 1.0, 2.33, 0.5, 0.0, -4.0, 32.0, 1e-3])[:, None]
    exponent = torch.tensor([-2.0, 0.0, 0.0, -1.0, 3.0, 0.0, -1.0, 0.0])[:, None]
    return [x.to(device) for x in (s * torch.exp2(exponent), bits, exponent)]


def large_codes(device):
    weight = torch.tensor([2.0**k + d for k in (21, 22, 23, 24) for d in (-1.5, -0.5, 0, 0.5, 1.5)])
    weight = torch.stack([weight, -weight])
    return [x.to(device) for x in (weight, torch.full((2, 1), 30.0), torch.zeros(2, 1))]


def channels_last(device):
    weight, bits, exponent = layer((8, 5, 3, 3), device)
    return weight.to(memory_format=torch.channels_last), bits, exponent


def one_by_one(device):
    weight, bits, exponent = layer((8, 16, 1, 1), device)
    return weight.to(memory_format=torch.channels_last), bits, exponent


def sliced(device):
    weight, bits, exponent = layer((8, 5, 6, 3), device)
    return weight[:, :, ::2], bits, exponent


def transposed(device):
    weight, bits, exponent = layer((9, 14), device)
    return weight.t().contiguous().t(), bits, exponent


def shared_exponent(device):
    weight, bits, exponent = layer((9, 14), device)
    return weight, bits.repeat(1, 2)[:, :1], exponent[:1].expand(9, 1)


def narrow_bits(device):
    weight, bits, exponent = layer((9, 14), device)
    return weight, bits.bfloat16(), exponent.half()


EDGES = [on_the_bounds, large_codes, channels_last, one_by_one, sliced, transposed, shared_exponent, narrow_bits]


@pytest.mark.parametrize("case", EDGES)
def test_kernel_at_the_edges(agree, device, case):
    tensors = case(device)
    agree(fake_quantize, fake_quantize_ref, tensors, wrt=(0, 1, 2))
    with taking("triton"):
        assert same_bits(fake_quantize(*tensors), fake_quantize_ref(*tensors))


def test_kernel_on_bounds_that_are_no_integers(device):
    # where float64 would decide otherwise, the kernel does as the float32 definition does, gradients too
    bits = torch.tensor([2.33, 1e-9, 0.41, 6.7])[:, None]
    low, high = -torch.exp2(bits.double() - 1).float(), torch.exp2(bits.double() - 1).float() - 1
    steps = torch.arange(-3, 4)
    weight = torch.cat([x * (1 + steps * 2.0**-24) for x in (low, high)], dim=1).repeat(1, 2)
    found = []
    for operation in (fake_quantize, fake_quantize_ref):
        tensors = [x.to(device).requires_grad_() for x in (weight.clone(), bits.clone(), torch.zeros(4, 1))]
        with taking("triton"):
            y = operation(*tensors)
            found.append([y, *torch.autograd.grad(y, tensors, torch.full_like(y, 2.0))])
    assert same_bits(found[0][0], found[1][0]) and same_bits(found[0][1], found[1][1])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter tells of every infinity
def test_kernel_treats_infinite_powers_and_nan_as_the_definition_does(device):
    bits = torch.tensor([200.0, 200, 4, 4, 150, -1e4, 4, 0])[:, None].to(device)
    exponent = torch.tensor([-8.0, -200, -200, 200, -140, 0, -140, 300])[:, None].to(device)
    weight = torch.tensor([[1.0, -7, 0.3, 1e-30, -1e-39, 3e38]]).repeat(8, 1).to(device)
    weight[6, 2] = float("nan")
    found = []
    for operation in (fake_quantize, fake_quantize_ref):
        tensors = [x.clone().requires_grad_() for x in (weight, bits, exponent)]
        with taking("triton"):
            y = operation(*tensors)
            found.append([y, *torch.autograd.grad(y, tensors, torch.full_like(y, 2.0))])
    assert same_bits(found[0][0], found[1][0])
    for got, wanted in zip(*found, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-6, atol=0, equal_nan=True)


def test_gradients_keep_layout_and_only_what_is_asked_for_is_given(device):
    for case in (channels_last, one_by_one):
        weight, bits, exponent = case(device)
        with taking("triton"):
            y = fake_quantize(weight.requires_grad_(), bits.requires_grad_(), exponent)
            y.backward(torch.ones_like(y, memory_format=torch.contiguous_format))
            assert y.stride() == weight.stride() == weight.grad.stride()
            with torch.no_grad():
                assert not fake_quantize(weight, bits, exponent).requires_grad
        assert bits.grad.shape == bits.shape and exponent.grad is None


def test_wrong_shapes_on_the_triton_path(device):
    weight = torch.zeros(4, 9, device=device)
    with taking("triton"), pytest.raises(ValueError, match=r"weight \(4, 9\), bits \(4,\)"):
        fake_quantize(weight, weight[:, 0], weight[:, :1])


def test_torch_compile_sees_it(one_graph, device):
    one_graph(fake_quantize, layer((5, 11), device), wrt=(0, 1, 2))


def test_operators_are_registered_as_torch_wants(registered, device):
    tensors = layer((5, 3, 2, 2), device)
    channels = _fused(*tensors)[1]
    registered(_fused_backward, (torch.rand(5, 3, 2, 2).to(device), *tensors, channels))
    registered(_fused, tuple(tensor.requires_grad_() for tensor in tensors))


@pytest.mark.parametrize(
    "change",
    [
        {"(clipped + whole) - whole": "tl.floor(clipped + 0.5)"},
        {"tl.where(clipped < 0.0, -8388608.0, 8388608.0)": "8388608.0"},
        {"tl.where((scaled > high) & alive": "tl.where((scaled >= high) & alive"},
        {"_power_of_two(e + b - 1.0)": "_power_of_two(e + b)"},
        {"high) * step - w * inside": "high) * step - w"},
        {"g * (above - below)": "g * (above + below)"},
        {"moved * 0.6931471805599453": "moved"},
        {"(tiles + tile).to(tl.int64)[:, None]": "tile.to(tl.int64)[:, None]"},
    ],
)
def test_a_wrong_kernel_is_noticed(agree, device, mutant, change):
    wrong = mutant("fake_quantize", change)
    with pytest.raises(AssertionError, match="is off by"):
        agree(wrong.fake_quantize, fake_quantize_ref, on_the_bounds(device), wrt=(0, 1, 2))
