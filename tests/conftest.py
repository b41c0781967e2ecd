"""What tests of several rooms share."""

from __future__ import annotations

import os
from contextlib import contextmanager
from ctypes.util import find_library

import pytest

# Without a CUDA driver the Triton kernels run in Triton's interpreter. It reads the variable when a kernel is defined,
# so it is set here, before any test or conftest imports efflib.
if find_library("cuda") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def watched_steps():
    """Context manager: a list that fills with (optimiser, rates of its groups), step by step."""

    @contextmanager
    def watch():
        from torch.optim.optimizer import register_optimizer_step_pre_hook  # most tests need no torch

        steps = []

        def note(optimiser, arguments, options):
            steps.append((optimiser, [group["lr"] for group in optimiser.param_groups]))

        handle = register_optimizer_step_pre_hook(note)
        try:
            yield steps
        finally:
            handle.remove()

    return watch
