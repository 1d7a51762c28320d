"""The server's bookkeeping against what was sent, in any order, with any part of it lost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnbook.link import assembly
from snnbook.link.assembly import Assembly
from snnbook.link.folder import Plan
from snnbook.link.messages import HEADER_BYTES, Kind, Message
from snnbook.link.payload import pack

SHAPES = ((2, 3, 3), (1, 4, 4), (3, 2, 2))
T = 4


def plan(**change) -> Plan:
    return Plan(**{"shapes": SHAPES, "time_steps": T, "deadline": 10.0, "in_flight": 3} | change)


def spikes(sample: int, part: int) -> torch.Tensor:
    """What part ``part`` makes of a sample, [T, 1, C, H, W]."""
    generator = torch.Generator().manual_seed(100 * sample + part)
    return (torch.rand(T, 1, *SHAPES[part], generator=generator) < 0.4).float()


def features(sample: int, part: int, first: int = 0, steps: int = T, **change) -> Message:
    payload = pack(spikes(sample, part)[first : first + steps])
    m = Message(Kind.FEATURES, sample, part, first, steps, SHAPES[part], 10 * part + 1, payload=payload)
    return m._replace(**change)


def test_complete_when_all_expected_parts_are_there():
    a = Assembly(plan())
    s = a.begin(1, 0b111, now=0.0)
    assert s.due == 10 and not a.ready(0)
    for part in (2, 0):
        assert a.add(features(1, part)) == "taken"
    assert not a.ready(9.9) and s.mask == 0b101 and a.ready(10) == [s]
    a.add(features(1, 1))
    assert a.ready(0) == [s] and s.mask == 0b111
    assert all(torch.equal(f, spikes(1, i)) for i, f in enumerate(s.features(3)))
    assert s.micros == {0: 1, 1: 11, 2: 21}
    payload = [-(-T * c * h * w // 8) for c, h, w in SHAPES]
    assert s.payload_bytes == sum(payload) and s.framed_bytes == sum(payload) + 3 * (HEADER_BYTES + 2)


def test_what_is_missing_at_half_of_the_deadline_is_asked_for_once():
    a = Assembly(plan(first_steps=1))
    s, later = a.begin(1, 0b101, now=0.0), a.begin(2, 0b111, now=1.0)
    a.add(features(1, 2, 0, 1))
    assert a.next_due() == 5 and not a.to_remind(4.9) and s.missing() == {0: 0}
    assert a.to_remind(5.0) == [(s, [0, 1, 2])] and not a.to_remind(5.9) and a.next_due() == 6
    a.more(s, 2)  # of the parts that have arrived
    assert s.missing() == {2: 1} and later.missing() == {0: 0, 1: 0, 2: 0}
    assert a.to_remind(10.0) == [(later, [0, 1, 2])] and a.next_due() == 10


def test_a_slow_link_is_not_burdened_with_reminders_until_it_is_quick_again():
    a = Assembly(plan(in_flight=20))
    before = a.begin(0, 0b111, now=-1.0)
    a.slow(1)
    assert before.remind == {0: 4, 1: 9, 2: 4}  # open ones too
    s = a.begin(1, 0b111, now=0.0)
    assert s.remind == {0: 5, 1: 10, 2: 5} and a.to_remind(9.9)[1] == (s, [0, 2]) and s in a.ready(10)
    a.slow(1)
    assert s.remind == {1: 10} and a.begin(2, 1, now=20.0).remind[1] == 30  # not behind the deadline
    a.quick(1, 1, now=5.0)  # not within half of the deadline
    assert a.begin(3, 1, now=20.0).remind[1] == 30
    for n in range(7):
        a.quick(2, 1, now=24.9)
        assert a.begin(4 + n, 1, now=20.0).remind[1] == pytest.approx(max(25, 20 + 10 * 0.9 ** (n + 1)))


def test_parts_that_are_not_expected_are_not_waited_for_but_used():
    a = Assembly(plan())
    s = a.begin(1, 0b001, 0.0)
    a.add(features(1, 2))
    assert not a.ready(0)
    a.add(features(1, 0))
    assert a.ready(0) == [s] and s.mask == 0b101 and s.features(3)[1] is None


def test_nobody_expected_is_ready_at_once():
    a = Assembly(plan())
    s = a.begin(1, 0, 0.0)
    assert a.ready(0) == [s] and s.features(3) == [None] * 3


@pytest.mark.parametrize("steps, used, common", [
    ((T, 1, T), 0b101, T), ((2, 2, T), 0b111, 2), ((0, 0, 1), 0b100, 1), ((1, 0, T), 0b100, T), ((2, 4, 0), 0b011, 2),
])  # fmt: skip
def test_a_part_that_has_sent_less_than_the_others_is_left_out(steps, used, common):
    """Most of what has come counts: 2 × 4 steps rather than 3 × 1, 3 × 2 rather than 1 × 4; of equals more parts."""
    a = Assembly(plan())
    s = a.begin(1, 0b111, 0.0)
    for part, n in enumerate(steps):
        _ = n and a.add(features(1, part, 0, n))
    assert (s.used, s.common) == (used, common) and a.ready(10) == [s]
    assert [f is not None and len(f) for f in s.features(3)] == [used >> i & 1 > 0 and common for i in (0, 1, 2)]


def test_features_of_one_part_open_their_share_of_samples_only():
    a = Assembly(plan(in_flight=7))
    opened = [a.begin(i, 1, 0.0, opener=0) for i in range(3)]
    assert [s is None for s in opened] == [False, False, True]  # 7 // 3
    assert a.begin(3, 2, 0.0, opener=1) and [a.begin(4 + i, 1, 0.0) is None for i in range(5)] == [False] * 4 + [True]
    a.forget(opened[0])
    assert a.begin(0, 1, 0.0, opener=0) and a.answered(0) is None
    alone = Assembly(plan(shapes=SHAPES[:1], in_flight=2))
    assert [alone.begin(i, 1, 0.0, opener=0) is None for i in range(3)] == [False, False, True]
    assert Assembly(plan(in_flight=1)).begin(1, 1, 0.0, opener=2)


def test_open_samples_are_bounded_and_closing_makes_room():
    a = Assembly(plan())
    opened = [a.begin(i, 1, 0.0) for i in range(4)]
    assert opened[3] is None and len(a.open) == 3
    a.close(opened[1], b"answer")
    assert a.begin(3, 1, 0.0) is not None and list(a.open) == [0, 2, 3]
    assert a.answered(1) == (0, b"answer") and a.answered(0) is None


def test_answers_are_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(assembly, "REMEMBERED", 3)
    a = Assembly(plan())
    for i in range(5):
        a.close(a.begin(i, 1, 0.0), b"%d" % i)
    assert [a.answered(i) for i in range(5)] == [None, None, (0, b"2"), (0, b"3"), (0, b"4")]


@pytest.mark.parametrize("m, status", [
    (features(1, 0), "taken"),
    (features(1, 0, shape=(2, 9, 1)), "shape"),
    (features(1, 0, payload=b"\0"), "shape"),
    (features(1, 0, payload=b"\xff" * 9), "taken"),
    (features(1, 0, 0, 3, payload=b"\xff" * 7), "shape"),  # 54 spikes and two bits too many
    (features(1, 0, first=1), "shape"),
    (features(1, 0, first=1, steps=3, payload=pack(spikes(1, 0)[1:])), "shape"),  # step 0 is missing
    (features(1, 0, steps=5, payload=bytes(12)), "shape"),
    (features(1, 0, 0, 2), "taken"),
])  # fmt: skip
def test_features_that_are_not_due_are_refused(m, status):
    a = Assembly(plan())
    s = a.begin(1, 0b111, 0.0)
    assert a.add(m) == status and s.mask == (status == "taken")


def test_duplicates_change_nothing():
    a = Assembly(plan())
    s = a.begin(1, 0b111, 0.0)
    assert [a.add(features(1, 0)), a.add(features(1, 0, payload=b"\xff" * 9)), a.add(features(1, 0, 0, 2))] == [
        "taken", "duplicate", "duplicate",
    ]  # fmt: skip
    assert torch.equal(s.features(3)[0], spikes(1, 0)) and s.payload_bytes == 9


def test_further_steps_are_put_behind_the_first():
    a = Assembly(plan(first_steps=1))
    s = a.begin(1, 0b111, 0.0)
    for part in (0, 1):
        a.add(features(1, part, 0, 1))
    assert not a.ready(0)
    a.add(features(1, 2, 0, 1))
    assert a.ready(0) == [s] and all(f.shape[0] == 1 for f in s.features(3))
    a.more(s, 2)
    assert not a.ready(0)
    for part in (0, 1, 2):
        a.add(features(1, part, 1, 2))
    assert a.ready(0) == [s]
    assert all(torch.equal(f, spikes(1, i)[:3]) for i, f in enumerate(s.features(3)))


def test_further_steps_that_are_lost_shorten_the_answer():
    a = Assembly(plan(first_steps=2))
    s = a.begin(1, 0b011, 0.0)
    for part in (0, 1):
        a.add(features(1, part, 0, 2))
    a.more(s, 2)
    a.add(features(1, 1, 2, 2))
    assert not a.ready(9.9) and a.ready(10) == [s]
    found = s.features(3)
    assert [f is None for f in found] == [False, False, True] and s.mask == 0b011
    assert torch.equal(found[0], spikes(1, 0)[:2]) and torch.equal(found[1], spikes(1, 1)[:2])


@pytest.mark.parametrize("emit", [1.0, 0.3])
def test_spikes_get_their_height(emit):
    a = Assembly(plan(emits=(emit, 1.0, 1.0)))
    s = a.begin(1, 1, 0.0)
    a.add(features(1, 0))
    assert torch.equal(s.features(3)[0], spikes(1, 0) * emit)


event = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, T - 1), st.integers(1, T))


@given(st.lists(event, max_size=30))
def test_any_order_and_any_repetition(sent):
    """Each part's spikes are the longest run of steps that has come in order; nothing else is ever shown."""
    a = Assembly(plan())
    opened = {i: a.begin(i, 0b111, 0.0) for i in range(3)}
    done: dict[tuple[int, int], int] = {}
    for sample, part, first, steps in sent:
        steps = min(steps, T - first)
        before = done.get((sample, part), 0)
        status = a.add(features(sample, part, first, steps))
        assert status == ("taken" if first == before else "shape" if first > before else "duplicate")
        if status == "taken":
            done[sample, part] = before + steps
    for i, s in opened.items():
        come = {part: n for (sample, part), n in done.items() if sample == i}
        best = max(range(T + 1), key=lambda n: (n * sum(m >= n for m in come.values()), -n))
        assert s.used == sum(1 << part for part, n in come.items() if n >= best) and s.common == best
        for part, f in enumerate(s.features(3)):
            assert (f is None) == (come.get(part, -1) < best)
            assert f is None or torch.equal(f, spikes(i, part)[:best])
        assert (s in a.ready(0)) == (list(come.values()) == [T] * 3)


@pytest.mark.parametrize("change, match", [
    ({"shapes": ()}, "parts = 0 is not allowed: 1 to 64"), ({"shapes": ((1, 1, 1),) * 65}, "parts = 65"),
    ({"shapes": ((1, 1),)}, "shape = "), ({"shapes": ((0, 1, 1),)}, "shape = "), ({"time_steps": 0}, "time_steps = 0"),
    ({"deadline": 0}, "deadline = 0"), ({"in_flight": 0}, "in_flight"), ({"emits": (1.0,)}, "emits"),
    ({"first_steps": 5}, "first_steps = 5 is not allowed: 0 to 4"), ({"confidence": 1.1}, "confidence"),
    ({"version": 1}, "version = 1 is not allowed: 3"),
])  # fmt: skip
def test_plans_are_checked(change, match):
    with pytest.raises(ValueError, match=match):
        plan(**change)
