"""Placements side by side: greedy beside exact over random instances, all rules on one fleet, numbers of devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..checks import check
from . import cost
from .cost import Demand
from .devices import Device, fleet
from .partition import Parts
from .placement import PLACEMENTS, InfeasiblePlacement, assign

#: What a rule is compared by: the name of a total, see :func:`snnbook.splitting.cost.totals`.
MEASURES = ("seconds_with_link", "total_joules_with_link")

#: The exact rules that minimise them.
EXACT = ("min_latency", "min_energy")


def random_instance(
    rng: np.random.Generator, kinds: Sequence[Device], models: int, devices: int
) -> tuple[list[Demand], list[Device]]:
    """Sub-models and a fleet in which memory and energy bind now and then.

    Sub-models take 50 to 200 kB, 20 to 200 MACs a byte and 10 to 100 kbit on the link; devices of random ``kinds``
    have 50 to 300 kB, and energy for one half to four times the mean sub-model.

    Raises:
        ValueError: for no kinds, sub-models or devices.
    """
    check("kinds, models, devices", (len(kinds), models, devices), min(len(kinds), models, devices) >= 1, "at least 1")
    size = rng.integers(50_000, 200_000, models)
    macs, bits = size * rng.uniform(20, 200, models), rng.uniform(1e4, 1e5, models)
    demands = [Demand(f"m{i}", int(b), m, 0, s) for i, (b, m, s) in enumerate(zip(size, macs, bits, strict=True))]
    mean = Demand("mean", 0, float(macs.mean()), 0, float(bits.mean()))
    found = []
    for i in range(devices):
        kind = kinds[rng.integers(len(kinds))]
        budget = cost.joules(mean, kind) * rng.uniform(0.5, 4)
        found.append(replace(kind, name=f"d{i}", memory=int(rng.integers(50_000, 300_000)), energy_budget=budget))
    return demands, found


def gaps(
    kinds: Sequence[Device],
    instances: int,
    models: int,
    devices: int,
    seed: int = 0,
    rules: Sequence[str] = ("tightest_memory", "most_energy"),
    shared: bool = False,
) -> pd.DataFrame:
    """Each rule beside the exact placements, over random instances that have a placement.

    Args:
        kinds: what devices are drawn from.
        instances: how many to draw; those without any placement are left out.
        models: sub-models of each.
        devices: devices of each.
        seed: of the draws.
        rules: greedy rules of ``PLACEMENTS``.
        shared: whether a device may get several sub-models.

    Returns:
        A row for each instance and rule: ``instance``, ``rule``, ``placed``, and for both ``MEASURES`` the ratio to
        the optimum, at least 1 and missing where the rule placed nothing.
    """
    rng, rows = np.random.default_rng(seed), []
    for i in range(instances):
        demands, drawn = random_instance(rng, kinds, models, devices)
        try:
            best = [_total(demands, drawn, r, shared)[m] for r, m in zip(EXACT, MEASURES, strict=True)]
        except InfeasiblePlacement:
            continue
        for rule in rules:
            try:
                found = _total(demands, drawn, rule, shared)
                rows.append((i, rule, True, *(found[m] / b for m, b in zip(MEASURES, best, strict=True))))
            except InfeasiblePlacement:
                rows.append((i, rule, False, np.nan, np.nan))
    return pd.DataFrame(rows, columns=["instance", "rule", "placed", *MEASURES])


def _total(demands: Sequence[Demand], devices: Sequence[Device], rule: str, shared: bool) -> dict[str, float]:
    return cost.totals(cost.per_device(demands, devices, assign(demands, devices, rule, shared)))


def value(
    demands: Sequence[Demand],
    devices: Sequence[Device],
    rule: str = "min_latency",
    measure: str = "seconds_with_link",
    shared: bool = False,
) -> float:
    """One total of the placement by ``rule``, infinite where there is none: what a joint partition minimises."""
    try:
        return _total(demands, devices, rule, shared)[measure]
    except InfeasiblePlacement:
        return float("inf")


def compare(
    demands: Sequence[Demand], devices: Sequence[Device], shared: bool = False, fusion_seconds: float = 0.0
) -> pd.DataFrame:
    """Totals of every rule of ``PLACEMENTS`` on one instance; a row of missing values where a rule finds nothing.

    Returns:
        Column ``rule``, then those of :func:`snnbook.splitting.cost.totals`, also where no rule finds anything.
    """
    rows = []
    for rule in PLACEMENTS:
        try:
            table = cost.per_device(demands, devices, assign(demands, devices, rule, shared))
            rows.append({"rule": rule, **cost.totals(table, fusion_seconds)})
        except InfeasiblePlacement:
            rows.append({"rule": rule})
    return pd.DataFrame(rows, columns=["rule", *cost.TOTALS])


def by_device(demand: Demand, devices: Sequence[Device]) -> pd.DataFrame:
    """Seconds and joules of one sample on each device, whatever its budgets.

    Returns:
        Columns ``device``, ``part``, ``seconds``, ``joules``. Parts: ``every MAC`` (zeros multiplied), ``spikes only``
        (as if the device skipped zeros, at the same rate) and ``link``.
    """
    rows = []
    for d in devices:
        for part, skips in (("every MAC", False), ("spikes only", True)):
            one = replace(d, skips_zeros=skips)
            rows.append((d.name, part, cost.latency_compute(demand, one), cost.joules_compute(demand, one)))
        rows.append((d.name, "link", cost.latency_link(demand, d), cost.joules_link(demand, d)))
    return pd.DataFrame(rows, columns=["device", "part", "seconds", "joules"])


def by_number(
    score: Callable[[Parts, float], Sequence[Demand]],
    parts: Callable[[int], Parts],
    counts: Sequence[int],
    zeta: float,
    profile: str,
    whole: Demand,
) -> pd.DataFrame:
    """A network on one device, pruned on one device (N = 1), and pruned and split over more of the same kind.

    Budgets are not held: what does not fit is shown all the same.

    Args:
        score: (parts, ζ) → demands.
        parts: N → classes of each sub-model.
        counts: values of N.
        zeta: ζ.
        profile: of every device.
        whole: what the network asks for that is neither pruned nor split.

    Returns:
        Column ``case`` (unsplit, "pruned, N = 1", "split, N = ..."), then totals, see
        :func:`snnbook.splitting.cost.totals`.
    """
    rows = [{"case": "unsplit", **cost.totals(cost.per_device([whole], fleet(profile, 1), [0]))}]
    for n in counts:
        demands = score(parts(n), zeta)
        table = cost.per_device(demands, fleet(profile, n), list(range(n)))
        rows.append({"case": f"{'pruned' if n == 1 else 'split'}, N = {n}", **cost.totals(table)})
    return pd.DataFrame(rows)
