"""Networks that send equally many bits over a noisy link: spikes, codes of an ANN, and bits that chance chose.

Each is trained with noise behind its encoder or without. Layers that act in training alone are gone afterwards.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

from torch import nn

from ..bottleneck import baseline
from ..bottleneck.codec import compress
from ..bottleneck.layers import NoisyCodes, random_mask
from ..bottleneck.selection import Candidate
from ..cache import trained
from ..checks import check
from ..link.channels import Channel, Noisy
from ..link.coding import Penalty
from ..network import Network
from ..side_by_side import together
from .spike_bottlenet import SpikeBottleNet


def step_bits(e: SpikeBottleNet, candidate: Candidate) -> int:
    """Bits of one time step of the spikes of ``candidate``."""
    here = e.points().set_index("split_point").loc[candidate.split_point]
    return candidate.channels * int(here["height"] * here["width"]) // candidate.stride**2


def _with(net: Network, *layers: nn.Module) -> Network:
    """A copy of ``net`` whose encoder ends with more layers."""
    net = copy.deepcopy(net)
    net.body.encoder.extend(layers)
    return net


def _tuned(net: Network, e: SpikeBottleNet) -> Network:
    """``net``, fine-tuned, and without the layers of its encoder that only a training needs."""
    trained(net, e.data, replace(e.fine_tuning, seed=e.seed), device=e.device)
    stays = [layer for layer in net.body.encoder if not isinstance(layer, Noisy | NoisyCodes | Penalty)]
    net.body.encoder = nn.Sequential(*stays)
    return net


def spiking(e: SpikeBottleNet, candidate: Candidate, channel: Channel | None = None, penalty: float = 0.0) -> Network:
    """The backbone with a spike codec, fine-tuned with ``channel`` behind its encoder and a price on its bits.

    Args:
        e: experiment.
        candidate: split point, channels, stride, T.
        channel: noise in training; none by default.
        penalty: weight of the entropy of the firing rates in the loss (:class:`snnbook.link.coding.Penalty`).
    """
    if channel is None and not penalty:
        return e.compressed(candidate)[0]
    split_point, channels, stride, T = candidate
    net, _ = compress(e.backbone(T), e.data.shape, split_point, channels, stride, seed=e.seed)
    return _tuned(_with(net, *([Penalty(penalty)] if penalty else []), Noisy(channel)), e)


def codes(e: SpikeBottleNet, candidate: Candidate, bits: int = 1, channel: Channel | None = None) -> Network:
    """The ANN with a BottleNet++ of ``bits`` bits an element, and as many bits in all as the spikes of ``candidate``.

    It has T / ``bits`` times the channels; where that is no whole number the next below, but one at least. Trained in
    BottleNet++'s three steps, the last two with ``channel`` behind the encoder.

    Raises:
        ValueError: if the map at the split point does not have so many channels.
    """
    split_point, channels, stride, T = candidate
    wide = max(1, channels * T // bits)
    if channel is None:
        return e.bottlenet(split_point, wide, stride, bits)[0]
    net, _ = baseline.compress(e.ann(), e.data.shape, split_point, wide, stride, bits=bits, seed=e.seed)
    net = _with(net, NoisyCodes(bits, channel))
    with baseline.frozen(net):
        trained(net, e.data, replace(e.codec_training, seed=e.seed), device=e.device)
    return _tuned(net, e)


def masked(e: SpikeBottleNet, candidate: Candidate, keep: float = 0.25, channel: Channel | None = None) -> Network:
    """A spike codec of 1 / ``keep`` times the channels, of whose map a random share ``keep`` is sent.

    As many bits as the spikes of ``candidate``, but chosen by chance and not by training; fine-tuned with the mask.
    """
    split_point, channels, stride, T = candidate
    wide = round(channels / keep)
    net, report = compress(e.backbone(T), e.data.shape, split_point, wide, stride, seed=e.seed)
    mask = random_mask(report.payload, keep, e.seed)
    net = _with(net, Noisy(channel))
    net.body.decoder = nn.Sequential(mask, *net.body.decoder)  # the server knows which places are not sent
    return _tuned(net, e)


def contenders(
    e: SpikeBottleNet, candidate: Candidate, channel: Channel, keep: float = 0.25, bits: int = 8
) -> dict[str, Network]:
    """The networks of a sweep over noise, trained side by side: name to network.

    "spikes", "1 bit" and codes of ``bits`` bits ("8 bits"), each also trained with ``channel`` ("…, noise"), and "mask"
    (:func:`masked` with ``keep``).
    """
    together([partial(e.backbone, candidate.time_steps), e.ann])
    calls = {
        "spikes": partial(spiking, e, candidate),
        "spikes, noise": partial(spiking, e, candidate, channel),
        "mask": partial(masked, e, candidate, keep),
        "1 bit": partial(codes, e, candidate),
        "1 bit, noise": partial(codes, e, candidate, 1, channel),
        f"{bits} bits": partial(codes, e, candidate, bits),
        f"{bits} bits, noise": partial(codes, e, candidate, bits, channel),
    }
    return dict(zip(calls, together(list(calls.values())), strict=True))


def check_cut(e: SpikeBottleNet, candidate: Candidate, keep: float = 1.0) -> None:
    """Refuse a cut at which one of the networks of this module cannot be built, before anything is trained.

    Args:
        e: experiment.
        candidate: split point, channels, stride, T.
        keep: see :func:`masked`.

    Raises:
        ValueError: with the name of the parameter.
    """
    points, (split_point, channels, stride, T) = e.points().set_index("split_point"), candidate
    check("split_point", split_point, split_point in points.index, f"1 to {len(points)}")
    C, height, width = (int(n) for n in points.loc[split_point, ["channels", "height", "width"]])
    check("stride", stride, height % stride == 0 and width % stride == 0, f"a divisor of {height} and {width}")
    check("channels", channels, channels <= C, f"1 to {C}, the channels behind block {split_point}")
    check("time_steps", T, channels * T <= C, f"1 to {C // channels} for {channels} of {C} channels")
    check("keep", keep, round(channels / keep) <= C, f"at least {channels / C:g} for {channels} of {C} channels")
