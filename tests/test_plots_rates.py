"""Figures of compression against accuracy show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import plots
from snnbook.experiments import rate_accuracy


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def labels(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_payload_lines_and_their_compression():
    table = pd.DataFrame({"split_point": [1, 2], "map_bytes": [64, 32], "ann_bytes": [8, 4], "snn_bytes": [4, 1],
                          "compression": [16.0, 32.0]})  # fmt: skip
    (ax,) = plots.payload_lines(table, 10).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[64, 32], [8, 4], [4, 1], [10, 10]]
    assert [t.get_text() for t in ax.texts] == ["16×", "32×"] and ax.get_yscale() == "log"


def test_compression_drop_joins_the_front_of_each_reference():
    table = pd.DataFrame(
        {"split_point": [1, 2, 3], "time_steps": [2, 4, 2], "float32": [64.0, 8.0, 128.0], "a": [0.0, 0.01, 0.02],
         "b": [0.03, 0.04, 0.05], "a_front": [True, False, True], "b_front": [True, False, False]}
    )  # fmt: skip
    left, right = plots.compression_drop(table, 0.03, {"a": "one", "b": "other"}).axes
    assert list(left.lines[0].get_xdata()) == [64, 128] and list(left.lines[0].get_ydata()) == [0, 2]
    assert list(right.lines[0].get_ydata()) == [3]
    assert [len(c.get_offsets()) for c in left.collections] == [2, 1]
    np.testing.assert_allclose(left.collections[1].get_offsets(), [[8, 1]])
    assert labels(left) == ["beaten by none", "T = 2", "T = 4", "limit"] and right.get_title() == "other"
    assert [t.get_text() for t in right.texts] == ["1", "2", "3"] and list(right.lines[1].get_ydata()) == [3, 3]


def test_rate_accuracy_joins_what_validation_images_choose():
    spikes = ["spikes, T = 2"] * 5
    table = pd.DataFrame({"family": ["JPEG", *spikes], "bytes": [90, 4, 1, 2, 8, 8],
                          "accuracy": [0.9, 0.6, 0.5, 0.7, 0.8, 0.4],
                          "validation_accuracy": [0.9, 0.6, 0.5, 0.6, 0.65, 0.7]})  # fmt: skip
    (ax,) = plots.rate_accuracy(table, {"ANN": 0.99}).axes
    steps, marks = ax.lines[2], ax.lines[3]
    np.testing.assert_allclose(steps.get_xydata(), [(1, 50), (2, 70), (4, 70), (8, 40), (8, 40)])
    np.testing.assert_allclose(marks.get_ydata(), [50, 70, 60, 40, 80])
    within = rate_accuracy.within(table, [1, 2, 4, 8]).set_index("family").loc["spikes, T = 2"]
    np.testing.assert_allclose(100 * within, [50, 70, 70, 40])
    assert list(ax.lines[-1].get_ydata()) == [99, 99]
    assert labels(ax) == ["JPEG", "spikes, T = 2", "ANN"]


def test_families_of_one_kind_share_a_colour_and_no_two_look_alike():
    names = ["spikes, T = 2", "spikes, T = 4", "codes, 8 bits", "codes, 1 bit", "coded spikes", "random mask, T = 4",
             "PNG", "WebP", "WebP, lossless", "JPEG"]  # fmt: skip
    styles = plots.family_styles(names)
    assert styles["spikes, T = 2"]["color"] == styles["spikes, T = 4"]["color"] != styles["codes, 1 bit"]["color"]
    assert styles["coded spikes"]["color"] != styles["codes, 1 bit"]["color"]
    assert len({(s["color"], s["marker"], s["ls"], s["mfc"]) for s in styles.values()}) == len(names)
    with pytest.raises(KeyError, match="begins with none"):
        plots.family_styles(["telegram"])
