"""Lossless compression of spikes by range coding, and what makes training spend fewer bits.

A model gives each spike a probability p of being 1, known to both sides before the spike is; the coder spends
−log2 p bits on a spike and −log2(1 − p) on a silence (Shannon 1948), H(p) on average where p is right:

    H(p) = −p·log2(p) − (1 − p)·log2(1 − p)      H(.42) = .98   H(.25) = .81   H(.10) = .47   H(.05) = .29

So packed spikes at firing rates of .25 to .42 hardly shrink. Better contexts (which channel, which neuron, whether it
fired one step before) lower p's uncertainty; a rate penalty in training lowers H itself. The range coder is that of
the library ``constriction`` (Bamler 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import constriction
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..checks import check, check_choice
from .channels import binary_entropy
from .payload import packed_bytes

#: States of a neuron one step before: unknown (first step), silent, fired.
STATES = 3


@dataclass(frozen=True)
class Context:
    """What a spike's probability may depend on: the index of a neuron's group, and perhaps its spike a step before."""

    groups: Callable[[tuple[int, int, int]], np.ndarray]
    previous: bool
    help: str

    def size(self, shape: tuple[int, int, int]) -> int:
        """Number of probabilities for maps of ``shape`` (C, H, W)."""
        return (int(self.groups(shape).max()) + 1) * (STATES if self.previous else 1)

    def at(self, shape: tuple[int, int, int], before: np.ndarray | None) -> np.ndarray:
        """Index of each neuron's probability [C, H, W], given the spikes ``before`` of the previous step."""
        groups = np.broadcast_to(self.groups(shape), shape)
        if not self.previous:
            return groups
        return groups * STATES + (0 if before is None else 1 + before.astype(np.int64))


def _channel(shape: tuple[int, int, int]) -> np.ndarray:
    return np.arange(shape[0])[:, None, None]


#: Contexts by name.
CONTEXTS = {
    "tensor": Context(lambda shape: np.zeros((1, 1, 1), np.int64), False, "one probability for all"),
    "channel": Context(_channel, False, "one for each channel"),
    "previous": Context(_channel, True, "one for each channel and spike of the neuron one step before"),
    "neuron": Context(
        lambda shape: np.arange(prod(shape)).reshape(shape), True, "one for each neuron and its spike one step before"
    ),
}


@dataclass(frozen=True, eq=False)
class SpikeModel:
    """Probabilities of spikes, the same on both sides of a link; see :func:`fit`.

    Attributes:
        context: a name in :data:`CONTEXTS`.
        shape: (C, H, W) of the maps.
        levels: p · 2^bits of each context, 1 to 2^bits − 1, int64 [K].
        bits: of each probability, where the model itself is sent.
        memory: spikes that p is worth when both sides go on counting from step to step; None: p stays.
    """

    context: str
    shape: tuple[int, int, int]
    levels: np.ndarray
    bits: int = 16
    memory: float | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """p of each context, float64 [K]."""
        return self.levels / 2.0**self.bits

    def describe(self) -> dict:
        """As JSON can keep it; :meth:`read` is the inverse."""
        return {
            "context": self.context, "shape": list(self.shape), "levels": self.levels.tolist(), "bits": self.bits,
            "memory": self.memory,
        }  # fmt: skip

    @classmethod
    def read(cls, found: dict) -> SpikeModel:
        """The model that :meth:`describe` described.

        Raises:
            ValueError: for anything else.
        """
        names = {"context", "shape", "levels", "bits", "memory"}
        check("code", found, isinstance(found, dict) and found.keys() == names, f"a mapping of {sorted(names)}")
        check_choice("context", found["context"], CONTEXTS)
        check_choice("bits", found["bits"], (8, 16))
        memory = found["memory"]
        check_memory(memory)
        shape = tuple(found["shape"])
        fits = len(shape) == 3 and all(isinstance(n, int) and 1 <= n < 2**16 for n in shape)
        check("shape", shape, fits, "(C, H, W), each 1 to 65535")
        levels, size = np.asarray(found["levels"]), CONTEXTS[found["context"]].size(shape)
        inside = levels.shape == (size,) and levels.dtype.kind == "i" and 1 <= levels.min() <= levels.max()
        check("levels", levels.shape, inside and levels.max() < 2 ** found["bits"], f"{size} of 1 to 2^bits - 1")
        return cls(found["context"], shape, levels.astype(np.int64), found["bits"], memory)

    def to_bytes(self) -> bytes:
        """The probabilities, ``bits`` each, as little-endian integers: the side information of this model."""
        return self.levels.astype(f"<u{self.bits // 8}").tobytes()


def check_memory(memory: object) -> None:
    """Refuse what is neither None nor a positive, finite number (ValueError)."""
    number = isinstance(memory, float | int) and 0 < memory < math.inf
    check("memory", memory, memory is None or number, "None or a positive, finite number")


def fit(spikes: Tensor, context: str = "previous", bits: int = 16, memory: float | None = None) -> SpikeModel:
    """Count spikes in each context: p = (ones + ½) / (slots + 1), rounded to ``bits`` bits.

    Args:
        spikes: 0/1 [T, N, C, H, W], samples that the code is made for (never those it is measured on).
        context: a name in :data:`CONTEXTS`.
        bits: of a probability, 8 or 16.
        memory: see :class:`SpikeModel`.

    Raises:
        ValueError: for an unknown context or a number out of range.
    """
    check_choice("context", context, CONTEXTS)
    check_choice("bits", bits, (8, 16))
    check_memory(memory)
    check("shape of spikes", tuple(spikes.shape), spikes.ndim == 5 and spikes.numel() > 0, "[T, N, C, H, W]")
    maps, rule = _bits(spikes), CONTEXTS[context]
    shape = maps.shape[2:]
    ones, slots = _counts(maps, rule, shape)
    levels = np.rint((ones + 0.5) / (slots + 1) * 2**bits).astype(np.int64).clip(1, 2**bits - 1)
    return SpikeModel(context, shape, levels, bits, memory)


def _bits(spikes: Tensor) -> np.ndarray:
    """0/1 as int32, checked."""
    array = spikes.detach().cpu().numpy()
    fired = array == 1
    check("spikes", "other values", bool((fired | (array == 0)).all()), "0 and 1 only")
    return fired.astype(np.int32)


def _counts(maps: np.ndarray, rule: Context, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and slots of each context over maps [T, N, C, H, W], each [K]."""
    size = rule.size(shape)
    ones, slots = np.zeros(size), np.zeros(size)
    for t, step in enumerate(maps):
        for n, fired in enumerate(step):
            at = rule.at(shape, maps[t - 1, n] if t else None).ravel()
            ones += np.bincount(at, fired.ravel(), size)
            slots += np.bincount(at, minlength=size)
    return ones, slots


class _Odds:
    """p of every spike, one time step after the other, on either side of the link."""

    def __init__(self, model: SpikeModel):
        self.model, self.rule, self.p = model, CONTEXTS[model.context], model.probabilities
        self.before = self.at = None
        memory = model.memory or 0.0
        self.ones, self.slots = memory * self.p, np.full(len(self.p), memory)

    def next(self) -> np.ndarray:
        """p of the spikes of the next step, float64 [C·H·W]."""
        self.at = self.rule.at(self.model.shape, self.before).ravel()
        return self.p[self.at]

    def saw(self, fired: np.ndarray) -> None:
        """Take in the spikes [C, H, W] of that step."""
        self.before = fired
        if self.model.memory is not None:
            self.ones += np.bincount(self.at, fired.ravel(), len(self.p))
            self.slots += np.bincount(self.at, minlength=len(self.p))
            self.p = self.ones / self.slots


def _odds(maps: np.ndarray, model: SpikeModel) -> np.ndarray:
    """p of every spike of maps [T, C, H, W], float64, flat."""
    check("shape of spikes", maps.shape, maps.ndim == 4 and maps.shape[1:] == model.shape, f"[T, *{model.shape}]")
    odds, out = _Odds(model), []
    for fired in maps:
        out.append(odds.next())
        odds.saw(fired)
    return np.concatenate(out)


def ideal_bits(spikes: Tensor, model: SpikeModel) -> float:
    """−Σ log2 P(spike) of spikes [T, C, H, W]: no code of this model is shorter on average."""
    maps = _bits(spikes)
    p = _odds(maps, model)
    return float(-np.log2(np.where(maps.ravel() == 1, p, 1 - p)).sum())


def encode(spikes: Tensor, model: SpikeModel) -> bytes:
    """Spikes [T, C, H, W] to bytes, within two bytes of :func:`ideal_bits`.

    Raises:
        ValueError: for other values than 0 and 1, or maps of another shape than the model's.
    """
    maps = _bits(spikes)
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(maps.ravel(), constriction.stream.model.Bernoulli(perfect=False), _odds(maps, model))
    data = coder.get_compressed().astype(">u4").tobytes()
    return _shortest(data, lambda part: _same(part, maps, model))


def _shortest(data: bytes, right: Callable[[bytes], bool]) -> bytes:
    """The fewest bytes, rounded down or up from ``data``, that still decode right: words of 32 bits waste some."""
    for length in range(max(0, len(data) - 7), len(data)):
        for number in (int.from_bytes(data[:length]), int.from_bytes(data[:length]) + 1):
            part = number.to_bytes(length + 1)[1:]
            if right(part):
                return part
    return data


def _same(data: bytes, maps: np.ndarray, model: SpikeModel) -> bool:
    try:
        return np.array_equal(_decoded(data, len(maps), model), maps)
    except ValueError:
        return False


def _decoded(data: bytes, time_steps: int, model: SpikeModel) -> np.ndarray:
    words = np.frombuffer(data + bytes(8 + -len(data) % 4), ">u4").astype(np.uint32)
    coder, family = constriction.stream.queue.RangeDecoder(words), constriction.stream.model.Bernoulli(perfect=False)
    odds, maps = _Odds(model), np.empty((time_steps, *model.shape), np.int32)
    for fired in maps:
        try:
            fired[:] = coder.decode(family, odds.next()).reshape(model.shape)
        except AssertionError as error:  # what the library raises for data that it could not have made
            raise ValueError(f"data = {len(data)} bytes is not allowed: bytes coded with this model") from error
        odds.saw(fired)
    return maps


def decode(data: bytes, time_steps: int, model: SpikeModel) -> Tensor:
    """The spikes [T, C, H, W], float32, of :func:`encode`.

    Damaged data mostly decode to other spikes, which only a CRC shows.

    Raises:
        ValueError: for data that no spikes are coded as.
    """
    check("time_steps", time_steps, time_steps >= 1, "at least 1")
    return torch.from_numpy(_decoded(data, time_steps, model)).float()


def encode_alone(spikes: Tensor, context: str = "channel") -> bytes:
    """Spikes [T, C, H, W] with a model of their own in front, 8 bits a probability: nothing is agreed beforehand."""
    model = fit(spikes[:, None], context, bits=8)
    return model.to_bytes() + encode(spikes, model)


def decode_alone(data: bytes, shape: tuple[int, int, int, int], context: str = "channel") -> Tensor:
    """Inverse of :func:`encode_alone`; ``shape`` is (T, C, H, W)."""
    size = CONTEXTS[context].size(shape[1:])
    check("bytes of data", len(data), len(data) >= size, f"at least {size}")
    model = SpikeModel(context, tuple(shape[1:]), np.frombuffer(data[:size], np.uint8).astype(np.int64), 8)
    return decode(data[size:], shape[0], model)


def sizes(spikes: Tensor, model: SpikeModel, header: int = 0) -> pd.DataFrame:
    """Bytes of each sample of spikes [T, N, C, H, W] under a model that both sides have.

    Args:
        spikes: 0/1, of samples that the model was not made from.
        model: see :func:`fit`.
        header: bytes around a coded sample on the wire.

    Returns:
        One row a sample: ``packed`` (one bit a spike), ``ideal`` (entropy under the model, bits / 8), ``actual``
        (range-coded), ``framed`` (with header), ``rate`` (share of ones).
    """
    packed = packed_bytes(tuple(spikes.shape[:1] + spikes.shape[2:]))
    rows = []
    for one in spikes.transpose(0, 1):
        actual = len(encode(one, model))
        rows.append((packed, ideal_bits(one, model) / 8, actual, actual + header, one.float().mean().item()))
    return pd.DataFrame(rows, columns=["packed", "ideal", "actual", "framed", "rate"])


def _entropy(p: Tensor, floor: float = 1e-6) -> Tensor:
    """H(p) with p held away from 0 and 1, where its slope is infinite."""
    return binary_entropy(p.clamp(floor, 1 - floor))


def rate_penalty(spikes: Tensor, kind: str = "entropy") -> Tensor:
    """What spikes cost, per spike slot, as a scalar that training can lower.

    Args:
        spikes: 0/1 [..., C, H, W], with gradient (the surrogate's).
        kind: ``rate``: mean firing rate. ``entropy``: mean over channels of H(firing rate), bits of the code of
            context ``channel``. ``previous``: mean over channels of H(s(t) | s(t − 1)) after the first step, bits of
            the code of context ``previous``; for [T, N, C, H, W] with T of at least 2.

    Raises:
        ValueError: for another kind or shape.
    """
    check_choice("kind", kind, ("rate", "entropy", "previous"))
    check("shape of spikes", tuple(spikes.shape), spikes.ndim >= 4, "[..., C, H, W]")
    if kind == "rate":
        return spikes.mean()
    per_channel = lambda x: x.transpose(-3, -1).flatten(0, -2).mean(0)  # noqa: E731
    if kind == "entropy":
        return _entropy(per_channel(spikes)).mean()
    check("shape of spikes", tuple(spikes.shape), spikes.ndim == 5 and len(spikes) > 1, "[T, N, C, H, W], T above 1")
    now, before = spikes[1:], spikes[:-1]
    both, past, present = per_channel(now * before), per_channel(before), per_channel(now)
    floor = 0.5 / now[:, :, 0].numel()
    after_spike, after_silence = both / past.clamp_min(floor), (present - both) / (1 - past).clamp_min(floor)
    return (past * _entropy(after_spike) + (1 - past) * _entropy(after_silence)).mean()


class _AddLoss(torch.autograd.Function):
    """Pass x on, and let a second scalar take part in the backward pass as if it had been added to the loss."""

    @staticmethod
    def forward(ctx, x, loss):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, gradient.new_ones(())


class Penalty(nn.Module):
    """The identity, which in training adds ``weight`` · :func:`rate_penalty` of what passes to the loss.

    Args:
        weight: 0 or more; the penalty is measured in bits (``rate``: in spikes) per spike slot.
        kind: rate or entropy.

    Raises:
        ValueError: for a negative weight or another kind.
    """

    def __init__(self, weight: float, kind: str = "entropy"):
        super().__init__()
        check("weight", weight, 0 <= weight < math.inf, "0 or more, finite")
        check_choice("kind", kind, ("rate", "entropy"))
        self.weight, self.kind = weight, kind

    def forward(self, x: Tensor) -> Tensor:
        """[..., C, H, W] unchanged."""
        if not (self.training and torch.is_grad_enabled() and self.weight):
            return x
        return _AddLoss.apply(x, self.weight * rate_penalty(x.float(), self.kind))

    def extra_repr(self) -> str:
        """Weight and kind: part of the content by which trained networks are kept."""
        return f"{self.weight!r}, {self.kind}"
