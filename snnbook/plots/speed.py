"""Figures of the chapter on speed: the roofline, times beside each other, times over T."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure

#: Contender name in the recorded tables → text on the page.
CONTENDER_LABELS = {
    "spikingjelly": "SpikingJelly, multi-step",
    "snntorch": "snnTorch",
    "plain": "plain PyTorch loop",
    "ours_eager": "snnbook, no compiler",
    "ours": "snnbook",
    "ours_fp32": "snnbook engine, fp32",
    "ours_bf16": "snnbook engine, bf16",
    "ours_int8": "snnbook engine, int8",
    "ours_counting": "snnbook, counting operations",
    "ann": "ANN, one frame an image",
    "ann_nchw": "ANN, channels first",
    "ann_frames": "ANN on T frames an image",
    "copy": "one copy of the tensor",
}


def speed_roofline(times: pd.DataFrame, flops: float, bandwidth: float) -> Figure:
    """Rate over operational intensity of recorded work, below the roofline of its machine.

    Args:
        times: columns ``contender``, ``gflop``, ``gbyte``, ``median_s``; one line of markers a contender.
        flops: peak in FLOP/s.
        bandwidth: peak in B/s.
    """
    fig, ax = figure(7.0, 4.0)
    known = times.dropna(subset=["gflop"])
    intensity = known["gflop"] / known["gbyte"]
    x = np.geomspace(min(0.05, intensity.min() / 2), max(200.0, intensity.max() * 2), 200)
    ax.plot(x, np.minimum(flops, bandwidth * x) / 1e9, color="#333333", lw=1.6, label="roofline")
    for (contender, rows), colour, marker in zip(
        known.groupby("contender", sort=False), COLOURS, MARKERS, strict=False
    ):
        ax.plot(rows["gflop"] / rows["gbyte"], rows["gflop"] / rows["median_s"], color=colour, marker=marker, ls="",
                ms=6, label=CONTENDER_LABELS.get(contender, contender))  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="operational intensity, FLOP per byte", ylabel="rate, GFLOP/s")
    ax.legend(loc="lower right")
    return fig


def speed_bars(times: pd.DataFrame) -> Figure:
    """Median time of each contender at one workload, with quartiles, beside the bound of its own work.

    Args:
        times: rows of one workload: ``contender``, ``median_s``, ``lower_quartile_s``, ``upper_quartile_s``,
            ``bound_s`` (may be missing).
    """
    fig, ax = figure(7.0, 0.9 + 0.32 * len(times))
    ms = 1e3 * times[["median_s", "lower_quartile_s", "upper_quartile_s", "bound_s"]].astype(float)
    spread = [ms["median_s"] - ms["lower_quartile_s"], ms["upper_quartile_s"] - ms["median_s"]]
    colours = [COLOURS[0] if c.startswith("ours") else COLOURS[6] for c in times["contender"]]
    y = np.arange(len(times))[::-1]
    ax.barh(y, ms["median_s"], xerr=np.array(spread), color=colours, height=0.65, ecolor="#333333")
    ax.plot(ms["bound_s"], y, color=COLOURS[1], marker="|", ms=16, mew=2.5, ls="", label="roofline")
    ax.set_yticks(y, [CONTENDER_LABELS.get(c, c) for c in times["contender"]])
    ax.set(xlabel="time, ms")
    ax.grid(axis="y", visible=False)
    ax.set_axisbelow(True)
    ax.legend(loc="lower right")
    return fig


def speed_over_steps(times: pd.DataFrame, contenders: tuple[str, ...]) -> Figure:
    """Time for one image at one step, against T, one panel a network.

    Args:
        times: rows of kind ``inference``: ``model``, ``contender``, ``time_steps``, ``batch``, ``median_s``.
        contenders: which to draw, in this order.
    """
    models = list(dict.fromkeys(times["model"]))
    fig, axes = figure(2.6 * len(models) + 0.6, 3.4, ncols=len(models), squeeze=False)
    for ax, model in zip(axes[0], models, strict=True):
        for contender, colour, marker in zip(contenders, COLOURS, MARKERS, strict=False):
            rows = times[(times["model"] == model) & (times["contender"] == contender)].sort_values("time_steps")
            each = 1e3 * rows["median_s"] / (rows["batch"] * rows["time_steps"])
            label = CONTENDER_LABELS.get(contender, contender)
            ax.plot(rows["time_steps"], each, color=colour, marker=marker, ms=5, label=label)
        ticks = sorted(times["time_steps"].unique())
        ax.set(xscale="log", xlabel="time steps T", title=model)
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("ms an image and step")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
