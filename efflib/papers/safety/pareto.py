"""The Pareto front: self-compression beside everything else that makes a trained network small, at equal bytes.

A point is one way to make the network, with the bytes of its quantisable layers and its result, both means over seeds.
Bytes are *tight*: codes in whole bits that hold them, and a float32 scale for each channel that has codes; a bitmask
and the weights that are not 0, where single weights were pruned; else float32. What all have in common (classifier or
embeddings, biases, norms) counts for none. Source: sections 4 and 5 of the safety spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

from IPython.display import HTML
from torch import Tensor

from efflib.models import create_model
from efflib.papers.pictures import trained_model
from efflib.papers.safety import arms
from efflib.papers.safety.recipes import FloatConfig, StepsConfig, new_model
from efflib.papers.safety.tables import PRINTED, SWEEP
from efflib.papers.table import PrintedTable, Table, claims_of
from efflib.quantize.ptq import FACTORS, SCALE_BYTES, integer_codes, symmetric_scales
from efflib.report.figures import one_legend, themed
from efflib.report.html import html_table, sentence
from efflib.report.measures import headline_of
from efflib.report.verdict import Comparison, Interval, interval, paired, shift
from efflib.trials import Store
from efflib.trials.trial import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.report.notebook import TablePage
    from efflib.trials import Results

Cell = dict[str, Any]
Entries = Iterator[tuple[Cell, int, Trial]]

BUDGETS = (10_000, 20_000, 40_000, 80_000, 160_000, 215_000)  # bytes; the last is the printed size of the safe CNN
REACH = {"percent": 5.0, "nats_per_character": 0.6}  # how far below the best the figures of real data show
FINE_TUNING = 0.2  # of the float run's steps, at the recipe's own learning rate
UNITS = {"mnist_cnn": ("top1_accuracy", "percent"), "names_decoder": ("test_loss", "nats_per_character")}


# --- what is compared -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """One way to make a network small: words for the reader, and how its points look."""

    words: str
    colour: int
    marker: str
    key: str = ""  # what tells its points apart: bits, sparsity, keep, width or gamma
    joined: bool = False


FAMILIES = {
    "float": Family("float", 7, "P"),
    "published": Family("published setting, soft size", 7, "X"),
    "tightened": Family("published setting, tighten only", 7, "v"),
    "default_unsafe": Family("self-compression, unsafe", 3, "o", "gamma", True),
    "default_safe": Family("self-compression, safe", 2, "o", "gamma", True),
    "ptq": Family("rounding (PTQ)", 0, "s", "bits", True),
    "ptq_mse": Family("rounding, least error", 9, "s", "bits", True),
    "qat": Family("quantisation-aware training", 4, "D", "bits", True),
    "magnitude": Family("weights pruned", 1, "^", "sparsity"),
    "magnitude_8": Family("weights pruned, 8 bits", 1, "<", "sparsity"),
    "structured": Family("channels pruned", 5, "h", "keep"),
    "narrow": Family("narrower network", 8, "*", "width"),
    "narrow_8": Family("narrower network, 8 bits", 6, "*", "width"),
}
GROUPS = {
    "self-compression": ("default_unsafe", "default_safe"),
    "rounding and QAT": ("ptq", "ptq_mse", "qat"),
    "pruning": ("magnitude", "magnitude_8", "structured"),
    "narrower": ("narrow", "narrow_8"),
    "published setting, tightened": ("tightened",),
}
RIVALS = GROUPS["rounding and QAT"]
METHODS = ("float", "unsafe", "safe", *(name for name in FAMILIES if name not in ("float", "published", "tightened")))

# Family -> values of its key at smoke, and at every other scale.
VALUES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ptq": ((8, 4, 2), (8, 6, 4, 3, 2)),
    "ptq_mse": ((2,), (8, 6, 4, 3, 2)),
    "qat": ((2,), (8, 4, 3, 2)),
    "magnitude": ((0.5,), (0.5, 0.8, 0.9, 0.95)),
    "magnitude_8": ((), (0.5, 0.8, 0.9, 0.95)),
    "structured": ((0.5,), (0.75, 0.5, 0.25)),
    "narrow": ((), (0.5, 0.25)),
    "narrow_8": ((), (0.5, 0.25)),
}


def settings_of(family: str, value: float) -> dict[str, Any]:
    """Settings of the recipe `compressed_baseline`, less those that it shares with its parent."""
    bits = int(value)
    return {
        "ptq": {"method": "ptq", "bits": bits},
        "ptq_mse": {"method": "ptq", "bits": bits, "clip": "mse"},
        "qat": {"method": "qat", "bits": bits},
        "magnitude": {"method": "magnitude", "sparsity": value},
        "magnitude_8": {"method": "magnitude", "sparsity": value, "bits": 8},
        "structured": {"method": "structured", "keep": value},
    }[family]


def baseline(parent: Trial, family: str, value: float) -> Trial:
    """A float run made small.

    Args:
        parent: of recipe "float_twin".
        family: a name of VALUES, but not a narrower network.
        value: of the family's key.
    """
    asked = settings_of(family, value)
    own: Any = parent.settings
    shared = {name: getattr(own, name) for name in StepsConfig.model_fields if name != "steps"}
    steps = 0 if asked["method"] == "ptq" else max(1, int(FINE_TUNING * own.steps + 0.5))
    settings = {**shared, "optimiser": own.optimiser, "weight_decay": own.weight_decay, **asked}
    return Trial.of("compressed_baseline", {"float": parent}, steps=steps, **settings)


def narrower(parent: Trial, factor: float) -> Trial:
    """The float run with `factor` times as many channels, trained from scratch."""
    own: Any = parent.settings
    settings = {name: getattr(own, name) for name in FloatConfig.model_fields}
    options = {**own.model_options, "width": factor * own.model_options.get("width", 1.0)}
    return Trial.of("float_twin", **{**settings, "model_options": options})


def _small(parent: Trial, family: str, value: float) -> Trial:
    if family == "narrow":
        return narrower(parent, value)
    return baseline(narrower(parent, value), "ptq", 8) if family == "narrow_8" else baseline(parent, family, value)


def _grid(model: str) -> Callable[[str, list[int], dict[str, tuple]], Entries]:
    def grid(scale: str, seeds: list[int], choices: dict[str, tuple]) -> Entries:
        methods, gammas = choices.get("methods", METHODS), choices.get("gammas", SWEEP[scale])
        base = {"model": model, "dataset": arms.SIZES[scale].datasets[model]}
        for seed in seeds:
            parent = arms.float_twin(scale, model, seed)
            for method in methods:
                for keys, trial in _trials(scale, model, seed, method, parent, gammas):
                    yield {**base, "method": method, **keys}, seed, trial

    return grid


def _trials(
    scale: str, model: str, seed: int, method: str, parent: Trial, gammas: Sequence[float]
) -> Iterator[tuple[Cell, Trial]]:
    if method == "float":
        yield {}, parent
    elif method in ("unsafe", "safe"):
        if scale != "smoke" or method == "unsafe":  # one run is enough to show what tightening does
            yield {}, arms.compressed(scale, model, seed, method)
    elif method in ("default_unsafe", "default_safe"):
        kind = method.removeprefix("default_")
        for gamma in gammas if scale != "smoke" or kind == "safe" else ():
            yield {"gamma": gamma}, arms.compressed(scale, model, seed, kind, "default", gamma=gamma)
    else:
        for value in VALUES[method][0 if scale == "smoke" else 1]:
            yield {FAMILIES[method].key: value}, _small(parent, method, value)


# --- points -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Point:
    """One network: its family, what tells it from its siblings, bytes and result (means over seeds).

    samples, sizes: result and bytes by seed; printed points have none.
    """

    family: str
    label: str
    bytes: float
    value: float
    samples: Mapping[int, float]
    sizes: Mapping[int, float]

    @property
    def interval(self) -> Interval | None:
        return interval(self.samples) if self.samples else None


def points(results: Results) -> list[Point]:
    """Every network that has a usable record, in the order of the grid; the published setting gives two.

    Its runs appear with the soft size that the paper reports, and tightened: same weights, whole bits.
    """
    found = []
    for cell in _cells(results):
        method = cell["method"]
        if method in ("unsafe", "safe"):
            found.append(_point(results, cell, "published", "last", lambda metrics, trial: metrics["soft_bytes"]))
            found.append(_point(results, cell, "tightened", "tightened_test", stored_bytes))
        else:
            found.append(_point(results, cell, method, "last", stored_bytes))
    return [point for point in found if point is not None]


def _cells(results: Results) -> list[Cell]:
    found = [dict(entry.cell) for entry in results.entries if entry.usable]
    return [cell for place, cell in enumerate(found) if cell not in found[:place]]


def _point(
    results: Results, cell: Cell, family: str, metric: str, size: Callable[[Mapping[str, Any], Trial], float]
) -> Point | None:
    entries = [entry for entry in results.entries if dict(entry.cell) == cell and entry.usable]
    sizes, samples = {}, {}
    for entry in entries:
        metrics = entry.record.metrics  # type: ignore[union-attr]
        if metrics.get(metric) is not None:
            sizes[entry.seed], samples[entry.seed] = float(size(metrics, entry.trial)), float(metrics[metric])
    if not samples:
        return None
    return Point(family, _label(cell, family), fmean(sizes.values()), fmean(samples.values()), samples, sizes)


def _label(cell: Mapping[str, Any], family: str) -> str:
    shown = FAMILIES[family]
    if family in ("published", "tightened"):
        return f"{cell['method']}, {shown.words}"
    value = cell.get(shown.key)
    told = {
        "bits": f", {value} bits",
        "gamma": f", gamma {value}",
        "sparsity": f", {_percent(value)} zeros",
        "keep": f", {_percent(value)} kept",
        "width": f", {_percent(value)} width",
    }
    return shown.words + told.get(shown.key, "")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:g} %"


def stored_bytes(metrics: Mapping[str, Any], trial: Trial) -> float:
    """Tight bytes of the quantisable layers, scales included; float32 where there are no codes."""
    if trial.recipe == "float_twin":
        return metrics["soft_bytes"]
    if trial.recipe == "compressed_baseline":
        return metrics["tight_bytes"] + metrics["scale_bytes"]
    own: Any = trial.settings
    living = _channels(own.model, tuple(sorted(own.model_options.items()))) - metrics["dead_channels"]
    return metrics["tight_bytes"] + SCALE_BYTES * living


@lru_cache
def _channels(model: str, options: tuple[tuple[str, Any], ...]) -> int:
    """Output channels of the quantisable layers of a network."""
    classes = 27 if model == "names_decoder" else 10
    network = create_model(model, classes, **dict(options))
    names: tuple[str, ...] = network.quantizable  # type: ignore[assignment]
    return sum(network.get_submodule(name).get_parameter("weight").shape[0] for name in names)


def printed_points(model: str) -> list[Point]:
    """The paper's three rows, as printed."""
    identifier = {"mnist_cnn": "table1", "names_decoder": "table2"}[model]
    sizes = PRINTED[f"{identifier}_bytes"]
    return [
        Point("printed", f"{cell.keys['method']}, printed", sizes.cell(**cell.keys).value, cell.value, {}, {})
        for cell in PRINTED[identifier].numbers
    ]


def dominators(found: Sequence[Point], higher: bool) -> list[Point | None]:
    """For each point the best one that dominates it: no more bytes, no worse result, and not the same in both.

    Args:
        found: the points.
        higher: whether a higher result is better.

    Returns:
        A Point, or None for the points on the front.
    """
    sign = 1 if higher else -1
    made: list[Point | None] = []
    for point in found:
        better = [
            other
            for other in found
            if other.bytes <= point.bytes
            and sign * other.value >= sign * point.value
            and (other.bytes, other.value) != (point.bytes, point.value)
        ]
        made.append(max(better, key=lambda other: (sign * other.value, -other.bytes), default=None))
    return made


def best_within(
    found: Sequence[Point], budget: float, higher: bool, families: Sequence[str] | None = None
) -> Point | None:
    """The best point of at most `budget` bytes; of equally good ones the smallest.

    Args:
        found: the points.
        budget: bytes.
        higher: whether a higher result is better.
        families: which may compete; None lets all but the soft sizes, which no file has.
    """
    sign = 1 if higher else -1
    fits = [
        point
        for point in found
        if point.bytes <= budget and (point.family in families if families else point.family != "published")
    ]
    return max(fits, key=lambda point: (sign * point.value, -point.bytes), default=None)


# --- what the page shows ----------------------------------------------------------------------------------


def _higher(results: Results) -> bool:
    return results.table.printed.unit == "percent"


def _told(point: Point, results: Results) -> str:
    decimals = headline_of(results.table).decimals
    return f"{point.value:.{decimals}f}" if point.interval is None else point.interval.text(decimals)


def front_table(results: Results) -> HTML:
    """Every point, smallest first: bytes, result, and which point dominates it."""
    found = sorted(points(results), key=lambda point: point.bytes)
    stored = [point for point in found if point.family != "published"]
    beaten = dict(zip(stored, dominators(stored, _higher(results)), strict=True)) if stored else {}
    rows = [_row(point, beaten, results) for point in found]
    if not rows:
        return sentence(f"Nothing of this figure is recorded at scale {results.scale} yet.")
    caption = f"All points, scale {results.scale}: means over seeds, ± half the 95 % interval (seeds)"
    return HTML(html_table(rows, caption, f"safety-{results.table.id}-front-{results.scale}"))


def _row(point: Point, beaten: Mapping[Point, Point | None], results: Results) -> dict[str, str]:
    if point.family == "published":
        state = "not judged: soft bytes are no file"
    else:
        other = beaten[point]
        state = "on the front" if other is None else f"dominated by {other.label}"
    return {
        "network": point.label,
        "bytes": f"{point.bytes:,.0f}",
        headline_of(results.table).unit.caption: _told(point, results),
        "state": state,
    }


def budget_table(results: Results) -> HTML:
    """The best of each group of methods at each budget, and the best of all."""
    found, rows = points(results), []
    for budget in BUDGETS:
        row = {"at most": f"{budget // 1000} kB"}
        for name, families in {**GROUPS, "best of all": None}.items():
            best = best_within(found, budget, _higher(results), families)
            row[name] = "" if best is None else f"{_told(best, results)}: {best.label}"
        rows.append(row)
    if not found:
        return sentence(f"Nothing of this figure is recorded at scale {results.scale} yet.")
    caption = f"The best at each budget, scale {results.scale}; 1 kB is 1,000 bytes; empty: nothing so small was run"
    return HTML(html_table(rows, caption, f"safety-{results.table.id}-budgets-{results.scale}"))


def recorded_figure(pages: Sequence[TablePage]) -> Any:
    """`figure` of the largest recorded scale of each table."""
    return figure([page.show_scale().results for page in pages if page.recorded])


def recorded_tables(page: TablePage) -> HTML:
    """All points and the budgets at the largest recorded scale."""
    if not page.recorded:
        return sentence("No trial on real data has a usable record for this figure yet.")
    results = page.show_scale().results
    have, wanted = results.recorded
    missing = f"<p>{wanted - have} of {wanted} trials of this scale are still missing.</p>" if have < wanted else ""
    return HTML(budget_table(results).data + front_table(results).data + missing)


def figure(all_results: Sequence[Results]) -> Any:
    """Result against bytes (log), one panel per network; points on the front are filled, dominated ones hollow.

    Args:
        all_results: of the tables of this page, one per panel. The paper's printed points stand in panels of runs on
            real data only: sizes of the narrow smoke networks are not comparable with them.
    """
    panels = [(results, points(results)) for results in all_results if points(results)]
    if not panels:
        return sentence("Nothing of this figure is recorded yet.")

    def draw(canvas: Figure) -> None:
        for axes, (results, found) in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, results, found)
        one_legend(canvas, 1 + len(panels))

    return themed(draw, (5.2 * len(panels), 5.6), " ".join(_spoken(*panel) for panel in panels))


def _panel(axes: Any, results: Results, found: Sequence[Point]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    model = _model(results)
    stored = [point for point in found if point.family != "published"]
    front = {id(p) for p, other in zip(stored, dominators(stored, _higher(results)), strict=True) if other is None}
    for name, look in FAMILIES.items():
        mine = [point for point in found if point.family == name]
        for filled in (True, False):
            chosen = [point for point in mine if (id(point) in front) == filled]
            label = look.words if mine and (filled or not any(id(p) in front for p in mine)) else None
            style = "full" if filled else "none"
            x, y = [point.bytes for point in chosen], [point.value for point in chosen]
            if chosen:
                axes.plot(x, y, look.marker, color=f"C{look.colour}", fillstyle=style, label=label, zorder=3)
        if look.joined and len(mine) > 1:
            mine = sorted(mine, key=lambda point: point.bytes)
            line = [point.bytes for point in mine], [point.value for point in mine]
            axes.plot(*line, color=f"C{look.colour}", linewidth=0.8, alpha=0.6)
    if results.scale != "smoke":
        given = printed_points(model)
        x, y = [point.bytes for point in given], [point.value for point in given]
        axes.plot(x, y, "kd", markerfacecolor="gold", label="printed by the paper", zorder=4)
    axes.set(xscale="log", xlabel="bytes of the quantisable layers", ylabel=headline_of(results.table).unit.caption)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize="small", labelrotation=30)
    title = f"{model}, scale {results.scale}"
    if results.scale != "smoke":
        title += _framed(axes, results, [*found, *printed_points(model)])
    axes.set_title(title, fontsize="medium")


def _framed(axes: Any, results: Results, shown: Sequence[Point]) -> str:
    """Leave the worst networks out of the frame, which would flatten all others; says how many."""
    reach, higher = REACH[results.table.printed.unit], _higher(results)
    values = [point.value for point in shown]
    if higher:
        edge = max(values) - reach
        axes.set_ylim(bottom=max(edge, min(values) - 0.05 * reach))
    else:
        edge = min(values) + reach
        axes.set_ylim(top=min(edge, max(values) + 0.05 * reach))
    outside = sum(value < edge if higher else value > edge for value in values)
    return f", {outside} worse outside the frame" if outside else ""


def _model(results: Results) -> str:
    return next(dict(entry.cell)["model"] for entry in results.entries)


def _spoken(results: Results, found: Sequence[Point]) -> str:
    stored = [point for point in found if point.family != "published"]
    beaten = dominators(stored, _higher(results))
    front = sorted((p for p, other in zip(stored, beaten, strict=True) if other is None), key=lambda p: p.bytes)
    told = "; ".join(f"{point.label} {point.bytes:,.0f} bytes {point.value:.4g}" for point in front)
    axes = f"bytes and {headline_of(results.table).unit.caption}"
    about = f"{_model(results)} at scale {results.scale}: {len(found)} networks by {axes}."
    return f"{about} On the front, from small to large: {told}."


def clipping_figure(results: Results, layer: str = "conv2", bits: Sequence[int] = (8, 4, 2)) -> Any:
    """Mean squared error of one channel of the float network along c, relative to that of c = 1.

    Args:
        results: of the CNN's table; the network is the first float run, from the store of the results' scale.
        layer: whose first channel is shown.
        bits: one line each.
    """
    entry = next((entry for entry in results.matching(method="float") if entry.usable), None)
    if entry is None:
        return sentence("The float network is not recorded, so there is nothing to draw.")
    try:
        network = trained_model(entry.trial, Store.for_scale(results.scale), new_model)
    except FileNotFoundError:  # records travel with the book, weights of large scales do not
        return sentence("The weights of the float network are not on this machine, so there is nothing to draw.")
    weight = network.get_submodule(layer).get_parameter("weight").detach()[:1]
    errors = {each: _errors(weight, each) for each in bits}

    def draw(canvas: Figure) -> None:
        axes = canvas.add_subplot()
        for each, values in errors.items():
            axes.plot(FACTORS, [value / values[0] for value in values], label=f"{each} bits")
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set(yscale="log", xlabel="c", ylabel="squared error, over that of c = 1")
        axes.legend()

    best = {each: FACTORS[values.index(min(values))] for each, values in errors.items()}
    told = ", ".join(f"{each} bits at c = {factor:.2f}" for each, factor in best.items())
    return themed(draw, (6, 3.2), f"Error of rounding one channel of {layer} along c. The least: {told}.")


def _errors(weight: Tensor, bits: int) -> list[float]:
    whole = symmetric_scales(weight, bits)
    scales = [factor * whole for factor in FACTORS]
    return [float((integer_codes(weight, s, bits) * s.item() - weight).square().mean()) for s in scales]


# --- claims, fixed before any run -------------------------------------------------------------------------


def not_dominated(results: Results) -> list[Comparison]:
    """C7: each safe network of the sweep is better than the best rounded or QAT network of at most its bytes.

    Paired by seed: size and result of both are those of the seed. Where no rival is as small, there is nothing to
    compare, and the seed counts for neither side.
    """
    higher, found = _higher(results), points(results)
    rivals = [point for point in found if point.family in RIVALS]
    gammas = {entry.cell["gamma"] for entry in results.entries if entry.cell["method"] == "default_safe"}
    made = []
    for gamma in sorted(gammas):
        label = _label({"gamma": gamma, "method": "default_safe"}, "default_safe")
        mine = next((point for point in found if point.label == label), None)
        if mine is None:
            made.append(Comparison(f"{label} - best rival", None))
            continue
        best = {seed: _best_of(rivals, seed, size, higher) for seed, size in mine.sizes.items()}
        against = {seed: value for seed, value in best.items() if value is not None}
        if against or not rivals:
            made.append(
                Comparison(f"{label} - best rival", paired(mine.samples, against) or None, ">" if higher else "<")
            )
    return made


def _best_of(rivals: Sequence[Point], seed: int, budget: float, higher: bool) -> float | None:
    values = [point.samples[seed] for point in rivals if point.sizes.get(seed, budget + 1) <= budget]
    return (max if higher else min)(values, default=None)


def rounding_suffices(results: Results) -> list[Comparison]:
    """Rounding to 8 bits: less than half of the safe network's soft bytes, result within the margin of a cell."""
    margin = 0.5 if _higher(results) else 0.05
    found = {(point.family, point.label): point for point in points(results)}
    safe = found.get(("published", _label({"method": "safe"}, "published")))
    rounded = found.get(("ptq", _label({"method": "ptq", "bits": 8}, "ptq")))
    if safe is None or rounded is None:
        return [Comparison("8-bit rounding against safe", None)]
    ratio = {seed: rounded.sizes[seed] / safe.sizes[seed] - 0.5 for seed in rounded.sizes.keys() & safe.sizes.keys()}
    worse = paired(rounded.samples, safe.samples)
    side, edge = (">", margin) if _higher(results) else ("<", -margin)
    return [
        Comparison("bytes: 8-bit rounding / safe (soft) - 0.5", ratio, "<"),
        Comparison(f"8-bit rounding - safe {edge:+g}", shift(worse, edge), side),
    ]


def _table(identifier: str, title: str, model: str) -> Table:
    metric, unit = UNITS[model]
    printed = PrintedTable(
        "safety", identifier, f"{title} (not in the paper)", {"name": metric, "unit": unit}, None, None, ()
    )
    claims = claims_of(
        "safety", identifier,
        ("a", "At every weight of the penalty, safe self-compression is better than rounding and quantisation-aware "
         "training at no more bytes.", "ours", f"{model}, our setting, gamma sweep", not_dominated, "small"),
        ("b", "Rounding the float network to 8 bits takes less than half of the bytes that the published setting "
         "reports for the safe one, with a result at most a cell's margin worse.", "ours",
         f"{model}, published setting", rounding_suffices, "small"),
    )  # fmt: skip
    choices: dict[str, tuple] = {"methods": METHODS, "gammas": ()}
    return Table("safety", identifier, title, printed, claims, _grid(model), choices, across=(), measures=("last",),
                 page="pareto")  # fmt: skip


TABLES = {
    "pareto": _table("pareto", "The CNN against other ways to make it small", "mnist_cnn"),
    "pareto_decoder": _table("pareto_decoder", "The decoder against other ways to make it small", "names_decoder"),
}
