"""The committed notebooks: executed, described, parameterised, and free of logic."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError

from snnbook import fields, params

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(home|root|tmp|work|Users|private)/")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def images(cell) -> list:
    return [o for o in cell.outputs if any(kind.startswith("image/") for kind in o.get("data", {}))]


def test_contents_list_every_notebook():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    assert {f for f in files if f.startswith("notebooks/")} == {f"notebooks/{p.stem}" for p in NOTEBOOKS}
    assert NOTEBOOKS


def test_executed_from_top_to_bottom(notebook):
    """nbval compares nothing in a cell without a count."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_valid_with_the_plain_kernel_and_cell_ids(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.get("id") for cell in notebook.cells]
    assert all(ids) and len(set(ids)) == len(ids)


def test_outputs_have_no_error_no_warning_and_no_machine_path(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert not MACHINE_PATH.search(nbformat.writes(notebook))


def test_all_claims_of_the_text_hold_for_the_outputs_beside_it(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert fields.CLAIM_FAILS not in [output.get("data", {}).get("text/markdown") for output in outputs]


def test_claims_do_not_stop_a_notebook_and_are_not_compared(notebook):
    for cell in code_cells(notebook):
        if "p.claims()" in cell.source:
            assert "nbval-ignore-output" in tags(cell)
        assert "if p.as_printed():\n    assert" not in cell.source


def test_starts_with_title_and_goals_then_parameters(notebook):
    assert re.match(r"# \S", notebook.cells[0].source)
    assert re.search(r"goals|able to do", notebook.cells[0].source)
    assert [i for i, cell in enumerate(notebook.cells) if "parameters" in tags(cell)] == [1]


def test_parameters_are_plain_literals_with_help_and_equal_the_dataclass(path, notebook):
    names = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(notebook.cells[1].source).body}
    described = papermill.inspect_notebook(str(path))
    cls = params.by_notebook()[path.stem]
    assert list(described) == list(names) == list(cls.help())
    assert all(d["help"].strip() for d in described.values())
    assert names == cls().asdict()


def test_every_figure_has_caption_name_and_alt_text(notebook):
    for cell in code_cells(notebook):
        if images(cell):
            figure, image = (cell.metadata["mystnb"][kind] for kind in ("figure", "image"))
            assert len(figure["caption"]) > 20 and figure["name"].startswith("fig-") and len(image["alt"]) > 20
            assert len(images(cell)) == 1, "one picture a cell: caption and number go to each"
            assert cell.source.rstrip().endswith("plt.show()")


def test_names_of_figures_are_unique():
    cells = [cell for path in NOTEBOOKS for cell in code_cells(nbformat.read(path, as_version=4))]
    names = [cell.metadata.mystnb.figure.name for cell in cells if "figure" in cell.metadata.get("mystnb", {})]
    assert names and len(set(names)) == len(names)


def test_notebooks_define_no_logic_but_solutions(notebook):
    for cell in code_cells(notebook):
        if "solution" in tags(cell):
            continue
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not [node.name for node in ast.walk(ast.parse(cell.source)) if isinstance(node, defined)]


def test_outputs_that_are_not_compared_are_followed_by_an_assertion(notebook):
    loose = False
    for cell in code_cells(notebook):
        if "assert " in cell.source:
            loose = False
        elif "nbval-ignore-output" in tags(cell) and not images(cell):
            loose = True
        else:
            assert not loose, cell.source
    assert not loose


def test_value_of_the_wrong_type_stops_in_the_cell_after_the_parameters(tmp_path):
    """papermill injects whatever it is given; the dataclass names the value, and nothing is written."""
    path, out = NOTEBOOKS[0], tmp_path / "tables"
    given = {"seed": "seven", "out_dir": str(out)}
    with pytest.raises(PapermillExecutionError, match="seed = 'seven' is not allowed") as raised:
        papermill.execute_notebook(
            str(path), str(tmp_path / "out.ipynb"), given, cwd=str(path.parent), progress_bar=False
        )
    # title, parameters, injected parameters, then the cell that reads them
    assert raised.value.cell_index == 3
    assert not out.exists()
