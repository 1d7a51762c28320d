"""One neuron under a known drive: its trace, its f–I curve in closed form, and the resolution of a rate code.

With keep = 1 − 1/τ and gain = 1/τ (``decay_input``) or 1, a LIF neuron that starts at 0 and is silent is at

    h(k) = g·x·(1 − keep^k),   g = gain·τ        a geometric sum of k equal drives x
    k*   = ⌈ln(1 − θ/(g·x)) / ln keep⌉           steps to threshold, for x above the rheobase θ/g

With hard reset to 0 every interval is k*, so that T steps hold ⌊T/k*⌋ spikes. The IF neuron with soft reset
has ⌊(T·x + v(0))/θ⌋ (see :mod:`snnbook.staircase`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from .checks import check
from .kernels import Dynamics, charge
from .neurons import if_run, multi_step


def trace(x: Tensor, d: Dynamics, v0: float = 0.0) -> pd.DataFrame:
    """One neuron step by step, for pictures and tables.

    Args:
        x: drive [T].
        d: threshold, reset and leak.
        v0: initial potential v(0).

    Returns:
        Columns ``step`` (from 1), ``drive``, ``before`` = v(t−1), ``h`` (after charging), ``spike`` (0 or 1)
        and ``v`` (after the reset).
    """
    v, rows = torch.as_tensor(v0, dtype=x.dtype), []
    for t in range(len(x)):
        before, h = v, charge(x[t], v, d)
        s, v = multi_step(x[t : t + 1], v, d)
        rows.append((t + 1, x[t].item(), before.item(), h.item(), int(s.item()), v.item()))
    return pd.DataFrame(rows, columns=["step", "drive", "before", "h", "spike", "v"])


def _check_leak(tau: float, threshold: float) -> None:
    check("tau", tau, tau > 1, "a number above 1")
    check("threshold", threshold, threshold > 0, "a positive number")


def rheobase(tau: float, threshold: float = 1.0, decay_input: bool = True) -> float:
    """Constant drive above which a LIF neuron fires at all: θ, or θ/τ without ``decay_input``.

    Raises:
        ValueError: if ``tau`` is not above 1 or ``threshold`` is not positive.
    """
    _check_leak(tau, threshold)
    return threshold if decay_input else threshold / tau


def lif_period(x: Tensor, tau: float, threshold: float = 1.0, decay_input: bool = True) -> Tensor:
    """Steps k* between spikes of a LIF neuron with hard reset to 0 under constant drive.

    Args:
        x: drives, any shape.
        tau: membrane time constant τ in steps, above 1.
        threshold: θ.
        decay_input: whether the drive is divided by τ too.

    Returns:
        k* ≥ 1 in the shape of ``x``; infinite at and below the rheobase.

    Raises:
        ValueError: if ``tau`` is not above 1 or ``threshold`` is not positive.
    """
    least = rheobase(tau, threshold, decay_input)
    k = torch.log1p(-least / x.clamp(min=least)) / math.log1p(-1 / tau)
    return torch.where(x > least, k.ceil().clamp(min=1), torch.inf)


def lif_rate(
    x: Tensor, tau: float, time_steps: int, threshold: float = 1.0, decay_input: bool = True
) -> Tensor:
    """Spikes per step, ⌊T/k*⌋/T, of a LIF neuron with hard reset to 0; arguments as :func:`lif_period`.

    Raises:
        ValueError: as :func:`lif_period`, or if ``time_steps`` is below 1.
    """
    check("time_steps", time_steps, time_steps >= 1, "at least 1")
    return (time_steps / lif_period(x, tau, threshold, decay_input)).floor() / time_steps


def code_errors(time_steps: Sequence[int], drives: int = 4096) -> pd.DataFrame:
    """Root-mean-square error of rates that stand for values uniform on [0, 1).

    Args:
        time_steps: numbers of steps T.
        drives: how many evenly spaced values are run through an IF neuron.

    Returns:
        Columns ``time_steps``; ``levels`` = T + 1; ``bits`` = log2(T + 1); ``floor`` and ``rounded``: an IF
        neuron with v(0) = 0 and θ/2, simulated; ``random``: a spike with that probability at each step, in
        closed form √(1/(6T)).

    Raises:
        ValueError: if a T is below 1.
    """
    check("time_steps", list(time_steps), min(time_steps, default=0) >= 1, "numbers of at least 1")
    z = (torch.arange(drives, dtype=torch.float64) + 0.5) / drives
    rows = []
    for T in time_steps:
        rates = [if_run(z.expand(T, -1), v0)[0].mean(0) for v0 in (0.0, 0.5)]
        floor, rounded = ((rate - z).square().mean().sqrt().item() for rate in rates)
        rows.append((T, T + 1, math.log2(T + 1), floor, rounded, math.sqrt(1 / (6 * T))))
    return pd.DataFrame(rows, columns=["time_steps", "levels", "bits", "floor", "rounded", "random"])
