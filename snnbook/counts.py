"""Parameters and dense multiply–accumulates of each layer (one multiply–add counts as one MAC)."""

from __future__ import annotations

import copy

import pandas as pd
import torch
from torch import nn

#: The layers through which spikes or values travel along weights.
CONNECTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def connections(net: nn.Module) -> dict[str, nn.Module]:
    """Every convolution and linear layer of ``net`` by name."""
    return {name: m for name, m in net.named_modules() if isinstance(m, CONNECTIONS)}


def macs(module: nn.Module, x: torch.Size, y: torch.Size) -> int:
    """MACs of one connection for one sample, padding included as in the usual closed form.

    Args:
        module: Conv2d, ConvTranspose2d or Linear.
        x: input shape [N, ...].
        y: output shape [N, ...].
    """
    if isinstance(module, nn.Linear):
        return module.weight.numel() * y[1:-1].numel()
    positions = x[2:] if isinstance(module, nn.ConvTranspose2d) else y[2:]
    return module.weight.numel() * positions.numel()


def count(net: nn.Module, shape: tuple[int, int, int]) -> pd.DataFrame:
    """Output shape, parameters and MACs per time step and sample of each connection; nothing is computed.

    Args:
        net: a network; its spiking layers run one step. What runs twice, as in a pre-run, is listed once.
        shape: (C, H, W) of one input frame.

    Returns:
        Columns ``layer``, ``output`` (shape without batch), ``parameters``, ``macs``.
    """
    net = copy.deepcopy(net).to("meta").eval()
    if getattr(net, "time_steps", None) is not None:
        net.time_steps = 1
    rows: dict[str, tuple] = {}

    def note(name):
        def hook(module, inputs, y):
            n = sum(p.numel() for p in module.parameters())
            rows.setdefault(name, (name, tuple(y.shape[1:]), n, macs(module, inputs[0].shape, y.shape)))

        return hook

    for name, module in connections(net).items():
        module.register_forward_hook(note(name))
    with torch.no_grad():
        net(torch.empty(1, *shape, device="meta"))
    return pd.DataFrame(rows.values(), columns=["layer", "output", "parameters", "macs"])


def parameters(net: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
