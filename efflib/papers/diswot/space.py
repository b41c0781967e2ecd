"""The thesis's networks: one MobileNetV2 teacher and a space of sixteen students, by name.

The thesis says that its space has sixteen variants made with "GAP, dropout, depthwise separable convolutions, depth and
width", and nothing else. This is the space of decision D9: four widths, two depths, two heads; it contains two
distinct members with the 410,208 backbone parameters that Table 3.3 prints twice.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

from torch import nn

from efflib.models import create_model
from efflib.text import unknown

CLASSES = 4  # glioma, meningioma, notumor, pituitary
DROPOUT = 0.3
WIDTHS = (1.0, 0.75, 0.5, 0.35)
DEPTHS = (17, 11)  # inverted residual blocks
HEADS = ("gap", "dsc")  # of students; the teacher's is "flatten"


class Member(NamedTuple):
    """A network of the thesis by its three genes.

    Args:
        width: multiplier of every channel count of the backbone but the last.
        depth: inverted residual blocks: 17 (the standard repeats) or 11.
        head: "gap" and "dsc" (students), "flatten" (the teacher).
    """

    width: float
    depth: int
    head: str

    @property
    def name(self) -> str:
        """E.g. ``w035-d17-gap``."""
        return f"w{round(100 * self.width):03d}-d{self.depth}-{self.head}"

    @property
    def options(self) -> dict[str, Any]:
        """Options of ``create_model("mobilenetv2", 4, ...)``; the image size comes on top."""
        return {"width": self.width, "depth": self.depth, "head": self.head, "dropout": DROPOUT}


TEACHER = Member(1.0, 17, "flatten")
STUDENTS = {member.name: member for member in (Member(*genes) for genes in product(WIDTHS, DEPTHS, HEADS))}
MEMBERS = {TEACHER.name: TEACHER, **STUDENTS}
NARROW_TEACHER = Member(0.35, 11, "flatten")  # the teacher of smoke runs, and of nothing else

# Rows of Table 3.3 -> members. "Best" follows from its 2,257,984 backbone parameters up to the head (Table 3.6 has it);
# "Intermediate" and "Bad" have 410,208 both, so they are w035-d17-gap and w035-d17-dsc in an order that is our guess.
ROLES = {"Best": "w100-d17-gap", "Intermediate": "w035-d17-gap", "Bad": "w035-d17-dsc"}


def member(name: str) -> Member:
    """The teacher or a student by its name.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name == NARROW_TEACHER.name:
        return NARROW_TEACHER
    if name not in MEMBERS:
        raise ValueError(unknown("member of the space", name, list(MEMBERS)))
    return MEMBERS[name]


def build(name: str, image_size: int = 224, classes: int = CLASSES) -> nn.Module:
    """A network of the space with fresh weights (drawn from PyTorch's global generator: seed that first).

    Args:
        name: ``w100-d17-flatten`` (the teacher) or one of the sixteen students.
        image_size: pixels; only the teacher's first dense layer depends on it.
        classes: outputs.

    Raises:
        ValueError: unknown name, or an image size that MobileNetV2 does not take.
    """
    return create_model("mobilenetv2", classes, **member(name).options, image_size=image_size)
