"""Layer by layer through converted networks of every kind, against plain forward passes with hooks."""

import pytest
import torch
from test_conversion import NETS, SMALL, Own, Viewed, batches, images, with_statistics, with_thresholds
from torch import nn

from snnbook.conversion import activations, fold_batchnorm, layerwise, spiking, trained_thresholds
from snnbook.conversion.layerwise import Activity, parts_of, walk
from snnbook.models import build
from snnbook.network import Network
from snnbook.neurons import spiking_layers
from snnbook.quantise import QuantClip
from snnbook.record import observe

ALL = [*NETS[:-1], ("own", {}), ("viewed", {})]


def pair(name="vgg5", T=3, **options):
    """(SNN, ANN) with trained-like thresholds."""
    if name == "own":
        own = Own(act=QuantClip(lam=0.8))
        own.act2 = QuantClip(lam=1.5)
        net = Network(nn.Identity(), with_statistics(own), nn.Identity())
    elif name == "viewed":
        net = Network(nn.Identity(), Viewed(lambda: QuantClip(lam=0.5)).eval(), nn.Identity())
    else:
        net = with_thresholds(with_statistics(build(name, "qcfs", **SMALL, **options)), 0.5, 1.0, 2.0)
    ann = fold_batchnorm(net, images(1))
    return spiking(ann, trained_thresholds(ann), T, 0.5), ann


def recorded(snn, ann, data):
    """Name to (drive, output, activation) of each batch, and the logits, from whole forward passes."""
    T, seen, taught, logits = snn.time_steps, {}, {}, []

    def note(name, layer, drive, y):
        seen.setdefault(name, []).append((drive.unflatten(0, (T, -1)), y.unflatten(0, (T, -1))))

    def teach(name):
        return lambda module, inputs, y: taught.setdefault(name, []).append(y)

    handles = [m.register_forward_hook(teach(name)) for name, m in activations(ann).items()]
    with torch.no_grad(), observe(snn, neuron=note):
        for x, _ in data:
            logits.append((snn(x), ann(x)))
    for handle in handles:
        handle.remove()
    return {name: [(*a, b) for a, b in zip(seen[name], taught[name], strict=True)] for name in seen}, logits


@pytest.mark.parametrize("name, options", ALL)
@pytest.mark.parametrize("T", [1, 9])
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_a_walk_shows_what_a_forward_pass_does(name, options, T, order):
    snn, ann = pair(name, T, **options)
    data = batches(5, 2)
    expected, logits = recorded(snn, ann, data)
    names = []
    for layer in walk(snn, ann, data, head=True, order=order):
        names.append(layer.name)
        for i, batch in enumerate(layer.splits[0]):
            if layer.neuron is None:
                drive = y = logits[i][0]
                a = logits[i][1]
            else:
                drive, y, a = expected[layer.name][i]
            with torch.no_grad():
                torch.testing.assert_close(layer.drive(batch), drive, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(layer.output(batch), y, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(layer.target(batch), a, rtol=1e-4, atol=1e-5)
    assert sorted(names) == sorted([*expected, "head"])
    if order == "forward":
        assert names == [*expected, "head"]


@pytest.mark.parametrize("name, options", ALL)
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_every_weight_belongs_to_the_first_layer_it_reaches(name, options, order):
    snn, ann = pair(name, 2, **options)
    owners = {}
    for layer in walk(snn, ann, batches(2), head=True, order=order):
        for p in layer.parameters:
            assert id(p) not in owners
            owners[id(p)] = layer.name
    assert owners.keys() == {id(p) for p in snn.parameters()}
    first, last = next(iter(spiking_layers(snn))), [p for p in snn.parameters()][-1]
    assert owners[id(next(iter(snn.parameters())))] == first and owners[id(last)] == "head"


def test_shortcut_and_branch_of_a_block_belong_together():
    snn, ann = pair("resnet20", 2)
    block = snn.body[4]  # strided, with a convolution on its shortcut
    layer = next(x for x in walk(snn, ann, batches(2)) if x.neuron is block.after)
    expected = [*block.branch[3].parameters(), *block.shortcut[0].parameters()]
    assert {id(p) for p in layer.parameters} == {id(p) for p in expected}


@pytest.mark.parametrize("name, options", ALL)
def test_later_layers_see_what_was_changed(name, options):
    snn, ann = pair(name, 3, **options)
    data, seen = batches(4, 3), {}
    for i, layer in enumerate(walk(snn, ann, data)):
        layer.neuron.v_init = layer.neuron.v_init + (0.3 if i % 2 else -0.2)
        with torch.no_grad():
            for p in layer.parameters:
                p.mul_(1.1)
        seen[layer.name] = [layer.output(batch) for batch in layer.splits[0]]
    expected, _ = recorded(snn, ann, data)
    for layer_name, outputs in seen.items():
        for y, (_, wanted, _) in zip(outputs, expected[layer_name], strict=True):
            assert (y != wanted).float().mean() < 0.01  # rounding at a threshold aside


@pytest.mark.parametrize("name, options", ALL)
def test_backward_order_sees_an_unchanged_prefix(name, options):
    snn, ann = pair(name, 3, **options)
    data = batches(4)
    expected, _ = recorded(snn, ann, data)
    for layer in walk(snn, ann, data, order="backward"):
        with torch.no_grad():
            torch.testing.assert_close(layer.drive(layer.splits[0][0]), expected[layer.name][0][0])
        layer.neuron.v_init = layer.neuron.v_init + 5.0


def test_events_have_the_mean_activation_as_target():
    snn, ann = pair("vgg5", 4)
    x = images(4, 3, 2, 8, 8)
    layer = next(walk(snn, ann, [(x, torch.zeros(3))]))
    name, batch = layer.name, layer.splits[0][0]
    with torch.no_grad():
        frames = ann.get_submodule(name)(ann.stem(x.flatten(0, 1))).unflatten(0, (4, 3))
        torch.testing.assert_close(layer.drive(batch), ann.stem(x.flatten(0, 1)).unflatten(0, (4, 3)))
    torch.testing.assert_close(layer.target(batch), frames.mean(0))


def test_drives_are_the_same_whether_kept_or_not(monkeypatch):
    snn, ann = pair("vgg5", 3)
    data = batches(4, 4)
    kept = [layer.error() for layer in walk(snn, ann, data) for _ in range(2)]
    monkeypatch.setattr(layerwise, "KEEP", 0)
    assert kept == [layer.error() for layer in walk(snn, ann, data) for _ in range(2)]


def test_the_error_by_hand():
    snn, ann = pair("vgg5", 3)
    data = batches(4, 3)
    expected, _ = recorded(snn, ann, data)
    for layer in walk(snn, ann, data[:1], data):
        gaps = torch.cat([(y.mean(0) - a).flatten() for _, y, a in expected[layer.name]])
        assert layer.error(1) == pytest.approx(gaps.double().square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("T", [1, 2, 7, 8, 9, 20])
@pytest.mark.parametrize("last", [False, True])
def test_packed_spikes_come_back(T, last):
    y = (images(T * 3, 4, 5, 6) > 0.5).float() * 1.7
    y = y.contiguous(memory_format=torch.channels_last) if last else y
    packed = Activity.of(y, T)
    assert packed.data.dtype == torch.uint8 and packed.data.shape == (-(-T // 8), 3, 4, 5, 6)
    assert torch.equal(packed.unpack(), y)
    one = packed.one().unpack()
    assert torch.equal(one, y.unflatten(0, (T, 3))[:, 0])


@pytest.mark.parametrize("y", [images(6, 4), torch.tensor([[0.0], [1.0], [2.0]])])
def test_analogue_activity_is_kept_as_it_is(y):
    assert torch.equal(Activity.of(y, 3).unpack(), y) and torch.equal(Activity.of(y, None).unpack(), y)
    assert torch.equal(Activity.of(torch.zeros(6, 2), 3).unpack(), torch.zeros(6, 2))


def test_parts_end_where_spikes_are_sent():
    snn, ann = pair("vgg9", 2, head="fc")
    parts = parts_of(snn)
    assert [m for part in parts for m in part] == [snn.stem, *snn.body, *snn.head]
    assert len(parts) == len(spiking_layers(snn)) + 1 and [len(p) for p in parts] == [len(p) for p in parts_of(ann)]
    assert len(parts_of(pair("resnet20", 2, order="ms")[0])) == 2  # analogue sums run from block to block


@pytest.mark.parametrize("arguments, options, message", [
    (([],), {}, r"splits = \[\[\]\] is not allowed: at least one batch in the first split"),
    ((batches(2),), {"order": "random"}, "order = 'random' is not allowed: one of forward, backward"),
])  # fmt: skip
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        next(walk(*pair(), *arguments, **options))
