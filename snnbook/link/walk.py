"""Through many samples with a window of them on their way; none is lost, none counted twice.

The asker is a client, or a device that drives itself: it computes the next sample while earlier ones are sent and
answered (pipelining). What is not answered in time is sent again under the same id. The server answers such a
duplicate from memory, and a second answer is dropped here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..checks import check
from .answers import Answer
from .messages import BadMessage, Kind, Message, encode, sample_id
from .transport import Channel

#: Longest wait in seconds for a message while nothing is due.
WAIT = 0.05


def fresh_request() -> int:
    """A number of a walk that no other walk has, for all practical purposes; not 0, so that no sample's id is."""
    return int.from_bytes(os.urandom(4), "little") or 1


def checked_rows(samples: Sequence[int], rows: int = 2**32) -> list[int]:
    """Samples as a list.

    Args:
        samples: rows of the sensor's file.
        rows: how many that has, as far as it is known.

    Raises:
        ValueError: if there are none, one comes twice, or one is outside 0 … ``rows`` − 1.
    """
    found = list(samples)
    check("samples", len(found), len(set(found)) == len(found) > 0, "at least one, each once")
    outside = next((i for i in found if not 0 <= i < rows), None)
    check("samples", outside, outside is None, f"rows 0 to {rows - 1}")
    return found


class Asker(Protocol):
    """Whoever wants answers: :class:`snnbook.link.device.Device` or :class:`snnbook.link.client.Client`."""

    channel: Channel
    known: bool

    def hello(self) -> None:
        """Introduce yourself; ``known`` is true once the server has answered."""

    def receive(self, timeout: float) -> Message | None:
        """The server's next message."""

    def request(self, sample: int) -> Message:
        """What to send for a sample id."""

    def obey(self, m: Message) -> None:
        """Do what a TRIGGER asks for."""


@dataclass
class _Way:
    index: int
    started: float
    due: float
    tries: int = 1


@dataclass(frozen=True)
class Answered:
    """An answer to sample ``index``, ``seconds`` after its request was begun and sent ``tries`` times.

    It was begun ``started`` seconds after the walk.
    """

    index: int
    answer: Answer
    seconds: float
    tries: int
    started: float = 0.0


class Walk:
    """One walk through samples.

    Args:
        asker: who walks.
        samples: rows of the sensor's file, each once.
        window: samples on their way at most.
        timeout: seconds without an answer before a sample is sent again. It has to be clearly longer than a sample
            takes when ``window`` of them share the link: copies that nobody needs slow a full link down further.
        patience: seconds without any answer before the walk is given up.
        request: number of this walk, part of its samples' ids; a fresh one by default.

    Attributes:
        found: answers so far.
        again: second answers, which were dropped.
        seconds: from the first request to the last answer.

    Raises:
        ValueError: for no samples, one that comes twice, or a window or a time that is not positive.
    """

    def __init__(
        self, asker: Asker, samples: Sequence[int], window: int = 1, timeout: float = 5.0,
        patience: float = 60.0, request: int | None = None,
    ):  # fmt: skip
        check("window", window, window >= 1, "at least 1")
        check("timeout", timeout, timeout > 0, "a positive number of seconds")
        check("patience", patience, patience > 0, "a positive number of seconds")
        self.asker, self.window, self.timeout, self.patience = asker, window, timeout, patience
        self.request = fresh_request() if request is None else request
        self._left = checked_rows(samples)[::-1]
        self._ways: dict[int, _Way] = {}
        self._began = self._last = time.monotonic()
        self.found: list[Answered] = []
        self.again = 0
        self.seconds = 0.0

    def run(self) -> list[Answered]:
        """Walk to the end.

        Returns:
            One entry for each sample, in the order of the answers.

        Raises:
            TimeoutError: if nothing is answered for ``patience`` seconds.
        """
        self._meet()
        self._began = started = time.monotonic()
        while self._left or self._ways:
            free = bool(self._left) and len(self._ways) < self.window
            if free:
                self._start()
            self._listen(0.0 if free and self._left else min(WAIT, self.timeout / 4))
            self._retry()
        self.seconds = time.monotonic() - started
        return self.found

    def _meet(self) -> None:
        """Say hello until the server has answered."""
        while not self.asker.known:
            self._check_patience()
            self.asker.hello()
            self.asker.receive(0.25)
        self._last = time.monotonic()

    def _start(self) -> None:
        """Make the next request and send it."""
        started = time.monotonic()
        index = self._left.pop()
        sample = sample_id(self.request, index)
        m = self.asker.request(sample)
        self._ways[sample] = _Way(index, started, time.monotonic() + self.timeout)
        self._send(m)

    def _send(self, m: Message) -> None:
        """Queue a request, listening while the link is too slow for more."""
        data = encode(m)
        while m.sample in self._ways and not self.asker.channel.send(data):
            self._listen(WAIT / 10)
            self._check_patience()

    def _listen(self, wait: float) -> None:
        """Take the next message."""
        m = self.asker.receive(wait)
        if m is None:
            return
        if m.kind == Kind.ANSWER:
            self._finish(m)
        elif m.kind == Kind.TRIGGER:
            self.asker.obey(m)
        elif m.kind == Kind.ERROR and m.sample in self._ways:  # busy
            self._ways[m.sample].due = time.monotonic() + min(WAIT, self.timeout)

    def _finish(self, m: Message) -> None:
        if m.sample not in self._ways:
            self.again += 1
            return
        try:
            answer = Answer.from_message(m)
        except BadMessage:
            return
        way, self._last = self._ways.pop(m.sample), time.monotonic()
        started = way.started - self._began
        self.found.append(Answered(way.index, answer, self._last - way.started, way.tries, started))

    def _retry(self) -> None:
        """Send again what is overdue, after a hello in case the server has forgotten the asker."""
        self._check_patience()
        late = [sample for sample, way in self._ways.items() if time.monotonic() >= way.due]
        if late:
            self.asker.hello()
        for sample in late:
            way = self._ways.get(sample)
            if way is not None:
                way.tries, way.due = way.tries + 1, time.monotonic() + self.timeout
                self._send(self.asker.request(sample))

    def _check_patience(self) -> None:
        if time.monotonic() - self._last > self.patience:
            left = len(self._ways) + len(self._left)
            raise TimeoutError(f"no answer for {self.patience:g} s; {left} samples are left")
