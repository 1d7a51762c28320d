"""Small tables for the pages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler


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
