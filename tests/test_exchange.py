import nir
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, monitor, neuron, nir_exchange
from torch import nn

from snnbook.exchange import as_spikingjelly
from snnbook.neurons import IF, LIF


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(step_mode="m", **options):
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 5), IF(**options, step_mode=step_mode), nn.Linear(5, 3),
                        LIF(2.0, **options, step_mode=step_mode))  # fmt: skip
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0.2, 0.8, generator=generator)
    return net


@pytest.mark.parametrize("v_reset", [None, 0.0, -0.2])
def test_the_twin_is_spikingjellys_and_fires_alike(v_reset):
    net, x = small(v_reset=v_reset, v_threshold=0.6), normal(7, 6, 4)
    twin = as_spikingjelly(net, "m")
    assert [type(m) for m in twin][1::2] == [neuron.IFNode, neuron.LIFNode]
    with torch.no_grad():
        assert torch.equal(twin(x), net(x)) and 0 < net(x).mean() < 1


def test_what_a_node_cannot_be_is_refused_by_name():
    for options, message in [
        ({"v_init": 0.5}, "1.v_init"),
        ({"emit": 2.0}, "1.emit"),
        ({"step_bias": 0.1}, "1.step_bias"),
    ]:
        with pytest.raises(ValueError, match=message):
            as_spikingjelly(small(**options))


def test_nir_export_has_our_weights_thresholds_and_time_constants():
    net = small("s", v_reset=0.0, v_threshold=0.6)
    nodes = list(nir_exchange.export_to_nir(as_spikingjelly(net), normal(1, 4), dt=1e-3).nodes.values())
    by_type = {t: [n for n in nodes if type(n) is t] for t in (nir.Affine, nir.IF, nir.LIF)}
    assert [len(found) for found in by_type.values()] == [2, 1, 1]
    np.testing.assert_array_equal(by_type[nir.Affine][0].weight, net[0].weight.detach().numpy())
    assert np.allclose(by_type[nir.IF][0].v_threshold, 0.6)
    assert np.allclose(by_type[nir.LIF][0].v_threshold, 0.6)
    assert np.allclose(by_type[nir.LIF][0].tau, 2.0 * 1e-3)


def test_spikingjellys_reset_monitors_and_layers_work_on_our_neurons():
    net, x = small(), normal(7, 6, 4)
    seen = monitor.OutputMonitor(net, IF)
    with torch.no_grad():
        expected = net(x)
    assert len(seen.records) == 1 and seen.records[0].shape == (7, 6, 5)
    single = small("s")
    with torch.no_grad():
        steps = torch.stack([single(step) for step in x])
        assert torch.equal(steps, expected)
        assert not torch.equal(torch.stack([single(step) for step in x]), expected)  # went on from its state
        functional.reset_net(single)
        assert torch.equal(torch.stack([single(step) for step in x]), expected)
        assert torch.equal(functional.multi_step_forward(x, small("s")), expected)
