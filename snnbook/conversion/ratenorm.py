"""RateNorm: thresholds as a trained share of the largest activation, for a fast fit of rates to activations.

Ding et al., Optimal ANN-SNN conversion for fast and accurate inference in deep spiking neural networks, IJCAI 2021.
In place of ReLU stands the rate norm layer r = clip(ReLU(z)/θ, 0, 1) with θ = m·σ(p), m the largest activation. The
first stage trains weights (here: the ReLU network, whose m comes from calibration). In the second the weights are
frozen and p minimises the rate inference loss over calibration images,

    (1 − cos(logits, logits of the first stage)) + κ·mean over layers of ‖r‖₁ / ‖r‖₂²

whose second term bounds how fast rates converge: a lower θ gives higher rates, until clipping spoils the logits.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check
from ..fold import replace
from ..network import Network
from .options import check_finite, check_positive, check_whole, is_finite
from .thresholds import largest, spiking


class RateNorm(nn.Module):
    """θ·clip(ReLU(z)/θ, 0, 1) with θ = m·σ(p); keeps ‖r‖₁/‖r‖₂² of its last rates r in ``slowness``.

    Args:
        maximum: m, the largest activation.
        p: start of the trained parameter; σ(4) = 0.98.
    """

    def __init__(self, maximum: float, p: float = 4.0):
        super().__init__()
        self.maximum, self.p = maximum, nn.Parameter(torch.tensor(float(p)))
        self.slowness: Tensor | None = None

    @property
    def threshold(self) -> Tensor:
        """θ as a scalar tensor."""
        return self.maximum * self.p.sigmoid()

    def forward(self, z: Tensor) -> Tensor:
        """Same shape and unit as ``z``."""
        theta = self.threshold
        rates = (z / theta).clamp(0, 1)
        self.slowness = rates.sum() / rates.square().sum().clamp(min=1e-5)
        return theta * rates


def rate_inference_loss(net: nn.Module, x: Tensor, logits: Tensor, weight: float) -> Tensor:
    """Loss of the second stage, a scalar.

    Args:
        net: network with :class:`RateNorm` layers.
        x: images [N, C, H, W].
        logits: of the first stage [N, K].
        weight: κ of the mean ‖r‖₁/‖r‖₂².
    """
    distance = 1 - F.cosine_similarity(net(x), logits, dim=1).mean()
    slowness = [m.slowness for m in net.modules() if isinstance(m, RateNorm)]
    return distance + weight * torch.stack(slowness).mean()


def rate_thresholds(
    net: nn.Module, batches: Iterable, epochs: int = 10, lr: float = 0.1, weight: float = 0.01, p: float = 4.0
) -> dict[str, float]:
    """θ of each activation of a ReLU network after the second stage, by Adam on p.

    Args:
        net: ReLU network, batch norm folded; it is left as it was.
        batches: calibration batches (x, y), in the order in which they are used.
        epochs: passes over them; 0 leaves m·σ(p).
        lr: learning rate.
        weight: κ.
        p: start of p, the same for all layers.

    Returns:
        Name to θ, of the activations that run.

    Raises:
        ValueError: if ``epochs`` is no whole number from 0, ``lr`` is not positive, ``weight`` is negative or ``p`` not
            finite.
    """
    check_whole("epochs", epochs, 0)
    check_positive("lr", lr)
    check("weight", weight, is_finite(weight) and weight >= 0, "at least 0")
    check_finite("p", p)
    batches = list(batches)
    layers = {name: RateNorm(m, p) for name, m in largest(net, batches).items()}
    second = replace(net, layers).eval().requires_grad_(False)
    layers = {name: second.get_submodule(name) for name in layers}
    parameters = [layer.p.requires_grad_(True) for layer in layers.values()]
    adam = torch.optim.Adam(parameters, lr)
    with torch.no_grad():
        logits = [net(x) for x, _ in batches]
    for _ in range(epochs):
        for (x, _), target in zip(batches, logits, strict=True):
            adam.zero_grad()
            with torch.enable_grad():
                rate_inference_loss(second, x, target, weight).backward()
            adam.step()
    return {name: layer.threshold.item() for name, layer in layers.items()}


def rate_norm(net: Network, batches: Iterable, time_steps: int, **options) -> Network:
    """``net`` as a spiking network with :func:`rate_thresholds` and v(0) = 0; ``options`` are those of the latter."""
    return spiking(net, rate_thresholds(net, batches, **options), time_steps)
