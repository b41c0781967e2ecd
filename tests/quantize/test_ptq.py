"""Post-training quantisation against its definition in float64, PyTorch's fake quantisation, and the spec's bytes."""

from __future__ import annotations

import copy

import pytest
import torch

from efflib.models import create_model
from efflib.quantize import load_packed, post_training, quantized_layers, save_packed, tight_bytes
from efflib.quantize.ptq import FACTORS, fixed_width_bytes, integer_codes, scale_bytes, symmetric_scales

BITS = (8, 6, 4, 3, 2)


def defined(row, bits, factor=1.0):
    """y of one channel, number by number, in float64."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = factor * max(abs(x) for x in row) / high
    return [scale * min(max(round(x / scale), low), high) for x in row]


def rows(count=6, length=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, length, generator=generator, dtype=torch.float64) ** 3  # long tails: clipping pays


@pytest.mark.parametrize("bits", BITS)
def test_without_clipping_it_is_the_definition(bits):
    weight = rows()
    scales = symmetric_scales(weight, bits)
    found = integer_codes(weight, scales, bits) * scales[:, None]
    expected = torch.tensor([defined(row, bits) for row in weight.tolist()], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bits", BITS)
def test_best_factor_is_the_one_of_a_plain_search(bits):
    weight = rows()
    whole, scales = symmetric_scales(weight, bits), symmetric_scales(weight, bits, "mse")
    for channel, row in enumerate(weight.tolist()):
        errors = {c: sum((y - x) ** 2 for x, y in zip(row, defined(row, bits, c), strict=True)) for c in FACTORS}
        chosen = float(scales[channel] / whole[channel])
        nearest = min(FACTORS, key=lambda c: abs(c - chosen))
        assert abs(nearest - chosen) < 1e-9
        assert errors[nearest] <= min(errors.values()) * (1 + 1e-9)
    assert FACTORS[0] == 1.0 and FACTORS[-1] == 0.3 and len(FACTORS) == 71
    if bits <= 4:
        assert bool((scales < whole).any()), "with long tails some channel gains by clipping"


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("clip", ["max", "mse"])
def test_it_agrees_with_pytorch_where_pytorch_has_it(bits, clip):
    weight = rows().float()
    scales = symmetric_scales(weight, bits, clip)
    zeros, half = torch.zeros(len(scales), dtype=torch.int32), 2 ** (bits - 1)
    theirs = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -half, half - 1)
    ours = integer_codes(weight, scales, bits) * scales[:, None]
    near_a_tie = ((weight / scales[:, None]).frac().abs() - 0.5).abs() < 1e-4  # they multiply by 1 / s
    torch.testing.assert_close(ours[~near_a_tie], theirs[~near_a_tie], rtol=1e-6, atol=0)


@pytest.mark.parametrize("clip", ["max", "mse"])
@pytest.mark.parametrize("name", ["mnist_cnn", "names_decoder"])
def test_the_network_computes_with_these_weights(nets, name, clip):
    model = nets.build(name, quantised=False)
    before = copy.deepcopy(model)
    post_training(model, 3, clip)
    assert tuple(quantized_layers(model)) == tuple(before.quantizable)
    for layer_name, layer in quantized_layers(model).items():
        weight = before.get_submodule(layer_name).weight.detach()
        scales = symmetric_scales(weight.double(), 3, clip).reshape(-1, *[1] * (weight.ndim - 1))
        exact = scales * integer_codes(weight.double(), scales.flatten(), 3)
        same = ((weight.double() / scales).frac().abs() - 0.5).abs() > 1e-5
        torch.testing.assert_close(layer.quantized_weight().double()[same], exact[same], rtol=2e-6, atol=1e-12)
        assert int(layer.codes().min()) >= -4 and int(layer.codes().max()) <= 3
        before.get_submodule(layer_name).weight.data = layer.quantized_weight().detach()
    torch.testing.assert_close(nets.outputs(model), nets.outputs(before))


@pytest.mark.parametrize(("name", "classes", "per_bit", "scales"), [
    ("mnist_cnn", 10, 10_212, 768), ("names_decoder", 27, 24_792, 9_324),
])  # fmt: skip
@pytest.mark.parametrize("bits", [8, 3])
def test_bytes_of_the_spec(name, classes, per_bit, scales, bits):
    model = post_training(create_model(name, classes), bits)
    assert scale_bytes(model) == scales
    assert fixed_width_bytes(model, bits) == per_bit * bits + scales
    assert tight_bytes(model) <= per_bit * bits


def test_it_packs_like_any_quantised_network(nets, tmp_path):
    model = post_training(nets.build("mnist_cnn", quantised=False), 4)
    found = save_packed(model, tmp_path / "net.packed")
    assert found.payload == tight_bytes(model)
    assert [int(layer.widths.max()) for layer in load_packed(tmp_path / "net.packed").layers] == [4, 4, 4, 4]


def test_a_channel_of_zeros_stays_zero():
    weight = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    for clip in ("max", "mse"):
        scales = symmetric_scales(weight, 2, clip)
        assert bool((scales > 0).all())
        assert integer_codes(weight, scales, 2)[0].tolist() == [0, 0]


def test_bad_settings_are_refused(nets):
    weight = torch.ones(2, 3)
    for bits in (1, 0, 2.5, True):
        with pytest.raises(ValueError, match="whole number of at least 2"):
            symmetric_scales(weight, bits)
    with pytest.raises(ValueError, match=r"unknown clip: 'mae'.*Valid: max, mse"):
        symmetric_scales(weight, 4, "mae")
    with pytest.raises(ValueError, match="already"):
        post_training(nets.build("mnist_cnn"), 4)
