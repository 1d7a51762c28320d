"""Noisy links: what becomes of bits, and of analogue features, on their way from a device to the server.

    bsc             y = x ⊕ f,           f ~ Bernoulli(ber) for each bit
    packet_erasure  y = x · a,           a ~ Bernoulli(1 − loss) for each packet of ``packet_bits`` bits
    byte_erasure    the same with packets of 8 bits (the BEC of BottleNet++)
    awgn            y = 1[s + n > 0],    s = 2x − 1, n ~ N(0, 1 / (2γ)), γ = Eb/N0: BPSK with a hard decision
    awgn_soft       y = P(x = 1 | s + n) = σ(4γ(s + n)), for bits that are 0 or 1 with equal odds
    analogue        y = x + n,           n of the power that ``snr_db`` leaves, for features that are sent as they are

A hard decision makes AWGN a BSC with ber = Q(√(2γ)) = ½ erfc(√γ). Values are [..., C, H, W]: a packet holds bits of
one time step of one sample, in the order in which they are packed, so that every step can be sent by itself.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import erfc, erfcinv
from torch import Generator, Tensor, nn

from ..checks import check, check_choice


def _uniform(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) of ``shape`` on the device of ``like``, drawn where ``generator`` lives."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device).to(like.device)


def _normal(like: Tensor, generator: Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device).to(like.device)


def bsc(x: Tensor, ber: float, generator: Generator | None = None) -> Tensor:
    """Flip each bit of ``x`` (0 or 1, any shape) with probability ``ber`` (0 to 0.5)."""
    check("ber", ber, 0 <= ber <= 0.5, "0 to 0.5")
    return torch.where(_uniform(x.shape, x, generator) < ber, 1 - x, x)


def arrived(x: Tensor, loss: float, packet_bits: int = 1024, generator: Generator | None = None) -> Tensor:
    """Which elements of ``x`` [..., C, H, W] are in packets that arrive: bool of the same shape.

    Args:
        x: bits; only shape and device count.
        loss: probability that a packet is lost, 0 to 1.
        packet_bits: bits of a packet; the last one of a map is shorter where they do not divide it.
        generator: random numbers.
    """
    check("loss", loss, 0 <= loss <= 1, "0 to 1")
    check("packet_bits", packet_bits, packet_bits >= 1 and packet_bits % 1 == 0, "a whole number, at least 1")
    check("shape of x", tuple(x.shape), x.ndim >= 3, "[..., C, H, W]")
    bits = math.prod(x.shape[-3:])
    kept = _uniform((*x.shape[:-3], -(-bits // packet_bits)), x, generator) >= loss
    return kept.repeat_interleave(packet_bits, -1)[..., :bits].reshape(x.shape)


def packet_erasure(x: Tensor, loss: float, packet_bits: int = 1024, generator: Generator | None = None) -> Tensor:
    """Zeros in the place of lost packets of ``x`` [..., C, H, W]; arguments as :func:`arrived`."""
    return torch.where(arrived(x, loss, packet_bits, generator), x, torch.zeros_like(x))


def byte_erasure(x: Tensor, loss: float, generator: Generator | None = None) -> Tensor:
    """Zeros in the place of lost bytes, eight bits each, of ``x`` [..., C, H, W]."""
    return packet_erasure(x, loss, 8, generator)


def from_decibels(name: str, value: float) -> float:
    """10^(``value`` / 10); ``value`` is -300 to 300 dB, else a ValueError says so under ``name``."""
    check(name, value, -300 <= value <= 300, "-300 to 300 dB")
    return 10 ** (value / 10)


def bpsk_ber(ebn0_db: float) -> float:
    """Bit error rate of BPSK with a hard decision: Q(√(2γ)) = ½ erfc(√γ), γ = 10^(Eb/N0 in dB / 10)."""
    return 0.5 * float(erfc(math.sqrt(from_decibels("ebn0_db", ebn0_db))))


def bpsk_ebn0_db(ber: float) -> float:
    """Eb/N0 in dB at which BPSK has the bit error rate ``ber`` (above 0, below 0.5); inverse of :func:`bpsk_ber`."""
    check("ber", ber, 0 < ber < 0.5, "above 0 and below 0.5")
    return 20 * math.log10(float(erfcinv(2 * ber)))


def _bpsk(x: Tensor, ebn0_db: float, generator: Generator | None) -> tuple[Tensor, float]:
    gamma = from_decibels("ebn0_db", ebn0_db)
    return 2 * x.float() - 1 + _normal(x, generator) / math.sqrt(2 * gamma), gamma


def awgn(x: Tensor, ebn0_db: float, generator: Generator | None = None) -> Tensor:
    """Bits ``x`` as BPSK through white Gaussian noise, decided bit by bit: 0 or 1."""
    return (_bpsk(x, ebn0_db, generator)[0] > 0).to(x.dtype)


def awgn_soft(x: Tensor, ebn0_db: float, generator: Generator | None = None) -> Tensor:
    """Bits ``x`` as BPSK through white Gaussian noise, as probabilities that a 1 was sent (0 to 1)."""
    received, gamma = _bpsk(x, ebn0_db, generator)
    return torch.sigmoid(4 * gamma * received).to(x.dtype if x.is_floating_point() else torch.float32)


def analogue(x: Tensor, snr_db: float, generator: Generator | None = None) -> Tensor:
    """Features ``x`` [..., C, H, W] plus white noise of their own mean power (of each map), less ``snr_db``."""
    power = x.detach().square().mean((-3, -2, -1), keepdim=True) / from_decibels("snr_db", snr_db)
    return x + (_normal(x, generator) * power.sqrt()).to(x.dtype)


#: Channel name → (function, one line of help). The second argument of a function is its level of noise.
CHANNELS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "bsc": (bsc, "bits flip with probability ber"),
    "packet_erasure": (packet_erasure, "packets of packet_bits bits are lost with probability loss"),
    "byte_erasure": (byte_erasure, "bytes are lost with probability loss"),
    "awgn": (awgn, "BPSK at Eb/N0 = ebn0_db, hard decision"),
    "awgn_soft": (awgn_soft, "BPSK at Eb/N0 = ebn0_db, probability of each bit"),
    "analogue": (analogue, "features as they are, at a signal-to-noise ratio of snr_db"),
}


@dataclass(frozen=True)
class Channel:
    """A channel of :data:`CHANNELS` with its options, to be called with (values, generator); see :func:`channel`.

    The first option is the level of its noise.
    """

    name: str
    options: tuple[tuple[str, float], ...]

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """What arrives of ``x`` [..., C, H, W]."""
        return CHANNELS[self.name][0](x, **dict(self.options), generator=generator)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v:g}' for k, v in self.options)})"


def channel(name: str, **options: float) -> Channel:
    """A channel by name.

    >>> str(channel("bsc", ber=0.1))
    'bsc(ber=0.1)'

    Raises:
        ValueError: for an unknown name or option, or an option that is missing or out of range.
    """
    check_choice("name", name, CHANNELS)
    known = list(inspect.signature(CHANNELS[name][0]).parameters)[1:-1]
    for option in options:
        check("option", option, option in known, f"{name} knows {', '.join(known)}")
    check(known[0], None, known[0] in options, f"{name} needs a value of it")
    made = Channel(name, tuple((option, options[option]) for option in known if option in options))
    made(torch.zeros(1, 1, 1), Generator().manual_seed(0))  # options out of range are refused here
    return made


class Noisy(nn.Module):
    """A channel as a layer: noise in training, and in evaluation where asked; gradients pass straight through.

    Like dropout it draws from torch's own generator, unless it is given one.

    Args:
        channel: what happens to values; ``None`` for a perfect link.
        in_eval: whether it also happens in evaluation mode.
        generator: random numbers.
    """

    def __init__(self, channel: Channel | None, in_eval: bool = False, generator: Generator | None = None):
        super().__init__()
        self.channel, self.in_eval, self.generator = channel, in_eval, generator

    def forward(self, x: Tensor) -> Tensor:
        """[..., C, H, W] to what arrives; dy/dx is taken to be 1."""
        if self.channel is None or not (self.training or self.in_eval):
            return x
        return x + (self.channel(x.detach(), self.generator) - x.detach())

    def extra_repr(self) -> str:
        """The channel: part of the content by which trained networks are kept."""
        return f"{self.channel}, in_eval={self.in_eval}"


@contextmanager
def noisy(net: nn.Module, channel: Channel | None, seed: int = 0) -> Iterator[None]:
    """Within the context, every :class:`Noisy` layer of ``net`` is ``channel`` in evaluation, with a seed of its own.

    Raises:
        ValueError: if there is no such layer.
    """
    layers = [m for m in net.modules() if isinstance(m, Noisy)]
    check("net", type(net).__name__, layers, "a network with a Noisy layer")
    before = [(m.channel, m.in_eval, m.generator) for m in layers]
    for i, m in enumerate(layers):
        m.channel, m.in_eval, m.generator = channel, True, Generator().manual_seed(seed + i)
    try:
        yield
    finally:
        for m, (made, in_eval, generator) in zip(layers, before, strict=True):
            m.channel, m.in_eval, m.generator = made, in_eval, generator


def binary_entropy(p: Tensor) -> Tensor:
    """H(p) = −p·log2(p) − (1 − p)·log2(1 − p) in bits, element by element; 0 at p = 0 and 1."""
    return (torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2)


def capacity(channel: Channel) -> float:
    """Bits of information that one transmitted bit can carry: 1 − H(ber), or 1 − loss (Shannon 1948).

    Raises:
        ValueError: for a channel whose output is not bits.
    """
    level = channel.options[0][1]
    if channel.name in ("bsc", "awgn"):
        ber = level if channel.name == "bsc" else bpsk_ber(level)
        return 1 - binary_entropy(torch.tensor(ber, dtype=torch.float64)).item()
    check("channel", channel.name, channel.name.endswith("erasure"), "bsc, awgn or an erasure")
    return 1 - level


def bsc_limit(rate: float) -> float:
    """Bit error rate at which a BSC's capacity is ``rate`` (above 0, below 1): beyond it no code of that rate works."""
    check("rate", rate, 0 < rate < 1, "above 0 and below 1")
    return float(brentq(lambda p: capacity(Channel("bsc", (("ber", p),))) - rate, 0, 0.5))


def departures(arrivals: Sequence[float], bits: Sequence[int], rate: float, burst: float = 0.0) -> np.ndarray:
    """When the last bit of each message has passed a token bucket that is full at first, seconds.

    Greedy shaper of network calculus (Le Boudec and Thiran 2001): with S_i the bits of messages 1 to i,
    d_i = max(a_i, max over j ≤ i of a_j + (S_i − S_{j−1} − burst) / rate). With ``burst`` = 0 it is a link of ``rate``.

    Args:
        arrivals: when each message is there to be sent, ascending, seconds.
        bits: size of each.
        rate: bits per second, positive.
        burst: bits that pass at once when the bucket is full.

    Returns:
        float64 of the same length.

    Raises:
        ValueError: for lengths that differ, arrivals out of order, or numbers out of range.
    """
    a, b = np.asarray(arrivals, dtype=np.float64), np.asarray(bits, dtype=np.float64)
    check("bits", len(b), a.shape == b.shape and a.ndim == 1 and len(a) > 0, f"as many as arrivals ({len(a)})")
    check("arrivals", list(arrivals)[:5], bool((np.diff(a) >= 0).all()), "ascending")
    check("rate", rate, rate > 0, "a positive number")
    check("burst", burst, burst >= 0, "0 or more")
    total = np.cumsum(b)
    return np.maximum(a, np.maximum.accumulate(a - (total - b) / rate) + (total - burst) / rate)


def transfer_time(bits: int, rate: float, burst: float = 0.0) -> float:
    """Seconds that one message of ``bits`` takes through a token bucket that is full: max(0, bits − burst) / rate."""
    return float(departures([0.0], [bits], rate, burst)[0])
