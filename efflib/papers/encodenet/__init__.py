"""EncodeNet: printed numbers, references, trial grids, claims and audit. `tables["table1"]` is a Table."""

from efflib.papers.encodenet.audit import findings
from efflib.papers.encodenet.tables import PRINTED as printed
from efflib.papers.encodenet.tables import tables

title = "EncodeNet: A Framework for Boosting DNN Accuracy with Entropy-driven Generalized Converting Autoencoder"

__all__ = ["findings", "printed", "tables", "title"]
