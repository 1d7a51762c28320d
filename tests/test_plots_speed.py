"""Figures of the chapter on speed show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


TIMES = pd.DataFrame({
    "workload": "vgg9 T=1", "model": ["vgg9"] * 4, "contender": ["spikingjelly", "ours", "spikingjelly", "ours"],
    "time_steps": [1, 1, 4, 4], "batch": [8, 8, 2, 2], "median_s": [0.4, 0.2, 0.8, 0.1], "lower_quartile_s": 0.05,
    "upper_quartile_s": 0.9, "bound_s": [0.1, 0.1, None, 0.05], "gflop": [40, 40, 80, None], "gbyte": [4, 4, 40, None],
})  # fmt: skip


def test_roofline_is_the_lower_of_two_lines_and_markers_are_rates():
    (ax,) = plots.speed_roofline(TIMES, flops=1e12, bandwidth=1e10).axes
    roof, first, second = ax.lines
    x, y = roof.get_data()
    np.testing.assert_allclose(y, np.minimum(1000, 10 * x))
    np.testing.assert_allclose(first.get_xydata(), [(10, 100), (2, 100)])
    np.testing.assert_allclose(second.get_xydata(), [(10, 200)])  # no operations known, no marker
    assert [t.get_text() for t in ax.get_legend().get_texts()][1:] == ["SpikingJelly, multi-step", "snnbook"]


def test_bars_from_top_to_bottom_with_their_bounds():
    (ax,) = plots.speed_bars(TIMES[TIMES["time_steps"] == 4]).axes
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [800, 100])
    heights = [bar.get_y() for bar in ax.patches]
    assert heights[0] > heights[1]
    bound = next(line for line in ax.lines if line.get_label() == "roofline")
    np.testing.assert_allclose(bound.get_xdata(), [np.nan, 50])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["SpikingJelly, multi-step", "snnbook"]


def test_time_over_steps_is_that_of_one_image_and_step():
    (ax,) = plots.speed_over_steps(TIMES, ("ours", "spikingjelly")).axes
    ours, jelly = ax.lines
    np.testing.assert_allclose(ours.get_xydata(), [(1, 25), (4, 12.5)])
    np.testing.assert_allclose(jelly.get_xydata(), [(1, 50), (4, 100)])
    assert ax.get_title() == "vgg9" and [t.get_text() for t in ax.get_xticklabels()] == ["1", "4"]
