"""What a surrogate gradient says about a firing rate, on one neuron with one weight.

The derivative of the spike s = 1[h ≥ θ] is 0 almost everywhere. Backpropagation puts a bump g(h − θ) in its
place (Neftci et al. 2019). For an IF neuron with soft reset and constant drive w, equation (6) of the RMPE
paper, θ·n = v(0) + T·w − v(T), stays true for gradients that pass through the reset:

    dn/dw = (T − dv(T)/dw) / θ

so the surrogate gradient of the rate n/T tends to 1/θ, the slope of the f–I curve. With ``detach_reset`` (the
usual choice) nothing subtracts, and the gradient grows with T.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

from .checks import check
from .neurons import Dynamics, multi_step


def slope(surrogate_function: nn.Module, over: Tensor) -> Tensor:
    """The bump g at ``over`` = h − θ (any shape), as autograd finds it."""
    over = over.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(surrogate_function(over).sum(), over)
    return gradient


def rate_gradient(
    weights: Tensor, time_steps: int, d: Dynamics, surrogate_function: nn.Module, detach_reset: bool = True
) -> tuple[Tensor, Tensor]:
    """Firing rate of one neuron with input 1 at every step, and its surrogate gradient, for many weights.

    Args:
        weights: w [N]; the drive of neuron i is w_i at every step.
        time_steps: T.
        d: threshold, reset and leak.
        surrogate_function: SpikingJelly surrogate.
        detach_reset: whether the gradient ignores the reset.

    Returns:
        ``(rate, gradient)``, each [N]: n/T and its derivative by w.

    Raises:
        ValueError: if ``time_steps`` is below 1.
    """
    check("time_steps", time_steps, time_steps >= 1, "at least 1")
    w = weights.detach().clone().requires_grad_()
    x = w * torch.ones(time_steps, 1, dtype=w.dtype)
    spikes, _ = multi_step(x, torch.zeros_like(w), d, surrogate_function, detach_reset)
    rate = spikes.mean(0)
    (gradient,) = torch.autograd.grad(rate.sum(), w)
    return rate.detach(), gradient


def fit_rate(
    weight: float,
    target: float,
    time_steps: int,
    d: Dynamics,
    surrogate_function: nn.Module,
    *,
    detach_reset: bool = True,
    lr: float = 0.1,
    iterations: int = 30,
) -> pd.DataFrame:
    """Gradient descent on the loss ½(rate − target)² of one neuron with one weight, in float64.

    Args:
        weight: initial w.
        target: wanted rate, spikes per step.
        lr: learning rate.
        iterations: updates.

    Returns:
        One row for each weight seen, the first and the last included: ``iteration``, ``weight``, ``rate``,
        ``loss``, ``gradient`` (of the loss).

    Raises:
        ValueError: if ``target`` is no rate or ``time_steps`` is below 1.
    """
    check("target", target, 0 <= target <= 1, "0 to 1 spikes per step")
    w, rows = torch.tensor([weight], dtype=torch.float64), []
    for i in range(iterations + 1):
        rate, slope_of_rate = rate_gradient(w, time_steps, d, surrogate_function, detach_reset)
        error = rate - target
        gradient = error * slope_of_rate
        rows.append((i, w.item(), rate.item(), 0.5 * error.item() ** 2, gradient.item()))
        w = w - lr * gradient
    return pd.DataFrame(rows, columns=["iteration", "weight", "rate", "loss", "gradient"])
