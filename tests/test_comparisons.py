"""Greedy against the optimum over random instances, rules and numbers of devices side by side."""

import numpy as np
import pytest

from snnbook.splitting import comparisons, cost
from snnbook.splitting.devices import Device, device, fleet, profiles
from snnbook.splitting.placement import PLACEMENTS, assign

KINDS = [device(name) for name in profiles()]


def test_ratios_are_never_below_one_and_greedy_is_not_always_right():
    table = comparisons.gaps(KINDS, 25, 4, 5, seed=2)
    assert set(table["rule"]) == {"tightest_memory", "most_energy"}
    placed = table[table["placed"]]
    assert (placed[list(comparisons.MEASURES)] >= 1 - 1e-9).all(axis=None)
    assert (placed["seconds_with_link"] > 1.01).any() and placed[list(comparisons.MEASURES)].notna().all(axis=None)
    assert table[~table["placed"]][list(comparisons.MEASURES)].isna().all(axis=None)


def test_the_same_seed_gives_the_same_table():
    one, two, other = (comparisons.gaps(KINDS, 5, 3, 4, seed) for seed in (0, 0, 1))
    assert one.equals(two) and not one.equals(other)


def test_instances_are_as_described():
    rng = np.random.default_rng(0)
    for _ in range(20):
        demands, fleet = comparisons.random_instance(rng, KINDS, 4, 3)
        assert all(50_000 <= s.bytes <= 200_000 and 20 <= s.macs / s.bytes <= 200 for s in demands)
        mean = cost.Demand("", 0, np.mean([s.macs for s in demands]), 0, np.mean([s.payload_bits for s in demands]))
        assert all(50_000 <= d.memory <= 300_000 for d in fleet)
        assert all(0.5 <= d.energy_budget / cost.joules(mean, d) <= 4 for d in fleet)


def test_compare_has_a_row_for_every_rule_also_where_it_fails():
    # The case of greedy that fails, from the tests of placement.
    figures = dict.fromkeys(("ac_rate", "mac_rate", "link_rate", "joules_per_mac", "joules_per_ac"), 1)
    figures["joules_per_bit"] = 0
    boards = [Device("tight", 10, 100, **figures), Device("wide", 20, 30, **figures)]
    demands = [cost.Demand("large", 9, 20, 0, 0), cost.Demand("small", 8, 90, 0, 0)]
    table = comparisons.compare(demands, boards, fusion_seconds=1).set_index("rule")
    assert list(table.index) == list(PLACEMENTS)
    assert table.loc["tightest_memory"].isna().all() and table.loc["most_energy"].isna().all()
    best = cost.totals(cost.per_device(demands, boards, assign(demands, boards, "min_energy")), 1)
    assert table.loc["min_latency"].to_dict() == best and list(cost.TOTALS) == list(best)


def test_compare_has_all_columns_where_nothing_fits():
    demands = [cost.Demand(str(i), 600_000, 1e6, 0, 1e4) for i in range(9)]
    table = comparisons.compare(demands, fleet("microcontroller", 3), shared=True)
    assert list(table["rule"]) == list(PLACEMENTS) and list(table.columns) == ["rule", *cost.TOTALS]
    assert table[list(cost.TOTALS)].isna().all(axis=None)


def test_value_is_infinite_where_nothing_fits():
    figures = dict.fromkeys(("ac_rate", "mac_rate", "link_rate", "joules_per_mac", "joules_per_ac"), 1)
    devices = [Device("a", 10, 100, **figures, joules_per_bit=0)]
    assert comparisons.value([cost.Demand("x", 10, 4, 0, 3)], devices) == 7
    assert comparisons.value([cost.Demand("x", 10, 4, 0, 3)], devices, measure="total_joules") == 4
    assert comparisons.value([cost.Demand("x", 11, 4, 0, 3)], devices) == float("inf")


def test_one_sample_on_each_device():
    pi, phone = device("raspberry_pi_4b"), device("phone")
    table = comparisons.by_device(cost.Demand("x", 1, 10e6, 25e6, 9.41e6, dense_macs=350e6), [pi, phone])
    assert table["part"].tolist() == ["every MAC", "spikes only", "link"] * 2
    assert table["seconds"].tolist()[:3] == pytest.approx([1, 0.1, 0.01])
    joules = [350e6 * pi.joules_per_mac, 35e6 * pi.joules_per_mac, 9.41e6 * pi.joules_per_bit]
    assert table["joules"].tolist()[:3] == pytest.approx(joules)
    assert table["seconds"].iloc[-1] == pytest.approx(9.41 / 6) and set(table["device"]) == {"raspberry_pi_4b", "phone"}


def test_numbers_of_devices_side_by_side():
    def score(parts, zeta):
        return [cost.Demand(str(p), len(p), 350e6 * len(p) * zeta / 100, 0, 0) for p in parts]

    def parts(n):
        return tuple((i,) * (4 // n) for i in range(n))

    whole = cost.Demand("whole", 10, 4 * 350e6, 0, 0)
    table = comparisons.by_number(score, parts, [1, 2, 4], 50, "raspberry_pi_4b", whole).set_index("case")
    assert list(table.index) == ["unsplit", "pruned, N = 1", "split, N = 2", "split, N = 4"]
    assert table["compute_seconds"].tolist() == pytest.approx([4, 2, 1, 0.5])
    joules = table["total_joules"] / device("raspberry_pi_4b").joules_per_mac / 350e6
    assert joules.tolist() == pytest.approx([4, 2, 2, 2])
    assert table["devices"].tolist() == [1, 1, 2, 4]


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        comparisons.gaps([], 1, 1, 1)
