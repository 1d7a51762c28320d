"""Figures of one neuron show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgba
from spikingjelly.activation_based import surrogate

from snnbook import firing, plots, surrogates
from snnbook.neurons import Dynamics


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def traces(n=2):
    x = torch.full((6,), 0.4, dtype=torch.float64)
    return {f"neuron {i}": firing.trace(x, Dynamics(1.0)) for i in range(n)}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_traces_draw_every_step(n):
    fig = plots.neuron_traces(traces(n), 1.0, boundaries=[3])
    assert len(fig.axes) == 3 * n
    potential = fig.axes[n].lines[0]
    rows = traces(1)["neuron 0"]
    assert potential.get_ydata().tolist() == rows[["before", "h", "v"]].to_numpy().ravel().tolist()
    assert potential.get_xdata()[:6].tolist() == [0, 1, 1, 1, 2, 2]
    dots = fig.axes[n].lines[1]
    assert dots.get_xdata().tolist() == rows.loc[rows["spike"] == 1, "step"].tolist()
    assert [bar.get_height() for bar in fig.axes[0].patches] == rows["drive"].tolist()
    assert [ax.get_title() for ax in fig.axes[:n]] == list(traces(n))


def test_figures_are_opaque():
    fig = plots.neuron_traces(traces(1), 1.0)
    assert fig.get_facecolor() == to_rgba("white")
    assert all(ax.get_facecolor() == to_rgba("white") for ax in fig.axes)


def test_fi_curves_line_points_and_rheobase():
    drive = np.linspace(0, 1, 11)
    table = pd.concat(
        pd.DataFrame({"neuron": k, "drive": drive, "closed_form": drive * f, "simulated": drive * f})
        for k, f in (("IF", 1), ("LIF", 0.5))
    )
    ax = plots.fi_curves(table, {"LIF": 0.3}).axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["IF", "LIF"]
    assert ax.lines[0].get_ydata().tolist() == drive.tolist()
    assert ax.lines[-1].get_xdata()[0] == 0.3
    assert ax.lines[1].get_marker() != ax.lines[3].get_marker()


def test_rate_codes_levels_and_errors():
    codes = pd.DataFrame({"time_steps": [1, 1, 4, 4], "drive": [0, 1, 0, 1], "rate": [0, 1, 0, 0.75]})
    errors = firing.code_errors([1, 2])
    left, right = plots.rate_codes(codes, errors).axes
    assert [line.get_label() for line in left.lines] == ["T = 1", "T = 4"]
    assert right.get_xscale() == right.get_yscale() == "log"
    assert right.lines[0].get_ydata().tolist() == errors["random"].tolist()


def test_surrogate_slopes_one_line_a_column():
    over = torch.linspace(-1, 1, 5, dtype=torch.float64)
    table = pd.DataFrame({"over": over, "ATan": surrogates.slope(surrogate.ATan(), over)})
    left, right = plots.surrogate_slopes(table).axes
    assert left.lines[0].get_ydata().tolist() == [0, 0, 1, 1, 1]
    assert right.lines[0].get_ydata().max() == 1.0 and right.lines[0].get_label() == "ATan"


def test_rate_gradients_columns():
    columns = ["weight", "rate", "secant", "kept", "detached"]
    table = pd.DataFrame([[0, 0, 1, 3, 5], [1, 1, 2, 4, 6]], columns=columns)
    top, bottom = plots.rate_gradients(table, 7).axes
    assert "7 steps" in top.get_title()
    assert [line.get_ydata().tolist() for line in bottom.lines[1:]] == [[1, 2], [3, 4], [5, 6]]


def test_learning_curves_target_and_runs():
    fit = surrogates.fit_rate(0.1, 0.5, 4, Dynamics(), surrogate.ATan(), iterations=3)
    left, right = plots.learning_curves({"one": fit, "two": fit}, 0.5).axes
    assert left.lines[0].get_ydata().tolist() == fit["weight"].tolist()
    assert right.lines[1].get_ydata().tolist() == fit["rate"].tolist()
    assert right.lines[-1].get_ydata()[0] == 0.5
    assert left.lines[0].get_linestyle() != left.lines[1].get_linestyle()
