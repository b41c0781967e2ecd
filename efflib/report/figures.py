"""Figures of the pages: drawn once for each theme, with the numbers as text beside them where that is possible."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from efflib.report.audit import label
from efflib.report.html import sentence
from efflib.report.measures import Measure, headline_of

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from efflib.report.tables import TableComparison
    from efflib.trials import Results

# Foreground of the book's light and dark pages; backgrounds stay transparent.
_INK = {"light": "#222832", "dark": "#ced6dd"}


def themed(draw: Callable[[Figure], None], size: tuple[float, float], alt: str) -> Any:
    """Draw a figure for the light and the dark page.

    Args:
        draw: draws on an empty figure; called once per theme, with matplotlib's colours set.
        size: width and height in inches.
        alt: what the figure shows, for readers who do not see it.

    Returns:
        IPython HTML with both pictures; the page shows the one of its theme.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns
    from IPython.display import HTML

    pictures = []
    for theme, ink in _INK.items():
        colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")
        style: dict[Any, Any] = {**dict.fromkeys(colours, ink), "axes.facecolor": "none", "legend.frameon": False}
        with plt.rc_context(style):
            # Saved inside the palette too: lines look up "C0" only when they are drawn.
            with sns.color_palette("colorblind"):
                figure, buffer = plt.figure(figsize=size, layout="constrained"), io.BytesIO()
                draw(figure)
                figure.savefig(buffer, format="png", dpi=130, transparent=True, metadata={"Software": None})
            plt.close(figure)
        data = base64.b64encode(buffer.getvalue()).decode()
        pictures.append(f'<img class="only-{theme}" alt="{escape(alt)}" src="data:image/png;base64,{data}">')
    return HTML("".join(pictures))


def one_legend(figure: Figure, columns: int) -> None:
    """A legend for all panels of a figure, below them, with each label once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles |= {text: line for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize="small")


def gains(comparison: TableComparison, methods: Sequence[str], names: Mapping[str, str]) -> Any:
    """Difference to the own baseline per network, data set and arm, with intervals, beside the printed gain.

    The difference is of the table's headline measure; without baseline cells there is none.

    Args:
        comparison: of one scale.
        methods: arms to show, top to bottom.
        names: arm -> words for the legend.
    """
    rows = [row for row in comparison.rows if row.gain is not None and row.keys.get("method") in methods]
    measure = headline_of(comparison.table)
    groups = list(dict.fromkeys(_setting(row) for row in rows))
    methods = [method for method in methods if any(row.keys["method"] == method for row in rows)]
    if not rows:
        return sentence(
            f"No {measure.change} is measured at scale {comparison.results.scale} yet, so there is nothing to draw."
        )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, method in enumerate(methods):
            chosen = [row for row in rows if row.keys["method"] == method]
            shift = 0.12 * (place - (len(methods) - 1) / 2)  # the arms lie around the tick of their network
            y = [groups.index(_setting(r)) + shift for r in chosen]
            _points(axes, [r.gain for r in chosen], y, names.get(method, method), f"C{place}")
            printed = [(r.printed_gain, at) for r, at in zip(chosen, y, strict=True) if r.printed_gain is not None]
            if printed:
                label = f"printed {measure.change}, {names.get(method, method)}"
                axes.plot(*zip(*printed, strict=True), "D", color=f"C{place}", fillstyle="none", label=label)
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set_yticks(range(len(groups)), groups)
        edge = 0.1 + 0.06 * max(len(methods), 6)
        axes.set_ylim(len(groups) - 1 + edge, -edge)
        told = f"difference to the own baseline, {measure.unit.difference}"
        axes.set_xlabel(f"{told} (mean and 95 % interval, paired by seed)")
        figure.legend(loc="outside lower center", ncols=2, fontsize="small")

    alt = f"{measure.change.capitalize()}s over the baseline at scale {comparison.results.scale}: "
    alt += _spoken(rows, measure)
    return themed(draw, (8, 1.2 + 0.25 * len(methods) + 0.75 * len(groups)), alt)


def _setting(row: Any) -> str:
    """What a row is about, besides its method: one line each for its keys."""
    return "\n".join(str(value) for name, value in row.keys.items() if name != "method")


def sweep(
    comparison: TableComparison, option: str, label: str, methods: Sequence[str], names: Mapping[str, str]
) -> Any:
    """Difference to the own baseline along a numeric option, one panel per data set, beside the printed gains.

    Args:
        comparison: of one scale.
        option: cell key on the horizontal axis, e.g. "masking_ratio".
        label: its words.
        methods, names: as in `gains`.
    """
    rows = [row for row in comparison.rows if option in row.keys]
    rows = [row for row in rows if row.keys.get("method") in methods and (row.gain or row.printed_gain is not None)]
    measure = headline_of(comparison.table)
    datasets = list(dict.fromkeys(row.keys["dataset"] for row in rows))
    if not any(row.gain for row in rows):
        return sentence(f"Nothing is measured along {label} at scale {comparison.results.scale} yet.")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(datasets), squeeze=False, sharey=True)[0]
        for axes, dataset in zip(panels, datasets, strict=True):
            for place, method in enumerate(methods):
                chosen = [r for r in rows if r.keys["dataset"] == dataset and r.keys["method"] == method]
                chosen.sort(key=lambda r: r.keys[option])
                if chosen:
                    _curve(axes, chosen, option, names.get(method, method), f"C{place}", f"printed {measure.change}")
            axes.axhline(0, color="grey", linewidth=0.8)
            axes.set(title=dataset, xlabel=label)
        panels[0].set_ylabel(f"difference to the own baseline,\n{measure.unit.difference}")
        one_legend(figure, 2)

    alt = f"{measure.change.capitalize()}s along {label} at scale {comparison.results.scale}: "
    alt += _spoken([row for row in rows if row.gain], measure)
    return themed(draw, (4 * max(len(datasets), 1) + 1.5, 4), alt)


def courses(results: Results, methods: Sequence[str], names: Mapping[str, str]) -> Any:
    """Test accuracy after every epoch, one line per run, one panel per network and data set.

    Nothing is selected by these curves; they tell how a run came to its last number.

    Args:
        results: of one scale.
        methods, names: as in `gains`.
    """
    runs: dict[str, dict[str, list[list[float]]]] = {}
    for entry in results.entries:
        method = str(entry.cell.get("method"))
        if entry.usable and entry.record is not None and method in methods:
            curve = entry.record.metrics.get("curves", {}).get("test", [])
            setting = label({name: value for name, value in entry.cell.items() if name != "method"})
            runs.setdefault(setting, {}).setdefault(method, []).append(curve)
    if not runs:
        return sentence(f"No run is recorded at scale {results.scale} yet, so there is nothing to draw.")
    drawn = [method for method in methods if any(method in found for found in runs.values())]  # colours as in `gains`

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
        for axes, (setting, found) in zip(panels, runs.items(), strict=True):
            for place, method in enumerate(drawn):
                for curve in found.get(method, []):
                    epochs = range(1, len(curve) + 1)
                    axes.plot(epochs, curve, color=f"C{place}", linewidth=1, label=names.get(method, method))
            axes.set(title=setting, xlabel="epoch")
        panels[0].set_ylabel("test accuracy, %")
        one_legend(figure, 2)

    told = [
        f"{setting}, {names.get(method, method)}: {', '.join(f'{max(c):.1f} and {c[-1]:.1f}' for c in curves if c)}"
        for setting, found in runs.items()
        for method, curves in found.items()
    ]
    alt = f"Test accuracy over the epochs at scale {results.scale}; best and last of each run: {'; '.join(told)}"
    return themed(draw, (max(8, 4 * len(runs)), 3.4 + 0.13 * len(drawn)), alt)


def image_grid(rows: Sequence[Sequence[np.ndarray]], columns: Sequence[str], lines: Sequence[str], alt: str) -> Any:
    """Pictures in a grid: images (H, W, 3) uint8 as they are, maps (H, W) in a perceptually even scale.

    Args:
        rows: one sequence of arrays per line.
        columns: title of each column.
        lines: label of each line.
        alt: what the figure shows.
    """
    if not rows:
        return sentence("There is no picture to show.")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(rows), len(columns), squeeze=False)
        for line, (pictures, name) in enumerate(zip(rows, lines, strict=True)):
            for axes, picture in zip(panels[line], pictures, strict=True):
                axes.imshow(picture, cmap="gray" if picture.dtype == bool else "viridis", interpolation="nearest")
                axes.set(xticks=[], yticks=[])
            panels[line][0].set_ylabel(name, fontsize="small")
        for axes, title in zip(panels[0], columns, strict=True):
            axes.set_title(title, fontsize="small")

    return themed(draw, (1.35 * len(columns), 1.35 * len(rows) + 0.3), alt)


def _points(axes: Any, intervals: Sequence[Any], y: Sequence[float], label: str, colour: str) -> None:
    """Means with their intervals; a single seed has no interval and is a point."""
    means = [i.mean for i in intervals]
    widths = [_width(i) for i in intervals]
    axes.errorbar(means, y, xerr=widths, fmt="o", markersize=4, capsize=3, color=colour, label=label)


def _curve(axes: Any, rows: Sequence[Any], option: str, label: str, colour: str, of_printed: str) -> None:
    measured = [row for row in rows if row.gain is not None]
    x = [row.keys[option] for row in measured]
    means, widths = [row.gain.mean for row in measured], [_width(row.gain) for row in measured]
    if measured:
        line = f"measured, {label}"
        axes.errorbar(x, means, yerr=widths, fmt="o-", markersize=4, capsize=3, color=colour, label=line)
    printed = [(row.keys[option], row.printed_gain) for row in rows if row.printed_gain is not None]
    if printed:
        axes.plot(*zip(*printed, strict=True), "D--", color=colour, fillstyle="none", alpha=0.8, label=of_printed)


def _width(interval: Any) -> float:
    """Half the interval; NaN, which draws nothing, where one seed gives none (0 would look exact)."""
    return float("nan") if interval.half_width is None else interval.half_width


def _spoken(rows: Sequence[Any], measure: Measure) -> str:
    parts = [f"{' '.join(map(str, row.keys.values()))} {measure.text(row.gain, signed=True)}" for row in rows]
    return "; ".join(parts) or "nothing measured yet"
