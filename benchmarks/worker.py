"""One contender in a process of its own: reads a JSON command a line, answers with a JSON line.

Between commands it waits and takes no processor time, so that contenders can take turns.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch

from snnbook.roofline import seconds

from .contenders import CONTENDERS
from .source import Workload


def release() -> None:
    """Give freed memory back to the system (glibc keeps it otherwise)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _high_water() -> int:
    """Largest resident memory since it was reset, bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def peak_memory(call: Callable[[], object], device: str) -> int:
    """Bytes that ``call()`` holds at most on top of what was there before (Linux, or CUDA's allocator).

    Raises:
        OSError: where the system cannot tell.
    """
    release()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident now
    call()
    return _high_water() - before


class Worker:
    """The commands; ``call`` is the workload that is set up."""

    def __init__(self, contender: str):
        self.make = CONTENDERS[contender]
        self.call: Callable | None = None
        self.device, self.last = "cpu", 0.0

    def setup(self, workload: dict, output: str) -> dict:
        """Build, run once and save what was computed; says why where a library is not installed."""
        try:
            work = Workload(**{**workload, "shape": tuple(workload["shape"])})
            self.device, self.call = work.device, self.make(work)
        except ImportError as error:
            return {"left_out": f"{error}"}
        if self.call is None:
            return {}  # not its kind of work
        started = time.perf_counter()
        result = self.call()
        spent = time.perf_counter() - started
        np.save(output, result.detach().float().cpu().contiguous().numpy())
        return {"first_call_seconds": spent}

    def run(self, at_least: float) -> dict:
        """Mean seconds of a call over at least that many seconds; after one call more if calls are short."""
        if self.last < at_least:
            self.call()
        self.last = seconds(self.call, at_least, self.device)
        return {"seconds": self.last}

    def memory(self, workload: dict) -> dict:
        """Bytes that one call of another workload holds at most on top of what is resident before."""
        self.drop()
        call = self.make(Workload(**{**workload, "shape": tuple(workload["shape"])}))
        return {"bytes": peak_memory(call, workload["device"])}

    def drop(self) -> dict:
        """Forget the workload and free its memory."""
        self.call, self.last = None, 0.0
        release()
        return {}


def main() -> None:
    """Answer commands on standard input until it ends; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contender, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    worker = Worker(contender)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # one contender that fails must not end the others
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
