"""Execute, pair and check the book's notebooks.

People edit `notebooks/<paper>/<table>.py` (jupytext's percent format). `sync` writes the paired `.ipynb`
without outputs; `execute` runs a source with papermill into `book/executed/<paper>/<table>.ipynb` such that
equal results give equal bytes, and notes in the notebook what the result depends on, so that `is_current` can
skip it next time.

    python -m efflib.notebooks run bimask/table2 --scale tiny -p seeds 2
    python -m efflib.notebooks sync
"""

from __future__ import annotations

import argparse
import ast
import datetime
import difflib
import hashlib
import json
import os
import re
import sys
import time
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efflib.scales import SCALES, check_scale

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "notebooks"
EXECUTED = ROOT / "book" / "executed"
SMOKE_LIMIT = 600  # seconds; a smoke notebook takes less than 60 on two cores, so ten times that means it hangs
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
INJECTED = "# Parameters"  # the first line of the cell papermill adds behind the parameters cell


class NotebookError(RuntimeError):
    """A notebook could not be executed, or was given parameters it does not have."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: its default and the type a given value must have."""

    default: Any
    type: Any

    def __str__(self) -> str:
        return f"{_type_name(self.type)} = {self.default!r}"


# --- sources ----------------------------------------------------------------------------------------------


def sources() -> list[Path]:
    """Return every notebook source, sorted by name."""
    return sorted(SOURCES.glob("*/*.py"))


def name_of(source: Path) -> str:
    """Return `<paper>/<table>` of a notebook source."""
    return f"{source.parent.name}/{source.stem}"


def target_of(source: Path) -> Path:
    """Return where the executed copy of a notebook source goes."""
    return EXECUTED / source.parent.name / f"{source.stem}.ipynb"


def source_of(name: str) -> Path:
    """Return the source file of `<paper>/<table>`.

    Raises:
        NotebookError: there is no such notebook; the message lists those there are.
    """
    path = SOURCES / f"{name.removeprefix('notebooks/').removesuffix('.py').removesuffix('.ipynb')}.py"
    if not path.is_file():
        known = ", ".join(map(name_of, sources())) or "none yet"
        raise NotebookError(
            f"There is no notebook {name!r}{_suggest(name, map(name_of, sources()))} Notebooks: {known}."
        )
    return path


def read(source: Path) -> Any:
    """Read a percent source as a notebook whose cell ids depend on nothing but the cells.

    Args:
        source: a `.py` file in jupytext's percent format.

    Returns:
        The notebook (nbformat 4), with a fixed kernelspec and without jupytext's notes.
    """
    import jupytext

    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = type(notebook.metadata)(kernelspec=KERNELSPEC, language_info={"name": "python"})
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        count = seen[cell.source] = seen.get(cell.source, 0) + 1
        cell["id"] = hashlib.sha256(f"{count}\0{cell.source}".encode()).hexdigest()[:8]
    return notebook


# --- parameters -------------------------------------------------------------------------------------------


def declared(source: Path) -> dict[str, Parameter]:
    """Return the parameters a notebook declares in its cell tagged `parameters`, empty if it has none.

    Raises:
        NotebookError: the cell holds anything but `name = literal` or `name: type = literal`.
    """
    for cell in read(source).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            return _assignments(cell.source, str(source))
    return {}


def resolve(source: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter of a notebook, the given ones checked and the others at their defaults.

    Raises:
        NotebookError: an unknown name (the message lists the valid ones) or a value of another type.
    """
    known = declared(source)
    _check(known, given, name_of(source))
    return {name: given.get(name, parameter.default) for name, parameter in known.items()}


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Refuse unknown or ill-typed papermill parameters from inside a notebook: `check_parameters(globals())`.

    Papermill itself only prints a line about a name the notebook does not have, and goes on with the default.
    The injected cell and the parameters cell before it are found in IPython's history, so that running cells
    again in Jupyter works.

    Raises:
        NotebookError: as `resolve`.
    """
    history: list[str] = [str(entry) for entry in namespace.get("In", [])]
    places = [i for i, entry in enumerate(history) if entry.startswith(INJECTED)]
    if not places:
        return
    known: dict[str, Parameter] = {}
    for entry in history[: places[-1]]:
        if not entry.startswith(INJECTED):
            known.update(_assignments_or_nothing(entry))
    given = {name: parameter.default for name, parameter in _assignments(history[places[-1]], "papermill").items()}
    _check(known, given, "this notebook")


def _assignments(code: str, where: str) -> dict[str, Parameter]:
    """Read `name = literal` and `name: type = literal` lines without running them."""
    found = {}
    for node in ast.parse(code).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                annotation = None
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value):
                pass
            case _:
                raise NotebookError(_not_a_parameter(where, node))
        try:
            default = ast.literal_eval(value)
        except ValueError:
            raise NotebookError(_not_a_parameter(where, node)) from None
        found[name] = Parameter(default, _type_of(default) if annotation is None else _evaluate(annotation, where))
    return found


def _assignments_or_nothing(code: str) -> dict[str, Parameter]:
    try:
        return _assignments(code, "a cell")
    except (NotebookError, SyntaxError):  # an ordinary cell of the notebook, not a parameters cell
        return {}


def _not_a_parameter(where: str, node: ast.stmt) -> str:
    return (
        f"{where}: the parameters cell holds {ast.unparse(node)!r}. Only `name = literal` and "
        "`name: type = literal` are allowed there; move everything else to a later cell."
    )


def _evaluate(annotation: ast.expr, where: str) -> Any:
    words: dict[str, Any] = {t.__name__: t for t in (int, float, str, bool, list, dict, tuple)}
    words |= {"Literal": typing.Literal, "Any": Any}
    try:
        code = compile(ast.Expression(annotation), where, "eval")
        return eval(code, {"__builtins__": {}}, {**words, "Literal": typing.Literal, "Any": Any, "None": None})
    except (NameError, TypeError, AttributeError) as error:
        allowed = ", ".join([*words, "Literal", "Any"])
        raise NotebookError(f"{where}: cannot read the type {ast.unparse(annotation)!r}. Use {allowed}.") from error


def _type_of(default: Any) -> Any:
    """Guess a parameter's type from its default.

    None allows anything. A list wants its elements' types, and a list of integers also takes one integer,
    because that is how seeds are given: n means 0..n-1. (Papermill cannot read an annotation with a bar.)
    """
    if default is None:
        return Any
    if isinstance(default, list) and default and all(type(item) is int for item in default):
        return int | list[int]
    if isinstance(default, list) and default:
        return list[tuple(type(item) for item in default)]  # type: ignore[misc]
    return type(default)


def _type_name(wanted: Any) -> str:
    return (
        wanted.__name__
        if isinstance(wanted, type) and not typing.get_args(wanted)
        else str(wanted).replace("typing.", "")
    )


def _check(known: Mapping[str, Parameter], given: Mapping[str, Any], where: str) -> None:
    import pydantic

    for name, value in given.items():
        if name not in known:
            listing = "; ".join(f"{n}: {p}" for n, p in known.items()) or "none"
            raise NotebookError(f"{where} has no parameter {name!r}{_suggest(name, known)} Its parameters: {listing}.")
        if value is None and known[name].default is None:
            continue  # `models: list = None` means: left to the scale
        try:
            pydantic.TypeAdapter(known[name].type).validate_python(value, strict=True)
        except pydantic.ValidationError:
            raise NotebookError(
                f"{where}: parameter {name!r} was given {value!r} ({type(value).__name__}), "
                f"but it must be {_type_name(known[name].type)}, for example {known[name].default!r}."
            ) from None


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


# --- what a result depends on -----------------------------------------------------------------------------


def provenance(source: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an executed notebook depends on: source, all parameters, library sources, recorded trials.

    Args:
        source: the notebook source.
        parameters: the given ones; the others count with their defaults.
    """
    library = [path for suffix in ("py", "yaml", "json", "txt") for path in (ROOT / "efflib").rglob(f"*.{suffix}")]
    records = Path(os.environ.get("EFFLIB_RESULTS") or ROOT / "results")
    return {
        "source": name_of(source),
        "source_sha256": _digest([source], source.parent),
        "parameters": resolve(source, parameters),
        "efflib_sha256": _digest(library, ROOT),
        "records_sha256": _digest(records.rglob("*.json"), records),
    }


def is_current(source: Path, target: Path, parameters: Mapping[str, Any]) -> bool:
    """Tell whether executing a notebook again would repeat what `target` already holds."""
    try:
        noted = json.loads(target.read_text(encoding="utf-8"))["metadata"]["provenance"]
    except (OSError, ValueError, KeyError):  # missing, broken, or not made by this runner: execute it
        return False
    return sidecar_of(target).is_file() and noted == provenance(source, parameters)


def sidecar_of(target: Path) -> Path:
    """Return the file beside an executed notebook that holds run time, device, date and parameters."""
    return target.with_suffix(".run.json")


def _digest(paths: Iterable[Path], base: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(base).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


# --- execution --------------------------------------------------------------------------------------------


def execute(source: Path, target: Path, parameters: Mapping[str, Any], timeout: float | None = None) -> bool:
    """Execute a notebook source; replace `target` only if the run succeeds and its bytes change.

    The kernel is this very interpreter, its working directory the repository root. What a run prints on
    stderr (progress bars, warnings) goes to the sidecar file, not to the page.

    Args:
        source: the percent source.
        target: the executed `.ipynb`; its sidecar `.run.json` is always rewritten.
        parameters: values for names of the parameters cell.
        timeout: seconds for the whole notebook; None waits for ever.

    Returns:
        Whether the bytes of `target` changed.

    Raises:
        NotebookError: a wrong parameter, or a failing, hanging or dying notebook; `target` is left as it was.
    """
    stamp = provenance(source, parameters)  # before the run: a record that arrives meanwhile makes the page stale
    notebook = read(source)
    notebook.cells.append(_probe_cell())
    begun = time.monotonic()
    done = _run(notebook, _changed(source, parameters), name_of(source), timeout)
    run = {"seconds": round(time.monotonic() - begun, 1), **_take_probe(done), "warnings": _take_stderr(done)}
    _strip(done, stamp)
    changed = write_if_changed(target, _text(done))
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = {"source": stamp["source"], "parameters": stamp["parameters"], "date": date, **run}
    write_if_changed(sidecar_of(target), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return changed


def _changed(source: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keep values that differ from the defaults: a default run then needs no injected cell on its page."""
    known = declared(source)
    return {name: value for name, value in parameters.items() if value != known[name].default}


def _run(notebook: Any, parameters: dict[str, Any], name: str, timeout: float | None) -> Any:
    import logging

    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    deadline = None if timeout is None else time.monotonic() + timeout
    limit = {} if deadline is None else {"timeout_func": lambda cell: max(1, round(deadline - time.monotonic()))}
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it misreads annotations; names are checked already
    try:
        return papermill.execute_notebook(
            notebook,
            None,
            parameters=parameters,
            kernel_name=KERNELSPEC["name"],
            language="python",
            progress_bar=False,
            cwd=str(ROOT),
            kernel_manager_class=_this_interpreter(),
            **limit,
        )
    except papermill.PapermillExecutionError as error:
        trace = _plain("\n".join(error.traceback))
        raise NotebookError(
            f"{name}: cell {error.exec_count} failed with {error.ename}: {error.evalue}\n\n{trace}"
        ) from None
    except CellTimeoutError as error:
        raise NotebookError(f"{name}: stopped after {timeout:g} s (--timeout). {_plain(str(error))}") from None
    except DeadKernelError as error:
        raise NotebookError(f"{name}: the kernel died, most often for want of memory. {error}") from None


def _this_interpreter() -> type:
    """Return a kernel manager that starts this interpreter, whatever kernelspecs are installed."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            quiet = "--IPKernelApp.log_level=40"  # else every start prints that local TCP is not encrypted
            argv = [sys.executable, "-m", "ipykernel_launcher", quiet, "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name=KERNELSPEC["display_name"], language="python")

    return ThisInterpreter


PROBE = """\
def _probe():
    import json, os, platform, sys, time
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_initialized()
    cpu = f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    facts = {
        "device": torch.cuda.get_device_name() if cuda else cpu,
        "threads": torch.get_num_threads() if torch else None,
        "python": platform.python_version(),
        "torch": torch.__version__ if torch else None,
        "cpu_seconds": round(time.process_time(), 1),
    }
    print(json.dumps(facts))


_probe()"""


def _probe_cell() -> Any:
    """Make the cell that asks the kernel, at the end, which device it used: only the kernel knows."""
    import nbformat.v4

    return nbformat.v4.new_code_cell(PROBE, id="probe")


def _take_probe(notebook: Any) -> dict[str, Any]:
    text = next(output.text for output in notebook.cells.pop().outputs if output.get("name") == "stdout")
    return json.loads(text.strip().splitlines()[-1])


def _take_stderr(notebook: Any) -> str:
    """Remove what cells wrote to stderr and return its end."""
    taken = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        taken += [output.text for output in outputs if output.get("name") == "stderr"]
        if outputs:
            cell.outputs = [output for output in outputs if output.get("name") != "stderr"]
    return _plain("".join(taken))[-4000:]


def _strip(notebook: Any, stamp: dict[str, Any]) -> None:
    """Remove times and papermill's notes, hide the injected cell's code, and write down the provenance."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata["provenance"] = stamp
    for cell in notebook.cells:
        for volatile in ("papermill", "execution"):
            cell.metadata.pop(volatile, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "parameters"
            cell.metadata["tags"].append("hide-input")
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill adds an empty list


def _text(notebook: Any) -> str:
    import nbformat

    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def write_if_changed(path: Path, text: str) -> bool:
    """Write atomically, and only what is new: Sphinx rebuilds a page whose file was touched."""
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(content)
    os.replace(scratch, path)
    return True


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


# --- pairs ------------------------------------------------------------------------------------------------


def pair_of(source: Path) -> Path:
    """Return the `.ipynb` without outputs that stands beside a source."""
    return source.with_suffix(".ipynb")


def out_of_step(paths: Iterable[Path] | None = None) -> list[Path]:
    """Return the sources whose paired `.ipynb` is missing or differs from what `sync` would write."""
    chosen = sources() if paths is None else list(paths)
    return [s for s in chosen if not pair_of(s).is_file() or pair_of(s).read_bytes() != _text(read(s)).encode()]


def sync(paths: Iterable[Path] | None = None) -> list[Path]:
    """Write the paired `.ipynb` of every source (or of the given ones) and return the pairs that changed."""
    return [pair_of(s) for s in (sources() if paths is None else paths) if write_if_changed(pair_of(s), _text(read(s)))]


# --- command line -----------------------------------------------------------------------------------------


def book_parameters(source: Path, scale: str) -> dict[str, Any]:
    """Return what a book build passes to a notebook: the scale, if the notebook has one.

    Raises:
        NotebookError: unknown scale.
    """
    try:
        check_scale(scale)
    except ValueError as problem:
        raise NotebookError(str(problem)) from None
    return {"scale": scale} if "scale" in declared(source) else {}


def _run_command(options: argparse.Namespace) -> int:
    import yaml

    source = source_of(options.notebook)
    try:
        given = {name: yaml.safe_load(value) for name, value in options.parameters}
    except yaml.YAMLError as problem:
        raise NotebookError(f"A value after -p cannot be read: {problem}") from None
    parameters = {**book_parameters(source, options.scale), **given}
    target = options.output or target_of(source)
    if not options.force and is_current(source, target, parameters):
        print(f"{name_of(source)}: up to date")
        return 0
    begun = time.monotonic()
    scale = parameters.get("scale", options.scale)
    limit = SMOKE_LIMIT if options.timeout is None and scale == "smoke" else options.timeout
    changed = execute(source, target, parameters, timeout=limit or None)
    print(f"{name_of(source)}: {time.monotonic() - begun:.0f} s, {'new result' if changed else 'same result'}")
    return 0


def _sync_command(options: argparse.Namespace) -> int:
    if options.check:
        late = out_of_step()
        for source in late:
            print(f"{pair_of(source).relative_to(ROOT)} differs from {source.name}; run: make sync")
        return 1 if late else 0
    for pair in sync():
        print(f"wrote {pair.relative_to(ROOT)}")
    return 0


def _list_command(options: argparse.Namespace) -> int:
    for source in sources():
        print(name_of(source))
        for name, parameter in declared(source).items():
            print(f"  {name}: {parameter}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m efflib.notebooks", description="Run the book's notebooks.")
    commands = parser.add_subparsers(required=True, metavar="run | sync | list")
    run = commands.add_parser("run", help="execute one notebook into book/executed")
    run.add_argument("notebook", help="for example bimask/table2")
    run.add_argument("--scale", default="smoke", help=", ".join(SCALES))
    run.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    run.add_argument("--output", type=Path, help="another file than book/executed/<paper>/<table>.ipynb")
    run.add_argument("--timeout", type=float, help=f"seconds in all, 0 for none (smoke: {SMOKE_LIMIT})")
    run.add_argument("--force", action="store_true", help="execute even if nothing has changed")
    run.set_defaults(command=_run_command)
    pair = commands.add_parser("sync", help="write the paired .ipynb files")
    pair.add_argument("--check", action="store_true", help="write nothing, fail if a pair is out of step")
    pair.set_defaults(command=_sync_command)
    commands.add_parser("list", help="show notebooks and their parameters").set_defaults(command=_list_command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(argv)
    try:
        return options.command(options)
    except NotebookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
