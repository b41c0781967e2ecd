"""Which learning rate: the rule of the spec (section 4.3), and what the teachers reach with each rate.

The thesis prints 1e-4. From scratch, with fewer and smaller images, a network may not get far with it; the rule, fixed
before any run, then takes ten times as much for every method of the scale. It looks at held-out training images only.
"""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from efflib.papers.diswot import arms
from efflib.papers.diswot.tables import tables
from efflib.report.html import html_table, sentence
from efflib.report.notebook import evidence
from efflib.report.verdict import SCALES, interval_text

ENOUGH = 95.0  # percent of the held-out images


def rates_table() -> Any:
    """Table: the teachers' accuracy after the last epoch with each rate, on held-out and on test images."""
    rows = [row for scale in SCALES if scale != "smoke" for lr in arms.RATES if (row := _row(scale, lr))]
    if not rows:
        return sentence("No teacher that holds training images out is recorded yet.")
    caption = "Teachers with each rate, accuracy in % after the last epoch, mean ± half the 95 % interval (seeds)"
    return HTML(html_table(rows, caption, "diswot-rates"))


def _row(scale: str, lr: float) -> dict[str, Any]:
    """A row of the table; empty where no teacher with held-out images is recorded."""
    size = arms.SIZES[scale]
    results = evidence(tables["table3_6"], scale, rates=[lr])
    found = {
        entry.seed: entry.record.metrics["curves"]
        for entry in results.matching(model=size.teacher.name, method="baseline")
        if entry.usable and entry.record is not None and entry.record.metrics["curves"]["validation"]
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
