"""Small measurements of PKGD's modules on random inputs, and the tables in which its pages show them and others."""

from __future__ import annotations

import math
from typing import Any

import torch
from IPython.display import HTML
from torch import Tensor

from efflib.distill.common import shapes_of
from efflib.distill.pkgd import Guide
from efflib.kernels import hcl_loss
from efflib.kernels.guided_attention import SCORES, attention_maps
from efflib.models import create_model
from efflib.papers.pkgd.audit import load
from efflib.report.html import html_table, sentence
from efflib.training import seeded

Shape = tuple[int, int, int]
_LEVELS: tuple[Shape, ...] = ((16, 32, 32), (32, 16, 16), (64, 8, 8), (64, 1, 1))  # of ResNet20 and ResNet56
_ENTROPY_LEVELS: tuple[Shape, ...] = ((16, 32, 32), (64, 8, 8), (256, 8, 8))


@torch.no_grad()
def map_entropies(shape: Shape, batch: int = 16, seed: int = 0) -> list[dict[str, str | float]]:
    """Entropy of both attention maps over its maximum, at the modules' random start on unit-normal features.

    1 is a uniform map, which says nothing about the teacher; near 0 each row picks a single entry.

    Args:
        shape: (C, h, w) of a level.
        batch: images.
        seed: of weights and features.

    Returns:
        One row per score scale: score, channel map, spatial map (PKGD spec, section 2.5).
    """
    with seeded(seed):
        student, prior = torch.randn(2, batch, *shape)
        guide = Guide(shape)
        queries, keys = (guide.encoder(guide.norm(x)).flatten(2) for x in (prior, student))
    rows: list[dict[str, str | float]] = []
    for score in SCORES:
        channel, spatial = attention_maps(queries, keys, score)
        rows.append({"score": score, "channel map": _relative(channel), "spatial map": _relative(spatial)})
    return rows


def _relative(rows: Tensor) -> float:
    """Mean entropy of the rows of a map, over the logarithm of their length."""
    entropy = -(rows * rows.clamp_min(1e-38).log()).sum(dim=-1)
    return float(entropy.mean() / math.log(rows.shape[-1]))


@torch.no_grad()
def loss_of_a_perfect_student(shape: Shape, spread: float, batch: int = 16, draws: int = 4, seed: int = 0) -> float:
    """HCL between a teacher's map and what a freshly drawn DDAG of the released script makes of the same map.

    The student equals the teacher, so a loss that asks for the teacher's features should be 0.

    Args:
        shape: (C, h, w) of a level.
        spread: standard deviation of the normal features.
        batch: images.
        draws: modules to average over.
        seed: of weights and features.

    Source: PKGD spec, section 2.8.
    """
    with seeded(seed):
        x = torch.randn(batch, *shape) * spread
        guides = [Guide(shape, score="l2", qkv_conv=True, residual="normed") for _ in range(draws)]
        return sum(float(hcl_loss([guide(x, x)], [x])) for guide in guides) / draws


def entropy_table() -> Any:
    """`map_entropies` at the levels of ResNet20 and of a wide network's last stage, as a page's table."""
    rows = [{"level (C x h x w)": _shape(shape), **row} for shape in _ENTROPY_LEVELS for row in map_entropies(shape)]
    return HTML(html_table(_rounded(rows), "Entropy of the attention maps at the start, 1 = uniform"))


def floor_table() -> Any:
    """`loss_of_a_perfect_student` at ResNet20's levels and three spreads, as a page's table."""
    rows = [
        {"level (C x h x w)": _shape(shape)}
        | {f"features N(0, {spread:g}²)": loss_of_a_perfect_student(shape, spread) for spread in (0.5, 1.0, 2.0)}
        for shape in _LEVELS
    ]
    caption = "Feature loss of a perfect student under the released script's random DDAG (0 would be right)"
    return HTML(html_table(_rounded(rows), caption))


def shapes_table(teacher: str, student: str, side: int = 32) -> Any:
    """Which maps of two networks meet, level by level, before and after alignment, as a page's table."""
    sample = torch.zeros(1, 3, side, side)
    both = [shapes_of(create_model(name, 10), sample).levels for name in (student, teacher)]
    rows = [
        {"level": f"{place}", f"student, {student}": _shape(own), f"teacher, {teacher}": _shape(other)}
        | {"aligned by": "1x1 convolution, BN" + (", nearest resize" if own[1:] != other[1:] else "")}
        for place, (own, other) in enumerate(zip(*both, strict=True), 1)
    ]
    rows[-1]["level"] += " (pooled)"
    return HTML(html_table(rows, f"What {student} and {teacher} compare (channels x height x width)"))


def published_table(table: str) -> Any:
    """Printed numbers beside published ones for the same pairs, as a page's table."""
    rows = [
        {"pair and method": row["cell"].replace(", cifar100", ""), "printed": f"{row['printed']:.2f}"}
        | {"published": f"{row['quoted']:.2f}", "printed less published": f"{row['difference']:+.2f}"}
        | {"published by": row["reference"], "equal": "yes" if row["equal"] else ""}
        for row in load().published(table)
    ]
    return HTML(html_table(rows, "Printed numbers and published ones for the same pairs, CIFAR-100"))


def gap_table(results: Any) -> Any:
    """Distances to the teacher per level and arm that recorded them, means over seeds, as a page's table."""
    rows = []
    for method in dict.fromkeys(entry.cell["method"] for entry in results.entries):
        found = [e.record.metrics for e in results.matching(method=method) if e.usable]
        for name, words in (("gap_aligned", "aligned"), ("gap_guided", "guided")):
            gaps = [metrics[name] for metrics in found if name in metrics]
            if gaps:
                means = {f"level {n}": f"{sum(at) / len(gaps):.3g}" for n, at in enumerate(zip(*gaps, strict=True), 1)}
                rows.append({"arm": method, "feature": words, **means, "seeds": str(len(gaps))})
    if not rows:
        return sentence("No run with a feature loss is recorded at this scale yet.")
    return HTML(html_table(rows, f"HCL to the teacher's features on the test set, scale {results.scale}"))


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: f"{v:.2f}" if isinstance(v, float) else v for name, v in row.items()} for row in rows]
