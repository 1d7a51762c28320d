"""SNN Calibration and the bias per step: each layer is checked by full runs of both networks, hooks and all."""

import copy

import pytest
import torch
from test_conversion import SMALL, Own, batches, images, with_statistics, with_thresholds
from tiny import same_state
from torch import nn

from snnbook.conversion import activations, convert, fold_batchnorm, quantised, snn_calibration, stepwise
from snnbook.conversion.snn_calibration import SHARES, clip_floor_errors, mse_thresholds
from snnbook.models import build
from snnbook.network import Network
from snnbook.neurons import spiking_layers
from snnbook.staircase import response

NETS = {
    "vgg": lambda source: build("vgg9", source, head="fc", **SMALL),
    "resnet": lambda source: build("resnet20", source, **SMALL),
    "ms": lambda source: build("resnet20", source, order="ms", **SMALL),
    "own": lambda source: quantised(Own(), batches(8), 4, 0.5) if source == "qcfs" else Own(),
}
DATA = batches(12, 12, 5)
X = torch.cat([x for x, _ in DATA])


def network(name, source="relu"):
    net = with_statistics(NETS[name](source))
    return net if source == "relu" or name == "own" else with_thresholds(net, 0.8, 1.2, 2.0)


def teacher_of(net):
    return fold_batchnorm(net if isinstance(net, Network) else Network(nn.Identity(), net, nn.Identity()), images(1))


def outputs_of(net, layers):
    """Name to output of each layer, [N, ...] of an ANN, [T, N, ...] of an SNN, over all calibration images at once."""
    seen = {}
    T = getattr(net, "time_steps", None)

    def hook(name):
        def keep(m, i, y):  # returns nothing: a hook's value would take the place of y
            seen[name] = y if T is None else y.unflatten(0, (T, -1))

        return keep

    handles = [m.register_forward_hook(hook(name)) for name, m in layers.items()]
    with torch.no_grad():
        net(X)
    for handle in handles:
        handle.remove()
    return seen


def per_channel(x):
    return x.mean((0, 2, 3)) if x.ndim == 4 else x.mean(0)


def without(snn, name, attribute, value):
    """Outputs of layer ``name`` if ``attribute`` had not been corrected there, but in all layers before it."""
    layer = snn.get_submodule(name)
    kept = getattr(layer, attribute)
    setattr(layer, attribute, value)
    y = outputs_of(snn, {name: layer})[name]
    setattr(layer, attribute, kept)
    return y


# --- thresholds


@pytest.mark.parametrize("T", [1, 3, 8])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_clip_floor_errors_equal_their_definition(T, shift):
    a = 1.3 * torch.randn(3000, generator=torch.Generator().manual_seed(0), dtype=torch.double).relu()
    thresholds = torch.tensor([0.2, 1.0, 2.5, 6.0])
    expected = [(a - response(a, t, T, shift * t)).square().sum().item() for t in thresholds.tolist()]
    assert clip_floor_errors(a, thresholds, T, shift).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("T, shift", [(2, 0.0), (4, 0.5)])
def test_the_grid_search_finds_the_least_squared_error(T, shift):
    net = teacher_of(network("vgg"))
    found = mse_thresholds(net, DATA, T, shift)
    for name, a in outputs_of(net, activations(net)).items():
        grid = [(a.max().item() * (1 - 0.01 * i)) for i in range(95)]
        errors = [(a - response(a, t, T, shift * t)).square().sum(dtype=torch.double).item() for t in grid]
        best = (a - response(a, found[name], T, shift * found[name])).square().sum(dtype=torch.double).item()
        assert best == pytest.approx(min(errors), rel=1e-5)
    assert len(SHARES) == 95 and SHARES[-1].item() == pytest.approx(0.06)


def test_a_sample_of_a_large_layer_gives_nearly_the_same_threshold(monkeypatch):
    net, data = teacher_of(network("vgg")), batches(200, 200)
    exact = mse_thresholds(net, data, 4)
    monkeypatch.setattr(snn_calibration, "SAMPLE", 20_000)
    sampled = [mse_thresholds(net, data, 4, seed=seed) for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    first = next(iter(exact))  # 4 channels of 8 × 8 places: 102,400 values
    assert all(s[first] == pytest.approx(exact[first], rel=0.1) for s in sampled)


# --- corrections


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("T", [1, 4])
def test_each_bias_is_the_mean_difference_of_its_channel(name, T):
    net = network(name)
    snn, report = convert(net, "snn_calibration_bias", time_steps=T, calibration=DATA)
    teacher = teacher_of(net)
    wanted = outputs_of(teacher, activations(teacher))
    for layer, module in spiking_layers(snn).items():
        phi = without(snn, layer, "step_bias", None).mean(0)
        expected = per_channel(wanted[layer]) - per_channel(phi)
        torch.testing.assert_close(module.step_bias.flatten(), expected, rtol=1e-3, atol=2e-4)
        assert module.step_bias.ndim == wanted[layer].ndim + 1 and expected.abs().max() > 0.01
        assert module.v_init.item() == pytest.approx(report.thresholds[layer] / 2)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("T", [1, 4])
def test_each_potential_gets_t_times_the_signed_mean_difference_of_its_neuron(name, T):
    net = network(name)
    snn, report = convert(net, "snn_calibration_potential", time_steps=T, calibration=DATA)
    teacher = teacher_of(net)
    wanted, signs = outputs_of(teacher, activations(teacher)), set()
    for layer, module in spiking_layers(snn).items():
        half = report.thresholds[layer] / 2
        phi = without(snn, layer, "v_init", torch.tensor(half)).mean(0)
        expected = half + T * (wanted[layer] - phi).mean(0)
        assert module.v_init.shape == (1, *expected.shape)
        torch.testing.assert_close(module.v_init[0], expected, rtol=1e-3, atol=1e-3)
        signs |= set((expected - half).sign().flatten().tolist())
        assert module.step_bias is None
    assert signs >= {-1.0, 1.0}


def layer_error(snn, layer, wanted):
    phi = outputs_of(snn, {layer: snn.get_submodule(layer)})[layer].mean(0)
    return (phi - wanted).square().mean(dtype=torch.double).item()


def changed_by_weights(name, T, **options):
    net = network(name)
    before = convert(net, "snn_calibration_threshold", time_steps=T, calibration=DATA)[0]
    after = convert(net, "snn_calibration_weights", time_steps=T, calibration=DATA, **options)[0]
    old = before.state_dict()
    return net, before, after, [k for k, value in after.state_dict().items() if not torch.equal(value, old[k])]


@pytest.mark.parametrize("name", NETS)
def test_weights_alone_change_and_only_where_neurons_follow(name):
    _, before, snn, changed = changed_by_weights(name, 2, epochs=2)
    assert len(changed) >= 0.3 * len(spiking_layers(snn)) and all(key.endswith("weight") for key in changed)
    connections = [n for n, m in snn.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert f"{connections[-1]}.weight" not in changed


@pytest.mark.parametrize("T", [1, 4])
def test_new_weights_are_better_for_each_layer_behind_the_same_prefix(T):
    net, before, snn, changed = changed_by_weights("vgg", T, epochs=4)
    teacher = teacher_of(net)
    wanted = outputs_of(teacher, activations(teacher))
    connections = [n for n, m in snn.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for connection, layer in zip(connections, spiking_layers(snn), strict=False):  # a chain: one leads to the other
        new, weight = layer_error(snn, layer, wanted[layer]), snn.get_submodule(connection).weight
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.copy_(before.get_submodule(connection).weight)
        old = layer_error(snn, layer, wanted[layer])
        with torch.no_grad():
            weight.copy_(kept)
        assert new < old if f"{connection}.weight" in changed else new == old
    assert len(changed) >= 2


def test_no_epochs_leave_the_weights():
    assert changed_by_weights("vgg", 2, epochs=0)[-1] == []


def test_the_advanced_pipeline_is_weights_then_potentials():
    net = network("vgg")
    weights = convert(net, "snn_calibration_weights", time_steps=2, calibration=DATA, epochs=2)[0]
    both = convert(net, "snn_calibration", time_steps=2, calibration=DATA, epochs=2)[0]
    pairs = zip(weights.parameters(), both.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(layer.v_init.numel() > 1 for layer in spiking_layers(both).values())


# --- a bias for each step


def test_step_biases_by_hand():
    """Two images, one neuron, θ = 1, v(0) = ½, α = ½, activations ¾ and ¼.

    Step 1: h = 0.7 and 0.9, no spike, b = ½·½ = ¼, h + b = 0.95 and 1.15: the second fires, v = 0.95 and 0.15.
    Step 2: h = 1.15 and 0.55, the first fires, mean output ½ is right: b = 0, v = 0.15 and 0.55.
    Step 3: drive 0.9 both, h = 1.05 and 1.45, both fire, b = ½·(½ − 1) = −¼, h + b = 0.8 and 1.2.
    """
    x = torch.tensor([[0.2, 0.4], [0.2, 0.4], [0.9, 0.9]]).unsqueeze(2)
    target = torch.tensor([[0.75], [0.25]])
    bias = torch.zeros(3, 1, 1)
    stepwise.correct_steps(bias, x, torch.tensor(0.5), 1.0, target, 0.5)
    assert bias.flatten().tolist() == pytest.approx([0.25, 0.0, -0.25])
    stepwise.correct_steps(bias, x, torch.tensor(0.5), 1.0, target, 0.5)  # with b(1) = ¼ one fires already
    assert bias[0].item() == 0.25


@pytest.mark.parametrize("name", NETS)
def test_step_biases_bring_the_mean_output_of_each_step_to_the_anns(name):
    net, T = network(name, "qcfs"), 4
    snn, report = convert(net, "step_bias", time_steps=T, calibration=DATA, rounds=8)
    teacher = teacher_of(net)
    wanted, found = outputs_of(teacher, activations(teacher)), outputs_of(snn, spiking_layers(snn))
    gaps = []
    for layer, module in spiking_layers(snn).items():
        assert len(module.step_bias) == T and module.step_bias[0].numel() == wanted[layer].shape[1]
        goal = per_channel(wanted[layer])
        plain = without(snn, layer, "step_bias", None)
        gap, before = (
            torch.stack([per_channel(y[t]) - goal for t in range(T)]).abs().mean().item() / report.thresholds[layer]
            for y in (found[layer], plain)
        )
        gaps.append((gap, before))
    mean_gap, mean_before = torch.tensor(gaps).mean(0).tolist()
    assert mean_gap < 0.5 * mean_before
    assert report.total_steps == T and report.prerun_steps == 0


def test_the_first_step_bias_only_depends_on_the_first_step():
    net = network("vgg", "qcfs")
    short, long = (convert(net, "step_bias", time_steps=T, calibration=DATA)[0] for T in (1, 3))
    first = next(iter(spiking_layers(short)))
    torch.testing.assert_close(
        short.get_submodule(first).step_bias[0], long.get_submodule(first).step_bias[0], rtol=1e-5, atol=1e-6
    )


# --- boundaries


@pytest.mark.parametrize("method, source, option, value", [
    ("snn_calibration_weights", "relu", "epochs", -1),
    ("snn_calibration_weights", "relu", "lr", 0.0),
    ("snn_calibration_weights", "relu", "epochs", 1.5),
    ("snn_calibration_weights", "relu", "lr", float("inf")),
    ("snn_calibration_bias", "relu", "shift", 1.0),
    ("snn_calibration_bias", "relu", "seed", 0.5),
    ("step_bias", "qcfs", "rounds", 0),
    ("step_bias", "qcfs", "rounds", 1.5),
    ("step_bias", "qcfs", "potential", float("nan")),
    ("step_bias", "qcfs", "rate", 0.0),
    ("step_bias", "qcfs", "rate", 1.5),
])  # fmt: skip
def test_options_out_of_range_are_refused(method, source, option, value):
    with pytest.raises(ValueError, match=f"^{option} = {value} is not allowed"):
        convert(network("vgg", source), method, time_steps=2, calibration=DATA, **{option: value})


def test_step_bias_needs_trained_thresholds():
    with pytest.raises(ValueError, match=r"^body\.\S+ = 'ReLU' is not allowed"):
        convert(network("vgg"), "step_bias", time_steps=2, calibration=DATA)


@pytest.mark.parametrize("method, source", [("snn_calibration", "relu"), ("step_bias", "qcfs")])
def test_the_same_calibration_gives_the_same_network(method, source):
    net = network("resnet", source)
    a, b = (convert(copy.deepcopy(net), method, time_steps=2, calibration=DATA)[0] for _ in range(2))
    assert same_state(a, b)
