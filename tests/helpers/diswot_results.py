"""Results of the thesis's runs, made up, and what its claims make of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from efflib.papers.diswot.tables import tables
from efflib.report.verdict import ClaimVerdict, claim_verdict


class Fake:
    """Results made up: (name, method, epochs, metric) -> one value, the same spread around it for each seed."""

    def __init__(
        self, values: dict[tuple, float], scores: dict[str, float] | None = None, scale: str = "paper", seeds: int = 3
    ):
        self.values, self.scores, self.scale, self.seeds = values, scores, scale, seeds

    def samples(self, metric: str = "last", **cell: Any) -> dict[int, float]:
        name = cell.get("student") or cell.get("model")
        key = (name, cell.get("method"), cell.get("epochs"), cell.get("class") or metric)
        return {s: self.values[key] + 0.01 * s for s in range(self.seeds)} if key in self.values else {}

    def matching(self, **cell: Any) -> list[Any]:
        assert cell == {"method": "score"}
        if not self.scores:
            return []
        # Either series of draws alone has another order; their mean is the given score.
        by_series = [
            {name: [value + sign * 20 * number] for number, (name, value) in enumerate(self.scores.items())}
            for sign in (-1, 1)
        ]
        return [
            SimpleNamespace(seed=seed, metrics={"scores": {"thesis": drawn}}) for seed, drawn in enumerate(by_series)
        ]


def decided(name: str, letter: str, results: Fake) -> ClaimVerdict:
    (claim,) = [each for each in tables[name].claims if each.id.endswith(f".{letter}")]
    return claim_verdict(claim.comparisons(results), results.scale, claim.minimum_scale)


def verdict(name: str, letter: str, results: Fake) -> str:
    return decided(name, letter, results).verdict
