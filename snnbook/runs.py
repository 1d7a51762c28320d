"""A run is a value: parameters in, tables and a manifest out.

Every notebook starts one run; ``save`` writes a tidy CSV table and ``run.json`` beside it, each whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import psutil
import torch
import yaml

from .checks import check
from .fields import Params
from .fold import bf16_is_native

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("torch", "spikingjelly", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class UsedNetwork:
    """A trained network that a run used.

    Attributes:
        from_cache: trained by an earlier run, so that the wall time of this one does not hold it.
        seconds: how long its training took; ``None`` if nobody knows, as for one that went on after a kill.
    """

    from_cache: bool
    seconds: float | None


#: Networks that the run of this process used so far, by their name in the cache; :mod:`snnbook.cache` fills it.
NETWORKS: dict[str, UsedNetwork] = {}


def networks_used(networks: dict[str, UsedNetwork]) -> dict[str, object]:
    """How many networks were ``trained`` and taken ``from_cache``, and the ``cached_seconds`` that the latter took.

    Args:
        networks: as :data:`NETWORKS`.

    Returns:
        The three; ``cached_seconds`` is ``None`` if it is not known for one of them.
    """
    cached = [n.seconds for n in networks.values() if n.from_cache]
    total = None if None in cached else round(sum(cached), 1)
    return {"trained": len(networks) - len(cached), "from_cache": len(cached), "cached_seconds": total}


@contextmanager
def atomic(path: Path):
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        yield Path(part)
        os.chmod(part, 0o644)
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def in_source_tree() -> bool:
    """Whether the package runs from a checkout that has the book's configuration beside it."""
    return (ROOT / "_config.yml").exists()


def build_dir(name: str) -> Path:
    """Folder for derived files: ``_build/<name>`` of the checkout, else ``_build/<name>`` of the current folder."""
    return (ROOT if in_source_tree() else Path.cwd()) / "_build" / name


@cache
def _sha256(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inputs(parameters: Mapping[str, object]) -> dict[str, str]:
    """Files that ``parameters`` name → SHA-256 of what they hold; SNNBOOK_DATA stands for a ``data_dir`` not given."""
    given = {**parameters, "data_dir": parameters.get("data_dir") or os.environ.get("SNNBOOK_DATA")}
    lists = (value if isinstance(value, list) else [value] for value in given.values())
    paths = {text: os.path.expanduser(text) for values in lists for text in values if isinstance(text, str)}
    found = {text: os.stat(path) for text, path in paths.items() if os.path.isfile(path)}
    return {text: _sha256(os.path.abspath(paths[text]), s.st_size, s.st_mtime_ns) for text, s in found.items()}


def folder(params: Params) -> Path:
    """Where a run's tables and manifest go: ``out_dir``, or a folder of the notebook's name below ``_build/runs``."""
    asked = getattr(params, "out_dir", "")
    return Path(asked) if asked else build_dir("runs") / params.notebook


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it computes with."""
    from . import __version__

    return {"python": platform.python_version(), "snnbook": __version__} | {p: version(p) for p in _PACKAGES}


def jobs() -> int:
    """How many processes :mod:`snnbook.side_by_side` starts at once: the environment's SNNBOOK_JOBS, else 1.

    Raises:
        ValueError: if that is no whole number from 1.
    """
    text = os.environ.get("SNNBOOK_JOBS") or "1"
    check("SNNBOOK_JOBS", text, text.isdecimal() and int(text) >= 1, "a whole number from 1")
    return int(text)


def hardware() -> dict[str, object]:
    """Processor, cores, memory, accelerator, bf16 (whether it multiplies and so trains in it), threads and jobs."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "bf16": bf16_is_native("cuda" if torch.cuda.is_available() else "cpu"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
        "jobs": jobs(),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def git_revision() -> str | None:
    """Revision of the checkout, with ``+changes`` when tracked files differ from it; ``None`` outside one.

    A package that is installed within another repository is outside.
    """
    try:
        if _git("rev-parse", "--show-prefix"):
            return None
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def command(params: Params, out_dir: Path | str) -> str:
    """The papermill command that repeats a run (lists and strings as YAML)."""
    # Not JSON: its 1e-05 is a string in YAML 1.1.
    values = yaml.safe_dump(params.asdict() | {"out_dir": str(out_dir)}, sort_keys=False)
    name = f"notebooks/{params.notebook}.ipynb"
    return f"papermill {name} {params.notebook}.out.ipynb -y {shlex.quote(values.strip())}"


@dataclass
class Run:
    """One execution of a notebook.

    Attributes:
        params: what was asked for.
        out_dir: where tables and the manifest go.
        command: how to repeat it; empty for a notebook, whose papermill command is made from ``params``.
        inputs: files that the parameters name → SHA-256, when the run started.
    """

    params: Params
    out_dir: Path
    command: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _revision: str | None = field(default_factory=lambda: git_revision())
    _files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, params: Params) -> Run:
        """Start the clock; nothing is written before the first table.

        Raises:
            ValueError: if ``out_dir`` exists and is no folder.
        """
        NETWORKS.clear()
        out = folder(params)
        check(
            "out_dir",
            str(out),
            not out.exists() or out.is_dir(),
            "a folder or a path that does not exist yet",
        )
        return cls(params, out, inputs=inputs(params.asdict()))

    def save(self, name: str, table: pd.DataFrame) -> Path:
        """Write ``<out_dir>/<name>.csv`` and bring ``run.json`` up to date.

        Args:
            name: table name without ending.
            table: tidy rows; the index is not written.

        Returns:
            The CSV file.
        """
        path = self.out_dir / f"{name}.csv"
        text = table.to_csv(index=False)
        with atomic(path) as part:
            part.write_text(text, encoding="utf-8")
        self._files[path.name] = hashlib.sha256(text.encode()).hexdigest()
        with atomic(self.out_dir / "run.json") as part:
            part.write_text(json.dumps(self.manifest(), indent=2) + "\n", encoding="utf-8")
        return path

    def manifest(self) -> dict[str, object]:
        """What ``run.json`` holds: what was asked for, of which files, where, how long, networks, command, tables."""
        return {
            "notebook": self.params.notebook,
            "parameters": self.params.asdict(),
            "inputs": self.inputs,
            "seed": getattr(self.params, "seed", None),
            "versions": versions(),
            "hardware": hardware(),
            "wall_seconds": round(time.monotonic() - self._started, 1),
            "networks": networks_used(NETWORKS),
            "git_revision": self._revision,
            "command": self.command or command(self.params, getattr(self.params, "out_dir", "")),
            "files": dict(self._files),
        }


def recorded(folder: Path | str) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Read a recorded run back.

    Args:
        folder: folder with ``run.json``, absolute or relative to the checkout (``results/...``).

    Returns:
        The manifest and its tables by name.

    Raises:
        FileNotFoundError: if there is no ``run.json``.
        ValueError: if ``run.json`` is cut or names no files, or a table does not have its checksum there.
    """
    folder, tables = Path(folder) if Path(folder).is_absolute() else ROOT / folder, {}
    text = (folder / "run.json").read_bytes()
    try:
        manifest = json.loads(text)
        digests = dict(manifest["files"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'run.json'} is no whole manifest ({type(error).__name__}: {error})") from error
    for name, digest in digests.items():
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        check(str(path), found[:12], found == digest, f"a table with sha256 {digest[:12]}… as in its run.json")
        tables[name.removesuffix(".csv")] = pd.read_csv(path)
    return manifest, tables
