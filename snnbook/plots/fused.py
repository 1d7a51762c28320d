"""Figures of fused inference: what devices send, what a lost one costs, answers in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from .style import COLOURS, MARKERS, figure

#: Names of fusions on pages.
FUSION_NAMES = {"mlp": "MLP, as in the paper", "probe": "linear probe", "logit_average": "mean of logits"}


def _mosaic(spikes: np.ndarray, tiles: int) -> np.ndarray:
    """Counts over T of spikes [T, C, H, W] as one image with room for ``tiles`` channels, a gap between them."""
    counts = spikes.sum(0)
    columns = int(np.ceil(np.sqrt(tiles)))
    rows = -(-tiles // columns)
    padded = np.full((rows * columns, counts.shape[1] + 1, counts.shape[2] + 1), np.nan)
    padded[: len(counts), :-1, :-1] = counts
    return padded.reshape(rows, columns, *padded.shape[1:]).swapaxes(1, 2).reshape(rows * padded.shape[1], -1)


def device_spikes(
    image: np.ndarray, spikes: Sequence[np.ndarray], classes: Sequence[str], shares: np.ndarray
) -> Figure:
    """An input, what each device sends for it, and what the server makes of it.

    Args:
        image: [H, W] or [H, W, 3].
        spikes: [T, C, H', W'] of each device, at most ten.
        classes: the classes of each device, as text.
        shares: [K] probabilities that the server gives.
    """
    fig, axes = figure(8.4, 2.5, ncols=len(spikes) + 2, width_ratios=[1, *[1] * len(spikes), 1.4])
    axes[0].imshow(image, cmap="gray")
    axes[0].set_title("all devices see", fontsize=9)
    tiles = max(sent.shape[1] for sent in spikes)
    for axis, sent, own in zip(axes[1:-1], spikes, classes, strict=True):
        axis.imshow(_mosaic(sent, tiles), cmap="Blues", vmin=-0.15 * len(sent), vmax=len(sent))
        axis.set_title(f"for {own}", fontsize=9)
    for axis in axes[:-1]:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    axes[-1].barh(range(len(shares)), shares, color=COLOURS[0])
    axes[-1].set_yticks(range(len(shares)))
    axes[-1].invert_yaxis()
    axes[-1].set_title("the server answers", fontsize=9)
    axes[-1].set_xlabel("probability")
    for left, right in ((axes[0], axes[1]), (axes[-2], axes[-1])):
        arrow = ConnectionPatch((1.02, 0.5), (-0.06, 0.5), coordsA=left.transAxes, coordsB=right.transAxes,
                                arrowstyle="->", mutation_scale=14, color=COLOURS[6])  # fmt: skip
        fig.add_artist(arrow)
    return fig


def lost_devices(table: pd.DataFrame) -> Figure:
    """Accuracy against the number of lost devices, mean and range over the sets of that size.

    Args:
        table: columns ``training`` (label of a curve), ``lost``, ``accuracy`` (0 to 1).
    """
    fig, axis = figure(6.2, 3.2)
    for i, (name, rows) in enumerate(table.groupby("training", sort=False)):
        found = rows.groupby("lost")["accuracy"].agg(["mean", "min", "max"]) * 100
        axis.plot(found.index, found["mean"], marker=MARKERS[i], color=COLOURS[i], label=name)
        axis.fill_between(found.index, found["min"], found["max"], color=COLOURS[i], alpha=0.15, lw=0)
    axis.set_xlabel("devices lost")
    axis.set_ylabel("test accuracy, %")
    axis.set_xticks(sorted(table["lost"].unique()))
    axis.set_ylim(0, 102)
    axis.legend()
    return fig


def over_devices(table: pd.DataFrame) -> Figure:
    """Accuracy, spikes, bytes and bits against the number of devices: the largest device and all together.

    Args:
        table: one fusion's rows of :func:`snnbook.experiments.ec_snn_fleet.over_devices`.
    """
    panels = (("dense_macs", 1e-6, "MMAC a sample, zeros too"), ("joules", 1e6, "µJ a sample"),
              ("bytes", 1e-3, "kB of tensors"), ("payload_bits", 1e-3, "kbit sent a sample"))  # fmt: skip
    fig, axes = figure(8.4, 4.6, nrows=2, ncols=2, sharex=True)
    for axis, (column, unit, label) in zip(axes.flat, panels, strict=True):
        for i, (which, name) in enumerate((("largest", "busiest device"), ("total", "all devices"))):
            values = table[f"{which}_{column}"] * unit
            axis.plot(table["n_devices"], values, marker=MARKERS[i], color=COLOURS[i], label=name)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.set_xticks(table["n_devices"])
    for axis in axes[-1]:
        axis.set_xlabel("devices")
    axes[0, 0].legend()
    return fig


def answer_latency(table: pd.DataFrame, deadline_ms: float) -> Figure:
    """Latency of answers in the order of requests, whole and partial ones, phase by phase.

    Args:
        table: columns ``phase``, ``latency_ms``, ``partial``.
        deadline_ms: the server's deadline.
    """
    fig, axis = figure(7.6, 3.2)
    table = table.reset_index(drop=True)
    for i, (partial, name) in enumerate(((False, "all devices"), (True, "partial answer"))):
        rows = table[table["partial"] == partial]
        axis.plot(rows.index, rows["latency_ms"], linestyle="", marker=MARKERS[i], ms=4, color=COLOURS[i], label=name)
    axis.axhline(deadline_ms, color=COLOURS[6], ls="--", lw=1, label="deadline")
    for i, (name, rows) in enumerate(table.groupby("phase", sort=False)):
        axis.axvline(rows.index[0] - 0.5, color="#BBBBBB", lw=0.8)
        axis.annotate(name, (rows.index[0], 1.02 + 0.06 * (i % 2)), xycoords=("data", "axes fraction"), fontsize=8)
    axis.set_yscale("log")
    axis.set_xlabel("request")
    axis.set_ylabel("latency, ms")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
