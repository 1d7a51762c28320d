"""Published numbers, as data files with their source; always shown apart from ours."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .checks import check_choice

_FOLDER = Path(__file__).parent / "paper_tables"


def tables() -> list[str]:
    """Names of the published tables."""
    return sorted(p.stem for p in _FOLDER.glob("*.csv"))


def table(name: str) -> pd.DataFrame:
    """A published table, tidy, with the columns ``note`` (errors in print) and ``source``.

    Raises:
        ValueError: for an unknown name, with the known ones.
    """
    check_choice("name", name, tables())
    kept = {"keep_default_na": False, "na_values": [""], "dtype": {"note": str}}
    return pd.read_csv(_FOLDER / f"{name}.csv", **kept).fillna({"note": ""})


def over_time(name: str, dataset: str, model: str) -> pd.DataFrame:
    """One network's rows of a published table, wide: ``method``, ``ANN`` and a column for each T, in percent.

    Raises:
        ValueError: if the table has no such data set or model.
    """
    rows = table(name)
    for column, value in (("dataset", dataset), ("model", model)):
        check_choice(column, value, rows[column].unique())
    rows = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
    wide = rows.pivot(index=["method", "ann_accuracy"], columns="time_steps", values="accuracy")
    wide = wide.reindex(rows[["method", "ann_accuracy"]].drop_duplicates().itertuples(index=False)).reset_index()
    wide.columns = ["method", "ANN", *(f"T = {t}" for t in wide.columns[2:])]
    return wide
