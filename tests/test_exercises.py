"""Checked exercises: every solution passes its check, every stub fails it, and messages say what is wrong."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
import torch
import yaml
from nbformat import v4

from snnbook import exercises
from snnbook.exercises import NotYet, call, check, close, equal, exercise, known, law, require, show, value
from snnbook.exercises.core import agree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import course  # noqa: E402
import plain_markdown  # noqa: E402

CHAPTERS = course.read_notebooks(ROOT)
SOLUTIONS = {
    course.checked(cell): (stem, cell) for stem, nb in CHAPTERS.items() for cell in nb.cells if course.checked(cell)
}


def labelled(notebook, kinds: tuple[str, ...]) -> list[str]:
    """Labels of exercises, or of those that have a solution."""
    found = []
    for cell in (c for c in notebook.cells if c.cell_type == "markdown"):
        for kind, title, label in re.findall(
            r"^`{3,}\{(\w[\w-]*)\} *(.*)\n(?::label: (\S+))?", cell.source, re.MULTILINE
        ):
            found += [label or title.strip()] if kind in kinds else []
    return found


@pytest.mark.parametrize("stem", CHAPTERS)
def test_chapter_has_four_exercises_with_solutions_and_checks_half(stem):
    asked = labelled(CHAPTERS[stem], ("exercise",))
    solved = labelled(CHAPTERS[stem], ("solution", "solution-start"))
    checked = [label for label, (home, _) in SOLUTIONS.items() if home == stem]
    assert len(asked) >= 4 and len(set(asked)) == len(asked)
    assert sorted(asked) == sorted(solved)
    assert set(checked) <= set(asked) and 2 * len(checked) >= len(asked)
    assert set(checked) == set(course.stubs(CHAPTERS[stem])), "a checked exercise has a stub, and only that"


def test_every_checker_is_used_in_its_chapter():
    registered = {label: found.chapter for label, found in known().items()}
    assert registered == {label: stem for label, (stem, _) in SOLUTIONS.items()}


@pytest.mark.parametrize("label", SOLUTIONS)
def test_solution_passes_and_stub_fails(label, capsys):
    """Both stand alone: they import what they use."""
    stem, cell = SOLUTIONS[label]
    exec(compile(cell.source, label, "exec"), {})
    assert capsys.readouterr().out == f"{label}: right.\n"
    stub = course.stub_cell(cell, course.stubs(CHAPTERS[stem]))
    with pytest.raises(NotYet, match=re.escape(label)):
        exec(compile(stub.source, label, "exec"), {})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("label", SOLUTIONS)
def test_solution_in_the_notebook_shows_that_it_is_right(label):
    _, cell = SOLUTIONS[label]
    assert [output.get("text") for output in cell.outputs] == [f"{label}: right.\n"]


# goals of the course


MEETINGS = sorted((ROOT / "book" / "course").glob("meeting_*.md"))


@pytest.mark.parametrize("page", MEETINGS, ids=lambda path: path.stem)
def test_every_goal_points_at_a_chapter_and_at_an_exercise_in_it(page):
    goals = re.search(r":::\{admonition\} After.*?^:::", page.read_text(), re.DOTALL | re.MULTILINE)[0]
    items = re.findall(r"^- .+$", goals, re.MULTILINE)
    assert len(items) >= 4
    for item in items:
        (chapter,) = re.findall(r"\{doc\}`\.\./\.\./notebooks/(\w+)`", item)
        labels = re.findall(r"\{ref\}`(ex-[\w-]+)`", item)
        assert labels and set(labels) <= set(labelled(CHAPTERS[chapter], ("exercise",)))


@pytest.mark.parametrize("page", MEETINGS, ids=lambda path: path.stem)
def test_meeting_fills_ninety_minutes_with_question_and_answers(page):
    text = page.read_text()
    assert sum(map(int, re.findall(r"^\| (\d+) \|", text, re.MULTILINE))) == 90
    assert len(re.findall(r"^:class: dropdown$", text.split("## Check yourself")[1], re.MULTILINE)) >= 3
    for heading in ("Before the meeting", "A question for the room", "Until next time"):
        assert f"\n## {heading}\n" in text


def reading(page: Path, heading: str) -> set[str]:
    """Chapters, quoted sections and figures that a section of a meeting's page names."""
    section = page.read_text().split(f"## {heading}")[1].split("\n## ")[0]
    return set(re.findall(r'notebooks/\w+|"[^"]+"|picture|first figure|first two sections', section))


@pytest.mark.parametrize(("page", "following"), pairwise(MEETINGS), ids=lambda path: path.stem)
def test_a_meeting_asks_to_read_what_the_next_one_expects(page, following):
    expected = reading(following, "Before the meeting")
    assert expected and expected <= reading(page, "Until next time")


def test_meetings_of_pages_and_slides_agree():
    plan = yaml.safe_load((ROOT / "book" / "course" / "course.yml").read_text())
    assert len(plan["meetings"]) == len(MEETINGS) == 6
    for page, meeting in zip(MEETINGS, plan["meetings"], strict=True):
        goals = page.read_text().split("## Before")[0]
        assert list(dict.fromkeys(re.findall(r"notebooks/(\w+)", goals))) == meeting["chapters"]


def test_every_exercise_that_a_page_mentions_exists():
    pages = [*MEETINGS, ROOT / "book" / "course" / "index.md", ROOT / "book" / "guide.md"]
    known_labels = {label for nb in CHAPTERS.values() for label in labelled(nb, ("exercise",))}
    mentioned = {label for page in pages for label in re.findall(r"`(ex-[\w-]+)`", page.read_text())}
    assert mentioned and mentioned <= known_labels


# the machinery


@pytest.fixture
def doubling(monkeypatch):
    """A registry with one exercise of its own."""
    monkeypatch.setattr(exercises.core, "_exercises", dict(known()))

    @exercise("ex-test-double", "00_test")
    def checker(answer):
        mistakes = {
            "That is the quotient.": lambda x: x / (x - 2),
            "That is the square.": lambda x: x * x,
            "Nothing comes of threes.": lambda x: None if x == 3 else 2 * x,
        }
        close(answer, lambda x: 2 * x, [(0.0,), (2.0,), (3.0,)], hint="Twice as much.", mistakes=mistakes)


def test_right_answer_prints_one_line(doubling, capsys):
    check("ex-test-double", lambda x: x + x)
    assert capsys.readouterr().out == "ex-test-double: right.\n"


def square(x):
    return x * x


def identity(x):
    return x


def nothing(x): ...


def unwritten(x):
    return ...


def silent_at_two(x):
    return None if x == 2 else 1 / 0 if x == 3 else 2 * x


def silent_at_three(x):
    return None if x == 3 else 2 * x


def crash(x):
    return x.shape


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (square, "ex-test-double: square(3) returned 9, expected 6. That is the square."),
        (identity, "ex-test-double: identity(2) returned 2, expected 4. Twice as much."),
        (nothing, "ex-test-double: still a stub: nothing(0) returned None."),
        (unwritten, "ex-test-double: still a stub: unwritten(0) returned Ellipsis."),
        (silent_at_two, "ex-test-double: silent_at_two(2) returned None, expected 4. Twice as much."),
        (silent_at_three, "ex-test-double: silent_at_three(3) returned None, expected 6. Nothing comes of threes."),
        (crash, "ex-test-double: crash(0) raised AttributeError: 'float' object has no attribute 'shape'"),
        (None, "ex-test-double is still a stub: the answer is None."),
        (..., "ex-test-double is still a stub: the answer is Ellipsis."),
        (7, "ex-test-double: a function was expected, not 7."),
    ],
)
def test_wrong_answer_says_input_result_and_expectation(doubling, answer, message):
    with pytest.raises(NotYet) as raised:
        check("ex-test-double", answer)
    assert str(raised.value) == message


def test_unknown_label_lists_near_ones(doubling):
    with pytest.raises(ValueError, match=r"label = 'ex-test-duble' is not allowed: .*ex-test-double"):
        check("ex-test-duble", square)


def test_label_is_taken_once_and_starts_with_ex(doubling):
    for label in ("ex-test-double", "double"):
        with pytest.raises(ValueError, match="label = .* is not allowed"):
            exercise(label, "00_test")


def test_answer_of_an_unforeseen_form_is_not_an_error_of_the_reader(monkeypatch):
    monkeypatch.setattr(exercises.core, "_exercises", dict(known()))
    exercise("ex-test-form", "00_test")(lambda answer: require(answer["x"] == 1, "x is one"))
    with pytest.raises(NotYet, match="ex-test-form: the answer has an unexpected form, TypeError"):
        check("ex-test-form", 3)


def test_reader_sees_the_message_and_no_traceback():
    """In a kernel, where a notebook would show forty lines otherwise."""
    source = 'from snnbook.exercises import check\ncheck("ex-01-by-hand", lambda x, v, n: (0, 0))'
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source, metadata={"tags": ["raises-exception"]})])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "error" and output.ename == "NotYet"
    assert len(output.traceback) == 1 and output.traceback[0].startswith("Not yet. ex-01-by-hand: ")


def test_answer_cannot_change_the_arguments_of_a_case():
    given = [3, 1, 2]

    def spoil(numbers):
        numbers.sort()
        return numbers[0]

    assert call(spoil, given) == 1 and given == [3, 1, 2]
    equal(spoil, min, [(given,)])


def test_none_is_an_answer_where_it_is_right():
    equal({}.get, lambda key: None, [("absent",)])
    with pytest.raises(NotYet, match="still a stub"):
        call({}.get, "absent")


def test_none_in_every_case_is_a_stub_even_where_none_is_right_first():
    with pytest.raises(NotYet, match=r"^still a stub: nothing\(1\) returned None\.$"):
        equal(nothing, {2: "two"}.get, [(1,), (2,)])
    with pytest.raises(NotYet, match=r"^still a stub: nothing\(1\) returned None\.$"):
        law(nothing, [(1,), (2,)], lambda y, x: y > x, "more comes out")


def test_law_names_input_result_and_law():
    law(abs, [(-2.0,), (3.0,)], lambda y, x: y >= x, "a size is no smaller than its number")
    with pytest.raises(NotYet, match=r"identity\(-2\) returned -2, which breaks the law: sizes are not negative\."):
        law(identity, [(1.0,), (-2.0,)], lambda y, x: y >= 0, "sizes are not negative")
    with pytest.raises(NotYet, match=r"silent_at_three\(3\) returned None, which breaks the law: sizes are numbers\."):
        law(silent_at_three, [(1.0,), (3.0,)], lambda y, x: y >= 0, "sizes are numbers")


def test_value_does_not_give_the_answer_away():
    value(0.1 + 0.2, 0.3)
    with pytest.raises(NotYet, match=r"^0\.5 is not right\. Think of T\.$"):
        value(0.5, 0.3, hint="Think of T.")
    with pytest.raises(NotYet, match="a value was expected"):
        value(identity, 0.3)


@pytest.mark.parametrize(
    ("got", "want", "same"),
    [
        (1, 1.0, True),
        (np.float32(0.5), 0.5, True),
        (torch.tensor([1.0, 2.0]), np.array([1.0, 2.0]), True),
        (torch.ones(2, requires_grad=True), np.ones(2), True),
        (torch.ones(2), torch.ones(1, 2), False),
        ([1, 2], (1, 2), True),
        (torch.tensor([1, 2]), [1, 2], True),
        ([1, 2, 3], [1, 2], False),
        (3, [3], False),
        ("right", "right", True),
        (1, "1", False),
        ("1", 1, False),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": 1.0, "b": 2}, {"a": 1}, False),
        ({1, 2}, {2, 1}, True),
        ([1, 2], {1, 2}, False),
        (None, None, True),
        (None, 0.0, False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("inf"), True),
        (0.3000001, 0.3, False),
    ],
)
def test_agree(got, want, same):
    assert agree(got, want) is same


def test_agree_up_to_a_tolerance():
    assert agree([0.3000001, {"x": torch.tensor(1.0)}], [0.3, {"x": 1.0000001}], rtol=1e-6)


@pytest.mark.parametrize(
    ("something", "text"),
    [
        (0.30000000000000004, "0.3"),
        ((0.5, 3), "(0.5, 3)"),
        ([1.0, "a"], "[1, 'a']"),
        (np.zeros((3, 4)), "[3, 4] of [0, 0, 0, 0, 0, 0, 0, 0, ...]"),
        (torch.tensor([True, False]), "[2] of [1, 0]"),
        (square, "square"),
        (True, "True"),
    ],
)
def test_show(something, text):
    assert show(something) == text


def test_show_is_short():
    assert len(show(list(range(1000)))) <= 120 and len(show("x" * 1000)) <= 120


def test_parts_of_a_notebook_are_found():
    source = "````{exercise} One\n:label: ex-a\n\nDo it:\n\n```python\ndef f(x):\n    ...\n```\n````"
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# T"), v4.new_markdown_cell(source)])
    assert course.stubs(notebook) == {"ex-a": "def f(x):\n    ..."}
    assert plain_markdown.collect({"a": notebook}).labels == {"ex-a": ("a", "Exercise 1")}
    assert nbformat.validate(notebook) is None
