"""The formulas of the papers beside the exact count of :mod:`snnbook.energy`.

    SyOPs(l)    = f_r · T · MACs(l)                  SpikeBottleNet; f_r in spikes per neuron and step
    E_SNN/E_ANN = [c·α + (b − c)·β] / (a·α)          RMPE paper, equation (18)

a are the MACs of the ANN, b the operations of the SNN and c those of its analogue first layer; the paper does
not say whether c is counted once or in each of the T steps.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

from .checks import check
from .counts import connections, count
from .energy import count_operations, energy_ratio, fan_out
from .network import evaluating
from .record import observe


def dense_connections(net: nn.Module, shape: tuple[int, int, int]) -> pd.DataFrame:
    """MACs of each connection with and without the taps that fall on padding.

    Args:
        net: a network without transposed convolutions.
        shape: input (C, H, W) of one frame.

    Returns:
        Columns ``layer``, ``macs`` (closed form), ``within`` (taps within the input only).
    """
    within: dict[str, float] = {}

    def note(name):
        def hook(module, inputs, y):
            x = inputs[0]
            taps = fan_out(module, x.shape, y.shape)
            within[name] = (taps.sum() * (x.shape[1] if x.ndim == 4 else x[0].numel())).item()

        return hook

    handles = [m.register_forward_hook(note(name)) for name, m in connections(net).items()]
    try:
        with evaluating(net), torch.no_grad():
            net(torch.zeros(1, *shape))
    finally:
        for handle in handles:
            handle.remove()
    table = count(net, shape)[["layer", "macs"]]
    return table.assign(within=table["layer"].map(within))


class _Arrivals:
    """Spikes that stand behind the input of each connection, and pooled values that are not zero."""

    def __init__(self) -> None:
        self.emit = 1.0
        self.rows: dict[str, list[float]] = {}

    def neuron(self, name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        self.emit = layer.emit

    def connection(self, name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        unit = getattr(x, "spike_unit", None)
        if unit is None:
            return
        fan = fan_out(module, x.shape, y.shape).to(x.device)
        active = (x != 0).sum(1) if x.ndim == 4 else x != 0
        new = [x.sum().item() / self.emit, x.numel(), (active * fan).sum().item()]
        row = self.rows.setdefault(name, [0.0, 0.0, 0.0, self.emit / unit])
        row[:3] = [a + b for a, b in zip(row, new, strict=False)]


def compare(net: nn.Module, batches, shape: tuple[int, int, int]) -> pd.DataFrame:
    """f_r·T·MACs and exact count of each connection that spikes reach, for a network that is a chain (VGG).

    Args:
        net: spiking network; it is run in eval mode, and its modes are put back.
        batches: (x, y) pairs, read twice.
        shape: input (C, H, W) of one frame.

    Returns:
        Per sample: ``layer``; ``rate`` f_r of the neurons before it; ``macs`` of one step; ``formula``;
        ``pool_area``, the spikes that can stand behind one input; ``exact`` AC; ``merged``, MACs if the pool
        adds up first and sends one value where that is not 0.

    Raises:
        ValueError: if the network has no ``time_steps``.
    """
    T = getattr(net, "time_steps", None)
    check("net.time_steps", T, T is not None, "a spiking network")
    batches, arrivals = list(batches), _Arrivals()
    with evaluating(net), torch.no_grad(), observe(net, neuron=arrivals.neuron, connection=arrivals.connection):
        for x, _ in batches:
            net(x)
    samples = sum(len(y) for _, y in batches)
    operations = count_operations(net, batches)
    accumulates = operations[(operations["part"] == "connection") & (operations["kind"] == "ac")]
    exact = accumulates.groupby("layer")["operations"].sum()
    macs = count(net, shape).set_index("layer")["macs"]
    rows = []
    for layer, (spikes, inputs, merged, area) in arrivals.rows.items():
        rate = spikes / inputs
        rows.append((layer, rate, macs[layer], rate * T * macs[layer], area, exact[layer], merged / samples))
    return pd.DataFrame(rows, columns=["layer", "rate", "macs", "formula", "pool_area", "exact", "merged"])


def equation_18(
    ann_mac: float, first_mac: float, rate: float, time_steps: int, model: str = "45nm_fp32"
) -> pd.DataFrame:
    """Readings of equation (18) of the RMPE paper with accumulates f_r·T·MACs.

    Args:
        ann_mac: a, MACs of the ANN.
        first_mac: MACs of its first layer.
        rate: f_r, spikes per neuron and step.
        time_steps: T.
        model: energy model.

    Returns:
        Columns ``reading``, ``mac``, ``ac``, ``ratio`` (E_SNN/E_ANN): the first layer ``once``, at
        ``every step``, and ``left out`` (subtracted from b in every step, its own energy not added).

    Raises:
        ValueError: if ``rate`` is negative, ``time_steps`` below 1, or as
            :func:`snnbook.energy.energy_ratio`.
    """
    check("rate", rate, rate >= 0, "0 or more spikes per neuron and step")
    check("time_steps", time_steps, time_steps >= 1, "at least 1")
    spiking = rate * time_steps * (ann_mac - first_mac)
    readings = {
        "once": (first_mac, spiking),
        "every step": (time_steps * first_mac, spiking),
        "left out": (0.0, rate * time_steps * ann_mac - time_steps * first_mac),
    }
    rows = [(name, mac, ac, energy_ratio(mac, ac, ann_mac, model)) for name, (mac, ac) in readings.items()]
    return pd.DataFrame(rows, columns=["reading", "mac", "ac", "ratio"])
