"""Figures of chapters 13 and 14 show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import conversion, plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_trade_off_draws_means_over_seeds_in_order_of_time():
    rows = [(m, s, t, 10.0 * t, 0.2 * s + 0.1 * t) for m in ("qc", "own") for s in (0, 1) for t in (1, 4)]
    table = pd.DataFrame(rows, columns=["method", "seed", "time_steps", "cost", "accuracy"])
    front = pd.DataFrame({"cost": [10.0, 40.0], "accuracy": [0.2, 0.5]})
    (ax,) = plots.trade_off(table, "cost", "joules", front).axes
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["Phase I", "own"]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[10, 20], [40, 50]])
    np.testing.assert_allclose(ax.lines[2].get_xydata(), [[10, 20], [40, 50]])  # the front
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "joules"


def test_trade_off_has_a_tick_for_each_number_of_steps_and_leaves_out_nothing_for_nothing():
    table = pd.DataFrame(
        {"method": "a", "time_steps": [1, 2], "total_steps": [5, 6], "none": [0.0, 3.0], "accuracy": 0.5}
    )
    (ax,) = plots.trade_off(table, "total_steps", "steps").axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["5", "6"]
    (ax,) = plots.trade_off(table, "none", "spikes").axes
    assert ax.lines[0].get_xdata().tolist() == [3.0]


def test_no_two_curves_look_alike():
    table = pd.DataFrame({"method": [f"m{i}" for i in range(28)], "time_steps": 1, "cost": 1.0, "accuracy": 0.5})
    (ax,) = plots.trade_off(table, "cost", "cost").axes
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == 28


def test_every_method_has_a_short_name_of_its_own():
    names = {name: plots.METHOD_NAMES.get(name) for name in conversion.METHODS}
    assert all(names.values()) and len(set(names.values())) == len(names)


def test_layer_rates_beside_spikes_per_connection():
    rates = {4: pd.DataFrame({"rate": [0.1, 0.2]}), 8: pd.DataFrame({"rate": [0.3, 0.4]})}
    connections = {t: pd.DataFrame({"per_connection": [0.0, 1.0, float(t)]}) for t in (4, 8)}
    left, right = plots.layer_rates(rates, connections, 5.1).axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[0.1, 0.2], [0.3, 0.4]]
    assert right.lines[1].get_xydata().tolist() == [[2, 1.0], [3, 8.0]]  # the first layer sees no spikes
    assert right.lines[2].get_ydata()[0] == 5.1


def test_ratio_over_time_in_percent():
    table = pd.DataFrame({"account": ["once"] * 2, "time_steps": [1, 4], "ratio": [0.1, 0.4]})
    (ax,) = plots.ratio_over_time(table).axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [10, 40])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "4"]


def test_traffic_bars_are_stacked_to_the_sum():
    table = pd.DataFrame(
        {"schedule": ["x", "y"], "weights": [1e6, 2e6], "activations": [0, 1e6], "potentials": [3e6, 0]}
    )
    first, second = plots.traffic_bars({"one": table, "two": table}).axes
    ends = [bar.get_x() + bar.get_width() for bar in first.patches[-2:]]
    np.testing.assert_allclose(ends, [4, 3])
    assert first.get_title() == "one" and second.get_title() == "two"


def test_recorded_runs_are_shown_one_by_one_without_what_their_rows_share():
    values = {"method": ["qc", "lmpc", "qc"], "T = 1": [1.0, 2.0, np.nan], "T = 2": [3.0, np.nan, 4.0]}
    rows = pd.DataFrame({"run": ["one", "one", "two"], "dataset": "digits", "model": "vgg5"} | values)
    html = plots.run_tables(rows, "{:.1f}", "Accuracy", methods={"qc": "Phase I"}).data
    first, second = html.split("</table>")[:2]
    assert "Accuracy: digits, vgg5, run one" in first and "run two" in second
    assert "Phase I" in first and "lmpc" in first and "1.0" in first and "–" in first
    assert "4.0" in second and "T = 1" not in second and "run</th>" not in html
    assert plots.run_tables(rows.iloc[:0], "{:.1f}", "Accuracy") == "no recorded run yet"


def test_recorded_runs_have_run_data_and_width_in_their_captions():
    rows = pd.DataFrame({"run": ["one", "two"], "dataset": "digits", "width": [0.25, 1.0], "a": [1.5, 2.5]})
    rows["b"] = [np.nan, 3.0]
    formats, names = {"first": "{:.2f}", "second": "{:.0%}"}, {"b": "second", "a": "first"}
    html = plots.run_tables(rows, formats, "Drops", names=names).data
    one, two = html.split("</table>")[:2]
    assert "Drops: digits, width 0.25, run one" in one and "1.50" in one and "second" not in one
    assert "Drops: digits, width 1, run two" in two and two.index("300%") < two.index("2.50")
    told = plots.run_tables(rows, {}, "Drops", names={"a": "first"}, about={"b": "b = {:g}"}).data
    assert "digits, width 0.25, run one" in told and "digits, width 1, b = 3, run two" in told


@pytest.mark.parametrize(
    ("points", "verb", "said"),
    [(0.74, "loses", "loses 0.7 points"), (-0.77, "loses", "gains 0.8 points"), (-3, "lose", "gain 3.0 points"),
     (-0.04, "lose", "lose 0.0 points")],
)  # fmt: skip
def test_words_of_a_drop_follow_its_sign(points, verb, said):
    assert plots.change(points, verb) == said
    with pytest.raises(ValueError, match="^verb = 'falls' is not allowed"):
        plots.change(points, "falls")
