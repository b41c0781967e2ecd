"""What the safety chapter shows of the quantiser: steps, gradients, levels, and what moves a bit depth."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from IPython.display import Markdown
from torch import Tensor, nn

from efflib.kernels import fake_quantize
from efflib.kernels.fake_quantize import quantised
from efflib.papers.safety.audit import CNN, DECODER, ROMAN, load, log_lines
from efflib.papers.safety.drift import EXPONENT, GAMMA, NETWORKS, START_BITS
from efflib.papers.safety.scene import Scene, page_table
from efflib.quantize import bit_gradients, bits_needed, floored, mean_bits, quantize_model, quantized_layers
from efflib.report.figures import themed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LN2 = math.log(2)


# --- what the reader must be told -------------------------------------------------------------------------


def up_front() -> Any:
    """Sentences about the published sizes, from the printed tables and the published log."""
    printed, lines = load(), log_lines()
    depth = {
        (network, method): 8 * float(printed.size(network, method)) / NETWORKS[network].weights
        for network in (CNN, DECODER)
        for method in ("safe", "unsafe")
    }
    told = "; ".join(
        f"{ROMAN[network]}: {depth[network, 'safe']:.1f} safe, {depth[network, 'unsafe']:.1f} unsafe"
        for network in (CNN, DECODER)
    )
    least, most = depth[DECODER, "unsafe"], depth[CNN, "safe"]
    return Markdown(
        f"**Before you read on:** the released runs start at {START_BITS:g} bits per weight, and the printed sizes "
        f"amount to {least:.0f} to {most:.0f} bits per weight ({told}). Up there no weight is clipped, and the bit "
        "depths feel nothing but a constant push of the penalty. The optimiser alone, without data and without a "
        f"network, gives {sum(line.same for line in lines)} of {len(lines)} quoted lines of the decoder's log to the "
        "printed digit. So the sizes are consistent with a *count of steps*, not with a trade-off that was learned. "
        f"Rounding a trained network to eight bits takes {most / 8:.1f} times fewer bytes for the weights than "
        f"{ROMAN[CNN]}'s safe model. None of this refutes the method: it has to be run where it does something. This "
        "chapter does both."
    )


# --- the quantiser ----------------------------------------------------------------------------------------


def steps_table(weight: Tensor, bits: float, shown: int = 9, reach: float = 0.6) -> Any:
    """Table: some weights of one channel on their way through the quantiser, with their gradients for dL/dy = 1.

    Args:
        weight: of one channel, any shape.
        bits: b.
        shown: weights, at even ranks from the smallest to the largest.
        reach: the step 2^e as a share of the one that would clip nothing.
    """
    ordered = weight.detach().flatten().double().sort().values
    chosen = ordered[torch.linspace(0, len(ordered) - 1, shown).round().long()]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    fits = max(float(ordered[-1]) / max(high, 0.5), float(ordered[0]) / low)
    exponent = math.log2(reach * fits)
    rows = [_step_row(float(x), bits, exponent) for x in chosen]
    caption = f"b = {bits:g}, 2^e = {2**exponent:.4f}: codes from {round(low)} to {round(high)}"
    return page_table(rows, caption, "steps")


def _step_row(x: float, bits: float, exponent: float) -> dict[str, Any]:
    each = [torch.full((1, 1), value, dtype=torch.float64) for value in (x, bits, exponent)]
    found = quantised(*each)
    y, dx, db, de = gradients(x, bits, exponent)
    clipped = float(found.scaled.clamp(found.low, found.high))
    return {
        "weight x": f"{x:+.4f}",
        "s = x / 2^e": f"{float(found.scaled):+.2f}",
        "clipped c": f"{clipped:+.2f}",
        "code n": int(found.codes),
        "value y": f"{y:+.4f}",
        "where": region(x, bits, exponent),
        "dy/dx": f"{dx:.0f}",
        "dy/db": f"{db:+.4f}" if db else "0",
        "dy/de": f"{de:+.4f}",
    }


def gradients(x: float, bits: float, exponent: float) -> tuple[float, float, float, float]:
    """y and its derivatives by x, b and e, as `fake_quantize` gives them in double precision."""
    each = [torch.full((1, 1), value, dtype=torch.float64, requires_grad=True) for value in (x, bits, exponent)]
    y = fake_quantize(*each)
    y.sum().backward()
    dx, db, de = (float(tensor.grad) for tensor in each)  # type: ignore[arg-type]
    return float(y.detach()), dx, db, de


def region(x: float, bits: float, exponent: float) -> str:
    """Where a weight lies: "no bits", "inside", "on the bound", "above" or "below"."""
    if bits <= 0:
        return "no bits"
    s, low, high = x * 2**-exponent, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if s in (low, high):
        return "on the bound"
    return "above" if s > high else "below" if s < low else "inside"


def by_hand(x: float, bits: float, exponent: float) -> tuple[float, float, float, float]:
    """The same four numbers from the rules of the table of regions, without autograd."""
    if bits <= 0:
        return 0.0, 0.0, 0.0, 0.0
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    clipped = min(max(x * 2**-exponent, low), high)
    y = 2**exponent * round(clipped)  # Python rounds halves to even, too
    where = region(x, bits, exponent)
    if where in ("above", "below"):
        return y, 0.0, (1 if where == "above" else -1) * LN2 * 2 ** (exponent + bits - 1), LN2 * y
    return y, 1.0, 0.0, LN2 * (y - x)


CASES = (
    (0.3, 3.0),
    (2.0, 3.0),
    (-2.0, 3.0),
    (0.75, 3.0),
    (0.3, 0.5),
    (-0.3, 0.5),
    (0.9, 2.33),
    (-0.9, 2.33),
    (0.3, 0.0),
)


def gradient_table(exponent: float = -2.0) -> Any:
    """Table: one weight in every region; the gradients of the layer beside the rules, in double precision."""
    rows = []
    for x, bits in CASES:
        found, wanted = gradients(x, bits, exponent), by_hand(x, bits, exponent)
        y, dx, db, de = (f"{value + 0.0:.6f}" for value in found)
        same = all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(found, wanted, strict=True))
        rows.append(
            {"x": f"{x:g}", "b": f"{bits:g}", "where": region(x, bits, exponent), "y": y, "dy/dx": dx, "dy/db": db}
            | {"dy/de": de, "as the rules say": same}
        )
    return page_table(rows, f"Gradients of one weight, e = {exponent:g}", "gradients")


def rounding_table(weight: Tensor, depths: Sequence[float] = (3.0, 2.0, 1.0, 0.5, 0.0)) -> Any:
    """Table: codes of one channel by rounding to even and by the printed floor, as its bits run out."""
    flat = weight.detach().double().reshape(1, -1)
    exponent = torch.log2(flat.abs().max() / 4).reshape(1, 1)
    rows = []
    for depth in depths:
        bits = torch.full((1, 1), depth, dtype=torch.float64)
        codes = {
            "round half to even": fake_quantize(flat, bits, exponent) * torch.exp2(-exponent),
            "floor, as printed": floored(flat, bits, exponent) * torch.exp2(-exponent),
        }
        texts = {name: _codes_text(found) for name, found in codes.items()}
        gone = {f"{name}: can be removed": bool((found.round() == 0).all()) for name, found in codes.items()}
        rows.append({"b": f"{depth:g}", **texts, **gone})
    return page_table(rows, f"Codes that the {flat.shape[1]} weights of one channel take", "rounding")


def _codes_text(codes: Tensor) -> str:
    return ", ".join(str(int(code)) for code in codes.round().unique())


# --- what fractional bits mean ----------------------------------------------------------------------------


def levels(depths: Sequence[float]) -> np.ndarray:
    """(n,) how many different codes a channel of b bits can have, counted on a ramp that reaches beyond its range."""
    bits = torch.tensor(depths, dtype=torch.float64)[:, None]
    reach = 2 ** max(float(bits.max()), 1.0)
    ramp = torch.arange(-4 * reach, 4 * reach + 1, dtype=torch.float64) / 4
    codes = quantised(ramp.expand(len(bits), -1), bits, torch.zeros_like(bits)).codes
    return np.array([len(row.unique()) for row in codes])


def levels_figure(most: float = 5.0) -> Any:
    """Figure: levels against b, and the bits that a file needs for them against b."""
    depths = np.round(np.arange(-0.5, most + 1e-9, 0.01), 2)
    counted, needed = levels(depths.tolist()), [bits_needed(float(b)) for b in depths]
    ends = [math.log2(2**k + 1) for k in range(1, int(most))]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        left.plot(depths, counted, color="C0", label="levels")
        left.plot(depths, 2.0**depths, color="grey", linestyle=":", label="2 to the power b")
        left.set(xlabel="bit depth b", ylabel="different codes", yscale="log", yticks=[1, 2, 4, 8, 16, 32])
        left.set_yticklabels(["1", "2", "4", "8", "16", "32"])
        right.plot(depths, needed, color="C0", label="bits in the file")
        right.plot(depths, np.maximum(depths, 0), color="grey", linestyle=":", label="soft size, max(b, 0)")
        for k, end in enumerate(ends, start=1):
            right.annotate(f"{end:.3f}", (end, k), (3, -9), textcoords="offset points", fontsize="x-small")
        right.set(xlabel="bit depth b", ylabel="bits per weight")
        for axes in (left, right):
            axes.legend(fontsize="small")

    told = ", ".join(f"{k} up to {end:.3f}" for k, end in enumerate(ends, start=1))
    alt = f"Left: number of levels against b, a staircase of even numbers. Right: bits that the codes need: {told}."
    return themed(draw, (8, 3.2), alt)


# --- what moves b -----------------------------------------------------------------------------------------


def clip_rows(shown: Scene, depths: Sequence[float], images: int = 200) -> list[dict[str, float]]:
    """The trained float network, quantised at the published exponent, at one bit depth after the other.

    Returns:
        Per depth: bits; clipped, share of its weights outside the range; loss and penalty, mean absolute gradient of a
        channel's b from the cross-entropy of some training images and from gamma Q as published.
    """
    batch = (shown.task.train.x[:images], shown.task.train.y[:images])
    rows = []
    for depth in depths:
        model = quantize_model(copy.deepcopy(shown.twin), depth, EXPONENT).eval()
        slopes = bit_gradients(model, shown.task.loss(model, batch))
        push = bit_gradients(model, GAMMA * mean_bits(model, "all_params"))
        found = {"bits": depth, "clipped": clipped_share(model)}
        rows.append(found | {"loss": _mean(slopes), "penalty": _mean(push)})
    return rows


@torch.no_grad()
def clipped_share(model: nn.Module) -> float:
    outside = total = 0
    for layer in quantized_layers(model).values():
        found = quantised(layer.weight, layer.bits, layer.exponent)
        outside += int(((found.scaled < found.low) | (found.scaled > found.high)).sum())
        total += layer.weight.numel()
    return outside / total


def _mean(slopes: Mapping[str, Tensor]) -> float:
    return float(torch.cat(list(slopes.values())).double().mean())


def clip_figure(rows: Sequence[Mapping[str, float]]) -> Any:
    """Figure: share of clipped weights, and both gradients of b, as b falls."""
    bits = [row["bits"] for row in rows]
    silent = _silent(rows)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        left.plot(bits, [100 * row["clipped"] for row in rows], "o-", markersize=3)
        left.set(ylabel="clipped weights, %")
        heard = [row for row in rows if row["loss"] > 0]
        right.plot([r["bits"] for r in heard], [r["loss"] for r in heard], "o-", markersize=3, label="cross-entropy")
        right.plot(bits, [row["penalty"] for row in rows], color="C1", label="penalty")
        if silent:
            right.axvspan(
                min(silent), max(bits), color="grey", alpha=0.2, linewidth=0, label="cross-entropy: exactly 0"
            )
        right.set(ylabel="mean gradient of b, absolute", yscale="log")
        right.legend(fontsize="small")
        for axes in (left, right):
            axes.set_xlabel(f"bit depth b of all channels (e = {EXPONENT:g})")
            axes.set_xlim(max(bits), min(bits) - 0.5)

    told = "; ".join(f"b {row['bits']:g} {row['clipped']:.1%}" for row in rows if row["bits"] == int(row["bits"]))
    return themed(draw, (8.5, 3.2), f"Share of clipped weights as b falls: {told}. {_silence(rows)}")


def _silent(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """Depths at which nothing is clipped. (Far below, the gradient can vanish too: then the whole network is dead.)"""
    return [row["bits"] for row in rows if row["clipped"] == 0 and row["loss"] == 0]


def clip_words(rows: Sequence[Mapping[str, float]]) -> Any:
    """Where the cross-entropy falls silent, in a sentence."""
    return Markdown(_silence(rows))


def _silence(rows: Sequence[Mapping[str, float]]) -> str:
    silent = _silent(rows)
    loud = [row["bits"] for row in rows if row["loss"] > row["penalty"]]
    parts = []
    if silent:
        where = f"From {min(silent):g} bits upwards no weight is clipped"
        parts.append(f"{where}, and the gradient of the cross-entropy by b is exactly zero.")
    if loud:
        parts.append(f"From {max(loud):g} bits downwards it is larger than that of the penalty, in the mean.")
    return " ".join(parts) or "In this range every depth clips some weights."
