"""What can be said about the environment files by reading them: they must all lead to the same versions."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch", "pytorch-cpu": "torch"}
LOCKED_EXTRAS = ("book", "dev")


def pins(name: str) -> dict[tuple[str, str], str]:
    """Read `package==version ; marker` lines, without their hashes."""
    text = re.sub(r"\\\n\s+--hash=\S+", "", (ROOT / name).read_text())
    lines = [line.rstrip(" \\") for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    found = {}
    for requirement in map(Requirement, lines):
        [pin] = requirement.specifier
        assert pin.operator == "==", f"{requirement} in {name} is not an exact version"
        found[canonicalize_name(requirement.name), str(requirement.marker or "")] = pin.version
    return found


def locked(name: str) -> list[str]:
    """Return every version the lock holds of a package (one per environment marker)."""
    return [version for (package, _), version in pins("requirements.lock").items() if package == name]


def direct_dependencies() -> list[str]:
    extras = PROJECT["optional-dependencies"]
    return PROJECT["dependencies"] + [line for extra in LOCKED_EXTRAS for line in extras[extra]]


def conda_packages(name: str) -> list[Requirement]:
    """Read a conda file's packages; conda's `name=1.2` means the prefix match `name==1.2.*`."""
    packages = yaml.safe_load((ROOT / name).read_text())["dependencies"]
    texts = [re.sub(r"^([\w-]+)=([\d.]+)$", r"\1==\2.*", p) for p in packages if isinstance(p, str)]
    return [Requirement(text) for text in texts]


def test_constraints_are_the_lock():
    assert pins("constraints.txt") == pins("requirements.lock")


@pytest.mark.parametrize("line", direct_dependencies())
def test_direct_dependency_is_locked_within_its_range(line):
    requirement = Requirement(line)
    versions = locked(canonicalize_name(requirement.name))
    assert versions, f"{line} is not in requirements.lock; run: make lock"
    assert all(requirement.specifier.contains(version, prereleases=True) for version in versions)


def test_every_locked_package_has_hashes():
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.split("make lock\n", 1)[1])
    assert len(entries) == len(pins("requirements.lock"))
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("name", ["requirements.lock", "constraints.txt"])
def test_lock_names_no_index(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "index-url" not in text
    assert "/" not in re.sub(r"^#.*$", "", text, flags=re.M)


@pytest.mark.parametrize("name", ["environment.yml", "binder/environment.yml"])
def test_conda_packages_agree_with_pyproject_and_lock(name):
    packages = {CONDA_NAMES.get(p.name, p.name): p.specifier for p in conda_packages(name)}
    [python] = packages["python"]
    wanted = SpecifierSet(PROJECT["requires-python"])
    assert wanted.contains(python.version.removesuffix(".*"))
    for package, specifier in packages.items():
        if package not in {"python", "pip", "make"}:
            assert all(specifier.contains(version) for version in locked(package)), package


def test_conda_environment_uses_the_locked_versions():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [pip] = [package["pip"] for package in packages if isinstance(package, dict)]
    assert pip == ["-c constraints.txt", "-e .[book,dev]"]


def test_python_and_torch_ranges():
    assert PROJECT["requires-python"] == ">=3.11"
    ranges = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    assert ranges["torch"].contains("2.11.0")
    assert not ranges["torch"].contains("2.10.9")


def test_continuous_integration_runs_the_two_commands_last_tests():
    script = ROOT / ".ci" / "run"
    commands = [line.strip() for line in script.read_text().splitlines()]
    assert script.stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in commands
    book = "env -u EFFLIB_DATA EFFLIB_OFFLINE=1 make book"  # as a reader builds it, without data sets or connection
    assert commands.index(book) < commands.index("make test")
    assert commands[-1] == "make test"


@pytest.mark.parametrize("command", ["book", "test", "lint", "sync", "serve", "lock", "clean", "help"])
def test_makefile_has_every_documented_target(command):
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_readme_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    used = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text()))
    assert {"book", "test"} <= used
    assert all(re.search(rf"^{target}:", makefile, flags=re.M) for target in used)
