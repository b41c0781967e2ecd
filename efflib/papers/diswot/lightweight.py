"""Boards of table 3.6: printed costs beside counted ones, where the saving comes from, and what it does to accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from IPython.display import HTML

from efflib.papers.diswot.arms import NETWORKS, SIZES
from efflib.papers.diswot.costs import Cost, cost, recorded
from efflib.papers.diswot.tables import ACCURACIES, PRINTED
from efflib.report.audit import exact, half_up
from efflib.report.figures import themed
from efflib.report.html import html_table, sentence
from efflib.report.verdict import interval_text, paired

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.trials import Results

SIDES = (64, 96, 128, 160, 192, 224)
EQUAL, CUT_OFF = "equal", "equal, decimals cut off"
NEIGHBOUR = "nearest_neighbour"
# Rows of the page: words -> role and method; the nearest neighbour has neither.
ROWS = {
    "teacher": ("teacher", "baseline"),
    "student, LRP + cosine": ("best", "lrp_cosine"),
    "student, KD": ("best", "kd"),
    "student alone": ("best", "baseline"),
    "nearest neighbour": ("", ""),
}
TITLES = {"last": "all test images", "leak_free": "leak-free test images"}


# --- costs ------------------------------------------------------------------------------------------------


def compared(printed: Decimal, counted: Decimal) -> str:
    """Whether a printed number is the counted one: equal, equal where decimals were cut off, or by how much not."""
    if printed == counted:
        return EQUAL
    if printed == math.floor(counted):
        return CUT_OFF
    return f"not equal ({100 * (printed / counted - 1):+.2f} %)"


# Column of table 3.6 (its printed table) -> what is counted, how, as text. "MACs" are read in two ways.
_COUNTED: tuple[tuple[str, str, str, Callable[[Cost], Decimal], str], ...] = (
    ("table3_6_parameters", "parameters", "Keras total", lambda own: Decimal(own.keras_parameters), ",.0f"),
    ("table3_6_parameters", "parameters", "trained ones alone", lambda own: Decimal(own.parameters), ",.0f"),
    ("table3_6_flops", "FLOPs", "TensorFlow profiler's count", lambda own: Decimal(own.profiler_flops), ",.0f"),
    ("table3_6_macs", "MACs", "half of the profiler's FLOPs", lambda own: Decimal(own.profiler_flops) / 2, ",.0f"),
    ("table3_6_macs", "MACs", "multiply-accumulates", lambda own: Decimal(own.macs), ",.0f"),
    (
        "table3_6_size",
        "size, MB",
        "4 bytes each, Keras total",
        lambda own: Decimal(4 * own.keras_parameters) / 10**6,
        ".2f",
    ),
)


def printed_rows() -> list[dict[str, str]]:
    """Every printed cost of table 3.6, beside each way of counting it on the built network, with an exact verdict."""
    rows = []
    for role, name in NETWORKS.items():
        for table, what, how, count, form in _COUNTED:
            printed, counted = exact(PRINTED[table].cell(model=name).value), count(cost(name))
            rows.append(
                {
                    "network": role,
                    "number": what,
                    "printed": f"{int(printed):,}",
                    "counted as": how,
                    "counted": f"{counted:{form}}",
                    "verdict": compared(printed, counted),
                }
            )
    return rows


def printed_table() -> HTML:
    """The rows of `printed_rows` as a page's table."""
    return HTML(html_table(printed_rows(), "Printed and counted, at 224 px", "diswot-table3_6-counts"))


_ATTRIBUTES = {
    "parameters, trained": "parameters",
    "parameters, Keras total": "keras_parameters",
    "of them backbone": "backbone_keras_parameters",
    "profiler's FLOPs": "profiler_flops",
    "multiply-accumulates": "macs",
    "size, MB": "megabytes",
    "memory access, elements": "memory_access",
    "of it backbone": "backbone_memory_access",
}


def networks_table(image_size: int = 224) -> HTML:
    """Table: a row per network with everything counted, and what the student saves."""
    rows: list[dict[str, str]] = [
        {"network": f"{role}, {name}"}
        | {what: _number(getattr(cost(name, image_size), a)) for what, a in _ATTRIBUTES.items()}
        for role, name in NETWORKS.items()
    ]
    rows.append({"network": "saved, %"} | {what: f"{saved(image_size, a):.2f}" for what, a in _ATTRIBUTES.items()})
    caption = f"Both networks, counted on the built networks at {image_size} px"
    return HTML(html_table(rows, caption, "diswot-table3_6-networks"))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{half_up(Decimal(value))}"


def saved(image_size: int, attribute: str) -> float:
    """Percent by which a cost of the student lies below the teacher's, both built for images of one size.

    Args:
        image_size: pixels, a multiple of 32.
        attribute: of `efflib.papers.diswot.costs.Cost`.
    """
    teacher, student = (getattr(cost(name, image_size), attribute) for name in NETWORKS.values())
    return 100 * (1 - student / teacher)


def heads_table() -> HTML:
    """Table: parameters and multiply-accumulates of both networks, part by part: where the difference is."""
    parts = {role: _parts(name) for role, name in NETWORKS.items()}
    rows = []
    for (part, teacher), (_, student) in zip(*(own.items() for own in parts.values()), strict=True):
        rows.append(
            {"part": part, **_both("parameters", teacher[0], student[0]), **_both("MACs", teacher[1], student[1])}
        )
    caption = "Parts of both networks at 224 px; parameters as Keras totals"
    return HTML(html_table(rows, caption, "diswot-table3_6-heads"))


def _parts(name: str) -> dict[str, tuple[int, int]]:
    """Part -> (parameters, multiply-accumulates); biases included."""
    whole, own = recorded(name), cost(name)
    dense = whole.dense
    backbone = own.backbone_keras_parameters, own.macs - sum(layer.macs for layer in dense)
    layers = {f"dense layer {n}": (layer.weights + layer.outputs[0], layer.macs) for n, layer in enumerate(dense, 1)}
    return {"backbone": backbone, **layers, "all": (own.keras_parameters, own.macs)}


def _both(what: str, teacher: int, student: int) -> dict[str, str]:
    numbers = {"teacher": teacher, "student": student, "difference": teacher - student}
    return {f"{what}, {name}": f"{number:,}" for name, number in numbers.items()}


_SAVED = {
    "parameters": "keras_parameters",
    "profiler's FLOPs": "profiler_flops",
    "multiply-accumulates": "macs",
    "memory access": "memory_access",
}
_DRAWN = ("parameters", "memory access", "multiply-accumulates")  # the profiler's FLOPs would lie on the last


def sides_rows(sides: Iterable[int] = SIDES) -> list[dict[str, Any]]:
    """What the student saves, in percent, for images of several sides."""
    return [{"side, px": side} | {what: saved(side, a) for what, a in _SAVED.items()} for side in sides]


def sides_figure() -> Any:
    """Figure: what the student saves against the side of the images."""
    rows = sides_rows()

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for what, marker in zip(_DRAWN, "osD", strict=True):
            axes.plot([row["side, px"] for row in rows], [row[what] for row in rows], f"{marker}-", label=what)
        axes.set(xlabel="side of the images, px", ylabel="saved by the student, %", xticks=SIDES, ylim=(0, None))
        figure.legend(loc="outside lower center", ncols=4, fontsize="small")

    told = "; ".join(
        f"{row['side, px']} px: " + ", ".join(f"{what} {row[what]:.1f}" for what in _DRAWN) for row in rows
    )
    return themed(draw, (7, 3.6), f"Percent saved by global averaging in place of flattening. {told}")


def sides_table() -> HTML:
    """The numbers of `sides_figure`."""
    rows = [{name: str(v) if name == "side, px" else f"{v:.2f}" for name, v in row.items()} for row in sides_rows()]
    return HTML(html_table(rows, "Saved by the student, %, by side of the images", "diswot-table3_6-sides"))


# --- accuracy ---------------------------------------------------------------------------------------------


def keys_of(results: Results, row: str) -> dict[str, Any]:
    """Keys of the cell that stands in a row of `ROWS`, at the results' scale."""
    role, method = ROWS[row]
    if not role:
        return {"model": NEIGHBOUR}
    size = SIZES[results.scale]
    return {"model": getattr(size, role).name, "method": method, "epochs": size.lengths[-1]}


def samples(results: Results, row: str, metric: str) -> dict[int, float]:
    """seed -> accuracy of a row of `ROWS`."""
    return results.samples(metric=metric, **keys_of(results, row))


def accuracy_table(results: Results) -> Any:
    """Table: accuracy of every row on all and on leak-free test images, and its distance to the nearest neighbour."""
    rows = []
    for row in ROWS:
        found = {metric: samples(results, row, metric) for metric in ACCURACIES}
        if any(found.values()):
            shown = {TITLES[metric]: interval_text(values, 2) for metric, values in found.items()}
            above = _above_neighbour(results, found if ROWS[row][0] else {})
            rows.append({"row": row, "printed": _printed(row), **shown, **above})
    if not rows:
        return sentence(f"No accuracy is recorded at scale {results.scale} yet.")
    caption = f"Accuracy in % at scale {results.scale}, mean ± half the 95 % interval (seeds)"
    return HTML(html_table(rows, caption, "diswot-table3_6-accuracies"))


def _printed(row: str) -> str:
    role, method = ROWS[row]
    cells = [c for c in PRINTED["table3_6"].cells if c.keys["method"] == method]
    cells = [c for c in cells if role and c.keys["model"] == getattr(SIZES["paper"], role).name]
    return f"{cells[0].value:.2f}" if cells else ""


def _above_neighbour(results: Results, found: Mapping[str, Mapping[int, float]]) -> dict[str, str]:
    """A row's accuracies less those of the nearest neighbour, which has no seed: one bar for all of them."""
    above = {}
    for metric, values in found.items():
        bar = list(samples(results, "nearest neighbour", metric).values())
        apart = {seed: value - bar[0] for seed, value in values.items()} if bar else {}
        above[f"less nearest neighbour, {TITLES[metric]}"] = interval_text(apart, 2, signed=True) if apart else ""
    return above


_PAIRS: tuple[tuple[str, str, str], ...] = (
    ("teacher", "student, LRP + cosine", "what the saving costs (printed: 2.67)"),
    ("teacher", "student alone", "flattening in place of averaging, nothing else"),
    ("student, LRP + cosine", "student alone", "teacher, maps and relations: all of the distillation"),
    ("student, KD", "student alone", "the teacher's softened outputs"),
    ("student, LRP + cosine", "student, KD", "maps and relations on top of them"),
)


def differences_table(results: Results) -> Any:
    """Table: differences between the rows, paired by seed, on all and on leak-free test images."""
    rows = []
    for one, other, what in _PAIRS:
        apart = {m: paired(*(samples(results, row, m) for row in (one, other))) for m in ACCURACIES}
        if any(apart.values()):
            shown = {TITLES[metric]: interval_text(values, 2, signed=True) for metric, values in apart.items()}
            rows.append({"difference": f"{one} less {other}", "what it is": what, **shown})
    if not rows:
        return sentence(f"No two rows have a seed in common at scale {results.scale} yet.")
    caption = f"Points of accuracy at scale {results.scale}, paired by seed, mean ± half the 95 % interval (seeds)"
    return HTML(html_table(rows, caption, "diswot-table3_6-differences"))
