"""The packed file: each channel's integer codes with exactly the bits they need, and all else it takes to run.

Little-endian throughout.

    header     magic "EFQP", u16 version, u16 layers, u32 length of the file, u32 CRC32 of all that follows
    per layer  u8 kind (1 convolution, 2 linear), u16 O, u16 I, u8 kh, u8 kw, as the network was built;
               bitmaps of the output and of the input channels that are here (least significant bit first);
               for each output channel here: u8 width B, float32 step;
               one bit stream: channels ascending, weights in C order, each as B-bit two's complement, least
               significant bit first, without gaps; zero bits up to a whole byte
    then       u16 count of the other float32 tensors, in the order of the network's state dict; each: u16 number of
               axes, u16 each length, the values

A weight is float32(code) * step, one product, which every machine computes alike; 2^e need not be. Source: section 2.9
of the safety spec.
"""

from __future__ import annotations

import copy
import math
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from efflib.data.cache import replacing
from efflib.quantize.layers import Quantizer, layer_names, quantized_layers, required
from efflib.quantize.prune import remove_dead
from efflib.quantize.sizes import layer_bits
from efflib.quantize.structure import code_widths, links, removable, shrink

MAGIC = b"EFQP"
VERSION = 1
WIDEST = 32
_HEADER = struct.Struct("<4sHHII")
_LAYER = struct.Struct("<BHHBB")
_CHANNEL = np.dtype([("width", "u1"), ("step", "<f4")])
_KINDS = {1: "convolution", 2: "linear"}


class PackedFileError(ValueError):
    """A file that cannot be used: not one of ours, of another version, truncated, altered, or of another network."""


@dataclass(frozen=True)
class PackedLayer:
    """One quantised layer.

    kind: "convolution" or "linear". shape: (O, I, kh, kw) as built. outputs, inputs: (O,) and (I,) bool, channels that
    are here. widths, steps: of the O' output channels here, uint8 bits and float32. codes: int64 (O', I', kh, kw).
    """

    kind: str
    shape: tuple[int, int, int, int]
    outputs: np.ndarray
    inputs: np.ndarray
    widths: np.ndarray
    steps: np.ndarray
    codes: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """float32 (O', I', kh, kw): code times step."""
        return self.codes.astype(np.float32) * self.steps[:, None, None, None]

    @property
    def payload(self) -> int:
        """Bytes of the bit stream."""
        return math.ceil(int(self.widths.astype(np.int64).sum()) * math.prod(self.codes.shape[1:]) / 8)


@dataclass(frozen=True)
class Packed:
    """What a file holds: its layers and the other float32 tensors, both in the order of the network."""

    layers: list[PackedLayer]
    tensors: list[np.ndarray]


@dataclass(frozen=True)
class FileSizes:
    """Bytes of a packed file and of its parts.

    total = 16 of header + payload (codes) + side (shapes, bitmaps, widths, steps) + rest (float tensors). For
    information, what the codes would take otherwise: zlib at its best level, on the payload; mixed radix, where a
    channel of n weights with L levels takes n log2 L bits.
    """

    total: int
    payload: int
    side: int
    rest: int
    zlib: int
    mixed_radix: int


# --- bit streams ----------------------------------------------------------------------------------------------


def pack_codes(codes: np.ndarray, widths: np.ndarray) -> bytes:
    """Integer codes as one stream of bits, least significant bit first.

    Args:
        codes: (O, n) integers.
        widths: (O,) bits of two's complement per channel, 0 to 32; a channel of width 0 must be all 0.

    Returns:
        ceil(n sum(widths) / 8) bytes.

    Raises:
        ValueError: a code that does not fit, or a width out of range.
    """
    codes, widths = np.asarray(codes, dtype=np.int64), np.asarray(widths, dtype=np.int64)
    if codes.ndim != 2 or widths.shape != (len(codes),):
        raise ValueError(f"codes must be (O, n) and widths (O,), got {codes.shape} and {widths.shape}")
    if ((widths < 0) | (widths > WIDEST)).any():
        raise ValueError(f"widths must be 0 to {WIDEST} bits, got {widths.min()} to {widths.max()}")
    half = np.where(widths > 0, 1 << np.maximum(widths - 1, 0), 0)[:, None]
    if ((codes < -half) | (codes > np.maximum(half - 1, 0))).any():
        raise ValueError("codes do not fit the widths: take efflib.quantize.structure.code_widths of them")
    each = np.repeat(widths, codes.shape[1])
    place = _places(each)
    return np.packbits((np.repeat(codes.ravel(), each) >> place) & 1 == 1, bitorder="little").tobytes()


def unpack_codes(stream: bytes, widths: np.ndarray, count: int) -> np.ndarray:
    """(O, count) int64 codes that `pack_codes` wrote.

    Args:
        stream: as many bytes as that takes.
        widths: (O,) bits per channel.
        count: n, weights per channel.

    Raises:
        ValueError: a stream of another length, or bits other than 0 after its end.
    """
    widths = np.asarray(widths, dtype=np.int64)
    each = np.repeat(widths, count)
    needed = int(each.sum())
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")
    if len(stream) != -(-needed // 8) or bits[needed:].any():
        raise ValueError(f"a stream of {len(stream)} bytes cannot hold exactly {needed} bits, padded with zeros")
    codes = np.zeros(len(each), dtype=np.int64)
    present = each > 0
    if needed:
        starts = np.cumsum(each[present]) - each[present]
        codes[present] = np.add.reduceat(bits[:needed].astype(np.int64) << _places(each), starts)
    negative = present & (codes >> np.maximum(each - 1, 0) & 1 == 1)
    return (codes - np.where(negative, np.int64(1) << each, 0)).reshape(len(widths), count)


def _places(each: np.ndarray) -> np.ndarray:
    """0, 1, .., each[0] - 1, 0, 1, .., each[1] - 1, ...: the place of every bit of the stream in its own code."""
    ends = np.cumsum(each)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - each, each)


# --- writing --------------------------------------------------------------------------------------------------


def save_packed(model: nn.Module, path: str | os.PathLike[str]) -> FileSizes:
    """Write a quantised network; dead channels are left out, as `remove_dead` leaves them out.

    Args:
        model: a quantised float32 network; it is not changed.
        path: file to write, replaced atomically.

    Returns:
        FileSizes. The payload is what `tight_bytes(model)` says.

    Raises:
        ValueError: no quantised layer, not float32, weights that are not finite or codes beyond 32 bits, a layer too
            large for the format, or dead channels that cannot be left out yet (see `remove_dead`).
    """
    small = _removed(model, check_norms=True)
    layers, tensors = _layers_of(small), _tensors_of(small)
    content = _content(layers, tensors)
    _check_accounting(model, layers)
    with replacing(Path(path)) as file:
        file.write(content)
    return _file_sizes(content, layers, tensors)


def packed_size(model: nn.Module) -> int:
    """Bytes that `save_packed` would write, also while running statistics still forbid it.

    Raises:
        ValueError: as `save_packed`, but for running statistics.
    """
    small = _removed(model, check_norms=False)
    return len(_content(_layers_of(small), _tensors_of(small)))


def _removed(model: nn.Module, check_norms: bool) -> nn.Module:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(f"{name} is {tensor.dtype}: the packed file holds float32 networks, call model.float()")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinite values: this network cannot be packed")
    required(model)
    small = copy.deepcopy(model)
    remove_dead(small, check_norms=check_norms)
    return small


def _layers_of(model: nn.Module) -> list[PackedLayer]:
    fixed = set(quantized_layers(model)) - set(removable(model))
    return [_layer(name, layer, name in fixed) for name, layer in required(model).items()]


def _layer(name: str, layer: Quantizer, fixed: bool) -> PackedLayer:
    """A layer as stored; one whose rows write into something of fixed width still has its dead rows: they stay out."""
    kernel = (*layer.weight.shape[2:], 1, 1)[:2]
    codes = layer.codes()
    widths = code_widths(codes)
    rows = widths > 0 if fixed else torch.ones_like(widths, dtype=torch.bool)
    if int(widths.max()) > WIDEST:
        raise ValueError(f"{name} has codes of {int(widths.max())} bits, the packed file holds up to {WIDEST}")
    outputs, inputs = np.zeros(layer.full_outputs, dtype=bool), np.zeros(layer.full_inputs, dtype=bool)
    outputs[layer.kept_outputs[rows].cpu().numpy()] = True
    inputs[layer.kept_inputs.cpu().numpy()] = True
    return PackedLayer(
        kind="convolution" if layer.weight.ndim == 4 else "linear",
        shape=(layer.full_outputs, layer.full_inputs, *kernel),
        outputs=outputs,
        inputs=inputs,
        widths=widths[rows].cpu().numpy().astype(np.uint8),
        steps=layer.steps()[rows].cpu().numpy(),
        codes=codes[rows].reshape(int(rows.sum()), codes.shape[1], *kernel).cpu().numpy(),
    )


def _tensors_of(model: nn.Module) -> list[np.ndarray]:
    chosen = _other_tensors(model, list(quantized_layers(model)))
    return [tensor.detach().cpu().numpy() for tensor in chosen.values()]


def _other_tensors(model: nn.Module, layers: Sequence[str]) -> dict[str, Tensor]:
    """Float tensors of the state dict that are not the quantised layers' own."""
    own = {f"{layer}.{part}" for layer in layers for part in ("weight", "bits", "exponent")}
    return {
        name: tensor for name, tensor in model.state_dict().items() if name not in own and tensor.is_floating_point()
    }


def _content(layers: Sequence[PackedLayer], tensors: Sequence[np.ndarray]) -> bytes:
    body = b"".join([*map(_layer_bytes, layers), struct.pack("<H", len(tensors)), *map(_tensor_bytes, tensors)])
    return _HEADER.pack(MAGIC, VERSION, len(layers), _HEADER.size + len(body), zlib.crc32(body)) + body


def _layer_bytes(layer: PackedLayer) -> bytes:
    limits = (0xFFFF, 0xFFFF, 0xFF, 0xFF)
    if any(length > limit for length, limit in zip(layer.shape, limits)):
        raise ValueError(f"a layer of shape {layer.shape} is too large for the packed file, which holds {limits}")
    kind = next(number for number, name in _KINDS.items() if name == layer.kind)
    channels = np.empty(len(layer.widths), dtype=_CHANNEL)
    channels["width"], channels["step"] = layer.widths, layer.steps
    bitmaps = [np.packbits(bitmap, bitorder="little").tobytes() for bitmap in (layer.outputs, layer.inputs)]
    return b"".join([_LAYER.pack(kind, *layer.shape), *bitmaps, channels.tobytes(), _stream(layer)])


def _stream(layer: PackedLayer) -> bytes:
    return pack_codes(layer.codes.reshape(len(layer.codes), math.prod(layer.codes.shape[1:])), layer.widths)


def _tensor_bytes(tensor: np.ndarray) -> bytes:
    if max(tensor.shape, default=0) > 0xFFFF:
        raise ValueError(
            f"a tensor of shape {tensor.shape} is too large for the packed file, which holds 65,535 per axis"
        )
    return struct.pack(f"<{1 + tensor.ndim}H", tensor.ndim, *tensor.shape) + tensor.astype("<f4").tobytes()


def _check_accounting(model: nn.Module, layers: Sequence[PackedLayer]) -> None:
    for (name, bits), layer in zip(layer_bits(model).items(), layers, strict=True):
        if abs(len(_stream(layer)) - bits.tight / 8) >= 1:
            raise AssertionError(f"{name} packs into {len(_stream(layer))} bytes, but counts {bits.tight} bits")


def _file_sizes(content: bytes, layers: Sequence[PackedLayer], tensors: Sequence[np.ndarray]) -> FileSizes:
    streams = b"".join(map(_stream, layers))
    rest = 2 + sum(len(_tensor_bytes(tensor)) for tensor in tensors)
    side = len(content) - _HEADER.size - len(streams) - rest
    return FileSizes(len(content), len(streams), side, rest, len(zlib.compress(streams, 9)), _mixed_radix(layers))


def _mixed_radix(layers: Sequence[PackedLayer]) -> int:
    """sum over channels of ceil(n log2(largest - smallest code + 1) / 8) bytes."""
    total = 0
    for layer in layers:
        codes = layer.codes.reshape(len(layer.codes), math.prod(layer.codes.shape[1:]))
        levels = codes.max(axis=1) - codes.min(axis=1) + 1
        total += int(np.ceil(codes.shape[1] * np.log2(levels) / 8).sum())
    return total


# --- reading --------------------------------------------------------------------------------------------------


def load_packed(path: str | os.PathLike[str]) -> Packed:
    """Read and check a packed file.

    Raises:
        FileNotFoundError: no such file.
        PackedFileError: not a packed file, another version, truncated, altered, or parts that contradict each other.
    """
    content = Path(path).read_bytes()
    try:
        return _parsed(content)
    except PackedFileError as problem:
        raise PackedFileError(f"{path} cannot be used: {problem}") from None


def load_packed_into(model: nn.Module, path: str | os.PathLike[str], layers: Sequence[str] | None = None) -> nn.Module:
    """Give a float network the weights of a packed file, in place; it then runs as the packed network did.

    Channels that the file leaves out are taken out of the network too, but for rows that write into something of fixed
    width (proj, ff2, head): those become zeros.

    Args:
        model: the network that was packed, as it was before it was quantised, on any device, in float32:
            `create_model("mnist_cnn", 10)`.
        path: file of `save_packed`.
        layers: names of the quantised layers, if not all of `model.quantizable`.

    Returns:
        The model.

    Raises:
        ValueError: a network that is quantised, is not float32, or has already lost channels.
        FileNotFoundError, PackedFileError: as `load_packed`; also a file of another network. Nothing is changed then.
    """
    if quantized_layers(model):
        raise ValueError(
            "the weights in a packed file are final: load it into the float network, as create_model gives it"
        )
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise ValueError("the weights in a packed file are float32: call model.float() first")
    packed, names = load_packed(path), layer_names(model, layers)
    try:
        _fill(copy.deepcopy(model), packed, names)  # a rehearsal: a file of another network must not leave half of it
    except PackedFileError as problem:
        raise PackedFileError(f"{path} does not fit this {type(model).__name__}: {problem}") from None
    return _fill(model, packed, names)


def _parsed(content: bytes) -> Packed:
    if len(content) < _HEADER.size or content[:4] != MAGIC:
        raise PackedFileError(f"it does not start with {MAGIC!r} and a header, so it is not a packed network")
    _, version, count, length, checksum = _HEADER.unpack_from(content)
    if version != VERSION:
        raise PackedFileError(f"it has version {version} of the format, this library reads version {VERSION}")
    if len(content) != length:
        how = "truncated" if len(content) < length else "followed by something else"
        raise PackedFileError(f"it is {how}: {len(content)} bytes, its header says {length}")
    if zlib.crc32(content[_HEADER.size :]) != checksum:
        raise PackedFileError("it was altered: its checksum does not match its content")
    reader = _Reader(content, _HEADER.size)
    layers = [reader.layer(number) for number in range(count)]
    tensors = [reader.tensor() for _ in range(reader.numbers("<H")[0])]
    reader.end()
    return Packed(layers, tensors)


class _Reader:
    """Walks through the bytes; a file with a right checksum can still be nonsense."""

    def __init__(self, content: bytes, start: int) -> None:
        self.content, self.at = content, start

    def bytes(self, count: int) -> bytes:
        if self.at + count > len(self.content):
            raise PackedFileError(f"its parts are longer than the file: {count} bytes wanted at byte {self.at}")
        self.at += count
        return self.content[self.at - count : self.at]

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def bitmap(self, length: int) -> np.ndarray:
        bits = np.unpackbits(np.frombuffer(self.bytes(-(-length // 8)), np.uint8), bitorder="little")
        if bits[length:].any():
            raise PackedFileError(f"a bitmap of {length} channels names more channels than there are")
        return bits[:length].astype(bool)

    def layer(self, number: int) -> PackedLayer:
        kind, *built = self.numbers(_LAYER.format)
        if kind not in _KINDS:
            raise PackedFileError(f"layer {number} is of an unknown kind {kind}; known: {_KINDS}")
        outputs, inputs = self.bitmap(built[0]), self.bitmap(built[1])
        here, shape = int(outputs.sum()), (int(outputs.sum()), int(inputs.sum()), *built[2:])
        channels = np.frombuffer(self.bytes(here * _CHANNEL.itemsize), _CHANNEL)
        widths, steps = channels["width"].copy(), channels["step"].astype(np.float32)
        if (widths > WIDEST).any() or not (np.isfinite(steps) & (steps > 0)).all():
            raise PackedFileError(
                f"layer {number} has widths above {WIDEST} bits, or steps that are not positive numbers"
            )
        n = math.prod(shape[1:])
        stream = self.bytes(-(-int(widths.astype(np.int64).sum()) * n // 8))
        try:
            codes = unpack_codes(stream, widths, n).reshape(shape)
        except ValueError as problem:
            raise PackedFileError(f"layer {number}: {problem}") from None
        return PackedLayer(
            _KINDS[kind], (built[0], built[1], built[2], built[3]), outputs, inputs, widths, steps, codes
        )

    def tensor(self) -> np.ndarray:
        shape = self.numbers(f"<{self.numbers('<H')[0]}H")
        values = np.frombuffer(self.bytes(4 * math.prod(shape)), "<f4")
        return values.reshape(shape).astype(np.float32)

    def end(self) -> None:
        if self.at != len(self.content):
            raise PackedFileError(f"{len(self.content) - self.at} bytes are left over after its last tensor")


@torch.no_grad()
def _fill(model: nn.Module, packed: Packed, names: Sequence[str]) -> nn.Module:
    """Shrink the network to what is in the file, and set every weight."""
    if len(names) != len(packed.layers):
        raise PackedFileError(f"it holds {len(packed.layers)} quantised layers, the network {len(names)}: {names}")
    here = dict(zip(names, packed.layers))
    for name, layer in here.items():
        _check_shape(name, model.get_submodule(name), layer)
    keep = {name: torch.from_numpy(np.flatnonzero(here[name].outputs)) for name in names if name in removable(model)}
    try:
        shrink(model, keep)
    except ValueError as problem:
        raise PackedFileError(str(problem)) from None
    _check_inputs(model, here)
    for name, layer in here.items():
        weight = model.get_submodule(name).get_parameter("weight")
        rows = slice(None) if name in keep else torch.from_numpy(layer.outputs).to(weight.device)
        weight.zero_()
        weight[rows] = torch.from_numpy(layer.weight).reshape(-1, *weight.shape[1:]).to(weight.device)
    _fill_others(_other_tensors(model, names), packed.tensors)
    return model


def _check_shape(name: str, module: nn.Module, layer: PackedLayer) -> None:
    shape = tuple(module.get_parameter("weight").shape)
    kind = "convolution" if isinstance(module, nn.Conv2d) else "linear"
    if (kind, (*shape, 1, 1)[:4]) != (layer.kind, layer.shape):
        raise PackedFileError(f"{name} is a {kind} {shape} here, but a {layer.kind} {layer.shape} in the file")


def _check_inputs(model: nn.Module, here: dict[str, PackedLayer]) -> None:
    """The bitmap of a layer's inputs must follow from that of the channels which feed them."""
    feeders = {link.layer: link for link in links(model)}
    for name, layer in here.items():
        link, expected = feeders.get(name), np.ones(layer.shape[1], dtype=bool)
        if link is not None and link.feeder in here:
            expected = np.repeat(here[link.feeder].outputs[-(layer.shape[1] // link.per) :], link.per)
        if not np.array_equal(layer.inputs, expected):
            raise PackedFileError(f"the inputs that {name} has in the file are not the channels which feed it")


def _fill_others(mine: dict[str, Tensor], theirs: Sequence[np.ndarray]) -> None:
    if [tuple(tensor.shape) for tensor in mine.values()] != [tensor.shape for tensor in theirs]:
        shapes = {name: tuple(tensor.shape) for name, tensor in mine.items()}
        raise PackedFileError(f"its other tensors are {[t.shape for t in theirs]}, those of the network {shapes}")
    for tensor, values in zip(mine.values(), theirs):
        tensor.copy_(torch.from_numpy(values))
