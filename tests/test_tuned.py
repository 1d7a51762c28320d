"""The book's own method: its gradient is bounded, its training helps or is undone, and it says what it used."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based.surrogate import PiecewiseQuadratic
from tiny import blobs, same_state, small_net

from snnbook.conversion import METHODS, convert, quantised
from snnbook.conversion.tuned import tune, use_bounded_gradient
from snnbook.evaluate import accuracy
from snnbook.neurons import IF, spiking_layers
from snnbook.train import Recipe, fit

RECIPE = Recipe(epochs=5, batch_size=10, lr=0.03)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def data():
    return blobs(noise=70.0)


@pytest.fixture(scope="module")
def qcfs(data):
    """A trained QCFS network with L = 8."""
    net = small_net(dropout=0.0)
    fit(net, data, Recipe(epochs=6, batch_size=10, lr=0.05))
    net = quantised(net, list(data.batches("calibration", 8)), 8, 0.5)
    fit(net, data, RECIPE)
    return net


def converted(net, sets, method, T, **options):
    images = {s: list(sets.batches(s, 8)) for s in ("calibration", "validation")}
    return convert(net, method, time_steps=T, **images, **options)


@pytest.mark.parametrize("theta", [0.25, 1.0, 8.0])
def test_gradient_of_the_output_is_one_minus_a_product_and_never_above_one(theta):
    T, generator = 12, torch.Generator().manual_seed(0)
    x = (theta * torch.randn(T, 500, generator=generator, dtype=torch.double)).requires_grad_()
    layer = IF(theta, emit=theta)
    use_bounded_gradient(layer)
    (gain,) = torch.autograd.grad(layer.multi_step_forward(x).sum(), x)
    h = torch.empty(T, 500, dtype=torch.double)
    v = torch.zeros(500, dtype=torch.double)
    for t in range(T):
        h[t] = v + x[t].detach()
        v = h[t] - theta * (h[t] >= theta)
    left = 1 - (1 - (h / theta - 1).abs()).clamp(min=0)
    product = left.flip(0).cumprod(0).flip(0)
    torch.testing.assert_close(gain, 1 - product)
    assert 0 <= gain.min() and gain.max() <= 1 + 1e-12
    layer.detach_reset = True
    (detached,) = torch.autograd.grad(layer.multi_step_forward(x).sum(), x)
    assert detached.max() > 3


def test_each_layer_has_a_triangle_of_its_threshold(qcfs, data):
    snn, _ = converted(qcfs, data, "qcfs", 2)
    use_bounded_gradient(snn)
    for layer in spiking_layers(snn).values():
        assert isinstance(layer.surrogate_function, PiecewiseQuadratic) and not layer.detach_reset
        assert layer.surrogate_function.alpha == pytest.approx(1 / layer.v_threshold)


def test_tuning_trains_weights_and_biases_and_nothing_else(qcfs, data):
    start, _ = converted(qcfs, data, "matched", 1)
    before = accuracy(start, data, "validation")
    snn, report = converted(qcfs, data, "tuned", 1, data=data, recipe=RECIPE)
    assert accuracy(snn, data, "validation") > before
    old, new = start.state_dict(), snn.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name, _ in start.named_parameters()}
    assert report.thresholds == converted(qcfs, data, "qcfs", 1)[1].thresholds
    assert report.training_images == len(data.train) and report.calibration_images == len(data.calibration)
    assert report.total_steps == 1 and report.prerun_steps == 0
    spikes = next(iter(spiking_layers(snn).values())).multi_step_forward(torch.randn(1, 5, 4, 6, 6))
    assert set(spikes.unique().tolist()) <= {0.0, next(iter(report.thresholds.values()))}


def test_tuning_that_does_not_help_is_undone(qcfs, data):
    snn, _ = converted(qcfs, data, "matched", 8)
    start = {name: value.clone() for name, value in snn.state_dict().items()}
    assert not tune(snn, data, Recipe(epochs=1, batch_size=10, lr=100.0))
    assert same_state(snn, start)


def test_the_same_seed_gives_the_same_network(qcfs, data):
    first, second = (converted(qcfs, data, "tuned", 2, data=data, recipe=RECIPE)[0] for _ in range(2))
    assert same_state(first, second)


def test_the_network_that_comes_in_stays(qcfs, data):
    before = {name: value.clone() for name, value in qcfs.state_dict().items()}
    converted(qcfs, data, "tuned", 2, data=data, recipe=RECIPE)
    assert same_state(qcfs, before)


def test_refuses_to_tune_without_data(qcfs, data):
    with pytest.raises(ValueError, match="data = None is not allowed"):
        converted(qcfs, data, "tuned", 2)


def test_our_methods_are_strict():
    for name in ("matched", "tuned"):
        assert METHODS[name].prerun_steps == 0 and METHODS[name].spikes.startswith("binary")
        assert METHODS[name].depends_on_T and METHODS[name].matched


def test_channels_last_networks_may_have_step_biases():
    layer = IF(1.0, step_bias=torch.arange(6.0).view(2, 1, 3, 1, 1))
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), layer).to(memory_format=torch.channels_last)
    assert net[1].step_bias.shape == (2, 1, 3, 1, 1) and net[1].step_bias.flatten().tolist() == list(range(6))
    assert net.double()[1].step_bias.dtype == torch.double and "1.step_bias" in net.state_dict()
    assert IF(1.0).double().step_bias is None
