"""One observer for calibration, residual potentials, firing rates, APoZ and energy alike.

``observe`` calls back for every spiking layer and every connection while a network runs. Tensors that leave a
spiking layer carry ``spike_unit``, the height of one spike in them, through pooling, flattening and dropout, so
that a connection knows whether spikes or analogue values arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor, nn

from .counts import connections
from .network import Residual, evaluating
from .neurons import spiking_layers

#: Callback of a layer: name, module, input, output (both folded, [T·N, ...], inside a network).
Callback = Callable[[str, nn.Module, Tensor, Tensor], None]

_CARRIERS = (
    nn.Flatten,
    nn.Dropout,
    nn.Identity,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.MaxPool2d,
    nn.Unflatten,
)

_JUNCTIONS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, Residual)


def _window(module: nn.Module, x: torch.Size, y: torch.Size) -> int | None:
    """Elements that one output of ``module`` averages; ``None`` where windows differ in size."""
    if isinstance(module, nn.AvgPool2d):
        k = module.kernel_size
        return k * k if isinstance(k, int) else k[0] * k[1]
    if isinstance(module, nn.AdaptiveAvgPool2d):
        even = x[-2] % y[-2] == 0 and x[-1] % y[-1] == 0
        return (x[-2] // y[-2]) * (x[-1] // y[-1]) if even else None
    return 1


def _carry_unit(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
    unit, window = getattr(inputs[0], "spike_unit", None), _window(module, inputs[0].shape, y.shape)
    if unit is not None and window is not None:
        y.spike_unit = unit / window


def _set_unit(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
    y.spike_unit = module.emit


def _watch(modules: dict[str, nn.Module], callback: Callback | None) -> list:
    def hook(name):
        def call(module, x, y):
            drive = x[0].flatten(0, 1) if x[0].ndim > y.ndim else x[0]  # a constant drive comes as a view [T, N, ...]
            callback(name, module, drive, y)  # its return value must not take the place of y

        return call

    return [m.register_forward_hook(hook(name)) for name, m in modules.items()] if callback else []


@contextmanager
def observe(
    net: nn.Module,
    neuron: Callback | None = None,
    connection: Callback | None = None,
    junction: Callback | None = None,
) -> Iterator[None]:
    """Within the context, call back after each layer of a kind has run, in forward order.

    Args:
        net: any module; it is left as it was.
        neuron: called with (name, layer, drive, output) for IF and LIF layers.
        connection: called with (name, layer, input, output) for convolutions and linear layers; the input has the
            attribute ``spike_unit`` where spikes arrive.
        junction: called with the same for average pooling and residual additions.
    """
    handles = [m.register_forward_hook(_set_unit) for m in spiking_layers(net).values()]
    handles += [m.register_forward_hook(_carry_unit) for m in net.modules() if isinstance(m, _CARRIERS)]
    handles += _watch(spiking_layers(net), neuron)
    handles += _watch(connections(net), connection)
    handles += _watch({n: m for n, m in net.named_modules() if isinstance(m, _JUNCTIONS)}, junction)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class FiringRates:
    """Spikes per neuron and step of every spiking layer, accumulated over batches; pass it as ``neuron``."""

    def __init__(self) -> None:
        self._spikes: dict[str, float] = {}
        self._slots: dict[str, int] = {}

    def __call__(self, name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        self._spikes[name] = self._spikes.get(name, 0.0) + output.count_nonzero().item()
        self._slots[name] = self._slots.get(name, 0) + output.numel()

    def table(self) -> pd.DataFrame:
        """Columns ``layer``, ``spikes`` (total), ``rate`` (spikes per neuron, step and sample)."""
        rates = [self._spikes[n] / self._slots[n] for n in self._spikes]
        return pd.DataFrame({"layer": list(self._spikes), "spikes": list(self._spikes.values()), "rate": rates})


def firing_rates(net: nn.Module, batches) -> pd.DataFrame:
    """Firing rates of ``net`` over ``batches`` of (x, y); see :meth:`FiringRates.table`."""
    rates = FiringRates()
    with evaluating(net), torch.no_grad(), observe(net, neuron=rates):
        for x, _ in batches:
            net(x)
    return rates.table()
