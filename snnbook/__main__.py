"""Command line: run a notebook with other parameters, or sweep one over a grid.

``run`` is papermill plus a refusal of unknown names; ``sweep`` does it for every cell of a grid.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import params
from .checks import check, check_choice
from .fields import Params, read_yaml
from .link import commands as processes


def parse(values: list[list[str]], yaml_texts: list[str], files: list[str]) -> dict[str, object]:
    """Parameters from ``-p name value`` (read as YAML, so lists work), ``-y`` YAML texts and ``-f`` YAML files.

    The empty value of ``-p`` is the empty string.
    """
    merged: dict[str, object] = {}
    for text in [Path(f).read_text(encoding="utf-8") for f in files] + yaml_texts:
        loaded = read_yaml(text)
        check("parameters", text, isinstance(loaded, dict), "a YAML mapping of names to values")
        merged |= loaded
    return merged | {name: read_yaml(value, name) if value else "" for name, value in values}


def known_parameters(notebook: Path) -> dict[str, str]:
    """Name to help of the parameters of a notebook, as papermill reads them."""
    import papermill

    found = papermill.inspect_notebook(str(notebook))
    return {name: info["help"] for name, info in found.items()}


def refuse_unknown(notebook: Path, given: list[dict[str, object]]) -> None:
    """ValueError for a name or value that ``notebook`` does not take, FileNotFoundError if there is no such file."""
    if not notebook.exists():
        raise FileNotFoundError(f"no notebook at {notebook}")
    known, cls = known_parameters(notebook), params.by_notebook().get(notebook.stem)
    for parameters in given:
        for name in parameters:
            check("parameter", name, name in known, f"{notebook.name} knows {', '.join(known)}")
        if cls is not None:
            cls(**parameters)
            if "dataset" in parameters:
                _refuse_unknown_sets(parameters["dataset"], several="," in cls().dataset)


def _refuse_unknown_sets(names: str, several: bool) -> None:
    """ValueError for a data set that is not registered; ``several`` have commas between."""
    from .data import datasets

    for name in names.split(",") if several else [names]:
        check_choice("dataset", name.strip() if several else name, datasets())


def replaced(asked: Params) -> str:
    """One line on the run whose results one with ``asked`` would replace; empty if its parameters are the same."""
    from . import runs

    folder, now = runs.folder(asked), asked.asdict() | {"out_dir": ""}
    try:
        before = json.loads((folder / "run.json").read_text(encoding="utf-8"))["parameters"] | {"out_dir": ""}
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    other = ", ".join(f"{name} = {value!r}" for name, value in before.items() if now.get(name, value) != value)
    return other and f"replaces the run with {other} in {folder}; another -p out_dir keeps both"


def run(notebook: Path, output: Path | None, given: dict[str, object]) -> Path:
    """Check ``given`` and execute ``notebook`` with papermill; says so if that replaces results of other parameters.

    Args:
        notebook: the .ipynb file.
        output: the executed copy; by default beside the current folder, ``<name>.out.ipynb``.
        given: parameter values.

    Raises:
        ValueError: for an unknown name (lists the known ones) or a value that the notebook refuses.
        FileNotFoundError: if there is no such notebook.
    """
    import papermill

    refuse_unknown(notebook, [given])
    cls = params.by_notebook().get(notebook.stem)
    if cls is not None and (line := replaced(cls(**given))):
        print(f"snnbook: {line}", file=sys.stderr)
    output = output or Path(f"{notebook.stem}.out.ipynb")
    papermill.execute_notebook(
        str(notebook), str(output), given, kernel_name="python3", progress_bar=sys.stderr.isatty()
    )
    return output


def sweep(args: argparse.Namespace) -> int:
    """Run the missing cells of a grid and write the tables of all; 1 if cells failed."""
    from . import sweep as sweeps

    fixed, axes = parse(args.p, args.y, args.f), sweeps.grid(args.grid)
    refuse_unknown(args.notebook, [fixed | cell for cell in sweeps.cells(axes)])
    out = args.out or Path(f"{args.notebook.stem}.sweep")
    todo = sweeps.Sweep(args.notebook, fixed, axes, out)
    with sweeps.client(args.scheduler, args.workers) as client:
        failed = todo.run(client)
    todo.save(failed)
    for name, error in failed.items():
        print(f"snnbook: cell {todo.cells[name][0]} failed: {error}\n  see {todo.folder(name)}", file=sys.stderr)
    print(out)
    return 1 if failed else 0


def _run(args: argparse.Namespace) -> int:
    if args.list:
        for name, text in known_parameters(args.notebook).items():
            print(f"{name}: {text}")
    else:
        print(run(args.notebook, args.output, parse(args.p, args.y, args.f)))
    return 0


def _takes_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one parameter")
    parser.add_argument("-y", action="append", default=[], metavar="YAML", help="parameters as YAML text")
    parser.add_argument("-f", action="append", default=[], metavar="FILE", help="parameters from a YAML file")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m snnbook", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("run", help="execute a notebook with other parameters")
    _takes_parameters(p)
    p.add_argument("output", type=Path, nargs="?", help="executed copy (default: NOTEBOOK.out.ipynb here)")
    p.add_argument("--list", action="store_true", help="list the notebook's parameters and stop")
    p.set_defaults(call=_run)
    p = commands.add_parser("sweep", help="execute a notebook for every cell of a grid; goes on where it was stopped")
    _takes_parameters(p)
    p.add_argument("--grid", action="append", required=True, metavar="NAME=VALUES",
                   help="zeta=86:100:2 or n_devices=1,3,5; again for another parameter")  # fmt: skip
    p.add_argument("--out", type=Path, help="folder of cells and tables (default: NOTEBOOK.sweep here)")
    p.add_argument("--workers", type=int, help="processes on this machine (default: 1; a notebook uses several cores)")
    p.add_argument("--scheduler", help="address of a running Dask cluster, tcp://host:port")
    p.set_defaults(call=sweep)
    processes.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        return args.call(args)
    except (ValueError, OSError) as error:
        print(f"snnbook: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
