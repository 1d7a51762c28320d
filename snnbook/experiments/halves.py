"""What the device's half of a split network sends, as bits, and what the server's half answers to those that came."""

from __future__ import annotations

import torch
from torch import Tensor

from ..bottleneck.baseline import Quantise
from ..bottleneck.codec import head, tail
from ..bottleneck.layers import Mask, planes, values
from ..data import Split
from ..network import Network
from ..train import pick_device
from .spike_bottlenet import SpikeBottleNet

#: Samples of a batch on either half.
BATCH = 256


def bits_sent(net: Network, spikes: Tensor) -> int:
    """Bits of one sample of ``spikes`` [T, N, c', h', w'] on the link: those that no :class:`Mask` leaves out."""
    masks = [m for m in net.modules() if isinstance(m, Mask)]
    return len(spikes) * int(masks[0].places.sum()) if masks else spikes[:, 0].numel()


def sent(net: Network, e: SpikeBottleNet, split: str | Split = "test") -> Tensor:
    """Bits that the device sends of every sample of a split, uint8 [T, N, c', h', w'].

    Codes of an ANN are bit planes, the highest first: there T stands for the bits of an element.
    """
    found = put_out(net, e, split)
    return found.to(torch.uint8) if net.time_steps else planes(quantiser(net).codes(found), quantiser(net).bits)


def put_out(net: Network, e: SpikeBottleNet, split: str | Split = "test") -> Tensor:
    """What the encoder puts out of every sample of a split: spikes [T, N, c', h', w'], or values of codes [N, ...]."""
    device = head(net).eval().to(pick_device(e.device))
    with torch.no_grad():
        parts = [device(x).cpu() for x, _ in e.data.batches(split, BATCH, device=pick_device(e.device))]
    return torch.cat(parts, 1 if net.time_steps else 0)


def quantiser(net: Network) -> Quantise:
    """What makes codes at the end of the encoder of an ANN."""
    return next(m for m in net.body.encoder if isinstance(m, Quantise))


def answers(net: Network, received: Tensor, device: str = "cpu") -> Tensor:
    """Logits [T, N, K] of the server for bits [T, N, c', h', w'] as they were received; of an ANN [1, N, K]."""
    if net.time_steps is None:
        return answers_to_values(net, values(received), device)
    server = tail(net).eval().to(device)
    with torch.no_grad():
        return torch.cat([server(part.float().to(device)).cpu() for part in received.split(BATCH, 1)], 1)


def answers_to_values(net: Network, values: Tensor, device: str = "cpu") -> Tensor:
    """Logits [1, N, K] of the server of an ANN for values [N, c', h', w'] as they were received."""
    server = tail(net).eval().to(device)
    with torch.no_grad():
        return torch.cat([server(part.float().to(device)).cpu() for part in values.split(BATCH)])[None]


def right(logits: Tensor, y: Tensor) -> float:
    """Share, 0 to 1, of samples whose largest mean logit over T is at the label; logits [T, N, K], y [N]."""
    return (logits.mean(0).argmax(1) == y).double().mean().item()
