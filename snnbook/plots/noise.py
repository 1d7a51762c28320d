"""Figures of chapter 34: accuracy behind noisy links."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure

#: Networks of the chapter → legend text.
NETWORK_NAMES = {
    "spikes": "spikes",
    "spikes, noise": "spikes, trained with noise",
    "mask": "random part of a wider map",
    "1 bit": "1-bit ANN",
    "1 bit, noise": "1-bit ANN, trained with noise",
    "8 bits": "8-bit ANN",
    "8 bits, noise": "8-bit ANN, trained with noise",
    "sparse": "spikes, trained with a price on bits",
}


def _level(ax: plt.Axes, label: str) -> None:
    ax.set(xlabel=label, ylabel="test accuracy, %", ylim=(0, 102))


def accuracy_over_noise(
    table: pd.DataFrame,
    coded: pd.DataFrame | None = None,
    label: str = "bit error rate",
    title: str = "spikes",
    coded_label: str = "bit error rate",
) -> Figure:
    """Mean accuracy of each network against the level of noise, with the range over draws; codes dashed.

    Args:
        table: columns ``network``, ``level``, ``draw``, ``accuracy`` (0 to 1).
        coded: columns ``network``, ``rate``, ``level``, ``accuracy``; drawn in a panel of their own.
        label: of the horizontal axis of networks.
        title: of the panel of networks, if there are two.
        coded_label: of the horizontal axis of codes.
    """
    panels = 1 if coded is None else 2
    fig, axes = figure(4.2 * panels + 0.8, 3.6, ncols=panels, squeeze=False, sharey=True)
    styles = zip(COLOURS, MARKERS, strict=True)
    for (name, rows), (colour, marker) in zip(table.groupby("network", sort=False), styles, strict=False):
        by = 100 * rows.groupby("level")["accuracy"].agg(["mean", "min", "max"])
        axes[0, 0].fill_between(by.index, by["min"], by["max"], color=colour, alpha=0.15, lw=0)
        text = NETWORK_NAMES.get(name, name)
        axes[0, 0].plot(by.index, by["mean"], color=colour, marker=marker, ms=5, label=text)
    _level(axes[0, 0], label)
    axes[0, 0].legend(fontsize=8, loc="lower left")
    if coded is not None:
        _coded(axes[0, 1], coded)
        _level(axes[0, 1], coded_label)
        axes[0, 0].set_title(title, fontsize=10)
        axes[0, 1].set_title("checksum and error-correcting code", fontsize=10)
        axes[0, 1].set_ylabel("")
    return fig


def _coded(ax: plt.Axes, coded: pd.DataFrame) -> None:
    groups = coded.groupby(["network", "rate"], sort=False)
    for i, ((name, rate), rows) in enumerate(groups):
        style = {"color": COLOURS[0] if name == "spikes" else COLOURS[4], "marker": MARKERS[i % len(MARKERS)]}
        text = f"{'JPEG' if name == 'jpeg' else name}, rate {rate:g}: {rows['bits'].iloc[0]:,.0f} bit"
        rows = rows.sort_values("level")
        ax.plot(rows["level"], 100 * rows["accuracy"], ls="--", ms=5, label=text, **style)
    ax.legend(fontsize=8, loc="upper right")


def exit_curve(table: pd.DataFrame) -> Figure:
    """Accuracy against mean bits of a sample under early exit, a line for each network and level of noise.

    Args:
        table: columns ``network``, ``level``, ``threshold``, ``bits``, ``accuracy`` (0 to 1).
    """
    fig, ax = figure(6.4, 3.2)
    for i, ((name, level), rows) in enumerate(table.groupby(["network", "level"], sort=False)):
        rows = rows.sort_values("bits")
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        text = f"{NETWORK_NAMES.get(name, name)}; noise {level:g}"
        ax.plot(rows["bits"], 100 * rows["accuracy"], ms=5, label=text, **style)
    ax.set(xlabel="bits a sample, mean", ylabel="test accuracy, %")
    ax.legend(fontsize=8)
    return fig


def coded_bytes(table: pd.DataFrame) -> Figure:
    """Bytes of a sample's spikes, packed, and range-coded under each context, a group of bars for each network.

    Args:
        table: columns ``network``, ``context``, ``rate``, ``packed``, ``actual``.
    """
    names, contexts = list(table["network"].unique()), list(table["context"].unique())
    fig, ax = figure(6.8, 3.0)
    width = 0.8 / (len(contexts) + 1)
    for i, context in enumerate([None, *contexts]):
        rows = table[table["context"] == (context or contexts[0])].set_index("network").loc[names]
        at = [j + (i - len(contexts) / 2) * width for j in range(len(names))]
        bars = rows["packed" if context is None else "actual"]
        ax.bar(at, bars, width, color=COLOURS[i % len(COLOURS)], label=context or "packed", edgecolor="white",
               hatch=("", "//", "..", "xx", "\\\\")[i % 5])  # fmt: skip
    rates = table.groupby("network")["rate"].first()
    labels = [f"{NETWORK_NAMES.get(n, n)}\nfiring rate {rates[n]:.2f}" for n in names]
    ax.set(xticks=range(len(names)), xticklabels=labels, ylabel="bytes a sample")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
