"""A slow link in one process: a token bucket that holds messages back until the link would have carried them.

Tokens are bits. They come in at ``rate`` bit/s, ``burst`` of them are kept at most, and a message leaves when all its
bits have had one. With ``burst`` = 0 a message of B bits that finds the link idle takes B / rate seconds.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import zmq

from ..checks import check


@dataclass(frozen=True)
class Rate:
    """Rate of a link in bit/s, and bits that may pass at once."""

    bits_per_second: float
    burst_bits: float = 0.0

    def __post_init__(self):
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


class _Lane:
    """One direction: at most one message is held here, the others wait in the queue of ``source``."""

    def __init__(self, source: zmq.Socket, sink: zmq.Socket, rate: Rate | None):
        self.source, self.sink = source, sink
        self.bucket = TokenBucket(rate) if rate else None
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

    def give(self) -> None:
        """Pass the held message on if it is due; if ``sink`` cannot take it, again after a millisecond.

        A message that waited behind it counts from when that one was due, not from when this thread woke up.
        """
        while self.held is not None and time.monotonic() >= self.due:
            next_is_there = self.source.poll(0)
            try:
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
        left = min((lane.due - time.monotonic() for lane in self.lanes if lane.held), default=1.0)
        poller = zmq.Poller()
        for lane in self.lanes:
            if lane.held is None:
                poller.register(lane.source, zmq.POLLIN)
        if not poller.poll(max(0, int(left * 1000) - 1)) and left < 1.0:
            left = min((lane.due - time.monotonic() for lane in self.lanes if lane.held), default=0.0)
            time.sleep(min(max(left, 0.0), 2e-3))
