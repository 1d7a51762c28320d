"""Pictures, event frames and audio maps in front of the same network, split in the same way.

What differs is what arrives at the first convolution:

    picture, audio map   one x [C, H, W], shown at each of T steps: convolved once, every value an analogue one
    event frames         x [T, C, H, W], counts of events, another one at each step and mostly zero: convolved T times
                         as analogue values, or one addition for each event and each place that it reaches
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ..checks import check
from ..data import Data
from ..energy import fan_out
from ..evaluate import accuracy
from ..neurons import spiking_layers
from ..papers import table as published
from ..params import RepeatedSplitNetworks
from ..record import observe
from ..train import pick_device
from . import ec_snn
from .ec_snn import EcSnn, SplitPlan
from .ec_snn_tables import costs, fused_accuracy

#: Bits of a value of a picture or an audio map.
VALUE_BITS = 8

#: Data set of the EC-SNN paper → (name here, how what is recorded here differs from the paper's data).
PAPER_SETS = {
    "CIFAR-10": ("cifar10", "chosen on a validation split, never on test images"),
    "Caltech101": ("caltech101", "64 × 64, not 224 × 224; faces once, no clutter class, nine classes, own split"),
    "CIFAR10-DVS": ("cifar10dvs", "recordings not at hand"),
    "N-Caltech101": ("ncaltech101", "recordings not at hand"),
    "GTZAN": ("gtzan", "one 64 × 256 spectrogram a track, not eight chunks; no track on both sides"),
    "UrbanSound8K": ("urbansound8k", "folds 1, 2, 10 and a part of 3; fold 10 is the test, not a random fifth"),
    "": ("nmnist", "not in the paper: stands for event cameras, 1,000 + 100 recordings"),
}


def names(dataset: str) -> list[str]:
    """Names of data sets out of a comma-separated list.

    Raises:
        ValueError: for an empty list or a name twice.
    """
    found = [name.strip() for name in dataset.split(",") if name.strip()]
    check("dataset", dataset, found and len(set(found)) == len(found), "different names, separated by commas")
    return found


def experiments(p: RepeatedSplitNetworks) -> dict[str, list[EcSnn]]:
    """For each data set of ``p.dataset`` (comma-separated) one experiment a seed."""
    each = {name: replace(p, dataset=name) for name in names(p.dataset)}
    return {name: ec_snn.experiments(q, ec_snn.load_data(q)) for name, q in each.items()}


def about(data: Data) -> dict[str, object]:
    """Kind, shape, sizes of the splits and source of a data set, as one row."""
    sizes = {split: len(getattr(data, split)) for split in ("train", "calibration", "validation", "test")}
    shape = " × ".join(map(str, data.shape))
    row = {"dataset": data.name, "kind": data.kind, "shape": shape, "classes": data.n_classes, **sizes}
    return row | {"synthetic": data.synthetic, "source": data.source}


def example(data: Data, label: int) -> int:
    """Position of the first test sample of a class."""
    return int((data.test.y == label).nonzero()[0])


def _upright(data: Data, x: Tensor) -> Tensor:
    """Maps [..., H, W] the way they are drawn: low frequencies of a sound below, not above."""
    return x.flip(-2) if data.kind == "audio" else x


def frames(data: Data, index: int, time_steps: int) -> Tensor:
    """What arrives of test sample ``index`` at each step, to be drawn: as stored, float32 [T, C, H, W]."""
    x = _upright(data, data.test.x[index].float())
    return x if x.ndim == 4 else x.expand(time_steps, *x.shape)


def events_per_sample(data: Data) -> float:
    """Mean number of events of a test sample; nan for other kinds of data."""
    return data.normalise(data.test.x).sum().item() / len(data.test) if data.kind == "events" else math.nan


def input_bits(data: Data) -> float:
    """Bits of a test sample as its sensor could send it.

    Pictures and audio maps: 8 bits a value, of a picture as the network sees it; the digits, enlarged from 8 × 8 to
    16 × 16, had a quarter of these bits when they were sensed. Events: the address of each among T · C · H · W.
    """
    if data.kind != "events":
        return float(VALUE_BITS * math.prod(data.shape))
    return events_per_sample(data) * math.ceil(math.log2(math.prod(data.shape)))


def _stem(e: EcSnn) -> nn.Conv2d:
    return next(m for m in e.parent().modules() if isinstance(m, nn.Conv2d))


def linear_accuracy(data: Data) -> float:
    """Test accuracy (0 to 1) of a logistic regression, what a network has to beat to be of use.

    It sees mean and standard deviation over time of a sound (the width of its map) and of events (their T steps), and
    all values of a picture, each standardised over the training split, with an L2 penalty of 1/(2 · 0.1).
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # far from the optimum in all digits is near enough
        model.fit(_summary(data, data.train.x), data.train.y.numpy())
    return float(model.score(_summary(data, data.test.x), data.test.y.numpy()))


def _summary(data: Data, x: Tensor) -> np.ndarray:
    """What the linear baseline sees of samples: float32 [N, F]."""
    x, time = x.float(), {"audio": -1, "events": 1}.get(data.kind)
    parts = [x] if time is None else [x.mean(time), x.std(time, correction=0)]
    return torch.cat([part.flatten(1) for part in parts], 1).numpy()


def first_layer(e: EcSnn, samples: int | None = None) -> dict[str, object]:
    """Work of the first convolution on one sample, over all T steps, mean over test samples.

    Returns:
        ``dataset``, ``kind``; ``nonzero`` (share of values that are not 0 after normalisation); ``passes`` (how often
        it is computed: 1 or T); ``macs`` (in all those passes, padding left out); ``acs`` (if each event is one
        addition at each place that it reaches; nan where there are no events).
    """
    conv, events = _stem(e), e.data.kind == "events"
    nonzero, reached, n = 0, 0.0, 0
    for x, _ in e.batches("test", samples):
        maps = x.flatten(0, 1) if events else x
        fan = fan_out(conv, maps.shape, conv(maps[:1]).shape).to(maps.device)
        nonzero, n = nonzero + maps.count_nonzero().item(), n + x.shape[-4]
        reached += (maps.sum((0, 1)).double() * fan).sum().item()
    passes = e.time_steps if events else 1
    values = passes * math.prod(e.shape)
    return {
        "dataset": e.data.name, "kind": e.data.kind, "nonzero": nonzero / (n * values), "passes": passes,
        "macs": passes * e.shape[0] * fan.sum().item(), "acs": reached / n if events else math.nan,
    }  # fmt: skip


def rates(e: EcSnn, samples: int | None = None) -> pd.DataFrame:
    """Spikes per neuron of each layer at each step: columns ``dataset``, ``layer``, ``step`` (from 1), ``rate``."""
    net, spikes, slots = e.parent(), {}, {}

    def count(name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        per_step = output.view(e.time_steps, -1)
        spikes[name] = spikes.get(name, 0) + per_step.count_nonzero(1).cpu()
        slots[name] = slots.get(name, 0) + per_step.shape[1]

    with torch.no_grad(), observe(net, neuron=count):
        for x, _ in e.batches("test", samples):
            net(x)
    rows = [
        (e.data.name, i + 1, t + 1, n / slots[name])
        for i, (name, steps) in enumerate(spikes.items())
        for t, n in enumerate(steps.tolist())
    ]
    return pd.DataFrame(rows, columns=["dataset", "layer", "step", "rate"])


def first_spikes(e: EcSnn, index: int) -> Tensor:
    """Share of the first layer's channels that fire on a test sample at each step and place, to be drawn, [T, H, W]."""
    first, kept = next(iter(spiking_layers(e.parent()))), []

    def keep(name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        if name == first:
            kept.append((output != 0).float().mean(1).cpu())

    x = e.data.normalise(e.data.test.x[index : index + 1]).to(pick_device(e.device))
    with torch.no_grad(), observe(e.parent(), neuron=keep):
        e.parent()(x.transpose(0, 1) if x.ndim == 5 else x)
    return _upright(e.data, kept[0])


def filters(e: EcSnn, plan: SplitPlan) -> pd.DataFrame:
    """Zeros and pruning, layer by layer.

    Returns:
        Columns ``dataset``, ``layer`` (from 1), ``filters``, ``apoz`` (mean over filters, all classes, training
        split), ``above`` (share of filters whose APoZ for a device's classes is above ζ less the layer's place, mean
        over devices), ``pruned`` (share that is dropped, mean over devices).
    """
    rows, masks = [], e.masks(plan)
    for i, (name, z) in enumerate(e.zeros().items()):
        bundles = torch.stack([z.apoz(classes) for classes in plan.parts])
        above = (bundles > (plan.zeta - i) / 100).double().mean().item()
        kept = [chosen[name].double().mean().item() for chosen in masks]
        apoz = z.apoz()
        rows.append((e.data.name, i + 1, len(apoz), apoz.mean().item(), above, 1 - sum(kept) / len(kept)))
    return pd.DataFrame(rows, columns=["dataset", "layer", "filters", "apoz", "above", "pruned"])


def kept(e: EcSnn, plan: SplitPlan, zetas: Sequence[float]) -> pd.DataFrame:
    """Share of filters that stay under other thresholds than the plan's: columns ``dataset``, ``zeta``, ``kept``."""
    rows = []
    for zeta in zetas:
        masks = e.masks(replace(plan, zeta=zeta))
        shares = [torch.cat(list(chosen.values())).double().mean().item() for chosen in masks]
        rows.append((e.data.name, zeta, sum(shares) / len(shares)))
    return pd.DataFrame(rows, columns=["dataset", "zeta", "kept"])


def split(e: EcSnn, plan: SplitPlan, rule: str = "mlp", samples: int | None = None, model: str = "45nm_fp32") -> dict:
    """Accuracy and costs of one experiment under one plan, as one row.

    Returns:
        ``dataset``, ``kind``, ``seed``, ``n_devices``; accuracies ``linear`` (of :func:`linear_accuracy`), ``ann``,
        ``unsplit``, ``fused``; ``ann_joules`` (once for pictures and audio, once a frame for events),
        ``unsplit_joules`` (with its head), ``features_joules`` (without it), ``largest_joules`` and ``total_joules``
        (of a device and of all, which have no heads; the fusion is left out); ``unsplit_atsan``, ``largest_atsan``;
        ``input_bits``, ``largest_bits`` and ``total_bits`` of a sample.
    """
    table = costs(e, plan, samples, model).set_index("device")
    devices = table.drop(["ann", "unsplit", "unsplit features"])
    unsplit, fused = fused_accuracy(e, plan, [rule])["accuracy"]
    return {
        "dataset": e.data.name, "kind": e.data.kind, "seed": e.seed, "n_devices": len(plan.parts),
        "linear": e.once("linear", lambda: linear_accuracy(e.data)), "unsplit": unsplit, "fused": fused,
        "ann": accuracy(e.ann(), e.data, device=pick_device(e.device)),
        "ann_joules": table.loc["ann", "joules"], "unsplit_joules": table.loc["unsplit", "joules"],
        "features_joules": table.loc["unsplit features", "joules"],
        "largest_joules": devices["joules"].max(), "total_joules": devices["joules"].sum(),
        "unsplit_atsan": table.loc["unsplit", "atsan"], "largest_atsan": devices["atsan"].max(),
        "input_bits": input_bits(e.data), "largest_bits": int(devices["payload_bits"].max()),
        "total_bits": int(devices["payload_bits"].sum()),
    }  # fmt: skip


def beside_paper(found: dict[str, tuple[dict, dict]]) -> pd.DataFrame:
    """Recorded accuracies in percent beside Table 1 of the paper, one row a data set; missing where there are none.

    Args:
        found: recorded runs of this chapter, from :func:`snnbook.experiments.conversion_tables.recorded_runs`.

    Returns:
        Columns ``paper's set``, ``paper, N = n`` (VGG-9), ``here``, ``model``, ``linear`` (of
        :func:`linear_accuracy`, where it was recorded), ``unsplit``, ``N = n`` (mean over seeds) and ``difference`` in
        the data.
    """
    printed = published("ecsnn_table1").pivot(index="dataset", columns="n_devices", values="accuracy")
    rows = []
    for paper, (name, difference) in PAPER_SETS.items():
        row = {"paper's set": paper or "–"}
        row |= {f"paper, N = {n}": printed[n].get(paper, math.nan) for n in (3, 5)}
        rows.append(row | _recorded(name, found) | {"difference": difference})
    return pd.DataFrame(rows)


def _recorded(name: str, found: dict[str, tuple[dict, dict]], counts: Sequence[int] = (1, 3, 5)) -> dict[str, object]:
    """Mean accuracies in percent of the recorded runs on one data set; nan where there is none."""
    runs = [(m, t["splits"][t["splits"]["dataset"] == name]) for m, t in found.values()]
    runs = [(m, t) for m, t in runs if len(t)]
    rows = pd.concat([t for _, t in runs]) if runs else pd.DataFrame(columns=["n_devices", "unsplit", "fused"])
    rows = rows.assign(linear=rows.get("linear", math.nan))  # the first recorded runs have none
    models = sorted({f"{m['parameters']['model']} × {m['parameters']['width']:g}" for m, _ in runs})
    mean = {f"N = {n}": 100 * float(rows.loc[rows["n_devices"] == n, "fused"].mean()) for n in counts}
    whole = {column: 100 * float(rows[column].mean()) for column in ("linear", "unsplit")}
    return {"here": name if runs else f"{name}: not recorded", "model": ", ".join(models)} | whole | mean
