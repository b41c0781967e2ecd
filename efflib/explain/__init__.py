"""Which pixels matter to a classifier, and how well such maps find objects whose pixels are known.

`saliency` and `grad_cam` read gradients; `relevance` propagates the class score back through the layers (LRP).
"""

from efflib.explain.gradients import (
    METHODS,
    POOLING_INPUT,
    REDUCTIONS,
    SCORES,
    Layer,
    Target,
    activation_and_gradient,
    find_layer,
    frozen,
    grad_cam,
    pooling,
    saliency,
)
from efflib.explain.localisation import localisation
from efflib.explain.lrp import RULES, Composite, propagate
from efflib.explain.relevance import INPUT, conservation, relevance

__all__ = [
    "INPUT",
    "METHODS",
    "POOLING_INPUT",
    "REDUCTIONS",
    "RULES",
    "SCORES",
    "Composite",
    "Layer",
    "Target",
    "activation_and_gradient",
    "conservation",
    "find_layer",
    "frozen",
    "grad_cam",
    "localisation",
    "pooling",
    "propagate",
    "relevance",
    "saliency",
]
