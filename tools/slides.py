"""Decks of slides made from the built book: one a meeting, reveal.js, readable without a network.

A deck takes its goals, question and homework from the page of the meeting, and what book/course/course.yml names from
the chapters: figures with caption and alternative text, equations, exercises. reveal.js comes from the package
sphinx-revealjs, MathJax and its fonts from sphinx-mathjax-offline (by way of the book), so that a copied folder works.
"""

from __future__ import annotations

import html as markup
import shutil
from importlib.resources import files
from pathlib import Path

from bs4 import BeautifulSoup, Tag

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="reveal/reset.css">
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="deck.css">
<script>
window.MathJax = {{
  chtml: {{ matchFontHeight: false }},
  options: {{ enableMenu: false }},
  startup: {{ ready() {{ MathJax.startup.defaultReady(); MathJax.startup.promise.then(start); }} }},
}};
function start() {{
  Reveal.initialize({{ hash: true, width: 1280, height: 720, margin: 0.03, center: false, slideNumber: "c/t",
    transition: "none", pdfSeparateFragments: false }});
}}
</script>
<script src="reveal/reveal.js"></script>
<script defer src="mathjax/tex-chtml.js"></script>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
</body>
</html>
"""


class Book:
    """Built pages, each parsed once."""

    def __init__(self, html: Path):
        self.html, self._pages = html, {}

    def article(self, page: str) -> Tag:
        """The article of a page such as ``notebooks/01_spiking_neurons``; ValueError if the book does not have it."""
        if page not in self._pages:
            path = self.html / f"{page}.html"
            if not path.is_file():
                raise ValueError(f"page = {page!r} is not allowed: a page of the built book")
            self._pages[page] = BeautifulSoup(path.read_text(), "html.parser").select_one("article.bd-article")
        return self._pages[page]

    def find(self, pages: list[str], name: str) -> tuple[str, Tag]:
        """The element ``name`` or ``chapter#name`` on one of the pages; ValueError if there is none."""
        chapter, _, name = name.rpartition("#")
        for page in pages:
            if page.endswith(chapter) and (found := self.article(page).find(id=name)):
                return page, found
        raise ValueError(f"name = {name!r} is not allowed: an element of {chapter or ', '.join(pages)}")


def clean(node: Tag) -> Tag:
    """A copy without links, permalinks and identifiers: a deck stands alone."""
    copy = BeautifulSoup(str(node), "html.parser")
    for extra in copy.select("a.headerlink, .eqno"):
        extra.decompose()
    for link in copy.select("a"):
        link.unwrap()
    for tag in copy.select("[id]"):
        del tag["id"]
    return copy


def slide(title: str, body: str, kind: str) -> str:
    """One section."""
    return f'<section class="{kind}">\n<h2>{title}</h2>\n{body}\n</section>'


def heading(node: Tag) -> str:
    """Title of the nearest section around an element."""
    return inner(node.find_parent("section").find(["h1", "h2", "h3", "h4"])).strip()


def inner(node: Tag) -> str:
    """What is below the outermost element, cleaned."""
    return clean(node).find().decode_contents()


def figure(book: Book, pages: list[str], name: str, images: Path) -> str:
    """A slide with a figure, its caption and its alternative text; the picture is copied into ``images``."""
    page, node = book.find(pages, name)
    source = (book.html / page).parent / node.img["src"]
    shutil.copyfile(source, images / source.name)
    alt = markup.escape(node.img["alt"], quote=True)
    caption = clean(node.find(class_="caption-text")).decode_contents()
    body = f'<img src="images/{source.name}" alt="{alt}">\n<p class="caption">{caption}</p>'
    return slide(heading(node), body, "figure")


def equation(book: Book, pages: list[str], name: str) -> str:
    """A slide with a display equation between the paragraphs around it; of a section, its first equation."""
    _, node = book.find(pages, f"equation-{name}" if name.startswith("eq-") else name)
    title = heading(node) if node.name != "section" else inner(node.find(["h2", "h3"]))
    node = node if node.name != "section" else node.select_one("div.math")
    before, after = node.find_previous_sibling(), node.find_next_sibling()
    parts = [part for part in (before,) if is_text(part) and not part.get_text()[0].islower()]
    parts += [node, *(part for part in (after,) if is_text(part) and part.get_text().strip().endswith("."))]
    return slide(title, "\n".join(str(clean(part)) for part in parts), "equation")


def is_text(node: Tag | None) -> bool:
    """Whether an element is a paragraph with something in it."""
    return node is not None and node.name == "p" and bool(node.get_text().strip())


def task(book: Book, pages: list[str], name: str) -> str:
    """A slide with the text of an exercise."""
    _, node = book.find(pages, name)
    title = node.find(class_="admonition-title").get_text(" ", strip=True)
    title = title[title.find("(") + 1 : title.rfind(")")] or title
    return slide(f"Exercise: {title}", inner(node.find(id="exercise-content")), "exercise")


def section_of(article: Tag, name: str) -> str:
    """What stands below the heading of a section of a meeting's page, without what is folded."""
    node = article.find("section", id=name)
    if node is None:
        raise ValueError(f"section = {name!r} is not allowed: a section of the page of the meeting")
    parts = [part for part in node.find_all(recursive=False) if part.name not in ("h2", "span")]
    return "".join(str(clean(part)) for part in parts if "dropdown" not in part.get("class", []))


def goals(article: Tag) -> list[str]:
    """The learning goals of a meeting, without the references behind them."""
    items = article.select_one("div.admonition.tip").select("li")
    for item in items:
        for reference in item.select("em"):
            if reference.find("a"):
                reference.decompose()
    return [inner(item.p) for item in items]


def deck(book: Book, number: int, meeting: dict, images: Path, course: str) -> tuple[str, str]:
    """Title and page of one meeting's deck."""
    page = f"book/course/meeting_{number}"
    article, chapters = book.article(page), [f"notebooks/{chapter}" for chapter in meeting["chapters"]]
    title = clean(article.h1).get_text().strip()
    names = "".join(f"<li>{clean(book.article(chapter).h1).get_text().strip()}</li>" for chapter in chapters)
    aims = "".join(f"<li>{goal}</li>" for goal in goals(article))
    slides = [
        f'<section class="title">\n<p>{course}</p>\n<h1>{title}</h1>\n<ul>{names}</ul>\n</section>',
        slide("After this meeting you can", f"<ul>{aims}</ul>", "goals"),
    ]
    makers = {"figure": figure, "equation": equation, "exercise": task}
    for item in meeting["show"]:
        ((kind, name),) = item.items()
        slides.append(makers[kind](book, chapters, name, *([images] if kind == "figure" else [])))
    slides.append(slide("A question for the room", section_of(article, "a-question-for-the-room"), "question"))
    slides.append(slide("Until next time", section_of(article, "until-next-time"), "homework"))
    return title, PAGE.format(title=markup.escape(f"{title}: {course}"), slides="\n".join(slides))


def write(html: Path, out: Path, plan: dict) -> None:
    """All decks, a list of them, and what they need beside them.

    Args:
        html: the built book.
        out: new folder for the decks.
        plan: contents of book/course/course.yml.

    Raises:
        ValueError: if the book lacks a page, figure, equation or exercise that a deck is to show.
    """
    book, images = Book(html), out / "images"
    images.mkdir(parents=True)
    titles = []
    for number, meeting in enumerate(plan["meetings"], 1):
        title, text = deck(book, number, meeting, images, plan["title"])
        (out / f"meeting_{number}.html").write_text(text)
        titles.append(f'<li><a href="meeting_{number}.html">{title}</a></li>')
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{plan["title"]}</title>'
    head += '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="deck.css"></head>'
    keys = "Arrow keys turn the pages, O shows all of them, F fills the screen; ?print-pdf prints."
    main = f"<main><h1>{plan['title']}</h1><ol>{''.join(titles)}</ol><p>{keys}</p></main>"
    (out / "index.html").write_text(f'{head}<body class="list">{main}</body></html>\n')
    dist = Path(str(files("sphinx_revealjs"))) / "_static" / "revealjs" / "dist"
    (out / "reveal").mkdir()
    for name in ("reset.css", "reveal.css", "reveal.js"):
        shutil.copyfile(dist / name, out / "reveal" / name)
    mathjax = html / "_static" / "mathjax"
    shutil.copytree(mathjax / "output" / "chtml", out / "mathjax" / "output" / "chtml")
    shutil.copyfile(mathjax / "tex-chtml.js", out / "mathjax" / "tex-chtml.js")
    shutil.copyfile(Path(__file__).with_name("deck.css"), out / "deck.css")
