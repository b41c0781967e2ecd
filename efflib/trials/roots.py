"""Where things live: the three roots of DESIGN section 5, and the checkout."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from efflib.data.cache import cache_root

__all__ = ["cache_root", "checkout", "results_root", "smoke_root"]


@lru_cache(maxsize=1)
def checkout() -> Path | None:
    """The project's folder, found from pyproject.toml above this file; None when efflib is installed elsewhere."""
    for folder in Path(__file__).resolve().parents:
        project = folder / "pyproject.toml"
        if project.is_file() and 'name = "efflib"' in project.read_text():
            return folder
    return None


def results_root() -> Path:
    """Recorded trials: EFFLIB_RESULTS, else `results/` of the checkout, else a folder in the cache."""
    if os.environ.get("EFFLIB_RESULTS"):
        return Path(os.environ["EFFLIB_RESULTS"]).expanduser()
    home = checkout()
    return home / "results" if home else cache_root() / "results"


def smoke_root() -> Path:
    """Records of smoke runs: never beside the evidence, always in a folder that git ignores."""
    home = checkout()
    return home / "build" / "smoke" if home else cache_root() / "smoke"
