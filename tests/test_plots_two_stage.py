"""Figures of chapter 12 show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_accuracy_over_time_draws_means_bands_and_anns():
    rows = [(m, s, t, a + 0.1 * s, 0.9) for m in ("qc", "qcfs") for s in (0, 1) for t, a in ((1, 0.2), (4, 0.6))]
    table = pd.DataFrame(rows, columns=["method", "seed", "time_steps", "accuracy", "ann_accuracy"])
    (ax,) = plots.accuracy_over_time(table, chance=0.1).axes
    curves = [line for line in ax.lines if line.get_label() in plots.METHOD_LABELS.values()]
    assert len(curves) == 2
    np.testing.assert_allclose(curves[0].get_ydata(), [25, 65])
    assert len(ax.collections) == 2  # one band a method
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [20, 70])
    flat = [line.get_ydata()[0] for line in ax.lines if line not in curves]
    np.testing.assert_allclose(sorted(flat), [10, 90, 90])
    assert ax.get_xscale() == "log" and [t.get_text() for t in ax.get_xticklabels()] == ["1", "4"]


def test_thresholds_one_line_a_method():
    table = pd.DataFrame({"method": ["qc"] * 2 + ["own"] * 2, "layer": [1, 2] * 2, "threshold": [3, 4, 5, 6.0]})
    (ax,) = plots.thresholds(table).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[3, 4], [5, 6]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [plots.METHOD_LABELS["qc"], "own"]


def test_drift_one_line_a_time():
    table = pd.DataFrame({"time_steps": [4, 4, 8, 8], "layer": [1, 2, 1, 2], "drift": [-0.1, -0.2, 0.0, 0.1]})
    (ax,) = plots.rounding_drift(table).axes
    assert [list(line.get_ydata()) for line in ax.lines[:2]] == [[-0.1, -0.2], [0.0, 0.1]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["T = 4", "T = 8"]


def test_framework_names_both_stages_in_four_boxes():
    (ax,) = plots.framework().axes
    words = " ".join(t.get_text() for t in ax.texts)
    assert len(ax.patches) >= 4 and "Stage 1" in words and "Stage 2" in words and "QC-ANN" in words
