import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn

from snnbook import kernels
from snnbook.kernels import Dynamics, charge
from snnbook.neurons import IF, LIF, if_run, multi_step, spiking_layers

SURROGATES = [
    surrogate.ATan(),
    surrogate.ATan(alpha=3.0),
    surrogate.Rect(),
    surrogate.Sigmoid(),
    surrogate.PiecewiseQuadratic(),
]

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
thresholds = st.sampled_from([0.5, 1.0]) | st.floats(0.05, 4.0)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@st.composite
def layers(draw):
    """(our layer, SpikingJelly's node, drive [T, ...], v(0) [...]); quarters make h meet θ exactly."""
    threshold = float(draw(thresholds))
    resets = st.sampled_from([None, 0.0]) | st.floats(-1.0, 0.9).map(lambda r: r * threshold)
    options = {"v_threshold": threshold, "v_reset": draw(resets), "detach_reset": draw(st.booleans())}
    shape, seed = [draw(st.integers(1, 8)), *draw(shapes)], draw(st.integers(0, 10_000))
    x, v0 = normal(*shape, seed=seed), normal(*shape[1:], seed=seed + 1)
    if draw(st.booleans()):
        x, v0 = (x * 4).round() / 4, (v0 * 4).round() / 4
    ours, theirs = IF, neuron.IFNode
    if draw(st.booleans()):
        ours, theirs = LIF, neuron.LIFNode
        options |= {
            "tau": draw(st.sampled_from([4 / 3, 2.0]) | st.floats(1.05, 8.0)),
            "decay_input": draw(st.booleans()),
        }
    node = theirs(**options, surrogate_function=surrogate.ATan(), step_mode="m")
    return ours(**options, surrogate_function=surrogate.ATan(), v_init=v0), node, x, v0


def run(node, x, v0):
    node.reset()
    node.v = v0
    return node(x), node.v


@settings(max_examples=150, deadline=None)
@given(layers())
def test_spikes_and_potentials_equal_spikingjelly_bit_for_bit(case):
    ours, theirs, x, v0 = case
    spikes, v = run(theirs, x, v0.clone())
    assert torch.equal(ours(x), spikes)
    assert torch.equal(ours.v, v)


@settings(max_examples=60, deadline=None)
@given(layers())
def test_gradients_equal_spikingjelly(case):
    ours, theirs, x, v0 = case
    theirs.v, a, b = v0.clone(), x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = normal(*x.shape, seed=3)
    for node, drive in ((theirs, a), (ours, b)):
        ((node(drive) * weight).sum() + (node.v * weight[0]).sum()).backward()
    torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-6)


def plain_loop(x, v, d, surrogate_function, detach_reset):
    """The same neuron written with autograd's own operations, step by step from the docstring's equations."""
    spikes = []
    for drive in x:
        rest = d.v_reset or 0.0
        if d.tau is None:
            h = v + drive
        elif d.decay_input:
            h = v + (drive - (v - rest)) / d.tau
        else:
            h = v - (v - rest) / d.tau + drive
        s = surrogate_function(h - d.v_threshold)
        spikes.append(s)
        s = s.detach() if detach_reset else s
        v = h - d.v_threshold * s if d.v_reset is None else (1 - s) * h + s * d.v_reset
    return torch.stack(spikes), v


DYNAMICS = [
    Dynamics(0.8), Dynamics(0.8, v_reset=0.0), Dynamics(0.8, v_reset=-0.3), Dynamics(0.8, tau=4 / 3),
    Dynamics(0.8, tau=2.5, decay_input=False), Dynamics(0.8, 0.2, 2.0), Dynamics(0.8, 0.2, 2.0, False),
]  # fmt: skip


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("d", DYNAMICS, ids=str)
@pytest.mark.parametrize("sg", SURROGATES, ids=str)
def test_gradients_equal_autograd_of_a_plain_loop(d, sg, detach_reset):
    x, v0 = normal(7, 3, 5, dtype=torch.float64), normal(3, 5, seed=1, dtype=torch.float64)
    w, u = normal(7, 3, 5, seed=2, dtype=torch.float64), normal(3, 5, seed=3, dtype=torch.float64)
    grads = []
    for forward in (plain_loop, multi_step):
        leaves = x.clone().requires_grad_(), v0.clone().requires_grad_()
        spikes, v = forward(*leaves, d, sg, detach_reset)
        grads.append((spikes, v, *torch.autograd.grad((spikes * w).sum() + (v * u).sum(), leaves)))
    for expected, found in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert grads[0][2].abs().sum() > 0 and grads[0][3].abs().sum() > 0


def test_gradient_at_two_steps_by_hand():
    """θ = 1, Rect (slope 1 within ½ of θ), x = (0.7, 0.6): h = 0.7, 1.3, both near θ; a spike at step 2."""
    x = torch.tensor([[0.7], [0.6]], requires_grad=True)
    spikes, v = multi_step(x, torch.zeros(1), Dynamics(1.0), surrogate.Rect(), detach_reset=True)
    assert spikes.flatten().tolist() == [0, 1] and v.item() == pytest.approx(0.3)
    assert torch.autograd.grad(2 * spikes[0] + 3 * spikes[1], x)[0].flatten().tolist() == [2 + 3, 3]
    spikes, _ = multi_step(x, torch.zeros(1), Dynamics(1.0), surrogate.Rect(), detach_reset=False)
    # Through the reset of step 1: dh2/dx1 = 1 − θ·ds1/dh1 = 0, so only the direct path to s1 is left.
    assert torch.autograd.grad(2 * spikes[0] + 3 * spikes[1], x)[0].flatten().tolist() == [2, 3]


@settings(max_examples=100, deadline=None)
@given(shape=shapes, T=st.integers(1, 12), threshold=thresholds, seed=st.integers(0, 9999))
def test_charge_is_kept(shape, T, threshold, seed):
    """θ Σ s = Σ x + v(0) − v(T) for every neuron with soft reset."""
    x, v0 = (
        normal(T, *shape, seed=seed, dtype=torch.float64),
        normal(*shape, seed=seed + 1, dtype=torch.float64),
    )
    spikes, v = if_run(x, v0, threshold)
    torch.testing.assert_close(threshold * spikes.sum(0), x.sum(0) + v0 - v, rtol=0, atol=1e-12)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


@settings(max_examples=200, deadline=None)
@given(z=st.integers(-20, 40), theta=st.integers(1, 20), v0=st.integers(0, 19), T=st.integers(1, 16))
def test_constant_drive_gives_the_closed_form_count(z, theta, v0, T):
    """n = clip(⌊(T z + v(0)) / θ⌋, 0, T) for 0 ≤ v(0) < θ, in whole numbers."""
    v0 = min(v0, theta - 1)
    spikes, _ = if_run(torch.full((T,), float(z)), float(v0), float(theta))
    assert spikes.sum().item() == min(max((T * z + v0) // theta, 0), T)


def test_lif_potential_follows_its_closed_form_below_threshold():
    """v(t) = x (1 − (1 − 1/τ)^t) with decayed input, τ times that without."""
    t = np.arange(1, 9)
    for decay_input, gain in ((True, 1.0), (False, 2.5)):
        expected = gain * 0.3 * (1 - (1 - 1 / 2.5) ** t)
        layer = LIF(tau=2.5, decay_input=decay_input, v_threshold=10.0)
        layer.carry = True
        found = []
        for _ in t:
            assert layer(torch.full((1, 1), 0.3)).item() == 0
            found.append(layer.v.item())
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "d, h",
    [
        (Dynamics(), 0.5 + 0.8),
        (Dynamics(v_reset=0.2), 0.5 + 0.8),
        (Dynamics(tau=4.0), 0.5 + (0.8 - 0.5) / 4),
        (Dynamics(tau=4.0, decay_input=False), 0.5 - 0.5 / 4 + 0.8),
        (Dynamics(v_reset=0.2, tau=4.0), 0.5 + (0.8 - 0.3) / 4),
        (Dynamics(v_reset=0.2, tau=4.0, decay_input=False), 0.5 - 0.3 / 4 + 0.8),
    ],
)
def test_charge_by_hand_and_as_in_the_layer(d, h):
    """v = 0.5, x = 0.8; the layer's threshold is out of reach, so that its v is h."""
    x, v = torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    assert charge(x, v, d).item() == pytest.approx(h, rel=1e-12)
    assert torch.equal(multi_step(x[None], v, d._replace(v_threshold=9.0))[1], charge(x, v, d))
    assert (x.item(), v.item()) == (0.8, 0.5)


def test_if_run_does_not_change_its_arguments():
    x, v0 = normal(4, 3), normal(3, seed=1)
    copies = x.clone(), v0.clone()
    if_run(x, v0, 0.5)
    assert torch.equal(x, copies[0]) and torch.equal(v0, copies[1])


@pytest.mark.parametrize("make", [IF, LIF])
def test_every_forward_starts_at_v_init_by_itself(make):
    layer, x = make(v_init=0.5, v_threshold=0.7), normal(6, 2, 3).abs()
    first = layer(x).clone()
    assert torch.equal(layer(x), first)
    assert not torch.equal(make(v_threshold=0.7)(x), first)


@pytest.mark.parametrize("make", [IF, LIF])
def test_carry_runs_on_and_reset_goes_back_to_v_init(make):
    x = normal(8, 2, 3).abs()
    whole = make(v_init=0.4)
    expected = whole(x)
    layer = make(v_init=0.4)
    layer.carry = True
    for _ in range(2):
        assert torch.equal(torch.cat([layer(x[:3]), layer(x[3:])]), expected)
        assert torch.equal(layer.v, whole.v)
        functional.reset_net(layer)
    layer.carry = False
    layer(x[:3])
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("make", [IF, LIF])
@pytest.mark.parametrize("v_reset", [None, 0.0, 0.25])
def test_single_steps_equal_multi_step(make, v_reset):
    x = normal(7, 2, 3).abs()
    many, one = make(v_init=0.3, v_reset=v_reset), make(v_init=0.3, v_reset=v_reset, step_mode="s")
    for _ in range(2):
        functional.reset_net(one)
        assert torch.equal(torch.stack([one(step) for step in x]), many(x))
        assert torch.equal(one.v, many.v)
    assert one.carry is False


def test_folded_equals_unfolded():
    x = normal(6, 2, 3, 4, 4)
    layer = IF(v_init=normal(3, 1, 1, seed=1), emit=0.5, v_threshold=0.5)
    expected, v = layer(x), layer.v
    layer.time_steps = 6
    assert torch.equal(layer(x.flatten(0, 1)), expected.flatten(0, 1))
    assert torch.equal(layer.v, v)


def test_v_init_broadcasts_over_the_batch_and_is_saved_with_the_weights():
    v0 = normal(3, 4, 4).abs()
    layer, x = IF(v_init=v0), normal(5, 2, 3, 4, 4)
    assert torch.equal(layer(x), if_run(x, v0.expand(2, 3, 4, 4))[0])
    assert torch.equal(layer.state_dict()["v_init"], v0)
    v0.zero_()
    assert layer.v_init.abs().sum() > 0


@pytest.mark.parametrize("emit", [1.0, 0.25, 3.0])
def test_spikes_have_height_emit(emit):
    x = normal(5, 4).abs()
    assert torch.equal(IF(emit=emit)(x), emit * IF()(x))
    assert set(IF(emit=emit)(x).unique().tolist()) == {0.0, emit}


def test_no_gradient_means_no_graph_and_the_same_spikes():
    layer, x = LIF(), normal(5, 4).requires_grad_()
    with_graph = layer(x)
    with torch.no_grad():
        without = layer(x)
    assert with_graph.requires_grad and not without.requires_grad
    assert torch.equal(with_graph, without)


@pytest.mark.parametrize("make", [IF, LIF])
def test_a_layer_that_ran_with_gradient_can_be_copied(make):
    layer, x = make(), normal(3, 2).requires_grad_()
    layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sg, limit", [(surrogate.Rect, 4.0), (surrogate.ATan, np.inf)])
def test_surrogate_integrates_to_one(sg, limit, alpha):
    f = lambda u: kernels._slope(sg(alpha=alpha), torch.tensor([u], dtype=torch.float64)).item()  # noqa: E731
    edges = {"points": [-0.5 / alpha, 0.5 / alpha]} if np.isfinite(limit) else {}
    assert quad(f, -limit, limit, **edges)[0] == pytest.approx(1, abs=1e-6)


def test_defaults_are_those_of_the_papers():
    layer = LIF()
    assert (layer.tau, layer.v_threshold, layer.v_reset, layer.decay_input) == (4 / 3, 1.0, None, True)
    assert isinstance(layer.surrogate_function, surrogate.ATan) and layer.surrogate_function.alpha == 2
    assert layer.detach_reset
    assert IF(v_threshold=2).dynamics() == Dynamics(2.0, None, None, True)
    assert LIF(tau=2, v_reset=0).dynamics() == Dynamics(1.0, 0.0, 2.0, True)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: IF(v_threshold=0), "v_threshold = 0 is not allowed: a positive number"),
        (lambda: LIF(v_threshold=-1.0), "v_threshold = -1.0 is not allowed: a positive number"),
        (lambda: LIF(tau=1.0), "tau = 1.0 is not allowed: a number above 1"),
        (lambda: if_run(torch.zeros(2), threshold=0.0), "threshold = 0.0 is not allowed: a positive number"),
    ],
)
def test_bad_constants_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


def test_spiking_layers_are_named_in_order():
    net = nn.Sequential(nn.Linear(2, 2), IF(), nn.Sequential(LIF(), nn.ReLU(), IF()))
    assert [(n, type(m)) for n, m in spiking_layers(net).items()] == [("1", IF), ("2.0", LIF), ("2.2", IF)]


def test_a_bias_survives_a_move_that_fails():
    layer = IF(step_bias=torch.ones(2, 1, 3, 1, 1))

    def fails(tensor):
        raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        layer._apply(fails)
    assert torch.equal(layer.step_bias, torch.ones(2, 1, 3, 1, 1))
    assert layer.to(torch.float64).step_bias.dtype == torch.float64
