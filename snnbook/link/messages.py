"""Messages between devices, server and clients: one fixed header of 40 bytes, then the payload.

    magic     4 bytes  "SNNB"                first, steps  2 × uint16  time steps [first, first + steps) of T
    version   uint8    of this protocol      C, H, W       3 × uint16  shape of the spikes, or K classes as C
    kind      uint8    see Kind              flags         uint16
    part      uint16   which device          micros        uint32      µs of computing behind the payload
    sample    uint64   see sample_id         length        uint32      bytes of the payload
                                             crc           uint32      CRC-32 of everything else

All little-endian. :func:`decode` accepts exactly what :func:`encode` makes, in bounded size; nothing is unpickled.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import NamedTuple

from ..checks import check
from .payload import packed_bytes

MAGIC = b"SNNB"
VERSION = 3
#: Largest payload in bytes; 128 Mbit of spikes.
MAX_PAYLOAD = 2**24
#: The sender wants the answer (a device that drives itself); without it the answer goes to whoever asked.
WANTS_ANSWER = 1
#: The payload of FEATURES is range-coded with the code of its part (:mod:`snnbook.link.coding`), not packed.
CODED = 2

_HEADER = struct.Struct("<4sBBHQ6HII")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size


class Kind(IntEnum):
    """What a message is for."""

    HELLO = 1  # device → server: my part, T, shape, fleet in ``sample``; back: number of parts, T, steps wanted first
    ASK = 2  # client → server: infer this sample
    TRIGGER = 3  # server → device: compute these steps of this sample
    FEATURES = 4  # device → server: packed spikes, or coded ones where that is shorter
    ANSWER = 5  # server → whoever wanted it: see answers.py; ``first`` is the number of steps that are missing
    ERROR = 6  # server → anyone: UTF-8 text
    STATUS = 7  # client → server: empty; server → client: counters as JSON


class BadMessage(ValueError):
    """Bytes that are no message; ``reason`` is one word to count them by."""

    def __init__(self, reason: str, text: str):
        super().__init__(text)
        self.reason = reason


class Message(NamedTuple):
    """One message, as its header says; ``shape`` is (C, H, W)."""

    kind: Kind
    sample: int = 0
    part: int = 0
    first: int = 0
    steps: int = 0
    shape: tuple[int, int, int] = (0, 0, 0)
    micros: int = 0
    flags: int = 0
    payload: bytes = b""


def sample_id(request: int, index: int) -> int:
    """Name of one inference: which request (upper 32 bits) of which row of the sensor's file (lower 32 bits).

    Raises:
        ValueError: if either is outside 0 … 2³² − 1.
    """
    for name, value in (("request", request), ("index", index)):
        check(name, value, 0 <= value < 2**32, "0 to 2³² − 1")
    return request << 32 | index


def row(sample: int) -> int:
    """Row of the sensor's file that a sample id means."""
    return sample & 0xFFFFFFFF


def encode(m: Message) -> bytes:
    """A message as bytes.

    Raises:
        ValueError: for a payload above ``MAX_PAYLOAD``, or a number that its field does not hold.
    """
    check("bytes of payload", len(m.payload), len(m.payload) <= MAX_PAYLOAD, f"at most {MAX_PAYLOAD}")
    numbers = (m.first, m.steps, *m.shape, m.flags, m.micros, len(m.payload))
    try:
        head = _HEADER.pack(MAGIC, VERSION, m.kind, m.part, m.sample, *numbers)
    except struct.error as error:
        raise ValueError(f"message = {m._replace(payload=b'')} is not allowed: {error}") from error
    return head + _CRC.pack(zlib.crc32(m.payload, zlib.crc32(head))) + m.payload


def framed_bytes(payload: int) -> int:
    """Bytes on the wire of a payload of so many bytes: header and ZeroMQ's frame, without TCP and encryption."""
    data = HEADER_BYTES + payload
    return data + (9 if data > 255 else 2)


def _need(ok: bool, reason: str, text: str) -> None:
    if not ok:
        raise BadMessage(reason, text)


def decode(data: bytes) -> Message:
    """Bytes as a message.

    Raises:
        BadMessage: for anything that :func:`encode` cannot have made; its ``reason`` is length, magic, crc, version,
            kind, flags or shape.
    """
    _need(len(data) >= HEADER_BYTES, "length", f"{len(data)} bytes: less than a header")
    magic, version, kind, part, sample, first, steps, *shape, flags, micros, length = _HEADER.unpack_from(data)
    _need(magic == MAGIC, "magic", "no message of this protocol")
    _need(length == len(data) - HEADER_BYTES <= MAX_PAYLOAD, "length", f"{len(data)} bytes, {length} announced")
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    payload = data[HEADER_BYTES:]
    _need(crc == zlib.crc32(payload, zlib.crc32(data[: _HEADER.size])), "crc", "checksum does not match")
    _need(version == VERSION, "version", f"protocol version {version}; this side speaks {VERSION}")
    _need(kind in Kind._value2member_map_, "kind", f"unknown kind {kind}")
    allowed = WANTS_ANSWER | CODED if kind == Kind.FEATURES else WANTS_ANSWER
    _need(flags & ~allowed == 0, "flags", f"unknown flags {flags:#x}")
    if kind == Kind.FEATURES:
        wanted = packed_bytes((steps, *shape))
        fits = length < wanted if flags & CODED else length == wanted > 0
        _need(fits, "shape", f"{length} bytes for {steps} steps of {shape}, which need {wanted}")
    return Message(Kind(kind), sample, part, first, steps, tuple(shape), micros, flags, payload)
