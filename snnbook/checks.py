"""Checks of arguments at the public boundaries of the package."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real


def check(name: str, value: object, ok: bool, allowed: str) -> None:
    """Refuse a bad argument in one sentence.

    Args:
        name: the argument's name as the caller knows it.
        value: what was given.
        ok: whether it is allowed.
        allowed: what is allowed, to complete "... is not allowed: ...".

    Raises:
        ValueError: if ``ok`` is false, with name, value and what is allowed.
    """
    if not ok:
        raise ValueError(f"{name} = {value!r} is not allowed: {allowed}")


def check_choice(name: str, value: object, choices: Iterable) -> None:
    """Refuse a value that is not one of ``choices`` (ValueError that lists them)."""
    known = list(choices)
    check(name, value, value in known, f"one of {', '.join(map(str, known))}")


def is_whole(value: object) -> bool:
    """Whether ``value`` is a whole number, Python's or NumPy's, and no switch."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether ``value`` is a real number, neither NaN nor infinite."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
