"""The frame in which every Triton kernel is held against its definition, and both against float64.

Without a CUDA driver the kernels run in Triton's interpreter (`tests/conftest.py` switches it on); `pytest -m gpu` on a
machine with a GPU runs the same tests compiled.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from itertools import count
from pathlib import Path

import pytest
import torch

import efflib.kernels
from efflib.kernels.common import taking

numbers = count()


HERE = "interpreted" if os.environ.get("TRITON_INTERPRET") == "1" else pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=[HERE])
def device(request):
    """Where a kernel runs: on the CPU through the interpreter, or on CUDA, compiled."""
    pytest.importorskip("triton")
    if request.param == "interpreted":
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("a CUDA driver is here, but no device")
    return "cuda"


def values_and_gradients(function, tensors, wrt):
    """Outputs, then gradients of sum_i <upstream_i, output_i> for fixed random upstreams, none of them 1."""
    leaves = [tensor.detach().requires_grad_(number in wrt) for number, tensor in enumerate(tensors)]
    outputs = function(*leaves)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    smooth = [output for output in outputs if output.requires_grad]
    generator = torch.Generator().manual_seed(17)
    upstream = [0.5 + torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x) for x in smooth]
    wanted = [leaves[number] for number in wrt]
    gradients = torch.autograd.grad(smooth, wanted, upstream) if wrt else ()
    return [*outputs, *gradients]


def errors(found, truth):
    """Euclidean distance of each tensor from the truth, in float64."""
    return [float((a.detach().double().cpu() - b.detach().double().cpu()).norm()) for a, b in zip(found, truth)]


def agree(operation, definition, tensors, wrt=(), floor=4.0):
    """Assert that a kernel's error is at most twice its definition's, in value and gradient, against float64.

    Args:
        operation: of tensors; runs with the Triton path taken.
        definition: of the same tensors.
        tensors: the inputs, in the precision and on the device of the test.
        wrt: numbers of the inputs whose gradients are compared.
        floor: the error that is always allowed, in units of the last place of the truth's norm: the definition of a
            single number may be exact by luck.
    """
    doubles = [tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu() for tensor in tensors]
    truth = values_and_gradients(definition, doubles, wrt)
    with taking("definition"):
        plain = values_and_gradients(definition, tensors, wrt)
    with taking("triton"):
        fused = values_and_gradients(operation, tensors, wrt)
    for number, (own, theirs, exact) in enumerate(zip(errors(fused, truth), errors(plain, truth), truth, strict=True)):
        got = fused[number]
        assert got.shape == exact.shape and got.dtype == plain[number].dtype, (
            f"tensor {number}: {got.shape} {got.dtype}"
        )
        place = torch.finfo(got.dtype).eps if got.is_floating_point() else 0.0
        allowed = 2 * theirs + floor * place * max(float(exact.detach().double().norm()), 1e-3)
        assert own <= allowed, f"tensor {number} is off by {own:.3g}, the definition by {theirs:.3g}"


@pytest.fixture(name="agree")
def agree_fixture():
    return agree


@pytest.fixture
def mutant(tmp_path):
    """(name of an operation, {old: new}) -> a copy of its file with these changes, its operators renamed."""
    loaded = []

    def load(operation, changes):
        text = (Path(efflib.kernels.__file__).parent / f"{operation}.py").read_text()
        name = f"mutant_{next(numbers)}_{os.getpid()}"
        for old, new in changes.items():
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {operation}.py"
            text = text.replace(old, new)
        path = tmp_path / f"{name}.py"
        path.write_text(text.replace('"efflib::', f'"{name}::'))
        spec = importlib.util.spec_from_file_location(name, path)
        changed = importlib.util.module_from_spec(spec)
        sys.modules[name] = changed
        loaded.append(name)
        spec.loader.exec_module(changed)
        return changed

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def one_graph():
    """Assert that torch.compile takes an operation into one graph and computes the same there, gradients too."""

    def check(operation, tensors, wrt=()):
        with taking("triton"):
            eager = values_and_gradients(operation, tensors, wrt)
            compiled = torch.compile(operation, fullgraph=True, backend="aot_eager")
            traced = values_and_gradients(compiled, tensors, wrt)
        assert all(torch.equal(a, b) for a, b in zip(eager, traced, strict=True))

    return check


@pytest.fixture
def registered():
    """Assert that an operator's schema, autograd, fake tensors and tracing are registered as torch wants them."""

    def check(operator, arguments):
        with warnings.catch_warnings():
            # opcheck itself reads .grad of tensors that are no leaves
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            found = torch.library.opcheck(operator, arguments)
        assert set(found.values()) == {"SUCCESS"}

    return check
