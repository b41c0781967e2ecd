"""EncodeNet's decoders: counts and operations of the spec's table, images out, sides that do not meet."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from efflib.models import count_parameters
from efflib.models.decoder import Decoder, UpConv2d
from efflib.models.measure import layer_macs

# Spec, section 3: channels and side of the encoder's map, bottleneck, parameters, MACs in millions.
TABLE = [
    (512, 4, "map", 1_550_915, 228.3),
    (64, 8, "map", 149_571, 96.1),
    (2048, 4, "map", 2_600_515, 245.0),
    (64, 8, "pooled", 674_499, 77.5),
    (512, 4, "pooled", 2_509_507, 79.4),
    (2048, 4, "pooled", 8_800_963, 85.7),
]


def encoded(channels, side, bottleneck, batch=1):
    return torch.zeros(batch, channels, side, side) if bottleneck == "map" else torch.zeros(batch, channels)


@pytest.mark.parametrize(("channels", "side", "bottleneck", "parameters", "macs"), TABLE)
def test_counts_of_the_spec(channels, side, bottleneck, parameters, macs):
    decoder = Decoder(channels, side, 32, bottleneck).eval()
    assert count_parameters(decoder) == parameters
    image = encoded(channels, side, bottleneck)
    assert layer_macs(decoder, lambda: decoder(image)) / 1e6 == pytest.approx(macs, abs=0.05)
    assert decoder(image).shape == (1, 3, 32, 32)


def enlarged_then_convolved(x, weight):
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 5, 3, 7), (2, 4, 8, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upsampling_and_convolution_in_one_are_the_two_in_turn(shape, layout):
    layer = UpConv2d(shape[1], 6).double()
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    expected, found = enlarged_then_convolved(x, layer.weight), layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, layer.weight), upstream)
    torch.testing.assert_close(torch.autograd.grad(found, (x, layer.weight), upstream), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_upsampling_and_convolution_in_one_are_as_exact_as_the_two(precision):
    layer, x = UpConv2d(64, 32), torch.randn(2, 64, 8, 8)
    truth = enlarged_then_convolved(x.double(), layer.weight.detach().double())
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        errors = [(y - truth).abs().max() for y in (layer(x), enlarged_then_convolved(x, layer.weight))]
    assert errors[0] <= 2 * errors[1]


def test_upsampling_and_convolution_in_one_compute_less_than_their_definition():
    layer, x = UpConv2d(16, 8), torch.zeros(1, 16, 8, 8)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert layer_macs(layer, lambda: layer(x)) == 9 * 16 * 8 * 16**2
    assert counter.get_total_flops() == 2 * 4 * 16 * 8 * 16**2


@pytest.mark.parametrize("bottleneck", ["map", "pooled"])
@pytest.mark.parametrize(("map_side", "side", "colours"), [(2, 8, 1), (4, 64, 3), (8, 32, 3), (32, 32, 3)])
def test_images_of_any_size_in_zero_to_one(bottleneck, map_side, side, colours):
    decoder = Decoder(24, map_side, side, bottleneck, width=0.125, image_channels=colours)
    images = decoder(torch.randn_like(encoded(24, map_side, bottleneck, batch=3)))
    assert images.shape == (3, colours, side, side)
    assert (images >= 0).all() and (images <= 1).all()
    images.sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


@pytest.mark.parametrize(("map_side", "side"), [(3, 32), (8, 4), (6, 40)])
def test_sides_that_do_not_meet_say_so(map_side, side):
    with pytest.raises(ValueError, match=f"side {map_side} and the images {side}.*bottleneck='pooled'"):
        Decoder(64, map_side, side)


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"unknown value of bottleneck: 'pool'.*Did you mean 'pooled'"):
        Decoder(64, 8, bottleneck="pool")
    with pytest.raises(ValueError, match="width must be a positive number"):
        Decoder(64, 8, width=0)
