"""Parameters of the notebooks: one frozen dataclass each, validated before anything runs.

papermill injects whatever it is given, so the cell after ``parameters`` reads the values back through
:meth:`Params.read`, which raises ``ValueError`` with name, value and allowed range.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .checks import check, check_choice


def field(default: Any, help: str, *, low=None, high=None, choices=None) -> Any:
    """A parameter: its default, one line of help and what is allowed (bounds inclusive, for each element of a list).

    ``choices`` may be a function that gives them.
    """
    meta = {"help": help, "low": low, "high": high, "choices": choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def _cast(name: str, value: Any, kind: Any) -> Any:
    """Return ``value`` as ``kind`` (int, float, str, bool, list[...]); a float takes an int, nothing else is bent."""
    if typing.get_origin(kind) is list:
        check(
            name,
            value,
            isinstance(value, list | tuple) and len(value) > 0,
            "a list with at least one element",
        )
        return [_cast(f"{name}[{i}]", v, typing.get_args(kind)[0]) for i, v in enumerate(value)]
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    ok = isinstance(value, kind) and not (kind in (int, float) and isinstance(value, bool))
    check(name, value, ok, f"a value of type {kind.__name__}")
    return value


def _check_range(name: str, value: Any, low, high, choices) -> None:
    """Hold one value, or each element of a list, against its bounds and choices."""
    if isinstance(value, list):
        for i, v in enumerate(value):
            _check_range(f"{name}[{i}]", v, low, high, choices)
    elif value is not None:
        if choices is not None:
            check_choice(name, value, choices() if callable(choices) else choices)
        allowed = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        inside = (low is None or value >= low) and (high is None or value <= high)
        check(name, value, inside, allowed)


@dataclass(frozen=True)
class Params:
    """Base of every notebook's parameters; subclasses name their ``notebook`` and add fields."""

    notebook: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            value = _cast(f.name, getattr(self, f.name), hints[f.name])
            object.__setattr__(self, f.name, value)
            _check_range(f.name, value, f.metadata["low"], f.metadata["high"], f.metadata["choices"])

    @classmethod
    def read(cls, namespace: Mapping[str, Any]) -> Params:
        """Build the parameters from a notebook's ``globals()``.

        Raises:
            ValueError: for a value of the wrong type or out of range (name, value, what is allowed).
            KeyError: if the notebook does not define one of the names.
        """
        return cls(**{f.name: namespace[f.name] for f in dataclasses.fields(cls)})

    @classmethod
    def help(cls) -> dict[str, str]:
        """Name to help text of every parameter."""
        return {f.name: f.metadata["help"] for f in dataclasses.fields(cls)}

    def as_printed(self) -> bool:
        """Whether every value is the default, folders, device and seed aside: what the prose speaks of holds then."""
        free = ("out_dir", "data_dir", "device", "seed")
        default = type(self)()
        return all(getattr(self, n) == getattr(default, n) for n in self.help() if n not in free)

    def asdict(self) -> dict[str, Any]:
        """Plain dictionary of names to values, as written to ``run.json``."""
        return dataclasses.asdict(self)


def out_dir_field() -> Any:
    """The common parameter ``out_dir``."""
    return field("", "folder for the tables and run.json; empty means a default below _build/runs")


def seed_field() -> Any:
    """The common parameter ``seed``."""
    return field(0, "seed of every random generator", low=0, high=2**31 - 1)


def device_field() -> Any:
    """The common parameter ``device``."""
    return field("auto", "where to compute: auto or cpu or cuda", choices=("auto", "cpu", "cuda"))


def data_dir_field() -> Any:
    """The common parameter ``data_dir``."""
    return field("", "folder of the data set; empty means the environment variable SNNBOOK_DATA or a user folder")


def by_notebook() -> dict[str, type[Params]]:
    """Every notebook's parameter class by the notebook's name."""
    found, todo = {}, [Params]
    while todo:
        cls = todo.pop(0)
        todo += cls.__subclasses__()
        found |= {cls.notebook: cls} if cls.notebook else {}
    return found


def conversion_methods() -> tuple[str, ...]:
    """Names of the conversion methods; torch is loaded when they are first asked for."""
    from .conversion import METHODS

    return tuple(METHODS)


@dataclass(frozen=True)
class ConversionErrors(Params):
    """Chapter 10: clipping and quantisation error."""

    notebook: ClassVar[str] = "10_conversion_errors"
    threshold: float = field(1.0, "threshold of the neuron in the pictures", low=0.01, high=100)
    shown_steps: int = field(5, "time steps of the neuron in the pictures", low=1, high=64)
    time_steps: list[int] = field([1, 2, 4, 8, 16, 32], "numbers of time steps to compare", low=1, high=256)
    quant_steps: int = field(8, "quantisation steps L of the QC activation", low=1, high=64)
    samples: int = field(100000, "activations that Max Norm looks at", low=1000, high=10**9)
    seed: int = seed_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class RmpeDerivation(Params):
    """Chapter 11: equations (1) to (6), Fig 1(b) and the n = n* theorem."""

    notebook: ClassVar[str] = "11_rmpe_derivation"
    time_steps: list[int] = field([1, 2, 4, 8, 16, 32], "time steps of the random layer", low=1, high=256)
    neurons: int = field(500, "neurons of the random layer", low=10, high=2000)
    samples: int = field(40, "random inputs to the layer", low=1, high=200)
    fan_in: int = field(64, "inputs of each neuron of the random layer", low=1, high=512)
    rate: float = field(0.25, "spikes of each input per step", low=0.01, high=1)
    orders: int = field(4000, "random spike orders where there are too many to count", low=100, high=100000)
    seed: int = seed_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class SpikingNeurons(Params):
    """Chapter 1: IF, LIF, rate code, surrogate gradient."""

    notebook: ClassVar[str] = "01_spiking_neurons"
    threshold: float = field(1.0, "threshold of the neuron, in units of its drive", low=0.01, high=100)
    tau: float = field(4.0, "membrane time constant of the leaky neuron in steps", low=1.01, high=1000)
    drive: float = field(0.43, "constant drive of the pictures", low=0.01, high=100)
    time_steps: int = field(20, "steps of the pictures and of the learning demo", low=4, high=200)
    long_steps: int = field(100, "steps over which the f-I curves count spikes", low=10, high=5000)
    target_rate: float = field(0.5, "spikes per step that the neuron is to learn", low=0.05, high=0.95)
    seed: int = seed_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class EnergyAccounting(Params):
    """Chapter 2: operations and joules of a small spiking network."""

    notebook: ClassVar[str] = "02_energy_accounting"
    dataset: str = field("digits", "data set by its name in snnbook.data")
    data_dir: str = data_dir_field()
    model: str = field("vgg5", "network by its name", choices=("vgg5", "vgg9", "vgg16", "cifarnet"))
    width: float = field(0.25, "multiplier on the width of every hidden layer", low=0.01, high=4)
    time_steps: int = field(5, "time steps T of the spiking network", low=1, high=128)
    epochs: int = field(4, "epochs of training", low=1, high=1000)
    samples: int = field(128, "test samples over which operations are counted", low=1, high=100000)
    energy_model: str = field(
        "45nm_fp32", "energy model of the main figures", choices=("45nm_fp32", "45nm_int8", "rolls")
    )
    seed: int = seed_field()
    device: str = device_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class TwoStageConversion(Params):
    """Chapter 12: ReLU pre-training, QC-ANN, SNN."""

    notebook: ClassVar[str] = "12_two_stage_conversion"
    dataset: str = field("digits", "data set: digits or cifar10 or cifar100", choices=("digits", "cifar10", "cifar100"))
    data_dir: str = data_dir_field()
    model: str = field(
        "vgg9",
        "network by its name in snnbook.models",
        choices=("vgg5", "vgg9", "vgg16", "resnet20", "resnet20_wide"),
    )
    width: float = field(0.25, "multiplier on the width of every hidden layer", low=0.05, high=4)
    methods: list[str] = field(
        ["robust_norm", "qc", "qcfs"],
        "conversion methods to compare",
        choices=conversion_methods,
    )
    time_steps: list[int] = field([1, 2, 4, 8, 16, 32, 64], "numbers of time steps T to measure", low=1, high=4096)
    calibrated_steps: list[int] = field(
        [1, 2, 4, 8], "values of T for which Phase II calibrates a network each", low=1, high=4096
    )
    tuned_steps: list[int] = field([1, 2, 4], "values of T for which a network is trained at the end", low=1, high=64)
    shown_steps: int = field(4, "T at which the choices of Phase II are compared", low=1, high=256)
    images: list[int] = field([8, 32, 100, 200], "numbers of calibration images to compare", low=1, high=50000)
    quant_steps: int = field(8, "quantisation steps L of the QC-ANN", low=1, high=256)
    epochs: int = field(15, "epochs of ReLU pre-training", low=1, high=1000)
    fine_tune_epochs: int = field(6, "epochs of fine-tuning with trained thresholds", low=1, high=1000)
    lr: float = field(0.1, "peak learning rate of pre-training", low=1e-6, high=10)
    fine_tune_lr: float = field(0.01, "peak learning rate of fine-tuning", low=1e-7, high=10)
    tune_epochs: int = field(3, "epochs of training a converted network at its own T", low=1, high=1000)
    tune_lr: float = field(0.01, "peak learning rate of that training", low=1e-7, high=10)
    label_smoothing: float = field(0.0, "label smoothing of both trainings", low=0, high=0.9)
    batch_size: int = field(64, "images of a training batch", low=1, high=65536)
    augment: str = field("crop1", "augmentation by names in snnbook.augment or empty for none")
    calibration: int = field(200, "training images set apart for calibration", low=1, high=50000)
    validation: int = field(200, "training images set apart to choose the best epoch", low=1, high=50000)
    repeats: int = field(3, "networks trained from scratch with seeds counted up from seed", low=1, high=100)
    seed: int = seed_field()
    device: str = device_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class ConvertedNetworks(Params):
    """What chapters that measure converted networks share; with equal values they share the trained networks too."""

    dataset: str = field("digits", "data set: digits or cifar10 or cifar100", choices=("digits", "cifar10", "cifar100"))
    data_dir: str = data_dir_field()
    model: str = field(
        "vgg9",
        "network by its name in snnbook.models",
        choices=("vgg5", "vgg9", "vgg16", "resnet20", "resnet20_wide"),
    )
    width: float = field(0.25, "multiplier on the width of every hidden layer", low=0.05, high=4)
    quant_steps: int = field(8, "quantisation steps L of the quantised ANNs", low=1, high=256)
    epochs: int = field(15, "epochs of ReLU pre-training", low=1, high=1000)
    fine_tune_epochs: int = field(6, "epochs of fine-tuning with trained thresholds", low=1, high=1000)
    lr: float = field(0.1, "peak learning rate of pre-training", low=1e-6, high=10)
    fine_tune_lr: float = field(0.01, "peak learning rate of fine-tuning", low=1e-7, high=10)
    tune_epochs: int = field(3, "epochs of training a converted network at its own T", low=1, high=1000)
    tune_lr: float = field(0.01, "peak learning rate of that training", low=1e-7, high=10)
    label_smoothing: float = field(0.0, "label smoothing of all trainings", low=0, high=0.9)
    batch_size: int = field(64, "images of a training batch", low=1, high=65536)
    augment: str = field("crop1", "augmentation by names in snnbook.augment or empty for none")
    calibration: int = field(200, "training images set apart for calibration", low=1, high=50000)
    validation: int = field(200, "training images set apart to choose the best epoch and to keep a calibration step",
                            low=1, high=50000)  # fmt: skip
    samples: int = field(64, "test images over which spikes and operations are counted", low=1, high=50000)
    energy_model: str = field("45nm_fp32", "energy model of the figures", choices=("45nm_fp32", "45nm_int8", "rolls"))
    repeats: int = field(1, "networks trained from scratch with seeds counted up from seed", low=1, high=100)
    seed: int = seed_field()
    device: str = device_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class ConversionEnergy(ConvertedNetworks):
    """Chapter 14: operations, joules and memory traffic of converted networks."""

    notebook: ClassVar[str] = "14_conversion_energy"
    methods: list[str] = field(
        ["robust_norm", "qc", "qcfs", "cos"], "conversion methods to compare", choices=conversion_methods
    )
    time_steps: list[int] = field([1, 2, 4, 8, 16, 32, 64], "numbers of time steps T to measure", low=1, high=4096)


@dataclass(frozen=True)
class ConversionBenchmark(ConvertedNetworks):
    """Chapter 13: all conversion methods side by side."""

    notebook: ClassVar[str] = "13_conversion_benchmark"
    methods: list[str] = field(
        [
            "max_norm",
            "robust_norm",
            "rate_norm",
            "opt",
            "opi",
            "snn_calibration_bias",
            "snn_calibration",
            "tcl",
            "ann2snn",
            "qc",
            "lwc",
            "lmpc",
            "lmpc_lwc",
            "qcfs",
            "srp",
            "cos",
            "step_bias",
            "matched",
            "tuned",
        ],
        "conversion methods to compare",
        choices=conversion_methods,
    )
    time_steps: list[int] = field([1, 2, 4], "numbers of time steps T to measure", low=1, high=4096)


@dataclass(frozen=True)
class Speed(Params):
    """Chapter 3: the engine, its peers and the roofline."""

    notebook: ClassVar[str] = "03_speed"
    results: str = field("results/benchmarks/engine", "folder of the recorded benchmark that the tables show")
    time_steps: int = field(4, "time steps T of the neurons that are timed on this machine", low=1, high=64)
    batch: int = field(16, "their batch", low=1, high=1024)
    channels: int = field(32, "their channels", low=1, high=1024)
    seed: int = seed_field()
    out_dir: str = out_dir_field()
