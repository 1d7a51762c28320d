"""Spikes as bits: against bits that are set one by one, for any shape, and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnbook.link import payload
from snnbook.link.payload import pack, packed_bytes, unpack


def spikes_of(shape: tuple[int, ...], seed: int, rate: float = 0.3) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def by_hand(spikes: torch.Tensor) -> bytes:
    """Bit i of the flat spikes is bit 7 − i mod 8 of byte ⌊i/8⌋."""
    out = bytearray(-(-spikes.numel() // 8))
    for i, s in enumerate(spikes.flatten().tolist()):
        out[i // 8] |= int(s) << (7 - i % 8)
    return bytes(out)


shapes = st.lists(st.integers(0, 9), min_size=0, max_size=5).map(tuple)


@given(shapes, st.integers(0, 2**31), st.sampled_from([0.0, 0.2, 1.0]))
def test_pack_is_the_bits_one_by_one_and_unpack_its_inverse(shape, seed, rate):
    spikes = spikes_of(shape, seed, rate)
    data = pack(spikes)
    assert data == by_hand(spikes) and len(data) == packed_bytes(shape)
    found = unpack(data, shape)
    assert found.dtype == torch.float32 and torch.equal(found, spikes)


def test_time_comes_first_and_the_first_spike_is_the_highest_bit():
    spikes = torch.zeros(2, 1, 2, 2)
    spikes[0, 0, 0, 0] = spikes[1, 0, 1, 1] = spikes[1, 0, 0, 0] = 1
    assert pack(spikes) == bytes([0b10001001])


def test_more_than_one_block(monkeypatch):
    monkeypatch.setattr(payload, "BLOCK", 16)
    spikes = spikes_of((3, 5, 7), 0)
    assert pack(spikes) == by_hand(spikes) and torch.equal(unpack(pack(spikes), spikes.shape), spikes)


def test_blocks_end_at_a_byte():
    assert payload.BLOCK % 8 == 0
    spikes = spikes_of((payload.BLOCK + 3,), 1)
    assert pack(spikes) == np.packbits(spikes.bool().numpy()).tobytes()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_any_number_type(dtype):
    spikes = spikes_of((4, 3, 5), 2)
    assert pack(spikes.to(dtype)) == pack(spikes)
    assert torch.equal(unpack(pack(spikes), spikes.shape, dtype=dtype), spikes.to(dtype))


def test_layout_in_memory_and_gradients_do_not_matter():
    spikes = spikes_of((2, 3, 4, 5), 3)
    assert pack(spikes.to(memory_format=torch.channels_last)) == pack(spikes)
    assert pack(spikes.mT.contiguous().mT) == pack(spikes) and pack(spikes.requires_grad_()) == by_hand(spikes)


def test_spikes_of_another_height():
    spikes = spikes_of((4, 6), 4) * 0.3
    assert torch.equal(unpack(pack(spikes, emit=0.3), (4, 6), emit=0.3), spikes)
    with pytest.raises(ValueError, match=r"spikes = 0.3\d* is not allowed: 0 or 1"):
        pack(spikes)


def test_minus_zero_is_zero():
    assert pack(torch.tensor([-0.0, 1.0])) == b"\x40"


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan"), float("inf"), 1 + 2**-23, 1e-45])
@pytest.mark.parametrize("place", [0, 3, 2**17 + 5])
def test_anything_but_spikes_is_refused(value, place):
    spikes = torch.zeros(2**17 + 9)
    spikes[1], spikes[place] = 1, value
    with pytest.raises(ValueError, match="spikes = .* is not allowed: 0 or 1"):
        pack(spikes)


@given(st.binary(max_size=6), shapes)
def test_wrong_lengths_are_refused(data, shape):
    if len(data) != packed_bytes(shape):
        with pytest.raises(ValueError, match=f"bytes of data = {len(data)} is not allowed: {packed_bytes(shape)} "):
            unpack(data, shape)


@pytest.mark.parametrize("n", range(1, 8))
def test_bits_after_the_last_spike_are_refused(n):
    assert unpack(bytes([256 - 2 ** (8 - n)]), (n,)).sum() == n
    with pytest.raises(ValueError, match=f"last bits of data = 1 is not allowed: zeros after {n} spikes"):
        unpack(b"\x01", (n,))


def test_what_is_unpacked_does_not_share_memory_with_the_bytes():
    data = bytes(2)
    unpack(data, (16,), dtype=torch.uint8).fill_(1)
    assert data == bytes(2)
