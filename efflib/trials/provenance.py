"""What made a record: device, versions, commit, and a hash of the source that a recipe depends on."""

from __future__ import annotations

import ast
import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import metadata, util
from pathlib import Path

import torch

from efflib.trials.recipes import get_recipe
from efflib.trials.record import Provenance
from efflib.trials.roots import checkout

# The frame around a recipe: it decides when and where a trial runs, not what comes out.
_FRAME = ("efflib.trials", "efflib.report", "efflib.cli", "efflib.notebooks")
_VERSIONS = ("torch", "torchvision", "numpy", "pillow", "efflib")


def provenance(recipe: str, device: torch.device, canary: dict[str, float]) -> Provenance:
    """Provenance of a record made now by this process."""
    return Provenance(
        device=device_name(device),
        device_type=device.type,
        threads=torch.get_num_threads(),
        versions=versions(),
        commit=commit()[0],
        dirty=commit()[1],
        source_hash=source_hash(recipe),
        canary=canary,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the CPU with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version(), "platform": platform.system().lower()}
    for name in _VERSIONS:
        found[name] = metadata.version(name) if util.find_spec("PIL" if name == "pillow" else name) else "absent"
    if torch.version.cuda and torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
    return found


@lru_cache(maxsize=1)
def commit() -> tuple[str | None, bool | None]:
    """(commit, dirty) of the checkout when this process started; (None, None) outside a git checkout.

    Dirty means that a tracked file differs from the commit: new records do not count.
    """
    home = checkout()
    if home is None:
        return None, None
    head = _git(home, "rev-parse", "HEAD")
    changed = _git(
        home, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!benchmarks/results"
    )
    return (head, bool(changed)) if head else (None, None)


def _git(home: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], cwd=home, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


@cache
def source_hash(recipe: str) -> str:
    """Hash of the recipe's import closure inside efflib, without comments and docstrings."""
    found: dict[str, str] = {}
    queue = [get_recipe(recipe).module]
    while queue:
        module = queue.pop()
        if module in found:
            continue
        tree = ast.parse(_path(module).read_text())
        queue += [name for name in _imports(tree, module) if not name.startswith(_FRAME)]
        found[module] = ast.unparse(_without_docstrings(tree))
    text = "\n".join(f"{name}\n{found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _path(module: str) -> Path:
    spec = util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"source of {module} not found")
    return Path(spec.origin)


def _imports(tree: ast.AST, module: str) -> list[str]:
    """Modules of efflib that a module imports, anywhere in its code."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return sorted(name for name in names if name.split(".")[0] == "efflib" and _is_module(name))


@cache
def _is_module(name: str) -> bool:
    try:
        return util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent is a module, so the name is a function or class in it
        return False


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
