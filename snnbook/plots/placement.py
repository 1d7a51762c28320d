"""Figures of chapter 22: devices, loads of a placement, greedy's gap, numbers of devices."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure

#: Rule of placement → label.
RULE_LABELS = {
    "tightest_memory": "greedy, tightest memory",
    "most_energy": "greedy, most energy left",
    "min_latency": "exact, least latency",
    "min_energy": "exact, least energy",
    "min_devices": "exact, fewest devices",
}


def device_costs(table: pd.DataFrame) -> Figure:
    """Seconds and joules of one sample on each device, apart for computing and link, on logarithmic axes.

    Args:
        table: columns ``device``, ``part``, ``seconds``, ``joules``; a row for each device and part.
    """
    devices = list(table["device"].unique())
    fig, axes = figure(7.4, 1.2 + 0.4 * len(devices), ncols=2, sharey=True)
    for ax, column, label in zip(axes, ("seconds", "joules"), ("seconds per sample", "joules per sample"), strict=True):
        for i, (part, rows) in enumerate(table.groupby("part", sort=False)):
            at = [devices.index(d) for d in rows["device"]]
            ax.plot(rows[column], at, MARKERS[i], color=COLOURS[i], ms=8, label=part)
        ax.set(xscale="log", xlabel=label)
    axes[0].set_yticks(range(len(devices)), devices)
    axes[0].set_ylim(len(devices) - 0.5, -0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, fontsize=8, loc="outside upper center", ncols=3)
    return fig


def placement_loads(table: pd.DataFrame) -> Figure:
    """How full each device is: memory and energy budget, with the names of its sub-models.

    Args:
        table: of :func:`snnbook.splitting.cost.per_device`.
    """
    fig, ax = figure(7.4, 0.8 + 0.45 * len(table))
    at = np.arange(len(table))
    for i, (column, label) in enumerate((("memory_used", "memory"), ("budget_used", "energy per sample"))):
        bars = ax.barh(at + 0.2 * (2 * i - 1), 100 * table[column], 0.38, color=COLOURS[i], label=label)
        ax.bar_label(bars, [f"{100 * v:.2g} %" for v in table[column]], padding=3, fontsize=8)
    ax.axvline(100, color="#333333", lw=1, ls="--")
    ax.set_yticks(at, [f"{d}\n{s}" for d, s in zip(table["device"], table["sub_models"], strict=True)], fontsize=8)
    ax.set(xlabel="share of what the device has, %", xlim=(0, 118))
    ax.set_axisbelow(True)
    ax.grid(axis="y", visible=False)
    ax.invert_yaxis()
    ax.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return fig


def greedy_gap(table: pd.DataFrame) -> Figure:
    """Share of random instances in which a greedy placement costs at most so many times the optimum.

    Instances in which the rule finds no placement never come in, so that a curve ends below 100 %.

    Args:
        table: of :func:`snnbook.splitting.comparisons.gaps`.
    """
    fig, axes = figure(7.4, 3.0, ncols=2, sharey=True)
    least = "over the least possible"
    columns = (("seconds_with_link", f"latency {least}"), ("total_joules_with_link", f"energy {least}"))
    for ax, (column, label) in zip(axes, columns, strict=True):
        for i, (rule, rows) in enumerate(table.groupby("rule", sort=False)):
            ratio = np.sort(rows[column].dropna())
            share = 100 * np.arange(1, len(ratio) + 1) / len(rows)
            ax.step(np.r_[1, ratio], np.r_[0, share], where="post", color=COLOURS[i], ls=("-", "--", ":")[i % 3],
                    label=RULE_LABELS.get(rule, rule))  # fmt: skip
        ax.set(xlabel=label, xscale="log", xlim=(0.97, None))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("{x:g}")
        ax.tick_params(axis="x", which="minor", labelsize=7)
    axes[0].set(ylabel="random instances, %", ylim=(0, 102))
    axes[0].legend(fontsize=8, loc="lower right")
    return fig


def device_numbers(table: pd.DataFrame) -> Figure:
    """Slowest device, busiest device and all devices together against N, in percent of the unsplit network.

    Args:
        table: columns ``devices``, ``measure`` and ``percent``.
    """
    fig, ax = figure(6.4, 3.4)
    for i, (measure, rows) in enumerate(table.groupby("measure", sort=False)):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 6, "ls": ("-", "--", "-.", ":")[i % 4]}
        ax.plot(rows["devices"], rows["percent"], label=measure, **style)
    ax.axhline(100, color="#333333", lw=1)
    ticks = sorted(table["devices"].unique())
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set(xlabel="number of devices N; N = 1 is pruning alone", ylabel="% of the unsplit network", ylim=(0, None))
    ax.legend(fontsize=8)
    return fig
