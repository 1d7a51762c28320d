"""Table 3 of SpikeBottleNet: energies of its ResNet-50 as printed, and with more and more counted, up to everything.

Both rows of ratios in the table stand for the same firing rate, f_r = E_MAC / (E_AC · T · ratio).
"""

from __future__ import annotations

from math import prod

import pandas as pd

from ..counts import count
from ..memory import memory_joules
from ..network import Network
from ..papers import table as published
from . import baseline
from .backbone import split_points
from .codec import codec
from .energy import ITEMS, ann_joules, dense, estimated, implied_rate, joules, radio_joules, snn_joules
from .memory import bytes_moved
from .sizes import Shape


def published_rates() -> pd.DataFrame:
    """f_r that the two rows of ratios of Table 3 stand for.

    Returns:
        Columns ``split_point``, ``time_steps``, ``rate`` (from the 45 nm row) and ``rolls_rate``.
    """
    rows = published("spikebottlenet_table3")
    for column, source, model in (("rate", "ratio", "45nm_fp32"), ("rolls_rate", "rolls_ratio", "rolls")):
        pairs = zip(rows[source], rows["time_steps"], strict=True)
        rows[column] = [implied_rate(ratio, T, model) for ratio, T in pairs]
    return rows[["split_point", "time_steps", "rate", "rolls_rate"]]


def as_in_the_paper(points: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Table 3: energies up to each split point.

    Args:
        points: from :func:`snnbook.bottleneck.backbone.split_points`.
        rates: columns ``split_point``, ``time_steps``, ``rate``.

    Returns:
        Columns ``split_point``, ``time_steps``, ``rate``, ``ann_millijoules``, ``snn_millijoules``, ``ratio``,
        ``rolls_millijoules``, ``rolls_ratio``.
    """
    table = points[["split_point", "cumulative_macs"]].merge(rates[["split_point", "time_steps", "rate"]])
    rows = []
    for p in table.itertuples():
        ann = 1e3 * ann_joules(p.cumulative_macs)
        snn, rolls = (
            1e3 * snn_joules(p.cumulative_macs, p.rate, p.time_steps, model) for model in ("45nm_fp32", "rolls")
        )
        rows.append((p.split_point, p.time_steps, p.rate, ann, snn, ann / snn, rolls, ann / rolls))
    columns = ["split_point", "time_steps", "rate", "ann_millijoules", "snn_millijoules", "ratio"]
    return pd.DataFrame(rows, columns=[*columns, "rolls_millijoules", "rolls_ratio"])


def accounts(
    snn: Network,
    ann: Network,
    shape: Shape,
    cuts: pd.DataFrame,
    models: tuple[str, str] = ("45nm_fp32", "45nm_fp32"),
    radio: str = "Wi-Fi",
    memory: str = "1 MB SRAM",
) -> pd.DataFrame:
    """Energy of the device's part item by item, for both methods at every split point.

    The radio sends the bits of the payload, without a message's header. Memory is the traffic of
    :func:`snnbook.bottleneck.memory.bytes_moved`, in words of 8 bits for integers and of 32 otherwise.

    Args:
        snn: spiking ResNet; its ``time_steps`` are set to those of each cut on the way.
        ann: the ANN twin.
        shape: input (C, H, W).
        cuts: ``split_point``, ``time_steps``, ``stride``, ``snn_channels``, ``ann_channels`` and ``rate`` (f_r).
        models: names in ``ENERGY_MODELS`` for the SNN's hardware and the ANN's.
        radio: name in the table ``radio_energy``.
        memory: through which all bytes go, a name that :func:`snnbook.memory.memory_joules` knows.

    Returns:
        Columns ``split_point``, ``network`` (ANN, SNN), ``item`` (of ``ITEMS``, or ``radio`` or ``memory``),
        ``millijoules``.
    """
    points, first, rows = split_points(ann, shape), count(ann, shape).iloc[0], []
    stem, sizes, before = int(first["macs"]), (prod(shape), prod(first["output"])), snn.time_steps
    for cut in cuts.itertuples():
        snn.time_steps = cut.time_steps
        sent = codec(snn, shape, cut.split_point, cut.snn_channels, cut.stride)[1]
        codes = baseline.codec(ann, shape, cut.split_point, cut.ann_channels, cut.stride)[1]
        sides = (
            ("ANN", dense(points, codes, stem), codes, models[1]),
            ("SNN", estimated(points, sent, cut.rate, stem), sent, models[0]),
        )
        for network, operations, report, model in sides:
            for item in operations["item"]:
                rows.append((cut.split_point, network, item, 1e3 * joules(operations, model, (item,))))
            rows.append((cut.split_point, network, "radio", 1e3 * radio_joules(report.bits, radio)))
            moved = bytes_moved(points, report, *sizes, network == "SNN", 8 if model.endswith("_int8") else 32)
            rows.append((cut.split_point, network, "memory", 1e3 * memory_joules(moved, memory)))
    snn.time_steps = before
    return pd.DataFrame(rows, columns=["split_point", "network", "item", "millijoules"])


def device_work(snn: Network, ann: Network, shape: Shape, cuts: pd.DataFrame) -> pd.Series:
    """Millijoules of all operations of the spiking device up to each cut; arguments as :func:`accounts`.

    Returns:
        A series over the split points.
    """
    table = accounts(snn, ann, shape, cuts)
    counted = table[(table["network"] == "SNN") & table["item"].isin(ITEMS)]
    return counted.groupby("split_point")["millijoules"].sum()


def cut_lines(snn: Network, ann: Network, shape: Shape, image_bytes: int = 3072) -> pd.DataFrame:
    """Every place to cut the paper's network, as the two numbers that make a line over the price of a bit.

    A cut takes the T and the payload of Table 1. Computing everything is listed at both T of the paper, with the f_r
    that Table 3 has at the last split point of this T: as rates fall with depth, an upper estimate at T = 2, where that
    is block 14. The encoder of the last cut, a thousandth of the work, stands in for the classifier.

    Args:
        snn: the spiking ResNet-50 of the paper.
        ann: its ANN twin.
        shape: input (C, H, W).
        image_bytes: bytes of the raw image.

    Returns:
        Columns ``cut`` (label), ``time_steps`` (0 for the image), ``millijoules`` (of the device's operations) and
        ``bits`` (that it sends; 8 for the label of a class).
    """
    cuts = published("spikebottlenet_table1").merge(published_rates())
    work = device_work(snn, ann, shape, cuts)
    rows = [("send the image", 0, 0.0, 8 * image_bytes)]
    rows += [(f"cut behind {c.split_point}", c.time_steps, work[c.split_point], 8 * c.snn_bytes)
             for c in cuts.itertuples()]  # fmt: skip
    for T, rate in cuts.groupby("time_steps")["rate"].last().sort_index(ascending=False).items():
        whole = cuts.tail(1).assign(time_steps=T, rate=rate)
        rows.append((f"compute everything, T = {T}", T, device_work(snn, ann, shape, whole).iloc[0], 8))
    return pd.DataFrame(rows, columns=["cut", "time_steps", "millijoules", "bits"])


#: What a ratio counts, from the paper's way to everything.
SCOPES = {
    "paper": ("blocks",),
    "+ shortcuts": ("blocks", "shortcuts"),
    "+ stem, encoder": ("blocks", "shortcuts", "stem", "encoder"),
    "+ neurons": ITEMS,
    "+ radio": (*ITEMS, "radio"),
    "+ memory": (*ITEMS, "radio", "memory"),
}


def scoped_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """E_ANN/E_SNN with more and more counted: ``split_point`` and a column for each of ``SCOPES``."""
    columns = {}
    for scope, items in SCOPES.items():
        sums = table[table["item"].isin(items)].groupby(["split_point", "network"])["millijoules"].sum().unstack()
        columns[scope] = sums["ANN"] / sums["SNN"]
    return pd.DataFrame(columns).reset_index()
