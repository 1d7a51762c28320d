"""The course from one source: notebooks without and with solutions, and slides that open without a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat import v4
from test_book_pages import visit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import course  # noqa: E402
import plain_markdown as md  # noqa: E402
import slides  # noqa: E402

CHAPTERS = course.read_notebooks(ROOT)
PLAN = yaml.safe_load((ROOT / "book" / "course" / "course.yml").read_text())
MYST = re.compile(r"\{[a-z:-]+\}`|^(`{3,}|:{3,})\{", re.MULTILINE)
GLUED = re.compile(r"\{glue:\w+\}`(?:(?P<page>[^`:]*)::)?(?P<key>[^`:]+)(?::[^`]*)?`")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The student's and the instructor's notebooks."""
    out = tmp_path_factory.mktemp("course")
    course.write_notebooks(ROOT, out, PLAN)
    return out


def read(written: Path, kind: str, stem: str):
    notebook = nbformat.read(written / kind / f"{stem}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def secrets(notebook) -> set[str]:
    """Lines of solutions that must not be in a student's notebook: of prose, and of code that is in no stub."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    prose = "\n".join(match[0] for match in course.SOLUTION.finditer(text)).splitlines()
    open_lines = {line for stub in course.stubs(notebook).values() for line in stub.splitlines()}
    code = [line for c in notebook.cells if "solution" in course.tags(c) for line in c.source.splitlines()]
    open_starts = ("from ", "import ", "check(")
    hidden = {line for line in [*prose, *code] if len(line.strip()) > 25 and not line.startswith(open_starts)}
    return hidden - open_lines


@pytest.mark.parametrize("stem", CHAPTERS)
def test_student_has_every_stub_and_no_solution(written, stem):
    notebook = read(written, "student", stem)
    labels = [course.checked(cell) for cell in CHAPTERS[stem].cells if course.checked(cell)]
    stubs = [cell for cell in notebook.cells if "stub" in course.tags(cell)]
    assert [re.search(r'^check\("([\w-]+)"', cell.source, re.MULTILINE)[1] for cell in stubs] == labels
    assert all("..." in cell.source for cell in stubs)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
    assert not [cell for cell in notebook.cells if "solution" in course.tags(cell)]
    everything = "\n".join(cell.source for cell in notebook.cells)
    hidden = secrets(CHAPTERS[stem])
    assert hidden and not [line for line in hidden if line in everything]
    exercises = sum(cell.source.count("{exercise}") for cell in CHAPTERS[stem].cells if cell.cell_type == "markdown")
    assert len(re.findall(r"^### Exercise \d+\.\d+: ", everything, re.MULTILINE)) == exercises


def prose(notebook) -> tuple[str, str]:
    """Text and captions of a chapter, and the same without solutions."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    captions = "\n".join(md.figure_of(cell).get("caption", "") for cell in notebook.cells if cell.cell_type == "code")
    return f"{text}\n{captions}", f"{course.SOLUTION.sub('', text)}\n{captions}"


def glued(text: str, stem: str) -> set[tuple[str, str]]:
    """Values that a text of a chapter asks for: (stem of the notebook that makes it, key)."""
    return {(Path(m["page"]).stem if m["page"] else stem, m["key"]) for m in GLUED.finditer(text)}


def made(cell) -> set[str]:
    """Keys of the values that a code cell glues, by its outputs and by what its source names."""
    names = {output.get("metadata", {}).get("scrapbook", {}).get("name") for output in cell.outputs}
    return {name for name in names if name} | set(re.findall(r'\bglue\(\s*"([^"]+)"', cell.source))


def given_away(notebooks: dict[str, nbformat.NotebookNode]) -> set[tuple[str, str, str]]:
    """Values that only solutions use and a cell of a student's notebook makes: (stem, cell, key)."""
    everywhere = set.union(*(glued(prose(nb)[0], stem) for stem, nb in notebooks.items()))
    in_the_open = set.union(*(glued(prose(nb)[1], stem) for stem, nb in notebooks.items()))
    secret = everywhere - in_the_open
    cells = ((stem, c) for stem, nb in notebooks.items() for c in course.without_solutions(nb))
    found = ((stem, c.id, key) for stem, c in cells if c.cell_type == "code" for key in made(c))
    return {(stem, cell, key) for stem, cell, key in found if (stem, key) in secret}


def test_what_only_solutions_say_is_computed_where_students_do_not_see_it():
    assert not given_away(CHAPTERS)


def test_a_value_that_only_a_solution_says_is_found_in_a_cell_for_everybody():
    names = ("told", "secret", "hidden", "far")
    glues = {name: v4.new_code_cell(f'glue(\n    "{name}", 1.0)', id=name) for name in names}
    looped = v4.new_code_cell("glue(name, 2.0)", id="loop", outputs=[v4.new_output("display_data", metadata={
        "scrapbook": {"name": "looped"}})])  # fmt: skip
    glues["hidden"].metadata["tags"] = ["solution"]
    said = "".join(f"{{glue:text}}`{name}:.2f` " for name in ("told", "secret", "hidden", "looped", "far"))
    ours = v4.new_notebook(cells=[
        v4.new_markdown_cell("It is {glue:text}`told`."), *glues.values(), looped,
        v4.new_markdown_cell(f"```{{exercise}} E\n:label: ex-e\n```\n\n```{{solution}} ex-e\n\n{said}\n```"),
    ])  # fmt: skip
    other = v4.new_notebook(cells=[v4.new_markdown_cell("There: {glue:text}`../notebooks/01_a.ipynb::far:.1f`.")])
    assert given_away({"01_a": ours, "02_b": other}) == {("01_a", "secret", "secret"), ("01_a", "loop", "looped")}


@pytest.mark.parametrize("stem", CHAPTERS)
def test_instructor_has_every_solution_with_its_output_and_a_note(written, stem):
    notebook = read(written, "instructor", stem)
    solutions = {course.checked(cell): cell for cell in CHAPTERS[stem].cells if course.checked(cell)}
    kept = {course.checked(cell): cell for cell in notebook.cells if course.checked(cell)}
    assert kept == solutions
    assert PLAN["notes"][stem] in notebook.cells[1].source
    everything = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert len(re.findall(r"\*\*Solution to Exercise \d+\.\d+\.\*\*", everything)) == everything.count("### Exercise ")


@pytest.mark.parametrize("kind", ["student", "instructor"])
@pytest.mark.parametrize("stem", CHAPTERS)
def test_text_is_markdown_that_jupyterlab_shows(written, kind, stem):
    notebook = read(written, kind, stem)
    left = [m[0] for cell in notebook.cells if cell.cell_type == "markdown" for m in MYST.finditer(cell.source)]
    assert not left
    ours = [cell for cell in notebook.cells if cell.cell_type == "code" and not {"stub"} & set(course.tags(cell))]
    theirs = [c for c in CHAPTERS[stem].cells if c.cell_type == "code"]
    theirs = [c for c in theirs if kind == "instructor" or "solution" not in course.tags(c)]
    assert [cell.source for cell in ours] == [cell.source for cell in theirs]


@pytest.mark.parametrize("kind", ["student", "instructor"])
def test_links_between_notebooks_lead_to_notebooks(written, kind):
    for path in (written / kind).glob("*.ipynb"):
        text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
        assert "](../" not in text, "the folder is handed out alone"
        for target in re.findall(r"\]\(([\w./]+\.ipynb)\)", text):
            assert (path.parent / target).is_file()


def test_chapters_are_numbered_through_the_numbered_parts(tmp_path):
    parts = ["{chapters: [{file: book/guide}]}", "{numbered: true, chapters: [{file: notebooks/01_a}]}"]
    parts += ["{chapters: [{file: notebooks/05_b}]}", "{numbered: true, chapters: [{file: notebooks/10_c}]}"]
    (tmp_path / "_toc.yml").write_text(f"parts: [{', '.join(parts)}]")
    assert course.chapter_numbers(tmp_path) == {"01_a": 1, "10_c": 2}


@pytest.mark.parametrize("stem", CHAPTERS)
def test_numbers_are_those_of_the_built_book(html, stem):
    page = slides.Book(html).article(f"notebooks/{stem}")
    names = course.read_names(ROOT, CHAPTERS)
    ours = {label: text for label, (home, text) in names.labels.items() if home == stem}
    assert page.h1.get_text().startswith(md.plain(CHAPTERS[stem].cells[0].source, stem, names)[2:].split("\n")[0])
    for node in page.select(".exercise[id^=ex-] .caption-number, figure[id^=fig-] .caption-number"):
        theirs = node.get_text().strip().replace("Fig.", "Figure")
        assert ours.pop(node.find_parent(id=re.compile("^(ex|fig)-"))["id"]) == theirs
    for node in page.select("[id^=equation-eq-] .eqno"):
        assert ours.pop(node.find_parent(id=True)["id"].removeprefix("equation-")) == node.get_text().strip("# ")
    assert not [label for label in ours if label.startswith(("ex-", "fig-", "eq-"))]


def test_a_notebook_ends_with_what_it_cites(written):
    last = read(written, "student", "12_two_stage_conversion").cells[-1].source
    assert last.startswith("## References\n\n- ") and "Bu et al. (2022b): Tong Bu, Wei Fang" in last


def exercises() -> dict[str, tuple[str, str]]:
    """Title and chapter of each exercise by label."""
    cells = ((stem, c) for stem, notebook in CHAPTERS.items() for c in notebook.cells if c.cell_type == "markdown")
    found = re.compile(r"^`{3,}\{exercise\} (.+)\n:label: (\S+)", re.MULTILINE)
    return {label: (title, stem) for stem, c in cells for title, label in found.findall(c.source)}


def mentioned(text: str) -> list[tuple[str, str]]:
    """Label of each exercise that a page refers to, and what follows it."""
    return [(m[1], text[m.end() :]) for m in re.finditer(r"\{ref\}`(ex-[\w-]+)`", text)]


@pytest.mark.parametrize("path", sorted((ROOT / "book" / "course").glob("meeting_*.md")), ids=lambda path: path.stem)
def test_pages_of_meetings_say_titles_and_notebooks_of_exercises(path):
    text, known = path.read_text(), exercises()
    assert all(rest.startswith(f" ({known[label][0]})") for label, rest in mentioned(text))
    homework = text.split("## Until next time")[1]
    assert mentioned(homework) and all(f"`{known[label][1]}`" in homework for label, _ in mentioned(homework))


# plain Markdown


NAMES = md.Names(
    titles={"01_a": "First", "02_b": "Second"},
    labels={"fig-x": ("01_a", "Figure 2"), "eq-y": ("02_b", "(1)"), "ex-z": ("01_a", "Exercise 3")},
    glued={("01_a", "rate"): "0.2563", ("02_b", "name"): "digits"},
    works=md.bibliography(ROOT / "book" / "references.bib"),
)


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("see {doc}`02_b`", "see [Second](02_b.ipynb)"),
        ("see {doc}`this <02_b>`", "see [this](02_b.ipynb)"),
        ("in {doc}`../book/notation` and {doc}`there <../book/api>`", "in the book's page “notation” and there"),
        ("{numref}`fig-x`", "Figure 2"),
        ("{eq}`eq-y`", "(1) of [Second](02_b.ipynb)"),
        ("{glue:text}`rate:.1f` of {glue:text}`../notebooks/02_b.ipynb::name`", "0.3 of digits"),
        ("{cite:t}`yu2024ecsnn` and {cite}`yu2024ecsnn`", "Yu et al. (2024) and (Yu et al. 2024)"),
        ("{cite:p}`horowitz2014energy,hassan2024spikebottlenet`", "(Horowitz 2014; Hassan and Davy 2024)"),
        ("{cite:t}`hao2023srp` or {cite:t}`hao2023cos`", "Hao et al. (2023a) or Hao et al. (2023b)"),
        ("{ref}`the code <snnbook.link>`", "the code"),
        ("Reset\n: lowers it", "**Reset**: lowers it"),
        (":::{admonition} Goals\n:class: tip\n- one\n:::", "> **Goals**\n>\n> - one"),
        ("```{math}\n:label: eq-y\na = b\n```", "$$\na = b\n\\tag{1}\n$$"),
        ("$$\na = b\n$$ (eq-y)", "$$\na = b\n\\tag{1}\n$$"),
        ("```{math}\na \\\\ b\n```", "$$\n\\begin{split}\na \\\\ b\n\\end{split}\n$$"),
        ("```{exercise} By hand\n:label: ex-z\n\nHow many?\n```", "### Exercise 3: By hand\n\nHow many?"),
        ("```{solution} ex-z\n:class: dropdown\n\nTwo.\n```", "**Solution to Exercise 3.**\n\nTwo."),
        ("```python\nx = 1\n```", "```python\nx = 1\n```"),
    ],
)
def test_plain(myst, markdown):
    assert md.plain(myst, "01_a", NAMES) == markdown


def test_links_to_pages_lead_to_the_published_book():
    names = md.Names(address="https://example.org/book-of-spikes/")
    link = "[symbols](https://example.org/book-of-spikes/book/notation.html)"
    assert md.plain("{doc}`symbols <../book/notation>`", "01_a", names) == link


def test_references_are_the_works_that_a_text_cites():
    text = "{cite:p}`hao2023cos, davies2018loihi` and {cite:t}`hao2023srp`"
    lines = md.references([text, "nothing", "{cite}`hao2023srp`"], NAMES).split("\n")
    assert lines[:2] == ["## References", ""] and len(lines) == 5
    assert lines[2].startswith("- Davies et al. (2018): Mike Davies, Narayan Srinivasa, Tsung-Han Lin and others. L")
    assert lines[2].endswith("processor with on-chip learning. IEEE Micro 38(1), 82–99.")
    assert "(2023a): Zecheng Hao, Tong Bu" in lines[3] and "residual membrane potential" in lines[3]
    assert "(2023b): Zecheng Hao, Jianhao Ding" in lines[4] and "offset spikes" in lines[4]
    assert md.references(["nothing"], NAMES) == ""


def test_no_two_works_are_cited_alike():
    works = md.bibliography(ROOT / "book" / "references.bib")
    assert len({(work.authors, work.year) for work in works.values()}) == len(works) > 40
    assert not [work for work in works.values() if re.search(r"[{}\\\n]|[ ,.?][,.]", work.entry)]


def test_collect_numbers_with_the_chapter_as_the_book_does():
    source = "# T\n\n```{exercise} E\n:label: ex-a\n```\n\n```{math}\n:label: eq-a\na\n```"
    notebooks = {"21_a": v4.new_notebook(cells=[v4.new_markdown_cell(source)])}
    names = md.collect(notebooks, {"21_a": 10})
    assert {text for _, text in names.labels.values()} == {"Exercise 10.1", "(10.1)"}
    assert md.plain(source, "21_a", names).startswith("# 10. T\n\n### Exercise 10.1: E")


def test_collect_numbers_in_the_order_of_the_notebook():
    figure = v4.new_code_cell("plt.show()", metadata={"mystnb": {"figure": {"caption": "c", "name": "fig-a"}}})
    glued = v4.new_output("display_data", {md.GLUED + "text/plain": "'seven'"}, metadata={"scrapbook": {"name": "k"}})
    cells = [
        v4.new_markdown_cell("# Title\n\n$$\na\n$$ (eq-a)\n\n```{math}\n:label: eq-b\nb\n```\n"),
        figure,
        v4.new_code_cell("glue()", outputs=[glued]),
        v4.new_markdown_cell("(sec-a)=\n## A section\n\n```{prf:theorem} Exact\n:label: thm-a\n\nText.\n```"),
    ]
    names = md.collect({"01_a": v4.new_notebook(cells=cells)})
    assert names.titles == {"01_a": "Title"} and names.glued == {("01_a", "k"): "seven"}
    found = {label: text for label, (_, text) in names.labels.items()}
    assert found == {
        "eq-a": "(1)", "eq-b": "(2)", "fig-a": "Figure 1", "sec-a": "A section", "thm-a": "Exact",
    }  # fmt: skip


# whole or not at all


ARTICLE = (
    '<html><body><article class="bd-article"><section id="s"><h1>{title}</h1>{body}</section></article></body></html>'
)
PAGE = """<div class="tip admonition"><ul><li><p>count <em>(<a href="x">1</a>)</em></p></li></ul></div>
<section id="a-question-for-the-room"><h2>Q</h2><p>Why?</p><div class="dropdown admonition"><p>Because.</p></div>
</section>
<section id="until-next-time"><h2>N</h2><ul><li>read</li></ul></section>"""
CHAPTER = """<section id="part"><h2>Part<a class="headerlink" href="#part">#</a></h2>
<figure id="fig-a"><img alt="what it shows" src="../_images/a.png"/><figcaption><p>
<span class="caption-text">Words.</span></p></figcaption></figure><p>With a <a href="y.html">drive</a>,</p>
<div class="math" id="equation-eq-a"><span class="eqno">(1)</span>\\[x\\]</div><p>and so on</p>
<div class="exercise admonition" id="ex-a"><p class="admonition-title"><span>Exercise 1 </span> (By hand)</p>
<section id="exercise-content"><p>How many?</p></section></div></section>"""


@pytest.fixture
def small(tmp_path) -> tuple[Path, dict]:
    """A book of one chapter and one meeting, and the plan for its slides."""
    html = tmp_path / "html"
    for folder in ("notebooks", "book/course", "_images", "_static/mathjax/output/chtml"):
        (html / folder).mkdir(parents=True)
    (html / "notebooks" / "01_a.html").write_text(ARTICLE.format(title="First", body=CHAPTER))
    (html / "book" / "course" / "meeting_1.html").write_text(ARTICLE.format(title="Meeting 1", body=PAGE))
    (html / "_images" / "a.png").write_bytes(b"png")
    (html / "_static" / "mathjax" / "tex-chtml.js").write_text("")
    show = [{"figure": "fig-a"}, {"equation": "eq-a"}, {"exercise": "01_a#ex-a"}]
    return html, {"title": "Course", "meetings": [{"chapters": ["01_a"], "show": show}]}


def test_deck_shows_what_the_plan_names(small, tmp_path):
    html, plan = small
    slides.write(html, tmp_path / "slides", plan)
    text = (tmp_path / "slides" / "meeting_1.html").read_text()
    assert re.findall(r"<h[12]>(.*?)</h[12]>", text) == [
        "Meeting 1", "After this meeting you can", "Part", "Part", "Exercise: By hand", "A question for the room",
        "Until next time",
    ]  # fmt: skip
    assert '<img src="images/a.png" alt="what it shows">' in text and "Words." in text
    assert "With a drive," in text and "and so on" not in text, "no links; no sentence without an end"
    assert "\\[x\\]" in text and "eqno" not in text
    assert "<li>count </li>" in text and "Because." not in text, "neither references nor folded answers"
    assert not re.search(r'(?:src|href)="(?:https?:|//|/)', text)
    assert {p.name for p in (tmp_path / "slides").iterdir()} >= {
        "reveal",
        "mathjax",
        "images",
        "deck.css",
        "index.html",
    }


@pytest.mark.parametrize("item", [{"figure": "fig-b"}, {"equation": "eq-b"}, {"exercise": "02_b#ex-a"}])
def test_deck_refuses_what_the_book_does_not_have(small, tmp_path, item):
    html, plan = small
    plan["meetings"][0]["show"] = [item]
    with pytest.raises(ValueError, match="is not allowed: an element of"):
        slides.write(html, tmp_path / "slides", plan)


def test_course_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "build" / "course"
    monkeypatch.setattr(course, "write_notebooks", lambda root, out, plan: (out / "student").mkdir())
    monkeypatch.setattr(slides, "write", lambda html, out, plan: out.mkdir())
    course.write(ROOT, tmp_path, target)
    assert sorted(path.name for path in target.iterdir()) == ["slides", "student", course.MANIFEST]
    (target / "old").touch()

    def fail(html, out, plan):
        raise ValueError("no such figure")

    monkeypatch.setattr(slides, "write", fail)
    with pytest.raises(ValueError, match="no such figure"):
        course.write(ROOT, tmp_path, target)
    assert (target / "old").exists(), "the last complete course stays"
    assert [path.name for path in target.parent.iterdir()] == ["course"], "nothing is left over"


@pytest.fixture
def book_of_one(tmp_path, monkeypatch) -> Path:
    """A root whose course is one notebook and no slides."""
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").touch()
    (tmp_path / "book" / "course").mkdir(parents=True)
    (tmp_path / "book" / "course" / "course.yml").write_text("{meetings: [], notes: {}}")
    (tmp_path / "_toc.yml").write_text("parts: []")

    def notebooks(root, out, plan):
        (out / "student").mkdir()
        (out / "student" / "01_a.ipynb").write_text("written")

    monkeypatch.setattr(course, "write_notebooks", notebooks)
    monkeypatch.setattr(slides, "write", lambda html, out, plan: out.mkdir())
    assert course.main(tmp_path) == 0
    return tmp_path


@pytest.mark.parametrize("name", ["01_a.ipynb", "my_answers.ipynb"])
def test_answers_in_the_course_are_not_overwritten(book_of_one, capsys, name):
    answer = book_of_one / "_build" / "course" / "student" / name
    answer.write_text("an hour of work")
    assert course.main(book_of_one) == 1
    said = capsys.readouterr().err
    assert f"student/{name}. Move" in said and answer.read_text() == "an hour of work"
    answer.rename(book_of_one / "kept.ipynb")
    assert course.main(book_of_one) == 0


def test_a_course_that_nobody_changed_is_written_again(book_of_one):
    student = book_of_one / "_build" / "course" / "student"
    (student / ".ipynb_checkpoints").mkdir()
    (student / ".ipynb_checkpoints" / "01_a-checkpoint.ipynb").touch()
    assert course.main(book_of_one) == 0
    assert not (student / ".ipynb_checkpoints").exists() and (student / "01_a.ipynb").read_text() == "written"


def test_a_course_without_a_manifest_is_kept(book_of_one, capsys):
    (book_of_one / "_build" / "course" / course.MANIFEST).unlink()
    assert course.main(book_of_one) == 1 and "student/01_a.ipynb" in capsys.readouterr().err


def test_course_without_a_book_says_so(tmp_path, capsys):
    assert course.main(tmp_path) == 1
    assert "run make book first" in capsys.readouterr().err


def test_every_chapter_has_a_note():
    assert set(CHAPTERS) <= set(PLAN["notes"]) and all(len(note) > 40 for note in PLAN["notes"].values())


def test_times_are_those_of_the_execution_cache(tmp_path):
    assert course.seconds(tmp_path) == {}
    cell = v4.new_code_cell("1", execution_count=1)
    bundle = CacheBundleIn(v4.new_notebook(cells=[cell]), str(tmp_path / "01_a.ipynb"), data={"execution_seconds": 2.5})
    get_cache(tmp_path / "_build" / ".jupyter_cache").cache_notebook_bundle(bundle, check_validity=False)
    assert course.seconds(tmp_path) == {"01_a": 2.5}


def test_note_names_meeting_time_and_exercises():
    notebook = CHAPTERS["01_spiking_neurons"]
    note = course.teaching_note("01_spiking_neurons", notebook, PLAN, 12.3)
    assert "Meeting 1 of the course" in note and "12 s when this machine" in note and "ex-01-by-hand" in note
    assert "not measured" in course.teaching_note("03_speed", CHAPTERS["03_speed"], PLAN, None)


# slides in a browser


@pytest.fixture(scope="module")
def decks(html, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("slides") / "slides"
    slides.write(html, out, PLAN)
    return out


@pytest.mark.browser
@pytest.mark.parametrize("number", range(1, 1 + len(PLAN["meetings"])))
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_deck_opens_offline_and_every_slide_fits(browser, decks, number, dark):
    with visit(browser, dark) as v:
        page = v.open((decks / f"meeting_{number}.html").as_uri()).page
        page.wait_for_function("Reveal.isReady()")
        total = page.evaluate("Reveal.getTotalSlides()")
        assert total == 4 + len(PLAN["meetings"][number - 1]["show"])
        for _ in range(total - 1):
            fits = "(s) => s.scrollHeight <= 720 && s.scrollWidth <= 1280"
            assert page.evaluate(f"({fits})(Reveal.getCurrentSlide())"), page.evaluate(
                "Reveal.getCurrentSlide().innerText"
            )
            page.keyboard.press("ArrowRight")
        assert page.evaluate("Reveal.isLastSlide()")
        pictures = "[...document.images].filter((i) => !i.naturalWidth || i.alt.length < 20).length"
        assert page.evaluate(pictures) == 0
        no_math = "[...document.querySelectorAll('.math')].filter((m) => !m.querySelector('mjx-container')).length"
        assert page.evaluate(no_math) == 0 and page.locator("mjx-merror").count() == 0
        assert v.problems == []


@pytest.mark.browser
def test_list_of_decks_leads_to_all(browser, decks):
    with visit(browser) as v:
        v.page.goto((decks / "index.html").as_uri())
        links = [a.get_attribute("href") for a in v.page.locator("a").all()]
        assert links == [f"meeting_{n}.html" for n in range(1, 7)] and all((decks / link).is_file() for link in links)
        assert v.problems == []
