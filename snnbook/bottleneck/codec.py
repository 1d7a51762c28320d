"""The bottleneck of SpikeBottleNet: an encoder on the device, a decoder on the server, spikes between them.

    encoder   LIF → Conv → tdBN → LIF         decoder   Conv or transposed Conv → tdBN → LIF

Channel reduction uses 3×3 kernels with stride 1, spatial reduction s×s kernels with stride s. The LIF at the encoder's
entry is there because blocks in MS-ResNet order put out potentials; behind a LIF it is left out.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import store
from ..checks import check
from ..counts import connections, macs
from ..models import initialise, tdbn
from ..network import Network
from ..neurons import spiking_layers
from .backbone import block_names
from .sizes import Report, Shape


def reduction(channels: int, reduced: int, stride: int) -> nn.Conv2d:
    """The encoder's convolution: [N, C, H, W] to [N, c', H/stride, W/stride]."""
    kernel, padding = (3, 1) if stride == 1 else (stride, 0)
    return nn.Conv2d(channels, reduced, kernel, stride, padding, bias=False)


def expansion(reduced: int, channels: int, stride: int) -> nn.Module:
    """The decoder's convolution, the shapes of :func:`reduction` the other way round."""
    if stride == 1:
        return nn.Conv2d(reduced, channels, 3, 1, 1, bias=False)
    return nn.ConvTranspose2d(reduced, channels, stride, stride, bias=False)


def feature_shape(net: Network, shape: Shape, split_point: int) -> Shape:
    """(C, H, W) behind block number ``split_point`` for input ``shape``, from the sizes of the convolutions alone.

    Raises:
        ValueError: if there is no such block.
    """
    blocks = [net.body.get_submodule(name) for name in block_names(net)]
    check("split_point", split_point, split_point in range(1, len(blocks) + 1), f"1 to {len(blocks)}")
    parts = [net.stem, *(block.branch for block in blocks[:split_point])]
    convolutions = [m for part in parts for m in connections(part).values()]
    h, w = shape[1:]
    for m in convolutions:
        h, w = (1 + (n + 2 * m.padding[i] - m.kernel_size[i]) // m.stride[i] for i, n in enumerate((h, w)))
    return convolutions[-1].out_channels, h, w


def insert(net: Network, split_point: int, encoder: nn.Module, decoder: nn.Module) -> Network:
    """A copy of ``net`` with ``encoder`` and ``decoder`` as ``body.encoder`` and ``body.decoder`` behind a block.

    Raises:
        ValueError: if ``net`` has a codec already.
    """
    there = [name for name, _ in net.body.named_children()]
    check("net", there, not {"encoder", "decoder"} & set(there), "a network without a codec")
    net, parts = copy.deepcopy(net), OrderedDict()
    at = block_names(net)[split_point - 1]
    for name, module in net.body.named_children():
        parts[name] = module
        if name == at:
            parts["encoder"], parts["decoder"] = encoder, decoder
    net.body = nn.Sequential(parts)
    net.time_steps = net.time_steps  # reaches the neurons of the codec too
    return net


def report(split_point: int, feature: Shape, payload: Shape, bits_each: int, codec: nn.Module) -> Report:
    """The report of ``codec``, an encoder and a decoder with one convolution each."""
    shapes = [torch.Size((1, *feature)), torch.Size((1, *payload))]
    both = zip(connections(codec).values(), (shapes, shapes[::-1]), strict=True)
    return Report(split_point, feature, payload, bits_each, *(macs(conv, x, y) for conv, (x, y) in both))


def reduced_shape(feature: Shape, channels: int, stride: int) -> Shape:
    """(c', h', w') of a reduction.

    Raises:
        ValueError: if ``channels`` is not 1 to C or ``stride`` does not divide height and width.
    """
    c, h, w = feature
    check("channels", channels, 1 <= channels <= c, f"1 to {c}")
    fits = stride >= 1 and h % stride == 0 and w % stride == 0
    check("stride", stride, fits, f"at least 1 and a divisor of {h} and {w}")
    return channels, h // stride, w // stride


def codec(
    net: Network, shape: Shape, split_point: int, channels: int, stride: int = 1, *, seed: int = 0
) -> tuple[nn.ModuleList, Report]:
    """An untrained encoder and decoder for a split point, and what they send; arguments as :func:`compress`."""
    check("net.time_steps", net.time_steps, net.time_steps is not None, "a spiking network")
    feature = feature_shape(net, shape, split_point)
    payload = reduced_shape(feature, channels, stride)
    example = next(iter(spiking_layers(net).values()))
    norm = [tdbn(n, threshold=example.v_threshold) for n in (channels, feature[0])]
    potentials = isinstance(net.body.get_submodule(block_names(net)[split_point - 1]).after, nn.Identity)
    entry = [copy.deepcopy(example)] if potentials else []
    encoder = [*entry, reduction(feature[0], channels, stride), norm[0], copy.deepcopy(example)]
    decoder = [expansion(channels, feature[0], stride), norm[1], copy.deepcopy(example)]
    both = nn.ModuleList([nn.Sequential(*encoder), nn.Sequential(*decoder)])
    initialise(both, seed)
    return both, report(split_point, feature, payload, net.time_steps, both)


def compress(
    net: Network, shape: Shape, split_point: int, channels: int, stride: int = 1, *, seed: int = 0
) -> tuple[Network, Report]:
    """Insert an untrained codec into a spiking ResNet.

    Args:
        net: the network; it is copied. Neurons of the codec are like its first.
        shape: input (C, H, W).
        split_point: number of blocks on the device, from 1.
        channels: c', channels that are sent.
        stride: s of the spatial reduction, 1 for none.
        seed: of the codec's weights.

    Returns:
        The new network, and what it sends.

    Raises:
        ValueError: for an ANN, a block that is not there, or a reduction that does not fit.
    """
    both, sent = codec(net, shape, split_point, channels, stride, seed=seed)
    return insert(net, split_point, *both), sent


def _part(net: Network, stem: nn.Module, body: dict[str, nn.Module], head: nn.Module) -> Network:
    part = copy.deepcopy(Network(stem, nn.Sequential(OrderedDict(body)), head))
    part.time_steps = net.time_steps
    return part.train(net.training)


def _halves(net: Network) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    modules = dict(net.body.named_children())
    check("net", type(net).__name__, "encoder" in modules, "a network with a codec")
    at = list(modules).index("encoder") + 1
    return dict(list(modules.items())[:at]), dict(list(modules.items())[at:])


def head(net: Network) -> Network:
    """The device's half of a network with a codec: images [N, C, H, W] to spikes [T, N, c', h', w'] (an ANN: no T).

    Raises:
        ValueError: for a network without codec.
    """
    return _part(net, net.stem, _halves(net)[0], nn.Identity())


def tail(net: Network) -> Network:
    """The server's half: spikes [T, N, c', h', w'] to logits [T, N, K] (an ANN: no T), in every bit those of ``net``.

    Raises:
        ValueError: for a network without codec.
    """
    return _part(net, nn.Identity(), _halves(net)[1], net.head)


class Server(nn.Module):
    """A tail behind one device, as :mod:`snnbook.link` runs it."""

    def __init__(self, tail: Network, payload: Shape):
        super().__init__()
        self.tail, self.payload = tail, tuple(payload)

    def forward(self, parts: list[Tensor | None]) -> Tensor:
        """One device's spikes [T', N, c', h', w'] in a list, T' ≤ T, or ``None`` for silence, to logits [T', N, K]."""
        (spikes,), T = parts, self.tail.time_steps
        spikes = torch.zeros(T, 1, *self.payload) if spikes is None else spikes
        self.tail.time_steps = len(spikes)
        try:
            return self.tail(spikes)
        finally:
            self.tail.time_steps = T


def export(net: Network, sent: Report, folder: Path | str, about: dict | None = None) -> tuple[Path, Path]:
    """Write a network with a codec as two files that run apart, ``device.safetensors`` and ``server.safetensors``.

    Both name the weights of the whole network by a digest, ``network``: two files with another one do not belong
    together.

    Args:
        net: spiking network with a codec.
        sent: its report.
        folder: where to.
        about: more for the description in both files.

    Returns:
        Both paths.
    """
    shared = {"time_steps": net.time_steps, "payload": list(sent.payload), "split_point": sent.split_point}
    shared["network"] = store.digest(store.weights(net))
    parts = {"device": head(net), "server": Server(tail(net), sent.payload)}
    return tuple(
        store.save(Path(folder) / f"{name}.safetensors", part, {**(about or {}), **shared, "part": name})
        for name, part in parts.items()
    )


store.register(Server, lambda m: {"payload": list(m.payload)})
