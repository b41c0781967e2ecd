"""Where numbers come from and what they took: data, devices, seeds, time, the networks that a trial starts from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def data_of(entries: Iterable[Any]) -> str:
    """Data with their variant, and how many seeds, of the usable records among entries of `Results`."""
    usable = [entry for entry in entries if entry.usable]
    if not usable:
        return "no usable record"
    records, seeds = [entry.record for entry in usable], {entry.seed for entry in usable}
    data = joined(f"{each.name} ({each.variant})" for each in _read(records)) or "counted without data"
    return f"{data}, {len(seeds)} seed{'s' if len(seeds) != 1 else ''}"


def _read(records: Iterable[Any]) -> list[Any]:
    """The data that was read, if any was."""
    from efflib.trials.record import NO_DATA

    return [record.dataset for record in records if record.dataset.name != NO_DATA]


def cost_in_words(results: Any) -> str:
    """Markdown: data, devices, what the usable trials took, those they start from included; how many are missing."""
    everything = all_behind(results)
    records = {entry.record.key: entry.record for entry in everything.entries if entry.usable}.values()
    if not records:
        return "Data: no usable record"
    have, wanted = everything.recorded
    devices = joined(record.provenance.device for record in records)
    spent = duration(sum(record.cost.seconds for record in records))
    text = f"Data: {in_markdown(data_of(results.entries))}, on {in_markdown(devices)}. "
    text += (
        f"The {have} recorded trial{'s' if have != 1 else ''}, with the networks they start from, took {spent} in all "
    )
    text += "(clock time, whatever else the machine did); repeating them costs about as much."
    if have < wanted:
        seeds = max(entry.seed for entry in results.entries) + 1
        line = f"efflib plan {results.table.paper}.{results.table.id} --scale {results.scale} --seeds {seeds}"
        text += f" {wanted - have} of {wanted} trials are missing: `{line}` estimates them."
    return text


def in_markdown(text: str) -> str:
    """Names from records as plain text in Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>$|&])", r"\\\1", text)


def provenance_rows(results: Any) -> list[dict[str, str]]:
    """One row per scale, recipe and device: trials, time, memory, precision, data variant, source, dates."""
    stale = {entry.record.key for entry in results.entries if entry.record is not None and entry.stale}
    groups: dict[tuple[str, str], list[Any]] = {}
    for record in results.records:
        groups.setdefault((record.recipe, record.provenance.device), []).append(record)
    return [_provenance_row(results.scale, *names, records, stale) for names, records in groups.items()]


def _provenance_row(scale: str, recipe: str, device: str, records: list[Any], stale: set[str]) -> dict[str, str]:
    seconds = sum(record.cost.seconds for record in records)
    commits = {(r.provenance.commit or "unknown")[:10] + (" (dirty)" if r.provenance.dirty else "") for r in records}
    counts = {"failed": sum(r.status == "failed" for r in records), "stale": sum(r.key in stale for r in records)}
    marks = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return {
        "scale": scale,
        "recipe": recipe,
        "device": device,
        "trials": str(len(records)) + (f" ({marks})" if marks else ""),
        "time in all": duration(seconds),
        "per trial": duration(seconds / len(records)),
        "peak memory": f"{max(r.cost.peak_memory_bytes for r in records) / 2**30:.1f} GiB",
        "precision": joined(r.precision for r in records),
        "data": joined(f"{each.name} {each.variant}" for each in _read(records)) or "none",
        "torch": joined(r.provenance.versions.get("torch", "unknown") for r in records),
        "commit": joined(commits),
        "dates": joined(r.provenance.date[:10] for r in records),
    }


def all_behind(results: Any) -> Any:
    """The results of all trials that these rest on: their own, and the networks that they start from."""
    from efflib.trials import Results, collect
    from efflib.trials.trial import with_parents

    own = {entry.trial.identity for entry in results.entries}
    before = [each for each in with_parents(entry.trial for entry in results.entries) if each.identity not in own]
    return Results(results.table, results.scale, [*results.entries, *collect(before, results.scale).entries])


def duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
