"""Figures of chapter 40: which plan is best where, the front, and costs over the rate of the link."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .style import COLOURS, MARKERS, figure

#: Family of plans → colour, hatch, marker.
_LOOKS = {
    "ANN on the device": (COLOURS[0], "", MARKERS[0]),
    "SNN on the device": (COLOURS[2], "//", MARKERS[1]),
    "image to the server": (COLOURS[4], "..", MARKERS[2]),
    "EC-SNN": (COLOURS[3], "\\\\", MARKERS[3]),
    "SpikeBottleNet": (COLOURS[5], "xx", MARKERS[4]),
    "": ("#BBBBBB", "", ""),
}

#: What each measured cost is called on an axis, and its factor.
_AXES = {"joules": ("edge energy, mJ", 1e3), "seconds": ("latency, ms", 1e3), "bytes": ("payload, bytes", 1.0)}


def _regions(rows: pd.DataFrame) -> list[dict]:
    """Rectangles of a map, those that continue each other over the floor joined."""
    open_, done = {}, []
    for r in rows.sort_values("floor_low").itertuples():
        key = r.plan, round(np.log10(r.rate_low), 9), round(np.log10(r.rate_high), 9)
        if key in open_ and open_[key]["top"] == r.floor_low:
            open_[key]["top"] = r.floor_high
        else:
            open_[key] = {"plan": r.plan, "family": r.family, "left": r.rate_low, "right": r.rate_high,
                          "bottom": r.floor_low, "top": r.floor_high}  # fmt: skip
            done.append(open_[key])
    return done


def _label(ax, region: dict, wide: float, panels: int) -> None:
    """The plan's name in its rectangle, or its first words, level or turned, where there is room."""
    low, high = ax.get_ylim()
    width = np.log10(region["right"] / region["left"]) / wide
    height = (region["top"] - region["bottom"]) * 100 / (high - low)
    name = region["plan"].split(" [")[0] or "none"
    fits = {}
    for text in (name, name.split(",")[0]):
        fits[text, 0] = width > panels * (0.0105 * len(text) + 0.01) and height > 0.06
        fits[text, 90] = height > 0.028 * len(text) + 0.02 and width > 0.03 * panels
    if not any(fits.values()):
        return
    text, rotation = next(how for how, room in fits.items() if room)
    middle = np.sqrt(region["left"] * region["right"]), 50 * (region["bottom"] + region["top"])
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    ax.text(*middle, text, ha="center", va="center", fontsize=7.5, rotation=rotation, bbox=box)


def plan_map(maps: Mapping[str, pd.DataFrame]) -> Figure:
    """The best plan over the rate of the link and the accuracy floor, a panel for each map.

    Args:
        maps: title to a table of :func:`snnbook.planner.over_floors`; plans of equal name have equal looks.
    """
    fig, axes = figure(7.6, 3.7, ncols=len(maps), sharey=True, squeeze=False)
    seen = [f for f in _LOOKS if any((rows["family"] == f).any() for rows in maps.values())]
    for ax, (title, rows) in zip(axes[0], maps.items(), strict=True):
        left, right = rows["rate_low"].min(), rows["rate_high"].max()
        ax.set(xscale="log", xlim=(left, right), title=title, xlabel="rate of the link, bit/s")
        ax.set_ylim(100 * rows["floor_low"].min(), 100 * rows["floor_high"].max())
        ax.grid(False)
        for region in _regions(rows):
            colour, hatch, _ = _LOOKS[region["family"]]
            corner = region["left"], 100 * region["bottom"]
            size = region["right"] - region["left"], 100 * (region["top"] - region["bottom"])
            ax.add_patch(Rectangle(corner, *size, facecolor=colour, hatch=hatch, edgecolor="white", lw=0.6, alpha=0.75))
            _label(ax, region, np.log10(right / left), len(maps))
    axes[0][0].set_ylabel("accuracy floor, %")
    handles = [Patch(facecolor=_LOOKS[f][0], hatch=_LOOKS[f][1], edgecolor="white", alpha=0.75, label=f or "none")
               for f in seen]  # fmt: skip
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return fig


def plan_points(rows: pd.DataFrame, account: str = "board") -> Figure:
    """Accuracy against edge energy, latency and bytes; filled where no plan is better in all four.

    Args:
        rows: of :func:`snnbook.planner.table`, with a column ``front`` of booleans.
        account: of the energy.
    """
    fig, axes = figure(7.6, 3.4, ncols=3, sharey=True)
    columns = {"joules": f"{account}_joules", "seconds": "seconds", "bytes": "bytes"}
    for ax, (key, column) in zip(axes, columns.items(), strict=True):
        label, factor = _AXES[key]
        for family, group in rows.groupby("family", sort=False):
            colour, _, marker = _LOOKS[family]
            for on_front, some in group.groupby("front"):
                style = {"color": colour} if on_front else {"facecolor": "none", "edgecolor": colour}
                ax.scatter(factor * some[column], 100 * some["accuracy"], marker=marker, s=34, **style)
        ax.set(xscale="log", xlabel=label)
    axes[0].set_ylabel("accuracy, %")
    shown = list(dict.fromkeys(rows["family"]))
    handles = [axes[0].scatter([], [], color=_LOOKS[f][0], marker=_LOOKS[f][2], label=f) for f in shown]
    handles.append(axes[0].scatter([], [], facecolor="none", edgecolor="#444444", label="beaten"))
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return fig


def plan_lines(rows: pd.DataFrame, crossings: pd.DataFrame) -> Figure:
    """Latency and edge energy of some plans over the rate of the link, with the rates at which the best one changes.

    Args:
        rows: of :func:`snnbook.planner.over_rates`.
        crossings: columns ``measure`` (seconds or joules) and ``rate``.
    """
    fig, axes = figure(7.6, 3.6, ncols=2)
    for ax, measure in zip(axes, ("seconds", "joules"), strict=True):
        label, factor = _AXES[measure]
        for i, (plan, group) in enumerate(rows.groupby("plan", sort=False)):
            style = {"color": COLOURS[i % len(COLOURS)], "ls": ("-", "--", ":", "-.")[i % 4]}
            ax.plot(group["rate"], factor * group[measure], label=plan.split(" [")[0], **style)
        for rate in crossings.loc[crossings["measure"] == measure, "rate"]:
            ax.axvline(rate, color="#888888", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel="rate of the link, bit/s", ylabel=label)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return fig
