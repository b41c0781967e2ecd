"""BIMask Learning: printed numbers, trial grids, claims and recipes. `tables["table2"]` is a Table."""

from efflib.papers.bimask.tables import PRINTED as printed
from efflib.papers.bimask.tables import tables

__all__ = ["printed", "tables"]
