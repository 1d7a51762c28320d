"""Build the book into _build/html, executing only what has to be executed.

jupyter-cache keys on the code cells alone, so the cache is emptied whenever the package or the pinned
requirements change. A stamp over every input, written after a build without a warning, makes a second build
instant.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What the numbers of executed notebooks depend on beside their own cells.
CODE = ("snnbook", "results", "requirements.txt")
#: What the pages depend on.
TOOLS = ("tools/build.py", "tools/execute.py", "tools/snnbook_pages.py")
INPUTS = (*CODE, "notebooks", "book", "CHANGELOG.md", *TOOLS, "_config.yml", "_toc.yml")
#: Parts of a path that are never an input; the README's picture is taken of the book.
IGNORED = {"__pycache__", ".ipynb_checkpoints", "readme_page.png"}


def digest(root: Path, names: Iterable[str]) -> str:
    """SHA-256 over the relative paths and contents of the files and folders ``names`` below ``root``."""
    sha = hashlib.sha256()
    for name in names:
        top = root / name
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        for path in files:
            if not IGNORED.intersection(path.parts):
                data = path.read_bytes()
                sha.update(f"{path.relative_to(root).as_posix()}\0{len(data)}\0".encode())
                sha.update(data)
    return sha.hexdigest()


def read(path: Path) -> str:
    """Text of a stamp, "" where there is none."""
    return path.read_text().strip() if path.is_file() else ""


def forget_old_executions(root: Path) -> bool:
    """Empty the cache of executed notebooks if ``CODE`` has changed since; say whether it had."""
    stamp, code = root / "_build" / "code.stamp", digest(root, CODE)
    if read(stamp) == code:
        return False
    shutil.rmtree(root / "_build" / ".jupyter_cache", ignore_errors=True)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(code)
    return True


def up_to_date(root: Path) -> bool:
    """Whether the built book belongs to the inputs as they are."""
    index = root / "_build" / "html" / "index.html"
    return index.is_file() and read(root / "_build" / "book.stamp") == digest(root, INPUTS)


def jupyter_book(root: Path) -> int:
    """Execute notebooks, then run Jupyter Book over the repository's root; its exit status (1 after any warning)."""
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # Threads that wait for each other sleep: spinning ones take the cores from other programs on a busy machine.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        # glibc keeps freed activations instead of handing each back to the system and faulting it in again.
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
    }
    subprocess.call([sys.executable, "-W", "ignore", str(root / "tools" / "execute.py")], cwd=root, env=environment)
    command = [str(scripts / "jupyter-book"), "build", ".", "-W", "-n", "--keep-going", "--all"]
    return subprocess.call(command, cwd=root, env=environment)


def build(root: Path, run=jupyter_book) -> int:
    """Build unless up to date; 0 only for a complete book without a warning.

    The old pages go first, so that nothing looks like a finished book before ``run`` has succeeded and no page of
    a removed chapter stays.
    """
    if up_to_date(root):
        print("The book is up to date: _build/html/index.html")
        return 0
    stamp, html = root / "_build" / "book.stamp", root / "_build" / "html"
    stamp.unlink(missing_ok=True)
    shutil.rmtree(html, ignore_errors=True)
    forget_old_executions(root)
    inputs = digest(root, INPUTS)
    if run(root) != 0:
        (html / "index.html").unlink(missing_ok=True)
        print("The book was not built: the first message above that names a file says why.", file=sys.stderr)
        return 1
    stamp.write_text(inputs)
    print("The book is built: _build/html/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(build(ROOT))
