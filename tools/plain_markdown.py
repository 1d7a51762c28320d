"""Chapters' MyST as plain Markdown that JupyterLab shows: directives, roles and glued numbers become text.

Numbers are those of the book: "Figure 10.3", "(10.2)", "Exercise 10.1".
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import nbformat
from sphinxcontrib.bibtex.bibfile import parse_bibdata

BLOCK = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
OPTION = re.compile(r"\A:(?P<key>[\w-]+):[ \t]*(?P<value>[^\n]*)\n")
ROLE = re.compile(r"\{(?P<role>[a-z:]+)\}`(?P<text>[^`]+)`")
CITE = re.compile(r"\{cite(?::[a-z]+)?\}`([^`]+)`")
GLUED = "application/papermill.record/"
#: Where a work appeared: the first of these that it has.
PLACES = ("journal", "booktitle", "publisher", "institution", "howpublished", "note")
#: Shown as a quotation with a bold title.
BOXES = ("admonition", "note", "tip", "warning", "important", "hint", "caution", "seealso")


class Work(NamedTuple):
    """A cited work: "Hao et al.", "2023a", and its line in a list of references."""

    authors: str
    year: str
    entry: str


@dataclass
class Names:
    """What roles may point at, over all chapters: label to (notebook's stem, text).

    ``chapters`` has the book's number of each numbered chapter, ``works`` the bibliography by key, and ``address`` is
    where the book is published, "" if it is not.
    """

    titles: dict[str, str] = field(default_factory=dict)
    labels: dict[str, tuple[str, str]] = field(default_factory=dict)
    glued: dict[tuple[str, str], str] = field(default_factory=dict)
    chapters: dict[str, int] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    address: str = ""


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


def collect(notebooks: dict[str, nbformat.NotebookNode], chapters: dict[str, int] | None = None) -> Names:
    """Titles, labels and glued values of notebooks by stem; ``chapters`` has the numbers of those that have one."""
    names = Names(chapters=chapters or {})
    for stem, notebook in notebooks.items():
        names.titles[stem] = title_of(notebook)
        numbers = {"figure": 0, "equation": 0, "exercise": 0}
        for cell in notebook.cells:
            if cell.cell_type == "code":
                _collect_code(names, stem, cell, numbers)
            else:
                _collect_markdown(names, stem, cell.source, numbers)
    return names


def _next(names: Names, stem: str, kind: str, numbers: dict[str, int]) -> str:
    """The number of the next figure, equation or exercise: "10.3" in chapter 10, "3" in one without a number."""
    numbers[kind] += 1
    return f"{names.chapters[stem]}.{numbers[kind]}" if stem in names.chapters else str(numbers[kind])


def _collect_code(names: Names, stem: str, cell, numbers: dict[str, int]) -> None:
    if "name" in figure_of(cell):
        names.labels[figure_of(cell)["name"]] = stem, f"Figure {_next(names, stem, 'figure', numbers)}"
    for output in cell.outputs:
        key = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if key and f"{GLUED}text/plain" in output.data:
            names.glued[stem, key] = output.data[f"{GLUED}text/plain"].strip("'\"")


def _collect_markdown(names: Names, stem: str, source: str, numbers: dict[str, int]) -> None:
    for label in re.findall(r"^(?::label: |\$\$ \()(eq-[\w-]+)", source, re.MULTILINE):
        names.labels[label] = stem, f"({_next(names, stem, 'equation', numbers)})"
    for match in BLOCK.finditer(source):
        label = options(match["body"])[0].get("label")
        if label and match["name"] == "exercise":
            names.labels[label] = stem, f"Exercise {_next(names, stem, 'exercise', numbers)}"
        elif label and match["name"] != "math":
            names.labels[label] = stem, match["title"] or match["name"].rpartition(":")[2]
    for target, heading in re.findall(r"^\(([\w-]+)\)=\n+#+ (.+)$", source, re.MULTILINE):
        names.labels[target] = stem, heading


def plain(source: str, stem: str, names: Names) -> str:
    """The Markdown of one cell of the notebook ``stem`` without MyST."""
    text = re.sub(r"^\([\w-]+\)=\n", "", source, flags=re.MULTILINE)
    text = re.sub(r"\A# ", f"# {names.chapters[stem]}. ", text) if stem in names.chapters else text
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
        text = shown or f"the book's page “{other}”"
        return f"[{text}]({names.address.rstrip('/')}/book/{other}.html)" if names.address else text
    if kind == "glue:text":
        return glued(text, stem, names)
    if kind.startswith("cite"):
        return citation(text, kind, names)
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


def citation(text: str, kind: str, names: Names) -> str:
    """Keys as "Yu et al. (2024)" within a sentence or "(Yu et al. 2024)" beside it."""
    cited = [names.works[key.strip()] for key in text.split(",")]
    if kind == "cite:t":
        return ", ".join(f"{work.authors} ({work.year})" for work in cited)
    return f"({'; '.join(f'{work.authors} {work.year}' for work in cited)})"


def references(sources: list[str], names: Names) -> str:
    """A list of the works that sources cite, "" if there are none."""
    keys = {key.strip() for source in sources for keys in CITE.findall(source) for key in keys.split(",")}
    works = [names.works[key] for key in keys]
    lines = sorted(f"- {work.authors} ({work.year}): {work.entry}" for work in works)
    return "\n".join(["## References", "", *lines]) if lines else ""


def bibliography(path: Path) -> dict[str, Work]:
    """The works of a BibTeX file by key; those of the same authors and year get letters in the file's order."""
    entries, same = parse_bibdata([path], "utf-8").data.entries, defaultdict(list)
    for key, entry in entries.items():
        same[authors(entry), entry.fields["year"]].append(key)
    works = {}
    for (who, year), keys in same.items():
        for letter, key in zip(ascii_lowercase, keys, strict=False):
            works[key] = Work(who, year + letter if len(keys) > 1 else year, reference(entries[key]))
    return works


def authors(entry) -> str:
    """Who wrote a work, in short: "Horowitz", "Hassan and Davy", "Yu et al."."""
    people = entry.persons["author"]
    names = [" ".join(map(str, p.rich_prelast_names + p.rich_last_names)) for p in people[:2]]
    return f"{names[0]} et al." if len(people) > 2 or "others" in names else " and ".join(names)


def reference(entry) -> str:
    """All authors, title, place and pages of a work."""
    fields = {name: re.sub(r"[{}]|\\(?=&)", "", text).replace("--", "–") for name, text in entry.fields.items()}
    people = ["rich_first_names", "rich_middle_names", "rich_prelast_names", "rich_last_names"]
    names = [" ".join(str(n) for part in people for n in getattr(p, part)) for p in entry.persons["author"]]
    who = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    number = fields.get("volume", "") + (f"({fields['number']})" if "number" in fields else "")
    place = f"{next(fields[name] for name in PLACES if name in fields)} {number}".strip()
    pages, doi = fields.get("pages"), fields.get("doi")
    end = "" if fields["title"].endswith("?") else "."
    return f"{who}. {fields['title']}{end} {place}{f', {pages}' if pages else ''}.{f' doi:{doi}.' if doi else ''}"
