"""Trials, records, the store and the runner (DESIGN section 5)."""

from efflib.trials.archive import export, merge
from efflib.trials.planning import Plan, plan
from efflib.trials.record import Record
from efflib.trials.results import Entry, Results, collect
from efflib.trials.runner import run
from efflib.trials.store import Store
from efflib.trials.trial import Trial

__all__ = [
    "Entry",
    "Plan",
    "Record",
    "Results",
    "Store",
    "Trial",
    "collect",
    "export",
    "merge",
    "plan",
    "run",
]
