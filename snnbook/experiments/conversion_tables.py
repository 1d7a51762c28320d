"""What :mod:`~snnbook.experiments.conversion_benchmark` measured, summed up, with recorded runs among it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..energy import energy_ratio
from ..runs import ROOT, recorded


def with_energy(table: pd.DataFrame, ann_mac: float, model: str, within: float | None = None) -> pd.DataFrame:
    """``table`` with E_SNN/E_ANN: ``ratio`` as papers count, ``all_ratio`` with everything.

    Args:
        table: from :func:`snnbook.experiments.conversion_benchmark.benchmark`.
        ann_mac: MACs of the ANN, padding included as is usual.
        model: name in ``ENERGY_MODELS``.
        within: MACs of the ANN without those on padding, which spikes never meet. With it there is ``fair_ratio`` too,
            everything against an ANN that skips padding as the spiking network does.
    """
    rows = table.itertuples()
    both = [
        (energy_ratio(r.mac, r.ac, ann_mac, model), energy_ratio(r.all_mac, r.all_ac, ann_mac, model)) for r in rows
    ]
    table = table.assign(ratio=[a for a, _ in both], all_ratio=[b for _, b in both])
    return table if within is None else table.assign(fair_ratio=table["all_ratio"] * ann_mac / within)


def over_time(table: pd.DataFrame, column: str = "accuracy", scale: float = 100.0) -> pd.DataFrame:
    """Mean over seeds of one column times ``scale``: ``method``, ``ANN`` accuracy, a column for each T."""
    wide = table.pivot_table(index="method", columns="time_steps", values=column, sort=False) * scale
    wide = wide[sorted(wide.columns)]
    wide.columns = [f"T = {t}" for t in wide.columns]
    wide.insert(0, "ANN", 100 * table.groupby("method", sort=False)["ann_accuracy"].mean())
    return wide.reset_index()


def efficient(table: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Rows that no other row beats: none with a higher accuracy has a ``cost`` that is as low (Pareto front)."""
    ordered = table.sort_values([cost, "accuracy"], ascending=[True, False])
    return ordered[ordered["accuracy"] > ordered["accuracy"].cummax().shift(fill_value=-1.0)]


def best_within(table: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """The most accurate method on validation images, mean over seeds, that takes no more than so many steps in all.

    Returns:
        Columns ``total_steps`` (the budget), ``method``, ``time_steps``, ``validation_accuracy``, ``accuracy`` (of test
        images); of equals the one with fewer steps, and budgets that no method keeps are left out.
    """
    columns = ["accuracy", "validation_accuracy"]
    mean = table.groupby(["method", "time_steps", "total_steps"], sort=False)[columns].mean().reset_index()
    ordered = mean.sort_values(["validation_accuracy", "total_steps"], ascending=[False, True], kind="stable")
    rows = [ordered[ordered["total_steps"] <= budget].head(1).assign(total_steps=budget) for budget in budgets]
    return pd.concat(rows, ignore_index=True)[["total_steps", "method", "time_steps", *columns[::-1]]]


def recorded_runs(notebook: str, folder: Path | str = "results/conversion") -> dict[str, tuple[dict, dict]]:
    """Recorded runs of ``notebook`` in the sub-folders of ``folder``: name to manifest and tables, by name.

    Args:
        notebook: name without ending.
        folder: absolute, or relative to the checkout.

    Raises:
        ValueError: if a table does not have the checksum of its manifest.
    """
    found = {path.parent.name: recorded(path.parent) for path in sorted((ROOT / folder).glob("*/run.json"))}
    return {name: run for name, run in found.items() if run[0]["notebook"] == notebook}


def together(found: dict[str, tuple[dict, dict]]) -> dict[str, tuple[dict, dict]]:
    """Recorded runs of a benchmark with runs on the same networks made one, under the name of the first of them.

    Runs have the same networks if all of their parameters agree but the methods, the numbers of steps and folders.

    Args:
        found: from :func:`recorded_runs`.

    Returns:
        The same, with the manifest of the first run and one table ``benchmark``; a point that was measured twice is
        that of the first.
    """
    apart, groups = ("methods", "time_steps", "out_dir", "data_dir", "device"), {}
    for name, (manifest, tables) in found.items():
        same = {k: v for k, v in manifest["parameters"].items() if k not in apart}
        first = next((n for n, (other, _, _) in groups.items() if other == same), name)
        groups.setdefault(first, (same, manifest, []))[2].append(tables["benchmark"])
    point = ["method", "time_steps", "seed"]
    return {name: (manifest, {"benchmark": pd.concat(parts, ignore_index=True).drop_duplicates(point)})
            for name, (_, manifest, parts) in groups.items()}  # fmt: skip


def recorded_over_time(
    found: dict[str, tuple[dict, dict]], table: str = "benchmark", column: str = "accuracy", scale: float = 100.0
) -> pd.DataFrame:
    """:func:`over_time` of every recorded run with ``run``, ``dataset`` and ``model`` before it; empty without runs.

    Args:
        found: from :func:`recorded_runs`.
        table: name of the recorded table.
        column: what to show.
        scale: factor on it.
    """
    parts = []
    for name, (manifest, tables) in found.items():
        wide = over_time(tables[table], column, scale)
        for i, key in enumerate(("dataset", "model")):
            wide.insert(i, key, manifest["parameters"][key])
        wide.insert(0, "run", name)
        parts.append(wide)
    if not parts:
        return pd.DataFrame()
    rows = pd.concat(parts, ignore_index=True)
    times = sorted((c for c in rows.columns if c.startswith("T = ")), key=lambda c: int(c[4:]))
    return rows[[c for c in rows.columns if c not in times] + times]


def beside_published(published: pd.DataFrame, lost: pd.DataFrame) -> pd.DataFrame:
    """Conversion loss in points of the methods and numbers of steps that two tables share, side by side.

    Args:
        published: accuracies in percent, with ``method``, ``ANN`` and a column for each T, as from
            :func:`snnbook.papers.over_time`.
        lost: losses in points of one run, with ``method`` by the same names and a column for each T, as from
            :func:`recorded_over_time`.

    Returns:
        ``method``, and for each T "T = 4, published" and "T = 4, here", as positive numbers where the SNN is worse.
    """
    theirs, ours = published.set_index("method"), lost.set_index("method")
    methods = [m for m in theirs.index if m in ours.index]
    times = [c for c in theirs.columns if c.startswith("T = ") and c in ours.columns]
    columns = {}
    for t in times:
        columns[f"{t}, published"] = (theirs["ANN"] - theirs[t])[methods]
        columns[f"{t}, here"] = ours.loc[methods, t]
    return pd.DataFrame(columns, index=pd.Index(methods, name="method")).reset_index()
