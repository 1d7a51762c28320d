"""Execute the book's notebooks side by side, into the cache from which the pages are then made.

Chapters of one part share trained networks, so a part's notebooks run one after another, and parts run side by side.
What a notebook prints about time would not be true then: those in ``ALONE`` are left to the build, which runs them one
by one. So is a notebook that fails: the build runs it again and says why.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution

ROOT = Path(__file__).resolve().parent.parent
#: Notebooks that measure seconds, or that need what all others have trained.
ALONE = ("03_speed", "23_fused_inference", "35_co_inference", "40_planner")
#: Memory that a part may take at its worst.
GIB_PER_PART = 4


def parts(root: Path) -> list[list[Path]]:
    """The notebooks of each part of the book in order, without those that run alone; the longest part first."""
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found = []
    for part in contents["parts"]:
        paths = [root / f"{chapter['file']}.ipynb" for chapter in part["chapters"]]
        found.append([path for path in paths if path.is_file() and path.stem not in ALONE])
    return sorted(filter(None, found), key=len, reverse=True)


def workers(n_parts: int, cores: int, free_gib: float) -> int:
    """How many parts run at a time: no more than there are, nor than cores and memory allow, and at least one."""
    return max(1, min(n_parts, cores, int(free_gib // GIB_PER_PART)))


def missing(root: Path, folder: Path) -> list[list[Path]]:
    """The parts without the notebooks whose execution is cached in ``folder``."""
    cache = get_cache(folder)

    def cached(path: Path) -> bool:
        try:
            return cache.match_cache_notebook(nbformat.read(path, as_version=4)) is not None
        except KeyError:
            return False

    return [left for part in parts(root) if (left := [path for path in part if not cached(path)])]


def run_parts(todo: queue.Queue, done: queue.Queue, timeout: int) -> None:
    """Work of one thread: execute whole parts until none is left; ``done`` receives (path, result or None)."""
    while True:
        try:
            part = todo.get_nowait()
        except queue.Empty:
            return
        for path in part:
            try:
                notebook = nbformat.read(path, as_version=4)
                done.put((path, single_nb_execution(notebook, str(path.parent), timeout, False)))
            except Exception:  # a kernel that died: the build will say so
                done.put((path, None))


def execute(root: Path, n_workers: int, timeout: int = 1200) -> list[str]:
    """Execute what is not cached yet; every success is cached at once, so that a killed build goes on there.

    Returns:
        One line for each notebook, in the order in which they ended.
    """
    folder = root / "_build" / ".jupyter_cache"
    left, cache, lines = missing(root, folder), get_cache(folder), []
    todo, done = queue.Queue(), queue.Queue()
    for part in left:
        todo.put(part)
    for _ in range(n_workers):
        threading.Thread(target=run_parts, args=(todo, done, timeout), daemon=True).start()
    for _ in range(sum(map(len, left))):
        path, result = done.get()
        good = result is not None and result.err is None
        if good:
            bundle = CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        lines.append(f"{path.stem}: {f'{result.time:.0f} s' if good else 'failed, will be run again alone'}")
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    started = time.perf_counter()
    cores, free = os.cpu_count() or 1, psutil.virtual_memory().available / 2**30
    side_by_side = workers(len(parts(ROOT)), cores, free)
    os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // side_by_side)))
    if execute(ROOT, side_by_side):
        print(f"Executed in {time.perf_counter() - started:.0f} s, {side_by_side} at a time.")
    sys.exit(0)
