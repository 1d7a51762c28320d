"""``convert``: one call for every method of ``METHODS``.

A method is a function from the ANN, batch norm folded, and a :class:`Setting` to a spiking network. The network that
comes in is never changed. Neurons with a memory for signed spikes, which take a spike back by a negative one, are not
among the methods: spikes are binary here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

from torch import Tensor, nn

from ..checks import check, check_choice, is_whole
from ..fold import device_of, fold_batchnorm, replace
from ..network import Network
from ..neurons import spiking_layers
from ..quantise import ClippedReLU, QuantClip
from .baselines import ann2snn
from .lmpc import held_out
from .lwc import PHASE_TWO, phase_two
from .options import BATCH, check_disjoint, checked_batches, cut
from .prerun import cos, srp
from .ratenorm import rate_norm
from .rewrite import activations, example_of, idle, refuse
from .snn_calibration import snn_calibration
from .stepwise import step_bias
from .thresholds import largest, spiking, trained_thresholds
from .tuned import tuned


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
        source: activation with which its ANN is trained: relu, clip, qc (shift 0) or qcfs (shift ½).
        calibrated: whether it looks at all calibration images (otherwise one is enough).
        depends_on_T: whether the network is made for one T, so that accuracy at another T needs another network.
        matched: whether its QC-ANN is best trained with L = T where T is below L; another L is taken too.
        levels: L of its QC-ANN where the method was published for one, no other is taken; any L otherwise.
        selects: whether it keeps a step only where an error over held-out images falls.
        prerun_steps: updates of a neuron before the T that count; with COS each layer waits for them in its turn.
        spikes: what a neuron sends.
        options: names of the options that it takes.
    """

    help: str
    make: Callable[[Network, Setting], nn.Module]
    source: str = "relu"
    calibrated: bool = False
    depends_on_T: bool = False
    matched: bool = False
    levels: int | None = None
    selects: bool = False
    prerun_steps: int = 0
    spikes: str = "binary, height θ"
    options: tuple[str, ...] = ()


def _injected(share: float, T: int) -> dict[str, Callable[[float], float]]:
    """Options of an IF neuron that gets ``share``·θ in all, in equal parts at each of T steps."""
    return {"step_bias": lambda theta: share * theta / T} if share else {}


def _norm(share: float, potential: float = 0.0, injected: float = 0.0) -> Callable[[Network, Setting], Network]:
    """θ from the largest activations, v(0) = ``potential``·θ, or ``injected``·θ spread over T steps."""
    return lambda net, s: spiking(
        net, largest(net, s.calibration, share), s.time_steps, potential, **_injected(injected, s.time_steps)
    )


def _trained(potential: float = 0.0, injected: float = 0.0) -> Callable[[Network, Setting], Network]:
    """θ = trained λ, v(0) = ``potential``·θ, or ``injected``·θ spread over T steps."""
    return lambda net, s: spiking(
        net, trained_thresholds(net), s.time_steps, potential, **_injected(injected, s.time_steps)
    )


def _with_options(make: Callable[..., nn.Module], *given: str) -> Callable[[Network, Setting], nn.Module]:
    """``make(net, *given, **options)`` with ``given`` attributes of the setting."""
    return lambda net, s: make(net, *(getattr(s, name) for name in given), **s.options)


def _li2021(help: str, *stages: str) -> Method:
    """SNN Calibration (Li 2021): thresholds by grid search, then ``stages`` in their order."""

    def make(net: Network, s: Setting) -> nn.Module:
        return snn_calibration(net, s.calibration, s.time_steps, stages, **s.options)

    options = ("shift", "seed") + (("epochs", "lr") if "weights" in stages else ())
    return Method(help, make, calibrated=True, depends_on_T=True, options=options)


def _phase_two(help: str, source: str, *steps: str) -> Method:
    """LMPC and LWC of this paper in the order of ``steps``, on a QC-ANN or QCFS network."""
    options = ("order", "select") + (("steps",) if len(steps) > 1 else ())
    options += ("rounds", "absolute", "per_channel", "criterion") if "lmpc" in steps else ()
    if "lwc" in steps:
        options += ("epochs", "lr", "optimiser", "gamma", "spike_times_only", "biases", "head", "seed")

    def make(net: Network, s: Setting) -> Network:
        return phase_two(net, s.calibration, s.validation, s.time_steps, **({"steps": steps} | s.options))

    return Method(help, make, source, calibrated=True, depends_on_T=True, selects=True, options=options)


def _step_bias(help: str, levels: int | None = None, matched: bool = False) -> Method:
    """A bias for each channel and step, on a QCFS network."""
    return Method(
        help,
        _with_options(step_bias, "calibration", "time_steps"),
        source="qcfs",
        calibrated=True,
        depends_on_T=True,
        matched=matched,
        levels=levels,
        options=("potential", "rounds", "rate"),
    )


#: Conversion methods by name.
METHODS: dict[str, Method] = {
    "max_norm": Method("θ = largest calibration activation (Diehl 2015)", _norm(0.0), calibrated=True),
    "robust_norm": Method("θ = 99.9th percentile of the activations (Rueckauer 2017)", _norm(0.001), calibrated=True),
    "opi": Method("robust norm with v(0) = θ/2 (Bu 2022)", _norm(0.001, 0.5), calibrated=True),
    "opt": Method(
        "robust norm, θ/2T injected at each step (Deng 2021)",
        _norm(0.001, injected=0.5),
        calibrated=True,
        depends_on_T=True,
    ),
    "rate_norm": Method(
        "θ = trained share of the largest activation (RateNorm, Ding 2021)",
        _with_options(rate_norm, "calibration", "time_steps"),
        calibrated=True,
        options=("epochs", "lr", "weight", "p"),
    ),
    "snn_calibration_threshold": _li2021("θ by grid search at T, v(0) = θ/2 (SNN Calibration, Li 2021)"),
    "snn_calibration_bias": _li2021("θ by grid search at T, then biases per channel (Li 2021, light pipeline)", "bias"),
    "snn_calibration_potential": _li2021("θ by grid search at T, then v(0) per neuron (Li 2021)", "potential"),
    "snn_calibration_weights": _li2021("θ by grid search at T, then weights (Li 2021)", "weights"),
    "snn_calibration": _li2021(
        "θ by grid search at T, weights, then v(0) per neuron (Li 2021, advanced pipeline)", "weights", "potential"
    ),
    "tcl": Method("θ = trained clipping point λ (Ho 2021)", _trained(), source="clip"),
    "qc": Method("Phase I: θ = λ of the QC-ANN, v(0) = 0 (Xiong 2025)", _trained(), source="qc"),
    "qc_opi": Method("Phase I with v(0) = θ/2 (OPI, printed OptI in Table 2)", _trained(0.5), source="qc"),
    "qc_opt": Method(
        "Phase I, θ/2T injected at each step (Table 2, Opt)", _trained(injected=0.5), source="qc", depends_on_T=True
    ),
    "qcfs": Method("θ = λ of a QC-ANN with ½ shift, v(0) = θ/2 (Bu 2022)", _trained(0.5), source="qcfs"),
    "qcfs_l4": Method("QCFS at L = 4, as published (Bu 2022)", _trained(0.5), source="qcfs", levels=4),
    "step_bias": _step_bias("QCFS with a bias for each channel and step (after FTBC, Wu 2024)"),
    "step_bias_l4": _step_bias("QCFS at L = 4, as published, with a bias for each channel and step (Wu 2024)", 4),
    "matched": _step_bias("step_bias on a QCFS network trained at L = min(T, L)", matched=True),
    "tuned": Method(
        "matched, then weights trained at T through time for a few epochs (this book)",
        _with_options(tuned, "calibration", "time_steps"),
        source="qcfs",
        calibrated=True,
        depends_on_T=True,
        matched=True,
        options=("data", "recipe", "device", "potential", "rounds", "rate"),
    ),
    "srp": Method(
        "QCFS, neurons silenced by the residual potential of a pre-run (Hao 2023a)",
        _with_options(srp, "time_steps"),
        source="qcfs",
        prerun_steps=4,
        options=("prerun_steps",),
    ),
    "cos": Method(
        "QCFS, v(0) shifted by the offset spikes of a pre-run, layer by layer (Hao 2023b)",
        _with_options(cos, "time_steps"),
        source="qcfs",
        prerun_steps=4,
        options=("prerun_steps",),
    ),
    "lmpc": _phase_two("Phase I + LMPC, signed, a potential for each neuron (Xiong 2025)", "qc", "lmpc"),
    "lwc": _phase_two("Phase I + LWC (Xiong 2025)", "qc", "lwc"),
    "lmpc_lwc": _phase_two("Phase I + II: LMPC, LWC, LMPC (Xiong 2025)", "qc", *PHASE_TWO),
    "qcfs_lmpc": _phase_two("QCFS + LMPC", "qcfs", "lmpc"),
    "qcfs_lwc": _phase_two("QCFS + LWC", "qcfs", "lwc"),
    "qcfs_lmpc_lwc": _phase_two("QCFS + LMPC, LWC, LMPC", "qcfs", *PHASE_TWO),
    "ann2snn": Method(
        "RateCodingRecipe of SpikingJelly's ann2snn, v(0) = 0",
        _with_options(ann2snn, "calibration", "time_steps"),
        calibrated=True,
        options=("mode",),
    ),
}


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        method: its name.
        source: the activation of the ANN that came in, with L and shift where it has them.
        thresholds: layer name to θ.
        v_init: layer name to v(0), the mean over its neurons.
        prerun_steps: updates of a neuron before the T that count.
        total_steps: T including them: the time of an image, for COS only where a layer runs all its steps before the
            next one (:attr:`~snnbook.conversion.prerun.COS.prerun_steps`).
        spikes: what a neuron sends.
        calibration_images: how many were used, those held out not among them.
        validation_images: how many were held out, on which it was decided whether a step is kept.
        training_images: how many the spiking network was trained on.
        seconds: wall time.
        options: options of the method that were given, by name; data, recipe and device are left out.
        batch_norms: names of those that follow no connection alone, so that they are not folded and count at each step.
    """

    method: str
    source: str
    thresholds: dict[str, float]
    v_init: dict[str, float]
    prerun_steps: int
    total_steps: int
    spikes: str
    calibration_images: int
    validation_images: int
    training_images: int
    seconds: float
    options: dict[str, object] = field(default_factory=dict)
    batch_norms: tuple[str, ...] = ()

    def row(self) -> dict[str, object]:
        """One table row, thresholds summed up as their range, options as text, without names of batch norms."""
        row = {k: v for k, v in asdict(self).items() if not isinstance(v, dict | tuple)}
        return row | {
            "lowest_threshold": min(self.thresholds.values()),
            "highest_threshold": max(self.thresholds.values()),
            "options": ", ".join(f"{name}={value!r}" for name, value in self.options.items()) or "defaults",
        }


def _images(batches: list) -> int:
    return sum(len(y) for _, y in batches)


def _source(activation: nn.Module) -> str:
    """Kind of an activation, with L and shift of a QC activation."""
    constants = f", L = {activation.levels}, shift {activation.shift:g}" if isinstance(activation, QuantClip) else ""
    return type(activation).__name__ + constants


#: Activations that are not those of a method, by the one with which its ANN is trained. Thresholds by a rule of their
#: own may be taken of a clipped ReLU too; a ReLU where λ is asked for is refused with a hint when θ is taken.
_FOREIGN = {"relu": QuantClip, "clip": QuantClip, "qc": ClippedReLU, "qcfs": ClippedReLU}


def _check_source(method: str, net: nn.Module, options: dict) -> None:
    """ValueError for activations of another kind, or QC activations of another shift or L, than ``method`` is for."""
    rule, made_for = METHODS[method], {"relu": "nn.ReLU", "clip": "ClippedReLU"}
    shift = None if "potential" in options else {"qc": 0.0, "qcfs": 0.5}.get(rule.source)
    for name, activation in activations(net).items():
        foreign, kinds = isinstance(activation, _FOREIGN[rule.source]), made_for.get(rule.source, "QuantClip")
        check(name, type(activation).__name__, not foreign, f"{kinds}, for which {method} is made")
        if isinstance(activation, QuantClip):
            same = shift is None or activation.shift == shift
            check(f"shift of {name}", activation.shift, same, f"{shift}, for which {method} is made")
            levels = rule.levels in (None, activation.levels)
            check(f"levels of {name}", activation.levels, levels, f"{rule.levels}, with which {method} was published")
    if rule.source != "relu":
        trained_thresholds(net)


def _ready(net: nn.Module, method: str, example: Tensor, options: dict) -> Network:
    """``net`` as a method takes it: batch norm folded, no idle activations, a Network; what cannot be is refused."""
    refuse(net, example)
    kind, net = type(net).__name__, fold_batchnorm(net, example)
    net = replace(net, {name: nn.Identity() for name in idle(net, example)})
    check("net", kind, len(activations(net)) > 0, "a network with ReLU, ClippedReLU or QuantClip modules")
    _check_source(method, net, options)
    return net if isinstance(net, Network) else Network(nn.Identity(), net, nn.Identity())


def _report(name: str, net: nn.Module, snn: nn.Module, setting: Setting, started: float) -> Report:
    method, layers = METHODS[name], spiking_layers(snn)
    prerun_steps = getattr(snn, "prerun_steps", method.prerun_steps)
    data, held = setting.options.get("data"), _images(setting.validation) if method.selects else 0
    return Report(
        name,
        "; ".join(sorted({_source(activation) for activation in activations(net).values()})),
        {n: layer.v_threshold for n, layer in layers.items()},
        {n: layer.v_init.mean().item() for n, layer in layers.items()},
        prerun_steps=prerun_steps,
        total_steps=setting.time_steps + prerun_steps,
        spikes=method.spikes,
        calibration_images=_images(setting.calibration) if method.calibrated else 0,
        validation_images=held if data is None else len(data.validation),
        training_images=0 if data is None else len(data.train),
        seconds=round(time.monotonic() - started, 3),
        options={k: v for k, v in setting.options.items() if k not in ("data", "recipe", "device")},
        batch_norms=tuple(n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)),
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

    Methods see the images on the device of ``net`` and in batches of ``BATCH`` (32), whatever batches come in.

    Args:
        net: a :class:`~snnbook.network.Network` or any module with ReLU, clipped or QC activations and average pooling.
        method: name in ``METHODS``.
        time_steps: T, a whole number from 1.
        calibration: batches (x, y); the first is enough for methods that take θ from training.
        validation: batches (x, y) of other images, for methods that keep only steps that help there; without any,
            these methods set a quarter of the calibration images apart.
        options: the method's own, see ``METHODS[method].options``.

    Returns:
        The spiking network, which starts every forward pass at its v(0), and a report.

    Raises:
        ValueError: for an unknown method or option, ``time_steps`` that is no whole number from 1, batches that are
            empty, no pairs or not finite, calibration images among those held out, no activation, what
            :func:`~snnbook.conversion.rewrite.refuse` refuses, an activation of another kind than the method is made
            for, without the trained threshold that it needs, or of another shift or L.
    """
    check_choice("method", method, METHODS)
    started, rule = time.monotonic(), METHODS[method]
    for name in options:
        check_choice(f"option of {method}", name, rule.options)
    check("time_steps", time_steps, is_whole(time_steps) and time_steps >= 1, "a whole number, at least 1")
    calibration = cut(checked_batches("calibration", calibration, device_of(net)), BATCH)
    validation = cut(checked_batches("validation", validation, device_of(net)), BATCH)
    check("calibration", calibration, len(calibration) > 0, "at least one batch")
    if rule.selects:
        check_disjoint(calibration, validation)
        calibration, validation = held_out(calibration, validation)
    net = _ready(net, method, example_of(net, calibration), options)
    setting = Setting(int(time_steps), calibration, validation, options)
    snn = rule.make(net, setting).eval()
    return snn, _report(method, net, snn, setting, started)
