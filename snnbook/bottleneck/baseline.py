"""What SpikeBottleNet is to be compared with: BottleNet++ at any number of bits, and image codecs on the input.

    encoder   Conv → BN → sigmoid → b bits         decoder   Conv or transposed Conv → BN → ReLU

BottleNet++ (Shao and Zhang 2020) sends 8 bits an element. At b = T it sends exactly as much as T spikes do, at b = 1 as
one. Its printed quantiser, round(256·x) in 8 bits, wraps to 0 at x ≈ 1; ours has 2^b levels, round((2^b − 1)·x).
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..checks import check, check_choice
from ..data import Data, Split
from ..models import initialise
from ..network import Network
from .codec import expansion, feature_shape, insert, reduced_shape, reduction, report
from .sizes import Report, Shape

#: Image codecs by name: Pillow's format, and options beside the quality.
IMAGE_CODECS = {
    "png": ("PNG", {"optimize": True}),
    "jpeg": ("JPEG", {"optimize": True}),
    "webp": ("WEBP", {"method": 6}),
    "webp_lossless": ("WEBP", {"method": 6, "lossless": True, "exact": True}),
}


class Quantise(nn.Module):
    """2^b levels of [0, 1], with the derivative 1 of a straight-through estimator.

    Args:
        bits: b, 1 to 8.

    Raises:
        ValueError: for another ``bits``.
    """

    def __init__(self, bits: int = 8):
        super().__init__()
        check("bits", bits, bits in range(1, 9), "1 to 8")
        self.bits = bits

    def codes(self, x: Tensor) -> Tensor:
        """Codes 0 to 2^b − 1, uint8, in the shape of ``x``."""
        return (x * (2**self.bits - 1)).round().clamp(0, 2**self.bits - 1).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        """What the codes stand for, float32: 0 to 1."""
        return codes.float() / (2**self.bits - 1)

    def forward(self, x: Tensor) -> Tensor:
        """The level next to each element; exactly ``values(codes(x))``."""
        return self.values(self.codes(x.detach())) + (x - x.detach())

    def extra_repr(self) -> str:
        """Bits, for printing and for the cache."""
        return f"bits={self.bits}"


def codec(
    net: Network, shape: Shape, split_point: int, channels: int, stride: int = 1, *, bits: int = 8, seed: int = 0
) -> tuple[nn.ModuleList, Report]:
    """An untrained encoder and decoder for a split point, and what they send; arguments as :func:`compress`."""
    check("net.time_steps", net.time_steps, net.time_steps is None, "an ANN")
    feature = feature_shape(net, shape, split_point)
    payload = reduced_shape(feature, channels, stride)
    encoder = [reduction(feature[0], channels, stride), nn.BatchNorm2d(channels), nn.Sigmoid(), Quantise(bits)]
    decoder = [expansion(channels, feature[0], stride), nn.BatchNorm2d(feature[0]), nn.ReLU()]
    both = nn.ModuleList([nn.Sequential(*encoder), nn.Sequential(*decoder)])
    initialise(both, seed)
    return both, report(split_point, feature, payload, bits, both)


def compress(
    net: Network, shape: Shape, split_point: int, channels: int, stride: int = 1, *, bits: int = 8, seed: int = 0
) -> tuple[Network, Report]:
    """Insert an untrained codec of BottleNet++ into an ANN; arguments as :func:`snnbook.bottleneck.codec.compress`.

    Args:
        bits: b of an element that is sent.

    Raises:
        ValueError: for a spiking network, a block that is not there, a reduction that does not fit, or wrong ``bits``.
    """
    both, sent = codec(net, shape, split_point, channels, stride, bits=bits, seed=seed)
    return insert(net, split_point, *both), sent


@contextmanager
def frozen(net: Network) -> Iterator[None]:
    """Within the context, only the codec of ``net`` learns: weights and running statistics of the rest stay."""
    codec = {id(m) for part in ("encoder", "decoder") for m in getattr(net.body, part).modules()}
    rest = [m for m in net.modules() if id(m) not in codec]
    weights = [p for m in rest for p in m.parameters(recurse=False) if p.requires_grad]
    norms = [(m, m.momentum) for m in rest if isinstance(m, nn.BatchNorm2d)]
    for p in weights:
        p.requires_grad_(False)
    for m, _ in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)
        for m, momentum in norms:
            m.momentum = momentum


def check_pictures(images: Tensor) -> None:
    """Refuse what image codecs do not take: anything but uint8 [N, C, H, W] with one channel (grey) or three (RGB)."""
    check("images", images.dtype, images.dtype == torch.uint8, "torch.uint8")
    there = images.ndim == 4 and len(images) > 0
    check("images", tuple(images.shape), there, "a batch [N, C, H, W] of at least one image")
    check("channels", images.shape[1], images.shape[1] in (1, 3), "1 or 3, as image files have them")


def recode(images: Tensor, codec: str, quality: int = 90) -> tuple[Tensor, Tensor]:
    """Send images through an image codec.

    Args:
        images: uint8 [N, C, H, W] with C = 1 (grey) or 3 (RGB).
        codec: name in ``IMAGE_CODECS``.
        quality: 0 to 100, of the lossy ones.

    Returns:
        The decoded images, and the bytes of each file, int64 [N].

    Raises:
        ValueError: for another codec, quality, type or number of channels, and for no images.
    """
    check_choice("codec", codec, IMAGE_CODECS)
    check("quality", quality, 0 <= quality <= 100, "0 to 100")
    check_pictures(images)
    kind, options = IMAGE_CODECS[codec]
    options = options if kind == "PNG" else {**options, "quality": quality}
    mode, decoded, sizes = {1: "L", 3: "RGB"}[images.shape[1]], [], []
    for image in images.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image if mode == "RGB" else image[..., 0]).save(file, kind, **options)
        sizes.append(file.tell())
        back = np.asarray(Image.open(file).convert(mode))
        decoded.append(torch.from_numpy(back.copy().reshape(image.shape)))
    return torch.stack(decoded).permute(0, 3, 1, 2).contiguous(), torch.tensor(sizes)


def recoded(data: Data, codec: str, quality: int = 90) -> tuple[Data, float]:
    """``data`` with validation and test images sent through an image codec, and the mean bytes of test images.

    Arguments as :func:`recode`.
    """
    test, sizes = recode(data.test.x, codec, quality)
    validation, _ = recode(data.validation.x, codec, quality)
    splits = {
        "test": Split(test, data.test.y, data.test.groups),
        "validation": Split(validation, data.validation.y, data.validation.groups),
    }
    return dataclasses.replace(data, **splits), sizes.double().mean().item()
