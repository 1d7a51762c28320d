"""Messages: a fixed layout, exact round trips, and nothing else accepted."""

import struct
import zlib

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnbook.link import garbage as g
from snnbook.link import messages
from snnbook.link.answers import Answer
from snnbook.link.messages import (
    CODED,
    HEADER_BYTES,
    MAX_PAYLOAD,
    WANTS_ANSWER,
    BadMessage,
    Kind,
    Message,
    decode,
    encode,
    framed_bytes,
    row,
    sample_id,
)

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
any_message = st.builds(
    Message, st.sampled_from([k for k in Kind if k != Kind.FEATURES]), u64, u16, u16, u16, st.tuples(u16, u16, u16),
    u32, st.sampled_from([0, WANTS_ANSWER]), st.binary(max_size=300),
)  # fmt: skip


def reason(data: bytes) -> str:
    """Why ``data`` is no message."""
    with pytest.raises(BadMessage) as found:
        decode(data)
    assert isinstance(found.value, ValueError)
    return found.value.reason


def features(steps=2, shape=(3, 2, 2), **other) -> Message:
    n = -(-steps * shape[0] * shape[1] * shape[2] // 8)
    return Message(Kind.FEATURES, 7, 1, 0, steps, shape, payload=bytes(range(n)), **other)


def test_layout_by_hand():
    """Every byte of one message, written out."""
    m = Message(Kind.FEATURES, 0x0102030405060708, 0x0A0B, 1, 2, (3, 4, 5), 0x01020304, WANTS_ANSWER, b"\xff" * 15)
    head = bytes.fromhex("534e4e42 03 04 0b0a 0807060504030201 0100 0200 0300 0400 0500 0100 04030201 0f000000")
    crc = struct.pack("<I", zlib.crc32(head + m.payload))
    assert encode(m) == head + crc + m.payload
    assert HEADER_BYTES == len(head) + 4 == 40


@given(any_message)
def test_round_trip(m):
    assert decode(encode(m)) == m


@given(st.integers(1, 5), st.tuples(*[st.integers(1, 6)] * 3))
def test_features_round_trip(steps, shape):
    assert decode(encode(features(steps, shape))) == features(steps, shape)


@pytest.mark.parametrize("change", [{"part": -1}, {"part": 2**16}, {"sample": 2**64}, {"micros": 2**32},
                                    {"shape": (1, 1, 2**16)}, {"flags": 2**16}, {"part": 0.5}])  # fmt: skip
def test_numbers_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match="message = .* is not allowed"):
        encode(features()._replace(**change))


def test_payloads_are_bounded(monkeypatch):
    with pytest.raises(ValueError, match=f"at most {MAX_PAYLOAD}"):
        encode(Message(Kind.ERROR, payload=bytes(MAX_PAYLOAD + 1)))
    data = encode(Message(Kind.ERROR, payload=bytes(100)))
    monkeypatch.setattr(messages, "MAX_PAYLOAD", 99)
    assert reason(data) == "length"


@pytest.mark.parametrize("bit", range(8 * HEADER_BYTES + 16))
def test_every_flipped_bit_is_found(bit):
    data = bytearray(encode(features()))
    data[bit // 8] ^= 1 << bit % 8
    expected = "magic" if bit < 32 else "length" if 256 <= bit < 288 else "crc"
    assert reason(bytes(data)) == expected


@pytest.mark.parametrize("length", range(HEADER_BYTES + 3))
def test_every_cut_is_found(length):
    assert reason(encode(features())[:length]) == "length"


def test_something_behind_it_is_found():
    assert reason(encode(features()) + b"\0") == "length"


@pytest.mark.parametrize("place, value, expected", [
    (4, 0, "version"), (4, 1, "version"), (5, 0, "kind"), (5, 8, "kind"), (5, 255, "kind"),
    (26, 4, "flags"), (26, 2, "shape"), (27, 1, "flags"),
    (18, 3, "shape"), (18, 0, "shape"), (20, 0, "shape"), (25, 255, "shape"),
])  # fmt: skip
def test_a_right_checksum_is_not_enough(place, value, expected):
    data = bytearray(encode(features()))
    data[place] = value
    assert reason(g.checked(bytes(data))) == expected


def test_coded_features_are_shorter_than_packed_ones():
    m = features(2, (1, 4, 4))
    coded = m._replace(flags=CODED, payload=m.payload[:-1])
    assert decode(encode(coded)) == coded and decode(encode(coded._replace(payload=b""))).payload == b""
    assert reason(encode(m._replace(flags=CODED))) == "shape" == reason(encode(m._replace(payload=m.payload[:-1])))
    assert reason(encode(Message(Kind.ASK, 1, flags=CODED))) == "flags"


def test_an_old_version_is_told_apart_from_a_flipped_bit():
    """Only with its own checksum in order: a device must not be turned away because of noise on the line."""
    data = bytearray(encode(features()))
    data[4] = 0
    assert reason(bytes(data)) == "crc"
    with pytest.raises(BadMessage, match="version 0; this side speaks 3"):
        decode(g.checked(bytes(data)))


@given(u32, u32)
def test_sample_ids(request_, index):
    sample = sample_id(request_, index)
    assert row(sample) == index and sample >> 32 == request_


@pytest.mark.parametrize("request_, index, name", [(-1, 0, "request"), (0, 2**32, "index"), (2**32, 0, "request")])
def test_sample_ids_are_bounded(request_, index, name):
    with pytest.raises(ValueError, match=f"{name} = .* is not allowed: 0 to 2³² − 1"):
        sample_id(request_, index)


@pytest.mark.parametrize("payload, framed", [(64, 106), (215, 257), (216, 265), (1024, 1073)])
def test_framed_bytes(payload, framed):
    """40 bytes of header, and ZMTP 3.1's frame: flags and a length of 1 byte up to 255, else of 8."""
    assert framed_bytes(payload) == framed


# Answers


def answer(steps=3, classes=4, parts=5, mask=0b10111, missing=0) -> Answer:
    logits = torch.randn(steps, 1, classes, generator=torch.Generator().manual_seed(0))
    return Answer(99, logits, mask, tuple(range(100, 100 + parts)), 17, 1234, 1400, missing)


@pytest.mark.parametrize("shape", [
    (3, 4, 5, 0b10111), (1, 1, 1, 1), (2, 10, 64, 2**64 - 1), (4, 7, 2, 0), (1, 2, 1, 1, 3),
])  # fmt: skip
def test_answers_round_trip_bit_for_bit(shape):
    sent = answer(*shape)
    found = Answer.from_message(decode(encode(sent.to_message())))
    assert torch.equal(found.logits, sent.logits) and found.logits.dtype == torch.float32
    for name in ("sample", "mask", "part_micros", "server_micros", "payload_bytes", "framed_bytes", "missing_steps"):
        assert getattr(found, name) == getattr(sent, name)
    assert found.partial == (shape[3] != 2 ** shape[2] - 1 or len(shape) == 5)


@pytest.mark.parametrize("change", [{"part": 4}, {"steps": 2}, {"shape": (5, 1, 1)}, {"payload": b""},
                                    {"kind": Kind.ERROR}])  # fmt: skip
def test_answers_that_do_not_fit_their_header_are_refused(change):
    with pytest.raises(BadMessage, match="are no answer of"):
        Answer.from_message(answer().to_message()._replace(**change))


# Malformed messages


@pytest.mark.parametrize("kind", g.KINDS, ids=lambda k: k.__name__)
def test_each_kind_of_garbage_is_what_it_says(kind):
    generator, refused = np.random.default_rng(0), 0
    for _ in range(300):
        try:
            decode(kind(generator))
        except BadMessage:
            refused += 1
    in_order = kind.__name__ in ("misplaced", "homeless")
    assert refused == (0 if in_order else 300)


def test_garbage_is_the_same_for_the_same_seed():
    assert list(g.garbage(50, 1)) == list(g.garbage(50, 1)) != list(g.garbage(50, 2))


def test_a_hundred_thousand_malformed_messages_cost_no_memory():
    """What is decoded at all is in order; nothing but BadMessage is raised; nothing stays behind."""
    def some(n: int, seed: int) -> int:
        accepted = 0
        for frames in g.garbage(n, seed):
            try:
                m = decode(frames[0])
                accepted += 1
                assert encode(m) == frames[0]
            except BadMessage:
                pass
        return accepted

    some(5000, 0)
    resident = psutil.Process().memory_info().rss
    assert some(100_000, 1) == 2 * (100_000 // 7)
    assert psutil.Process().memory_info().rss - resident < 4 * 2**20
