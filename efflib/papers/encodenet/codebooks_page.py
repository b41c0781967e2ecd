"""What codebooks are made of: ways to cluster, the representatives of every cluster, and what recorded ones tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from IPython.display import HTML
from torch import Tensor

from efflib.papers.encodenet import clustering
from efflib.papers.encodenet.tables import tables
from efflib.report.figures import image_grid
from efflib.report.html import html_table, sentence
from efflib.scales import SCALES

if TYPE_CHECKING:
    from efflib.data import ImageSet
    from efflib.papers.encodenet.codebook import Codebook

METHODS = get_args(clustering.Method)


def methods_table(points: Tensor, labels: Tensor, classes: Sequence[str]) -> HTML:
    """Table: clusters and silhouettes of every way to cluster.

    Args:
        points: (N, D) features of the training images. labels: (N,) their classes. classes: names.
    """
    rows = []
    for method in METHODS:
        found = clustering.cluster(points, labels, classes, method)
        told = [each for each in clustering.silhouettes(points, found, labels) if each is not None]
        rows.append(
            {
                "clustering": method,
                "clusters per class": _range(found.counts, "d"),
                "silhouette, classes": _range(told, ".2f"),
                "images left out as noise": sum(found.noise) if method == "hdbscan" else None,
                "classes that stay whole": len(found.unsplit) if method == "hdbscan" else None,
            }
        )
    return HTML(html_table(rows, "Ways to cluster the same features; lowest to highest class"))


def representatives_grid(book: Codebook, train: ImageSet) -> Any:
    """Figure: the representative of every cluster, a class per column."""
    codes = [(book.classes == label).nonzero()[:, 0] for label in range(len(train.classes))]
    most = max(map(len, codes))
    blank = np.zeros_like(train.images[0])
    columns = [[*train.images[book.members[own].numpy()], *[blank] * (most - len(own))] for own in codes]
    rows, lines = list(zip(*columns, strict=True)), [f"cluster {place}" for place in range(most)]
    return image_grid(rows, list(train.classes), lines, "Representatives: rendered images, a class per column")


def codebooks_table() -> HTML:
    """Table: what the recorded codebooks of tables 1 to 5 tell, at every scale but smoke; seeds together."""
    rows = [row for scale in SCALES if scale != "smoke" for row in _recorded(scale)]
    if not rows:
        return sentence("No codebook of real images is recorded yet.")
    caption = (
        "Recorded codebooks, one per column: lowest to highest over classes and seeds; errors are mean squared errors "
    )
    caption += "of constant outputs, one for all images and one per class"
    lines = [{"": name, **{f"{place}": row[name] for place, row in enumerate(rows, 1)}} for name in rows[0]]
    return HTML(html_table(lines, caption, "encodenet-codebooks"))


def _recorded(scale: str) -> list[dict[str, Any]]:
    from efflib.trials import collect
    from efflib.trials.results import DEFAULT_SEEDS
    from efflib.trials.trial import with_parents

    trials = with_parents(trial for table in tables.values() for trial in table.trials(scale, DEFAULT_SEEDS))
    books = collect([trial for trial in trials if trial.recipe == "codebook"], scale)
    groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for entry in books.entries:
        if entry.usable:
            groups.setdefault(tuple(_kind(entry).items()), []).append(entry.metrics)
    return [{"scale": scale, **dict(kind), **_told(found)} for kind, found in groups.items()]


def _kind(entry: Any) -> dict[str, str]:
    """What codebooks of several seeds have in common."""
    about = entry.trial.settings
    how = f"{about.cluster_method}, k = {about.k}, {about.feature_source}" if about.codes != "class" else ""
    data = f"{entry.record.dataset.name} ({entry.record.dataset.variant})"
    return {"network": about.model, "data": data, "codes": about.codes, "clustered": how}


def _told(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def every(name: str) -> list[Any]:
        values = [metrics[name] for metrics in found if name in metrics]
        flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
        return [each for each in flat if each is not None]

    curves = [metrics["inertia"] for metrics in found if metrics.get("inertia")]
    return {
        "seeds": len(found),
        "silhouette": _range(every("silhouette"), ".2f"),
        "knee (height)": _knee(every("knee"), every("knee_height")),
        "inertia left with the most clusters": _range([curve[-1] for curve in curves], ".2f"),
        "knee, flattened (height)": _knee(every("knee_flattened"), every("knee_height_flattened")),
        "images of a code": _range(every("counts"), "d"),
        "entropy of representatives": _range(every("entropies"), ".2g"),
        "choices changed because the baseline erred": _range(every("changed_by_correctness"), "d"),
        "codes without an image that it gets right": _range([len(metrics["never_correct"]) for metrics in found], "d"),
        "error: one output": _range(every("constant_mse"), ".4f"),
        "one per class": _range(every("class_known_mse"), ".4f"),
    }


def _knee(places: Sequence[int], heights: Sequence[float]) -> str:
    return f"{_range(places, 'd')} ({_range(heights, '.2f')})" if places else ""


def _range(values: Sequence[Any], form: str) -> str:
    ends = dict.fromkeys(format(end, form) for end in (min(values), max(values))) if values else {}
    return " to ".join(ends)
