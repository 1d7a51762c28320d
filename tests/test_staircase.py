"""Staircase and its errors against simulation, numerical integration, and published values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from snnbook import staircase
from snnbook.neurons import if_run


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(0, 7), st.lists(st.integers(-200, 400), min_size=1, max_size=20))
def test_response_is_what_a_simulated_neuron_does(time_steps, eighths, drives):
    z = torch.tensor(drives, dtype=torch.float64) / 128  # dyadic: every sum is exact
    spikes, _ = if_run(z.expand(time_steps, -1), eighths / 8 * 2.0, threshold=2.0)
    count = staircase.response(z, 2.0, time_steps, eighths / 8 * 2.0) * time_steps / 2.0
    assert torch.equal(count.round(), spikes.sum(0))
    torch.testing.assert_close(count, count.round(), rtol=0, atol=1e-12)


def test_errors_by_hand():
    z = torch.tensor([-1.0, 0.3, 0.5, 1.5], dtype=torch.float64)
    clipping, quantisation = staircase.errors(z, threshold=1.0, time_steps=4)
    torch.testing.assert_close(clipping, torch.tensor([0, 0, 0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(quantisation, torch.tensor([0, 0.05, 0, 0], dtype=torch.float64))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.2, 4), st.integers(1, 12), st.floats(0, 0.9))
def test_errors_sum_to_the_whole_and_never_overlap(threshold, time_steps, shift):
    z = torch.linspace(-3, 6, 301, dtype=torch.float64)
    clipping, quantisation = staircase.errors(z, threshold, time_steps, shift * threshold)
    whole = z.relu() - staircase.response(z, threshold, time_steps, shift * threshold)
    torch.testing.assert_close(clipping + quantisation, whole)
    assert (clipping * quantisation).abs().max() < 1e-12
    assert quantisation.abs().max() <= threshold / time_steps + 1e-12


def test_response_tends_to_the_clipped_relu():
    z = torch.linspace(-1, 2, 101, dtype=torch.float64)
    gap = (staircase.response(z, 1.0, 4096) - staircase.clipped_relu(z, 1.0)).abs().max()
    assert gap <= 1 / 4096


def _integral(threshold, time_steps, shift, sigma):
    """E[(ReLU(z) − φ(z))²] by quadrature, piece by piece."""

    def square(z):
        level = (
            min(max(math.floor(z * time_steps / threshold + shift), 0), time_steps) * threshold / time_steps
        )
        return (max(z, 0) - level) ** 2 * norm.pdf(z, scale=sigma)

    edges = sorted(
        {0.0, threshold} | {max((k - shift) * threshold / time_steps, 0) for k in range(time_steps + 1)}
    )
    edges.append(12 * sigma)
    return sum(quad(square, a, b, epsabs=1e-12)[0] for a, b in zip(edges, edges[1:], strict=False) if b > a)


@pytest.mark.parametrize("shift", [0.0, 0.5, 0.3])
@pytest.mark.parametrize(
    "threshold, time_steps, sigma", [(1.0, 1, 1.0), (2.0, 5, 1.0), (0.7, 3, 2.5), (4.0, 8, 1.0)]
)
def test_normal_errors_agree_with_quadrature(threshold, time_steps, sigma, shift):
    found = staircase.normal_errors(threshold, time_steps, shift, sigma)
    assert found.total == pytest.approx(_integral(threshold, time_steps, shift, sigma), abs=1e-9)
    beyond = quad(lambda z: (z - threshold) ** 2 * norm.pdf(z, scale=sigma), threshold, 12 * sigma)[0]
    assert found.clipping == pytest.approx(beyond, abs=1e-9)


@pytest.mark.parametrize("time_steps", [1, 2, 8, 32])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_best_threshold_beats_a_dense_grid(time_steps, shift):
    grid = np.linspace(0.1, 6, 1000)
    totals = [staircase.normal_errors(theta, time_steps, shift).total for theta in grid]
    best = staircase.best_threshold(time_steps, shift)
    assert best == pytest.approx(grid[int(np.argmin(totals))], abs=0.006)
    assert staircase.normal_errors(best, time_steps, shift).total <= min(totals) + 1e-12
    assert staircase.best_threshold(time_steps, shift, sigma=3.0) == pytest.approx(3 * best)


def test_max_and_robust_threshold_against_samples():
    z = np.random.default_rng(0).standard_normal((400, 1000)).clip(0)
    assert staircase.max_threshold(1000) == pytest.approx(np.median(z.max(1)), rel=0.02)
    assert staircase.robust_threshold(0.999) == pytest.approx(np.quantile(z, 0.999), rel=0.01)
    assert staircase.robust_threshold(0.999, sigma=2) == pytest.approx(2 * norm.ppf(0.999))


def test_compare_thresholds_prefers_the_optimum_everywhere():
    table = staircase.compare_thresholds([2, 8], samples=10_000)
    totals = table.pivot(index="time_steps", columns="method", values="total")
    assert (totals["MSE-optimal"] < totals["Robust"]).all() and (totals["Robust"] < totals["Max"]).all()
    assert np.allclose(table["clipping"] + table["quantisation"], table["total"])


def test_steps_to_reach_is_the_first_that_does():
    goal = staircase.normal_errors(2.0, 8).total
    assert staircase.steps_to_reach(2.0, goal) == 8
    steps = staircase.steps_to_reach(4.0, goal, shift=0.5)
    assert (
        staircase.normal_errors(4.0, steps, 0.5).total
        <= goal
        < staircase.normal_errors(4.0, steps - 1, 0.5).total
    )


def test_sweep_trades_one_error_for_the_other():
    table = staircase.threshold_sweep(np.linspace(0.2, 5, 100), time_steps=4)
    assert (table["clipping"].diff().dropna() < 0).all()
    assert (table["quantisation"].diff().dropna() > 0).all()


@pytest.mark.parametrize("time_steps, expected", [(4, -0.0625), (2, -0.1875), (1, -0.4375), (8, 0.0)])
def test_bias_of_the_floor_without_shift(time_steps, expected):
    assert staircase.bias(time_steps, 8) == expected
    assert staircase.bias(time_steps, 8, 0.5, 0.5) == 0
    assert staircase.mismatch(time_steps, 8).bias == pytest.approx(expected, abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.0, 0.25, 0.5]), st.sampled_from([0.0, 0.5, 0.75])
)
def test_mismatch_against_a_dense_average(time_steps, levels, shift, ann_shift):
    z = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    d = staircase.response(z, 1.0, time_steps, shift) - staircase.response(z, 1.0, levels, ann_shift)
    found = staircase.mismatch(time_steps, levels, shift, ann_shift)
    assert found.bias == pytest.approx(float(d.mean()), abs=1e-4)
    assert found.bias == pytest.approx(staircase.bias(time_steps, levels, shift, ann_shift), abs=1e-12)
    assert found.rms == pytest.approx(float(d.square().mean().sqrt()), abs=1e-3)
    assert found.differs == pytest.approx(float((d.abs() > 1e-9).double().mean()), abs=1e-3)


def test_mismatch_table_vanishes_only_at_equal_steps():
    table = staircase.mismatch_table([4, 8, 16], levels=8)
    assert list(table["rounding"]) == ["floor"] * 3 + ["shift"] * 3
    assert (table.loc[table["time_steps"] == 8, ["bias", "rms", "differs"]] == 0).all(axis=None)
    assert (table.loc[table["time_steps"] != 8, "rms"] > 0).all()
    assert (table.loc[table["rounding"] == "shift", "bias"] == 0).all()


def test_curves_has_a_row_for_each_drive():
    table = staircase.curves(staircase.grid(2.0, 11), 2.0, 4)
    assert list(table.columns) == ["z", "relu", "clipped", "staircase"] and len(table) == 11
    assert table["z"].iloc[0] == -1 and table["staircase"].max() == 2


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: staircase.response(torch.ones(1), 0.0, 4), "threshold"),
        (lambda: staircase.response(torch.ones(1), 1.0, 0), "time_steps"),
        (lambda: staircase.normal_errors(1.0, 4, shift=1.0), "shift"),
        (lambda: staircase.normal_errors(1.0, 4, sigma=0.0), "sigma"),
        (lambda: staircase.max_threshold(1), "samples"),
        (lambda: staircase.robust_threshold(0.5), "share"),
        (lambda: staircase.bias(4, 0), "levels"),
        (lambda: staircase.bias(4, 2.5), "levels"),
        (lambda: staircase.response(torch.zeros(1), 1.0, 2.5), "time_steps"),
        (lambda: staircase.response(torch.zeros(1), 1.0, True), "time_steps"),
        (lambda: staircase.normal_errors(math.inf, 4), "threshold"),
        (lambda: staircase.steps_to_reach(1.0, 0.05), "error"),
        (lambda: staircase.mismatch(4, 8, ann_shift=-0.1), "ann_shift"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=f"^{name} = .* is not allowed"):
        call()


@pytest.mark.parametrize("v0", [-0.5, 1.0, 1.5])
def test_a_start_outside_the_range_is_refused(v0):
    with pytest.raises(ValueError, match=rf"^v0 = {v0} is not allowed: 0 to below the threshold$"):
        staircase.response(torch.zeros(1), 1.0, 4, v0)
