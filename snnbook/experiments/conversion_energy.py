"""Energy of converted networks layer by layer, and the bytes that move when they run.

Counting operations prices the arithmetic. :func:`traffic` counts what has to be fetched and stored for it under four
schedules, each at its best: nothing is moved twice that the schedule allows to keep.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn

from ..checks import check, check_choice
from ..conversion import activations
from ..counts import count
from ..energy import ENERGY_MODELS, count_operations, energy_ratio
from ..memory import memory_joules
from ..neurons import spiking_layers
from ..record import FiringRates, observe
from ..syops import dense_connections, equation_18


def layers(snn: nn.Module, batches, shape: tuple[int, int, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Firing rates of the neurons and accumulates of the connections, layer by layer.

    Args:
        snn: spiking network; its ``time_steps`` are those that count.
        batches: (x, y) pairs.
        shape: input (C, H, W).

    Returns:
        Neurons: ``layer``, ``spikes`` (of all images), ``rate`` (spikes per neuron, step and image). Connections:
        ``layer``, ``macs`` of the ANN, ``within`` (those that are not on padding), ``mac``, ``ac`` per image,
        ``per_connection`` (accumulates for each connection within the input, as no spike comes from padding).
    """
    rates = FiringRates()
    with torch.no_grad(), observe(snn, neuron=rates):
        operations = count_operations(snn, batches).query("part == 'connection'")
    table = count(snn, shape)[["layer", "macs"]]
    table["within"] = dense_connections(copy.deepcopy(snn).cpu(), shape)["within"]
    for kind in ("mac", "ac"):
        sums = operations[operations["kind"] == kind].groupby("layer")["operations"].sum()
        table[kind] = table["layer"].map(sums).fillna(0.0)
    return rates.table(), table.assign(per_connection=table["ac"] / table["within"])


def readings(connections: pd.DataFrame, rate: float, time_steps: int, model: str = "45nm_fp32") -> pd.DataFrame:
    """Equation (18) for a network that was counted: exactly and by its mean rate, first layer once and at every step.

    Args:
        connections: from :func:`layers`.
        rate: mean firing rate, spikes per neuron and step.
        time_steps: T.
        model: name in ``ENERGY_MODELS``.

    Returns:
        Columns ``count`` (exact, rate × T × MACs), ``reading`` (once, every step, left out), ``ratio`` (E_SNN/E_ANN).
    """
    a, c, ac = connections["macs"].sum(), connections["mac"].sum(), connections["ac"].sum()
    exact = {"once": c, "every step": time_steps * c}
    rows = [("exact", name, energy_ratio(mac, ac, a, model)) for name, mac in exact.items()]
    formula = equation_18(a, c, rate, time_steps, model)
    rows += [("rate × T × MACs", r.reading, r.ratio) for r in formula.itertuples()]
    return pd.DataFrame(rows, columns=["count", "reading", "ratio"])


def neurons(net: nn.Module, shape: tuple[int, int, int]) -> int:
    """Number of neurons (or activations of an ANN) for one image; nothing is computed."""
    net, sizes = copy.deepcopy(net).to("meta").eval(), {}
    if getattr(net, "time_steps", None) is not None:
        net.time_steps = 1
    for name, layer in (activations(net) | spiking_layers(net)).items():
        layer.register_forward_hook(lambda m, x, y, name=name: sizes.update({name: y[:1].numel()}))
    with torch.no_grad():
        net(torch.empty(1, *shape, device="meta"))
    return sum(sizes.values())


def traffic(
    net: nn.Module, shape: tuple[int, int, int], time_steps: int, accumulates: float, spikes: float, bits: int = 32
) -> pd.DataFrame:
    """Bytes read and written per image, batch size 1, under four schedules.

    ``ANN``: each weight is read once, each activation written once and read once. ``SNN, step by step``: the whole
    network at step 1, then at step 2, ...: weights behind the first layer are read at every step, potentials read
    and written at every step, a spike is one bit. ``SNN, layer by layer``: all T steps of a layer before the next:
    each weight is read once, potentials stay beside the adder. ``SNN, event by event``: each accumulate reads its
    weight and reads and writes a potential, a spike is written and read as one address of ``bits``, and at each step
    each potential is read and written once for drive, bias and threshold. The drive of the first layer is computed
    once and, but for ``layer by layer``, read at every step.

    Args:
        net: the network, ANN or SNN.
        shape: input (C, H, W).
        time_steps: T.
        accumulates: AC of connections per image.
        spikes: spikes of all neurons per image.
        bits: of a weight, an activation, a potential and an address.

    Returns:
        Columns ``schedule``, ``weights``, ``activations``, ``potentials`` (bytes).
    """
    check("time_steps", time_steps, time_steps >= 1, "at least 1")
    check("bits", bits, bits >= 1, "at least 1")
    table, T, word = count(net, shape), time_steps, bits / 8
    n, image, drive = neurons(net, shape), math.prod(shape), math.prod(table["output"].iloc[0])
    first, rest = table["parameters"].iloc[0], table["parameters"].iloc[1:].sum()
    bit_map, updates = 2 * T * n / 8, 2 * T * n * word
    rows = [
        ("ANN", (first + rest) * word, (image + 2 * n) * word, 0.0),
        ("SNN, step by step", (first + T * rest) * word, (image + (1 + T) * drive) * word + bit_map, updates),
        ("SNN, layer by layer", (first + rest) * word, (image + 2 * drive) * word + bit_map, 0.0),
        (
            "SNN, event by event",
            (first + accumulates) * word,
            (image + (1 + T) * drive + 2 * spikes) * word,
            2 * accumulates * word + updates,
        ),
    ]
    return pd.DataFrame(rows, columns=["schedule", "weights", "activations", "potentials"])


def block_macs(ann: nn.Module, batches) -> list[float]:
    """MACs of the convolutions of each residual block of an ANN per sample, padding excluded; shortcuts are left out.

    Args:
        ann: a ResNet, or the device half of one.
        batches: (x, y) pairs.
    """
    rows = count_operations(ann, batches).query("part == 'connection'")
    rows = rows[rows["layer"].str.contains(".branch.", regex=False)]
    return rows.groupby(rows["layer"].str.split(".").str[1], sort=False)["operations"].sum().tolist()


def traffic_joules(
    moved: pd.DataFrame, ann_macs: float, macs: float, accumulates: float, model: str = "45nm_fp32"
) -> pd.DataFrame:
    """Bytes of each schedule beside the energy of its arithmetic and of moving them, per image.

    Args:
        moved: of :func:`traffic`.
        ann_macs: MACs of the ANN.
        macs: MAC of the SNN, those of its first layer.
        accumulates: AC of the SNN; every schedule of it carries out the same operations.
        model: name in ``ENERGY_MODELS``, of the arithmetic; memories are those of
            :func:`snnbook.memory.memory_joules` at 45 nm.

    Returns:
        Columns ``schedule``, ``MB``, ``arithmetic, mJ``, ``1 MB SRAM, mJ``, ``DRAM, mJ``.

    Raises:
        ValueError: for an unknown model or a negative number of operations.
    """
    check_choice("model", model, ENERGY_MODELS)
    for name, value in (("ann_macs", ann_macs), ("macs", macs), ("accumulates", accumulates)):
        check(name, value, value >= 0, "at least 0")
    price, total = ENERGY_MODELS[model], moved[["weights", "activations", "potentials"]].sum(axis=1)
    ann, snn = ann_macs * price.mac, macs * price.mac + accumulates * price.ac  # pJ
    table = pd.DataFrame({"schedule": moved["schedule"], "MB": total / 1e6})
    table["arithmetic, mJ"] = [1e-9 * (ann if name == "ANN" else snn) for name in moved["schedule"]]
    for memory in ("1 MB SRAM", "DRAM"):
        table[f"{memory}, mJ"] = [1e3 * memory_joules(b, memory) for b in total]
    return table


def break_even_steps(time_steps: Sequence[int], ratios: Sequence[float]) -> float:
    """T at which E_SNN/E_ANN reaches one, on straight lines between measured T; infinite where it does not."""
    points = [(0.0, 0.0), *zip(time_steps, ratios, strict=True)]
    for (t0, r0), (t1, r1) in zip(points, points[1:], strict=False):
        if r0 < 1 <= r1:
            return t0 + (t1 - t0) * (1 - r0) / (r1 - r0)
    return math.inf
