"""Small tables for the pages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler

from ..checks import check_choice


def table(df: pd.DataFrame, formats: Mapping | str | None = None, caption: str | None = None) -> Styler:
    """A page table without index whose HTML is the same in every run.

    Args:
        df: the rows to show; keep it below a screenful.
        formats: as for ``Styler.format``: column to format, or one format for all.
        caption: a line above the table.
    """
    uuid = hashlib.sha256(repr((list(df.columns), df.shape, caption)).encode()).hexdigest()[:8]
    styler = Styler(df, uuid=uuid, cell_ids=False).hide(axis="index")
    styler = styler.format(formats, na_rep="–") if formats is not None else styler.format(na_rep="–")
    return styler.set_caption(caption) if caption else styler


def change(points: float, verb: str = "loses", digits: int = 1) -> str:
    """Words for a drop of accuracy that may turn out either way: "loses 0.7 points", "gains 0.7 points".

    Args:
        points: the drop, in points; below 0 it is a gain.
        verb: "loses" or, of several, "lose".
        digits: behind the decimal point.

    Raises:
        ValueError: for another verb.
    """
    check_choice("verb", verb, ("loses", "lose"))
    gained = round(points, digits) < 0
    return f"{verb.replace('lose', 'gain') if gained else verb} {abs(points):.{digits}f} points"


#: Columns that a caption says of a run and its table does not repeat, and how the caption says them.
OF_A_RUN = {"model": "{}", "width": "width {:g}"}


def run_tables(
    rows: pd.DataFrame,
    formats: Mapping[str, str] | str,
    what: str,
    *,
    names: Mapping[str, str] | None = None,
    methods: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> HTML | str:
    """Recorded runs below each other, a table each, with data set, model, width and run in its caption where known.

    Args:
        rows: columns ``run``, ``dataset``, perhaps ``model`` and ``width``, one that tells rows apart, and numbers.
        formats: heading → format, or one format for all columns but the first.
        what: they are, for the captions.
        names: column → how it is headed, in this order; without it all columns that no caption says.
        methods: what is in a column ``method`` → how it is shown.
        about: further columns that a run has one value of → format in the caption; left out where it is nan.

    Returns:
        The tables without columns that are empty, or a sentence if there are no rows.
    """
    if not len(rows):
        return "no recorded run yet"
    told = {key: text for key, text in (OF_A_RUN | dict(about or {})).items() if key in rows}
    names = names or {c: c for c in rows if c not in ("run", "dataset", *told)}
    parts = []
    for (run, dataset), group in rows.groupby(["run", "dataset"], sort=False):
        shown = group[list(names)].dropna(axis=1, how="all").replace({"method": dict(methods or {})})
        shown = shown.rename(columns=names)
        given = dict.fromkeys(shown.columns[1:], formats) if isinstance(formats, str) else formats
        one = group.iloc[0]
        more = [text.format(one[key]) for key, text in told.items() if pd.notna(one[key])]
        caption = ", ".join([f"{what}: {dataset}", *more, f"run {run}"])
        parts.append(table(shown, {c: f for c, f in given.items() if c in shown}, caption).to_html())
    return HTML("".join(parts))
