"""PKGD: printed numbers, references, trial grids, claims and audit. `tables["table1"]` is a Table."""

from efflib.papers.pkgd.audit import findings
from efflib.papers.pkgd.tables import PRINTED as printed
from efflib.papers.pkgd.tables import tables

title = "Focusing on Significant Guidance: Preliminary Knowledge Guided Distillation"

__all__ = ["findings", "printed", "tables", "title"]
