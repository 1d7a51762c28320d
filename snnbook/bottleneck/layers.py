"""Layers of codecs for noisy links: a fixed choice of places, and noise on the bits of codes."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from .. import store
from ..checks import check
from ..link.channels import Channel


def planes(codes: Tensor, bits: int) -> Tensor:
    """Codes [...] as bits [b, ...], the highest first."""
    return torch.stack([codes >> k & 1 for k in reversed(range(bits))])


def values(planes: Tensor) -> Tensor:
    """Bits [b, ...] as the values of codes [...], 0 to 1; of probabilities of bits what is expected."""
    weights = 2.0 ** torch.arange(len(planes) - 1, -1, -1, device=planes.device)
    return torch.tensordot(weights, planes.float(), 1) / (2 ** len(planes) - 1)


class Mask(nn.Module):
    """A fixed choice of places: the others are 0, and are not sent.

    Args:
        places: 0/1, [c', h', w'].
    """

    def __init__(self, places: Tensor):
        super().__init__()
        self.register_buffer("places", places)

    def forward(self, x: Tensor) -> Tensor:
        """[..., c', h', w'] with zeros outside the chosen places."""
        return x * self.places


def random_mask(shape: tuple[int, int, int], keep: float, seed: int = 0) -> Mask:
    """A mask whose places chance chose.

    Args:
        shape: (c', h', w').
        keep: share of places that stay, above 0, at most 1.
        seed: of the choice.
    """
    check("keep", keep, 0 < keep <= 1, "above 0, at most 1")
    order = torch.rand(math.prod(shape), generator=Generator().manual_seed(seed)).argsort()
    places = torch.zeros(math.prod(shape)).index_fill(0, order[: round(keep * len(order))], 1.0)
    return Mask(places.view(shape))


class NoisyCodes(nn.Module):
    """A channel for the bits of codes, in training alone; gradients pass straight through.

    They are sent element by element, the highest bit of each first.

    Args:
        bits: b of a code.
        channel: what happens to them.
    """

    def __init__(self, bits: int, channel: Channel):
        super().__init__()
        self.bits, self.channel = bits, channel

    def forward(self, x: Tensor) -> Tensor:
        """Values [N, C, H, W] of codes, 0 to 1, to those that arrive; dy/dx is taken to be 1."""
        if not self.training:
            return x
        codes = (x.detach() * (2**self.bits - 1)).round().long()
        bits = planes(codes, self.bits).movedim(0, -1)
        received = self.channel(bits.flatten(1)[:, None, None].float()).view(bits.shape)
        return x + (values(received.movedim(-1, 0)).to(x.dtype) - x).detach()

    def extra_repr(self) -> str:
        """Bits and channel: part of the content by which trained networks are kept."""
        return f"{self.bits}, {self.channel}"


store.register(Mask, lambda m: {"shape": list(m.places.shape)}, lambda o, c: Mask(torch.zeros(o["shape"])))
