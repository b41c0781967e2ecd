"""Safety-guided self compression: printed numbers, references, trial grids, claims, audit and the drift check."""

from efflib.papers.safety.audit import findings
from efflib.papers.safety.pareto import TABLES as _PARETO
from efflib.papers.safety.tables import PRINTED as printed
from efflib.papers.safety.tables import tables as _tables

title = "Optimizing Deep Neural Networks using Safety-Guided Self Compression"

tables = {**_tables, **_PARETO}

__all__ = ["findings", "printed", "tables", "title"]
