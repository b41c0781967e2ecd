"""BIMask Learning: printed numbers, trial grids, claims, recipes and audit. `tables["table2"]` is a Table."""

from efflib.papers.bimask.audit import findings
from efflib.papers.bimask.tables import PRINTED as printed
from efflib.papers.bimask.tables import tables

title = "BIMask Learning: A Saliency-Guided Masked Training"

__all__ = ["findings", "printed", "tables", "title"]
