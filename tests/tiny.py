"""Tiny data sets and networks that several tests share: all is made in memory in milliseconds."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from snnbook import fields
from snnbook.data import Data, Split
from snnbook.fields import Params, field

SIZES = {"train": 40, "calibration": 16, "validation": 24, "test": 24}


def blobs(
    seed: int = 0,
    shape: tuple[int, ...] = (1, 6, 6),
    classes: int = 3,
    noise: float = 40.0,
    kind: str = "image",
    **sizes: int,
) -> Data:
    """A bright patch per class under noise, uint8; ``shape`` is (C, H, W), or (T, C, H, W) for events."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, *shape[-3:], generator=generator) * 200

    def split(n: int) -> Split:
        y = torch.arange(n) % classes
        x = patterns[y].unsqueeze(1) if len(shape) == 4 else patterns[y]
        x = x.expand(n, *shape) + noise * torch.randn(n, *shape, generator=generator)
        return Split(x.clamp(0, 255).to(torch.uint8), y)

    parts = {name: split(sizes.get(name, n)) for name, n in SIZES.items()}
    channels = shape[-3]
    return Data(
        name="blobs", kind=kind, **parts, classes=tuple("abcdefgh"[:classes]), shape=shape,
        mean=torch.full((channels,), 100.0), std=torch.full((channels,), 70.0), source="made by the tests",
        synthetic=True,
    )  # fmt: skip


def small_net(seed: int = 0, norm: bool = True, dropout: float = 0.3, classes: int = 3) -> nn.Sequential:
    """A convolution, batch norm, ReLU, average pool, dropout and a linear layer for 1×6×6 images."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(36, classes),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, 0.3, generator=generator)
    return net


def lively(net: nn.Module) -> nn.Module:
    """The network with batch norms at which its neurons fire, without training."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.constant_(m.weight, 4.0)
            nn.init.constant_(m.bias, 0.8)
    return net


def same_state(a: nn.Module | dict, b: nn.Module | dict) -> bool:
    """Whether two networks (or state dictionaries) agree in every bit of every parameter and buffer."""
    a, b = (m.state_dict() if isinstance(m, nn.Module) else m for m in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@contextmanager
def example_parameters(name: str = "99_example"):
    """A parameter class that is gone afterwards: in other tests ``by_notebook`` has only the book's."""

    @dataclass(frozen=True)
    class Example(Params):
        notebook: ClassVar[str] = name
        threshold: float = field(1.0, "threshold of the neuron", low=0.01, high=100)
        time_steps: list[int] = field([1, 2], "numbers of time steps", low=1, high=64)
        levels: int = field(8, "quantisation steps L", low=1)
        share: float | None = field(None, "share of the data", high=1.0)
        method: str = field("qc", "conversion method", choices=("qc", "qcfs"))
        shift: bool = field(False, "whether to shift by one half")
        seed: int = fields.seed_field()
        device: str = fields.device_field()
        out_dir: str = fields.out_dir_field()
        data_dir: str = fields.data_dir_field()

    yield Example
    del Example
    gc.collect()
