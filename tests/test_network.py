import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from snnbook.models import build
from snnbook.network import PIECE, Network
from snnbook.neurons import IF, running_on, spiking_layers

SMALL = {"shape": (2, 8, 8), "n_classes": 5, "width": 1 / 16}


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(name="vgg5", activation="lif", T=10, **options):
    return build(name, activation, time_steps=T, v_threshold=0.4, **SMALL, **options).eval()


def whole(net, x):
    """Logits of one pass over the whole T: what happens where a gradient is wanted."""
    return net(x).detach()


NETS = [("vgg5", {}), ("resnet20", {}), ("resnet20", {"order": "ms"})]


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("name, options", NETS)
def test_streaming_changes_nothing(name, options, events):
    T = 2 * PIECE + 3
    net, x = network(name, T=T, **options), images(*([T] if events else []), 3, 2, 8, 8)
    expected = whole(net, x)
    sizes = []
    layer = next(iter(spiking_layers(net).values()))
    run = layer.multi_step_forward
    layer.multi_step_forward = lambda x: sizes.append(len(x)) or run(x)
    with torch.no_grad():
        logits = net(x)
    assert sizes == [PIECE, PIECE, 3]
    assert logits.shape == (T, 3, 5)
    torch.testing.assert_close(logits, expected)
    assert net.time_steps == T and all(m.time_steps == T and not m.carry for m in spiking_layers(net).values())


def test_a_hook_sees_the_whole_history():
    net, seen = network(T=10), []
    handle = net.body.register_forward_hook(lambda m, x, y: seen.append(len(y)))
    with torch.no_grad():
        net(images(3, 2, 8, 8))
    handle.remove()
    assert seen == [30]


def test_static_input_passes_the_stem_once():
    net, calls = network(T=10), []
    forward = net.stem[0].forward
    net.stem[0].forward = lambda x: calls.append(len(x)) or forward(x)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            net(images(3, 2, 8, 8))
    assert calls == [3, 3]


def test_a_bias_for_each_step_is_streamed_too():
    net = network(activation="if", T=10)
    for i, layer in enumerate(spiking_layers(net).values()):
        layer.step_bias = images(10, 1, 1, 1, 1, seed=i) * 0.3
    x = images(3, 2, 8, 8)
    expected = whole(net, x)
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected)


def test_state_is_forgotten_unless_running_on_is_asked_for():
    net, x = network(activation="if", T=10), images(3, 2, 8, 8)
    with torch.no_grad():
        all_steps = net(x)
        assert torch.equal(net(x), all_steps)
        net.time_steps = 6
        first = net(x)
        net.time_steps = 4
        with running_on(net):
            rest = net(x)
        torch.testing.assert_close(torch.cat([first, rest]), all_steps)
        assert not torch.equal(net(x), rest)


def test_running_on_gives_the_layers_back_as_they_were():
    layers = nn.Sequential(IF(), IF())
    layers[1].carry = True
    with pytest.raises(RuntimeError), running_on(layers):
        assert all(m.carry for m in layers)
        raise RuntimeError
    assert [m.carry for m in layers] == [False, True]


MEMORY = """
import re, sys, torch
from snnbook.models import build
torch.set_num_threads(1)
net = build("vgg5", "if", time_steps=int(sys.argv[1]), shape=(3, 32, 32), v_threshold=0.5).eval()
x = torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(0))
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
with torch.no_grad():
    before = peak()
    net(x)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_time_steps():
    # Every tensor in a mapping of its own: what is held, without the holes that glibc leaves between them.
    mapped = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

    def peak(T):
        command = [sys.executable, "-c", MEMORY, str(T)]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | mapped)
        return int(run.stdout)

    short, long = peak(4), peak(64)
    assert short > 50_000  # kilobytes: activations, not noise
    assert long <= 1.3 * short


def test_a_stem_that_spikes_is_refused():
    """It would take the images of a batch for steps of time."""
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 1), IF()), nn.Sequential(IF()), nn.Flatten())
    with pytest.raises(ValueError, match=r"^stem = \['1'\] is not allowed: no spiking layers"):
        net.time_steps = 4


class Crossed(nn.Sequential):
    """Its first child is not what runs first."""

    def forward(self, x):
        return self[0](self[1](x))


def test_a_sequential_with_a_forward_pass_of_its_own_is_no_chain():
    body, x = Crossed(IF(0.5), nn.Conv2d(2, 3, 1)), images(4, 2, 8, 8)
    nets = [Network(nn.Identity(), b, nn.Flatten()) for b in (body, nn.Sequential(body[1], body[0]))]
    for net in nets:
        net.time_steps = 4
    with torch.no_grad():
        assert torch.equal(nets[0](x), nets[1](x))
