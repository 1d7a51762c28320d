"""Figures of chapter 40 show what is in their tables."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from snnbook.plots import planner as plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_map_has_a_rectangle_for_each_region_and_joins_what_continues():
    columns = ["floor_low", "floor_high", "rate_low", "rate_high", "plan", "family"]
    rows = [(0.9, 0.95, 1e5, 1e7, "WebP 5", "image to the server"), (0.9, 0.95, 1e3, 1e5, "ANN", "ANN on the device"),
            (0.95, 0.99, 1e5, 1e7, "WebP 5", "image to the server"), (0.95, 0.99, 1e3, 1e5, "", "")]  # fmt: skip
    fig = plots.plan_map({"latency": pd.DataFrame(rows, columns=columns)})
    (ax,) = fig.axes
    found = {(r.get_x(), round(r.get_y(), 6), round(r.get_height(), 6)) for r in ax.patches if isinstance(r, Rectangle)}
    assert found == {(1e5, 90, 9), (1e3, 90, 5), (1e3, 95, 4)}
    assert {t.get_text() for t in ax.texts} == {"WebP 5", "ANN", "none"}
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["ANN on the device", "image to the server", "none"]
    assert ax.get_xscale() == "log" and ax.get_title() == "latency"


def test_points_fill_the_front():
    rows = pd.DataFrame({"plan": ["a", "b"], "family": ["EC-SNN", "EC-SNN"], "accuracy": [0.9, 0.8],
                         "seconds": [0.1, 0.2], "board_joules": [1.0, 2.0], "bytes": [3.0, 4.0],
                         "front": [True, False]})  # fmt: skip
    axes = plots.plan_points(rows).axes
    points = [c for c in axes[1].collections if len(c.get_offsets())]
    filled = {tuple(c.get_offsets()[0]): len(c.get_facecolors()) > 0 for c in points}
    assert filled == {(100.0, 90.0): True, (200.0, 80.0): False}
    assert [ax.get_xscale() for ax in axes] == ["log"] * 3
    assert axes[0].figure.legends[0].get_texts()[-1].get_text() == "beaten"


def test_lines_and_crossings():
    rates = [1e3, 1e4]
    rows = pd.DataFrame({"plan": ["a", "a", "b", "b"], "rate": rates * 2, "seconds": [1.0, 0.1, 0.5, 0.5],
                         "joules": [2.0, 1.0, 3.0, 3.0]})  # fmt: skip
    crossings = pd.DataFrame({"measure": ["seconds"], "rate": [2e3]})
    left, right = plots.plan_lines(rows, crossings).axes
    assert [list(line.get_ydata()) for line in left.lines[:2]] == [[1000, 100], [500, 500]]
    assert list(left.lines[2].get_xdata()) == [2e3, 2e3] and len(right.lines) == 2
