"""A notebook over a grid of parameters: on the cores of this machine, or on a Dask cluster.

A cell of the grid is one value for each swept parameter. What a finished cell gave lies in a folder that is named
after the notebook's code, the cell's parameters and what is in the files that they name, so that a sweep which was
killed goes on with the cells that are missing, and with those that another version of this package made. A worker sends
back what it made; it needs this package, but no folder in common with the one who asks.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from .checks import check
from .fields import read_yaml
from .runs import atomic, inputs, versions
from .sources import package_hash

#: Workers that may die under a cell before it counts as failed.
DEATHS = 3


def values(text: str) -> list[object]:
    """The values of one parameter: ``a:b`` or ``a:b:step`` (whole numbers, b included), or values with commas (YAML).

    Raises:
        ValueError: for a range that is empty or has no step, or a text that is no YAML.
    """
    bounds = text.split(":")
    if len(bounds) in (2, 3) and all(b.lstrip("-").isdigit() for b in bounds):
        first, last, step = (*map(int, bounds), 1)[:3]
        found = list(range(first, last + 1, step)) if step > 0 else []
        check("grid", text, len(found) > 0, "first:last:step with first <= last and a step of at least 1")
        return found
    return read_yaml(f"[{text}]", "grid")


def grid(texts: Iterable[str]) -> dict[str, list[object]]:
    """``name=values`` texts to parameter → values; ValueError for another form, no values or a name given twice."""
    found: dict[str, list[object]] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        check("grid", text, bool(name and equals and rest), "name=values, for instance zeta=86:100:2")
        check("grid", name, name not in found, "each parameter once")
        found[name] = values(rest)
        check("grid", text, len(found[name]) > 0, "at least one value")
    return found


def cells(axes: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Every combination of the values, the last parameter running fastest."""
    return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*axes.values())]


def _code(notebook: Path) -> str:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in found if c["cell_type"] == "code")


def key(notebook: Path, parameters: Mapping[str, object]) -> str:
    """Name of a cell: what its notebook does, with which parameters, and the digests of the files that they name."""
    text = json.dumps([notebook.stem, _code(notebook), dict(parameters), inputs(parameters)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def execute(notebook: str, name: str, parameters: dict[str, object], folder: str = "") -> dict[str, object]:
    """Run one cell here, in a folder of its own.

    Args:
        notebook: its JSON text.
        name: its file name without ending.
        parameters: of the notebook, without ``out_dir``.
        folder: current folder of its kernel, if there is one of that name here; else one that is gone afterwards.

    Returns:
        ``error`` (None, or the kind and message of what it raised; a kernel that died counts as such), ``notebook``
        (the executed one, as far as it came), ``files`` (name → bytes of everything in its ``out_dir``) and ``code``
        (hash of this package here).
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    with tempfile.TemporaryDirectory(prefix="snnbook-sweep-") as at:
        source, done, out, error = Path(at, f"{name}.ipynb"), Path(at, "done.ipynb"), Path(at, "run"), None
        source.write_text(notebook, encoding="utf-8")
        cwd = folder if folder and Path(folder).is_dir() else at
        code, options = package_hash(), {"kernel_name": "python3", "progress_bar": False, "cwd": cwd}
        try:
            papermill.execute_notebook(str(source), str(done), parameters | {"out_dir": str(out)}, **options)
        except PapermillExecutionError as raised:
            error = f"{raised.ename}: {raised.evalue}"
        except RuntimeError as raised:  # of a kernel that died or did not start
            error = f"{type(raised).__name__}: {raised}"
        files = {p.name: p.read_bytes() for p in sorted(out.glob("*")) if p.is_file()}
        executed = (done if done.exists() else source).read_text(encoding="utf-8")
        return {"error": error, "notebook": executed, "files": files, "code": code}


@contextmanager
def client(scheduler: str | None = None, workers: int | None = None, timeout: float = 10) -> Iterator:
    """A Dask client: of the cluster at ``scheduler`` (tcp://host:port), else of ``workers`` processes here.

    ``timeout`` is how many seconds the cluster has to answer.

    Raises:
        ValueError: if nothing answers at ``scheduler``, ``workers`` is below 1, or both are given.
    """
    from dask import config
    from distributed import Client, LocalCluster

    check("workers", workers, workers is None or workers >= 1, "at least 1")
    check("workers", workers, workers is None or not scheduler, "none with a scheduler, which has its own workers")
    # A worker's threads run cells one after another: a notebook takes what cores there are.
    settings = {"distributed.scheduler.allowed-failures": DEATHS, "distributed.admin.log-format": "%(message)s"}
    with config.set(settings):
        if scheduler:
            try:
                with Client(scheduler, timeout=timeout) as found:
                    yield found
            except OSError as error:
                raise ValueError(f"scheduler = {scheduler!r} is not allowed: nothing answers ({error})") from error
            return
        options = {"threads_per_worker": 1, "dashboard_address": None, "processes": True, "silence_logs": 50}
        with LocalCluster(n_workers=workers or 1, host="127.0.0.1", **options) as cluster, Client(cluster) as found:
            yield found


class Sweep:
    """A notebook, fixed parameters and a grid; what it gave lies below ``out``.

    Args:
        notebook: the .ipynb file.
        fixed: parameters that are the same in all cells.
        axes: parameter → values.
        out: folder for the cells and for the tables of all of them.

    Raises:
        ValueError: for ``out_dir`` among the parameters, a name both fixed and swept, or an ``out`` that is a file.
    """

    def __init__(self, notebook: Path, fixed: Mapping[str, object], axes: Mapping[str, Sequence[object]], out: Path):
        for name in ("out_dir", *fixed):
            check("grid", name, name not in axes, "a parameter that is not fixed, and not out_dir")
        check("parameters", "out_dir", "out_dir" not in fixed, "anything but out_dir: a sweep makes its own folders")
        check("out", str(out), not out.exists() or out.is_dir(), "a folder or a path that does not exist yet")
        self.notebook, self.axes, self.out = notebook, dict(axes), out
        self.cells = {key(notebook, fixed | cell): (cell, dict(fixed) | cell) for cell in cells(axes)}

    def folder(self, name: str) -> Path:
        """Where a cell's results lie."""
        return self.out / "cells" / name

    def finished(self) -> dict[str, str | None]:
        """Cells that have finished → hash of the package that they ran with; ``None`` where it is not known."""
        files = {name: self.folder(name) / "done.json" for name in self.cells}
        return {n: json.loads(f.read_text(encoding="utf-8")).get("code") for n, f in files.items() if f.exists()}

    def missing(self) -> list[str]:
        """Cells that have not finished, or with another package than this one."""
        finished, code = self.finished(), package_hash()
        return [name for name in self.cells if finished.get(name) != code]

    def keep(self, name: str, result: Mapping) -> None:
        """Write what a cell gave; ``done.json`` comes last. Of a failed one the notebook, ``failed.ipynb``."""
        folder, now = self.folder(name), "done" if result["error"] is None else "failed"
        (folder / "done.json").unlink(missing_ok=True)  # of another version
        if now == "done":
            shutil.rmtree(folder / "run", ignore_errors=True)
        about = {"notebook": self.notebook.name, "parameters": self.cells[name][1]}
        about |= {"error": result["error"], "code": result["code"]}
        written = {f"{now}.ipynb": result["notebook"].encode()}
        written |= {f"run/{file}": content for file, content in result["files"].items() if now == "done"}
        written[f"{now}.json"] = json.dumps(about, indent=2).encode()
        for file, content in written.items():
            with atomic(folder / file) as part:
                part.write_bytes(content)
        if now == "done":
            for file in ("failed.ipynb", "failed.json"):
                (folder / file).unlink(missing_ok=True)

    def run(self, found, quiet: bool = False) -> dict[str, str]:
        """Run the missing cells with a Dask client ``found``, in the current folder where the worker has it too.

        Returns:
            Failed cell → its error. A worker's death does not fail a cell; the third one under it does.
        """
        from distributed import as_completed

        text, folder = self.notebook.read_text(encoding="utf-8"), str(Path.cwd())
        todo, failed = self.missing(), {}
        futures = {
            found.submit(execute, text, self.notebook.stem, self.cells[n][1], folder, pure=False, key=f"{n}-{i}"): n
            for i, n in enumerate(todo)
        }
        bar = tqdm(total=len(self.cells), initial=len(self.cells) - len(todo), unit="cell", disable=quiet)
        for future in as_completed(list(futures)):
            name = futures.pop(future)
            if future.status == "finished":
                result = future.result()
                self.keep(name, result)
                error = result["error"]
            else:
                raised = future.exception() or future.status
                error = (str(raised).splitlines() or [type(raised).__name__])[0]
            if error is not None:
                failed[name] = error
            bar.update()
        bar.close()
        return failed

    def tables(self) -> dict[str, pd.DataFrame]:
        """Table name → rows of all finished cells, the swept parameters in front."""
        parts: dict[str, list[pd.DataFrame]] = {}
        for name in self.finished():
            cell = self.cells[name][0]
            for path in sorted((self.folder(name) / "run").glob("*.csv")):
                table = pd.read_csv(io.StringIO(path.read_text(encoding="utf-8")))
                front = pd.DataFrame({n: [_plain(v)] * len(table) for n, v in cell.items()}, index=table.index)
                rest = table.drop(columns=list(front), errors="ignore")
                parts.setdefault(path.stem, []).append(pd.concat([front, rest], axis=1))
        return {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}

    def save(self, failed: Mapping[str, str]) -> list[Path]:
        """Write the tables of all cells and ``sweep.json``, with the packages that gave them; returns the files."""
        written = {f"{name}.csv": table.to_csv(index=False) for name, table in self.tables().items()}
        about = {"notebook": self.notebook.name, "grid": self.axes, "cells": len(self.cells), "failed": dict(failed)}
        about |= {"versions": versions(), "code": sorted({str(code) for code in self.finished().values()})}
        about |= {"tables": sorted(written)}
        written["sweep.json"] = json.dumps(about, indent=2)
        for file, text in written.items():
            with atomic(self.out / file) as part:
                part.write_text(text, encoding="utf-8")
        return [self.out / file for file in written]


def _plain(value: object) -> object:
    """A value that fits into one field of a table."""
    return value if isinstance(value, int | float | str | bool) or value is None else json.dumps(value)
