"""A device: its own part of the networks, its own sensor, one socket.

It computes when it is triggered, or walks through its samples by itself (:mod:`snnbook.link.walk`). Only spikes leave
it, packed.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import store
from ..checks import check
from .coding import SpikeModel
from .coding import encode as encode_spikes
from .folder import Sensor
from .messages import CODED, HEADER_BYTES, WANTS_ANSWER, BadMessage, Kind, Message, decode, encode, row
from .payload import pack
from .shaper import Rate
from .transport import Channel, silent
from .walk import Answered, Walk, checked_rows

#: Seconds between two hellos; they tell a server that has lost this device, or is new, who is there.
BEAT = 1.0
#: Share of a slow link that they take at most.
BEAT_SHARE = 0.05
#: Longest wait in seconds for a link that is too slow for what was sent before.
SLOW = 10.0
#: Seconds without an answer to hellos after which a server is said to be missing.
MISSING = 5.0
#: Samples whose spikes are kept for further time steps.
KEPT = 64


class Refused(ValueError):
    """The server does not want this device; the text says why."""


class Contact:
    """Whether the server answers; each change is said once.

    Args:
        say: called with a line of text when the server has registered the device.
        warn: called with one when it has not answered for long.
    """

    def __init__(self, say: Callable[[str], None] = silent, warn: Callable[[str], None] = silent):
        self.say, self.warn = say, warn
        self.there: bool | None = None
        self._since = math.inf

    def asked(self) -> None:
        """The server was asked for an answer; the first time since it was heard counts."""
        self._since = min(self._since, time.monotonic())

    def heard(self) -> None:
        """Something came from the server."""
        self._since = math.inf

    def registered(self, text: str) -> None:
        """The server knows the device: say ``text`` if it did not before."""
        if not self.there:
            self.say(text)
        self.there = True

    def check(self, patience: float, text: str) -> None:
        """Warn if nothing came for ``patience`` seconds after asking."""
        if self.there is not False and time.monotonic() - self._since > patience:
            self.there = False
            self.warn(text)


class Device:
    """State of one device.

    Args:
        part: which of the parts it is.
        module: a sample to spikes [T, 1, C, H, W] of height ``emit``.
        sensor: row → sample.
        channel: its socket.
        emit: height of a spike.
        code: with which spikes are range-coded where that is shorter than packing them; ``None`` packs always.
        fleet: to which its file belongs, of :func:`snnbook.link.folder.fleet_id`.
        contact: says whether the server answers; silent by default.

    Attributes:
        known: whether the server has answered a hello.
    """

    def __init__(
        self,
        part: int,
        module: Callable[[Tensor], Tensor],
        sensor: Sensor,
        channel: Channel,
        emit: float = 1.0,
        code: SpikeModel | None = None,
        fleet: int = 0,
        contact: Contact | None = None,
    ):
        self.part, self.module, self.sensor, self.channel, self.emit = part, module, sensor, channel, emit
        self.code, self.fleet = code, fleet
        self._kept: OrderedDict[int, tuple[Tensor, int]] = OrderedDict()
        self.shape = tuple(self.spikes(0)[0].shape)
        self.steps_at_first = self.shape[0]
        self.known, self.contact = False, contact or Contact()

    def spikes(self, sample: int) -> tuple[Tensor, int]:
        """Spikes [T, 1, C, H, W] of a sample id, and the µs that computing them took; kept for a while."""
        if sample not in self._kept:
            x = self.sensor(row(sample))
            started = time.perf_counter()
            with torch.inference_mode():
                spikes = self.module(x)
            self._kept[sample] = spikes, round((time.perf_counter() - started) * 1e6)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[sample]

    def features(self, sample: int, first: int, steps: int, flags: int = 0) -> Message:
        """Steps [first, first + steps) of a sample, packed or coded; ValueError for steps outside 0 … T."""
        T = self.shape[0]
        check("steps", (first, steps), 0 <= first < first + steps <= T, f"at least one of 0 to {T}")
        spikes, micros = self.spikes(sample)
        payload, coded = self._bits(spikes[first : first + steps])
        shape = tuple(self.shape[2:])
        return Message(Kind.FEATURES, sample, self.part, first, steps, shape, micros, flags | coded, payload)

    def _bits(self, spikes: Tensor) -> tuple[bytes, int]:
        """Spikes [T', 1, C, H, W] as they are sent, and the flag that says how."""
        packed = pack(spikes, self.emit)
        if self.code is None:
            return packed, 0
        coded = encode_spikes((spikes[:, 0] == self.emit).float(), self.code)
        return (coded, CODED) if len(coded) < len(packed) else (packed, 0)

    def hello(self) -> None:
        """Say which part of which fleet this is."""
        about = {"part": self.part, "steps": self.shape[0], "shape": self.shape[2:]}
        free = self.channel.idle
        if self.channel.send(encode(Message(Kind.HELLO, self.fleet, **about))) and free:
            self.contact.asked()

    @property
    def beat(self) -> float:
        """Seconds between two hellos: more on a slow link."""
        return max(BEAT, self.channel.seconds(HEADER_BYTES) / BEAT_SHARE)

    def _listened(self, m: Message | None) -> None:
        """Say what a message, or none, means for the contact with the server."""
        where = self.channel.address
        if m is None:
            lost = f"no answer from {where}: is the server running, is the address right, do the keys fit?"
            self.contact.check(MISSING + self.beat, lost)
            return
        self.contact.heard()
        if m.kind == Kind.HELLO:
            self.contact.registered(f"registered as part {self.part} at {where}")

    def receive(self, timeout: float) -> Message | None:
        """The next message of the server, or ``None`` after ``timeout`` seconds or for one that is none.

        Raises:
            Refused: if the server says that it does not want this device.
        """
        frames = self.channel.receive(timeout)
        try:
            m = decode(frames[0]) if frames is not None and len(frames) == 1 else None
        except BadMessage:
            return None
        self._listened(m)
        if m is not None and m.kind == Kind.HELLO:
            self.known, self.steps_at_first = True, min(m.first, self.shape[0]) or self.shape[0]
        if m is not None and m.kind == Kind.ERROR and m.sample == 0:
            raise Refused(m.payload.decode(errors="replace"))
        return m

    def request(self, sample: int) -> Message:
        """The first steps of a sample, with the wish for an answer: what a walk sends."""
        return self.features(sample, 0, self.steps_at_first, WANTS_ANSWER)

    def obey(self, m: Message) -> None:
        """Send what a TRIGGER asks for, as soon as the link can take it.

        One for what the sensor or network does not have is left unanswered.
        """
        try:
            found = self.features(m.sample, m.first, m.steps)
        except ValueError:
            return
        self.channel.send(encode(found), SLOW)

    def run(self, stop: threading.Event) -> None:
        """Say hello every now and then and obey triggers, until ``stop`` is set.

        A hello waits until the link is free, and on a slow one for longer: spikes come first.
        """
        said, beat = -math.inf, self.beat
        while not stop.is_set():
            if time.monotonic() - said >= (beat if self.known else BEAT / 4) and self.channel.idle:
                self.hello()
                said = time.monotonic()
            m = self.receive(BEAT / 10)
            if m is not None and m.kind == Kind.TRIGGER and m.part == self.part:
                self.obey(m)


def serve_part(
    part_file: Path | str,
    samples: Path | str,
    address: str,
    keys: Path | str | None = None,
    *,
    up: Rate | None = None,
    down: Rate | None = None,
    stop: threading.Event | None = None,
    contact: Contact | None = None,
) -> None:
    """Be a device that obeys triggers until ``stop`` is set.

    Args:
        part_file: see :func:`open_device`.
        samples: what its sensor sees.
        address: of the server.
        keys: the own folder of keys; needed beyond loopback.
        up: rate of the link towards the server.
        down: rate of the link from the server.
        stop: ends the device.
        contact: says whether the server answers.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: for a damaged file or an address that is not allowed.
        Refused: if the server does not want this device.
    """
    channel = Channel(address, keys, up, down)
    try:
        open_device(part_file, samples, channel, contact).run(stop or threading.Event())
    finally:
        channel.close()


def walk_part(
    part_file: Path | str,
    samples: Path | str,
    address: str,
    keys: Path | str | None = None,
    *,
    rows: Sequence[int],
    up: Rate | None = None,
    down: Rate | None = None,
    contact: Contact | None = None,
    **options,
) -> tuple[list[Answered], float]:
    """Be a device that drives itself through samples.

    Args:
        part_file: see :func:`open_device`.
        samples: what its sensor sees.
        address: of the server.
        keys: the own folder of keys; needed beyond loopback.
        rows: which samples, each once.
        up: rate of the link towards the server.
        down: rate of the link from the server.
        contact: says whether the server answers.
        options: window, timeout, patience of :class:`snnbook.link.walk.Walk`.

    Returns:
        The answers, and the seconds from the first computing to the last of them.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: for a damaged file, an address that is not allowed, or rows that are not there or come twice.
        Refused: if the server does not want this device.
        TimeoutError: if nothing is answered for long.
    """
    channel = Channel(address, keys, up, down)
    try:
        device = open_device(part_file, samples, channel, contact)
        walk = Walk(device, checked_rows(rows, len(device.sensor)), **options)
        answered = walk.run()
        return answered, walk.seconds
    finally:
        channel.close()


def open_device(
    part_file: Path | str, samples: Path | str, channel: Channel, contact: Contact | None = None
) -> Device:
    """A device from its files.

    Args:
        part_file: ``part_<i>.safetensors`` of :func:`snnbook.link.folder.write_fleet`.
        samples: what its sensor sees.
        channel: its socket.
        contact: says whether the server answers; silent by default.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged.
    """
    module, about = store.load(part_file)
    found = {"part": about.get("part"), "emit": about.get("emit")}
    check(str(part_file), found, isinstance(found["part"], int), "the file of a device's part")
    code = None if about.get("code") is None else SpikeModel.read(about["code"])
    emit, fleet = found["emit"] or 1.0, about.get("fleet", 0)
    return Device(found["part"], module, Sensor(samples), channel, emit, code, fleet, contact)
