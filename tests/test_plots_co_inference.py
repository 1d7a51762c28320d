"""Figures of co-inference show the numbers they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from snnbook import plots

TIMELINE = pd.DataFrame(
    {"sample": [5, 7], "start": [0.0, 2.0], "computed": [2.0, 4.0], "sending": [2.0, 5.0], "received": [5.0, 8.0],
     "answered": [6.0, 9.0]}
)  # fmt: skip


def test_timeline_draws_each_stage_of_each_sample():
    fig = plots.co_inference_timeline({"a": TIMELINE, "b": TIMELINE.iloc[:1]})
    spans = [[(b.get_x(), b.get_x() + b.get_width()) for b in axis.patches] for axis in fig.axes]
    assert spans[0] == [(0, 2), (2, 5), (5, 6), (2, 4), (5, 8), (8, 9)]
    assert spans[1] == spans[0][:3]
    assert [axis.get_title(loc="left") for axis in fig.axes] == ["a", "b"]
    colours = [b.get_facecolor() for b in fig.axes[0].patches]
    assert colours[0] == colours[2] != colours[3]


@pytest.mark.parametrize(("crossing", "lines"), [(2e3, 4), (0.0, 3), (np.inf, 3)])
def test_latency_has_curves_points_and_a_break_even_inside_the_axis(crossing, lines):
    rates = np.array([1e3, 1e4])
    measured = {"spikes": pd.DataFrame({"rate": [1e3], "latency_ms": [9.0]})}
    fig = plots.latency_over_rate(measured, {"spikes": rates / 1e3, "PNG": rates / 1e2}, rates, crossing)
    (axis,) = fig.axes
    assert len(axis.lines) == lines
    curve, points, other = axis.lines[:3]
    assert curve.get_xydata().tolist() == [[1, 1], [10, 10]] and points.get_xydata().tolist() == [[1, 9]]
    assert other.get_linestyle() == "--"
    if lines == 4:
        assert set(axis.lines[3].get_xdata()) == {2}


def test_windows_are_held_against_the_link():
    table = pd.DataFrame({"window": [1, 4], "per_second": [20.0, 40.0], "latency_ms": [50.0, 100.0]})
    left, right = plots.window_curves(table, 48.0).axes
    assert left.lines[0].get_xydata().tolist() == [[1, 20], [4, 40]]
    assert set(left.lines[1].get_ydata()) == {48} and left.get_ylim()[1] > 48
    assert right.lines[0].get_xydata().tolist() == [[1, 50], [4, 100]]


def test_early_exit_shows_the_confidence_of_each_point():
    table = pd.DataFrame({"threshold": [0.5, 0.9], "steps": [1.0, 1.5], "accuracy": [0.8, 0.9]})
    (axis,) = plots.early_exit_curve(table).axes
    assert axis.lines[0].get_xydata().tolist() == [[1, 80], [1.5, 90]]
    assert [t.get_text() for t in axis.texts] == ["0.5", "0.9"]
