"""Names -> arrays: embedded sets, files under EFFLIB_DATA, or a download with checksum."""

from __future__ import annotations

from efflib.data.cache import cache_root
from efflib.data.duplicates import Duplicates, find_duplicates, leakage, nearest_neighbour
from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.imageset import ImageSet, holdout, subset
from efflib.data.names import Names, embedded_names, find_names, load_names
from efflib.data.objects import Difficulty, boxes_of, render_objects
from efflib.data.phantom import render_phantom
from efflib.data.sets import NORMALISATION
from efflib.data.sources import (
    available,
    class_names,
    download_dataset,
    downloadable,
    list_datasets,
    load_dataset,
    where,
)

__all__ = [
    "NORMALISATION",
    "DataBroken",
    "DataNotFound",
    "Difficulty",
    "Duplicates",
    "ImageSet",
    "Names",
    "available",
    "boxes_of",
    "cache_root",
    "class_names",
    "download_dataset",
    "downloadable",
    "embedded_names",
    "find_duplicates",
    "find_names",
    "holdout",
    "leakage",
    "list_datasets",
    "load_dataset",
    "load_names",
    "nearest_neighbour",
    "render_objects",
    "render_phantom",
    "subset",
    "where",
]
