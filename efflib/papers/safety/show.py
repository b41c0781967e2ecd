"""Live tables and pictures for the safety chapter and its page of figures: quantiser, preservation, removal, file."""

from __future__ import annotations

import copy
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, Markdown
from torch import Tensor, nn

from efflib.data import ImageSet, embedded_names
from efflib.kernels import fake_quantize
from efflib.kernels.fake_quantize import quantised
from efflib.models import create_model, evaluating
from efflib.papers.pictures import trained_model
from efflib.papers.safety import arms
from efflib.papers.safety.audit import CNN, DECODER, ROMAN, findings, load, log_lines
from efflib.papers.safety.drift import EXPONENT, GAMMA, NETWORKS, START_BITS
from efflib.papers.safety.preservation import bigram_scores
from efflib.papers.safety.recipes import CODE_SHARE, constants, make_task, new_model, settings_of, training_images
from efflib.papers.safety.selection import REASONS, Scores, Selection, score_images, select
from efflib.papers.safety.tables import tables
from efflib.papers.safety.tasks import ImageTask
from efflib.quantize import (
    PackedFileError,
    Removal,
    bit_gradients,
    bits_needed,
    floored,
    load_packed,
    load_packed_into,
    mean_bits,
    preset,
    quantize_model,
    quantized_layers,
    quantized_once,
    remove_dead,
    save_packed,
    soft_bytes,
    tight_bytes,
    tighten,
)
from efflib.report.audit import findings_for
from efflib.report.figures import image_grid, themed
from efflib.report.html import html_table
from efflib.report.notebook import ChanceLevel, evidence
from efflib.report.verdict import SCALES
from efflib.trials import Trial
from efflib.trials.recipes import Context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.trials import Store
    from efflib.trials.record import Record

LN2 = math.log(2)
STEPS, EVERY = 200, 25  # of the live run: long enough that the clamp engages and channels die
LIVE_GAMMA, LIVE_RATE = 1.0, 0.1
REAL_GAMMA = 0.1  # of our setting on real data, unless a page asks for another


# --- what both pages train --------------------------------------------------------------------------------


def live_trial(seed: int, gamma: float = LIVE_GAMMA, lr_bits: float = LIVE_RATE, steps: int = STEPS) -> Trial:
    """Our setting in a short, hurried form on embedded digits: from 8 bits to the clamp and below within seconds.

    Args:
        seed: of weights and batches.
        gamma: weight of the penalty.
        lr_bits: rate of the bits; at 0.1 an unopposed bit depth is used up after 80 steps.
        steps: length; the result is noted, and the preservation set looked at, every 25.
    """
    chosen = preset("default", CNN)
    small = {"steps": steps, "batch_size": 32, "preserved": 32, "gamma": gamma, "lr_bits": lr_bits}
    settings = settings_of(chosen, "selected", **small)
    settings["restoration"] = {**settings["restoration"], "every": EVERY}
    common = {**arms.common("smoke", CNN, seed), "every": EVERY}
    return Trial.of("self_compression", {"float": arms.float_twin("smoke", CNN, seed)}, **{**settings, **common})


def network_of(trial: Trial, store: Store) -> nn.Module:
    """The network of a recorded float or self-compressed run, in eval mode.

    Raises:
        FileNotFoundError: the record or its weights are not here; run the trial first.
    """
    return trained_model(trial, store, _quantized if trial.recipe == "self_compression" else new_model)


def _quantized(settings: Any) -> nn.Module:
    return quantize_model(new_model(settings), settings.bits, settings.exponent)


@dataclass(frozen=True)
class Scene:
    """What the chapter looks at: a float CNN, its self-compressed twin, and the images of both.

    settings: of the compressed run. metrics: its record's. train: the training images; task: the same on the CPU.
    """

    settings: Any
    metrics: Mapping[str, Any]
    twin: nn.Module
    compressed: nn.Module
    train: ImageSet
    task: ImageTask


def scene(trial: Trial, store: Store) -> Scene:
    """Networks and images of a recorded compressed run.

    Raises:
        FileNotFoundError: record or weights are not here; run the trial first.
        ChanceLevel: the float twin does not beat guessing: it would teach nothing.
    """
    task = make_task(trial.settings, Context("cpu", "fp32", None, {}, progress=False, description="scene"))  # type: ignore[arg-type]
    assert isinstance(task, ImageTask)
    parent, record = trial.parents["float"], _record(trial, store)
    _refuse_chance(float(_record(parent, store).metrics["last"]), len(task.test))
    train, _, _ = training_images(trial.settings)  # type: ignore[arg-type]
    twin, compressed = network_of(parent, store), network_of(trial, store)
    return Scene(trial.settings, record.metrics, twin, compressed, train, task)


def _record(trial: Trial, store: Store) -> Record:
    found = next((record for record in store.find(trial) if record.status == "ok"), None)
    if found is None:
        raise FileNotFoundError(f"no record of {trial.label} in {store.root}: run it first")
    return found


def _refuse_chance(accuracy: float, images: int, classes: int = 10) -> None:
    chance = 1 / classes
    bar = 100 * (chance + 3 * math.sqrt(chance * (1 - chance) / images))
    if not accuracy > bar:
        raise ChanceLevel(
            f"the float twin reaches {accuracy:.1f} %, guessing plus three standard errors is {bar:.1f} %"
        )


def audit(page: str) -> Any:
    """The audit findings that concern a page, each linking to its place on the audit page."""
    chosen = findings_for(findings(page), page)
    return Markdown("\n".join(f"- **{f.title}.** {f.text} ({{ref}}`details <{f.anchor}>`)" for f in chosen))


def _table(rows: Sequence[Mapping[str, Any]], caption: str, name: str) -> Any:
    return HTML(html_table(rows, caption, f"safety-{name}"))


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
    return _table(rows, caption, "steps")


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
    return _table(rows, f"Gradients of one weight, e = {exponent:g}", "gradients")


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
    return _table(rows, f"Codes that the {flat.shape[1]} weights of one channel take", "rounding")


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
        found = {"bits": depth, "clipped": _clipped_share(model)}
        rows.append(found | {"loss": _mean(slopes), "penalty": _mean(push)})
    return rows


@torch.no_grad()
def _clipped_share(model: nn.Module) -> float:
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


# --- the preservation set ---------------------------------------------------------------------------------

WHY = {
    "evidence": "evidence\nspread widest",
    "uncertain": "uncertain\nsmallest margin",
    "diverse": "diverse\nnear a centroid",
}


@dataclass(frozen=True)
class Preserved:
    """Scores of the training images by the float network, and the images chosen by them."""

    scores: Scores
    chosen: Selection

    def places(self, reason: str) -> np.ndarray:
        """Positions of the images chosen for a reason, in order of choice."""
        return self.chosen.positions[[why == reason for why in self.chosen.reasons]]


def preserved(shown: Scene) -> Preserved:
    """The preservation set, as the recorded run chose it."""
    settings = shown.settings
    layers: Any = shown.twin.quantizable
    scores = score_images(shown.twin, shown.train, *constants(settings.dataset), layers[-1])
    count = int(CODE_SHARE * len(shown.train) + 0.5)
    return Preserved(scores, select(scores, count, len(shown.train.classes), settings.seed))


def preserved_strip(shown: Scene, found: Preserved, images: int = 8) -> Any:
    """Figure: the first preserved images of each kind; the last line has images that were not chosen."""
    others = np.setdiff1d(np.arange(len(shown.train)), found.chosen.positions)
    lines = {WHY[reason]: found.places(reason)[:images] for reason in REASONS} | {"not chosen": others[:images]}
    rows = [[_rgb(shown.train.images[place]) for place in places] for places in lines.values()]
    counts = ", ".join(f"{reason} {count}" for reason, count in found.chosen.counts().items())
    alt = f"Digits of the preservation set by reason ({counts} images), and digits that were not chosen"
    return image_grid(rows, [""] * images, list(lines), alt)


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(image.reshape(*image.shape[:2], -1)[:, :, :1], (*image.shape[:2], 3))


def preserved_table(shown: Scene, found: Preserved) -> Any:
    """Table: what tells the chosen images from the others."""
    places = {reason: found.places(reason) for reason in REASONS}
    places |= {"the whole set": found.chosen.positions, "all training images": np.arange(len(shown.train))}
    right = found.scores.prediction.numpy() == shown.train.labels
    rows = [
        {
            "images": name,
            "how many": len(where),
            "mean spread of the evidence": f"{found.scores.spread.numpy()[where].mean():.2f}",
            "mean margin": f"{found.scores.margin.numpy()[where].mean():.3f}",
            "float network right": f"{100 * right[where].mean():.1f} %",
            "different digits": len(set(shown.train.labels[where].tolist())),
        }
        for name, where in places.items()
    ]
    return _table(rows, "Preserved training images, by the reason they were chosen for", "preserved")


def names_table(shown: int = 8) -> Any:
    """Table: the training names with the lowest bigram scores, and those with the highest."""
    names = embedded_names().split().train.names
    scores = bigram_scores(names)
    order = np.argsort(scores, kind="stable")
    pairs = bigram_probabilities(names)
    rows = []
    for what, places in (("preserved first", order[:shown]), ("last of all", order[::-1][:shown])):
        for place in places:
            name = names[place]
            rarest = min((name[i : i + 2] for i in range(len(name) - 1)), key=lambda pair: pairs[pair])
            rows.append(
                {"": what, "name": name, "score": f"{scores[place]:.4f}"}
                | {"rarest pair": rarest, "probability of its second letter": f"{pairs[rarest]:.4f}"}
            )
    return _table(rows, f"Lowest and highest scores of {len(names):,} embedded training names", "bigrams")


def bigram_probabilities(names: Sequence[str]) -> dict[str, float]:
    """Pair of letters -> probability of the second one given the first, counted inside the names."""
    counts: dict[str, int] = {}
    firsts: dict[str, int] = {}
    for name in names:
        for i in range(len(name) - 1):
            counts[name[i : i + 2]] = counts.get(name[i : i + 2], 0) + 1
            firsts[name[i]] = firsts.get(name[i], 0) + 1
    return {pair: count / firsts[pair[0]] for pair, count in counts.items()}


def events_table(metrics: Mapping[str, Any], most: int = 12) -> Any:
    """Table: the first restorations of a run that was noted as often as it was checked."""
    events = metrics["events"]
    if not events:
        return HTML(f"<p>None of the {metrics['checks']:g} checks of this run found a violation.</p>")
    curves = metrics["curves"]
    later = dict(zip(curves["step"], curves["preservation"][1:], strict=False))  # step -> score at the next note
    rows = [
        {
            "step": event["step"],
            "layer": event["layer"],
            "channels": ", ".join(map(str, event["channels"])),
            "bits before": _bits_text(event["before"]),
            "bits after": _bits_text(event["after"]),
            "preserved images right": f"{event['score']:.1f} %",
            "at the next note": f"{later[event['step']]:.1f} %" if event["step"] in later else "",
        }
        for event in events[:most]
    ]
    caption = (
        f"Restorations of this page's run, the first {len(rows)} of {len(events)}: {metrics['violations_restored']:g} "
        f"of {metrics['checks']:g} checks restored bits, {metrics['mean_bits_given_back']:.2f} in the mean"
    )
    return _table(rows, caption, "events")


def _bits_text(bits: Sequence[float]) -> str:
    return ", ".join(f"{max(b, 0.0):.2f}" for b in bits)


# --- removal ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removed:
    """before: the network with its dead channels. after: the same without them. removal: what went. forced: channels
    that were put to 0 bits by hand, because none had died."""

    before: nn.Module
    after: nn.Module
    removal: Removal
    forced: dict[str, int]


def removed(shown: Scene) -> Removed:
    """Take the dead channels out of the compressed network.

    Where none died, the weakest of conv3 is put to 0 bits first.
    """
    before = copy.deepcopy(shown.compressed)
    layers, forced = quantized_layers(before), {}
    if all(bool(layer.alive().all()) for layer in layers.values()):
        weakest = int(layers["conv3"].bits.detach().flatten().argmin())
        layers["conv3"].bits.data[weakest] = 0.0
        forced = {"conv3": weakest}
    shown.task.recalibrate(before)  # else batch norm would turn a dead channel into a constant
    after = copy.deepcopy(before)
    return Removed(before, after, remove_dead(after), forced)


def removed_table(shown: Scene, found: Removed) -> Any:
    """Table: channels and weights of each layer before and after removal, and whether the logits stayed."""
    gone = found.removal.removed
    small = quantized_layers(found.after)
    rows = [
        {
            "layer": name,
            "channels": layer.weight.shape[0],
            "dead": ", ".join(map(str, gone.get(name, []))) or "none",
            "left": small[name].weight.shape[0],
            "weights": f"{layer.weight.numel():,}",
            "weights left": f"{small[name].weight.numel():,}",
        }
        for name, layer in quantized_layers(found.before).items()
    ]
    x = shown.task.test.x
    apart = float((logits(found.before, x) - logits(found.after, x)).abs().max())
    by_hand_ = "; one channel was put to 0 bits by hand, since none had died" if found.forced else ""
    caption = (
        f"Dead channels removed{by_hand_}. Logits of {len(x)} test images "
        f"{'stay' if apart < 1e-5 else 'DO NOT stay'} within 0.00001"
    )
    return _table(rows, caption, "removed")


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    """In eval mode."""
    with evaluating(model):
        return model(x)


# --- the packed file --------------------------------------------------------------------------------------


def packed_tables(shown: Scene, found: Removed, images: int = 100) -> Any:
    """Tables: parts of the compressed network's file beside the accounting; checks of what is read back and refused."""
    small = copy.deepcopy(found.after)
    tighten(small)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.packed"
        parts = save_packed(small, path)
        content = path.read_bytes()
        fresh = load_packed_into(new_model(shown.settings), path)
        again = [torch.from_numpy(layer.weight) for layer in load_packed(path).layers]
        refused = [_refused(path, *each) for each in _damaged(content)]
    whole = 4 * sum(parameter.numel() for parameter in new_model(shown.settings).parameters())
    rows = [
        {
            "part": "header with length and checksum",
            "bytes": f"{parts.total - parts.payload - parts.side - parts.rest:,}",
        },
        {"part": "codes", "bytes": f"{parts.payload:,}"},
        {"part": "shapes, bitmaps, widths and steps of the channels", "bytes": f"{parts.side:,}"},
        {"part": "all other numbers: classifier, batch norm", "bytes": f"{parts.rest:,}"},
        {"part": "whole file", "bytes": f"{parts.total:,}"},
        {"part": "for comparison: the float network", "bytes": f"{whole:,}"},
        {
            "part": "soft size, which counts bits of the quantised weights only",
            "bytes": f"{soft_bytes(found.before):,.0f}",
        },
    ]
    layers = quantized_layers(small).values()
    same = all(torch.equal(layer.quantized_weight().detach(), read) for layer, read in zip(layers, again, strict=True))
    x = shown.task.test.x[:images]
    checks = [
        {"check": "bytes on disk are the sum of the parts", "holds": len(content) == parts.total},
        {"check": "codes take what the accounting says (tight bytes)", "holds": parts.payload == tight_bytes(small)},
        {"check": "every quantised weight is read back bit by bit", "holds": same},
        {
            "check": f"logits of {images} test images are identical, network read back against network written",
            "holds": torch.equal(logits(small, x), logits(fresh, x)),
        },
    ]
    return HTML(
        html_table(rows, "The packed file of this page's compressed network", "safety-packed-parts")
        + html_table(checks, "Written and read back", "safety-packed-checks")
        + html_table(refused, "What the reader says to a file that is not as it was written", "safety-packed-refused")
    )


def _damaged(content: bytes) -> list[tuple[str, bytes]]:
    """Files that must be refused: what was done, and their bytes."""

    def flipped(place: int) -> bytes:
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return [
        ("one bit flipped in the first byte", flipped(0)),
        ("one bit flipped in the version", flipped(4)),
        ("one bit flipped in the middle", flipped(len(content) // 2)),
        ("one bit flipped in the last byte", flipped(len(content) - 1)),
        ("the last byte missing", content[:-1]),
    ]


def _refused(path: Path, what: str, content: bytes) -> dict[str, str]:
    path.write_bytes(content)
    try:
        load_packed(path)
    except PackedFileError as problem:
        return {"file": what, "answer": str(problem).partition("cannot be used: ")[2]}
    return {"file": what, "answer": "ACCEPTED"}


# --- figure 1(a): size and accuracy during training -------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One compressed run of a figure.

    name: in words. scale: of its record. trial, metrics: what was asked and found.
    """

    name: str
    scale: str
    trial: Trial
    metrics: Mapping[str, Any]

    def curve(self, name: str) -> np.ndarray:
        """One curve by note; empty if it was not noted."""
        return np.asarray(self.metrics["curves"].get(name, []), dtype=float)


def own_trials(scale: str, seed: int, gamma: float | None = None) -> dict[str, Trial]:
    """What the page of figures trains: name -> trial.

    Args:
        scale: "smoke" takes the live run for our setting; the others the preset itself.
        seed: of weights and batches.
        gamma: of our setting; None takes 1 at smoke and 0.1 on real data.
    """
    if scale == "smoke":
        ours = live_trial(seed, LIVE_GAMMA if gamma is None else gamma)
    else:
        ours = arms.compressed(scale, CNN, seed, "safe", "default", gamma=REAL_GAMMA if gamma is None else gamma)
    return {
        "float": arms.float_twin(scale, CNN, seed),
        "published setting": arms.compressed(scale, CNN, seed, "safe"),
        "our setting": ours,
    }


def own_runs(trials: Mapping[str, Trial], scale: str, store: Store) -> list[Run]:
    """The compressed ones of `own_trials`, once they are recorded.

    Raises:
        FileNotFoundError: one that is not recorded.
        ChanceLevel: at smoke, a float twin that does not beat guessing.
    """
    if scale == "smoke":
        _refuse_chance(float(_record(trials["float"], store).metrics["last"]), 360)
    found = {name: trial for name, trial in trials.items() if trial.recipe == "self_compression"}
    return [Run(name, scale, trial, _record(trial, store).metrics) for name, trial in found.items()]


def recorded_runs(find: Callable[[Any, str], Any] = evidence) -> list[Run]:
    """Table I's safe runs at the largest scale that has any: the published setting, and ours with gamma nearest to 0.1.

    Args:
        find: (table, scale) -> Results.
    """
    for scale in sorted((scale for scale in SCALES if scale != "smoke"), key=SCALES.index, reverse=True):
        entries = [entry for entry in find(tables["table1"], scale).entries if entry.usable]
        published = [entry for entry in entries if entry.cell["method"] == "safe"]
        ours = [entry for entry in entries if entry.cell["method"] == "default_safe"]
        ours.sort(key=lambda entry: (abs(math.log(entry.cell["gamma"] / REAL_GAMMA)), entry.seed))
        published.sort(key=lambda entry: entry.seed)
        named = [("published setting", each) for each in published[:1]]
        named += [(f"our setting, gamma {each.cell['gamma']:g}", each) for each in ours[:1]]
        if named:
            return [Run(name, scale, each.trial, each.record.metrics) for name, each in named]
    return []


def quadratic(sizes: np.ndarray, accuracy: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """Least-squares parabola of the accuracy in the logarithm of the size; None for fewer than three different sizes.

    Args:
        sizes: (n,) bytes.
        accuracy: (n,) percent.
    """
    if len(np.unique(sizes)) < 3:
        return None
    centre, spread = np.log(sizes).mean(), np.log(sizes).std()
    # Centred and scaled: a run whose size hardly changes would else be fitted from differences of rounding.
    weights = np.polyfit((np.log(sizes) - centre) / spread, accuracy, 2)
    return lambda x: np.polyval(weights, (np.log(x) - centre) / spread)


def size_figure(runs: Sequence[Run]) -> Any:
    """Figure 1(a): per run, sizes and accuracies against the step, and accuracy against size over its checkpoints."""
    if not runs:
        return HTML("<p>No compressed run on real data is recorded yet.</p>")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(runs), 2, squeeze=False)
        for (left, right), run in zip(panels, runs, strict=True):
            _sizes_panel(left, run)
            _scatter_panel(right, run)
        _one_legend(figure, 3)

    told = "; ".join(
        f"{run.name}: {run.curve('soft_bytes')[0]:,.0f} to {run.curve('soft_bytes')[-1]:,.0f} soft bytes, accuracy "
        f"{run.curve('test')[-1]:.1f} % at the end"
        for run in runs
    )
    return themed(
        draw, (9, 3.1 * len(runs) + 0.7), f"Size and accuracy during training at scale {runs[0].scale}. {told}"
    )


def _one_legend(figure: Figure, columns: int) -> None:
    """Below the panels, with each label once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles |= {text: line for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize="small")


def _sizes_panel(axes: Any, run: Run) -> None:
    steps, other = run.curve("step"), axes.twinx()
    axes.plot(steps, run.curve("soft_bytes") / 1000, color="C0", label="soft size")
    axes.plot(steps, run.curve("tight_bytes") / 1000, color="C0", linestyle="--", label="tight size")
    for name, colour, label in (("test", "C1", "test accuracy"), ("preservation", "C2", "preservation accuracy")):
        if len(run.curve(name)):
            other.plot(steps, run.curve(name), color=colour, label=label)
    axes.set(title=run.name, xlabel="step", ylabel="size, kB")
    axes.set_ylim(bottom=0)
    other.set(ylabel="accuracy, %")


def _scatter_panel(axes: Any, run: Run) -> None:
    sizes, accuracy = checkpoints(run)
    axes.plot(sizes / 1000, accuracy, "o", color="grey", markersize=4, label="checkpoint")
    fit = quadratic(sizes, accuracy)
    if fit is not None:
        x = np.geomspace(sizes.min(), sizes.max(), 100)
        axes.plot(x / 1000, fit(x), color=axes.xaxis.label.get_color(), label="quadratic fit in the log of the size")
    axes.set(xlabel="soft size, kB", ylabel="test accuracy, %")


def checkpoints(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(soft bytes, test accuracy) of every note but the first, which is of the untrained network."""
    return run.curve("soft_bytes")[1:], run.curve("test")[1:]


def pace_table(runs: Sequence[Run]) -> Any:
    """Table: how much of the decrease in size came when; a straight line has 25 and 50 %."""
    if not runs:
        return HTML("")
    rows = []
    for run in runs:
        steps, sizes = run.curve("step"), run.curve("soft_bytes")
        done = [
            100 * (sizes[0] - np.interp(share * steps[-1], steps, sizes)) / (sizes[0] - sizes[-1])
            for share in (0.25, 0.5)
        ]
        rows.append(
            {
                "run": run.name,
                "soft size at the start": f"{sizes[0]:,.0f}",
                "at the end": f"{sizes[-1]:,.0f}",
                "of the decrease, after a quarter of the steps": f"{done[0]:.0f} %",
                "after half": f"{done[1]:.0f} %",
                "tight size at the end": f"{run.curve('tight_bytes')[-1]:,.0f}",
                "dead channels": f"{run.curve('dead_channels')[-1]:.0f}",
            }
        )
    return _table(rows, f"When the size fell, scale {runs[0].scale} (bytes)", f"pace-{runs[0].scale}")


def headline(runs: Sequence[Run]) -> Any:
    """What the recorded runs show of the paper's figures, in a sentence each."""
    if not runs:
        return Markdown(
            "**What held:** nothing is measured on real data yet. The runs on this page show that the code works; they "
            "say nothing about the paper."
        )
    parts = [
        f"- {run.name}: {run.curve('soft_bytes')[0]:,.0f} to {run.curve('soft_bytes')[-1]:,.0f} soft bytes in "
        f"{run.curve('step')[-1]:,.0f} steps, test accuracy {run.metrics['last']:.2f} % at the end, "
        f"{run.curve('dead_channels')[-1]:.0f} dead channels"
        for run in runs
    ]
    return Markdown(f"**What held, at scale `{runs[0].scale}`** (one seed each):\n\n" + "\n".join(parts))


# --- figure 1(b): step time -------------------------------------------------------------------------------


def time_rows(
    shares: Sequence[float] = (0.0, 0.25, 0.5, 0.75), steps: int = 7, width: float = 1.0, batch: int = 16, seed: int = 0
) -> list[dict[str, float]]:
    """Training steps of a CNN of which a share of every layer's channels is dead: left in, and taken out.

    Args:
        shares: of the channels of each layer.
        steps: timed; two before them are not.
        width, batch: of the network and the batch.
        seed: of weights and images.

    Returns:
        Per share: share, weights left, and the median milliseconds of a step with dead channels left_in and removed.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(batch, 1, 28, 28, generator=generator), torch.randint(10, (batch,), generator=generator)
    pairs = [(share, dying(share, width, seed)) for share in shares]
    took: dict[tuple[float, str], list[float]] = {}
    stepping = {(share, kind): _stepper(model, x, y) for share, both in pairs for kind, model in both.items()}
    for count in range(steps + 2):  # in turn, so that a load on the machine slows all of them
        for place, step in stepping.items():
            begun = time.perf_counter()
            step()
            if count >= 2:
                took.setdefault(place, []).append(1000 * (time.perf_counter() - begun))
    return [
        {"share": share, "weights": float(_weights(both["removed"]))}
        | {kind: statistics.median(took[share, kind]) for kind in ("left_in", "removed")}
        for share, both in pairs
    ]


def dying(share: float, width: float = 1.0, seed: int = 0) -> dict[str, nn.Module]:
    """A fresh CNN at 8 bits with the first channels of every layer put to 0 bits: left_in, and removed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = quantize_model(create_model(CNN, 10, width=width), 8.0)
    for layer in quantized_layers(model).values():
        layer.bits.data[: int(share * len(layer.bits))] = 0.0
    small = copy.deepcopy(model)
    remove_dead(small, check_norms=False)  # fresh running statistics: batch norm has seen nothing yet
    return {"left_in": model, "removed": small}


def _stepper(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimiser = preset("default", CNN).create_optimiser(model)
    model.train()

    def step() -> None:
        with quantized_once(model):
            loss = F.cross_entropy(model(x), y) + GAMMA * mean_bits(model)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def _weights(model: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in quantized_layers(model).values())


def time_figure(rows: Sequence[Mapping[str, float]]) -> Any:
    """Figure 1(b): median step time against the weights that are left, dead channels left in and taken out."""
    x = [row["weights"] / 1000 for row in rows]
    labels = {"left_in": "dead channels left in the tensors", "removed": "dead channels removed"}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for kind, label in labels.items():
            axes.plot(x, [row[kind] for row in rows], "o-", label=label)
        axes.set(xlabel="remaining weights, thousands", ylabel="step, ms (median)")
        axes.set_ylim(bottom=0)
        axes.set_xlim(max(x) * 1.05, 0)
        axes.legend(fontsize="small", loc="lower left")

    told = "; ".join(f"{r['weights']:,.0f} weights {r['left_in']:.1f} and {r['removed']:.1f} ms" for r in rows)
    return themed(draw, (6.5, 3.2), f"Time of a step with dead channels left in and removed: {told}")


def time_table(rows: Sequence[Mapping[str, float]]) -> Any:
    """The same as a table."""
    texts = [
        {
            "dead channels in every layer": f"{row['share']:.0%}",
            "remaining weights": f"{row['weights']:,.0f}",
            "left in, ms": f"{row['left_in']:.1f}",
            "removed, ms": f"{row['removed']:.1f}",
            "removed / left in": f"{row['removed'] / row['left_in']:.2f}",
        }
        for row in rows
    ]
    return _table(texts, "Median time of a training step on the CPU, when this page was made", "step-times")


def pace_figure(runs: Sequence[Run]) -> Any:
    """Figure: step time between the notes of whole runs, with the channels that are alive on a second axis."""
    if not runs:
        return HTML("<p>No compressed run on real data is recorded yet.</p>")

    def draw(figure: Figure) -> None:
        for axes, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
            steps, other = run.curve("step"), axes.twinx()
            axes.stairs(step_times(run), steps, baseline=None, color="C0", label="step time", linewidth=1.5)
            other.plot(steps, channels(run) - run.curve("dead_channels"), color="C1", label="channels alive")
            axes.set(title=run.name, xlabel="step", ylabel="step, ms")
            other.set(ylabel="channels alive")
            axes.set_ylim(0, 1.15 * step_times(run).max())
            other.set_ylim(0, 1.05 * channels(run))
        _one_legend(figure, 2)

    return themed(draw, (4.2 * len(runs) + 0.5, 3.2), f"Step time and living channels. {alive_sentence(runs)}")


def step_times(run: Run) -> np.ndarray:
    """Milliseconds per step between two notes, measuring left out."""
    return 1000 * np.diff(run.curve("seconds")) / np.diff(run.curve("step"))


def channels(run: Run) -> int:
    """Quantised channels of its network."""
    model = new_model(run.trial.settings)  # type: ignore[arg-type]
    names: Any = model.quantizable
    return sum(len(model.get_submodule(name).get_parameter("weight")) for name in names)


def alive_sentence(runs: Sequence[Run]) -> str:
    """How many channels died in each run."""
    parts = [
        f"{run.name}: {run.curve('dead_channels')[-1]:.0f} of {channels(run)} channels dead at the end" for run in runs
    ]
    return f"Scale {runs[0].scale}: " + "; ".join(parts) + "."


# --- figure 3: the weights --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Weights of a network as it computes with them, by layer; codes likewise, empty for a float network.

    clipped: share of the weights that lie outside the range of their channel; None for a float network.
    """

    name: str
    layers: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    clipped: float | None = None

    @property
    def values(self) -> np.ndarray:
        """All of them."""
        return np.concatenate(list(self.layers.values()))

    @property
    def zeros(self) -> float:
        """Share of exact zeros."""
        return float((self.values == 0).mean())


def excess_kurtosis(values: np.ndarray) -> float:
    """Fourth standardised moment less 3: 0 for a normal distribution, -1.2 for a uniform one."""
    from scipy.stats import kurtosis

    return float(kurtosis(values))


def weights_of(name: str, model: nn.Module) -> Weights:
    """All weights of the layers that are (or would be) quantised."""
    layers = quantized_layers(model)
    if layers:
        values = {key: _numbers(layer.quantized_weight()) for key, layer in layers.items()}
        codes = {key: _numbers(layer.codes()) for key, layer in layers.items()}
        return Weights(name, values, codes, _clipped_share(model))
    names: Any = model.quantizable
    return Weights(name, {key: _numbers(model.get_submodule(key).get_parameter("weight")) for key in names}, {})


def _numbers(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().flatten()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def weight_sets(trials: Mapping[str, Trial], store: Store) -> list[Weights]:
    """Weights of recorded networks by name, after those of the first one as it was before training."""
    first = next(iter(trials.values()))
    untrained: Any = first.settings
    found = [weights_of(name, network_of(trial, store)) for name, trial in trials.items()]
    return [weights_of("float, untrained", new_model(untrained)), *found]


def largest_weight_sets(own: Mapping[str, Trial], own_store: Store, runs: Sequence[Run], store: Store) -> list[Weights]:
    """Weights of the recorded runs if they are on this machine (the cache is not part of the book), else of the own."""
    if runs:
        recorded = {"float": runs[0].trial.parents["float"], **{run.name: run.trial for run in runs}}
        try:
            return weight_sets(recorded, store)
        except FileNotFoundError:
            pass
    return weight_sets(own, own_store)


def weights_figure(found: Sequence[Weights], bins: int = 100) -> Any:
    """Figure 3: density histograms with a Gaussian kernel estimate (Scott's rule), with and without exact zeros."""
    kinds = {"all": [each.values for each in found], "rest": [each.values[each.values != 0] for each in found]}
    curves = {kind: [_density(values, bins) for values in sets] for kind, sets in kinds.items()}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, len(found), squeeze=False)
        for line, kind in zip(panels, curves, strict=True):
            for axes, each, (edges, bars, curve) in zip(line, found, curves[kind], strict=True):
                axes.stairs(bars, edges, fill=True, alpha=0.5, color="C0")
                axes.plot(edges, curve, color="C1", linewidth=1.2)
                axes.set(yticks=[])
                told = f"{each.name}\n{each.zeros:.0%} zeros" if kind == "all" else "without zeros"
                axes.set_title(told, fontsize="small")
            line[0].set_ylabel("density")
        for axes in panels[1]:
            axes.set_xlabel("weight")

    told = "; ".join(
        f"{each.name} {each.zeros:.1%} zeros, excess kurtosis {excess_kurtosis(each.values):.1f}" for each in found
    )
    return themed(draw, (2.6 * len(found) + 0.3, 4.6), f"Histograms of weights with density curves. {told}")


def _density(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges between the outermost thousandths, density in each bin, and the kernel estimate at the edges."""
    from scipy.stats import gaussian_kde

    edges = np.linspace(np.quantile(values, 0.001), np.quantile(values, 0.999), bins + 1)
    bars, _ = np.histogram(values, edges)
    return edges, bars / (len(values) * np.diff(edges)), gaussian_kde(values)(edges)


def weights_table(found: Sequence[Weights]) -> Any:
    """Table: zeros, clipped weights, and kurtosis of all weights, without zeros, and of single layers."""
    rows = []
    for each in found:
        single = [excess_kurtosis(values) for values in each.layers.values()]
        rows.append(
            {
                "network": each.name,
                "weights": f"{len(each.values):,}",
                "exact zeros": f"{each.zeros:.1%}",
                "clipped": "" if each.clipped is None else f"{each.clipped:.1%}",
                "excess kurtosis": f"{excess_kurtosis(each.values):.2f}",
                "without zeros": f"{excess_kurtosis(each.values[each.values != 0]):.2f}",
                "of single layers": f"{min(single):.2f} to {max(single):.2f}",
            }
        )
    return _table(rows, "Weights as the networks compute with them", "weights")


def codes_figure(found: Sequence[Weights]) -> Any:
    """Figure: integer codes of every layer of the compressed networks."""
    shown = [each for each in found if each.codes]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(shown), max(len(each.codes) for each in shown), squeeze=False)
        for line, each in zip(panels, shown, strict=True):
            for axes, (layer, codes) in zip(line, each.codes.items(), strict=True):
                counts = np.bincount(codes - codes.min())
                edges = np.arange(codes.min(), codes.max() + 2) - 0.5
                axes.stairs(100 * counts / len(codes), edges, fill=True, color="C0")
                axes.set_title(f"{layer}: {codes.min()} to {codes.max()}", fontsize="small")
            line[0].set_ylabel(f"{each.name}\nweights, %", fontsize="small")
        for axes in panels[-1]:
            axes.set_xlabel("code")

    told = "; ".join(
        f"{each.name} " + ", ".join(f"{k} {c.min()} to {c.max()}" for k, c in each.codes.items()) for each in shown
    )
    return themed(draw, (9, 2.2 * len(shown) + 0.3), f"Integer codes by layer. {told}")
