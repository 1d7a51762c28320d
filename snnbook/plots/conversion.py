"""Figures of the chapters on conversion errors and residual potentials; every function returns its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from .style import COLOURS, MARKERS, figure

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, GREY = COLOURS


def _steps_axis(ax: Axes, steps: Sequence[int]) -> None:
    """A logarithmic axis of time steps with a tick at each."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(steps), [str(t) for t in steps])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("time steps T")


def conversion_error(table: pd.DataFrame, threshold: float) -> Figure:
    """Fig 1(a): ReLU, clipped ReLU and the staircase, with both errors shaded.

    Args:
        table: columns ``z``, ``relu``, ``clipped`` and ``staircase``.
        threshold: θ.
    """
    fig, ax = figure(6.6, 3.6)
    z = table["z"]
    ax.fill_between(
        z, table["clipped"], table["relu"], color=ORANGE, alpha=0.25, lw=0, label="clipping error"
    )
    ax.fill_between(
        z, table["staircase"], table["clipped"], color=GREEN, alpha=0.35, lw=0, label="quantisation error"
    )
    ax.plot(z, table["relu"], color=BLUE, label="ReLU (ANN)")
    ax.plot(z, table["clipped"], color=ORANGE, ls="--", label="clipped ReLU")
    ax.plot(z, table["staircase"], color="black", lw=1.2, label="IF neuron, $\\varphi$")
    ax.axvline(threshold, color=GREY, ls=":", lw=1)
    ax.annotate("$\\theta$", (threshold, 0), (4, 4), textcoords="offset points", color=GREY)
    ax.set(xlabel="drive z", ylabel="output", xlim=(z.min(), z.max()))
    ax.legend(loc="upper left")
    return fig


def constant_drive(table: pd.DataFrame, runs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Simulated neurons on top of the staircase.

    Args:
        table: columns ``z``, ``relu`` and ``clipped``.
        runs: label to ``(z, φ)`` of simulated neurons, each [N].
    """
    fig, axes = figure(7.0, 2.9, ncols=len(runs), sharey=True, squeeze=False)
    for ax, (label, (z, phi)), colour in zip(axes[0], runs.items(), (BLUE, GREEN), strict=False):
        ax.plot(table["z"], table["relu"], color=GREY, lw=1, label="ReLU")
        ax.plot(table["z"], table["clipped"], color=ORANGE, ls="--", lw=1, label="clipped ReLU")
        ax.plot(z, phi, ".", ms=3, color=colour, label="simulated")
        ax.set(title=label, xlabel="drive z")
    axes[0, 0].set_ylabel("output")
    axes[0, 0].legend(loc="upper left")
    return fig


def threshold_tradeoff(table: pd.DataFrame, marks: Mapping[str, float]) -> Figure:
    """Clipping, quantisation and total squared error against θ.

    Args:
        table: columns ``threshold``, ``clipping``, ``quantisation`` and ``total``.
        marks: ways to choose θ, each with its value, drawn as vertical lines.
    """
    fig, ax = figure(6.6, 3.4)
    for column, colour, style in (
        ("clipping", ORANGE, "--"),
        ("quantisation", GREEN, "-."),
        ("total", "black", "-"),
    ):
        ax.plot(table["threshold"], table[column], color=colour, ls=style, label=column)
    top = 1.15 * table["total"].iloc[-1]
    for (label, theta), colour in zip(marks.items(), (GREY, PINK, BLUE), strict=False):
        ax.axvline(theta, color=colour, lw=1.2, ls=":")
        ax.annotate(
            label,
            (theta, top),
            (-4, -4),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            color=colour,
        )
    ax.set(xlabel="threshold θ (standard deviations of z)", ylabel="mean squared error", ylim=(0, top))
    ax.set_xlim(table["threshold"].min(), max(table["threshold"].max(), 1.02 * max(marks.values())))
    ax.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.14))
    return fig


def threshold_methods(table: pd.DataFrame) -> Figure:
    """Chosen θ and its error against T for each method.

    Args:
        table: columns ``time_steps``, ``method``, ``threshold`` and ``total``.
    """
    fig, (left, right) = figure(7.0, 3.0, ncols=2)
    for (method, rows), colour, marker in zip(
        table.groupby("method", sort=False), COLOURS, MARKERS, strict=False
    ):
        left.plot(rows["time_steps"], rows["threshold"], color=colour, marker=marker, label=method)
        right.plot(rows["time_steps"], rows["total"], color=colour, marker=marker, label=method)
    for ax in (left, right):
        _steps_axis(ax, table["time_steps"].unique())
    left.set(ylabel="threshold θ", ylim=(0, None))
    right.set(ylabel="mean squared error", yscale="log")
    left.legend()
    return fig


def rounding_bias(table: pd.DataFrame, levels: int) -> Figure:
    """Mean and root mean square of φ_T − a_L against T for both roundings.

    Args:
        table: columns ``time_steps``, ``rounding``, ``bias`` and ``rms``.
        levels: L.
    """
    fig, (left, right) = figure(7.0, 3.0, ncols=2)
    for (rounding, rows), colour, marker in zip(
        table.groupby("rounding", sort=False), (ORANGE, BLUE), "so", strict=True
    ):
        left.plot(rows["time_steps"], rows["bias"], color=colour, marker=marker, label=rounding)
        right.plot(rows["time_steps"], rows["rms"], color=colour, marker=marker, label=rounding)
    for ax in (left, right):
        _steps_axis(ax, table["time_steps"].unique())
        ax.axvline(levels, color=GREY, ls=":", lw=1)
    left.axhline(0, color=GREY, lw=0.8)
    left.set(ylabel="bias of φ (units of λ)")
    right.set(ylabel="rms of φ − a (units of λ)", ylim=(0, None))
    left.annotate("T = L", (levels, left.get_ylim()[0]), (4, 4), textcoords="offset points", color=GREY)
    left.legend()
    return fig


def _raster(ax: Axes, trains: np.ndarray, labels: Sequence[str], colours: Sequence[str]) -> None:
    """Rows of spikes, first row on top; ``trains`` [T, rows]."""
    for row, colour in enumerate(colours):
        steps = np.flatnonzero(trains[:, row]) + 1
        ax.vlines(steps, -row - 0.35, -row + 0.35, color=colour, lw=3)
    ax.set_yticks([-r for r in range(len(labels))], labels)
    ax.set(ylim=(-len(labels) + 0.4, 0.6))
    ax.grid(False, axis="y")


def spike_orders(
    cases: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], names: Sequence[str]
) -> Figure:
    """Fig 1(b): inputs, potential and output spikes of one neuron, a column for each order of inputs.

    Args:
        cases: title to ``(inputs [T, I], potential v(0..T) [T + 1], spikes [T])``, θ = 1.
        names: labels of the inputs.
    """
    fig, axes = figure(7.0, 3.4, nrows=2, ncols=len(cases), sharex=True, sharey="row", height_ratios=(1, 1.5))
    for column, (title, (inputs, potential, spikes)) in enumerate(cases.items()):
        raster, trace = axes[0, column], axes[1, column]
        trains = np.column_stack([inputs, spikes])
        _raster(raster, trains, [*names, "output"], [BLUE, ORANGE, "black"])
        raster.set_title(title, fontsize=10)
        trace.step(np.arange(len(potential)), potential, where="post", color="black", marker="o", ms=3)
        fired = np.flatnonzero(spikes) + 1
        after = np.asarray(potential)[fired]
        trace.vlines(fired, after, after + 1, color=GREY, ls=":")
        trace.plot(fired, after + 1, "o", ms=4, mfc="white", color=GREY)
        trace.axhspan(0, 1, color=GREEN, alpha=0.15, lw=0)
        trace.axhline(1, color=GREY, ls="--", lw=1)
        trace.set(xlabel="time step t")
        trace.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1, 0].set_ylabel("potential v(t)")
    return fig


def count_bars(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of spike orders for each number of output spikes, a group of bars for each table.

    Args:
        tables: label to a table with columns ``spikes`` and ``orders``.
    """
    fig, ax = figure(6.6, 3.0)
    width, largest = 0.8 / len(tables), 0
    for i, (label, table) in enumerate(tables.items()):
        found = table.groupby("spikes")["orders"].sum()
        bars = ax.bar(
            found.index + (i - (len(tables) - 1) / 2) * width, found, width, color=COLOURS[i], label=label
        )
        ax.bar_label(bars, padding=2, fontsize=9)
        largest = max(largest, found.index.max())
    ax.set_axisbelow(True)
    ax.set(xlabel="output spikes n", ylabel="orders of the input spikes", xticks=range(largest + 1))
    ax.margins(y=0.12)
    ax.legend()
    return fig


def potential_error(tables: Mapping[str, pd.DataFrame], marks: Mapping[str, float]) -> Figure:
    """Mean count error against v(0).

    Args:
        tables: label to a table with columns ``v0`` and ``mean_error``.
        marks: named values of v(0), as vertical lines.
    """
    fig, ax = figure(6.6, 3.4)
    for (label, table), colour, style in zip(
        tables.items(), (BLUE, ORANGE, GREEN), ("-", "--", "-."), strict=False
    ):
        ax.plot(table["v0"], table["mean_error"], color=colour, ls=style, label=label, drawstyle="steps-post")
    ax.axhline(0, color=GREY, lw=0.8)
    for label, v0 in marks.items():
        ax.axvline(v0, color=GREY, ls=":", lw=1)
        ax.annotate(
            label,
            (v0, 1),
            (3, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            rotation=90,
            color=GREY,
            fontsize=9,
        )
    ax.set(xlabel="initial potential v(0), in θ", ylabel="mean of n − target (spikes)")
    ax.legend(loc="lower right")
    return fig


def error_over_steps(
    exact: Mapping[str, pd.DataFrame], sampled: Mapping[str, pd.DataFrame], limits: Mapping[str, float]
) -> Figure:
    """Error in spikes and in φ against T.

    Args:
        exact: label to a table with columns ``time_steps``, ``spike_error`` and ``rate_error``.
        sampled: the same for random orders, drawn hollow.
        limits: label to the limit of the spike error, where there is one.
    """
    fig, (left, right) = figure(7.0, 3.4, ncols=2)
    for label, colour, marker in zip(exact, (BLUE, GREEN, ORANGE), MARKERS, strict=False):
        for ax, column in ((left, "spike_error"), (right, "rate_error")):
            ax.plot(
                exact[label]["time_steps"], exact[label][column], color=colour, marker=marker, label=label
            )
            ax.plot(
                sampled[label]["time_steps"],
                sampled[label][column],
                color=colour,
                marker=marker,
                mfc="white",
                ls=":",
            )
        if label in limits:
            left.axhline(limits[label], color=colour, ls="--", lw=0.8)
    steps = sorted({t for table in (*exact.values(), *sampled.values()) for t in table["time_steps"]})
    for ax in (left, right):
        _steps_axis(ax, steps)
        ax.set_yscale("log")
        ax.tick_params(axis="x", labelsize=8)
    top = 2 * max(table["rate_error"].iloc[0] for table in exact.values())
    x = np.array([steps[0], steps[-1]])
    slow = right.plot(x, top * np.sqrt(steps[0] / x), color=GREY, lw=1, ls="-.", label="∝ 1/√T")
    fast = right.plot(x, top * steps[0] / x, color=GREY, lw=1, label="∝ 1/T")
    right.legend(handles=[*slow, *fast], fontsize=8, loc="lower left")
    left.set(ylabel="E|n − T·a| (spikes)")
    right.set(ylabel="E|φ − a|")
    left.legend(fontsize=8)
    return fig


def residual_plane(n: np.ndarray, v: np.ndarray, ideal: np.ndarray, time_steps: int) -> Figure:
    """Every neuron at (v(T), n), coloured by the sign of n − n*; shaded where the theorem says n = n*.

    Args:
        n, v, ideal: count, residual potential and ideal count of each neuron [N], θ = 1.
        time_steps: T.
    """
    fig, ax = figure(6.6, 3.6)
    kinds = (
        ("n > n*", n > ideal, ORANGE, "s"),
        ("n < n*", n < ideal, PINK, "^"),
        ("n = n*", n == ideal, BLUE, "o"),
    )
    low, high = min(v.min(), -1) - 0.3, max(v.max(), 1) + 0.3
    ax.axvspan(0, 1, color=GREEN, alpha=0.18, lw=0)
    ax.fill_between([low, 0], -0.45, 0.45, color=GREEN, alpha=0.18, lw=0)
    ax.fill_between([1, high], time_steps - 0.45, time_steps + 0.45, color=GREEN, alpha=0.18, lw=0)
    jitter = 0.6 * (np.modf(np.arange(len(n)) * 0.618034)[0] - 0.5)
    for label, which, colour, marker in kinds:
        ax.plot(v[which], (n + jitter)[which], marker, ms=3, color=colour, label=label, alpha=0.8, mew=0)
    ax.set(xlabel="residual potential v(T), in θ", ylabel="output spikes n", xlim=(low, high))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper left", markerscale=1.6)
    return fig


def residual_ratios(table: pd.DataFrame) -> Figure:
    """Plain and corrected share of neurons with a residual error, and the error of φ, against T.

    Args:
        table: columns ``time_steps``, ``plain``, ``corrected``, ``over``, ``under`` and ``rate_error``.
    """
    fig, (left, right) = figure(7.0, 3.0, ncols=2)
    steps = table["time_steps"]
    left.plot(steps, 100 * table["plain"], color=GREY, marker="D", label="v(T) outside [0, θ)")
    left.plot(steps, 100 * table["corrected"], color="black", marker="o", label="n ≠ n*")
    left.plot(steps, 100 * table["over"], color=ORANGE, marker="s", ls="--", lw=1, label="n > n*")
    left.plot(steps, 100 * table["under"], color=PINK, marker="^", ls="--", lw=1, label="n < n*")
    right.plot(steps, table["rate_error"], color=BLUE, marker="o")
    for ax in (left, right):
        _steps_axis(ax, steps)
    left.set(ylabel="neurons (%)", ylim=(0, 100))
    right.set(ylabel="E|n − n*|/T", ylim=(0, None))
    left.legend(fontsize=8, ncols=2, loc="upper left")
    return fig
