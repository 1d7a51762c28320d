"""The staircase an IF neuron puts in place of ReLU, and its two errors in closed form.

    response      φ(z) = θ·clip(⌊(T·z + v(0))/θ⌋ / T, 0, 1)          equation (3) of the RMPE paper, with v(0)
    clipping      ReLU(z) − min(ReLU(z), θ)
    quantisation  min(ReLU(z), θ) − φ(z)

The first is non-zero above θ only, the second below θ only (0 ≤ v(0) < θ), so their squares add.
Expectations are over z ~ N(0, σ²), roughly what batch normalisation leaves, or over z uniform on [0, λ).
"""

from __future__ import annotations

from fractions import Fraction
from itertools import count
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri
from torch import Tensor

from .checks import check, is_finite, is_whole
from .quantise import quantise_clip


def _check(threshold: float, time_steps: int, shift: float = 0.0) -> None:
    check("threshold", threshold, is_finite(threshold) and threshold > 0, "a positive number")
    check("time_steps", time_steps, is_whole(time_steps) and time_steps >= 1, "a whole number, at least 1")
    check("shift", shift, 0 <= shift < 1, "0 to below 1")


def response(z: Tensor, threshold: float, time_steps: int, v0: float = 0.0) -> Tensor:
    """φ(z) of an IF neuron under constant drive ``z``, equation (3); same shape and unit as ``z``.

    Raises:
        ValueError: if ``threshold`` is not positive and finite, ``time_steps`` no whole number from 1, or v(0) not in
            [0, θ).
    """
    _check(threshold, time_steps)
    check("v0", v0, 0 <= v0 < threshold, "0 to below the threshold")
    return quantise_clip(z, threshold, time_steps, v0 / threshold)


def clipped_relu(z: Tensor, threshold: float) -> Tensor:
    """min(max(z, 0), θ): the limit of :func:`response` for T → ∞; same shape as ``z``."""
    return z.clamp(0, threshold)


def errors(z: Tensor, threshold: float, time_steps: int, v0: float = 0.0) -> tuple[Tensor, Tensor]:
    """Clipping error and quantisation error at each drive; their sum is ReLU(z) − φ(z).

    Returns:
        ``(clipping, quantisation)``, shape and unit of ``z``.
    """
    clipped = clipped_relu(z, threshold)
    return z.relu() - clipped, clipped - response(z, threshold, time_steps, v0)


def curves(z: Tensor, threshold: float, time_steps: int, v0: float = 0.0) -> pd.DataFrame:
    """Columns ``z``, ``relu``, ``clipped`` and ``staircase`` for drives ``z`` [N], as in Fig 1(a)."""
    columns = {
        "z": z,
        "relu": z.relu(),
        "clipped": clipped_relu(z, threshold),
        "staircase": response(z, threshold, time_steps, v0),
    }
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


def _density(z) -> np.ndarray:
    return np.exp(-0.5 * np.square(z)) / np.sqrt(2 * np.pi)


def _squared_distance(low, high, centre) -> np.ndarray:
    """∫ (z − centre)²·n(z) dz from ``low`` to ``high``, n the standard normal density; arrays broadcast."""
    mass, first = ndtr(high) - ndtr(low), _density(low) - _density(high)
    edge = np.where(np.isinf(high), 0, high) * _density(high)
    return (1 + centre**2) * mass + low * _density(low) - edge - 2 * centre * first


class SquaredErrors(NamedTuple):
    """Mean squared errors of one threshold, in the squared unit of the drive."""

    clipping: float
    quantisation: float

    @property
    def total(self) -> float:
        """Their sum, which is E[(ReLU(z) − φ(z))²]."""
        return self.clipping + self.quantisation


def normal_errors(threshold: float, time_steps: int, shift: float = 0.0, sigma: float = 1.0) -> SquaredErrors:
    """Clipping and quantisation error for z ~ N(0, σ²), in closed form.

    Args:
        threshold: θ > 0, in the unit of z.
        time_steps: T ≥ 1.
        shift: v(0)/θ in [0, 1): 0 rounds down, ½ rounds to nearest.
        sigma: standard deviation of z.

    Raises:
        ValueError: for a value out of these ranges.
    """
    _check(threshold, time_steps, shift)
    check("sigma", sigma, sigma > 0, "a positive number")
    top, k = threshold / sigma, np.arange(time_steps + 1)
    low = np.clip((k - shift) / time_steps, 0, 1) * top
    high = np.append(low[1:], top)
    quantisation = _squared_distance(low, high, k * top / time_steps).sum()
    clipping = _squared_distance(top, np.inf, top)
    return SquaredErrors(float(sigma**2 * clipping), float(sigma**2 * quantisation))


def best_threshold(time_steps: int, shift: float = 0.0, sigma: float = 1.0) -> float:
    """The θ with the smallest total squared error for z ~ N(0, σ²), to about six digits."""
    _check(1.0, time_steps, shift)
    found = minimize_scalar(
        lambda theta: normal_errors(theta, time_steps, shift).total,
        bounds=(0.05, 10),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(found.x * sigma)


def max_threshold(samples: int, sigma: float = 1.0) -> float:
    """Max Norm: the median of the largest of ``samples`` independent activations ReLU(z), z ~ N(0, σ²)."""
    check("samples", samples, samples >= 2, "at least 2")
    return float(sigma * ndtri(0.5 ** (1 / samples)))


def robust_threshold(share: float = 0.999, sigma: float = 1.0) -> float:
    """Robust Norm: the ``share`` quantile (above ½) of ReLU(z), z ~ N(0, σ²)."""
    check("share", share, 0.5 < share < 1, "above 0.5 and below 1")
    return float(sigma * ndtri(share))


def threshold_sweep(thresholds, time_steps: int, shift: float = 0.0) -> pd.DataFrame:
    """Columns ``threshold``, ``clipping``, ``quantisation`` and ``total`` for z ~ N(0, 1)."""
    found = [normal_errors(float(theta), time_steps, shift) for theta in thresholds]
    table = pd.DataFrame(found).assign(total=[e.total for e in found])
    table.insert(0, "threshold", [float(theta) for theta in thresholds])
    return table


def compare_thresholds(time_steps, samples: int, share: float = 0.999, shift: float = 0.0) -> pd.DataFrame:
    """Squared errors for z ~ N(0, 1) under Max Norm, Robust Norm and the best θ, a row for each T and method.

    Args:
        time_steps: the values of T.
        samples: calibration activations for :func:`max_threshold`.
        share: quantile for :func:`robust_threshold`.
        shift: v(0)/θ.

    Returns:
        columns ``time_steps``, ``method``, ``threshold``, ``clipping``, ``quantisation`` and ``total``.
    """
    rows = []
    for steps in time_steps:
        choices = {
            "Max": max_threshold(samples),
            "Robust": robust_threshold(share),
            "MSE-optimal": best_threshold(steps, shift),
        }
        for method, theta in choices.items():
            e = normal_errors(theta, steps, shift)
            rows.append((steps, method, theta, e.clipping, e.quantisation, e.total))
    return pd.DataFrame(
        rows, columns=["time_steps", "method", "threshold", "clipping", "quantisation", "total"]
    )


def steps_to_reach(threshold: float, error: float, shift: float = 0.0) -> int:
    """The smallest T at which threshold θ makes no more than the squared ``error``, for z ~ N(0, 1).

    Raises:
        ValueError: if ``error`` is not above the clipping error of θ, which no T can mend.
    """
    least = normal_errors(threshold, 1, shift).clipping
    check("error", error, error > least, f"above the clipping error {least:.4g}")
    return next(t for t in count(1) if normal_errors(threshold, t, shift).total <= error)


def bias(time_steps: int, levels: int, shift: float = 0.0, ann_shift: float = 0.0) -> float:
    """E[φ_T − a_L]/λ for z uniform on [0, λ) and θ = λ: (δ_T − ½)/T − (δ_L − ½)/L.

    Args:
        time_steps: T of the IF neuron.
        levels: L of the quantised activation, equation (8).
        shift: v(0)/θ in [0, 1).
        ann_shift: shift of the quantised activation in [0, 1).

    Raises:
        ValueError: for a value out of these ranges.
    """
    _check(1.0, time_steps, shift)
    check("levels", levels, is_whole(levels) and levels >= 1, "a whole number, at least 1")
    check("ann_shift", ann_shift, 0 <= ann_shift < 1, "0 to below 1")
    return (shift - 0.5) / time_steps - (ann_shift - 0.5) / levels


class Mismatch(NamedTuple):
    """How far φ_T is from a_L for z uniform on [0, λ), in units of λ."""

    bias: float
    rms: float
    differs: float


def mismatch(time_steps: int, levels: int, shift: float = 0.0, ann_shift: float = 0.0) -> Mismatch:
    """Mean, root mean square and share of z at which φ_T(z) ≠ a_L(z), exactly, over all pieces between steps.

    Arguments and errors as for :func:`bias`.
    """
    bias(time_steps, levels, shift, ann_shift)
    steps = {(k - Fraction(shift)) / time_steps for k in range(time_steps + 1)}
    steps |= {(k - Fraction(ann_shift)) / levels for k in range(levels + 1)}
    edges = sorted({Fraction(0), Fraction(1)} | {e for e in steps if 0 < e < 1})
    mean = square = apart = Fraction(0)
    for low, high in zip(edges, edges[1:], strict=False):
        middle = (low + high) / 2
        snn = Fraction(int(middle * time_steps + Fraction(shift)), time_steps)
        d = snn - Fraction(int(middle * levels + Fraction(ann_shift)), levels)
        width = high - low
        mean, square, apart = mean + d * width, square + d * d * width, apart + (d != 0) * width
    return Mismatch(float(mean), float(square) ** 0.5, float(apart))


def mismatch_table(time_steps, levels: int) -> pd.DataFrame:
    """:func:`mismatch` for each T with no shift on either side (floor) and with ½ on both (shift).

    Returns:
        columns ``time_steps``, ``rounding``, ``bias``, ``rms`` and ``differs``.
    """
    rows = []
    for rounding, shift in (("floor", 0.0), ("shift", 0.5)):
        rows += [(steps, rounding, *mismatch(steps, levels, shift, shift)) for steps in time_steps]
    return pd.DataFrame(rows, columns=["time_steps", "rounding", *Mismatch._fields])


def grid(threshold: float, points: int = 1201) -> Tensor:
    """Drives from −½θ to 1.6θ for the pictures, float64 [points]."""
    return torch.linspace(-0.5 * threshold, 1.6 * threshold, points, dtype=torch.float64)
