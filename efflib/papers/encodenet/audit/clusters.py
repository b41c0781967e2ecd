"""Finding 19, the number of clusters: elbow curves of points and of scalars."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from efflib.papers.encodenet.audit.evidence import TEXT, Printed
from efflib.report.audit import Finding, words_of

if TYPE_CHECKING:
    import numpy as np


_MOST = 9  # clusters on an elbow curve, as in the prior code
_SETS = {"no cluster": 0, "two clusters": 2, "five clusters": 5}


@cache
def gaussian_ratios(most: int = _MOST) -> tuple[float, ...]:
    """Inertia of the best 1 ... `most` clusters of a normal scalar, relative to one cluster (Lloyd's iteration)."""
    return tuple(_gaussian_inertia(count) for count in range(1, most + 1))


def _gaussian_inertia(count: int) -> float:
    import numpy as np
    from scipy.special import ndtr, ndtri

    centres = ndtri((np.arange(count) + 0.5) / count)
    for _ in range(500):
        edges = np.concatenate(([-np.inf], (centres[1:] + centres[:-1]) / 2, [np.inf]))
        mass = np.diff(ndtr(edges))
        moved = -np.diff(np.exp(-(edges**2) / 2)) / math.sqrt(2 * math.pi) / mass
        if np.abs(moved - centres).max() < 1e-7:
            break
        centres = moved
    return float(1 - (mass * moved**2).sum())  # total variance less that between the clusters


@cache
def demonstration() -> dict[str, dict[str, tuple[float, ...]]]:
    """Elbow curves of three synthetic sets, with points as points and flattened to one column of scalars.

    500 points with 20 values: normal noise, around nothing, two or five centres.

    Returns:
        Set -> {"points", "flattened"} -> inertia of 1 ... 9 clusters, relative to one.
    """
    import numpy as np

    from efflib.papers.encodenet.clustering import scalar_inertias

    generator = np.random.default_rng(0)
    curves = {}
    for name, count in _SETS.items():
        points = generator.normal(size=(500, 20))
        if count:
            points += generator.normal(scale=2, size=(count, 20))[generator.integers(count, size=500)]
        both = {"points": _elbow(points, generator), "flattened": scalar_inertias(points, _MOST)}
        curves[name] = {kind: tuple(inertia / curve[0] for inertia in curve) for kind, curve in both.items()}
    return curves


def _elbow(points: np.ndarray, generator: np.random.Generator, starts: int = 10) -> list[float]:
    """Inertia of k-means with 1 ... 9 clusters, best of some starts.

    As `clustering.inertias`, on scipy's k-means: scikit-learn takes longer to import than all findings to make.
    """
    from scipy.cluster.vq import kmeans, vq

    inertias = [float(((points - points.mean(axis=0)) ** 2).sum())]
    for count in range(2, _MOST + 1):
        found = []
        for _ in range(starts):
            centres, _ = kmeans(points, points[generator.choice(len(points), count, replace=False)])
            found.append(float((vq(points, centres)[1] ** 2).sum()))
        inertias.append(min(found))
    return inertias


def three_clusters(printed: Printed) -> Finding:
    from efflib.papers.encodenet.clustering import knee

    curves, ratios, fact = demonstration(), gaussian_ratios(), printed.facts["prior_code"]
    knees = {(name, kind): knee(curve) for name, found in curves.items() for kind, curve in found.items()}
    rows = tuple(
        {
            "data": name,
            "k-means on": kind,
            "knee": found.k,
            "height of the knee": found.height,
            "inertia, 9 clusters / 1": curves[name][kind][-1],
        }
        for (name, kind), found in knees.items()
    )
    flat = [found.k for (_, kind), found in knees.items() if kind == "flattened"]
    scalars = knee(ratios)
    text = (
        "In the code of the prior work the elbow is computed on the matrix of features flattened to one column, so "
        "that scalars are clustered, not images. For normal scalars the inertia falls to "
        f"{', '.join(f'{r:.4f}' for r in ratios[1:4])} ... of that of one cluster, whose knee is {scalars.k} whatever "
        "the images are. Synthetic sets of 500 points without clusters, with two and with five, flattened: knee "
        f"{', '.join(map(str, flat))}; as points, the sets with two and five clusters have their knee at "
        f"{knees['two clusters', 'points'].k} and {knees['five clusters', 'points'].k}. A note in the same script "
        f"records, per class, elbows of {_listed(fact['elbows_vgg16'])} for VGG16 features and "
        f"{_listed(fact['elbows_umap'])} for a UMAP embedding. Whether this paper's k = {TEXT['elbow'].numbers[0]} "
        "comes from such a curve is unknown; for CIFAR-100 no number of clusters is given."
    )
    numbers: dict[str, float] = {"gaussian_knee": scalars.k, "stated": float(TEXT["elbow"].numbers[0])}
    numbers |= {f"gaussian_{k}": ratio for k, ratio in enumerate(ratios, 1)}
    numbers |= {f"{kind}_{name.replace(' ', '_')}": found.k for (name, kind), found in knees.items()}
    numbers |= {f"{name}_three": sum(e == 3 for e in fact[name]) for name in ("elbows_vgg16", "elbows_umap")}
    title, tables = "An elbow at three may say nothing about the images", ("table1", "table2", "table3")
    quotes, sources = words_of(TEXT, "elbow"), printed.sources("prior_code")
    return Finding("encodenet-19", title, text, "formulas", "notable", tables, rows, numbers, quotes, sources)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
