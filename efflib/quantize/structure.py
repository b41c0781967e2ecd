"""Which layer feeds which, which channels still matter, and how to take the others out of every tensor they are in.

A model says with `chain()` what feeds each layer: (layer, the quantised layer whose output channels are its inputs or
None, inputs per channel). Where the feeding layer has more channels than there are inputs, its last ones feed (proj
reads the value rows of qkv). Channels of a layer that feeds another can be removed; the rows of the others write into
something of fixed width (residual stream, logits) and are only left out of the packed file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from efflib.quantize.layers import Quantizer, quantized_layers, required


class Link(NamedTuple):
    """`layer` reads `feeder`'s channels (None: something that cannot shrink), `per` inputs of each."""

    layer: str
    feeder: str | None
    per: int


class Survivors(NamedTuple):
    """What matters in one layer. rows: (O,) bool, inputs: (I,) bool, widths: (O,) int64 bits that its codes need."""

    rows: Tensor
    inputs: Tensor
    widths: Tensor


def links(model: nn.Module) -> list[Link]:
    """`model.chain()`; empty for a model without one, in which no layer's inputs can be dropped."""
    chain = getattr(model, "chain", None)
    return [Link(*link) for link in chain()] if callable(chain) else []


def removable(model: nn.Module) -> list[str]:
    """Names of the layers that feed another: their channels can be taken out physically."""
    return list(dict.fromkeys(link.feeder for link in links(model) if link.feeder is not None))


def survivors(model: nn.Module, dead: Mapping[str, Tensor] | None = None) -> dict[str, Survivors]:
    """What is left of each quantised layer once its dead channels, and what only they feed, are gone.

    Args:
        model: a quantised network.
        dead: (O,) bool by layer; None takes a channel for dead if all its codes on living inputs are 0.

    Returns:
        Survivors by layer. A query row dies with its key row and with all values of its head. A layer that feeds
        another keeps at least one row, even a dead one: no tensor becomes empty.
    """
    feeders = {link.layer: link for link in links(model)}
    found: dict[str, Survivors] = {}
    for name, layer in required(model).items():
        inputs = _living_inputs(model, feeders.get(name), layer.weight.shape[1], found)
        codes = layer.codes() * inputs.reshape(1, -1, *[1] * (layer.weight.ndim - 2))
        widths = code_widths(codes)
        rows = widths > 0 if dead is None else ~dead.get(name, torch.zeros_like(widths, dtype=torch.bool))
        if name in removable(model):
            rows = _with_one(model, name, _paired(model, name, layer, rows))
        found[name] = Survivors(rows, inputs, widths)
    return found


def code_widths(codes: Tensor) -> Tensor:
    """(O,) int64: bits of two's complement that hold all codes of a channel, 0 if all are 0."""
    low, high = codes.flatten(1).aminmax(dim=1)
    # n >= 0 needs as many bits as n, plus a sign; n < 0 as many as -n - 1.
    largest = torch.maximum(high, -low - 1).double()
    bits = torch.frexp(largest)[1].to(torch.int64) + 1
    return torch.where((low == 0) & (high == 0), 0, bits)


def shrink(model: nn.Module, keep: Mapping[str, Tensor], optimiser: torch.optim.Optimizer | None = None) -> nn.Module:
    """Keep only some channels of some layers: slices weights, bits, exponents, biases, norms, what they feed, Adam.

    Nothing is folded or checked, see `remove_dead` for that.

    Args:
        model: a quantised network or the float network of the same structure; changed in place.
        keep: positions among the present channels of a layer, ascending; layers not named keep all.
        optimiser: its state is sliced like its parameters.

    Raises:
        ValueError: a layer that feeds no other, or query rows of qkv without their key rows.
    """
    slices = _Slices(optimiser)
    for name, positions in keep.items():
        if name not in removable(model):
            raise ValueError(f"{name} feeds no other layer: its rows write into a stream of fixed width and stay")
        if len(positions) < model.get_submodule(name).get_parameter("weight").shape[0]:
            _shrink_one(model, name, positions, slices)
    return model


def match_structure(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Shrink a freshly quantised network to the channels that a state dict holds, so that it can be loaded.

    Args:
        model: as `quantize_model` returned it.
        state: of a network from which channels were removed.

    Raises:
        ValueError: a state dict without the record of a layer's channels.
    """
    for name in required(model):
        if f"{name}.kept_outputs" not in state:
            raise ValueError(
                f"no {name}.kept_outputs in this state dict: it is not one of a quantised network like this"
            )
    names = [name for name in removable(model) if name in quantized_layers(model)]
    return shrink(model, {name: state[f"{name}.kept_outputs"] for name in names})


def _living_inputs(model: nn.Module, link: Link | None, count: int, found: Mapping[str, Survivors]) -> Tensor:
    if link is None or link.feeder is None or link.feeder not in found:
        return torch.ones(count, dtype=torch.bool, device=next(model.parameters()).device)
    return found[link.feeder].rows[-(count // link.per) :].repeat_interleave(link.per)


def _with_one(model: nn.Module, name: str, rows: Tensor) -> Tensor:
    """The rows, or with one that a follower reads if none of those is left."""
    read = min(_read(model, link, len(rows)) for link in links(model) if link.feeder == name)
    if not rows[len(rows) - read :].any():
        rows = rows.clone()
        rows[len(rows) - read] = True
    return rows


def _read(model: nn.Module, link: Link, rows: int) -> int:
    """How many of the feeder's rows, the last ones, this link's layer reads."""
    weight = model.get_submodule(link.layer).get_parameter("weight")
    return min(weight.shape[1] // link.per, rows)


def head_rows(model: nn.Module, name: str) -> tuple[list[int], list[int]] | None:
    """Per head, how many query (and key) and how many value rows this layer holds; None if it is not a block's qkv."""
    block, _, part = name.rpartition(".")
    found = getattr(model.get_submodule(block), "head_rows", None)
    if part != "qkv" or found is None:
        return None
    return [query for query, _ in found], [value for _, value in found]


def _paired(model: nn.Module, name: str, layer: Quantizer, rows: Tensor) -> Tensor:
    """Rows of qkv of which a score or a value comes: pairs of query and key, in heads that have values."""
    heads = head_rows(model, name)
    if heads is None:
        return rows
    queries, values = heads
    query, key, value = rows.split([sum(queries), sum(queries), sum(values)])
    has_values = torch.stack([part.any() for part in value.split(values)])
    pair = query & key & has_values.repeat_interleave(torch.tensor(queries, device=rows.device))
    return torch.cat([pair, pair, value])


def _shrink_one(model: nn.Module, name: str, positions: Tensor, slices: _Slices) -> None:
    layer = model.get_submodule(name)
    rows = layer.get_parameter("weight").shape[0]
    followers = [(link, _read(model, link, rows)) for link in links(model) if link.feeder == name]
    _count_heads(model, name, positions)
    slices.rows(layer, positions)
    norm = getattr(model, "norms", {}).get(name)
    if norm is not None:
        slices.norm(model.get_submodule(norm), positions)
    for link, read in followers:
        first = rows - read
        mine = positions[positions >= first] - first
        inputs = (mine[:, None] * link.per + torch.arange(link.per, device=mine.device)).flatten()
        slices.inputs(model.get_submodule(link.layer), inputs)


def _count_heads(model: nn.Module, name: str, positions: Tensor) -> None:
    heads = head_rows(model, name)
    if heads is None:
        return
    queries, values = heads
    kept = torch.zeros(2 * sum(queries) + sum(values), dtype=torch.bool)
    kept[positions.cpu()] = True
    query, key, value = kept.split([sum(queries), sum(queries), sum(values)])
    if not torch.equal(query, key):
        raise ValueError(f"{name}: a query row stays or goes together with its key row, this choice parts some")
    counts = zip(query.split(queries), value.split(values))
    block = model.get_submodule(name.rpartition(".")[0])
    block.head_rows = tuple((int(q.sum()), int(v.sum())) for q, v in counts)  # type: ignore[assignment]


class _Slices:
    """Takes positions of an axis of parameters and buffers, and of an optimiser's state alike."""

    def __init__(self, optimiser: torch.optim.Optimizer | None) -> None:
        self.optimiser = optimiser

    def rows(self, layer: nn.Module, positions: Tensor) -> None:
        for tensor in ("weight", "bits", "exponent", "bias", "kept_outputs"):
            self._take(layer, tensor, 0, positions)
        self._count(layer, positions, "out_channels", "out_features")

    def inputs(self, layer: nn.Module, positions: Tensor) -> None:
        self._take(layer, "weight", 1, positions)
        self._take(layer, "kept_inputs", 0, positions)
        self._count(layer, positions, "in_channels", "in_features")

    def norm(self, layer: nn.Module, positions: Tensor) -> None:
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            self._take(layer, tensor, 0, positions)
        self._count(layer, positions, "num_features")

    def _count(self, layer: nn.Module, positions: Tensor, *attributes: str) -> None:
        for attribute in attributes:
            if hasattr(layer, attribute):
                setattr(layer, attribute, len(positions))

    def _take(self, module: nn.Module, name: str, axis: int, positions: Tensor) -> None:
        old = getattr(module, name, None)
        if old is None:
            return
        positions = positions.to(old.device)
        if not isinstance(old, nn.Parameter):
            setattr(module, name, old.index_select(axis, positions))
            return
        new = nn.Parameter(old.detach().index_select(axis, positions), requires_grad=old.requires_grad)
        setattr(module, name, new)
        if self.optimiser is not None:
            self._replace(old, new, axis, positions)

    def _replace(self, old: nn.Parameter, new: nn.Parameter, axis: int, positions: Tensor) -> None:
        assert self.optimiser is not None
        for group in self.optimiser.param_groups:
            group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
        if old in self.optimiser.state:
            state = self.optimiser.state.pop(old)
            self.optimiser.state[new] = {
                key: value.index_select(axis, positions)
                if isinstance(value, Tensor) and value.shape == old.shape
                else value
                for key, value in state.items()
            }
