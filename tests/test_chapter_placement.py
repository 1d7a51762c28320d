"""Chapter 22 under parameters with which a part of it has nothing to show."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import nbformat
import pandas as pd
import papermill

from snnbook import params
from snnbook.__main__ import parse

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
