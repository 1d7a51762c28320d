"""Tables and words of recorded runs of chapter 21, by hand."""

import pandas as pd
import pytest

from snnbook.experiments import recorded_splits
from snnbook.splitting.devices import device


def recorded(numbers, fused, unsplit=0.9):
    """A recorded run of two seeds whose devices compute half and spend a quarter, all together N times that."""
    manifest = {"parameters": {"dataset": "cifar10", "model": "vgg9"}}
    sweep = pd.DataFrame({
        "n_devices": numbers * 2, "zeta": 92.0, "accuracy": [a - 0.01 for a in fused] + [a + 0.01 for a in fused],
        "largest_dense_macs": 50.0, "largest_joules": 2.0, "total_joules": [2.0 * n for n in numbers * 2],
        "total_payload_bits": [1e10 * n for n in numbers * 2],
    })  # fmt: skip
    costs = pd.DataFrame({
        "device": ["unsplit", "unsplit features"] * 2, "classes": "", "dense_macs": [110, 95.0, 110, 105],
        "joules": [9, 7.0, 9, 9], "payload_bits": [0, 2e10, 0, 3e10],
    })  # fmt: skip
    fused = pd.DataFrame({"fusion": ["unsplit", "unsplit"], "accuracy": [unsplit - 0.01, unsplit + 0.01]})
    return manifest, {"sweep": sweep, "costs": costs, "fused": fused}


def test_recorded_runs_relative_to_the_unsplit_features():
    found = {"a": recorded([1, 5], [0.7, 0.8]), "b": recorded([3], [0.85])}
    rows = recorded_splits.recorded_sweeps(found)
    assert rows[["run", "N"]].to_numpy().tolist() == [["a", 1], ["a", 5], ["b", 3]]
    assert rows["fused %"].tolist() == pytest.approx([70, 80, 85]) and set(rows["unsplit %"].round(9)) == {90.0}
    assert set(rows["compute %"]) == {50.0} and set(rows["energy %"]) == {25.0}
    assert rows["total energy %"].tolist() == [25, 125, 75]
    assert device("raspberry_pi_4b").joules_per_bit == 3.2e-10
    # a device 2 + 3.2 J, the unsplit network 8 J and 8 J for its features: 5.2 / 16, and N times that
    assert rows["with link %"].tolist() == pytest.approx([32.5, 162.5, 97.5])
    over = recorded_splits.recorded_over_devices(found)
    assert over["run"].tolist() == ["a"] and over[["N = 1", "N = 5"]].to_numpy()[0] == pytest.approx([70, 80])
    assert len(recorded_splits.recorded_over_devices({})) == len(recorded_splits.recorded_sweeps({})) == 0


def test_the_outcome_of_a_recorded_run_in_words():
    manifest, tables = recorded([1, 3, 5], [0.7, 0.75, 0.8])
    control = {"network": ["split", "one as large"] * 2, "accuracy": [0.8, 0.81, 0.8, 0.83]}
    control["total_dense_macs"] = [500, 450] * 2
    manifest["parameters"] |= {"min_filters": 8, "rewarm_epochs": 15, "retrain_epochs": 4}
    found = {"a": (manifest, tables | {"control": pd.DataFrame(control)})}
    says = recorded_splits.recorded_outcome(found, "a", 5)
    assert says.pop("numbers") == "3 and 5" and says.pop("split") == "75.0, 80.0"
    expected = {"unsplit": 90, "pruned": 70, "loss": 10, "compute": 50, "energy": 75, "total": 1.25}
    assert [says.pop(name) for name in ("zeta", "floor", "epochs")] == ["92", "8", "19"]
    assert says == pytest.approx(expected | {"control": 82, "gap": 2, "work": 90})


def test_sub_models_of_a_recorded_run_a_row_each():
    manifest, _ = recorded([1], [0.7])
    stages = {"unsplit": 0.5, "pruned": 0.25, "retrained": 0.75}
    tasks = [{"device": i, "classes": "0 1", "stage": stage, "balanced": share + i / 100}
             for i in range(2) for stage, share in stages.items()]  # fmt: skip
    sizes = {"device": ["unsplit", "0", "1"], "filters": [20, 10, 5], "file_bytes": [4000, 2500, 1500]}
    latency = {"device": ["unsplit", "unsplit features", "0", "1", "fusion"], "link_seconds": 0.0,
               "host_seconds": [0.009, 0.008, 0.004, 0.003, 0.001],
               "device_seconds": [0.9, 0.8, 0.2, 0.1, None]}  # fmt: skip
    tables = {"recovery": tasks, "sizes": sizes, "latency": latency}
    tables = {name: pd.DataFrame(table) for name, table in tables.items()}
    table = recorded_splits.recorded_parts({"a": (manifest, tables)})
    assert table["device"].tolist() == ["unsplit", "0", "1"] and set(table["run"]) == {"a"}
    numbers = table.drop(columns=["run", "dataset", "model", "device", "classes"]).set_index(table["device"])
    assert numbers.loc["unsplit"].drop(list(recorded_splits.STAGES.values())).tolist() == pytest.approx([20, 4, 8, 800])
    assert numbers.loc["0"].tolist() == pytest.approx([50, 25, 75, 10, 2.5, 4, 200])
    assert numbers.loc["1"].tolist() == pytest.approx([51, 26, 76, 5, 1.5, 3, 100])
    assert numbers.loc["unsplit", list(recorded_splits.STAGES.values())].isna().all()
    assert recorded_splits.recorded_parts({}).empty
