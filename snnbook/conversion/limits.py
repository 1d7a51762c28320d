"""What a converted network is compared with: its limit T → ∞, and mean outputs layer by layer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..fold import replace
from ..network import Network
from ..neurons import spiking_layers
from ..quantise import ClippedReLU
from .rewrite import activations, each_output


def infinite_time(snn: Network) -> Network:
    """The ANN that a converted network tends to as T → ∞: each IF layer becomes min(max(z, 0), θ).

    Args:
        snn: a network from :func:`convert`.
    """
    layers = {name: ClippedReLU(layer.v_threshold) for name, layer in spiking_layers(snn).items()}
    net = replace(snn, layers)
    net.time_steps = None
    return net.eval()


def mean_outputs(net: nn.Module, batches: Iterable) -> dict[str, float]:
    """Mean over (x, y) batches, neurons and steps of each activation or spiking layer that runs: a (ANN) or φ (SNN)."""
    layers = activations(net) | spiking_layers(net)
    sums, sizes = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)

    def add(name: str, y: Tensor) -> None:
        sums[name] += y.sum(dtype=torch.double).item()
        sizes[name] += y.numel()

    each_output(net, layers, batches, add)
    return {name: sums[name] / sizes[name] for name in layers if sizes[name]}
