"""Small tables for the pages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pandas as pd
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
