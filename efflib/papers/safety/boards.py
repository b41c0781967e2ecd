"""What the pages of tables I and II show beside their table: sizes, controls, restorations, curves, names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import HTML, Markdown

from efflib.data import NORMALISATION
from efflib.data.names import (
    NAME_LISTS,
    PROTOCOLS,
    VOCABULARY,
    NamePart,
    already_seen,
    ngram_cross_entropy,
    shared_beginnings,
)
from efflib.models import create_model, shapes_only
from efflib.papers.pictures import trained_model
from efflib.papers.safety import arms
from efflib.papers.safety.drift import Optimiser, bits_after
from efflib.papers.safety.preservation import preserved_names
from efflib.papers.safety.recipes import (
    CODE_SHARE,
    PRESERVED_NAMES,
    CompressionConfig,
    new_model,
    preset_of,
    training_images,
)
from efflib.papers.safety.selection import REASONS, score_images, select
from efflib.report.figures import image_grid, one_legend, themed
from efflib.report.html import html_table, sentence
from efflib.report.measures import Measure, headline_of
from efflib.report.verdict import CLAIM_VERDICTS, interval, interval_text, paired
from efflib.trials import collect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.report.notebook import TablePage
    from efflib.trials import Results, Store, Trial

Cell = dict[str, Any]
Samples = dict[int, float]

NAMES = {
    "float": "float",
    "float_half": "float, half as many steps",
    "unsafe": "unsafe",
    "safe": "safe",
    "safe_random": "safe, random set",
    "extra_batch": "extra batch",
    "safe_leaking": "safe, set from the test images",
    "default_unsafe": "our setting, unsafe",
    "default_safe": "our setting, safe",
}
# Pairs (one, other) of the published setting, and what their difference is made of.
CONTRASTS = (
    ("unsafe", "float", "quantisation and the penalty"),
    ("safe", "unsafe", "the preservation set, as the paper compares"),
    ("safe", "extra_batch", "preserved examples in place of as many more ordinary ones"),
    ("safe", "safe_random", "the selection of the set"),
    ("extra_batch", "unsafe", "more data per step, nothing preserved"),
    ("safe_leaking", "safe", "a set taken from the test images"),
    ("float", "float_half", "training for twice as many steps"),
)
SHOWN_GAMMA = 0.1  # the figure shows the recorded gamma next to it
ORDERS = range(4)  # letters before, of the counts that the list of names is judged by


# --- runs and their numbers -------------------------------------------------------------------------------


def cells(results: Results) -> list[Cell]:
    """The cells that have a usable record, once each, in the order of the grid."""
    found = [dict(entry.cell) for entry in results.entries if entry.usable]
    return [cell for place, cell in enumerate(found) if cell not in found[:place]]


def compressed(results: Results) -> list[Cell]:
    """Those of networks that compress themselves."""
    return [cell for cell in cells(results) if _trial(results, cell).recipe == "self_compression"]


def named(cell: Mapping[str, Any]) -> str:
    """A run in words, e.g. "our setting, safe, gamma 0.1"."""
    gamma = f", gamma {cell['gamma']:g}" if "gamma" in cell else ""
    return NAMES[cell["method"]] + gamma


def _trial(results: Results, cell: Cell) -> Trial:
    return next(entry.trial for entry in results.entries if dict(entry.cell) == cell and entry.usable)


def _metric(results: Results, cell: Cell, name: str) -> Samples:
    return results.samples(metric=name, **cell)


def _bytes(samples: Samples) -> str:
    """Mean ± half the 95 % interval (seeds), with thousands separators."""
    if not samples:
        return ""
    found = interval(samples)
    spread = "" if found.half_width is None else f" ± {found.half_width:,.0f}"
    return f"{found.mean:,.0f}{spread} ({found.n})"


def _table(results: Results, rows: Sequence[Mapping[str, Any]], caption: str, name: str) -> HTML:
    if not rows:
        return sentence(f"No run of this kind is recorded at scale {results.scale} yet.")
    told = f"{caption}. Scale {results.scale}; mean ± half the 95 % interval (seeds)"
    return HTML(html_table(_without_empty(rows), told, f"safety-{results.table.id}-{name}"))


def _without_empty(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows less the columns in which none has a text."""
    kept = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    return [{name: row[name] for name in kept} for row in rows]


# --- the optimiser alone ----------------------------------------------------------------------------------


def alone(trial: Trial) -> np.ndarray:
    """Bytes that the optimiser alone leaves after 0, 1, ... steps of a run, with its network and its setting.

    Nothing is clipped and the penalty is the only gradient of the bits, as in `efflib.papers.safety.drift`. Where the
    rates fall at the end, single precision is left out: each step is the rate.

    Args:
        trial: of recipe "self_compression".

    Returns:
        (steps + 1,) float64.
    """
    settings: Any = trial.settings
    options = tuple(sorted(settings.model_options.items()))
    groups, scalars = _groups(settings.model, options)
    total = np.zeros(settings.steps + 1)
    for inputs, weights in groups:
        denominator = scalars if settings.norm == "all_params" else sum(count for _, count in groups)
        total += weights * np.maximum(_bits_alone(settings, settings.gamma * inputs / denominator), 0) / 8
    return total


def _bits_alone(settings: CompressionConfig, gradient: float) -> np.ndarray:
    if settings.cosine_tail:
        factor = preset_of(settings).rate_factor
        rates = [settings.lr_bits * factor(step) for step in range(settings.steps)]
        return settings.bits - np.concatenate([[0.0], np.cumsum(rates)])
    decay = settings.weight_decay if settings.decay == "all" else 0.0
    optimiser = Optimiser(settings.optimiser, settings.lr_bits, decay, eps=settings.eps_bits)
    return _drifted(settings.steps, gradient, optimiser, settings.bits)


@lru_cache(maxsize=64)
def _drifted(steps: int, gradient: float, optimiser: Optimiser, bits: float) -> np.ndarray:
    return bits_after(steps, gradient, optimiser, bits).astype(np.float64)


@lru_cache(maxsize=8)
def _groups(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[tuple[tuple[int, int], ...], int]:
    """((weights per channel, weights of all such layers), ...) of a network, and its scalars, bits included."""
    with shapes_only():
        network = create_model(name, len(VOCABULARY) if name == "names_decoder" else 10, **dict(options))
    names: Any = network.quantizable
    layers = [network.get_submodule(layer).get_parameter("weight") for layer in names]
    groups: dict[int, int] = {}
    for weight in layers:
        groups[weight[0].numel()] = groups.get(weight[0].numel(), 0) + weight.numel()
    scalars = sum(parameter.numel() for parameter in network.parameters()) + 2 * sum(len(weight) for weight in layers)
    return tuple(groups.items()), scalars


def quantised_weights(trial: Trial) -> int:
    """Weights that the papers' size counts."""
    settings: Any = trial.settings
    groups, _ = _groups(settings.model, tuple(sorted(settings.model_options.items())))
    return sum(weights for _, weights in groups)


# --- sizes ------------------------------------------------------------------------------------------------


def sizes_table(results: Results) -> HTML:
    """Every run's size by the four measures, beside what the optimiser alone leaves after as many steps."""
    rows = []
    for cell in cells(results):
        trial, soft = _trial(results, cell), _metric(results, cell, "soft_bytes")
        ends = float(alone(trial)[-1]) if trial.recipe == "self_compression" else math.nan
        apart = {} if math.isnan(ends) or not ends else {s: 100 * (size / ends - 1) for s, size in soft.items()}
        rows.append(
            {
                "run": named(cell),
                "steps": f"{trial.config['steps']:,}",
                "soft bytes": _bytes(soft),
                "optimiser alone": "" if math.isnan(ends) else f"{ends:,.0f}",
                "apart, %": interval_text(apart, 3, signed=True),
                "chain bytes": _bytes(_metric(results, cell, "chain_bytes")),
                "tight bytes": _bytes(_metric(results, cell, "tight_bytes")),
                "file bytes": _bytes(_metric(results, cell, "file_bytes")),
            }
        )
    caption = "Sizes of each run; of the float network, soft counts its quantisable weights at 32 bits, file all of it"
    return _table(results, rows, caption, "sizes")


def tighten_table(results: Results) -> HTML:
    """Tightening alone: the same codes in whole bits, result and size before and after."""
    measure = headline_of(results.table)
    rows = []
    for cell in compressed(results):
        before, after = _metric(results, cell, "last"), _metric(results, cell, "tightened_test")
        soft, tight = _metric(results, cell, "soft_bytes"), _metric(results, cell, "tight_bytes")
        ratio = {seed: 100 * tight[seed] / soft[seed] for seed in tight.keys() & soft.keys() if soft[seed]}
        rows.append(
            {
                "run": named(cell),
                "as trained": measure.text(_interval(before)),
                "tightened": measure.text(_interval(after)),
                "difference": interval_text(paired(after, before), measure.decimals + 1, signed=True),
                "soft bytes": _bytes(soft),
                "tight bytes": _bytes(tight),
                "tight / soft, %": interval_text(ratio, 1),
            }
        )
    return _table(results, rows, f"Tighten only: {measure.unit.caption}, and size, before and after", "tighten")


def _interval(samples: Samples) -> Any:
    return interval(samples) if samples else None


def size_headline(page: TablePage) -> Markdown | None:
    """One sentence on the size claims and the drift at the largest recorded scale; nothing without records."""
    if not page.recorded:
        return None  # an empty output would show its own name
    shown = page.show_scale()
    counts = {name: sum(v.verdict == name for _, v in shown.claims) for name in CLAIM_VERDICTS}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    parts = []
    for cell in compressed(shown.results):
        ends = float(alone(_trial(shown.results, cell))[-1])
        soft, tight = (_metric(shown.results, cell, f"{name}_bytes") for name in ("soft", "tight"))
        apart = max(abs(100 * (size / ends - 1)) for size in soft.values())
        part = 100 * fmean(tight.values()) / fmean(soft.values())
        parts.append(
            f"- `{cell['method']}`: {fmean(soft.values()):,.0f} bytes as the paper counts, {apart:.2g} % at most from "
            f"what the optimiser alone gives after as many steps; {part:.0f} % of them hold the codes"
        )
    return Markdown("\n".join([f"**The sizes:** of {len(shown.claims)} claims, {told}.", "", *parts]))


# --- controls, restorations, accuracies -------------------------------------------------------------------


def controls_table(results: Results) -> HTML:
    """Differences that take the method apart, paired by seed, in both settings."""
    measure = headline_of(results.table)
    pairs = [({"method": one}, {"method": other}, what) for one, other, what in CONTRASTS]
    gammas = dict.fromkeys(cell["gamma"] for cell in cells(results) if "gamma" in cell)
    for gamma in gammas:
        one, other = ({"method": f"default_{name}", "gamma": gamma} for name in ("safe", "unsafe"))
        pairs.append((one, other, "the preservation set, where bits are learned"))
    rows = []
    for one, other, what in pairs:
        difference = paired(_metric(results, one, "last"), _metric(results, other, "last"))
        if difference:
            text = measure.text(interval(difference), signed=True)
            rows.append({"difference": f"{named(one)} - {named(other)}", "what it is made of": what, "measured": text})
    better = "negative is better" if measure.unit.lower_is_better else "positive is better"
    return _table(results, rows, f"Differences in {measure.unit.difference}, {better}", "controls")


def restorations_table(results: Results) -> HTML:
    """What monitoring did in each run that has a preservation set to watch, zeros included."""
    rows = []
    for cell in compressed(results):
        settings: Any = _trial(results, cell).settings
        if settings.restoration is None:
            continue
        watched: dict[str, Any] = {
            "run": named(cell),
            "trigger": _trigger(settings.restoration),
            "rule": "published" if settings.restoration["mode"] == "two_bits" else "ours",
        }
        for title, name, digits in (
            ("checks", "checks", 0),
            ("checks that gave bits back", "violations_restored", 1),
            ("channels restored", "channels", 1),
            ("mean bits given back", "mean_bits_given_back", 2),
            ("dead channels at the end", "dead_channels", 1),
        ):
            watched[title] = interval_text(_metric(results, cell, name), digits)
        rows.append(watched)
    return _table(results, rows, "Restorations", "restorations")


def _trigger(rule: Mapping[str, Any]) -> str:
    reference = "the best check" if rule["trigger"] == "best" else "the last check"
    unit = ("point" if rule["tolerance"] == 1 else "points") if rule["higher_is_better"] else "nats"
    return f"worse than {reference} by more than {rule['tolerance']:g} {unit}"


def accuracies_table(results: Results) -> HTML:
    """Test, training and preserved examples; of the CNN also by batch statistics, as the published code tests."""
    measure = headline_of(results.table)
    rows = []
    for cell in cells(results):
        test, train = _metric(results, cell, "last"), _metric(results, cell, "train")
        gap = paired(test, train) if measure.unit.lower_is_better else paired(train, test)
        rows.append(
            {
                "run": named(cell),
                "test": measure.text(_interval(test)),
                "training": measure.text(_interval(train)),
                "gap": interval_text(gap, measure.decimals, signed=True),
                "preservation set": measure.text(_interval(_metric(results, cell, "preservation"))),
                "test, batch statistics": measure.text(_interval(_metric(results, cell, "test_batch_statistics"))),
            }
        )
    caption = f"{measure.unit.caption} after the last step; gap: how much worse on test than on training examples"
    return _table(results, rows, caption, "accuracies")


def own_table(results: Results) -> HTML:
    """Our own setting: what each penalty leaves, beside what the optimiser alone would leave."""
    measure = headline_of(results.table)
    rows = []
    for cell in compressed(results):
        if "gamma" not in cell:
            continue
        trial = _trial(results, cell)
        weights = quantised_weights(trial)
        rows.append(
            {
                "run": named(cell),
                measure.unit.caption: measure.text(_interval(_metric(results, cell, "last"))),
                "bits per weight": interval_text(_metric(results, cell, "mean_bits")),
                "optimiser alone, bits": f"{8 * float(alone(trial)[-1]) / weights:.2f}",
                "soft bytes": _bytes(_metric(results, cell, "soft_bytes")),
                "tight bytes": _bytes(_metric(results, cell, "tight_bytes")),
                "file bytes": _bytes(_metric(results, cell, "file_bytes")),
                "dead channels": interval_text(_metric(results, cell, "dead_channels"), 1),
            }
        )
    return _table(results, rows, "Our own setting, where bits are learned", "own")


# --- curves -----------------------------------------------------------------------------------------------


def curve(results: Results, cell: Cell, name: str) -> tuple[list[float], list[float]]:
    """Steps and the mean over seeds of a noted number; both empty if no record has it."""
    records = [e.record for e in results.entries if e.usable and dict(e.cell) == cell and e.record is not None]
    found = [r.metrics["curves"] for r in records if name in r.metrics.get("curves", {})]
    if not found:
        return [], []
    values = [fmean(column) for column in zip(*(each[name] for each in found), strict=True)]
    return found[0]["step"][-len(values) :], values


def curves_figure(results: Results) -> HTML:
    """Figure: size and result over the steps, above in the published setting, below in ours."""
    lines = [line for line in (_published(results), _own(results)) if line]
    if not lines:
        return sentence(f"No run that compresses itself is recorded at scale {results.scale} yet.")
    measure = headline_of(results.table)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(lines), 2, squeeze=False)
        for (left, right), shown in zip(panels, lines, strict=True):
            _sizes_panel(left, results, shown[0])
            _results_panel(right, results, shown)
            title = named(shown[0]) if "gamma" in shown[0] else f"published setting, {named(shown[0])}"
            left.set(title=title, xlabel="steps", ylabel="size, kB", ylim=(0, None))
            right.set(title="results", xlabel="steps", ylabel=measure.unit.caption)
        one_legend(figure, 4)

    return themed(draw, (9, 1 + 3 * len(lines)), _spoken(results, lines, measure))


def _published(results: Results) -> list[Cell]:
    found = {cell["method"]: cell for cell in cells(results) if "gamma" not in cell}
    if "safe" not in found:
        return []
    return [found[method] for method in ("safe", "unsafe", "float") if method in found]


def _own(results: Results) -> list[Cell]:
    own = [cell for cell in cells(results) if cell["method"] == "default_safe"]
    if not own:
        return []
    chosen = min(own, key=lambda cell: abs(math.log(cell["gamma"] / SHOWN_GAMMA)))
    other = {**chosen, "method": "default_unsafe"}
    return [chosen, *([other] if other in cells(results) else [])]


def _sizes_panel(axes: Any, results: Results, cell: Cell) -> None:
    for number, name in enumerate(("soft", "tight")):
        steps, sizes = curve(results, cell, f"{name}_bytes")
        axes.plot(steps, [size / 1000 for size in sizes], f"C{number}o-", markersize=3, label=f"{name} size")
    ends = alone(_trial(results, cell)) / 1000
    places = np.unique(np.linspace(0, len(ends) - 1, 200).astype(int))
    axes.plot(places, ends[places], "--", color="grey", label="optimiser alone")


def _results_panel(axes: Any, results: Results, shown: Sequence[Cell]) -> None:
    for number, cell in enumerate(shown):
        kind = cell["method"].removeprefix("default_")
        axes.plot(*_after_start(curve(results, cell, "test")), f"C{2 + number}o-", markersize=3, label=f"test, {kind}")
    steps, values = _after_start(curve(results, shown[0], "preservation"))
    axes.plot(steps, values, "C6s:", markersize=3, label="preservation set, safe")


def _after_start(line: tuple[list[float], list[float]]) -> tuple[list[float], list[float]]:
    """Without step 0: guessing would set the scale."""
    kept = [(step, value) for step, value in zip(*line, strict=True) if step]
    return [step for step, _ in kept], [value for _, value in kept]


def _spoken(results: Results, lines: Sequence[Sequence[Cell]], measure: Measure) -> str:
    parts = []
    for shown in lines:
        first, last = (curve(results, shown[0], "soft_bytes")[1][place] for place in (0, -1))
        tight = curve(results, shown[0], "tight_bytes")[1][-1]
        ends = "; ".join(
            f"{named(cell)} {curve(results, cell, 'test')[1][-1]:.{measure.decimals}f}"
            for cell in shown
            if curve(results, cell, "test")[1]
        )
        parts.append(
            f"{named(shown[0])}: soft size from {first:,.0f} to {last:,.0f} bytes, tight size {tight:,.0f} at the end, "
            f"optimiser alone {alone(_trial(results, shown[0]))[-1]:,.0f}; {measure.unit.caption} at the end: {ends}"
        )
    return f"Size and result over the steps at scale {results.scale}. " + ". ".join(parts)


# --- preserved images -------------------------------------------------------------------------------------

_WHY = {"evidence": "wide evidence", "uncertain": "small margin", "diverse": "near a centre"}


def preserved_strip(results: Results, store: Store, images: int = 8) -> HTML:
    """Figure: the first preserved images of each kind in the first seed's safe run, chosen anew by its float twin."""
    safe = [cell for cell in cells(results) if cell["method"] == "safe"]
    if not safe:
        return sentence(f"No safe run is recorded at scale {results.scale} yet.")
    trial = _trial(results, safe[0])
    settings: Any = trial.settings
    judge = trained_model(trial.parents["float"], store, new_model)
    train, _, _ = training_images(settings)
    convolutions: Any = judge.quantizable
    scores = score_images(judge, train, *NORMALISATION[settings.dataset], convolutions[-1])
    chosen = select(scores, int(CODE_SHARE * len(train) + 0.5), len(train.classes), settings.seed)
    rows = []
    for reason in REASONS:
        places = [int(p) for p, why in zip(chosen.positions, chosen.reasons, strict=True) if why == reason]
        rows.append([np.broadcast_to(train.images[place], (28, 28, 3)) for place in places[:images]])
    labels = [f"{_WHY[reason]}\n{chosen.counts()[reason]} images" for reason in REASONS]
    alt = f"Preserved images of {settings.dataset}, {images} of each kind: " + "; ".join(labels).replace("\n", ", ")
    return image_grid(rows, [""] * images, labels, alt)


# --- the list of names ------------------------------------------------------------------------------------


def list_table(dataset: str) -> HTML:
    """The list of names in both orders: how much its neighbours tell, and what counting letters achieves on it."""
    names = NAME_LISTS[dataset]()
    splits = {protocol: names.split(protocol) for protocol in PROTOCOLS}

    def row(what: str, value: Callable[[Any], float], form: str) -> dict[str, str]:
        return {"": what} | {protocol: format(value(split), form) for protocol, split in splits.items()}

    rows = []
    for part, place in (("training", 0), ("validation", 2)):
        for letters in (1, 2):
            what = f"neighbours in the {part} text that begin with the same {'letter' if letters == 1 else '2 letters'}"
            rows.append(row(what, _neighbours(place, letters), ".1%"))
    rows.append(row("validation names that are training names too", _seen, ".1%"))
    rows.append(row("loss of guessing, ln 27", lambda split: math.log(len(VOCABULARY)), ".3f"))
    for order in ORDERS:
        rows.append(row(f"loss of counting, {order} letters before", _counting(order), ".3f"))
    caption = f"The list of this page's run ({names.variant}, {len(names):,} names); losses in nats per character"
    return HTML(html_table(rows, caption, "safety-table2-list"))


def _neighbours(place: int, letters: int) -> Callable[[Sequence[NamePart]], float]:
    return lambda split: shared_beginnings(split[place].names, letters)


def _counting(order: int) -> Callable[[Any], float]:
    return lambda split: ngram_cross_entropy(split.train.tokens, split.validation.tokens, order)


def _seen(split: Any) -> float:
    return already_seen(split.validation.names, split.train.names)


def shuffled_twins(scale: str, seeds: Iterable[int]) -> list[Trial]:
    """The float decoder on shuffled names, one per seed."""
    return [arms.float_twin(scale, "names_decoder", seed, protocol="shuffled") for seed in seeds]


def protocol_table(results: Results, store: Store) -> HTML:
    """The float decoder on the list in both orders, as far as recorded."""
    stream = results.samples(model="names_decoder", method="float")
    seeds = dict.fromkeys(entry.seed for entry in results.entries)
    twins = collect(shuffled_twins(results.scale, seeds), results.scale, store=store)
    shuffled = {
        entry.seed: float(entry.record.metrics["last"])
        for entry in twins.entries
        if entry.usable and entry.record is not None
    }
    rows = [
        {
            "run": NAMES["float"],
            "stream": interval_text(stream, 3),
            "shuffled": interval_text(shuffled, 3),
            "shuffled - stream": interval_text(paired(shuffled, stream), 3, signed=True),
        }
    ]
    found = rows if stream or shuffled else []
    return _table(results, found, "Loss of the float decoder by order of the list, nats per character", "protocols")


def preserved_text(dataset: str, shown: int = 12) -> Markdown:
    """The names that are preserved first, those kept last, and how many there are."""
    part = NAME_LISTS[dataset]().split("stream").train
    count = min(PRESERVED_NAMES, len(part.names) // 10)
    chosen = preserved_names(part.names, count)
    first, last = ", ".join(chosen.names[:shown]), ", ".join(chosen.names[-shown:])
    return Markdown(
        f"Of {len(part.names):,} training names of this page's run {count:,} are preserved, "
        f"{len(chosen.text):,} characters in all. The most unusual: *{first}*. The last that are taken: *{last}*."
    )


def size_choices(methods: Sequence[str] | None) -> dict[str, Any]:
    """Choices of the size table beside those of the page: its rows are the paper's, so others are left out."""
    from efflib.papers.safety.tables import ROWS

    kept = [method for method in methods or () if method in ROWS]
    return {"methods": kept or None}
