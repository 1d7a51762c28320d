"""A bias for each channel and step, so that the mean output at each step is the mean activation of the ANN.

After Wu et al., FTBC: forward temporal bias correction for optimizing ANN-SNN conversion, ECCV 2024. Layers go from
input to output, with the activity of those before as corrected; within a layer steps go from 1 to T. With output
θ·s(t) and activation a of the ANN, a channel's bias at step t gets α·mean(a − θ·s(t)), and the neurons take that step
with the new bias before they come to the next. One pass, binary spikes, no step beside the T that count.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..checks import check
from ..network import Network
from .layerwise import Layer, walk
from .options import check_finite, check_whole, is_finite
from .thresholds import spiking, trained_thresholds


def _mean(x: Tensor) -> Tensor:
    """Mean over images and places of each channel, [1, C, 1, 1] or [1, F]."""
    return x.mean((0, 2, 3), keepdim=True) if x.ndim == 4 else x.mean(0, keepdim=True)


def correct_steps(bias: Tensor, x: Tensor, v0: Tensor, theta: float, target: Tensor, rate: float) -> None:
    """Move ``bias`` in place by one batch.

    Args:
        bias: bias of each step and channel, [T, 1, C, 1, 1] or [T, 1, F].
        x: drive without it, [T, N, ...].
        v0: v(0), broadcasts to [N, ...].
        theta: threshold.
        target: activation of the ANN, [N, ...].
        rate: α.
    """
    goal, v, fired = _mean(target), torch.empty_like(x[0]).copy_(v0), torch.empty_like(x[0])
    for b, drive in zip(bias, x, strict=True):
        torch.ge(v.add_(drive), theta - b, out=fired)
        b += rate * (goal - theta * _mean(fired))
        torch.ge(v.add_(b), theta, out=fired)
        v.sub_(fired, alpha=theta)


def fit_step_bias(layer: Layer, rounds: int, rate: float) -> None:
    """Give ``layer`` a bias for each channel and step, batch by batch, with α falling linearly to 0."""
    neuron, batches = layer.neuron, layer.splits[0] * rounds
    goal = _mean(layer.target(batches[0]))
    bias = torch.zeros(neuron.time_steps, *goal.shape, device=goal.device)
    before = neuron.step_bias
    with torch.no_grad():
        for i, batch in enumerate(batches):
            x = layer.drive(batch) if before is None else layer.drive(batch) + before
            falling = rate * (1 - i / len(batches))
            correct_steps(bias, x, neuron.v_init, neuron.v_threshold, layer.target(batch), falling)
    neuron.step_bias = bias if before is None else before + bias


def step_bias(
    net: Network, batches: Iterable, time_steps: int, potential: float = 0.5, rounds: int = 1, rate: float = 0.5
) -> Network:
    """``net`` with trained thresholds as a spiking network with a bias for each channel and step.

    Args:
        net: network with trained thresholds, batch norm folded; it is left as it was.
        batches: calibration batches (x, y).
        time_steps: T.
        potential: v(0)/θ; ½ for QCFS.
        rounds: passes over the batches.
        rate: α at the start, in (0, 1].

    Raises:
        ValueError: if ``potential`` is not finite, ``rounds`` no whole number from 1 or ``rate`` out of range.
    """
    check_finite("potential", potential)
    check_whole("rounds", rounds, 1)
    check("rate", rate, is_finite(rate) and 0 < rate <= 1, "above 0, at most 1")
    snn = spiking(net, trained_thresholds(net), time_steps, potential)
    for layer in walk(snn, net, list(batches)):
        fit_step_bias(layer, rounds, rate)
    return snn
