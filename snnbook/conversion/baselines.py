"""SpikingJelly's own ``ann2snn`` recipe as an outside baseline, behind the interface of :class:`Network`."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe
from spikingjelly.activation_based.ann2snn.modules import VoltageScaler
from torch import nn

from ..checks import check
from ..fold import device_of, replace
from ..network import Network
from ..neurons import IF
from .rewrite import activations


class _Silent(RateCodingRecipe):
    """The recipe without its progress bar."""

    def calibrate(self, converter, fx_model):
        """Run the traced ANN over the calibration batches; its hooks note the scale of each ReLU."""
        for x, _ in self.dataloader:
            fx_model(x)
        return fx_model


def ann2snn(net: Network, batches: Iterable, time_steps: int, mode: str | float = "Max") -> Network:
    """A copy of ``net`` as ``ann2snn.RateCodingRecipe`` of SpikingJelly converts it.

    SpikingJelly makes of a ReLU: drive divided by the layer's scale, IF neuron of threshold 1 with soft reset and
    v(0) = 0, output times the scale. Scale is a running average with momentum 0.1 of what ``mode`` gives for each
    batch. The two factors are taken into the neuron here (θ = scale, spikes of height θ), which changes no spike.

    Args:
        net: ReLU network, batch norm folded.
        batches: calibration batches (x, y).
        time_steps: T.
        mode: ``"Max"``, a percentile such as ``"99.9%"``, or a share in (0, 1] of the maximum.

    Raises:
        ValueError: for an activation other than ``nn.ReLU`` or a ``mode`` that SpikingJelly does not know.
    """
    for activation in activations(net).values():
        check("activation", type(activation).__name__, type(activation) is nn.ReLU, "nn.ReLU: what ann2snn converts")
    with torch.no_grad():
        after_stem = [(net.stem(x), y) for x, y in batches]
    recipe = _Silent(after_stem, mode=mode, neuron_factory=lambda scale: IF(scale, emit=scale))
    try:
        body = Converter(recipe).convert(nn.Sequential(net.body, net.head))
    except NotImplementedError as error:
        raise ValueError(f"mode = {mode!r} is not allowed: 'Max', a percentile '99.9%' or a share in (0, 1]") from error
    factors = {name: nn.Identity() for name, m in body.named_modules() if isinstance(m, VoltageScaler)}
    snn = Network(copy.deepcopy(net.stem), replace(body, factors), nn.Identity())
    snn.time_steps = time_steps
    return snn.to(device_of(net)).eval()
