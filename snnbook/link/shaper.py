"""A slow or noisy link in one process: a token bucket that holds messages back until the link would have carried them.

Tokens are bits. They come in at ``rate`` bit/s, ``burst`` of them are kept at most, and a message leaves when all its
bits have had one. With ``burst`` = 0 a message of B bits that finds the link idle takes B / rate seconds.

Noise, off by default, flips each bit of a message with probability ``ber`` and loses whole messages with probability
``loss``, drawn from an explicit seed. A message with a flipped bit fails the receiver's checksum and is dropped there.
Who waits for an answer asks again; the server then triggers again the devices whose spikes are missing
(:mod:`snnbook.link.server`).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
import zmq

from ..checks import check


@dataclass(frozen=True)
class Rate:
    """One direction of a link.

    Attributes:
        bits_per_second: its rate; infinite for a link that is only noisy.
        burst_bits: that may pass at once.
        ber: probability that a bit is flipped, 0 to 0.5.
        loss: probability that a message is lost, 0 to 1.
        seed: of both.
    """

    bits_per_second: float
    burst_bits: float = 0.0
    ber: float = 0.0
    loss: float = 0.0
    seed: int = 0

    def __post_init__(self):
        check("ber", self.ber, 0 <= self.ber <= 0.5, "0 to 0.5")
        check("loss", self.loss, 0 <= self.loss <= 1, "0 to 1")
        check("seed", self.seed, self.seed >= 0, "0 or more")
        check("bits_per_second", self.bits_per_second, self.bits_per_second > 0, "a positive number")
        check("burst_bits", self.burst_bits, self.burst_bits >= 0, "0 or more")


class TokenBucket:
    """When the last bit of each message has passed; times in seconds of any one clock."""

    def __init__(self, rate: Rate):
        self.rate = rate
        self._empty = float("-inf")  # since when the bucket, filled at its rate without limit, would have been empty

    def departure(self, bits: float, now: float) -> float:
        """Take ``bits`` at ``now``; the time when they have passed, ``now`` or later."""
        start = max(self._empty, now - self.rate.burst_bits / self.rate.bits_per_second)
        self._empty = start + bits / self.rate.bits_per_second
        return max(now, self._empty)


class Noise:
    """What becomes of messages on a noisy link: bits flipped, or all of it lost; the same for the same seed.

    Args:
        rate: its ``ber``, ``loss`` and ``seed`` count.
    """

    def __init__(self, rate: Rate):
        self.rate, self._random = rate, np.random.default_rng(rate.seed)

    def __call__(self, frames: list[bytes]) -> list[bytes]:
        """The frames as they arrive; an empty list if the message is lost."""
        if self._random.random() < self.rate.loss:
            return []
        return [self._flipped(frame) for frame in frames]

    def _flipped(self, frame: bytes) -> bytes:
        bits = 8 * len(frame)
        at = self._random.choice(bits, self._random.binomial(bits, self.rate.ber), replace=False, shuffle=False)
        if not len(at):
            return frame
        data = np.frombuffer(frame, np.uint8).copy()
        np.bitwise_xor.at(data, at // 8, (0x80 >> at % 8).astype(np.uint8))
        return data.tobytes()


class _Lane:
    """One direction: at most one message is held here, the others wait in the queue of ``source``.

    A message that is lost takes its time too, and is held as an empty list.
    """

    def __init__(self, source: zmq.Socket, sink: zmq.Socket, rate: Rate | None):
        self.source, self.sink = source, sink
        self.bucket = TokenBucket(rate) if rate else None
        self.noise = Noise(rate) if rate and (rate.ber or rate.loss) else None
        self.held: list[bytes] | None = None
        self.due = 0.0

    def take(self) -> None:
        """Take the next message from ``source`` if there is one and none is held."""
        if self.held is None and self.source.poll(0):
            self._hold(time.monotonic())

    def _hold(self, came: float) -> None:
        """Hold the next message, which was there at ``came``."""
        self.held = self.source.recv_multipart()
        self.due = self.bucket.departure(8 * sum(map(len, self.held)), came) if self.bucket else came
        self.held = self.noise(self.held) if self.noise else self.held

    def give(self) -> None:
        """Pass the held message on if it is due; if ``sink`` cannot take it, again after a millisecond.

        A message that waited behind it counts from when that one was due, not from when this thread woke up.
        """
        while self.held is not None and time.monotonic() >= self.due:
            next_is_there = self.source.poll(0)
            try:
                if self.held:
                    self.sink.send_multipart(self.held, zmq.NOBLOCK)
            except zmq.Again:
                self.due = time.monotonic() + 1e-3
                return
            self.held = None
            if next_is_there:
                self._hold(self.due)


class Shaper(threading.Thread):
    """Carries messages between ``inner`` and ``outer``: up to ``outer`` at the rate ``up``, back at ``down``.

    Both sockets belong to this thread once it is started; it closes them when their context ends.
    """

    def __init__(self, inner: zmq.Socket, outer: zmq.Socket, up: Rate | None, down: Rate | None):
        super().__init__(daemon=True, name="shaper")
        self.sockets = inner, outer
        self.lanes = _Lane(inner, outer, up), _Lane(outer, inner, down)

    def run(self) -> None:
        """Until the context of the sockets is terminated."""
        try:
            while True:
                self._wait()
                for lane in self.lanes:
                    lane.take()
                    lane.give()
        except (zmq.ContextTerminated, zmq.ZMQError):
            pass
        finally:
            for socket in self.sockets:
                socket.close(0)

    def _wait(self) -> None:
        """Until a message comes or is due. The poll ends in whole milliseconds; what is left of one is slept."""
        left = min((lane.due - time.monotonic() for lane in self.lanes if lane.held is not None), default=1.0)
        poller = zmq.Poller()
        for lane in self.lanes:
            if lane.held is None:
                poller.register(lane.source, zmq.POLLIN)
        if not poller.poll(max(0, int(left * 1000) - 1)) and left < 1.0:
            left = min((lane.due - time.monotonic() for lane in self.lanes if lane.held is not None), default=0.0)
            time.sleep(min(max(left, 0.0), 2e-3))
