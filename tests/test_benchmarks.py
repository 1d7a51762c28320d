"""The benchmark of the engine: contenders agree before they are timed, and ratios are what their tables say."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import bars, contenders, engine, source, worker  # noqa: E402
from benchmarks.source import Workload  # noqa: E402
from snnbook import roofline  # noqa: E402
from snnbook.counts import connections  # noqa: E402
from snnbook.record import firing_rates  # noqa: E402
from snnbook.runs import recorded  # noqa: E402

NETWORK = Workload("vgg5 T=3", "inference", "vgg5", 0.1, 3, (2, 3, 8, 8))
NEURONS = Workload("neurons", "neuron", "", 1.0, 5, (2, 3, 4, 4))
PEERS = ("spikingjelly", "plain", "ours_eager", "ours_fp32")


def outputs(w: Workload, names=(*PEERS, "ours")) -> dict[str, np.ndarray]:
    """What each contender computes, twice the same."""
    found = {}
    for name in names:
        call = contenders.CONTENDERS[name](w)
        if call is not None:
            found[name] = call().numpy()
            if w.kind != "training":
                np.testing.assert_array_equal(call().numpy(), found[name])  # no state is left over
    return found


RESNET = replace(NETWORK, name="resnet20 T=2", model="resnet20", time_steps=2)


@pytest.mark.parametrize("w", [NEURONS, NETWORK, RESNET], ids=lambda w: w.name)
def test_peers_compute_the_same_bits(w):
    found = outputs(w)
    assert len(found) >= 4
    for name, values in found.items():
        np.testing.assert_array_equal(values, found["ours"], err_msg=name)
    assert 0 < np.abs(found["ours"]).mean()


def test_snntorch_computes_the_same_bits():
    pytest.importorskip("snntorch")
    for w in (NEURONS, NETWORK):
        found = outputs(w, ("snntorch", "ours"))
        np.testing.assert_array_equal(found["snntorch"], found["ours"])


def test_gradients_of_peers_agree():
    found = outputs(replace(NEURONS, kind="neuron_training"), ("spikingjelly", "plain", "ours_eager", "ours"))
    assert len(found) == 4
    for values in found.values():
        np.testing.assert_allclose(values, found["ours"], atol=1e-6)


def test_a_training_step_of_spikingjelly_has_our_loss():
    found = outputs(replace(NETWORK, kind="training"), ("spikingjelly", "ours"))
    np.testing.assert_allclose(found["spikingjelly"], found["ours"], rtol=1e-5)


def test_every_layer_of_the_network_fires_and_every_weight_is_on_a_grid():
    net = source.network(NETWORK)
    rates = firing_rates(net, [(source.images(NETWORK), source.labels(NETWORK))])["rate"]
    assert rates.between(0.02, 0.9).all()
    for layer in connections(net).values():
        step = 2.0 ** np.floor(np.log2(layer.weight.abs().max().item() / 64))
        assert torch.equal(layer.weight / (step / 4), (layer.weight / (step / 4)).round())


def test_the_ann_has_the_same_weights_and_no_time():
    snn = source.network(NETWORK)
    ann = source.as_ann(snn)
    assert ann.time_steps is None and snn.time_steps == 3
    assert torch.equal(ann.stem[0].weight, snn.stem[0].weight)
    assert ann(source.images(NETWORK)).shape == (2, 10)


def test_agreement_by_hand():
    reference = np.array([[[0.0, 4.0], [4.0, 0.0]]])
    found = np.array([[[0.0, 4.0], [1.0, 2.0]]])
    assert engine.agreement(found, reference) == {"equal": 0.5, "difference": 0.75, "same_class": 0.5}
    assert engine.agreement(found[0], reference)["equal"] == 0.0


def test_other_spikes_than_ours_end_the_benchmark_before_it_times_anything():
    right = np.ones((2, 3, 4))
    found = {"ours": right, "spikingjelly": right, "ours_int8": right * 1.01}
    assert engine.compare(NETWORK, found)["ours_int8"]["equal"] == 0
    with pytest.raises(RuntimeError, match="other spikes than ours: {'plain': 0.9583"):
        engine.compare(NETWORK, found | {"plain": np.where(np.arange(24).reshape(2, 3, 4) == 5, 0, right)})


def test_batches_shrink_where_there_are_many_steps():
    p = engine.EngineBenchmark(groups=["inference"], networks=["vgg9"], batch=32, frames=256)
    found = {w.time_steps: w.batch for w in engine.workloads(p, "cpu")}
    assert found == {1: 32, 2: 32, 4: 32, 8: 32, 16: 16, 64: 4}


def test_every_bar_is_a_workload_that_is_measured():
    names = {w.name for w in engine.workloads(engine.EngineBenchmark(), "cpu")}
    assert {bar.workload for bar in bars.BARS} <= names
    known = {c for bar in bars.BARS for c in (*bar.slow, *bar.fast)}
    assert known <= set(contenders.CONTENDERS)


def test_bars_by_hand():
    rows = [("neuron forward", c, r, s) for c, seconds in
            {"spikingjelly": (20, 30, 44), "ours": (2, 2, 4), "ours_eager": (5, 5, 5)}.items()
            for r, s in enumerate(seconds)]  # fmt: skip
    samples = pd.DataFrame(rows, columns=["workload", "contender", "repeat", "seconds"])
    medians = samples.groupby("contender", as_index=False)["seconds"].median().rename(columns={"seconds": "median_s"})
    times = medians.assign(workload="neuron forward", kind="neuron", bound_s=1.0)
    used = pd.DataFrame({"contender": ["ours"] * 2, "time_steps": [4, 64], "peak_mib": [10.0, 14.0]})
    first, second = bars.bars(samples, times, used).to_dict("records")
    assert (first["above"], first["below"]) == ("spikingjelly", "ours")
    assert (first["measured"], first["lowest"], first["highest"]) == (11, 10, 15)  # round by round
    assert first["at_roofline"] == 30 and first["reached"]
    assert second["measured"] == 1.4 and not second["reached"]


def test_summary_takes_medians_and_the_roofline():
    rows = [("neurons", "ours", r, s, 9.0, 1.0, 0.0, None) for r, s in enumerate((3.0, 1.0, 2.0))]
    columns = ["workload", "contender", "repeat", "seconds", "first_call_seconds", *engine.AGREEMENT]
    peaks = {"fp32": roofline.Peak(1e30, 8 * 5 * 96)}  # the neurons' bytes in one second
    (row,) = engine.summary(pd.DataFrame(rows, columns=columns), [NEURONS], peaks).to_dict("records")
    assert (row["median_s"], row["lowest_s"], row["highest_s"], row["upper_quartile_s"]) == (2, 1, 3, 2.5)
    assert row["bound_s"] == 1 and row["times_bound"] == 2 and row["images_per_s"] == 1


def test_rooflines_take_the_best_rate_of_each_precision():
    table = pd.DataFrame({"what": ["fp32 matrix product", "fp32 convolution", "bf16 matrix product", "copy"],
                          "value": [5.0, 7.0, 20.0, 3.0], "unit": ["GFLOP/s"] * 3 + ["GB/s"]})  # fmt: skip
    expected = {"fp32": roofline.Peak(7e9, 3e9), "bf16": roofline.Peak(20e9, 3e9)}
    assert engine.rooflines(table) == expected


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="Linux only")
def test_peak_memory_counts_what_was_held_at_once():
    size = 64 * 2**20
    worker.release()
    found = worker.peak_memory(lambda: (np.ones(size, np.uint8), np.ones(size, np.uint8)) and None, "cpu")
    assert 1.8 * size < found < 2.6 * size


def test_a_worker_answers_and_skips_what_is_not_its_work(tmp_path):
    w = worker.Worker("copy")
    assert w.setup(vars(NETWORK), str(tmp_path / "x.npy")) == {} and not list(tmp_path.iterdir())
    assert "first_call_seconds" in w.setup(vars(NEURONS), str(tmp_path / "x.npy"))
    assert w.run(0.001)["seconds"] > 0 and w.drop() == {} and w.call is None


def test_a_library_that_is_missing_is_left_out_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "snntorch", None)
    answer = worker.Worker("snntorch").setup(vars(NEURONS), str(tmp_path / "x.npy"))
    assert "snntorch" in answer["left_out"]


def test_a_bad_option_is_named(capsys):
    assert engine.main(["--repeats", "0"]) == 2
    assert "repeats = 0 is not allowed: 1 to 100" in capsys.readouterr().err


def test_a_small_benchmark_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "peaks", lambda device: pd.DataFrame(
        [("fp32 convolution", 1.0, "GFLOP/s"), ("copy", 1.0, "GB/s")], columns=["what", "value", "unit"]))  # fmt: skip
    options = {"groups": "[neuron, inference]", "networks": "[vgg5]", "time_steps": "[2]", "width": "0.1", "size": "8",
               "batch": "2", "channels": "4", "repeats": "2", "at_least": "0.001", "threads": "1",
               "contenders": "[spikingjelly, ours, copy]", "out_dir": str(tmp_path / "out")}  # fmt: skip
    threads = torch.get_num_threads()
    try:
        assert engine.main([word for k, v in options.items() for word in (f"--{k}", v)]) == 0
    finally:
        torch.set_num_threads(threads)
    manifest, tables = recorded(tmp_path / "out")
    assert manifest["command"].startswith("python -m benchmarks.engine --groups")
    assert json.dumps(manifest["parameters"]["time_steps"]) == "[2]"
    times = tables["times"]
    assert set(times["workload"]) == {"neuron forward", "neuron forward and backward", "vgg5 T=2"}
    assert len(tables["samples"]) == 2 * len(times) == 14
    peers = times[times["contender"] == "spikingjelly"]
    assert (peers["equal"] == 1).all() and (times["lowest_s"] <= times["median_s"]).all()
    assert list(tables["bars"]["bar"]) == ["IF forward: SpikingJelly / ours"]
    assert tables["left_out"].empty
    assert {"MALLOC_TRIM_THRESHOLD_", "snntorch"} <= set(tables["environment"]["what"])
