"""Figures of operations and joules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import COLOURS, MARKERS, figure

#: Part and kind of an operation → label and colour, in the order in which bars are stacked.
KINDS = {
    ("connection", "mac"): ("connections, MAC", COLOURS[1]),
    ("connection", "ac"): ("connections, AC", COLOURS[0]),
    ("neuron", "mac"): ("leak, MAC", COLOURS[4]),
    ("neuron", "ac"): ("drive and reset, AC", COLOURS[5]),
    ("pool", "ac"): ("pooling, AC", COLOURS[2]),
    ("residual", "ac"): ("residual additions, AC", COLOURS[3]),
}


def _draw_wires(ax: Axes, values: Sequence[float], n_out: int, active: Sequence[bool], colour: str) -> None:
    ys, yt = np.linspace(1, 0, len(values)), np.linspace(0.9, 0.1, n_out)
    for y, value, on in zip(ys, values, active, strict=True):
        for z in yt:
            ax.plot([0, 1], [y, z], color=colour if on else "#D0D0D0", lw=1.6 if on else 0.8, zorder=1)
        ax.text(-0.09, y, f"{value:g}", ha="right", va="center")
    dots = [colour if on else "#D0D0D0" for on in active]
    ax.scatter(np.zeros(len(values)), ys, s=90, color=dots, zorder=2)
    ax.scatter(np.ones(n_out), yt, s=90, facecolor="white", edgecolor=colour, zorder=2)
    ax.set(xlim=(-0.3, 1.15), ylim=(-0.12, 1.12))
    ax.axis("off")


def mac_and_ac(analogue: Sequence[float], spikes: Sequence[int], n_out: int = 3) -> Figure:
    """The same layer with analogue inputs and with spikes; lines that cost an operation are coloured.

    Args:
        analogue: input values of the ANN.
        spikes: 0/1 inputs of the SNN at one time step.
        n_out: neurons behind.
    """
    fig, (left, right) = figure(6.8, 2.7, ncols=2)
    _draw_wires(left, analogue, n_out, [True] * len(analogue), COLOURS[1])
    left.set_title(f"analogue: {len(analogue)} × {n_out} = {len(analogue) * n_out} MAC", fontsize=10)
    _draw_wires(right, spikes, n_out, [s > 0 for s in spikes], COLOURS[0])
    n = int(sum(spikes))
    right.set_title(f"spikes, one time step: {n} × {n_out} = {n * n_out} AC", fontsize=10)
    return fig


def fan_out_map(fan: np.ndarray, spikes: np.ndarray) -> Figure:
    """How many outputs each input position reaches, with the positions that spike framed.

    Args:
        fan: connections that leave each position [H, W].
        spikes: 0/1 [H, W].
    """
    fig, ax = figure(3.2, 2.9)
    ax.imshow(fan, cmap="Blues", vmin=0, vmax=1.6 * fan.max())
    for (i, j), value in np.ndenumerate(fan):
        ax.text(j, i, f"{value:g}", ha="center", va="center", fontsize=13)
        if spikes[i, j]:
            frame = Rectangle((j - 0.44, i - 0.44), 0.88, 0.88, fill=False, lw=2.5, edgecolor=COLOURS[1])
            ax.add_patch(frame)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    return fig


def operation_counts(table: pd.DataFrame) -> Figure:
    """Operations per layer, stacked by what they are, and per time step.

    Args:
        table: from :func:`snnbook.energy.count_operations`.
    """
    fig, (left, right) = figure(7.4, 3.3, ncols=2, width_ratios=[1.5, 1])
    layers = list(table["layer"].unique())
    wide = table.groupby(["part", "kind", "layer"])["operations"].sum()
    base = np.zeros(len(layers))
    for key, (label, colour) in KINDS.items():
        if key in wide.index:
            heights = wide[key].reindex(layers, fill_value=0.0).to_numpy()
            left.barh(layers, heights, left=base, color=colour, label=label)
            base += heights
    left.invert_yaxis()
    left.set_axisbelow(True)
    left.set(xlabel="operations per sample", title="per layer")
    left.ticklabel_format(axis="x", style="sci", scilimits=(3, 3), useMathText=True)
    left.legend(frameon=False, fontsize=8.5)
    left.grid(axis="y", visible=False)
    steps = table.groupby(["kind", "step"])["operations"].sum()
    for kind, colour, marker in (("ac", COLOURS[0], "o"), ("mac", COLOURS[1], "s")):
        if kind in steps.index:
            right.plot(steps[kind].index, steps[kind], marker=marker, ms=4, color=colour, label=kind.upper())
    right.set(xlabel="time step t", title="per step", ylim=(0, None))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.ticklabel_format(axis="y", style="sci", scilimits=(3, 3), useMathText=True)
    right.legend(frameon=False, fontsize=9)
    return fig


def energy_bars(bars: Mapping[str, pd.DataFrame], mac: float, ac: float) -> Figure:
    """Energy per sample of several accounts, stacked by what the operations are.

    Args:
        bars: label to operations in the columns of :func:`snnbook.energy.count_operations`.
        mac: picojoules of one MAC.
        ac: picojoules of one AC.
    """
    fig, ax = figure(6.8, 0.9 + 0.5 * len(bars))
    base = np.zeros(len(bars))
    sums = [t.groupby(["part", "kind"])["operations"].sum() for t in bars.values()]
    for key, (label, colour) in KINDS.items():
        cost = mac if key[1] == "mac" else ac
        widths = np.array([s.get(key, 0.0) for s in sums]) * cost * 1e-6
        if widths.any():
            ax.barh(list(bars), widths, left=base, color=colour, label=label)
        base += widths
    ax.invert_yaxis()
    ax.set_axisbelow(True)
    ax.set(xlabel="energy per sample (µJ)")
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def break_even(ratios: Mapping[str, float], point: tuple[str, float, float] | None = None) -> Figure:
    """E_SNN/E_ANN against spikes per connection, one line for each price list.

    Args:
        ratios: label to the price of one MAC in ACs; the line crosses 1 there.
        point: label, spikes per connection and ratio of a measured network.
    """
    fig, ax = figure(6.6, 3.3)
    spikes = np.geomspace(0.05, 100, 200)
    for i, (label, ratio) in enumerate(ratios.items()):
        ax.loglog(spikes, spikes / ratio, color=COLOURS[i], ls=("-", "--", "-.", ":")[i % 4], label=label)
        ax.plot(ratio, 1, MARKERS[i], color=COLOURS[i], ms=6)
    ax.axhline(1, color=COLOURS[6], lw=1)
    if point is not None:
        ax.plot(point[1], point[2], "*", ms=13, color="black", label=point[0])
    ax.set(xlabel="spikes per connection and sample", ylabel="$E_{SNN} / E_{ANN}$", ylim=(1e-2, 20))
    ax.legend(frameon=False, fontsize=9)
    return fig


def equation_18(table: pd.DataFrame, printed: tuple[float, float] | None = None) -> Figure:
    """E_SNN/E_ANN against the number of time steps for each reading of equation (18).

    Args:
        table: columns ``reading``, ``time_steps``, ``ratio``.
        printed: T and ratio that the paper prints.
    """
    fig, ax = figure(6.4, 3.2)
    for i, (reading, rows) in enumerate(table.groupby("reading", sort=False)):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 4, "ls": ("-", "--", "-.")[i % 3]}
        ax.plot(rows["time_steps"], 100 * rows["ratio"], label=f"first layer {reading}", **style)
    ax.axhline(100, color=COLOURS[6], lw=1)
    if printed is not None:
        ax.plot(printed[0], 100 * printed[1], "*", ms=14, color="black", label="printed", zorder=3)
    ax.set(xlabel="time steps T", ylabel="energy, % of the ANN's", xlim=(0, None), ylim=(0, None))
    ax.legend(frameon=False, fontsize=9)
    return fig
