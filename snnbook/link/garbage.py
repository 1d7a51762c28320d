"""Messages as they should not be, to send to a server: the same ones for the same seed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from .messages import HEADER_BYTES, MAGIC, VERSION, Kind, Message, encode

_CRC_AT = HEADER_BYTES - 4


def _valid(g: np.random.Generator) -> bytes:
    """A message in order, of any kind."""
    payload = g.bytes(int(g.integers(1, 64)))
    numbers = g.integers(0, 2**16, 3).tolist()
    return encode(Message(Kind(int(g.choice([1, 2, 3, 5, 6]))), int(g.integers(2**63)), *numbers, payload=payload))


def checked(data: bytes) -> bytes:
    """``data`` with the checksum that belongs to it."""
    crc = zlib.crc32(data[HEADER_BYTES:], zlib.crc32(data[:_CRC_AT]))
    return data[:_CRC_AT] + struct.pack("<I", crc) + data[HEADER_BYTES:]


def noise(g: np.random.Generator) -> bytes:
    """Random bytes, with the right beginning every other time."""
    return (MAGIC + bytes([VERSION]) if g.integers(2) else b"") + g.bytes(int(g.integers(0, 200)))


def truncated(g: np.random.Generator) -> bytes:
    """A message that ends early, or goes on."""
    data = _valid(g)
    return data[: int(g.integers(len(data)))] if g.integers(4) else data + g.bytes(1)


def flipped(g: np.random.Generator) -> bytes:
    """A message with one bit changed."""
    data, bit = bytearray(_valid(g)), int(g.integers(8 * HEADER_BYTES))
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def old_version(g: np.random.Generator) -> bytes:
    """A message of another version of the protocol."""
    data = _valid(g)
    return checked(data[:4] + bytes([int(g.choice([0, 1, 255]))]) + data[5:])


def senseless(g: np.random.Generator) -> bytes:
    """A right checksum over any header: unknown kinds, parts, shapes, flags, announced lengths."""
    return checked(MAGIC + bytes([VERSION, int(g.integers(20, 256))]) + g.bytes(HEADER_BYTES - 6 + int(g.integers(64))))


def misplaced(g: np.random.Generator) -> bytes:
    """A message in order that a server does not take, or not from anybody."""
    kind = Kind(int(g.choice([Kind.TRIGGER, Kind.ANSWER, Kind.ERROR, Kind.HELLO])))
    return encode(Message(kind, part=int(g.integers(1000, 2**16)), steps=1, shape=(1, 1, 7), payload=b"\0"))


def homeless(g: np.random.Generator) -> bytes:
    """Features in order, from a device that nobody knows."""
    numbers = {"part": int(g.integers(4)), "steps": 1, "shape": (1, 1, 8), "flags": int(g.integers(2))}
    return encode(Message(Kind.FEATURES, int(g.integers(2**63)), payload=g.bytes(1), **numbers))


KINDS: tuple[Callable[[np.random.Generator], bytes], ...] = (
    noise, truncated, flipped, old_version, senseless, misplaced, homeless,
)  # fmt: skip


def garbage(n: int, seed: int = 0) -> Iterator[list[bytes]]:
    """``n`` messages as lists of frames, of all kinds in turn; one in twenty has more frames than one."""
    g = np.random.default_rng(seed)
    for i in range(n):
        frames = [KINDS[i % len(KINDS)](g)]
        yield frames * int(g.integers(2, 5)) if i % 20 == 19 else frames
