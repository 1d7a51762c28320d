"""Costs of a placement against sums by hand."""

import math

import pandas as pd
import pytest

from snnbook.splitting import cost
from snnbook.splitting.cost import Demand
from snnbook.splitting.devices import Device

SLOW = Device("slow", memory=1000, energy_budget=2.0, mac_rate=100, ac_rate=400, link_rate=10,
              joules_per_mac=1e-2, joules_per_ac=2.5e-3, joules_per_bit=1e-3)  # fmt: skip
EVENTS = Device("events", memory=500, energy_budget=1.0, mac_rate=50, ac_rate=200, link_rate=40,
                joules_per_mac=2e-2, joules_per_ac=1e-3, joules_per_bit=0.0, skips_zeros=True)  # fmt: skip
A = Demand("a", bytes=300, macs=10, acs=60, payload_bits=20, dense_macs=110)
B = Demand("b", bytes=100, macs=20, acs=0, payload_bits=40)


def test_a_dense_processor_multiplies_zeros_too():
    assert cost.operations(A, SLOW) == (110, 0)
    assert cost.latency_compute(A, SLOW) == pytest.approx(1.1)
    assert cost.joules_compute(A, SLOW) == pytest.approx(1.1)
    assert cost.latency_link(A, SLOW) == 2 and cost.joules_link(A, SLOW) == pytest.approx(0.02)
    assert cost.latency(A, SLOW) == pytest.approx(3.1) and cost.joules(A, SLOW) == pytest.approx(1.12)


def test_an_event_driven_one_pays_for_spikes():
    assert cost.operations(A, EVENTS) == (10, 60)
    assert cost.latency_compute(A, EVENTS) == pytest.approx(10 / 50 + 60 / 200)
    assert cost.joules_compute(A, EVENTS) == pytest.approx(0.2 + 0.06)
    assert cost.joules_link(A, EVENTS) == 0


def test_without_a_dense_count_every_operation_takes_a_mac():
    demand = Demand("c", 1, macs=3, acs=4, payload_bits=0)
    assert cost.operations(demand, SLOW) == (7, 0)


def test_matrix_has_a_row_a_sub_model():
    found = cost.matrix(cost.latency_link, [A, B], [SLOW, EVENTS])
    assert found.tolist() == [[2, 0.5], [4, 1]]
    assert cost.matrix(cost.joules, [], [SLOW]).size == 0


def test_sub_models_on_one_device_add_up():
    table = cost.per_device([A, B], [EVENTS, SLOW], [1, 1])
    (row,) = table.to_dict("records")
    assert row["device"] == "slow" and row["sub_models"] == "a, b"
    assert row["bytes"] == 400 and row["memory_used"] == 0.4
    assert row["compute_seconds"] == pytest.approx(1.1 + 0.2)
    assert row["link_seconds"] == 6
    assert row["compute_joules"] == pytest.approx(1.1 + 0.2)
    assert row["link_joules"] == pytest.approx(0.06)
    assert row["budget_used"] == pytest.approx(1.36 / 2)


def test_devices_work_side_by_side_and_the_server_after_them():
    table = cost.per_device([A, B], [EVENTS, SLOW], [0, 1])
    found = cost.totals(table, fusion_seconds=0.25)
    events, slow = (0.5, 0.5), (0.2, 4.0)  # computing, link
    assert found == {
        "devices": 2,
        "compute_seconds": pytest.approx(0.5),
        "seconds": pytest.approx(0.75),
        "seconds_with_link": pytest.approx(max(sum(events), sum(slow)) + 0.25),
        "busiest_joules": pytest.approx(0.26),
        "busiest_joules_with_link": pytest.approx(0.26),
        "total_joules": pytest.approx(0.26 + 0.2),
        "total_joules_with_link": pytest.approx(0.26 + 0.2 + 0.04),
        "largest_bytes": 300,
        "total_bytes": 400,
    }


def test_changes_are_in_percent_of_the_reference():
    rows = pd.DataFrame([{"devices": 1, "seconds": 1.0}, {"devices": 3, "seconds": 3.0}])
    found = cost.against(rows, pd.Series({"devices": 1, "seconds": 2.0}))
    assert found["devices"].tolist() == [1, 3] and found["seconds"].tolist() == [-50, 50]


def test_demands_table_has_what_is_asked_for():
    table = cost.demands_table([A, B])
    assert table["sub_model"].tolist() == ["a", "b"] and table["acs"].tolist() == [60, 0]


@pytest.mark.parametrize("assignment", [[0], [0, 2], [0, -1], [0, 1, 1]])
def test_every_sub_model_needs_a_device(assignment):
    with pytest.raises(ValueError, match="assignment"):
        cost.per_device([A, B], [SLOW, EVENTS], assignment)


@pytest.mark.parametrize("change", [{"bytes": -1}, {"macs": math.nan}, {"acs": math.inf}, {"payload_bits": None}])
def test_demands_are_finite_and_not_negative(change):
    figures = {"bytes": 1, "macs": 1, "acs": 1, "payload_bits": 1} | change
    with pytest.raises(ValueError, match=f"x: {next(iter(change))}"):
        Demand("x", **figures)
