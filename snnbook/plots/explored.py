"""What an explorer shows, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure

Panel = tuple[str, str, bool, tuple[float | None, float | None]]


def explored(
    rows: pd.DataFrame,
    x: tuple[str, str, float],
    series: str,
    names: Mapping[object, str],
    chosen: object,
    panels: Sequence[Panel],
    lines: Mapping[str, Sequence[tuple[str, float]]],
) -> Figure:
    """Lines over ``x``, one for each value of ``series``, in panels side by side.

    Args:
        rows: the table.
        x: column, text and chosen value of the horizontal axis.
        series: column with one line for each value.
        names: all values of ``series`` → text; they keep their colours when some are missing.
        chosen: value of ``series`` that is drawn boldly; all are if None.
        panels: column, text, whether logarithmic, and ends of the axis (None: free).
        lines: column → horizontal lines, text and value.
    """
    fig, axes = figure(3.6 * len(panels) + 0.4, 3.2, ncols=len(panels), squeeze=False)
    for ax, (column, text, log, ends) in zip(axes[0], panels, strict=True):
        for i, (value, name) in enumerate(names.items()):
            mine = rows[rows[series] == value].sort_values(x[0])
            bold = chosen is None or value == chosen
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "lw": 2 if bold else 0.8}
            if len(mine):
                ax.plot(mine[x[0]], mine[column], label=name, ms=5, mfc=None if bold else "white", **style)
        _dress(ax, x, text, log, ends, lines.get(column, ()))
    axes[0, 0].legend(fontsize=7)
    return fig


def _dress(ax: plt.Axes, x: tuple[str, str, float], text: str, log: bool, ends: tuple, lines: Sequence) -> None:
    """Axes, the mark through what is chosen, and horizontal lines."""
    ax.axvline(x[2], color="0.4", ls=":", lw=1.2)
    for name, value in lines:
        ax.axhline(value, color="black", ls="--", lw=1)
        ax.annotate(name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
    ax.set(xlabel=x[1], yscale="log" if log else "linear", ylim=ends)
    ax.set_title(text, fontsize=9)
