"""Figures of the chapters on SpikeBottleNet: split points, the codec, bytes, energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import COLOURS, MARKERS, figure

#: Name of an item of the device's energy → legend text and colour.
ENERGY_ITEMS = {
    "blocks": ("convolutions of the blocks", COLOURS[0]),
    "shortcuts": ("shortcuts", COLOURS[1]),
    "stem": ("stem", COLOURS[4]),
    "encoder": ("encoder", COLOURS[2]),
    "neurons and additions": ("neurons and additions", COLOURS[3]),
    "memory": ("memory traffic", COLOURS[5]),
    "radio": ("radio", COLOURS[6]),
}


def _split_axis(ax, points: Sequence[int]) -> None:
    ax.set_xticks(list(points), [str(s) for s in points])
    ax.set_xlabel("split point (blocks on the device)")


def map_sizes(table: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Bytes of the map at each split point, one line for each way to send it, and of the image itself.

    Args:
        table: columns ``split_point`` and one for each way, in bytes.
        references: label to bytes, drawn as horizontal lines.
    """
    fig, ax = figure(7.2, 3.6)
    for i, column in enumerate(c for c in table.columns if c != "split_point"):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 5, "drawstyle": "steps-mid", "label": column}
        ax.plot(table["split_point"], table[column], **style)
    for (label, size), line in zip(references.items(), ("--", ":", "-."), strict=False):
        ax.axhline(size, color="#333333", lw=1, ls=line, label=label)
    ax.set_yscale("log", base=2)
    ax.set(ylabel="bytes")
    _split_axis(ax, table["split_point"])
    ax.legend(fontsize=8.5, ncols=2)
    return fig


def work_split(points: pd.DataFrame) -> Figure:
    """Share of the blocks' MACs and of their parameters on the device, against the split point.

    Args:
        points: from ``split_points`` of the network.
    """
    fig, ax = figure(6.6, 3.2)
    for i, (column, label) in enumerate((("cumulative_macs", "MACs"), ("parameters", "parameters"))):
        share = 100 * points[column] / points[column].iloc[-1]
        ax.plot(points["split_point"], share, color=COLOURS[i], marker=MARKERS[i], ms=5, label=f"{label} on the device")
    ax.set(ylabel="% of all before the classifier", ylim=(0, 104))
    _split_axis(ax, points["split_point"])
    ax.legend(fontsize=9)
    return fig


def cuts_plane(table: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """Bytes against the device's energy, one mark for each split point; the front is joined.

    Args:
        table: ``split_point``, ``bytes``, and for each panel a column of millijoules and one of booleans
            ``<column>_front``.
        panels: column of millijoules to the panel's title.
    """
    fig, axes = figure(7.4, 3.4, ncols=len(panels), squeeze=False, sharey=True)
    for ax, (column, title) in zip(axes[0], panels.items(), strict=True):
        ax.scatter(table[column], table["bytes"], color=COLOURS[6], s=22)
        front = table[table[f"{column}_front"]].sort_values(column)
        ax.plot(front[column], front["bytes"], color=COLOURS[1], marker="s", ms=6, lw=1.2, label="not beaten in both")
        for row in table.itertuples():
            at = (getattr(row, column), row.bytes)
            offset = (4, 4 if row.split_point % 2 else -11)
            ax.annotate(str(row.split_point), at, xytext=offset, textcoords="offset points", fontsize=8)
        ax.set(title=title, xlabel="energy of the device, mJ", xlim=(0, 1.08 * table[column].max()))
        ax.set_yscale("log", base=2)
    axes[0][0].set_ylabel("payload, bytes")
    axes[0][0].legend(fontsize=9)
    return fig


def price_of_a_bit(prices: np.ndarray, totals: Mapping[str, np.ndarray], radios: Mapping[str, float]) -> Figure:
    """Energy of the device for each place to cut against the price of a bit; the cheapest is drawn thick.

    Args:
        prices: nJ a bit, ascending.
        totals: label of a cut to mJ at each price.
        radios: name to nJ a bit, drawn as vertical lines.
    """
    fig, ax = figure(7.6, 3.6)
    least = np.min(list(totals.values()), axis=0)
    ax.plot(prices, least, color="#333333", lw=6, alpha=0.2, label="least")
    for i, (label, total) in enumerate(totals.items()):
        ax.plot(prices, total, color=COLOURS[i % 7], ls=("-", "--")[i // 7], lw=1.4, label=label)
    for name, price in radios.items():
        ax.axvline(price, color="#6B6B6B", lw=0.8, ls=":")
        ax.annotate(name, (price, least.min()), xytext=(-9, 2), textcoords="offset points", fontsize=8, rotation=90)
    ax.set(xscale="log", yscale="log", xlabel="nJ a bit on the radio", ylabel="mJ a sample")
    ax.legend(fontsize=8.5, loc="upper left", bbox_to_anchor=(1.01, 1))
    return fig


_STAGES = (
    ("stem and\nblocks 1 … k", "potentials"),
    ("LIF → Conv →\ntdBN → LIF", "spikes"),
    ("Conv or transposed\nConv → tdBN → LIF", "spikes"),
    ("blocks k+1 …\nand classifier", ""),
)


def codec_picture() -> Figure:
    """Device and server, and between them the encoder, the bits on the wire and the decoder."""
    fig, ax = figure(7.4, 2.4)
    ax.set_axis_off()
    ax.set(xlim=(-0.1, 8.5), ylim=(-0.75, 1.55))
    arrow = {"arrowstyle": "-|>", "color": "#333333", "lw": 1.4}
    lefts = (0.0, 2.0, 4.85, 6.85)
    for i, (left, (text, _)) in enumerate(zip(lefts, _STAGES, strict=True)):
        colour = COLOURS[0] if i < 2 else COLOURS[1]
        ax.add_patch(FancyBboxPatch((left, 0.0), 1.4, 0.9, boxstyle="round,pad=0.04", fc="white", ec=colour, lw=1.6))
        ax.text(left + 0.7, 0.45, text, ha="center", va="center", fontsize=8.5)
    for start, end in ((1.46, 1.94), (3.46, 4.79), (6.31, 6.79)):
        ax.annotate("", (end, 0.45), (start, 0.45), arrowprops=arrow)
    ax.text(4.12, 0.58, "T·c'·h'·w' bits", ha="center", fontsize=8.5)
    for x, text in ((2.7, "encoder"), (5.55, "decoder")):
        ax.text(x, -0.32, text, ha="center", fontsize=9)
    ax.axvline(4.12, ymin=0.05, ymax=0.5, color="#6B6B6B", lw=1, ls=":")
    ax.text(0.0, 1.25, "device", color=COLOURS[0], weight="bold")
    ax.text(8.25, 1.25, "server", color=COLOURS[1], weight="bold", ha="right")
    return fig


def payload_bars(table: pd.DataFrame, image: float) -> Figure:
    """Payloads of both methods at every split point, and the raw image as a line.

    Args:
        table: ``split_point``, ``ann_bytes``, ``snn_bytes``.
        image: bytes of the raw image.
    """
    fig, ax = figure(7.4, 3.2)
    at = table["split_point"].to_numpy()
    for shift, column, label, colour in ((-0.2, "ann_bytes", "BottleNet++, 8 bits", COLOURS[1]),
                                         (0.2, "snn_bytes", "SpikeBottleNet, T bits", COLOURS[0])):  # fmt: skip
        ax.bar(at + shift, table[column], 0.4, color=colour, label=label)
    ax.axhline(image, color="#333333", lw=1, ls="--", label="raw image")
    ax.set_yscale("log", base=2)
    ax.set(ylabel="bytes", ylim=(table["snn_bytes"].min() / 4, None))
    ax.set_axisbelow(True)
    _split_axis(ax, at)
    ax.legend(fontsize=9)
    return fig


def accuracy_against_bytes(table: pd.DataFrame, lines: Mapping[str, float]) -> Figure:
    """Test accuracy of each way to send a feature map against the bytes it takes.

    Args:
        table: ``method``, ``bytes``, ``accuracy`` (0 to 1).
        lines: label to the accuracy of an uncompressed network, drawn as horizontal lines.
    """
    fig, ax = figure(6.6, 3.4)
    for i, (method, rows) in enumerate(table.groupby("method", sort=False)):
        rows = rows.sort_values("bytes")
        ax.plot(rows["bytes"], 100 * rows["accuracy"], color=COLOURS[i], marker=MARKERS[i], ms=7, lw=1, label=method)
    for (label, value), line in zip(lines.items(), ("--", ":"), strict=False):
        ax.axhline(100 * value, color="#333333", lw=1, ls=line, label=label)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="bytes a sample", ylabel="test accuracy, %")
    ax.legend(fontsize=8.5)
    return fig


def implied_rates(table: pd.DataFrame) -> Figure:
    """f_r that two rows of printed ratios stand for, on one axis; where they agree the marks lie on each other.

    Args:
        table: ``split_point``, ``time_steps``, ``rate``, ``rolls_rate``.
    """
    fig, ax = figure(6.8, 3.0)
    ax.plot(table["split_point"], table["rate"], color=COLOURS[0], marker="o", ms=8, mfc="white", label="from 45 nm")
    ax.plot(table["split_point"], table["rolls_rate"], color=COLOURS[1], marker="x", ms=6, ls="", label="from ROLLS")
    for row in table.itertuples():
        ax.annotate(f"T={row.time_steps}", (row.split_point, row.rate), xytext=(0, 8), textcoords="offset points",
                    ha="center", fontsize=7.5)  # fmt: skip
    ax.set(ylabel="spikes per neuron and step", ylim=(0, 1))
    _split_axis(ax, table["split_point"])
    ax.legend(fontsize=9)
    return fig


def device_energy(table: pd.DataFrame) -> Figure:
    """Energy of the device's part by item, stacked, ANN and SNN side by side at each split point.

    Args:
        table: ``split_point``, ``network`` (two of them), ``item`` (of ``ENERGY_ITEMS``), ``millijoules``.
    """
    networks = list(table["network"].unique())
    points = sorted(table["split_point"].unique())
    fig, ax = figure(7.6, 3.8)
    for n, network in enumerate(networks):
        bottom = np.zeros(len(points))
        for item, (label, colour) in ENERGY_ITEMS.items():
            rows = table[(table["network"] == network) & (table["item"] == item)].set_index("split_point")
            height = rows["millijoules"].reindex(points).fillna(0.0).to_numpy()
            if height.any():
                ax.bar(np.arange(len(points)) + (n - 0.5) * 0.42, height, 0.38, bottom=bottom, color=colour,
                       label=label if n == len(networks) - 1 else None,
                       hatch="//" if n == 0 else None, edgecolor="white", lw=0.4)  # fmt: skip
            bottom += height
    ax.set_axisbelow(True)
    ax.set_xticks(np.arange(len(points)), [str(s) for s in points])
    ax.set(xlabel=f"split point; hatched: {networks[0]}, plain: {networks[-1]}", ylabel="mJ a sample")
    ax.legend(fontsize=8.5)
    return fig


def block_activity(rates: pd.DataFrame, operations: pd.DataFrame) -> Figure:
    """Firing rates block by block, and accumulates of each block by the formula and counted.

    Args:
        rates: ``block`` (number from 1), ``rate``, ``cumulative_rate``.
        operations: ``block``, ``formula``, ``counted`` (accumulates a sample).
    """
    fig, (left, right) = figure(7.4, 3.0, ncols=2)
    for i, (column, label) in enumerate((("rate", "of the block"), ("cumulative_rate", "of all up to here: $f_r$"))):
        left.plot(rates["block"], rates[column], color=COLOURS[i], marker=MARKERS[i], ms=5, label=label)
    left.set(xlabel="block", ylabel="spikes per neuron and step", ylim=(0, None))
    for shift, column, colour in ((-0.2, "formula", COLOURS[1]), (0.2, "counted", COLOURS[0])):
        right.bar(operations["block"] + shift, operations[column] / 1e3, 0.4, color=colour, label=column)
    right.set(xlabel="block", ylabel="thousand accumulates a sample")
    for ax in (left, right):
        ax.set_xticks(list(rates["block"]))
        ax.set_ylim(0, 1.35 * ax.get_ylim()[1])
        ax.set_axisbelow(True)
        ax.legend(fontsize=8.5, loc="upper right")
    return fig
