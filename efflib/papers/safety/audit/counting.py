"""Published sizes and log lines as numbers of steps of the drift."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from efflib.papers.safety.audit.evidence import CNN, DECODER, METHODS, ROMAN, load
from efflib.papers.safety.drift import NETWORKS, Match, q_after, sizes_after, steps_to


@dataclass(frozen=True)
class Size:
    """A published size and the drift that passes nearest to it."""

    network: str
    where: str
    method: str
    steps_stated: int | None
    match: Match


@cache
def published_sizes() -> tuple[Size, ...]:
    """Every published size of a model that started at 32 bits, with its place on the line of the drift.

    The decoder's row without quantisation is not among them: at 32 bits its quantised weights take less than printed.
    """
    printed = load()
    cells = [(n, m) for n in NETWORKS for m in METHODS if (n, m) != (DECODER, "float")]
    found = [Size(n, ROMAN[n], m, None, steps_to(float(printed.size(n, m)), n)) for n, m in cells]
    for name in ("cnn_main", "cnn_earlier"):
        line = printed.logged(name)
        match = steps_to(line["bytes"], CNN)
        found.append(Size(CNN, printed.references[name]["name"], "safe", line["loop"], match))
    return tuple(found)


@dataclass(frozen=True)
class LogLine:
    """A line of the decoder's published log beside the drift."""

    step: int
    logged: int
    simulated: float
    q_logged: float
    q_simulated: float

    @property
    def same(self) -> bool:
        """Size and Q equal to every printed digit."""
        return round(self.simulated) == self.logged and f"{self.q_simulated:.4f}" == f"{self.q_logged:.4f}"


@cache
def log_lines() -> tuple[LogLine, ...]:
    """The decoder's published log, line by line: Q is that before the step, the size that after it."""
    lines = load().log("decoder_main")
    sizes = sizes_after(DECODER, int(lines[-1]["step"]) + 1)
    return tuple(
        LogLine(
            int(line["step"]),
            int(line["bytes"]),
            float(sizes[int(line["step"]) + 1]),
            line["q"],
            q_after(DECODER, float(sizes[int(line["step"])])),
        )
        for line in lines
    )
