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


class _Biased(ClippedReLU):
    """min(max(z + b, 0), θ)."""

    def __init__(self, threshold: float, bias: Tensor):
        super().__init__(threshold)
        self.register_buffer("bias", bias.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Drive [N, ...]; the bias broadcasts."""
        return super().forward(z + self.bias)


def _limit(layer: nn.Module) -> nn.Module:
    bias = layer.step_bias
    if bias is not None and (bias.ndim == 0 or len(bias) == 1):
        return _Biased(layer.v_threshold, bias if bias.ndim == 0 else bias[0])
    return ClippedReLU(layer.v_threshold)


def infinite_time(snn: Network) -> Network:
    """The ANN that a converted network tends to as T → ∞: each IF layer becomes min(max(z, 0), θ).

    A bias that is the same at every step is added to z. Those of single steps are a charge of the first T steps, whose
    share of the mean goes to 0.

    Args:
        snn: a network from :func:`convert`.
    """
    layers = {name: _limit(layer) for name, layer in spiking_layers(snn).items()}
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
