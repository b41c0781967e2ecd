"""The four sizes and the penalty, against the spec's numbers and counting by hand."""

from __future__ import annotations

import math

import pytest
import torch

from efflib.models import create_model
from efflib.quantize import (
    QuantizedConv2d,
    bits_needed,
    chain_bytes,
    layer_bits,
    mean_bits,
    preset,
    quantize_model,
    quantized_layers,
    remove_dead,
    save_packed,
    sizes,
    soft_bytes,
    tight_bytes,
    weight_l1,
)
from efflib.quantize.structure import code_widths
from efflib.training import seeded

UPPER_ENDS = [1.58496, 2.32193, 3.16993, 4.08746, 5.04439, 6.02237, 7.01123, 8.00562]


@pytest.mark.parametrize(("k", "end"), list(enumerate(UPPER_ENDS, start=1)))
def test_bits_needed_changes_where_the_spec_says(k, end):
    assert math.log2(2**k + 1) == pytest.approx(end, abs=5e-6)
    assert bits_needed(end - 1e-5) == bits_needed(math.log2(2**k + 1)) == k
    assert bits_needed(end + 1e-5) == k + 1


def test_bits_needed_of_tensors_and_edges():
    b = torch.tensor([[-1.0, 0.0, 1e-9], [1.0, 2.0, 32.0]])
    assert bits_needed(b).tolist() == [[0, 0, 1], [1, 2, 32]] and bits_needed(b).dtype == torch.int64
    assert bits_needed(2) == 2
    on_threshold = torch.tensor([math.log2(5)], dtype=torch.float32)
    assert bits_needed(on_threshold).tolist() == [2]
    for wrong in (math.nan, 64.0):
        with pytest.raises(ValueError, match="up to 63"):
            bits_needed(wrong)


def test_bits_needed_holds_every_code_that_b_allows():
    # A weight far beyond both bounds reaches the outermost codes.
    b = torch.linspace(0.01, 9, 500)[:, None]
    layer = QuantizedConv2d(1, 500, (1, 2), bits=2.0, exponent=0.0)
    with torch.no_grad():
        layer.bits.copy_(b[:, :, None, None])
        layer.weight.copy_(torch.tensor([-1e5, 1e5]).expand(500, 1, 1, 2))
    assert torch.equal(code_widths(layer.codes()), bits_needed(b.flatten()))


@pytest.mark.parametrize(
    ("codes", "width"),
    [
        ([0, 0], 0),
        ([-1, 0], 1),
        ([1, 0], 2),
        ([-2, 1], 2),
        ([2, 0], 3),
        ([-4, 3], 3),
        ([-5, 0], 4),
        ([127, -128], 8),
        ([128, 0], 9),
        ([-(2**31), 0], 32),
        ([2**31, 0], 33),
    ],
)
def test_code_widths(codes, width):
    assert code_widths(torch.tensor([codes])).tolist() == [width]


def test_size_check_of_the_spec():
    layer = QuantizedConv2d(3, 2, 3, bits=2.5, exponent=-2.0)
    with torch.no_grad():
        layer.bits[1] = -0.1
        layer.weight.copy_(torch.linspace(-3, 3, 27).expand(2, 27).reshape(2, 3, 3, 3))
    # round(2^1.5) = 3, so the codes are -3 to 2.
    assert layer.codes()[0].unique().tolist() == [-3, -2, -1, 0, 1, 2] and not layer.codes()[1].any()
    bits = layer_bits(layer)[""]
    assert (bits.soft, bits.chain, bits.tight) == (67.5, 67.5, 81)
    assert soft_bytes(layer) == chain_bytes(layer) == 67.5 / 8 and tight_bytes(layer) == 11
    (mean_bits(layer) * 54).backward()
    assert layer.bits.grad.flatten().tolist() == [27, 0]


def test_sizes_of_the_cnn_as_built():
    with seeded(0):
        model = quantize_model(create_model("mnist_cnn", 10), 32.0, -8.0)
    found = sizes(model)
    assert found.soft == found.chain == 326784
    assert found.tight == 51260
    # Payload, header, shapes and bitmaps, 5 bytes a channel; head, two norms of mean and variance, with their shapes.
    side = 16 + 4 * 7 + sum(-(-count // 8) for count in (32, 1, 32, 32, 64, 32, 64, 64)) + 5 * 192
    rest = 2 + 4 * (5770 + 2 * 96) + 2 * (3 + 2 + 4 * 2)
    assert found.file == 51260 + side + rest
    widths = {name: code_widths(layer.codes()).unique().tolist() for name, layer in quantized_layers(model).items()}
    assert widths == {"conv1": [7], "conv2": [5], "conv3": [5], "conv4": [5]}


def test_penalties_of_the_spec_at_the_start():
    cnn = quantize_model(create_model("mnist_cnn", 10), 32.0, -8.0)
    decoder = quantize_model(create_model("names_decoder", 27), 32.0, -8.0)
    assert mean_bits(cnn, "all_params").item() == pytest.approx(29.758, abs=5e-4)
    assert mean_bits(decoder, "all_params").item() == pytest.approx(30.2963, abs=5e-5)
    assert mean_bits(cnn).item() == pytest.approx(32) and mean_bits(decoder).item() == pytest.approx(32)
    assert soft_bytes(decoder) == 793344 and soft_bytes(cnn) == 10212 * 32
    # Initial total loss of the spec: ln(classes) 1.05 + 0.1 Q.
    assert math.log(10) * 1.05 + 0.1 * mean_bits(cnn, "all_params").item() == pytest.approx(5.394, abs=1e-3)
    assert math.log(27) * 1.05 + 0.1 * mean_bits(decoder, "all_params").item() == pytest.approx(6.490, abs=1e-3)
    # Uniform within 1 / sqrt(fan-in): the spec expects about 1,844.
    assert weight_l1(cnn).item() == pytest.approx(1844, rel=0.02)


@pytest.mark.parametrize(
    ("model", "classes", "steps", "printed"),
    [("mnist_cnn", 10, 58, 326192), ("names_decoder", 27, 1, 793311), ("names_decoder", 27, 101, 790040)],
)
def test_sizes_of_the_published_logs_come_from_the_penalty_alone(model, classes, steps, printed):
    network, setting = quantize_model(create_model(model, classes), 32.0, -8.0), preset("drift", model)
    optimiser = setting.create_optimiser(network)
    for _ in range(steps):
        optimiser.zero_grad()
        (setting.gamma * mean_bits(network, setting.norm)).backward()
        optimiser.step()
    assert round(soft_bytes(network)) == printed


def test_gradient_of_the_penalty_with_exempt_and_dead_channels(cnn):
    with torch.no_grad():
        cnn.conv3.bits[2] = -0.1
    mask = torch.zeros(16, dtype=torch.bool)
    mask[5] = True
    q = mean_bits(cnn, exempt={"conv3": mask})
    q.backward()
    weights = 8 * 25 + 8 * 8 * 25 + 16 * 8 * 9 + 16 * 16 * 9
    expected = torch.full((16,), 8 * 9 / weights)
    expected[[2, 5]] = 0
    assert torch.allclose(cnn.conv3.bits.grad.flatten(), expected)
    assert q.item() == pytest.approx(4 * (1 - 2 * 72 / weights))
    with pytest.raises(ValueError, match=r"unknown norm: 'layers'.*quantised_weights"):
        mean_bits(cnn, "layers")


def test_dead_channels_leave_the_next_layer_in_chain_and_tight(dead_cnn):
    bits = layer_bits(dead_cnn)
    # conv2: 7 of 8 rows, 6 of 8 inputs; conv3: 13 of 16 and 7 of 8; conv4: 13 of 16 and 13 of 16. 4 bits each.
    assert {name: each.chain for name, each in bits.items()} == pytest.approx(
        {"conv1": 6 * 25 * 4, "conv2": 7 * 6 * 25 * 4, "conv3": 13 * 7 * 9 * 4, "conv4": 13 * 13 * 9 * 4}
    )
    assert bits["conv4"].soft == pytest.approx(13 * 16 * 9 * 4)
    assert {name: each.tight for name, each in bits.items()} == {name: each.chain for name, each in bits.items()}


def test_sizes_agree_with_the_written_file_before_and_after_removal(dead_cnn, dead_decoder, tmp_path):
    for model in (dead_cnn, dead_decoder):
        before = sizes(model)
        written = save_packed(model, tmp_path / "a")
        assert (before.tight, before.file) == (written.payload, written.total)
        assert (tmp_path / "a").stat().st_size == written.total
        remove_dead(model)
        after = sizes(model)
        assert (after.tight, after.file) == (before.tight, before.file)
        assert after.chain <= before.chain * (1 + 1e-12)


def test_soft_size_gives_no_credit_for_removed_inputs(dead_cnn):
    before, q = soft_bytes(dead_cnn), mean_bits(dead_cnn)
    remove_dead(dead_cnn)
    assert soft_bytes(dead_cnn) == pytest.approx(before) and mean_bits(dead_cnn).item() == pytest.approx(q.item())
    assert chain_bytes(dead_cnn) < before


def test_the_file_size_is_known_while_batch_norm_still_forbids_the_file(cnn, tmp_path):
    with torch.no_grad():
        cnn.conv2.bits[3] = 0
    cnn.bn2.running_mean.fill_(0.5)
    assert sizes(cnn).file > 0
    with pytest.raises(ValueError, match="recalibrate"):
        save_packed(cnn, tmp_path / "a")
    assert not (tmp_path / "a").exists()
