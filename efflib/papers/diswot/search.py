"""Searching the space for the student of lowest score: exhaustively, by regularised evolution, at random.

With sixteen members scoring all of them costs at most a few more scores than a search and cannot miss, so `exhaustive`
is authoritative; evolution is here because the thesis names it (section 2.4.1.3), and random search because evolution
needs a control of equal budget.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from efflib.papers.diswot.space import DEPTHS, HEADS, STUDENTS, WIDTHS, Member

Score = Callable[[str], float]
GENES: dict[str, tuple] = {"width": WIDTHS, "depth": DEPTHS, "head": HEADS}


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        best: name of the member with the lowest score among those scored; of equal ones, the first scored.
        score: its score.
        scored: every distinct member scored and its score, in order: the budget that was spent.
        asked: how often a score was asked for; repeats come from the cache and cost nothing.
    """

    best: str
    score: float
    scored: Mapping[str, float]
    asked: int

    @property
    def spent(self) -> int:
        """Distinct members scored."""
        return len(self.scored)


class _Cache:
    """Scores each member once and remembers it."""

    def __init__(self, score: Score) -> None:
        self.score, self.known, self.asked = score, dict[str, float](), 0

    def __call__(self, member: Member) -> float:
        self.asked += 1
        name = member.name
        if name not in self.known:
            value = float(self.score(name))
            if math.isnan(value):
                raise ValueError(f"the score of {name} is not a number: nothing can be lower or higher than it")
            self.known[name] = value
        return self.known[name]

    def found(self) -> Found:
        best = min(self.known, key=self.known.__getitem__)
        return Found(best, self.known[best], dict(self.known), self.asked)


def exhaustive(score: Score) -> Found:
    """Score all sixteen members once; the authoritative answer.

    Args:
        score: member's name -> score, lower is better.

    Raises:
        ValueError: a score that is not a number.
    """
    cache = _Cache(score)
    for member in STUDENTS.values():
        cache(member)
    return cache.found()


def evolve(score: Score, seed: int, evaluations: int = 60, population: int = 6, tournament: int = 3) -> Found:
    """Regularised evolution: the best of a tournament has one mutated child, the oldest dies.

    Args:
        score: member's name -> score, lower is better; asked once per member.
        seed: of the first population, the tournaments and the mutations.
        evaluations: how often a score is asked for, the first population included; `Found.spent` counts distinct
            members, at most sixteen.
        population: distinct members at the start, and the size kept.
        tournament: members of the population, drawn without replacement, whose best is the parent.

    Raises:
        ValueError: sizes that do not fit each other or the space, or a score that is not a number.

    Source: section 2.4.1.3 of the thesis names "an evolutionary algorithm"; this is Real et al. 2019. The official
    DisWOT code draws parents from the worst five of its population, which is not repeated here.
    """
    if not 1 <= tournament <= population <= min(evaluations, len(STUDENTS)):
        raise ValueError(
            f"evolve(evaluations={evaluations}, population={population}, tournament={tournament}): needs "
            f"1 <= tournament <= population <= evaluations and population <= {len(STUDENTS)}, the members there are"
        )
    generator, cache = random.Random(seed), _Cache(score)
    living = deque(generator.sample(list(STUDENTS.values()), population))
    for member in living:
        cache(member)
    while cache.asked < evaluations:
        parent = min(generator.sample(list(living), tournament), key=lambda member: cache.known[member.name])
        child = mutate(parent, generator)
        cache(child)
        living.append(child)
        living.popleft()
    return cache.found()


def mutate(parent: Member, generator: random.Random) -> Member:
    """A member that differs from its parent in exactly one gene, gene and value uniform."""
    gene = generator.choice(Member._fields)
    return parent._replace(
        **{gene: generator.choice([value for value in GENES[gene] if value != getattr(parent, gene)])}
    )


def random_search(score: Score, seed: int, budget: int) -> Found:
    """The control: score so many distinct members in random order.

    Args:
        score: member's name -> score, lower is better.
        seed: of the order.
        budget: distinct members to score, e.g. `Found.spent` of an evolution.

    Raises:
        ValueError: a budget outside 1..16, or a score that is not a number.
    """
    if not 1 <= budget <= len(STUDENTS):
        raise ValueError(f"random_search(budget={budget}): the space has {len(STUDENTS)} members; use 1 to that many")
    cache = _Cache(score)
    for member in random.Random(seed).sample(list(STUDENTS.values()), budget):
        cache(member)
    return cache.found()
