"""Residual membrane potential of IF neurons: ideal counts, the n = n* theorem, enumeration of spike orders.

With v(0), drives x(1) … x(T), threshold θ, soft reset and n output spikes (symbols of the RMPE paper):

    identity     v(T) = v(0) + Σx − θ·n                                   equation (6), exact
    ideal count  n* = clip(⌊(v(0) + Σx)/θ⌋, 0, T)                         equation (3), in spikes
    theorem      n* = clip(n + ⌊v(T)/θ⌋, 0, T), hence n = n* iff v(T) ∈ [0, θ),
                 or n = 0 and v(T) < 0, or n = T and v(T) ≥ θ

Tensors hold drives [T, ...] in float64; counts and v(T) are [...].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product
from math import comb, prod
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .checks import check
from .neurons import if_run

#: The most spike orders that :func:`ordered_drives` writes out.
MAX_ORDERS = 1_000_000


class Outcome(NamedTuple):
    """What is left of a run: ``n`` output spikes and the residual potential ``v`` = v(T), each [...]."""

    n: Tensor
    v: Tensor


def outcome(x: Tensor, v0: Tensor | float = 0.0, threshold: float = 1.0) -> Outcome:
    """Run IF neurons over drives ``x`` [T, ...] from v(0) and count their spikes."""
    spikes, v = if_run(x, v0, threshold)
    return Outcome(spikes.sum(0), v)


def trace(drive: Tensor, v0: float = 0.0, threshold: float = 1.0) -> tuple[Tensor, Tensor]:
    """Spikes [T] and potential v(0) … v(T) [T + 1] of one neuron with the drive [T], for pictures."""
    spikes, _ = if_run(drive, v0, threshold)
    return spikes, v0 + torch.nn.functional.pad((drive - threshold * spikes).cumsum(0), (1, 0))


def accumulated(x: Tensor, n: Tensor, v0: Tensor | float = 0.0, threshold: float = 1.0) -> Tensor:
    """v(T) = v(0) + Σx − θ·n, equation (6) without its slips, for drives [T, ...] and actual counts [...]."""
    return v0 + x.sum(0) - threshold * n


def ideal_count(x: Tensor, v0: Tensor | float = 0.0, threshold: float = 1.0) -> Tensor:
    """n* = clip(⌊(v(0) + Σx)/θ⌋, 0, T): what the total charge in ``x`` [T, ...] is worth, whatever its order.

    Raises:
        ValueError: if ``threshold`` is not positive.
    """
    check("threshold", threshold, threshold > 0, "a positive number")
    return ((v0 + x.sum(0)) / threshold).floor().clamp(0, x.shape[0])


def ideal_count_from_residual(n: Tensor, v: Tensor, time_steps: int, threshold: float = 1.0) -> Tensor:
    """n* = clip(n + ⌊v(T)/θ⌋, 0, T): the theorem in one line, from count and residual potential."""
    check("threshold", threshold, threshold > 0, "a positive number")
    return (n + (v / threshold).floor()).clamp(0, time_steps)


def outside_range(v: Tensor, threshold: float = 1.0) -> Tensor:
    """The plain criterion of the paper's Fig 4–5, v(T) ∉ [0, θ), as a Boolean tensor."""
    return (v < 0) | (v >= threshold)


def is_ideal(n: Tensor, v: Tensor, time_steps: int, threshold: float = 1.0) -> Tensor:
    """n = n* by the theorem: v(T) ∈ [0, θ), or silent with v(T) < 0, or saturated with v(T) ≥ θ."""
    silent, saturated = (n == 0) & (v < 0), (n == time_steps) & (v >= threshold)
    return ~outside_range(v, threshold) | silent | saturated


def residual_shares(n: Tensor, v: Tensor, time_steps: int, threshold: float = 1.0) -> dict[str, float]:
    """Shares of neurons in [0, 1].

    Returns:
        ``plain``: v(T) ∉ [0, θ), as in Fig 4–5; ``corrected``: n ≠ n*; ``over`` and ``under``: its two parts;
        ``silent`` and ``saturated``: outside the range and yet right.
    """
    too_many = (n - ideal_count_from_residual(n, v, time_steps, threshold)).sign()
    marks = {
        "plain": outside_range(v, threshold),
        "corrected": too_many != 0,
        "over": too_many > 0,
        "under": too_many < 0,
        "silent": (n == 0) & (v < 0),
        "saturated": (n == time_steps) & (v >= threshold),
    }
    return {name: float(mark.double().mean()) for name, mark in marks.items()}


def orders(time_steps: int, spikes: int) -> Tensor:
    """Every way to put ``spikes`` spikes into ``time_steps`` steps: 0/1, float64 [C(T, k), T].

    Raises:
        ValueError: if ``spikes`` does not fit.
    """
    check("spikes", spikes, 0 <= spikes <= time_steps, f"0 to {time_steps}, the number of time steps")
    trains = torch.zeros(comb(time_steps, spikes), time_steps, dtype=torch.float64)
    for row, steps in enumerate(combinations(range(time_steps), spikes)):
        trains[row, list(steps)] = 1
    return trains


def ordered_trains(counts: Sequence[int], time_steps: int) -> Tensor:
    """All combinations of all orders of several inputs: 0/1, float64 [T, M, I], M = Π C(T, k_i).

    Raises:
        ValueError: if a count does not fit or M exceeds ``MAX_ORDERS``.
    """
    total = prod(comb(time_steps, k) for k in counts)
    check("counts", list(counts), total <= MAX_ORDERS, f"at most {MAX_ORDERS} orders, not {total}")
    each = [orders(time_steps, k) for k in counts]
    picks = torch.cartesian_prod(*(torch.arange(len(e)) for e in each)).reshape(total, len(each))
    return torch.stack([e[picks[:, i]] for i, e in enumerate(each)], dim=-1).movedim(1, 0)


def _check_inputs(counts: Sequence[int], weights: Sequence[float], time_steps: int) -> None:
    fits = all(0 <= k <= time_steps for k in counts)
    check("counts", list(counts), fits, f"each 0 to {time_steps}, the number of time steps")
    check("weights", list(weights), len(weights) == len(counts), f"{len(counts)} weights, one for each count")


def sampled_drives(
    counts: Sequence[int], weights: Sequence[float], time_steps: int, samples: int, rng: np.random.Generator
) -> Tensor:
    """As :func:`ordered_drives` for ``samples`` orders drawn at random, float64 [T, samples]: for large T."""
    _check_inputs(counts, weights, time_steps)
    drive = np.zeros((time_steps, samples))
    for k, weight in zip(counts, weights, strict=True):
        train = np.zeros_like(drive)
        train[:k] = weight
        drive += rng.permuted(train, axis=0)
    return torch.from_numpy(drive)


def ordered_drives(counts: Sequence[int], weights: Sequence[float], time_steps: int) -> Tensor:
    """Drive of one neuron, Σ_i w_i·s_i(t), for every order of its inputs' spikes: float64 [T, M]."""
    _check_inputs(counts, weights, time_steps)
    return ordered_trains(counts, time_steps) @ torch.as_tensor(weights, dtype=torch.float64)


def outcome_table(result: Outcome) -> pd.DataFrame:
    """How often each pair of count and v(T) (to nine digits) occurs in ``result``, n and v of shape [M].

    Returns:
        columns ``spikes``, ``v_T`` and ``orders``, sorted.
    """
    found = Counter(zip(result.n.int().tolist(), result.v.round(decimals=9).tolist(), strict=True))
    rows = [(n, v, m) for (n, v), m in sorted(found.items())]
    return pd.DataFrame(rows, columns=["spikes", "v_T", "orders"])


def count_distribution(
    counts: Sequence[int], weights: Sequence[float], time_steps: int, v0: float = 0.0, threshold: float = 1.0
) -> dict[int, int]:
    """Output spikes to number of spike orders, exactly, without writing the orders out.

    Walks through the steps with the number of orders that lead to each state (spikes used of each input,
    output spikes so far); v(t) follows from the state by the identity. The cost grows with T·Πk_i instead of
    Π C(T, k_i).

    Raises:
        ValueError: if a count does not fit or ``threshold`` is not positive.
    """
    check("threshold", threshold, threshold > 0, "a positive number")
    _check_inputs(counts, weights, time_steps)
    states = Counter({((0,) * len(counts), 0): 1})
    for t in range(time_steps):
        following = Counter()
        for (used, n), ways in states.items():
            for spikes in product((0, 1), repeat=len(counts)):
                new = tuple(u + s for u, s in zip(used, spikes, strict=True))
                left = time_steps - t - 1
                if all(0 <= k - u <= left for k, u in zip(counts, new, strict=True)):
                    h = v0 + sum(w * u for w, u in zip(weights, new, strict=True)) - threshold * n
                    following[new, n + int(h >= threshold)] += ways
        states = following
    totals = Counter()
    for (_, n), ways in states.items():
        totals[n] += ways
    return dict(sorted(totals.items()))


def mean_error(distribution: dict[int, int], target: float) -> float:
    """E[n − target] over a distribution of counts, in spikes."""
    return sum((n - target) * ways for n, ways in distribution.items()) / sum(distribution.values())


def mean_absolute_error(distribution: dict[int, int], target: float) -> float:
    """E|n − target| over a distribution of counts, in spikes."""
    return sum(abs(n - target) * ways for n, ways in distribution.items()) / sum(distribution.values())


def potential_sweep(x: Tensor, potentials: Sequence[float], target: float) -> pd.DataFrame:
    """Error in spikes (θ = 1) against v(0), over the orders in ``x`` [T, M].

    Returns:
        columns ``v0``, ``mean_error`` E[n − target] and ``mean_abs_error`` E|n − target|.
    """
    v0 = torch.as_tensor(list(potentials), dtype=x.dtype)
    error = outcome(x.unsqueeze(-1).expand(-1, -1, len(v0)), v0).n - target
    return pd.DataFrame({"v0": v0, "mean_error": error.mean(0), "mean_abs_error": error.abs().mean(0)})


def potential_step(v0: float, target: float, phi: Tensor, time_steps: int, signed: bool = True) -> float:
    """One LMPC step for one neuron, v(0) + T·mean(h̄ − φ): equation (13) with its sign restored.

    Args:
        v0: v(0) so far.
        target: activation h̄ of the quantised network.
        phi: φ(T) of the spiking neuron over the calibration samples [N].
        time_steps: T.
        signed: ``False`` takes the absolute differences, as the equation is printed.
    """
    error = target - phi
    return v0 + time_steps * float((error if signed else error.abs()).mean())


def activation_count(counts: Sequence[int], weights: Sequence[float], time_steps: int) -> float:
    """T·clip(Σ w_i·k_i/T, 0, 1): the activation of Fig 1(b), in spikes (θ = 1)."""
    _check_inputs(counts, weights, time_steps)
    return min(max(sum(w * k for w, k in zip(weights, counts, strict=True)), 0), time_steps)


def steps_sweep(
    counts: Sequence[int], weights: Sequence[float], time_steps: int, multiples: Sequence[int]
) -> pd.DataFrame:
    """Error over all orders (θ = 1, v(0) = 0) when T and the counts grow together, so that rates stay.

    Returns:
        columns ``time_steps``, ``spike_error`` E|n − T·a| and ``rate_error`` E|φ − a|, with T·a from
        :func:`activation_count`.
    """
    rows = []
    for m in multiples:
        now, steps = [k * m for k in counts], time_steps * m
        found = count_distribution(now, weights, steps)
        error = mean_absolute_error(found, activation_count(now, weights, steps))
        rows.append((steps, error, error / steps))
    return pd.DataFrame(rows, columns=["time_steps", "spike_error", "rate_error"])


def sampled_steps_sweep(
    counts: Sequence[int],
    weights: Sequence[float],
    time_steps: int,
    multiples: Sequence[int],
    samples: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """:func:`steps_sweep` from ``samples`` random orders for each T, where there are too many to count."""
    rows = []
    for m in multiples:
        now, steps = [k * m for k in counts], time_steps * m
        n = outcome(sampled_drives(now, weights, steps, samples, rng)).n
        error = float((n - activation_count(now, weights, steps)).abs().mean())
        rows.append((steps, error, error / steps))
    return pd.DataFrame(rows, columns=["time_steps", "spike_error", "rate_error"])


def overfire_limit(up: float, down: float) -> float:
    """Spikes too many for T → ∞ when drive +θ has probability ``up`` and −θ ``down`` at each step: r/(1 − r).

    r = up/down; the count is the highest level of a random walk that drifts downwards, which is geometric.

    Raises:
        ValueError: unless 0 ≤ up < down.
    """
    check("up", up, 0 <= up < down, f"0 to below down = {down}")
    return up / (down - up)


def backlog_limit(mean: float, variance: float) -> float:
    """Spikes too few for T → ∞ when the drive is 0, θ, 2θ, … with this mean and variance (in θ) at each step.

    The potential is the queue of a server that serves one customer a step; its mean length after service is
    E[A(A − 1)] / (2(1 − E[A])) (Pollaczek and Khinchine).

    Raises:
        ValueError: unless 0 ≤ mean < 1.
    """
    check("mean", mean, 0 <= mean < 1, "0 to below 1")
    return (variance + mean**2 - mean) / (2 * (1 - mean))


def random_layer(
    time_steps: int, samples: int, neurons: int, fan_in: int, rate: float, rng: np.random.Generator
) -> Tensor:
    """Drives of random neurons under independent Bernoulli(``rate``) spikes: float64 [T, samples, neurons].

    Weights are zero-mean and uniform with standard deviation 1/√(fan_in·rate), rounded to multiples of 1/64,
    so that every sum is exact in floating point and in any order.

    Raises:
        ValueError: if ``rate`` is not in (0, 1] or a size is below 1.
    """
    sizes = {"time_steps": time_steps, "samples": samples, "neurons": neurons, "fan_in": fan_in}
    for name, size in sizes.items():
        check(name, size, size >= 1, "at least 1")
    check("rate", rate, 0 < rate <= 1, "above 0 and at most 1")
    width = (3 / (fan_in * rate)) ** 0.5
    weights = np.round(64 * width * (2 * rng.random((fan_in, neurons)) - 1)) / 64
    spikes = (rng.random((time_steps, samples, fan_in)) < rate).astype(np.float64)
    return torch.from_numpy(spikes @ weights)


def shares_against_steps(time_steps: Sequence[int], seed: int, v0: float = 0.0, **layer) -> pd.DataFrame:
    """:func:`residual_shares` of one :func:`random_layer` (θ = 1) for each T.

    Args:
        time_steps: the values of T, one row each.
        seed: of the weights and spikes.
        v0: v(0) of every neuron.
        layer: ``samples``, ``neurons``, ``fan_in`` and ``rate``.

    Returns:
        columns ``time_steps``, the shares, and ``rate_error`` E|n − n*|/T.
    """
    rows = []
    for steps in time_steps:
        x = random_layer(steps, rng=np.random.default_rng(seed), **layer)
        result = outcome(x, v0)
        error = float((result.n - ideal_count(x, v0)).abs().mean()) / steps
        rows.append({"time_steps": steps, **residual_shares(*result, steps), "rate_error": error})
    return pd.DataFrame(rows)
