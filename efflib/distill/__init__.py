"""Distillation: one file per method, all with one signature.

    method = distill.create("dkd", student, teacher, sample)
    loss = distill.Distillation(method, teacher)            # goes into efflib.training.fit(..., loss=loss)

`method.forward(student: Features, teacher: Features, targets, indices, progress)` returns named loss terms, already
weighted, cross-entropy included. Each file also exposes its bare loss as a function, e.g. `distill.dkd.dkd_loss`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from efflib.distill import at, crd, diswot_plus, dkd, fitnet, ft, ickd, kd, pkgd, reviewkd, rkd, rpkd, sakd, sckd
from efflib.distill.common import Distiller, Networks, PrepareContext, Shapes, shapes_of
from efflib.models import features
from efflib.text import keyword_only, unknown
from efflib.training import Batch

METHODS: dict[str, type[Distiller]] = {
    "kd": kd.KD,
    "fitnet": fitnet.FitNet,
    "at": at.AT,
    "ft": ft.FT,
    "rkd": rkd.RKD,
    "crd": crd.CRD,
    "dkd": dkd.DKD,
    "reviewkd": reviewkd.ReviewKD,
    "ickd": ickd.ICKD,
    "rpkd": rpkd.RPKD,
    "sakd": sakd.SAKD,
    "sckd": sckd.SCKD,
    "pkgd": pkgd.PKGD,
    "diswot_plus": diswot_plus.DisWOTPlus,
}

__all__ = ["METHODS", "Distillation", "Distiller", "Networks", "PrepareContext", "Shapes", "create", "options_of"]


def create(name: str, student: nn.Module, teacher: nn.Module, sample: Tensor, **options: Any) -> Distiller:
    """A distillation method for a pair of networks.

    Args:
        name: a key of `METHODS`.
        student, teacher: networks of `efflib.create_model`.
        sample: one batch of normalised images (N, C, H, W), to read shapes; nothing is trained on it.
        options: of the method, see its class.

    Returns:
        A Module that owns its trainable extras, initialised from PyTorch's global generator: seed it first.

    Raises:
        ValueError: unknown method or option (lists the valid ones), or networks whose features do not fit together
            (names both shapes and what could be done).
    """
    valid = options_of(name)
    for option in options:
        if option not in valid:
            raise ValueError(unknown(f"option of {name}", option, valid))
    networks = (Networks(student, teacher),) if METHODS[name].needs_networks else ()
    return METHODS[name](shapes_of(student, sample), shapes_of(teacher, sample), *networks, **options)


def options_of(name: str) -> list[str]:
    """Names of the options that a method takes, in the order of its class.

    Raises:
        ValueError: unknown method (lists the valid ones).
    """
    if name not in METHODS:
        raise ValueError(unknown("method", name, sorted(METHODS)))
    return keyword_only(METHODS[name].__init__)


class Distillation(nn.Module):
    """A loss for `efflib.training.fit`: the method's terms for a batch, with a frozen teacher.

    Args:
        method: of `create`; its parameters are trained with the student.
        teacher: in eval mode and without gradient; not part of this Module's parameters or state.
    """

    def __init__(self, method: Distiller, teacher: nn.Module) -> None:
        super().__init__()
        self.method = method
        # In a tuple: a registered teacher would be trained, checkpointed and put into train mode.
        self._teacher = (teacher.eval().requires_grad_(False),)

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        (teacher,) = self._teacher
        with torch.no_grad():
            guide = features(teacher, batch.images, preactivation=self.method.teacher_preactivation)
        student = features(model, batch.images)
        networks = (Networks(model, teacher, batch.images),) if self.method.needs_networks else ()
        return self.method(student, guide, batch.targets, batch.indices, batch.progress, *networks)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters of the method that are trained at another rate than the student (see `efflib.training.fit`)."""
        return self.method.parameter_groups()
