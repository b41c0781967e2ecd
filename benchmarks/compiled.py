"""Registers, spills and shared memory of every Triton kernel, compiled for a GPU that need not be there.

Triton brings NVIDIA's assembler: the kernels are compiled for the chosen compute capability from the very calls that
the library makes, on any machine, and nothing is run. It shows that they compile, and what limits how many of their
programs fit on a multiprocessor; it does not show speed. Kept in `results/compiled.csv` (`--record`).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.kernels import CASES, differentiable, operation, tensors
from efflib.kernels.common import taking, triton

UNITS = {"REG": "registers", "STACK": "bytes of stack", "SHARED": "bytes of shared memory"}


class _Absent:
    """A driver of a GPU that is not here: what Triton asks before it compiles."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextmanager
def compiling_only(capability: int) -> Iterator[list[Any]]:
    """Within the block every kernel launch compiles for that compute capability instead; the list holds the results."""
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    found: list[Any] = []
    run = JITFunction.run

    def compiled(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        found.append(run(self, *arguments, grid=grid, warmup=True, **options))
        return found[-1]

    driver.set_active(_Absent(capability))
    JITFunction.run = compiled
    # No kernel writes its output: fresh memory then holds NaN and True, not whatever was there, for what looks at it.
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield found
    finally:
        JITFunction.run = run
        torch.use_deterministic_algorithms(before)
        if torch.cuda.is_available():
            driver.reset_active()


def kernels_of(name: str, capability: int) -> dict[str, Any]:
    """The compiled kernels that one call of an operation and of its gradient launch, by their names."""
    case = CASES[name]
    arguments = case.arguments(64, torch.device("cpu"))
    if case.backward:
        arguments = tuple(differentiable(value) for value in arguments)
    with compiling_only(capability) as found, taking("triton"):
        outputs = [value for value in tensors(operation(name)(*arguments)) if value.requires_grad]
        if outputs:
            torch.autograd.backward(outputs, [torch.rand_like(value) for value in outputs])
    named: dict[str, Any] = {}
    for kernel in found:  # one that is launched again, for maps of another size, gets a number
        same = sum(each.split()[0] == kernel.metadata.name for each in named)
        named[kernel.metadata.name + (f" {same + 1}" if same else "")] = kernel
    return named


def resources(kernel: Any) -> dict[str, int]:
    """What the assembler reports of a compiled kernel, by the names of `UNITS`."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = dict(re.findall(r"(REG|STACK|SHARED):(\d+)", said))
    return {unit: int(numbers[name]) for name, unit in UNITS.items()}


def rows_of(options: argparse.Namespace) -> list[measure.Row]:
    """One row per kernel and resource; the device is the one compiled for."""
    place = measure.environment(torch.device("cpu"), ("triton",))
    place |= {"device": f"compute capability {options.capability / 10:.1f}, compiled, not run", "device_type": "cuda"}
    rows = []
    for name in options.only or CASES:
        for kernel, made in kernels_of(name, options.capability).items():
            for unit, number in resources(made).items():
                setting = f"{name} warps={made.metadata.num_warps}"
                rows.append(measure.row(place, kernel.strip("_"), setting, unit, [number]))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `python -m benchmarks.compiled`."""
    parser = measure.parser("compiled", __doc__ or "", repeats=1)
    parser.add_argument("--capability", type=measure.positive, default=90, help="default 90 (H100, H200)")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    options = measure.parse(parser, argv)
    if triton is None or os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("this needs Triton, and TRITON_INTERPRET must not be set: an interpreted kernel is not compiled")
    measure.report("compiled", rows_of(options), options)


if __name__ == "__main__":
    main()
