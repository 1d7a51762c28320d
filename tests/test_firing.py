"""Closed forms of one neuron against step-by-step simulation written out here."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnbook import firing
from snnbook.neurons import Dynamics


def first_spike(x, tau, theta, gain, limit=3000):
    """Steps until a leaky neuron that starts at 0 fires, by hand; inf if it does not within ``limit``."""
    v = 0.0
    for k in range(1, limit + 1):
        v = (1 - 1 / tau) * v + gain * x
        if v >= theta:
            return k
    return math.inf


def test_trace_worked_by_hand():
    rows = firing.trace(torch.tensor([0.5, 0.75, 0.0, 1.0], dtype=torch.float64), Dynamics(1.0))
    assert rows["step"].tolist() == [1, 2, 3, 4]
    assert rows["before"].tolist() == [0, 0.5, 0.25, 0.25]
    assert rows["h"].tolist() == [0.5, 1.25, 0.25, 1.25]
    assert rows["spike"].tolist() == [0, 1, 0, 1]
    assert rows["v"].tolist() == [0.5, 0.25, 0.25, 0.25]


def test_trace_with_leak_hard_reset_and_start():
    d = Dynamics(1.0, v_reset=0.0, tau=2.0, decay_input=False)
    rows = firing.trace(torch.tensor([0.5, 0.25], dtype=torch.float64), d, v0=1.0)
    assert rows["h"].tolist() == [1.0, 0.25]
    assert rows["v"].tolist() == [0.0, 0.25]


@settings(max_examples=60, deadline=None)
@given(
    over=st.floats(1.01, 20), tau=st.floats(1.1, 50), theta=st.floats(0.1, 10), decay=st.booleans()
)
def test_period_is_the_first_spike(over, tau, theta, decay):
    gain = 1 / tau if decay else 1.0
    x = over * firing.rheobase(tau, theta, decay)
    found = firing.lif_period(torch.tensor([x], dtype=torch.float64), tau, theta, decay).item()
    exact = math.log(1 - theta / (gain * tau * x)) / math.log(1 - 1 / tau)
    if abs(exact - round(exact)) > 1e-9:  # at a whole number rounding decides
        assert found == first_spike(x, tau, theta, gain)


@pytest.mark.parametrize("decay", [True, False])
def test_silent_at_and_below_rheobase(decay):
    least = firing.rheobase(4.0, 2.0, decay)
    assert least == (2.0 if decay else 0.5)
    x = torch.tensor([-1.0, 0.0, 0.99 * least, least], dtype=torch.float64)
    assert firing.lif_period(x, 4.0, 2.0, decay).isinf().all()
    assert firing.lif_rate(x, 4.0, 50, 2.0, decay).tolist() == [0, 0, 0, 0]
    assert first_spike(0.99 * least, 4.0, 2.0, 0.25 if decay else 1.0) == math.inf


def test_rate_counts_whole_periods():
    x = torch.tensor([0.8], dtype=torch.float64)  # potential 0.8, 1.2 with τ = 2: a spike every second step
    assert firing.lif_period(x, 2.0, 1.0, False).item() == 2
    assert firing.lif_rate(x, 2.0, 7, 1.0, False).item() == 3 / 7


def test_code_errors_match_closed_forms():
    table = firing.code_errors([1, 4, 16]).set_index("time_steps")
    for T, row in table.iterrows():
        assert row["floor"] == pytest.approx(1 / (math.sqrt(3) * T), rel=1e-4)  # uniform on [0, 1/T)
        assert row["rounded"] == pytest.approx(1 / (math.sqrt(12) * T), rel=1e-4)
        assert row["levels"] == T + 1 and row["bits"] == math.log2(T + 1)


def test_random_code_against_drawn_spikes():
    g = torch.Generator().manual_seed(0)
    p = torch.rand(200_000, generator=g, dtype=torch.float64)
    rate = (torch.rand(8, 200_000, generator=g, dtype=torch.float64) < p).double().mean(0)
    drawn = (rate - p).square().mean().sqrt().item()
    assert firing.code_errors([8])["random"].item() == pytest.approx(drawn, rel=0.01)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: firing.rheobase(1.0), "tau = 1.0"),
        (lambda: firing.lif_period(torch.ones(1), 2.0, 0.0), "threshold = 0.0"),
        (lambda: firing.lif_rate(torch.ones(1), 2.0, 0), "time_steps = 0"),
        (lambda: firing.code_errors([4, 0]), r"time_steps = \[4, 0\]"),
        (lambda: firing.code_errors([]), r"time_steps = \[\]"),
    ],
)
def test_refusals_name_the_value(call, name):
    with pytest.raises(ValueError, match=name):
        call()
