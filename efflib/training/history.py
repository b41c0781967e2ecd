"""What a run leaves behind beside its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class History:
    """Curves of one run, one entry per finished epoch; accuracies in percent, losses as means per image.

    `last` uses no selection; `test_best` is the maximum over epochs on the test set (what most papers print);
    `val_best` is the test accuracy of the epoch that is best on the held-out images (first of equals), None without.
    `seconds` is clock time in all, `epoch_seconds` the training part of each epoch, without its evaluation. `followed`
    holds what the caller of `fit` asked for beside these, by the number of finished epochs.
    """

    test: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    seconds: float = 0.0
    epoch_seconds: list[float] = field(default_factory=list)
    resumed_from: int = 0
    followed: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return len(self.test)

    @property
    def last(self) -> float:
        return self.test[-1]

    @property
    def test_best(self) -> float:
        return max(self.test)

    @property
    def test_best_epoch(self) -> int:
        """Epoch of `test_best`, counting from 1, the first of equals."""
        return int(np.argmax(self.test)) + 1

    @property
    def seconds_per_epoch(self) -> float | None:
        """Median training time of an epoch; the first is left out where there are more: it warms caches up."""
        return float(np.median(self.epoch_seconds[1:] or self.epoch_seconds)) if self.epoch_seconds else None

    @property
    def val_best_epoch(self) -> int | None:
        return int(np.argmax(self.validation)) + 1 if self.validation else None

    @property
    def val_best(self) -> float | None:
        return self.test[self.val_best_epoch - 1] if self.val_best_epoch else None

    def metrics(self) -> dict[str, Any]:
        """The three accuracies, their epochs and the full curves, as a trial record keeps them."""
        return {
            "last": self.last,
            "test_best": self.test_best,
            "test_best_epoch": self.test_best_epoch,
            "val_best": self.val_best,
            "val_best_epoch": self.val_best_epoch,
            "curves": {"test": self.test, "validation": self.validation, "lr": self.rates, **self.losses},
        }
