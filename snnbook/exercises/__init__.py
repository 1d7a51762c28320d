"""Exercises of the chapters that check their reader's answer: ``check("ex-01-spike-count", spike_count)``.

``core`` runs the checks and says what is wrong; the other modules hold one small checker an exercise, a module a part.
"""

from snnbook.exercises.core import (
    Exercise,
    NotYet,
    call,
    check,
    close,
    equal,
    exercise,
    known,
    law,
    require,
    show,
    value,
)

__all__ = [
    "Exercise",
    "NotYet",
    "call",
    "check",
    "close",
    "equal",
    "exercise",
    "known",
    "law",
    "require",
    "show",
    "value",
]
