"""A tiny fleet for tests: three small networks with untrained weights, fused by a linear layer."""

import threading
from contextlib import contextmanager

import torch
from torch import nn

from snnbook import store
from snnbook.link.device import open_device
from snnbook.link.folder import Sensor, part_file, read_plan, write_fleet
from snnbook.link.parts import Fuse, Tail
from snnbook.link.server import Server
from snnbook.link.transport import Channel, Listener
from snnbook.models import build
from snnbook.network import Network

T, CLASSES = 4, 5


def lively(net: nn.Module) -> nn.Module:
    """With larger drives, so that every layer fires."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data.mul_(3)
    return net


def device_part(seed: int, width: float = 0.1, shape=(1, 8, 8)) -> tuple[Network, nn.Module]:
    """A network up to its last spiking layer, and the pooling after it."""
    net = lively(build("vgg5", "lif", shape=shape, width=width, time_steps=T, seed=seed)).eval()
    part = Network(net.stem, net.body[:-1], nn.Identity())
    part.time_steps = T
    return part, nn.Sequential(net.body[-1], nn.Flatten())


def images(n: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def make_fleet(folder, parts: int = 3, samples: torch.Tensor | None = None, **plan):
    """Write a fleet of parts of different widths; ``(parts, server part, samples, plan)``."""
    devices, pools = zip(*(device_part(i, 0.1 + 0.05 * i) for i in range(parts)), strict=True)
    samples = images() if samples is None else samples
    with torch.no_grad():
        shapes = [tuple(d(samples[:1]).shape[2:]) for d in devices]
        features = sum(p(torch.zeros(1, *s)).shape[1] for p, s in zip(pools, shapes, strict=True))
    torch.manual_seed(0)
    fuse = Fuse(nn.ModuleList(pools), nn.Linear(features, CLASSES), shapes, T).eval()
    return devices, fuse, samples, write_fleet(folder, devices, fuse, samples, **plan)


def make_split(folder, samples: torch.Tensor | None = None, **plan):
    """One network in two: a device and a tail that has spiking layers of its own."""
    net = lively(build("vgg5", "lif", shape=(1, 8, 8), width=0.1, time_steps=T, seed=3)).eval()
    head = Network(net.stem, net.body[:1], nn.Identity())
    head.time_steps = T
    samples = images() if samples is None else samples
    with torch.no_grad():
        shape = tuple(head(samples[:1]).shape[2:])
    tail = Tail(nn.Sequential(*net.body[1:], *net.head), shape, T).eval()
    return net, head, tail, samples, write_fleet(folder, [head], tail, samples, **plan)


def single_process(devices, fuse, x: torch.Tensor, lost: tuple[int, ...] = ()) -> torch.Tensor:
    """Logits [T, 1, K] of one sample [1, C, H, W] without processes."""
    with torch.inference_mode():
        return fuse([None if i in lost else d(x) for i, d in enumerate(devices)])


@contextmanager
def running(endpoint, wire):
    """A server or a device in a thread of this process; its ``wire`` is closed at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=endpoint.run, args=(stop,))
    thread.start()
    try:
        yield endpoint
    finally:
        stop.set()
        thread.join()
        wire.close()


def serving(folder, module=None, keys=None):
    """A server of the folder, :func:`running`."""
    plan, module = read_plan(folder), module or store.load(folder / "server.safetensors")[0]
    listener = Listener(keys=keys)
    try:
        return running(Server(plan, module, listener), listener)
    except ValueError:
        listener.close()  # collected with an open socket, its context would wait for ever
        raise


def working(folder, address: str, part: int = 0):
    """A device of the folder, :func:`running`."""
    channel = Channel(address)
    return running(open_device(part_file(folder, part), folder / "samples.safetensors", channel), channel)


def sensor(folder) -> Sensor:
    return Sensor(folder / "samples.safetensors")
