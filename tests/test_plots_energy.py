"""Figures of operations and joules show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots, syops


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def operations():
    rows = [
        ("stem", "connection", "mac", 1, 100.0),
        ("body.0", "neuron", "ac", 1, 10.0),
        ("body.0", "neuron", "ac", 2, 20.0),
        ("body.1", "connection", "ac", 1, 30.0),
        ("body.1", "connection", "ac", 2, 40.0),
    ]
    return pd.DataFrame(rows, columns=["layer", "part", "kind", "step", "operations"])


def test_mac_and_ac_counts_lines():
    left, right = plots.mac_and_ac([0.5, 0, 1], [1, 0, 1], n_out=2).axes
    assert left.get_title() == "analogue: 3 × 2 = 6 MAC"
    assert right.get_title() == "spikes, one time step: 2 × 2 = 4 AC"
    grey = [line for line in right.lines if line.get_color() == "#D0D0D0"]
    assert len(right.lines) == 6 and len(grey) == 2
    assert not [line for line in left.lines if line.get_color() == "#D0D0D0"]


def test_fan_out_map_labels_and_frames():
    fan, spikes = np.array([[4.0, 6.0], [6.0, 9.0]]), np.array([[1, 0], [0, 1]])
    ax = plots.fan_out_map(fan, spikes).axes[0]
    assert [t.get_text() for t in ax.texts] == ["4", "6", "6", "9"]
    assert len(ax.patches) == 2
    assert ax.patches[1].get_center() == pytest.approx((1, 1))


def test_operation_counts_stack_to_the_sums(operations):
    left, right = plots.operation_counts(operations).axes
    ends = {}
    for bar in left.patches:
        layer = round(bar.get_y() + bar.get_height() / 2)
        ends[layer] = max(ends.get(layer, 0), bar.get_x() + bar.get_width())
    assert ends == {0: 100, 1: 30, 2: 70}
    steps = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert steps == {"AC": [40, 60], "MAC": [100]}


def test_energy_bars_are_microjoules(operations):
    everything = {"all": operations, "connections": operations[operations["part"] == "connection"]}
    ax = plots.energy_bars(everything, mac=4.6, ac=0.9).axes[0]
    ends = np.zeros(2)
    for bar in ax.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        ends[row] = max(ends[row], bar.get_x() + bar.get_width())
    assert ends == pytest.approx([(460 + 90) * 1e-6, (460 + 63) * 1e-6])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["all", "connections"]


def test_break_even_lines_cross_one():
    ax = plots.break_even({"a": 5.0, "b": 1.5}, ("net", 2.0, 0.4)).axes[0]
    line, marker = ax.lines[0], ax.lines[1]
    assert np.interp(5.0, line.get_xdata(), line.get_ydata()) == pytest.approx(1, rel=1e-3)
    assert (marker.get_xdata()[0], marker.get_ydata()[0]) == (5.0, 1)
    assert ax.lines[-1].get_label() == "net" and ax.lines[-1].get_ydata()[0] == 0.4
    assert len(plots.break_even({"a": 5.0}).axes[0].lines) == 3


def test_equation_18_in_percent():
    table = pd.concat(syops.equation_18(1000, 10, 0.1, t).assign(time_steps=t) for t in (1, 10))
    ax = plots.equation_18(table, (5, 0.5)).axes[0]
    once = table[table["reading"] == "once"]["ratio"]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx((100 * once).tolist())
    assert ax.lines[-1].get_ydata()[0] == 50
    assert len(plots.equation_18(table).axes[0].lines) == 4
