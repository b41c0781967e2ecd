"""The packed file: bits in the right place, exact round trips, the promised size, and no broken file accepted."""

from __future__ import annotations

import copy
import math
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from efflib.models import recalibrate_batch_norm
from efflib.quantize import (
    PackedFileError,
    load_packed,
    load_packed_into,
    quantize_model,
    quantized_layers,
    remove_dead,
    save_packed,
    sizes,
    tight_bytes,
    tighten,
)
from efflib.quantize.packed import pack_codes, unpack_codes

# --- bit streams ----------------------------------------------------------------------------------------------


def test_check_vector_of_the_spec():
    assert pack_codes([[-4, 3, 0, -1], [-2, 1, 0, 1]], [3, 2]).hex() == "1c6e04"
    assert pack_codes([[-4, 3, 0, -1]], [3]).hex() == "1c0e"
    assert unpack_codes(bytes.fromhex("1c6e04"), [3, 2], 4).tolist() == [[-4, 3, 0, -1], [-2, 1, 0, 1]]


def slowly(codes, widths):
    """The same stream, bit by bit."""
    bits = [(int(code) >> place) & 1 for row, width in zip(codes, widths) for code in row for place in range(width)]
    bits += [0] * (-len(bits) % 8)
    return bytes(sum(bit << place for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


@st.composite
def channels(draw):
    widths = draw(st.lists(st.integers(0, 32), max_size=7))
    count = draw(st.integers(0, 9))
    rows = []
    for width in widths:
        half = 1 << (width - 1) if width else 0
        rows.append(draw(st.lists(st.integers(-half, max(half - 1, 0)), min_size=count, max_size=count)))
    return np.array(rows, dtype=np.int64).reshape(len(widths), count), widths


@settings(deadline=None, max_examples=150)
@given(channels())
def test_any_codes_of_any_widths_come_back(case):
    codes, widths = case
    stream = pack_codes(codes, widths)
    assert len(stream) == math.ceil(codes.shape[1] * sum(widths) / 8)
    assert stream == slowly(codes, widths)
    assert np.array_equal(unpack_codes(stream, widths, codes.shape[1]), codes)


def test_a_large_layer_of_random_widths_has_the_predicted_length():
    random = np.random.default_rng(0)
    widths = random.integers(1, 9, 64)
    codes = np.stack([random.integers(-(1 << (b - 1)), 1 << (b - 1), 288) for b in widths])
    stream = pack_codes(codes, widths)
    assert len(stream) == math.ceil(288 * widths.sum() / 8)
    assert np.array_equal(unpack_codes(stream, widths, 288), codes)


@pytest.mark.parametrize(
    ("codes", "width"), [([[4]], 3), ([[-5]], 3), ([[1]], 0), ([[-1]], 0), ([[0]], 33), ([[0]], -1)]
)
def test_codes_that_do_not_fit(codes, width):
    with pytest.raises(ValueError, match=r"do not fit|0 to 32 bits"):
        pack_codes(codes, [width])


def test_shapes_and_streams_that_do_not_meet():
    with pytest.raises(ValueError, match=r"\(O, n\)"):
        pack_codes(np.zeros((2, 3)), [1])
    for stream in (b"\x1c", b"\x1c\x0e\x00", b"\x1c\x1e"):
        with pytest.raises(ValueError, match="exactly 12 bits"):
            unpack_codes(stream, [3], 4)


# --- networks -------------------------------------------------------------------------------------------------


def loaded(nets, name, path, **options):
    return load_packed_into(nets.build(name, quantised=False, seed=7, **options), path)


@settings(deadline=None, max_examples=25)
@given(bits=st.lists(st.floats(-0.5, 9.5, width=32), min_size=48, max_size=48), exponent=st.floats(-9, -1, width=32))
def test_networks_of_random_bits_come_back_bit_by_bit(nets, tmp_path_factory, bits, exponent):
    model = nets.build("mnist_cnn", exponent=exponent)
    with torch.no_grad():
        start = 0
        for layer in quantized_layers(model).values():
            layer.bits.copy_(torch.tensor(bits[start : start + len(layer.bits)]).reshape(layer.bits.shape))
            start += len(layer.bits)
    recalibrate_batch_norm(model, [nets.inputs(model)])
    path = tmp_path_factory.mktemp("packed") / "network"
    written = save_packed(model, path)
    assert written.payload == tight_bytes(model) and written.total == sizes(model).file == path.stat().st_size
    before = nets.outputs(model)
    remove_dead(model)
    again = loaded(nets, "mnist_cnn", path)
    for name, layer in quantized_layers(model).items():
        assert torch.equal(again.get_submodule(name).weight, layer.quantized_weight())
    assert torch.equal(nets.outputs(again), nets.outputs(model))
    assert torch.allclose(nets.outputs(again), before, rtol=0, atol=1e-5 * max(1.0, float(before.abs().max())))


@pytest.mark.parametrize("name", ["mnist_cnn", "names_decoder"])
def test_full_networks_give_identical_logits_for_a_hundred_inputs(nets, name, tmp_path):
    model = nets.build(name, width=1.0, bits=5.3)
    nets.kill(model, {})
    tighten(model)
    x = nets.inputs(model, 100)
    expected = nets.outputs(model, x)
    save_packed(model, tmp_path / "a")
    again = loaded(nets, name, tmp_path / "a", width=1.0)
    assert not quantized_layers(again) and torch.equal(nets.outputs(again, x), expected)
    state = {key: value for key, value in model.state_dict().items() if key in again.state_dict()}
    for key, value in again.state_dict().items():
        layer = quantized_layers(model).get(key.removesuffix(".weight"))
        if value.is_floating_point():
            assert torch.equal(value, state[key] if layer is None else layer.quantized_weight()), key


def test_networks_with_dead_channels(nets, dead_cnn, dead_decoder, tmp_path):
    for name, model in (("mnist_cnn", dead_cnn), ("names_decoder", dead_decoder)):
        before, state = nets.outputs(model), copy.deepcopy(model.state_dict())
        save_packed(model, tmp_path / name)
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        again = loaded(nets, name, tmp_path / name)
        assert torch.allclose(nets.outputs(again), before, rtol=0, atol=1e-5)
        remove_dead(model)
        expected = nets.outputs(model)
        assert torch.equal(nets.outputs(again), expected)
        save_packed(model, tmp_path / "small")
        assert (tmp_path / "small").read_bytes() == (tmp_path / name).read_bytes()
    decoder = again
    assert decoder.blocks[0].qkv.weight.shape == (31, 16) and decoder.blocks[1].head_rows[2] == (0, 3)
    assert decoder.blocks[2].proj.weight.shape == (16, 16) and not decoder.blocks[2].proj.weight[2:4].any()


def test_what_is_in_the_file(dead_cnn, dead_decoder, tmp_path):
    save_packed(dead_cnn, tmp_path / "a")
    packed = load_packed(tmp_path / "a")
    conv3 = packed.layers[2]
    assert [layer.kind for layer in packed.layers] == ["convolution"] * 4 and conv3.shape == (16, 8, 3, 3)
    assert np.flatnonzero(~conv3.outputs).tolist() == [1, 2, 15] and np.flatnonzero(~conv3.inputs).tolist() == [7]
    assert (conv3.widths == 4).all() and conv3.payload == math.ceil(13 * 7 * 9 * 4 / 8)
    assert conv3.weight.dtype == np.float32
    expected = dead_cnn.conv3.quantized_weight().detach().numpy()[conv3.outputs][:, conv3.inputs]
    assert np.array_equal(conv3.weight, expected)
    # bn2 mean and variance, bn4 likewise, the classifier without the columns of dead channels
    assert [tensor.shape for tensor in packed.tensors] == [(7,), (7,), (13,), (13,), (10, 13 * 9), (10,)]
    save_packed(dead_decoder, tmp_path / "b")
    decoder = load_packed(tmp_path / "b")
    assert len(decoder.layers) == 17 and decoder.layers[-1].shape == (27, 16, 1, 1)
    assert not decoder.layers[-1].outputs[26] and len(decoder.layers[-1].widths) == 26


def test_layout_byte_by_byte(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3))
    quantize_model(model, 3.0, 0.0, layers=["0"])
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-4.0, 3, 0, -1], [0, 0, 0, 0], [-2, 1, 0, 1]]))
        model[0].exponent.copy_(torch.tensor([[0.0], [0.0], [-1.0]]))
        model[0].weight[2] /= 2
        model[0].bias.copy_(torch.tensor([1.0, 2, 3]))
    written = save_packed(model, tmp_path / "a")
    body = struct.pack("<BHHBB", 2, 3, 4, 1, 1) + bytes([0b101, 0b1111])
    body += struct.pack("<BfBf", 3, 1.0, 2, 0.5) + bytes.fromhex("1c6e04")
    body += struct.pack("<H", 1) + struct.pack("<HH", 1, 3) + struct.pack("<fff", 1, 2, 3)
    header = b"EFQP" + struct.pack("<HHII", 1, 1, 16 + len(body), zlib.crc32(body))
    assert (tmp_path / "a").read_bytes() == header + body
    assert (written.total, written.payload, written.rest) == (len(header + body), 3, 2 + 4 + 12)
    assert written.side == 7 + 2 + 10
    assert written.total == 16 + written.payload + written.side + written.rest
    # 8 levels in 4 weights take 12 bits, 4 levels 8; as whole bytes per channel 2 + 1.
    assert written.mixed_radix == 3 and written.zlib == len(zlib.compress(bytes.fromhex("1c6e04"), 9))


def test_sizes_for_information(nets, tmp_path):
    sparse = nets.build("mnist_cnn")
    for layer in quantized_layers(sparse).values():
        layer.weight.data[torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.95] = 0
    written = save_packed(nets.kill(sparse, {}), tmp_path / "a")
    assert 0 < written.zlib < written.payload / 2
    three = nets.build("mnist_cnn", bits=2.0)  # minmax: codes -1, 0, 1 in 2 bits
    written = save_packed(nets.kill(three, {}), tmp_path / "a")
    channels = [25] * 8 + [200] * 8 + [72] * 16 + [144] * 16
    assert written.mixed_radix == sum(math.ceil(weights * math.log2(3) / 8) for weights in channels)


def test_a_network_quantised_in_part(nets, tmp_path):
    model = nets.build("names_decoder", quantised=False)
    attention = [name for name in model.quantizable if name.endswith(("qkv", "proj"))]
    nets.kill(quantize_model(model, 4.0, layers=attention), {"blocks.0.qkv": [40]})
    save_packed(model, tmp_path / "a")
    remove_dead(model)
    fresh = nets.build("names_decoder", quantised=False, seed=7)
    with pytest.raises(PackedFileError, match="holds 8 quantised layers, the network 17"):
        load_packed_into(fresh, tmp_path / "a")
    assert torch.equal(nets.outputs(load_packed_into(fresh, tmp_path / "a", layers=attention)), nets.outputs(model))


@pytest.mark.parametrize("layer", ["blocks.1.proj", "blocks.1.ff2", "head"])
def test_a_layer_without_any_row_left_gives_its_bias(nets, decoder, layer, tmp_path):
    nets.kill(decoder, {layer: slice(None)})
    save_packed(decoder, tmp_path / "a")
    assert torch.equal(nets.outputs(loaded(nets, "names_decoder", tmp_path / "a")), nets.outputs(decoder))


def test_training_state_does_not_matter(nets, cnn, tmp_path):
    nets.kill(cnn, {}).train()
    first = save_packed(cnn, tmp_path / "a")
    assert cnn.training and first == save_packed(cnn.eval(), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.fixture
def file(nets, tmp_path):
    save_packed(nets.kill(nets.build("mnist_cnn"), nets.cnn_dead), tmp_path / "net.efq")
    return tmp_path / "net.efq"


def resealed(content):
    """The content with a right length and checksum: what an attacker or a faulty writer could produce."""
    return content[:8] + struct.pack("<II", len(content), zlib.crc32(content[16:])) + content[16:]


def refused(file, content, message):
    file.write_bytes(content)
    with pytest.raises(PackedFileError, match=message) as caught:
        load_packed(file)
    assert "net.efq cannot be used" in str(caught.value)


def test_every_truncation_is_refused(file):
    content = file.read_bytes()
    for length in [*range(40), *range(40, len(content), 97), len(content) - 1]:
        refused(file, content[:length], "header, so it is not a packed network" if length < 16 else "truncated")


def test_every_altered_byte_is_refused(file):
    content = file.read_bytes()
    places = [*range(60), *range(60, len(content), 61), len(content) - 1]
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1 << (place % 8)
        file.write_bytes(altered)
        with pytest.raises(PackedFileError):
            load_packed(file)


def test_what_is_wrong_is_said(file):
    content = file.read_bytes()
    refused(file, b"PK\x03\x04" + content[4:], "does not start with b'EFQP'")
    refused(file, b"", "not a packed network")
    refused(file, content[:4] + b"\x02\x00" + content[6:], "version 2 of the format, this library reads version 1")
    refused(
        file, content + b"\x00", f"followed by something else: {len(content) + 1} bytes, its header says {len(content)}"
    )
    refused(file, content[:-1] + bytes([content[-1] ^ 1]), "altered: its checksum")
    with pytest.raises(FileNotFoundError):
        load_packed(file.with_name("none"))


def test_nonsense_with_a_right_checksum(file):
    content = bytearray(file.read_bytes())

    def changed(place, value):
        return resealed(bytes(content[:place]) + value + bytes(content[place + len(value) :]))

    refused(file, changed(16, b"\x07"), "layer 0 is of an unknown kind 7")
    refused(file, changed(17, b"\x07\x00"), "names more channels than there are")
    refused(file, changed(17, b"\xff\xff"), "longer than the file|positive numbers|more channels")
    first = 16 + 7 + 1 + 1  # first channel of conv1, after the shape and two bitmaps of a byte
    refused(file, changed(first, b"\x21"), "widths above 32 bits")
    refused(file, changed(first + 1, struct.pack("<f", math.nan)), "steps that are not positive numbers")
    refused(file, changed(first + 1, struct.pack("<f", -1.0)), "steps that are not positive numbers")
    refused(file, resealed(bytes(content) + b"\x00" * 3), "3 bytes are left over")
    refused(file, resealed(bytes(content[:-4])), "longer than the file")


def test_bits_after_the_end_of_a_stream(tmp_path):
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    quantize_model(model, 3.0, 0.0, layers=["0"])
    model[0].weight.data = torch.tensor([[-4.0, 3.0, 1.0]])
    save_packed(model, tmp_path / "net.efq")
    content = bytearray((tmp_path / "net.efq").read_bytes())
    content[-3] |= 0x80  # the last two bytes count the other tensors
    refused(tmp_path / "net.efq", resealed(bytes(content)), "layer 0: a stream of 2 bytes cannot hold exactly 9 bits")


def test_files_of_other_networks_change_nothing(nets, file, tmp_path):
    save_packed(nets.build("names_decoder"), tmp_path / "decoder")
    cases = [
        (
            "mnist_cnn",
            {"width": 0.5},
            file,
            r"conv1 is a convolution \(16, 1, 5, 5\) here, but a convolution \(8, 1, 5, 5\)",
        ),
        ("mnist_cnn", {"depth": 5}, file, "holds 4 quantised layers, the network 5"),
        ("mnist_cnn", {}, tmp_path / "decoder", "holds 17 quantised layers, the network 4"),
        ("names_decoder", {"context": 16}, tmp_path / "decoder", "its other tensors are"),
    ]
    for name, options, path, message in cases:
        model = nets.build(name, quantised=False, seed=7, **options)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(PackedFileError, match=message) as caught:
            load_packed_into(model, path)
        assert f"does not fit this {type(model).__name__}" in str(caught.value)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_bitmaps_that_contradict_each_other(nets, file):
    content = bytearray(file.read_bytes())
    conv1 = load_packed(file).layers[0]
    second = 16 + 7 + 2 + 5 * len(conv1.widths) + conv1.payload  # start of conv2
    assert content[second + 7 + 1] == 0b11011110  # conv2 reads the channels that conv1 has
    content[second + 7 + 1] = 0b11011101
    file.write_bytes(resealed(bytes(content)))
    with pytest.raises(PackedFileError, match="inputs that conv2 has in the file are not the channels which feed it"):
        loaded(nets, "mnist_cnn", file)


def test_loading_into_the_wrong_kind_of_network(nets, cnn, file):
    with pytest.raises(ValueError, match="load it into the float network"):
        load_packed_into(cnn, file)
    with pytest.raises(ValueError, match=r"call model.float\(\) first"):
        load_packed_into(nets.build("mnist_cnn", quantised=False).double(), file)


def test_networks_that_cannot_be_packed(nets, cnn, tmp_path):
    with pytest.raises(ValueError, match="MnistCNN has no quantised layer"):
        save_packed(nets.build("mnist_cnn", quantised=False), tmp_path / "a")
    with pytest.raises(ValueError, match=r"is torch.float64.*call model.float"):
        save_packed(copy.deepcopy(cnn).double(), tmp_path / "a")
    broken = copy.deepcopy(cnn)
    broken.head.bias.data[0] = math.nan
    with pytest.raises(ValueError, match=r"head\.bias holds NaN"):
        save_packed(broken, tmp_path / "a")
    wide = nets.kill(nets.build("mnist_cnn", bits=60.0, exponent=-50.0), {})
    with pytest.raises(ValueError, match=r"conv1 has codes of \d+ bits, the packed file holds up to 32"):
        save_packed(wide, tmp_path / "a")
    assert not any(tmp_path.iterdir())


def test_an_interrupted_save_leaves_the_old_file(nets, cnn, file, monkeypatch):
    before = file.read_bytes()
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_packed(nets.kill(cnn, {}), file)
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == ["net.efq"]
