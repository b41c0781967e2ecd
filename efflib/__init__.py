"""efflib: the library under the book "Efficient Deep Learning, Reproduced".

`create_model`, `list_models`, `load_dataset` and `run` are the four names that most notebooks need; the rooms
(`efflib.data`, `efflib.models`, `efflib.training`, `efflib.explain`, `efflib.kernels`, `efflib.papers`,
`efflib.trials`, `efflib.report`) hold the rest. Names are resolved on first use, so that `import efflib` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "create_model": "efflib.models",
    "list_models": "efflib.models",
    "load_dataset": "efflib.data",
    "list_datasets": "efflib.data",
    "run": "efflib.trials",
}
_ROOMS = ("data", "explain", "kernels", "models", "papers", "report", "training", "trials")

__all__ = ["__version__", *_WHERE, *_ROOMS]

if TYPE_CHECKING:
    from efflib.data import list_datasets as list_datasets
    from efflib.data import load_dataset as load_dataset
    from efflib.models import create_model as create_model
    from efflib.models import list_models as list_models
    from efflib.trials import run as run


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"efflib.{name}")
    raise AttributeError(f"module 'efflib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
