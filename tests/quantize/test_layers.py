"""Quantised layers, and turning networks into quantised ones."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from efflib.kernels import fake_quantize
from efflib.models import count_parameters, create_model
from efflib.quantize import (
    QuantizedConv2d,
    QuantizedLinear,
    floored,
    mean_bits,
    quantize_model,
    quantized_layers,
    quantized_once,
)


def test_layers_compute_with_the_quantised_weight():
    torch.manual_seed(0)
    conv, linear = QuantizedConv2d(3, 5, 3, padding=1, bits=3.0), QuantizedLinear(7, 4, bits=2.5, exponent=-3.0)
    x, v = torch.randn(2, 3, 6, 6), torch.randn(2, 7)
    assert conv.bits.shape == conv.exponent.shape == (5, 1, 1, 1)
    assert linear.bits.shape == (4, 1) and linear.exponent.flatten().tolist() == [-3] * 4
    expected = torch.nn.functional.conv2d(x, fake_quantize(conv.weight, conv.bits, conv.exponent), conv.bias, padding=1)
    assert torch.equal(conv(x), expected)
    assert torch.equal(linear(v), v @ linear.quantized_weight().T + linear.bias)
    (conv(x).sum() + linear(v).sum()).backward()
    assert all(parameter.grad is not None for layer in (conv, linear) for parameter in layer.parameters())


def test_codes_are_integers_whose_product_with_the_step_is_the_weight(cnn):
    for layer in quantized_layers(cnn).values():
        codes = layer.codes()
        assert codes.dtype == torch.int64
        assert torch.equal(codes.float() * layer.steps()[:, None, None, None], layer.quantized_weight())


def test_minmax_starts_without_clipping_and_uses_the_range():
    layer = QuantizedLinear(50, 6, bits=4.0)
    codes = layer.codes()
    assert (codes.abs().amax(dim=1) == 7).all()
    largest = layer.weight.abs().amax(dim=1)
    assert torch.allclose(layer.exponent.flatten(), torch.log2(largest / 7))
    half_step = layer.steps()[:, None] / 2 * (1 + 1e-5)
    assert ((layer.quantized_weight() - layer.weight).abs() <= half_step).all()


@pytest.mark.parametrize("bits", [2.0, 4.0, 8.0, 11.5])
def test_minmax_leaves_no_weight_a_hair_beyond_the_bound(bits):
    generator = torch.Generator().manual_seed(0)
    for size in (1e-4, 0.05, 1.0, 1.2 * (2 ** (bits - 1) - 1), 300.0):
        layer = QuantizedLinear(30, 200, bits=bits)
        layer.weight.data = size * torch.randn((200, 30), generator=generator)
        layer.equip(bits, "minmax")
        layer.quantized_weight().sum().backward()
        assert not layer.bits.grad.any() and layer.weight.grad.all()


def test_a_row_of_zeros_gets_a_finite_exponent():
    linear = nn.Linear(4, 2)
    nn.init.zeros_(linear.weight)
    quantize_model(nn.Sequential(linear), 8.0, layers=["0"])
    assert linear.exponent.isfinite().all() and not linear.quantized_weight().any()


def test_bits_and_exponents_of_half_precision_weights_are_float32():
    linear = nn.Linear(6, 3).bfloat16()
    quantize_model(nn.Sequential(linear), 5.3, layers=["0"])
    assert linear.bits.dtype == linear.exponent.dtype == torch.float32 and linear.weight.dtype == torch.bfloat16
    assert linear(torch.ones(1, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_alive_is_any_code_other_than_zero(cnn):
    layer = cnn.conv2
    with torch.no_grad():
        layer.bits[1] = 0.0
        layer.bits[2] = -0.2
        layer.weight[3].mul_(0.01)  # bits, but nothing reaches half a step
        layer.weight[4] = -layer.weight[4].abs() * 0.01
        layer.weight[4, 0, 0, 0] = layer.steps()[4] * 0.6
        layer.weight[5] = -layer.weight[4]
    assert torch.equal(layer.alive(), layer.codes().flatten(1).any(dim=1))
    assert layer.alive().tolist() == [True, False, False, False, True, True, True, True]


def test_quantising_keeps_weights_names_places_and_random_numbers(nets):
    model = nets.build("mnist_cnn", quantised=False)
    reference, conv2, state = copy.deepcopy(model), model.conv2, torch.get_rng_state()
    assert quantize_model(model, 32.0, -8.0) is model and model.conv2 is conv2
    assert torch.equal(torch.get_rng_state(), state)
    assert list(quantized_layers(model)) == ["conv1", "conv2", "conv3", "conv4"]
    for name, parameter in reference.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter)
    assert torch.allclose(nets.outputs(model), nets.outputs(reference), atol=0.1)
    assert not torch.equal(nets.outputs(model), nets.outputs(reference))


@pytest.mark.parametrize(
    ("name", "classes", "float_count", "count"),
    [("mnist_cnn", 10, 87466, 87850), ("names_decoder", 27, 204827, 209489)],
)
def test_parameter_counts_of_the_spec(name, classes, float_count, count):
    model = create_model(name, classes)
    assert count_parameters(model) == float_count
    quantize_model(model, 32.0, -8.0)
    assert count_parameters(model) == model.scalars_at_start == count


def test_a_choice_of_layers(nets):
    model = nets.build("names_decoder", quantised=False)
    attention = [name for name in model.quantizable if name.endswith(("qkv", "proj"))]
    quantize_model(model, 8.0, layers=attention[::-1])
    assert list(quantized_layers(model)) == attention and type(model.head) is nn.Linear


def test_shared_quantisation_adds_up_the_gradients(nets, cnn):
    x, y = nets.inputs(cnn, 6).split(3)
    grads = []
    for shared in (False, True):
        model = copy.deepcopy(cnn)
        if shared:
            with quantized_once(model):
                loss = model(x).square().sum() + 0.3 * model(y).square().sum()
                assert model.conv1.quantized_weight() is model.conv1.quantized_weight()
                loss.backward()
            assert model.conv1.quantized_weight() is not model.conv1.quantized_weight()
        else:
            (model(x).square().sum() + 0.3 * model(y).square().sum()).backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    for alone, together in zip(*grads, strict=True):
        assert torch.allclose(alone, together, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


def test_shared_quantisation_ends_with_an_error(cnn):
    with pytest.raises(RuntimeError), quantized_once(cnn):
        raise RuntimeError
    assert cnn.conv1._shared is None


def test_bad_requests_change_nothing(nets):
    model = nets.build("mnist_cnn", quantised=False)
    for options, message in [
        ({"layers": ["conv9"]}, r"unknown layer of MnistCNN: 'conv9'.*conv1"),
        ({"layers": ["bn2"]}, "bn2 is a BatchNorm2d"),
        ({"layers": []}, "no layer to quantise"),
        ({"bits": math.nan}, "bits must be a finite number"),
        ({"bits": 1.0}, "needs more than 1 bit"),
        ({"exponent": "maxmin"}, "unknown exponent: 'maxmin'"),
        ({"exponent": math.inf}, "exponent must be a finite number"),
    ]:
        with pytest.raises(ValueError, match=message):
            quantize_model(model, **options)
    assert not quantized_layers(model) and not hasattr(model, "scalars_at_start")
    quantize_model(model)
    with pytest.raises(ValueError, match="conv1 is already a QuantizedConv2d"):
        quantize_model(model)


def test_grouped_convolutions_are_refused():
    with pytest.raises(ValueError, match="groups=2"):
        QuantizedConv2d(4, 4, 3, groups=2)
    with pytest.raises(ValueError, match="0 has groups=4"):
        quantize_model(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), layers=["0"])


def test_a_float_network_has_no_bits():
    with pytest.raises(ValueError, match="Linear has no quantised layer: call quantize_model"):
        mean_bits(nn.Linear(2, 2))


def test_the_printed_floor_never_lets_a_channel_vanish():
    weight, zero, e = torch.tensor([[0.3, -0.3, 5.0]]), torch.tensor([[0.0]]), torch.tensor([[-2.0]])
    assert floored(weight, zero, e).tolist() == [[-0.25] * 3]
    assert not fake_quantize(weight, zero, e).any()
    assert floored(weight, zero + 3, e).tolist() == [[0.25, -0.5, 0.75]]
