"""What every method needs: find activations, watch layers, refuse what cannot spike."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..checks import check
from ..fold import replace
from ..quantise import ClippedReLU, QuantClip

_ACTIVATIONS = (nn.ReLU, ClippedReLU, QuantClip)
_REFUSED = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool2d)
_NONLINEAR = frozenset(
    "relu relu_ relu6 leaky_relu prelu rrelu elu elu_ selu celu gelu silu mish softplus sigmoid tanh hardtanh "
    "hardsigmoid hardswish softmax clamp clamp_ clamp_min clip maximum max_pool1d max_pool2d max_pool3d "
    "adaptive_max_pool2d".split()
)


def activations(net: nn.Module) -> dict[str, nn.Module]:
    """Every ReLU, clipped ReLU and QC activation of ``net`` by name, in registration order."""
    return {name: m for name, m in net.named_modules() if isinstance(m, _ACTIVATIONS)}


def each_output(net: nn.Module, layers: dict[str, nn.Module], batches: Iterable, note: Callable) -> None:
    """Run ``net`` over ``batches`` of (x, y) without gradient; ``note(name, output)`` after each of ``layers``."""

    def hook(name):
        return lambda module, inputs, y: note(name, y)

    handles = [m.register_forward_hook(hook(name)) for name, m in layers.items()]
    try:
        with torch.no_grad():
            for x, _ in batches:
                net(x)
    finally:
        for handle in handles:
            handle.remove()


class _Nonlinear(TorchFunctionMode):
    """Notes the names of nonlinear functions that are called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names |= {getattr(function, "__name__", "")} & _NONLINEAR
        return function(*args, **(kwargs or {}))


def refuse(net: nn.Module, example: Tensor) -> None:
    """ValueError for max pooling, and for a nonlinear function that replacing modules would not find."""
    for name, module in net.named_modules():
        check(name, type(module).__name__, not isinstance(module, _REFUSED),
              "average pooling (the maximum of spikes is not the maximum of rates)")  # fmt: skip
    linear = replace(net, {name: nn.Identity() for name in activations(net)}).eval()
    with torch.no_grad(), _Nonlinear() as seen:
        linear(example)
    check("net", ", ".join(sorted(seen.names)), not seen.names,
          "a network whose only nonlinear operations are nn.ReLU, ClippedReLU and QuantClip modules")  # fmt: skip
