import pytest
import torch
from torch import nn

from snnbook.models import build
from snnbook.network import Network, Residual
from snnbook.neurons import IF, LIF, spiking_layers
from snnbook.record import FiringRates, firing_rates, observe

SMALL = {"width": 1 / 16, "shape": (1, 8, 8)}


def image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def units(net, x):
    """Layer name to the spike height that its input carries, ``None`` for analogue values."""
    seen = {}
    with (
        torch.no_grad(),
        observe(net, connection=lambda n, m, a, b: seen.setdefault(n, getattr(a, "spike_unit", None))),
    ):
        net(x)
    return seen


def test_callbacks_come_in_forward_order_with_drive_and_output():
    net = build("vgg5", "if", time_steps=3, head="fc", v_threshold=0.5, **SMALL).eval()
    calls = []

    def note(kind):
        return lambda name, module, x, y: calls.append((kind, name, module, x.clone(), y.clone()))

    with (
        torch.no_grad(),
        observe(net, neuron=note("neuron"), connection=note("connection"), junction=note("pool")),
    ):
        net(image(2, 1, 8, 8))
    c, n, p = "connection", "neuron", "pool"
    assert [call[0] for call in calls] == [c, n, p, c, n, c, n, p, c, n, c, n, c]
    for kind, name, module, x, y in calls:
        assert module is net.get_submodule(name)
        assert len(x) == len(y) == (2 if name == "stem.0" else 6)
        if kind == "neuron":
            assert torch.equal(module(x), y)  # the drive that came in gives the spikes that went out


def test_the_network_is_left_as_it_was_even_after_an_error():
    net = build("resnet20", "if", time_steps=2, **SMALL).eval()
    net.stem.register_forward_hook(lambda *_: None)
    expected = net(image(1, 1, 8, 8))

    def fail(*_):
        raise RuntimeError("in a callback")

    with pytest.raises(RuntimeError, match="in a callback"), observe(net, fail, fail, fail):
        net(image(1, 1, 8, 8))
    assert hooks(net) == 1
    with observe(net, FiringRates()):
        assert torch.equal(net(image(1, 1, 8, 8)), expected)
    assert hooks(net) == 1


def test_spikes_keep_their_height_through_pooling_flattening_and_dropout():
    body = nn.Sequential(IF(emit=0.5), nn.Conv2d(2, 3, 3, padding=1), IF(emit=3.0), nn.AvgPool2d(2),
                         nn.Identity(), nn.Conv2d(3, 2, 1), LIF(), nn.AvgPool2d((1, 2)),
                         nn.Conv2d(2, 2, 1))  # fmt: skip
    head = nn.Sequential(IF(emit=2.0), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(2, 2))
    net = Network(nn.Conv2d(1, 2, 3, padding=1), body, head).eval()
    net.time_steps = 2
    found = units(net, image(1, 1, 8, 8))
    assert found == {"stem": None, "body.1": 0.5, "body.5": 0.75, "body.8": 0.5, "head.4": 2.0 / 8}


@pytest.mark.parametrize(
    "pool, side, unit",
    [
        (nn.AvgPool2d(2), 3, 1 / 4),
        (nn.AvgPool2d(2), 5, 1 / 4),
        (nn.AvgPool2d(3, 1, 1), 4, 1 / 9),
        (nn.MaxPool2d(2), 4, 1.0),
        (nn.AdaptiveAvgPool2d(2), 4, 1 / 4),
    ],
)
def test_unit_after_a_pool_is_what_one_spike_leaves(pool, side, unit):
    """One spike in the middle of an empty map: the height that arrives is the unit."""
    net = nn.Sequential(IF(step_mode="s"), pool, nn.Conv2d(1, 1, 1))
    x = torch.zeros(1, 1, side, side)
    x[..., 1, 1] = 1.0
    assert units(net, x) == {"2": unit}
    arrived = pool(x)
    assert arrived.max().item() == pytest.approx(unit)


def test_windows_of_different_sizes_are_analogue_values():
    """5 to 3 pixels: windows of 2, 3 and 2 overlap, so that no single height belongs to a spike."""
    net = nn.Sequential(IF(step_mode="s"), nn.AdaptiveAvgPool2d(3), nn.Conv2d(1, 1, 1))
    assert units(net, torch.ones(1, 1, 5, 5)) == {"2": None}


def test_which_connections_of_a_residual_network_see_spikes():
    post, ms = (
        units(build("resnet20", "if", time_steps=2, order=o, **SMALL).eval(), image(1, 1, 8, 8)) for o in ("post", "ms")
    )
    assert {n for n, u in post.items() if u is None} == {"stem.0"}
    # Shortcuts of the MS order join on membranes: they carry analogue values.
    assert {n for n, u in ms.items() if u is None} == {"stem.0", "body.3.shortcut.0", "body.6.shortcut.0"}


def test_a_relu_network_carries_no_spikes():
    assert set(units(build("vgg5", **SMALL).eval(), image(1, 1, 8, 8)).values()) == {None}


def test_junctions_are_pools_and_residual_additions():
    net = build("resnet20", "if", time_steps=2, **SMALL).eval()
    kinds = []
    with observe(net, junction=lambda n, m, x, y: kinds.append(type(m))):
        net(image(1, 1, 8, 8))
    assert kinds == [Residual] * 9 + [nn.AdaptiveAvgPool2d]


def test_firing_rates_equal_a_count_by_hand_over_uneven_batches():
    net = build("vgg5", "if", time_steps=4, v_threshold=0.4, **SMALL).eval()
    batches = [(image(3, 1, 8, 8), torch.zeros(3)), (image(1, 1, 8, 8, seed=1), torch.zeros(1))]
    outputs = {name: [] for name in spiking_layers(net)}
    for name, layer in spiking_layers(net).items():
        layer.register_forward_hook(lambda m, x, y, name=name: outputs[name].append(y.detach()))
    table = firing_rates(net, batches).set_index("layer")
    for name, seen in outputs.items():
        spikes = [int(v != 0) for y in seen for v in y.flatten().tolist()]
        assert table.loc[name, "spikes"] == sum(spikes) > 0
        assert table.loc[name, "rate"] == pytest.approx(sum(spikes) / len(spikes))


def test_firing_rate_does_not_depend_on_the_height_of_a_spike():
    x = [(image(2, 3), torch.zeros(2))]
    one, half = (nn.Sequential(IF(emit=e, v_threshold=0.1)) for e in (1.0, 0.5))
    assert firing_rates(one, x).equals(firing_rates(half, x))


def test_share_of_zeros_of_each_filter_through_the_observer():
    """APoZ, equation (6) of EC-SNN: zeros / (T·N·h·w) of each filter, on hand-made spikes with θ = 1."""
    net = Network(nn.Identity(), IF(), nn.Flatten())
    net.time_steps = 2
    x = torch.zeros(2, 3, 2, 2)  # N = 2, three filters, 2×2
    x[:, 0] = 1.0  # fires at every step and position
    x[0, 1, 0, 0] = 0.5  # one spike, at step 2
    zeros, slots = torch.zeros(3), 0

    def apoz(name, layer, drive, output):
        nonlocal zeros, slots
        zeros += (output == 0).sum((0, 2, 3))
        slots += output[:, 0].numel()

    with observe(net, neuron=apoz):
        net(x)
        net(x[:1])
    assert slots == 2 * 3 * 4
    assert (zeros / slots).tolist() == pytest.approx([0, 1 - 2 / 24, 1])
