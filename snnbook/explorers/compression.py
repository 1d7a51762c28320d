"""Split point, channels and T against bytes and energy, as a paper counts it or with all operations counted."""

from __future__ import annotations

import pandas as pd

from ..bottleneck.grid import METHODS
from .table import Explorer, Key, Panel, Reference

#: Scope of :mod:`snnbook.bottleneck.table3` → text.
SCOPES = {
    "paper": "as in the paper: convolutions of the blocks",
    "+ neurons": "everything that is computed",
    "+ radio": "everything that is computed, and the radio",
}


def compression(table: pd.DataFrame, image_bytes: int, radio: str, image_millijoules: float) -> Explorer:
    """The explorer of compression at a split point.

    Args:
        table: from :func:`snnbook.bottleneck.grid.grid`.
        image_bytes: bytes of the raw image.
        radio: name of the radio.
        image_millijoules: what it takes to send the raw image.

    Raises:
        ValueError: if the table is not such a grid.
    """
    rows = table[table["scope"].isin(list(SCOPES))]
    ends = {c: {"low": rows[c].min() / 1.3, "high": rows[c].max() * 1.3} for c in ("bytes", "millijoules")}
    channels = {int(s): f"one of {s}" for s in rows["share"].unique()}
    return Explorer(
        "compression",
        "Split point, channels and time steps against bytes and energy",
        rows,
        (
            Key("scope", "Energy counted", "choice", SCOPES),
            Key("share", "Channels sent", "choice", channels, 16 if 16 in channels else None),
            Key("time_steps", "Time steps T", "slider", start=2 if (rows["time_steps"] == 2).any() else None),
            Key("method", "method", "", METHODS),
            Key("split_point", "Split point (blocks on the device)", "slider"),
        ),
        "split_point",
        "method",
        (
            Panel("bytes", "bytes a sample", 0, log=True, **ends["bytes"]),
            Panel("millijoules", "energy of the device, mJ a sample", 3, log=True, **ends["millijoules"]),
        ),
        "Cut behind block {split_point}, {share} channels sent, T = {time_steps}, energy {scope}:",
        "{method} {bytes} bytes and {millijoules} mJ",
        (
            Reference("bytes", "raw image", image_bytes),
            Reference("millijoules", f"raw image by {radio}", image_millijoules, {"scope": "+ radio"}),
        ),
    )
