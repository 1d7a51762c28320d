"""Figures of chapter 24: what arrives of pictures, events and sounds, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure


def event_picture(frame: np.ndarray) -> np.ndarray:
    """Counts of OFF and ON events [2, H, W] as an RGB picture [H, W, 3]: white, ON blue, OFF orange."""
    off, on = np.clip(frame / max(1.0, frame.max()), 0, 1)
    ink = lambda colour: 1 - np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])  # noqa: E731
    return np.clip(1 - on[..., None] * ink(COLOURS[0]) - off[..., None] * ink(COLOURS[1]), 0, 1)


def _picture(frame: np.ndarray) -> np.ndarray:
    """One frame [C, H, W] as a picture: events in two colours, three channels as RGB, one as grey."""
    if len(frame) == 2:
        return event_picture(frame)
    scaled = (frame - frame.min()) / max(1e-9, float(frame.max() - frame.min()))
    return scaled.transpose(1, 2, 0) if len(frame) == 3 else scaled[0]


def arrivals(inputs: Mapping[str, np.ndarray], spikes: Mapping[str, np.ndarray]) -> Figure:
    """What arrives at each step, and which share of the first layer's channels fires where: two rows a data set.

    Args:
        inputs: data set → frames [T, C, H, W].
        spikes: the same data sets → share of channels that fire [T, H, W], 0 to 1.
    """
    steps = max(len(x) for x in inputs.values())
    fig, axes = figure(1.15 * steps + 0.9, 2.2 * len(inputs), nrows=2 * len(inputs), ncols=steps, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    for i, (name, x) in enumerate(inputs.items()):
        for t in range(len(x)):
            axes[2 * i, t].imshow(_picture(x[t]), cmap="gray", interpolation="nearest")
            axes[2 * i + 1, t].imshow(spikes[name][t], cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        axes[2 * i, 0].set_ylabel(name, fontsize=8)
        axes[2 * i + 1, 0].set_ylabel("first layer", fontsize=8)
    for t in range(steps):
        axes[0, t].set_title(f"t = {t + 1}", fontsize=9)
    return fig


def rates_over_steps(table: pd.DataFrame) -> Figure:
    """Spikes per neuron at each step, a line for each layer, a panel for each data set.

    Args:
        table: columns ``dataset``, ``layer``, ``step``, ``rate``.
    """
    sets = list(table["dataset"].unique())
    fig, axes = figure(2.6 * len(sets) + 0.4, 2.8, ncols=len(sets), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], sets, strict=True):
        layers = table[table["dataset"] == name].groupby("layer")
        for (layer, rows), i in zip(layers, range(len(layers)), strict=True):
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            ax.plot(rows["step"], rows["rate"], ms=5, label=f"layer {layer}", **style)
        ax.set(xlabel="time step t", title=name, xticks=sorted(table["step"].unique()), ylim=(0, None))
    axes[0, 0].set_ylabel("spikes per neuron")
    axes[0, -1].legend(fontsize=8)
    return fig


def accuracy_by_set(table: pd.DataFrame) -> Figure:
    """Accuracy of the ANN, of the unsplit SNN and of the fused sub-models, a group of points for each data set.

    Args:
        table: columns ``dataset``, ``n_devices``, ``ann``, ``unsplit``, ``fused`` (0 to 1); means over seeds are drawn.
    """
    mean = table.groupby(["dataset", "n_devices"], sort=False)[["ann", "unsplit", "fused"]].mean().reset_index()
    sets, counts = list(mean["dataset"].unique()), sorted(mean["n_devices"].unique())
    fig, ax = figure(1.7 * len(sets) + 1.8, 3.0)
    whole = mean.groupby("dataset", sort=False)[["ann", "unsplit"]].mean()
    series = [("ANN", whole["ann"]), ("SNN, unsplit", whole["unsplit"])]
    series += [(f"N = {n}", mean[mean["n_devices"] == n].set_index("dataset")["fused"]) for n in counts]
    for i, (label, values) in enumerate(series):
        at = np.arange(len(sets)) + (i - (len(series) - 1) / 2) * 0.15
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        ax.plot(at, 100 * values.reindex(sets), ls="", ms=7, label=label, **style)
    ax.set(xticks=range(len(sets)), xticklabels=sets, ylabel="test accuracy, %", xlim=(-0.6, len(sets) - 0.4))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def bits_by_set(table: pd.DataFrame) -> Figure:
    """Bits of one sample: from the sensor, from the largest device and from all devices.

    Args:
        table: columns ``dataset``, ``n_devices``, ``input_bits``, ``largest_bits``, ``total_bits``.
    """
    sets, counts = list(table["dataset"].unique()), sorted(table["n_devices"].unique())
    fig, ax = figure(1.7 * len(sets) + 2.2, 3.0)
    first = table.drop_duplicates("dataset").set_index("dataset")
    bars = [("sensor", first["input_bits"])]
    for n in counts:
        rows = table[table["n_devices"] == n].drop_duplicates("dataset").set_index("dataset")
        bars += [(f"busiest device, N = {n}", rows["largest_bits"]), (f"all devices, N = {n}", rows["total_bits"])]
    width = 0.8 / len(bars)
    for i, (label, values) in enumerate(bars):
        at = np.arange(len(sets)) + (i - (len(bars) - 1) / 2) * width
        hatch = ("", "//", "..")[i % 3]
        ax.bar(at, values.reindex(sets) / 1000, width, color=COLOURS[i % len(COLOURS)], hatch=hatch, label=label,
               edgecolor="white")  # fmt: skip
    ax.set(xticks=range(len(sets)), xticklabels=sets, ylabel="kbit a sample")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
