import hashlib
import json
import os
import platform
import shlex
import subprocess
import time
from importlib.metadata import version

import pandas as pd
import pytest
import torch
import yaml
from tiny import example_parameters

import snnbook
from snnbook import runs
from snnbook.runs import Run, atomic, recorded
from snnbook.train import make_fabric


@pytest.fixture(scope="module")
def Example():
    with example_parameters() as cls:
        yield cls


@pytest.fixture
def table():
    return pd.DataFrame({"T": [1, 2], "accuracy": [0.1, 0.1 + 0.2], "method": ["qc", 'a "b", c']})


def test_atomic_replaces_the_whole_file(tmp_path):
    path = tmp_path / "new" / "a.csv"
    for text in ("first", "second"):
        with atomic(path) as part:
            part.write_text(text)
            assert part.parent == path.parent
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["a.csv"]
    assert path.stat().st_mode & 0o444 == 0o444


def test_an_error_in_the_middle_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="midway"), atomic(path) as part:
        part.write_text("half of the n")
        raise RuntimeError("midway")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_a_table_that_cannot_be_written_leaves_the_recorded_run_whole(tmp_path, monkeypatch, Example, table):
    run = Run.start(Example(out_dir=str(tmp_path)))
    run.save("t", table)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        run.save("t", table * 2)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert recorded(tmp_path)[1]["t"].equals(table)


def test_starting_writes_nothing(tmp_path, Example):
    out = tmp_path / "not" / "there"
    assert Run.start(Example(out_dir=str(out))).out_dir == out
    assert not out.exists()


def test_out_dir_must_not_be_a_file(tmp_path, Example):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=rf"^out_dir = '{file}' is not allowed: a folder or"):
        Run.start(Example(out_dir=str(file)))


def test_default_out_dir_is_below_build_of_the_checkout_or_of_the_current_folder(tmp_path, monkeypatch, Example):
    checkout, here = tmp_path / "checkout", tmp_path / "here"
    checkout.mkdir(), here.mkdir()
    monkeypatch.setattr(runs, "ROOT", checkout)
    monkeypatch.chdir(here)
    assert Run.start(Example()).out_dir == here / "_build" / "runs" / "99_example"
    (checkout / "_config.yml").write_text("")
    assert Run.start(Example()).out_dir == checkout / "_build" / "runs" / "99_example"


def test_the_manifest_has_all_that_repeats_the_run(tmp_path, Example, table):
    run = Run.start(Example(out_dir=str(tmp_path), seed=7))
    time.sleep(0.15)
    path = run.save("accuracy", table)
    assert path == tmp_path / "accuracy.csv"
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest["notebook"] == "99_example"
    assert manifest["seed"] == 7
    assert manifest["parameters"] == Example(out_dir=str(tmp_path), seed=7).asdict()
    assert manifest["files"] == {"accuracy.csv": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert 0.1 <= manifest["wall_seconds"] < 60
    assert manifest["versions"] | {"python": platform.python_version(), "snnbook": snnbook.__version__,
                                   "torch": version("torch")} == manifest["versions"]  # fmt: skip
    assert manifest["hardware"]["cores"] == os.cpu_count()
    assert manifest["hardware"]["torch_threads"] == torch.get_num_threads()
    assert manifest["hardware"]["bf16"] == ("bf16" in make_fabric().strategy.precision.precision)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    assert manifest["hardware"]["memory_gib"] == pytest.approx(pages, abs=0.06)
    assert manifest["git_revision"] == runs.git_revision()
    assert manifest["networks"] == {"trained": 0, "from_cache": 0, "cached_seconds": 0}


def test_the_manifest_knows_the_files_behind_the_parameters(tmp_path, monkeypatch, Example, table):
    file = tmp_path / "mine.npz"
    file.write_bytes(b"data")
    digest = hashlib.sha256(b"data").hexdigest()
    Run.start(Example(out_dir=str(tmp_path / "out"), data_dir=str(file))).save("a", table)
    assert recorded(tmp_path / "out")[0]["inputs"] == {str(file): digest}
    assert runs.inputs({"data_dir": str(tmp_path), "levels": 3, "method": "x" * 5000, "share": None}) == {}
    monkeypatch.setenv("SNNBOOK_DATA", str(file))
    assert Run.start(Example()).inputs == {str(file): digest}


def test_each_table_joins_the_manifest_and_a_second_save_replaces_the_first(tmp_path, Example, table):
    run = Run.start(Example(out_dir=str(tmp_path)))
    run.save("a", table)
    run.save("b", table.head(1))
    run.save("a", table.tail(1))
    manifest, tables = recorded(tmp_path)
    assert list(manifest["files"]) == ["a.csv", "b.csv"]
    assert len(tables["a"]) == len(tables["b"]) == 1
    assert tables["a"]["T"].item() == 2 and tables["b"]["T"].item() == 1


def test_recorded_gives_back_every_bit_of_a_number(tmp_path, Example):
    numbers = pd.DataFrame({"x": torch.rand(200, dtype=torch.float64).tolist() + [1e-300, 0.1 + 0.2, 1 / 3]})
    Run.start(Example(out_dir=str(tmp_path))).save("numbers", numbers)
    assert recorded(tmp_path)[1]["numbers"]["x"].tolist() == numbers["x"].tolist()


def test_a_changed_table_is_named(tmp_path, Example, table):
    path = Run.start(Example(out_dir=str(tmp_path))).save("accuracy", table)
    path.write_text(path.read_text().replace("0.1", "0.9", 1))
    with pytest.raises(ValueError, match=r"accuracy\.csv = '[0-9a-f]{12}' is not allowed: a table with sha256"):
        recorded(tmp_path)


@pytest.mark.parametrize("change", [lambda t: t[: len(t) // 2], lambda t: t.replace('"files"', '"tables"'),
                                    lambda t: "[]", lambda t: '{"files": 3}', lambda t: ""])  # fmt: skip
def test_a_manifest_that_is_not_whole_is_named(tmp_path, Example, table, change):
    Run.start(Example(out_dir=str(tmp_path))).save("accuracy", table)
    path = tmp_path / "run.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=f"^{path} is no whole manifest"):
        recorded(tmp_path)


def test_a_folder_without_a_manifest_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="run.json"):
        recorded(tmp_path)


def test_recorded_reads_relative_to_the_checkout(tmp_path, monkeypatch, Example, table):
    Run.start(Example(out_dir=str(tmp_path / "results" / "x"))).save("t", table)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    assert recorded("results/x")[1]["t"].equals(table)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"threshold": 1e-2, "share": 1e-05},
        {"threshold": 100.0, "share": -1e22},
        {"time_steps": [4, 8], "shift": True, "share": None},
        {"data_dir": 'it\'s a "dir" with $HOME; and: colons #1'},
        {"data_dir": "1e-5"},
        {"data_dir": "no"},
    ],
)
def test_the_command_of_the_manifest_repeats_the_parameters(Example, values):
    p = Example(**values)
    words = shlex.split(runs.command(p, "out"))
    assert words[:2] == ["papermill", "notebooks/99_example.ipynb"]
    assert words[-2] == "-y"
    assert Example(**yaml.safe_load(words[-1])) == Example(**values, out_dir="out")


def test_git_revision_of_a_clean_and_a_changed_checkout_and_outside_one(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runs.git_revision() is None

    def git(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *words], capture_output=True, text=True, check=True
        ).stdout

    git("init")
    (tmp_path / "site-packages").mkdir()
    file = tmp_path / "a"
    file.write_text("1")
    git("add", "a")
    git("commit", "-m", "one", "--no-verify")
    revision = git("rev-parse", "HEAD").strip()
    assert runs.git_revision() == revision
    (tmp_path / "untracked").write_text("")
    assert runs.git_revision() == revision
    file.write_text("2")
    assert runs.git_revision() == revision + "+changes"
    monkeypatch.setattr(runs, "ROOT", tmp_path / "site-packages")  # installed within somebody's repository
    assert runs.git_revision() is None


def test_versions_are_those_installed():
    found = runs.versions()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["pandas"] == pd.__version__
