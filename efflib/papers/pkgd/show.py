"""Live pictures and measurements for the pages of PKGD: times, clusters, attention, and what guidance does to a map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, Markdown
from torch import Tensor, nn

from efflib.data import NORMALISATION, ImageSet, load_dataset
from efflib.distill import create
from efflib.distill.common import levels
from efflib.distill.pkgd import PKGD
from efflib.explain import localisation
from efflib.kernels.guided_attention import attention_maps
from efflib.models import Features, evaluating, features
from efflib.papers.baselines import ClassifierConfig, training_flops
from efflib.papers.distillation import DistillConfig, work_of
from efflib.papers.features import pixels_of, pooled_features
from efflib.papers.pictures import examples, overlay, trained_model
from efflib.papers.pkgd import claims
from efflib.papers.pkgd.arms import arm
from efflib.report.figures import image_grid, one_legend, themed
from efflib.report.html import html_table, sentence
from efflib.report.notebook import at_every_scale
from efflib.report.verdict import Interval, interval, interval_text, paired
from efflib.training import seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.trials import Results, Store, Trial

__all__ = [
    "accuracy_against_time",
    "at_every_scale",
    "attention",
    "attention_strip",
    "clusters_strip",
    "clusters_table",
    "examples",
    "fitted_guidance",
    "flops_table",
    "guidance_panels",
    "guidance_strip",
    "localisation_rows",
    "localisation_words",
    "networks",
    "refuse_untrained",
    "some_of",
    "step_flops",
    "times",
    "times_table",
    "trained_model",
    "tsne",
]

Networks = Mapping[str, tuple[nn.Module, ClassifierConfig]]

NAMES = {
    "teacher": "teacher", "baseline": "student alone", "kd": "KD", "dkd": "DKD", "at": "AT", "ft": "FT", "crd": "CRD",
    "reviewkd": "ReviewKD", "sakd": "SAKD", "ickd": "ICKD-C", "rpkd": "RP KD", "pkgd": "PKGD",
}  # fmt: skip


# --- figure 5: accuracy against time ----------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """Runs of one cell on one machine: seed -> accuracy (%) and seconds per epoch; FLOPs of a step per image."""

    cell: Mapping[str, str]
    machine: tuple[str, str]
    accuracy: dict[int, float]
    seconds: dict[int, float]
    flops: float

    @property
    def pair(self) -> tuple[str, str]:
        return self.cell["teacher"], self.cell["student"]


def times(results: Results) -> list[Timed]:
    """The usable runs by cell and machine (device, precision): times of different machines are never mixed."""
    groups: dict[Any, Timed] = {}
    for entry in results.entries:
        if not entry.usable or entry.record is None or entry.record.metrics.get("seconds_per_epoch") is None:
            continue
        machine = (entry.record.provenance.device, entry.record.precision)
        group = groups.setdefault(
            (tuple(entry.cell.items()), machine), Timed(entry.cell, machine, {}, {}, step_flops(entry.trial))
        )
        group.accuracy[entry.seed] = entry.record.metrics["last"]
        group.seconds[entry.seed] = entry.record.metrics["seconds_per_epoch"]
    return list(groups.values())


def step_flops(trial: Trial) -> float:
    """FLOPs per image of a training step: three forward passes' worth for what is trained, one for the teacher."""
    if isinstance(trial.settings, DistillConfig):
        return work_of(trial.settings).step
    settings: Any = trial.settings
    once = settings.model_copy(update={"training": settings.training.model_copy(update={"epochs": 1})})
    return training_flops(once, 1, 0)


def times_table(results: Results) -> Any:
    """Table: accuracy, seconds per epoch and work of every method; relative to KD on the same machine, by seed."""
    found = times(results)
    if not found:
        return sentence(f"No run with a time is recorded at scale {results.scale} yet.")
    kd = {(run.pair, run.machine): run for run in found if run.cell["method"] == "kd"}
    rows = [_times_row(run, kd.get((run.pair, run.machine))) for run in found]
    caption = (
        f"Scale {results.scale}: accuracy of the last epoch (%), median clock time of an epoch's training steps, and "
        "FLOPs of a step; mean ± half the 95 % interval (seeds)"
    )
    return HTML(html_table(rows, caption, f"pkgd-figure5-times-{results.scale}"))


def _times_row(run: Timed, kd: Timed | None) -> dict[str, Any]:
    row = {"pair": " to ".join(run.pair), "method": NAMES[run.cell["method"]]}
    row |= {"accuracy": interval(run.accuracy).text(), "seconds per epoch": interval(run.seconds).text()}
    slower = {} if kd is None else {s: run.seconds[s] / kd.seconds[s] for s in paired(run.seconds, kd.seconds)}
    row["time / KD's"] = interval_text(slower)
    row["GFLOP per image"] = f"{run.flops / 1e9:.3g}"
    row["FLOPs / KD's"] = "" if kd is None else f"{run.flops / kd.flops:.2f}"
    return row | {"machine": ", ".join(run.machine)}


def accuracy_against_time(results: Results) -> Any:
    """Figure: accuracy over seconds per epoch, one panel per pair, on the machine that ran most of them."""
    found = [run for run in times(results) if run.cell["method"] != "teacher"]
    if not found:
        return sentence(f"No run with a time is recorded at scale {results.scale} yet, so there is nothing to draw.")
    machines = [run.machine for run in found]
    machine = max(dict.fromkeys(machines), key=machines.count)
    shown = [run for run in found if run.machine == machine]
    pairs = list(dict.fromkeys(run.pair for run in shown))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
        for axes, pair in zip(panels, pairs, strict=True):
            for run in (run for run in shown if run.pair == pair):
                _point(axes, run)
            axes.margins(0.15)
            axes.set(title=" to ".join(pair), xlabel="seconds per epoch")
        panels[0].set_ylabel("accuracy of the last epoch, %")
        one_legend(figure, 4)

    spoken = "; ".join(_spoken(run) for run in shown)
    return themed(draw, (4 * len(pairs) + 2, 4), f"Accuracy against time on {', '.join(machine)}: {spoken}")


# Group -> marker; the colours follow in this order.
_GROUPS = {"student alone": "v", "logits": "o", "features": "s", "PKGD": "D"}


def _group(method: str) -> str:
    if method in ("baseline", "pkgd"):
        return NAMES[method]
    return "logits" if method in claims.LOGITS else "features"


def _point(axes: Any, run: Timed) -> None:
    x, y, group = interval(run.seconds), interval(run.accuracy), _group(run.cell["method"])
    style = {"fmt": _GROUPS[group], "color": f"C{list(_GROUPS).index(group)}", "capsize": 3, "markersize": 5}
    axes.errorbar(x.mean, y.mean, xerr=_half(x), yerr=_half(y), label=group, **style)
    name = NAMES[run.cell["method"]]
    axes.annotate(name, (x.mean, y.mean), xytext=(5, 5), textcoords="offset points", fontsize="small")


def _half(found: Interval) -> float:
    """NaN draws nothing where one seed gives no interval; 0 would look exact."""
    return float("nan") if found.half_width is None else found.half_width


def _spoken(run: Timed) -> str:
    name = NAMES[run.cell["method"]]
    return f"{' to '.join(run.pair)}, {name}: {interval(run.accuracy).text()} % at {interval(run.seconds).text()} s"


def flops_table(scale: str = "tiny", methods: Sequence[str] = claims.TIMED) -> Any:
    """Table: work of a training step of the paper's pairs at a scale, counted without any run."""
    rows = [
        {"pair": " to ".join(pair), "method": NAMES[method], **_work_row(arm(scale, *pair, "tiny_imagenet", 0, method))}
        for pair in claims.TINY_PAIRS
        for method in methods
    ]
    caption = (
        f"GFLOP per image of a training step at scale {scale}: forward and backward pass of the student and of the "
        "method's modules, forward pass of the teacher"
    )
    return HTML(html_table(rows, caption, f"pkgd-figure5-flops-{scale}"))


def _work_row(trial: Trial) -> dict[str, str]:
    work = work_of(trial.settings)  # type: ignore[arg-type]
    parts = {"student": 3 * work.student, "teacher": work.teacher, "modules": 3 * work.modules, "in all": work.step}
    return {name: f"{flops / 1e9:.2f}" for name, flops in parts.items()}


# --- figure 6: clusters and attention ---------------------------------------------------------------------

# Metric of the recipe `clusters` -> words and digits.
MEASURES = {"last": ("accuracy (%)", 2), "silhouette": ("silhouette", 4), "knn20": ("20 nearest neighbours (%)", 2)}
_CONTRASTS = (("pkgd", "kd"), ("pkgd", "baseline"), ("kd", "baseline"))


def clusters_table(results: Results) -> Any:
    """Table: both measures of every network, then the differences of the claims, paired by seed."""
    cells = {tuple(entry.cell.items()): entry.cell for entry in results.entries}.values()
    rows = [_clusters_row(results, cell) for cell in cells]
    for cell in (cell for cell in cells if cell["method"] == "baseline"):
        rows += [_contrast_row(results, cell, one, other) for one, other in _CONTRASTS]
    rows = [row for row in rows if any(row[words] for words, _ in MEASURES.values())]
    if not rows:
        return sentence(f"No features are measured at scale {results.scale} yet.")
    caption = f"Pooled test features at scale {results.scale}: mean ± half the 95 % interval (seeds)"
    return HTML(html_table(rows, caption, f"pkgd-figure6-clusters-{results.scale}"))


def _clusters_row(results: Results, keys: Mapping[str, Any]) -> dict[str, str]:
    texts = {}
    for metric, (words, digits) in MEASURES.items():
        found = results.samples(metric=metric, **keys)
        texts[words] = interval_text(found, digits)
    return {"pair": f"{keys['teacher']} to {keys['student']}", "features of": NAMES[keys["method"]], **texts}


def _contrast_row(results: Results, keys: Mapping[str, Any], one: str, other: str) -> dict[str, str]:
    texts = {}
    for metric, (words, digits) in MEASURES.items():
        arms = [results.samples(metric=metric, **{**keys, "method": method}) for method in (one, other)]
        texts[words] = interval_text(paired(*arms), digits, signed=True)
    name = f"{NAMES[one]} less {NAMES[other]}"
    return {"pair": f"{keys['teacher']} to {keys['student']}", "features of": name, **texts}


def refuse_untrained(results: Results) -> None:
    """Check that the networks behind a demonstration of figure 6 beat guessing.

    Raises:
        ChanceLevel: as `efflib.report.notebook.refuse_chance_level`.
    """
    from efflib.report.notebook import refuse_chance_level
    from efflib.trials import collect

    refuse_chance_level(collect([entry.trial.parents["network"] for entry in results.entries], results.scale))


def networks(results: Results, store: Store) -> Networks:
    """Name -> (network, its settings) of figure 6's first seed, as far as their weights are here."""
    found: dict[str, Any] = {}
    for entry in results.entries:
        if entry.seed == results.entries[0].seed:
            try:
                model = trained_model(entry.trial.parents["network"], store)
            except FileNotFoundError:
                continue
            found[NAMES[entry.cell["method"]]] = model, entry.trial.settings
    return found


def some_of(data: ImageSet, images: int = 300, classes: int = 10) -> ImageSet:
    """The first images of the first classes: more points or colours than that cannot be told apart."""
    return data.take(np.flatnonzero(data.labels < classes)[:images])


def _first_test_images(found: Networks) -> ImageSet:
    return some_of(load_dataset(next(iter(found.values()))[1].dataset, "test"))


def tsne(points: Tensor, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """(N, D) -> (N, 2) by t-SNE (van der Maaten and Hinton 2008), started from the principal components."""
    from sklearn.manifold import TSNE

    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(points.double().numpy())


def clusters_strip(found: Networks, data: ImageSet | None = None, seed: int = 0) -> Any:
    """Figure: t-SNE of each network's pooled features of the same images, coloured by class.

    Args:
        found: of `networks`.
        data: at most ten classes; the first test images of the first ten, when None.
        seed: of t-SNE.
    """
    if not found:
        return sentence("The networks' weights are not here, so their features cannot be drawn.")
    data = _first_test_images(found) if data is None else data
    maps = {name: tsne(pooled_features(model, data, config)[0], seed=seed) for name, (model, config) in found.items()}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(maps), squeeze=False)[0]
        for axes, (name, points) in zip(panels, maps.items(), strict=True):
            for label in np.unique(data.labels):
                chosen = points[data.labels == label]
                axes.scatter(*chosen.T, s=6, color=f"C{label}", label=data.classes[label])
            axes.set(title=name, xticks=[], yticks=[])
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=5, fontsize="small", markerscale=2)

    alt = f"t-SNE of the pooled features of {len(data)} test images, coloured by class: {', '.join(maps)}"
    return themed(draw, (2.6 * len(maps), 3.4), alt)


@torch.no_grad()
def attention(model: nn.Module, data: ImageSet) -> Tensor:
    """(N, H, W) in 0..1: mean over channels of the squared last stage, min-max per image, bilinear to the image.

    Source: Zagoruyko and Komodakis 2017 for the map; section 5, "Figure 6", of the PKGD spec.
    """
    with evaluating(model):
        squared = features(model, pixels_of(data, *NORMALISATION[data.name])).stages[-1].square().mean(dim=1)
    low, high = squared.amin(dim=(1, 2), keepdim=True), squared.amax(dim=(1, 2), keepdim=True)
    scaled = (squared - low) / (high - low).clamp(min=torch.finfo(squared.dtype).tiny)
    return F.interpolate(scaled[:, None], size=data.images.shape[1:3], mode="bilinear", align_corners=False)[:, 0]


def attention_strip(found: Networks, images: int = 5) -> Any:
    """Figure: rendered objects down, each network's attention laid over them across."""
    data = examples().take(range(images))
    heat = {name: attention(model, data).numpy() for name, (model, _) in found.items()}
    rows = [[data.images[n], *(overlay(data.images[n], maps[n]) for maps in heat.values())] for n in range(images)]
    lines = [data.classes[label] for label in data.labels]
    alt = f"Rendered objects, then the attention of: {', '.join(heat)}"
    return image_grid(rows, ["image", *(name.replace(" ", "\n") for name in heat)], lines, alt)


def localisation_rows(found: Networks, data: ImageSet) -> list[dict[str, float | str]]:
    """How well each network's attention finds objects whose pixels are known (`efflib.explain.localisation`)."""
    objects = torch.from_numpy(np.asarray(data.masks))
    rows: list[dict[str, float | str]] = []
    for name, (model, _) in found.items():
        measured = localisation(attention(model, data), objects)
        rows.append(
            {
                "attention of": name,
                "peak on the object": measured["pointing"],
                "share of attention on the object": measured["inside"],
                "ranking (AUC)": measured["auc"],
                "object's share of the image": measured["area"],
            }
        )
    return rows


def localisation_words(rows: Sequence[Mapping[str, float | str]]) -> Any:
    """The table's outcome as a sentence, made from its numbers."""
    ranked = sorted(rows, key=lambda row: float(row["ranking (AUC)"]), reverse=True)
    told = ", ".join(f"{row['attention of']} ({row['ranking (AUC)']:.2f})" for row in ranked)
    return Markdown(f"Object pixels outrank background pixels most often in this order (AUC, guessing is 0.5): {told}.")


# --- what guidance does to a map --------------------------------------------------------------------------

GUIDANCE = ("image", "student,\naligned", "prior\n(MLFF)", "spatial\nattention", "student,\nguided", "teacher")


def fitted_guidance(
    student: nn.Module, teacher: nn.Module, data: ImageSet, steps: int = 40, seed: int = 0, **options: Any
) -> PKGD:
    """PKGD's modules, trained for a few steps beside two networks that stay as they are.

    A run throws its modules away, so a page fits new ones to look at: aligners, MLFF and DDAG alone are trained, by
    the feature term of the loss.

    Args:
        student, teacher: trained networks; their features of `data` are computed once, in eval mode.
        data: a few hundred images.
        steps: batches of 32 images.
        seed: of the modules' initial weights and of the batches.
        options: of PKGD.
    """
    with seeded(seed, "distiller"):
        sample = pixels_of(data.take(range(1)), *NORMALISATION[data.name])
        method = create("pkgd", student, teacher, sample, **{"kd_weight": 0.0, **options})
    seen, known = _seen(student, data), _seen(teacher, data, preactivation=True)
    targets, indices = torch.from_numpy(data.labels), torch.arange(len(data))
    optimiser = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), lr=5e-3)
    chance = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        part = torch.randperm(len(data), generator=chance)[:32]
        term = method(_rows(seen, part), _rows(known, part), targets[part], indices[part], progress=1e6)["feature"]
        optimiser.zero_grad()
        term.backward()
        optimiser.step()
    return method.eval()  # type: ignore[return-value]


@torch.no_grad()
def guidance_panels(
    method: PKGD, student: nn.Module, teacher: nn.Module, data: ImageSet
) -> list[list[tuple[np.ndarray, ...]]]:
    """Per image and level (the pooled one left out): what `GUIDANCE` names, the image left out.

    Maps are means over channels (h, w). The spatial attention is (h / k, w / k): how much attention each position of
    the student gets from all positions of the prior, the column sums of Map_s (Eq. 9).

    Raises:
        ValueError: a method without DDAG, which guides nothing.
    """
    if not len(method.guides):
        raise ValueError(f"modules={method.modules_used!r} has no DDAG: take modules='full' or 'ddag'")
    seen, known = _seen(student, data), _seen(teacher, data, preactivation=True)
    with evaluating(method), _watched(method) as tokens:
        aligned, guided, _ = method.guided(seen, known)
        wanted = levels(known)
        prior = method.mixing(wanted) if method.mixing is not None else wanted
        received = [_received(guide, *seen_by) for guide, seen_by in zip(method.guides, tokens, strict=True)]
    parts = [[x.mean(dim=1) for x in maps] for maps in (aligned, prior, guided, wanted)]
    parts.insert(2, received)
    spatial = [level for level, x in enumerate(wanted) if x.shape[2] > 1]
    return [[tuple(maps[level][n].numpy() for maps in parts) for level in spatial] for n in range(len(data))]


def guidance_strip(trial: Trial, store: Store, image: int = 0, steps: int = 40) -> Any:
    """Figure: one rendered object at every level of a distilled student and its teacher, on the way through PKGD.

    Args:
        trial: a recorded trial `distill` on rendered objects; of its networks only the weights are used.
        store: where its weights are.
        image: which of `examples()`.
        steps: of `fitted_guidance`.
    """
    student, teacher = trained_model(trial, store), trained_model(trial.parents["teacher"], store)
    method = fitted_guidance(student, teacher, load_dataset("objects32", "train").take(range(256)), steps)
    data = examples().take([image])
    (panels,) = guidance_panels(method, student, teacher, data)
    rows = [[data.images[0], *maps] for maps in panels]
    lines = [f"level {number + 1}" for number in range(len(rows))]
    columns = ", ".join(name.replace("\n", " ") for name in GUIDANCE)
    alt = f"PKGD's maps of a rendered {data.classes[data.labels[0]]}, a row per level, the shallowest first: {columns}"
    return image_grid(rows, GUIDANCE, lines, alt)


@contextmanager
def _watched(method: PKGD) -> Iterator[list[list[Tensor]]]:
    """What each level's encoder gives while the block runs: the student's tokens, then the prior's."""
    tokens: list[list[Tensor]] = [[] for _ in method.guides]
    handles = []
    guides: Any = method.guides
    for guide, kept in zip(guides, tokens, strict=True):
        for encoder in {guide.encoder, guide.prior_encoder}:  # one, if they share it
            handles.append(encoder.register_forward_hook(lambda module, inputs, out, kept=kept: kept.append(out)))
    try:
        yield tokens
    finally:
        for handle in handles:
            handle.remove()


def _received(guide: Any, student: Tensor, prior: Tensor) -> Tensor:
    """(N, h / k, w / k): sum over the prior's positions of the attention that each of the student's gets."""
    query, key = (prior, student) if guide.qkv is None else guide.qkv(prior, student)[:2]
    scale = 1.0 if guide.scale is None else guide.scale
    _, spatial = attention_maps(query.flatten(2), key.flatten(2), guide.score, scale)
    return spatial.sum(dim=1).unflatten(1, student.shape[2:])


@torch.no_grad()
def _seen(model: nn.Module, data: ImageSet, preactivation: bool = False) -> Features:
    with evaluating(model):
        return features(model, pixels_of(data, *NORMALISATION[data.name]), preactivation)


def _rows(found: Features, part: Tensor) -> Features:
    return Features(tuple(stage[part] for stage in found.stages), found.pooled[part], found.logits[part])
