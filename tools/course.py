"""Write the course from the book: notebooks for students and for instructors, and a deck of slides a meeting.

All come from one source. A checked exercise is a text with a stub, followed by a solution cell whose last line checks
it: the student's notebook gets the stub and the check, the instructor's gets the solution with its output. Everything
is written to a folder beside _build/course that takes its place when it is complete, unless somebody has worked in
what was written before.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import nbformat
import yaml
from jupyter_cache import get_cache
from nbformat import v4

sys.path.insert(0, str(Path(__file__).resolve().parent))

import plain_markdown as md
import slides

ROOT = Path(__file__).resolve().parent.parent
STUB = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SOLUTION = re.compile(
    r"^```\{solution-start\}.*?(?:^```\{solution-end\}\n```|\Z)|^(?P<f>`{3,})\{solution\}.*?^(?P=f)$",
    re.DOTALL | re.MULTILINE,
)
MANIFEST = "written.json"
IMPORT = "from snnbook.exercises import check"


def tags(cell) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def read_notebooks(root: Path) -> dict[str, nbformat.NotebookNode]:
    """The chapters by their notebooks' stems, in the order of the book."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    names = [file for file in files if file.startswith("notebooks/")]
    return {Path(name).stem: nbformat.read(root / f"{name}.ipynb", as_version=4) for name in names}


def chapter_numbers(root: Path) -> dict[str, int]:
    """The book's numbers of chapters by stem: it counts those of numbered parts through."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] if part.get("numbered") for chapter in part["chapters"]]
    return {Path(file).stem: number for number, file in enumerate(files, 1)}


def read_names(root: Path, notebooks: dict[str, nbformat.NotebookNode]) -> md.Names:
    """What the chapters may point at: one another, the bibliography, and the published book if there is one."""
    names = md.collect(notebooks, chapter_numbers(root))
    names.works = md.bibliography(root / "book" / "references.bib")
    names.address = yaml.safe_load((root / "_config.yml").read_text())["html"].get("baseurl", "")
    return names


def stubs(notebook) -> dict[str, str]:
    """The stub of each checked exercise by label."""
    found = {}
    for match in (m for c in notebook.cells if c.cell_type == "markdown" for m in md.BLOCK.finditer(c.source)):
        settings, body = md.options(match["body"])
        if match["name"] == "exercise" and (stub := STUB.search(body)):
            found[settings["label"]] = stub[1].strip("\n")
    return found


def checked(cell) -> str:
    """Label that the last line of a solution cell checks; "" for other cells."""
    match = re.match(r'check\("([\w-]+)"', cell.source.rstrip().splitlines()[-1]) if "solution" in tags(cell) else None
    return match[1] if match else ""


def stub_cell(cell, found: dict[str, str]):
    """The code cell in which a student answers: imports, stub, check. Its error does not stop a run of all cells."""
    label = checked(cell)
    source = "\n\n\n".join([IMPORT, found[label], cell.source.rstrip().splitlines()[-1]])
    return v4.new_code_cell(source, id=cell.id, metadata={"tags": ["stub", "raises-exception"]})


def without_solutions(notebook) -> list:
    """Cells of a chapter without solutions; a stub stands where a checked solution was."""
    found, cells, inside = stubs(notebook), [], False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if checked(cell):
                cells.append(stub_cell(cell, found))
            elif not inside and "solution" not in tags(cell):
                cells.append(cell)
            continue
        text = cell.source
        if inside and "{solution-end}" in text:
            text, inside = re.split(r"^```\{solution-end\}\n```$", text, maxsplit=1, flags=re.MULTILINE)[1], False
        elif inside:
            continue
        inside = text.rfind("{solution-start}") > text.rfind("{solution-end}")
        text = STUB.sub("", SOLUTION.sub("", text)) if "{exercise}" in text else SOLUTION.sub("", text)
        if text.strip():
            cells.append(v4.new_markdown_cell(text, id=cell.id))
    return cells


def shown(cells: list, stem: str, names: md.Names) -> list:
    """Cells for JupyterLab: plain Markdown, and the caption below each figure."""
    out = []
    for cell in cells:
        if cell.cell_type == "markdown":
            text = md.plain(cell.source, stem, names)
            out += [v4.new_markdown_cell(text, id=cell.id)] if text else []
            continue
        out.append(cell)
        if "name" in (figure := md.figure_of(cell)):
            caption = f"**{names.labels[figure['name']][1]}.** {figure['caption']}"
            out.append(v4.new_markdown_cell(md.plain(caption, stem, names), id=f"caption-{cell.id}"[:64]))
    works = md.references([md.figure_of(cell).get("caption", cell.source) for cell in cells], names)
    return out + ([v4.new_markdown_cell(works, id="references")] if works else [])


def cleared(cell):
    """A cell without what its last run left."""
    return v4.new_code_cell(cell.source, id=cell.id, metadata=cell.metadata) if cell.cell_type == "code" else cell


def student(notebook, stem: str, names: md.Names):
    """A chapter without solutions and without outputs, which are for predicting."""
    cells = [cleared(cell) for cell in without_solutions(notebook)]
    return v4.new_notebook(cells=shown(cells, stem, names), metadata=notebook.metadata)


def instructor(notebook, stem: str, names: md.Names, note: str):
    """A chapter with solutions, their outputs, and a teaching note below the title."""
    cells = shown(notebook.cells, stem, names)
    cells.insert(1, v4.new_markdown_cell(note, id="teaching-note"))
    return v4.new_notebook(cells=cells, metadata=notebook.metadata)


def seconds(root: Path) -> dict[str, float]:
    """Seconds that each chapter took when the book on this machine executed it, by stem."""
    folder = root / "_build" / ".jupyter_cache"
    records = get_cache(folder).list_cache_records() if folder.is_dir() else []
    return {Path(record.uri).stem: float(record.data.get("execution_seconds", "nan")) for record in records}


def teaching_note(stem: str, notebook, plan: dict, time: float | None) -> str:
    """What an instructor wants to know of a chapter: meeting, time to execute, exercises, and what to look out for."""
    meetings = [str(n) for n, meeting in enumerate(plan["meetings"], 1) if stem in meeting["chapters"]]
    labels = [checked(cell) for cell in notebook.cells if checked(cell)]
    total = sum(cell.source.count("{exercise}") for cell in notebook.cells if cell.cell_type == "markdown")
    place = (
        f"Meeting {' and '.join(meetings)} of the course" if meetings else "Further reading, in none of the meetings"
    )
    took = f"{time:.0f} s when this machine built the book" if time else "not measured, run `make book` first"
    return "\n".join(
        [
            f"> **Teaching note.** {place}.",
            f"> - Time to execute: {took}. Trained networks are kept, so that a first run may take longer.",
            f"> - Exercises: {total}, of which {len(labels)} are checked by code: {', '.join(labels)}.",
            f"> - {plan['notes'][stem]}",
        ]
    )


def write_notebooks(root: Path, out: Path, plan: dict) -> None:
    """The student's and the instructor's notebooks into two folders below ``out``."""
    notebooks = read_notebooks(root)
    names, times = read_names(root, notebooks), seconds(root)
    for kind in ("student", "instructor"):
        (out / kind).mkdir()
    for stem, notebook in notebooks.items():
        note = teaching_note(stem, notebook, plan, times.get(stem))
        nbformat.write(student(notebook, stem, names), out / "student" / f"{stem}.ipynb")
        nbformat.write(instructor(notebook, stem, names, note), out / "instructor" / f"{stem}.ipynb")


def digests(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder by its path there, without the manifest and what JupyterLab keeps itself."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    own = {name for name in files if name == MANIFEST or ".ipynb_checkpoints" in name}
    return {name: sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items()) if name not in own}


def refuse_changes(target: Path) -> None:
    """FileExistsError if files of ``target`` were changed or added since it was written."""
    manifest = target / MANIFEST
    written = json.loads(manifest.read_text()) if manifest.is_file() else {}
    changed = [name for name, digest in digests(target).items() if written.get(name) != digest]
    if changed:
        names = ", ".join(changed[:10]) + (f" and {len(changed) - 10} more" if len(changed) > 10 else "")
        raise FileExistsError(
            f"{target} has files that were changed or added since it was written, and writing it again would remove "
            f"them: {names}. Move the folder, or these files, away and try again."
        )


def write(root: Path, html: Path, target: Path) -> None:
    """All of the course into ``target``, whole or not at all.

    Raises:
        FileExistsError: if somebody changed or added files in ``target``, which then stays as it is.
        ValueError: if a chapter lacks its teaching note, or a slide asks for something that the book does not have.
    """
    plan = yaml.safe_load((root / "book" / "course" / "course.yml").read_text())
    missing = sorted(set(read_notebooks(root)) - set(plan["notes"]))
    if missing:
        raise ValueError(f"notes in book/course/course.yml lack {', '.join(missing)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        new = Path(folder) / "new"
        new.mkdir()
        write_notebooks(root, new, plan)
        slides.write(html, new / "slides", plan)
        (new / MANIFEST).write_text(json.dumps(digests(new), indent=0))
        if target.exists():
            refuse_changes(target)
            target.rename(Path(folder) / "old")
        new.rename(target)


def main(root: Path = ROOT) -> int:
    """Write _build/course; 1 with a sentence if the book is not built or if somebody worked in what was written."""
    html, target = root / "_build" / "html", root / "_build" / "course"
    if not (html / "index.html").is_file():
        print("The slides are made from the book, which is not built: run make book first.", file=sys.stderr)
        return 1
    try:
        write(root, html, target)
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 1
    print("The course is written: _build/course/student, instructor and slides/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
