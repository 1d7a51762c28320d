"""Figures of one neuron: traces, f–I curves, rate codes, surrogate gradients, one weight learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import COLOURS, MARKERS, figure


def _draw_potential(ax: Axes, rows: pd.DataFrame, threshold: float) -> None:
    """Charging as slopes, resets as vertical drops, a dot where the potential is before firing."""
    step = rows["step"].to_numpy()
    t = np.stack([step - 1, step, step], 1).ravel()
    v = rows[["before", "h", "v"]].to_numpy().ravel()
    ax.plot(t, v, color=COLOURS[0], lw=1.3)
    fired = rows[rows["spike"] == 1]
    ax.plot(fired["step"], fired["h"], "o", ms=4, color=COLOURS[1])
    ax.axhline(threshold, color=COLOURS[6], ls="--", lw=1)


def neuron_traces(
    traces: Mapping[str, pd.DataFrame], threshold: float, boundaries: Sequence[float] = ()
) -> Figure:
    """Drive, membrane potential and spikes of one neuron or of several side by side.

    Args:
        traces: title to a table of :func:`snnbook.firing.trace`.
        threshold: θ, drawn as a dashed line.
        boundaries: steps after which a dotted line is drawn (the end of a sample).

    Returns:
        The figure; three rows of panels, one column for each trace.
    """
    width = {1: 6.2, 2: 6.6}.get(len(traces), 2.7 * len(traces))
    grid = {"nrows": 3, "ncols": len(traces), "squeeze": False, "height_ratios": [1, 2.2, 0.6]}
    fig, axes = figure(width, 3.9, sharex="col", sharey="row", **grid)
    for (drive, potential, spikes), (title, rows) in zip(axes.T, traces.items(), strict=True):
        drive.bar(rows["step"] - 0.5, rows["drive"], width=0.8, color=COLOURS[5])
        drive.set_title(title, fontsize=10)
        _draw_potential(potential, rows, threshold)
        spikes.vlines(rows.loc[rows["spike"] == 1, "step"], 0, 1, color=COLOURS[1], lw=2)
        spikes.set(xlabel="time step t", yticks=[], ylim=(0, 1.1), xlim=(0, len(rows) + 0.5))
        spikes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        potential.annotate("θ", (len(rows), threshold), (0, 3), textcoords="offset points", color=COLOURS[6])
        for ax in (drive, potential, spikes):
            ax.set_axisbelow(True)
            for end in boundaries:
                ax.axvline(end, color=COLOURS[6], ls=":", lw=1.2)
    for ax, label in zip(axes[:, 0], ("drive x", "potential v", "spike s"), strict=True):
        ax.set_ylabel(label)
    fig.align_ylabels(axes[:, 0])
    return fig


def fi_curves(table: pd.DataFrame, rheobases: Mapping[str, float]) -> Figure:
    """Firing rate against constant drive, closed form as a line and simulation as points.

    Args:
        table: columns ``neuron``, ``drive``, ``closed_form``, ``simulated`` (spikes per step).
        rheobases: neuron to the drive above which it fires, drawn as a dotted line.
    """
    fig, ax = figure(6.4, 3.3)
    for i, (name, rows) in enumerate(table.groupby("neuron", sort=False)):
        style = {"color": COLOURS[i], "lw": 1.2, "drawstyle": "steps-mid"}
        ax.plot(rows["drive"], rows["closed_form"], label=name, **style)
        some = rows.iloc[:: max(1, len(rows) // 25)]
        ax.plot(some["drive"], some["simulated"], MARKERS[i], ms=4, color=COLOURS[i], mfc="white")
        if name in rheobases:
            ax.axvline(rheobases[name], color=COLOURS[i], ls=":", lw=1)
    ax.set(xlabel="constant drive x", ylabel="firing rate n / T")
    ax.legend(frameon=False)
    return fig


def rate_codes(codes: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """The staircase at several T, and the error of three codes against T.

    Args:
        codes: columns ``time_steps``, ``drive`` (in units of θ), ``rate``.
        errors: table of :func:`snnbook.firing.code_errors`.
    """
    fig, (left, right) = figure(7.2, 3.2, ncols=2)
    for i, (T, rows) in enumerate(codes.groupby("time_steps")):
        left.plot(rows["drive"], rows["rate"], color=COLOURS[i], lw=1.4, label=f"T = {T}")
    left.set(xlabel="drive x / θ", ylabel="firing rate n / T", title="what a rate can say")
    left.legend(frameon=False, fontsize=9)
    names = {"random": "random spikes", "floor": "IF, v(0) = 0", "rounded": "IF, v(0) = θ/2"}
    for i, (column, label) in enumerate(names.items()):
        style = {"marker": MARKERS[i], "ms": 4, "color": COLOURS[i], "label": label}
        right.loglog(errors["time_steps"], errors[column], **style)
    right.set(xlabel="time steps T", ylabel="RMS error of the rate", title="how far it is off")
    right.legend(frameon=False, fontsize=9)
    return fig


def surrogate_slopes(table: pd.DataFrame) -> Figure:
    """The step 1[h ≥ θ] and the bumps that stand in for its derivative.

    Args:
        table: column ``over`` = h − θ, one more column for each surrogate.
    """
    fig, (left, right) = figure(7.4, 2.6, ncols=2, width_ratios=[1, 1.6])
    over = table["over"]
    left.plot(over, over >= 0, color=COLOURS[6], drawstyle="steps-post")
    left.set(xlabel="h − θ", ylabel="spike s", title="forward pass", yticks=[0, 1])
    for i, name in enumerate(table.columns.drop("over")):
        right.plot(over, table[name], color=COLOURS[i], label=name, ls=("-", "--", "-.")[i % 3])
    right.set(xlabel="h − θ", ylabel="∂s/∂h, as if", title="backward pass")
    right.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def rate_gradients(table: pd.DataFrame, time_steps: int) -> Figure:
    """Firing rate against one weight, and three derivatives of it.

    Args:
        table: columns ``weight``, ``rate``, ``secant`` (central difference with a wide step), ``kept`` and
            ``detached`` (surrogate gradients with the reset in and out of the graph).
        time_steps: T, for the axis.
    """
    fig, (top, bottom) = figure(6.4, 4.4, nrows=2, sharex=True)
    top.plot(table["weight"], table["rate"], color=COLOURS[6], lw=1.2)
    top.set(ylabel="rate n / T", title=f"IF neuron, input 1 at each of T = {time_steps} steps")
    bottom.axhline(0, color=COLOURS[6], lw=1.6, label="true derivative")
    labels = {
        "secant": "secant over ±0.1 θ",
        "kept": "surrogate, through the reset",
        "detached": "surrogate, reset detached",
    }
    for i, (column, label) in enumerate(labels.items()):
        bottom.plot(table["weight"], table[column], color=COLOURS[i], ls=(":", "-", "--")[i], label=label)
    bottom.set(xlabel="weight w", ylabel="d(rate)/dw")
    bottom.set_yscale("symlog", linthresh=1, linscale=1.5)
    bottom.legend(frameon=False, fontsize=8.5, ncols=2, loc="center", bbox_to_anchor=(0.4, 0.22))
    return fig


def learning_curves(fits: Mapping[str, pd.DataFrame], target: float) -> Figure:
    """One neuron that learns a rate: its weight and its rate over the iterations.

    Args:
        fits: label to a table of :func:`snnbook.surrogates.fit_rate`.
        target: the wanted rate, dashed.
    """
    fig, (left, right) = figure(7.2, 2.9, ncols=2)
    for i, (label, rows) in enumerate(fits.items()):
        style = {"color": COLOURS[i], "ls": ("-", "--", "-.")[i % 3], "label": label}
        left.plot(rows["iteration"], rows["weight"], **style)
        right.plot(rows["iteration"], rows["rate"], drawstyle="steps-post", **style)
    right.axhline(target, color=COLOURS[6], lw=1, ls=":")
    left.set(xlabel="iteration", ylabel="weight w")
    right.set(xlabel="iteration", ylabel="rate n / T")
    left.legend(frameon=False, fontsize=9)
    return fig
