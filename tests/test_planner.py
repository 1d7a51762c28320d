"""Plans against brute force: fronts, shared links, ranges of rates, needs that bind, and one plan worked by hand."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnbook import planner
from snnbook.link.channels import departures
from snnbook.planner import Deployment, EdgePart, Line, Link, Needs, Situation
from snnbook.splitting import cost
from snnbook.splitting.cost import Demand
from snnbook.splitting.devices import Device, device

BOARD = Device("board", 1e6, 1.0, 1e6, 1e6, 1e6, 1e-8, 1e-8, 1e-9)
LINK = Link(1e4, 1e-7, 0.1, header_bits=100)
SETTING = Situation(BOARD, LINK, 1e9)


def plan(name="a", accuracy=0.9, macs=1e5, bits=1000, family="SpikeBottleNet", **about) -> Deployment:
    return Deployment(name, family, accuracy, (EdgePart(macs, bits, 1000, 1e-6, 5e-7, macs / 20, macs / 5),), **about)


def three_devices() -> Deployment:
    parts = tuple(EdgePart(m, b, 500) for m, b in ((3e5, 400), (1e5, 2000), (1.5e5, 1000)))
    return Deployment("split", "EC-SNN", 0.9, parts, server_macs=2e6)


def test_one_plan_by_hand():
    """1e5 MACs at 1e6 a second are 100 ms; 1100 bits at 10 kbit/s are 110 ms; server 1e6 MACs at 1e9 are 1 ms."""
    p = plan(server_macs=1e6)
    assert planner.value(p, SETTING, "seconds") == pytest.approx(0.211)
    radio = 1100 * 1e-7 + 0.11 * 0.1
    assert planner.value(p, SETTING, "joules", "board") == pytest.approx(1e-3 + radio)
    assert planner.value(p, SETTING, "joules", "counted") == pytest.approx(1e-6 + radio)
    assert planner.value(p, SETTING, "joules", "paper") == 5e-7
    assert planner.value(p, SETTING, "bytes") == 125
    sparse = replace(SETTING, device=replace(BOARD, skips_zeros=True))
    assert planner.value(p, sparse, "seconds") == pytest.approx(0.136)
    assert planner.value(p, sparse, "joules", "board") == pytest.approx(2.5e-4 + radio)


def test_a_device_that_skips_zeros_has_its_own_rate_and_energy_for_accumulates():
    """5,000 MACs at 1e6 a second and 1e-8 J, 20,000 ACs at 4e6 and 1e-9 J; 110 ms of sending. As in splitting.cost."""
    chip = replace(BOARD, skips_zeros=True, ac_rate=4e6, joules_per_ac=1e-9)
    p, setting = plan(macs=1e5), replace(SETTING, device=chip)
    part, demand = p.parts[0], Demand("a", 1000, 5e3, 2e4, 1000, 1e5)
    assert planner.value(p, setting, "seconds") == pytest.approx(0.010 + 0.110)
    assert planner.compute_seconds(part, chip) == pytest.approx(cost.latency_compute(demand, chip))
    assert planner.compute_joules(part, chip, "board") == pytest.approx(7e-5)
    assert planner.compute_joules(part, chip, "board") == pytest.approx(cost.joules_compute(demand, chip))
    dense = replace(chip, skips_zeros=False)
    assert planner.compute_seconds(part, dense) == pytest.approx(0.1) == cost.latency_compute(demand, dense)
    assert planner.compute_joules(part, dense, "board") == pytest.approx(1e-3)


def test_shared_link_by_hand():
    """Ready at 100, 150, 300 ms with 210, 110, 50 ms of sending: done at 310, 420, 470 ms; the server takes 2 ms."""
    assert planner.value(three_devices(), SETTING, "seconds") == pytest.approx(0.472)
    own = replace(SETTING, link=replace(LINK, shared=False))
    assert planner.value(three_devices(), own, "seconds") == pytest.approx(0.352)


def test_energy_of_several_devices_is_summed_and_the_busiest_is_the_largest():
    each = [m * 1e-8 + (b + 100) * (1e-7 + 0.1 / 1e4) for m, b in ((3e5, 400), (1e5, 2000), (1.5e5, 1000))]
    assert planner.value(three_devices(), SETTING, "joules") == pytest.approx(sum(each))
    assert planner.value(three_devices(), SETTING, "busiest_joules") == pytest.approx(max(each))


@settings(max_examples=60, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 10_000)), min_size=1, max_size=7),
    rate=st.floats(1e2, 1e6),
)
def test_shared_link_is_the_queue_of_the_simulated_link(jobs, rate):
    p = Deployment("x", "EC-SNN", 0.5, tuple(EdgePart(m, b) for m, b in jobs))
    setting = Situation(BOARD, Link(rate, 0.0), 1e9)
    jobs = sorted((m / 1e6, b) for m, b in jobs)
    expected = departures([c for c, _ in jobs], [b for _, b in jobs], rate)[-1]
    assert planner.value(p, setting, "seconds") == pytest.approx(expected, rel=1e-9)


def test_radio_is_the_published_power_model():
    """Wi-Fi at 2 Mbit/s: 283.17 mW a Mbit/s and 132.86 mW are 699.2 mW; over 2 Mbit/s, 349.6 nJ a bit."""
    link = planner.radio("Wi-Fi", 2e6)
    assert link.joules_per_bit + link.watts / link.rate == pytest.approx(0.6992e0 / 2e6, rel=1e-4)


def test_crossover_is_where_both_cost_the_same():
    a, b = Line(0.0, 800.0), Line(0.009, 8.0)
    rate = planner.crossover(a, b)
    assert rate == pytest.approx(88_000) and a.at(rate) == pytest.approx(b.at(rate))
    assert math.isnan(planner.crossover(Line(0.0, 1.0), Line(1.0, 2.0)))
    assert math.isnan(planner.crossover(Line(1.0, 1.0), Line(1.0, 2.0)))


numbers = st.integers(0, 6)
some_plans = st.lists(st.tuples(numbers, numbers, numbers, st.integers(1, 3)), min_size=1, max_size=9)


def made(rows) -> list[Deployment]:
    return [
        Deployment(f"{i}", "EC-SNN", a / 10, tuple(EdgePart(1e4 * m, 100 * b, 100 * m) for _ in range(n)))
        for i, (a, m, b, n) in enumerate(rows)
    ]


@settings(max_examples=60, deadline=None)
@given(rows=some_plans)
def test_front_is_that_of_every_pair(rows):
    table = planner.table(made(rows), SETTING)
    values = np.column_stack([-table["accuracy"], table[["board_joules", "seconds", "bytes"]]])
    beaten = [any((a <= b).all() and (a < b).any() for a in values) for b in values]
    assert planner.front(table).tolist() == [not x for x in beaten]


def test_data_sets_have_fronts_of_their_own():
    table = planner.table([plan("a", 0.9, data="one"), plan("b", 0.5, data="two"), plan("c", 0.4, data="two")], SETTING)
    assert planner.front(table).tolist() == [True, True, False]


@settings(max_examples=60, deadline=None)
@given(
    rows=some_plans,
    floor=st.sampled_from((0.0, 0.3)),
    deadline=st.sampled_from((math.inf, 0.2)),
    by=st.sampled_from(("seconds", "joules", "busiest_joules")),
    shared=st.booleans(),
    position=st.floats(0, 1),
)
def test_ranges_are_those_of_brute_force(rows, floor, deadline, by, shared, position):
    plans, needs = made(rows), Needs(floor, deadline)
    setting = Situation(BOARD, replace(LINK, shared=shared), 1e9)
    found = planner.ranges(plans, setting, needs, by, low=1e3, high=1e7)
    assert found["rate_high"].iloc[0] == pytest.approx(1e7) and found["rate_low"].iloc[-1] == pytest.approx(1e3)
    assert found["rate_low"].iloc[:-1].to_numpy() == pytest.approx(found["rate_high"].iloc[1:].to_numpy())
    for r in found.itertuples():
        at = setting.at(1 / ((1 - position) * 0.99 / r.rate_low + (0.01 + 0.98 * position) / r.rate_high))
        if not r.rate_low < at.link.rate < r.rate_high:
            continue
        costs = {
            p.name: planner.value(p, at, by)
            for p in plans
            if p.accuracy >= floor and planner.value(p, at, "seconds") <= deadline
        }
        assert (r.plan in costs) == bool(costs)
        assert not costs or costs[r.plan] == pytest.approx(min(costs.values()), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(rows=some_plans)
def test_a_slower_link_never_asks_for_more_bits(rows):
    """Costs of one device are straight lines in 1/r, so the lower envelope bends towards smaller slopes."""
    plans = made([(a, m, b, 1) for a, m, b, _ in rows])
    for by in ("seconds", "joules"):
        bits = planner.ranges(plans, SETTING, by=by)["bits"]
        assert (bits.diff().dropna() <= 0).all()


def test_lines_through_one_point_make_one_border():
    """Ready after 20, 30, 40 ms with 600, 400, 200 bits: all three meet at 20 kbit/s, but for rounding."""
    found = planner.ranges(made([(0, 3, 3, 1), (0, 4, 1, 1), (1, 2, 5, 1)]), SETTING, by="seconds")
    assert found["bits"].tolist() == [600, 200] and found["rate_low"].iloc[0] == pytest.approx(2e4)


def test_over_floors_covers_every_accuracy_once():
    plans = [plan("a", 0.9, 1e4, 5000), plan("b", 0.8, 1e3, 100), plan("c", 0.95, 9e5, 10)]
    map_ = planner.over_floors(plans, SETTING, Needs(0.7), by="seconds", low=1e3, high=1e7)
    floors = map_[["floor_low", "floor_high"]].drop_duplicates()
    assert floors.to_numpy().tolist() == [[0.7, 0.8], [0.8, 0.9], [0.9, 0.95]]
    for floor, rows in map_.groupby("floor_high"):
        alone = planner.ranges(plans, SETTING, Needs(floor), "seconds", low=1e3, high=1e7)
        pd.testing.assert_frame_equal(rows.iloc[:, 2:].reset_index(drop=True), alone)


def test_why_names_the_need_without_which_less_would_do():
    cheap, good = plan("cheap", 0.8, 1e4, 10), plan("good", 0.95, 5e4, 10)
    table = planner.why([cheap, good], SETTING, Needs(accuracy=0.9, seconds=10.0)).set_index("need")
    assert list(table.index) == ["accuracy", "seconds"]
    assert table["binds"].tolist() == [True, False] and table.loc["accuracy", "without"] == "cheap"


def test_private_and_memory_leave_plans_out():
    image, small = plan("image", 0.9, 0, 10, "image to the server"), plan("small", 0.9, 1e4, 10)
    large = replace(small, name="large", parts=(replace(small.parts[0], bytes=5000, dense_macs=0),))
    every = [image, small, large]
    assert planner.best(every, SETTING).name == "image"
    assert planner.best(every, SETTING, Needs(private=True)).name == "large"
    assert planner.best(every, SETTING, Needs(private=True, memory=2000)).name == "small"


def test_no_plan_says_what_is_too_much():
    plans = [plan("slow", 0.95, 9e5, 10), plan("fast", 0.8, 1e3, 10)]
    with pytest.raises(planner.NoPlan, match="accuracy 0.99"):
        planner.best(plans, SETTING, Needs(accuracy=0.99))
    with pytest.raises(planner.NoPlan, match="accuracy 0.9, seconds 0.1, although for each"):
        planner.best(plans, SETTING, Needs(accuracy=0.9, seconds=0.1))


@pytest.mark.parametrize("needs", [Needs(), Needs(accuracy=0.5)])
def test_an_account_by_which_no_plan_is_known_is_named(needs):
    unknown = replace(plan("unknown"), parts=(EdgePart(10, 10),))
    with pytest.raises(planner.NoPlan, match="^no plan is known by its joules in the account 'paper'$"):
        planner.best([unknown], SETTING, needs, account="paper")
    assert planner.best([unknown], SETTING, needs).name == "unknown"


def test_unknown_energy_takes_no_part():
    known, unknown = plan("known"), replace(plan("unknown"), parts=(EdgePart(10, 10),))
    assert planner.best([known, unknown], SETTING, account="paper").name == "known"
    table = planner.table([known, unknown], SETTING)
    assert planner.front(table, "paper").tolist() == [True, False]
    assert planner.front(table, "board").tolist() == [False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EdgePart(-1.0, 0),
        lambda: EdgePart(math.nan, 0),
        lambda: plan(accuracy=1.5),
        lambda: plan(test_accuracy=-0.1),
        lambda: plan(family="quantum"),
        lambda: Link(0.0, 1e-9),
        lambda: Link(1e3, -1.0),
        lambda: Needs(seconds=0.0),
        lambda: Situation(BOARD, LINK, 0.0),
        lambda: planner.radio("smoke", 1e3),
        lambda: planner.value(plan(), SETTING, "beauty"),
        lambda: planner.value(plan(), SETTING, "joules", "none"),
        lambda: planner.best([plan(data="one"), plan("b", data="two")], SETTING),
        lambda: planner.ranges([plan()], SETTING, low=10.0, high=1.0),
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="not allowed"):
        wrong()


def test_tables_of_plans_read_back():
    plans = [three_devices(), plan(data="digits", network="vgg9"), replace(plan("b"), parts=(EdgePart(1, 2),))]
    text = io.StringIO(planner.to_table(plans).to_csv(index=False))
    again = planner.from_table(pd.read_csv(text))
    pd.testing.assert_frame_equal(planner.to_table(again), planner.to_table(plans), check_dtype=False)
    assert [p.name for p in again] == ["split", "a", "b"] and len(again[0].parts) == 3


def test_real_profiles_make_a_setting():
    pi = Situation(device("raspberry_pi_4b"), planner.radio("LTE", 6e6, 224), device("jetson_nano").mac_rate)
    rows = planner.over_rates([plan(), three_devices()], pi, [1e3, 1e6])
    assert rows.groupby("plan")["seconds"].agg(lambda s: s.is_monotonic_decreasing).all()
