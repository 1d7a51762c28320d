"""Quantised and clipped activations with trainable thresholds (equations (8) and (10) of the RMPE paper).

    clipped ReLU (TCL)   a = min(max(z, 0), λ)
    QC, floor            a = λ·clip(⌊z·L/λ⌋ / L, 0, 1)           equation (8)
    QCFS, ½ shift        a = λ·clip(⌊z·L/λ + ½⌋ / L, 0, 1)

Floor has derivative 1 in the backward pass (straight-through estimator, equation (10)). Clipping before rounding gives
the same values as the printed order, and the right gradient at the top: a drive above λ asks for a larger λ only.
λ > 0 is kept by training its logarithm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .checks import check, is_finite, is_whole


def _check_lam(lam: object) -> None:
    check("lam", lam, is_finite(lam) and lam > 0, "a positive number")


def _check_steps(levels: object, shift: float) -> None:
    check("levels", levels, is_whole(levels) and levels >= 1, "a whole number, at least 1")
    check("shift", shift, 0 <= shift < 1, "0 to below 1")


def quantise_clip(z: Tensor, lam: Tensor | float, levels: int, shift: float = 0.0) -> Tensor:
    """λ·clip(⌊z·L/λ + shift⌋ / L, 0, 1), differentiable by the straight-through estimator.

    Args:
        z: drive, any shape.
        lam: λ > 0, the later threshold, in the unit of ``z``; a tensor is taken as it is, a number is checked.
        levels: L ≥ 1, the quantisation steps.
        shift: 0 for the floor of equation (8), ½ for QCFS.

    Raises:
        ValueError: if ``lam`` is not positive and finite, ``levels`` no whole number from 1, or ``shift`` not in
            [0, 1).
    """
    if not isinstance(lam, Tensor):
        _check_lam(lam)
    _check_steps(levels, shift)
    return _QuantiseClip.apply(z, torch.as_tensor(lam, dtype=z.dtype, device=z.device), levels, shift)


class _QuantiseClip(torch.autograd.Function):
    """Forward and straight-through backward in a few passes over memory; keeps nothing but z."""

    @staticmethod
    def forward(ctx, z: Tensor, lam: Tensor, levels: int, shift: float) -> Tensor:
        ctx.save_for_backward(z, lam)
        ctx.constants = levels, shift
        return (z / lam).clamp_(0, 1).mul_(levels).add_(shift).floor_().mul_(lam).div_(levels)

    @staticmethod
    def backward(ctx, grad: Tensor):
        """∂a/∂z = 1[0 ≤ z ≤ λ]; ∂a/∂λ = a/λ − (z/λ)·1[0 ≤ z ≤ λ]."""
        (z, lam), (levels, shift) = ctx.saved_tensors, ctx.constants
        share = z / lam
        inside = (share >= 0) & (share <= 1)
        slope = share.clamp(0, 1).mul_(levels).add_(shift).floor_().div_(levels).sub_(share.mul_(inside))
        return grad * inside, (grad * slope).sum().to(lam.dtype), None, None


class Threshold(nn.Module):
    """A positive trainable threshold λ, stored as its logarithm; base of the two activations below."""

    def __init__(self, lam: float = 4.0):
        super().__init__()
        _check_lam(lam)
        self.log_lam = nn.Parameter(torch.tensor(math.log(lam)))

    @property
    def lam(self) -> Tensor:
        """λ as a scalar tensor."""
        return self.log_lam.exp()

    def set_lam(self, lam: float) -> None:
        """Give λ a new positive value (ValueError otherwise)."""
        _check_lam(lam)
        with torch.no_grad():
            self.log_lam.fill_(math.log(lam))


class ClippedReLU(Threshold):
    """min(max(z, 0), λ) with trainable λ: the clipping layer of TCL."""

    def forward(self, z: Tensor) -> Tensor:
        """Same shape as ``z``."""
        lam = self.lam
        return lam * torch.clamp(z / lam, 0, 1)


class QuantClip(Threshold):
    """Quantisation-clipping activation of the QC-ANN, equation (8); ``shift=0.5`` makes it QCFS's."""

    def __init__(self, levels: int = 8, shift: float = 0.0, lam: float = 4.0):
        super().__init__(lam)
        _check_steps(levels, shift)
        self.levels, self.shift = levels, shift

    def forward(self, z: Tensor) -> Tensor:
        """Same shape as ``z``."""
        return quantise_clip(z, self.lam, self.levels, self.shift)

    def extra_repr(self) -> str:
        """λ, L and shift for printing."""
        return f"lam={self.lam.item():.4g}, levels={self.levels}, shift={self.shift}"
