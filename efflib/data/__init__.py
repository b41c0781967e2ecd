"""Names -> arrays: embedded sets, files under EFFLIB_DATA, or a download with checksum."""

from __future__ import annotations

from efflib.data.cache import cache_root
from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.imageset import ImageSet, holdout, subset
from efflib.data.names import Names, embedded_names, find_names, load_names
from efflib.data.objects import Difficulty, boxes_of, render_objects
from efflib.data.sets import NORMALISATION
from efflib.data.sources import available, download_dataset, list_datasets, load_dataset, where

__all__ = [
    "NORMALISATION",
    "DataBroken",
    "DataNotFound",
    "Difficulty",
    "ImageSet",
    "Names",
    "available",
    "boxes_of",
    "cache_root",
    "download_dataset",
    "embedded_names",
    "find_names",
    "holdout",
    "list_datasets",
    "load_dataset",
    "load_names",
    "render_objects",
    "subset",
    "where",
]
