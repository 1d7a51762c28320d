"""Figures of chapter 34 show what their tables say."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from snnbook import plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def sweep() -> pd.DataFrame:
    rows = [("spikes", x, d, 0.9 - x + 0.02 * d) for x in (0.0, 0.1) for d in (0, 1)] + [("1 bit", 0.0, 0, 0.5)]
    return pd.DataFrame(rows, columns=["network", "level", "draw", "accuracy"])


def test_mean_over_draws_with_a_band():
    (ax,) = plots.accuracy_over_noise(sweep(), label="share lost").axes
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([91, 81]) and ax.get_xlabel() == "share lost"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["spikes", "1-bit ANN"]
    assert len(ax.collections) == 2


def test_codes_stand_in_a_panel_of_their_own():
    rows = [("spikes", 0.5, 0.1, 0.2, 1088), ("spikes", 0.5, 0.0, 0.9, 1088), ("jpeg", 0.5, 0.0, 0.95, 4000.5)]
    coded = pd.DataFrame(rows, columns=["network", "rate", "level", "accuracy", "bits"])
    left, ax = plots.accuracy_over_noise(sweep(), coded, "share lost").axes
    assert (left.get_xlabel(), ax.get_xlabel()) == ("share lost", "bit error rate")
    assert ax.lines[0].get_xdata().tolist() == [0.0, 0.1]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([90, 20])
    assert [line.get_label() for line in ax.lines] == ["spikes, rate 0.5: 1,088 bit", "JPEG, rate 0.5: 4,000 bit"]


def test_a_line_of_early_exit_for_each_network_and_level():
    rows = [("spikes", x, b, a) for x in (0.0, 0.1) for b, a in ((512, 0.9), (128, 0.8))]
    (ax,) = plots.exit_curve(pd.DataFrame(rows, columns=["network", "level", "bits", "accuracy"])).axes
    assert [line.get_label() for line in ax.lines] == ["spikes; noise 0", "spikes; noise 0.1"]
    assert ax.lines[0].get_xdata().tolist() == [128, 512]


def test_bars_of_packed_and_coded_bytes():
    rows = [(n, c, 0.4, 64, 60 - i) for n in ("spikes", "sparse") for i, c in enumerate(("tensor", "channel"))]
    (ax,) = plots.coded_bytes(pd.DataFrame(rows, columns=["network", "context", "rate", "packed", "actual"])).axes
    assert [bar.get_height() for bar in ax.patches] == [64, 64, 60, 60, 59, 59]
    assert ax.get_xticklabels()[0].get_text() == "spikes\nfiring rate 0.40"
