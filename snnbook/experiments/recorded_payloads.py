"""Recorded runs of chapter 32 beside what is printed: drops of accuracy, backbones, and how both were trained."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ..papers import table as published
from .paper_payloads import STAGES, drops_from_longer


def beside_published(found: Mapping[str, tuple[dict, dict]]) -> pd.DataFrame:
    """Accuracy drops of Table 1 beside those of recorded runs of this comparison at the same split point and T.

    Args:
        found: name to manifest and tables, from :func:`snnbook.experiments.conversion_tables.recorded_runs`.

    Returns:
        Columns ``split_point``, ``time_steps``, ``published`` (drop, %, nan where Table 1 has another T), and for each
        run on CIFAR-100 with the paper's 16 blocks a column of that name: the drop from its own uncompressed network at
        the same T, in points, nan where it has none.
    """
    table = published("spikebottlenet_table1")[["split_point", "time_steps", "accuracy_drop"]]
    table = table.rename(columns={"accuracy_drop": "published"})
    for name, (manifest, tables) in found.items():
        if _as_in_the_paper(manifest):
            own = tables["cells"][["split_point", "time_steps"]].assign(**{name: 100 * tables["cells"]["drop"]})
            table = table.merge(own, how="outer", on=["split_point", "time_steps"])
    return table.sort_values(["split_point", "time_steps"], ignore_index=True)


def _as_in_the_paper(manifest: dict) -> bool:
    """Whether a run has the data and the blocks of the paper; its width may be another."""
    given = manifest["parameters"]
    return given["dataset"] == "cifar100" and tuple(given["blocks"]) == STAGES


def in_words(found: Mapping[str, tuple[dict, dict]]) -> str:
    """How the networks of recorded runs were trained, and how far their backbones are from the paper's.

    Args:
        found: as for :func:`beside_published`.

    Returns:
        A sentence for each run, or one that says that there is none.
    """
    printed, said = published("spikebottlenet_table2").set_index("time_steps")["accuracy"], []
    for name, (manifest, tables) in found.items():
        given = manifest["parameters"]
        own = 100 * tables["cells"].groupby("time_steps")["backbone_accuracy"].first()
        beside = printed if _as_in_the_paper(manifest) else {}
        reached = [f"{v:.2f} % at T = {T}" + (f" (paper: {beside[T]:.2f} %)" if T in beside else "")
                   for T, v in own.items()]  # fmt: skip
        said.append(f"Run {name}: {given['dataset']}, {given['width']:g} of the width, "
                    f"{_epochs(given['warm_epochs'])} at T = 1 and {given['epochs']} more at its own T, "
                    f"{_epochs(given['fine_tune_epochs'])} with the codec, before it {given['codec_epochs']} of codes "
                    f"on their own; δ = {given['window']:g}, learning rates {given['lr']:g} for spikes, "
                    f"{given['ann_lr']:g} for the ANN, {given['fine_tune_lr']:g} with a codec, labels smoothed by "
                    f"{given['label_smoothing']:g}; its backbone has {', '.join(reached)}.")  # fmt: skip
    return " ".join(said) if said else "No run of it is recorded yet."


def _epochs(n: int) -> str:
    return f"{n} epoch{'s' * (n != 1)}"


def recorded_rows(found: Mapping[str, tuple[dict, dict]], table: str) -> pd.DataFrame:
    """One table of all recorded runs that have it, with ``run``, ``dataset`` and ``width`` in front.

    Args:
        found: as for :func:`beside_published`.
        table: its name.

    Returns:
        The rows; empty where no run has the table.
    """
    have = {name: run for name, run in found.items() if table in run[1]}
    parts = [_in_front(tables[table], name, manifest) for name, (manifest, tables) in have.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _in_front(rows: pd.DataFrame, name: str, manifest: dict) -> pd.DataFrame:
    given = manifest["parameters"]
    about = {"run": name, "dataset": given["dataset"], "width": given["width"]}
    return pd.concat([pd.DataFrame(about, index=rows.index), rows], axis=1)


def recorded_cells(found: Mapping[str, tuple[dict, dict]]) -> pd.DataFrame:
    """:func:`recorded_rows` of :func:`~snnbook.experiments.paper_payloads.cells`.

    ``drop_from_best`` is nan in a run with one T, where it is ``drop``.
    """
    rows = recorded_rows(found, "cells")
    if len(rows):
        several = rows.groupby("run")["time_steps"].transform("nunique") > 1
        rows["drop_from_best"] = rows["drop_from_best"].where(several)
    return rows


def recorded_drops(found: Mapping[str, tuple[dict, dict]]) -> pd.DataFrame:
    """Drops from networks that were trained on, of all recorded runs that have some.

    Returns:
        :func:`~snnbook.experiments.paper_payloads.drops_from_longer` in the form of :func:`recorded_rows`.
    """
    both = {name: (manifest, {"drops": drops_from_longer(tables["cells"], tables["longer"])})
            for name, (manifest, tables) in found.items() if "longer" in tables}  # fmt: skip
    return recorded_rows(both, "drops")


def literature(found: Mapping[str, tuple[dict, dict]]) -> pd.DataFrame:
    """Uncompressed spiking networks on CIFAR-100: published ones, and the backbones of recorded runs.

    Args:
        found: name to manifest and tables, from :func:`snnbook.experiments.conversion_tables.recorded_runs`.

    Returns:
        Columns ``method``, ``network``, one for each T as ``T = …`` (test accuracy, %, nan where there is none) and
        ``source``.
    """
    spikes = published("spikebottlenet_table2").assign(method="SpikeBottleNet's backbone")
    printed = pd.concat([published("spikebottlenet_literature"), spikes])
    printed["source"] += [f"; {note}" if note else "" for note in printed["note"]]
    columns = ["method", "model", "time_steps", "accuracy", "source"]
    parts = [printed[printed["dataset"] == "CIFAR-100"][columns]]
    for name, (manifest, tables) in found.items():
        given = manifest["parameters"]
        if given["dataset"] == "cifar100":
            own = tables["cells"].groupby("time_steps", as_index=False)["backbone_accuracy"].first()
            own["accuracy"] = 100 * own["backbone_accuracy"]
            about = {"method": name, "model": f"{given['model']}, width {given['width']:g}", "source": "recorded"}
            parts.append(own.assign(**about)[columns])
    rows = pd.concat(parts).rename(columns={"model": "network"})
    wide = rows.pivot_table(index=["method", "network", "source"], columns="time_steps", values="accuracy", sort=False)
    wide = wide[sorted(wide.columns)].rename(columns="T = {:d}".format).reset_index().rename_axis(columns=None)
    return wide[[c for c in wide.columns if c != "source"] + ["source"]]
