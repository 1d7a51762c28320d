"""Parameters of the notebooks: one frozen dataclass each, validated before anything runs; see :mod:`snnbook.fields`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .fields import (
    Params,
    data_dir_field,
    device_field,
    field,
    fleet_dir_field,
    out_dir_field,
    repeats_field,
    seed_field,
)

#: Image sets of the chapters on conversion and on cut networks; ``npz`` is a file of one's own.
IMAGE_SETS = ("digits", "cifar10", "cifar100", "npz")
#: Networks of snnbook.models that are converted, that are split over devices, and that are cut in two.
CONVERTED = ("vgg5", "vgg9", "vgg16", "resnet20", "resnet20_wide")
SPLIT = ("vgg5", "vgg9", "vgg16", "cifarnet")
CUT = ("resnet20", "resnet20_wide", "resnet50")


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
    model: str = field("vgg5", "network by its name", choices=SPLIT)
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
class ConvertedNetworks(Params):
    """What chapters that convert networks share; with equal values they share the trained networks too."""

    dataset: str = field("digits", "data set: digits or cifar10 or cifar100 or npz", choices=IMAGE_SETS)
    data_dir: str = data_dir_field()
    model: str = field("vgg9", "network by its name in snnbook.models", choices=CONVERTED)
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
    repeats: int = repeats_field()
    seed: int = seed_field()
    device: str = device_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class TwoStageConversion(ConvertedNetworks):
    """Chapter 12: ReLU pre-training, QC-ANN, SNN."""

    notebook: ClassVar[str] = "12_two_stage_conversion"
    repeats: int = repeats_field(3)
    methods: list[str] = field(
        ["robust_norm", "qc", "qcfs"], "conversion methods to compare", choices=conversion_methods
    )
    time_steps: list[int] = field([1, 2, 4, 8, 16, 32, 64], "numbers of time steps T to measure", low=1, high=4096)
    calibrated_steps: list[int] = field(
        [1, 2, 4, 8, 16], "values of T for which Phase II calibrates a network each", low=1, high=4096
    )
    tuned_steps: list[int] = field([1, 2, 4], "values of T for which a network is trained at the end", low=1, high=64)
    shown_steps: int = field(4, "T at which the choices of Phase II are compared", low=1, high=256)
    images: list[int] = field([8, 32, 100, 200], "numbers of calibration images to compare", low=1, high=50000)


@dataclass(frozen=True)
class MeasuredNetworks(ConvertedNetworks):
    """Converted networks whose spikes and operations are counted."""

    samples: int = field(64, "test images over which spikes and operations are counted", low=1, high=50000)
    energy_model: str = field("45nm_fp32", "energy model of the figures", choices=("45nm_fp32", "45nm_int8", "rolls"))


@dataclass(frozen=True)
class ConversionEnergy(MeasuredNetworks):
    """Chapter 14: operations, joules and memory traffic of converted networks."""

    notebook: ClassVar[str] = "14_conversion_energy"
    methods: list[str] = field(
        ["robust_norm", "qc", "qcfs", "cos"], "conversion methods to compare", choices=conversion_methods
    )
    time_steps: list[int] = field([1, 2, 4, 8, 16, 32, 64], "numbers of time steps T to measure", low=1, high=4096)


@dataclass(frozen=True)
class ConversionBenchmark(MeasuredNetworks):
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
            "snn_calibration_potential",
            "snn_calibration",
            "tcl",
            "ann2snn",
            "qc",
            "lwc",
            "lmpc",
            "lmpc_lwc",
            "qcfs",
            "qcfs_l4",
            "srp",
            "cos",
            "step_bias",
            "step_bias_l4",
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


@dataclass(frozen=True)
class PrunedNetworks(Params):
    """What all chapters on EC-SNN share: a network, and how it is split and pruned; nothing is retrained or fused.

    With equal values they share the trained networks too.
    """

    dataset: str = field("digits", "data set by its name in snnbook.data")
    data_dir: str = data_dir_field()
    model: str = field("vgg5", "network by its name", choices=SPLIT)
    width: float = field(0.25, "multiplier on the width of every hidden layer", low=0.01, high=4)
    time_steps: int = field(5, "time steps T of the spiking networks", low=1, high=128)
    hard_reset: bool = field(False, "whether a spike sets a potential to 0 and does not lower it by the threshold")
    n_devices: int = field(5, "number of devices N, each with one sub-model", low=1, high=64)
    zeta: float = field(90.0, "pruning threshold in percent of zeros", low=0, high=120)
    min_filters: int = field(4, "filters that every convolution keeps at least", low=1, high=4096)
    partition: str = field("contiguous", "how classes are dealt out to devices",
                           choices=("contiguous", "kmeans", "joint"))  # fmt: skip
    warm_epochs: int = field(12, "epochs of the unsplit network with one time step", low=1, high=1000)
    epochs: int = field(3, "epochs of the unsplit network with all time steps", low=1, high=1000)
    lr: float = field(0.1, "peak learning rate with one time step", low=1e-6, high=10)
    tune_lr: float = field(0.02, "peak learning rate with all time steps", low=1e-7, high=10)
    label_smoothing: float = field(0.1, "label smoothing of all trainings", low=0, high=0.9)
    batch_size: int = field(64, "samples of a training batch", low=1, high=65536)
    augment: str = field("crop1", "augmentation of images by names in snnbook.augment or empty for none")
    augment_sounds: str = field("", "augmentation of sounds by names in snnbook.augment or empty for none")
    calibration: int = field(100, "training samples set apart for statistics", low=1, high=50000)
    validation: int = field(200, "training samples set apart to choose the best epoch", low=1, high=50000)
    seed: int = seed_field()
    device: str = device_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class SplitNetworks(PrunedNetworks):
    """What the chapters on EC-SNN share that retrain sub-models and fuse them."""

    fusion: str = field("mlp", "how the server fuses features", choices=("mlp", "logit_average", "probe"))
    rewarm_epochs: int = field(10, "epochs of each pruned sub-model with one time step", low=0, high=1000)
    retrain_epochs: int = field(3, "epochs of each pruned sub-model with all time steps", low=1, high=1000)
    other_samples: int = field(0, "samples of each other class that a sub-model is retrained on; 0: as in the paper",
                               low=0, high=1000000)  # fmt: skip
    fusion_epochs: int = field(20, "epochs of the fusion", low=1, high=1000)
    retrain_lr: float = field(0.1, "peak learning rate of the sub-models", low=1e-7, high=10)
    fusion_lr: float = field(0.003, "peak learning rate of the fusion (Adam)", low=1e-7, high=10)
    views: int = field(0, "augmented copies of the training images that the fusion also sees", low=0, high=100)
    feature_dropout: float = field(0.1, "probability that training hides a device from the fusion", low=0, high=0.9)
    samples: int = field(100, "test samples over which spikes and operations are counted", low=1, high=100000)
    energy_model: str = field("45nm_fp32", "energy model of the figures", choices=("45nm_fp32", "45nm_int8", "rolls"))


@dataclass(frozen=True)
class RepeatedSplitNetworks(SplitNetworks):
    """What the chapters on EC-SNN share that train an ANN twin, and more than one network of a kind."""

    ann_lr: float = field(0.02, "peak learning rate of the ANN twin, which gets as many epochs as the unsplit network",
                          low=1e-7, high=10)  # fmt: skip
    repeats: int = repeats_field()


@dataclass(frozen=True)
class BottleneckNetworks(Params):
    """What the chapters on SpikeBottleNet share; with equal values they share the trained networks too."""

    dataset: str = field("digits", "data set: digits or cifar10 or cifar100 or npz", choices=IMAGE_SETS)
    data_dir: str = data_dir_field()
    model: str = field("resnet50", "network by its name", choices=CUT)
    width: float = field(0.125, "multiplier on the width of every hidden layer", low=0.01, high=4)
    blocks: list[int] = field([1, 1, 1, 1], "residual blocks of each stage", low=1, high=64)
    order: str = field("ms", "LIF before each convolution: ms; or after it and after additions: post",
                       choices=("ms", "post"))  # fmt: skip
    leak: float = field(0.25, "share of a potential that is left after a step", low=0.01, high=0.99)
    threshold: float = field(0.5, "threshold of all neurons", low=0.01, high=100)
    window: float = field(1.5, "width of the rectangular surrogate gradient", low=0.01, high=100)
    warm_epochs: int = field(4, "epochs of the spiking network with one time step", low=1, high=1000)
    epochs: int = field(5, "epochs of the spiking network with all time steps", low=1, high=1000)
    codec_epochs: int = field(2, "epochs of a BottleNet++ codec while the rest is frozen", low=1, high=1000)
    fine_tune_epochs: int = field(5, "epochs of a network with its codec", low=1, high=1000)
    lr: float = field(0.3, "peak learning rate of both trainings of the spiking network", low=1e-6, high=10)
    ann_lr: float = field(0.1, "peak learning rate of the ANN and of a codec on its own", low=1e-6, high=10)
    fine_tune_lr: float = field(0.2, "peak learning rate of a network with its codec", low=1e-7, high=10)
    weight_decay: float = field(1e-4, "weight decay of all trainings", low=0, high=1)
    label_smoothing: float = field(0.0, "label smoothing of all trainings", low=0, high=0.9)
    batch_size: int = field(64, "images of a training batch", low=1, high=65536)
    augment: str = field("crop1", "augmentation by names in snnbook.augment or empty for none")
    validation: int = field(200, "training images set apart to choose the best epoch", low=1, high=50000)
    samples: int = field(100, "test images over which spikes and operations are counted", low=1, high=50000)
    seed: int = seed_field()
    device: str = device_field()
    out_dir: str = out_dir_field()


@dataclass(frozen=True)
class Placement(PrunedNetworks):
    """Chapter 22: devices, placements and what they decide."""

    notebook: ClassVar[str] = "22_placement"
    zeta: float = field(90.0, "first pruning threshold that Algorithm 1 tries in percent of zeros", low=0, high=120)
    zeta_step: float = field(1.0, "what it takes away before it tries again", low=0.01, high=50)
    zeta_min: float = field(60.0, "last threshold that it tries", low=-100, high=120)
    profiles: list[str] = field(
        ["raspberry_pi_4b", "microcontroller", "phone", "jetson_nano"],
        "profiles of a fleet by name or .toml path",
    )
    memory_share: float = field(0.95, "memory of a device as a share of the largest sub-model at the first zeta",
                                low=0.001, high=1e9)  # fmt: skip
    rule: str = field(
        "tightest_memory",
        "rule of placement of Algorithm 1",
        choices=("tightest_memory", "most_energy", "min_latency", "min_energy", "min_devices"),
    )
    numbers: list[int] = field([1, 3, 5, 7, 9], "numbers of devices to compare", low=1, high=64)
    instances: int = field(100, "random instances over which greedy meets the optimum", low=1, high=100000)

    def __post_init__(self) -> None:
        from .splitting.devices import kinds

        super().__post_init__()
        kinds(self.profiles)


@dataclass(frozen=True)
class FusedInference(SplitNetworks):
    """Chapter 23: fusion of sub-models, in one process and over real ones."""

    notebook: ClassVar[str] = "23_fused_inference"
    devices: list[int] = field([1, 3, 5, 7, 9], "numbers of devices to compare", low=1, high=64)
    rules: list[str] = field(["mlp", "probe", "logit_average"], "fusions to compare",
                             choices=("mlp", "logit_average", "probe"))  # fmt: skip
    requests: int = field(40, "samples that the running devices are asked for in each phase", low=2, high=10000)
    deadline: float = field(1.0, "seconds that the server waits for a device", low=0.01, high=60)
    fleet_dir: str = fleet_dir_field()


@dataclass(frozen=True)
class SensingModalities(RepeatedSplitNetworks):
    """Chapter 24: pictures, events and sounds."""

    notebook: ClassVar[str] = "24_sensing_modalities"
    dataset: str = field("digits,digits_events,sounds", "data sets by their names in snnbook.data with commas between")
    n_devices: list[int] = field([3], "numbers of devices N to split over", low=1, high=64)
    warm_epochs: int = field(8, "epochs of the unsplit network with one time step", low=1, high=1000)
    epochs: int = field(2, "epochs of the unsplit network with all time steps", low=1, high=1000)
    zeta: float = field(95.0, "pruning threshold in percent of zeros", low=0, high=120)
    rewarm_epochs: int = field(0, "epochs of each pruned sub-model with one time step", low=0, high=1000)
    retrain_lr: float = field(0.05, "peak learning rate of the sub-models", low=1e-7, high=10)
    retrain_epochs: int = field(4, "epochs of each pruned sub-model with all time steps", low=1, high=1000)


@dataclass(frozen=True)
class ClassSpecificFilters(PrunedNetworks):
    """Chapter 20: APoZ, masks, and what a network pruned for some classes still knows of others."""

    notebook: ClassVar[str] = "20_class_specific_filters"
    repeats: int = repeats_field()
    zetas: list[float] = field(
        [80.0, 82.0, 84.0, 86.0, 88.0, 90.0, 92.0, 94.0, 96.0, 98.0],
        "pruning thresholds of the sweep in percent",
        low=0,
        high=120,
    )
    shown_layer: int = field(2, "convolution whose firing maps are drawn, counted from 0", low=0, high=12)
    draws: int = field(3, "random choices of filters to average over", low=1, high=100)


@dataclass(frozen=True)
class SplitPruneTradeoffs(RepeatedSplitNetworks):
    """Chapter 21: what pruning and splitting cost and save."""

    notebook: ClassVar[str] = "21_split_prune_tradeoffs"
    zetas: list[float] = field(
        [82.0, 86.0, 90.0, 94.0], "pruning thresholds of the sweep in percent", low=0, high=120
    )
    numbers: list[int] = field([1, 5], "numbers of devices of the sweep", low=1, high=64)


@dataclass(frozen=True)
class BottleneckCodec(BottleneckNetworks):
    """Chapter 31: the spike codec, its bytes, and T bits against 8."""

    notebook: ClassVar[str] = "31_bottleneck_codec"
    time_steps: int = field(2, "time steps T of the spiking networks", low=1, high=64)
    split_points: list[int] = field([1, 2, 3, 4], "split points to cut at, in blocks on the device", low=1, high=64)
    ratio: int = field(16, "channels at a split point for each that is sent", low=1, high=2048)
    split_point: int = field(4, "split point at which spikes and codes are compared", low=1, high=64)
    channels: int = field(4, "channels that are sent there", low=1, high=2048)
    stride: int = field(2, "spatial reduction there, 1 for none", low=1, high=8)
    bits: list[int] = field([8, 2, 1], "bits an element of BottleNet++", low=1, high=8)


@dataclass(frozen=True)
class CompressionAccuracy(BottleneckNetworks):
    """Chapter 32: Table 1 on trained networks, the search, and every codec at equal bytes."""

    notebook: ClassVar[str] = "32_compression_accuracy"
    time_steps: list[int] = field([0], "time steps T with the payloads of Table 1, 0 for its own", low=0, high=64)
    split_points: list[int] = field([1, 2, 3, 4], "split points, in blocks on the device", low=1, high=64)
    search_ratios: list[int] = field([16], "further channel reductions to search over, 0 for none", low=0, high=2048)
    search_strides: list[int] = field([1, 2], "spatial reductions to search over with them", low=1, high=8)
    search_steps: list[int] = field([2], "numbers of time steps to search over with them", low=1, high=64)
    limit: float = field(0.03, "largest drop of accuracy, 0 to 1", low=0, high=1)
    relaxed: float = field(0.04, "largest drop at the split points where the paper relaxed it", low=0, high=1)
    rate_split_point: int = field(3, "split point of the rate-accuracy curves, 0 for none", low=0, high=64)
    rate_steps: list[int] = field([2, 4], "numbers of time steps on these curves", low=1, high=64)
    budgets: list[int] = field([16, 64], "bytes of a payload on them", low=1, high=10**6)
    bits: list[int] = field([8, 2, 1], "bits an element of BottleNet++ on them", low=1, high=8)
    keep: float = field(0.25, "share of a wider map that the random mask leaves", low=0.001, high=1)
    penalty: float = field(0.2, "weight of the entropy of firing rates in the loss of sparse spikes", low=0, high=100)
    contexts: list[str] = field(["tensor", "previous"], "contexts of the entropy coder",
                                choices=("tensor", "channel", "previous", "neuron"))  # fmt: skip
    qualities: list[int] = field([5, 50, 90], "qualities of JPEG and WebP on the input", low=0, high=100)
    radio: str = field("Wi-Fi", "radio of the device: Wi-Fi or LTE or 3G", choices=("Wi-Fi", "LTE", "3G"))


@dataclass(frozen=True)
class EnergyTables(BottleneckNetworks):
    """Chapter 33: Table 3 as in the paper and with everything counted."""

    notebook: ClassVar[str] = "33_energy_tables"
    time_steps: int = field(2, "time steps T of the spiking network that is measured", low=1, high=64)
    split_point: int = field(4, "its split point, in blocks on the device", low=1, high=64)
    channels: int = field(16, "channels that it sends", low=1, high=2048)
    stride: int = field(1, "its spatial reduction, 1 for none", low=1, high=8)
    radio: str = field("Wi-Fi", "radio of the device: Wi-Fi or LTE or 3G", choices=("Wi-Fi", "LTE", "3G"))


@dataclass(frozen=True)
class SplitPoints(BottleneckNetworks):
    """Chapter 30: where a network can be cut, and what a cut costs."""

    notebook: ClassVar[str] = "30_split_points"
    time_steps: list[int] = field([2], "numbers of time steps T to search over", low=1, high=64)
    split_points: list[int] = field([1, 2, 3, 4], "split points to search over: blocks on the device", low=1, high=64)
    ratios: list[int] = field([16], "channel reductions to search over: channels for each sent", low=1, high=2048)
    strides: list[int] = field([1, 2], "spatial reductions to search over, 1 for none", low=1, high=8)
    limit: float = field(0.03, "largest drop of accuracy, 0 to 1", low=0, high=1)
    qualities: list[int] = field([5, 50, 90], "qualities of JPEG and WebP on the input", low=0, high=100)


@dataclass(frozen=True)
class NoisyChannels(BottleneckNetworks):
    """Chapter 34: flipped bits, lost packets, codes, and as few time steps as will do."""

    notebook: ClassVar[str] = "34_noisy_channels"
    time_steps: int = field(4, "time steps T of the spiking networks", low=1, high=64)
    split_point: int = field(3, "split point in blocks on the device", low=1, high=64)
    channels: int = field(8, "channels of spikes that are sent", low=1, high=2048)
    stride: int = field(1, "spatial reduction, 1 for none", low=1, high=8)
    channel: str = field(
        "bsc",
        "noise of training and of the main sweep: bsc or packet_erasure or byte_erasure",
        choices=("bsc", "packet_erasure", "byte_erasure"),
    )
    ber: list[float] = field(
        [0.0, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3], "levels of noise: bit errors or losses", low=0, high=0.49
    )
    train_ber: float = field(0.1, "level of noise in training", low=0, high=0.49)
    losses: list[float] = field([0.1, 0.3, 0.5], "shares of packets that are lost, one time step each", low=0, high=1)
    ebn0: list[float] = field([-2.0, 0.0, 2.0, 4.0], "signal to noise Eb/N0 of white noise in dB", low=-20, high=20)
    keep: float = field(0.25, "share of a wider map that the random mask leaves", low=0.01, high=1)
    code_rates: list[float] = field([0.5, 0.25], "rates of the error-correcting code", low=0.2, high=0.9)
    packets: int = field(40, "random packets for each code rate and level of noise", low=1, high=100000)
    quality: int = field(75, "quality of JPEG images that are sent in the place of spikes", low=1, high=100)
    penalty: float = field(0.2, "weight of the entropy of firing rates in the loss", low=0, high=100)
    confidences: list[float] = field([0.5, 0.7, 0.9, 0.99], "confidences at which the server answers", low=0, high=1)
    draws: int = field(2, "times that the test images are sent at each level of noise", low=1, high=1000)


@dataclass(frozen=True)
class CoInference(BottleneckNetworks):
    """Chapter 35: a device process and a server process, and the link between them."""

    notebook: ClassVar[str] = "35_co_inference"
    time_steps: int = field(2, "time steps T of the spiking networks", low=1, high=64)
    split_point: int = field(2, "split point, in blocks on the device", low=1, high=64)
    channels: int = field(4, "channels that are sent there", low=1, high=2048)
    stride: int = field(1, "spatial reduction there, 1 for none", low=1, high=8)
    requests: int = field(24, "test images that the processes are asked for in each phase", low=2, high=10000)
    rates: list[float] = field([10e3, 30e3, 100e3], "rates of the link in bit/s to compare", low=100, high=1e12)
    rate: float = field(50e3, "rate of the link in bit/s when several samples are on their way", low=100, high=1e12)
    windows: list[int] = field([1, 2, 4], "samples on their way at most, to compare", low=1, high=64)
    slowdown: float = field(10.0, "how many times slower the device of the break-even rate is than this machine",
                            low=1, high=1e6)  # fmt: skip
    timeout: float = field(0.3, "seconds without an answer before a sample is sent again", low=0.05, high=60)
    stall: float = field(0.8, "seconds that a process hangs", low=0.05, high=60)
    confidence: float = field(0.9, "class probability from which the server asks for no further steps", low=0, high=1)
    thresholds: list[float] = field(
        [0.3, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0], "confidences to compare", low=0, high=1
    )
    fleet_dir: str = fleet_dir_field()


@dataclass(frozen=True)
class Planner(Params):
    """Chapter 40: where to compute, over all plans of the other chapters."""

    notebook: ClassVar[str] = "40_planner"
    dataset: str = field("digits", "data set: digits or cifar10 or cifar100 or npz", choices=IMAGE_SETS)
    data_dir: str = data_dir_field()
    source: str = field("", "folder of recorded runs to plan on, such as results; empty means to compute")
    conversion: str = field("", "changed parameters of notebook 13 as name and value with commas between")
    splitting: str = field("", "changed parameters of notebook 21 likewise")
    bottleneck: str = field("", "changed parameters of notebook 30 likewise")
    numbers: list[int] = field([1, 3, 5], "numbers of devices of EC-SNN at the zeta of notebook 23", low=1, high=64)
    profile: str = field("raspberry_pi_4b", "profile of the edge device by name or as a path that ends in .toml")
    server: str = field("jetson_nano", "profile of the server likewise")
    radio: str = field("Wi-Fi", "radio of the device: Wi-Fi or LTE or 3G", choices=("Wi-Fi", "LTE", "3G"))
    rate: float = field(1e4, "rate of the uplink in bit/s", low=1, high=1e12)
    rates: list[float] = field([1e3, 1e7], "lowest and highest rate of the figures in bit/s", low=1, high=1e12)
    header_bytes: int = field(28, "bytes in front of each message (IP and UDP)", low=0, high=10000)
    shared: bool = field(True, "whether all devices share the rate, as on one radio channel")
    floor: float = field(0.975, "least accuracy of a plan, 0 to 1", low=0.001, high=1)
    deadline: float = field(0.05, "most seconds for one sample", low=1e-6, high=1e6)
    lowest_floor: float = field(0.9, "least accuracy of the maps, 0 to 1", low=0, high=1)
    memory: float = field(64e3, "bytes for weights on a device whose memory is scarce", low=1, high=1e15)
    by: str = field("joules", "what the best plan has least of",
                    choices=("joules", "busiest_joules", "seconds", "bytes"))  # fmt: skip
    account: str = field("board", "account of the energy: paper or counted or board",
                         choices=("paper", "counted", "board"))  # fmt: skip
    seed: int = seed_field()
    device: str = device_field()
    out_dir: str = out_dir_field()
