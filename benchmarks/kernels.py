"""Time of every operation of efflib.kernels, forward and backward, against the floor measured beside it.

Bytes are the least that can be moved: each input read once, the output written once; a backward pass reads the inputs
and the upstream gradient and writes one gradient per input that has one. Temporary tensors do not count. FLOPs count
matrix products alone. The floor (roofline) of an operation is the longer of its bytes at the speed of a large copy and
its FLOPs at the speed of a large float32 matrix product, both measured in the same rounds.

Aims, not results (issue 7): on an H200, at the large size, 80 % of the copy bandwidth or more, and not slower than
`torch.compile` of the definition (`--compile`). What was measured is in `results/kernels.csv`, and nowhere else.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.measure import COPY, MATMUL, copying, multiplying, references
from benchmarks.trainer import MEAN, STD

LIGER = "Liger-Kernel"
# Images per call: one training batch, and so many that the working set leaves every cache.
SIZES = {"quick": (8,), "cpu": (64, 2048), "cuda": (64, 65536)}
# Products over the whole batch (B x B) stay at batch sizes that a distillation run could have.
BATCHES = {"quick": (8,), "cpu": (64, 256), "cuda": (64, 1024)}


@dataclass(frozen=True)
class Case:
    """How one operation of the library is timed.

    Args:
        arguments: (images, device) -> positional arguments; floating point tensors get gradients in a backward pass.
        backward: whether it has one.
        flops: of the matrix products in one forward pass, by the number of images.
        sizes: images per call.
    """

    arguments: Callable[[int, torch.device], tuple]
    backward: bool = True
    flops: Callable[[int], int] = lambda count: 0
    sizes: dict[str, tuple[int, ...]] = field(default_factory=lambda: SIZES)


def _pixels(device: torch.device, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def _floats(device: torch.device, *shape: int) -> Tensor:
    return torch.rand(shape, device=device)


def _maps(device: torch.device, *shape: int) -> Tensor:
    """Feature maps as training has them: channels last."""
    return _floats(device, *shape).contiguous(memory_format=torch.channels_last)


def _logits(device: torch.device, count: int) -> Tensor:
    return 3 * torch.randn(count, 100, device=device)


def _levels(device: torch.device, count: int) -> list[Tensor]:
    """The maps that ReviewKD compares for ResNet20 on CIFAR."""
    return [_maps(device, count, channels, side, side) for channels, side in ((16, 32), (32, 16), (64, 8), (64, 1))]


CASES: dict[str, Case] = {
    "augment": Case(lambda N, on: (_pixels(on, N, 32, 32, 3), MEAN, STD), backward=False),
    "softmax_stats": Case(lambda N, on: (_logits(on, N),)),
    "kd_loss": Case(
        lambda N, on: (_logits(on, N), _logits(on, N), torch.randint(0, 100, (N,), device=on), 4.0, 0.1),
    ),
    "mask_least_salient": Case(
        lambda N, on: (_floats(on, N, 3, 32, 32), _floats(on, N, 32, 32), 0.05, 0), backward=False
    ),
    "fake_quantize": Case(  # N is the number of output channels of a 3 x 3 convolution with 64 inputs
        lambda N, on: (
            torch.randn(N, 64, 3, 3, device=on),
            torch.full((N, 1, 1, 1), 4.0, device=on),
            torch.full((N, 1, 1, 1), -2.0, device=on),
        ),
    ),
    "gradcam_map": Case(lambda N, on: (_maps(on, N, 64, 8, 8), _maps(on, N, 64, 8, 8))),
    "relevance_map": Case(lambda N, on: (_maps(on, N, 64, 8, 8), _maps(on, N, 64, 8, 8))),
    "attention_loss": Case(lambda N, on: (_maps(on, N, 32, 16, 16), _maps(on, N, 32, 16, 16))),
    "hcl_loss": Case(lambda N, on: (_levels(on, N), _levels(on, N))),
    "guided_attention": Case(
        lambda N, on: (_floats(on, N, 64, 64), _floats(on, N, 64, 64)),
        flops=lambda N: 4 * 2 * N * 64**3,
        sizes={"quick": (4,), "cpu": (64, 512), "cuda": (64, 16384)},
    ),
    "gram_distance": Case(
        lambda N, on: (_maps(on, N, 64, 8, 8), _maps(on, N, 128, 8, 8), "l2"),
        flops=lambda N: 2 * N * N * (64 + 128) * 64,
        sizes=BATCHES,
    ),
}


def operation(name: str) -> Callable[..., Any]:
    """What the library calls."""
    return getattr(importlib.import_module(f"efflib.kernels.{name}"), name)


def definition(name: str) -> Callable[..., Any]:
    """Its plain definition."""
    return getattr(importlib.import_module(f"efflib.kernels.{name}"), f"{name}_ref")


def tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors(value)


def traffic(arguments: Sequence, output: Any, backward: bool) -> int:
    """Bytes that must move: the inputs and the output once, forward.

    With the backward pass the inputs are read again, the upstream gradient (as large as the output) is read, and a
    gradient is written for each input that requires one.
    """
    read = sum(value.nbytes for value in tensors(arguments))
    written = sum(value.nbytes for value in tensors(output))
    if not backward:
        return read + written
    return 2 * read + 2 * written + sum(value.nbytes for value in tensors(arguments) if value.requires_grad)


def forward_only(function: Callable[..., Any], arguments: tuple) -> Callable[[], object]:
    """The operation without a graph."""

    def work() -> object:
        with torch.no_grad():
            return function(*arguments)

    return work


def forward_backward(function: Callable[..., Any], arguments: tuple) -> Callable[[], object]:
    """Both passes, with an upstream gradient that is not constant."""
    leaves = [value for value in tensors(arguments) if value.requires_grad]

    def smooth() -> list[Tensor]:
        return [value for value in tensors(function(*arguments)) if value.requires_grad]

    upstream = [torch.rand_like(value) for value in smooth()]

    def work() -> object:
        return torch.autograd.grad(smooth(), leaves, upstream, allow_unused=True)  # the teacher may be a constant

    return work


def contestants(name: str, arguments: tuple, backward: bool, compiled: bool) -> dict[str, Callable[[], object]]:
    """The library's operation, its definition, torch.compile of that, and another library's kernel where there is one.

    Without CUDA the operation is its definition, and is timed once.
    """
    passes = forward_backward if backward else forward_only
    ways = {"efflib": passes(operation(name), arguments)}
    cuda = all(value.is_cuda for value in tensors(arguments))
    if cuda:
        ways["definition"] = passes(definition(name), arguments)
    if compiled:
        ways["torch.compile"] = passes(torch.compile(definition(name), dynamic=False), arguments)
    if name == "kd_loss" and cuda and importlib.util.find_spec("liger_kernel"):
        ways[LIGER] = passes(_liger, arguments)
    return ways


def _liger(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, alpha: float) -> Tensor:
    """The same loss with Liger-Kernel's fused divergence; its cross-entropy is PyTorch's."""
    from liger_kernel.transformers import LigerKLDIVLoss

    log_p = (student / temperature).log_softmax(1)
    divergence = LigerKLDIVLoss(reduction="batchmean")(log_p, (teacher / temperature).softmax(1))
    return alpha * torch.nn.functional.cross_entropy(student, targets) + (1 - alpha) * temperature**2 * divergence


def rows_of_case(
    name: str, count: int, backward: bool, place: measure.Row, options: argparse.Namespace
) -> list[measure.Row]:
    """Microseconds, gigabytes (10^9 bytes) per second and percent of the floor of all ways to do one operation."""
    device, case = options.device, CASES[name]
    arguments = case.arguments(count, device)
    if backward:
        arguments = tuple(differentiable(value) for value in arguments)
    moved = traffic(arguments, operation(name)(*arguments), backward)
    flops = case.flops(count) * (3 if backward else 1)
    ways = contestants(name, arguments, backward, options.compile)
    copied, side = references(options)
    ways[COPY] = copying(copied, device)
    if flops:
        ways[MATMUL] = multiplying(side, device)
    calls = {way: 1 if options.quick else measure.enough_calls(work, device) for way, work in ways.items()}
    samples = measure.measure(ways, options.repeats, device=device, calls=calls)
    setting = f"{name} {'forward+backward' if backward else 'forward'} images={count} bytes={moved} flops={flops}"
    floors = _floors(samples, moved / (2 * copied), flops / (2 * side**3))
    rows = [measure.row(place, "floor", setting, "us", [1e6 * seconds for seconds in floors])]
    for way, values in samples.items():
        rows.append(measure.row(place, way, setting, "us", [seconds * 1e6 for seconds in values]))
        if way == MATMUL:
            rows.append(measure.row(place, way, setting, "GFLOP/s", [2e-9 * side**3 / seconds for seconds in values]))
            continue
        size = 2 * copied if way == COPY else moved
        rows.append(measure.row(place, way, setting, "GB/s", [size / seconds / 1e9 for seconds in values]))
        if way != COPY:
            shares = [100 * floor / seconds for floor, seconds in zip(floors, values, strict=True)]
            rows.append(measure.row(place, way, setting, "% of floor", shares))
    return rows


def _floors(samples: dict[str, list[float]], copies: float, products: float) -> list[float]:
    """Seconds of the floor, round by round: so many reference copies, or so many reference products."""
    by_bytes = [copies * seconds for seconds in samples[COPY]]
    by_flops = [products * seconds for seconds in samples.get(MATMUL, [0.0] * len(by_bytes))]
    return [max(pair) for pair in zip(by_bytes, by_flops, strict=True)]


def differentiable(value: Any) -> Any:
    """The value with gradients asked for, where it is (or holds) floating point tensors."""
    if isinstance(value, list):
        return [differentiable(each) for each in value]
    return value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value


def rows_of(options: argparse.Namespace) -> list[measure.Row]:
    """All chosen operations, at all sizes, forward and (where there is one) with the backward pass."""
    place = measure.environment(options.device, ("triton", "liger-kernel"))
    torch.manual_seed(0)
    rows = []
    for name in options.only or CASES:
        sizes = CASES[name].sizes
        for count in sizes["quick" if options.quick else options.device.type]:
            for backward in (False, True) if CASES[name].backward else (False,):
                rows += rows_of_case(name, count, backward, place, options)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `python -m benchmarks.kernels`."""
    parser = measure.parser("kernels", __doc__ or "", repeats=11)
    parser.add_argument("--compile", action="store_true", help="also torch.compile of each definition; slow on a CPU")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    options = measure.parse(parser, argv, repeats=3)
    measure.report("kernels", rows_of(options), options)


if __name__ == "__main__":
    main()
