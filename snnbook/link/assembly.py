"""Which parts of which samples have arrived: the server's bookkeeping, without sockets, with time as an argument.

A sample is open from the first word of it until it is answered: when all expected parts are there, or at its deadline
with those that are. At half of its deadline, once, what is missing is asked for again, because a message may have been
lost. Where a part's features come twice or too late they were slow and not lost, and a copy makes a slow link slower:
then that is put off, for this part, until its link is quick again. Everything is bounded: open samples, steps of each,
answers remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..checks import check
from .coding import SpikeModel, decode
from .folder import Plan
from .messages import CODED, Message, framed_bytes
from .payload import unpack

#: Answers that are remembered for those who ask again.
REMEMBERED = 1024


@dataclass
class Open:
    """A sample that is not answered yet.

    Attributes:
        sample: its id.
        due: when it is answered with what is there.
        remind: when what is missing of each part is asked for again; without those that were.
        expected: bit mask of the parts that are waited for.
        wanted: time steps that were asked for so far.
        opener: the part whose features opened it; ``None`` if a client asked.
        askers: identities that want the answer.
        server_micros: µs that the server part computed for it so far: again for every request of further steps.
    """

    sample: int
    due: float
    remind: dict[int, float]
    expected: int
    wanted: int
    opener: int | None = None
    askers: set[bytes] = field(default_factory=set)
    spikes: dict[int, list[Tensor]] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    micros: dict[int, int] = field(default_factory=dict)
    server_micros: int = 0
    payload_bytes: int = 0
    framed_bytes: int = 0

    @property
    def mask(self) -> int:
        """Bit mask of the parts of which something has arrived."""
        return sum(1 << part for part in self.spikes)

    def missing(self) -> dict[int, int]:
        """Steps that are there of each expected part that has not sent all that were asked for."""
        expected = (part for part in range(self.expected.bit_length()) if self.expected >> part & 1)
        return {part: self.steps.get(part, 0) for part in expected if self.steps.get(part, 0) < self.wanted}

    def complete(self) -> bool:
        """Whether all expected parts have sent all steps that were asked for."""
        return not self.missing()

    @property
    def common(self) -> int:
        """Steps T' that an answer rests on now: those for which T' × (parts that have as many) is largest.

        So one part that has sent less than the others is left out, and one that has sent more does not leave them out.
        """
        each = self.steps.values()
        return max(set(each), key=lambda steps: (steps * sum(n >= steps for n in each), -steps), default=0)

    @property
    def used(self) -> int:
        """Bit mask of the parts that an answer rests on now."""
        common = self.common
        return sum(1 << part for part, steps in self.steps.items() if steps >= common)

    def features(self, parts: int) -> list[Tensor | None]:
        """The first :attr:`common` spikes [T', 1, C, H, W] of each part; ``None`` for one that has fewer, or none."""
        common, used = self.common, self.used
        return [torch.cat(self.spikes[i])[:common] if used >> i & 1 else None for i in range(parts)]


class Assembly:
    """Open samples and remembered answers.

    Args:
        plan: parts, T, deadline and bounds.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.open: OrderedDict[int, Open] = OrderedDict()
        self._wait = [plan.deadline / 2] * len(plan.shapes)
        self._answers: OrderedDict[int, tuple[int, bytes]] = OrderedDict()
        self._codes = {i: SpikeModel.read(code) for i, code in enumerate(plan.codes) if code is not None}
        for i, code in self._codes.items():
            check(f"shape of code {i}", code.shape, code.shape == plan.shapes[i], f"{plan.shapes[i]} as of its part")

    def begin(self, sample: int, expected: int, now: float, opener: int | None = None) -> Open | None:
        """Open a sample and wait for the parts in ``expected``; ``None`` if as many as allowed are open.

        Features of one part may open its share of them, so that no device keeps all others from being heard.
        """
        own = sum(s.opener == opener for s in self.open.values()) if opener is not None else 0
        if len(self.open) >= self.plan.in_flight or own >= self.plan.in_flight_each:
            return None
        due, remind = now + self.plan.deadline, {part: now + wait for part, wait in enumerate(self._wait)}
        self.open[sample] = Open(sample, due, remind, expected, self.plan.steps_at_first, opener)
        return self.open[sample]

    def add(self, m: Message) -> str:
        """Take the features of an open sample: ``taken`` or ``duplicate``.

        Else ``shape`` if they are not what is due, or ``code`` if they are coded and cannot be decoded.
        """
        sample, plan = self.open[m.sample], self.plan
        done = sample.steps.get(m.part, 0)
        if m.shape != plan.shapes[m.part] or m.first + m.steps > plan.time_steps or m.first > done:
            return "shape"
        if m.first < done:
            return "duplicate"
        try:
            spikes = self._spikes(m)
        except ValueError:
            return "code" if m.flags & CODED else "shape"
        sample.spikes.setdefault(m.part, []).append(spikes)
        sample.steps[m.part] = done + m.steps
        sample.micros[m.part] = max(sample.micros.get(m.part, 0), m.micros)
        sample.payload_bytes += len(m.payload)
        sample.framed_bytes += framed_bytes(len(m.payload))
        return "taken"

    def _spikes(self, m: Message) -> Tensor:
        """Spikes [T', 1, C, H, W] of features whose shape is right; ValueError if the payload stands for none."""
        emit = self.plan.emits[m.part]
        if not m.flags & CODED:
            return unpack(m.payload, (m.steps, 1, *m.shape), emit)
        if m.part not in self._codes:
            raise ValueError(f"part {m.part} has no code")
        return decode(m.payload, m.steps, self._codes[m.part]).unsqueeze(1).mul_(emit)

    def more(self, sample: Open, steps: int) -> None:
        """Wait for ``steps`` further time steps of the parts that have arrived."""
        sample.wanted, sample.expected = sample.wanted + steps, sample.mask

    def slow(self, part: int) -> None:
        """Features of a part came twice or too late: it is reminded later, at last not before a sample's deadline."""
        self._wait[part] = min(2 * self._wait[part], self.plan.deadline)
        for sample in self.open.values():
            if part in sample.remind:
                sample.remind[part] = sample.due - self.plan.deadline + self._wait[part]

    def quick(self, sample: int, part: int, now: float) -> None:
        """Features of an open sample came; within half of its deadline they count towards the usual reminder."""
        if now < self.open[sample].due - self.plan.deadline / 2:
            self._wait[part] = max(0.9 * self._wait[part], self.plan.deadline / 2)

    def ready(self, now: float) -> list[Open]:
        """Samples to be answered: complete ones and those whose deadline has come."""
        return [s for s in self.open.values() if now >= s.due or s.complete()]

    def to_remind(self, now: float) -> list[tuple[Open, list[int]]]:
        """Samples with the parts that have had their time, each once, whether anything of them is missing or not."""
        late = [(s, [part for part, at in s.remind.items() if now >= at]) for s in self.open.values()]
        for sample, parts in late:
            for part in parts:
                del sample.remind[part]
        return [found for found in late if found[1]]

    def next_due(self) -> float | None:
        """When the next sample has to be answered or reminded of."""
        return min((at for s in self.open.values() for at in (s.due, *s.remind.values())), default=None)

    def forget(self, sample: Open) -> None:
        """Close a sample without an answer."""
        del self.open[sample.sample]

    def close(self, sample: Open, answer: bytes) -> None:
        """The sample is answered; the answer is remembered for those who ask again."""
        self.forget(sample)
        self._answers[sample.sample] = sample.mask, answer
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def answered(self, sample: int) -> tuple[int, bytes] | None:
        """``(mask, answer)`` of a sample that was answered not long ago."""
        return self._answers.get(sample)
