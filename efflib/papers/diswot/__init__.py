"""DisWOT with relevance maps and cosine (thesis): printed numbers, references, trial grids, claims and the audit."""

from efflib.papers.diswot.audit import findings
from efflib.papers.diswot.tables import PRINTED as printed
from efflib.papers.diswot.tables import tables

title = "Improving Brain Tumor Classification Using Knowledge Distillation"

__all__ = ["findings", "printed", "tables", "title"]
