"""Spikes as bits: what a device sends of its last spiking layer.

A binary map [T, C, H, W] is packed flat in that order, T first, eight spikes a byte, the first one in the highest bit
(``numpy.packbits``, bit order "big"); the last byte is filled up with zeros.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor

from ..checks import check

#: Spikes that are packed at a time, so that what comes between input and output stays in the processor's cache.
BLOCK = 2**16


def packed_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of the packed spikes of a shape: ⌈prod(shape) / 8⌉."""
    return -(-prod(shape) // 8)


def pack(spikes: Tensor, emit: float = 1.0) -> bytes:
    """Spikes to bits.

    Args:
        spikes: 0 or ``emit``, any shape and number type.
        emit: height of a spike.

    Returns:
        ``packed_bytes(spikes.shape)`` bytes.

    Raises:
        ValueError: for any other value, NaN included.
    """
    flat = spikes.detach().cpu().contiguous().flatten()
    flat = (flat.float() if flat.dtype == torch.bfloat16 else flat).numpy()
    out = np.empty(packed_bytes(spikes.shape), np.uint8)
    for start in range(0, len(flat), BLOCK):
        part = flat[start : start + BLOCK]
        fired = part == emit
        only = np.count_nonzero(fired) == np.count_nonzero(part)
        check("spikes", None if only else part[(part != 0) & ~fired][0].item(), only, f"0 or {emit:g}")
        out[start // 8 : start // 8 + packed_bytes(part.shape)] = np.packbits(fired)
    return out.tobytes()


def unpack(data: bytes, shape: tuple[int, ...], emit: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bits to spikes, the inverse of :func:`pack`.

    Args:
        data: packed spikes.
        shape: of the spikes.
        emit: height of a spike.
        dtype: of the result.

    Returns:
        0 or ``emit``, of ``shape``.

    Raises:
        ValueError: if ``data`` is not as long as ``shape`` needs, or bits beyond the last spike are set.
    """
    n, wanted = prod(shape), packed_bytes(shape)
    check("bytes of data", len(data), len(data) == wanted, f"{wanted} for spikes of shape {tuple(shape)}")
    fill = data[-1] & (0xFF >> (n % 8)) if n % 8 else 0
    check("last bits of data", fill, not fill, f"zeros after {n} spikes")
    spikes = _bits(np.frombuffer(data, np.uint8), n, dtype)
    return (spikes if emit == 1 else spikes.mul_(emit)).view(shape)


def _bits(packed: np.ndarray, n: int, dtype: torch.dtype) -> Tensor:
    """The first ``n`` bits as 0 and 1, a block at a time where there are several."""
    if n <= BLOCK:
        return torch.from_numpy(np.unpackbits(packed, count=n)).to(dtype)
    spikes = torch.empty(n, dtype=dtype)
    for i, part in enumerate(spikes.split(BLOCK)):
        part.copy_(_bits(packed[i * BLOCK // 8 : (i + 1) * BLOCK // 8], len(part), torch.uint8))
    return spikes
