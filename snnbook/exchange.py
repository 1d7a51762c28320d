"""Our neurons as SpikingJelly's own, for tools that look for exactly those classes, such as its NIR export."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import neuron
from torch import nn

from .checks import check
from .fold import replace
from .neurons import LIF, spiking_layers


def _node(name: str, layer: nn.Module, step_mode: str) -> nn.Module:
    start = 0.0 if layer.v_reset is None else layer.v_reset
    check(f"{name}.v_init", layer.v_init, bool(torch.all(layer.v_init == start)), f"{start}: where the node starts")
    check(f"{name}.emit", layer.emit, layer.emit == 1, "1; put the height of spikes into the next weights first")
    check(f"{name}.step_bias", layer.step_bias, layer.step_bias is None, "None")
    constants = {
        "v_threshold": layer.v_threshold,
        "v_reset": layer.v_reset,
        "surrogate_function": layer.surrogate_function,
        "detach_reset": layer.detach_reset,
        "step_mode": step_mode,
    }
    if isinstance(layer, LIF):
        return neuron.LIFNode(layer.tau, layer.decay_input, **constants)
    return neuron.IFNode(**constants)


def as_spikingjelly(net: nn.Module, step_mode: str = "s") -> nn.Module:
    """A copy of ``net`` whose IF and LIF layers are SpikingJelly's ``IFNode`` and ``LIFNode``.

    Args:
        net: any module, such as ``nn.Sequential(network.stem, network.body, network.head)``.
        step_mode: ``s`` for one step a call, ``m`` for [T, N, ...].

    Raises:
        ValueError: for a layer that such a node cannot be: with another start than its reset potential, spikes of
            another height than one, or a bias per step.
    """
    check("step_mode", step_mode, step_mode in ("s", "m"), "s or m")
    return replace(net, {name: _node(name, layer, step_mode) for name, layer in spiking_layers(net).items()})
