"""The papers' formulas against brute force and hand-worked figures."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnbook import energy, models, syops
from snnbook.neurons import IF


def chain(*body, head=None, time_steps=3):
    net = models.Network(nn.Identity(), nn.Sequential(*body), head or nn.Identity()).eval()
    net.time_steps = time_steps
    return net


def inputs(n, c, size, seed=0):
    return torch.rand(n, c, size, size, generator=torch.Generator().manual_seed(seed))


def test_taps_within_the_image_against_loops():
    net = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(12, 5))
    taps = 0
    for row in (0, 2):
        for column in (0, 2):
            for i in (row - 1, row, row + 1):
                for j in (column - 1, column, column + 1):
                    taps += 0 <= i < 4 and 0 <= j < 4
    table = syops.dense_connections(net, (2, 4, 4))
    assert table["within"].tolist() == [2 * 3 * taps, 60]
    assert table["macs"].tolist() == [4 * 9 * 2 * 3, 60]


def test_taps_within_equal_a_convolution_of_ones():
    shape = {"padding": (1, 2), "dilation": (2, 1)}
    net = nn.Sequential(nn.Conv2d(3, 4, (3, 5), **shape))
    ones = F.conv2d(torch.ones(1, 3, 9, 7), torch.ones(4, 3, 3, 5), **shape).sum().item()
    assert syops.dense_connections(net, (3, 9, 7))["within"].tolist() == [ones]


def test_formula_is_exact_without_pools_and_padding():
    net = chain(IF(0.4), nn.Conv2d(2, 3, 1), IF(0.2, emit=0.2), nn.Conv2d(3, 4, 1))
    for p in net.parameters():
        nn.init.uniform_(p, 0, 1, generator=torch.Generator().manual_seed(1))
    batches = [(inputs(4, 2, 5), torch.zeros(4)), (inputs(2, 2, 5, 1), torch.zeros(2))]
    table = syops.compare(net, batches, (2, 5, 5))
    assert table["pool_area"].tolist() == pytest.approx([1, 1])
    assert table["formula"].tolist() == pytest.approx(table["exact"].tolist())
    assert table["merged"].tolist() == pytest.approx(table["exact"].tolist())
    assert (table["exact"] > 0).all()


def test_a_network_in_training_is_compared_in_eval_mode_and_left_as_it_was():
    net = chain(IF(0.4), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), IF(0.2), nn.Dropout(0.5), nn.Conv2d(3, 4, 1))
    batches = [(inputs(4, 2, 5), torch.zeros(4))]
    expected, statistics = syops.compare(net, batches, (2, 5, 5)), net.body[2].running_mean.clone()
    net.train()
    net.body[4].eval()
    assert syops.compare(net, batches, (2, 5, 5)).equals(expected)
    assert net.body[2].running_mean.equal(statistics) and net.body[2].training and not net.body[4].training


def test_pool_multiplies_arrivals():
    spikes = torch.zeros(1, 1, 4, 4)
    spikes[0, 0, 0, :3] = 1  # two in one window, one in the next
    net = chain(IF(1.0), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 7), time_steps=1)
    row = syops.compare(net, [(spikes, torch.zeros(1))], (1, 4, 4)).iloc[0]
    assert row["rate"] == pytest.approx(3 / 16) and row["macs"] == 28
    assert row["formula"] == pytest.approx(3 / 16 * 28)
    assert row["pool_area"] == 4
    assert row["exact"] == pytest.approx(3 * 7) == pytest.approx(4 * row["formula"])
    assert row["merged"] == 2 * 7


def test_exact_column_is_count_operations():
    net = models.build("vgg5", "lif", shape=(1, 8, 8), width=0.1, time_steps=2, seed=1)
    batches = [(inputs(3, 1, 8), torch.zeros(3))]
    table = syops.compare(net, batches, (1, 8, 8)).set_index("layer")["exact"]
    ops = energy.count_operations(net, batches).query("part == 'connection' and kind == 'ac'")
    assert table.to_dict() == pytest.approx(ops.groupby("layer")["operations"].sum().to_dict())


def test_equation_18_by_hand():
    ratio = syops.equation_18(1000, 100, 0.1, 10).set_index("reading")["ratio"]
    assert ratio["once"] == pytest.approx((100 * 4.6 + 900 * 0.9) / 4600)
    assert ratio["every step"] == pytest.approx((1000 * 4.6 + 900 * 0.9) / 4600)
    assert ratio["left out"] == pytest.approx((1000 - 1000) * 0.9 / 4600)


def test_published_ratio_of_vgg16():
    """Figures of the specification: 113 % per step; the printed 70.06 % with the first layer left out."""
    table = models.build("vgg16", n_classes=100)
    macs = syops.count(table, (3, 32, 32))["macs"]
    ratio = syops.equation_18(macs.sum(), macs.iloc[0], 0.0616, 64).set_index("reading")["ratio"]
    assert round(100 * ratio["every step"]) == 113
    assert round(100 * ratio["left out"], 2) == 70.06
    assert round(100 * ratio["once"], 1) == 77.3


def test_refusals():
    with pytest.raises(ValueError, match="rate = -0.1"):
        syops.equation_18(10, 1, -0.1, 4)
    with pytest.raises(ValueError, match="time_steps = 0"):
        syops.equation_18(10, 1, 0.1, 0)
    with pytest.raises(ValueError, match="net.time_steps"):
        syops.compare(models.build("vgg5", shape=(1, 8, 8), width=0.1), [], (1, 8, 8))
