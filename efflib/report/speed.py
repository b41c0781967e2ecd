"""The benchmark page, drawn from the CSV files of `benchmarks/` alone: what was timed, on what, losses included."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from efflib.report.html import html_table

Row = dict[str, str]
_TRAINER = (
    "Images per second of this library's training loop against the plain loop of the field: torchvision's transforms "
    "in a DataLoader, float32, the loss read back in every step. The floor is what the measured speeds of a large copy "
    "and of matrix products would allow for the same work; a share above 100 % means that data stayed in a cache."
)
# File, heading, what it answers.
BENCHMARKS = (
    ("trainer", "Training", _TRAINER),
    ("packed", "Several seeds on one device", "Seconds for one epoch of all seeds, one after another and together."),
    ("saliency", "Saliency masks", "Seconds for BIMask's masks of 1,000 images, against captum."),
    (
        "kernels",
        "Operations",
        "Every operation of `efflib.kernels` against its floor and the others that ran. On a CPU an operation "
        "is its plain definition, which `torch.compile` often makes faster; the last column shows by how much.",
    ),
)
FLOOR_UNIT = "% of floor"
RIVALS = ("definition", "torch.compile", "Liger-Kernel")


def speed_markdown(folder: Path) -> str:
    """All benchmarks as tables; where there is no row, a sentence that says so.

    Args:
        folder: where the CSV files are, `benchmarks/results` of a checkout.
    """
    parts = []
    for name, heading, question in BENCHMARKS:
        rows = latest(read(folder / f"{name}.csv"))
        body = _operations(rows) if name == "kernels" else _contestants(rows)
        parts.append(f"## {heading}\n\n{question}\n\n{body}\n\n{_missing(rows, name)}".rstrip())
    compiled = latest(read(folder / "compiled.csv"))
    parts.append(f"## Kernels as compiled\n\n{_resources(compiled)}")
    return "\n\n".join(parts) + "\n"


def read(path: Path) -> list[Row]:
    """The rows of a benchmark's CSV file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def latest(rows: Iterable[Row]) -> list[Row]:
    """Of each device, setting, contestant and unit the newest row, in the order in which they first came."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in ("device", "setting", "contestant", "unit"))
        if key not in found or row["date"] >= found[key]["date"]:
            found[key] = row
    return list(found.values())


def _contestants(rows: list[Row]) -> str:
    """One table per device and setting: a line per contestant, a column per unit; floors with their work."""
    tables = []
    for (device, setting), own in _grouped([_without_work(row) for row in rows], "device", "setting").items():
        lines: dict[str, dict[str, Any]] = {}
        for row in own:
            lines.setdefault(row["contestant"], {"": row["contestant"]})[row["unit"]] = _span(row)
        work = {row["contestant"]: row["work"] for row in own if row["work"] and row["contestant"].startswith("floor")}
        caption = f"{device}: {', '.join(part.replace('=', ' ') for part in setting.split())}"
        tables.append(html_table(list(lines.values()), caption) + _works(work) + _place(own[0]))
    return "\n\n".join(tables)


def _without_work(row: Row) -> Row:
    """The row with what a floor counts, the FLOPs and bytes at the end of its setting, under "work"."""
    setting, sign, work = row["setting"].partition(" flops=")
    return {**row, "setting": setting, "work": f"flops={work}" if sign else ""}


def _operations(rows: list[Row]) -> str:
    """One table per device: a line per operation, pass and size, with its floor and who was faster."""
    tables = []
    for (device,), own in _grouped(rows, "device").items():
        lines = [_operation(each) for each in _grouped(own, "setting").values()]
        note = (
            "The floor is the longer of the bytes that must move at the speed of a large copy, and the matrix products "
            "at the speed of a large one, both measured beside the operation. Times in microseconds, medians. A "
            f"share above 100 % means that the data stayed in a cache. {_place(own[0])}"
        )
        tables.append(f"{html_table(lines, device)}\n\n{note}")
    return "\n\n".join(tables)


def _operation(rows: list[Row]) -> dict[str, Any]:
    name, passes, *settings = rows[0]["setting"].split()
    times = {row["contestant"]: float(row["median"]) for row in rows if row["unit"] == "us"}
    shares = {row["contestant"]: float(row["median"]) for row in rows if row["unit"] == FLOOR_UNIT}
    line: dict[str, Any] = {"operation": name, "passes": passes}
    line |= dict(setting.split("=") for setting in settings)
    line |= {"floor": times.get("floor"), "efflib": times["efflib"], FLOOR_UNIT: shares.get("efflib")}
    line |= {rival: times.get(rival, "") for rival in RIVALS}
    found = [times[rival] for rival in RIVALS if rival in times]
    line["times the best other"] = min(found) / times["efflib"] if found else ""
    return line


def _resources(rows: list[Row]) -> str:
    """Registers, stack and shared memory of every kernel."""
    if not rows:
        return "No kernel has been compiled for this page yet: `python -m benchmarks.compiled --record`."
    tables = []
    for (device,), own in _grouped(rows, "device").items():
        lines: dict[tuple[str, str], dict[str, Any]] = {}
        for row in own:
            first = {"operation": row["setting"].split()[0], "kernel": row["contestant"]}
            lines.setdefault((row["setting"], row["contestant"]), first)[row["unit"]] = int(float(row["median"]))
        tables.append(html_table(list(lines.values()), f"Triton kernels: {device}"))
    note = "Bytes of stack above 0 would mean that values spill out of the registers."
    return "\n\n".join([*tables, note])


def _missing(rows: list[Row], name: str) -> str:
    """What has not been measured yet, and the command that would."""
    if any(row["device_type"] == "cuda" for row in rows):
        return ""
    command = f"`python -m benchmarks.{name} --record`"
    if not rows:
        return f"Nothing has been recorded yet: {command} fills this in."
    return f"No GPU row has been recorded: {command} on a machine with one fills this in."


def _works(work: Mapping[str, str]) -> str:
    """What the floors of a table count per image: the longer of the two times is the floor."""
    told = []
    for name, text in work.items():
        flops, moved = (float(part.split("=")[1]) for part in text.split()[:2])
        told.append(f"{name}: {flops / 1e6:,.0f} MFLOP and {moved / 1e6:,.1f} MB per image")
    return f"<p>{escape('; '.join(told))}</p>" if told else ""


def _place(row: Mapping[str, str]) -> str:
    """Where and when the rows of a table were measured."""
    said = f"{row['threads']} threads, load {row['load']} at the start, {row['repeats']} rounds; median (10 to 90 %)"
    made = f"{row['date'][:10]}, commit {row['commit'][:7]}"
    return f"<p>{escape(said)}; {escape(made)}; {escape(row['versions'])}</p>"


def _span(row: Row) -> str:
    return f"{_number(row['median'])} ({_number(row['low'])} to {_number(row['high'])})"


def _number(text: str) -> str:
    value = float(text)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _grouped(rows: Iterable[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found
