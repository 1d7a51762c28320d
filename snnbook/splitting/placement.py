"""Which device gets which sub-model: the greedy of EC-SNN, and the exact optimum as a mixed-integer program.

A placement keeps the weights of a device within its memory, and the joules per sample of what runs on it, with
transmission, within its budget. Algorithm 1 of EC-SNN tries thresholds ζ from ζ0 downwards until all sub-models are
placed; as printed it neither gives devices back before it tries again nor ends (:func:`as_printed`). :func:`place`
is its completion.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp

from ..checks import check, check_choice
from . import cost
from .cost import Demand
from .devices import Device

#: Seconds after which the exact placement gives up proving that nothing is better.
TIME_LIMIT = 60.0

#: Objective of the exact placement → what a pair of sub-model and device adds to it.
PRICES = {"latency": cost.latency, "energy": cost.joules, "devices": lambda one, device: 0.0}


class InfeasiblePlacement(ValueError):
    """No placement: says which sub-model needs how much of what, and what the devices have.

    Attributes:
        table: of :func:`shortage` for the last sub-models that were tried.
    """

    def __init__(self, message: str, table: pd.DataFrame) -> None:
        super().__init__(message)
        self.table = table


def _needs(demands: Sequence[Demand], devices: Sequence[Device]) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and joules of each sub-model on each device [S, D]."""
    size = np.repeat(np.array([[float(s.bytes)] for s in demands]).reshape(-1, 1), len(devices), axis=1)
    return size, cost.matrix(cost.joules, demands, devices)


def _budgets(devices: Sequence[Device]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([d.memory for d in devices], float), np.array([d.energy_budget for d in devices], float)


def _loads(demands: Sequence[Demand], devices: Sequence[Device]) -> zip:
    """Bytes and then joules: what is needed [S, D] and what devices have [D]."""
    return zip(_needs(demands, devices), _budgets(devices), strict=True)


def within_budget(demands: Sequence[Demand], devices: Sequence[Device], assignment: Sequence[int]) -> bool:
    """Whether no device gets more bytes than it has memory, or more joules per sample than its budget."""
    where = np.arange(len(demands)), np.asarray(assignment, int)
    loads = _loads(demands, devices)
    return all((np.bincount(where[1], need[where], len(devices)) <= has).all() for need, has in loads)


def shortage(demands: Sequence[Demand], devices: Sequence[Device]) -> pd.DataFrame:
    """Every sub-model on every empty device.

    Returns:
        Columns ``sub_model``, ``device``, ``bytes`` (needed), ``memory``, ``joules`` (needed per sample),
        ``energy_budget``, ``fits``.
    """
    size, energy = _needs(demands, devices)
    memory, budget = _budgets(devices)
    rows = [
        (s.name, d.name, size[i, j], memory[j], energy[i, j], budget[j])
        for i, s in enumerate(demands)
        for j, d in enumerate(devices)
    ]
    table = pd.DataFrame(rows, columns=["sub_model", "device", "bytes", "memory", "joules", "energy_budget"])
    return table.assign(fits=(table["bytes"] <= table["memory"]) & (table["joules"] <= table["energy_budget"]))


def _range(values: pd.Series) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


def _first(texts: Sequence[str], between: str, most: int = 8) -> str:
    """The first texts of many, and how many more there are."""
    return between.join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _offer(devices: Sequence[Device], taken: np.ndarray | None = None) -> str:
    """What devices have beyond the bytes and joules ``taken`` [2, D], as text; of a long fleet the first eight."""
    memory, budget = np.stack(_budgets(devices)) - (0 if taken is None else taken)
    rows = zip([d.name for d in devices], memory, budget, strict=True)
    return _first([f"{name}: {size:.0f} bytes, {energy:.3g} J per sample" for name, size, energy in rows], "; ")


def _stuck(one: Demand, devices: Sequence[Device], free: np.ndarray, taken: np.ndarray) -> str:
    """Why greedy cannot go on with sub-model ``one``: what it needs, and what is left where on ``free`` devices."""
    left = [d for d, ok in zip(devices, free, strict=True) if ok]
    energy = _range(pd.Series([cost.joules(one, d) for d in left]))  # differs between devices
    need = f"{one.name} needs {one.bytes:.0f} bytes and {energy} J per sample"
    return f"largest first, greedy gets stuck: {need}, and what is left is {_offer(left, taken[:, free])}"


def _together(table: pd.DataFrame, shared: bool) -> str:
    """Why sub-models of a :func:`shortage` that fit alone do not all fit: needs of each, and sums above a budget.

    Where devices are shared there is such a sum: otherwise each device could have all that fit on it.
    """
    fits, sums = table[table["fits"]], []
    need = [
        f"{name} needs {rows['bytes'].iloc[0]:.0f} bytes and {_range(rows['joules'])} J per sample, "
        f"fits on {_first(list(rows['device']), ', ')}"
        for name, rows in fits.groupby("sub_model", sort=False)
    ]
    for device, rows in fits.groupby("device", sort=False):
        for what, has, unit in (("bytes", "memory", "bytes"), ("joules", "energy_budget", "J per sample")):
            total, limit = rows[what].sum(), rows[has].iloc[0]
            if shared and total > limit:
                sums.append(f"all that fit on {device} need {total:.9g} {unit} together, and it has {limit:.9g}")
    return "; ".join(_first(texts, "; ") for texts in (need, sums) if texts)


def _explain(
    demands: Sequence[Demand], devices: Sequence[Device], shared: bool, stuck: str = ""
) -> InfeasiblePlacement:
    """The error for sub-models that cannot all be placed; ``stuck`` where they might be, but by another rule."""
    table = shortage(demands, devices)
    fits = table.groupby("sub_model", sort=False)["fits"].any()
    homeless = table[table["sub_model"].isin(fits.index[~fits])]
    parts = [
        f"{name} needs {rows['bytes'].iloc[0]:.0f} bytes and {_range(rows['joules'])} J per sample: no device has that"
        for name, rows in homeless.groupby("sub_model", sort=False)
    ]
    if not parts and stuck:
        parts = [stuck]
    elif not parts:
        several = "several on one device" if shared else "one on each device"
        why = f"each of {len(demands)} sub-models fits somewhere, but not all together ({several})"
        parts = [f"{why}: {_together(table, shared)}"]
    return InfeasiblePlacement(f"{'; '.join(parts)}. Devices: {_offer(devices)}", table)


def _check_numbers(demands: Sequence[Demand], devices: Sequence[Device], shared: bool) -> None:
    """ValueError for no devices, InfeasiblePlacement for more sub-models than can have one each."""
    check("devices", len(devices), len(devices) >= 1, "at least one device")
    if not shared and len(demands) > len(devices):
        some = f"{len(devices)} device{'s' * (len(devices) > 1)}"
        why = f"{len(demands)} sub-models, {some} and one on each: share devices or add some"
        raise InfeasiblePlacement(f"{why}. Devices: {_offer(devices)}", shortage(demands, devices))


def greedy(
    demands: Sequence[Demand], devices: Sequence[Device], shared: bool = False, prefer: str = "memory"
) -> list[int]:
    """Largest sub-model first, each on the feasible device that ``prefer`` names; nothing is ever taken back.

    Args:
        demands: sub-models.
        devices: the fleet.
        shared: whether a device may get several sub-models; one each in EC-SNN.
        prefer: ``memory``: least memory left over (tightest fit). ``energy``: most of its energy budget left over.

    Returns:
        Device of each sub-model.

    Raises:
        InfeasiblePlacement: when a sub-model finds no device: which, what it needs and what is left where. Another
            order might have worked.
        ValueError: for no devices.
    """
    check_choice("prefer", prefer, ("memory", "energy"))
    _check_numbers(demands, devices, shared)
    size, energy = _needs(demands, devices)
    memory, budget = _budgets(devices)
    taken, assignment = np.zeros((2, len(devices))), [-1] * len(demands)
    free = np.ones(len(devices), bool)
    for i in sorted(range(len(demands)), key=lambda i: -demands[i].bytes):
        load = taken + np.stack([size[i], energy[i]])
        possible = free & (load[0] <= memory) & (load[1] <= budget)
        if not possible.any():
            raise _explain(demands, devices, shared, _stuck(demands[i], devices, free, taken))
        rank = memory - load[0] if prefer == "memory" else load[1] / budget
        candidates = np.flatnonzero(possible)  # rank may be infinite
        best = int(candidates[rank[candidates].argmin()])
        assignment[i], taken[:, best] = best, load[:, best]
        free[best] = shared
    return assignment


def _program(objective: str, demands, devices, shared: bool, usable: np.ndarray, price: np.ndarray):
    """Arguments of ``milp`` over x[s, d], flat, and what the objective adds (t, or y[d]).

    ``price`` [S, D] is divided by its largest value among ``usable`` pairs: the solver's tolerances are absolute.
    """
    shares = [np.where(usable, need / has, 0) for need, has in _loads(demands, devices)]
    price = np.where(usable, price, 0)
    price = price / (price.max() or 1)
    n, d = usable.shape
    own = {"latency": 1, "energy": 0, "devices": d}[objective]

    def on_device(values):  # Σ_s values[s, d] x[s, d] [D, S·D]
        return np.tile(np.eye(d), n) * values.ravel()

    def of_model(values):  # Σ_d values[s, d] x[s, d] [S, S·D]
        return np.kron(np.eye(n), np.ones(d)) * values.ravel()

    def rows(x, low, high, extra=0.0):
        extra = np.broadcast_to(extra, (len(x), own)) if np.isscalar(extra) else extra
        return LinearConstraint(np.hstack([x, extra]), low, high)

    ones = np.ones((n, d))
    constraints = [rows(of_model(ones), 1, 1)]
    constraints += [rows(on_device(share), -np.inf, 1) for share in shares]
    constraints += [] if shared else [rows(on_device(ones), -np.inf, 1)]
    c, upper, integrality = np.zeros(n * d + own), np.r_[usable.ravel(), np.ones(own)], np.ones(n * d + own)
    if objective == "energy":
        c[:] = price.ravel()
    elif objective == "latency":  # t is at least the time of each device, and of each sub-model alone
        constraints += [rows(part(price), -np.inf, 0, -1.0) for part in (on_device, of_model)]
        c[-1], upper[-1], integrality[-1] = 1, np.inf, 0
    else:  # y[d] is 1 where a device is in use
        constraints += [rows(on_device(share), -np.inf, 0, -np.eye(d)) for share in (*shares, ones / n)]
        c[n * d :] = 1
    return {"c": c, "constraints": constraints, "bounds": Bounds(0, upper), "integrality": integrality}


def _solve(program: dict, cuts: list, demands, devices, options: dict) -> list[int] | None:
    """Device of each sub-model by ``program``, or None; adds to ``cuts`` what the solver's tolerance let pass."""
    n, d = len(demands), len(devices)
    while True:
        given = program | {"constraints": [*program["constraints"], *cuts]}
        found = milp(**given, options=options)
        if found.status == 2:
            return None
        if found.status != 0:
            raise TimeoutError(f"no proven optimum of {n} sub-models on {d} devices: {found.message}")
        assignment = [int(j) for j in found.x[: n * d].reshape(n, d).argmax(1)]
        if within_budget(demands, devices, assignment):
            return assignment
        # The solver's tolerance let a device pass by a hair: exclude what it got, and solve again.
        cuts.append(_without(demands, devices, assignment, len(program["c"])))


def _value(objective: str, price: np.ndarray, assignment: list[int]) -> float:
    """What ``objective`` says of a placement: the largest sum of ``price`` [S, D] on a device, or that of all."""
    sums = np.bincount(assignment, price[np.arange(len(assignment)), assignment])
    return float(sums.max() if objective == "latency" else sums.sum())


def exact(
    demands: Sequence[Demand],
    devices: Sequence[Device],
    shared: bool = False,
    objective: str = "latency",
    gap: float = 0.0,
) -> list[int]:
    """The best placement there is, as a mixed-integer linear program (HiGHS through ``scipy.optimize.milp``).

    min f(x) over x[s, d] ∈ {0, 1} with Σ_d x[s, d] = 1, Σ_s bytes[s] x[s, d] ≤ memory[d] and
    Σ_s joules[s, d] x[s, d] ≤ budget[d], and without sharing Σ_s x[s, d] ≤ 1. The tolerances of the solver are
    about a millionth of the largest price of a pair. So pairs that alone cost more than the placement found are ruled
    out, and the rest is solved again, until none is left: the optimum is then met to a few millionths of its value.

    Args:
        demands: sub-models.
        devices: the fleet.
        shared: whether a device may get several sub-models.
        objective: ``latency``: of the slowest device, link included. ``energy``: joules of all devices together.
            ``devices``: how many are in use.
        gap: relative distance from the optimum that is good enough. To prove an optimum takes long where some twenty
            sub-models share a few devices.

    Returns:
        Device of each sub-model.

    Raises:
        InfeasiblePlacement: if there is none.
        TimeoutError: if the solver does not end in ``TIME_LIMIT`` seconds.
        ValueError: for no devices.
    """
    check_choice("objective", objective, ("latency", "energy", "devices"))
    _check_numbers(demands, devices, shared)
    if not demands:
        return []
    price = cost.matrix(PRICES[objective], demands, devices)
    usable = np.all([need <= has for need, has in _loads(demands, devices)], axis=0)
    best, cuts, end = None, [], time.monotonic() + TIME_LIMIT
    while True:
        program = _program(objective, demands, devices, shared, usable, price)
        options = {"time_limit": max(0.0, end - time.monotonic()), "mip_rel_gap": gap}
        found = _solve(program, cuts, demands, devices, options)
        known = [one for one in (best, found) if one is not None]
        if not known:
            raise _explain(demands, devices, shared)
        best = min(known, key=lambda one: _value(objective, price, one))
        kept = usable & (price <= _value(objective, price, best))  # a pair above it is in no better placement
        if (kept == usable).all():
            return best
        usable = kept


def _without(demands, devices, assignment: list[int], variables: int) -> LinearConstraint:
    """A cut that excludes the loads over budget in ``assignment``: not all of these sub-models on that device."""
    n, d = len(demands), len(devices)
    rows, high = [], []
    for j in set(assignment):
        mine = [i for i in range(n) if assignment[i] == j]
        if not within_budget([demands[i] for i in mine], devices, [j] * len(mine)):
            row = np.zeros(variables)
            row[[i * d + j for i in mine]] = 1
            rows, high = [*rows, row], [*high, len(mine) - 1]
    return LinearConstraint(np.array(rows), -np.inf, high)


@dataclass(frozen=True)
class Rule:
    """A way to place sub-models: ``assign(demands, devices, shared)`` and one line of help."""

    assign: Callable[[Sequence[Demand], Sequence[Device], bool], list[int]]
    help: str


#: Rules of placement by name.
PLACEMENTS = {
    "tightest_memory": Rule(partial(greedy, prefer="memory"), "greedy: the device with the least memory left over"),
    "most_energy": Rule(partial(greedy, prefer="energy"), "greedy: the device with most of its energy budget left"),
    "min_latency": Rule(partial(exact, objective="latency"), "exact: the slowest device as fast as can be"),
    "min_energy": Rule(partial(exact, objective="energy"), "exact: least energy of all devices together"),
    "min_devices": Rule(partial(exact, objective="devices"), "exact: fewest devices"),
}


def assign(
    demands: Sequence[Demand], devices: Sequence[Device], rule: str = "tightest_memory", shared: bool = False
) -> list[int]:
    """Device of each sub-model by a rule of ``PLACEMENTS``.

    Raises:
        ValueError: for an unknown rule, no devices, or names that are not unique.
        InfeasiblePlacement: if the rule finds no placement.
    """
    check_choice("rule", rule, PLACEMENTS)
    for what, named in (("demands", demands), ("devices", devices)):
        names = [x.name for x in named]
        check(what, names, len(set(names)) == len(names), "unique names")
    return PLACEMENTS[rule].assign(demands, devices, shared)


@dataclass(frozen=True)
class Placement:
    """Sub-models on their devices.

    Attributes:
        zeta: the threshold ζ that they were pruned with.
        demands: sub-models.
        devices: the fleet.
        assignment: device of each sub-model, counted from 0.
        tried: columns ``zeta``, ``placed``, ``bytes`` (of all sub-models), one row for each ζ that was tried.
    """

    zeta: float
    demands: list[Demand]
    devices: list[Device]
    assignment: list[int]
    tried: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Costs of each device in use, see :func:`snnbook.splitting.cost.per_device`."""
        return cost.per_device(self.demands, self.devices, self.assignment)

    def totals(self, fusion_seconds: float = 0.0) -> dict[str, float]:
        """Costs of the whole, see :func:`snnbook.splitting.cost.totals`."""
        return cost.totals(self.table(), fusion_seconds)


def _check_steps(zeta0: float, step: float, zeta_min: float) -> None:
    check("step", step, 0 < step < np.inf, "a positive number")
    check("zeta_min", zeta_min, zeta_min <= zeta0, f"at most zeta0 = {zeta0}")
    check("zeta0", zeta0, (zeta0 - zeta_min) / step <= 10_000, "at most 10000 steps above zeta_min")


def place(
    score: Callable[[float], Sequence[Demand]],
    zeta0: float,
    step: float,
    zeta_min: float,
    devices: Sequence[Device],
    rule: str = "tightest_memory",
    shared: bool = False,
) -> Placement:
    """Algorithm 1 of EC-SNN, completed: the largest ζ of ζ0, ζ0 − Δζ, … ≥ ζ_min with which everything is placed.

    Every try starts from free devices with all of their memory and energy.

    Args:
        score: ζ → what the sub-models pruned with it ask for; sizes of masks are enough, nothing need be trained.
        zeta0: first threshold, in percent.
        step: Δζ.
        zeta_min: last threshold.
        devices: the fleet.
        rule: a name of ``PLACEMENTS``.
        shared: whether a device may get several sub-models.

    Raises:
        ValueError: for a step that is not positive, ``zeta_min`` above ``zeta0``, an unknown rule, or a ``score``
            without any sub-model.
        InfeasiblePlacement: if nothing fits with ζ_min either: which sub-model needs what, and what devices have.
    """
    _check_steps(zeta0, step, zeta_min)
    rows, last = [], None
    for zeta in zeta0 - step * np.arange(int(np.floor((zeta0 - zeta_min) / step + 1e-9)) + 1):
        demands = list(score(float(zeta)))
        check("score", demands, bool(demands), "a function that gives at least one sub-model")
        try:
            assignment = assign(demands, devices, rule, shared)
        except InfeasiblePlacement as error:
            last, assignment = error, None
        rows.append((float(zeta), assignment is not None, sum(s.bytes for s in demands)))
        if assignment is not None:
            tried = pd.DataFrame(rows, columns=["zeta", "placed", "bytes"])
            return Placement(float(zeta), demands, list(devices), assignment, tried)
    message = f"no placement by {rule} for zeta from {zeta0:g} down to {rows[-1][0]:g}: {last}"
    raise InfeasiblePlacement(message, last.table)


def as_printed(
    score: Callable[[float], Sequence[Demand]], zeta0: float, step: float, devices: Sequence[Device], tries: int
) -> pd.DataFrame:
    """Algorithm 1 as it is printed, for at most ``tries`` thresholds: devices once taken stay taken, ζ has no end.

    Args:
        score: as in :func:`place`.
        zeta0: first threshold.
        step: Δζ.
        devices: the fleet.
        tries: the printed loop would go on for ever.

    Returns:
        A row for each ζ: ``zeta``, ``free`` (devices when the try starts), ``placed`` (sub-models in this try),
        ``sub_models``, ``done``.
    """
    free, rows = list(devices), []
    for zeta in zeta0 - step * np.arange(tries):
        demands, placed = list(score(float(zeta))), 0
        start = len(free)
        for one in demands:
            fits = [d for d in free if within_budget([one], [d], [0])]
            if not fits:
                break
            free.remove(min(fits, key=lambda d: d.memory))
            placed += 1
        rows.append((float(zeta), start, placed, len(demands), placed == len(demands)))
        if placed == len(demands):
            break
    return pd.DataFrame(rows, columns=["zeta", "free", "placed", "sub_models", "done"])
