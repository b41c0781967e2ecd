"""Time several ways of doing one thing against each other, and keep what was measured as rows of a CSV file.

All contestants run in one process on one machine, one after the other in each round, and the one that begins changes
from round to round: a machine that warms up or gets busy slows all of them, not only the last. Ratios are taken
within a round for the same reason. A row says what it was measured on; the rows of one call share their `date`.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from efflib.training import pick_device
from efflib.trials import provenance

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "date",
    "commit",
    "dirty",
    "device",
    "device_type",
    "threads",
    "driver",
    "cuda",
    "versions",
    "load",
    "contestant",
    "setting",
    "unit",
    "median",
    "low",
    "high",
    "repeats",
)
COPY, MATMUL = "copy", "matmul"
Row = dict[str, Any]
Work = Callable[[], object]
Clock = Callable[[], float]


def measure(
    contestants: Mapping[str, Work],
    repeats: int,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    calls: Mapping[str, int] | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds per call of every contestant in every round.

    Args:
        contestants: name -> what to time. In round r the contestant number r (modulo their count) begins.
        repeats: measured rounds.
        warmup: rounds before them that are run but not kept (caches, workers, compilation).
        device: on CUDA the time is taken by events of the device, after everything before it has finished.
        calls: name -> calls timed at a stretch, for work too short for the clock; 1 by default.
        clock: of the host; not used on CUDA.

    Returns:
        name -> one number per measured round; equal positions are the same round.

    Raises:
        ValueError: no contestant, or no round to measure.
    """
    if not contestants or repeats < 1 or warmup < 0:
        raise ValueError(
            f"{len(contestants)} contestants, {repeats} measured and {warmup} warm-up rounds: "
            "give at least one contestant, one measured round and no negative warm-up"
        )
    names = list(contestants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmup, repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            spent = seconds_per_call(contestants[name], (calls or {}).get(name, 1), device, clock)
            if number >= 0:
                samples[name].append(spent)
    return samples


def seconds_per_call(work: Work, calls: int, device: torch.device | str, clock: Clock = time.perf_counter) -> float:
    """Mean time of `calls` calls at a stretch, in seconds."""
    if torch.device(device).type == "cuda":
        return _cuda_seconds(work, calls, torch.device(device)) / calls
    started = clock()
    for _ in range(calls):
        work()
    return (clock() - started) / calls


def _cuda_seconds(work: Work, calls: int, device: torch.device) -> float:
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(calls):
            work()
        end.record()
        torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def enough_calls(work: Work, device: torch.device | str, seconds: float = 0.05) -> int:
    """How many calls at a stretch take about `seconds` (at least 1); calls the work twice before."""
    work()
    return max(1, int(seconds / max(seconds_per_call(work, 1, device), 1e-7)))


def summary(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, 10 % quantile, 90 % quantile), linear between neighbours."""
    low, median, high = np.quantile(np.asarray(values, dtype=float), (0.1, 0.5, 0.9))
    return float(median), float(low), float(high)


def per_round(samples: Mapping[str, list[float]], reference: str) -> dict[str, list[float]]:
    """How many times faster than the reference each contestant was, round by round; the reference is left out."""
    base = samples[reference]
    return {
        name: [theirs / ours for theirs, ours in zip(base, values, strict=True)]
        for name, values in samples.items()
        if name != reference
    }


def references(options: argparse.Namespace) -> tuple[int, int]:
    """Bytes of the reference copy and side of the reference product: large enough to show the device's ceilings."""
    if options.quick:
        return 1_000_000, 64
    return (2_000_000_000, 8192) if options.device.type == "cuda" else (256_000_000, 1024)


def copying(count: int, device: torch.device) -> Work:
    """A copy of `count` bytes."""
    source = torch.randint(0, 256, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def multiplying(side: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Work:
    """A product of two square matrices of random numbers."""
    a, b = torch.rand(2, side, side, device=device).to(dtype)
    return lambda: a @ b


def environment(device: torch.device, libraries: Sequence[str] = ()) -> Row:
    """What a row says about where it was measured: device, threads, driver, versions, commit, date, load.

    Args:
        device: where the work runs.
        libraries: distributions whose versions matter here besides those of a trial record, e.g. "captum".
    """
    commit, dirty = provenance.commit()
    versions = provenance.versions() | {name: _version(name) for name in libraries}
    cuda = device.type == "cuda"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "device": provenance.device_name(device),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "driver": _driver() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "versions": "; ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        # Other programs on the machine: a reader can see whether it was quiet.
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


@functools.cache
def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.split("\n")[0].strip() or None if answer.returncode == 0 else None


def row(place: Row, contestant: str, setting: str, unit: str, values: Sequence[float]) -> Row:
    """One row: the median and the 10 and 90 % quantiles of the values, and where they were measured."""
    numbers = [float(f"{value:.6g}") for value in summary(values)]
    what = {"contestant": contestant, "setting": setting, "unit": unit, "repeats": len(values)}
    return place | what | dict(zip(("median", "low", "high"), numbers))


def append_csv(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to a CSV file; a new file gets the header first.

    Raises:
        ValueError: the file has other columns, or a row lacks one or has one too many.
    """
    for entry in rows:
        if set(entry) != set(COLUMNS):
            raise ValueError(f"a row needs the columns {', '.join(COLUMNS)}; it differs in {set(entry) ^ set(COLUMNS)}")
    header = path.read_text().split("\n")[0] if path.exists() else ""
    if header and header != ",".join(COLUMNS):
        raise ValueError(f"{path.name} has the columns {header}, these rows {','.join(COLUMNS)}: move the file away")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not header:
            writer.writeheader()
        writer.writerows(rows)


def parser(name: str, description: str, repeats: int) -> argparse.ArgumentParser:
    """Command line that all benchmarks share; the first line of the description is what --help shows."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description.split("\n")[0])
    found.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; never recorded")
    found.add_argument("--json", action="store_true", help="print JSON instead of a table")
    found.add_argument("--record", action="store_true", help=f"append the rows to benchmarks/results/{name}.csv")
    found.add_argument("--device", type=_device, default="auto", help="auto (default), cpu, cuda, cuda:1 ...")
    found.add_argument("--repeats", type=positive, default=repeats, help=f"measured rounds (default {repeats})")
    return found


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None, **quick: object) -> argparse.Namespace:
    """Options of a call. With --quick the values of `quick` are the defaults; --quick --record is an error."""
    options = parser.parse_args(argv)
    if options.quick and options.record:
        parser.error("--quick only shows that the benchmark works, its times mean nothing: leave out one of the two")
    if options.quick:
        parser.set_defaults(**quick)
        options = parser.parse_args(argv)
    return options


def positive(text: str) -> int:
    """Type of an option: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number of at least 1, not {text!r}")
    return int(text)


def _device(text: str) -> torch.device:
    try:
        return pick_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def report(name: str, rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Print the rows as a table or as JSON; with --record also append them to results/<name>.csv."""
    if options.json:
        print(json.dumps({"benchmark": name, "quick": options.quick, "rows": rows}, indent=1))
    else:
        _print_table(name, rows, options.quick)
    if options.record and not options.quick:
        append_csv(RESULTS / f"{name}.csv", rows)


def _print_table(name: str, rows: Sequence[Row], quick: bool) -> None:
    place = rows[0]
    print(f"{name} on {place['device']}; {place['versions']}; load {place['load']}")
    if quick:
        print("--quick: this shows that the benchmark works, the times mean nothing")
    wide = max(len(entry["contestant"]) for entry in rows)
    unit = max(len(entry["unit"]) for entry in rows)
    for number, entry in enumerate(rows):
        if number == 0 or entry["setting"] != rows[number - 1]["setting"]:
            print(f"\n{entry['setting']}")
        numbers = f"{entry['median']:>10.4g} {entry['unit']:<{unit}}  ({entry['low']:.4g} .. {entry['high']:.4g})"
        print(f"  {entry['contestant']:<{wide}} {numbers}")
