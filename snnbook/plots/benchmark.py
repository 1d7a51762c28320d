"""Figures of chapters 13 and 14: what a method pays for its accuracy."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure

#: Method name → short name, as published tables have it where they have the method.
METHOD_NAMES = {
    "max_norm": "Max Norm",
    "robust_norm": "Robust Norm",
    "rate_norm": "RateNorm",
    "opt": "Opt",
    "opi": "OPI",
    "snn_calibration_threshold": "SNN Calibration: θ",
    "snn_calibration_bias": "SNN Calibration: bias",
    "snn_calibration_potential": "SNN Calibration: v(0)",
    "snn_calibration_weights": "SNN Calibration: W",
    "snn_calibration": "SNN Calibration",
    "tcl": "TCL",
    "qc": "Phase I",
    "qc_opi": "Phase I + OPI",
    "qc_opt": "Phase I + Opt",
    "lwc": "Phase I + LWC",
    "lmpc": "Phase I + LMPC",
    "lmpc_lwc": "Phase I + LMPC + LWC",
    "qcfs": "QCFS",
    "qcfs_l4": "QCFS, L = 4",
    "qcfs_lmpc": "QCFS + LMPC",
    "qcfs_lwc": "QCFS + LWC",
    "qcfs_lmpc_lwc": "QCFS + LMPC + LWC",
    "srp": "SRP (4 + T steps)",
    "cos": "COS (4 + T steps, at least 8)",
    "step_bias": "QCFS + bias per step",
    "step_bias_l4": "QCFS, L = 4, + bias per step",
    "matched": "matched L",
    "tuned": "matched L, tuned",
    "ann2snn": "SpikingJelly ann2snn",
}


def _style(i: int) -> dict:
    """Colour, marker and line of the i-th curve; no two of the first 147 are alike."""
    turn = i // len(COLOURS)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[(i + turn) % len(MARKERS)],
        "ls": ("-", "--", ":")[turn % 3],
        "ms": 5,
    }


def trade_off(table: pd.DataFrame, cost: str, label: str, front: pd.DataFrame | None = None) -> Figure:
    """Accuracy against what it costs, a curve a method, the mean over seeds; a point for each T.

    Args:
        table: columns ``method``, ``time_steps``, ``accuracy`` (0 to 1) and ``cost``.
        cost: column of the horizontal axis, which is logarithmic; rows where it is 0 are left out.
        label: of that axis.
        front: rows that nothing beats, drawn as a grey step line.
    """
    fig, ax = figure(7.4, 4.4)
    for i, (method, rows) in enumerate(table.groupby("method", sort=False)):
        mean = rows.groupby("time_steps")[[cost, "accuracy"]].mean()
        mean = mean[mean[cost] > 0]
        ax.plot(mean[cost], 100 * mean["accuracy"], label=METHOD_NAMES.get(method, method), **_style(i))
    if front is not None:
        ax.step(front[cost], 100 * front["accuracy"], where="post", color="#B0B0B0", lw=5, alpha=0.6, zorder=0)
    ax.set(xlabel=label, ylabel="test accuracy, %", xscale="log")
    if pd.api.types.is_integer_dtype(table[cost]):
        ticks = sorted(table[cost].unique())
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
