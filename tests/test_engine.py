import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnbook.conversion import convert
from snnbook.engine import Bf16Conv, Height, Int8Conv, SpikeMean, SpikePool, prepare, quantise_weights
from snnbook.fold import replace
from snnbook.models import build
from snnbook.network import Network
from snnbook.neurons import IF, running_on, spiking_layers
from snnbook.record import observe

SMALL = {"shape": (2, 8, 8), "n_classes": 5, "width": 1 / 8}
NETS = [("vgg9", {}), ("vgg5", {"head": "fc"}), ("resnet20", {}), ("resnet20", {"order": "ms"})]
int8 = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="8-bit convolutions need oneDNN")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spikes(*shape, seed=0, dtype=torch.uint8):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def coarse(net, bits=6):
    """Weights that are whole multiples of 2^−bits with a largest of 127·2^−bits in every channel: exact in 8 bits."""
    with torch.no_grad():
        for i, m in enumerate(net.modules()):
            if isinstance(m, nn.Conv2d | nn.Linear):
                whole = (normal(*m.weight.shape, seed=i) * 20).round().clamp(-127, 127)
                whole.flatten(1)[:, 0] = 127
                m.weight.copy_(whole / 2**bits)
                if m.bias is not None:
                    m.bias.copy_((normal(*m.bias.shape, seed=i) * 2**bits).round() / 2**bits)
    return net


def converted(name, T=6, **options):
    """A converted network with thresholds that are powers of two, whose drive is exact in 8 bits."""
    net = build(name, "qcfs", lam=8.0, **SMALL, **options).eval()
    net = replace(net, {name: nn.Identity() for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)})
    return convert(coarse(net), "qcfs", time_steps=T, calibration=[(normal(2, 2, 8, 8), torch.zeros(2))])[0]


def trains(net, x):
    seen = {}
    with torch.no_grad(), observe(net, neuron=lambda name, layer, drive, y: seen.__setitem__(name, y != 0)):
        net(x)
    return seen


def test_weights_are_rounded_to_the_nearest_of_255_values():
    q, scale = quantise_weights(torch.tensor([[1.0, -0.5, 0.1], [0.0, 0.0, 0.0]]))
    assert q.tolist() == [[127, -64, 13], [0, 0, 0]]
    torch.testing.assert_close(scale[0], torch.tensor(1 / 127))
    weight = normal(7, 3, 3, 3)
    q, scale = quantise_weights(weight)
    assert (q * scale.view(-1, 1, 1, 1) - weight).abs().max() <= scale.max() / 2 * 1.001
    assert q.dtype == torch.int8 and (q.flatten(1).abs().amax(1) == 127).all()


@pytest.mark.parametrize("size, k", [(8, 2), (9, 2), (6, 3), (4, 1)])
def test_pooled_spikes_are_the_average_times_the_area(size, k):
    s = spikes(2, 3, size, size)
    assert torch.equal(SpikePool(k)(s), (F.avg_pool2d(s.float(), k) * k * k).round().to(torch.uint8))
    assert SpikePool(k)(s).dtype == torch.uint8


def test_adaptive_pool_of_spikes():
    s = spikes(2, 3, 8, 8)
    assert torch.equal(SpikeMean(1, 64.0)(s).flatten(1), s.sum((2, 3)).float())
    assert torch.equal(Height(0.25)(s), s * 0.25)


@int8
@pytest.mark.parametrize(
    "options",
    [{"padding": 1}, {"stride": 2, "padding": 1}, {"bias": False}, {"groups": 2}, {"dilation": 2, "padding": 2}],
    ids=str,
)
def test_8_bit_convolution_is_the_convolution_with_its_rounded_weights(options):
    layer, unit = nn.Conv2d(4, 6, 3, **options), 0.7
    s = spikes(3, 4, 9, 9) * 3
    q, scale = quantise_weights(layer.weight.detach() * unit)
    exact = nn.Conv2d(4, 6, 3, **options).double()
    with torch.no_grad():
        exact.weight.copy_(q.double() * scale.double().view(-1, 1, 1, 1))
        if layer.bias is not None:
            exact.bias.copy_(layer.bias)
        expected = exact(s.double())
    torch.testing.assert_close(Int8Conv(layer, unit)(s).double(), expected, rtol=1e-5, atol=1e-5)


def test_bf16_convolution_rounds_weights_and_nothing_else():
    layer, s = nn.Conv2d(4, 6, 3, stride=2, padding=1), spikes(3, 4, 9, 9, dtype=torch.float32)
    with torch.no_grad():
        weight = (layer.weight * 0.7).bfloat16().double()
        assert not torch.equal(weight, (layer.weight * 0.7).double())
        expected = F.conv2d(s.double(), weight, layer.bias.double(), 2, 1)
        found = Bf16Conv(layer, 0.7)(s)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.backends.mkldnn.fp32_precision == "none"  # as before


@pytest.mark.parametrize("activation", ["relu", "lif"])
@pytest.mark.parametrize("name, options", NETS)
def test_fp32_folds_batch_norm_and_changes_nothing_else(name, options, activation):
    T = None if activation == "relu" else 5
    net = build(name, activation, time_steps=T, **SMALL, **options)
    with torch.no_grad():
        net.train()(normal(16, 2, 8, 8) * 2)  # statistics
        net.eval()
        before, x = copy.deepcopy(net.state_dict()), normal(4, 2, 8, 8, seed=1)
        ready = prepare(net, x)
        torch.testing.assert_close(ready(x), net(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ready.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


@int8
@pytest.mark.parametrize("name, options", NETS)
def test_int8_gives_the_same_spikes_where_the_weights_are_exact(name, options):
    """Every weight is a multiple of 2^−6 and every drive exact in float32, so that not one spike may differ."""
    snn, x = converted(name, **options), (normal(3, 2, 8, 8, seed=2) * 8).round() / 8
    small = prepare(snn, x, "int8")
    expected, found = trains(snn, x), trains(small, x)
    assert expected.keys() == found.keys()
    for layer, train in expected.items():
        assert 0 < train.float().mean() < 1, layer
        assert torch.equal(found[layer], train), layer
    with torch.no_grad():
        torch.testing.assert_close(small(x), snn(x), rtol=1e-5, atol=1e-4)
    assert sum(isinstance(m, Int8Conv) for m in small.modules()) > 0


@pytest.mark.parametrize("name, options", NETS)
def test_bf16_gives_nearly_the_same_spikes_and_potentials_in_float32(name, options):
    snn, x = converted(name, **options), (normal(3, 2, 8, 8, seed=2) * 8).round() / 8
    small = prepare(snn, x, "bf16")
    for layer in spiking_layers(small).values():
        layer.keep_v = True
    expected, found = trains(snn, x), trains(small, x)
    first, second = list(expected)[:2]
    assert torch.equal(found[first], expected[first])  # the first layer is analogue and stays in float32
    assert (found[second] != expected[second]).float().mean() < 0.01
    assert all(layer.v.dtype == torch.float32 for layer in spiking_layers(small).values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prepared_neurons_stream_over_long_runs_and_keep_no_potential(precision):
    snn, x = converted("vgg5", T=11), (normal(3, 2, 8, 8, seed=2) * 8).round() / 8
    ready = prepare(snn, x, precision)
    with torch.no_grad():
        streamed, whole = ready(x), snn(x)
        with observe(ready, neuron=lambda *_: None):  # somebody looks on: all steps at once
            torch.testing.assert_close(ready(x), streamed)
        if precision == "fp32":
            torch.testing.assert_close(streamed, whole)
        assert all(layer.v is None for layer in spiking_layers(ready).values())
        with running_on(ready), pytest.raises(ValueError, match="keep_v"):
            ready(x)


@pytest.mark.parametrize("precision", ["fp32", "bf16", pytest.param("int8", marks=int8)])
@pytest.mark.parametrize("method, T", [("srp", 2), ("srp", 9), ("cos", 2), ("cos", 9)])
def test_networks_that_look_at_an_image_beforehand_can_be_prepared(method, T, precision):
    net = replace(build("vgg9", "qcfs", lam=8.0, **SMALL).eval(), {})
    net = replace(net, {name: nn.Identity() for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)})
    x = (normal(3, 2, 8, 8, seed=2) * 8).round() / 8
    snn, _ = convert(coarse(net), method, time_steps=T, calibration=[(x, torch.zeros(3))])
    ready = prepare(snn, x, precision)
    with torch.no_grad():
        expected, found = snn(x), ready(x)
        torch.testing.assert_close(ready(x), found)
    if precision != "bf16":  # whose weights are rounded
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.shape == (T, 3, 5) and not any(layer.keep_v for layer in spiking_layers(ready).values())


def test_no_height_is_lost_where_pooling_windows_differ_in_size():
    """6 × 6 into 4 × 4: windows overlap and differ, their output counts as analogue."""
    torch.manual_seed(0)
    body = nn.Sequential(IF(0.5, emit=0.5), nn.AdaptiveAvgPool2d(4))
    net = Network(nn.Conv2d(2, 3, 3, padding=1), body, nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))
    net.time_steps, x = 4, normal(2, 2, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(prepare(net, x, "bf16")(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "net, precision, message",
    [
        (build("vgg5", **SMALL), "fp16", "precision = 'fp16' is not allowed"),
        (build("vgg5", **SMALL), "int8", "a spiking network"),
        (build("vgg5", "if", time_steps=2, pool="max", **SMALL), "bf16", "MaxPool2d"),
    ],
)
def test_what_cannot_be_prepared_is_refused(net, precision, message):
    with pytest.raises(ValueError, match=message):
        prepare(net.eval(), normal(2, 2, 8, 8), precision)


def small(first: nn.Module, *pools: nn.Module, features: int) -> Network:
    torch.manual_seed(0)
    body = nn.Sequential(IF(), first, IF(), *pools)
    net = Network(nn.Conv2d(2, 4, 3, padding=1), body, nn.Sequential(nn.Flatten(), nn.Linear(features, 5)))
    net.time_steps = 2
    return net.eval()


@pytest.mark.parametrize(
    "net, precision, message",
    [
        (small(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), features=1024), "bf16", "padded with zeros"),
        (small(nn.Conv2d(4, 4, 1), nn.AvgPool2d(3, ceil_mode=True), features=144), "bf16", "with no option"),
        (small(nn.Conv2d(4, 4, 1), nn.AvgPool2d(2, divisor_override=1), features=256), "bf16", "with no option"),
        (small(nn.Conv2d(4, 4, 1), nn.AvgPool2d(16), features=4), "int8", "at most 255 spikes in int8, not 256"),
        (small(nn.Conv2d(4, 4, 1), nn.AvgPool2d(4), nn.AvgPool2d(4), features=4), "int8", "not 256"),
    ],
)
def test_options_of_layers_that_would_be_lost_are_refused(net, precision, message):
    x = normal(2, 2, 16, 16)
    prepare(net, x)  # in fp32 they stay as they are
    with pytest.raises(ValueError, match=message):
        prepare(net, x, precision)
