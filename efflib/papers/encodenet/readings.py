"""The readings of the EncodeNet paper in words, what the rule of `rule` says of each, and table 3's figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from IPython.display import HTML, Markdown

from efflib.papers.encodenet import arms, claims, rule
from efflib.report import notebook
from efflib.report.figures import one_legend, themed
from efflib.report.html import html_table, sentence
from efflib.report.provenance import all_behind, data_of, in_markdown
from efflib.report.verdict import Interval, interval, interval_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.report.notebook import TablePage
    from efflib.trials import Results


@dataclass(frozen=True)
class About:
    """A reading in words: its number in the spec, whether the identity row could be as printed, what speaks for it."""

    number: str
    possible: str
    evidence: str


ABOUT = {
    "finetune": About("R1", "yes", "the authors' earlier code freezes nothing"),
    "warm_frozen": About("R2", "only if the encoder hardly moves", "the conclusion: the autoencoder is retrained"),
    "encodenet": About("R3", "no", "sections 1, 3.3 and 5 and figure 1, taken literally"),
    "scratch_last_stage": About("R4", "perhaps", "sections 1 and 3.3: additional layers, a thin subnetwork"),
    "warm_last_stage": About("R4", "perhaps", "the same, from the baseline's weights"),
    "warm_finetune": About("R5", "yes", "R1 and R2 together"),
    "scratch_adapt_bn": About("R6", "no", "batch norm's statistics are easily forgotten when layers are frozen"),
    "warm_adapt_bn": About("R6", "no", "the same, from the baseline's weights"),
}
_STARTS = {"scratch": "from scratch", "baseline": "from the baseline"}
_TRAINS = {
    "frozen": "the head",
    "frozen_adapt_bn": "the head; batch norm's statistics follow",
    "last_stage": "last stage and head",
    "finetune": "everything",
}


def named(reading: str) -> str:
    """A reading's number and name, e.g. "R3 encodenet"."""
    return f"{ABOUT[reading].number} {reading}"


def readings_table() -> Any:
    """Table: the readings of the paper, and which of them could make the identity row what is printed."""
    rows = [
        {
            "reading": about.number,
            "name here": reading,
            "encoder starts": _STARTS[arms.READINGS[reading].encoder_init],
            "second stage trains": _TRAINS[arms.READINGS[reading].stage2],
            "identity row as printed?": about.possible,
            "what speaks for it": about.evidence,
        }
        for reading, about in ABOUT.items()
    ]
    rows.append(
        {
            "reading": "R7",
            "name here": "test_best",
            "encoder starts": "any",
            "second stage trains": "any; the epoch that is best on the test images is reported",
            "identity row as printed?": "adds a little to any of the above",
            "what speaks for it": "a habit of the authors' earlier code",
        }
    )
    return HTML(html_table(rows, "Readings of the paper; the fifth column is our expectation, written before any run"))


# --- table 3: the rule applied ----------------------------------------------------------------------------


@dataclass(frozen=True)
class BestOnTest:
    """Results whose accuracies are those of the best epoch on the test images: reading R7."""

    results: Any

    def matching(self, **cell: Any) -> list[Any]:
        return self.results.matching(**cell)

    def samples(self, **cell: Any) -> dict[int, float]:
        return self.results.samples(metric="test_best", **cell)


def decided(results: Results | BestOnTest) -> list[rule.Decision]:
    """What the rule says of every reading at one scale."""
    setting = claims.ablated(results)
    return [rule.decide(results, setting, reading) for reading in ABOUT]


def reading_headline(page: TablePage) -> Any:
    """Which reading, if any, shows table 3's ordering: at the largest scale that decides it, from the records alone."""
    asked = "**Which reading of the paper has the ordering of table 3?**"
    ran = [shown.results for shown in page.recorded.values() if any(map(_ran, decided(shown.results)))]
    if not ran:
        return Markdown(f"{asked} No reading has run on real data yet.")
    deciding = [results for results in ran if any(each.outcome != rule.OPEN for each in decided(results) if _ran(each))]
    results = (deciding or ran)[-1]  # scales stand in their order
    found = decided(results)
    lines = [f"- {_listed([each])}: {each.outcome}; {each.reason}" for each in found if _ran(each)]
    missing = [named(each.reading) for each in found if not _ran(each)]
    lines += [f"- not run at this scale: {', '.join(missing)}"] if missing else []
    lines += [f"- scale `{larger.scale}` decides nothing yet" for larger in ran[ran.index(results) + 1 :]]
    lines += _slow_words(results)
    told = f"{asked} {_measured_on(results)}: {answer(found)}{_weight(results)}"
    return Markdown("\n".join([told, "", *lines]))


def _slow_words(results: Results) -> list[str]:
    """A line about the autoencoders that had hardly begun when they should have, if there are any."""
    slow = [f"`{target}` {start}" for (target, start), seeds in _autoencoders(results).items() if _slow(seeds)]
    if not slow:
        return []
    return [
        f"- slow autoencoders (an NMSE above {SLOW:g} after {100 * EARLY:g} % of the epochs, in any seed): "
        f"{', '.join(slow)}. What their second stages reach may say more of the short training than of the codes."
    ]


def _ran(decision: rule.Decision) -> bool:
    return decision.outcome != rule.NOT_RUN


def _measured_on(results: Results) -> str:
    """Scale, network, data with their variant, and seeds."""
    setting = claims.ablated(results)
    asked = [entry for entry in results.matching(**setting) if "target" in entry.cell]
    return f"Scale `{results.scale}`, {setting['model']}, {in_markdown(data_of(asked))}"


def _weight(results: Results) -> str:
    """What an answer is worth: only the paper's own network, data and length can reproduce its table."""
    if results.scale == "paper" and results.variants == ["official"]:
        return ""
    return " That is a direction, no reproduction: network, data or length are not the paper's."


def answer(decisions: Iterable[rule.Decision]) -> str:
    """One or two sentences over all readings: who has the ordering, and what is not decided."""
    ran = [each for each in decisions if _ran(each)]
    shown = [each for each in ran if each.outcome in rule.SHOWN]
    still = [each for each in ran if each.outcome == rule.OPEN]
    if shown:
        told = f"{_listed(shown)}, of {len(ran)} that ran."
    else:
        so_far = " so far" if still else ""
        told = f"none{so_far} of the {len(ran)} that ran." if len(ran) > 1 else f"not{so_far} the one that ran."
    return told + (f" Not decided: {_listed(still)}." if still else "")


def _listed(decisions: Sequence[rule.Decision]) -> str:
    return ", ".join(f"`{each.reading}` ({ABOUT[each.reading].number})" for each in decisions)


def decisions_table(results: Results) -> Any:
    """Table: the rule's outcome for every reading, also with the best test epoch instead of the last (R7)."""
    best = {each.reading: each.outcome for each in decided(BestOnTest(results))}
    rows = [
        {
            "reading": named(each.reading),
            "outcome": each.outcome,
            "reason": each.reason,
            "outcome by the best test epoch (R7)": best[each.reading],
        }
        for each in decided(results)
    ]
    return HTML(html_table(rows, f"The rule at scale {results.scale}", f"encodenet-table3-rule-{results.scale}"))


def steps_table(results: Results) -> Any:
    """Table: every inequality of the rule down, the readings that ran across; difference, standard errors, status."""
    ran = [each for each in decided(results) if _ran(each)]
    lines: dict[str, dict[str, str]] = {}
    for decision in ran:
        for step in decision.steps:
            label = step.label.replace(f"{decision.reading} ", "")
            lines.setdefault(label, {"inequality": label} | {named(each.reading): "" for each in ran})
            lines[label][named(decision.reading)] = _step_text(step)
    if not lines:
        return sentence(f"No reading has run at scale {results.scale}, so the rule has nothing to compare.")
    caption = (
        f"Every inequality of the rule at scale {results.scale}: mean difference in points ± half the 95 % interval "
    )
    caption += "(seeds), the mean in standard errors (SE), and what the rule makes of it"
    return HTML(html_table(list(lines.values()), caption, f"encodenet-table3-steps-{results.scale}"))


def _step_text(step: rule.Step) -> str:
    values = list(step.samples.values())
    if not values:
        return step.status
    spread = stdev(values) if len(values) > 1 else 0.0
    errors = f", {fmean(values) / (spread / len(values) ** 0.5):+.1f} SE" if spread else ""
    return f"{interval_text(step.samples, signed=True)}{errors}: {step.status}"


def at_every_scale(page: TablePage, *tables: Callable[[Results], Any]) -> Any:
    """The given tables for every recorded scale, smallest first; a sentence where nothing is recorded."""
    nothing = "Nothing is measured on real data yet, so the rule has nothing to decide."
    return notebook.at_every_scale(page, *tables, nothing=nothing)


# --- table 3: its autoencoders ----------------------------------------------------------------------------

EARLY, SLOW = 0.05, 0.9  # share of the schedule after which an autoencoder still above this NMSE is slow (spec, 4.2)


def autoencoders_table(results: Results) -> Any:
    """Table: how far the autoencoders behind the readings came, relative to the best constant output."""
    found = _autoencoders(results)
    if not found:
        return sentence(f"No autoencoder is recorded at scale {results.scale}.")
    rows = []
    for (target, start), metrics in found.items():
        early = {seed: _early_nmse(own) for seed, own in metrics.items()}
        row = {"target": target, "encoder starts": start, f"NMSE after {100 * EARLY:g} %": interval_text(early, 3)}
        for title, name, decimals in _ENDS:
            row[title] = interval_text({seed: own[name] for seed, own in metrics.items()}, decimals)
        rows.append({**row, "slow": _slow(metrics)})
    caption = (
        f"Autoencoders of scale {results.scale}, mean ± half the 95 % interval (seeds). NMSE: MSE over that of the "
    )
    caption += f"best constant output; slow: still above {SLOW:g} after {100 * EARLY:g} % of the epochs, in any seed"
    return HTML(html_table(rows, caption, f"encodenet-table3-autoencoders-{results.scale}"))


_ENDS = (
    ("NMSE at the end, training images", "train_nmse", 3),
    ("NMSE at the end, test images", "test_nmse", 3),
    ("nearest representative right, % of test images", "nearest_representative", 1),
)


def _autoencoders(results: Results) -> dict[tuple[str, str], dict[int, Mapping[str, Any]]]:
    """(target, where the encoder starts) -> seed -> metrics of the recorded autoencoder behind the second stages."""
    recorded = {entry.trial.identity: entry.metrics for entry in all_behind(results).entries if entry.usable}
    found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for entry in results.entries:
        encoder = entry.trial.parents.get("encoder")
        if encoder is not None and encoder.recipe == "autoencoder" and encoder.identity in recorded:
            about: Any = encoder.settings
            place = entry.cell["target"], _STARTS[about.encoder_init]
            found.setdefault(place, {})[entry.seed] = recorded[encoder.identity]
    return found


def _slow(seeds: Mapping[int, Mapping[str, Any]]) -> bool:
    return any(_early_nmse(metrics) > SLOW for metrics in seeds.values())


def _early_nmse(metrics: Mapping[str, Any]) -> float:
    """NMSE of the training steps in the epoch that ends the first `EARLY` of the schedule."""
    losses = metrics["curves"]["train_loss"]
    variance = metrics["train_mse"] / metrics["train_nmse"]
    return losses[math.ceil(EARLY * len(losses)) - 1] / variance


# --- table 3: the figure ----------------------------------------------------------------------------------


def targets_figure(results: Results) -> Any:
    """Figure: accuracy by target and reading, the baseline as a line; then the controls, on a scale of their own."""
    setting = claims.ablated(results)
    base = results.samples(**setting, method="baseline")
    left = _points(results, setting, arms.TARGETS)
    codes = [target for target in arms.OTHER_CODES if _points(results, setting, (target,))]
    right = _points(results, setting, ("cluster", *codes)) | _controls(results, setting)
    printed = {} if results.scale == "smoke" else _printed_gaps(results.table)
    if not base or not left:
        return sentence(f"No reading is measured at scale {results.scale} yet, so there is nothing to draw.")

    def draw(figure: Figure) -> None:
        places = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(arm for arm, _ in (*left, *right)))}
        panels = figure.subplots(1, 2, width_ratios=(2, 3))
        titles = ("targets of the paper", "cluster codes and their controls")
        for axes, found, title in zip(panels, (left, right), titles, strict=True):
            _panel(axes, found, places, interval(base))
            axes.set_title(title)
        gaps = [(place, gap) for place, target in enumerate(_ticks(left)) if (gap := printed.get(target)) is not None]
        if gaps:
            x, y = [place for place, _ in gaps], [fmean(base.values()) + gap for _, gap in gaps]
            panels[0].plot(x, y, "D", color="grey", fillstyle="none", label="printed gap, from our baseline")
        panels[0].set_ylabel("test accuracy, last epoch, %")
        one_legend(figure, 4)

    spoken = "; ".join(f"{place} {arm} {each.text()}" for (arm, place), each in {**left, **right}.items())
    alt = f"Accuracy by target and reading at scale {results.scale}; baseline {interval(base).text()}; {spoken}"
    return themed(draw, (10, 4.6), alt)


Points = dict[tuple[str, str], Interval]  # (reading or "control", place on the axis) -> accuracy


def _points(results: Results, setting: Mapping[str, str], targets: Iterable[str]) -> Points:
    found: Points = {}
    for target in targets:
        for reading in ABOUT:
            samples = results.samples(**setting, method=reading, target=target)
            if samples:
                found[named(reading), target] = interval(samples)
    return found


def _controls(results: Results, setting: Mapping[str, str]) -> Points:
    samples = {method: results.samples(**setting, method=method) for method in arms.BUDGETS}
    return {("control without codes", method): interval(each) for method, each in samples.items() if each}


def _printed_gaps(table: Any) -> dict[str, float]:
    """Target -> printed difference to the printed baseline."""
    base = table.printed.cell(method="baseline").value
    return {cell.keys["target"]: cell.value - base for cell in table.printed.numbers if "target" in cell.keys}


def _ticks(found: Points) -> list[str]:
    return list(dict.fromkeys(place for _, place in found))


def _panel(axes: Any, found: Points, colours: Mapping[str, str], base: Interval) -> None:
    """One panel: arms beside each other at every place, in the colour of their reading."""
    ticks = _ticks(found)
    names = list(dict.fromkeys(arm for arm, _ in found))
    for number, name in enumerate(names):
        chosen = [(ticks.index(place), each) for (arm, place), each in found.items() if arm == name]
        shift = 0.0 if name == "control without codes" else 0.1 * (number - (len(names) - 1) / 2)
        x = [at + shift for at, _ in chosen]
        widths = [_half(each) for _, each in chosen]
        style = {"fmt": "o", "markersize": 4, "capsize": 3, "color": colours[name], "label": name}
        axes.errorbar(x, [each.mean for _, each in chosen], yerr=widths, **style)
    axes.axhline(base.mean, color="grey", linewidth=1, label="baseline")
    if base.low is not None:
        axes.axhspan(base.low, base.high, color="grey", alpha=0.2, linewidth=0)
    axes.set_xticks(range(len(ticks)), [tick.replace("_", "\n") for tick in ticks], fontsize="small")
    axes.set_xlim(-0.6, len(ticks) - 0.4)


def _half(found: Interval) -> float:
    """NaN draws nothing where one seed gives no interval; 0 would look exact."""
    return float("nan") if found.half_width is None else found.half_width
