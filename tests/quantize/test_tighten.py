"""Whole numbers of bits: the same codes after tightening, one level less after snapping."""

from __future__ import annotations

import math

import pytest
import torch

from efflib.quantize import (
    QuantizedLinear,
    bits_needed,
    freeze_bits,
    quantized_layers,
    remove_dead,
    sizes,
    snap,
    tighten,
)


@pytest.mark.parametrize("bits", [0.3, 1.2, math.log2(3), 2.33, 2.8, 4.0, 9.7, 32.0])
@pytest.mark.parametrize("exponent", [-8.0, -3.3])
def test_tightening_changes_no_code(nets, bits, exponent):
    for name in ("mnist_cnn", "names_decoder"):
        model = nets.build(name, bits=bits, exponent=exponent)
        layers = quantized_layers(model)
        before, weights = nets.outputs(model), {key: layer.weight.detach().clone() for key, layer in layers.items()}
        codes = {key: layer.codes() for key, layer in layers.items()}
        size = sizes(model)
        widths = tighten(model)
        for key, layer in layers.items():
            assert torch.equal(layer.codes(), codes[key])
            assert torch.equal(layer.bits.flatten(), widths[key].float())
            assert (widths[key] <= max(bits_needed(bits), 2 if bits == math.log2(3) else 0)).all()
            moved = layer.weight != weights[key]
            assert torch.equal(layer.weight[moved], layer.quantized_weight()[moved])
        assert torch.equal(nets.outputs(model), before)
        after = sizes(model)
        assert (after.tight, after.file) == (size.tight, size.file)
        assert after.tight - len(layers) <= after.chain <= after.tight


def test_a_wider_range_does_not_let_clipped_weights_through():
    layer = QuantizedLinear(3, 1, bits=2.8, exponent=0.0)
    layer.weight.data = torch.tensor([[9.0, 0.4, -3.2]])  # codes -3 to 2 at 2.8 bits, -4 to 3 at 3
    tighten(layer)
    assert layer.bits.item() == 3 and layer.codes().tolist() == [[2, 0, -3]]
    assert torch.equal(layer.weight.data, torch.tensor([[2.0, 0.4, -3.2]]))  # only what would have changed was moved


def test_tightening_the_drift_preset_shows_its_unused_bits(nets):
    model = nets.build("mnist_cnn", width=1.0, bits=32.0, exponent=-8.0)
    soft = sizes(model).soft
    tighten(model)
    assert sizes(model).soft == sizes(model).tight == 51260 and soft == 326784


def test_a_channel_without_codes_gets_no_bits_and_can_go(nets, cnn):
    with torch.no_grad():
        cnn.conv3.weight[2].mul_(1e-3)
    assert tighten(cnn)["conv3"][2] == 0 and cnn.conv3.bits[2].item() == 0
    nets.kill(cnn, {})
    assert remove_dead(cnn).removed == {"conv3": [2]}


@pytest.mark.parametrize(
    ("k", "above", "snapped"),
    [(1, 0.019, True), (2, 0.001, True), (3, 0.021, False), (2, -0.001, False), (7, 0.015, True), (0, 0.01, False)],
)
def test_snap_just_above_a_threshold(k, above, snapped):
    layer = QuantizedLinear(2, 1, bits=math.log2(2**k + 1) + above, exponent=0.0)
    layer.weight.data = torch.tensor([[1e4, -1e4]])
    before = layer.codes()
    assert snap(layer) == snapped
    if snapped:
        assert layer.bits.item() == k
        assert layer.codes().tolist() == [[2 ** (k - 1) - 1, -(2 ** (k - 1))]]
        assert (layer.codes() - before).tolist() == [[-1, 1]]  # each side had one level more
    else:
        assert torch.equal(layer.codes(), before)


def test_snap_counts_channels_and_spares_dead_ones(cnn):
    with torch.no_grad():
        cnn.conv1.bits.fill_(math.log2(9) + 0.01)
        cnn.conv1.bits[0] = -0.01
        cnn.conv2.bits[5] = math.log2(5) + 0.02 - 1e-6
    assert snap(cnn) == 8
    assert cnn.conv1.bits.flatten().tolist() == pytest.approx([-0.01, *[3] * 7])
    assert snap(cnn, tolerance=0.5) == 0


def test_frozen_bits_stay_and_the_rest_trains(nets, cnn):
    cnn.conv1.bits.data.fill_(3.5)
    with pytest.raises(ValueError, match=r"conv1 has channels of 3\.5 bits: call tighten"):
        freeze_bits(cnn)
    assert cnn.conv2.bits.requires_grad
    tighten(cnn)
    freeze_bits(cnn)
    cnn(nets.inputs(cnn)).sum().backward()
    assert cnn.conv2.bits.grad is None and cnn.conv2.weight.grad.any() and cnn.conv2.exponent.grad.any()
