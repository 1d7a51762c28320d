"""Figures of chapter 12: accuracy against time steps; thresholds, errors and residual potentials layer by layer."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import COLOURS, MARKERS, figure

#: Method name → legend text.
METHOD_LABELS = {
    "max_norm": "Max Norm (ReLU)",
    "robust_norm": "Robust Norm (ReLU)",
    "opi": "OPI: Robust Norm, v(0) = θ/2",
    "opt": "Opt: Robust Norm, θ/2T a step",
    "rate_norm": "RateNorm",
    "snn_calibration": "SNN Calibration",
    "snn_calibration_threshold": "SNN Calibration: thresholds",
    "snn_calibration_bias": "SNN Calibration: + biases",
    "snn_calibration_potential": "SNN Calibration: + potentials",
    "snn_calibration_weights": "SNN Calibration: + weights",
    "ann2snn": "SpikingJelly ann2snn",
    "tcl": "TCL (clipped ReLU)",
    "qc": "Phase I: QC-ANN, floor",
    "qc_opi": "Phase I + OPI",
    "qc_opt": "Phase I + Opt",
    "lmpc": "Phase I + LMPC",
    "lwc": "Phase I + LWC",
    "lmpc_lwc": "Phase I + LMPC + LWC",
    "qcfs": "QCFS: ½ shift, v(0) = θ/2",
    "qcfs_l4": "QCFS at L = 4",
    "qcfs_lmpc": "QCFS + LMPC",
    "qcfs_lwc": "QCFS + LWC",
    "qcfs_lmpc_lwc": "QCFS + LMPC + LWC",
    "step_bias": "QCFS + bias per step",
    "step_bias_l4": "QCFS at L = 4 + bias per step",
    "srp": "SRP (QCFS, 4-step pre-run)",
    "cos": "COS (QCFS, 4-step pre-run)",
    "matched": "ours: L = T, bias per step",
    "tuned": "ours: L = T, bias per step, tuned",
}


def accuracy_over_time(table: pd.DataFrame, chance: float | None = None) -> Figure:
    """Accuracy against T for each method: mean over seeds, and the range between them as a band.

    Args:
        table: from :meth:`snnbook.experiments.two_stage.TwoStage.compare`, any number of seeds.
        chance: accuracy (0 to 1) of guessing, drawn as a dotted line.
    """
    fig, ax = figure(7.0, 3.8)
    for (method, rows), colour, marker in zip(table.groupby("method", sort=False), COLOURS, MARKERS, strict=False):
        by_time = rows.groupby("time_steps")["accuracy"]
        mean = 100 * by_time.mean()
        ax.fill_between(mean.index, 100 * by_time.min(), 100 * by_time.max(), color=colour, alpha=0.18, lw=0)
        ax.plot(mean.index, mean, color=colour, marker=marker, ms=5, label=METHOD_LABELS.get(method, method))
        ax.axhline(100 * rows["ann_accuracy"].mean(), color=colour, lw=0.8, ls="--")
    if chance is not None:
        ax.axhline(100 * chance, color="#6B6B6B", lw=0.8, ls=":")
    ax.set_xscale("log", base=2)
    ticks = sorted(table["time_steps"].unique())
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set(xlabel="time steps T", ylabel="test accuracy, %", ylim=(0, 102))
    ax.legend(loc="lower right")
    return fig


def thresholds(table: pd.DataFrame) -> Figure:
    """Threshold of each layer under each method.

    Args:
        table: rows of :func:`snnbook.experiments.two_stage.thresholds`, several methods below each other.
    """
    fig, ax = figure(7.0, 2.8)
    for (method, rows), colour, marker in zip(table.groupby("method", sort=False), COLOURS, MARKERS, strict=False):
        ax.plot(
            rows["layer"],
            rows["threshold"],
            color=colour,
            marker=marker,
            ms=5,
            label=METHOD_LABELS.get(method, method),
        )
    ax.set_xticks(sorted(table["layer"].unique()))
    ax.set(xlabel="spiking layer", ylabel="threshold θ", yscale="log")
    ax.legend()
    return fig


def rounding_drift(table: pd.DataFrame) -> Figure:
    """Mean output of each layer of the SNN, minus the QC-ANN's, in units of θ, for several T.

    Args:
        table: columns ``time_steps``, ``layer``, ``drift``.
    """
    fig, ax = figure(7.0, 2.8)
    for (steps, rows), colour, marker in zip(table.groupby("time_steps"), COLOURS, MARKERS, strict=False):
        ax.plot(rows["layer"], rows["drift"], color=colour, marker=marker, ms=5, label=f"T = {steps}")
    ax.axhline(0, color="#333333", lw=0.8)
    ax.set_xticks(sorted(table["layer"].unique()))
    ax.set(xlabel="spiking layer", ylabel="mean of (φ − a) / θ")
    ax.legend(ncols=2)
    return fig


def layer_errors(table: pd.DataFrame) -> Figure:
    """Mean error of a neuron on held-out images, layer by layer, at the start and after each step of Phase II.

    Args:
        table: from :func:`snnbook.experiments.ablation.layer_errors`.
    """
    fig, ax = figure(7.0, 3.0)
    for (position, rows), colour, marker in zip(table.groupby("position"), COLOURS, MARKERS, strict=False):
        step = rows["step"].iloc[0]
        label = "before" if position == 0 else f"after step {position}: {step.upper()}"
        ax.plot(rows["layer"], rows["error"], color=colour, marker=marker, ms=5, label=label)
    ax.set_xticks(sorted(table["layer"].unique()))
    ax.set(xlabel="spiking layer", ylabel="mean error of a neuron, θ", ylim=(0, None))
    ax.legend(ncols=2)
    return fig


def residual_layers(table: pd.DataFrame) -> Figure:
    """Share of neurons with a residual potential in each layer: the plain count beside the corrected one.

    Args:
        table: rows of :func:`snnbook.experiments.ablation.residuals` with a column ``method``, several methods below
            each other.
    """
    fig, axes = figure(7.4, 3.2, ncols=2)
    titles = {"plain": "plain: v(T) outside [0, θ)", "corrected": "corrected: wrong number of spikes"}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for (method, rows), colour, marker in zip(table.groupby("method", sort=False), COLOURS, MARKERS, strict=False):
            label = METHOD_LABELS.get(method, method)
            ax.plot(rows["layer"], 100 * rows[column], color=colour, marker=marker, ms=5, label=label)
        ax.set_xticks(sorted(table["layer"].unique()))
        ax.set(xlabel="spiking layer", ylabel="neurons, %", ylim=(0, None), title=title)
    axes[0].legend(loc="lower right")
    return fig


#: Boxes of the framework: column, row, heading, text.
_BOXES = (
    (0, 1, "ReLU network", "trained, lr 0.1\na = max(z, 0)"),
    (1, 1, "QC-ANN", "fine-tuned\na = λ·clip(⌊zL/λ⌋/L, 0, 1)"),
    (1, 0, "SNN, Phase I", "batch norm folded\nθ = λ,  v(0) = 0"),
    (0, 0, "SNN, Phase II", "v(0) and W calibrated\nlayer by layer"),
)


def framework() -> Figure:
    """The two stages as four boxes: two trainings in the upper row, two spiking networks in the lower one."""
    fig, ax = figure(7.0, 2.9)
    ax.set_axis_off()
    ax.set(xlim=(-0.05, 2.05), ylim=(-0.1, 2.05))
    for column, row, heading, text in _BOXES:
        colour = COLOURS[0] if row else COLOURS[1]
        ax.add_patch(FancyBboxPatch((column * 1.1 + 0.02, row * 1.05 + 0.05), 0.8, 0.75, boxstyle="round,pad=0.02",
                                    fc="white", ec=colour, lw=1.6))  # fmt: skip
        ax.text(column * 1.1 + 0.42, row * 1.05 + 0.62, heading, ha="center", weight="bold", color=colour)
        ax.text(column * 1.1 + 0.42, row * 1.05 + 0.28, text, ha="center", va="center", fontsize=9)
    arrow = {"arrowstyle": "-|>", "color": "#333333", "lw": 1.4}
    ax.annotate("", (1.1, 1.48), (0.86, 1.48), arrowprops=arrow)
    ax.annotate("", (1.52, 0.84), (1.52, 1.07), arrowprops=arrow)
    ax.annotate("", (0.86, 0.43), (1.1, 0.43), arrowprops=arrow)
    ax.text(0.0, 1.97, "Stage 1: quantisation and clipping", color=COLOURS[0])
    ax.text(0.0, 0.93, "Stage 2: spikes", color=COLOURS[1])
    return fig
