"""The server: registers devices, triggers them, assembles what they send, fuses and answers.

One loop, one thread. Whatever arrives is either a message that is expected now, or it is counted and dropped.

A trigger, or what a device answers to it, may be lost on the way. Devices that are expected and not done are therefore
triggered again whenever somebody repeats the request for an open sample, and once at half of its deadline, unless
features are slow rather than lost (:mod:`snnbook.link.assembly`). A device that comes in, or comes back, is triggered
for all open samples that wait for it; a sample that is asked for while no device is there waits for all of them. What
comes twice is dropped; what has not come at the deadline is missing in the answer, which says so.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .answers import Answer
from .assembly import Assembly, Open
from .folder import Plan, read_plan, read_server
from .keys import may_be
from .messages import WANTS_ANSWER, BadMessage, Kind, Message, decode, encode
from .transport import SILENCE_MS, Listener, silent

#: Messages that are taken in one turn before answers get theirs.
TURN = 64
#: Seconds of silence after which a device that lets a deadline pass is taken for gone, until it says hello again.
SILENCE = SILENCE_MS / 1000
#: Longest wait in seconds of one turn, so that a stop is noticed.
LONGEST_WAIT = 0.2
#: Seconds in which the same trouble is said once.
PAUSE = 10.0

ServerPart = Callable[[Sequence[Tensor | None]], Tensor]


class Server:
    """State of one server.

    Args:
        plan: parts, T, deadline and bounds.
        module: the server part: P features or ``None`` to logits [T, 1, K].
        listener: its socket.
        say: called with a line of text when a device comes, goes or is refused, and when handshakes fail.

    Attributes:
        where: identity of each part's device, as far as one is there.
        arrivals: how often a new device came in for each part.
        hellos: how often a device of each part said hello.
        counts: what was done, and what was dropped and why.
    """

    def __init__(self, plan: Plan, module: ServerPart, listener: Listener, say: Callable[[str], None] = silent):
        self.plan, self.module, self.listener, self.say = plan, module, listener, say
        self.assembly = Assembly(plan)
        self.where: dict[int, bytes] = {}
        self._heard: dict[int, float] = {}
        self.arrivals, self.hellos = [0] * len(plan.shapes), [0] * len(plan.shapes)
        self.counts: Counter[str] = Counter()
        self._said: dict[object, float] = {}
        self._does = {
            Kind.HELLO: self._hello, Kind.ASK: self._ask, Kind.FEATURES: self._features, Kind.STATUS: self._status,
        }  # fmt: skip

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set."""
        self.warm_up()
        while not stop.is_set():
            self.turn()

    def warm_up(self) -> None:
        """Run the server part once on no features, so that the first sample is as fast as the others."""
        with torch.inference_mode():
            self.module([None] * len(self.plan.shapes))

    def turn(self) -> None:
        """Wait for messages or the next deadline, take what is there, answer what is due."""
        due = self.assembly.next_due()
        wait = LONGEST_WAIT if due is None else min(LONGEST_WAIT, max(0.0, due - time.monotonic()))
        for _ in range(TURN):
            received = self.listener.receive(wait)
            if received is None:
                break
            self._take(*received)
            wait = 0.0
        for sample in self.assembly.ready(time.monotonic()):
            self._answer(sample)
        for sample, parts in self.assembly.to_remind(time.monotonic()):
            self._remind(sample, parts)
        self._count_failures()

    def _count_failures(self) -> None:
        """Count handshakes that failed: their peers never come as far as a message."""
        failed = self.listener.failed_handshakes()
        if failed:
            self.counts["failed handshakes"] += failed
            so_far = self.counts["failed handshakes"]
            self._say_once("handshake", f"{so_far} handshakes failed so far: somebody has no keys, or others")

    def _say_once(self, about: object, text: str) -> None:
        """Say a line, unless one about the same was said a moment ago."""
        now = time.monotonic()
        if now - self._said.get(about, -PAUSE) >= PAUSE:
            self._said[about] = now
            self.say(text)

    def _take(self, peer: bytes, frames: list[bytes], name: str | None) -> None:
        try:
            if len(frames) != 1:
                raise BadMessage("frames", f"{len(frames)} frames instead of one")
            m = decode(frames[0])
            if m.kind not in self._does:
                raise BadMessage("kind", f"a server takes no {m.kind.name}")
        except BadMessage as bad:
            self.counts[f"bad {bad.reason}"] += 1
            if bad.reason == "version":
                self._refuse(peer, "version", str(bad))
            return
        if m.kind in (Kind.HELLO, Kind.FEATURES) and not may_be(name, m.part):
            self._refuse_key(peer, m, name)
        else:
            self._does[m.kind](peer, m)

    def _send(self, peer: bytes, m: Message) -> bool:
        sent = self.listener.send(peer, encode(m))
        self.counts["unsent"] += not sent
        return sent

    def _error(self, peer: bytes, text: str, sample: int = 0) -> None:
        self._send(peer, Message(Kind.ERROR, sample, payload=text.encode()))

    def _refuse(self, peer: bytes, about: object, text: str) -> None:
        """Tell a device, and whoever watches the server, why it is not wanted."""
        self._error(peer, text)
        self._say_once(about, f"refused: {text}")

    def _refuse_key(self, peer: bytes, m: Message, name: str | None) -> None:
        """Drop what is said for a part with another key than its own; who says hello is told."""
        self.counts["refused key"] += 1
        if m.kind == Kind.HELLO:
            self._refuse(peer, (self._slot(m.part), name), f"the key of {name} is not that of part {m.part}")

    def _hello(self, peer: bytes, m: Message) -> None:
        """A device that belongs here is registered; the last one of a part is the one that counts."""
        shapes, T = self.plan.shapes, self.plan.time_steps
        wrong = self._stranger(m)
        if wrong:
            self.counts["refused hello"] += 1
            self._refuse(peer, self._slot(m.part), wrong)
            return
        arrives = self.where.get(m.part) != peer
        self.arrivals[m.part] += arrives
        self.hellos[m.part] += 1
        self.where[m.part], self._heard[m.part] = peer, time.monotonic()
        if arrives:
            self.say(f"part {m.part} came: {self._here()}")
        self._send(peer, Message(Kind.HELLO, part=len(shapes), first=self.plan.steps_at_first, steps=T))
        for sample in self.assembly.open.values() if arrives else ():
            self._remind(sample, [m.part])

    def _slot(self, part: int) -> int:
        """``part``, or one number for all that are not expected: what is remembered of refusals stays bounded."""
        return min(part, len(self.plan.shapes))

    def _here(self) -> str:
        return f"{len(self.where)} of {len(self.plan.shapes)} devices are here"

    def _gone(self, part: int, why: str) -> None:
        """Forget a device until it says hello again."""
        del self.where[part]
        self.say(f"part {part} is gone ({why}): {self._here()}")

    def _stranger(self, m: Message) -> str:
        """Why the device that says hello does not belong here: part, shape, T, weights. "" if it does."""
        shapes, T = self.plan.shapes, self.plan.time_steps
        if m.part >= len(shapes) or (m.shape, m.steps) != (shapes[m.part], T):
            due = f"{shapes[m.part]}, T = {T}" if m.part < len(shapes) else f"parts 0 to {len(shapes) - 1}"
            return f"part {m.part} with {m.shape}, T = {m.steps}, is not expected here: {due}"
        if m.sample != self.plan.fleet:
            return f"part {m.part} is of fleet {m.sample} and this server of {self.plan.fleet}: copy its file anew"
        return ""

    def _trigger(self, sample: int, parts: Sequence[int], first: int, steps: int) -> int:
        """Ask devices for steps [first, first + steps); bit mask of those that could be asked."""
        m, asked = Message(Kind.TRIGGER, sample, first=first, steps=steps), 0
        for part in parts:
            if self._send(self.where[part], m._replace(part=part)):
                asked |= 1 << part
            else:
                self._gone(part, "no connection")
        return asked

    def _remind(self, sample: Open, parts: Collection[int]) -> None:
        """Trigger those of ``parts`` again that are expected and not done, from the first step that is missing."""
        for part, done in sample.missing().items():
            if part in self.where and part in parts:
                self.counts["triggered again"] += 1
                self._trigger(sample.sample, [part], done, sample.wanted - done)

    def _ask(self, peer: bytes, m: Message) -> None:
        """A client wants a sample, or asks for it again; one that was answered before is answered from memory."""
        if self._again(peer, m.sample):
            return
        sample = self.assembly.open.get(m.sample) or self.assembly.begin(m.sample, 0, time.monotonic())
        if sample is None:
            self.counts["busy"] += 1
            self._error(peer, "busy", m.sample)
        elif not sample.askers:
            self.counts["asked"] += 1
            everybody = 2 ** len(self.plan.shapes) - 1
            sample.expected = self._trigger(m.sample, list(self.where), 0, sample.wanted) or everybody
        elif peer in sample.askers:
            self._remind(sample, self.where)
        if sample is not None:
            sample.askers.add(peer)

    def _again(self, peer: bytes, sample: int) -> bool:
        """Whether the sample was answered already; the answer is sent again."""
        found = self.assembly.answered(sample)
        if found is not None:
            self.counts["answered again"] += 1
            self.listener.send(peer, found[1])
        return found is not None

    def _features(self, peer: bytes, m: Message) -> None:
        """Spikes of one device; with WANTS_ANSWER they may open a sample that nobody asked for."""
        if m.part >= len(self.plan.shapes):
            self.counts["bad part"] += 1
        elif self.where.get(m.part) != peer:
            self.counts["unregistered"] += 1
        elif m.sample in self.assembly.open:
            self._add(peer, m)
        else:
            self._begin(peer, m)

    def _begin(self, peer: bytes, m: Message) -> None:
        """Open a sample for features that want an answer, unless it was answered or there is no room.

        If they are what is due, the other devices are triggered; else the sample is forgotten.
        """
        found = self.assembly.answered(m.sample)
        if not m.flags & WANTS_ANSWER or found is not None:
            late = found is None or not found[0] >> m.part & 1
            self.counts["late" if late else "duplicate"] += 1
            self.assembly.slow(m.part)
            if m.flags & WANTS_ANSWER:
                self._again(peer, m.sample)
            return
        opened = self.assembly.begin(m.sample, 1 << m.part, time.monotonic(), m.part)
        if opened is None:
            self.counts["busy"] += 1
            self._error(peer, "busy", m.sample)
        elif self._add(peer, m) != "taken":
            self.assembly.forget(opened)
        else:
            self.counts["asked"] += 1
            others = [part for part in self.where if part != m.part]
            opened.expected |= self._trigger(m.sample, others, 0, opened.wanted)

    def _add(self, peer: bytes, m: Message) -> str:
        """Take features of an open sample, as :meth:`snnbook.link.assembly.Assembly.add` does."""
        self._heard[m.part] = time.monotonic()
        status = self.assembly.add(m)
        self.counts[{"taken": "features", "shape": "bad shape", "code": "bad code"}.get(status, status)] += 1
        if status == "taken":
            self.assembly.quick(m.sample, m.part, time.monotonic())
        elif status == "duplicate" and not m.flags & WANTS_ANSWER:
            self.assembly.slow(m.part)
        if m.flags & WANTS_ANSWER:
            self.assembly.open[m.sample].askers.add(peer)
            if status == "duplicate":
                self._remind(self.assembly.open[m.sample], self.where)
        return status

    def _status(self, peer: bytes, m: Message) -> None:
        found = {
            "parts": sorted(self.where), "arrivals": self.arrivals, "hellos": self.hellos,
            "open": len(self.assembly.open), "counts": dict(self.counts),
        }  # fmt: skip
        self._send(peer, m._replace(payload=json.dumps(found).encode()))

    def _answer(self, sample: Open) -> None:
        """Fuse what is there; ask for further time steps instead, if that is planned and the server is unsure."""
        started = time.perf_counter()
        features = sample.features(len(self.plan.shapes))
        with torch.inference_mode():
            logits = self.module(features).float().contiguous()
        sample.server_micros += round((time.perf_counter() - started) * 1e6)
        if self._wants_more(sample, logits):
            return
        self._miss(sample)
        parts = tuple(sample.micros.get(i, 0) for i in range(len(features)))
        spent = sample.server_micros, sample.payload_bytes, sample.framed_bytes
        answer = Answer(sample.sample, logits, sample.used, parts, *spent, sample.wanted - sample.common)
        data = encode(answer.to_message())
        self.assembly.close(sample, data)
        self.counts["answered"] += 1
        self.counts["partial"] += answer.partial
        for peer in sample.askers:
            self.counts["unsent"] += not self.listener.send(peer, data)

    def _miss(self, sample: Open) -> None:
        """Forget devices that let the sample's deadline pass and have not been heard of for long."""
        for part in [part for part in self.where if (sample.expected & ~sample.mask) >> part & 1]:
            if time.monotonic() - self._heard[part] > SILENCE:
                self._gone(part, "silent")
                self.counts["silent"] += 1

    def _wants_more(self, sample: Open, logits: Tensor) -> bool:
        """Whether further time steps were asked for: steps are left, time is left, and no class is probable enough."""
        left = min(self.plan.first_steps, self.plan.time_steps - sample.wanted)
        on_time = time.monotonic() < sample.due and sample.mask
        sure = logits.mean(0).softmax(-1).max() >= self.plan.confidence
        if left <= 0 or not on_time or sure:
            return False
        arrived = [part for part in self.where if sample.mask >> part & 1]
        asked = self._trigger(sample.sample, arrived, sample.wanted, left)
        self.counts["asked for more"] += 1
        self.assembly.more(sample, left)
        sample.expected = asked
        return True


def serve(
    folder: Path | str,
    address: str = "tcp://127.0.0.1:*",
    keys: Path | str | None = None,
    *,
    stop: threading.Event | None = None,
    ready: Callable[[str], None] = print,
    say: Callable[[str], None] = silent,
    deadline: float | None = None,
) -> Server:
    """Serve a fleet's folder until ``stop`` is set.

    Args:
        folder: needs ``fleet.json`` and ``server.safetensors`` only.
        address: where to listen; port ``*`` takes a free one.
        keys: the server's folder of keys; needed beyond loopback.
        stop: ends the server.
        ready: called with the address once the server listens.
        say: see :class:`Server`.
        deadline: seconds, instead of the plan's.

    Returns:
        The server, stopped, with its counters.

    Raises:
        ValueError: for a damaged folder or an address that is not allowed.
    """
    plan = read_plan(folder)
    plan = plan if deadline is None else Plan(**{**vars(plan), "deadline": deadline})
    module = read_server(folder, plan)
    listener = Listener(address, keys)
    try:
        server = Server(plan, module, listener, say)
        server.warm_up()
        ready(listener.address)
        server.run(stop or threading.Event())
        return server
    finally:
        listener.close()
