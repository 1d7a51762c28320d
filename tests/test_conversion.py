import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import same_state
from torch import nn

from snnbook import conversion
from snnbook.conversion import (
    METHODS,
    clipped,
    convert,
    fold_batchnorm,
    infinite_time,
    mean_outputs,
    prerun,
    quantised,
    top_activations,
)  # fmt: skip
from snnbook.conversion.options import checked_batches, cut
from snnbook.models import build
from snnbook.network import Network
from snnbook.neurons import IF, spiking_layers
from snnbook.quantise import ClippedReLU, QuantClip, Threshold
from snnbook.record import observe

SMALL = {"width": 1 / 16, "shape": (2, 8, 8), "n_classes": 5}
NETS = [
    ("vgg5", {}),
    ("vgg9", {"head": "fc"}),
    ("resnet20", {}),
    ("resnet20", {"order": "ms"}),
    ("resnet50", {}),
]

#: Methods that need nothing but batches.
ALL = [name for name, method in METHODS.items() if "data" not in method.options]
#: A method, a network and its options: two methods on every network, the others on a VGG and an MS-ResNet.
CASES = [(m, *net) for m in ALL for net in (NETS if m in ("max_norm", "qcfs") else NETS[1:4:2])]


def levels_of(method):
    """L of the QC activations where the method was published for one, as an option of build."""
    return {} if METHODS[method].levels is None else {"levels": METHODS[method].levels}


def images(n, *shape, seed=0):
    return torch.randn(n, *(shape or (2, 8, 8)), generator=torch.Generator().manual_seed(seed))


def batches(*sizes, shape=(2, 8, 8), seed=0):
    return [(images(n, *shape, seed=seed + i), torch.zeros(n)) for i, n in enumerate(sizes)]


def with_statistics(net, seed=0):
    """Batch norms as after training: any mean, variance, scale and shift."""
    generator = torch.Generator().manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            with torch.no_grad():
                m.running_mean.normal_(0, 0.3, generator=generator)
                m.running_var.uniform_(0.5, 2, generator=generator)
                m.weight.uniform_(0.5, 1.5, generator=generator)
                m.bias.normal_(0.1, 0.2, generator=generator)
    return net.eval()


def with_thresholds(net, *values):
    for i, m in enumerate(m for m in net.modules() if isinstance(m, Threshold)):
        m.set_lam(values[i % len(values)])
    return net


class Own(nn.Module):
    """A network of somebody else: a residual connection written in forward, no Sequential."""

    def __init__(self, pool=None, act=None):
        super().__init__()
        self.first, self.norm, self.act1 = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), act or nn.ReLU()
        self.second, self.act2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.ReLU(inplace=True)
        self.norm2, self.pool, self.last = nn.BatchNorm2d(6), pool or nn.AvgPool2d(2), nn.Linear(6 * 16, 5)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.normal_(0, 0.2, generator=generator)

    def forward(self, x):
        x = self.act1(self.norm(self.first(x)))
        x = self.act2(self.norm2(self.second(x)) + x)
        return self.last(self.pool(x).flatten(1))


class Viewed(nn.Module):
    """Somebody's network with ``view``, which channels-last memory does not allow."""

    def __init__(self, act=nn.ReLU):
        super().__init__()
        self.first, self.act1, self.second, self.act2 = nn.Conv2d(2, 4, 3, padding=1), act(), nn.Conv2d(4, 4, 1), act()
        self.last = nn.Linear(256, 5)

    def forward(self, x):
        x = self.act2(self.second(self.act1(self.first(x))))
        return self.last(x.view(x.size(0), -1))


class Reused(nn.Module):
    """The input of the activation is used again."""

    def __init__(self, act):
        super().__init__()
        self.first, self.act, self.last = nn.Conv2d(2, 2, 3, padding=1), act, nn.Linear(128, 5)

    def forward(self, x):
        x = self.first(x)
        return self.last((self.act(x) + x).flatten(1))


# --- batch norm


@pytest.mark.parametrize("name, options", NETS)
@pytest.mark.parametrize("activation", ["relu", "clip"])
def test_folded_batch_norms_change_outputs_by_rounding_only(name, options, activation):
    net = with_statistics(build(name, activation, **SMALL, **options))
    folded, x = fold_batchnorm(net, images(1)), images(6, seed=3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        expected = net(x)
        assert (folded(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def test_equation_7_by_hand():
    """W·γ/√(σ² + ε) and β + (b − μ)·γ/√(σ² + ε)."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.5)).eval()
    conv, bn = net
    with torch.no_grad():
        (
            conv.weight.copy_(torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1)),
            conv.bias.copy_(torch.tensor([0.5, 1.0])),
        )
        bn.running_mean.copy_(torch.tensor([1.5, -1.0])), bn.running_var.copy_(torch.tensor([3.5, 0.5]))
        bn.weight.copy_(torch.tensor([4.0, 3.0])), bn.bias.copy_(torch.tensor([0.25, -1.0]))
    folded = fold_batchnorm(net, torch.zeros(1, 1, 1, 1))[0]
    assert folded.weight.flatten().tolist() == pytest.approx([2 * 4 / 2, -1 * 3 / 1])
    assert folded.bias.tolist() == pytest.approx([0.25 + (0.5 - 1.5) * 2, -1.0 + (1.0 + 1.0) * 3])


def test_a_batch_norm_after_anything_else_stays():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AvgPool2d(2), nn.BatchNorm2d(3), nn.ReLU()).eval()
    folded = fold_batchnorm(with_statistics(net), images(1))
    assert isinstance(folded[2], nn.BatchNorm2d)
    assert torch.equal(folded(images(3)), net(images(3)))


def test_folding_follows_the_forward_pass_not_the_order_of_registration():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn_b, self.a, self.b, self.bn_a = (
                nn.BatchNorm2d(2),
                nn.Conv2d(2, 2, 1),
                nn.Conv2d(2, 2, 1),
                nn.BatchNorm2d(2),
            )

        def forward(self, x):
            return self.bn_b(self.b(self.bn_a(self.a(x)).relu()))

    net = with_statistics(Crossed())
    folded = fold_batchnorm(net, images(1))
    torch.testing.assert_close(folded(images(4)), net(images(4)), rtol=1e-4, atol=1e-5)
    assert isinstance(folded.bn_a, nn.Identity) and isinstance(folded.bn_b, nn.Identity)


class Branched(nn.Module):
    """``forward(self, x)`` is given; two convolutions, two batch norms."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.bn, self.other = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.own, self.inplace = forward, nn.ReLU(inplace=True)

    def forward(self, x):
        return self.own(self, x)


def used_twice(net, x):
    y = net.a(x)
    return net.bn(y) + y


def also_put_out(net, x):
    y = net.a(x)
    return net.bn(y), y


@pytest.mark.parametrize("forward", [
    lambda net, x: net.bn(net.inplace(net.a(x))), lambda net, x: net.bn(net.a(x).mul_(2)), used_twice, also_put_out,
    lambda net, x: net.bn(net.a(x)) + net.a(2 * x), lambda net, x: net.bn(net.a(x)) + net.bn(net.b(x)),
    lambda net, x: (lambda y: net.bn(y) + net.other(y))(net.a(x)),
], ids=["in-place ReLU", "in-place product", "sum", "output", "one convolution", "one batch norm", "two"])  # fmt: skip
def test_a_batch_norm_whose_convolution_serves_something_else_is_not_folded(forward):
    net, x = with_statistics(Branched(forward)), images(3)
    folded = fold_batchnorm(net, x[:1])
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x))
    assert isinstance(folded.bn, nn.BatchNorm2d)


def test_a_batch_norm_before_an_in_place_relu_is_folded():
    net, x = with_statistics(Branched(lambda net, x: net.inplace(net.bn(net.a(x))))), images(3)
    folded = fold_batchnorm(net, x[:1])
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x))
    assert isinstance(folded.bn, nn.Identity)


@pytest.mark.parametrize("connection, norm, shape", [
    (nn.Linear(6, 4), nn.BatchNorm1d(4), (6,)), (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4, affine=False), (6,)),
    (nn.ConvTranspose2d(2, 4, 3, stride=2), nn.BatchNorm2d(4), (2, 5, 5)),
], ids=["linear", "without bias", "transposed"])  # fmt: skip
def test_a_batch_norm_after_another_connection_is_folded_too(connection, norm, shape):
    generator = torch.Generator().manual_seed(0)
    norm.running_mean.normal_(0, 0.3, generator=generator), norm.running_var.uniform_(0.5, 2, generator=generator)
    net, x = nn.Sequential(connection, norm, nn.ReLU()).eval(), images(5, *shape)
    folded = fold_batchnorm(net, x[:1])
    assert isinstance(folded[1], nn.Identity) and not isinstance(net[1], nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("connection, norm, shape", [
    (nn.Linear(6, 4), nn.BatchNorm1d(3), (3, 6)), (nn.Linear(6, 4), nn.BatchNorm2d(2), (2, 3, 6)),
    (nn.ConvTranspose2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), (2, 5, 5)),
], ids=["sequence", "rows", "groups"])  # fmt: skip
def test_a_batch_norm_over_other_channels_is_not_folded(connection, norm, shape):
    net, x = with_statistics(nn.Sequential(connection, norm)), images(5, *shape)
    folded = fold_batchnorm(net, x[:1])
    assert not isinstance(folded[1], nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x))


def test_the_report_names_batch_norms_that_stay():
    first, second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), first, nn.ReLU(), second, nn.Linear(4, 2)).eval()
    _, report = convert(net, "max_norm", time_steps=2, calibration=batches(4))
    assert report.batch_norms == ("body.4",) and "batch_norms" not in report.row()


# --- where things are


def test_batches_are_put_where_the_network_is():
    (x, y), = checked_batches("x", [(images(2), [0, 1])], torch.device("meta"))
    assert x.device.type == y.device.type == "meta"


@pytest.mark.parametrize("method", ["max_norm", "cos"])
def test_neurons_are_made_where_the_network_is(method, monkeypatch):
    """``meta`` is a device without numbers that every machine has."""
    net = build("vgg5", "qcfs", **SMALL).to("meta")
    theta = dict.fromkeys(conversion.activations(net), 1.0)
    monkeypatch.setattr(prerun, "trained_thresholds", lambda net: theta)
    snn = conversion.spiking(net, theta, 2, 0.5, step_bias=0.1) if method == "max_norm" else prerun.cos(net, 2)
    assert len(spiking_layers(snn)) == 3
    assert {t.device.type for t in (*snn.parameters(), *snn.buffers())} == {"meta"}


# --- thresholds


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5])
def test_largest_activations_equal_a_sort_of_them_all(share):
    net, data = with_statistics(build("vgg5", **SMALL)), batches(5, 5, 3)
    seen = {name: [] for name in conversion.activations(net)}
    for name, m in conversion.activations(net).items():
        m.register_forward_hook(lambda m, x, y, name=name: seen[name].append(y.detach().numpy().ravel()))
    found = top_activations(net, data, share)
    for name, values in seen.items():
        values = np.sort(np.concatenate(values[:3]))[::-1]
        k = max(1, int(np.ceil(share * len(values) - 1e-9)))
        np.testing.assert_array_equal(found[name].numpy(), values[:k])


@pytest.mark.parametrize(
    "make",
    [lambda: build("vgg5", **SMALL), lambda: build("resnet20", **SMALL), Own],
    ids=["vgg", "resnet", "own"],
)
def test_thresholds_of_max_and_robust_norm_equal_numpys_percentiles(make):
    net, data = with_statistics(make()), batches(20, 20, 7)
    outputs = {}
    probe = fold_batchnorm(net, data[0][0][:1])
    for name, m in conversion.activations(probe).items():
        m.register_forward_hook(lambda m, x, y, name=name: outputs.setdefault(name, []).append(y.detach().clone()))
    with torch.no_grad():
        for x, _ in data:
            probe(x)
    for method, q in (("max_norm", 100), ("robust_norm", 99.9), ("opi", 99.9)):
        _, report = convert(net, method, time_steps=2, calibration=data)
        found = list(report.thresholds.values())
        expected = [np.percentile(torch.cat(y).numpy(), q, method="higher") for y in outputs.values()]
        assert found == pytest.approx(expected, rel=1e-5)
        assert list(report.v_init.values()) == pytest.approx([t / 2 if method == "opi" else 0 for t in found])
        assert report.calibration_images == 47


def test_calibration_on_events_counts_every_frame():
    net = with_statistics(build("vgg5", **SMALL))
    frames = images(24)
    events = [
        (frames[:12].unflatten(0, (4, 3)), torch.zeros(3)),
        (frames[12:].unflatten(0, (4, 3)), torch.zeros(3)),
    ]
    static = convert(net, "robust_norm", time_steps=2, calibration=[(frames, torch.zeros(24))])[1]
    report = convert(net, "robust_norm", time_steps=4, calibration=events)[1]
    assert list(report.thresholds.values()) == pytest.approx(list(static.thresholds.values()), rel=1e-5)
    assert (report.calibration_images, static.calibration_images) == (6, 24)


def test_a_silent_layer_still_has_a_positive_threshold():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 2))
    with torch.no_grad():
        net[0].weight.zero_(), net[0].bias.fill_(-1.0)
    for method in ("max_norm", "robust_norm"):
        snn, report = convert(net, method, time_steps=2, calibration=batches(2))
        assert min(report.thresholds.values()) > 0
        assert snn(images(2)).isfinite().all()


@pytest.mark.parametrize(
    "activation, method, half", [("clip", "tcl", False), ("qc", "qc", False), ("qcfs", "qcfs", True)]
)
def test_trained_thresholds_are_taken_over(activation, method, half):
    net = with_thresholds(build("vgg5", activation, **SMALL), 0.5, 1.5, 3.0)
    snn, report = convert(net, method, time_steps=3, calibration=batches(2))
    assert list(report.thresholds.values()) == pytest.approx([0.5, 1.5, 3.0])
    assert list(report.v_init.values()) == pytest.approx([0.25, 0.75, 1.5] if half else [0, 0, 0])
    for name, layer in spiking_layers(snn).items():
        assert layer.v_threshold == layer.emit == report.thresholds[name]
        assert layer.v_init.item() == pytest.approx(report.v_init[name]) and layer.v_reset is None
    assert METHODS[method].source == activation


# --- exact relations


@pytest.mark.parametrize("method", ["max_norm", "opi"])
def test_scaled_thresholds_and_scaled_weights_give_the_same_spikes(method):
    """Neurons of θ that emit θ against neurons of 1 whose weights carry θ; powers of two are exact."""
    net = with_statistics(build("vgg9", head="fc", **SMALL))
    snn, report = convert(net, method, time_steps=6, calibration=batches(8))
    layers = list(spiking_layers(snn))
    theta = {name: 2.0 ** round(np.log2(t)) for name, t in report.thresholds.items()}
    half = 0.5 if method == "opi" else 0.0
    one = conversion.replace(snn, {n: IF(t, v_init=half * t, emit=t) for n, t in theta.items()})
    other = conversion.replace(snn, {n: IF(1.0, v_init=half) for n in layers})
    one.time_steps = other.time_steps = 6
    before = 1.0  # height that arrives at the next connection
    names = [n for n, m in other.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for connection, layer in zip(names, [*layers, None], strict=True):
        module, after = other.get_submodule(connection), theta.get(layer, 1.0)
        with torch.no_grad():
            module.weight.mul_(before / after), module.bias.div_(after)
        before = after
    spikes = []
    x = images(5, seed=9)
    for snn in (one, other):
        seen = []
        with torch.no_grad(), observe(snn, neuron=lambda n, m, d, y, seen=seen: seen.append(y != 0)):
            logits = snn(x)
        spikes.append((seen, logits))
    assert all(torch.equal(a, b) for a, b in zip(spikes[0][0], spikes[1][0], strict=True))
    assert torch.equal(spikes[0][1], spikes[1][1])
    assert all(s.any() for s in spikes[0][0])


@pytest.mark.parametrize("name, options", NETS)
def test_one_step_of_one_level_is_equal_at_every_depth(name, options):
    """T = L = 1 with ½ shift and v(0) = θ/2: both ask whether z ≥ θ/2."""
    net = with_thresholds(with_statistics(build(name, "qcfs", levels=1, **SMALL, **options)), 0.5, 1.0, 2.0)
    snn, _ = convert(net, "qcfs", time_steps=1, calibration=batches(1))
    folded, x = fold_batchnorm(net, images(1)), images(8, seed=4)
    ann, spiking = {}, {}
    for layers, seen in ((conversion.activations(folded), ann), (spiking_layers(snn), spiking)):
        for key, layer in layers.items():
            layer.register_forward_hook(lambda m, x, y, key=key, seen=seen: seen.setdefault(key, y))
    with torch.no_grad():
        torch.testing.assert_close(snn(x)[0], folded(x), rtol=1e-5, atol=1e-5)
    assert ann.keys() == spiking.keys() and len(ann) == len(list(conversion.activations(net)))
    for key in ann:
        torch.testing.assert_close(spiking[key], ann[key], rtol=1e-6, atol=1e-6)
    assert any(0 < (y != 0).float().mean() < 1 for y in spiking.values())


@pytest.mark.parametrize("T", [1, 2, 4, 8])
def test_the_first_layer_counts_exactly_the_levels_when_t_is_l(T):
    """Its drive is constant, so T = L steps from v(0) = θ/2 are QCFS and from 0 equation (8)."""
    for activation in ("qcfs", "qc"):
        net = with_thresholds(with_statistics(build("vgg5", activation, levels=T, **SMALL)), 1.0)
        snn, report = convert(net, activation, time_steps=T, calibration=batches(1))
        x, seen = images(6, seed=2), []
        first = next(iter(spiking_layers(snn)))
        with torch.no_grad(), observe(snn, neuron=lambda n, m, d, y, seen=seen: seen.append((n, d, y))):
            snn(x)
        name, drive, spikes = seen[0]
        assert name == first
        drive, rate = drive.unflatten(0, (T, -1))[0], spikes.unflatten(0, (T, -1)).mean(0)
        level = drive * T + (0.5 if activation == "qcfs" else 0.0)
        clear = (level - level.round()).abs() > 1e-4  # away from rounding at the edge of a step
        expected = torch.clamp(level.floor() / T, 0, 1)
        torch.testing.assert_close(rate[clear], expected[clear])
        assert clear.float().mean() > 0.99


@pytest.mark.parametrize("name, options", [("vgg5", {}), ("resnet20", {}), ("resnet20", {"order": "ms"})])
def test_rates_tend_to_the_clipped_network_like_one_over_t(name, options):
    net = with_statistics(build(name, **SMALL, **options))
    x = images(6, seed=5)
    snn, _ = convert(net, "max_norm", time_steps=1, calibration=[(x, torch.zeros(6))])
    limit, errors = infinite_time(snn), []
    for T in (64, 512, 4096):
        snn.time_steps = T
        with torch.no_grad():
            errors.append((snn(x).mean(0) - limit(x)).abs().mean().item())
    assert errors[1] < errors[0] / 4 and errors[2] < errors[1] / 4  # eight times the steps
    with torch.no_grad():
        # No calibration activation is above its maximum, so the limit is the ReLU network itself.
        torch.testing.assert_close(limit(x), net(x), rtol=1e-3, atol=1e-4)


def test_the_limit_clips_at_the_thresholds():
    net = with_thresholds(build("vgg5", "clip", **SMALL), 0.3, 0.6).eval()
    snn, report = convert(net, "tcl", time_steps=4, calibration=batches(2))
    limit = infinite_time(snn)
    assert limit.time_steps is None and not spiking_layers(limit)
    torch.testing.assert_close(limit(images(4)), net(images(4)), rtol=1e-4, atol=1e-5)
    assert [m.lam.item() for m in limit.modules() if isinstance(m, ClippedReLU)] == pytest.approx(
        list(report.thresholds.values())
    )


# --- what comes in and what goes out


@pytest.mark.parametrize("method", ALL)
def test_the_argument_is_not_changed(method):
    source = METHODS[method].source
    net = with_statistics(build("resnet20", source, **levels_of(method), **SMALL)).train()
    before, printed = copy.deepcopy(net.state_dict()), repr(net)
    snn, _ = convert(net, method, time_steps=2, calibration=batches(3))
    snn(images(2))
    assert same_state(net.state_dict(), before) and repr(net) == printed and net.training
    assert not any(m._forward_hooks for m in net.modules())
    snn_weights = {p.data_ptr() for p in snn.parameters()}
    assert snn_weights.isdisjoint(p.data_ptr() for p in net.parameters())


@pytest.mark.parametrize("method, name, options", CASES)
def test_every_method_makes_a_spiking_network(method, name, options):
    net = with_statistics(build(name, METHODS[method].source, **SMALL, **levels_of(method), **options))
    snn, report = convert(net, method, time_steps=3, calibration=batches(4))
    assert isinstance(snn, Network) and snn.time_steps == 3 and not snn.training
    assert len(spiking_layers(snn)) == len(conversion.activations(net)) == len(report.thresholds)
    assert not conversion.activations(snn)
    x = images(2, seed=8)
    with torch.no_grad():
        assert snn(x).shape == (3, 2, 5)
        assert torch.equal(snn(x), snn(x))  # each forward pass starts at v(0)
    assert METHODS[method].help


def test_somebody_elses_module_converts():
    net = with_statistics(Own())
    x = images(6, seed=1)
    snn, report = convert(net, "max_norm", time_steps=2000, calibration=[(x, torch.zeros(6))])
    assert list(report.thresholds) == ["body.act1", "body.act2"]
    with torch.no_grad():
        expected = net(x)
        assert (snn(x).mean(0) - expected).abs().max() < 0.02 * expected.abs().max()
    assert not net.training and isinstance(net.norm, nn.BatchNorm2d)


@pytest.mark.parametrize("make", [
    lambda net: convert(net, "max_norm", time_steps=2, calibration=batches(4)), lambda net: clipped(net, batches(4)),
    lambda net: quantised(net, batches(4), 4, 0.5),
], ids=["convert", "clipped", "quantised"])  # fmt: skip
def test_an_in_place_relu_whose_input_is_used_again_is_refused(make):
    """It overwrites that input, neurons and trained thresholds do not."""
    message = r"^act = 'nn.ReLU\(inplace=True\)' is not allowed: nn.ReLU\(\), because its input is used again$"
    with pytest.raises(ValueError, match=message):
        make(Reused(nn.ReLU(inplace=True)))
    with pytest.raises(ValueError, match="^act = 'nn.ReLU"):
        net = Reused(nn.ReLU(inplace=True))
        net.first = nn.Identity()  # it overwrites the image
        make(net)
    make(Reused(nn.ReLU()))
    make(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(128, 5)))


@pytest.mark.parametrize("forward", [
    lambda net, x: net.a(x.float() / 2), lambda net, x: net.a(x) @ torch.full((8, 3), 0.1),
    lambda net, x: torch.cat([net.a(x), torch.zeros(len(x), 2, 8, 8)], 1),
    lambda net, x: (x.float() @ torch.full((8, 8), 0.1)),
], ids=["cast", "constant", "zeros", "no parameters"])  # fmt: skip
def test_a_forward_pass_bound_to_single_precision_is_judged_in_it(forward):
    net = Branched(lambda net, x: net.inplace(forward(net, x))).eval()
    snn, _ = convert(net, "max_norm", time_steps=2, calibration=batches(4))
    assert len(spiking_layers(snn)) == 1
    for bent in (torch.tanh, F.relu6, F.hardshrink):
        net = Branched(lambda net, x, bent=bent: net.inplace(bent(forward(net, x)))).eval()
        with pytest.raises(ValueError, match=rf"^net = 'Branched' is not allowed: {ONLY} \(it calls "):
            convert(net, "max_norm", time_steps=2, calibration=batches(4))


@pytest.mark.parametrize("pool", [
    nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(4), nn.FractionalMaxPool2d(2, output_size=4)
], ids=repr)  # fmt: skip
def test_max_pooling_is_refused_by_name(pool):
    kind = type(pool).__name__
    with pytest.raises(ValueError, match=rf"^pool = '{kind}' is not allowed: average pooling"):
        convert(Own(pool=pool), "max_norm", time_steps=2, calibration=batches(1))
    with pytest.raises(ValueError, match=r"^body\.1 = 'MaxPool2d' is not allowed: average pooling"):
        convert(build("vgg5", pool="max", **SMALL), "max_norm", time_steps=2, calibration=batches(1))


class Functional(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.conv, self.act = function, nn.Conv2d(2, 2, 1), nn.ReLU()

    def forward(self, x):
        return self.act(self.conv(self.function(self.conv(x))))


ONLY = "only nn.ReLU, ClippedReLU and QuantClip modules may be nonlinear"


@pytest.mark.parametrize("function, name", [
    (F.relu, "relu"), (torch.relu, "relu"), (lambda x: x.relu(), "relu"),
    (lambda x: F.relu(x, inplace=True), "relu"), (lambda x: x.clamp(min=0), "clamp"),
    (torch.sigmoid, "sigmoid"),
    (lambda x: x.clamp_max(1), "clamp_max"), (lambda x: x.clamp(-100, 100), "clamp"), (abs, "abs"),
    (lambda x: x**2, "pow"), (torch.exp, "exp"), (F.normalize, "normalize"),
    (lambda x: torch.where(x > 0, x, 0.0), "where"),
])  # fmt: skip
def test_a_nonlinear_function_that_no_neuron_would_replace_is_refused(function, name):
    with pytest.raises(ValueError, match=rf"^net = 'Functional' is not allowed: {ONLY} \(it calls {name}\)(; |$)"):
        convert(Functional(function), "max_norm", time_steps=2, calibration=batches(1))


def test_max_pooling_as_a_function_is_refused_with_what_to_use_instead():
    with pytest.raises(ValueError, match=rf"{ONLY} \(it calls max_pool2d\); use average pooling \(the maximum"):
        convert(Functional(lambda x: F.max_pool2d(x, 2)), "max_norm", time_steps=2, calibration=batches(1))


@pytest.mark.parametrize("function", [lambda x: x * (x > 0), torch.sign], ids=["times a mask", "sign"])
def test_a_nonlinear_operation_without_a_known_name_is_refused(function):
    with pytest.raises(ValueError, match=rf"^net = 'Functional' is not allowed: {ONLY} \(an operation in its forward"):
        convert(Functional(function), "max_norm", time_steps=2, calibration=batches(1))


RELU = "; use nn.ReLU, a module of its own at each place"
NORM = "; use batch norm with running statistics"


@pytest.mark.parametrize("module, instead", [
    (nn.GELU(), RELU), (nn.LeakyReLU(), RELU), (nn.Tanh(), RELU), (nn.ReLU6(), RELU), (nn.Threshold(0.1, 0.0), RELU),
    (nn.LogSigmoid(), RELU), (nn.Softsign(), RELU), (nn.Hardshrink(), RELU), (nn.Softshrink(), RELU),
    (nn.LogSoftmax(1), "; leave it out: without it the largest logit is the same"), (nn.LayerNorm(8), NORM),
    (nn.GroupNorm(2, 2), NORM), (nn.InstanceNorm2d(2), NORM), (nn.LPPool2d(2, 2), ""),
], ids=lambda m: type(m).__name__)  # fmt: skip
def test_a_nonlinear_module_is_refused_with_what_to_use_instead(module, instead):
    kind = type(module).__name__
    net = nn.Sequential(Functional(module), nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match=rf"^0\.function = '{kind}' is not allowed: {ONLY}{instead}$"):
        convert(net, "max_norm", time_steps=2, calibration=batches(1))


@pytest.mark.parametrize("norm, shape", [(nn.BatchNorm1d, (2,)), (nn.BatchNorm2d, (2, 4, 4))])
def test_a_batch_norm_without_running_statistics_is_refused(norm, shape):
    net = nn.Sequential(norm(2, track_running_stats=False), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    message = rf"^0 = '{norm.__name__} without running statistics' is not allowed: batch norm with running statistics$"
    with pytest.raises(ValueError, match=message):
        convert(net, "max_norm", time_steps=2, calibration=batches(4, shape=shape))


def test_one_function_is_refused_with_what_to_use_instead():
    for function, instead in ((F.relu, RELU), (lambda x: x.softmax(1), "; leave it out: .*"), (F.normalize, NORM)):
        with pytest.raises(ValueError, match=rf"^net = 'Functional' is not allowed: {ONLY} \(it calls \w+\){instead}$"):
            convert(Functional(function), "max_norm", time_steps=2, calibration=batches(1))


class Twice(nn.Module):
    """One activation for two layers, as in the usual BasicBlock with ``self.relu``."""

    def __init__(self, act):
        super().__init__()
        self.first, self.second, self.act = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), act

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))) + x)


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU(inplace=True), ClippedReLU(), QuantClip()], ids=repr)
def test_an_activation_at_two_places_is_refused(act):
    kind, method = type(act).__name__, {nn.ReLU: "max_norm", ClippedReLU: "tcl", QuantClip: "qc"}[type(act)]
    own = "a module of its own at each place: a neuron has one state and one threshold$"
    with pytest.raises(ValueError, match=rf"^act = 'one {kind} that runs 2 times' is not allowed: {own}"):
        convert(Twice(act), method, time_steps=6, calibration=batches(1))
    chain = nn.Sequential(nn.Conv2d(2, 2, 1), act, nn.Conv2d(2, 2, 1), act)
    with pytest.raises(ValueError, match=rf"^1 and 3 = 'one {kind}' is not allowed: {own}"):
        convert(chain, method, time_steps=6, calibration=batches(1))


def test_a_drive_of_three_axes_is_refused():
    """Neurons would take [N, C, L] for a train [T, N, F]."""
    net = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
    message = r"^input of 1 = \(1, 3, 8\) is not allowed: \[N, F\] or \[N, C, H, W\]$"
    with pytest.raises(ValueError, match=message):
        convert(net, "max_norm", time_steps=2, calibration=batches(4, shape=(2, 8)))


def test_linear_functions_are_welcome():
    snn, report = convert(Functional(lambda x: F.avg_pool2d(x, 2)), "max_norm", time_steps=2, calibration=batches(2))
    assert snn(images(1)).shape == (2, 1, 2, 4, 4)


@pytest.mark.parametrize("call, message", [
    (lambda: convert(build("vgg5", **SMALL), "magic", time_steps=2, calibration=batches(1)),
     "method = 'magic' is not allowed: one of " + ", ".join(METHODS)),
    (lambda: convert(build("vgg5", **SMALL), "qc", time_steps=2, calibration=batches(1)),
     "body.0 = 'ReLU' is not allowed: ClippedReLU or QuantClip, since this method takes θ from a trained λ: put them "
     "in by snnbook.conversion.quantised or clipped, train that network, and convert it"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=2, calibration=[]),
     r"calibration = \[\] is not allowed: at least one batch"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=0, calibration=batches(1)),
     "time_steps = 0 is not allowed: a whole number, at least 1"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=2.5, calibration=batches(1)),
     "time_steps = 2.5 is not allowed: a whole number, at least 1"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=True, calibration=batches(1)),
     "time_steps = True is not allowed: a whole number, at least 1"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps="2", calibration=batches(1)),
     "time_steps = '2' is not allowed: a whole number, at least 1"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=2, calibration=[images(2)]),
     r"calibration\[0\] = 'Tensor' is not allowed: a pair \(x, y\) of images and labels"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=2, calibration=batches(2, 0)),
     r"calibration\[1\] = 'x of shape \(0, 2, 8, 8\) with 0 labels' is not allowed: at least one image, and .*"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=2, calibration=[(images(2), None)]),
     r"calibration\[0\] = 'x of shape \(2, 2, 8, 8\) with None labels' is not allowed: at least one image, and .*"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=2, calibration=None),
     "calibration = 'NoneType' is not allowed: batches, .*"),
    (lambda: convert(build("vgg5", **SMALL), "max_norm", time_steps=2, calibration=[(images(2) / 0, torch.zeros(2))]),
     r"calibration\[0\] = 'x with NaN or infinite values' is not allowed: images of finite numbers"),
    (lambda: convert(build("vgg5", "qcfs", **SMALL), "qc", time_steps=2, calibration=batches(1)),
     "shift of body.0 = 0.5 is not allowed: 0.0, for which qc is made"),
    (lambda: convert(build("vgg5", "qc", **SMALL), "step_bias", time_steps=2, calibration=batches(1)),
     "shift of body.0 = 0.0 is not allowed: 0.5, for which step_bias is made"),
    (lambda: convert(build("vgg5", "qc", **SMALL), "tcl", time_steps=2, calibration=batches(1)),
     "body.0 = 'QuantClip' is not allowed: ClippedReLU, for which tcl is made"),
    (lambda: convert(build("vgg5", "clip", **SMALL), "qcfs", time_steps=2, calibration=batches(1)),
     "body.0 = 'ClippedReLU' is not allowed: QuantClip, for which qcfs is made"),
    (lambda: convert(build("vgg5", "clip", **SMALL), "lmpc", time_steps=2, calibration=batches(4)),
     "body.0 = 'ClippedReLU' is not allowed: QuantClip, for which lmpc is made"),
    (lambda: convert(build("vgg5", "qcfs", **SMALL), "qcfs_l4", time_steps=2, calibration=batches(1)),
     "levels of body.0 = 8 is not allowed: 4, with which qcfs_l4 was published"),
    (lambda: convert(build("vgg5", **SMALL), "lmpc", time_steps=2, calibration=batches(4), validation=[images(2)]),
     r"validation\[0\] = 'Tensor' is not allowed: a pair \(x, y\) of images and labels"),
    (lambda: convert(nn.Conv2d(2, 2, 1), "max_norm", time_steps=2, calibration=batches(1)),
     "net = 'Conv2d' is not allowed: a network with ReLU, ClippedReLU or QuantClip modules"),
])  # fmt: skip
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


@pytest.mark.parametrize("labels", [[0] * 6, np.zeros(6)], ids=["list", "array"])
def test_labels_may_be_lists_and_arrays(labels):
    _, report = convert(build("vgg5", "qc", **SMALL), "lmpc", time_steps=2, calibration=[(images(6), labels)], rounds=1)
    assert (report.calibration_images, report.validation_images) == (5, 1)


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if m.source == "relu"])
def test_a_method_for_relu_takes_no_quantised_network_but_a_clipped_one(method):
    made_for = f"nn.ReLU, for which {method} is made"
    with pytest.raises(ValueError, match=rf"^body\.0 = 'QuantClip' is not allowed: {made_for}$"):
        convert(build("vgg5", "qc", **SMALL), method, time_steps=2, calibration=batches(1))
    if method == "max_norm":
        net = with_thresholds(build("vgg5", "clip", **SMALL), 0.01)
        _, report = convert(net, method, time_steps=2, calibration=batches(4))
        assert list(report.thresholds.values())[0] == pytest.approx(0.01)  # no output is above λ


def test_weights_that_are_not_finite_are_named():
    net = build("vgg5", **SMALL)
    with torch.no_grad():
        net.body[2].weight[0] = float("nan")
    message = r"^body\.2\.weight = 'NaN or infinite values' is not allowed: finite numbers$"
    with pytest.raises(ValueError, match=message):
        convert(net, "max_norm", time_steps=2, calibration=batches(1))
    with pytest.raises(ValueError, match=message):
        clipped(net, batches(1))


@pytest.mark.parametrize("wrap", [lambda y: {"logits": y}, lambda y: (y,)], ids=["dict", "tuple"])
def test_a_module_that_returns_no_tensor_is_refused(wrap):
    class Wrapped(Own):
        def forward(self, x):
            return wrap(super().forward(x))

    message = r"^output of net = '(dict|tuple)' is not allowed: a tensor of logits \[N, K\]$"
    with pytest.raises(ValueError, match=message):
        convert(Wrapped(), "max_norm", time_steps=2, calibration=batches(1))


@pytest.mark.parametrize("method", [
    name for name, m in METHODS.items() if m.calibrated and "data" not in m.options
])  # fmt: skip
def test_results_do_not_depend_on_how_images_are_cut_into_batches(method):
    net = with_statistics(build("vgg5", METHODS[method].source, **levels_of(method), **SMALL))
    x, y, held = images(40), torch.zeros(40), batches(8, seed=9)
    options = {"epochs": 2} if "epochs" in METHODS[method].options else {}
    made = []
    for size in (32, 40, 7):
        data = list(zip(x.split(size), y.split(size), strict=True))
        made.append(convert(net, method, time_steps=2, calibration=data, validation=held, **options)[0])
    assert all(same_state(made[0], other) for other in made[1:])
    assert all(torch.equal(made[0](x[:4]), other(x[:4])) for other in made[1:])


def test_batches_are_cut_along_the_images():
    data = [(images(3, n, 2, 4, 4, seed=n), torch.arange(n)) for n in (5, 4)]
    found = cut(data, 2)
    assert [tuple(x.shape[:2]) for x, _ in found] == [(3, 2)] * 4 + [(3, 1)]
    assert torch.equal(torch.cat([x for x, _ in found], 1), torch.cat([x for x, _ in data], 1))
    assert cut(data, 5) is data and cut([], 5) == []
    with pytest.raises(ValueError, match=r"^shapes of images = \[\(2, 4, 4\), \(2, 8, 8\)\] is not allowed: one sha"):
        cut([(images(3, 2, 8, 8), torch.zeros(3)), (images(3, 2, 4, 4), torch.zeros(3))], 2)


def test_images_to_decide_on_may_not_be_calibrated_on():
    net, (x, y), other = build("vgg5", "qc", **SMALL), batches(200)[0], batches(100, seed=9)[0][0]
    for double in (1, 2):
        held = [(torch.cat([x[:double], other[double:]]), y[:100])]
        call = lambda: convert(net, "lmpc", time_steps=1, calibration=[(x, y)], validation=held, rounds=1)  # noqa: B023, E731
        if double == 1:  # data sets have doubles
            call()
    message = "^validation = '2 images of calibration' is not allowed: images that are not in calibration$"
    with pytest.raises(ValueError, match=message):
        call()


def test_a_network_with_view_is_calibrated():
    net = Viewed(lambda: QuantClip(lam=0.5))
    snn, _ = convert(net, "lmpc_lwc", time_steps=2, calibration=batches(32, 8), validation=batches(8, seed=9))
    table = snn.calibration_errors.groupby("layer", sort=False)["mse"]
    assert (table.last() <= table.first()).all() and snn(images(2)).shape == (2, 2, 5)


def test_the_report_names_what_came_in():
    for source, expected in (("relu", "ReLU"), ("clip", "ClippedReLU"), ("qcfs", "QuantClip, L = 8, shift 0.5")):
        method = {"relu": "max_norm", "clip": "tcl"}.get(source, "matched")
        _, report = convert(build("vgg5", source, **SMALL), method, time_steps=2, calibration=batches(2))
        assert report.source == report.row()["source"] == expected
    _, report = convert(build("vgg5", "qc", **SMALL), "step_bias", time_steps=2, calibration=batches(2), potential=0.0)
    assert report.source == "QuantClip, L = 8, shift 0"


def test_the_report_and_its_row():
    net = with_thresholds(build("vgg5", "qcfs", **SMALL), 0.5, 1.5, 3.0)
    _, report = convert(net, "qcfs", time_steps=4, calibration=batches(3))
    assert (report.method, report.prerun_steps, report.total_steps) == ("qcfs", 0, 4)
    assert report.calibration_images == 0 and report.seconds >= 0 and "θ" in report.spikes
    row = report.row()
    assert row["lowest_threshold"] == pytest.approx(0.5) and row["highest_threshold"] == pytest.approx(3.0)
    assert {"method", "prerun_steps", "total_steps", "spikes", "calibration_images", "seconds"} < set(row)
    assert not any(isinstance(v, dict) for v in row.values()) and row["options"] == "defaults"


def test_the_report_counts_images_after_some_were_held_out():
    net = build("vgg5", "qc", **SMALL)
    _, report = convert(net, "lmpc", time_steps=2, calibration=batches(7, 5), rounds=1, order="backward")
    assert (report.calibration_images, report.validation_images) == (9, 3)
    assert report.row()["options"] == "rounds=1, order='backward'"
    _, report = convert(net, "lmpc", time_steps=2, calibration=batches(7), validation=batches(4, 2, seed=9))
    assert (report.calibration_images, report.validation_images) == (7, 6)
    _, report = convert(net, "qc", time_steps=2, calibration=batches(7), validation=batches(4))
    assert (report.calibration_images, report.validation_images) == (0, 0)


# --- networks to fine-tune


@pytest.mark.parametrize("make, kind", [
    (lambda net, data: quantised(net, data, 4, 0.5), QuantClip), (clipped, ClippedReLU)
], ids=["quantised", "clipped"])  # fmt: skip
def test_activations_start_at_the_percentile_of_their_layer(make, kind):
    net, data = with_statistics(build("vgg5", **SMALL)).train(), batches(20, 11)
    before = copy.deepcopy(net.state_dict())
    new = make(net, data)
    assert net.training and same_state(net.state_dict(), before)
    top = top_activations(copy.deepcopy(net).eval(), data, 0.001)
    found = {n: m for n, m in new.named_modules() if isinstance(m, kind)}
    assert found.keys() == top.keys()
    for name, m in found.items():
        assert m.lam.item() == pytest.approx(top[name][-1].item(), rel=1e-5)
        if kind is QuantClip:
            assert (m.levels, m.shift) == (4, 0.5)
    weights = new.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in before.items())


@pytest.mark.parametrize("make", [lambda net, data: quantised(net, data, 4, 0.5), clipped], ids=["qc", "clip"])
@pytest.mark.parametrize("net, data, message", [
    (Functional(F.relu), batches(2), r"= 'Functional' is not allowed: .* \(it calls relu\); use nn.ReLU"),
    (Own(pool=nn.MaxPool2d(2)), batches(2), "^pool = 'MaxPool2d' is not allowed: average pooling"),
    (Twice(nn.ReLU()), batches(2), "^act = 'one ReLU that runs 2 times' is not allowed: a module of its own"),
    (nn.Flatten(), batches(2), "^net = 'Flatten' is not allowed: a network with nn.ReLU modules$"),
    (Own(), [], r"^batches = \[\] is not allowed: at least one batch$"),
    (Own(), [(images(2) * float("nan"), torch.zeros(2))], r"^batches\[0\] = 'x with NaN"),
], ids=["function", "max pooling", "shared", "none", "no batch", "NaN"])  # fmt: skip
def test_what_cannot_be_converted_is_refused_before_it_is_trained(make, net, data, message):
    with pytest.raises(ValueError, match=message):
        make(net, data)


def test_the_guide_converts_a_network_as_printed(capsys):
    page = (Path(__file__).parent.parent / "book" / "guide.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"### Your own network.*?```python\n(.*?)```", page, flags=re.DOTALL)
    found: dict = {}
    torch.manual_seed(0)
    exec(block, found)
    assert capsys.readouterr().out.startswith("QuantClip, L = 8, shift 0\n")
    assert found["accuracy"](found["snn"], found["data"]) > found["accuracy"](found["relu"], found["data"]) - 0.1 > 0.8


def test_mean_outputs_by_hand():
    net = nn.Sequential(nn.ReLU(), nn.Flatten(), QuantClip(levels=2, lam=1.0))
    data = [
        (torch.tensor([[1.0, -1.0, 0.6]]), None),
        (torch.tensor([[0.0, 0.5, -3.0], [4.0, 0.4, 0.4]]), None),
    ]
    found = mean_outputs(net, data)
    assert found == pytest.approx({"0": 6.9 / 9, "2": (1 + 0.5 + 0.5 + 1) / 9})
    spiking = nn.Sequential(IF(emit=2.0, v_threshold=2.0))
    assert mean_outputs(spiking, [(torch.full((4, 1), 1.0), None)]) == {
        "0": 1.0
    }  # two spikes of height 2 in four steps
    assert not any(m._forward_hooks for m in [*net.modules(), *spiking.modules()])


def test_an_activation_in_the_stem_is_refused():
    stem, body = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU())
    net = Network(stem, body, nn.Sequential(nn.Flatten(), nn.LazyLinear(3))).eval()
    net(images(2))
    with pytest.raises(ValueError, match=r"^net.stem = \['1'\] is not allowed: no activations"):
        convert(net, "max_norm", time_steps=4, calibration=batches(2))


def test_a_steady_bias_belongs_to_the_limit_and_those_of_single_steps_do_not():
    net, x = with_statistics(build("vgg5", **SMALL)), images(6, seed=5)
    snn, _ = convert(net, "snn_calibration_bias", time_steps=32, calibration=batches(2))
    assert any(layer.step_bias is not None for layer in spiking_layers(snn).values())
    snn.time_steps, limit = 4096, infinite_time(snn)
    with torch.no_grad():
        torch.testing.assert_close(snn(x).mean(0), limit(x), rtol=0, atol=2e-3)
    layer = next(iter(spiking_layers(snn).values()))
    layer.step_bias = torch.ones(4, 1, 1, 1, 1)
    name, drive = next(iter(spiking_layers(snn))), torch.linspace(-1, 4, 11)
    with torch.no_grad():
        torch.testing.assert_close(infinite_time(snn).get_submodule(name)(drive), drive.clamp(0, layer.v_threshold))
