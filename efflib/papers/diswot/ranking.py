"""What the page of table 3.3 shows: the scores of untrained students, which student they choose, what they predict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import HTML, Markdown
from scipy.stats import kendalltau

from efflib.data import load_dataset
from efflib.papers.diswot import rivals, scores
from efflib.papers.diswot.arms import SIZES
from efflib.papers.diswot.claims import accuracies, basis, pooled, scored, series
from efflib.papers.diswot.costs import cost
from efflib.papers.diswot.curves import evidence
from efflib.papers.diswot.ranks import RankCorrelation, critical_tau, rank_correlation, tau_b
from efflib.papers.diswot.search import evolve, exhaustive, random_search
from efflib.papers.diswot.space import MEMBERS, ROLES, STUDENTS, TEACHER, member
from efflib.papers.diswot.tables import PRINTED, last_map
from efflib.report.figures import one_legend, themed
from efflib.report.html import html_table, sentence
from efflib.report.measures import as_printed
from efflib.report.verdict import interval, interval_text, paired

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.report.notebook import TablePage
    from efflib.trials import Results

By = Mapping[str, float]  # student -> number

NAMES = {
    "thesis": "thesis (Grad-CAM, L2)",
    "thesis_lrp_cos": "thesis (LRP, cosine)",
    "official": "official code",
    "relation_only": "relation term alone",
    "thesis_spectral": "thesis, spectral norms",
    "thesis_mean_rows": "thesis, means of rows",
    "thesis_sum_rows": "thesis, sums of rows",
    "relation_sum_rows": "relation alone, sums of rows",
    "thesis_trained": "thesis (Grad-CAM, L2), trained teacher",
    "thesis_lrp_cos_trained": "thesis (LRP, cosine), trained teacher",
}  # of `scores.SCORES`, and with the trained teacher
BATCH = 32  # images that a score sees
RESAMPLES = 400  # of the bootstrap over seeds, for each predictor
EVALUATIONS = (24, 60, 100)  # of a search
HEADS = {"gap": "o", "dsc": "s"}  # -> marker in the figure


# --- what is recorded -------------------------------------------------------------------------------------


def draws(results: Results) -> dict[str, dict[str, list[float]]]:
    """Score -> student -> its value in each draw of all recorded series; empty where no score is recorded."""
    found = {score: pooled(results, score) for score in NAMES}
    return {score: by_student for score, by_student in found.items() if by_student}


def _scored(results: Results) -> list[Mapping[str, Any]]:
    """Metrics of every recorded series of draws."""
    return [entry.metrics for entry in results.matching(method="score") if "scores" in entry.metrics]


def nwot(results: Results) -> By:
    """Student -> NWOT, the mean over the recorded series; empty where none is recorded.

    It is -inf for a network that codes two images of a batch alike, in any draw; records write that as null. Series in
    which that happens are left out, unless it does in all.
    """
    found = [metrics["nwot"] for metrics in _scored(results) if "nwot" in metrics]
    found = [{name: float("-inf") if value is None else value for name, value in own.items()} for own in found]
    finite = [own for own in found if all(map(math.isfinite, own.values()))] or found
    return {name: fmean(own[name] for own in finite) for name in (finite[0] if finite else ())}


def _printed(what: str) -> dict[str, float]:
    """Student -> a printed column of table 3.3: "", "train", "parameters" or "score"."""
    table = PRINTED[f"table3_3_{what}" if what else "table3_3"]
    return {cell.keys["student"]: cell.value for cell in table.cells}


def refuse_untrained(results: Results) -> None:
    """Check that the teachers behind a demonstration beat guessing; table 3.3 has no student trained alone.

    Raises:
        ChanceLevel: as `efflib.report.notebook.refuse_chance_level`.
    """
    from efflib.report.notebook import refuse_chance_level
    from efflib.trials import collect

    teachers = {entry.trial.parents["teacher"] for entry in results.entries if "teacher" in entry.trial.parents}
    refuse_chance_level(collect(list(teachers), results.scale))


# --- scores -----------------------------------------------------------------------------------------------


def scores_table(results: Results) -> HTML:
    """Every student's printed score and ours by every definition; the last row is what cannot be exceeded."""
    found = draws(results)
    if not found:
        return _nothing(results, "score")
    printed, bounds = _printed("score"), {n: b for each in _scored(results) for n, b in each["bounds"].items()}
    students = list(next(iter(found.values())))
    rows = [
        {
            "student": name,
            "printed": _number(printed[name]) if name in printed else "",
            **{NAMES[score]: _spread(by_student[name]) for score, by_student in found.items()},
        }
        for name in students
    ]
    rows.append(
        {"student": "largest possible", "printed": "", **{NAMES[score]: _bound(bounds[score]) for score in found}}
    )
    caption = (
        f"Scores, lower is said to be better: mean ± standard deviation of {_drawn(results)}. Scale {results.scale}, "
        f"{_seen_at(results)}"
    )
    return HTML(html_table(rows, caption, "diswot-table3_3-scores"))


def bounds_table(results: Results) -> HTML:
    """Each definition with the largest value it can take, the values found, and the printed scores that it allows.

    Whether a draw comes near a printed score is told for images of the thesis's size alone: sums over rows fall with
    the size of the last map.
    """
    found, printed = draws(results), _printed("score")
    comparable = SIZES[results.scale].side == SIZES["paper"].side
    rows: list[dict[str, str]] = []
    for name in scores.SCORES:
        largest = scores.bound(name, BATCH)
        values = [value for own in found.get(name, {}).values() for value in own]
        rows.append(
            {
                "definition": NAMES[name],
                "largest possible": _bound(largest),
                "single draws, lowest to highest": f"{min(values):.3g} to {max(values):.3g}" if values else "",
                "printed scores that it allows": ", ".join(_number(s) for s in printed.values() if s <= largest),
                "printed scores among the draws": _within(printed.values(), values) if values and comparable else "",
            }
        )
    caption = f"Bounds of the scores for batches of {BATCH} images; scale {results.scale}, {_seen_at(results)}"
    return HTML(html_table(_without_empty(rows), caption, "diswot-table3_3-bounds"))


def _seen_at(results: Results) -> str:
    """Side of the scored images and size of their last map: "images of 64 px, last map 2 x 2"."""
    side = SIZES[results.scale].side
    return f"images of {side} px, last map {last_map(side)}"


def _within(printed: Iterable[float], values: Sequence[float]) -> str:
    return ", ".join(_number(score) for score in printed if min(values) <= score <= max(values)) or "none"


def costs_table(image_size: int = 224) -> HTML:
    """What the teacher and all sixteen students cost, counted without any run, beside the printed parameters.

    Args:
        image_size: side of the images in pixels; 224 is the thesis's.
    """
    printed, roles = _printed("parameters"), {name: role for role, name in ROLES.items()}
    rows = []
    for name in MEMBERS:
        own = cost(name, image_size)
        rows.append(
            {
                "network": name,
                "row of table 3.3": "teacher" if name == TEACHER.name else roles.get(name, ""),
                "printed": f"{printed[name]:,.0f}" if name in printed else "",
                "backbone, with running statistics": f"{own.backbone_keras_parameters:,}",
                "network, with running statistics": f"{own.keras_parameters:,}",
                "network, trained parameters": f"{own.parameters:,}",
                "multiply-accumulates, millions": f"{own.macs / 1e6:.1f}",
                "FLOPs as the thesis counts, millions": f"{own.profiler_flops / 1e6:.1f}",
                "memory access, millions of elements": f"{own.memory_access / 1e6:.2f}",
                "size, MB": f"{own.megabytes:.2f}",
            }
        )
    caption = (
        f"Costs counted on the networks, for one image of {image_size} px. Keras counts the running statistics of "
        "batch norms as parameters, and the size is four bytes for each of these; memory access reads inputs and "
        "weights and writes outputs of all convolutions and dense layers (eq. 3.7, with groups and true input sizes)"
    )
    return HTML(html_table(rows, caption, "diswot-table3_3-costs"))


def _spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; one draw has none."""
    decimals = 3 if abs(fmean(values)) < 10 else 1
    return f"{fmean(values):.{decimals}f}" + (f" ± {stdev(values):.{decimals}f}" if len(values) > 1 else "")


def _bound(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _drawn(results: Results) -> str:
    """How many draws are recorded: "48 draws (3 series; 1 with a trained teacher, too)"."""
    known, trained = series(results), series(results, "thesis_trained")
    count = sum(len(next(iter(by_student.values()))) for by_student in known.values())
    beside = f"; {len(trained)} with a trained teacher, too" if trained else ""
    return f"{count} draws ({len(known)} series{beside})"


def _number(score: float) -> str:
    return as_printed(score, "score")


# --- which student a draw selects -------------------------------------------------------------------------


def selected(by_student: Mapping[str, Sequence[float]]) -> list[str]:
    """The student of lowest score in each draw; of equal ones the first."""
    names = list(by_student)
    return [names[int(np.argmin(draw))] for draw in zip(*by_student.values(), strict=True)]


def agreement(by_student: Mapping[str, Sequence[float]]) -> float | None:
    """Kendall's tau between the orders of two draws, mean over all pairs of draws; None for a single draw."""
    by_draw = np.array(list(by_student.values())).T  # (draws, students)
    taus = [float(tau_b(one, other)) for one, other in combinations(by_draw, 2)]
    return fmean(taus) if taus else None


def selections_table(results: Results) -> HTML:
    """What each definition selects: by single draws, and by their mean, with the accuracy of that student."""
    found = draws(results)
    if not found:
        return _nothing(results, "score")
    rows = [_selection(results, score, by_student) for score, by_student in found.items()]
    caption = (
        f"The student of lowest score among {len(found['thesis'])}, in {_drawn(results)}; scale {results.scale}. "
        f"{_trained(results, len(found['thesis']))}"
    )
    return HTML(html_table(_without_empty(rows), caption, "diswot-table3_3-selected"))


def _selection(results: Results, score: str, by_student: Mapping[str, Sequence[float]]) -> dict[str, str]:
    measured = accuracies(results)
    known = {name: fmean(own.values()) for name, own in measured.items()}
    means = scored(results, score)
    chosen, best = min(means, key=means.__getitem__), max(known, key=known.__getitem__, default="")
    tau = agreement(by_student)
    title = f"best of the {len(known)} trained"
    return {
        "score": NAMES[score],
        "selected by single draws (how often)": ", ".join(
            f"{name} ({count})" for name, count in Counter(selected(by_student)).most_common()
        ),
        "tau between two draws": "" if tau is None else f"{tau:+.2f}",
        "selected by the mean": chosen,
        "its accuracy, % (seeds)": _accuracy(measured[chosen]) if chosen in measured else "not trained",
        title: best,
        f"{title}, % (seeds)": _accuracy(measured[best]) if best else "",
    }


def _accuracy(by_seed: Mapping[int, float]) -> str:
    """Mean and number of seeds."""
    return f"{fmean(by_seed.values()):.2f} ({len(by_seed)})"


def _trained(results: Results, students: int) -> str:
    """How many of the scored students are trained, and with how many seeds."""
    counts = [len(by_seed) for by_seed in accuracies(results).values()]
    if not counts:
        return "None of them is trained yet"
    told = f"{len(counts)} of the {students} are trained, with at least {min(counts)} seed{'s' * (min(counts) > 1)}"
    return told if len(counts) == students else f"{told}: the best of them may not be the best of {students}"


def series_table(results: Results) -> HTML:
    """How far the recorded series of draws agree: tau between the orders of their means, and what each selects."""
    found = {score: series(results, score) for score in NAMES}
    if len(found["thesis"]) < 2:
        return sentence(f"Fewer than two series of draws are recorded at scale {results.scale}.")
    rows = [_series_row(score, by_seed) for score, by_seed in found.items() if by_seed]
    caption = (
        "Independent series of draws compared: Kendall's tau between the orders that their means give to the students, "
        f"and the student of lowest mean in each. Scale {results.scale}"
    )
    return HTML(html_table(rows, caption, f"diswot-table3_3-series-{results.scale}"))


def _series_row(score: str, by_seed: Mapping[int, Mapping[str, Sequence[float]]]) -> dict[str, str]:
    means = {seed: {name: fmean(values) for name, values in own.items()} for seed, own in by_seed.items()}
    names = list(next(iter(means.values())))
    orders = {seed: np.array([own[name] for name in names]) for seed, own in means.items()}
    taus = {f"tau of {one} and {other}": tau_b(orders[one], orders[other]) for one, other in combinations(orders, 2)}
    chosen = {f"series {seed} selects": min(own, key=own.__getitem__) for seed, own in means.items()}
    return {"score": NAMES[score], **{title: f"{float(tau):+.2f}" for title, tau in taus.items()}, **chosen}


# --- what a predictor is worth ----------------------------------------------------------------------------


def predictors(results: Results) -> dict[str, tuple[By, bool]]:
    """Name -> (student -> number, whether lower is better): the scores, NWOT, sizes, and a random order."""
    students = [m.name for m in SIZES[results.scale].students]
    found: dict[str, tuple[By, bool]] = {NAMES[score]: (scored(results, score), True) for score in draws(results)}
    if known := nwot(results):
        found["NWOT"] = known, False
    side = SIZES[results.scale].side
    found["parameters"] = rivals.parameters(students, side), False
    found["multiply-accumulates"] = rivals.macs(students, side), False
    found["a random order"] = rivals.random_order(0, students), False
    return found


def correlations_table(results: Results) -> HTML:
    """Rank correlation of every predictor with the accuracy of the distilled students, full and leak-free images."""
    measured, clean = accuracies(results), accuracies(results, "leak_free")
    if not draws(results) or not measured:
        return _nothing(results, "score with distilled students")
    rows = []
    for name, (predictor, lower) in predictors(results).items():
        full, leak_free = _ranked(predictor, measured, lower, RESAMPLES), _ranked(predictor, clean, lower)
        if isinstance(full, str) or isinstance(leak_free, str):
            rows.append({"predictor": name, "why not": full if isinstance(full, str) else leak_free})
            continue
        rows.append(
            {
                "predictor": name,
                "expected to be better": "lower" if lower else "higher",
                "Kendall's tau": f"{full.tau:+.3f}",
                "tau, 95 % (seeds)": _range(full.tau_interval),
                "p": f"{full.p:.3f}",
                "Spearman's rho": f"{full.rho:+.3f}",
                "tau, leak-free images": f"{leak_free.tau:+.3f}",
            }
        )
    seeds = min(map(len, measured.values()))
    caption = (
        f"Rank correlation with the accuracy of {len(measured)} distilled students, mean over seeds (at least {seeds} "
        f"each), scale {results.scale}. {_critical(len(measured))}"
    )
    return HTML(html_table(_without_empty(rows), caption, "diswot-table3_3-correlations"))


def _ranked(
    predictor: By, against: Mapping[str, Mapping[int, float]], lower: bool, resamples: int = 1
) -> RankCorrelation | str:
    """The correlation over the students that have both, or why there is none; intervals need many resamples."""
    common = [name for name in predictor if name in against]
    try:
        return rank_correlation(
            {name: predictor[name] for name in common},
            {name: against[name] for name in common},
            lower_is_better=lower,
            resamples=resamples,
        )
    except ValueError as problem:  # too few students, equal numbers, or one that is not finite: the table says so
        return str(problem)


def _critical(students: int) -> str:
    try:
        least = critical_tau(students)
    except ValueError:
        return f"No order of {students} students can have p below 0.05: nothing can be concluded from so few"
    return f"With {students} students |tau| must reach {least:.2f} for p below 0.05"


def _range(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:+.2f} to {ends[1]:+.2f}"


def ranked(results: Results) -> bool:
    """Whether scores and distilled students are both recorded, three students at least."""
    return bool(draws(results)) and len(accuracies(results)) > 2


def score_headline(page: TablePage) -> Markdown | None:
    """One sentence for the top of the page: taus of the score and of size at the largest recorded scale, if any."""
    results = evidence(page, ranked)
    if results is None:
        scored_only = evidence(page, draws)
        if scored_only is None:
            return None
        return Markdown(
            f"Of untrained students, {_drawn(scored_only)} are scored at scale `{scored_only.scale}`; see *The scores*."
        )
    measured, known = accuracies(results), predictors(results)
    told = []
    for name in (NAMES["thesis"], "relation term alone", "parameters"):
        found = _ranked(known[name][0], measured, known[name][1]) if name in known else ""
        if not isinstance(found, str):
            told.append(f"{name} {found.tau:+.2f} (p = {found.p:.2g})")
    if not told:
        return None
    return Markdown(f"**Kendall's tau with the accuracy after distillation ({basis(measured)}):** {', '.join(told)}.")


def gaps_table(results: Results) -> HTML:
    """Test and training accuracy of every student, and the gap between them, measured and printed."""
    tests, clean, trains = (accuracies(results, metric) for metric in ("last", "leak_free", "train"))
    if not tests:
        return _nothing(results, "distilled student")
    printed = {name: train - _printed("")[name] for name, train in _printed("train").items()}
    rows = [
        {
            "student": name,
            "test": interval_text(own),
            "test, leak-free images": interval_text(clean.get(name, {})),
            "training": interval_text(trains.get(name, {})),
            "gap": interval_text(paired(trains.get(name, {}), own), signed=True),
            "printed gap": f"{printed[name]:+.2f}" if name in printed else "",
        }
        for name, own in tests.items()
    ]
    neighbour = {
        metric: results.samples(metric=metric, student="nearest_neighbour") for metric in ("last", "leak_free")
    }
    if neighbour["last"]:
        texts = [f"{fmean(own.values()):.2f}" if own else "" for own in neighbour.values()]
        rows.append({"student": "nearest neighbour", "test": texts[0], "test, leak-free images": texts[1]})
    caption = f"Accuracy in % after {SIZES[results.scale].space} epochs, mean ± half the 95 % interval (seeds); the "
    caption += f"training images without augmentation. Scale {results.scale}"
    return HTML(html_table(rows, caption, "diswot-table3_3-gaps"))


# --- figure 3.3 -------------------------------------------------------------------------------------------


def scatter_figure(results: Results) -> HTML:
    """Figure 3.3: accuracy against the score, against the number of parameters, and as printed."""
    measured, found = accuracies(results), draws(results).get("thesis", {})
    names = [name for name in measured if name in found]
    if not names:
        return _nothing(results, "score with distilled students")
    bar = results.samples(metric="last", student="nearest_neighbour")
    tested = {name: interval(measured[name]) for name in names}
    size = {name: cost(name).parameters / 1e6 for name in names}
    mean = scored(results)
    printed, told = _printed("score"), _printed("")

    def draw(figure: Figure) -> None:
        left, middle, right = figure.subplots(1, 3)
        for axes, x, spread in ((left, mean, {n: _deviation(found[n]) for n in names}), (middle, size, {})):
            for name in names:
                low_high = tested[name].half_width
                axes.errorbar(
                    x[name], tested[name].mean, xerr=spread.get(name), yerr=low_high, **_marker(name), label=name
                )
            if bar:
                axes.axhline(fmean(bar.values()), color="grey", linestyle=":", label="nearest neighbour")
        for name in printed:
            right.errorbar(printed[name], told[name], **_marker(name), label=name)
        left.set(xlabel="thesis score (mean and deviation of draws)", ylabel="test accuracy, %", title="score")
        middle.set(xlabel="trained parameters, millions", title="size")
        right.set(xlabel="printed score, logarithmic", xscale="log", title="as printed")
        one_legend(figure, 4)

    spoken = "; ".join(f"{n} score {mean[n]:.2f}, {size[n]:.2f} million, {tested[n].text(1)} %" for n in names)
    alt = f"Accuracy of distilled students against score and size at scale {results.scale}: {spoken}. As printed: "
    alt += "; ".join(f"{name} score {printed[name]:g}, {told[name]:.2f} %" for name in printed)
    return themed(draw, (10, 3.6 + 0.18 * len(names) / 4), alt)


def _marker(name: str) -> dict[str, Any]:
    """Colour for the width, shape for the head, hollow for the shallow ones."""
    own = member(name)
    widths = sorted({each.width for each in STUDENTS.values()}, reverse=True)
    style = "full" if own.depth == 17 else "none"
    return {"fmt": HEADS[own.head], "color": f"C{widths.index(own.width)}", "fillstyle": style, "markersize": 6}


def _deviation(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


# --- search -----------------------------------------------------------------------------------------------


def one_draw(dataset: str, seed: int = 0) -> dict[str, float]:
    """The thesis's score of all sixteen students in a single draw, as the thesis appears to have used it."""
    found = scores.score_space(load_dataset(dataset, "train"), batch=BATCH, seed=seed)["thesis"]
    return {name: own.mean for name, own in found.items()}


def searched(results: Results) -> dict[str, float]:
    """Scores of all sixteen students to search in: the recorded means; in a smoke run, which has fewer, one draw."""
    found = scored(results)
    if found.keys() == STUDENTS.keys():
        return found
    return one_draw(SIZES["smoke"].dataset) if results.scale == "smoke" else {}


def share_found(score: Callable[[int], By], evaluations: int, seeds: int) -> tuple[float, float, float]:
    """How often evolution finds the lowest of sixteen scores, and random search with as many distinct members.

    Args:
        score: seed -> scores of all students.
        evaluations: of `search.evolve`.
        seeds: searches.

    Returns:
        (share of evolution, share of random search, mean number of distinct members scored).
    """
    hits = [0, 0]
    spent = []
    for seed in range(seeds):
        own = score(seed)
        best = min(own, key=own.__getitem__)
        found = evolve(own.__getitem__, seed, evaluations)
        spent.append(found.spent)
        hits[0] += found.best == best
        hits[1] += random_search(own.__getitem__, seed, found.spent).best == best
    return hits[0] / seeds, hits[1] / seeds, fmean(spent)


def search_table(known: By, seeds: int = 200) -> HTML:
    """Evolution and random search against scoring all sixteen: how often each finds the lowest score.

    Args:
        known: scores of all sixteen students (`searched`); empty: structureless scores alone.
        seeds: searches; structureless scores are drawn anew for each.
    """
    spaces: dict[str, Callable[[int], By]] = {"these scores": lambda seed: known} if known else {}
    spaces["structureless scores"] = rivals.random_order
    rows = []
    for evaluations in EVALUATIONS:
        row = {"search": f"evolution, {evaluations} evaluations"}
        control = {"search": "random search, as many members"}
        for name, score in spaces.items():
            evolved, by_chance, spent = share_found(score, evaluations, seeds)
            row |= {f"members scored, {name}": f"{spent:.1f}", f"finds the lowest, {name}": f"{evolved:.0%}"}
            control |= {f"members scored, {name}": f"{spent:.1f}", f"finds the lowest, {name}": f"{by_chance:.0%}"}
        rows += [row, control]
    rows.append(_exhaustive_row(spaces))
    caption = f"Search for the lowest of sixteen scores, {seeds} searches each; repeats are remembered and cost nothing"
    return HTML(html_table(rows, caption, "diswot-table3_3-search"))


def _exhaustive_row(spaces: Mapping[str, Callable[[int], By]]) -> dict[str, str]:
    """Scoring all members leaves nothing to chance, so that it is done once."""
    row = {"search": "exhaustive"}
    for name, score in spaces.items():
        own = score(0)
        found = exhaustive(own.__getitem__)
        share = float(found.score == min(own.values()))
        row |= {f"members scored, {name}": f"{found.spent}", f"finds the lowest, {name}": f"{share:.0%}"}
    return row


# --- the printed triple -----------------------------------------------------------------------------------


def printed_predictors() -> dict[str, tuple[float, bool]]:
    """Printed column -> (tau-b with the printed test accuracy, whether its best student is the best one)."""
    told = _printed("")
    best = max(told, key=told.__getitem__)
    columns = {"score": ("score", -1), "parameters": ("parameters", 1), "training accuracy": ("train", 1)}
    found = {}
    for name, (what, sign) in columns.items():
        column = {student: sign * value for student, value in _printed(what).items()}
        tau = float(kendalltau([column[student] for student in told], list(told.values())).statistic)
        found[name] = tau, max(column, key=column.__getitem__) == best
    return found


def printed_predictors_table() -> HTML:
    """The printed columns of table 3.3 as predictors of its own test accuracies."""
    rows = [
        {"printed column": name, "tau-b with the printed test accuracy": f"{tau:+.4f}", "names the best student": best}
        for name, (tau, best) in printed_predictors().items()
    ]
    caption = f"Three printed students; chance puts three in the right order once in {np.prod(range(1, 4))} times"
    return HTML(html_table(rows, caption, "diswot-table3_3-triple"))


def _nothing(results: Results, what: str) -> HTML:
    return sentence(f"No {what} is recorded at scale {results.scale} yet.")


def _without_empty(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows less the columns in which none has a text."""
    names = dict.fromkeys(name for row in rows for name in row)
    kept = [name for name in names if any(row.get(name, "") != "" for row in rows)]
    return [{name: row.get(name, "") for name in kept} for row in rows]
