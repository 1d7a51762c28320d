"""Figures of chapter 22 show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook.plots import placement as plots
from snnbook.splitting.placement import PLACEMENTS


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def words(texts) -> list[str]:
    return [t.get_text() for t in texts]


def test_device_costs_have_a_mark_for_each_part_and_device():
    rows = [(d, part, s, 2 * s) for part, s in (("dense", 1.0), ("link", 0.1)) for d in ("pi", "phone", "chip")]
    seconds, joules = plots.device_costs(pd.DataFrame(rows, columns=["device", "part", "seconds", "joules"])).axes
    assert [list(line.get_xdata()) for line in seconds.lines] == [[1.0] * 3, [0.1] * 3]
    assert [list(line.get_xdata()) for line in joules.lines] == [[2.0] * 3, [0.2] * 3]
    assert list(seconds.lines[1].get_ydata()) == [0, 1, 2]
    assert words(seconds.get_yticklabels()) == ["pi", "phone", "chip"] and seconds.get_xscale() == "log"


def test_loads_are_bars_in_percent_with_names():
    table = pd.DataFrame({"device": ["pi 1", "pi 2"], "sub_models": ["classes 0", "classes 1, classes 2"],
                          "memory_used": [0.5, 0.75], "budget_used": [0.1, 1.0]})  # fmt: skip
    (ax,) = plots.placement_loads(table).axes
    widths = [[bar.get_width() for bar in bars] for bars in ax.containers]
    np.testing.assert_allclose(widths, [[50, 75], [10, 100]])
    assert words(ax.get_yticklabels()) == ["pi 1\nclasses 0", "pi 2\nclasses 1, classes 2"]


def test_gap_curves_end_where_a_rule_finds_nothing():
    table = pd.DataFrame({"rule": ["tightest_memory"] * 4, "seconds_with_link": [2.0, 1.0, np.nan, 1.5],
                          "total_joules_with_link": [1.0, 1.0, np.nan, 1.0]})  # fmt: skip
    latency, energy = plots.greedy_gap(table).axes
    (line,) = latency.lines
    assert list(line.get_xdata()) == [1, 1, 1.5, 2] and list(line.get_ydata()) == [0, 25, 50, 75]
    assert list(energy.lines[0].get_ydata())[-1] == 75
    assert words(latency.get_legend().get_texts()) == [plots.RULE_LABELS["tightest_memory"]]


def test_numbers_one_line_a_measure():
    rows = [(1, "slowest", 50), (3, "slowest", 40), (1, "all", 50), (3, "all", 130)]
    table = pd.DataFrame(rows, columns=["devices", "measure", "percent"])
    (ax,) = plots.device_numbers(table).axes
    assert [list(line.get_ydata()) for line in ax.lines[:2]] == [[50, 40], [50, 130]]
    assert words(ax.get_xticklabels()) == ["1", "3"]


def test_every_rule_has_a_label_of_its_own():
    assert set(plots.RULE_LABELS) == set(PLACEMENTS) and len(set(plots.RULE_LABELS.values())) == len(PLACEMENTS)
