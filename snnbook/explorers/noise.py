"""Bit error rate against accuracy, for bits as they are and behind error-correcting codes."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from .table import Explorer, Key, Panel, Reference

BARE = "bits as they are"


def _coded(coded: pd.DataFrame, rate: float) -> pd.DataFrame:
    return coded[coded["rate"] == rate].assign(protection=f"checksum and code of rate {rate:g}")


def noise(
    label: str,
    sweep: pd.DataFrame,
    coded: pd.DataFrame,
    published: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    n_classes: int,
    level: str = "Bit error rate",
) -> Explorer:
    """The explorer of noisy links.

    Args:
        label: what the reader's own run is called.
        sweep: columns ``network``, ``bits``, ``level``, ``accuracy`` (0 to 1), a row for each draw; the mean is shown.
        coded: columns ``network``, ``rate``, ``bits``, ``level``, ``accuracy`` (0 to 1), of protected payloads.
        published: label → columns ``method``, ``bits`` (may be missing), ``level``, ``accuracy`` in percent.
        names: network → text.
        n_classes: of the own run, for the line of chance.
        level: what the level of noise is.

    Raises:
        ValueError: if a table lacks a column or a value.
    """
    mean = sweep.groupby(["network", "level"], as_index=False, sort=False)[["bits", "accuracy"]].mean()
    rates = sorted(coded["rate"].unique(), reverse=True)
    ours = pd.concat([mean.assign(protection=BARE), *(_coded(coded, rate) for rate in rates)])
    ours = ours.assign(run=label, accuracy=lambda t: 100 * t["accuracy"])
    ours["network"] = [names.get(n, "JPEG" if n == "jpeg" else n) for n in ours["network"]]
    others = [t.rename(columns={"method": "network"}).assign(run=n, protection=BARE) for n, t in published.items()]
    columns = ["run", "protection", "network", "level", "accuracy", "bits"]
    rows = pd.concat([ours[columns], *(t[columns] for t in others)], ignore_index=True)
    return Explorer(
        "noise",
        f"{level} against accuracy",
        rows,
        (
            Key("run", "Run"),
            Key("protection", "Protection"),
            Key("network", "network", ""),
            Key("level", level, "slider", start=0.1 if (mean["level"] == 0.1).any() else None),
        ),
        "level",
        "network",
        (
            Panel("accuracy", "test accuracy, %", 1, low=0, high=100),
            Panel(
                "bits",
                "bits on the link, a sample",
                0,
                log=True,
                low=rows["bits"].min() / 2,
                high=rows["bits"].max() * 2,
            ),
        ),
        f"{level} {{level}}, {{protection}}:",
        "{network} {accuracy} % (bits: {bits})",
        (Reference("accuracy", "chance", 100 / n_classes, {"run": label}),),
    )
