"""Check a reader's answer and say in one message what is not right yet.

A checker is a function of the answer. It returns None if the answer is right and raises ``NotYet`` if it is not:

    @exercise("ex-01-spike-count", "01_spiking_neurons")
    def spike_count(answer):
        equal(answer, by_brute_force, [(0.4, 1.0, 10), (0.25, 0.5, 8)], hint="The reset is soft.")

A message names the input, what came back, and what was expected or which law it breaks. Checkers compare with something
that does not depend on the printed solution: brute force, a function of the package, a closed form, random cases with a
fixed seed.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snnbook.checks import check as check_argument


class NotYet(AssertionError):
    """An answer that is not right yet. A notebook shows the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet. {self}"]


@dataclass(frozen=True)
class Exercise:
    """A checked exercise: its label in the book, the stem of its chapter's notebook, and its checker."""

    label: str
    chapter: str
    checker: Callable[[object], None]


_exercises: dict[str, Exercise] = {}


def exercise(label: str, chapter: str) -> Callable:
    """Register the decorated function as the checker of the exercise ``label`` in the notebook ``chapter``.

    Raises:
        ValueError: if the label does not start with "ex-" or already has a checker.
    """
    check_argument("label", label, label.startswith("ex-"), 'a label that starts with "ex-"')
    check_argument("label", label, label not in _exercises, "a label without a checker so far")

    def register(checker: Callable[[object], None]) -> Callable[[object], None]:
        _exercises[label] = Exercise(label, chapter, checker)
        return checker

    return register


def known() -> dict[str, Exercise]:
    """All checked exercises by label; reads every module of ``snnbook.exercises`` on first use."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")
    return dict(_exercises)


def check(label: str, answer: object) -> None:
    """Check an answer (a function or a value) to an exercise, and print one line if it is right.

    Raises:
        NotYet: if it is not right, with a message that helps.
        ValueError: if no exercise has that label; near matches are listed.
    """
    exercises = known()
    if label not in exercises:
        near = difflib.get_close_matches(label, exercises, n=3, cutoff=0.4) or sorted(exercises)[:3]
        check_argument("label", label, False, f"a checked exercise, such as {', '.join(near)}")
    if answer is None or answer is ...:
        raise NotYet(f"{label} is still a stub: the answer is {answer!r}.")
    try:
        exercises[label].checker(answer)
    except NotYet as wrong:
        raise NotYet(f"{label}: {wrong}") from None
    except Exception as error:  # the answer has a form that the checker did not expect
        raise NotYet(f"{label}: the answer has an unexpected form, {type(error).__name__}: {error}") from error
    print(f"{label}: right.")


def call(answer: object, *arguments: object, may_be_none: bool = False) -> object:
    """What the reader's function returns for copies of the arguments.

    Raises:
        NotYet: if it is no function, raises an exception, or returns None or ... (unless ``may_be_none``).
    """
    require(callable(answer), f"a function was expected, not {show(answer)}.")
    given = _given(answer, arguments)
    try:
        result = answer(*copy.deepcopy(arguments))
    except Exception as error:
        raise NotYet(f"{given} raised {type(error).__name__}: {error}") from error
    require(result is not ... and (result is not None or may_be_none), f"still a stub: {given} returned {result!r}.")
    return result


def _given(answer: object, arguments: Sequence) -> str:
    """The call as one would write it."""
    return f"{getattr(answer, '__name__', 'the function')}({', '.join(map(show, arguments))})"


def require(ok: object, message: str) -> None:
    """Raise ``NotYet(message)`` unless ``ok``."""
    if not ok:
        raise NotYet(message)


def equal(
    answer: object,
    reference: Callable,
    cases: Iterable[Sequence],
    hint: str = "",
    mistakes: Mapping[str, Callable] | None = None,
) -> None:
    """Require that the reader's function equals ``reference`` exactly in every case; see `close`."""
    close(answer, reference, cases, hint, mistakes, rtol=0.0, atol=0.0)


def close(
    answer: object,
    reference: Callable,
    cases: Iterable[Sequence],
    hint: str = "",
    mistakes: Mapping[str, Callable] | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
) -> None:
    """Require that the reader's function is close to ``reference`` in every case; the first failing case is shown.

    Args:
        answer: the reader's function.
        reference: what it is compared with, called with the same arguments. Results may be numbers, tensors, arrays,
            strings, sets, and lists, tuples or dicts of them.
        cases: tuples of arguments, one a case.
        hint: a sentence added to the message.
        mistakes: sentences about well-known wrong ways, each with the function that computes it; the first that gives
            what the reader's function gave is said instead of the hint. One that raises is no match.
        rtol: relative tolerance.
        atol: absolute tolerance.

    Raises:
        NotYet: with the input, what came back and what was expected.
    """
    cases = list(cases)
    for arguments in cases:
        want = reference(*copy.deepcopy(arguments))
        got = call(answer, *arguments, may_be_none=True)
        if not agree(got, want, rtol, atol):
            _no_stub(answer, got, cases)
            ways = (say for say, wrong in (mistakes or {}).items() if _gives(wrong, arguments, got, rtol, atol))
            said = f"{_given(answer, arguments)} returned {show(got)}, expected {show(want)}. {next(ways, hint)}"
            raise NotYet(said.strip())


def _no_stub(answer: object, got: object, cases: Sequence[Sequence]) -> None:
    """Raise ``NotYet`` if ``got`` is None and the reader's function returns nothing but None in all cases."""
    if got is None and all(_gives(answer, arguments, None) for arguments in cases):
        raise NotYet(f"still a stub: {_given(answer, cases[0])} returned None.")


def _gives(function: Callable, arguments: Sequence, result: object, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Whether a function gives that result; one that raises an exception does not."""
    try:
        return agree(result, function(*copy.deepcopy(arguments)), rtol, atol)
    except Exception:
        return False


def law(answer: object, cases: Iterable[Sequence], holds: Callable[..., object], says: str) -> None:
    """Require a law of the reader's function in every case.

    Args:
        answer: the reader's function.
        cases: tuples of arguments, one a case.
        holds: function of the result and the arguments, true if the law holds.
        says: the law in words, to complete "which breaks the law: ...".

    Raises:
        NotYet: with the input, what came back and the law.
    """
    cases = list(cases)
    for arguments in cases:
        got = call(answer, *arguments, may_be_none=True)
        _no_stub(answer, got, cases)
        given = f"{_given(answer, arguments)} returned {show(got)}"
        require(got is not None and holds(got, *arguments), f"{given}, which breaks the law: {says}.")


def value(answer: object, expected: object, hint: str = "", rtol: float = 1e-6, atol: float = 1e-9) -> None:
    """Require that an answer which is no function is close to ``expected``; the right value is not given away.

    Raises:
        NotYet: with what was given and the hint.
    """
    require(not callable(answer), "a value was expected, not a function.")
    require(agree(answer, expected, rtol, atol), f"{show(answer)} is not right. {hint}".strip())


def agree(got: object, want: object, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Whether two results are equal up to the tolerances, in shape and in every number; NaN equals NaN."""
    if isinstance(want, Mapping):
        same = isinstance(got, Mapping) and got.keys() == want.keys()
        return same and all(agree(got[key], want[key], rtol, atol) for key in want)
    if want is None or isinstance(want, str | set | frozenset):
        return type(got) is type(want) and got == want
    if isinstance(want, list | tuple):
        same = hasattr(got, "__len__") and not isinstance(got, str | Mapping | set) and len(got) == len(want)
        return same and all(agree(g, w, rtol, atol) for g, w in zip(got, want, strict=True))
    a, b = _array(got), _array(want)
    if a is None or b is None or a.shape != b.shape:
        return False
    return bool(np.allclose(a, b, rtol, atol, equal_nan=True))


def _array(result: object) -> np.ndarray | None:
    """A number, tensor or array as a NumPy array of numbers; None for anything else."""
    array = np.asarray(result.detach().cpu() if hasattr(result, "detach") else result)
    return array if array.dtype.kind in "biufc" else None


def show(something: object, limit: int = 120) -> str:
    """A short text for an argument or a result: numbers with six digits, of large tensors the shape and the start."""
    if callable(something):
        return getattr(something, "__name__", type(something).__name__)
    if isinstance(something, tuple):
        return f"({', '.join(show(item) for item in something)})"
    if isinstance(something, list):
        text = f"[{', '.join(show(item) for item in something)}]"
        return text if len(text) <= limit else f"{text[: limit - 4]}...]"
    array = _array(something) if hasattr(something, "shape") or isinstance(something, float) else None
    if array is None or array.dtype.kind == "c":
        text = repr(something)
        return text if len(text) <= limit else f"{text[: limit - 3]}..."
    if array.ndim == 0:
        return f"{array.item():.6g}"
    numbers = ", ".join(f"{number:.6g}" for number in array.flatten()[:8].tolist())
    return f"{list(array.shape)} of [{numbers}{', ...' if array.size > 8 else ''}]"
