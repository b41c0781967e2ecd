"""Which learning rate: the rule of the spec (section 4.3), and what the teachers reach with each rate.

The thesis prints 1e-4. From scratch, with fewer and smaller images, a network may not get far with it. The rule, fixed
before any run, looks at held-out training images only: below `ENOUGH`, 1e-3 is offered, the same for every method of a
scale. There it falls along a cosine. Here it stays constant, as in the thesis: a run then contains all shorter ones.
"""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from efflib.papers.diswot import arms
from efflib.papers.diswot.tables import tables
from efflib.report.html import html_table, sentence
from efflib.report.notebook import evidence
from efflib.report.verdict import interval_text

ENOUGH = 95.0  # percent of the held-out images


def rates_table() -> Any:
    """Table: the teachers' accuracy after the last epoch with each rate, on held-out and on test images."""
    chosen = [scale for scale, size in arms.SIZES.items() if size.holdout]  # elsewhere nothing can be chosen
    rows = [row for scale in chosen for lr in arms.RATES if (row := _row(scale, lr))]
    if not rows:
        return sentence("No teacher that holds training images out is recorded yet.")
    caption = "Teachers with each rate, accuracy in % after the last epoch, mean ± half the 95 % interval (seeds)"
    return HTML(html_table(rows, caption, "diswot-rates"))


def _row(scale: str, lr: float) -> dict[str, Any]:
    """A row of the table; empty where no teacher is recorded."""
    size = arms.SIZES[scale]
    results = evidence(tables["table3_6"], scale, rates=[lr])
    found = {
        entry.seed: entry.record.metrics["curves"]
        for entry in results.matching(model=size.teacher.name, method="baseline")
        if entry.usable and entry.record is not None
    }
    if not found:
        return {}
    held = {seed: curves["validation"][-1] for seed, curves in found.items()}
    return {
        "scale": scale,
        "rate": f"{lr:g}" + (", used" if lr == size.lr else ""),
        "epochs": max(len(curves["validation"]) for curves in found.values()),
        "held-out images": interval_text(held, 2),
        f"above {ENOUGH:g} %": min(held.values()) > ENOUGH,
        "test images": interval_text({seed: curves["test"][-1] for seed, curves in found.items()}, 2),
    }
