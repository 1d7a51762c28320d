"""Parameter files of recorded runs: values that the notebooks take, and a folder of results each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from snnbook import params
from snnbook.__main__ import parse

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "benchmarks" / "recipes").glob("*/*.yml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recipes_are_allowed_values_of_their_notebook(path):
    assert (ROOT / "notebooks" / f"{path.parent.name}.ipynb").is_file()
    given = parse([], [], [str(path)])
    read = params.by_notebook()[path.parent.name](**given)
    assert read.asdict() | given == read.asdict()
    assert given["out_dir"].startswith("results/") and given["dataset"] in path.stem
    assert "width" in given or not hasattr(read, "width")  # the default is that of a small network


def test_recipes_write_to_different_folders_unless_they_are_sizes_of_one_run():
    folders = Counter(parse([], [], [str(path)])["out_dir"] for path in RECIPES if "quarter" not in path.stem)
    assert RECIPES and max(folders.values()) == 1
