"""How measured numbers are shown: words and decimals by unit, titles of the metrics that records hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from efflib.report.audit import exact
from efflib.report.verdict import Interval

SELECTIONS = ("last", "test_best", "val_best")  # the accuracies of every run; records hold them in percent
_ACCURACIES = (*SELECTIONS, "leak_free", "train")


@dataclass(frozen=True)
class Unit:
    """Words and decimals of the numbers in one unit.

    Args:
        caption: what a table of such numbers says, e.g. "Accuracy in %".
        difference: what a difference of two is counted in, e.g. "points of accuracy".
        decimals: of measured numbers, where the paper does not print more.
        printed_decimals: at least so many of a printed number, since YAML drops trailing zeros; 0 leaves it as it is.
        lower_is_better: true of losses, sizes and costs.
    """

    caption: str
    difference: str
    decimals: int
    printed_decimals: int = 0
    lower_is_better: bool = False


UNITS = {
    "percent": Unit("Accuracy in %", "points of accuracy", 2, 2),
    "fraction": Unit("Accuracy as a fraction", "accuracy, as a fraction", 4, 2),
    "class_fraction": Unit("Precision, recall or F1 as a fraction", "precision, recall or F1", 4, 2),
    "ap": Unit("Average precision (AP)", "points of AP", 2, 2),
    "mse": Unit("Reconstruction loss (MSE)", "MSE", 4, lower_is_better=True),
    "nmse": Unit("NMSE: MSE over that of the best constant output", "NMSE", 4, lower_is_better=True),
    "nats": Unit("Loss in nats", "nats", 3, lower_is_better=True),
    "nats_per_character": Unit("Loss in nats per character", "nats per character", 3, lower_is_better=True),
    "bytes": Unit("Size in bytes", "bytes", 0, lower_is_better=True),
    "count": Unit("Number", "numbers", 0, lower_is_better=True),  # of parameters and operations
    "millions": Unit("Millions", "millions", 2, 2, lower_is_better=True),  # of parameters
    "megabytes": Unit("Size in MB (10⁶ bytes)", "MB", 2, lower_is_better=True),
    "score": Unit("DisWOT score", "score", 2, 2, lower_is_better=True),
    "cosine": Unit("Cosine of two maps", "cosine", 3),
    "share": Unit("Shares between 0 and 1", "share", 3),
}

# Metric of a record -> column title, what it was measured on, and its unit; None: the unit of the printed table.
# Metrics that are not listed appear under their own name, in the unit of the printed table.
_METRICS: dict[str, tuple[str, str, str | None]] = {
    "last": ("last", "last epoch", None),
    "test_best": ("test best", "best epoch on the test images", None),
    "val_best": ("val best", "best epoch on the held-out images", None),
    "leak_free": ("leak-free", "test images that are neither exact nor near copies of training images", None),
    "train": ("train", "training images", None),
    "class_report": ("last", "last epoch", "class_fraction"),
    "score": ("score", "mean over draws", "score"),
    "whole_megabytes": ("rounded", "", "megabytes"),
    "millions": ("rounded", "", "millions"),
    "parameters": ("counted", "", "count"),
    "cross_entropy": ("cross-entropy", "test images", "nats"),
    "train_mse": ("train MSE", "training images", "mse"),
    "test_mse": ("test MSE", "test images", "mse"),
    "train_nmse": ("train NMSE", "training images", "nmse"),
    "test_nmse": ("test NMSE", "test images", "nmse"),
    "constant_mse": ("MSE of the best constant output", "training images", "mse"),
    "class_known_mse": ("MSE if only the class is known", "training images", "mse"),
    "nearest_representative": ("nearest representative, %", "test images", "percent"),
    "cosine": ("cosine with the teacher's map", "test images", "cosine"),
    "beyond_image": ("beyond other images of the class", "test images", "cosine"),
    "zero_maps": ("maps that are zero", "test images", "share"),
    "inside_head": ("share of the map in the head", "test images", "share"),
    "decoded_accuracy": ("baseline on decoded images, %", "test images", "percent"),
}


@dataclass(frozen=True)
class Measure:
    """One metric of the records, as a table shows it.

    Args:
        metric: its name in the records.
        title: of its column.
        where: what it was measured on, e.g. "last epoch"; "" if that is not known.
        unit: of the shown numbers.
        decimals: of the shown numbers.
        factor: from the record's unit to the shown one.
    """

    metric: str
    title: str
    where: str
    unit: Unit
    decimals: int
    factor: float = 1

    def samples(self, results: Any, **cell: Any) -> dict[int, float]:
        """seed -> value of a cell in the shown unit; as `efflib.trials.Results.samples`."""
        found = results.samples(metric=self.metric, **cell)
        return found if self.factor == 1 else {seed: self.factor * value for seed, value in found.items()}

    def text(self, found: Interval | None, signed: bool = False) -> str:
        """An interval with this measure's decimals; nothing for None."""
        return "" if found is None else found.text(self.decimals, signed)

    @property
    def words(self) -> str:
        """What the measure is, within a sentence: "accuracy in % of the last epoch"."""
        name = self.unit.caption
        first = name.split()[0]
        if first[1:].islower():  # "MSE" and "DisWOT" stay as they are
            name = name[0].lower() + name[1:]
        return f"{name} of the {self.where}" if self.where else f"{name} ({self.title})"

    @property
    def difference(self) -> str:
        """What a difference of two is counted in: "points of accuracy (last epoch)"."""
        return f"{self.unit.difference} ({self.where or self.title})"

    @property
    def change(self) -> str:
        """What a difference to the baseline is called: a gain, or, where lower is better, a change."""
        return "change" if self.unit.lower_is_better else "gain"


def measure_of(table: Any, metric: str) -> Measure:
    """A metric as a Table shows it.

    Raises:
        ValueError: the printed table has a unit for which there are no words; lists those that have.
    """
    title, where, own = _METRICS.get(metric, (metric.replace("_", " "), "", None))
    # A figure or a table of words has no unit: its measures are accuracies as recorded.
    name = own or (table.printed.unit if table.printed.unit != "none" else "percent")
    unit = unit_named(name)
    as_printed = [decimals_of(cell.value) for cell in table.printed.numbers] if name == table.printed.unit else []
    factor = 0.01 if name == "fraction" and metric in _ACCURACIES else 1
    return Measure(metric, title, where, unit, max([unit.decimals, *as_printed]), factor)


def measures_of(table: Any) -> tuple[Measure, ...]:
    """What a Table shows of its records, the headline first."""
    return tuple(measure_of(table, metric) for metric in table.measures)


def headline_of(table: Any) -> Measure:
    """The measure that gains, contrasts and figures of a Table use."""
    return measure_of(table, table.measures[0])


def captions(table: Any) -> str:
    """What the columns of a Table hold, each unit once."""
    return "; ".join(dict.fromkeys(measure.unit.caption for measure in measures_of(table)))


def unit_named(name: str) -> Unit:
    """Words and decimals of a unit.

    Raises:
        ValueError: lists the known ones.
    """
    if name not in UNITS:
        raise ValueError(f"No words for the unit {name!r}. Units with words: {', '.join(UNITS)}.")
    return UNITS[name]


def decimals_of(value: float) -> int:
    """Decimals of a printed number: 0.0107 has four, 92.5 one, 87466 none."""
    return max(0, -int(exact(value).as_tuple().exponent))


def as_printed(value: float, unit: str, sign: str = "") -> str:
    """A printed number with the decimals it has, and the zeros that its unit is printed with (90.1 % as 90.10)."""
    least = UNITS[unit].printed_decimals if unit in UNITS else 0
    return f"{value:{sign}.{max(least, decimals_of(value))}f}"
