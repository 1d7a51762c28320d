"""Surrogate gradients of one neuron against formulas, a plain autograd loop and the telescoping identity."""

import math

import pytest
import torch
from spikingjelly.activation_based import surrogate

from snnbook import surrogates
from snnbook.neurons import Dynamics

W = torch.linspace(0.03, 1.3, 41, dtype=torch.float64)
BUMPS = [surrogate.ATan(2.0), surrogate.Rect(1.0), surrogate.PiecewiseQuadratic(1.0)]


def test_slopes_are_the_formulas_of_the_chapter():
    u = torch.linspace(-1.5, 1.5, 37, dtype=torch.float64) + 1e-3
    atan, rectangle, triangle = (surrogates.slope(bump, u) for bump in BUMPS)
    torch.testing.assert_close(atan, 1 / (1 + (math.pi * u) ** 2))
    torch.testing.assert_close(rectangle, (u.abs() < 0.5).double())
    torch.testing.assert_close(triangle, (1 - u.abs()).clamp(min=0))


def plain_loop(weights, T, theta, bump, detach):
    """dn/dw by autograd through a loop written out step by step."""
    w = weights.clone().requires_grad_()
    v, n = torch.zeros_like(w), torch.zeros_like(w)
    for _ in range(T):
        h = v + w
        s = bump(h - theta)
        v, n = h - theta * (s.detach() if detach else s), n + s
    (gradient,) = torch.autograd.grad(n.sum(), w)
    return n.detach(), gradient


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("bump", BUMPS, ids=lambda b: type(b).__name__)
def test_gradient_equals_a_plain_autograd_loop(bump, detach):
    rate, gradient = surrogates.rate_gradient(W, 9, Dynamics(0.8), bump, detach)
    n, expected = plain_loop(W, 9, 0.8, bump, detach)
    torch.testing.assert_close(rate, n / 9)
    torch.testing.assert_close(gradient, expected / 9)


def test_gradient_through_the_reset_tends_to_the_slope_of_the_staircase():
    w = torch.tensor([0.21, 0.47, 0.73], dtype=torch.float64)
    off = [
        (surrogates.rate_gradient(w, T, Dynamics(2.0), BUMPS[0], False)[1] - 0.5).abs().max().item()
        for T in (20, 200, 2000)
    ]
    assert off[0] > 5 * off[1] > 25 * off[2] and off[2] < 1e-3


def test_detached_gradient_grows_with_time():
    w = torch.tensor([0.37], dtype=torch.float64)
    short, long = (surrogates.rate_gradient(w, T, Dynamics(), BUMPS[0])[1].item() for T in (20, 200))
    assert 8 < long / short < 12


def test_two_steps_by_hand():
    # T = 2, θ = 1, w = 0.6: h = 0.6, 1.2; rectangle of width 1: g = 1, 1; detached: ds/dw = 1, 2; rate 1/2.
    w = torch.tensor([0.6], dtype=torch.float64)
    rate, gradient = surrogates.rate_gradient(w, 2, Dynamics(), BUMPS[1], detach_reset=True)
    assert rate.item() == 0.5 and gradient.item() == pytest.approx(1.5)
    # Through the reset: dv(1) = 1 − 1 = 0, so ds/dw = 1, 1.
    assert surrogates.rate_gradient(w, 2, Dynamics(), BUMPS[1], False)[1].item() == pytest.approx(1.0)


@pytest.mark.parametrize("T", [4, 20, 100])
@pytest.mark.parametrize("target", [0.05, 0.5, 0.95])
def test_learns_any_rate(T, target):
    for detach, lr in ((False, 0.1), (True, 1 / T)):
        how = {"detach_reset": detach, "lr": lr, "iterations": 60}
        fit = surrogates.fit_rate(0.2 / T, target, T, Dynamics(), BUMPS[0], **how)
        assert abs(fit["rate"].iloc[-1] - target) <= 1 / T + 1e-9
        assert fit["loss"].iloc[-1] == pytest.approx(0.5 * (fit["rate"].iloc[-1] - target) ** 2)


def test_fit_is_gradient_descent():
    fit = surrogates.fit_rate(0.1, 0.5, 10, Dynamics(), BUMPS[0], lr=0.05, iterations=4)
    assert len(fit) == 5
    steps = -0.05 * fit["gradient"].iloc[:-1]
    assert fit["weight"].diff().iloc[1:].tolist() == pytest.approx(steps.tolist())


def test_silent_neuron_under_a_rectangle_never_learns():
    fit = surrogates.fit_rate(0.02, 0.5, 10, Dynamics(), BUMPS[1], detach_reset=False)
    assert (fit["weight"] == 0.02).all() and (fit["gradient"] == 0).all()


def test_refusals():
    with pytest.raises(ValueError, match="target = 1.5"):
        surrogates.fit_rate(0.1, 1.5, 10, Dynamics(), BUMPS[0])
    with pytest.raises(ValueError, match="time_steps = 0"):
        surrogates.rate_gradient(W, 0, Dynamics(), BUMPS[0])
