"""Figures of compression against accuracy: payloads, the search, rate-accuracy curves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure

#: Start of a family's name → colour; within a kind, families differ in marker and line.
KINDS = {
    "spikes": COLOURS[0],
    "codes": COLOURS[1],
    "coded": COLOURS[2],
    "random mask": COLOURS[3],
    "PNG": COLOURS[6],
    "JPEG": COLOURS[4],
    "WebP": COLOURS[5],
}

_LINES = ("-", "--", ":", "-.")


def family_styles(families: list[str]) -> dict[str, dict]:
    """Colour, marker and line of each family: the colour tells the kind, the marker the member.

    Raises:
        KeyError: for a family of no kind in ``KINDS``.
    """
    styles, seen = {}, dict.fromkeys(KINDS, 0)
    for family in families:
        kind = next((k for k in KINDS if family.startswith(k)), None)
        if kind is None:
            raise KeyError(f"family {family!r} begins with none of {', '.join(KINDS)}")
        n, marker = seen[kind], MARKERS[(list(KINDS).index(kind) + 2 * seen[kind]) % len(MARKERS)]
        seen[kind] += 1
        face = KINDS[kind] if n % 2 == 0 else "white"
        styles[family] = {"color": KINDS[kind], "marker": marker, "ls": _LINES[n % 4], "mfc": face}
    return styles


def payload_lines(table: pd.DataFrame, image: float) -> Figure:
    """Bytes at every split point: the map as spikes, both payloads, the raw image; compression written at the payload.

    Args:
        table: ``split_point``, ``map_bytes``, ``ann_bytes``, ``snn_bytes``, ``compression``.
        image: bytes of the raw image.
    """
    fig, ax = figure(7.6, 3.8)
    rows = (("map_bytes", "map, T bits each"), ("ann_bytes", "BottleNet++, 8 bits"), ("snn_bytes", "SpikeBottleNet"))
    for (column, label), colour, marker in zip(rows, (COLOURS[6], COLOURS[1], COLOURS[0]), "Dso", strict=True):
        ax.plot(table["split_point"], table[column], color=colour, marker=marker, ms=5, lw=1.2, label=label)
    for row in table.itertuples():
        at = (row.split_point, row.snn_bytes)
        ax.annotate(f"{row.compression:.0f}×", at, xytext=(0, -14), textcoords="offset points", ha="center", fontsize=8)
    ax.axhline(image, color="#333333", lw=1, ls="--", label="raw image")
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.set(ylabel="bytes", xlabel="split point (blocks on the device)", ylim=(table["snn_bytes"].min() / 3, None))
    ax.set_xticks(list(table["split_point"]))
    ax.legend(fontsize=8.5, ncols=2)
    return fig


def compression_drop(table: pd.DataFrame, limit: float, panels: Mapping[str, str]) -> Figure:
    """Drop of accuracy against compression of 32-bit floats, one panel for each reference of the drop.

    Args:
        table: ``split_point``, ``time_steps``, ``float32``, and for each panel a column of drops (0 to 1) and one of
            booleans ``<column>_front``, the candidates that none beats in both.
        limit: largest drop that the search allows, 0 to 1.
        panels: column of drops to the panel's title.
    """
    fig, axes = figure(7.8, 3.6, ncols=len(panels), squeeze=False, sharey=True, sharex=True)
    for ax, (column, title) in zip(axes[0], panels.items(), strict=True):
        front = table[table[f"{column}_front"]].sort_values("float32")
        ax.plot(front["float32"], 100 * front[column], color="#333333", lw=1, zorder=1, label="beaten by none")
        for i, (T, rows) in enumerate(table.groupby("time_steps")):
            style = {"color": COLOURS[i], "marker": MARKERS[i], "label": f"T = {T}", "s": 34, "zorder": 2}
            ax.scatter(rows["float32"], 100 * rows[column], **style)
        for row in table.itertuples():
            at = (row.float32, 100 * getattr(row, column))
            ax.annotate(str(row.split_point), at, xytext=(4, 4), textcoords="offset points", fontsize=7.5)
        ax.axhline(100 * limit, color=COLOURS[6], lw=1, ls="--", label="limit")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set(title=title, xlabel="compression of 32-bit floats")
    axes[0][0].set_ylabel("drop of accuracy, points")
    axes[0][0].legend(fontsize=8.5)
    return fig


def rate_accuracy(table: pd.DataFrame, lines: Mapping[str, float]) -> Figure:
    """Test accuracy against bytes: each family's points, joined by what validation images choose in so many bytes.

    Args:
        table: ``family``, ``bytes``, ``accuracy`` and ``validation_accuracy`` (0 to 1). The line stands at the accuracy
            of the payload of at most so many bytes that has the highest validation accuracy, of equals the smallest.
        lines: label to the accuracy of an uncompressed network, drawn as horizontal lines.
    """
    fig, ax = figure(8.2, 4.2)
    styles = family_styles(list(dict.fromkeys(table["family"])))
    for family, rows in table.groupby("family", sort=False):
        rows = rows.sort_values(["bytes", "validation_accuracy"], ascending=[True, False], kind="stable")
        style, best = styles[family], rows["validation_accuracy"].expanding().apply(np.argmax, raw=True).astype(int)
        join = {"color": style["color"], "ls": style["ls"], "lw": 1.1, "drawstyle": "steps-post"}
        ax.plot(rows["bytes"], 100 * rows["accuracy"].to_numpy()[best], zorder=1, **join)
        ax.plot(rows["bytes"], 100 * rows["accuracy"], ms=6.5, zorder=2, label=family, **style | {"ls": ""})
    for (label, value), line in zip(lines.items(), ("--", ":", "-."), strict=False):
        ax.axhline(100 * value, color="#333333", lw=0.9, ls=line, label=label)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="bytes a sample", ylabel="test accuracy, %")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return fig
