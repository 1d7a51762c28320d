"""Figures of chapter 12 show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots
from snnbook.conversion import METHODS


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


def test_layer_errors_one_line_a_step_named_by_it():
    steps = enumerate(("start", "lmpc", "lwc", "lmpc"))
    rows = [(layer, p, s, 0.1 / (p + layer)) for p, s in steps for layer in (1, 2)]
    table = pd.DataFrame(rows, columns=["layer", "position", "step", "error"])
    (ax,) = plots.layer_errors(table).axes
    assert [list(line.get_ydata()) for line in ax.lines[:2]] == [[0.1, 0.05], [0.05, 0.1 / 3]]
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names == ["before", "after step 1: LMPC", "after step 2: LWC", "after step 3: LMPC"]
    assert ax.get_ylim()[0] == 0


def test_residual_layers_shows_both_counts_in_percent():
    rows = [(m, layer, 0.5, 0.01 * layer) for m in ("qc", "lmpc") for layer in (1, 2)]
    table = pd.DataFrame(rows, columns=["method", "layer", "plain", "corrected"])
    plain, corrected = plots.residual_layers(table).axes
    assert [list(line.get_ydata()) for line in plain.lines] == [[50, 50]] * 2
    np.testing.assert_allclose(corrected.lines[1].get_ydata(), [1, 2])
    names = [t.get_text() for t in plain.get_legend().get_texts()]
    assert names == [plots.METHOD_LABELS[m] for m in ("qc", "lmpc")]


def test_every_method_has_a_label_of_its_own():
    assert set(METHODS) == set(plots.METHOD_LABELS)
    assert len(set(plots.METHOD_LABELS.values())) == len(METHODS)


def test_framework_names_both_stages_in_four_boxes():
    (ax,) = plots.framework().axes
    words = " ".join(t.get_text() for t in ax.texts)
    assert len(ax.patches) >= 4 and "Stage 1" in words and "Stage 2" in words and "QC-ANN" in words
