"""Figures of chapters 20 and 21 show what is in their tables."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots
from snnbook.plots.splitting import QUANTITIES


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_responses_have_an_input_and_a_map_for_each_filter():
    images, maps = np.random.rand(2, 6, 6), np.random.rand(2, 3, 4, 4)
    axes = plots.class_responses(images, maps, ["a", "b"], ["f0", "f1", "f2"]).axes
    assert len(axes) == 8 and [ax.get_title() for ax in axes[:4]] == ["input", "f0", "f1", "f2"]
    assert [axes[0].get_ylabel(), axes[4].get_ylabel()] == ["a", "b"]
    np.testing.assert_array_equal(axes[6].images[0].get_array(), maps[1, 1])


def apoz():
    rows = [(layer, f, k, 0.8 + 0.1 * ((f + k) % 2)) for layer, n in ((0, 2), (1, 3)) for f in range(n) for k in (0, 1)]
    return pd.DataFrame(rows, columns=["layer", "filter", "class", "apoz"])


def test_apoz_maps_sort_filters_by_their_mean():
    table = apoz()
    table.loc[(table["layer"] == 0) & (table["filter"] == 0), "apoz"] = 0.95
    first, second, bar = plots.apoz_maps(table, ["a", "b"]).axes
    np.testing.assert_allclose(first.images[0].get_array(), [[0.9, 0.95], [0.8, 0.95]])
    assert second.images[0].get_array().shape == (2, 3) and bar.get_ylabel() == "APoZ"
    assert [t.get_text() for t in first.get_yticklabels()] == ["a", "b"]


def test_apoz_thresholds_draw_sorted_curves_and_the_limit_of_each_depth():
    table = apoz().rename(columns={"class": "device"})
    axes = plots.apoz_thresholds(table, 90).axes
    assert [ax.get_title() for ax in axes] == ["layer 0: keep ≤ 0.90", "layer 1: keep ≤ 0.89"]
    for ax, limit in zip(axes, (0.90, 0.89), strict=True):
        *curves, line = ax.lines
        assert len(curves) == 2 and all((np.diff(c.get_ydata()) >= 0).all() for c in curves)
        assert line.get_ydata()[0] == pytest.approx(limit)


def test_kept_filters_keeps_rows_in_order_and_puts_common_filters_first():
    mask = np.array([[False, True, True], [False, True, False]])
    (ax,) = plots.kept_filters([mask], ["0 1", "2 3"]).axes
    cells = np.asarray(ax.collections[0].get_array()).reshape(2, 3)
    np.testing.assert_array_equal(cells, [[1, 0, 0], [1, 1, 0]])  # the last row is drawn at the bottom
    assert [t.get_text() for t in ax.get_yticklabels()] == ["2 3", "0 1"]


def test_crossed_prints_percent():
    rows = [(0, 0, 1.0), (0, 1, 0.25), (1, 0, 0.5), (1, 1, 0.8)]
    table = pd.DataFrame(rows, columns=["pruned_for", "tested_on", "accuracy"])
    ax = plots.crossed(table, ["a", "b"]).axes[0]
    assert [t.get_text() for t in ax.texts] == ["100", "25", "50", "80"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]


def test_choice_bars_show_means_and_devices():
    rows = [("random", 0, 0.2, 0.4), ("random", 1, 0.4, 0.6)]
    rows += [("own classes", 0, 0.9, 0.1), ("own classes", 1, 0.7, 0.3)]
    table = pd.DataFrame(rows, columns=["rule", "device", "own", "other"])
    (ax,) = plots.choice_bars(table).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == [plots.CHOICE_NAMES[r] for r in ("own classes", "random")]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [80, 30, 20, 50])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [90, 70])


def test_kept_over_zeta_is_the_mean_with_a_band():
    rows = [(z, layer, d, 0.1 * z + 0.2 * d) for z in (1, 2) for layer in (0, 1) for d in (0, 1)]
    (ax,) = plots.kept_over_zeta(pd.DataFrame(rows, columns=["zeta", "layer", "device", "kept"])).axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [20, 30])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [10, 40])


def test_recovery_bars_have_three_stages_a_device():
    stages = ("unsplit", 1.0), ("pruned", 0.5), ("retrained", 0.9)
    rows = [(d, f"{d}", s, v + (s == "pruned") * d / 10) for d in (0, 1) for s, v in stages]
    table = pd.DataFrame(rows, columns=["device", "classes", "stage", "balanced"])
    (ax,) = plots.recovery_bars(table).axes
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [100, 100, 50, 60, 90, 90])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0 | other", "1 | other"]


def test_size_parts_stack_features_and_either_head():
    table = pd.DataFrame({"device": ["unsplit", "0"], "features_bytes": [2048, 1024], "head_bytes": [4096, 2048],
                          "map_bytes": [512, 256]})  # fmt: skip
    left, right = plots.size_parts(table).axes
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], [2, 1, 4, 2])
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], [2, 1, 0.5, 0.25])
    np.testing.assert_allclose([bar.get_x() for bar in right.patches], [0, 0, 2, 1])


def sweep():
    rows = {"n_devices": [1, 1, 5, 5], "zeta": [80, 90, 80, 90], "accuracy": [0.5, 0.9, 0.8, 0.95]}
    for name in QUANTITIES:
        rows |= {f"largest_{name}": [1.0, 2, 1, 2], f"total_{name}": [1.0, 2, 5, 10]}
    return pd.DataFrame(rows), {name: 4.0 for name in QUANTITIES} | {"accuracy": 0.97}


def test_zeta_sweep_has_a_curve_for_each_number_and_the_unsplit_line():
    axes = plots.zeta_sweep(*sweep()).axes
    assert [len(ax.lines) for ax in axes] == [3] * 4
    np.testing.assert_allclose(axes[0].lines[1].get_ydata(), [80, 95])
    np.testing.assert_allclose(axes[0].lines[2].get_ydata(), [97, 97])
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(), np.array([1, 2]) / 1024)
    low, high = axes[0].get_ylim()  # accuracies of 50 to 97 %
    assert 40 < low < 50 and 97 < high < 107 and [ax.get_ylim()[0] for ax in axes[1:]] == [0, 0, 0]


def test_trade_offs_are_relative_and_one_device_is_its_own_total():
    ax, other = plots.split_trade_offs(*sweep(), ["joules", "bytes"]).axes
    labels = [line.get_label() for line in ax.lines]
    assert labels == ["N = 1", "N = 5, most loaded", "N = 5, total", "unsplit"]
    np.testing.assert_allclose(ax.lines[2].get_xdata(), [125, 250])
    assert ax.lines[2].get_markerfacecolor() == "white" and other.get_xlabel().startswith("weights")


def test_published_sweep_shows_every_model_of_the_print():
    from snnbook.papers import table

    axes = plots.published_sweep(table("ecsnn_zeta")).axes
    assert [t.get_text() for t in axes[0].get_legend().get_texts()] == ["VGG5", "VGG9", "VGG16"]
    assert axes[0].lines[0].get_ydata()[0] == 61.42 and axes[3].lines[2].get_ydata()[-1] == 1.179
