"""Layers, readings of equation (18) and bytes against counts by hand and against the counters of chapter 2."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from snnbook import models, syops
from snnbook.bottleneck.backbone import split_points, twin
from snnbook.energy import count_operations
from snnbook.experiments import conversion_energy
from snnbook.network import Network
from snnbook.neurons import IF
from snnbook.record import firing_rates


@pytest.fixture
def small():
    """1×4×4 images, convolution to 2 channels, IF, 2×2 average pool, linear 8 → 3."""
    body = nn.Sequential(IF(0.5), nn.AvgPool2d(2))
    net = Network(nn.Conv2d(1, 2, 3, padding=1), body, nn.Sequential(nn.Flatten(), nn.Linear(8, 3)))
    with torch.no_grad():
        for q in net.parameters():
            q.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    net.time_steps = 3
    return net


@pytest.fixture
def batches():
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return [(x[:4], torch.zeros(4)), (x[4:], torch.zeros(2))]


def test_layers_agree_with_the_counters(small, batches):
    neurons, connections = conversion_energy.layers(small, batches, (1, 4, 4))
    pd.testing.assert_frame_equal(neurons, firing_rates(small, batches))
    counted = (
        count_operations(small, batches).query("part == 'connection'").groupby(["layer", "kind"])["operations"].sum()
    )
    assert connections["mac"].tolist() == [counted["stem", "mac"], 0]
    assert connections["ac"].tolist() == [0, pytest.approx(counted["head.1", "ac"])]
    assert connections["macs"].tolist() == [16 * 9 * 2, 24]
    assert connections["within"].tolist() == [10 * 10 * 2, 24]  # 4 + 3 + 3 of 3 · 4 taps along each axis
    np.testing.assert_allclose(connections["per_connection"], connections["ac"] / connections["within"])
    # each spike passes the pool and meets three connections
    assert connections["ac"].iloc[1] == pytest.approx(3 * neurons["spikes"].iloc[0] / 6)


def test_readings_by_hand():
    connections = pd.DataFrame({"macs": [100, 900], "mac": [90.0, 0.0], "ac": [0.0, 500.0]})
    table = conversion_energy.readings(connections, rate=0.1, time_steps=4).set_index(["count", "reading"])["ratio"]
    assert table["exact", "once"] == pytest.approx((90 * 4.6 + 500 * 0.9) / 4600)
    assert table["exact", "every step"] == pytest.approx((360 * 4.6 + 500 * 0.9) / 4600)
    formula = syops.equation_18(1000, 90, 0.1, 4).set_index("reading")["ratio"]
    assert table["rate × T × MACs"].to_dict() == pytest.approx(formula.to_dict())


def test_neurons_of_ann_and_snn_are_the_same():
    shape = (3, 32, 32)
    expected = 2 * 64 * 32**2 + 2 * 128 * 16**2 + 3 * 256 * 8**2 + 3 * 512 * 4**2 + 3 * 512 * 2**2
    assert conversion_energy.neurons(models.build("vgg16"), shape) == expected
    spiking = models.build("vgg16", "if", time_steps=7)
    assert conversion_energy.neurons(spiking, shape) == expected and spiking.time_steps == 7


def test_traffic_by_hand(small):
    """20 parameters in the first layer, 27 in the second, 32 neurons, a drive of 32 numbers, 16 pixels."""
    table = conversion_energy.traffic(small, (1, 4, 4), time_steps=3, accumulates=10, spikes=5, bits=16)
    table = table.set_index("schedule")
    assert table.loc["ANN"].tolist() == [2 * 47, 2 * (16 + 64), 0]
    assert table.loc["SNN, step by step"].tolist() == [2 * (20 + 3 * 27), 2 * (16 + 4 * 32) + 24, 2 * 3 * 32 * 2]
    assert table.loc["SNN, layer by layer"].tolist() == [2 * 47, 2 * (16 + 64) + 24, 0]
    assert table.loc["SNN, event by event"].tolist() == [2 * 30, 2 * (16 + 128 + 10), 2 * 20 + 384]


@pytest.mark.parametrize("given", [{"time_steps": 0}, {"bits": 0}])
def test_traffic_refuses(small, given):
    with pytest.raises(ValueError, match=f"{next(iter(given))} = 0 is not allowed"):
        conversion_energy.traffic(small, (1, 4, 4), **({"time_steps": 1, "accumulates": 1, "spikes": 1} | given))


def test_memory_joules_are_those_of_the_published_table():
    assert conversion_energy.memory_joules(8) == pytest.approx(100e-12)
    assert conversion_energy.memory_joules(16, "8 KB SRAM") == pytest.approx(20e-12)
    assert conversion_energy.memory_joules(4, "DRAM") == pytest.approx(650e-12)
    with pytest.raises(ValueError, match="memory = 'tape' is not allowed: one of 8 KB SRAM"):
        conversion_energy.memory_joules(8, "tape")


def test_macs_of_blocks_leave_out_padding():
    """Two blocks at 4 × 4: 1 × 1, 3 × 3 of which (4 + 3 + 3)² of (3 · 4)² connections are no padding, 1 × 1."""
    net = twin(n_classes=3, shape=(1, 4, 4), width=1 / 16, blocks=(2,)).eval()
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    points, found = split_points(net, (1, 4, 4)), conversion_energy.block_macs(net, [(x, torch.zeros(3))])
    padding = [c**2 * (12**2 - 10**2) for c in (4, 4)]
    assert found == [m - p for m, p in zip(points["macs"], padding, strict=True)]


def test_joules_of_schedules_by_hand():
    """16 bytes are two reads; 10 MACs of an ANN against 2 MACs and 20 ACs of an SNN, by two models of energy."""
    columns = {"weights": [8.0, 24.0], "activations": [8.0, 0.0], "potentials": [0.0, 8.0]}
    moved = pd.DataFrame({"schedule": ["ANN", "SNN, step by step"]} | columns)
    table = conversion_energy.traffic_joules(moved, 10, 2, 20).set_index("schedule")
    assert table["MB"].tolist() == [16e-6, 32e-6]
    assert table["arithmetic, mJ"].tolist() == pytest.approx([46e-9, (9.2 + 18) * 1e-9])
    assert table["1 MB SRAM, mJ"].tolist() == pytest.approx([200e-9, 400e-9])
    assert table["DRAM, mJ"].tolist() == pytest.approx([2600e-9, 5200e-9])
    other = conversion_energy.traffic_joules(moved, 10, 2, 20, "45nm_int8").set_index("schedule")
    assert other["arithmetic, mJ"].tolist() == pytest.approx([2.3e-9, (0.46 + 0.6) * 1e-9])
    assert other["DRAM, mJ"].tolist() == table["DRAM, mJ"].tolist()
    with pytest.raises(ValueError, match="model"):
        conversion_energy.traffic_joules(moved, 10, 2, 20, "none")
    with pytest.raises(ValueError, match="macs = -1"):
        conversion_energy.traffic_joules(moved, 10, -1, 20)


def test_break_even_between_measured_times():
    assert conversion_energy.break_even_steps([2, 4, 8], [0.25, 0.5, 1.5]) == pytest.approx(6)
    assert conversion_energy.break_even_steps([4], [2.0]) == pytest.approx(2)
    assert conversion_energy.break_even_steps([4, 8], [0.1, 0.2]) == math.inf
