"""ANN → SNN conversion: batch norm folded, each activation replaced by IF neurons with a threshold and a potential.

A method is an entry of ``METHODS``: a function from an activation and its calibration statistics to θ and v(0).
The network that comes in is never changed.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from .checks import check, check_choice
from .models import Network
from .neurons import IF, spiking_layers
from .quantise import ClippedReLU, QuantClip, Threshold

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


def replace(net: nn.Module, new: dict[str, nn.Module]) -> nn.Module:
    """A copy of ``net`` with the modules named in ``new`` exchanged."""
    net = copy.deepcopy(net)
    for name, module in new.items():
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, module)
    return net


def fold_batchnorm(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy in eval mode whose batch norms are folded into the convolutions before them, equation (7).

    Args:
        net: any module; what follows what is read from one forward pass.
        example: input of that pass.
    """
    made_by, pairs, handles = {}, {}, []

    def note(name, module):
        def hook(_, inputs, y):
            if isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made_by:
                pairs[name] = made_by[id(inputs[0])][0]
            elif isinstance(module, nn.Conv2d):
                made_by[id(y)] = name, y  # keeps y alive, so that its id is not reused

        return hook

    net = copy.deepcopy(net).eval()
    for name, module in net.named_modules():
        handles.append(module.register_forward_hook(note(name, module)))
    with torch.no_grad():
        net(example)
    for handle in handles:
        handle.remove()
    new: dict[str, nn.Module] = {}
    for bn, conv in pairs.items():
        new[conv] = fuse_conv_bn_eval(net.get_submodule(conv), net.get_submodule(bn))
        new[bn] = nn.Identity()
    return replace(net, new)


def _each_output(net: nn.Module, layers: dict[str, nn.Module], batches: Iterable, note: Callable) -> None:
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


def top_activations(net: nn.Module, batches: Iterable, share: float) -> dict[str, Tensor]:
    """The largest ``share`` of each activation's outputs over ``batches``, in falling order, exactly.

    Args:
        net: a ReLU network.
        batches: (x, y) pairs.
        share: 0 for the maximum alone; 0.001 gives what the 99.9th percentile needs.

    Returns:
        Name to the top values [k].
    """
    batches = list(batches)
    # What an activation sees: images, or with events [T, N, ...] every frame of them.
    frames = sum(len(x) if x.ndim < 5 else x.shape[0] * x.shape[1] for x, _ in batches)
    top: dict[str, Tensor] = {}

    def keep(name: str, y: Tensor) -> None:
        k = max(1, math.ceil(share * y[0].numel() * frames))
        values = torch.cat([top.get(name, y.new_empty(0)), y.flatten()])
        top[name] = values.topk(min(k, len(values))).values

    _each_output(net, activations(net), batches, keep)
    return top


def _trained(activation: nn.Module) -> float:
    check("activation", type(activation).__name__, isinstance(activation, Threshold),
          "ClippedReLU or QuantClip: this method takes θ from a trained λ")  # fmt: skip
    return activation.lam.item()


@dataclass(frozen=True)
class Method:
    """A conversion method.

    Attributes:
        help: one line.
        rule: from (activation, top values) to (θ, v(0)).
        share: share of the largest calibration activations that ``rule`` needs; ``None`` for no calibration.
        source: activation with which its ANN is trained: relu, clip, qc or qcfs.
    """

    help: str
    rule: Callable[[nn.Module, Tensor | None], tuple[float, float]]
    share: float | None = None
    source: str = "relu"


def _robust(top: Tensor) -> float:
    return max(top[-1].item(), 1e-6)


def _max_norm(activation: nn.Module, top: Tensor) -> tuple[float, float]:
    return max(top[0].item(), 1e-6), 0.0


def _robust_norm(activation: nn.Module, top: Tensor) -> tuple[float, float]:
    return _robust(top), 0.0


def _half(rule: Callable) -> Callable:
    """The same θ with v(0) = θ/2."""
    return lambda activation, top: (rule(activation, top)[0], rule(activation, top)[0] / 2)


def _lam(activation: nn.Module, top: Tensor | None) -> tuple[float, float]:
    return _trained(activation), 0.0


#: Conversion methods by name.
METHODS: dict[str, Method] = {
    "max_norm": Method("θ = largest calibration activation (Diehl 2015)", _max_norm, 0.0),
    "robust_norm": Method("θ = 99.9th percentile of the activations (Rueckauer 2017)", _robust_norm, 0.001),
    "opi": Method("robust norm with v(0) = θ/2 (Bu 2022)", _half(_robust_norm), 0.001),
    "tcl": Method("θ = trained clipping point λ (Ho 2021)", _lam, source="clip"),
    "qc": Method("Phase I: θ = λ of the QC-ANN, v(0) = 0 (Xiong 2025)", _lam, source="qc"),
    "qcfs": Method("θ = λ of a QC-ANN with ½ shift, v(0) = θ/2 (Bu 2022)", _half(_lam), source="qcfs"),
}


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        method: its name.
        thresholds: layer name to θ.
        v_init: layer name to v(0).
        prerun_steps: steps before the T that count.
        total_steps: T including them.
        spikes: what a neuron sends.
        calibration_images: how many were used.
        seconds: wall time.
    """

    method: str
    thresholds: dict[str, float]
    v_init: dict[str, float]
    prerun_steps: int
    total_steps: int
    spikes: str
    calibration_images: int
    seconds: float

    def row(self) -> dict[str, object]:
        """One table row, thresholds summed up as their range."""
        row = {k: v for k, v in asdict(self).items() if not isinstance(v, dict)}
        return row | {
            "lowest_threshold": min(self.thresholds.values()),
            "highest_threshold": max(self.thresholds.values()),
        }


class _Nonlinear(TorchFunctionMode):
    """Notes the names of nonlinear functions that are called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names |= {getattr(function, "__name__", "")} & _NONLINEAR
        return function(*args, **(kwargs or {}))


def _refuse(net: nn.Module, example: Tensor) -> None:
    """ValueError for max pooling, and for a nonlinear function that replacing modules would not find."""
    for name, module in net.named_modules():
        check(name, type(module).__name__, not isinstance(module, _REFUSED),
              "average pooling (the maximum of spikes is not the maximum of rates)")  # fmt: skip
    linear = replace(net, {name: nn.Identity() for name in activations(net)}).eval()
    with torch.no_grad(), _Nonlinear() as seen:
        linear(example)
    check("net", ", ".join(sorted(seen.names)), not seen.names,
          "a network whose only nonlinear operations are nn.ReLU, ClippedReLU and QuantClip modules")  # fmt: skip


def convert(net: nn.Module, method: str, *, time_steps: int, calibration: Iterable) -> tuple[Network, Report]:
    """Convert a trained ANN into a spiking network of IF neurons with soft reset.

    Args:
        net: a :class:`~snnbook.models.Network` or any module with ReLU, clipped or QC activations and average pooling.
        method: name in ``METHODS``.
        time_steps: T.
        calibration: batches (x, y); the first is enough for methods that take θ from training.

    Returns:
        The spiking network, which starts every forward pass at its v(0), and a report.

    Raises:
        ValueError: for an unknown method, no activation, an operation that cannot spike, or an activation without
            the trained threshold that the method needs.
    """
    check_choice("method", method, METHODS)
    started, rule = time.monotonic(), METHODS[method]
    batches = list(calibration)
    check("calibration", batches, len(batches) > 0, "at least one batch")
    if not isinstance(net, Network):
        net = Network(nn.Identity(), net, nn.Identity())
    example = batches[0][0][:1]
    _refuse(net, example)
    net = fold_batchnorm(net, example)
    check(
        "net",
        type(net).__name__,
        len(activations(net)) > 0,
        "a network with ReLU, ClippedReLU or QuantClip modules",
    )
    top = top_activations(net, batches, rule.share) if rule.share is not None else {}
    found = {name: rule.rule(a, top.get(name)) for name, a in activations(net).items()}
    snn = replace(net, {name: IF(theta, v_init=v0, emit=theta) for name, (theta, v0) in found.items()})
    snn.time_steps = time_steps
    report = Report(
        method,
        {n: theta for n, (theta, _) in found.items()},
        {n: v0 for n, (_, v0) in found.items()},
        prerun_steps=0,
        total_steps=time_steps,
        spikes="binary, height θ",
        calibration_images=sum(len(y) for _, y in batches) if rule.share is not None else 0,
        seconds=round(time.monotonic() - started, 3),
    )
    return snn.eval(), report


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
    """Mean over (x, y) batches, neurons and steps of each activation or spiking layer: a of an ANN, φ of an SNN."""
    layers = activations(net) | spiking_layers(net)
    sums, sizes = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)

    def add(name: str, y: Tensor) -> None:
        sums[name] += y.sum(dtype=torch.double).item()
        sizes[name] += y.numel()

    _each_output(net, layers, batches, add)
    return {name: sums[name] / sizes[name] for name in layers}


def _with_percentiles(net: nn.Module, batches: Iterable, make: Callable[[float], nn.Module]) -> nn.Module:
    net = copy.deepcopy(net).eval()
    top = top_activations(net, batches, 0.001)
    return replace(net, {name: make(_robust(values)) for name, values in top.items()})


def quantised(net: nn.Module, batches: Iterable, levels: int, shift: float) -> nn.Module:
    """A copy of a ReLU network with QC activations whose λ starts at the 99.9th percentile of each layer.

    Args:
        net: trained ReLU network.
        batches: calibration batches (x, y).
        levels: L.
        shift: 0 for equation (8), ½ for QCFS.
    """
    return _with_percentiles(net, batches, lambda lam: QuantClip(levels, shift, lam))


def clipped(net: nn.Module, batches: Iterable) -> nn.Module:
    """A copy of a ReLU network with clipped ReLUs (TCL) whose λ starts at the 99.9th percentile of each layer."""
    return _with_percentiles(net, batches, ClippedReLU)
