"""The files of this package, as they were when this process started and as they are now.

What a process keeps for later ones (trained networks, tables, features) goes under a name that says which code made
it. A process runs the code that it imported, so an edited file must not give that name.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent


def digests() -> dict[str, str]:
    """sha256 of each module's file as it is now, by module: "train", "data/core"."""
    files = {f.relative_to(PACKAGE).with_suffix("").as_posix(): f for f in sorted(PACKAGE.rglob("*.py"))}
    return {module: hashlib.sha256(file.read_bytes()).hexdigest() for module, file in files.items()}


#: The files when this process started, which are what it runs.
NOTED = digests()


def meaning(text: str) -> str:
    """The syntax tree of a module without docstrings, comments and layout."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(getattr(body[0].value, "value", None), str):
                body[0] = ast.Pass()
    return ast.dump(tree)


def running(module: str) -> str:
    """The :func:`meaning` of ``module`` ("train", "data/core"), which is what this process runs.

    Raises:
        FileNotFoundError: if there is no such module.
        ValueError: if its file has changed since this process started.
    """
    content = (PACKAGE / f"{module}.py").read_bytes()
    if hashlib.sha256(content).hexdigest() != NOTED.get(module):
        text = "start it again, so that what old code computes is not kept as the new code's"
        raise ValueError(f"{module}.py has changed since this process started: {text}")
    return meaning(content.decode())


def package_hash() -> str:
    """sha256 over what all modules do as their files are now, which is what a process started now runs."""
    texts = (f"{name}\n{meaning((PACKAGE / f'{name}.py').read_text(encoding='utf-8'))}" for name in digests())
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
