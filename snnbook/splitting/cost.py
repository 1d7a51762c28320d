"""What a sub-model asks of a device, and what a placement of sub-models on devices costs per sample, all T steps.

Latency of a placement: devices work at the same time, sub-models on one device one after the other, and the server
fuses when the last features are there,

    t = max_d (Σ_{i on d} t_i^compute + t_i^link) + t_fusion

EC-SNN leaves the links out; both are given here. Its energy is the ATSAN of one device; here it is in joules, for the
busiest device and in total, with and without transmission.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..checks import check
from .devices import Device


@dataclass(frozen=True)
class Demand:
    """What one sub-model asks for, per sample over all T steps.

    Attributes:
        name: unique in a list of demands.
        bytes: weights as they are stored on the device.
        macs: multiply–accumulates where zeros are skipped: those of the analogue first layer.
        acs: accumulates, one for each spike and each place it reaches.
        payload_bits: bits sent to the server, T·C·H·W for packed binary spikes.
        dense_macs: multiply–accumulates where zeros are multiplied too; ``macs + acs`` if it is not given.
    """

    name: str
    bytes: int
    macs: float
    acs: float
    payload_bits: float
    dense_macs: float | None = None

    def __post_init__(self) -> None:
        for figure in ("bytes", "macs", "acs", "payload_bits", "dense_macs"):
            value = getattr(self, figure)
            good = (value is None and figure == "dense_macs") or (value is not None and 0 <= value < np.inf)
            check(f"{self.name}: {figure}", value, good, "a finite number of at least 0")


def operations(demand: Demand, device: Device) -> tuple[float, float]:
    """MACs and ACs that ``device`` carries out: those of the spikes, or every MAC where it does not skip zeros."""
    if device.skips_zeros:
        return demand.macs, demand.acs
    return demand.macs + demand.acs if demand.dense_macs is None else demand.dense_macs, 0


def latency_compute(demand: Demand, device: Device) -> float:
    """Seconds of computing per sample."""
    macs, acs = operations(demand, device)
    return macs / device.mac_rate + acs / device.ac_rate


def latency_link(demand: Demand, device: Device) -> float:
    """Seconds that the features of one sample are on the link."""
    return demand.payload_bits / device.link_rate


def joules_compute(demand: Demand, device: Device) -> float:
    """Joules of computing per sample."""
    macs, acs = operations(demand, device)
    return macs * device.joules_per_mac + acs * device.joules_per_ac


def joules_link(demand: Demand, device: Device) -> float:
    """Joules of sending the features of one sample."""
    return demand.payload_bits * device.joules_per_bit


def latency(demand: Demand, device: Device) -> float:
    """Seconds per sample, computing and link."""
    return latency_compute(demand, device) + latency_link(demand, device)


def joules(demand: Demand, device: Device) -> float:
    """Joules per sample, computing and link: what counts against a device's budget."""
    return joules_compute(demand, device) + joules_link(demand, device)


def matrix(measure, demands: Sequence[Demand], devices: Sequence[Device]) -> np.ndarray:
    """``measure(demand, device)`` for every pair [S, D]."""
    values = [[measure(s, d) for d in devices] for s in demands]
    return np.array(values, dtype=float).reshape(len(demands), len(devices))


def demands_table(demands: Sequence[Demand]) -> pd.DataFrame:
    """One row a sub-model: its name and what it asks for."""
    return pd.DataFrame([vars(d) for d in demands]).rename(columns={"name": "sub_model"})


def per_device(demands: Sequence[Demand], devices: Sequence[Device], assignment: Sequence[int]) -> pd.DataFrame:
    """Costs of each device that has something to do.

    Args:
        demands: sub-models.
        devices: the fleet.
        assignment: device of each sub-model, counted from 0.

    Returns:
        Columns ``device``, ``sub_models`` (names), ``bytes``, ``memory_used`` (share), ``compute_seconds``,
        ``link_seconds``, ``compute_joules``, ``link_joules``, ``budget_used`` (share).

    Raises:
        ValueError: if ``assignment`` does not name a device for each sub-model.
    """
    known = all(0 <= d < len(devices) for d in assignment)
    check("assignment", list(assignment), len(assignment) == len(demands) and known, "a device for each sub-model")
    rows = []
    for i, device in enumerate(devices):
        mine = [s for s, d in zip(demands, assignment, strict=True) if d == i]
        if not mine:
            continue
        measures = (latency_compute, latency_link, joules_compute, joules_link)
        sums = [sum(measure(s, device) for s in mine) for measure in measures]
        size = sum(s.bytes for s in mine)
        used = (sums[2] + sums[3]) / device.energy_budget
        rows.append((device.name, ", ".join(s.name for s in mine), size, size / device.memory, *sums, used))
    columns = ["device", "sub_models", "bytes", "memory_used", "compute_seconds", "link_seconds", "compute_joules"]
    return pd.DataFrame(rows, columns=[*columns, "link_joules", "budget_used"])


#: Names of what :func:`totals` gives, in its order.
TOTALS = (
    *("devices", "compute_seconds", "seconds", "seconds_with_link", "busiest_joules", "busiest_joules_with_link"),
    *("total_joules", "total_joules_with_link", "largest_bytes", "total_bytes"),
)


def totals(table: pd.DataFrame, fusion_seconds: float = 0.0) -> dict[str, float]:
    """What a placement costs as a whole.

    Args:
        table: of :func:`per_device`.
        fusion_seconds: that the server takes for one sample.

    Returns:
        ``devices`` in use; ``compute_seconds`` of the slowest; ``seconds`` end to end without links and
        ``seconds_with_link``; ``busiest_joules``, ``total_joules`` and both ``..._with_link``; ``total_bytes`` and
        ``largest_bytes`` of weights.
    """
    compute, sent = table["compute_seconds"], table["compute_seconds"] + table["link_seconds"]
    energy, with_link = table["compute_joules"], table["compute_joules"] + table["link_joules"]
    return {
        "devices": len(table),
        "compute_seconds": float(compute.max()),
        "seconds": float(compute.max()) + fusion_seconds,
        "seconds_with_link": float(sent.max()) + fusion_seconds,
        "busiest_joules": float(energy.max()),
        "busiest_joules_with_link": float(with_link.max()),
        "total_joules": float(energy.sum()),
        "total_joules_with_link": float(with_link.sum()),
        "largest_bytes": int(table["bytes"].max()),
        "total_bytes": int(table["bytes"].sum()),
    }


def against(rows: pd.DataFrame, reference: pd.Series) -> pd.DataFrame:
    """Rows of :func:`totals` as changes in percent of ``reference``, the network that is neither pruned nor split.

    N = 1 is pruning alone; only rows with more devices show what splitting does.
    """
    measures = [c for c in reference.index if c != "devices" and c in rows and reference[c]]
    return rows.assign(**{c: 100 * (rows[c] / reference[c] - 1) for c in measures})
