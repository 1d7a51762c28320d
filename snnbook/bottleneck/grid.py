"""Bytes and energy of every split point for many channels and T at once, in closed form.

As :func:`snnbook.bottleneck.table3.accounts` without memory, and without building a codec for each cut: what a codec
costs follows from its shapes alone. f_r is taken as given for each split point, whatever T is.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pandas as pd
import torch
from torch import nn

from ..checks import check, check_choice
from ..energy import ENERGY_MODELS
from .codec import expansion, reduced_shape, reduction, report
from .energy import dense, estimated, radio_joules
from .sizes import Report
from .table3 import SCOPES

#: Method → text. The last is the control: as few bits as the spikes have, without spikes.
METHODS = {"spikes": "spikes", "codes": "ANN, 8-bit codes", "T-bit codes": "ANN, codes of T bits"}


def shapes_only(split_point: int, feature: tuple[int, int, int], channels: int, stride: int, bits: int) -> Report:
    """What a codec sends and computes, from its shapes; no weights are made."""
    payload = reduced_shape(feature, channels, stride)
    with torch.device("meta"):
        both = nn.ModuleList([reduction(feature[0], channels, stride), expansion(channels, feature[0], stride)])
    return report(split_point, feature, payload, bits, both)


def _millijoules(operations: pd.DataFrame, model: str) -> dict[str, float]:
    """Item → millijoules of a table of operations."""
    m = ENERGY_MODELS[model]
    return {o.item: 1e-9 * (o.mac * m.mac + o.ac * m.ac) for o in operations.itertuples()}


def grid(
    points: pd.DataFrame,
    rates: pd.DataFrame,
    shares: Iterable[int],
    time_steps: Iterable[int],
    stem_macs: int,
    model: str = "45nm_fp32",
    radio: str = "Wi-Fi",
) -> pd.DataFrame:
    """Bytes and millijoules of one image on the device, for every split point, share of channels and T.

    Args:
        points: from :func:`snnbook.bottleneck.backbone.split_points`.
        rates: ``split_point`` and ``rate``, f_r up to there.
        shares: one of so many channels is sent, without spatial reduction.
        time_steps: T, up to 8 (codes have as many bits).
        stem_macs: MACs of the stem.
        model: name in ``ENERGY_MODELS``.
        radio: name in the table ``radio_energy``.

    Returns:
        Columns ``split_point``, ``share``, ``time_steps``, ``method`` (of ``METHODS``), ``scope`` (of
        :data:`snnbook.bottleneck.table3.SCOPES` without memory), ``bytes``, ``millijoules``.

    Raises:
        ValueError: for a T that is not 1 to 8, or a share above the channels of a split point.
    """
    f_r, steps, rows = rates.set_index("split_point")["rate"], list(time_steps), []
    check("time_steps", steps, all(t in range(1, 9) for t in steps), "numbers from 1 to 8")
    check_choice("model", model, ENERGY_MODELS)
    per_bit = 1e3 * radio_joules(1, radio)
    for share, p, T in product(shares, points.itertuples(), steps):
        for method, bits in zip(METHODS, (T, 8, T), strict=True):
            sent = shapes_only(p.split_point, (p.channels, p.height, p.width), p.channels // share, 1, bits)
            spiking = method == "spikes"
            rate = (f_r[p.split_point],) if spiking else ()
            operations = (estimated if spiking else dense)(points, sent, *rate, stem_macs)
            each = _millijoules(operations, model) | {"radio": per_bit * sent.bits}
            for scope, items in ((s, i) for s, i in SCOPES.items() if set(i) <= set(each)):
                rows.append((p.split_point, share, T, method, scope, sent.bytes, sum(each[i] for i in items)))
    columns = ["split_point", "share", "time_steps", "method", "scope", "bytes", "millijoules"]
    return pd.DataFrame(rows, columns=columns)
