"""Candidates for :mod:`snnbook.planner` from the experiments of the other chapters, trained or recorded.

    on the device, image to the server   the ANN of chapter 13 and what it converts to
    EC-SNN                               sub-models and fusions of chapters 21 and 23
    SpikeBottleNet                       the search of chapter 30; recorded also that of chapter 32

Trained networks come from the cache where those chapters have run with the same parameters.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..bottleneck import energy as cut_energy
from ..bottleneck.backbone import backbone, split_points
from ..bottleneck.codec import head
from ..bottleneck.selection import Candidate, grid
from ..cache import code_hash, kept_table
from ..checks import check, check_choice
from ..counts import count
from ..data import Data, load
from ..energy import ENERGY_MODELS, count_operations, joules
from ..fields import Params
from ..models import build
from ..params import ConversionBenchmark, FusedInference, Planner, SplitPoints, SplitPruneTradeoffs
from ..planner import ANSWER_BITS, IMAGES, Deployment, EdgePart, from_table, to_table
from ..sources import behind
from ..splitting.submodel import payload_bits
from ..train import pick_device
from . import conversion_benchmark, ec_snn, spike_bottlenet, two_stage
from .conversion_tables import recorded_runs
from .ec_snn_tables import dense_macs, device_parts, fused_accuracy
from .rate_accuracy import image_files

#: Shape and number of classes of the data sets whose recorded runs can be read without the data.
SHAPES = {"digits": ((1, 16, 16), 10), "cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100)}

#: Kinds of image files, with their names for readers.
FILES = {"raw": "raw image", "png": "PNG", "webp_lossless": "lossless WebP", "jpeg": "JPEG", "webp": "WebP"}

#: The method of an SNN on the device: the first of these that was measured. An order that is set beforehand, since the
#: best on test images would be a choice by test images.
METHODS = ("tuned", "lmpc_lwc", "lmpc", "step_bias", "qcfs", "qc", "opi")

_ARITHMETIC = ENERGY_MODELS["45nm_fp32"]


def changed(cls: type[Params], text: str, **common: Any) -> Params:
    """A chapter's parameters with ``common`` and those in ``text``: "epochs=1, zetas=[90.0]".

    Raises:
        ValueError: for a text that is no list of name=value with plain literals, an unknown name or a bad value.
    """
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        plain = not call.args and None not in given
    except (SyntaxError, ValueError, AttributeError):
        plain, given = False, {}
    check(f"changed parameters of {cls.notebook}", text, plain, "name=value with plain literals and commas between")
    for name in given:
        check_choice(f"parameter of {cls.notebook}", name, cls.help())
    return cls(**(common | given))


def tensor_bytes(net: nn.Module) -> int:
    """Bytes of all tensors of a network as they are in memory."""
    return sum(t.numel() * t.element_size() for t in net.state_dict().values())


def _arithmetic(macs: float, acs: float) -> float:
    return (macs * _ARITHMETIC.mac + acs * _ARITHMETIC.ac) * 1e-12


def spiking_part(net: nn.Module, batches, dense: float, bits: float) -> EdgePart:
    """What a spiking network on a device costs: connections as papers count, and everything.

    Args:
        net: the network, or the part of it that the device runs.
        batches: (x, y) pairs over which operations are counted.
        dense: MACs of all T steps if zeros are multiplied too.
        bits: that the device sends.
    """
    operations = count_operations(net, batches)
    paper = joules(operations, parts=("connection",))
    macs, acs = (float(operations.loc[operations["kind"] == kind, "operations"].sum()) for kind in ("mac", "ac"))
    return EdgePart(dense, bits, tensor_bytes(net), joules(operations), paper, macs, acs)


def _network(p) -> str:
    return f"{p['model']}, width {p['width']:g}"


def _plan(name: str, family: str, row: Mapping, parts: tuple[EdgePart, ...], **about) -> Deployment:
    """A plan compared by the ``validation_accuracy`` of a row, or by its ``accuracy`` where that was not recorded."""
    test, known = row["accuracy"], row.get("validation_accuracy", math.nan)
    return Deployment(name, family, test if math.isnan(known) else known, parts, test_accuracy=test, **about)


def _relu_plans(macs: float, size: int, where: dict, files: pd.DataFrame, suffix: str = "") -> list[Deployment]:
    """The ANN on the device, and on the server with each kind of file; the first is the image as it is."""
    ann = EdgePart(macs, ANSWER_BITS, size, _arithmetic(macs, 0), _arithmetic(macs, 0), macs, 0.0)
    rows = files.to_dict("records")
    plans = [_plan(f"ANN{suffix}", "ANN on the device", rows[0], (ann,), **where)]
    for row in rows:
        part = EdgePart(0.0, 8 * row["bytes"], 0, 0.0, 0.0, 0.0, 0.0)
        plans.append(_plan(f"{row['name']}{suffix}", IMAGES, row, (part,), server_macs=macs, **where))
    return plans


def _one_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Each T of the first of ``METHODS`` (else the first method) that has no pre-run: means over seeds."""
    strict = rows[rows["total_steps"] == rows["time_steps"]]
    known = [m for m in METHODS if m in set(strict["method"])] + list(strict["method"])
    mean = strict.groupby(["method", "time_steps"], as_index=False).mean(numeric_only=True)
    return mean[mean["method"].isin(known[:1])].sort_values("time_steps")


def _converted(rows: pd.DataFrame, layers: pd.Series, size: int, where: dict, suffix: str = "") -> list[Deployment]:
    """A plan for each T; a still image passes the first layer once."""
    plans = []
    for r in _one_method(rows).to_dict("records"):
        dense = float(layers.iloc[0] + r["time_steps"] * layers.iloc[1:].sum())
        energies = _arithmetic(r["all_mac"], r["all_ac"]), _arithmetic(r["mac"], r["ac"])
        part = EdgePart(dense, ANSWER_BITS, size, *energies, r["all_mac"], r["all_ac"])
        name = f"SNN, T = {r['time_steps']} ({r['method']}){suffix}"
        plans.append(_plan(name, "SNN on the device", r, (part,), **where))
    return plans


def _named(files: pd.DataFrame) -> pd.DataFrame:
    """``files`` of chapter 30 with names for readers: "JPEG 50"."""
    pairs = zip(files["file"], files["quality"], strict=True)
    return files.assign(name=[FILES[f] + ("" if pd.isna(q) else f" {q:g}") for f, q in pairs])


def whole(p: ConversionBenchmark, data: Data, qualities: Sequence[int]) -> list[Deployment]:
    """The ANN and the SNN of each T on the device, and the ANN on the server with each kind of file."""
    experiments = two_stage.experiments(p, data)
    rows = conversion_benchmark.benchmark(experiments, p.methods, p.time_steps, p.samples)
    net = experiments[0].network("relu")
    layers, size = count(net, data.shape)["macs"], tensor_bytes(net)
    where = {"data": p.dataset, "network": _network(p.asdict())}
    files = _named(image_files(net, data, qualities, p.device))
    plans = _relu_plans(float(layers.sum()), size, where, files)
    return plans + _converted(rows, layers, size, where)


def _fusion_macs(fuse: nn.Module, time_steps: int) -> float:
    return float(time_steps * sum(m.weight.numel() for m in fuse.modules() if isinstance(m, nn.Linear)))


def _fused(e: ec_snn.EcSnn, split_plan: ec_snn.SplitPlan, rule: str, split: str) -> float:
    return float(fused_accuracy(e, split_plan, [rule], split)["accuracy"].iloc[1])


def split(p: SplitPruneTradeoffs, data: Data, points: Sequence[tuple[int, float]]) -> list[Deployment]:
    """EC-SNN over N devices at ζ for each (N, ζ) of ``points``; operations are those of the first seed."""
    experiments, plans = ec_snn.experiments(p, data), []
    e = experiments[0]
    for n, zeta in points:
        split_plan = ec_snn.plan(p, e, n_devices=n, zeta=zeta)
        reached = {
            name: np.mean([_fused(x, ec_snn.plan(p, x, n_devices=n, zeta=zeta), p.fusion, split) for x in experiments])
            for name, split in (("accuracy", "test"), ("validation_accuracy", "validation"))
        }
        nets = device_parts(e, split_plan)
        macs = [dense_macs(net, e.shape, True) for net in nets]
        bits = [payload_bits(net, e.shape) for net in e.submodels(split_plan)]
        sized = zip(nets, macs, bits, strict=True)
        parts = tuple(spiking_part(net, e.batches("test", p.samples), m, b) for net, m, b in sized)
        server = _fusion_macs(e.fused(split_plan, p.fusion).fuse, e.time_steps)
        where = {"data": p.dataset, "network": f"{_network(p.asdict())}, T = {p.time_steps}"}
        plans.append(
            _plan(f"EC-SNN, N = {n}, ζ = {zeta:g}", "EC-SNN", reached, parts, server_macs=server, **where)
        )
    return plans


def _cut_name(c: Candidate) -> str:
    return f"cut {c.split_point}, c' = {c.channels}, s = {c.stride}, T = {c.time_steps}"


def encoder_macs(channels: int, height: int, width: int, reduced: int, stride: int) -> int:
    """MACs of the encoder's convolution at one step: 3 × 3 without spatial reduction, s × s with stride s."""
    kernel = 3 if stride == 1 else stride
    return channels * reduced * kernel**2 * (height // stride) * (width // stride)


def _cut_macs(points: pd.DataFrame, stem: int, c: Candidate) -> float:
    """MACs of the device's part over all T steps if zeros are multiplied too; a still image passes the stem once."""
    row = points.set_index("split_point").loc[c.split_point]
    encoder = encoder_macs(row["channels"], row["height"], row["width"], c.channels, c.stride)
    return float(stem + c.time_steps * (row["cumulative_macs"] + row["cumulative_shortcut_macs"] + encoder))


def cut(p: SplitPoints, data: Data) -> list[Deployment]:
    """SpikeBottleNet at every split point of chapter 30."""
    e, plans = spike_bottlenet.experiment(p, data, p.seed), []
    candidates = grid(e.points(), p.ratios, p.strides, p.time_steps, p.split_points)
    found = spike_bottlenet.search(e, candidates, p.samples).set_index(list(Candidate._fields))
    layers = count(e.untrained(1), data.shape).set_index("layer")["macs"]
    stem = int(layers[layers.index.str.startswith("stem.")].sum())
    where = {"data": p.dataset, "network": _network(p.asdict())}
    for c in candidates:
        net, report = e.compressed(c)
        device, row = head(net).to(pick_device(p.device)), found.loc[tuple(c)]
        work = cut_energy.counted(device, e.batches(p.samples))[["mac", "ac"]].sum()
        dense = _cut_macs(e.points(), stem, c)
        energies = row["counted_joules"], row["paper_joules"]
        part = EdgePart(dense, report.bits, tensor_bytes(device), *energies, float(work["mac"]), float(work["ac"]))
        done = (dense - stem) / c.time_steps - report.encoder_macs
        server = c.time_steps * (float(layers.sum()) - stem - done + report.decoder_macs)
        plans.append(_plan(_cut_name(c), "SpikeBottleNet", row, (part,), server_macs=server, **where))
    return plans


def remembered(p: Params, data: Data, also: Sequence, make: Callable[[], list[Deployment]]) -> list[Deployment]:
    """What ``make`` gives, or what it gave before with the same parameters, data, ``also`` and code."""
    given = p.asdict() | {"out_dir": "", "data_dir": "", "device": str(pick_device(p.device))}
    parts = [p.notebook, given, data.fingerprint, list(also), code_hash(behind("experiments/plan_candidates"))]
    return from_table(kept_table(parts, lambda: to_table(make())))


def _points(p: SplitPruneTradeoffs, fused: FusedInference) -> list[tuple[int, float]]:
    """(N, ζ) of chapters 21 and 23."""
    here = [(n, zeta) for n in p.numbers for zeta in p.zetas]
    return here + [(n, p.zeta) for n in fused.devices if (n, p.zeta) not in here]


def computed(p: Planner) -> list[Deployment]:
    """All candidates of a chapter's parameters; what is not in the cache is trained.

    Raises:
        ValueError: if the three experiments do not validate and test on the same images.
    """
    common = {"dataset": p.dataset, "data_dir": p.data_dir, "seed": p.seed, "device": p.device}
    one = changed(ConversionBenchmark, p.conversion, **common)
    two = changed(SplitPruneTradeoffs, p.splitting, **common)
    three = changed(SplitPoints, p.bottleneck, **common)
    sets = [
        load(one.dataset, one.data_dir, one.seed, calibration=one.calibration, validation=one.validation),
        ec_snn.load_data(two),
        load(three.dataset, three.data_dir, three.seed, validation=three.validation),
    ]
    for kind in ("validation", "test"):
        images = [getattr(d, kind).x for d in sets]
        same = all(torch.equal(x, images[0]) for x in images)
        check(f"{kind} images of the three experiments", "different", same, "the same ones")
    points = _points(two, FusedInference(devices=p.numbers))
    plans = remembered(one, sets[0], three.qualities, lambda: whole(one, sets[0], three.qualities))
    plans += remembered(two, sets[1], points, lambda: split(two, sets[1], points))
    return plans + remembered(three, sets[2], (), lambda: cut(three, sets[2]))


def _recorded_whole(name: str, manifest: dict, tables: dict) -> list[Deployment]:
    """Chapter 13: the ANN here and there, and the SNN of each T; lossless input only."""
    given = manifest["parameters"]
    shape, classes = SHAPES[given["dataset"]]
    net = build(given["model"], n_classes=classes, shape=shape, width=given["width"])
    layers, rows = count(net, shape)["macs"], tables["benchmark"]
    size = tensor_bytes(net)
    where, suffix = {"data": given["dataset"], "network": f"{_network(given)} ({name})"}, f" [{name}]"
    raw = {"name": FILES["raw"], "bytes": torch.Size(shape).numel()} | _means(rows, "relu_")
    relu = _relu_plans(float(layers.sum()), size, where, pd.DataFrame([raw]), suffix)
    return relu + _converted(rows, layers, size, where, suffix)


def _means(rows: pd.DataFrame, front: str) -> dict[str, float]:
    """Mean ``accuracy`` and ``validation_accuracy`` of columns with ``front``; those that were recorded."""
    names = [n for n in ("accuracy", "validation_accuracy") if front + n in rows]
    return {n: float(rows[front + n].mean()) for n in names}


def _recorded_split(name: str, manifest: dict, tables: dict) -> list[Deployment]:
    """Chapter 21: of the devices of a plan the largest and the sum are recorded; the others share what is left."""
    given, plans = manifest["parameters"], []
    where = {"data": given["dataset"], "network": f"{_network(given)}, T = {given['time_steps']} ({name})"}
    for (n, zeta), r in tables["sweep"].groupby(["n_devices", "zeta"]).mean(numeric_only=True).iterrows():
        columns, n = ("dense_macs", "payload_bits", "bytes", "joules"), int(n)
        largest = EdgePart(*(r[f"largest_{c}"] for c in columns))
        others = [EdgePart(*((r[f"total_{c}"] - r[f"largest_{c}"]) / max(1, n - 1) for c in columns))] * (n - 1)
        title = f"EC-SNN, N = {n}, ζ = {zeta:g} [{name}]"
        plans.append(_plan(title, "EC-SNN", r, (largest, *others), **where))
    return plans


def _recorded_files(tables: dict, raw_bytes: int) -> pd.DataFrame:
    """Accuracy of the ANN of chapters 30 and 32 with each file: ``name``, ``bytes``, ``accuracy``; raw comes first."""
    if "files" in tables:
        return _named(tables["files"])
    raw = {"name": FILES["raw"], "bytes": raw_bytes} | _means(tables["cells"], "ann_")
    rates = tables["rates"][tables["rates"]["family"].isin(["PNG", "JPEG", "WebP", "WebP, lossless"])]
    names = [f"{r.family}, {r.bytes:.0f} B" for r in rates.itertuples()]
    columns = [c for c in ("name", "bytes", "accuracy", "validation_accuracy") if c == "name" or c in rates]
    return pd.concat([pd.DataFrame([raw]), rates.assign(name=names)[columns]])


def _recorded_cut(name: str, manifest: dict, tables: dict) -> list[Deployment]:
    """Chapters 30 and 32: the search, and its ANN on the server with each kind of file."""
    given, plans = manifest["parameters"], []
    shape, classes = SHAPES[given["dataset"]]
    options = {"n_classes": classes, "shape": shape, "width": given["width"], "blocks": given["blocks"]}
    net = backbone(1, name=given["model"], order=given["order"], **options)
    points, layers = split_points(net, shape), count(net, shape).set_index("layer")["macs"]
    stem, total = int(layers[layers.index.str.startswith("stem.")].sum()), float(layers.sum())
    held = 4 * points.set_index("split_point")["parameters"]
    where, suffix = {"data": given["dataset"], "network": f"{_network(given)} ({name})"}, f" [{name}]"
    fields = list(Candidate._fields)
    for key, r in tables["search"].groupby(fields).mean(numeric_only=True).iterrows():
        c = Candidate(*map(int, key))
        dense = _cut_macs(points, stem, c)
        part = EdgePart(dense, r["bits"], held[c.split_point], r["counted_joules"], r["paper_joules"])
        server = max(0.0, stem + c.time_steps * (total - stem) - dense)
        plans.append(_plan(_cut_name(c) + suffix, "SpikeBottleNet", r, (part,), server_macs=server, **where))
    files = _recorded_files(tables, torch.Size(shape).numel())
    return plans + _relu_plans(total, tensor_bytes(net), where, files, suffix)


def _recorded_plans(name: str, manifest: dict, tables: dict) -> list[Deployment]:
    """Chapter 40: its own candidates."""
    found = from_table(tables["plans"])
    return [replace(p, name=f"{p.name} [{name}]", network=f"{p.network} ({name})") for p in found]


#: Notebook → sub-folder of recorded runs, and what makes plans of one.
RECORDED = {
    "13_conversion_benchmark": ("conversion", _recorded_whole),
    "21_split_prune_tradeoffs": ("splitting", _recorded_split),
    "30_split_points": ("bottleneck", _recorded_cut),
    "32_compression_accuracy": ("bottleneck", _recorded_cut),
    "40_planner": ("planning", _recorded_plans),
}


def from_records(folder: Path | str = "results") -> list[Deployment]:
    """Plans from the recorded runs below ``folder``, of all data sets whose shape is known.

    What was not recorded is left out or said: operations with zeros skipped of SpikeBottleNet and EC-SNN, what EC-SNN
    counts as the paper does, the work of its fusion on the server.

    Args:
        folder: absolute, or relative to the checkout.
    """
    plans = []
    for notebook, (sub, make) in RECORDED.items():
        for name, (manifest, tables) in recorded_runs(notebook, Path(folder) / sub).items():
            if manifest["parameters"]["dataset"] in SHAPES:
                plans += make(name, manifest, tables)
    return plans


def collect(p: Planner) -> list[Deployment]:
    """Candidates of a chapter's parameters: computed, or recorded ones of ``p.dataset`` where ``p.source`` is a folder.

    Raises:
        ValueError: if nothing is recorded for the data set.
    """
    if not p.source:
        return computed(p)
    found = from_records(p.source)
    names = sorted({plan.data for plan in found})
    check("dataset", p.dataset, p.dataset in names, f"recorded in {p.source}: {', '.join(names) or 'nothing'}")
    return [plan for plan in found if plan.data == p.dataset]
