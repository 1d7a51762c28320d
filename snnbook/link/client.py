"""A client: asks the server to infer samples, and how it is doing."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from .messages import BadMessage, Kind, Message, decode, encode
from .transport import Channel
from .walk import Answered, Walk


class Client:
    """One client of a server.

    Args:
        address: of the server.
        keys: the own folder of keys; needed beyond loopback.

    Raises:
        ValueError: for an address that is not allowed.
    """

    known = True

    def __init__(self, address: str, keys: Path | str | None = None):
        self.channel = Channel(address, keys)

    def hello(self) -> None:
        """A client needs no introduction."""

    def receive(self, timeout: float) -> Message | None:
        """The server's next message, or ``None`` after ``timeout`` seconds or for one that is none."""
        frames = self.channel.receive(timeout)
        try:
            return decode(frames[0]) if frames is not None and len(frames) == 1 else None
        except BadMessage:
            return None

    def request(self, sample: int) -> Message:
        """What asks for a sample id."""
        return Message(Kind.ASK, sample)

    def obey(self, m: Message) -> None:
        """A client computes nothing."""

    def run(self, samples: Sequence[int], window: int = 1, **options) -> tuple[list[Answered], float]:
        """Ask for samples, ``window`` at a time.

        Args:
            samples: rows of the sensors' file, each once. A client does not know how many there are: for one that is
                not there, devices send nothing, and the answer at the deadline is partial.
            window: samples on their way at most.
            options: ``timeout`` and ``patience`` of :class:`snnbook.link.walk.Walk`.

        Returns:
            The answers, and the seconds from the first request to the last of them.

        Raises:
            ValueError: for no rows, or for rows that come twice.
            TimeoutError: if nothing is answered for long.
        """
        walk = Walk(self, samples, window, **options)
        return walk.run(), walk.seconds

    def status(self, timeout: float = 5.0) -> dict:
        """Counters of the server, as they are now; a late reply to an earlier call is left alone.

        Returns:
            ``parts`` that are registered; ``arrivals`` of new devices and ``hellos`` of any, a number for each part;
            ``open`` samples; ``counts`` of what was done, and of what was dropped and why.

        Raises:
            TimeoutError: if it does not answer within ``timeout`` seconds.
        """
        request, m = Message(Kind.STATUS, secrets.randbits(64)), None
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            if m is None:
                self.channel.send(encode(request))
            m = self.receive(min(left, 1.0))
            if m is not None and (m.kind, m.sample) == (request.kind, request.sample):
                return json.loads(m.payload)
        asked = f"is it running, is {self.channel.address} its address, do the keys fit?"
        raise TimeoutError(f"the server did not answer within {timeout:g} s: {asked}")

    def close(self) -> None:
        """Close the socket."""
        self.channel.close()
