"""What a server answers: logits, which parts they rest on, what computing and sending those cost."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .messages import BadMessage, Kind, Message

_FIXED = struct.Struct("<QII")


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        sample: id of the sample.
        logits: [T', 1, K] float32; T' < T after an early exit or where later steps were lost.
        mask: bit i says whether the answer rests on part i: it has arrived, with T' steps at least.
        part_micros: µs that each device computed; 0 for a lost one.
        server_micros: µs that the server part computed, over all of its runs where it asked for further steps.
        payload_bytes: packed spikes received.
        framed_bytes: the messages around them, headers included.
        missing_steps: time steps that were asked for and are not in the answer.
    """

    sample: int
    logits: Tensor
    mask: int
    part_micros: tuple[int, ...]
    server_micros: int
    payload_bytes: int
    framed_bytes: int
    missing_steps: int = 0

    @property
    def partial(self) -> bool:
        """Whether a part is missing, or steps that were asked for."""
        return self.mask != 2 ** len(self.part_micros) - 1 or self.missing_steps > 0

    def to_message(self) -> Message:
        """As a message of kind ANSWER: mask, bytes and part times come before the logits in the payload."""
        steps, _, classes = self.logits.shape
        fixed = _FIXED.pack(self.mask, self.payload_bytes, self.framed_bytes)
        times = np.asarray(self.part_micros, "<u4").tobytes()
        logits = self.logits.numpy().astype("<f4").tobytes()
        return Message(
            Kind.ANSWER, self.sample, len(self.part_micros), self.missing_steps, steps, (classes, 1, 1),
            self.server_micros, payload=fixed + times + logits,
        )  # fmt: skip

    @classmethod
    def from_message(cls, m: Message) -> Answer:
        """Back from a message; BadMessage if its payload is not as long as its header says."""
        times, classes = _FIXED.size + 4 * m.part, m.shape[0]
        if m.kind != Kind.ANSWER or len(m.payload) != times + 4 * m.steps * classes:
            raise BadMessage("shape", f"{len(m.payload)} bytes are no answer of {m.steps} × {classes} logits")
        micros = np.frombuffer(m.payload, "<u4", m.part, _FIXED.size).tolist()
        values = np.frombuffer(m.payload, "<f4", offset=times).astype(np.float32)
        logits = torch.from_numpy(values).view(m.steps, 1, classes)
        mask, payload_bytes, framed_bytes = _FIXED.unpack_from(m.payload)
        return cls(m.sample, logits, mask, tuple(micros), m.micros, payload_bytes, framed_bytes, m.first)
