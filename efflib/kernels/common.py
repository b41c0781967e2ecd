"""What every operation of this room needs: the working precision, and the choice between definition and Triton path.

An operation runs its Triton kernel when its tensors are on CUDA and Triton is installed (it is not on macOS and
Windows), else its definition. `taking("triton")` and `taking("definition")` override that, for tests and benchmarks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

# Triton 3.9 warns that 3.10 will no longer fuse a multiplication and an addition; this keeps the rounding of today.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
try:
    import triton
    import triton.language as tl
except ImportError:  # no wheel for this system: definitions only
    triton = tl = None

P = ParamSpec("P")
R = TypeVar("R")
PATHS = ("auto", "triton", "definition")
_path = "auto"


def widened(x: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a function of tensors: autocast would round matrix products to bf16, those of float32 too."""

    @wraps(function)
    def precise(*args: P.args, **options: P.kwargs) -> R:
        device = next((x.device.type for x in (*args, *options.values()) if isinstance(x, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return function(*args, **options)

    return precise


def jit(kernel: Callable) -> Any:
    """`triton.jit`; without Triton the function stays as it is and is never launched."""
    return kernel if triton is None else triton.jit(kernel)


@contextmanager
def taking(path: str) -> Iterator[None]:
    """Within the block every operation takes this path: "auto", "triton" or "definition".

    "triton" also holds on a CPU, where it needs Triton's interpreter (TRITON_INTERPRET=1 before the first import).

    Raises:
        ValueError: an unknown path, or "triton" where Triton is not installed.
    """
    global _path
    if path not in PATHS:
        raise ValueError(f"unknown path {path!r}: give one of {', '.join(PATHS)}")
    if path == "triton" and triton is None:
        raise ValueError("Triton is not installed here: take 'definition', which computes the same")
    before, _path = _path, path
    try:
        yield
    finally:
        _path = before


def takes_triton(*tensors: Tensor) -> bool:
    """Whether an operation on these tensors runs its Triton kernel.

    float64 is left to the definitions: it is for checks, not for speed. So are empty tensors, which have no grid.
    """
    if _path == "definition" or triton is None:
        return False
    if any(tensor.dtype == torch.float64 or tensor.numel() == 0 for tensor in tensors):
        return False
    return _path == "triton" or all(tensor.is_cuda for tensor in tensors)


def power_of_two_above(count: int) -> int:
    """Smallest power of two that is at least `count` (>= 1): the size of a Triton block that covers it."""
    return 1 << max(count - 1, 0).bit_length()


def neighbours_per_load(*matrices: Tensor) -> int:
    """How many neighbours of a row of (N, C) matrices one load may take: up to 16 bytes, each at a multiple of that.

    The compiler sees this only if row strides and C reach the kernel divided by it, and are multiplied there again.
    """
    unit = 16 // max(x.element_size() for x in matrices)
    steps = [step for x in matrices for step in (x.shape[1], x.stride(0))]
    while unit > 1 and any(step % unit for step in steps):
        unit //= 2
    return unit if all(x.stride(1) == 1 for x in matrices) else 1


@jit
def row_max(x):
    """(PARTS, ROWS, LANES) -> (ROWS,)."""
    return tl.max(tl.max(x, axis=0), axis=1)


@jit
def row_sum(x):
    """(PARTS, ROWS, LANES) -> (ROWS,)."""
    return tl.sum(tl.sum(x, axis=0), axis=1)
