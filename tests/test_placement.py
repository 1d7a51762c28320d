"""Placements against brute force, budgets on random instances, and Algorithm 1 with its defects."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnbook.splitting import cost, placement
from snnbook.splitting.cost import Demand
from snnbook.splitting.devices import Device
from snnbook.splitting.placement import (
    PLACEMENTS,
    InfeasiblePlacement,
    as_printed,
    assign,
    exact,
    greedy,
    place,
    within_budget,
)


def device(name, memory=1000, budget=1000, rate=100.0, link=100.0, each=1.0):
    """A dense processor whose MAC costs ``each`` joules and whose bit costs a hundredth of that."""
    return Device(str(name), memory, budget, rate, rate, link, each, each, each / 100)


def demand(name, size, macs=10.0, bits=10.0):
    return Demand(str(name), size, macs, 0, bits)


@st.composite
def instances(draw, most=6):
    """Few sub-models and devices with small whole numbers, often just enough; some memory is endless."""
    numbers = st.integers(1, 9)
    memory = numbers | st.just(math.inf)
    devices = [
        device(f"d{i}", draw(memory), 10 * draw(numbers), draw(numbers), draw(numbers), draw(st.sampled_from([1, 2])))
        for i in range(draw(st.integers(1, 4)))
    ]
    demands = [demand(i, draw(numbers), draw(numbers), draw(numbers)) for i in range(draw(st.integers(1, most)))]
    return demands, devices, draw(st.booleans())


def brute_force(demands, devices, shared, value):
    """Least ``value(assignment)`` over all allowed placements; None if there is none."""
    every = itertools.product(range(len(devices)), repeat=len(demands))
    allowed = [
        a
        for a in every
        if (shared or len(set(a)) == len(a))
        and all(sum(s.bytes for s, j in zip(demands, a, strict=True) if j == i) <= d.memory
                and sum(cost.joules(s, d) for s, j in zip(demands, a, strict=True) if j == i) <= d.energy_budget
                for i, d in enumerate(devices))
    ]  # fmt: skip
    return min(map(value, allowed), default=None)


def values(demands, devices):
    """The three objectives of the exact placement, computed from the table of costs."""

    def totals(assignment):
        return cost.totals(cost.per_device(demands, devices, assignment))

    return {
        "latency": lambda a: totals(a)["seconds_with_link"],
        "energy": lambda a: totals(a)["total_joules_with_link"],
        "devices": lambda a: totals(a)["devices"],
    }


@settings(max_examples=60, deadline=None)
@given(instances(most=4), st.sampled_from(["latency", "energy", "devices"]))
def test_the_exact_placement_is_that_of_brute_force(instance, objective):
    demands, devices, shared = instance
    value = values(demands, devices)[objective]
    best = brute_force(demands, devices, shared, value)
    if best is None:
        with pytest.raises(InfeasiblePlacement):
            exact(demands, devices, shared, objective)
    else:
        found = exact(demands, devices, shared, objective)
        assert value(found) == pytest.approx(best, rel=1e-6)


def spread(rates, slow, seed, shared):
    """Three sub-models, four boards with rates from ``rates`` to five times that, and one slow and dear chip.

    The chip is too small for any sub-model; where devices are ``shared``, it holds all, but no board holds two.
    """
    rng = np.random.default_rng(seed)
    boards = [(f"board {i}", 100_000, rates * rng.uniform(1, 5), 1e9) for i in range(4)]
    fleet = [*boards, ("chip", 300_000 if shared else 10_000, slow, 1e6)]
    devices = [Device(n, size, 1e12, rate, rate, link, 1 / rate, 1 / rate, 0) for n, size, rate, link in fleet]
    sizes = rng.integers(55_000, 100_000, 3)
    demands = [demand(i, int(b), rng.uniform(1e6, 1e8), rng.uniform(1e3, 1e5)) for i, b in enumerate(sizes)]
    return demands, devices


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rates, slow", [(5e11, 1e5), (1e12, 1e5), (1e12, 1e8), (1e5, 1e5), (1e5, 1e12)])
@pytest.mark.parametrize("objective", ["latency", "energy", "devices"])
def test_the_optimum_is_met_where_devices_differ_by_seven_powers_of_ten(objective, rates, slow, shared):
    """Beside the pairs with the slow chip, the seconds and joules of all others are below the solver's tolerances."""
    for seed in range(8):
        demands, devices = spread(rates, slow, seed, shared)
        value = values(demands, devices)[objective]
        best = brute_force(demands, devices, shared, value)
        assert value(exact(demands, devices, shared, objective)) == pytest.approx(best, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(5, 12), min_size=3, max_size=4), st.integers(0, 99), st.booleans())
def test_the_optimum_is_met_for_rates_of_any_power_of_ten(powers, seed, shared):
    rng = np.random.default_rng(seed)
    devices = [Device(f"d{i}", 1000, 1e9, r, r, 1e3 * r, 1 / r, 1 / r, 0)
               for i, r in enumerate(10.0 ** np.array(powers) * rng.uniform(1, 5, len(powers)))]  # fmt: skip
    demands = [demand(i, int(rng.integers(200, 800)), rng.uniform(1e5, 1e8)) for i in range(3)]
    for objective, value in values(demands, devices).items():
        best = brute_force(demands, devices, shared, value)
        assert value(exact(demands, devices, shared, objective)) == pytest.approx(best, rel=1e-5)


@settings(max_examples=80, deadline=None)
@given(instances(), st.sampled_from(list(PLACEMENTS)))
def test_no_rule_is_ever_over_budget(instance, rule):
    demands, devices, shared = instance
    try:
        found = assign(demands, devices, rule, shared)
    except InfeasiblePlacement:
        return
    assert within_budget(demands, devices, found)
    table = cost.per_device(demands, devices, found)
    assert (table["memory_used"] <= 1).all() and (table["budget_used"] <= 1 + 1e-12).all()
    assert shared or len(set(found)) == len(found)


@settings(max_examples=60, deadline=None)
@given(instances())
def test_greedy_never_beats_the_optimum_and_places_nothing_that_cannot_be(instance):
    demands, devices, shared = instance
    for prefer in ("memory", "energy"):
        try:
            found = greedy(demands, devices, shared, prefer)
        except InfeasiblePlacement:
            continue
        for objective, value in values(demands, devices).items():
            best = exact(demands, devices, shared, objective)
            assert value(best) <= value(found) * (1 + 1e-9)


def test_greedy_fails_where_the_optimum_exists():
    """The larger model takes the device that only the smaller one, which needs more energy, could not do without."""
    tight = device("tight", memory=10, budget=100)
    wide = device("wide", memory=20, budget=30)
    demands = [demand("large", 9, macs=20), demand("small", 8, macs=90)]
    for prefer in ("memory", "energy"):
        with pytest.raises(InfeasiblePlacement) as raised:
            greedy(demands, [tight, wide], prefer=prefer)
        why = "small needs 8 bytes and 90.1 J per sample, and what is left is wide: 20 bytes, 30 J"
        assert why in str(raised.value)
        assert "not all together" not in str(raised.value)  # they do fit together
    assert exact(demands, [tight, wide]) == [1, 0]


def test_only_the_exact_placement_says_that_all_together_do_not_fit():
    demands, devices = [demand("a", 6), demand("b", 5)], [device("d", 10), device("e", 4)]
    with pytest.raises(InfeasiblePlacement, match="each of 2 sub-models fits somewhere, but not all toge") as raised:
        exact(demands, devices, shared=True)
    assert "a needs 6 bytes and 10.1 J per sample, fits on d; b needs 5 bytes and 10.1 J" in str(raised.value)
    assert "all that fit on d need 11 bytes together, and it has 10. Devices" in str(raised.value)
    stuck = "b needs 5 bytes and 10.1 J per sample, and what is left is d: 4 bytes, 990 J per sample; e: 4 bytes"
    with pytest.raises(InfeasiblePlacement, match=stuck):
        greedy(demands, devices, shared=True)


def test_the_exact_placement_names_the_budget_that_binds():
    """Two models of 1000 bytes and 6 mJ on one device with plenty of memory and 10 mJ."""
    devices, demands = [device("edge", 10**9, 0.010, each=1e-9)], [demand(n, 1000, macs=6e6, bits=0) for n in "ab"]
    with pytest.raises(InfeasiblePlacement) as raised:
        exact(demands, devices, shared=True)
    assert "a needs 1000 bytes and 0.006 J per sample, fits on edge" in str(raised.value)
    assert "all that fit on edge need 0.012 J per sample together, and it has 0.01." in str(raised.value)
    assert "bytes together" not in str(raised.value)


def test_two_models_that_fit_on_the_same_device_only_are_named_with_it():
    devices = [device("wide", 10), device("d", 4), device("e", 4)]
    why = "a needs 6 bytes .* fits on wide; b needs 5 bytes .* fits on wide; c .* fits on wide, d, e. Devices"
    with pytest.raises(InfeasiblePlacement, match=why):
        exact([demand("a", 6), demand("b", 5), demand("c", 1)], devices)


@settings(max_examples=60, deadline=None)
@given(instances(most=4))
def test_where_devices_are_shared_a_sum_always_tells_why(instance):
    demands, devices, _ = instance
    try:
        exact(demands, devices, shared=True)
    except InfeasiblePlacement as error:
        assert "no device has that" in str(error) or "together, and it has" in str(error)


def test_endless_memory_is_filled_like_any_other():
    devices = [device(name, math.inf) for name in "abc"]
    demands = [demand(i, 10 - i) for i in range(3)]
    for prefer in ("memory", "energy"):
        assert sorted(greedy(demands, devices, prefer=prefer)) == [0, 1, 2]
    assert greedy([demand(0, 5)], [device("a", 4), *devices[1:]]) == [1]


def test_greedy_may_fail_with_less_where_it_succeeds_with_more():
    """With 11 bytes *large* fits on the wide device only; with 9 it takes the tight one that *small* needs."""
    devices = [device("tight", memory=10, budget=100), device("wide", memory=20, budget=30)]
    small = demand("small", 8, macs=90)
    assert greedy([demand("large", 11, macs=20), small], devices) == [1, 0]
    with pytest.raises(InfeasiblePlacement):
        greedy([demand("large", 9, macs=20), small], devices)


def test_greedy_prefers_what_it_says():
    devices = [device("a", memory=100, budget=12), device("b", memory=50, budget=11), device("c", 200, 100)]
    (one,) = [demand("m", 40)]
    assert greedy([one], devices) == [1]
    assert greedy([one], devices, prefer="energy") == [2]
    with pytest.raises(ValueError, match="prefer"):
        greedy([one], devices, prefer="looks")


def test_greedy_fills_a_shared_device_first():
    devices = [device("a", 10), device("b", 9)]
    demands = [demand(0, 4), demand(1, 5), demand(2, 6)]
    # 6 → b (3 left), 5 → a (5 left), 4 → a (1 left)
    assert greedy(demands, devices, shared=True) == [0, 0, 1]


def test_exact_fits_to_the_last_byte_are_allowed():
    devices = [device("a", memory=10, budget=10.1)]
    assert exact([demand(0, 10)], devices) == greedy([demand(0, 10)], devices) == [0]
    assert exact([demand(0, 4), demand(1, 6)], [device("a", 10)], shared=True) == [0, 0]


def test_a_load_within_the_tolerance_of_the_solver_is_still_over_budget():
    """Ten bytes too much in 100 million are below 1e-6: the second device is taken, or the placement is refused."""
    devices = [device("cheap", 10**8, each=1.0), device("dear", 10**8, each=2.0)]
    demands = [demand(0, 5 * 10**7), demand(1, 5 * 10**7 + 10)]
    assert set(exact(demands, devices, True, "energy")) == {0, 1}
    assert len(set(exact(demands, devices, True, "devices"))) == 2
    with pytest.raises(InfeasiblePlacement):
        exact(demands, devices[:1], True)


def test_more_sub_models_than_devices_need_shared_ones():
    demands, devices = [demand(i, 3) for i in range(5)], [device("a", 10), device("b", 6)]
    for rule in PLACEMENTS:
        why = "^5 sub-models, 2 devices and one on each: share devices or add some. Devices: a: 10 bytes"
        with pytest.raises(InfeasiblePlacement, match=why) as raised:
            assign(demands, devices, rule)
        assert len(raised.value.table) == 10
        found = assign(demands, devices, rule, shared=True)
        assert sorted(found) == [0, 0, 0, 1, 1]


def test_fewer_sub_models_than_devices_leave_some_idle():
    demands, devices = [demand(i, 3) for i in range(2)], [device(i) for i in range(9)]
    for rule in PLACEMENTS:
        table = cost.per_device(demands, devices, assign(demands, devices, rule))
        assert len(table) == 2


def random_instance(models, n, seed):
    rng = np.random.default_rng(seed)
    devices = [device(i, int(rng.integers(500, 1000)), rate=rng.uniform(10, 200), link=rng.uniform(50, 500))
               for i in range(n)]  # fmt: skip
    sizes = rng.integers(10, 500, models)
    return [demand(i, int(b), rng.uniform(1, 400), rng.uniform(1, 100)) for i, b in enumerate(sizes)], devices


@pytest.mark.parametrize("shared", [False, True])
def test_64_devices_within_seconds(shared):
    demands, devices = random_instance(10, 64, 0)
    before = time.process_time()
    found = {rule: assign(demands, devices, rule, shared) for rule in PLACEMENTS}
    assert time.process_time() - before < 20
    worst = {rule: cost.totals(cost.per_device(demands, devices, a)) for rule, a in found.items()}
    least = min(w["seconds_with_link"] for w in worst.values())
    assert worst["min_latency"]["seconds_with_link"] == pytest.approx(least)


def test_the_solver_gives_up_in_words(monkeypatch):
    demands, devices = random_instance(40, 6, 1)
    devices = [device(d.name, 10**6, 10**6, d.mac_rate, d.link_rate) for d in devices]
    monkeypatch.setattr(placement, "TIME_LIMIT", 0.05)
    with pytest.raises(TimeoutError, match="40 sub-models on 6 devices"):
        exact(demands, devices, shared=True)
    monkeypatch.setattr(placement, "TIME_LIMIT", 30)
    near = values(demands, devices)["latency"](exact(demands, devices, True, gap=0.05))
    # no placement is faster than all work spread over all devices at the fastest rates
    assert near >= sum(cost.latency(s, d) for s, d in [(s, min(devices, key=lambda d: cost.latency(s, d)))
                                                       for s in demands]) / len(devices)  # fmt: skip


# Algorithm 1


def shrinking(zeta):
    """Five sub-models of 200 bytes for ζ = 95, ten bytes less for each percent."""
    return [demand(i, int(200 - 10 * (95 - zeta)) + i) for i in range(5)]


def test_algorithm_1_takes_the_largest_threshold_that_fits():
    devices = [device(i, 150) for i in range(5)]
    found = place(shrinking, 95, 1, 80, devices)
    assert found.zeta == 89 and sorted(found.assignment) == [0, 1, 2, 3, 4]
    assert found.tried["zeta"].tolist() == [95, 94, 93, 92, 91, 90, 89]
    assert found.tried["placed"].tolist() == [False] * 6 + [True]
    assert found.tried["bytes"].iloc[0] == 5 * 200 + 10
    assert found.totals(1.0)["seconds"] == pytest.approx(1.1) and len(found.table()) == 5


def test_every_try_starts_from_free_devices():
    """With ζ = 95 four of five find a device. As printed those four stay taken, and no ζ helps any more."""
    devices = [device(i, 203) for i in range(5)]
    printed = as_printed(shrinking, 95, 1, devices, tries=6)
    assert printed["free"].tolist() == [5, 1, 0, 0, 0, 0]
    assert printed["placed"].tolist() == [4, 1, 0, 0, 0, 0]
    assert not printed["done"].any()
    assert place(shrinking, 95, 1, 80, devices).zeta == 94


def test_as_printed_works_if_the_first_try_does():
    printed = as_printed(shrinking, 95, 1, [device(i) for i in range(5)], tries=6)
    assert printed["done"].tolist() == [True] and printed["placed"].tolist() == [5]


def test_devices_are_used_up_by_failed_tries():
    """By hand: 10 and 17 bytes; 10 takes the larger device. Then 9 and 9 would fit, but only one device is free."""
    sizes = {95.0: (10, 17), 94.0: (9, 9)}

    def score(zeta):
        return [demand(i, s) for i, s in enumerate(sizes.get(zeta, (1, 1)))]

    devices = [device("a", 9), device("b", 17)]
    printed = as_printed(score, 95, 1, devices, tries=4)
    assert printed["free"].tolist() == [2, 1, 0, 0] and printed["placed"].tolist() == [1, 1, 0, 0]
    assert place(score, 95, 1, 90, devices).zeta == 94


def test_it_ends_at_zeta_min_and_says_what_lacks_where():
    devices = [device("a", 120, 10), device("b", 140, 30)]
    demands = [demand("cats", 150, 12), demand("dogs", 100, 25)]
    seen = []
    with pytest.raises(InfeasiblePlacement) as raised:
        place(lambda zeta: seen.append(zeta) or demands, 95, 2.5, 90, devices)
    assert seen == [95, 92.5, 90]
    text = str(raised.value)
    assert text.startswith("no placement by tightest_memory for zeta from 95 down to 90: ")
    assert "cats needs 150 bytes and 12.1 J per sample: no device has that" in text
    assert "dogs" not in text
    assert "a: 120 bytes, 10 J per sample; b: 140 bytes, 30 J per sample" in text
    table = raised.value.table.set_index(["sub_model", "device"])
    assert table["fits"].to_dict() == {("cats", "a"): False, ("cats", "b"): False,
                                       ("dogs", "a"): False, ("dogs", "b"): True}  # fmt: skip
    assert isinstance(raised.value, ValueError)


def test_long_fleets_are_named_in_part():
    with pytest.raises(InfeasiblePlacement, match="and 56 more$"):
        assign([demand(0, 2000)], [device(i) for i in range(64)])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"step": 0}, "step = 0"),
        ({"step": -1}, "step = -1"),
        ({"step": math.nan}, "step = nan"),
        ({"zeta_min": 96}, "zeta_min = 96 .* at most zeta0 = 95"),
        ({"step": 1e-6}, "at most 10000 steps"),
        ({"rule": "best"}, "rule = 'best' is not allowed: one of tightest_memory"),
        ({"devices": []}, "at least one device"),
        ({"devices": [device("a"), device("a")]}, "unique names"),
        ({"score": lambda zeta: []}, "score = .* a function that gives at least one sub-model"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"score": shrinking, "zeta0": 95, "step": 1, "zeta_min": 90, "devices": [device("a")]} | change
    with pytest.raises(ValueError, match=message):
        place(**arguments)


@pytest.mark.parametrize("rule", [greedy, exact])
def test_nothing_can_be_placed_on_no_device(rule):
    with pytest.raises(ValueError, match="devices = 0 is not allowed: at least one device"):
        rule([demand(0, 1)], [])


def test_sub_models_have_unique_names():
    with pytest.raises(ValueError, match="demands.*unique names"):
        assign([demand("x", 1), demand("x", 2)], [device("a"), device("b")])


def test_unknown_objectives_are_refused_and_nothing_needs_nothing():
    with pytest.raises(ValueError, match="objective = 'fame'"):
        exact([demand(0, 1)], [device("a")], objective="fame")
    assert exact([], [device("a")]) == []
