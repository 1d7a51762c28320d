import nir
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, monitor, neuron, nir_exchange
from tiny import lively
from torch import nn

from snnbook import exchange, simulators
from snnbook.bottleneck.backbone import backbone
from snnbook.bottleneck.codec import compress, head
from snnbook.conversion import METHODS, convert
from snnbook.exchange import as_spikingjelly
from snnbook.fold import fold_batchnorm
from snnbook.models import build
from snnbook.network import Network
from snnbook.neurons import IF, LIF, spiking_layers
from snnbook.splitting.prune import prune
from snnbook.splitting.submodel import device_part, with_fresh_head


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


# NIR


def watched(net):
    """Output of each layer of neurons [T·N, ...] by its name as in a graph, once ``net`` has run."""
    seen = {}
    for name, layer in spiking_layers(net).items():
        name = name.removeprefix("graph.").replace(".", "_")

        def note(_, inputs, y, name=name):
            seen[name] = y

        layer.register_forward_hook(note)
    return seen


def hard(leak):
    return {"tau": 1 / (1 - leak), "decay_input": False, "v_threshold": 0.5, "v_reset": 0.0}


def converted(model, method, **options):
    """A network converted by one of the book's methods, with its own potentials and heights of spikes."""
    source = METHODS[method].source
    net = lively(build(model, source, n_classes=3, shape=(1, 8, 8), width=0.2, **options)).eval()
    batches = [(normal(8, 1, 8, 8, seed=s), torch.zeros(8, dtype=torch.long)) for s in (1, 2)]
    return convert(net, method, time_steps=4, calibration=batches)[0]


def device_head():
    """The device's half of a spiking ResNet with a codec."""
    net = backbone(3, name="resnet20", n_classes=3, shape=(1, 8, 8), width=0.4, blocks=(1, 1))
    return head(lively(compress(net, (1, 8, 8), 2, 3, 2)[0]))


def sub_model():
    """A pruned VGG-5 with a head of its own."""
    net = build("vgg5", "lif", n_classes=4, shape=(1, 8, 8), width=0.1, head="mlp", time_steps=3)
    mask = torch.ones(13, dtype=torch.bool)
    mask[3:7] = False
    return lively(with_fresh_head(prune(net, {"body.7": mask}), 2, 0.2))


NETWORKS = {
    "qcfs": lambda: converted("vgg5", "qcfs"),
    "lmpc": lambda: converted("vgg5", "lmpc"),
    "lmpc resnet": lambda: converted("resnet20", "lmpc", blocks=(1, 1)),
    "a constant bias": lambda: converted("vgg5", "opt"),
    "a bias for each channel": lambda: converted("vgg5", "snn_calibration_bias"),
    "sub-model": sub_model,
    "sub-model on its device": lambda: device_part(sub_model()),
    "device head": device_head,
    "ResNet of LIF": lambda: lively(build("resnet20", "lif", n_classes=3, shape=(1, 8, 8), width=0.4, blocks=(1, 1),
                                          order="ms", time_steps=3, **hard(0.25))),
    "IF": lambda: lively(build("vgg5", "if", n_classes=3, shape=(1, 8, 8), width=0.2, time_steps=5)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_comes_back_from_its_file_and_runs_in_norse_with_the_same_spikes(name, tmp_path):
    net, x = NETWORKS[name]().eval(), normal(6, 1, 8, 8, seed=3)
    folded = fold_batchnorm(net, x[:1])
    graph = exchange.read(exchange.write(tmp_path / "net.nir", exchange.to_nir(net, x)))
    back = exchange.from_nir(graph)
    expected, got = watched(folded), watched(back)
    with torch.no_grad():
        y = folded(x)
        assert torch.equal(back(x), y) and torch.equal(back(x.expand(len(y), *x.shape)), y)
    assert len(expected) > 1 and expected.keys() == got.keys()
    norse_y, norse = simulators.in_norse(simulators.plain(graph), x)
    assert expected.keys() == norse.keys()
    for layer, spikes in expected.items():
        spikes = spikes > 0
        assert 0 < spikes.float().mean() < 1
        assert torch.equal(got[layer].view_as(spikes) > 0, spikes)
        assert torch.equal(norse[layer].reshape(spikes.shape) > 0, spikes)
    assert torch.allclose(norse_y, y, atol=1e-5)


def test_a_constant_bias_of_a_layer_without_places():
    net, x = chain(v_threshold=0.6), normal(7, 6, 1, 2, 2)
    net.body[0].step_bias = torch.linspace(-0.3, 0.3, 5).view(1, 1, 5)
    graph = exchange.to_nir(net, x)
    with torch.no_grad():
        assert torch.equal(exchange.from_nir(graph)(x), net(x)) and not torch.equal(net(x), chain(v_threshold=0.6)(x))
    assert torch.equal(simulators.in_norse(simulators.plain(graph), x)[0], net(x))


def test_a_device_head_takes_events_step_by_step():
    net = device_head().eval()
    x = normal(3, 4, 1, 8, 8)
    back = exchange.from_nir(exchange.to_nir(net, x))
    with torch.no_grad():
        assert torch.equal(back(x), fold_batchnorm(net, x[:, :1])(x))
    with pytest.raises(ValueError, match="x.ndim = 3 is not allowed: 4, or one more with T"):
        back(x[0, 0])


def euler(graph, x):
    """The equations of NIR by hand, for one chain of Affine and IF or LIF nodes, in Euler steps, with soft reset."""
    chain, state, out = [n for n in graph.nodes.values() if isinstance(n, nir.Affine | nir.IF | nir.LIF)], {}, []
    dt = graph.metadata["dt"]
    for z in x.numpy().astype(np.float64):
        for i, node in enumerate(chain):
            if isinstance(node, nir.Affine):
                z = z @ node.weight.T.astype(np.float64) + node.bias
                continue
            v = state.get(i, np.broadcast_to(node.metadata["v_init"], z.shape))
            slope = node.r * z if isinstance(node, nir.IF) else ((node.v_leak - v) + node.r * z) / node.tau
            v = v + dt * slope
            z = (v > node.v_threshold).astype(np.float64)
            state[i] = v - node.v_threshold * z
        out.append(z)
    return torch.tensor(np.array(out))


def chain(**options):
    """Flatten, Linear, IF, Linear, LIF for 1×2×2 images and T = 7."""
    linear, neurons, *rest = small(**options)
    net = Network(nn.Sequential(nn.Flatten(), linear), nn.Sequential(neurons, *rest), nn.Identity())
    net.time_steps = 7
    return net.eval()


@pytest.mark.parametrize("dt", [2.0**-10, 1e-4])
def test_nodes_mean_what_the_equations_of_nir_say(dt):
    net, x = chain(v_threshold=0.6, v_init=0.25), normal(7, 6, 1, 2, 2)
    graph = exchange.to_nir(net, x, dt)
    with torch.no_grad():
        y = net(x)
        assert torch.equal(exchange.from_nir(graph)(x), y) and 0 < y.mean() < 1
    assert torch.equal(euler(graph, x.flatten(2)), y.double())
    lif = graph.nodes["body_2"]
    assert np.allclose(lif.tau, 2 * dt) and np.all(lif.r == 1) and lif.tau.shape == (3,)


def test_a_graph_that_spikingjelly_wrote_fires_as_spikingjellys_network():
    net = small("s", v_reset=0.0, v_threshold=0.6)
    graph = nir_exchange.export_to_nir(as_spikingjelly(net), normal(1, 4), dt=1e-3)
    x = normal(7, 6, 4)
    with torch.no_grad():
        expected = as_spikingjelly(net, "m")(x)
        assert torch.equal(exchange.from_nir(graph, dt=1e-3)(x), expected) and expected.any()
        with pytest.raises(ValueError, match="IF.r = 1000.0 is not allowed: 1/dt = 10000"):
            exchange.from_nir(graph)


def test_spikingjelly_reads_a_graph_of_ours_with_hard_reset():
    net = chain(v_reset=0.0, v_threshold=0.6)
    x = normal(7, 6, 1, 2, 2)
    graph = exchange.to_nir(net, x)
    twin, state, steps = nir_exchange.import_from_nir(graph, dt=exchange.DT), None, []
    with torch.no_grad():
        for step in x:
            y, state = twin(step, state)
            steps.append(y)
        assert torch.equal(torch.stack(steps), net(x)) and 0 < net(x).mean() < 1


def with_step_bias(**_):
    net = chain()
    net.body[0].step_bias = torch.zeros(7, 1, 5)
    return net


def with_bias(bias):
    net = build("vgg5", "if", shape=(1, 2, 2), time_steps=2)
    net.body[0].step_bias = bias
    return net


class OwnIF(IF):
    """Another kind of neuron."""


def own_neurons():
    net = chain()
    net.body[0] = OwnIF()
    net.time_steps = 7
    return net


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (with_step_bias, r"body.0.step_bias = \[7, 1, 5\] is not allowed: the same at every step"),
        (lambda: with_bias(torch.arange(4.0).view(1, 1, 1, 2, 2)), r"body.0.step_bias .* one value a channel"),
        (lambda: build("vgg5", "if", pool="max", shape=(1, 2, 2), time_steps=2), "body.1 = 'MaxPool2d'"),
        (lambda: build("vgg5", "relu", shape=(1, 2, 2)), "net.time_steps = None"),
        (lambda: small(), "net = 'Sequential'"),
        (own_neurons, "body.0 = 'OwnIF'"),
    ],
)
def test_what_nir_does_not_have_is_refused_by_name(make, named):
    net = make().eval()
    with pytest.raises(ValueError, match=named):
        exchange.to_nir(net, torch.zeros(1, 1, 2, 2))


def changed(graph, name, **values):
    for key, value in values.items():
        setattr(graph.nodes[name], key, value)
    return graph


def test_graphs_that_our_neurons_cannot_be_are_refused_by_name():
    def graph():
        return exchange.to_nir(chain(), torch.zeros(7, 1, 1, 2, 2))

    for name, values, message in [
        ("body_0", {"v_threshold": np.arange(1.0, 6.0)}, "IF.v_threshold = .* the same for all neurons"),
        ("body_2", {"v_leak": np.full(3, 0.5)}, "LIF.v_leak = .*0.5"),
        ("body_2", {"r": np.full(3, 0.5)}, "LIF.r = 0.5"),
        ("body_0", {"metadata": {"reset": "sideways"}}, "IF.reset = 'sideways'"),
    ]:
        with pytest.raises(ValueError, match=message):
            exchange.from_nir(changed(graph(), name, **values))
    other = graph()
    other.nodes["body_0"] = nir.CubaLIF(*[np.ones(5)] * 5)
    with pytest.raises(ValueError, match="node body_0 = 'CubaLIF'"):
        exchange.from_nir(other)
    with pytest.raises(ValueError, match="body_0.v_reset"):
        simulators.plain(changed(graph(), "body_0", v_reset=np.full(5, -0.1)))


def test_damaged_files_are_named_and_a_cut_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = exchange.write(tmp_path / "net.nir", exchange.to_nir(chain(), torch.zeros(7, 1, 1, 2, 2)))
    whole = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(nir, "write", lambda part, graph: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            exchange.write(path, exchange.read(path))
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]
    for damaged in (whole[: len(whole) // 2], b"", b"no HDF5" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="net.nir is damaged or no NIR file"):
            exchange.read(path)
    with pytest.raises(FileNotFoundError, match="gone.nir"):
        exchange.read(tmp_path / "gone.nir")


def test_norse_is_told_one_kind_of_reset():
    graph = exchange.to_nir(chain(), torch.zeros(7, 1, 1, 2, 2))
    graph.nodes["body_0"].metadata["reset"] = "value"
    with pytest.raises(ValueError, match="one kind for all neurons"):
        simulators.in_norse(simulators.plain(graph), torch.zeros(7, 1, 1, 2, 2))


def test_agreement_counts_every_spike_and_sees_a_difference(tmp_path, monkeypatch):
    net, x = NETWORKS["sub-model"](), normal(4, 1, 8, 8)
    net.train()
    row = simulators.agreement(net, x, tmp_path / "n.nir").iloc[0]
    assert net.training and all(m.training for m in net.modules())
    with torch.no_grad(), simulators.spikes_of(net.eval()) as seen:
        net(x)
    assert row["events"] == sum(s.numel() for s in seen.values())
    assert row["spikes"] == sum(int(s.sum()) for s in seen.values()) > 0
    assert row["import_differs"] == row["norse_differs"] == 0 and row["largest_difference"] < 1e-5
    assert row["bytes"] == (tmp_path / "n.nir").stat().st_size
    with monkeypatch.context() as patch:  # a reader that takes hard reset for soft
        patch.setattr(simulators, "plain", lambda g, plain=simulators.plain: hardened(plain(g)))
        assert simulators.agreement(net, x, tmp_path / "n.nir")["norse_differs"].item() > 0


def hardened(graph):
    for node in graph.nodes.values():
        if isinstance(node, nir.CubaLIF):
            node.metadata = node.metadata | {"reset": "value"}
    return graph
