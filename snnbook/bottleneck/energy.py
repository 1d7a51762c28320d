"""Energy of the device's part, as SpikeBottleNet counts it and with every operation counted.

    E_SNN = f_r · T · MACs · E_AC         E_ANN = MACs · E_MAC

MACs are those of the blocks' convolutions up to the split point, and f_r is one firing rate for all of them. Left out
are the projection shortcuts, which carry potentials and so cost MACs at every step but for the first block, where the
image stands still, the stem, the encoder, neurons, additions, memory traffic and the radio. The last two are no
operations: see :func:`snnbook.bottleneck.memory.bytes_moved` and :func:`radio_joules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import pandas as pd
import torch
from torch import Tensor, nn

from ..checks import check, check_choice
from ..energy import ENERGY_MODELS, count_operations
from ..network import Network, evaluating
from ..papers import table as published
from ..record import observe
from .backbone import block_names
from .sizes import Report

#: Where the operations of a device's part arise, in the order of tables.
ITEMS = ("blocks", "shortcuts", "stem", "encoder", "neurons and additions")


def ann_joules(macs: float, model: str = "45nm_fp32") -> float:
    """Joules of ``macs`` multiply–accumulates."""
    check_choice("model", model, ENERGY_MODELS)
    return macs * ENERGY_MODELS[model].mac * 1e-12


def snn_joules(macs: float, rate: float, time_steps: int, model: str = "45nm_fp32") -> float:
    """Joules of f_r·T·MACs accumulates.

    Args:
        macs: MACs of the connections at one step.
        rate: f_r, spikes per neuron and step.
        time_steps: T.
        model: name in ``ENERGY_MODELS``.

    Raises:
        ValueError: for a negative rate, a T below 1 or an unknown model.
    """
    check_choice("model", model, ENERGY_MODELS)
    check("rate", rate, rate >= 0, "0 or more spikes per neuron and step")
    check("time_steps", time_steps, time_steps >= 1, "at least 1")
    return rate * time_steps * macs * ENERGY_MODELS[model].ac * 1e-12


def implied_rate(ratio: float, time_steps: int, model: str = "45nm_fp32") -> float:
    """f_r that a printed ratio E_ANN/E_SNN stands for; arguments as :func:`snn_joules`.

    Raises:
        ValueError: for a ratio that is not positive, a T below 1 or an unknown model.
    """
    check_choice("model", model, ENERGY_MODELS)
    check("ratio", ratio, ratio > 0, "a positive number")
    check("time_steps", time_steps, time_steps >= 1, "at least 1")
    return ENERGY_MODELS[model].mac / (ENERGY_MODELS[model].ac * time_steps * ratio)


def estimated(points: pd.DataFrame, sent: Report, rate: float, stem_macs: int) -> pd.DataFrame:
    """Operations of the device's spiking part where only f_r is known.

    Blocks are in MS-ResNet order. The stem sees the still image once, and so does the first block's shortcut, which
    follows the stem; any other shortcut sees potentials at every step, blocks and encoder see spikes. A LIF
    neuron takes two accumulates and one leak at every step, an addition of two branches one accumulate.

    Args:
        points: from :func:`snnbook.bottleneck.backbone.split_points`.
        sent: report of the codec; its ``bits_each`` is T.
        rate: f_r, spikes per neuron and step.
        stem_macs: MACs of the stem.

    Returns:
        Columns ``item`` (of ``ITEMS``), ``mac``, ``ac`` per sample.
    """
    T, before = sent.bits_each, points[points["split_point"] <= sent.split_point]
    shortcuts = T * before["shortcut_macs"].sum() - (T - 1) * before["shortcut_macs"].iloc[0]
    neurons = before["neurons"].sum() + prod(sent.feature) + prod(sent.payload)
    additions = (before["channels"] * before["height"] * before["width"]).sum()
    rows = [
        ("blocks", 0.0, rate * T * before["macs"].sum()),
        ("shortcuts", float(shortcuts), 0.0),
        ("stem", float(stem_macs), 0.0),
        ("encoder", 0.0, rate * T * sent.encoder_macs),
        ("neurons and additions", float(T * neurons), float(T * (2 * neurons + additions))),
    ]
    return pd.DataFrame(rows, columns=["item", "mac", "ac"])


def dense(points: pd.DataFrame, sent: Report, stem_macs: int) -> pd.DataFrame:
    """Operations of the device's part of the ANN, in the columns of :func:`estimated`: connections only."""
    before = points[points["split_point"] <= sent.split_point]
    macs = before["macs"].sum(), before["shortcut_macs"].sum(), stem_macs, sent.encoder_macs, 0
    return pd.DataFrame({"item": ITEMS, "mac": [float(m) for m in macs], "ac": 0.0})


def _item(layer: str, part: str) -> str:
    """Which of ``ITEMS`` an operation belongs to."""
    if part != "connection":
        return "neurons and additions"
    for piece, item in (("stem.", "stem"), ("encoder.", "encoder"), (".shortcut.", "shortcuts")):
        if piece in layer:
            return item
    return "blocks"


def counted(device: Network, batches) -> pd.DataFrame:
    """Operations of the device's part, exactly as they are carried out.

    Args:
        device: spiking device half, from :func:`snnbook.bottleneck.codec.head`.
        batches: (x, y) pairs.

    Returns:
        Columns ``item`` (of ``ITEMS``), ``mac``, ``ac`` per sample.
    """
    operations = count_operations(device, batches)
    operations["item"] = [_item(*names) for names in zip(operations["layer"], operations["part"], strict=True)]
    return _by_item(operations)


def counted_blocks(net: Network, batches) -> pd.DataFrame:
    """Accumulates that arrive at the convolutions of each block: ``block`` (from 1), ``counted`` per sample."""
    rows = count_operations(net, batches).query("part == 'connection' and kind == 'ac'")
    rows = rows[rows["layer"].str.contains(".branch.", regex=False)]
    names = list(rows["layer"].str.split(".").str[1].unique())
    sums = rows.groupby(rows["layer"].str.split(".").str[1])["operations"].sum()
    return pd.DataFrame({"block": range(1, len(names) + 1), "counted": [float(sums[name]) for name in names]})


def _by_item(operations: pd.DataFrame) -> pd.DataFrame:
    wide = operations.pivot_table(index="item", columns="kind", values="operations", aggfunc="sum")
    wide = wide.reindex(index=ITEMS, columns=["mac", "ac"]).fillna(0.0).astype(float)
    return wide.rename_axis(index="item", columns=None).reset_index()


def joules(operations: pd.DataFrame, model: str = "45nm_fp32", items: tuple[str, ...] | None = None) -> float:
    """Joules of a table of operations.

    Args:
        operations: columns ``item``, ``mac``, ``ac``.
        model: name in ``ENERGY_MODELS``.
        items: which count; all by default, ``("blocks",)`` is what the paper counts.

    Raises:
        ValueError: for an unknown model.
    """
    check_choice("model", model, ENERGY_MODELS)
    kept = operations if items is None else operations[operations["item"].isin(items)]
    m = ENERGY_MODELS[model]
    return float((kept["mac"] * m.mac + kept["ac"] * m.ac).sum()) * 1e-12


def radio_joules(bits: float, radio: str = "Wi-Fi") -> float:
    """Joules to send ``bits``, by the slope of a measured power model: one mW for each Mbit/s is one nJ a bit.

    Raises:
        ValueError: for a radio that is not in the table ``radio_energy``.
    """
    rows = published("radio_energy").set_index("radio")
    check_choice("radio", radio, list(rows.index))
    return bits * float(rows.loc[radio, "milliwatts_per_mbps"]) * 1e-9


def block_rates(net: Network, batches) -> pd.DataFrame:
    """Firing rates block by block, in evaluation.

    Args:
        net: spiking ResNet, or the device half of one; it keeps its mode and its statistics.
        batches: (x, y) pairs.

    Returns:
        Columns ``block`` (name within the body; neurons between stem and first block belong to the first), ``rate``
        (spikes per neuron and step of its neurons) and ``cumulative_rate`` (of all neurons up to here: the paper's
        f_r).
    """
    modules, sums = list(dict(net.body.named_children())), {}
    before = modules[: modules.index(block_names(net)[0])]

    def note(name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        block = name.split(".")[1]
        row = sums.setdefault(block_names(net)[0] if block in before else block, [0.0, 0.0])
        row[0] += output.count_nonzero().item()
        row[1] += output.numel()

    with evaluating(net), torch.no_grad(), observe(net, neuron=note):
        for x, _ in batches:
            net(x)
    table = pd.DataFrame(sums, index=["spikes", "slots"]).T.rename_axis("block").reset_index()
    summed = table[["spikes", "slots"]].cumsum()
    rates = {"rate": table["spikes"] / table["slots"], "cumulative_rate": summed["spikes"] / summed["slots"]}
    return table[["block"]].assign(**rates)


def ratios(snn: pd.DataFrame, ann: pd.DataFrame, models: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """E_ANN/E_SNN as in the paper (blocks only) and with every operation counted.

    Args:
        snn: operations of the spiking device part.
        ann: those of the ANN's.
        models: label → names in ``ENERGY_MODELS`` of the hardware of the SNN and of the ANN.

    Returns:
        Columns ``hardware`` (label), ``paper``, ``everything`` (ratios).
    """
    rows = []
    for label, (for_snn, for_ann) in models.items():
        pairs = [joules(ann, for_ann, items) / joules(snn, for_snn, items) for items in (("blocks",), None)]
        rows.append((label, *pairs))
    return pd.DataFrame(rows, columns=["hardware", "paper", "everything"])
