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


def run_tables(
    rows: pd.DataFrame,
    names: Mapping[str, str],
    formats: Mapping[str, str],
    what: str,
    about: Mapping[str, str] | None = None,
) -> HTML | str:
    """Recorded runs below each other, a table each, with run, data set and width in its caption.

    Args:
        rows: columns ``run``, ``dataset``, ``width`` and those of ``names``.
        names: column → how it is headed, in this order.
        formats: heading → format.
        what: they are, for the captions.
        about: further columns that a run has one value of → format in the caption; left out where it is nan.

    Returns:
        The tables without columns that are empty, or a sentence if there are no rows.
    """
    if not len(rows):
        return "no recorded run yet"
    parts = []
    for (run, dataset, width), group in rows.groupby(["run", "dataset", "width"], sort=False):
        shown = group[list(names)].dropna(axis=1, how="all").rename(columns=names)
        one = group.iloc[0]
        more = [text.format(one[column]) for column, text in (about or {}).items() if pd.notna(one[column])]
        caption = ", ".join([f"{what}: {dataset}", f"width {width:g}", *more, f"run {run}"])
        parts.append(table(shown, {c: f for c, f in formats.items() if c in shown}, caption).to_html())
    return HTML("".join(parts))


def tables_by_run(rows: pd.DataFrame, formats: str, what: str, names: Mapping[str, str] | None = None) -> HTML | str:
    """Recorded runs below each other, a table each; a page has no room for names that are the same in every row.

    Args:
        rows: columns ``run``, ``dataset``, ``model``, one that tells rows apart, and numbers.
        formats: of the numbers.
        what: they are, for the captions.
        names: what is in a column ``method`` → how it is shown.

    Returns:
        The tables without columns that are empty, or a sentence if there are no rows.
    """
    if not len(rows):
        return "no recorded run yet"
    parts, keys = [], ["run", "dataset", "model"]
    for (run, dataset, model), group in rows.groupby(keys, sort=False):
        shown = group.drop(columns=keys).dropna(axis=1, how="all")
        shown = shown.replace({"method": dict(names)}) if names else shown
        caption = f"{what}: {model} on {dataset}, run {run}"
        parts.append(table(shown, dict.fromkeys(shown.columns[1:], formats), caption).to_html())
    return HTML("".join(parts))
