"""Thresholds and potentials that follow from the activations of the ANN alone: Max Norm, Robust Norm, TCL, QC, QCFS."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..checks import check
from ..fold import replace
from ..network import Network
from ..neurons import IF
from ..quantise import Threshold
from .rewrite import activations, each_output

#: Smallest threshold that a rule gives: a layer that is always silent still needs a positive one.
SMALLEST = 1e-6


def top_activations(net: nn.Module, batches: Iterable, share: float) -> dict[str, Tensor]:
    """The largest ``share`` of each activation's outputs over ``batches``, in falling order, exactly.

    Args:
        net: a ReLU network.
        batches: (x, y) pairs.
        share: 0 for the maximum alone; 0.001 gives what the 99.9th percentile needs.

    Returns:
        Name to the top values [k].
    """
    batches = list(batches)
    # What an activation sees: images, or with events [T, N, ...] every frame of them.
    frames = sum(len(x) if x.ndim < 5 else x.shape[0] * x.shape[1] for x, _ in batches)
    top: dict[str, Tensor] = {}

    def keep(name: str, y: Tensor) -> None:
        k = max(1, math.ceil(share * y[0].numel() * frames))
        values = torch.cat([top.get(name, y.new_empty(0)), y.flatten()])
        top[name] = values.topk(min(k, len(values))).values

    each_output(net, activations(net), batches, keep)
    return top


def largest(net: nn.Module, batches: Iterable, share: float = 0.0) -> dict[str, float]:
    """The value of each activation of ``net`` that a ``share`` of its outputs reaches; 0 gives the maximum.

    Args:
        net: a ReLU network.
        batches: (x, y) pairs.
        share: 0.001 for the 99.9th percentile.

    Returns:
        Name to a positive number.
    """
    top = top_activations(net, batches, share)
    return {name: max(values[-1].item(), SMALLEST) for name, values in top.items()}


def trained_thresholds(net: nn.Module) -> dict[str, float]:
    """λ of each clipped or QC activation of ``net``.

    Raises:
        ValueError: for an activation without a trained λ, with its name.
    """
    found = activations(net)
    for name, activation in found.items():
        check(name, type(activation).__name__, isinstance(activation, Threshold),
              "ClippedReLU or QuantClip, since this method takes θ from a trained λ: put them in by "
              "snnbook.conversion.quantised or clipped, train that network, and convert it")  # fmt: skip
    return {name: activation.lam.item() for name, activation in found.items()}


def spiking(net: Network, thresholds: dict[str, float], time_steps: int, potential: float = 0.0, **options) -> Network:
    """A copy of ``net`` with IF neurons of the given thresholds, which emit spikes of height θ, in eval mode.

    Args:
        net: the ANN, batch norm folded.
        thresholds: θ of each activation by name.
        time_steps: T.
        potential: v(0) in units of θ.
        options: more arguments of :class:`~snnbook.neurons.IF`, a value or a function of θ.
    """

    def neuron(theta: float) -> IF:
        given = {k: v(theta) if callable(v) else v for k, v in options.items()}
        return IF(theta, v_init=potential * theta, emit=theta, **given)

    snn = replace(net, {name: neuron(theta) for name, theta in thresholds.items()})
    snn.time_steps = time_steps
    return snn.eval()
