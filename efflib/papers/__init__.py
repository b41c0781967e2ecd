"""The papers: each package holds what its paper printed, its trial grids, its claims and its recipes.

`efflib.papers.bimask.tables["table2"]` is a Table; `all_tables()` gives the tables of every paper that exists.
"""

from __future__ import annotations

import importlib
from typing import Any

# Slug -> title, in the book's order.
PAPERS = {
    "bimask": "BIMask Learning: A Saliency-Guided Masked Training",
    "encodenet": "EncodeNet: Boosting DNN Accuracy with Entropy-driven Generalized Converting Autoencoder",
    "safety": "Optimizing Deep Neural Networks using Safety-Guided Self Compression",
    "pkgd": "Focusing on Significant Guidance: Preliminary Knowledge Guided Distillation",
    "diswot": "Improving Brain Tumor Classification Using Knowledge Distillation (DisWOT, LRP and cosine; thesis)",
}


def paper(slug: str) -> Any:
    """The package of a paper.

    Raises:
        ValueError: unknown slug; lists the known ones.
    """
    if slug not in PAPERS:
        raise ValueError(f"unknown paper {slug!r}; known: {', '.join(PAPERS)}")
    return importlib.import_module(f"efflib.papers.{slug}")


def get_table(name: str) -> Any:
    """A table by its full name, e.g. "bimask.table2".

    Raises:
        ValueError: unknown; lists the known ones.
    """
    slug, _, identifier = name.partition(".")
    tables = paper(slug).tables
    if identifier not in tables:
        raise ValueError(f"unknown table {name!r}; known: {', '.join(f'{slug}.{each}' for each in tables)}")
    return tables[identifier]


def all_tables() -> dict[str, Any]:
    """Full name -> Table, for every paper that exists."""
    return {f"{slug}.{name}": table for slug in PAPERS for name, table in paper(slug).tables.items()}
