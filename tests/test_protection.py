"""Packets with CRC32 and an LDPC code: corrected, or flagged, never silently wrong."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from snnbook.link.channels import arrived, awgn_soft, bsc, capacity, channel
from snnbook.link.protection import CRC_BYTES, Protection, bit_logits


def payloads(n: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size), dtype=np.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def through_bsc(code: Protection, sent: np.ndarray, ber: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return code.decode(bit_logits(bsc(code.encode(sent), ber, generator(seed)), ber))


@pytest.mark.parametrize("rate", [1.0, 0.9, 0.5, 0.2])
@pytest.mark.parametrize("size", [1, 64, 100])
def test_a_perfect_link_gives_payloads_back(rate, size):
    code, sent = Protection(size, rate, packet_bytes=48), payloads(3, size)
    received, right = through_bsc(code, sent, 0.0)
    assert np.array_equal(received, sent) and right.all() and right.shape == (3, code.packets)
    assert code.encode(sent).shape == (3, code.packets, code.packet_bits)
    assert code.bits == code.packets * code.packet_bits


def test_bits_of_a_packet_without_a_code_are_data_and_crc32():
    sent = payloads(2, 10)
    bits = Protection(10, packet_bytes=5).encode(sent).numpy().astype(np.uint8)
    for n in range(2):
        for i in range(2):
            data = sent[n, 5 * i : 5 * i + 5].tobytes()
            assert np.packbits(bits[n, i]).tobytes() == data + zlib.crc32(data).to_bytes(CRC_BYTES)


@pytest.mark.parametrize(("rate", "ber"), [(0.5, 0.05), (1 / 3, 0.1), (0.2, 0.17)])
def test_the_code_corrects_below_capacity(rate, ber):
    assert rate < capacity(channel("bsc", ber=ber))
    code, sent = Protection(64, rate), payloads(40, 64)
    received, right = through_bsc(code, sent, ber)
    assert right.mean() > 0.9 and np.array_equal(received[right[:, 0]], sent[right[:, 0]])


@pytest.mark.parametrize(("rate", "ber"), [(0.5, 0.15), (0.2, 0.3), (1.0, 0.01)])
def test_beyond_capacity_packets_are_flagged(rate, ber):
    code, sent = Protection(128, rate), payloads(30, 128)
    received, right = through_bsc(code, sent, ber)
    assert not right.any() and not received.any()


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_never_silently_wrong_at_any_error_rate(rate):
    code, seen = Protection(24, rate, packet_bytes=8, iterations=5), set()
    for i, ber in enumerate([0.001, 0.01, 0.05, 0.08, 0.1, 0.12, 0.2, 0.45]):
        sent = payloads(100, 24, seed=i)
        received, right = through_bsc(code, sent, ber, seed=i)
        wrong = (received != sent).reshape(100, 3, 8).any(2)
        assert np.array_equal(~right, wrong)
        seen |= set(right.ravel().tolist())
    assert seen == {True, False}


def test_each_wrong_bit_of_an_unprotected_packet_is_noticed():
    code, sent = Protection(16), payloads(1, 16)
    bits = code.encode(sent)
    for i in range(code.packet_bits):
        bad = bits.clone()
        bad[0, 0, i] = 1 - bad[0, 0, i]
        assert not code.decode(bit_logits(bad, 0.1))[1].any()


def test_flagged_packets_are_zeros_and_others_stay():
    code, sent = Protection(30, packet_bytes=10), payloads(4, 30)
    bits = code.encode(sent)
    bits[:, 1, 3] = 1 - bits[:, 1, 3]
    received, right = code.decode(bit_logits(bits, 0.1))
    assert right.tolist() == [[True, False, True]] * 4
    sent[:, 10:20] = 0
    assert np.array_equal(received, sent)


def test_lost_bytes_are_filled_in_by_the_code():
    code, sent = Protection(64, 0.5), payloads(20, 64)
    bits = code.encode(sent)
    kept = arrived(bits[:, :, None, None], 0.3, 8, generator())[:, :, 0, 0]
    received, right = code.decode(bit_logits(bits * kept, 0.0, kept))
    assert right.mean() > 0.9 and 0.6 < kept.float().mean() < 0.8
    assert np.array_equal(received[right[:, 0]], sent[right[:, 0]])


def test_soft_decisions_correct_more_than_hard_ones():
    code, sent = Protection(64, 0.5), payloads(60, 64)
    soft = awgn_soft(code.encode(sent).double(), -1.0, generator())  # Eb/N0 of a transmitted bit
    hard = bit_logits((soft > 0.5).float(), 0.104)
    softly, hardly = (code.decode(x)[1].mean() for x in (soft.logit(), hard))
    assert softly > 0.9 and hardly < 0.5


def test_random_state_is_left_alone():
    before = torch.get_rng_state()
    through_bsc(Protection(20, 0.5), payloads(2, 20), 0.05)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "options",
    [{"payload_bytes": 0}, {"rate": 0.1}, {"rate": 0.95}, {"packet_bytes": 0}, {"packet_bytes": 475},
     {"iterations": 0}],  # fmt: skip
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Protection(**{"payload_bytes": 10} | options)


@pytest.mark.parametrize("rate", [0.2, 0.25, 0.3, 0.33, 0.34, 0.9])
def test_the_largest_packet_is_encoded_at_every_rate(rate):
    code, sent = Protection(474, rate, packet_bytes=474), payloads(1, 474)
    bits = code.encode(sent)
    assert bits.shape == (1, 1, code.packet_bits)
    assert np.array_equal(code.decode(20 * (2 * bits - 1))[0], sent)


def test_other_shapes_are_refused():
    code = Protection(10)
    for bad in (np.zeros((2, 9), np.uint8), np.zeros((2, 10)), np.zeros(10, np.uint8)):
        with pytest.raises(ValueError, match="payloads"):
            code.encode(bad)
    with pytest.raises(ValueError, match="logits"):
        code.decode(torch.zeros(2, 1, 5))
    with pytest.raises(ValueError, match="ber"):
        bit_logits(torch.zeros(2), 0.5)
