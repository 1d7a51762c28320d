"""Layer-wise weight calibration, equations (14) to (17), and Phase II whole."""

import copy

import pytest
import torch
from ordered import ordered
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.surrogate import PiecewiseQuadratic
from test_conversion import SMALL, Own, batches, images, with_statistics, with_thresholds
from test_layerwise import pair
from test_lmpc import splits, trained  # noqa: F401
from tiny import same_state

from snnbook.conversion import METHODS, convert
from snnbook.conversion.layerwise import walk
from snnbook.conversion.lwc import Triangle, calibrate, calibrate_weights, loss, output_with_gradient
from snnbook.evaluate import accuracy
from snnbook.models import build
from snnbook.neurons import spiking_layers
from snnbook.quantise import QuantClip
from snnbook.surrogates import slope


def trains(n, T, inputs, seed=0):
    return (torch.rand(n, T, inputs, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


def layer_of(weights, x, theta, bias=0.0, v0=0.0):
    """A linear layer with neurons on spike trains ``x`` [N, T, I], as a walk shows it; its ANN has half the weights."""
    snn, ann = ordered(weights, x.shape[1], theta, bias)
    with torch.no_grad():
        ann.body[1].weight.mul_(0.5)
    snn.body[2].v_init = torch.as_tensor(v0)
    (layer,) = walk(snn, ann, [(x, None)], [(x, None)])
    return layer


# --- equation (15)


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_the_triangle_by_hand(gamma):
    over = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0])
    expected = gamma * torch.tensor([0, 0, 0.5, 1, 0.75, 0, 0])
    torch.testing.assert_close(slope(Triangle(gamma), over), expected)
    torch.testing.assert_close(slope(Triangle(gamma, True), over), expected * (over >= 0))
    assert Triangle(gamma)(over).tolist() == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("theta, v0", [(1.0, 0.0), (0.7, 0.35), (2.5, -0.4)])
@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradients_agree_with_spikingjellys_nodes(theta, v0, T):
    """Its piecewise quadratic surrogate of α = 1/θ is equation (15) with γ = 1."""
    layer = layer_of([[1.0]], trains(2, T, 1), theta, v0=v0)
    x = (theta * images(T, 4, 3, seed=1)).requires_grad_()
    weights = images(T, 4, 3, seed=2)
    y = output_with_gradient(layer, x, Triangle(1.0))
    (found,) = torch.autograd.grad((y * weights).sum(), x)
    node = neuron.IFNode(theta, None, PiecewiseQuadratic(1 / theta), detach_reset=True, step_mode="m")
    node.v = torch.full((4, 3), v0)
    expected_y = theta * node(x)
    (expected,) = torch.autograd.grad((expected_y * weights).sum(), x)
    torch.testing.assert_close(y, expected_y)
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0


# --- equations (14), (16) and (17)


@pytest.mark.parametrize("at_spikes", [False, True])
def test_the_gradient_at_two_steps_by_hand(at_spikes):
    """θ = 2, γ = 0.3, weights (1.5, 0.8), v(0) = −1, input spikes (1, 0) then (1, 1), h̄ = 0.

    v⁻(1) = −1 + 1.5 = 0.5, no spike, f(1) = 0.3/2·(1 − 1.5/2) = 0.0375
    v⁻(2) = 0.5 + 2.3 = 2.8, a spike, f(2) = 0.3/2·(1 − 0.8/2) = 0.09
    φ = 2·1/2 = 1, so that L = 1, ∂L/∂φ = 2 and θ/T = 1
    ∂L/∂w₁ = 2·[f(1)·1 + f(2)·(1 + 1)] = 0.435; at spikes only 0.36
    ∂L/∂w₂ = 2·[f(1)·0 + f(2)·(0 + 1)] = 0.18
    ∂L/∂b  = 2·[f(1)·1 + f(2)·2], as w₁
    """
    x = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    snn, ann = ordered([[1.5, 0.8]], 2, 2.0)
    snn.body[2].v_init = torch.tensor(-1.0)
    with torch.no_grad():
        ann.body[1].bias.fill_(-5.0)
    (layer,) = walk(snn, ann, [(x, None)])
    batch = layer.splits[0][0]
    assert layer.target(batch).item() == 0 and layer.output(batch).flatten().tolist() == [0, 2]
    value = loss(layer, batch, Triangle(0.3, at_spikes))
    weight, bias = torch.autograd.grad(value, layer.parameters)
    assert value.item() == 1
    first = 0 if at_spikes else 2 * 0.0375
    assert weight.flatten().tolist() == pytest.approx([first + 2 * 0.18, 0.18])
    assert bias.item() == pytest.approx(first + 2 * 0.18)


def equation_16(layer, x, gamma, at_spikes):
    """Sums of equation (16) one by one, for weights [J, I] on spikes x [N, T, I], presynaptic height 1."""
    linear, theta, v0 = layer._snn.net.body[1], layer.neuron.v_threshold, layer.neuron.v_init.item()
    weight, bias = linear.weight.detach(), linear.bias.detach()
    N, T, _ = x.shape
    out = torch.zeros_like(weight)
    target = layer.target(layer.splits[0][0])
    for n in range(N):
        for i in range(len(weight)):
            v, f, count = v0, [], 0
            for t in range(T):
                v = v + (weight[i] @ x[n, t] + bias[i]).item()
                spike = v >= theta
                value = gamma / theta * max(0.0, 1 - abs(v - theta) / theta)
                f.append(value if spike or not at_spikes else 0.0)
                count, v = count + spike, v - theta * spike
            outer = 2 * (theta * count / T - target[n, i].item()) / target.numel()
            for j in range(weight.shape[1]):
                double_sum = sum(f[t] * x[n, s, j].item() for t in range(T) for s in range(t + 1))
                out[i, j] += theta / T * outer * double_sum
    return out


@pytest.mark.parametrize("at_spikes", [False, True])
@pytest.mark.parametrize("T", [2, 4])
def test_equation_16_term_by_term(T, at_spikes):
    x = trains(6, T, 5)
    layer = layer_of(0.8 * images(3, 5), x, 0.9, bias=0.4, v0=0.2)
    value = loss(layer, layer.splits[0][0], Triangle(0.3, at_spikes))
    found = torch.autograd.grad(value, layer.parameters)[0]
    torch.testing.assert_close(found, equation_16(layer, x, 0.3, at_spikes), rtol=1e-4, atol=1e-6)
    assert found.abs().max() > 0


@pytest.mark.parametrize("name", ["vgg5", "resnet20", "own"])
def test_the_loss_is_the_error_of_the_layer(name):
    snn, ann = pair(name, 3)
    for layer in walk(snn, ann, batches(6), head=True):
        value = loss(layer, layer.splits[0][0], Triangle())
        assert value.item() == pytest.approx(layer.error(), rel=1e-3)


# --- training a layer


@pytest.mark.parametrize("optimiser, lr", [("adam", 0.01), ("sgd", 0.5)])
def test_weights_learn_what_potentials_cannot(optimiser, lr):
    x, held = trains(64, 4, 6), trains(64, 4, 6, seed=1)
    weights = images(5, 6, seed=3)
    snn, ann = ordered(1.4 * weights, 4, 1.0)
    with torch.no_grad():
        ann.body[1].weight.copy_(weights)
    (layer,) = walk(snn, ann, [(x, None)], [(held, None)])
    before = layer.error(1)
    left = calibrate_weights(layer, 40, lr, optimiser=optimiser)
    assert left == layer.error(1) < 0.8 * before


@pytest.mark.parametrize("size, theta", [(0.1, 0.25), (1.0, 2.0)])
def test_a_step_of_adam_is_a_share_of_each_tensor(size, theta):
    """Adam's first step is lr in each entry that has a gradient: here 2 % of the weights' root mean square, or of θ."""
    x = trains(16, 4, 6)
    layer = layer_of(size * images(5, 6, seed=3), x, theta, bias=0.3 * theta)
    weight, bias = before = [p.detach().clone() for p in layer.parameters]
    calibrate_weights(layer, 1, 0.02, select=False)
    steps = [(p.detach() - b).abs() for p, b in zip(layer.parameters, before, strict=True)]
    for step, unit in zip(steps, (weight.square().mean().sqrt(), theta * torch.ones_like(bias)), strict=True):
        moved = step > 0
        expected = 0.02 * unit.expand_as(step)
        assert moved.any()
        torch.testing.assert_close(step[moved], expected[moved], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("biases", [True, False])
def test_biases_are_left_alone_on_request(biases):
    """Equation (14) is over weights only."""
    net = with_statistics(build("vgg5", "qc", **SMALL))
    plain, _ = convert(net, "qc", time_steps=2, calibration=batches(8))
    options = {"epochs": 1, "select": False, "biases": biases}
    made, _ = convert(net, "lwc", time_steps=2, calibration=batches(8, 7), validation=batches(5, seed=9), **options)
    changed = {True: [], False: []}
    for (name, p), q in zip(made.named_parameters(), plain.parameters(), strict=True):
        changed[name.endswith("bias")].append(not torch.equal(p, q))
    assert any(changed[False]) and len(changed[True]) > 2 and any(changed[True]) is biases


def test_nothing_is_kept_where_the_held_out_error_does_not_fall():
    x = trains(32, 4, 6)
    snn, ann = ordered(images(5, 6, seed=3), 4, 1.0)
    (layer,) = walk(snn, ann, [(x, None)], [(x, None)])
    before, error = copy.deepcopy(snn.state_dict()), layer.error(1)
    assert calibrate_weights(layer, 2, 100.0) == error
    assert same_state(snn, before) and not any(p.grad is not None for p in snn.parameters())
    calibrate_weights(layer, 2, 100.0, select=False)
    assert not same_state(snn, before)


def test_a_seed_decides_the_order_of_batches():
    def weights(seed):
        snn, ann = pair("vgg5", 2)
        calibrate(snn, ann, batches(4, 4, 4, 4), batches(9), ("lwc",), seed=seed, select=False)
        return snn

    assert same_state(weights(1), weights(1)) and not same_state(weights(1), weights(2))


# --- Phase II


def test_steps_come_in_their_order_and_their_errors_are_told():
    snn, ann = pair("vgg5", 2)
    table = calibrate(snn, ann, batches(8, 8), batches(9), ("lmpc", "lwc", "lmpc"), epochs=1)
    assert table["step"].tolist() == ["start", "lmpc", "lwc", "lmpc"] * 4  # three layers of neurons and the head
    assert table["layer"].unique().tolist() == [*spiking_layers(snn), "head"]
    last = table.groupby("layer", sort=False).last()
    for layer in walk(snn, ann, batches(8, 8), batches(9), head=True):
        assert layer.error(1) == pytest.approx(last.loc[layer.name, "mse"], rel=1e-4)


@pytest.mark.parametrize("steps, column", [(("lmpc",), "gap"), (("lwc",), "mse")])
def test_no_step_raises_its_held_out_error(steps, column):
    snn, ann = pair("resnet20", 2)
    table = calibrate(snn, ann, batches(8, 8), batches(9), steps, epochs=2)
    wide = table.pivot(index="layer", columns="step", values=column)
    assert (wide[steps[0]] <= wide["start"]).all() and (wide[steps[0]] < wide["start"]).any()


@pytest.mark.parametrize("options, changed", [({"head": True}, True), ({"head": False}, False)])
def test_the_last_weights_are_trained_on_request(options, changed):
    snn, ann = pair("vgg5", 2)
    calibrate(snn, ann, batches(8, 8), batches(9), ("lwc",), epochs=4, select=False, **options)
    assert torch.equal(snn.head[1].weight, ann.head[1].weight) is not changed


@pytest.mark.parametrize("method", ["lwc", "lmpc_lwc"])
def test_phase_two_repairs_phase_one(trained, method):  # noqa: F811
    data, net = trained
    phase_one, _ = convert(net, "qc", time_steps=2, **splits(data))
    better, report = convert(net, method, time_steps=2, **splits(data), epochs=20)
    assert accuracy(better, data) > accuracy(phase_one, data) + 0.1
    assert report.total_steps == 2 and METHODS[method].depends_on_T


@pytest.mark.parametrize("method", ["lwc", "lmpc_lwc", "qcfs_lmpc_lwc"])
def test_resnets_and_other_modules(method):
    shift = 0.5 * (METHODS[method].source == "qcfs")
    own = Own(act=QuantClip(shift=shift))
    own.act2 = QuantClip(shift=shift)
    for net in (own.eval(), with_thresholds(with_statistics(build("resnet20", METHODS[method].source, **SMALL)), 0.7)):
        before = copy.deepcopy(net.state_dict())
        made = [
            convert(net, method, time_steps=2, calibration=batches(8, 7), epochs=1, select=False)[0] for _ in range(2)
        ]
        assert same_state(net.state_dict(), before) and same_state(*made)
        plain, _ = convert(net, METHODS[method].source, time_steps=2, calibration=batches(8))
        assert not same_state(dict(plain.named_parameters()), dict(made[0].named_parameters()))


@pytest.mark.parametrize("options, message", [
    ({"epochs": 0}, "epochs = 0 is not allowed: a whole number, at least 1"),
    ({"epochs": 1.5}, "epochs = 1.5 is not allowed: a whole number, at least 1"),
    ({"seed": 0.5}, "seed = 0.5 is not allowed: a whole number, at least 0"),
    ({"select": "no"}, "select = 'no' is not allowed: True or False"),
    ({"biases": 0}, "biases = 0 is not allowed: True or False"),
    ({"head": "no"}, "head = 'no' is not allowed: True or False"),
    ({"spike_times_only": 1}, "spike_times_only = 1 is not allowed: True or False"),
    ({"steps": "lmpc"}, r"steps = 'lmpc' is not allowed: a sequence of lmpc and lwc, such as \('lmpc', 'lwc'\)"),
    ({"steps": None}, "steps = None is not allowed: a sequence .*"),
    ({"gamma": float("nan")}, "gamma = nan is not allowed: a positive number"),
    ({"gamma": 0}, "gamma = 0 is not allowed: a positive number"),
    ({"gamma": -1.0}, "gamma = -1.0 is not allowed: a positive number"),
    ({"lr": float("inf")}, "lr = inf is not allowed: a positive number"),
    ({"lr": 0.0}, "lr = 0.0 is not allowed: a positive number"),
    ({"optimiser": "lion"}, "optimiser = 'lion' is not allowed: one of adam, sgd"),
    ({"steps": ("lmpc", "bias")}, "steps = 'bias' is not allowed: one of lmpc, lwc"),
    ({"levels": 3}, "option of lmpc_lwc = 'levels' is not allowed: one of order, .*"),
])  # fmt: skip
def test_bad_options_are_refused(options, message):
    net = build("vgg5", "qc", **SMALL)
    with pytest.raises(ValueError, match=f"^{message}$"):
        convert(net, "lmpc_lwc", time_steps=2, calibration=batches(4), **options)
