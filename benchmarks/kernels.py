"""Time and bytes per second of every operation of efflib.kernels, against the copy bandwidth measured beside it.

Bytes are the least that can be moved: each input read once, the output written once; a backward pass reads the inputs
and the upstream gradient and writes one gradient per input that has one. Temporary tensors do not count, so an
operation in one pass over memory comes near the copy, and one made of many small steps stays far below it.

Aims, not results (issue 7): on an H200, at the large size, 80 % of the copy bandwidth or more, and not slower than
`torch.compile` of the definition (`--compile`). What was measured is in `results/kernels.csv`, and nowhere else.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.trainer import MEAN, STD
from efflib.kernels.augment import augment
from efflib.kernels.gradcam_map import gradcam_map, gradcam_map_ref
from efflib.kernels.mask_least_salient import mask_least_salient, mask_least_salient_ref

COPY = "copy"
# Images per call: one training batch, and so many that the working set leaves every cache.
SIZES = {"quick": (8,), "cpu": (64, 4096), "cuda": (64, 65536)}


class Case(NamedTuple):
    """One operation: what the library calls, its plain definition, its arguments for N images, and if it has gradients.

    An operation without a path of its own names the definition twice and is timed once.
    """

    operation: Callable[..., Tensor]
    definition: Callable[..., Tensor]
    arguments: Callable[[int, torch.device], tuple]
    backward: bool = False


def _bytes(device: torch.device, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def _floats(device: torch.device, *shape: int) -> Tensor:
    return torch.rand(shape, device=device)


CASES: dict[str, Case] = {
    "augment": Case(augment, augment, lambda N, on: (_bytes(on, N, 32, 32, 3), MEAN, STD)),
    "mask_least_salient": Case(
        mask_least_salient,
        mask_least_salient_ref,
        lambda N, on: (_floats(on, N, 3, 32, 32), _floats(on, N, 32, 32), 0.05, 0),
    ),
    "gradcam_map": Case(
        gradcam_map,
        gradcam_map_ref,
        lambda N, on: (_floats(on, N, 64, 8, 8), _floats(on, N, 64, 8, 8)),
        backward=True,
    ),
}


def traffic(arguments: Sequence, output: Tensor, backward: bool) -> int:
    """Bytes that must move: the inputs and the output once, forward.

    With the backward pass the inputs are read again, the upstream gradient (as large as the output) is read, and a
    gradient is written for each input that requires one.
    """
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    read = sum(value.nbytes for value in tensors)
    if not backward:
        return read + output.nbytes
    return 2 * read + 2 * output.nbytes + sum(value.nbytes for value in tensors if value.requires_grad)


def forward_only(function: Callable[..., Tensor], arguments: tuple) -> Callable[[], object]:
    """The operation without a graph."""

    def work() -> Tensor:
        with torch.no_grad():
            return function(*arguments)

    return work


def forward_backward(function: Callable[..., Tensor], arguments: tuple) -> Callable[[], object]:
    """Both passes, with an upstream gradient that is not constant."""
    leaves = [value for value in arguments if isinstance(value, Tensor) and value.requires_grad]
    upstream = torch.rand_like(function(*arguments))

    def work() -> object:
        return torch.autograd.grad(function(*arguments), leaves, upstream)

    return work


def contestants(case: Case, arguments: tuple, backward: bool, compiled: bool) -> dict[str, Callable[[], object]]:
    """The library's operation, its definition (left out if it is the operation), and torch.compile of the latter."""
    passes = forward_backward if backward else forward_only
    ways = {"efflib": passes(case.operation, arguments)}
    if case.definition is not case.operation:
        ways["definition"] = passes(case.definition, arguments)
    if compiled:
        ways["torch.compile"] = passes(torch.compile(case.definition, dynamic=False), arguments)
    return ways


def copying(count: int, device: torch.device) -> Callable[[], object]:
    """A copy of `count` bytes."""
    source = _bytes(device, count)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def rows_of_case(
    name: str, count: int, backward: bool, place: measure.Row, options: argparse.Namespace
) -> list[measure.Row]:
    """Microseconds and gigabytes (10^9 bytes) per second of all ways to do one operation on `count` images."""
    case, device = CASES[name], options.device
    arguments = case.arguments(count, device)
    if backward:
        arguments = tuple(_differentiable(value) for value in arguments)
    moved = traffic(arguments, case.definition(*arguments), backward)
    ways = contestants(case, arguments, backward, options.compile)
    copied = 1_000_000 if options.quick else 2_000_000_000 if device.type == "cuda" else 256_000_000
    ways[COPY] = copying(copied, device)
    calls = {way: 1 if options.quick else measure.enough_calls(work, device) for way, work in ways.items()}
    samples = measure.measure(ways, options.repeats, device=device, calls=calls)
    setting = f"{name} {'forward+backward' if backward else 'forward'} images={count} bytes={moved}"
    rows = []
    for way, values in samples.items():
        size = 2 * copied if way == COPY else moved
        rows.append(measure.row(place, way, setting, "us", [seconds * 1e6 for seconds in values]))
        rows.append(measure.row(place, way, setting, "GB/s", [size / seconds / 1e9 for seconds in values]))
    return rows + _shares(place, setting, samples, moved, 2 * copied)


def _differentiable(value: object) -> object:
    return value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value


def _shares(place: measure.Row, setting: str, samples: dict, moved: int, copied: int) -> list[measure.Row]:
    """Bytes per second in percent of the copy's in the same round."""
    faster = measure.per_round(samples, COPY)
    shares = {way: [100 * moved / copied * ratio for ratio in values] for way, values in faster.items()}
    return [measure.row(place, way, setting, "% of copy", values) for way, values in shares.items()]


def rows_of(options: argparse.Namespace) -> list[measure.Row]:
    """All chosen operations, at all sizes, forward and (where there is one) with the backward pass."""
    place = measure.environment(options.device, ("triton",))
    torch.manual_seed(0)
    rows = []
    for name in options.only or CASES:
        for count in SIZES["quick" if options.quick else options.device.type]:
            for backward in (False, True) if CASES[name].backward else (False,):
                rows += rows_of_case(name, count, backward, place, options)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `python -m benchmarks.kernels`."""
    parser = measure.parser("kernels", __doc__ or "", repeats=21)
    parser.add_argument("--compile", action="store_true", help="also torch.compile of each definition; slow on a CPU")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    options = measure.parse(parser, argv, repeats=3)
    measure.report("kernels", rows_of(options), options)


if __name__ == "__main__":
    main()
