import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnbook.neurons import if_run
from snnbook.quantise import ClippedReLU, QuantClip, quantise_clip


def by_hand(z: float, lam: float, levels: int, shift: float) -> float:
    """λ·clip(⌊z·L/λ + shift⌋ / L, 0, 1) in Python floats."""
    return lam * min(max(math.floor(z * levels / lam + shift) / levels, 0.0), 1.0)


@settings(max_examples=200, deadline=None)
@given(
    z=st.lists(st.floats(-10, 20), min_size=1, max_size=8),
    lam=st.floats(0.1, 8.0),
    levels=st.integers(1, 32),
    shift=st.sampled_from([0.0, 0.5]) | st.floats(0, 0.99),
)
def test_values_equal_a_loop_in_python(z, lam, levels, shift):
    expected = [by_hand(v, lam, levels, shift) for v in z]
    found = quantise_clip(torch.tensor(z, dtype=torch.float64), lam, levels, shift)
    # A quotient within rounding of a whole number may fall to either side.
    for v, a, b in zip(z, found.tolist(), expected, strict=True):
        quotient = v * levels / lam + shift
        slack = lam / levels if abs(quotient - round(quotient)) < 1e-9 else 0.0
        assert abs(a - b) <= slack + 1e-12


def test_the_steps_of_a_hand_drawn_staircase():
    z = torch.tensor([-0.1, 0.0, 0.49, 0.5, 0.99, 1.0, 1.5, 1.99, 2.0, 2.5, 9.0])
    floor = [0, 0, 0, 0.5, 0.5, 1, 1.5, 1.5, 2, 2, 2]
    assert quantise_clip(z, 2.0, 4).tolist() == floor
    shifted = [0, 0, 0.5, 0.5, 1, 1, 1.5, 2, 2, 2, 2]
    assert quantise_clip(z, 2.0, 4, 0.5).tolist() == shifted


def gradients(layer, z):
    z = torch.tensor(z, requires_grad=True)
    return [g.tolist() for g in torch.autograd.grad(layer(z).sum(), (z, layer.log_lam))]


@pytest.mark.parametrize(
    "z, dz, dlam",
    [
        (-0.3, 0, 0),  # silent
        (0.7, 1, 0.25 - 0.35),  # zL/λ = 1.4: q = 1/4
        (1.6, 1, 0.75 - 0.80),  # zL/λ = 3.2: q = 3/4
        (3.0, 0, 1),  # saturated: a = λ
    ],
)
def test_straight_through_gradients_by_hand(z, dz, dlam):
    """λ = 2, L = 4. Equation (10): inside the clip da/dz = 1 and da/dλ = q − z/λ, with q = ⌊zL/λ⌋/L."""
    found = gradients(QuantClip(levels=4, lam=2.0), [z])
    assert found[0] == pytest.approx([dz])
    assert found[1] == pytest.approx(2.0 * dlam, abs=1e-6)  # dλ/d log λ = λ


def test_gradients_of_the_clipped_relu_by_hand():
    z = [-1.0, 0.5, 1.9, 2.5, 7.0]
    dz, dlog = gradients(ClippedReLU(lam=2.0), z)
    assert dz == [0, 1, 1, 0, 0]
    assert dlog == pytest.approx(2 * 2.0)  # two saturated elements, each λ·da/dλ = λ


@given(z=st.floats(-10, 20), lam=st.floats(0.1, 8))
def test_clipped_relu_is_min_max(z, lam):
    assert ClippedReLU(lam)(torch.tensor(z)).item() == pytest.approx(min(max(z, 0), lam), rel=1e-5, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(z=st.integers(-64, 128), levels=st.integers(1, 16), half=st.booleans())
def test_constant_drive_gives_the_count_of_the_staircase(z, levels, half):
    """T = L steps of drive z/16 at θ = 1: v(0) = θ/2 gives QCFS, v(0) = 0 equation (8), spike for spike."""
    drive = torch.full((levels,), z / 16, dtype=torch.float64)
    spikes, _ = if_run(drive, 0.5 if half else 0.0)
    layer = QuantClip(levels, shift=0.5 if half else 0.0, lam=1.0).double()
    assert spikes.sum().item() == layer(drive[:1]).item() * levels


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999), levels=st.sampled_from([1, 2, 4, 8]), theta=st.sampled_from([0.5, 1.0, 4.0]))
def test_random_constant_drives_give_the_same_rates(seed, levels, theta):
    """As above with any drive; powers of two keep the arithmetic of both sides exact enough to agree."""
    z = torch.rand(64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 * theta - theta
    spikes, _ = if_run(z.expand(levels, 64), theta / 2, theta)
    assert torch.equal(theta * spikes.mean(0), quantise_clip(z, theta, levels, 0.5))


@pytest.mark.parametrize("T, bias", [(8, 0.0), (4, -0.0625), (2, -0.1875), (1, -0.4375)])
def test_bias_of_the_floor_at_other_numbers_of_steps(T, bias):
    """E[φ_T − a_L] for uniform z in [0, 1), L = 8: exact on a grid that the steps divide."""
    z = (torch.arange(8 * 64, dtype=torch.float64) + 0.5) / (8 * 64)
    spikes, _ = if_run(z.expand(T, -1))
    assert (spikes.mean(0) - quantise_clip(z, 1.0, 8)).mean().item() == pytest.approx(bias, abs=1e-12)
    half, _ = if_run(z.expand(T, -1), 0.5)
    assert (half.mean(0) - quantise_clip(z, 1.0, 8, 0.5)).mean().item() == pytest.approx(0, abs=1e-12)


def test_lambda_stays_positive_and_is_learned():
    layer = QuantClip(levels=4, lam=0.5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        layer(torch.tensor([5.0])).sum().backward()  # pushes λ down
        optimizer.step()
    assert 0 < layer.lam.item() < 0.1
    layer.set_lam(3.0)
    assert layer.lam.item() == pytest.approx(3.0)
    assert "lam=3, levels=4, shift=0.0" in repr(layer)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: quantise_clip(torch.zeros(1), 1.0, 0), "levels = 0 is not allowed: a whole number, at least 1"),
        (lambda: quantise_clip(torch.zeros(1), 1.0, 2.5), "levels = 2.5 is not allowed: a whole number, at least 1"),
        (lambda: quantise_clip(torch.zeros(1), -1.0, 2), "lam = -1.0 is not allowed: a positive number"),
        (lambda: quantise_clip(torch.zeros(1), math.nan, 2), "lam = nan is not allowed: a positive number"),
        (lambda: QuantClip(levels=0), "levels = 0 is not allowed: a whole number, at least 1"),
        (lambda: QuantClip(2.5), "levels = 2.5 is not allowed: a whole number, at least 1"),
        (lambda: QuantClip(True), "levels = True is not allowed: a whole number, at least 1"),
        (lambda: QuantClip(math.inf), "levels = inf is not allowed: a whole number, at least 1"),
        (lambda: QuantClip(lam=math.inf), "lam = inf is not allowed: a positive number"),
        (lambda: QuantClip(shift=1.0), "shift = 1.0 is not allowed: 0 to below 1"),
        (lambda: QuantClip(lam=0.0), "lam = 0.0 is not allowed: a positive number"),
        (lambda: ClippedReLU(-1), "lam = -1 is not allowed: a positive number"),
        (lambda: ClippedReLU().set_lam(0), "lam = 0 is not allowed: a positive number"),
    ],
)
def test_bad_constants_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("z, dz, dlam", [(-0.3, 0, 0), (1.3, 1, None), (4.1, 0, 1), (9.0, 0, 1)])
def test_gradients_below_inside_and_above_the_range(shift, z, dz, dlam):
    """λ = 4, L = 8: above λ, even by less than a step, only λ counts; inside da/dλ = a/λ − z/λ by the chain rule."""
    drive, lam = torch.tensor(z, requires_grad=True), torch.tensor(4.0, requires_grad=True)
    a = quantise_clip(drive, lam, 8, shift)
    a.backward()
    inside = a.item() / 4 - z / 4
    assert drive.grad.item() == pytest.approx(dz)
    assert lam.grad.item() == pytest.approx(inside if dlam is None else dlam, abs=1e-6)
