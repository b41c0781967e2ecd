"""Verdicts, fixed before any run. Pure numbers: no torch, no files, no tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from efflib.scales import SCALES, check_scale

REPRODUCED, HIGHER, LOWER = "reproduced", "higher", "lower"
UNDETERMINED, NOT_RUN = "undetermined", "not run"
SUPPORTED, CONTRADICTED = "supported", "contradicted"
AGREE, DISAGREE, OPEN = "agree", "disagree", "open"
CELL_VERDICTS = (REPRODUCED, HIGHER, LOWER, UNDETERMINED, NOT_RUN)
CLAIM_VERDICTS = (SUPPORTED, CONTRADICTED, UNDETERMINED, NOT_RUN)

MIN_SEEDS = 3  # with fewer seeds nothing is decided
_SLACK = 1e-9  # 92.52 - 0.5 is not exact in binary; an interval that touches the margin must count as touching

# unit of a printed table -> (absolute margin, relative margin)
_MARGINS: dict[str, tuple[float, float]] = {
    "percent": (0.5, 0.0),
    "fraction": (0.005, 0.0),
    "bytes": (0.0, 0.01),
    "nats": (0.05, 0.0),
    "nats_per_character": (0.05, 0.0),
    "ap": (0.5, 0.0),
    "count": (0.0, 0.0),
    "megabytes": (0.0, 0.0),  # counted, and compared as the whole numbers that are printed
    "millions": (0.0, 0.0),  # counted, and compared with the decimals that are printed
    "score": (0.0, 0.1),
    "mse": (0.0, 0.1),  # losses are printed with one or two digits: the rounding of 0.008 alone is 6 %
}
# Units whose margin the verdict rules of this book do not fix; pages say that it was chosen here.
_CHOSEN = ("mse", "score")


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % Student-t interval.

    Args:
        mean: mean over seeds, in the unit of the values.
        low, high: ends of the interval; None for a single value, which has no interval.
        n: number of seeds.
        std: sample standard deviation (n - 1); None for a single value.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    std: float | None

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval, None for a single value."""
        return None if self.high is None else self.high - self.mean

    def text(self, digits: int = 2, signed: bool = False) -> str:
        """Format as ``92.41 ± 0.12 (5)``: mean, half-width, number of seeds."""
        number = f"{self.mean:{'+' if signed else 'z'}.{digits}f}"  # z: no minus before a zero, which is rounding
        if self.half_width is None:
            return f"{number} ({self.n})"
        return f"{number} ± {self.half_width:.{digits}f} ({self.n})"


@dataclass(frozen=True)
class CellVerdict:
    """The verdict of one printed cell, with the reason and what it would take to decide it."""

    verdict: str
    reason: str
    interval: Interval | None = None
    seeds_needed: int | None = None
    cost_seconds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One directed comparison of a claim: is the mean of ``samples`` on the given side of 0?

    Args:
        label: what is compared, for the reader, e.g. ``"vgg8, cifar10: bimask - baseline"``.
        samples: seed -> value, mostly a difference paired by seed; None or empty when it has not run.
        side: ``">"`` if the claim says the mean is above 0, ``"<"`` if below.
        expected: number of cells that the statistic pools (a mean over 8 models needs 8).
        found: how many of them have values; None means all.
    """

    label: str
    samples: Mapping[int, float] | None
    side: str = ">"
    expected: int = 1
    found: int | None = None

    def __post_init__(self) -> None:
        if self.side not in (">", "<"):
            raise ValueError(f"Comparison side {self.side!r} of {self.label!r}: use '>' or '<' (against 0).")

    @property
    def ran(self) -> bool:
        """True if every cell that the statistic needs has values."""
        return bool(self.samples) and (self.found is None or self.found >= self.expected)

    @property
    def interval(self) -> Interval | None:
        """The interval of the samples, None when the comparison has not run."""
        return interval(self.samples) if self.samples and self.ran else None

    @property
    def verdict(self) -> str:
        """``agree``, ``disagree``, ``not run``, or ``open`` (0 in the interval, or fewer than 3 seeds)."""
        got = self.interval
        if got is None:
            return NOT_RUN
        if got.n < MIN_SEEDS or got.low is None or got.high is None:
            return OPEN
        above, below = got.low > _SLACK, got.high < -_SLACK
        if not (above or below):
            return OPEN
        return AGREE if above == (self.side == ">") else DISAGREE

    @property
    def seeds_needed(self) -> int | None:
        """Seeds that would decide an open comparison at the observed spread; None otherwise."""
        got = self.interval
        if got is None or got.std is None or self.verdict != OPEN:
            return None
        return _smallest_n(got.std, abs(got.mean))

    @property
    def told(self) -> str:
        """What a reader has to know beside the verdict; nothing where the interval of the mean decides."""
        return ""


@dataclass(frozen=True)
class SeedCount(Comparison):
    """A comparison that counts seeds: do at least ``least`` of every ``of`` lie on the given side of 0?

    For claims that were fixed as a count, "in at least 2 of 3 seeds". The mean may have a wide interval although every
    seed agrees: 6, 20 and 47 points are three large falls.

    Args:
        least: seeds that must agree, of each ``of``; with more seeds the same share of them, rounded up.
        of: seeds without which nothing is decided.
    """

    least: int = MIN_SEEDS
    of: int = MIN_SEEDS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.least <= self.of:
            raise ValueError(f"SeedCount {self.label!r}: {self.least} of {self.of} seeds; give 1 to {self.of} of them.")

    @property
    def agreeing(self) -> int:
        """Seeds on the given side of 0; a value of 0 is on neither."""
        sign = 1 if self.side == ">" else -1
        return sum(sign * value > _SLACK for value in (self.samples or {}).values())

    @property
    def verdict(self) -> str:
        """``agree``, ``disagree``, ``not run``, or ``open`` (too few seeds); a sufficient count needs no interval."""
        if not self.ran:
            return NOT_RUN
        n = len(self.samples or {})
        if n < self.of:
            return OPEN
        return AGREE if self.agreeing * self.of >= self.least * n else DISAGREE

    @property
    def seeds_needed(self) -> int | None:
        """The seeds that the count is of, where fewer ran; None otherwise."""
        return self.of if self.verdict == OPEN else None

    @property
    def told(self) -> str:
        """The count: "in 2 of 3 seeds"."""
        return f"in {self.agreeing} of {len(self.samples or {})} seeds" if self.ran else ""


@dataclass(frozen=True)
class Tested(Comparison):
    """A comparison decided by one test over many cells, such as sixteen networks, not by the scatter over seeds.

    Args:
        statistic: the tested number, on the given side of 0 if the claim holds; None when it has not run.
        sure: whether the test tells it from 0 at the 5 % level.
        how: statistic, test and seeds in words, for the reader.
    """

    statistic: float | None = None
    sure: bool = False
    how: str = ""

    @property
    def ran(self) -> bool:
        """True if there is a statistic and every cell that it needs has values."""
        return self.statistic is not None and (self.found is None or self.found >= self.expected)

    @property
    def verdict(self) -> str:
        """``agree``, ``disagree``, ``not run``, or ``open`` (the test does not tell the statistic from 0)."""
        if not self.ran or self.statistic is None:
            return NOT_RUN
        if not self.sure:
            return OPEN
        return AGREE if (self.statistic > 0) == (self.side == ">") else DISAGREE

    @property
    def seeds_needed(self) -> int | None:
        """None: the test is over cells, whose number no further seed changes."""
        return None

    @property
    def told(self) -> str:
        """How it was tested, or how many of its cells have run so far."""
        return self.how if self.ran else f"{self.found or 0} of {self.expected} cells have run"


@dataclass(frozen=True)
class ClaimVerdict:
    """The verdict of a claim at one scale, with its counts and one line that says why."""

    verdict: str
    scale: str
    detail: str
    expected: int
    ran: int
    agree: int
    disagree: int
    open: int
    comparisons: tuple[Comparison, ...] = field(default=(), repr=False)


def interval(values: Iterable[float] | Mapping[int, float]) -> Interval:
    """Mean and 95 % Student-t interval of independent runs.

    Args:
        values: one number per seed (a seed -> number mapping is fine).

    Raises:
        ValueError: no value, or one that is not finite.
    """
    numbers = [float(v) for v in (values.values() if isinstance(values, Mapping) else values)]
    if not numbers:
        raise ValueError("interval() of no values. Give at least one run, or leave the cell out.")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"interval() of {numbers}: every value must be finite; failed runs have no value.")
    n, mean = len(numbers), statistics.fmean(numbers)
    if n == 1:
        return Interval(mean, None, None, 1, None)
    std = statistics.stdev(numbers)
    half = _half_width(std, n)
    return Interval(mean, mean - half, mean + half, n, std)


def interval_text(samples: Mapping[Any, float], digits: int = 2, signed: bool = False) -> str:
    """The interval of samples as text, as `Interval.text`; nothing where there is no sample."""
    return interval(samples).text(digits, signed) if samples else ""


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    """Differences ``a - b`` of the seeds that both have, in the order of the seeds."""
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}


def mean_samples(arms: Sequence[Mapping[Any, float]]) -> tuple[dict[Any, float], int]:
    """Mean over arms of the seeds that all of them have, and how many arms have any value.

    Arms without a value are left out of the mean; a `Comparison` of it says how many there should have been.
    """
    found = [samples for samples in arms if samples]
    seeds = sorted(set.intersection(*(set(samples) for samples in found))) if found else []
    return {seed: sum(samples[seed] for samples in found) / len(found) for seed in seeds}, len(found)


def shift(samples: Mapping[Any, float], by: float) -> dict[Any, float]:
    """Every sample plus a constant: a comparison with a bound becomes one with 0."""
    return {seed: value + by for seed, value in samples.items()}


def margin_for(unit: str, printed: float) -> float:
    """Margin around a printed number within which it counts as reproduced.

    Args:
        unit: unit of the printed table: percent, fraction, bytes, nats, ap, count ...
        printed: the printed number, in that unit.

    Returns:
        0.5 points of accuracy, 1 % of bytes, 0.05 nats, 0.5 AP, 10 % of an MSE or a score, 0 for counts (they must be
        exact).

    Raises:
        ValueError: a unit without a margin.
    """
    if unit not in _MARGINS:
        raise ValueError(f"No margin for unit {unit!r}. Units with one: {', '.join(_MARGINS)}.")
    absolute, relative = _MARGINS[unit]
    return absolute + relative * abs(printed)


def margin_note(unit: str) -> str:
    """What a page has to say about the margin of a unit: that it is our own choice; nothing for the others."""
    if unit not in _CHOSEN:
        return ""
    return f"the margin, {100 * _MARGINS[unit][1]:g} % of the printed number, is this book's own choice"


def cell_verdict(
    values: Iterable[float] | Mapping[int, float],
    printed: float,
    margin: float,
    scale: str,
    *,
    variant: str = "official",
    seconds_per_seed: float | None = None,
    missing: str = "not recorded yet",
) -> CellVerdict:
    """Verdict of one printed number against runs under the paper's own selection rule.

    Args:
        values: one number per seed, in the unit of ``printed``; may be empty.
        printed: the printed number.
        margin: half-width of the band around it (``margin_for``); 0 means a count, which must be equal.
        scale: only ``"paper"`` gives a verdict.
        variant: data variant of the runs; anything but ``"official"`` is never called reproduced.
        seconds_per_seed: measured cost of one run, for the cost of the seeds still needed.
        missing: reason to show when there is no value.
    """
    check_scale(scale)
    numbers = list(values.values() if isinstance(values, Mapping) else values)
    if not numbers:
        return CellVerdict(NOT_RUN, missing)
    got = interval(numbers)
    if scale != "paper":
        return CellVerdict(NOT_RUN, f"no paper-scale runs (measured at {scale})", got)
    verdict, reason = _decide(got, printed, margin)
    if verdict == REPRODUCED and variant != "official":
        verdict, reason = UNDETERMINED, f"inside the margin, but on the data variant {variant}"
        return CellVerdict(verdict, reason, got)
    if variant != "official":
        reason = f"{reason}; on the data variant {variant}"
    needed = seeds_needed(numbers, printed, margin) if verdict == UNDETERMINED else None
    more = None if needed is None else max(needed - got.n, 0)
    cost = None if more is None or seconds_per_seed is None else more * seconds_per_seed
    return CellVerdict(verdict, reason, got, needed, cost)


def seeds_needed(values: Iterable[float] | Mapping[int, float], printed: float, margin: float) -> int | None:
    """Total number of seeds that would decide a cell if mean and spread stayed as observed.

    Returns:
        At least 3; None if the spread is unknown (one run) or the mean lies on the edge of the margin.
    """
    got = interval(values)
    if got.std is None:
        return None
    gap = abs(margin - abs(got.mean - printed))
    return _smallest_n(got.std, gap)


def claim_verdict(comparisons: Iterable[Comparison], scale: str, minimum_scale: str = "tiny") -> ClaimVerdict:
    """Verdict of a claim that makes all these comparisons.

    Contradicted by one comparison wholly on the wrong side; supported only if every one ran and agrees.
    ``smoke`` runs, and runs below the claim's minimum scale, never count.
    """
    check_scale(scale), check_scale(minimum_scale)
    made = tuple(comparisons)
    if not made:
        raise ValueError("claim_verdict() of no comparisons: a claim must list what it compares.")
    if scale == "smoke" or SCALES.index(scale) < SCALES.index(minimum_scale):
        least = "tiny" if minimum_scale == "smoke" else minimum_scale
        detail = f"{scale} runs do not count; this claim needs scale {least} or larger"
        return ClaimVerdict(NOT_RUN, scale, detail, len(made), 0, 0, 0, 0, made)
    counts = {name: sum(c.verdict == name for c in made) for name in (AGREE, DISAGREE, OPEN, NOT_RUN)}
    ran = len(made) - counts[NOT_RUN]
    detail = f"{ran} of {len(made)} run"
    if ran:
        detail += f", {counts[AGREE]} agree, {counts[DISAGREE]} disagree, {counts[OPEN]} open"
    detail = "; ".join([detail, *(c.told for c in made if c.told)])
    verdict = _claim_name(counts, len(made), ran)
    return ClaimVerdict(verdict, scale, detail, len(made), ran, counts[AGREE], counts[DISAGREE], counts[OPEN], made)


def _claim_name(counts: Mapping[str, int], expected: int, ran: int) -> str:
    if counts[DISAGREE]:
        return CONTRADICTED
    if not ran:
        return NOT_RUN
    return SUPPORTED if counts[AGREE] == expected else UNDETERMINED


def _decide(got: Interval, printed: float, margin: float) -> tuple[str, str]:
    if margin == 0:  # a count is not a random number: one look is enough, all looks must agree
        if not got.std and abs(got.mean - printed) <= _SLACK:
            return REPRODUCED, "equal"
        if not got.std:
            return (HIGHER if got.mean > printed else LOWER), "a count must be equal"
        return UNDETERMINED, "a count that differs between runs"
    if got.n < MIN_SEEDS or got.low is None or got.high is None:
        return UNDETERMINED, f"{got.n} seed{'s' * (got.n > 1)}; at least {MIN_SEEDS} are needed"
    low, high = printed - margin, printed + margin
    if got.low >= low - _SLACK and got.high <= high + _SLACK:
        return REPRODUCED, f"interval inside printed ± {margin:g}"
    if got.low > high + _SLACK:
        return HIGHER, f"interval above printed + {margin:g}"
    if got.high < low - _SLACK:
        return LOWER, f"interval below printed - {margin:g}"
    return UNDETERMINED, f"interval crosses the edge of printed ± {margin:g}"


def _half_width(std: float, n: int) -> float:
    from scipy.special import stdtrit  # scipy.special loads in a tenth of the time of scipy.stats

    return float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)


def _smallest_n(std: float, gap: float, limit: int = 10_000_000) -> int | None:
    """Smallest n >= 3 whose half-width is below ``gap``; the half-width falls with n, so bisect."""
    if gap <= _SLACK:
        return None
    low, high = MIN_SEEDS, MIN_SEEDS
    while _half_width(std, high) >= gap:
        low, high = high, 2 * high
        if high > limit:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _half_width(std, middle) < gap else (middle + 1, high)
    return high
