"""Work that does not wait for other work, in processes side by side: trainings of a search, methods of a benchmark.

A training step of a small network keeps one core busy and many cores hardly so; processes with a share of the cores
each are for that. They take some seconds to start. The cache of trained networks hands over what they trained.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from functools import partial
from typing import Any

import torch

from . import runs, sources
from .checks import check


class Bare:
    """A dataclass that travels to another process without what it found so far: fields that begin with ``_``."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        given = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("_")}
        return partial(type(self), **given), ()


def _start(threads: int) -> None:
    """What a process does first; it does not start others."""
    os.environ["SNNBOOK_JOBS"] = "1"
    torch.set_num_threads(threads)


class _Plain:
    """Arrives as what it holds. PyTorch would send tensors as open files of shared memory, and both are scarce."""

    def __init__(self, held: object):
        self.held = held

    def __reduce__(self) -> tuple[Callable, tuple]:
        return pickle.loads, (pickle.dumps(self.held, pickle.HIGHEST_PROTOCOL),)


def _call(call: Callable[[], object]) -> _Plain:
    """In such a process: what ``call`` gives, and the trained networks that it used."""
    runs.NETWORKS.clear()
    return _Plain((call(), dict(runs.NETWORKS)))


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each call gives, in their order; SNNBOOK_JOBS of them at a time, each in a process of its own.

    With one job or a single call everything is called here, with all threads; otherwise processes share them. Networks
    that processes trained count as trained by this run.

    Args:
        calls: functions without arguments that can be pickled: ``functools.partial`` of functions of a module, or of
            methods of an object that can be.

    Raises:
        ValueError: if SNNBOOK_JOBS is no whole number from 1, or files of the package have changed since this
            process started.
        ChildProcessError: if a process died. What others finished is in the cache, and a training goes on from its
            last checkpoint when it is asked for again.
        Exception: of the first call that raises one, when those that had begun have ended.
    """
    n = min(runs.jobs(), len(calls))
    if n < 2:
        return [call() for call in calls]
    changed = [module for module, digest in sources.digests().items() if sources.NOTED.get(module) != digest]
    check("modules changed since this process started", changed, not changed, "none, as others would run the new code")
    spawn, given = multiprocessing.get_context("spawn"), []
    pool = ProcessPoolExecutor(n, spawn, _start, (max(1, torch.get_num_threads() // n),))
    try:
        for found, networks in pool.map(_call, map(_Plain, calls)):
            given.append(found)
            _count(networks)
    except BrokenProcessPool as error:
        text = f"one of {n} processes died, perhaps for want of memory: try a lower SNNBOOK_JOBS"
        raise ChildProcessError(text) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return given


def _count(networks: dict[str, runs.UsedNetwork]) -> None:
    """Note what another process of this run used: one that any of them trained was trained."""
    for name, used in networks.items():
        if not used.from_cache or name not in runs.NETWORKS:
            runs.NETWORKS[name] = used
