"""Figures of fused inference show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_spikes_of_a_device_are_counted_tile_by_tile():
    rng = np.random.default_rng(0)
    spikes = [rng.integers(0, 2, (4, c, 3, 2)) for c in (5, 2)]
    fig = plots.device_spikes(np.eye(6), spikes, ["0 1", "2"], np.array([0.7, 0.2, 0.1]))
    image, first, second, bars = fig.axes
    shown = first.images[0].get_array().filled(np.nan)
    assert shown.shape == (2 * 4, 3 * 3)  # five channels in two rows of three, with gaps
    np.testing.assert_array_equal(shown[0:3, 3:5], spikes[0][:, 1].sum(0))
    np.testing.assert_array_equal(shown[4:7, 0:2], spikes[0][:, 3].sum(0))
    assert np.isnan(shown[3]).all() and second.images[0].get_array().shape == shown.shape
    assert [b.get_width() for b in bars.patches] == [0.7, 0.2, 0.1]
    assert [a.get_title() for a in (first, second)] == ["for 0 1", "for 2"]


def test_lost_devices_show_mean_and_range():
    table = pd.DataFrame({"training": "a", "lost": [0, 1, 1], "accuracy": [0.9, 0.5, 0.7]})
    (axis,) = plots.lost_devices(table).axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [(0, 90), (1, 60)])
    corners = axis.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(50) and [1, 70] in corners.round(6).tolist()


def test_over_devices_draws_busiest_and_all():
    columns = ("dense_macs", "joules", "bytes", "payload_bits")
    table = pd.DataFrame({"n_devices": [1, 3]} | {f"largest_{c}": [2e6, 1e6] for c in columns}
                         | {f"total_{c}": [2e6, 3e6] for c in columns})  # fmt: skip
    axes = plots.over_devices(table).axes
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), [2, 1])
    np.testing.assert_allclose(axes[3].lines[1].get_ydata(), [2000, 3000])


def test_answers_are_told_apart_and_phases_named():
    table = pd.DataFrame({"phase": ["a", "a", "b"], "latency_ms": [2.0, 3.0, 100.0], "partial": [False, False, True]})
    (axis,) = plots.answer_latency(table, 100.0).axes
    whole, partial, deadline = axis.lines[:3]
    assert whole.get_xydata().tolist() == [[0, 2], [1, 3]] and partial.get_xydata().tolist() == [[2, 100]]
    assert set(deadline.get_ydata()) == {100}
    assert [t.get_text() for t in axis.texts] == ["a", "b"]
