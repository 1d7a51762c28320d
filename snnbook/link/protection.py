"""Packets that arrive right or are known to be wrong: CRC32 and the LDPC code of 5G (3GPP TS 38.212).

    payload ─ packets ─ + CRC32 ─ LDPC at a chosen rate ─ channel ─ belief propagation ─ CRC32 right? ─ payload

A packet whose checksum fails is flagged and counts as lost, all zeros. Its four bytes let one wrong packet in 2^32
through. The code comes from the library Sionna, which decodes batches on torch; Reed–Solomon over bytes corrects
bursts, but of independent bit errors at most (n − k) / 2 wrong bytes, which at ber = .1 (57 % of all bytes) is nothing.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..checks import check

#: Bytes of a checksum.
CRC_BYTES = 4
#: Elements of a batch of code words that are decoded at a time: more spill out of the processor's cache.
BATCH = 2**16


@cache
def _ldpc(k: int, n: int, iterations: int):
    """Encoder and decoder of the 5G LDPC code with k information bits in n; the library takes seconds to load."""
    from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder

    encoder = LDPC5GEncoder(k, n, device="cpu")
    return encoder, LDPC5GDecoder(encoder, num_iter=iterations, hard_out=True, device="cpu")


@dataclass(frozen=True)
class Protection:
    """How payloads of one size are cut into packets and protected.

    Attributes:
        payload_bytes: of every payload.
        rate: information bits (checksums included) per transmitted bit, 1/5 to 9/10; 1 stands for no code, a
            checksum only.
        packet_bytes: data bytes of a packet at most, 1 to 474; packets of a payload are equally long.
        iterations: of belief propagation.

    Raises:
        ValueError: for a number out of range.
    """

    payload_bytes: int
    rate: float = 1.0
    packet_bytes: int = 128
    iterations: int = 20

    def __post_init__(self) -> None:
        check("payload_bytes", self.payload_bytes, self.payload_bytes >= 1, "at least 1")
        check("rate", self.rate, self.rate == 1 or 0.2 <= self.rate <= 0.9, "0.2 to 0.9, or 1 for no code")
        check("packet_bytes", self.packet_bytes, 1 <= self.packet_bytes <= 474, "1 to 474")
        check("iterations", self.iterations, self.iterations >= 1, "at least 1")

    @property
    def packets(self) -> int:
        """Packets of a payload."""
        return -(-self.payload_bytes // self.packet_bytes)

    @property
    def data_bytes(self) -> int:
        """Data bytes of a packet; the last one is filled up with zeros."""
        return -(-self.payload_bytes // self.packets)

    @property
    def packet_bits(self) -> int:
        """Transmitted bits of a packet."""
        return math.ceil(8 * (self.data_bytes + CRC_BYTES) / self.rate)

    @property
    def bits(self) -> int:
        """Transmitted bits of a payload."""
        return self.packets * self.packet_bits

    def encode(self, payloads: np.ndarray) -> Tensor:
        """Payloads uint8 [N, payload_bytes] to bits 0/1, float32 [N, packets, packet_bits].

        Raises:
            ValueError: for payloads of another type or length.
        """
        right = payloads.dtype == np.uint8 and payloads.ndim == 2 and payloads.shape[1] == self.payload_bytes
        check("payloads", (str(payloads.dtype), payloads.shape), right, f"uint8 [N, {self.payload_bytes}]")
        filled = np.pad(payloads, ((0, 0), (0, self.packets * self.data_bytes - self.payload_bytes)))
        data = filled.reshape(-1, self.data_bytes)
        words = torch.from_numpy(np.unpackbits(np.hstack([data, _checksums(data)]), axis=1)).float()
        if self.rate < 1:
            words = _ldpc(words.shape[1], self.packet_bits, self.iterations)[0](words)
        return words.view(len(payloads), self.packets, self.packet_bits)

    def decode(self, logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Received bits to payloads.

        Args:
            logits: ln P(1) − ln P(0) of each bit, [N, packets, packet_bits]; 0 where nothing is known.

        Returns:
            ``(payloads, right)``: uint8 [N, payload_bytes] with zeros for flagged packets, and bool [N, packets].

        Raises:
            ValueError: for another shape.
        """
        wanted, shape = (self.packets, self.packet_bits), tuple(logits.shape)
        check("shape of logits", shape, shape[1:] == wanted, f"[N, {wanted[0]}, {wanted[1]}]")
        words = self._words(logits.float().cpu().flatten(0, 1))
        packets = np.packbits(words.to(torch.uint8).numpy(), axis=1)
        data, sums = packets[:, : self.data_bytes], packets[:, self.data_bytes :]
        right = (_checksums(data) == sums).all(1)
        payloads = (data * right[:, None]).reshape(len(logits), -1)[:, : self.payload_bytes]
        return payloads, right.reshape(len(logits), self.packets)

    def _words(self, logits: Tensor) -> Tensor:
        """The likeliest information bits [M, 8·(data + CRC)] of code words [M, packet_bits]."""
        if self.rate == 1:
            return logits > 0
        decoder = _ldpc(8 * (self.data_bytes + CRC_BYTES), self.packet_bits, self.iterations)[1]
        with torch.no_grad():
            return torch.cat([decoder(part) for part in logits.split(max(1, BATCH // self.packet_bits))]) > 0


def _checksums(data: np.ndarray) -> np.ndarray:
    """CRC32 of each row of uint8 [M, B], big-endian, uint8 [M, 4]."""
    sums = np.array([zlib.crc32(row.tobytes()) for row in data], dtype=">u4")
    return sums.view(np.uint8).reshape(len(data), CRC_BYTES)


def bit_logits(bits: Tensor, ber: float, arrived: Tensor | None = None) -> Tensor:
    """ln P(1) − ln P(0) of received bits: (2b − 1)·ln((1 − ber) / ber), 0 for bits that did not arrive.

    Args:
        bits: 0/1, as they came out of a hard decision.
        ber: bit error rate that the receiver reckons with; at least 1e-6 is taken.
        arrived: bool of the shape of ``bits``; all by default.
    """
    check("ber", ber, 0 <= ber < 0.5, "0 to below 0.5")
    ber = max(ber, 1e-6)
    logits = (2 * bits.float() - 1) * math.log((1 - ber) / ber)
    return logits if arrived is None else logits * arrived
