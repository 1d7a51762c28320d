"""From an EC-SNN experiment to files that processes run: one for each device, one for the server.

    write(folder, e, plan)      files of the fleet, see snnbook.link.folder
    alone(folder, samples)      what the same files answer in one process, sample by sample
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from .. import store
from ..link.folder import Plan, Sensor, part_file, read_plan, write_fleet
from ..link.parts import Fuse
from ..splitting.submodel import payload_shape
from .ec_snn import EcSnn, SplitPlan
from .ec_snn_tables import NOT_DEVICES, device_parts, host_latency, pools, sweep
from .samples import spread


def server(e: EcSnn, split: SplitPlan, rule: str = "mlp") -> Fuse:
    """What the server runs: a pool for each device, then the fusion ``rule``."""
    shapes = [payload_shape(net, e.shape)[1:] for net in e.submodels(split)]
    fuse = e.fused(split, rule).cpu().fuse
    return Fuse(nn.ModuleList(pools(e, split)), fuse, shapes, e.time_steps).eval()


def write(folder: Path | str, e: EcSnn, split: SplitPlan, rule: str = "mlp", samples: int = 100, **plan) -> Plan:
    """Write the files of a fleet: sub-models, fusion and test samples, evenly spaced, as the sensors' input.

    Args:
        folder: is made if need be.
        e: experiment.
        split: how it is split.
        rule: fusion.
        samples: how many test samples, see :func:`snnbook.experiments.samples.spread`.
        plan: further fields of :class:`snnbook.link.folder.Plan`, for instance ``deadline`` in seconds.

    Returns:
        What was written to ``fleet.json``.
    """
    chosen = spread(e.data.test, samples)
    x, y = next(e.data.batches(chosen, len(chosen)))
    x = x.transpose(0, 1) if x.ndim == 5 else x
    parts = [part.cpu() for part in device_parts(e, split)]
    about = {"data": e.data.name, "parts": [list(c) for c in split.parts], "zeta": split.zeta, "fusion": rule}
    return write_fleet(folder, parts, server(e, split, rule), x, labels=y, about=about, **plan)


def features(folder: Path | str, sample: int) -> list[Tensor]:
    """Spikes [T, 1, C, H, W] that each device of a folder would send for one sample, computed here."""
    sensor = Sensor(Path(folder) / "samples.safetensors")
    parts = [store.load(part_file(folder, i))[0] for i in range(len(read_plan(folder).shapes))]
    with torch.no_grad():
        return [part(sensor(sample)) for part in parts]


def alone(folder: Path | str, samples: Sequence[int], lost: Sequence[int] = ()) -> list[Tensor]:
    """Logits [T, 1, K] of each sample from the folder's files in this process, one sample and one thread at a time.

    Args:
        folder: of :func:`write`.
        samples: rows of its samples.
        lost: devices that count as lost.
    """
    fuse = store.load(Path(folder) / "server.safetensors")[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            found = [features(folder, i) for i in samples]
            return [fuse([None if p in lost else f for p, f in enumerate(fs)]) for fs in found]
    finally:
        torch.set_num_threads(threads)


def over_devices(
    e: EcSnn, splits: Sequence[SplitPlan], rules: Sequence[str], samples: int | None = None, model: str = "45nm_fp32"
) -> pd.DataFrame:
    """What N devices cost and reach, for several N and fusions.

    Returns:
        A row for each split and rule: the columns of :func:`snnbook.experiments.ec_snn_tables.sweep`, ``fusion``,
        ``seconds_device`` (slowest sub-model) and ``seconds_fusion``, for one sample on this machine's CPU.
    """
    rows = []
    for rule in rules:
        table = sweep(e, splits, rule, samples=samples, model=model).assign(fusion=rule)
        times = [host_latency(e, split, rule).set_index("device")["seconds"] for split in splits]
        table["seconds_device"] = [float(t.drop(list(NOT_DEVICES)).max()) for t in times]
        table["seconds_fusion"] = [float(t["fusion"]) for t in times]
        rows.append(table)
    return pd.concat(rows, ignore_index=True)
