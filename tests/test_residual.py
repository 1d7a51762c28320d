"""Residual potentials: identities on random trains, enumerations against cases worked by hand."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnbook import residual

OVER = ([2, 3], [1.0, -1.0])  # first row of Fig 1(b)
UNDER = ([1, 1], [1.0, 1.0])  # second row


def plain_if(drive, v0, threshold):
    """One neuron in plain Python: (n, v(T))."""
    n, v = 0, v0
    for x in drive:
        v += x
        if v >= threshold:
            v, n = v - threshold, n + 1
    return n, v


@st.composite
def runs(draw):
    """Dyadic drives, v(0) and θ, so that every sum and quotient is exact."""
    steps, neurons = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    row = st.lists(st.integers(-96, 96), min_size=neurons, max_size=neurons)
    x = torch.tensor(draw(st.lists(row, min_size=steps, max_size=steps)), dtype=torch.float64) / 32
    return x, draw(st.integers(-64, 64)) / 32, draw(st.sampled_from([0.5, 1.0, 2.0]))


@settings(max_examples=200, deadline=None)
@given(runs())
def test_identity_and_outcome(run):
    x, v0, threshold = run
    n, v = residual.outcome(x, v0, threshold)
    expected = [plain_if(drive, v0, threshold) for drive in x.T.tolist()]
    assert list(zip(n.tolist(), v.tolist(), strict=True)) == expected
    assert torch.equal(v, residual.accumulated(x, n, v0, threshold))


def test_trace_by_hand():
    spikes, v = residual.trace(torch.tensor([0.5, 0.75, -1.0, 2.5]), v0=0.25)
    assert spikes.tolist() == [0, 1, 0, 1]
    assert v.tolist() == [0.25, 0.75, 0.5, -0.5, 1.0]


@settings(max_examples=300, deadline=None)
@given(runs())
def test_theorem(run):
    x, v0, threshold = run
    n, v = residual.outcome(x, v0, threshold)
    ideal = residual.ideal_count(x, v0, threshold)
    assert torch.equal(residual.is_ideal(n, v, len(x), threshold), n == ideal)
    assert torch.equal(residual.ideal_count_from_residual(n, v, len(x), threshold), ideal)


def test_theorem_on_200_000_random_trains():
    x = residual.random_layer(8, 400, 500, 40, 0.2, np.random.default_rng(1))
    n, v = residual.outcome(x)
    ideal = residual.ideal_count(x)
    assert n.numel() == 200_000
    assert torch.equal(residual.is_ideal(n, v, 8), n == ideal)
    outside = residual.outside_range(v)
    assert ((n != ideal) <= outside).all() and (outside & (n == ideal)).any()


def test_one_step_is_always_ideal():
    x = residual.random_layer(1, 50, 50, 30, 0.3, np.random.default_rng(0))
    assert torch.equal(residual.outcome(x).n, residual.ideal_count(x))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 16), st.integers(-64, 64), st.integers(0, 31))
def test_constant_drive_is_always_ideal(steps, drive, v0):
    x = torch.full((steps, 1), drive / 32, dtype=torch.float64)
    assert torch.equal(residual.outcome(x, v0 / 32).n, residual.ideal_count(x, v0 / 32))


def test_orders_are_all_distinct_permutations():
    expected = {tuple(p) for p in permutations([1.0, 1.0, 0.0, 0.0, 0.0])}
    found = [tuple(row) for row in residual.orders(5, 2).tolist()]
    assert len(found) == len(expected) and set(found) == expected
    assert residual.orders(3, 0).tolist() == [[0, 0, 0]]


def test_figure_1b_over_firing():
    x = residual.ordered_drives(*OVER, 5)
    table = residual.outcome_table(residual.outcome(x))
    assert table.values.tolist() == [[0, -1, 75], [1, -2, 24], [2, -3, 1]]
    assert float(residual.outcome(x).n.mean()) == pytest.approx(0.26)
    assert (residual.ideal_count(x) == 0).all()


def test_figure_1b_under_firing():
    table = residual.outcome_table(residual.outcome(residual.ordered_drives(*UNDER, 5)))
    assert table.values.tolist() == [[1, 1, 1], [2, 0, 24]]


def test_signed_step_cures_and_the_printed_one_does_not():
    x = residual.ordered_drives(*OVER, 5)
    n = residual.outcome(x).n
    signed = residual.potential_step(0.0, 0.0, n / 5, 5)
    printed = residual.potential_step(0.0, 0.0, n / 5, 5, signed=False)
    assert signed == pytest.approx(-0.26) and printed == pytest.approx(0.26)
    cured, same = residual.outcome(x, signed), residual.outcome(x, printed)
    assert residual.outcome_table(cured)[["spikes", "orders"]].values.tolist() == [[0, 99], [1, 1]]
    assert float(cured.n.mean()) == pytest.approx(0.01)
    assert torch.equal(same.n, n)


def test_potential_sweep_agrees_with_single_runs():
    x = residual.ordered_drives(*OVER, 5)
    table = residual.potential_sweep(x, [-0.26, 0.0, 0.26], target=0)
    assert table["mean_error"].tolist() == pytest.approx([0.01, 0.26, 0.26])
    assert table["mean_abs_error"].tolist() == pytest.approx([0.01, 0.26, 0.26])
    under = residual.potential_sweep(residual.ordered_drives(*UNDER, 5), [0.0, 1.0], target=2)
    assert under["mean_error"].tolist() == pytest.approx([-0.04, 0.96])


@pytest.mark.parametrize(
    "counts, weights, steps, v0, threshold",
    [
        ([2, 3], [1.0, -1.0], 5, 0.0, 1.0),
        ([1, 1], [1.0, 1.0], 5, 0.5, 1.0),
        ([2, 1, 2], [0.75, -0.5, 1.25], 4, 0.25, 0.5),
        ([3, 4], [1.0, -1.0], 8, -0.5, 1.0),
        ([0, 2], [1.0, 2.0], 4, 0.0, 1.0),
    ],
)
def test_distribution_equals_enumeration(counts, weights, steps, v0, threshold):
    n = residual.outcome(residual.ordered_drives(counts, weights, steps), v0, threshold).n
    values, times = n.int().unique(return_counts=True)
    expected = dict(zip(values.tolist(), times.tolist(), strict=True))
    assert residual.count_distribution(counts, weights, steps, v0, threshold) == expected


def test_distribution_counts_every_order_of_a_large_case():
    found = residual.count_distribution([8, 12], [1.0, -1.0], 20)
    assert sum(found.values()) == comb(20, 8) * comb(20, 12)


def test_mean_errors_by_hand():
    distribution = {0: 1, 2: 3}
    assert residual.mean_error(distribution, 1) == 0.5
    assert residual.mean_absolute_error(distribution, 1) == 1


def test_sampled_orders_keep_counts_and_approach_the_exact_mean():
    x = residual.sampled_drives(*OVER, 5, 20_000, np.random.default_rng(0))
    assert (x.sum(0) == -1).all() and x.shape == (5, 20_000)
    assert float(residual.outcome(x).n.mean()) == pytest.approx(0.26, abs=0.015)


def test_sweeps_over_steps_agree_and_shrink():
    exact = residual.steps_sweep(*OVER, 5, [1, 2])
    assert exact.iloc[0].tolist() == pytest.approx([5, 0.26, 0.052])
    assert exact["rate_error"].iloc[1] < exact["rate_error"].iloc[0]
    sampled = residual.sampled_steps_sweep(*OVER, 5, [1, 2], 20_000, np.random.default_rng(3))
    assert np.allclose(sampled, exact, atol=0.02)


@pytest.mark.parametrize(
    "case, limit", [(OVER, residual.overfire_limit(0.16, 0.36)), (UNDER, residual.backlog_limit(0.4, 0.32))]
)
def test_spike_error_tends_to_its_limit(case, limit):
    sampled = residual.sampled_steps_sweep(*case, 5, [200], 4000, np.random.default_rng(0))
    assert sampled["spike_error"].iloc[0] == pytest.approx(limit, rel=0.08)


def test_limits_by_hand():
    assert residual.overfire_limit(0.25, 0.5) == pytest.approx(1.0)
    assert residual.overfire_limit(0.0, 0.5) == 0
    assert residual.backlog_limit(0.3, 0.21) == pytest.approx(
        0.0
    )  # at most one arrival a step: never a queue


def test_activation_count_clips_on_both_sides():
    assert residual.activation_count([2, 3], [1, -1], 5) == 0
    assert residual.activation_count([1, 1], [1, 1], 5) == 2
    assert residual.activation_count([5, 5], [1, 1], 5) == 5


def test_residual_shares_of_hand_made_neurons():
    n = torch.tensor([0.0, 0, 1, 2, 4, 1])
    v = torch.tensor([-0.5, 0.5, -0.5, 1.5, 1.0, 0.0])
    shares = residual.residual_shares(n, v, time_steps=4)
    sixths = {name: round(6 * share) for name, share in shares.items()}
    assert sixths == {"plain": 4, "corrected": 2, "over": 1, "under": 1, "silent": 1, "saturated": 1}


def test_shares_against_steps_add_up():
    table = residual.shares_against_steps([1, 4], seed=0, samples=10, neurons=50, fan_in=20, rate=0.3)
    assert np.allclose(table["plain"], table["corrected"] + table["silent"] + table["saturated"])
    assert np.allclose(table["corrected"], table["over"] + table["under"])
    assert table["corrected"].iloc[0] == 0 and table["rate_error"].iloc[0] == 0
    assert table["corrected"].iloc[1] > 0


def test_random_layer_is_exact_and_repeatable():
    make = lambda: residual.random_layer(4, 3, 7, 10, 0.5, np.random.default_rng(5))  # noqa: E731
    x = make()
    assert x.shape == (4, 3, 7) and torch.equal(x, make()) and torch.equal(64 * x, (64 * x).round())


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: residual.ideal_count(torch.ones(2, 1), 0.0, 0.0), "threshold"),
        (lambda: residual.ideal_count_from_residual(torch.ones(1), torch.ones(1), 2, -1.0), "threshold"),
        (lambda: residual.orders(3, 4), "spikes"),
        (lambda: residual.ordered_trains([20, 20], 40), "counts"),
        (lambda: residual.ordered_drives([1, 6], [1, 1], 5), "counts"),
        (lambda: residual.ordered_drives([1, 1], [1], 5), "weights"),
        (lambda: residual.count_distribution([1], [1], 5, threshold=0), "threshold"),
        (lambda: residual.overfire_limit(0.5, 0.5), "up"),
        (lambda: residual.backlog_limit(1.0, 0.5), "mean"),
        (lambda: residual.random_layer(4, 1, 1, 1, 0.0, np.random.default_rng(0)), "rate"),
        (lambda: residual.random_layer(4, 0, 1, 1, 0.5, np.random.default_rng(0)), "samples"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=f"^{name} = .* is not allowed"):
        call()
