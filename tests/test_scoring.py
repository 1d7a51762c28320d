"""Demands from mask sizes against networks that are really pruned, built and counted."""

import pytest
import torch
from torch import nn

from snnbook.energy import count_operations
from snnbook.models import build
from snnbook.network import Network
from snnbook.neurons import LIF
from snnbook.splitting import scoring
from snnbook.splitting.apoz import class_zeros
from snnbook.splitting.prune import masks, prune, pruned_size
from snnbook.splitting.submodel import device_part, payload_bits

SHAPE = (2, 12, 8)


@pytest.fixture(scope="module")
def batches():
    g = torch.Generator().manual_seed(1)
    return [(2 * torch.rand(n, *SHAPE, generator=g), torch.arange(n) % 3) for n in (6, 5)]


@pytest.fixture(scope="module")
def net():
    return build("vgg5", "lif", shape=SHAPE, width=1 / 8, time_steps=3, n_classes=3, head="mlp").eval()


@pytest.fixture(scope="module")
def zeros(net, batches):
    return class_zeros(net, batches, 3)


@pytest.mark.parametrize("zeta", [70, 85, 99, 200])
@pytest.mark.parametrize("static", [True, False])
def test_bytes_macs_and_bits_are_those_of_the_pruned_network(net, zeros, zeta, static):
    chosen = masks({name: z.apoz([0, 2]) for name, z in zeros.items()}, zeta, 2)
    (found,) = scoring.scorer(net, zeros, SHAPE, 2, static)([(0, 2)], zeta)
    table = pruned_size(net, chosen, SHAPE).query("part == 'features'")
    small = prune(net, chosen)
    stored = sum(t.numel() * t.element_size() for t in device_part(small).state_dict().values())
    assert found.bytes == table["bytes"].sum() == stored
    first, others = table["macs"].iloc[0], table["macs"].iloc[1:].sum()
    assert found.macs == first * (1 if static else 3)
    assert found.dense_macs == found.macs + 3 * others
    assert found.payload_bits == payload_bits(small, SHAPE)
    assert found.name == "classes 0,2"


def test_accumulates_are_exact_without_borders(batches):
    """With 1 × 1 kernels every spike reaches one position of each filter, and nothing is estimated."""
    def block(a, b):
        return [nn.Conv2d(a, b, 1, bias=True), nn.BatchNorm2d(b), LIF()]

    torch.manual_seed(3)
    body = [*block(2, 6), *block(6, 5), nn.AvgPool2d(2), *block(5, 4)]
    net = Network(nn.Sequential(*body[:2]), nn.Sequential(*body[2:]), nn.Sequential(nn.Flatten(), nn.Linear(96, 3)))
    net.time_steps = 3
    net.eval()
    found = scoring.unsplit(net, class_zeros(net, batches, 3), SHAPE)
    measured = count_operations(net, batches).query("part == 'connection' and not layer.str.startswith('head')")
    by_kind = measured.groupby("kind")["operations"].sum()
    assert by_kind["ac"] > 0 and found.acs == pytest.approx(by_kind["ac"])
    assert found.macs == pytest.approx(by_kind["mac"])


def test_borders_make_the_estimate_an_upper_bound(net, zeros, batches):
    found = scoring.unsplit(net, zeros, SHAPE)
    measured = count_operations(net, batches).query("part == 'connection' and not layer.str.startswith('head')")
    spikes = measured[measured["kind"] == "ac"]["operations"].sum()
    assert 0 < spikes < found.acs < 1.5 * spikes


def test_a_device_sees_samples_of_all_classes(net, zeros):
    """Which filters stay depends on the classes of a sub-model; how often they fire, on everything it sees."""
    score = scoring.scorer(net, zeros, SHAPE, 2)
    for one in score([(0,), (1, 2)], 200):  # nothing is pruned
        assert one.acs == scoring.unsplit(net, zeros, SHAPE).acs


def test_lower_thresholds_never_ask_for_more(net, zeros):
    score = scoring.scorer(net, zeros, SHAPE, 2)
    for figure in ("bytes", "acs", "dense_macs", "payload_bits"):
        values = [getattr(score([(0, 1)], zeta)[0], figure) for zeta in range(100, 40, -5)]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1] or figure == "payload_bits"


def test_other_networks_are_refused():
    net = build("resnet20", "lif", width=1 / 8, shape=SHAPE, time_steps=2)
    with pytest.raises(ValueError, match="chain"):
        scoring.scorer(net, {}, SHAPE)
