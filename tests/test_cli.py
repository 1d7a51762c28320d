"""``python -m snnbook``: refusals before anything is written, papermill on a small notebook of the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from tiny import example_parameters

from snnbook import runs
from snnbook.__main__ import known_parameters, main, parse, refuse_unknown, replaced

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = """threshold = 1.0  # threshold of the neuron
time_steps = [1, 2]  # numbers of time steps
levels = 8  # quantisation steps L
share = None  # share of the data
method = "qc"  # conversion method
shift = False  # whether to shift by one half
seed = 0  # seed of every random generator
device = "auto"  # where to compute
out_dir = ""  # folder for the tables
data_dir = ""  # folder of the data set"""
BODY = """import json
from pathlib import Path
names = ("threshold", "time_steps", "levels", "share", "method", "shift", "seed", "out_dir")
values = {k: globals()[k] for k in names}
Path(out_dir).mkdir(parents=True, exist_ok=True)
(Path(out_dir) / "values.json").write_text(json.dumps(values))"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    parameters = nbformat.v4.new_code_cell(DEFAULTS, metadata={"tags": ["parameters"]})
    nb = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(BODY)])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path_factory.mktemp("notebooks") / "99_example.ipynb"
    nbformat.write(nb, path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_values_are_read_as_yaml():
    found = parse(
        [["a", "1"], ["b", "0.5"], ["c", "[1, 2]"], ["d", "true"], ["e", "qc"], ["f", "null"], ["g", "'1'"]],
        [],
        [],
    )
    assert found == {"a": 1, "b": 0.5, "c": [1, 2], "d": True, "e": "qc", "f": None, "g": "1"}


@pytest.mark.parametrize(
    "text, number",
    [("1e-4", 1e-4), ("1E5", 1e5), ("-2e+3", -2e3), ("1.5e-3", 1.5e-3), ("[1e-4, 2]", [1e-4, 2])],
)
def test_numbers_with_an_exponent_are_numbers(text, number):
    assert parse([["lr", text]], [], []) == {"lr": number}
    assert parse([], [f"lr: {text}"], []) == {"lr": number}


def test_strings_that_only_look_alike_stay_strings():
    assert parse([["a", "e-4"], ["b", "1e-4x"], ["c", "'1e-4'"], ["d", "10_name"]], [], []) == {
        "a": "e-4",
        "b": "1e-4x",
        "c": "1e-4",
        "d": "10_name",
    }


def test_nothing_is_the_empty_string(notebook, here, capsys):
    assert parse([["augment", ""], ["data_dir", ""], ["share", "null"]], [], []) == {
        "augment": "", "data_dir": "", "share": None}  # fmt: skip
    chapter = ROOT / "notebooks" / "02_energy_accounting.ipynb"
    refuse_unknown(chapter, [parse([["data_dir", ""], ["out_dir", ""]], [], [])])


@pytest.mark.parametrize(
    "name, given, ok",
    [("02_energy_accounting", "mnist", False), ("02_energy_accounting", "digits", True),
     ("02_energy_accounting", "digits,sounds", False), ("02_energy_accounting", "", False),
     ("24_sensing_modalities", "digits, sounds", True), ("24_sensing_modalities", "digits,mnist", False)],
)  # fmt: skip
def test_a_data_set_that_is_not_known_is_refused_before_anything_runs(name, given, ok):
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    if ok:
        refuse_unknown(notebook, [{"dataset": given}])
    else:
        with pytest.raises(ValueError, match="^dataset = .* is not allowed: one of .*digits, "):
            refuse_unknown(notebook, [{"dataset": given}])


def test_a_run_says_which_results_it_replaces(here):
    table = pd.DataFrame({"a": [1]})
    with example_parameters() as Example:
        runs.Run.start(Example(out_dir="first", levels=3, seed=1)).save("t", table)
        line = replaced(Example(out_dir="first", levels=4))
        assert line == "replaces the run with levels = 3, seed = 1 in first; another -p out_dir keeps both"
        assert replaced(Example(out_dir="first", levels=3, seed=1)) == replaced(Example(out_dir="new")) == ""
        Path("first/run.json").write_text("[]")
        assert replaced(Example(out_dir="first")) == ""


def test_names_on_the_command_line_win_over_yaml_over_files(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("a: 1\nb: 1\nc: 1\n")
    assert parse([["c", "3"]], ["b: 2\nc: 2"], [str(file)]) == {"a": 1, "b": 2, "c": 3}


def test_yaml_that_is_no_mapping_is_refused():
    with pytest.raises(ValueError, match="^parameters = '- 1' is not allowed: a YAML mapping of names to values$"):
        parse([], ["- 1"], [])


@pytest.mark.parametrize("words, name", [(["-p", "time_steps", "[1, 2"], "time_steps = '[1, 2'"),
                                         (["-y", "levels: [1"], "parameters = 'levels: [1'")])  # fmt: skip
def test_what_is_no_yaml_is_one_sentence(notebook, here, capsys, words, name):
    assert main(["run", str(notebook), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"snnbook: {name} is not allowed: YAML (while parsing") and said.count("\n") == 1
    assert not list(here.iterdir())


def test_a_folder_in_the_place_of_a_file_is_one_sentence(notebook, here, capsys):
    assert main(["run", str(notebook), "-f", str(here)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("snnbook: ") and str(here) in said and said.count("\n") == 1


def test_known_parameters_have_their_help(notebook):
    found = known_parameters(notebook)
    assert list(found) == [line.split(" = ")[0] for line in DEFAULTS.splitlines()]
    assert found["levels"] == "quantisation steps L"


def test_list_prints_names_and_help_and_runs_nothing(notebook, here, capsys):
    assert main(["run", str(notebook), "--list"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[2] == "levels: quantisation steps L" and len(out) == 10
    assert not list(here.iterdir())


def test_an_unknown_name_is_refused_with_the_known_ones(notebook, here, capsys):
    assert main(["run", str(notebook), "-p", "level", "4"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        "snnbook: parameter = 'level' is not allowed: 99_example.ipynb knows threshold, time_steps, levels,"
    )
    assert "Traceback" not in captured.err and not list(here.iterdir())


@pytest.mark.parametrize(
    "words, message",
    [
        (["-p", "levels", "0"], "levels = 0 is not allowed: at least 1"),
        (["-p", "levels", "4.5"], "levels = 4.5 is not allowed: a value of type int"),
        (["-p", "levels", "four"], "levels = 'four' is not allowed: a value of type int"),
        (["-p", "time_steps", "[1, 0]"], "time_steps[1] = 0 is not allowed: 1 to 64"),
        (["-p", "method", "magic"], "method = 'magic' is not allowed: one of qc, qcfs"),
        (["-p", "threshold", "-1"], "threshold = -1.0 is not allowed: 0.01 to 100"),
        (["-y", "levels: 0"], "levels = 0 is not allowed: at least 1"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_written(notebook, here, capsys, words, message):
    with example_parameters():
        assert main(["run", str(notebook), str(here / "out.ipynb"), *words, "-p", "out_dir", str(here / "out")]) == 2
    assert capsys.readouterr().err == f"snnbook: {message}\n"
    assert not list(here.iterdir())


@pytest.mark.parametrize("words", [[], ["--list"]])
def test_a_missing_notebook_is_one_sentence(here, capsys, words):
    assert main(["run", "no.ipynb", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("snnbook: ") and "no.ipynb" in captured.err and captured.err.count("\n") == 1
    assert not list(here.iterdir())


def test_a_run_executes_the_notebook_with_the_given_values(notebook, tmp_path):
    """A process of its own, as a user starts it; the output goes to the current folder by default."""
    words = [sys.executable, "-m", "snnbook", "run", notebook, "-p", "time_steps", "[4, 8]",
             "-p", "threshold", "5e-1", "-p", "method", "qcfs", "-y", "levels: 3",
             "-p", "out_dir", tmp_path / "out"]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "99_example.out.ipynb"
    executed = nbformat.read(tmp_path / "99_example.out.ipynb", 4)
    assert any("injected-parameters" in c.metadata.get("tags", []) for c in executed.cells)
    assert json.loads((tmp_path / "out" / "values.json").read_text()) == {
        "threshold": 0.5, "time_steps": [4, 8], "levels": 3, "share": None, "method": "qcfs", "shift": False,
        "seed": 0, "out_dir": str(tmp_path / "out"),
    }  # fmt: skip
