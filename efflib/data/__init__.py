"""Names -> arrays: embedded sets, files under EFFLIB_DATA, or a download with checksum."""

from __future__ import annotations

from efflib.data.cache import cache_root
from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.imageset import ImageSet, holdout, subset
from efflib.data.objects import Difficulty, boxes_of, render_objects
from efflib.data.sets import NORMALISATION
from efflib.data.sources import available, download_dataset, list_datasets, load_dataset, where

__all__ = [
    "NORMALISATION",
    "DataBroken",
    "DataNotFound",
    "Difficulty",
    "ImageSet",
    "available",
    "boxes_of",
    "cache_root",
    "download_dataset",
    "holdout",
    "list_datasets",
    "load_dataset",
    "render_objects",
    "subset",
    "where",
]
