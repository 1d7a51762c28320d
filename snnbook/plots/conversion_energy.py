"""Figures of chapter 14: rates and operations layer by layer, equation (18) over time, bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure


def layer_rates(rates: Mapping[int, pd.DataFrame], connections: Mapping[int, pd.DataFrame], even: float) -> Figure:
    """Firing rate of each layer of neurons, and spikes per connection of each layer of weights.

    Args:
        rates: T to a table with ``rate``, in forward order.
        connections: T to a table with ``per_connection``, in forward order.
        even: spikes per connection at break-even, drawn as a line.
    """
    fig, (left, right) = figure(7.4, 3.2, ncols=2)
    for i, (T, table) in enumerate(rates.items()):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 5, "label": f"T = {T}"}
        left.plot(np.arange(1, len(table) + 1), table["rate"], **style)
        behind = connections[T]["per_connection"].iloc[1:]
        right.plot(np.arange(2, len(behind) + 2), behind, **style)
    right.axhline(even, color="#333333", lw=1, ls="--")
    left.set(xlabel="layer of neurons", ylabel="spikes per neuron and step", ylim=(0, None))
    right.set(xlabel="layer of weights", ylabel="spikes per connection", yscale="log")
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    left.legend(fontsize=9)
    return fig


def ratio_over_time(table: pd.DataFrame) -> Figure:
    """E_SNN/E_ANN against T for each way to count.

    Args:
        table: columns ``account``, ``time_steps``, ``ratio``.
    """
    fig, ax = figure(6.6, 3.4)
    for i, (account, rows) in enumerate(table.groupby("account", sort=False)):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 5, "ls": ("-", "--", "-.", ":")[i % 4]}
        ax.plot(rows["time_steps"], 100 * rows["ratio"], label=account, **style)
    ax.axhline(100, color="#333333", lw=1)
    ticks = sorted(table["time_steps"].unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set(xlabel="time steps T", ylabel="energy, % of the ANN's", yscale="log")
    ax.legend(fontsize=9)
    return fig


def traffic_bars(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Bytes per image of each schedule, stacked by what moves, a panel for each network.

    Args:
        tables: title to a table of :func:`snnbook.experiments.conversion_energy.traffic`.
    """
    fig, axes = figure(7.4, 2.8, ncols=len(tables), squeeze=False, sharey=True)
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        base = np.zeros(len(table))
        for part, colour in zip(("weights", "activations", "potentials"), COLOURS, strict=False):
            widths = table[part].to_numpy() / 1e6
            ax.barh(table["schedule"], widths, left=base, color=colour, label=part)
            base += widths
        ax.set(xlabel="MB per image", title=title)
        ax.set_axisbelow(True)
        ax.grid(axis="y", visible=False)
    axes[0, 0].invert_yaxis()
    axes[0, -1].legend(fontsize=9)
    return fig
