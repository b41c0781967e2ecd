"""Which notebooks to execute: `make book` runs `doit notebooks` (two at a time, unchanged ones skipped).

The decision to skip is stored in the executed notebook itself (`provenance`): a killed build loses nothing.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from efflib import notebooks

SCALE = os.environ.get("SCALE", "smoke")
DOIT_CONFIG = {
    "dep_file": "build/doit.json",
    "backend": "json",
    "default_tasks": ["notebooks"],
    "verbosity": 2,
}


def task_notebooks():
    """Execute every notebook at SCALE into book/executed."""
    for source in notebooks.sources():
        name, target = notebooks.name_of(source), notebooks.target_of(source)
        try:
            parameters = notebooks.book_parameters(source, SCALE)
        except notebooks.NotebookError as error:
            sys.exit(f"error: {error}")
        yield {
            "name": name,
            "actions": [[sys.executable, "-m", "efflib.notebooks", "run", name, "--scale", SCALE]],
            "targets": [str(target)],
            "uptodate": [partial(notebooks.is_current, source, target, parameters)],
        }
