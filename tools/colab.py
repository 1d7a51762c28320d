"""Copies of the notebooks for Colab, _build/colab/notebooks, each with a first code cell that installs the package.

    .venv/bin/python tools/colab.py

The notebooks of the repository need no such cell: everywhere else the package is installed already. The workflow
``pages`` publishes the copies on the branch ``colab``, where the book's Colab buttons lead. The address to install from
is ``repository`` in _config.yml; while that is empty there is nothing to copy.
"""

from __future__ import annotations

import copy
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
#: What Colab has in versions that fit each other; the rest of the package's needs is installed as pinned.
PROVIDED = {
    "torch", "torchvision", "torchaudio", "numpy", "scipy", "pandas", "scikit-learn", "pillow", "matplotlib", "tqdm",
    "PyYAML", "psutil", "ipywidgets", "soundfile",
}  # fmt: skip
#: What notebooks import themselves.
NOTEBOOKS_NEED = ["myst-nb"]
CELL = """\
# Only in Colab: the package and the rest of what it needs.
import sys
if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 --branch {branch} {url} /content/snnbook
    !pip install --quiet {pins}
    !pip install --quiet --no-deps --editable /content/snnbook
    sys.path.insert(0, "/content/snnbook")
    %cd /content/snnbook/notebooks"""


def pins(root: Path) -> list[str]:
    """``name==version`` of what the package needs and Colab does not have."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = re.findall(r"^([\w.-]+)==(\S+)$", (root / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    versions = dict(found)
    needed = [name for name in project["dependencies"] if name not in PROVIDED]
    return [f"{name}=={versions[name]}" for name in [*needed, *NOTEBOOKS_NEED]]


def with_bootstrap(notebook: nbformat.NotebookNode, source: str) -> nbformat.NotebookNode:
    """A copy of ``notebook`` with the cell ``source`` behind its title."""
    notebook = copy.deepcopy(notebook)
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["remove-cell"]}, id="colab-bootstrap")
    notebook.cells.insert(1, cell)
    return notebook


def write(root: Path, output: Path) -> list[Path]:
    """Write the copies below ``output``; none, and no folder, while there is no repository."""
    shutil.rmtree(output, ignore_errors=True)
    repository = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    if not repository["url"]:
        return []
    source = CELL.format(url=repository["url"], branch=repository["branch"], pins=" ".join(pins(root)))
    written = []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        target = output / "notebooks" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(with_bootstrap(nbformat.read(path, as_version=4), source), target)
        written.append(target)
    return written


if __name__ == "__main__":
    copies = write(ROOT, ROOT / "_build" / "colab")
    print(f"{len(copies)} copies for Colab" if copies else "No copies: repository.url in _config.yml is empty.")
