"""ANNs made for conversion: a ReLU network with quantised or clipped activations in place of its ReLUs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from torch import nn

from ..fold import replace
from ..quantise import ClippedReLU, QuantClip
from .thresholds import largest


def _with_percentiles(net: nn.Module, batches: Iterable, make: Callable[[float], nn.Module]) -> nn.Module:
    net = copy.deepcopy(net).eval()
    return replace(net, {name: make(value) for name, value in largest(net, batches, 0.001).items()})


def quantised(net: nn.Module, batches: Iterable, levels: int, shift: float) -> nn.Module:
    """A copy of a ReLU network with QC activations whose λ starts at the 99.9th percentile of each layer.

    Args:
        net: trained ReLU network.
        batches: calibration batches (x, y).
        levels: L.
        shift: 0 for equation (8), ½ for QCFS.
    """
    return _with_percentiles(net, batches, lambda lam: QuantClip(levels, shift, lam))


def clipped(net: nn.Module, batches: Iterable) -> nn.Module:
    """A copy of a ReLU network with clipped ReLUs (TCL) whose λ starts at the 99.9th percentile of each layer."""
    return _with_percentiles(net, batches, ClippedReLU)
