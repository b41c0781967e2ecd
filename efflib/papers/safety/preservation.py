"""The preservation set of names: those whose letters follow each other least as usual (spec, section 2.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class NameSelection:
    """Names with the lowest scores.

    names: lowest score first. positions: (M,) int64, where they stood in the list. scores: (M,) float64.
    """

    names: tuple[str, ...]
    positions: np.ndarray
    scores: np.ndarray

    @property
    def text(self) -> str:
        """The names joined by newlines, without one at the end."""
        return "\n".join(self.names)


def bigram_scores(names: Sequence[str]) -> np.ndarray:
    """Mean probability of a letter given the one before, from counts of the letter pairs inside these very names.

    Args:
        names: of two letters or more each.

    Returns:
        (N,) float64 in (0, 1]; a low score marks an unusual name. The start and the end of a name count nothing.

    Raises:
        ValueError: a name without a letter pair.

    Source: the paper's repository; section 2.6 of the safety spec.
    """
    short = [name for name in names if len(name) < 2]
    if short:
        raise ValueError(f"a name needs two letters to have a bigram, got {short[:5]}: leave such names out")
    pairs = Counter(pair for name in names for pair in pairwise(name))
    firsts = Counter(letter for name in names for letter in name[:-1])
    probability = {pair: count / firsts[pair[0]] for pair, count in pairs.items()}
    return np.array([np.mean([probability[pair] for pair in pairwise(name)]) for name in names])


def preserved_names(names: Sequence[str], count: int = 1000) -> NameSelection:
    """The names with the lowest bigram scores, ties by position.

    Args:
        names: the complete training names (`NamePart.names`): the paper's code scores the whole list, and so 148 of its
            1,000 preserved names lie in the validation text.
        count: M; the spec also looks at a tenth of the training names, 2,881.

    Raises:
        ValueError: fewer names than that.
    """
    if not 1 <= count <= len(names):
        raise ValueError(f"{count} of {len(names)} names cannot be preserved: choose between 1 and {len(names)}")
    scores = bigram_scores(names)
    positions = np.argsort(scores, kind="stable")[:count]
    return NameSelection(tuple(names[position] for position in positions), positions, scores[positions])
