"""ζ and the number of devices against accuracy, and against energy and latency on a board.

    seconds = dense MACs / MAC rate + bits / link rate        joules = dense MACs · J/MAC + bits · J/bit

with the figures of a board's profile. Boards of these profiles multiply zeros too, so dense MACs are what they compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from ..checks import check
from ..splitting.devices import Device, device, profiles
from .table import Explorer, Key, Panel, Reference

ACCOUNTS = {"largest": "the most loaded device", "total": "all devices together"}


def _cost(macs: pd.Series | float, bits: pd.Series | float, board: Device) -> tuple:
    """Milliseconds and millijoules of one sample."""
    seconds = macs / board.mac_rate + bits / board.link_rate
    return 1e3 * seconds, 1e3 * (macs * board.joules_per_mac + bits * board.joules_per_bit)


def _points(sweep: pd.DataFrame, board: Device, account: str) -> pd.DataFrame:
    """Devices work at the same time: latency is that of the most loaded one in both accounts."""
    macs, bits = ({a: sweep[f"{a}_{measure}"] for a in ACCOUNTS} for measure in ("dense_macs", "payload_bits"))
    return pd.DataFrame({
        "board": board.title, "account": ACCOUNTS[account], "n_devices": sweep["n_devices"], "zeta": sweep["zeta"],
        "accuracy": 100 * sweep["accuracy"], "millijoules": _cost(macs[account], bits[account], board)[1],
        "milliseconds": _cost(macs["largest"], bits["largest"], board)[0],
    })  # fmt: skip


def recorded(found: Mapping[str, tuple[dict, dict]]) -> dict[str, tuple[pd.DataFrame, dict[str, float]]]:
    """Recorded runs of the chapter on trade-offs as :func:`split` takes them: the mean over seeds of each sweep.

    Args:
        found: name → manifest and tables, from :func:`snnbook.experiments.conversion_tables.recorded_runs`.
    """
    sweeps = {}
    for name, (_, tables) in found.items():
        mean = tables["sweep"].groupby(["n_devices", "zeta"], as_index=False).mean(numeric_only=True)
        accuracy = tables["fused"].groupby("fusion")["accuracy"].mean()["unsplit"]
        costs = tables["costs"].groupby("device").mean(numeric_only=True)  # over seeds
        whole = costs.loc["unsplit features", ["dense_macs", "payload_bits"]]
        sweeps[f"{name}, recorded"] = mean, {"accuracy": float(accuracy)} | whole.astype(float).to_dict()
    return sweeps


def split(
    sweeps: Mapping[str, tuple[pd.DataFrame, Mapping[str, float]]],
    zeta: float | None = None,
    boards: Iterable[str] | None = None,
) -> Explorer:
    """The explorer of splitting and pruning.

    Args:
        sweeps: label of a run → its sweep (one row for each N and ζ, columns of
            :func:`snnbook.experiments.ec_snn_tables.sweep`) and the unsplit network's ``accuracy`` (0 to 1),
            and ``dense_macs`` and ``payload_bits`` of its device, which has no head either and sends its features.
        zeta: ζ at the start, in percent; the nearest that a run has.
        boards: names of device profiles that multiply zeros; all by default, the Raspberry Pi first.

    Raises:
        ValueError: without sweeps, for an unknown profile, or one of hardware that skips zeros.
    """
    check("sweeps", list(sweeps), len(sweeps) > 0, "at least one run")
    names = sorted(profiles(), key=lambda name: name != "raspberry_pi_4b") if boards is None else list(boards)
    parts, references = [], []
    for label, (sweep, unsplit) in sweeps.items():
        references.append(Reference("accuracy", "unsplit", 100 * unsplit["accuracy"], {"run": label}))
        for board in map(device, names):
            check("board", board.name, not board.skips_zeros, "a board that multiplies zeros")
            parts += [_points(sweep, board, account).assign(run=label) for account in ACCOUNTS]
            where = {"run": label, "board": board.title}
            spent = _cost(unsplit["dense_macs"], unsplit["payload_bits"], board)
            values = zip(("milliseconds", "millijoules"), spent, strict=True)
            references += [Reference(column, "unsplit", value, where) for column, value in values]
    numbers = sorted({int(n) for part in parts for n in part["n_devices"]})
    start = zeta if zeta is None else min((z for part in parts for z in part["zeta"]), key=lambda z: abs(z - zeta))
    return Explorer(
        "split",
        "Pruning threshold and number of devices against accuracy, energy and latency",
        pd.concat(parts, ignore_index=True),
        (
            Key("run", "Run"),
            Key("board", "Board"),
            Key("account", "Energy of", "choice"),
            Key(
                "n_devices",
                "Number of devices N",
                "slider",
                {n: f"{n} device{'s' * (n > 1)}" for n in numbers},
                numbers[-1],
            ),
            Key("zeta", "Pruning threshold ζ, %", "slider", start=start),
        ),
        "zeta",
        "n_devices",
        (
            Panel("accuracy", "test accuracy, %", 1),
            Panel("millijoules", "energy, mJ a sample", 3),
            Panel("milliseconds", "latency, ms a sample", 3),
        ),
        "{n_devices}, ζ = {zeta} %, {board}:",
        "accuracy {accuracy} %, energy of {account} {millijoules} mJ, latency {milliseconds} ms",
        tuple(references),
    )
