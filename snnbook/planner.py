"""Which plan to take: compute on the device, send the input, split over devices, or cut the network in two.

A plan is an accuracy and what each edge device does and sends for one sample. With a link of r bit/s that takes
β joules a bit and P watts besides while it sends, a device that computes for c seconds and e joules and sends B bits
takes

    t(r) = c + B/r        E(r) = e + B·(β + P/r)

Both are straight lines in 1/r, so that two plans cross at one rate, and the best of many changes at finitely many
rates, all of which have a closed form. Of several devices the last features count for latency, a maximum of lines.
Energy has three accounts: ``paper`` (what each paper counts, and no radio), ``counted`` (every operation at the energy
of the arithmetic alone, which an event-driven chip would come near to, and the radio) and ``board`` (every MAC, zeros
too, at the energy of a whole board, and the radio).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from .bottleneck.selection import pareto
from .checks import check, check_choice
from .papers import table as published
from .splitting.devices import Device

#: Accounts of energy, with what each counts.
ACCOUNTS = {
    "paper": "what each paper counts at 45 nm; the radio is free",
    "counted": "every operation at 45 nm, and the radio",
    "board": "every MAC at the energy of the whole board, zeros too, and the radio",
}

#: What plans can be compared by; less is better.
MEASURES = ("joules", "busiest_joules", "seconds", "bytes")

#: Families of plans, in the order of figures.
FAMILIES = ("ANN on the device", "SNN on the device", "image to the server", "EC-SNN", "SpikeBottleNet")

#: The family whose images leave the device.
IMAGES = "image to the server"

#: Values of a need that limit nothing.
_FREE = (0.0, math.inf)

#: Bits of an answer: what a device sends that has computed everything.
ANSWER_BITS = 8


@dataclass(frozen=True)
class EdgePart:
    """What one edge device does and sends for one sample, all T steps.

    Attributes:
        dense_macs: multiply–accumulates if zeros are multiplied too.
        bits: sent to the server.
        bytes: weights that the device holds.
        counted_joules: of every operation, arithmetic alone.
        paper_joules: of the operations that the paper counts; not a number where that is not known.
        macs: multiply–accumulates where zeros are skipped; not a number where they are not known.
        acs: accumulates where zeros are skipped, one for each spike and each place it reaches; likewise.
    """

    dense_macs: float
    bits: float
    bytes: float = 0.0
    counted_joules: float = math.nan
    paper_joules: float = math.nan
    macs: float = math.nan
    acs: float = math.nan

    def __post_init__(self) -> None:
        for f in fields(self):
            value, free = getattr(self, f.name), f.name.endswith("joules") or f.name in ("macs", "acs")
            allowed = "a finite number of at least 0" + (", or not a number" if free else "")
            check(f.name, value, 0 <= value < math.inf or (free and math.isnan(value)), allowed)


@dataclass(frozen=True)
class Deployment:
    """One way to get an answer.

    Attributes:
        name: unique among plans that are compared.
        family: one of ``FAMILIES``.
        accuracy: share of right answers by which plans are compared, 0 to 1; of validation images where it is known.
        parts: one for each edge device.
        server_macs: multiply–accumulates on the server for one sample.
        data: data set on which the accuracy was measured.
        network: architecture and width, and where they come from.
        test_accuracy: of test images, 0 to 1; shown, and compared by nothing; not a number where it is not known.
    """

    name: str
    family: str
    accuracy: float
    parts: tuple[EdgePart, ...]
    server_macs: float = 0.0
    data: str = ""
    network: str = ""
    test_accuracy: float = math.nan

    def __post_init__(self) -> None:
        check_choice("family", self.family, FAMILIES)
        check("accuracy", self.accuracy, 0 <= self.accuracy <= 1, "0 to 1")
        known = 0 <= self.test_accuracy <= 1 or math.isnan(self.test_accuracy)
        check("test_accuracy", self.test_accuracy, known, "0 to 1, or not a number")
        check("parts", len(self.parts), len(self.parts) > 0, "at least one device")
        check("server_macs", self.server_macs, 0 <= self.server_macs < math.inf, "a finite number of at least 0")


@dataclass(frozen=True)
class Link:
    """The uplink.

    Attributes:
        rate: bit/s.
        joules_per_bit: energy of a bit at any rate.
        watts: power besides, for as long as bits are sent.
        header_bits: in front of each device's message.
        shared: whether all devices share the rate, as on one radio channel, or each has it.
    """

    rate: float
    joules_per_bit: float
    watts: float = 0.0
    header_bits: int = 0
    shared: bool = True

    def __post_init__(self) -> None:
        check("rate", self.rate, 0 < self.rate < math.inf, "a positive number of bit/s")
        for name in ("joules_per_bit", "watts", "header_bits"):
            value = getattr(self, name)
            check(name, value, 0 <= value < math.inf, "a finite number of at least 0")


def radio(name: str, rate: float, header_bits: int = 0, shared: bool = True) -> Link:
    """A :class:`Link` with the measured power model of a smartphone's radio (Huang et al. 2012).

    P(r) = α·r + β watts, so that a bit costs α + β/r.

    Raises:
        ValueError: for a radio that is not in the table ``radio_energy``.
    """
    rows = published("radio_energy").set_index("radio")
    check_choice("radio", name, list(rows.index))
    slope, base = float(rows.loc[name, "milliwatts_per_mbps"]), float(rows.loc[name, "base_milliwatts"])
    return Link(rate, slope * 1e-9, base * 1e-3, header_bits, shared)


@dataclass(frozen=True)
class Situation:
    """Edge device (all alike), uplink, and MACs a second of the server."""

    device: Device
    link: Link
    server_rate: float

    def __post_init__(self) -> None:
        check("server_rate", self.server_rate, self.server_rate > 0, "a positive number of MAC/s")

    def at(self, rate: float) -> Situation:
        """The same with a link of ``rate`` bit/s."""
        return replace(self, link=replace(self.link, rate=rate))


@dataclass(frozen=True)
class Needs:
    """What a plan must hold.

    Attributes:
        accuracy: least share of right answers, 0 to 1.
        seconds: most for one sample.
        joules: most that any one device spends on it.
        memory: most bytes of weights on any one device.
        private: whether images must stay where they were taken.
    """

    accuracy: float = 0.0
    seconds: float = math.inf
    joules: float = math.inf
    memory: float = math.inf
    private: bool = False

    def __post_init__(self) -> None:
        check("accuracy", self.accuracy, 0 <= self.accuracy <= 1, "0 to 1")
        for name in ("seconds", "joules", "memory"):
            check(name, getattr(self, name), getattr(self, name) > 0, "a positive number, or infinity for no limit")


class Line(NamedTuple):
    """A cost of ``fixed`` + ``per``/r at a link of r bit/s."""

    fixed: float
    per: float

    def at(self, rate: float) -> float:
        """The cost at ``rate`` bit/s."""
        return self.fixed + self.per / rate


def crossover(a: Line, b: Line) -> float:
    """Rate at which both lines cost the same, in bit/s: r* = (p_a − p_b)/(f_b − f_a); not a number if there is none."""
    if a.fixed == b.fixed:
        return math.nan
    rate = (a.per - b.per) / (b.fixed - a.fixed)
    return rate if rate > 0 else math.nan


def _work(part: EdgePart, device: Device) -> tuple[float, float]:
    """MACs and ACs that ``device`` carries out: those that spikes cause, or every MAC where it does not skip zeros."""
    return (part.macs, part.acs) if device.skips_zeros else (part.dense_macs, 0.0)


def compute_seconds(part: EdgePart, device: Device) -> float:
    """Seconds of computing: MACs and ACs, each at the device's rate for them."""
    macs, acs = _work(part, device)
    return macs / device.mac_rate + acs / device.ac_rate


def compute_joules(part: EdgePart, device: Device, account: str) -> float:
    """Joules of computing by one of ``ACCOUNTS``."""
    check_choice("account", account, ACCOUNTS)
    if account == "board":
        macs, acs = _work(part, device)
        return macs * device.joules_per_mac + acs * device.joules_per_ac
    return part.paper_joules if account == "paper" else part.counted_joules


def _sent(plan: Deployment, link: Link) -> list[float]:
    """Bits of each device's message, header included."""
    return [part.bits + link.header_bits for part in plan.parts]


def latency_lines(plan: Deployment, setting: Situation) -> list[Line]:
    """Lines whose maximum is the latency of ``plan``.

    On links of their own device i is done at c_i + B_i/r. A shared link sends messages in the order in which they get
    ready, and is done at max over k of c_k + (B_k + B_{k+1} + ...)/r, with c_1 ≤ c_2 ≤ ... The server comes after it.
    """
    server = plan.server_macs / setting.server_rate
    ready = [compute_seconds(part, setting.device) for part in plan.parts]
    jobs = sorted(zip(ready, _sent(plan, setting.link), strict=True))
    if not setting.link.shared:
        return [Line(c + server, bits) for c, bits in jobs]
    left = np.cumsum([bits for _, bits in jobs][::-1])[::-1]
    return [Line(c + server, float(bits)) for (c, _), bits in zip(jobs, left, strict=True)]


def energy_lines(plan: Deployment, setting: Situation, account: str) -> list[Line]:
    """The energy of each edge device as a line in 1/r; the paper's account has no radio."""
    link, lines = setting.link, []
    for part, bits in zip(plan.parts, _sent(plan, setting.link), strict=True):
        paid = 0.0 if account == "paper" else bits
        work = compute_joules(part, setting.device, account)
        lines.append(Line(work + paid * link.joules_per_bit, paid * link.watts))
    return lines


def lines(plan: Deployment, setting: Situation, measure: str, account: str = "board") -> list[Line]:
    """Lines whose maximum is a measure of ``plan``.

    Args:
        plan: what is measured.
        setting: device, link and server.
        measure: ``joules`` (all edge devices), ``busiest_joules``, ``seconds`` or ``bytes`` (payload, all devices).
        account: of the energy.

    Raises:
        ValueError: for an unknown measure or account.
    """
    check_choice("measure", measure, MEASURES)
    if measure == "seconds":
        return latency_lines(plan, setting)
    if measure == "bytes":
        return [Line(sum(part.bits for part in plan.parts) / 8, 0.0)]
    each = energy_lines(plan, setting, account)
    return each if measure == "busiest_joules" else [Line(sum(x.fixed for x in each), sum(x.per for x in each))]


def value(plan: Deployment, setting: Situation, measure: str, account: str = "board") -> float:
    """A measure of ``plan`` at the link's rate; arguments as :func:`lines`."""
    return max(line.at(setting.link.rate) for line in lines(plan, setting, measure, account))


def table(plans: Sequence[Deployment], setting: Situation) -> pd.DataFrame:
    """All plans side by side.

    Returns:
        Columns ``plan``, ``family``, ``data``, ``network``, ``accuracy`` (by which plans are compared),
        ``test_accuracy``, ``devices``, ``memory`` (bytes of weights, largest device), ``bytes`` (payload of a sample),
        ``sent_bytes`` (with headers), ``seconds``, and for each account ``..._joules`` (all edge devices) and
        ``busiest_..._joules``.
    """
    rows = []
    for plan in plans:
        about = ("family", "data", "network", "accuracy", "test_accuracy")
        row = {"plan": plan.name} | {k: getattr(plan, k) for k in about}
        row |= {"devices": len(plan.parts), "memory": max(part.bytes for part in plan.parts)}
        row |= {"bytes": value(plan, setting, "bytes"), "sent_bytes": sum(_sent(plan, setting.link)) / 8}
        row["seconds"] = value(plan, setting, "seconds")
        for account in ACCOUNTS:
            row[f"{account}_joules"] = value(plan, setting, "joules", account)
            row[f"busiest_{account}_joules"] = value(plan, setting, "busiest_joules", account)
        rows.append(row)
    return pd.DataFrame(rows)


def front(rows: pd.DataFrame, account: str = "board") -> pd.Series:
    """Which plans no other beats in accuracy, edge energy, latency and bytes together, within each data set.

    Args:
        rows: of :func:`table`.
        account: of the energy; a plan without it is on no front.
    """
    check_choice("account", account, ACCOUNTS)
    least, found = (f"{account}_joules", "seconds", "bytes"), pd.Series(False, index=rows.index)
    for _, group in rows.dropna(subset=list(least)).groupby("data", sort=False):
        found.loc[group.index] = pareto(group, least, ("accuracy",))
    return found


class _Lines:
    """A measure of many plans at many rates at once."""

    def __init__(self, plans: Sequence[Deployment], setting: Situation, measure: str, account: str) -> None:
        each = [lines(plan, setting, measure, account) for plan in plans]
        longest = max(map(len, each))
        padded = np.array([x + [x[0]] * (longest - len(x)) for x in each], dtype=float)  # [plans, lines, 2]
        self.fixed, self.per = padded[..., 0], padded[..., 1]

    def at(self, slowness: np.ndarray) -> np.ndarray:
        """Values [plans, X] at ``slowness`` 1/r [X]."""
        return (self.fixed[..., None] + self.per[..., None] * slowness).max(1)

    def crossings(self) -> np.ndarray:
        """Every 1/r at which two lines meet."""
        fixed, per = (np.unique(np.stack([self.fixed.ravel(), self.per.ravel()]), axis=1)[i] for i in (0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return ((fixed[None] - fixed[:, None]) / (per[:, None] - per[None])).ravel()

    def reaches(self, limit: float) -> np.ndarray:
        """Every 1/r at which a line is at ``limit``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return ((limit - self.fixed) / self.per).ravel()


def _one_data_set(plans: Sequence[Deployment]) -> None:
    found = sorted({plan.data for plan in plans})
    check("data sets of the plans", found, len(found) == 1, "one: accuracies of different data cannot be compared")


def _limits(plans: Sequence[Deployment], setting: Situation, needs: Needs, account: str) -> list[tuple[_Lines, float]]:
    """The limits that depend on the link's rate."""
    asked = (("seconds", needs.seconds), ("busiest_joules", needs.joules))
    return [(_Lines(plans, setting, m, account), limit) for m, limit in asked if limit < math.inf]


def _holds(plan: Deployment, needs: Needs) -> bool:
    """Whether a plan holds the needs that the link has no part in."""
    small = max(part.bytes for part in plan.parts) <= needs.memory
    return plan.accuracy >= needs.accuracy and small and not (needs.private and plan.family == IMAGES)


def _choose(plans, setting, needs, by, account, slowness: np.ndarray) -> np.ndarray:
    """Index of the best plan at each 1/r, −1 where none holds all needs; of equals the more accurate one."""
    _one_data_set(plans)
    order = sorted(range(len(plans)), key=lambda i: -plans[i].accuracy)
    ranked = [plans[i] for i in order]
    cost = _Lines(ranked, setting, by, account).at(slowness)
    cost[~np.array([_holds(p, needs) for p in ranked])] = np.inf
    for measure, limit in _limits(ranked, setting, needs, account):
        cost[~(measure.at(slowness) <= limit * (1 + 1e-12))] = np.inf
    cost = np.where(np.isnan(cost), np.inf, cost)
    return np.where(np.isfinite(cost.min(0)), np.array(order)[cost.argmin(0)], -1)


class NoPlan(ValueError):
    """No plan holds all needs: says which of them no plan holds, that only their combination is too much, or that no
    plan's cost is known.
    """


def best(
    plans: Sequence[Deployment], setting: Situation, needs: Needs = Needs(), by: str = "joules", account: str = "board"
) -> Deployment:
    """The plan of least ``by`` among those that hold all needs.

    Args:
        plans: candidates, all of one data set.
        setting: device, link and server.
        needs: limits.
        by: one of ``MEASURES``.
        account: of the energy; plans whose energy by it is not known do not take part.

    Raises:
        NoPlan: if there is none; it is a ValueError.
        ValueError: for plans of several data sets, an unknown measure or account.
    """
    found = _choose(plans, setting, needs, by, account, np.array([1 / setting.link.rate]))[0]
    if found < 0:
        slow = np.array([1 / setting.link.rate])
        if _choose(plans, setting, Needs(), by, account, slow)[0] < 0:
            raise NoPlan(f"no plan is known by its {by}" + (f" in the account {account!r}" if "joules" in by else ""))
        alone = {f.name: _relaxed(needs, keep=f.name) for f in fields(Needs)}
        never = [n for n, only in alone.items() if _choose(plans, setting, only, by, account, slow)[0] < 0]
        asked = ", ".join(f"{n} {getattr(needs, n):g}" for n in never or alone if getattr(needs, n) not in _FREE)
        raise NoPlan(f"no plan holds {asked}" + ("" if never else ", although for each of them there is one"))
    return plans[found]


def _relaxed(needs: Needs, keep: str = "", drop: str = "") -> Needs:
    """``needs`` with all but ``keep``, or only ``drop``, lifted."""
    free = Needs()
    lifted = [f.name for f in fields(Needs) if (f.name != keep if keep else f.name == drop)]
    return replace(needs, **{name: getattr(free, name) for name in lifted})


def why(
    plans: Sequence[Deployment], setting: Situation, needs: Needs, by: str = "joules", account: str = "board"
) -> pd.DataFrame:
    """Which needs bind: for each, what would be best without it.

    Returns:
        A row for each need that limits anything: ``need``, ``limit``, ``has`` (of the best plan), ``without`` (the
        best plan if it were lifted), ``cost``, ``cost_without`` (of ``by``), ``binds``.
    """
    chosen, rows = best(plans, setting, needs, by, account), []
    has = {
        "accuracy": chosen.accuracy,
        "seconds": value(chosen, setting, "seconds"),
        "joules": value(chosen, setting, "busiest_joules", account),
        "memory": max(part.bytes for part in chosen.parts),
        "private": chosen.family != IMAGES,
    }
    for name in has:
        if getattr(needs, name) in _FREE:
            continue
        other = best(plans, setting, _relaxed(needs, drop=name), by, account)
        costs = [value(p, setting, by, account) for p in (chosen, other)]
        rows.append((name, getattr(needs, name), has[name], other.name, *costs, costs[1] < costs[0]))
    return pd.DataFrame(rows, columns=["need", "limit", "has", "without", "cost", "cost_without", "binds"])


def ranges(
    plans: Sequence[Deployment],
    setting: Situation,
    needs: Needs = Needs(),
    by: str = "joules",
    account: str = "board",
    low: float = 1e3,
    high: float = 1e9,
) -> pd.DataFrame:
    """The best plan over the link's rate, exactly: the choice can change only where two lines cross or a limit is met.

    Args:
        plans: candidates, all of one data set.
        setting: device, link (whose rate does not matter here) and server.
        needs: limits.
        by: one of ``MEASURES``.
        account: of the energy.
        low, high: rates in bit/s.

    Returns:
        Columns ``rate_low``, ``rate_high``, ``plan``, ``family`` (empty where no plan holds all needs), ``bits``
        (sent, headers included), from the fastest link to the slowest.
    """
    check("low", low, 0 < low < high < math.inf, "a positive rate below high")
    cuts = [_Lines(plans, setting, by, account).crossings()]
    cuts += [measure.reaches(limit) for measure, limit in _limits(plans, setting, needs, account)]
    inner = np.concatenate(cuts)
    inner = np.unique(inner[(inner > 1 / high) & (inner < 1 / low)])
    inner = inner[np.diff(inner, prepend=0.0) > 1e-9 * inner]  # several lines through one point, but for rounding
    edges = np.concatenate([[1 / high], inner, [1 / low]])
    found = _choose(plans, setting, needs, by, account, (edges[:-1] + edges[1:]) / 2)
    starts = np.flatnonzero(np.diff(found, prepend=-2))
    rows = []
    for start, end in zip(starts, [*starts[1:], len(found)], strict=True):
        plan = plans[found[start]] if found[start] >= 0 else None
        about = (plan.name, plan.family, sum(_sent(plan, setting.link))) if plan else ("", "", 0.0)
        rows.append((1 / edges[end], 1 / edges[start], *about))
    return pd.DataFrame(rows, columns=["rate_low", "rate_high", "plan", "family", "bits"])


def over_floors(plans: Sequence[Deployment], setting: Situation, needs: Needs = Needs(), **options) -> pd.DataFrame:
    """:func:`ranges` for every accuracy floor: between two accuracies of plans the floor makes no difference.

    Args:
        plans: candidates, all of one data set.
        setting: device, link and server.
        needs: other limits; their accuracy is the lowest floor.
        options: ``by``, ``account``, ``low`` and ``high`` of :func:`ranges`.

    Returns:
        The columns of :func:`ranges` with ``floor_low`` and ``floor_high`` before them.
    """
    steps = sorted({plan.accuracy for plan in plans if plan.accuracy > needs.accuracy})
    most = max(plan.accuracy for plan in plans)
    check("accuracy", needs.accuracy, bool(steps), f"below that of the best plan, {most:g}")
    parts = []
    for below, floor in zip([needs.accuracy, *steps], steps, strict=False):
        rows = ranges(plans, setting, replace(needs, accuracy=floor), **options)
        rows.insert(0, "floor_low", below)
        rows.insert(1, "floor_high", floor)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def over_rates(
    plans: Sequence[Deployment], setting: Situation, rates: Sequence[float], account: str = "board"
) -> pd.DataFrame:
    """Latency and energy of every plan at several rates: ``plan``, ``family``, ``rate``, ``seconds``, ``joules``."""
    rows = [
        (p.name, p.family, r, value(p, setting.at(r), "seconds"), value(p, setting.at(r), "joules", account))
        for p in plans
        for r in rates
    ]
    return pd.DataFrame(rows, columns=["plan", "family", "rate", "seconds", "joules"])


def to_table(plans: Sequence[Deployment]) -> pd.DataFrame:
    """One row for each device of each plan, from which :func:`from_table` makes the plans again."""
    about = [f.name for f in fields(Deployment) if f.name != "parts"]
    rows = [{k: getattr(plan, k) for k in about} | vars(part) for plan in plans for part in plan.parts]
    return pd.DataFrame(rows)


def from_table(rows: pd.DataFrame) -> list[Deployment]:
    """Plans of a table of :func:`to_table`."""
    about = [f.name for f in fields(Deployment) if f.name != "parts"]
    numbers, plans = [f.name for f in fields(EdgePart)], []
    rows = rows.assign(**{k: rows[k].astype(object).fillna("") for k in ("data", "network")})
    for _, group in rows.groupby(["data", "name"], sort=False):
        parts = tuple(EdgePart(**{k: float(row[k]) for k in numbers}) for _, row in group.iterrows())
        plans.append(Deployment(**group.iloc[0][about].to_dict() | {"parts": parts}))
    return plans
