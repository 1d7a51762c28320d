"""Chapter 22 under parameters with which a part of it has nothing to show."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from snnbook import params
from snnbook.__main__ import main, parse
from snnbook.splitting.devices import UNITS

PATH = Path(__file__).resolve().parent.parent / "notebooks" / "22_placement.ipynb"
SHORT = {"warm_epochs": 1, "epochs": 1, "instances": 2}


def run(given: dict, tmp_path: Path) -> dict[str, pd.DataFrame]:
    """Tables of the chapter with parameters ``given``."""
    out = tmp_path / "run"
    options = {"progress_bar": False, "kernel_name": "python3", "cwd": str(PATH.parent)}
    papermill.execute_notebook(str(PATH), str(tmp_path / "out.ipynb"), given | {"out_dir": str(out)}, **options)
    files = json.loads((out / "run.json").read_text())["files"]
    return {Path(name).stem: pd.read_csv(out / name) for name in files}


def command(exercise: str) -> dict:
    """Parameters of the command in the solution of an exercise."""
    text = next(c.source for c in nbformat.read(PATH, as_version=4).cells if c.id == f"{exercise}-text")
    words = shlex.split(text[text.index("python -m snnbook run") :].split("\n\n")[0].replace("\\\n", " "))
    pairs = [words[i + 1 : i + 3] for i, word in enumerate(words) if word == "-p"]
    return parse(pairs, [], [])


def test_nine_on_three_microcontrollers_fit_under_no_rule_and_the_chapter_goes_on(tmp_path):
    given = command("ex-placement-chips")
    assert params.Placement(**given).profiles == ["microcontroller"]
    tables = run(given | SHORT | {"numbers": [1]}, tmp_path)
    tried = tables["tried"]
    assert len(tried) > 1 and tried["placed"].tolist() == [False] * (len(tried) - 1) + [True]
    assert len(tables["shared"]) == 5 and tables["shared"].drop(columns="rule").isna().all(axis=None)


def test_numbers_above_that_of_the_classes_are_left_out(tmp_path):
    tables = run(SHORT | {"dataset": "sounds", "memory_share": 1e6, "numbers": [3, 8, 9]}, tmp_path)
    assert tables["numbers"]["case"].tolist() == ["unsplit", "split, N = 3", "split, N = 8"]


def test_devices_of_ones_own_and_no_others(tmp_path):
    """Random fleets come from the one profile as well: all alike, they leave greedy nothing to lose in energy."""
    figures = {name: 3.5e7 if name.endswith("rate") else 1e9 if name in ("memory", "energy_budget") else 1e-8
               for name in UNITS}  # fmt: skip
    tables = [f"[{name}]\nvalue = {value}\nsource = 'a test'" for name, value in figures.items()]
    (tmp_path / "chip.toml").write_text("skips_zeros = true\n" + "\n".join(tables))
    tables = run(SHORT | {"profiles": [str(tmp_path / "chip.toml")], "numbers": [1], "instances": 12}, tmp_path)
    assert set(tables["devices"]["device"]) == {"chip"} and len(tables["devices"]) == 3
    assert tables["placement"]["device"].str.fullmatch(r"chip \d").all()
    assert tables["gaps"]["placed"].any()
    assert tables["gaps"]["total_joules_with_link"].dropna().to_numpy() == pytest.approx(1)


def test_a_profile_that_is_not_there_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for given, why in (("[phone, mine.toml]", "'mine.toml' is not allowed: an existing file"), ("[abacus]", "one of ")):
        assert main(["run", str(PATH), "-p", "profiles", given]) != 0
        assert why in capsys.readouterr().err and not list(tmp_path.iterdir())
