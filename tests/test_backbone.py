"""The backbone against the printed numbers, a plain loop over time, tdBN's formula and torch's own FLOP counter."""

import pytest
import torch
from spikingjelly.activation_based import layer, surrogate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snnbook import papers
from snnbook.bottleneck.backbone import backbone, block_names, iterative_lif, split_points, twin
from snnbook.bottleneck.energy import ann_joules
from snnbook.counts import connections, count, parameters
from snnbook.models import build, tdbn
from snnbook.neurons import LIF, spiking_layers

SMALL = {"width": 1 / 16, "shape": (1, 8, 8), "n_classes": 5}


@pytest.fixture(scope="module")
def full():
    """The ANN of the paper at its full size, and its split points."""
    net = twin()
    return net, split_points(net, (3, 32, 32))


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_full_size_is_the_papers(full):
    net, points = full
    macs = count(net, (3, 32, 32)).set_index("layer")["macs"]
    assert parameters(net) == 23_705_252
    assert macs.sum() == 1_298_014_208
    assert macs["stem.0"] == 1_769_472
    assert points["shortcut_macs"].sum() == 117_440_512
    expected = {1: 58_720_256, 4: 88_080_384, 8: 88_080_384, 14: 88_080_384}
    assert points["macs"].tolist() == [expected.get(s, 71_303_168) for s in points["split_point"]]


def test_all_sixteen_energies_of_the_baseline_follow_from_the_model(full):
    ours = [f"{1e3 * ann_joules(macs):.2f}" for macs in full[1]["cumulative_macs"]]
    assert ours == [f"{e:.2f}" for e in papers.table("spikebottlenet_table3")["ann_millijoules"]]


def test_shapes_at_the_split_points(full):
    shapes = full[1][["channels", "height", "width"]].apply(tuple, axis=1).tolist()
    assert shapes == 3 * [(256, 32, 32)] + 4 * [(512, 16, 16)] + 6 * [(1024, 8, 8)] + 3 * [(2048, 4, 4)]


def test_spiking_network_and_twin_have_the_same_connections():
    snn, ann = backbone(2, **SMALL), twin(**SMALL, order="ms")
    sizes = [{name: m.weight.shape for name, m in connections(net).items()} for net in (snn, ann)]
    assert sizes[0] == sizes[1]
    assert split_points(snn, SMALL["shape"]).equals(split_points(ann, SMALL["shape"]))


@pytest.mark.parametrize("order", ["ms", "post"])
def test_macs_are_half_the_flops_that_torch_counts(order):
    net = backbone(1, **SMALL | {"shape": (2, 16, 16)}, order=order).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.body[: 1 + (order == "post")](net.stem(torch.zeros(1, 2, 16, 16)))
    points = split_points(net, (2, 16, 16)).iloc[0]
    stem = 9 * 2 * net.stem[0].out_channels * 256
    assert counter.get_total_flops() == 2 * (stem + points["macs"] + points["shortcut_macs"])


@pytest.mark.parametrize("blocks, stages", [((1, 1, 1, 1), 4), ((2, 1), 2), ((3, 4, 6, 3), 4)])
def test_depth_pattern_and_width(blocks, stages):
    net = backbone(2, **SMALL | {"width": 1 / 8}, blocks=blocks)
    points = split_points(net, (1, 8, 8))
    assert len(points) == sum(blocks) == len(block_names(net))
    assert points["channels"].iloc[-1] == 32 * 2 ** (stages - 1)
    assert net.eval()(randn(2, 1, 8, 8)).shape == (2, 2, 5)


def test_parameters_before_the_last_split_point_are_all_but_the_classifier():
    net = twin(**SMALL)
    assert split_points(net, (1, 8, 8))["parameters"].iloc[-1] == parameters(net) - parameters(net.head)


@pytest.mark.parametrize("leak, threshold", [(0.25, 0.5), (0.5, 1.0), (0.9, 0.3)])
def test_iterative_lif_is_the_recursion_of_the_paper(leak, threshold):
    x = randn(12, 7, dtype=torch.float64).abs()
    neuron = LIF(**iterative_lif(leak, threshold))
    u, o, expected = torch.zeros(7, dtype=torch.float64), torch.zeros(7, dtype=torch.float64), []
    for drive in x:
        u = leak * u * (1 - o) + drive
        o = (u > threshold).double()
        expected.append(o)
    assert torch.equal(neuron(x), torch.stack(expected))
    torch.testing.assert_close(neuron.v.double(), u * (1 - o))
    assert 0 < torch.stack(expected).mean() < 1


@pytest.mark.parametrize("window", [0.5, 1.0, 2.0])
def test_surrogate_is_a_rectangle_of_area_one(window):
    grid = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    slope = iterative_lif(window=window)["surrogate_function"].backward(torch.ones_like(grid), grid, alpha=1 / window)
    inside = grid.abs() < window / 2
    assert torch.equal(slope, torch.where(inside, 1 / window, 0.0).double())
    assert torch.trapezoid(slope, grid).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("window, passes", [(1.0, False), (1.5, True)])
def test_a_neuron_behind_spikes_needs_a_wider_rectangle(window, passes):
    """Its potential is 0 or 1, half a unit from θ = ½ whatever the spikes are."""
    spikes = (randn(6, 50) > 0).float().requires_grad_()
    LIF(**iterative_lif(window=window))(spikes).sum().backward()
    assert bool(spikes.grad.any()) == passes


def test_gradient_of_a_spike_passes_the_rectangle():
    neuron = LIF(**iterative_lif(threshold=0.5, window=0.4))
    x = torch.tensor([[0.0, 0.31, 0.5, 0.69, 0.71]], requires_grad=True)
    neuron(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 2.5, 2.5, 2.5, 0.0]]))


@pytest.mark.parametrize("alpha", [1.0, 0.5**0.5])
def test_tdbn_is_its_formula_and_spikingjellys_layer(alpha):
    T, N, C, threshold = 3, 4, 5, 0.5
    x = 2 * randn(T, N, C, 6, 6) + 1
    ours = tdbn(C, alpha, threshold)
    theirs = layer.ThresholdDependentBatchNorm2d(alpha, threshold, C)
    mean = x.mean((0, 1, 3, 4), keepdim=True)
    var = x.var((0, 1, 3, 4), keepdim=True, unbiased=False)
    y = ours(x.flatten(0, 1)).unflatten(0, (T, N))
    torch.testing.assert_close(y, alpha * threshold * (x - mean) / (var + ours.eps).sqrt(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y, theirs(x))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x.flatten(0, 1)).unflatten(0, (T, N)), theirs(x))


@pytest.mark.parametrize("order", ["ms", "post"])
def test_norms_of_branches_that_sum_start_smaller(order):
    net = backbone(2, **SMALL, threshold=0.5, order=order)
    starts = {name: m.weight[0].item() for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    last = {"ms": "8", "post": "7"}[order]
    for name, start in starts.items():
        summed = name.endswith((f"branch.{last}", "shortcut.1"))
        assert start == pytest.approx(0.5 * (0.5**0.5 if summed else 1)), name


def test_every_neuron_has_its_own_surrogate_and_the_constants_asked_for():
    net = backbone(3, **SMALL, leak=0.5, threshold=0.7, window=2.0)
    layers = list(spiking_layers(net).values())
    assert {(m.tau, m.v_threshold, m.v_reset, m.decay_input, m.time_steps) for m in layers} == {(2, 0.7, 0, False, 3)}
    assert {m.surrogate_function.alpha for m in layers} == {0.5}
    assert all(isinstance(m.surrogate_function, surrogate.Rect) for m in layers)
    assert len({id(m.surrogate_function) for m in layers}) == len(layers)


@pytest.mark.parametrize("order, before", [("ms", nn.Identity), ("post", LIF)])
def test_blocks_put_out_potentials_or_spikes(order, before):
    net = backbone(2, **SMALL, order=order)
    assert all(isinstance(net.body.get_submodule(name).after, before) for name in block_names(net))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"leak": 1.0}, r"leak = 1.0 is not allowed: above 0 and below 1"),
        ({"threshold": 0}, r"threshold = 0 is not allowed: a positive number"),
        ({"window": -1}, r"window = -1 is not allowed: a positive number"),
    ],
)
def test_neuron_constants_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        iterative_lif(**options)


def test_options_of_build_are_checked():
    with pytest.raises(ValueError, match=r"^norm = 'tdbn' is not allowed: bn, or tdbn for if and lif$"):
        build("resnet50", norm="tdbn")
    with pytest.raises(ValueError, match=r"^blocks = \(1, 1, 1, 1, 1\) is not allowed: 1 to 4 numbers of at least 1$"):
        build("resnet50", blocks=(1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"^blocks = \(1,\) is not allowed: None for a VGG$"):
        build("vgg5", blocks=(1,))
    with pytest.raises(ValueError, match=r"^net = 'Network' is not allowed: a network with residual blocks$"):
        split_points(build("vgg5", width=1 / 16), (3, 32, 32))
