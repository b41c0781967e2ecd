"""What the page of table 3.5 shows of maps and distances: pictures of them, and do they point at the tumour; where
Grad-CAM and gradient times activation coincide; what cosine and L2 differ in.

Boards take no images (None) where a page has none to show: then a sentence says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from IPython.display import HTML, Markdown
from torch import Tensor, nn

from efflib.data import ImageSet, load_dataset
from efflib.data.embedded import PHANTOM
from efflib.data.phantom import PLANES, planes_of
from efflib.distill.diswot_plus import class_map, relation_loss, semantic_loss
from efflib.papers.diswot.arms import SIZES
from efflib.papers.diswot.curves import NAMES
from efflib.papers.diswot.identity import apart, in_double
from efflib.papers.diswot.maps import KINDS, LAYERS, PROPAGATED_AT, maps_of, normalised, zero
from efflib.papers.features import labels_of
from efflib.papers.pictures import trained_model
from efflib.report.figures import themed
from efflib.report.html import html_table, sentence
from efflib.training import seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.trials import Results, Store

TEACHER = "teacher"
SHOWN = (TEACHER, "lrp_cosine", "gradcam_l2")  # columns of figures 3.8 and 3.9
STEPS = (1.0, 0.1, 0.01, 0.001)  # how far maps are moved away from their target
BATCH = 32


# --- networks ---------------------------------------------------------------------------------------------


def networks(results: Results, store: Store) -> dict[str, nn.Module]:
    """The teacher and the best student by each method, of the first seed, by name, as far as weights are here.

    Args:
        results: of table 3.5 (or 3.4).
        store: where the weights are.
    """
    best = SIZES[results.scale].best.name
    trials: dict[str, Any] = {}
    for entry in results.entries:
        if entry.usable and entry.seed == results.entries[0].seed and entry.cell.get("student") == best:
            if "teacher" in entry.trial.parents:
                trials.setdefault(TEACHER, entry.trial.parents["teacher"])
            trials.setdefault(entry.cell["method"], entry.trial)
    found = {}
    for name, trial in trials.items():
        try:
            found[name] = trained_model(trial, store)
        except FileNotFoundError:
            continue
    return found


def coarseness(scale: str) -> Markdown:
    """How coarse the maps are that a scale's losses read, in a sentence."""
    size = SIZES[scale]
    stride = int(size.layers.removeprefix("s"))
    positions = size.side // stride
    told = (
        f"The losses of scale `{scale}` read maps at {size.layers}. At {size.side} px these have {positions} x "
        f"{positions} positions, whichever method draws them: one position covers {stride} x {stride} pixels."
    )
    if positions == 2:
        told += " Enlarged, the largest of four positions fills a corner of the image: such a map can hardly point."
    return Markdown(told)


def _named(name: str) -> str:
    return NAMES.get(name, name)


# --- is it the tumour? ------------------------------------------------------------------------------------


def tumour_table(*looks: Results) -> HTML:
    """Pointing game and share of the map inside the tumour, of every network and kind of map: means over seeds.

    Args:
        looks: results of figure 3.8, of 3.9 or of both, each with its kinds of map; at one scale.
    """
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in (entry for results in looks for entry in results.entries):
        if entry.metrics.get("inside_tumour") is not None:
            network, method = entry.cell["network"], entry.cell["method"]
            name = _named(method) if network == "student" else network
            rows.setdefault((entry.cell["map"], name), []).append(entry.metrics)
    if not rows:
        return sentence("No network's maps are recorded here on images whose tumours are known; the phantom's are.")
    shown = [
        {
            "map": KINDS[kind],
            "network": name,
            "peak in the tumour": f"{fmean(each['points_at_tumour'] for each in found):.1%}",
            "share of the map in it": f"{fmean(each['inside_tumour'] for each in found):.1%}",
        }
        for (kind, name), found in rows.items()
    ]
    size = SIZES[looks[0].scale]
    images = f"the first {size.explained} test images" if size.explained else "all test images"
    caption = (
        f"Maps of the true class at {size.layers}, propagated ones at {PROPAGATED_AT}, on those of {images} of "
        f"{size.dataset} that have a tumour. A map that is zero points by chance; shares are means over the others"
    )
    return HTML(html_table(shown, caption, "diswot-table3_5-tumour"))


# --- pictures ---------------------------------------------------------------------------------------------


def one_of_each_plane(found: Mapping[str, nn.Module], layer: str, slices: int = 120) -> ImageSet:
    """Test slices of the phantom, one per plane: the first with a tumour and no zero Grad-CAM map in a network shown.

    Where there is no such slice, the first with a tumour.

    Args:
        found: of `networks`.
        layer: where the maps are read.
        slices: among so many first ones.
    """
    data = load_dataset("phantom", "test").take(range(slices))
    planes = planes_of(data.indices, PHANTOM["test"][1])
    tumour = np.asarray(data.masks).any(axis=(1, 2))
    alive = np.ones(len(data), dtype=bool)
    for name in SHOWN:
        if name in found:
            maps = maps_of(found[name], normalised(data), "gradcam", "predicted", layer)
            alive &= ~zero(maps).numpy()
    chosen = []
    for plane in range(len(PLANES)):
        here = tumour & (planes == plane)
        chosen.append(int(np.flatnonzero(here & alive)[0] if (here & alive).any() else np.flatnonzero(here)[0]))
    return data.take(chosen)


def maps_figure(found: Mapping[str, nn.Module], data: ImageSet | None, kind: str, layer: str) -> HTML:
    """Figures 3.8 and 3.9: a slice per row, then the teacher's and two students' maps of their own prediction over it.

    Args:
        found: of `networks`.
        data: of `one_of_each_plane`.
        kind: a key of `KINDS`.
        layer: where the maps are read.
    """
    shown = [name for name in SHOWN if name in found]
    if data is None or not shown:
        return _nothing(data)
    images, planes = normalised(data), planes_of(data.indices, PHANTOM["test"][1])
    heat = {name: maps_of(found[name], images, kind, "predicted", layer).numpy() for name in shown}
    with torch.no_grad():
        predicted = {name: found[name](images).argmax(dim=1).tolist() for name in shown}
    masks = np.asarray(data.masks)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(data), 1 + len(shown), squeeze=False)
        for line, axes in enumerate(panels):
            axes[0].set_ylabel(f"{PLANES[planes[line]]}, {data.classes[data.labels[line]]}", fontsize="small")
            for column, panel in enumerate(axes):
                panel.imshow(data.images[line, ..., 0], cmap="gray", vmin=0, vmax=255)
                panel.contour(masks[line], [0.5], colors="#ff3b30", linewidths=0.9)
                panel.set(xticks=[], yticks=[])
                if column:
                    name = shown[column - 1]
                    own = heat[name][line]
                    panel.imshow(own, cmap="viridis", alpha=0.5, interpolation="bilinear")
                    zero = "" if own.any() else " (map is zero)"
                    panel.set_xlabel(f"sees {data.classes[predicted[name][line]]}{zero}", fontsize="x-small")
        for axes, title in zip(panels[0], ["slice", *map(_named, shown)], strict=True):
            axes.set_title(title, fontsize="small")

    alt = f"{KINDS[kind]} maps at {layer} over slices of the phantom, the tumour outlined. "
    alt += _told(data, heat, predicted, planes)
    return themed(draw, (2.1 * (1 + len(shown)), 2.15 * len(data) + 0.3), alt)


def _told(
    data: ImageSet, heat: Mapping[str, np.ndarray], predicted: Mapping[str, list[int]], planes: np.ndarray
) -> str:
    """What the pictures show, in words: prediction, and where the peak of each map is."""
    masks, lines = np.asarray(data.masks), []
    for line, label in enumerate(data.labels):
        parts = []
        for name, maps in heat.items():
            peak = np.unravel_index(int(maps[line].argmax()), maps[line].shape)
            where = "in the tumour" if masks[line][peak] else "outside the tumour"
            where = f"peak {where}" if maps[line].any() else "map is zero"
            parts.append(f"{_named(name)} sees {data.classes[predicted[name][line]]}, {where}")
        lines.append(f"{PLANES[planes[line]]} slice with {data.classes[label]}: {'; '.join(parts)}")
    return ". ".join(lines)


# --- the identity of section 2.3 --------------------------------------------------------------------------


def identity_table(
    found: Mapping[str, nn.Module], data: ImageSet | None, table_id: str = "diswot-table3_5-identity"
) -> HTML:
    """How far Grad-CAM and the thesis's "LRP" are apart in each network, at the last map and at the one before.

    Args:
        found: of `networks`, or others by name.
        data: images; some are enough.
        table_id: of the table on its page.
    """
    if data is None or not found:
        return _nothing(data)
    images, labels = normalised(data), labels_of(data)
    rows = []
    for name, network in found.items():
        gaps = {LAYERS[layer]: apart(network, images, labels, layer) for layer in ("s32", "s16")}
        # Below 1e-12 the digits are rounding, which differs between machines.
        shown = {layer: "below 1e-12" if gap < 1e-12 else f"{gap:.2g}" for layer, gap in gaps.items()}
        rows.append({"network": f"{_named(name)} ({_head(network)})", **shown})
    caption = (
        "Grad-CAM against gradient x activation, as trained, double precision: largest difference over the largest "
        f"Grad-CAM value, {len(data)} images"
    )
    return HTML(html_table(rows, caption, table_id))


def _head(network: nn.Module) -> str:
    """How the last map becomes a vector."""
    return "global average" if any(isinstance(m, nn.AdaptiveAvgPool2d) for m in network.modules()) else "flatten"


# --- the algebra of section 2.4 ---------------------------------------------------------------------------


def algebra_table(found: Mapping[str, nn.Module], data: ImageSet | None, layer: str) -> HTML:
    """L2 of unit vectors against cosine, for the terms of this page's student and teacher on one batch.

    Args:
        found: of `networks`.
        data: one batch.
        layer: of features and maps.
    """
    students = [name for name in found if name != TEACHER]
    if data is None or TEACHER not in found or not students:
        return _nothing(data)
    (features, maps), (of_teacher, guides) = (_seen(found[name], data, layer) for name in (students[0], TEACHER))
    l2 = {
        "relation: similarities of features": relation_loss(features, of_teacher, "fro") ** 2,
        "semantic: similarities of maps": semantic_loss(maps, guides, "gram", "fro") ** 2,
        "semantic: maps of unit length": semantic_loss(maps, guides, "map", "l2_unit"),
    }
    cosine = (
        relation_loss(features, of_teacher, "cosine"),
        semantic_loss(maps, guides, "gram", "cosine"),
        semantic_loss(maps, guides, "map", "cosine"),
    )
    rows = [
        {
            "term": term,
            "half of the squared L2 distance": f"{float(squared) / 2:.9f}",
            "1 - cosine": f"{float(other):.9f}",
            "difference": f"{abs(float(squared) / 2 - float(other)):.0e}",
        }
        for (term, squared), other in zip(l2.items(), cosine, strict=True)
    ]
    caption = f"{_named(students[0])} and its teacher on a batch of {len(data)} images of {data.name}, {layer}, "
    return HTML(html_table(rows, caption + "double precision", "diswot-table3_5-algebra"))


def _seen(network: nn.Module, data: ImageSet, layer: str) -> tuple[Tensor, Tensor]:
    """Features and Grad-CAM maps of the true class at the layer, double precision."""
    features, logits = in_double(network, normalised(data), layer)
    return features.detach(), class_map(features, logits, labels_of(data)).detach()


def distances_table() -> HTML:
    """Each semantic distance on random maps: what doubling the maps does to it and to its gradient (the "scale
    sensitivity" of table 2.1), and its gradient near the minimum.
    """
    with seeded(0, "diswot distances"):
        target, noise = (torch.rand(BATCH, 4, 4, dtype=torch.float64) for _ in range(2))
    kinds = {
        "similarities, L2 (eq. 2.9)": ("gram", "fro"),
        "similarities, cosine": ("gram", "cosine"),
        "maps, L2 raw (eq. 2.19)": ("map", "l2"),
        "maps of unit length, L2": ("map", "l2_unit"),
        "maps, cosine (eq. 2.22)": ("map", "cosine"),
    }
    rows = []
    for words, kind in kinds.items():
        value = semantic_loss(noise, target, *kind)
        doubled = semantic_loss(2 * noise, 2 * target, *kind)
        gradients = [gradient_length(scale * target, scale * noise, 1.0, *kind) for scale in (1, 2)]
        row = {
            "distance": words,
            "value if both maps double": f"x {float(doubled / value):.2f}",
            "gradient if both maps double": f"x {gradients[1] / gradients[0]:.2f}",
        }
        for step in STEPS:
            row[f"gradient at {step:g}"] = f"{gradient_length(target, noise, step, *kind):.1e}"
        rows.append(row)
    caption = (
        f"{BATCH} pairs of random maps of 4 x 4: target, and target plus a step times noise; length of the gradient in "
        "the moved map after steps of " + ", ".join(f"{step:g}" for step in STEPS)
    )
    return HTML(html_table(rows, caption, "diswot-table3_5-distances"))


def gradient_length(target: Tensor, noise: Tensor, step: float, structure: str, distance: str) -> float:
    """Length of a semantic distance's gradient at target + step * noise, in that map."""
    moved = (target + step * noise).requires_grad_()
    (gradient,) = torch.autograd.grad(semantic_loss(moved, target, structure, distance), moved)
    return float(gradient.norm())


def _nothing(data: ImageSet | None) -> HTML:
    """Why a board is empty: pages give it images for smoke runs alone."""
    if data is None:
        return sentence(
            "Shown for smoke runs alone, on the phantom: the book's pictures are of embedded images, and records keep "
            "neither networks nor maps."
        )
    return sentence("The weights of teacher and students are not here, so their maps cannot be made.")
