"""A table as an explorer: controls choose its rows, panels draw them, and one sentence says what is chosen.

:class:`Explorer` holds everything that both forms of an explorer need. As the value of a notebook's cell it becomes
HTML with the table inside, which ``book/_static/explorers/table.js`` draws in the page without a kernel;
:func:`snnbook.widgets.table_explorer` is the same as widgets, for a live kernel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from math import isnan
from typing import Any

import pandas as pd

from ..checks import check, check_choice

#: How a column of keys is chosen: not at all (each of its values is a line), from a list, or on a slider.
CONTROLS = ("", "choice", "slider")


@dataclass(frozen=True)
class Key:
    """A column that names rows.

    Attributes:
        column: its name in the table.
        text: what readers call it.
        control: one of ``CONTROLS``.
        labels: value → text; numbers and strings speak for themselves otherwise.
        start: value at the start; the first one otherwise.
    """

    column: str
    text: str
    control: str = "choice"
    labels: Mapping[Any, str] = field(default_factory=dict)
    start: Any = None


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        column: of the table, numbers.
        text: what readers call it, with its unit.
        digits: decimals in sentences and tables.
        log: whether its axis is logarithmic.
        low, high: ends of its axis; those of what is drawn otherwise.
    """

    column: str
    text: str
    digits: int = 1
    log: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Reference:
    """A horizontal line in the panel of ``column``, where all keys of ``where`` have these values."""

    column: str
    text: str
    value: float
    where: Mapping[str, Any] = field(default_factory=dict)


def number(value: float, digits: int) -> str:
    """``value`` with so many decimals and commas between thousands; halves are rounded up, as in the page."""
    if isnan(value):
        return "not given"
    rounded = Decimal(str(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded:,.{digits}f}"


@dataclass(frozen=True, eq=False)
class Explorer:
    """A table that readers explore.

    The controls are ordered: a control offers the values that exist where those before it are as chosen. Rows are
    drawn as lines over ``x``, one for each value of ``series``, those where all other controls are as chosen.

    Attributes:
        name: of the explorer, for the page: split, compression or noise.
        title: what it is, for those who do not see it.
        rows: the table; one row for each combination of keys at most. Numbers keep six significant digits; they may
            be missing, keys may not.
        keys: columns that name rows, in the order of the controls.
        x: key on the horizontal axis.
        series: key with one line for each value.
        panels: the charts.
        lead, each: the sentence: its beginning, and what follows for each chosen row; ``{column}`` is filled in.
        references: horizontal lines.

    Raises:
        ValueError: if there are no rows, a column or the value of a key is missing, rows are named twice, a key's
            control or start does not exist, or a logarithmic panel has a value that is not positive.
    """

    name: str
    title: str
    rows: pd.DataFrame
    keys: tuple[Key, ...]
    x: str
    series: str
    panels: tuple[Panel, ...]
    lead: str
    each: str
    references: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        names, values = [k.column for k in self.keys], [p.column for p in self.panels]
        missing = [c for c in (*names, *values) if c not in self.rows]
        check("rows", list(self.rows.columns), not missing and len(self.rows) > 0, f"a table with {names + values}")
        rows = self.rows[names + values].reset_index(drop=True)
        check("rows", "a missing key", not rows[names].isna().any().any(), "a value in every column of keys")
        check("rows", "keys that name two rows", not rows.duplicated(names).any(), "one row for each")
        for column in (self.x, self.series, *(c for r in self.references for c in r.where)):
            check_choice("key", column, names)
        rounded = {c: [float(f"{v:.6g}") for v in rows[c]] for c in values}
        object.__setattr__(self, "rows", rows.assign(**rounded))
        for key in self.keys:
            check_choice(f"control of {key.column}", key.control, CONTROLS)
            if key.start is not None:
                check_choice(f"start of {key.column}", key.start, self.values(key.column))
        for panel in self.panels:
            positive = not panel.log or not any(v <= 0 for v in rounded[panel.column])
            check(f"panel {panel.column}", "log", positive, "for positive values only")

    def __repr__(self) -> str:
        return f"Explorer {self.name!r}: {len(self.rows)} rows; {', '.join(k.column for k in self.keys)}"

    def key(self, column: str) -> Key:
        """The key of that name."""
        return next(k for k in self.keys if k.column == column)

    def values(self, column: str) -> list:
        """All values of a key: numbers in order, strings as they come."""
        found = self.rows[column].drop_duplicates().tolist()
        return found if isinstance(found[0], str) else sorted(found)

    def label(self, column: str, value: Any) -> str:
        """Text of a value of a key."""
        plain = value if isinstance(value, str) else f"{value:g}"
        return self.key(column).labels.get(value, plain)

    def controls(self) -> list[Key]:
        """Keys that are chosen."""
        return [k for k in self.keys if k.control]

    def offered(self, chosen: Mapping[str, Any], column: str) -> list:
        """Values that a control offers, given what is chosen in those before it."""
        before = [k.column for k in self.controls()]
        found = set(self._match(chosen, before[: before.index(column)])[column])
        return [v for v in self.values(column) if v in found]

    def settle(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """``chosen`` with a value for every control, and where its value is not offered the nearest, or the first."""
        settled: dict[str, Any] = {}
        for key in self.controls():
            offers = self.offered(settled, key.column)
            value = chosen.get(key.column, key.start)
            if value not in offers:
                near = value is not None and not isinstance(value, str)
                value = min(offers, key=lambda v: abs(v - value)) if near else offers[0]  # noqa: B023
            settled[key.column] = value
        return settled

    def _match(self, chosen: Mapping[str, Any], columns: list[str]) -> pd.DataFrame:
        rows = self.rows
        for column in columns:
            rows = rows[rows[column] == chosen[column]]
        return rows

    def drawn(self, chosen: Mapping[str, Any]) -> pd.DataFrame:
        """Rows of the lines: where all controls but those of ``x`` and ``series`` are as chosen."""
        fixed = [k.column for k in self.controls() if k.column not in (self.x, self.series)]
        return self._match(chosen, fixed)

    def picked(self, chosen: Mapping[str, Any]) -> pd.DataFrame:
        """Rows where all controls are as chosen."""
        return self._match(chosen, [k.column for k in self.controls()])

    def lines(self, chosen: Mapping[str, Any], column: str) -> list[Reference]:
        """References of a panel that hold for what is chosen."""
        return [
            r for r in self.references if r.column == column and all(chosen.get(c) == v for c, v in r.where.items())
        ]

    def texts(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The values of a row as texts, keys by their labels and numbers with the digits of their panel."""
        keys = {k.column: self.label(k.column, row[k.column]) for k in self.keys if k.column in row}
        return keys | {p.column: number(row[p.column], p.digits) for p in self.panels if p.column in row}

    def sentence(self, chosen: Mapping[str, Any]) -> str:
        """What is chosen, in words and numbers."""

        def fill(text: str, row: Mapping[str, Any]) -> str:
            texts = self.texts(row)
            return re.sub(r"\{(\w+)\}", lambda found: texts[found[1]], text)

        each = [fill(self.each, row) for row in self.picked(chosen).to_dict("records")]
        return f"{fill(self.lead, chosen)} {'; '.join(each)}."

    def spec(self) -> dict:
        """Everything the page needs, plain: values of keys are numbers of entries in their lists."""
        keys, start = {k.column: self.values(k.column) for k in self.keys}, self.settle({})
        entry = {column: {v: i for i, v in enumerate(values)} for column, values in keys.items()}
        return {
            "title": self.title, "x": self.x, "series": self.series, "lead": self.lead, "each": self.each,
            "keys": [
                {"column": k.column, "text": k.text, "control": k.control, "values": keys[k.column],
                 "labels": [self.label(k.column, v) for v in keys[k.column]]}
                for k in self.keys
            ],
            "start": {column: entry[column][value] for column, value in start.items()},
            "panels": [vars(p) for p in self.panels],
            "references": [
                {**vars(r), "where": {c: entry[c][v] for c, v in r.where.items()}}
                for r in self.references
            ],
            "rows": {
                **{c: [entry[c][v] for v in self.rows[c]] for c in keys},
                **{p.column: [None if isnan(v) else v for v in self.rows[p.column]] for p in self.panels},
            },
        }  # fmt: skip

    def _repr_html_(self) -> str:
        data = json.dumps(self.spec(), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        return (
            f'<div data-explorer="{escape(self.name)}">'
            f"<p><em>{escape(self.title)}.</em> In the page of the book this is an explorer; it needs JavaScript. With "
            "a running kernel <code>snnbook.widgets.table_explorer</code> of this object shows the same.</p>"
            f'<script type="application/json">{data}</script></div>'
        )
