"""Curricula of BIMask's table 4: what a network is shown, or how fast it learns, from easy to hard.

    curriculum = curricula.create("cbs", every=5)
    efflib.training.fit(model, train, test, curriculum=curriculum)

| name             | decides about                                   | hooks of `Curriculum`        |
|------------------|-------------------------------------------------|------------------------------|
| `cbs`            | blurred feature maps, less and less             | `attached`, `step`           |
| `efficienttrain` | low frequencies of the images, more and more    | `images` (RandAugment: `pixels`) |
| `lerac`          | rates of the layers, deep ones starting slowly  | `layers`, `factors`          |
| `self_taught`    | order: images that a trained network finds easy | `order`                      |
| `lcdnet`         | the same, easy for an ImageNet network          | `order`                      |

The protocol is `efflib.training.Curriculum`: a class of one's own overrides the hooks it needs. All of them follow from
the progress of training alone, so that a resumed run repeats an unbroken one bit for bit. Evaluation sees the images at
full size; blurs stay on between epochs, as in the authors' code, and are off when `fit` returns.

The two pacing curricula take `scores` and `labels` of the training set: see `pacing.self_taught_scores` and
`pacing.lcdnet_scores`. LeRaC shifts the recipe's milestones: `lerac.shifted(recipe, curriculum)`.
"""

from __future__ import annotations

import inspect
from typing import Any

from efflib.curricula import cbs, efficienttrain, lerac, pacing
from efflib.text import unknown
from efflib.training import Curriculum

CURRICULA: dict[str, type[Curriculum]] = {
    "cbs": cbs.CBS,
    "efficienttrain": efficienttrain.EfficientTrain,
    "lerac": lerac.LeRaC,
    "self_taught": pacing.Pacing,
    "lcdnet": pacing.Pacing,
}

# Of BIMask's table 4; the spans below are for runs of this length.
PROTOCOL_EPOCHS = 200

__all__ = ["CURRICULA", "PROTOCOL_EPOCHS", "Curriculum", "create", "scaled_options"]


def create(name: str, **options: Any) -> Curriculum:
    """A curriculum for `efflib.training.fit`.

    Args:
        name: a key of `CURRICULA`.
        options: of the curriculum, see its class; the pacing curricula need `scores` and `labels`.

    Raises:
        ValueError: unknown name or option (lists the valid ones), a missing one, or a value out of range.
    """
    if name not in CURRICULA:
        raise ValueError(unknown("curriculum", name, sorted(CURRICULA)))
    parameters = inspect.signature(CURRICULA[name]).parameters
    for option in options:
        if option not in parameters:
            raise ValueError(unknown(f"option of {name}", option, list(parameters)))
    missing = [key for key, value in parameters.items() if value.default is value.empty and key not in options]
    if missing:
        raise ValueError(f"{name} needs {' and '.join(missing)}: see efflib.curricula.pacing for how to score images")
    return CURRICULA[name](**options)


def scaled_options(name: str, epochs: int, **options: Any) -> dict[str, Any]:
    """Options whose spans take the same share of a run of `epochs` as those of the 200-epoch protocol.

    Args:
        name: a key of `CURRICULA`.
        epochs: length of the run.
        options: spans of the protocol where they differ from the defaults (`every` of cbs, `k` of lerac).

    Returns:
        The options, with `every` (cbs) or `k` (lerac) scaled, or `pacing_span` set (pacing: 60 000 images of 200 epochs
        of 50 000). EfficientTrain's fifths need no scaling; LeRaC's mode="code" counts whole epochs and is not scaled.
    """
    if name not in CURRICULA:
        raise ValueError(unknown("curriculum", name, sorted(CURRICULA)))
    spans = {"cbs": ("every", cbs.CBS.every), "lerac": ("k", lerac.LeRaC.k)}
    if name in spans and options.get("mode") != "code":
        option, usual = spans[name]
        return {**options, option: options.get(option, usual) * epochs / PROTOCOL_EPOCHS}
    if CURRICULA[name] is pacing.Pacing:
        return {"pacing_span": 60_000 / (PROTOCOL_EPOCHS * 50_000), **options}
    return options
