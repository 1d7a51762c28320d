"""The files of this package, as they were when this process started and as they are now.

What a process keeps for later ones (trained networks, tables, features) goes under a name that says which code made
it. A process runs the code that it imported, so an edited file must not give that name.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent

#: Modules that decide no measured number: keys name parameters and data by their values.
APART = frozenset({"checks", "fields", "papers", "params", "runs", "side_by_side", "sources"})


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


def imported(module: str) -> set[str]:
    """Modules of this package from which ``module`` ("train", "data/core") imports anything, wherever in its file."""
    names = set(digests())
    texts = ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
    found = (_first(names, name) for node in texts for name in _imports(node, module))
    return {name for name in found if name}


def _imports(node: ast.AST, module: str) -> Iterator[str]:
    """What a statement in ``module`` imports of this package, as it would be named as a module: "data/core/Split"."""
    if isinstance(node, ast.Import):
        own = (a.name.partition(".") for a in node.names)
        yield from (rest.replace(".", "/") for top, _, rest in own if top == __package__)
    if isinstance(node, ast.ImportFrom):
        path = [__package__, *module.split("/")][: -node.level] if node.level else []
        path += node.module.split(".") if node.module else []
        if path[0] == __package__:
            yield from ("/".join([*path[1:], a.name]) for a in node.names)


def _first(names: set[str], wanted: str) -> str | None:
    """The module that "data/core/Split" comes from: one of that name, the one above, or the package above."""
    above = wanted.rpartition("/")[0]
    return next((n for n in (wanted, above, f"{wanted}/__init__", f"{above}/__init__") if n in names), None)


@cache
def behind(module: str) -> tuple[str, ...]:
    """The modules of this package on which a measurement that ``module`` makes rests.

    It and all that they import, one through the other, but for ``APART``, the package itself and what loads data:
    a key names the data by what is in them.
    """
    found, left = set(), [module]
    while left:
        name = left.pop()
        loads = name.startswith("data/") and name not in ("data/__init__", "data/core")
        if name not in found and name not in APART and name != "__init__" and not loads:
            found.add(name)
            left += imported(name)
    return tuple(sorted(found))


def package_hash() -> str:
    """sha256 over what all modules do as their files are now, which is what a process started now runs."""
    texts = (f"{name}\n{meaning((PACKAGE / f'{name}.py').read_text(encoding='utf-8'))}" for name in digests())
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
