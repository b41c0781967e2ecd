"""Several seeds together on one device against one after another: seconds for an epoch of all of them.

Each seed has a process of its own, as the workers of `efflib campaign` have. All are started, warmed up and idle before
anything is timed; then either all train an epoch at once, or each waits for the one before it. Alone, a process may use
every CPU thread; together they divide them.

Aim, not a result (issue 7): five seeds of ResNet20 distilled from ResNet56 on an H200 at least 3 times faster together.
What was measured is in `results/packed.csv`, and nowhere else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

import torch

from benchmarks import measure
from benchmarks.trainer import network, our_loop, synthetic
from efflib.models import list_models
from efflib.training import pick_precision

TOGETHER, IN_TURN = "together", "one after another"


def _serve(pipe: Connection, options: argparse.Namespace) -> None:
    """One seed's process: an epoch for every number of threads that comes in, until None does."""
    teacher = network(options.teacher) if options.teacher else None
    precision = pick_precision(options.precision, options.device)
    epoch = our_loop(
        network(options.model),
        synthetic(options.images),
        options.batch_size,
        options.device,
        precision,
        teacher=teacher,
    )
    while (threads := pipe.recv()) is not None:
        torch.set_num_threads(threads)
        pipe.send(epoch())  # reads the loss back: the device is done


@contextmanager
def workers(options: argparse.Namespace) -> Iterator[list[Connection]]:
    """A pipe to each seed's process; they end with the block."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(options.seeds):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, options), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is seen on our side
        pipes.append(ours)
        processes.append(process)
    try:
        yield pipes
    finally:
        for pipe, process in zip(pipes, processes):
            if process.is_alive():
                pipe.send(None)
            process.join(60)


def contestants(pipes: list[Connection]) -> dict[str, Callable[[], object]]:
    """An epoch of every seed, at once and in turn; both return the mean losses."""
    threads = os.cpu_count() or 1

    def together() -> list[float]:
        for pipe in pipes:
            pipe.send(max(threads // len(pipes), 1))
        return [pipe.recv() for pipe in pipes]

    def in_turn() -> list[float]:
        losses = []
        for pipe in pipes:
            pipe.send(threads)
            losses.append(pipe.recv())
        return losses

    return {IN_TURN: in_turn, TOGETHER: together}


def rows_of(options: argparse.Namespace) -> list[measure.Row]:
    """Seconds for all seeds, and how many times faster together, round by round."""
    place = measure.environment(options.device)
    with workers(options) as pipes:
        # By the host's clock: the work is in other processes, whose end this one waits for.
        samples = measure.measure(contestants(pipes), options.repeats, device="cpu")
    setting = (
        f"model={options.model} teacher={options.teacher or 'none'} seeds={options.seeds} batch={options.batch_size} "
        f"images={options.images} precision={options.precision}"
    )
    rows = [measure.row(place, name, setting, "s", values) for name, values in samples.items()]
    ratios = measure.per_round(samples, IN_TURN)
    return rows + [measure.row(place, name, setting, f"times {IN_TURN}", values) for name, values in ratios.items()]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `python -m benchmarks.packed`."""
    parser = measure.parser("packed", __doc__ or "", repeats=5)
    models = {"choices": list_models(), "metavar": "NAME"}
    parser.add_argument("--model", default="resnet20", help="default resnet20", **models)
    parser.add_argument("--teacher", default="resnet56", help="default resnet56", **models)
    parser.add_argument("--seeds", type=measure.positive, help="default 5 on CUDA, one per CPU core elsewhere")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="default auto")
    parser.add_argument("--batch-size", type=measure.positive, default=64, help="default 64")
    parser.add_argument("--images", type=measure.positive, help="per epoch; default 2,000 on a CPU, 50,000 on CUDA")
    options = measure.parse(parser, argv, images=64, seeds=2, repeats=1)
    cuda = options.device.type == "cuda"
    options.images = options.images or (50_000 if cuda else 2_000)
    options.seeds = options.seeds or (5 if cuda else os.cpu_count() or 1)
    measure.report("packed", rows_of(options), options)


if __name__ == "__main__":
    main()
