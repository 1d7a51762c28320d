"""How many bits cross a split point, on every scale that papers use.

    spikes   T·c'·h'·w' bits         codes of b bits   b·c'·h'·w' bits
    compression against the uncompressed spikes   C·H·W / (c'·h'·w')        (T stands on both sides)
    compression against 32-bit floats             32·C·H·W / bits

Since both methods may reduce channels alike, what tells them apart is T bits against b bits an element:
a share 1 − T·s/(8·b') of bytes is saved, with s and b' the elements of the two payloads.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from ..checks import check

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Report:
    """What a network with a codec sends at its split point.

    Attributes:
        split_point: number of blocks on the device.
        feature: (C, H, W) of the map at the split point.
        payload: (c', h', w') of what is sent instead.
        bits_each: bits of one element: T of spikes, b of codes.
        encoder_macs, decoder_macs: MACs of the codec's convolutions per time step and sample.
    """

    split_point: int
    feature: Shape
    payload: Shape
    bits_each: int
    encoder_macs: int
    decoder_macs: int

    @property
    def bits(self) -> int:
        """Bits of one sample's payload."""
        return self.bits_each * prod(self.payload)

    @property
    def bytes(self) -> int:
        """Bytes of one sample's payload, bits packed."""
        return -(-self.bits // 8)

    @property
    def compression(self) -> float:
        """Elements of the map for each element that is sent: the papers' ratio of spikes to spikes."""
        return prod(self.feature) / prod(self.payload)

    @property
    def float32_compression(self) -> float:
        """Bits of the map as 32-bit floats for each bit that is sent."""
        return 32 * prod(self.feature) / self.bits


def pack_codes(codes: Tensor, bits: int) -> bytes:
    """Whole numbers below 2^bits, ``bits`` bits each, highest bit first, in the order of memory [..., c', h', w'].

    Raises:
        ValueError: if ``bits`` is not 1 to 8, or a code is no whole number or does not fit.
    """
    check("bits", bits, bits in range(1, 9), "1 to 8")
    array = codes.contiguous().flatten().numpy()
    wrong = array[~((array >= 0) & (array < 2**bits) & (array == np.floor(array)))].tolist()
    check("codes", *wrong[:1] or [None], not wrong, f"whole numbers from 0 to {2**bits - 1}")
    return np.packbits(np.unpackbits(array.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]).tobytes()


def unpack_codes(data: bytes, shape: tuple[int, ...], bits: int) -> Tensor:
    """The inverse of :func:`pack_codes`: uint8 codes of ``shape``.

    Raises:
        ValueError: if ``bits`` is not 1 to 8, or ``data`` is not as long as ``shape`` needs.
    """
    check("bits", bits, bits in range(1, 9), "1 to 8")
    wanted = -(-prod(shape) * bits // 8)
    check("bytes of data", len(data), len(data) == wanted, f"{wanted} for codes of shape {tuple(shape)}")
    planes = np.unpackbits(np.frombuffer(data, np.uint8), count=prod(shape) * bits).reshape(-1, bits)
    filled = np.pad(planes, ((0, 0), (8 - bits, 0)))
    return torch.from_numpy(np.packbits(filled, axis=1)[:, 0].copy()).view(shape)
