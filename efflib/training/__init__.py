"""Train and evaluate a classifier: `fit`, `evaluate`, `predict`.

The data set lives on the device as uint8 and each batch is cut, flipped and normalised there. Nothing is read back
inside an epoch: losses add up on the device and come to the host once per epoch. All random choices of epoch e come
from a generator seeded by (seed, e), so that a run which was interrupted, also in the middle of an epoch, and resumed
from its last checkpoint repeats the unbroken run bit for bit on the same machine.
"""

from __future__ import annotations

from efflib.training.batches import Batch, DeviceSet, epoch_batches, normalisation
from efflib.training.checkpoints import ForeignCheckpoint, load_or_set_aside, save_atomically
from efflib.training.curriculum import Curriculum
from efflib.training.devices import pick_device, pick_precision
from efflib.training.evaluation import evaluate, predict
from efflib.training.history import History
from efflib.training.loop import Follow, Loss, cross_entropy, fit, freeze
from efflib.training.recipe import (
    AFFINE,
    RECIPES,
    Augment,
    TrainingRecipe,
    cifar_lr,
    cifar_rd,
    cifar_review,
    encodenet_attention,
    encodenet_base,
    milestones,
    tiny_imagenet,
)
from efflib.training.seeds import derived_seed, seeded

__all__ = [
    "AFFINE",
    "RECIPES",
    "Augment",
    "Batch",
    "Curriculum",
    "DeviceSet",
    "Follow",
    "ForeignCheckpoint",
    "History",
    "Loss",
    "TrainingRecipe",
    "cifar_lr",
    "cifar_rd",
    "cifar_review",
    "cross_entropy",
    "derived_seed",
    "encodenet_attention",
    "encodenet_base",
    "epoch_batches",
    "evaluate",
    "fit",
    "freeze",
    "load_or_set_aside",
    "milestones",
    "normalisation",
    "pick_device",
    "pick_precision",
    "predict",
    "save_atomically",
    "seeded",
    "tiny_imagenet",
]
