"""Candidates from other chapters' experiments and from recorded tables."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from snnbook import planner
from snnbook.bottleneck.backbone import backbone, split_points
from snnbook.bottleneck.codec import compress, head
from snnbook.bottleneck.selection import Candidate
from snnbook.counts import count
from snnbook.experiments import plan_candidates as candidates
from snnbook.models import build
from snnbook.params import ConversionBenchmark, Planner
from snnbook.runs import ROOT, Run
from snnbook.splitting import devices


def test_changed_parameters_are_read_and_checked():
    p = candidates.changed(ConversionBenchmark, "epochs=2, time_steps=[1, 3], model='vgg5'", seed=7)
    assert (p.epochs, p.time_steps, p.model, p.seed) == (2, [1, 3], "vgg5", 7)
    assert candidates.changed(ConversionBenchmark, "") == ConversionBenchmark()
    for wrong in ("epochs", "epochs=open('x')", "epoch=2", "epochs=0", "1, 2", "**{}", "epochs=2) + dict("):
        with pytest.raises(ValueError, match="not allowed"):
            candidates.changed(ConversionBenchmark, wrong)


@pytest.mark.parametrize("c", [Candidate(1, 4, 1, 2), Candidate(2, 8, 2, 3)])
def test_macs_of_a_cut_are_those_of_the_device_half(c):
    shape = (1, 16, 16)
    net = backbone(c.time_steps, n_classes=10, shape=shape, width=0.125, blocks=(1, 1, 1, 1))
    whole, report = compress(net, shape, c.split_point, c.channels, c.stride)
    layers = count(head(whole), shape).set_index("layer")["macs"]
    stem = int(layers[layers.index.str.startswith("stem.")].sum())
    expected = stem + c.time_steps * (layers.sum() - stem)
    assert candidates._cut_macs(split_points(net, shape), stem, c) == expected
    row = split_points(net, shape).set_index("split_point").loc[c.split_point]
    size = row["channels"], row["height"], row["width"]
    assert candidates.encoder_macs(*size, c.channels, c.stride) == report.encoder_macs


def test_spiking_part_counts_connections_for_the_paper_and_everything():
    net = build("vgg5", "lif", n_classes=3, shape=(1, 8, 8), width=0.1, time_steps=2).eval()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    part = candidates.spiking_part(net, [(x, torch.zeros(4))], 123.0, 8)
    assert 0 < part.paper_joules < part.counted_joules and part.macs > 0 and part.acs > 0
    assert part.counted_joules == pytest.approx((4.6 * part.macs + 0.9 * part.acs) * 1e-12)
    assert part.bytes == sum(t.numel() * t.element_size() for t in net.state_dict().values())


def test_method_is_fixed_beforehand_has_no_prerun_and_is_a_mean_over_seeds():
    """The one that stands first in the order is not the one that is best here."""
    rows = pd.DataFrame(
        [
            ("qcfs", 2, 2, 0, 0.99, 5.0), ("lmpc", 2, 2, 0, 0.9, 3.0), ("qcfs", 1, 1, 0, 0.95, 10.0),
            ("lmpc", 1, 1, 0, 0.5, 10.0), ("lmpc", 1, 1, 1, 0.9, 12.0), ("tuned", 1, 5, 0, 1.0, 1.0),
        ],
        columns=["method", "time_steps", "total_steps", "seed", "accuracy", "all_ac"],
    )  # fmt: skip
    found = candidates._one_method(rows)[["method", "time_steps", "accuracy", "all_ac"]]
    assert found.to_numpy().tolist() == [["lmpc", 1, 0.7, 11.0], ["lmpc", 2, 0.9, 3.0]]
    other = candidates._one_method(rows[rows["method"] == "qcfs"].replace("qcfs", "mine"))
    assert other["method"].tolist() == ["mine", "mine"] and candidates._one_method(rows[:0]).empty


def test_plans_are_made_once_for_the_same_parameters_and_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path))
    made, data = [], tiny.blobs(shape=(1, 8, 8))

    def make():
        made.append(planner.Deployment("x", "EC-SNN", 1 / 3, (planner.EdgePart(1.0, 2.0, 3.0, 0.1 + 0.2),) * 2))
        return made[-1:]

    p = ConversionBenchmark()
    first = [candidates.remembered(p, data, [1], make) for _ in range(2)]
    for plans in first:
        exact = {"check_dtype": False, "check_exact": True}
        pd.testing.assert_frame_equal(planner.to_table(plans), planner.to_table(made[:1]), **exact)
    assert len(made) == 1
    candidates.remembered(p, data, [2], make)
    candidates.remembered(ConversionBenchmark(seed=1), data, [1], make)
    candidates.remembered(ConversionBenchmark(out_dir="elsewhere"), data, [1], make)
    assert len(made) == 3


def record(folder, notebook, parameters, **tables) -> None:
    """A recorded run as notebooks leave them."""
    run = Run(Planner(), folder)
    for name, table in tables.items():
        run.save(name, table)
    manifest = json.loads((folder / "run.json").read_text()) | {"notebook": notebook, "parameters": parameters}
    (folder / "run.json").write_text(json.dumps(manifest))


@pytest.fixture
def records(tmp_path):
    """Two data sets: chapter 13 on digits, chapters 21 and 30 on cifar10."""
    columns = {"method": "qcfs", "seed": 0, "time_steps": [1, 2], "total_steps": [1, 2], "accuracy": [0.8, 0.9]}
    rows = pd.DataFrame(columns | {"mac": 10.0, "ac": 20.0, "all_mac": 10.0, "all_ac": 40.0, "relu_accuracy": 0.95})
    given = {"dataset": "digits", "model": "vgg5", "width": 0.25}
    record(tmp_path / "conversion" / "small", "13_conversion_benchmark", given, benchmark=rows)
    columns = {"dense_macs": 1e6, "payload_bits": 1e3, "bytes": 1e4, "joules": 1e-6}
    sizes = {f"{k}_{c}": v * m for c, v in columns.items() for k, m in (("largest", 1.0), ("total", 2.5))}
    point = {"n_devices": 3, "zeta": 90.0} | sizes
    sweep = pd.DataFrame([point | {"accuracy": a, "validation_accuracy": a - 0.1} for a in (0.7, 0.8)])
    given = {"dataset": "cifar10", "model": "vgg5", "width": 1.0, "time_steps": 5}
    record(tmp_path / "splitting" / "vgg5", "21_split_prune_tradeoffs", given, sweep=sweep)
    search = {"split_point": 2, "channels": 8, "stride": 1, "time_steps": 2, "accuracy": 0.6, "bits": 4096}
    search |= {"paper_joules": 1e-6, "counted_joules": 3e-6}
    files = [("raw", None, 3072.0, 0.65), ("jpeg", 50.0, 900.0, 0.6)]
    files = pd.DataFrame(files, columns=["file", "quality", "bytes", "accuracy"])
    given = {"dataset": "cifar10", "model": "resnet50", "width": 0.125, "blocks": [1, 1, 1, 1], "order": "ms"}
    record(tmp_path / "bottleneck" / "r50", "30_split_points", given, search=pd.DataFrame([search]), files=files)
    cells = pd.DataFrame({"ann_accuracy": [0.7]})
    rates = pd.DataFrame({"family": ["spikes, T = 2", "JPEG", "JPEG"], "bytes": [512.0, 700.0, 900.0], "accuracy": 0.5})
    tables = {"search": pd.DataFrame([search | {"accuracy": 0.65}]), "cells": cells, "rates": rates}
    record(tmp_path / "bottleneck" / "grid", "32_compression_accuracy", given, **tables)
    own = [planner.Deployment("own", "EC-SNN", 0.5, (planner.EdgePart(1.0, 2.0),) * 2, data="cifar100")]
    record(tmp_path / "planning" / "all", "40_planner", {"dataset": "cifar100"}, plans=planner.to_table(own))
    return tmp_path


def test_recorded_runs_become_plans_of_their_data_set(records):
    plans = candidates.from_records(records)
    assert {p.data for p in plans} == {"digits", "cifar10", "cifar100"} and len({p.name for p in plans}) == len(plans)
    families = {d: {p.family for p in plans if p.data == d} for d in ("digits", "cifar10")}
    jpeg = {p.name: 8 * p.accuracy for p in plans if p.name.startswith("JPEG")}
    assert jpeg == {"JPEG 50 [r50]": 4.8, "JPEG, 700 B [grid]": 4.0, "JPEG, 900 B [grid]": 4.0}
    raw = next(p for p in plans if p.name == "raw image [grid]")  # without a validation accuracy, as older records are
    assert raw.accuracy == raw.test_accuracy == 0.7
    assert families["digits"] == {"ANN on the device", "SNN on the device", "image to the server"}
    assert families["cifar10"] == {"EC-SNN", "SpikeBottleNet", "ANN on the device", "image to the server"}
    snn = next(p for p in plans if p.name.startswith("SNN, T = 2"))
    assert snn.parts[0].paper_joules == pytest.approx((10 * 4.6 + 20 * 0.9) * 1e-12)
    assert (snn.parts[0].macs, snn.parts[0].acs) == (10, 40)
    layers = count(build("vgg5", n_classes=10, shape=(1, 16, 16), width=0.25), (1, 16, 16))["macs"]
    assert snn.parts[0].dense_macs == layers.iloc[0] + 2 * layers.iloc[1:].sum()


def test_recorded_split_keeps_its_sum_and_its_largest(records):
    split = next(p for p in candidates.from_records(records) if p.family == "EC-SNN")
    assert (split.accuracy, split.test_accuracy) == pytest.approx((0.65, 0.75)) and len(split.parts) == 3
    for field, total in (("dense_macs", 2.5e6), ("bits", 2.5e3), ("bytes", 2.5e4), ("counted_joules", 2.5e-6)):
        each = [getattr(part, field) for part in split.parts]
        assert sum(each) == pytest.approx(total) and max(each) == pytest.approx(total / 2.5)
    assert np.isnan(split.parts[0].paper_joules)


def test_the_commands_of_the_chapter_find_plans_in_what_is_recorded():
    """The command lines of chapter 40 name floors and a deadline that some recorded plan holds."""
    cells = json.loads((ROOT / "notebooks" / "40_planner.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    commands = [dict(re.findall(r"-p (\w+) ([\w.]+)", block)) for block in text.split("python -m snnbook run")[1:]]
    commands = [given for given in commands if "lowest_floor" in given]
    assert {given["dataset"] for given in commands} == {"cifar10", "cifar100"}
    for given in commands:
        values = {k: float(v) if v[0].isdigit() else v for k, v in given.items()}
        p = Planner(**values | {"source": str(ROOT / "results")})
        plans, setting = candidates.collect(p), planner.Situation(
            devices.device(p.profile), planner.radio(p.radio, p.rate, 8 * p.header_bytes, p.shared),
            devices.device(p.server).mac_rate)  # fmt: skip
        assert planner.best(plans, setting, planner.Needs(p.floor, seconds=p.deadline)).accuracy >= p.floor
        assert len(planner.over_floors(plans, setting, planner.Needs(p.lowest_floor)))


def test_source_and_data_set_choose_the_plans(records):
    plans = candidates.collect(Planner(source=str(records), dataset="cifar10"))
    assert {p.data for p in plans} == {"cifar10"}
    rows = planner.table(candidates.from_records(records), planner.Situation(
        planner.Device("d", 1e6, 1, 1e6, 1e6, 1e6, 1e-9, 1e-9, 1e-9), planner.Link(1e5, 1e-9), 1e9))  # fmt: skip
    for data, group in rows.assign(front=planner.front(rows)).groupby("data"):
        assert group.sort_values("accuracy")["front"].iloc[-1], data
    (own,) = candidates.collect(Planner(source=str(records), dataset="cifar100"))
    assert own.name == "own [all]" and len(own.parts) == 2
    with pytest.raises(ValueError, match="recorded in.*nothing"):
        candidates.collect(Planner(source=str(records / "conversion"), dataset="digits"))
