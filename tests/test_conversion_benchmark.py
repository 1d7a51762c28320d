"""The benchmark agrees with separate runs and counts, keeps what it measured, and sums up as by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from snnbook import params, runs
from snnbook.energy import count_operations, energy_ratio
from snnbook.evaluate import accuracy
from snnbook.experiments import conversion_benchmark as bench
from snnbook.experiments import conversion_tables as sums
from snnbook.record import firing_rates
from snnbook.train import Recipe


@pytest.fixture
def batches(experiment):
    return list(experiment.data.batches("test", 10))


def test_one_run_gives_what_runs_of_each_length_give(experiment, batches):
    snn, _ = experiment.converted("qcfs", 8)
    table = bench.operations_over_time(snn, batches, [1, 3, 8]).set_index("time_steps")
    for T, row in table.iterrows():
        snn.time_steps = int(T)
        counted = count_operations(snn, batches)
        kinds = counted.groupby("kind")["operations"].sum()
        connections = counted[counted["part"] == "connection"].groupby("kind")["operations"].sum()
        np.testing.assert_allclose(row[["mac", "ac"]], connections[["mac", "ac"]])
        np.testing.assert_allclose(row[["all_mac", "all_ac"]], [kinds["mac"], kinds["ac"]])
        assert row["spikes"] == pytest.approx(firing_rates(snn, batches)["spikes"].sum() / 24)
    assert snn.time_steps == 8 and table["mac"].nunique() == 1  # static input passes the stem once


def test_a_prerun_is_paid_for(experiment, batches):
    """SRP's first run is that of the plain network for four steps, but static input passes the stem once for both."""
    plain, _ = experiment.converted("qcfs", 4)
    srp, _ = experiment.converted("srp", 2)
    before = bench.operations_over_time(plain, batches, [4]).iloc[0]
    for T in (2, 6):
        whole = bench.operations_over_time(srp, batches, [T], prerun=True).iloc[0]
        assert whole["mac"] == before["mac"] > 0
        assert whole["spikes"] >= before["spikes"] and whole["ac"] >= before["ac"]
    per_step = bench._run(srp, batches, 2)
    assert list(per_step["step"]) == [1, 2, 3, 4]


def test_measure_agrees_with_separate_runs(experiment):
    table = bench.measure(experiment, "opt", [1, 4], samples=10)
    for row in table.itertuples():
        snn, report = experiment.converted("opt", row.time_steps)
        assert row.accuracy == pytest.approx(accuracy(snn, experiment.data))
        assert row.validation_accuracy == pytest.approx(accuracy(snn, experiment.data, "validation"))
        assert row.calibration_images == report.calibration_images == 16
        assert row.validation_images == report.validation_images == 0
        places = [round(i * 23 / 9) for i in range(10)]
        some = [(x[places], y[places]) for x, y in experiment.data.batches("test", 24)]
        assert row.spikes == pytest.approx(firing_rates(snn, some)["spikes"].sum() / 10)
    np.testing.assert_allclose(table["loss"], table["ann_accuracy"] - table["accuracy"])
    np.testing.assert_allclose(
        table["relu_loss"], accuracy(experiment.network("relu"), experiment.data) - table["accuracy"]
    )


def test_what_was_measured_is_kept(experiment, monkeypatch):
    first = bench.benchmark([experiment], ["qc", "opi"], [2], 5)
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(bench.benchmark([experiment], ["qc", "opi"], [2], 5), first)
    assert list(first["method"]) == ["qc", "opi"]
    for other in ({"time_steps": [3]}, {"samples": 6}, {"method": "qcfs"}):
        given = {"method": "qc", "time_steps": [2], "samples": 5} | other
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            bench.remembered(experiment, **given)


def test_another_recipe_of_tuning_measures_again(experiment, monkeypatch):
    first = bench.benchmark([experiment], ["matched"], [2], 5)
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(bench.benchmark([experiment], ["matched"], [2], 5), first)
    other = replace(experiment, tuning=Recipe(epochs=2, batch_size=20, lr=0.02))
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        bench.benchmark([other], ["matched"], [2], 5)


def rows():
    """Two methods; method b takes four more steps."""
    table = pd.DataFrame(
        [("a", 0, 1, 1, 0.5, 10.0), ("a", 1, 1, 1, 0.7, 10.0), ("a", 0, 4, 4, 0.8, 40.0), ("a", 1, 4, 4, 0.8, 40.0),
         ("b", 0, 1, 5, 0.9, 20.0), ("b", 0, 4, 8, 0.85, 50.0)],
        columns=["method", "seed", "time_steps", "total_steps", "accuracy", "ac"],
    )  # fmt: skip
    same = table["accuracy"]
    return table.assign(ann_accuracy=0.95, mac=5.0, all_mac=5.0, all_ac=2 * table["ac"], validation_accuracy=same)


def test_over_time_is_the_mean_over_seeds():
    wide = sums.over_time(rows()).set_index("method")
    assert list(wide.columns) == ["ANN", "T = 1", "T = 4"]
    np.testing.assert_allclose(wide.loc["a"], [95, 60, 80])
    np.testing.assert_allclose(sums.over_time(rows(), "ac", 1).set_index("method").loc["b", "T = 4"], 50)


def test_best_within_a_budget_of_all_steps():
    found = sums.best_within(rows(), [1, 4, 5, 8])
    assert found["method"].tolist() == ["a", "a", "b", "b"] and found["time_steps"].tolist() == [1, 4, 1, 1]
    np.testing.assert_allclose(found["accuracy"], [0.6, 0.8, 0.9, 0.9])
    assert sums.best_within(rows().query("method == 'b'"), [4, 5])["total_steps"].tolist() == [5]
    other = rows().assign(validation_accuracy=[0.5, 0.7, 0.8, 0.8, 0.6, 0.6])  # b was only lucky on test images
    assert sums.best_within(other, [8])[["method", "accuracy"]].to_numpy().tolist() == [["a", 0.8]]


def test_efficient_rows_are_those_that_nothing_beats():
    table = pd.DataFrame({"cost": [1, 2, 2, 3, 4], "accuracy": [0.1, 0.3, 0.4, 0.4, 0.5]})
    assert sums.efficient(table, "cost").index.tolist() == [0, 2, 4]
    random = pd.DataFrame(torch.rand(60, 2, generator=torch.Generator().manual_seed(0)), columns=["cost", "accuracy"])
    x, y = random["cost"], random["accuracy"]
    beaten = [((x <= c) & (y >= a) & ((x < c) | (y > a))).any() for c, a in zip(x, y, strict=True)]
    assert sorted(sums.efficient(random, "cost").index) == random.index[~np.array(beaten)].tolist()


def test_energy_of_both_accounts():
    table = sums.with_energy(rows(), 100.0, "45nm_fp32")
    assert table["ratio"].iloc[2] == pytest.approx(energy_ratio(5, 40, 100))
    assert table["all_ratio"].iloc[2] == pytest.approx((5 * 4.6 + 80 * 0.9) / 460)
    assert "fair_ratio" not in table
    fair = sums.with_energy(rows(), 100.0, "45nm_fp32", within=80.0)["fair_ratio"]
    assert fair.iloc[2] == pytest.approx((5 * 4.6 + 80 * 0.9) / (80 * 4.6))


def test_recorded_runs_of_one_notebook_in_order(tmp_path):
    given = {"b": ("13", params.ConversionBenchmark), "a": ("13", params.ConversionBenchmark),
             "c": ("14", params.ConversionEnergy)}  # fmt: skip
    for name, (_, cls) in given.items():
        runs.Run.start(cls(out_dir=str(tmp_path / name), model="vgg16")).save("benchmark", rows())
    found = sums.recorded_runs("13_conversion_benchmark", tmp_path)
    assert list(found) == ["a", "b"]
    table = sums.recorded_over_time(found)
    assert list(table.columns) == ["run", "dataset", "model", "method", "ANN", "T = 1", "T = 4"]
    assert table["model"].eq("vgg16").all() and table["run"].tolist() == ["a", "a", "b", "b"]
    (tmp_path / "a" / "benchmark.csv").write_text("changed\n")
    with pytest.raises(ValueError, match="sha256"):
        sums.recorded_runs("13_conversion_benchmark", tmp_path)


def test_without_recorded_runs_the_table_is_empty(tmp_path):
    assert sums.recorded_runs("13_conversion_benchmark", tmp_path) == {}
    assert sums.recorded_over_time({}).empty


def test_runs_on_the_same_networks_are_one():
    same = {"dataset": "digits", "model": "vgg9", "seed": 0}
    one, two = rows().query("time_steps == 1"), rows().assign(accuracy=0.5)
    found = {"a": ({"parameters": same | {"time_steps": [1]}}, {"benchmark": one}),
             "b": ({"parameters": same | {"model": "vgg16"}}, {"benchmark": one}),
             "c": ({"parameters": same | {"time_steps": [1, 4], "out_dir": "c"}}, {"benchmark": two})}  # fmt: skip
    merged = sums.together(found)
    assert list(merged) == ["a", "b"] and merged["a"][0] is found["a"][0]
    wide = sums.recorded_over_time(merged).set_index("run")
    first = sums.recorded_over_time({"a": found["a"]})
    assert wide.loc["a", "T = 1"].tolist() == first["T = 1"].tolist()  # measured twice: the first
    assert set(wide.loc["a", "T = 4"]) == {50.0} and wide.loc["b", "T = 4"].isna().all()
    assert sums.together({}) == {}


def test_times_of_recorded_runs_are_in_order_of_size():
    manifest = {"parameters": {"dataset": "digits", "model": "vgg9"}}
    one, two = rows().query("time_steps == 4"), rows().query("time_steps == 1").assign(time_steps=16)
    table = sums.recorded_over_time({"x": (manifest, {"benchmark": two}), "y": (manifest, {"benchmark": one})})
    assert [c for c in table.columns if c.startswith("T")] == ["T = 4", "T = 16"]


def test_published_and_recorded_losses_stand_side_by_side():
    published = pd.DataFrame({"method": ["OPI", "QCFS", "RTS"], "ANN": [94.0, 95.0, 92.0],
                              "T = 2": [math.nan, 85.0, 1.0], "T = 4": [90.0, 92.0, 2.0], "T = 32": 94.0})  # fmt: skip
    lost = pd.DataFrame({"method": ["QCFS", "tuned", "OPI"], "T = 1": 9.0, "T = 2": [7.0, 1.0, 8.0],
                         "T = 4": [2.5, 0.5, 6.0]})  # fmt: skip
    table = sums.beside_published(published, lost)
    columns = ["method", "T = 2, published", "T = 2, here", "T = 4, published", "T = 4, here"]
    assert table.columns.tolist() == columns
    opi, qcfs = table.to_numpy().tolist()
    assert opi[0] == "OPI" and math.isnan(opi[1]) and opi[2:] == [8.0, 4.0, 6.0]
    assert qcfs == ["QCFS", 10.0, 7.0, 3.0, 2.5]
