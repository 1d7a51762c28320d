"""Command line: ``python -m snnbook run NOTEBOOK -p name value`` is papermill plus a refusal of unknown names."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import yaml

from . import params
from .checks import check


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-4, without a point, for a string; here it is a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def parse(values: list[list[str]], yaml_texts: list[str], files: list[str]) -> dict[str, object]:
    """Parameters from ``-p name value`` (read as YAML, so lists work), ``-y`` YAML texts and ``-f`` YAML files."""
    merged: dict[str, object] = {}
    for text in [Path(f).read_text(encoding="utf-8") for f in files] + yaml_texts:
        loaded = yaml.load(text, _Loader)
        check("parameters", text, isinstance(loaded, dict), "a YAML mapping of names to values")
        merged |= loaded
    return merged | {name: yaml.load(value, _Loader) for name, value in values}


def known_parameters(notebook: Path) -> dict[str, str]:
    """Name to help of the parameters of a notebook, as papermill reads them."""
    import papermill

    found = papermill.inspect_notebook(str(notebook))
    return {name: info["help"] for name, info in found.items()}


def run(notebook: Path, output: Path | None, given: dict[str, object]) -> Path:
    """Check ``given`` and execute ``notebook`` with papermill.

    Args:
        notebook: the .ipynb file.
        output: the executed copy; by default beside the current folder, ``<name>.out.ipynb``.
        given: parameter values.

    Raises:
        ValueError: for an unknown name (lists the known ones) or a value that the notebook refuses.
        FileNotFoundError: if there is no such notebook.
    """
    import papermill

    if not notebook.exists():
        raise FileNotFoundError(f"no notebook at {notebook}")
    known = known_parameters(notebook)
    for name in given:
        check("parameter", name, name in known, f"{notebook.name} knows {', '.join(known)}")
    cls = params.by_notebook().get(notebook.stem)
    if cls is not None:
        cls(**given)
    output = output or Path(f"{notebook.stem}.out.ipynb")
    papermill.execute_notebook(
        str(notebook), str(output), given, kernel_name="python3", progress_bar=sys.stderr.isatty()
    )
    return output


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m snnbook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("run", help="execute a notebook with other parameters")
    p.add_argument("notebook", type=Path)
    p.add_argument("output", type=Path, nargs="?", help="executed copy (default: NOTEBOOK.out.ipynb here)")
    p.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one parameter")
    p.add_argument("-y", action="append", default=[], metavar="YAML", help="parameters as YAML text")
    p.add_argument("-f", action="append", default=[], metavar="FILE", help="parameters from a YAML file")
    p.add_argument("--list", action="store_true", help="list the notebook's parameters and stop")
    args = parser.parse_args(argv)
    try:
        if args.list:
            for name, text in known_parameters(args.notebook).items():
                print(f"{name}: {text}")
            return 0
        print(run(args.notebook, args.output, parse(args.p, args.y, args.f)))
    except (ValueError, FileNotFoundError) as error:
        print(f"snnbook: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
