"""Figures of chapters 20 and 21: filters and classes, masks, what pruning and splitting cost and save."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, figure

#: Rule of choosing filters → legend text.
CHOICE_NAMES = {
    "own classes": "lowest APoZ, own classes",
    "all classes": "lowest APoZ, all classes",
    "other classes": "lowest APoZ, other classes",
    "random": "random",
    "last index": "last index",
    "highest APoZ": "highest APoZ, own classes",
}


def class_responses(images: np.ndarray, maps: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Input pictures and, beside each, how often each neuron of some filters fires.

    Args:
        images: [R, H, W], one input a row.
        maps: [R, F, h, w], spikes per step.
        rows, columns: names of the inputs and the filters.
    """
    n_rows, n_filters = maps.shape[:2]
    fig, axes = figure(1.15 * (n_filters + 1) + 0.5, 1.1 * n_rows, nrows=n_rows, ncols=n_filters + 1, squeeze=False)
    for r in range(n_rows):
        axes[r, 0].imshow(images[r], cmap="gray")
        axes[r, 0].set_ylabel(rows[r])
        for f in range(n_filters):
            axes[r, f + 1].imshow(maps[r, f], cmap="viridis", vmin=0, vmax=1)
    for ax, name in zip(axes[0], ["input", *columns], strict=True):
        ax.set_title(name, fontsize=9)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    return fig


def apoz_maps(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """APoZ of every filter for every class, one panel a layer, filters in the order of their mean.

    Args:
        table: from :func:`snnbook.experiments.class_filters.apoz_table`.
        classes: their names.
    """
    layers = list(table.groupby("layer"))
    widths = [rows["filter"].nunique() for _, rows in layers]
    fig, axes = figure(7.4, 3.4, ncols=len(layers), width_ratios=widths, squeeze=False)
    low = np.floor(20 * table["apoz"].min()) / 20
    for ax, (layer, rows) in zip(axes[0], layers, strict=True):
        wide = rows.pivot(index="class", columns="filter", values="apoz")
        wide = wide[wide.mean().sort_values().index]
        image = ax.imshow(wide, aspect="auto", cmap="viridis_r", vmin=low, vmax=1, interpolation="nearest")
        ax.set(title=f"layer {layer}", xlabel="filter, sorted", xticks=[])
        ax.set_yticks(range(len(classes)), classes if layer == layers[0][0] else [""] * len(classes))
        ax.grid(False)
    axes[0, 0].set_ylabel("class")
    fig.colorbar(image, ax=axes[0], label="APoZ")
    return fig


def apoz_thresholds(table: pd.DataFrame, zeta: float) -> Figure:
    """Sorted APoZ of the filters of each layer for each sub-model, with the threshold (ζ − l)/100.

    Args:
        table: from :func:`snnbook.experiments.class_filters.bundle_apoz`.
        zeta: in percent.
    """
    layers = list(table.groupby("layer"))
    fig, axes = figure(7.4, 2.8, ncols=len(layers), sharey=True, squeeze=False)
    for ax, (layer, rows) in zip(axes[0], layers, strict=True):
        for (device, mine), colour in zip(rows.groupby("device"), _many(rows["device"].nunique()), strict=True):
            values = np.sort(mine["apoz"])
            ax.plot(np.arange(1, len(values) + 1) / len(values), values, color=colour, lw=1.4, label=f"{device}")
        limit = (zeta - layer) / 100
        ax.axhline(limit, color="#333333", ls="--", lw=1)
        ax.set(title=f"layer {layer}: keep ≤ {limit:.2f}", xlabel="share of filters")
    axes[0, 0].set_ylabel("APoZ")
    axes[0, -1].legend(title="device", fontsize=8, ncols=2)
    return fig


def _many(n: int) -> list[str]:
    """``n`` colours, from the start again after the last."""
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def kept_filters(masks: Sequence[Sequence[np.ndarray]], names: Sequence[str]) -> Figure:
    """Which filters each sub-model keeps, one panel a layer.

    Args:
        masks: for each layer, [P, C] bool.
        names: of the sub-models.
    """
    widths = [m.shape[1] for m in masks]
    fig, axes = figure(7.4, 0.35 * len(names) + 1.3, ncols=len(masks), width_ratios=widths, squeeze=False)
    for layer, (ax, mask) in enumerate(zip(axes[0], masks, strict=True)):
        order = np.argsort(-mask.sum(0), kind="stable")
        ax.pcolormesh(mask[::-1, order], cmap="Blues", vmin=0, vmax=1.3, edgecolors="white", lw=0.6)
        ax.set(title=f"layer {layer}", xticks=[], xlabel="filter")
        ax.set_yticks(np.arange(len(names)) + 0.5, names[::-1] if layer == 0 else [""] * len(names))
        ax.grid(False)
    axes[0, 0].set_ylabel("classes")
    return fig


def crossed(table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Accuracy of networks pruned for one bundle of classes (rows) on another (columns).

    Args:
        table: from :func:`snnbook.experiments.class_filters.crossed`.
        names: classes of each device.
    """
    wide = 100 * table.pivot(index="pruned_for", columns="tested_on", values="accuracy").to_numpy()
    fig, ax = figure(5.2, 0.55 * len(names) + 1.4)
    image = ax.imshow(wide, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(wide):
        ax.text(j, i, f"{value:.0f}", ha="center", va="center", color="black" if value > 55 else "white")
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="tested on classes", ylabel="pruned for classes")
    ax.grid(False)
    fig.colorbar(image, ax=ax, label="accuracy, %")
    return fig


def choice_bars(table: pd.DataFrame) -> Figure:
    """Accuracy on own and on other classes for each rule of choosing the filters that stay; a dot a device.

    Args:
        table: from :func:`snnbook.experiments.class_filters.choices`.
    """
    rules = [r for r in CHOICE_NAMES if r in set(table["rule"])]
    fig, ax = figure(7.0, 0.42 * len(rules) + 1.1)
    for k, (column, label) in enumerate((("own", "classes of the sub-model"), ("other", "other classes"))):
        for i, rule in enumerate(rules):
            values = 100 * table[table["rule"] == rule][column]
            y = i + 0.36 * k - 0.18
            ax.barh(y, values.mean(), 0.34, color=COLOURS[k], alpha=0.75, label=label if i == 0 else None)
            ax.plot(values, [y] * len(values), ".", color="#333333", ms=5)
    ax.set_yticks(range(len(rules)), [CHOICE_NAMES[r] for r in rules])
    ax.invert_yaxis()
    ax.set(xlabel="accuracy before retraining, %", xlim=(0, 100))
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper right", ncols=2)
    return fig


def kept_over_zeta(table: pd.DataFrame) -> Figure:
    """Share of filters that stay in each layer against ζ: mean over sub-models, and their range.

    Args:
        table: from :func:`snnbook.experiments.class_filters.kept_over_zeta`.
    """
    fig, ax = figure(7.0, 2.9)
    for (layer, rows), colour, marker in zip(table.groupby("layer"), COLOURS, MARKERS, strict=False):
        by = 100 * rows.groupby("zeta")["kept"].agg(["mean", "min", "max"])
        ax.fill_between(by.index, by["min"], by["max"], color=colour, alpha=0.18, lw=0)
        ax.plot(by.index, by["mean"], color=colour, marker=marker, ms=5, label=f"layer {layer}")
    ax.set(xlabel="threshold ζ, %", ylabel="filters that stay, %", ylim=(0, 103))
    ax.legend(ncols=2)
    return fig


#: Stage of a sub-model → legend text.
STAGE_NAMES = {"unsplit": "unsplit network", "pruned": "pruned", "retrained": "pruned and retrained"}


def recovery_bars(table: pd.DataFrame) -> Figure:
    """Accuracy of each sub-model before pruning, after it, and after retraining, mean over its labels.

    Args:
        table: from :func:`snnbook.experiments.ec_snn_tables.recovery`.
    """
    devices = list(table["device"].unique())
    fig, ax = figure(7.0, 2.8)
    for k, (stage, label) in enumerate(STAGE_NAMES.items()):
        values = 100 * table[table["stage"] == stage]["balanced"]
        ax.bar(np.arange(len(devices)) + 0.27 * (k - 1), values, 0.25, color=COLOURS[k], label=label)
    names = table.drop_duplicates("device")["classes"]
    ax.set_xticks(range(len(devices)), [f"{n} | other" for n in names])
    ax.set(ylabel="accuracy, mean over labels, %", ylim=(0, 100), xlabel="labels of the sub-model")
    ax.grid(axis="x", visible=False)
    fig.legend(loc="outside upper center", ncols=3)
    return fig


def size_parts(table: pd.DataFrame) -> Figure:
    """Bytes of features and head, the head as trained and multiplied out, for the unsplit network and each device.

    Args:
        table: from :func:`snnbook.experiments.ec_snn_tables.sizes`.
    """
    fig, axes = figure(7.4, 2.9, ncols=2)
    rows = np.arange(len(table))
    heads = {"head_bytes": "head as trained", "map_bytes": "head as one map"}
    for ax, (column, title) in zip(axes, heads.items(), strict=True):
        kib = table["features_bytes"] / 1024
        ax.barh(rows, kib, color=COLOURS[0], label="features")
        ax.barh(rows, table[column] / 1024, left=kib, color=COLOURS[1], label="head")
        ax.set_yticks(rows, table["device"] if column == "head_bytes" else [""] * len(table))
        ax.set(title=title, xlabel="KiB of tensors")
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    axes[0].set_ylabel("device")
    axes[0].legend(loc="lower right")
    return fig


#: Quantity of a sweep → axis text and divisor.
QUANTITIES = {
    "bytes": ("weights of features, KiB", 1024),
    "atsan": ("ATSAN, thousands", 1e3),
    "joules": ("energy of arithmetic, µJ", 1e-6),
    "dense_macs": ("dense MACs, millions", 1e6),
    "payload_bits": ("bits sent, thousands", 1e3),
}


def zeta_sweep(table: pd.DataFrame, unsplit: dict[str, float]) -> Figure:
    """Accuracy and what the most loaded device needs against ζ, one curve for each number of devices.

    Costs begin at zero; the axis of accuracy shows only the range that there is.

    Args:
        table: from :func:`snnbook.experiments.ec_snn_tables.sweep`.
        unsplit: ``accuracy``, ``bytes``, ``atsan``, ``dense_macs`` of the unsplit network (features only), dashed.
    """
    panels = {"accuracy": ("test accuracy, %", 0.01)} | {k: QUANTITIES[k] for k in ("bytes", "atsan", "dense_macs")}
    fig, axes = figure(7.4, 4.8, nrows=2, ncols=2, sharex=True)
    for ax, (column, (label, unit)) in zip(axes.ravel(), panels.items(), strict=True):
        key = column if column == "accuracy" else f"largest_{column}"
        for (n, rows), colour, marker in zip(table.groupby("n_devices"), COLOURS, MARKERS, strict=False):
            ax.plot(rows["zeta"], rows[key] / unit, color=colour, marker=marker, ms=5, label=f"N = {n}")
        ax.axhline(unsplit[column] / unit, color="#333333", ls="--", lw=1, label="unsplit")
        ax.set(ylabel=label, ylim=(None if column == "accuracy" else 0, None))
    for ax in axes[1]:
        ax.set_xlabel("threshold ζ, %")
    axes[0, 0].legend(loc="lower right", fontsize=8)
    return fig


def split_trade_offs(table: pd.DataFrame, unsplit: dict[str, float], quantities: Sequence[str]) -> Figure:
    """Accuracy against cost, relative to the unsplit network: the most loaded device (full) and all together (open).

    Args:
        table: from :func:`snnbook.experiments.ec_snn_tables.sweep`.
        unsplit: ``accuracy`` and each of ``quantities`` of the unsplit network's features.
        quantities: names in ``QUANTITIES``.
    """
    fig, axes = figure(7.4, 3.1, ncols=len(quantities), sharey=True, squeeze=False)
    for ax, quantity in zip(axes[0], quantities, strict=True):
        for (n, rows), colour, marker in zip(table.groupby("n_devices"), COLOURS, MARKERS, strict=False):
            for kind, fill in (("largest", colour), ("total", "white"))[: 1 if n == 1 else 2]:
                x = 100 * rows[f"{kind}_{quantity}"] / unsplit[quantity]
                label = f"N = {n}" + ("" if n == 1 else ", most loaded" if kind == "largest" else ", total")
                ax.plot(x, 100 * rows["accuracy"], color=colour, marker=marker, mfc=fill, ms=5, lw=0.9, label=label)
        ax.plot(100, 100 * unsplit["accuracy"], "*", color="black", ms=11, label="unsplit")
        ax.set(xscale="log", xlabel=f"{QUANTITIES[quantity][0].split(',')[0]},\n% of unsplit")
        ax.set_xticks([5, 20, 100, 500], ["5", "20", "100", "500"])
        ax.minorticks_off()
    axes[0, 0].set_ylabel("test accuracy, %")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return fig


def published_sweep(table: pd.DataFrame) -> Figure:
    """Fig 9 of EC-SNN, read off the print: accuracy, ATSAN, size and latency against ζ.

    Args:
        table: published table ``ecsnn_zeta``.
    """
    panels = {"accuracy": "accuracy, %", "atsan_millions": "ATSAN, millions", "megabytes": "size, MB",
              "seconds": "latency, s"}  # fmt: skip
    fig, axes = figure(7.4, 4.4, nrows=2, ncols=2, sharex=True)
    for ax, (column, label) in zip(axes.ravel(), panels.items(), strict=True):
        for (model, rows), colour, marker in zip(table.groupby("model", sort=False), COLOURS, MARKERS, strict=False):
            ax.plot(rows["zeta"], rows[column], color=colour, marker=marker, ms=4, label=model)
        ax.set(ylabel=label, ylim=(0, None))
    for ax in axes[1]:
        ax.set_xlabel("threshold ζ, %")
    axes[0, 0].legend(loc="lower right")
    return fig
