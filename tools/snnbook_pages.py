"""Sphinx extension of this book: the API page, docstrings as written, buttons that need a repository."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from functools import cache
from itertools import groupby

from sphinx_codeautolink.extension.block import CodeBlockAnalyser

import snnbook

SECTION = re.compile(r"(Args|Attributes|Example|Examples|Note|Raises|Returns|Yields):$")
CODE = re.compile(r"(?::[a-z:]+:)?(`{1,2})~?(.+?)\1(?!`)")
MARKUP = re.compile(r"([\\*_`|])")
BULLET = re.compile(r"(-|\d+\.) ")

#: Page of the modules that are in no package of their own.
ROOT_PAGE = "book/api/snnbook"


def api_modules() -> list[str]:
    """Every module of the package by dotted name, packages before what they hold."""
    found = pkgutil.walk_packages(snnbook.__path__, "snnbook.")
    return ["snnbook"] + sorted(m.name for m in found if not m.name.rpartition(".")[2].startswith("_"))


@cache
def packages() -> set[str]:
    """Names of the packages in ``snnbook``."""
    return {m.name for m in pkgutil.iter_modules(snnbook.__path__) if m.ispkg}


def page_of(module: str) -> str:
    """The page of a module: one for each package, and ``ROOT_PAGE`` for the modules of none."""
    name = module.split(".")[1:2]
    return f"book/api/{name[0]}" if packages().intersection(name) else ROOT_PAGE


def summary(module: str) -> str:
    """First line of a module's docstring as Markdown."""
    return CODE.sub(r"`\2`", inspect.getdoc(importlib.import_module(module)).splitlines()[0])


def api_overview() -> str:
    """MyST text with a list of all modules, page by page."""
    lines: list[str] = []
    for page, modules in groupby(sorted(api_modules(), key=lambda m: (page_of(m) != ROOT_PAGE, m)), key=page_of):
        name = page.rpartition("/")[2]
        lines += ["", "## Modules of the root" if page == ROOT_PAGE else f"## `snnbook.{name}`", ""]
        lines += [f"- {{ref}}`{m} <{m}>`: {summary(m)}" for m in modules]
    return "\n".join(lines) + "\n"


def api_source(page: str) -> str:
    """MyST text with one section and one ``automodule`` for each module of a page."""
    directive = ".. automodule:: {0}\n   :members:\n   :ignore-module-all:\n"
    entry = "\n({0})=\n## `{0}`\n\n```{{eval-rst}}\n" + directive + "```\n"
    return "".join(entry.format(name) for name in api_modules() if page_of(name) == page)


def add_api(app, docname: str, source: list[str]) -> None:
    """Append the list of modules to the page book/api, and the modules to those below it (event ``source-read``)."""
    if docname == "book/api":
        source[0] += api_overview()
    elif docname.startswith("book/api/"):
        source[0] += api_source(docname)


def escape(text: str) -> str:
    """Text of a docstring as reStructuredText that shows it as written; roles and backticks become code."""
    out, end = [], 0
    for code in CODE.finditer(text):
        before, after = text[: code.start()][-1:], text[code.end() :][:1]
        out += [MARKUP.sub(r"\\\1", text[end : code.start()]), "\\ " * before.isalnum()]
        out += [f"``{code[2]}``", "\\ " * after.isalnum()]
        end = code.end()
    return "".join(out) + MARKUP.sub(r"\\\1", text[end:])


def as_written(lines: list[str]) -> list[str]:
    """Docstring lines as reStructuredText without surprises: indented displays become literal blocks."""
    out: list[str] = []
    state = "text"
    for line in lines:
        if state == "doctest" and not line.strip():
            state = "text"
        if line.startswith(">>> ") or state == "doctest":
            out += [""] if state == "literal" else []
            state = "doctest"
        elif line.strip() and not line.startswith(" "):
            out += [""] if state == "literal" else []
            state = "section" if SECTION.match(line) else "bullet" if BULLET.match(line) else "text"
        elif line.strip() and state == "text":
            out += ["", "::", ""]
            state = "literal"
        out.append(line if state in ("literal", "doctest") else escape(line))
    return out


def docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Event ``autodoc-process-docstring``, before napoleon reads the sections."""
    lines[:] = as_written(lines)


def skip(app, what, name, obj, would_skip, options):
    """Leave out the fields of named tuples: their class's docstring says what they are."""
    return True if (getattr(obj, "__doc__", "") or "").startswith("Alias for field number") else None


def repository_buttons(app, config) -> None:
    """Show the buttons that lead to the repository, if there is one (event ``config-inited``)."""
    options = config.html_theme_options
    if options.get("repository_url"):
        buttons = ("repository", "issues", "edit_page", "source")
        options.update({f"use_{name}_button": True for name in buttons})
        options["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
        }


def version(app, config) -> None:
    """Give the book the package's version, and show it at the foot of each page (event ``config-inited``)."""
    config.version = config.release = snnbook.__version__
    footer = config.html_theme_options.get("extra_footer", "")
    config.html_theme_options["extra_footer"] = f"{footer} Version {snnbook.__version__}."


def launch_buttons(app, pagename, templatename, context, doctree) -> None:
    """Lead Colab to the copies with a cell that installs the package (event ``html-page-context``).

    They are on the branch ``colab``, which the workflow ``pages`` writes with tools/colab.py. Pages that are Markdown
    with code have no launch buttons: neither Colab nor Binder opens those as notebooks.
    """
    groups = context.get("header_buttons", [])
    branch = app.config.html_theme_options.get("repository_branch") or "master"
    for group in [g for g in groups if g.get("label") == "launch-buttons"]:
        if not str(app.env.doc2path(pagename)).endswith(".ipynb"):
            groups.remove(group)
        for button in group["buttons"]:
            if button["text"] == "Colab":
                button["url"] = button["url"].replace(f"/blob/{branch}/", "/blob/colab/", 1)


def without_thebe(app, pagename, templatename, context, doctree) -> None:
    """Leave out Jupyter Book's scripts for live code, whose loader lives on a CDN (``html-page-context``)."""
    scripts = context["script_files"]
    context["script_files"] = [s for s in scripts if "thebe" not in f"{s.filename}{s.attributes}".lower()]


def only_modules_with_source(app) -> list:
    """Leave modules without a page of source, such as ``builtins``, out of the list (event ``html-collect-pages``)."""
    modules = getattr(app.env, "_viewcode_modules", {})
    for name in [name for name, found in modules.items() if not found]:
        del modules[name]
    return []


def _leave_section(analyser, node) -> None:
    """End of a section for sphinx-codeautolink, which expects a title in each; an exercise has none."""
    del analyser.title_stack[-1:]


def setup(app) -> dict:
    """Connect the events."""
    CodeBlockAnalyser.depart_section = _leave_section
    app.connect("config-inited", repository_buttons, priority=100)
    app.connect("config-inited", version, priority=100)
    app.connect("source-read", add_api)
    app.connect("html-collect-pages", only_modules_with_source, priority=100)
    app.connect("html-page-context", without_thebe, priority=900)
    app.connect("html-page-context", launch_buttons, priority=901)
    app.connect("autodoc-process-docstring", docstring, priority=100)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
