"""A client: asks the server to infer samples, and how it is doing."""

from __future__ import annotations

import json
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
            samples: rows of the sensors' file.
            window: samples on their way at most.
            options: ``timeout`` and ``patience`` of :class:`snnbook.link.walk.Walk`.

        Returns:
            The answers, and the seconds from the first request to the last of them.

        Raises:
            TimeoutError: if nothing is answered for long.
        """
        walk = Walk(self, samples, window, **options)
        return walk.run(), walk.seconds

    def status(self, timeout: float = 5.0) -> dict:
        """The server's ``parts`` (registered ones), ``open`` samples and ``counts``.

        Raises:
            TimeoutError: if it does not answer within ``timeout`` seconds.
        """
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            self.channel.send(encode(Message(Kind.STATUS)))
            m = self.receive(min(left, 1.0))
            if m is not None and m.kind == Kind.STATUS:
                return json.loads(m.payload)
        raise TimeoutError(f"the server did not answer within {timeout:g} s")

    def close(self) -> None:
        """Close the socket."""
        self.channel.close()
