"""Chapters' MyST as plain Markdown that JupyterLab shows: directives, roles and glued numbers become text.

What the book numbers is numbered again within a notebook: "Figure 3", "(2)", "Exercise 1".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

BLOCK = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
OPTION = re.compile(r"\A:(?P<key>[\w-]+):[ \t]*(?P<value>[^\n]*)\n")
ROLE = re.compile(r"\{(?P<role>[a-z:]+)\}`(?P<text>[^`]+)`")
GLUED = "application/papermill.record/"
#: Shown as a quotation with a bold title.
BOXES = ("admonition", "note", "tip", "warning", "important", "hint", "caution", "seealso")


@dataclass
class Names:
    """What roles may point at, over all chapters: label to (notebook's stem, text)."""

    titles: dict[str, str] = field(default_factory=dict)
    labels: dict[str, tuple[str, str]] = field(default_factory=dict)
    glued: dict[tuple[str, str], str] = field(default_factory=dict)


def options(body: str) -> tuple[dict[str, str], str]:
    """The leading ``:key: value`` lines of a directive's body, and the rest."""
    found = {}
    while match := OPTION.match(body):
        found[match["key"]] = match["value"]
        body = body[match.end() :]
    return found, body.strip("\n")


def title_of(notebook) -> str:
    """Text of the first heading."""
    return re.match(r"# (.+)", notebook.cells[0].source)[1]


def figure_of(cell) -> dict:
    """Caption and name of a code cell's figure, {} without one."""
    return cell.metadata.get("mystnb", {}).get("figure", {})


def collect(notebooks: dict[str, nbformat.NotebookNode]) -> Names:
    """Titles, labels and glued values of notebooks by stem."""
    names = Names()
    for stem, notebook in notebooks.items():
        names.titles[stem] = title_of(notebook)
        numbers = {"figure": 0, "equation": 0, "exercise": 0}
        for cell in notebook.cells:
            if cell.cell_type == "code":
                _collect_code(names, stem, cell, numbers)
            else:
                _collect_markdown(names, stem, cell.source, numbers)
    return names


def _collect_code(names: Names, stem: str, cell, numbers: dict[str, int]) -> None:
    if "name" in figure_of(cell):
        numbers["figure"] += 1
        names.labels[figure_of(cell)["name"]] = stem, f"Figure {numbers['figure']}"
    for output in cell.outputs:
        key = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if key and f"{GLUED}text/plain" in output.data:
            names.glued[stem, key] = output.data[f"{GLUED}text/plain"].strip("'\"")


def _collect_markdown(names: Names, stem: str, source: str, numbers: dict[str, int]) -> None:
    for label in re.findall(r"^(?::label: |\$\$ \()(eq-[\w-]+)", source, re.MULTILINE):
        numbers["equation"] += 1
        names.labels[label] = stem, f"({numbers['equation']})"
    for match in BLOCK.finditer(source):
        label = options(match["body"])[0].get("label")
        if label and match["name"] == "exercise":
            numbers["exercise"] += 1
            names.labels[label] = stem, f"Exercise {numbers['exercise']}"
        elif label and match["name"] != "math":
            names.labels[label] = stem, match["title"] or match["name"].rpartition(":")[2]
    for target, heading in re.findall(r"^\(([\w-]+)\)=\n+#+ (.+)$", source, re.MULTILINE):
        names.labels[target] = stem, heading


def plain(source: str, stem: str, names: Names) -> str:
    """The Markdown of one cell of the notebook ``stem`` without MyST."""
    text = re.sub(r"^\([\w-]+\)=\n", "", source, flags=re.MULTILINE)
    text = BLOCK.sub(lambda match: block(match, stem, names), text)
    text = re.sub(r"^\$\$ \((eq-[\w-]+)\)$", lambda m: tag_of(m[1], names) + "\n$$", text, flags=re.MULTILINE)
    text = re.sub(r"^(\S[^\n]*)\n: +", r"**\1**: ", text, flags=re.MULTILINE)
    text = ROLE.sub(lambda match: role(match["role"], match["text"], stem, names), text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def tag_of(label: str, names: Names) -> str:
    """The number of an equation for MathJax."""
    return f"\\tag{{{names.labels[label][1].strip('()')}}}"


def block(match: re.Match, stem: str, names: Names) -> str:
    """One directive as Markdown; code fences with a language are no directives and stay."""
    name, title = match["name"], match["title"].strip()
    settings, body = options(match["body"])
    label = settings.get("label", "")
    number = names.labels.get(label, ("", ""))[1]
    if name in BOXES:
        inner = BLOCK.sub(lambda m: block(m, stem, names), body)
        return "\n".join(f"> {line}".rstrip() for line in [f"**{title or name.capitalize()}**", "", *inner.split("\n")])
    if name == "math":
        split = "\\\\" in body and "\\begin{" not in body
        body = f"\\begin{{split}}\n{body}\n\\end{{split}}" if split else body
        return "\n".join(["$$", body, *([tag_of(label, names)] if number else []), "$$"])
    if name == "exercise":
        return f"### {number}: {title}\n\n{body}"
    if name in ("solution", "solution-start"):
        return f"**Solution to {names.labels.get(title, ('', title))[1]}.**\n\n{body}".strip("\n")
    if name.startswith("prf:"):
        return f"**{name[4:].capitalize()}{f' ({title})' if title else ''}.** {body}"
    if name == "raw":
        return "*The explorer that belongs here is on the page of this chapter in the book.*"
    return "" if name == "solution-end" else body


def role(kind: str, text: str, stem: str, names: Names) -> str:
    """One role as Markdown: links between notebooks, numbers of figures and equations, values, authors."""
    shown, target = re.fullmatch(r"(?:(.*?)\s*<)?([^<>]+)>?", text, re.DOTALL).groups()
    if kind == "doc":
        other = Path(target).name
        if other in names.titles:
            return f"[{shown or names.titles[other]}]({other}.ipynb)"
        return f"[{shown or f'the page “{other}”'}](../../html/book/{other}.html)"
    if kind == "glue:text":
        return glued(text, stem, names)
    if kind.startswith("cite"):
        return ", ".join(author(key, kind) for key in text.split(","))
    if kind.startswith("py:"):
        return f"`{target.lstrip('~')}`"
    home, words = names.labels.get(target, (stem, target))
    there = "" if home == stem else f" of [{names.titles[home]}]({home}.ipynb)"
    return (shown or words) + there


def glued(text: str, stem: str, names: Names) -> str:
    """A glued value in the format that the prose asks for."""
    page, _, rest = text.rpartition("::")
    key, _, spec = rest.partition(":")
    value = names.glued.get((Path(page).stem if page else stem, key), f"[{key}]")
    return format(float(value), spec) if spec and not value.startswith("[") else value


def author(key: str, kind: str) -> str:
    """``yu2024ecsnn`` as "Yu (2024)" within a sentence or "(Yu 2024)" beside it."""
    match = re.match(r"([a-z-]+)(\d{4})", key.strip())
    name, year = (match[1].capitalize(), match[2]) if match else (key.strip(), "")
    return f"{name} ({year})" if kind == "cite:t" else f"({name} {year})"
