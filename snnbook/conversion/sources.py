"""ANNs made for conversion: a ReLU network with quantised or clipped activations in place of its ReLUs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from torch import nn

from ..checks import check
from ..fold import device_of, replace
from ..quantise import ClippedReLU, QuantClip
from .options import checked_batches
from .rewrite import activations, example_of, refuse
from .thresholds import largest


def _with_percentiles(net: nn.Module, batches: Iterable, make: Callable[[float], nn.Module]) -> nn.Module:
    """``net`` with ``make(λ)`` in place of each activation that runs; what could not be converted is refused now."""
    batches = checked_batches("batches", batches, device_of(net))
    check("batches", batches, len(batches) > 0, "at least one batch")
    net = copy.deepcopy(net).eval()
    refuse(net, example_of(net, batches))
    check("net", type(net).__name__, len(activations(net)) > 0, "a network with nn.ReLU modules")
    return replace(net, {name: make(value) for name, value in largest(net, batches, 0.001).items()})


def quantised(net: nn.Module, batches: Iterable, levels: int, shift: float) -> nn.Module:
    """A copy of a ReLU network with QC activations whose λ starts at the 99.9th percentile of each layer.

    Args:
        net: trained ReLU network.
        batches: calibration batches (x, y).
        levels: L.
        shift: 0 for equation (8), ½ for QCFS.

    Raises:
        ValueError: without a batch, for images that are not finite, and for what
            :func:`~snnbook.conversion.rewrite.refuse` refuses: it would be refused after the training otherwise.
    """
    return _with_percentiles(net, batches, lambda lam: QuantClip(levels, shift, lam))


def clipped(net: nn.Module, batches: Iterable) -> nn.Module:
    """A copy of a ReLU network with clipped ReLUs (TCL) whose λ starts at the 99.9th percentile of each layer.

    Args and errors as for :func:`quantised`.
    """
    return _with_percentiles(net, batches, ClippedReLU)
