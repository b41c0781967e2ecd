"""What the chapter of the thesis shows live: data, maps and where they point, the identity, LRP rules, score, loss."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from IPython.display import HTML, Markdown
from torch import Tensor, nn

from efflib.data import ImageSet, leakage, load_dataset
from efflib.data.embedded import PHANTOM
from efflib.data.phantom import PLANES, planes_of
from efflib.explain import conservation, localisation
from efflib.kernels import gram_distance
from efflib.models import count_parameters
from efflib.papers.baselines import new_model
from efflib.papers.distillation import Work, work_of
from efflib.papers.diswot import arms
from efflib.papers.diswot.audit import load
from efflib.papers.diswot.claims import CLASSES
from efflib.papers.diswot.maps import LAYERS, maps_of, normalised
from efflib.papers.diswot.scores import Scored, score_space
from efflib.papers.diswot.tables import tables
from efflib.papers.features import labels_of
from efflib.papers.pictures import overlay, trained_model
from efflib.report.figures import image_grid, themed
from efflib.report.html import html_table
from efflib.report.notebook import TablePage
from efflib.report.verdict import CLAIM_VERDICTS, NOT_RUN
from efflib.scales import SCALES
from efflib.trials import Store, collect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.trials import Results, Trial

Networks = Mapping[str, nn.Module]
PAGES = ("table3_3", "table3_4", "table3_5", "table3_6", "table3_7", "table3_8")
ENLARGED = 4  # phantom pixels are drawn so large that the tumour's outline stays thin
OUTLINE = (255, 160, 0)
GXA = "gxa"  # the thesis's "LRP"
MADE_BY = {"gradcam": "Grad-CAM", GXA: "gradient x activation", "lrp": "LRP"}  # kind of map -> words for tables
MAPS = (
    ("s32", "gradcam"), ("s32", GXA), ("s16", "gradcam"), ("s16", GXA), ("s16", "lrp"), ("input", GXA),
    ("input", "lrp"),
)  # fmt: skip
DRAWN = tuple(each for each in MAPS if each != ("input", GXA))
RULES = {
    GXA: "gradient x input, no rule",
    "zero": "LRP-0",
    "gamma": "gamma",
    "zplus": "z+",
    "composite": "composite: epsilon, gamma, z^B",
}


# --- what the chapter found -------------------------------------------------------------------------------


def up_front() -> Markdown:
    """Each page of the chapter with the verdicts on its claims, at the largest scale that ran for any of them."""
    lines = []
    for name in PAGES:
        table, told = tables[name], "no claim has been tested on real data yet"
        counted: dict[str, Counter[str]] = {}
        for own in (own for key, own in tables.items() if (own.page or key) == name and own.claims):
            for scale, shown in TablePage(own, "smoke", 1).recorded.items():
                counted.setdefault(scale, Counter()).update(verdict.verdict for _, verdict in shown.claims)
        # The nearest neighbour alone, which is recorded at every scale first, tests nothing.
        ran = [scale for scale, counts in counted.items() if counts.keys() - {NOT_RUN}]
        if ran:
            scale = max(ran, key=SCALES.index)
            verdicts = ", ".join(f"{counted[scale][v]} {v}" for v in CLAIM_VERDICTS if counted[scale][v])
            told = f"of {sum(counted[scale].values())} claims, {verdicts} (scale `{scale}`)"
        lines.append(f"- [{table.title}]({name}.ipynb): {told}.")
    return Markdown("\n".join(lines))


# --- the data ---------------------------------------------------------------------------------------------


def examples_strip() -> Any:
    """Figure: the phantom's first test slice of every class in every plane, the true tumour outlined."""
    data = load_dataset("phantom", "test")
    planes = planes_of(data.indices, PHANTOM["test"][1])
    rows = []
    for plane in range(len(PLANES)):
        chosen = [int(np.flatnonzero((planes == plane) & (data.labels == c))[0]) for c in range(len(data.classes))]
        rows.append([outlined(grey(data.images[place]), _masks(data)[place]) for place in chosen])
    alt = f"Slices of the phantom: {', '.join(PLANES)} from top to bottom, {', '.join(data.classes)} from left to right"
    return image_grid(rows, data.classes, PLANES, alt)


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 1) uint8 -> (H, W, 3)."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8, enlarged, with a thin line around the pixels of a mask (H, W)."""
    from scipy.ndimage import binary_dilation

    large, inside = (np.repeat(np.repeat(x, ENLARGED, axis=0), ENLARGED, axis=1) for x in (image, mask))
    edge = binary_dilation(inside, iterations=2) & ~inside
    return np.where(edge[..., None], np.array(OUTLINE, np.uint8), large)


def _masks(data: ImageSet) -> np.ndarray:
    return np.asarray(data.masks)


def class_counts() -> dict[str, dict[str, int]]:
    """Split -> class -> images of the real set, as its publisher counts them."""
    split = load().facts["kaggle_split"]
    return {name: {label: int(split[name][label]) for label in CLASSES} for name in ("train", "test")}


def classes_figure() -> Any:
    """Figure 3.1's role: images per class of the real set, training and test."""
    counts = class_counts()

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (split, per_class) in enumerate(counts.items()):
            at = [number + 0.4 * (place - 0.5) for number in range(len(per_class))]
            bars = axes.bar(at, list(per_class.values()), 0.38, color=f"C{place}", label=f"{split} images")
            axes.bar_label(bars, fmt="{:,.0f}", fontsize="small")
        axes.set_xticks(range(len(CLASSES)), CLASSES)
        axes.margins(y=0.12)
        axes.set_ylabel("images")
        figure.legend(loc="outside lower center", ncols=2, fontsize="small")

    told = "; ".join(f"{split}: {', '.join(f'{c} {n}' for c, n in per.items())}" for split, per in counts.items())
    return themed(draw, (7, 3.4), f"Images per class, {told}")


def neighbour_record() -> tuple[str, Mapping[str, Any]] | None:
    """(scale, metrics) of the nearest neighbour at the largest recorded scale; None if there is no usable record."""
    for scale in reversed([scale for scale in SCALES if scale != "smoke"]):
        (entry,) = collect([arms.nearest_neighbour(scale)], scale).entries
        if entry.usable:
            return scale, entry.metrics
    return None


COPIES = "exact copies, as counted for the audit"


def leak_rows(metrics: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Per class of the test set: copies of training images, what is left, and how often the nearest neighbour is right.

    Args:
        metrics: of a record of recipe "nearest_neighbour"; without it, the copies counted for the audit alone.
    """
    test, copies = class_counts()["test"], load().facts["leakage"]["duplicates"]
    rows = [{"class": c, "test images": f"{test[c]:,}", COPIES: f"{copies.get(c, 0):,}"} for c in CLASSES]
    rows.append({"class": "all", "test images": f"{sum(test.values()):,}", COPIES: f"{sum(copies.values()):,}"})
    if metrics is not None:
        both = [np.asarray(metrics[name]) for name in ("confusion", "leak_free_confusion")]
        images, clean = (np.append(matrix.sum(axis=1), matrix.sum()) for matrix in both)
        right = [np.append(matrix.diagonal(), matrix.trace()) for matrix in both]
        for place, row in enumerate(rows):
            row["copies and near copies"] = f"{images[place] - clean[place]:,}"
            row["leak-free"] = f"{clean[place]:,}"
            row["nearest neighbour, %"] = f"{100 * right[0][place] / images[place]:.2f}"
            row["on leak-free images, %"] = f"{100 * right[1][place] / clean[place]:.2f}" if clean[place] else ""
    return rows


def leak_words() -> Markdown:
    """What was counted for the audit in a copy of the data, as sentences."""
    fact, images = load().facts["leakage"], sum(class_counts()["test"].values())
    copies, far = sum(fact["duplicates"].values()), int(fact["far"])
    right = int(fact["nearest_neighbour_correct"])
    return Markdown(
        f"In the copy of the data that was inspected for the audit, {copies} of the {images:,} test images "
        f"({100 * copies / images:.1f} %) are byte for byte training images, and {images - far} are at least nearly "
        f"so; {far} are left. Giving each test image the class of the most similar training image, on thumbnails of "
        f"16 x 16 grey pixels, is right on {right:,}, {100 * right / images:.2f} %; of the {far} images that are left "
        f"on {fact['nearest_neighbour_far']} %."
    )


def leak_table() -> HTML:
    """Table: copies of training images among the test images, and the nearest neighbour where it is recorded."""
    found = neighbour_record()
    if found is None:
        told = (
            "The real test set. Near copies and the nearest neighbour are measured where the data are; no record of "
            "either is here yet"
        )
    else:
        told = (
            f"The real test set, measured on the full-size images (record of scale {found[0]}), but for the exact "
            "copies, which no record holds: they are quoted"
        )
    return HTML(html_table(leak_rows(found and found[1]), told, "diswot-chapter-leak"))


def copies_table(dataset: str = "phantom") -> HTML:
    """Table: exact and near copies of training images in a test set, per class, measured now.

    Args:
        dataset: one that is at hand; the phantom always is.
    """
    titles = {
        "images": "test images",
        "exact": "exact copies",
        "near": "copies and near copies",
        "leak_free": "leak-free",
    }
    counts = leakage(dataset).counts()
    rows = [
        {"class": name, **{title: f"{counts[kind][name]:,}" for kind, title in titles.items()}}
        for name in counts["images"]
    ]
    caption = f"{dataset}, measured when this page was made"
    return HTML(html_table(rows, caption, f"diswot-chapter-copies-{dataset}"))


# --- a pair to look at ------------------------------------------------------------------------------------


def trials(seed: int) -> dict[str, Trial]:
    """Teacher and best student of the smoke scale, each trained with cross-entropy alone."""
    size = arms.SIZES["smoke"]
    return {"teacher": arms.alone("smoke", size.teacher, seed), "student": arms.alone("smoke", size.best, seed)}


def networks(asked: Mapping[str, Trial], store: Store) -> dict[str, nn.Module]:
    """The trained networks of `trials`, in eval mode."""
    return {name: trained_model(trial, store) for name, trial in asked.items()}


def networks_table(asked: Mapping[str, Trial], results: Results) -> HTML:
    """Table: the two networks and how well they tell the phantom's classes apart."""
    rows = []
    for (name, trial), entry in zip(asked.items(), results.entries, strict=True):
        settings: Any = trial.settings
        options = settings.model_options
        rows.append(
            {
                "network": name,
                "head": options["head"],
                "width": f"{options['width']:g}",
                "blocks": str(options["depth"]),
                "parameters": f"{count_parameters(new_model(settings)):,}",
                "epochs": str(settings.training.epochs),
                "test accuracy, %": f"{entry.metrics['last']:.1f}",
            }
        )
    caption = "A demonstration: one seed, the phantom at 64 px; guessing gives 25 %"
    return HTML(html_table(rows, caption, "diswot-chapter-networks"))


def tumours(per_class: int) -> ImageSet:
    """The first test slices of each class that has a tumour."""
    data = load_dataset("phantom", "test")
    shown = np.unique(data.labels[_masks(data).any(axis=(1, 2))])
    return data.take(np.concatenate([np.flatnonzero(data.labels == label)[:per_class] for label in shown]))


@dataclass(frozen=True)
class Explained:
    """Slices with a tumour, and what the networks make of them.

    Args:
        data: the slices.
        maps: network -> (layer, kind) of `MAPS` -> maps (N, H, W) of the true class.
        right: bool (N,), the slices that every network classifies correctly.
    """

    data: ImageSet
    maps: Mapping[str, Mapping[tuple[str, str], Tensor]]
    right: np.ndarray


def explain(found: Networks, per_class: int = 10) -> Explained:
    """Every map of every network on the first slices of each tumour class."""
    data = tumours(per_class)
    images, labels = normalised(data), labels_of(data)
    with torch.no_grad():
        right = torch.stack([network(images).argmax(dim=1) == labels for network in found.values()]).all(dim=0)
    maps = {
        name: {(layer, kind): maps_of(network, images, kind, labels, layer) for layer, kind in MAPS}
        for name, network in found.items()
    }
    return Explained(data, maps, right.numpy())


def maps_strip(seen: Explained) -> Any:
    """Figure: one slice of each tumour class and the maps of `DRAWN` laid over it, a row per network.

    The first slice of a class that all networks classify correctly, else its first; maps explain the true class either
    way.
    """
    data, rows, lines = seen.data, [], []
    of_class = [np.flatnonzero(data.labels == label) for label in np.unique(data.labels)]
    for n in (int(places[np.argmax(seen.right[places])]) for places in of_class):
        plain, mask = grey(data.images[n]), _masks(data)[n]
        for name, maps in seen.maps.items():
            heat = [overlay(plain, scaled(maps[each][n].numpy())) for each in DRAWN]
            rows.append([outlined(picture, mask) for picture in (plain, *heat)])
            lines.append(f"{data.classes[data.labels[n]]},\n{name}")
    columns = ("slice", *(f"{_SHORT[kind]}\n{layer}" for layer, kind in DRAWN))
    alt = "Slices of the phantom with the tumour outlined, a row per slice and network; maps of the true class: "
    return image_grid(rows, columns, lines, alt + ", ".join(f"{MADE_BY[kind]} at {LAYERS[at]}" for at, kind in DRAWN))


_SHORT = {"gradcam": "Grad-CAM", GXA: "grad. x act.", "lrp": "LRP"}


def scaled(heat: np.ndarray) -> np.ndarray:
    """A map over its largest value; all zeros stay zeros."""
    return heat / max(float(heat.max()), float(np.finfo(heat.dtype).tiny))


# --- where the maps point ---------------------------------------------------------------------------------


def localisation_rows(seen: Explained) -> list[dict[str, Any]]:
    """How well each network's maps find tumours whose pixels are known (`efflib.explain.localisation`)."""
    masks = torch.from_numpy(_masks(seen.data))
    rows = []
    for name, by_kind in seen.maps.items():
        for (layer, kind), maps in by_kind.items():
            measured = localisation(maps, masks)
            rows.append(
                {
                    "network": name,
                    "map of": LAYERS[layer],
                    "made by": MADE_BY[kind],
                    "peak in the tumour": measured["pointing"],
                    "share inside": measured["inside"],
                    "ranking (AUC)": measured["auc"],
                    "area of the tumour": measured["area"],
                    "empty maps": float((maps.flatten(1) == 0).all(dim=1).double().mean()),
                }
            )
    return rows


def localisation_table(rows: Sequence[Mapping[str, Any]]) -> HTML:
    """The rows of `localisation_rows` as a page's table."""
    shown = [{name: f"{v:.2f}" if isinstance(v, float) else v for name, v in row.items()} for row in rows]
    for text, row in zip(shown, rows, strict=True):
        text["area of the tumour"] = f"{row['area of the tumour']:.3f}"
    caption = "Maps of the true class and the tumour's true pixels, means over slices; guessing gives its area"
    return HTML(html_table(shown, caption, "diswot-chapter-localisation"))


def localisation_words(rows: Sequence[Mapping[str, Any]]) -> Markdown:
    """The table's outcome in sentences made from its numbers."""
    parts = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        best = max(own, key=lambda row: row["peak in the tumour"])
        last = next(row for row in own if (row["map of"], row["made by"]) == (LAYERS["s32"], MADE_BY[GXA]))
        parts.append(
            f"In the {name}, the peak lies in the tumour most often with {best['made by']} at the {_place(best)} "
            f"({best['peak in the tumour']:.0%} of the slices); with the thesis's kind, gradient x activation, at the "
            f"{_place(last)} it does in {last['peak in the tumour']:.0%}. A random pixel would in "
            f"{last['area of the tumour']:.1%}."
        )
    return Markdown(" ".join(parts))


def _place(row: Mapping[str, Any]) -> str:
    return str(row["map of"]).partition(" (")[0]


# --- conservation -----------------------------------------------------------------------------------------


def without_biases(network: nn.Module) -> nn.Module:
    """A copy without biases, and with batch norms that scale and do not shift: the same layers, another function."""
    own = copy.deepcopy(network)
    for module in own.modules():
        if isinstance(getattr(module, "bias", None), Tensor):
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()  # type: ignore[union-attr]
    return own


def ratios(network: nn.Module, data: ImageSet, rule: str) -> Tensor:
    """(N,) sum of the pixels' relevance over the logit of the true class, which it explains."""
    return conservation(network, normalised(data), "input", labels_of(data), rule)


def conservation_table(network: nn.Module, per_class: int = 2) -> HTML:
    """Table: how much of the logit each rule accounts for, as trained and without biases."""
    data, bare = tumours(per_class), without_biases(network)
    rows = []
    for rule, words in RULES.items():
        kept, zeroed = (ratios(each, data, rule) for each in (network, bare))
        low, middle, high = kept.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=kept.dtype)).tolist()
        rows.append(
            {
                "rule": words,
                "as trained, median": f"{middle:.2f}",
                "middle half": f"{low:.2f} to {high:.2f}",
                "without biases, smallest": f"{float(zeroed.min()):.3f}",
                "without biases, largest": f"{float(zeroed.max()):.3f}",
            }
        )
    caption = f"Relevance of all pixels over the logit that it explains, the student on {len(data)} slices; 1 is all"
    return HTML(html_table(rows, caption, "diswot-chapter-conservation"))


# --- the score --------------------------------------------------------------------------------------------


def scored(seed: int, draws: int = 5, batch: int = 16) -> dict[str, Scored]:
    """The thesis's score of the smoke students in several draws of weights and batch of the phantom's training slices.

    Scores choose a student, so that test slices are not for them.
    """
    names, data = [member.name for member in arms.SIZES["smoke"].students], load_dataset("phantom", "train")
    return score_space(data, names, scores=("thesis",), draws=draws, batch=batch, seed=seed)["thesis"]


def orders(found: Mapping[str, Scored]) -> Iterator[tuple[str, ...]]:
    """Students of each draw from the lowest score to the highest."""
    for draw in zip(*(each.draws for each in found.values()), strict=True):
        by_score = dict(zip(found, draw, strict=True))
        yield tuple(sorted(by_score, key=by_score.__getitem__))


def scores_table(found: Mapping[str, Scored]) -> HTML:
    """Table: the score of each student in each draw, its rank, and below both terms with the bound."""
    rows: list[dict[str, str]] = []
    for number, order in enumerate(orders(found)):
        ranked = {name: f"{each.draws[number]:.3f} (rank {order.index(name) + 1})" for name, each in found.items()}
        rows.append({"draw": str(number + 1), **ranked})
    for term in ("semantic", "relation"):
        means = {name: f"{np.mean(each.terms[term]):.3f}" for name, each in found.items()}
        rows.append({"draw": f"mean {term} term", **means})
    largest = next(iter(found.values())).bound
    caption = (
        "Scores of untrained students on training slices of the phantom, lower is better; weights N(0, 1); bound "
        f"{largest:.3f}"
    )
    return HTML(html_table(rows, caption, "diswot-chapter-scores"))


def scores_words(found: Mapping[str, Scored]) -> Markdown:
    """How stable the selection is, from the draws."""
    ranked = list(orders(found))
    lowest = Counter(order[0] for order in ranked)
    told = ", ".join(f"`{name}` in {lowest[name]}" for name in found)
    return Markdown(
        f"Of {len(ranked)} draws, the lowest score belongs to {told}. {len(set(ranked))} different orders of "
        f"{len(found)} students occur."
    )


# --- the loss ---------------------------------------------------------------------------------------------


def distances(found: Networks, data: ImageSet, shares: Sequence[float] = (1.0, 0.5, 0.1, 0.01)) -> list[dict[str, Any]]:
    """Both distances of the relation term between teacher and student, and on the way from the one to the other.

    Features of the last map move in a straight line: at share 1 they are the student's, near 0 the teacher's.

    Returns:
        A row per share: the unsquared distance (eq. 2.12), half of its square, the cosine form (eq. 2.27), and the
        length of the gradient of both with respect to the student's features.
    """
    images = normalised(data)
    with torch.no_grad():
        teacher, student = (found[name].maps(images)["s32"].double() for name in ("teacher", "student"))  # type: ignore[operator]
    rows = []
    for share in shares:
        features = torch.lerp(teacher, student, share).requires_grad_()
        losses = {metric: gram_distance(features, teacher, metric) for metric in ("l2", "cosine")}
        lengths = {m: float(torch.autograd.grad(loss, features)[0].norm()) for m, loss in losses.items()}
        values = {metric: float(loss.detach()) for metric, loss in losses.items()}
        rows.append(
            {
                "way from the teacher": share,
                "L2 (eq. 2.12)": values["l2"],
                "half of its square": values["l2"] ** 2 / 2,
                "cosine (eq. 2.27)": values["cosine"],
                "gradient of L2": lengths["l2"],
                "gradient of cosine": lengths["cosine"],
            }
        )
    return rows


def distances_table(found: Networks, per_class: int = 8) -> HTML:
    """The rows of `distances` as a page's table."""
    rows = distances(found, tumours(per_class))
    shown = [
        {
            **{name: f"{value:.6f}" for name, value in row.items() if not name.startswith(("way", "gradient"))},
            **{name: f"{value:.1e}" for name, value in row.items() if name.startswith("gradient")},
        }
        for row in rows
    ]
    shown = [{"way from the teacher": f"{row['way from the teacher']:g}", **text} for row, text in zip(rows, shown)]
    caption = "Relation distance between the features of teacher and student, double precision; gradients as lengths"
    return HTML(html_table(shown, caption, "diswot-chapter-distances"))


# --- what it costs ----------------------------------------------------------------------------------------


def step_work(layer: str, scale: str = "tiny") -> Work:
    """Work per image of the best student's training step with DisWOT+ at a layer, counted by running it."""
    settings: Any = arms.distilled(scale, arms.SIZES[scale].best, 0, "gradcam_l2").settings
    return work_of(settings.model_copy(update={"options": {**settings.options, "layers": layer}}))


def cost_table(scale: str = "tiny") -> HTML:
    """Table: FLOPs of a training step with cross-entropy, KD, and DisWOT+ at either layer."""
    works = {layer: step_work(layer, scale) for layer in ("s32", "s16")}
    own = next(iter(works.values()))
    rows = [_cost_row("cross-entropy", Work(own.student, 0, 0, 0)), _cost_row("KD", replace(own, modules=0))]
    rows += [_cost_row(f"DisWOT+, {LAYERS[layer]}", work) for layer, work in works.items()]
    caption = (
        f"One training step of {arms.SIZES[scale].best.name} at {arms.SIZES[scale].side} px, 10⁹ FLOPs per image. What "
        "is trained counts three forward passes, the maps of both networks too: an upper bound of their cost"
    )
    return HTML(html_table(rows, caption, "diswot-chapter-cost"))


def _cost_row(words: str, work: Work) -> dict[str, str]:
    return {
        "loss": words,
        "teacher": f"{work.teacher / 1e9:.2f}",
        "maps": f"{work.modules / 1e9:.3f}",
        "step": f"{work.step / 1e9:.2f}",
        "against cross-entropy": f"{work.step / (3 * work.student):.2f}",
    }
