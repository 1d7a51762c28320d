"""The figures of chapters 10 and 11 show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from snnbook import plots, residual, staircase


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def lines(ax):
    """Label to (x, y) of the labelled lines of ``ax``."""
    return {
        line.get_label(): (line.get_xdata(), line.get_ydata())
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


def test_conversion_error_draws_the_three_curves():
    table = staircase.curves(staircase.grid(2.0, 50), 2.0, 4)
    fig = plots.conversion_error(table, 2.0)
    drawn = lines(fig.axes[0])
    assert np.array_equal(drawn["ReLU (ANN)"][1], table["relu"])
    assert np.array_equal(drawn["clipped ReLU"][1], table["clipped"])
    assert fig.get_facecolor()[3] == 1 and len(fig.axes[0].collections) == 2


def test_constant_drive_has_a_panel_for_each_run():
    table = staircase.curves(staircase.grid(1.0, 50), 1.0, 4)
    z, phi = np.array([0.1, 0.6]), np.array([0.0, 0.5])
    fig = plots.constant_drive(table, {"a": (z, phi), "b": (z, phi + 0.25)})
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"]
    assert np.array_equal(lines(fig.axes[1])["simulated"][1], phi + 0.25)


def test_threshold_tradeoff_marks_every_choice():
    sweep = staircase.threshold_sweep(np.linspace(0.5, 3, 20), 4)
    ax = plots.threshold_tradeoff(sweep, {"best": 1.7, "beyond": 4.0}).axes[0]
    assert {text.get_text() for text in ax.texts} == {"best", "beyond"}
    assert ax.get_xlim()[1] > 4 and np.array_equal(lines(ax)["total"][1], sweep["total"])


def test_threshold_methods_has_a_line_for_each_method():
    table = staircase.compare_thresholds([2, 4], 1000)
    left, right = plots.threshold_methods(table).axes
    assert list(lines(left)) == ["Max", "Robust", "MSE-optimal"]
    assert np.array_equal(lines(right)["Max"][1], table.query("method == 'Max'")["total"])


def test_rounding_bias_keeps_floor_and_shift_apart():
    left, right = plots.rounding_bias(staircase.mismatch_table([2, 4, 8], 8), 8).axes
    assert lines(left)["floor"][1].tolist() == [-0.1875, -0.0625, 0]
    assert lines(right)["shift"][1][-1] == 0


def test_spike_orders_shows_every_spike():
    inputs = np.array([[1, 0], [0, 1], [1, 1]])
    case = (inputs, np.array([0, 0, -1, -1]), np.array([1, 0, 0]))
    fig = plots.spike_orders({"a": case, "b": case}, ["+", "−"])
    raster, trace = fig.axes[0], fig.axes[2]
    assert sum(len(c.get_segments()) for c in raster.collections) == 5
    assert raster.get_title() == "a" and trace.lines[0].get_ydata().tolist() == [0, 0, -1, -1]


def test_count_bars_have_the_right_heights():
    table = residual.outcome_table(residual.outcome(residual.ordered_drives([2, 3], [1, -1], 5)))
    ax = plots.count_bars({"a": table, "b": table}).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [75, 24, 1] * 2


def test_potential_error_and_its_marks():
    table = residual.potential_sweep(residual.ordered_drives([1, 1], [1, 1], 5), [0.0, 1.0], 2)
    ax = plots.potential_error({"case": table}, {"θ/2": 0.5}).axes[0]
    assert lines(ax)["case"][1].tolist() == pytest.approx([-0.04, 0.96])
    assert ax.texts[0].get_text() == "θ/2"


def test_error_over_steps_draws_exact_and_sampled():
    exact = {"case": residual.steps_sweep([2, 3], [1, -1], 5, [1, 2])}
    sampled = {"case": residual.sampled_steps_sweep([2, 3], [1, -1], 5, [4], 50, np.random.default_rng(0))}
    left, right = plots.error_over_steps(exact, sampled, {"case": 0.8}).axes
    assert np.array_equal(lines(left)["case"][1], exact["case"]["spike_error"])
    assert {"∝ 1/T", "∝ 1/√T"} < set(lines(right)) and right.get_yscale() == "log"


def test_residual_plane_sorts_by_the_sign_of_the_error():
    n, v = torch.tensor([0.0, 1, 2, 1]), torch.tensor([-1.0, -0.5, 1.5, 0.5])
    ideal = residual.ideal_count_from_residual(n, v, 4)
    drawn = lines(plots.residual_plane(n.numpy(), v.numpy(), ideal.numpy(), 4).axes[0])
    assert {label: len(x) for label, (x, _) in drawn.items()} == {"n > n*": 1, "n < n*": 1, "n = n*": 2}


def test_residual_ratios_in_percent():
    table = residual.shares_against_steps([1, 2], seed=0, samples=4, neurons=20, fan_in=9, rate=0.3)
    left, right = plots.residual_ratios(table).axes
    assert np.allclose(lines(left)["n ≠ n*"][1], 100 * table["corrected"])
    assert np.allclose(right.lines[0].get_ydata(), table["rate_error"])
