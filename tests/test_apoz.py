"""APoZ: by hand, against a literal equation (6), for any batches and bundles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import blobs
from torch import nn

from snnbook.models import build
from snnbook.network import Network
from snnbook.record import firing_rates, observe
from snnbook.splitting.apoz import ClassZeros, atsan, class_zeros


def net(time_steps=3, activation="lif", **options):
    spiking = {"time_steps": time_steps} if activation == "lif" else {}
    made = build("vgg5", activation, n_classes=3, shape=(1, 8, 8), width=0.1, seed=1, **spiking, **options)
    return made.eval()


def recorded(network, x):
    """Outputs of every spiking layer, [T, N, C, h, w]."""
    found = {}

    def note(name, layer, drive, output):
        found[name] = output.unflatten(0, (network.time_steps, -1)).clone()

    with torch.no_grad(), observe(network, neuron=note):
        network(x)
    return found


def test_hand_made_spikes():
    """Two filters over 2×1 positions and T = 2; class 0 has two samples, class 1 one, class 2 none."""
    spikes = torch.tensor(
        [  # [T, N, C, h, w]
            [[[[1], [0]], [[0], [0]]], [[[1], [1]], [[0], [1]]], [[[0], [0]], [[0], [0]]]],
            [[[[1], [0]], [[0], [0]]], [[[0], [1]], [[0], [0]]], [[[1], [0]], [[0], [0]]]],
        ],
        dtype=torch.float32,
    )
    drive = spikes * 4 - 2  # a ReLU passes exactly the positive ones
    stub = Network(nn.Identity(), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Identity()))
    batches = [(drive[:, :2], torch.tensor([0, 0])), (drive[:, 2:], torch.tensor([1]))]
    zeros = class_zeros(stub, batches, 3)["body"]
    assert zeros.slots.tolist() == [8, 4, 0] and zeros.samples.tolist() == [2, 1, 0]
    assert zeros.zeros.tolist() == [[3, 7], [3, 4], [0, 0]]
    assert zeros.apoz([0]).tolist() == [3 / 8, 7 / 8]
    assert zeros.apoz([0, 1]).tolist() == [6 / 12, 11 / 12] == zeros.apoz().tolist()
    assert zeros.nonzero([0]).tolist() == [2.5, 0.5]
    np.testing.assert_allclose(zeros.each_class(), [[3 / 8, 7 / 8], [3 / 4, 1], [np.nan] * 2])
    for bad in ([2], [3], []):
        with pytest.raises(ValueError, match="classes ="):
            zeros.apoz(bad)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 1, 8, 8)])
def test_equation_6_literally_with_uneven_batches(shape):
    kind = "events" if len(shape) == 4 else "image"
    network, data = net(), blobs(shape=shape, kind=kind, train=23)
    zeros = class_zeros(network, data.batches("train", 5), 3)  # 23 = 4 × 5 + 3
    ((x, y),) = data.batches("train", 23)
    outputs = recorded(network, x)
    assert list(zeros) == list(outputs)
    for bundle in ([0], [1, 2], [0, 1, 2]):
        chosen = torch.isin(y, torch.tensor(bundle))
        for name, output in outputs.items():
            expected = (output[:, chosen] == 0).double().mean((0, 1, 3, 4))
            torch.testing.assert_close(zeros[name].apoz(bundle), expected)


def test_any_batching_and_order_gives_the_same_counts():
    network, data = net(), blobs(shape=(1, 8, 8), train=20)
    one = class_zeros(network, data.batches("train", 20), 3)
    shuffled = class_zeros(network, data.batches("train", 3, torch.Generator().manual_seed(2)), 3)
    for name in one:
        assert torch.equal(one[name].zeros, shuffled[name].zeros)
        assert torch.equal(one[name].slots, shuffled[name].slots)


def test_the_network_is_left_as_it_was():
    network = net().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    class_zeros(network, blobs(shape=(1, 8, 8)).batches("train", 8), 3)
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())
    assert all(p.grad is None for p in network.parameters())


def test_atsan_is_the_number_of_spikes_a_sample():
    network, data = net(), blobs(shape=(1, 8, 8))
    zeros = class_zeros(network, data.batches("test", 7), 3)
    rates = firing_rates(network, data.batches("test", 7))
    assert atsan(zeros) == pytest.approx(rates["spikes"].sum() / len(data.test))


def test_relu_networks_count_too_and_fully_connected_activations_do_not():
    network, data = net(activation="relu", pool="max", head="fc"), blobs(shape=(1, 8, 8))
    zeros = class_zeros(network, data.batches("test", 24), 3)
    assert list(zeros) == ["body.0", "body.4", "body.7"]
    ((x, y),) = data.batches("test", 24)
    first = torch.relu(network.stem(x))
    torch.testing.assert_close(zeros["body.0"].apoz(), (first == 0).double().mean((0, 2, 3)))


@pytest.mark.parametrize("bundle", [[1], [2], [-1], []])
def test_a_bundle_without_samples_or_with_an_unknown_class_is_refused(bundle):
    zeros = ClassZeros(torch.tensor([[1, 2], [0, 0]]), torch.tensor([4, 0]), torch.tensor([1, 0]))
    for measure in (zeros.apoz, zeros.nonzero):
        with pytest.raises(ValueError, match="classes = .* 0 to 1, with samples"):
            measure(bundle)


def test_select_keeps_the_counts_of_a_mask():
    zeros = ClassZeros(torch.tensor([[1, 2, 3]]), torch.tensor([4]), torch.tensor([1]))
    kept = zeros.select(torch.tensor([True, False, True]))
    assert kept.apoz().tolist() == [0.25, 0.75] and kept.slots.tolist() == [4]
