"""The benchmark of trainings side by side, as small as it goes."""

from pathlib import Path

import pytest
from tiny import blobs

from benchmarks import jobs
from snnbook.bottleneck.selection import Candidate
from snnbook.runs import recorded


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What the benchmark sets is gone afterwards."""
    monkeypatch.setenv("SNNBOOK_JOBS", "1")
    monkeypatch.setenv("SNNBOOK_CACHE", "elsewhere")


def test_every_round_trains_everything_again_with_each_number_of_jobs(monkeypatch, tmp_path, capsys):
    folders, search = [], jobs.search
    monkeypatch.setattr(jobs, "search", lambda e, *rest: folders.append(kept()) or search(e, *rest))
    monkeypatch.setattr(jobs, "CANDIDATES", [Candidate(1, 4, 1, 1), Candidate(2, 4, 1, 1)])
    monkeypatch.setattr(jobs, "load", lambda *_, **__: blobs(shape=(1, 8, 8)))
    jobs.main(["--jobs", "[1, 2]", "--rounds", "2", "--out_dir", str(tmp_path)])
    manifest, tables = recorded(tmp_path)
    assert manifest["command"].startswith("python -m benchmarks.jobs --jobs '[1, 2]' --rounds 2")
    table = tables["jobs"]
    assert table["jobs"].tolist() == [1, 2, 1, 2] and (table["trainings"] == 2).all() and (table["seconds"] > 0).all()
    assert folders == [2] * 4  # the backbone and its warm start, and nothing that is searched over
    assert "50%" in capsys.readouterr().out


def kept() -> int:
    """Networks in the cache now."""
    return len(list(Path(jobs.os.environ["SNNBOOK_CACHE"]).glob("*.safetensors")))


def test_what_it_takes_is_checked():
    with pytest.raises(ValueError, match=r"jobs\[0\] = 0 is not allowed: 1 to 256"):
        jobs.main(["--jobs", "[0]"])
