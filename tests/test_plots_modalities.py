"""Figures of chapter 24 show what their tables say."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots
from snnbook.plots.modalities import event_picture


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_events_are_blue_and_orange_on_white():
    frame = np.zeros((2, 1, 3))
    frame[0, 0, 1], frame[1, 0, 2] = 4, 4  # OFF, then ON
    white, off, on = event_picture(frame)[0]
    assert np.allclose(white, 1) and off[0] > off[2] and on[2] > on[0]
    assert np.allclose(event_picture(np.zeros((2, 1, 1))), 1)


def test_two_rows_a_data_set_and_a_column_a_step():
    inputs = {"events": np.zeros((3, 2, 4, 4)), "picture": np.ones((3, 3, 4, 4)), "sound": np.zeros((3, 1, 4, 6))}
    spikes = {name: np.full((3, 4, 4), 0.5) for name in inputs}
    axes = plots.arrivals(inputs, spikes).axes
    assert len(axes) == 18 and all(len(ax.images) == 1 for ax in axes)
    assert [ax.get_title() for ax in axes[:3]] == ["t = 1", "t = 2", "t = 3"]
    assert [ax.get_ylabel() for ax in axes[::6]] == list(inputs)


def test_a_line_for_each_layer_and_a_panel_for_each_set():
    rows = [(d, layer, t, 0.1 * layer) for d in ("a", "b") for layer in (1, 2) for t in (1, 2, 3)]
    axes = plots.rates_over_steps(pd.DataFrame(rows, columns=["dataset", "layer", "step", "rate"])).axes
    assert [ax.get_title() for ax in axes] == ["a", "b"]
    assert [line.get_ydata().tolist() for line in axes[1].lines] == [[0.1] * 3, [0.2] * 3]


def splits() -> pd.DataFrame:
    rows = [("a", n, s, 0.9, 0.8, 0.7 + 0.01 * s, 100, 50 * n, 80 * n) for n in (1, 3) for s in (0, 1)]
    names = ["dataset", "n_devices", "seed", "ann", "unsplit", "fused", "input_bits", "largest_bits", "total_bits"]
    return pd.DataFrame(rows, columns=names)


def test_accuracies_are_means_over_seeds():
    lines = plots.accuracy_by_set(splits()).axes[0].lines
    assert [line.get_label() for line in lines] == ["ANN", "SNN, unsplit", "N = 1", "N = 3"]
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([90, 80, 70.5, 70.5])


def test_bits_of_sensor_and_devices():
    bars = plots.bits_by_set(splits()).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([0.1, 0.05, 0.08, 0.15, 0.24])
