"""The page of the safety paper's figures: size and accuracy during training, step time, and the weights."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, Markdown
from torch import Tensor, nn

from efflib.models import create_model
from efflib.papers.safety import arms
from efflib.papers.safety.audit import CNN
from efflib.papers.safety.drift import GAMMA
from efflib.papers.safety.quantiser_page import clipped_share
from efflib.papers.safety.recipes import new_model
from efflib.papers.safety.scene import LIVE_GAMMA, live_trial, network_of, page_table, record_of, refuse_chance
from efflib.papers.safety.tables import tables
from efflib.quantize import mean_bits, preset, quantize_model, quantized_layers, quantized_once, remove_dead
from efflib.report.figures import one_legend, themed
from efflib.report.html import sentence
from efflib.report.notebook import evidence
from efflib.scales import SCALES
from efflib.trials import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.trials import Store

REAL_GAMMA = 0.1  # of our setting on real data, unless a page asks for another


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
        refuse_chance(float(record_of(trials["float"], store).metrics["last"]), 360)
    found = {name: trial for name, trial in trials.items() if trial.recipe == "self_compression"}
    return [Run(name, scale, trial, record_of(trial, store).metrics) for name, trial in found.items()]


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
        return sentence("No compressed run on real data is recorded yet.")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(runs), 2, squeeze=False)
        for (left, right), run in zip(panels, runs, strict=True):
            _sizes_panel(left, run)
            _scatter_panel(right, run)
        one_legend(figure, 3)

    told = "; ".join(
        f"{run.name}: {run.curve('soft_bytes')[0]:,.0f} to {run.curve('soft_bytes')[-1]:,.0f} soft bytes, accuracy "
        f"{run.curve('test')[-1]:.1f} % at the end"
        for run in runs
    )
    return themed(
        draw, (9, 3.1 * len(runs) + 0.7), f"Size and accuracy during training at scale {runs[0].scale}. {told}"
    )


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
    return page_table(rows, f"When the size fell, scale {runs[0].scale} (bytes)", f"pace-{runs[0].scale}")


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
    return page_table(texts, "Median time of a training step on the CPU, when this page was made", "step-times")


def pace_figure(runs: Sequence[Run]) -> Any:
    """Figure: step time between the notes of whole runs, with the channels that are alive on a second axis."""
    if not runs:
        return sentence("No compressed run on real data is recorded yet.")

    def draw(figure: Figure) -> None:
        for axes, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
            steps, other = run.curve("step"), axes.twinx()
            axes.stairs(step_times(run), steps, baseline=None, color="C0", label="step time", linewidth=1.5)
            other.plot(steps, channels(run) - run.curve("dead_channels"), color="C1", label="channels alive")
            axes.set(title=run.name, xlabel="step", ylabel="step, ms")
            other.set(ylabel="channels alive")
            axes.set_ylim(0, 1.15 * step_times(run).max())
            other.set_ylim(0, 1.05 * channels(run))
        one_legend(figure, 2)

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
        return Weights(name, values, codes, clipped_share(model))
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
    return page_table(rows, "Weights as the networks compute with them", "weights")


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
