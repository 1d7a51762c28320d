"""The roofline: what a machine could do at best with a piece of work, from its operations and its memory traffic.

Williams, Waterman and Patterson (2009): a program that does F floating-point operations and moves B bytes needs

    t ≥ max(F / P, B / W)

seconds on a machine that computes at most P FLOP/s and moves at most W B/s. P and W are measured here, not taken
from a data sheet: the fastest dense product or convolution, and the fastest copy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import check
from .counts import CONNECTIONS, macs
from .network import Residual
from .neurons import is_spiking


@dataclass(frozen=True)
class Peak:
    """What a machine can do: ``flops`` in FLOP/s (one multiply–add counts as two), ``bandwidth`` in B/s."""

    flops: float
    bandwidth: float

    def __post_init__(self) -> None:
        check("flops", self.flops, self.flops > 0, "a positive number")
        check("bandwidth", self.bandwidth, self.bandwidth > 0, "a positive number")


@dataclass(frozen=True)
class Work:
    """What a program does at least: floating-point operations ``flops`` and memory traffic ``bytes``."""

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.bytes * times)

    @property
    def intensity(self) -> float:
        """FLOPs for each byte that moves."""
        return self.flops / self.bytes

    def bound(self, peak: Peak) -> float:
        """Seconds below which no program on a machine with ``peak`` does this work."""
        return max(self.flops / peak.flops, self.bytes / peak.bandwidth)


def seconds(call: Callable[[], object], at_least: float = 0.2, device: str = "cpu") -> float:
    """Mean wall seconds of ``call()``, repeated until ``at_least`` seconds have passed; call it once before."""
    done, synchronize = 0, torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    while done == 0 or time.perf_counter() - started < at_least:
        call()
        done += 1
        if device == "cuda":
            synchronize()
    return (time.perf_counter() - started) / done


def _best(call: Callable[[], object], repeats: int, device: str) -> float:
    call()
    return min(seconds(call, 0.0, device) for _ in range(repeats))


def matmul_rate(size: int = 1536, repeats: int = 5, device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Best FLOP/s of a product of two square matrices [size, size]."""
    a = torch.full((size, size), 0.5, device=device, dtype=dtype)
    return 2 * size**3 / _best(lambda: a @ a, repeats, device)


def convolution_rate(
    channels: int = 128, batch: int = 16, repeats: int = 5, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> float:
    """Best FLOP/s of a 3×3 convolution of [batch, channels, 32, 32], channels last, to as many channels."""
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False, device=device, dtype=dtype)
    conv = conv.to(memory_format=torch.channels_last)
    x = torch.full((batch, channels, 32, 32), 0.5, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.no_grad():
        return 2 * batch * 1024 * conv.weight.numel() / _best(lambda: conv(x), repeats, device)


def copy_rate(mebibytes: int = 256, repeats: int = 5, device: str = "cpu") -> float:
    """Best B/s of a copy between two tensors of that size; what is read and what is written both count."""
    source = torch.zeros(mebibytes * 2**18, device=device)
    target = torch.zeros_like(source)
    return 2 * source.numel() * 4 / _best(lambda: target.copy_(source), repeats, device)


def _traffic(module: nn.Module, x: Tensor, y: Tensor) -> Work:
    """Work of one layer for one frame, its weights aside; input read once, output written once, 4 bytes each."""
    flops = 2 * macs(module, x.shape, y.shape) if isinstance(module, CONNECTIONS) else 0
    read = 2 * y.numel() if isinstance(module, Residual) else x.numel()
    return Work(flops, 4 * (read + y.numel()))


def _moves(module: nn.Module) -> bool:
    """Whether a layer reads one tensor and writes another (a view or an identity does not)."""
    if isinstance(module, Residual) or is_spiking(module):
        return True
    return not list(module.children()) and not isinstance(module, nn.Flatten | nn.Identity | nn.Dropout)


def frame_work(net: nn.Module, shape: tuple[int, int, int]) -> tuple[Work, Work, Work]:
    """Work of one frame in the stem, of one frame in body and head, and of reading the weights (bytes only).

    Each layer reads its input and writes its output once, in float32; nothing is computed.

    Args:
        net: a :class:`~snnbook.network.Network`; its spiking layers run one step.
        shape: (C, H, W) of one input frame.
    """
    net = copy.deepcopy(net).to("meta").eval()
    if net.time_steps is not None:
        net.time_steps = 1
    found = {"stem": Work(0, 0), "rest": Work(0, 0)}

    def note(part):
        def hook(module, inputs, y):
            found[part] += _traffic(module, inputs[0], y)

        return hook

    for name, module in net.named_modules():
        if _moves(module):
            module.register_forward_hook(note("stem" if name.startswith("stem") else "rest"))
    with torch.no_grad():
        net(torch.empty(1, *shape, device="meta"))
    return found["stem"], found["rest"], Work(0, 4 * sum(p.numel() for p in net.parameters()))


def inference_work(net: nn.Module, shape: tuple[int, int, int], batch: int) -> Work:
    """Work of a forward pass over ``batch`` static images: the stem once an image, the rest once a time step.

    Args:
        net: a :class:`~snnbook.network.Network`, ANN or SNN.
        shape: (C, H, W) of one image.
        batch: N.

    Raises:
        ValueError: if ``batch`` is not positive.
    """
    check("batch", batch, batch >= 1, "at least 1")
    stem, rest, weights = frame_work(net, shape)
    return stem * batch + rest * (batch * (net.time_steps or 1)) + weights


def training_work(net: nn.Module, shape: tuple[int, int, int], batch: int) -> Work:
    """Work of a forward and backward pass over ``batch`` static images.

    Each product comes back twice, for the gradient of its input (not in the stem) and of its weights. The backward
    pass of a layer reads its input and the gradient of its output and writes a gradient: 2.5 times the traffic.
    """
    stem, rest, weights = frame_work(net, shape)
    frames = batch * (net.time_steps or 1)
    flops = 2 * stem.flops * batch + 3 * rest.flops * frames
    return Work(flops, 2.5 * (stem.bytes * batch + rest.bytes * frames) + 3 * weights.bytes)


def neuron_work(elements: int, training: bool = False) -> Work:
    """Work of neurons over a drive of ``elements`` = T·N·C·H·W float32 values.

    Forward, the drive is read and the spikes are written. The backward pass reads the drive and the gradient of the
    spikes again, and writes the gradient of the drive. The potentials of one step stay in the cache. Three operations
    an element: charge, compare, reset.
    """
    check("elements", elements, elements >= 1, "at least 1")
    return Work(3.0 * elements, (5 if training else 2) * 4.0 * elements)
