"""Server parts as modules that :mod:`snnbook.store` keeps: a fusion over several devices, or the tail of one network.

A server part maps a list of features, one for each device, to logits [T, N, K]. Features are spikes [T, N, C, H, W];
``None`` stands for a lost device. T may be less than what the networks were trained with: the first steps of a run do
not depend on later ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import check
from ..neurons import spiking_layers
from ..store import register

Shape = tuple[int, int, int]


def _folded(module: nn.Module, x: Tensor) -> Tensor:
    """``module`` on [T, N, ...] with T folded into the batch: [T·N, ...] out."""
    for layer in spiking_layers(module).values():
        layer.time_steps = len(x)
    return module(x.flatten(0, 1))


def _logits(y: Tensor, steps: int) -> Tensor:
    return y.unflatten(0, (steps, -1)) if y.ndim == 2 else y


class Fuse(nn.Module):
    """Spikes of P devices → each pooled and flattened → concatenated, zeros for lost ones → fusion → logits.

    Args:
        pools: P modules, [T·N, C, H, W] to [T·N, F] each: what follows a device's last spiking layer.
        fusion: [T·N, ΣF] to logits [T·N, K].
        shapes: (C, H, W) of each device's spikes.
        time_steps: T that is answered when every device is lost.

    Raises:
        ValueError: if there are not as many shapes as pools.
    """

    def __init__(self, pools: nn.ModuleList, fusion: nn.Module, shapes: Sequence[Shape], time_steps: int):
        super().__init__()
        check("shapes", shapes, len(shapes) == len(pools), f"{len(pools)} shapes, one for each pool")
        self.pools, self.fusion = pools, fusion
        self.shapes, self.time_steps = tuple(map(tuple, shapes)), time_steps

    def forward(self, features: Sequence[Tensor | None]) -> Tensor:
        """Logits [T, N, K] of P features [T, N, C, H, W] or ``None``; ValueError if there are not P."""
        check("features", len(features), len(features) == len(self.pools), f"{len(self.pools)}, one for each device")
        steps, n = next((f.shape[:2] for f in features if f is not None), (self.time_steps, 1))
        spikes = [torch.zeros(steps, n, *s) if f is None else f for f, s in zip(features, self.shapes, strict=True)]
        pooled = [_folded(pool, x) for pool, x in zip(self.pools, spikes, strict=True)]
        return _logits(_folded(self.fusion, torch.cat(pooled, 1).unflatten(0, (steps, n))), steps)


class Tail(nn.Module):
    """The rest of one network after the split: spikes of one device → logits.

    Args:
        body: [T·N, C, H, W] to logits [T·N, K].
        shape: (C, H, W) of the device's spikes.
        time_steps: T that is answered when the device is lost.
    """

    def __init__(self, body: nn.Module, shape: Shape, time_steps: int):
        super().__init__()
        self.body, self.shape, self.time_steps = body, tuple(shape), time_steps

    def forward(self, features: Sequence[Tensor | None]) -> Tensor:
        """Logits [T, N, K] of the one feature [T, N, C, H, W]."""
        check("features", len(features), len(features) == 1, "one")
        x = torch.zeros(self.time_steps, 1, *self.shape) if features[0] is None else features[0]
        return _logits(_folded(self.body, x), len(x))


register(Fuse, lambda m: {"shapes": m.shapes, "time_steps": m.time_steps})
register(Tail, lambda m: {"shape": m.shape, "time_steps": m.time_steps})
