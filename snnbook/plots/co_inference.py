"""Figures of device and server at work together: who works when, latency against the rate of the link."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure

#: Stages of one sample: name, and columns of :func:`snnbook.experiments.spike_fleet.timeline` where it begins and ends.
STAGES = (("device", "start", "computed"), ("link", "sending", "received"), ("server", "received", "answered"))


def co_inference_timeline(timelines: Mapping[str, pd.DataFrame]) -> Figure:
    """Device, link and server over time, one panel for each way to work, a colour for each sample.

    Args:
        timelines: tables of :func:`snnbook.experiments.spike_fleet.timeline` by title; all are drawn to the same scale.
    """
    fig, axes = figure(7.6, 1.5 * len(timelines) + 0.6, nrows=len(timelines), sharex=True, squeeze=False)
    for axis, (title, table) in zip(axes[:, 0], timelines.items(), strict=True):
        for i, row in enumerate(table.itertuples()):
            for lane, (_, begin, end) in enumerate(STAGES):
                left, right = getattr(row, begin), getattr(row, end)
                axis.barh(lane, right - left, left=left, height=0.7, color=COLOURS[i % 6], edgecolor="white", lw=0.8)
                if lane == 1:
                    axis.text((left + right) / 2, lane, str(i), ha="center", va="center", color="white", fontsize=8)
        axis.set_yticks(range(len(STAGES)), [name for name, _, _ in STAGES])
        axis.invert_yaxis()
        axis.set_axisbelow(True)
        axis.grid(axis="y", visible=False)
        axis.set_title(title, fontsize=10, loc="left")
    axes[-1, 0].set_xlabel("time, ms")
    return fig


def latency_over_rate(
    measured: Mapping[str, pd.DataFrame], curves: Mapping[str, np.ndarray], rates: np.ndarray, crossing: float = 0.0
) -> Figure:
    """Latency of a sample against the rate of the link, measured points on the curves of the closed form.

    Args:
        measured: tables with columns ``rate`` (bit/s) and ``latency_ms``, by name; names are among the curves'.
        curves: latency in ms at ``rates``, by name.
        rates: bit/s.
        crossing: break-even rate in bit/s to mark, 0 for none.
    """
    fig, axis = figure(7.0, 3.6)
    for i, (name, values) in enumerate(curves.items()):
        axis.plot(rates / 1e3, values, color=COLOURS[i], ls="-" if name in measured else "--", label=name)
        if name in measured:
            table = measured[name]
            axis.plot(table["rate"] / 1e3, table["latency_ms"], color=COLOURS[i], marker=MARKERS[i], ls="")
    if np.isfinite(crossing) and rates.min() <= crossing <= rates.max():
        axis.axvline(crossing / 1e3, color=COLOURS[6], ls=":", label="break-even")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("rate of the link, kbit/s")
    axis.set_ylabel("latency of a sample, ms")
    axis.legend()
    return fig


def window_curves(table: pd.DataFrame, link_rate: float) -> Figure:
    """Throughput and latency against the number of samples on their way.

    Args:
        table: of :func:`snnbook.experiments.spike_fleet.over_windows`.
        link_rate: messages a second that the link can carry.
    """
    fig, axes = figure(7.6, 2.8, ncols=2)
    for axis, column, label in zip(axes, ("per_second", "latency_ms"), ("samples a second", "mean latency, ms"),
                                   strict=True):  # fmt: skip
        axis.plot(table["window"], table[column], color=COLOURS[0], marker=MARKERS[0])
        axis.set_xlabel("samples on their way at most")
        axis.set_ylabel(label)
        axis.set_xticks(table["window"])
        axis.set_ylim(bottom=0)
    axes[0].axhline(link_rate, color=COLOURS[6], ls="--", lw=1, label="what the link can carry")
    axes[0].set_ylim(0, 1.2 * max(link_rate, table["per_second"].max()))
    axes[0].legend(loc="lower right")
    return fig


def early_exit_curve(table: pd.DataFrame) -> Figure:
    """Accuracy against the mean number of time steps that are sent, with the confidences that lead there.

    Args:
        table: of :func:`snnbook.experiments.early_exit.early_exit`.
    """
    fig, axis = figure(6.4, 3.0)
    axis.plot(table["steps"], 100 * table["accuracy"], color=COLOURS[0], marker=MARKERS[0])
    for row in table.itertuples():
        where = (row.steps, 100 * row.accuracy)
        axis.annotate(f"{row.threshold:g}", where, (0, -13), textcoords="offset points", ha="center", fontsize=8)
    axis.set_xlabel("time steps sent, mean")
    axis.set_ylabel("test accuracy, %")
    axis.margins(y=0.25)
    return fig
