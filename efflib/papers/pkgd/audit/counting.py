"""Counted on built networks: FLOPs of a run, and parameters of coordinate attention."""

from __future__ import annotations

from functools import cache

from efflib.papers.pkgd.audit.evidence import Pair


@cache
def run_cost(pair: Pair, arm: str, images: int = 50_000, epochs: int = 240) -> float:
    """PFLOP (1e15) of a paper-scale run of one arm: student and modules forward and backward, teacher forward.

    Args:
        pair: (teacher, student).
        arm: a method, one of PKGD's forms, or "logits" for one without modules.
        images, epochs: of the run.
    """
    from efflib.papers.distillation import work_of
    from efflib.papers.pkgd import arms

    work = work_of(arms.arm("paper", *pair, "cifar100", 0, "pkgd" if arm == "logits" else arm).settings)  # type: ignore[arg-type]
    step = 3 * work.student + work.teacher if arm == "logits" else work.step
    return step * images * epochs / 1e15


@cache
def units(model: str, least: int, ratio: int) -> list[int]:
    """Parameters of coordinate attention after the stem and every stage, by the unit's formula.

    VGG has its units after blocks 0 to 3, of which `features` does not show block 0.
    """
    import torch

    from efflib.models import convolutions, create_model, features

    network = create_model(model, 100).eval()
    with torch.no_grad():
        stages = features(network, torch.zeros(1, 3, 32, 32)).stages
    stem = convolutions(network)[0][1].get_parameter("weight").shape[0]
    widths = [stem, *(stage.shape[1] for stage in stages)]
    return [_unit(C, max(least, C // ratio)) for C in (widths[:-1] if model.startswith("vgg") else widths)]


def _unit(C: int, m: int) -> int:
    return 3 * C * m + 2 * C + 3 * m
