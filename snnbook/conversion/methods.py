"""``convert``: one call for every method of ``METHODS``.

A method is a function from the ANN, batch norm folded, and a :class:`Setting` to a spiking network. The network that
comes in is never changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

from torch import nn

from ..checks import check, check_choice
from ..network import Network
from ..neurons import spiking_layers
from .rewrite import activations, fold_batchnorm, refuse
from .thresholds import largest, spiking, trained_thresholds


@dataclass(frozen=True)
class Setting:
    """What a method may look at.

    Attributes:
        time_steps: T.
        calibration: batches (x, y) from the calibration split, for statistics and gradients.
        validation: batches (x, y) held out from them, to decide whether a step is kept; may be empty.
        options: the method's own options by name.
    """

    time_steps: int
    calibration: list
    validation: list = field(default_factory=list)
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A conversion method.

    Attributes:
        help: one line.
        make: from the ANN, batch norm folded, and a setting to the spiking network.
        source: activation with which its ANN is trained: relu, clip, qc or qcfs.
        calibrated: whether it looks at all calibration images (otherwise one is enough).
        depends_on_T: whether the network is made for one T, so that accuracy at another T needs another network.
        prerun_steps: steps before the T that count.
        spikes: what a neuron sends.
        options: names of the options that it takes.
    """

    help: str
    make: Callable[[Network, Setting], nn.Module]
    source: str = "relu"
    calibrated: bool = False
    depends_on_T: bool = False
    prerun_steps: int = 0
    spikes: str = "binary, height θ"
    options: tuple[str, ...] = ()


def _norm(share: float, potential: float = 0.0) -> Callable[[Network, Setting], Network]:
    """θ from the largest activations, v(0) = ``potential``·θ."""
    return lambda net, s: spiking(net, largest(net, s.calibration, share), s.time_steps, potential)


def _trained(potential: float = 0.0) -> Callable[[Network, Setting], Network]:
    """θ = trained λ, v(0) = ``potential``·θ."""
    return lambda net, s: spiking(net, trained_thresholds(net), s.time_steps, potential)


#: Conversion methods by name.
METHODS: dict[str, Method] = {
    "max_norm": Method("θ = largest calibration activation (Diehl 2015)", _norm(0.0), calibrated=True),
    "robust_norm": Method("θ = 99.9th percentile of the activations (Rueckauer 2017)", _norm(0.001), calibrated=True),
    "opi": Method("robust norm with v(0) = θ/2 (Bu 2022)", _norm(0.001, 0.5), calibrated=True),
    "tcl": Method("θ = trained clipping point λ (Ho 2021)", _trained(), source="clip"),
    "qc": Method("Phase I: θ = λ of the QC-ANN, v(0) = 0 (Xiong 2025)", _trained(), source="qc"),
    "qcfs": Method("θ = λ of a QC-ANN with ½ shift, v(0) = θ/2 (Bu 2022)", _trained(0.5), source="qcfs"),
}


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        method: its name.
        thresholds: layer name to θ.
        v_init: layer name to v(0), the mean over its neurons.
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


def _report(name: str, snn: nn.Module, setting: Setting, started: float) -> Report:
    method, layers = METHODS[name], spiking_layers(snn)
    return Report(
        name,
        {n: layer.v_threshold for n, layer in layers.items()},
        {n: layer.v_init.mean().item() for n, layer in layers.items()},
        prerun_steps=method.prerun_steps,
        total_steps=setting.time_steps + method.prerun_steps,
        spikes=method.spikes,
        calibration_images=sum(len(y) for _, y in setting.calibration) if method.calibrated else 0,
        seconds=round(time.monotonic() - started, 3),
    )


def convert(
    net: nn.Module,
    method: str,
    *,
    time_steps: int,
    calibration: Iterable,
    validation: Iterable = (),
    **options,
) -> tuple[nn.Module, Report]:
    """Convert a trained ANN into a spiking network of IF neurons with soft reset.

    Args:
        net: a :class:`~snnbook.network.Network` or any module with ReLU, clipped or QC activations and average pooling.
        method: name in ``METHODS``.
        time_steps: T.
        calibration: batches (x, y); the first is enough for methods that take θ from training.
        validation: batches (x, y) held out from them, for methods that keep only steps that help there.
        options: the method's own, see ``METHODS[method].options``.

    Returns:
        The spiking network, which starts every forward pass at its v(0), and a report.

    Raises:
        ValueError: for an unknown method or option, no activation, an operation that cannot spike, or an activation
            without the trained threshold that the method needs.
    """
    check_choice("method", method, METHODS)
    started, rule = time.monotonic(), METHODS[method]
    for name in options:
        check_choice(f"option of {method}", name, rule.options)
    setting = Setting(time_steps, list(calibration), list(validation), options)
    check("calibration", setting.calibration, len(setting.calibration) > 0, "at least one batch")
    if not isinstance(net, Network):
        net = Network(nn.Identity(), net, nn.Identity())
    example = setting.calibration[0][0][:1]
    refuse(net, example)
    net = fold_batchnorm(net, example)
    there = len(activations(net)) > 0
    check("net", type(net).__name__, there, "a network with ReLU, ClippedReLU or QuantClip modules")
    snn = rule.make(net, setting).eval()
    return snn, _report(method, snn, setting, started)
