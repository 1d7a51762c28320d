"""Figures of the chapters on SpikeBottleNet show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots
from snnbook.bottleneck.energy import ITEMS


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def labels(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def heights(ax):
    return [patch.get_height() for patch in ax.patches]


def test_map_sizes_one_line_a_way_and_the_references():
    table = pd.DataFrame({"split_point": [1, 2], "floats": [64, 32], "spikes": [8, 4]})
    (ax,) = plots.map_sizes(table, {"image": 10}).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[64, 32], [8, 4], [10, 10]]
    assert labels(ax) == ["floats", "spikes", "image"] and ax.get_yscale() == "log"


def test_work_split_in_percent_of_the_last():
    points = pd.DataFrame({"split_point": [1, 2], "cumulative_macs": [25, 100], "parameters": [1, 10]})
    (ax,) = plots.work_split(points).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[25, 100], [10, 100]]


def test_cuts_plane_joins_the_front_and_numbers_every_point():
    table = pd.DataFrame(
        {"split_point": [1, 2, 3], "bytes": [8, 8, 2], "mj": [1.0, 2.0, 3.0], "mj_front": [True, False, True]}
    )
    (ax,) = plots.cuts_plane(table, {"mj": "printed"}).axes
    assert list(ax.lines[0].get_xdata()) == [1, 3] and list(ax.lines[0].get_ydata()) == [8, 2]
    assert [t.get_text() for t in ax.texts] == ["1", "2", "3"] and ax.get_title() == "printed"
    np.testing.assert_allclose(ax.collections[0].get_offsets(), table[["mj", "bytes"]])


def test_price_of_a_bit_marks_the_least():
    prices = np.array([1.0, 10.0])
    totals = {"a": np.array([1.0, 9.0]), "b": np.array([2.0, 3.0])}
    (ax,) = plots.price_of_a_bit(prices, totals, {"Wi-Fi": 5.0}).axes
    assert list(ax.lines[0].get_ydata()) == [1.0, 3.0] and labels(ax) == ["least", "a", "b"]
    assert [t.get_text() for t in ax.texts] == ["Wi-Fi"] and ax.lines[-1].get_xdata()[0] == 5.0


def test_codec_picture_has_four_boxes():
    (ax,) = plots.codec_picture().axes
    assert len(ax.patches) == 4
    assert {"encoder", "decoder", "device", "server"} <= {t.get_text() for t in ax.texts}


def test_payload_bars_are_both_methods():
    table = pd.DataFrame({"split_point": [1, 2], "ann_bytes": [16, 8], "snn_bytes": [4, 2]})
    (ax,) = plots.payload_bars(table, 10).axes
    assert heights(ax) == [16, 8, 4, 2] and ax.lines[0].get_ydata()[0] == 10
    assert ax.get_ylim()[0] == 0.5


def test_accuracy_against_bytes_is_in_percent_and_ordered():
    table = pd.DataFrame({"method": ["a", "a", "b"], "bytes": [4, 1, 2], "accuracy": [0.9, 0.8, 0.7]})
    (ax,) = plots.accuracy_against_bytes(table, {"ANN": 0.95}).axes
    assert list(ax.lines[0].get_xdata()) == [1, 4] and list(ax.lines[0].get_ydata()) == [80, 90]
    assert labels(ax) == ["a", "b", "ANN"] and ax.lines[2].get_ydata()[0] == 95


def test_implied_rates_two_rows_and_the_time_steps():
    table = pd.DataFrame({"split_point": [1, 2], "time_steps": [4, 2], "rate": [0.5, 0.4], "rolls_rate": [0.5, 0.39]})
    (ax,) = plots.implied_rates(table).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.5, 0.4], [0.5, 0.39]]
    assert [t.get_text() for t in ax.texts] == ["T=4", "T=2"]


def test_device_energy_stacks_items_to_the_sum():
    items = (*ITEMS, "memory", "radio")
    rows = [(s, n, item, 1.0 + i) for s in (1, 4) for n in ("ANN", "SNN") for i, item in enumerate(items)]
    table = pd.DataFrame(rows, columns=["split_point", "network", "item", "millijoules"])
    (ax,) = plots.device_energy(table).axes
    tops = {}
    for patch in ax.patches:
        x = round(patch.get_x(), 3)
        tops[x] = max(tops.get(x, 0), patch.get_y() + patch.get_height())
    assert list(tops.values()) == [28.0] * 4
    assert labels(ax) == [label for label, _ in plots.ENERGY_ITEMS.values()]
    assert set(plots.ENERGY_ITEMS) == {*ITEMS, "memory", "radio"}


def test_block_activity_rates_and_thousands():
    rates = pd.DataFrame({"block": [1, 2], "rate": [0.3, 0.2], "cumulative_rate": [0.3, 0.25]})
    operations = pd.DataFrame({"block": [1, 2], "formula": [1000, 2000], "counted": [1500, 500]})
    left, right = plots.block_activity(rates, operations).axes
    assert [list(line.get_ydata()) for line in left.lines] == [[0.3, 0.2], [0.3, 0.25]]
    assert heights(right) == [1, 2, 1.5, 0.5] and labels(right) == ["formula", "counted"]
