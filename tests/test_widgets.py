"""The neuron explorer as widgets, driven without a frontend."""

import matplotlib.pyplot as plt
import pytest
import torch

from snnbook.widgets import NEURONS, drive_of_trains, dynamics, neuron_explorer


@pytest.fixture
def explorer():
    return neuron_explorer()


def test_starts_with_a_sentence_and_a_picture_with_alt_text(explorer):
    # 8 × 0.35 = 2.8: two spikes, 0.8 left over
    assert explorer.text.value == (
        "n = 2 output spikes in T = 8 steps. Ideal count n* = 2: they agree. "
        "Residual potential v(T) = 0.80, inside [0, θ)."
    )
    assert 'alt="n = 2' in explorer.image.value and "data:image/png;base64," in explorer.image.value


def test_order_of_spikes_decides(explorer):
    explorer.set(input="two spike trains", time_steps=5)
    assert "n = 2 output" in explorer.text.value and "n* = 0: 2 too many" in explorer.text.value
    assert "v(T) = -3.00, outside" in explorer.text.value
    explorer.set(plus=(4, 5), minus=(1, 2, 3))
    assert "n = 0 output spikes" in explorer.text.value and "v(T) = -1.00" in explorer.text.value


def test_decimals_that_add_up_to_the_threshold_fire(explorer):
    explorer.set(drive=0.1, time_steps=10)
    assert "n = 1 output spike in" in explorer.text.value and "n* = 1: they agree" in explorer.text.value


def test_hard_reset_and_leak_lose_charge(explorer):
    explorer.set(neuron="IF, hard reset", drive=0.6, time_steps=4)
    # fires at 1.2, goes to 0, twice
    assert "n = 2 output" in explorer.text.value and "v(T) = 0.00" in explorer.text.value
    assert "n*" not in explorer.text.value
    explorer.set(neuron="LIF, soft reset", drive=0.45, tau=2.0, time_steps=20)
    assert "n = 0 output" in explorer.text.value  # tends to τ x = 0.9
    explorer.set(drive=0.55)
    assert "n = 0 output" not in explorer.text.value


def test_shuffling_moves_spikes_and_keeps_their_number(explorer):
    explorer.set(input="two spike trains", time_steps=10)
    before = explorer.controls["plus"].value, explorer.controls["minus"].value
    seen = set()
    for _ in range(3):
        explorer.shuffle.click()
        plus, minus = explorer.controls["plus"].value, explorer.controls["minus"].value
        assert (len(plus), len(minus)) == (2, 3)
        seen.add((plus, minus))
    assert len(seen - {before}) > 1


def test_fewer_steps_drop_the_spikes_beyond_them(explorer):
    explorer.set(input="two spike trains", time_steps=3)
    assert explorer.controls["minus"].value == (3,) and explorer.controls["minus"].options == (1, 2, 3)


def test_controls_show_what_counts(explorer):
    shown = {name for name, control in explorer.controls.items() if control.layout.display != "none"}
    assert shown == {"neuron", "input", "threshold", "time_steps", "v0", "drive"}
    explorer.set(neuron="LIF, hard reset", input="two spike trains")
    shown = {name for name, control in explorer.controls.items() if control.layout.display != "none"}
    assert shown == {"neuron", "input", "threshold", "time_steps", "v0", "tau", "plus", "minus"}


def test_one_slider_redraws_and_leaves_no_figure_open(explorer):
    before = plt.get_fignums()
    explorer.controls["v0"].value = 0.5
    assert "v(T) = 0.30" in explorer.text.value
    assert plt.get_fignums() == before


def test_drive_of_trains():
    assert torch.equal(
        drive_of_trains(4, (1, 2, 9), (2, 4)), torch.tensor([1.0, 0.0, 0.0, -1.0], dtype=torch.float64)
    )


@pytest.mark.parametrize("bad", [{"neuron": "GLIF"}, {"threshold": 0.0}, {"tau": 1.0}])
def test_bad_values_are_named(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name} = .*{value}.* is not allowed"):
        dynamics(**{"neuron": next(iter(NEURONS)), "threshold": 1.0, "tau": 2.0, **bad})
    with pytest.raises(ValueError, match="time_steps = 0 is not allowed: 1 to 20"):
        neuron_explorer(0)
