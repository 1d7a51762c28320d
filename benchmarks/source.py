"""Networks, images and drives that every contender gets: on a grid, so that every sum is exact in float32.

Weights are multiples of a power of two, images multiples of 1/16 and thresholds 1. Sums of such numbers are exact in
float32 whatever their order, so that libraries which sum in another order must still agree in every spike.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from snnbook.counts import connections
from snnbook.fold import fold_batchnorm, replace
from snnbook.models import build
from snnbook.network import Network
from snnbook.neurons import spiking_layers
from snnbook.record import observe

#: Standard deviation of the drive that each layer's weights are scaled to, to the next power of two.
DRIVE = 0.6


@dataclass(frozen=True)
class Workload:
    """One thing to do, by every contender.

    Attributes:
        name: as in the tables.
        kind: neuron, neuron_training, inference, training, conversion, calibration or counting.
        model: network by its name; empty for neurons.
        width: multiplier on its hidden widths.
        time_steps: T.
        shape: of one step: (N, C, H, W).
        device: cpu or cuda.
        seed: of weights and images.
    """

    name: str
    kind: str
    model: str
    width: float
    time_steps: int
    shape: tuple[int, int, int, int]
    device: str = "cpu"
    seed: int = 0

    @property
    def batch(self) -> int:
        """N."""
        return self.shape[0]


def images(w: Workload) -> Tensor:
    """Images [N, C, H, W], about standard normal, multiples of 1/16."""
    x = torch.randn(*w.shape, generator=torch.Generator().manual_seed(w.seed + 1))
    return ((x * 16).round() / 16).to(w.device)


def labels(w: Workload) -> Tensor:
    """Labels [N] in turn."""
    return (torch.arange(w.batch) % 10).to(w.device)


def drive(w: Workload) -> Tensor:
    """Drive [T, N, C, H, W] of a layer of neurons, multiples of 1/1024, about a quarter of the threshold on average."""
    x = torch.randn(w.time_steps, *w.shape, generator=torch.Generator().manual_seed(w.seed + 2)) * 0.5 + 0.25
    return ((x * 1024).round() / 1024).to(w.device)


def on_grid(weight: Tensor, levels: int = 127) -> Tensor:
    """``weight`` rounded to multiples of the smallest power of two of which ``levels`` reach its largest value."""
    step = 2.0 ** math.ceil(math.log2(weight.abs().max().item() / levels))
    return (weight / step).round() * step


def _scale_drives(net: Network, x: Tensor) -> None:
    """Scale each connection by a power of two, in forward order, so that every layer fires: one pass is enough."""

    def scale(name: str, layer: nn.Module, inputs: Tensor, y: Tensor) -> None:
        factor = 2.0 ** round(math.log2(DRIVE / max(y.std().item(), 1e-6)))
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
        y.mul_(factor)  # what comes after sees the scaled drive already

    with torch.no_grad(), observe(net, connection=scale):
        net(x)


def ann(w: Workload, activation: str = "relu", **options) -> Network:
    """The ANN of a workload with batch norm, in eval mode on the processor."""
    shape = tuple(w.shape[1:])
    return build(w.model, activation, shape=shape, width=w.width, seed=w.seed, **options).eval()


@lru_cache(maxsize=1)
def _network(model: str, width: float, shape: tuple[int, int, int], seed: int) -> Network:
    x = (torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed + 1)) * 16).round() / 16
    net = fold_batchnorm(build(model, "if", shape=shape, width=width, time_steps=2, seed=seed), x)
    generator = torch.Generator().manual_seed(seed + 3)
    with torch.no_grad():
        for layer in connections(net).values():
            layer.weight.copy_(on_grid(layer.weight))
            layer.bias.copy_(on_grid(torch.randn(layer.bias.shape, generator=generator) * layer.weight.std() * 4))
    _scale_drives(net, x)
    return net


def network(w: Workload) -> Network:
    """The spiking network of a workload: IF, θ = 1, batch norm folded, weights on a grid, every layer active."""
    net = copy.deepcopy(_network(w.model, w.width, tuple(w.shape[1:]), w.seed))
    net.time_steps = w.time_steps
    return net.to(w.device).eval()


def learner(w: Workload) -> Network:
    """The network of a training step: LIF with τ = 2 and undivided drive, batch norm, soft reset, in train mode."""
    options = {"tau": 2.0, "decay_input": False}
    net = build(
        w.model, "lif", shape=tuple(w.shape[1:]), width=w.width, time_steps=w.time_steps, seed=w.seed, **options
    )
    return net.to(w.device).train()


def as_ann(net: Network) -> Network:
    """The same connections with ReLU in place of the neurons."""
    found = replace(net, {name: nn.ReLU() for name in spiking_layers(net)})
    found.time_steps = None
    return found
