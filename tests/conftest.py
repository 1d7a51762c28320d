"""Fixtures that need a browser or the built book, and one line at the end where they had to be skipped."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("agg")
os.environ.pop("SNNBOOK_JOBS", None)  # tests replace parts of the package in this process only

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

from browser import chromium, find  # noqa: E402

NO_BROWSER = "no Chromium found (set SNNBOOK_CHROMIUM to its path)"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A conversion experiment on three blobs: VGG-5 of a few channels, its networks kept in a folder of its own."""
    from tiny import blobs

    from snnbook.experiments.two_stage import TwoStage
    from snnbook.train import Recipe

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNBOOK_CACHE", str(tmp_path_factory.mktemp("networks")))
        first, then = Recipe(epochs=4, batch_size=20, lr=0.05), Recipe(epochs=1, batch_size=20, lr=0.01)
        yield TwoStage(blobs(shape=(1, 8, 8)), "vgg5", 0.1, 8, first, then)


@pytest.fixture(scope="session")
def html() -> Path:
    """The built book, _build/html."""
    folder = ROOT / "_build" / "html"
    if not (folder / "index.html").is_file():
        pytest.skip("the book is not built (make book)")
    return folder


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    if find() is None:
        pytest.skip(NO_BROWSER)
    with chromium() as running:
        yield running


def pytest_terminal_summary(terminalreporter):
    """Say in one line that browser tests were skipped."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if NO_BROWSER in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} browser tests skipped: {NO_BROWSER}.")
