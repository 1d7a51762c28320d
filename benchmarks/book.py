"""Wall time, peak memory and page sizes of a clean build of the book, recorded under results/benchmarks/book.

make clean && .venv/bin/python benchmarks/book.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import psutil

from snnbook.fields import Params
from snnbook.runs import ROOT, Run

HTML = ROOT / "_build" / "html"


@dataclass(frozen=True)
class BookBenchmark(Params):
    """Nothing to set: the book is built as ``make book`` builds it."""


def tree_memory(process: psutil.Process) -> int:
    """Bytes held by a process and all below it, now; pages that they share count once (Linux), else per process."""
    total = 0
    for p in (process, *process.children(recursive=True)):
        try:
            total += getattr(p.memory_full_info(), "pss", 0) or p.memory_info().rss
        except psutil.Error:
            continue
    return total


def build() -> dict[str, float]:
    """Build from nothing; wall seconds and the largest sampled memory of the process tree in GiB."""
    shutil.rmtree(ROOT / "_build", ignore_errors=True)
    started, peak = time.monotonic(), 0
    process = psutil.Popen([sys.executable, "tools/build.py"], cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, tree_memory(process))
        time.sleep(0.2)
    if process.returncode:
        sys.exit("the book was not built; run `make book` to see why")
    return {"wall_seconds": round(time.monotonic() - started, 1), "peak_memory_gib": round(peak / 2**30, 2)}


def rebuild() -> float:
    """Seconds of a second build with nothing changed."""
    started = time.monotonic()
    subprocess.run([sys.executable, "tools/build.py"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return round(time.monotonic() - started, 2)


def page_sizes() -> pd.DataFrame:
    """Kilobytes of every page together with its images: columns ``page``, ``html_kb``, ``images_kb``, ``total_kb``."""
    rows = []
    for page in sorted(HTML.rglob("*.html")):
        images = set(re.findall(r'<img[^>]+src="([^"#?:]+)"', page.read_text(encoding="utf-8")))
        files = [(page.parent / unquote(src)).resolve() for src in images]
        image_kb = sum(f.stat().st_size for f in files if f.is_file()) / 1e3
        html_kb = page.stat().st_size / 1e3
        rows.append((str(page.relative_to(HTML)), round(html_kb), round(image_kb), round(html_kb + image_kb)))
    return pd.DataFrame(rows, columns=["page", "html_kb", "images_kb", "total_kb"])


def main() -> None:
    """Measure and record."""
    run = Run(BookBenchmark(), Path(ROOT / "results" / "benchmarks" / "book"), "python benchmarks/book.py")
    measured = build() | {"rebuild_seconds": rebuild()}
    sizes = page_sizes()
    run.save("pages", sizes)
    run.save("build", pd.DataFrame([measured | {"largest_page_kb": sizes["total_kb"].max()}]))
    print(measured, sizes.sort_values("total_kb").tail(3).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
