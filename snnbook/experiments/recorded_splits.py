"""Recorded runs of chapter 21: accuracy and cost over ζ and N, sub-models, what a sentence says of a run."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from .ec_snn_tables import NOT_DEVICES, joules_to_send, with_link

#: Recorded runs by name: manifest and tables, from :func:`snnbook.experiments.conversion_tables.recorded_runs`.
Runs = Mapping[str, tuple[dict, dict]]


def recorded_sweeps(found: Runs) -> pd.DataFrame:
    """Sweeps of recorded runs in percent, a row for each N and ζ, mean over seeds; empty without runs.

    Returns:
        Columns ``run``, ``dataset``, ``model``, ``N``, ``zeta``; in percent ``unsplit %``, ``fused %``; of the unsplit
        convolutions: ``compute %`` and ``energy %`` (most loaded device), ``total energy %``, and ``with link %``, the
        same where both, devices and unsplit convolutions, also pay what :data:`SENDER` needs to send their features.
    """
    parts = []
    for name, (manifest, tables) in found.items():
        whole = tables["costs"].groupby("device").mean(numeric_only=True).loc["unsplit features"]
        unsplit = float(tables["fused"].groupby("fusion")["accuracy"].mean()["unsplit"])
        mean = tables["sweep"].groupby(["n_devices", "zeta"], as_index=False).mean(numeric_only=True)
        given = {key: manifest["parameters"][key] for key in ("dataset", "model")}
        sent = mean["total_joules"] + joules_to_send(mean["total_payload_bits"])
        columns = {
            "run": name, **given, "N": mean["n_devices"], "zeta": mean["zeta"], "unsplit %": 100 * unsplit,
            "fused %": 100 * mean["accuracy"], "compute %": 100 * mean["largest_dense_macs"] / whole["dense_macs"],
            "energy %": 100 * mean["largest_joules"] / whole["joules"],
            "total energy %": 100 * mean["total_joules"] / whole["joules"],
            "with link %": 100 * sent / with_link(whole),
        }  # fmt: skip
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def recorded_over_devices(found: Runs) -> pd.DataFrame:
    """Test accuracies in percent of recorded runs with several numbers of devices, a row for each run and ζ.

    Returns:
        Columns ``run``, ``dataset``, ``model``, ``zeta``, ``unsplit %``, and ``N = …`` for every number of devices.
    """
    rows = recorded_sweeps(found)
    keys = ["run", "dataset", "model", "zeta", "unsplit %"]
    if not len(rows):
        return pd.DataFrame(columns=keys)
    several = rows[rows.duplicated(["run", "zeta"], keep=False)]
    wide = several.pivot(index=keys, columns="N", values="fused %")
    return wide.rename(columns="N = {}".format).rename_axis(columns=None).reset_index()


#: Stages of a sub-model → heading of its accuracy on its own task, each label with the same weight.
STAGES = {"unsplit": "unsplit %", "pruned": "pruned %", "retrained": "retrained %"}


def recorded_parts(found: Runs) -> pd.DataFrame:
    """Sub-models of recorded runs, a row for each device after one for the unsplit network; empty without runs.

    Returns:
        Columns ``run``, ``dataset``, ``model``, ``device``, ``classes``; accuracies on its own task in percent before
        and after pruning and retrained (:data:`STAGES`); ``filters``; ``kB``, 1000 bytes of the file on the device;
        ``ms host``, measured on the machine of the run, and ``ms Pi``, computed for a Raspberry Pi 4B, of one sample
        without a head.
    """
    parts = []
    for name, (manifest, tables) in found.items():
        given = {key: manifest["parameters"][key] for key in ("dataset", "model")}
        tasks = tables["recovery"].assign(device=tables["recovery"]["device"].astype(str))
        stages = 100 * tasks.pivot(index=["device", "classes"], columns="stage", values="balanced")
        times = 1e3 * tables["latency"].set_index("device")[["host_seconds", "device_seconds"]]
        whole = times.loc[["unsplit features"]].rename({"unsplit features": "unsplit"})
        times = pd.concat([whole, times.drop(list(NOT_DEVICES))])
        times = times.set_axis(["ms host", "ms Pi"], axis=1).rename_axis("device").reset_index()
        sizes = tables["sizes"].assign(kB=tables["sizes"]["file_bytes"] / 1e3)[["device", "filters", "kB"]]
        rows = sizes.merge(stages.rename(columns=STAGES).reset_index(), how="left", on="device")
        rows = rows.merge(times, how="left", on="device").assign(run=name, **given)
        parts.append(rows[["run", *given, "device", "classes", *STAGES.values(), "filters", "kB", "ms host", "ms Pi"]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def recorded_outcome(found: Runs, run: str, n_devices: int) -> dict[str, float | str]:
    """What one of the recorded runs says in a sentence or two, accuracies in percent, with one ζ.

    Args:
        found: as for :func:`recorded_sweeps`.
        run: its name there; N = 1 and N = ``n_devices`` are among its numbers of devices.
        n_devices: N of ``loss``, ``compute``, ``energy`` and ``total``.

    Returns:
        ``unsplit``, ``pruned`` (N = 1), ``numbers`` (the other N) and ``split`` (their accuracies) as text; ``loss``,
        unsplit minus fused in points; ``compute`` and ``energy``, in percent less than unsplit, of the most loaded
        device; ``total``, energy of all in multiples of unsplit; ``control``, accuracy of one network about as large
        as the largest fleet, ``gap``, control minus fused in points, and ``work``, its operations in percent of those
        of the fleet; ``zeta``, ``floor`` (filters that a layer keeps at least) and ``epochs`` of retraining as text.
    """
    given = found[run][0]["parameters"]
    rows = recorded_sweeps({run: found[run]}).set_index("N")
    control = found[run][1]["control"].groupby("network").mean(numeric_only=True)
    at, several, macs = rows.loc[n_devices], rows.drop(1), control["total_dense_macs"]
    numbers, alone = [str(n) for n in several.index], float(100 * control.loc["one as large", "accuracy"])
    return {
        "zeta": f"{at['zeta']:g}", "floor": str(given["min_filters"]),
        "epochs": str(given["rewarm_epochs"] + given["retrain_epochs"]),
        "unsplit": float(at["unsplit %"]), "pruned": float(rows.loc[1, "fused %"]),
        "numbers": " and ".join(filter(None, [", ".join(numbers[:-1]), numbers[-1]])),
        "split": ", ".join(f"{x:.1f}" for x in several["fused %"]), "loss": float(at["unsplit %"] - at["fused %"]),
        "compute": float(100 - at["compute %"]), "energy": float(100 - at["energy %"]),
        "total": float(at["total energy %"] / 100), "control": alone, "gap": float(alone - at["fused %"]),
        "work": float(100 * macs["one as large"] / macs["split"]),
    }  # fmt: skip
