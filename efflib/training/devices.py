"""Which device a network runs on, and in which arithmetic."""

from __future__ import annotations

import torch


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """ "auto" takes CUDA where there is one, else the CPU.

    Raises:
        ValueError: not the name of a device, or a CUDA device that is not here.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}: give 'auto', 'cpu', 'cuda' or 'cuda:<number>'") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"no device {str(device)!r} here, torch sees {count} CUDA devices: give 'auto' or 'cpu'")
    return chosen


def pick_precision(precision: str = "auto", device: torch.device | str = "cpu") -> str:
    """ "auto" takes bf16 autocast where the hardware has bf16 arithmetic, else fp32.

    "fp64" is for canaries and tests: in it, machines agree in all but the last of 16 digits.

    Raises:
        ValueError: anything but auto, bf16, fp32 or fp64.
    """
    if precision not in ("auto", "bf16", "fp32", "fp64"):
        raise ValueError(f"precision must be 'auto', 'bf16', 'fp32' or 'fp64', got {precision!r}")
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if any(capability.get(name, False) for name in ("avx512_bf16", "amx_bf16")) else "fp32"
