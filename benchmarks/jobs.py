"""A search whose trainings go one after the other, and several at once.

python -m benchmarks.jobs --jobs "[1, 2, 4]" --out_dir DIR
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from snnbook.bottleneck.selection import Candidate
from snnbook.data import Data, load
from snnbook.experiments.spike_bottlenet import experiment, search
from snnbook.fields import Params, field
from snnbook.params import BottleneckNetworks
from snnbook.runs import ROOT, Run

from . import options

#: What is searched over: a codec of 16 channels behind each block of the chapters' network on digits, at T = 2.
CANDIDATES = tuple(Candidate(split_point, 16, 1, 2) for split_point in (1, 2, 3, 4))


@dataclass(frozen=True)
class JobsBenchmark(Params):
    """What is compared, and where it is recorded."""

    jobs: list[int] = field([1, 2], "processes at once (SNNBOOK_JOBS)", low=1, high=256)
    rounds: int = field(3, "rounds, in each of which all numbers of processes take turns", low=1, high=100)
    out_dir: str = field("", "folder for the table and run.json; empty means results/benchmarks/jobs")


def seconds(data: Data, candidates: Sequence[Candidate], jobs: int, trained: Path) -> float:
    """Seconds of a search in ``jobs`` processes, their start included; backbones come from the folder ``trained``."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        os.environ |= {"SNNBOOK_CACHE": folder, "SNNBOOK_JOBS": str(jobs)}
        p, started = BottleneckNetworks(), time.monotonic()
        search(experiment(p, data, p.seed), candidates, p.samples)
        return time.monotonic() - started


def measure(p: JobsBenchmark, data: Data, candidates: Sequence[Candidate]) -> pd.DataFrame:
    """Columns ``round``, ``jobs``, ``trainings``, ``threads`` (of all processes together) and ``seconds``."""
    threads, rows, networks = torch.get_num_threads(), [], BottleneckNetworks()
    with tempfile.TemporaryDirectory() as trained:
        os.environ |= {"SNNBOOK_CACHE": trained, "SNNBOOK_JOBS": "1"}
        for T in {c.time_steps for c in candidates}:
            experiment(networks, data, networks.seed).backbone(T)
        for number in range(p.rounds):
            for jobs in p.jobs:
                spent = seconds(data, candidates, jobs, Path(trained))
                rows.append((number, jobs, len(candidates), threads, round(spent, 2)))
    return pd.DataFrame(rows, columns=["round", "jobs", "trainings", "threads", "seconds"])


def main(argv: list[str] | None = None) -> None:
    """Measure and record."""
    argv = sys.argv[1:] if argv is None else argv
    p, networks = options.read(JobsBenchmark, "benchmarks.jobs", __doc__.splitlines()[0], argv), BottleneckNetworks()
    out, command = p.out_dir or ROOT / "results" / "benchmarks" / "jobs", ["python", "-m", "benchmarks.jobs", *argv]
    run, data = Run(p, Path(out), shlex.join(command)), load(networks.dataset, validation=networks.validation)
    table = measure(p, data, CANDIDATES)
    run.save("jobs", table)
    print(table.groupby("jobs")["seconds"].describe()[["min", "50%", "max"]])


if __name__ == "__main__":
    main()
