"""EC-SNN's own figures, recomputed from what it prints: what its headline numbers are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ..counts import count, parameters
from ..models import build
from ..papers import table
from ..splitting.submodel import with_fresh_head


def latency_savings() -> pd.DataFrame:
    """Mean of (SNN − EC-SNN) / SNN over data sets and models of Figs 7 and 8: the paper's −60.7 % has one device.

    Returns:
        Columns ``n_devices``, ``cells`` (averaged), ``saving`` (percent), ``slower`` (cells that are slower than with
        one device).
    """
    single = table("ecsnn_single").set_index(["dataset", "model"])
    several = table("ecsnn_devices").set_index(["dataset", "model"])
    rows = [(1, single["ec_seconds"])] + [(n, part["seconds"]) for n, part in several.groupby("n_devices")]
    found = []
    for n, seconds in rows:
        seconds = seconds.reindex(single.index)
        saving = 100 * (1 - seconds / single["snn_seconds"])
        found.append((n, len(saving), saving.mean(), int((seconds > single["ec_seconds"]).sum())))
    return pd.DataFrame(found, columns=["n_devices", "cells", "saving", "slower"])


#: Data sets whose input is the same at every step, so that an ANN needs one pass.
STATIC = ("CIFAR-10", "Caltech101", "GTZAN", "UrbanSound8K")


def savings_once(time_steps: int = 5) -> pd.DataFrame:
    """Fig 3 with the ANN counted once instead of T times: 1 − T (1 − saving), in percent; static data sets only.

    Returns:
        Columns ``dataset``, ``model``, ``snn``, ``ec`` (as printed), ``snn_once``, ``ec_once``.
    """
    printed = table("ecsnn_single").query("dataset in @STATIC").rename(columns={"snn_saving": "snn", "ec_saving": "ec"})
    once = {f"{c}_once": 100 - time_steps * (100 - printed[c]) for c in ("snn", "ec")}
    return printed[["dataset", "model", "snn", "ec"]].assign(**once)


def outputs(name: str, shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    """Outputs of all convolutions of a network: the most that one ANN pass can count as ATSAN."""
    rows = count(build(name, shape=shape), shape)
    return sum(math.prod(output) for output in rows["output"] if len(output) == 3)


def new_head_only(
    models: Sequence[str] = ("vgg5", "vgg9", "vgg16"), shape: tuple[int, int, int] = (3, 32, 32), n_classes: int = 10
) -> pd.DataFrame:
    """Size reduction in percent if no filter is pruned and only the head is replaced by EC-SNN's new one.

    Args:
        models: names of architectures.
        shape: input (C, H, W).
        n_classes: K; with one device the new head has K + 1 outputs.

    Returns:
        Columns ``model``, ``features``, ``head``, ``new_head`` (parameters), ``mib`` (features and new head, float32),
        ``reduction``.
    """
    rows = []
    for name in models:
        net = build(name, "lif", n_classes=n_classes, shape=shape, time_steps=1, head="mlp")
        whole, head = parameters(net), parameters(net.head)
        new = parameters(with_fresh_head(net, n_classes).head)
        left = whole - head + new
        rows.append((name, whole - head, head, new, 4 * left / 2**20, 100 * (1 - left / whole)))
    return pd.DataFrame(rows, columns=["model", "features", "head", "new_head", "mib", "reduction"])
