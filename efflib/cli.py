"""The command line: `efflib list | plan | run | campaign | status | audit | ledger | data | export | merge | pages`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="""Reproduce the tables of "Efficient Deep Learning, Reproduced" and look at what was measured.

    A table is named PAPER.TABLE, e.g. bimask.table2. Scales: smoke (embedded data, seconds), tiny (CPU hours on real
    data), small (GPU hours), paper (the paper's full grid). Start with `efflib list`.""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(metavar="TABLE", help="A table, e.g. bimask.table2; `efflib list` shows all.")]
ScaleOption = Annotated[str, typer.Option("--scale", "-s", help="smoke, tiny, small or paper.")]
SeedsOption = Annotated[
    str, typer.Option("--seeds", help="A number n (seeds 0..n-1), or a list such as 0,3,4 or 7, (one seed).")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Narrow a choice of the table, e.g. --only models=vgg8,resnet20. Repeatable."),
]


@app.command("list")
def list_() -> None:
    """List the tables, with what is recorded of each at every scale."""
    from efflib.papers import PAPERS, all_tables
    from efflib.scales import SCALES
    from efflib.trials import collect

    tables = all_tables()
    for slug, title in PAPERS.items():
        typer.echo(f"{slug}: {title}")
        for name, table in tables.items():
            if name.startswith(f"{slug}."):
                done = {scale: collect(table, scale).recorded for scale in SCALES}
                shown = ", ".join(f"{scale} {have}/{all_}" for scale, (have, all_) in done.items())
                typer.echo(f"  {name:<16} {table.title:<45} recorded trials: {shown}")


@app.command()
def plan(table: Name, scale: ScaleOption = "smoke", seeds: SeedsOption = "5", only: Only = None) -> None:
    """Show how many trials a run would take, how many are shared or recorded, and the time by device.

    Nothing is run and no data are needed: a trial counts as recorded on whatever variant of its data and in whatever
    precision; `efflib run` repeats what was recorded with other data files or precision than this machine's.
    Example: efflib plan bimask.table2 --scale tiny --seeds 5
    """
    from efflib.papers import all_tables
    from efflib.trials import plan as make_plan

    chosen = _table(table)
    others = [other for name, other in all_tables().items() if name != table]
    planned = make_plan(chosen, scale, _seeds(seeds), others, **_choices(only))
    typer.echo(
        f"{table} at scale {scale}: {len(planned.trials)} trials, {planned.shared} shared with other tables, "
        f"{planned.recorded} recorded, {len(planned.missing)} missing ({planned.flops:.2e} FLOPs)"
    )
    for device, seconds in planned.seconds.items():
        unknown = f", and {planned.unknown[device]} trials of unknown time" if planned.unknown[device] else ""
        typer.echo(f"  {device}: {_duration(seconds)} for the missing ones{unknown}")
    if planned.missing and not planned.seconds:
        typer.echo("  no recorded trial tells a time yet; run one seed first")


@app.command()
def run(
    table: Name,
    scale: ScaleOption = "smoke",
    seeds: SeedsOption = "1",
    only: Only = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of this process.")] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Also run what is recorded; both records are kept.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Also run what failed before.")] = False,
) -> None:
    """Run the missing trials of a table. Stop it at any time; the same command continues.

    It ends with exit status 1 if a trial has no usable record afterwards. Start it several times at once (say, twice
    with --threads 1) to share the work between processes. Real data are looked up under the environment variable
    EFFLIB_DATA; records go to EFFLIB_RESULTS (default: results/), weights and checkpoints to EFFLIB_CACHE.
    Example: efflib run bimask.table2 --scale tiny --seeds 5 --only models=resnet14
    """
    import torch
    from tqdm.auto import tqdm

    from efflib.training import pick_device, pick_precision
    from efflib.trials import Store, collect
    from efflib.trials.runner import Machine, run_trials

    if threads:
        torch.set_num_threads(threads)
    machine = Machine(pick_device(device), pick_precision(precision, pick_device(device)))
    trials = _table(table).trials(scale, _seeds(seeds), **_choices(only))
    run_trials(
        trials,
        Store.for_scale(scale),
        machine,
        recompute,
        renew=scale == "smoke",
        retry=retry,
        report=tqdm.write,
    )
    found = collect(trials, scale)
    usable, asked = found.recorded
    typer.echo(f"{table} at scale {scale}: {usable} of {asked} trials have a usable record")
    if usable < asked:  # so that a script that calls this notices
        for record in found.records:
            if record.failure is not None:
                typer.echo(f"efflib: {record.recipe} {record.key} failed: {record.failure.reason}", err=True)
        typer.echo("efflib: `--retry` runs failed trials again", err=True)
        raise typer.Exit(1)


@app.command()
def campaign(
    budget: Annotated[str, typer.Option(help="Time to spend, e.g. 90s, 9min or 1.5h.")],
    scale: ScaleOption = "small",
    paper: Annotated[list[str] | None, typer.Option(help="Only this paper's claims. Repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Trials at once on the device.")] = 1,
    archive: Annotated[Path | None, typer.Option(help="Pack the new records into this archive.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")] = False,
) -> None:
    """Spend a fixed time on the trials that decide the most open claims per second.

    Times come from trials recorded on this device; without any, the trials with the fewest FLOPs per claim go first.
    The same command continues where it stopped. Example, on a borrowed GPU:
    efflib campaign --budget 9min --workers 5 --archive records.tar.gz; at home: efflib merge records.tar.gz
    """
    from datetime import UTC, datetime

    from efflib import papers
    from efflib.report.undecided import undecided
    from efflib.training import pick_device, pick_precision
    from efflib.trials import Store
    from efflib.trials import export as pack
    from efflib.trials.campaign import choose, clock_of, run_packed, with_data
    from efflib.trials.provenance import device_name
    from efflib.trials.runner import Machine

    seconds, store = _time(budget), Store.for_scale(scale)
    machine = Machine(pick_device(device), pick_precision(precision, pick_device(device)))
    name = device_name(machine.device)
    slugs = paper or list(papers.PAPERS)
    tables = {f"{slug}.{key}": table for slug in slugs for key, table in papers.paper(slug).tables.items()}
    needs, absent = with_data(undecided(tables, scale, store))
    for line in absent:
        typer.echo(f"left out: {line}")
    chosen = choose(needs, clock_of(store, name), seconds * workers)
    typer.echo(
        f"{len(needs)} open claims at scale {scale} have their data here; {len(chosen.trials)} trials fit into "
        f"{_duration(seconds)} on {name}, {workers} at once ({chosen.unknown} of unknown time); they would complete "
        f"the seeds of {len(chosen.answered)}: {', '.join(chosen.answered) or 'none'}"
    )
    for trial in chosen.trials if dry_run else []:
        typer.echo(f"  {trial.label}")
    if dry_run or not chosen.trials:
        return
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        run_packed(chosen.trials, store, machine, name, workers, seconds)
    except RuntimeError as problem:  # a worker died: what the others recorded is packed all the same
        typer.echo(f"efflib: {problem}", err=True)
        died = True
    else:
        died = False
    new = [record for record in store.records() if record.provenance.date >= started]
    failed = sum(record.status == "failed" for record in new)
    typer.echo(f"{len(new)} new records, {failed} of them failures; {len(undecided(tables, scale, store))} claims open")
    if archive is not None and new:
        typer.echo(f"{pack(store, archive, since=started)} records written to {archive}")
    if died:
        raise typer.Exit(1)


@app.command()
def status(
    canary: Annotated[bool, typer.Option("--canary", help="Note today's canaries in results/equivalent.json.")] = False,
) -> None:
    """Show every recipe's records: usable, failed and stale ones, with the reasons."""
    from collections import Counter

    from efflib.trials import Store
    from efflib.trials.freshness import note_canaries, stale_reason
    from efflib.trials.recipes import list_recipes

    records = Store.for_scale("tiny").records()
    if canary:
        note_canaries(list_recipes())
    for recipe in sorted({record.recipe for record in records} - set(list_recipes())):
        typer.echo(f"{recipe}: {sum(r.recipe == recipe for r in records)} records of a recipe that no longer exists")
    for recipe in list_recipes():
        why = [(record, stale_reason(record)) for record in records if record.recipe == recipe]
        counts = Counter("stale" if reason else record.status for record, reason in why)
        typer.echo(f"{recipe}: {len(why)} records {dict(counts) if counts else ''}")
        for record, reason in why:
            said = reason or (record.failure.reason if record.failure else None)
            if said:
                typer.echo(f"  {record.key}: {said}")


@app.command()
def audit(slug: Annotated[str | None, typer.Argument(metavar="PAPER")] = None) -> None:
    """Recompute a paper's printed arithmetic and list the findings; all papers' without a name."""
    from efflib.papers import PAPERS, paper
    from efflib.report.audit import audit_text

    for name in [slug] if slug else PAPERS:
        typer.echo(audit_text(paper(name).findings()))


@app.command()
def ledger() -> None:
    """Count every printed cell of every table by its verdict, or by the reason why it has none."""
    from efflib.papers import PAPERS, paper
    from efflib.report.pages import ledger_rows, ledger_text

    typer.echo(ledger_text(ledger_rows({slug: paper(slug) for slug in PAPERS})))


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="A data set; without it, all are listed.")] = None,
    download: Annotated[bool, typer.Option(help="Fetch it from its official source if it is not here.")] = False,
) -> None:
    """Show which data sets are at hand and where they were found, or read (with --download: fetch) one.

    Real sets are looked up under the environment variable EFFLIB_DATA, in their official formats or as image-folder
    archives such as cifar10.tar.gz.
    """
    from efflib.data import available, downloadable, find_names, list_datasets, load_dataset, load_names, where

    if name is None:
        absent = "not here; `efflib data {} --download` fetches it"
        by_hand = "not here; `efflib data {}` says where to get it"
        for each in list_datasets():
            how = absent if downloadable(each) else by_hand
            typer.echo(f"{each:<14} {where(each) if available(each) else how.format(each)}")
        typer.echo(f"{'names':<14} {find_names() or absent.format('names')}")
    elif name == "names":  # text, of which every table cuts its own parts
        text = load_names(download=download)
        typer.echo(f"{name:<14} {len(text):,} names, variant {text.variant}, {text.fingerprint[:12]}")
    else:
        for split in ("train", "test"):
            found = load_dataset(name, split, download=download)
            typer.echo(f"{name:<14} {split:<6} {found.images.shape}, variant {found.variant}, {found.fingerprint[:12]}")


@app.command()
def export(
    archive: Annotated[Path, typer.Argument(help="Archive to write, e.g. records.tar.gz.")],
    recipe: Annotated[list[str] | None, typer.Option(help="Only this recipe. Repeatable.")] = None,
    weights: Annotated[bool, typer.Option(help="Also pack the weights.")] = False,
    since: Annotated[str, typer.Option(help="Only runs recorded at this time (ISO 8601, UTC) or later.")] = "",
) -> None:
    """Pack the recorded trials into one archive, to bring them to another machine."""
    from efflib.trials import Store
    from efflib.trials import export as pack

    count = pack(Store.for_scale("tiny"), archive, recipe or (), weights, since)
    typer.echo(f"{count} records written to {archive}")


@app.command()
def merge(archive: Annotated[Path, typer.Argument(help="Archive made by `efflib export`.")]) -> None:
    """Read an exported archive into the results, by key; a second run of a key is kept beside the first."""
    from efflib.trials import Store
    from efflib.trials import merge as unpack

    done = unpack(Store.for_scale("tiny"), archive)
    typer.echo(
        f"{done.added} records added, {done.known} known, {done.second_runs} kept as second runs, "
        f"{done.weights} weights"
    )


@app.command()
def pages() -> None:
    """Write the generated parts of the book (ledger, status, audit) from the records; unchanged files stay."""
    from efflib.papers import PAPERS, paper
    from efflib.report.pages import write_pages
    from efflib.trials.roots import checkout

    home = checkout()
    if home is None:
        raise FileNotFoundError("`efflib pages` writes parts of the book: run it from a checkout of the repository")
    for path in write_pages(home / "book", {slug: paper(slug) for slug in PAPERS}):
        typer.echo(f"wrote {path.relative_to(home)}")


def _table(name: str):
    from efflib.papers import get_table

    return get_table(name)


def _seeds(text: str) -> int | list[int]:
    """ "3" -> 3 (seeds 0..2); "0,3,4" -> [0, 3, 4]; "3," -> [3]."""
    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        raise ValueError(f"--seeds takes a number or a list such as 0,3,4; got {text!r}") from None
    return numbers if "," in text else numbers[0]


def _time(text: str) -> float:
    """ "90s", "9min" or "1.5h" in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip())
    if not found or not float(found[1]):
        raise ValueError(f"a time is a number above 0 with s, min or h, e.g. 9min; got {text!r}")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]


def _choices(only: list[str] | None) -> dict[str, list]:
    """["models=vgg8,vgg11"] -> {"models": ["vgg8", "vgg11"]}; numbers become numbers."""
    chosen = {}
    for each in only or []:
        name, equals, values = each.partition("=")
        if not equals or not values:
            raise ValueError(f"--only takes NAME=VALUE[,VALUE...], e.g. --only models=vgg8; got {each!r}")
        chosen[name] = [_number(value) for value in values.split(",")]
    return chosen


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.0f} min"
        if seconds >= 60
        else f"{seconds:.0f} s"
    )


def main() -> None:
    """Entry point: errors of use are one line, not a traceback."""
    try:
        app()
    except (ValueError, OSError) as problem:
        typer.echo(f"efflib: {problem}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
